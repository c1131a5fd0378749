"""Amari 1972: nets of threshold elements learn patterns and sequences of patterns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..memories import Hopfield, SequenceHopfield
from ..memories.couplings import Fading


def theory(load: float) -> float:
    """Overlap with the pattern whose turn it is, of an endless replay: the signal and the noise of one step, repeated.

    m' = erf(m / sqrt(2 a r)),  r' = 1 + r C^2,  C = sqrt(2 / (pi a r)) exp(-m^2 / (2 a r))
    """
    m, r = 1.0, 1.0
    for _ in range(5000):
        width = math.sqrt(2 * load * r)
        slope = 2 / math.sqrt(math.pi) / width * math.exp(-((m / width) ** 2))
        m, r = math.erf(m / width), 1 + r * slope**2
    return m


@dataclass(frozen=True)
class Amari1972Sequences(Experiment):
    """A net whose units move at once replays a cycle of up to 0.27 N patterns.

    Cycles of random patterns, each of which calls the next, are replayed from the first pattern. The critical load is the one
    at which half of the largest nets are still on the cycle after so many steps. A second part is the paper's other kind
    of learning: stable patterns, with weights that decay while new patterns are learned.

    Args:
        sizes: N.
        num_nets: nets of each size for each load.
        loads: patterns a unit.
        num_steps: of a replay.
        good_load: load at which the quality of the replay is measured, with the largest N.
        kept_overlap: above it a net counts as being on the cycle, at the end.
        decay: of the weights for each pattern, in the second part.
        num_learned: patterns learned there, one after the other.
    Source:
        Amari 1972, IEEE Trans. Computers C-21(11):1197-1206, doi:10.1109/T-C.1972.223477; critical load 0.269: Duering, Coolen
        & Sherrington 1998, J. Phys. A 31:8607 (both from memory)
    Differs:
        Thresholds are 0; learning is one presentation of each pair. At a load of 0.25 the overlap is not above 0.95: theory
        (`theory`, the steady state of a step's signal and noise) says 0.914 there, 0.95 at 0.22, and none beyond 0.269.
    """

    id: ClassVar[str] = "amari-1972-sequences"
    source: ClassVar[str] = "Amari 1972, IEEE Trans. Computers C-21(11):1197-1206, doi:10.1109/T-C.1972.223477"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("overlap_at_025", 0.95, "higher", "", "load 0.25, after 100 steps"),
        Claim("overlap_at_025_off_theory", 0.01, "lower", "", "the same, less what theory says", "theorem"),
        Claim("overlap_at_020", 0.95, "higher", "", "load 0.2, after 100 steps"),
        Claim("critical_load", 0.26, "higher", "0.269", "Duering et al. 1998", "from memory"),
        Claim("critical_load", 0.28, "lower", "0.269", "Duering et al. 1998", "from memory"),
        Claim(
            "exact_at_half_of_free",
            0.9,
            "higher",
            "N / (2 ln N)",
            "load half of it: replays without error",
            "from memory",
        ),
        Claim("recent_recalled", 0.95, "higher", "patterns are kept", "learning with decay, last 3"),
        Claim("overlap_at_035", 0.5, "lower", "", "load 0.35", control=True),
        Claim("overlap_symmetric", 0.3, "lower", "", "W that holds instead of calls, load 0.05", control=True),
        Claim("old_recalled", 0.05, "lower", "forgotten", "learning with decay, first 100", control=True),
    )

    sizes: tuple[int, ...] = (500, 1000, 2000, 4000)
    num_nets: tuple[int, ...] = (80, 40, 20, 10)
    loads: tuple[float, ...] = (0.24, 0.25, 0.26, 0.265, 0.27, 0.275, 0.28, 0.29)
    num_steps: int = 100
    good_load: float = 0.25
    kept_overlap: float = 0.5
    decay: float = 0.97
    num_learned: int = 200

    @classmethod
    def smoke(cls) -> Self:
        """Small nets."""
        return cls(sizes=(60, 120), num_nets=(4, 2), loads=(0.2, 0.25, 0.3), num_steps=10, num_learned=120)

    def run(self, log: Log) -> Mapping[str, float]:
        """Replays at all loads, negative controls, learning with decay."""
        paths: dict[tuple[int, float], Tensor] = {}
        total, done = sum(n * c * n for n, c in zip(self.sizes, self.num_nets)), 0
        for size, count in zip(self.sizes, self.num_nets):
            for load in self.loads:
                log(f"N = {size}, load {load:g}", 0.9 * done / total)
                replays = [self._replay(size, load, net) for net in range(count)]
                paths[size, load] = torch.stack(replays)
                done += size * size * count // len(self.loads)
        log("controls", 0.9)
        largest, few = self.sizes[-1], self.num_nets[-1]
        free = 1 / (2 * math.log(largest))
        good = torch.stack([self._replay(largest, self.good_load, net) for net in range(few)])
        better = torch.stack([self._replay(largest, 0.2, net) for net in range(few)])
        beyond = torch.stack([self._replay(largest, 0.35, net) for net in range(few)])
        exact = torch.stack([self._replay(largest, free / 2, net) for net in range(few)])
        held = torch.stack([self._replay(largest, 0.05, net, holds=True) for net in range(few)])
        log("learning with decay", 0.95)
        ages = self._ages()
        log.figure("sequences", lambda figure: _draw(figure, self, paths, ages))
        return {
            "overlap_at_025": float(good[:, -1].mean()),
            "overlap_at_025_worst_step": float(good.mean(0).min()),
            "overlap_at_025_off_theory": abs(float(good[:, -1].mean()) - theory(self.good_load)),
            "overlap_at_020": float(better[:, -1].mean()),
            "critical_load": self._half(paths, largest),
            **{f"half_load_{size}": self._half(paths, size) for size in self.sizes[:-1]},
            "exact_at_half_of_free": float((exact == 1).double().mean()),
            "overlap_at_035": float(beyond[:, -1].mean()),
            "overlap_symmetric": float(held[:, -1].mean()),
            "recent_recalled": float(ages[:3].mean()),
            "old_recalled": float(ages[100:].mean()),
        }

    def _replay(self, size: int, load: float, net: int, holds: bool = False) -> Tensor:
        """(num_steps + 1,) overlap with the pattern whose turn it is; ``holds``: patterns call themselves."""
        memory = SequenceHopfield(size)
        patterns = memory.draw(round(load * size), torch.Generator().manual_seed(1000 * net + round(1000 * load)))
        state = memory.write(memory.empty(), patterns, patterns if holds else None)
        path = memory.replay(state, patterns[:1], self.num_steps)[:, 0]
        turns = torch.arange(self.num_steps + 1) % len(patterns)
        return (path * patterns[turns]).mean(1)

    def _half(self, paths: Mapping[tuple[int, float], Tensor], size: int) -> float:
        """The load at which half of the nets stay on the cycle, between the measured ones."""
        kept = [float((paths[size, load][:, -1] > self.kept_overlap).double().mean()) for load in self.loads]
        for (low, high), (above, below) in zip(itertools.pairwise(self.loads), itertools.pairwise(kept)):
            if above >= 0.5 > below:
                return low + (high - low) * (above - 0.5) / (above - below)
        return self.loads[0] if kept[0] < 0.5 else self.loads[-1]

    def _ages(self) -> Tensor:
        """(num_learned,) share of patterns recalled with an overlap above 0.9, the latest first; N = 200."""
        kept = torch.zeros(self.num_learned, dtype=torch.float64)
        nets = min(20, 2 * self.num_nets[0])
        for net in range(nets):
            memory = Hopfield(200, Fading(self.decay))
            patterns = memory.draw(self.num_learned, torch.Generator().manual_seed(net))
            state = memory.write(memory.empty(), patterns)
            kept += (memory.overlaps(state, memory.read(state, patterns).value).diagonal() > 0.9).flip(0)
        return kept / nets


def _draw(figure: Any, setting: Amari1972Sequences, paths: Mapping[tuple[int, float], Tensor], ages: Tensor) -> None:
    left, middle, right = figure.subplots(1, 3)
    for size in setting.sizes:
        kept = [float((paths[size, load][:, -1] > setting.kept_overlap).double().mean()) for load in setting.loads]
        left.plot(setting.loads, kept, "o-", ms=3, lw=1, label=f"N = {size}")
    left.axvline(0.269, color="0.5", lw=0.8, ls=":", label="theory, 0.269")
    left.set(xlabel="load", ylabel="share of nets still on the cycle", ylim=(0, 1.02))
    left.legend(fontsize=7, frameon=False)
    size = setting.sizes[-1]
    for load in setting.loads[:: max(1, len(setting.loads) // 4)]:
        middle.plot(paths[size, load].mean(0), lw=1, label=f"load {load:g}")
    middle.set(xlabel="step", ylabel="overlap with the pattern whose turn it is", ylim=(0, 1.02))
    middle.set_title(f"N = {size}", fontsize=10)
    middle.legend(fontsize=7, frameon=False)
    right.plot(range(1, len(ages) + 1), ages, lw=1)
    right.set(xlabel="age of a stable pattern", ylabel="share that is recalled")
    right.set_title(f"decay {setting.decay:g}, N = 200", fontsize=10)
