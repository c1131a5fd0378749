"""Willshaw's memory: a link is there or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.memory import Alphabet, PairMemory, Recall
from .patterns import check_patterns


@dataclass(frozen=True)
class Willshaw(PairMemory[Tensor]):
    """Few units are active at a time; two that were once active together are linked for good.

        W_ij = max_m y_i^m x_j^m        y_i = 1 where sum_j W_ij x_j >= threshold

    Args:
        size: K, units of a key.
        other_size: V, units of a value; None is K.
        active: ones of a key that `draw` draws.
        other_active: ones of a value; None is ``active``.
        threshold: "cue" asks for a link to every active unit of the cue, right where the cue is a part of a key; "winners"
            takes the ``other_active`` units with the most links (and those that are level with the last), right where the cue
            has wrong ones too.
    State:
        (K, V) bool, the links.
    Raises:
        ValueError: more active units than there are, or no such threshold.
    Source:
        Willshaw, Buneman & Longuet-Higgins 1969, Nature 222:960-962, doi:10.1038/222960a0 (from memory)
    Cost:
        2 K V flops for a cue; K V bits, of which ln 2 = 69 % hold information at best.
    Example:
        >>> from recurra.memories import Willshaw
        >>> memory = Willshaw(1000, active=10)
        >>> patterns = memory.draw(2000, torch.Generator().manual_seed(0))  # twice as many as units
        >>> recall = memory.read(memory.write(memory.empty(), patterns), patterns)
        >>> bool((recall.value == patterns).all(1).double().mean() > 0.99)
        True
    """

    size: int = 256
    other_size: int | None = None
    active: int = 8
    other_active: int | None = None
    threshold: Literal["cue", "winners"] = "cue"

    alphabet: ClassVar[Alphabet] = "binary"
    source: ClassVar[str] = "Willshaw, Buneman & Longuet-Higgins 1969, Nature 222:960-962, doi:10.1038/222960a0"

    def __post_init__(self) -> None:
        check_positive("Willshaw", size=self.size, active=self.active)
        check_positive("Willshaw", other_size=self.value_size, other_active=self._ones)
        check_choice("Willshaw", "threshold", self.threshold, ("cue", "winners"))
        for name, ones, most in (("active", self.active, self.size), ("other_active", self._ones, self.value_size)):
            if ones > most:
                raise ValueError(sentence("Willshaw", name, f"at most {most}", ones))

    @property
    def key_size(self) -> int:
        """K."""
        return self.size

    @property
    def value_size(self) -> int:
        """V."""
        return self.size if self.other_size is None else self.other_size

    @property
    def _ones(self) -> int:
        return self.active if self.other_active is None else self.other_active

    def capacity(self) -> float:
        """ln 2 K V / (k l): half of the links are there (Willshaw et al. 1969; from memory)."""
        return math.log(2) * self.size * self.value_size / (self.active * self._ones)

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) float32 with ``active`` ones in each row."""
        return _sparse(num_patterns, self.size, self.active, generator)

    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Keys (M, K) and values (M, V)."""
        values = _sparse(num_patterns, self.value_size, self._ones, generator)
        return self.draw(num_patterns, generator), values

    def empty(self) -> Tensor:
        """No link."""
        return torch.zeros(self.size, self.value_size, dtype=torch.bool)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Link the active units of keys (M, K) to those of values (M, V); without values to each other.

        Raises:
            ValueError: another shape, or numbers that are not 0 or 1.
        """
        values = keys if values is None else values
        self._check("keys", keys, self.size)
        self._check("values", values, self.value_size)
        if len(keys) != len(values):
            raise ValueError(sentence("Willshaw", "values", f"{len(keys)} rows", len(values)))
        return state | ((keys.float().T @ values.float()) > 0)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall in one step; ``converged``: some unit of the value is active."""
        self._check("cue", cue, self.size)
        links = cue.float() @ state.float()
        if self.threshold == "cue":
            need = cue.float().sum(-1, keepdim=True)
        else:
            need = links.topk(self._ones, dim=-1).values[:, -1:]
        active = (links >= need) & (links > 0)
        return Recall(active.to(cue.dtype), torch.ones(len(cue), dtype=torch.int64), active.any(-1))

    def load(self, state: Tensor) -> float:
        """Fraction of the links that are there; above a half recall gets worse quickly."""
        return float(state.float().mean())

    def _check(self, name: str, patterns: Tensor, size: int) -> None:
        check_patterns("Willshaw", name, patterns, size, self.alphabet)


def _sparse(num_patterns: int, size: int, active: int, generator: torch.Generator | None) -> Tensor:
    chosen = torch.rand(num_patterns, size, generator=generator).topk(active, dim=-1).indices
    return torch.zeros(num_patterns, size).scatter_(1, chosen, 1.0)
