"""Recursive least squares on a linear output, without and with the output fed back (FORCE)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, FeedbackCell, ReadoutCell
from ..core.checks import check_positive, sentence
from ..core.engine import check_sequence
from ..core.loss import Loss, MeanSquaredError, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.tree import Tree
from .linearised import learning
from .products import products, stacked, walk
from .rtrl import RTRL


class RLSCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        covariance: (F, F), with a bias (F + 1, F + 1): P, the inverse of the features' weighted correlations.
        steps: () steps so far that had something to learn from.
        rng: of the cell's noise.
    """

    state: Tree
    covariance: Tensor
    steps: Tensor
    rng: Tensor


class _Place(NamedTuple):
    """The linear output among the parameters: their names."""

    weight: str
    bias: str | None


def _linear_output(cell: Cell) -> _Place | str:
    """Where the linear output is that the cell ends in, or a sentence that says why there is none."""
    inside = [m for m in cell.modules() if isinstance(m, ReadoutCell)]
    if len(inside) != 1:
        return f"it needs one ReadoutCell, the last part of the cell, and finds {len(inside)}."
    linear, names = inside[0].readout, {id(p): name for name, p in learning(cell).items()}
    if id(linear.weight) not in names or (linear.bias is not None and id(linear.bias) not in names):
        return "the linear output does not learn; its requires_grad is False."
    y, found = products(cell)
    place = _Place(names[id(linear.weight)], None if linear.bias is None else names[id(linear.bias)])
    if not any(p.name == place.weight and p.out is y for p in found):
        return "the cell's output is not the linear output itself; something comes behind it."
    return place


@dataclass(frozen=True)
class RLS(LearningRule[RLSCarry]):
    """Recursive least squares: at every step, the linear output that fits all the past best; nothing else learns.

        k  = w P phi / (forget + w phi^T P phi)
        W += e k^T,   e = target - y,   y = W phi (+ b, a feature of one)
        P  = (P - k phi^T P) / forget

    With forget = 1 it is ridge regression on everything so far, with the prior 1 / p0 around the first weights. The rows of
    a batch are taken in together. The last layer of the cell has to be a `ReadoutCell` (the wrapper `Readout`).

    Args:
        p0: P at the start is p0 times the identity.
        forget: in (0, 1]; what is n steps old counts forget^n.
    Raises:
        ValueError: a number out of range.
        TypeError: as `RTRL`; another loss than `MeanSquaredError`; no linear output.
    Source:
        Haykin, "Adaptive filter theory", recursive least squares (from memory)
    Cost:
        O(F^2) for each row and step, F features, and P.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> from recurra.wrappers import Readout
        >>> cell, rule = Readout(ElmanCell(3, 5), 2), RLS()
        >>> chunk = Chunk(torch.ones(4, 2, 3), torch.zeros(4, 2, 2))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> sorted(estimate.direction), carry.covariance.shape
        (['linear.bias', 'linear.weight'], torch.Size([6, 6]))
    """

    kind: ClassVar[Literal["gradient", "step"]] = "step"

    p0: float = 100.0
    forget: float = 1.0

    def __post_init__(self) -> None:
        where = type(self).__name__
        if not 0 < self.p0 < math.inf:
            raise ValueError(sentence(where, "p0", "above 0 and finite", self.p0))
        if not 0 < self.forget <= 1:
            raise ValueError(sentence(where, "forget", "in (0, 1]", self.forget))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell that ends in one linear output that learns, and squared errors."""
        reason = RTRL().supports(cell, loss)
        if reason is not None:
            return reason
        assert isinstance(cell, Cell)
        if not isinstance(loss, MeanSquaredError):
            return f"it minimises squared errors, not {type(loss).__name__}."
        found = _linear_output(cell)
        return found if isinstance(found, str) else None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> RLSCarry:
        """The initial state; P = p0. Where there is no linear output, P is empty."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        place, size = _linear_output(cell), 0
        if isinstance(place, _Place):
            size = learning(cell)[place.weight].shape[1] + (place.bias is not None)
        covariance = self.p0 * torch.eye(size, dtype=cell.dtype, device=cell.device)
        steps = torch.zeros((), dtype=torch.int64, device=cell.device)
        return RLSCarry(state, covariance, steps, torch.Generator().manual_seed(seed).get_state())

    def due(self, steps: Tensor) -> Tensor:
        """() bool: is anything learned at this step?"""
        return torch.ones_like(steps, dtype=torch.bool)

    def step(
        self, cell: nn.Module, carry: RLSCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[RLSCarry, Estimate]:
        """The change of the linear output.

        Raises:
            ValueError: a wrong shape.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"{type(self).__name__}: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        place = _linear_output(cell)
        assert isinstance(place, _Place)
        num_steps, rows = check_sequence(cell, chunk.xs, carry.state, chunk.controls)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        weight = learning(cell)[place.weight]
        size = int(carry.covariance.shape[0])
        change = torch.zeros(weight.shape[0], size, dtype=weight.dtype, device=weight.device)  # added to (W, b)
        ys, state, covariance, steps = [], carry.state, carry.covariance, carry.steps
        for t, taken in enumerate(walk(cell, state, chunk, generator)):
            ys.append(taken.y)
            state = taken.state
            phi = next(p for p in taken.products if p.name == place.weight).x[:, -1]
            if place.bias is not None:
                phi = torch.cat([phi, torch.ones_like(phi[:, :1])], 1)
            here = torch.ones_like(phi[:, 0]) if chunk.weights is None else chunk.weights[t].to(phi)
            if taken.alive is not None:
                here = torch.where(taken.alive, here, torch.zeros_like(here))
            known, now = here > 0, self.due(steps)
            error = loss.residual(taken.y, chunk.targets[t]) - phi @ change.T
            root = here.clamp(min=0).sqrt()[:, None]
            error = torch.where(known[:, None], error * root, torch.zeros_like(error))
            some = known.any()
            old = covariance / self.forget
            seen = torch.where(known[:, None], phi * root, torch.zeros_like(phi))
            through = seen @ old  # (B, F)
            spread = torch.eye(rows, dtype=old.dtype, device=old.device) + through @ seen.T
            gain = torch.linalg.solve(spread, through)  # (B, F)
            learns = some & now
            change = torch.where(learns, change + error.T @ gain, change)
            covariance = torch.where(learns, old - through.T @ gain, covariance)
            steps = steps + some
        outputs = tree.detach(stacked(cell, ys, rows))
        value, total = weighted_sum(
            loss.per_step(outputs, chunk.targets), chunk.weights, chunk.controls.alive(num_steps)
        )
        direction = {place.weight: -change[:, : weight.shape[1]]}
        if place.bias is not None:
            direction[place.bias] = -change[:, -1]
        carry = RLSCarry(tree.detach(state), covariance, steps, generator.get_state())
        return carry, Estimate(direction, value, total, outputs)


@dataclass(frozen=True)
class FORCE(RLS):
    """First-order reduced and controlled error: recursive least squares on an output that is fed back while it learns.

    The error is kept small from the first steps on, so that what is fed back is nearly the target, yet never the target
    itself (no teacher forcing): the net meets its own errors and becomes stable against them. A net that is chaotic before
    learning (spectral radius 1.2 to 1.5) learns fastest.

        e = target - y    with the weights before,    then as in `RLS` with p0 = 1 / alpha

    Args:
        p0: 1 / alpha, in the paper between 0.01 and 1.
        forget: as in `RLS`; the paper has 1.
        every: steps between two updates.
    Raises:
        ValueError: a number out of range.
        TypeError: as `RLS`; a cell that feeds nothing back.
    Source:
        Sussillo & Abbott 2009, "Generating coherent patterns of activity from chaotic neural networks", Neuron
        63(4):544-557, doi:10.1016/j.neuron.2009.07.018 (from memory)
    Cost:
        As `RLS`.
    """

    p0: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("FORCE", every=self.every)

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """As `RLS`, and a cell that feeds its output back."""
        if isinstance(cell, Cell) and not isinstance(cell, FeedbackCell):
            return "the cell does not feed its output back; RLS() is the rule without feedback."
        return super().supports(cell, loss)

    def due(self, steps: Tensor) -> Tensor:
        """Every so many steps."""
        return steps % self.every == 0
