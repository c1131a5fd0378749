"""Hessian-free optimisation: its products against explicit matrices, its solver, its steps."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from recurra.cells import AffineCell, ElmanCell, LSTMCell
from recurra.core import (
    BinaryCrossEntropy,
    Cell,
    Chunk,
    Controls,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    SequenceLoss,
    tree,
)
from recurra.core.loss import weighted_sum
from recurra.core.rule import Direction
from recurra.engines import Loop
from recurra.learning import HessianFree
from recurra.learning.hessian_free import GaussNewton, conjugate_gradients
from recurra.training import fit
from recurra.wrappers import Dropout, Readout, Stack

T, B, D, O = 6, 3, 3, 2
LENGTHS = Controls(lengths=torch.tensor([6, 2, 4]))
RESETS = Controls(reset=torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3)


class _Run(nn.Module):
    def __init__(self, cell: Cell, controls: Controls) -> None:
        super().__init__()
        self.cell, self.controls = cell, controls

    def forward(self, xs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and all hidden values, (T, B, ...)."""
        ys, hs = [], []
        state = self.cell.initial_state(xs.shape[1])
        alive = self.controls.alive(len(xs))
        for t, x in enumerate(xs):
            again = Controls(reset=None if self.controls.reset is None else self.controls.reset[t : t + 1])
            y, new = Loop()(self.cell, x[None], state, again)
            keep = torch.ones(xs.shape[1], dtype=torch.bool) if alive is None else alive[t]
            ys.append(torch.where(keep[:, None], y[0], 0.0))
            hidden = torch.cat(tree.leaves(new), 1)
            hs.append(torch.where(keep[:, None], hidden, 0.0))
            state = new
        return torch.stack(ys), torch.stack(hs)


def explicit(cell: Cell, chunk: Chunk, loss: Loss) -> tuple[Tensor, Tensor]:
    """The Gauss-Newton matrix of the mean loss, and that of the states, written out."""
    run, alive = _Run(cell, chunk.controls), chunk.controls.alive(T)
    parameters = {f"cell.{n}": p.detach() for n, p in cell.named_parameters()}
    ys, _ = functional_call(run, parameters, (chunk.xs,))

    def total(y: Tensor) -> Tensor:
        return weighted_sum(loss.per_step(y, chunk.targets), chunk.weights, alive)[0]

    _, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, alive)
    hessian = torch.autograd.functional.hessian(total, ys.detach()).reshape(ys.numel(), ys.numel())
    found: Any = jacrev(lambda p: functional_call(run, p, (chunk.xs,)))(parameters)
    j, js = (torch.cat([f.reshape(-1, parameters[n].numel()) for n, f in part.items()], 1) for part in found)
    steps = T * B if alive is None else int(alive.sum())
    return j.T @ hessian @ j / weight, js.T @ js / steps


CASES: list[tuple[Cell, Loss, Controls]] = [
    (Readout(LSTMCell(D, 4), O), BinaryCrossEntropy(), LENGTHS),
    (Readout(ElmanCell(D, 4), O), MeanSquaredError(), RESETS),
    (Readout(ElmanCell(D, 4).learn_initial_state(), O), CrossEntropy(), RESETS),
]


@pytest.mark.parametrize(("cell", "loss", "controls"), CASES, ids=["lengths", "resets", "learned start"])
def test_products_are_those_of_the_matrix(cell: Cell, loss: Loss, controls: Controls) -> None:
    torch.manual_seed(0)
    cell = cell.double()
    targets = torch.randint(0, O, (T, B)) if isinstance(loss, CrossEntropy) else torch.rand(T, B, O).double()
    chunk = Chunk(torch.randn(T, B, D).double(), targets, torch.rand(T, B).double(), controls)
    outputs, states = explicit(cell, chunk, loss)
    around = GaussNewton(cell, chunk, loss, watch=True)
    for _ in range(3):
        v = torch.randn(outputs.shape[0], dtype=torch.float64)
        torch.testing.assert_close(around.product(v), outputs @ v)
        torch.testing.assert_close(around.product(v, share=0.7), (outputs + 0.7 * states) @ v)


def test_the_solver_finds_the_minimum_of_a_quadratic() -> None:
    torch.manual_seed(0)
    root = torch.randn(8, 8, dtype=torch.float64)
    a, b = root @ root.T + torch.eye(8), torch.randn(8, dtype=torch.float64)
    found = conjugate_gradients(lambda v: a @ v, b, torch.randn(8, dtype=torch.float64), most=40, tolerance=0.0)
    torch.testing.assert_close(found.iterates[-1], torch.linalg.solve(a, b))
    assert found.num_iterations < 40
    heights = [float(0.5 * x @ a @ x - b @ x) for x in found.iterates]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(heights))
    downhill = torch.diag(torch.tensor([1.0, -1.0]))
    assert conjugate_gradients(lambda v: downhill @ v, torch.tensor([0.0, 1.0]), torch.zeros(2), most=9).iterates[
        -1
    ].tolist() == [0.0, 0.0]


def test_one_step_solves_a_model_that_is_linear_in_its_parameters() -> None:
    """A bowl: with hardly any damping, one step goes to the least squares."""
    torch.manual_seed(0)
    cell = AffineCell(D, O).double()
    xs, targets = torch.randn(20, 2, D).double(), torch.randn(20, 2, O).double()
    rule = HessianFree(damping=1e-9, structural=0.0, tolerance=0.0)
    fit(cell, [Chunk(xs, targets)], MeanSquaredError(), rule=rule)
    inputs = torch.cat([xs.flatten(0, 1), torch.ones(40, 1)], 1)
    wanted = torch.linalg.lstsq(inputs, targets.flatten(0, 1)).solution
    torch.testing.assert_close(cell.weight.detach(), wanted[:D].T, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(cell.bias.detach(), wanted[D], atol=1e-6, rtol=1e-6)


def _mean(cell: Cell, chunk: Chunk, loss: Loss) -> float:
    with torch.no_grad():
        return float(loss.per_step(Loop()(cell, chunk.xs)[0], chunk.targets).mean())


def test_the_loss_of_the_chunk_never_rises_and_the_damping_follows_the_trust() -> None:
    torch.manual_seed(0)
    cell, loss, rule = Readout(ElmanCell(1, 6), 1).double(), MeanSquaredError(), HessianFree(damping=0.1)
    xs = torch.randn(12, 30, 1).double()
    chunk = Chunk(xs, xs.roll(3, 0))
    losses, dampings = [_mean(cell, chunk, loss)], []
    fit(
        cell,
        [chunk],
        loss,
        rule=rule,
        num_epochs=12,
        on_step=lambda p: losses.append(_mean(cell, chunk, loss)),
    )
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.3 * losses[0]
    carry = rule.init(cell, 30)
    for _ in range(3):
        carry, _ = rule.step(cell, carry, chunk, loss)
        dampings.append(float(carry.damping))
    ratios = [b / a for a, b in zip([0.1, *dampings], dampings)]
    assert all(any(abs(r - c) < 1e-12 for c in (1.5, 1.0, 2 / 3)) for r in ratios)


def test_structural_damping_keeps_the_hidden_units_nearer_to_where_they_were() -> None:
    torch.manual_seed(0)
    cell, loss = Readout(ElmanCell(1, 8, recurrent_init="orthogonal"), 1).double(), MeanSquaredError()
    xs = torch.randn(15, 20, 1).double()
    chunk = Chunk(xs, 3 * xs.roll(5, 0))
    run = _Run(cell, Controls())
    named = {f"cell.{n}": p.detach() for n, p in cell.named_parameters()}
    before = functional_call(run, named, (xs,))[1]
    moved = []
    for structural in (0.0, 10.0):
        rule = HessianFree(damping=0.05, structural=structural, tolerance=0.0)
        direction: Direction = rule.step(cell, rule.init(cell, 20), chunk, loss)[1].direction
        after = functional_call(run, {n: p - direction[n.removeprefix("cell.")] for n, p in named.items()}, (xs,))[1]
        moved.append(float((after - before).square().mean()))
    assert moved[1] < 0.5 * moved[0]


def test_noise_is_the_same_in_all_that_a_step_looks_at_and_other_in_the_next() -> None:
    torch.manual_seed(0)
    cell = Stack(Dropout(ElmanCell(2, 5), 0.5), AffineCell(5, 1)).double().train()
    xs = torch.randn(7, 4, 2).double()
    rule, chunk = HessianFree(structural=0.0), Chunk(xs, xs[..., :1])
    carry, first = rule.step(cell, rule.init(cell, 4, seed=1), chunk, MeanSquaredError())
    _, second = rule.step(cell, carry, chunk, MeanSquaredError())
    assert not torch.equal(first.outputs, second.outputs)


class _Whole(SequenceLoss):
    def per_sequence(self, ys: Any, targets: Any, lengths: Tensor | None) -> Tensor:
        return ys.sum((0, 2))


def test_messages() -> None:
    for options, message in (
        ({"damping": 0.0}, "HessianFree: damping must be above 0 and finite, got 0.0."),
        ({"structural": -1.0}, "HessianFree: structural must be at least 0 and finite, got -1.0."),
        ({"tolerance": 1.0}, "HessianFree: tolerance must be in [0, 1), got 1.0."),
        ({"num_iterations": 0}, "HessianFree: num_iterations must be at least 1, got 0."),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            HessianFree(**options)
    rule, cell = HessianFree(), ElmanCell(D, H := 4)
    with pytest.raises(TypeError, match=r"HessianFree: _Whole is a loss of whole sequences; use BPTT\(\)\."):
        rule.step(cell, rule.init(cell, 1), Chunk(torch.zeros(2, 1, D), torch.zeros(2, 1, H)), _Whole())
    assert rule.supports(nn.Linear(2, 2), MeanSquaredError()) == "it looks at the states of a Cell, not of Linear."


def test_steps_of_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    chunk = Chunk(torch.zeros(3, 1, 2), torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match=r"^fit: rule must be one of gradients for several processes, got HessianFree"):
        fit(ElmanCell(2, 2), [chunk], MeanSquaredError(), rule=HessianFree())
