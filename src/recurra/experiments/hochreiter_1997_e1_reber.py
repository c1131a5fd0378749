"""Hochreiter & Schmidhuber 1997, experiment 1: the embedded Reber grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..cells import ElmanCell, LSTMCell
from ..core import Cell, Chunk, Claim, CrossEntropy, Experiment, LearningRule, Log
from ..engines import Auto
from ..learning import BPTT, RTRL, TruncatedBPTT
from ..tasks.reber import ReberStrings, next_symbol, reber_strings, symbols_right
from ..training import MemberSum, Progress, fit
from ..wrappers import Ensemble, Readout
from .online import Learner, SquaredError, mean, net_1997, num_weights
from .prediction import Stages

_LOGISTIC = SquaredError()
_SETTINGS = ((4, 1, 0.1), (3, 2, 0.1), (3, 2, 0.2), (4, 1, 0.5), (3, 2, 0.5))
"""Blocks, their size, learning rate."""


class Strings(NamedTuple):
    """Strings to learn and strings to test, none of them among those to learn, as chunks with what may follow each symbol."""

    train: Chunk
    train_legal: Tensor
    test: Chunk
    test_legal: Tensor


def different_strings(num_each: int, seed: int) -> Strings:
    """Training strings, and test strings that are not among them; either may hold a string more than once.

    Args:
        num_each: strings of both kinds.
        seed: of the strings.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = reber_strings(20 * num_each, generator)
    texts = [tuple(drawn.symbols[:n, b].tolist()) for b, n in enumerate(drawn.lengths.tolist())]
    known = set(texts[:num_each])
    others = [b for b, text in enumerate(texts) if text not in known]
    chosen = torch.tensor([*range(num_each), *others[:num_each]])
    parts = [ReberStrings(drawn.symbols[:, c], drawn.lengths[c], drawn.legal[:, c]) for c in chosen.split(num_each)]
    train, test = (next_symbol(part) for part in parts)
    return Strings(train, parts[0].legal[1:], test, parts[1].legal[1:])


class _Trial(NamedTuple):
    """Strings read, were all right in the end, nets that were begun, numbers that a net learns."""

    strings: int
    solved: bool
    begun: int
    weights: int


def rows_of(chunk: Chunk, rows: Tensor) -> Chunk:
    """Some rows of a batch, in this order."""
    assert chunk.controls.lengths is not None
    controls = chunk.controls._replace(lengths=chunk.controls.lengths[rows])
    return Chunk(chunk.xs[:, rows], chunk.targets[:, rows], None, controls)


@dataclass(frozen=True)
class Hochreiter1997Reber(Experiment):
    """The embedded Reber grammar: the last choice of a string repeats its first one, nine and more symbols later.

    *Cell of 1997*: three blocks of two cells or four of one, one string after the other, squared error, an update after every
    symbol, by the full gradient (`RTRL`); a net that has not learned after a while begins anew. *As published*: the paper's
    connections, biases, targets and truncated gradient, three blocks of two at the rate of 0.5, nothing begun anew. *Modern*:
    small batches, cross-entropy, backpropagation through time, Adam. A net has learned when, in all training strings and all
    test strings, every symbol that may follow is more active than every other one. Elman nets that learn one step back fail.

    Args:
        num_trials: trials of each of the five settings, on three pairs of training and test strings in turn.
        most: strings that a trial may read, those before a new beginning counted too.
        patience: a net that has not learned after ``patience / lr`` strings begins anew, with new weights.
        weight_range: weights begin in U(-a, a); the biases of the output gates evenly from -3/N to -3 with N blocks, those of
            the input gates at 0.3, 0.6, 0.9 (1.2).
        num_strings: training strings, and as many test strings.
        block: the test comes after so many strings.
        num_trials_published: trials of the nets as published.
        most_published: strings that a net as published may read.
        num_trials_modern: modern trials, and trials of the Elman net, side by side.
        modern_size: H of the modern nets.
        modern_most: strings that a modern trial may read.
        modern_batch_size: strings in an update.
        modern_lr: Adam's learning rate.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, section 5.1 and table 1 (read in a copy)
    Differs:
        The counts are those of nets that learn by another gradient than the paper's and may begin anew, so all trials
        end well; the share that the paper reports is held against that of the trials without a new beginning
        (``at_once``). The paper's own nets, whose updates here are those of its appendix A.1 to the last digit, learn
        in about one trial of ten within 40,000 strings (``solved_share_as_published``), at the rate of 0.1 in none
        within 80,000, and a test after every string finds no more. A net that fails is wrong in a hundred strings or
        so, never in a few: the last T or P is that of one kind of string only, or one choice inside is always wrong.
        One block has become the bias that the outputs lack, its cells saturated and equal. Why the paper's learn is not
        known to us. What helps, by its weight: the full gradient (half of the paper's nets learn, as fast as
        published); output units with biases; gates that see the cells and not each other, so a net has fewer weights;
        targets that are all symbols that may follow; output gates' biases that end at -3 with four blocks as with
        three; input gates that begin a little open and weights that begin in a range of 0.1. With all of these, two
        thirds to nine tenths of the nets learn within ``patience / lr`` strings; the others stay in local minima, so
        they begin anew. The strings before that are counted in full. With the truncated gradient and all else the same,
        45 (4 x 1: 25) of a hundred nets learn within 5,000 strings at the rate of 0.5, and with new beginnings the
        counts are above the bars. With g in [-1, 1] and h in [-2, 2] (the paper's table 10 has it so, its text the
        other way round) a quarter of the paper's nets learn; with an update after every string, fewer than with one
        after every symbol. What changed little: the rate, decay of the weights, noise on them, cross-entropy. All of
        this was found with nets of other seeds. The test comes once in ``block`` strings. The Elman net is trained as
        the modern net is, one step back.
    """

    id: ClassVar[str] = "hochreiter-1997-e1-reber"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("at_once_4x1_0.1", 1.0, "higher", "100 %", "table 1, 4 x 1, lr 0.1; no new beginning", "read"),
        Claim("strings_4x1_0.1", 39_740, "lower", "39,740", "table 1, 4 x 1, lr 0.1; by RTRL, all beginnings", "read"),
        Claim("at_once_3x2_0.1", 1.0, "higher", "100 %", "table 1, 3 x 2, lr 0.1; no new beginning", "read"),
        Claim("strings_3x2_0.1", 21_730, "lower", "21,730", "table 1, 3 x 2, lr 0.1; by RTRL, all beginnings", "read"),
        Claim("at_once_3x2_0.2", 0.97, "higher", "97 %", "table 1, 3 x 2, lr 0.2; no new beginning", "read"),
        Claim("strings_3x2_0.2", 14_060, "lower", "14,060", "table 1, 3 x 2, lr 0.2; by RTRL, all beginnings", "read"),
        Claim("at_once_4x1_0.5", 0.97, "higher", "97 %", "table 1, 4 x 1, lr 0.5; no new beginning", "read"),
        Claim("strings_4x1_0.5", 9_500, "lower", "9,500", "table 1, 4 x 1, lr 0.5; by RTRL, all beginnings", "read"),
        Claim("at_once_3x2_0.5", 1.0, "higher", "100 %", "table 1, 3 x 2, lr 0.5; no new beginning", "read"),
        Claim("strings_3x2_0.5", 8_440, "lower", "8,440", "table 1, 3 x 2, lr 0.5; by RTRL, all beginnings", "read"),
        Claim("solved_share_modern", 1.0, "higher", "", "LSTM, BPTT and Adam"),
        Claim("strings_modern", 4_800, "lower", "", "LSTM, BPTT and Adam; the number is an open re-implementation's"),
        Claim("solved_share_elman", 0.49, "lower", "0 %", "table 1, Elman net, one step back", "read", control=True),
    )

    num_trials: int = 30
    most: int = 400_000
    patience: float = 2_500.0
    weight_range: float = 0.1
    num_strings: int = 256
    block: int = 128
    num_trials_published: int = 10
    most_published: int = 40_000
    num_trials_modern: int = 30
    modern_size: int = 32
    modern_most: int = 12_800
    modern_batch_size: int = 2
    modern_lr: float = 0.01

    @classmethod
    def smoke(cls) -> Self:
        """One trial of each, few strings."""
        return cls(
            num_trials=1,
            most=8,
            patience=2.0,
            num_strings=8,
            block=4,
            num_trials_published=1,
            most_published=4,
            num_trials_modern=2,
            modern_size=4,
            modern_most=64,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """The five settings, the net as published, then the modern net and the control."""
        settings = {f"{n}x{size}_{lr}": (n, size, lr) for n, size, lr in _SETTINGS}
        progress = Stages(log, {**dict.fromkeys(settings, 2.0), "as published": 1, "modern": 3, "Elman": 3})
        metrics: dict[str, float] = {}
        for name, (num_blocks, block_size, lr) in settings.items():
            trials = self._trials(
                self.num_trials,
                partial(self._begin, num_blocks, block_size, lr),
                self.most,
                self.block * max(1, round(self.patience / lr / self.block)),
                progress(name),
            )
            learned = [trial.strings for trial in trials if trial.solved]
            metrics[f"strings_{name}"] = mean(learned or [trial.strings for trial in trials])
            metrics[f"solved_share_{name}"] = mean([float(trial.solved) for trial in trials])
            metrics[f"at_once_{name}"] = mean([float(trial.solved and trial.begun == 1) for trial in trials])
            metrics[f"weights_{name}"] = trials[0].weights
        most = self.most_published
        trials = self._trials(self.num_trials_published, self._as_published, most, most, progress("as published"))
        metrics["solved_share_as_published"] = mean([float(trial.solved) for trial in trials])
        metrics["weights_as_published"] = trials[0].weights
        curves: dict[str, list[float]] = {}
        for name, kind, rule in (
            ("modern", partial(LSTMCell, chrono_steps=20), BPTT()),
            ("elman", partial(ElmanCell, activation="sigmoid"), TruncatedBPTT(k1=1, k2=1)),
        ):
            share, count, curve = self._side_by_side(kind, rule, progress("Elman" if name == "elman" else "modern"))
            metrics |= {f"solved_share_{name}": share, f"strings_{name}": count}
            curves[name] = curve
        log.figure("learned", lambda figure: _draw(figure, curves, self.num_trials_modern))
        return metrics

    def _trials(
        self,
        number: int,
        begin: Callable[[Strings, torch.Generator], tuple[Learner, Chunk]],
        most: int,
        patience: int,
        progress: Callable[[float], None],
    ) -> list[_Trial]:
        def told(seed: int) -> Callable[[float], None]:
            return lambda done: progress((seed + min(1.0, done)) / number)

        return [self._trial(begin, most, patience, seed, told(seed)) for seed in range(number)]

    def _trial(
        self,
        begin: Callable[[Strings, torch.Generator], tuple[Learner, Chunk]],
        most: int,
        patience: int,
        seed: int,
        progress: Callable[[float], None],
    ) -> _Trial:
        """Strings drawn from those to learn, until all symbols of all strings are right; after ``patience`` a new net."""
        generator = torch.Generator().manual_seed(seed)
        strings = different_strings(self.num_strings, seed % 3)
        learner, train = begin(strings, generator)
        count, begun = 0, 1
        while count < most:
            rows = torch.randint(self.num_strings, (self.block,), generator=generator)
            learner.learn(rows_of(train, rows))
            count += self.block
            progress(count / most)
            if bool(_all_right(learner.net, strings)):
                return _Trial(count, True, begun, num_weights(learner.net))
            if count % patience == 0 and count < most:
                learner, train = begin(strings, generator)
                begun += 1
        return _Trial(count, False, begun, num_weights(learner.net))

    def _begin(
        self, num_blocks: int, block_size: int, lr: float, strings: Strings, generator: torch.Generator
    ) -> tuple[Learner, Chunk]:
        """A net with new weights that learns by the full gradient, and what it learns: all symbols that may follow."""
        net = net_1997(
            7,
            7,
            num_blocks=num_blocks,
            block_size=block_size,
            weight_range=self.weight_range,
            input_gate_bias=tuple(0.3 * (j + 1) for j in range(num_blocks)),
            output_gate_bias=tuple(-3.0 * (j + 1) / num_blocks for j in range(num_blocks)),
            cell_bias=False,
            gate_recurrence=False,
            generator=generator,
        )
        train = strings.train._replace(targets=strings.train_legal.to(strings.train.xs.dtype))
        return Learner(net, _LOGISTIC, lr, RTRL()), train

    def _as_published(self, strings: Strings, generator: torch.Generator) -> tuple[Learner, Chunk]:
        """The paper's net of three blocks of two, its truncated gradient at the rate of 0.5, its targets: the next symbol."""
        net = net_1997(
            7,
            7,
            num_blocks=3,
            block_size=2,
            weight_range=0.2,
            output_gate_bias=(-1.0, -2.0, -3.0),
            cell_bias=False,
            readout_bias=False,
            generator=generator,
        )
        return Learner(net, _LOGISTIC, 0.5), strings.train

    def _side_by_side(
        self, kind: Callable[..., Cell], rule: LearningRule[Any], progress: Callable[[float], None]
    ) -> tuple[float, float, list[float]]:
        """Share of the nets that learned, mean number of strings until then, and how many had after each test."""
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        number = self.num_trials_modern
        nets = Ensemble(*[Readout(kind(7, self.modern_size), 7) for _ in range(number)])
        strings = different_strings(self.num_strings, 0)
        learned = torch.full((number,), float(self.modern_most))
        curve: list[float] = []
        total = -(-self.modern_most // self.modern_batch_size)
        every = max(1, 320 // self.modern_batch_size)

        def chunks() -> Any:
            for _ in range(total):
                rows = torch.randint(strings.train.xs.shape[1], (self.modern_batch_size,), generator=generator)
                batch = rows_of(strings.train, rows)
                xs, targets = (t.unsqueeze(2).expand(-1, -1, number, -1) for t in (batch.xs, batch.targets))
                targets = targets.argmax(-1)
                first = (torch.arange(len(xs)) == 0)[:, None].expand(-1, self.modern_batch_size)
                yield Chunk(xs, targets, None, batch.controls._replace(reset=first))

        def look(update: Progress) -> bool:
            progress(update.num_steps / total)
            if update.num_steps % every == 0:
                count = float(update.num_steps * self.modern_batch_size)
                right = _all_right(nets, strings)
                learned[right & (learned == self.modern_most)] = count
                curve.append(float((learned < self.modern_most).sum()))
            return bool((learned < self.modern_most).all())

        adam = partial(torch.optim.Adam, lr=self.modern_lr)
        fit(nets, chunks(), MemberSum(CrossEntropy()), adam, rule=rule, num_steps=total, on_step=look)
        return float((learned < self.modern_most).double().mean()), float(learned.mean()), curve


@torch.no_grad()
def _all_right(net: Cell, strings: Strings) -> Tensor:
    """() bool, or (N,) of an ensemble: is every symbol of every string right?"""
    right: Tensor | None = None
    for chunk, legal in ((strings.train, strings.train_legal), (strings.test, strings.test_legal)):
        xs, allowed = chunk.xs.to(net.dtype), legal
        if isinstance(net, Ensemble):
            xs = xs.unsqueeze(2).expand(-1, -1, net.num_members, -1)
            allowed = legal.unsqueeze(2).expand(xs.shape)
        ys, _ = Auto()(net, xs, None, chunk.controls)
        good = symbols_right(ys, allowed)
        alive = chunk.controls.alive(len(xs))
        assert alive is not None
        good = (good | ~(alive if good.ndim == 2 else alive.unsqueeze(2))).flatten(0, 1).all(0)
        right = good if right is None else right & good
        if not bool(right.any()):
            break
    assert right is not None
    return right


def _draw(figure: Any, curves: Mapping[str, list[float]], number: int) -> None:
    """How many nets have learned all strings."""
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(range(320, 320 * len(curve) + 1, 320), curve, label=name)
    axis.set(xlabel="strings", ylabel=f"nets of {number} that were right everywhere")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
