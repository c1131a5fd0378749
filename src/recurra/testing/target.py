"""The laws on one class, of the house or a user's own: what ``recurra check mymodule:MyCell`` runs."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.catalog import members
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.memory import AssociativeMemory
from ..core.spins import SpinDynamics
from .families import laws
from .law import STATUSES, Law, Outcome
from .settings import drawn_setting, instances

BASES: dict[str, type] = {"cells": Cell, "memories": AssociativeMemory, "dynamics": SpinDynamics}
MOST_SHOWN = 20  # broken laws that are spelt out


def check_target(target: str, write: Callable[[str], object] = print) -> int:
    """Run every law of its family on the examples of a cell, a memory or a dynamics of spins, those of all engines on a cell,
    and print what came of it.

    Args:
        target: ``"mymodule:MyCell"``, ``"path/file.py:MyCell"``, or a name of the catalog.
        write: takes the lines of the report.

    Returns:
        0 if all laws hold, 1 if one does not.

    Raises:
        ValueError: the target, the module or the class is not there, or the class has no examples.
        TypeError: the class is none of these.
    """
    kind = load_class(target, "check", BASES) if ":" in target else _of_the_house(target)
    family = next(name for name, base in BASES.items() if issubclass(kind, base))
    cells = examples_of(kind)
    write(f"{kind.__name__}: {len(cells)} example{'s' if len(cells) > 1 else ''}")
    found: list[tuple[Law, Outcome]] = []
    for law in laws(family):
        outcomes = [law.judge(cell, setting=drawn_setting(str(i), law.name)) for i, cell in enumerate(cells)]
        write(f"  {law.name:<20} {_verdict(outcomes)}")
        found += [(law, outcome) for outcome in outcomes]
    for name, engine in instances("engines") if family == "cells" else ():
        items = [
            (law, law.judge(engine, cell, setting=drawn_setting(str(i), name, law.name)))
            for i, cell in enumerate(cells)
            for law in laws("engines")
        ]
        label = f"engine {name}"
        write(f"  {label:<20} {_counted([outcome for _, outcome in items])}")
        found += items
    shown: set[tuple[str, str]] = set()
    for law, outcome in found:
        if outcome.status == "broken" and (law.name, outcome.reason) not in shown and len(shown) < MOST_SHOWN:
            shown.add((law.name, outcome.reason))
            write(f"\n{law.name}: {law.text}\n  {outcome.subject}: {outcome.reason}")
    write(f"\n{_counted([outcome for _, outcome in found])}")
    return 1 if any(outcome.status == "broken" for _, outcome in found) else 0


def _verdict(outcomes: list[Outcome]) -> str:
    """What came of one law for several examples."""
    broken = sum(o.status == "broken" for o in outcomes)
    if broken:
        return f"BROKEN ({broken} of {len(outcomes)} examples)"
    if any(o.status == "holds" for o in outcomes):
        return "holds"
    return f"{outcomes[0].status}: {outcomes[0].reason}"


def _counted(outcomes: list[Outcome]) -> str:
    """How many of each status."""
    counts = {status: sum(o.status == status for o in outcomes) for status in STATUSES}
    return ", ".join(f"{n} {status}" for status, n in counts.items() if n or status in ("holds", "broken"))


def _of_the_house(name: str) -> type:
    """The class of the catalog with that name, upper and lower case and a trailing "Cell" being free."""
    own = {key: item for family in BASES for key, item in members(family).items()}
    keys = {key.lower(): key for key in own}
    keys.update({key.removesuffix("cell"): keys[key] for key in list(keys) if key.removesuffix("cell") not in keys})
    if name.lower() in keys:
        return own[keys[name.lower()]]
    near = difflib.get_close_matches(name.lower(), keys, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(dict.fromkeys(keys[key] for key in near))}?" if near else ""
    want = "MODULE:CLASS, FILE.py:CLASS or a name of the catalog"
    raise ValueError(sentence("check", "target", want, repr(name), hint))


def load_cell(target: str, where: str = "check") -> type[Cell]:
    """The cell class that a target names; see `load_class`."""
    return load_class(target, where, {"cells": Cell})


def load_class(target: str, where: str, bases: dict[str, type]) -> type[Any]:
    """The class that a target names.

    Args:
        target: ``"mymodule:MyCell"`` or ``"path/file.py:MyCell"``.
        where: the command that asks, for messages.
        bases: of which it must be a subclass.

    Raises:
        ValueError: no such module or class.
        TypeError: the class is of another kind, or abstract.
    """
    kinds = tuple(bases.values())
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ValueError(sentence(where, "target", "MODULE:CLASS or FILE.py:CLASS", repr(target)))
    module = _load_file(place, where) if place.endswith(".py") else _load_module(place, where)
    kind = getattr(module, name, None)
    if kind is None:
        classes = [(key, item) for key, item in vars(module).items() if inspect.isclass(item)]
        own = [key for key, item in classes if issubclass(item, kinds) and item.__module__ == module.__name__]
        near = difflib.get_close_matches(name, own, n=2, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(sentence(where, "the class", f"in {place}", repr(name), hint))
    if not inspect.isclass(kind) or not issubclass(kind, kinds):
        what = kind.__name__ if inspect.isclass(kind) else type(kind).__name__
        want = " or ".join(f"recurra.core.{each.__name__}" for each in kinds)
        raise TypeError(sentence(where, name, f"a subclass of {want}", what))
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        want = "a complete cell" if kinds == (Cell,) else "complete"
        raise TypeError(sentence(where, name, want, "an abstract class", f"It does not define {missing}."))
    return kind


def examples_of(kind: type[Any]) -> list[Any]:
    """The instances that a class offers.

    Raises:
        ValueError: there is none, or making them fails.
    """
    try:
        found = list(kind.examples())
    except Exception as error:
        got = f"{type(error).__name__}: {_line(error)}"
        raise ValueError(sentence("check", f"{kind.__name__}.examples", "runnable", got)) from error
    if not found:
        hint = "Yield small instances, each option at least once."
        raise ValueError(sentence("check", f"{kind.__name__}.examples", "at least one instance", "none", hint))
    return found


def _load_module(name: str, where: str, root: Path | None = None) -> ModuleType:
    """Import by name, the current directory (or ``root``) being searched too."""
    here = str(Path.cwd() if root is None else root)
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _failed(name, error, where) from error


def _load_file(place: str, where: str) -> ModuleType:
    """Import a file; inside a package by its full name, so that its relative imports work."""
    path = Path(place).resolve()
    if not path.is_file():
        raise ValueError(sentence(where, "the file", "an existing Python file", repr(place)))
    root, names = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, names = root.parent, [root.name, *names]
    if len(names) > 1:
        return _load_module(".".join(names), where, root)
    spec = importlib.util.spec_from_file_location(f"_checked_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(place, error, where) from error
    return module


def _failed(name: str, error: Exception, where: str) -> ValueError:
    got = f"{type(error).__name__} from {name}: {_line(error)}"
    return ValueError(sentence(where, "the module", "importable", got))


def _line(error: Exception) -> str:
    """An error's message in one line, without the full stop."""
    return " ".join(str(error).split()).rstrip(".")
