"""The gradient as signals in the reversed graph, for a whole stretch and online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.engine import check_sequence
from ..core.flow_graph import GraphCell, SignalFlowGraph, flow
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.tree import Tree


class Tape(NamedTuple):
    """What was seen of the last steps, the oldest first: the signals that the reversed graph meets on its way back.

    Args:
        signals: (T, B, N) every node, in the graph's order.
        reset: (T, B) True where a row began again before the step.
        alive: (T, B) False in the padding and before the stream.
    """

    signals: Tensor
    reset: Tensor
    alive: Tensor

    def window(self, start: int, stop: int) -> Tape:
        """Some of the steps."""
        return Tape(*(leaf[start:stop] for leaf in self))

    def join(self, later: Tape) -> Tape:
        """These steps, then those."""
        return Tape(*(torch.cat(pair) for pair in zip(self, later)))


class SignalFlowCarry(NamedTuple):
    """state: leaves (B, ...) after the last step; tape: of the last ``horizon`` steps, None without a horizon."""

    state: Tree
    tape: Tape | None


class _Errors(NamedTuple):
    """What the errors have done so far: gains (G,) their gradient, start (B, L) that of the lines that a row began with."""

    gains: Tensor
    start: Tensor | None


def record(cell: GraphCell, state: Tree, chunk: Chunk) -> tuple[Tape, Tree]:
    """Run the graph along a chunk and keep every signal.

    Returns:
        The tape of its T steps, and the state behind them.
    """
    num_steps, rows = check_sequence(cell, chunk.xs, state, chunk.controls)
    graph, given = cell.graph, chunk.controls
    ones = torch.ones(num_steps, rows, dtype=torch.bool, device=cell.device)
    alive = given.alive(num_steps)
    alive = ones if alive is None else alive
    reset = ~ones if given.reset is None else given.reset & alive
    xs = torch.where(alive.unsqueeze(-1), chunk.xs, torch.zeros_like(chunk.xs))
    start = cell.initial_state(rows)
    kept = []
    with torch.no_grad():
        for t in range(num_steps):
            state = tree.where(reset[t], start, state)
            lines = state[0] if graph.num_delayed else None
            signals, new = flow(graph, xs[t], lines, cell.gains)
            kept.append(torch.stack([signals[node] for node in graph.order], -1))
            if new is not None:
                state = tree.where(alive[t], tree.unflatten(state, [new]), state)
    together = torch.stack(kept) if kept else xs.new_zeros(0, rows, len(graph.order))
    return Tape(together, reset, alive), tree.detach(state)


@torch.no_grad()
def _back(
    graph: SignalFlowGraph,
    turned: SignalFlowGraph,
    gains: Tensor,
    seen: Tape,
    error: Tensor,
    lines: Tensor | None,
    found: _Errors,
) -> tuple[Tensor | None, _Errors]:
    """One step backward through the reversed graph.

    Args:
        seen: of one step: (..., N), (...), (...).
        error: (..., O) what the losses want of the outputs of this step.
        lines: (..., L) error signals on their way through the advances.
    """
    signals = dict(zip(graph.order, seen.signals.unbind(-1)))
    errors, new = flow(turned, torch.where(seen.alive.unsqueeze(-1), error, 0.0), lines, gains, signals)
    parts = []
    for name in graph.gain_names:
        edges = (e for e in graph.edges if e.kind == "gain" and e.value == name)
        product = sum(errors[e.target] * signals[e.source] for e in edges)
        parts.append(torch.where(seen.alive, product, torch.zeros_like(seen.signals[..., 0])).sum())
    total = found.gains + torch.stack(parts) if parts else found.gains
    if new is None or lines is None:
        return None, _Errors(total, None)
    new = torch.where(seen.alive.unsqueeze(-1), new, lines)
    begun = seen.reset.unsqueeze(-1)
    assert found.start is not None
    arrived = _as_lines(graph, torch.where(begun, new, 0.0)).flatten(0, -2).sum(0)
    return torch.where(begun, 0.0, new), _Errors(total, found.start + arrived)


def _as_lines(graph: SignalFlowGraph, lines: Tensor) -> Tensor:
    """Lines of errors in the order of lines of signals: what entered an advance last left the delay last."""
    return torch.cat([lines[..., place].flip(-1) for place in graph.places], -1)


@dataclass(frozen=True)
class SignalFlowAdjoint(LearningRule[SignalFlowCarry]):
    """Gradients by the reversed signal-flow graph, without the chain rule: for cells that are such graphs.

        e = signals of the reversed graph, fed with d L / d y at its inputs, time running backward
        d L / d g = sum_t e_target(t) signal_source(t)        over the edges with gain g

    Without a horizon the errors of a chunk flow back to its beginning: exact for a whole sequence at once. With a horizon, the
    loss of every step flows back that many steps of the stream, also into earlier chunks, whose signals are kept as they
    were: the online form, T = 1 included. Chunks of any length then add up to the same direction while the gains stay.

    Args:
        horizon: steps that the error of a step flows back, at least 0; None for the chunk.
    Raises:
        TypeError: a cell that is no signal-flow graph, a loss of whole sequences.
        ValueError: a horizon below 0, a wrong shape.
    Source:
        Wan & Beaufays 1996, Neural Computation 8(1):182-201, doi:10.1162/neco.1996.8.1.182; online: Campolucci, Uncini &
        Piazza 2000, Neural Computation 12(8):1901-1927, doi:10.1162/089976600300015196 (abstracts read, the rest from memory)
    Cost:
        One pass through the graph and one through the reversed graph for each step; with a horizon of h, h + 1 passes through
        the reversed graph, of all steps of the chunk at once. Memory: N signals for each step of chunk and horizon.
    Example:
        >>> from recurra.cells.signal_flow import SignalFlowCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = next(SignalFlowCell.examples()), SignalFlowAdjoint(horizon=4)
        >>> chunk = Chunk(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> estimate.direction["gains"].shape, carry.tape.signals.shape
        (torch.Size([3]), torch.Size([4, 2, 5]))
    """

    kind: ClassVar = "gradient"
    horizon: int | None = None

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 0:
            raise ValueError(sentence("SignalFlowAdjoint", "horizon", "None or at least 0", self.horizon))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A signal-flow graph, and a loss with a value for each step."""
        if not isinstance(cell, GraphCell):
            return f"it walks a signal-flow graph and needs a GraphCell, not {type(cell).__name__}; use BPTT()."
        if isinstance(loss, SequenceLoss):
            return f"{type(loss).__name__} is a loss of whole sequences; use BPTT()."
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> SignalFlowCarry:
        """The initial state; nothing has been seen."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        if self.horizon is None or not isinstance(cell, GraphCell):
            return SignalFlowCarry(state, None)
        nothing = torch.zeros(self.horizon, batch_size, dtype=torch.bool, device=cell.device)
        signals = nothing.to(cell.dtype).unsqueeze(-1).repeat(1, 1, len(cell.graph.order))
        return SignalFlowCarry(state, Tape(signals, nothing, nothing))

    def step(
        self, cell: nn.Module, carry: SignalFlowCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[SignalFlowCarry, Estimate]:
        """The direction of a chunk."""
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"SignalFlowAdjoint: {reason}")
        assert isinstance(cell, GraphCell)
        assert isinstance(loss, Loss)
        new, state = record(cell, carry.state, chunk)
        places = [cell.graph.order.index(node) for node in cell.graph.outputs]
        with torch.enable_grad():
            ys = torch.where(new.alive.unsqueeze(-1), new.signals[..., places], 0.0).requires_grad_()
            alive = None if chunk.controls.lengths is None else new.alive
            value, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, alive)
            (error,) = torch.autograd.grad(value, [ys]) if value.requires_grad else (torch.zeros_like(ys),)
        if self.horizon is None:
            found, tape = _whole(cell, new, error), None
        else:
            assert carry.tape is not None
            both = carry.tape.join(new)
            found, tape = _online(cell, both, error, self.horizon), both.window(len(error), len(both.reset))
        direction = _direction(cell, found)
        return SignalFlowCarry(state, tape), Estimate(direction, value.detach(), weight.detach(), ys.detach())


def _nothing(cell: GraphCell, *lead: int) -> tuple[Tensor | None, _Errors]:
    """No errors yet: lines (*lead, L), and what they have done."""
    gains, length = torch.zeros_like(cell.gains.detach()), cell.graph.num_delayed
    if not length:
        return None, _Errors(gains, None)
    return gains.new_zeros(*lead, length), _Errors(gains, gains.new_zeros(length))


def _whole(cell: GraphCell, seen: Tape, error: Tensor) -> _Errors:
    """The errors of all steps (T, B, O) together, back to the first one."""
    turned, gains = cell.graph.reversed(), cell.gains.detach()
    lines, found = _nothing(cell, seen.reset.shape[1])
    for t in reversed(range(len(error))):
        here = Tape(*(leaf[t] for leaf in seen))
        lines, found = _back(cell.graph, turned, gains, here, error[t], lines, found)
    return found


def _online(cell: GraphCell, seen: Tape, error: Tensor, horizon: int) -> _Errors:
    """The error of each step (T, B, O) by itself, ``horizon`` steps back along a tape of horizon + T; all side by side."""
    turned, gains, num_steps = cell.graph.reversed(), cell.gains.detach(), len(error)
    lines, found = _nothing(cell, num_steps, seen.reset.shape[1])
    for lag in range(horizon + 1):
        here = seen.window(horizon - lag, horizon - lag + num_steps)
        lines, found = _back(cell.graph, turned, gains, here, error, lines, found)
        error = torch.zeros_like(error)
    return found


def _direction(cell: GraphCell, found: _Errors) -> dict[str, Tensor]:
    """By the parameters' names."""
    values: Mapping[str, Tensor | None] = {"gains": found.gains, "initial_values.lines": found.start}
    direction = {}
    for name, parameter in cell.named_parameters():
        if parameter.requires_grad:
            value = values[name]
            direction[name] = torch.zeros_like(parameter) if value is None else value.reshape(parameter.shape)
    return direction
