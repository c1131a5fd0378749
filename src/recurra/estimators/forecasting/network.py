"""The network of a forecaster, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...cells.affine import AffineCell
from ...core import tree
from ...core.cell import Cell
from ...core.engine import Engine
from ...core.loss import Loss
from ...core.tree import Tree
from ...layers import Recurrent
from ...wrappers import Readout, Stack

MakeCell = Callable[[int, int], Cell]


class Shape(NamedTuple):
    """Sizes of a forecaster's network.

    Args:
        window: L, steps that are read; a multiple of ``segment``.
        segment: steps that the cell reads at once.
        horizon: H, steps that are forecast.
        channels: C, variables that a row forecasts.
        features: inputs per segment.
        ahead: K, covariates known ahead, per step.
        kinds: different variables that rows may be of; each has a vector of its own. 1 for none.
        outputs: numbers per forecast step and variable: the point, then the quantiles.
    """

    window: int
    segment: int
    horizon: int
    channels: int
    features: int
    ahead: int
    kinds: int
    outputs: int

    @property
    def num_future(self) -> int:
        """Segments that cover the horizon."""
        return -(-self.horizon // self.segment)


class Row(NamedTuple):
    """What the network reads; every leaf leads with (something, B).

    Args:
        segments: (L / S, B, features).
        past: (L, B, C) the normalised window itself, for the linear path.
        ahead: (ceil(H / S), B, S K) known covariates of the future.
        kind: (1, B) int64, which variable a row is of.
    """

    segments: Tensor
    past: Tensor
    ahead: Tensor
    kind: Tensor


class Member(nn.Module):
    """One net of a forecaster.

        e_j = relu(W x_j)    s = cell over e_1 .. e_{L/S}    y = decoder(s) + A x

    Decoder "segments": from the last state, one step of the cell for each future segment, each with its own input: a
    vector of its place, one of the variable, the known covariates; then a linear readout of the segment. "direct": a linear
    readout of all H steps from the last output. A is one linear map from the window to the horizon for all variables.

    Args:
        shape: the sizes.
        make_cell: (input_size, hidden_size) -> a cell.
        hidden_size: d.
        num_layers: cells on top of each other.
        dropout: of what the readout sees, and between layers.
        decoder: "segments" or "direct".
        linear: with the path A or without.
        engine: how to run the cell.
    Source:
        Segments, their embedding and the parallel decoding: Lin et al. 2023, SegRNN, arXiv:2308.11200 (from memory)
    """

    def __init__(
        self,
        shape: Shape,
        make_cell: MakeCell,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        decoder: str,
        linear: bool,
        engine: Engine,
    ) -> None:
        super().__init__()
        self.shape, self.decoder = shape, decoder
        size = hidden_size
        self.embed = nn.Linear(shape.features, size)
        cell = stacked(make_cell, size, num_layers, dropout)
        out = _size(cell)  # another one where a cell projects its state
        self.recurrent = Recurrent(cell, engine)
        self.drop = nn.Dropout(dropout)
        self.kind = nn.Embedding(shape.kinds, size if decoder == "segments" else out) if shape.kinds > 1 else None
        wide = shape.channels * shape.outputs
        if decoder == "segments":
            self.place: nn.Parameter | None = nn.Parameter(0.1 * torch.randn(shape.num_future, size))
            self.known = nn.Linear(shape.segment * shape.ahead, size, bias=False) if shape.ahead else None
            self.readout = nn.Linear(out, shape.segment * wide)
        else:
            self.place = None
            wider = shape.num_future * shape.segment * shape.ahead
            self.known = nn.Linear(wider, out, bias=False) if wider else None
            self.readout = nn.Linear(out, shape.horizon * wide)
        with torch.no_grad():
            self.readout.weight.mul_(0.3)
            self.readout.bias.zero_()
            if self.kind is not None:
                self.kind.weight.mul_(0.1)
        self.linear = nn.Linear(shape.window, shape.horizon) if linear else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, row: Row) -> Tensor:
        """(B, H, C, outputs), normalised like the window."""
        shape = self.shape
        embedded = torch.relu(self.embed(row.segments))
        ys, state = self.recurrent(embedded)
        rows = embedded.shape[1]
        kind = self.kind(row.kind[0]) if self.kind is not None else None  # (B, d)
        if self.place is not None:
            inputs = self.place[:, None].expand(-1, rows, -1)  # (M, B, d)
            if kind is not None:
                inputs = inputs + kind
            if self.known is not None:
                inputs = inputs + self.known(row.ahead)
            num = shape.num_future
            # All future segments side by side, each one step after the same state.
            many = tree.map(lambda s: s.repeat(num, *(1 for _ in s.shape[1:])), state)
            decoded, _ = self.recurrent(inputs.reshape(1, num * rows, -1), many)
            out = self.readout(self.drop(decoded[0])).view(num, rows, shape.segment, shape.channels, shape.outputs)
            out = out.transpose(0, 1).flatten(1, 2)[:, : shape.horizon]
        else:
            last = ys[-1]
            if kind is not None:
                last = last + kind
            if self.known is not None:
                last = last + torch.tanh(self.known(row.ahead.transpose(0, 1).flatten(1)))
            out = self.readout(self.drop(last)).view(rows, shape.horizon, shape.channels, shape.outputs)
        if self.linear is not None:
            out = out + self.linear(row.past.permute(1, 2, 0)).transpose(1, 2)[..., None]
        return out


def stacked(make_cell: MakeCell, size: int, num_layers: int, dropout: float) -> Cell:
    """One cell, or a stack of them."""
    cells = _layers(make_cell, size, num_layers)
    return cells[0] if num_layers == 1 else Stack(*cells, dropout=dropout)


def _layers(make_cell: MakeCell, size: int, num_layers: int) -> list[Cell]:
    cells: list[Cell] = []
    for _ in range(num_layers):
        cells.append(make_cell(_size(cells[-1]) if cells else size, size))
    return cells


def _size(cell: Cell) -> int:
    """Of the output."""
    return int(cell.output_spec.shape[0])


class Nets(nn.Module):
    """Nets that learn the same, each from its own first weights; together they forecast the median of their forecasts.

    Args:
        members: of one shape.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, row: Row) -> Tensor:
        """(1, B, M * H * C * outputs): one step, for a learning rule."""
        return torch.stack([member(row) for member in self.members], 1).flatten(1)[None]


def as_cell(shape: Shape, make_cell: MakeCell, hidden_size: int, num_layers: int, dropout: float) -> Cell:
    """The plain form that any learning rule can train: one cell from segment to segment, read out linearly.

    y_j = V cell(relu(W x_j)) + c        j = 1 .. L / S; the last one is the forecast
    """
    below = AffineCell(shape.features, hidden_size, activation="relu")
    cells = _layers(make_cell, hidden_size, num_layers)
    return Readout(Stack(below, *cells, dropout=dropout), shape.horizon * shape.channels * shape.outputs)


class Target(NamedTuple):
    """What came.

    Args:
        value: (T, B, H, C) normalised like the window; 0 where it is missing.
        weight: (T, B, H, C) of each value's error; 0 where it is missing.
    """

    value: Tensor
    weight: Tensor


@dataclass(frozen=True)
class ForecastLoss(Loss):
    """Error of the point forecast and pinball loss of the quantiles, averaged over the horizon and the nets.

        sum_h w_h (E(y_h - f_h) + mean_q P_q(y_h - f_hq)) / H        E(e) = |e|, e^2, or Huber's

    Args:
        kind: of the point: "mae", "mse" or "huber".
        levels: of the quantiles after the point.
    Example:
        >>> loss, target = ForecastLoss("mae", ()), Target(torch.ones(1, 2, 3, 1), torch.ones(1, 2, 3, 1))
        >>> loss.per_step(torch.zeros(1, 2, 3), target)
        tensor([[1., 1.]])
    """

    kind: str
    levels: tuple[float, ...]

    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        """See `Loss.per_step`; ys (T, B, M * H * C * outputs)."""
        value, weight = targets
        outputs = 1 + len(self.levels)
        forecast = ys.reshape(*ys.shape[:2], -1, *value.shape[2:], outputs)  # (T, B, M, H, C, outputs)
        error = value[:, :, None, ..., None] - forecast
        weight = weight[:, :, None]
        point = error[..., 0]
        if self.kind == "mse":
            cost = point.square() * weight.square()
        elif self.kind == "huber":
            cost = nn.functional.huber_loss(point * weight, torch.zeros_like(point), reduction="none")
        else:
            cost = point.abs() * weight
        if self.levels:
            q = torch.tensor(self.levels, dtype=ys.dtype, device=ys.device)
            rest = error[..., 1:]
            cost = cost + torch.maximum(q * rest, (q - 1) * rest).mean(-1) * weight
        return cost.mean((-1, -2, -3))
