"""The gated recurrent unit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import HoistedCell, VendorCell, VendorWeights
from ..core.checks import check_positive
from ..init import matrix, vector


class GRUState(NamedTuple):
    """h: (B, H) last output."""

    h: Tensor


class GRUCell(HoistedCell[Tensor, Tensor, GRUState], VendorCell[Tensor, Tensor, GRUState]):
    """Gated recurrent unit: a reset gate before the candidate, an update gate between old and new.

        r = sigma(W_r x + U_r h + b_r)                      reset gate
        z = sigma(W_z x + U_z h + b_z)                      update gate
        n = tanh(W_n x + b_n + r * (U_n h + b_hn))          candidate, reset after the product (torch)
        n = tanh(W_n x + b_n + U_n (r * h))                 candidate, reset before the product (the paper)
        h' = (1 - z) * n + z * h                            output, y = h'

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        reset_after: True resets after the product U_n h, as ``torch.nn.GRU``; False before it, as Cho et al.
        bias: with biases or without. Reset after: ``bias_ih`` and ``bias_hh`` as in torch; reset before: one ``bias``.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1 or an unknown initialisation.
    Source:
        Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", EMNLP, arXiv:1406.1078 (reset
        before; equations from memory); reset after: ``torch.nn.GRU``, whose documentation has the equations.
    Differs:
        torch's two biases of r and of z add up: 2 H numbers could be spared.
    Cost:
        6 H (D + H) flops and H state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(GRUCell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Cho et al. 2014, arXiv:1406.1078; torch.nn.GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        reset_after: bool = True,
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
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.reset_after = reset_after
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        rows, bound = 3 * hidden_size, 1 / math.sqrt(hidden_size)
        self.weight_ih = matrix(rows, input_size, input_init, num_gates=3, where=where, **kind)
        self.weight_hh = matrix(rows, hidden_size, recurrent_init, num_gates=3, where=where, **kind)
        self.bias = vector(rows, bound, **kind) if bias and not reset_after else None
        self.bias_ih = vector(rows, bound, **kind) if bias and reset_after else None
        self.bias_hh = vector(rows, bound, **kind) if bias and reset_after else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both places of the reset gate, with and without biases, a learned start."""
        yield cls(3, 5)
        yield cls(2, 4, reset_after=False)
        yield cls(3, 3, bias=False, recurrent_init="orthogonal").learn_initial_state()
        yield cls(2, 3, reset_after=False, bias=False, input_init="xavier_uniform")

    def initial_state(self, batch_size: int) -> GRUState:
        """h = 0."""
        return GRUState(self.initial("h", batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of reset gate, update gate and candidate."""
        return F.linear(x, self.weight_ih, self.bias_ih if self.reset_after else self.bias)

    def advance(self, projected: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """Gates, candidate, output."""
        h, gates = state.h, 2 * self.hidden_size
        if self.reset_after:
            recurrent = F.linear(h, self.weight_hh, self.bias_hh)
            r, z = torch.sigmoid(projected[..., :gates] + recurrent[..., :gates]).chunk(2, -1)
            n = torch.tanh(projected[..., gates:] + r * recurrent[..., gates:])
        else:
            r, z = torch.sigmoid(projected[..., :gates] + F.linear(h, self.weight_hh[:gates])).chunk(2, -1)
            n = torch.tanh(projected[..., gates:] + F.linear(r * h, self.weight_hh[gates:]))
        h = (1 - z) * n + z * h
        return h, GRUState(h)

    def vendor(self) -> VendorWeights | None:
        """``torch.nn.GRU``, if the reset gate comes after the product."""
        if not self.reset_after:
            return None
        return VendorWeights("gru", self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def to_vendor(self, state: GRUState) -> tuple[Tensor, ...]:
        """(h,)."""
        return (state.h,)

    def from_vendor(self, hidden: tuple[Tensor, ...]) -> GRUState:
        """h."""
        return GRUState(hidden[0])
