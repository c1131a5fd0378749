"""What rules compute, counted, and how it grows with the number of units."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recurra.analysis import cost_growth, flops
from recurra.cells import FullyRecurrentCell, IndRNNCell
from recurra.core import SequenceLoss
from recurra.engines import Loop
from recurra.learning import BPTT, RTRL, UORO, HybridRTRL


def test_products_and_elements_are_counted() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert flops(lambda: a * 2) == 12
    assert flops(lambda: a.sum()) == 12
    assert flops(lambda: a.t().reshape(2, 6)) == 0
    batch = torch.ones(7, 3, 4)
    assert flops(lambda: torch.baddbmm(batch, batch, torch.ones(7, 4, 4))) >= 7 * 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("rule", "exponent", "sizes"),
    [(BPTT(Loop()), 2, (64, 256)), (UORO(), 2, (64, 256)), (HybridRTRL(), 3, (32, 64)), (RTRL(), 4, (48, 96))],
    ids=["BPTT", "UORO", "hybrid", "RTRL"],
)
def test_exponents_of_cost(rule: Any, exponent: int, sizes: tuple[int, ...]) -> None:
    steps = (lambda n: n) if isinstance(rule, HybridRTRL) else (lambda n: 4)
    growth = cost_growth(rule, lambda n: FullyRecurrentCell(2, n), sizes, num_steps=steps)
    assert growth.exponent == pytest.approx(exponent, abs=0.15)
    assert growth.sizes == sizes
    assert growth.costs[0] < growth.costs[1]


def test_exact_gradients_of_elementwise_recurrences_cost_no_more_than_a_step() -> None:
    growth = cost_growth(RTRL(), lambda n: IndRNNCell(n, n), (32, 64))
    assert growth.exponent < 2.2


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(ValueError, match="cost_growth: sizes must be two sizes or more, got"):
        cost_growth(RTRL(), lambda n: FullyRecurrentCell(2, n), [4])
    with pytest.raises(TypeError, match="cost_growth: Whole is a loss of whole sequences"):
        cost_growth(RTRL(), lambda n: FullyRecurrentCell(2, n), [4, 8], loss=Whole())  # type: ignore[arg-type]


class Whole(SequenceLoss):
    def per_sequence(self, ys: Any, targets: Any, lengths: Any) -> Any:
        return ys.sum((0, 2))
