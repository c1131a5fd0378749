"""Classifiers and regressors of sequences in C: one step at a time, from raw numbers to the answer so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..core.cell import Cell, StochasticCell, quiet
from ..core.checks import sentence
from ..core.tree import Tree
from ..estimators import SequenceClassifier
from ..estimators.sequence_network import LastOutput, Pooling, SequenceReader
from ..estimators.sequence_series import LARGEST, SeriesEncoder
from .network import STEPS, STREAMS, Network, distances, quieted, run_both
from .source import WHERE, bytes_of, quoted, table

MOST = 200  # sequences of a measurement
LOW = -3.0e38


class ReaderState(NamedTuple):
    """Of one net: of its cells, the last value of each channel, whether there was one, and what is pooled."""

    cells: tuple[Tree, ...]
    last: Tensor
    begun: Tensor
    pooled: tuple[Tensor, ...]


class Reader(Cell[Tensor, Tensor, ReaderState]):
    """One net of an estimator with its scaling, asked after every step.

        z = (x - centre) / spread       a missing x is the last one       h = cells(z, (z - z_before) / step, is missing)
        y = readout(pool(h_1 .. h_t))

    Args:
        encoder: how a series becomes an input.
        net: a cell, or one that reads forwards and pools.
    """

    centre: Tensor
    spread: Tensor
    change: Tensor

    def __init__(self, encoder: SeriesEncoder, net: nn.Module) -> None:
        super().__init__()
        self.input_size = encoder.num_channels
        self.steps, self.missing = encoder.step is not None, encoder.missing
        self.register_buffer("centre", torch.tensor(encoder.centre, dtype=torch.float64).float())
        self.register_buffer("spread", torch.tensor(encoder.spread, dtype=torch.float64).float())
        if encoder.step is not None:
            self.register_buffer("change", torch.tensor(encoder.step, dtype=torch.float64).float())
        self.pooling: Pooling | None = None
        self.readout: nn.Linear | None = None
        if isinstance(net, SequenceReader):
            self.cells, self.pooling, self.readout = net.ahead, net.pooling, net.readout
        else:
            self.cells = nn.ModuleList([net.cell if isinstance(net, LastOutput) else net])
        top = self.cells[-1]
        assert isinstance(top, Cell)
        self.width = int(top.output_spec.shape[0])
        self.output_size = self.width if self.readout is None else self.readout.out_features

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """None: it is made from an estimator."""
        yield from ()

    def initial_state(self, batch_size: int) -> ReaderState:
        """Nothing was seen."""
        cells = tuple(cell.initial_state(batch_size) for cell in self.cells)  # type: ignore[operator]
        size = self.width
        kinds = {"mean": (0.0,), "max": (LOW,), "mean+max": (0.0, LOW), "attention": (0.0,)}
        kind = "last" if self.pooling is None else self.pooling.kind
        pooled = [torch.full((batch_size, size), value) for value in kinds.get(kind, ())]
        if kind in ("mean", "mean+max"):
            pooled.append(torch.zeros(batch_size, 1))
        if kind == "attention":
            pooled += [torch.zeros(batch_size, 1), torch.full((batch_size, 1), LOW)]
        last = self.centre.expand(batch_size, -1).clone()
        return ReaderState(cells, last, torch.zeros(batch_size, 1), tuple(pooled))

    def step(self, x: Tensor, state: ReaderState) -> tuple[Tensor, ReaderState]:
        """Scale, step, pool, read out."""
        gone = x != x
        x = torch.where(gone, state.last, x)
        z = (x - self.centre) / self.spread
        parts = [z]
        if self.steps:
            before = (state.last - self.centre) / self.spread
            parts.append(torch.where(state.begun > 0, z - before, 0.0 * z) / self.change)
        h = torch.cat(parts, -1).clamp(-LARGEST, LARGEST)
        if self.missing:
            h = torch.cat([h, gone.to(h.dtype)], -1)
        new = []
        for cell, s in zip(self.cells, state.cells):
            h, s = cell.step(quiet(h) if isinstance(cell, StochasticCell) else h, s)  # type: ignore[operator]
            new.append(s)
        pooled = state.pooled
        if self.pooling is not None and self.readout is not None:
            h, pooled = self._pool(self.pooling, h, state.pooled)
            h = self.readout(h)
        return h, ReaderState(tuple(new), x, torch.ones_like(state.begun), pooled)

    def _pool(self, pooling: Pooling, h: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What `Pooling` gives for the steps so far."""
        if pooling.kind == "max":
            top = torch.maximum(state[0], h)
            return top, (top,)
        if pooling.kind in ("mean", "mean+max"):
            total, count = state[0] + h, state[-1] + 1
            if pooling.kind == "mean":
                return total / count, (total, count)
            top = torch.maximum(state[1], h)
            return torch.cat([total / count, top], -1), (total, top, count)
        if pooling.kind == "attention" and pooling.key is not None and pooling.query is not None:
            score = pooling.query(torch.tanh(pooling.key(h)))
            above, below, top = state
            new = torch.maximum(top, score)
            fade, weight = torch.exp(top - new), torch.exp(score - new)
            above, below = above * fade + weight * h, below * fade + weight
            return above / below, (above, below, new)
        return h, ()


class Answer(Cell[Tensor, Tensor, tuple[ReaderState, ...]]):
    """The nets of an estimator and their common answer: probabilities of the classes, or numbers in their units.

        y = 1/N sum_n softmax(y_n / temperature)        y = 1/N sum_n (centre_n + spread_n y_n)

    Args:
        readers: the nets.
        temperature: of a classifier.
        centre, spread: (N, O) of a regressor's targets.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        temperature: float | None,
        centre: Tensor | None = None,
        spread: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.readers, self.temperature = nn.ModuleList(readers), temperature
        self.input_size, self.output_size = readers[0].input_size, readers[0].output_size
        self.scaled = centre is not None
        if centre is not None and spread is not None:
            for n, (c, s) in enumerate(zip(centre, spread)):
                self.register_buffer(f"target_centre_{n}", c.float())
                self.register_buffer(f"target_spread_{n}", s.float())

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """None: it is made from an estimator."""
        yield from ()

    def initial_state(self, batch_size: int) -> tuple[ReaderState, ...]:
        """Each net's."""
        return tuple(reader.initial_state(batch_size) for reader in self.readers)  # type: ignore[operator]

    def step(self, x: Tensor, state: tuple[ReaderState, ...]) -> tuple[Tensor, tuple[ReaderState, ...]]:
        """Every net, then the average."""
        answers, new = [], []
        for n, (reader, s) in enumerate(zip(self.readers, state)):
            y, s = reader.step(x, s)  # type: ignore[operator]
            if self.temperature is not None:
                y = torch.softmax(y / self.temperature, -1)
            else:
                y = getattr(self, f"target_centre_{n}") + getattr(self, f"target_spread_{n}") * y
            answers.append(y)
            new.append(s)
        total = answers[0]
        for y in answers[1:]:
            total = total + y
        return total / len(answers), tuple(new)


class SequenceNetwork(Network):
    """A `SequenceClassifier` or a `SequenceRegressor` of series."""

    def write(self) -> None:
        """The step, and the names of the classes."""
        model, name = self.model, self.name
        model._check_fitted()
        reason = why_not(model)
        if reason is not None:
            settings = "bidirectional=False, convolutions='none', scale='standard' and frames=1"
            hint = f"Fit with {settings} (recurra train --streaming)."
            want = "one that can be told one step after the other"
            raise ValueError(sentence(WHERE, "the model", want, f"one that {reason}", hint))
        nets = [model.network_] if isinstance(model.network_, Cell) else list(model.network_.members)
        each = model.encoders_.each
        encoders = list(each) if len(each) == len(nets) else [each[0]] * len(nets)
        self.nets = "one net" if len(nets) == 1 else f"{len(nets)} nets and their common answer"
        readers = [Reader(encoder, net) for encoder, net in zip(encoders, nets)]
        self.classes = None
        if isinstance(model, SequenceClassifier):
            self.cell: Cell = quieted(Answer(readers, model.temperature_))
            self.classes = [str(c) for c in model.classes_.tolist()]
            texts = [quoted(c) for c in self.classes]
            self.source.data_bytes += bytes_of(self.classes)
            self.source.taken.add(f"{name}_classes")
            self.weights.append(table(f"const char *const {name}_classes[{len(texts)}]", texts, 4))
            self.tables.append(
                f"/* The names of the classes, in UTF-8. */\n"
                f"extern const char *const {name}_classes[{name.upper()}_OUTPUT_SIZE];"
            )
            words = "Read a step. y: the probabilities of the classes, of all that was read so far."
        else:
            rows = [torch.tensor(v, dtype=torch.float64) for v in (model.target_centre_, model.target_spread_)]
            self.cell = quieted(Answer(readers, None, *(v.expand(len(nets), -1) for v in rows)))
            words = "Read a step. y: the answer in the units of the training targets, of all that was read so far."
        self.source.add(
            "step",
            self.cell,
            words=f"{words}\n   x: in the units of the training series; NAN where a value is missing.",
        )

    def title(self) -> list[str]:
        """The estimator and its size."""
        model, count = self.model, sum(p.numel() for p in self.cell.parameters())
        size = self.cell.output_size
        what = f"Classifier of {size} classes" if self.classes else f"Regressor of {size} numbers"
        return [f"{what}, series of {self.cell.input_size} channels: {model.cell}, {count:,} weights"]

    def notes(self) -> list[str]:
        """What is inside."""
        model, name = self.model, self.name
        inside = [
            f"Inside: the scaling of the inputs, {self.nets}"
            + (f" (with temperature {model.temperature_:.4g})." if self.classes else " in the targets' units."),
            f"`{name}_step` takes one step of a series as it was measured, and answers for all steps since `{name}_reset`; "
            "begin each series with it.",
        ]
        if self.classes:
            inside.append(f"Classes (`{name}_classes`): {', '.join(self.classes[:50])}.")
        if not model.encoders_.first.causal:
            where = "in Python it stands on a line between its neighbours"
            inside.append(f"A missing value is taken from the step before it; {where}.")
        return inside

    def usage(self) -> str:
        """Numbers from the standard input."""
        return f"./{self.name} < series.txt"

    def measure(self) -> tuple[dict[str, float], str]:
        """The answers at the end of each series."""
        if self.data is None:
            generator = torch.Generator().manual_seed(0)
            centre, spread = (
                torch.tensor(getattr(self.model.encoders_.first, n)).float() for n in ("centre", "spread")
            )
            xs = centre + spread * torch.randn(STEPS, STREAMS, len(centre), generator=generator)
            lengths = torch.full((STREAMS,), STEPS)
            words = f"made-up series: {STREAMS} of {STEPS} steps, noise of the training series' size, seed 0"
        else:
            series, _ = self.model._like_training(list(self.data))
            series = series[:: max(1, len(series) // MOST)][:MOST]
            lengths = torch.tensor([len(s) for s in series])
            xs = torch.zeros(int(lengths.max()), len(series), series[0].shape[1])
            for b, values in enumerate(series):
                xs[: len(values), b] = torch.from_numpy(np.ascontiguousarray(values)).float()
            words = f"{len(series):,} series: {self.data_words}"
        both = run_both(self.step, self.first_state([xs]), [xs])
        rows = torch.arange(xs.shape[1])
        exact, rounded = (torch.stack([ys[0] for ys in outputs])[lengths - 1, rows] for outputs in both)
        found = distances(exact.double(), rounded.double())
        if self.classes:
            found = {
                "same_class": float((exact.argmax(-1) == rounded.argmax(-1)).float().mean()),
                "largest_difference_of_probability": found["largest_error"],
                "rms_difference_of_probability": found["rms_error"],
            }
        return found, words


def why_not(model: Any) -> str | None:
    """What keeps a model from being told one step after the other; None for nothing."""
    encoders, chosen = model.encoders_, model.choices_
    if encoders.is_text:
        return "reads texts, whose words would have to be cut and looked up in C"
    if chosen.bidirectional:
        return "reads backwards too"
    if chosen.convolutions.strip() not in ("", "none"):
        return "begins with convolutions over several steps"
    first = encoders.first
    if first.frames != 1:
        return f"reads {first.frames} steps at once"
    if first.scale != "standard":
        return f"scales each series by itself (scale={first.scale!r})"
    return None
