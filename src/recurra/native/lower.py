"""From a graph to stages: what is kept where, and which loops compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .graph import (
    BOOLEAN,
    ELEMENTWISE,
    EXPENSIVE,
    FLOAT,
    INTEGER,
    Node,
    contiguous,
    reachable,
    read_from,
    split_flat,
)


@dataclass(frozen=True)
class Slot:
    """Where a value of one row and one step stands.

    Args:
        buffer: number of the array.
        mode: "time" (T or T + 1, B, size), "parity" (2, B, size: even and odd steps), "row" (B, size), "fixed" (size).
        size: elements of one row.
        dtype: kind of the elements.
        shift: steps after the present one, for "time" and "parity".
    """

    buffer: int
    mode: str
    size: int
    dtype: str
    shift: int = 0


@dataclass(frozen=True)
class Store:
    """In a loop: ``slot[offset + sum(v_i * strides_i)] = value`` or ``+= value``.

    ``defines``: the value is computed here, elsewhere it is read from the slot. ``part``: from which flat element on the
    value is taken; None for the whole of it.
    """

    value: Node
    slot: Slot
    offset: int
    strides: tuple[int, ...]
    add: bool = False
    defines: bool = False
    part: int | None = None

    def index(self, shape: tuple[int, ...]) -> Index:
        """Where the value is asked for in a loop over ``shape``."""
        return whole(shape) if self.part is None else (self.part, (1,))


@dataclass(frozen=True)
class Loop:
    """A nest of loops over one row; all stores in its body."""

    shape: tuple[int, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True)
class Reduce:
    """One row of ``slot`` is a reduction of ``value`` over dimensions."""

    value: Node
    what: str
    dims: tuple[int, ...]
    slot: Slot


@dataclass(frozen=True)
class Product:
    """``slot = start + source @ weight``, the weight being packed array ``weight`` of shape (K, N)."""

    source: Slot
    offset: int
    weight: int
    k: int
    n: int
    slot: Slot
    start: Slot | None = None


@dataclass(frozen=True)
class Matmul:
    """``slot = a @ b``: (M, K) times (K, N), each row of b dense; a and b at (slot, offset, strides)."""

    a: tuple[Slot, int, tuple[int, int]]
    b: tuple[Slot, int, tuple[int, int]]
    m: int
    k: int
    n: int
    slot: Slot


@dataclass(frozen=True)
class Zero:
    """One row of ``slot`` is filled with zeros."""

    slot: Slot


_MOST_PIECES = 16
_LAST = 1_000_000

Stage = Loop | Reduce | Product | Matmul | Zero
Index = tuple[int, tuple[int, ...]]


@dataclass
class Root:
    """A value that has to be stored.

    Args:
        value: what.
        slot: where.
        add: add to what stands there.
    """

    value: Node
    slot: Slot
    add: bool = False


@dataclass
class Program:
    """One step for one row, in order, and where values stand."""

    stages: list[Stage]
    places: dict[Node, Slot]
    weights: list[Node]
    scratch: list[Slot]


class _Keep(Exception):
    """A value has to be kept, since it cannot be computed at the place where it is asked for."""

    def __init__(self, node: Node) -> None:
        self.node = node


@dataclass
class Evaluator:
    """Computes a node at one index of a loop, in terms of what is kept.

    Args:
        places: what is kept.
        extents: of the loop's variables.
        load: (node, slot, index) -> value.
        apply: (node, values of its arguments) -> value.
        gather: (table, its slot, row, index in the row) -> value.
        take: (slot, flat place in it) -> value.
    """

    places: Mapping[Node, Slot]
    extents: tuple[int, ...]
    load: Callable[[Node, Slot, Index], Any]
    apply: Callable[[Node, list[Any]], Any]
    gather: Callable[[Node, Slot, Any, Index], Any] = lambda *_: None
    take: Callable[[Slot, Any], Any] = lambda *_: None
    known: dict[tuple[Node, Index], Any] = field(default_factory=dict)

    def __call__(self, node: Node, index: Index) -> Any:
        """The value."""
        index = (index[0], tuple(s if n > 1 else 0 for s, n in zip(index[1], self.extents)))
        key = (node, index)
        if key not in self.known:
            self.known[key] = self._compute(node, index)
        return self.known[key]

    def define(self, node: Node, index: Index) -> Any:
        """The value, computed even if it is kept."""
        index = (index[0], tuple(s if n > 1 else 0 for s, n in zip(index[1], self.extents)))
        self.known[node, index] = value = self._compute(node, index, afresh=True)
        return value

    def _compute(self, node: Node, index: Index, *, afresh: bool = False) -> Any:
        if node in self.places and not afresh:
            return self.load(node, self.places[node], index)
        if node.op == "const":
            return self.apply(node, [])
        if node.op == "view":
            found = self._split(index, 0, node.shape, contiguous(node.shape))
            if found is None:
                raise _Keep(node)
            offset, strides = node.attr
            return self(node.args[0], _joined(found, strides, offset))
        if node.op == "assemble":
            for part, (offset, strides) in zip(node.args, node.attr):
                found = self._split(index, offset, part.shape, strides)
                if found is not None:
                    return self(part, _joined(found, contiguous(part.shape), 0))
            low, high = index[0], index[0] + sum(s * (n - 1) for s, n in zip(index[1], self.extents))
            if all(high < offset or low > _last(part, offset, strides) for part, (offset, strides) in _parts(node)):
                return self.apply(Node("const", (), (), node.dtype, False, (_ZERO[node.dtype],), -1), [])
            raise _Keep(node)
        if node.op == "gather":
            row, table = node.args
            return self.gather(table, self.places[table], self(row, (0, (0,) * len(self.extents))), index)
        if node.op == "take":
            values, place = node.args
            return self.take(self.places[values], self(place, index))
        if node.op in ELEMENTWISE:
            return self.apply(node, [self(a, index) for a in node.args])
        raise AssertionError(f"{node.op} is not kept")

    def _split(self, index: Index, start: int, shape: Sequence[int], strides: Sequence[int]) -> Any:
        return split_flat(index[0] - start, list(zip(index[1], self.extents)), shape, strides)


_ZERO = {FLOAT: "0.0", INTEGER: "0", BOOLEAN: "False"}


def _parts(node: Node) -> list[tuple[Node, tuple[int, tuple[int, ...]]]]:
    return list(zip(node.args, node.attr))


def _last(part: Node, offset: int, strides: Sequence[int]) -> int:
    """The last flat element that a part takes."""
    return offset + sum((n - 1) * s for n, s in zip(part.shape, strides))


def _joined(found: tuple[list[int], list[list[int]]], strides: Sequence[int], offset: int) -> Index:
    constants, factors = found
    num = len(factors[0]) if factors else 0
    return (
        offset + sum(c * s for c, s in zip(constants, strides)),
        tuple(sum(f[i] * s for f, s in zip(factors, strides)) for i in range(num)),
    )


def lower(roots: Sequence[Root], places: Mapping[Node, Slot], num_buffers: int, *, late: bool = False) -> Program:
    """Stages that compute the roots.

    Args:
        roots: what is to be stored.
        places: where the leaves stand.
        num_buffers: arrays in use; scratch arrays take the numbers after them.
        late: roots are stored when everything else is done, loops of one form together, and what is expensive is kept
            where a loop would compute it again and again: for steps with many small values.
    """
    kept: set[Node] = set()
    while True:
        try:
            return _Lowering(roots, places, num_buffers, kept, late).run()
        except _Keep as missing:
            if missing.node in kept:
                raise AssertionError("kept already") from None
            kept.add(missing.node)


class _Lowering:
    def __init__(
        self, roots: Sequence[Root], leaves: Mapping[Node, Slot], num_buffers: int, kept: set[Node], late: bool
    ) -> None:
        self.roots, self.leaves, self.num_buffers, self.extra, self.late = roots, leaves, num_buffers, kept, late

    def run(self) -> Program:
        reached = reachable([r.value for r in self.roots], lambda n: () if n in self.leaves else read_from(n))
        self.kept = {n for n in reached if n.op in ("product", "reduce", "matmul")} | (self.extra & set(reached))
        for node in reached:
            if node.op == "product" and self._as_rows(node.args[0]) is None:
                self.kept.add(node.args[0])
            if node.op == "matmul":
                self.kept |= {_stands(a)[0] for a in node.args}
            if node.op == "take":
                self.kept.add(node.args[0])
        self.kept -= set(self.leaves)
        places: dict[Node, Slot] = dict(self.leaves)
        for root in self.roots:
            if not root.add and root.value in self.kept and root.value not in places:
                places[root.value] = root.slot
        scratch: list[Slot] = []
        uses: dict[Node, int] = {}
        for node in reached:
            for a in read_from(node):
                uses[a] = uses.get(a, 0) + 1
        for node in sorted(self.kept, key=lambda n: -n.number):
            if node not in places:
                places[node] = Slot(self.num_buffers + len(scratch), "row", node.size, node.dtype)
                scratch.append(places[node])
            start = node.args[2] if node.op == "product" and len(node.args) > 2 else None
            if start is not None and start.op == "product" and uses[start] == 1 and start not in places:
                places[start] = places[node]  # the sum goes on where it began
        self.places = places
        self.levels: dict[Node, int] = {}
        weights: list[Node] = []
        items: list[tuple[int, int, Any]] = []  # level, order within it, stage or (shape, store)
        for node in sorted(self.kept, key=lambda n: n.number):
            items += self._computed(node, places[node], weights)
        for root in self.roots:
            if root.add or root.value not in places or places[root.value] != root.slot:
                found = self._stored(root)
                items += [(_LAST, *item[1:]) if self.late and item[1] == 2 else item for item in found]
        stages = self._fused(items)
        self._check_twice(stages)
        return Program(stages, places, weights, scratch)

    def _stored(self, root: Root) -> list[tuple[int, int, Any]]:
        node = root.value
        if node.op == "assemble" and node not in self.places and not root.add:
            return self._parts(node, root.slot, self._level_of(node))
        if node.op == "assemble" and root.add:  # what is added up is added where its parts are computed
            return [
                (self._level_of(part), 2, (part.shape, Store(part, root.slot, offset, strides, add=True)))
                for part, (offset, strides) in zip(node.args, node.attr)
            ]
        store = Store(node, root.slot, 0, contiguous(node.shape), root.add)
        return [(self._level_of(node), 2, (node.shape, store))]

    def _parts(self, node: Node, slot: Slot, level: int) -> list[tuple[int, int, Any]]:
        found: list[tuple[int, int, Any]] = []
        if sum(a.size for a in node.args) < node.size:
            found.append((-1, 0, Zero(slot)))
        for part, (offset, strides) in zip(node.args, node.attr):
            found.append((level, 2, (part.shape, Store(part, slot, offset, strides))))
        return found

    def _as_rows(self, node: Node) -> tuple[Node, int] | None:
        """A kept value and an offset, if the vector lies in it densely."""
        if node in self.leaves or node in self.kept or node.op == "product":
            return node, 0
        if node.op == "view":
            base, (offset, strides) = node.args[0], node.attr
            dense = len(node.shape) == 1 and (strides[0] == 1 or node.shape[0] == 1)
            if dense and (base in self.leaves or base in self.kept or base.op == "product"):
                return base, offset
        return None

    def level(self, node: Node) -> int:
        """The stage after which a kept value is there."""
        if node in self.leaves:
            return -1
        if node not in self.levels:
            self.levels[node] = max([self._level_of(a) for a in node.args], default=0)
        return self.levels[node]

    def _level_of(self, node: Node) -> int:
        """The first stage in which an expression can be computed."""
        return max([self.level(n) + 1 for n in self._kept_below(node)], default=0)

    def _kept_below(self, node: Node) -> set[Node]:
        below = reachable([node], lambda n: () if n in self.kept or n in self.leaves else n.args)
        return self.kept.intersection(below)

    def _computed(self, node: Node, slot: Slot, weights: list[Node]) -> list[tuple[int, int, Any]]:
        level = self.level(node)
        if node.op == "product":
            source = self._as_rows(node.args[0])
            assert source is not None
            if node.args[1] not in weights:
                weights.append(node.args[1])
            k, n = node.args[1].shape
            base, offset = source
            start = self.places[node.args[2]] if len(node.args) > 2 else None
            return [(level, 1, Product(self.places[base], offset, weights.index(node.args[1]), k, n, slot, start))]
        if node.op == "matmul":
            (m, n), k = node.shape, node.args[0].shape[1]
            a, b = ((self.places[base], *rest) for base, *rest in map(_stands, node.args))
            return [(level, 1, Matmul(a, b, m, k, n, slot))]  # type: ignore[arg-type]
        if node.op == "reduce":
            return [(level, 0, Reduce(node.args[0], node.attr[0], node.attr[1], slot))]
        if node.op == "assemble":
            return self._parts(node, slot, level)
        return [(level, 2, (node.shape, Store(node, slot, 0, contiguous(node.shape), defines=True)))]

    def _fused(self, items: list[tuple[int, int, Any]]) -> list[Stage]:
        stages: list[Stage] = []
        loops: dict[tuple[int, tuple[int, ...]], list[Store]] = {}
        order: list[tuple[int, int, int, Any]] = []
        for i, (level, kind, what) in enumerate(items):
            if kind < 2:
                order.append((level, kind, i, what))
                continue
            shape, store = what
            if 0 in shape:
                continue
            for piece_shape, piece in self._pieces(*self._merged(*_flattened(shape, store))):
                key = (level, piece_shape)
                if key not in loops:
                    loops[key] = []
                    order.append((level, 2, i, key))
                loops[key].append(piece)
        for _, kind, _, what in sorted(order, key=lambda o: o[:3]):
            if kind < 2:
                stages.append(what)
            else:
                stages.append(Loop(what[1], tuple(loops[what])))
        return stages

    def _merged(self, shape: tuple[int, ...], store: Store) -> tuple[tuple[int, ...], Store]:
        """A loop with as few dimensions as what it reads and writes allows."""
        if not self.late:
            return shape, store
        kept = [d for d, n in enumerate(shape) if n > 1] or [0]
        dims, strides = [shape[d] for d in kept], [store.strides[d] for d in kept]
        for d in reversed(range(len(dims) - 1)):
            if strides[d] != strides[d + 1] * dims[d + 1]:
                continue
            trial = (*dims[:d], dims[d] * dims[d + 1], *dims[d + 2 :])
            evaluate = Evaluator(self.places, trial, lambda *_: None, lambda *_: None)
            try:
                (evaluate.define if store.defines else evaluate)(store.value, store.index(trial))
            except _Keep:
                continue
            dims[d : d + 2], strides[d : d + 2] = [trial[d]], [strides[d + 1]]
        return tuple(dims), replace(store, strides=tuple(s if n > 1 else 0 for s, n in zip(strides, dims)))

    def _pieces(self, shape: tuple[int, ...], store: Store) -> list[tuple[tuple[int, ...], Store]]:
        """A store of a vector cut where what it is made of was put together, so that each piece is computed by itself."""
        value = store.value
        if len(shape) != 1 or value.shape != shape:
            return [(shape, store)]
        edges = sorted({0, shape[0], *(c for c in self._cuts(value, {}, inside=store.defines) if 0 < c < shape[0])})
        if len(edges) == 2 or len(edges) > 1 + _MOST_PIECES:
            return [(shape, store)]
        (stride,) = store.strides
        return [
            ((b - a,), replace(store, offset=store.offset + a * stride, part=a, strides=(stride if b - a > 1 else 0,)))
            for a, b in pairwise(edges)
        ]

    def _cuts(self, node: Node, known: dict[Node, set[int]], *, inside: bool = False) -> set[int]:
        """Flat elements of a vector at which another part of it begins; ``known`` keeps those of nodes seen before."""
        if (node in self.places and not inside) or len(node.shape) != 1:
            return set()
        if node not in known:
            known[node] = self._own_cuts(node, known)
        return known[node]

    def _own_cuts(self, node: Node, known: dict[Node, set[int]]) -> set[int]:
        if node.op in ELEMENTWISE:
            return {c for a in node.args for c in self._cuts(a, known)}
        if node.op == "view":
            (base,), (offset, strides) = node.args, node.attr
            dense = strides == (1,) and len(base.shape) == 1
            return {c - offset for c in self._cuts(base, known)} if dense else set()
        if node.op == "assemble":
            found: set[int] = set()
            for part, (offset, strides) in _parts(node):
                if len(part.shape) == 1 and (strides == (1,) or part.size == 1):
                    found |= {offset, offset + part.size} | {offset + c for c in self._cuts(part, known)}
            return found
        return set()

    def _check_twice(self, stages: Sequence[Stage]) -> None:
        """Every value can be computed where it is asked for, and nothing expensive is computed in two stages."""
        where: dict[tuple[Node, Index, tuple[int, ...]], int] = {}
        for number, stage in enumerate(stages):
            if isinstance(stage, Loop):
                evaluate = Evaluator(self.places, stage.shape, lambda *_: None, lambda *_: None)
                for store in stage.stores:
                    compute = evaluate.define if store.defines else evaluate
                    compute(store.value, store.index(stage.shape))
            elif isinstance(stage, Reduce):
                evaluate = Evaluator(self.places, stage.value.shape, lambda *_: None, lambda *_: None)
                evaluate(stage.value, (0, contiguous(stage.value.shape)))
            else:
                continue
            for node, index in evaluate.known:
                free = node.op in EXPENSIVE and node.batched and node not in self.places
                again = [n for n, stride in zip(evaluate.extents, index[1]) if n > 1 and stride == 0]
                if free and self.late and again:
                    raise _Keep(node)
                if free and where.setdefault((node, index, evaluate.extents), number) != number:
                    raise _Keep(node)


def _stands(node: Node) -> tuple[Node, int, tuple[int, ...]]:
    """What a matrix is read from, and where in it: offset and strides."""
    if node.op == "view":
        return node.args[0], *node.attr
    return node, 0, contiguous(node.shape)


def whole(loop: tuple[int, ...]) -> Index:
    """The index that runs through a whole value in a loop over its shape, or over that with dimensions put together."""
    return (0, contiguous(loop))


def _flattened(shape: tuple[int, ...], store: Store) -> tuple[tuple[int, ...], Store]:
    """A one-dimensional loop where the dimensions of size one are all that stands against it."""
    kept = [d for d, n in enumerate(shape) if n > 1]
    if len(kept) == len(shape) and len(shape) >= 1:
        return shape, store
    if len(kept) > 1:
        return shape, store
    n, stride = (shape[kept[0]], store.strides[kept[0]]) if kept else (1, 0)
    return (n,), replace(store, strides=(stride,))


def slots_of(program: Program) -> set[Slot]:
    """Everything that a program reads or writes."""
    found = set(program.places.values())
    for stage in program.stages:
        if isinstance(stage, Loop):
            found |= {store.slot for store in stage.stores}
        elif isinstance(stage, Product):
            found |= {slot for slot in (stage.source, stage.slot, stage.start) if slot is not None}
        elif isinstance(stage, Matmul):
            found |= {stage.a[0], stage.b[0], stage.slot}
        else:
            found.add(stage.slot)
    return found
