"""A cell over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from ..engines import Auto, unroll


class Recurrent(nn.Module):
    """Run a cell over a sequence.

        y_t, s_t = cell(x_t, s_{t-1})        t = 1 .. T

    Args:
        cell: any cell, a wrapper or a stack.
        engine: how to run it; every engine gives the same numbers.
    State:
        The cell's, leaves (B, ...).
    Raises:
        ValueError: a wrong shape, a length beyond T, an engine that does not support the cell.
        TypeError: a wrong structure or dtype, forcing a cell without feedback.
    Example:
        >>> from recurra.cells import LSTMCell
        >>> layer = Recurrent(LSTMCell(3, 5))
        >>> xs = torch.randn(7, 2, 3)
        >>> whole, _ = layer(xs)
        >>> first, state = layer(xs[:4])
        >>> rest, _ = layer(xs[4:], state)
        >>> torch.allclose(whole, torch.cat([first, rest]), atol=1e-6)
        True
    """

    def __init__(self, cell: Cell, engine: Engine | None = None) -> None:
        super().__init__()
        if not isinstance(cell, Cell):
            raise TypeError(sentence("Recurrent", "cell", "a recurra Cell", type(cell).__name__))
        if engine is not None and not isinstance(engine, Engine):
            raise TypeError(sentence("Recurrent", "engine", "an Engine such as Auto()", type(engine).__name__))
        self.cell = cell
        self.engine = engine or Auto()

    def forward(
        self,
        xs: Tree,
        state: Tree = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        forced: Tree = None,
        force_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tree, Tree]:
        """Outputs and last state.

        Args:
            xs: leaves (T, B, ...).
            state: leaves (B, ...); None starts from the cell's initial state.
            lengths: (B,) int64 true lengths, 0 allowed. Outputs beyond are zero, the state is the one at the true end.
            reset: (T, B) bool, start again before this step.
            forced: (T, B, ...) what a `FeedbackCell` sees next in place of its own output.
            force_mask: (T, B) bool, where ``forced`` applies; None for everywhere.
            generator: source of the noise of a `StochasticCell` in training mode.

        Returns:
            ys (T, B, ...) and the state, leaves (B, ...).
        """
        controls = Controls(lengths, reset, forced, force_mask)
        return unroll(self.cell, xs, state, controls, engine=self.engine, generator=generator)

    def extra_repr(self) -> str:
        """The engine."""
        return f"engine={self.engine}"
