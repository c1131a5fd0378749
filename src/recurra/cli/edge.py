"""Where a command meets its user: mistakes become one sentence."""

from __future__ import annotations

import functools
import opcode
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec

import typer

P = ParamSpec("P")
MISTAKE, INTERRUPTED = 2, 130


def command(function: Callable[P, None]) -> Callable[P, None]:
    """A command that ends in exit code 2 and one sentence for a mistake, and in 130 for Ctrl-C.

    Whatever else is raised is a fault of the program and keeps its traceback.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("recurra: stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            text = mistake(error)
            if text is None:
                raise
            typer.echo(text, err=True)
            raise typer.Exit(MISTAKE) from None

    return run


def mistake(error: Exception) -> str | None:
    """The sentence for an error that its user can mend; None for any other."""
    if isinstance(error, OSError):
        if error.filename is None or error.strerror is None:
            return str(error) if _raised_here(error.__traceback__) else None
        return f"recurra: {error.filename}: {error.strerror}."
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return "recurra: not enough memory. Try a smaller --hidden-size, --batch-size or --num-steps."
    kinds = (ValueError, TypeError, FloatingPointError, ImportError)
    return str(error) if isinstance(error, kinds) and _raised_here(error.__traceback__) else None


def _raised_here(trace: TracebackType | None) -> bool:
    """Was it a ``raise`` statement of this package? (And not, say, None + 1, which is a fault.)"""
    if trace is None:
        return False
    frame, _ = list(traceback.walk_tb(trace))[-1]
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package == __package__.partition(".")[0] and (
        opcode.opname[frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    )


def speak_unicode() -> None:
    """Let a terminal without Unicode show "?" instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
