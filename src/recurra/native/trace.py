"""From one step in plain torch to a graph, through torch's own tracing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from .autodiff import Unsupported
from .graph import BOOLEAN, FLOAT, INTEGER, Graph, Node

aten = torch.ops.aten
Step = Callable[[list[Tensor], list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


@dataclass(frozen=True)
class Import:
    """A value that the step reads and that does not depend on the state.

    Args:
        node: of torch's graph.
        per_step: depends on the input; else only on parameters.
        shape: of one row (per_step) or of the whole value.
        dtype: torch's.
    """

    node: fx.Node
    per_step: bool
    shape: tuple[int, ...]
    dtype: torch.dtype


class _Calls:
    """Some nodes of torch's graph as a list of calls.

    Args:
        source: the graph.
        wanted: nodes whose values are asked for.
        given: nodes whose values are given.
        rows: the batch size that stands for any in the graph.
    """

    def __init__(self, source: fx.Graph, wanted: Sequence[fx.Node], given: Sequence[fx.Node], rows: int) -> None:
        self.rows = rows
        place = {node: i for i, node in enumerate(given)}
        needed: set[fx.Node] = set()
        stack = list(wanted)
        while stack:
            node = stack.pop()
            if node not in needed and node not in place:
                needed.add(node)
                stack += node.all_input_nodes
        self.calls: list[tuple[Any, Any, Any, bool]] = []
        for node in source.nodes:
            if node in needed:
                place[node] = len(place)
                at: Any = lambda n: _At(place[n])  # noqa: E731
                args: Any = fx.map_arg(node.args, at)
                kwargs: Any = fx.map_arg(node.kwargs, at)
                flat = all(isinstance(a, _At) or not isinstance(a, list | tuple | int) for a in args) and not kwargs
                self.calls.append((node.target, args, kwargs, flat))
        self.wanted = [place[node] for node in wanted]

    def __call__(self, values: list[Any], rows: int) -> list[Any]:
        """The wanted values.

        Args:
            values: of the given nodes.
            rows: the batch size.
        """

        def put(value: Any) -> Any:
            if isinstance(value, _At):
                return values[value.place]
            if isinstance(value, list | tuple):
                return type(value)(put(v) for v in value)
            if isinstance(value, bool) or not isinstance(value, int):
                return value
            return value // self.rows * rows if value and value % self.rows == 0 else value

        for target, args, kwargs, flat in self.calls:
            if flat:
                values.append(target(*[values[a.place] if type(a) is _At else a for a in args]))
            else:
                values.append(target(*[put(a) for a in args], **{k: _looked_up(v, values) for k, v in kwargs.items()}))
        return [values[i] for i in self.wanted]


class _At:
    """The value of a call."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


def _looked_up(value: Any, values: list[Any]) -> Any:
    return values[value.place] if isinstance(value, _At) else value


@dataclass(frozen=True)
class Turned:
    """A value whose batch is not simply its first dimension.

    Args:
        node: of one row, with as many dimensions as torch's value.
        axis: the dimension that holds the batch.
        inner: elements of one row in that dimension, after the batch: (B * inner).
    """

    node: Node
    axis: int
    inner: int


@dataclass
class Traced:
    """A step as a graph, and what torch computes for it beforehand.

    Args:
        graph: holds the nodes.
        outputs: leaves of y.
        states: leaves of the next state.
        state_leaves: leaves of the state that comes in.
        imports: leaves ``("x", k)`` and ``("p", k)`` of the graph.
        source: torch's graph.
        rows: the batch size that stands for any in ``source``.
        results: nodes of ``source`` for the outputs and the states.
    """

    graph: Graph
    outputs: list[Node]
    states: list[Node]
    state_leaves: list[Node]
    imports: list[Import]
    source: fx.Graph
    rows: int
    results: list[fx.Node]
    _before: _Calls | None = None

    def before(self, parameters: Sequence[Tensor], xs: Sequence[Tensor]) -> list[Tensor]:
        """The imports for all steps at once: per-step ones (T * B, ...), the others as they are."""
        if self._before is None:
            given = self._placeholders()[: len(parameters) + len(xs)]
            self._before = _Calls(self.source, [i.node for i in self.imports], given, self.rows)
        values = [t if t.is_contiguous() else t.contiguous() for t in (*parameters, *xs)]  # as they were traced
        return self._before(values, xs[0].shape[0] if xs else 0)

    def step(self, imports: Sequence[Tensor], states: Sequence[Tensor], rows: int) -> tuple[list[Tensor], list[Tensor]]:
        """One step by torch, from the imports of that step: the reference for the machine code."""
        known: dict[fx.Node, Any] = {i.node: value for i, value in zip(self.imports, imports)}
        known.update(zip(self._placeholders()[-len(states) :] if states else [], states))
        values = self._found(self.results, known, rows)
        return values[: len(self.outputs)], values[len(self.outputs) :]

    def placeholders(self) -> list[tuple[int, int]]:
        """(import, number of the placeholder that it is), for imports that are given from outside as they are."""
        order = {node: number for number, node in enumerate(self._placeholders())}
        return [(k, order[i.node]) for k, i in enumerate(self.imports) if i.node in order]

    def _placeholders(self) -> list[fx.Node]:
        return [n for n in self.source.nodes if n.op == "placeholder"]

    def _found(self, nodes: Sequence[fx.Node], known: dict[fx.Node, Any], rows: int) -> list[Any]:
        """Values of nodes, with ``rows`` in place of the batch size that was traced."""

        def size(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(size(v) for v in value)
            if isinstance(value, bool) or not isinstance(value, int):
                return value
            return value // self.rows * rows if value and value % self.rows == 0 else value

        def get(node: fx.Node) -> Any:
            return known[node]

        stack = list(nodes)
        while stack:
            node = stack[-1]
            missing = [a for a in node.all_input_nodes if a not in known]
            if node in known or not missing:
                stack.pop()
                if node not in known:
                    target: Any = node.target
                    known[node] = target(*fx.map_arg(size(node.args), get), **fx.map_arg(node.kwargs, get))
            else:
                stack += missing
        return [known[n] for n in nodes]


_MOST_OPERATIONS = 3000


@dataclass(frozen=True)
class Captured:
    """A step as torch's own graph.

    Args:
        source: the graph.
        rows: the batch size that stands for any in it.
        counts: of parameters, input leaves and state leaves.
        num_outputs: leaves of y.
    """

    source: fx.Graph
    rows: int
    counts: tuple[int, int, int]
    num_outputs: int

    def traced(self, *, hoist: bool) -> Traced:
        """The graph of the compiler.

        Args:
            hoist: what depends on the input alone is computed beforehand.

        Raises:
            Unsupported: an operation that has no native form.
        """
        return _Reader(self.source, self.rows, self.counts, hoist).read(self.num_outputs)

    def projection(self) -> int | None:
        """Elements of all weights, if what depends on the input alone is nothing but products and sums.

        Such a step may as well compute them inside the loop. None if there is more, or nothing of that kind.
        """
        reader = _Reader(self.source, self.rows, self.counts, hoist=True)
        total, found = 0, False
        for n in self.source.nodes:
            if n.op != "call_function" or reader.color[n] == "P":
                continue
            product = n.target in (aten.addmm.default, aten.mm.default)
            if product:
                total += n.args[-1].meta["val"].numel()
            if reader.color[n] == "X":
                found = found or product
                if not product and n.target not in _VIEWS and n.target is not aten.add.Tensor:
                    return None
        return total if found else None


def capture(step: Step, parameters: Sequence[Tensor], xs: Sequence[Tensor], states: Sequence[Tensor]) -> Captured:
    """Run one step on tensors without contents, and write down what it does.

    Args:
        step: from lists of parameters, input leaves and state leaves to lists of output and next-state leaves.
        parameters, xs, states: tensors of the right form, xs and states with any number of rows.

    Raises:
        Unsupported: a step that looks at its data.
    """
    sizes = {n for t in (*parameters, *xs, *states) for n in t.shape}
    rows = next(p for p in (7919, 8191, 9973, 12553) if not any(n and n % p == 0 for n in sizes))
    counted: list[int] = []

    def flat(p: list[Tensor], x: list[Tensor], s: list[Tensor]) -> list[Tensor]:
        outputs, new = step(p, x, s)
        counted.append(len(outputs))
        return [*outputs, *new]

    with FakeTensorMode():
        fake = [
            [torch.empty(t.shape, dtype=t.dtype) for t in parameters],
            *([torch.empty((rows, *t.shape[1:]), dtype=t.dtype) for t in group] for group in (xs, states)),
        ]
        known = _decompositions()
        try:
            module = make_fx(flat, decomposition_table=known)(*fake)
        except Exception as error:  # whatever a stranger's step does with tensors that have no contents
            reason = (str(error).splitlines() or [""])[0][:150] or type(error).__name__
            raise Unsupported(f"the step could not be traced ({reason})") from error
    count = sum(n.op == "call_function" for n in module.graph.nodes)
    if count > _MOST_OPERATIONS:
        raise Unsupported(f"its step has {count} operations, and more than {_MOST_OPERATIONS} would take long to build")
    _without_writes(module.graph)
    return Captured(module.graph, rows, (len(parameters), len(xs), len(states)), counted[-1])


def _without_writes(source: fx.Graph) -> None:
    """Operations in place become new values, where nothing else shares the memory that they write to."""
    for n in source.nodes:
        if not isinstance(n.target, torch._ops.OpOverload) or not n.target._schema.is_mutable:
            continue
        name = n.target._schema.name.split("::")[1]
        plain = getattr(getattr(aten, name.removesuffix("_"), None), n.target._overloadname, None)
        old = n.args[0] if n.args else None
        shared = (
            not isinstance(old, fx.Node)
            or old.op != "call_function"
            or _is_view(old)
            or any(_is_view(user) for user in old.users if user < n)
        )
        if plain is None or not name.endswith("_") or shared or not isinstance(old, fx.Node):
            raise Unsupported(f"the operation {name!r} in place has no native form here")
        n.target = plain
        old.replace_all_uses_with(n, delete_user_cb=partial(_is_before, n))


def _is_view(n: fx.Node) -> bool:
    """Shares its memory with what it is made of."""
    schema = getattr(n.target, "_schema", None)
    return n.target in _VIEWS or (schema is not None and any(r.alias_info is not None for r in schema.returns))


def _is_before(n: fx.Node, user: fx.Node) -> bool:
    return n < user


@lru_cache(maxsize=1)
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """torch's own for what is made of other operations and has no handler here."""
    return {op: f for op, f in core_aten_decompositions().items() if op not in _HANDLERS}


class _Reader:
    lead = 1  # dimensions of torch's values in front of those of a row

    def __init__(self, source: fx.Graph, rows: int, counts: tuple[int, int, int], hoist: bool) -> None:
        self.source, self.rows, self.counts = source, rows, counts
        self.graph = Graph()
        self.placeholders = [n for n in source.nodes if n.op == "placeholder"]
        floats = [n.meta["val"].dtype for n in self.placeholders if n.meta["val"].is_floating_point()]
        self.real = floats[0] if floats else torch.get_default_dtype()
        num_p, num_x, _ = counts
        self.color: dict[fx.Node, str] = {}
        for i, n in enumerate(self.placeholders):
            self.color[n] = "P" if i < num_p else "X" if i < num_p + num_x else "R"
        for n in source.nodes:
            if n.op == "call_function":
                inner = {self.color[a] for a in n.all_input_nodes}
                inside = "R" in inner or ("X" in inner and not hoist)
                self.color[n] = "R" if inside else "X" if "X" in inner else "P"
            elif n.op == "get_attr":
                self.color[n] = "P"
        self.imports: list[Import] = []
        self.known: dict[fx.Node, Any] = {}

    def read(self, num_outputs: int) -> Traced:
        num_p, num_x, _ = self.counts
        leaves = []
        for i, n in enumerate(self.placeholders[num_p + num_x :]):
            shape, dtype = self._meta(n)
            leaves.append(self.graph.leaf("s", i, shape, dtype, True))
            self.known[n] = leaves[-1]
        (result,) = next(n for n in self.source.nodes if n.op == "output").args
        values = [self._batched(self.value(n)) for n in result]
        outputs, states = values[:num_outputs], values[num_outputs:]
        needed: set[fx.Node] = set()
        stack = [i.node for i in self.imports]
        while stack:
            n = stack.pop()
            if n not in needed:
                needed.add(n)
                stack.extend(n.all_input_nodes)
        if any(n.op == "get_attr" for n in needed):
            raise Unsupported("the step uses a tensor that is neither parameter, buffer, input nor state")
        return Traced(self.graph, outputs, states, leaves, self.imports, self.source, self.rows, list(result))

    def _batched(self, node: Node) -> Node:
        return node if node.batched else self.graph.make("copy", (node,), node.shape, node.dtype, (), True)

    def _meta(self, n: fx.Node) -> tuple[tuple[int, ...], str]:
        """Shape of one row and kind of a value that has the batch in front."""
        value = n.meta["val"]
        shape = tuple(int(k) for k in value.shape)
        if not shape or shape[0] != self.rows:
            raise Unsupported(f"{n.target} mixes or merges the rows of the batch")
        if any(k and k % self.rows == 0 for k in shape[1:]):
            raise Unsupported(f"{n.target} relates rows of the batch to each other")
        return shape[1:], kind(value.dtype)

    # --- values ---

    def value(self, n: Any) -> Any:
        """A node of ours for one of torch's; numbers become constants."""
        found = self.any_value(n)
        if isinstance(found, Turned):
            raise Unsupported(f"an operation merges the rows of the batch or moves them behind another dimension ({n})")
        return found

    def any_value(self, n: Any) -> Any:
        """As `value`, or `Turned`."""
        if isinstance(n, bool):
            return self.graph.const(n, (), BOOLEAN)
        if isinstance(n, int | float):
            return self.graph.const(n, (), FLOAT)
        if not isinstance(n, fx.Node):
            raise Unsupported(f"an argument of type {type(n).__name__} has no native form")
        if n not in self.known:
            self.known[n] = self._convert(n) if self.color[n] == "R" else self._outside(n)
        return self.known[n]

    def _outside(self, n: fx.Node) -> Any:
        """Something that torch computes for all steps; views of it are ours, so that nothing is copied."""
        if n.op == "call_function" and n.target in _VIEWS and n.all_input_nodes:
            value = n.meta["val"]
            base: Any = n.args[0]
            while isinstance(base, fx.Node) and base.op == "call_function" and base.target in _VIEWS:
                base = base.args[0]
            if self.color[n] == "P" and isinstance(value, Tensor):
                below = self.value(base)
                original = base.meta["val"]
                if below.op == "leaf" and original.is_contiguous():
                    lead = value.ndim > 0 and value.shape[0] == self.rows and value.stride(0) == 0
                    own, strides = value.shape[1:] if lead else value.shape, value.stride()[1 if lead else 0 :]
                    return self.graph.view(below, own, int(value.storage_offset()), strides)
            elif self.color[n] == "X":
                return self._convert(n)
        if n.target is operator.getitem and self.color[n] == "X":
            return self._convert(n)
        if n.target is aten.full.default and isinstance(n.args[1], int | float):
            return self.graph.const(n.args[1], (), kind(n.meta["val"].dtype))
        value = n.meta["val"]
        if not isinstance(value, Tensor):
            raise Unsupported(f"{n.target} has no native form")
        per_step = self.color[n] == "X" or (value.ndim > 0 and value.shape[0] == self.rows)
        if per_step:
            shape, dtype = self._meta(n)
        else:
            shape, dtype = tuple(value.shape), kind(value.dtype)
        leaf = self.graph.leaf("x" if per_step else "p", len(self.imports), shape, dtype, per_step)
        self.imports.append(Import(n, per_step, shape, value.dtype))
        return leaf

    def _convert(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return self._outside(n)
        handler = _HANDLERS.get(n.target)
        if handler is None:
            name = getattr(n.target, "__name__", str(n.target))
            raise Unsupported(f"the operation {name.split('.')[0]!r} has no native form")
        result = handler(self, n, *n.args, **n.kwargs)
        if isinstance(result, Turned):
            return result
        value = n.meta.get("val")
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != self.real:
            raise Unsupported(f"{n.target} gives {value.dtype} in a step of {self.real}, which has no native form")
        alone = isinstance(result, Node) and result.op == "const" and not result.batched
        if isinstance(result, Node) and isinstance(value, Tensor) and not (alone and value.ndim == 0):
            shape, dtype = self._meta(n)
            if result.shape != shape:
                result = self.graph.expand(result, shape)
            if result.dtype != dtype:
                result = self.graph.elementwise("cast", result, dtype=dtype)
        return result

    # --- helpers of the handlers ---

    def same_everywhere(self, n: fx.Node, value: Any) -> Node:
        """One number in the shape of a value of torch's, with or without a batch."""
        whole = n.meta["val"].shape
        batched = len(whole) > 0 and whole[0] == self.rows
        shape, dtype = self._meta(n) if batched else (tuple(whole), kind(n.meta["val"].dtype))
        return self.graph.make("const", (), shape, dtype, self.graph.const(value, shape, dtype).attr, batched)

    def row(self, n: Any, rank: int) -> Node:
        """An argument of an elementwise operation whose result has ``rank`` dimensions, the batch included."""
        node: Node = self.value(n)
        if not node.batched and len(node.shape) >= rank:
            if node.shape[0] != 1:
                raise Unsupported("a parameter is laid along the batch")
            node = self.graph.reshape(node, node.shape[1:])
        return node

    def turned(self, node: Node, axis: int, inner: int) -> Any:
        """A value with its batch somewhere; a plain one where the batch alone is the first dimension."""
        if axis == 0 and inner == 1:
            return self.graph.reshape(node, node.shape[1:])
        return Turned(node, axis, inner)

    def long(self, n: Any) -> tuple[Node, int, int]:
        """A value with its batch as a dimension of one row, and where that is: (node, axis, inner)."""
        found = self.any_value(n)
        if isinstance(found, Turned):
            return found.node, found.axis, found.inner
        return self.graph.reshape(found, (1, *found.shape)), 0, 1

    def iota(self, size: int) -> Node:
        """0, 1, ..., size - 1."""
        for node in self.source.nodes:
            if node.target is aten.arange.default and node.args == (size,) and self.color.get(node) == "P":
                return self.value(node)
        with self.source.inserting_before(next(iter(self.source.nodes))):
            node = self.source.call_function(aten.arange.default, (size,))
        node.meta["val"] = torch.empty(size, dtype=torch.int64)
        self.color[node] = "P"
        return self.value(node)

    def _along(self, n: fx.Node, op: str, args: Sequence[Any]) -> Turned | None:
        """An elementwise operation on values whose batch is not in front, if it is one."""
        found = [self.any_value(a) if isinstance(a, fx.Node) else a for a in args]
        odd = [f for f in found if isinstance(f, Turned)]
        if not odd:
            return None
        first, rank = odd[0], len(n.meta["val"].shape)
        for f in found:
            same = isinstance(f, Turned) and (f.axis, f.inner, len(f.node.shape)) == (first.axis, first.inner, rank)
            behind = rank - first.axis  # a value without batch may be spread along it
            free = isinstance(f, Node) and not f.batched and (len(f.shape) < behind or f.shape[-behind] == 1)
            if not (same or free or isinstance(f, int | float)):
                raise Unsupported(f"{n.target} mixes values with and without merged rows")
        nodes = [f.node if isinstance(f, Turned) else f if isinstance(f, Node) else self.value(f) for f in found]
        if len({node.dtype for node in (nodes[1:] if op == "where" else nodes)}) > 1:
            raise Unsupported(f"{n.target} mixes types in merged rows")
        return Turned(self.graph.elementwise(op, *nodes), first.axis, first.inner)

    def elementwise(self, n: fx.Node, op: str, *args: Any) -> Node:
        """With torch's promotion of types: arguments are cast to the widest kind, except where that is the operation."""
        if not any(isinstance(a, Node | Turned) for a in args):
            along = self._along(n, op, args)
            if along is not None:
                return along  # type: ignore[return-value]
        rank = len(n.meta["val"].shape)
        nodes = [a if isinstance(a, Node) else self.row(a, rank) for a in args]
        values = nodes[1:] if op == "where" else nodes
        if op in ("and", "or", "not"):
            want = BOOLEAN
            if any(v.dtype != BOOLEAN for v in values):
                raise Unsupported("a bitwise operation on integers has no native form")
        else:
            tensors = [v for v, a in zip(values, args[1:] if op == "where" else args) if not isinstance(a, int | float)]
            order = [BOOLEAN, INTEGER, FLOAT]
            floats = any(isinstance(a, float) for a in args)
            want = max((v.dtype for v in tensors), key=order.index, default=FLOAT)
            want = FLOAT if floats or op in _FLOATING else want
        cast = [v if v.dtype == want else self._cast(v, want) for v in values]
        nodes = [nodes[0], *cast] if op == "where" else cast
        return self.graph.elementwise(op, *nodes)

    def _cast(self, node: Node, dtype: str) -> Node:
        if node.op == "const":
            number = {"True": 1.0, "False": 0.0}.get(node.attr[0])
            return self.graph.const(float(node.attr[0]) if number is None else number, node.shape, dtype)
        return self.graph.elementwise("cast", node, dtype=dtype)


_FLOATING = {"div", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf", "atan", "hypot"}


def kind(dtype: torch.dtype) -> str:
    """The graph's kind of a torch type."""
    if dtype in (torch.float32, torch.float64):
        return FLOAT
    if dtype == torch.int64:
        return INTEGER
    if dtype == torch.bool:
        return BOOLEAN
    raise Unsupported(f"the type {str(dtype).removeprefix('torch.')} has no native form")


# --- what each operation of torch becomes ---

_HANDLERS: dict[Any, Callable[..., Any]] = {}
_VIEWS: set[Any] = {
    aten.t.default, aten.transpose.int, aten.permute.default, aten.slice.Tensor, aten.select.int, aten.view.default,
    aten._unsafe_view.default, aten.unsqueeze.default, aten.expand.default, aten.alias.default, aten.squeeze.dim,
}  # fmt: skip


def _on(*targets: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        for target in targets:
            _HANDLERS[target] = function
        return function

    return keep


def _plain(op: str) -> Callable[..., Any]:
    return lambda r, n, *args: r.elementwise(n, op, *args)


for _op, _targets in {
    "mul": (aten.mul.Tensor, aten.mul.Scalar),
    "neg": (aten.neg.default,),
    "abs": (aten.abs.default,),
    "sign": (aten.sign.default, aten.sgn.default),
    "exp": (aten.exp.default,),
    "expm1": (aten.expm1.default,),
    "log": (aten.log.default,),
    "log1p": (aten.log1p.default,),
    "sqrt": (aten.sqrt.default,),
    "sin": (aten.sin.default,),
    "cos": (aten.cos.default,),
    "tanh": (aten.tanh.default,),
    "sigmoid": (aten.sigmoid.default,),
    "erf": (aten.erf.default,),
    "atan": (aten.atan.default,),
    "hypot": (aten.hypot.default,),
    "floor": (aten.floor.default,),
    "ceil": (aten.ceil.default,),
    "round": (aten.round.default,),
    "trunc": (aten.trunc.default,),
    "max": (aten.maximum.default,),
    "min": (aten.minimum.default,),
    "remainder": (aten.remainder.Tensor, aten.remainder.Scalar),
    "eq": (aten.eq.Tensor, aten.eq.Scalar),
    "ne": (aten.ne.Tensor, aten.ne.Scalar),
    "lt": (aten.lt.Tensor, aten.lt.Scalar),
    "le": (aten.le.Tensor, aten.le.Scalar),
    "gt": (aten.gt.Tensor, aten.gt.Scalar),
    "ge": (aten.ge.Tensor, aten.ge.Scalar),
    "and": (aten.logical_and.default, aten.bitwise_and.Tensor),
    "or": (aten.logical_or.default, aten.bitwise_or.Tensor),
    "not": (aten.logical_not.default, aten.bitwise_not.default),
    "where": (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar),
    "stop": (aten.detach.default,),
}.items():
    _on(*_targets)(_plain(_op))


def _scaled(r: _Reader, n: fx.Node, b: Any, alpha: float) -> Any:
    return b if alpha == 1 else r.elementwise(n, "mul", b, alpha)


@_on(aten.add.Tensor, aten.add.Scalar)
def _add(r: _Reader, n: fx.Node, a: Any, b: Any, alpha: float = 1) -> Node:
    return r.elementwise(n, "add", a, _scaled(r, n, b, alpha))


@_on(aten.sub.Tensor, aten.sub.Scalar)
def _sub(r: _Reader, n: fx.Node, a: Any, b: Any, alpha: float = 1) -> Node:
    return r.elementwise(n, "sub", a, _scaled(r, n, b, alpha))


@_on(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(r: _Reader, n: fx.Node, a: Any, b: Any, alpha: float = 1) -> Node:
    return r.elementwise(n, "sub", b, _scaled(r, n, a, alpha))


@_on(aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode)
def _div(r: _Reader, n: fx.Node, a: Any, b: Any, rounding_mode: str | None = None) -> Node:
    if rounding_mode is None:
        return r.elementwise(n, "div", a, b)
    if kind(n.meta["val"].dtype) != FLOAT:
        if rounding_mode == "floor":
            return r.elementwise(n, "floordiv", a, b)
        raise Unsupported("an integer division that rounds to zero has no native form")
    return r.elementwise(n, "floor" if rounding_mode == "floor" else "trunc", r.elementwise(n, "div", a, b))


@_on(aten.floor_divide.default)
def _floor_divide(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    return _div(r, n, a, b, rounding_mode="floor")


@_on(aten.relu.default)
def _relu(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "where", r.elementwise(n, "le", a, 0.0), 0.0, a)


@_on(aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.hardtanh.default, aten.clamp.Tensor)
def _clamp(r: _Reader, n: fx.Node, a: Any, low: Any = None, high: Any = None) -> Node:
    if n.target is aten.clamp_max.default:
        low, high = None, low
    if n.target is aten.hardtanh.default:
        low, high = -1.0 if low is None else low, 1.0 if high is None else high
    out = a
    for bound, beyond in ((low, "lt"), (high, "gt")):
        if bound is not None:
            cut = r.elementwise(n, beyond, out, bound)
            if isinstance(bound, fx.Node):  # NaN where the bound is
                cut = r.graph.elementwise("or", cut, r.elementwise(n, "ne", bound, bound))
            out = r.elementwise(n, "where", cut, bound, out)
    return out if isinstance(out, Node) else r.value(out)


@_on(aten.reciprocal.default)
def _reciprocal(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "div", 1.0, a)


@_on(aten.rsqrt.default)
def _rsqrt(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "div", 1.0, r.elementwise(n, "sqrt", a))


@_on(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def _pow(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    if b == 2:
        return r.elementwise(n, "mul", a, a)
    if b == 3:
        return r.elementwise(n, "mul", r.elementwise(n, "mul", a, a), a)
    if b == 0.5:
        return r.elementwise(n, "sqrt", a)
    return r.elementwise(n, "pow", a, b)


@_on(aten.square.default)
def _square(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "mul", a, a)


@_on(aten.softplus.default)
def _softplus(r: _Reader, n: fx.Node, a: Any, beta: float = 1.0, threshold: float = 20.0) -> Node:
    scaled = r.elementwise(n, "mul", a, float(beta))
    soft = r.elementwise(n, "div", r.elementwise(n, "log1p", r.elementwise(n, "exp", scaled)), float(beta))
    return r.elementwise(n, "where", r.elementwise(n, "gt", scaled, float(threshold)), a, soft)


@_on(aten.silu.default)
def _silu(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "mul", a, r.elementwise(n, "sigmoid", a))


@_on(aten.gelu.default)
def _gelu(r: _Reader, n: fx.Node, a: Any, approximate: str = "none") -> Node:
    if approximate == "tanh":
        cube = r.elementwise(n, "mul", r.elementwise(n, "mul", a, a), a)
        inner = r.elementwise(n, "add", a, r.elementwise(n, "mul", cube, 0.044715))
        half = r.elementwise(n, "tanh", r.elementwise(n, "mul", inner, math.sqrt(2 / math.pi)))
    else:
        half = r.elementwise(n, "erf", r.elementwise(n, "mul", a, math.sqrt(0.5)))
    return r.elementwise(n, "mul", r.elementwise(n, "mul", a, 0.5), r.elementwise(n, "add", half, 1.0))


@_on(aten.leaky_relu.default)
def _leaky_relu(r: _Reader, n: fx.Node, a: Any, slope: float = 0.01) -> Node:
    return r.elementwise(n, "where", r.elementwise(n, "gt", a, 0.0), a, r.elementwise(n, "mul", a, float(slope)))


@_on(aten.elu.default)
def _elu(r: _Reader, n: fx.Node, a: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Node:
    low = r.elementwise(n, "expm1", r.elementwise(n, "mul", a, float(input_scale)))
    low = r.elementwise(n, "mul", low, float(alpha * scale))
    high = r.elementwise(n, "mul", a, float(scale))
    return r.elementwise(n, "where", r.elementwise(n, "gt", a, 0.0), high, low)


@_on(aten.lerp.Tensor, aten.lerp.Scalar)
def _lerp(r: _Reader, n: fx.Node, a: Any, b: Any, weight: Any) -> Node:
    way = r.elementwise(n, "sub", b, a)
    ahead = r.elementwise(n, "add", a, r.elementwise(n, "mul", weight, way))
    back = r.elementwise(n, "sub", b, r.elementwise(n, "mul", r.elementwise(n, "sub", 1.0, weight), way))
    if isinstance(weight, int | float):
        return ahead if abs(weight) < 0.5 else back
    return r.elementwise(n, "where", r.elementwise(n, "lt", r.elementwise(n, "abs", weight), 0.5), ahead, back)


@_on(aten.addcmul.default)
def _addcmul(r: _Reader, n: fx.Node, a: Any, b: Any, c: Any, value: float = 1) -> Node:
    return r.elementwise(n, "add", a, _scaled(r, n, r.elementwise(n, "mul", b, c), value))


@_on(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(r: _Reader, n: fx.Node, a: Any, mask: Any, value: Any) -> Node:
    return r.elementwise(n, "where", mask, value, a)


@_on(aten._to_copy.default)
def _to_copy(r: _Reader, n: fx.Node, a: Any, **_: Any) -> Node:
    node = r.row(a, len(n.meta["val"].shape))
    dtype = kind(n.meta["val"].dtype)
    if node.dtype == dtype == FLOAT and a.meta["val"].dtype != n.meta["val"].dtype:
        raise Unsupported("a change between float32 and float64 inside the step has no native form")
    return node if node.dtype == dtype else r.graph.elementwise("cast", node, dtype=dtype)


@_on(aten.clone.default, aten.alias.default, aten.lift_fresh_copy.default, aten.contiguous.default)
def _same(r: _Reader, n: fx.Node, a: Any, **_: Any) -> Any:
    return r.any_value(a)


@_on(aten.zeros_like.default, aten.new_zeros.default, aten.ones_like.default, aten.new_ones.default)
def _filled(r: _Reader, n: fx.Node, *_: Any, **__: Any) -> Node:
    return r.same_everywhere(n, 1 if n.target in (aten.ones_like.default, aten.new_ones.default) else 0)


@_on(aten.full_like.default, aten.new_full.default)
def _full(r: _Reader, n: fx.Node, *args: Any, **__: Any) -> Node:
    return r.same_everywhere(n, args[-1])
