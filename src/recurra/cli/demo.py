"""``recurra demo``: a language model in two minutes, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .edge import command

BASELINES = {1: "letters by how often they occur", 3: "trigrams", 5: "5-grams, the best of the counting models"}


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("recurra-demo"),
    budget: Annotated[str, typer.Option(help="Time for the training: 110s, 5m.")] = "110s",
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the noise and the samples.")] = 0,
) -> None:
    """Train a language model on the English that comes with Python, and watch it learn to write."""
    from .reading import check_free, minutes

    check_free(out, overwrite=is_demo(out))
    time = minutes(budget)
    text = documentation()

    import platform

    from ..estimators import LanguageModel, NGramModel
    from .screen import TrainingScreen, console, facts
    from .train import run, split, use_threads

    use_threads(threads)
    screen = console()
    held_out = split(text, 0.1)
    learned = text[: len(text) - len(held_out)]
    facts(
        screen,
        [
            ("Text", f"{len(text):,} characters of English: the language reference inside Python"),
            ("", f"{platform.python_version()} (pydoc_data.topics), {len(set(text))} different characters"),
            ("Held out", f"the last {len(held_out):,} characters, never trained on"),
        ],
    )
    screen.print("\nWhat counting gives on the held-out text, in nats per character:")
    baselines = {n: NGramModel(n).fit(learned).evaluate(held_out)["nats_per_char"] for n in BASELINES}
    for n, words in BASELINES.items():
        screen.print(f"{baselines[n]:8.3f}  {words}")
    screen.print()
    model = LanguageModel(
        hidden_size=512,
        embedding_size=64,
        dropout=0.2,
        batch_size=32,
        num_steps=64,
        lr=3e-3,
        precision="auto",
        budget_minutes=time,
        seed=seed,
    )
    run(model, learned, held_out, out, TrainingScreen(screen, model, show_samples=True), screen)
    loss = model.record_["validation"]["nats_per_char"]
    beaten = [n for n in BASELINES if loss < baselines[n]]
    best = max(beaten, default=None)
    compare = "no baseline beaten" if best is None else f"better than {BASELINES[best]} ({baselines[best]:.3f})"
    facts(
        screen,
        [
            ("Compare", f"{loss:.3f} nats per character, {compare}"),
            ("Next", f'recurra generate {out} --prompt "The " --temperature 0.7'),
            ("", "recurra train YOUR_TEXT.txt"),
            ("", "recurra list cells"),
        ],
    )


def is_demo(folder: Path) -> bool:
    """Is there an older model of this command, which a new one may replace?"""
    return folder.name == "recurra-demo"


def documentation() -> str:
    """The topics of Python's own help, as one text.

    Raises:
        ImportError: a Python without its documentation.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ImportError(
            "recurra: the demo must have pydoc_data.topics, got a Python without it. "
            "Use any English text instead: recurra train FILE.txt"
        ) from None
    return "\n".join(topics.values())
