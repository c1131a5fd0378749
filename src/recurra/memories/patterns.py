"""Random patterns, and the checks of what memories are given."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import sentence
from ..core.memory import Alphabet

_LETTERS: dict[str, tuple[float, ...]] = {"bipolar": (-1, 1), "binary": (0, 1), "ternary": (-1, 0, 1)}


def random_signs(num_patterns: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """(M, N) float32, every unit -1 or +1 with equal probability.

    Example:
        >>> random_signs(2, 5).abs().sum()
        tensor(10.)
    """
    return 2.0 * torch.randint(0, 2, (num_patterns, size), generator=generator, dtype=torch.float32) - 1


def check_patterns(where: str, name: str, value: Tensor, size: int, alphabet: Alphabet = "real") -> None:
    """Raise unless ``value`` is (rows, ``size``), floating, of the letters of ``alphabet``.

    Raises:
        TypeError: no floating tensor.
        ValueError: another shape, or another letter; where the letters are those of another alphabet, the message says
            how to turn them.

    Example:
        >>> check_patterns("BAM", "keys", torch.tensor([[0.0, 1.0]]), 2, "bipolar")
        Traceback (most recent call last):
        ValueError: BAM: keys must be of -1 and +1, got a 0. Turn 0 and 1 into -1 and +1 with 2 * keys - 1.
    """
    if not isinstance(value, Tensor):
        raise TypeError(sentence(where, name, f"a tensor (rows, {size})", type(value).__name__))
    if value.ndim != 2 or value.shape[1] != size:
        raise ValueError(sentence(where, name, f"(rows, {size})", tuple(value.shape)))
    if not value.is_floating_point():
        got = str(value.dtype).removeprefix("torch.")
        raise TypeError(sentence(where, name, "floating", got, "Convert it with .float()."))
    if alphabet == "real":
        if not bool(value.isfinite().all()):
            raise ValueError(sentence(where, name, "finite", "NaN or infinity"))
        return
    letters = _LETTERS[alphabet]
    odd = value[~torch.isin(value, torch.tensor(letters, dtype=value.dtype, device=value.device))]
    if odd.numel():
        words = " and ".join(f"{letter:+g}" if letter > 0 and -1 in letters else f"{letter:g}" for letter in letters)
        turns = {"bipolar": (0.0, f"2 * {name} - 1", "0 and 1 into -1 and +1"),
                 "binary": (-1.0, f"({name} + 1) / 2", "-1 and +1 into 0 and 1")}  # fmt: skip
        hint = ""
        if alphabet in turns and bool((odd == turns[alphabet][0]).all()):
            hint = f"Turn {turns[alphabet][2]} with {turns[alphabet][1]}."
        raise ValueError(sentence(where, name, f"of {words}", f"a {float(odd[0]):g}", hint))


def check_pairs(where: str, keys: Tensor, values: Tensor) -> None:
    """Raise unless there are as many values as keys."""
    if len(keys) != len(values):
        raise ValueError(sentence(where, "values", f"{len(keys)} rows, one for each key", len(values)))


def without(where: str, patterns: Tensor, gone: Tensor) -> Tensor:
    """The rows of ``patterns`` (M, N) without those of ``gone``, each taken out once, the newest first.

    Raises:
        ValueError: a row of ``gone`` is not there.

    Example:
        >>> without("DenseAssociativeMemory", torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([[1.0]]))
        tensor([[1.],
                [2.]])
    """
    for row, key in enumerate(gone.to(patterns.dtype)):
        same = (patterns == key).all(-1).nonzero()[:, 0]
        if not len(same):
            hint = "Only what was written can be taken out."
            raise ValueError(sentence(where, f"keys[{row}]", "a stored pattern", "another", hint))
        patterns = torch.cat([patterns[: same[-1]], patterns[same[-1] + 1 :]])
    return patterns
