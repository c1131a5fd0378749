"""What torch's views, sums, products and look-ups become, and what is made of other operations.

Importing this makes them known to `recurra.native.trace`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .autodiff import Unsupported
from .graph import BOOLEAN, FLOAT, INTEGER, Node, contiguous
from .trace import Turned, _on, _Reader, kind

aten = torch.ops.aten

# views: dimensions of torch count the batch, ours do not


def _dim(r: _Reader, n: fx.Node, dim: int) -> int:
    rank = len(n.args[0].meta["val"].shape) if isinstance(n.args[0], fx.Node) else 0
    dim = dim % rank
    if dim < r.lead:
        raise Unsupported(f"{n.target} acts along the batch")
    return dim - r.lead


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
    if dim % (len(node.shape) + r.lead) < r.lead:
        if n.meta["val"].shape[0] != r.rows:
            raise Unsupported("a slice of the batch has no native form")
        return node
    d = _dim(r, n, dim)
    size = node.shape[d]
    first = slice(start, end).indices(size)[0]
    return _sliced(r, node, d, first, n.meta["val"].shape[d + r.lead], step)


@_on(aten.select.int)
def _select(r: _Reader, n: fx.Node, a: Any, dim: int, index: int) -> Node:
    node, d = r.value(a), _dim(r, n, dim)
    one = _sliced(r, node, d, index % node.shape[d], 1)
    return r.graph.reshape(one, [k for i, k in enumerate(one.shape) if i != d])


@_on(aten.split.Tensor)
def _split(r: _Reader, n: fx.Node, a: Any, size: int, dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(r, n, dim)
    total = node.shape[d]
    return [_sliced(r, node, d, i, min(size, total - i)) for i in range(0, total, size)]


@_on(aten.split_with_sizes.default)
def _split_sizes(r: _Reader, n: fx.Node, a: Any, sizes: Sequence[int], dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(r, n, dim)
    return [_sliced(r, node, d, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


@_on(aten.unbind.int)
def _unbind(r: _Reader, n: fx.Node, a: Any, dim: int = 0) -> list[Node]:
    node, d = r.value(a), _dim(r, n, dim)
    shape = [k for i, k in enumerate(node.shape) if i != d]
    return [r.graph.reshape(_sliced(r, node, d, i, 1), shape) for i in range(node.shape[d])]


@_on(operator.getitem)
def _getitem(r: _Reader, n: fx.Node, a: Any, index: int) -> Node:
    return r.value(a)[index]


@_on(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.squeeze.dim, aten.unsqueeze.default,
     aten.squeeze.dims)  # fmt: skip
def _view(r: _Reader, n: fx.Node, a: Any, *_: Any) -> Any:
    if not r.lead:
        return r.graph.reshape(r.value(a), r._meta(n)[0])
    node, axis, _inner = r.long(a)
    shape = [int(k) for k in n.meta["val"].shape]
    place = next((d for d, k in enumerate(shape) if k and k % r.rows == 0), None)
    if place is None or math.prod(shape[:place]) != math.prod(node.shape[:axis]):
        raise Unsupported(f"{n.target} mixes or merges the rows of the batch")
    shape[place] //= r.rows
    return r.turned(r.graph.reshape(node, shape), place, shape[place])


@_on(aten.expand.default)
def _expand(r: _Reader, n: fx.Node, a: Any, *_: Any, **__: Any) -> Node:
    shape, _kind = r._meta(n)
    return r.graph.expand(r.row(a, len(shape) + r.lead), shape)


@_on(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(r: _Reader, n: fx.Node, a: Any, *args: Any) -> Any:
    node, axis, inner = r.long(a) if r.lead else (r.value(a), 0, 1)
    rank = len(node.shape)
    if rank < 2:  # torch lets a vector be turned
        return r.any_value(a)
    if n.target is aten.permute.default:
        order = [d % rank for d in args[0]]
    else:
        order = list(range(rank))
        i, j = (args[0] % rank, args[1] % rank) if args else (0, 1)
        order[i], order[j] = order[j], order[i]
    strides = contiguous(node.shape)
    view = r.graph.view(node, [node.shape[d] for d in order], 0, [strides[d] for d in order])
    return r.turned(view, order.index(axis), inner) if r.lead else view


@_on(aten.cat.default)
def _cat(r: _Reader, n: fx.Node, values: Sequence[Any], dim: int = 0) -> Node:
    shape, _kind = r._meta(n)
    d = dim % (len(shape) + r.lead) - r.lead
    if d < 0:
        raise Unsupported("a concatenation along the batch has no native form")
    strides = contiguous(shape)
    parts, place = [], 0
    for value in values:
        node = r.value(value)
        if node.shape == (0,) != shape:  # torch lets an empty list stand for nothing
            continue
        parts.append((node, place * strides[d], strides))
        place += node.shape[d]
    return r.graph.assemble(shape, parts)


@_on(aten.stack.default)
def _stack(r: _Reader, n: fx.Node, values: Sequence[Any], dim: int = 0) -> Node:
    shape, _kind = r._meta(n)
    d = dim % (len(shape) + r.lead) - r.lead
    if d < 0:
        raise Unsupported("stacking in front of the batch has no native form")
    strides = contiguous(shape)
    rest = tuple(s for i, s in enumerate(strides) if i != d)
    return r.graph.assemble(shape, [(r.value(v), i * strides[d], rest) for i, v in enumerate(values)])


# sums and products


def _reduced(r: _Reader, n: fx.Node, what: str, a: Any, dims: Sequence[int] | None) -> Node:
    node = r.value(a)
    rank = len(node.shape) + r.lead
    dims = list(range(rank)) if not dims else [d % rank for d in dims]
    if any(d < r.lead for d in dims):
        raise Unsupported("a sum over the batch has no native form")
    if what == "sum" and node.dtype != FLOAT:
        node = r.graph.elementwise("cast", node, dtype=kind(n.meta["val"].dtype))
    out = r.graph.reduce(what, node, [d - r.lead for d in dims])
    return r.graph.reshape(out, r._meta(n)[0])


@_on(aten.sum.dim_IntList, aten.amax.default, aten.amin.default)
def _sum(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int] | None = None, *_: Any, **__: Any) -> Node:
    what: dict[Any, str] = {aten.sum.dim_IntList: "sum", aten.amax.default: "max", aten.amin.default: "min"}
    return _reduced(r, n, what[n.target], a, dims)


@_on(aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims)
def _any(r: _Reader, n: fx.Node, a: Any, dims: Any = None, *_: Any, **__: Any) -> Node:
    what, e = "min" if "all" in str(n.target) else "max", r.graph.elementwise
    node = r.value(a)
    truth = node if node.dtype == BOOLEAN else e("ne", node, r.graph.const(0, (), node.dtype))
    rank = len(node.shape) + r.lead
    wanted = range(rank) if dims is None else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
    if any(d < r.lead for d in wanted):
        raise Unsupported("a question about the whole batch has no native form")
    found = r.graph.reduce(what, e("cast", truth, dtype=INTEGER), [d - r.lead for d in wanted])
    return r.graph.reshape(e("gt", found, r.graph.const(0, (), INTEGER)), r._meta(n)[0])


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
    node, d, e = r.value(a), _dim(r, n, dim), r.graph.elementwise
    top = e("stop", _last(r, node, [d], "max"))
    below = e("sub", node, top)
    total = _last(r, e("exp", below), [d], "sum")
    if n.target is aten._log_softmax.default:
        return e("sub", below, e("log", total))
    return e("div", e("exp", below), total)


@_on(aten.logsumexp.default)
def _logsumexp(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int], keepdim: bool = False) -> Node:
    node, e = r.value(a), r.graph.elementwise
    inner = [_dim(r, n, d) for d in dims]
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
    # a division, so that the mean of equal numbers is that number more often: a variance of zero is blown up by 1 / eps
    mean = e("div", _last(r, node, dims, "sum"), r.graph.const(math.prod(shape), (), FLOAT))
    off = e("sub", node, mean)
    variance = e("mul", _last(r, e("mul", off, off), dims, "sum"), share)
    root = e("sqrt", e("add", variance, r.graph.const(eps, (), FLOAT)))
    spread = e("div", r.graph.const(1.0, (), FLOAT), root)
    out = e("div", off, root)
    if weight is not None:
        out = e("mul", out, r.value(weight))
    if bias is not None:
        out = e("add", out, r.value(bias))
    kept = [1 if d in dims else k for d, k in enumerate(node.shape)]
    return [out, *(r.graph.view(v, kept, 0, contiguous(node.shape)) for v in (mean, spread))]


def _times(r: _Reader, a: Node, weight: Node) -> Node:
    if not a.batched or weight.batched:
        raise Unsupported("a product whose right side depends on the batch has no native form here")
    base = weight.args[0] if weight.op == "view" else weight
    if base.op != "leaf":
        raise Unsupported("a product with a matrix that is computed inside the step has no native form")
    return r.graph.product(a, weight)


_MOST_PRODUCTS = 16


def _rows_times(r: _Reader, a: Node, weights: Sequence[Node]) -> Node:
    """Row i of ``a`` (R, K) times weight i (K, N), for all i: (R, N)."""
    count, k = a.shape
    if count > _MOST_PRODUCTS:
        raise Unsupported(f"more than {_MOST_PRODUCTS} products of one value's parts have no native form")
    n = weights[0].shape[1]
    found = [_times(r, r.graph.view(a, (k,), i * k, (1,)), weight) for i, weight in enumerate(weights)]
    return r.graph.assemble((count, n), [(one, i * n, (1,)) for i, one in enumerate(found)])


@_on(aten.mm.default)
def _mm(r: _Reader, n: fx.Node, a: Any, b: Any) -> Any:
    if not r.lead:
        return r.graph.matrices(r.value(a), r.value(b))
    left, weight = r.any_value(a), r.value(b)
    if isinstance(left, Turned):
        if left.axis != 0 or weight.batched:
            raise Unsupported("a product along the batch has no native form")
        return Turned(_rows_times(r, left.node, [weight] * left.inner), 0, left.inner)
    return _times(r, left, weight)


@_on(aten.addmm.default)
def _addmm(r: _Reader, n: fx.Node, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Any:
    if (alpha, beta) != (1, 1):
        raise Unsupported("addmm with factors has no native form")
    product = _mm(r, n, a, b)
    if isinstance(product, Turned):
        bias = r.value(c)
        if bias.batched or len(bias.shape) != 1:
            raise Unsupported("a product of merged rows onto a value has no native form")
        return Turned(r.graph.elementwise("add", product.node, bias), 0, product.inner)
    return r.elementwise(n, "add", c, product)


@_on(aten.mv.default)
def _mv(r: _Reader, n: fx.Node, a: Any, b: Any) -> Any:
    if not r.lead:
        column = r.graph.reshape(r.value(b), (r.value(b).size, 1))
        return r.graph.reshape(r.graph.matrices(r.value(a), column), r._meta(n)[0])
    left, right = r.any_value(a), r.value(b)
    if isinstance(left, Turned) and left.axis == 0 and not right.batched:
        sums = r.graph.reduce("sum", r.graph.elementwise("mul", left.node, right), [1])
        return Turned(sums, 0, left.inner)
    if isinstance(left, Turned) or not left.batched or right.batched:
        raise Unsupported("a matrix times a vector of the batch has no native form")
    return r.graph.reduce("sum", r.graph.elementwise("mul", left, right), [0])


@_on(aten.bmm.default)
def _bmm(r: _Reader, n: fx.Node, a: Any, b: Any) -> Any:
    if not r.lead:
        return _stacked_matrices(r, r.value(a), r.value(b))
    turned = r.any_value(a)
    if isinstance(turned, Turned):
        blocks = r.any_value(b)
        if turned.axis != 1 or turned.inner != 1 or isinstance(blocks, Turned) or blocks.batched:
            raise Unsupported("a product of merged rows with values has no native form")
        heads, k, width = blocks.shape
        own = contiguous(blocks.shape)
        parts = [r.graph.view(blocks, (k, width), i * own[0], own[1:]) for i in range(heads)]
        rows = _rows_times(r, r.graph.reshape(turned.node, (heads, k)), parts)
        return Turned(r.graph.reshape(rows, (heads, 1, width)), 1, 1)
    left, right = r.row(a, 3), r.row(b, 3)
    (m, k), (_, p) = left.shape, right.shape
    left = r.graph.expand(r.graph.reshape(left, (m, 1, k)), (m, p, k))
    strides = contiguous(right.shape)
    turned = r.graph.view(right, (p, k), 0, (strides[1], strides[0]))
    return r.graph.reduce("sum", r.graph.elementwise("mul", left, r.graph.expand(turned, (m, p, k))), [2])


def _stacked_matrices(r: _Reader, a: Node, b: Node) -> Node:
    """(G, M, K) times (G, K, N)."""
    (count, m, k), n = a.shape, b.shape[2]
    if not count * m * k * n:
        raise Unsupported("a product of empty matrices has no native form")
    if 1 < count <= _MOST_PRODUCTS and k > 1:
        own_a, own_b = contiguous(a.shape), contiguous(b.shape)
        pairs = [
            (r.graph.view(a, (m, k), i * own_a[0], own_a[1:]), r.graph.view(b, (k, n), i * own_b[0], own_b[1:]))
            for i in range(count)
        ]
        return r.graph.assemble((count, m, n), [(r.graph.matrices(*p), i * m * n, (n, 1)) for i, p in enumerate(pairs)])
    if count == 1:
        found = r.graph.matrices(r.graph.reshape(a, (m, k)), r.graph.reshape(b, (k, n)))
        return r.graph.reshape(found, (1, m, n))
    own = contiguous(b.shape)
    turned = r.graph.view(b, (count, 1, n, k), 0, (own[0], 0, own[2], own[1]))
    wide = (count, m, n, k)
    left = r.graph.expand(r.graph.reshape(a, (count, m, 1, k)), wide)
    return r.graph.reduce("sum", r.graph.elementwise("mul", left, r.graph.expand(turned, wide)), [3])


@_on(aten.baddbmm.default)
def _baddbmm(r: _Reader, n: fx.Node, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Node:
    if (alpha, beta) != (1, 1):
        raise Unsupported("baddbmm with factors has no native form")
    return r.elementwise(n, "add", c, _bmm(r, n, a, b))


# look-ups


@_on(aten.embedding.default, aten.index_select.default)
def _gather_row(r: _Reader, n: fx.Node, table: Any, *args: Any, **_: Any) -> Node:
    dim, rows = (0, args[0]) if n.target is aten.embedding.default else args[:2]
    values, row = r.value(table), r.value(rows)
    if dim != 0 or values.batched or values.op != "leaf" or len(values.shape) != 2 or row.shape != ():
        raise Unsupported("looking up anything but a row of a parameter for each row of the batch has no native form")
    found = r.graph.gather(values, row)
    if n.target is aten.embedding.default and len(args) > 1 and args[1] >= 0:  # the padding row learns nothing
        e = r.graph.elementwise
        found = e("where", e("eq", row, r.graph.const(args[1], (), INTEGER)), e("stop", found), found)
    return found


def _best(r: _Reader, node: Node, d: int, what: str) -> Node:
    """The place of the largest (smallest) element along a dimension: the first, or the first NaN."""
    e, size = r.graph.elementwise, node.shape[d]
    top = _last(r, node, [d], what)
    hit = e("eq", node, top)
    if node.dtype == FLOAT:
        hit = e("or", hit, e("ne", node, node))
    return r.graph.reduce("min", e("where", hit, _places(r, node.shape, d), r.graph.const(size, (), INTEGER)), [d])


def _places(r: _Reader, shape: Sequence[int], d: int) -> Node:
    """Every element's place along a dimension."""
    own = [n if i == d else 1 for i, n in enumerate(shape)]
    return r.graph.expand(r.graph.reshape(r.iota(shape[d]), own), shape)


@_on(aten.argmax.default, aten.argmin.default)
def _argmax(r: _Reader, n: fx.Node, a: Any, dim: int | None = None, keepdim: bool = False) -> Node:
    if dim is None:
        raise Unsupported("the largest element of the whole batch has no native form")
    what = "max" if n.target is aten.argmax.default else "min"
    return r.graph.reshape(r.graph.elementwise("stop", _best(r, r.value(a), _dim(r, n, dim), what)), r._meta(n)[0])


@_on(aten.max.dim, aten.min.dim)
def _max_dim(r: _Reader, n: fx.Node, a: Any, dim: int, keepdim: bool = False) -> list[Node]:
    node, d = r.value(a), _dim(r, n, dim)
    if node.dtype != FLOAT:
        raise Unsupported("the largest of integers has no native form")
    best = _best(r, node, d, "max" if n.target is aten.max.dim else "min")
    shape = [1 if i == d else k for i, k in enumerate(node.shape)]
    index = r.graph.reshape(best, shape)
    value = _taken(r, node, d, index)  # its derivative belongs to one element, unlike that of amax
    kept = [shape if keepdim else [k for i, k in enumerate(shape) if i != d]] * 2
    return [r.graph.reshape(v, k) for v, k in zip((value, index), kept)]


def _matches(r: _Reader, index: Node, size: int, d: int) -> Node:
    """(..., M, N): whether the m-th index along dimension d, moved to the end, is n."""
    behind = [*(k for i, k in enumerate(index.shape) if i != d), index.shape[d]]
    wide = (*behind, size)
    at = r.graph.expand(r.graph.reshape(_moved(r, index, d), (*behind, 1)), wide)
    return r.graph.elementwise("eq", at, _places(r, wide, len(wide) - 1))


def _moved(r: _Reader, node: Node, d: int, back: bool = False) -> Node:
    """A dimension moved to the end, or back from there."""
    order = [i for i in range(len(node.shape)) if i != d] + [d]
    if back:
        order = [order.index(i) for i in range(len(order))]
    own = contiguous(node.shape)
    return r.graph.view(node, [node.shape[i] for i in order], 0, [own[i] for i in order])


def _taken(r: _Reader, node: Node, d: int, index: Node) -> Node:
    """``node`` at the places along dimension d that ``index`` names."""
    if any(i != d and k != node.shape[i] for i, k in enumerate(index.shape)):
        node = r.graph.view(
            node, [node.shape[i] if i == d else k for i, k in enumerate(index.shape)], 0, contiguous(node.shape)
        )
    hit = _matches(r, index, node.shape[d], d)
    values = _moved(r, node, d)
    wide = r.graph.expand(r.graph.reshape(values, (*values.shape[:-1], 1, values.shape[-1])), hit.shape)
    zero = r.graph.const(0, (), node.dtype)
    found = r.graph.reduce("sum", r.graph.elementwise("where", hit, wide, zero), [len(hit.shape) - 1])
    return _moved(r, found, d, back=True)


@_on(aten.gather.default)
def _gather(r: _Reader, n: fx.Node, a: Any, dim: int, index: Any, **_: Any) -> Node:
    node, at, d = r.value(a), r.value(index), _dim(r, n, dim)
    if node.dtype == BOOLEAN:
        raise Unsupported("looking up booleans has no native form")
    return _taken(r, node, d, at)


@_on(aten.scatter.value, aten.scatter.src, aten.scatter_add.default)
def _scatter(r: _Reader, n: fx.Node, a: Any, dim: int, index: Any, new: Any) -> Node:
    node, at, d, e = r.value(a), r.value(index), _dim(r, n, dim), r.graph.elementwise
    if any(i != d and k != node.shape[i] for i, k in enumerate(at.shape)) or node.dtype == BOOLEAN:
        raise Unsupported("writing to some places only of the other dimensions has no native form")
    hit = _matches(r, at, node.shape[d], d)  # (..., M, N)
    values = _moved(r, r.value(new), d) if isinstance(new, fx.Node) else r.graph.const(new, (), node.dtype)
    if isinstance(new, fx.Node):
        if r.value(new).shape != at.shape:
            raise Unsupported("writing a part of a value has no native form")
        values = r.graph.expand(r.graph.reshape(values, (*values.shape, 1)), hit.shape)
    sums = r.graph.reduce("sum", e("where", hit, values, r.graph.const(0, (), node.dtype)), [len(hit.shape) - 2])
    sums = _moved(r, sums, d, back=True)
    if n.target is aten.scatter_add.default:
        return e("add", node, sums)
    ever = r.graph.reduce("max", e("cast", hit, dtype=INTEGER), [len(hit.shape) - 2])
    ever = e("gt", _moved(r, ever, d, back=True), r.graph.const(0, (), INTEGER))
    if not isinstance(new, fx.Node):
        sums = r.graph.expand(values, node.shape)
    return e("where", ever, sums, node)


# put together from the operations above


@_on(aten.fmax.default, aten.fmin.default)
def _fmax(r: _Reader, n: fx.Node, a: Any, b: Any) -> Node:
    first = r.elementwise(n, "ge" if n.target is aten.fmax.default else "le", a, b)
    nothing = r.elementwise(n, "ne", b, b)
    return r.elementwise(n, "where", r.graph.elementwise("or", first, nothing), a, b)


@_on(aten.threshold.default)
def _threshold(r: _Reader, n: fx.Node, a: Any, limit: float, value: float) -> Node:
    return r.elementwise(n, "where", r.elementwise(n, "le", a, float(limit)), float(value), a)


@_on(aten.tan.default)
def _tan(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "div", r.elementwise(n, "sin", a), r.elementwise(n, "cos", a))


@_on(aten.sinh.default, aten.cosh.default)
def _sinh(r: _Reader, n: fx.Node, a: Any) -> Node:
    up = r.elementwise(n, "expm1", a)
    down = r.elementwise(n, "expm1", r.elementwise(n, "neg", a))
    if n.target is aten.sinh.default:
        return r.elementwise(n, "mul", r.elementwise(n, "sub", up, down), 0.5)
    return r.elementwise(n, "add", r.elementwise(n, "mul", r.elementwise(n, "add", up, down), 0.5), 1.0)


@_on(aten.exp2.default)
def _exp2(r: _Reader, n: fx.Node, a: Any) -> Node:
    return r.elementwise(n, "exp", r.elementwise(n, "mul", a, math.log(2)))


@_on(aten.log2.default, aten.log10.default)
def _log2(r: _Reader, n: fx.Node, a: Any) -> Node:
    base = 2 if n.target is aten.log2.default else 10
    return r.elementwise(n, "mul", r.elementwise(n, "log", a), 1 / math.log(base))


@_on(aten.atanh.default)
def _atanh(r: _Reader, n: fx.Node, a: Any) -> Node:
    up, down = r.elementwise(n, "log1p", a), r.elementwise(n, "log1p", r.elementwise(n, "neg", a))
    return r.elementwise(n, "mul", r.elementwise(n, "sub", up, down), 0.5)


def _root(r: _Reader, square: Node) -> Node:
    """Square root with a derivative of zero at zero."""
    e = r.graph.elementwise
    none = e("eq", square, r.graph.const(0.0, (), FLOAT))
    safe = e("where", none, r.graph.const(1.0, (), FLOAT), square)
    return e("where", none, r.graph.const(0.0, (), FLOAT), e("sqrt", safe))


@_on(aten.var.correction, aten.std.correction, aten.var_mean.correction)
def _var(
    r: _Reader, n: fx.Node, a: Any, dim: Sequence[int] | None = None, *, correction: float | None = None,
    keepdim: bool = False,
) -> Any:  # fmt: skip
    node, e = r.value(a), r.graph.elementwise
    rank = len(node.shape) + r.lead
    if dim is None or any(d % rank < r.lead for d in dim):
        raise Unsupported("a variance over the batch has no native form")
    dims = [d % rank - r.lead for d in dim]
    count = math.prod(node.shape[d] for d in dims)
    left = max(0.0, count - (1 if correction is None else correction))
    shape = [1 if d in dims else k for d, k in enumerate(node.shape)]
    mean = e("mul", r.graph.reshape(r.graph.reduce("sum", node, dims), shape), r.graph.const(1 / count, (), FLOAT))
    off = e("sub", node, r.graph.expand(mean, node.shape))
    total = r.graph.reshape(r.graph.reduce("sum", e("mul", off, off), dims), shape)
    variance = e("mul", total, r.graph.const(1 / left if left else math.nan, (), FLOAT))
    if n.target is aten.std.correction:
        variance = _root(r, variance)
    own = shape if keepdim else [k for d, k in enumerate(shape) if d not in dims]
    out = [r.graph.reshape(v, own) for v in (variance, mean)]
    return out if n.target is aten.var_mean.correction else out[0]


@_on(aten.linalg_vector_norm.default)
def _norm(
    r: _Reader, n: fx.Node, a: Any, order: float = 2, dim: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Node:
    e = r.graph.elementwise
    node = r.value(a)
    if order == 2:
        found = _root(r, _sums(r, n, e("mul", node, node), dim))
    elif order == 1:
        found = _sums(r, n, e("abs", node), dim)
    else:
        raise Unsupported(f"a norm of order {order} has no native form")
    return r.graph.reshape(found, r._meta(n)[0])


def _sums(r: _Reader, n: fx.Node, node: Node, dims: Sequence[int] | None) -> Node:
    rank = len(node.shape) + r.lead
    dims = list(range(rank)) if not dims else [d % rank for d in dims]
    if any(d < r.lead for d in dims):
        raise Unsupported("a sum over the batch has no native form")
    return r.graph.reduce("sum", node, [d - r.lead for d in dims])


# other places


@_on(aten.roll.default)
def _roll(r: _Reader, n: fx.Node, a: Any, shifts: Sequence[int], dims: Sequence[int] = ()) -> Node:
    node = r.value(a)
    if not dims:
        raise Unsupported("rolling through the batch has no native form")
    for shift, dim in zip(shifts, dims):
        d = _dim(r, n, dim)
        size, strides = node.shape[d], contiguous(node.shape)
        by = shift % size if size else 0
        if by:
            parts = [(_sliced(r, node, d, size - by, by), 0), (_sliced(r, node, d, 0, size - by), by)]
            node = r.graph.assemble(node.shape, [(part, at * strides[d], strides) for part, at in parts])
    return node


@_on(aten.flip.default)
def _flip(r: _Reader, n: fx.Node, a: Any, dims: Sequence[int]) -> Node:
    node = r.value(a)
    for dim in dims:
        d = _dim(r, n, dim)
        size, strides = node.shape[d], contiguous(node.shape)
        parts = [(_sliced(r, node, d, size - 1 - i, 1), i * strides[d], strides) for i in range(size)]
        node = r.graph.assemble(node.shape, parts) if size > 1 else node
    return node


@_on(aten.repeat.default)
def _repeat(r: _Reader, n: fx.Node, a: Any, repeats: Sequence[int]) -> Node:
    node = r.value(a)
    if len(repeats) != len(node.shape) + r.lead or (r.lead and repeats[0] != 1):
        raise Unsupported("repeating the batch has no native form")
    apart = [k for size in node.shape for k in (1, size)]
    wide = [k for size, times in zip(node.shape, repeats[r.lead :]) for k in (times, size)]
    return r.graph.reshape(r.graph.expand(r.graph.reshape(node, apart), wide), r._meta(n)[0])


@_on(aten.constant_pad_nd.default)
def _pad(r: _Reader, n: fx.Node, a: Any, pads: Sequence[int], value: float = 0.0) -> Node:
    node = r.value(a)
    shape, e = r._meta(n)[0], r.graph.elementwise
    strides, offset = contiguous(shape), 0
    for i in range(len(pads) // 2):
        d = len(node.shape) - 1 - i
        if d < 0 and (pads[2 * i] or pads[2 * i + 1]):
            raise Unsupported("padding the batch has no native form")
        before, after = pads[2 * i], pads[2 * i + 1]
        start = max(0, -before)
        node = _sliced(r, node, d, start, node.shape[d] - start - max(0, -after)) if before < 0 or after < 0 else node
        offset += max(0, before) * strides[d]
    inside = r.graph.assemble(shape, [(node, offset, strides)])
    if value == 0:
        return inside
    ones = r.graph.make("const", (), node.shape, FLOAT, (repr(1.0),), True)
    mask = e("gt", r.graph.assemble(shape, [(ones, offset, strides)]), r.graph.const(0.5, (), FLOAT))
    return e("where", mask, inside, r.graph.const(value, (), node.dtype))
