"""Dynamics of spins: machine code moves as the references do; temperature zero; lattices against enumeration."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from recurra.core import SpinDynamics, SpinSystem, configurations
from recurra.memories.checkerboard import Checkerboard
from recurra.memories.little import Little
from recurra.memories.single_spins import Glauber, Metropolis, SequentialHeatBath
from recurra.memories.systems import (
    DenseSystem,
    Lattice,
    SparseSystem,
    colours_of,
    couplings_of,
    sherrington_kirkpatrick,
)
from recurra.memories.wolff import Wolff
from recurra.testing.spin_laws import SmallGlass


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


GLASS = sherrington_kirkpatrick(12, _generator())
FIELD = torch.randn(12, generator=_generator(1), dtype=torch.float64)
EDGES = torch.tensor([[i, j] for i in range(12) for j in range(i) if (i * j) % 3 == 1])
SYSTEMS: dict[str, SpinSystem] = {
    "dense": DenseSystem(GLASS.couplings, FIELD),
    "graph": SparseSystem(12, EDGES, torch.randn(len(EDGES), generator=_generator(2)), FIELD.float()),
    "square": Lattice((3, 4)),
    "float32": DenseSystem(GLASS.couplings.float(), FIELD.float()),
    "foreign": SmallGlass(GLASS.couplings, FIELD),
}
WITH_REFERENCE: list[Any] = [
    Glauber(),
    Metropolis(),
    SequentialHeatBath(),
    Checkerboard(),
    Checkerboard(rule="metropolis"),
    Wolff(num_clusters=3),
]
ALL: list[SpinDynamics] = [*WITH_REFERENCE, Little()]


@pytest.mark.parametrize("dynamics", WITH_REFERENCE, ids=repr)
@pytest.mark.parametrize("name", SYSTEMS)
def test_machine_code_moves_as_the_reference(dynamics: Any, name: str):
    system = SYSTEMS[name]
    for beta in (0.0, 0.7, math.inf):
        fast = slow = system.random_spins(5, _generator(3)).float()
        for sweep in range(3):
            fast = dynamics.sweep(system, fast, beta, _generator(sweep))
            slow = replace(dynamics, native=False).sweep(system, slow, beta, _generator(sweep))
            assert torch.equal(fast, slow)


@pytest.mark.parametrize("dynamics", WITH_REFERENCE, ids=repr)
@pytest.mark.parametrize("name", SYSTEMS)
def test_energy_never_rises_at_temperature_zero(dynamics: Any, name: str):
    system, generator = SYSTEMS[name], _generator(4)
    spins = system.random_spins(50, generator)
    energy = system.energy(spins)
    for _ in range(10):
        spins = dynamics.sweep(system, spins, math.inf, generator)
        before, energy = energy, system.energy(spins)
        assert bool((energy <= before + 1e-5).all())


@pytest.mark.parametrize("dynamics", [d for d in WITH_REFERENCE if not isinstance(d, Wolff)], ids=repr)
def test_temperature_zero_ends_where_no_spin_wants_to_turn(dynamics: SpinDynamics):
    system, generator = SYSTEMS["dense"], _generator(5)
    spins = system.random_spins(50, generator)
    for _ in range(40):
        spins = dynamics.sweep(system, spins, math.inf, generator)
    assert bool((spins * system.field(spins) > 0).all())


def test_little_at_temperature_zero_has_cycles_of_two_at_most():
    system, generator = SYSTEMS["dense"], _generator(6)
    spins = system.random_spins(200, generator)
    for _ in range(50):
        spins = Little().sweep(system, spins, math.inf, generator)
    once = Little().sweep(system, spins, math.inf)
    assert torch.equal(Little().sweep(system, once, math.inf), spins)
    assert not torch.equal(once, spins)  # of 200 starts, some end in a cycle


def test_a_spin_without_field_is_tossed():
    free = DenseSystem(torch.zeros(1, 1))
    for dynamics in (Glauber(), SequentialHeatBath(), Checkerboard(), Little()):
        up = dynamics.sweep(free, torch.ones(2000, 1), math.inf, _generator(7)).mean()
        assert abs(float(up)) < 0.1


@pytest.mark.parametrize("dynamics", ALL, ids=repr)
def test_a_lattice_against_enumeration(dynamics: SpinDynamics):
    """Two colours, clusters with and without a field: the mean energy and magnetisation, within five standard errors."""
    system = Lattice((2, 4), periodic=False, outer=0.2)
    beta, chains, generator = 0.5, 2000, _generator(8)
    every = configurations(8)
    weight = torch.softmax(dynamics.log_stationary(system, every, beta), 0)
    spins = torch.ones(chains, 8, dtype=torch.int8)
    for _ in range(60):
        spins = dynamics.sweep(system, spins, beta, generator)
    for of_all, of_ours in (
        (system.energy(every), system.energy(spins)),
        (every.double().sum(1), spins.double().sum(1)),
    ):
        mean = (weight * of_all).sum()
        error = ((weight * (of_all - mean) ** 2).sum() / chains).sqrt()
        assert abs(float((of_ours.mean() - mean) / error)) < 5


def test_units_that_move_at_once_have_another_law_than_boltzmann():
    system, every = SYSTEMS["dense"], configurations(12)
    own = torch.softmax(Little().log_stationary(system, every, 0.8), 0)
    boltzmann = torch.softmax(-0.8 * system.energy(every), 0)
    assert float((own - boltzmann).abs().sum()) / 2 > 0.05


def test_clusters_of_a_ferromagnet_are_found():
    chain = Lattice((6,), periodic=False)
    spins = torch.tensor([[1, 1, 1, -1, -1, 1]])
    for seed in range(10):
        after = Wolff().sweep(chain, spins, math.inf, _generator(seed))
        assert (after != spins)[0].tolist() in (
            [True, True, True, False, False, False],
            [False, False, False, True, True, False],
            [False, False, False, False, False, True],
        )


def test_colours_of_any_graph():
    for system in SYSTEMS.values():
        couplings, colours = couplings_of(system), colours_of(system)
        assert sorted(torch.cat(colours).tolist()) == list(range(12))
        assert not any(couplings[colour][:, colour].any() for colour in colours)
    assert len(colours_of(Lattice((4, 6)))) == 2
    assert len(colours_of(Lattice((3, 3, 3), periodic=False))) == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Checkerboard: rule must be one of 'heat bath', 'metropolis', got 'wolff'"):
        Checkerboard(rule="wolff")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Wolff: num_clusters must be at least 1, got 0"):
        Wolff(num_clusters=0)


@pytest.mark.parametrize("dynamics", [Glauber(), Metropolis(), SequentialHeatBath(), Checkerboard(), Wolff(), Little()])
def test_what_is_no_configuration_is_a_sentence(dynamics: SpinDynamics) -> None:
    square, up = Lattice((3, 4)), torch.ones(2, 12, dtype=torch.int8)
    name = type(dynamics).__name__
    for spins, beta, message in (
        (up[:, :5], 1.0, r"spins must be \(B, 12\), got \(2, 5\)"),
        (up[0], 1.0, r"spins must be \(B, 12\), got \(12,\)"),
        (0 * up, 1.0, r"spins must be -1 and \+1, got numbers from 0 to 0"),
        (up.bool(), 1.0, r"spins must be -1 and \+1, got booleans"),
        (up, -1.0, "beta must be at least 0, got -1.0"),
        (up, math.nan, "beta must be at least 0, got nan"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"{name}: {message}"):
            dynamics.sweep(square, spins, beta)
