"""``recurra generate``: let a saved model write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .edge import command


@command
def generate(
    run: Annotated[Path, typer.Argument(help="Folder of a saved language model.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What stands before the text.", show_default="a new line")] = "\n",
    length: Annotated[int, typer.Option(help="Characters (bytes, words) to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="1: as likely as the model thinks; less: more careful.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest each time.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest ones that together have this probability.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let a saved language model write, from the beginning or after a prompt."""
    from ..core.checks import sentence
    from ..estimators import LanguageModel
    from ..estimators.estimator import load_estimator

    if not 0 <= seed < 2**63:
        raise ValueError(sentence("recurra", "--seed", "at least 0 and below 2**63", seed))
    model = load_estimator(run, where="recurra")
    if not isinstance(model, LanguageModel):
        hint = "recurra forecast or predict asks such a model."
        raise ValueError(sentence("recurra", str(run), "a language model", f"a {type(model).__name__}", hint))
    if prompt == "\n":
        prompt = model.tokens_.newline
    text = model.generate(prompt, length, temperature, top_k, seed, top_p=top_p)
    typer.echo(json.dumps({"prompt": prompt, "text": text}) if as_json else prompt.lstrip("\n") + text)
