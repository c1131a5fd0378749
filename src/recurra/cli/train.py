"""``recurra train``: from a text file to a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .edge import INTERRUPTED, command

if TYPE_CHECKING:
    from rich.console import Console

    from ..estimators import LanguageModel
    from .screen import TrainingScreen

MIN_CHARS = 200  # less than this is no text to learn from


@command
def train(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model.", show_default="FILE's name with -model")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for everything: 15m, 90s, 1.5h.", show_default="15m")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the text, instead of --budget.")] = None,
    updates: Annotated[int | None, typer.Option(help="Number of updates, instead of --budget.")] = None,
    validation_fraction: Annotated[float, typer.Option(help="Part at the end that is held out.")] = 0.1,
    cell: Annotated[
        str, typer.Option(help="Any of `recurra list cells`, e.g. 'LSTMCell(peephole=True)'.")
    ] = "LSTMCell",
    layers: Annotated[int | None, typer.Option(help="Cells on top of each other.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Units per layer.")] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Size of a character's vector.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Of each layer's output.")] = None,
    input_dropout: Annotated[float | None, typer.Option(help="Of the character's vector.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Streams side by side.")] = None,
    num_steps: Annotated[int | None, typer.Option(help="Characters per chunk.")] = None,
    rule: Annotated[str, typer.Option(help="Any learning rule of `recurra list rules`.")] = "TruncatedBPTT",
    engine: Annotated[str, typer.Option(help="Any of `recurra list engines`.")] = "Auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto: the faster one.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the noise and the samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; the rest goes to stderr.")] = False,
) -> None:
    """Train a language model of characters on a text file."""
    from .reading import check_free, minutes, read_text

    ends = {"--budget": budget, "--epochs": epochs, "--updates": updates}
    given = [name for name, value in ends.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"recurra: the end of training must be one of {', '.join(ends)}, got {' and '.join(given)}.")
    if not 0 <= validation_fraction <= 0.5:
        raise ValueError(
            f"recurra: --validation-fraction must be between 0 (none) and 0.5, got {validation_fraction:g}."
        )
    text = read_text(file, min_chars=MIN_CHARS)
    folder = Path(f"{file.stem}-model") if out is None else out
    check_free(folder, overwrite)
    time = minutes(budget or "15m") if epochs is None and updates is None else None

    from ..estimators import LanguageModel
    from .screen import TrainingScreen, console, facts

    use_threads(threads)
    arguments: dict[str, Any] = {
        "cell": cell,
        "num_layers": layers,
        "hidden_size": hidden_size,
        "embedding_size": embedding_size,
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
        "budget_minutes": time,
        "num_epochs": epochs,
        "num_updates": updates,
    }
    model = LanguageModel(**{name: value for name, value in arguments.items() if value is not None})
    screen = console(stderr=as_json)
    held_out = split(text, validation_fraction)
    learned = text[: len(text) - len(held_out)]
    rows = [("Text", f"{file}: {len(text):,} characters, {len(set(text))} different")]
    if held_out:
        rows.append(("Held out", f"the last {len(held_out):,} characters, for validation"))
    facts(screen, rows)
    run(model, learned, held_out or None, folder, TrainingScreen(screen, model), screen)
    if as_json:
        result = {"folder": str(folder), "record": model.record_, "history": model.history_}
        typer.echo(json.dumps(result, indent=2))
        return
    facts(screen, [("Next    ", f"recurra generate {folder}")])


def split(text: str, fraction: float) -> str:
    """The part at the end that is held out; nothing if it would be too short to say anything."""
    size = int(len(text) * fraction)
    return text[len(text) - size :] if size >= 2 else ""


def use_threads(threads: int | None) -> None:
    """Set the number of processor threads."""
    if threads is None:
        return
    import torch

    from ..core.checks import check_positive

    check_positive("recurra", threads=threads)
    torch.set_num_threads(threads)


def run(
    model: LanguageModel, text: str, held_out: str | None, folder: Path, shown: TrainingScreen, screen: Console
) -> None:
    """Train, save, and say how it went; what Ctrl-C leaves is saved too."""
    from .screen import facts, loss_words

    try:
        with shown:
            model.fit(text, held_out, on_progress=shown)
    except KeyboardInterrupt:
        record = getattr(model, "record_", None)
        if record is None or not record["updates_made"]:
            raise
        model.save(folder)
        typer.echo(f"recurra: stopped after {record['updates_made']:,} updates; the model is in {folder}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    model.save(folder)
    record = model.record_
    rows = [("Note", note) for note in record["plan"]["notes"][shown.num_notes :]]
    if record["stopped"]:
        rows.append(("Stopped", f"after {record['updates_made']:,} updates: {record['stopped']}"))
    if held_out is not None:
        rows.append(("Held out", loss_words(record["validation"])))
        unknown = record["validation"]["num_unknown"]
        if unknown:
            rows.append(("", f"({unknown:,} characters of it are not in the training text)"))
    rows.append(("Saved", f"{folder} ({record['seconds']:.0f} s in all)"))
    screen.print()
    facts(screen, rows)
