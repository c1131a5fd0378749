"""Real-time recurrent learning, exact and with a sparse influence matrix."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_positive
from ..core.rule import Direction
from ..core.tree import Tree
from .forward import ForwardRule
from .influence import Course, course, followed, zero_influence
from .linearised import Stretch
from .step_graph import StepGraph


class InfluenceCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        influence: d state / d parameters, in the blocks where it can differ from zero, (B, r, rows, cols) each.
        rng: of the noise.
    """

    state: Tree
    influence: tuple[Tensor, ...]
    rng: Tensor


class InfluenceRule(ForwardRule):
    """Carries the influence of the parameters on the state along, in the blocks where it can differ from zero."""

    @abstractmethod
    def course(self, cell: Cell, state: Tree) -> Course:
        """The plan of the influence."""

    def differentiated(self, cell: Cell, made: Stretch) -> StepGraph | None:
        """Another form of the step, whose derivatives carry the influence on; None for the cell's own."""
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> InfluenceCarry:
        """The initial state and its own influence."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        influence = zero_influence(cell, self.course(cell, state), batch_size)
        return InfluenceCarry(state, influence, torch.Generator().manual_seed(seed).get_state())

    def follow(
        self, cell: Cell, carry: InfluenceCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[InfluenceCarry, Direction]:
        """See `ForwardRule.follow`."""
        graph = self.differentiated(cell, made)
        influence, direction = followed(cell, self.course(cell, carry.state), carry.influence, made, graph)
        return carry._replace(influence=influence), direction


@dataclass(frozen=True)
class RTRL(InfluenceRule):
    """Real-time recurrent learning: the exact gradient, forward in time, for any cell, wrapper and stack.

        J_t = (d s_t / d s_{t-1}) J_{t-1} + d s_t / d theta
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1}) J_{t-1})

    With parameters that stay, chunks of any length add up to the gradient of the whole stream, without its past being
    stored. With parameters that change between chunks, J is the influence along the path that was really taken.

    Raises:
        TypeError: no cell, a loss of whole sequences, weights that are noisy for a sequence.
    Source:
        Williams & Zipser 1989, Neural Computation 1(2):270-280, doi:10.1162/neco.1989.1.2.270 (from memory)
    Cost:
        O(S^2 P) time and O(S P) memory for each row and step, S elements of the state and P parameters: n^4 and n^3 for n
        fully recurrent units. Less where the graph of the step shows that derivatives are zero whatever the numbers are: O(P)
        time and memory for element-wise recurrences (IndRNN); of a stack, what lower layers' parameters do to upper layers,
        and nothing the other way round; nothing for a readout. What is known of a cell is found once, see
        `recurra.learning.influence`.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), RTRL()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> [block.shape for block in carry.influence]
        [torch.Size([2, 5, 5, 3]), torch.Size([2, 5, 5, 5]), torch.Size([2, 5, 5, 1])]
    """

    def course(self, cell: Cell, state: Tree) -> Course:
        """All that can be reached."""
        return course(cell, state)


@dataclass(frozen=True)
class SnAp(InfluenceRule):
    """Sparse n-step approximation of RTRL: of the influence, only what a parameter reaches within n steps is kept.

        J_t = M_n * ((d s_t / d s_{t-1}) J_{t-1} + d s_t / d theta)

    M_n is the pattern of what a parameter can reach within n steps, found from the graph of the step, for whole rows of a
    parameter. n = 1 keeps what a parameter influences at once; for large n this is `RTRL`, for element-wise recurrences
    (IndRNN) already n = 1 is.

    Args:
        n: steps, at least 1.
    Raises:
        ValueError: n < 1.
        TypeError: as `RTRL`.
    Source:
        Menick, Elsen, Evci, Osindero, Simonyan & Graves 2021, "Practical real time recurrent learning with a sparse
        approximation to the Jacobian", ICLR (from memory)
    Cost:
        Of the influence only what the pattern holds is stored, in blocks of leaves and parameters; n = 1 on n fully recurrent
        units keeps O(P) numbers.
    """

    exempt: ClassVar[dict[str, str]] = {"exact": "What a parameter reaches later than n steps on is left out."}
    n: int = 1

    def __post_init__(self) -> None:
        check_positive("SnAp", n=self.n)

    def course(self, cell: Cell, state: Tree) -> Course:
        """See `InfluenceRule.course`."""
        return course(cell, state, within=self.n)
