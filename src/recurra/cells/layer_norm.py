"""Layer normalisation as a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import PointwiseCell
from ..core.checks import check_positive


class LayerNormCell(PointwiseCell[Tensor, Tensor]):
    """Normalises the features of each step and row.

        y = g * (x - mean(x)) / sqrt(var(x) + eps) + b

    Args:
        size: D, features per step.
        eps: added to the variance.
    State:
        None.
    Raises:
        ValueError: a size below 1.
    Source:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450; ``torch.nn.LayerNorm``
    Cost:
        About 8 D flops per step and sample.
    Example:
        >>> LayerNormCell(2)(torch.tensor([[1.0, 3.0]]))[0].round()
        tensor([[-1.,  1.]], grad_fn=<RoundBackward0>)
    """

    source = "Ba, Kiros & Hinton 2016, arXiv:1607.06450"

    def __init__(
        self,
        size: int,
        *,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(type(self).__name__, size=size)
        self.size = self.input_size = self.output_size = size
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Four features."""
        yield cls(4)

    def pointwise(self, x: Tensor) -> Tensor:
        """The normalised features."""
        return F.layer_norm(x, (self.size,), self.weight, self.bias, self.eps)
