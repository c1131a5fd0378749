"""``recurra train``: from a file to a model and a page about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .edge import INTERRUPTED, command_of_all

if TYPE_CHECKING:
    from rich.console import Console

    from .jobs import Job
    from .screen import TrainingScreen


@command_of_all
def train(
    file: Annotated[
        Path, typer.Argument(help="A text, a table, labelled series or labelled texts.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model.", show_default="FILE's name with -model")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--as", help="text, forecast, classify or regress.", show_default="found out from the file"),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Table: the column to predict (several with commas).")] = None,
    time: Annotated[str | None, typer.Option(help="Table: the column of times.", show_default="found out")] = None,
    series: Annotated[str | None, typer.Option(help="Table: the column that tells series apart.")] = None,
    text: Annotated[str | None, typer.Option(help="Table: the column of texts.")] = None,
    known: Annotated[str | None, typer.Option(help="Table: columns known ahead, with commas.")] = None,
    past: Annotated[str | None, typer.Option(help="Table: columns known for the past only, with commas.")] = None,
    horizon: Annotated[int | None, typer.Option(help="Steps to forecast.", show_default="found out")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time for the training: 15m, 90s, 1.5h.", show_default="15m of a text, else by the data"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data, instead of --budget.")] = None,
    updates: Annotated[int | None, typer.Option(help="Number of updates, instead of --budget.")] = None,
    validation_fraction: Annotated[
        float | None, typer.Option(help="Part that is held out.", show_default="0.1 of a text, 0.2 of sequences")
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="Any of `recurra list cells`, e.g. 'LSTMCell(peephole=True)'.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Cells on top of each other.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Units per layer.")] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Text: size of a token's vector.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Text: chars, bytes or words.", show_default="chars")] = None,
    models: Annotated[int | None, typer.Option(help="Models trained side by side; their answers are averaged.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Of each layer's output.")] = None,
    input_dropout: Annotated[float | None, typer.Option(help="Of the input.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences side by side.")] = None,
    num_steps: Annotated[int | None, typer.Option(help="Text: tokens per chunk.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Sequences: a model that answers after every step, as export needs it.")
    ] = False,
    rule: Annotated[str | None, typer.Option(help="Any learning rule of `recurra list rules`.")] = None,
    engine: Annotated[str | None, typer.Option(help="Any of `recurra list engines`.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16, float16, or auto: the fastest.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights, the noise and the samples.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; the rest goes to stderr.")] = False,
) -> None:
    """Find out what a file is, train a model for it, and write a page about it."""
    from ..training.place import is_first_process
    from .folder import check_free, check_run, tidy
    from .jobs import Roles, job_of_file, remembered
    from .reading import minutes

    ends = {"--budget": budget, "--epochs": epochs, "--updates": updates}
    given = [name for name, value in ends.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"recurra: the end of training must be one of {', '.join(ends)}, got {' and '.join(given)}.")
    if resume and overwrite:
        raise ValueError("recurra: --resume must be given without --overwrite, got both.")
    if validation_fraction is not None and not 0 <= validation_fraction <= 0.5:
        raise ValueError(
            f"recurra: --validation-fraction must be between 0 (none) and 0.5, got {validation_fraction:g}."
        )
    options: dict[str, Any] = {
        "cell": cell,
        "num_layers": layers,
        "hidden_size": hidden_size,
        "embedding_size": embedding_size,
        "tokens": tokens,
        "num_models": models,
        "dropout": dropout,
        "input_dropout": input_dropout,
        "lr": lr,
        "batch_size": batch_size,
        "num_steps": num_steps,
        "rule": rule,
        "engine": engine,
        "precision": precision,
        "device": device,
        "seed": seed,
        "budget_minutes": minutes(budget) if budget is not None else None,
        "num_epochs": epochs,
        "num_updates": updates,
    }
    roles = Roles(target, time, series, text, _names(known), _names(past), horizon)
    folder = Path(f"{file.stem}-model") if out is None else out
    if is_first_process():
        tidy(folder)
    if resume:
        check_run(folder)
        before = remembered(folder)
        roles = roles.merged(before.roles)
        validation_fraction = before.fraction if validation_fraction is None else validation_fraction
    elif is_first_process():
        check_free(folder, overwrite)
    job, why = job_of_file(file, roles, validation_fraction, kind or (before.name if resume else None))
    if resume and kind is None and before.name is not None:
        why = "as in the run that goes on"

    if streaming:
        options.update(job.streaming)

    from .screen import TrainingScreen, console, facts

    use_threads(threads)
    model = make(job, {name: value for name, value in options.items() if value is not None}, folder, resume)
    screen = console(stderr=as_json)
    facts(
        screen,
        [("File", f"{file}: {why}. This will be {job.what}."), *(row for row in job.facts if row[0] != "File")],
    )
    shown = TrainingScreen(screen, model, said=[text for _, text in job.facts])
    found = run(job, model, folder, shown, screen, resume=resume, overwrite=overwrite)
    if as_json:
        result = {
            "folder": str(folder),
            "record": model.record_,
            "history": model.history_,
            "metrics": found.get("metrics"),
        }
        typer.echo(json.dumps(finite(result), indent=2))
        return
    facts(screen, [("Next    ", job.next_command(folder))])


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def finite(value: Any) -> Any:
    """For JSON: no NaN."""
    from ..report.write import finite_values

    return finite_values(value)


def make(job: Job, options: dict[str, Any], folder: Path, resume: bool) -> Any:
    """The estimator with the user's options; on resumption with those of the run where the user says nothing.

    Raises:
        ValueError: an option that this kind of model does not have.
    """
    kind = job.estimator
    known = kind._defaults()
    names = {"num_layers": "layers", "num_models": "models", "num_epochs": "epochs", "num_updates": "updates"}
    names["budget_minutes"] = "budget"
    for name in options:
        if name not in known:
            shown = "--" + names.get(name, name).replace("_", "-")
            raise ValueError(f"recurra: {shown} must be left out for {job.what}, got {options[name]!r}.")
    base = job.defaults()
    if any(end in options for end in ("budget_minutes", "num_epochs", "num_updates")):
        base = {
            name: value for name, value in base.items() if name not in ("budget_minutes", "num_epochs", "num_updates")
        }
    if resume and (folder / "config.json").is_file():
        from ..estimators.estimator import read_config

        base = read_config(folder, "recurra", kind.kind)["arguments"]
    return kind(**{**base, **options})


def use_threads(threads: int | None) -> None:
    """Set the number of processor threads."""
    if threads is None:
        return
    import torch

    from ..core.checks import check_positive

    check_positive("recurra", threads=threads)
    torch.set_num_threads(threads)


def run(
    job: Job,
    model: Any,
    folder: Path,
    shown: TrainingScreen,
    screen: Console,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train into the folder, evaluate, write the page, and say how it went; returns the evaluation.

    Of several processes the first one writes.

    Ctrl-C leaves a run that can be resumed, and beside it the model as it was then.
    """
    from ..report import write_report
    from ..report.write import REPORT, write_evaluation
    from ..training.place import is_first_process
    from .folder import COMMAND, STOPPED, Replaced
    from .screen import facts

    first = is_first_process()
    old = Replaced(folder)
    if overwrite and not resume and first:
        old.put_aside()

    def watch(progress: Any) -> None:
        if not (folder / COMMAND).exists():  # not before it is clear that the run can begin
            job.remember(folder)
            old.drop()
        shown(progress)

    try:
        with shown:
            job.fit(model, folder, resume, watch)
    except Exception:
        if first:
            old.bring_back()
        raise
    except KeyboardInterrupt:
        if first:
            old.bring_back()
        record = getattr(model, "record_", None)
        if record is None or not record.get("updates_made"):
            raise
        stopped = folder / STOPPED
        if first:
            model.save(stopped)
        text = (
            f"recurra: stopped after {record['updates_made']:,} updates; go on with the same command and --resume. "
            f"The model as it is now is in {stopped}."
        )
        typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None
    record = model.record_
    rows = [("Note", note) for note in record["plan"]["notes"][shown.num_notes :]]
    if resume and not shown.begun:
        rows.insert(0, ("Note", "The run was over: nothing was trained, the model is measured again."))
    if record["stopped"]:
        rows.append(("Stopped", f"after {record['updates_made']:,} updates: {record['stopped']}"))
    screen.print()
    try:
        with screen.status("Measuring"):
            found = job.evaluation(model, folder)  # by all processes: it may train a copy of the model
    except KeyboardInterrupt:
        text = f"recurra: stopped while measuring. The model in {folder} is whole; --resume measures it."
        typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None
    if first:
        write_evaluation(folder, found)
        write_report(folder)
        shutil.rmtree(folder / STOPPED, ignore_errors=True)  # an older state of this model
    rows += job.result(found)
    rows += [("Saved", f"{folder} ({record['seconds']:.0f} s in all)"), ("Page", str(folder / REPORT))]
    facts(screen, rows)
    return found
