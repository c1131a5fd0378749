"""One step as torch's graph of elementary operations: what depends on what, and the step with its products cut."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ..core import tree
from ..core.cell import Cell, CompositeCell, FeedbackCell, quiet
from ..core.tree import Tree
from ..engines.native import _aside, _identity, _walk

aten = torch.ops.aten

_MOVES = {
    "_to_copy",
    "_unsafe_view",
    "alias",
    "cat",
    "clone",
    "constant_pad_nd",
    "contiguous",
    "copy",
    "detach",
    "diagonal",
    "expand",
    "flip",
    "lift_fresh_copy",
    "movedim",
    "narrow",
    "permute",
    "repeat",
    "reshape",
    "roll",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
}
_SUMS = {"mm", "addmm", "bmm", "baddbmm", "mv", "dot", "sum", "mean", "convolution", "cumsum"}
"""Sums of products: linear in each of their arguments, and what every element depends on is seen from numbers of one."""

_MOST_ELEMENTS = 2**25


class Untraceable(TypeError):
    """A step that torch cannot write down as a graph; the message says why."""


class StepInputs(NamedTuple):
    """Everything that a step of one row reads, as flat lists, in the order of the graph's placeholders."""

    parameters: list[Tensor]
    buffers: list[Tensor]
    floats: list[Tensor]
    others: list[Tensor]
    rest: list[Tensor]
    masks: list[Tensor]


class StepGraph(NamedTuple):
    """A step of one row (B = 1).

    Args:
        module: from the flat inputs to ``num_states`` floating leaves of the next state, the floating leaves of y, and all
            that is put out or kept by the layers inside.
        counts: how many inputs there are of each kind, see `StepInputs`.
        num_states, num_outputs: how the results are divided.
        y_like: structure of y; its other leaves are None here.
        floating: for each leaf of y, does it float?
    """

    module: fx.GraphModule
    counts: tuple[int, ...]
    num_states: int
    num_outputs: int
    floating: tuple[bool, ...]
    y_like: Tree

    def placeholders(self, kind: int) -> list[fx.Node]:
        """Those of the inputs of one kind, by its place in `StepInputs`."""
        nodes = [n for n in self.module.graph.nodes if n.op == "placeholder"]
        start = sum(self.counts[:kind])
        return nodes[start : start + self.counts[kind]]

    def results(self) -> list[fx.Node]:
        """The nodes of everything that is put out."""
        (found,) = next(n for n in self.module.graph.nodes if n.op == "output").args
        return list(found)


class _Layers(nn.Module):
    """A cell's step with forcing, that also shows what each layer inside puts out and keeps."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tree, state: Tree, forced: Tree, mask: Tensor | None) -> tuple[Tree, Tree, list[Tensor]]:
        """(y, the next state, what layers put out and keep)."""
        found: list[Tensor] = []

        def run(cell: Cell, x: Tree, state: Tree) -> tuple[Tree, Tree]:
            if isinstance(cell, CompositeCell):
                return cell.compose(run, quiet(x), state)
            y, new = cell.step(x, state)
            old = {id(leaf) for leaf in tree.leaves(state)}
            y = tree.map(lambda leaf: leaf.clone() if id(leaf) in old else leaf, y)
            found.extend(leaf for leaf in (*tree.leaves(y), *tree.leaves(new)) if leaf.is_floating_point())
            return y, new

        y, new = run(self.cell, x, state)
        if forced is not None:
            assert isinstance(self.cell, FeedbackCell)
            new = self.cell.force(new, forced, mask)
        return y, new, found


def trace_step(cell: Cell, xs: Tree, states: Tree, forced: Tree = None, force_mask: Tensor | None = None) -> StepGraph:
    """The graph of one step of one row. Only the forms of the given leaves (T, B, ...) are looked at.

    Raises:
        Untraceable: a step that looks at its data, or writes in place.
    """

    def blank(leaf: Tensor) -> Tensor:
        return torch.zeros((1, *leaf.shape[2:]), dtype=leaf.dtype, device=leaf.device)

    with _aside(), torch.no_grad():
        module = _Layers(cell)
        names = [f"cell.{n}" for n, p in cell.named_parameters()]
        buffers = [f"cell.{n}" for n, _ in cell.named_buffers()]
        like = {f"cell.{n}": v for n, v in (*cell.named_parameters(), *cell.named_buffers())}
        one = tree.map(blank, states)
        given = tree.map(blank, (xs, forced))
        flags = [leaf.is_floating_point() for leaf in tree.leaves(one)]
        counted: list[Any] = []

        def flat(inputs: StepInputs) -> list[Tensor]:
            named = {**dict(zip(names, inputs.parameters)), **dict(zip(buffers, inputs.buffers))}
            floats, others = iter(inputs.floats), iter(inputs.others)
            state = tree.unflatten(one, [next(floats if f else others) for f in flags])
            x, force = tree.unflatten(given, inputs.rest)
            mask = inputs.masks[0] if inputs.masks else None
            y, new, found = functional_call(module, named, (x, state, force, mask))
            news = [leaf for leaf, f in zip(tree.leaves(new), flags) if f]
            ys = tree.leaves(y)
            outs = [leaf for leaf in ys if leaf.is_floating_point()]
            counted.append((len(news), len(outs), tuple(leaf.is_floating_point() for leaf in ys), y))
            return [*news, *outs, *found]

        fresh = [torch.zeros(like[n].shape, dtype=like[n].dtype, device=like[n].device) for n in names]
        kept = [like[n] if type(like[n]) in (Tensor, nn.Buffer) else torch.ones_like(like[n]) for n in buffers]
        leaves = tree.leaves(one)
        inputs = StepInputs(
            fresh,
            kept,
            [leaf for leaf, f in zip(leaves, flags) if f],
            [leaf for leaf, f in zip(leaves, flags) if not f],
            tree.leaves(given),
            [] if force_mask is None else [blank(force_mask)],
        )
        try:
            graph = make_fx(flat, decomposition_table=_decompositions())(inputs)
        except Exception as error:  # whatever a stranger's step does
            reason = (str(error).splitlines() or [""])[0][:150] or type(error).__name__
            raise Untraceable(f"the step could not be traced ({reason})") from error
        graph.graph.set_codegen(fx.graph.CodeGen())
        graph.recompile()
        for node in graph.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
                raise Untraceable(f"the step writes in place ({node.target})")
    num_states, num_outputs, floating, y = counted[-1]
    counts = tuple(len(group) for group in inputs)
    return StepGraph(graph, counts, num_states, num_outputs, floating, tree.map(lambda _: None, y))


@lru_cache(maxsize=1)
def _decompositions() -> dict[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def _name(node: fx.Node) -> str:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload) and target.namespace in ("aten", "prims"):
        return str(target._schema.name.split("::")[1])
    return ""


def _is_pointwise(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


def _moves(node: fx.Node) -> bool:
    return _name(node) in _MOVES or node.target is operator.getitem


def cut_products(step: StepGraph) -> StepGraph:
    """The same step, whose gradients take the element-wise way only from the state before.

    Every value that comes from the state before is computed twice: once with the state, once with the state held fixed.
    Whatever mixes elements (products with weights, sums, normalisation) reads the second; so no error travels back in time
    through it. What a layer puts out or keeps is a fresh value for all that comes after it in the same step, in the cell
    itself as in the layers above, and its influence goes on.
    """
    source, made = step.module.graph, fx.Graph()
    fresh = set(step.results())
    held = set(step.placeholders(2))
    live: dict[fx.Node, Any] = {}
    still: dict[fx.Node, Any] = {}
    for node in source.nodes:
        if node.op == "output":
            made.output(tuple(live[n] for n in node.args[0]))
            continue
        twice = any(live[i] is not still[i] for i in node.all_input_nodes)
        mixes = node.op == "call_function" and not _is_pointwise(node) and not _moves(node)
        live[node] = still[node] = made.node_copy(node, lambda n: still[n])
        live[node].meta = dict(node.meta)
        if node in held:
            still[node] = made.call_function(aten.detach.default, (live[node],))
            still[node].meta = dict(node.meta)
        elif twice and not mixes:
            live[node] = made.node_copy(node, lambda n: live[n])
            live[node].meta = dict(node.meta)
            if node in fresh:
                still[node] = live[node]
    made.eliminate_dead_code()
    return step._replace(module=fx.GraphModule(step.module, made))


def element_wise(step: StepGraph) -> StepGraph:
    """The same step, whose gradients take element-wise ways only, from the state and from the parameters.

    What mixes elements passes its error on to values made of parameters alone, that is to weights, and to nothing else. So
    an element of the state depends on its own past and on the weights that feed it.
    """
    source, made = step.module.graph, fx.Graph()
    given = set(step.placeholders(0)) | set(step.placeholders(1))
    done: dict[fx.Node, Any] = {}
    weights: set[fx.Node] = set()
    for node in source.nodes:
        if node.op == "output":
            made.output(tuple(done[n] for n in node.args[0]))
            continue
        if (
            node in given
            or node.op == "get_attr"
            or (node.op == "call_function" and weights.issuperset(node.all_input_nodes))
        ):
            weights.add(node)
        mixes = node.op == "call_function" and not _is_pointwise(node) and not _moves(node)

        def put(n: fx.Node, mixes: bool = mixes) -> fx.Node:
            found: fx.Node = done[n]
            if mixes and n not in weights and _floats(n) and isinstance(n.meta["val"], Tensor):
                found = made.call_function(aten.detach.default, (found,))
                found.meta = dict(n.meta)
            return found

        done[node] = made.node_copy(node, put)
        done[node].meta = dict(node.meta)
    return step._replace(module=fx.GraphModule(step.module, made))


# --- what depends on what ---


class Pattern(NamedTuple):
    """Which derivatives may differ from zero, whatever the numbers are.

    Args:
        passed: (S + Y, S) bool, of the next state and of y by the state before.
        fed: for every parameter (element of the next state, element of the parameter), (2, nnz); None for all of them.
    """

    passed: Tensor
    fed: list[Tensor] | None


def find_pattern(step: StepGraph, learning: Sequence[bool]) -> Pattern:
    """Walk the graph backwards from every element that is put out.

    Args:
        step: the graph.
        learning: for every parameter, does it learn?
    """
    nodes = step.results()
    states, outputs = nodes[: step.num_states], nodes[step.num_states : step.num_states + step.num_outputs]
    sizes = [_shape(n).numel() for n in (*states, *outputs)]
    size = sum(sizes[: len(states)])
    by_states, by_parameters = step.placeholders(2), step.placeholders(0)
    largest = max([1, *[_shape(n).numel() for n in step.module.graph.nodes if _shape(n) is not None]])
    block = max(1, _MOST_ELEMENTS // largest)
    passed: list[Tensor] = []
    fed: list[list[Tensor]] = [[] for _ in by_parameters]
    with _aside(), torch.no_grad():
        total = sum(sizes)
        for a in range(0, total, block):
            b = min(a + block, total)
            found = _walk_back(step.module, [*states, *outputs], sizes, a, b)
            row = [_bools(found, n, b - a) for n in by_states]
            passed.append(torch.cat(row, 1) if row else torch.zeros(b - a, 0, dtype=torch.bool))
            for node, places, learns in zip(by_parameters, fed, learning):
                if learns and a < size and node in found:
                    where = _bools(found, node, b - a)[: max(0, size - a)].nonzero().T
                    places.append(torch.stack([where[0] + a, where[1]]))
    empty = torch.zeros(2, 0, dtype=torch.int64)
    return Pattern(
        torch.cat(passed) if passed else torch.zeros(0, 0, dtype=torch.bool), [torch.cat([empty, *p], 1) for p in fed]
    )


def _bools(found: dict[fx.Node, Tensor], node: fx.Node, rows: int) -> Tensor:
    if node not in found:
        return torch.zeros(rows, _shape(node).numel(), dtype=torch.bool)
    return found[node].reshape(rows, -1) > 0


def _shape(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else None


def _floats(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if isinstance(value, list | tuple):
        return any(isinstance(v, Tensor) and v.is_floating_point() for v in value)
    return isinstance(value, Tensor) and value.is_floating_point()


def _walk_back(
    module: fx.GraphModule, results: list[fx.Node], sizes: list[int], start: int, stop: int
) -> dict[fx.Node, Any]:
    """For elements start:stop of the results (N of them): node -> (N, *shape), above zero where they depend on it."""
    rows = stop - start
    found: dict[fx.Node, Any] = {}

    def add(node: fx.Node, value: Tensor) -> None:
        if _floats(node):
            value = (value > 0).float()
            found[node] = torch.maximum(found[node], value) if node in found else value

    offset = 0
    for node, size in zip(results, sizes):
        inside = range(max(start, offset), min(stop, offset + size))
        if len(inside):
            seed = torch.zeros(rows, size)
            for k in inside:
                seed[k - start, k - offset] = 1
            add(node, seed.reshape(rows, *_shape(node)))
        offset += size
    parts: dict[fx.Node, dict[int, Tensor]] = {}
    for node in reversed(list(module.graph.nodes)):
        if node.op != "call_function":
            continue
        if node.target is operator.getitem:
            if node in found:
                base, index = node.args
                known = parts.setdefault(base, {})
                known[index] = torch.maximum(known[index], found[node]) if index in known else found[node]
            continue
        wanted: Any = found.get(node)
        if node in parts:
            wanted = tuple(
                parts[node].get(i, torch.zeros(rows, *v.shape)) for i, v in enumerate(node.meta["val"]) if v is not None
            )
        if wanted is None or _name(node) == "detach" or not _floats(node):
            continue
        inputs = [i for i in node.all_input_nodes if _floats(i)]
        for i, value in zip(inputs, _pulled_back(node, inputs, wanted, rows)):
            add(i, value)
    return found


def _pulled_back(node: fx.Node, inputs: list[fx.Node], wanted: Any, rows: int) -> list[Tensor]:
    """What N elements behind a node ask of the node's inputs, (N, *shape) each."""
    if _is_pointwise(node) and isinstance(wanted, Tensor):
        return [_unbroadcast(wanted, tuple(_shape(i))) for i in inputs]
    plain = all(_floats(i) for i in node.all_input_nodes)
    if (_name(node) in _MOVES or _name(node) in _SUMS) and plain:
        target: Any = node.target

        def call(*values: Tensor) -> Any:
            put = dict(zip(inputs, values))
            return target(*fx.map_arg(node.args, put.__getitem__), **fx.map_arg(node.kwargs, put.__getitem__))

        ones = [torch.ones(tuple(_shape(i))) for i in inputs]
        kinds = {n.meta["val"].dtype for n in inputs}
        if "dtype" not in node.kwargs or kinds == {torch.float32}:
            pull: Any = vjp(lambda *values: _as_tuple(call(*values)), *ones)[1]
            return list(vmap(pull)(_as_tuple(wanted)))
    everything = torch.stack([w.reshape(rows, -1).amax(1) for w in _as_tuple(wanted) if w.numel()], 1).amax(1)
    return [everything.reshape(rows, *[1] * len(_shape(i))).expand(rows, *_shape(i)) for i in inputs]


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _unbroadcast(wanted: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(N, *broadcast) -> (N, *shape)."""
    extra = wanted.ndim - 1 - len(shape)
    if extra:
        wanted = wanted.amax(tuple(range(1, 1 + extra)))
    spread = [k + 1 for k, n in enumerate(shape) if n == 1 and wanted.shape[k + 1] != 1]
    return wanted.amax(tuple(spread), keepdim=True) if spread else wanted


# --- what is known of a cell ---

_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = weakref.WeakKeyDictionary()
_ALIKE: dict[Any, Any] = {}
_MOST_ALIKE = 512


def remembered(cell: Cell, what: str, leaves: Sequence[Any], make: Callable[[], Any]) -> Any:
    """``make()``, once for a cell as it is: its options, and the forms of its parameters and of ``leaves``.

    Cells that differ in the values of their parameters only share it.
    """
    key = (
        what,
        _walk(cell).settings,
        tuple(p.requires_grad for p in cell.parameters()),
        *[None if leaf is None else (leaf.shape[2:], leaf.dtype) for leaf in leaves],
    )
    known = _KNOWN.setdefault(cell, {})
    if key not in known:
        identity = _identity(cell)
        if identity is None or any(True for _ in cell.buffers()):
            known[key] = make()
        else:
            names = tuple(name for name, _ in cell.named_parameters())
            alike = (identity, names, tuple(type(m) for m in cell.modules()), key)
            if alike not in _ALIKE:
                if len(_ALIKE) >= _MOST_ALIKE:
                    del _ALIKE[next(iter(_ALIKE))]
                _ALIKE[alike] = make()
            known[key] = _ALIKE[alike]
    return known[key]
