"""Learning rules: a stretch of a stream becomes a direction for the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor, nn

from .controls import Controls
from .loss import Loss, SequenceLoss
from .tree import Tree

C = TypeVar("C")
Direction = dict[str, Tensor]
StackedParameters = dict[str, Tensor]


class Chunk(NamedTuple):
    """T steps of B streams. T = 1 is online, T = everything is offline.

    Args:
        xs: input leaves (T, B, ...).
        targets: what the loss compares with, leaves (T, B, ...).
        weights: (T, B) weight of each step's loss; None means one, and zero in the padding.
        controls: lengths, resets, forcing.
    """

    xs: Tree
    targets: Tree
    weights: Tensor | None = None
    controls: Controls = Controls()


class Estimate(NamedTuple):
    """What a rule says about a chunk. Sums, not means: chunks and processes add up.

    Args:
        direction: parameter name -> tensor, the gradient (or the rule's stand-in) of the *weighted sum* of the loss.
        loss: () the weighted sum of the loss.
        weight: () the sum of the weights.
        outputs: what the cell put out, leaves (T, B, ...), detached.
    """

    direction: Direction
    loss: Tensor
    weight: Tensor
    outputs: Tree


class Trace(NamedTuple):
    """What `LearningRule.run` leaves: the loss and the weight of every chunk, (num_chunks,)."""

    losses: Tensor
    weights: Tensor


Update = Callable[[nn.Module, Estimate], None]


class LearningRule(ABC, Generic[C]):
    """A frozen dataclass with an explicit carry; nothing is kept on ``self``.

    ``kind`` says what a direction is: a "gradient" goes through an optimizer; a "step" is added with the sign of descent as
    it is (``p -= direction``), without clipping.

    ``exempt`` names the laws of `recurra.testing` that it cannot obey, with the reasons. ``unbiased`` says of a rule that draws
    random numbers that its direction is the gradient on average over them.
    """

    exempt: ClassVar[Mapping[str, str]] = {}
    unbiased: ClassVar[bool] = False
    kind: ClassVar[Literal["gradient", "step"]] = "gradient"

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """None, or one sentence that says why this rule cannot train this cell with this loss."""
        return None

    @abstractmethod
    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> C:
        """The carry before the first chunk."""

    @abstractmethod
    def step(self, cell: nn.Module, carry: C, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[C, Estimate]:
        """One chunk: the next carry and the estimate. The parameters are read, not changed."""

    def run(
        self, cell: nn.Module, carry: C, stream: Iterable[Chunk], loss: Loss | SequenceLoss, update: Update
    ) -> tuple[C, Trace]:
        """Learn along a stream, applying ``update`` after every chunk. A native loop may take the place of this one."""
        import torch

        losses, weights = [], []
        for chunk in stream:
            carry, estimate = self.step(cell, carry, chunk, loss)
            update(cell, estimate)
            losses.append(estimate.loss)
            weights.append(estimate.weight)
        empty = torch.zeros(0)
        return carry, Trace(torch.stack(losses) if losses else empty, torch.stack(weights) if weights else empty)


class SearchRule(ABC, Generic[C]):
    """Learning without gradients: evolution, swarm, annealing, guessing. ``ask`` candidates, ``tell`` their fitness.

    Candidates are stacked parameters, (N, ...) per name: one ``vmap`` over ``functional_call`` scores them all.

    ``exempt`` names the laws of `recurra.testing` that it cannot obey, with the reasons.
    """

    exempt: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def init(self, parameters: dict[str, Tensor], *, seed: int = 0) -> C:
        """The carry before the first generation, around the given parameters."""

    @abstractmethod
    def ask(self, carry: C) -> tuple[C, StackedParameters]:
        """The next candidates, (N, ...) per parameter."""

    @abstractmethod
    def tell(self, carry: C, fitness: Tensor) -> C:
        """Take the fitness (N,), larger is better, of the last candidates."""

    @abstractmethod
    def best(self, carry: C) -> dict[str, Tensor]:
        """The parameters the search would give now."""


AnyRule = LearningRule[Any]
