"""Elman 1990: the exclusive or in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..cells.elman import ElmanState
from ..core import BinaryCrossEntropy, Cell, Chunk, Claim, Experiment, Leaf, LearningRule, Log
from ..engines import Auto
from ..learning import TruncatedBPTT
from ..tasks.xor_stream import every_xor_stream, xor_stream
from ..training import MemberSum, fit
from ..wrappers import Ensemble
from .prediction import Stages, elman_nets, learn, predict, stream_chunks


class _Help(NamedTuple):
    """bit: (B, 1); pull: (B, 1) in [0, 1], how far the context is drawn to its start before this step."""

    bit: Tensor
    pull: Tensor


class _Helped(Cell[_Help, Tensor, ElmanState]):
    """A net whose context can be drawn to its start:  s = pull s_0 + (1 - pull) s,  s_0 = sigmoid(start)."""

    source = "in the spirit of Elman 1993, Cognition 48(1):71-99"

    def __init__(self, cell: Cell, hidden_size: int) -> None:
        super().__init__()
        self.cell = cell
        self.start = nn.Parameter(torch.zeros(hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls(elman_nets(1, 1, 2, weight_range=1.0, seed=0).member(0), 2)

    @property
    def input_spec(self) -> _Help:
        return _Help(Leaf((1,)), Leaf((1,)))  # type: ignore[arg-type]

    @property
    def output_spec(self) -> Any:
        return self.cell.output_spec

    def initial_state(self, batch_size: int) -> ElmanState:
        return ElmanState(self.start.sigmoid().expand(batch_size, -1))

    def step(self, x: _Help, state: ElmanState) -> tuple[Tensor, ElmanState]:
        start = self.initial_state(x.bit.shape[0])
        return self.cell.step(x.bit, ElmanState(x.pull * start.h + (1 - x.pull) * state.h))

    def alone(self) -> Cell:
        """The net by itself, its context beginning where it was helped to."""
        self.cell.learn_initial_state()
        with torch.no_grad():
            next(p for name, p in self.cell.named_parameters() if "initial_values" in name).copy_(self.start.sigmoid())
        return self.cell


def _late_fall(before: int, total: int, n: int) -> float:
    """The learning rate in the last fifth falls in a line to a twentieth."""
    return min(1.0, 1 - 0.95 * ((before + n) / total - 0.8) / 0.2)


class _Errors(NamedTuple):
    """Root mean squared errors (N,): of the bits that follow from the two before, and of the others."""

    predictable: Tensor
    others: Tensor


@dataclass(frozen=True)
class Elman1990Xor(Experiment):
    """Exclusive or in time: the error of the next bit drops at every third bit, the one that can be known.

    Two random bits, their exclusive or, two random bits, ... without marks. What a net has to find out by itself is where a
    triple begins. Where it does not, the best it can do is to lean towards the exclusive or of the last two bits all the time,
    as the paper says of its net; its error is then 1/3 at the predictable bits and 0.53 at the others. Where it does, 0 and
    0.5.

    Args:
        num_seeds: trials.
        num_triples: a third of the stream's length.
        num_epochs: passes through the stream.
        small_size: H of the paper's net.
        large_size: H of the larger net.
        num_rows: parts of the stream that are read side by side.
        num_steps: steps between two updates; also how far gradients reach.
        lr: Adam's learning rate, falling to a tenth.
        weight_range: weights into the hidden layer begin in U(-a, a).
        num_starts: random starts of a trial with the larger net; the one with the lowest training error is kept.
        num_starts_small: the same with the smaller net, in the searched form.
        num_updates_small: updates in the searched form.
        lr_small: Adam's learning rate there.
        cuts: after which part of these updates how many starts of a trial go on.
    Source:
        Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1, pp. 185-187 (read in a copy)
    Differs:
        Adam on the cross-entropy instead of plain gradient descent, once in ``num_steps`` steps of ``num_rows`` parts of the
        stream. The paper's own form (two hidden units, one step back, one start) is run and named ``as_published``. The
        bars ask for more than the paper shows, and no net of two hidden units reaches them from one random start, neither by
        one step back nor through time (the metrics ``share_2_..._one_start``). In the searched form, each trial has
        ``num_starts_small`` random nets, which read all streams of three triples (later four). At first the context is put
        back to a learned start at the beginning of every triple; this help fades and is gone after four fifths of the updates
        ("starting small", as in Elman 1993, but told where triples begin). Now and then the nets with the higher training
        error are dropped; of the last ones, the best along the trial's own training stream is kept. A trial with five hidden
        units keeps the best of ``num_starts``, again by training error alone.
    """

    id: ClassVar[str] = "elman-1990-xor"
    source: ClassVar[str] = "Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("dip_as_published", 0.8, "lower", "error drops at every third bit (curve)", "figure 3", "read"),
        Claim("share_2", 0.7, "higher", "", "trials with RMS <= .15 at the predictable bits, searched form"),
        Claim("share_5", 1.0, "higher", "", "the same with 5 hidden units, through time"),
        Claim(
            "others_off_half_5", 0.03, "lower", "chance", "distance of the RMS of the other bits from 0.5", "theorem"
        ),
        Claim(
            "predictable_rms_without_context", 0.45, "higher", "0.5", "a net that sees one bit", "theorem", control=True
        ),
    )

    num_seeds: int = 20
    num_triples: int = 1000
    num_epochs: int = 600
    small_size: int = 2
    large_size: int = 5
    num_rows: int = 10
    num_steps: int = 30
    lr: float = 0.02
    weight_range: float = 1.0
    num_starts: int = 4
    num_starts_small: int = 256
    num_updates_small: int = 2500
    lr_small: float = 0.05
    cuts: tuple[tuple[float, int], ...] = ((0.2, 216), (0.4, 124), (0.6, 84), (0.8, 32), (1.0, 16))

    @classmethod
    def smoke(cls) -> Self:
        """Two trials, a short stream, few starts and updates."""
        return cls(
            num_seeds=2,
            num_triples=60,
            num_epochs=2,
            num_rows=2,
            num_starts=2,
            num_starts_small=4,
            num_updates_small=10,
            cuts=((0.8, 3), (1.0, 2)),
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """The paper's form, both sizes through time, the searched form, and no context at all."""
        progress = Stages(log, {"as published": 2, "2 units": 2, "5 units": 4, "no context": 2, "search": 8})
        bits = self._streams(0)
        train = bits.repeat_interleave(self.num_starts, 1)
        test = self._streams(1000)
        one_step = TruncatedBPTT(k1=1, k2=1)

        def trained(name: str, size: int, rule: LearningRule[Any], data: Tensor, context: bool = True) -> Ensemble:
            nets = elman_nets(data.shape[1], 1, size, weight_range=self.weight_range, seed=0)
            chunks = stream_chunks(data, num_rows=self.num_rows, num_steps=self.num_steps, context=context)
            learn(nets, chunks, rule, self.lr, num_epochs=self.num_epochs, progress=progress(name), final_lr=0.1)
            return nets

        published = _errors(trained("as published", self.small_size, one_step, bits), test)
        small = _errors(trained("2 units", self.small_size, TruncatedBPTT(), bits), test)
        large = trained("5 units", self.large_size, TruncatedBPTT(), train)
        starts = _errors(large, test.repeat_interleave(self.num_starts, 1))
        best = _best(_training_loss(large, train), self.num_seeds, 1)
        chosen = _Errors(starts.predictable[best], starts.others[best])
        alone = _errors(trained("no context", self.large_size, one_step, bits, False), test, context=False)
        searched = _errors(self._search(bits, progress("search")), test)
        log.figure("errors", lambda figure: _draw(figure, self._curves(published, small, searched, chosen, alone)))
        return {
            "dip_as_published": float((published.predictable / published.others).mean()),
            "share_2": _share(searched),
            "share_5": _share(chosen),
            "others_off_half_5": float((chosen.others - 0.5).abs().mean()),
            "predictable_rms_without_context": float(alone.predictable.mean()),
            "predictable_rms_as_published": float(published.predictable.mean()),
            "others_rms_as_published": float(published.others.mean()),
            "share_2_one_step_back_one_start": _share(published),
            "share_2_through_time_one_start": _share(small),
            "share_5_through_time_one_start": _share(starts),
            "predictable_rms_2_through_time_one_start": float(small.predictable.mean()),
            "predictable_rms_2": float(searched.predictable.mean()),
            "others_rms_2": float(searched.others.mean()),
            "predictable_rms_5": float(chosen.predictable.mean()),
            "predictable_rms_5_worst_trial": float(chosen.predictable.max()),
        }

    def _streams(self, first_seed: int) -> Tensor:
        """(L, N, 1) one stream for each trial."""
        seeds = range(first_seed, first_seed + self.num_seeds)
        bits = [xor_stream(self.num_triples, torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(bits, 1).unsqueeze(-1).to(torch.get_default_dtype())

    def _search(self, bits: Tensor, progress: Callable[[float], None]) -> Ensemble:
        """Nets of two hidden units, one for each trial: many starts, the better ones go on, the help fades."""
        num_nets = self.num_seeds * self.num_starts_small
        generator = torch.Generator().manual_seed(2)
        one = elman_nets(1, 1, self.small_size, weight_range=1.0, seed=1).member(0)
        nets = Ensemble(_Helped(one, self.small_size)).subset([0] * num_nets)
        with torch.no_grad():
            for value in nets.parameters():
                value.normal_(0, 1, generator=generator)
        streams = {k: every_xor_stream(k).to(torch.get_default_dtype()) for k in (3, 4)}
        total, done = self.num_updates_small, 0
        adam = torch.optim.Adam(nets.parameters(), lr=self.lr_small)
        for part, kept in self.cuts:
            stop = round(part * total)
            every = streams[4 if done >= 0.8 * total else 3]
            chunks = [_helped_chunk(every, n / total, nets.num_members) for n in range(done, stop)]
            fit(
                nets,
                chunks,
                MemberSum(BinaryCrossEntropy()),
                adam,
                lr_schedule=partial(_late_fall, done, total),
                on_step=lambda p, done=done: progress((done + p.num_steps) / total),  # type: ignore[misc]
            )
            done = stop
            chunk = _helped_chunk(every, done / total, nets.num_members)
            with torch.no_grad():
                said, _ = Auto()(nets, chunk.xs)
            loss = BinaryCrossEntropy().per_step(said, chunk.targets).mean((0, 1))
            best = _best(loss, self.num_seeds, kept)
            nets = nets.subset(best.tolist())
            adam = _adam_of(nets, adam, best, self.lr_small)
        alone = Ensemble(*[nets.member(i).alone() for i in range(nets.num_members)])
        loss = _training_loss(alone, bits.repeat_interleave(nets.num_members // self.num_seeds, 1))
        return alone.subset(_best(loss, self.num_seeds, 1).tolist())

    def _curves(self, *errors: _Errors) -> dict[str, Tensor]:
        """Mean error of twelve bits in a row, as in figure 3."""
        names = ("as published", "2 units, through time", "2 units, searched", "5 units, through time", "no context")
        each = [torch.stack([e.others, e.predictable, e.others]).mean(1) for e in errors]
        return {name: values.repeat(4) for name, values in zip(names, each)}


def _helped_chunk(every: Tensor, done: float, num_nets: int) -> Chunk:
    """All streams (B, T), 1/2 asked for behind the last bit, and the help that is left."""
    bits = every.T.unsqueeze(-1)  # (T, B, 1)
    targets = torch.cat([bits[1:], torch.full_like(bits[:1], 0.5)])
    first = torch.arange(len(bits)) % 3 == 0
    pull = torch.where(first, max(0.0, 1 - done / 0.8), 0.0)[:, None, None].expand_as(bits)
    bits, targets, pull = (t.unsqueeze(2).expand(-1, -1, num_nets, -1) for t in (bits, targets, pull))
    return Chunk(_Help(bits, pull), targets)


def _adam_of(nets: Ensemble, adam: torch.optim.Adam, chosen: Tensor, lr: float) -> torch.optim.Adam:
    """Go on with the memory that Adam has of the chosen nets."""
    new = torch.optim.Adam(nets.parameters(), lr=lr)
    for p, old in zip(nets.parameters(), adam.state.values(), strict=True):
        new.state[p] = {name: value[chosen].clone() if value.ndim else value for name, value in old.items()}
    return new


def _errors(nets: Ensemble, streams: Tensor, *, context: bool = True) -> _Errors:
    """Root mean squared errors along new streams; the first ten triples do not count."""
    said = predict(nets, streams, context=context).probabilities[:-1]
    squared = (said - streams[1:]).square().squeeze(-1)[30:]
    place = torch.arange(31, 31 + len(squared)) % 3
    return _Errors(*(squared[mask].mean(0).sqrt() for mask in (place == 2, place != 2)))


def _training_loss(nets: Ensemble, streams: Tensor) -> Tensor:
    """(N,) cross-entropy along the streams."""
    said = predict(nets, streams).probabilities[:-1].clamp(1e-6, 1 - 1e-6)
    return -torch.where(streams[1:] > 0.5, said, 1 - said).log().mean((0, 2))


def _best(loss: Tensor, num_trials: int, kept: int) -> Tensor:
    """The places of the ``kept`` nets of each trial with the lowest loss, trial by trial."""
    per_trial = loss.view(num_trials, -1)
    order = per_trial.nan_to_num(torch.inf).argsort(1)[:, :kept]
    return (order + per_trial.shape[1] * torch.arange(num_trials)[:, None]).flatten()


def _share(errors: _Errors, bar: float = 0.15) -> float:
    """Share of the trials whose error at the predictable bits is at most the bar."""
    return float((errors.predictable <= bar).double().mean())


def _draw(figure: Any, curves: Mapping[str, Tensor]) -> None:
    """The paper's figure 3, and the other forms beside it."""
    axis = figure.subplots()
    colors = ("#cc3311", "#ee7733", "#009988", "#0077bb", "0.6")
    for (name, values), color in zip(curves.items(), colors):
        steps = range(1, len(values) + 1)
        axis.plot(steps, values, "o-", ms=4, lw=1.4, color=color, label=name)
    axis.axhline(0.5, color="0.8", lw=0.8, zorder=0)
    axis.set(xlabel="bit that had to be predicted", ylabel="root mean squared error", ylim=(0, 0.75))
    axis.set_xticks(range(1, len(values) + 1), ["1", "2", "xor"] * (len(values) // 3))
    axis.set_title("The error drops at every third bit (mean over the trials)", loc="left", fontsize=10)
    axis.legend(ncols=3, fontsize=8, frameon=False, loc="upper center")
    axis.spines[["top", "right"]].set_visible(False)
