"""Gers & Schmidhuber 2001: a context-sensitive language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar, Self

import torch

from ..core import Cell, Claim, Experiment, Log
from ..tasks.counting import ANBMBMAN, ANBNCN
from .counting import Recipe, Starts, all_right, legal_chunk, longest, median, peephole_net, tanh_net


@dataclass(frozen=True)
class Gers2001Anbncn(Experiment):
    """Two memory cells with peepholes learn a^n b^n c^n, which no stack could, and a^n b^m B^m A^n, which needs one.

    At every step the net says which symbols may follow; a string is accepted where that is right at every one of them.

    Args:
        num_seeds: trials of each kind of net.
        largest: n of the training strings goes from 1 to this.
        then_largest: the same nets then learn n = 1 to this as well.
        limit: no n above is tried.
        num_cells: memory cells, one a block.
        num_units: of the tanh net that is the control.
        forget_bias: of the forget gates at first.
        inner_scale: factor on the recurrent weights at first.
        num_starts: random starts of a trial.
        held_out: longest training strings that are not learned at first; the start with the lowest loss on them goes on.
        num_updates: of Adam in the search among the starts, all strings in each.
        lr: Adam's learning rate there.
        penalty: there, see `Starts`.
        stages: penalty, learning rate, number of updates: what the chosen start goes through with n = 1 to ``largest``.
        stages_then: the same with n = 1 to ``then_largest``.
        nested_starts: random starts of a net for a^n b^m B^m A^n.
        nested_updates: of Adam for each of them.
        nested_iterations: of L-BFGS, after that.
        nested_largest: n and m of a^n b^m B^m A^n in training go from 1 to this.
        nested_test: in the test from 1 to this.
    Source:
        Gers & Schmidhuber 2001, "LSTM recurrent networks learn simple context-free and context-sensitive languages", IEEE
        Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769 (abstract read; set-up and numbers from memory, with
        a question mark)
    Differs:
        Backpropagation through time and Adam in float64, all strings in every update. One of many random starts is chosen by
        the longest of the training strings, and a penalty keeps recurrent and peephole weights small at first: without it
        the nets got to 15 (median) and to 241 after n = 1..50, most of them by steps that depend on the count. The forget
        gates begin nearly open: a counter that loses 0.7 % a step is wrong beyond n = 10. What is trained on n = 1..50
        begins as what was learned on n = 1..10. a^n b^m B^m A^n is learned as in gers-2001-anbn, by Adam and L-BFGS.
    """

    id: ClassVar[str] = "gers-2001-anbncn"
    source: ClassVar[str] = (
        "Gers & Schmidhuber 2001, IEEE Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("n_median", 28, "higher", "28? (mean)", "trained on 1..10: all n up to this, median", "from memory"),
        Claim("n_best", 52, "higher", "52?", "the same, best trial", "from memory"),
        Claim("n_best_50", 500, "higher", "500?", "trained on 1..50, best trial", "from memory"),
        Claim(
            "nested_solved", 0.5, "higher", "solved", "a^n b^m B^m A^n, trials right on training strings", "from memory"
        ),
        Claim("n_median_tanh", 20, "lower", "", "tanh units in the place of the cells", control=True),
    )

    num_seeds: int = 5
    largest: int = 10
    then_largest: int = 50
    limit: int = 1000
    num_cells: int = 2
    num_units: int = 6
    forget_bias: float = 7.0
    inner_scale: float = 0.15
    num_starts: int = 48
    held_out: int = 3
    num_updates: int = 1500
    lr: float = 0.03
    penalty: float = 0.05
    stages: tuple[tuple[float, float, int], ...] = ((0.01, 0.01, 700), (0.002, 0.01, 700), (0.0005, 0.005, 700))
    stages_then: tuple[tuple[float, float, int], ...] = (
        (0.002, 0.01, 2000),
        (0.0005, 0.005, 2000),
        (0.0001, 0.005, 2000),
        (0.00002, 0.003, 2000),
        (0.000004, 0.003, 2000),
    )
    nested_starts: int = 5
    nested_updates: int = 500
    nested_iterations: int = 120
    nested_largest: int = 6
    nested_test: int = 10

    @classmethod
    def smoke(cls) -> Self:
        """One trial, few updates."""
        return cls(
            num_seeds=1,
            largest=3,
            then_largest=4,
            limit=10,
            num_starts=2,
            held_out=1,
            num_updates=10,
            stages=((0.01, 0.01, 3),),
            stages_then=((0.01, 0.01, 3),),
            nested_starts=2,
            nested_updates=10,
            nested_iterations=5,
            nested_largest=2,
            nested_test=3,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """All trials: short strings, longer ones, the control, the nested language."""
        starts = Starts(self.num_starts, self.held_out, self.num_updates, self.lr, self.penalty, self.stages)
        recipe = Recipe(
            self.nested_starts, min(2, self.nested_largest - 1), self.nested_updates, self.lr, self.nested_iterations
        )
        long = legal_chunk(ANBNCN, [(n,) for n in range(1, self.then_largest + 1)])
        taught, tests = (list(product(range(1, n + 1), repeat=2)) for n in (self.nested_largest, self.nested_test))
        reach, reach_long, reach_tanh, nested, nested_tests = [], [], [], [], []
        for seed in range(self.num_seeds):
            log("a^n b^n c^n, a^n b^m B^m A^n", seed / self.num_seeds)
            net = starts.best(self._counter, ANBNCN, self.largest, seed)
            reach.append(longest(net, ANBNCN, self.limit))
            starts.go_on(net, long, self.stages_then)
            reach_long.append(longest(net, ANBNCN, self.limit))
            net = starts.best(partial(tanh_net, ANBNCN, self.num_units), ANBNCN, self.largest, seed)
            reach_tanh.append(longest(net, ANBNCN, self.limit))
            net = recipe.best(partial(peephole_net, ANBMBMAN, self.num_cells), ANBMBMAN, self.nested_largest, seed)
            nested.append(bool(all_right(net, ANBMBMAN, taught).all()))
            nested_tests.append(float(all_right(net, ANBMBMAN, tests).double().mean()))
        kinds = {"trained on 1..10": reach, "then on 1..50": reach_long, "tanh": reach_tanh}
        log.figure("counting", partial(_draw, kinds))
        return {
            "n_median": median(reach),
            "n_best": max(reach),
            "n_best_50": max(reach_long),
            "nested_solved": sum(nested) / len(nested),
            "n_median_tanh": median(reach_tanh),
            "n_median_50": median(reach_long),
            "trained_range_solved": sum(n >= self.largest for n in reach) / len(reach),
            "trained_range_solved_50": sum(n >= self.then_largest for n in reach_long) / len(reach_long),
            "trained_range_solved_tanh": sum(n >= self.largest for n in reach_tanh) / len(reach_tanh),
            "n_best_tanh": max(reach_tanh),
            "nested_tests_right_best": max(nested_tests),
            "nested_tests_right": sum(nested_tests) / len(nested_tests),
        }

    def _counter(self, generator: torch.Generator) -> Cell:
        """The net of `peephole_net` with small recurrent weights."""
        net = peephole_net(ANBNCN, self.num_cells, generator, self.forget_bias)
        for name, value in net.named_parameters():
            if name.endswith("weight_hh"):
                value.data.mul_(self.inner_scale)
        return net


def _draw(kinds: Mapping[str, list[int]], figure: Any) -> None:
    """How far each trial counts."""
    axis = figure.subplots()
    for (name, reach), marker in zip(kinds.items(), "o^s"):
        axis.semilogy(range(1, len(reach) + 1), sorted(max(n, 0.5) for n in reach), marker, label=name)
    for top in (10, 50):
        axis.axhline(top, color="0.7", lw=0.8, ls="--")
    axis.set(xlabel="trial, sorted", ylabel="all n up to this are right")
    axis.set_title("a^n b^n c^n", loc="left", fontsize=10)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
