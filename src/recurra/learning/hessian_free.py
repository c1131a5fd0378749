"""Hessian-free optimisation: the Gauss-Newton matrix by its products alone, and conjugate gradients on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell, advance, project
from ..core.checks import check_positive, sentence
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.tree import Tree
from ..engines import Auto, unroll
from ..engines.loop import scan
from .linearised import learning

_SPACING = 1.3  # between the iterates of conjugate gradients that are kept for the way back
_STEEP = 1e-2  # share of the decrease that the slope promises, below which a step is made shorter
_SHORTER = 0.8
_MOST_HALVINGS = 60


class HessianFreeCarry(NamedTuple):
    """What goes along.

    Args:
        damping: () lambda.
        last: (P,) the last solution of conjugate gradients, from which the next search starts.
        rng: of the cell's noise.
    """

    damping: Tensor
    last: Tensor
    rng: Tensor


class Solution(NamedTuple):
    """Of `conjugate_gradients`: iterates that were kept, the last one included, and how many there were in all."""

    iterates: list[Tensor]
    num_iterations: int


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], wanted: Tensor, start: Tensor, *, most: int, tolerance: float = 5e-4
) -> Solution:
    """Minimise ``q(x) = x^T A x / 2 - b^T x`` for a positive (semi)definite A that is known by its products.

    It ends when the last k = max(10, i / 10) of i iterations have lowered q by less than k ``tolerance`` of what it is, when
    nothing is left to do, or where A is not positive along the way.

    Args:
        product: A v (P,) of v (P,).
        wanted: (P,) b.
        start: (P,) the first x.
        most: iterations at most.
        tolerance: see above; 0 goes on until ``most``.
    Cost:
        A product an iteration; the iterates that are kept, about 4 ln(iterations) of them, P numbers each.
    Source:
        Martens 2010, "Deep learning via Hessian-free optimization", ICML, sections 4.4 to 4.6 (from memory)
    Example:
        >>> a = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> found = conjugate_gradients(lambda v: a @ v, torch.tensor([3.0, 4.0]), torch.zeros(2), most=2)
        >>> [round(x, 5) for x in found.iterates[-1].tolist()]
        [1.0, 1.0]
    """
    x = start
    rest = wanted - product(x)
    along = rest
    square = rest @ rest
    tiny = torch.finfo(wanted.dtype).eps ** 2 * float(wanted @ wanted)
    kept, heights, due = [x], [-0.5 * float(x @ (rest + wanted))], 1
    for i in range(1, most + 1):
        if float(square) <= tiny:
            break
        curved = product(along)
        curvature = along @ curved
        if not 0 < float(curvature) < math.inf:
            break
        x = x + (square / curvature) * along
        rest = rest - (square / curvature) * curved
        before, square = square, rest @ rest
        along = rest + (square / before) * along
        heights.append(-0.5 * float(x @ (rest + wanted)))
        if i >= due:
            kept.append(x)
            due = math.ceil(due * _SPACING) if due > 3 else due + 1
        span = max(10, i // 10)
        if i > span and heights[i] < 0 and (heights[i] - heights[i - span]) / heights[i] < span * tolerance:
            break
    if kept[-1] is not x:
        kept.append(x)
    return Solution(kept, len(heights) - 1)


@dataclass(frozen=True)
class _Watched(Engine):
    """One step after another; the outputs are pairs of the cell's outputs and the floating leaves of its states."""

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""

        def step(x: Tree, s: Tree) -> tuple[Tree, Tree]:
            y, new = advance(cell, x, s)
            return (y, tuple(leaf for leaf in tree.leaves(new) if leaf.is_floating_point())), new

        first_x = None if controls.reset is None else tree.at(xs, 0)
        return scan(cell, step, project(cell, xs), state, controls, first_x)


class GaussNewton:
    """A chunk's mean loss around the parameters of now: its gradient, and products with its Gauss-Newton matrix.

        G v = J^T H J v / W + share J_s^T J_s v / N

    J is the derivative of the outputs by the parameters through time, H the Hessian of the weighted loss by the outputs,
    W the summed weight; J_s that of the states, N the steps of all rows. J v is the derivative of J^T u by u, which is
    linear: so each product is two passes back through a graph that is built once.

    Args:
        cell: whose parameters are meant.
        chunk: T steps of B rows from the initial state.
        loss: convex in the outputs, else G may not be positive.
        rng: state of the generator for the cell's noise.
        watch: build J_s too.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> chunk = Chunk(torch.zeros(7, 2, 3), torch.zeros(7, 2, 5))
        >>> around = GaussNewton(ElmanCell(3, 5), chunk, MeanSquaredError())
        >>> around.product(around.gradient).shape  # 5 x 3 + 5 x 5 + 5 parameters
        torch.Size([45])
    """

    def __init__(self, cell: Cell, chunk: Chunk, loss: Loss, rng: Tensor | None = None, *, watch: bool = False) -> None:
        self._parameters = learning(cell)
        rows = int(tree.leaves(chunk.xs)[0].shape[1])
        with torch.enable_grad():
            engine = _Watched()
            both, _ = unroll(cell, chunk.xs, None, chunk.controls, engine=engine, generator=_generator(rng))
            num_steps = int(tree.leaves(chunk.xs)[0].shape[0])
            ys, states = both if num_steps else (both, ())
            alive = chunk.controls.alive(num_steps)
            shown = tree.map(lambda leaf: leaf.detach(), ys)
            self._seen = [leaf.requires_grad_() for leaf in tree.leaves(shown) if leaf.is_floating_point()]
            value, weight = weighted_sum(loss.per_step(shown, chunk.targets), chunk.weights, alive)
            self._slope = _derivatives([value], self._seen, None, create_graph=True)
            self._outputs = [leaf for leaf in tree.leaves(ys) if leaf.is_floating_point()]
            self._states = list(states) if watch else []
            live = [leaf for leaf in (*self._outputs, *self._states) if leaf.requires_grad]
            self._probes = [torch.zeros_like(leaf, requires_grad=True) for leaf in live]
            self._pulled = _derivatives(live, list(self._parameters.values()), self._probes, create_graph=True)
        self._live = live
        self._num_outputs = sum(leaf.requires_grad for leaf in self._outputs)
        self._num_states = max(1, int(alive.sum()) if alive is not None else num_steps * rows)
        self.loss, self.weight, self.outputs = value.detach(), weight.detach(), tree.detach(ys)
        pairs = [(leaf, slope) for leaf, slope in zip(self._outputs, self._slope) if leaf.requires_grad]
        slopes = [slope.detach() for _, slope in pairs] + [torch.zeros_like(p) for p in self._probes[len(pairs) :]]
        self.gradient = self._back(slopes) / self._scale()

    def _scale(self) -> float:
        return max(float(self.weight), torch.finfo(self.weight.dtype).tiny)

    def _back(self, values: list[Tensor]) -> Tensor:
        """(P,) J^T of values for everything that is seen."""
        return _flat(_derivatives(self._live, list(self._parameters.values()), values))

    def product(self, v: Tensor, share: float = 0.0) -> Tensor:
        """(P,) G v."""
        forward = _derivatives(self._pulled, self._probes, _apart(v, self._parameters))
        outputs, states = iter(forward[: self._num_outputs]), forward[self._num_outputs :]
        full = [next(outputs) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in self._outputs]
        curved = _derivatives(self._slope, self._seen, full)
        values = [c / self._scale() for c, leaf in zip(curved, self._outputs) if leaf.requires_grad]
        return self._back(values + [(share / self._num_states) * leaf for leaf in states])


class _Run(nn.Module):
    """A cell over a chunk, its noise drawn from the same numbers each time."""

    def __init__(self, cell: Cell, engine: Engine) -> None:
        super().__init__()
        self.cell, self.engine = cell, engine

    def forward(self, chunk: Chunk, rng: Tensor) -> Tree:
        """The outputs."""
        return unroll(self.cell, chunk.xs, None, chunk.controls, engine=self.engine, generator=_generator(rng))[0]


@dataclass(frozen=True)
class HessianFree(LearningRule[HessianFreeCarry]):
    """Truncated Newton steps for any cell: conjugate gradients on the Gauss-Newton matrix, damped as far as it is trusted.

        q(d) = g^T d + d^T (G + lambda 1 + lambda mu G_s) d / 2        the model of the mean loss f around theta
        d    = conjugate gradients on q, from 0.95 times the last solution, stopped early
        d    = the last of its iterates behind which f rises again     way back
        d    = the longest 0.8^k d that lowers f by 0.01 of g^T d      line search
        lambda' = 3/2 lambda  where f fell by less than 1/4 of what the undamped model says, 2/3 lambda above 3/4

    G = J^T H J through time is never formed: each product costs about two backward passes. G_s, the structural damping, is
    the same matrix for the states: it holds back steps that change what the hidden units do more than they change
    the parameters. A chunk starts from the initial state, as in `BPTT`. The direction is -d, a whole step: no learning rate,
    no optimizer. The chunk should hold many sequences, since f and G are those of the chunk.

    Args:
        damping: lambda at the start.
        structural: mu; 0 for none.
        num_iterations: of conjugate gradients, at most.
        tolerance: of conjugate gradients, see `conjugate_gradients`.
        engine: how to run the cell where f is looked at.
    Raises:
        ValueError: a number out of range.
        TypeError: a module that is no cell, a loss of whole sequences.
    Source:
        Martens & Sutskever 2011, "Learning recurrent neural networks with Hessian-free optimization", ICML (abstract read);
        Martens 2010, "Deep learning via Hessian-free optimization", ICML (formulas from memory)
    Differs:
        The distance of the states is half their squared difference, whatever the units are. Conjugate gradients are not
        preconditioned; gradient and curvature see the same chunk. The loss should be convex in the outputs.
    Cost:
        Each iteration two passes back over T steps; memory grows with T, as in `BPTT` by the readable loop. The carry holds
        P + 1 numbers.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), HessianFree()
        >>> chunk = Chunk(torch.zeros(7, 2, 3), torch.zeros(7, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> estimate.direction["weight_hh"].shape
        torch.Size([5, 5])
    """

    kind: ClassVar[Literal["gradient", "step"]] = "step"

    damping: float = 1.0
    structural: float = 0.03
    num_iterations: int = 100
    tolerance: float = 5e-4
    engine: Engine = field(default_factory=Auto)

    def __post_init__(self) -> None:
        if not 0 < self.damping < math.inf:
            raise ValueError(sentence("HessianFree", "damping", "above 0 and finite", self.damping))
        if not 0 <= self.structural < math.inf:
            raise ValueError(sentence("HessianFree", "structural", "at least 0 and finite", self.structural))
        if not 0 <= self.tolerance < 1:
            raise ValueError(sentence("HessianFree", "tolerance", "in [0, 1)", self.tolerance))
        check_positive("HessianFree", num_iterations=self.num_iterations)

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell, and a loss with a value for each step."""
        if not isinstance(cell, Cell):
            return f"it looks at the states of a Cell, not of {type(cell).__name__}."
        if isinstance(loss, SequenceLoss):
            return f"{type(loss).__name__} is a loss of whole sequences; use BPTT()."
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> HessianFreeCarry:
        """The damping of the start; nothing to start the search from."""
        assert isinstance(cell, Cell)
        size = sum(p.numel() for p in learning(cell).values())
        kind: dict[str, Any] = {"dtype": cell.dtype, "device": cell.device}
        rng = torch.Generator().manual_seed(seed).get_state()
        return HessianFreeCarry(torch.tensor(self.damping, **kind), torch.zeros(size, **kind), rng)

    def step(
        self, cell: nn.Module, carry: HessianFreeCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[HessianFreeCarry, Estimate]:
        """One step on the model of this chunk."""
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"HessianFree: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        around = GaussNewton(cell, chunk, loss, carry.rng, watch=self.structural > 0)
        parameters = learning(cell)
        damping, gradient = float(carry.damping), around.gradient
        moved, last = torch.zeros_like(gradient), carry.last
        if parameters and float(around.weight) > 0 and bool(gradient.isfinite().all()):
            f = _Heights(self, cell, chunk, loss, carry.rng)

            def product(v: Tensor) -> Tensor:
                return around.product(v, damping * self.structural) + damping * v

            found = conjugate_gradients(
                product, -gradient, 0.95 * last, most=self.num_iterations, tolerance=self.tolerance
            )
            last, (height, step) = found.iterates[-1], _way_back(f, found.iterates)
            start = f(moved)
            expected = float(gradient @ step) + 0.5 * float(step @ around.product(step))
            fallen = (height - start) / expected if expected < 0 else -1.0
            damping = damping * (1.5 if not fallen >= 0.25 else 2 / 3 if fallen > 0.75 else 1.0)
            moved = _line_search(f, step, height, start, float(gradient @ step))
        generator = _generator(carry.rng)
        torch.randint(2**31, (1,), generator=generator)  # other noise for the next chunk
        direction = {n: -part for n, part in zip(parameters, _apart(moved, parameters))}
        new = HessianFreeCarry(torch.full_like(carry.damping, damping), last.detach(), generator.get_state())
        return new, Estimate(direction, around.loss, around.weight, around.outputs)


class _Heights:
    """The mean loss of a chunk at the parameters of now plus a change; infinite where it is no number."""

    def __init__(self, rule: HessianFree, cell: Cell, chunk: Chunk, loss: Loss, rng: Tensor) -> None:
        self.run, self.parameters = _Run(cell, rule.engine), learning(cell)
        self.chunk, self.loss, self.rng = chunk, loss, rng

    @torch.no_grad()
    def __call__(self, change: Tensor) -> float:
        parts = zip(self.parameters.items(), _apart(change, self.parameters))
        named = {f"cell.{name}": p + part for (name, p), part in parts}
        ys = functional_call(self.run, named, (self.chunk, self.rng))
        alive = self.chunk.controls.alive(int(tree.leaves(ys)[0].shape[0]))
        value, weight = weighted_sum(self.loss.per_step(ys, self.chunk.targets), self.chunk.weights, alive)
        height = float(value) / float(weight)
        return height if math.isfinite(height) else math.inf


def _way_back(f: _Heights, iterates: list[Tensor]) -> tuple[float, Tensor]:
    """From the last iterate to earlier ones, as long as f falls."""
    best = iterates[-1]
    height = f(best)
    for earlier in reversed(iterates[:-1]):
        other = f(earlier)
        if other >= height and height < math.inf:
            break
        height, best = other, earlier
    return height, best


def _line_search(f: _Heights, step: Tensor, height: float, start: float, slope: float) -> Tensor:
    """The longest part of a step that lowers f by a share of what the slope says; none where there is no such part."""
    length = 1.0
    for _ in range(_MOST_HALVINGS):
        if height < start and height <= start + _STEEP * length * min(slope, 0.0):
            return length * step
        length *= _SHORTER
        height = f(length * step)
    return torch.zeros_like(step)


def _generator(rng: Tensor | None) -> torch.Generator:
    generator = torch.Generator()
    if rng is not None:
        generator.set_state(rng)
    return generator


def _derivatives(
    of: list[Tensor], by: list[Tensor], times: list[Tensor] | None, *, create_graph: bool = False
) -> list[Tensor]:
    """Of a sum of products, each ``of`` with its ``times``, by each of ``by``; zeros where nothing depends on it."""
    places = [i for i, t in enumerate(of) if t.requires_grad]
    if not places or not by:
        return [torch.zeros_like(t) for t in by]
    weights = None if times is None else [times[i] for i in places]
    found = torch.autograd.grad(
        [of[i] for i in places], by, weights, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, by)]


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]).detach() if parts else torch.zeros(0)


def _apart(flat: Tensor, parameters: dict[str, Tensor]) -> list[Tensor]:
    """A vector (P,) as tensors in the shapes of the parameters."""
    parts: Iterator[Tensor] = iter(flat.split([p.numel() for p in parameters.values()]) if parameters else ())
    return [part.view_as(p).to(p.dtype) for part, p in zip(parts, parameters.values())]
