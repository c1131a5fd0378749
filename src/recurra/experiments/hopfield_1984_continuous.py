"""Hopfield 1984: neurons with graded response."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..memories.continuous_hopfield import ContinuousHopfield, HopfieldCircuit, Integrator

_INTEGRATORS: tuple[Integrator, ...] = ("euler", "rk4", "adaptive")


@dataclass(frozen=True)
class Hopfield1984Continuous(Experiment):
    """Graded neurons in a circuit have the energy of the binary network, and at high gain its memories.

    For each gain and size, Hebbian circuits are run from noisy patterns by all three integrators, and the energy is looked at
    after every step. At high gain, every stable state of the binary network near a stored pattern must be one of the
    circuit; at a gain below the inverse of the largest eigenvalue, nothing is left of any. The extra part is the ten-city
    travelling salesman of Hopfield & Tank 1985 with their parameters.

    Args:
        num_seeds: trials.
        sizes: N.
        load: patterns for each unit.
        gains: the sweep.
        high_gain: at which the binary states must be there.
        low_gain: at which nothing must be.
        flipped: part of a cue's units that is wrong.
        num_cues: cues of each circuit whose energy is followed.
        num_tours: runs of the travelling salesman's circuit.
        max_time_s: of such a run, in time constants.
    Source:
        Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088 (equations as in copies of it); Hopfield & Tank 1985,
        Biol. Cybern. 52:141-152 (parameters A = B = D = 500, C = 200, n = 15, u0 = 0.02 and 16 of 20 tours valid: from memory)
    Differs:
        Hyperbolic tangents, and Hebb's rule without its diagonal. Tours are an extra, without a bar: Wilson & Pawley 1988
        could not reproduce 16 of 20 (from memory: 8 of 100), and neither do we.
    """

    id: ClassVar[str] = "hopfield-1984-continuous"
    source: ClassVar[str] = "Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088"
    claims: ClassVar[tuple[Claim, ...]] = (
        *(
            Claim(f"worst_rise_{name}", 1e-9, "lower", "dE/dt <= 0", "energy, any step", "theorem")
            for name in _INTEGRATORS
        ),
        Claim("binary_states_kept", 1.0, "higher", "high gain: the binary states", "gain 50", "from memory"),
        Claim("off_corner", 0.01, "lower", "stable states move to the corners", "gain 50", "from memory"),
        Claim("patterns_recalled", 0.95, "higher", "a memory", "units right, 10 % wrong in the cue, gain 50"),
        Claim("left_at_low_gain", 1e-3, "lower", "one state, at zero", "largest output", "theorem", control=True),
        Claim("rise_without_integral", 1e-3, "higher", "", "energy without its integral term", control=True),
    )

    num_seeds: int = 10
    sizes: tuple[int, ...] = (30, 100)
    load: float = 0.06
    gains: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 50.0, 100.0)
    high_gain: float = 50.0
    low_gain: float = 0.5
    flipped: float = 0.1
    num_cues: int = 4
    num_tours: int = 20
    max_time_s: float = 0.05

    @classmethod
    def smoke(cls) -> Self:
        """One trial, one small size, four gains, two tours cut short."""
        return cls(
            num_seeds=1, sizes=(20,), load=0.1, gains=(0.5, 4.0, 50.0), num_cues=2, num_tours=2, max_time_s=0.002
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """The sweep, then the tours."""
        rises: dict[str, list[float]] = {name: [] for name in _INTEGRATORS}
        rest: dict[str, list[float]] = {"kept": [], "corner": [], "recalled": [], "low": [], "bare": []}
        distance: dict[float, list[float]] = {gain: [] for gain in self.gains}
        trials = list(itertools.product(range(self.num_seeds), self.sizes))
        for number, (seed, size) in enumerate(trials):
            log(f"N = {size}, trial {seed + 1} of {self.num_seeds}", 0.8 * number / len(trials))
            generator = torch.Generator().manual_seed(1000 * size + seed)
            self._trial(size, generator, rises, rest, distance)
        log("travelling salesman", 0.8)
        tours = self._tours(torch.Generator().manual_seed(0))
        mean = {gain: sum(values) / len(values) for gain, values in distance.items()}
        log.figure("phase-portrait", _draw_portrait)
        log.figure("gain", lambda figure: _draw_gain(figure, mean))
        return {
            **{f"worst_rise_{name}": max(values) for name, values in rises.items()},
            "binary_states_kept": sum(rest["kept"]) / len(rest["kept"]),
            "off_corner": max(rest["corner"]),
            "patterns_recalled": sum(rest["recalled"]) / len(rest["recalled"]),
            "left_at_low_gain": max(rest["low"]),
            "rise_without_integral": min(rest["bare"]),
            **{f"off_corner_gain_{gain:g}": value for gain, value in mean.items()},
            **tours,
        }

    def _trial(
        self,
        size: int,
        generator: torch.Generator,
        rises: dict[str, list[float]],
        rest: dict[str, list[float]],
        distance: dict[float, list[float]],
    ) -> None:
        memory = ContinuousHopfield(size, gain=self.high_gain)
        patterns = memory.draw(max(2, round(self.load * size)), generator)
        circuit = memory.write(memory.empty(), patterns)
        wrong = torch.rand(patterns.shape, generator=generator) < self.flipped
        cues = torch.where(wrong, -patterns, patterns)
        inner = 0.9 * (2 * torch.rand(self.num_cues, size, generator=generator, dtype=torch.float64) - 1)
        for gain in self.gains:
            for name in _INTEGRATORS:
                followed = replace(memory, gain=gain, integrator=name, max_time_s=5.0, tolerance=1e-6)
                starts = torch.cat([cues[: self.num_cues], inner])[: 2 if name == "adaptive" else None]
                path = followed.trajectory(circuit, starts)
                heights = torch.stack([followed.energy(circuit, v) for v in path])
                rises[name].append(float((heights[1:] - heights[:-1]).max()))
                if name == "euler" and gain == min(self.gains):
                    bare = torch.stack([-0.5 * ((v @ circuit.conductances) * v).sum(-1) for v in path])
                    rest["bare"].append(float((bare[1:] - bare[:-1]).max()))
            settled = replace(memory, gain=gain).read(circuit, patterns).value
            distance[gain].append(float((1 - settled.abs()).mean()))
        stable = _binary_states(circuit, patterns)
        settled = memory.read(circuit, stable).value
        rest["kept"].append(float((settled.sign() == stable).all(1).double().mean()))
        rest["corner"].append(float((1 - settled.abs()).mean()))
        rest["recalled"].append(float((memory.read(circuit, cues).value.sign() == patterns).double().mean()))
        low = replace(memory, gain=self.low_gain)
        rest["low"].append(float(low.read(circuit, patterns).value.abs().max()))

    def _tours(self, generator: torch.Generator) -> dict[str, float]:
        """Valid tours, and the length of these against the shortest one."""
        num_cities = 10
        places = torch.rand(num_cities, 2, generator=generator, dtype=torch.float64)
        distances = torch.cdist(places, places)
        circuit = _salesman(distances)
        memory = ContinuousHopfield(num_cities**2, gain=50.0, max_time_s=self.max_time_s, tolerance=1e-3)
        u0 = 0.02
        start = -u0 / 2 * math.log(num_cities - 1)  # outputs that add up to the number of cities
        noise = 0.1 * u0 * (2 * torch.rand(self.num_tours, num_cities**2, generator=generator, dtype=torch.float64) - 1)
        recall = memory.read(circuit, memory.amplifier.output(start + noise))
        chosen = (recall.value > 0).reshape(-1, num_cities, num_cities)  # city, place in the tour
        valid = (chosen.sum(1) == 1).all(1) & (chosen.sum(2) == 1).all(1)
        lengths = [_length(distances, c.double().argmax(0)) for c in chosen[valid]]
        best = _shortest(distances)
        return {
            "tours_valid": float(valid.sum()),
            "tours_run": float(self.num_tours),
            "tours_settled": float(recall.converged.sum()),
            "tour_over_shortest": sum(lengths) / len(lengths) / best if lengths else 0.0,
        }


def _binary_states(circuit: HopfieldCircuit, patterns: Tensor) -> Tensor:
    """Where the binary network of the same connections goes from the patterns, one unit after the other."""
    value = patterns.clone()
    for _ in range(100):
        before = value.clone()
        for i in range(value.shape[1]):
            field = value @ circuit.conductances[:, i]
            value[:, i] = torch.where(field.abs() < 1e-12, value[:, i], field.sign())
        if torch.equal(before, value):
            break
    return value


def _salesman(
    distances: Tensor, a: float = 500.0, b: float = 500.0, c: float = 200.0, d: float = 500.0
) -> HopfieldCircuit:
    """Hopfield & Tank's circuit, its outputs V = (1 + s) / 2 written as s in (-1, 1); unit (city, place)."""
    n = len(distances)
    same = torch.eye(n, dtype=torch.float64)
    other = 1 - same
    beside = torch.roll(same, 1, 0) + torch.roll(same, -1, 0)
    wires = -a * torch.kron(same, other) - b * torch.kron(other, same) - c - d * torch.kron(distances, beside)
    currents = torch.full((n * n,), c * (n + 5), dtype=torch.float64)
    return HopfieldCircuit(wires / 2, currents + wires.sum(1) / 2)


def _length(distances: Tensor, tour: Tensor) -> float:
    return float(distances[tour, tour.roll(1)].sum())


def _shortest(distances: Tensor) -> float:
    """Held and Karp: the shortest way through every set of cities, by its last city."""
    n = len(distances)
    d = distances.tolist()
    best = {(1 << k, k): d[0][k] for k in range(1, n)}
    for size in range(2, n):
        for members in itertools.combinations(range(1, n), size):
            bits = sum(1 << k for k in members)
            for k in members:
                rest = bits & ~(1 << k)
                best[bits, k] = min(best[rest, j] + d[j][k] for j in members if j != k)
    everyone = (1 << n) - 2
    return min(best[everyone, k] + d[k][0] for k in range(1, n))


def _draw_portrait(figure: Any) -> None:
    """Two neurons that excite each other: lines of equal energy, and the ways that outputs take, at two gains."""
    circuit = HopfieldCircuit(torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), torch.zeros(2).double())
    ticks = torch.linspace(-0.99, 0.99, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    angles = torch.linspace(0, 2 * math.pi, 17, dtype=torch.float64)[:-1]
    starts = 0.97 * torch.stack([angles.cos(), angles.sin()], 1)
    for axis, gain in zip(figure.subplots(1, 2, sharey=True), (1.4, 6.0)):
        memory = ContinuousHopfield(2, gain=gain, dt_s=0.02, max_time_s=20.0, tolerance=1e-4)
        heights = memory.energy(circuit, grid).reshape(81, 81).T
        axis.contour(ticks, ticks, heights, levels=16, linewidths=0.6, cmap="Greys_r")
        path = memory.trajectory(circuit, starts)
        for row in range(len(starts)):
            axis.plot(path[:, row, 0], path[:, row, 1], lw=1.1, color="#0072b2")
        ends = path[-1]
        axis.plot(ends[:, 0], ends[:, 1], "o", ms=6, color="#d55e00")
        axis.set(title=f"gain {gain:g}", xlabel="output 1", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    figure.axes[0].set_ylabel("output 2")


def _draw_gain(figure: Any, mean: Mapping[float, float]) -> None:
    axis = figure.subplots()
    axis.loglog(list(mean), [max(v, 1e-17) for v in mean.values()], "o-", ms=4, lw=1.4, color="#0072b2")
    axis.set(xlabel="gain", ylabel="mean distance of the outputs from -1 or +1", ylim=(1e-12, 2))
    axis.set_title("With the gain, stable states move to the corners", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
