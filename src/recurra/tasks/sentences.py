"""Sentences of two and three words, without marks between them (Elman 1990)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence

_HUMAN = ("man", "woman", "boy", "girl")
_ANIMAL = ("cat", "mouse", "dog")
_AGGRESSIVE = ("dragon", "monster", "lion")
_FRAGILE = ("glass", "plate")
_FOOD = ("cookie", "bread", "sandwich")

CATEGORIES: dict[str, tuple[str, ...]] = {
    "NOUN-HUM": _HUMAN,
    "NOUN-ANIM": (*_HUMAN, *_ANIMAL, *_AGGRESSIVE),
    "NOUN-INANIM": ("book", "rock", "car", *_FRAGILE, *_FOOD),
    "NOUN-AGRESS": _AGGRESSIVE,
    "NOUN-FRAG": _FRAGILE,
    "NOUN-FOOD": _FOOD,
    "VERB-INTRAN": ("think", "sleep", "exist"),
    "VERB-TRAN": ("see", "chase", "like"),
    "VERB-AGPAT": ("move", "break"),
    "VERB-PERCEPT": ("smell", "see"),
    "VERB-DESTROY": ("break", "smash"),
    "VERB-EAT": ("eat",),
}
"""Category -> its words. The paper's table 3 gives two words of each. The others are those of figure 7, and categories nest
as their names do: a man is animate, a cookie is inanimate. (Were they apart, no food would ever begin a sentence and no book
would ever be like a cookie, as it is in figure 7.)"""

TEMPLATES: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "NOUN-HUM VERB-EAT NOUN-FOOD",
        "NOUN-HUM VERB-PERCEPT NOUN-INANIM",
        "NOUN-HUM VERB-DESTROY NOUN-FRAG",
        "NOUN-HUM VERB-INTRAN",
        "NOUN-HUM VERB-TRAN NOUN-HUM",
        "NOUN-HUM VERB-AGPAT NOUN-INANIM",
        "NOUN-HUM VERB-AGPAT",
        "NOUN-ANIM VERB-EAT NOUN-FOOD",
        "NOUN-ANIM VERB-TRAN NOUN-ANIM",
        "NOUN-ANIM VERB-AGPAT NOUN-INANIM",
        "NOUN-ANIM VERB-AGPAT",
        "NOUN-INANIM VERB-AGPAT",
        "NOUN-AGRESS VERB-DESTROY NOUN-FRAG",
        "NOUN-AGRESS VERB-EAT NOUN-HUM",
        "NOUN-AGRESS VERB-EAT NOUN-ANIM",
        "NOUN-AGRESS VERB-EAT NOUN-FOOD",
    )
)
"""The paper's table 4, every line equally likely."""

WORDS: tuple[str, ...] = tuple(dict.fromkeys(word for words in CATEGORIES.values() for word in words))
"""The 29 words; a word's number is its place here."""

VERBS = frozenset(word for name, words in CATEGORIES.items() if name.startswith("VERB") for word in words)
ANIMATE = frozenset(CATEGORIES["NOUN-ANIM"])


class SentenceStream(NamedTuple):
    """words: (L,) int64 places in `WORDS`; onset: (L,) bool, True at the first word of a sentence."""

    words: Tensor
    onset: Tensor


def sentence_stream(num_sentences: int, generator: torch.Generator) -> SentenceStream:
    """Sentences by `TEMPLATES`, one after the other: a template is drawn evenly, then each word evenly of its category.

    Args:
        num_sentences: how many.
        generator: source of the draws.

    Source:
        Elman 1990, Cognitive Science 14(2), tables 3 and 4 (as open re-implementations of it give them). 10,000 sentences
        are 27,500 words on the average; the paper had 27,534.

    Example:
        >>> stream = sentence_stream(3, torch.Generator().manual_seed(1))
        >>> [WORDS[i] for i in stream.words]
        ['boy', 'move', 'bread', 'glass', 'break', 'monster', 'smash', 'plate']
    """
    check_positive("sentence_stream", num_sentences=num_sentences)
    drawn = torch.randint(0, len(TEMPLATES), (num_sentences,), generator=generator).tolist()
    luck = torch.rand(num_sentences, 3, generator=generator).tolist()
    place = {word: i for i, word in enumerate(WORDS)}
    words, onset = [], []
    for template, lot in zip(drawn, luck):
        for j, name in enumerate(TEMPLATES[template]):
            choice = CATEGORIES[name]
            words.append(place[choice[int(lot[j] * len(choice))]])
            onset.append(j == 0)
    return SentenceStream(torch.tensor(words), torch.tensor(onset))


class Grammar(NamedTuple):
    """The templates as a hidden Markov chain over their places.

    Args:
        emission: (S, 29) probability of each word at each place.
        transition: (S, S) probability of the next place.
        start: (S,) probability of a place at the beginning of a sentence.
    """

    emission: Tensor
    transition: Tensor
    start: Tensor


@cache
def grammar() -> Grammar:
    """The chain, in float64."""
    places = [(k, j) for k, template in enumerate(TEMPLATES) for j in range(len(template))]
    number = {place: i for i, place in enumerate(places)}
    emission = torch.zeros(len(places), len(WORDS), dtype=torch.float64)
    transition = torch.zeros(len(places), len(places), dtype=torch.float64)
    start = torch.zeros(len(places), dtype=torch.float64)
    for k in range(len(TEMPLATES)):
        start[number[k, 0]] = 1 / len(TEMPLATES)
    for (k, j), i in number.items():
        choice = CATEGORIES[TEMPLATES[k][j]]
        for word in choice:
            emission[i, WORDS.index(word)] = 1 / len(choice)
        following = number.get((k, j + 1))
        if following is None:
            transition[i] = start
        else:
            transition[i, following] = 1.0
    return Grammar(emission, transition, start)


def next_word_probabilities(words: Tensor) -> Tensor:
    """The exact distribution of the next word after every prefix of a stream that begins with a sentence.

        b_1 ~ start * e(w_1),   b_t ~ (b_{t-1} A) * e(w_t),   P(w_{t+1} | w_1..w_t) = (b_t A) E

    Args:
        words: (L,) int64.

    Returns:
        (L, 29) float64, rows sum to one: row t is what follows words[: t + 1].

    Raises:
        ValueError: the grammar cannot say this.
    """
    emission, transition, start = grammar()
    due = start
    rows = []
    for t, word in enumerate(words.tolist()):
        belief = due * emission[:, word]
        total = belief.sum()
        if not total > 0:
            raise ValueError(
                sentence("next_word_probabilities", f"word {t}", "one that the grammar allows", repr(WORDS[word]))
            )
        due = (belief / total) @ transition
        rows.append(due @ emission)
    return torch.stack(rows) if rows else emission.new_zeros(0, len(WORDS))
