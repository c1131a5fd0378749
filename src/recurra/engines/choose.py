"""The engine that chooses an engine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..core import tree
from ..core.cell import Cell
from ..core.checks import is_transformed
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from .hoisted import Hoisted, run_structure
from .loop import num_steps_of, restart
from .native import Native
from .vendor import Vendor

_WORTH_BUILDING = 16
"""Steps from which on a step is turned into machine code: a rule about sizes alone, so that a run that goes on after a stop
takes the same engines."""


@dataclass(frozen=True)
class Auto(Engine):
    """The fastest engine that supports the cell: `Vendor`, else `Native` on the CPU for sequences of 16 steps and more, else
    `Hoisted`; in a stack, each layer has its own. A cell without native form runs on `Hoisted` without a word.

    Where `Vendor` could run but for a few resets, the sequence is cut at them.
    """

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        starts = self._cuts(cell, xs, state, controls)
        if starts:
            return self._pieces(cell, xs, state, controls, starts)
        done = run_structure(self, cell, xs, state, controls)
        return self.choose(cell, xs, state, controls).run(cell, xs, state, controls) if done is None else done

    def choose(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> Engine:
        """The engine that `run` takes for a cell that is not made of cells."""
        vendor = Vendor()
        if vendor.supports(cell, xs, state, controls) is None:
            return vendor
        return Native(silent=True) if num_steps_of(xs) >= _WORTH_BUILDING else Hoisted()

    def _cuts(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> list[int]:
        """The steps with a reset, if they are few and all that keeps `Vendor` from running this; else none."""
        reset = controls.reset
        if reset is None or is_transformed(reset):
            return []
        if Vendor().supports(cell, xs, state, controls._replace(reset=None)) is not None:
            return []
        steps = reset.any(1).nonzero().flatten().tolist()
        return steps or [0] if len(steps) <= 1 + num_steps_of(xs) // 16 else []

    def _pieces(self, cell: Cell, xs: Tree, state: Tree, controls: Controls, starts: list[int]) -> tuple[Tree, Tree]:
        total, reset = num_steps_of(xs), controls.reset
        assert reset is not None
        edges = sorted({0, *starts, total})
        outputs = []
        for a, b in pairwise(edges):
            first = restart(cell, tree.at(xs, a), state, reset[a])
            inside = controls._replace(reset=None).window(a, b)
            if controls.lengths is not None:
                first = tree.where(controls.lengths > a, first, state)
            ys, state = self.run(cell, tree.window(xs, a, b), first, inside)
            outputs.append(ys)
        return tree.concatenate(outputs), state
