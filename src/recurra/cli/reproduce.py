"""``recurra reproduce``: published experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def reproduce(
    experiment: Annotated[list[str] | None, typer.Argument(help="Experiments.", show_default="list them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small setting that ends in seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
) -> None:
    """Run published experiments and print the published numbers beside ours."""
    raise NotImplementedError
