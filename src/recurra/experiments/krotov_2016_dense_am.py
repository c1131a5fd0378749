"""Krotov & Hopfield 2016: dense associative memories, and the softmax memories that followed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..core import Claim, Experiment, Log
from ..layers import HopfieldAssociation
from ..memories.dense_associative import DenseAssociativeMemory
from ..memories.modern_hopfield import ModernHopfield


@dataclass(frozen=True)
class Krotov2016DenseAM(Experiment):
    """Capacity of dense associative memories: with F = x^n it grows as N^(n-1); with the softmax, one step is attention.

    The capacity is the number of random patterns at which a given part of the units of stored patterns turns in the first
    update, found by bisection over fresh patterns at each load. Its slope against N in logarithms is the power.

    Args:
        num_seeds: trials.
        sizes: N, by order n = 2, 3, 4.
        wrong: the part of the units that turns at capacity; 0.5 % as in the paper.
        num_bits: units that are asked at each load.
        exponential_sizes: N at which 2^(N/2) patterns are stored with F = exp.
        modern_size: N of the memory of real patterns.
        modern_patterns: patterns in it.
    Source:
        Krotov & Hopfield 2016, Dense Associative Memory for Pattern Recognition, NIPS 29, arXiv:1606.01164 (equations from
        memory); exponential: Demircigil et al. 2017, arXiv:1702.01929; softmax: Ramsauer et al. 2020, arXiv:2008.02217
    Differs:
        The paper derives the powers; here they are measured. The number of patterns without any error has a factor 1 / ln N,
        which bends the line; that of 0.5 % has none. The exponential's 2^(N/2) holds for large N; smaller N are shown beside.
    """

    id: ClassVar[str] = "krotov-2016-dense-am"
    source: ClassVar[str] = "Krotov & Hopfield 2016, NIPS 29, arXiv:1606.01164"
    claims: ClassVar[tuple[Claim, ...]] = (
        *(
            Claim(f"slope_{n}_off", 0.2, "lower", f"N^{n - 1}", f"|slope - {n - 1}|, F = x^{n}", "from memory")
            for n in (2, 3, 4)
        ),
        Claim("kept_exponential", 0.99, "higher", "2^(N/2)", "patterns that stay, largest N", "from memory"),
        Claim(
            "wrong_2_at_load_of_3", 0.2, "higher", "", "units that turn, F = x^2 at the capacity of x^3", control=True
        ),
        Claim("attention_gap", 1e-7, "lower", "equal", "one update and attention, values and gradients", "theorem"),
        Claim("one_step_error", 0.01, "lower", "one step retrieves", "beta = 1, noise of a half", "from memory"),
        Claim("one_step_error_small_beta", 0.3, "higher", "means of patterns", "the same, beta = 0.01", control=True),
    )

    num_seeds: int = 10
    sizes: tuple[tuple[int, ...], ...] = ((100, 200, 400, 800), (50, 100, 200, 400), (48, 64, 100, 160))
    wrong: float = 0.005
    num_bits: int = 8000
    exponential_sizes: tuple[int, ...] = (12, 16, 20, 24, 28)
    modern_size: int = 64
    modern_patterns: int = 500

    @classmethod
    def smoke(cls) -> Self:
        """One trial, three small sizes for each power."""
        return cls(
            num_seeds=1,
            sizes=((32, 64), (16, 32), (16, 24)),
            num_bits=1500,
            exponential_sizes=(8, 12),
            modern_patterns=50,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Powers, the exponential, the softmax."""
        capacity: dict[tuple[int, int], list[float]] = {}
        control, exponential, error, vague = [], [], [], []
        total = self.num_seeds * sum(len(sizes) for sizes in self.sizes)
        for seed in range(self.num_seeds):
            generator = torch.Generator().manual_seed(seed)
            for n, sizes in zip((2, 3, 4), self.sizes):
                for size in sizes:
                    done = sum(len(values) for values in capacity.values())
                    log(f"trial {seed + 1} of {self.num_seeds}, F = x^{n}, N = {size}", done / total)
                    capacity.setdefault((n, size), []).append(self._capacity(size, n, generator))
            size = self.sizes[1][-1]
            load = round(capacity[3, size][-1])
            control.append(self._turned(DenseAssociativeMemory(size, order=2), load, generator))
            exponential.append([self._kept(size, generator) for size in self.exponential_sizes])
            error.append(self._one_step(1.0, generator))
            vague.append(self._one_step(0.01, generator))
        mean = {key: sum(values) / len(values) for key, values in capacity.items()}
        slopes = {n: _slope([(s, mean[n, s]) for s in sizes]) for n, sizes in zip((2, 3, 4), self.sizes)}
        log.figure("capacity", lambda figure: _draw(figure, mean, slopes, self.wrong))
        return {
            **{f"slope_{n}_off": abs(slope - (n - 1)) for n, slope in slopes.items()},
            "kept_exponential": min(kept[-1] for kept in exponential),
            "wrong_2_at_load_of_3": min(control),
            "attention_gap": _attention_gap(),
            "one_step_error": max(error),
            "one_step_error_small_beta": min(vague),
            **{f"slope_{n}": slope for n, slope in slopes.items()},
            **{f"kept_exponential_{size}": min(kept) for size, *kept in zip(self.exponential_sizes, *exponential)},
            **{f"capacity_{n}_{size}": value for (n, size), value in mean.items()},
        }

    def _turned(self, memory: DenseAssociativeMemory, num_patterns: int, generator: torch.Generator) -> float:
        """The part of the units of stored patterns that turns in the first update."""
        patterns = memory.draw(num_patterns, generator)
        turned = bits = 0
        while bits < self.num_bits:  # fresh patterns where few are stored
            asked = patterns[: max(1, -(-self.num_bits // memory.size))][:64]
            turned += int((memory.pulls(patterns, asked) * asked < 0).sum())
            bits += asked.numel()
            if bits < self.num_bits:
                patterns = memory.draw(num_patterns, generator)
        return turned / bits

    def _capacity(self, size: int, order: int, generator: torch.Generator) -> float:
        """Patterns at which ``wrong`` of the units turn: bracketed by doubling, then halved in logarithms."""
        memory = DenseAssociativeMemory(size, order=order)
        low = high = max(2.0, memory.capacity())
        while self._turned(memory, round(high), generator) < self.wrong:
            low, high = high, 2 * high
        while low == high or self._turned(memory, round(low), generator) > self.wrong:
            low, high = low / 2, low
        for _ in range(4):
            middle = math.sqrt(low * high)
            if self._turned(memory, round(middle), generator) < self.wrong:
                low = middle
            else:
                high = middle
        return math.sqrt(low * high)

    def _kept(self, size: int, generator: torch.Generator) -> float:
        """Fraction of 2^(N/2) patterns that stay with F = exp."""
        memory = DenseAssociativeMemory(size, "exponential")
        patterns = memory.draw(2 ** (size // 2), generator)
        asked = patterns[:500]
        return float((memory.pulls(patterns, asked) * asked >= 0).all(1).double().mean())

    def _one_step(self, beta: float, generator: torch.Generator) -> float:
        """Root mean squared error after one update, patterns of variance one, cues with noise of half their size."""
        memory = ModernHopfield(self.modern_size, beta=beta)
        patterns = memory.draw(self.modern_patterns, generator).double()
        noise = torch.randn(patterns.shape, generator=generator, dtype=torch.float64)
        found = memory.update(patterns, patterns + 0.5 * noise)
        return float((found - patterns).square().mean().sqrt())


def _attention_gap() -> float:
    """The largest difference of values and gradients, memory and layer against torch's attention, float64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gaps = []
    stored, cues = normal(100, 64), normal(30, 64)
    for beta in (0.01, 0.125, 1.0):
        wanted = scaled_dot_product_attention(cues[None], stored[None], stored[None], scale=beta)[0]
        gaps.append((ModernHopfield(64, beta=beta).update(stored, cues) - wanted).abs().max())
    attention = nn.MultiheadAttention(32, 4, batch_first=True).double()
    layer = HopfieldAssociation.from_attention(attention)
    inputs = [normal(8, 10, 32).requires_grad_(), normal(8, 20, 32).requires_grad_()]
    outputs = (layer(*inputs), attention(inputs[0], inputs[1], inputs[1])[0])
    sides = [(y, *torch.autograd.grad(y.square().sum(), inputs)) for y in outputs]
    gaps += [(ours - theirs).detach().abs().max() for ours, theirs in zip(*sides)]
    return float(torch.stack(gaps).max())


def _slope(points: list[tuple[int, float]]) -> float:
    """Of a straight line through logarithms."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in zip(*points))
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def _draw(figure: Any, mean: Mapping[tuple[int, int], float], slopes: Mapping[int, float], wrong: float) -> None:
    axis = figure.subplots()
    for n, color in zip(slopes, ("#0072b2", "#d55e00", "#009e73")):
        points = sorted((size, value) for (order, size), value in mean.items() if order == n)
        sizes, values = zip(*points)
        axis.loglog(sizes, values, "o", ms=5, color=color, label=f"F = x^{n}: slope {slopes[n]:.2f}")
        middle = math.exp(sum(math.log(v / s ** (n - 1)) for s, v in points) / len(points))
        axis.loglog(sizes, [middle * s ** (n - 1) for s in sizes], lw=1, color=color, alpha=0.6)
    axis.set(xlabel="N, units", ylabel=f"patterns at which {100 * wrong:g} % of the units turn")
    axis.set_title("Lines have the slopes n - 1", loc="left", fontsize=10)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
