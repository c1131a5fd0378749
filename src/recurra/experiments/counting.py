"""What experiments on counting languages share: how far a net counts without a mistake, and the net of Gers and Schmidhuber."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..cells import ElmanCell, LSTMCell
from ..core import BinaryCrossEntropy, Cell, Chunk, Controls, Loss
from ..engines import Auto, Native
from ..learning import BPTT
from ..tasks.counting import CountingLanguage, Strings
from ..training import MemberSum, fit
from ..wrappers import Ensemble, Readout, Skip

Right = Callable[[Tensor, Strings], Tensor]
"""From outputs (T, B, ...) and strings: (T, B), is what the net says at this step right?"""


def legal_by_half(ys: Tensor, strings: Strings) -> Tensor:
    """Logits name exactly the symbols that may follow: each output is above one half where, and only where, it should be."""
    return ((ys > 0) == strings.legal).all(-1)


@torch.no_grad()
def all_right(
    cell: Cell, language: CountingLanguage, each: Sequence[tuple[int, ...]], right: Right = legal_by_half
) -> Tensor:
    """(B,) is every step of these strings right?"""
    strings = language.strings(each)
    xs = language.inputs(strings).to(next(cell.parameters()).dtype)
    ys, _ = Auto()(cell, xs, None, Controls(lengths=strings.lengths))
    behind = torch.arange(len(ys))[:, None] >= strings.lengths
    return (right(ys, strings) | behind).all(0)


def longest(cell: Cell, language: CountingLanguage, limit: int, right: Right = legal_by_half, width: int = 64) -> int:
    """The largest N up to ``limit`` such that all strings with n = 1 .. N are right; 0 where not even n = 1 is.

    Args:
        cell: a net that reads one-hot symbols.
        language: with one free number.
        limit: no string with a larger n is tried.
        right: judges one step.
        width: strings read side by side.
    """
    for first in range(1, limit + 1, width):
        last = min(first + width - 1, limit)
        good = all_right(cell, language, [(n,) for n in range(first, last + 1)], right)
        if not bool(good.all()):
            return first - 1 + int(good.int().argmin())
    return limit


def legal_chunk(language: CountingLanguage, each: list[tuple[int, ...]]) -> Chunk:
    """All these strings; targets are the symbols that may follow."""
    strings = language.strings(each)
    return Chunk(language.inputs(strings).double(), strings.legal.double(), None, Controls(lengths=strings.lengths))


def peephole_net(
    language: CountingLanguage, num_cells: int, generator: torch.Generator, forget_bias: float = 5.0
) -> Cell:
    """LSTM with forget gates and peepholes, one cell a block; the outputs see the cells and the input units."""
    inputs = language.num_symbols + 1
    cell = LSTMCell(inputs, num_cells, peephole=True, forget_bias=forget_bias, generator=generator)
    return Readout(Skip(cell), inputs, generator=generator).double()


def tanh_net(language: CountingLanguage, num_units: int, generator: torch.Generator) -> Cell:
    """Elman's net in the place of the LSTM."""
    inputs = language.num_symbols + 1
    return Readout(Skip(ElmanCell(inputs, num_units, generator=generator)), inputs, generator=generator).double()


def learn_strings(net: Cell, chunk: Chunk, *, num_updates: int, lr: float, num_iterations: int) -> float:
    """Learn a fixed set of strings: Adam, then L-BFGS (quasi-Newton), which brings the loss down to rounding errors.

    Where the outputs are right everywhere, the loss falls only as the net sees the strings ever more clearly apart: the
    counter becomes exact and its threshold moves to the middle. Adam takes very long for that.

    Args:
        net: in float64, trained in place.
        chunk: the strings, all in one batch.
        num_updates: of Adam, its rate falling in a line to a tenth.
        lr: Adam's learning rate.
        num_iterations: of L-BFGS, at most.

    Returns:
        The loss at the end, summed over all steps of all strings.
    """
    rule, loss = BPTT(Native(silent=True)), BinaryCrossEntropy()
    if num_updates:
        fit(
            net,
            (chunk for _ in range(num_updates)),
            loss,
            partial(torch.optim.Adam, lr=lr),
            rule=rule,
            clip_norm=1.0,
            lr_schedule=lambda n: 1 - 0.9 * n / num_updates,
        )
    named, carry = dict(net.named_parameters()), rule.init(net, chunk.xs.shape[1])
    newton = torch.optim.LBFGS(
        net.parameters(),
        max_iter=num_iterations,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
    )

    def closure() -> float:
        _, estimate = rule.step(net, carry, chunk, loss)
        for name, direction in estimate.direction.items():
            named[name].grad = direction
        return float(estimate.loss)

    newton.step(closure)
    return closure()


@dataclass(frozen=True)
class Recipe:
    """How a counter is found: several random starts learn the shorter strings, the best of them goes on with all.

    Which start is best is told by its loss on the longest training strings, which it has not learned by then: a net that counts
    has a small one, a net that learned the strings in some other way has not.

    Args:
        num_starts: random starts.
        held_out: how many of the longest training strings (or, of those with several numbers, those with the largest) are
            not learned at first.
        num_updates: of Adam, all strings in each.
        lr: Adam's learning rate.
        num_iterations: of L-BFGS, after that, and again with all strings.
    """

    num_starts: int
    held_out: int
    num_updates: int
    lr: float
    num_iterations: int

    def best(self, make: Callable[[torch.Generator], Cell], language: CountingLanguage, top: int, seed: int) -> Cell:
        """A net that has learned all strings whose numbers are at most ``top``."""
        each = list(product(range(1, top + 1), repeat=language.num_free))
        short = [values for values in each if max(values) <= top - self.held_out]
        held = legal_chunk(language, [values for values in each if max(values) > top - self.held_out])
        found: list[tuple[float, Cell]] = []
        for start in range(self.num_starts):
            net = make(torch.Generator().manual_seed(1000 * seed + start))
            learn_strings(
                net,
                legal_chunk(language, short),
                num_updates=self.num_updates,
                lr=self.lr,
                num_iterations=self.num_iterations,
            )
            found.append((loss_of(net, held), net))
        best = min(found, key=lambda pair: pair[0])[1]
        self.go_on(best, legal_chunk(language, each))
        return best

    def go_on(self, net: Cell, chunk: Chunk) -> None:
        """Learn more strings."""
        learn_strings(net, chunk, num_updates=0, lr=self.lr, num_iterations=self.num_iterations)


@dataclass(frozen=True)
class Starts:
    """How a counter that goes on beyond its training strings is found: many random starts side by side, and a penalty.

        loss + penalty (sum of the squares of recurrent and peephole weights),   loss summed over all steps of all strings

    The steps of a counter with small such weights do not depend on what it has counted so far. The penalty is largest in the
    search, and falls from stage to stage of what follows. Which start goes on is told by its loss on the longest training
    strings, which it has not learned by then.

    Args:
        number: random starts.
        held_out: longest training strings that are not learned in the search.
        num_updates: of Adam in the search, all strings in each.
        lr: Adam's learning rate in the search; in every stage it falls in a line to a hundredth.
        penalty: in the search.
        stages: penalty, learning rate and number of updates of each stage after that, with all strings.
    """

    number: int
    held_out: int
    num_updates: int
    lr: float
    penalty: float
    stages: tuple[tuple[float, float, int], ...]

    def best(self, make: Callable[[torch.Generator], Cell], language: CountingLanguage, top: int, seed: int) -> Cell:
        """A net that has learned all strings up to ``top``; the language has one free number."""
        generators = [torch.Generator().manual_seed(1000 * seed + start) for start in range(self.number)]
        nets = Ensemble(*[make(generator) for generator in generators])
        short, held, each = (
            legal_chunk(language, [(n,) for n in numbers])
            for numbers in (
                range(1, top - self.held_out + 1),
                range(top - self.held_out + 1, top + 1),
                range(1, top + 1),
            )
        )
        _penalised(nets, _for_members(short, self.number), self.num_updates, self.lr, self.penalty)
        unknown, lengths = _for_members(held, self.number), held.controls.lengths
        assert lengths is not None
        with torch.no_grad():
            ys, _ = Auto()(nets, unknown.xs, None, unknown.controls)
            alive = torch.arange(len(ys))[:, None] < lengths
            losses = (BinaryCrossEntropy().per_step(ys, unknown.targets) * alive[..., None]).sum((0, 1))
        net = nets.member(int(losses.argmin()))
        self.go_on(net, each, self.stages)
        return net

    def go_on(self, net: Cell, chunk: Chunk, stages: Sequence[tuple[float, float, int]]) -> None:
        """Learn these strings, stage by stage."""
        for penalty, lr, num_updates in stages:
            _penalised(net, chunk, num_updates, lr, penalty)


def _for_members(chunk: Chunk, number: int) -> Chunk:
    """The same strings for every member of an ensemble."""
    xs, targets = (t.unsqueeze(2).expand(-1, -1, number, -1) for t in (chunk.xs, chunk.targets))
    return Chunk(xs, targets, None, chunk.controls)


def _penalised(net: Cell, chunk: Chunk, num_updates: int, lr: float, penalty: float) -> None:
    """Adam on the loss of all strings and the penalty, for a net or an ensemble."""
    named = dict(net.named_parameters())
    inner = [name for name in named if name.rsplit(".", 1)[-1].startswith(("weight_hh", "weight_c"))]
    lengths = chunk.controls.lengths
    assert lengths is not None
    steps = int(lengths.sum())
    groups: list[dict[str, Any]] = [
        {"params": [named[name] for name in inner], "weight_decay": 2 * penalty / steps},
        {"params": [value for name, value in named.items() if name not in inner]},
    ]
    loss: Loss = BinaryCrossEntropy()
    fit(
        net,
        (chunk for _ in range(num_updates)),
        MemberSum(loss) if isinstance(net, Ensemble) else loss,
        torch.optim.Adam(groups, lr=lr),
        rule=BPTT(Native(silent=True)),
        clip_norm=1 / steps,
        lr_schedule=lambda n: 1 - 0.99 * n / num_updates,
    )


def loss_of(net: Cell, chunk: Chunk) -> float:
    """Summed over all steps of all strings."""
    rule = BPTT(Native(silent=True))
    _, estimate = rule.step(net, rule.init(net, chunk.xs.shape[1]), chunk, BinaryCrossEntropy())
    return float(estimate.loss)


def median(values: Sequence[float]) -> float:
    """The mean of the two middle values where their number is even."""
    return float(torch.tensor(sorted(values), dtype=torch.float64).quantile(0.5))
