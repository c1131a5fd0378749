"""Scheduled sampling: its decays, its mask, and what a Jordan network sees of it."""

from __future__ import annotations

import math

import pytest
import torch

from recurra.cells.jordan import JordanCell
from recurra.layers import Recurrent
from recurra.training import ScheduledSampling


def test_decays() -> None:
    assert ScheduledSampling("linear", 10, floor=0.2).probability(9) == 0.2
    assert ScheduledSampling("exponential", 0.5).probability(3) == 0.125
    assert ScheduledSampling("inverse_sigmoid", 10).probability(0) == 10 / 11
    assert ScheduledSampling("inverse_sigmoid", 1).probability(10_000) == pytest.approx(0.0)
    assert ScheduledSampling("inverse_sigmoid", 10).probability(20) == pytest.approx(10 / (10 + math.exp(2)))


def test_mask_is_drawn_with_its_probability() -> None:
    mask = ScheduledSampling("linear", 4).mask(1, 200, 100, generator=torch.Generator().manual_seed(0))
    assert mask.shape == (200, 100)
    assert mask.dtype == torch.bool
    assert mask.double().mean() == pytest.approx(0.75, abs=0.02)


def test_a_jordan_network_sees_the_truth_where_the_mask_says_so() -> None:
    torch.manual_seed(0)
    cell = JordanCell(2, 5, output_size=3)
    xs, truth = torch.randn(9, 4, 2), torch.rand(9, 4, 3)
    mask = ScheduledSampling("linear", 2).mask(1, 9, 4, generator=torch.Generator().manual_seed(0))
    ys, _ = Recurrent(cell)(xs, forced=truth, force_mask=mask)
    state = cell.initial_state(4)
    for t in range(9):
        y, state = cell(xs[t], state)
        torch.testing.assert_close(y, ys[t])
        state = state._replace(feedback=torch.where(mask[t, :, None], truth[t], state.feedback))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kind": "cosine"},
            r"^ScheduledSampling: kind must be one of 'linear', 'exponential', 'inverse_sigmoid', got",
        ),
        ({"kind": "exponential", "k": 2.0}, r"^ScheduledSampling: k must be between 0 and 1, got 2\.0\.$"),
        ({"floor": 1.5}, r"^ScheduledSampling: floor must be in \[0, 1\], got 1\.5\.$"),
    ],
)
def test_messages(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduledSampling(**arguments)
