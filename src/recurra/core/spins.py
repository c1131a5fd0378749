"""Spins in contact with a heat bath: systems that have an energy, and dynamics that move them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from .checks import sentence

MAX_ENUMERATED = 24


class SpinSystem(ABC):
    """N spins s_i in {-1, +1} that interact in pairs, in an outer field:

        E(s) = -1/2 sum_ij J_ij s_i s_j - sum_i h_i s_i          (J symmetric, J_ii = 0)

    Configurations are (B, N), of any dtype that holds -1 and +1; int8 is the smallest. Energies are in the unit of J, and
    k_B = 1, so temperatures have the same unit.
    """

    @property
    @abstractmethod
    def num_spins(self) -> int:
        """N."""

    @abstractmethod
    def field(self, spins: Tensor) -> Tensor:
        """(B, N) local fields h_i + sum_j J_ij s_j, floating."""

    @property
    @abstractmethod
    def outer_field(self) -> Tensor:
        """(N,) h."""

    def energy(self, spins: Tensor) -> Tensor:
        """(B,) E of configurations (B, N)."""
        field = self.field(spins)
        return -0.5 * ((field + self.outer_field) * spins.to(field.dtype)).sum(-1)

    def random_spins(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, N) int8, every spin up or down with equal probability."""
        bits = torch.randint(0, 2, (batch_size, self.num_spins), generator=generator, dtype=torch.int8)
        return 2 * bits - 1


class SpinDynamics(ABC):
    """One way of moving spins at an inverse temperature; a frozen description.

    ``exempt`` names the laws of `recurra.testing` that it cannot obey, with the reasons. ``reversible`` says whether one
    sweep obeys detailed balance (moves in a fixed order keep the law of equilibrium without it).
    """

    exempt: ClassVar[Mapping[str, str]] = {}
    source: ClassVar[str] = ""
    reversible: ClassVar[bool] = True

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Instances that every law is run on."""
        yield cls()

    def supports(self, system: SpinSystem) -> str | None:
        """None, or the reason why it cannot move this system, in one sentence."""
        return None

    def sweep(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None = None) -> Tensor:
        """(B, N) configurations after about one attempted move of every spin; the given ones stay as they are.

        Args:
            system: whose energy counts.
            spins: (B, N), of -1 and +1.
            beta: 1 / T, in the unit of 1 / J; infinity is temperature zero.
            generator: source of the random numbers.

        Raises:
            ValueError: another shape, other numbers, a beta that is negative or NaN.
            TypeError: booleans.
        """
        where = type(self).__name__
        if spins.ndim != 2 or spins.shape[1] != system.num_spins:
            raise ValueError(sentence(where, "spins", f"(B, {system.num_spins})", tuple(spins.shape)))
        if spins.dtype == torch.bool:
            raise TypeError(
                sentence(where, "spins", "-1 and +1", "booleans", "2 * x.to(torch.int8) - 1 makes them so.")
            )
        if not bool((spins * spins == 1).all()):
            got = f"numbers from {float(spins.min()):g} to {float(spins.max()):g}"
            raise ValueError(sentence(where, "spins", "-1 and +1", got))
        if not beta >= 0:
            raise ValueError(sentence(where, "beta", "at least 0", beta, "It is 1 / T."))
        return self.run(system, spins, beta, generator)

    @abstractmethod
    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """What `sweep` does, with arguments that are checked."""

    def log_stationary(self, system: SpinSystem, spins: Tensor, beta: float) -> Tensor:
        """(B,) logarithm of the weight, but for a constant, that configurations have in equilibrium: -beta E."""
        return -beta * system.energy(spins)


def configurations(num_spins: int) -> Tensor:
    """(2^N, N) int8, every configuration; spin i of row r is bit i of r.

    Raises:
        ValueError: N is more than 24.

    Example:
        >>> configurations(2).tolist()
        [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    """
    if not 1 <= num_spins <= MAX_ENUMERATED:
        raise ValueError(sentence("configurations", "num_spins", f"from 1 to {MAX_ENUMERATED}", num_spins))
    rows = torch.arange(2**num_spins, dtype=torch.int64)[:, None]
    return (2 * ((rows >> torch.arange(num_spins)) & 1) - 1).to(torch.int8)
