"""Hodassman et al. 2022: neurons that fall silent identify sequences, their order and their timing, without feedback loops."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..cells.silencing import SilencingCell
from ..core import Claim, Experiment, Log
from ..core.cell import Noisy
from ..engines import Loop


class _Sequence(NamedTuple):
    """symbols: which come; gaps: steps from each one to the next."""

    symbols: tuple[int, ...]
    gaps: tuple[int, ...]


KINDS = ("random", "two neighbours swapped", "one symbol replaced", "one gap changed")


@dataclass(frozen=True)
class Hodassman2022Silencing(Experiment):
    """Who fires at the last symbol tells the whole sequence: its symbols, their order, their timing.

    A sequence is L symbols with gaps of one to three steps. One layer of neurons, which fall silent for a while after
    they have fired, sees one symbol at a time; an output neuron sees the layer at the last symbol only and has to fire for its
    own sequence and for no other, although all the sequences it is asked about end in the same symbol. It learns from noisy
    presentations of its sequence, of all sequences that differ from it in one symbol, one gap or one exchange of neighbours,
    and of random ones. Then it is asked about new presentations of its sequence, about such neighbours, and about random
    sequences that it has never seen. The control is the same layer without silence.

    Args:
        num_sequences: each with an output neuron of its own.
        num_symbols: symbols there are.
        length: L.
        hidden_size: H.
        max_silence: of a neuron, in steps.
        noise_std: of the noise in each neuron at each step (the drive by a symbol has standard deviation 1).
        num_shown: presentations of the sequence, to learn from.
        num_random: random sequences, to learn from.
        num_hits, num_alarms: presentations asked about: of the sequence, of others (a fourth of each kind).
        ridge: of the least squares that find the output weights, in the mean squared norm of what they see.
        cut: of the output, whose targets are 1 and -1, above which it fires.
        seed: of the neurons and the sequences.
    Source:
        Hodassman et al. 2022, Scientific Reports 12:16003, doi:10.1038/s41598-022-20337-x (abstract and introduction read)
    Differs:
        The paper identifies sequences of ten handwritten digits by networks trained with backpropagation; here symbols are
        ten fixed inputs, the neurons' weights are random, and one linear output is solved for. That the layer has nothing
        else than silences to know the past by is the same. Sizes, noise, silence and the cut were found by trying about 18
        settings on 10 to 50 sequences of another seed.
    """

    id: ClassVar[str] = "hodassman-2022-silencing"
    source: ClassVar[str] = "Hodassman et al. 2022, Scientific Reports 12:16003, doi:10.1038/s41598-022-20337-x"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("hits", 0.99, "higher", "reliable identification", "abstract", "read"),
        Claim("false_alarms", 0.01, "lower", "order and timing", "abstract", "read"),
        Claim("hits_less_false_alarms_without_silence", 0.1, "lower", "", "no silence", control=True),
    )

    num_sequences: int = 1000
    num_symbols: int = 10
    length: int = 5
    hidden_size: int = 2000
    max_silence: int = 14
    noise_std: float = 0.05
    num_shown: int = 30
    num_random: int = 30
    num_hits: int = 10
    num_alarms: int = 40
    ridge: float = 0.05
    cut: float = 0.15
    seed: int = 100

    @classmethod
    def smoke(cls) -> Self:
        """Two sequences, few neurons."""
        return cls(num_sequences=2, hidden_size=100, num_symbols=4, length=3)

    def run(self, log: Log) -> Mapping[str, float]:
        """Every sequence with silence, a tenth of them without."""
        found: dict[str, list[Tensor]] = {}
        for name, silence, count in (
            ("with", self.max_silence, self.num_sequences),
            ("without", 0, -(-self.num_sequences // 10)),
        ):
            generator = torch.Generator().manual_seed(self.seed)
            draw = random.Random(self.seed)
            layer = SilencingCell(
                self.num_symbols,
                self.hidden_size,
                max_silence=silence,
                noise_std=self.noise_std,
                generator=generator,
            )
            found[name] = []
            for i in range(count):
                if i % 10 == 0:
                    log(f"{name} silence", (i / count) * 0.9 if name == "with" else 0.9 + 0.1 * i / count)
                found[name].append(self._identify(layer, draw, generator))
        hits, *alarms = torch.stack(found["with"]).mean(0).tolist()
        control = torch.stack(found["without"]).mean(0)
        log.figure("alarms", lambda figure: _draw(figure, torch.stack(found["with"]).mean(0), control))
        return {
            "hits": hits,
            "false_alarms": sum(alarms) / len(alarms),
            "hits_less_false_alarms_without_silence": float(control[0] - control[1:].mean()),
            **{f"false_alarms_{kind.replace(' ', '_')}": value for kind, value in zip(KINDS, alarms)},
            "hits_without_silence": float(control[0]),
            "false_alarms_without_silence": float(control[1:].mean()),
        }

    def _identify(self, layer: SilencingCell, draw: random.Random, generator: torch.Generator) -> Tensor:
        """(5,) share of new presentations at which the output fires: of the sequence, then of each kind of others."""
        target = self._random(draw)
        near = [*self._replaced(target) * 2, *_swapped(target) * 6, *_shifted(target) * 2]
        others = [*near, *(self._random(draw, target) for _ in range(self.num_random))]
        each = self.num_alarms // len(KINDS)
        asked = [
            *([target] * self.num_hits),
            *(self._random(draw, target) for _ in range(each)),
            *draw.choices(_swapped(target), k=each),
            *draw.choices(self._replaced(target), k=each),
            *draw.choices(_shifted(target), k=each),
        ]
        firing = self._present(layer, [*([target] * self.num_shown), *others, *asked], generator)
        seen, new = firing[: -len(asked)], firing[-len(asked) :]
        wanted = torch.cat([torch.ones(self.num_shown), -torch.ones(len(others))])
        weights = torch.where(wanted > 0, 0.5 / self.num_shown, 0.5 / len(others))
        middle = weights @ seen
        products = (seen - middle) @ (seen - middle).T
        products.diagonal().add_(self.ridge * products.diagonal().mean().clamp(min=1e-6))
        output = (seen - middle).T @ torch.linalg.solve(products, wanted)
        fires = ((new - middle) @ output > self.cut).float()
        hits, alarms = fires[: self.num_hits], fires[self.num_hits :]
        return torch.cat([hits.mean()[None], alarms.view(len(KINDS), -1).mean(1)])

    def _present(self, layer: SilencingCell, many: Sequence[_Sequence], generator: torch.Generator) -> Tensor:
        """(B, H) who fires at the last symbol; the sequences end together."""
        num_steps = 1 + 3 * (self.length - 1)
        xs = torch.zeros(num_steps, len(many), self.num_symbols)
        for row, (symbols, gaps) in enumerate(many):
            t = num_steps - 1
            for symbol, gap in zip(reversed(symbols), (*reversed(gaps), 0)):
                xs[t, row, symbol] = 1
                t -= gap
        with torch.no_grad():
            ys, _ = Loop()(layer, Noisy(xs, layer.draw(num_steps, len(many), generator)), None)
        return ys[-1]

    def _random(self, draw: random.Random, like: _Sequence | None = None) -> _Sequence:
        """Different symbols at random; with ``like``, another sequence that ends in the same symbol."""
        while True:
            symbols = draw.sample(range(self.num_symbols), self.length)
            if like is not None:
                symbols[-1] = like.symbols[-1]
            found = _Sequence(tuple(symbols), tuple(draw.randint(1, 3) for _ in range(self.length - 1)))
            if found != like:
                return found

    def _replaced(self, target: _Sequence) -> list[_Sequence]:
        return [
            target._replace(symbols=(*target.symbols[:i], other, *target.symbols[i + 1 :]))
            for i in range(self.length - 1)
            for other in range(self.num_symbols)
            if other != target.symbols[i]
        ]


def _swapped(target: _Sequence) -> list[_Sequence]:
    found = []
    for i in range(len(target.symbols) - 2):
        symbols = list(target.symbols)
        symbols[i], symbols[i + 1] = symbols[i + 1], symbols[i]
        found.append(target._replace(symbols=tuple(symbols)))
    return found


def _shifted(target: _Sequence) -> list[_Sequence]:
    return [
        target._replace(gaps=(*target.gaps[:i], gap, *target.gaps[i + 1 :]))
        for i in range(len(target.gaps))
        for gap in (1, 2, 3)
        if gap != target.gaps[i]
    ]


def _draw(figure: Any, silent: Tensor, control: Tensor) -> None:
    axis = figure.subplots()
    axis.bar([place - 0.2 for place in range(5)], silent.tolist(), 0.4, label="neurons fall silent")
    axis.bar([place + 0.2 for place in range(5)], control.tolist(), 0.4, label="they do not", color="0.6")
    axis.set_xticks(range(5), ["the sequence", *KINDS], rotation=20, ha="right")
    axis.set(ylabel="share identified as the sequence", ylim=(0, 1.05))
    axis.legend()
