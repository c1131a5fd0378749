"""What rules that go forward in time have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core.cell import Cell, StochasticCell
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from .linearised import Stretch, stretch
from .step_graph import StepGraph


class ForwardRule(LearningRule[Any]):
    """Carries along what the parameters have done to the state. An author writes `init` and `follow`.

    The carry is a NamedTuple with ``state``, leaves (B, ...), and ``rng``, the state of the generator.
    """

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose weights are not noisy, and a loss with a value for each step."""
        if not isinstance(cell, Cell):
            return f"it carries a state and needs a Cell, not {type(cell).__name__}; BPTT() takes any module."
        if isinstance(loss, SequenceLoss):
            return (
                f"{type(loss).__name__} is a loss of whole sequences, which cannot be learned as it goes; use BPTT()."
            )
        if cell.training and isinstance(cell, StochasticCell) and cell.draw_weights(torch.Generator(cell.device)):
            return "the cell's weights are noisy for the length of a sequence, and a stream has no end; use BPTT()."
        return None

    @abstractmethod
    def follow(self, cell: Cell, carry: Any, made: Stretch, generator: torch.Generator) -> tuple[Any, Direction]:
        """The carry after the steps (its state and rng are seen to), and what the losses want through the states."""

    def signal(self, cell: Cell) -> Callable[[Any], StepGraph] | None:
        """Another form of the step, from which is found what losses want of the state; None for the cell's own."""
        return None

    def seen(self, cell: Cell, carry: Any, chunk: Chunk, loss: Loss, made: Stretch) -> Stretch:
        """The stretch with what the rule takes for the wishes of the losses; as it is, where it takes their gradient."""
        return made

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        """The direction of a chunk, its past included.

        Raises:
            ValueError: a wrong shape.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"{type(self).__name__}: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        made = stretch(cell, carry.state, chunk, loss, generator, self.signal(cell))
        made = self.seen(cell, carry, chunk, loss, made)
        carry, through = self.follow(cell, carry, made, generator)
        direction = {name: g + through[name] for name, g in made.direct.items()}
        carry = carry._replace(state=made.state, rng=generator.get_state())
        return carry, Estimate(direction, made.loss, made.weight, made.outputs)
