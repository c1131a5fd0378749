"""Two marked numbers far apart are to be added or multiplied (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

from typing import Literal

import torch

from ..core.checks import check_choice, check_positive, sentence
from ..core.controls import Controls
from ..core.rule import Chunk

TOLERANCE = 0.04
"""A sequence is processed correctly if the error at its end is smaller."""


def marked_numbers(
    num_steps: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    *,
    operation: Literal["sum", "product"] = "sum",
) -> Chunk:
    """Sequences of T to T + T/10 pairs (number, marker); one target at the end of each.

        sum:      numbers in [-1, 1], target 0.5 + (X1 + X2) / 4
        product:  numbers in [0, 1],  target X1 X2

    One of the first ten pairs is marked by 1, then one of the first T/2 - 1 that are not marked yet. All other markers are 0
    but those of the first and the last pair, which are -1. Where the first pair itself is one of the two, its number is 0
    (for a product 1), so that its target says nothing about it.

    Args:
        num_steps: T, at least 24.
        batch_size: B.
        generator: source of the numbers.
        operation: what is asked for.

    Returns:
        xs (T', B, 2); targets (T', B, 1), and weights (T', B) that are 1 at the end of each sequence and 0 before.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiments 4 and 5 (read in a copy)

    Example:
        >>> chunk = marked_numbers(100, 3)
        >>> marked = chunk.xs[..., 1] == 1
        >>> sums = 0.5 + (chunk.xs[..., 0] * marked).sum(0) / 4
        >>> bool(torch.allclose((chunk.targets[..., 0] * chunk.weights).sum(0), sums)), marked.sum(0).tolist()
        (True, [2, 2, 2])
    """
    where = "marked_numbers"
    check_positive(where, batch_size=batch_size)
    check_choice(where, "operation", operation, ("sum", "product"))
    if num_steps < 24:
        raise ValueError(sentence(where, "num_steps", "at least 24", num_steps))
    rows = torch.arange(batch_size)
    lengths = torch.randint(num_steps, num_steps + num_steps // 10 + 1, (batch_size,), generator=generator)
    last = lengths - 1
    first = torch.randint(10, (batch_size,), generator=generator)
    second = torch.randint(num_steps // 2 - 2, (batch_size,), generator=generator)
    second = second + (second >= first)  # the pairs that are not marked yet
    longest = int(lengths.max())
    xs = torch.zeros(longest, batch_size, 2)
    numbers = torch.rand(longest, batch_size, generator=generator)
    xs[..., 0] = numbers if operation == "product" else 2 * numbers - 1
    xs[0, :, 1], xs[last, rows, 1] = -1, -1
    begun = (first == 0) | (second == 0)
    xs[0, begun, 0] = 1.0 if operation == "product" else 0.0
    xs[first, rows, 1], xs[second, rows, 1] = 1, 1
    one, two = xs[first, rows, 0], xs[second, rows, 0]
    targets, weights = torch.zeros(longest, batch_size, 1), torch.zeros(longest, batch_size)
    targets[last, rows, 0] = one * two if operation == "product" else 0.5 + (one + two) / 4
    weights[last, rows] = 1
    alive = torch.arange(longest)[:, None] < lengths
    return Chunk(xs * alive[..., None], targets, weights, Controls(lengths))
