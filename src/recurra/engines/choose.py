"""The engine that chooses an engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.cell import Cell
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from .hoisted import Hoisted, run_structure
from .vendor import Vendor


@dataclass(frozen=True)
class Auto(Engine):
    """The fastest engine that supports the cell: `Vendor`, else `Hoisted`; in a stack, each layer has its own."""

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        done = run_structure(self, cell, xs, state, controls)
        return self.choose(cell, xs, state, controls).run(cell, xs, state, controls) if done is None else done

    def choose(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> Engine:
        """The engine that `run` takes for a cell that is not made of cells."""
        vendor = Vendor()
        return vendor if vendor.supports(cell, xs, state, controls) is None else Hoisted()
