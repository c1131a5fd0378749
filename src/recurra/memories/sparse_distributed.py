"""Kanerva's sparse distributed memory: addresses near to each other share what they store."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.memory import Alphabet, ErasableMemory, PairMemory, Recall
from .patterns import check_patterns


class SparseDistributedState(NamedTuple):
    """Hard locations and what they hold.

    Args:
        addresses: (L, K) int8, -1 for a 0 and +1 for a 1; they do not change.
        counters: (L, V) float32, whole numbers: ones less zeros that were written there.
    """

    addresses: Tensor
    counters: Tensor


@dataclass(frozen=True)
class SparseDistributedMemory(PairMemory[SparseDistributedState], ErasableMemory[SparseDistributedState]):
    """Random addresses, few of a space of 2^K; a word is written to, and read from, all that lie near its address.

        near:   Hamming distance of address and key <= radius
        write:  counters of all near locations go up where the word has a 1, down where it has a 0
        read:   the sum of the counters of all near locations; a bit is 1 where it is positive

    Args:
        size: K, bits of an address.
        word_size: V, bits of a word; None is K.
        num_locations: L, hard locations.
        radius: of access; None is the smallest that reaches 3 % of all addresses.
        max_steps: with words that are addresses (V = K), what is read is the next address, until it stands still or so often;
            1 reads once.
        seed: of the addresses.
        order: places of the address bits, for the same memory with its units in another order; None is as drawn.
    State:
        addresses (L, K), counters (L, V).
    Raises:
        ValueError: a radius that is not from 0 to K; further steps although words are no addresses.
    Source:
        Kanerva 1988, Sparse Distributed Memory, MIT Press (from memory; there K = 1000, L = 10^6, radius 451)
    Cost:
        2 L (K + V) flops for a cue.
    Example:
        >>> from recurra.memories import SparseDistributedMemory
        >>> memory = SparseDistributedMemory(256, num_locations=2000, max_steps=10)
        >>> words = memory.draw(20, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), words)
        >>> noisy = torch.where(torch.arange(256) < 25, 1 - words, words)
        >>> bool((memory.read(state, noisy).value == words).all())
        True
    """

    size: int = 256
    word_size: int | None = None
    num_locations: int = 1000
    radius: int | None = None
    max_steps: int = 1
    seed: int = 0
    order: tuple[int, ...] | None = None

    alphabet: ClassVar[Alphabet] = "binary"
    source: ClassVar[str] = "Kanerva 1988, Sparse Distributed Memory, MIT Press"

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive(name, size=self.size, num_locations=self.num_locations, max_steps=self.max_steps)
        check_positive(name, word_size=self.value_size)
        if self.radius is not None and not 0 <= self.radius <= self.size:
            raise ValueError(sentence(name, "radius", f"from 0 to {self.size}", self.radius))
        if self.max_steps > 1 and self.value_size != self.size:
            hint = "Only words that are addresses can be read again."
            raise ValueError(sentence(name, "max_steps", "1", self.max_steps, hint))
        if self.order is not None and sorted(self.order) != list(range(self.size)):
            raise ValueError(sentence(name, "order", f"every bit from 0 to {self.size - 1} once", "others"))

    @property
    def key_size(self) -> int:
        """K."""
        return self.size

    @property
    def value_size(self) -> int:
        """V."""
        return self.size if self.word_size is None else self.word_size

    @property
    def reach(self) -> int:
        """The radius in use."""
        if self.radius is not None:
            return self.radius
        total, sum_ = 2**self.size, 0
        for distance in range(self.size + 1):
            sum_ += math.comb(self.size, distance)
            if sum_ >= 0.03 * total:
                return distance
        return self.size

    def capacity(self) -> float:
        """About a tenth of the locations (Kanerva 1988; from memory)."""
        return 0.1 * self.num_locations

    def reordered(self, permutation: Tensor) -> Self:
        """See `AssociativeMemory.reordered`."""
        now = torch.arange(self.size) if self.order is None else torch.tensor(self.order)
        return replace(self, order=tuple(now[permutation].tolist()))

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) float32, 0 and 1 with equal probability."""
        return torch.randint(0, 2, (num_patterns, self.size), generator=generator).float()

    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Addresses (M, K) and words (M, V)."""
        words = torch.randint(0, 2, (num_patterns, self.value_size), generator=generator).float()
        return self.draw(num_patterns, generator), words

    def empty(self) -> SparseDistributedState:
        """The locations, drawn from the seed, with all counters at zero."""
        generator = torch.Generator().manual_seed(self.seed)
        bits = torch.randint(0, 2, (self.num_locations, self.size), generator=generator, dtype=torch.int8)
        if self.order is not None:
            bits = bits[:, torch.tensor(self.order)]
        return SparseDistributedState(2 * bits - 1, torch.zeros(self.num_locations, self.value_size))

    def write(
        self, state: SparseDistributedState, keys: Tensor, values: Tensor | None = None
    ) -> SparseDistributedState:
        """Store words (M, V) at addresses (M, K); without values addresses at themselves.

        Raises:
            ValueError: another shape, or numbers that are not 0 or 1.
        """
        return state._replace(counters=state.counters + self._trace(state, keys, values))

    def erase(
        self, state: SparseDistributedState, keys: Tensor, values: Tensor | None = None
    ) -> SparseDistributedState:
        """Take words out: the counters go back."""
        return state._replace(counters=state.counters - self._trace(state, keys, values))

    def read(self, state: SparseDistributedState, cue: Tensor) -> Recall:
        """Recall; ``converged``: some location is near, and with several steps, it stands still."""
        self._check("cue", cue, self.size)
        value, steps, done = cue, torch.zeros(len(cue), dtype=torch.int64), torch.zeros(len(cue), dtype=torch.bool)
        answered = torch.ones(len(cue), dtype=torch.bool)
        for _ in range(self.max_steps):
            near = self.near(state, value)
            new = (near @ state.counters > 0).to(cue.dtype)
            answered = torch.where(done, answered, near.any(-1))
            steps += ~done
            if self.max_steps == 1:
                return Recall(new, steps, answered)
            still = (new == value).all(-1)
            value = torch.where(done[:, None], value, new)
            done = done | still
            if bool(done.all()):
                break
        return Recall(value, steps, done & answered)

    def near(self, state: SparseDistributedState, keys: Tensor) -> Tensor:
        """(B, L) float32, 1 where a location is near to a key (B, K)."""
        agreement = (2.0 * keys.float() - 1) @ state.addresses.float().T  # K - 2 distance
        return (agreement >= self.size - 2 * self.reach).float()

    def _trace(self, state: SparseDistributedState, keys: Tensor, values: Tensor | None) -> Tensor:
        values = keys if values is None else values
        self._check("keys", keys, self.size)
        self._check("values", values, self.value_size)
        if len(keys) != len(values):
            raise ValueError(sentence(type(self).__name__, "values", f"{len(keys)} rows", len(values)))
        return self.near(state, keys).T @ (2.0 * values.float() - 1)

    def _check(self, name: str, patterns: Tensor, size: int) -> None:
        check_patterns(type(self).__name__, name, patterns, size, self.alphabet)
