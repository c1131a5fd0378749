"""Error messages, all of one form: ``Where: name must be WHAT, got GOT. HINT.``

Checks run at the public edge (`Cell.forward`, `Recurrent`, readers), never inside a loop over time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import tree
from .spec import Leaf
from .tree import Tree


def sentence(where: str, name: str, want: str, got: Any, hint: str = "") -> str:
    """One message in the house's form.

    Example:
        >>> sentence("LSTMCell", "x", "(B, 3)", (4, 5), "The cell was built with input_size=3.")
        'LSTMCell: x must be (B, 3), got (4, 5). The cell was built with input_size=3.'
    """
    return f"{where}: {name} must be {want}, got {got}." + (f" {hint}" if hint else "")


def check_positive(where: str, **sizes: int) -> None:
    """Raise unless every size is a whole number of at least one."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(sentence(where, name, "a whole number", repr(size)))
        if size < 1:
            raise ValueError(sentence(where, name, "at least 1", size))


def check_probability(where: str, **values: float) -> None:
    """Raise unless every value lies in [0, 1)."""
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise TypeError(sentence(where, name, "a probability in [0, 1)", repr(value)))
        if not 0.0 <= value < 1.0:
            raise ValueError(sentence(where, name, "a probability in [0, 1)", value))


def check_flag(where: str, optional: bool = False, **values: Any) -> None:
    """Raise unless every value is True or False (or None, where that is allowed)."""
    for name, value in values.items():
        if not isinstance(value, bool) and not (optional and value is None):
            raise TypeError(sentence(where, name, "None, True or False" if optional else "True or False", repr(value)))


def check_choice(where: str, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(sentence(where, name, "one of " + ", ".join(map(repr, choices)), repr(value)))


def shape_text(lead: tuple[str | int, ...], leaf: Leaf) -> str:
    """A wanted shape in words: ``(T, B, 3)``."""
    parts = [str(n) for n in (*lead, *leaf.shape)]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


def check_tree(
    where: str,
    name: str,
    value: Tree,
    spec: Tree,
    lead: tuple[str | int, ...],
    dtype: torch.dtype | None,
    hint: str = "",
    device: torch.device | None = None,
) -> None:
    """Raise unless ``value`` is a tree of tensors as ``spec`` says, with leading dimensions ``lead``.

    Args:
        lead: a number is a dimension that must match; a letter stands for any size, one letter for one size.
        dtype: the floating type of leaves whose spec names none (not checked under autocast); None is any of them.

    Raises:
        TypeError: no tensor, another structure, another dtype or device.
        ValueError: another shape, or a token out of range.
    """
    if not tree.same_structure(value, spec):
        wanted = tree.map(lambda leaf: _Shown(shape_text(lead, leaf)), spec)
        raise TypeError(sentence(where, name, _structure(wanted), tree.describe(value), hint))
    paths = tree.names(spec)
    letters: dict[str, int] = {}
    for path, leaf, tensor in zip(paths, tree.leaves(spec), tree.leaves(value)):
        label = f"{name}.{path}" if path else name
        if not isinstance(tensor, Tensor):
            raise TypeError(sentence(where, label, f"a tensor {shape_text(lead, leaf)}", type(tensor).__name__, hint))
        want = tuple(letters.get(w, w) if isinstance(w, str) else w for w in (*lead, *leaf.shape))
        got = tuple(tensor.shape)
        if len(got) != len(want) or not all(
            (letters.setdefault(w, g) if isinstance(w, str) else w) == g for w, g in zip(want, got)
        ):
            raise ValueError(sentence(where, label, shape_text(want, Leaf(())), got, hint))
        wanted_dtype = leaf.dtype or dtype
        if wanted_dtype is None:
            if not tensor.is_floating_point():
                raise TypeError(sentence(where, label, "floating point", str(tensor.dtype).removeprefix("torch.")))
        elif tensor.dtype != wanted_dtype and not torch.is_autocast_enabled(tensor.device.type):
            short = str(wanted_dtype).removeprefix("torch.")
            tip = f"Convert it with .to(torch.{short})" + (", or the cell with .to()." if leaf.dtype is None else ".")
            raise TypeError(sentence(where, label, short, str(tensor.dtype).removeprefix("torch."), tip))
        if device is not None and tensor.device != device:
            raise TypeError(sentence(where, label, f"on {device}", str(tensor.device), "Move one of them with .to()."))
        if leaf.dtype is not None and leaf.high is not None:
            check_range(where, label, tensor, leaf)


def check_range(where: str, label: str, tensor: Tensor, leaf: Leaf) -> None:
    """Raise when an integer leaf leaves its range. On the CPU only: elsewhere it would wait for the device."""
    if tensor.device.type != "cpu" or tensor.numel() == 0 or is_transformed(tensor):
        return
    low, high = (int(v) for v in torch.aminmax(tensor))
    if low < (leaf.low or 0) or high >= (leaf.high or 0):
        got = f"{low}" if low < (leaf.low or 0) else f"{high}"
        raise ValueError(sentence(where, label, f"in {int(leaf.low or 0)}..{int(leaf.high or 0) - 1}", got))


def is_transformed(tensor: Tensor) -> bool:
    """True where a tensor has no plain values to look at: under vmap, grad, jvp, tracing or compilation."""
    if torch.compiler.is_compiling() or type(tensor) not in (Tensor, torch.nn.Parameter):
        return True
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


class _Shown:
    """A leaf that prints as its wanted shape."""

    def __init__(self, text: str) -> None:
        self.text = text


def _structure(wanted: Tree) -> str:
    if isinstance(wanted, _Shown):
        return wanted.text
    if wanted is None:
        return "None"
    keys = getattr(wanted, "_fields", None)
    if keys:
        return f"{type(wanted).__name__}({', '.join(f'{k}={_structure(c)}' for k, c in zip(keys, wanted))})"
    return f"({', '.join(_structure(c) for c in wanted)})"
