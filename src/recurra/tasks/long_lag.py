"""Symbols that come back after a long time (Hochreiter & Schmidhuber 1997, experiment 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..core.checks import check_positive
from ..core.controls import Controls
from ..core.rule import Chunk


def first_symbol_returns(
    lag: int, batch_size: int, generator: torch.Generator | None = None, *, random: bool = False
) -> Chunk:
    """Two kinds of sequences, ``x a_1 ... a_{p-1} x`` and ``y a_1 ... a_{p-1} y``; every next symbol is to be predicted.

    All but the last symbol is the same each time (2a), or drawn evenly of the a_i (2b), where only the last one is asked for.

    Args:
        lag: p, steps between both ends.
        batch_size: B.
        generator: source of the symbols.
        random: distractors a_i are drawn (2b).

    Returns:
        xs (p, B, p + 1) one-hot: a_1 to a_{p-1}, x, y; targets (p, B, p + 1), the symbol behind; weights (p, B).

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiments 2a and 2b (read in a copy)

    Example:
        >>> chunk = first_symbol_returns(5, 2)
        >>> bool((chunk.xs[0] == chunk.targets[-1]).all()), chunk.xs[1:].argmax(-1)[:, 0].tolist()
        (True, [0, 1, 2, 3])
    """
    check_positive("first_symbol_returns", lag=lag, batch_size=batch_size)
    between = torch.arange(lag - 1)[:, None].expand(-1, batch_size)
    if random:
        between = torch.randint(lag - 1, (lag - 1, batch_size), generator=generator)
    ends = lag - 1 + torch.randint(2, (1, batch_size), generator=generator)
    symbols = F.one_hot(torch.cat([ends, between, ends]), lag + 1).to(torch.get_default_dtype())
    weights = torch.ones(lag, batch_size)
    if random:
        weights[:-1] = 0
    return Chunk(symbols[:-1], symbols[1:], weights)


def lag_among_distractors(
    lag: int, num_distractors: int, batch_size: int, generator: torch.Generator | None = None
) -> Chunk:
    """Sequences ``b, x or y, q + k distractors, e``; behind e the x or y is asked for again (2c).

    Distractors are drawn evenly of p symbols. After the first q of them, each further one is followed by e with probability
    1/10, so that k is 9 on the average and the lag at least q + 1.

    Args:
        lag: q.
        num_distractors: p.
        batch_size: B.
        generator: source of the symbols.

    Returns:
        xs (T, B, p + 4) one-hot: the p distractors, b, e, x, y; targets (T, B, 2) at e, where weights (T, B) are 1.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiment 2c (read in a copy)

    Example:
        >>> chunk = lag_among_distractors(20, 5, 3)
        >>> bool((chunk.controls.lengths >= 23).all()), chunk.xs.shape[2], chunk.weights.sum(0).tolist()
        (True, 9, [1.0, 1.0, 1.0])
    """
    where = "lag_among_distractors"
    check_positive(where, lag=lag, num_distractors=num_distractors, batch_size=batch_size)
    rows = torch.arange(batch_size)
    luck = torch.rand(batch_size, generator=generator, dtype=torch.float64).clamp_min(1e-12)
    more = (luck.log() / torch.tensor(0.9, dtype=torch.float64).log()).floor().long()  # P(k) = 0.1 0.9^k
    lengths = lag + more + 3
    longest = int(lengths.max())
    symbols = torch.randint(num_distractors, (longest, batch_size), generator=generator)
    which = torch.randint(2, (batch_size,), generator=generator)
    symbols[0], symbols[1] = num_distractors, num_distractors + 2 + which
    symbols[lengths - 1, rows] = num_distractors + 1
    number = torch.get_default_dtype()
    weights = torch.zeros(longest, batch_size)
    weights[lengths - 1, rows] = 1
    alive = torch.arange(longest)[:, None] < lengths
    xs = F.one_hot(symbols, num_distractors + 4).to(number) * alive[..., None]
    return Chunk(xs, F.one_hot(which, 2).to(number) * weights[..., None], weights, Controls(lengths))
