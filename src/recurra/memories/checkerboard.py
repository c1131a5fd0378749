"""Spins that do not see each other move at once: the checkerboard, on any graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..core import SpinDynamics, SpinSystem
from ..core.checks import check_choice
from .single_spins import heat_bath_thresholds, metropolis_thresholds, moved
from .systems import colours_of


@dataclass(frozen=True)
class Checkerboard(SpinDynamics):
    """One colour after the other; the spins of a colour are not coupled, so they move at once, each by its own field.

    A square lattice with even sides has two colours. Any graph has some: on one where all are coupled every spin has a colour
    of its own, and this is the heat bath in an order. It keeps the law of equilibrium, without detailed balance.

    Args:
        rule: "heat bath" as in `Glauber`, or "metropolis" as in `Metropolis` (which moves more, so it is faster in time; at
            beta = 0 it turns every spin over at every sweep).
        native: machine code; without, torch, a colour at a time. Both draw the same numbers and move alike.
    Raises:
        ValueError: there is no such rule.
    Cost:
        B N random numbers and O(neighbours) a spin.
    Example:
        >>> from recurra.memories.systems import Lattice
        >>> board = Lattice((4, 4))
        >>> spins = Checkerboard().sweep(board, torch.ones(3, 16), 0.44, torch.Generator().manual_seed(0))
        >>> spins.shape
        torch.Size([3, 16])
    """

    reversible: ClassVar[bool] = False
    rule: Literal["heat bath", "metropolis"] = "heat bath"
    native: bool = True

    def __post_init__(self) -> None:
        check_choice("Checkerboard", "rule", self.rule, ("heat bath", "metropolis"))

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        colours, metropolis = colours_of(system), self.rule == "metropolis"
        draw = metropolis_thresholds if metropolis else heat_bath_thresholds
        thresholds = draw((len(spins), system.num_spins), beta, generator)
        if self.native:
            return moved(system, spins, torch.cat(colours)[None], thresholds, metropolis, True)
        after, done = spins.clone(), 0
        for colour in colours:
            field, theta = system.field(after)[:, colour], thresholds[:, done : done + len(colour)]
            before = after[:, colour]
            if metropolis:
                after[:, colour] = torch.where(before * field <= theta, -before, before)
            else:
                after[:, colour] = torch.where(field > theta, 1, -1).to(before.dtype)
            done += len(colour)
        return after
