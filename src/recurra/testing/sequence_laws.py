"""Laws about a cell over time.

They run the cell with `Hoisted`, the engine that hands whole sequences to what a cell offers for them (``project``,
``pointwise``, ``compose``); what only ever sees one step could not break some of them.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell, CompositeCell, HoistedCell, LinearCell, Noisy, PointwiseCell, constant_leaves
from ..core.controls import Controls
from ..core.tree import Tree
from ..engines.hoisted import Hoisted
from ..engines.loop import Loop
from .compare import same
from .generate import (
    Case,
    case,
    generator_of,
    lengths_for,
    mask_for,
    random_like,
    rows_of,
    sequence,
    sizes,
    values,
    weighted,
)
from .law import Setting, law

WHOLE = Hoisted()


@law("A later input changes no earlier output.")
def causality(cell: Cell, setting: Setting) -> str | None:
    """Everything from some step on is replaced, noise included."""
    cell, xs, state = case(cell, setting, min_steps=2)
    num_steps, batch_size = sizes(xs)
    generator = generator_of(setting, 11)
    other = sequence(cell, num_steps, batch_size, generator, setting.noisy)
    with torch.no_grad():
        wanted, _ = WHOLE(cell, xs, state)
        for cut in {1, num_steps // 2, num_steps - 1} - {0}:
            changed = tree.concatenate([tree.window(xs, 0, cut), tree.window(other, cut, num_steps)])
            found, _ = WHOLE(cell, changed, state)
            what = f"with another input from step {cut} on, an earlier output"
            same(what, tree.window(found, 0, cut), tree.window(wanted, 0, cut))
    return None


def gradients_of(cell: Cell, xs: Tree, state: Tree, total: Tensor) -> dict[str, Tensor]:
    """The gradient of ``total`` by every parameter and floating leaf of xs and state, zero where there is none."""
    bare = xs.x if isinstance(xs, Noisy) else xs
    leaves = dict(cell.named_parameters())
    for label, value in (("xs", bare), ("state", state)):
        leaves.update({f"{label}.{n}".rstrip("."): leaf for n, leaf in zip(tree.names(value), tree.leaves(value))})
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not leaves or not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(leaves.items(), found)}


def attached(value: Tree) -> Tree:
    """The same values; floating leaves want gradients. The noise of a `Noisy` input does not."""
    if isinstance(value, Noisy):
        return Noisy(attached(value.x), value.noise)
    return tree.map(lambda t: t.detach().clone().requires_grad_(tree.is_differentiable(t)), value)


@law("Padding changes nothing: values, state at the true end and gradients are those of each row at its own length.")
def padding(cell: Cell, setting: Setting) -> str | None:
    """NaN stands in the padding of what floats, other values in that of integers; a length of zero is among them."""
    cell, xs, state = case(cell, setting, min_steps=2, min_rows=3)
    num_steps, batch_size = sizes(xs)
    lengths = lengths_for(setting, num_steps, batch_size)
    alive = Controls(lengths=lengths).alive(num_steps)
    assert alive is not None
    rubbish = _rubbish(cell, xs, generator_of(setting, 12))
    xs, state = attached(tree.where(alive, xs, rubbish)), attached(state)

    ys, last = WHOLE(cell, xs, state, Controls(lengths=lengths))
    pieces = []
    for row in range(batch_size):
        end, piece = int(lengths[row]), slice(row, row + 1)
        start = tree.map(lambda s, piece=piece: s[piece], state)
        alone, after = WHOLE(cell, tree.window(rows_of(xs, piece), 0, end), start)
        fill = tree.map(lambda y, end=end: y.new_zeros(num_steps - end, *y.shape[1:]), alone)
        pieces.append((tree.concatenate([alone, fill]), after))
    wanted_ys = tree.concatenate([y for y, _ in pieces], 1)
    wanted_last = tree.concatenate([s for _, s in pieces], 0)
    same("an output of a padded batch", ys, wanted_ys)
    same("the state at the true end", last, wanted_last)

    weights = random_like((ys, last), generator_of(setting, 13))
    found = gradients_of(cell, xs, state, weighted((ys, last), weights))
    wanted = gradients_of(cell, xs, state, weighted((wanted_ys, wanted_last), weights))
    for name, gradient in found.items():
        same(f"the gradient by {name} of a padded batch", gradient, wanted[name])
    return None


def _rubbish(cell: Cell, xs: Tree, generator: torch.Generator) -> Tree:
    """NaN where xs floats, other fitting values elsewhere; the noise, which nobody pads, as it is."""
    other = values(cell.input_spec, *sizes(xs), dtype=cell.dtype, generator=generator)
    other = tree.map(lambda t: torch.full_like(t, float("nan")) if tree.is_differentiable(t) else t, other)
    return Noisy(other, xs.noise) if isinstance(xs, Noisy) else other


@law("A stream cut anywhere, carrying the state on, gives what the whole gives.")
def streaming(cell: Cell, setting: Setting) -> str | None:
    """Random cuts, empty stretches among them, and single steps; plain, and with lengths and resets cut alike."""
    cell, xs, state = case(cell, setting, min_steps=3)
    num_steps, batch_size = sizes(xs)
    ragged = Controls(lengths_for(setting, num_steps, batch_size), mask_for(setting, num_steps, batch_size))
    generator = torch.Generator().manual_seed(setting.seed)
    cuts = sorted(int(n) for n in torch.randint(0, num_steps + 1, (3,), generator=generator))
    with torch.no_grad():
        for controls, kind in ((Controls(), ""), (ragged, " with lengths and resets")):
            wanted = WHOLE(cell, xs, state, controls)
            for inner in (cuts, list(range(1, num_steps))):
                ys, now = [], state
                for a, b in itertools.pairwise([0, *inner, num_steps]):
                    y, now = WHOLE(cell, tree.window(xs, a, b), now, controls.window(a, b))
                    ys.append(y)
                same(f"the stream cut at {inner}{kind}", (tree.concatenate(ys), now), wanted)
    return None


@law("A reset equals starting again: what came before changes nothing that comes after.")
def reset(cell: Cell, setting: Setting) -> str | None:
    """Random resets, one before the first step among them; constant leaves stay."""
    cell, xs, state = case(cell, setting, min_steps=3, min_rows=2)
    if not tree.leaves(state):
        return "it has no state."
    num_steps, batch_size = sizes(xs)
    mask = mask_for(setting, num_steps, batch_size)
    mask[0, 0], mask[num_steps // 2, 1] = True, True
    constant = constant_leaves(cell, tree.at(xs, 0), state)
    with torch.no_grad():
        found = WHOLE(cell, xs, state, Controls(reset=mask))
        pieces = [_restarted(cell, xs, state, mask, constant, row) for row in range(batch_size)]
    wanted = tree.concatenate([y for y, _ in pieces], 1), tree.concatenate([s for _, s in pieces], 0)
    same("a stream with resets", found, wanted)
    return None


def _restarted(cell: Cell, xs: Tree, state: Tree, mask: Tensor, constant: list[bool], row: int) -> tuple[Tree, Tree]:
    """One row, its stretches between resets run one by one, each from a new initial state."""
    piece = slice(row, row + 1)
    now = tree.map(lambda s: s[piece], state)
    ends = sorted({0, *(int(t) for t in mask[:, row].nonzero()), len(mask)})
    ys = []
    for a, b in itertools.pairwise(ends):
        if mask[a, row]:
            keep = iter(constant)
            now = tree.map(lambda s, z, keep=keep: s if next(keep) else z, now, cell.initial_state(1))
        y, now = WHOLE(cell, tree.window(rows_of(xs, piece), a, b), now)
        ys.append(y)
    return tree.concatenate(ys), now


@law("What takes a whole sequence at once (project, coefficients, emit, pointwise, compose) treats every step alike.")
def leading(cell: Cell, setting: Setting) -> str | None:
    """Leaves (T, B, ...) give, step for step, what leaves (B, ...) give."""
    cell, xs, state = case(cell, setting, min_steps=2)
    with torch.no_grad():
        return _leading(Case(cell, xs, state))


def _leading(given: Case) -> str | None:
    cell, xs, state = given
    num_steps, _ = sizes(xs)
    steps = [tree.at(xs, t) for t in range(num_steps)]
    asked = False
    if isinstance(cell, HoistedCell):
        same("project of a sequence", cell.project(xs), tree.stack([cell.project(x) for x in steps]))
        asked = True
    if isinstance(cell, LinearCell):
        wanted = tree.stack([cell.coefficients(x) for x in steps])
        same("coefficients of a sequence", cell.coefficients(xs), wanted)
        states = tree.map(lambda s: s.expand(num_steps, *s.shape), state)
        same("emit of a sequence", cell.emit(xs, states), tree.stack([cell.emit(x, state) for x in steps]))
        asked = True
    if isinstance(cell, PointwiseCell):
        same("pointwise of a sequence", cell.pointwise(xs), tree.stack([cell.pointwise(x) for x in steps]))
        asked = True
    if isinstance(cell, CompositeCell):
        loop = Loop()
        found = cell.compose(lambda part, inner, s: loop.run(part, inner, s, Controls()), xs, state)
        same("compose of a sequence", found, loop(cell, xs, state))
        asked = True
    return None if asked else "it takes one step at a time."
