"""A language model that only counts: what a neural one must beat."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Self

from ..core.checks import check_positive, sentence
from .estimator import Estimator


class NGramModel(Estimator):
    """Characters from the n - 1 characters before them, by counting; orders are mixed as Witten and Bell do.

        p(c | s) = (count(s c) + types(s) p(c | s without its first)) / (count(s) + types(s))

    The recursion ends in the same probability for every known character and for "any other character".

    Args:
        order: n; 1 looks at single letters, 3 at trigrams.
    Source:
        Witten & Bell 1991, IEEE Transactions on Information Theory 37(4):1085-1094, method C (from memory)
    Cost:
        One dictionary entry for each different stretch of up to n characters.
    Example:
        >>> model = NGramModel(order=3).fit("abcabcabcabcabcabc")
        >>> model.evaluate("abcabc")["nats_per_char"] < 0.3
        True
    """

    def __init__(self, order: int = 5) -> None:
        self.order = order

    def fit(self, text: str) -> Self:
        """Count."""
        check_positive("NGramModel", order=self.order)
        if not text:
            raise ValueError(sentence("NGramModel", "text", "at least one character", "none"))
        self.num_symbols_ = len(set(text)) + 1  # and one for any other character
        self.counts_: list[Counter[str]] = []
        self.totals_: list[dict[str, int]] = []
        self.types_: list[dict[str, int]] = []
        for size in range(1, self.order + 1):
            counts = Counter(text[i : i + size] for i in range(len(text) - size + 1))
            totals: dict[str, int] = defaultdict(int)
            types: dict[str, int] = defaultdict(int)
            for gram, count in counts.items():
                totals[gram[:-1]] += count
                types[gram[:-1]] += 1
            self.counts_.append(counts)
            self.totals_.append(dict(totals))
            self.types_.append(dict(types))
        return self

    def evaluate(self, text: str) -> dict[str, float]:
        """Mean loss of each character given those before it (the first counts too, from nothing).

        Returns:
            ``nats_per_char``, ``bits_per_char`` and ``perplexity``.
        """
        self._check_fitted("counts_")
        if not text:
            raise ValueError(sentence("NGramModel", "text", "at least one character", "none"))
        nats = -sum(math.log(self._probability(text, i)) for i in range(len(text))) / len(text)
        return {"nats_per_char": nats, "bits_per_char": nats / math.log(2), "perplexity": math.exp(nats)}

    def _probability(self, text: str, i: int) -> float:
        p = 1.0 / self.num_symbols_
        for size in range(1, min(self.order, i + 1) + 1):
            gram = text[i - size + 1 : i + 1]
            total = self.totals_[size - 1].get(gram[:-1])
            if total is None:
                break
            types = self.types_[size - 1][gram[:-1]]
            p = (self.counts_[size - 1].get(gram, 0) + types * p) / (total + types)
        return p
