"""Gers & Schmidhuber 2001: a context-sensitive language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar, Self

from ..core import Claim, Experiment, Log
from ..tasks.counting import ANBMBMAN, ANBNCN
from .counting import Recipe, all_right, legal_chunk, longest, median, peephole_net, tanh_net


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
        num_starts: random starts of a trial.
        held_out: longest training strings that are not learned at first; the start with the lowest loss on them goes on.
        num_updates: of Adam, all training strings in each.
        lr: Adam's learning rate.
        num_iterations: of L-BFGS, after that, and on the longer strings.
        nested_largest: n and m of a^n b^m B^m A^n in training go from 1 to this.
        nested_test: in the test from 1 to this.
    Source:
        Gers & Schmidhuber 2001, "LSTM recurrent networks learn simple context-free and context-sensitive languages", IEEE
        Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769 (abstract read; set-up and numbers from memory, with
        a question mark)
    Differs:
        As in gers-2001-anbn: backpropagation through time, Adam and then L-BFGS in float64, all strings in every update; one
        of several random starts is chosen by the longest of the training strings. What is trained on n = 1..50 begins as
        what was learned on n = 1..10.
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
    limit: int = 700
    num_cells: int = 2
    num_units: int = 6
    num_starts: int = 5
    held_out: int = 2
    num_updates: int = 500
    lr: float = 0.03
    num_iterations: int = 120
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
            num_iterations=5,
            nested_largest=2,
            nested_test=3,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """All trials: short strings, longer ones, the control, the nested language."""
        recipe = Recipe(self.num_starts, self.held_out, self.num_updates, self.lr, self.num_iterations)
        long = legal_chunk(ANBNCN, [(n,) for n in range(1, self.then_largest + 1)])
        taught, tests = (list(product(range(1, n + 1), repeat=2)) for n in (self.nested_largest, self.nested_test))
        reach, reach_long, reach_tanh, nested, nested_tests = [], [], [], [], []
        for seed in range(self.num_seeds):
            log("a^n b^n c^n, a^n b^m B^m A^n", seed / self.num_seeds)
            net = recipe.best(partial(peephole_net, ANBNCN, self.num_cells), ANBNCN, self.largest, seed)
            reach.append(longest(net, ANBNCN, self.limit))
            recipe.go_on(net, long)
            reach_long.append(longest(net, ANBNCN, self.limit))
            net = recipe.best(partial(tanh_net, ANBNCN, self.num_units), ANBNCN, self.largest, seed)
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
