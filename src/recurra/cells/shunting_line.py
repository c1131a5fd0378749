"""A shunting field along a line whose inhibition comes by interneurons, which may be slow: waves and oscillations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import RK4, ContinuousCell, Euler, Solver, Timed
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree
from .shunting import ShuntingInput


class ShuntingLineState(NamedTuple):
    """x: (B, N) activities; y: (B, N) of the interneurons; both from 0 to the ceiling."""

    x: Tensor
    y: Tensor


class ShuntingLineCell(ContinuousCell[Tensor, ShuntingLineState]):
    """Shunting field along a line: near units excite each other, interneurons that follow them inhibit.

        dx_i/dt = -A x_i + (B - x_i) (I_i + g sum_k C_ik f(x_k)) - x_i (J_i + h sum_k E_ik f(y_k))
        dy_i/dt = r (x_i - y_i)                           f(w) = w^2 / (c^2 + w^2)

    C and E are Gaussians of the distance along the line, or around a ring, whose sums are 1 (less at the ends of a line). Where
    the interneurons are fast, inhibition balances excitation at once and activities come to rest. Where they are slow, an
    input to one end sets off a wave that travels along the line with constant speed and leaves rest behind, and a steady
    input to all units makes them oscillate together: a field of equal units at rest at x = y becomes unstable where r falls
    below d(dx/dt)/dx there.

    Args:
        num_units: N.
        excitation, inhibition: g and h, 1/s.
        reach, spread: standard deviations of C and E, in units.
        rate: r, 1/s, how fast interneurons follow.
        ring: the ends are neighbours.
        decay: A, 1/s.
        ceiling: B, the largest activity.
        knee: c, an activity.
        solver: of the differential equation; with a step well below 1 / (A + total input + g + h + r) activities stay in
            their range.
    State:
        x: (B, N) activities.
        y: (B, N) of the interneurons.
    Raises:
        ValueError: no unit; excitation or inhibition below 0; anything else that is not above 0.
    Source:
        Ellias & Grossberg 1975, "Pattern formation, contrast control, and oscillations in the short term memory of shunting
        on-center off-surround networks", Biological Cybernetics 20:69-98, doi:10.1007/BF00327046 (equations from memory; that
        such fields store "oscillations of multiple types (synchronous, traveling waves, chaotic)": Grossberg 2013,
        Scholarpedia 8(2):1888, read)
    Differs:
        The interneurons follow linearly; activities cannot fall below 0.
    Cost:
        4 N^2 + 24 N flops for each evaluation of the derivative (4 for each step of RK4) and 2 N state values.
    Example:
        >>> from recurra.core import Timed
        >>> from recurra.layers import Recurrent
        >>> pulse = torch.zeros(300, 1, 40)
        >>> pulse[:50, :, :5] = 2.0  # a second at one end
        >>> line = Timed(ShuntingInput(pulse, torch.zeros_like(pulse)), torch.full((300, 1), 0.02))
        >>> xs, _ = Recurrent(ShuntingLineCell(40))(line)
        >>> peaks = xs[:, 0].argmax(0)
        >>> bool((peaks[10:30].diff() > 0).all()), bool(xs[-1].max() < 0.2)  # it passes unit by unit, and is gone
        (True, True)
    """

    source = "Ellias & Grossberg 1975, Biological Cybernetics 20:69-98, doi:10.1007/BF00327046"

    def __init__(
        self,
        num_units: int,
        *,
        excitation: float = 6.0,
        inhibition: float = 40.0,
        reach: float = 2.0,
        spread: float = 2.0,
        rate: float = 0.1,
        ring: bool = False,
        decay: float = 1.0,
        ceiling: float = 1.0,
        knee: float = 0.25,
        solver: Solver | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, num_units=num_units)
        above = {"reach": reach, "spread": spread, "rate": rate, "decay": decay, "ceiling": ceiling, "knee": knee}
        for name, value in above.items():
            if not value > 0:
                raise ValueError(sentence(where, name, "above 0", value))
        for name, value in {"excitation": excitation, "inhibition": inhibition}.items():
            if not value >= 0:
                raise ValueError(sentence(where, name, "at least 0", value))
        self.num_units, self.output_size, self.ring = num_units, num_units, ring
        self.excitation, self.inhibition, self.reach, self.spread = excitation, inhibition, reach, spread
        self.rate, self.decay, self.ceiling, self.knee = rate, decay, ceiling, knee
        self.centre: Tensor
        self.surround: Tensor
        self.constants: Tensor
        constants = torch.tensor([decay, ceiling, rate, knee], device=device, dtype=dtype)
        self.register_buffer("constants", constants)
        self.register_buffer("centre", (excitation * _gaussian(num_units, reach, ring)).to(constants))
        self.register_buffer("surround", (inhibition * _gaussian(num_units, spread, ring)).to(constants))
        self.solver = RK4() if solver is None else solver

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A line, a ring with a learned start."""
        yield cls(4, reach=1.0, inhibition=4.0, excitation=2.0, solver=Euler())
        yield cls(3, ring=True, ceiling=2.0, inhibition=4.0, rate=1.0, solver=Euler(2)).learn_initial_state()

    @property
    def input_spec(self) -> Tree:
        """Both inputs, at least 0, and the time gap."""
        leaf = Leaf((self.num_units,), None, 0.0, 1.0)
        return Timed(ShuntingInput(leaf, leaf), Leaf((), None, 0.0, 0.1))  # type: ignore[arg-type]

    @property
    def state_spec(self) -> Tree:
        """Activities from 0 to the ceiling."""
        leaf = Leaf((self.num_units,), None, 0.0, self.ceiling)
        return ShuntingLineState(leaf, leaf)  # type: ignore[arg-type]

    def hint(self) -> str:
        """How the cell was built."""
        return f"The cell was built with num_units={self.num_units}."

    def initial_state(self, batch_size: int) -> ShuntingLineState:
        """At rest: x = y = 0."""
        return ShuntingLineState(
            self.initial("x", batch_size, self.num_units), self.initial("y", batch_size, self.num_units)
        )

    def derivative(self, x: Tree, state: ShuntingLineState) -> ShuntingLineState:
        """``dx/dt`` and ``dy/dt``."""
        decay, ceiling, rate, knee = self.constants
        squares = state.x.square(), state.y.square()
        own, others = (w / (knee * knee + w) for w in squares)
        up = (ceiling - state.x) * (x.excitation + F.linear(own, self.centre))
        down = state.x * (decay + x.inhibition + F.linear(others, self.surround))
        return ShuntingLineState(up - down, rate * (state.x - state.y))

    def observe(self, state: ShuntingLineState) -> Tensor:
        """x."""
        return state.x


def _gaussian(num_units: int, width: float, ring: bool) -> Tensor:
    """(N, N) of the distance of two units; what a unit in the middle of an endless line sees adds up to 1."""
    places = torch.arange(num_units, dtype=torch.float64)
    far = 8 * max(1, round(width))
    whole = torch.exp(-torch.arange(-far, far + 1, dtype=torch.float64).square() / (2 * width * width)).sum()
    away = places[None] - places[:, None]
    turns = range(-1 - far // num_units, 2 + far // num_units) if ring else range(1)
    return sum((torch.exp(-(away + num_units * k).square() / (2 * width * width)) for k in turns), 0 * away) / whole
