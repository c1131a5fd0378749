"""Errors along time, and the regulariser of Pascanu 2013, against autograd and finite differences."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.cells import ElmanCell, LSTMCell
from recurra.core import Chunk, Controls, MeanSquaredError, SequenceLoss
from recurra.learning import BPTT, RTRL, Regularised, errors_along_time, omega
from recurra.wrappers import Feedback, Readout, Zoneout


def task(cell: Any, num_steps: int = 6, rows: int = 2) -> Chunk:
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(num_steps, rows, cell.input_size, generator=generator, dtype=torch.float64)
    targets = torch.randn(num_steps, rows, cell.output_size, generator=generator, dtype=torch.float64)
    return Chunk(xs, targets)


def states_of(cell: Any, chunk: Chunk, reset: Any = None) -> tuple[Tensor, list[Tensor]]:
    """The loss, and h after every step, in a plain loop."""
    h, total, found = torch.zeros(chunk.xs.shape[1], cell.cell.hidden_size, dtype=torch.float64), torch.zeros(()), []
    for t in range(len(chunk.xs)):
        if reset is not None:
            h = torch.where(reset[t][:, None], 0.0, h)
        y, state = cell.cell.step(chunk.xs[t], type(cell.cell.initial_state(1))(h))
        h = state.h
        found.append(h)
        total = total + (cell.linear(y) - chunk.targets[t]).square().mean(-1).sum()
    return total, found


@pytest.mark.parametrize("resets", [False, True])
def test_errors_are_those_of_autograd(resets: bool) -> None:
    torch.manual_seed(0)
    cell = Readout(ElmanCell(2, 3), 2).double()
    chunk = task(cell)
    reset = None
    if resets:
        reset = torch.zeros(6, 2, dtype=torch.bool)
        reset[3, 1] = True
        chunk = chunk._replace(controls=Controls(reset=reset))
    found = errors_along_time(cell, chunk, MeanSquaredError())
    total, hs = states_of(cell, chunk, reset)
    at_once = [
        torch.autograd.grad((cell.linear(h) - c).square().mean(-1).sum(), h)[0] for h, c in zip(hs, chunk.targets)
    ]
    whole = torch.autograd.grad(total, hs)
    for t in range(6):
        torch.testing.assert_close(found.arriving[t], whole[t] - at_once[t], rtol=1e-10, atol=1e-12)
    assert bool((found.arriving[-1] == 0).all())
    if resets:
        assert bool((found.arriving[2, 1] == 0).all())


def test_omega_is_the_papers_sum_and_its_direction_the_immediate_derivative() -> None:
    """tanh: ds_{t+1}/ds_t = diag(1 - h^2) U; the errors arriving at h_{t+1} and the states are held fixed."""
    torch.manual_seed(1)
    cell = Readout(ElmanCell(2, 3), 2).double()
    inner: Any = cell.cell
    chunk = task(cell)
    total, hs = states_of(cell, chunk)
    own = [torch.autograd.grad((cell.linear(h) - c).square().mean(-1).sum(), h)[0] for h, c in zip(hs, chunk.targets)]
    errors = [w - o for w, o in zip(torch.autograd.grad(total, hs), own)]

    def by_hand(u: Tensor) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for t in range(5):
            before = torch.zeros_like(hs[0]) if t == 0 else hs[t - 1].detach()
            h = torch.tanh(chunk.xs[t] @ inner.weight_ih.detach().T + before @ u.T + inner.bias.detach())
            back = (errors[t] * (1 - h**2)) @ u
            value = value + (back.norm(dim=1) / errors[t].norm(dim=1) - 1).square().sum()
        return value

    found = omega(cell, chunk, MeanSquaredError())
    u = inner.weight_hh.detach().clone().requires_grad_()
    value = by_hand(u)
    torch.testing.assert_close(found.value, value.detach(), rtol=1e-10, atol=0)
    assert float(found.counted) == 10
    (wanted,) = torch.autograd.grad(value, u)
    torch.testing.assert_close(found.direction["cell.weight_hh"], wanted, rtol=1e-10, atol=1e-12)
    plain = BPTT().step(cell, BPTT().init(cell, 2), chunk, MeanSquaredError())[1].direction
    rule = Regularised(factor=0.5)
    both = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())[1].direction
    for name, d in plain.items():
        torch.testing.assert_close(both[name], d + 0.5 * found.direction[name], rtol=1e-10, atol=1e-12)


def test_padding_changes_nothing() -> None:
    """Rows of several lengths, with resets: each as if it were alone."""
    torch.manual_seed(3)
    cell = Readout(LSTMCell(2, 3), 2).double()
    chunk = task(cell, num_steps=7, rows=3)
    lengths, reset = torch.tensor([7, 4, 0]), torch.zeros(7, 3, dtype=torch.bool)
    reset[2] = True
    found = errors_along_time(cell, chunk._replace(controls=Controls(lengths, reset)), MeanSquaredError())
    value, direction = torch.zeros(()).double(), {n: torch.zeros_like(p) for n, p in cell.named_parameters()}
    for b, num in enumerate(lengths.tolist()):
        alone = Chunk(chunk.xs[:num, b : b + 1], chunk.targets[:num, b : b + 1], None, Controls(reset=reset[:num, :1]))
        wanted = errors_along_time(cell, alone, MeanSquaredError())
        for ours, theirs in zip(found, wanted):
            torch.testing.assert_close(ours[:num, b], theirs[:, 0], rtol=1e-10, atol=1e-14)
            assert bool((ours[num:, b] == 0).all())
        part = omega(cell, alone, MeanSquaredError())
        value = value + part.value
        direction = {n: d + part.direction[n] for n, d in direction.items()}
    whole = omega(cell, chunk._replace(controls=Controls(lengths, reset)), MeanSquaredError())
    torch.testing.assert_close(whole.value, value, rtol=1e-10, atol=1e-14)
    for name, d in direction.items():
        torch.testing.assert_close(whole.direction[name], d, rtol=1e-10, atol=1e-14)


def test_what_it_shares_with_bptt_is_what_bptt_says() -> None:
    """Noise, forced feedback and a carried generator: outputs, loss and gradient of `BPTT` alone."""
    torch.manual_seed(4)
    noisy = Zoneout(ElmanCell(2, 3), 0.3).double()
    fed = Feedback(ElmanCell(4, 2)).double()
    forced = torch.randn(6, 2, 2).double()
    for cell, controls in ((noisy, Controls()), (fed, Controls(None, None, forced, torch.rand(6, 2) < 0.5))):
        chunk = task(cell)._replace(xs=torch.randn(6, 2, 2).double(), controls=controls)
        plain, both = BPTT(), Regularised(BPTT(), 0.0)
        carry, other = plain.init(cell, 2, seed=5), both.init(cell, 2, seed=5)
        for _ in range(2):
            carry, wanted = plain.step(cell, carry, chunk, MeanSquaredError())
            other, found = both.step(cell, other, chunk, MeanSquaredError())
            torch.testing.assert_close(found.outputs, wanted.outputs, rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-10, atol=0)
            for name, d in wanted.direction.items():
                torch.testing.assert_close(found.direction[name], d, rtol=1e-10, atol=1e-14)


def test_a_cell_is_not_kept() -> None:
    """The form that is run for a cell is found again, and goes when the cell goes."""
    cell = Readout(ElmanCell(2, 3), 2).double()
    omega(cell, task(cell), MeanSquaredError())
    kept = weakref.ref(cell)
    del cell
    gc.collect()
    assert kept() is None


def test_it_goes_with_other_rules_and_a_step_down_lowers_it() -> None:
    torch.manual_seed(2)
    cell = Readout(LSTMCell(2, 3), 2).double()
    chunk, rule = task(cell), Regularised(RTRL(), 3.0)
    carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
    rule.step(cell, carry, chunk, MeanSquaredError())
    assert all(bool(d.isfinite().all()) for d in estimate.direction.values())
    before = omega(cell, chunk, MeanSquaredError())
    with torch.no_grad():
        for name, p in cell.named_parameters():
            p -= 1e-3 * before.direction[name]
    assert float(omega(cell, chunk, MeanSquaredError()).value) < float(before.value)


class _Whole(SequenceLoss):
    def per_sequence(self, ys: Any, targets: Any, lengths: Tensor | None) -> Tensor:
        return ys.sum((0, 2))


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"Regularised: factor must be at least 0, got -1"):
        Regularised(factor=-1.0)
    rule, cell = Regularised(), ElmanCell(2, 3)
    with pytest.raises(TypeError, match="Regularised: _Whole is a loss of whole sequences"):
        rule.step(cell, rule.init(cell, 1), Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3)), _Whole())
    assert "not of Linear" in str(rule.supports(torch.nn.Linear(2, 3), MeanSquaredError()))
