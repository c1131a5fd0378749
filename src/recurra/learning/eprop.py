"""E-prop: eligibility times learning signal; on LSTM the truncated gradient of 1997."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..core import tree
from ..core.cell import Cell
from ..core.loss import Loss, SequenceLoss
from ..core.tree import Tree
from .influence import Course, Cut, course, cut_step
from .linearised import Stretch
from .rtrl import InfluenceCarry, InfluenceRule
from .step_graph import StepGraph, Untraceable


@dataclass(frozen=True)
class EProp(InfluenceRule):
    """Eligibility traces times learning signals. On LSTM it is the truncated gradient of 1997.

        e_t = D_t e_{t-1} + d s_t / d theta                        eligibility, D_t = d s_t / d s_{t-1} element by element
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1}) e_{t-1})    learning signal times eligibility

    Both are found from the graph of the cell's step. What the state before sends into anything that mixes elements (a product
    with weights, a sum) is cut: no error travels back in time through it, and no influence forward. What is carried on
    element by element keeps its influence: c of an LSTM, h of an independently recurrent or leaky unit, z h of a GRU.
    Eligibility is what a parameter does to the element of the state that it feeds; its way through further products is
    left out. The learning signal is the gradient of the step's loss, with nothing cut on its way down through readout and
    layers, until it meets the element-wise past. Put the readout into the cell (`Readout`).

    The truncated gradient of LSTM 1997 = ``EProp()``: Hochreiter & Schmidhuber cut the error at the net inputs of cells and
    gates and keep what circulates in c (their appendix A.1), which is what is left here of their step. A cell whose state
    passes through products only (a simple recurrent network) has no eligibility, and this is `TruncatedBPTT` with
    k1 = k2 = 1.

    Raises:
        TypeError: as `RTRL`, and for a step that torch cannot write down as a graph.
    Source:
        Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein & Maass 2020, Nature Communications 11:3625,
        doi:10.1038/s41467-020-17236-y (from memory); Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780,
        doi:10.1162/neco.1997.9.8.1735, equations 19 to 28 (read in a copy)
    Differs:
        From Bellec 2020: the learning signal is the exact one of the step ("symmetric"), never a random one, and of the
        moment, not filtered by a leaky readout unless the readout is a leaky layer of the cell.
        Of layers above one another, each keeps the eligibility of its own parameters only as far as its element-wise
        recurrence goes; an error that an upper layer's state has kept does not reach the layer below it later.
    Cost:
        One number for each parameter and each element of the state that it feeds and that is carried on; time O(P) for
        each row and step.
    Example:
        >>> from recurra.cells import LSTMCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> from recurra.wrappers import Readout
        >>> cell, rule = Readout(LSTMCell(3, 5), 2), EProp()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> [block.shape for block in carry.influence][:2]  # rows of i, f and g: each feeds one element of c
        [torch.Size([2, 1, 15, 3]), torch.Size([2, 1, 15, 5])]
    """

    exempt: ClassVar[dict[str, str]] = {"exact": "Errors do not travel back in time through products with weights."}

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose step torch can write down as a graph, and a loss with a value for each step."""
        reason = super().supports(cell, loss)
        if reason is None:
            assert isinstance(cell, Cell)
            try:
                self.course(cell, cell.initial_state(1))
            except Untraceable as error:
                return str(error)
        return reason

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> InfluenceCarry:
        """The initial state and its own influence; none where `supports` says no."""
        try:
            return super().init(cell, batch_size, seed=seed)
        except Untraceable:
            assert isinstance(cell, Cell)
            state = tree.detach(cell.initial_state(batch_size))
            return InfluenceCarry(state, (), torch.Generator().manual_seed(seed).get_state())

    def course(self, cell: Cell, state: Tree) -> Course:
        """See `InfluenceRule.course`."""
        try:
            return course(cell, state, cut=True)
        except Untraceable as error:
            raise Untraceable(f"it needs the graph of the cell's step: {error}.") from error

    def signal(self, cell: Cell) -> Callable[[Any], StepGraph]:
        """The step that reads the state before by element-wise ways alone."""
        return lambda inputs: _cut(cell, inputs).signal

    def differentiated(self, cell: Cell, made: Stretch) -> StepGraph:
        """The step of element-wise ways."""
        return _cut(cell, made.inputs).eligibility


def _cut(cell: Cell, inputs: Any) -> Cut:
    return cut_step(cell, inputs.xs, inputs.states, inputs.forced, inputs.force_mask)
