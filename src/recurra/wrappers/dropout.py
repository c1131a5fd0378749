"""Dropout before and after a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self, TypeVar

from torch import Tensor

from ..cells.dropout import DropoutCell
from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, Run
from ..core.checks import sentence
from ..core.spec import Leaf
from .wrapper import Around, output_size

S = TypeVar("S")


class Dropout(Around[S]):
    """Drops features before and after a cell while training.

        y = m_out * cell(m_in * x)

    Args:
        cell: a cell with input (B, D) and output (B, O).
        output_p: probability of a zero in the output.
        input_p: probability of a zero in the input.
        variational: one mask for all steps of a sequence, as Gal & Ghahramani (2016) ask; else a new one every step.
    State:
        The inner cell's; it is never dropped (see `Zoneout` and `WeightDrop`).
    Raises:
        ValueError: a probability outside [0, 1).
    Source:
        Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329; Gal & Ghahramani 2016, arXiv:1512.05287 (from memory)
    Cost:
        The inner cell's and D + O flops.
    Example:
        >>> import torch
        >>> Dropout(LSTMCell(3, 5), 0.5)(torch.zeros(4, 3))[0].shape
        torch.Size([4, 5])
    """

    source = "Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329; Gal & Ghahramani 2016, arXiv:1512.05287"

    def __init__(self, cell: Cell, output_p: float = 0.5, *, input_p: float = 0.0, variational: bool = False) -> None:
        super().__init__(cell)
        where = type(self).__name__
        self.output_p, self.input_p, self.variational = output_p, input_p, variational
        self.after = DropoutCell(output_size(where, cell), output_p, variational=variational)
        spec = cell.input_spec
        if not isinstance(spec, Leaf) or len(spec.shape) != 1:
            if input_p:
                raise ValueError(sentence(where, "input_p", "0 for a cell whose input is not (B, D)", input_p))
            self.before = None
        else:
            self.before = DropoutCell(int(spec.shape[0]), input_p, variational=variational)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Output only, and both, variational."""
        yield cls(LSTMCell(3, 4), 0.5)
        yield cls(ElmanCell(2, 3), 0.2, input_p=0.3, variational=True)

    @property
    def parts(self) -> Sequence[Cell]:
        """The cell and what stands around it."""
        return (self.cell, self.after) if self.before is None else (self.cell, self.after, self.before)

    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Tensor, S]:
        """``m_out * cell(m_in * x)``."""
        noise = x.noise if x.noise is not None else (None, None, None)
        if self.before is not None:
            x = x._replace(x=run(self.before, Noisy(x.x, noise[2]), ())[0])
        y, state = self.run_inner(run, x, state)
        return run(self.after, Noisy(y, noise[1]), ())[0], state
