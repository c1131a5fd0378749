"""The neural bucket brigade: weight substance is paid along chains of winners."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, CompetitiveCell
from ..core.checks import check_probability, sentence
from ..core.engine import check_sequence
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.tree import Tree
from .linearised import learning
from .products import stacked, walk
from .rtrl import RTRL


class BrigadeCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        shares: (B, U, N) which part of the input that made a unit win came through each connection, 0 for losers.
        rng: of the cell's noise.
    """

    state: Tree
    shares: Tensor
    rng: Tensor


@dataclass(frozen=True)
class NeuralBucketBrigade(LearningRule[BrigadeCarry]):
    """Neural bucket brigade: who is active pays those that made it so, and is paid for what it makes active.

        c_ij = W_ij z_j                               what source j contributes to unit i
        W_ij += -lambda c_ij u'_i                     a connection to a winner pays a part of what it contributes,
              + s_ij sum_k lambda c_ki u'_k           a unit's pay at the next step goes to those that made it win,
              + eta w c_ij u'_i target_i              and the environment pays for outputs that are rightly on

        s_ij = c_ij / sum_h c_ih                      of the step before, for winners

    Everything that a connection needs is at its two ends, now and one step before: local in space and time. Substance is
    neither made nor lost between units; it comes in as payoff and leaves at the inputs. Where W is positive it stays so. A
    connection that is not there (W_ij = 0) never comes to be. Targets are one for outputs that should be on; steps whose
    targets are all zero pay nothing. Rows of a batch add up. With ``shared``, the payoff of a unit is eta w, whatever its
    input, and its connections share it by what they contribute:

              + eta w s'_ij target_i,   s'_ij = c_ij u'_i / sum_h c_ih

    Args:
        rate: lambda, in [0, 1).
        payoff: eta, at least 0.
        shared: is the payoff of a unit a fixed amount, and not a part of what it contributes?
    Raises:
        ValueError: a number out of range.
        TypeError: a cell that is no `CompetitiveCell`, a loss of whole sequences.
    Source:
        Schmidhuber 1989, "A local learning algorithm for dynamic feedforward and recurrent networks", Connection Science
        1(4):403-412 (the author's HTML version, in which formulas are partly lost; those above are also the reading of
        others)
    Cost:
        O(U N) for U units with N sources.
    Example:
        >>> from recurra.cells import WinnerTakeAllCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = WinnerTakeAllCell(2, (3, 2)), NeuralBucketBrigade()
        >>> chunk = Chunk(torch.ones(4, 1, 2), torch.tensor([1.0, 0.0]).expand(4, 1, 2))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 1), chunk, MeanSquaredError())
        >>> estimate.direction["weight"].shape
        torch.Size([5, 7])
    """

    kind: ClassVar[Literal["gradient", "step"]] = "step"

    rate: float = 0.005
    payoff: float = 0.005
    shared: bool = False

    def __post_init__(self) -> None:
        check_probability("NeuralBucketBrigade", rate=self.rate)
        if not 0 <= self.payoff < math.inf:
            raise ValueError(sentence("NeuralBucketBrigade", "payoff", "at least 0 and finite", self.payoff))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose units compete."""
        reason = RTRL().supports(cell, loss)
        if reason is None and not isinstance(cell, CompetitiveCell):
            return f"units must compete for being active, and {type(cell).__name__} is no CompetitiveCell."
        return reason

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> BrigadeCarry:
        """The initial state; nobody has won."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        shape = cell.connections.shape if isinstance(cell, CompetitiveCell) else (0, 0)
        shares = torch.zeros(batch_size, *shape, dtype=cell.dtype, device=cell.device)
        return BrigadeCarry(state, shares, torch.Generator().manual_seed(seed).get_state())

    def step(
        self, cell: nn.Module, carry: BrigadeCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[BrigadeCarry, Estimate]:
        """What the connections pay and get in a chunk.

        Raises:
            ValueError: a wrong shape.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"NeuralBucketBrigade: {reason}")
        assert isinstance(cell, CompetitiveCell)
        assert isinstance(loss, Loss)
        num_steps, rows = check_sequence(cell, chunk.xs, carry.state, chunk.controls)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        weight = cell.connections.detach()
        units, outputs = weight.shape[0], cell.output_size
        change = torch.zeros_like(weight)
        ys, state, shares = [], carry.state, carry.shares
        for t, taken in enumerate(walk(cell, state, chunk, generator)):
            ys.append(taken.y)
            state = taken.state
            sources = cell.sources(taken.x, taken.before)
            contributed = weight * sources[:, None]  # (B, U, N)
            won = cell.compete(nn.functional.linear(sources, weight))
            if taken.restarted is not None:
                shares = torch.where(taken.restarted[:, None, None], 0.0, shares)
            through = contributed * won[:, :, None]
            paid = self.rate * through
            income = paid.sum(1)[:, -units:]
            right = torch.cat([torch.zeros_like(won[:, :-outputs]), chunk.targets[t]], 1)
            if chunk.weights is not None:
                known = (chunk.weights[t] != 0)[:, None]
                right = torch.where(known, right * chunk.weights[t][:, None], torch.zeros_like(right))
            total = through.sum(2, keepdim=True)
            new = torch.where(total != 0, through / torch.where(total != 0, total, 1.0), torch.zeros_like(through))
            earned = new if self.shared else through
            moved = shares * income[:, :, None] - paid + self.payoff * earned * right[:, :, None]
            if taken.alive is not None:
                here = taken.alive[:, None, None]
                moved, new = torch.where(here, moved, torch.zeros_like(moved)), torch.where(here, new, shares)
            change, shares = change + moved.sum(0), new
        direction = {name: torch.zeros_like(p) for name, p in learning(cell).items()}
        direction[next(name for name, p in learning(cell).items() if p is cell.connections)] = -change
        said = tree.detach(stacked(cell, ys, rows))
        value, total_weight = weighted_sum(
            loss.per_step(said, chunk.targets), chunk.weights, chunk.controls.alive(num_steps)
        )
        carry = BrigadeCarry(tree.detach(state), shares, generator.get_state())
        return carry, Estimate(direction, value, total_weight, said)
