"""In which order did two symbols come, in sequences of any length (Pascanu, Mikolov & Bengio 2013)?"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import sentence

NUM_SYMBOLS = 6
"""Places 0 and 1 are A and B, which count; 2 to 5 distract."""


class OrderedPairs(NamedTuple):
    """xs: (T, B, 6) one-hot; classes: (B,) int64, 0 for A A, 1 for A B, 2 for B A, 3 for B B."""

    xs: Tensor
    classes: Tensor


def ordered_pair(num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> OrderedPairs:
    """Random sequences of one length; the class is the order of the two symbols that count, asked for at the end.

    The first stands between one and two tenths of the sequence, the second between four and five tenths; all others are
    one of four distractors. Who remembers both makes no error; who remembers one of them errs in half of the cases.

    Args:
        num_steps: T, at least 10.
        batch_size: B.
        generator: source of the symbols.

    Source:
        Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, the temporal order problem (from memory), after Hochreiter &
        Schmidhuber 1997, experiment 6a

    Example:
        >>> xs, classes = ordered_pair(20, 5, torch.Generator().manual_seed(0))
        >>> xs.shape, xs[..., :2].sum((0, 2)).tolist()
        (torch.Size([20, 5, 6]), [2.0, 2.0, 2.0, 2.0, 2.0])
    """
    if num_steps < 10:
        raise ValueError(sentence("ordered_pair", "num_steps", "at least 10", num_steps))
    rows, tenth = torch.arange(batch_size), num_steps / 10
    symbols = torch.randint(2, NUM_SYMBOLS, (num_steps, batch_size), generator=generator)
    classes = torch.zeros(batch_size, dtype=torch.int64)
    for low, high in ((round(tenth), round(2 * tenth)), (round(4 * tenth), round(5 * tenth))):
        places = torch.randint(low, high, (batch_size,), generator=generator)
        which = torch.randint(0, 2, (batch_size,), generator=generator)
        symbols[places, rows] = which
        classes = 2 * classes + which
    return OrderedPairs(F.one_hot(symbols, NUM_SYMBOLS).to(torch.get_default_dtype()), classes)
