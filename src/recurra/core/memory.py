"""Associative memories: stores that are read by content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from .checks import sentence
from .tree import Tree

S = TypeVar("S")

Alphabet = Literal["bipolar", "binary", "ternary", "real"]
"""What a unit may be: -1 or +1; 0 or 1; -1, 0 or +1; any number."""


class Recall(NamedTuple):
    """What a cue brought back.

    Args:
        value: (B, V) the pattern the dynamics arrived at.
        steps: (B,) int64, updates taken.
        converged: (B,) bool, did the dynamics stand still?
    """

    value: Tensor
    steps: Tensor
    converged: Tensor


class AssociativeMemory(ABC, Generic[S]):
    """A frozen description; what is stored lives in an explicit state.

    ``exempt`` names the laws of `recurra.testing` that it cannot obey, with the reasons. ``source`` is the paper it comes
    from. ``alphabet`` is what its units may be. ``takes_unknown`` says that a cue may hold 0 for a bipolar unit that is not
    known, and NaN for a real one.
    """

    exempt: ClassVar[Mapping[str, str]] = {}
    source: ClassVar[str] = ""
    alphabet: ClassVar[Alphabet] = "bipolar"
    takes_unknown: ClassVar[bool] = False

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Small instances that every law is run on."""
        yield cls()

    @classmethod
    def sized(cls, key_size: int, value_size: int | None = None) -> Self:
        """A memory for patterns of so many units, with defaults for the rest; its first field is K.

        Raises:
            ValueError: values of another size than the keys, where it completes its cue.
        """
        if value_size not in (None, key_size):
            what = f"{key_size}, since it brings back what its cue is a part of"
            raise ValueError(sentence(cls.__name__, "value_size", what, value_size))
        return cls(key_size)  # type: ignore[call-arg]

    @property
    @abstractmethod
    def key_size(self) -> int:
        """K, units of a cue."""

    @property
    def value_size(self) -> int:
        """V, units of what is recalled; K in a memory that completes its cue."""
        return self.key_size

    def capacity(self) -> float:
        """Patterns of `draw` that theory says it can hold; NaN where no theory says."""
        return float("nan")

    def suited(self, patterns: Tensor) -> Self:
        """This memory with settings that suit the scale of patterns (M, K); what was written stays readable. Itself where no
        setting depends on it."""
        return self

    def reordered(self, permutation: Tensor) -> Self:
        """The same memory after unit ``permutation[i]`` of the keys has become unit i; another object only where units
        take turns in an order.

        Args:
            permutation: (K,) int64.
        """
        return self

    @abstractmethod
    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) random patterns of the kind it stores: what laws and capacity measurements write into it."""

    @abstractmethod
    def empty(self) -> S:
        """The state that stores nothing."""

    @abstractmethod
    def write(self, state: S, keys: Tensor, values: Tensor | None = None) -> S:
        """Store M patterns: keys (M, K), values (M, V); None stores the keys under themselves."""

    @abstractmethod
    def read(self, state: S, cue: Tensor) -> Recall:
        """Recall from cues (B, K)."""


class EnergyMemory(AssociativeMemory[S]):
    """A memory whose reading never raises its energy.

    A configuration is a tensor (B, V). That of a `PairMemory` is a NamedTuple whose first two leaves are its two sides,
    keys (B, K) and values (B, V).
    """

    @abstractmethod
    def energy(self, state: S, value: Any) -> Tensor:
        """(B,) energy of configurations."""

    @abstractmethod
    def trajectory(self, state: S, cue: Tensor) -> Tree:
        """Configurations, leaves (T, B, ...), that a read from ``cue`` passes through, the cue first."""


class ErasableMemory(AssociativeMemory[S]):
    """A memory from which single patterns can be taken out again."""

    @abstractmethod
    def erase(self, state: S, keys: Tensor, values: Tensor | None = None) -> S:
        """Take out what `write` with the same keys and values put in."""


class PairMemory(AssociativeMemory[S]):
    """A memory that stores values under keys of another kind; without values it stores nothing useful."""

    @classmethod
    def sized(cls, key_size: int, value_size: int | None = None) -> Self:
        """A memory for keys and values of so many units; its first two fields are K and V."""
        return cls(*(size for size in (key_size, value_size) if size is not None))

    @abstractmethod
    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random keys (M, K) and values (M, V)."""
