"""The minimal gated unit and its variants with fewer parameters in the gate."""

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


class MGUState(NamedTuple):
    """h: (B, H) last output."""

    h: Tensor


class _MinimalGated(HoistedCell[Tensor, Tensor, MGUState]):
    """What the four units share; they differ in what the gate sees. Rows of parameters: gate (if any), candidate."""

    gate_sees_input: ClassVar[bool] = False
    gate_sees_state: ClassVar[bool] = False
    gate_has_bias: ClassVar[bool] = False

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
        blocks_ih, blocks_hh = 1 + self.gate_sees_input, 1 + self.gate_sees_state
        kind_ih, kind_hh = {"num_gates": blocks_ih, **kind}, {"num_gates": blocks_hh, **kind}
        self.weight_ih = matrix(blocks_ih * hidden_size, input_size, input_init, where=where, **kind_ih)
        self.weight_hh = matrix(blocks_hh * hidden_size, hidden_size, recurrent_init, where=where, **kind_hh)
        self.bias = vector((1 + self.gate_has_bias) * hidden_size, 1 / math.sqrt(hidden_size), **kind)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Plain; other initialisations and a learned start."""
        yield cls(3, 5)
        yield cls(2, 4, input_init="xavier_uniform", recurrent_init="orthogonal").learn_initial_state()

    def initial_state(self, batch_size: int) -> MGUState:
        """h = 0."""
        return MGUState(self.initial("h", batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of the candidate, and of the gate if it sees the input."""
        rows = self.weight_ih.shape[0]
        return F.linear(x, self.weight_ih, self.bias[-rows:])

    def advance(self, projected: Tensor, state: MGUState) -> tuple[Tensor, MGUState]:
        """Gate, candidate, output."""
        h, size = state.h, self.hidden_size
        terms: list[Tensor] = []
        if self.gate_sees_input:
            terms.append(projected[..., :size])
        elif self.gate_has_bias:
            terms.append(self.bias[:size])
        if self.gate_sees_state:
            terms.append(F.linear(h, self.weight_hh[:size]))
        f = torch.sigmoid(terms[0] if len(terms) == 1 else terms[0] + terms[1])
        n = torch.tanh(projected[..., -size:] + F.linear(f * h, self.weight_hh[-size:]))
        h = (1 - f) * h + f * n
        return h, MGUState(h)


class MGUCell(_MinimalGated):
    """Minimal gated unit: one gate does the work of the GRU's two.

        f = sigma(W_f x + U_f h + b_f)          gate
        n = tanh(W_n x + U_n (f * h) + b_n)     candidate
        h' = (1 - f) * h + f * n                output, y = h'

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
        Zhou, Wu, Zhang & Zhou 2016, "Minimal gated unit for recurrent neural networks", arXiv:1603.09420 (equations as
        in other open implementations and from memory).
    Cost:
        4 H (D + H) flops and H state values per step and sample; 2 (H^2 + H D + H) parameters.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(MGUCell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Zhou et al. 2016, arXiv:1603.09420"
    gate_sees_input, gate_sees_state, gate_has_bias = True, True, True


class MGU1Cell(_MinimalGated):
    """Minimal gated unit 1: the gate sees the last output and a bias, not the input.

        f = sigma(U_f h + b_f)                  gate
        n = tanh(W_n x + U_n (f * h) + b_n)     candidate
        h' = (1 - f) * h + f * n                output, y = h'

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
        Heck & Salem 2017, "Simplified minimal gated unit variations for recurrent neural networks", arXiv:1701.03452
        (equations from memory).
    Cost:
        2 H D + 4 H^2 flops and H state values per step and sample; H D parameters fewer than `MGUCell`.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(MGU1Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Heck & Salem 2017, arXiv:1701.03452"
    gate_sees_state, gate_has_bias = True, True


class MGU2Cell(_MinimalGated):
    """Minimal gated unit 2: the gate sees the last output alone.

        f = sigma(U_f h)                        gate
        n = tanh(W_n x + U_n (f * h) + b_n)     candidate
        h' = (1 - f) * h + f * n                output, y = h'

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
        Heck & Salem 2017, "Simplified minimal gated unit variations for recurrent neural networks", arXiv:1701.03452
        (equations from memory).
    Cost:
        2 H D + 4 H^2 flops and H state values per step and sample; H D + H parameters fewer than `MGUCell`.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(MGU2Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Heck & Salem 2017, arXiv:1701.03452"
    gate_sees_state = True


class MGU3Cell(_MinimalGated):
    """Minimal gated unit 3: the gate is a constant that is learned, one per unit.

        f = sigma(b_f)                          gate
        n = tanh(W_n x + U_n (f * h) + b_n)     candidate
        h' = (1 - f) * h + f * n                output, y = h'

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
        Heck & Salem 2017, "Simplified minimal gated unit variations for recurrent neural networks", arXiv:1701.03452
        (equations from memory).
    Cost:
        2 H (D + H) flops and H state values per step and sample; H D + H^2 parameters fewer than `MGUCell`.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(MGU3Cell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Heck & Salem 2017, arXiv:1701.03452"
    gate_has_bias = True
