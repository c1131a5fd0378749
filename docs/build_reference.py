"""Reference pages from the catalog: one per member, none written by hand.

``mkdocs build`` calls this through its hook (see ``mkdocs.yml``) and keeps the pages in memory. ``python -m
docs.build_reference FOLDER`` writes them into a folder.
"""

from __future__ import annotations

import html
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

import recurra
from recurra.cli.main import app
from recurra.core import Cell, Controls, Engine, StochasticCell, catalog
from recurra.core import cell as cell_module
from recurra.core.cell import quiet
from recurra.core.spec import zeros

SECTION = re.compile(r"^(Args|State|Returns|Raises|Source|Differs|Cost|Example):$")
ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_][\w, *]*): (.*)$")


class Page(NamedTuple):
    """A page: its place below ``reference/``, its title, its markdown."""

    path: str
    title: str
    text: str


class Group(NamedTuple):
    """Pages that stand together, the overview first."""

    title: str
    overview: Page
    members: list[Page]


def groups() -> list[Group]:
    """The commands, the families that have members, then what else the packages offer in their ``__all__``."""
    found = [Group("Commands", commands_page(), [])]
    shown: set[Any] = set()
    for family, members in ((family, catalog.members(family)) for family in catalog.FAMILIES):
        shown.update(members.values())
        if members:
            found.append(_group(family, f"# {family.capitalize()}\n", members))
    for package in packages():
        items = {key: item for key, item in public(package) if item not in shown}
        if items:
            name = package.rpartition(".")[2]
            head = f"# {name.capitalize()}\n\n{prose(summary(importlib.import_module(package)))}\n"
            found.append(_group(f"package-{name}" if name in catalog.FAMILIES else name, head, items))
    return found


def _group(folder: str, head: str, items: dict[str, Any]) -> Group:
    pages = [Page(f"{folder}/{name}.md", name, member_page(item, name)) for name, item in items.items()]
    columns = ["name", "what it is", *(["source"] if any(source_of(item) for item in items.values()) else [])]
    lines = [head, _row(columns), _row(["---"] * len(columns))]
    for name, item in items.items():
        lines.append(_row([f"[{name}]({name}.md)", prose(summary(item)), prose(source_of(item))][: len(columns)]))
    title = folder.removeprefix("package-").capitalize() + (", more" if folder.startswith("package-") else "")
    return Group(title, Page(f"{folder}/index.md", "Overview", "\n".join(lines) + "\n"), pages)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def commands_page() -> Page:
    """Every command with its arguments and options, as ``recurra COMMAND --help`` has them."""
    lines = ["# Commands", ""]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        lines += [f"## recurra {name}", "", prose(command.help or ""), "", "| | | default |", "| --- | --- | --- |"]
        for parameter in command.params:
            words = ", ".join(f"`{o}`" for o in parameter.opts) if parameter.opts[0].startswith("-") else ""
            default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
            shown = "" if default is None or default is False or callable(default) else prose(str(default))
            label = words or f"`{(parameter.metavar or parameter.name.upper())}`"
            lines.append(_row([label, prose(parameter.help or ""), shown]))
        lines.append("")
    return Page("commands.md", "Commands", "\n".join(lines))


def pages() -> list[Page]:
    """Every page."""
    everything = groups()
    lines = ["# Reference", "", f"Recurra {recurra.__version__}. These pages are made from the catalog.", ""]
    lines += [f"- [{g.title}]({g.overview.path})" + (f": {len(g.members)}" if g.members else "") for g in everything]
    first = Page("index.md", "Overview", "\n".join(lines) + "\n")
    return [first, *[page for group in everything for page in (group.overview, *group.members)]]


def packages() -> list[str]:
    """The rooms of the house."""
    return [f"recurra.{info.name}" for info in pkgutil.iter_modules(recurra.__path__) if info.ispkg]


def public(package: str) -> Iterator[tuple[str, Any]]:
    """The classes and functions a package offers: its ``__all__``."""
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", ()):
        item = getattr(module, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            yield name, item


def member_page(item: Any, name: str | None = None) -> str:
    """A class or a function: its signature, its docstring, and for a cell what can be measured of it."""
    name = name or item.__name__
    package = item.__module__.rpartition(".")[0]
    home = package if hasattr(importlib.import_module(package), name) else item.__module__
    lines = [f"# {name}", "", "```python", f"from {home} import {name}", "", signature(item, name), "```", ""]
    lines += render(inspect.getdoc(item) or "")
    if inspect.isclass(item):
        if issubclass(item, Cell) and not inspect.isabstract(item):
            lines += _facts(item)
        else:
            lines += _methods(item)
    return "\n".join(lines) + "\n"


def signature(item: Any, name: str) -> str:
    """The call, one argument a line where it is long."""
    try:
        found = inspect.signature(item)
    except (TypeError, ValueError):
        return name
    parameters = [p.replace(annotation=_plain(p.annotation)) for p in found.parameters.values()]
    text = f"{name}{found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)}"
    if len(text) <= 100:
        return text
    parts = [str(p) for p in parameters]
    keyword = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if keyword is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        parts.insert(keyword, "*")
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


class _Annotation(str):
    """Prints without quotes inside a signature."""

    def __repr__(self) -> str:
        return str(self)


def _plain(annotation: Any) -> Any:
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def summary(item: Any) -> str:
    """The first sentence of the docstring's first paragraph."""
    return " ".join((inspect.getdoc(item) or "").split("\n\n")[0].split())


def source_of(item: type) -> str:
    """The paper."""
    source = getattr(item, "source", "")
    return source if isinstance(source, str) else ""


def prose(text: str) -> str:
    """Text outside code: what markdown or HTML would take as markup is shown as it is."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(part if i % 2 else _escape(part) for i, part in enumerate(parts)).replace("|", "&#124;")


def _escape(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text, quote=False))


def render(docstring: str) -> list[str]:
    """The house's docstring form as markdown."""
    lines: list[str] = []
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.splitlines():
        heading = SECTION.match(line)
        if heading:
            parts.append((heading[1], []))
        else:
            parts[-1][1].append(line)
    for section, body in parts:
        if section:
            lines += [f"## {section}", ""]
            lines += [*_section(section, textwrap.dedent("\n".join(body)).strip().splitlines()), ""]
        else:
            for paragraph in re.split(r"\n\s*\n", "\n".join(body)):
                lines += [*_paragraph(paragraph), ""]
    return lines


def _paragraph(text: str) -> list[str]:
    """Indented lines are equations."""
    if text.startswith("    "):
        return ["```text", *textwrap.dedent(text).rstrip().splitlines(), "```"]
    return [prose(line) for line in text.splitlines()]


def _section(section: str, body: list[str]) -> list[str]:
    if section == "Example":
        return ["```pycon", *body, "```"]
    entries = []
    for line in body:
        entry = ENTRY.match(line)
        if entry and section in ("Args", "State", "Raises"):
            entries.append(f"- **{prose(entry[1])}**: {prose(entry[2])}")
        else:
            entries.append(("  " if line.startswith(" ") else "") + prose(line.strip()))
    return entries


def _methods(item: type) -> list[str]:
    """The public methods that the class itself writes."""
    lines: list[str] = []
    for name, value in vars(item).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        what = "property" if isinstance(value, property) else ""
        if name.startswith("_") or not (inspect.isfunction(function) or what) or not inspect.getdoc(function):
            continue
        call = f"{name} ({what})" if what else signature(function, name)
        lines += [f"## `{name}`", "", "```python", call, "```", "", *_demoted(render(inspect.getdoc(function) or ""))]
    return lines


def _demoted(lines: list[str]) -> list[str]:
    return [f"**{line[3:]}**" if line.startswith("## ") else line for line in lines]


def _facts(item: type[Cell]) -> list[str]:
    """What the instances of ``examples`` show: parameters, state, capabilities, engines."""
    examples = list(item.examples())
    first = examples[0]
    lines = ["## Instances", "", "What the laws are run on:", "", "```text"]
    lines += [str(example).splitlines()[0] if "\n" not in str(example) else str(example) for example in examples]
    lines += ["```", ""]
    parameters = list(first.named_parameters())
    if parameters:
        lines += ["## Parameters", "", "Of the first instance:", "", "| name | shape |", "| --- | --- |"]
        lines += [f"| `{name}` | `{tuple(p.shape)}` |" for name, p in parameters]
        lines.append("")
    able = [c.__name__ for c in capabilities() if issubclass(item, c)]
    if able:
        lines += ["## Capabilities", "", ", ".join(f"`{name}`" for name in able), ""]
    lines += ["## Engines", "", "| engine | runs the first instance |", "| --- | --- |"]
    for name, engine in catalog.members("engines").items():
        reason = supports(engine(), first)
        lines.append(f"| [{name}](../engines/{name}.md) | {'yes' if reason is None else 'no: ' + prose(reason)} |")
    lines.append("")
    return lines


def supports(engine: Engine, cell: Cell) -> str | None:
    """The engine's own answer for a sequence of two steps of one row."""
    xs: Any = zeros(cell.input_spec, 2, 1, dtype=cell.dtype, device=cell.device)
    if isinstance(cell, StochasticCell):
        xs = quiet(xs)
    return engine.supports(cell, xs, cell.initial_state(1), Controls())


def capabilities() -> list[type]:
    """The classes of ``recurra.core.cell`` between `Cell` and a cell."""
    return [c for c in vars(cell_module).values() if inspect.isclass(c) and issubclass(c, Cell) and c is not Cell]


def write(folder: Path) -> int:
    """Write all pages; returns how many."""
    everything = pages()
    for page in everything:
        path = folder / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(page.text, encoding="utf-8")
        beside.replace(path)
    return len(everything)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m docs.build_reference FOLDER")
    print(f"{write(Path(sys.argv[1]))} pages in {sys.argv[1]}")
