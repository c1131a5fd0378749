"""Backpropagation through time, whole and truncated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell, advance, project
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from ..core.tree import Tree
from ..engines import Auto, Hoisted, unroll
from ..engines.hoisted import run_structure
from ..engines.loop import scan
from ..engines.unroll import Drawn, draw


class BPTTCarry(NamedTuple):
    """rng: state of the generator that noise is drawn from."""

    rng: Tensor


def _generator(rng: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(rng)
    return generator


def _seeded(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()


def _gradient(loss: Tensor, module: nn.Module) -> Direction:
    """d loss / d p for every parameter that learns; zero where the loss does not depend on it."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not loss.requires_grad:
        return {name: torch.zeros_like(p) for name, p in named.items()}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found)}


def _call(module: nn.Module, chunk: Chunk, engine: Engine, generator: torch.Generator) -> Tree:
    """Outputs of a cell from its initial state, or of any other module."""
    if isinstance(module, Cell):
        return unroll(module, chunk.xs, None, chunk.controls, engine=engine, generator=generator)[0]
    given = {name: value for name, value in chunk.controls._asdict().items() if value is not None}
    out = module(chunk.xs, **given)
    return out[0] if isinstance(out, tuple) and len(out) == 2 else out


def _total(loss: Loss | SequenceLoss, ys: Tree, chunk: Chunk, num_steps: int) -> tuple[Tensor, Tensor]:
    """The weighted sum of the loss and the sum of the weights."""
    if isinstance(loss, SequenceLoss):
        each = loss.per_sequence(ys, chunk.targets, chunk.controls.lengths)
        return each.sum(), torch.tensor(float(each.shape[0]), dtype=each.dtype, device=each.device)
    return weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, chunk.controls.alive(num_steps))


@dataclass(frozen=True)
class BPTT(LearningRule[BPTTCarry]):
    """Backpropagation through time: the exact gradient of a chunk that starts from the initial state.

        direction = d/dtheta sum_t w_t L(y_t, target_t)

    It takes any module: a cell is run by ``engine``; anything else is called as ``module(xs, lengths=..., reset=...)`` with
    the controls that are given, and returns ys or ``(ys, state)``.

    Args:
        engine: how to run a cell.
    Raises:
        ValueError: what the engine raises.
    Source:
        Werbos 1990, Proceedings of the IEEE 78(10):1550-1560, doi:10.1109/5.58337 (from memory)
    Cost:
        About three forward passes; memory grows with T (see `Checkpointed`).
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), BPTT()
        >>> chunk = Chunk(torch.zeros(7, 2, 3), torch.zeros(7, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> estimate.direction["weight_hh"].shape
        torch.Size([5, 5])
    """

    engine: Engine = field(default_factory=Auto)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> BPTTCarry:
        """Only the random generator is carried."""
        return BPTTCarry(_seeded(seed))

    def step(
        self, cell: nn.Module, carry: BPTTCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[BPTTCarry, Estimate]:
        """The exact gradient of one chunk."""
        generator = _generator(carry.rng)
        with torch.enable_grad():
            ys = _call(cell, chunk, self.engine, generator)
            value, weight = _total(loss, ys, chunk, int(tree.leaves(ys)[0].shape[0]))
            direction = _gradient(value, cell)
        estimate = Estimate(direction, value.detach(), weight.detach(), tree.detach(ys))
        return BPTTCarry(generator.get_state()), estimate


_SHORT = 4


@dataclass(frozen=True)
class _Cutting(Engine):
    """Runs as `Hoisted` does, and cuts the history of the state after every ``every`` steps.

    The values are those of every engine; the gradient is the sum of the stretches' own. One run and one backward pass
    take the place of T / every of each.
    """

    every: int

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        done = run_structure(self, cell, xs, state, controls)
        if done is not None:
            return done
        num_done = 0

        def step(x: Tree, s: Tree) -> tuple[Tree, Tree]:
            nonlocal num_done
            num_done += 1
            y, new = advance(cell, x, s)
            return y, tree.detach(new) if num_done % self.every == 0 else new

        first_x = None if controls.reset is None else tree.at(xs, 0)
        return scan(cell, step, project(cell, xs), state, controls, first_x)


class Past(NamedTuple):
    """The steps that a truncated gradient still reaches: their inputs, their controls, and the state before them."""

    xs: Tree
    controls: Controls
    state: Tree


class TruncatedBPTTCarry(NamedTuple):
    """state: (B, ...) after the last step; past: the last k2 - k1 steps, None where k2 = k1; rng: of the noise."""

    state: Tree
    past: Past | None
    rng: Tensor


@dataclass(frozen=True)
class TruncatedBPTT(LearningRule[TruncatedBPTTCarry]):
    """Truncated backpropagation through time over an endless stream.

    Every k1 steps, the losses of these k1 steps are differentiated through the last k2 steps. The state is carried from
    chunk to chunk without its history; ``controls.reset`` starts rows again. Each loss counts once.

        direction = sum over stretches of  d/dtheta sum_{t in last k1} w_t L_t,   history cut k2 steps back

    With k1 = k2 = T it is `BPTT` from the carried state. Where k2 > k1, the k2 - k1 earlier steps are run again with the
    parameters of now, from the state that was kept before them.

    Args:
        k1: steps between two backward passes; None for the whole chunk.
        k2: steps that a backward pass reaches back, at least k1; None for k1.
        engine: how to run the cell.
    Raises:
        ValueError: k2 < k1, or lengths together with k2 > k1.
    Source:
        Williams & Peng 1990, Neural Computation 2(4):490-501, BPTT(h; h') with h = k2, h' = k1 (from memory)
    Cost:
        k2 / k1 forward and backward passes. Short stretches with k2 = k1 (Elman's copied-back context is k1 = k2 = 1) take
        one pass together, by a run that cuts the state's history as it goes.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), TruncatedBPTT(k1=2, k2=4)
        >>> carry = rule.init(cell, 2)
        >>> chunk = Chunk(torch.zeros(7, 2, 3), torch.zeros(7, 2, 5))
        >>> carry, estimate = rule.step(cell, carry, chunk, MeanSquaredError())
        >>> carry.past.xs.shape
        torch.Size([2, 2, 3])
    """

    k1: int | None = None
    k2: int | None = None
    engine: Engine = field(default_factory=Auto)

    def __post_init__(self) -> None:
        for name, value in (("k1", self.k1), ("k2", self.k2)):
            if value is not None and value < 1:
                raise ValueError(sentence("TruncatedBPTT", name, "at least 1", value))
        if self.k2 is not None and (self.k1 is None or self.k2 < self.k1):
            raise ValueError(sentence("TruncatedBPTT", "k2", f"at least k1={self.k1}", self.k2, "Give both."))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell, and a loss with a value for each step."""
        if not isinstance(cell, Cell):
            return f"it carries a state and needs a Cell, not {type(cell).__name__}; BPTT() takes any module."
        if isinstance(loss, SequenceLoss):
            return f"{type(loss).__name__} is a loss of whole sequences; use BPTT()."
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> TruncatedBPTTCarry:
        """The cell's initial state."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = cell.initial_state(batch_size)
        return TruncatedBPTTCarry(tree.detach(state), None, _seeded(seed))

    def step(
        self, cell: nn.Module, carry: TruncatedBPTTCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[TruncatedBPTTCarry, Estimate]:
        """The truncated gradient of one chunk, stretch by stretch."""
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"TruncatedBPTT: {reason}")
        assert isinstance(cell, Cell)
        num_steps = int(tree.leaves(chunk.xs)[0].shape[0])
        k1 = self.k1 or max(1, num_steps)
        reach = (self.k2 or k1) - k1
        if reach and chunk.controls.lengths is not None:
            raise ValueError(sentence("TruncatedBPTT", "lengths", "None where k2 > k1", "lengths", "Set k2 = k1."))
        generator = _generator(carry.rng)
        state, past = carry.state, carry.past
        if k1 <= _SHORT and k1 < num_steps and not reach and past is None and self._may_cut(cell, chunk):
            whole = TruncatedBPTT(engine=_Cutting(k1))
            state, past, estimate = whole._stretch(cell, state, None, chunk, loss, 0, generator)
            return TruncatedBPTTCarry(state, past, carry.rng), estimate
        total: list[Estimate] = []
        for a in range(0, num_steps, k1):
            part = _window(chunk, a, min(a + k1, num_steps))
            state, past, estimate = self._stretch(cell, state, past, part, loss, reach, generator)
            total.append(estimate)
        return TruncatedBPTTCarry(state, past, generator.get_state()), _add(total)

    def _may_cut(self, cell: Cell, chunk: Chunk) -> bool:
        """May all stretches be one run? Not with an engine asked for, nor where each stretch draws random numbers."""
        if not isinstance(self.engine, Auto | Hoisted):
            return False
        drawn = draw(cell, tree.window(chunk.xs, 0, 1), torch.Generator())
        return drawn.noise is None and not drawn.weights

    def _stretch(
        self,
        cell: Cell,
        state: Tree,
        past: Past | None,
        chunk: Chunk,
        loss: Any,
        reach: int,
        generator: torch.Generator,
    ) -> tuple[Tree, Past | None, Estimate]:
        """One backward pass: losses of ``chunk``, history of up to ``reach`` more steps."""
        num_new = int(tree.leaves(chunk.xs)[0].shape[0])
        drawn = draw(cell, chunk.xs, generator)
        xs = Noisy(chunk.xs, drawn.noise) if isinstance(cell, StochasticCell) else chunk.xs
        controls = chunk.controls
        if past is not None:
            num_past = int(tree.leaves(past.xs)[0].shape[0])
            xs = tree.concatenate([past.xs, xs])
            controls = _join(past.controls, num_past, controls, num_new, int(tree.leaves(xs)[0].shape[1]))
            state = past.state
        total_steps = int(tree.leaves(xs)[0].shape[0])
        cut = max(0, total_steps - reach)
        weights = Drawn(None, drawn.weights)
        with torch.enable_grad():
            first, kept = unroll(
                cell, tree.window(xs, 0, cut), state, controls.window(0, cut), engine=self.engine, drawn=weights
            )
            ys, end = first, kept
            if cut < total_steps:
                rest = tree.window(xs, cut, total_steps)
                more, end = unroll(
                    cell, rest, kept, controls.window(cut, total_steps), engine=self.engine, drawn=weights
                )
                ys = tree.concatenate([first, more])
            ys = tree.window(ys, total_steps - num_new, total_steps)
            value, weight = _total(loss, ys, chunk, num_new)
            direction = _gradient(value, cell)
        estimate = Estimate(direction, value.detach(), weight.detach(), tree.detach(ys))
        if reach:
            past = Past(
                tree.detach(tree.window(xs, cut, total_steps)), controls.window(cut, total_steps), tree.detach(kept)
            )
        return tree.detach(end), past, estimate


def _window(chunk: Chunk, a: int, b: int) -> Chunk:
    weights = None if chunk.weights is None else chunk.weights[a:b]
    return Chunk(tree.window(chunk.xs, a, b), tree.window(chunk.targets, a, b), weights, chunk.controls.window(a, b))


def _join(past: Controls, num_past: int, new: Controls, num_new: int, batch_size: int) -> Controls:
    """The controls of two stretches, one after the other; neither has lengths."""

    def masks(a: Tensor | None, b: Tensor | None, default: bool) -> Tensor | None:
        if a is None and b is None:
            return None
        device = a.device if a is not None else b.device  # type: ignore[union-attr]
        full: dict[str, Any] = {"dtype": torch.bool, "device": device}
        a = torch.full((num_past, batch_size), default, **full) if a is None else a
        b = torch.full((num_new, batch_size), default, **full) if b is None else b
        return torch.cat([a, b])

    if past.forced is None and new.forced is None:
        return Controls(reset=masks(past.reset, new.reset, False))
    was = past.forced if past.forced is not None else _blank(new.forced, num_past)
    now = new.forced if new.forced is not None else _blank(past.forced, num_new)
    device = tree.leaves(was)[0].device
    none = torch.zeros(1, batch_size, dtype=torch.bool, device=device)
    mask_was = none.expand(num_past, -1) if past.forced is None else past.force_mask
    mask_now = none.expand(num_new, -1) if new.forced is None else new.force_mask
    return Controls(
        None, masks(past.reset, new.reset, False), tree.concatenate([was, now]), masks(mask_was, mask_now, True)
    )


def _blank(like: Tree, num_steps: int) -> Tree:
    return tree.map(lambda leaf: leaf.new_zeros(num_steps, *leaf.shape[1:]), like)


def _add(parts: list[Estimate]) -> Estimate:
    """Stretches add up."""
    if len(parts) == 1:
        return parts[0]
    direction = {
        name: sum((p.direction[name] for p in parts[1:]), parts[0].direction[name]) for name in parts[0].direction
    }
    loss = torch.stack([p.loss for p in parts]).sum()
    weight = torch.stack([p.weight for p in parts]).sum()
    return Estimate(direction, loss, weight, tree.concatenate([p.outputs for p in parts]))
