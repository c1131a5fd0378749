"""``recurra evaluate``: how good a saved model is on a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="A file of the kind it was trained on.", show_default=False)],
    target: Annotated[
        str | None, typer.Option(help="Table: the column to predict.", show_default="as in training")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a saved model on another file: the loss of a text, the accuracy of a classifier, the errors of forecasts."""
    from .jobs import Roles, job_of_run
    from .screen import console, facts
    from .train import finite, use_threads

    use_threads(threads)
    job, model = job_of_run(run, file, Roles(target=target))
    metrics, rows = job.evaluate(model)
    if as_json:
        typer.echo(json.dumps(finite(metrics), indent=2))
        return
    facts(console(), rows)
