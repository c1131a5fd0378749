"""Cells with one fault each. ``breaks`` is the law that must catch it before any other; ``also`` are the laws that cannot
hold either then (... where the fault spoils everything that follows)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import EllipsisType
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.core import (
    Cell,
    ConstrainedCell,
    ContinuousCell,
    Euler,
    FeedbackCell,
    HoistedCell,
    JoinCell,
    Leaf,
    Noisy,
    ReadoutCell,
    Solver,
    StochasticCell,
    Timed,
    VendorCell,
    VendorWeights,
)
from recurra.core.cell import quiet


class State(NamedTuple):
    """h: (B, H)."""

    h: Tensor


class Sound(HoistedCell[Tensor, Tensor, State]):
    """A small Elman cell without a fault."""

    source = "Elman 1990"
    breaks: ClassVar[str] = ""
    also: ClassVar[set[str] | EllipsisType] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 3
        self.weight_ih = nn.Parameter(torch.randn(3, 2))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(3, 3))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def project(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_ih)

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(projected + F.linear(state.h, self.weight_hh))
        return h, State(h)


class Unspoken(Sound):
    """It has no examples."""

    breaks = "examples"

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield from ()


class Sourceless(Sound):
    """Nobody knows where it comes from."""

    breaks = "documented"
    source = ""


class Silent(Sound):
    breaks = "documented"


class Excused(Sound):
    """It says that it is exempt from a law, and not why."""

    breaks = "documented"
    exempt: ClassVar[dict[str, str]] = {"rows": " "}


class WrongSpec(Sound):
    """Its output is larger than it says."""

    breaks = "specs"
    also: ClassVar = {"padding", "streaming"}  # an empty stretch has the size that the spec says

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, new = super().advance(projected, state)
        return torch.cat([h, h], -1), new


class WideOutput(Sound):
    """Its output is always float64."""

    breaks = "dtype"

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, new = super().advance(projected, state)
        return h.double(), new


class Counts(Sound):
    """It counts its calls on self."""

    breaks = "pure"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        self.calls += 1
        return super().advance(projected, state)


class StateOnSelf(Sound):
    """It keeps its state on self, as many libraries do."""

    breaks = "pure"
    also = ...

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        before = state.h if self.last is None or self.last.shape != state.h.shape else self.last.to(state.h.dtype)
        h, new = super().advance(projected, State(before))
        self.last = h.detach()
        return h, new


class MovingBuffer(Sound):
    """It adds to a buffer in every step."""

    breaks = "pure"
    also: ClassVar = {"forward_mode"}  # torch.func refuses to write to what it does not know

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        self.steps += 1
        return super().advance(projected, state)


class DrawsInside(Sound):
    """It makes its own noise."""

    breaks = "draws_nothing"
    also = ...

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        return super().advance(projected + 0.1 * torch.randn_like(projected), state)


class DrawsFromPython(Sound):
    """It draws a number that it does not use."""

    breaks = "draws_nothing"

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        random.random()
        return super().advance(projected, state)


class WritesInPlace(Sound):
    """It adds to the state that it is given."""

    breaks = "no_writes"
    also = ...

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        with torch.no_grad():
            state.h.mul_(0.5)
        return super().advance(projected, state)


class NumbersRows(Sound):
    """Later rows of a batch are larger."""

    breaks = "permutation"
    also: ClassVar = {"rows", "vmap", "padding", "reset"}  # all of them ask for rows alone

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        number = torch.arange(len(projected), dtype=projected.dtype, device=projected.device)
        return super().advance(projected + number[:, None], state)


class MixesRows(Sound):
    """It centres over the batch."""

    breaks = "rows"
    also: ClassVar = {"vmap", "padding", "reset"}

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        return super().advance(projected - projected.mean(-2, keepdim=True), state)


class CutsGradient(Sound):
    """No gradient passes its state."""

    breaks = "gradcheck"

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, new = super().advance(projected, state)
        return h, State(new.h.detach())


class _Triple(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 2 * tangent


class TwoDerivatives(Sound):
    """Its forward-mode derivative is not its gradient."""

    breaks = "forward_mode"

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, new = super().advance(projected, state)
        return _Triple.apply(h), new


class UnsavedNumber(Sound):
    """A number drawn when it is built is neither a parameter nor a buffer."""

    breaks = "save_and_load"

    def __init__(self) -> None:
        super().__init__()
        self.gain = float(torch.rand(())) + 0.5

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        return super().advance(self.gain * projected, state)


class HoldsParameters(Sound):
    """It reaches a parameter by another way than its name."""

    breaks = "functional_call"

    def __init__(self) -> None:
        super().__init__()
        self.held = [self.weight_ih]

    def project(self, x: Tensor) -> Tensor:
        return F.linear(x, self.held[0])


class LooksAtData(Sound):
    """A Python branch depends on numbers."""

    breaks = "vmap"
    also: ClassVar = {"moves"}

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        if bool((state.h.abs() > 100).any()):
            state = State(state.h.clamp(-100, 100))
        return super().advance(projected, state)


class StaysBehind(Sound):
    """A constant is always made on the CPU."""

    breaks = "moves"

    def advance(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        return super().advance(projected + torch.ones(3, dtype=projected.dtype), state)


class Unchecked(Sound):
    """It takes whatever it is given."""

    breaks = "refuses"

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return self.step(x, self.initial_state(len(x)) if state is None else state)


class StubbornStart(Sound):
    """No gradient reaches its learned start."""

    breaks = "learned_start"

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3).detach())


class LeaksFuture(Sound):
    """It centres its input over time."""

    breaks = "causality"
    also: ClassVar = {"padding", "streaming", "reset", "leading"}  # a stretch is another sequence

    def project(self, x: Tensor) -> Tensor:
        return super().project(x - x.mean(0) if x.ndim == 3 else x)


class LooksAhead(Sound):
    """It sees the next input."""

    breaks = "causality"
    also: ClassVar = {"padding", "streaming", "reset", "leading"}

    def project(self, x: Tensor) -> Tensor:
        return super().project(torch.cat([x[1:], x[:1]]) if x.ndim == 3 else x)


class CountsPadding(Sound):
    """It divides by the number of steps, padding included."""

    breaks = "padding"
    also: ClassVar = {"streaming", "reset", "leading"}

    def project(self, x: Tensor) -> Tensor:
        return super().project(x / len(x) if x.ndim == 3 else x)


class ForgetsBefore(Sound):
    """It sees the last input, but not across the edge of a stretch."""

    breaks = "streaming"
    also: ClassVar = {"reset", "leading"}

    def project(self, x: Tensor) -> Tensor:
        return super().project(torch.cat([torch.zeros_like(x[:1]), x[:-1]]) if x.ndim == 3 else x)


class StartDependsOnBatch(Sound):
    """Its initial state is another one in a larger batch."""

    breaks = "reset"

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3, value=0.0 if batch_size < 3 else 0.5))


class TwoProjections(Sound):
    """A sequence is projected in another way than a step."""

    breaks = "leading"

    def project(self, x: Tensor) -> Tensor:
        return super().project(2 * x if x.ndim == 3 else x)


class _Stochastic(StochasticCell[Tensor, State]):
    """A sound cell with noise on its input."""

    source = "Elman 1990"
    breaks: ClassVar[str] = ""
    also: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 3
        self.weight_ih = nn.Parameter(torch.randn(3, 2))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(3, 3))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(num_steps, batch_size, 2, generator=generator, dtype=self.dtype)

    def step(self, x: Noisy, state: State) -> tuple[Tensor, State]:
        x = quiet(x)
        value = x.x if x.noise is None else x.x + 0.1 * x.noise
        h = torch.tanh(F.linear(value, self.weight_ih) + F.linear(state.h, self.weight_hh))
        return h, State(h)


class SoundNoise(_Stochastic):
    """No fault."""


class DrawsGlobally(_Stochastic):
    """It draws from the global generator even if it is given one."""

    breaks = "noise"

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(num_steps, batch_size, 2, dtype=self.dtype)


class UnknownWeight(_Stochastic):
    """It draws a parameter that it does not have."""

    breaks = "noise"

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"weight_xh": torch.zeros(3, 2)}


class FeedbackState(NamedTuple):
    """feedback: (B, O)."""

    feedback: Tensor


class SoundFeedback(FeedbackCell[Tensor, Tensor, FeedbackState]):
    """It sees its own output."""

    source = "Jordan 1986"
    breaks: ClassVar[str] = ""
    also: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 3
        self.weight_ih = nn.Parameter(torch.randn(3, 2))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(3, 3))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> FeedbackState:
        return FeedbackState(self.initial("feedback", batch_size, 3))

    def feedback(self, y: Tensor) -> Tensor:
        return y

    def step(self, x: Tensor, state: FeedbackState) -> tuple[Tensor, FeedbackState]:
        y = torch.tanh(F.linear(x, self.weight_ih) + F.linear(state.feedback, self.weight_hh))
        return y, FeedbackState(self.feedback(y))


class OtherFeedback(SoundFeedback):
    """What it keeps is not feedback(y)."""

    breaks = "feedback"

    def step(self, x: Tensor, state: FeedbackState) -> tuple[Tensor, FeedbackState]:
        y, new = super().step(x, state)
        return y, FeedbackState(0.5 * new.feedback)


class ForcedGradient(SoundFeedback):
    """A gradient passes forced values."""

    breaks = "feedback"

    def force(self, state: FeedbackState, forced: Tensor, mask: Tensor | None) -> FeedbackState:
        return state._replace(feedback=forced if mask is None else torch.where(mask[:, None], forced, state.feedback))


class Unforced(SoundFeedback):
    """Forcing changes nothing."""

    breaks = "feedback"

    def force(self, state: FeedbackState, forced: Tensor, mask: Tensor | None) -> FeedbackState:
        return state


class TwoReadouts(ReadoutCell[Tensor, Tensor, State]):
    """Its output is not the readout of its features."""

    source = "Jaeger 2001"
    breaks = "readout"
    also: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 1
        self.weight_ih = nn.Parameter(torch.randn(3, 2))
        self.linear = nn.Linear(3, 1)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    @property
    def readout(self) -> nn.Linear:
        return self.linear

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def features(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = torch.tanh(F.linear(x, self.weight_ih) + 0.5 * state.h)
        return h, State(h)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        phi, new = self.features(x, state)
        return torch.tanh(self.linear(phi)), new


class IgnoresGap(Solver):
    """Every gap lasts a second."""

    def integrate(self, derivative: Any, state: Any, dt_s: Tensor) -> Any:
        return Euler().integrate(derivative, state, torch.ones_like(dt_s))


class Timeless(ContinuousCell[Tensor, State]):
    """Its solver does not look at the time."""

    source = "Beer 1995"
    breaks = "no_time"
    also: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 3
        self.solver = IgnoresGap()
        self.weight_ih = nn.Parameter(torch.randn(3, 2))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def derivative(self, x: Tensor, state: State) -> State:
        return State(torch.tanh(F.linear(x, self.weight_ih)) - state.h)

    def observe(self, state: State) -> Tensor:
        return state.h


class SeesGhosts(JoinCell[Tensor, Tensor, State]):
    """It adds up predecessors that are not there."""

    source = "Tai 2015"
    breaks = "absent"
    also: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 2, 3
        self.weight_ih = nn.Parameter(torch.randn(3, 2))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def join(self, x: Tensor, predecessors: State, mask: Tensor) -> tuple[Tensor, State]:
        h = torch.tanh(F.linear(x, self.weight_ih) + 0.5 * predecessors.h.sum(1))
        return h, State(h)


class Shrinks(Sound, ConstrainedCell[Tensor, Tensor, State]):
    """Its constraint is another one each time."""

    breaks = "constrained"

    def constrain(self) -> None:
        with torch.no_grad():
            self.weight_hh.mul_(0.9)


class LosesState(Sound, VendorCell[Tensor, Tensor, State]):
    """Its state changes its sign on the way back from torch."""

    breaks = "vendor"

    def vendor(self) -> VendorWeights:
        return VendorWeights("rnn_tanh", self.weight_ih, self.weight_hh, None, None)

    def to_vendor(self, state: State) -> tuple[Tensor, ...]:
        return (state.h,)

    def from_vendor(self, hidden: tuple[Tensor, ...]) -> State:
        return State(-hidden[0])


class SoundTimed(ContinuousCell[Tensor, State]):
    """A sound cell of time gaps, for the broken engines."""

    source = "Beer 1995"

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size, self.solver = 2, 3, Euler(2)
        self.weight_ih = nn.Parameter(torch.randn(3, 2))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    @property
    def input_spec(self) -> Timed:
        return Timed(Leaf((2,)), Leaf((), None, 0.0, 1.0))

    def initial_state(self, batch_size: int) -> State:
        return State(self.initial("h", batch_size, 3))

    def derivative(self, x: Tensor, state: State) -> State:
        return State(torch.tanh(F.linear(x, self.weight_ih)) - state.h)

    def observe(self, state: State) -> Tensor:
        return state.h


def broken_cells() -> list[type[Cell]]:
    """Every class of this file that says what it breaks."""
    return [item for item in globals().values() if isinstance(item, type) and getattr(item, "breaks", "")]
