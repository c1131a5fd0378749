"""The laws, public: `check_cell`, `check_engine`, `check_rule`, `check_memory`, `check_dynamics`.

A law is a small named property that every member of a family has. ``laws("cells")`` lists them, `check_cell` asks one
cell for all of them, ``recurra check mymodule:MyCell`` does so from the command line (`check_target`), and `run_all` asks
the whole catalog.

    >>> from recurra.cells import ElmanCell
    >>> outcomes = check_cell(ElmanCell(3, 5))
    >>> {outcome.status for outcome in outcomes} <= {"holds", "not applicable"}
    True
"""

from __future__ import annotations

from typing import Any

from ..core.cell import Cell
from ..core.engine import Engine
from ..core.memory import AssociativeMemory
from ..core.rule import LearningRule, SearchRule
from ..core.spins import SpinDynamics
from .families import laws
from .generate import SquaredDistance
from .law import Law, LawBroken, Outcome, Setting
from .run import Report, run_all
from .target import check_target


def check_cell(cell: Cell, setting: Setting | None = None) -> list[Outcome]:
    """Ask a cell for every law of cells; the cell itself is left as it is.

    Args:
        cell: an instance, small if it is to be quick.
        setting: sizes, type and seed; None for T=5, B=3, float64.

    Raises:
        LawBroken: the first law that does not hold.
    """
    return [law.enforce(cell, setting=setting or Setting()) for law in laws("cells")]


def check_engine(engine: Engine, cell: Cell, setting: Setting | None = None) -> list[Outcome]:
    """Ask an engine for every law of engines, on one cell.

    Raises:
        LawBroken: the first law that does not hold.
    """
    return [law.enforce(engine, cell, setting=setting or Setting()) for law in laws("engines")]


def check_rule(rule: LearningRule[Any] | SearchRule[Any], cell: Cell, setting: Setting | None = None) -> list[Outcome]:
    """Ask a learning or search rule for every law of rules, on one cell.

    Raises:
        LawBroken: the first law that does not hold.
    """
    return [law.enforce(rule, cell, setting=setting or Setting()) for law in laws("rules")]


def check_memory(memory: AssociativeMemory[Any], setting: Setting | None = None) -> list[Outcome]:
    """Ask an associative memory for every law of memories.

    Raises:
        LawBroken: the first law that does not hold.
    """
    return [law.enforce(memory, setting=setting or Setting()) for law in laws("memories")]


def check_dynamics(dynamics: SpinDynamics, setting: Setting | None = None) -> list[Outcome]:
    """Ask a dynamics of spins for every law of dynamics.

    Raises:
        LawBroken: the first law that does not hold.
    """
    return [law.enforce(dynamics, setting=setting or Setting()) for law in laws("dynamics")]


__all__ = [
    "Law",
    "LawBroken",
    "Outcome",
    "Report",
    "Setting",
    "SquaredDistance",
    "check_cell",
    "check_dynamics",
    "check_engine",
    "check_memory",
    "check_rule",
    "check_target",
    "laws",
    "run_all",
]
