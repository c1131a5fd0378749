"""A linear layer without memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import PointwiseCell
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector

_ACTIVATIONS = {"identity": lambda v: v, "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class AffineCell(PointwiseCell[Tensor, Tensor]):
    """A feed-forward layer for use inside a stack.

        y = f(W x + b)

    Args:
        input_size: D.
        output_size: O.
        activation: f, "identity", "tanh", "relu" or "sigmoid".
        bias: with b or without.
        input_init: name of W's initialisation, see `recurra.init.names`; None is ``torch.nn.Linear``'s
            U(-1/sqrt(D), 1/sqrt(D)).
        generator: source of the initial weights.
    State:
        None.
    Raises:
        ValueError: a size below 1, an unknown activation or initialisation.
    Source:
        ``torch.nn.Linear``
    Cost:
        2 D O flops per step and sample.
    Example:
        >>> AffineCell(3, 2)(torch.zeros(4, 3))[0].shape
        torch.Size([4, 2])
    """

    source = "torch.nn.Linear"

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        activation: str = "identity",
        bias: bool = True,
        input_init: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, output_size=output_size)
        check_choice(where, "activation", activation, tuple(_ACTIVATIONS))
        self.input_size, self.output_size, self.activation = input_size, output_size, activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        bound = 1 / math.sqrt(input_size)
        self.weight = matrix(output_size, input_size, input_init or f"uniform:{bound}", where=where, **kind)
        self.bias = vector(output_size, bound, **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Linear, and tanh without bias."""
        yield cls(3, 2)
        yield cls(2, 3, activation="tanh", bias=False)

    def pointwise(self, x: Tensor) -> Tensor:
        """``f(W x + b)``."""
        return _ACTIVATIONS[self.activation](F.linear(x, self.weight, self.bias))
