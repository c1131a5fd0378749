"""Learning at every step of a stream: the native loop beside the readable one, whole training steps on one core."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from recurra.cells import FullyRecurrentCell, IndRNNCell, LSTM1997Cell, LSTMCell
from recurra.core import Cell, Chunk, MeanSquaredError
from recurra.engines import Native
from recurra.layers import Recurrent
from recurra.learning import EKF, RTRL, SGD, Adam, EProp, Online, Sum
from recurra.wrappers import Readout

from .section import Section


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        name: what is measured.
        make: the cell.
        online: how it learns.
        dtype: of all numbers.
        most_us: microseconds for a step, to reach; None for no bar.
        least_times: times as fast as the readable loop, to reach.
    """

    name: str
    make: Callable[[], Cell]
    online: Online
    dtype: torch.dtype = torch.float64
    most_us: float | None = None
    least_times: float | None = None


_LOSS = MeanSquaredError()


def _with_93_weights() -> Cell:
    return Readout(LSTM1997Cell(2, 4, block_size=2), 1)


CASES = (
    Case("truncated gradient, LSTM of 1997, 93 weights", _with_93_weights, Online(EProp(), _LOSS, SGD(0.01)),
         most_us=2.0, least_times=200),
    Case("the same with momentum", _with_93_weights, Online(EProp(), _LOSS, SGD(0.01, momentum=0.9))),
    Case("the same with Adam", _with_93_weights, Online(EProp(), _LOSS, Adam(0.001))),
    Case("exact RTRL of the same net", _with_93_weights, Online(RTRL(), _LOSS, SGD(0.01))),
    Case("full RTRL, 12 fully recurrent units, 2 inputs", lambda: FullyRecurrentCell(2, 12, outputs=(0,)),
         Online(RTRL(), _LOSS, SGD(0.1)), most_us=10.0, least_times=100),
    Case("decoupled EKF, LSTM, 60 weights", lambda: LSTMCell(1, 3), Online(EKF(groups="unit"), _LOSS), most_us=30.0),
)  # fmt: skip


def _chunk(cell: Cell, num_steps: int, dtype: torch.dtype) -> Chunk:
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(num_steps, 1, cell.input_size, generator=generator, dtype=dtype)
    return Chunk(xs, torch.rand(num_steps, 1, cell.output_size, generator=generator, dtype=dtype))


def _seconds(function: Callable[[], Any], rounds: int) -> float:
    """Median seconds of this thread, after two calls that do not count."""
    function()
    function()
    found = []
    for _ in range(rounds):
        begin = time.thread_time()
        function()
        found.append(time.thread_time() - begin)
    return statistics.median(found)


def _per_step(online: Online, cell: Cell, num_steps: int, dtype: torch.dtype, rounds: int) -> float:
    """Microseconds."""
    own = copy.deepcopy(cell)
    state, chunk = online.init(own, 1), _chunk(own, num_steps, dtype)
    before = [p.detach().clone() for p in own.parameters()]

    def once() -> None:
        with torch.no_grad():
            for p, value in zip(own.parameters(), before):
                p.copy_(value)
        online.run(own, state, chunk)

    return _seconds(once, rounds) / num_steps * 1e6


def _forward(cell: Cell, num_steps: int, rounds: int) -> float:
    """Microseconds of a native forward step."""
    layer, xs = Recurrent(cell, Native()), _chunk(cell, num_steps, cell.dtype).xs

    def once() -> None:
        with torch.no_grad():
            layer(xs)

    return _seconds(once, rounds) / num_steps * 1e6


def run(*, quick: bool = False) -> Section:
    """Whole training steps, and the influence of an IndRNN beside its forward step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(quick)
    finally:
        torch.set_num_threads(threads)


def _run(quick: bool) -> Section:
    steps, slow, rounds = (100, 5, 2) if quick else (5000, 40, 15)
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    for case in CASES:
        torch.manual_seed(0)
        cell = case.make().to(case.dtype)
        fast = _per_step(replace(case.online, native=True), cell, steps, case.dtype, rounds)
        readable = _per_step(replace(case.online, native=False), cell, slow, case.dtype, min(rounds, 5))
        wanted = []
        if case.most_us is not None:
            wanted.append(f"<= {case.most_us:g} us")
        if case.least_times is not None:
            wanted.append(f">= {case.least_times:g} x")
        kind = str(case.dtype).removeprefix("torch.")
        rows.append(
            (f"{case.name}, {kind}", f"{readable:.0f}", f"{fast:.2f}", f"{readable / fast:.0f} x", ", ".join(wanted))
        )
        slower = case.most_us is not None and fast > case.most_us
        if slower or (case.least_times is not None and readable / fast < case.least_times):
            missed.append(f"{case.name}: {fast:.2f} us, {readable / fast:.0f} x, to reach {', '.join(wanted)}.")
    size = 16 if quick else 128
    torch.manual_seed(0)
    cell = IndRNNCell(size, size)
    forward = _forward(cell, steps, rounds)
    name = f"exact RTRL, IndRNN, D = H = {size}, float32"
    for update, what, bar in (
        (SGD(0.0), "the influence alone", 3.0),
        (Sum(), "and the gradient added up", None),
    ):
        online = Online(RTRL(), _LOSS, update)
        fast = _per_step(replace(online, native=True), cell, steps, torch.float32, rounds)
        readable = _per_step(replace(online, native=False), cell, slow, torch.float32, min(rounds, 5))
        wanted_text = "" if bar is None else f"<= {bar:g} forward steps of {forward:.2f} us"
        rows.append((f"{name}: {what}", f"{readable:.0f}", f"{fast:.2f}", f"{readable / fast:.0f} x", wanted_text))
        if bar is not None and fast > bar * forward:
            missed.append(f"{name}, {what}: {fast / forward:.1f} forward steps, to reach {bar:g}.")
    notes = [
        "One row of a batch, one thread; microseconds of the processor for a whole step of learning (cell, loss, rule, "
        "update), the median of rounds. Both columns are `Online.run` on the same cell and stream, without and with machine "
        "code; they agree to 1e-10 in float64 (`tests/test_online_native.py`).",
        "The influence alone: the update has a learning rate of 0, so no gradient is computed and no parameter changes.",
        "Missed: " + " ".join(missed) if missed else "All targets are reached.",
    ]
    return Section(
        "Learning at every step",
        ("what", "readable, us", "native, us", "times", "to reach"),
        rows,
        notes,
    )
