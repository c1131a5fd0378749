"""A circuit of memristors as a reservoir: sources drive it, its memories are what is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import RK4, ContinuousCell, Euler, Solver
from ..core.checks import check_positive, sentence
from ..core.circuits import cycle_matrix, held, loop_basis
from ..core.tree import Tree
from ..init import matrix, vector


class MemristiveState(NamedTuple):
    """w: (B, H) memories."""

    w: Tensor


class MemristiveCell(ContinuousCell[Tensor, MemristiveState]):
    """H memristors in a circuit of Caravelli, Traversa and Di Ventra, driven by voltages that depend on the input.

        dw/dt = -w / tau + i / beta            i = (I + xi Omega W)^-1 Omega S,  S = A x + b,  y = w
        0 <= w <= 1: at a wall an outward velocity does not count, and what a step of the solver has gone beyond it neither

    The circuit is a ring of nodes with chords at random, as many as ``num_loops`` - 1; it is drawn once and kept. Only A and b
    are learned, or nothing: then it is a reservoir.

    Args:
        input_size: D, features of an input.
        hidden_size: H, memristors.
        num_loops: C, independent loops of the circuit, at most H - 2; None is half of H, rounded down.
        tau_s: how long a memory lasts without currents.
        beta: V s, how slowly currents move it.
        xi: contrast of the resistances, R_off / R_on - 1.
        precision: error of the currents, as part of the sources.
        solver: of the differential equation.
        input_init: name of A's initialisation, see `recurra.init.names`.
        generator: source of the circuit and of the weights.
    State:
        w: (B, H) memories, 1/2 at first.
    Raises:
        ValueError: sizes that make no circuit, tau_s or beta not above 0, xi below 0.
    Source:
        Caravelli, Traversa & Di Ventra 2017, Phys. Rev. E 95:022140, doi:10.1103/PhysRevE.95.022140
    Differs:
        A memory fades (alpha = -1 / tau) and the sources are turned round: without input the state is forgotten instead of
        driven to a wall. The currents are found to ``precision``, by as many steps of an iteration as that and xi ask for; so
        the cell is products and sums alone, with a native form.
    Cost:
        4 H C flops for each iteration, about 6 sqrt(1 + xi) of them at the usual precision, for each evaluation of the
        derivative; H state values.
    Example:
        >>> from recurra.core import Timed
        >>> from recurra.layers import Recurrent
        >>> cell = MemristiveCell(3, 8)
        >>> ys, state = Recurrent(cell)(Timed(torch.zeros(7, 2, 3), torch.rand(7, 2)))
        >>> ys.shape, state.w.shape
        (torch.Size([7, 2, 8]), torch.Size([2, 8]))
    """

    source = "Caravelli, Traversa & Di Ventra 2017, Phys. Rev. E 95:022140, doi:10.1103/PhysRevE.95.022140"
    basis: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_loops: int | None = None,
        tau_s: float = 10.0,
        beta: float = 1.0,
        xi: float = 10.0,
        precision: float = 1e-5,
        solver: Solver | None = None,
        input_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        loops = max(1, hidden_size // 2) if num_loops is None else num_loops
        if hidden_size < 3 or not 1 <= loops <= hidden_size - 2:
            raise ValueError(
                sentence(where, "num_loops", "from 1 to hidden_size - 2", f"{loops} with hidden_size={hidden_size}")
            )
        for name, value in {"tau_s": tau_s, "beta": beta}.items():
            if not value > 0:
                raise ValueError(sentence(where, name, "above 0", value))
        if not xi >= 0:
            raise ValueError(sentence(where, "xi", "at least 0", xi))
        if not 0 < precision < 1:
            raise ValueError(sentence(where, "precision", "between 0 and 1", precision))
        self.input_size, self.output_size, self.hidden_size = input_size, hidden_size, hidden_size
        self.num_loops, self.tau_s, self.beta, self.xi = loops, tau_s, beta, xi
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.bias = vector(hidden_size, 1.0, **kind)
        edges = _ring_with_chords(hidden_size - loops + 1, loops - 1, generator)
        basis = loop_basis(cycle_matrix(hidden_size - loops + 1, edges))
        self.register_buffer("basis", basis.to(self.weight_ih))
        root = math.sqrt(1 + xi)
        slowness = math.log((root + 1) / (root - 1)) if xi else math.inf
        self.num_iterations = 1 + math.ceil(math.log(2 / precision) / slowness)
        self.solver = RK4() if solver is None else solver

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """As it is; one loop, with a learned start."""
        yield cls(3, 5, xi=0.5, precision=0.05, solver=Euler())
        yield cls(2, 4, num_loops=1, tau_s=2.0, xi=1.0, precision=0.05, solver=Euler()).learn_initial_state()

    def initial_state(self, batch_size: int) -> MemristiveState:
        """w = 1/2."""
        return MemristiveState(self.initial("w", batch_size, self.hidden_size, value=0.5))

    def derivative(self, x: Tree, state: MemristiveState) -> MemristiveState:
        """``dw/dt``."""
        inside, drive = state.w.clamp(0, 1), F.linear(x, self.weight_ih, self.bias)
        current = self._loop_currents(inside, drive @ self.basis) @ self.basis.T
        speed = current / self.beta - inside / self.tau_s
        return MemristiveState(torch.where(held(state.w, speed), (inside - state.w) / self.tau_s, speed))

    def _loop_currents(self, w: Tensor, drive: Tensor) -> Tensor:
        """(B, C) solution of (I + xi Q' W Q) j = drive by Chebyshev's iteration; its eigenvalues lie in [1, 1 + xi]."""
        middle, half = 1 + self.xi / 2, self.xi / 2
        length = 1 / middle
        direction, found, rest = drive, drive * length, drive
        for step in range(1, self.num_iterations):
            image = direction + self.xi * ((direction @ self.basis.T * w) @ self.basis)
            rest = rest - length * image
            share = (half * length) ** 2 / (2 if step == 1 else 4)
            length = 1 / (middle - share / length)
            direction = rest + share * direction
            found = found + length * direction
        return found

    def observe(self, state: MemristiveState) -> Tensor:
        """``y = w``, between the walls."""
        return state.w.clamp(0, 1)


def _ring_with_chords(num_nodes: int, num_chords: int, generator: torch.Generator | None) -> Tensor:
    """(E, 2) edges."""
    nodes = torch.arange(num_nodes)
    first = torch.randint(num_nodes, (num_chords,), generator=generator)
    apart = torch.randint(1, num_nodes, (num_chords,), generator=generator)
    ring = torch.stack([nodes, (nodes + 1) % num_nodes], 1)
    return torch.cat([ring, torch.stack([first, (first + apart) % num_nodes], 1)])
