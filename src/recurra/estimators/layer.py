"""One layer of an estimator's net: any cell of the catalog that is built from (input_size, hidden_size)."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ..core.cell import Cell
from ..core.checks import sentence
from ..core.spec import Leaf
from .named import Named, check_layer

PREFERRED = (
    ("input_init", "uniform", "xavier_uniform"),
    ("recurrent_init", "uniform", "orthogonal"),
    ("forget_bias", None, 1.0),
)


def layer(where: str, kind: Named, input_size: int, hidden_size: int, generator: torch.Generator | None = None) -> Cell:
    """A cell from its name, with the estimators' initialisation where its own is torch's.

    Args:
        where: who asks, for messages.
        kind: the cell's name and the options that the user gave it, which win.
        input_size: D.
        hidden_size: H.
        generator: source of the initial weights.

    Raises:
        ValueError: a cell that is not built from these sizes, or whose input or output is not one vector.

    Example:
        >>> from recurra.estimators.named import named
        >>> layer("Doc", named("Doc", "cell", "cells", "GRUCell"), 3, 5).output_spec.shape
        (5,)
    """
    parameters = inspect.signature(kind.cls).parameters
    check_layer(where, kind)
    given: dict[str, Any] = {
        name: ours
        for name, ordinary, ours in PREFERRED
        if name in parameters and parameters[name].default == ordinary and not _excludes(kind.options, name)
    }
    if "generator" in parameters:
        given["generator"] = generator
    cell = kind.make(input_size=input_size, hidden_size=hidden_size, **given)
    out = cell.output_spec
    if cell.input_spec != Leaf((input_size,)) or not isinstance(out, Leaf) or len(out.shape) != 1:
        raise ValueError(sentence(where, "cell", "a cell with input (B, D) and output (B, O)", kind.cls.__name__))
    return cell


def _excludes(options: dict[str, Any], name: str) -> bool:
    """Would our value of a cell's option contradict an option that the user gave?"""
    if name in options:
        return True
    contradicts = options.get("coupled") or options.get("bias") is False or options.get("chrono_steps") is not None
    return name == "forget_bias" and bool(contradicts)
