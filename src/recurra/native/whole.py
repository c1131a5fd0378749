"""A step on whole tensors, without rows that are alike, as a graph: what learning one step at a time is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from . import operations as _operations  # noqa: F401  known by being imported
from .autodiff import Unsupported
from .graph import BOOLEAN, FLOAT, INTEGER, Graph, Node, contiguous
from .trace import _decompositions, _is_view, _Reader, _without_writes, kind

aten = torch.ops.aten

Step = Callable[[list[Tensor], list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]

_MOST_OPERATIONS = 6000
_LARGEST_CONSTANT = 2**22


@dataclass
class Whole:
    """A step as a graph whose one row is everything.

    Args:
        graph: holds the nodes.
        outputs, states: what the step gives.
        inputs, old, fixed: leaves ("x", "s", "p"), in the order given.
        constants: what leaves ("k", i) hold.
    """

    graph: Graph
    outputs: list[Node]
    states: list[Node]
    inputs: list[Node]
    old: list[Node]
    fixed: list[Node]
    constants: list[Tensor]


def capture_whole(step: Step, fixed: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor]) -> Whole:
    """Run one step on tensors without contents, and turn what it does into a graph.

    Args:
        step: from lists of fixed tensors, inputs and states to lists of outputs and next states. Tensors of its own are
            taken as they are now.
        fixed, inputs, states: tensors of the right form.

    Raises:
        Unsupported: an operation that has no native form, or a step that looks at its data.
    """
    counts: list[int] = []

    def flat(p: list[Tensor], x: list[Tensor], s: list[Tensor]) -> list[Tensor]:
        outputs, new = step(p, x, s)
        counts.append(len(outputs))
        return [*outputs, *new]

    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = [[torch.empty(t.shape, dtype=t.dtype) for t in group] for group in (fixed, inputs, states)]
        try:
            module = make_fx(flat, decomposition_table=_whole_decompositions())(*fake)
        except Exception as error:  # whatever a stranger's rule does with tensors that have no contents
            reason = (str(error).splitlines() or [""])[0][:150] or type(error).__name__
            raise Unsupported(f"the step could not be traced ({reason})") from error
    count = sum(n.op == "call_function" for n in module.graph.nodes)
    if count > _MOST_OPERATIONS:
        raise Unsupported(f"the step has {count} operations, and more than {_MOST_OPERATIONS} would take long to build")
    reader = _WholeReader(module, (len(fixed), len(inputs), len(states)))
    return reader.read_whole(counts[-1])


def _whole_decompositions() -> dict[Any, Any]:
    return {op: f for op, f in _decompositions().items() if op not in _MOVES}


class _Folding(Graph):
    """Leaves out what zeros and ones make superfluous."""

    def elementwise(self, op: str, *args: Node, dtype: str | None = None) -> Node:
        """See `Graph.elementwise`."""
        numbers = [_value(a) for a in args]
        shape = torch.broadcast_shapes(*[a.shape for a in args])
        if op == "mul" and args[0].dtype == FLOAT:
            for number, other in ((numbers[0], args[1]), (numbers[1], args[0])):
                if number == 0:
                    return self.const(0.0, shape, FLOAT)
                if number == 1:
                    return self.expand(other, shape)
        elif op in ("add", "sub") and args[0].dtype == FLOAT:
            if numbers[1] == 0:
                return self.expand(args[0], shape)
            if numbers[0] == 0:
                return (
                    self.expand(args[1], shape)
                    if op == "add"
                    else super().elementwise("neg", self.expand(args[1], shape))
                )
            if op == "add" and args[0].op == args[1].op == "assemble" and args[0].shape == args[1].shape:
                joined = self._joined(*args)
                if joined is not None:
                    return joined
        elif op == "div" and numbers[1] == 1 and args[0].dtype == FLOAT:
            return self.expand(args[0], shape)
        elif op == "where" and numbers[0] is not None:
            return self.expand(args[1] if numbers[0] else args[2], shape)
        elif op == "where" and args[1] is args[2]:
            return self.expand(args[1], shape)
        elif op == "cast" and numbers[0] is not None and dtype is not None:
            return self.const(numbers[0], shape, dtype)
        elif op == "stop":
            return args[0]
        elif op in _COMPARED and None not in numbers:
            return self.const(_COMPARED[op](*numbers), shape, BOOLEAN)
        elif op == "and":
            for number, other in ((numbers[0], args[1]), (numbers[1], args[0])):
                if number is not None:
                    return self.expand(other, shape) if number else self.const(False, shape, BOOLEAN)
        if op in ("mul", "neg") and any(a.op == "assemble" and _holes(a) and a.shape == shape for a in args):
            return self._through(op, args, shape)
        return super().elementwise(op, *args, dtype=dtype)

    def reduce(self, what: str, node: Node, dims: Sequence[int]) -> Node:
        """See `Graph.reduce`; sums over dimensions of one element are views."""
        own = sorted(d % len(node.shape) for d in dims) if node.shape else []
        if own and all(node.shape[d] == 1 for d in own):
            return self.reshape(node, [n for d, n in enumerate(node.shape) if d not in own])
        if what == "sum" and _value(node) == 0:
            return self.const(0, [n for d, n in enumerate(node.shape) if d not in own], node.dtype)
        return super().reduce(what, node, dims)

    def _joined(self, a: Node, b: Node) -> Node | None:
        """The sum of two assembled values whose parts touch different places."""
        parts = [*zip(a.args, a.attr), *zip(b.args, b.attr)]
        taken = torch.zeros(max(1, a.size), dtype=torch.bool)
        for part, (offset, strides) in parts:
            if part.size == 0:
                continue
            view = taken.as_strided(part.shape, strides, offset)
            if bool(view.any()):
                return None
            view.fill_(True)
        return self.assemble(a.shape, [(part, *place) for part, place in parts])

    def _through(self, op: str, args: Sequence[Node], shape: tuple[int, ...]) -> Node:
        """A product with something mostly zero: of its parts alone."""
        frame = next(a for a in args if a.op == "assemble" and _holes(a) and a.shape == shape)
        parts = []
        for part, (offset, strides) in zip(frame.args, frame.attr):
            others = [
                part if a is frame else self.view(self.expand(a, shape), part.shape, offset, strides) for a in args
            ]
            parts.append((self.elementwise(op, *others), offset, strides))
        return self.assemble(shape, parts)


_COMPARED = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


def _holes(node: Node) -> bool:
    return sum(a.size for a in node.args) < node.size


def _value(node: Node) -> Any:
    """The number of a constant, None for anything else."""
    if node.op != "const":
        return None
    text = node.attr[0]
    return (
        {"True": True, "False": False}.get(text)
        if node.dtype == BOOLEAN
        else float(text)
        if node.dtype == FLOAT
        else int(text)
    )


_FORMS = {
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.zeros_like.default, aten.ones_like.default,
    aten.full_like.default,
}  # fmt: skip


class _WholeReader(_Reader):
    lead = 0

    def __init__(self, module: fx.GraphModule, counts: tuple[int, int, int]) -> None:
        self.module, self.source, self.counts, self.rows = module, module.graph, counts, 0
        self.graph = _Folding()
        self.placeholders = [n for n in self.source.nodes if n.op == "placeholder"]
        floats = {n.meta["val"].dtype for n in self.placeholders if n.meta["val"].is_floating_point()}
        if len(floats) != 1:
            raise Unsupported("float32 and float64 in one step have no native form")
        (self.real,) = floats
        self.known: dict[fx.Node, Any] = {}
        self.constants: list[Tensor] = []
        self.folded = self._fold()
        self.color = {n: "P" if n in self.folded else "R" for n in self.source.nodes}
        self.source.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output") or _writes(n))
        _without_writes(self.source)

    def _fold(self) -> dict[fx.Node, Any]:
        """Everything that depends on nothing given is computed now, writes in place included."""
        found: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for n in list(self.source.nodes):
                if n.op == "get_attr":
                    found[n] = getattr(self.module, str(n.target))
                elif n.target in _FORMS:  # reads the form of what it is given, and no number
                    like = {a: torch.empty(a.meta["val"].shape, dtype=a.meta["val"].dtype) for a in n.all_input_nodes}
                    found[n] = n.target(*fx.map_arg(n.args, like.__getitem__), **fx.map_arg(n.kwargs, like.__getitem__))
                elif n.op == "call_function" and all(a in found for a in n.all_input_nodes):
                    if (
                        isinstance(n.target, torch._ops.OpOverload)
                        and torch.Tag.nondeterministic_seeded in n.target.tags
                    ):
                        raise Unsupported("the step draws random numbers")
                    found[n] = n.target(
                        *fx.map_arg(n.args, found.__getitem__), **fx.map_arg(n.kwargs, found.__getitem__)
                    )
                elif _writes(n) and isinstance(n.args[0], fx.Node) and n.args[0] in found:
                    if n.args[0].op != "call_function" or _is_view(n.args[0]):
                        raise Unsupported(f"the step writes to a part of a tensor of its own ({n.target})")
                    del found[n.args[0]]  # what was read of it before stays known
        for n in found:
            if _writes(n):  # done
                n.replace_all_uses_with(n.all_input_nodes[0])
        for n in [n for n in reversed(list(self.source.nodes)) if n in found and _writes(n)]:
            self.source.erase_node(n)
            del found[n]
        return found

    def read_whole(self, num_outputs: int) -> Whole:
        """All of it."""
        num_p, num_x, _ = self.counts
        groups: list[list[Node]] = [[], [], []]
        for i, n in enumerate(self.placeholders):
            group = 0 if i < num_p else 1 if i < num_p + num_x else 2
            shape, dtype = self._meta(n)
            leaf = self.graph.leaf("pxs"[group], len(groups[group]), shape, dtype, True)
            groups[group].append(leaf)
            self.known[n] = leaf
        (result,) = next(n for n in self.source.nodes if n.op == "output").args
        values = [self.value(n) for n in result]
        fixed, inputs, old = groups
        return Whole(self.graph, values[:num_outputs], values[num_outputs:], inputs, old, fixed, self.constants)

    # --- what the handlers ask ---

    def _meta(self, n: fx.Node) -> tuple[tuple[int, ...], str]:
        value = n.meta["val"]
        return tuple(int(k) for k in value.shape), kind(value.dtype)

    def any_value(self, n: Any) -> Any:
        """A node of ours."""
        if isinstance(n, fx.Node) and n not in self.known and n in self.folded:
            self.known[n] = self.constant(self.folded[n])
        if isinstance(n, fx.Node) and n not in self.known:
            self._in_order(n)
        return super().any_value(n)

    def _in_order(self, n: fx.Node) -> None:
        """What a value is made of first, so that long chains need no deep recursion."""
        stack = [n]
        while stack:
            node = stack[-1]
            missing = [a for a in node.all_input_nodes if a not in self.known and a not in self.folded]
            if node is n and not missing:
                return
            if node in self.known or not missing:
                stack.pop()
                if node not in self.known:
                    self.known[node] = self._convert(node)
            else:
                stack += missing

    def _convert(self, n: fx.Node) -> Any:
        move = _MOVES.get(n.target)
        if move is not None:
            with suppress(_NotMoved):
                return move(self, n)
        return super()._convert(n)

    def row(self, n: Any, rank: int) -> Node:
        """The value itself."""
        node: Node = self.value(n)
        return node

    def same_everywhere(self, n: fx.Node, value: Any) -> Node:
        """One number in the shape of a value of torch's."""
        return self.graph.const(value, *self._meta(n))

    def iota(self, size: int) -> Node:
        """0, 1, ..., size - 1."""
        found: Node = self.constant(torch.arange(size))
        return found

    def whole_number(self, value: int) -> Node:
        """A constant."""
        return self.graph.const(value, (), INTEGER)

    def inside(self, places: Node, size: int, shape: Sequence[int]) -> Node:
        """Places counted from the front, never outside, in another shape."""
        e = self.graph.elementwise
        from_front = e(
            "where", e("lt", places, self.whole_number(0)), e("add", places, self.whole_number(size)), places
        )
        kept = e("min", e("max", from_front, self.whole_number(0)), self.whole_number(size - 1))
        return self.graph.reshape(kept, shape) if kept.size == prod(shape) else self.graph.expand(kept, shape)

    def constant(self, value: Any) -> Any:
        """A node for numbers that are known."""
        if isinstance(value, list | tuple):
            return [self.constant(v) for v in value]
        if value.is_floating_point() and value.dtype != self.real:
            if value.ndim:
                raise Unsupported(f"a constant of {value.dtype} in a step of {self.real} has no native form")
            value = value.to(self.real)
        dtype = kind(value.dtype)
        shape = tuple(value.shape)
        if value.numel() and bool((value == value.flatten()[0]).all()):
            return self.graph.const(value.flatten()[0].item(), shape, dtype)
        if value.numel() > _LARGEST_CONSTANT:
            raise Unsupported(f"a constant of {value.numel()} elements would take much memory")
        value = value.detach().contiguous()
        place = len(self.constants)
        for i, known in enumerate(self.constants):
            if known.shape == value.shape and known.dtype == value.dtype and torch.equal(known, value):
                place = i
        if place == len(self.constants):
            self.constants.append(value.clone())
        return self.graph.leaf("k", place, shape, dtype, True)

    def moved(self, n: fx.Node, sources: Sequence[fx.Node]) -> Node:
        """An operation that only moves elements, told by moving their numbers."""
        numbers, total, values = {}, 0, []
        for source in sources:
            node = self.value(source)
            shape = node.shape
            numbers[source] = torch.arange(total, total + node.size).reshape(shape)
            values.append(node)
            total += node.size

        def put(a: fx.Node) -> Any:
            if a in numbers:
                return numbers[a]
            if a not in self.folded:
                raise Unsupported(f"{n.target} with places that are computed has no native form")
            return self.folded[a]

        target: Any = n.target
        found = target(*fx.map_arg(n.args, put), **fx.map_arg(n.kwargs, put))
        parts, first = [], 0
        for node in values:
            here = (found >= first) & (found < first + node.size)
            if bool(here.any()):
                parts.append((here, self.picked(node, torch.where(here, found - first, 0))))
            first += node.size
        result = parts[0][1]
        for here, part in parts[1:]:
            result = self.graph.elementwise("where", self.constant(here), part, result)
        return result

    def picked(self, node: Node, places: Tensor) -> Node:
        """Elements at flat places: a view if they lie regularly."""
        shape, offset = tuple(places.shape), int(places.flatten()[0]) if places.numel() else 0
        strides = [int(places.select(d, 1).flatten()[0]) - offset if n > 1 else 0 for d, n in enumerate(shape)]
        regular = torch.full(shape, offset)
        for d, (n, stride) in enumerate(zip(shape, strides)):
            regular = regular + (torch.arange(n) * stride).reshape([n if i == d else 1 for i in range(len(shape))])
        if all(s >= 0 for s in strides) and torch.equal(regular, places):
            return self.graph.view(node, shape, offset, strides)
        if node.op == "const":
            return self.graph.const(_value(node), shape, node.dtype)
        return self.graph.take(node, self.constant(places))


def _writes(n: fx.Node) -> bool:
    return n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable


# --- operations that only move elements ---


class _NotMoved(Exception):
    """The places are computed."""


def _one(r: _WholeReader, n: fx.Node) -> Any:
    if any(a not in r.folded for a in n.all_input_nodes if a is not n.args[0]):
        raise _NotMoved
    return r.moved(n, [n.args[0]])  # type: ignore[list-item]


def _part(r: _WholeReader, n: fx.Node) -> Any:
    """A part of a value replaced: zeros with a part in them where the rest is zero."""
    base: Any = n.args[0]
    source: Any = n.args[1]
    frame = r.value(base)
    if _value(frame) != 0:
        return r.moved(n, [base, source])
    rest: list[Any] = list(n.args[2:])
    view = torch.empty(frame.shape, dtype=torch.int8)
    if n.target is aten.select_scatter.default:
        view = view.select(*rest)
    else:
        dim, limits = (rest or [0])[0], rest[1:]
        view = view[(slice(None),) * (dim % len(frame.shape)) + (slice(*(*limits, None, None)[:3]),)]
    return r.graph.assemble(frame.shape, [(r.value(source), int(view.storage_offset()), view.stride())])


def _added(r: _WholeReader, n: fx.Node) -> Any:
    """Something added or put at known places."""
    put_there = n.target is aten.index_put.default
    base, source = r.value(n.args[0]), n.args[2] if put_there else n.args[3]
    adds = not put_there or (len(n.args) > 3 and bool(n.args[3]))
    if not isinstance(source, fx.Node) or source in r.folded:
        raise Unsupported(f"{n.target} of constants has no native form")
    target: Any = n.target
    given = r.value(source)

    def run(values: Tensor) -> Tensor:
        def put(a: fx.Node) -> Any:
            if a is source:
                return values
            if a is n.args[0]:
                return torch.zeros(base.shape, dtype=torch.int64)
            if a not in r.folded:
                raise Unsupported(f"{n.target} with places that are computed has no native form")
            return r.folded[a]

        found: Tensor = target(*fx.map_arg(n.args, put), **fx.map_arg(n.kwargs, put))
        return found

    if adds and int(run(torch.ones(given.shape, dtype=torch.int64)).max()) > 1:
        raise Unsupported(f"{n.target} at places that repeat has no native form")
    places = run(torch.arange(1, given.size + 1).reshape(given.shape))
    rest = r.graph.const(0.0, base.shape, FLOAT) if adds else base
    moved = r.graph.elementwise("where", r.constant(places > 0), r.picked(given, (places - 1).clamp(min=0)), rest)
    return r.graph.elementwise("add", base, moved) if adds else moved


def _looked_up(r: _WholeReader, n: fx.Node) -> Any:
    """Elements at places that are computed, along dimensions that stand together."""
    with suppress(_NotMoved):
        return _one(r, n)
    node, e = r.value(n.args[0]), r.graph.elementwise
    given: Any = n.args[1]
    dims = [d for d, place in enumerate(given) if place is not None]
    if dims != list(range(dims[0], dims[-1] + 1)):
        raise Unsupported("looking up places of dimensions that stand apart has no native form")
    places = [r.value(given[d]) for d in dims]
    if any(place.dtype != INTEGER for place in places):
        raise Unsupported("looking up places by a mask that is computed has no native form")
    shape, strides = r._meta(n)[0], contiguous(node.shape)
    middle = tuple(torch.broadcast_shapes(*[p.shape for p in places]))
    rest = len(node.shape) - dims[-1] - 1
    flat = r.graph.const(0, shape, INTEGER)
    for d, place in zip(dims, places):
        wide = r.graph.reshape(r.graph.expand(place, middle), (*middle, *[1] * rest))
        flat = e("add", flat, e("mul", r.inside(wide, node.shape[d], wide.shape), r.whole_number(strides[d])))
    for d in [d for d in range(len(node.shape)) if d not in dims]:
        own = [1] * len(shape)
        own[d if d < dims[0] else d - len(node.shape) + len(shape)] = node.shape[d]
        along = r.graph.reshape(r.iota(node.shape[d]), own)
        flat = e("add", flat, e("mul", along, r.whole_number(strides[d])))
    return r.graph.take(node, flat)


def _embedded(r: _WholeReader, n: fx.Node) -> Any:
    """Rows of a table."""
    table, rows = r.value(n.args[0]), r.value(n.args[1])
    size, width = table.shape
    row = r.inside(rows, size, (*rows.shape, 1))
    first = r.graph.elementwise("mul", row, r.whole_number(width))
    return r.graph.take(table, r.graph.elementwise("add", first, r.iota(width)))


def _embedded_back(r: _WholeReader, n: fx.Node) -> Any:
    """What the rows of a table get from each place where they were read."""
    grad, rows, e = r.value(n.args[0]), r.value(n.args[1]), r.graph.elementwise
    size: Any = n.args[2]
    padding, scaled = (*n.args[3:], -1, False)[:2]
    if scaled:
        raise Unsupported("an embedding whose gradient is scaled by frequency has no native form")
    numbers = r.graph.reshape(r.iota(size), (size, 1))
    hit = e("eq", r.graph.reshape(rows, (1, rows.size)), numbers)
    if isinstance(padding, int) and padding >= 0:
        hit = e("and", hit, e("ne", numbers, r.whole_number(padding)))
    return r.graph.matrices(e("cast", hit, dtype=FLOAT), r.graph.reshape(grad, (rows.size, grad.shape[-1])))


_MOVES: dict[Any, Callable[[_WholeReader, fx.Node], Any]] = {
    aten.index.Tensor: _looked_up,
    aten.embedding.default: _embedded,
    aten.embedding_dense_backward.default: _embedded_back,
    aten.index_select.default: _one,
    aten.gather.default: _one,
    aten.flip.default: _one,
    aten.roll.default: _one,
    aten.diagonal.default: _one,
    aten.slice_scatter.default: _part,
    aten.select_scatter.default: _part,
    aten.index_add.default: _added,
    aten.index_put.default: _added,
}
