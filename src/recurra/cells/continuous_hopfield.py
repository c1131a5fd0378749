"""The circuit of Hopfield's graded neurons as a cell that learns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import RK4, ContinuousCell, Euler, Solver
from ..core.checks import check_flag, check_positive, sentence
from ..core.tree import Tree
from ..init import matrix, vector


class ContinuousHopfieldState(NamedTuple):
    """u: (B, H) voltages."""

    u: Tensor


class ContinuousHopfieldCell(ContinuousCell[Tensor, ContinuousHopfieldState]):
    """Hopfield's circuit of graded neurons, driven by currents that are learned: the additive continuous-time network.

        tau du/dt = -u + T v + W x + b          v = tanh(g u), y = v;  T = (U + U^T) / 2 if symmetric, else U

    With symmetric T and a constant input, the energy of `recurra.memories.ContinuousHopfield` falls along the way, and the
    state settles; without, the net may oscillate. Gaps between inputs may differ.

    Args:
        input_size: D, features of an input.
        hidden_size: H, units.
        gain: g, slope of the response at zero.
        tau_s: time constant of the units.
        symmetric: connections alike in both directions.
        bias: with b or without.
        solver: of the differential equation.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        u: (B, H) voltages.
    Raises:
        ValueError: sizes below 1, a gain or time constant that is not above 0.
    Source:
        Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088 (C and R in tau; currents W x + b)
    Cost:
        2 H (D + H) flops for each evaluation of the derivative (4 for a step of RK4) and H state values.
    Example:
        >>> from recurra.core import Timed
        >>> from recurra.layers import Recurrent
        >>> cell = ContinuousHopfieldCell(3, 5)
        >>> ys, state = Recurrent(cell)(Timed(torch.zeros(7, 2, 3), torch.rand(7, 2)))
        >>> ys.shape, state.u.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: float = 1.0,
        tau_s: float = 1.0,
        symmetric: bool = True,
        bias: bool = True,
        solver: Solver | None = None,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        check_flag(where, symmetric=symmetric, bias=bias)
        for name, value in {"gain": gain, "tau_s": tau_s}.items():
            if not value > 0:
                raise ValueError(sentence(where, name, "above 0", value))
        self.input_size, self.output_size, self.hidden_size = input_size, hidden_size, hidden_size
        self.gain, self.tau_s, self.symmetric = gain, tau_s, symmetric
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(hidden_size, hidden_size, recurrent_init, where=where, **kind)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None
        self.solver = RK4() if solver is None else solver

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Symmetric; not, without bias, with a learned start."""
        yield cls(3, 4, solver=Euler(2))
        yield cls(2, 3, gain=2.0, tau_s=0.5, symmetric=False, bias=False, solver=Euler()).learn_initial_state()

    @property
    def conductances(self) -> Tensor:
        """(H, H) T."""
        return (self.weight_hh + self.weight_hh.T) / 2 if self.symmetric else self.weight_hh

    def initial_state(self, batch_size: int) -> ContinuousHopfieldState:
        """u = 0."""
        return ContinuousHopfieldState(self.initial("u", batch_size, self.hidden_size))

    def derivative(self, x: Tree, state: ContinuousHopfieldState) -> ContinuousHopfieldState:
        """``du/dt``."""
        current = F.linear(self.observe(state), self.conductances) + F.linear(x, self.weight_ih, self.bias)
        return ContinuousHopfieldState((current - state.u) / self.tau_s)

    def observe(self, state: ContinuousHopfieldState) -> Tensor:
        """``v = tanh(g u)``."""
        return torch.tanh(self.gain * state.u)
