"""cuDNN and oneDNN, through torch's own layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..core import tree
from ..core.cell import Cell, CompositeCell, PointwiseCell, VendorCell, VendorWeights
from ..core.checks import is_transformed
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from .hoisted import run_structure

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}


@dataclass(frozen=True)
class Vendor(Engine):
    """The kernels behind ``torch.nn.LSTM``, ``GRU`` and ``RNN`` for cells that declare themselves equal to one of them.

    A cell made of cells runs if all its parts do. Ragged batches go through torch's packed sequences. Second derivatives
    are those that torch's kernels have: none with cuDNN or oneDNN.
    """

    def supports(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> str | None:
        """See `Engine.supports`."""
        if controls.reset is not None:
            return "torch's layers cannot restart inside a sequence; use Auto() or Hoisted()."
        if any(is_transformed(leaf) for leaf in (*tree.leaves((xs, state)), *cell.parameters())):
            return "torch's layers do not run under torch.func or torch.compile here; use Auto() or Hoisted()."
        return _unsupported(cell)

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        done = run_structure(self, cell, xs, state, controls)
        if done is not None:
            return done
        assert isinstance(cell, VendorCell)
        layer = cell.vendor()
        assert layer is not None
        before = cell.to_vendor(state)
        hidden = tuple(h.unsqueeze(0).contiguous() for h in before)
        if controls.lengths is None:
            ys, hidden = _call(layer, xs, None, hidden)
        else:
            ys, hidden = _packed(layer, xs, hidden, controls.lengths)
        # Under autocast the kernels answer in half precision; the state that is carried on stays as it was.
        new = cell.from_vendor(tuple(h.squeeze(0).to(b.dtype) for h, b in zip(hidden, before)))
        return ys, new if controls.lengths is None else tree.where(controls.lengths > 0, new, state)


def _unsupported(cell: Cell) -> str | None:
    if isinstance(cell, CompositeCell):
        if not cell.parts:
            return f"{type(cell).__name__} shows no part that could run as a torch layer."
        return next((reason for part in cell.parts if (reason := _unsupported(part))), None)
    if isinstance(cell, PointwiseCell):
        return None
    name = type(cell).__name__
    if not isinstance(cell, VendorCell):
        return f"{name} is no torch layer."
    if cell.vendor() is None:
        return f"this {name} has an option that torch's layers do not have."
    return None


def _call(
    layer: VendorWeights, data: Tensor, batch_sizes: Tensor | None, hidden: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    weights = [w for w in layer[1:] if w is not None]
    has_bias = layer.bias_ih is not None
    state = hidden if layer.kind == "lstm" else hidden[0]
    training = torch.is_grad_enabled()
    function = _FUNCTIONS[layer.kind]
    with warnings.catch_warnings():
        if layer.weight_hr is not None:  # torch says once that oneDNN has no projection and takes its own kernel
            warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        if batch_sizes is None:
            out = function(data, state, weights, has_bias, 1, 0.0, training, False, False)
        else:
            out = function(data, batch_sizes, state, weights, has_bias, 1, 0.0, training, False)
    return out[0], tuple(out[1:])


def _packed(
    layer: VendorWeights, xs: Tensor, hidden: tuple[Tensor, ...], lengths: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Ragged rows; a row of length zero runs for one step, which the caller throws away."""
    packed = pack_padded_sequence(xs, lengths.clamp(min=1).cpu(), enforce_sorted=False)
    assert packed.sorted_indices is not None
    hidden = tuple(h.index_select(1, packed.sorted_indices) for h in hidden)
    data, hidden = _call(layer, packed.data, packed.batch_sizes, hidden)
    ys, _ = pad_packed_sequence(packed._replace(data=data), total_length=xs.shape[0])
    assert packed.unsorted_indices is not None
    return ys, tuple(h.index_select(1, packed.unsorted_indices) for h in hidden)
