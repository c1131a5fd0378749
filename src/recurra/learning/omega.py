"""Errors on their way back in time, and the regulariser that keeps them from vanishing."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.engine import Engine, check_sequence
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines import Auto
from ..engines.loop import restart
from ..engines.unroll import draw
from .bptt import BPTT, BPTTCarry
from .linearised import Transition, flat, learning, moving


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


class _Seen(NamedTuple):
    """A chunk, run.

    Args:
        xs, states, forced, mask: what every step was taken with, leaves (T, B, ...).
        restarted: (T, B) rows that started again before a step, None for none.
        alive: (T, B) False in the padding, None where there is none.
        arriving: see `Errors`.
        estimate: what `BPTT` says of the chunk, from the same backward pass.
    """

    xs: Tree
    states: Tree
    forced: Tree
    mask: Tensor | None
    restarted: Tensor | None
    alive: Tensor | None
    arriving: Tensor
    estimate: Estimate


class _Inputs(NamedTuple):
    """Of one step of `_Shown`: the cell's input, what is added to the state, who starts again, what is forced."""

    x: Tree
    added: tuple[Tensor, ...]
    restart: Tensor | None
    forced: Tree
    mask: Tensor | None


class _Shown(Cell[Any, Any, Any]):
    """A cell that puts out the state before its step too, to which something is added: the derivative by that is dE/ds.

    It knows its cell only while it is used, so that whoever keeps it does not keep the cell.
    """

    cell: Cell

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """None: it is no cell for users."""
        yield from ()

    def initial_state(self, batch_size: int) -> Tree:
        """That of the cell."""
        return self.cell.initial_state(batch_size)

    def step(self, x: _Inputs, state: Tree) -> tuple[Tree, Tree]:
        """Start again, add, and take the cell's step."""
        if x.restart is not None:
            state = restart(self.cell, x.x, state, x.restart)
        added = iter(x.added)
        state = tree.map(lambda leaf: leaf + next(added) if leaf.is_floating_point() else leaf.clone(), state)
        y, new = Transition(self.cell)(x.x, state, x.forced, x.mask)
        return (y, state), new


_SHOWN: weakref.WeakKeyDictionary[Cell, _Shown] = weakref.WeakKeyDictionary()


def _seen(
    cell: Cell,
    chunk: Chunk,
    loss: Loss,
    state: Tree,
    generator: torch.Generator,
    *,
    engine: Engine | None = None,
    wanted: Mapping[str, Tensor] | None = None,
) -> _Seen:
    """Run a chunk forward and backward.

    Args:
        state: before the first step, None for the initial state.
        engine: how to run it.
        wanted: parameters whose gradient is looked for as well.
    """
    xs, controls, wanted = chunk.xs, chunk.controls, wanted or {}
    num_steps, rows = check_sequence(cell, xs, state, controls)
    alive, again = controls.alive(num_steps), controls.reset
    if alive is not None:
        xs = tree.map(lambda leaf: torch.where(_over(alive, leaf), leaf, torch.zeros_like(leaf)), xs)
        again = None if again is None else again & alive
    drawn = draw(cell, xs, generator)
    xs = Noisy(xs, drawn.noise) if isinstance(cell, StochasticCell) and not isinstance(xs, Noisy) else xs
    shown = _SHOWN.get(cell)
    if shown is None:
        shown = _SHOWN[cell] = _Shown()
    shown.cell = cell
    try:
        with torch.enable_grad():
            state = cell.initial_state(rows) if state is None else state
            floats = [leaf for leaf in tree.leaves(state) if leaf.is_floating_point()]
            added = [leaf.new_zeros(num_steps, *leaf.shape).requires_grad_() for leaf in floats]
            given = _Inputs(xs, tuple(added), again, controls.forced, controls.force_mask)
            if num_steps:
                (ys, states), _ = (engine or Auto()).run(shown, given, state, Controls(controls.lengths))
            else:
                ys = zeros(cell.output_spec, 0, rows, dtype=cell.dtype, device=cell.device)
                states = tree.map(lambda leaf: leaf.new_zeros(0, *leaf.shape), state)
            if alive is not None:
                ys = tree.map(lambda leaf: torch.where(_over(alive, leaf), leaf, torch.zeros_like(leaf)), ys)
            value, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, alive)
            named = [*added, *wanted.values()]
            found: Any = (None,) * len(named)
            if value.requires_grad and named:
                found = torch.autograd.grad(value, named, allow_unused=True)
    finally:
        del shown.cell
    found = [torch.zeros_like(leaf) if g is None else g.detach() for g, leaf in zip(found, named)]
    error = torch.zeros(num_steps, rows, 0, dtype=cell.dtype, device=cell.device)
    if added:
        error = torch.cat([part.flatten(2) for part in found[: len(added)]], 2)  # (T, B, S) dE/ds before each step
    if again is not None and error.numel():
        free = moving(cell, tree.at(xs, 0), state).to(error.device)
        error = torch.where(again[:, :, None] & free, 0.0, error)
    arriving = torch.cat([error[1:], torch.zeros_like(error[:1])])
    estimate = Estimate(dict(zip(wanted, found[len(added) :])), value.detach(), weight.detach(), tree.detach(ys))
    states = tree.detach(states)
    return _Seen(xs, states, controls.forced, controls.force_mask, again, alive, arriving, estimate)


def _over(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))


class _Steps(NamedTuple):
    """All steps of a chunk in one call: outputs and next states, (T * B, ...), by states with a history that begins here."""

    ys: Tree
    new: Tensor
    floats: list[Tensor]


def _at_once(cell: Cell, seen: _Seen) -> _Steps:
    """Take the steps again, each from the state that the cell really had."""
    parts = tree.map(lambda leaf: leaf.flatten(0, 1), tuple(p for p in seen[:4] if p is not None))
    given = iter(parts)
    xs, states, forced, mask = [None if p is None else next(given) for p in seen[:4]]
    held = tree.map(lambda leaf: leaf.detach(), states)
    floats = [leaf.requires_grad_() for leaf in tree.leaves(held) if leaf.is_floating_point()]
    ys, new = Transition(cell)(xs, held, forced, mask)
    return _Steps(ys, flat(new), floats)


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
    seen = _seen(cell, chunk, loss, state, torch.Generator().manual_seed(seed))
    arriving, alive = seen.arriving, seen.alive
    if arriving.numel() == 0:
        return Errors(arriving, arriving, arriving)
    with torch.enable_grad():
        steps = _at_once(cell, seen)
        ys = tree.map(lambda leaf: leaf.reshape(*arriving.shape[:2], *leaf.shape[1:]), steps.ys)
        if alive is not None:
            ys = tree.map(lambda leaf: torch.where(_over(alive, leaf), leaf, torch.zeros_like(leaf)), ys)
        value, _ = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, alive)
        passed = _pulled(steps.new, steps.floats, arriving.flatten(0, 1)).reshape(arriving.shape)
        own = _pulled(value, steps.floats, None).reshape(arriving.shape)
    if alive is not None:
        passed = torch.where(alive[:, :, None], passed, arriving)
    return Errors(arriving, passed, own)


def _pulled(what: Tensor, floats: list[Tensor], error: Tensor | None) -> Tensor:
    """(T * B, S) the derivative of something, times an error, by the states."""
    found: Any = (None,) * len(floats)
    if what.requires_grad:
        found = torch.autograd.grad(what, floats, error, retain_graph=True, allow_unused=True)
    parts = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, floats)]
    return torch.cat([p.flatten(1) for p in parts], 1).detach()


def omega(cell: Cell, chunk: Chunk, loss: Loss, *, state: Tree = None, seed: int = 0) -> Omega:
    """The regulariser of vanishing gradients and its gradient, see `Regularised`; arguments as in `errors_along_time`."""
    return _omega(cell, _seen(cell, chunk, loss, state, torch.Generator().manual_seed(seed)))


def _omega(cell: Cell, seen: _Seen) -> Omega:
    parameters = learning(cell)
    nothing = {n: torch.zeros_like(p).detach() for n, p in parameters.items()}
    zero = seen.arriving.new_zeros(())
    if seen.arriving.numel() == 0 or not parameters:
        return Omega(zero, nothing, zero)
    error = seen.arriving.flatten(0, 1)
    length = error.norm(dim=1)
    counted = length > torch.finfo(length.dtype).tiny
    if seen.alive is not None:
        counted = counted & seen.alive.flatten()
    with torch.enable_grad():
        steps = _at_once(cell, seen)
        if not steps.new.requires_grad:
            return Omega(zero, nothing, zero)
        found = torch.autograd.grad(steps.new, steps.floats, error, create_graph=True, allow_unused=True)
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
        That of the rule, a run forward and backward (`BPTT` shares its own), and one second derivative of all steps
        together.
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
        generator = torch.Generator()
        generator.set_state(carry.rng)
        if isinstance(self.rule, BPTT) and not _has_noisy_weights(cell):
            seen = _seen(cell, chunk, loss, None, generator, engine=self.rule.engine, wanted=learning(cell))
            after, estimate = BPTTCarry(generator.get_state()), seen.estimate
        else:
            after, estimate = self.rule.step(cell, carry, chunk, loss)
            state = None if isinstance(carry, BPTTCarry) else carry.state
            seen = _seen(cell, chunk, loss, state, generator)
        term = _omega(cell, seen)
        direction = {
            n: d + self.factor * term.direction[n] if n in term.direction else d for n, d in estimate.direction.items()
        }
        return after, estimate._replace(direction=direction)


def _has_noisy_weights(cell: Cell) -> bool:
    return cell.training and isinstance(cell, StochasticCell) and bool(cell.draw_weights(torch.Generator(cell.device)))
