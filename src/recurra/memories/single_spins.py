"""Dynamics that look at one spin after the other: Glauber's heat bath and Metropolis, at random or in an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core import SpinDynamics, SpinSystem
from ..native.loops import compiled, f64_1d, f64_2d, i8_2d, i64_1d, i64_2d, num_threads, thread
from .systems import DenseSystem, couplings_of, neighbours_of

_LARGE = 1e300  # stands for an infinite beta: what is divided by it only decides ties


def heat_bath_thresholds(shape: tuple[int, ...], beta: float, generator: torch.Generator | None) -> Tensor:
    """Random theta such that ``field > theta`` has the probability 1 / (1 + exp(-2 beta field)): logistic, scaled by 2 beta."""
    chance = torch.rand(shape, generator=generator, dtype=torch.float64).clamp_(min=2.0**-54)
    return chance.logit_().div_(2 * min(beta, _LARGE))


def metropolis_thresholds(shape: tuple[int, ...], beta: float, generator: torch.Generator | None) -> Tensor:
    """Random theta >= 0 such that ``s field <= theta`` has the probability min(1, exp(-2 beta s field)): exponential."""
    chance = torch.rand(shape, generator=generator, dtype=torch.float64)
    return chance.neg_().log1p_().neg_().div_(2 * min(beta, _LARGE))


@compiled
def sparse_moves(
    spins: i8_2d,
    begin: i64_1d,
    other: i64_1d,
    coupling: f64_1d,
    outer: f64_1d,
    sites: i64_2d,
    thresholds: f64_2d,
    metropolis: int,
) -> None:
    """Move spins (B, N) in place, one after the other: row b at sites[b] (or sites[0]), fields summed over neighbours."""
    for b in range(len(spins) * thread() // num_threads(), len(spins) * (thread() + 1) // num_threads()):
        row = b if len(sites) > 1 else 0
        for k in range(thresholds.shape[1]):
            i = sites[row, k]
            field = outer[i]
            for e in range(begin[i], begin[i + 1]):
                if spins[b, other[e]] > 0:
                    field += coupling[e]
                else:
                    field -= coupling[e]
            if metropolis:
                if (field if spins[b, i] > 0 else -field) <= thresholds[b, k]:
                    spins[b, i] = -spins[b, i]
            else:
                spins[b, i] = 1 if field > thresholds[b, k] else -1


@compiled
def dense_moves(
    spins: i8_2d, fields: f64_2d, couplings: f64_2d, sites: i64_2d, thresholds: f64_2d, metropolis: int
) -> None:
    """The same with fields (B, N) that are kept: a visit costs O(1), a flip O(N)."""
    for b in range(len(spins) * thread() // num_threads(), len(spins) * (thread() + 1) // num_threads()):
        row = b if len(sites) > 1 else 0
        for k in range(thresholds.shape[1]):
            i = sites[row, k]
            field = fields[b, i]
            before = spins[b, i]
            now = before
            if metropolis:
                if (field if before > 0 else -field) <= thresholds[b, k]:
                    now = -before
            else:
                now = 1 if field > thresholds[b, k] else -1
            if now != before:
                spins[b, i] = now
                change = float(now - before)
                for j in range(spins.shape[1]):
                    fields[b, j] += change * couplings[i, j]


def reference_moves(
    system: SpinSystem, spins: Tensor, sites: Tensor, thresholds: Tensor, metropolis: bool = False
) -> Tensor:
    """What the compiled loops do, in torch, all rows at once: configurations (B, N) after the moves.

    Args:
        system: whose energy counts.
        spins: (B, N).
        sites: (B, K) or (1, K) int64, whose turn it is.
        thresholds: (B, K) float64, what the field is compared with.
        metropolis: is it asked whether the spin flips, and not what it becomes?
    """
    spins, couplings = spins.clone(), couplings_of(system).double()
    fields = spins.double() @ couplings + system.outer_field.double()  # exact, also where the couplings are float32
    rows = torch.arange(len(spins))
    for k in range(thresholds.shape[1]):
        at = sites[:, k].expand(len(spins))
        before, field = spins[rows, at], fields[rows, at]
        if metropolis:
            now = torch.where(before * field <= thresholds[:, k], -before, before)
        else:
            now = torch.where(field > thresholds[:, k], 1, -1).to(spins.dtype)
        spins[rows, at] = now
        fields += (now - before)[:, None] * couplings[at]
    return spins


def moved(
    system: SpinSystem, spins: Tensor, sites: Tensor, thresholds: Tensor, metropolis: bool, native: bool
) -> Tensor:
    """Configurations after the moves, by machine code or by the reference; see `reference_moves`."""
    if not native or spins.device.type != "cpu":
        return reference_moves(system, spins, sites, thresholds, metropolis)
    after = spins.to(torch.int8, copy=True).contiguous()
    threads = min(torch.get_num_threads(), len(spins)) if thresholds.numel() > 10_000 else 1
    if isinstance(system, DenseSystem):
        couplings = system.couplings.double().contiguous()
        fields = after.double() @ couplings + system.outer_field.double()
        dense_moves(after, fields, couplings, sites, thresholds, int(metropolis), threads=threads)
    else:
        near, outer = neighbours_of(system), system.outer_field.double().contiguous()
        sparse_moves(
            after, near.begin, near.other, near.coupling.double(), outer, sites, thresholds, int(metropolis),
            threads=threads,
        )  # fmt: skip
    return after.to(spins.dtype)


@dataclass(frozen=True)
class Glauber(SpinDynamics):
    """The heat bath at random: a spin forgets what it was and takes its value by its field, N times.

        p(s_i = +1) = 1 / (1 + exp(-2 beta h_i)),    h_i its field

    At temperature zero it goes along its field, and where it feels none it is tossed.

    Args:
        native: machine code; without, the readable loop in torch. Both draw the same numbers and move alike.
    Source:
        Glauber 1963, J. Math. Phys. 4(2):294-307, doi:10.1063/1.1703954
    Differs:
        The paper has spins that flip at random times, at the rate (1 - s_i tanh(beta h_i)) / 2; here a sweep of N moves is one
        unit of time, which is the same for large N.
    Cost:
        A sweep of B configurations: O(B N) random numbers, O(1) a visit and O(N) a flip in a `DenseSystem`, O(neighbours) a
        visit elsewhere.
    Example:
        >>> from recurra.memories.systems import Lattice
        >>> chain = Lattice((8,))
        >>> cold = Glauber().sweep(chain, torch.ones(1, 8, dtype=torch.int8), float("inf"))
        >>> float(chain.energy(cold))
        -8.0
    """

    source: ClassVar[str] = "Glauber 1963, J. Math. Phys. 4(2):294-307"
    native: bool = True

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        size = (len(spins), system.num_spins)
        sites = torch.randint(system.num_spins, size, generator=generator)
        return moved(system, spins, sites, heat_bath_thresholds(size, beta, generator), False, self.native)


@dataclass(frozen=True)
class SequentialHeatBath(SpinDynamics):
    """The heat bath in an order: every spin once, each as in `Glauber`.

    It keeps the law of equilibrium, without detailed balance.

    Args:
        native: machine code; without, the readable loop in torch. Both draw the same numbers and move alike.
    Source:
        Creutz 1980, Phys. Rev. D 21(8):2308-2315, doi:10.1103/PhysRevD.21.2308 (from memory)
    Cost:
        As `Glauber`.
    """

    source: ClassVar[str] = "Creutz 1980, Phys. Rev. D 21(8):2308-2315"
    reversible: ClassVar[bool] = False
    native: bool = True

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        sites = torch.arange(system.num_spins)[None]
        thresholds = heat_bath_thresholds((len(spins), system.num_spins), beta, generator)
        return moved(system, spins, sites, thresholds, False, self.native)


@dataclass(frozen=True)
class Metropolis(SpinDynamics):
    """A flip of a spin chosen at random is made or not, by what it costs, N times.

        p(flip) = min(1, exp(-beta dE)),    dE = 2 s_i h_i

    At beta = 0 every flip is made, so that whether the number of spins up is even is known: use a heat bath there.

    Args:
        native: machine code; without, the readable loop in torch. Both draw the same numbers and move alike.
    Source:
        Metropolis, Rosenbluth, Rosenbluth, Teller & Teller 1953, J. Chem. Phys. 21(6):1087-1092, doi:10.1063/1.1699114
    Cost:
        As `Glauber`.
    """

    source: ClassVar[str] = "Metropolis et al. 1953, J. Chem. Phys. 21(6):1087-1092"
    native: bool = True

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        size = (len(spins), system.num_spins)
        sites = torch.randint(system.num_spins, size, generator=generator)
        return moved(system, spins, sites, metropolis_thresholds(size, beta, generator), True, self.native)
