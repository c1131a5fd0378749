"""Dropped weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

import torch
from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, Run
from ..core.checks import check_probability, sentence
from ..core.draws import survival
from ..core.tree import Tree
from .wrapper import Around

S = TypeVar("S")


class WeightDrop(Around[S]):
    """Drops recurrent weights, once for a whole sequence and for all rows (DropConnect).

        U <- m * U,  m = 0 with probability p, else 1 / (1 - p)

    The cell inside never knows, so every engine runs at its full speed, cuDNN and oneDNN included.

    Args:
        cell: any cell.
        p: probability of a zero.
        names: last part of the names of the parameters to drop.
    State:
        The inner cell's.
    Raises:
        ValueError: p outside [0, 1), or no parameter with such a name.
    Source:
        Merity, Keskar & Socher 2018, arXiv:1708.02182, section 2; Wan et al. 2013, ICML (from memory)
    Cost:
        The inner cell's; one mask per weight and sequence.
    Example:
        >>> from recurra.layers import Recurrent
        >>> Recurrent(WeightDrop(LSTMCell(3, 5), 0.5))(torch.zeros(7, 2, 3))[0].shape
        torch.Size([7, 2, 5])
    """

    source = "Merity, Keskar & Socher 2018, arXiv:1708.02182"

    def __init__(self, cell: Cell, p: float = 0.5, *, names: tuple[str, ...] = ("weight_hh",)) -> None:
        super().__init__(cell)
        check_probability(type(self).__name__, p=p)
        self.p, self.names = p, tuple(names)
        if not self._targets():
            have = ", ".join(name for name, _ in cell.named_parameters()) or "no parameters"
            raise ValueError(sentence(type(self).__name__, "names", f"out of {have}", self.names))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Around one cell."""
        yield cls(LSTMCell(3, 4), 0.5)
        yield cls(ElmanCell(2, 3), 0.3, names=("weight_hh", "weight_ih"))

    def _targets(self) -> list[str]:
        return [name for name, _ in self.named_parameters() if name.rpartition(".")[2] in self.names]

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The dropped parameters of this sequence."""
        values = super().draw_weights(generator)
        parameters = dict(self.named_parameters())
        if self.p:
            for name in self._targets():
                value = values.get(name, parameters[name])
                mask = survival(tuple(value.shape), self.p, generator, value.device, value.dtype)
                values[name] = value * mask
        return values

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tree, S]:
        """The inner cell, whatever its weights are."""
        return self.run_inner(run, x, state)
