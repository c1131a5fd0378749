"""Long streams cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.controls import Controls
from ..core.rule import Chunk
from .token_file import TokenFile


@dataclass(frozen=True)
class TokenStream:
    """One long text as B parallel streams for next-token prediction, cut into chunks of T steps.

    Row b reads the b-th part of the text from its beginning to its end; at the beginning (and so at every new epoch) the
    state is reset, everywhere else it is carried by the rule (`TruncatedBPTT`).

    Args:
        tokens: (N,) int64, or a `TokenFile` for a text larger than memory.
        batch_size: B.
        num_steps: T; the last chunk of an epoch is shorter.
    Raises:
        ValueError: fewer than two tokens per row.
    Example:
        >>> stream = TokenStream(torch.arange(9), batch_size=2, num_steps=3)
        >>> [(c.xs[:, 0].tolist(), c.targets[:, 0].tolist()) for c in stream]
        [([0, 1, 2], [1, 2, 3]), ([3], [4])]
        >>> len(stream)
        2
    """

    tokens: Tensor | TokenFile
    batch_size: int
    num_steps: int
    carries = True

    def __post_init__(self) -> None:
        check_positive("TokenStream", batch_size=self.batch_size, num_steps=self.num_steps)
        if self.tokens.ndim != 1 or len(self.tokens) < 2 * self.batch_size:
            want = f"(N,) with at least {2 * self.batch_size} tokens for batch_size={self.batch_size}"
            raise ValueError(sentence("TokenStream", "tokens", want, tuple(self.tokens.shape)))

    @property
    def row_length(self) -> int:
        """Predictions per row and epoch."""
        return (len(self.tokens) - 1) // self.batch_size

    def __len__(self) -> int:
        """Chunks per epoch."""
        return -(-self.row_length // self.num_steps)

    def __iter__(self) -> Iterator[Chunk]:
        return self.epoch(0)

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The chunks from the beginning to the end; all epochs are alike."""
        length = self.row_length
        for a in range(0, length, self.num_steps):
            b = min(a + self.num_steps, length)
            rows = [self.tokens[r * length + a : r * length + b + 1] for r in range(self.batch_size)]
            both = torch.stack(rows, 1)  # (T + 1, B)
            reset = torch.zeros(b - a, self.batch_size, dtype=torch.bool, device=both.device)
            reset[0] = a == 0
            controls = Controls(reset=reset) if a == 0 else Controls()
            yield Chunk(both[:-1], both[1:], None, controls)
