"""Input terms of all steps in one product, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from ..core import tree
from ..core.cell import Cell, CompositeCell, HoistedCell, PointwiseCell
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from .loop import scan


def run_structure(engine: Engine, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree] | None:
    """What needs no time loop of its own: a cell made of cells runs part by part, a cell without state in one call.

    Returns:
        Outputs and state, or None for a cell that must be carried through time.
    """
    if isinstance(cell, CompositeCell):
        inside = controls.without_forcing()
        return cell.compose(lambda part, values, s: engine.run(part, values, s, inside), xs, state)
    if isinstance(cell, PointwiseCell):
        return cell.pointwise(xs), ()
    return None


@dataclass(frozen=True)
class Hoisted(Engine):
    """Computes the input terms of all steps in one product, then loops over the rest.

    A stack runs layer by layer, so that the second layer's input term is one product too. A cell that is no `HoistedCell`
    runs as in `Loop`. Memory: the projected inputs, (T, B, G*H), are kept.
    """

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        done = run_structure(self, cell, xs, state, controls)
        if done is not None:
            return done
        if not isinstance(cell, HoistedCell):
            return scan(cell, cell.step, xs, state, controls)
        first_x = None if controls.reset is None else tree.at(xs, 0)
        return scan(cell, cell.advance, cell.project(xs), state, controls, first_x)
