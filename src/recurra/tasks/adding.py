"""The adding problem: two marked numbers far apart in a long sequence are to be added."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import sentence

CHANCE = 1 / 6
"""Mean squared error of the answer 1 to every sequence: the variance of a sum of two uniform numbers."""


class Sums(NamedTuple):
    """xs: (T, B, 2) a number in [0, 1] and a marker, 0 or 1; targets: (B,) the sum of the two marked numbers."""

    xs: Tensor
    targets: Tensor


def adding_problem(num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Sums:
    """Random sequences; one marker stands in the first half, the other in the second.

    Args:
        num_steps: T, at least 2.
        batch_size: B.
        generator: source of the numbers.

    Source:
        Hochreiter & Schmidhuber 1997, experiment 4, in the form of Le, Jaitly & Hinton 2015, arXiv:1504.00941

    Example:
        >>> xs, targets = adding_problem(10, 3)
        >>> bool(((xs[..., 0] * xs[..., 1]).sum(0) == targets).all()), xs[..., 1].sum(0).tolist()
        (True, [2.0, 2.0, 2.0])
    """
    if num_steps < 2:
        raise ValueError(sentence("adding_problem", "num_steps", "at least 2", num_steps))
    xs = torch.rand(num_steps, batch_size, 2, generator=generator)
    xs[..., 1] = 0
    rows, half = torch.arange(batch_size), num_steps // 2
    first = torch.randint(half, (batch_size,), generator=generator)
    second = torch.randint(half, num_steps, (batch_size,), generator=generator)
    xs[first, rows, 1] = 1
    xs[second, rows, 1] = 1
    return Sums(xs, xs[first, rows, 0] + xs[second, rows, 0])
