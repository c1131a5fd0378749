"""What wrappers around one cell have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from ..core.cell import (
    Cell,
    CompositeCell,
    HoistedCell,
    Noisy,
    Run,
    StochasticCell,
    advance,
    drawn_weights,
    project,
    quiet,
    with_noise,
)
from ..core.checks import sentence
from ..core.spec import Leaf
from ..core.tree import Tree

S = TypeVar("S")


class WrapperNoise(NamedTuple):
    """Noise of a wrapper and of the cell inside."""

    own: Tree
    inner: Tree


class WrapperProjection(NamedTuple):
    """The inner cell's projected input, and the wrapper's own noise."""

    inner: Tree
    own: Tree


def check_cell(where: str, cell: Any) -> None:
    """Raise unless ``cell`` is a `Cell`."""
    if not isinstance(cell, Cell):
        raise TypeError(sentence(where, "cell", "a recurra Cell", type(cell).__name__))


class Wrapper(HoistedCell[Noisy, Tree, S], StochasticCell[Tree, S]):
    """A cell that changes what one inner cell puts out or keeps: the state is the inner cell's, its input term still hoists.

    A subclass writes `after`; it overrides `draw_own` if it needs noise.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        check_cell(type(self).__name__, cell)
        self.cell = cell
        if hasattr(cell, "input_size"):
            self.input_size = cell.input_size
        if hasattr(cell, "output_size"):
            self.output_size = cell.output_size

    @abstractmethod
    def after(self, y: Tree, new: S, old: S, noise: Tree) -> tuple[Tree, S]:
        """Output and state from the inner step's output and state, its state before, and this wrapper's noise."""

    def draw_own(self, num_steps: int, batch_size: int, generator: torch.Generator | None) -> Tree:
        """The wrapper's own noise, leaves (T, B, ...); None for none."""
        return None

    @property
    def input_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.input_spec

    @property
    def output_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.output_spec

    @property
    def state_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.state_spec

    def initial_state(self, batch_size: int) -> S:
        """The inner cell's."""
        return self.cell.initial_state(batch_size)

    def learn_initial_state(self) -> Self:
        """The inner cell's; returns the wrapper."""
        self.cell.learn_initial_state()
        return self

    def check_state(self, state: S, batch_size: int | str) -> None:
        """The inner cell's."""
        self.cell.check_state(state, batch_size)

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """Own noise and the inner cell's."""
        own = self.draw_own(num_steps, batch_size, generator)
        inside = self.cell
        inner = inside.draw(num_steps, batch_size, generator) if isinstance(inside, StochasticCell) else None
        return None if own is None and inner is None else WrapperNoise(own, inner)

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The inner cell's."""
        return drawn_weights(self, (self.cell,), generator)

    def project(self, x: Noisy) -> WrapperProjection:
        """The inner cell's projection beside the noise."""
        x = quiet(x)
        own, inner = x.noise if x.noise is not None else WrapperNoise(None, None)
        return WrapperProjection(project(self.cell, with_noise(self.cell, x.x, inner)), own)

    def advance(self, projected: WrapperProjection, state: S) -> tuple[Tree, S]:
        """The inner step, then `after`."""
        y, new = advance(self.cell, projected.inner, state)
        return self.after(y, new, state, projected.own)


class Around(CompositeCell[Tree, S]):
    """A composite around one cell, ``self.cell``, whose state is that cell's: what is added has no state."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        check_cell(type(self).__name__, cell)
        self.cell = cell
        if hasattr(cell, "input_size"):
            self.input_size = cell.input_size
        if hasattr(cell, "output_size"):
            self.output_size = cell.output_size

    @property
    def parts(self) -> Sequence[Cell]:
        """The one cell."""
        return (self.cell,)

    @property
    def input_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.input_spec

    @property
    def output_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.output_spec

    @property
    def state_spec(self) -> Tree:
        """The inner cell's."""
        return self.cell.state_spec

    def initial_state(self, batch_size: int) -> S:
        """The inner cell's."""
        return self.cell.initial_state(batch_size)

    def check_state(self, state: S, batch_size: int | str) -> None:
        """The inner cell's."""
        self.cell.check_state(state, batch_size)

    def run_inner(self, run: Run, x: Noisy, state: S) -> tuple[Tree, S]:
        """``run`` of the inner cell, with its share of the noise (the first entry)."""
        noise = None if x.noise is None else x.noise[0]
        return run(self.cell, with_noise(self.cell, x.x, noise), state)


def output_size(where: str, cell: Cell) -> int:
    """O of a cell whose output is one tensor (B, O).

    Raises:
        TypeError: the output has another shape.
    """
    spec = cell.output_spec
    if not isinstance(spec, Leaf) or len(spec.shape) != 1:
        raise TypeError(sentence(where, "cell", "a cell with output (B, O)", f"{type(cell).__name__} with {spec}"))
    return int(spec.shape[0])
