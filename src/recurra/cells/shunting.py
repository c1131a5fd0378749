"""Grossberg's shunting field: units that excite themselves and inhibit all others, in proportion to what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..core.cell import RK4, ContinuousCell, Euler, Solver, Timed
from ..core.checks import check_choice, check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree

Signal = Callable[[Tensor, Tensor, Tensor], Tensor]

SIGNALS: dict[str, Signal] = {
    "linear": lambda w, gain, knee: gain * w,
    "slower": lambda w, gain, knee: gain * w / (knee + w),
    "faster": lambda w, gain, knee: gain * w * w,
    "sigmoid": lambda w, gain, knee: gain * w * w / (knee * knee + w * w),
    "hybrid": lambda w, gain, knee: gain * w * torch.where(w < knee, w / knee, torch.ones_like(w)),
}
"""f(w) by name: of the activity, a gain and a knee."""


class ShuntingInput(NamedTuple):
    """excitation: (B, N) I, at least 0; inhibition: (B, N) J, at least 0."""

    excitation: Tensor
    inhibition: Tensor


class ShuntingState(NamedTuple):
    """x: (B, N) activities, from 0 to the ceiling."""

    x: Tensor


class ShuntingCell(ContinuousCell[Tensor, ShuntingState]):
    """Recurrent on-centre off-surround field with shunting (multiplicative) interactions.

        dx_i/dt = -A x_i + (B - x_i) (I_i + f(x_i)) - x_i (J_i + s sum_{k != i} f(x_k))        y = x

    Without input and with s = 1 the signal f decides what becomes of a pattern of activities:

        linear     f = g w                   the pattern stays; the total becomes B - A/g (0 where g B <= A)
        slower     f = g w / (c + w)         all units become equal
        faster     f = g w^2                 the largest unit alone remains
        sigmoid    f = g w^2 / (c^2 + w^2)   what is below a quenching threshold dies, what is above is kept
        hybrid     f = g w min(w/c, 1)       the same; the pattern above the threshold stays as it is

    The ``sigmoid`` field keeps what it stores but makes it more equal; ``hybrid`` is faster than linear up to c and linear
    from there on.

    Args:
        num_units: N.
        signal: f, "linear", "slower", "faster", "sigmoid" or "hybrid".
        decay: A, 1/s.
        ceiling: B, the largest activity.
        gain: g, 1/s for the linear signal (the others divide or multiply by activities).
        knee: c, an activity; "linear" and "faster" have none.
        surround: s, how strongly units inhibit each other; 0 leaves each unit alone, and all of them saturate.
        solver: of the differential equation; with a step well below 1 / (A + total input + total signal) activities stay in
            their range.
    State:
        x: (B, N) activities.
    Raises:
        ValueError: no unit, an unknown signal, a decay, ceiling, gain or knee that is not above 0, a surround below 0.
    Source:
        Grossberg 1973, "Contour enhancement, short term memory, and constancies in reverberating neural networks", Studies
        in Applied Mathematics 52(3):213-257, doi:10.1002/sapm1973523213; equation and regimes as in Grossberg 2013,
        Scholarpedia 8(2):1888
    Differs:
        The four forms of f are examples of their kinds; the paper treats the kinds.
    Cost:
        About 12 N flops for each evaluation of the derivative (4 for each step of RK4) and N state values.
    Example:
        >>> from recurra.core import Timed
        >>> from recurra.layers import Recurrent
        >>> field = ShuntingCell(3, "faster", gain=20.0)
        >>> nothing = torch.zeros(400, 1, 3)
        >>> start = ShuntingState(torch.tensor([[0.2, 0.3, 0.25]]))
        >>> gaps = torch.full((400, 1), 0.1)
        >>> xs, _ = Recurrent(field)(Timed(ShuntingInput(nothing, nothing), gaps), start)
        >>> xs[-1].round(decimals=2).tolist()  # the winner, at (B + sqrt(B^2 - 4 A / g)) / 2
        [[0.0, 0.949999988079071, 0.0]]
    """

    source = "Grossberg 1973, Studies in Applied Mathematics 52(3):213-257, doi:10.1002/sapm1973523213"

    def __init__(
        self,
        num_units: int,
        signal: str = "sigmoid",
        *,
        decay: float = 1.0,
        ceiling: float = 1.0,
        gain: float = 4.0,
        knee: float = 0.25,
        surround: float = 1.0,
        solver: Solver | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, num_units=num_units)
        check_choice(where, "signal", signal, tuple(SIGNALS))
        for name, value in {"decay": decay, "ceiling": ceiling, "gain": gain, "knee": knee}.items():
            if not value > 0:
                raise ValueError(sentence(where, name, "above 0", value))
        if not surround >= 0:
            raise ValueError(sentence(where, "surround", "at least 0", surround))
        self.num_units, self.output_size, self.signal = num_units, num_units, signal
        self.decay, self.ceiling, self.gain, self.knee, self.surround = decay, ceiling, gain, knee, surround
        self.constants: Tensor
        self.register_buffer("constants", torch.tensor([decay, ceiling, gain, knee], device=device, dtype=dtype))
        self.solver = RK4() if solver is None else solver

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Kinds of signals; a weaker surround, a learned start."""
        yield cls(3, "linear", surround=0.5, solver=Euler())
        yield cls(2, "faster", ceiling=2.0, solver=Euler(2))
        yield cls(2, "sigmoid", solver=Euler()).learn_initial_state()

    @property
    def input_spec(self) -> Tree:
        """Both inputs, at least 0, and the time gap."""
        leaf = Leaf((self.num_units,), None, 0.0, 1.0)
        return Timed(ShuntingInput(leaf, leaf), Leaf((), None, 0.0, 0.3))  # type: ignore[arg-type]

    @property
    def state_spec(self) -> Tree:
        """Activities from 0 to the ceiling."""
        return ShuntingState(Leaf((self.num_units,), None, 0.0, self.ceiling))  # type: ignore[arg-type]

    def hint(self) -> str:
        """How the cell was built."""
        return f"The cell was built with num_units={self.num_units}."

    def initial_state(self, batch_size: int) -> ShuntingState:
        """x = 0: nothing is stored."""
        return ShuntingState(self.initial("x", batch_size, self.num_units))

    def signals(self, x: Tensor) -> Tensor:
        """(..., N) f of every activity."""
        return SIGNALS[self.signal](x, self.constants[2], self.constants[3])

    def derivative(self, x: Tree, state: ShuntingState) -> ShuntingState:
        """``dx/dt``."""
        own = self.signals(state.x)
        others = own.sum(-1, keepdim=True) - own
        up = (self.constants[1] - state.x) * (x.excitation + own)
        down = state.x * (self.constants[0] + x.inhibition + self.surround * others)
        return ShuntingState(up - down)

    def observe(self, state: ShuntingState) -> Tensor:
        """x."""
        return state.x
