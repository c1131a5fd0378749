"""Endless texts whose entropy is known: counted letters, and brackets that come back later."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.checks import sentence

COUNTED = "ab\n"
"""The characters of `counted_letters`, in the order of their numbers."""


def counted_letters(
    num_steps: int, batch_size: int, generator: torch.Generator | None = None, *, most: int = 32
) -> Tensor:
    """``a`` n times, a new line, ``b`` as many times, a new line; again and again, n drawn from 1 to ``most``.

    Args:
        num_steps: T, characters of a row.
        batch_size: B, rows, each a text of its own.
        generator: source of the numbers.
        most: largest n.

    Returns:
        (T, B) int64, places in `COUNTED`.

    Raises:
        ValueError: most < 1.
    Source:
        Tallec & Ollivier 2018, ICLR, arXiv:1702.05043 (from memory)
    Example:
        >>> text = counted_letters(40, 1, torch.Generator().manual_seed(0), most=3)
        >>> "".join(COUNTED[i] for i in text[:12, 0]).replace(COUNTED[2], "/")
        'aaa/bbb/a/b/'
    """
    if most < 1:
        raise ValueError(sentence("counted_letters", "most", "at least 1", most))
    rows = []
    for _ in range(batch_size):
        counts = torch.randint(1, most + 1, (num_steps // 4 + 1,), generator=generator)
        pieces = torch.tensor([0, 2, 1, 2]).repeat(len(counts))
        times = torch.stack([counts, torch.ones_like(counts), counts, torch.ones_like(counts)], 1).flatten()
        enough = int((times.cumsum(0) < num_steps).sum()) + 1
        rows.append(pieces[:enough].repeat_interleave(times[:enough])[:num_steps])
    return torch.stack(rows, 1)


def counted_letters_entropy(most: int = 32) -> float:
    """Bits per character of `counted_letters`: only n is free, and a line of both letters has 2 n + 2 characters.

    Example:
        >>> round(counted_letters_entropy(), 4)
        0.1429
    """
    return math.log2(most) / (most + 1 + 2)


def distant_brackets(
    num_steps: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    *,
    inside: int = 1,
    between: int = 5,
    letters: int = 10,
) -> Tensor:
    """``[x]`` with random letters x, random letters, ``[x]`` once more, a new line; again and again.

    Args:
        num_steps: T, characters of a row.
        batch_size: B, rows, each a text of its own.
        generator: source of the letters.
        inside: s, letters in a bracket.
        between: k, letters between the two brackets.
        letters: a, how many different ones there are.

    Returns:
        (T, B) int64: letters from 0, then "[", "]" and the new line.

    Raises:
        ValueError: a size below 1.
    Source:
        Tallec & Ollivier 2018, ICLR, arXiv:1702.05043 (from memory)
    Example:
        >>> text = distant_brackets(12, 1, torch.Generator().manual_seed(0))
        >>> "".join(("0123456789[]/")[i] for i in text[:, 0])
        '[4]93039[4]/'
    """
    for name, value in (("inside", inside), ("between", between), ("letters", letters)):
        if value < 1:
            raise ValueError(sentence("distant_brackets", name, "at least 1", value))
    count = num_steps // (2 * inside + between + 5) + 1
    drawn = torch.randint(letters, (batch_size, count, inside + between), generator=generator)
    kept, rest = drawn[..., :inside], drawn[..., inside:]
    left, right, end = (torch.full((batch_size, count, 1), letters + i) for i in range(3))
    lines = torch.cat([left, kept, right, rest, left, kept, right, end], -1)
    return lines.flatten(1)[:, :num_steps].T.contiguous()


def distant_brackets_entropy(inside: int = 1, between: int = 5, letters: int = 10) -> float:
    """Bits per character of `distant_brackets`: the second bracket is known.

    Example:
        >>> round(distant_brackets_entropy(), 4)
        1.661
    """
    return (inside + between) * math.log2(letters) / (2 * inside + between + 5)
