"""In which order did two or three rare symbols come (Hochreiter & Schmidhuber 1997)?"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..core.checks import check_choice, check_positive
from ..core.controls import Controls
from ..core.rule import Chunk

SYMBOLS = "EBabcdXY"
"""E begins, B ends, a to d distract, X and Y count."""

PLACES = {2: ((10, 20), (50, 60)), 3: ((10, 20), (33, 43), (66, 76))}
"""Where the symbols that count may stand, both ends included."""


def temporal_order(batch_size: int, generator: torch.Generator | None = None, *, num_relevant: int = 2) -> Chunk:
    """Sequences E ... X or Y ... X or Y ... B of 100 to 110 symbols; the class is the order of the two (or three) X and Y.

    All other places hold a, b, c or d. With two symbols that count there are four classes, XX, XY, YX, YY, in this order;
    with three there are eight.

    Args:
        batch_size: B.
        generator: source of the symbols.
        num_relevant: 2 or 3 symbols that count.

    Returns:
        xs (T, B, 8) one-hot; targets (T, B, 2^n) one-hot at the end of each sequence, where weights (T, B) are 1.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiments 6a and 6b (read in a copy)

    Example:
        >>> chunk = temporal_order(3)
        >>> chunk.xs[..., 6:].sum((0, 2)).tolist(), chunk.targets.sum((0, 2)).tolist()
        ([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    """
    check_positive("temporal_order", batch_size=batch_size)
    check_choice("temporal_order", "num_relevant", num_relevant, tuple(PLACES))
    rows = torch.arange(batch_size)
    lengths = torch.randint(100, 111, (batch_size,), generator=generator)
    longest = int(lengths.max())
    symbols = torch.randint(2, 6, (longest, batch_size), generator=generator)
    symbols[0], symbols[lengths - 1, rows] = 0, 1
    kind = torch.zeros(batch_size, dtype=torch.int64)
    for low, high in PLACES[num_relevant]:
        place = torch.randint(low, high + 1, (batch_size,), generator=generator)
        which = torch.randint(2, (batch_size,), generator=generator)
        symbols[place, rows] = 6 + which
        kind = 2 * kind + which
    alive = torch.arange(longest)[:, None] < lengths
    number = torch.get_default_dtype()
    xs = F.one_hot(symbols, len(SYMBOLS)).to(number) * alive[..., None]
    weights = torch.zeros(longest, batch_size)
    weights[lengths - 1, rows] = 1
    targets = F.one_hot(kind, 2**num_relevant).to(number) * weights[..., None]
    return Chunk(xs, targets, weights, Controls(lengths))
