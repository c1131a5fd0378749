"""Hochreiter & Schmidhuber 1997, experiment 5: multiplying two numbers that are far apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch

from ..cells import ElmanCell
from ..core import Claim, Experiment, Log
from ..tasks.marked_numbers import TOLERANCE, marked_numbers
from ..wrappers import Readout
from .online import (
    Answers,
    Learned,
    Learner,
    SquaredError,
    answer,
    draw_errors,
    mean,
    net_1997,
    num_weights,
    sequences_until_right,
    until_right,
    until_right_in_batches,
)
from .prediction import Stages

_LINEAR = SquaredError(squash=False)


@dataclass(frozen=True)
class Hochreiter1997Multiplication(Experiment):
    """Multiplying two marked numbers of a sequence of 105: memory cells are not made for sums alone.

    The net of the adding problem, one sequence after the other, truncated gradient. A trial is tested on 2,560 new sequences
    when, of the last 2,000, few enough were wrong (an error of 0.04 or more), and once more when still fewer were. Tanh units
    (Elman) that learn by backpropagation through time and Adam fail.

    Args:
        num_trials: trials.
        most: sequences that a trial may take.
        lr: learning rate of gradient descent until the looser criterion holds.
        lr_strict: the same from then on.
        weight_range: weights begin in U(-a, a).
        input_gate_bias: where the biases of the input gates of the two blocks begin.
        allowed: wrong sequences of the last 2,000 at which a trial is tested, the looser one first.
        block: the criterion is looked at after so many sequences.
        num_test: sequences of a test.
        elman_size: H of the Elman net.
        elman_most: sequences that it may take.
        elman_batch_size: sequences in an update.
        elman_lr: Adam's learning rate.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, section 5.5 and table 8 (read in a copy)
    Differs:
        The paper has a logistic output, weights in 0.1, random biases (its table 10) and a learning rate of 0.1 throughout, and
        stops at 140 and 13 wrong sequences of 2,000. Ours have a linear output, weights in 0.5, biases of the input gates at
        -4 and -6, a learning rate of 0.5 that is 0.3 once the looser criterion holds, and stop at 60 and 12: at 140 and 13 of
        2,000, 179 and 17 of 2,560 are what is to be expected, more than the paper's 139 and 14. With a range of 0.1, random
        biases and a linear output one of 16 nets passed the looser criterion within 500,000 sequences; with 0.5, -4 and -6 and
        a rate of 0.5 throughout, 11 within 250,000, but few then settle, as single sequences still move the weights far; 0.3
        throughout let 12 of 16 pass the stricter one within 800,000. A rate of 0.1 once the looser one holds, and 6 allowed
        in blocks of 5,000, let four of five trials pass within 1,300,000, with 15 of 2,560 wrong on average. A logistic output,
        gradients cut to a norm of 0.1, ranges of 0.3 and 1 and rates of 0.8 and 1 were no better (float32 nets of the same
        equations, of other seeds). The run at 0.1 was made with the first five of the committed seeds. Where a trial never
        learns, the number of sequences is infinite. The table's mean squared error cannot be one where 99 % of the errors are
        below 0.04, so wrong sequences are counted instead. Counted in whole blocks.
    """

    id: ClassVar[str] = "hochreiter-1997-e5-multiplication"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("wrong_loose", 139.0, "lower", "139 of 2560", "table 8, n_seq = 140", "read"),
        Claim("sequences_loose", 482_000, "lower", "482,000", "table 8, n_seq = 140", "read"),
        Claim("wrong_strict", 14.0, "lower", "14 of 2560", "table 8, n_seq = 13", "read"),
        Claim("sequences_strict", 1_273_000, "lower", "1,273,000", "table 8, n_seq = 13", "read"),
        Claim("wrong_share_elman", 0.5, "higher", "", "tanh units, BPTT and Adam", control=True),
    )

    num_trials: int = 10
    most: int = 1_300_000
    lr: float = 0.5
    lr_strict: float = 0.3
    weight_range: float = 0.5
    input_gate_bias: tuple[float, float] = (-4.0, -6.0)
    allowed: tuple[int, int] = (60, 12)
    block: int = 10_000
    num_test: int = 2560
    elman_size: int = 16
    elman_most: int = 50_000
    elman_batch_size: int = 50
    elman_lr: float = 1e-3

    @classmethod
    def smoke(cls) -> Self:
        """One trial, a few sequences."""
        return cls(num_trials=1, most=4, block=2, num_test=20, elman_size=4, elman_most=100)

    def run(self, log: Log) -> Mapping[str, float]:
        """All trials, then the control."""
        progress = Stages(log, {"product": 9, "Elman": 1})
        loose: list[Learned] = []
        strict: list[Learned] = []
        wrong_loose, wrong_strict = [], []
        for seed in range(self.num_trials):
            generator = torch.Generator().manual_seed(seed)
            net = net_1997(
                2,
                1,
                num_blocks=2,
                block_size=2,
                weight_range=self.weight_range,
                input_gate_bias=self.input_gate_bias,
                generator=generator,
            )
            learner = Learner(net, _LINEAR, self.lr)

            def present(
                lr_factor: float, count: int, learner: Learner = learner, generator: torch.Generator = generator
            ) -> Answers:
                return learner.learn(marked_numbers(100, count, generator, operation="product"), lr_factor)

            def told(before: int, most: int, seed: int = seed) -> Callable[[float], None]:
                done = progress("product")
                return lambda part: done((seed + (before + part * most) / self.most) / self.num_trials)

            def wrong(learner: Learner = learner, generator: torch.Generator = generator) -> float:
                test = marked_numbers(100, self.num_test, generator, operation="product")
                return float((learner.try_out(test).largest_error >= TOLERANCE).sum())

            first = until_right(
                partial(present, 1.0),
                tolerance=TOLERANCE,
                num_wrong=self.allowed[0],
                most=self.most,
                block=self.block,
                progress=told(0, self.most),
            )
            loose.append(first)
            wrong_loose.append(wrong())
            left = self.most - first.presented
            second = until_right(
                partial(present, self.lr_strict / self.lr if first.solved else 1.0),
                tolerance=TOLERANCE,
                num_wrong=self.allowed[1],
                most=left,
                block=self.block,
                progress=told(first.presented, left),
            )
            strict.append(
                Learned(first.presented + second.presented, second.solved, torch.cat([first.errors, second.errors]))
            )
            wrong_strict.append(wrong())
        log.figure("errors", lambda figure: draw_errors(figure, {"product": strict}, TOLERANCE, 2000))
        return {
            "wrong_loose": mean(wrong_loose),
            "sequences_loose": sequences_until_right(loose),
            "wrong_strict": mean(wrong_strict),
            "sequences_strict": sequences_until_right(strict),
            "wrong_share_elman": self._elman(progress("Elman")),
            "solved_loose": sum(trial.solved for trial in loose),
            "solved_strict": sum(trial.solved for trial in strict),
            "weights": num_weights(net),
        }

    def _elman(self, progress: Callable[[float], None]) -> float:
        """Share of the test that tanh units get wrong."""
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1000)
        net = Readout(ElmanCell(2, self.elman_size), 1)
        until_right_in_batches(
            net,
            _LINEAR,
            lambda count: marked_numbers(100, count, generator, operation="product"),
            batch_size=self.elman_batch_size,
            lr=self.elman_lr,
            most=self.elman_most,
            right=lambda answers: bool((answers.largest_error < TOLERANCE).all()),
            progress=progress,
        )
        test = marked_numbers(100, self.num_test, generator, operation="product")
        return float((answer(net, _LINEAR, test).largest_error >= TOLERANCE).double().mean())
