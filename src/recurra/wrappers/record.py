"""Every state of every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self, TypeVar

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.tree import Tree
from .wrapper import Wrapper

S = TypeVar("S")


class Recorded(NamedTuple):
    """y: the cell's output; state: the cell's state after the step."""

    y: Tree
    state: Tree


class Record(Wrapper[S]):
    """Puts the whole state into the output, so that a sequence returns the state at every step.

        (y, s'), s' = cell(x, s)

    Args:
        cell: any cell.
    State:
        The inner cell's.
    Raises:
        TypeError: not a cell.
    Source:
        None; it computes nothing.
    Cost:
        The inner cell's; memory for T states.
    Example:
        >>> import torch
        >>> from recurra.layers import Recurrent
        >>> seen, _ = Recurrent(Record(LSTMCell(3, 5)))(torch.zeros(7, 2, 3))
        >>> seen.state.c.shape
        torch.Size([7, 2, 5])
    """

    source = "none: it records"

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Around one cell."""
        yield cls(ElmanCell(3, 4))
        yield cls(LSTMCell(2, 3))

    @property
    def output_spec(self) -> Recorded:
        """The inner output and state."""
        return Recorded(self.cell.output_spec, self.cell.state_spec)

    def after(self, y: Tree, new: S, old: S, noise: Tree) -> tuple[Recorded, S]:
        """Output and state."""
        return Recorded(y, new), new
