"""``recurra learn``: a model that learns from a stream while it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .edge import INTERRUPTED, command, refuse_several_processes


@command
def learn(
    stream: Annotated[
        str,
        typer.Argument(help="Rows as CSV or JSON lines: a file, or - for standard input.", show_default=False),
    ],
    target: Annotated[
        str | None, typer.Option(help="The column to predict.", show_default="target, label, class, y, else the last")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="forecast or classify.", show_default="by the first target")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Forecast: steps ahead.", show_default="1")] = None,
    ignore: Annotated[str | None, typer.Option(help="Columns that the model does not see, with commas.")] = None,
    names: Annotated[str | None, typer.Option(help="Names of the columns of a CSV without a header.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the model and its page.", show_default="none")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the model in --out, behind the rows that it has learned.")
    ] = False,
    replayed: Annotated[
        bool, typer.Option("--replayed", help="With --resume and -: standard input begins with the first row again.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is in the folder.")] = False,
    save_every: Annotated[
        str, typer.Option(help="Time or rows between two states on the disk: 30s, 5m, 1000.")
    ] = "30s",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a row that is not in order, instead of skipping it.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no predictions, only the running errors.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print predictions as JSON lines; the last line is a summary.")
    ] = False,
    cell: Annotated[
        str | None, typer.Option(help="Any of `recurra list cells`, e.g. GRUCell.", show_default="LSTMCell")
    ] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Units per layer.", show_default="16")] = None,
    layers: Annotated[int | None, typer.Option(help="Cells on top of each other.", show_default="1")] = None,
    rule: Annotated[
        str | None, typer.Option(help="Any rule of `recurra list rules` that learns step by step, e.g. RTRL.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="Adam, SGD or momentum.", show_default="Adam")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="Rows that running means reach back.", show_default="500")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and the rule.", show_default="0")] = None,
) -> None:
    """Predict the target of each row, then learn it, one row at a time: from a file, or from a pipe that stays open.

    Predictions go to standard output, running errors beside those of a naive method to standard error.

    [dim]recurra learn sensor.csv --target temperature --out sensor-model[/dim]

    [dim]tail -n +1 -f log.csv | recurra learn - --target load --horizon 12 --out load-model[/dim]

    [dim]recurra learn events.jsonl --target kind --as classify --quiet[/dim]

    Ctrl-C stops it, and nothing is lost: the same command with --resume goes on behind the last row that was learned.
    """
    from .learning import Options, StreamRun

    refuse_several_processes("learn")
    given = {
        "cell": cell,
        "hidden_size": hidden_size,
        "num_layers": layers,
        "rule": rule,
        "optimizer": optimizer,
        "lr": lr,
        "memory": memory,
        "seed": seed,
    }
    options = Options(
        stream=stream,
        target=target,
        kind=kind,
        horizon=horizon,
        ignored=_names(ignore),
        names=_names(names),
        folder=out,
        resume=resume,
        replayed=replayed,
        overwrite=overwrite,
        save_every=save_every,
        strict=strict,
        quiet=quiet,
        as_json=as_json,
        arguments={name: value for name, value in given.items() if value is not None},
    )
    stopped_by = StreamRun(options).run()
    if stopped_by is not None:
        raise typer.Exit(128 + stopped_by if stopped_by != 2 else INTERRUPTED)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
