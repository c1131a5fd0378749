"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import HoistedCell, VendorCell, VendorWeights
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class ElmanState(NamedTuple):
    """h: (B, H) last output."""

    h: Tensor


class ElmanCell(HoistedCell[Tensor, Tensor, ElmanState], VendorCell[Tensor, Tensor, ElmanState]):
    """Simple recurrent network: the hidden layer sees its own last value.

        h' = f(W x + U h + b)        output, y = h'

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        activation: f, "tanh", "relu" or "sigmoid" (Elman's own).
        bias: with b or without.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation; "identity" with "relu" is the IRNN of Le et al. 2015.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1 or an unknown activation or initialisation.
    Source:
        Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1
    Differs:
        Elman's context units start at 0.5 and his units are logistic; here the state starts at 0 and tanh is the default, as
        in ``torch.nn.RNN``, to which "tanh" and "relu" are equal (torch has two biases, which add up).
    Cost:
        2 H (D + H) flops and H state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(ElmanCell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
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
        check_choice(where, "activation", activation, tuple(_ACTIVATIONS))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.activation = activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(hidden_size, hidden_size, recurrent_init, where=where, **kind)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Tanh, ReLU without bias, logistic with a learned start."""
        yield cls(3, 5)
        yield cls(2, 4, activation="relu", bias=False)
        yield cls(3, 3, activation="sigmoid").learn_initial_state()

    def initial_state(self, batch_size: int) -> ElmanState:
        """h = 0."""
        return ElmanState(self.initial("h", batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return F.linear(x, self.weight_ih, self.bias)

    def advance(self, projected: Tensor, state: ElmanState) -> tuple[Tensor, ElmanState]:
        """``h' = f(projected + U h)``."""
        h = _ACTIVATIONS[self.activation](projected + F.linear(state.h, self.weight_hh))
        return h, ElmanState(h)

    def vendor(self) -> VendorWeights | None:
        """``torch.nn.RNN`` for tanh and ReLU."""
        if self.activation == "sigmoid":
            return None
        bias_hh = None if self.bias is None else torch.zeros_like(self.bias)
        return VendorWeights(f"rnn_{self.activation}", self.weight_ih, self.weight_hh, self.bias, bias_hh)

    def to_vendor(self, state: ElmanState) -> tuple[Tensor, ...]:
        """(h,)."""
        return (state.h,)

    def from_vendor(self, hidden: tuple[Tensor, ...]) -> ElmanState:
        """h."""
        return ElmanState(hidden[0])
