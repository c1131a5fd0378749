"""The rules of the house, read off the source text: who may import whom, and who may know whom by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MODELS = frozenset({"core", "init", "cells", "wrappers"})
_RUNNING = frozenset({"core", "native", "engines"})
_TRAINING = _RUNNING | {"learning"}
_BELOW_ESTIMATORS = _MODELS | _TRAINING | {"training", "layers", "tasks", "datasets"}
_BELOW_STUDIES = _BELOW_ESTIMATORS | {"estimators", "dropin", "memories"}

ALLOWED: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "init": frozenset({"core"}),
    "cells": frozenset({"core", "init"}),
    "wrappers": frozenset({"core", "init", "cells"}),
    "native": frozenset({"core"}),
    "engines": frozenset({"core", "native"}),
    "layers": _RUNNING,
    "dropin": _RUNNING | _MODELS | {"layers"},
    "learning": _RUNNING,
    "training": _TRAINING,
    "estimators": _BELOW_ESTIMATORS | {"memories"},
    "export": _BELOW_ESTIMATORS | {"estimators"},
    "memories": frozenset({"core", "native"}),
    "tasks": frozenset({"core"}),
    "datasets": frozenset({"core"}),
    "analysis": _BELOW_STUDIES,
    "report": _BELOW_STUDIES,
    "experiments": _BELOW_STUDIES | {"analysis", "report"},
    "testing": _BELOW_STUDIES | {"analysis", "export", "report", "experiments"},
    "cli": _BELOW_STUDIES | {"analysis", "export", "report", "experiments", "testing"},
    "__main__": frozenset({"cli"}),
}
"""Room -> the other rooms it may import. A new room is entered here, and nowhere else."""

KNOW_NO_CELL = ("core", "native", "engines", "layers", "learning", "training")
"""Rooms whose code may not even mention a cell by name: they ask for capabilities."""


class Import(NamedTuple):
    """One import: the line, its text, and the modules it could bring in."""

    line: int
    text: str
    modules: tuple[str, ...]


def module_name(path: Path, package: Path) -> str:
    """The dotted name of a file of the package."""
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import statement of a file, wherever it stands; docstrings are text and do not count."""
    here = module_name(path, package).split(".")
    if path.name != "__init__.py":
        here = here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield Import(node.lineno, ast.unparse(node), tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            names = tuple(f"{base}.{alias.name}" for alias in node.names)
            yield Import(node.lineno, ast.unparse(node), names)


def room_of(module: str, package: Path) -> str | None:
    """The room that a module stands in; None outside the package; "" for the package itself."""
    parts = module.split(".")
    if parts[0] != package.name:
        return None
    inside = len(parts) > 1 and ((package / parts[1]).is_dir() or (package / f"{parts[1]}.py").exists())
    return parts[1] if inside else ""


def forbidden_imports(package: Path) -> list[str]:
    """One sentence per line that breaks the directions of `ALLOWED`."""
    found = []
    for path in sorted(package.rglob("*.py")):
        mine = room_of(module_name(path, package), package)
        for statement in imports_of(path, package):
            place = f"{path.relative_to(package.parent)}:{statement.line}"
            modules = [m for m in statement.modules if m != f"{package.name}.__version__"]  # a fact, not a room
            rooms = {room_of(module, package) for module in modules} - {None, mine}
            for room in sorted(str(r) for r in rooms):
                if mine and mine not in ALLOWED:
                    found.append(f"{place}: {mine} is no room that the plan of the house knows.")
                elif mine and room not in ALLOWED[mine]:
                    what = room or f"{package.name} itself"
                    found.append(f"{place}: {mine} may not import {what}: `{statement.text}`")
    return found


def named_members(package: Path, names: set[str]) -> list[str]:
    """One sentence per line of a `KNOW_NO_CELL` room that mentions one of ``names`` outside a docstring."""
    found = []
    for room in KNOW_NO_CELL:
        for path in sorted((package / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            skip = {id(node) for node in ast.walk(tree) for node in _bare_strings(node)}
            for node in ast.walk(tree):
                word = getattr(node, "id", None) or getattr(node, "attr", None)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skip:
                    word = node.value
                if word in names:
                    place = f"{path.relative_to(package.parent)}:{node.lineno}"  # type: ignore[attr-defined]
                    found.append(f"{place}: {room} knows {word} by name; ask for a capability.")
    return found


def _bare_strings(node: ast.AST) -> Iterator[ast.AST]:
    """Docstrings: strings that stand as a statement."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value


def undocumented(package: Path) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(package.parent)
        if not ast.get_docstring(tree):
            found.append(f"{place}:1: the module has no docstring.")
        for node in _public(tree):
            if not ast.get_docstring(node) and not _is_overload(node):
                found.append(f"{place}:{node.lineno}: {node.name} has no docstring.")
    return found


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child)


def _is_overload(node: Definition) -> bool:
    return any(ast.unparse(d).rpartition(".")[2] in ("overload", "setter") for d in node.decorator_list)


def unsafe_calls(path: Path) -> list[str]:
    """Calls that run or load what a user's file says: pickle, eval, a shell."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(
                m.split(".")[0] in ("pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve") for m in modules
            ):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords)
            if name in ("torch.load", "torch.save", "eval", "exec", "os.system") or shell:
                found.append(f"{path.name}:{node.lineno}: {name}")
    return found
