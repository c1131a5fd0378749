"""Low-energy states of systems of spins: annealing, the continuous Hopfield net, memristors, clusters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..core import SpinSystem
from ..core.checks import check_choice, check_positive, sentence
from .annealing_loop import BOUNDS, descend, metropolis, seeds
from .annealing_run import Clock, Graph, Moment, Plan, Temperatures, falling_temperatures, graph_of
from .relaxing import hopfield_reads, memristive_reads
from .wolff import Wolff

Method = Literal["annealing", "hopfield", "memristive", "wolff"]
METHODS: tuple[Method, ...] = get_args(Method)

READS = 10
CYCLE_FIRST = 300  # sweeps of the first annealing of a group
CYCLE_FROM = 0.3  # part of the schedule at which a cycle begins
CYCLE_SWEEPS = 300
CYCLE_PATIENCE = 40  # cycles without a better state, after which a new group begins


@dataclass(frozen=True, eq=False)
class AnnealResult:
    """What `anneal` found.

    Args:
        spins: (N,) int8, the state of lowest energy.
        energy: its E.
        reads: (R, N) int8, the end of every read.
        energies: (R,) float64, their E.
        trace: how the energy fell.
        method: that found it.
        sweeps: made altogether.
        seconds: that took.
    """

    spins: Tensor
    energy: float
    reads: Tensor
    energies: Tensor
    trace: tuple[Moment, ...]
    method: Method
    sweeps: int
    seconds: float


def anneal(
    system: SpinSystem,
    method: Method = "annealing",
    *,
    sweeps: int | None = None,
    reads: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    on_progress: Callable[[Moment], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> AnnealResult:
    """Look for the spins of lowest energy.

        annealing     Metropolis' moves of single spins while the temperature falls (Kirkpatrick, Gelatt & Vecchi 1983)
        hopfield      dv/dt = -v + tanh((J v + h) / T) while T falls (Hopfield & Tank 1985; mean-field annealing)
        memristive    a memristor for each spin, relaxing to its walls (Caravelli 2019)
        wolff         a cluster turns over, then every spin is asked, while the temperature falls (Wolff 1989)

    Every read begins at random and ends with single flips downhill. The temperature falls so that the share of accepted flips
    falls from 0.4 to what is left when everything is frozen, fast at first, then slower (as the square of the time that is
    left); a short run before finds which temperatures these are, so energies may have any unit and several scales.

    Args:
        system: the spins.
        method: one of the four.
        sweeps: of each read (steps of the two that are differential equations); None is 1000.
        reads: independent ones, of which the best counts; 10 without ``seconds``.
        seconds: go on for so long, or end the given reads after so long. If neither ``sweeps`` nor ``reads`` are given,
            "annealing" warms a group of states up and cools it again, many times.
        seed: of all random numbers. The same seed gives the same result, unless ``seconds`` ends it.
        threads: of "annealing", a read each; None is torch's own number.
        on_progress: called after every block of sweeps with a `Moment`.
        stop: asked after every block of sweeps; True ends the run with what there is.

    Raises:
        ValueError: no such method, a number below one, no time.

    Source:
        Kirkpatrick, Gelatt & Vecchi 1983, Science 220(4598):671-680, doi:10.1126/science.220.4598.671

    Cost:
        annealing: a sweep is N looks at a field, and one addition for each neighbour of a spin that flips.

    Example:
        >>> from recurra.memories.systems import Lattice
        >>> found = anneal(Lattice((6, 6)), sweeps=50, reads=2)
        >>> found.energy, int(found.spins.sum().abs())
        (-72.0, 36)
    """
    check_choice("anneal", "method", method, METHODS)
    plan = _plan(sweeps, reads, seconds, seed, threads)
    graph = graph_of(system)
    _make_ready(graph)
    clock = Clock(graph, plan, on_progress, stop)
    temperatures = falling_temperatures(graph, seed)
    found = []
    for number, (num_reads, num_sweeps) in enumerate(plan.rounds()):
        rng = np.random.default_rng([seed, number])
        spins = (2 * rng.integers(0, 2, (num_reads, len(graph.outer)), dtype=np.int8) - 1).astype(np.int8)
        if method == "annealing" and plan.cycles:
            ends = _cycle(graph, spins, temperatures, plan.threads, rng, clock)
        elif method == "annealing":
            ends = _anneal(graph, spins, num_sweeps, temperatures, plan.threads, rng, clock)
        elif method == "wolff":
            ends = _clusters(system, graph, spins, num_sweeps, temperatures, plan.threads, rng, clock)
        elif method == "hopfield":
            ends = hopfield_reads(graph, num_reads, num_sweeps, temperatures, rng, clock)
        else:
            ends = memristive_reads(graph, num_reads, num_sweeps, rng, clock)
        fields = graph.fields(ends)
        _downhill(graph, ends, fields, plan.threads)
        energies = graph.energies(ends, fields)
        clock.see(ends, energies, 0, 1.0)
        found.append((ends, energies))
        if clock.over:
            break
    return AnnealResult(
        torch.from_numpy(clock.best),
        clock.energy,
        torch.from_numpy(np.concatenate([ends for ends, _ in found])),
        torch.from_numpy(np.concatenate([energies for _, energies in found])),
        clock.trace,
        method,
        clock.sweeps,
        clock.seconds,
    )


def _plan(sweeps: int | None, reads: int | None, seconds: float | None, seed: int, threads: int | None) -> Plan:
    for name, value in (("sweeps", sweeps), ("reads", reads), ("threads", threads)):
        if value is not None:
            check_positive("anneal", **{name: value})
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(sentence("anneal", "seconds", "above 0", seconds))
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(sentence("anneal", "seed", "a whole number from 0", repr(seed)))
    if reads is None and seconds is None:
        reads = READS
    return Plan(sweeps, reads, seconds, seed, threads or torch.get_num_threads())


def _make_ready(graph: Graph) -> None:
    """Machine code and SciPy are there before the clock begins."""
    none, spins = np.zeros(0), np.ones((1, len(graph.outer)), np.int8)
    fields, flips = graph.fields(spins), np.zeros(1, np.int64)
    metropolis(graph.begin, graph.other, graph.coupling, spins, fields, none, BOUNDS, seeds(0, 1), flips)
    descend(graph.begin, graph.other, graph.coupling, spins, fields, 0, flips)


# --- annealing ------------------------------------------------------------------------------------------------------


def _anneal(
    graph: Graph,
    spins: np.ndarray,
    num_sweeps: int,
    temperatures: Temperatures,
    threads: int,
    rng: np.random.Generator,
    clock: Clock,
) -> np.ndarray:
    """(R, N) after Metropolis' sweeps."""
    fields, flips = graph.fields(spins), np.zeros(len(spins), np.int64)
    states = seeds(int(rng.integers(2**63)), len(spins))
    for parts in clock.blocks(num_sweeps):
        betas = 1 / temperatures(parts)
        metropolis(
            graph.begin, graph.other, graph.coupling, spins, fields, betas, BOUNDS, states, flips, threads=threads
        )
        clock.see(spins, graph.energies(spins, fields), len(parts), float(parts[-1]))
    return spins


def _cycle(
    graph: Graph,
    spins: np.ndarray,
    temperatures: Temperatures,
    threads: int,
    rng: np.random.Generator,
    clock: Clock,
) -> np.ndarray:
    """(R, N) lowest states of a group of reads, each annealed once, then warmed up and cooled again and again.

    What a cycle leads to is kept where it is no worse. The group ends when it has not become better for long.

    Source:
        Moebius et al. 1997, Phys. Rev. Lett. 79(22):4297-4301, doi:10.1103/PhysRevLett.79.4297 (the idea, from memory)
    """
    spins = _anneal(graph, spins, CYCLE_FIRST, temperatures, threads, rng, clock)
    fields = graph.fields(spins)
    _downhill(graph, spins, fields, threads)
    energies = graph.energies(spins, fields)
    clock.see(spins, energies, 0, 1.0)
    states, flips = seeds(int(rng.integers(2**63)), len(spins)), np.zeros(len(spins), np.int64)
    stale = 0
    while not clock.over and stale < CYCLE_PATIENCE:
        moved, inner = spins.copy(), fields.copy()
        for parts in clock.blocks(CYCLE_SWEEPS):
            betas = 1 / temperatures(CYCLE_FROM + (1 - CYCLE_FROM) * parts)
            metropolis(
                graph.begin, graph.other, graph.coupling, moved, inner, betas, BOUNDS, states, flips, threads=threads
            )
            clock.see(moved, graph.energies(moved, inner), len(parts), float(parts[-1]))
        _downhill(graph, moved, inner, threads)
        reached = graph.energies(moved, inner)
        stale = 0 if (reached < energies - 1e-9 * np.abs(energies)).any() else stale + 1
        kept = reached <= energies
        spins[kept], fields[kept], energies[kept] = moved[kept], inner[kept], reached[kept]
        clock.see(spins, energies, 0, 1.0)
    return spins


def _clusters(
    system: SpinSystem,
    graph: Graph,
    spins: np.ndarray,
    num_sweeps: int,
    temperatures: Temperatures,
    threads: int,
    rng: np.random.Generator,
    clock: Clock,
) -> np.ndarray:
    """(R, N) after as many clusters of Wolff's, a sweep of single spins after each."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    states, flips, wolff = seeds(int(rng.integers(2**63)), len(spins)), np.zeros(len(spins), np.int64), Wolff()
    for parts in clock.blocks(num_sweeps):
        for beta in 1 / temperatures(parts):
            spins = np.ascontiguousarray(wolff.sweep(system, torch.from_numpy(spins), float(beta), generator).numpy())
            fields, betas = graph.fields(spins), np.full(1, beta)
            metropolis(
                graph.begin, graph.other, graph.coupling, spins, fields, betas, BOUNDS, states, flips, threads=threads
            )
        clock.see(spins, graph.energies(spins, fields), len(parts), float(parts[-1]))
    return spins


def _downhill(graph: Graph, spins: np.ndarray, fields: np.ndarray, threads: int) -> None:
    """Single flips until none lowers the energy."""
    flips = np.zeros(len(spins), np.int64)
    descend(graph.begin, graph.other, graph.coupling, spins, fields, 1000, flips, threads=threads)
