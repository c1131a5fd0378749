"""``recurra list``: what the catalog holds."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated

import typer

from .edge import command

if TYPE_CHECKING:
    from rich.console import Console


@command
def list_members(
    family: Annotated[
        str | None, typer.Argument(help="cells, engines, rules, memories, dynamics or experiments.", show_default="all")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what there is: cells, engines, learning rules, memories, dynamics of spins, experiments."""
    from ..core.catalog import FAMILIES, members
    from ..core.checks import check_choice

    if family is not None:
        check_choice("recurra", "FAMILY", family, tuple(FAMILIES))
    chosen = list(FAMILIES) if family is None else [family]
    found = {
        name: [
            {"name": label(item), "what": first_line(item), "module": item.__module__}
            for item in members(name).values()
        ]
        for name in chosen
    }
    if as_json:
        typer.echo(json.dumps(found if family is None else found[family], indent=2))
        return
    from .screen import console

    screen = console()
    for name, rows in found.items():
        packages = FAMILIES[name].packages
        rooms = {package.rpartition(".")[2] if len(packages) > 1 else name: package for package in packages}
        for room, package in rooms.items():
            _table(screen, room, [row for row in rows if row["module"].startswith(f"{package}.")])
    example = next((row["name"] for rows in found.values() for row in rows), "LSTMCell")
    screen.print(f"More about one of them: recurra show {example}")


def label(item: type) -> str:
    """What a user calls it: an experiment by its id, anything else by its class."""
    own_id = getattr(item, "id", None)
    return own_id if isinstance(own_id, str) else item.__name__


def first_line(item: type) -> str:
    """The first sentence of the docstring."""
    return (inspect.getdoc(item) or "").partition("\n\n")[0].replace("\n", " ")


def _table(screen: Console, title: str, rows: list[dict[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    screen.print(Text(f"{title} ({len(rows)})", style="bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(Text(f"  {row['name']}", style="cyan"), Text(row["what"]))
    if rows:
        screen.print(table)
    screen.print()
