"""The reference: one Python step after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..core import tree
from ..core.cell import Cell, FeedbackCell, constant_leaves
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree

Step = Callable[[Tree, Tree], tuple[Tree, Tree]]


def num_steps_of(xs: Tree) -> int:
    """T."""
    return int(tree.leaves(xs)[0].shape[0])


def scan(cell: Cell, step: Step, xs: Tree, state: Tree, controls: Controls, first_x: Tree = None) -> tuple[Tree, Tree]:
    """The time loop that every engine in Python shares: resets before a step, lengths and forcing after it.

    Args:
        cell: asked for its initial state and its feedback.
        step: one step from ``xs``'s leaves at t.
        xs: leaves (T, B, ...), already projected where ``step`` wants that.
        state: leaves (B, ...).
        controls: lengths, resets, forcing.
        first_x: the cell's own input at t = 0 where ``xs`` is projected (needed for resets only).
    """
    start, constant = None, []
    if controls.reset is not None:
        constant = constant_leaves(cell, tree.at(xs, 0) if first_x is None else first_x, state)
        start = cell.initial_state(int(controls.reset.shape[1]))
    alive = controls.alive(num_steps_of(xs))
    ys = []
    for t, x in enumerate(tree.steps(xs)):
        if controls.reset is not None:
            mask = controls.reset[t] if alive is None else controls.reset[t] & alive[t]
            state = _restart(mask, start, state, constant)
        y, new = step(x, state)
        if controls.forced is not None:
            where_forced = None if controls.force_mask is None else controls.force_mask[t]
            assert isinstance(cell, FeedbackCell)
            new = cell.force(new, tree.at(controls.forced, t), where_forced)
        state = new if alive is None else tree.where(alive[t], new, state)
        ys.append(y)
    return tree.stack(ys), state


def restart(cell: Cell, x: Tree, state: Tree, mask: Tensor) -> Tree:
    """The state with the rows in ``mask`` (B,) started again; constant leaves stay. ``x`` is any input of one step."""
    return _restart(mask, cell.initial_state(int(mask.shape[0])), state, constant_leaves(cell, x, state))


def _restart(mask: Tensor, start: Tree, state: Tree, constant: list[bool]) -> Tree:
    keep = iter(constant)
    return tree.map(lambda s, z: s if next(keep) else tree.where(mask, z, s), state, start)


@dataclass(frozen=True)
class Loop(Engine):
    """One step after another in Python: the reference that every engine is compared with. Never optimised."""

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        return scan(cell, cell.step, xs, state, controls)
