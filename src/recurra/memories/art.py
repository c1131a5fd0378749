"""Adaptive resonance: categories that are searched for, tested against an expectation, and refined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.memory import Alphabet, AssociativeMemory, Recall
from ..native.loops import compiled, f64_1d, i64_1d, popcount, u64_2d
from .patterns import check_patterns


class ART1State(NamedTuple):
    """templates: (C, K) of 0 and 1, what each committed category expects (float32)."""

    templates: Tensor


class Resonance(NamedTuple):
    """What inputs woke.

    Args:
        category: (B,) int64, the category that resonates; -1 where none does.
        tried: (B,) int64, categories that were active one after the other, the last one included; 1 is direct access.
    """

    category: Tensor
    tried: Tensor


@compiled
def resonate(
    inputs: u64_2d,
    templates: u64_2d,
    committed: i64_1d,
    settings: f64_1d,
    most: int,
    category: i64_1d,
    tried: i64_1d,
) -> None:
    """Inputs one after the other: search, and where ``most`` is above 0, fast learning.

    Args:
        inputs: (B, W) bits in words.
        templates: (C, W) bits in words, changed in place while learning.
        committed: (1,) how many templates there are, changed in place.
        settings: (2,) vigilance and choice parameter.
        most: categories there may be; 0 learns nothing.
        category, tried: (B,) the results.
    """
    words = inputs.shape[1]
    for row in range(inputs.shape[0]):
        active = 0
        for w in range(words):
            active += popcount(inputs[row, w])
        need = settings[0] * active - 1e-9
        best = -1
        best_value = 0.0
        for c in range(committed[0]):
            common = 0
            size = 0
            for w in range(words):
                common += popcount(inputs[row, w] & templates[c, w])
                size += popcount(templates[c, w])
            value = common / (settings[1] + size)
            if common >= need and value > best_value:
                best = c
                best_value = value
        before = 0
        for c in range(committed[0]):
            common = 0
            size = 0
            for w in range(words):
                common += popcount(inputs[row, w] & templates[c, w])
                size += popcount(templates[c, w])
            value = common / (settings[1] + size)
            earlier = value > best_value or (value == best_value and value > 0.0 and c < best)
            if common < need and earlier:
                before += 1
        if most > 0 and active > 0:
            if best >= 0:
                for w in range(words):
                    templates[best, w] = templates[best, w] & inputs[row, w]
            elif committed[0] < most:
                best = committed[0]
                committed[0] = best + 1
                for w in range(words):
                    templates[best, w] = inputs[row, w]
        category[row] = best
        tried[row] = before + 1


@dataclass(frozen=True)
class ART1(AssociativeMemory[ART1State]):
    """Categories of binary patterns that stay stable however long one learns.

        T_j = |I and w_j| / (L - 1 + |w_j|)      the active category is the largest T_j that has not been reset
        |I and w_J| >= rho |I|                   resonance; else J is reset, and the search goes on
        w_J' = I and w_J                         fast learning in resonance; a new category learns I itself

    An input searches the categories that it wakes (T_j > 0); only where all of them are reset it commits a new one. What
    a category expects can only lose bits, so its learning ends. A read gives the expectation of the category that
    resonates, or the cue itself where none does (``converged`` is False); ``steps`` counts the categories tried.

    Args:
        size: K, bits of a pattern.
        vigilance: rho, from 0 to 1: which part of an input must be expected. The higher, the more categories.
        choice: L - 1, above 0: small values prefer expectations that lie wholly in the input.
        max_categories: no more are committed; patterns beyond stay without one. None for as many as are needed.
    State:
        templates: (C, K) of 0 and 1, what each category expects.
    Raises:
        ValueError: no bit, a vigilance outside [0, 1], a choice parameter that is not above 0.
    Source:
        Carpenter & Grossberg 1987, "A massively parallel architecture for a self-organizing neural pattern recognition
        machine", Computer Vision, Graphics, and Image Processing 37(1):54-115, doi:10.1016/S0734-189X(87)80014-2 (from
        memory; the short form of its fast-learning limit as in Carpenter, Grossberg & Rosen 1991, Neural Networks
        4:759-771)
    Differs:
        The fast-learning limit is computed, not the differential equations. The bottom-up weights of uncommitted categories
        are taken as vanishing, so these come last. An input without any bit wakes nothing.
    Cost:
        About C K / 32 operations for each pattern, on bits packed into words; C K bits.
    Example:
        >>> memory = ART1(4, vigilance=0.6)
        >>> state = memory.write(memory.empty(), torch.tensor([[1.0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]]))
        >>> state.templates.tolist()
        [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """

    size: int = 64
    vigilance: float = 0.7
    choice: float = 0.01
    max_categories: int | None = None

    alphabet: ClassVar[Alphabet] = "binary"
    source: ClassVar[str] = (
        "Carpenter & Grossberg 1987, Computer Vision, Graphics, and Image Processing 37(1):54-115, "
        "doi:10.1016/S0734-189X(87)80014-2"
    )

    def __post_init__(self) -> None:
        check_positive("ART1", size=self.size)
        if not 0 <= self.vigilance <= 1:
            raise ValueError(sentence("ART1", "vigilance", "from 0 to 1", self.vigilance))
        if not self.choice > 0:
            raise ValueError(sentence("ART1", "choice", "above 0", self.choice))
        if self.max_categories is not None:
            check_positive("ART1", max_categories=self.max_categories)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Vigilant enough to tell random patterns apart; one word of bits and more."""
        yield cls(64, vigilance=0.9)
        yield cls(100, vigilance=0.8, choice=1.0, max_categories=7)

    @property
    def key_size(self) -> int:
        """K."""
        return self.size

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) float32, every bit 0 or 1 with equal probability."""
        return torch.randint(0, 2, (num_patterns, self.size), generator=generator).float()

    def empty(self) -> ART1State:
        """No category is committed."""
        return ART1State(torch.zeros(0, self.size))

    def write(self, state: ART1State, keys: Tensor, values: Tensor | None = None) -> ART1State:
        """Learn patterns (M, K), one after the other, each once.

        Raises:
            ValueError: another shape, numbers that are not 0 or 1, or values.
        """
        if values is not None and values is not keys and not torch.equal(values, keys):
            raise ValueError(sentence("ART1", "values", "None", "others than the keys", "It stores no pairs."))
        return self.learn(state, keys)[0]

    def learn(self, state: ART1State, patterns: Tensor) -> tuple[ART1State, Resonance]:
        """`write`, and which category each pattern (M, K) was learned by.

        Raises:
            ValueError: another shape, or numbers that are not 0 or 1.
        """
        check_patterns("ART1", "keys", patterns, self.size, "binary")
        most = self.max_categories
        limit = len(state.templates) + len(patterns) if most is None else max(most, 1)
        words, found, count = self._run(state, patterns, limit)
        return ART1State(_unpacked(words[:count], self.size)), found

    def recognise(self, state: ART1State, patterns: Tensor) -> Resonance:
        """Which categories patterns (B, K) wake, without learning.

        Raises:
            ValueError: another shape, or numbers that are not 0 or 1.
        """
        check_patterns("ART1", "cue", patterns, self.size, "binary")
        return self._run(state, patterns, 0)[1]

    def read(self, state: ART1State, cue: Tensor) -> Recall:
        """The expectations that cues (B, K) wake."""
        found = self.recognise(state, cue)
        known = found.category >= 0
        value = cue.clone()
        value[known] = state.templates[found.category[known]].to(cue.dtype)
        return Recall(value, found.tried, known)

    def _run(self, state: ART1State, patterns: Tensor, most: int) -> tuple[np.ndarray, Resonance, int]:
        inputs, old = _packed(patterns), _packed(state.templates)
        words = np.zeros((max(most, len(old), 1), inputs.shape[1]), np.uint64)
        words[: len(old)] = old
        committed = np.array([len(old)])
        category, tried = np.zeros((2, len(inputs)), np.int64)
        resonate(inputs, words, committed, np.array([self.vigilance, self.choice]), most, category, tried)
        return words, Resonance(torch.from_numpy(category), torch.from_numpy(tried)), int(committed[0])


def _packed(patterns: Tensor) -> np.ndarray:
    """(M, W) u64 from (M, K) of 0 and 1."""
    bits = np.packbits(patterns.detach().cpu().numpy() != 0, axis=1)
    whole = np.zeros((len(bits), -(-patterns.shape[1] // 64) * 8), np.uint8)
    whole[:, : bits.shape[1]] = bits
    return whole.view(np.uint64)


def _unpacked(words: np.ndarray, size: int) -> Tensor:
    """(M, K) float32, the inverse."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, count=size)
    return torch.from_numpy(bits.astype(np.float32))
