"""Where a command meets its user: mistakes become one sentence."""

from __future__ import annotations

import contextlib
import functools
import opcode
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import ParamSpec

import typer

P = ParamSpec("P")
MISTAKE, INTERRUPTED = 2, 130
PATIENCE_S = 3.0  # a mistake that the first process made too has ended them all by then; else this one's must be heard


def command(function: Callable[P, None]) -> Callable[P, None]:
    """A command that ends in exit code 2 and one sentence for a mistake, and in 130 for Ctrl-C.

    Whatever else is raised is a fault of the program and keeps its traceback. Of several processes that torchrun started, the
    first one runs it.
    """
    return _edge(function, of_all=False)


def command_of_all(function: Callable[P, None]) -> Callable[P, None]:
    """As `command`, for what several processes do together under torchrun: all run it, the first one speaks."""
    return _edge(function, of_all=True)


def _edge(function: Callable[P, None], *, of_all: bool) -> Callable[P, None]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        rank = _rank()
        if rank and not of_all:
            return
        try:
            with _silence() if rank else contextlib.nullcontext():
                function(*args, **kwargs)
        except KeyboardInterrupt:
            if not rank:
                typer.echo("recurra: stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            text = mistake(error)
            if text is None:
                raise
            if rank:
                time.sleep(PATIENCE_S)
                text = f"Process {rank}: {text}"
            typer.echo(text, err=True)
            raise typer.Exit(MISTAKE) from None

    return run


def _rank() -> int:
    """The number of this process among those of torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # do not import torch to know that
        return 0
    from ..training.place import rank

    return rank()


def refuse_several_processes(name: str) -> None:
    """Raise in a command that would do something else in several processes."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    from ..core.checks import sentence
    from ..training.place import num_processes

    if num_processes() > 1:
        hint = "torchrun is for recurra train."
        raise ValueError(sentence("recurra", name, "run in one process", f"{num_processes()} of torchrun", hint))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What is printed goes nowhere."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


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
