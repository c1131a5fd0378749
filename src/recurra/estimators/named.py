"""Members of the catalog written as text: ``"LSTMCell"``, ``"LSTMCell(peephole=True)"``, ``"Checkpointed(every=32)"``."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..core.catalog import find
from ..core.checks import sentence

OF_THE_MODEL = ("input_size", "hidden_size", "generator", "device", "dtype")


@dataclass(frozen=True)
class Named:
    """A class of the catalog and the options that the text gave it."""

    cls: type
    options: dict[str, Any]

    def accepts(self, *names: str) -> bool:
        """Does the constructor take arguments of these names?"""
        return set(names) <= set(inspect.signature(self.cls).parameters)

    def make(self, *args: Any, **given: Any) -> Any:
        """An instance; the options of the text win over ``given``."""
        return self.cls(*args, **{**given, **self.options})

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.cls.__name__}({inside})" if inside else self.cls.__name__


def check_layer(where: str, kind: Named) -> None:
    """Raise unless the model can build layers of a cell: from (input_size, hidden_size), which the text must not give.

    Raises:
        ValueError: another cell, or an option that follows from the model.
    """
    if not kind.accepts("input_size", "hidden_size"):
        want = "a cell that is built from (input_size, hidden_size)"
        raise ValueError(sentence(where, "cell", want, kind.cls.__name__, "GRUCell and LSTMCell are."))
    given = next((name for name in OF_THE_MODEL if name in kind.options), None)
    if given is not None:
        raise ValueError(
            sentence(where, "cell", f"given without {given}", str(kind), f"{given} follows from the model.")
        )


def named(where: str, argument: str, family: str, text: str) -> Named:
    """Read ``Name`` or ``Name(option=value, ...)``; values are Python literals, nothing is evaluated.

    Args:
        where: who asks, for the message.
        argument: the argument's name, for the message.
        family: of the catalog.
        text: what to read; see `recurra.core.catalog.find` for the freedom in the name.

    Raises:
        ValueError: another form, no such member, no such option, a value of another type.
        TypeError: no text.

    Example:
        >>> print(named("Doc", "cell", "cells", "lstm(peephole=True)"))
        LSTMCell(peephole=True)
    """
    if not isinstance(text, str):
        raise TypeError(sentence(where, argument, "a name such as 'LSTMCell'", repr(text)))
    form = "a name, or a name with options such as 'Name(option=1)'"
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            name = node.func.id
            options = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
            if "None" in options:
                raise ValueError
        elif isinstance(node, ast.Name):
            name, options = node.id, {}
        else:
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if text.strip().replace("-", "").isalnum():  # "1997": a name that Python would not read as one
            name, options = text.strip(), {}
        else:
            raise ValueError(sentence(where, argument, form, repr(text))) from None
    cls = find(family, name, where, argument)
    known = [n for n, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_POSITIONAL]
    for option in options:
        if option not in known:
            have = ", ".join(known) or "no options"
            raise ValueError(sentence(where, argument, f"given options that {cls.__name__} has ({have})", repr(option)))
    hints = _hints(cls)
    for option, value in options.items():
        if option not in OF_THE_MODEL and option in hints and not _fits(value, hints[option]):
            want = f"given {option} as {_words(hints[option])}"
            raise ValueError(sentence(where, argument, want, f"{option}={value!r} in {text}"))
    return Named(cls, options)


def _hints(cls: type) -> dict[str, Any]:
    """The types of the constructor's arguments, where they can be found out."""
    try:
        return get_type_hints(cls if is_dataclass(cls) else cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Is a literal of a type, as far as literals go?"""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if hint is Any:
        return True
    if origin is tuple:
        each = inside[:1] * len(value) if inside[-1:] == (...,) and isinstance(value, tuple) else inside
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if hint in (int, float):
        return isinstance(value, int | float if hint is float else int) and not isinstance(value, bool)
    kind = origin or hint
    return isinstance(kind, type) and isinstance(value, kind)


def _words(hint: Any) -> str:
    """A type as it is written."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("collections.abc.", "")
