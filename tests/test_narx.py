"""NARX networks: against their sums written out, Elman networks, forced outputs, and short cuts through time."""

from __future__ import annotations

import re

import pytest
import torch

from recurra.cells import ElmanCell, NARXCell
from recurra.cells.narx import NARXState
from recurra.core import Controls
from recurra.engines import Loop

T, B, D, H = 9, 2, 3, 4


@pytest.mark.parametrize(("outputs", "taps", "delays"), [(2, 3, 4), (None, 1, 2), (3, 2, 1)])
def test_it_is_the_sum_over_taps_and_delays(outputs: int | None, taps: int, delays: int) -> None:
    torch.manual_seed(0)
    cell = NARXCell(D, H, outputs, num_taps=taps, num_delays=delays, output_activation="sigmoid").double()
    xs = torch.randn(T, B, D, dtype=torch.float64)
    with torch.no_grad():
        found = Loop()(cell, xs)[0]
        ys: list[torch.Tensor] = []
        for t in range(T):
            assert cell.bias is not None
            net = cell.bias.expand(B, H)
            for k, weight in enumerate(cell.weight_ih.split(D, 1)):
                net = net + (xs[t - k] @ weight.T if t >= k else 0)
            for m, weight in enumerate(cell.weight_hh.split(cell.output_size, 1), 1):
                net = net + (ys[t - m] @ weight.T if t >= m else 0)
            y = net.tanh()
            if outputs is not None:
                assert cell.weight_ho is not None
                assert cell.bias_o is not None
                y = (y @ cell.weight_ho.T + cell.bias_o).sigmoid()
            ys.append(y)
    torch.testing.assert_close(found, torch.stack(ys))


def test_one_tap_and_one_delay_are_an_elman_network() -> None:
    torch.manual_seed(0)
    cell, elman = NARXCell(D, H, num_delays=1), ElmanCell(D, H)
    with torch.no_grad():
        for name, p in elman.named_parameters():
            p.copy_(dict(cell.named_parameters())[name])
    xs = torch.randn(T, B, D)
    torch.testing.assert_close(Loop()(cell, xs)[0], Loop()(elman, xs)[0])


def test_forced_outputs_move_along_the_delays() -> None:
    torch.manual_seed(0)
    cell = NARXCell(D, H, 2, num_delays=3)
    xs, wanted = torch.randn(T, B, D), torch.randn(T, B, 2)
    ys, state = Loop()(cell, xs, None, Controls(forced=wanted))
    assert torch.equal(state.feedback, wanted[-1])
    assert torch.equal(state.earlier, wanted[-3:-1].flip(0).transpose(0, 1))
    again, _ = cell.step(xs[-1], NARXState((), wanted[-4:-2].flip(0).transpose(0, 1), wanted[-2]))
    torch.testing.assert_close(again, ys[-1])


def test_a_delay_is_one_step_through_time() -> None:
    """With the longest delay alone, what came out six steps ago passes a single nonlinearity."""
    cell = NARXCell(1, 1, num_delays=6, bias=False).double()
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_hh[0, 5] = 0.5
    start = torch.full((1, 1), 0.3, dtype=torch.float64, requires_grad=True)
    state = NARXState((), torch.zeros(1, 5, 1, dtype=torch.float64), start)
    ys, _ = Loop()(cell, torch.zeros(12, 1, 1, dtype=torch.float64), state)
    found = [float(torch.autograd.grad(y.sum(), start, retain_graph=True)[0]) for y in ys]
    once = 0.5 * (1 - torch.tensor(0.15, dtype=torch.float64).tanh() ** 2)
    twice = once * 0.5 * (1 - ys[11].detach().square())
    assert found == pytest.approx([0, 0, 0, 0, 0, float(once), 0, 0, 0, 0, 0, float(twice)])


def test_messages() -> None:
    for made, message in (
        (lambda: NARXCell(D, H, 0), "NARXCell: output_size must be at least 1, got 0."),
        (lambda: NARXCell(D, H, num_delays=0), "NARXCell: num_delays must be at least 1, got 0."),
        (lambda: NARXCell(D, H, num_taps=0), "NARXCell: num_taps must be at least 1, got 0."),
        (
            lambda: NARXCell(D, H, activation="softmax"),
            "NARXCell: activation must be one of 'tanh', 'relu', 'sigmoid', 'identity', got 'softmax'.",
        ),
        (
            lambda: NARXCell(D, H, output_activation="relu"),
            "NARXCell: output_activation must be one of 'identity', 'sigmoid', 'tanh', 'softmax', got 'relu'.",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            made()
