"""Sequences that follow from a plan (Jordan 1986)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence

SQUARE = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
"""(4, 2) the corners of Jordan's square, in the order of the cycle."""


class PlannedSequences(NamedTuple):
    """symbols: (T, M) int64, sequence m is what plan m means; plans: (M, M) one-hot; outputs: (T, M, V) one-hot."""

    symbols: Tensor
    plans: Tensor
    outputs: Tensor


def planned_sequences(num_plans: int, num_steps: int, num_symbols: int, generator: torch.Generator) -> PlannedSequences:
    """Random sequences, each with repeats: in every one some symbol stands twice before different successors.

    So neither the plan with the last output nor the plan alone tells what comes next; a trace of the past does.

    Args:
        num_plans: M.
        num_steps: T, at least 4.
        num_symbols: V, at least 2.
        generator: source of the draws.

    Raises:
        ValueError: a size that is too small.

    Source:
        Jordan 1986, Proc. 8th Annual Conference of the Cognitive Science Society, 531-546 (from memory)

    Example:
        >>> task = planned_sequences(2, 8, 3, torch.Generator().manual_seed(0))
        >>> task.symbols.shape, task.outputs.shape, all(is_ambiguous(s) for s in task.symbols.T)
        (torch.Size([8, 2]), torch.Size([8, 2, 3]), True)
    """
    check_positive("planned_sequences", num_plans=num_plans, num_steps=num_steps, num_symbols=num_symbols)
    if num_steps < 4 or num_symbols < 2:
        got = f"{num_steps} steps of {num_symbols}"
        raise ValueError(sentence("planned_sequences", "sizes", "at least 4 steps of 2 symbols", got))
    rows: list[Tensor] = []
    while len(rows) < num_plans:
        row = torch.randint(0, num_symbols, (num_steps,), generator=generator)
        if is_ambiguous(row) and bool((row[1:] == row[:-1]).any()):
            rows.append(row)
    symbols = torch.stack(rows, 1)
    outputs = torch.nn.functional.one_hot(symbols, num_symbols).to(torch.get_default_dtype())
    return PlannedSequences(symbols, torch.eye(num_plans), outputs)


def is_ambiguous(row: Tensor) -> bool:
    """Does some symbol stand before two different successors?

    Example:
        >>> is_ambiguous(torch.tensor([0, 1, 0, 1])), is_ambiguous(torch.tensor([0, 0, 1]))
        (False, True)
    """
    following: dict[int, int] = {}
    symbols = row.tolist()
    return any(following.setdefault(a, b) != b for a, b in zip(symbols, symbols[1:]))  # noqa: RUF007


def square_cycle(num_steps: int) -> Tensor:
    """(T, 2) the cycle over the corners of a square.

    Example:
        >>> square_cycle(5)[:, 0].tolist()
        [0.25, 0.75, 0.75, 0.25, 0.25]
    """
    return SQUARE[torch.arange(num_steps) % 4]


def coarticulation_targets(num_steps: int, free: bool) -> Tensor:
    """Two sequences of two features that differ in one place only.

    The first feature counts: it rises from 0.1 to 0.9 in both. The second is 0.5 at the first two steps and, at the last
    step, 0.1 under the first plan and 0.9 under the second. Between them it is either free (NaN, a "don't care") or 0.5.

    Args:
        num_steps: T, at least 5.
        free: leave the second feature open between.

    Returns:
        (T, 2, 2): time, plan, feature.

    Example:
        >>> coarticulation_targets(5, True)[:, 0, 1].tolist()
        [0.5, 0.5, nan, nan, 0.10000000149011612]
    """
    if num_steps < 5:
        raise ValueError(sentence("coarticulation_targets", "num_steps", "at least 5", num_steps))
    targets = torch.full((num_steps, 2, 2), 0.5)
    targets[:, :, 0] = torch.linspace(0.1, 0.9, num_steps)[:, None]
    if free:
        targets[2:-1, :, 1] = torch.nan
    targets[-1, :, 1] = torch.tensor([0.1, 0.9])
    return targets
