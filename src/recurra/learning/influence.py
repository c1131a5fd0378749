"""The influence of parameters on a state in the blocks where it can differ from zero, and how a step carries it on.

Parameters are seen as rows (outgoing units) of numbers; a state as leaves. Of every pair (leaf of the state, parameter) the
influence is kept in one of two forms, found from the graph of the step:

    per row   (B, r, rows, cols): a row of the parameter reaches r elements of its own; element-wise recurrences have r = 1
    uniform   (B, r, rows, cols): all rows reach the same r elements, the dense form

or not at all. Derivatives of the step are taken by few backward passes: elements of the state whose derivatives do not
overlap share one (Curtis, Powell & Reid 1974).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vjp, vmap

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.rule import Direction
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines.native import _aside
from ..engines.unroll import draw
from .linearised import Stretch, flat_size, learning, row_of, rows_between, start_influence
from .step_graph import (
    Pattern,
    StepGraph,
    Untraceable,
    cut_products,
    element_wise,
    find_pattern,
    remembered,
    trace_step,
)

_MOST_PER_ROW = 8
_MOST_RUNS = 6
_MOST_ELEMENTS = 2**25  # of all derivatives that are in memory together


class Index:
    """Elements of a vector, read as a slice or as repetitions of one where that is what they are."""

    def __init__(self, places: Tensor) -> None:
        self.places = places
        self.count = places.numel()
        self.slice: tuple[int, int, int] | None = None
        self.times = 1
        wanted = places.tolist()
        for times in (k for k in range(1, self.count + 1) if self.count % k == 0):
            part = wanted[: self.count // times]
            step = part[1] - part[0] if len(part) > 1 else 1
            if step < 1 or any(b - a != step for a, b in pairwise(part)) or part * times != wanted:
                continue
            self.slice, self.times = (part[0], part[-1] + 1, step), times
            break

    def __call__(self, values: Tensor) -> Tensor:
        """(..., n) -> (..., count)."""
        if self.slice is None:
            return values.index_select(-1, self.places.to(values.device))
        a, b, step = self.slice
        whole = (a, b, step) == (0, values.shape[-1], 1)
        found = values if whole else values[..., a:b:step]
        return found if self.times == 1 else found.repeat(*[1] * (values.ndim - 1), self.times)


class Block(NamedTuple):
    """The influence of some rows of a parameter on a leaf of the state.

    Args:
        leaf, parameter: their numbers.
        start, stop: rows of the parameter.
        elements: flat places in the state, (r, rows) per row, (r, 1) uniform.
        uniform: the form.
        kept: (r, rows) bool, where the influence may differ from zero.
    """

    leaf: int
    parameter: int
    start: int
    stop: int
    elements: Tensor
    uniform: bool
    kept: Tensor


class _Term(NamedTuple):
    """What a block gets from a block of the step before; rows counted from the start of each."""

    source: int
    rows_in: tuple[int, int]
    pad: tuple[int, int]
    apply: Callable[[Tensor, Tensor], Tensor]


class _Passes(NamedTuple):
    """Backward passes that find a sparse derivative: seeds (K, S), and for every element of the state its pass (S,)."""

    seeds: Tensor
    of: Tensor

    @property
    def number(self) -> int:
        return int(self.seeds.shape[0])


def _passes(pattern: Tensor, wanted: Tensor) -> _Passes:
    """Groups of rows of a pattern (S, columns) that share no column; only ``wanted`` rows (S,) are asked for."""
    size = pattern.shape[0]
    numbers = pattern.float()
    overlap = (numbers @ numbers.T) > 0
    of = torch.zeros(size, dtype=torch.int64)
    groups: list[Tensor] = []
    for s in wanted.nonzero().flatten().tolist():
        if not bool(pattern[s].any()):
            continue
        place = next((k for k, g in enumerate(groups) if not bool((overlap[s] & g).any())), len(groups))
        if place == len(groups):
            groups.append(torch.zeros(size, dtype=torch.bool))
        groups[place][s] = True
        of[s] = place
    return _Passes(torch.stack(groups) if groups else torch.zeros(0, size, dtype=torch.bool), of)


class Plan:
    """How the influence of a cell's parameters is kept and carried on.

    Args:
        pattern: which derivatives may differ from zero.
        sizes: elements of each floating leaf of the state.
        shapes: of the parameters.
        started: (S, rows) for every parameter, what of the initial state it sets; None for nothing.
        moving: (S,) bool, what a reset starts again.
        within: steps that the influence is followed for; None for all.
    """

    def __init__(
        self,
        pattern: Pattern,
        sizes: list[int],
        shapes: list[tuple[int, ...]],
        started: list[Tensor] | None,
        moving: Tensor,
        within: int | None = None,
    ) -> None:
        self.size = sum(sizes)
        self.moving = moving
        size = self.size
        passed, shown = pattern.passed[:size], pattern.passed[size:]
        live = shown.any(0)  # what a loss, or an element that is live itself, reads
        while bool((more := live | passed[live].any(0)).ne(live).any()):
            live = more
        self.live = live
        fed, self.axes = _by_rows(pattern.fed, shapes, size)
        self.rows = [f.shape[1] for f in fed]
        self.shapes = shapes
        step = passed & live[:, None] & live[None]
        self.blocks: list[Block] = []
        leaf_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
        begins = [s if started is None else s | started[i] for i, s in enumerate(fed)]
        for i, begin in enumerate(begins):
            reach = begin & live[:, None]
            for _ in range(size if within is None else within - 1):
                more = reach | ((step.float() @ reach.float()) > 0)
                if torch.equal(more, reach):
                    break
                reach = more
            self.blocks += _blocks_of(reach, leaf_of, sizes, step, i)
        reached = torch.zeros(size, dtype=torch.bool)
        for block in self.blocks:
            reached[block.elements.flatten()] = True
        self.fed = fed
        self.feeding = [bool((f & reached[:, None]).any()) for f in fed]
        together = torch.cat([step, *(f for f, used in zip(fed, self.feeding) if used)], 1)
        self.by_state, self.by_parameters = _passes(step, reached), _passes(together[:, size:], reached)
        joint = _passes(together, reached)
        self.joint = joint.number > 0 and joint.number == max(self.by_state.number, self.by_parameters.number)
        if self.joint and self.by_state.number == self.by_parameters.number:
            self.by_state = self.by_parameters = joint
        else:
            self.joint = False
        self.step = step
        self.terms = [self._terms_of(block) for block in self.blocks]
        self.begins = [self._beginning(block) for block in self.blocks]
        self.asks = [Index(block.elements.flatten()) for block in self.blocks]
        frees = [moving[block.elements] for block in self.blocks]  # (r, rows) or (r, 1)
        self.free = [f if bool(f.any()) and not bool(f.all()) else bool(f.all()) for f in frees]
        self.full = [bool(block.kept.all()) for block in self.blocks]

    @property
    def numbers(self) -> int:
        """Numbers that the influence of one row of the batch consists of."""
        return sum(prod(self.form(1, block)) for block in self.blocks)

    def form(self, batch_size: int, block: Block) -> tuple[int, int, int, int]:
        """Shape of a block's influence."""
        cols = prod(self.shapes[block.parameter]) // max(1, self.rows[block.parameter])
        return batch_size, block.elements.shape[0], block.stop - block.start, cols

    def as_rows(self, value: Tensor, parameter: int, lead: int) -> Tensor:
        """(*lead, *shape) of a parameter as (*lead, rows, cols)."""
        if value.ndim == lead:
            return value.reshape(*value.shape, 1, 1)
        return (
            value.movedim(lead + self.axes[parameter], lead).flatten(lead + 1)
            if value.ndim > lead + 1
            else value[..., None]
        )

    def as_parameter(self, rows: Tensor, parameter: int) -> Tensor:
        """The inverse of `as_rows`, without leading dimensions."""
        shape = list(self.shapes[parameter])
        if not shape:
            return rows.reshape(())
        axis = self.axes[parameter]
        moved = [shape[axis], *shape[:axis], *shape[axis + 1 :]]
        return rows.reshape(moved).movedim(0, axis)

    # --- derivatives of the step in the form of blocks ---

    def _terms_of(self, out: Block) -> list[_Term]:
        terms = []
        for number, source in enumerate(self.blocks):
            if source.parameter != out.parameter:
                continue
            a, b = max(out.start, source.start), min(out.stop, source.stop)
            if a >= b:
                continue
            apply = self._apply(out, source, a, b)
            if apply is not None:
                rows = a - source.start, b - source.start
                terms.append(_Term(number, rows, (a - out.start, out.stop - b), apply))
        return terms

    def _coefficients(self, to: Tensor, source: Tensor) -> Callable[[Tensor], Tensor] | None:
        """The derivatives of elements ``to`` by elements ``source``, two lists of one shape; None where all are zero."""
        mask = self.step[to, source]
        if not bool(mask.any()):
            return None
        shape = to.shape
        some = None if bool(mask.all()) else mask
        if self.by_state.number == 1:
            index = Index(source.flatten())

            def one_pass(values: Tensor) -> Tensor:
                found = index(values[:, 0]).reshape(-1, *shape)
                return found if some is None else found * some.to(found)

            return one_pass
        index = Index((self.by_state.of[to] * self.size + source).flatten())

        def many(values: Tensor) -> Tensor:
            found = index(values.flatten(1)).reshape(-1, *shape)
            return found if some is None else found * some.to(found)

        return many

    def _apply(self, out: Block, source: Block, a: int, b: int) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(values of the derivatives (B, K, S), influence of the source's rows a:b) -> what it adds to the block."""
        if out.uniform and source.uniform:
            to, old = out.elements[:, 0], source.elements[:, 0]
            part = self.step[to][:, old]
            if not bool(part.any()):
                return None
            if part.shape[0] == part.shape[1] and not bool((part & ~torch.eye(len(part), dtype=torch.bool)).any()):
                diagonal = self._coefficients(to, old)
                assert diagonal is not None
                return lambda values, influence: diagonal(values)[:, :, None, None] * influence
            matrix = self._coefficients(*torch.broadcast_tensors(to[:, None], old[None]))
            assert matrix is not None
            return lambda values, influence: torch.bmm(matrix(values), influence.flatten(2)).unflatten(
                2, influence.shape[2:]
            )
        if out.uniform:
            of_rows = source.elements[:, a - source.start : b - source.start]
            to = out.elements
            slots = [self._coefficients(*torch.broadcast_tensors(to, e[None])) for e in of_rows]
            return _sum_of_slots([(None, k, c) for k, c in enumerate(slots) if c is not None])
        if source.uniform:  # a leaf that read it would be uniform
            return None
        to_rows = out.elements[:, a - out.start : b - out.start]
        of_rows = source.elements[:, a - source.start : b - source.start]
        kept = source.kept[:, a - source.start : b - source.start]
        found = []
        for j, to_slot in enumerate(to_rows):
            for k, e in enumerate(of_rows):
                if bool((kept[k] & self.step[to_slot, e]).any()):
                    found.append((j, k, self._coefficients(to_slot, e)))
        return _sum_of_slots(found, len(to_rows))

    def _beginning(self, block: Block) -> Callable[[Tensor], Tensor] | None:
        """Derivatives by the parameter (B, K, rows, cols) -> the immediate influence of a block; None where it is zero."""
        rows = slice(block.start, block.stop)
        elements = block.elements.expand(-1, block.stop - block.start)
        mask = self.fed[block.parameter][elements, torch.arange(block.start, block.stop)] & block.kept
        if not bool(mask.any()):
            return None
        some = None if bool(mask.all()) else mask[..., None]
        if self.by_parameters.number == 1:

            def one_pass(values: Tensor) -> Tensor:
                found = values[:, :, rows]
                if some is None:
                    return found.expand(-1, len(block.elements), -1, -1)
                return found * some.to(found)

            return one_pass
        of = self.by_parameters.of[elements]
        alike = bool((of == of[:, :1]).all())
        index = Index(of[:, 0])
        counting = torch.arange(block.start, block.stop)

        def many(values: Tensor) -> Tensor:
            if alike:
                found = index(values[:, :, rows].movedim(1, -1)).movedim(-1, 1)
            else:
                found = values[:, of.to(values.device), counting.to(values.device)]
            return found if some is None else found * some.to(found)

        return many

    # --- what rules do with it ---

    def nothing(self, batch_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """No influence."""
        return tuple(like.new_zeros(self.form(batch_size, block)) for block in self.blocks)

    def start(self, whole: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
        """The influence (S, P) on an initial state, in blocks (1, r, rows, cols)."""
        parts = whole.split([p.numel() for p in parameters], 1)
        found = []
        for block in self.blocks:
            part = parts[block.parameter].reshape(-1, *self.shapes[block.parameter])
            rows = self.as_rows(part, block.parameter, 1)
            counting = torch.arange(block.start, block.stop, device=rows.device)
            elements = block.elements.to(rows.device).expand(-1, len(counting))
            found.append((rows[elements, counting] * block.kept[..., None].to(rows))[None])
        return tuple(found)

    def restarted(
        self, influence: tuple[Tensor, ...], rows: Tensor, again: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...]:
        """Rows (B,) of the batch start again, with ``again`` or with nothing; constant leaves stay."""
        found = []
        for i, value in enumerate(influence):
            free = self.free[i]
            if free is False:
                found.append(value)
                continue
            mask = rows[:, None, None, None]
            if isinstance(free, Tensor):
                mask = mask & free[None, :, :, None].to(rows.device)
            new = value.new_zeros(()) if again is None else again[i]
            found.append(torch.where(mask, new, value))
        return tuple(found)

    def advanced(
        self, influence: tuple[Tensor, ...], by_state: Tensor, by_parameters: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """The influence after a step.

        Args:
            influence: before it.
            by_state: (B, K, S) derivatives of the step, pass by pass.
            by_parameters: (B, K, rows, cols) for every parameter.
        """
        found = []
        parts = zip(self.blocks, self.full, self.terms, self.begins, influence)
        for block, full, terms, begin, value in parts:
            new = None if begin is None else begin(by_parameters[block.parameter])
            for term in terms:
                source = influence[term.source]
                if term.rows_in != (0, source.shape[2]):
                    source = source[:, :, slice(*term.rows_in)]
                part = term.apply(by_state, source)
                if term.pad != (0, 0):
                    part = F.pad(part, (0, 0, *term.pad))
                new = part if new is None else new + part
            new = torch.zeros_like(value) if new is None else new
            found.append(new if full else new * block.kept[..., None].to(new))
        return tuple(found)

    def reached(self, wanted: Tensor, influence: tuple[Tensor, ...]) -> list[Tensor | None]:
        """What the losses want of the parameters through the states: (rows, cols) each, None for nothing.

        Args:
            wanted: (B, S) derivative of the loss by the state.
            influence: before the step.
        """
        total: list[Tensor | None] = [None] * len(self.shapes)
        for index, block, value in zip(self.asks, self.blocks, influence):
            ask = index(wanted).reshape(-1, *block.elements.shape)
            if block.uniform:
                part = torch.einsum("br,brnc->nc", ask[..., 0], value)
            else:
                part = (ask[..., None] * value).sum((0, 1))
            rows = self.rows[block.parameter]
            if (block.start, block.stop) != (0, rows):
                part = F.pad(part, (0, 0, block.start, rows - block.stop))
            old = total[block.parameter]
            total[block.parameter] = part if old is None else old + part
        return total


def _sum_of_slots(found: list[Any], num_out: int | None = None) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Coefficients times slots of the source: (out slot or None for all, in slot, coefficients)."""
    if not found:
        return None
    if num_out is None:

        def to_all(values: Tensor, influence: Tensor) -> Tensor:
            parts = [c(values)[..., None] * influence[:, k : k + 1] for _, k, c in found]
            return sum(parts[1:], parts[0])

        return to_all

    def to_each(values: Tensor, influence: Tensor) -> Tensor:
        slots: list[Any] = [None] * num_out
        for j, k, c in found:
            part = c(values)[..., None] * influence[:, k]
            slots[j] = part if slots[j] is None else slots[j] + part
        blank = torch.zeros_like(influence[:, 0])
        return torch.stack([blank if s is None else s for s in slots], 1)

    return to_each


def _by_rows(fed: list[Tensor] | None, shapes: list[tuple[int, ...]], size: int) -> tuple[list[Tensor], list[int]]:
    """(S, rows) for every parameter, and the dimension of it that the rows are: the one that separates most."""
    found, axes = [], []
    for i, shape in enumerate(shapes):
        if fed is None or not shape:
            dense = torch.ones(size, shape[0] if shape else 1, dtype=torch.bool)
            if fed is not None:
                dense = torch.zeros(size, 1, dtype=torch.bool)
                dense[fed[i][0], 0] = True
            found.append(dense)
            axes.append(0)
            continue
        best, axis, least = None, 0, -1.0
        left = prod(shape)
        rest = fed[i][1]
        for dim, n in enumerate(shape):
            left //= max(1, n)
            place = (rest // max(1, left)) % max(1, n)
            mask = torch.zeros(size, n, dtype=torch.bool)
            mask[fed[i][0], place] = True
            cost = float(mask.sum()) * (prod(shape) / max(1, n))
            if best is None or cost < least:
                best, axis, least = mask, dim, cost
        assert best is not None
        found.append(best)
        axes.append(axis)
    return found, axes


def _blocks_of(reach: Tensor, leaf_of: Tensor, sizes: list[int], step: Tensor, parameter: int) -> list[Block]:
    """The blocks of one parameter that reaches (S, rows)."""
    leaves = [leaf for leaf in range(len(sizes)) if bool(reach[leaf_of == leaf].any())]
    inside = {leaf: (leaf_of == leaf).nonzero().flatten() for leaf in leaves}

    def most(leaf: int) -> int:
        return int(reach[inside[leaf]].sum(0).max())

    uniform = {leaf: most(leaf) > 1 and (most(leaf) > _MOST_PER_ROW or most(leaf) >= sizes[leaf]) for leaf in leaves}
    changed = True
    while changed:  # what reads a dense influence is dense
        changed = False
        for to in leaves:
            sources = [s for s in leaves if uniform[s] and bool(step[inside[to]][:, inside[s]].any())]
            if sources and not uniform[to]:
                uniform[to] = changed = True
    blocks = []
    for leaf in leaves:
        places = inside[leaf]
        part = reach[places]
        rows = part.any(0).nonzero().flatten()
        start, stop = int(rows[0]), int(rows[-1]) + 1
        if uniform[leaf]:
            elements = places[part.any(1)][:, None]
            kept = reach[elements[:, 0], start:stop]
            blocks.append(Block(leaf, parameter, start, stop, elements, True, kept))
            continue
        for a, b in _runs(part[:, start:stop].sum(0).tolist(), start):
            count = int(part[:, a:b].sum(0).max())
            if count == 0:
                continue
            elements = torch.zeros(count, b - a, dtype=torch.int64)
            kept = torch.zeros(count, b - a, dtype=torch.bool)
            for row in range(a, b):
                own = places[part[:, row]]
                kept[: len(own), row - a] = True
                elements[:, row - a] = own[0] if len(own) else places[0]
                elements[: len(own), row - a] = own
            blocks.append(Block(leaf, parameter, a, b, elements, False, kept))
    return blocks


def _runs(counts: list[int], start: int) -> list[tuple[int, int]]:
    """Stretches of equal counts; one stretch where there would be many."""
    edges = [0, *(i for i in range(1, len(counts)) if counts[i] != counts[i - 1]), len(counts)]
    if len(edges) - 1 > _MOST_RUNS:
        edges = [0, len(counts)]
    return [(start + a, start + b) for a, b in pairwise(edges)]


# --- a cell's plan, and the derivatives it asks for ---


class Course(NamedTuple):
    """How the influence on a cell's state is kept.

    Args:
        plan: of the influence.
        learned: is the initial state learned?
    """

    plan: Plan
    learned: bool


def course(cell: Cell, state: Tree, *, cut: bool = False, within: int | None = None) -> Course:
    """The plan for a cell with states of the form of ``state`` (B, ...).

    Args:
        cut: element-wise ways alone, see `Cut`.
        within: steps that the influence is followed for; None for all.

    Raises:
        Untraceable: ``cut``, and a step that torch cannot write down as a graph.
    """
    states = tree.map(lambda leaf: leaf[None], state)
    what = f"plan cut={cut} within={within}"
    return remembered(cell, what, tree.leaves(states), lambda: _made(cell, states, cut, within))


class Cut(NamedTuple):
    """Two forms of a step with the same values: what the losses want of the state, and what the state keeps."""

    signal: StepGraph
    eligibility: StepGraph


def cut_step(cell: Cell, xs: Tree, states: Tree, forced: Tree = None, force_mask: Tensor | None = None) -> Cut:
    """The step for leaves (T, B, ...), cut.

    Raises:
        Untraceable: a step that torch cannot write down as a graph.
    """

    def make() -> Cut:
        graph = trace_step(cell, xs, states, forced, force_mask)
        return Cut(cut_products(graph), element_wise(graph))

    leaves = [*tree.leaves((xs, states, forced)), force_mask]
    found: Cut = remembered(cell, "cut", leaves, make)
    return found


def _made(cell: Cell, states: Tree, cut: bool, within: int | None) -> Course:
    with _aside(), torch.no_grad():
        xs = zeros(cell.input_spec, 1, 1, dtype=cell.dtype, device=cell.device)
        drawn = draw(cell, xs, torch.Generator())
        xs = Noisy(xs, drawn.noise) if isinstance(cell, StochasticCell) else xs
    learns = [p.requires_grad and p.is_floating_point() for _, p in cell.named_parameters()]
    shapes = [tuple(p.shape) for p in learning(cell).values()]
    sizes = [prod(leaf.shape[2:]) for leaf in tree.leaves(states) if leaf.is_floating_point()]
    size = sum(sizes)
    try:
        graph = trace_step(cell, xs, states)
        same = [a is b for a, b in zip(graph.results(), graph.placeholders(2))]
        pattern = find_pattern(element_wise(graph) if cut else graph, learns)
        if cut:
            shown = find_pattern(cut_products(graph), [False] * len(learns)).passed[size:]
            pattern = Pattern(torch.cat([pattern.passed[:size], shown]), pattern.fed)
        assert pattern.fed is not None
        pattern = pattern._replace(fed=[f for f, keep in zip(pattern.fed, learns) if keep])
    except Untraceable:
        if cut:
            raise
        same = [False] * len(sizes)
        pattern = Pattern(torch.ones(size + 1, size, dtype=torch.bool), None)
    moving = torch.cat([torch.full((n,), not s) for n, s in zip(sizes, same)]) if sizes else torch.zeros(0).bool()
    learned = any(isinstance(m, Cell) and m.initial_values is not None for m in cell.modules())
    started = None
    if learned:
        with _aside(), torch.no_grad():
            whole = (start_influence(cell) != 0).cpu()
        started = []
        parts = whole.split([prod(s) for s in shapes], 1)
        _, axes = _by_rows(pattern.fed, shapes, size)
        for part, shape, axis in zip(parts, shapes, axes):
            full = part.reshape(size, *(shape or (1,))).movedim(1 + axis, 1)
            started.append(full.flatten(2).any(2) if full.ndim > 2 else full)
    return Course(Plan(pattern, sizes, shapes, started, moving, within), learned)


def derivatives(cell: Cell, plan: Plan, row: Any, made: Stretch) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For every step, the derivatives of the next state by the state (B, K, S) and by the parameters (B, K, rows, cols)."""
    num_steps, rows, size = made.wanted.shape
    names = list(row.parameters)
    used = [n for n, feeds in zip(names, plan.feeding) if feeds]
    cost = plan.by_state.number * size + plan.by_parameters.number * sum(row.parameters[n].numel() for n in used)
    block = max(1, _MOST_ELEMENTS // max(1, rows * cost))
    leaves = row.leaves()
    for a in range(0, num_steps, block):
        part = rows_between(leaves, a * rows, min(a + block, num_steps) * rows)
        num = min(a + block, num_steps) * rows - a * rows
        by_state, by_parameters = _pulled(plan, row, used, part, num)
        blank = by_state.new_zeros(())
        each = [plan.as_rows(by_parameters[n], i, 2) if n in by_parameters else blank for i, n in enumerate(names)]
        for t in range(num // rows):
            here = slice(t * rows, (t + 1) * rows)
            yield by_state[here], [v[here] if v.ndim else v for v in each]


def _pulled(plan: Plan, row: Any, used: list[str], part: Any, num: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Derivatives of all rows in one go; row by row through autograd for a step that `torch.func` cannot map."""
    floats = part[0]
    like = floats[0]
    seeds = [p.seeds.to(like) for p in (plan.by_state, plan.by_parameters)]
    fixed = {n: p for n, p in row.parameters.items() if n not in used}
    chosen = {n: row.parameters[n] for n in used}

    def passes(pull: Any, seed: Tensor) -> Any:
        if len(seed) == 1:
            return tree.map(lambda v: v.unsqueeze(0), tuple(pull(seed[0])))
        return vmap(pull)(seed)

    def of_row(values: dict[str, Tensor], floats: Any, others: Any, rest: Any, masks: Any) -> Any:
        def whole(f: Any, *v: Tensor) -> Tensor:
            found: Tensor = row({**fixed, **dict(zip(used, v))}, f, others, rest, masks)
            return found

        own = [values[n] for n in used]
        if plan.joint:
            pull: Any = vjp(lambda *all_: whole(all_[: len(floats)], *all_[len(floats) :]), *floats, *own)[1]
            found = passes(pull, seeds[0])
            return found[: len(floats)], found[len(floats) :]
        by_state, by_parameters = (
            tuple(f.new_zeros(0, *f.shape) for f in floats),
            tuple(p.new_zeros(0, *p.shape) for p in own),
        )
        if len(seeds[0]):
            by_state = passes(vjp(lambda *f: whole(f, *own), *floats)[1], seeds[0])
        if len(seeds[1]) and own:
            by_parameters = passes(vjp(lambda *v: whole(floats, *v), *own)[1], seeds[1])
        return by_state, by_parameters

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            by_state, by_parameters = vmap(of_row, in_dims=(None, 0, 0, 0, 0))(chosen, *part)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        by_state, by_parameters = _one_by_one(row, chosen, fixed, part, num, seeds)
    flat = torch.cat([d.flatten(2) if d.ndim > 2 else d.unsqueeze(2) for d in by_state], 2)
    return flat, dict(zip(used, by_parameters))


def _one_by_one(row: Any, chosen: Any, fixed: Any, part: Any, num: int, seeds: list[Tensor]) -> tuple[Any, Any]:
    """See `_pulled`."""
    found: tuple[list[Any], list[Any]] = ([], [])
    for i in range(num):
        one = tuple(tuple(leaf[i] for leaf in group) for group in part)
        with torch.enable_grad():
            values = {n: p.detach().requires_grad_() for n, p in chosen.items()}
            floats = tuple(leaf.detach().requires_grad_() for leaf in one[0])
            new = row({**fixed, **values}, floats, *one[1:])
            for wanted, seed, kept in zip((list(floats), list(values.values())), seeds, found):
                each = []
                for s in seed:
                    grads: Any = (None,) * len(wanted)
                    if new.requires_grad:
                        grads = torch.autograd.grad(new, wanted, s, retain_graph=True, allow_unused=True)
                    each.append([torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted)])
                columns = list(zip(*each)) if each else [() for _ in wanted]
                kept.append([torch.stack(c) if c else w.new_zeros(0, *w.shape) for c, w in zip(columns, wanted)])
    by_state, by_parameters = ([torch.stack(c) for c in zip(*kept)] for kept in found)
    return by_state, by_parameters


def followed(
    cell: Cell, way: Course, influence: tuple[Tensor, ...], made: Stretch, graph: StepGraph | None = None
) -> tuple[tuple[Tensor, ...], Direction]:
    """Carry the influence along a stretch: what it is at the end, and what the losses want through the states."""
    plan, parameters = way.plan, learning(cell)
    total: list[Tensor | None] = [None] * len(parameters)
    again = None
    if made.restarted is not None and way.learned:
        again = plan.start(start_influence(cell), list(parameters.values()))
    if plan.blocks:
        row = row_of(cell, made.inputs, graph)
        for t, (by_state, by_parameters) in enumerate(derivatives(cell, plan, row, made)):
            if made.restarted is not None:
                influence = plan.restarted(influence, made.restarted[t], again)
            for i, part in enumerate(plan.reached(made.wanted[t], influence)):
                if part is not None:
                    old = total[i]
                    total[i] = part if old is None else old + part
            new = plan.advanced(influence, by_state, by_parameters)
            if made.alive is not None:
                alive = made.alive[t][:, None, None, None]
                new = tuple(torch.where(alive, n, o) for n, o in zip(new, influence))
            influence = new
    direction = {
        n: torch.zeros_like(p).detach() if part is None else plan.as_parameter(part, i)
        for i, ((n, p), part) in enumerate(zip(parameters.items(), total))
    }
    return influence, direction


def zero_influence(cell: Cell, way: Course, batch_size: int) -> tuple[Tensor, ...]:
    """The influence on the initial state."""
    parameters = learning(cell)
    like = torch.zeros(0, dtype=cell.dtype, device=cell.device)
    if not way.learned or flat_size(cell.initial_state(1)) == 0:
        return way.plan.nothing(batch_size, like)
    begun = way.plan.start(start_influence(cell), list(parameters.values()))
    return tuple(b.expand(batch_size, -1, -1, -1).clone() for b in begun)
