"""Bidirectional associative memory: two layers that read each other through one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core.checks import check_positive
from ..core.memory import Alphabet, EnergyMemory, ErasableMemory, PairMemory, Recall
from .patterns import check_pairs, check_patterns, random_signs


class BAMPair(NamedTuple):
    """Both layers of a bidirectional memory, leaves (B, K) and (B, V), or (T, B, ...) along a trajectory."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class BAM(EnergyMemory[Tensor], PairMemory[Tensor], ErasableMemory[Tensor]):
    """Bidirectional associative memory of units -1 and +1:

        M = sum_mu x_mu y_mu^T                    one matrix, read both ways
        y <- sign(x M),  x <- sign(y M^T)         to and fro until both layers stand still
        E(x, y) = - x M y^T

    Where the sum of a unit's inputs is zero, the unit stays. A unit of a cue may be 0, not known. Every matrix is stable in
    both directions: each half of a pass lowers the energy or changes nothing.

    Args:
        size: K, units of a key.
        value_units: V, units of a value.
        max_passes: to and fro, before a read ends without standing still.
    State:
        (K, V) the matrix M.
    Raises:
        ValueError: sizes below 1.
    Source:
        Kosko 1988, Bidirectional Associative Memories, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054 (abstract read;
        equations from memory)
    Differs:
        A value layer begins at zero, not yet up or down; a unit without any input stays there.
    Cost:
        4 K V flops for each cue and pass.
    Example:
        >>> memory = BAM(6, 4)
        >>> keys = torch.tensor([[1.0, -1, 1, -1, 1, -1], [1, 1, 1, -1, -1, -1]])
        >>> values = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]])
        >>> state = memory.write(memory.empty(), keys, values)
        >>> memory.read(state, keys).value.tolist() == values.tolist()
        True
        >>> memory.read_back(state, values).value.tolist() == keys.tolist()
        True
    """

    source: ClassVar[str] = "Kosko 1988, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054"
    alphabet: ClassVar[Alphabet] = "bipolar"
    takes_unknown: ClassVar[bool] = True
    _low: ClassVar[float] = -1.0
    _letters: ClassVar[Alphabet] = "ternary"  # a unit of a cue that is not known is 0

    size: int = 64
    value_units: int = 48
    max_passes: int = 100

    def __post_init__(self) -> None:
        check_positive(type(self).__name__, size=self.size, value_units=self.value_units, max_passes=self.max_passes)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """More units on the one side, and on the other."""
        yield cls()
        yield cls(40, 70)

    @property
    def key_size(self) -> int:
        """K."""
        return self.size

    @property
    def value_size(self) -> int:
        """V."""
        return self.value_units

    def capacity(self) -> float:
        """Pairs that all stay with high probability: n / (2 log2 n), n the smaller of K and V (from memory)."""
        n = min(self.size, self.value_units)
        return n / (2 * math.log2(n)) if n > 1 else float("nan")

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) random keys."""
        return self._coded(random_signs(num_patterns, self.size, generator))

    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random keys (M, K) and values (M, V)."""
        keys = random_signs(num_patterns, self.size, generator)
        return self._coded(keys), self._coded(random_signs(num_patterns, self.value_units, generator))

    def empty(self) -> Tensor:
        """A matrix of zeros."""
        return torch.zeros(self.size, self.value_units)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Add the products of the pairs, coded as -1 and +1; without values, keys are stored under themselves (K = V)."""
        return state + self._products(keys, values).to(state.dtype)

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Subtract them again."""
        return state - self._products(keys, values).to(state.dtype)

    def energy(self, state: Tensor, value: BAMPair) -> Tensor:
        """(B,) E of pairs of layers."""
        x, y = value
        return -torch.einsum("bk,kv,bv->b", x, state.to(x.dtype), y)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall values from keys (B, K). ``steps`` counts the passes in which something moved."""
        pair, steps, converged, _ = self._run(state, "cue", cue, self.value_units, keep=False)
        return Recall(pair.values, steps, converged)

    def read_back(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall keys from values (B, V)."""
        pair, steps, converged, _ = self._run(state.T, "cue", cue, self.size, keep=False)
        return Recall(pair.values, steps, converged)

    def trajectory(self, state: Tensor, cue: Tensor) -> BAMPair:
        """Both layers after every half of a pass, leaves (T, B, ...); at first the values are zero."""
        start = BAMPair(cue, cue.new_zeros(len(cue), self.value_units))
        path = [start, *self._run(state, "cue", cue, self.value_units, keep=True)[3]]
        return BAMPair(torch.stack([p.keys for p in path]), torch.stack([p.values for p in path]))

    def _run(
        self, matrix: Tensor, name: str, cue: Tensor, num_others: int, keep: bool
    ) -> tuple[BAMPair, Tensor, Tensor, list[BAMPair]]:
        check_patterns(type(self).__name__, name, cue, matrix.shape[0], self._letters)
        matrix = matrix.to(cue.dtype)
        x, y = cue, cue.new_zeros(len(cue), num_others)
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        moving = torch.ones(len(cue), dtype=torch.bool, device=cue.device)
        path: list[BAMPair] = []
        for _ in range(self.max_passes):
            there = self._threshold(x @ matrix, y)
            back = self._threshold(there @ matrix.T, x)
            moving = (there != y).any(-1) | (back != x).any(-1)
            if keep:
                path += [BAMPair(x, there), BAMPair(back, there)]
            x, y = back, there
            steps += moving
            if not bool(moving.any()):
                break
        return BAMPair(x, y), steps, ~moving, path

    def _threshold(self, field: Tensor, before: Tensor) -> Tensor:
        low = field.new_full((), self._low)
        return torch.where(field > 0, 1.0, torch.where(field < 0, low, before))

    def _products(self, keys: Tensor, values: Tensor | None) -> Tensor:
        where = type(self).__name__
        values = keys if values is None else values
        check_patterns(where, "keys", keys, self.size, self.alphabet)
        check_patterns(where, "values", values, self.value_units, self.alphabet)
        check_pairs(where, keys, values)
        return self._signs(keys).T @ self._signs(values)

    def _coded(self, signs: Tensor) -> Tensor:
        """-1 and +1 in the memory's own letters."""
        return signs

    def _signs(self, coded: Tensor) -> Tensor:
        """The inverse of `_coded`."""
        return coded


@dataclass(frozen=True)
class BinaryBAM(BAM):
    """Bidirectional associative memory of units 0 and 1, as in Kosko's examples:

        M = sum_mu (2 a_mu - 1) (2 b_mu - 1)^T    pairs are stored as -1 and +1,
        b <- [a M > 0],  a <- [b M^T > 0]         and read as 0 and 1; a unit whose input is zero stays
        E(a, b) = - a M b^T

    Args:
        size: K, units of a key.
        value_units: V, units of a value.
        max_passes: to and fro, before a read ends without standing still.
    State:
        (K, V) the matrix M.
    Raises:
        ValueError: sizes below 1.
    Source:
        Kosko 1988, Bidirectional Associative Memories, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054 (from memory)
    Cost:
        4 K V flops for each cue and pass.
    Example:
        >>> memory = BinaryBAM(6, 4)
        >>> a = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]])
        >>> b = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])
        >>> state = memory.write(memory.empty(), a, b)
        >>> memory.energy(state, BAMPair(a, b)).tolist()
        [-6.0, -6.0]
    """

    alphabet: ClassVar[Alphabet] = "binary"
    _low: ClassVar[float] = 0.0
    _letters: ClassVar[Alphabet] = "binary"
    takes_unknown: ClassVar[bool] = False

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One."""
        yield cls()

    def _coded(self, signs: Tensor) -> Tensor:
        return (signs + 1) / 2

    def _signs(self, coded: Tensor) -> Tensor:
        return 2 * coded - 1
