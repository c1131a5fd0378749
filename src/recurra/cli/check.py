"""``recurra check``: the laws, on the whole catalog, on one of it, or on a class of your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .edge import command

if TYPE_CHECKING:
    from ..testing.random_run import RandomReport

EVERY = 50  # cells between two writes of the record


@command
def check(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A cell, memory or dynamics: a name of the catalog, module:Mine or file.py:Mine.",
            show_default="everything in the catalog",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every size and type, not one drawn for each law.")] = False,
    device: Annotated[str, typer.Option(help="Where to run the catalog: cpu, cuda, ...")] = "cpu",
    random_cells: Annotated[
        int, typer.Option(help="Put that many cells together at random; the native engine must agree with the loop.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the first random cell; the next has the next seed.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the record of --random-cells; an unfinished one goes on.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, for the catalog or --random-cells.")] = 1,
) -> None:
    """Ask for every law: gradients, causality, streaming, padding, all engines; of memories and spins energy, patterns that
    stay, detailed balance. Exit code 1 if one is broken.
    """
    if random_cells or out is not None:
        if target is not None or full or device != "cpu" or random_cells < 1:
            hint = "--out goes with --random-cells; these with no TARGET, --full or --device."
            raise ValueError(f"recurra: --random-cells must be at least 1 and stand alone, got otherwise. {hint}")
        _random(random_cells, seed, out, jobs)
        return
    if target is not None:
        if full or device != "cpu" or jobs != 1:
            raise ValueError("recurra: --full, --device and --jobs must be given without a TARGET, got both.")
        from ..testing.target import check_target

        code = check_target(target, write=typer.echo)
        if code:
            raise typer.Exit(code)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ..testing.run import run_all
    from .screen import console

    screen = console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:<40.40}"),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0)
        report = run_all(full, lambda what, part: bar.update(task, description=what, completed=part), device, jobs)
    typer.echo(str(report))
    for line in report.broken:
        typer.echo(line)
    if report.broken:
        raise typer.Exit(1)


def _random(count: int, first: int, out: Path | None, jobs: int) -> None:
    """The long run, its record kept up to date."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ..testing.random_run import RandomReport, run_random
    from ..training.files import write_atomically
    from .screen import console

    path = None if out is None else out / "random-cells.json"
    before = None
    if path is not None and path.exists():
        before = RandomReport.of(json.loads(path.read_text(encoding="utf-8")))
    screen = console(stderr=True)

    def keep(report: RandomReport) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(report.record(), indent=2) + "\n")

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=count)

        def told(report: RandomReport) -> None:
            news = f"{report.count} cells, {len(report.problems)} differ"
            bar.update(task, completed=report.count, description=news)
            if report.count % EVERY == 0:
                keep(report)

        report = run_random(count, first, told, before, jobs)
    keep(report)
    typer.echo(str(report))
    if report.problems:
        raise typer.Exit(1)
