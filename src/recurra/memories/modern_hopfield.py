"""Modern Hopfield networks: patterns of real numbers, and one step that is attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.memory import Alphabet, EnergyMemory, ErasableMemory, Recall
from .patterns import check_patterns, without


@dataclass(frozen=True)
class ModernHopfield(EnergyMemory[Tensor], ErasableMemory[Tensor]):
    """Modern Hopfield network: real patterns x_mu, a softmax over their overlaps with the configuration:

        z' = sum_mu softmax(beta X z)_mu x_mu
        E(z) = -lse(beta, X z) + 1/2 z.z + ln(M) / beta + 1/2 max_mu |x_mu|^2,   lse(beta, a) = ln(sum exp(beta a)) / beta

    One update is attention with queries z and keys and values X. Large beta recalls single patterns, small beta means of
    many. `recurra.layers.HopfieldAssociation` is this update as a layer with weights.

    Args:
        size: N, numbers of a pattern.
        beta: inverse temperature; attention has 1 / sqrt(N).
        max_steps: updates before a read ends without standing still.
        tolerance: a row stands still when no number moves by more, relative to the largest number stored.
    State:
        (M, N) the patterns.
    Raises:
        ValueError: a size below 1, beta or a tolerance that is not positive.
    Source:
        Ramsauer et al. 2020, Hopfield Networks is All You Need, arXiv:2008.02217, equations 1 and 3 (energy and update read in
        the authors' summary of it)
    Cost:
        4 M N flops for each cue and update.
    Example:
        >>> memory = ModernHopfield(64)
        >>> patterns = memory.draw(50, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), patterns)
        >>> recall = memory.read(state, patterns[:3] + 0.3)
        >>> bool((recall.value - patterns[:3]).abs().max() < 1e-2)
        True
    """

    source: ClassVar[str] = "Ramsauer et al. 2020, arXiv:2008.02217"
    alphabet: ClassVar[Alphabet] = "real"

    size: int = 64
    beta: float = 1.0
    max_steps: int = 200
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_positive(where, size=self.size, max_steps=self.max_steps)
        for name in ("beta", "tolerance"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(sentence(where, name, "positive and finite", value))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Single patterns are recalled, and means of many."""
        yield cls(48)
        yield cls(64, beta=0.4)

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) standard normal numbers."""
        return torch.randn(num_patterns, self.size, generator=generator)

    def empty(self) -> Tensor:
        """No pattern."""
        return torch.zeros(0, self.size)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Keep the patterns (M, N) as well; the state takes the wider type."""
        self._check("keys", keys)
        wide = torch.promote_types(state.dtype, keys.dtype)
        return torch.cat([state.to(wide), keys.to(wide)])

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Take out each pattern once.

        Raises:
            ValueError: a key was never written.
        """
        self._check("keys", keys)
        return without(type(self).__name__, state, keys)

    def update(self, state: Tensor, value: Tensor) -> Tensor:
        """(B, N) one update of configurations (B, N)."""
        return ((value @ state.T) * self.beta).softmax(-1) @ state

    def energy(self, state: Tensor, value: Tensor) -> Tensor:
        """(B,) E of configurations (B, N); never negative."""
        wide, stored = value.double(), state.double()
        lse = (wide @ stored.T * self.beta).logsumexp(-1) / self.beta
        most = stored.square().sum(-1).amax() if len(stored) else stored.new_zeros(())
        height = 0.5 * wide.square().sum(-1) - lse + math.log(max(len(stored), 1)) / self.beta + 0.5 * most
        return height.to(value.dtype)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall from cues (B, N)."""
        value, steps, converged, _ = self._run(state, cue, keep=False)
        return Recall(value, steps, converged)

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        """(T, B, N) every update; rows that stand still are repeated."""
        return torch.stack([cue, *self._run(state, cue, keep=True)[3]])

    def _run(self, state: Tensor, cue: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        self._check("cue", cue)
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        done = torch.zeros(len(cue), dtype=torch.bool, device=cue.device)
        path: list[Tensor] = []
        if not len(state):  # nothing is stored: every configuration stands still
            return cue, steps, ~done, path
        stored = state.to(cue.dtype)
        limit = self.tolerance * max(float(stored.abs().max()), torch.finfo(cue.dtype).tiny)
        value = cue
        for _ in range(self.max_steps):
            new = self.update(stored, value)
            still = (new - value).abs().amax(-1) <= limit
            value = torch.where(done[:, None], value, new)
            steps += ~done
            done = done | still
            if keep:
                path.append(value)
            if bool(done.all()):
                break
        return value, steps, done, path

    def _check(self, name: str, value: Tensor) -> None:
        check_patterns(type(self).__name__, name, value, self.size, self.alphabet)
