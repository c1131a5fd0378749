"""Hebb, Oja, BCM, recursive least squares and FORCE: what the laws do not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells import AffineCell, ElmanCell, EmbeddingCell, FullyRecurrentCell, GRUCell
from recurra.core import Cell, Chunk, Controls, CrossEntropy, MeanSquaredError
from recurra.engines import Loop
from recurra.learning import BCM, EKF, FORCE, RLS, SGD, Hebb, Oja, Online
from recurra.learning.products import products
from recurra.wrappers import Feedback, Readout, Stack

SQUARED = MeanSquaredError()


class Views(Cell[Tensor, Tensor, Tensor]):
    """Products with parts of parameters, from either side."""

    source = "none"

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 3, 2
        self.both = nn.Parameter(torch.arange(15.0).reshape(5, 3))
        self.turned = nn.Parameter(torch.ones(3, 2))

    @classmethod
    def examples(cls) -> Any:
        yield cls()

    def initial_state(self, batch_size: int) -> Tensor:
        return self.initial("s", batch_size, 2)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.both.split([2, 3])
        y = F.linear(x, first) + (second @ x.mT).mT @ self.turned
        return y, state


def test_products_are_found_in_any_writing() -> None:
    cell = Views()
    found = products(cell, 4)[1]
    assert [(p.name, tuple(p.weight.shape), p.offset) for p in found] == [
        ("both", (2, 3), 0),
        ("both", (3, 3), 6),
        ("turned", (2, 3), 0),
    ]
    x = torch.randn(1, 4, 3)
    direction = Hebb().step(cell, Hebb().init(cell, 4), Chunk(x, torch.zeros(1, 4, 2)), SQUARED)[1].direction
    with torch.no_grad():
        second = x[0] @ cell.both[2:].T
        grown = torch.cat([x[0] @ cell.both[:2].T, second], 1).T @ x[0]
        torch.testing.assert_close(direction["both"], -grown)
        torch.testing.assert_close(direction["turned"], -second.T @ (second @ cell.turned))


def test_a_trace_remembers_and_a_third_factor_asks_for_it() -> None:
    """What was active three steps ago learns by a reward now; a row that begins again has forgotten it."""
    cell = AffineCell(2, 1, bias=False).double()
    rule = Hebb(decay=0.5)
    xs = torch.zeros(4, 3, 2).double()
    xs[0] = 1.0
    weights = torch.zeros(4, 3).double()
    weights[3] = 1.0
    reset = torch.zeros(4, 3, dtype=torch.bool)
    reset[2, 1] = True
    lengths = torch.tensor([4, 4, 2])
    chunk = Chunk(xs, torch.zeros(4, 3, 1).double(), weights, Controls(lengths, reset))
    carry, estimate = rule.step(cell, rule.init(cell, 3), chunk, SQUARED)
    y = float(cell(xs[0, :1])[0].detach().sum())
    torch.testing.assert_close(estimate.direction["weight"], torch.full((1, 2), -(0.5**3) * y).double())
    torch.testing.assert_close(carry.traces[0][:, 0, 0], torch.tensor([0.125, 0.0, 0.5]).double() * y)


def test_oja_finds_the_first_principal_component() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 4, generator=generator).double() @ torch.diag(torch.tensor([3.0, 1.0, 0.5, 0.2]).double())
    xs = torch.randn(1500, 1, 4, generator=generator).double() @ mixing.T / 3
    cell = AffineCell(4, 1, bias=False).double()
    online = Online(Oja(), SQUARED, SGD(lr=0.02))
    online.run(cell, online.init(cell, 1), Chunk(xs, torch.zeros(1500, 1, 1).double()))
    first = torch.linalg.eigh(xs[:, 0].T @ xs[:, 0]).eigenvectors[:, -1]
    found = cell.weight.detach()[0]
    assert float((found @ first).abs()) > 0.99
    assert abs(float(found.norm()) - 1) < 0.05
    grown = AffineCell(4, 1, bias=False).double()
    online = Online(Hebb(), SQUARED, SGD(lr=0.01))
    online.run(grown, online.init(grown, 1), Chunk(xs[:500], torch.zeros(500, 1, 1).double()))
    assert float(grown.weight.detach().norm()) > 5  # without the decay nothing holds it


def test_bcm_becomes_selective() -> None:
    """Of two orthogonal inputs, equally often, it comes to answer one."""
    generator = torch.Generator().manual_seed(1)
    which = torch.randint(0, 2, (2000, 1), generator=generator)
    xs = F.one_hot(which, 2).double()
    cell = AffineCell(2, 1, bias=False).double()
    with torch.no_grad():
        cell.weight.copy_(torch.tensor([[0.6, 0.5]]))
    online = Online(BCM(tau_steps=15), SQUARED, SGD(lr=0.04))
    online.run(cell, online.init(cell, 1), Chunk(xs, torch.zeros(2000, 1, 1).double()))
    strong, weak = sorted(cell.weight.detach()[0].tolist(), reverse=True)
    assert 1.7 < strong < 2.3  # y = theta = E[y^2] = y^2 / 2
    assert abs(weak) < 0.1


def linear() -> Readout:
    torch.manual_seed(1)
    return Readout(ElmanCell(2, 5), 2).double()


def noise(num_steps: int, rows: int, *, seed: int = 0) -> Chunk:
    generator = torch.Generator().manual_seed(seed)
    xs, targets = (torch.randn(num_steps, rows, 2, generator=generator).double() for _ in range(2))
    weights = torch.rand(num_steps, rows, generator=generator).double()
    weights[3:5] = 0
    return Chunk(xs, targets, weights, Controls(reset=torch.rand(num_steps, rows, generator=generator) < 0.1))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_least_squares_are_a_kalman_filter_and_ridge_regression(rows: int, size: int) -> None:
    chunk, found = noise(30, rows), []
    for rule in (RLS(p0=20.0), EKF("unit", p0=20.0, q=0.0, r=1.0)):
        cell = linear()
        if isinstance(rule, EKF):
            cell.cell.requires_grad_(False)
        carry: Any = rule.init(cell, rows)  # type: ignore[attr-defined]
        for a in range(0, 30, size):
            b = min(30, a + size)
            assert chunk.weights is not None
            part = Chunk(chunk.xs[a:b], chunk.targets[a:b], chunk.weights[a:b], chunk.controls.window(a, b))
            carry, estimate = rule.step(cell, carry, part, SQUARED)  # type: ignore[attr-defined]
            with torch.no_grad():
                for name, d in estimate.direction.items():
                    cell.get_parameter(name).sub_(d)
        found.append(torch.cat([cell.linear.weight, cell.linear.bias[:, None]], 1).detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)
    cell = linear()
    with torch.no_grad():
        state, phis = cell.initial_state(rows), []
        for x, again in zip(chunk.xs, chunk.controls.reset):  # type: ignore[arg-type]
            state = state._replace(h=torch.where(again[:, None], 0.0, state.h))
            phi, state = cell.features(x, state)
            phis.append(torch.cat([phi, torch.ones_like(phi[:, :1])], 1))
        phi, w = torch.cat(phis), chunk.weights.flatten()[:, None]  # type: ignore[union-attr]
        start = torch.cat([cell.linear.weight, cell.linear.bias[:, None]], 1)
        normal = phi.T @ (w * phi) + torch.eye(6).double() / 20.0
        asked = phi.T @ (w * (chunk.targets.flatten(0, 1) - phi @ start.T))
    torch.testing.assert_close(found[0], start.detach() + torch.linalg.solve(normal, asked).T, rtol=1e-9, atol=1e-10)


def test_forgetting_follows_a_change() -> None:
    """The mapping turns round half-way; with a memory of 20 steps the second half is learned, without one it is not."""
    chunk = noise(400, 1)
    errors = []
    for forget in (1.0, 0.95):
        cell = linear()
        with torch.no_grad():
            cell.cell.weight_hh.zero_()
            clean = torch.tanh(chunk.xs @ cell.cell.weight_ih.T + cell.cell.bias)
        sign = torch.where(torch.arange(400) < 200, 1.0, -1.0)[:, None, None]
        targets = sign * clean[..., :2]
        online = Online(RLS(forget=forget), SQUARED)
        _, trace = online.run(cell, online.init(cell, 1), Chunk(chunk.xs, targets))
        errors.append(float(trace.losses[-50:].mean()))
    assert errors[1] < 1e-6 < 1e-2 < errors[0]


class Leaky(Cell[Tensor, Tensor, Tensor]):
    """A reservoir with a time constant:  v' = v + 0.1 (-v + J tanh(v) + W x),  y = tanh(v')."""

    source = "Sussillo & Abbott 2009"

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.input_size, self.output_size = 1, size
        self.within = nn.Parameter(1.5 * torch.randn(size, size, generator=generator).double() / size**0.5)
        self.back = nn.Parameter(2 * torch.rand(size, 1, generator=generator).double() - 1)
        self.requires_grad_(False)

    @classmethod
    def examples(cls) -> Any:
        yield cls(5)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.initial("v", batch_size, self.output_size)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.9 * state + 0.1 * (F.linear(torch.tanh(state), self.within) + F.linear(x, self.back))
        return torch.tanh(state), state


def chaotic(size: int) -> Feedback:
    """A chaotic net without input that sees its output."""
    readout = Readout(Leaky(size), 1, bias=False)
    with torch.no_grad():
        readout.linear.weight.zero_()
    return Feedback(readout)


def awake(online: Online, cell: Cell) -> Any:
    """The start, but for a hidden state of random numbers: from zero, nothing would ever happen."""
    state = online.init(cell, 1)
    started = 0.5 * torch.randn(1, 100, generator=torch.Generator().manual_seed(2)).double()
    return state._replace(carry=state.carry._replace(state=state.carry.state._replace(inner=started)))


def test_force_makes_a_chaotic_net_generate_a_pattern() -> None:
    """After learning the weights stay, nothing is forced, and the pattern goes on; without learning there is chaos."""
    cell = chaotic(100)
    time = torch.arange(1200.0).double()
    wave = (torch.sin(time / 20) + 0.5 * torch.sin(time / 10))[:, None, None]
    nothing = torch.zeros(1200, 1, 0).double()
    online = Online(FORCE(), SQUARED)
    state, trace = online.run(cell, awake(online, cell), Chunk(nothing[:1000], wave[:1000]))
    assert float(trace.losses[2:200].mean()) < 0.02  # small from the start
    with torch.no_grad():
        ys, _ = Loop()(cell, nothing[1000:], state.carry.state, Controls())
        wild, _ = Loop()(chaotic(100), nothing[1000:], state.carry.state, Controls())
    assert float((ys - wave[1000:]).square().mean()) < 1e-2
    assert float((wild - wave[1000:]).square().mean()) > 0.1


def test_force_learns_every_so_many_steps() -> None:
    cell, rule = chaotic(20), FORCE(every=2)
    carry = rule.init(cell, 1)
    carry = carry._replace(state=carry.state._replace(inner=torch.ones(1, 20).double()))
    chunk, moved = Chunk(torch.zeros(1, 1, 0).double(), torch.ones(1, 1, 1).double()), []
    for _ in range(4):
        carry, estimate = rule.step(cell, carry, chunk, SQUARED)
        moved.append(bool(estimate.direction["cell.linear.weight"].any()))
    assert moved == [True, False, True, False]


def test_refusals() -> None:
    cell = linear()
    assert RLS().supports(cell, SQUARED) is None
    assert RLS().supports(Stack(GRUCell(2, 3), Readout(GRUCell(3, 3), 2)), SQUARED) is None
    for rule, other, loss, text in (
        (RLS(), ElmanCell(2, 3), SQUARED, "it needs one ReadoutCell, the last part of the cell, and finds 0."),
        (RLS(), Stack(Readout(GRUCell(2, 3), 2), GRUCell(2, 3)), SQUARED, "something comes behind it."),
        (RLS(), cell, CrossEntropy(), "it minimises squared errors, not CrossEntropy."),
        (FORCE(), cell, SQUARED, "the cell does not feed its output back; RLS() is the rule without feedback."),
        (Hebb(), EmbeddingCell(4, 3), SQUARED, "no product y = W x with a parameter that learns was found"),
        (Oja(), FullyRecurrentCell(2, 3).requires_grad_(False), SQUARED, "no product y = W x"),
    ):
        reason = rule.supports(other, loss)
        assert reason is not None
        assert text in reason
        with pytest.raises(TypeError, match=f"{type(rule).__name__}: "):
            rule.step(other, rule.init(other, 1), Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)), loss)
    frozen = linear()
    frozen.linear.requires_grad_(False)
    assert RLS().supports(frozen, SQUARED) == "the linear output does not learn; its requires_grad is False."
    for make, text in (
        (lambda: RLS(p0=0.0), "RLS: p0 must be above 0"),
        (lambda: FORCE(forget=1.5), r"FORCE: forget must be in \(0, 1\]"),
        (lambda: FORCE(every=0), "FORCE: every must be at least 1"),
        (lambda: Hebb(decay=1.0), r"Hebb: decay must be a probability in \[0, 1\)"),
        (lambda: BCM(tau_steps=0.5), "BCM: tau_steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
