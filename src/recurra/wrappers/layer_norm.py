"""Layer normalisation of a cell's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self, TypeVar

from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.layer_norm import LayerNormCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, Run
from .wrapper import Around, output_size

S = TypeVar("S")


class LayerNorm(Around[S]):
    """Normalises a cell's output; the state is left alone, so any cell will do.

        y = LN(cell(x))

    Normalisation *inside* the recurrence is an option of the cells that define it (``LSTMCell(layer_norm=True)``).

    Args:
        cell: a cell with output (B, O).
    State:
        The inner cell's.
    Raises:
        TypeError: the output is not one tensor (B, O).
    Source:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450
    Cost:
        The inner cell's and about 8 O flops.
    Example:
        >>> import torch
        >>> LayerNorm(LSTMCell(3, 5))(torch.zeros(4, 3))[0].shape
        torch.Size([4, 5])
    """

    source = "Ba, Kiros & Hinton 2016, arXiv:1607.06450"

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        size = output_size(type(self).__name__, cell)
        self.norm = LayerNormCell(size, device=cell.device, dtype=cell.dtype)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Around one cell."""
        yield cls(ElmanCell(3, 4))
        yield cls(LSTMCell(2, 3))

    @property
    def parts(self) -> Sequence[Cell]:
        """The cell and the normalisation."""
        return (self.cell, self.norm)

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tensor, S]:
        """``LN(cell(x))``."""
        y, state = self.run_inner(run, x, state)
        return run(self.norm, y, ())[0], state
