"""Dense associative memories: energies steeper than a square hold more patterns than units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.memory import EnergyMemory, ErasableMemory, Recall
from .patterns import check_patterns, random_signs, without
from .steep_updates import relax_steep

Interaction = Literal["power", "rectified", "exponential"]


@dataclass(frozen=True)
class DenseAssociativeMemory(EnergyMemory[Tensor], ErasableMemory[Tensor]):
    """Dense associative memory: a steep function of the overlap with each pattern, added up over the patterns:

        E(s) = - sum_mu F(xi_mu . s)          F(x) = x^n,  x^n where x > 0 (else 0),  or exp(x)
        s_i <- sign( sum_mu F(xi_mui + r_mui) - F(-xi_mui + r_mui) ),   r_mui = sum_{j != i} xi_muj s_j

    One unit after the other; a unit that feels nothing stays. A unit of a cue may be 0, not known.
    n = 2 is the Hopfield network of 1982.

    Args:
        size: N, units.
        interaction: F. "power" is x^n, "rectified" is x^n where x > 0, "exponential" is exp(x).
        order: n; the exponential has none.
        max_sweeps: passes over all units before a read ends without standing still.
        turns: the order in which the units take their turns; None is 0, 1, 2, ...
    State:
        (M, N) the patterns.
    Raises:
        ValueError: an unknown interaction, a size below 1, n below 2, turns that are no permutation.
    Source:
        Krotov & Hopfield 2016, NIPS 29, arXiv:1606.01164 (F = x^n; from memory); exponential: Demircigil, Heusel, Loewe,
        Upgang & Vermet 2017, arXiv:1702.01929
    Differs:
        The energy of the exponential is -log sum_mu exp(xi_mu . s), which rises and falls with E and does not overflow.
        `Recall.steps` counts sweeps in which a unit moved.
    Cost:
        M N work for each cue and sweep: overlaps are kept up to date, so that one unit costs M.
    Example:
        >>> memory = DenseAssociativeMemory(32, order=4)
        >>> patterns = memory.draw(100, torch.Generator().manual_seed(0))
        >>> state = memory.write(memory.empty(), patterns)
        >>> cue = patterns[:3].clone()
        >>> cue[:, :4] *= -1
        >>> bool((memory.read(state, cue).value == patterns[:3]).all())
        True
    """

    takes_unknown: ClassVar[bool] = True
    source: ClassVar[str] = "Krotov & Hopfield 2016, arXiv:1606.01164; Demircigil et al. 2017, arXiv:1702.01929"

    size: int = 64
    interaction: Interaction = "power"
    order: int = 3
    max_sweeps: int = 50
    turns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_positive(where, size=self.size, order=self.order, max_sweeps=self.max_sweeps)
        check_choice(where, "interaction", self.interaction, ("power", "rectified", "exponential"))
        if self.order < 2:
            raise ValueError(sentence(where, "order", "at least 2", self.order))
        if self.turns is not None and sorted(self.turns) != list(range(self.size)):
            raise ValueError(sentence(where, "turns", f"a permutation of 0..{self.size - 1}", self.turns))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """All three functions; n even and odd."""
        yield cls(32)
        yield cls(24, "power", 2)
        yield cls(32, "rectified", 4)
        yield cls(24, "exponential")

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    def capacity(self) -> float:
        """Patterns that all stay without a wrong unit: N^(n-1) / (2 (2n-3)!! ln N); exponential: 2^(N/2).

        The first is the paper's signal-to-noise estimate, the second the scaling of Demircigil et al.; both are for large N.
        """
        if self.interaction == "exponential":
            return 2.0 ** (self.size / 2)
        odd = math.prod(range(1, 2 * self.order - 2, 2))
        return self.size ** (self.order - 1) / (2 * odd * math.log(self.size))

    def reordered(self, permutation: Tensor) -> Self:
        """The units take their turns in the order in which they took them before they moved."""
        turns = torch.arange(self.size) if self.turns is None else torch.tensor(self.turns)
        return replace(self, turns=tuple(torch.argsort(permutation)[turns].tolist()))

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) of -1 and +1."""
        return random_signs(num_patterns, self.size, generator)

    def empty(self) -> Tensor:
        """No pattern."""
        return torch.zeros(0, self.size)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Keep the patterns (M, N) as well."""
        self._check("keys", keys)
        return torch.cat([state, keys.to(state.dtype)])

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        """Take out each pattern once.

        Raises:
            ValueError: a key was never written.
        """
        self._check("keys", keys)
        return without(type(self).__name__, state, keys)

    def energy(self, state: Tensor, value: Tensor) -> Tensor:
        """(B,) float64 E of configurations (B, N)."""
        check_patterns(type(self).__name__, "value", value, self.size)
        overlap = value.double() @ state.double().T
        if self.interaction == "exponential":
            return -overlap.logsumexp(-1)
        return -self._f(overlap).sum(-1)

    def pulls(self, state: Tensor, value: Tensor) -> Tensor:
        """(B, N) float64 what each unit feels at configurations (B, N), the others as they are: a unit stays where pull and
        unit have one sign. For the exponential up to a positive factor for each row.

        With f(r) = F(r + 1) - F(r - 1), overlaps m and xi_i^2 = s_i^2 = 1, the sum of xi_i f(m - xi_i s_i) over the patterns is
        that of xi_i (f(m - 1) + f(m + 1)) / 2 and s_i (f(m - 1) - f(m + 1)) / 2: one product of matrices for all units.
        """
        check_patterns(type(self).__name__, "value", value, self.size, "ternary")
        patterns, value = state.double(), value.double()
        overlap = value @ patterns.T
        if self.interaction == "exponential" and len(patterns):
            here = (overlap - overlap.amax(-1, keepdim=True)).exp()
            below, above = here / math.e, here * math.e
        else:
            here, below, above = (self._slope(overlap + shift) for shift in (0, -1, 1))
        felt = (below + above) / 2 @ patterns + value * (below - above).sum(-1, keepdim=True) / 2
        return torch.where(value == 0, here @ patterns, felt) if bool((value == 0).any()) else felt

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        """Recall from cues (B, N): in machine code on the CPU, with the same turns as `trajectory`."""
        check_patterns(type(self).__name__, "cue", cue, self.size, "ternary")
        if cue.device.type != "cpu" or not len(state):
            value, steps, converged, _ = self._run(state, cue, keep=False)
            return Recall(value, steps, converged)
        letters = state.to(torch.int8)
        spins = cue.to(torch.int8, copy=True).contiguous()
        overlaps = (cue.float() @ state.float().T).to(torch.int32).contiguous()  # whole numbers, exact
        steps, still = torch.zeros(2, len(cue), dtype=torch.int64)
        order = torch.arange(self.size) if self.turns is None else torch.tensor(self.turns)
        relax_steep(
            letters.T.contiguous(),
            order,
            self._table(),
            int(self.interaction == "exponential"),
            overlaps,
            spins,
            steps,
            still,
            self.max_sweeps,
            threads=min(torch.get_num_threads(), max(1, len(cue))),
        )
        return Recall(spins.to(cue.dtype), steps, still.bool())

    def _table(self) -> Tensor:
        """(2 N + 3,) float64 f, for `relax_steep`."""
        places = torch.arange(2 * self.size + 3, dtype=torch.float64)
        return (-places).exp() if self.interaction == "exponential" else self._slope(places - self.size - 1)

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        """(T, B, N), a configuration for every turn in which a unit of some row moved."""
        return torch.stack([cue, *self._run(state, cue, keep=True)[3]])

    def _run(self, state: Tensor, cue: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        check_patterns(type(self).__name__, "cue", cue, self.size, "ternary")
        patterns = state.double()
        columns = patterns.T.contiguous()  # (N, M)
        value = cue.double().clone()
        overlap = value @ columns
        turns = range(self.size) if self.turns is None else self.turns
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        moved = torch.zeros(len(cue), dtype=torch.bool, device=cue.device)
        path: list[Tensor] = []
        for _ in range(self.max_sweeps):
            moved = torch.zeros_like(moved)
            for i in turns:
                old = value[:, i : i + 1]
                pull = self._slope(overlap - columns[i] * old) @ columns[i][:, None]  # (B, 1)
                new = torch.where(pull == 0, old, pull.sign())
                change = (new != old).squeeze(1)
                if bool(change.any()):
                    overlap = overlap + columns[i] * (new - old)
                    value[:, i : i + 1] = new
                    moved |= change
                    if keep:
                        path.append(value.to(cue.dtype))
            steps += moved
            if not bool(moved.any()):
                break
        return value.to(cue.dtype), steps, ~moved, path

    def _f(self, x: Tensor) -> Tensor:
        return (x.clamp(min=0) if self.interaction == "rectified" else x) ** self.order

    def _slope(self, rest: Tensor) -> Tensor:
        """F(r + 1) - F(r - 1), up to a positive factor for each row; xi times it is the pull of a pattern."""
        if self.interaction == "exponential":
            return (rest - rest.amax(-1, keepdim=True)).exp() if rest.shape[-1] else rest
        square = rest * rest
        odd = range(1, self.order + 1, 2)  # (r + 1)^n - (r - 1)^n = 2 sum over odd j of binomial(n, j) r^(n - j)
        slope = torch.full_like(rest, 2.0 * math.comb(self.order, odd[0]))
        for j in odd[1:]:
            slope = slope * square + 2.0 * math.comb(self.order, j)
        if self.order % 2 == 0:
            slope = slope * rest
        if self.interaction == "rectified":
            slope = torch.where(rest >= 1, slope, (rest == 0).to(rest.dtype))
        return slope

    def _check(self, name: str, value: Tensor) -> None:
        check_patterns(type(self).__name__, name, value, self.size, self.alphabet)
