"""Little 1974: units that all move at once, their law of equilibrium, their cycles and what they can store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import AssociativeMemory, Claim, Experiment, Log, SpinSystem, configurations
from ..memories.hopfield import Hopfield, SynchronousHopfield
from ..memories.little import Little
from ..memories.systems import DenseSystem, sherrington_kirkpatrick


@dataclass(frozen=True, eq=False)
class _OneWay(SpinSystem):
    """Couplings J_ij from j to i that need not be symmetric: fields, but no energy."""

    couplings: Tensor

    @property
    def num_spins(self) -> int:
        return len(self.couplings)

    @property
    def outer_field(self) -> Tensor:
        return self.couplings.new_zeros(self.num_spins)

    def field(self, spins: Tensor) -> Tensor:
        return spins.to(self.couplings.dtype) @ self.couplings.T


@dataclass(frozen=True)
class Little1974Synchronous(Experiment):
    """All units move at once, by the same heat bath as in Glauber's dynamics. Three parts:

    - the law of equilibrium: all 2^N configurations, the matrix of transitions, its stationary law by squaring, and beside it
      Peretto's exp(-beta H), H = -T sum_i ln 2 cosh(beta h_i);
    - temperature zero, symmetric couplings: every run ends in a fixed point or a cycle of two;
    - storage: up to which load patterns stay, all units at once and one after the other.

    Args:
        num_enumerated: N of the law of equilibrium.
        num_systems: random couplings of each part.
        beta: of the law of equilibrium.
        num_units: N of the runs at temperature zero.
        num_runs: of them, over all systems.
        max_steps: pairs of steps of a run with symmetric couplings, at most.
        one_way_steps: the same without symmetry.
        num_stored: N of storage.
        loads: M / N.
        num_nets: nets for each load.
    Source:
        Little 1974, Math. Biosci. 19:101-120, doi:10.1016/0025-5564(74)90031-5; Peretto 1984, Biol. Cybern. 50:51-62,
        doi:10.1007/BF00317939; Goles-Chacc, Fogelman-Soulie & Pellegrin 1985, Discrete Appl. Math. 12:261-277
    Differs:
        The capacity is that of a finite net: the load at which half of the patterns keep an overlap of 0.9.
    """

    id: ClassVar[str] = "little-1974-synchronous"
    source: ClassVar[str] = "Little 1974, Math. Biosci. 19:101-120, doi:10.1016/0025-5564(74)90031-5"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("stationary_off", 1e-12, "lower", "0", "Peretto's law against the matrix, largest difference", "theorem"),
        Claim("balance_off", 1e-12, "lower", "0", "flows there and back, largest difference", "theorem"),
        Claim("boltzmann_off", 0.01, "higher", "", "Boltzmann's law instead, total variation", control=True),
        Claim("one_way_off", 0.01, "higher", "", "couplings that are not symmetric", control=True),
        Claim("longer_cycles", 0, "lower", "0", "runs that end in neither fixed point nor cycle of two", "theorem"),
        Claim("one_way_longer_cycles", 0.5, "higher", "", "the same, not symmetric", control=True),
        Claim("capacity_difference", 0.01, "lower", "0", "alpha_c = 0.138 for both", "from memory"),
        Claim("capacity", 0.13, "higher", "0.138", "all units at once", "from memory"),
        Claim("overlap_overloaded", 0.6, "lower", "", "load 0.2: what was stored is lost", control=True),
    )

    num_enumerated: int = 8
    num_systems: int = 10
    beta: float = 1.0
    num_units: int = 200
    num_runs: int = 10_000
    max_steps: int = 2000
    one_way_steps: int = 100
    num_stored: int = 1000
    loads: tuple[float, ...] = (0.11, 0.12, 0.125, 0.13, 0.135, 0.14, 0.145, 0.15, 0.155, 0.16, 0.17, 0.2)
    num_nets: int = 6

    @classmethod
    def smoke(cls) -> Self:
        """Few units, few runs."""
        return cls(num_systems=2, num_units=30, num_runs=40, num_stored=100, loads=(0.05, 0.15, 0.3), num_nets=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """All three parts."""
        generator = torch.Generator().manual_seed(0)
        log("law of equilibrium", 0.0)
        laws = [self._law(generator) for _ in range(self.num_systems)]
        worst = {name: max(law[name] for law in laws) for name in ("stationary_off", "balance_off")}
        least = {name: min(law[name] for law in laws) for name in ("boltzmann_off", "one_way_off")}
        log("temperature zero", 0.05)
        longer, fixed = self._cycles(True, generator)
        one_way, _ = self._cycles(False, generator)

        kept: dict[str, list[float]] = {"at once": [], "one by one": []}
        overlaps: dict[str, list[float]] = {"at once": [], "one by one": []}
        for i, load in enumerate(self.loads):
            log(f"storage, load {load}", 0.2 + 0.8 * i / len(self.loads))
            memories: dict[str, AssociativeMemory[Any]] = {
                "at once": SynchronousHopfield(self.num_stored),
                "one by one": Hopfield(self.num_stored),
            }
            for name, memory in memories.items():
                seeds = torch.Generator().manual_seed(1000 + i)  # both dynamics get the same patterns
                found = torch.stack(
                    [_overlap(memory, round(load * self.num_stored), seeds) for _ in range(self.num_nets)]
                )
                kept[name].append(float((found > 0.9).double().mean()))
                overlaps[name].append(float(found.mean()))
        capacities = {name: _half(self.loads, values) for name, values in kept.items()}
        log.figure("storage", lambda figure: _draw(figure, self.loads, kept, overlaps))
        return {
            **worst,
            **least,
            "longer_cycles": longer,
            "one_way_longer_cycles": one_way,
            "fixed_points": fixed,
            "capacity": capacities["at once"],
            "capacity_one_by_one": capacities["one by one"],
            "capacity_difference": abs(capacities["at once"] - capacities["one by one"]),
            "overlap_overloaded": overlaps["at once"][-1],
        }

    def _law(self, generator: torch.Generator) -> dict[str, float]:
        """How far Peretto's law is from the stationary one, and what is compared with it."""
        size, every = self.num_enumerated, configurations(self.num_enumerated)
        glass = sherrington_kirkpatrick(size, generator)
        outer = 0.3 * torch.randn(size, generator=generator, dtype=torch.float64)
        system = DenseSystem(glass.couplings, outer)
        matrix = self._transitions(system)
        stationary = _stationary(matrix)
        peretto = torch.softmax(Little().log_stationary(system, every, self.beta), 0)
        boltzmann = torch.softmax(-self.beta * system.energy(every), 0)
        flows = peretto[:, None] * matrix

        noise = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
        one_way = _OneWay(noise.fill_diagonal_(0))
        claimed = torch.softmax(Little().log_stationary(one_way, every, self.beta), 0)
        found = _stationary(self._transitions(one_way))
        return {
            "stationary_off": float((stationary - peretto).abs().max()),
            "balance_off": float((flows - flows.T).abs().max()),
            "boltzmann_off": float((stationary - boltzmann).abs().sum() / 2),
            "one_way_off": float((found - claimed).abs().sum() / 2),
        }

    def _transitions(self, system: SpinSystem) -> Tensor:
        """(2^N, 2^N) from each configuration (row) to each other."""
        every = configurations(system.num_spins).double()
        fields = system.field(every)  # (2^N, N)
        along = 2 * self.beta * every[None] * fields[:, None]  # (from, to, N)
        return torch.sigmoid(along).prod(-1)

    def _cycles(self, symmetric: bool, generator: torch.Generator) -> tuple[float, float]:
        """Fractions of the runs that end in a longer cycle (or nowhere), and in a fixed point."""
        size, longer, fixed = self.num_units, 0, 0
        each = -(-self.num_runs // self.num_systems)
        most = self.max_steps if symmetric else self.one_way_steps
        for _ in range(self.num_systems):
            system: SpinSystem = sherrington_kirkpatrick(size, generator)
            if not symmetric:
                noise = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
                system = _OneWay(noise.fill_diagonal_(0))
            spins = system.random_spins(each, generator)
            for step in range(most):
                once = Little().sweep(system, spins, math.inf, generator)
                twice = Little().sweep(system, once, math.inf, generator)
                resting = (twice == spins).all(1)
                if bool(resting.all()) or step == most - 1:
                    break
                spins = twice
            longer += int((~resting).sum())
            fixed += int((once == spins).all(1).sum())
        return longer / (each * self.num_systems), fixed / (each * self.num_systems)


def _stationary(matrix: Tensor) -> Tensor:
    """The law that a chain comes to: its matrix to the power 2^60."""
    for _ in range(60):
        matrix = matrix @ matrix
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix.mean(0)


def _overlap(memory: AssociativeMemory[Any], num_patterns: int, generator: torch.Generator) -> Tensor:
    """(M,) overlaps of stored patterns with where they go when they are their own cues."""
    patterns = memory.draw(num_patterns, generator)
    recalled = memory.read(memory.write(memory.empty(), patterns), patterns).value
    return (recalled * patterns).mean(1)


def _half(loads: tuple[float, ...], kept: list[float]) -> float:
    """The load at which the fraction falls through one half."""
    for (a, before), (b, after) in pairwise(zip(loads, kept)):
        if before >= 0.5 > after:
            return a + (b - a) * (before - 0.5) / (before - after)
    return loads[0] if kept[0] < 0.5 else loads[-1]


def _draw(
    figure: Any, loads: tuple[float, ...], kept: Mapping[str, list[float]], overlaps: Mapping[str, list[float]]
) -> None:
    left, right = figure.subplots(1, 2)
    for name in kept:
        left.plot(loads, kept[name], "o-", ms=4, label=name)
        right.plot(loads, overlaps[name], "o-", ms=4, label=name)
    for axis in (left, right):
        axis.axvline(0.138, color="black", lw=0.8, ls="--")
        axis.set(xlabel="load M / N", ylim=(0, 1.02))
    left.set(title="Patterns that keep an overlap of 0.9", ylabel="fraction")
    right.set(title="Overlap of what is recalled", ylabel="mean")
    left.legend(title="units move")
