"""Energy landscapes of spins: every configuration of a small system, and where going downhill ends."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import SpinDynamics, SpinSystem
from ..core.checks import sentence
from ..memories.systems import couplings_of
from ..native.loops import compiled, f64_1d, f64_2d, i64_1d, local, popcount

MOST_SPINS = 30
"""2^30 configurations take about a minute."""


class Landscape(NamedTuple):
    """What enumeration finds.

    Args:
        ground_energy: the lowest energy.
        ground_state: (N,) int8, a configuration that has it.
        num_stable: configurations in which no flip of a single spin lowers the energy.
        stable_energy: mean energy of these.
    """

    ground_energy: float
    ground_state: Tensor
    num_stable: int
    stable_energy: float


class Descended(NamedTuple):
    """Where spins came to rest.

    Args:
        spins: (B, N).
        sweeps: sweeps that were made.
        stable: (B,) bool, does no flip of a single spin lower the energy?
    """

    spins: Tensor
    sweeps: int
    stable: Tensor


@compiled
def _enumerate(couplings: f64_2d, outer: f64_1d, free: int, energies: f64_1d, numbers: i64_1d) -> None:
    """All settings of the first ``free`` spins, one flip apart (Gray code), the others up.

    energies: lowest, sum over the stable ones. numbers: the configuration of the lowest as bits, stable ones.
    """
    size = len(outer)
    spins = local("f64", 32)
    fields = local("f64", 32)
    energy = 0.0
    for i in range(size):
        spins[i] = 1.0
        fields[i] = outer[i]
        for j in range(size):
            fields[i] += couplings[i, j]
        energy -= 0.5 * (fields[i] + outer[i])
    lowest = energy
    best = 0
    stable = 0
    total = 0.0
    for step in range(1, (1 << free) + 1):
        against = 0
        for i in range(size):
            against += 1 if spins[i] * fields[i] < -1e-9 else 0
        if against == 0:
            stable += 1
            total += energy
        if energy < lowest:
            lowest = energy
            best = (step - 1) ^ ((step - 1) >> 1)
        if step < 1 << free:
            k = popcount((step & -step) - 1)
            energy += 2.0 * spins[k] * fields[k]
            change = -2.0 * spins[k]
            spins[k] = -spins[k]
            for i in range(size):
                fields[i] += change * couplings[k, i]
    energies[0] = lowest
    energies[1] = total
    numbers[0] = best
    numbers[1] = stable


def landscape(system: SpinSystem) -> Landscape:
    """Go through all 2^N configurations (half of them where there is no outer field), each one flip from the last.

    Raises:
        ValueError: more than 30 spins.
    Cost:
        2 N operations a configuration: N = 20 takes some hundredths of a second.
    Example:
        >>> from recurra.memories.systems import Lattice
        >>> found = landscape(Lattice((3, 3), periodic=False))
        >>> found.ground_energy, found.num_stable
        (-12.0, 18)
    """
    size = system.num_spins
    if size > MOST_SPINS:
        hint = "Descend from many starts instead, see `descend`."
        raise ValueError(sentence("landscape", "system", f"of at most {MOST_SPINS} spins", size, hint))
    outer = system.outer_field.double()
    symmetric = not bool(outer.any())
    free = size - 1 if symmetric else size
    energies, numbers = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    _enumerate(couplings_of(system).double().contiguous(), outer.contiguous(), free, energies, numbers)
    down = (numbers[0] >> torch.arange(size)) & 1
    stable = int(numbers[1])
    mean = float(energies[1]) / stable if stable else math.nan
    return Landscape(float(energies[0]), (1 - 2 * down).to(torch.int8), stable * (2 if symmetric else 1), mean)


def is_stable(system: SpinSystem, spins: Tensor) -> Tensor:
    """(B,) bool: no flip of a single spin of configurations (B, N) lowers the energy by more than rounding."""
    field = system.field(spins)
    return (spins * field >= -1e-9 if field.dtype == torch.float64 else spins * field >= -1e-4).all(-1)


def descend(
    dynamics: SpinDynamics,
    system: SpinSystem,
    spins: Tensor,
    generator: torch.Generator | None = None,
    max_sweeps: int = 1000,
) -> Descended:
    """Temperature zero, until every configuration is stable.

    Args:
        dynamics: how the spins move; one after the other, if they are to come to rest.
        spins: (B, N), from where.
        max_sweeps: then it is given up.
    Example:
        >>> from recurra.memories import SequentialHeatBath
        >>> from recurra.memories.systems import sherrington_kirkpatrick
        >>> generator = torch.Generator().manual_seed(0)
        >>> glass = sherrington_kirkpatrick(100, generator)
        >>> found = descend(SequentialHeatBath(), glass, glass.random_spins(10, generator), generator)
        >>> bool(found.stable.all())
        True
    """
    for sweep in range(max_sweeps):
        stable = is_stable(system, spins)
        if bool(stable.all()):
            return Descended(spins, sweep, stable)
        spins = dynamics.sweep(system, spins, math.inf, generator)
    return Descended(spins, max_sweeps, is_stable(system, spins))
