"""``recurra show``: everything about one member of the catalog."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .edge import command

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from ..core.cell import Cell

INDENT = 4

_SECTION = re.compile(r"(Args|State|Returns|Raises|Source|Differs|Cost|Example|Examples):\s*$")
_CODE = re.compile(r"``(.+?)``|`(.+?)`")
_ITEM = re.compile(r"(\*{0,2}\w[\w.*\[\] ,()]*?): (.*)$")


@command
def show(
    name: Annotated[str, typer.Argument(help="A name of `recurra list`, e.g. LSTMCell.", show_default=False)],
) -> None:
    """Show one of them: equations, arguments, state, source, cost."""
    from .screen import console

    family, item = find_anywhere(name)
    screen = console()
    screen.print()
    _heading(screen, family, item)
    _docstring(screen, inspect.getdoc(item) or "")
    _instance(screen, item)


def find_anywhere(name: str) -> tuple[str, type]:
    """The family and the member of a name.

    Raises:
        ValueError: no family has it; the message names the nearest of all.
    """
    import difflib

    from ..core.catalog import FAMILIES, find, members
    from .listing import label

    for family in FAMILIES:
        if name in members(family):  # before the same name without "Cell"
            return family, members(family)[name]
    for family in FAMILIES:
        try:
            return family, find(family, name)
        except ValueError:
            continue
    keys = {}
    for family in FAMILIES:
        for item in members(family).values():
            for key in (item.__name__, item.__name__.removesuffix("Cell"), label(item)):
                keys[key.lower()] = label(item)
    near = list(dict.fromkeys(keys[k] for k in difflib.get_close_matches(name.lower(), keys, n=5, cutoff=0.5)))[:3]
    hint = f"Did you mean {' or '.join(near)}?" if near else "See `recurra list`."
    raise ValueError(f"recurra: NAME must be a member of the catalog, got {name!r}. {hint}")


def _heading(screen: Console, family: str, item: type) -> None:
    from rich.text import Text

    kind = {"memories": "memory", "dynamics": "dynamics of spins"}.get(family, family.removesuffix("s"))
    screen.print(Text.assemble((item.__name__, "bold"), f"  {kind}, {item.__module__}"))
    made = {f.name: f.default_factory for f in dataclasses.fields(item)} if dataclasses.is_dataclass(item) else {}
    parts = []
    for name, parameter in inspect.signature(item).parameters.items():
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        factory = made.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()
        parts.append(f"{star}{name}" + ("" if default is parameter.empty else f"={default!r}"))
    screen.print(Text(f"{item.__name__}({', '.join(parts)})", style="cyan"))
    screen.print()


def _docstring(screen: Console, text: str) -> None:
    """The one form that all docstrings have: a line, prose, equations (indented), sections."""
    section = ""
    block: list[str] = []
    for line in [*text.splitlines(), "End:"]:
        head = _SECTION.match(line)
        if head or line == "End:":
            _section(screen, section, block)
            section, block = (head[1] if head else ""), []
        else:
            block.append(line)


def _section(screen: Console, section: str, block: list[str]) -> None:
    from rich.text import Text

    if not any(line.strip() for line in block):
        return
    if not section:
        _prose(screen, block)
        return
    block = inspect.cleandoc("\n".join(["", *block])).splitlines()
    screen.print(Text(section, style="bold"))
    if section.startswith("Example"):
        _verbatim(screen, block)
    elif section not in ("Source", "Differs", "Cost") and any(_ITEM.match(line) for line in block):
        _items(screen, block)
    else:
        for paragraph in "\n".join(block).split("\n\n"):
            _indented(screen, _words(paragraph))
    screen.print()


def _prose(screen: Console, block: list[str]) -> None:
    """Running text is wrapped; what is indented is kept as it is."""
    from itertools import groupby

    for kind, lines in groupby(block, lambda line: "empty" if not line.strip() else line.startswith("    ")):
        if kind == "empty":
            screen.print()
        elif kind:
            _verbatim(screen, [line[4:] for line in lines])
        else:
            screen.print(_words(" ".join(lines)))


def _words(text: str) -> Text:
    """Running text in one line, what stands in backquotes as code."""
    from rich.text import Text

    found, last = Text(), 0
    text = " ".join(text.split())
    for match in _CODE.finditer(text):
        found.append(text[last : match.start()])
        found.append(f"`{match[1] or match[2]}`", style="cyan")
        last = match.end()
    return found.append(text[last:])


def _indented(screen: Console, what: RenderableType) -> None:
    from rich.padding import Padding

    screen.print(Padding(what, (0, 0, 0, INDENT), expand=False))


def _verbatim(screen: Console, lines: list[str]) -> None:
    """Lines as they are; what is too wide goes on below, further in."""
    from rich.text import Text

    wrapped: list[str] = []
    for line in lines:
        inside = len(line) - len(line.lstrip())
        wrapper = textwrap.TextWrapper(
            width=max(20, screen.width - INDENT),
            subsequent_indent=" " * (inside + 8),
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        )
        wrapped += wrapper.wrap(line) or [""]
    _indented(screen, Text("\n".join(wrapped).rstrip(), style="cyan", no_wrap=True, overflow="ignore"))


def _items(screen: Console, block: list[str]) -> None:
    """``name: text`` with lines that go on, as two columns."""
    rows: list[tuple[str, str]] = []
    for line in block:
        found = _ITEM.match(line)
        if found and not line.startswith(" "):
            rows.append((found[1], found[2]))
        elif rows and line.strip():
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line}")
        elif line.strip():
            rows.append(("", line))
    _columns(screen, rows)


def _columns(screen: Console, rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(Text(name, style="bold"), _words(text))
    _indented(screen, grid)


def _instance(screen: Console, item: type) -> None:
    """A small instance in numbers, where the class offers examples; the claims of an experiment."""
    from ..core import tree
    from ..core.cell import Cell
    from ..core.experiment import Experiment

    if issubclass(item, Experiment):
        _claims(screen, item)
    cell = next(item.examples(), None) if issubclass(item, Cell) else None
    if cell is None:
        return
    from rich.text import Text

    spec = cell.state_spec
    kinds = ["" if leaf.dtype is None else f" {str(leaf.dtype).removeprefix('torch.')}" for leaf in tree.leaves(spec)]
    state = [f"{n or 'the state'} {leaf}{kind}" for n, leaf, kind in zip(tree.names(spec), tree.leaves(spec), kinds)]
    sizes = [f"{name} {tuple(p.shape)}" for name, p in cell.named_parameters()]
    count = sum(p.numel() for p in cell.parameters())
    screen.print(Text("A small one", style="bold"))
    rows = [
        ("built as", brief(cell)),
        ("state", ", ".join(state) or "none"),
        ("parameters", f"{count:,}" + (f": {', '.join(sizes)}" if sizes else "")),
        ("is a", ", ".join(c.__name__ for c in item.__mro__ if c.__module__ == Cell.__module__ and c is not item)),
    ]
    _columns(screen, rows)


def brief(cell: Cell) -> str:
    """A cell and the cells inside it, in one line.

    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.wrappers import Stack
        >>> brief(Stack(ElmanCell(3, 5), ElmanCell(5, 4)))
        'Stack(ElmanCell(input_size=3, hidden_size=5), ElmanCell(input_size=5, hidden_size=4))'
    """
    from ..core.cell import Cell, CompositeCell

    parts = cell.parts if isinstance(cell, CompositeCell) else cell.children()
    inside = [part for part in parts if isinstance(part, Cell)]
    own = [] if not cell.extra_repr() else [cell.extra_repr()]
    return f"{type(cell).__name__}({', '.join([*map(brief, inside), *own])})"


def _claims(screen: Console, item: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen.print(Text("Claims", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("metric", "ours must be", "published", "how sure"):
        table.add_column(column)
    for claim in item.claims:
        bar = f"{'<=' if claim.better == 'lower' else '>='} {claim.bar:g}"
        published = " ".join(part for part in (claim.published, f"({claim.where})" if claim.where else "") if part)
        sure = claim.sure + (", negative control" if claim.control else "")
        table.add_row(*(Text(value) for value in (claim.metric, bar, published, sure)))
    _indented(screen, table)
