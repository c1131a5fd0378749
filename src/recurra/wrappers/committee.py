"""Cells that answer together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, CompositeCell, Noisy, Run, with_noise
from ..core.checks import check_choice, sentence
from ..core.tree import Tree
from .wrapper import check_cell


class Committee(CompositeCell[Tensor, tuple[Tree, ...]]):
    """Cells that see the same input and give one answer, the average of theirs.

        y = 1/N sum_n y_n                       average = "mean"
        y = log(1/N sum_n softmax(y_n))         average = "probability": the y_n are logits, and so is y

    Nets that were trained apart, from different seeds, make different mistakes: their average is better than their mean,
    and with probabilities its cross-entropy is never above the mean of theirs (Jensen's inequality).

    Args:
        cells: the members; kinds and inner sizes are free, inputs and outputs are of one shape.
        average: of what.
    State:
        A tuple with each member's state.
    Raises:
        ValueError: no member, or inputs or outputs that differ in shape.
        TypeError: something that is no cell.
    Source:
        Hansen & Salamon 1990, IEEE Transactions on Pattern Analysis and Machine Intelligence 12(10):993-1001;
        Perrone & Cooper 1993 (both from memory)
    Cost:
        The sum of the members.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(Committee(LSTMCell(3, 5), ElmanCell(3, 5)))(torch.zeros(7, 2, 3))
        >>> ys.shape, state[0].c.shape, state[1].h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]), torch.Size([2, 5]))
    """

    source = "Hansen & Salamon 1990, IEEE Transactions on Pattern Analysis and Machine Intelligence 12(10):993-1001"

    def __init__(self, *cells: Cell, average: str = "mean") -> None:
        super().__init__()
        where = type(self).__name__
        if not cells:
            raise ValueError(sentence(where, "cells", "at least one", "none"))
        for cell in cells:
            check_cell(where, cell)
        check_choice(where, "average", average, ("mean", "probability"))
        for what in ("input_spec", "output_spec"):
            specs = [getattr(cell, what) for cell in cells]
            if any(spec != specs[0] for spec in specs):
                odd = next(i for i, spec in enumerate(specs) if spec != specs[0])
                want = f"that of member 0, {specs[0]}"
                raise ValueError(sentence(where, f"the {what.removesuffix('_spec')} of member {odd}", want, specs[odd]))
        self.members, self.average = nn.ModuleList(cells), average

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Different kinds; probabilities."""
        yield cls(LSTMCell(3, 4), ElmanCell(3, 4))
        yield cls(ElmanCell(2, 3), ElmanCell(2, 3), average="probability")

    @property
    def parts(self) -> Sequence[Cell]:
        """The members."""
        return tuple(self.members)  # type: ignore[arg-type]

    @property
    def input_spec(self) -> Tree:
        """Each member's."""
        return self.parts[0].input_spec

    @property
    def output_spec(self) -> Tree:
        """Each member's."""
        return self.parts[0].output_spec

    @property
    def state_spec(self) -> Tree:
        """One for each member."""
        return tuple(cell.state_spec for cell in self.parts)

    def initial_state(self, batch_size: int) -> tuple[Tree, ...]:
        """Each member's."""
        return tuple(cell.initial_state(batch_size) for cell in self.parts)

    def compose(self, run: Run, x: Noisy, state: tuple[Tree, ...]) -> tuple[Tensor, tuple[Tree, ...]]:
        """Every member, then the average."""
        noise = x.noise if x.noise is not None else (None,) * len(self.parts)
        answers = [run(c, with_noise(c, x.x, n), s) for c, n, s in zip(self.parts, noise, state)]
        ys = torch.stack([y for y, _ in answers], -1)  # (..., O, N)
        y = ys.mean(-1) if self.average == "mean" else ys.log_softmax(-2).logsumexp(-1) - math.log(len(answers))
        return y, tuple(new for _, new in answers)

    def extra_repr(self) -> str:
        """What is averaged."""
        return f"average={self.average!r}"
