"""What every way of annealing shares: the system as the loops read it, the plan of a run, its clock and its trace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..core import SpinSystem
from .annealing_loop import BOUNDS, metropolis, seeds
from .systems import neighbours_of

BLOCK_S = 0.05  # between two looks at the clock
SPACING = 1.01  # between two moments of a trace
SWEEPS = 1000
HOT = 0.4  # share of accepted flips at which a schedule begins
GROUP = 4  # reads of a round for each thread, where only the time is given


Temperatures = Callable[[np.ndarray], np.ndarray]


class Moment(NamedTuple):
    """How far a run was.

    Args:
        seconds: since it began.
        sweeps: sweeps made so far, over all reads.
        energy: lowest so far.
        mean: energy, over the reads of the round that was going on.
        part: of the whole that is done, 0 to 1.
    """

    seconds: float
    sweeps: int
    energy: float
    mean: float
    part: float


class Graph(NamedTuple):
    """A system as the loops read it: begin (N + 1,), other (2 E,), coupling (2 E,), outer (N,)."""

    begin: np.ndarray
    other: np.ndarray
    coupling: np.ndarray
    outer: np.ndarray

    def matrix(self) -> Any:
        """(N, N) J, a sparse array of SciPy."""
        from scipy.sparse import csr_array

        return csr_array((self.coupling, self.other, self.begin), shape=(len(self.outer), len(self.outer)))

    def fields(self, spins: np.ndarray) -> np.ndarray:
        """(R, N) h_i + sum_j J_ij s_j."""
        return np.ascontiguousarray((self.matrix() @ spins.T.astype(np.float64)).T + self.outer)

    def spectrum(self) -> tuple[float, float]:
        """The lowest and the highest eigenvalue of J, to a few digits."""
        from scipy.sparse.linalg import eigsh

        size = len(self.outer)
        if size < 20:
            values = np.linalg.eigvalsh(self.matrix().toarray())
            return float(values[0]), float(values[-1])
        start = np.random.default_rng(0).normal(size=size)
        ends = [eigsh(self.matrix(), 1, which=which, v0=start, tol=1e-3)[0][0] for which in ("SA", "LA")]
        return float(ends[0]), float(ends[1])

    def energies(self, spins: np.ndarray, fields: np.ndarray) -> np.ndarray:
        """(R,) E."""
        return -0.5 * ((fields + self.outer) * spins).sum(1)


def graph_of(system: SpinSystem) -> Graph:
    """Its neighbour lists in float64."""
    near = neighbours_of(system)
    return Graph(
        near.begin.numpy(),
        near.other.to(torch.int32).numpy(),
        np.ascontiguousarray(near.coupling.double().numpy()),
        np.ascontiguousarray(system.outer_field.double().numpy()),
    )


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Args:
        sweeps: of each read; None is the usual number.
        reads: altogether; None goes on until the time is over.
        seconds: after which it ends; None for no such end.
        seed: of all random numbers.
        threads: reads that run side by side.
    """

    sweeps: int | None
    reads: int | None
    seconds: float | None
    seed: int
    threads: int

    @property
    def cycles(self) -> bool:
        """Is there nothing but a time?"""
        return self.reads is None and self.sweeps is None

    def rounds(self) -> Iterator[tuple[int, int]]:
        """Reads and sweeps of one round after another."""
        if self.reads is not None:
            yield self.reads, self.sweeps or SWEEPS
            return
        while True:
            yield GROUP * self.threads, self.sweeps or SWEEPS


class Clock:
    """Keeps the best state, the trace, and the time; told after every block of sweeps.

    Args:
        graph: whose energies count.
        plan: of the run.
        on_progress: told too.
        stop: asked after every block; True ends the run there.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        on_progress: Callable[[Moment], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.graph, self.plan, self.on_progress, self.stop = graph, plan, on_progress, stop
        self.begin = time.perf_counter()
        self.energy, self.sweeps = math.inf, 0
        self.best = np.ones(len(graph.outer), np.int8)
        self._trace: list[Moment] = []

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.begin

    @property
    def stopped(self) -> bool:
        """Was the run asked to stop?"""
        return self.stop is not None and self.stop()

    @property
    def over(self) -> bool:
        """Is the time up, or was it asked to stop?"""
        return self.stopped or (self.plan.seconds is not None and self.seconds >= self.plan.seconds)

    def blocks(self, num_sweeps: int) -> Iterator[np.ndarray]:
        """The parts of the schedule, 0 to 1, at which sweeps are made, block after block of about `BLOCK_S`.

        What is left of the time bounds how many sweeps are left: a schedule is shortened, never cut off. A run without
        ``seconds`` makes exactly ``num_sweeps``.
        """
        done, count, speed, made = 0.0, 1, 0.0, 0
        while made < num_sweeps and done < 1 and not (made and self.stopped):
            left = num_sweeps - made
            if self.plan.seconds is not None and speed:
                left = max(1, min(left, int((self.plan.seconds - self.seconds) * speed)))
            count = min(count, left)
            parts = done + (1 - done) * np.arange(1, count + 1) / left
            begin = time.perf_counter()
            yield parts
            took = max(time.perf_counter() - begin, 1e-6)
            speed, made, done = count / took, made + count, 1.0 if count == left else float(parts[-1])
            count = max(1, min(4 * count, int(speed * BLOCK_S)))

    def see(self, spins: np.ndarray, energies: np.ndarray, sweeps: int, part: float) -> None:
        """After ``sweeps`` sweeps of every read.

        Args:
            spins: (R, N).
            energies: (R,).
            sweeps: of each read since it was told before.
            part: of the round that is done, 0 to 1.
        """
        self.sweeps += sweeps * len(spins)
        place = int(energies.argmin())
        if energies[place] < self.energy:
            self.energy, self.best = float(energies[place]), spins[place].copy()
        seconds = self.seconds
        whole = part if self.plan.reads is not None else 0.0
        if self.plan.seconds is not None:
            whole = max(whole, min(1.0, seconds / self.plan.seconds))
        self.latest = Moment(seconds, self.sweeps, self.energy, float(energies.mean()), whole)
        last = self._trace[-1] if self._trace else None
        if last is None or self.energy < last.energy or seconds > SPACING * last.seconds:
            self._trace.append(self.latest)
        if self.on_progress is not None:
            self.on_progress(self.latest)

    @property
    def trace(self) -> tuple[Moment, ...]:
        """Every moment at which the best state changed, others at distances that grow with the time, and the last one."""
        return tuple(self._trace) if self._trace[-1] is self.latest else (*self._trace, self.latest)


def falling_temperatures(graph: Graph, seed: int) -> Temperatures:
    """Part p of the schedule -> temperature, such that the share of accepted flips falls as (1 - p)^2: what is hot is soon in
    equilibrium and its sweeps cost most. A short run finds the temperatures."""
    scale = np.abs(graph.outer) + np.bincount(
        np.repeat(np.arange(len(graph.outer)), np.diff(graph.begin)), np.abs(graph.coupling), len(graph.outer)
    )
    moved = scale[scale > 0]
    if not len(moved):
        return lambda part: np.ones_like(part)
    low = 0.02 * float(min(moved.min(), np.abs(graph.coupling[graph.coupling != 0]).min(initial=math.inf)))
    high = 2.0 * float(moved.max())
    low = max(low, 1e-6 * high)
    repeats = max(1, math.ceil(1000 / len(graph.outer)))
    rng = np.random.default_rng([seed, 7])
    spins = (2 * rng.integers(0, 2, (repeats, len(graph.outer)), dtype=np.int8) - 1).astype(np.int8)
    fields, states = graph.fields(spins), seeds(seed + 1, repeats)

    def share(temperature: float, sweeps: int) -> float:
        """Accepted flips."""
        flips, betas = np.zeros(repeats, np.int64), np.full(sweeps, 1 / temperature)
        metropolis(graph.begin, graph.other, graph.coupling, spins, fields, betas, BOUNDS, states, flips)
        return float(flips.sum()) / (sweeps * spins.size)

    while high > low and share(high / 1.5, 1) > HOT + 0.2:
        high /= 1.5
    ladder = np.geomspace(high, low, max(24, math.ceil(8 * math.log(high / low))))
    accepted = np.array([share(temperature, 2) for temperature in ladder.tolist()])
    accepted = np.minimum.accumulate(accepted)
    frozen = accepted <= accepted[-1] + 0.003
    last = max(1, int(frozen.argmax()))
    hot = min(HOT, float(accepted[0]))
    levels, places = accepted[: last + 1][::-1], ladder[: last + 1][::-1]
    levels = levels + 1e-9 * np.arange(len(levels))
    cold = float(levels[0])
    return lambda part: np.interp(cold + (hot - cold) * (1 - part) ** 2, levels, places)
