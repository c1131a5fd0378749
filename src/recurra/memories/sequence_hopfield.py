"""Patterns that call each other: sequences and cycles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_flag, check_positive, sentence
from ..core.memory import ErasableMemory, PairMemory, Recall
from .patterns import check_patterns


class SequenceState(NamedTuple):
    """What a net of threshold elements has learned.

    Args:
        calling: (M, N) float32, patterns in the order in which they were learned.
        called: (M, N) float32, what each of them calls.
    """

    calling: Tensor
    called: Tensor


@dataclass(frozen=True)
class SequenceHopfield(PairMemory[SequenceState], ErasableMemory[SequenceState]):
    """Amari's net of threshold elements: all units move at once, and each stored pattern calls the next.

        x' = sgn(W x)        W <- decay W + x_(m+1) x_m' / N

    A pattern that calls itself is a stable pattern. `read` is one step; `replay` goes on. A unit without a field is 0, not
    known.

    Args:
        size: N, units.
        decay: what is left of the old weights when a new pair is learned; 1 is nothing forgotten.
        cyclic: patterns written without values are a sequence; does the last call the first? Else the last calls nothing.
    State:
        calling, called: (M, N). The weights are of rank M and are not formed.
    Raises:
        ValueError: decay is not above 0 and at most 1.
    Source:
        Amari 1972, IEEE Trans. Computers C-21(11):1197-1206, doi:10.1109/T-C.1972.223477 (from memory)
    Differs:
        Thresholds are 0. The paper lets weights decay at a rate while it is shown patterns; here one pair is one decay.
    Cost:
        4 M N flops for a step of a row.
    Example:
        >>> from recurra.memories import SequenceHopfield
        >>> memory = SequenceHopfield(500)
        >>> patterns = memory.draw(12, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), patterns)
        >>> path = memory.replay(state, patterns[:1], 24)[:, 0]
        >>> bool((path[12:24] == patterns).all())
        True
    """

    size: int = 64
    decay: float = 1.0
    cyclic: bool = True

    source: ClassVar[str] = "Amari 1972, IEEE Trans. Computers C-21(11):1197-1206, doi:10.1109/T-C.1972.223477"

    def __post_init__(self) -> None:
        check_positive("SequenceHopfield", size=self.size)
        check_flag("SequenceHopfield", cyclic=self.cyclic)
        if not 0.0 < self.decay <= 1.0:
            raise ValueError(sentence("SequenceHopfield", "decay", "above 0 and at most 1", self.decay))

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def capacity(self) -> float:
        """0.269 N patterns of a cycle (Duering, Coolen & Sherrington 1998; from memory); NaN with decay."""
        return 0.269 * self.size if self.decay == 1.0 else float("nan")

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) float32, -1 and +1 with equal probability."""
        return 2.0 * torch.randint(0, 2, (num_patterns, self.size), generator=generator) - 1

    def draw_pairs(self, num_patterns: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Patterns, and others that they call."""
        return self.draw(num_patterns, generator), self.draw(num_patterns, generator)

    def empty(self) -> SequenceState:
        """No pair."""
        return SequenceState(torch.zeros(0, self.size), torch.zeros(0, self.size))

    def write(self, state: SequenceState, keys: Tensor, values: Tensor | None = None) -> SequenceState:
        """Learn that each key calls its value; without values, that each key calls the next.

        Raises:
            ValueError: another shape, or numbers that are not -1 or +1.
        """
        calling, called = self._pairs(keys, values)
        return SequenceState(torch.cat([state.calling, calling]), torch.cat([state.called, called]))

    def erase(self, state: SequenceState, keys: Tensor, values: Tensor | None = None) -> SequenceState:
        """Take pairs out.

        Raises:
            ValueError: a pair was never written.
        """
        for row, (key, value) in enumerate(zip(*self._pairs(keys, values))):
            same = ((state.calling == key).all(-1) & (state.called == value).all(-1)).nonzero()[:, 0]
            if not len(same):
                hint = "Only what was written can be taken out."
                raise ValueError(
                    sentence("SequenceHopfield", f"keys[{row}]", "the key of a stored pair", "another", hint)
                )
            left = torch.arange(len(state.calling)) != same[-1]
            state = SequenceState(state.calling[left], state.called[left])
        return state

    def read(self, state: SequenceState, cue: Tensor) -> Recall:
        """One step; ``converged`` says that every unit felt a field."""
        check_patterns("SequenceHopfield", "cue", cue, self.size, "ternary")
        value = self.step(state, cue)
        steps = torch.ones(len(cue), dtype=torch.int64)
        return Recall(value, steps, (value != 0).all(-1))

    def step(self, state: SequenceState, value: Tensor) -> Tensor:
        """(B, N) what ``value`` (B, N) calls."""
        exact = self.decay == 1.0 and len(state.calling) * self.size < 2**24
        kind = torch.float32 if exact else torch.float64
        overlaps = value.to(kind) @ state.calling.to(kind).T
        if self.decay != 1.0:
            ages = torch.arange(len(state.calling) - 1, -1, -1, dtype=kind)
            overlaps = overlaps * self.decay**ages
        return (overlaps @ state.called.to(kind)).sign().to(value.dtype)

    def replay(self, state: SequenceState, cue: Tensor, num_steps: int) -> Tensor:
        """(num_steps + 1, B, N) the cue and what it calls, one after the other."""
        check_patterns("SequenceHopfield", "cue", cue, self.size, "ternary")
        found = [cue]
        for _ in range(num_steps):
            found.append(self.step(state, found[-1]))
        return torch.stack(found)

    def _pairs(self, keys: Tensor, values: Tensor | None) -> tuple[Tensor, Tensor]:
        self._check("keys", keys)
        if values is None:
            calling, called = (keys, keys.roll(-1, 0)) if self.cyclic else (keys[:-1], keys[1:])
        else:
            self._check("values", values)
            if len(values) != len(keys):
                raise ValueError(sentence("SequenceHopfield", "values", f"{len(keys)} rows", len(values)))
            calling, called = keys, values
        return calling.float(), called.float()

    def _check(self, name: str, patterns: Tensor) -> None:
        check_patterns("SequenceHopfield", name, patterns, self.size, self.alphabet)
