"""Bidirectional memories of graded units: with a fixed matrix, and with one that learns while it recalls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.memory import EnergyMemory, ErasableMemory, PairMemory, Recall
from .graded import EDGE, Graded, Response
from .patterns import check_pairs, check_patterns, random_signs


class GradedPair(NamedTuple):
    """Outputs of both layers, leaves (B, K) and (B, V), and the matrix between them (B, K, V); or (T, B, ...)."""

    keys: Tensor
    values: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _GradedBAM(EnergyMemory[Tensor], PairMemory[Tensor]):
    """What both have in common: how their units move."""

    size: int = 40
    value_units: int = 30
    gain: float = 20.0
    response: Response = "tanh"
    tau_s: float = 1.0
    dt_s: float | None = None
    max_time_s: float = 200.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_positive(where, size=self.size, value_units=self.value_units)
        check_choice(where, "response", self.response, ("tanh", "arctan"))
        for name in ("gain", "tau_s", "dt_s", "max_time_s", "tolerance", *self._times):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(sentence(where, name, "positive and finite", value))

    takes_unknown: ClassVar[bool] = True
    _times: ClassVar[tuple[str, ...]] = ()

    @property
    def key_size(self) -> int:
        """K."""
        return self.size

    @property
    def value_size(self) -> int:
        """V."""
        return self.value_units

    @property
    def amplifier(self) -> Graded:
        """g."""
        return Graded(self.gain, self.response)

    @property
    def norm(self) -> float:
        """sqrt(K V)."""
        return math.sqrt(self.size * self.value_units)

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, K) float64 keys of -1 and +1."""
        return random_signs(num_patterns, self.size, generator).double()

    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Keys (M, K) and values (M, V) of -1 and +1, float64."""
        keys = self.draw(num_patterns, generator)
        return keys, random_signs(num_patterns, self.value_units, generator).double()

    def empty(self) -> Tensor:
        """A matrix of zeros."""
        return torch.zeros(self.size, self.value_units).double()

    def energy(self, state: Tensor, value: GradedPair) -> Tensor:
        """(B,) E of outputs and the matrix between them."""
        x, y = (v.double().clamp(-EDGE, EDGE) for v in (value.keys, value.values))
        stored = self.amplifier.stored(x).sum(-1) + self.amplifier.stored(y).sum(-1)
        height = stored - torch.einsum("bk,bkv,bv->b", x, value.weights.double(), y)
        return (height + self._learned_energy(value.weights.double())).to(value.keys.dtype)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Outputs (B, V) that keys (B, K) in [-1, 1] bring back."""
        return self._run(state, cue, keep=False)[0]

    def trajectory(self, state: Tensor, cue: Tensor) -> GradedPair:
        """Both layers and the matrix after every step, leaves (T, B, ...)."""
        path = self._run(state, cue, keep=True)[2]
        return GradedPair(*(torch.stack(leaves) for leaves in zip(*path)))

    def _run(self, state: Tensor, cue: Tensor, keep: bool) -> tuple[Recall, Tensor, list[GradedPair]]:
        where = type(self).__name__
        check_patterns(where, "cue", cue, self.size)
        if cue.numel() and float(cue.abs().max()) > 1:
            raise ValueError(sentence(where, "cue", "in [-1, 1]", float(cue.abs().max())))
        g, part = self.amplifier.output, (self.dt_s or self.tau_s / 4) / self.tau_s
        weights = state.expand(len(cue), -1, -1)
        a = self.amplifier.voltage(cue.double())
        b = a.new_zeros(len(cue), self.value_units)
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        done = torch.zeros(len(cue), dtype=torch.bool, device=cue.device)
        path = [GradedPair(cue, b.to(cue.dtype), weights)] if keep else []
        for _ in range(math.ceil(self.max_time_s / (part * self.tau_s))):
            x = g(a)
            toward = torch.einsum("bk,bkv->bv", x, weights)
            new_b = b + part * (toward - b)
            y = g(new_b)
            back = torch.einsum("bkv,bv->bk", weights, y)
            new_a = a + part * (back - a)
            new_x = g(new_a)
            new_weights = self._learn(weights, new_x, y, part * self.tau_s)
            far = torch.cat([g(toward) - y, g(back) - new_x, new_x - x], -1).abs().amax(-1)
            a, b = (torch.where(done[:, None], old, new) for old, new in ((a, new_a), (b, new_b)))
            weights = new_weights if new_weights is weights else torch.where(done[:, None, None], weights, new_weights)
            steps += ~done
            done = done | (far <= self.tolerance)
            if keep:
                path.append(GradedPair(g(a).to(cue.dtype), g(b).to(cue.dtype), weights))
            if bool(done.all()):
                break
        return Recall(g(b).to(cue.dtype), steps, done), weights, path

    def _learn(self, weights: Tensor, x: Tensor, y: Tensor, dt_s: float) -> Tensor:
        """The matrices (B, K, V) after a step; here they stay."""
        return weights

    def _learned_energy(self, weights: Tensor) -> Tensor | float:
        """What the matrices (B, K, V) add to E; nothing where they stay."""
        return 0.0

    def _pairs(self, keys: Tensor, values: Tensor | None) -> tuple[Tensor, Tensor]:
        where = type(self).__name__
        values = keys if values is None else values
        check_patterns(where, "keys", keys, self.size, self.alphabet)
        check_patterns(where, "values", values, self.value_units, self.alphabet)
        check_pairs(where, keys, values)
        return keys.double(), values.double()


@dataclass(frozen=True)
class ContinuousBAM(_GradedBAM, ErasableMemory[Tensor]):
    """Continuous bidirectional memory: two layers of amplifiers, each the input of the other:

        tau da/dt = -a + M y,   tau db/dt = -b + M^T x        x = g(a), y = g(b) between -1 and +1
        M = sum_mu x_mu y_mu^T / sqrt(K V)
        E(x, y) = -x.M y + sum_i integral_0^{x_i} g^-1 + sum_j integral_0^{y_j} g^-1

    Args:
        size: K, units of a key.
        value_units: V, units of a value.
        gain: slope of g at zero.
        response: "tanh" or "arctan".
        tau_s: time constant of the units.
        dt_s: step; None is a quarter of tau.
        max_time_s: a read ends here if nothing stands still.
        tolerance: a cue stands still when no output is further than this from where it is going.
    State:
        (K, V) float64 the matrix M.
    Raises:
        ValueError: sizes below 1, or another argument that is not positive; an unknown response; a cue beyond -1 and +1.
    Source:
        Kosko 1988, Bidirectional Associative Memories, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054 (from memory)
    Differs:
        Euler's steps, the value layer first, the key layer from its new outputs: given the other layer, each step is a mirror
        descent, so that E falls at every one for dt <= tau. Values begin at zero.
    Cost:
        4 K V flops for each cue and step.
    Example:
        >>> memory = ContinuousBAM(40, 30, gain=20.0)
        >>> keys, values = memory.draw_pairs(2, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), keys, values)
        >>> bool((memory.read(state, 0.3 * keys).value - values).abs().max() < 1e-3)
        True
    """

    source: ClassVar[str] = "Kosko 1988, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054"

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One."""
        yield cls()

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Add the products of the pairs; without values, keys are stored under themselves (K = V)."""
        x, y = self._pairs(keys, values)
        return state + x.T @ y / self.norm

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Subtract them again."""
        x, y = self._pairs(keys, values)
        return state - x.T @ y / self.norm


@dataclass(frozen=True)
class AdaptiveBAM(_GradedBAM):
    """Adaptive bidirectional memory: the matrix learns from what resonates, also while it recalls:

        tau da/dt = -a + M y,   tau db/dt = -b + M^T x              x = g(a), y = g(b)
        tau_memory dM/dt = -M + x y^T / sqrt(K V)                   the signal Hebb law
        E(x, y, M) = E(x, y) + 1/2 sqrt(K V) sum_ij M_ij^2

    Writing shows the pairs one after the other for ``pulse_s`` each, so old ones fade: many noisy samples leave what they have
    in common. Each cue of a read has a matrix of its own; `resonate` keeps what the cues leave behind.

    Args:
        size: K, units of a key.
        value_units: V, units of a value.
        gain: slope of g at zero.
        response: "tanh" or "arctan".
        tau_s: time constant of the units.
        dt_s: step; None is a quarter of tau.
        max_time_s: a read ends here if nothing stands still.
        tolerance: a cue stands still when no output is further than this from where it is going.
        tau_memory_s: time constant of the matrix.
        pulse_s: how long a pair is shown.
    State:
        (K, V) float64 the matrix M.
    Raises:
        ValueError: sizes below 1, or another argument that is not positive; an unknown response; a cue beyond -1 and +1.
    Source:
        Kosko 1987, Adaptive bidirectional associative memories, Applied Optics 26(23):4947-4960, doi:10.1364/AO.26.004947
        (abstract read; equations from memory)
    Cost:
        5 K V flops and K V numbers for each cue and step.
    Example:
        >>> memory = AdaptiveBAM(40, 30)
        >>> keys, values = memory.draw_pairs(2, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), keys, values)
        >>> recall, after = memory.resonate(state, keys[:1])
        >>> bool((recall.value - values[:1]).abs().max() < 1e-2), bool((after - state).abs().max() > 0)
        (True, True)
    """

    source: ClassVar[str] = "Kosko 1987, Applied Optics 26(23):4947-4960, doi:10.1364/AO.26.004947"
    _times: ClassVar[tuple[str, ...]] = ("tau_memory_s", "pulse_s")

    gain: float = 60.0
    tau_memory_s: float = 100.0
    pulse_s: float = 20.0

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A small one: each cue of a read has a matrix."""
        yield cls(24, 20, tolerance=1e-4)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Show the pairs one after the other, ``pulse_s`` each, both layers held."""
        kept = math.exp(-self.pulse_s / self.tau_memory_s)
        for x, y in zip(*self._pairs(keys, values)):
            state = kept * state + (1 - kept) * torch.outer(x, y) / self.norm
        return state

    def resonate(self, state: Tensor, cue: Tensor) -> tuple[Recall, Tensor]:
        """Recall from cues (B, K) one after the other, and the matrix after the last."""
        recalls = []
        for row in cue:
            recall, weights, _ = self._run(state, row[None], keep=False)
            recalls.append(recall)
            state = weights[0]
        return Recall(*(torch.cat(leaves) for leaves in zip(*recalls))), state

    def _learn(self, weights: Tensor, x: Tensor, y: Tensor, dt_s: float) -> Tensor:
        share = min(1.0, dt_s / self.tau_memory_s)
        return weights + share * (torch.einsum("bk,bv->bkv", x, y) / self.norm - weights)

    def _learned_energy(self, weights: Tensor) -> Tensor:
        return 0.5 * self.norm * weights.square().sum((-2, -1))
