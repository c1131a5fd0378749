"""McCulloch-Pitts nets: all-or-none units, absolute inhibition, and circles; built from what they are to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import Cell
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree


@dataclass(frozen=True)
class Expression:
    """What is said about time t in terms of inputs at t and before: a temporal propositional expression.

    ``a & b``, ``a | b``, ``a & ~b`` (a negation needs something that is asserted beside it: a net at rest says nothing),
    ``a.delayed(n)`` (a, n steps ago), and with circles ``a.ever()``, ``a.since(stop)``, ``a.ringing(period)``.

    Example:
        >>> heat, cold = Signal(0), Signal(1)
        >>> hot = heat.delayed() | (cold.delayed(3) & ~cold.delayed(2))
        >>> history = torch.tensor([[0, 1], [0, 0], [0, 0], [0, 0]], dtype=torch.bool)  # cold, for a moment
        >>> hot.truth(history).tolist()
        [False, False, False, True]
    """

    def __and__(self, other: Expression) -> Expression:
        """Both."""
        return AllOf((self, other))

    def __or__(self, other: Expression) -> Expression:
        """One or both."""
        return OneOf((self, other))

    def __invert__(self) -> Not:
        """Not so; for use in ``a & ~b``."""
        return Not(self)

    def delayed(self, num_steps: int = 1) -> Expression:
        """It was so, ``num_steps`` steps ago."""
        return Delayed(self, num_steps)

    def ever(self) -> Expression:
        """It is so or has been so at any time: a circle of one unit."""
        return Since(self, None)

    def since(self, stop: Expression) -> Expression:
        """It is so or has been so, and ``stop`` has not been said at the same time or later."""
        return Since(self, stop)

    def ringing(self, period: int) -> Expression:
        """It is so, or was so a whole number of periods ago: a circle of ``period`` units, in which a pulse goes round."""
        return Ringing(self, period)

    def truth(self, history: Tensor) -> Tensor:
        """(T, ...) bool, by the definition, from inputs (T, ..., D); before the first step all inputs are silent."""
        raise NotImplementedError


@dataclass(frozen=True)
class Signal(Expression):
    """Input number ``index``."""

    index: int

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        return history[..., self.index]


@dataclass(frozen=True)
class Not(Expression):
    """The opposite."""

    of: Expression

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        return ~self.of.truth(history)


@dataclass(frozen=True)
class AllOf(Expression):
    """Every part."""

    parts: tuple[Expression, ...]

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        return torch.stack([part.truth(history) for part in self.parts]).all(0)


@dataclass(frozen=True)
class OneOf(Expression):
    """One part at least."""

    parts: tuple[Expression, ...]

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        return torch.stack([part.truth(history) for part in self.parts]).any(0)


@dataclass(frozen=True)
class Delayed(Expression):
    """``of``, ``num_steps`` steps ago."""

    of: Expression
    num_steps: int = 1

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        value = self.of.truth(history)
        kept = value[: max(len(value) - self.num_steps, 0)]
        return torch.cat([torch.zeros_like(value[: min(self.num_steps, len(value))]), kept])


@dataclass(frozen=True)
class Since(Expression):
    """``start`` once, and no ``stop`` from then on."""

    start: Expression
    stop: Expression | None

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        start = self.start.truth(history)
        stop = torch.zeros_like(start) if self.stop is None else self.stop.truth(history)
        found, now = [], torch.zeros_like(start[:1]).squeeze(0)
        for begun, ended in zip(start, stop):
            now = (now | begun) & ~ended
            found.append(now)
        return torch.stack(found) if found else start


@dataclass(frozen=True)
class Ringing(Expression):
    """``of``, now or some whole periods ago."""

    of: Expression
    period: int

    def truth(self, history: Tensor) -> Tensor:
        """See `Expression.truth`."""
        value = self.of.truth(history).clone()
        for t in range(self.period, len(value)):
            value[t] |= value[t - self.period]
        return value


class McCullochPittsState(NamedTuple):
    """units: (B, U) bool, who fires."""

    units: Tensor


class McCullochPittsCell(Cell[Tensor, Tensor, McCullochPittsState]):
    """Net of all-or-none neurons with absolute inhibition; each takes one step.

        z = (x, u)                       inputs of this step, units of the last one
        u_i' = 1  if  sum_j E_ij z_j >= theta_i  and no z_j with an inhibitory synapse on i is 1, else 0
        y = u' at the chosen units

    E_ij counts excitatory synapses. `of` builds the net for temporal propositional expressions. No gradient passes.

    Args:
        input_size: D, afferents.
        excitatory: for each unit its excitatory sources: 0 .. D - 1 are inputs, D + i is unit i; a source that is named
            twice has two synapses.
        inhibitory: for each unit its inhibitory sources.
        thresholds: theta, for each unit, at least 1: nothing comes from nothing.
        outputs: units that are put out; None for all.
    State:
        units: (B, U) bool, who fires.
    Raises:
        ValueError: no unit, lists of different lengths, a source that is not there, a threshold below 1.
    Source:
        McCulloch & Pitts 1943, "A logical calculus of the ideas immanent in nervous activity", Bulletin of Mathematical
        Biophysics 5:115-133, doi:10.1007/BF02478259 (assumptions and the nets of figure 1 from memory)
    Cost:
        4 U (D + U) flops and U bits of state per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> latch = McCullochPittsCell.of([Signal(0).since(Signal(1))])
        >>> xs = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)[:, None]
        >>> ys, _ = Recurrent(latch)(xs)
        >>> ys.flatten().tolist()
        [True, True, True, False, False]
    """

    source = "McCulloch & Pitts 1943, Bulletin of Mathematical Biophysics 5:115-133, doi:10.1007/BF02478259"

    def __init__(
        self,
        input_size: int,
        excitatory: Sequence[Sequence[int]],
        inhibitory: Sequence[Sequence[int]],
        thresholds: Sequence[int],
        *,
        outputs: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        units = len(thresholds)
        check_positive(where, input_size=input_size, units=units)
        if not len(excitatory) == len(inhibitory) == units:
            got = f"{len(excitatory)} and {len(inhibitory)}"
            raise ValueError(sentence(where, "excitatory and inhibitory", f"{units} lists, one for each unit", got))
        if min(thresholds) < 1:
            raise ValueError(sentence(where, "thresholds", "at least 1", min(thresholds)))
        self.input_size = input_size
        self.outputs = tuple(range(units)) if outputs is None else tuple(outputs)
        self.output_size, self.num_units = len(self.outputs), units
        if not self.outputs or not all(0 <= unit < units for unit in self.outputs):
            raise ValueError(sentence(where, "outputs", f"some of 0..{units - 1}", self.outputs))
        self.excitation: Tensor
        self.inhibition: Tensor
        self.thresholds: Tensor
        for name, lists in (("excitation", excitatory), ("inhibition", inhibitory)):
            counts = torch.zeros(units, input_size + units, device=device, dtype=dtype)
            for unit, sources in enumerate(lists):
                for source in sources:
                    if not 0 <= source < input_size + units:
                        want = f"sources from 0 to {input_size + units - 1}"
                        raise ValueError(sentence(where, f"the synapses of unit {unit}", want, source))
                    counts[unit, source] += 1
            self.register_buffer(name, counts)
        self.register_buffer("thresholds", torch.tensor(thresholds, device=device, dtype=counts.dtype))

    @classmethod
    def of(cls, expressions: Sequence[Expression], *, input_size: int | None = None) -> Self:
        """The net that says ``expressions``, one output each, of few units.

        A gate takes a step, which delays in the expression pay for. Where they do not suffice, all outputs come
        `latency_of` steps late; the step from input to the units counts as none, so that ``y`` of a step can tell of its ``x``.

        Raises:
            ValueError: a negation without an assertion beside it, a delay below 1, a circle below 1.

        Example:
            >>> heat, cold = Signal(0), Signal(1)
            >>> net = McCullochPittsCell.of([
            ...     heat.delayed() | (cold.delayed(3) & ~cold.delayed(2)),  # brief cold feels hot
            ...     cold.delayed(2) & cold.delayed(),                       # lasting cold feels cold
            ... ])
            >>> net.num_units
            6
        """
        building = _Building(input_size or 1 + max((i for e in expressions for i in _inputs(e)), default=0))
        ends = [building.realise(expression) for expression in expressions]
        latest = max([end.latency for end in ends] + [0])
        outputs = [building.unit(building.late(end, latest)) for end in ends]
        return cls(building.input_size, building.excitatory, building.inhibitory, building.thresholds, outputs=outputs)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A net given by its synapses, one of circles."""
        yield cls(3, [[0, 1, 1], [2, 3], [3, 4, 0]], [[4], [], [1]], [2, 1, 2])
        a, b = Signal(0), Signal(1)
        yield cls.of([a.since(b), (a.delayed(2) & ~b).ringing(2)])

    @property
    def input_spec(self) -> Tree:
        """Booleans."""
        return Leaf((self.input_size,), torch.bool)

    @property
    def output_spec(self) -> Tree:
        """Booleans."""
        return Leaf((self.output_size,), torch.bool)

    def initial_state(self, batch_size: int) -> McCullochPittsState:
        """All units at rest."""
        return McCullochPittsState(self.initial("units", batch_size, self.num_units, dtype=torch.bool))

    def step(self, x: Tensor, state: McCullochPittsState) -> tuple[Tensor, McCullochPittsState]:
        """Excitation against threshold, and no inhibition."""
        sources = torch.cat([x, state.units], -1).to(self.excitation.dtype)
        enough = F.linear(sources, self.excitation) >= self.thresholds
        units = enough & (F.linear(sources, self.inhibition) < 0.5)
        return torch.stack([units[..., i] for i in self.outputs], -1), McCullochPittsState(units)


def latency_of(expressions: Sequence[Expression]) -> int:
    """Steps by which the outputs of `McCullochPittsCell.of` come late: u(t) = expression(t - latency).

    Example:
        >>> latency_of([Signal(0)]), latency_of([(Signal(0) & Signal(1)) | Signal(2)])
        (0, 1)
    """
    building = _Building(1 + max((i for e in expressions for i in _inputs(e)), default=0))
    return max([building.realise(expression).latency for expression in expressions] + [0])


def _inputs(expression: Expression) -> Iterator[int]:
    if isinstance(expression, Signal):
        yield expression.index
    for value in vars(expression).values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Expression):
                yield from _inputs(part)


class _Source(NamedTuple):
    """A place (input or unit) and by how many steps what a unit behind it says comes late; -1 for an input."""

    place: int
    latency: int


class _Building:
    """A net that grows by realising one expression after the other; equal parts are built once."""

    def __init__(self, input_size: int) -> None:
        self.input_size = input_size
        self.excitatory: list[list[int]] = []
        self.inhibitory: list[list[int]] = []
        self.thresholds: list[int] = []
        self.known: dict[tuple, int] = {}

    def add(self, excitatory: Sequence[int], inhibitory: Sequence[int], threshold: int) -> int:
        """The place of a unit with these synapses."""
        key = (tuple(sorted(excitatory)), tuple(sorted(inhibitory)), threshold)
        if key not in self.known:
            self.excitatory.append(list(excitatory))
            self.inhibitory.append(list(inhibitory))
            self.thresholds.append(threshold)
            self.known[key] = self.input_size + len(self.thresholds) - 1
        return self.known[key]

    def late(self, source: _Source, latency: int) -> _Source:
        """The same, later, through as many units."""
        place = source.place
        for _ in range(latency - source.latency):
            place = self.add([place], [], 1)
        return _Source(place, latency)

    def unit(self, source: _Source) -> int:
        """The number of the unit; only inputs that are put out directly have none."""
        return source.place - self.input_size

    def realise(self, expression: Expression) -> _Source:
        """A place that says ``expression``; what a unit says of inputs of the same step has latency 0."""
        if isinstance(expression, Signal):
            return _Source(expression.index, -1)
        if isinstance(expression, Delayed):
            if expression.num_steps < 1:
                raise ValueError(sentence("McCullochPittsCell", "a delay", "at least 1", expression.num_steps))
            place, latency = self.realise(expression.of)
            return _Source(place, latency - expression.num_steps)
        if isinstance(expression, Not):
            hint = "Write a & ~b: a net at rest says nothing."
            raise ValueError(sentence("McCullochPittsCell", "~b", "beside an assertion", "alone", hint))
        if isinstance(expression, Since | Ringing):
            return self._circle(expression)
        assert isinstance(expression, AllOf | OneOf)
        parts = list(_flat(expression))
        denied = [part.of for part in parts if isinstance(part, Not)]
        asserted = [part for part in parts if not isinstance(part, Not)]
        if denied and (isinstance(expression, OneOf) or not asserted):
            return self.realise(Not(denied[0]))  # refused
        found = self._level([self.realise(part) for part in [*asserted, *denied]])
        places = [source.place for source in found]
        need = len(asserted) if isinstance(expression, AllOf) else 1
        return _Source(self.add(places[: len(asserted)], places[len(asserted) :], need), found[0].latency + 1)

    def _circle(self, expression: Since | Ringing) -> _Source:
        if isinstance(expression, Since):
            parts = [expression.start] if expression.stop is None else [expression.start, expression.stop]
            period = 1
        else:
            parts, period = [expression.of], expression.period
        if period < 1:
            raise ValueError(sentence("McCullochPittsCell", "a period", "at least 1", period))
        start, *stops = self._level([self.realise(part) for part in parts])
        first = self.input_size + len(self.thresholds)
        stop = [source.place for source in stops]
        for i in range(period):  # the last unit excites the first one
            before = [start.place, first + period - 1] if i == 0 else [first + i - 1]
            self.excitatory.append(before)
            self.inhibitory.append(stop)
            self.thresholds.append(1)
        return _Source(first, start.latency + 1)

    def _level(self, sources: list[_Source]) -> list[_Source]:
        latest = max(source.latency for source in sources)
        return [self.late(source, latest) for source in sources]


def _flat(expression: AllOf | OneOf) -> Iterator[Expression]:
    for part in expression.parts:
        if type(part) is type(expression) and isinstance(part, AllOf | OneOf):
            yield from _flat(part)
        else:
            yield part
