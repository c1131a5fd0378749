"""The exclusive or as a stream of bits (Elman 1990)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..core.checks import check_positive


def xor_stream(num_triples: int, generator: torch.Generator) -> Tensor:
    """Two random bits, their exclusive or, two random bits, their exclusive or, ...

    Every third bit follows from the two before it; the others are fair coins. The best prediction of the next bit has a
    root mean squared error of 0 at every third bit and of 0.5 elsewhere.

    Args:
        num_triples: a third of the length.
        generator: source of the random bits.

    Returns:
        (3 num_triples,) int64, zeros and ones; bits 2, 5, 8, ... are the predictable ones.

    Source:
        Elman 1990, Cognitive Science 14(2), p. 185 (read in a copy); there num_triples = 1000.

    Example:
        >>> bits = xor_stream(1000, torch.Generator().manual_seed(0))
        >>> a, b, c = bits.view(-1, 3).T
        >>> len(bits), bool((a ^ b == c).all())
        (3000, True)
    """
    check_positive("xor_stream", num_triples=num_triples)
    pairs = torch.randint(0, 2, (num_triples, 2), generator=generator)
    return torch.cat([pairs, pairs[:, :1] ^ pairs[:, 1:]], 1).flatten()


def every_xor_stream(num_triples: int) -> Tensor:
    """All streams of ``num_triples`` triples, one a row: (4 ** num_triples, 3 num_triples) int64.

    Example:
        >>> every_xor_stream(1).tolist()
        [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    """
    check_positive("every_xor_stream", num_triples=num_triples)
    pairs = torch.tensor(list(itertools.product((0, 1), repeat=2 * num_triples))).view(-1, num_triples, 2)
    return torch.cat([pairs, pairs[..., :1] ^ pairs[..., 1:]], -1).flatten(1)
