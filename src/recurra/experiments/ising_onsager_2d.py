"""The Ising model in two dimensions: simulation beside Onsager's solution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch

from ..analysis import Estimated, binder_cumulant, binning
from ..analysis.exact_ising import (
    CRITICAL_TEMPERATURE,
    kaufman_energy,
    onsager_energy,
    onsager_magnetisation,
)
from ..core import Claim, Experiment, Log, SpinDynamics
from ..memories.checkerboard import Checkerboard
from ..memories.packed_ising import PackedIsing
from ..memories.single_spins import Glauber, Metropolis, SequentialHeatBath
from ..memories.systems import Lattice
from ..memories.wolff import Wolff


class _Near(NamedTuple):
    """One lattice at one temperature near the critical one."""

    cumulant: Estimated
    energy: Estimated


@dataclass(frozen=True)
class IsingOnsager2d(Experiment):
    """Where the square lattice orders, and how much, against what is known exactly. Four parts:

    - Binder's cumulant of lattices of different sizes crosses at T_c (Wolff's clusters);
    - the energy at T_c: every size against Kaufman's formula in standard errors, and carried on to the infinite lattice;
    - the energy of one lattice above T_c from all dynamics, against Kaufman's formula;
    - the magnetisation against temperature, from 64 lattices that are packed into words, against Onsager's and Yang's curve.

    Args:
        sizes: L of L x L, each twice the last.
        temperatures: of the cumulants; the critical one is added.
        num_chains: chains that move side by side.
        num_clusters: clusters of each chain that are measured.
        curve_size: L of the magnetisation.
        curve_temperatures: of it; 2.0 is added.
        num_sweeps: of the packed lattices and of the comparison of dynamics.
        compared_size: L of the comparison of dynamics, at T = 2.5.
    Source:
        Onsager 1944, Phys. Rev. 65:117-149; Yang 1952, Phys. Rev. 85:808-816; the cumulant at T_c, 0.6107: Kamieniarz & Bloete
        1993, J. Phys. A 26:201-212 (from memory)
    """

    id: ClassVar[str] = "ising-onsager-2d"
    source: ClassVar[str] = "Onsager 1944, Phys. Rev. 65:117-149, doi:10.1103/PhysRev.65.117"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("crossing_off", 0.005, "lower", "2.269185", "T where the two largest lattices cross", "theorem"),
        Claim("cumulant_off", 0.005, "lower", "0.6107", "Binder's cumulant there", "from memory"),
        Claim("energy_off", 0.005, "lower", "-1.41421", "u at T_c, 1 / L to 0", "theorem"),
        Claim("energies_off_se", 2, "lower", "", "u at T_c against Kaufman, rms over L in s.e.", "theorem"),
        Claim("magnetisation_off", 0.002, "lower", "0.91132", "|m| at T = 2", "theorem"),
        Claim("dynamics_off_se", 2, "lower", "", "u at T = 2.5 of six dynamics, rms in s.e.", "theorem"),
        Claim("chain_crossings", 0, "lower", "", "lattices of one dimension: no crossing", "theorem", control=True),
        Claim("warmer_off_se", 10, "higher", "", "u at T = 2.5 from a bath 2 % warmer, in s.e.", control=True),
    )

    sizes: tuple[int, ...] = (8, 16, 32, 64)
    temperatures: tuple[float, ...] = (2.25, 2.26, 2.28, 2.29)
    num_chains: int = 16
    num_clusters: int = 4000
    curve_size: int = 64
    curve_temperatures: tuple[float, ...] = (
        1.5,
        1.7,
        1.9,
        2.1,
        2.15,
        2.2,
        2.225,
        2.25,
        2.275,
        2.3,
        2.35,
        2.4,
        2.5,
        2.7,
        3.0,
        3.5,
    )
    num_sweeps: int = 2000
    compared_size: int = 16

    @classmethod
    def smoke(cls) -> Self:
        """Small lattices, few clusters."""
        return cls(
            sizes=(4, 8), num_chains=4, num_clusters=200, curve_size=8, curve_temperatures=(1.5, 3.0), num_sweeps=80,
            compared_size=4,
        )  # fmt: skip

    def run(self, log: Log) -> Mapping[str, float]:
        """All four parts."""
        generator = torch.Generator().manual_seed(0)
        critical = CRITICAL_TEMPERATURE
        near: dict[int, dict[float, _Near]] = {size: {} for size in self.sizes}
        temperatures = sorted({*self.temperatures, critical})
        work, done = len(temperatures) * sum(size**2 for size in self.sizes), 0
        for size in self.sizes:
            for temperature in temperatures:
                log(f"L = {size}, T = {temperature:.3f}", 0.8 * done / work)
                near[size][temperature] = self._near((size, size), temperature, generator)
                done += size**2
        crossings = {size: _crossing(near[size], near[2 * size]) for size in self.sizes[:-1]}
        energies = {size: near[size][critical].energy for size in self.sizes}
        exact = {size: kaufman_energy(size, size, critical) for size in self.sizes}
        log("dynamics", 0.8)
        theory = kaufman_energy(self.compared_size, self.compared_size, 2.5)
        compared = {name: self._energy(name, 2.5, generator) for name in (*_DYNAMICS, "packed")}
        warmer = self._energy("packed", 2.55, generator)
        log("magnetisation", 0.9)
        curve = {t: self._magnetisation(t) for t in sorted({*self.curve_temperatures, 2.0})}
        log("chain", 0.98)
        rings = [[self._near((size,), t, generator).cumulant.value for t in (0.5, 0.8, 1.2)] for size in (16, 64)]

        log.figure("binder", lambda figure: _draw_binder(figure, near))
        log.figure("magnetisation", lambda figure: _draw_curve(figure, curve, self.curve_size))
        largest = crossings[self.sizes[-2]]
        return {
            "crossing_off": abs(largest[0] - critical),
            "cumulant_off": abs(largest[1] - 0.6107),
            "energy_off": abs(_carried_on(energies) + math.sqrt(2)),
            "energies_off_se": _rms([_off(energies[size], exact[size]) for size in self.sizes]),
            "magnetisation_off": abs(curve[2.0].value - onsager_magnetisation(2.0)),
            "dynamics_off_se": _rms([_off(found, theory) for found in compared.values()]),
            "chain_crossings": sum(large >= small for small, large in zip(*rings)),
            "warmer_off_se": abs(_off(warmer, theory)),
            "crossing": largest[0],
            "cumulant": largest[1],
            "magnetisation": curve[2.0].value,
            "magnetisation_error": curve[2.0].error,
            **{f"crossing_{size}_{2 * size}": found[0] for size, found in crossings.items()},
            **{f"energy_{size}": found.value for size, found in energies.items()},
            **{f"energy_error_{size}": found.error for size, found in energies.items()},
        }

    def _near(self, shape: tuple[int, ...], temperature: float, generator: torch.Generator) -> _Near:
        """Wolff's clusters from all spins up; every tenth configuration is asked for its energy."""
        lattice, dynamics = Lattice(shape), Wolff()
        spins = torch.ones(self.num_chains, lattice.num_spins, dtype=torch.int8)
        magnetisation, energy = [], []
        for step in range(self.num_clusters + self.num_clusters // 10):
            spins = dynamics.sweep(lattice, spins, 1 / temperature, generator)
            if step >= self.num_clusters // 10:
                magnetisation.append(spins.sum(1) / lattice.num_spins)
                if step % 10 == 0:
                    energy.append(lattice.energy(spins) / lattice.num_spins)
        found = binning(torch.stack(energy))
        return _Near(binder_cumulant(torch.stack(magnetisation), num_bins=32), Estimated(found.mean, found.error))

    def _energy(self, name: str, temperature: float, generator: torch.Generator) -> Estimated:
        """Energy per spin from one of the dynamics."""
        size, series = self.compared_size, []
        if name == "packed":
            ising = PackedIsing((size, size), copies=64)
            state = ising.sweep(ising.start(1), 1 / temperature, 200)
            for _ in range(self.num_sweeps):
                state = ising.sweep(state, 1 / temperature, 2)
                series.append(ising.measure(state).energy)
        else:
            lattice, dynamics = Lattice((size, size)), _DYNAMICS[name]
            spins = lattice.random_spins(self.num_chains, generator)
            for step in range(self.num_sweeps + 200):
                spins = dynamics.sweep(lattice, spins, 1 / temperature, generator)
                if step >= 200 or self.num_sweeps < 200:
                    series.append(lattice.energy(spins) / lattice.num_spins)
        found = binning(torch.stack(series))
        return Estimated(found.mean, found.error)

    def _magnetisation(self, temperature: float) -> Estimated:
        """|m| of 64 packed lattices, from all spins up; each lattice is one independent chain of the error bar."""
        ising = PackedIsing((self.curve_size, self.curve_size), copies=64)
        state = ising.sweep(ising.start(2, up=True), 1 / temperature, self.num_sweeps)
        series = []
        for _ in range(self.num_sweeps // 10):
            state = ising.sweep(state, 1 / temperature, 10)
            series.append(ising.measure(state).magnetisation.abs())
        chains = torch.stack(series).mean(0)
        return Estimated(float(chains.mean()), float(chains.std()) / 8)


_DYNAMICS: dict[str, SpinDynamics] = {
    "Glauber": Glauber(),
    "heat bath in an order": SequentialHeatBath(),
    "Metropolis": Metropolis(),
    "checkerboard": Checkerboard(),
    "Wolff": Wolff(num_clusters=5),
}


def _crossing(small: Mapping[float, _Near], large: Mapping[float, _Near]) -> tuple[float, float]:
    """Where the cumulants of two sizes are equal, and what they are there: parabolas through all temperatures."""
    temperatures = torch.tensor(list(small), dtype=torch.float64)
    x = temperatures - temperatures.mean()
    powers = torch.stack([x**0, x, x**2], 1)
    fits = [
        torch.linalg.lstsq(
            powers, torch.tensor([n.cumulant.value for n in near.values()], dtype=torch.float64)
        ).solution
        for near in (small, large)
    ]
    fine = torch.linspace(float(x.min()) - 0.05, float(x.max()) + 0.05, 20_001, dtype=torch.float64)
    curves = [fit[0] + fit[1] * fine + fit[2] * fine**2 for fit in fits]
    inside = (fine >= x.min() - 0.02) & (fine <= x.max() + 0.02)
    best = torch.where(inside, (curves[0] - curves[1]).abs(), math.inf).argmin()
    return float(fine[best] + temperatures.mean()), float(curves[1][best])


def _carried_on(energies: Mapping[int, Estimated]) -> float:
    """u at T_c of the infinite lattice, from u(L) = u + a / L of all but the smallest."""
    sizes = sorted(energies)[1:] if len(energies) > 2 else sorted(energies)
    weights = torch.tensor([1 / energies[size].error for size in sizes], dtype=torch.float64)
    powers = torch.tensor([[1.0, 1 / size] for size in sizes], dtype=torch.float64)
    values = torch.tensor([energies[size].value for size in sizes], dtype=torch.float64)
    return float(torch.linalg.lstsq(powers * weights[:, None], values * weights).solution[0])


def _off(found: Estimated, exact: float) -> float:
    """In standard errors."""
    return (found.value - exact) / found.error


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _draw_binder(figure: Any, near: Mapping[int, Mapping[float, _Near]]) -> None:
    left, right = figure.subplots(1, 2)
    for size, found in near.items():
        at = list(found)
        left.errorbar(
            at, [n.cumulant.value for n in found.values()], [n.cumulant.error for n in found.values()], fmt="o-", ms=3,
            lw=1, label=f"L = {size}",
        )  # fmt: skip
        right.errorbar(
            at, [n.energy.value for n in found.values()], [n.energy.error for n in found.values()], fmt="o", ms=3
        )
    fine = torch.linspace(min(at), max(at), 100).tolist()
    right.plot(fine, [onsager_energy(t) for t in fine], "k-", lw=1, label="Onsager, L infinite")
    for axis in (left, right):
        axis.axvline(CRITICAL_TEMPERATURE, color="black", lw=0.8, ls="--")
        axis.set_xlabel("temperature")
        axis.legend()
    left.axhline(0.6107, color="black", lw=0.8, ls=":")
    left.set(title="Binder's cumulant crosses at T_c", ylabel="1 - <m^4> / 3 <m^2>^2")
    right.set(title="Energy per spin", ylabel="u")


def _draw_curve(figure: Any, curve: Mapping[float, Estimated], size: int) -> None:
    axis = figure.subplots()
    fine = torch.cat([torch.linspace(1.4, 2.26, 100), torch.linspace(2.26, 2.2692, 100), torch.tensor([2.2692, 3.6])])
    axis.plot(fine, [onsager_magnetisation(float(t)) for t in fine], "k-", lw=1, label="Onsager, Yang: L infinite")
    axis.errorbar(
        list(curve), [m.value for m in curve.values()], [m.error for m in curve.values()], fmt="o", ms=4,
        label=f"64 lattices, L = {size}",
    )  # fmt: skip
    axis.set(title="Magnetisation of the square lattice", xlabel="temperature", ylabel="|m|", ylim=(0, 1.02))
    axis.legend()
