"""Consonants that fix the vowels behind them (Elman 1990)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive

LETTERS = "bdgaiu"
"""The alphabet; a letter's number is its place here."""

FEATURES = ("consonant", "vowel", "interrupted", "high", "back", "voiced")
"""What the six bits of a letter mean."""

SYLLABLES = ("ba", "dii", "guuu")
"""What each consonant becomes."""

CODES = torch.tensor(
    [
        [1, 0, 1, 0, 0, 1],  # b
        [1, 0, 1, 1, 0, 1],  # d
        [1, 0, 1, 0, 1, 1],  # g
        [0, 1, 0, 0, 1, 1],  # a
        [0, 1, 0, 1, 0, 1],  # i
        [0, 1, 0, 1, 1, 1],  # u
    ],
    dtype=torch.float32,
)
"""(6, 6) letter -> features, the paper's table 1."""

IDENTITY_FLOOR = math.log(3)
"""Nats that remain about which consonant comes next, whatever one knows."""


class LetterStream(NamedTuple):
    """letters: (L,) int64 places in `LETTERS`; consonant: (L,) bool."""

    letters: Tensor
    consonant: Tensor


def letter_stream(num_consonants: int, generator: torch.Generator) -> LetterStream:
    """Random consonants b, d, g, each replaced by its syllable: b -> ba, d -> dii, g -> guuu.

    Which consonant comes is a fair draw of three; that one comes, and every vowel, follows from the letters before it. The
    features of the three consonants are such that E[high] = P(d) and E[back] = P(g) when a consonant is due.

    Args:
        num_consonants: consonants drawn; about three times as many letters come out.
        generator: source of the draws.

    Source:
        Elman 1990, Cognitive Science 14(2), pp. 187-188 and table 1 (read in a copy); there num_consonants = 1000.

    Example:
        >>> stream = letter_stream(4, torch.Generator().manual_seed(0))
        >>> "".join(LETTERS[i] for i in stream.letters)
        'guuubaguuuba'
    """
    check_positive("letter_stream", num_consonants=num_consonants)
    drawn = torch.randint(0, len(SYLLABLES), (num_consonants,), generator=generator)
    letters = torch.tensor([LETTERS.index(c) for i in drawn.tolist() for c in SYLLABLES[i]])
    return LetterStream(letters, letters < 3)


def consonant_probabilities(features: Tensor) -> Tensor:
    """P(b), P(d), P(g) when a consonant is due, from predicted features (..., 6): (1 - high - back, high, back).

    A prediction that minimises squared error or cross-entropy is an expectation, and the three codes are affinely
    independent in these two bits. Cut to positive values and scaled to one.
    """
    high, back = features[..., 3], features[..., 4]
    p = torch.stack([1 - high - back, high, back], -1).clamp_min(1e-6)
    return p / p.sum(-1, keepdim=True)
