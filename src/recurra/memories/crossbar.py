"""A crossbar of memristors that learns by itself: coincident pulses step a device's conductance up or down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive, check_probability, sentence


class CrossbarState(NamedTuple):
    """What the devices and the units hold.

    Args:
        levels: (U, D) int64, step of conductance of each device, 0 to num_levels - 1.
        thresholds: (U,) what a unit's current is measured by; a unit that wins often has a higher one.
        stuck: (U, D) bool, devices that never change.
    """

    levels: Tensor
    thresholds: Tensor
    stuck: Tensor


@dataclass(frozen=True)
class MemristiveCrossbar:
    """D input wires cross U output wires; at each crossing a memristor of a few steps of conductance.

        current_u = sum_i g_ui pulses_i             g = level / (num_levels - 1)
        winner    = argmax_u current_u / threshold_u         the units inhibit each other, the first to fire silences the rest
        level_ui  += 1 with probability up        where u fired and input i sent a pulse shortly before
        level_ui  -= 1 with probability down      where u fired and input i was silent
        threshold_u *= 1 + rate (fired_u - 1 / U)

    A device steps where the pulses of its two wires together pass the voltage at which it drifts; either one alone leaves it as
    it is. So learning is Hebb's rule in steps, and every device may be unreliable.

    Args:
        num_inputs: D.
        num_units: U.
        num_levels: steps of conductance, at least 2.
        up: probability of a step up where both sides are active.
        down: probability of a step down where only the output is.
        rate: how fast thresholds follow.
        stuck: part of the devices that never change.
    Raises:
        ValueError: sizes below 1, fewer than 2 levels, probabilities out of range.
    Source:
        Snider 2007, Nanotechnology 18:365202, doi:10.1088/0957-4484/18/36/365202, and Snider 2008, SciDAC Review 10:58-65
        (from memory: pulses whose overlap passes a threshold, competition, devices that may fail)
    Differs:
        Time within a pattern is one window; the pulses in it are counted. The thresholds that keep all units in use are ours.
    Cost:
        2 U D flops for a pattern, and D draws for learning it.
    Example:
        >>> crossbar, generator = MemristiveCrossbar(4, 2), torch.Generator().manual_seed(0)
        >>> patterns = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
        >>> state = crossbar.learn(crossbar.start(generator), patterns.repeat(50, 1), generator)
        >>> len(crossbar.winners(state, patterns).unique())
        2
    """

    num_inputs: int
    num_units: int
    num_levels: int = 16
    up: float = 0.2
    down: float = 0.04
    rate: float = 0.02
    stuck: float = 0.0

    def __post_init__(self) -> None:
        name = "MemristiveCrossbar"
        check_positive(name, num_inputs=self.num_inputs, num_units=self.num_units, num_levels=self.num_levels)
        if self.num_levels < 2:
            raise ValueError(sentence(name, "num_levels", "at least 2", self.num_levels))
        check_probability(name, stuck=self.stuck, rate=self.rate)
        for label, value in (("up", self.up), ("down", self.down)):
            if not 0 <= value <= 1:
                raise ValueError(sentence(name, label, "a probability in [0, 1]", value))

    def start(self, generator: torch.Generator | None = None) -> CrossbarState:
        """Devices anywhere between their steps, thresholds of 1."""
        shape = (self.num_units, self.num_inputs)
        levels = torch.randint(self.num_levels, shape, generator=generator)
        return CrossbarState(levels, torch.ones(self.num_units), torch.rand(shape, generator=generator) < self.stuck)

    def conductance(self, state: CrossbarState) -> Tensor:
        """(U, D) g in [0, 1]."""
        return state.levels.float() / (self.num_levels - 1)

    def currents(self, state: CrossbarState, pulses: Tensor) -> Tensor:
        """(B, U) of numbers of pulses (B, D)."""
        return pulses.float() @ self.conductance(state).T

    def winners(self, state: CrossbarState, pulses: Tensor) -> Tensor:
        """(B,) int64, the unit that fires for each of patterns (B, D)."""
        return (self.currents(state, pulses) / state.thresholds).argmax(1)

    def learn(self, state: CrossbarState, pulses: Tensor, generator: torch.Generator | None = None) -> CrossbarState:
        """The state after patterns (T, D) of numbers of pulses, one after another; the given state stays as it is.

        Raises:
            ValueError: patterns of another size.
        """
        if pulses.ndim != 2 or pulses.shape[1] != self.num_inputs:
            raise ValueError(sentence("MemristiveCrossbar", "pulses", f"(T, {self.num_inputs})", tuple(pulses.shape)))
        levels, thresholds = state.levels.clone(), state.thresholds.clone()
        chances = torch.rand(pulses.shape, generator=generator)
        steps = torch.where(pulses > 0, (chances < self.up).long(), -(chances < self.down).long())
        counts, scale = pulses.float(), self.num_levels - 1
        for count, step in zip(counts, steps):
            winner = int(((levels.float() @ count) / (scale * thresholds)).argmax())
            moved = (levels[winner] + step).clamp(0, scale)
            levels[winner] = torch.where(state.stuck[winner], levels[winner], moved)
            thresholds *= 1 - self.rate / self.num_units
            thresholds[winner] *= 1 + self.rate
        return CrossbarState(levels, thresholds, state.stuck)
