"""The memristive cell is the circuit of `recurra.core.circuits`, and stays between its walls."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.memristive import MemristiveCell, MemristiveState
from recurra.core import Timed
from recurra.core.circuits import MemristiveCircuit
from recurra.layers import Recurrent


@pytest.mark.parametrize("xi", [0.0, 1.0, 50.0])
def test_its_velocity_is_that_of_the_circuit(xi: float) -> None:
    generator = torch.Generator().manual_seed(0)
    cell = MemristiveCell(2, 9, xi=xi, tau_s=4.0, beta=2.0, generator=generator, dtype=torch.float64)
    x, w = torch.randn(3, 2, generator=generator, dtype=torch.float64), torch.rand(3, 9, dtype=torch.float64)
    speed = cell.derivative(x, MemristiveState(w)).w.detach()
    for row in range(3):
        sources = -(cell.weight_ih @ x[row] + cell.bias).detach()
        circuit = MemristiveCircuit(cell.basis, sources, alpha=-0.25, beta=2.0, xi=xi)
        scale = float(sources.abs().sum())
        torch.testing.assert_close(speed[row], circuit.free_velocity(w[row]), rtol=0, atol=1e-5 * scale)


def test_its_output_is_between_the_walls() -> None:
    cell = MemristiveCell(1, 12, tau_s=50.0, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ys, _ = Recurrent(cell)(Timed(20 * torch.ones(40, 1, 1), torch.ones(40, 1)))
    assert float(ys.min()) == 0.0
    assert float(ys.max()) == 1.0


def test_sizes_that_make_no_circuit() -> None:
    with pytest.raises(ValueError, match="num_loops must be from 1 to hidden_size - 2, got 5 with hidden_size=6"):
        MemristiveCell(1, 6, num_loops=5)
    with pytest.raises(ValueError, match="xi must be at least 0"):
        MemristiveCell(1, 6, xi=-1.0)
    with pytest.raises(ValueError, match="precision must be between 0 and 1"):
        MemristiveCell(1, 6, precision=0.0)
    with pytest.raises(ValueError, match="beta must be above 0"):
        MemristiveCell(1, 6, beta=0.0)
