"""Letters of words without marks between the words (Elman 1990)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive

LEXICON = (
    *("many", "years", "ago", "a", "boy", "and", "girl", "lived"),
    *("by", "the", "sea", "they", "played", "happily", "river"),
)
"""Fifteen words. Fourteen are those of the paper's figure 6; the fifteenth is not known, and "river" is ours."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"

CODES = torch.tensor([[n >> k & 1 for k in (4, 3, 2, 1, 0)] for n in range(1, 27)], dtype=torch.float32)
"""(26, 5) letter -> bits: its number in the alphabet, a = 00001, as in the paper's table 2 (the text says "random")."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "DET": ("a", "the"),
    "NOUN": ("boy", "girl", "sea", "river"),
    "DID": ("lived", "played"),
}

_PATTERNS = tuple(
    tuple(line.split())
    for line in (
        "DET NOUN DID happily",
        "many DID many years ago",
        "DET NOUN DID by DET NOUN",
        "they DID and DID happily",
        "happily they DID and DID by DET NOUN",
        "many years ago they DID happily",
        "they and many DID by DET NOUN",
        "DET NOUN and DET NOUN DID happily",
        "DET NOUN and DET NOUN DID by DET NOUN",
    )
)


class WordStream(NamedTuple):
    """letters: (L,) int64, a = 0; onset: (L,) bool, True at the first letter of a word."""

    letters: Tensor
    onset: Tensor


def word_stream(num_sentences: int, generator: torch.Generator) -> WordStream:
    """Sentences of four to nine words out of `LEXICON`, letter by letter, with nothing between words or sentences.

    Args:
        num_sentences: how many.
        generator: source of the draws.

    Source:
        Elman 1990, Cognitive Science 14(2), pp. 191-193 (read in a copy); there 200 sentences, 1,270 words, 4,963 letters.

    Differs:
        The paper does not print its sentence generator; the nine patterns are ours, made so that the numbers of words and
        letters come out (1,267 and 4,981 on the average).

    Example:
        >>> stream = word_stream(2, torch.Generator().manual_seed(0))
        >>> "".join(("|" if o else "") + ALPHABET[i] for i, o in zip(stream.letters, stream.onset))
        '|a|boy|and|the|girl|played|by|the|girl|a|boy|lived|happily'
    """
    check_positive("word_stream", num_sentences=num_sentences)
    drawn = torch.randint(0, len(_PATTERNS), (num_sentences,), generator=generator).tolist()
    luck = torch.rand(num_sentences, max(map(len, _PATTERNS)), generator=generator).tolist()
    letters: list[int] = []
    onset: list[bool] = []
    for pattern, lot in zip(drawn, luck):
        for j, name in enumerate(_PATTERNS[pattern]):
            choice = _CHOICES.get(name, (name,))
            word = choice[int(lot[j] * len(choice))]
            letters += [ALPHABET.index(c) for c in word]
            onset += [i == 0 for i in range(len(word))]
    return WordStream(torch.tensor(letters), torch.tensor(onset))
