"""The entry point of the ``recurra`` command."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Annotated

import typer

from . import (
    anneal,
    check,
    compare_rules,
    demo,
    evaluate,
    explain,
    export,
    forecast,
    generate,
    learn,
    listing,
    predict,
    recall,
    report,
    reproduce,
    show,
    train,
)
from .edge import speak_unicode

app = typer.Typer(
    name="recurra",
    help="Every recurrent neural network in one house: train one on your data, look at any of them.",
    epilog="Begin with: recurra demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import platform

        from .. import __version__

        typer.echo(f"recurra {__version__} (torch {metadata.version('torch')}, Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _name, _function, _panel in (
    ("demo", demo.demo, "Models of your data"),
    ("train", train.train, "Models of your data"),
    ("learn", learn.learn, "Models of your data"),
    ("generate", generate.generate, "Models of your data"),
    ("forecast", forecast.forecast, "Models of your data"),
    ("predict", predict.predict, "Models of your data"),
    ("evaluate", evaluate.evaluate, "Models of your data"),
    ("report", report.report, "Models of your data"),
    ("export", export.export, "Models of your data"),
    ("anneal", anneal.anneal, "Memories and spins"),
    ("recall", recall.recall, "Memories and spins"),
    ("list", listing.list_members, "The catalog"),
    ("show", show.show, "The catalog"),
    ("explain", explain.explain, "The catalog"),
    ("check", check.check, "The catalog"),
    ("compare-rules", compare_rules.compare_rules, "The catalog"),
    ("reproduce", reproduce.reproduce, "The catalog"),
):
    app.command(_name, rich_help_panel=_panel)(_function)


def main() -> None:
    """Run the command line."""
    # GNU's OpenMP threads spin while they wait. On a machine that has other work to do as well, that makes training up to
    # ten times slower; giving up after about a microsecond costs nearly nothing on one that has not. Read when torch is
    # imported, which every command does later.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    speak_unicode()
    app()
