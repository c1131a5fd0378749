"""Hochreiter & Schmidhuber 1997, experiment 3: noise and signal on the same line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from ..cells import ElmanCell
from ..core import Chunk, Claim, Experiment, Log
from ..engines import Loop
from ..learning import TruncatedBPTT
from ..tasks.two_sequences import two_sequences
from ..wrappers import Readout
from .online import Answers, Learner, NewStart, SquaredError, mean, net_1997, num_weights
from .prediction import Stages

_LOGISTIC = SquaredError()


class _Stop(NamedTuple):
    """How our trials of a row differ from the paper's.

    Args:
        fresh: draws a new set for every test; else one set serves a whole trial.
        num_strict: sequences of another test, looked at when a small one is passed, in which ST2 must hold as well; or none.
        strict_wrong: misclassified ones of them that are allowed.
        slower: factor of the learning rate of a net that passed a small test.
        num_last: sequences after the criterion, with a rate that falls to 0; they count.
        give_up: (n, e): after n sequences of a net another one begins whenever the mean error of a test is above e.
        longest: a net that took so many sequences is given up in any case; 0 for never.
    """

    fresh: bool = False
    num_strict: int = 0
    strict_wrong: int = 0
    slower: float = 1.0
    num_last: int = 0
    give_up: tuple[int, float] | None = None
    longest: int = 0

    def limits(self, block: int, most: int) -> tuple[tuple[int, float], ...]:
        """For `NewStart`: all looks from the first one on, and the last one."""
        if self.give_up is None:
            return ()
        first, error = self.give_up
        last = self.longest or most
        return (*((count, error) for count in range(first, last, block)), (last, 0.0))


class _Task(NamedTuple):
    """One row of the paper's tables.

    Args:
        name: part of the metrics' names.
        make: sequences to learn from, from their number and a generator.
        test: the same without noise on the targets.
        lr: learning rate.
        tolerance: a larger error, by the noiseless target, is a misclassification.
        error: mean error of a test below which ST2 holds.
        wrong: misclassified sequences of a small test that ST1 allows.
        weight: of the row's time.
        stop: what our trials do beyond the paper's stops.
    """

    name: str
    make: Callable[[int, torch.Generator], Chunk]
    test: Callable[[int, torch.Generator], Chunk]
    lr: float
    tolerance: float
    error: float
    wrong: int
    weight: float
    stop: _Stop


def _tasks(num_steps: int) -> tuple[_Task, ...]:
    def row(
        name: str, relevant: int, lr: float, weight: float, limits: tuple[float, float, int], stop: _Stop, **how: Any
    ) -> _Task:
        def make(count: int, generator: torch.Generator, **quiet: float) -> Chunk:
            return two_sequences(num_steps, relevant, count, generator, **{**how, **quiet})

        return _Task(name, make, partial(make, target_noise=0.0), lr, *limits, weight, stop)

    return (  # the limits: tolerance, error, wrong
        row("3a_3", 3, 2.0, 3, (0.2, 0.01, 0), _Stop(True, 2560, 0, 0.3, 8000, (6000, 0.2), 30_000)),
        row("3a_1", 1, 1.0, 3, (0.2, 0.01, 0), _Stop()),
        row("3b_3", 3, 0.5, 2, (0.2, 0.03, 5), _Stop(True, 2560, 16, give_up=(10_000, 0.2)), signal_noise=0.2),
        row("3c_3", 3, 0.1, 9, (0.1, 0.015, 0), _Stop(), targets=(0.8, 0.2), target_noise=0.1**0.5),
    )


@dataclass(frozen=True)
class Hochreiter1997TwoSequence(Experiment):
    """Two classes of noisy sequences that differ in their first numbers alone; nets found by guessing weights do as well.

    3a: the first N numbers are 1 or -1, all others are noise of variance 0.2. 3b: the first ones are noisy too. 3c: as 3a, but
    the targets, 0.2 and 0.8, carry noise of standard deviation 0.32. *Guessing*: tanh nets with weights from U(-100, 100) until
    one is right on all of a set; the paper's point about 3a is that it is found soon.

    A sequence is misclassified if its error, by the noiseless target, exceeds 0.2 (3c: 0.1). A trial passes ST1 when none of
    256 test sequences is (3b: fewer than six), and ends at ST2, when their mean error is also below 0.01 (3b: 0.03; 3c: 0.015).
    It is then tested on 2,560 others. In 3a with N = 3 and in 3b ST2 is stricter than that (see Differs).

    Args:
        num_trials: trials of each row.
        num_steps: T.
        most: sequences that a trial may take.
        weight_range: weights begin in U(-a, a); gates' biases at -1, -3, -5 and -2, -4, -6.
        block: a test after so many sequences.
        num_small_test: sequences of the tests that stop a trial.
        num_test: sequences of the last test.
        num_guesses: weights guessed at most in one trial.
        guess_block: weights that are tried at a time.
        num_guess_trials: trials of guessing.
        elman_most: sequences of the control.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, section 5.3 and tables 4 to 6 (read in a copy)
    Differs:
        T = 100 alone, and N = 1 in 3a alone. How often the paper tests is not said; here it is every ``block`` sequences, in
        3a with N = 1 and in 3c always on the same 256 sequences, elsewhere on new ones (a fixed set delays ST1 of 3a). The
        other two rows stop later than the paper's. 3a, N = 3: the rate is 2 where the paper has 1, and 0.6 once a net has
        passed ST1; the mean error of ST2 is that of 2,560 further test sequences, none of them misclassified either; 8,000
        sequences follow with a rate that falls to 0, and ST2 counts them. A net whose mean test error is above 0.2 at any look
        after 6,000 sequences (0.5 is the constant answer's; nets fall back to it), or that took 30,000, is given up, and
        another begins in the same trial; the sequences of all count, and the number of nets is reported (``starts``). 3b: the
        rate is 0.5, not 1, and the mean error must be below 0.03, not 0.04, in 2,560 further sequences, at most 16 of these
        wrong (the paper's rate of errors would be 21); nets with an error above 0.2 after 10,000 sequences are given up. With
        new test sequences alone nets of 3a have about 6 of 2,560 wrong at ST2 (40 trials), nets of 3b at a rate of 0.5 and an
        error below 0.03 about 20 (31 trials), and little training more does not change that; a larger test rejects such nets.
        Test sequences of the last test are never those of a stop. All this was chosen on other seeds, with the same equations
        in another language: 13 trials of 3a took 30,800 sequences with 0.3 of 2,560 wrong, where the trials here have 0.9 (the
        paper: 0.5). Tried as well: training on after ST2 at a rate that falls from the full one (one net in eight of 3a, three
        in 31 of 3b fall back to the constant answer), rates of 0.3 after ST1 from 1 (the mean error of 0.01 is then reached
        too late), tests of 5,120 sequences (too few nets pass). The control is an Elman net that learns one step back, online.
    """

    id: ClassVar[str] = "hochreiter-1997-e3-two-sequence"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("misclassified_3a_3", 1.95e-4, "lower", "1.95e-4", "table 4, N = 3", "read"),
        Claim("st1_3a_3", 27_380, "lower", "27,380", "table 4, N = 3", "read"),
        Claim("st2_3a_3", 39_850, "lower", "39,850", "table 4, N = 3", "read"),
        Claim("st1_3a_1", 58_370, "lower", "58,370", "table 4, N = 1", "read"),
        Claim("st2_3a_1", 64_330, "lower", "64,330", "table 4, N = 1", "read"),
        Claim("misclassified_3b_3", 0.00828, "lower", "0.00828", "table 5, N = 3", "read"),
        Claim("st1_3b_3", 41_740, "lower", "41,740", "table 5, N = 3", "read"),
        Claim("st2_3b_3", 43_250, "lower", "43,250", "table 5, N = 3", "read"),
        Claim("misclassified_3c_3", 0.00558, "lower", "0.00558", "table 6, N = 3", "read"),
        Claim("error_3c_3", 0.014, "lower", "0.014", "table 6, N = 3", "read"),
        Claim("st2_3c_3", 269_650, "lower", "269,650", "table 6, N = 3", "read"),
        Claim("guesses_per_lstm_sequence_3a_3", 1.0, "lower", "guessing is faster", "section 5.3", "read"),
        Claim("misclassified_elman_3a_3", 0.25, "higher", "", "Elman net, one step back", control=True),
    )

    num_trials: int = 10
    num_steps: int = 100
    most: int = 600_000
    weight_range: float = 0.1
    block: int = 500
    num_small_test: int = 256
    num_test: int = 2560
    num_guesses: int = 20_000
    guess_block: int = 200
    num_guess_trials: int = 5
    elman_most: int = 2_000

    @classmethod
    def smoke(cls) -> Self:
        """One trial, short sequences, a few of them."""
        return cls(
            num_trials=1,
            num_steps=10,
            most=8,
            block=4,
            num_small_test=8,
            num_test=20,
            num_guesses=40,
            guess_block=20,
            num_guess_trials=1,
            elman_most=4,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Row by row, then guessing, then the control."""
        tasks = _tasks(self.num_steps)
        progress = Stages(log, {**{task.name: task.weight for task in tasks}, "guessing": 2, "Elman": 1})
        metrics: dict[str, float] = {}
        for task in tasks:
            trials = self._trials(task, progress(task.name))
            for key in trials[0]:
                metrics[f"{key}_{task.name}"] = mean([trial[key] for trial in trials])
        guessed = self._guess(tasks[0], progress("guessing"))
        metrics["guesses_3a_3"] = guessed
        metrics["guesses_per_lstm_sequence_3a_3"] = guessed / metrics["st2_3a_3"]
        metrics["misclassified_elman_3a_3"] = self._elman(tasks[0], progress("Elman"))
        return metrics

    def _trials(self, task: _Task, progress: Callable[[float], None]) -> list[dict[str, float]]:
        def told(seed: int) -> Callable[[float], None]:
            return lambda done: progress((seed + done) / self.num_trials)

        return [self._trial(task, seed, told(seed)) for seed in range(self.num_trials)]

    def _trial(self, task: _Task, seed: int, progress: Callable[[float], None]) -> dict[str, float]:
        """One net: when both criteria held (``most`` if never), and the test."""
        generator, stop = torch.Generator().manual_seed(seed), task.stop
        learner, factor, begun, num_starts = self._begin(task, generator), 1.0, 0, 1
        small = task.test(self.num_small_test, generator)

        def begin() -> None:
            nonlocal learner, factor, begun, num_starts
            learner, factor, begun, num_starts = self._begin(task, generator), 1.0, count, num_starts + 1

        new_start = NewStart(begin, stop.limits(self.block, self.most))
        first = second = float(self.most)
        count = 0
        while count < self.most:
            learner.learn(task.make(self.block, generator), factor)
            count += self.block
            progress(count / self.most)
            if stop.fresh:
                small = task.test(self.num_small_test, generator)
            wrong, error = _judge(learner.try_out(small), task.tolerance)
            if wrong <= task.wrong:
                first, factor = min(first, float(count)), stop.slower
                allowed = task.wrong
                if stop.num_strict:
                    allowed = stop.strict_wrong
                    strict = learner.try_out(task.test(stop.num_strict, generator))
                    wrong, error = _judge(strict, task.tolerance)
                if wrong <= allowed and error < task.error:
                    second = float(count)
                    break
            if count < self.most and new_start.due(count - begun - self.block, count - begun, error):
                new_start.begin()
        if second < self.most:
            num_blocks = stop.num_last // self.block
            for done in range(num_blocks):
                learner.learn(task.make(self.block, generator), factor * (1 - done / num_blocks))
            second += num_blocks * self.block
        wrong, error = _judge(learner.try_out(task.test(self.num_test, generator)), task.tolerance)
        return {
            "st1": first,
            "st2": second,
            "misclassified": wrong / self.num_test,
            "error": error,
            "solved": float(second < self.most),
            "starts": num_starts,
            "weights": num_weights(learner.net),
        }

    def _begin(self, task: _Task, generator: torch.Generator) -> Learner:
        """A new net that learns."""
        net = net_1997(
            1,
            1,
            num_blocks=3,
            block_size=1,
            weight_range=self.weight_range,
            input_gate_bias=(-1.0, -3.0, -5.0),
            output_gate_bias=(-2.0, -4.0, -6.0),
            readout_bias=False,
            generator=generator,
        )
        return Learner(net, _LOGISTIC, task.lr)

    def _guess(self, task: _Task, progress: Callable[[float], None]) -> float:
        """Mean number of random nets until one is right on 256 sequences, and again on 256 others."""
        net = Readout(ElmanCell(1, 3), 1)
        names = [name for name, _ in net.named_parameters()]
        counts = []
        for seed in range(self.num_guess_trials):
            generator = torch.Generator().manual_seed(seed)
            count, found = 0, False
            while count < self.num_guesses and not found:
                shapes = [p.shape for p in net.parameters()]
                guesses = {
                    name: 200 * torch.rand(self.guess_block, *shape, generator=generator) - 100
                    for name, shape in zip(names, shapes)
                }
                few, many = (task.test(n, generator) for n in (16, self.num_small_test))
                passed = (_says(net, guesses, few) == 0).nonzero().flatten()
                chosen = {name: values[passed] for name, values in guesses.items()}
                right = _says(net, chosen, many) == 0 if len(passed) else torch.zeros(0)
                if bool(right.any()):
                    count += int(passed[right.nonzero()[0, 0]]) + 1
                    found = True
                else:
                    count += self.guess_block
                progress((seed + min(1.0, count / self.num_guesses)) / self.num_guess_trials)
            counts.append(count)
        return mean(counts)

    def _elman(self, task: _Task, progress: Callable[[float], None]) -> float:
        """Share of wrong answers of a tanh net that learns by one step back."""
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        net = Readout(ElmanCell(1, 3), 1).double()
        learner = Learner(net, _LOGISTIC, 0.1, TruncatedBPTT(k1=1, k2=1))
        for done in range(0, self.elman_most, self.block):
            learner.learn(task.make(min(self.block, self.elman_most - done), generator))
            progress(done / self.elman_most)
        wrong, _ = _judge(learner.try_out(task.test(self.num_test, generator)), task.tolerance)
        return wrong / self.num_test


def _judge(answers: Answers, tolerance: float) -> tuple[int, float]:
    """Number of sequences with too large an error, and the mean error."""
    errors = answers.largest_error
    return int((errors > tolerance).sum()), float(errors.mean())


@torch.no_grad()
def _says(net: Readout[Any], weights: dict[str, Tensor], batch: Chunk) -> Tensor:
    """(G,) how many sequences of a batch each of G nets gets wrong."""

    def one(values: dict[str, Tensor]) -> Tensor:
        return functional_call(_Runner(net), {f"net.{name}": value for name, value in values.items()}, (batch,))

    said = vmap(one)(weights)  # (G, B)
    assert batch.weights is not None
    wanted = (batch.targets[..., 0] * batch.weights).sum(0)
    return ((said > 0) != (wanted > 0.5)).sum(1)


class _Runner(torch.nn.Module):
    """Runs a net over a batch; its output where something is asked for."""

    def __init__(self, net: Readout[Any]) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Chunk) -> Tensor:
        ys, _ = Loop()(self.net, batch.xs, None, batch.controls)
        assert batch.weights is not None
        return (ys[..., 0] * batch.weights).sum(0)
