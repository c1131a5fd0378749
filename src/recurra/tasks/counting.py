"""Languages that can be recognised by counting: a^n b^n, a^n b^n c^n, a^n b^m B^m A^n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import sentence


class Strings(NamedTuple):
    """Strings side by side.

    Args:
        tokens: (T, B) int64, 0 the start mark, then 1, 2, ... for the symbols; behind a string's end 0.
        legal: (T, B, V + 1) bool, which symbols may follow; the last place is the end.
        lengths: (B,) steps of each string, the start mark included, the end not.
    """

    tokens: Tensor
    legal: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class CountingLanguage:
    """Strings of blocks, each block one symbol repeated; blocks with the same number are of the same length.

    Where a number comes up for the first time, the block's length is free: from its first symbol on, the same symbol or the
    next block may follow. Where it comes up again, the length is known, so exactly one symbol (or the end) may follow.
    A reader that counts knows at every step what may follow, and makes no mistake.

    Args:
        symbols: one letter for each block.
        numbers: for each block, which number says its length.

    Raises:
        ValueError: not one number for each symbol, or the first block does not have number 0.

    Source:
        Gers & Schmidhuber 2001, IEEE Trans. Neural Networks 12(6):1333-1340, doi:10.1109/72.963769

    Example:
        >>> ANBN.write((3,))
        'aaabbb'
        >>> strings = ANBN.strings([(2,), (1,)])
        >>> strings.tokens.T.tolist(), strings.lengths.tolist()
        ([[0, 1, 1, 2, 2], [0, 1, 2, 0, 0]], [5, 3])
        >>> strings.legal[:, 0].long().tolist()  # a; a or b; a or b; b; end
        [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    """

    symbols: str
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        where = type(self).__name__
        if len(self.symbols) != len(self.numbers) or not self.symbols:
            raise ValueError(sentence(where, "numbers", f"one for each of {self.symbols!r}", self.numbers))
        seen = [n for i, n in enumerate(self.numbers) if n not in self.numbers[:i]]
        if seen != list(range(len(seen))):
            raise ValueError(sentence(where, "numbers", "0, 1, ... in the order of their first places", self.numbers))

    @property
    def num_symbols(self) -> int:
        """V, start and end not counted."""
        return len(self.symbols)

    @property
    def num_free(self) -> int:
        """How many numbers say what a string is."""
        return max(self.numbers) + 1

    def write(self, values: Sequence[int]) -> str:
        """The string with these numbers."""
        return "".join(letter * values[n] for letter, n in zip(self.symbols, self.numbers))

    def strings(self, each: Sequence[Sequence[int]]) -> Strings:
        """Strings with these numbers, all at least 1."""
        where = type(self).__name__
        for values in each:
            if len(values) != self.num_free or min(values) < 1:
                raise ValueError(sentence(where, "values", f"{self.num_free} numbers of at least 1", tuple(values)))
        table = torch.tensor([[values[n] for n in self.numbers] for values in each])  # (B, V) lengths of the blocks
        ends = table.cumsum(1)  # (B, V) place of each block's last symbol, the start mark being at 0
        total = ends[:, -1]
        places = torch.arange(int(total.max()) + 1)
        block = (places[:, None, None] > ends).sum(-1)  # (T, B)
        alive = places[:, None] <= total
        tokens = torch.where(alive & (places[:, None] > 0), block + 1, 0)
        following = (places[:, None, None] >= ends).sum(-1)  # the block of what comes next; V at the end
        legal = torch.nn.functional.one_hot(following, self.num_symbols + 1).bool()
        for i, n in enumerate(self.numbers):
            if n not in self.numbers[:i]:  # within a free block: itself or the next
                inside = (block == i) & (places[:, None] > 0)
                legal[..., i] |= inside
                legal[..., i + 1] |= inside
        return Strings(tokens, legal & alive[..., None], total + 1)

    def inputs(self, strings: Strings) -> Tensor:
        """(T, B, V + 1) one-hot, the start mark first."""
        return torch.nn.functional.one_hot(strings.tokens, self.num_symbols + 1).to(torch.get_default_dtype())


ANBN = CountingLanguage("ab", (0, 0))
ANBNCN = CountingLanguage("abc", (0, 0, 0))
ANBMBMAN = CountingLanguage("abBA", (0, 1, 1, 0))
