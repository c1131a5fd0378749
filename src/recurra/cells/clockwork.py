"""The clockwork network: modules that update at their own periods."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import HoistedCell
from ..core.checks import check_choice, check_positive, sentence
from ..init import matrix, vector
from ._activations import UNITS


class ClockworkState(NamedTuple):
    """h: (B, H) last output; clock: (B,) int64, steps taken."""

    h: Tensor
    clock: Tensor


class ClockworkCell(HoistedCell[Tensor, Tensor, ClockworkState]):
    """Clockwork network: module i updates at every P_i-th step and sees the modules that are as slow or slower.

        a_i = f(W_i x + sum over j with P_j >= P_i of U_ij h_j + b_i)
        h_i' = a_i if t mod P_i = 0, else h_i           output, y = h'
        t' = t + 1

    With ascending periods U is upper triangular in blocks. At t = 0 every module updates.

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units, in modules of equal size.
        periods: P, one number of steps per module; G modules of H / G units, in this order.
        activation: f, "tanh" (the paper's), "relu" or "sigmoid".
        bias: with b or without.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation; entries without a connection then become zero.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
        clock: (B,) int64 t, the steps taken since the start.
    Raises:
        ValueError: a size or a period below 1, modules that do not fill the units, an unknown activation or
            initialisation.
        TypeError: periods that are no tuple of whole numbers.
    Source:
        Koutnik, Greff, Gomez & Schmidhuber 2014, "A clockwork RNN", ICML, arXiv:1402.3511 (equations from memory
        and as in other open implementations).
    Differs:
        All modules are computed at every step and thrown away where the clock says so: no branch on data, no time
        saved. U is kept whole; entries without a connection have no effect and no gradient.
    Cost:
        2 H (D + H) flops and H + 1 state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(ClockworkCell(3, 8))(torch.randn(7, 2, 3))
        >>> state.clock
        tensor([7, 7])
        >>> bool((ys[6, :, 6:] == ys[0, :, 6:]).all()), bool((ys[6, :, :2] == ys[5, :, :2]).all())
        (True, False)
    """

    source = "Koutnik et al. 2014, ICML, arXiv:1402.3511"
    period_of_unit: Tensor
    recurrent_mask: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        periods: tuple[int, ...] = (1, 2, 4, 8),
        activation: str = "tanh",
        bias: bool = True,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        check_choice(where, "activation", activation, tuple(UNITS))
        if not isinstance(periods, tuple) or any(not isinstance(p, int) or isinstance(p, bool) for p in periods):
            raise TypeError(sentence(where, "periods", "a tuple of whole numbers", repr(periods)))
        if not periods or min(periods) < 1:
            raise ValueError(sentence(where, "periods", "one or more numbers of at least 1", periods))
        if hidden_size % len(periods):
            want = f"a multiple of {len(periods)}, the number of periods"
            raise ValueError(sentence(where, "hidden_size", want, hidden_size))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.periods, self.activation = periods, activation
        period = torch.tensor(periods, device=device).repeat_interleave(hidden_size // len(periods))
        self.register_buffer("period_of_unit", period, persistent=False)
        self.register_buffer("recurrent_mask", period[None, :] >= period[:, None], persistent=False)
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(hidden_size, hidden_size, recurrent_init, where=where, **kind)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None
        with torch.no_grad():
            self.weight_hh.mul_(self.recurrent_mask)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Ascending periods, periods in any order with a learned start, other activations and initialisations."""
        yield cls(3, 8)
        yield cls(2, 6, periods=(3, 1, 3), activation="sigmoid").learn_initial_state()
        yield cls(3, 4, periods=(1, 5), activation="relu", bias=False, recurrent_init="orthogonal")

    def initial_state(self, batch_size: int) -> ClockworkState:
        """h = 0, t = 0."""
        return ClockworkState(
            self.initial("h", batch_size, self.hidden_size), self.initial("clock", batch_size, dtype=torch.int64)
        )

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return F.linear(x, self.weight_ih, self.bias)

    def advance(self, projected: Tensor, state: ClockworkState) -> tuple[Tensor, ClockworkState]:
        """New values for the modules whose time it is."""
        new = UNITS[self.activation](projected + F.linear(state.h, self.weight_hh * self.recurrent_mask))
        due = state.clock.unsqueeze(-1) % self.period_of_unit == 0
        h = torch.where(due, new, state.h)
        return h, ClockworkState(h, state.clock + 1)
