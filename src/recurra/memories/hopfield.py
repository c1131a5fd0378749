"""Hopfield networks of +-1 units: what is stored is a minimum of an energy, or nearly one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.memory import Alphabet, EnergyMemory, ErasableMemory, Recall
from .couplings import (
    Bounded,
    Clipped,
    CouplingRule,
    Fading,
    Hebb,
    OptimalStability,
    PseudoInverse,
    Storkey,
    on_a_grid,
    without_diagonal,
)
from .patterns import without
from .systems import DenseSystem
from .updates import AT_ONCE, all_at_once, glauber, relax

_EXACT = 2**24  # whole numbers up to here are exact in float32


class HopfieldState(NamedTuple):
    """What a Hopfield network stores.

    Args:
        couplings: (N, N) float32, J_ij from unit j to unit i, in the rule's unit.
        patterns: (M, N) int8, what was written, in order.
        unlearned: (N, N) float32, what dreams took off the couplings; (0, 0) where it has not dreamt.
    """

    couplings: Tensor
    patterns: Tensor
    unlearned: Tensor


@dataclass(frozen=True)
class CoupledUnits(ErasableMemory[HopfieldState]):
    """N units that are coupled by a rule; how they move is up to the memories below.

    Args:
        size: N.
        rule: how patterns become couplings.
    """

    takes_unknown: ClassVar[bool] = True

    size: int = 64
    rule: CouplingRule = field(default_factory=Hebb)

    def __post_init__(self) -> None:
        check_positive(type(self).__name__, size=self.size)
        if not isinstance(self.rule, CouplingRule):
            raise TypeError(sentence(type(self).__name__, "rule", "a CouplingRule", repr(self.rule)))

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def capacity(self) -> float:
        """What theory says of the rule."""
        return self.rule.capacity(self.size)

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) float32, -1 and +1 with equal probability."""
        return 2.0 * torch.randint(0, 2, (num_patterns, self.size), generator=generator) - 1

    def empty(self) -> HopfieldState:
        """No couplings."""
        nothing = torch.zeros(0, self.size, dtype=torch.int8)
        return HopfieldState(torch.zeros(self.size, self.size), nothing, torch.zeros(0, 0))

    def write(self, state: HopfieldState, keys: Tensor, values: Tensor | None = None) -> HopfieldState:
        """Store patterns (M, N) of -1 and +1, in their order.

        Raises:
            ValueError: another shape, other numbers, or values that differ from the keys.
        """
        new = self._patterns("keys", keys)
        if values is not None and (values.shape != keys.shape or bool((values != keys).any())):
            raise ValueError(
                sentence(type(self).__name__, "values", "None or the keys", "others", "It stores no pairs.")
            )
        kind = torch.float32 if self._exact(len(state.patterns) + len(new)) else torch.float64
        if len(state.unlearned):
            return self._from_patterns(torch.cat([state.patterns, new]), state.unlearned)
        made = self.rule.extended(state.couplings.to(kind), state.patterns.to(kind), new.to(kind))
        return HopfieldState(self._kept(made), torch.cat([state.patterns, new]), state.unlearned)

    def erase(self, state: HopfieldState, keys: Tensor, values: Tensor | None = None) -> HopfieldState:
        """Take out patterns that were written; what is left is learned anew, or the Hebbian part is taken off.

        Raises:
            ValueError: a key was never written.
        """
        gone = self._patterns("keys", keys)
        left = without(type(self).__name__, state.patterns, gone)
        if self.rule.low_rank and not len(state.unlearned):
            return HopfieldState(state.couplings - self.rule.couplings(gone.float()), left, state.unlearned)
        return self._from_patterns(left, state.unlearned)

    def unlearn(
        self, state: HopfieldState, num_dreams: int, rate: float = 0.01, generator: torch.Generator | None = None
    ) -> HopfieldState:
        """Dreams: from a random configuration the net falls into an attractor s, which is then weakened a little.

            N dJ_ij = -rate s_i s_j

        Spurious attractors, which are many, lose more by it than what was stored.

        Args:
            num_dreams: how many.
            rate: rounded to a multiple of 1 / 4096.
            generator: source of the configurations.
        Source:
            Hopfield, Feinstein & Palmer 1983, Nature 304:158-159, doi:10.1038/304158a0 (rate 0.01; from memory)
        """
        rate = round(rate * 4096) / 4096
        weight = rate if self.rule.whole else rate / self.size
        taken = state.unlearned.double() if len(state.unlearned) else torch.zeros(self.size, self.size).double()
        learnt = state.couplings.double() - taken
        for _ in range(num_dreams):
            spins = self._spins(self.read(state, self.draw(1, generator)).value).double()
            taken = taken - weight * without_diagonal(spins.T @ spins)
            couplings = on_a_grid(learnt + taken, self.rule.symmetric)
            state = HopfieldState(couplings, state.patterns, taken.float())
        return state

    def _from_patterns(self, patterns: Tensor, unlearned: Tensor) -> HopfieldState:
        kind = torch.float32 if self._exact(len(patterns)) else torch.float64
        couplings = self.rule.couplings(patterns.to(kind))
        if len(unlearned):
            couplings = couplings.double() + unlearned
            return HopfieldState(on_a_grid(couplings, self.rule.symmetric), patterns, unlearned)
        return HopfieldState(self._kept(couplings), patterns, unlearned)

    def _exact(self, count: int) -> bool:
        """Are sums over the units of couplings of so many patterns exact in float32?"""
        return self.rule.whole and count * self.size < _EXACT

    def _through_patterns(self, state: HopfieldState) -> bool:
        """Do the patterns say all, in fewer numbers than the couplings?"""
        return self.rule.low_rank and not len(state.unlearned) and 2 * len(state.patterns) < self.size

    def _kept(self, couplings: Tensor) -> Tensor:
        return couplings.float() if self.rule.whole else on_a_grid(couplings, self.rule.symmetric)

    def _patterns(self, name: str, patterns: Tensor) -> Tensor:
        """int8, checked."""
        self._check_shape(name, patterns)
        spins = self._spins(patterns)
        if spins.numel() and bool((spins == 0).any()):
            raise ValueError(
                sentence(type(self).__name__, name, self._letters(), "unknown units", "Store whole patterns.")
            )
        return spins

    def _check_shape(self, name: str, patterns: Tensor) -> None:
        if not isinstance(patterns, Tensor):
            raise TypeError(sentence(type(self).__name__, name, f"a tensor (M, {self.size})", type(patterns).__name__))
        if patterns.ndim != 2 or patterns.shape[1] != self.size:
            raise ValueError(sentence(type(self).__name__, name, f"(M, {self.size})", tuple(patterns.shape)))

    def _letters(self) -> str:
        return "-1 and +1"

    def _spins(self, values: Tensor) -> Tensor:
        """int8 -1, 0 (not known) or +1."""
        if values.dtype == torch.bool:
            hint = "BinaryHopfield takes units of 0 and 1; 2 * x - 1 makes them -1 and +1."
            raise TypeError(sentence(type(self).__name__, "patterns", self._letters(), "booleans", hint))
        spins = values.to(torch.int8).contiguous()
        if spins.numel() and (int(spins.min()) < -1 or int(spins.max()) > 1 or bool((spins != values).any())):
            got = f"numbers from {float(values.min()):g} to {float(values.max()):g}"
            hint = "0 in a cue stands for a unit that is not known."
            raise ValueError(sentence(type(self).__name__, "patterns", self._letters(), got, hint))
        return spins

    def _values(self, spins: Tensor, dtype: torch.dtype) -> Tensor:
        return spins.to(dtype)

    def _outer(self, state: HopfieldState) -> Tensor | None:
        """(N,) float64 field from outside, in the rule's unit; None is no field."""
        return None

    def fields(self, state: HopfieldState, spins: Tensor) -> Tensor:
        """(B, N) sum_j J_ij s_j of spins (B, N), in the rule's unit; exact.

        Through the patterns where that takes fewer products: 4 M N instead of 2 N^2 flops a row.
        """
        exact = self._exact(len(state.patterns)) and not len(state.unlearned)
        kind = torch.float32 if exact else torch.float64
        rows = spins.to(kind)
        if exact and self._through_patterns(state):
            patterns = state.patterns.to(kind)
            made = torch.addmm(rows, rows @ patterns.T, patterns, beta=-float(len(patterns)))
        else:
            made = rows @ state.couplings.to(kind).T
        outer = self._outer(state)
        return made if outer is None else made + outer.to(kind)

    def system(self, state: HopfieldState) -> DenseSystem:
        """The same units as spins in contact with a heat bath, for the dynamics of `recurra.memories`.

        Raises:
            ValueError: the couplings are not symmetric.
        """
        return DenseSystem(state.couplings.double() * self.rule.unit(self.size))

    def overlaps(self, state: HopfieldState, value: Tensor) -> Tensor:
        """(B, M) m = 1/N sum_i x_i s_i of configurations (B, N) with every stored pattern: 1 is equal, 0 is chance."""
        spins = self._spins(value).float()
        return spins @ state.patterns.float().T / self.size


def _turns(order: tuple[int, ...] | None, size: int) -> Tensor:
    return torch.arange(size) if order is None else torch.tensor(order, dtype=torch.int64)


def _moved(order: tuple[int, ...] | None, permutation: Tensor) -> tuple[int, ...]:
    """The turns after unit permutation[i] has become unit i."""
    places = torch.argsort(permutation)
    return tuple(places[_turns(order, len(permutation))].tolist())


def _check_order(where: str, order: tuple[int, ...] | None, size: int) -> None:
    if order is not None and sorted(order) != list(range(size)):
        raise ValueError(sentence(where, "order", f"every unit from 0 to {size - 1} once", f"{len(order)} units"))


@dataclass(frozen=True)
class Hopfield(CoupledUnits, EnergyMemory[HopfieldState]):
    """Hopfield network: units take turns and follow their field, downhill to the nearest minimum.

        h_i = sum_j J_ij s_j        s_i <- sgn(h_i), and stays where h_i = 0
        E = -1/2 sum_ij J_ij s_i s_j

    A 0 in a cue is a unit that is not known; it takes part once it feels a field.

    Args:
        size: N, units.
        rule: how patterns become couplings; a symmetric one.
        max_sweeps: most rounds; a finite symmetric net always comes to rest, hard cases within tens of rounds.
        order: the turns; None is 0 to N - 1.
    State:
        couplings (N, N), patterns (M, N), and what dreams took off.
    Raises:
        ValueError: the rule is not symmetric (there is no energy: `StochasticHopfield` at temperature 0 takes it).
    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, doi:10.1073/pnas.79.8.2554
    Differs:
        +-1 units, the paper's "mu algorithm", twice the paper's capacity (`BinaryHopfield` is the 0/1 one); units take turns
        in an order instead of at random times.
    Cost:
        The fields of a cue take N^2 products, then a change of a unit takes N.
    Example:
        >>> from recurra.memories import Hopfield
        >>> memory = Hopfield(100)
        >>> patterns = memory.draw(5, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), patterns)
        >>> cue = patterns.clone()
        >>> cue[:, :40] = 0  # forgotten
        >>> bool((memory.read(state, cue).value == patterns).all())
        True
    """

    max_sweeps: int = 1000
    order: tuple[int, ...] | None = None

    source: ClassVar[str] = "Hopfield 1982, PNAS 79(8):2554-2558, doi:10.1073/pnas.79.8.2554"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(type(self).__name__, max_sweeps=self.max_sweeps)
        _check_order(type(self).__name__, self.order, self.size)
        if not self.rule.symmetric:
            hint = "StochasticHopfield at temperature 0 updates one unit after the other without an energy."
            raise ValueError(sentence(type(self).__name__, "rule", "symmetric", repr(self.rule), hint))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Every symmetric rule."""
        for rule in (Hebb(), Clipped(), Bounded(), Fading(), Storkey(), PseudoInverse()):
            yield cls(rule=rule)

    def reordered(self, permutation: Tensor) -> Self:
        """See `AssociativeMemory.reordered`."""
        return replace(self, order=_moved(self.order, permutation))

    def energy(self, state: HopfieldState, value: Tensor) -> Tensor:
        """(B,) float64, see above."""
        self._check_shape("value", value)
        spins = self._spins(value)
        inner = self.fields(state, spins).double()
        outer = self._outer(state)
        twice = inner if outer is None else inner + outer
        return -0.5 * self.rule.unit(self.size) * (twice * spins).sum(-1)

    def read(self, state: HopfieldState, cue: Tensor) -> Recall:
        """Recall; ``steps`` counts changes of units."""
        spins, steps, still, _ = self._relaxed(state, cue, 0)
        return Recall(self._values(spins, cue.dtype), steps, still.bool())

    def trajectory(self, state: HopfieldState, cue: Tensor) -> Tensor:
        """(T, B, N) the cue, then the configuration after each change of a unit."""
        _, steps, _, _ = self._relaxed(state, cue, 0)
        room = int(steps.max()) if len(steps) else 0
        _, _, _, path = self._relaxed(state, cue, room)
        spins = self._spins(cue)
        found = [spins]
        rows = torch.arange(len(spins))
        for t in range(room):
            spins = spins.clone()
            moving = rows[steps > t]
            spins[moving, path[moving, t] // 2] = (2 * (path[moving, t] % 2) - 1).to(torch.int8)
            found.append(spins)
        return self._values(torch.stack(found), cue.dtype)

    def _relaxed(self, state: HopfieldState, cue: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self._check_shape("cue", cue)
        spins = self._spins(cue).clone()
        fields = self.fields(state, spins).double().contiguous()
        steps, still = torch.zeros(len(spins), dtype=torch.int64), torch.zeros(len(spins), dtype=torch.int64)
        path = torch.zeros(len(spins), room, dtype=torch.int64)
        order = _turns(self.order, self.size)
        threads = min(torch.get_num_threads(), max(1, len(spins)))
        relax(state.couplings, order, fields, spins, steps, still, path, self.max_sweeps, threads=threads)
        return spins, steps, still, path


@dataclass(frozen=True)
class BinaryHopfield(Hopfield):
    """The network of 1982 to the letter: units are 0 or 1, thresholds 0.

        V_i <- 1 where sum_j T_ij V_j > 0,  0 where it is < 0        T_ij = sum_s (2 V_i^s - 1)(2 V_j^s - 1)
        E = -1/2 sum_ij T_ij V_i V_j

    With s = 2 V - 1 these are +-1 units in the outer field sum_j T_ij, which is noise: its signal-to-noise ratio is that of
    +-1 units with twice the load. 0.5 in a cue is a unit that is not known.

    Args:
        size: N, units.
        rule: how patterns become couplings; a symmetric one.
        max_sweeps: most rounds.
        order: the turns; None is 0 to N - 1.
    State:
        As in `Hopfield`.
    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, equations 1, 2 and 7
    Example:
        >>> from recurra.memories import BinaryHopfield
        >>> memory = BinaryHopfield(100)
        >>> patterns = memory.draw(2, torch.Generator().manual_seed(0))
        >>> recall = memory.read(memory.write(memory.empty(), patterns), patterns)
        >>> bool((recall.value == patterns).all()), patterns.unique().tolist()
        (True, [0.0, 1.0])
    """

    alphabet: ClassVar[Alphabet] = "binary"

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """The paper's rule."""
        yield cls()

    def capacity(self) -> float:
        """Half of what +-1 units hold (Hopfield 1982, page 2556)."""
        return super().capacity() / 2

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) float32, 0 and 1 with equal probability."""
        return (super().draw(num_patterns, generator) + 1) / 2

    def energy(self, state: HopfieldState, value: Tensor) -> Tensor:
        """(B,) float64, in units of 1 / N of T."""
        self._check_shape("value", value)
        firing = value.double()
        return -0.5 * self.rule.unit(self.size) * ((firing @ state.couplings.double()) * firing).sum(-1)

    def system(self, state: HopfieldState) -> DenseSystem:
        """Spins 2 V - 1 whose energy is that of the units, but for a constant."""
        couplings = state.couplings.double() * self.rule.unit(self.size) / 4
        return DenseSystem(couplings, couplings.sum(1))

    def _letters(self) -> str:
        return "0 and 1"

    def _spins(self, values: Tensor) -> Tensor:
        doubled = 2.0 * values.float() - 1
        spins = doubled.to(torch.int8).contiguous()
        if spins.numel() and (int(spins.min()) < -1 or int(spins.max()) > 1 or bool((spins != doubled).any())):
            got = f"numbers from {float(values.min()):g} to {float(values.max()):g}"
            hint = "0.5 in a cue stands for a unit that is not known."
            raise ValueError(sentence(type(self).__name__, "patterns", self._letters(), got, hint))
        return spins

    def _values(self, spins: Tensor, dtype: torch.dtype) -> Tensor:
        return ((spins.to(torch.float32) + 1) / 2).to(dtype)

    def _outer(self, state: HopfieldState) -> Tensor | None:
        return state.couplings.double().sum(1)


@dataclass(frozen=True)
class SynchronousHopfield(CoupledUnits):
    """All units move at once: Little's network at temperature zero.

        s' = sgn(J s), and s_i stays where its field is 0

    It ends in a fixed point or, with symmetric couplings, in a cycle of two; then ``converged`` is False. Any rule will do.

    Args:
        size: N, units.
        rule: how patterns become couplings.
        max_steps: most steps.
    State:
        As in `Hopfield`.
    Source:
        Little 1974, Math. Biosciences 19:101-120, doi:10.1016/0025-5564(74)90031-5 (from memory)
    Cost:
        A step of a cue takes 4 M N flops through Hebbian patterns if 2 M < N, else 2 N^2. Cues that came to rest are left out.
    Example:
        >>> from recurra.memories import SynchronousHopfield
        >>> memory = SynchronousHopfield(200)
        >>> patterns = memory.draw(10, torch.Generator().manual_seed(0))
        >>> cues = torch.where(torch.arange(200) < 30, -patterns, patterns)
        >>> recall = memory.read(memory.write(memory.empty(), patterns), cues)
        >>> bool((recall.value == patterns).all()), int(recall.steps.max())
        (True, 2)
    """

    max_steps: int = 1000

    source: ClassVar[str] = "Little 1974, Math. Biosciences 19:101-120, doi:10.1016/0025-5564(74)90031-5"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(type(self).__name__, max_steps=self.max_steps)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A symmetric rule and one that is not."""
        for rule in (Hebb(), OptimalStability()):
            yield cls(rule=rule)

    def read(self, state: HopfieldState, cue: Tensor) -> Recall:
        """Recall; ``steps`` counts steps that changed something, to the rest or to the second visit of a cycle of two."""
        self._check_shape("cue", cue)
        if self._exact(len(state.patterns)) and self._through_patterns(state):
            return self._read_through_patterns(state, cue)
        return self._read_through_couplings(state, cue)

    def _read_through_patterns(self, state: HopfieldState, cue: Tensor) -> Recall:
        """The same by a loop in machine code."""
        count = len(state.patterns)
        patterns = torch.zeros(-(-count // AT_ONCE) * AT_ONCE, self.size)
        patterns[:count] = state.patterns
        rows = cue.to(torch.float32).contiguous()
        value, threads = torch.empty_like(rows), min(torch.get_num_threads(), max(1, len(rows)))
        steps, still, wrong = (torch.zeros(len(rows), dtype=torch.int64) for _ in range(3))
        room = torch.empty(threads, 4, self.size)
        all_at_once(
            patterns,
            state.couplings,
            float(count),
            rows,
            value,
            room,
            steps,
            still,
            wrong,
            self.max_steps,
            threads=threads,
        )
        if bool(wrong.any()) or cue.dtype == torch.bool:
            self._spins(cue)
        return Recall(value.to(cue.dtype), steps, still.bool())

    def _read_through_couplings(self, state: HopfieldState, cue: Tensor) -> Recall:
        value = self._spins(cue).to(cue.dtype if cue.is_floating_point() else torch.float32)
        if not self._exact(len(state.patterns)):  # once, not in every step
            state = state._replace(couplings=state.couplings.double())
        steps = torch.zeros(len(cue), dtype=torch.int64)
        still = torch.zeros(len(cue), dtype=torch.bool)
        rows = torch.arange(len(cue))
        now, before = value, None
        for _ in range(self.max_steps):
            if not len(rows):
                break
            new = self.step(state, now)
            moving = (new != now).any(-1)
            cycling = torch.zeros_like(moving) if before is None else moving & (new == before).all(-1)
            done = ~moving | cycling
            steps[rows] += moving.long()
            if bool(done.any()):
                value[rows[done]] = new[done]
                still[rows[done]] = ~cycling[done]
                left = ~done
                rows, now, before = rows[left], new[left], now[left]
            else:
                now, before = new, now
        value[rows] = now
        return Recall(self._values(value, cue.dtype), steps, still)

    def step(self, state: HopfieldState, spins: Tensor) -> Tensor:
        """(B, N) all units after one step from ``spins`` (B, N), floating."""
        fields = self.fields(state, spins)
        new = fields.sign()
        ties = new == 0
        return torch.where(ties, spins, new.to(spins.dtype)) if bool(ties.any()) else new.to(spins.dtype)

    def trajectory(self, state: HopfieldState, cue: Tensor, num_steps: int) -> Tensor:
        """(num_steps + 1, B, N) the cue and what follows, cycles included."""
        self._check_shape("cue", cue)
        found = [self._spins(cue).float()]
        for _ in range(num_steps):
            found.append(self.step(state, found[-1]))
        return self._values(torch.stack(found), cue.dtype)


@dataclass(frozen=True)
class StochasticHopfield(CoupledUnits):
    """Units drawn at random follow their field most of the time (Glauber's dynamics).

        P(s_i <- sgn h_i) = 1 / (1 + exp(-2 |h_i| / T))

    At temperature 0 it is the asynchronous dynamics with random turns, for any rule, symmetric or not. ``converged`` says that
    every unit agrees with its field at the end.

    Args:
        size: N, units.
        rule: how patterns become couplings.
        temperature: T, in the unit in which the field of a single stored pattern is 1.
        num_sweeps: N units are asked so many times.
        seed: of the turns and chances. All cues of one read see the same, so that they do not disturb each other; other
            seeds give independent runs.
        order: names of the units for the turns that are drawn; None is 0 to N - 1.
    State:
        As in `Hopfield`.
    Source:
        Glauber 1963, J. Math. Phys. 4:294-307; Amit, Gutfreund & Sompolinsky 1985, Phys. Rev. Lett. 55:1530 (from memory)
    Example:
        >>> from recurra.memories import StochasticHopfield
        >>> memory = StochasticHopfield(500, temperature=0.4)
        >>> patterns = memory.draw(5, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), patterns)
        >>> bool(0.95 < memory.overlaps(state, memory.read(state, patterns).value).diagonal().mean() < 1)
        True
    """

    temperature: float = 0.1
    num_sweeps: int = 20
    seed: int = 0
    order: tuple[int, ...] | None = None

    source: ClassVar[str] = "Amit, Gutfreund & Sompolinsky 1985, Phys. Rev. Lett. 55:1530"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(type(self).__name__, num_sweeps=self.num_sweeps)
        _check_order(type(self).__name__, self.order, self.size)
        if not self.temperature >= 0.0:
            raise ValueError(sentence(type(self).__name__, "temperature", "at least 0", self.temperature))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Warm, and cold with couplings that are not symmetric."""
        yield cls()
        yield cls(rule=OptimalStability(), temperature=0.0)

    def reordered(self, permutation: Tensor) -> Self:
        """See `AssociativeMemory.reordered`."""
        return replace(self, order=_moved(self.order, permutation))

    def read(self, state: HopfieldState, cue: Tensor) -> Recall:
        """The configuration after ``num_sweeps``; ``steps`` counts changes of units."""
        *_, (spins, fields, steps) = self._sweeps(state, cue)
        return Recall(self._values(spins, cue.dtype), steps, (fields * spins >= 0).all(-1))

    def trajectory(self, state: HopfieldState, cue: Tensor) -> Tensor:
        """(num_sweeps + 1, B, N) the cue, and the configuration after every sweep."""
        found = [spins.clone() for spins, _, _ in self._sweeps(state, cue)]
        return self._values(torch.stack([self._spins(cue), *found]), cue.dtype)

    def _sweeps(self, state: HopfieldState, cue: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self._check_shape("cue", cue)
        generator = torch.Generator().manual_seed(self.seed)
        spins = self._spins(cue).clone()
        fields = self.fields(state, spins).double().contiguous()
        columns = state.couplings if self.rule.symmetric else state.couplings.T.contiguous()
        steps = torch.zeros(len(spins), dtype=torch.int64)
        order = _turns(self.order, self.size)
        warmth = self.temperature / self.rule.unit(self.size)
        threads = min(torch.get_num_threads(), max(1, len(spins)))
        for _ in range(self.num_sweeps):
            turns = order[torch.randint(0, self.size, (self.size,), generator=generator)]
            chances = torch.rand(self.size, generator=generator, dtype=torch.float64)
            glauber(columns, turns, chances, fields, spins, steps, warmth, threads=threads)
            yield spins, fields, steps
