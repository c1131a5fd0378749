"""Cells with the parameters that ``torch.nn`` has: two biases that add up, and torch's names for everything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import ElmanCell, LSTMCell
from ..core.cell import VendorWeights
from ..init import vector


class TwoBiasLSTMCell(LSTMCell):
    """`LSTMCell` with the two biases of ``torch.nn.LSTM``.

        gates = W x + (b_ih + b_hh) + U h

    Args:
        input_size: D, features per step.
        hidden_size: H, memory cells.
        bias: with both biases or without.
        projection_size: O, size of h; None for H.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        projection_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, bias=False, projection_size=projection_size, **kind)
        bound = 1 / math.sqrt(hidden_size)
        self.bias_ih = vector(4 * hidden_size, bound, **kind) if bias else None
        self.bias_hh = vector(4 * hidden_size, bound, **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """With and without biases, with a projection."""
        yield cls(3, 5)
        yield cls(2, 4, bias=False, projection_size=3)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b_ih + b_hh`` of all gates."""
        return F.linear(x, self.weight_ih, _sum(self.bias_ih, self.bias_hh))

    def vendor(self) -> VendorWeights:
        """``torch.nn.LSTM``."""
        return VendorWeights("lstm", self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr)


class TwoBiasElmanCell(ElmanCell):
    """`ElmanCell` with the two biases of ``torch.nn.RNN``.

        h' = f(W x + (b_ih + b_hh) + U h)

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        activation: "tanh" or "relu".
        bias: with both biases or without.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "tanh",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(input_size, hidden_size, activation=activation, bias=False, **kind)
        bound = 1 / math.sqrt(hidden_size)
        self.bias_ih = vector(hidden_size, bound, **kind) if bias else None
        self.bias_hh = vector(hidden_size, bound, **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both activations, with and without biases."""
        yield cls(3, 5)
        yield cls(2, 4, activation="relu", bias=False)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b_ih + b_hh``."""
        return F.linear(x, self.weight_ih, _sum(self.bias_ih, self.bias_hh))

    def vendor(self) -> VendorWeights:
        """``torch.nn.RNN``."""
        return VendorWeights(f"rnn_{self.activation}", self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


def _sum(one: nn.Parameter | None, two: nn.Parameter | None) -> Tensor | None:
    return None if one is None or two is None else one + two
