"""Random feedback local online learning: eligibility by the leak alone, errors by a fixed random matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, ReadoutCell
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk
from ..core.tree import Tree
from .eprop import EProp
from .linearised import Stretch, learning, row_of


class RFLOCarry(NamedTuple):
    """state, influence and rng as in `RTRL`; feedback: (O, H) the fixed matrix that stands for the readout's weights."""

    state: Tree
    influence: tuple[Tensor, ...]
    rng: Tensor
    feedback: Tensor


@dataclass(frozen=True)
class RFLO(EProp):
    """Random feedback local online learning: local in space and time.

        e_t = D_t e_{t-1} + d s_t / d theta         D_t = d s_t / d s_{t-1} element by element (the leak)
        direction = sum_t w_t (B^T dL_t/dy_t) e_t,  and the gradient of the step for the readout

    B is a random matrix that stays as it is, in place of the weights W of the readout y = W phi + b on the way back. What is
    left out of the influence is what `EProp` leaves out: whatever passes through products with weights.

    Raises:
        TypeError: as `EProp`, and for a cell without a linear readout.
    Source:
        Murray 2019, "Local online learning in recurrent networks with random feedback", eLife 8:e43299,
        doi:10.7554/eLife.43299 (from memory)
    Differs:
        The paper's units leak, h' = (1 - 1/tau) h + phi(W h + U x) / tau; here any cell is taken, with what it carries on
        element by element. The matrix is normal, 1/sqrt(H) wide.
    Cost:
        That of `EProp`.
    Example:
        >>> from recurra.cells import LSTMCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> from recurra.wrappers import Readout
        >>> cell, rule = Readout(LSTMCell(3, 5), 2), RFLO()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.feedback.shape
        torch.Size([2, 5])
    """

    exempt: ClassVar[dict[str, str]] = {"exact": "Errors come back by random weights, and not through products."}

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """As `EProp`, and a cell whose readout learns."""
        if not isinstance(cell, ReadoutCell):
            return (
                f"it sends errors back around a linear readout, and {type(cell).__name__} has none; wrap it in Readout."
            )
        if _readout(cell) is None:
            return "the weights of the readout do not learn, or are shared; use EProp()."
        return super().supports(cell, loss)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        """The initial state, its influence, and the random matrix."""
        begun = super().init(cell, batch_size, seed=seed)
        feedback = torch.zeros(0, 0)
        if isinstance(cell, ReadoutCell):
            weight = cell.readout.weight
            generator = torch.Generator().manual_seed(seed)
            feedback = torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / weight.shape[1] ** 0.5
            feedback = feedback.to(weight.device)
        return RFLOCarry(begun.state, begun.influence, begun.rng, feedback)

    def seen(self, cell: Cell, carry: RFLOCarry, chunk: Chunk, loss: Loss, made: Stretch) -> Stretch:
        """The errors at the outputs, sent back by the random matrix.

        y = W phi + b is linear in phi, so the step with B for W, pulled back from the errors at the true outputs, is the way
        back by B.
        """
        assert isinstance(cell, ReadoutCell)
        names = _readout(cell)
        signal = self.signal(cell)(made.inputs)
        num_steps, rows, size = made.wanted.shape
        own, parameters = {id(p) for p in cell.readout.parameters()}, learning(cell)
        others = {n: p for n, p in parameters.items() if id(p) not in own}
        assert names is not None
        with torch.enable_grad():
            ys = tree.map(lambda leaf: leaf.detach().requires_grad_(), made.outputs)
            value, _ = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, made.alive)
            (error,) = torch.autograd.grad(value, [ys], allow_unused=True)
            if error is not None and made.alive is not None:
                error = torch.where(made.alive[..., None], error, 0.0)
            held = tree.map(lambda leaf: leaf.flatten(0, 1).detach(), made.inputs.states)
            floats = [leaf.requires_grad_() for leaf in tree.leaves(held) if leaf.is_floating_point()]
            values = {names: carry.feedback}
            back = row_of(cell, made.inputs, signal).outputs(tree.leaves(held), values)
            wanted = [*others.values(), *floats]
            found: Any = (None,) * len(wanted)
            if error is not None and back.requires_grad:
                found = torch.autograd.grad(back, wanted, error.flatten(0, 1), allow_unused=True)
        filled = [torch.zeros_like(w) if g is None else g.detach() for g, w in zip(found, wanted)]
        direct = {**made.direct, **dict(zip(others, filled))}
        parts = [g.flatten(1) for g in filled[len(others) :]]
        together = torch.cat(parts, 1) if parts else made.wanted.flatten(0, 1)
        return made._replace(direct=direct, wanted=together.reshape(num_steps, rows, size))


def _readout(cell: ReadoutCell[Any, Any, Any]) -> str | None:
    """The name of the readout's weights, if they learn and stand nowhere else."""
    weight = cell.readout.weight
    names = [n for n, p in cell.named_parameters(remove_duplicate=False) if p is weight]
    return names[0] if len(names) == 1 and weight.requires_grad else None
