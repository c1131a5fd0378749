"""``recurra report``: the page about a model."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.", show_default=False)],
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write report.html again from what a training has left, and say where it is."""
    from ..report import write_report

    page = write_report(run)
    typer.echo(str(page))
    if show:
        webbrowser.open(page.resolve().as_uri())
