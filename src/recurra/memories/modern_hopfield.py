"""Modern Hopfield networks: patterns of real numbers, and one step that is attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.memory import Alphabet, EnergyMemory, ErasableMemory, Recall
from .patterns import check_patterns, without

Similarity = Literal["overlap", "distance"]
LEAK = 1e-3  # what other patterns may weigh in the recall of one that suits
SAMPLE = 2048  # patterns whose nearest neighbour is looked for, to find the scale of all


@dataclass(frozen=True)
class ModernHopfield(EnergyMemory[Tensor], ErasableMemory[Tensor]):
    """Modern Hopfield network: real patterns x_mu, a softmax over their overlaps with the configuration:

        z' = sum_mu softmax(beta X z)_mu x_mu
        E(z) = -lse(beta, X z) + 1/2 z.z + ln(M) / beta + 1/2 max_mu |x_mu|^2,   lse(beta, a) = ln(sum exp(beta a)) / beta

    One update is attention with queries z and keys and values X. Large beta recalls single patterns, small beta means of
    many. `recurra.layers.HopfieldAssociation` is this update as a layer with weights.

    Overlaps favour long patterns: where lengths differ, a short one is not its own recall. With ``similarity="distance"`` it is

        z' = sum_mu softmax(-beta/2 |x_mu - z|^2)_mu x_mu
        E(z) = -ln(mean_mu exp(-beta/2 |x_mu - z|^2)) / beta

    which is the same for patterns of one length. A NaN in a cue is a number that is not known: the first update leaves it out
    of the overlaps and fills it.

    Args:
        size: N, numbers of a pattern.
        beta: inverse temperature; attention has 1 / sqrt(N).
        similarity: of a configuration and a pattern, "overlap" or "distance".
        max_steps: updates before a read ends without standing still.
        tolerance: a row stands still when no number moves by more, relative to the largest number stored.
    State:
        (M, N) the patterns.
    Raises:
        ValueError: a size below 1, beta or a tolerance that is not positive, another similarity.
    Source:
        Ramsauer et al. 2020, Hopfield Networks is All You Need, arXiv:2008.02217, equations 1 and 3 (energy and update read in
        the authors' summary of it); distances: Millidge et al. 2022, Universal Hopfield Networks, arXiv:2202.04557 (from
        memory)
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
    takes_unknown: ClassVar[bool] = True

    size: int = 64
    beta: float = 1.0
    max_steps: int = 200
    tolerance: float = 1e-6
    similarity: Similarity = "overlap"

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_positive(where, size=self.size, max_steps=self.max_steps)
        check_choice(where, "similarity", self.similarity, get_args(Similarity))
        for name in ("beta", "tolerance"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(sentence(where, name, "positive and finite", value))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Single patterns are recalled, and means of many."""
        yield cls(48)
        yield cls(64, beta=0.4)
        yield cls(48, beta=0.3, similarity="distance")

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) standard normal numbers."""
        return torch.randn(num_patterns, self.size, generator=generator)

    def suited(self, patterns: Tensor) -> Self:
        """By distances, with a beta at which the recall of each pattern is itself, to a thousandth; for patterns of -1 and +1
        what it is."""
        scale = _nearest(patterns) if bool((patterns.abs() != 1).any()) else 0.0
        if not 0 < scale < math.inf:
            return self
        beta = 2 * math.log(len(patterns) / LEAK) / scale
        return replace(self, similarity="distance", beta=beta) if 0 < beta < math.inf else self

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
        return (self._nearness(state, value) * self.beta).softmax(-1) @ state

    def _nearness(self, state: Tensor, value: Tensor) -> Tensor:
        """(B, M) overlaps, or -|x - z|^2 / 2 but for what is the same for all patterns."""
        if self.similarity == "overlap" or not len(state):
            return value @ state.T
        middle = state.mean(0)  # or large numbers with small differences would cancel
        stored = state - middle
        return (value - middle) @ stored.T - 0.5 * stored.square().sum(-1)

    def energy(self, state: Tensor, value: Tensor) -> Tensor:
        """(B,) E of configurations (B, N); never negative."""
        self._check("value", value)
        wide, stored = value.double(), state.double()
        if self.similarity == "distance":
            if not len(stored):
                return value.new_zeros(len(value))
            shifted = self._nearness(stored, wide) - 0.5 * (wide - stored.mean(0)).square().sum(-1, keepdim=True)
            return ((math.log(len(stored)) - (self.beta * shifted).logsumexp(-1)) / self.beta).to(value.dtype)
        lse = (wide @ stored.T * self.beta).logsumexp(-1) / self.beta
        most = stored.square().sum(-1).amax() if len(stored) else stored.new_zeros(())
        height = 0.5 * wide.square().sum(-1) - lse + math.log(max(len(stored), 1)) / self.beta + 0.5 * most
        return height.to(value.dtype)

    def _completed(self, state: Tensor, cue: Tensor) -> Tensor:
        """(B, N) cues with what one update by their known numbers alone says of the others."""
        floating = isinstance(cue, Tensor) and cue.is_floating_point()
        self._check("cue", torch.where(cue.isnan(), 0.0, cue) if floating else cue)
        known = ~cue.isnan()
        if bool(known.all()):
            return cue
        stored = state.to(cue.dtype)
        if not len(stored):
            return cue.nan_to_num()
        if self.similarity == "overlap":
            near = torch.where(known, cue, 0.0) @ stored.T
        else:
            middle = stored.mean(0)
            shifted = stored - middle
            near = torch.where(known, cue - middle, 0.0) @ shifted.T - 0.5 * known.to(cue.dtype) @ shifted.square().T
        return torch.where(known, cue, (near * self.beta).softmax(-1) @ stored)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall from cues (B, N); NaN is not known."""
        value, steps, converged, _ = self._run(state, cue, keep=False)
        return Recall(value, steps, converged)

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        """(T, B, N) the cue, its unknown numbers filled, then every update; rows that stand still are repeated."""
        cue = self._completed(state, cue)
        return torch.stack([cue, *self._run(state, cue, keep=True)[3]])

    def _run(self, state: Tensor, cue: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        cue = self._completed(state, cue)
        stored = state.to(cue.dtype)
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        done = torch.zeros(len(cue), dtype=torch.bool, device=cue.device)
        path: list[Tensor] = []
        if not len(state):  # nothing is stored: every configuration stands still
            return cue, steps, ~done, path
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


def _nearest(patterns: Tensor) -> float:
    """The smallest squared distance of two different patterns (of a sample and all, where there are many); 0 for none."""
    wide = patterns.double()
    wide = wide - wide.mean(0)
    square = wide.square().sum(-1)
    step = -(-len(wide) // SAMPLE)
    least = math.inf
    for rows in wide[::step].split(256):
        distance = rows.square().sum(-1, keepdim=True) + square - 2 * rows @ wide.T
        apart = distance[distance > 1e-12 * square.max()]
        least = min(least, float(apart.min())) if len(apart) else least
    return least if least < math.inf else 0.0
