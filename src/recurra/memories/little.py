"""Little's network: all units move at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core import SpinDynamics, SpinSystem
from .single_spins import heat_bath_thresholds


@dataclass(frozen=True)
class Little(SpinDynamics):
    """All spins take their values from the heat bath at once, by the fields of the same moment.

        p(s'_i = +1) = 1 / (1 + exp(-2 beta h_i(s)))

    With symmetric couplings this has detailed balance for another law than Boltzmann's, of weight

        exp(beta sum_i h_i s_i) prod_i 2 cosh(beta h_i(s))            (in the exponent, h_i is the outer field alone)

    which is exp(-beta H) with Peretto's H = -T sum_i ln 2 cosh(beta h_i(s)) where no outer field is. At temperature zero it
    arrives at a fixed point or at a cycle of two configurations (Goles & Olivos); a spin that feels no field is tossed.

    Source:
        Little 1974, Math. Biosci. 19:101-120, doi:10.1016/0025-5564(74)90031-5; the law of equilibrium: Peretto 1984, Biol.
        Cybern. 50:51-62, doi:10.1007/BF00317939 (both from memory)
    Cost:
        One field of every configuration, and B N random numbers.
    Example:
        >>> from recurra.memories.systems import Lattice
        >>> ring, striped = Lattice((4,)), torch.tensor([[1, -1, 1, -1]])
        >>> Little().sweep(ring, striped, float("inf")).tolist()
        [[-1, 1, -1, 1]]
    """

    source: ClassVar[str] = "Little 1974, Math. Biosci. 19:101-120; Peretto 1984, Biol. Cybern. 50:51-62"

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        field = system.field(spins)
        up = field > heat_bath_thresholds(tuple(field.shape), beta, generator)
        return torch.where(up, 1, -1).to(spins.dtype)

    def log_stationary(self, system: SpinSystem, spins: Tensor, beta: float) -> Tensor:
        """(B,) logarithm of Peretto's weight, see above."""
        field = system.field(spins)
        along = spins.to(field.dtype) @ system.outer_field
        scaled = (beta * field).abs()
        return beta * along + (scaled + torch.log1p(torch.exp(-2 * scaled))).sum(-1)
