"""From one step in plain torch to a graph, through torch's own tracing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from .autodiff import Unsupported
from .graph import BOOLEAN, FLOAT, INTEGER, Graph, Node, contiguous

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
        return self._before([*parameters, *xs], xs[0].shape[0] if xs else 0)

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
        """Weights of the products of the input, if what depends on the input alone is nothing but products and sums.

        Such a step may as well compute them inside the loop. None if there is more, or nothing of that kind.
        """
        reader = _Reader(self.source, self.rows, self.counts, hoist=True)
        total = 0
        for n in self.source.nodes:
            if n.op == "call_function" and reader.color[n] == "X":
                if n.target in (aten.addmm.default, aten.mm.default):
                    total += n.args[-1].meta["val"].numel()
                elif n.target not in _VIEWS and n.target is not aten.add.Tensor:
                    return None
        return total or None


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
        try:
            module = make_fx(flat)(*fake)
        except (torch._subclasses.fake_tensor.DynamicOutputShapeException, RuntimeError, ValueError) as error:
            raise Unsupported(f"the step could not be traced ({str(error).splitlines()[0][:150]})") from error
    return Captured(module.graph, rows, (len(parameters), len(xs), len(states)), counted[-1])


class _Reader:
    def __init__(self, source: fx.Graph, rows: int, counts: tuple[int, int, int], hoist: bool) -> None:
        self.source, self.rows, self.counts = source, rows, counts
        self.graph = Graph()
        self.placeholders = [n for n in source.nodes if n.op == "placeholder"]
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
        if node.batched:
            return node
        raise Unsupported("an output or a state does not depend on the batch")

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
                    return self.graph.view(below, value.shape, int(value.storage_offset()), value.stride())
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
        value = n.meta.get("val")
        if isinstance(result, Node) and isinstance(value, Tensor):
            shape, dtype = self._meta(n)
            if result.shape != shape:
                result = self.graph.expand(result, shape)
            if result.dtype != dtype:
                result = self.graph.elementwise("cast", result, dtype=dtype)
        return result

    # --- helpers of the handlers ---

    def row(self, n: Any, rank: int) -> Node:
        """An argument of an elementwise operation whose result has ``rank`` dimensions, the batch included."""
        node: Node = self.value(n)
        if not node.batched and len(node.shape) >= rank:
            if node.shape[0] != 1:
                raise Unsupported("a parameter is laid along the batch")
            node = self.graph.reshape(node, node.shape[1:])
        return node

    def elementwise(self, n: fx.Node, op: str, *args: Any) -> Node:
        """With torch's promotion of types: arguments are cast to the widest kind, except where that is the operation."""
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


_FLOATING = {"div", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sigmoid", "erf"}


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
    if high is not None:
        out = r.elementwise(n, "where", r.elementwise(n, "gt", a, high), high, out)
    if low is not None:
        out = r.elementwise(n, "where", r.elementwise(n, "lt", a, low), low, out)
    return out if isinstance(out, Node) else r.value(out)


@_on(aten.reciprocal.default)
def _reciprocal(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "div", 1.0, a)


@_on(aten.rsqrt.default)
def _rsqrt(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "div", 1.0, r.elementwise(n, "sqrt", a))


@_on(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor)
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
    return r.elementwise(n, "add", a, r.elementwise(n, "mul", weight, r.elementwise(n, "sub", b, a)))


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
def _same(r: _Reader, n: fx.Node, a: Any, **_: Any) -> Node:
    return r.value(a)


@_on(aten.zeros_like.default, aten.new_zeros.default, aten.ones_like.default, aten.new_ones.default)
def _filled(r: _Reader, n: fx.Node, *_: Any, **__: Any) -> Node:
    shape, dtype = r._meta(n)
    value = 1 if n.target in (aten.ones_like.default, aten.new_ones.default) else 0
    node = r.graph.const(value, shape, dtype)
    return r.graph.make("const", (), shape, dtype, node.attr, True)


@_on(aten.full_like.default, aten.new_full.default)
def _full(r: _Reader, n: fx.Node, *args: Any, **__: Any) -> Node:
    shape, dtype = r._meta(n)
    return r.graph.make("const", (), shape, dtype, r.graph.const(args[-1], shape, dtype).attr, True)


# views: dimensions of torch count the batch, ours do not


def _dim(n: fx.Node, dim: int) -> int:
    rank = len(n.args[0].meta["val"].shape) if isinstance(n.args[0], fx.Node) else 0
    dim = dim % rank
    if dim == 0:
        raise Unsupported(f"{n.target} acts along the batch")
    return dim - 1


def _sliced(r: _Reader, node: Node, dim: int, start: int, length: int, step: int = 1) -> Node:
    strides = list(contiguous(node.shape))
    shape = list(node.shape)
    offset = start * strides[dim]
    shape[dim], strides[dim] = length, strides[dim] * step
    return r.graph.view(node, shape, offset, strides)


@_on(aten.slice.Tensor)
def _slice(
    r: _Reader, n: fx.Node, a: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Node:
    node = r.value(a)
    if dim % (len(node.shape) + 1) == 0:
        if n.meta["val"].shape[0] != r.rows:
            raise Unsupported("a slice of the batch has no native form")
        return node
    d = _dim(n, dim)
    size = node.shape[d]
    first = slice(start, end).indices(size)[0]
    return _sliced(r, node, d, first, n.meta["val"].shape[d + 1], step)


@_on(aten.select.int)
def _select(r: _Reader, n: fx.Node, a: Any, dim: int, index: int) -> Node:
    node, d = r.value(a), _dim(n, dim)
    one = _sliced(r, node, d, index % node.shape[d], 1)
    return r.graph.reshape(one, [k for i, k in enumerate(one.shape) if i != d])


@_on(aten.split.Tensor)
def _split(r: _Reader, n: fx.Node, a: Any, size: int, dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(n, dim)
    total = node.shape[d]
    return [_sliced(r, node, d, i, min(size, total - i)) for i in range(0, total, size)]


@_on(aten.split_with_sizes.default)
def _split_sizes(r: _Reader, n: fx.Node, a: Any, sizes: Sequence[int], dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(n, dim)
    return [_sliced(r, node, d, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


@_on(aten.unbind.int)
def _unbind(r: _Reader, n: fx.Node, a: Any, dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(n, dim)
    shape = [k for i, k in enumerate(node.shape) if i != d]
    return [r.graph.reshape(_sliced(r, node, d, i, 1), shape) for i in range(node.shape[d])]


@_on(operator.getitem)
def _getitem(r: _Reader, n: fx.Node, a: Any, index: int) -> Node:
    return r.value(a)[index]


@_on(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.squeeze.dim, aten.unsqueeze.default,
     aten.squeeze.dims)  # fmt: skip
def _view(r: _Reader, n: fx.Node, a: Any, *_: Any) -> Node:
    shape, _kind = r._meta(n)
    return r.graph.reshape(r.value(a), shape)


@_on(aten.expand.default)
def _expand(r: _Reader, n: fx.Node, a: Any, *_: Any, **__: Any) -> Node:
    shape, _kind = r._meta(n)
    return r.graph.expand(r.row(a, len(shape) + 1), shape)


@_on(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(r: _Reader, n: fx.Node, a: Any, *args: Any) -> Node:
    node = r.value(a)
    rank = len(node.shape) + 1
    if n.target is aten.permute.default:
        order = [d % rank for d in args[0]]
    else:
        order = list(range(rank))
        i, j = (args[0] % rank, args[1] % rank) if args else (0, 1)
        order[i], order[j] = order[j], order[i]
    if order[0] != 0:
        raise Unsupported("a transposition of the batch has no native form")
    strides = contiguous(node.shape)
    return r.graph.view(node, [node.shape[d - 1] for d in order[1:]], 0, [strides[d - 1] for d in order[1:]])


@_on(aten.cat.default)
def _cat(r: _Reader, n: fx.Node, values: Sequence[Any], dim: int = 0) -> Node:
    shape, _kind = r._meta(n)
    d = dim % (len(shape) + 1) - 1
    if d < 0:
        raise Unsupported("a concatenation along the batch has no native form")
    strides = contiguous(shape)
    parts, place = [], 0
    for value in values:
        node = r.value(value)
        parts.append((node, place * strides[d], strides))
        place += node.shape[d]
    return r.graph.assemble(shape, parts)


@_on(aten.stack.default)
def _stack(r: _Reader, n: fx.Node, values: Sequence[Any], dim: int = 0) -> Node:
    shape, _kind = r._meta(n)
    d = dim % (len(shape) + 1) - 1
    if d < 0:
        raise Unsupported("stacking in front of the batch has no native form")
    strides = contiguous(shape)
    rest = tuple(s for i, s in enumerate(strides) if i != d)
    return r.graph.assemble(shape, [(r.value(v), i * strides[d], rest) for i, v in enumerate(values)])


# sums and products


def _reduced(r: _Reader, n: fx.Node, what: str, a: Any, dims: Sequence[int] | None) -> Node:
    node = r.value(a)
    rank = len(node.shape) + 1
    dims = list(range(rank)) if not dims else [d % rank for d in dims]
    if 0 in dims:
        raise Unsupported("a sum over the batch has no native form")
    if what == "sum" and node.dtype != FLOAT:
        node = r.graph.elementwise("cast", node, dtype=kind(n.meta["val"].dtype))
    out = r.graph.reduce(what, node, [d - 1 for d in dims])
    return r.graph.reshape(out, r._meta(n)[0])


@_on(aten.sum.dim_IntList, aten.amax.default, aten.amin.default)
def _sum(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int] | None = None, *_: Any, **__: Any) -> Node:
    what: dict[Any, str] = {aten.sum.dim_IntList: "sum", aten.amax.default: "max", aten.amin.default: "min"}
    return _reduced(r, n, what[n.target], a, dims)


@_on(aten.mean.dim)
def _mean(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int] | None, *_: Any, **__: Any) -> Node:
    total = _reduced(r, n, "sum", a, dims)
    count = r.value(a).size // max(1, total.size)
    return r.graph.elementwise("mul", total, r.graph.const(1 / count, (), FLOAT))


def _last(r: _Reader, node: Node, dims: Sequence[int], what: str) -> Node:
    """A reduction that keeps its dimensions, spread again."""
    shape = [1 if d in dims else k for d, k in enumerate(node.shape)]
    return r.graph.expand(r.graph.reshape(r.graph.reduce(what, node, dims), shape), node.shape)


@_on(aten._softmax.default, aten._log_softmax.default)
def _softmax(r: _Reader, n: fx.Node, a: Any, dim: int, *_: Any) -> Node:
    node, d, e = r.value(a), _dim(n, dim), r.graph.elementwise
    top = e("stop", _last(r, node, [d], "max"))
    below = e("sub", node, top)
    total = _last(r, e("exp", below), [d], "sum")
    if n.target is aten._log_softmax.default:
        return e("sub", below, e("log", total))
    return e("div", e("exp", below), total)


@_on(aten.logsumexp.default)
def _logsumexp(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int], keepdim: bool = False) -> Node:
    node, e = r.value(a), r.graph.elementwise
    inner = [_dim(n, d) for d in dims]
    top = e("stop", r.graph.reduce("max", node, inner))
    top = e("where", e("lt", e("abs", top), r.graph.const(math.inf, (), FLOAT)), top, r.graph.const(0.0, (), FLOAT))
    shape = [1 if d in inner else k for d, k in enumerate(node.shape)]
    spread = r.graph.expand(r.graph.reshape(top, shape), node.shape)
    total = r.graph.reduce("sum", e("exp", e("sub", node, spread)), inner)
    return r.graph.reshape(e("add", e("log", total), top), r._meta(n)[0])


@_on(aten.native_layer_norm.default)
def _layer_norm(r: _Reader, n: fx.Node, a: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> list[Node]:
    node, e = r.value(a), r.graph.elementwise
    dims = list(range(len(node.shape) - len(shape), len(node.shape)))
    share = r.graph.const(1 / math.prod(shape), (), FLOAT)
    mean = e("mul", _last(r, node, dims, "sum"), share)
    off = e("sub", node, mean)
    variance = e("mul", _last(r, e("mul", off, off), dims, "sum"), share)
    out = e("div", off, e("sqrt", e("add", variance, r.graph.const(eps, (), FLOAT))))
    if weight is not None:
        out = e("mul", out, r.value(weight))
    if bias is not None:
        out = e("add", out, r.value(bias))
    return [out]


def _times(r: _Reader, a: Node, weight: Node) -> Node:
    if not a.batched or weight.batched:
        raise Unsupported("a product whose right side depends on the batch has no native form here")
    base = weight.args[0] if weight.op == "view" else weight
    if base.op != "leaf":
        raise Unsupported("a product with a matrix that is computed inside the step has no native form")
    return r.graph.product(a, weight)


@_on(aten.mm.default)
def _mm(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    return _times(r, r.value(a), r.value(b))


@_on(aten.addmm.default)
def _addmm(r: _Reader, n: fx.Node, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Node:
    if (alpha, beta) != (1, 1):
        raise Unsupported("addmm with factors has no native form")
    return r.elementwise(n, "add", c, _times(r, r.value(a), r.value(b)))


@_on(aten.mv.default)
def _mv(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    left, right = r.value(a), r.value(b)
    if not left.batched or right.batched:
        raise Unsupported("a matrix times a vector of the batch has no native form")
    return r.graph.reduce("sum", r.graph.elementwise("mul", left, right), [0])


@_on(aten.bmm.default)
def _bmm(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    left, right = r.row(a, 3), r.row(b, 3)
    (m, k), (_, p) = left.shape, right.shape
    left = r.graph.expand(r.graph.reshape(left, (m, 1, k)), (m, p, k))
    strides = contiguous(right.shape)
    turned = r.graph.view(right, (p, k), 0, (strides[1], strides[0]))
    return r.graph.reduce("sum", r.graph.elementwise("mul", left, r.graph.expand(turned, (m, p, k))), [2])


@_on(aten.baddbmm.default)
def _baddbmm(r: _Reader, n: fx.Node, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Node:
    if (alpha, beta) != (1, 1):
        raise Unsupported("baddbmm with factors has no native form")
    return r.elementwise(n, "add", c, _bmm(r, n, a, b))


@_on(aten.embedding.default, aten.index_select.default)
def _gather(r: _Reader, n: fx.Node, table: Any, *args: Any, **_: Any) -> Node:
    dim, rows = (0, args[0]) if n.target is aten.embedding.default else args[:2]
    values, row = r.value(table), r.value(rows)
    if dim != 0 or values.batched or values.op != "leaf" or len(values.shape) != 2 or row.shape != ():
        raise Unsupported("looking up anything but a row of a parameter for each row of the batch has no native form")
    return r.graph.gather(values, row)
