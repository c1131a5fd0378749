"""Memristors in a circuit: loops of a graph, currents that obey Kirchhoff, and how the memories move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_positive, sentence


def cycle_matrix(num_nodes: int, edges: Tensor) -> Tensor:
    """(C, E) float64, the fundamental loops of a graph: +1 where an edge is passed along its direction, -1 against it.

    Args:
        num_nodes: nodes of the graph; it need not hang together.
        edges: (E, 2) int64, from and to.

    Raises:
        ValueError: an edge whose end is no node.

    Example:
        >>> cycle_matrix(3, torch.tensor([[0, 1], [1, 2], [2, 0]])).tolist()
        [[1.0, 1.0, 1.0]]
    """
    check_positive("cycle_matrix", num_nodes=num_nodes)
    if len(edges) and not 0 <= int(edges.min()) <= int(edges.max()) < num_nodes:
        raise ValueError(sentence("cycle_matrix", "edges", f"of nodes from 0 to {num_nodes - 1}", edges.tolist()))
    ends = edges.tolist()
    near: list[list[tuple[int, int, float]]] = [[] for _ in range(num_nodes)]
    for edge, (a, b) in enumerate(ends):
        near[a].append((b, edge, 1.0))
        near[b].append((a, edge, -1.0))
    path: list[dict[int, float] | None] = [None] * num_nodes  # edges from the root of its tree to each node
    tree: set[int] = set()
    for root in range(num_nodes):
        if path[root] is not None:
            continue
        path[root], waiting = {}, [root]
        while waiting:
            node = waiting.pop()
            for other, edge, sign in near[node]:
                if path[other] is None:
                    path[other] = {**(path[node] or {}), edge: sign}
                    tree.add(edge)
                    waiting.append(other)
    chords = [edge for edge in range(len(ends)) if edge not in tree]
    loops = torch.zeros(len(chords), len(ends), dtype=torch.float64)
    for row, chord in enumerate(chords):
        a, b = ends[chord]
        loops[row, chord] = 1.0
        for place, part in ((a, 1.0), (b, -1.0)):
            for edge, sign in (path[place] or {}).items():
                loops[row, edge] += part * sign
    return loops


def incidence_matrix(num_nodes: int, edges: Tensor) -> Tensor:
    """(N, E) float64: -1 where an edge begins, +1 where it ends. Currents i obey Kirchhoff's first law where B i = 0."""
    matrix = torch.zeros(num_nodes, len(edges), dtype=torch.float64)
    places = torch.arange(len(edges))
    matrix[edges[:, 1].long(), places] += 1.0
    matrix[edges[:, 0].long(), places] -= 1.0
    return matrix


def loop_basis(loops: Tensor) -> Tensor:
    """(E, C) orthonormal columns Q that span loops A (C, E); the projector Omega = A' (A A')^-1 A is Q Q'.

    Example:
        >>> basis = loop_basis(cycle_matrix(3, torch.tensor([[0, 1], [1, 2], [2, 0]])))
        >>> (basis @ basis.T).mul(3).round().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return torch.linalg.qr(loops.T).Q


WALL = 1e-9  # nearer to a wall than this is at the wall


@dataclass(frozen=True, eq=False)
class MemristiveCircuit:
    """E memristors, each in series with a source, in any circuit:

        dw/dt = alpha w - (1 / beta) (I + xi Omega W)^-1 Omega S        0 <= w <= 1, W = diag(w)
        R(w) = R_on (1 + xi w)                                          the resistance, xi = R_off / R_on - 1

    The second term is the current, R_on i / beta. At a wall (w = 0 or w = 1) a memory whose velocity points outward stands
    still; currents go on flowing through it. Omega = Q Q', and (I + xi Q Q' W)^-1 Q = Q (I + xi Q' W Q)^-1, so that there are
    only as many equations to solve as loops.

    Args:
        basis: (E, C) Q, orthonormal columns, of the space of loops.
        sources: (E,) S in volts, of the same dtype.
        alpha: 1/s, how fast a memory is lost (with the sign of the paper: it drives w away from 0).
        beta: V s, how slowly currents move it.
        xi: contrast of the resistances.
    Raises:
        ValueError: shapes that do not fit, columns that are not orthonormal, numbers that are not finite, beta or xi out of
            range.
    Source:
        Caravelli, Traversa & Di Ventra 2017, Phys. Rev. E 95:022140, doi:10.1103/PhysRevE.95.022140 (the abstract read, the
        equation from a page about it)
    Cost:
        E C^2 + C^3 / 3 multiplications for a velocity of one state.
    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> MemristiveCircuit(one[None], -one, alpha=0.0).velocity(0 * one).tolist()
        [1.0]
    """

    basis: Tensor
    sources: Tensor
    alpha: float = 0.1
    beta: float = 1.0
    xi: float = 10.0

    def __post_init__(self) -> None:
        name, basis = "MemristiveCircuit", self.basis
        if basis.ndim != 2 or len(basis) != len(self.sources) or basis.shape[1] > len(basis):
            raise ValueError(sentence(name, "basis", f"({len(self.sources)}, C)", tuple(basis.shape)))
        away = (basis.T @ basis - torch.eye(basis.shape[1], dtype=basis.dtype)).abs()
        if away.numel() and not float(away.max()) < 1e-5:
            raise ValueError(sentence(name, "basis", "of orthonormal columns", f"Q'Q off by {float(away.max()):.1e}"))
        if not bool(self.sources.isfinite().all()):
            raise ValueError(sentence(name, "sources", "finite", "NaN or infinity"))
        if not math.isfinite(self.alpha):
            raise ValueError(sentence(name, "alpha", "finite", self.alpha))
        if not self.beta > 0:
            raise ValueError(sentence(name, "beta", "above 0", self.beta))
        if not self.xi >= 0:
            raise ValueError(sentence(name, "xi", "at least 0", self.xi))

    @property
    def num_memristors(self) -> int:
        """E."""
        return len(self.sources)

    @property
    def projector(self) -> Tensor:
        """(E, E) Omega."""
        return self.basis @ self.basis.T

    def loop_resistance(self, w: Tensor) -> Tensor:
        """(..., C, C) I + xi Q' W Q of memories (..., E); symmetric, never below I."""
        inner = self.basis.T @ (w.unsqueeze(-1) * self.basis)
        return torch.eye(self.basis.shape[1], dtype=w.dtype) + self.xi * inner

    def currents(self, w: Tensor, sources: Tensor | None = None) -> Tensor:
        """(..., E) R_on i of memories (..., E), in volts; other ``sources`` (..., E) may be given."""
        drive = (self.sources if sources is None else sources) @ self.basis
        drive = drive.expand(*w.shape[:-1], -1)
        return torch.linalg.solve(self.loop_resistance(w), drive.unsqueeze(-1)).squeeze(-1) @ self.basis.T

    def free_velocity(self, w: Tensor, sources: Tensor | None = None) -> Tensor:
        """(..., E) dw/dt if there were no walls."""
        return self.alpha * w - self.currents(w, sources) / self.beta

    def velocity(self, w: Tensor, sources: Tensor | None = None) -> Tensor:
        """(..., E) dw/dt; 0 where a wall is in the way."""
        free = self.free_velocity(w, sources)
        return torch.where(held(w, free), torch.zeros_like(free), free)

    def lyapunov(self, w: Tensor) -> Tensor:
        """(B,) a function that never rises while no wall is in the way:

            L = -alpha/3 sum_i w_i^3 - alpha xi/4 (w^2)' Omega w^2 + 1/(2 beta) (w^2)' Omega S
            dL/dt = -(W^(1/2) dw/dt)' (I + xi W^(1/2) Omega W^(1/2)) (W^(1/2) dw/dt)

        At the corners, where w^2 = w, it is the energy of an Ising model with couplings alpha xi Omega / 4.

        Source:
            Caravelli 2019, Entropy 21(8):789, doi:10.3390/e21080789 (that there is such a polynomial: abstract; this one was
            derived anew, by multiplying the equation from the left with (dw/dt)' (W + xi W Omega W))
        """
        square = w * w
        inside = square @ self.basis
        cubes = self.alpha / 3 * (square * w).sum(-1)
        pairs = self.alpha * self.xi / 4 * (inside * inside).sum(-1)
        return inside @ (self.sources @ self.basis) / (2 * self.beta) - cubes - pairs


def held(w: Tensor, velocity: Tensor) -> Tensor:
    """(..., E) bool: is a wall in the way?"""
    return ((w <= 0) & (velocity < 0)) | ((w >= 1) & (velocity > 0))


class Relaxation(NamedTuple):
    """A trajectory.

    Args:
        times: (K,) s.
        memories: (K, E).
        steps: taken.
        rejected: steps that were tried and found too long.
    """

    times: Tensor
    memories: Tensor
    steps: int
    rejected: int


def relax(circuit: MemristiveCircuit, start: Tensor, times: Tensor, tolerance: float = 1e-6) -> Relaxation:
    """Memories of a circuit at given times.

    A Rosenbrock method of fourth order with an error of third (Kaps & Rentrop's with Shampine's numbers, A-stable, so that
    stiff circuits cost no small steps), on the memories that no wall holds. A step ends at the first wall that it would pass.

    Args:
        circuit: with its sources held.
        start: (E,) float64 memories in [0, 1] at time 0.
        times: (K,) increasing, s, from 0 on.
        tolerance: of the error of a step, as memories are.

    Raises:
        ValueError: times that do not increase, memories outside [0, 1], a tolerance that is not positive.
        FloatingPointError: steps became too small: the equation has no solution there.

    Source:
        Shampine 1982, ACM Trans. Math. Softw. 8(2):93-113, doi:10.1145/355993.355994 (numbers from memory, order tested)

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> loop = MemristiveCircuit(one[None], -one, alpha=0.0, xi=4.0)
        >>> found = relax(loop, 0 * one, torch.tensor([0.0, 1.0, 10.0]))  # w + 2 w^2 = t
        >>> [round(float(w), 4) for w in found.memories[:, 0]]
        [0.0, 0.5, 1.0]
    """
    where = "relax"
    if times.ndim != 1 or not len(times) or float(times[0]) < 0 or bool((times.diff() <= 0).any()):
        raise ValueError(sentence(where, "times", "increasing from 0 on", times.tolist()[:5]))
    if start.shape != (circuit.num_memristors,):
        raise ValueError(sentence(where, "start", f"({circuit.num_memristors},) memories", tuple(start.shape)))
    if not bool(((start >= 0) & (start <= 1)).all()):
        got = f"from {float(start.min()):g} to {float(start.max()):g}"
        raise ValueError(sentence(where, "start", "memories in [0, 1]", got))
    if not tolerance > 0:
        raise ValueError(sentence(where, "tolerance", "above 0", tolerance))
    w, now, kept, steps, rejected = start.clone(), 0.0, [], 0, 0
    velocity = circuit.free_velocity(w)
    step = tolerance**0.5 / max(float(velocity.abs().max()), 1e-12)
    for moment in times.double().tolist():
        while now < moment:
            free = ~held(w, velocity)
            if not bool(free.any()) or float(velocity[free].abs().max()) == 0.0:
                now = moment
                break
            length = min(step, moment - now)
            change, error = _rosenbrock(circuit, w, velocity, free, length)
            size = float(error.abs().max()) / tolerance
            if size > 1:
                rejected += 1
                step = length * max(0.2, 0.8 * size ** (-1 / 4))
                if step < 1e-14 * max(now, 1e-14):
                    raise FloatingPointError(f"{where}: steps must not vanish, got {step:g} s at {now:g} s.")
                continue
            beyond = torch.where(change > 0, (1 - w) / change, torch.where(change < 0, -w / change, torch.inf))
            part = float(beyond[free].min())
            if part < 1 - 1e-9 and part * length > 1e-12 * max(now, length):  # to the wall, then look again
                change, error = _rosenbrock(circuit, w, velocity, free, part * length)
                length *= part
            w = (w + change).clamp(0, 1)
            w = torch.where(w < WALL, 0.0, torch.where(w > 1 - WALL, 1.0, w))
            steps += 1
            now = moment if now + length >= moment * (1 - 1e-15) else now + length
            step = length * min(5.0, 0.8 * max(size, 1e-3) ** (-1 / 4)) if part >= 1 else step
            velocity = circuit.free_velocity(w)
        kept.append(w)
    return Relaxation(times, torch.stack(kept), steps, rejected)


_GAMMA = 0.5
_A = ((2.0,), (48 / 25, 6 / 25))
_C = ((-8.0,), (372 / 25, 12 / 5), (-112 / 125, -54 / 125, -2 / 5))
_B = (19 / 9, 1 / 2, 25 / 108, 125 / 108)
_E = (17 / 54, 7 / 36, 0.0, 125 / 108)


def _rosenbrock(
    circuit: MemristiveCircuit, w: Tensor, velocity: Tensor, free: Tensor, length: float
) -> tuple[Tensor, Tensor]:
    """The change over a step and its error, zero where a wall holds."""
    part = circuit.basis[free]
    current = (circuit.alpha * w - velocity)[free]  # / beta
    own = 1 / (_GAMMA * length) - circuit.alpha
    left = circuit.xi * torch.linalg.solve(circuit.loop_resistance(w), part.T).T
    right = (current.unsqueeze(-1) * part).T
    inner = torch.linalg.lu_factor(own * torch.eye(part.shape[1], dtype=w.dtype) - right @ left)

    def solve(of: Tensor) -> Tensor:
        """(I / (gamma h) - J)^-1 of,  J = alpha I + xi Q (I + xi Q' W Q)^-1 Q' diag(i)."""
        return (of + left @ torch.linalg.lu_solve(*inner, (right @ of).unsqueeze(-1)).squeeze(-1)) / own

    def mix(weights: tuple[float, ...]) -> Tensor:
        return torch.stack(parts, 1) @ torch.tensor(weights, dtype=w.dtype)

    parts: list[Tensor] = [solve(velocity[free])]
    for to, back in zip((*_A, None), _C):
        if to is not None:  # the fourth stage stands where the third does
            moved = w.clone()
            moved[free] += mix(to)
            slope = circuit.free_velocity(moved)[free]
        parts.append(solve(slope + mix(back) / length))
    change, error = torch.zeros_like(w), torch.zeros_like(w)
    change[free], error[free] = mix(_B), mix(_E)
    return change, error
