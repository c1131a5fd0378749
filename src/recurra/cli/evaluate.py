"""``recurra evaluate``: how well a saved model predicts a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", show_default=False)],
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how well a saved model predicts a text, exactly, from its beginning to its end."""
    from .reading import read_text

    text = read_text(file, min_chars=2)
    from ..estimators import LanguageModel
    from .screen import console, facts, loss_words
    from .train import use_threads

    use_threads(threads)
    metrics = LanguageModel.load(run).evaluate(text)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
        return
    rows = [("Text", f"{file}: {metrics['num_chars']:,} characters predicted"), ("Loss", loss_words(metrics))]
    if metrics["num_unknown"]:
        share = metrics["num_unknown"] / metrics["num_chars"]
        rows.append(("Unknown", f"{metrics['num_unknown']:,} characters ({share:.2%}) were not in the training text"))
    facts(console(), rows)
