"""Li et al. 2018: units that see only themselves remember over a thousand steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..cells import ElmanCell, IndRNNCell
from ..core import Chunk, Claim, Experiment, Log, MeanSquaredError
from ..engines import Auto
from ..tasks.adding import CHANCE, adding_problem
from ..training import Progress, fit
from ..wrappers import Stack
from .digits import LastStep
from .prediction import Stages


@dataclass(frozen=True)
class Li2018IndRNN(Experiment):
    """Two numbers a thousand steps apart are added by rectified units, each with one recurrent weight below 2^(1/T).

    Args:
        hidden_size: H of both layers.
        lengths: T of the sequences, one stage of training after the other.
        num_updates: updates of each stage.
        batch_size: sequences in an update.
        lr: Adam's learning rate of the first stage; it falls to a third there, stays, and falls to nothing in the last.
        num_test: sequences of the test, of the last length.
        seed: of weights and sequences.
    Source:
        Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network (IndRNN)", CVPR, arXiv:1803.04831 (abstract
        read; settings and numbers from memory)
    Differs:
        Of the paper's experiments only the adding problem, at T = 1000. The sequences grow from 100 steps to 1000 in
        training; the bound on the weights is that of 1000 from the beginning. The first layer begins without recurrence.
        One seed. The net without the bound's cell, two layers of tanh units, is trained in the same way.
    """

    id: ClassVar[str] = "li-2018-indrnn"
    source: ClassVar[str] = "Li, Li, Cook, Zhu & Gao 2018, CVPR, arXiv:1803.04831"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("adding_mse", 1e-3, "lower", "solved up to T = 5000", "adding problem, T = 1000", "from memory"),
        Claim("largest_growth", 2.0 + 1e-4, "lower", "2", "|dh_T / dh_0| of a unit, bound |u| <= 2^(1/T)", "theorem"),
        Claim("adding_mse_tanh", 0.1, "higher", "0.167", "adding problem, tanh units", "from memory", control=True),
    )

    hidden_size: int = 32
    lengths: tuple[int, ...] = (100, 300, 1000)
    num_updates: tuple[int, ...] = (1200, 600, 1600)
    batch_size: int = 32
    lr: float = 4e-3
    num_test: int = 1000
    seed: int = 0

    @classmethod
    def smoke(cls) -> Self:
        """Short sequences, a few updates."""
        return cls(hidden_size=6, lengths=(5, 20), num_updates=(4, 4), batch_size=8, num_test=20)

    def run(self, log: Log) -> Mapping[str, float]:
        """Both nets, then the growth of what a unit of the trained one remembers."""
        stages = Stages(log, {"IndRNN": 0.9, "tanh": 0.1})
        size, span = self.hidden_size, self.lengths[-1]
        torch.manual_seed(self.seed)
        first = IndRNNCell(2, size, max_steps=span, recurrent_init="zeros")
        second = IndRNNCell(size, size, max_steps=span, recurrent_init="long", input_init="normal:0.01")
        net = LastStep(Stack(first, second), 1)
        curve = self._learn(net, stages("IndRNN"))
        plain = LastStep(Stack(ElmanCell(2, size), ElmanCell(size, size)), 1)
        plain_curve = self._learn(plain, stages("tanh"))
        log.figure("learning", partial(_draw, curves={"IndRNN": curve, "tanh": plain_curve}, starts=self._starts()))
        return {
            "adding_mse": self._mse(net),
            "adding_mse_tanh": self._mse(plain),
            "largest_growth": max(_largest_growth(cell, span) for cell in (first, second)),
            "largest_recurrent_weight": max(float(cell.weight_hh.detach().abs().max()) for cell in (first, second)),
            "weights": float(sum(p.numel() for p in net.parameters())),
        }

    def _starts(self) -> list[int]:
        return [sum(self.num_updates[:i]) for i in range(len(self.num_updates))]

    def _rate(self, update: int) -> float:
        """Factor on the learning rate: to a third in the first stage, level, then to a hundredth of that in the last."""
        starts, counts = self._starts(), self.num_updates
        if update < counts[0]:
            return (1 / 3) ** (update / counts[0])
        return (1 / 3) * 0.01 ** (max(0, update - starts[-1]) / counts[-1])

    def _learn(self, net: nn.Module, progress: Callable[[float], None]) -> list[float]:
        generator = torch.Generator().manual_seed(self.seed)
        total = sum(self.num_updates)

        def chunks() -> Iterator[Chunk]:
            for num_steps, count in zip(self.lengths, self.num_updates):
                for _ in range(count):
                    xs, targets = adding_problem(num_steps, self.batch_size, generator)
                    yield Chunk(xs, targets[None, :, None])

        def tell(update: Progress) -> None:
            progress(update.num_steps / total)

        optimizer = partial(torch.optim.Adam, lr=self.lr)
        return fit(
            net,
            chunks(),
            MeanSquaredError(),
            optimizer,
            num_steps=total,
            clip_norm=1.0,
            lr_schedule=self._rate,
            on_step=tell,
        ).losses

    @torch.no_grad()
    def _mse(self, net: nn.Module) -> float:
        generator = torch.Generator().manual_seed(self.seed + 1)
        total, done = 0.0, 0
        while done < self.num_test:
            count = min(100, self.num_test - done)
            xs, targets = adding_problem(self.lengths[-1], count, generator)
            total += float((net(xs)[0, :, 0] - targets).square().sum())
            done += count
        return total / done


def _largest_growth(cell: IndRNNCell, num_steps: int) -> float:
    """The largest derivative of a unit's last value by its first, over T steps without input, every unit being active."""
    state = cell.initial_state(1)
    start = torch.ones_like(state.h).requires_grad_()
    assert cell.bias is not None
    with torch.no_grad():
        bias = cell.bias.clone()
        cell.bias.fill_(1.0)  # keeps every unit that has u > 0 on the linear part of the rectifier
    try:
        ys, _ = Auto()(cell, torch.zeros(num_steps, 1, cell.input_size), type(state)(start))
        (growth,) = torch.autograd.grad(ys[-1].sum(), start)
    finally:
        with torch.no_grad():
            cell.bias.copy_(bias)
    return float(growth.abs().max())


def _draw(figure: Any, curves: Mapping[str, list[float]], starts: list[int]) -> None:
    """Error in training, averaged over 25 updates."""
    axis = figure.subplots()
    for label, losses in curves.items():
        values: Tensor = torch.tensor(losses)
        width = min(25, len(losses))
        means = values[: len(losses) // width * width].view(-1, width).mean(1)
        axis.semilogy(torch.arange(1, len(means) + 1) * width, means, label=label)
    axis.axhline(CHANCE, color="gray", linewidth=0.8, linestyle="--")
    for start in starts[1:]:
        axis.axvline(start, color="gray", linewidth=0.5)
    axis.set(xlabel="update", ylabel="mean squared error")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
