"""Learning step by step: a rule, an update and a cell as one loop over a stream."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell, ConstrainedCell
from ..core.checks import sentence
from ..core.engine import check_sequence
from ..core.loss import Loss
from ..core.rule import Chunk, LearningRule
from ..core.spec import zeros
from ..core.tree import Tree
from .linearised import learning
from .updates import UpdateRule

if TYPE_CHECKING:
    from .native_loop import Bound


class OnlineState(NamedTuple):
    """Everything but the parameters that the next step reads: tensors alone, so it can be stored and gone on from.

    Args:
        carry: of the rule; the cell's state is in it.
        update: of the update.
    """

    carry: Any
    update: Any


class OnlineTrace(NamedTuple):
    """What a stretch of learning leaves.

    Args:
        losses: (T,) weighted sum of the loss over the rows, before the update that follows it.
        weights: (T,) sum of the weights.
        outputs: what the cell put out, leaves (T, B, ...).
    """

    losses: Tensor
    weights: Tensor
    outputs: Tree


_MANY = 100
_SAID: set[str] = set()


def _say(sentence: str) -> None:
    if sentence not in _SAID:
        _SAID.add(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)


@dataclass(frozen=True)
class Online:
    """Learn at every step of a stream: predict, compare, change the parameters, go on with the next step.

        carry, direction = rule.step(one step);   parameters = update(parameters, direction)

    A chunk of T steps is T steps of learning, an update after each. A step whose weights are all zero (padding too) changes
    no parameter and nothing that the update keeps; the cell and the rule go on. ``controls.reset`` starts rows again
    inside the chunk, so thousands of short sequences go in one call, one behind the other. The loss is *summed* over the
    rows of a batch: a learning rate counts for one row.

    Args:
        rule: any learning rule that takes single steps. One of kind "step" is subtracted as it is.
        loss: a value for each step.
        update: `SGD`, `Adam`, `Sum`; None for a rule of kind "step".
        native: run as one loop in machine code, see `recurra.learning.native_loop`. None for chunks of 100 steps and more,
            where that is possible; True for all chunks, with a warning where it is not; False for the readable loop.
    Raises:
        TypeError: an update is missing, or given to a rule that makes steps itself.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> from recurra.learning import RTRL, SGD, Online
        >>> cell, online = ElmanCell(1, 4), Online(RTRL(), MeanSquaredError(), SGD(lr=0.02))
        >>> wave = torch.sin(torch.arange(61) / 4).reshape(-1, 1, 1)
        >>> state = online.init(cell, batch_size=1)
        >>> state, trace = online.run(cell, state, Chunk(wave[:-1], wave[1:].expand(-1, -1, 4)))
        >>> trace.losses.shape, bool(trace.losses[-10:].mean() < trace.losses[:10].mean())
        (torch.Size([60]), True)
    """

    rule: LearningRule[Any]
    loss: Loss
    update: UpdateRule | None = None
    native: bool | None = None

    def __post_init__(self) -> None:
        name = type(self.rule).__name__
        if self.rule.kind == "step" and self.update is not None:
            raise TypeError(
                sentence("Online", "update", f"None for {name}, which makes steps itself", repr(self.update))
            )
        if self.rule.kind != "step" and not isinstance(self.update, UpdateRule):
            raise TypeError(sentence("Online", "update", "an update such as SGD(lr=0.1)", repr(self.update)))

    def init(self, cell: Cell, batch_size: int, seed: int = 0) -> OnlineState:
        """Before the first step.

        Raises:
            TypeError: the rule does not support the cell or the loss.
        """
        self._check(cell)
        update = () if self.update is None else self.update.init(learning(cell))
        return OnlineState(self.rule.init(cell, batch_size, seed=seed), update)

    def run(
        self, cell: Cell, state: OnlineState, chunk: Chunk, lr_factor: float | Tensor = 1.0
    ) -> tuple[OnlineState, OnlineTrace]:
        """Learn from a stretch of the stream. The parameters of ``cell`` are changed in place.

        Args:
            cell: what learns.
            state: from `init` or the last call.
            chunk: T steps of B rows.
            lr_factor: the learning rate is multiplied by it: a number, or (T,) one for each step.

        Raises:
            ValueError: a wrong shape.
            TypeError: a wrong structure or dtype, or what the rule does not support.
        """
        self._check(cell)
        num_steps, batch_size = check_sequence(cell, chunk.xs, None, chunk.controls)
        if chunk.weights is not None and chunk.weights.shape != (num_steps, batch_size):
            got = tuple(chunk.weights.shape)
            raise ValueError(sentence("Online", "weights", f"({num_steps}, {batch_size})", got))
        factor = torch.as_tensor(lr_factor, dtype=cell.dtype, device=cell.device)
        if factor.shape not in ((), (num_steps,)):
            raise ValueError(sentence("Online", "lr_factor", f"a number or ({num_steps},)", tuple(factor.shape)))
        if num_steps == 0:
            outputs = zeros(cell.output_spec, 0, batch_size, dtype=cell.dtype, device=cell.device)
            return state, OnlineTrace(factor.new_zeros(0), factor.new_zeros(0), outputs)
        if chunk.weights is not None:
            chunk = chunk._replace(weights=chunk.weights.to(cell.dtype))
        if self.native or (self.native is None and num_steps >= _MANY):
            from .native_loop import Growing, native_run

            done, few = 0, 1
            before: list[OnlineTrace] = []
            while done < num_steps:
                part = _window(chunk, done, num_steps) if done else chunk
                rate = factor[done:] if factor.ndim else factor
                go = native_run(self, cell, state, part, rate)
                if not isinstance(go, str):
                    state, trace = go()
                    return state, _joined([*before, trace])
                if not isinstance(go, Growing):
                    if self.native:
                        _say(f"Online(native=True): runs as the readable loop instead, since {go}.")
                    break
                until = min(done + few, num_steps)  # until what the rule keeps has its form
                state, trace = self.loop(
                    cell, state, _window(chunk, done, until), factor[done:until] if factor.ndim else factor
                )
                before.append(trace)
                done, few = until, 2 * few
            if done:
                if done < num_steps:
                    rate = factor[done:] if factor.ndim else factor
                    state, trace = self.loop(cell, state, _window(chunk, done, num_steps), rate)
                    before.append(trace)
                return state, _joined(before)
        return self.loop(cell, state, chunk, factor)

    def why_not_native(self, cell: Cell, state: OnlineState, chunk: Chunk) -> str | None:
        """None if chunks like this one can run in machine code, else the reason why not, in one sentence."""
        from .native_loop import native_run

        self._check(cell)
        check_sequence(cell, chunk.xs, None, chunk.controls)
        go = native_run(self, cell, state, chunk, torch.ones((), dtype=cell.dtype))
        return go if isinstance(go, str) else None

    def bind(self, cell: Cell, state: OnlineState, chunk: Chunk) -> Bound | str:
        """Chunks of this form in machine code with little to do for each call: single steps of a stream that comes slowly.

        Args:
            cell: what learns; while the result is used, nobody else changes its options.
            state: from `init` or the last call.
            chunk: an example of those to come, without weights and controls.

        Returns:
            Its ``run(state, chunk)`` is that of `Online.run`; or the reason why there is no machine code for such chunks.
        """
        from .native_loop import bind

        self._check(cell)
        check_sequence(cell, chunk.xs, None, chunk.controls)
        return bind(self, cell, state, chunk)

    def _check(self, cell: Cell) -> None:
        reason = self.rule.supports(cell, self.loss)
        if reason is not None:
            raise TypeError(f"Online({type(self.rule).__name__}): {reason}")

    def loop(self, cell: Cell, state: OnlineState, chunk: Chunk, factor: Tensor) -> tuple[OnlineState, OnlineTrace]:
        """The readable loop. Arguments as for `run`, already checked, and at least one step."""
        carry, moments = state
        num_steps = int(tree.leaves(chunk.xs)[0].shape[0])
        factor = factor.expand(num_steps)
        parameters = learning(cell)
        constrained = [m for m in cell.modules() if isinstance(m, ConstrainedCell)]
        counted = counts(chunk, num_steps).tolist()
        losses, weights, outputs = [], [], []
        for t, counts_now in enumerate(counted):
            carry, estimate = self.rule.step(cell, carry, _window(chunk, t, t + 1), self.loss)
            if counts_now:
                if self.update is None:
                    moved = {name: parameters[name].detach() - d for name, d in estimate.direction.items()}
                else:
                    values = {name: p.detach() for name, p in parameters.items()}
                    moved, moments = self.update.apply(values, estimate.direction, moments, factor[t])
                with torch.no_grad():
                    for name, value in moved.items():
                        parameters[name].copy_(value)
                    for part in constrained:
                        part.constrain()
            losses.append(estimate.loss)
            weights.append(estimate.weight)
            outputs.append(tree.at(estimate.outputs, 0))
        return OnlineState(carry, moments), OnlineTrace(torch.stack(losses), torch.stack(weights), tree.stack(outputs))


def _window(chunk: Chunk, a: int, b: int) -> Chunk:
    weights = None if chunk.weights is None else chunk.weights[a:b]
    return Chunk(tree.window(chunk.xs, a, b), tree.window(chunk.targets, a, b), weights, chunk.controls.window(a, b))


def _joined(traces: list[OnlineTrace]) -> OnlineTrace:
    return traces[0] if len(traces) == 1 else tree.concatenate(traces)


def counts(chunk: Chunk, num_steps: int) -> Tensor:
    """(T,) bool: the steps that anything is learned from, some weight outside the padding being other than zero."""
    alive, weights = chunk.controls.alive(num_steps), chunk.weights
    if weights is None:
        return torch.ones(num_steps, dtype=torch.bool) if alive is None else alive.any(1)
    return ((weights != 0) if alive is None else (weights != 0) & alive).any(1)
