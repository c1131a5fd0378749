"""Weiss et al. 2018: what can count, and what cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells import ElmanCell, GRUCell, LSTMCell
from ..core import BinaryCrossEntropy, Cell, Chunk, Claim, Experiment, Log
from ..core import tree as trees
from ..engines import Auto, Native
from ..learning import BPTT
from ..tasks.counting import ANBN, ANBNCN, CountingLanguage
from ..training import fit
from ..wrappers import Readout, Record, Skip
from .counting import all_right, learn_strings, legal_by_half, legal_chunk, longest, median

CELLS: dict[str, Callable[[int, int, torch.Generator], Cell]] = {
    "LSTM": lambda d, h, g: LSTMCell(d, h, forget_bias=3.0, generator=g),
    "GRU": lambda d, h, g: GRUCell(d, h, generator=g),
}


@dataclass(frozen=True)
class Weiss2018Counting(Experiment):
    """LSTM and ReLU nets can count without end; GRU and tanh nets cannot, and do not learn to.

    Built by hand in float32, an LSTM with one memory cell and a ReLU net with two units recognise a^n b^n up to n = a million.
    The state of a squashing net is bounded: along a a a ... it comes back exactly to a state that it was in before, from where
    on no reader could tell how many there were. Trained nets: LSTM goes on beyond the lengths of its training, its memory
    cells being counters; GRU fails.

    Args:
        num_seeds: trained nets of each kind and language.
        hidden_size: H.
        largest: n of the training strings goes from 1 to this, a^n b^n and a^n b^n c^n.
        limits: no n above is tried.
        num_updates: of each net.
        batch_size: strings in an update.
        lr: Adam's learning rate, falling in a line to a twentieth.
        num_iterations: of L-BFGS, on some thirty strings of all lengths, after that.
        built_n: n of the nets built by hand.
        num_repeats: steps in which the state of a squashing net must come back.
        plot_n: n of the pictures.
    Source:
        Weiss, Goldberg & Yahav 2018, "On the practical computational power of finite precision RNNs for language recognition",
        ACL, arXiv:1805.04908 (abstract read; set-up and numbers from memory)
    Differs:
        Nets say at every step which symbols may follow (one output for each) instead of guessing the next symbol: that spares
        them the noise of what cannot be known. The largest n of the training strings grows in the first half of the training.
        Forget gates begin at a bias of 3. Trained in float64, tested in float32.
    """

    id: ClassVar[str] = "weiss-2018-counting"
    source: ClassVar[str] = "Weiss, Goldberg & Yahav 2018, ACL, arXiv:1805.04908"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("built_lstm_n", 1e6, "higher", "counts", "LSTM by hand, float32", "theorem"),
        Claim("built_relu_n", 1e6, "higher", "counts", "ReLU net by hand, float32", "theorem"),
        Claim("lstm_anbn_n", 256, "higher", "256", "a^n b^n, n <= 100 trained, median", "from memory"),
        Claim("lstm_anbncn_n", 100, "higher", "100", "a^n b^n c^n, n <= 50 trained, median", "from memory"),
        Claim(
            "counter_r2", 0.99, "higher", "a linear counter (figure)", "one LSTM cell against the count", "from memory"
        ),
        Claim("gru_anbn_part", 0.5, "lower", "fails from n = 39", "GRU, best, over LSTM", "from memory", control=True),
        Claim("gru_anbncn_part", 0.5, "lower", "fails from n = 9", "GRU, best, over LSTM", "from memory", control=True),
        Claim("squashing_states_repeat", 1.0, "higher", "finite", "tanh and GRU nets", "theorem", control=True),
        Claim("counting_states_repeat", 0.0, "lower", "", "nets built by hand, as many steps", "theorem"),
    )

    num_seeds: int = 3
    hidden_size: int = 10
    largest: tuple[int, int] = (100, 50)
    limits: tuple[int, int] = (600, 300)
    num_updates: int = 1500
    batch_size: int = 8
    lr: float = 0.03
    num_iterations: int = 150
    built_n: int = 1_000_000
    num_repeats: int = 2_000_000
    plot_n: int = 1000

    @classmethod
    def smoke(cls) -> Self:
        """Short strings, a few updates."""
        return cls(
            num_seeds=1,
            largest=(4, 3),
            limits=(10, 10),
            num_updates=30,
            num_iterations=5,
            built_n=50,
            num_repeats=5000,
            plot_n=20,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """By hand, then trained, then their states."""
        log("by hand", 0.0)
        lstm, relu = hand_built_lstm(), hand_built_relu()
        metrics = {"built_lstm_n": self._reaches(lstm), "built_relu_n": self._reaches(relu)}
        nets: dict[tuple[str, int], list[Cell]] = {}
        for i, (name, place) in enumerate((name, place) for name in CELLS for place in (0, 1)):
            log(f"{name}, {('a^n b^n', 'a^n b^n c^n')[place]}", 0.05 + 0.85 * i / (2 * len(CELLS)))
            nets[name, place] = [self._trained(name, place, seed) for seed in range(self.num_seeds)]
        reach = {
            key: [float(longest(net, (ANBN, ANBNCN)[key[1]], self.limits[key[1]])) for net in each]
            for key, each in nets.items()
        }
        log("states", 0.9)
        for place, language in enumerate(("anbn", "anbncn")):
            ours = median(reach["LSTM", place])
            metrics |= {
                f"lstm_{language}_n": ours,
                f"gru_{language}_part": max(reach["GRU", place]) / max(ours, 1.0),
                f"gru_{language}_n": median(reach["GRU", place]),
                f"lstm_{language}_n_least": min(reach["LSTM", place]),
                f"lstm_{language}_n_most": max(reach["LSTM", place]),
            }
        tanh = [
            ElmanCell(3, self.hidden_size, recurrent_init="orthogonal", generator=torch.Generator().manual_seed(seed))
            for seed in range(self.num_seeds)
        ]
        squashing = [*tanh, *(net.cell for net in nets["GRU", 0])]
        repeats = [self._repeats(cell) for cell in squashing]
        log.figure("counters", partial(self._draw, nets["LSTM", 0][0], nets["GRU", 0][0]))
        return {
            **metrics,
            "counter_r2": median([counter_r2(net, self.largest[0]) for net in nets["LSTM", 0]]),
            "squashing_states_repeat": sum(n > 0 for n in repeats) / len(repeats),
            "squashing_states_repeat_after_at_most": float(max(repeats)),
            "counting_states_repeat": float(any(self._repeats(cell) for cell in (lstm, relu))),
        }

    def _reaches(self, net: Cell) -> float:
        """The largest n tried, if all strings are right up to some n and at the largest ones, else 0."""
        top = self.built_n
        each = sorted({*range(1, min(top, 100) + 1), top // 3, top // 2, top - 1, top})
        small = [(n,) for n in each if n <= 100]
        good = bool(all_right(net, ANBN, small, legal_by_half).all())
        for n in (n for n in each if n > 100):
            good = good and bool(all_right(net, ANBN, [(n,)], legal_by_half).all())
        return float(top if good else 0)

    def _trained(self, name: str, place: int, seed: int) -> Cell:
        """One net, trained."""
        language, largest = (ANBN, ANBNCN)[place], self.largest[place]
        generator = torch.Generator().manual_seed(seed)
        size = language.num_symbols + 1
        net = Readout(CELLS[name](size, self.hidden_size, generator), size, generator=generator).double()

        def chunks() -> Iterator[Chunk]:
            for n in range(self.num_updates):
                top = min(largest, 5 + largest * 2 * n // self.num_updates)
                values = torch.randint(1, top + 1, (self.batch_size,), generator=generator).tolist()
                yield legal_chunk(language, [(value,) for value in values])

        fit(
            net,
            chunks(),
            BinaryCrossEntropy(),
            partial(torch.optim.Adam, lr=self.lr),
            rule=BPTT(Native(silent=True)),
            clip_norm=1.0,
            lr_schedule=lambda n: 1 - 0.95 * n / self.num_updates,
        )
        some = sorted({*range(1, min(20, largest) + 1), *range(5, largest + 1, 5), largest})
        chunk = legal_chunk(language, [(value,) for value in some])
        learn_strings(net, chunk, num_updates=0, lr=0.0, num_iterations=self.num_iterations)
        return net.float()

    @torch.no_grad()
    def _repeats(self, cell: Cell) -> int:
        """After how many steps of a a a ... the state is, bit by bit, one that was before; 0 for never.

        A step is a function of the state alone here, so a state that comes back comes back for ever. Brent's way: compare
        with the state at the last power of two.
        """
        width = 1000
        xs = torch.nn.functional.one_hot(torch.ones(width, 1, dtype=torch.int64), 3).float()
        shown = Record(cell)
        state = kept = cell.initial_state(1)
        done, mark = 0, width
        while done < self.num_repeats:
            seen, state = Auto()(shown, xs, state)
            pairs = trees.zip_leaves(seen.state, kept)
            same = torch.stack([(leaf == was).flatten(1).all(1) for leaf, was in pairs]).all(0)
            if bool(same.any()):
                return done + int(same.int().argmax()) + 1
            done += width
            if done >= mark:
                kept, mark = state, 2 * done
        return 0

    @torch.no_grad()
    def _draw(self, lstm: Cell, gru: Cell, figure: Any) -> None:
        """States along one long string, both nets."""
        axes = figure.subplots(1, 2)
        for axis, net, name in zip(axes, (lstm, gru), ("LSTM, memory cells c", "GRU, states h")):
            states = _states(net, ANBN, self.plot_n)
            axis.plot(states, lw=1)
            axis.axvline(self.plot_n, color="0.7", lw=0.8, ls="--")
            axis.set(xlabel="step", ylabel="value")
            axis.set_title(f"{name} on a^{self.plot_n} b^{self.plot_n}", loc="left", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)


def hand_built_lstm() -> Cell:
    """One memory cell: +1 at each a, -1 at each b, gates open; the gates and tanh are exactly 0 or 1 in float32.

    After the step, tanh(c) > 0 says that b may follow, c = 0 behind a b that the end must.
    """
    net = Readout(Skip(LSTMCell(3, 1)), 3)
    cell = net.cell.cell
    assert isinstance(cell, LSTMCell)
    assert cell.bias is not None
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        cell.bias[:] = torch.tensor([200.0, 200.0, 0.0, 200.0])  # i, f, g, o
        cell.weight_ih[2] = torch.tensor([0.0, 50.0, -50.0])  # g: start, a, b
        _count_readout(net.linear, torch.tensor([1.0]))
    return net


def hand_built_relu() -> Cell:
    """Two units, one counts a, the other b:  p' = relu(p + [a]),  m' = relu(m + [b]);  p - m is the count."""
    net = Readout(Skip(ElmanCell(3, 2, activation="relu")), 3)
    cell = net.cell.cell
    assert isinstance(cell, ElmanCell)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        cell.weight_hh[:] = torch.eye(2)
        cell.weight_ih[:] = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        _count_readout(net.linear, torch.tensor([1.0, -1.0]))
    return net


def _count_readout(linear: torch.nn.Linear, count: Tensor) -> None:
    """a may follow the start or a; b, a count above 0; the end, a b that leaves 0. ``count`` reads 0, or 0.7 and more."""
    nothing = torch.zeros_like(count)
    linear.weight[:] = torch.stack(
        [
            torch.cat([nothing, torch.tensor([1.0, 1.0, -1.0])]),
            torch.cat([count, torch.zeros(3)]),
            torch.cat([-count, torch.tensor([-1.0, 0.0, 0.0])]),
        ]
    )
    linear.bias[:] = torch.tensor([0.0, -0.3, 0.3])


@torch.no_grad()
def _states(net: Cell, language: CountingLanguage, n: int) -> Tensor:
    """(T, H) what the net keeps along one string: c where it has one, else h."""
    xs = language.inputs(language.strings([(n,)]))
    state, kept = net.initial_state(1), []
    for x in xs:
        _, state = net.step(x, state)
        kept.append(getattr(state, "c", state.h)[0])
    return torch.stack(kept)


def counter_r2(net: Cell, n: int) -> float:
    """The largest R^2 of one memory cell with the number of a's minus the number of b's, along a^n b^n."""
    states = _states(net, ANBN, n)[1:].double()
    count = torch.cat([torch.arange(1, n + 1), torch.arange(n - 1, -1, -1)]).double()
    both = torch.cat([states.T, count[None]])
    return float(torch.corrcoef(both)[-1, :-1].nan_to_num().square().max())
