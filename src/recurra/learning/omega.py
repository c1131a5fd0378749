"""Errors on their way back in time, and the regulariser that keeps them from vanishing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from ..core.tree import Tree
from .bptt import BPTT, BPTTCarry
from .linearised import Stretch, Transition, flat, learning, moving, stretch


class Errors(NamedTuple):
    """The gradient of a chunk's loss by its states.

    Args:
        arriving: (T, B, S) dE/ds_t, what the steps after step t want of the state after it; zero for the last step.
        passed: (T, B, S) what of it goes on to the state before: dE/ds_t . ds_t/ds_{t-1}.
        own: (T, B, S) dE_t/ds_{t-1}, what the loss of step t itself wants of the state before it.
    """

    arriving: Tensor
    passed: Tensor
    own: Tensor


class Omega(NamedTuple):
    """Value of the regulariser, its direction, and how many steps of rows are counted in it."""

    value: Tensor
    direction: Direction
    counted: Tensor


def errors_along_time(cell: Cell, chunk: Chunk, loss: Loss, *, state: Tree = None, seed: int = 0) -> Errors:
    """How the error of a chunk flows back through its states.

    Args:
        cell: what is looked at.
        chunk: T steps of B rows.
        loss: a value for each step; its weighted sum is E.
        state: before the first step, (B, ...); None for the initial state.
        seed: of the cell's noise.

    Raises:
        ValueError: a wrong shape.

    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> found = errors_along_time(ElmanCell(3, 5), Chunk(torch.zeros(7, 2, 3), torch.ones(7, 2, 5)), MeanSquaredError())
        >>> found.arriving.shape, bool((found.arriving[-1] == 0).all())
        (torch.Size([7, 2, 5]), True)
    """
    return _errors(cell, _taken(cell, chunk, loss, state, torch.Generator().manual_seed(seed)))


def omega(cell: Cell, chunk: Chunk, loss: Loss, *, state: Tree = None, seed: int = 0) -> Omega:
    """The regulariser of vanishing gradients and its gradient, see `Regularised`; arguments as in `errors_along_time`."""
    return _omega(cell, _taken(cell, chunk, loss, state, torch.Generator().manual_seed(seed)))


def _taken(cell: Cell, chunk: Chunk, loss: Loss, state: Tree, generator: torch.Generator) -> Stretch:
    if state is None:
        with torch.no_grad():
            state = tree.detach(cell.initial_state(int(tree.leaves(chunk.xs)[0].shape[1])))
    return stretch(cell, state, chunk, loss, generator)


def _held(states: Tree) -> tuple[Tree, list[Tensor]]:
    """The states with a history that begins here."""
    held = tree.map(lambda leaf: leaf.detach(), states)
    floats = [leaf.requires_grad_() for leaf in tree.leaves(held) if leaf.is_floating_point()]
    return held, floats


def _pulled(module: Transition, inputs: Any, t: int, error: Tensor) -> Tensor:
    """The error (B, S) at the state after step t, at the state before it."""
    at = [None if part is None else tree.at(part, t) for part in inputs]
    with torch.enable_grad():
        held, floats = _held(at[1])
        new = flat(module(at[0], held, at[2], at[3])[1])
        found: Any = (None,) * len(floats)
        if new.requires_grad:
            found = torch.autograd.grad(new, floats, error, allow_unused=True)
    parts = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, floats)]
    return torch.cat([p.flatten(1) for p in parts], 1).detach()


def _errors(cell: Cell, made: Stretch) -> Errors:
    num_steps, _, size = made.wanted.shape
    arriving, passed = torch.zeros_like(made.wanted), torch.zeros_like(made.wanted)
    if size == 0 or num_steps == 0:
        return Errors(arriving, passed, made.wanted)
    module = Transition(cell)
    free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(arriving.device)
    error = torch.zeros_like(arriving[0])
    for t in range(num_steps - 1, -1, -1):
        arriving[t] = error
        on = _pulled(module, made.inputs, t, error)
        if made.alive is not None:
            on = torch.where(made.alive[t][:, None], on, error)
        passed[t] = on
        error = made.wanted[t] + on
        if made.restarted is not None:
            error = torch.where(made.restarted[t][:, None] & free, 0.0, error)
    return Errors(arriving, passed, made.wanted)


def _omega(cell: Cell, made: Stretch) -> Omega:
    errors, parameters = _errors(cell, made), learning(cell)
    num_steps, _, size = made.wanted.shape
    nothing = {n: torch.zeros_like(p).detach() for n, p in parameters.items()}
    zero = errors.arriving.new_zeros(())
    if size == 0 or num_steps == 0 or not parameters:
        return Omega(zero, nothing, zero)
    error = errors.arriving.flatten(0, 1)
    length = error.norm(dim=1)
    counted = length > torch.finfo(length.dtype).tiny
    if made.alive is not None:
        counted = counted & made.alive.flatten()
    parts = tree.map(lambda leaf: leaf.flatten(0, 1), tuple(p for p in made.inputs if p is not None))
    given = iter(parts)
    xs, states, forced, mask = [None if p is None else next(given) for p in made.inputs]
    with torch.enable_grad():
        held, floats = _held(states)
        new = flat(Transition(cell)(xs, held, forced, mask)[1])
        if not new.requires_grad:
            return Omega(zero, nothing, zero)
        found = torch.autograd.grad(new, floats, error, create_graph=True, allow_unused=True)
        kept = [g.flatten(1) for g in found if g is not None]
        if not kept:
            return Omega(zero, nothing, zero)
        squares = torch.cat(kept, 1).square().sum(1)
        counted = counted & (squares > torch.finfo(length.dtype).tiny)
        ratio = torch.where(counted, squares, 1.0).sqrt() / torch.where(counted, length, 1.0)
        value = torch.where(counted, (ratio - 1).square(), 0.0).sum()
        grads: Any = (None,) * len(parameters)
        if value.requires_grad:
            grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    direction = {n: nothing[n] if g is None else g.detach() for n, g in zip(parameters, grads)}
    return Omega(value.detach(), direction, counted.sum().to(value.dtype))


@dataclass(frozen=True)
class Regularised(LearningRule[Any]):
    """A rule with a term that keeps errors from vanishing, and from exploding, on their way back in time.

        Omega = sum_t (|dE/ds_{t+1} . ds_{t+1}/ds_t| / |dE/ds_{t+1}| - 1)^2
        direction = direction of the rule + factor * d+Omega/dtheta

    E is the weighted sum of the losses of the chunk. As in the paper, the derivative is the immediate one: the states s_t
    and the errors dE/ds_{t+1} are held fixed, only ds_{t+1}/ds_t is differentiated. Each row of the batch has norms of its
    own; Omega is a sum over rows and steps, as a loss is.

    Args:
        rule: any rule, `BPTT()` in the paper.
        factor: alpha of the paper, at least 0.
    Raises:
        ValueError: a negative factor.
        TypeError: what the rule raises; a module that is no cell, a loss of whole sequences.
    Source:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", ICML, arXiv:1211.5063,
        equations 9 and 10 (from memory)
    Cost:
        That of the rule, a backward pass for each step, and one second derivative of all steps together.
    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> from recurra.learning import BPTT
        >>> cell, rule = ElmanCell(3, 5), Regularised(BPTT(), factor=2.0)
        >>> chunk = Chunk(torch.zeros(7, 2, 3), torch.ones(7, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> estimate.direction["weight_hh"].shape
        torch.Size([5, 5])
    """

    exempt: ClassVar[Mapping[str, str]] = {
        "exact": "The regulariser is added to the gradient of the loss.",
        "weights": "The regulariser is a ratio of errors: twice the weights leave it as it is.",
    }
    rule: LearningRule[Any] = field(default_factory=BPTT)
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.factor >= 0:
            raise ValueError(sentence("Regularised", "factor", "at least 0", self.factor))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """What the rule supports, on a cell, with a loss of steps."""
        if not isinstance(cell, Cell):
            return f"the regulariser looks at the states of a Cell, not of {type(cell).__name__}."
        if isinstance(loss, SequenceLoss):
            return f"{type(loss).__name__} is a loss of whole sequences; the regulariser needs a loss for each step."
        if self.rule.kind != "gradient":
            return f"{type(self.rule).__name__} gives steps; the regulariser is a gradient."
        return self.rule.supports(cell, loss)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        """That of the rule."""
        return self.rule.init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        """The rule's direction, and the regulariser's."""
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"Regularised: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        after, estimate = self.rule.step(cell, carry, chunk, loss)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        state = None if isinstance(carry, BPTTCarry) else carry.state
        term = _omega(cell, _taken(cell, chunk, loss, state, generator))
        direction = {
            n: d + self.factor * term.direction[n] if n in term.direction else d for n, d in estimate.direction.items()
        }
        return after, estimate._replace(direction=direction)
