"""``Checkpointed`` against ``Loop``: memory beyond inputs, outputs and their gradients, and time."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recurra.cells import LSTMCell
from recurra.core import Engine
from recurra.engines import Checkpointed, Hoisted, Loop

from .section import Section

MEMORY_TARGET = 1 / 20
TIME_TARGET = 1.6
ENGINES: dict[str, Engine] = {
    str(engine): engine for engine in (Loop(), Hoisted(), Checkpointed(), Checkpointed(engine=Loop()))
}


class Sizes(NamedTuple):
    """T, B, D, H of the task."""

    num_steps: int
    batch_size: int
    input_size: int
    hidden_size: int


FULL = Sizes(10_000, 32, 64, 64)
QUICK = Sizes(400, 8, 16, 16)


def problem(sizes: Sizes) -> tuple[LSTMCell, Tensor, Tensor]:
    """The cell, its inputs (which want a gradient) and the gradient of its outputs.

    One thread: a step is too small to share, and on a busy machine threads that wait for each other measure the others' work.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cell = LSTMCell(sizes.input_size, sizes.hidden_size)
    xs = torch.randn(sizes.num_steps, sizes.batch_size, sizes.input_size, requires_grad=True)
    return cell, xs, torch.randn(sizes.num_steps, sizes.batch_size, sizes.hidden_size)


def _status(field: str) -> int:
    """A memory field of this process, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"benchmarks: /proc/self/status must be Linux's, got no field {field}.")


def forward_backward(engine: Engine, cell: LSTMCell, xs: Tensor, gys: Tensor) -> None:
    """One pass forward and one back to the inputs and the parameters."""
    ys, _ = engine(cell, xs)
    torch.autograd.grad(ys, [xs, *cell.parameters()], gys)


def peak_beyond(name: str, sizes: Sizes) -> dict[str, float]:
    """Bytes that one forward and backward pass needs at its peak beyond xs, ys and their gradients.

    xs and the gradient of ys stand in memory before. The kernel's peak counter is set back before the forward pass, whose
    peak is taken less ys, and again before the backward pass, whose peak is taken less ys and the gradient of xs.
    """
    engine = ENGINES[name]
    small = problem(sizes._replace(num_steps=8))
    forward_backward(engine, *small)  # libraries, threads and the allocator's first pages are there before we count
    cell, xs, gys = problem(sizes)
    size_ys, size_gxs = 4 * gys.numel(), 4 * xs.numel()
    _reset_peak()
    before = _status("VmRSS")
    ys, _ = engine(cell, xs)
    forward = _status("VmHWM") - before - size_ys
    _reset_peak()
    found = torch.autograd.grad(ys, [xs, *cell.parameters()], gys)
    backward = _status("VmHWM") - before - size_ys - size_gxs
    checksum = float(sum(t.detach().double().square().sum() for t in (ys, *found)))
    return {"forward": forward, "backward": backward, "beyond": max(forward, backward), "checksum": checksum}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure_memory(name: str, sizes: Sizes) -> dict[str, float]:
    """`peak_beyond` in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.checkpointed", name, json.dumps(sizes)]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


class Times(NamedTuple):
    """Seconds by the clock and of the processor, one per round."""

    wall: list[float]
    cpu: list[float]


def measure_time(sizes: Sizes, num_rounds: int) -> dict[str, Times]:
    """A forward and backward pass with each engine in turn, in every round."""
    cell, xs, gys = problem(sizes)
    times = {name: Times([], []) for name in ENGINES}
    small = problem(sizes._replace(num_steps=8))
    for engine in ENGINES.values():
        forward_backward(engine, *small)
    for _ in range(num_rounds):
        for name, engine in ENGINES.items():
            wall, cpu = time.perf_counter(), time.process_time()
            forward_backward(engine, cell, xs, gys)
            times[name].cpu.append(time.process_time() - cpu)
            times[name].wall.append(time.perf_counter() - wall)
    return times


def ratio(mine: list[float], base: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(m / b for m, b in zip(mine, base, strict=True))


def run(quick: bool = False) -> Section:
    """Memory once per engine in a fresh interpreter; time interleaved in this one."""
    sizes = QUICK if quick else FULL
    memory = {name: measure_memory(name, sizes) for name in ENGINES}
    times = measure_time(sizes, 2 if quick else 7)
    base, ours = str(Loop()), str(Checkpointed())
    rows = []
    for name in ENGINES:
        beyond, (wall, cpu) = memory[name]["beyond"], times[name]
        rows.append(
            (
                f"`{name}`",
                f"{beyond / 2**20:.1f}",
                f"{beyond / memory[base]['beyond']:.4f}" + (f" (target <= {MEMORY_TARGET})" if name == ours else ""),
                f"{statistics.median(wall):.2f}",
                f"{ratio(wall, times[base].wall):.2f}" + (f" (target <= {TIME_TARGET})" if name == ours else ""),
                f"{statistics.median(cpu):.2f}",
                f"{ratio(cpu, times[base].cpu):.2f}",
            )
        )
    t, b, d, h = sizes
    same = max(abs(m["checksum"] / memory[base]["checksum"] - 1) for m in memory.values()) < 1e-5
    growth = [(n, measure_memory(ours, sizes._replace(num_steps=n))["beyond"] / 2**20) for n in (t // 4, t, 4 * t)]
    every = math.ceil(math.sqrt(t))
    notes = (
        f"LSTM, (T, B, D, H) = ({t}, {b}, {d}, {h}), float32, one forward and one backward pass with gradients of inputs and "
        "parameters, one thread. The outputs and gradients of all engines "
        + ("agree (sum of squares, 5 digits)." if same else "DIFFER."),
        "Memory: peak resident size (VmHWM) of a fresh process for each engine, less the size right before, which holds xs and "
        "the gradient of ys. The forward pass is taken less the bytes of ys, the backward pass less those of ys and of the "
        "gradient of xs; the larger of both is shown.",
        f"`Checkpointed()` keeps T / n states of 2 B H numbers and the graph of n = ceil(sqrt(T)) = {every} steps. It needs "
        + ", ".join(f"{mib:.1f} MiB at T = {n}" for n, mib in growth)
        + ": four times the steps should need twice the memory.",
        f"Time: medians of {len(times[base].wall)} rounds in one process, the engines in turn in every round; a ratio is the "
        "median of the rounds' ratios. The processor's time is shown beside the clock's, since other work on the machine "
        f"(load average {os.getloadavg()[0]:.1f}) slows the clock's only.",
    )
    columns = ("engine", "beyond, MiB", "of Loop", "time, s", "of Loop", "processor, s", "of Loop")
    return Section("Checkpointed against Loop", columns, rows, notes)


if __name__ == "__main__":
    print(json.dumps(peak_beyond(sys.argv[1], Sizes(*json.loads(sys.argv[2])))))
