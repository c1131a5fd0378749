"""A linear output on top of a cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, ReadoutCell, Run, quiet, run_step
from ..core.checks import check_positive
from ..core.spec import Leaf
from .wrapper import Around, output_size

S = TypeVar("S")


class Readout(Around[S], ReadoutCell[Noisy, Tensor, S]):
    """A linear output on a cell.

        y = V cell(x) + c

    Args:
        cell: a cell with output (B, F).
        num_outputs: O.
        bias: with c or without.
        generator: source of the initial weights, U(-1/sqrt(F), 1/sqrt(F)).
    State:
        The inner cell's.
    Raises:
        ValueError: a size below 1.
        TypeError: the cell's output is not one tensor (B, F).
    Source:
        ``torch.nn.Linear``
    Cost:
        The inner cell's and 2 F O flops.
    Example:
        >>> Readout(LSTMCell(3, 5), 2)(torch.zeros(4, 3))[0].shape
        torch.Size([4, 2])
    """

    source = "torch.nn.Linear"

    def __init__(
        self, cell: Cell, num_outputs: int, *, bias: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(cell)
        where = type(self).__name__
        check_positive(where, num_outputs=num_outputs)
        features = output_size(where, cell)
        self.output_size = num_outputs
        self.linear = nn.Linear(features, num_outputs, bias=bias, device=cell.device, dtype=cell.dtype)
        if generator is not None:
            with torch.no_grad():
                for parameter in self.linear.parameters():
                    parameter.uniform_(-(features**-0.5), features**-0.5, generator=generator)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """With and without bias."""
        yield cls(LSTMCell(3, 4), 2)
        yield cls(ElmanCell(2, 3), 3, bias=False)

    @property
    def output_spec(self) -> Leaf:
        """(B, O)."""
        return Leaf((self.output_size,))

    @property
    def readout(self) -> nn.Linear:
        """The linear output."""
        return self.linear

    def features(self, x: Noisy, state: S) -> tuple[Tensor, S]:
        """The inner cell's step."""
        return self.run_inner(run_step, quiet(x), state)

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tensor, S]:
        """``V cell(x) + c``."""
        phi, state = self.run_inner(run, x, state)
        return self.linear(phi), state
