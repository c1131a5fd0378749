"""Associative memories: stores that are read by content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .tree import Tree

S = TypeVar("S")


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

    ``exempt`` names the laws of `recurra.testing` that it cannot obey, with the reasons.
    """

    exempt: ClassVar[Mapping[str, str]] = {}

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
    """A memory whose reading never raises its energy."""

    @abstractmethod
    def energy(self, state: S, value: Tensor) -> Tensor:
        """(B,) energy of configurations (B, V)."""

    @abstractmethod
    def trajectory(self, state: S, cue: Tensor) -> Tree:
        """Configurations (T, B, V) that a read from ``cue`` passes through, the cue first."""
