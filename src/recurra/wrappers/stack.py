"""Cells on top of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

from torch import nn

from ..cells.dropout import DropoutCell
from ..cells.elman import ElmanCell
from ..cells.embedding import EmbeddingCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, CompositeCell, Noisy, Run, with_noise
from ..core.checks import check_probability, sentence
from ..core.tree import Tree, same_structure
from .wrapper import check_cell, output_size


class Stack(CompositeCell[Tree, tuple[Tree, ...]]):
    """Cells on top of each other: each one's output is the next one's input. Kinds and sizes are free.

        y^0 = x,   y^l, s'^l = cell_l(y^{l-1}, s^l),   y = y^L

    Args:
        cells: the layers, from the input up.
        dropout: probability of a zero between layers while training (never after the last), as in ``torch.nn.LSTM``.
        variational: one dropout mask for all steps.
    State:
        A tuple with each layer's state.
    Raises:
        ValueError: no layer, or neighbours whose sizes do not fit.
        TypeError: something that is no cell.
    Source:
        El Hihi & Bengio 1995, NIPS 8; Graves, Mohamed & Hinton 2013, arXiv:1303.5778 (from memory)
    Cost:
        The sum of the layers.
    Example:
        >>> import torch
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(Stack(LSTMCell(3, 5), ElmanCell(5, 4)))(torch.zeros(7, 2, 3))
        >>> ys.shape, state[0].c.shape, state[1].h.shape
        (torch.Size([7, 2, 4]), torch.Size([2, 5]), torch.Size([2, 4]))
    """

    source = "El Hihi & Bengio 1995, NIPS 8; Graves, Mohamed & Hinton 2013, arXiv:1303.5778"

    def __init__(self, *cells: Cell, dropout: float = 0.0, variational: bool = False) -> None:
        super().__init__()
        where = type(self).__name__
        if not cells:
            raise ValueError(sentence(where, "cells", "at least one", "none"))
        for cell in cells:
            check_cell(where, cell)
        check_probability(where, dropout=dropout)
        for i, (below, above) in enumerate(pairwise(cells)):
            if not same_structure(below.output_spec, above.input_spec) or below.output_spec != above.input_spec:
                wanted = f"the output of layer {i}, {below.output_spec}"
                raise ValueError(sentence(where, f"the input of layer {i + 1}", wanted, above.input_spec))
        self.layers = nn.ModuleList(cells)
        self.dropout, self.variational = dropout, variational
        between = cells[:-1] if dropout else ()
        self.drops = nn.ModuleList(
            DropoutCell(output_size(where, c), dropout, variational=variational) for c in between
        )
        if hasattr(cells[0], "input_size"):
            self.input_size = cells[0].input_size
        if hasattr(cells[-1], "output_size"):
            self.output_size = cells[-1].output_size

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Different sizes and kinds, tokens below, dropout between."""
        yield cls(LSTMCell(3, 5), ElmanCell(5, 4))
        yield cls(EmbeddingCell(4, 3), LSTMCell(3, 3, peephole=True), dropout=0.5)
        yield cls(ElmanCell(2, 3), LSTMCell(3, 2), dropout=0.3, variational=True)

    @property
    def parts(self) -> Sequence[Cell]:
        """The layers, then the dropout between them."""
        return (*self.layers, *self.drops)

    @property
    def input_spec(self) -> Tree:
        """The first layer's."""
        return self.layers[0].input_spec

    @property
    def output_spec(self) -> Tree:
        """The last layer's."""
        return self.layers[-1].output_spec

    @property
    def state_spec(self) -> Tree:
        """Each layer's."""
        return tuple(layer.state_spec for layer in self.layers)

    def initial_state(self, batch_size: int) -> tuple[Tree, ...]:
        """Each layer's."""
        return tuple(layer.initial_state(batch_size) for layer in self.layers)  # type: ignore[operator]

    def compose(self, run: Run, x: Noisy, state: tuple[Tree, ...]) -> tuple[Tree, tuple[Tree, ...]]:
        """Layer by layer."""
        value, noise = x
        noise = noise if noise is not None else (None,) * len(self.parts)
        states = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Cell)
            value, new = run(layer, with_noise(layer, value, noise[i]), state[i])
            states.append(new)
            if i < len(self.drops):
                value, _ = run(self.drops[i], Noisy(value, noise[len(self.layers) + i]), ())  # type: ignore[arg-type]
        return value, tuple(states)
