"""A cell whose output carries its input along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

import torch
from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, Run
from ..core.spec import Leaf
from .wrapper import Around, output_size

S = TypeVar("S")


class Skip(Around[S]):
    """Puts a cell's input beside its output, so that a readout on top has shortcuts from the input units.

        y = (cell(x), x)

    Args:
        cell: a cell with input (B, D) and output (B, F).
    State:
        The inner cell's.
    Raises:
        TypeError: the cell's output is not one tensor (B, F).
    Source:
        the connections from input to output units of Gers, Schmidhuber & Cummins 2000, doi:10.1162/089976600300015015
        (from memory)
    Cost:
        The inner cell's.
    Example:
        >>> from recurra.wrappers import Readout
        >>> Skip(LSTMCell(3, 5))(torch.zeros(4, 3))[0].shape
        torch.Size([4, 8])
        >>> Readout(Skip(LSTMCell(3, 5)), 2).linear.weight.shape
        torch.Size([2, 8])
    """

    source = "Gers, Schmidhuber & Cummins 2000, doi:10.1162/089976600300015015"

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.output_size = output_size(type(self).__name__, cell) + cell.input_size

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Around one cell."""
        yield cls(ElmanCell(3, 4))
        yield cls(LSTMCell(2, 3, peephole=True))

    @property
    def output_spec(self) -> Leaf:
        """(B, F + D)."""
        return Leaf((self.output_size,))

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tensor, S]:
        """``(cell(x), x)``."""
        y, state = self.run_inner(run, x, state)
        return torch.cat([y, x.x], -1), state
