"""``recurra predict``: answers for new sequences."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .edge import command


@command
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a saved classifier or regressor.", show_default=False)],
    file: Annotated[
        Path, typer.Argument(help="Sequences; their labels, if any, are not looked at.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="CSV file to write.", show_default="the screen")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say for each sequence of a file which class or value a saved model gives it, as CSV."""
    from ..core.checks import sentence
    from ..training.files import write_atomically
    from .jobs import Roles, job_of_run
    from .jobs.sequences import SequenceJob
    from .train import use_threads

    use_threads(threads)
    job, model = job_of_run(run, file, Roles(), needs_labels=False)
    if not isinstance(job, SequenceJob):
        hint = f"It holds {job.what}."
        raise ValueError(sentence("recurra", str(run), "a classifier or a regressor", "another model", hint))
    for note in dict.fromkeys([*(text for name, text in job.facts if name == "Read"), *job.oddities(model)]):
        typer.echo(f"Note: {note}", err=True)
    rows = job.predict(model)
    if out is not None:
        write_atomically(out, table(rows))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif out is None:
        typer.echo(table(rows), nl=False)
    else:
        typer.echo(f"{len(rows):,} answers are in {out}.")


def table(rows: list[dict[str, Any]]) -> str:
    """As CSV."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([f"{v:.8g}" if isinstance(v, float) else v for v in row.values()])
    return target.getvalue()
