"""Gated recurrent units with fewer parameters in their gates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import HoistedCell
from ..core.checks import check_positive
from ..init import matrix, vector


class SlimGRUState(NamedTuple):
    """h: (B, H) last output."""

    h: Tensor


class _SlimGRU(HoistedCell[Tensor, Tensor, SlimGRUState]):
    """What the three units share; they differ in what the gates see. Rows of parameters: r, z (if any), candidate."""

    gates_see_state: ClassVar[bool] = False
    gates_have_bias: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        blocks = 1 + 2 * self.gates_see_state
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        kind_hh = {"num_gates": blocks, **kind}
        self.weight_hh = matrix(blocks * hidden_size, hidden_size, recurrent_init, where=where, **kind_hh)
        self.bias = vector((1 + 2 * self.gates_have_bias) * hidden_size, 1 / math.sqrt(hidden_size), **kind)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Plain; other initialisations and a learned start."""
        yield cls(3, 5)
        yield cls(2, 4, input_init="xavier_uniform", recurrent_init="orthogonal").learn_initial_state()

    def initial_state(self, batch_size: int) -> SlimGRUState:
        """h = 0."""
        return SlimGRUState(self.initial("h", batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """``W_n x + b_n``: the gates do not see the input."""
        return F.linear(x, self.weight_ih, self.bias[-self.hidden_size :])

    def advance(self, projected: Tensor, state: SlimGRUState) -> tuple[Tensor, SlimGRUState]:
        """Gates, candidate, output."""
        h, size = state.h, self.hidden_size
        bias = self.bias[: 2 * size] if self.gates_have_bias else None
        if self.gates_see_state:
            r, z = torch.sigmoid(F.linear(h, self.weight_hh[: 2 * size], bias)).chunk(2, -1)
        else:
            assert bias is not None
            r, z = torch.sigmoid(bias).chunk(2, -1)
        n = torch.tanh(projected + F.linear(r * h, self.weight_hh[-size:]))
        h = (1 - z) * h + z * n
        return h, SlimGRUState(h)


class GRU1Cell(_SlimGRU):
    """GRU variant 1: the gates see the last output and biases, not the input.

        r = sigma(U_r h + b_r)                  reset gate
        z = sigma(U_z h + b_z)                  update gate
        n = tanh(W_n x + U_n (r * h) + b_n)     candidate
        h' = (1 - z) * h + z * n                output, y = h'

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1 or an unknown initialisation.
    Source:
        Dey & Salem 2017, "Gate-variants of gated recurrent unit (GRU) neural networks", MWSCAS, arXiv:1701.05923
        (equations from memory).
    Differs:
        Here z chooses the candidate, as in the paper; in `GRUCell` and torch it keeps the old value. The reset comes
        before the product with U_n.
    Cost:
        2 H D + 6 H^2 flops and H state values per step and sample; 2 H D parameters fewer than the full GRU,
        ``GRUCell(reset_after=False)``.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(GRU1Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Dey & Salem 2017, arXiv:1701.05923"
    gates_see_state, gates_have_bias = True, True


class GRU2Cell(_SlimGRU):
    """GRU variant 2: the gates see the last output alone.

        r = sigma(U_r h)                        reset gate
        z = sigma(U_z h)                        update gate
        n = tanh(W_n x + U_n (r * h) + b_n)     candidate
        h' = (1 - z) * h + z * n                output, y = h'

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1 or an unknown initialisation.
    Source:
        Dey & Salem 2017, "Gate-variants of gated recurrent unit (GRU) neural networks", MWSCAS, arXiv:1701.05923
        (equations from memory).
    Differs:
        As `GRU1Cell`.
    Cost:
        2 H D + 6 H^2 flops and H state values per step and sample; 2 (H D + H) parameters fewer than the full GRU,
        ``GRUCell(reset_after=False)``.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(GRU2Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Dey & Salem 2017, arXiv:1701.05923"
    gates_see_state = True


class GRU3Cell(_SlimGRU):
    """GRU variant 3: the gates are constants that are learned, two per unit.

        r = sigma(b_r)                          reset gate
        z = sigma(b_z)                          update gate
        n = tanh(W_n x + U_n (r * h) + b_n)     candidate
        h' = (1 - z) * h + z * n                output, y = h'

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1 or an unknown initialisation.
    Source:
        Dey & Salem 2017, "Gate-variants of gated recurrent unit (GRU) neural networks", MWSCAS, arXiv:1701.05923
        (equations from memory).
    Differs:
        As `GRU1Cell`.
    Cost:
        2 H (D + H) flops and H state values per step and sample; 2 (H D + H^2) parameters fewer than the full GRU,
        ``GRUCell(reset_after=False)``.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(GRU3Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Dey & Salem 2017, arXiv:1701.05923"
    gates_have_bias = True
