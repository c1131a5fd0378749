"""Chung et al. 2014: polyphonic music by tanh, GRU and LSTM units with equally many weights."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cells import ElmanCell, GRUCell, LSTMCell
from ..core import BinaryCrossEntropy, Cell, Chunk, Claim, Experiment, Log
from ..datasets.folder import data_folder
from ..datasets.piano_rolls import PianoRolls, read_piano_rolls
from ..engines import Auto, Native
from ..learning import BPTT
from ..training import Progress, fit
from ..wrappers import Dropout, Readout
from .prediction import Stages

_KEYS = 88
_SETS = {"jsb": "JSB_Chorales", "nottingham": "Nottingham", "muse": "MuseData", "piano": "Piano_midi"}
_UNITS: dict[str, Callable[[int, int], Cell]] = {"tanh": ElmanCell, "gru": GRUCell, "lstm": LSTMCell}
_PUBLISHED = {
    "jsb": {"tanh": 9.10, "gru": 8.54, "lstm": 8.67},
    "nottingham": {"tanh": 3.13, "gru": 3.23, "lstm": 3.20},
    "muse": {"tanh": 6.23, "gru": 5.99, "lstm": 6.23},
    "piano": {"tanh": 9.03, "gru": 8.82, "lstm": 9.03},
}


class _Plan(NamedTuple):
    """How the nets of one set are trained."""

    num_epochs: int
    num_rows: int
    dropout: float
    rate: float = 1.0  # factor on both learning rates
    num_steps: int = 100  # of a stretch in training; a stretch begins with an empty state


_PLANS = {
    "jsb": _Plan(30, 4, 0.15),
    "nottingham": _Plan(120, 4, 0.05, 0.6, 200),
    "muse": _Plan(60, 8, 0.0, 1.0, 200),
    "piano": _Plan(15, 16, 0.1),
}


@dataclass(frozen=True)
class Chung2014Music(Experiment):
    """What is played next: on four collections of polyphonic music, three kinds of units with about 20 000 weights each.

    The net reads the 88 keys of a step and gives each key a probability for the next one. Numbers are nats per step, summed
    over the keys, averaged over all predicted steps of the test pieces; ``over_pieces`` is the mean of the pieces' own means.

    Args:
        tanh_size: H of the tanh units.
        gru_size: H of the gated recurrent units.
        lstm_size: H of the LSTM units.
        most_steps: no stretch in training has more steps.
        lr: Adam's learning rate for the gated units, falling in a line to zero.
        tanh_lr: the same for the tanh units.
        seed: of weights, order and dropout.
        stand_in: made-up pieces in place of the files, and one pass.
    Source:
        Chung, Gulcehre, Cho & Bengio 2014, "Empirical evaluation of gated recurrent neural networks on sequence modeling",
        arXiv:1412.3555, table 2 (numbers and settings from memory)
    Differs:
        Adam and dropout before and after the units in place of RMSProp and weight noise; stretches in place of whole pieces
        in training (the test reads whole pieces). The first step of a piece is not predicted. The best weights by the
        validation pieces are tested. One seed.
    """

    id: ClassVar[str] = "chung-2014-music"
    source: ClassVar[str] = "Chung, Gulcehre, Cho & Bengio 2014, arXiv:1412.3555"
    requires: ClassVar[tuple[str, ...]] = ("polyphonic-music",)
    claims: ClassVar[tuple[Claim, ...]] = (
        *(
            Claim(f"{name}_{unit}", bar, "lower", f"{bar:.2f}", "table 2, test", "from memory")
            for name, row in _PUBLISHED.items()
            for unit, bar in row.items()
        ),
        Claim("jsb_tanh_behind_gru", 0.0, "higher", "0.56", "table 2, test", "from memory"),
        Claim("muse_tanh_behind_gru", 0.0, "higher", "0.24", "table 2, test", "from memory"),
        Claim("jsb_frequencies", 9.1, "higher", "", "each key by its frequency alone, no net", control=True),
        Claim("nottingham_frequencies", 6.0, "higher", "", "each key by its frequency alone, no net", control=True),
    )

    tanh_size: int = 100
    gru_size: int = 46
    lstm_size: int = 36
    most_steps: int = 1000
    lr: float = 1e-2
    tanh_lr: float = 5e-3
    seed: int = 0
    stand_in: bool = False

    @classmethod
    def smoke(cls) -> Self:
        """Made-up pieces, one pass."""
        return cls(tanh_size=6, gru_size=4, lstm_size=3, most_steps=10, stand_in=True)

    def run(self, log: Log) -> Mapping[str, float]:
        """Twelve nets."""
        rolls = {name: self._rolls(file) for name, file in _SETS.items()}
        shares = {
            f"{name} {unit}": float(_PLANS[name].num_epochs * sum(len(p) for p in rolls[name].train))
            for name in _SETS
            for unit in _UNITS
        }
        stages = Stages(log, shares)
        metrics: dict[str, float] = {}
        curves: dict[str, list[float]] = {}
        for name, data in rolls.items():
            frequency = torch.cat(data.train).mean(0).clamp(1e-4, 1 - 1e-4)
            metrics[f"{name}_frequencies"] = _nats_of_frequencies(frequency, data.test)
            for unit in _UNITS:
                label = f"{name} {unit}"
                net, curves[label] = self._learned(unit, _PLANS[name], data, frequency, stages(label))
                metrics[f"{name}_{unit}"] = nats_per_step(net, data.test)
                metrics[f"{name}_{unit}_over_pieces"] = nats_per_step(net, data.test, over_pieces=True)
                metrics[f"{name}_{unit}_training"] = nats_per_step(net, data.train)
                metrics[f"weights_{unit}"] = sum(p.numel() for p in net.parameters())
            metrics[f"{name}_tanh_behind_gru"] = metrics[f"{name}_tanh"] - metrics[f"{name}_gru"]
        log.figure("validation", partial(_draw, curves=curves))
        return metrics

    def _rolls(self, file: str) -> PianoRolls:
        if not self.stand_in:
            return read_piano_rolls(data_folder("polyphonic-music") / f"{file}.mat")
        generator = torch.Generator().manual_seed(len(file))
        pieces = [(torch.rand(n, _KEYS, generator=generator) < 0.04).float() for n in (25, 40, 31, 18, 33, 12)]
        return PianoRolls(pieces[:4], pieces[4:5], pieces[5:])

    def _learned(
        self, unit: str, plan: _Plan, data: PianoRolls, frequency: Tensor, progress: Callable[[float], None]
    ) -> tuple[Cell, list[float]]:
        """A trained net with the weights that were best on the validation pieces, and the curve there."""
        torch.manual_seed(self.seed)
        size = {"tanh": self.tanh_size, "gru": self.gru_size, "lstm": self.lstm_size}[unit]
        net = Readout(Dropout(_UNITS[unit](_KEYS, size), plan.dropout, input_p=plan.dropout), _KEYS)
        with torch.no_grad():
            net.linear.bias.copy_(frequency.logit())
        num_epochs = 1 if self.stand_in else plan.num_epochs
        num_steps = min(plan.num_steps, self.most_steps)
        per_epoch = sum(1 for _ in _epoch(data.train, num_steps, plan.num_rows, seed=self.seed))
        total = num_epochs * per_epoch
        best, best_weights, curve = math.inf, copy.deepcopy(net.state_dict()), []

        def chunks() -> Iterator[Chunk]:
            for epoch in itertools.count():
                yield from _epoch(data.train, num_steps, plan.num_rows, seed=self.seed + epoch)

        def watch(update: Progress) -> None:
            nonlocal best, best_weights
            progress(update.num_steps / total)
            if update.num_steps % per_epoch == 0:
                curve.append(nats_per_step(net, data.valid))
                if curve[-1] < best:
                    best, best_weights = curve[-1], copy.deepcopy(net.state_dict())

        lr = plan.rate * (self.tanh_lr if unit == "tanh" else self.lr)
        fit(
            net,
            chunks(),
            BinaryCrossEntropy(),
            partial(torch.optim.Adam, lr=lr),
            rule=BPTT(engine=Native()),
            num_steps=total,
            clip_norm=1.0,
            lr_schedule=lambda n: 1 - n / total,
            on_step=watch,
        )
        net.load_state_dict(best_weights)
        return net, curve


def _epoch(pieces: list[Tensor], num_steps: int, num_rows: int, *, seed: int) -> Iterator[Chunk]:
    """Every piece cut into stretches, at other places in every epoch; short ones are filled up with steps of weight 0."""
    generator = torch.Generator().manual_seed(seed)
    starts: list[tuple[int, int]] = []
    for i, piece in enumerate(pieces):
        first = int(torch.randint(num_steps, (), generator=generator)) - num_steps
        places = [max(0, a) for a in range(first, len(piece) - 1, num_steps) if a + num_steps > 1]
        starts += [(i, a) for a in dict.fromkeys(places)]
    order = torch.randperm(len(starts), generator=generator).tolist()
    groups = [order[a : a + num_rows] for a in range(0, len(order), num_rows)]
    for group in groups:
        xs, targets = torch.zeros(2, num_steps, len(group), _KEYS)
        weights = torch.zeros(num_steps, len(group))
        for row, (i, a) in enumerate(starts[k] for k in group):
            part = pieces[i][a : a + num_steps + 1]
            n = len(part) - 1
            xs[:n, row], targets[:n, row], weights[:n, row] = part[:-1], part[1:], 1.0
        yield Chunk(xs, targets, weights)


@torch.no_grad()
def nats_per_step(net: Cell, pieces: list[Tensor], rows: int = 32, *, over_pieces: bool = False) -> float:
    """Summed cross-entropy of the keys, a mean over all predicted steps of whole pieces (or over the pieces' means)."""
    was = net.training
    net.eval()
    totals, counts = [], []
    ordered = sorted(pieces, key=len)
    for a in range(0, len(ordered), rows):
        group = ordered[a : a + rows]
        padded = torch.nn.utils.rnn.pad_sequence(group)
        ys, _ = Auto()(net, padded[:-1])  # causal: what stands behind a piece's end changes nothing before it
        each = F.binary_cross_entropy_with_logits(ys, padded[1:], reduction="none").sum(-1)
        ends = torch.tensor([len(p) - 1 for p in group])
        alive = torch.arange(len(padded) - 1)[:, None] < ends
        totals.append((each * alive).sum(0))
        counts.append(ends)
    net.train(was)
    total, count = torch.cat(totals), torch.cat(counts)
    return float((total / count).mean() if over_pieces else total.sum() / count.sum())


def _nats_of_frequencies(frequency: Tensor, pieces: list[Tensor]) -> float:
    steps = torch.cat([piece[1:] for piece in pieces])
    return float(F.binary_cross_entropy(frequency.expand_as(steps), steps, reduction="none").sum(-1).mean())


def _draw(figure: Any, curves: Mapping[str, list[float]]) -> None:
    """Nats per step on the validation pieces, one panel for each set."""
    for axis, name in zip(figure.subplots(1, len(_SETS)), _SETS):
        for unit in _UNITS:
            axis.plot(range(1, len(curves[f"{name} {unit}"]) + 1), curves[f"{name} {unit}"], label=unit)
        axis.set(title=name, xlabel="epoch")
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("nats per step, validation")
    figure.axes[0].legend(frameon=False)
