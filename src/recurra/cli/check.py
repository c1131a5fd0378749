"""``recurra check``: the laws, on the whole catalog or on a cell of your own."""

from __future__ import annotations

from typing import Annotated

import typer

from .edge import command


@command
def check(
    target: Annotated[
        str | None, typer.Argument(help="module:MyCell or file.py:MyCell.", show_default="everything in the catalog")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every size and type, not one drawn for each law.")] = False,
    device: Annotated[str, typer.Option(help="Where to run the catalog: cpu, cuda, ...")] = "cpu",
) -> None:
    """Ask cells for every law: gradients, causality, streaming, padding, all engines. Exit code 1 if one is broken."""
    if target is not None:
        if full or device != "cpu":
            raise ValueError("recurra: --full and --device must be given without a TARGET, got both.")
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
        report = run_all(full, lambda what, part: bar.update(task, description=what, completed=part), device)
    typer.echo(str(report))
    for line in report.broken:
        typer.echo(line)
    if report.broken:
        raise typer.Exit(1)
