"""Many random cells, natively and step by step: the long run, which survives a crash of the machine code."""

from __future__ import annotations

import collections
import contextlib
import datetime
import math
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ..core import tree
from ..core.engine import Engine
from ..core.tree import Tree
from ..engines import Loop, Native
from ..engines.native import refusals
from .compare import difference, gap_between
from .generate import random_like, weighted
from .random_cells import Recipe, Sample, draw_recipe, sample

TOLERANCE = 1e-10
AGREES, UNDECIDED, DIFFERS = "agrees", "undecided", "differs"
PATIENCE_S = 120.0
BATCH = 250  # cells of one process, so that built code does not fill the memory


@dataclass(frozen=True)
class Verdict:
    """What came of one random cell.

    Args:
        status: AGREES, DIFFERS, or UNDECIDED where `Loop` itself, moved by a rounding error in what it is given or in its
            sums, gives numbers that differ about as much (by a twentieth at least).
        seen: what differed.
    """

    status: str
    seen: str = ""


def judge(recipe: Recipe, engine: Engine | None = None) -> Verdict:
    """Compare values, final states and all gradients of a random cell with `Loop`, to `TOLERANCE` in float64.

    Args:
        recipe: of the cell.
        engine: what is compared; None for `Native`, which may not hand the cell to another engine.
    """
    case = sample(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = _results(Loop(), case)
        found = _results(engine or Native(), case)
        seen = difference(found, wanted, TOLERANCE)
        if seen is None and engine is None and recipe.num_steps and recipe.rows:
            seen = next(iter(refusals(case.cell)), None)
        if seen is None:
            return Verdict(AGREES)
        enough = max(TOLERANCE / 4, _largest_gap(found, wanted) / 20)
        moved = [difference(_results(Loop(), case, shake=seed), wanted, enough) for seed in range(1, 6)]
    return Verdict(UNDECIDED if any(m is not None for m in moved) else DIFFERS, seen)


def _largest_gap(found: Tree, wanted: Tree) -> float:
    """How far two trees lie apart; infinite where only one is NaN."""
    if not tree.same_structure(found, wanted):
        return math.inf
    gaps = [gap_between(a, b) for a, b in tree.zip_leaves(found, wanted)]
    return max((math.inf if gap is None else gap for gap in gaps), default=0.0)


def _results(engine: Engine, case: Sample, shake: int = 0) -> Tree:
    """Outputs, last state and gradients; ``shake`` moves everything given, and every sum, by about one rounding error."""
    generator = torch.Generator().manual_seed(shake)
    rounding = _Rounding(generator) if shake else contextlib.nullcontext()

    def moved(leaf: Tensor) -> Tensor:
        if not shake or not leaf.is_floating_point():
            return leaf
        one, other = (torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for _ in range(2))
        return leaf * (1 + 4e-16 * one) + 1e-16 * other  # a zero moves too: rounding errors of what it is added to

    parameters = dict(case.cell.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(moved(p))

    def leaf(value: Tensor) -> Tensor:
        value = moved(value).detach()
        return value.requires_grad_() if value.is_floating_point() else value

    try:
        xs, state = tree.map(leaf, case.xs), tree.map(leaf, case.state)
        with rounding:
            ys, last = engine(case.cell, xs, state, case.controls)
        weights = random_like((ys, last), torch.Generator().manual_seed(7))
        total = weighted((ys, last), weights)
        sources = [v for v in tree.leaves((xs, state)) if v.requires_grad] + list(parameters.values())
        grads: tuple[Tensor | None, ...] = (None,) * len(sources)
        if total.requires_grad:
            with rounding:
                grads = torch.autograd.grad(total, sources, allow_unused=True)
        filled = tuple(torch.zeros_like(s) if g is None else g for s, g in zip(sources, grads))
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(before[name])
    return tree.map(lambda v: v.detach(), (ys, last)), filled


_SUMS = ("sum", "mean", "var", "mm", "addmm", "bmm", "baddbmm", "logsumexp", "softmax", "layer_norm", "norm", "cumsum")


class _Rounding(TorchDispatchMode):
    """What is added up is moved by a rounding error, and so is what comes out, as in another order of the terms."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(name in func.overloadpacket.__name__ for name in _SUMS):
            return func(*args, **(kwargs or {}))
        return tree_map(self._moved, func(*tree_map(self._moved, args), **(kwargs or {})))

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value * (1 + 4e-16 * torch.randn(value.shape, generator=self.generator, dtype=value.dtype))


@dataclass
class RandomReport:
    """The counts of a long run.

    Args:
        first: seed of the first cell.
        count: cells that were judged.
        statuses: how often each verdict was given.
        problems: (seed, what was seen) for every cell that differs, crashed or did not end.
        undecided: (seed, what was seen).
        seconds: of the run.
    """

    first: int
    count: int = 0
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    undecided: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        text = (
            f"{self.count} random cells (seeds {self.first} to {self.first + self.count - 1}): "
            f"{self.statuses[AGREES]} agree with Loop to {TOLERANCE:g} in values, final states and all gradients, "
            f"{self.statuses[UNDECIDED]} are undecided (one rounding error moves Loop itself further), "
            f"{len(self.problems)} differ; {self.seconds:.0f} s."
        )
        return "\n".join([text, *(f"seed {seed}: {seen}" for seed, seen in self.problems)])

    def add(self, seed: int, verdict: Verdict) -> None:
        """Take in what came of one cell."""
        self.statuses[verdict.status] += 1
        if verdict.status == UNDECIDED:
            self.undecided.append((seed, verdict.seen))
        elif verdict.status != AGREES:
            self.problems.append((seed, verdict.seen))

    def record(self) -> dict[str, Any]:
        """Plain values for a file; `recurra reproduce --page` shows them."""
        from ..experiments.run import machine, versions

        return {
            "format_version": 1,
            "kind": "check",
            "id": "random-cells",
            "title": "Random cells as machine code against the Python loop",
            "command": f"recurra check --random-cells {self.count} --seed {self.first}",
            "seconds": round(self.seconds, 1),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "lines": [
                ["random cells", self.count],
                [f"agree with `Loop` to {TOLERANCE:g}: values, final states, all gradients", self.statuses[AGREES]],
                ["undecided, since one rounding error moves `Loop` itself further", self.statuses[UNDECIDED]],
                ["differ, crash or do not end", len(self.problems)],
            ],
            "first": self.first,
            "undecided": [list(pair) for pair in self.undecided],
            "problems": [list(pair) for pair in self.problems],
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> RandomReport:
        """The counts that a record holds."""
        _, agree, undecided, _ = (number for _, number in record["lines"])
        problems = [(seed, seen) for seed, seen in record["problems"]]
        return cls(
            record["first"],
            record["lines"][0][1],
            collections.Counter({AGREES: agree, UNDECIDED: undecided, DIFFERS: len(problems)}),
            problems,
            [(seed, seen) for seed, seen in record["undecided"]],
            record["seconds"],
        )


def run_random(
    count: int,
    first: int = 0,
    on_cell: Callable[[RandomReport], None] | None = None,
    before: RandomReport | None = None,
    jobs: int = 1,
) -> RandomReport:
    """Judge random cells in other processes; a crash there is one more problem.

    Args:
        count: how many.
        first: seed of the first one.
        on_cell: told after each cell.
        before: a run that ended early; what agreed or was undecided is not judged again, what differed is.
        jobs: processes at a time.
    """
    report = RandomReport(first) if before is None or before.first != first else before
    began, following = time.monotonic() - report.seconds, first + report.count
    size = BATCH if jobs == 1 else BATCH // 5  # with several at a time, a batch is told of when it is whole
    batches = [range(a, min(a + size, first + count)) for a in range(following, first + count, size)]
    _ask_again(report)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for found in map(_judged, batches) if jobs == 1 else pool.map(lambda seeds: list(_judged(seeds)), batches):
                for seed, verdict in found:
                    report.count += 1
                    report.add(seed, verdict)
                    report.seconds = time.monotonic() - began
                    if on_cell is not None:
                        on_cell(report)
        finally:
            pool.shutdown(cancel_futures=True)
    return report


def _ask_again(report: RandomReport) -> None:
    """Judge the problems of an earlier run once more: they may be mended."""
    found = [pair for seed, _ in report.problems for pair in _judged(range(seed, seed + 1))]
    report.problems = []
    del report.statuses[DIFFERS]
    for seed, verdict in found:
        report.add(seed, verdict)


def _judged(seeds: range) -> Iterator[tuple[int, Verdict]]:
    """Verdicts of all seeds, in a new process after each crash."""
    following = seeds.start
    while following < seeds.stop:
        for seed, verdict in _from_a_process(range(following, seeds.stop)):
            following = seed + 1
            yield seed, verdict


def _from_a_process(seeds: range) -> Iterator[tuple[int, Verdict]]:
    """Verdicts of a new process; of the seed at which it crashed too, after which it ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as cache:
        worker = context.Process(target=_work, args=(there, seeds, cache), daemon=True)
        worker.start()
        there.close()
        seed = seeds.start
        try:
            while seed < seeds.stop:
                try:
                    text = here.recv() if here.poll(PATIENCE_S) else "did not end"
                except EOFError:
                    worker.join()
                    text = f"crashed with exit code {worker.exitcode}"
                if isinstance(text, str):
                    yield seed, Verdict(DIFFERS, text)
                    return
                yield seed, text
                seed += 1
        finally:
            worker.kill()
            worker.join()
            here.close()


def _work(there: Connection, seeds: Iterable[int], cache: str) -> None:
    os.environ["RECURRA_CACHE"] = cache
    torch.set_num_threads(1)
    for seed in seeds:
        try:
            verdict = judge(draw_recipe(seed))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            verdict = Verdict(DIFFERS, f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"[:500])
        there.send(verdict)
