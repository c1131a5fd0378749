"""Hochreiter & Schmidhuber 1997, experiment 6: in which order did rare symbols come?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch

from ..cells import ElmanCell, LSTMCell
from ..core import Cell, Chunk, Claim, Experiment, Log
from ..tasks.temporal_order import temporal_order
from ..wrappers import Readout
from .online import (
    Learned,
    Learner,
    NewStart,
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

TOLERANCE = 0.3
"""A sequence is classified correctly if the error of no output is larger."""

_LOGISTIC = SquaredError()


@dataclass(frozen=True)
class Hochreiter1997TemporalOrder(Experiment):
    """The order of two (6a) or three (6b) rare symbols among distractors names the class of a sequence of 105.

    *Faithful*: the cell of 1997, truncated gradient, an update at the end of every sequence. *Modern*: batches,
    backpropagation through time, Adam; LSTM with forget gates and the chrono initialisation, and tanh units (Elman), which
    fail.

    A trial ends when all of the last 2,000 sequences (6b: 4,000) were right (no output's error reached 0.3) with a mean error
    below 0.1; it is then tested on 2,560 new ones.

    Args:
        num_trials: faithful trials of 6a.
        num_trials_three: faithful trials of 6b; with 0 of them, their metrics are NaN and their bars not met.
        most: sequences that a trial of 6a may take.
        most_three: the same for 6b.
        lr: learning rate of 6a.
        lr_three: of 6b.
        weight_range: weights of 6a begin in U(-a, a); the input gates' biases at -2, -4 (and -6).
        weight_range_three: the same for 6b.
        clip_norm: largest norm of a gradient of the faithful nets, 6a.
        clip_norm_three: the same for 6b.
        num_recent_three: sequences that the criterion looks back at, 6b.
        limits_three: after so many sequences of a net, another one begins if the mean error is larger, 6b.
        block: the criterion is looked at after so many sequences of 6a.
        block_three: the same for 6b.
        num_test: sequences of a test.
        num_trials_modern: trials of each modern net.
        modern_size: H of the modern nets.
        modern_most: sequences that a modern trial may take, 6a.
        modern_most_three: the same for 6b.
        modern_batch_size: sequences in an update.
        modern_lr: Adam's learning rate.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, section 5.6 and table 9 (read in a copy)
    Differs:
        Ten trials of 6a where the paper has 20. Gradients of a norm above 1 (6b: 0.3) are made shorter, which the paper does
        not do, and 6b has a learning rate of 0.3 and begins in a range of 0.5 where the paper has 0.1 and 0.1. With the
        paper's numbers and no clipping 6b was solved by one trial of three, the others ending with saturated units and a
        constant answer; with a norm of 1, by one of three in double precision, and by 13 of 16 in float32 nets of the same
        equations, after 181,000 sequences at least 100,000 of which are a plateau; a range of 0.5 shortens it, and the larger
        rate needs the smaller norm. These were chosen by 16 such nets of each setting, of other seeds: 15 of 16 learned within
        200,000 sequences, after a plateau of 10,000 to 80,000, and one stayed with rare errors, which a rate of 0.1 after the
        plateau (14 of 16) did not mend; on the seeds used here nine of ten learned. So a net of 6b is given up if the mean
        error after 100,000 sequences is above 0.3, or if it has not met the criterion after 200,000, and a new one begins in
        the same trial; the sequences of all starts count (here ten trials took 16); the paper has no new starts. Without them
        nine of ten trials were solved, with 35 wrong. The criterion of 6b looks back at 4,000 sequences where the paper looks
        at 2,000. Before there were new starts, biases of -4, -5 and -6 gave nine of ten at a rate of 0.5, and eight of ten
        where 6,000 sequences had to be right (rate 0.4, norm 0.2), on the seeds used here. Where a trial never learns, the
        number of sequences is infinite. The number of sequences is counted in whole blocks. A mean error in the criterion, as
        in the paper's other experiments, is the mean of each sequence's worst output.
    """

    id: ClassVar[str] = "hochreiter-1997-e6-temporal-order"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("wrong_6a", 1.0, "lower", "1 of 2560", "table 9, 6a", "read"),
        Claim("sequences_6a", 31_390, "lower", "31,390", "table 9, 6a", "read"),
        Claim("wrong_6b", 2.0, "lower", "2 of 2560", "table 9, 6b", "read"),
        Claim("sequences_6b", 571_100, "lower", "571,100", "table 9, 6b", "read"),
        Claim("sequences_modern_6a", 10_000, "lower", "", "LSTM, BPTT and Adam"),
        Claim("sequences_modern_6b", 20_000, "lower", "", "LSTM, BPTT and Adam"),
        Claim("wrong_share_elman_6a", 0.5, "higher", "", "tanh units, BPTT and Adam, as many sequences", control=True),
    )

    num_trials: int = 10
    num_trials_three: int = 10
    most: int = 100_000
    most_three: int = 1_000_000
    lr: float = 0.5
    lr_three: float = 0.3
    weight_range: float = 0.1
    weight_range_three: float = 0.5
    clip_norm: float = 1.0
    clip_norm_three: float = 0.3
    num_recent_three: int = 4000
    limits_three: tuple[tuple[int, float], ...] = ((100_000, 0.3), (200_000, 0.0))
    block: int = 500
    block_three: int = 2000
    num_test: int = 2560
    num_trials_modern: int = 1
    modern_size: int = 16
    modern_most: int = 10_000
    modern_most_three: int = 20_000
    modern_batch_size: int = 20
    modern_lr: float = 1e-2

    @classmethod
    def smoke(cls) -> Self:
        """One trial of each, a few sequences."""
        return cls(
            num_trials=1,
            num_trials_three=1,
            most=4,
            most_three=2,
            block=2,
            block_three=2,
            num_test=20,
            num_trials_modern=1,
            modern_size=4,
            modern_most=100,
            modern_most_three=100,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """6a and 6b faithfully, then the modern nets."""
        progress = Stages(log, {"6a": 2, "6b": 6, "6a, LSTM": 1, "6b, LSTM": 1, "6a, Elman": 1})
        two, wrong_two, weights_two = self._faithful(2, progress("6a"))
        three, wrong_three, weights_three = self._faithful(3, progress("6b"))
        lstm = partial(LSTMCell, chrono_steps=100)
        lstm_two, modern_two = self._modern(lstm, 2, progress("6a, LSTM"))
        lstm_three, modern_three = self._modern(lstm, 3, progress("6b, LSTM"))
        _, wrong_elman = self._modern(ElmanCell, 2, progress("6a, Elman"))
        log.figure(
            "errors",
            lambda figure: draw_errors(figure, {"6a": two, "6b": three}, TOLERANCE),
        )
        return {
            "wrong_6a": wrong_two,
            "sequences_6a": sequences_until_right(two),
            "wrong_6b": wrong_three,
            "sequences_6b": sequences_until_right(three),
            "sequences_modern_6a": lstm_two,
            "sequences_modern_6b": lstm_three,
            "wrong_share_elman_6a": wrong_elman / self.num_test,
            "solved_6a": sum(trial.solved for trial in two),
            "solved_6b": sum(trial.solved for trial in three),
            "starts_6b": mean([trial.num_starts for trial in three]),
            "wrong_modern_6a": modern_two,
            "wrong_modern_6b": modern_three,
            "weights_6a": weights_two,
            "weights_6b": weights_three,
        }

    def _faithful(self, num_relevant: int, progress: Callable[[float], None]) -> tuple[list[Learned], float, int]:
        """Trials, mean number of wrong answers in the test, number of weights."""
        num_trials = self.num_trials if num_relevant == 2 else self.num_trials_three
        trials, wrong, weights = [], [], 0
        for seed in range(num_trials):
            trial, num_wrong, weights = self._trial(
                num_relevant,
                torch.Generator().manual_seed(seed),
                lambda done, seed=seed: progress((seed + done) / num_trials),  # type: ignore[misc]
            )
            trials.append(trial)
            wrong.append(num_wrong)
        return trials, mean(wrong), weights

    def _trial(
        self, num_relevant: int, generator: torch.Generator, progress: Callable[[float], None]
    ) -> tuple[Learned, float, int]:
        """One trial, its wrong answers in the test, number of weights."""
        two = num_relevant == 2

        def new_learner() -> Learner:
            net = net_1997(
                8,
                2**num_relevant,
                num_blocks=num_relevant,
                block_size=2,
                weight_range=self.weight_range if two else self.weight_range_three,
                input_gate_bias=(-2.0, -4.0, -6.0)[:num_relevant],
                generator=generator,
            )
            return Learner(
                net,
                _LOGISTIC,
                self.lr if two else self.lr_three,
                clip_norm=self.clip_norm if two else self.clip_norm_three,
            )

        learner = new_learner()

        def begin() -> None:
            nonlocal learner
            learner = new_learner()

        trial = until_right(
            lambda count: learner.learn(temporal_order(count, generator, num_relevant=num_relevant)),
            tolerance=TOLERANCE,
            mean_error=0.1,
            most=self.most if two else self.most_three,
            block=self.block if two else self.block_three,
            num_recent=2000 if two else self.num_recent_three,
            new_start=None if two else NewStart(begin, self.limits_three),
            progress=progress,
        )
        test = temporal_order(self.num_test, generator, num_relevant=num_relevant)
        wrong = float((learner.try_out(test).largest_error >= TOLERANCE).sum())
        return trial, wrong, num_weights(learner.net)

    def _modern(
        self, kind: Callable[..., Cell], num_relevant: int, progress: Callable[[float], None]
    ) -> tuple[float, float]:
        """Mean number of sequences until 1,000 in a row were right, and of wrong answers in the test."""
        most = self.modern_most if num_relevant == 2 else self.modern_most_three
        counts, wrong = [], []
        for seed in range(self.num_trials_modern):
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(1000 + seed)
            net = Readout(kind(8, self.modern_size), 2**num_relevant)

            def make(count: int, generator: torch.Generator = generator) -> Chunk:
                return temporal_order(count, generator, num_relevant=num_relevant)

            count, _ = until_right_in_batches(
                net,
                _LOGISTIC,
                make,
                batch_size=self.modern_batch_size,
                lr=self.modern_lr,
                most=most,
                every=max(1, 1000 // self.modern_batch_size),
                right=lambda answers: bool((answers.largest_error < TOLERANCE).all()),
                progress=lambda done, seed=seed: progress((seed + done) / self.num_trials_modern),  # type: ignore[misc]
            )
            counts.append(count)
            wrong.append(float((answer(net, _LOGISTIC, make(self.num_test)).largest_error >= TOLERANCE).sum()))
        return mean(counts), mean(wrong)
