"""The laws of dynamics of spins, on a small heat bath, on faulty ones, and on every dynamics of the catalog."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from recurra.core import SpinDynamics, SpinSystem, configurations
from recurra.testing import LawBroken, Setting, check_dynamics, laws
from recurra.testing.settings import instances
from recurra.testing.spin_laws import SmallGlass


@dataclass(frozen=True)
class TinyHeatBath(SpinDynamics):
    """A random spin forgets what it was and takes its value by its field, N times."""

    def move(self, spins: Tensor, at: Tensor, field: Tensor, beta: float, chance: Tensor) -> Tensor:
        up = chance < torch.sigmoid(2 * beta * field.gather(1, at))
        return spins.scatter(1, at, torch.where(up, 1, -1).to(spins.dtype))

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        for _ in range(system.num_spins):
            at = torch.randint(0, system.num_spins, (len(spins), 1), generator=generator)
            chance = torch.rand(len(spins), 1, generator=generator, dtype=torch.float64)
            spins = self.move(spins, at, system.field(spins), beta, chance)
        return spins


class WritingHeatBath(TinyHeatBath):
    """It writes into what it is given."""

    breaks: ClassVar[str] = "sweeps"

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        return spins.copy_(super().run(system, spins, beta, generator))


class WarmHeatBath(TinyHeatBath):
    """Its bath is warmer than it says."""

    breaks: ClassVar[str] = "stationary"

    def move(self, spins: Tensor, at: Tensor, field: Tensor, beta: float, chance: Tensor) -> Tensor:
        return super().move(spins, at, field, 0.9 * beta, chance)


class IdleHeatBath(TinyHeatBath):
    """It does nothing, which keeps the law of equilibrium."""

    breaks: ClassVar[str] = "ergodic"

    def move(self, spins: Tensor, at: Tensor, field: Tensor, beta: float, chance: Tensor) -> Tensor:
        return spins


class OrderedHeatBath(TinyHeatBath):
    """Its spins take turns, always the same ones first."""

    breaks: ClassVar[str] = "detailed_balance"

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        for i in range(system.num_spins):
            chance = torch.rand(len(spins), 1, generator=generator, dtype=torch.float64)
            spins = self.move(spins, torch.full((len(spins), 1), i), system.field(spins), beta, chance)
        return spins


FAULTY = [WritingHeatBath, WarmHeatBath, IdleHeatBath, OrderedHeatBath]


@pytest.mark.parametrize("seed", range(3))
def test_heat_bath(seed: int):
    assert {o.status for o in check_dynamics(TinyHeatBath(), Setting(seed=seed))} == {"holds"}


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
def test_a_fault_is_caught_by_its_law(kind: Any):
    with pytest.raises(LawBroken, match=f"^{kind.breaks}: ") as found:
        check_dynamics(kind())
    assert found.value.law == kind.breaks


def test_every_law_of_dynamics_has_a_dynamics_that_breaks_it():
    assert [kind.breaks for kind in FAULTY] == [law.name for law in laws("dynamics")]


def test_energy_is_the_sum_over_pairs_and_fields():
    couplings = torch.tensor([[0.0, 2.0, -1.0], [2.0, 0.0, 0.5], [-1.0, 0.5, 0.0]])
    system = SmallGlass(couplings, torch.tensor([0.1, 0.0, -0.3]))
    spins = configurations(3)
    expected = [-(2.0 * a * b - 1.0 * a * c + 0.5 * b * c) - 0.1 * a + 0.3 * c for a, b, c in spins.tolist()]
    torch.testing.assert_close(system.energy(spins), torch.tensor(expected))


def test_too_many_spins_are_not_enumerated():
    with pytest.raises(ValueError, match="configurations: num_spins must be from 1 to 24, got 25"):
        configurations(25)


def test_catalog():
    for _, dynamics in instances("dynamics"):
        check_dynamics(dynamics)
