"""Bidirectional against torch.nn, and the grid's wavefront against its node-by-node reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra.cells.elman import ElmanCell
from recurra.cells.lstm import LSTMCell
from recurra.core import tree
from recurra.core.cell import JoinCell, PointwiseCell
from recurra.core.spec import Leaf
from recurra.engines import Hoisted, Loop
from recurra.layers import Bidirectional, Grid, Recurrent


def _copy(cell: LSTMCell, layer: nn.LSTM, suffix: str) -> None:
    with torch.no_grad():
        cell.weight_ih.copy_(getattr(layer, f"weight_ih_l0{suffix}"))
        cell.weight_hh.copy_(getattr(layer, f"weight_hh_l0{suffix}"))
        cell.bias.copy_(getattr(layer, f"bias_ih_l0{suffix}") + getattr(layer, f"bias_hh_l0{suffix}"))


@pytest.mark.parametrize("engine", [None, Loop(), Hoisted()], ids=str)
def test_bidirectional_equals_torch_with_packed_sequences(engine) -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    ours = Bidirectional(LSTMCell(3, 4, dtype=torch.float64), LSTMCell(3, 4, dtype=torch.float64), engine=engine)
    _copy(ours.forward_cell, layer, "")
    _copy(ours.backward_cell, layer, "_reverse")
    lengths = torch.tensor([5, 7, 1])
    xs = torch.randn(7, 3, 3, dtype=torch.float64)
    packed, (h, c) = layer(pack_padded_sequence(xs, lengths, enforce_sorted=False))
    theirs, _ = pad_packed_sequence(packed, total_length=7)
    spoiled = torch.where((torch.arange(7)[:, None] < lengths)[..., None], xs, torch.nan)
    ys, state = ours(spoiled, lengths=lengths)
    torch.testing.assert_close(ys, theirs)
    torch.testing.assert_close(torch.stack([state.forward.h, state.backward.h]), h)
    torch.testing.assert_close(torch.stack([state.forward.c, state.backward.c]), c)


def test_bidirectional_reset_is_a_new_sequence_for_both_directions() -> None:
    torch.manual_seed(0)
    layer = Bidirectional(ElmanCell(2, 3).double(), LSTMCell(2, 3).double())
    xs = torch.randn(9, 2, 2, dtype=torch.float64)
    reset = torch.zeros(9, 2, dtype=torch.bool)
    reset[4] = True
    whole, _ = layer(xs, reset=reset)
    parts = torch.cat([layer(xs[:4])[0], layer(xs[4:])[0]])
    torch.testing.assert_close(whole, parts)


def test_bidirectional_reset_with_lengths() -> None:
    torch.manual_seed(0)
    layer = Bidirectional(ElmanCell(2, 3).double(), ElmanCell(2, 3).double())
    xs = torch.randn(9, 2, 2, dtype=torch.float64)
    reset = torch.zeros(9, 2, dtype=torch.bool)
    reset[3, 1] = True
    lengths = torch.tensor([9, 6])
    ys, _ = layer(xs, reset=reset, lengths=lengths)
    row = xs[:, 1:]
    torch.testing.assert_close(ys[:3, 1:], layer(row[:3])[0])
    torch.testing.assert_close(ys[3:6, 1:], layer(row[3:6])[0])
    assert not ys[6:, 1].any()
    torch.testing.assert_close(ys[:, :1], layer(xs[:, :1])[0])


def test_bidirectional_refuses() -> None:
    with pytest.raises(TypeError, match=r"^Bidirectional: backward_cell must be a recurra Cell, got Linear\.$"):
        Bidirectional(ElmanCell(2, 3), nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"^Bidirectional: the inputs of both cells must be of one shape, got "):
        Bidirectional(ElmanCell(2, 3), ElmanCell(3, 3))


class _NodeState(NamedTuple):
    h: Tensor
    seen: Tensor


class _NodeCell(JoinCell[Tensor, Tensor, _NodeState]):
    """h = tanh(W x + sum_k U_k h_k m_k), with a count of the nodes that paths from the corner passed."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.inner = nn.Linear(input_size, hidden_size)
        self.weight_hh = nn.Parameter(torch.randn(2, hidden_size, hidden_size) / hidden_size**0.5)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls(2, 3)

    def initial_state(self, batch_size: int) -> _NodeState:
        h = self.initial("h", batch_size, self.output_size)
        return _NodeState(h, torch.zeros(batch_size, dtype=torch.int64))

    def join(self, x: Tensor, predecessors: _NodeState, mask: Tensor) -> tuple[Tensor, _NodeState]:
        weight = self.weight_hh[: mask.shape[1]]
        term = torch.einsum("bkh,kgh->bkg", predecessors.h, weight) * mask[..., None]
        h = torch.tanh(self.inner(x) + term.sum(1))
        return h, _NodeState(h, (predecessors.seen * mask).amax(1) + 1)


@pytest.fixture
def node() -> _NodeCell:
    torch.manual_seed(0)
    return _NodeCell(2, 3).double().learn_initial_state()


def test_grid_wavefront_equals_reference(node: _NodeCell) -> None:
    xs = torch.randn(4, 5, 2, 2, dtype=torch.float64)
    sizes = torch.tensor([[4, 5], [2, 3]])
    reset = torch.zeros(4, 2, dtype=torch.bool)
    reset[2, 0] = True
    for extra in ({}, {"sizes": sizes}, {"reset": reset}):
        fast, fast_state = Grid(node)(xs, **extra)
        slow, slow_state = Grid(node, wavefront=False)(xs, **extra)
        torch.testing.assert_close(fast, slow)
        for a, b in tree.zip_leaves(fast_state, slow_state):
            torch.testing.assert_close(a, b)


def test_grid_sees_above_and_left_only(node: _NodeCell) -> None:
    xs = torch.randn(3, 4, 1, 2, dtype=torch.float64, requires_grad=True)
    ys, state = Grid(node)(xs)
    (grad,) = torch.autograd.grad(ys[1, 2].sum(), xs)
    touched = grad.abs().sum((-1, -2)) > 0
    expected = torch.zeros(3, 4, dtype=torch.bool)
    expected[:2, :3] = True
    assert torch.equal(touched, expected)
    assert state.seen[:, 0].tolist() == [3, 4, 5, 6]  # the longest path to each node of the last row


def test_grid_streams_in_strips_and_resets(node: _NodeCell) -> None:
    xs = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    whole, end = Grid(node)(xs)
    top, state = Grid(node)(xs[:2])
    rest, last = Grid(node)(xs[2:], state)
    torch.testing.assert_close(whole, torch.cat([top, rest]))
    torch.testing.assert_close(end.h, last.h)
    reset = torch.zeros(5, 2, dtype=torch.bool)
    reset[2] = True
    torch.testing.assert_close(Grid(node)(xs, reset=reset)[0], torch.cat([top, Grid(node)(xs[2:])[0]]))


def test_grid_padding_changes_nothing(node: _NodeCell) -> None:
    xs = torch.randn(4, 5, 2, 2, dtype=torch.float64)
    sizes = torch.tensor([[4, 5], [2, 3]])
    small, state = Grid(node)(xs[:2, :3, 1:])
    xs[2:, :, 1] = torch.nan
    xs[:, 3:, 1] = torch.nan
    ys, end = Grid(node)(xs, sizes=sizes)
    torch.testing.assert_close(ys[:2, :3, 1:], small)
    assert not ys[2:, :, 1].any()
    assert not ys[:, 3:, 1].any()
    torch.testing.assert_close(end.h[:3, 1:], state.h)
    (gradient,) = torch.autograd.grad(ys.sum(), node.weight_hh)
    assert gradient.isfinite().all()


def test_a_chain_has_one_predecessor(node: _NodeCell) -> None:
    ys, state = Recurrent(node)(torch.randn(6, 2, 2, dtype=torch.float64))
    assert ys.shape == (6, 2, 3)
    assert state.seen.tolist() == [6, 6]


def test_grid_of_nothing_and_refusals(node: _NodeCell) -> None:
    ys, state = Grid(node)(torch.zeros(0, 3, 2, 2, dtype=torch.float64))
    assert ys.shape == (0, 3, 2, 3)
    assert state.h.shape == (3, 2, 3)
    with pytest.raises(TypeError, match=r"^Grid: cell must be a JoinCell, got ElmanCell\.$"):
        Grid(ElmanCell(2, 3))
    with pytest.raises(ValueError, match=r"^Grid: sizes must be \(2, 2\), got \(2,\)\.$"):
        Grid(node)(torch.zeros(3, 3, 2, 2, dtype=torch.float64), sizes=torch.tensor([1, 2]))


class _Switch(PointwiseCell[Tensor, Tensor]):
    """Truth values in, their opposite out."""

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One."""
        yield cls()

    @property
    def input_spec(self) -> Leaf:
        """A truth value."""
        return Leaf((), torch.bool)

    output_spec = input_spec

    def pointwise(self, x: Tensor) -> Tensor:
        """Its opposite."""
        return ~x


def test_truth_values_stay_what_they_are_where_rows_end() -> None:
    ys, _ = Recurrent(_Switch(), Loop())(torch.zeros(3, 2, dtype=torch.bool), lengths=torch.tensor([3, 1]))
    assert ys.dtype == torch.bool
    assert ys.tolist() == [[True, True], [True, False], [True, False]]
