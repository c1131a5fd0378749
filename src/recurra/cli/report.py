"""``recurra report``: the page about a model."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a trained model.", show_default=False)],
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the page and what it was made from.")] = False,
) -> None:
    """Write report.html again from what a training has left, and say where it is."""
    from ..report import write_report
    from ..report.write import EVALUATION

    page = write_report(run)
    if as_json:
        evaluation = json.loads((run / EVALUATION).read_text(encoding="utf-8"))
        typer.echo(json.dumps({"page": str(page), "evaluation": evaluation}, indent=1))
    else:
        typer.echo(str(page))
    if show:
        webbrowser.open(page.resolve().as_uri())
