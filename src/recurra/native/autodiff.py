"""Reverse-mode differentiation of a graph: the backward step as a graph of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import pi, sqrt

from .graph import FLOAT, Graph, Node, reachable


class Unsupported(Exception):
    """Something that the compiler cannot do, in one sentence."""


@dataclass
class Backward:
    """The adjoint of a step.

    Args:
        leaves: derivative by each leaf that has one.
        products: for each product with a weight: what came in, the weight, the derivative by what went out, the product.
        gathers: for each look-up in a table: the row and the derivative by what was found.
        saved: values of the forward step that the backward step reads.
    """

    leaves: dict[Node, Node]
    products: list[tuple[Node, Node, Node, Node]]
    saved: list[Node]
    gathers: list[tuple[Node, Node, Node]] = field(default_factory=list)


@dataclass
class _Sum:
    whole: list[Node] = field(default_factory=list)
    parts: list[tuple[Node, int, tuple[int, ...]]] = field(default_factory=list)


def differentiate(graph: Graph, outputs: Sequence[tuple[Node, Node]], needs: Callable[[Node], bool]) -> Backward:
    """The derivative of ``sum(seed * value)``.

    Args:
        graph: makes the nodes.
        outputs: (value, seed) pairs.
        needs: whether the derivative by a leaf is wanted.
    """
    saved: list[Node] = []
    again: dict[Node, Node] = {}

    def recompute(node: Node) -> Node:
        """The value in the backward step: products and reductions are read, all else is computed again."""
        if node not in again:
            if node.op in ("leaf", "const"):
                again[node] = node
            elif node.op in ("product", "reduce"):
                again[node] = graph.leaf("saved", len(saved), node.shape, node.dtype, True)
                saved.append(node)
            else:
                args = [recompute(a) for a in node.args]
                again[node] = graph.make(node.op, args, node.shape, node.dtype, node.attr, node.batched)
        return again[node]

    wanted: dict[Node, bool] = {}

    def is_wanted(node: Node) -> bool:
        if node not in wanted:
            if node.dtype != FLOAT or node.op == "stop":
                wanted[node] = False
            elif node.op == "leaf":
                wanted[node] = needs(node)
            else:
                wanted[node] = any(is_wanted(a) for a in node.args)
        return wanted[node]

    sums: dict[Node, _Sum] = defaultdict(_Sum)
    for value, seed in outputs:
        if is_wanted(value):
            sums[value].whole.append(seed)
    leaves: dict[Node, Node] = {}
    products: list[tuple[Node, Node, Node, Node]] = []
    gathers: list[tuple[Node, Node, Node]] = []
    for node in reversed(reachable(value for value, _ in outputs if is_wanted(value))):
        if node not in sums or not is_wanted(node):
            continue
        g = _total(graph, node, sums.pop(node))
        if node.op == "leaf":
            leaves[node] = g
            continue
        if node.op == "product":
            a, weight, *start = node.args
            for node_added in start:
                if is_wanted(node_added):
                    sums[node_added].whole.append(g)
            if is_wanted(weight):
                products.append((recompute(a), weight, g, node))
            if is_wanted(a):
                k, n = weight.shape
                sums[a].whole.append(graph.product(g, graph.view(weight, (n, k), 0, (1, n))))
            continue
        if node.op == "gather":
            row, table = node.args
            gathers.append((recompute(row), table, g))
            continue
        for argument, whole, part in _rules(graph, node, g, recompute):
            if argument.dtype == FLOAT and is_wanted(argument):
                if part is None:
                    sums[argument].whole.append(whole)
                else:
                    sums[argument].parts.append((whole, *part))
    return Backward(leaves, products, saved, gathers)


def _total(graph: Graph, node: Node, found: _Sum) -> Node:
    terms = list(found.whole)
    groups: list[list[tuple[Node, int, tuple[int, ...]]]] = []
    for part in sorted(found.parts, key=lambda p: p[1]):
        for group in groups:
            if _end(group[-1]) <= part[1]:
                group.append(part)
                break
        else:
            groups.append([part])
    terms += [graph.assemble(node.shape, group) for group in groups]
    total = terms[0]
    for term in terms[1:]:
        total = graph.elementwise("add", total, term)
    return total


def _end(part: tuple[Node, int, tuple[int, ...]]) -> int:
    value, offset, strides = part
    return offset + sum((n - 1) * s for n, s in zip(value.shape, strides)) + 1


_Found = list[tuple[Node, Node, tuple[int, tuple[int, ...]] | None]]


def _rules(graph: Graph, node: Node, g: Node, value: Callable[[Node], Node]) -> _Found:
    """Contributions to the arguments: (argument, derivative, where it belongs in the flat argument or None)."""
    args, op, e = node.args, node.op, graph.elementwise
    y = value(node) if op in ("hypot", "tanh", "sigmoid", "exp", "expm1", "sqrt", "div") else None
    x = [value(a) for a in args] if op in _USES_ARGUMENTS else []

    def c(number: float) -> Node:
        return graph.const(number, (), FLOAT)

    if op == "view":
        (base,), (offset, strides) = args, node.attr
        kept = [d for d, (n, s) in enumerate(zip(node.shape, strides)) if n == 1 or s != 0]
        g = graph.reduce("sum", g, [d for d in range(len(node.shape)) if d not in kept])
        return [(base, g, (offset, tuple(strides[d] for d in kept)))]
    if op == "assemble":
        return [(a, graph.view(g, a.shape, offset, strides), None) for a, (offset, strides) in zip(args, node.attr)]
    if op == "reduce":
        (a,), (what, dims) = args, node.attr
        shape = [1 if d in dims else n for d, n in enumerate(a.shape)]
        spread = graph.expand(graph.reshape(g, shape), a.shape)
        if what == "sum":
            return [(a, spread, None)]
        top = graph.expand(graph.reshape(value(node), shape), a.shape)
        hit = e("cast", e("eq", value(a), top), dtype=FLOAT)
        count = graph.expand(graph.reshape(graph.reduce("sum", hit, dims), shape), a.shape)
        return [(a, e("div", e("mul", spread, hit), count), None)]
    zero = c(0.0)
    if op in ("copy", "cast"):
        return [(args[0], g, None)]
    if op == "add":
        return [(args[0], g, None), (args[1], g, None)]
    if op == "sub":
        return [(args[0], g, None), (args[1], e("neg", g), None)]
    if op == "mul":
        return [(args[0], e("mul", g, x[1]), None), (args[1], e("mul", g, x[0]), None)]
    if op == "div":
        assert y is not None
        over = e("div", g, x[1])
        return [(args[0], over, None), (args[1], e("neg", e("mul", over, y)), None)]
    if op in ("max", "min"):
        first = e("gt" if op == "max" else "lt", x[0], x[1])
        half = e("mul", g, c(0.5))
        tie = e("eq", x[0], x[1])
        a = e("where", tie, half, e("where", first, g, zero))
        b = e("where", tie, half, e("where", first, zero, g))
        return [(args[0], a, None), (args[1], b, None)]
    if op == "pow":
        if args[1].batched or args[1].op == "leaf":
            raise Unsupported("a power with an exponent that is computed has no native derivative")
        less = e("pow", x[0], e("sub", x[1], c(1.0)))
        return [(args[0], e("mul", e("mul", g, x[1]), less), None)]
    if op == "remainder":
        down = e("floor", e("div", x[0], x[1]))
        return [(args[0], g, None), (args[1], e("neg", e("mul", g, down)), None)]
    if op == "where":
        return [(args[1], e("where", x[0], g, zero), None), (args[2], e("where", x[0], zero, g), None)]
    if op == "neg":
        return [(args[0], e("neg", g), None)]
    if op == "abs":
        return [(args[0], e("mul", g, e("sign", x[0])), None)]
    if op == "exp":
        assert y is not None
        return [(args[0], e("mul", g, y), None)]
    if op == "expm1":
        assert y is not None
        return [(args[0], e("mul", g, e("add", y, c(1.0))), None)]
    if op == "log":
        return [(args[0], e("div", g, x[0]), None)]
    if op == "log1p":
        return [(args[0], e("div", g, e("add", x[0], c(1.0))), None)]
    if op == "sqrt":
        assert y is not None
        return [(args[0], e("div", e("mul", g, c(0.5)), y), None)]
    if op == "sin":
        return [(args[0], e("mul", g, e("cos", x[0])), None)]
    if op == "cos":
        return [(args[0], e("neg", e("mul", g, e("sin", x[0]))), None)]
    if op == "tanh":
        assert y is not None
        return [(args[0], e("mul", g, e("sub", c(1.0), e("mul", y, y))), None)]
    if op == "sigmoid":
        assert y is not None
        return [(args[0], e("mul", g, e("mul", y, e("sub", c(1.0), y))), None)]
    if op == "erf":
        bell = e("exp", e("neg", e("mul", x[0], x[0])))
        return [(args[0], e("mul", g, e("mul", bell, c(2 / sqrt(pi)))), None)]
    if op == "hypot":
        assert y is not None
        return [(a, e("mul", g, e("div", v, y)), None) for a, v in zip(args, x)]
    if op == "atan":
        return [(args[0], e("div", g, e("add", e("mul", x[0], x[0]), c(1.0))), None)]
    if op in ("sign", "floor", "ceil", "round", "trunc", "floordiv", "stop"):
        return []
    raise Unsupported(f"the operation {op!r} has no native derivative")


_USES_ARGUMENTS = {
    "mul", "div", "max", "min", "pow", "remainder", "where", "abs", "log", "log1p", "sin", "cos", "erf", "atan",
    "hypot",
}  # fmt: skip
