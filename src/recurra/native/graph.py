"""The compiler's graph: what one step computes for one row of the batch, in elementary operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

FLOAT, INTEGER, BOOLEAN = "float", "integer", "boolean"

ELEMENTWISE = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "max": 2, "min": 2, "pow": 2, "hypot": 2, "remainder": 2, "floordiv": 2,
    "neg": 1, "abs": 1, "sign": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "sin": 1, "cos": 1,
    "tanh": 1, "sigmoid": 1, "erf": 1, "atan": 1, "floor": 1, "ceil": 1, "round": 1, "trunc": 1,
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "and": 2, "or": 2, "not": 1, "where": 3,
    "cast": 1, "stop": 1, "copy": 1,
}  # fmt: skip
"""Operations that treat every element alike, with the number of their arguments; all arguments have the result's shape."""

EXPENSIVE = {
    "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "atan", "hypot", "pow", "sqrt", "div", "remainder",
}  # fmt: skip
"""Operations that are rather kept than computed in two places."""


COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"}
"""Operations with a boolean result."""


@dataclass(frozen=True, eq=False)
class Node:
    """One value of a step.

    Args:
        op: ``leaf``, ``const``, ``view``, ``assemble``, ``reduce``, ``product``, ``matmul`` (of two values of the step),
            ``gather`` (a row of a table), ``take`` (elements at given places), or one of `ELEMENTWISE`.
        args: what it is computed from.
        shape: of one row, without the batch.
        dtype: FLOAT, INTEGER or BOOLEAN.
        batched: differs from row to row.
        attr: leaf: (kind, index); const: (value,); view: (offset, strides) into the flat argument; assemble: one (offset,
            strides) per argument; reduce: (what, dims).
        number: order of creation; arguments come before what uses them.
    """

    op: str
    args: tuple[Node, ...]
    shape: tuple[int, ...]
    dtype: str
    batched: bool
    attr: tuple
    number: int

    @property
    def size(self) -> int:
        """Elements of one row."""
        return prod(self.shape)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense layout."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@dataclass
class Graph:
    """Makes nodes; equal ones are made once."""

    known: dict[tuple, Node] = field(default_factory=dict)

    def make(
        self,
        op: str,
        args: Iterable[Node],
        shape: Sequence[int],
        dtype: str,
        attr: tuple = (),
        batched: bool | None = None,
    ) -> Node:
        """The node, a new one unless it is known."""
        args, shape = tuple(args), tuple(shape)
        batched = any(a.batched for a in args) if batched is None else batched
        key = (op, tuple(a.number for a in args), shape, dtype, attr, batched)
        if key not in self.known:
            self.known[key] = Node(op, args, shape, dtype, batched, attr, len(self.known))
        return self.known[key]

    def leaf(self, kind: str, index: int, shape: Sequence[int], dtype: str, batched: bool) -> Node:
        """Something given from outside."""
        return self.make("leaf", (), shape, dtype, (kind, index), batched)

    def const(self, value: float | int | bool, shape: Sequence[int], dtype: str) -> Node:
        """The same number everywhere."""
        kinds = {FLOAT: float, INTEGER: int, BOOLEAN: bool}
        return self.make("const", (), shape, dtype, (repr(kinds[dtype](value)),))

    def view(self, base: Node, shape: Sequence[int], offset: int, strides: Sequence[int]) -> Node:
        """Elements ``offset + sum(i_d * strides_d)`` of the flat ``base``."""
        shape, strides = tuple(shape), tuple(s if n > 1 else 0 for s, n in zip(strides, shape))
        if base.op == "const":
            return self.make("const", (), shape, base.dtype, base.attr)
        if base.op == "view":
            inner = _compose(base, shape, offset, strides)
            if inner is not None:
                return self.view(base.args[0], shape, *inner)
            base = self.make("copy", (base,), base.shape, base.dtype)
        if shape == base.shape and offset == 0 and strides == _drop_ones(shape, contiguous(shape)):
            return base
        return self.make("view", (base,), shape, base.dtype, (offset, strides))

    def reshape(self, node: Node, shape: Sequence[int]) -> Node:
        """The same elements in another shape."""
        return self.view(node, shape, 0, contiguous(shape))

    def expand(self, node: Node, shape: Sequence[int]) -> Node:
        """Broadcast to a shape, dimensions counted from the last one."""
        shape = tuple(shape)
        if node.shape == shape:
            return node
        lead = len(shape) - len(node.shape)
        own = contiguous(node.shape)
        strides = [0] * lead + [s if n > 1 else 0 for s, n in zip(own, node.shape)]
        return self.view(node, shape, 0, strides)

    def elementwise(self, op: str, *args: Node, dtype: str | None = None) -> Node:
        """One of `ELEMENTWISE`, with broadcasting."""
        shape = broadcast(*[a.shape for a in args])
        if dtype is None:
            dtype = BOOLEAN if op in COMPARISONS else args[1].dtype if op == "where" else args[0].dtype
        return self.make(op, [self.expand(a, shape) for a in args], shape, dtype)

    def reduce(self, what: str, node: Node, dims: Sequence[int]) -> Node:
        """Sum, max or min over dimensions, which disappear."""
        dims = tuple(sorted(d % len(node.shape) for d in dims)) if node.shape else ()
        if not dims:
            return node
        shape = [n for d, n in enumerate(node.shape) if d not in dims]
        if node.size == 0 and what == "sum":
            return self.const(0, shape, node.dtype)
        return self.make("reduce", (node,), shape, node.dtype, (what, dims))

    def product(self, a: Node, weight: Node, start: Node | None = None) -> Node:
        """``start + a @ weight`` with a row vector a (K,) and a matrix (K, N) that is the same for all rows."""
        if 0 in weight.shape:
            zero = self.make("const", (), (weight.shape[1],), FLOAT, (repr(0.0),), True)
            return zero if start is None else start
        args = (a, weight) if start is None else (a, weight, start)
        return self.make("product", args, (weight.shape[1],), FLOAT, (), True)

    def gather(self, table: Node, row: Node) -> Node:
        """Row ``row`` (an integer) of a table (V, N) that is the same for all rows of the batch."""
        return self.make("gather", (row, table), table.shape[1:], table.dtype, (), True)

    def matrices(self, a: Node, b: Node) -> Node:
        """``a @ b``, (M, K) times (K, N), both computed in the step: the form that runs through memory in order."""
        (m, k), n = a.shape, b.shape[1]
        if 0 in (m, k, n) or "0.0" in (_number(a), _number(b)):
            return self.const(0.0, (m, n), FLOAT)
        if k == 1:
            return self.elementwise("mul", a, b)
        down_a, along_a = _in_memory(a)
        down_b, along_b = _in_memory(b)
        if n > 1 and along_b == 1:
            return self._matmul(a, b)
        if m > 1 and down_a == 1:
            return self.turn(self._matmul(self.turn(b), self.turn(a)))
        if (m < _FEW_ROWS or n == 1) and (along_a == 1 or m == 1) and (down_b == 1 or n == 1):
            left = self.expand(self.reshape(a, (m, 1, k)), (m, n, k))
            right = self.expand(self.reshape(self.turn(b), (1, n, k)), (m, n, k))
            return self.reduce("sum", self.elementwise("mul", left, right), [2])
        return self._matmul(a, self.make("copy", (b,), b.shape, FLOAT))

    def _matmul(self, a: Node, b: Node) -> Node:
        return self.make("matmul", (a, b), (a.shape[0], b.shape[1]), FLOAT, (), True)

    def turn(self, node: Node) -> Node:
        """The transpose of a matrix."""
        down, along = contiguous(node.shape)
        return self.view(node, node.shape[::-1], 0, (along, down))

    def take(self, values: Node, places: Node) -> Node:
        """Elements of a value at flat places, which are given from outside."""
        return self.make("take", (values, places), places.shape, values.dtype, (), True)

    def assemble(self, shape: Sequence[int], parts: Sequence[tuple[Node, int, tuple[int, ...]]]) -> Node:
        """Zeros with disjoint parts written into them, each at ``offset + sum(i_d * strides_d)``."""
        parts = [p for p in parts if p[0].size] or list(parts[:1])
        attr = tuple((offset, tuple(strides)) for _, offset, strides in parts)
        return self.make("assemble", [n for n, _, _ in parts], shape, parts[0][0].dtype, attr)


_FEW_ROWS = 4


def _number(node: Node) -> str | None:
    return node.attr[0] if node.op == "const" else None


def _in_memory(node: Node) -> tuple[int, int]:
    """Strides of a matrix where it will stand."""
    down, along = node.attr[1] if node.op == "view" else contiguous(node.shape)
    return down, along


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape."""
    rank = max(len(s) for s in shapes)
    out = [1] * rank
    for s in shapes:
        for d, n in enumerate(s, start=rank - len(s)):
            out[d] = n if out[d] == 1 else out[d]
    return tuple(out)


def _drop_ones(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    return tuple(s if n > 1 else 0 for s, n in zip(strides, shape))


def split_flat(
    offset: int, terms: Sequence[tuple[int, int]], shape: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[list[int]]] | None:
    """Coordinates of a flat index ``offset + sum(v_i * stride_i)``, v_i < extent_i, in a layout.

    Args:
        offset: constant part.
        terms: (stride, extent) of each variable.
        shape, strides: of the layout; no two places may coincide.

    Returns:
        Constant and coefficients of each coordinate, or None if the index leaves the layout or wraps inside it.
    """
    order = sorted((d for d in range(len(shape)) if shape[d] > 1), key=lambda d: -strides[d])
    constants, factors = [0] * len(shape), [[0] * len(terms) for _ in shape]
    if offset < 0:
        return None
    for d in order:
        constants[d], offset = divmod(offset, strides[d])
    if offset:
        return None
    for i, (stride, extent) in enumerate(terms):
        if extent <= 1:
            continue
        for d in order:
            factors[d][i], stride = divmod(stride, strides[d])
        if stride:
            return None
    for d, n in enumerate(shape):
        if constants[d] + sum(f * (extent - 1) for f, (_, extent) in zip(factors[d], terms)) >= max(n, 1):
            return None
    return constants, factors


def _compose(
    base: Node, shape: Sequence[int], offset: int, strides: Sequence[int]
) -> tuple[int, tuple[int, ...]] | None:
    """The view of a view as one view of what lies below."""
    found = split_flat(offset, list(zip(strides, shape)), base.shape, contiguous(base.shape))
    if found is None:
        return None
    constants, factors = found
    start, steps = base.attr
    return (
        start + sum(c * s for c, s in zip(constants, steps)),
        tuple(sum(factors[d][i] * steps[d] for d in range(len(steps))) for i in range(len(shape))),
    )


def read_from(node: Node) -> tuple[Node, ...]:
    """Arguments that are values of the step; a weight is packed outside."""
    return (node.args[0], *node.args[2:]) if node.op == "product" else node.args


def reachable(roots: Iterable[Node], below: Callable[[Node], Iterable[Node]] = lambda node: node.args) -> list[Node]:
    """Everything that some values are made of, themselves included, in order of creation.

    Args:
        roots: where to begin.
        below: what a node is made of.
    """
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(below(node))
    return sorted(seen, key=lambda n: n.number)
