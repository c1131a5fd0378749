"""Li et al. 2018: units that see only themselves remember over a thousand steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import ElmanCell, EmbeddingCell, IndRNNCell, LayerNormCell, LSTMCell
from ..core import Cell, Chunk, Claim, CrossEntropy, Experiment, Log, MeanSquaredError
from ..datasets.folder import data_folder
from ..engines import Auto, Native
from ..learning import TruncatedBPTT
from ..tasks.adding import CHANCE, adding_problem
from ..training import Progress, TokenStream, fit
from ..wrappers import Readout, Residual, Stack
from .digits import LastStep, Recipe, accuracy, digits, learn, num_parameters, pixels
from .prediction import Stages


@dataclass(frozen=True)
class Li2018IndRNN(Experiment):
    """Units that see only themselves, each with one recurrent weight below 2^(1/T), remember over long times and go deep.

    Two numbers a thousand steps apart are added; handwritten digits are read pixel by pixel through a stack of layers; the
    characters of the Penn Treebank are predicted by six layers and by one layer of LSTM cells with as many weights.

    Args:
        hidden_size: H of both layers that add.
        lengths: T of the sequences to be added, one stage of training after the other.
        num_updates: updates of each stage.
        batch_size: sequences in an update.
        lr: Adam's learning rate of the first stage; it falls to a third there, stays, and falls to nothing in the last.
        num_test: sequences of the test, of the last length.
        digit_side: pictures are averaged down to this side.
        digit_layers: layers that read digits.
        digit_size: H of each of them.
        digit_epochs: passes through the training pictures.
        digit_batch_size: pictures in an update.
        digit_lr: Adam's largest learning rate there.
        text_layers: layers that read text.
        text_size: H of each of them, and of the embedding.
        text_updates: updates of each of the two nets.
        text_rows: parts of the text that are read side by side.
        text_steps: characters between two updates, also the span of the bound.
        text_lr: Adam's largest learning rate, IndRNN.
        text_lstm_lr: the same for the LSTM.
        seed: of weights and sequences.
        stand_in: made-up pictures and text in place of the files.
    Source:
        Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network (IndRNN)", CVPR, arXiv:1803.04831 (abstract
        read; settings and numbers from memory)
    Differs:
        Adding at T = 1000 alone; the sequences grow from 100 steps to 1000 in training, the bound on the weights is that of
        1000 from the beginning, and the first layer begins without recurrence. Layer norm before a layer and a shortcut
        around it in place of batch norm behind it; digits averaged down to 14 x 14. The skeletons are left out. The test
        parts are used once, after the last update. One seed.
    """

    id: ClassVar[str] = "li-2018-indrnn"
    source: ClassVar[str] = "Li, Li, Cook, Zhu & Gao 2018, CVPR, arXiv:1803.04831"
    requires: ClassVar[tuple[str, ...]] = ("mnist", "ptb")
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("adding_mse", 1e-3, "lower", "solved up to T = 5000", "adding problem, T = 1000", "from memory"),
        Claim("largest_growth", 2.0 + 1e-4, "lower", "2", "|dh_T / dh_0| of a unit, bound |u| <= 2^(1/T)", "theorem"),
        Claim("digits_accuracy", 97.5, "higher", "99.0", "MNIST pixel by pixel, 784 steps", "from memory"),
        Claim("text_behind_lstm", 0.0, "lower", "1.23", "PTB, bits per character, 6 layers", "from memory"),
        Claim("adding_mse_tanh", 0.1, "higher", "0.167", "adding problem, tanh units", "from memory", control=True),
    )

    hidden_size: int = 32
    lengths: tuple[int, ...] = (100, 300, 1000)
    num_updates: tuple[int, ...] = (1200, 600, 1600)
    batch_size: int = 32
    lr: float = 4e-3
    num_test: int = 1000
    digit_side: int = 14
    digit_layers: int = 4
    digit_size: int = 128
    digit_epochs: int = 20
    digit_batch_size: int = 32
    digit_lr: float = 4e-3
    text_layers: int = 6
    text_size: int = 256
    text_updates: int = 2000
    text_rows: int = 32
    text_steps: int = 64
    text_lr: float = 2e-3
    text_lstm_lr: float = 4e-3
    seed: int = 0
    stand_in: bool = False

    @classmethod
    def smoke(cls) -> Self:
        """Short sequences, made-up pictures and text, a few updates."""
        return cls(
            hidden_size=6,
            lengths=(5, 20),
            num_updates=(4, 4),
            batch_size=8,
            num_test=20,
            digit_side=7,
            digit_layers=2,
            digit_size=8,
            digit_epochs=1,
            text_layers=2,
            text_size=8,
            text_updates=4,
            text_rows=4,
            text_steps=8,
            stand_in=True,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Adding, digits, text."""
        stages = Stages(log, {"adding": 0.25, "adding, tanh": 0.05, "digits": 0.4, "text": 0.15, "text, LSTM": 0.15})
        return {**self._added(log, stages), **self._read_digits(stages("digits")), **self._read_text(stages)}

    def _added(self, log: Log, stages: Stages) -> dict[str, float]:
        """Both nets, then the growth of what a unit of the trained one remembers."""
        size, span = self.hidden_size, self.lengths[-1]
        torch.manual_seed(self.seed)
        first = IndRNNCell(2, size, max_steps=span, recurrent_init="zeros")
        second = IndRNNCell(size, size, max_steps=span, recurrent_init="long", input_init="normal:0.01")
        net = LastStep(Stack(first, second), 1, engine=Native())
        curve = self._learn(net, stages("adding"))
        plain = LastStep(Stack(ElmanCell(2, size), ElmanCell(size, size)), 1)
        plain_curve = self._learn(plain, stages("adding, tanh"))
        log.figure("learning", partial(_draw, curves={"IndRNN": curve, "tanh": plain_curve}, starts=self._starts()))
        return {
            "adding_mse": self._mse(net),
            "adding_mse_tanh": self._mse(plain),
            "largest_growth": max(_largest_growth(cell, span) for cell in (first, second)),
            "largest_recurrent_weight": max(float(cell.weight_hh.detach().abs().max()) for cell in (first, second)),
            "adding_weights": num_parameters(net),
        }

    def _read_digits(self, progress: Callable[[float], None]) -> dict[str, float]:
        data = digits(stand_in=self.stand_in)
        torch.manual_seed(self.seed)
        cell = deep_indrnn(1, self.digit_size, self.digit_layers, self.digit_side**2, input_scale=0.9, keep_last=True)
        net = LastStep(cell, engine=Native())
        updates = max(1, self.digit_epochs * len(data.train_labels) // self.digit_batch_size)
        recipe = Recipe(self.digit_batch_size, updates, self.digit_lr)
        learn(
            net,
            pixels(data.train_images, self.digit_side),
            data.train_labels,
            recipe,
            seed=self.seed,
            progress=progress,
        )
        said = accuracy(net, pixels(data.test_images, self.digit_side), data.test_labels)
        return {"digits_accuracy": said, "digits_weights": num_parameters(net)}

    def _read_text(self, stages: Stages) -> dict[str, float]:
        """Bits per character of the test part, IndRNN and LSTM."""
        if self.stand_in:
            train = test = "the cat sat on the mat . " * 20
        else:
            train, test = ((data_folder("ptb") / f"ptb.{part}.txt").read_text("utf-8") for part in ("train", "test"))
        code = {character: i for i, character in enumerate(sorted(set(train)))}
        train_tokens, test_tokens = (torch.tensor([code[c] for c in text]) for text in (train, test))
        num, size = len(code), self.text_size
        torch.manual_seed(self.seed)
        deep = deep_indrnn(size, size, self.text_layers, self.text_steps, gamma=1.0)
        ours = Readout(Stack(EmbeddingCell(num, size), deep), num)
        units = _lstm_size(num, num_parameters(ours))
        lstm = Readout(Stack(EmbeddingCell(num, units), LSTMCell(units, units)), num)
        for net, lr, name in ((ours, self.text_lr, "text"), (lstm, self.text_lstm_lr, "text, LSTM")):
            self._learn_text(net, train_tokens, lr, stages(name))
        bits, lstm_bits = (bits_per_token(net.eval(), test_tokens) for net in (ours, lstm))
        return {
            "text_bits": bits,
            "text_bits_lstm": lstm_bits,
            "text_behind_lstm": bits - lstm_bits,
            "text_weights": num_parameters(ours),
            "text_weights_lstm": num_parameters(lstm),
        }

    def _learn_text(self, net: Cell, tokens: Tensor, lr: float, progress: Callable[[float], None]) -> None:
        total = self.text_updates

        def tell(update: Progress) -> None:
            progress(update.num_steps / total)

        fit(
            net,
            TokenStream(tokens, self.text_rows, self.text_steps),
            CrossEntropy(),
            partial(torch.optim.Adam, lr=lr),
            rule=TruncatedBPTT(),
            num_steps=total,
            clip_norm=1.0,
            lr_schedule=lambda n: min((n + 1) / (1 + total / 20), (total - n) / (total - total / 20)),
            on_step=tell,
        )

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


def deep_indrnn(
    inputs: int,
    units: int,
    num_layers: int,
    span: int,
    *,
    gamma: float = 2.0,
    input_scale: float = 0.0,
    keep_last: bool = False,
) -> Cell:
    """Layers of independently recurrent units, each but the first with layer norm before it and a shortcut around it.

    Args:
        inputs: D.
        units: H of every layer.
        num_layers: L.
        span: T of the bound on the recurrent weights.
        gamma: largest growth of a gradient over the span; 1 for a stream whose state is never reset.
        input_scale: a, the first layer's weights are drawn from U(-a, a); 0 for U(-1/sqrt(H), 1/sqrt(H)).
        keep_last: the units of the last layer begin near the bound, so that they remember the whole sequence.

    Returns:
        A cell with output (B, H), normalised.
    """
    init = f"uniform:{input_scale}" if input_scale else "uniform"
    layers: list[Cell] = [IndRNNCell(inputs, units, max_steps=span, gamma=gamma, input_init=init)]
    for i in range(1, num_layers):
        init = "long" if keep_last and i == num_layers - 1 else "span"
        layers.append(
            Residual(
                Stack(LayerNormCell(units), IndRNNCell(units, units, max_steps=span, gamma=gamma, recurrent_init=init))
            )
        )
    return Stack(*layers, LayerNormCell(units))


def _lstm_size(num_tokens: int, weights: int) -> int:
    """Units of a one-layer LSTM net, embedding and readout included, with as many weights or just above."""
    size = 1
    while 8 * size * size + 4 * size + 2 * num_tokens * size + num_tokens < weights:
        size += 1
    return size


@torch.no_grad()
def bits_per_token(net: Cell, tokens: Tensor, num_rows: int = 20, num_steps: int = 500) -> float:
    """Mean code length of the next token, the text being read in some rows side by side, the state carried on."""
    state, total, count = net.initial_state(num_rows), 0.0, 0
    for chunk in TokenStream(tokens, num_rows, num_steps):
        ys, state = Auto()(net, chunk.xs, state)
        total += float(F.cross_entropy(ys.flatten(0, 1), chunk.targets.flatten(), reduction="sum"))
        count += chunk.targets.numel()
    return total / count / math.log(2)


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
