"""The nets of `SequenceClassifier` and `SequenceRegressor`: a sequence becomes one vector of outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells.dropout import DropoutCell
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.engine import Engine
from ..core.loss import SequenceLoss
from ..engines import unroll
from ..wrappers import Readout, Stack
from .layer import layer
from .named import Named
from .sequence_text import TextEmbedding

POOLINGS = ("last", "mean", "max", "mean+max", "attention")


class Convolution(NamedTuple):
    """One layer: how many filters, over how many steps, at every how many steps."""

    num: int
    width: int
    stride: int


def read_convolutions(where: str, text: str) -> tuple[Convolution, ...]:
    """Layers from text: ``"32x8/2 64x5"`` is 32 filters over 8 steps at every 2nd step, then 64 over 5 at every step.

    Raises:
        ValueError: another form.

    Example:
        >>> read_convolutions("Doc", "32x8/2 64x5")
        (Convolution(num=32, width=8, stride=2), Convolution(num=64, width=5, stride=1))
        >>> read_convolutions("Doc", "none")
        ()
    """
    if not isinstance(text, str):
        raise TypeError(sentence(where, "convolutions", "a text such as '32x8/2 64x5', or 'none'", repr(text)))
    if text.strip().lower() in ("", "none"):
        return ()
    layers = []
    for part in text.replace(",", " ").split():
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,3})(?:/([1-9]\d{0,3}))?", part)
        if found is None:
            want = "'none' or layers such as '32x8/2 64x5' (filters x steps / stride)"
            raise ValueError(sentence(where, "convolutions", want, repr(text)))
        layers.append(Convolution(int(found[1]), int(found[2]), int(found[3] or 1)))
    return tuple(layers)


@dataclass(frozen=True)
class NetworkPlan:
    """Everything that decides the form of one net.

    Args:
        cell, hidden_size, num_layers, bidirectional: of the recurrent layers.
        pooling: one of `POOLINGS`.
        convolutions: before the recurrent layers.
        num_features: of the input; for texts the size of the vectors.
        num_words, num_buckets: for texts, places of words and of their pieces; 0 words for series.
        num_outputs: classes or targets.
        dropout: after each layer and before the output.
        input_dropout: of the input's features.
    """

    cell: Named
    hidden_size: int
    num_layers: int
    bidirectional: bool
    pooling: str
    convolutions: tuple[Convolution, ...]
    num_features: int
    num_words: int
    num_buckets: int
    num_outputs: int
    dropout: float
    input_dropout: float

    @property
    def causal(self) -> bool:
        """May it answer after every step?"""
        return self.pooling == "last" and not self.bidirectional and not self.convolutions


class StepNorm(nn.Module):
    """Batch normalisation over all steps of all rows, without the padding.

        y = gain (x - mean) / sqrt(var + 1e-5) + shift      mean and var: of the batch; in evaluation their running averages

    Args:
        size: F, features.
    Source:
        Ioffe & Szegedy 2015, arXiv:1502.03167 (from memory)
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, xs: Tensor, lengths: Tensor | None) -> Tensor:
        """(T, B, F) and true lengths -> the same shape."""
        if not self.training:
            mean, var = self.running_mean, self.running_var
        else:
            if lengths is None:
                var, mean = torch.var_mean(xs, (0, 1), correction=0)
            else:
                alive = _alive(xs, lengths)[:, :, None].to(xs.dtype)
                num = alive.sum()
                mean = (xs * alive).sum((0, 1)) / num
                var = ((xs - mean).square() * alive).sum((0, 1)) / num
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach().float(), 0.1)
                self.running_var.lerp_(var.detach().float(), 0.1)
        return (xs - mean) * ((var + 1e-5).rsqrt() * self.gain) + self.shift


class Convolutions(nn.Module):
    """Convolutions over time, each normalised over its filters at every step: feature detectors before the recurrence.

        y_t = relu(LN(sum_k W_k x_{s t + k}))

    Args:
        input_size: D.
        layers: filters, widths, strides.
        causal: see the past only.
        dropout: after each layer.
    Source:
        Karim, Majumdar, Darabi & Chen 2018, IEEE Access 6:1662-1669 (convolutions beside an LSTM; here before it; from memory)
    """

    def __init__(self, input_size: int, layers: Sequence[Convolution], *, causal: bool = False) -> None:
        super().__init__()
        self.plan, self.causal = tuple(layers), causal
        sizes = [input_size, *(one.num for one in layers)]
        self.filters = nn.ModuleList(
            nn.Conv1d(sizes[i], one.num, one.width, stride=one.stride, bias=False) for i, one in enumerate(layers)
        )
        self.norms = nn.ModuleList(StepNorm(one.num) for one in layers)
        for filters in self.filters:
            assert isinstance(filters, nn.Conv1d)
            nn.init.kaiming_normal_(filters.weight, nonlinearity="relu")

    def forward(self, xs: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(T, B, D) and true lengths -> (T', B, F) and theirs; padding counts as zeros."""
        for one, filters, norm in zip(self.plan, self.filters, self.norms):
            if lengths is not None:
                xs = torch.where(_alive(xs, lengths)[:, :, None], xs, 0.0)
            left = one.width - 1 if self.causal else (one.width - 1) // 2
            h = filters(F.pad(xs.permute(1, 2, 0), (left, one.width - 1 - left))).permute(2, 0, 1)
            if lengths is not None:
                lengths = (lengths + one.stride - 1) // one.stride
            xs = F.relu(norm(h, lengths))
        return xs, lengths


def _alive(xs: Tensor, lengths: Tensor) -> Tensor:
    """(T, B) bool, False in the padding."""
    return torch.arange(xs.shape[0], device=xs.device)[:, None] < lengths


def mirrored(xs: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row backwards within its true length."""
    if lengths is None:
        return xs.flip(0)
    steps = torch.arange(xs.shape[0], device=xs.device)[:, None]
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return xs[source, torch.arange(xs.shape[1], device=xs.device)]


class Pooling(nn.Module):
    """The outputs of all steps become one vector.

        last: y_T    mean: 1/T sum_t y_t    max: max_t y_t    mean+max: both    attention: sum_t a_t y_t,
        a = softmax_t(v . tanh(W y_t))

    Args:
        kind: one of `POOLINGS`.
        size: O, features of a step.
    Source:
        attention: Yang et al. 2016, NAACL (hierarchical attention networks, eq. 5-7; from memory)
    """

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.kind, self.output_size = kind, size * (2 if kind == "mean+max" else 1)
        self.key = nn.Linear(size, size) if kind == "attention" else None
        self.query = nn.Linear(size, 1, bias=False) if kind == "attention" else None

    def forward(self, ys: Tensor, lengths: Tensor | None, halves: int = 1) -> Tensor:
        """(T, B, O) -> (B, O). With two halves (directions), "last" takes the second one's from the first step."""
        num_steps, batch_size = ys.shape[:2]
        if lengths is None:
            lengths = torch.full((batch_size,), num_steps, dtype=torch.int64, device=ys.device)
        alive = _alive(ys, lengths)[:, :, None]
        if self.kind == "last":
            end = ys[lengths - 1, torch.arange(batch_size, device=ys.device)]
            return end if halves == 1 else torch.cat([end.chunk(2, -1)[0], ys[0].chunk(2, -1)[1]], -1)
        if self.key is not None and self.query is not None:
            scores = self.query(torch.tanh(self.key(ys))).masked_fill(~alive, float("-inf"))
            return (scores.softmax(0) * torch.where(alive, ys, 0.0)).sum(0)
        mean = torch.where(alive, ys, 0.0).sum(0) / lengths[:, None].to(ys.dtype)
        if self.kind == "mean":
            return mean
        largest = ys.masked_fill(~alive, torch.finfo(ys.dtype).min).amax(0)
        return largest if self.kind == "max" else torch.cat([mean, largest], -1)


class SequenceReader(nn.Module):
    """One net: embedding (texts), convolutions, recurrent layers in one or both directions, pooling, a linear output.

    Padding stands behind the end of each row, where a recurrent layer's outputs are not used, and a layer that reads
    backwards is given each row backwards within its length: no kernel for ragged batches is needed.

    Args:
        where: who builds it, for messages.
        plan: its form.
        engine: how to run the cells.
    """

    def __init__(self, where: str, plan: NetworkPlan, engine: Engine) -> None:
        super().__init__()
        self.plan, self.engine = plan, engine
        size = plan.num_features
        self.embedding = TextEmbedding(plan.num_words, size, plan.num_buckets) if plan.num_words else None
        self.input_dropout, self.dropout = nn.Dropout(plan.input_dropout), nn.Dropout(plan.dropout)
        self.front = Convolutions(size, plan.convolutions, causal=not plan.bidirectional) if plan.convolutions else None
        if plan.convolutions:
            size = plan.convolutions[-1].num
        self.ahead, self.back = nn.ModuleList(), nn.ModuleList()
        for _ in range(plan.num_layers):
            for cells in (self.ahead, self.back) if plan.bidirectional else (self.ahead,):
                cells.append(layer(where, plan.cell, size, plan.hidden_size))
            width = int(self.ahead[-1].output_spec.shape[0])  # type: ignore[index]
            size = 2 * width if plan.bidirectional else width
        self.pooling = Pooling(plan.pooling, size)
        self.readout = nn.Linear(self.pooling.output_size, plan.num_outputs)

    def forward(self, xs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(T, B, D), or places (T, B, K), and true lengths -> outputs (B, O)."""
        h = xs if self.embedding is None else self.embedding.pointwise(xs)
        h = self.input_dropout(h)
        if self.front is not None:
            h, lengths = self.front(h, lengths)
        for i, cell in enumerate(self.ahead):
            h = self.dropout(h) if i or self.front is not None else h
            ys, _ = unroll(cell, h, engine=self.engine)  # type: ignore[arg-type]
            if len(self.back):
                back, _ = unroll(self.back[i], mirrored(h, lengths), engine=self.engine)  # type: ignore[arg-type]
                ys = torch.cat([ys, mirrored(back, lengths)], -1)
            h = ys
        pooled = self.pooling(h, lengths, 2 if len(self.back) else 1)
        return self.readout(self.dropout(pooled))


class LastOutput(nn.Module):
    """A cell that answers after every step, asked at the end of each row.

    Args:
        cell: with outputs (B, O).
        engine: how to run it.
    """

    def __init__(self, cell: Cell, engine: Engine) -> None:
        super().__init__()
        self.cell, self.engine = cell, engine

    def forward(self, xs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(T, B, ...) and true lengths -> outputs (B, O)."""
        ys, _ = unroll(self.cell, xs, engine=self.engine)
        return ys[-1] if lengths is None else ys[lengths - 1, torch.arange(ys.shape[1], device=ys.device)]


def causal_cell(where: str, plan: NetworkPlan) -> Cell:
    """The net of a causal plan as one cell: embedding, layers with dropout between, a linear output after every step."""
    size = plan.num_features
    cells: list[Cell] = [TextEmbedding(plan.num_words, size, plan.num_buckets)] if plan.num_words else []
    if plan.input_dropout:
        cells.append(DropoutCell(size, plan.input_dropout))
    for _ in range(plan.num_layers):
        cells.append(layer(where, plan.cell, size, plan.hidden_size))
        size = int(cells[-1].output_spec.shape[0])
        if plan.dropout:
            cells.append(DropoutCell(size, plan.dropout))
    return Readout(Stack(*cells), plan.num_outputs)


class Columns(NamedTuple):
    """The features of an input that one of several nets reads: ``begin`` to ``end``, and all from ``shared`` on."""

    begin: int
    end: int
    shared: int | None = None

    def of(self, xs: Tensor) -> Tensor:
        """(..., F) -> (..., F')."""
        own = xs[..., self.begin : self.end]
        return own if self.shared is None else torch.cat([own, xs[..., self.shared :]], -1)


class Members(nn.Module):
    """Nets that are trained together, each from weights of its own.

    Args:
        members: the nets.
        columns: what of the input each one reads; None for all of it.
    """

    def __init__(self, members: Sequence[nn.Module], columns: Sequence[Columns] | None = None) -> None:
        super().__init__()
        self.members, self.columns = nn.ModuleList(members), columns

    def part(self, xs: Tensor, member: int) -> Tensor:
        """What one net reads of (..., F)."""
        return xs if self.columns is None else self.columns[member].of(xs)

    def forward(self, xs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(T, B, ...) -> outputs (B, N, O)."""
        return torch.stack([member(self.part(xs, i), lengths) for i, member in enumerate(self.members)], 1)


def build(
    where: str, plans: Sequence[NetworkPlan], engine: Engine, as_cell: bool, columns: Sequence[Columns] | None = None
) -> nn.Module:
    """The net or nets of the plans, with new weights from torch's generator.

    Args:
        where: who builds, for messages.
        plans: the form of each net.
        engine: how to run the cells.
        as_cell: one bare cell, for rules that need one.
        columns: what of the input each net reads; None for all of it.
    """
    if as_cell:
        return causal_cell(where, plans[0])
    nets = [
        LastOutput(causal_cell(where, plan), engine) if plan.causal else SequenceReader(where, plan, engine)
        for plan in plans
    ]
    return Members(nets, columns)


# --- losses ----------------------------------------------------------------------------------------------------------


class MemberTargets(NamedTuple):
    """values: (B,) classes, or (B, N or 1, O) targets; weights: (B, N) of each row for each member."""

    values: Tensor
    weights: Tensor


@dataclass(frozen=True)
class MemberCrossEntropy(SequenceLoss):
    """``sum_n w_n (-log softmax(y_n)[target])`` for outputs (B, N, O) of N members.

    Args:
        label_smoothing: part of the target that is spread over all classes.
    """

    label_smoothing: float = 0.0

    def per_sequence(self, ys: Tensor, targets: MemberTargets, lengths: Tensor | None) -> Tensor:
        """See `SequenceLoss.per_sequence`."""
        num = ys.shape[1]
        values = targets.values[:, None].expand(-1, num)
        each = F.cross_entropy(
            ys.flatten(0, 1), values.flatten(), reduction="none", label_smoothing=self.label_smoothing
        )
        return (each.view(-1, num) * targets.weights).sum(1)


@dataclass(frozen=True)
class MemberSquaredError(SequenceLoss):
    """``sum_n w_n mean_o (y_no - target_no)^2`` for outputs (B, N, O) of N members."""

    def per_sequence(self, ys: Tensor, targets: MemberTargets, lengths: Tensor | None) -> Tensor:
        """See `SequenceLoss.per_sequence`."""
        return ((ys - targets.values).square().mean(-1) * targets.weights).sum(1)
