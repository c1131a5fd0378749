"""``Native()`` against torch's layers, JAX, eager loops: times, memory, streams, building."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells import ClockworkCell, ElmanCell, GRUCell, IndRNNCell, LSTMCell, MGUCell
from recurra.core import Cell, Engine
from recurra.engines import Loop, Native
from recurra.layers import Session
from recurra.wrappers import Residual, Stack

from .section import Section


class Shape(NamedTuple):
    """T, B, D, H."""

    num_steps: int
    batch_size: int
    input_size: int
    hidden_size: int

    def __str__(self) -> str:
        return f"({self.num_steps}, {self.batch_size}, {self.input_size}, {self.hidden_size})"


FULL = (
    Shape(100, 1, 32, 64),
    Shape(100, 32, 64, 128),
    Shape(100, 32, 256, 256),
    Shape(200, 64, 512, 512),
    Shape(1000, 1, 64, 256),
    Shape(784, 64, 1, 128),
)
QUICK = (Shape(20, 1, 8, 16), Shape(10, 9, 4, 20))
EAGER = (Shape(100, 1, 32, 64), Shape(100, 32, 64, 128))
EAGER_QUICK = (Shape(10, 1, 8, 16), Shape(10, 9, 4, 16))


class Normed(Cell[Tensor, Tensor, tuple[Tensor, Tensor]]):
    """An LSTM with peepholes whose gates' sums are normalised; written here, known to no engine."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.linear = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.norm = nn.LayerNorm(4 * hidden_size)
        self.peep = nn.Parameter(torch.zeros(3, hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Normed]:
        """One."""
        yield cls(3, 4)

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.initial("h", batch_size, self.hidden_size), self.initial("c", batch_size, self.hidden_size)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Gates see the cell."""
        h, c = state
        i, f, g, o = (self.linear(x) + self.norm(self.recurrent(h))).chunk(4, -1)
        i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
        return h, (h, c)


class Invented(Cell[Tensor, Tensor, tuple[Tensor, Tensor]]):
    """A cell that nobody has published: a softmax decides how much of two memories is written."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.linear = nn.Linear(input_size + hidden_size, 3 * hidden_size)
        self.share = nn.Linear(hidden_size, 2)

    @classmethod
    def examples(cls) -> Iterator[Invented]:
        """One."""
        yield cls(3, 4)

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return self.initial("a", batch_size, self.hidden_size), self.initial("b", batch_size, self.hidden_size)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Two leaky memories."""
        a, b = state
        u, v, w = self.linear(torch.cat([x, a * b], -1)).chunk(3, -1)
        share = torch.softmax(self.share(a - b), -1)
        a = a + share[:, :1] * (torch.tanh(u) - a)
        b = b + share[:, 1:] * (F.softplus(v).clamp(max=3.0) - b)
        return torch.sigmoid(w) * (a + b), (a, b)


def _stack(input_size: int, hidden_size: int) -> Cell:
    return Stack(ElmanCell(input_size, hidden_size), Residual(GRUCell(hidden_size, hidden_size)))


CUSTOM: dict[str, Callable[[int, int], Cell]] = {
    "peephole LSTM": lambda d, h: LSTMCell(d, h, peephole=True),
    "with layer norm": Normed,
    "IndRNN": IndRNNCell,
    "MGU": MGUCell,
    "clockwork": lambda d, h: ClockworkCell(d, h, periods=(1, 2, 4, 8)),
    "residual stack": _stack,
    "invented here": Invented,
}


# --- measuring ---


Found = tuple[list[tuple[str, ...]], list[str]]
"""Rows, and sentences on what is missed."""


class Ratio(NamedTuple):
    """How many times faster, the median of rounds, with its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def interleaved(functions: Mapping[str, Callable[[], Any]], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Seconds of every function in every round, all in turn; at least ``rounds`` rounds, more while time is left."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
        function()
    until = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < rounds or (
        time.perf_counter() < until and len(next(iter(times.values()))) < 25 * rounds
    ):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - begin)
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Median of the rounds' ratios, and the interval of the median by resampling the rounds."""
    each = [t / o for o, t in zip(ours, theirs, strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(each, k=len(each))) for _ in range(1000))
    return Ratio(statistics.median(each), medians[25], medians[974])


def geometric(ratios: Sequence[Ratio]) -> float:
    """Geometric mean of the medians."""
    return math.exp(statistics.mean(math.log(r.median) for r in ratios))


def passes(run: Callable[[Tensor], Tensor], xs: Tensor, parameters: Sequence[Tensor], train: bool) -> Callable[[], Any]:
    """One pass forward, and backward to the parameters if ``train``."""
    if not train:

        def forward() -> Any:
            with torch.no_grad():
                return run(xs)

        return forward
    seed = torch.randn_like(run(xs))
    return lambda: torch.autograd.grad(run(xs), parameters, seed)


def _jax_passes(kind: str, shape: Shape, train: bool) -> Callable[[], Any]:
    """`jit(lax.scan)` of the same cell; the input's product is hoisted, as its users write it."""
    import jax
    import jax.numpy as jnp

    t, b, d, h = shape
    gates = {"LSTM": 4, "GRU": 3}[kind]
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    weights = (
        jax.random.normal(keys[0], (d, gates * h)) / d**0.5,
        jax.random.normal(keys[1], (h, gates * h)) / h**0.5,
        jnp.zeros(gates * h),
        jnp.zeros(gates * h),
    )
    xs, seed = jax.random.normal(keys[2], (t, b, d)), jax.random.normal(keys[3], (t, b, h))

    def lstm(weights: Any, state: Any, z: Any) -> Any:
        hidden, cell = state
        i, f, g, o = jnp.split(z + hidden @ weights[1] + weights[3], 4, -1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    def gru(weights: Any, state: Any, z: Any) -> Any:
        (hidden,) = state
        xr, xz, xn = jnp.split(z, 3, -1)
        hr, hz, hn = jnp.split(hidden @ weights[1] + weights[3], 3, -1)
        r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        hidden = (1 - u) * jnp.tanh(xn + r * hn) + u * hidden
        return (hidden,), hidden

    step, count = {"LSTM": (lstm, 2), "GRU": (gru, 1)}[kind]

    def run(weights: Any) -> Any:
        start = tuple(jnp.zeros((b, h)) for _ in range(count))
        return jax.lax.scan(lambda s, z: step(weights, s, z), start, xs @ weights[0] + weights[2])[1]

    made = jax.jit(jax.grad(lambda w: (run(w) * seed).sum())) if train else jax.jit(run)
    return lambda: jax.block_until_ready(made(weights))


# --- the parts ---

_CELLS: dict[str, tuple[Callable[[int, int], Cell], Callable[[int, int], nn.Module]]] = {
    "LSTM": (LSTMCell, nn.LSTM),
    "GRU": (GRUCell, nn.GRU),
}


def against_layers(shapes: Sequence[Shape], seconds: float, rounds: int) -> Found:
    """Rows for LSTM and GRU, and sentences on what is missed."""
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    jax = importlib.util.find_spec("jax") is not None
    bars = {
        ("LSTM", True): (1.35, 0.97),
        ("LSTM", False): (1.35, 0.97),
        ("GRU", True): (3.0, 1.2),
        ("GRU", False): (2.0, 1.2),
    }
    special = {("LSTM", True): 1.9, ("LSTM", False): 2.5}
    for kind, (ours, theirs) in _CELLS.items():
        for train in (True, False):
            mode, found = "training" if train else "inference", []
            mean, least = bars[kind, train]
            for shape in shapes:
                t, b, d, h = shape
                torch.manual_seed(0)
                cell, layer, xs = ours(d, h), theirs(d, h), torch.randn(t, b, d)
                functions: dict[str, Callable[[], Any]] = {
                    "ours": passes(_through(Native(), cell), xs, list(cell.parameters()), train),
                    "torch": passes(_layer(layer), xs, list(layer.parameters()), train),
                }
                if jax:
                    functions["jax"] = _jax_passes(kind, shape, train)
                times = interleaved(functions, seconds, rounds)
                here = ratio(times["ours"], times["torch"])
                found.append(here)
                beside = ratio(times["ours"], times["jax"]) if jax else None
                rows.append(
                    (f"{kind}, {mode}", str(shape), f"{1e3 * statistics.median(times['ours']):.2f}", f"{here} x nn.{kind}",
                     f"{beside} x JAX" if beside else "")
                )  # fmt: skip
                if here.low < least:
                    missed.append(f"{kind} {mode} {shape}: {here} x nn.{kind}, to reach {least}")
                if b == 1 and t == 100 and here.low < special.get((kind, train), 0):
                    missed.append(f"{kind} {mode} {shape}: {here} x nn.{kind}, to reach {special[kind, train]}")
                if beside and beside.low < 1.3:
                    missed.append(f"{kind} {mode} {shape}: {beside} x JAX, to reach 1.3")
            overall = geometric(found)
            rows.append((f"{kind}, {mode}", "geometric mean", "", f"{overall:.2f} x nn.{kind} (target >= {mean})", ""))
            if overall < mean:
                missed.append(f"{kind} {mode}, geometric mean: {overall:.2f} x nn.{kind}, to reach {mean}")
    return rows, missed


def against_loops(shapes: Sequence[Shape], seconds: float, rounds: int) -> Found:
    """Rows for cells that no vendor has, against their own steps in torch."""
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    for name, kind in CUSTOM.items():
        for shape in shapes:
            t, b, d, h = shape
            for train in (True, False):
                torch.manual_seed(0)
                cell, xs = kind(d, h), torch.randn(t, b, d)
                functions: dict[str, Callable[[], Any]] = {
                    engine: passes(_through(e, cell), xs, list(cell.parameters()), train)
                    for engine, e in (("ours", Native()), ("loop", Loop()))
                }
                times = interleaved(functions, seconds, rounds)
                here, mode = ratio(times["ours"], times["loop"]), "training" if train else "inference"
                bar = (12.0 if train else 10.0) if b == 1 else 2.0
                rows.append(
                    (f"{name}, {mode}", str(shape), f"{1e3 * statistics.median(times['ours']):.2f}",
                     f"{here} x a loop in torch (target >= {bar:g})", "")
                )  # fmt: skip
                if here.low < bar:
                    missed.append(f"{name} {mode} {shape}: {here} x a loop in torch, to reach {bar:g}")
    return rows, missed


def streams(quick: bool) -> Found:
    """Rows for single steps."""
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    for size, bar in ((64, 2.5), (256, None)):
        torch.manual_seed(0)
        cell, layer, single = LSTMCell(size, size), nn.LSTM(size, size), nn.LSTMCell(size, size)
        session = Session(cell)
        x, out = torch.randn(1, size), torch.empty(1, size)
        hidden = torch.zeros(1, 1, size), torch.zeros(1, 1, size)
        pair = hidden[0][0], hidden[1][0]
        count = 20 if quick else 300

        def many(step: Callable[[], Any], count: int = count) -> Callable[[], Any]:
            def run() -> None:
                with torch.no_grad():
                    for _ in range(count):
                        step()

            return run

        functions = {
            "ours": many(lambda: session.step(x, out)),  # noqa: B023
            "nn.LSTM": many(lambda: layer(x[None], hidden)),  # noqa: B023
            "nn.LSTMCell": many(lambda: single(x, pair)),  # noqa: B023
        }
        times = interleaved(functions, 2.0, 3 if quick else 20)
        each = {name: 1e6 * statistics.median(values) / count for name, values in times.items()}
        against = ratio(times["ours"], times["nn.LSTM"])
        target = f"target <= {bar} microseconds" if bar else "target >= 10"
        rows.append(
            (f"one LSTM step, B = 1, H = {size}", f"{each['ours']:.2f} microseconds", f"{each['ours'] / 1e3:.4f}",
             f"{against} x nn.LSTM ({target})", f"nn.LSTM {each['nn.LSTM']:.0f}, nn.LSTMCell {each['nn.LSTMCell']:.0f}")
        )  # fmt: skip
        if bar and each["ours"] > bar:
            missed.append(f"one LSTM step, H = {size}: {each['ours']:.2f} microseconds, to reach {bar}")
        if not bar and against.low < 10:
            missed.append(f"one LSTM step, H = {size}: {against} x nn.LSTM, to reach 10")
    number, size = (100, 16) if quick else (10_000, 64)
    cell = LSTMCell(size, size)
    session = Session(cell, number)
    x, out = torch.randn(number, size), torch.empty(number, size)
    big = 256 if quick else 2048
    a, b = torch.randn(big, big), torch.randn(big, big)
    times = interleaved({"ours": lambda: session.step(x, out), "mkl": lambda: a @ b}, 3.0, 3 if quick else 20)
    rate = 2 * number * 8 * size * size / statistics.median(times["ours"])
    best = 2 * big**3 / min(times["mkl"])
    rows.append(
        (f"{number:,} LSTM streams, H = {size}", "one step of all", f"{1e3 * statistics.median(times['ours']):.2f}",
         f"{rate / 1e9:.0f} GF/s, {rate / best:.2f} of the best sgemm (target >= 0.6)", f"sgemm {best / 1e9:.0f} GF/s")
    )  # fmt: skip
    if rate / best < 0.6:
        missed.append(f"{number:,} streams: {rate / best:.2f} of the best sgemm, to reach 0.6")
    return rows, missed


def _products(xs: Tensor, size: int, train: bool) -> None:
    """The matrix products of an LSTM, and nothing else."""
    num_steps, rows, width = xs.shape
    with torch.no_grad():
        into, recurrent = torch.ones(width, 4 * size), torch.ones(size, 4 * size)
        flat, hidden, gates = xs.reshape(-1, width), torch.ones(rows, size), torch.ones(rows, 4 * size)
        all_gates = torch.mm(flat, into)
        for _ in range(num_steps):
            torch.mm(hidden, recurrent)
        if train:
            back, all_hidden = recurrent.t().contiguous(), torch.ones(num_steps * rows, size)
            for _ in range(num_steps):
                torch.mm(gates, back)
            torch.mm(all_gates.t(), all_hidden)
            torch.mm(all_gates.t(), flat)


def _through(engine: Engine, cell: Cell) -> Callable[[Tensor], Tensor]:
    return lambda xs: engine(cell, xs)[0]


def _layer(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda xs: layer(xs)[0]


def matrix_rate(shapes: Sequence[Shape], seconds: float, rounds: int) -> Found:
    """The LSTM's whole loop against torch's own products alone, step by step, of the same sizes."""
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    for shape in shapes:
        t, b, d, h = shape
        if b < 8:
            continue
        torch.manual_seed(0)
        cell, xs = LSTMCell(d, h), torch.randn(t, b, d)
        for train, bar in ((True, 1.1), (False, 1.3)):
            functions: dict[str, Callable[[], Any]] = {
                "ours": passes(_through(Native(), cell), xs, list(cell.parameters()), train),
                "products": partial(_products, xs, h, train),
            }
            times = interleaved(functions, seconds, rounds)
            here, mode = ratio(times["ours"], times["products"]), "training" if train else "inference"
            rows.append(
                (f"matrix rate, LSTM, {mode}", str(shape), f"{1e3 * statistics.median(times['ours']):.2f}",
                 f"{here} x MKL's products alone (target >= {bar})", "")
            )  # fmt: skip
            if here.low < bar:
                missed.append(f"matrix rate {mode} {shape}: {here} x, to reach {bar}")
    return rows, missed


_MEMORY = """
import sys, torch
from pathlib import Path
from recurra.cells import LSTMCell
from recurra.engines import Native
def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024
which, t, b, d, h = sys.argv[1], *map(int, sys.argv[2:])
cell, layer = LSTMCell(d, h), torch.nn.LSTM(d, h)
run = (lambda x: Native()(cell, x)[0]) if which == "ours" else (lambda x: layer(x)[0])
weights = list((cell if which == "ours" else layer).parameters())
def once(t):
    xs = torch.zeros(t, b, d)
    torch.autograd.grad(run(xs).sum(), weights)
once(4); once(4)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
once(t)
print(status("VmHWM") - before)
"""


def memory(shape: Shape) -> Found:
    """Peak of training beyond what stood before, each in a new process."""
    sizes = {}
    for which in ("ours", "torch"):
        command = [sys.executable, "-c", _MEMORY, which, *map(str, shape)]
        folder = Path(__file__).resolve().parent.parent
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        sizes[which] = float(done.stdout)
    part = sizes["ours"] / max(sizes["torch"], 1e-9)
    row: tuple[str, ...] = ("peak memory, LSTM, training", str(shape), "", f"{part:.2f} of nn.LSTM's (target <= 0.6)",
           f"{sizes['ours']:.0f} against {sizes['torch']:.0f} MiB")  # fmt: skip
    return [row], [] if part <= 0.6 else [f"peak memory {shape}: {part:.2f} of nn.LSTM's, to reach 0.6"]


_BUILDING = """
import json, time, torch
from recurra.cells import LSTMCell, GRUCell
from recurra.engines.native import training_plan
def build(kind):
    cell = kind(64, 128)
    x, state = torch.randn(2, 64), cell.initial_state(2)
    begin = time.perf_counter(); plan = training_plan(cell, x, state)
    return time.perf_counter() - begin
found = {"first": build(LSTMCell), "second": build(GRUCell)}
from recurra.native import build as b
plan = training_plan(LSTMCell(64, 128), torch.randn(2, 64), LSTMCell(64, 128).initial_state(2))
b._LOADED.clear()
begin = time.perf_counter(); b.build(plan.text, tuple(plan.code.functions)); found["load"] = time.perf_counter() - begin
from recurra.native.trace import capture
print(json.dumps(found))
"""


def building(repeats: int) -> Found:
    """Seconds to build, each in a new process with an empty cache."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "RECURRA_CACHE": folder}
            here = Path(__file__).resolve().parent.parent
            done = subprocess.run(
                [sys.executable, "-c", _BUILDING], capture_output=True, text=True, check=True, env=env, cwd=here
            )
            for name, value in json.loads(done.stdout).items():
                found.setdefault(name, []).append(value)
    first, second, load = (statistics.median(found[name]) for name in ("first", "second", "load"))
    rows: list[tuple[str, ...]] = [
        ("building, LSTM, both ways", "new process, empty cache", f"{1e3 * first:.0f}", "target <= 1500 ms", ""),
        ("building, GRU, both ways", "torch's tracing warm", f"{1e3 * second:.0f}", "", ""),
        ("loading built code", "from disk", f"{1e3 * load:.1f}", "target <= 10 ms", ""),
    ]
    missed = [f"building: {first:.2f} s, to reach 1.5"] if first > 1.5 else []
    return rows, missed + ([f"loading: {1e3 * load:.1f} ms, to reach 10"] if load > 0.010 else [])


def run(quick: bool = False) -> Section:
    """Everything, interleaved, on all of torch's threads."""
    seconds, rounds = (0.1, 2) if quick else (4.0, 20)
    shapes, eager = (QUICK, EAGER_QUICK) if quick else (FULL, EAGER)
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    parts: list[Callable[[], Found]] = [
        lambda: against_layers(shapes, seconds, rounds),
        lambda: against_loops(eager, seconds / 2, rounds),
        lambda: matrix_rate(shapes, seconds / 2, rounds),
        lambda: streams(quick),
        lambda: memory(shapes[-1]),
        lambda: building(1 if quick else 5),
    ]
    for part in parts:
        new, short = part()
        rows += new
        missed += short
        for row in new:
            print(" | ".join(row), flush=True)
    notes = (
        f"float32, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}. Shapes are (T, B, D, H). A "
        f"ratio says how many times faster `Native()` is: the median over at least {rounds} rounds in one process, the rivals "
        "in turn in every round, with its 95 % interval (bootstrap of the rounds). Training is one pass forward and one "
        "backward to the parameters. A target holds when the interval's lower end does.",
        "No cell has a kernel of its own: all numbers are the generator's."
        + ("" if importlib.util.find_spec("jax") else " JAX is not installed here, so its column is empty."),
        "What the profile shows. One row and 100 steps: most of the time is spent in Python, autograd and torch's small "
        "products around the loop, not in it; JAX has no such frame. Inference with 256 and 512 units: both sides run near the "
        "rate of the matrix products; here a thread multiplies half of the rows at a time with weights that do not fit into "
        "its cache, and the hoisted products are torch's own, so little is left to win there. One stream with 256 units: the "
        "weights are read from beyond the core's cache at every step.",
        ("Missed: " + "; ".join(missed) + ".") if missed else "No target is missed.",
    )
    return Section("Native", ("what", "shape", "ms", "against", "beside"), rows, notes)
