"""Learning step by step: rule, update and cell in one loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.cells import ElmanCell, IndRNNCell, LSTMCell
from recurra.core import Cell, Chunk, Controls, MeanSquaredError, tree
from recurra.learning import BPTT, RTRL, SGD, UORO, Adam, Online, Sum, TruncatedBPTT, UpdateRule
from recurra.testing.rule_laws import stored


def _cell(kind: type[Any] = ElmanCell) -> Any:
    torch.manual_seed(0)
    return kind(2, 3).double()


def _chunk(num_steps: int, rows: int = 1, seed: int = 0) -> Chunk:
    g = torch.Generator().manual_seed(seed)
    xs, targets = (torch.randn(num_steps, rows, n, generator=g, dtype=torch.float64) for n in (2, 3))
    reset = torch.rand(num_steps, rows, generator=g) < 0.2
    return Chunk(xs, targets, None, Controls(reset=reset))


def _by_hand(cell: Cell, chunk: Chunk, optimizer: torch.optim.Optimizer) -> Tensor:
    """Backpropagation through one step, by autograd and torch's own optimizer."""
    losses, state = [], cell.initial_state(1)
    assert chunk.controls.reset is not None
    for t in range(len(chunk.xs)):
        if chunk.controls.reset[t].any():
            state = cell.initial_state(1)
        y, state = cell.step(chunk.xs[t], tree.detach(state))
        loss = (y - chunk.targets[t]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@pytest.mark.parametrize(
    ("update", "make"),
    [
        (SGD(0.1), lambda ps: torch.optim.SGD(ps, 0.1)),
        (SGD(0.1, momentum=0.9), lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9)),
        (Adam(0.01), lambda ps: torch.optim.Adam(ps, 0.01)),
    ],
)
def test_updates_are_those_of_torch(update: UpdateRule, make: Any) -> None:
    cell, chunk = _cell(), _chunk(12)
    other = copy.deepcopy(cell)
    online = Online(TruncatedBPTT(k1=1), MeanSquaredError(), update)
    _, trace = online.run(cell, online.init(cell, 1), chunk)
    wanted = _by_hand(other, chunk, make(other.parameters()))
    torch.testing.assert_close(trace.losses, wanted)
    for p, q in zip(cell.parameters(), other.parameters()):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("rule", [RTRL(), UORO()])
@pytest.mark.parametrize("update", [SGD(0.1, momentum=0.5), Adam(0.01)])
def test_a_stream_in_pieces_is_the_stream(rule: Any, update: UpdateRule) -> None:
    cell, chunk = _cell(LSTMCell), _chunk(20, 2)
    other, online = copy.deepcopy(cell), Online(rule, MeanSquaredError(), update)
    whole, trace = online.run(cell, online.init(cell, 2, seed=3), chunk)
    state, losses = online.init(other, 2, seed=3), []
    for a, b in ((0, 7), (7, 7), (7, 20)):
        reset = chunk.controls.reset
        assert reset is not None
        part = Chunk(chunk.xs[a:b], chunk.targets[a:b], None, Controls(reset=reset[a:b]))
        state, found = online.run(other, stored(state), part)
        losses.append(found.losses)
    torch.testing.assert_close(torch.cat(losses), trace.losses, rtol=0, atol=0)
    for p, q in zip(cell.parameters(), other.parameters()):
        assert torch.equal(p, q)
    for p, q in zip(tree.leaves(whole), tree.leaves(state)):
        assert torch.equal(p, q)


def test_steps_without_weight_change_no_parameter_and_no_moment() -> None:
    cell, chunk = _cell(), _chunk(6)
    online = Online(RTRL(), MeanSquaredError(), Adam(0.1))
    state, _ = online.run(cell, online.init(cell, 1), chunk)
    before = [p.detach().clone() for p in cell.parameters()]
    moments = state.update
    state, trace = online.run(cell, state, chunk._replace(weights=torch.zeros(6, 1, dtype=torch.float64)))
    assert all(torch.equal(p, q) for p, q in zip(cell.parameters(), before))
    assert all(torch.equal(a, b) for a, b in zip(moments.mean, state.update.mean))
    assert int(state.update.num_updates) == 6
    assert trace.weights.tolist() == [0.0] * 6
    padded = chunk._replace(controls=Controls(lengths=torch.tensor([2])))
    state, _ = online.run(cell, state, padded)
    assert int(state.update.num_updates) == 8


def test_a_sum_is_the_gradient_of_the_stream() -> None:
    cell, chunk = _cell(), _chunk(9, 2)
    online = Online(RTRL(), MeanSquaredError(), Sum())
    before = [p.detach().clone() for p in cell.parameters()]
    state, trace = online.run(cell, online.init(cell, 2), chunk)
    _, estimate = BPTT().step(cell, BPTT().init(cell, 2), chunk, MeanSquaredError())
    for total, (_, wanted) in zip(state.update.total, estimate.direction.items()):
        torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(trace.losses.sum(), estimate.loss)
    assert all(torch.equal(p, q) for p, q in zip(cell.parameters(), before))


def test_the_learning_rate_may_change_at_every_step() -> None:
    cell, chunk = _cell(), _chunk(4)
    other = copy.deepcopy(cell)
    online = Online(RTRL(), MeanSquaredError(), SGD(0.1))
    online.run(cell, online.init(cell, 1), chunk, lr_factor=torch.tensor([1.0, 0.0, 0.0, 0.0]))
    first = Chunk(chunk.xs[:1], chunk.targets[:1], None, Controls())
    online.run(other, online.init(other, 1), first)
    for p, q in zip(cell.parameters(), other.parameters()):
        torch.testing.assert_close(p, q)


def test_a_constrained_cell_stays_in_its_set() -> None:
    torch.manual_seed(0)
    cell = IndRNNCell(2, 3)
    bound = float(cell.weight_hh.detach().abs().max()) + 10
    with torch.no_grad():
        cell.weight_hh.fill_(bound)
    online = Online(RTRL(), MeanSquaredError(), SGD(1e-6))
    chunk = _chunk(2)
    online.run(cell, online.init(cell, 1), Chunk(chunk.xs.float(), chunk.targets.float()))
    held = cell.weight_hh.detach().clone()
    cell.constrain()
    assert torch.equal(held, cell.weight_hh)
    assert float(held.max()) < bound


def test_messages() -> None:
    cell, chunk = _cell(), _chunk(3)
    with pytest.raises(TypeError, match=r"^Online: update must be an update such as SGD\(lr=0.1\), got None\.$"):
        Online(RTRL(), MeanSquaredError())
    with pytest.raises(ValueError, match=r"^SGD: lr must be finite and not negative, got -1\.$"):
        SGD(-1)
    with pytest.raises(TypeError, match=r"^Adam: lr must be a number, got '1'\.$"):
        Adam("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Adam: eps must be positive, got 0\.$"):
        Adam(0.1, eps=0)
    online = Online(RTRL(), MeanSquaredError(), SGD(0.1))
    state = online.init(cell, 1)
    with pytest.raises(ValueError, match=r"^Online: weights must be \(3, 1\), got \(3,\)\.$"):
        online.run(cell, state, chunk._replace(weights=torch.ones(3)))
    with pytest.raises(ValueError, match=r"^Online: lr_factor must be a number or \(3,\), got \(2,\)\.$"):
        online.run(cell, state, chunk, lr_factor=torch.ones(2))
    with pytest.raises(TypeError, match=r"^Online\(RTRL\): it carries a state and needs a Cell"):
        online.init(torch.nn.Linear(2, 3), 1)  # type: ignore[arg-type]
