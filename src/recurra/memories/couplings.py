"""How patterns become couplings between +-1 units."""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence

_BITS = 23


class CouplingRule(ABC):
    """A frozen description: patterns x (M, N) become couplings J (N, N), J_ij from unit j to unit i, J_ii = 0.

    ``symmetric``: is J_ij = J_ji? Then updates of single units have an energy. ``whole``: couplings are whole numbers, in units
    of 1 / N, so that sums of them are exact in any order. ``low_rank``: the couplings are the sum of x x' over the patterns
    without its diagonal, and a product with them may be taken through the patterns.
    """

    symmetric: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    low_rank: ClassVar[bool] = False
    source: ClassVar[str] = ""

    @abstractmethod
    def couplings(self, patterns: Tensor) -> Tensor:
        """(N, N) couplings of patterns (M, N), which are float32 where the rule is ``whole``, else float64."""

    def extended(self, couplings: Tensor, patterns: Tensor, new: Tensor) -> Tensor:
        """(N, N) couplings of ``patterns`` and ``new`` together; a rule that adds each pattern to ``couplings`` does less."""
        return self.couplings(torch.cat([patterns, new]))

    def unit(self, size: int) -> float:
        """What a coupling of 1 is worth, so that fields at low load are about 1."""
        return 1.0 / size if self.whole else 1.0

    def capacity(self, size: int) -> float:
        """Random patterns that theory says the couplings of N units hold; NaN where no theory says."""
        return float("nan")


def coupling_rule(rule: str, **fields: Any) -> CouplingRule:
    """The rule of that name, upper and lower case being free, with its fields.

    Raises:
        ValueError: there is none; or fields that are not its own.

    Example:
        >>> coupling_rule("bounded", bound=5)
        Bounded(bound=5)
    """
    kinds = {name.lower(): kind for name, kind in _rules().items()}
    if rule.lower() not in kinds:
        raise ValueError(sentence("coupling_rule", "rule", f"one of {', '.join(_rules())}", repr(rule)))
    kind = kinds[rule.lower()]
    own = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    odd = next((name for name in fields if name not in own), None)
    if odd is not None:
        raise ValueError(sentence("coupling_rule", "fields", f"those of {kind.__name__} ({', '.join(own)})", odd))
    return kind(**fields)


def rule_record(rule: CouplingRule) -> dict[str, Any]:
    """What `coupling_rule` makes it of again.

    Raises:
        TypeError: a rule from elsewhere, which a name does not find.
    """
    name = type(rule).__name__
    if _rules().get(name) is not type(rule):
        raise TypeError(sentence("rule_record", "rule", f"one of {', '.join(_rules())}", name))
    return {"rule": name, **dataclasses.asdict(rule)}  # type: ignore[call-overload]


def _rules() -> dict[str, type[CouplingRule]]:
    """Name -> class of the rules of this module."""
    kinds = {
        name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, CouplingRule)
    }
    return {name: kind for name, kind in sorted(kinds.items()) if not inspect.isabstract(kind)}


def without_diagonal(matrix: Tensor) -> Tensor:
    """The matrix with zeros on its diagonal."""
    return matrix.clone().fill_diagonal_(0)


def on_a_grid(couplings: Tensor, symmetric: bool) -> Tensor:
    """float32 couplings that are multiples of one power of two, 23 bits below the largest.

    Sums of them are exact in float64, whatever the order: units in other places feel the same, and a tie is a tie.
    """
    if symmetric:
        couplings = (couplings + couplings.T) / 2
    largest = float(couplings.abs().max()) if couplings.numel() else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return couplings.float()
    step = 2.0 ** (math.ceil(math.log2(largest)) - _BITS)
    return ((couplings / step).round() * step).float()


@dataclass(frozen=True)
class Hebb(CouplingRule):
    """Units that agree in a pattern are coupled.

        N J_ij = sum_m x_i^m x_j^m

    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, equation 2 (there without the 1 / N)
    Cost:
        2 M N^2 flops for M patterns.
    """

    whole: ClassVar[bool] = True
    low_rank: ClassVar[bool] = True
    source: ClassVar[str] = "Hopfield 1982, PNAS 79(8):2554-2558, doi:10.1073/pnas.79.8.2554"

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        return without_diagonal(patterns.T @ patterns)

    def extended(self, couplings: Tensor, patterns: Tensor, new: Tensor) -> Tensor:
        """See `CouplingRule.extended`."""
        return couplings + self.couplings(new)

    def capacity(self, size: int) -> float:
        """0.138 N, with 1.6 % of the bits wrong (Amit, Gutfreund & Sompolinsky 1985; from memory)."""
        return 0.138 * size


@dataclass(frozen=True)
class Clipped(CouplingRule):
    """Of the Hebbian couplings only the sign is kept: one bit for a pair of units.

        N J_ij = sgn(sum_m x_i^m x_j^m)

    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, page 2557 (clipped T_ij)
    """

    whole: ClassVar[bool] = True
    source: ClassVar[str] = "Hopfield 1982, PNAS 79(8):2554-2558, doi:10.1073/pnas.79.8.2554"

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        return without_diagonal(patterns.T @ patterns).sign()

    def capacity(self, size: int) -> float:
        """The Hebbian capacity times 2 / pi: the signal-to-noise ratio falls by sqrt(2 / pi)."""
        return 0.138 * size * 2 / math.pi


@dataclass(frozen=True)
class Bounded(CouplingRule):
    """Couplings that go no further than a bound: a palimpsest, in which new patterns write over old ones.

        N J_ij <- clamp(N J_ij + x_i x_j, -bound, bound)        one pattern after the other

    Args:
        bound: A; with A near 0.3 sqrt(N) the most recent patterns are held best.
    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, page 2557 (0, +-1, +-2, +-3 for N = 100)
    """

    bound: int = 3

    whole: ClassVar[bool] = True
    source: ClassVar[str] = "Hopfield 1982, PNAS 79(8):2554-2558, doi:10.1073/pnas.79.8.2554"

    def __post_init__(self) -> None:
        check_positive("Bounded", bound=self.bound)

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        size = patterns.shape[1]
        return self.extended(patterns.new_zeros(size, size), patterns[:0], patterns)

    def extended(self, couplings: Tensor, patterns: Tensor, new: Tensor) -> Tensor:
        """See `CouplingRule.extended`."""
        couplings = couplings.clone()
        for x in new:
            couplings.addr_(x, x).clamp_(-self.bound, self.bound)
        return couplings.fill_diagonal_(0)


@dataclass(frozen=True)
class Fading(CouplingRule):
    """Every new pattern lets the old ones fade.

        J <- decay J + x x' / N        one pattern after the other

    Args:
        decay: from 0 to 1; the trace of a pattern that is k patterns old has the strength decay^k.
    Source:
        Amari 1972, IEEE Trans. Computers C-21(11):1197-1206 (learning with decay); Mezard, Nadal & Toulouse 1986, J. Physique
        47:1457-1462 (as a palimpsest); both from memory
    """

    decay: float = 0.95

    source: ClassVar[str] = "Amari 1972, IEEE Trans. Computers C-21(11):1197-1206"

    def __post_init__(self) -> None:
        if not 0.0 < self.decay <= 1.0:
            raise ValueError(sentence("Fading", "decay", "above 0 and at most 1", self.decay))

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        ages = torch.arange(len(patterns) - 1, -1, -1, dtype=patterns.dtype)
        return without_diagonal(patterns.T @ (self.decay ** ages[:, None] * patterns) / patterns.shape[1])


@dataclass(frozen=True)
class Storkey(CouplingRule):
    """Hebbian learning that takes off what the couplings already say.

        N dJ_ij = x_i x_j - x_i h_ji - h_ij x_j        h_ij = sum_(k != i, j) J_ik x_k

    one pattern after the other.

    Source:
        Storkey & Valabregue 1999, Neural Networks 12(6):869-876, doi:10.1016/S0893-6080(99)00038-6 (from memory)
    Cost:
        O(N^2) for a pattern.
    """

    source: ClassVar[str] = "Storkey & Valabregue 1999, Neural Networks 12(6):869-876"

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        size = patterns.shape[1]
        return self.extended(patterns.new_zeros(size, size), patterns[:0], patterns)

    def extended(self, couplings: Tensor, patterns: Tensor, new: Tensor) -> Tensor:
        """See `CouplingRule.extended`."""
        size = new.shape[1]
        for x in new:
            others = (couplings @ x)[:, None] - couplings * x  # (N, N) h_ij; the diagonal of the couplings is zero
            change = x[:, None] * x - x[:, None] * others.T - others * x
            couplings = couplings + without_diagonal(change) / size
        return couplings

    def capacity(self, size: int) -> float:
        """N / sqrt(2 ln N), without errors (Storkey & Valabregue 1999; from memory)."""
        return size / math.sqrt(2 * math.log(max(size, 2)))


@dataclass(frozen=True)
class PseudoInverse(CouplingRule):
    """The projection on the space of the patterns, without its diagonal: linearly independent patterns stay, correlated or not.

        J = X+ X        X+ the pseudo-inverse of X (M, N)

    Source:
        Personnaz, Guyon & Dreyfus 1985, J. Physique Lettres 46(8):359-365; Kanter & Sompolinsky 1987, Phys. Rev. A 35:380
        (without the diagonal; both from memory)
    Cost:
        O(M^2 N + M N^2) for all patterns; each write computes them anew.
    """

    source: ClassVar[str] = "Personnaz, Guyon & Dreyfus 1985, J. Physique Lettres 46(8):359-365"

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        if not len(patterns):
            return patterns.new_zeros(patterns.shape[1], patterns.shape[1])
        overlaps = patterns @ patterns.T
        return without_diagonal(patterns.T @ torch.linalg.pinv(overlaps, hermitian=True) @ patterns)

    def capacity(self, size: int) -> float:
        """N: as many as can be linearly independent."""
        return float(size)


@dataclass(frozen=True)
class OptimalStability(CouplingRule):
    """The couplings in which the weakest stored bit is as stable as can be: a perceptron of largest margin for every unit.

        maximise  min_m x_i^m sum_j J_ij x_j^m / |J_i|        J_ij = 1/N sum_m a_i^m x_i^m x_j^m,  a >= 0

    found by rising along one a^m after the other (AdaTron): a += max(-a, g (1 - x_i^m h_i^m)).
    Not symmetric: its dynamics has no energy.

    Args:
        num_sweeps: most passes through the patterns.
        rate: g; a unit's own share of the field is about 1, so 1 is close to the best step.
        tolerance: largest distance from the margin 1 at which it stops.
    Source:
        Krauth & Mezard 1987, J. Phys. A 20:L745 (optimal stability); Anlauf & Biehl 1989, Europhys. Lett. 10(7):687-692
        (AdaTron); both from memory
    Cost:
        O(M^2 N) for a pass.
    """

    num_sweeps: int = 200
    rate: float = 1.0
    tolerance: float = 1e-4

    symmetric: ClassVar[bool] = False
    source: ClassVar[str] = "Krauth & Mezard 1987, J. Phys. A 20:L745; Anlauf & Biehl 1989, Europhys. Lett. 10:687"

    def __post_init__(self) -> None:
        check_positive("OptimalStability", num_sweeps=self.num_sweeps)
        if not 0.0 < self.rate < 2.0:
            raise ValueError(sentence("OptimalStability", "rate", "between 0 and 2", self.rate))

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        count, size = patterns.shape
        strengths = torch.zeros_like(patterns)  # (M, N) a_i^m x_i^m
        overlaps = patterns @ patterns.T / size
        for _ in range(self.num_sweeps):
            furthest = 0.0
            for m in range(count):
                own = (strengths * patterns).sum(0) / size  # what a unit would feel of itself
                field = overlaps[m] @ strengths - own * patterns[m]
                lack = 1.0 - patterns[m] * field
                change = torch.maximum(self.rate * lack, -(strengths[m] * patterns[m]))
                strengths[m] += change * patterns[m]
                furthest = max(furthest, float(change.abs().max()))
            if furthest <= self.tolerance:
                break
        return without_diagonal(strengths.T @ patterns / size)

    def capacity(self, size: int) -> float:
        """2 N (Cover 1965; Gardner 1988; from memory)."""
        return 2.0 * size


@dataclass(frozen=True)
class Sequence(CouplingRule):
    """Each pattern holds itself and calls the next.

        N J_ij = holding sum_m x_i^m x_j^m + advance sum_m x_i^(m+1) x_j^m

    Patterns are in the order in which they are written; with ``cyclic`` the last calls the first. Not symmetric.

    Args:
        holding: strength of the symmetric part, a whole number.
        advance: strength of the part that goes on, a whole number.
        cyclic: does the last pattern call the first?
    Source:
        Hopfield 1982, PNAS 79(8):2554-2558, equation 13 (holding 1, advance A); Amari 1972, IEEE Trans. Computers
        C-21(11):1197-1206 (holding 0)
    """

    holding: int = 0
    advance: int = 1
    cyclic: bool = True

    symmetric: ClassVar[bool] = False
    whole: ClassVar[bool] = True
    source: ClassVar[str] = "Hopfield 1982, PNAS 79(8):2554-2558; Amari 1972, IEEE Trans. Computers C-21(11):1197-1206"

    def couplings(self, patterns: Tensor) -> Tensor:
        """See `CouplingRule.couplings`."""
        if self.cyclic:
            called, calling = patterns.roll(-1, 0), patterns
        else:
            called, calling = patterns[1:], patterns[:-1]
        return without_diagonal(self.holding * patterns.T @ patterns + self.advance * called.T @ calling)

    def capacity(self, size: int) -> float:
        """0.269 N for a synchronous cycle without holding (Duering, Coolen & Sherrington 1998; from memory)."""
        return 0.269 * size if self.holding == 0 else float("nan")
