"""``recurra reproduce``: published experiments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .edge import command

if TYPE_CHECKING:
    from ..experiments.run import Outcome


@command
def reproduce(
    experiment: Annotated[list[str] | None, typer.Argument(help="Experiments.", show_default="list them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small setting that ends in seconds.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the results and the pictures.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page from all results in --out.")] = None,
) -> None:
    """Run published experiments and print the published numbers beside ours. Exit code 1 if a bar is missed."""
    from ..experiments.run import catalog, title
    from .screen import console

    known = catalog()
    names = list(known) if everything else list(experiment or ())
    if page is not None and out is None:
        raise ValueError("recurra: --page must be given with --out, got no folder.")
    if not names and page is None:
        screen = console()
        for name, cls in known.items():
            screen.print(f"{name:<24} {title(cls)}", soft_wrap=False)
        screen.print("\nRun one: recurra reproduce NAME. Run all: recurra reproduce --all --out results")
        return
    missed = bool(names) and _run(names, smoke, out or (None if smoke else Path("results")))
    if page is not None and out is not None:
        from ..experiments.run import page as page_of
        from ..training.files import write_atomically

        write_atomically(page, page_of(out))
        typer.echo(f"Wrote {page}.")
    if missed:
        raise typer.Exit(1)


def _run(names: list[str], smoke: bool, out: Path | None) -> bool:
    """Run them with a progress bar; True if a bar of a full run is missed."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from ..experiments.run import reproduce
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
    missed = False

    def done(outcome: Outcome) -> None:
        nonlocal missed
        missed = missed or not (outcome.smoke or outcome.all_met)
        _show(outcome)

    with bar:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, what: str, part: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=1.0)
            bar.update(tasks[name], description=f"{name}: {what}", completed=part)

        reproduce(names, smoke=smoke, out=out, on_progress=tell, on_done=done)
    if out is not None:
        typer.echo(f"Results and pictures are in {out}.")
    return missed


def _show(outcome: Outcome) -> None:
    """The table of one experiment."""
    from rich.table import Table

    from .screen import console

    screen = console()
    experiment = outcome.experiment
    note = "small setting: the numbers are not held against the bars" if outcome.smoke else f"{outcome.seconds:.0f} s"
    screen.print(f"\n{experiment.id}  ({note})", style="bold")
    table = Table("what", "published", "bar", "ours", "met", box=None, padding=(0, 2, 0, 0))
    for claim in experiment.claims:
        sign = "<=" if claim.better == "lower" else ">="
        name = claim.metric + (" (control)" if claim.control else "")
        met = "-" if outcome.smoke else ("yes" if outcome.met(claim) else "NO")
        row = (claim.published or "-", f"{sign} {claim.bar:g}", f"{outcome.metrics[claim.metric]:.4g}", met)
        table.add_row(name, *row)
    screen.print(table)
