"""The laws, public: `check_cell`, `check_engine`, `check_rule`, `check_memory`.

A law is a small named property that every member of a family has. ``laws("cells")`` lists them, `check_cell` asks one
cell for all of them, ``recurra check mymodule:MyCell`` does so from the command line, and `run_all` asks the whole
catalog.

    >>> from recurra.cells import ElmanCell
    >>> outcomes = check_cell(ElmanCell(3, 5))
    >>> {outcome.status for outcome in outcomes} <= {"holds", "not applicable"}
    True
"""

from __future__ import annotations

from types import ModuleType

from ..core.cell import Cell
from ..core.engine import Engine
from . import capability_laws, engine_laws, sequence_laws, step_laws
from .generate import SquaredDistance
from .law import Law, LawBroken, Outcome, Setting

_PLACES: dict[str, tuple[ModuleType, ...]] = {
    "cells": (step_laws, sequence_laws, capability_laws),
    "engines": (engine_laws,),
}
FAMILIES = tuple(_PLACES)


def laws(family: str) -> tuple[Law, ...]:
    """The laws of a family, the simplest first.

    Args:
        family: "cells", "engines", "rules" or "memories".

    Example:
        >>> [law.name for law in laws("cells")][:3]
        ['examples', 'documented', 'specs']
    """
    found: list[Law] = []
    for module in _PLACES[family]:
        own = (item for item in vars(module).values() if isinstance(item, Law))
        found += [item for item in own if item.check.__module__ == module.__name__]
    return tuple(found)


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


__all__ = [
    "Law",
    "LawBroken",
    "Outcome",
    "Setting",
    "SquaredDistance",
    "check_cell",
    "check_engine",
    "laws",
]
