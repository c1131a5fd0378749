"""Kosko 1988: bidirectional associative memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..core.spins import configurations
from ..memories.bam import BAM, BAMPair, BinaryBAM
from ..memories.graded_bam import AdaptiveBAM, ContinuousBAM, GradedPair

KEYS = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]])
VALUES = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])
MATRIX = torch.tensor(
    [[2.0, 0, 0, -2], [0, -2, 2, 0], [2, 0, 0, -2], [-2, 0, 0, 2], [0, 2, -2, 0], [-2, 0, 0, 2]]
)  # by hand: the outer products of the pairs as -1 and +1


@dataclass(frozen=True)
class Kosko1988BAM(Experiment):
    """Bidirectional associative memory: Kosko's two pairs to the letter, capacity, and the graded and adaptive forms.

    The example stores (101010, 1100) and (111000, 1010). Everything about it is small enough to check by hand: the matrix, the
    energies, and what each of the 64 keys and 16 values leads to.

    Args:
        num_seeds: trials of everything random.
        size: units of both layers, for the capacity.
        loads: pairs stored, as multiples of n / (2 log2 n).
        num_samples: noisy samples that the adaptive memory is shown.
        noise: probability with which a unit of a sample is wrong.
    Source:
        Kosko 1988, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054 (abstract read: every matrix is stable both ways, no
        more pairs than the smaller layer has units; the example and n / (2 log2 n) from memory)
    Differs:
        The control has a way back through another matrix than the transpose: nothing then makes it settle.
    """

    id: ClassVar[str] = "kosko-1988-bam"
    source: ClassVar[str] = "Kosko 1988, IEEE Trans. SMC 18(1):49-60, doi:10.1109/21.87054"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("matrix_error", 0.0, "lower", "the matrix by hand", "the example", "theorem"),
        Claim("energy_error", 0.0, "lower", "-6 and -6", "the example", "from memory"),
        Claim("noisy_cue_right", 1.0, "higher", "011000 -> 1010", "the example", "from memory"),
        Claim("most_passes", 2, "lower", "every start settles at once", "the example", "from memory"),
        Claim("kept_at_capacity", 0.95, "higher", "n / (2 log2 n) pairs stay", "capacity", "from memory"),
        Claim("kept_beyond_the_bound", 0.01, "lower", "none", "as many pairs as units", "read", control=True),
        Claim("worst_rise", 1e-9, "lower", "never", "energy of the graded forms, at any step", "theorem"),
        Claim("adaptive_recall", 1.0, "higher", "learns from noisy samples", "abstract of the 1987 paper", "read"),
        Claim("settled_with_another_way_back", 0.05, "lower", "", "the way back is not the transpose", control=True),
    )

    num_seeds: int = 10
    size: int = 256
    loads: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
    num_samples: int = 300
    noise: float = 0.2

    @classmethod
    def smoke(cls) -> Self:
        """Two trials, small layers."""
        return cls(num_seeds=2, size=48, loads=(1.0, 4.0), num_samples=100)

    def run(self, log: Log) -> Mapping[str, float]:
        """The example, the capacity, the other forms."""
        log("the example", 0.0)
        found = _example()
        curve: dict[int, list[float]] = {}
        rises, right, settled = [], [], []
        for seed in range(self.num_seeds):
            log(f"trial {seed + 1} of {self.num_seeds}", (seed + 0.5) / (self.num_seeds + 0.5))
            generator = torch.Generator().manual_seed(seed)
            unit = self.size / (2 * math.log2(self.size))
            for num_pairs in [*(round(load * unit) for load in self.loads), self.size]:
                curve.setdefault(num_pairs, []).append(self._kept(num_pairs, generator))
            rises.append(_worst_rise(generator))
            right.append(self._adaptive(generator))
            settled.append(_settled_without_transpose(self.size, generator))
        kept = {num_pairs: sum(values) / len(values) for num_pairs, values in curve.items()}
        log.figure("capacity", lambda figure: _draw(figure, kept, self.size))
        return {
            **found,
            "kept_at_capacity": kept[round(self.size / (2 * math.log2(self.size)))],
            "kept_beyond_the_bound": kept[self.size],
            "worst_rise": max(rises),
            "adaptive_recall": sum(right) / len(right),
            "settled_with_another_way_back": sum(settled) / len(settled),
            "pairs_half_of_which_stay": _half(kept),
        }

    def _kept(self, num_pairs: int, generator: torch.Generator) -> float:
        """Fraction of random pairs that both layers keep."""
        memory = BAM(self.size, self.size)
        keys, values = memory.draw_pairs(num_pairs, generator)
        state = memory.write(memory.empty(), keys, values)
        there = ((keys @ state).sign() == values).all(1)
        back = ((values @ state.T).sign() == keys).all(1)
        return float((there & back).double().mean())

    def _adaptive(self, generator: torch.Generator) -> float:
        """Fraction of units right when the clean keys are asked for, only noisy samples having been shown."""
        memory = AdaptiveBAM(40, 30, pulse_s=2.0)
        keys, values = memory.draw_pairs(2, generator)
        which = torch.randint(0, 2, (self.num_samples,), generator=generator)

        def noisy(clean: Tensor) -> Tensor:
            wrong = torch.rand(self.num_samples, clean.shape[1], generator=generator) < self.noise
            return torch.where(wrong, -clean[which], clean[which])

        state = memory.write(memory.empty(), noisy(keys), noisy(values))
        return float((memory.read(state, keys).value.sign() == values).double().mean())


def _example() -> dict[str, float]:
    memory = BinaryBAM(6, 4)
    state = memory.write(memory.empty(), KEYS, VALUES)
    energies = memory.energy(state, BAMPair(KEYS, VALUES))
    cue = torch.tensor([[0.0, 1, 1, 0, 0, 0]])
    forth = memory.read(state, (configurations(6) + 1).float() / 2)
    back = memory.read_back(state, (configurations(4) + 1).float() / 2)
    standing = bool(forth.converged.all() and back.converged.all())
    return {
        "matrix_error": float((state - MATRIX).abs().max()),
        "energy_error": float((energies + 6).abs().max()),
        "noisy_cue_right": float(torch.equal(memory.read(state, cue).value, VALUES[1:])),
        "most_passes": float(max(int(forth.steps.max()), int(back.steps.max()))) if standing else math.inf,
    }


def _worst_rise(generator: torch.Generator) -> float:
    """The largest rise of the energy in one step, continuous and adaptive memory, random matrices, steps of tau."""
    rises = []
    for kind in (ContinuousBAM, AdaptiveBAM):
        memory = kind(12, 9, gain=4.0, dt_s=1.0, max_time_s=50.0)
        matrix = torch.randn(12, 9, generator=generator, dtype=torch.float64)
        cues = 2 * torch.rand(8, 12, generator=generator, dtype=torch.float64) - 1
        path = memory.trajectory(matrix, cues)
        heights = torch.stack([memory.energy(matrix, GradedPair(*leaves)) for leaves in zip(*path)])
        rises.append(float((heights[1:] - heights[:-1]).max()))
    return max(rises)


def _settled_without_transpose(size: int, generator: torch.Generator, num_passes: int = 100) -> float:
    """Fraction of random starts that stand still when the way back has a matrix of its own."""
    forth, back = (torch.randn(size, size, generator=generator) for _ in range(2))
    x = torch.randn(100, size, generator=generator).sign()
    for _ in range(num_passes):
        before, x = x, ((x @ forth).sign() @ back).sign()
    return float((before == x).all(1).double().mean())


def _half(kept: Mapping[int, float]) -> float:
    """Where the curve passes one half, by straight lines between its points."""
    points = sorted(kept.items())
    for (a, high), (b, low) in itertools.pairwise(points):
        if high >= 0.5 > low:
            return a + (b - a) * (high - 0.5) / (high - low)
    return math.nan


def _draw(figure: Any, kept: Mapping[int, float], size: int) -> None:
    axis = figure.subplots()
    points = sorted(kept.items())
    axis.plot([p for p, _ in points], [f for _, f in points], "o-", ms=4, lw=1.4, color="#0072b2")
    for place, name in ((size / (2 * math.log2(size)), "n / (2 log2 n)"), (size, "n")):
        axis.axvline(place, color="0.7", lw=0.9, ls="--")
        axis.text(place, 1.02, name, ha="center", fontsize=8, color="0.4")
    axis.set(
        xscale="log", xlabel=f"pairs stored, n = {size} units in both layers", ylabel="pairs that stay", ylim=(0, 1.1)
    )
    axis.spines[["top", "right"]].set_visible(False)
