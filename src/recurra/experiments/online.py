"""What the classics of 1989 to 2000 share: one net learns sequence by sequence until it is right often enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cells import LSTM1997Cell
from ..core import Cell, Chunk, tree
from ..core.loss import Loss
from ..core.rule import LearningRule
from ..engines import Auto
from ..learning import SGD, EProp, Online
from ..tasks.one_stream import one_stream
from ..training import Progress, fit
from ..wrappers import Readout


@dataclass(frozen=True)
class SquaredError(Loss):
    """``1/2 sum_o (f(y_o) - target_o)^2``, the error of the old papers; f the logistic function, or none.

    Args:
        squash: y are the net inputs of logistic output units; False for linear ones.

    Example:
        >>> SquaredError().per_step(torch.zeros(7, 2, 4), torch.ones(7, 2, 4))[0, 0].item()
        0.5
    """

    squash: bool = True

    def per_step(self, ys: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_step`."""
        return 0.5 * (self.activations(ys) - targets).square().sum(-1)

    def activations(self, ys: Tensor) -> Tensor:
        """Of the output units."""
        return torch.sigmoid(ys) if self.squash else ys


def net_1997(
    input_size: int,
    num_outputs: int,
    *,
    num_blocks: int,
    block_size: int,
    weight_range: float,
    generator: torch.Generator,
    input_gate_bias: tuple[float, ...] | None = None,
    output_gate_bias: tuple[float, ...] | None = None,
    bias: bool = True,
    cell_bias: bool = True,
    readout_bias: bool = True,
    gate_recurrence: bool = True,
    simple: bool = False,
    input_range: float | None = None,
) -> Readout[Any]:
    """Memory cells in blocks, all hidden units seeing each other, and output units that see the cells; double precision.

    Args:
        input_size: D.
        num_outputs: O.
        num_blocks, block_size: of memory cells.
        weight_range: all weights begin in U(-a, a), but for the biases that are given.
        generator: source of the weights.
        input_gate_bias, output_gate_bias: initial biases, one for each block.
        bias, cell_bias, readout_bias: which units have biases: gates, cells, outputs.
        gate_recurrence: do gates see other gates?
        simple: no output gates, logistic g, h(a) = a.
        input_range: the weights of the hidden units' inputs begin in U(-b, b) with this b, not in ``weight_range``.
    """
    init = f"uniform:{weight_range}"
    cell = LSTM1997Cell(
        input_size,
        num_blocks * block_size,
        block_size=block_size,
        squash=not simple,
        output_gate=not simple,
        bias=bias,
        cell_bias=cell_bias,
        gate_recurrence=gate_recurrence,
        input_gate_bias=input_gate_bias,
        output_gate_bias=output_gate_bias,
        bias_bound=weight_range,
        input_init=init if input_range is None else f"uniform:{input_range}",
        recurrent_init=init,
        generator=generator,
        dtype=torch.float64,
    )
    net = Readout(cell, num_outputs, bias=readout_bias)
    with torch.no_grad():
        for parameter in net.linear.parameters():
            parameter.uniform_(-weight_range, weight_range, generator=generator)
    return net


def num_weights(net: Cell) -> int:
    """Numbers that are learned."""
    return sum(p.numel() for p in net.parameters())


class Answers(NamedTuple):
    """What output units said, and what they should have said, where something was asked for: (n, O) each."""

    said: Tensor
    wanted: Tensor

    @property
    def largest_error(self) -> Tensor:
        """(n,) of the worst output."""
        return (self.said - self.wanted).abs().amax(-1)


class Learner:
    """A net that learns after every step that has a target, one sequence behind the other, in float64.

    Args:
        net: a cell, with double-precision parameters; changed in place.
        loss: as the output units are.
        lr: learning rate of plain gradient descent.
        rule: the truncated gradient of 1997 unless given.
        clip_norm: largest norm of a gradient.
    """

    def __init__(
        self,
        net: Cell,
        loss: SquaredError,
        lr: float,
        rule: LearningRule[Any] | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.net, self.loss = net, loss
        self.online = Online(EProp() if rule is None else rule, loss, SGD(lr, clip_norm=clip_norm))
        self.state = self.online.init(net, 1)

    def learn(self, batch: Chunk, lr_factor: float = 1.0) -> Answers:
        """Read the rows of a batch one behind the other, each from the initial state."""
        stream = as_double(one_stream(batch))
        self.state, trace = self.online.run(self.net, self.state, stream, lr_factor)
        return asked(self.loss, trace.outputs, stream)

    def try_out(self, batch: Chunk) -> Answers:
        """Answer without learning."""
        return answer(self.net, self.loss, as_double(batch))


def sequences_until_right(trials: Sequence[Learned]) -> float:
    """Mean number of sequences until a net had learned; infinite if one never did."""
    return mean([trial.presented for trial in trials]) if all(trial.solved for trial in trials) else math.inf


def asked(loss: SquaredError, ys: Tensor, chunk: Chunk) -> Answers:
    """The outputs and the targets where weights are not zero, row by row."""
    counted = chunk.controls.alive(len(ys)) if chunk.weights is None else chunk.weights != 0
    kept = torch.ones(ys.shape[:2], dtype=torch.bool).T if counted is None else counted.T
    said, wanted = (leaf.transpose(0, 1)[kept] for leaf in (loss.activations(ys), chunk.targets))
    return Answers(said, wanted)


@torch.no_grad()
def answer(net: Cell, loss: SquaredError, batch: Chunk) -> Answers:
    """What a net says of a batch."""
    ys, _ = Auto()(net, batch.xs, None, batch.controls)
    return asked(loss, ys, batch)


def as_double(chunk: Chunk) -> Chunk:
    """The same numbers in double precision."""
    return tree.map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, chunk)


class Learned(NamedTuple):
    """One trial.

    Args:
        presented: sequences until the criterion held, or all that there were.
        solved: did it ever hold?
        errors: (n,) largest error of the outputs, of every sequence.
        num_starts: nets that were tried, the last one included.
    """

    presented: int
    solved: bool
    errors: Tensor
    num_starts: int = 1


class NewStart(NamedTuple):
    """When a net is given up and another one begins; the sequences of all of them count.

    Args:
        begin: puts a new net in the place of the old one.
        limits: (sequences of a start, largest mean error of its last block with which it goes on); with 0 it is given up
            in any case.
    """

    begin: Callable[[], None]
    limits: tuple[tuple[int, float], ...]

    def due(self, before: int, now: int, mean_error: float) -> bool:
        """Was a limit passed between two looks, and is the error too large for it?"""
        return any(before < after <= now and mean_error > limit for after, limit in self.limits)


def until_right(
    present: Callable[[int], Answers],
    *,
    tolerance: float,
    most: int,
    block: int = 500,
    num_recent: int = 2000,
    num_wrong: int = 0,
    mean_error: float = float("inf"),
    new_start: NewStart | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Learned:
    """Present sequences until, of the most recent ones, few enough are wrong and the mean error is small enough.

    Args:
        present: learn from so many new sequences, one answer each.
        tolerance: a sequence is right if the error of no output is larger.
        most: sequences at most, those of all starts together.
        block: the criterion is looked at after so many.
        num_recent: sequences that it looks back at, all of the same start.
        num_wrong: wrong ones among them that are allowed.
        mean_error: their mean error at most.
        new_start: when to give a net up; never unless given.
        progress: told the fraction of ``most`` that is done.
    """
    errors: list[Tensor] = []
    count, begun, num_starts = 0, 0, 1
    while count < most:
        errors.append(present(block).largest_error)
        count += block
        progress(count / most)
        recent = torch.cat(errors[-math.ceil(num_recent / block) :])[-num_recent:]
        enough = count - begun >= num_recent
        if enough and int((recent >= tolerance).sum()) <= num_wrong and bool(recent.mean() < mean_error):
            return Learned(count, True, torch.cat(errors), num_starts)
        read, error = count - begun, float(errors[-1].mean())
        if new_start is not None and count < most and new_start.due(read - block, read, error):
            new_start.begin()
            begun, num_starts = count, num_starts + 1
    return Learned(count, False, torch.cat(errors) if errors else torch.zeros(0), num_starts)


def until_right_in_batches(
    net: Cell,
    loss: SquaredError,
    make: Callable[[int], Chunk],
    *,
    batch_size: int,
    lr: float,
    most: int,
    right: Callable[[Answers], bool],
    every: int = 50,
    clip_norm: float | None = 1.0,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[int, bool]:
    """The modern way: backpropagation through time and Adam on batches.

    Args:
        net: trained in place.
        loss: as the output units are.
        make: so many new sequences.
        batch_size: sequences in an update.
        lr: Adam's learning rate.
        most: sequences at most.
        right: looked at after every ``every`` updates, with the answers to the batches since the last look.
        every: see there.
        clip_norm: largest norm of a gradient.
        progress: told the fraction of ``most`` that is done.

    Returns:
        Sequences presented until the criterion held, or all that there were, and whether it ever did.
    """
    total = -(-most // batch_size)
    given: list[Chunk] = []
    answers: list[Answers] = []

    def chunks() -> Iterator[Chunk]:
        while True:
            given.append(make(batch_size))
            yield given[-1]

    solved = False

    def look(update: Progress) -> bool:
        nonlocal solved
        answers.append(asked(loss, update.estimate.outputs, given.pop()))
        progress(update.num_steps / total)
        if len(answers) < every:
            return False
        joined = Answers(*(torch.cat(leaves) for leaves in zip(*answers)))
        answers.clear()
        solved = right(joined)
        return solved

    optimizer = partial(torch.optim.Adam, lr=lr)
    fitted = fit(net, chunks(), loss, optimizer, num_steps=total, clip_norm=clip_norm, on_step=look)
    return len(fitted.losses) * batch_size, solved


def mean(values: Sequence[float]) -> float:
    """Of some numbers; NaN of none."""
    return sum(values) / len(values) if values else float("nan")


def draw_errors(figure: Any, parts: Mapping[str, list[Learned]], tolerance: float, width: int = 500) -> None:
    """A picture: the mean error of each trial along its sequences; parts without trials are left out."""
    parts = {name: trials for name, trials in parts.items() if trials}
    axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axis, (name, trials) in zip(axes, parts.items()):
        for trial in trials:
            wide = min(width, len(trial.errors))
            means = trial.errors[: len(trial.errors) // wide * wide].view(-1, wide).mean(1)
            axis.semilogy(torch.arange(1, len(means) + 1) * wide / 1000, means, lw=0.9)
        axis.axhline(tolerance, color="0.5", lw=0.8, ls="--")
        axis.set_title(f"{name}: one line for each trial", loc="left", fontsize=10)
        axis.set_xlabel("thousand sequences")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"mean error of {width} sequences")
