"""The same nets and tasks, learned online by Kalman filters and by gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import BinaryCrossEntropy, Cell, Chunk, Claim, Controls, Experiment, Log, Loss, MeanSquaredError
from ..learning import EKF, RTRL, SGD, Adam, Anneal, Online, OnlineTrace
from ..tasks.adding import adding_problem
from ..tasks.reber import SYMBOLS, continual_reber, symbols_right
from ..wrappers import Readout
from .perez_ortiz_2003_kalman import net, reach, stream


class _Task(NamedTuple):
    """A stream and when it counts as learned.

    Args:
        net: from a seed.
        loss: of a step.
        stretch: the next part of the stream from a generator.
        per_stretch: how many sequences (for a stream without ends: hundreds of symbols) it has.
        learned: from the net, the stretch and what became of it: is it learned?
        unit: what is counted, in words.
    """

    net: Callable[[int], Readout]
    loss: Loss
    stretch: Callable[[torch.Generator], Chunk]
    per_stretch: int
    learned: Callable[[Cell, Chunk, OnlineTrace], bool]
    unit: str


def _letters(longest: int, hidden_size: int, every: int) -> _Task:
    """a^n b^n: learned when all n = 1 ... longest are right."""

    def draw(generator: torch.Generator) -> Chunk:
        return stream(torch.randint(1, longest + 1, (every,), generator=generator), 2)

    def learned(cell: Cell, chunk: Chunk, trace: OnlineTrace) -> bool:
        return reach(cell, longest, longest, 2) >= longest

    return _Task(lambda seed: net(3, hidden_size, 3, seed), BinaryCrossEntropy(), draw, every, learned, "strings")


def _sums(num_steps: int, hidden_size: int, every: int, bar: float) -> _Task:
    """Adding two marked numbers: learned when the mean squared error of a stretch is below the bar (1/6 for the mean)."""

    def draw(generator: torch.Generator) -> Chunk:
        sums = adding_problem(num_steps, every, generator)
        xs = sums.xs.transpose(0, 1).reshape(-1, 1, 2).double()
        last = torch.arange(num_steps * every) % num_steps == num_steps - 1
        targets = sums.targets.repeat_interleave(num_steps)[:, None, None].double()
        return Chunk(xs, targets, last[:, None].double(), Controls(reset=last.roll(1)[:, None]))

    def learned(cell: Cell, chunk: Chunk, trace: OnlineTrace) -> bool:
        return float(trace.losses.sum() / trace.weights.sum()) < bar

    return _Task(lambda seed: net(2, hidden_size, 1, seed), MeanSquaredError(), draw, every, learned, "sequences")


def _reber(hidden_size: int, num_symbols: int, bar: float) -> _Task:
    """Continual embedded Reber strings: learned when the share of symbols that are right in a stretch reaches the bar."""

    def draw(generator: torch.Generator) -> Chunk:
        made = continual_reber(num_symbols + 1, generator)
        symbols = made.symbols[: num_symbols + 1]
        xs = F.one_hot(symbols[:-1], len(SYMBOLS)).double()[:, None]
        return Chunk(xs, made.legal[:num_symbols, None].double())

    def learned(cell: Cell, chunk: Chunk, trace: OnlineTrace) -> bool:
        right: Tensor = symbols_right(trace.outputs, chunk.targets.bool())
        return float(right.double().mean()) >= bar

    size = len(SYMBOLS)
    loss, hundreds = BinaryCrossEntropy(), max(1, num_symbols // 100)
    return _Task(lambda seed: net(size, hidden_size, size, seed), loss, draw, hundreds, learned, "hundred symbols")


@dataclass(frozen=True)
class OptimizerAblationEkf(Experiment):
    """How many sequences a net has to see until it has learned, by the way it learns; everything else is the same.

    Three streams, one step of learning at each step, exact derivatives through time (real-time recurrent learning): the
    language a^n b^n, sums of two marked numbers, continual embedded Reber strings. A net that has not learned when its
    stream ends counts with the whole stream.

    Args:
        num_seeds: nets for each way and task.
        most: sequences (hundred symbols) at most, for each task.
        longest: n of a^n b^n at most.
        adding_steps: length of the sequences for sums.
        hidden_sizes: memory cells for each task.
        every: sequences between two tests.
        adding_bar: mean squared error below which sums count as learned.
        reber_bar: share of right symbols above which Reber strings count as learned.
        num_symbols: of a stretch of Reber strings.
        lr_sgd, lr_rmsprop, lr_adam: learning rates, the same for all tasks.
        tasks: which ones, of "anbn", "adding", "reber".
    Source:
        Perez-Ortiz, Gers, Eck & Schmidhuber 2003, Neural Networks 16(2):241-250 (abstract read; the comparison is our own)
    Differs:
        RMSProp is `Adam` without first moment (beta1 = 0), which corrects the start as Adam does. There is no Hessian-free
        optimiser here: it needs batches, and these nets learn online.
    """

    id: ClassVar[str] = "optimizer-ablation-ekf"
    source: ClassVar[str] = "Perez-Ortiz, Gers, Eck & Schmidhuber 2003, Neural Networks 16(2):241-250"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("anbn_ekf_against_sgd", 0.2, "lower", "EKF fewest sequences", "a^n b^n, mean over nets", "from memory"),
        Claim("anbn_ekf_rank", 1, "lower", "EKF fewest sequences", "place among the four ways", "from memory"),
        Claim("anbn_share_without_learning", 0.0, "lower", "", "nets whose weights stay as they are", control=True),
    )

    num_seeds: int = 3
    most: tuple[int, int, int] = (2000, 1000, 100)
    longest: int = 10
    adding_steps: int = 10
    hidden_sizes: tuple[int, int, int] = (2, 3, 5)
    every: int = 50
    adding_bar: float = 0.01
    reber_bar: float = 0.98
    num_symbols: int = 1000
    lr_sgd: float = 0.03
    lr_rmsprop: float = 0.003
    lr_adam: float = 0.003
    tasks: tuple[str, ...] = ("anbn", "adding")

    @classmethod
    def smoke(cls) -> Self:
        """One net and one test of each."""
        tasks = "anbn", "adding", "reber"
        return cls(num_seeds=1, most=(1, 1, 1), longest=2, adding_steps=4, every=1, num_symbols=12, tasks=tasks)

    def run(self, log: Log) -> Mapping[str, float]:
        """Every way on every task, and no learning at all on the first."""
        tasks = {
            "anbn": _letters(self.longest, self.hidden_sizes[0], self.every),
            "adding": _sums(self.adding_steps, self.hidden_sizes[1], self.every, self.adding_bar),
            "reber": _reber(self.hidden_sizes[2], self.num_symbols, self.reber_bar),
        }
        filters = EKF(p0=100.0, q=Anneal(1e-2, 1e-6, 40000, "geometric"), r=Anneal(10.0, 0.1, 10000, "geometric"))
        ways: dict[str, Callable[[Loss], Online]] = {
            "ekf": lambda loss: Online(filters, loss),
            "sgd": lambda loss: Online(RTRL(), loss, SGD(self.lr_sgd)),
            "rmsprop": lambda loss: Online(RTRL(), loss, Adam(self.lr_rmsprop, beta1=0.0)),
            "adam": lambda loss: Online(RTRL(), loss, Adam(self.lr_adam)),
        }
        needed: dict[str, dict[str, list[float]]] = {}
        found: dict[str, float] = {}
        for place, (name, most) in enumerate(zip(self.tasks, self.most)):
            task, needed[name] = tasks[name], {}
            for number, (way, online) in enumerate(ways.items()):
                log(f"{name}, {way}", (place + number / len(ways)) / len(self.tasks))
                seen = [self._learn(task, online(task.loss), seed, most) for seed in range(self.num_seeds)]
                needed[name][way] = [float(most if s is None else s) for s in seen]
                found[f"{name}_{way}"] = sum(needed[name][way]) / len(seen)
                found[f"{name}_{way}_learned"] = sum(s is not None for s in seen) / len(seen)
        still = partial(self._learn, tasks["anbn"], Online(RTRL(), tasks["anbn"].loss, SGD(0.0)))
        unlearned = [still(seed, self.every) for seed in range(self.num_seeds)]
        log("done", 1.0)
        log.figure("sequences", lambda figure: _draw(figure, needed, {name: tasks[name].unit for name in needed}))
        return {
            "anbn_ekf_against_sgd": found["anbn_ekf"] / found["anbn_sgd"],
            "anbn_ekf_rank": 1 + sum(found[f"anbn_{way}"] < found["anbn_ekf"] for way in ways),
            "anbn_share_without_learning": sum(s is not None for s in unlearned) / len(unlearned),
            **found,
        }

    def _learn(self, task: _Task, online: Online, seed: int, most: int) -> int | None:
        """How much of the stream a net has seen when it has learned; None if it never has."""
        cell, generator = task.net(seed), torch.Generator().manual_seed(seed)
        state = online.init(cell, 1)
        for seen in range(0, most, task.per_stretch):
            chunk = task.stretch(generator)
            state, trace = online.run(cell, state, chunk)
            if task.learned(cell, chunk, trace):
                return seen + task.per_stretch
        return None


def _draw(figure: Any, needed: Mapping[str, Mapping[str, list[float]]], units: Mapping[str, str]) -> None:
    """What each way needed on each task; a point for each net, a line at the mean."""
    axes = figure.subplots(1, len(needed), squeeze=False)[0]
    for axis, (task, ways) in zip(axes, needed.items()):
        for place, values in enumerate(ways.values()):
            axis.plot([place] * len(values), values, "o", ms=4, alpha=0.6, color=f"C{place}")
            axis.plot([place - 0.3, place + 0.3], [sum(values) / len(values)] * 2, color=f"C{place}")
        axis.set(yscale="log", ylabel=f"{units[task]} until it is learned")
        axis.set_xticks(range(len(ways)), list(ways), fontsize=8)
        axis.set_title(task, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
