"""Caravelli, Traversa and Di Ventra 2017: memristors in a circuit, and how slowly they relax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..core.circuits import (
    MemristiveCircuit,
    Relaxation,
    cycle_matrix,
    incidence_matrix,
    loop_basis,
    relax,
)

TOPOLOGIES = ("random loops", "random graph", "ring with short chords")


class _Fit(NamedTuple):
    """A straight line through log m against log t: its slope, the share of the variance it explains, the decades it spans."""

    exponent: float
    r2: float
    decades: float
    r2_exponential: float


@dataclass(frozen=True)
class Caravelli2017Memristive(Experiment):
    """Memories of a circuit under constant sources relax to their walls by a power law, whatever the circuit looks like.

    With alpha = 0 and random sources, the mean distance of the memories from where they end is followed in time. It falls as a
    power of time, over more than a decade; the exponent hardly depends on what the circuit looks like, at a given density of
    loops. Circuits: loops at random (A normal), random graphs (a random tree and chords), rings with short chords.

    Args:
        num_memristors: E.
        num_loops: C, two densities.
        num_circuits: of each kind and density.
        xi: contrast of the resistances.
        tolerance: of a step's error while they relax.
        num_times: moments, from 0.01 s to 10,000 s.
        num_flows: circuits whose Lyapunov function is followed.
    Source:
        Caravelli, Traversa & Di Ventra 2017, Phys. Rev. E 95:022140, doi:10.1103/PhysRevE.95.022140 (the abstract read: a power
        law, universal, dependent only on the density of loops; the rest from memory)
    Differs:
        What relaxes is the mean distance from the end, under constant sources; the paper's own figure was not at hand. The
        sums of exponentials of its analysis belong to the linearised equation, ours is the whole one with walls. The power
        comes from the memories with the smallest currents, whose time to reach a wall is 1 / current.
        The control: one memory alone, w + xi w^2 / 2 = t, is at its wall within a third of a decade.
    """

    id: ClassVar[str] = "caravelli-2017-memristive"
    source: ClassVar[str] = (
        "Caravelli, Traversa & Di Ventra 2017, Phys. Rev. E 95:022140, doi:10.1103/PhysRevE.95.022140"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("projector_error", 1e-12, "lower", "0", "Omega^2 = Omega", "theorem"),
        Claim("kirchhoff_residual", 1e-10, "lower", "0", "sums at nodes and around loops", "theorem"),
        Claim("single_memristor_error", 1e-8, "lower", "0", "w + xi w^2 / 2 is linear in t", "theorem"),
        Claim("outside_walls", 0.0, "lower", "0", "0 <= w <= 1", "theorem"),
        Claim("power_law_r2", 0.98, "higher", "a power law", "the lowest of all kinds and densities", "read"),
        Claim("power_law_decades", 1.0, "higher", "", "that the line spans"),
        Claim("exponent_spread", 0.15, "lower", "universal", "between topologies at one density of loops", "read"),
        Claim("lyapunov_rise", 1e-9, "lower", "0", "largest rise before a wall is reached", "theorem"),
        Claim("ising_energy_falls", 1.0, "higher", "", "share of circuits that end at a corner lower than their start"),
        Claim("exponential_r2", 0.95, "lower", "", "the same decade as an exponential", "own bar", control=True),
        Claim(
            "decades_equal_loops",
            0.5,
            "lower",
            "",
            "loops without a common edge, equal sources",
            "theorem",
            control=True,
        ),
    )

    num_memristors: int = 200
    num_loops: tuple[int, int] = (50, 100)
    num_circuits: int = 10
    xi: float = 10.0
    tolerance: float = 1e-4
    num_times: int = 121
    num_flows: int = 5

    @classmethod
    def smoke(cls) -> Self:
        """Small circuits, one of each."""
        return cls(num_memristors=12, num_loops=(3, 6), num_circuits=1, num_times=16, num_flows=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """Laws of the equation, then the relaxation, then the Lyapunov function."""
        generator = torch.Generator().manual_seed(0)
        times = torch.logspace(-2, 4, self.num_times, dtype=torch.float64)
        metrics = {**self._laws(generator), "single_memristor_error": self._single()}
        curves: dict[tuple[str, int], Tensor] = {}
        fits: dict[tuple[str, int], _Fit] = {}
        outside, total = 0.0, len(TOPOLOGIES) * len(self.num_loops) * self.num_circuits
        for loops in self.num_loops:
            for topology in TOPOLOGIES:
                found: list[Tensor] = []
                for _ in range(self.num_circuits):
                    log(f"{topology}, {loops} loops", (len(curves) * self.num_circuits + len(found)) / total * 0.9)
                    memories = self._relaxed(topology, loops, times, generator).memories
                    outside = max(outside, float((-memories).max()), float((memories - 1).max()))
                    found.append((memories - memories[-1]).abs().mean(1))
                mean = torch.stack(found).mean(0)
                curves[topology, loops] = mean / mean[0]
                fits[topology, loops] = fit(times, curves[topology, loops])
        spreads = [
            max(fits[t, loops].exponent for t in TOPOLOGIES) - min(fits[t, loops].exponent for t in TOPOLOGIES)
            for loops in self.num_loops
        ]
        equal = self._equal_loops(times)
        log("Lyapunov function", 0.9)
        rise, falls = self._flows(generator)
        log.figure("relaxation", lambda figure: _draw(figure, times, curves, equal, fits))
        return {
            **metrics,
            "outside_walls": max(outside, 0.0),
            "power_law_r2": min(f.r2 for f in fits.values()),
            "power_law_decades": min(f.decades for f in fits.values()),
            "exponent_spread": max(spreads),
            "lyapunov_rise": rise,
            "ising_energy_falls": falls,
            "exponential_r2": max(f.r2_exponential for f in fits.values()),
            "decades_equal_loops": fit(times, equal).decades,
            **{
                f"exponent_{topology.replace(' ', '_')}_{loops}_loops": found.exponent
                for (topology, loops), found in fits.items()
            },
        }

    def _loops(self, topology: str, num_loops: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A (C, E) of a circuit, and its incidence matrix where it is a graph."""
        if topology == "random loops":
            return torch.randn(num_loops, self.num_memristors, generator=generator, dtype=torch.float64), None
        num_nodes = self.num_memristors - num_loops + 1
        edges = graph(topology, num_nodes, num_loops, generator)
        return cycle_matrix(num_nodes, edges), incidence_matrix(num_nodes, edges)

    def _laws(self, generator: torch.Generator) -> dict[str, float]:
        """Of graphs: is Omega a projector, do the currents obey Kirchhoff?"""
        worst, residual = 0.0, 0.0
        for loops in self.num_loops:
            for topology in TOPOLOGIES[1:]:
                matrix, incidence = self._loops(topology, loops, generator)
                omega = matrix.T @ torch.linalg.solve(matrix @ matrix.T, matrix)
                worst = max(worst, float((omega @ omega - omega).abs().max()))
                sources = torch.randn(self.num_memristors, generator=generator, dtype=torch.float64)
                circuit = MemristiveCircuit(loop_basis(matrix), sources, 0.0, 1.0, self.xi)
                worst = max(worst, float((circuit.projector - omega).abs().max()))
                w = torch.rand(self.num_memristors, generator=generator, dtype=torch.float64)
                current = circuit.currents(w)
                assert incidence is not None
                voltages = matrix @ ((1 + self.xi * w) * current - sources)
                residual = max(residual, float((incidence @ current).abs().max()), float(voltages.abs().max()))
        return {"projector_error": worst, "kirchhoff_residual": residual}

    def _single(self) -> float:
        """One memristor and one source: the largest distance from  w + xi w^2 / 2 = t."""
        one = torch.ones(1, dtype=torch.float64)
        circuit = MemristiveCircuit(one[None], -one, 0.0, 1.0, self.xi)
        times = torch.linspace(0, 0.99 * (1 + self.xi / 2), 50, dtype=torch.float64)
        w = relax(circuit, 0 * one, times, 1e-10).memories[:, 0]
        return float((w + self.xi * w * w / 2 - times).abs().max())

    def _relaxed(self, topology: str, loops: int, times: Tensor, generator: torch.Generator) -> Relaxation:
        """Memories that begin anywhere, under normal sources."""
        matrix, _ = self._loops(topology, loops, generator)
        sources = torch.randn(self.num_memristors, generator=generator, dtype=torch.float64)
        circuit = MemristiveCircuit(loop_basis(matrix), sources, 0.0, 1.0, self.xi)
        start = torch.rand(self.num_memristors, generator=generator, dtype=torch.float64)
        return relax(circuit, start, times, self.tolerance)

    def _equal_loops(self, times: Tensor) -> Tensor:
        """(K,) distance from the end of a memory that is alone in its loop; as many such loops as one likes are the same."""
        one = torch.ones(1, dtype=torch.float64)
        memories = relax(MemristiveCircuit(one[None], -one, 0.0, 1.0, self.xi), 0 * one, times, self.tolerance).memories
        distance = (memories - memories[-1]).abs().mean(1)
        return distance / distance[0]

    def _flows(self, generator: torch.Generator) -> tuple[float, float]:
        """With alpha > 0: the largest rise of L before the first wall; how many end at a corner of lower energy."""
        rise, lower = 0.0, 0
        for number in range(self.num_flows):
            matrix, _ = self._loops(TOPOLOGIES[number % 3], self.num_loops[number % 2], generator)
            sources = 0.5 * torch.randn(self.num_memristors, generator=generator, dtype=torch.float64)
            circuit = MemristiveCircuit(loop_basis(matrix), sources, 0.2, 1.0, self.xi)
            start = 0.3 + 0.4 * torch.rand(self.num_memristors, generator=generator, dtype=torch.float64)
            flow = relax(circuit, start, torch.linspace(0, 3, 61, dtype=torch.float64), 1e-6).memories
            inside = int(((flow > 0) & (flow < 1)).all(1).sum())
            value = circuit.lyapunov(flow[:inside])
            rise = max(rise, float(value.diff().max()) if inside > 1 else 0.0)
            end = relax(circuit, flow[-1], torch.tensor([300.0], dtype=torch.float64), self.tolerance).memories[-1]
            corner = (end > 0.5).double()
            lower += int(bool(circuit.lyapunov(corner) < circuit.lyapunov(start)))
        return rise, lower / self.num_flows


def graph(topology: str, num_nodes: int, num_loops: int, generator: torch.Generator) -> Tensor:
    """(E, 2) edges of a connected graph with as many independent loops."""
    if topology == "random graph":
        parents = [int(torch.randint(node, (1,), generator=generator)) for node in range(1, num_nodes)]
        tree = torch.tensor([[parent, node] for node, parent in enumerate(parents, 1)])
        first = torch.randint(num_nodes, (num_loops,), generator=generator)
        apart = torch.randint(1, num_nodes, (num_loops,), generator=generator)
        return torch.cat([tree, torch.stack([first, (first + apart) % num_nodes], 1)])
    nodes = torch.arange(num_nodes)
    ring = torch.stack([nodes, (nodes + 1) % num_nodes], 1)
    first = torch.randint(num_nodes, (num_loops - 1,), generator=generator)
    apart = torch.randint(2, min(10, num_nodes - 1), (num_loops - 1,), generator=generator)
    return torch.cat([ring, torch.stack([first, (first + apart) % num_nodes], 1)])


def fit(times: Tensor, values: Tensor, begin: float = 0.3, decades: float = 1.0) -> _Fit:
    """From where the values fall below ``begin``: a power law over so many decades of time, and an exponential there."""
    below = values < begin
    first = float(times[below][0]) if bool(below.any()) else float(times[0])
    chosen = below & (times <= first * 10**decades * 1.0001) & (values > 0)
    if int(chosen.sum()) < 3:
        return _Fit(0.0, 0.0, 0.0, 0.0)
    t, y = times[chosen], values[chosen].log()
    spanned = float((t[-1] / t[0]).log10())
    exponent, r2 = _line(t.log(), y)
    return _Fit(exponent, r2, round(spanned, 6), _line(t, y)[1])


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope, and share of the variance explained."""
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / (x * x).sum())
    return slope, float(1 - ((y - slope * x) ** 2).sum() / (y * y).sum())


def _draw(
    figure: Any,
    times: Tensor,
    curves: Mapping[tuple[str, int], Tensor],
    equal: Tensor,
    fits: Mapping[tuple[str, int], _Fit],
) -> None:
    """Distance from the end against time, both on logarithmic scales."""
    axis = figure.subplots()
    colors = dict(zip(TOPOLOGIES, ("#0077bb", "#ee7733", "#009988")))
    densities = sorted({loops for _, loops in curves})
    for (topology, loops), values in curves.items():
        label = f"{topology}, {loops} loops: t^{fits[topology, loops].exponent:.2f}"
        shown = values > 1e-4
        style = "-" if loops == densities[0] else "--"
        axis.loglog(times[shown].numpy(), values[shown].numpy(), style, color=colors[topology], lw=1.4, label=label)
    shown = equal > 1e-4
    axis.loglog(
        times[shown].numpy(), equal[shown].numpy(), ":", color="0.5", label="loops without a common edge, equal sources"
    )
    axis.set(xlabel="time, s", ylabel="mean distance of the memories from their end", ylim=(5e-4, 1.5))
    axis.set_title("Memories relax by a power law, whatever the circuit looks like", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
