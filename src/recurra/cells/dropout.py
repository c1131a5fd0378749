"""Dropout as a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from ..core.cell import Noisy, PointwiseCell, StochasticCell, quiet
from ..core.checks import check_positive, check_probability
from ..core.draws import survival


class DropoutCell(PointwiseCell[Noisy, Tensor], StochasticCell[Tensor, tuple[()]]):
    """Sets features to zero while training and scales the others up; the identity in evaluation.

        y = m * x,  m = 0 with probability p, else 1 / (1 - p)

    Args:
        size: D, features per step.
        p: probability of a zero.
        variational: draw m once for a whole sequence instead of at every step.
    State:
        None.
    Raises:
        ValueError: p outside [0, 1).
    Source:
        Srivastava et al. 2014, JMLR 15:1929-1958; variational: Gal & Ghahramani 2016, arXiv:1512.05287 (from memory)
    Cost:
        D flops per step and sample; the mask is (T, B, D), or (B, D) if variational.
    Example:
        >>> DropoutCell(3, 0.5)(torch.ones(2, 3))[0]  # quiet unless noise is passed
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    source = "Srivastava et al. 2014, JMLR 15:1929-1958; Gal & Ghahramani 2016, arXiv:1512.05287"

    def __init__(self, size: int, p: float, *, variational: bool = False) -> None:
        super().__init__()
        check_positive(type(self).__name__, size=size)
        check_probability(type(self).__name__, p=p)
        self.size = self.input_size = self.output_size = size
        self.p, self.variational = p, variational

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both kinds."""
        yield cls(3, 0.4)
        yield cls(3, 0.4, variational=True)

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tensor | None:
        """m (T, B, D)."""
        if self.p == 0:
            return None
        drawn = 1 if self.variational else num_steps
        mask = survival((drawn, batch_size, self.size), self.p, generator, self.device, torch.get_default_dtype())
        return mask.expand(num_steps, -1, -1)

    def pointwise(self, x: Noisy) -> Tensor:
        """``m * x``."""
        x = quiet(x)
        return x.x if x.noise is None else x.x * x.noise.to(x.x.dtype)
