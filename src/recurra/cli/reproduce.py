"""``recurra reproduce``: published experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .edge import command_of_all, refuse_several_processes

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiments.run import Outcome


@command_of_all
def reproduce(
    experiment: Annotated[
        list[str] | None, typer.Argument(help="Names of experiments.", show_default="list them")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A small setting that ends in seconds and proves nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for numbers and pictures.", show_default="results; none for --smoke")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with all results in the --out folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; the rest goes to stderr.")] = False,
) -> None:
    """Run published experiments and print the published numbers beside ours. Exit code 1 if ours miss a bar."""
    refuse_several_processes("reproduce")
    if experiment and everything:
        raise ValueError("recurra: --all must be given without names of experiments, got both.")
    if page is not None and out is None:
        raise ValueError("recurra: --page must be given together with --out, got no --out.")
    from ..experiments import run
    from .listing import list_members
    from .screen import console
    from .train import finite

    if out is None and not smoke and page is None:
        out = Path("results")
    missing = run.without_files() if everything and not smoke else {}
    for problem in missing.values():
        typer.echo(f"Left out: {problem}", err=True)
    chosen = [name for name in run.catalog() if name not in missing] if everything else list(experiment or [])
    if not chosen and page is None:
        list_members("experiments", as_json)
        if as_json:
            return
        typer.echo("Run it: recurra reproduce NAME; all of them: recurra reproduce --all --out results")
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=as_json)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[news]:<30.30}"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0, news="")
        outcomes = run.reproduce(
            chosen,
            smoke=smoke,
            out=out,
            on_progress=lambda name, what, part: bar.update(task, description=name, completed=part, news=what),
            on_done=lambda outcome: show_outcome(screen, outcome),
        )
    if out is not None and outcomes:
        screen.print(f"Numbers and pictures are in {out}")
    if page is not None and out is not None:
        from ..training.files import write_atomically

        write_atomically(page, run.page(out))
        screen.print(f"Written: {page}")
    if as_json:
        typer.echo(json.dumps(finite([run.record(outcome) for outcome in outcomes]), indent=2))
    if not smoke and not all(outcome.all_met for outcome in outcomes):
        raise typer.Exit(1)


def show_outcome(screen: Console, outcome: Outcome) -> None:
    """The claims of one experiment beside our numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cls = type(outcome.experiment)
    kind = "small setting, no evidence, " if outcome.smoke else ""
    screen.print(Text.assemble((cls.id, "bold"), f"  ({kind}{outcome.seconds:.1f} s)  {cls.source}"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("metric", "published", "ours must be", "ours", "met"):
        table.add_column(column)
    for claim in cls.claims:
        value = outcome.metrics[claim.metric]
        bar = f"{'<=' if claim.better == 'lower' else '>='} {claim.bar:g}"
        met = "" if outcome.smoke else "yes" if outcome.met(claim) else "NO"
        name = claim.metric + (" (control)" if claim.control else "")
        table.add_row(*(Text(text) for text in (name, claim.published or "-", bar, f"{value:.4g}", met)))
    screen.print(table)
    screen.print()
