"""Any cell's output fed back to its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, FeedbackCell, Noisy, StochasticCell, drawn_weights, quiet, with_noise
from ..core.checks import check_choice, sentence
from ..core.spec import Leaf
from ..core.tree import Tree
from .readout import Readout
from .wrapper import check_cell, output_size


class FeedbackState(NamedTuple):
    """feedback: (B, O) what the next step sees of the last output; inner: the inner cell's state."""

    feedback: Tensor
    inner: Tree


class Feedback(StochasticCell[Tensor, FeedbackState], FeedbackCell[Noisy, Tensor, FeedbackState]):
    """Feeds a cell's last output back as part of its input: a decoder, an output-feedback network.

        y, s' = cell([x, f], s),   f' = k(y)

    Under teacher forcing f' is the true value instead (``forced`` of `Recurrent`).

    Args:
        cell: a cell with input (B, D + O) and output (B, O).
        kind: k, "identity" or "argmax" (the one-hot vector of the largest output; no gradient passes).
    State:
        feedback: (B, O) what the next step sees.
        inner: the inner cell's state.
    Raises:
        ValueError: the inner input is not larger than its output.
    Source:
        Jordan 1986, ICS Report 8604 (output feedback); Williams & Zipser 1989 (forcing), doi:10.1162/neco.1989.1.2.270
    Cost:
        The inner cell's.
    Example:
        >>> from recurra.layers import Recurrent
        >>> decoder = Recurrent(Feedback(Readout(LSTMCell(2 + 3, 4), 3)))
        >>> ys, state = decoder(torch.zeros(7, 2, 2), forced=torch.zeros(7, 2, 3))
        >>> ys.shape, state.feedback.shape
        (torch.Size([7, 2, 3]), torch.Size([2, 3]))
    """

    source = "Jordan 1986, ICS Report 8604; Williams & Zipser 1989, doi:10.1162/neco.1989.1.2.270"

    def __init__(self, cell: Cell, *, kind: str = "identity") -> None:
        super().__init__()
        where = type(self).__name__
        check_cell(where, cell)
        check_choice(where, "kind", kind, ("identity", "argmax"))
        self.output_size = output_size(where, cell)
        inner = cell.input_spec
        if not isinstance(inner, Leaf) or len(inner.shape) != 1 or int(inner.shape[0]) < self.output_size:
            raise ValueError(sentence(where, "the cell's input", f"(B, D + {self.output_size})", inner))
        self.input_size = int(inner.shape[0]) - self.output_size
        self.cell, self.kind = cell, kind

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both kinds, and one without any input."""
        yield cls(Readout(LSTMCell(5, 4), 3))
        yield cls(Readout(ElmanCell(4, 4), 2), kind="argmax")
        yield cls(ElmanCell(3, 3))

    def initial_state(self, batch_size: int) -> FeedbackState:
        """f = 0 and the inner start."""
        return FeedbackState(
            self.initial("feedback", batch_size, self.output_size), self.cell.initial_state(batch_size)
        )

    def learn_initial_state(self) -> Self:
        """f's and the inner cell's; returns the wrapper."""
        self.cell.learn_initial_state()
        return super().learn_initial_state()

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """The inner cell's."""
        inside = self.cell
        return inside.draw(num_steps, batch_size, generator) if isinstance(inside, StochasticCell) else None

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The inner cell's."""
        return drawn_weights(self, (self.cell,), generator)

    def feedback(self, y: Tensor) -> Tensor:
        """``k(y)``."""
        return y if self.kind == "identity" else F.one_hot(y.argmax(-1), self.output_size).to(y.dtype)

    def step(self, x: Noisy, state: FeedbackState) -> tuple[Tensor, FeedbackState]:
        """One step of the loop."""
        x = quiet(x)
        value = torch.cat([x.x, state.feedback], -1)
        y, inner = self.cell.step(with_noise(self.cell, value, x.noise), state.inner)
        return y, FeedbackState(self.feedback(y), inner)
