"""Two cells, one from each end."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from ..engines import Auto, unroll
from ..engines.unroll import draw


class BidirectionalState(NamedTuple):
    """forward: the forward cell's state at each row's end; backward: the backward cell's at each row's beginning."""

    forward: Tree
    backward: Tree


def concatenated(forward: Tree, backward: Tree) -> Tree:
    """``[y_forward, y_backward]`` along the features."""
    return tree.map(lambda a, b: torch.cat([a, b], -1), forward, backward)


class Bidirectional(nn.Module):
    """One cell reads from the left, one from the right; both outputs of a step stand side by side.

        f_t = cell_f(x_t, f_{t-1}),   b_t = cell_b(x_t, b_{t+1}),   y_t = [f_t, b_t]

    With ``lengths`` the backward cell starts at each row's true end, so padding changes nothing; a reset before step t also
    keeps the backward cell from seeing beyond t - 1.

    Args:
        forward_cell: reads x_1 .. x_T.
        backward_cell: reads x_T .. x_1; any other cell with the same input.
        merge: makes one output of two; None puts them side by side.
        engine: how to run both.
    State:
        `BidirectionalState`; the layer is not causal, so a state carried from chunk to chunk is not the whole sequence's.
    Raises:
        TypeError: not a cell.
        ValueError: the cells read inputs of different shapes, or what the engine raises.
    Source:
        Schuster & Paliwal 1997, IEEE Transactions on Signal Processing 45(11):2673-2681, doi:10.1109/78.650093
    Cost:
        The sum of both cells.
    Example:
        >>> from recurra.cells import GRUCell, LSTMCell
        >>> layer = Bidirectional(LSTMCell(3, 5), GRUCell(3, 4))
        >>> ys, state = layer(torch.zeros(7, 2, 3), lengths=torch.tensor([7, 4]))
        >>> ys.shape
        torch.Size([7, 2, 9])
    """

    def __init__(
        self,
        forward_cell: Cell,
        backward_cell: Cell,
        *,
        merge: Callable[[Tree, Tree], Tree] | None = None,
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        for name, cell in (("forward_cell", forward_cell), ("backward_cell", backward_cell)):
            if not isinstance(cell, Cell):
                raise TypeError(sentence("Bidirectional", name, "a recurra Cell", type(cell).__name__))
        if forward_cell.input_spec != backward_cell.input_spec:
            got = f"{forward_cell.input_spec} and {backward_cell.input_spec}"
            raise ValueError(sentence("Bidirectional", "the inputs of both cells", "of one shape", got))
        self.forward_cell, self.backward_cell = forward_cell, backward_cell
        self.merge = merge or concatenated
        self.engine = engine or Auto()

    def forward(
        self,
        xs: Tree,
        state: BidirectionalState | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tree, BidirectionalState]:
        """Outputs and both last states.

        Args:
            xs: leaves (T, B, ...).
            state: first states of both cells; None for their initial states.
            lengths: (B,) int64 true lengths.
            reset: (T, B) bool, a new sequence begins at this step.
            generator: source of noise in training mode.

        Returns:
            ys: the merged outputs (T, B, ...), zero in the padding before merging.
            state: `BidirectionalState`.
        """
        first, last = state if state is not None else (None, None)
        controls = Controls(lengths, reset)
        ahead, end = unroll(self.forward_cell, xs, first, controls, engine=self.engine, generator=generator)
        drawn = draw(self.backward_cell, xs, generator)
        turned = _mirror(xs, lengths)
        back_controls = Controls(lengths, None if reset is None else _mirror_reset(reset, lengths))
        back, begin = unroll(self.backward_cell, turned, last, back_controls, engine=self.engine, drawn=drawn)
        return self.merge(ahead, _mirror(back, lengths)), BidirectionalState(end, begin)

    def extra_repr(self) -> str:
        """The engine."""
        return f"engine={self.engine}"


def _mirror(values: Tree, lengths: Tensor | None) -> Tree:
    """Each row backwards within its true length; the padding stays where it is."""
    if lengths is None:
        return tree.map(lambda leaf: leaf.flip(0), values)

    def turn(leaf: Tensor) -> Tensor:
        steps = torch.arange(leaf.shape[0], device=leaf.device)[:, None]
        source = torch.where(steps < lengths, lengths - 1 - steps, steps)
        return leaf[source, torch.arange(leaf.shape[1], device=leaf.device)]

    return tree.map(turn, values)


def _mirror_reset(reset: Tensor, lengths: Tensor | None) -> Tensor:
    """Where the backward cell starts again: just after it has read the first step of a sequence."""
    turned = _mirror(reset, lengths)
    return torch.cat([torch.zeros_like(turned[:1]), turned[:-1]])
