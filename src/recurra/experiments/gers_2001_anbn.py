"""Gers & Schmidhuber 2001: a context-free language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import Cell, Claim, Experiment, Log
from ..tasks.counting import ANBN
from .counting import Recipe, longest, median, peephole_net, tanh_net


@dataclass(frozen=True)
class Gers2001Anbn(Experiment):
    """One memory cell with peepholes learns a^n b^n from ten short strings, and goes on counting far beyond them.

    At every step the net says which symbols may follow; a string is accepted where that is right at every one of them.

    Args:
        num_seeds: trials of each kind of net.
        largest: n of the training strings goes from 1 to this.
        limit: no n above is tried.
        num_cells: memory cells, one a block.
        num_units: of the tanh net that is the control.
        num_starts: random starts of a trial.
        held_out: longest training strings that are not learned at first; the start with the lowest loss on them goes on.
        num_updates: of Adam, all training strings in each.
        lr: Adam's learning rate.
        num_iterations: of L-BFGS, after that.
    Source:
        Gers & Schmidhuber 2001, "LSTM recurrent networks learn simple context-free and context-sensitive languages", IEEE
        Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769 (abstract read; set-up and numbers from memory, with
        a question mark)
    Differs:
        Backpropagation through time, Adam and then L-BFGS in float64, all strings in every update, instead of truncated
        gradients on one string after the other. Output units are linear with a cross-entropy behind them, the cell's output
        is squashed. A trial has several random starts, of which one is chosen by the longest of the training strings,
        learned last. The net is tested once, after its training.
    """

    id: ClassVar[str] = "gers-2001-anbn"
    source: ClassVar[str] = (
        "Gers & Schmidhuber 2001, IEEE Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("trained_range_solved", 1.0, "higher", "100 %?", "trials that accept n = 1..10", "from memory"),
        Claim("n_median", 118, "higher", "118? (mean)", "all n up to this accepted, median", "from memory"),
        Claim("n_best", 1000, "higher", "1000?", "the same, best trial", "from memory"),
        Claim("n_median_tanh", 30, "lower", "", "tanh units in the place of the cell", control=True),
    )

    num_seeds: int = 10
    largest: int = 10
    limit: int = 1200
    num_cells: int = 1
    num_units: int = 4
    num_starts: int = 4
    held_out: int = 2
    num_updates: int = 400
    lr: float = 0.03
    num_iterations: int = 120

    @classmethod
    def smoke(cls) -> Self:
        """One trial, few updates."""
        return cls(num_seeds=1, largest=4, limit=20, num_starts=2, held_out=1, num_updates=10, num_iterations=5)

    def run(self, log: Log) -> Mapping[str, float]:
        """All trials of both kinds."""
        recipe = Recipe(self.num_starts, self.held_out, self.num_updates, self.lr, self.num_iterations)
        lstm, tanh = [], []
        for seed in range(self.num_seeds):
            log("LSTM, tanh", seed / self.num_seeds)
            lstm.append(recipe.best(partial(peephole_net, ANBN, self.num_cells), ANBN, self.largest, seed))
            tanh.append(recipe.best(partial(tanh_net, ANBN, self.num_units), ANBN, self.largest, seed))
        reach = [longest(net, ANBN, self.limit) for net in lstm]
        control = [longest(net, ANBN, self.limit) for net in tanh]
        best = lstm[max(range(self.num_seeds), key=lambda i: reach[i])]
        log.figure("counting", partial(_draw, reach, control, memory_trace(best, min(100, self.limit))))
        return {
            "trained_range_solved": sum(n >= self.largest for n in reach) / len(reach),
            "n_median": median(reach),
            "n_best": max(reach),
            "n_median_tanh": median(control),
            "n_least": min(reach),
            "n_best_tanh": max(control),
            "trained_range_solved_tanh": sum(n >= self.largest for n in control) / len(control),
            "trials_that_reach_1000": sum(n >= 1000 for n in reach),
        }


@torch.no_grad()
def memory_trace(net: Cell, n: int) -> Tensor:
    """(T, H) memory cells along one string."""
    state, kept = net.initial_state(1), []
    for x in ANBN.inputs(ANBN.strings([(n,)])).double():
        _, state = net.step(x, state)
        kept.append(state.c[0])
    return torch.stack(kept)


def _draw(reach: list[int], control: list[int], trace: Tensor, figure: Any) -> None:
    """How far each trial counts, and the memory cell of the best one."""
    left, right = figure.subplots(1, 2)
    places = torch.arange(1, len(reach) + 1)
    left.semilogy(places, sorted(max(n, 0.5) for n in reach), "o", label="LSTM with peepholes")
    left.semilogy(places, sorted(max(n, 0.5) for n in control), "s", color="#cc3311", label="tanh")
    left.axhline(10, color="0.7", lw=0.8, ls="--")
    left.set(xlabel="trial, sorted", ylabel="all n up to this are right")
    left.legend(frameon=False)
    right.plot(trace)
    right.set(xlabel="step", ylabel="c")
    right.set_title(f"Memory cell on a^{len(trace) // 2} b^{len(trace) // 2}", loc="left", fontsize=10)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
