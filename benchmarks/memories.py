"""Memories and spin systems: each beside what people would use instead, as a ratio of one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from recurra.memories.packed_ising import PackedIsing

from .section import Section


class Row(NamedTuple):
    """What was measured, in words; ``reached`` is None where there is no bar."""

    what: str
    other: str
    ours: str
    ratio: str
    wanted: str
    reached: bool | None


def alternating(
    ours: Callable[[], Any], other: Callable[[], Any], rounds: int, pause_s: float = 0.0
) -> tuple[float, float]:
    """Median seconds of both, called in turn, so that both meet the same neighbours; two calls do not count.

    Args:
        pause_s: before each call, where threads of the one before would still spin.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 2):
        for times, function in zip(found, (ours, other)):
            time.sleep(pause_s)
            begin = time.perf_counter()
            function()
            if turn >= 2:
                times.append(time.perf_counter() - begin)
    return statistics.median(found[0]), statistics.median(found[1])


def modern_hopfield(quick: bool) -> list[Row]:
    """A Hopfield layer of one step beside the same linear maps around torch's attention."""
    sizes = ((2, 16, 32, 4),) if quick else ((32, 128, 256, 4), (4, 1024, 256, 8))
    return [row for size in sizes for row in _modern_hopfield(*size, rounds=2 if quick else 15)]


def _modern_hopfield(batch: int, length: int, size: int, heads: int, rounds: int) -> list[Row]:
    from torch.nn.functional import scaled_dot_product_attention

    from recurra.layers import HopfieldAssociation

    torch.manual_seed(0)
    layer = HopfieldAssociation(size, num_heads=heads)
    x = torch.randn(batch, length, size)

    def attention(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).unflatten(-1, (heads, -1)).transpose(1, 2) for m in (layer.query, layer.key, layer.value))
        return layer.output(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    with torch.no_grad():
        forward = alternating(lambda: layer(x), lambda: attention(x), rounds)
    both = alternating(lambda: layer(x).sum().backward(), lambda: attention(x).sum().backward(), rounds)
    what = f"Hopfield layer, one step, B={batch}, L=S={length}, D={size}, {heads} heads"
    return [
        Row(
            f"{what}, {name}",
            f"{1e3 * theirs:.2f} ms (scaled_dot_product_attention)",
            f"{1e3 * ours:.2f} ms",
            f"{ours / theirs:.3f}",
            "<= 1.10 of its time",
            ours <= 1.1 * theirs,
        )
        for name, (ours, theirs) in (("forward", forward), ("forward and backward", both))
    ]


def checkerboard_numpy(spins: np.ndarray, beta: float, rng: np.random.Generator, chance: np.ndarray) -> None:
    """A Metropolis sweep as one writes it in NumPy with care: int8, colours apart (2, H, L / 2), all in place."""
    three, four = np.float32(math.exp(-4 * beta)), np.float32(math.exp(-8 * beta))
    for colour in (0, 1):
        mine, theirs = spins[colour], spins[1 - colour]
        field = theirs.copy()
        field[1:] += theirs[:-1]
        field[0] += theirs[-1]
        field[:-1] += theirs[1:]
        field[-1] += theirs[0]
        field[1 - colour :: 2, :-1] += theirs[1 - colour :: 2, 1:]
        field[1 - colour :: 2, -1] += theirs[1 - colour :: 2, 0]
        field[colour::2, 1:] += theirs[colour::2, :-1]
        field[colour::2, 0] += theirs[colour::2, -1]
        field *= mine
        rng.random(out=chance, dtype=np.float32)
        turned = (field <= 0) | ((field == 2) & (chance < three)) | ((field == 4) & (chance < four))
        mine *= 1 - 2 * turned.view(np.int8)


def ising(quick: bool) -> list[Row]:
    """The Ising model in two dimensions: Metropolis on a checkerboard of a large lattice at the critical temperature."""
    length, rounds, sweeps = (256, 2, 2) if quick else (2048, 15, 10)
    beta = math.log(1 + math.sqrt(2)) / 2
    packed = PackedIsing((length, length))
    state = packed.start(seed=0)  # the copy that a pure sweep makes is in the time; ten sweeps share it
    spins = (2 * np.random.default_rng(0).integers(0, 2, (2, length, length // 2)) - 1).astype(np.int8)
    rng, room = np.random.default_rng(1), np.empty((length, length // 2), np.float32)
    ours, theirs = alternating(
        lambda: packed.sweep(state, beta, sweeps), lambda: checkerboard_numpy(spins, beta, rng, room), rounds
    )
    ours /= sweeps
    row = Row(
        f"Ising model, {length} x {length}, a checkerboard sweep, a random number for every spin",
        f"{1e3 * theirs:.1f} ms (NumPy, int8, float32 random numbers)",
        f"{1e3 * ours:.2f} ms, {1e9 * ours / length**2:.3f} ns a spin (64 spins in a word, {torch.get_num_threads()} threads)",
        f"{theirs / ours:.0f}",
        ">= 20 times as fast",
        theirs >= 20 * ours,
    )
    return [row]


def random_graph(num_nodes: int, num_edges: int, seed: int) -> torch.Tensor:
    """(E, 2) different edges with equal probability, as the graphs of the G-set that carry no structure."""
    upper = torch.triu_indices(num_nodes, num_nodes, 1).T
    chosen = torch.randperm(len(upper), generator=torch.Generator().manual_seed(seed))[:num_edges]
    return upper[chosen]


def annealing(quick: bool) -> list[Row]:
    """Max-cut of graphs as large as the G-set's first ones, beside dwave-samplers, in the time that it takes."""
    num_nodes, num_edges, trials = (60, 300, 2) if quick else (800, 19_176, 10)
    work = ((20, 500),) if quick else ((1, 1000), (10, 1000))
    what = f"max-cut, {num_nodes} nodes, {num_edges:,} edges of weight 1"
    try:
        import dimod
        from dwave.samplers import SimulatedAnnealingSampler
    except ModuleNotFoundError as missing:
        return [Row(what, f"not measured: {missing.name} is not installed", "-", "-", "-", None)]
    from recurra.memories.anneal import anneal
    from recurra.memories.systems import SparseSystem

    sampler, rows = SimulatedAnnealingSampler(), []
    for reads, sweeps in work:
        cuts, times = [], []
        for seed in range(trials):
            edges = random_graph(num_nodes, num_edges, seed)
            ends = edges.numpy().T
            model = dimod.BQM.from_numpy_vectors(np.zeros(num_nodes), (*ends, np.ones(num_edges)), 0.0, dimod.SPIN)
            sampler.sample(model, num_reads=1, num_sweeps=2, seed=1)
            begin = time.perf_counter()
            theirs = sampler.sample(model, num_reads=reads, num_sweeps=sweeps, seed=seed + 1)
            times.append(time.perf_counter() - begin)
            system = SparseSystem(num_nodes, edges, -torch.ones(num_edges, dtype=torch.float64))
            ours = anneal(system, seconds=times[-1], seed=seed, threads=1)
            cuts.append([(num_edges - float(energy)) / 2 for energy in (theirs.record.energy.min(), ours.energy)])
        wins = sum(ours >= theirs for theirs, ours in cuts)
        rows.append(
            Row(
                f"{what}, {trials} graphs, one thread",
                f"cut {np.mean([c[0] for c in cuts]):,.1f} in {statistics.median(times):.2f} s "
                f"(dwave-samplers, {reads} x {sweeps} sweeps)",
                f"cut {np.mean([c[1] for c in cuts]):,.1f} in the same time",
                f"{wins} of {trials}",
                f"as large or larger, {trials} of {trials}",
                wins == trials,
            )
        )
    return rows


def synchronous_recall(quick: bool) -> list[Row]:
    """Hebbian patterns, all units at once, until every cue stands still; 20 % of the bits of a cue are wrong."""
    from recurra.memories import SynchronousHopfield

    size, count, num_cues, rounds = (200, 10, 50, 2) if quick else (2000, 100, 1000, 15)
    memory, generator = SynchronousHopfield(size), torch.Generator().manual_seed(0)
    patterns = memory.draw(count, generator)
    state = memory.write(memory.empty(), patterns)
    chosen = patterns[torch.randint(0, count, (num_cues,), generator=generator)]
    cues = torch.where(torch.rand(chosen.shape, generator=generator) < 0.2, -chosen, chosen)
    weights, starts = (state.couplings / size).numpy(), cues.numpy()

    def product() -> np.ndarray:
        now = starts
        while True:
            new = np.sign(now @ weights)
            if np.array_equal(new, now):
                return new
            now = new

    same = np.array_equal(product(), memory.read(state, cues).value.numpy())
    if not same:
        raise AssertionError("synchronous_recall: both must recall the same.")
    ours, theirs = alternating(lambda: memory.read(state, cues), product, rounds, pause_s=0.1)
    what = f"Hopfield synchronous recall, N = {size:,}, {count} patterns, {num_cues:,} cues to convergence"
    mine = f"{1e3 * ours:.1f} ms ({torch.get_num_threads()} threads)"
    rows = [
        Row(
            what,
            f"{1e3 * theirs:.0f} ms (NumPy, float32 product and sign)",
            mine,
            f"{theirs / ours:.1f}",
            ">= 4 times as fast",
            theirs >= 4 * ours,
        )
    ]
    try:
        from hopfieldnetwork import HopfieldNetwork
    except ModuleNotFoundError as missing:
        return [
            *rows,
            Row(what, f"not measured: {missing.name} is not installed", mine, "-", ">= 50 times as fast", None),
        ]
    net = HopfieldNetwork(N=size)
    net.w, asked = (state.couplings.double() / size).numpy(), min(20, num_cues)
    begin = time.perf_counter()
    for row in range(asked):
        net.set_initial_neurons_state(starts[row].astype(np.int64))
        net.update_neurons(iterations=0, mode="sync", run_max=True)
        if not np.array_equal(net.S, memory.read(state, cues[row : row + 1]).value[0].numpy()):
            raise AssertionError("synchronous_recall: both must recall the same.")
    seconds = (time.perf_counter() - begin) / asked * num_cues
    other = f"{seconds:.1f} s (hopfieldnetwork, {asked} cues, one after the other as it does, scaled to all)"
    return [*rows, Row(what, other, mine, f"{seconds / ours:.0f}", ">= 50 times as fast", seconds >= 50 * ours)]


def asynchronous_updates(quick: bool) -> list[Row]:
    """What a change of a unit costs, over N; 2 N^2 for all fields anew would have the exponent 2."""
    from recurra.memories import Hopfield
    from recurra.memories.updates import relax

    sizes = (100, 200, 400) if quick else (7500, 10_000, 14_000, 20_000)
    costs = []
    for size in sizes:
        memory, generator = Hopfield(size), torch.Generator().manual_seed(0)
        state = memory.write(memory.empty(), memory.draw(size // 10, generator))
        starts = memory.draw(8, generator).to(torch.int8)
        fields = memory.fields(state, starts).double()
        found = []
        for _ in range(2 if quick else 5):
            steps, still = torch.zeros(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
            room, order = torch.zeros(8, 0, dtype=torch.int64), torch.arange(size)
            begin = time.thread_time()
            relax(state.couplings, order, fields.clone(), starts.clone(), steps, still, room, 1000)
            found.append((time.thread_time() - begin) / int(steps.sum()))
        costs.append(min(found))
    logs = np.log(np.array([sizes, costs]))
    exponent = float(np.polyfit(logs[0], logs[1], 1)[0])
    each = ", ".join(f"{1e6 * cost:.2f}" for cost in costs)
    return [
        Row(
            f"Hopfield asynchronous updates, random starts, N = {', '.join(f'{n:,}' for n in sizes)}",
            "-",
            f"{each} us a change of a unit, questions to all units in it; fit: N^{exponent:.2f}",
            "-",
            "exponent <= 1.25",
            exponent <= 1.25,
        )
    ]


ROWS: tuple[Callable[[bool], list[Row]], ...] = (
    annealing,
    asynchronous_updates,
    ising,
    modern_hopfield,
    synchronous_recall,
)


def run(*, quick: bool = False) -> Section:
    """Every row."""
    rows = [row for measure in ROWS for row in measure(quick)]
    missed = [row.what for row in rows if row.reached is False]
    notes = [
        "Both columns are measured in one process, called in turn; the median of rounds.",
        "Missed: " + "; ".join(missed) + "." if missed else "All targets are reached.",
    ]
    return Section(
        "Memories and spin systems", ("what", "beside", "ours", "ratio", "to reach"), [row[:5] for row in rows], notes
    )
