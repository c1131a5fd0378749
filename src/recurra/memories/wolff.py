"""Wolff's clusters: whole regions turn over at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core import SpinDynamics, SpinSystem
from ..core.checks import check_positive
from ..native.loops import compiled, f64_1d, f64_2d, i8_2d, i64_1d, i64_2d, num_threads, thread
from .systems import Neighbours, neighbours_of


@compiled
def turn_clusters(
    spins: i8_2d,
    begin: i64_1d,
    other: i64_1d,
    coupling: f64_1d,
    edge: i64_1d,
    chance: f64_1d,
    seeds: i64_1d,
    numbers: f64_2d,
    inside: i8_2d,
    waiting: i64_2d,
) -> None:
    """Turn over the cluster of seeds[b] in spins (B, N), in place: a bond that pulls is laid where its number (B, E) is below
    its chance. inside (B, N), zeros, and waiting (B, N) are room.
    """
    for b in range(len(spins) * thread() // num_threads(), len(spins) * (thread() + 1) // num_threads()):
        waiting[b, 0] = seeds[b]
        inside[b, seeds[b]] = 1
        left = 1
        while left > 0:
            left -= 1
            i = waiting[b, left]
            value = spins[b, i]
            for e in range(begin[i], begin[i + 1]):
                j = other[e]
                pull = coupling[e] if spins[b, j] == value else -coupling[e]
                if pull > 0 and inside[b, j] == 0 and numbers[b, edge[e]] < chance[e]:
                    inside[b, j] = 1
                    waiting[b, left] = j
                    left += 1
            spins[b, i] = -value


def reference_clusters(near: Neighbours, chance: Tensor, spins: Tensor, seeds: Tensor, numbers: Tensor) -> Tensor:
    """What `turn_clusters` does, in torch, all rows at once: bonds first, then all that hangs together with the seed."""
    owner, other = near.owner, near.other
    pulls = near.coupling * spins[:, owner] * spins[:, other] > 0  # (B, 2 E)
    bound = pulls & (numbers[:, near.edge] < chance)
    inside = torch.zeros(spins.shape, dtype=torch.bool).scatter(1, seeds[:, None], True)
    while True:
        reached = (inside[:, owner] & bound).to(torch.int32)
        grown = inside | (torch.zeros(spins.shape, dtype=torch.int32).index_add(1, other, reached) > 0)
        if torch.equal(grown, inside):
            return torch.where(inside, -spins, spins)
        inside = grown


@dataclass(frozen=True)
class Wolff(SpinDynamics):
    """Clusters of spins turn over as a whole, which is far faster near a critical temperature than moves of single spins.

    From a spin chosen at random the cluster grows over bonds, each laid with the probability

        1 - exp(-2 beta J_ij s_i s_j)        where J_ij s_i s_j > 0, else 0

    An outer field is one more spin that every other is coupled to by its h_i; where that spin is turned, all are turned back.
    In a frustrated system the law is right, but clusters swallow everything.

    Args:
        num_clusters: clusters of a sweep. One is about N spins below the critical temperature, a few spins far above it.
        native: machine code; without, the readable form in torch. Both draw the same numbers and turn the same clusters.
    Raises:
        ValueError: no cluster.
    Source:
        Wolff 1989, Phys. Rev. Lett. 62(4):361-364, doi:10.1103/PhysRevLett.62.361
    Cost:
        A random number for each of E edges, and O(neighbours) a spin of the cluster.
    Example:
        >>> from recurra.memories.systems import Lattice
        >>> Wolff().sweep(Lattice((4,)), torch.ones(1, 4), float("inf")).tolist()
        [[-1.0, -1.0, -1.0, -1.0]]
    """

    source: ClassVar[str] = "Wolff 1989, Phys. Rev. Lett. 62(4):361-364"
    num_clusters: int = 1
    native: bool = True

    def __post_init__(self) -> None:
        check_positive("Wolff", num_clusters=self.num_clusters)

    def run(self, system: SpinSystem, spins: Tensor, beta: float, generator: torch.Generator | None) -> Tensor:
        """See `SpinDynamics.sweep`."""
        near, outer = neighbours_of(system), system.outer_field
        ghost = bool(outer.count_nonzero())
        after = spins.to(torch.int8, copy=True)
        if ghost:
            near = _with_ghost(near, outer)
            after = torch.cat([after, torch.ones(len(spins), 1, dtype=torch.int8)], 1)
        after, size = after.contiguous(), (len(spins), len(near.other) // 2)
        coupling = near.coupling.double()
        chance = -torch.expm1(-2 * min(beta, 1e300) * coupling.abs())
        threads = min(torch.get_num_threads(), len(spins)) if size[0] * size[1] > 10_000 else 1
        for _ in range(self.num_clusters):
            seeds = torch.randint(system.num_spins, (len(spins),), generator=generator)
            numbers = torch.rand(size, generator=generator, dtype=torch.float64)
            if not self.native or spins.device.type != "cpu":
                after = reference_clusters(near, chance, after, seeds, numbers)
                continue
            inside = torch.zeros_like(after)
            waiting = torch.empty(after.shape, dtype=torch.int64)
            turn_clusters(
                after, near.begin, near.other, coupling, near.edge, chance, seeds, numbers, inside, waiting,
                threads=threads,
            )  # fmt: skip
        if ghost:
            after = after[:, :-1] * after[:, -1:]
        return after.to(spins.dtype)


def _with_ghost(near: Neighbours, outer: Tensor) -> Neighbours:
    """One more spin, N, coupled to spin i by outer[i]."""
    size, edges = len(outer), len(near.other) // 2
    owner = torch.cat([near.owner, torch.arange(size), torch.full((size,), size)])
    other = torch.cat([near.other, torch.full((size,), size), torch.arange(size)])
    coupling = torch.cat([near.coupling, outer, outer])
    edge = torch.cat([near.edge, torch.arange(edges, edges + size).repeat(2)])
    order = torch.argsort(owner, stable=True)
    begin = torch.cat([near.begin + torch.arange(size + 1), torch.tensor([len(owner)])])
    return Neighbours(begin, other[order], coupling[order], edge[order])
