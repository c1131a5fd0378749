"""A cell over a sequence with its random numbers drawn: what layers and learning rules call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree


class Drawn(NamedTuple):
    """The random numbers of one sequence: noise (T, B, ...) and noisy parameters by name."""

    noise: Tree
    weights: dict[str, Tensor]


QUIET = Drawn(None, {})


def draw(cell: Cell, xs: Tree, generator: torch.Generator | None = None) -> Drawn:
    """Everything random that ``cell`` needs for ``xs`` while it trains; `QUIET` in evaluation or without noise."""
    if not isinstance(cell, StochasticCell) or not cell.training or isinstance(xs, Noisy):
        return QUIET
    leaves = tree.leaves(xs)
    if not leaves or leaves[0].ndim < 2:
        return QUIET
    num_steps, batch_size = leaves[0].shape[:2]
    return Drawn(cell.draw(num_steps, batch_size, generator), cell.draw_weights(generator))


class _Unrolled(nn.Module):
    def __init__(self, cell: Cell, engine: Engine) -> None:
        super().__init__()
        self.cell, self.engine = cell, engine

    def forward(self, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return self.engine(self.cell, xs, state, controls)


def unroll(
    cell: Cell,
    xs: Tree,
    state: Tree = None,
    controls: Controls | None = None,
    *,
    engine: Engine,
    drawn: Drawn | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tree, Tree]:
    """Run ``cell`` over ``xs`` with ``engine``; a `StochasticCell` in training mode gets its noise.

    Args:
        xs: leaves (T, B, ...); an explicit ``Noisy(xs, noise)`` is used as it is.
        state: leaves (B, ...), None for the initial state.
        controls: lengths, resets, forcing.
        engine: how to run.
        drawn: numbers drawn before; None draws now.
        generator: source of the numbers drawn now.

    Returns:
        Outputs (T, B, ...) and the last state.
    """
    drawn = draw(cell, xs, generator) if drawn is None else drawn
    if drawn.noise is not None:
        xs = Noisy(xs, drawn.noise)
    controls = controls or Controls()
    if not drawn.weights:
        return engine(cell, xs, state, controls)
    weights = {f"cell.{name}": value for name, value in drawn.weights.items()}
    return functional_call(_Unrolled(cell, engine), weights, (xs, state, controls))
