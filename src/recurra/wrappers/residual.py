"""A shortcut around a cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, Run
from ..core.checks import sentence
from .wrapper import Around

S = TypeVar("S")


class Residual(Around[S]):
    """Adds a cell's input to its output.

        y = x + cell(x)

    Args:
        cell: a cell with O = D.
    State:
        The inner cell's.
    Raises:
        ValueError: input and output differ in size.
    Source:
        He et al. 2016, arXiv:1512.03385; for stacks of LSTM: Wu et al. 2016, arXiv:1609.08144, section 3.1 (from memory)
    Cost:
        The inner cell's and D flops.
    Example:
        >>> import torch
        >>> y, _ = Residual(ElmanCell(3, 3))(torch.ones(2, 3))
        >>> y.shape
        torch.Size([2, 3])
    """

    source = "He et al. 2016, arXiv:1512.03385; Wu et al. 2016, arXiv:1609.08144"

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        if cell.input_spec != cell.output_spec:
            got = f"{cell.input_spec} and {cell.output_spec}"
            hint = "Put a Readout or an AffineCell around it first."
            raise ValueError(sentence(type(self).__name__, "the cell's input and output", "of one shape", got, hint))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Around one cell."""
        yield cls(ElmanCell(3, 3))
        yield cls(LSTMCell(4, 4))

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tensor, S]:
        """``x + cell(x)``."""
        y, state = self.run_inner(run, x, state)
        return x.x + y, state
