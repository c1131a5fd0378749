"""The catalog: finds the members of a family by importing the packages where they live.

Nothing is registered by hand. A public class that subclasses the family's base, is not abstract, and stands in one of the
family's packages is a member from the moment its file exists.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass

from .cell import Cell
from .engine import Engine
from .experiment import Experiment
from .memory import AssociativeMemory
from .rule import LearningRule, SearchRule
from .spins import SpinDynamics


@dataclass(frozen=True)
class Family:
    """A kind of thing the house holds: its base classes and the packages where they live."""

    name: str
    bases: tuple[type, ...]
    packages: tuple[str, ...]


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("cells", (Cell,), ("recurra.cells", "recurra.wrappers")),
        Family("engines", (Engine,), ("recurra.engines",)),
        Family("rules", (LearningRule, SearchRule), ("recurra.learning",)),
        Family("memories", (AssociativeMemory,), ("recurra.memories",)),
        Family("dynamics", (SpinDynamics,), ("recurra.memories",)),
        Family("experiments", (Experiment,), ("recurra.experiments",)),
    )
}


def members(family: str) -> dict[str, type]:
    """Name -> class of every member, sorted by name.

    Args:
        family: "cells", "engines", "rules", "memories", "dynamics" or "experiments".

    Example:
        >>> "LSTMCell" in members("cells")
        True
    """
    kind = FAMILIES[family]
    found: dict[str, type] = {}
    for package in kind.packages:
        for module in _modules(package):
            for name, item in vars(module).items():
                if not inspect.isclass(item) or item.__module__ != module.__name__ or name.startswith("_"):
                    continue
                if issubclass(item, kind.bases) and not inspect.isabstract(item):
                    found[name] = item
    return dict(sorted(found.items()))


def _modules(package: str) -> list:
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as missing:
        if missing.name == package:  # a room that is not built yet is empty
            return []
        raise
    names = [f"{package}.{info.name}" for info in pkgutil.iter_modules(root.__path__)]
    return [importlib.import_module(name) for name in sorted(names)]


def find(family: str, name: str, where: str = "catalog", argument: str = "name") -> type:
    """The member called ``name``, upper and lower case and a trailing "Cell" being free.

    Args:
        family: of the catalog.
        name: of the member.
        where, argument: who asks, and for what, for the message.

    Raises:
        ValueError: there is none; the message names the nearest.

    Example:
        >>> find("cells", "lstm").__name__
        'LSTMCell'
    """
    import difflib

    everyone = members(family)
    keys = {key.lower(): key for key in everyone}
    for key in list(keys):
        keys.setdefault(key.removesuffix("cell"), keys[key])
        experiment_id = getattr(everyone[keys[key]], "id", None)
        if isinstance(experiment_id, str):
            keys.setdefault(experiment_id.lower(), keys[key])
    if name.lower() in keys:
        return everyone[keys[name.lower()]]
    near = difflib.get_close_matches(name.lower(), keys, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(dict.fromkeys(keys[n] for n in near))}?" if near else ""
    raise ValueError(f"{where}: {argument} must be one of the {family}, got {name!r}. {hint}".strip())
