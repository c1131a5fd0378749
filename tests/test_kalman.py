"""Kalman filters and least squares: what the laws do not ask."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.cells import ElmanCell, GRUCell, JordanCell, LSTMCell
from recurra.core import BinaryCrossEntropy, Cell, Chunk, Controls, Loss, MeanSquaredError
from recurra.learning import EKF, RTRL, Anneal
from recurra.learning.kalman import _factored, _one_by_one
from recurra.wrappers import Readout, Stack

SQUARED = MeanSquaredError()


def stream(cell: Cell, num_steps: int = 12, rows: int = 3, *, seed: int = 0, controls: bool = True) -> Chunk:
    """Random steps with resets, weights and (where T is even) lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    reset = torch.rand(num_steps, rows, generator=generator) < 0.15
    weights = torch.rand(num_steps, rows, generator=generator, dtype=torch.float64)
    weights[2] = 0
    xs, targets = draw(num_steps, rows, cell.input_size), draw(num_steps, rows, cell.output_size)
    lengths = torch.randint(1, num_steps + 1, (rows,), generator=generator)
    return Chunk(xs, targets, weights, Controls(lengths, reset) if controls else Controls())


def cut(chunk: Chunk, a: int, b: int) -> Chunk:
    assert chunk.weights is not None
    return Chunk(chunk.xs[a:b], chunk.targets[a:b], chunk.weights[a:b], chunk.controls.window(a, b))


def learn(rule: Any, cell: Cell, chunk: Chunk, edges: list[int], loss: Loss = SQUARED) -> Any:
    """Follow a stream in pieces and apply every step; the last carry."""
    carry = rule.init(cell, chunk.xs.shape[1])
    for a, b in itertools.pairwise(edges):
        carry, estimate = rule.step(cell, carry, cut(chunk, a, b), loss)
        with torch.no_grad():
            for name, p in cell.named_parameters():
                if name in estimate.direction:
                    p -= estimate.direction[name]
    return carry


def linear(bias: bool = True, num_outputs: int = 2) -> Readout:
    """A net of which only the readout learns."""
    torch.manual_seed(1)
    cell = Readout(ElmanCell(2, 5), num_outputs, bias=bias).double()
    cell.cell.requires_grad_(False)
    return cell


def ridge(cell: Readout, chunk: Chunk, p0: float, r: float) -> Tensor:
    """(O, F + 1) the weights that minimise sum w |y - t|^2 / r + |W - W_0|^2 / p0, bias last."""
    with torch.no_grad():
        phis, state = [], cell.initial_state(chunk.xs.shape[1])
        for x in chunk.xs:
            phi, state = cell.features(x, state)
            phis.append(torch.cat([phi, torch.ones_like(phi[:, :1])], 1))
        phi = torch.stack(phis).flatten(0, 1)
        weights, targets = chunk.weights, chunk.targets.flatten(0, 1)
        assert weights is not None
        start = torch.cat([cell.linear.weight, cell.linear.bias[:, None]], 1)
        normal = phi.T @ (weights.flatten()[:, None] * phi) / r + torch.eye(phi.shape[1]).double() / p0
        asked = phi.T @ (weights.flatten()[:, None] * (targets - phi @ start.T)) / r
        return start + torch.linalg.solve(normal, asked).T


@pytest.mark.parametrize("groups", ["unit", "global", (("linear.weight", "linear.bias"),)], ids=str)
@pytest.mark.parametrize("edges", [list(range(41)), [0, 7, 40], [0, 40]], ids=len)
def test_on_a_linear_model_it_is_ridge_regression_in_any_chunks(groups: Any, edges: list[int]) -> None:
    """Outputs share no parameter, so one group for each is no approximation."""
    cell = linear()
    chunk = stream(cell, 40, controls=False)
    wanted = ridge(cell, chunk, 50.0, 0.3)
    learn(EKF(groups, p0=50.0, q=0.0, r=0.3), cell, chunk, edges)
    found = torch.cat([cell.linear.weight, cell.linear.bias[:, None]], 1)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-9, atol=1e-10)


def test_groups_that_tear_a_unit_apart_are_an_approximation() -> None:
    cell = linear()
    chunk = stream(cell, 40, controls=False)
    wanted = ridge(cell, chunk, 50.0, 0.3)
    learn(EKF("tensor", p0=50.0, q=0.0, r=0.3), cell, chunk, list(range(41)))
    assert float((cell.linear.weight.detach() - wanted[:, :-1]).abs().max()) > 1e-4


CELLS = {
    "elman": lambda: ElmanCell(2, 4),
    "learned start": lambda: LSTMCell(2, 3, peephole=True).learn_initial_state(),
    "stack": lambda: Readout(Stack(GRUCell(2, 3), LSTMCell(3, 3)), 2),
    "feedback": lambda: JordanCell(2, 3, 2),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()], ids=lambda x: type(x).__name__)
def test_sure_of_its_weights_it_follows_the_gradient(name: str, loss: Loss) -> None:
    """With R far above P the step is P / R times the gradient of the summed squared error, halved."""
    torch.manual_seed(0)
    cell = CELLS[name]().double()
    chunk = stream(cell)
    if isinstance(loss, BinaryCrossEntropy):
        chunk = chunk._replace(targets=torch.sigmoid(chunk.targets))

    class Halved(Loss):
        def per_step(self, ys: Any, targets: Any) -> Tensor:
            return loss.residual(ys, targets).square().sum(-1) / 2

    exact = RTRL().step(cell, RTRL().init(cell, 3), chunk, Halved())[1].direction
    for groups in ("unit", "tensor", "global"):
        rule = EKF(groups, p0=1.0, q=0.0, r=1e9)  # type: ignore[arg-type]
        found = rule.step(cell, rule.init(cell, 3), chunk, loss)[1].direction
        for key, value in exact.items():
            torch.testing.assert_close(found[key] * 1e9, value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", CELLS)
def test_a_reach_beyond_the_stream_sees_all_of_it(name: str) -> None:
    torch.manual_seed(0)
    cell = CELLS[name]().double()
    chunk = stream(cell)
    results = []
    for reach in (None, 20, 2, 0):
        torch.manual_seed(0)
        own = CELLS[name]().double()
        learn(EKF(reach=reach), own, chunk, [0, 1, 2, 5, 12])
        results.append(torch.cat([p.detach().flatten() for p in own.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-10)
    for short in results[2:]:
        assert not torch.allclose(short, results[0], rtol=1e-4)


def test_padding_counts_for_nothing_and_moves_nothing() -> None:
    """As weights of zero do; NaN stands there."""
    torch.manual_seed(0)
    cell = LSTMCell(2, 3).double()
    chunk = stream(cell, 8, 2, controls=False)
    assert chunk.weights is not None
    ends = torch.tensor([3, 8])
    alive = torch.arange(8)[:, None] < ends
    silent = chunk._replace(weights=torch.where(alive, chunk.weights, 0.0))
    spoilt = torch.where(alive[..., None], chunk.targets, float("nan"))
    ragged = chunk._replace(targets=spoilt, controls=Controls(lengths=ends))
    rule = EKF()
    (a, one), (b, two) = (rule.step(cell, rule.init(cell, 2), c, SQUARED) for c in (silent, ragged))
    for name, direction in one.direction.items():
        torch.testing.assert_close(two.direction[name], direction)
    torch.testing.assert_close(a.covariance, b.covariance)
    assert float(a.measured) == float(b.measured) == 7
    short, _ = rule.step(cell, rule.init(cell, 2), cut(chunk, 0, 3), SQUARED)
    torch.testing.assert_close(b.influence[0], short.influence[0])


def test_many_measurements_are_taken_in_as_few_are() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(5, 3, 4, generator=generator).double()
    root = torch.randn(3, 4, 4, generator=generator).double()
    p = root @ root.mT
    through = torch.einsum("mgn,gnk->mgk", h, p)
    spread = torch.eye(5).double() + torch.einsum("mgk,lgk->ml", through, h)
    error = torch.randn(5, generator=generator).double()
    torch.testing.assert_close(
        _one_by_one(spread, (through,), error, (p,)), _factored(spread, (through,), error, (p,)), rtol=1e-9, atol=1e-9
    )


def test_noise_is_annealed_by_measurements() -> None:
    measured = torch.tensor([0.0, 5.0, 10.0, 99.0])
    assert Anneal(100.0, 1.0, 10).at(measured).tolist() == [100.0, 50.5, 1.0, 1.0]
    geometric = Anneal(1.0, 0.01, 10, "geometric").at(measured)
    torch.testing.assert_close(geometric, torch.tensor([1.0, 0.1, 0.01, 0.01]))
    cell = linear(num_outputs=1)
    chunk = stream(cell, 6, controls=False)
    assert float(learn(EKF(r=Anneal(5.0, 1.0, 3)), cell, chunk, list(range(7))).measured) == 5
    rules = EKF(q=0.0, r=Anneal(5.0, 1.0, 3)), EKF(q=0.0, r=5.0), EKF(q=0.0, r=1.0)
    before = {rule: learn(rule, linear(num_outputs=1), chunk, [0, 1]).covariance[0] for rule in rules}
    torch.testing.assert_close(before[rules[0]], before[rules[1]])
    later = {rule: learn(rule, linear(num_outputs=1), chunk, [0, 6]).covariance[0] for rule in rules}
    assert float(later[rules[2]].diagonal().sum()) < float(later[rules[0]].diagonal().sum())


def test_groups() -> None:
    cell = Readout(LSTMCell(3, 4, peephole=True), 2)
    assert [(block.names, block.num_groups) for block in EKF().blocks(cell)] == [
        (("cell.weight_ci", "cell.weight_cf", "cell.weight_co"), 4),
        (("cell.weight_ih", "cell.weight_hh", "cell.bias"), 16),
        (("linear.weight", "linear.bias"), 2),
    ]
    total = sum(p.numel() for p in cell.parameters())
    assert [tuple(c.shape) for c in EKF("global").init(cell, 1).covariance] == [(1, total, total)]
    assert [block.num_groups for block in EKF("tensor").blocks(cell)] == [1] * 8
    with pytest.raises(ValueError, match=r"EKF: groups must be every parameter that learns, once, got linear\.bias"):
        EKF((("linear.weight",), tuple(n for n, _ in cell.cell.named_parameters(prefix="cell")))).blocks(cell)
    with pytest.raises(ValueError, match=r"got linear\.bias"):
        EKF((("linear.bias",), tuple(n for n, _ in cell.named_parameters()))).blocks(cell)


def test_refusals() -> None:
    class Odd(Loss):
        def per_step(self, ys: Any, targets: Any) -> Tensor:
            return (ys - targets).abs().sum(-1)

    cell = ElmanCell(2, 3)
    rule = EKF()
    with pytest.raises(TypeError, match="EKF: Odd has no residual, which is what a Kalman filter corrects"):
        rule.step(cell, rule.init(cell, 1), Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3)), Odd())
    for wrong, text in (
        ({"groups": "rows"}, "EKF: groups must be"),
        ({"p0": 0.0}, "EKF: p0 must be above 0"),
        ({"q": -1.0}, "EKF: q must be at least 0"),
        ({"r": 0.0}, "EKF: r must be above 0"),
        ({"reach": -1}, "EKF: reach must be at least 0 or None"),
    ):
        with pytest.raises(ValueError, match=text):
            EKF(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Anneal: end must be above 0"):
        Anneal(1.0, 0.0, 5)
