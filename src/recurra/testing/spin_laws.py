"""Laws about dynamics of spins, asked on small systems whose equilibrium is found by enumeration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.spins import SpinDynamics, SpinSystem, configurations
from .compare import same
from .generate import copied, generator_of
from .law import Setting, broken, law

NUM_SPINS = 4
CHAINS = 40_000
BETA = 0.6
LIMIT = 6.0  # standard errors
MIXING_SWEEPS = (60, 60, 120, 240, 480)


@dataclass(frozen=True, eq=False)
class SmallGlass(SpinSystem):
    """A few spins with any couplings (N, N) and any outer field (N,)."""

    couplings: Tensor
    outer: Tensor

    @property
    def num_spins(self) -> int:
        """N."""
        return len(self.outer)

    @property
    def outer_field(self) -> Tensor:
        """(N,) h."""
        return self.outer

    def field(self, spins: Tensor) -> Tensor:
        """(B, N) h + J s."""
        return spins.to(self.couplings.dtype) @ self.couplings + self.outer


def _system(setting: Setting, outer: bool = True) -> SmallGlass:
    generator = generator_of(setting, 61)
    noise = torch.randn(NUM_SPINS, NUM_SPINS, generator=generator, dtype=torch.float64)
    couplings = (noise + noise.T) * (1 - torch.eye(NUM_SPINS, dtype=torch.float64)) / 2**0.5
    field = torch.randn(NUM_SPINS, generator=generator, dtype=torch.float64) * (0.5 if outer else 0.0)
    return SmallGlass(couplings, field)


def _taken(dynamics: SpinDynamics, setting: Setting) -> tuple[SmallGlass | None, str | None]:
    """The system with a field if it is supported, else the one without, else the reason."""
    for outer in (True, False):
        system = _system(setting, outer)
        reason = dynamics.supports(system)
        if reason is None:
            return system, None
    return None, reason


def _weights(dynamics: SpinDynamics, system: SpinSystem) -> Tensor:
    """(2^N,) probabilities of equilibrium."""
    return torch.softmax(dynamics.log_stationary(system, configurations(system.num_spins), BETA).double(), 0)


def _rows(spins: Tensor) -> Tensor:
    """(B,) number of each configuration."""
    return ((spins > 0).long() << torch.arange(spins.shape[1])).sum(-1)


def _worst(counts: Tensor, expected: Tensor) -> float:
    """How many standard errors the counts are away from what is expected, by chi-square, as a normal variable."""
    held = expected > 5
    rest, rest_expected = counts[~held].sum(), expected[~held].sum()
    terms = ((counts[held] - expected[held]) ** 2 / expected[held]).sum()
    degrees = int(held.sum()) - 1
    if float(rest_expected) > 5:
        terms, degrees = terms + (rest - rest_expected) ** 2 / rest_expected, degrees + 1
    return float((terms - degrees) / math.sqrt(2 * max(degrees, 1)))


@law("A sweep gives configurations of the same kind and leaves the ones it is given as they are.")
def sweeps(dynamics: SpinDynamics, setting: Setting) -> str | None:
    """Shape, type, values, purity; the same seed gives the same."""
    system, reason = _taken(dynamics, setting)
    if system is None:
        return reason
    spins = system.random_spins(setting.batch_size, generator_of(setting, 62))
    kept = copied(spins)
    after = dynamics.sweep(system, spins, BETA, generator_of(setting, 63))
    same("what was given to sweep", spins, kept, 0.0)
    if after.shape != spins.shape or after.dtype != spins.dtype or bool((after.abs() != 1).any()):
        broken(f"configurations are {tuple(after.shape)} {after.dtype}, from {after.min()} to {after.max()}.")
    same("the same sweep", dynamics.sweep(system, spins, BETA, generator_of(setting, 63)), after, 0.0)
    return None


@law("A sweep keeps the law of equilibrium, found by enumeration.")
def stationary(dynamics: SpinDynamics, setting: Setting) -> str | None:
    """Many chains begin in equilibrium; after two sweeps they are in equilibrium."""
    system, reason = _taken(dynamics, setting)
    if system is None:
        return reason
    generator = generator_of(setting, 64)
    weights = _weights(dynamics, system)
    spins = configurations(NUM_SPINS)[torch.multinomial(weights, CHAINS, replacement=True, generator=generator)]
    for _ in range(2):
        spins = dynamics.sweep(system, spins, BETA, generator)
    counts = torch.bincount(_rows(spins), minlength=2**NUM_SPINS).double()
    away = _worst(counts, weights * CHAINS)
    if away > LIMIT:
        total = float((counts / CHAINS - weights).abs().sum() / 2)
        broken(f"two sweeps leave the law of equilibrium: total variation {total:.4f}, {away:.1f} standard errors.")
    return None


@law("From any start the law of equilibrium is reached.")
def ergodic(dynamics: SpinDynamics, setting: Setting) -> str | None:
    """Many chains begin with all spins up; sooner or later the total variation from enumeration is that of chance.

    How long that takes differs: units that move all at once may fall into cycles of two that they leave but rarely.
    """
    system, reason = _taken(dynamics, setting)
    if system is None:
        return reason
    generator = generator_of(setting, 65)
    weights = _weights(dynamics, system)
    spins = torch.ones(CHAINS, NUM_SPINS, dtype=torch.int8)
    done, total = 0, math.inf
    for more in MIXING_SWEEPS:
        for _ in range(more):
            spins = dynamics.sweep(system, spins, BETA, generator)
        done += more
        counts = torch.bincount(_rows(spins), minlength=2**NUM_SPINS).double()
        away = _worst(counts, weights * CHAINS)
        before, total = total, float((counts / CHAINS - weights).abs().sum() / 2)
        if away <= LIMIT:
            return None
        if total > 0.9 * before:
            break
    broken(f"after {done} sweeps the total variation is {total:.4f}, {away:.1f} standard errors.")


@law("In equilibrium a sweep goes from one configuration to another as often as back.")
def detailed_balance(dynamics: SpinDynamics, setting: Setting) -> str | None:
    """Counted over many chains, for every pair of configurations."""
    if not dynamics.reversible:
        return "its moves have an order: it keeps the law of equilibrium without detailed balance."
    system, reason = _taken(dynamics, setting)
    if system is None:
        return reason
    generator = generator_of(setting, 66)
    weights = _weights(dynamics, system)
    before = torch.multinomial(weights, CHAINS, replacement=True, generator=generator)
    after = _rows(dynamics.sweep(system, configurations(NUM_SPINS)[before], BETA, generator))
    size = 2**NUM_SPINS
    flows = torch.bincount(before * size + after, minlength=size * size).reshape(size, size).double()
    there, back = flows.triu(1), flows.tril(-1).T
    both = there + back
    seen = both > 10
    away = float((((there - back) ** 2)[seen] / both[seen] - 1).sum() / math.sqrt(2 * max(int(seen.sum()), 1)))
    if away > LIMIT:
        broken(f"flows there and back differ by {away:.1f} standard errors.")
    return None
