"""A shunting field along a line: its equations written out, where it becomes unstable, messages."""

from __future__ import annotations

import math
import re

import pytest
import torch

from recurra.cells import ShuntingCell, ShuntingLineCell
from recurra.cells.shunting import ShuntingInput, ShuntingState
from recurra.cells.shunting_line import ShuntingLineState


def test_the_derivative_is_that_of_the_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, up, down = (torch.rand(2, 5, generator=generator, dtype=torch.float64) for _ in range(4))
    for ring in (False, True):
        cell = ShuntingLineCell(
            5, reach=1.5, spread=2.5, rate=0.3, ring=ring, ceiling=2.0, knee=0.5, decay=0.7
        ).double()
        found = cell.derivative(ShuntingInput(up, down), ShuntingLineState(x, y))

        def kernel(i: int, k: int, width: float, ring: bool = ring) -> float:
            images = range(-30, 31) if ring else [0]
            whole = sum(math.exp(-(d**2) / (2 * width**2)) for d in range(-40, 41))
            return sum(math.exp(-((i - k + 5 * n) ** 2) / (2 * width**2)) for n in images) / whole

        for b in range(2):
            for i in range(5):
                own = sum(kernel(i, k, 1.5) * float(x[b, k] ** 2 / (0.25 + x[b, k] ** 2)) for k in range(5))
                others = sum(kernel(i, k, 2.5) * float(y[b, k] ** 2 / (0.25 + y[b, k] ** 2)) for k in range(5))
                wanted = (2 - x[b, i]) * (up[b, i] + 6 * own) - x[b, i] * (0.7 + down[b, i] + 40 * others)
                assert float(found.x[b, i]) == pytest.approx(float(wanted), rel=1e-6)
        torch.testing.assert_close(found.y, 0.3 * (x - y), rtol=1e-6, atol=1e-8)


def test_without_neighbours_and_inhibition_it_is_a_shunting_unit() -> None:
    line = ShuntingLineCell(1, ring=True, inhibition=0.0, excitation=4.0)
    field = ShuntingCell(1, "sigmoid", gain=4.0)
    given = ShuntingInput(torch.tensor([[0.3]]), torch.tensor([[0.2]]))
    x = torch.tensor([[0.4]])
    torch.testing.assert_close(
        line.derivative(given, ShuntingLineState(x, x)).x, field.derivative(given, ShuntingState(x)).x
    )


def test_messages() -> None:
    for options, message in (
        ({"num_units": 0}, "ShuntingLineCell: num_units must be at least 1, got 0."),
        ({"num_units": 2, "rate": 0.0}, "ShuntingLineCell: rate must be above 0, got 0.0."),
        ({"num_units": 2, "inhibition": -1.0}, "ShuntingLineCell: inhibition must be at least 0, got -1.0."),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            ShuntingLineCell(**options)  # type: ignore[arg-type]
