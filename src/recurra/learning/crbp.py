"""Causal recursive backpropagation: forward in time within a layer, a few steps back between layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell, CompositeCell, Noisy, PointwiseCell, StochasticCell, quiet
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.engine import check_sequence
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines.loop import Loop, restart
from ..engines.unroll import draw
from .linearised import Stretch, Transition, _Inputs, flat_size, learning, moving
from .rtrl import RTRL


class CRBPCarry(NamedTuple):
    """What goes along, as it was before the steps that are still within reach.

    Args:
        state: (B, ...) before the oldest of these steps.
        layers: what `RTRL` carries for each layer there.
        xs: inputs of these steps, leaves (R, B, ...); None for none.
        reset: (R, B) rows that began again before a step.
        alive: (R, B) False before the stream.
        rng: of the noise.
    """

    state: Tree
    layers: tuple[Any, ...]
    xs: Tree
    reset: Tensor
    alive: Tensor
    rng: Tensor


def _layers(cell: Cell) -> list[Cell]:
    """The cells inside that have a state: what signals pass one after the other."""
    if _is_layered(cell):
        assert isinstance(cell, CompositeCell)
        return [layer for part in cell.parts for layer in _layers(part)]
    return [] if isinstance(cell, PointwiseCell) else [cell]


def _is_layered(cell: Cell) -> bool:
    """Is it made of cells that can run by themselves?"""
    return isinstance(cell, CompositeCell) and len(cell.parts) > 0


class _Layer:
    """One layer along T steps: its outputs, and on the way back what the errors of its outputs mean for its inputs.

    Args:
        controls: of the steps; lengths only without a horizon.
        alive: (T, B) False in the padding and before the stream, None for nowhere.
        kept: the step before which the state is handed on.
        horizon: steps that an error flows back; None for all.
    """

    def __init__(
        self,
        cell: Cell,
        xs: Tree,
        state: Tree,
        controls: Controls,
        alive: Tensor | None,
        kept: int,
        horizon: int | None,
    ) -> None:
        self.cell, self.xs, self.start, self.controls, self.horizon = cell, tree.detach(xs), state, controls, horizon
        self.module = Transition(cell)
        self.num_steps, self.rows = (int(n) for n in tree.leaves(xs)[0].shape[:2])
        self.alive = alive
        reset = controls.reset
        self.restarted = reset if reset is None or self.alive is None else reset & self.alive
        before, outputs = [], []
        with torch.no_grad():
            for t in range(self.num_steps):
                x = tree.at(self.xs, t)
                if self.restarted is not None:
                    state = restart(cell, x, state, self.restarted[t])
                before.append(state)
                y, new = self.module(x, state, *self._forcing(slice(t, t + 1)))
                state = new if self.alive is None else tree.where(self.alive[t], new, state)
                outputs.append(y)
        self.before = tree.stack(before)
        self.outputs = tree.stack(outputs)
        self.handed_on = tree.detach(state if kept == self.num_steps else before[kept])
        self.wanted = torch.zeros(
            self.num_steps, self.rows, flat_size(self.start), dtype=cell.dtype, device=cell.device
        )

    def _forcing(self, steps: slice) -> tuple[Tree, Tensor | None]:
        """What is forced in some steps, side by side: (T * B, ...)."""
        forced, mask = self.controls.forced, self.controls.force_mask
        joined = tree.map(lambda leaf: leaf[steps].flatten(0, 1), forced)
        return joined, None if mask is None else mask[steps].flatten(0, 1)

    def back(self, errors: Sequence[Tensor], floats: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """What the losses want of the inputs and, the states being held fixed, of the parameters.

        Args:
            errors: what they want of the floating leaves of the outputs, (T, B, ...).
            floats: for each floating leaf of the inputs, is it asked for?
        """
        if self.alive is not None:
            errors = [torch.where(_over(self.alive, e), e, torch.zeros_like(e)) for e in errors]
        flat_errors = [e.flatten(0, 1) for e in errors]
        parameters = list(learning(self.cell).values())
        with torch.enable_grad():
            xs = tree.map(lambda leaf: leaf.flatten(0, 1), self.xs)
            held = tree.map(lambda leaf: leaf.flatten(0, 1).clone(), self.before)
            xs = tree.map(lambda leaf: leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf, xs)
            held = tree.map(lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf, held)
            y, new = self.module(xs, held, *self._forcing(slice(None)))
        ys, news = _floating(y), _floating(new)
        inputs, states = _floating(xs), _floating(held)
        found = _pull(ys, [*parameters, *inputs, *states], flat_errors)
        direct = found[: len(parameters)]
        of_inputs = found[len(parameters) : len(parameters) + len(inputs)]
        wanted = [_filled(g, s) for g, s in zip(found[len(parameters) + len(inputs) :], states)]
        if states:
            self.wanted = torch.cat([w.flatten(1) for w in wanted], 1).reshape(self.wanted.shape)
        if any(floats) and states and self.horizon != 0:
            if self.horizon is None:
                of_inputs = self._through_time(errors)
            else:
                later = wanted
                for _ in range(min(self.horizon, self.num_steps) - 1):
                    pulled = _pull(news, states, self._earlier(later))
                    later = [w + _filled(g, w) for w, g in zip(wanted, pulled)]
                more = _pull(news, inputs, self._earlier(later))
                of_inputs = [g if m is None else m if g is None else g + m for g, m in zip(of_inputs, more)]
        shaped = [None if g is None else g.reshape(self.num_steps, self.rows, *g.shape[1:]) for g in of_inputs]
        return shaped, direct

    def _earlier(self, wanted: list[Tensor]) -> list[Tensor]:
        """What is wanted of the states before all steps, as wanted of the states after the step before each."""
        leaves = [w.reshape(self.num_steps, self.rows, -1) for w in wanted]
        if self.restarted is not None:
            free = moving(self.cell, tree.at(self.xs, 0), tree.at(self.before, 0)).to(leaves[0].device)
            begun = self.restarted.unsqueeze(-1)
            parts = free.split([leaf.shape[2] for leaf in leaves])
            leaves = [torch.where(begun & part, torch.zeros_like(leaf), leaf) for leaf, part in zip(leaves, parts)]
        shifted = [torch.cat([leaf[1:], torch.zeros_like(leaf[:1])]) for leaf in leaves]
        if self.alive is not None:
            shifted = [torch.where(self.alive.unsqueeze(-1), leaf, torch.zeros_like(leaf)) for leaf in shifted]
        return [s.reshape(w.shape) for s, w in zip(shifted, wanted)]

    def _through_time(self, errors: Sequence[Tensor]) -> list[Tensor | None]:
        """The errors back to the first step: plain backpropagation through time within the layer."""
        with torch.enable_grad():
            xs = tree.map(lambda leaf: leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf, self.xs)
            ys, _ = Loop().run(self.cell, xs, self.start, self.controls)
        found = _pull(_floating(ys), _floating(xs), errors)
        return [None if g is None else g.flatten(0, 1) for g in found]

    def influences(self, carry: Any, kept: int) -> tuple[Any, list[Direction]]:
        """What `RTRL` carries before step ``kept``, and what the losses want of the parameters through the states."""
        rule, generator = RTRL(), torch.Generator()
        found = []
        if kept:
            carry, direction = rule.follow(self.cell, carry, self._stretch(0, kept), generator)
            found.append(direction)
        if kept < self.num_steps:
            found.append(rule.follow(self.cell, carry, self._stretch(kept, self.num_steps), generator)[1])
        return carry, found

    def _stretch(self, start: int, stop: int) -> Stretch:
        """Some of the steps, as rules that go forward in time see them."""
        controls = self.controls.window(start, stop)
        inputs = _Inputs(
            tree.window(self.xs, start, stop),
            tree.window(self.before, start, stop),
            controls.forced,
            controls.force_mask,
        )
        restarted = None if self.restarted is None else self.restarted[start:stop]
        alive = None if self.alive is None else self.alive[start:stop]
        nothing = self.wanted.new_zeros(())
        ys = tree.window(self.outputs, start, stop)
        return Stretch({}, self.wanted[start:stop], restarted, alive, nothing, nothing, ys, self.handed_on, inputs)


class _Pass(torch.autograd.Function):
    """A layer in autograd's graph: forward its outputs, backward `_Layer.back`."""

    @staticmethod
    def forward(ctx: Any, layer: _Layer, num_inputs: int, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.layer, ctx.num_inputs = layer, num_inputs
        return tuple(leaf.clone() for leaf in _floating(layer.outputs))

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        wanted = ctx.needs_input_grad[2 : 2 + ctx.num_inputs]
        of_inputs, direct = ctx.layer.back(errors, wanted)
        asked = [g if w else None for g, w in zip(of_inputs, wanted)]
        return (None, None, *asked, *direct)


def _floating(values: Tree) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(values) if leaf.is_floating_point()]


def _filled(grad: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if grad is None else grad


def _over(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))


def _cleared(values: Tree, mask: Tensor) -> Tree:
    """Zeros where the mask (T, B) is False."""
    return tree.map(lambda leaf: torch.where(_over(mask, leaf), leaf, torch.zeros_like(leaf)), values)


def _pull(outputs: list[Tensor], inputs: list[Tensor], errors: Sequence[Tensor]) -> list[Tensor | None]:
    """Errors of outputs pulled back to inputs; the graph stays."""
    pairs = [(out, error) for out, error in zip(outputs, errors) if out.requires_grad]
    if not pairs or not inputs:
        return [None] * len(inputs)
    outs, given = zip(*pairs)
    return list(torch.autograd.grad(outs, inputs, given, allow_unused=True, retain_graph=True))


@dataclass(frozen=True)
class CRBP(LearningRule[CRBPCarry]):
    """Causal recursive backpropagation: for nets of layers whose recurrence is inside the layers.

        within a layer     J_t = (d s_t / d s_{t-1}) J_{t-1} + d s_t / d theta           forward in time, as `RTRL`
        between layers     e_x(t) = sum_{p=0}^{Q} e_y(t + p) d y(t + p) / d x(t)          at most Q steps back in time
        direction          sum_t e_y(t) (d y_t / d theta + (d y_t / d s_{t-1}) J_{t-1})   for the parameters of each layer

    e_y is the error at a layer's outputs, e_x the one it hands down to the layer below. With Q = 0 an error goes down within
    its step alone, which is the algorithm of Back & Tsoi (1991) for IIR synapses, and BPS (Gori, Bengio & De Mori 1989) where
    all dynamics stands in the first layer, for which it is exact. For FIR synapses, Q = K - 1 is temporal backpropagation (Wan
    1990) and exact. In general, what is left out is the impulse response of a layer beyond Q steps.

    It runs on every cell: layers are the cells inside a composite (a stack, a readout ...); any other cell is one layer,
    and the rule is `RTRL` there. The work of going forward is small where a layer's recurrence is local.

    Args:
        horizon: Q; None hands errors down to the beginning of the chunk: RBP, the exact gradient of a whole sequence at once.
    Raises:
        ValueError: a horizon below 0, or lengths together with a horizon above 0 and several layers.
        TypeError: no cell, a loss of whole sequences, weights that are noisy for a sequence.
    Source:
        Campolucci, Uncini, Piazza & Rao 1999, "On-line learning algorithms for locally recurrent neural networks", IEEE
        Transactions on Neural Networks 10(2):253-271, doi:10.1109/72.750549 (abstract read, equations from memory)
    Differs:
        The paper delays the changes of the lower layers until the errors of the next Q steps are there. Here each loss goes
        back to the steps it comes from as soon as it is there, for which the last Q (layers - 1) steps are run again with the
        parameters of now. While the parameters stay, both add up to the same: chunks of any length, T = 1 included.
    Cost:
        For every layer, that of `RTRL` on this layer alone, and with a horizon Q backward passes of a step, of all steps
        of the chunk at once. Memory does not grow with the length of the stream.
    Example:
        >>> from recurra.cells import IIRSynapseCell
        >>> from recurra.core import MeanSquaredError
        >>> from recurra.wrappers import Stack
        >>> cell, rule = Stack(IIRSynapseCell(1, 3), IIRSynapseCell(3, 1)), CRBP(horizon=10)
        >>> chunk = Chunk(torch.zeros(20, 2, 1), torch.zeros(20, 2, 1))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> estimate.direction["layers.0.weight_hh"].shape, carry.xs.x.shape
        (torch.Size([2, 3, 1]), torch.Size([10, 2, 1]))
    """

    horizon: int | None = None

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 0:
            raise ValueError(sentence("CRBP", "horizon", "None or at least 0", self.horizon))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose weights are not noisy, a loss with a value for each step, inputs of known size with a horizon."""
        reason = RTRL().supports(cell, loss)
        if reason is None and isinstance(cell, Cell) and self._reach(cell):
            free = [leaf for leaf in tree.leaves(cell.input_spec) if any(isinstance(n, str) for n in leaf.shape)]
            if free:
                return f"inputs of free size, {free[0]}, cannot be kept for later chunks; set the horizon to None."
        return reason

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> CRBPCarry:
        """The initial state; nothing is within reach yet."""
        assert isinstance(cell, Cell)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        layers, reach = tuple(RTRL().init(layer, batch_size) for layer in _layers(cell)), self._reach(cell)
        nothing = torch.zeros(reach, batch_size, dtype=torch.bool, device=cell.device)
        xs = None
        if reach:
            xs = zeros(cell.input_spec, reach, batch_size, dtype=cell.dtype, device=cell.device)
            xs = Noisy(xs, draw(cell, xs, generator).noise) if isinstance(cell, StochasticCell) else xs
        return CRBPCarry(state, layers, xs, nothing, nothing, generator.get_state())

    def _reach(self, cell: Cell) -> int:
        """R, steps before a chunk that its errors come to."""
        return (self.horizon or 0) * max(0, len(_layers(cell)) - 1)

    def step(
        self, cell: nn.Module, carry: CRBPCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[CRBPCarry, Estimate]:
        """The direction of a chunk.

        Raises:
            ValueError: a wrong shape, or lengths where steps before the chunk are run again.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"CRBP: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        num_new, rows = check_sequence(cell, chunk.xs, carry.state, chunk.controls)
        parameters = learning(cell)
        if num_new == 0:
            nothing = torch.zeros((), dtype=cell.dtype, device=cell.device)
            ys = zeros(cell.output_spec, 0, rows, dtype=cell.dtype, device=cell.device)
            return carry, Estimate({n: torch.zeros_like(p) for n, p in parameters.items()}, nothing, nothing, ys)
        reach = self._reach(cell)
        if reach and chunk.controls.lengths is not None:
            raise ValueError(sentence("CRBP", "lengths", "None with a horizon", "lengths", "Set the horizon to None."))
        generator = torch.Generator()
        generator.set_state(carry.rng)
        xs, controls, alive = chunk.xs, chunk.controls, chunk.controls.alive(num_new)
        padding = alive
        if padding is not None:
            xs = _cleared(xs, padding)
        if isinstance(cell, StochasticCell) and not isinstance(xs, Noisy):
            xs = Noisy(xs, draw(cell, xs, generator).noise)
        reset, known = carry.reset, carry.alive
        if reach:
            xs = tree.concatenate([carry.xs, xs])
            new = torch.zeros(num_new, rows, dtype=torch.bool, device=reset.device)
            reset = torch.cat([reset, new if controls.reset is None else controls.reset])
            known = alive = torch.cat([known, ~new])
            controls = Controls(reset=reset)
        made: list[_Layer] = []
        with torch.enable_grad():
            ys, state = self._run(cell, xs, carry.state, controls, alive, num_new, made)
            ys = tree.window(ys, reach, reach + num_new)
            if padding is not None:
                ys = _cleared(ys, padding)
            value, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, padding)
            found: Sequence[Tensor | None] = [None] * len(parameters)
            if value.requires_grad:
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        direction = {n: _filled(g, p).detach() for (n, p), g in zip(parameters.items(), found)}
        names = {id(p): n for n, p in parameters.items()}
        places: dict[int, list[int]] = {}  # a cell that is two layers has two places
        for i, inside in enumerate(_layers(cell)):
            places.setdefault(id(inside), []).append(i)
        layers = list(carry.layers)
        for layer in made:
            place = places[id(layer.cell)].pop(0)
            layers[place], found_there = layer.influences(layers[place], num_new)
            own = learning(layer.cell)
            for name, part in ((n, d) for one in found_there for n, d in one.items()):
                direction[names[id(own[name])]] = direction[names[id(own[name])]] + part
        if reach:
            xs, reset, known = (tree.window(v, num_new, num_new + reach) for v in (xs, reset, known))
        else:
            xs = carry.xs
        after = CRBPCarry(tree.detach(state), tuple(layers), tree.detach(xs), reset, known, generator.get_state())
        return after, Estimate(direction, value.detach(), weight.detach(), tree.detach(ys))

    def _run(
        self,
        cell: Cell,
        xs: Tree,
        state: Tree,
        controls: Controls,
        alive: Tensor | None,
        kept: int,
        made: list[_Layer],
    ) -> tuple[Tree, Tree]:
        """The cell along all steps, layer by layer: outputs, and the state before step ``kept``."""
        if _is_layered(cell):
            assert isinstance(cell, CompositeCell)
            inside = controls.without_forcing()
            return cell.compose(lambda part, x, s: self._run(part, x, s, inside, alive, kept, made), quiet(xs), state)
        if isinstance(cell, PointwiseCell):
            return cell.pointwise(xs), ()
        layer = _Layer(cell, xs, state, controls, alive, kept, self.horizon)
        made.append(layer)
        inputs = _floating(xs)
        floats = iter(_Pass.apply(layer, len(inputs), *inputs, *learning(cell).values()))
        ys = tree.map(lambda leaf: next(floats) if leaf.is_floating_point() else leaf, layer.outputs)
        return ys, layer.handed_on
