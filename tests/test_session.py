"""Sessions: streams stepped in place are the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recurra.cells import EmbeddingCell, GRUCell, LSTMCell
from recurra.core import Cell, CompositeCell, tree
from recurra.core.catalog import members
from recurra.core.cell import StochasticCell
from recurra.engines import Loop
from recurra.layers import Session
from recurra.testing import Setting
from recurra.testing.generate import case
from recurra.wrappers import Readout, Stack

CELLS = [
    pytest.param(cell, id=f"{name}-{i}")
    for name, cls in members("cells").items()
    for i, cell in enumerate(cls.examples())
    if tree.leaves(cell.initial_state(1)) and not isinstance(cell, CompositeCell)
]


@pytest.mark.parametrize("cell", CELLS)
def test_the_stream_is_the_batch(cell: Cell) -> None:
    given = case(cell, Setting())
    xs = given.xs.x if isinstance(given.cell, StochasticCell) else given.xs
    rows = int(tree.leaves(xs)[0].shape[1])
    session = Session(given.cell, rows)
    session.state = given.state
    with torch.no_grad():
        ys, last = Loop()(given.cell, xs, given.state)
    for t in range(int(tree.leaves(xs)[0].shape[0])):
        y = session.step(tree.at(xs, t))
        for a, b in zip(tree.leaves(y), tree.leaves(tree.at(ys, t))):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for a, b in zip(tree.leaves(session.state), tree.leaves(last)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_whole_model_is_one_call() -> None:
    torch.manual_seed(0)
    model = Readout(Stack(EmbeddingCell(11, 4), LSTMCell(4, 6, layer_norm=True), GRUCell(6, 5)), 11)
    session = Session(model, 3)
    assert session.why_not_native is None
    tokens = torch.randint(11, (9, 3))
    with torch.no_grad():
        ys, _ = Loop()(model, tokens)
    for token, y in zip(tokens, ys):
        torch.testing.assert_close(session.step(token), y)


def test_saved_restored_reset_cloned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = LSTMCell(3, 4)
    session = Session(cell, 2)
    xs = torch.randn(6, 2, 3)
    for x in xs[:3]:
        session.step(x)
    session.save(tmp_path / "state.safetensors")
    other = session.clone()
    wanted = [session.step(x) for x in xs[3:]]
    for x, y in zip(xs[3:], wanted):
        assert torch.equal(other.step(x), y)
    session.load(tmp_path / "state.safetensors")
    for x, y in zip(xs[3:], wanted):
        assert torch.equal(session.step(x), y)
    session.reset(torch.tensor([True, False]))
    assert not session.state.h[0].any()
    assert session.state.h[1].any()
    session.reset()
    assert not session.state.c.any()
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"^Session: .* must be a whole file of tensors"):
        session.load(tmp_path / "state.safetensors")


def test_into_a_buffer_and_with_new_weights() -> None:
    torch.manual_seed(0)
    cell = GRUCell(3, 4)
    session = Session(cell)
    out = torch.empty(1, 4)
    x = torch.randn(1, 3)
    assert session.step(x, out=out) is out
    with torch.no_grad():
        cell.weight_hh.mul_(2.0)
        cell.weight_ih.mul_(2.0)
    session.refresh()
    state = session.state
    with torch.no_grad():
        wanted, _ = cell.step(x, state)
    torch.testing.assert_close(session.step(x, out=out), wanted)
    with pytest.raises(ValueError, match=r"^Session: out must be dense"):
        session.step(x, out=torch.empty(2, 4))


def test_wrong_input_is_a_sentence() -> None:
    session = Session(GRUCell(3, 4), 2)
    with pytest.raises(ValueError, match=r"^Session: x must be \(2, 3\)"):
        session.step(torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"^Session: x must be"):
        session.step(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"^Session: cell must be a recurra Cell"):
        Session(torch.nn.GRU(3, 4))  # type: ignore[arg-type]


def test_many_streams_in_one_batch() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(5, 16)
    session = Session(cell, 3000)
    xs = torch.randn(3, 3000, 5)
    with torch.no_grad():
        ys, _ = Loop()(cell, xs)
    for x, y in zip(xs, ys):
        torch.testing.assert_close(session.step(x), y, rtol=1e-5, atol=1e-6)


def test_the_callers_own_buffers_may_be_used_again_and_move() -> None:
    cell = LSTMCell(3, 5)
    session, other = Session(cell), Session(cell)
    x, out = torch.empty(1, 3), torch.empty(1, 5)
    for t in range(6):
        value = torch.randn(1, 3)
        x.copy_(value)
        if t == 3:
            x.data = value.clone()
        if t == 4:
            out.data = torch.empty(1, 5)
        assert session.step(x, out) is out
        assert torch.equal(out, other.step(value))
