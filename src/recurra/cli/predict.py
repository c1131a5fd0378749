"""``recurra predict``: answers for new sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
) -> None:
    """Say for each sequence of a file which class or value a saved model gives it, as CSV."""
    from ..core.checks import sentence
    from ..training.files import write_atomically
    from .jobs import Roles, job_of_run
    from .jobs.sequences import SequenceJob
    from .train import use_threads

    use_threads(threads)
    job, model = job_of_run(run, file, Roles())
    if not isinstance(job, SequenceJob):
        hint = f"It holds {job.what}."
        raise ValueError(sentence("recurra", str(run), "a classifier or a regressor", "another model", hint))
    table = job.predict(model)
    if out is None:
        typer.echo(table, nl=False)
        return
    write_atomically(out, table)
    typer.echo(f"{len(job.sequences):,} answers are in {out}.")
