"""Exact formulas of the Ising model: against enumeration, against each other, at their limits."""

import math

import pytest
import torch

from recurra.analysis.exact_ising import (
    CRITICAL_TEMPERATURE,
    kaufman_energy,
    onsager_energy,
    onsager_magnetisation,
)
from recurra.core import configurations
from recurra.memories.systems import Lattice


@pytest.mark.parametrize("sides", [(3, 4), (4, 3), (4, 4), (2, 5)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, CRITICAL_TEMPERATURE, 3.5])
def test_finite_lattices_against_enumeration(sides: tuple[int, int], temperature: float):
    lattice = Lattice(sides)
    energies = lattice.energy(configurations(lattice.num_spins))
    exact = float((torch.softmax(-energies / temperature, 0) * energies).sum()) / lattice.num_spins
    assert kaufman_energy(*sides, temperature) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.5, 2.0, 2.6, 5.0])
def test_large_lattices_are_as_the_infinite_one(temperature: float):
    assert kaufman_energy(200, 200, temperature) == pytest.approx(onsager_energy(temperature), abs=1e-6)


def test_limits():
    assert onsager_energy(CRITICAL_TEMPERATURE) == pytest.approx(-math.sqrt(2), abs=1e-9)
    assert onsager_energy(0.1) == pytest.approx(-2)
    assert onsager_energy(1e3) == pytest.approx(-2e-3, rel=1e-2)
    assert onsager_magnetisation(0.1) == pytest.approx(1)
    assert onsager_magnetisation(2.0) == pytest.approx(0.911319, abs=1e-6)
    assert onsager_magnetisation(2.27) == 0
    for wrong in (lambda: onsager_energy(0), lambda: onsager_magnetisation(-1.0), lambda: kaufman_energy(4, 4, 0.0)):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            wrong()
