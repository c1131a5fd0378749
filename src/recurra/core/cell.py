"""The cell: a pure step on an explicit state, and the capabilities that a cell may have.

A capability is a small class asked for with ``isinstance``. Each one fixes ``step`` in terms of finer methods, so that an
engine may use those and still compute the same function.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, final

import torch
from torch import Tensor, nn

from . import tree
from .checks import check_tree, sentence
from .spec import Leaf, spec_of
from .tree import Tree

X = TypeVar("X")
Y = TypeVar("Y")
S = TypeVar("S")


class Cell(nn.Module, ABC, Generic[X, Y, S]):
    """One time step of a recurrent network: ``y, state' = step(x, state)``.

    ``x``, ``y`` and the state are tensors or nested NamedTuples (tuples) of tensors; every leaf leads with B. The step is
    pure: no state on ``self``, nothing drawn, nothing written in place, no Python branch on the data. What the step hands
    back untouched (``new.memory is old.memory``) is constant over time, and engines store it once.

    A plain cell sets ``input_size`` (D) and ``output_size`` (O): x is (B, D), y is (B, O). Any other cell overrides
    `input_spec` and `output_spec`.

    A cell that cannot obey a law of `recurra.testing` says so in ``exempt``: the law's name and the reason.
    """

    source: ClassVar[str] = ""
    exempt: ClassVar[Mapping[str, str]] = {}
    input_size: int
    output_size: int
    initial_values: nn.ParameterDict | None

    def __init__(self) -> None:
        super().__init__()
        self.initial_values = None

    # --- what a cell's author writes ---

    @abstractmethod
    def initial_state(self, batch_size: int) -> S:
        """The state before the first step, leaves (B, ...). Write each leaf as ``self.initial(name, batch_size, size)``."""

    @abstractmethod
    def step(self, x: X, state: S) -> tuple[Y, S]:
        """One step: the output and the next state."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[Self]:
        """Small instances that every law is run on: each option at least once."""

    @property
    def input_spec(self) -> Tree:
        """Tree of `Leaf`: what one row of x looks like."""
        return Leaf((self.input_size,))

    @property
    def output_spec(self) -> Tree:
        """Tree of `Leaf`: what one row of y looks like."""
        return Leaf((self.output_size,))

    # --- what a cell's author gets ---

    @property
    def state_spec(self) -> Tree:
        """Tree of `Leaf`: what one row of the state looks like."""
        with torch.no_grad():
            return spec_of(self.initial_state(1))

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters (torch's default where there are none)."""
        return self.own_dtype or torch.get_default_dtype()

    @property
    def own_dtype(self) -> torch.dtype | None:
        """The floating type of the parameters; None for a cell without any, which takes what comes."""
        return next((t.dtype for t in self._tensors() if t.is_floating_point()), None)

    @property
    def device(self) -> torch.device:
        """Where the parameters are (the CPU where there are none)."""
        return next((t.device for t in self._tensors()), torch.device("cpu"))

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    def initial(
        self, name: str, batch_size: int, *shape: int, dtype: torch.dtype | None = None, value: float = 0.0
    ) -> Tensor:
        """A leaf of the initial state: (B, *shape) filled with ``value``, or with its learned values after
        `learn_initial_state`."""
        learned = self.initial_values
        if learned is not None and (dtype is None or dtype.is_floating_point):
            if name not in learned:
                start = torch.full(shape, value, dtype=dtype or self.dtype, device=self.device)
                learned[name] = nn.Parameter(start)
            return learned[name].expand(batch_size, *shape)
        return torch.full((batch_size, *shape), value, dtype=dtype or self.dtype, device=self.device)

    def learn_initial_state(self) -> Self:
        """Make the initial state a parameter (one row, shared by the batch); returns the cell itself.

        Example:
            >>> from recurra.cells.elman import ElmanCell
            >>> sorted(n for n, _ in ElmanCell(3, 5).learn_initial_state().named_parameters())
            ['bias', 'initial_values.h', 'weight_hh', 'weight_ih']
        """
        if self.initial_values is None:
            self.initial_values = nn.ParameterDict()
            self.initial_state(1)
            if not self.initial_values and tree.leaves(self.initial_state(1)):
                self.initial_values = None
                name = type(self).__name__
                raise TypeError(
                    sentence(name, "initial_state", "written with self.initial(...) to be learned", "plain tensors")
                )
        return self

    def forward(self, x: X, state: S | None = None) -> tuple[Y, S]:
        """Check the shapes, then `step`. Hooks, ``functional_call`` and DDP pass through here.

        Raises:
            ValueError: a shape or a token out of range.
            TypeError: a structure or a dtype.
        """
        where = type(self).__name__
        first = next(iter(tree.leaves(x)), None)
        batch = first.shape[0] if isinstance(first, Tensor) and first.ndim else "B"
        check_tree(where, "x", x, self.input_spec, ("B",), self.own_dtype, self.hint())
        if state is None:
            state = self.initial_state(batch if isinstance(batch, int) else 1)
        else:
            self.check_state(state, batch)
        return self.step(x, state)

    def check_state(self, state: S, batch_size: int | str) -> None:
        """Raise unless ``state`` fits this cell. A cell with constant leaves of free size overrides this."""
        check_tree(type(self).__name__, "state", state, self.state_spec, (batch_size,), self.own_dtype, self.hint())

    def hint(self) -> str:
        """The sentence that ends a message: how the cell was built."""
        size = getattr(self, "input_size", None)
        return f"The cell was built with input_size={size}." if isinstance(size, int) else ""

    def extra_repr(self) -> str:
        """The constructor's arguments that the instance keeps under their own names."""
        parts = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            value = self.__dict__.get(name, inspect.Parameter.empty)
            if name != "self" and isinstance(value, int | float | str | tuple) and value != parameter.default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)


class HoistedCell(Cell[X, Y, S]):
    """A cell whose input term can be computed for all steps at once.

    ``project`` sees leaves that lead with (B,) or with (T, B) and treats every leading dimension alike.
    """

    @abstractmethod
    def project(self, x: X) -> Tree:
        """What depends on the input alone."""

    @abstractmethod
    def advance(self, projected: Tree, state: S) -> tuple[Y, S]:
        """The rest of the step."""

    @final
    def step(self, x: X, state: S) -> tuple[Y, S]:
        """``advance(project(x), state)``."""
        return self.advance(self.project(x), state)


def project(cell: Cell, x: Tree) -> Tree:
    """The hoistable part of a cell's step; the input itself where there is none."""
    return cell.project(x) if isinstance(cell, HoistedCell) else x


def advance(cell: Cell, projected: Tree, state: Tree) -> tuple[Tree, Tree]:
    """The rest of the step after `project`."""
    return cell.advance(projected, state) if isinstance(cell, HoistedCell) else cell.step(projected, state)


class PointwiseCell(Cell[X, Y, tuple[()]]):
    """A cell without state (an embedding, a readout, dropout): a whole sequence is one call.

    ``pointwise`` sees leaves that lead with (B,) or with (T, B) and treats every leading dimension alike.
    """

    @abstractmethod
    def pointwise(self, x: X) -> Y:
        """The output for the input."""

    @final
    def initial_state(self, batch_size: int) -> tuple[()]:
        """Nothing."""
        return ()

    @final
    def step(self, x: X, state: tuple[()]) -> tuple[Y, tuple[()]]:
        """``pointwise(x)`` and the empty state."""
        return self.pointwise(x), ()


class Noisy(NamedTuple):
    """An input with the random numbers of its step; ``noise=None`` is the quiet (evaluation) form."""

    x: Tree
    noise: Tree


class StochasticCell(Cell[Noisy, Y, S]):
    """A cell that is noisy while it trains. Its ``x`` is ``Noisy(x, noise)``; a bare x counts as quiet.

    Random numbers are data: `draw` and `draw_weights` are the only places that draw, so every engine sees the same
    numbers. `input_spec` describes the x without its noise.
    """

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """Noise for a whole sequence, leaves (T, B, ...); None where the cell has none.

        Noise that stays the same over time is ``noise.expand(T, ...)`` and costs no memory.
        """
        return None

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Parameters that are noisy for the length of one sequence: their names and their values for this sequence."""
        return {}

    def forward(self, x: Noisy | Any, state: S | None = None) -> tuple[Y, S]:
        """Check the shapes, then `step`; a bare x is taken as ``Noisy(x, None)``."""
        where = type(self).__name__
        x = quiet(x)
        first = next(iter(tree.leaves(x.x)), None)
        batch = first.shape[0] if isinstance(first, Tensor) and first.ndim else "B"
        check_tree(where, "x", x.x, self.input_spec, ("B",), self.own_dtype, self.hint())
        if state is None:
            state = self.initial_state(batch if isinstance(batch, int) else 1)
        else:
            self.check_state(state, batch)
        return self.step(x, state)


def quiet(x: Tree) -> Noisy:
    """``x`` as a `Noisy` input: without noise, if it was bare."""
    return x if isinstance(x, Noisy) else Noisy(x, None)


def with_noise(cell: Cell, x: Tree, noise: Tree) -> Tree:
    """The input that ``cell`` expects: with its noise if it is stochastic, else bare."""
    return Noisy(x, noise) if isinstance(cell, StochasticCell) else x


Run = Callable[[Cell, Tree, Tree], tuple[Tree, Tree]]


def run_step(cell: Cell, x: Tree, state: Tree) -> tuple[Tree, Tree]:
    """The `Run` of one step."""
    return cell.step(x, state)


class CompositeCell(StochasticCell[Y, S]):
    """A cell made of cells, whose step and whose sequence are one piece of code.

    ``compose`` is written once in terms of ``run(cell, x, state)``. For a step, x leads with (B,) and ``run`` is the inner
    cell's step; an engine passes a ``run`` that carries the inner cell over all T steps at once, and then x leads with
    (T, B). What ``compose`` computes itself must treat all leading dimensions alike.
    """

    @abstractmethod
    def compose(self, run: Run, x: Noisy, state: S) -> tuple[Y, S]:
        """Wire the inner cells together."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[Cell]:
        """The inner cells, in the order of their states."""

    @final
    def step(self, x: Noisy, state: S) -> tuple[Y, S]:
        """``compose`` with each inner cell's own step."""
        return self.compose(run_step, quiet(x), state)

    def learn_initial_state(self) -> Self:
        """Make the initial state of every inner cell a parameter; returns the cell itself."""
        for part in self.parts:
            part.learn_initial_state()
        return self

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """One entry per part; None if no part has noise."""
        drawn = tuple(
            p.draw(num_steps, batch_size, generator) if isinstance(p, StochasticCell) else None for p in self.parts
        )
        return drawn if any(d is not None for d in drawn) else None

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The noisy parameters of all parts, under their full names."""
        return drawn_weights(self, self.parts, generator)


def drawn_weights(owner: nn.Module, parts: Sequence[Cell], generator: torch.Generator | None) -> dict[str, Tensor]:
    """`StochasticCell.draw_weights` of the cells inside ``owner``, with names as ``owner`` sees them."""
    places = {id(module): name for name, module in owner.named_modules()}
    found: dict[str, Tensor] = {}
    for part in parts:
        if isinstance(part, StochasticCell):
            prefix = places[id(part)]
            found.update({f"{prefix}.{name}": value for name, value in part.draw_weights(generator).items()})
    return found


class FeedbackCell(Cell[X, Y, S]):
    """A cell that sees its own last output, kept in ``state.feedback``.

    ``step`` reads ``state.feedback`` and puts ``self.feedback(y)`` there. Forcing replaces what the next step sees; no
    gradient passes a forced value.
    """

    @abstractmethod
    def feedback(self, y: Y) -> Tree:
        """What the next step sees of this output: the output itself, its argmax, an embedded sample."""

    def force(self, state: S, forced: Tree, mask: Tensor | None) -> S:
        """Put ``forced`` in the place of ``state.feedback`` where ``mask`` (B,) is True (everywhere if None)."""
        forced = tree.detach(forced)
        value = forced if mask is None else tree.where(mask, forced, state.feedback)  # type: ignore[attr-defined]
        return state._replace(feedback=value)  # type: ignore[attr-defined]


class LinearCell(Cell[X, Y, S]):
    """An affine recurrence ``s' = a * s + b``, element by element, that a parallel scan may run.

    Inputs of `coefficients` and `emit` may lead with (B,) or (T, B). The state is one tree of leaves like a and b.
    """

    @abstractmethod
    def coefficients(self, x: X) -> tuple[S, S]:
        """``a`` and ``b``, each shaped like the state."""

    @abstractmethod
    def emit(self, x: X, state: S) -> Y:
        """The output from the input and the *new* state."""

    @final
    def step(self, x: X, state: S) -> tuple[Y, S]:
        """``s' = a * s + b`` and ``y = emit(x, s')``."""
        a, b = self.coefficients(x)
        new = tree.map(lambda ai, bi, si: ai * si + bi, a, b, state)
        return self.emit(x, new), new


class Timed(NamedTuple):
    """An input with the time since the last one."""

    x: Tree
    dt_s: Tensor


class Solver(ABC):
    """A way to integrate ``ds/dt = f(s)`` over a gap. Frozen dataclasses subclass it."""

    @abstractmethod
    def integrate(self, derivative: Callable[[Tree], Tree], state: Tree, dt_s: Tensor) -> Tree:
        """The state after ``dt_s`` (B,) seconds."""


def _along(state: Tree, slope: Tree, dt: Tensor) -> Tree:
    return tree.map(lambda s, k: s + dt.reshape(dt.shape + (1,) * (s.ndim - dt.ndim)) * k, state, slope)


@dataclass(frozen=True)
class Euler(Solver):
    """``num_steps`` explicit Euler steps over the gap."""

    num_steps: int = 1

    def integrate(self, derivative: Callable[[Tree], Tree], state: Tree, dt_s: Tensor) -> Tree:
        """See `Solver.integrate`."""
        dt = dt_s / self.num_steps
        for _ in range(self.num_steps):
            state = _along(state, derivative(state), dt)
        return state


@dataclass(frozen=True)
class RK4(Solver):
    """``num_steps`` classical Runge-Kutta steps of fourth order over the gap."""

    num_steps: int = 1

    def integrate(self, derivative: Callable[[Tree], Tree], state: Tree, dt_s: Tensor) -> Tree:
        """See `Solver.integrate`."""
        dt = dt_s / self.num_steps
        for _ in range(self.num_steps):
            k1 = derivative(state)
            k2 = derivative(_along(state, k1, dt / 2))
            k3 = derivative(_along(state, k2, dt / 2))
            k4 = derivative(_along(state, k3, dt))
            slope = tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
            state = _along(state, slope, dt)
        return state


class ContinuousCell(Cell[Timed, Y, S]):
    """A cell defined by a differential equation; its input carries the time gap of each row.

    The input is held constant over the gap. ``solver`` is an attribute of the instance.
    """

    solver: Solver

    @abstractmethod
    def derivative(self, x: Tree, state: S) -> S:
        """``d state / dt`` in 1/s."""

    @abstractmethod
    def observe(self, state: S) -> Y:
        """The output at the end of the gap."""

    @property
    def input_spec(self) -> Tree:
        """The input and its time gap."""
        return Timed(Leaf((self.input_size,)), Leaf((), None, 0.0, 1.0))  # type: ignore[arg-type]

    @final
    def step(self, x: Timed, state: S) -> tuple[Y, S]:
        """Integrate over ``x.dt_s``, then `observe`."""
        new = self.solver.integrate(lambda s: self.derivative(x.x, s), state, x.dt_s)
        return self.observe(new), new


class ReadoutCell(Cell[X, Y, S]):
    """A cell that ends in a linear output ``y = W phi + b``: ridge, least squares and FORCE solve for W and b."""

    @abstractmethod
    def features(self, x: X, state: S) -> tuple[Tensor, S]:
        """``phi`` (B, F) before the linear output, and the next state."""

    @property
    @abstractmethod
    def readout(self) -> nn.Linear:
        """The linear output: weight (O, F) and bias (O,) or None."""


class CompetitiveCell(Cell[Tensor, Tensor, S]):
    """A cell whose units compete for being active: one weight matrix, sources on its one side, units on the other.

    The units of the next state come last among the sources of the next step. The last `output_size` units are the output.
    """

    @property
    @abstractmethod
    def connections(self) -> nn.Parameter:
        """W, (U, N): from N sources to U units."""

    @abstractmethod
    def sources(self, x: Tensor, state: S) -> Tensor:
        """(B, N) what the units see: the input, then the U units as they were."""

    @abstractmethod
    def compete(self, nets: Tensor) -> Tensor:
        """(B, U) who is active, 0 or 1, from the sums of the inputs (B, U)."""

    @abstractmethod
    def keep(self, units: Tensor) -> S:
        """The state with these units."""

    @final
    def step(self, x: Tensor, state: S) -> tuple[Tensor, S]:
        """``units' = compete(W sources)``."""
        units = self.compete(nn.functional.linear(self.sources(x, state), self.connections))
        return units[..., units.shape[-1] - self.output_size :], self.keep(units)


class VendorWeights(NamedTuple):
    """A cell as one layer of ``torch.nn``: parameters in torch's shapes and gate order, biases both or none."""

    kind: str  # "lstm", "gru", "rnn_tanh" or "rnn_relu"
    weight_ih: Tensor  # (G*H, D)
    weight_hh: Tensor  # (G*H, H)
    bias_ih: Tensor | None  # (G*H,)
    bias_hh: Tensor | None  # (G*H,)
    weight_hr: Tensor | None = None  # (O, H) projection


class VendorCell(Cell[X, Y, S]):
    """A cell equal to a torch layer, so that cuDNN and oneDNN can run it."""

    @abstractmethod
    def vendor(self) -> VendorWeights | None:
        """The layer this instance is equal to, or None if one of its options has no equal there."""

    @abstractmethod
    def to_vendor(self, state: S) -> tuple[Tensor, ...]:
        """The state as torch has it: (h,) or (h, c), each (B, ...)."""

    @abstractmethod
    def from_vendor(self, hidden: tuple[Tensor, ...]) -> S:
        """The inverse of `to_vendor`."""


class ConstrainedCell(Cell[X, Y, S]):
    """A cell whose parameters must stay in a set; whoever updates them calls `constrain` afterwards (`fit` does)."""

    @abstractmethod
    def constrain(self) -> None:
        """Project the parameters back, in place."""


class MembersCell(CompositeCell[Y, S]):
    """N independent cells side by side: every parameter is (N, ...), and member n sees row n of each alone.

    Whoever looks at a direction as a whole (`fit`, which clips its norm) looks at each member's by itself.
    """

    num_members: int


class JoinCell(Cell[X, Y, S]):
    """A cell with any number of predecessors: trees, directed graphs, grids. A chain has one.

    ``join`` sees predecessor states with an axis K after B and a mask (B, K) that is False where there is none.
    """

    @abstractmethod
    def join(self, x: X, predecessors: S, mask: Tensor) -> tuple[Y, S]:
        """The output and the state of a node from its input and its predecessors' states, leaves (B, K, ...)."""

    @final
    def step(self, x: X, state: S) -> tuple[Y, S]:
        """A chain: one predecessor."""
        batch_size = tree.leaves(state)[0].shape[0]
        mask = torch.ones(batch_size, 1, dtype=torch.bool, device=tree.leaves(state)[0].device)
        return self.join(x, tree.map(lambda s: s.unsqueeze(1), state), mask)


def constant_leaves(cell: Cell, x: Tree, state: Tree) -> list[bool]:
    """For every leaf of the state: does the step hand it back untouched? Found by taking one step.

    Args:
        x: an input of one step.
        state: a state of the same batch.
    """
    with torch.no_grad():
        _, new = cell.step(x, state)
    return [a is b for a, b in tree.zip_leaves(new, state)]
