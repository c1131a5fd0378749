"""Sherrington & Kirkpatrick 1975: a glass of spins that are all coupled, its ground state and its many other states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..analysis import Estimated, descend, is_stable, landscape
from ..core import Claim, Experiment, Log
from ..memories.couplings import CouplingRule
from ..memories.hopfield import Hopfield
from ..memories.single_spins import Glauber, Metropolis
from ..memories.systems import DenseSystem, sherrington_kirkpatrick


@dataclass(frozen=True)
class SherringtonKirkpatrick1975(Experiment):
    """Couplings drawn at random, of variance 1 / N. Four parts:

    - enumeration of small glasses: the mean number of configurations that no single flip improves grows as exp(0.199 N);
    - ground states, of the same glasses and of larger ones by annealing, carried on to infinite N over N^(-2/3);
    - above the temperature of freezing, 1, the energy is -beta / 2;
    - a Hopfield net with random couplings is this glass: what its units come to rest in are the glass's stable states.

    Args:
        enumerated: N of the first part.
        num_glasses: for each N.
        annealed: N of ground states by annealing.
        num_annealed: glasses for each of these.
        num_copies: copies of a glass that are cooled side by side.
        num_sweeps: of the cooling, from T = 1.3 to 0.1.
        quenched_size: N of descents from random configurations, and of the energy at T = 2.
        num_hopfield: starts of the Hopfield net.
    Source:
        Sherrington & Kirkpatrick 1975, Phys. Rev. Lett. 35(26):1792-1796, doi:10.1103/PhysRevLett.35.1792; how many states:
        Tanaka & Edwards 1980, J. Phys. F 10:2769; Bray & Moore 1980, J. Phys. C 13:L469; the ground state: Parisi 1979,
        J. Phys. A 13:L115 (all from memory)
    """

    id: ClassVar[str] = "sherrington-kirkpatrick-1975"
    source: ClassVar[str] = (
        "Sherrington & Kirkpatrick 1975, Phys. Rev. Lett. 35(26):1792-1796, doi:10.1103/PhysRevLett.35.1792"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("states_slope_least", 0.18, "higher", "0.1992", "ln <N_s> against N", "from memory"),
        Claim("states_slope_most", 0.22, "lower", "0.1992", "the same", "from memory"),
        Claim(
            "states_slope_ferromagnet", 0.01, "lower", "0", "all couplings 1 / N: two states for every N", control=True
        ),
        Claim("ground_energy_off", 0.01, "lower", "-0.7632", "e0, N^(-2/3) to 0", "from memory"),
        Claim("quench_above_ground", 0.03, "higher", "", "a single descent instead of annealing", control=True),
        Claim("warm_energy_off", 0.005, "lower", "-beta / 2", "energy per spin at T = 2", "theorem"),
        Claim("hopfield_rests_in_stable", 1.0, "higher", "", "rests of the Hopfield net that the glass calls stable"),
        Claim("hopfield_states_missed", 0, "lower", "", "stable states of the glass that no start led to"),
    )

    enumerated: tuple[int, ...] = (8, 10, 12, 14, 16, 18, 20)
    num_glasses: int = 1500
    annealed: tuple[int, ...] = (50, 100, 200)
    num_annealed: int = 60
    num_copies: int = 24
    num_sweeps: int = 200
    quenched_size: int = 500
    num_hopfield: int = 20_000

    @classmethod
    def smoke(cls) -> Self:
        """Few and small glasses."""
        return cls(
            enumerated=(8, 10), num_glasses=40, annealed=(20,), num_annealed=3, num_copies=4, num_sweeps=40,
            quenched_size=60, num_hopfield=2000,
        )  # fmt: skip

    def run(self, log: Log) -> Mapping[str, float]:
        """All four parts."""
        generator = torch.Generator().manual_seed(0)
        states: dict[int, Tensor] = {}
        ground: dict[int, Estimated] = {}
        for i, size in enumerate(self.enumerated):
            log(f"all configurations of {size} spins", 0.5 * 2.0 ** (i - len(self.enumerated)))
            found = [landscape(sherrington_kirkpatrick(size, generator)) for _ in range(self.num_glasses)]
            states[size] = torch.tensor([float(f.num_stable) for f in found], dtype=torch.float64)
            ground[size] = _mean(torch.tensor([f.ground_energy / size for f in found], dtype=torch.float64))
        for size in self.annealed:
            log(f"annealing of {size} spins", 0.5 + 0.4 * size / sum(self.annealed))
            ground[size] = _mean(torch.stack([self._cooled(size, generator) for _ in range(self.num_annealed)]))
        log("descent, warm glass", 0.9)
        quench, warm = self._large(generator)
        log("Hopfield net", 0.95)
        rests, missed = self._hopfield(generator)

        slope, slope_error = _slope(states)
        ferromagnets = {size: landscape(_ferromagnet(size)).num_stable for size in self.enumerated}
        flat, _ = _slope({size: torch.full((2,), float(n), dtype=torch.float64) for size, n in ferromagnets.items()})
        infinite, rise = _carried_on(ground)
        log.figure("glass", lambda figure: _draw(figure, states, ground, infinite, rise))
        return {
            "states_slope_least": slope,
            "states_slope_most": slope,
            "states_slope_ferromagnet": abs(flat),
            "ground_energy_off": abs(infinite + 0.7632),
            "quench_above_ground": quench - infinite,
            "warm_energy_off": abs(warm + 0.25),
            "hopfield_rests_in_stable": rests,
            "hopfield_states_missed": missed,
            "states_slope_error": slope_error,
            "ground_energy": infinite,
            "ground_energy_rise": rise,
            "quench_energy": quench,
            **{f"states_{size}": float(counts.mean()) for size, counts in states.items()},
            **{f"ground_energy_{size}": found.value for size, found in ground.items()},
        }

    def _cooled(self, size: int, generator: torch.Generator) -> Tensor:
        """Lowest energy per spin among the copies of one glass."""
        glass = sherrington_kirkpatrick(size, generator)
        spins = glass.random_spins(self.num_copies, generator)
        for temperature in torch.linspace(1.3, 0.1, self.num_sweeps).tolist():
            spins = Metropolis().sweep(glass, spins, 1 / temperature, generator)
        return glass.energy(descend(Glauber(), glass, spins, generator).spins).min() / size

    def _large(self, generator: torch.Generator) -> tuple[float, float]:
        """Energy per spin after single descents, and at T = 2; over ten glasses each."""
        size, quenches, warm = self.quenched_size, [], []
        for _ in range(10):
            glass = sherrington_kirkpatrick(size, generator)
            start = glass.random_spins(20, generator)
            quenches.append(glass.energy(descend(Glauber(), glass, start, generator).spins).mean() / size)
            spins = start
            for step in range(60):
                spins = Glauber().sweep(glass, spins, 0.5, generator)
                if step >= 20:
                    warm.append(glass.energy(spins).mean() / size)
        return float(torch.stack(quenches).mean()), float(torch.stack(warm).mean())

    def _hopfield(self, generator: torch.Generator) -> tuple[float, float]:
        """One glass as the couplings of a Hopfield net: rests that are stable, stable states that were missed."""
        size = self.enumerated[min(2, len(self.enumerated) - 1)]
        net = Hopfield(size, _Drawn(sherrington_kirkpatrick(size, generator).couplings))
        state = net.write(
            net.empty(), net.draw(1, generator)
        )  # whatever is stored, the couplings are those of the glass
        glass = net.system(state)
        rests = net.read(state, net.draw(self.num_hopfield, generator)).value
        found = len(torch.unique(rests, dim=0))
        return float(is_stable(glass, rests).double().mean()), float(landscape(glass).num_stable - found)


@dataclass(frozen=True, eq=False)
class _Drawn(CouplingRule):
    """Couplings that know no pattern."""

    matrix: Tensor

    def couplings(self, patterns: Tensor) -> Tensor:
        return self.matrix


def _ferromagnet(size: int) -> DenseSystem:
    couplings = torch.full((size, size), 1 / size, dtype=torch.float64)
    return DenseSystem(couplings.fill_diagonal_(0))


def _mean(values: Tensor) -> Estimated:
    return Estimated(float(values.mean()), float(values.std() / len(values) ** 0.5))


def _fit(x: Tensor, y: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Intercept and slope of a weighted line, and their covariance."""
    rows = torch.stack([torch.ones_like(x), x], 1) / error[:, None]
    covariance = torch.linalg.inv(rows.T @ rows)
    return covariance @ rows.T @ (y / error), covariance


def _slope(states: Mapping[int, Tensor]) -> tuple[float, float]:
    """Of ln <N_s> against N, with its error."""
    x = torch.tensor(list(states), dtype=torch.float64)
    means = torch.stack([counts.mean() for counts in states.values()])
    errors = torch.stack([counts.std() / len(counts) ** 0.5 for counts in states.values()]) / means
    line, covariance = _fit(x, means.log(), errors.clamp_min(1e-6))
    return float(line[1]), float(covariance[1, 1].sqrt())


def _carried_on(ground: Mapping[int, Estimated]) -> tuple[float, float]:
    """e0 and the slope of e(N) = e0 + a N^(-2/3), from at least 14 spins where there are such."""
    sizes = [size for size in ground if size >= 14] or list(ground)
    if len(sizes) < 2:
        sizes = list(ground)
    x = torch.tensor([size ** (-2 / 3) for size in sizes], dtype=torch.float64)
    values = torch.tensor([ground[size].value for size in sizes], dtype=torch.float64)
    line, _ = _fit(x, values, torch.tensor([ground[size].error for size in sizes], dtype=torch.float64))
    return float(line[0]), float(line[1])


def _draw(
    figure: Any, states: Mapping[int, Tensor], ground: Mapping[int, Estimated], infinite: float, rise: float
) -> None:
    left, right = figure.subplots(1, 2)
    at = list(states)
    means = [float(counts.mean()) for counts in states.values()]
    left.semilogy(at, means, "o", label="mean over glasses")
    left.semilogy(at, [means[-1] * math.exp(0.1992 * (n - at[-1])) for n in at], "k-", lw=1, label="slope 0.1992")
    left.set(title="Stable states", xlabel="N", ylabel="<N_s>")
    x = [size ** (-2 / 3) for size in ground]
    right.errorbar(x, [e.value for e in ground.values()], [e.error for e in ground.values()], fmt="o", label="mean")
    right.plot([0, max(x)], [infinite, infinite + rise * max(x)], lw=1, label="line")
    right.plot(0, -0.7632, "k*", ms=10, label="Parisi")
    right.set(title="Ground state", xlabel="N^(-2/3)", ylabel="energy per spin")
    left.legend()
    right.legend()
