"""Tokens as vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import PointwiseCell
from ..core.checks import check_positive
from ..core.spec import Leaf


class EmbeddingCell(PointwiseCell[Tensor, Tensor]):
    """A vector for each token: the first layer of a model of symbols.

        y = W[x]

    Args:
        num_tokens: V, x lies in 0 .. V-1.
        output_size: O, size of the vectors.
        std: standard deviation of the initial vectors.
        generator: source of the initial weights.
    State:
        None.
    Raises:
        ValueError: a size below 1; at the edge, a token out of range.
    Source:
        Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137-1155 (the shared matrix C; from memory)
    Cost:
        A copy of O values per step and sample.
    Example:
        >>> y, _ = EmbeddingCell(65, 8)(torch.tensor([0, 64]))
        >>> y.shape
        torch.Size([2, 8])
    """

    source = "Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137-1155"

    def __init__(
        self,
        num_tokens: int,
        output_size: int,
        *,
        std: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(type(self).__name__, num_tokens=num_tokens, output_size=output_size)
        self.num_tokens, self.output_size = num_tokens, output_size
        weight = torch.empty(num_tokens, output_size, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight.normal_(0.0, std, generator=generator))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Four tokens."""
        yield cls(4, 3)

    @property
    def input_spec(self) -> Leaf:
        """A token (B,) int64."""
        return Leaf((), torch.int64, 0, self.num_tokens)

    def pointwise(self, x: Tensor) -> Tensor:
        """``W[x]``."""
        return F.embedding(x, self.weight)
