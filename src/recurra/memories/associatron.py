"""Nakano's Associatron: the whole of an entity is recalled from a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.checks import check_flag, check_positive, sentence
from ..core.memory import Alphabet, ErasableMemory, Recall


@dataclass(frozen=True)
class Associatron(ErasableMemory[Tensor]):
    """Units are -1, +1 or 0, which is "not said"; of a sum of products only the sign is used.

        M = sum_m x_m x_m'        z = f(f(M) y)        f(u) = sgn(u), f(0) = 0

    A cue y is a part of an entity, with 0 elsewhere. Large parts are answered exactly, small ones vaguely. What is recalled
    may be the next cue, so that one thing leads to another: `think`.

    Args:
        size: N, units.
        max_steps: recall goes on until it stands still, so many steps at most; 1 is the paper's recall.
        quantised: is f taken of M too, as in the paper? Else the sums themselves are used.
    State:
        (N, N) float32, whole numbers, the sum of x x'.
    Source:
        Nakano 1972, IEEE Trans. Systems, Man, and Cybernetics SMC-2(3):380-388, doi:10.1109/TSMC.1972.4309133 (abstract read;
        equations from memory)
    Cost:
        2 N^2 flops for a step of a cue.
    Example:
        >>> from recurra.memories import Associatron
        >>> memory = Associatron(180)
        >>> entities = memory.draw(5, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), entities)
        >>> cue = entities.clone()
        >>> cue[:, 90:] = 0
        >>> bool((memory.read(state, cue).value == entities).all())
        True
    """

    size: int = 64
    max_steps: int = 20
    quantised: bool = True

    alphabet: ClassVar[Alphabet] = "ternary"
    source: ClassVar[str] = "Nakano 1972, IEEE Trans. SMC-2(3):380-388, doi:10.1109/TSMC.1972.4309133"

    def __post_init__(self) -> None:
        check_positive("Associatron", size=self.size, max_steps=self.max_steps)
        check_flag("Associatron", quantised=self.quantised)

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def capacity(self) -> float:
        """0.138 N times 2 / pi where weights are quantised: theory of +-1 units with self-couplings left out."""
        return 0.138 * self.size * (2 / torch.pi if self.quantised else 1.0)

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) float32, whole entities: -1 and +1 with equal probability."""
        return 2.0 * torch.randint(0, 2, (num_patterns, self.size), generator=generator) - 1

    def empty(self) -> Tensor:
        """All sums are zero."""
        return torch.zeros(self.size, self.size)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Store entities (M, N); what is 0 in an entity is not said of it.

        Raises:
            ValueError: another shape, other numbers, or values that differ from the keys.
        """
        entities = self._entities("keys", keys)
        if values is not None and (values.shape != keys.shape or bool((values != keys).any())):
            raise ValueError(sentence("Associatron", "values", "None or the keys", "others", "It stores no pairs."))
        return state + entities.T @ entities

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Take entities out: their products are taken off."""
        entities = self._entities("keys", keys)
        return state - entities.T @ entities

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall from parts (B, N); ``converged``: a further step changes nothing."""
        value = self._entities("cue", cue)
        weights = state.sign() if self.quantised else state
        steps = torch.zeros(len(cue), dtype=torch.int64)
        moving = torch.ones(len(cue), dtype=torch.bool)
        for _ in range(self.max_steps):
            new = (value @ weights).sign()
            moving = moving & (new != value).any(-1)
            if not bool(moving.any()):
                break
            value = torch.where(moving[:, None], new, value)
            steps += moving
        else:
            moving = moving & ((value @ weights).sign() != value).any(-1)
        return Recall(value.to(cue.dtype), steps, ~moving)

    def think(self, state: Tensor, cue: Tensor, kept: Tensor, num_thoughts: int) -> Tensor:
        """(num_thoughts + 1, B, N) the cue, then recalls, each from a part of the one before.

        Args:
            state: what is stored.
            cue: (B, N).
            kept: (num_thoughts, N) bool, the part of each configuration that is the next cue; the rest is 0 in it.
            num_thoughts: how many recalls.
        """
        found = [cue]
        for part in kept[:num_thoughts]:
            found.append(self.read(state, torch.where(part, found[-1], torch.zeros_like(cue))).value)
        return torch.stack(found)

    def _entities(self, name: str, entities: Tensor) -> Tensor:
        if not isinstance(entities, Tensor) or entities.dtype == torch.bool:
            got = "booleans" if isinstance(entities, Tensor) else type(entities).__name__
            raise TypeError(sentence("Associatron", name, f"a tensor (M, {self.size}) of -1, 0 and +1", got))
        if entities.ndim != 2 or entities.shape[1] != self.size:
            raise ValueError(sentence("Associatron", name, f"(M, {self.size})", tuple(entities.shape)))
        if entities.numel() and bool(((entities != 0) & (entities.abs() != 1)).any()):
            raise ValueError(sentence("Associatron", name, "-1, 0 or +1", "other numbers"))
        return entities.float()
