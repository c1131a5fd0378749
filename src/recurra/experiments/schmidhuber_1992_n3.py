"""Exact gradients of an endless stream for n^3 operations per step: the hybrid of 1992 between BPTT and RTRL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..cells import FullyRecurrentCell
from ..core import Cell, Chunk, Claim, Experiment, LearningRule, Log, MeanSquaredError
from ..engines import Loop
from ..learning import BPTT, RTRL, HybridRTRL, TruncatedBPTT

_PAPER = "Schmidhuber 1992, abstract"


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of numbers that torch makes while it is entered: of products of matrices, and one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left = args[-2]
            self.count += out.numel() * int(left.shape[-1])
        elif name in ("mul", "div", "addcmul", "addcdiv", "pow", "sigmoid_backward", "tanh_backward"):
            self.count += out.numel()
        return out


def multiplications(rule: LearningRule[Any], cell: Cell, chunk: Chunk) -> float:
    """Multiplications that a rule makes for each step of a chunk of one row, once it is under way."""
    num_steps = chunk.xs.shape[0]
    carry, _ = rule.step(cell, rule.init(cell, 1), chunk, MeanSquaredError())
    with Multiplications() as counted:
        rule.step(cell, carry, chunk, MeanSquaredError())
    return counted.count / num_steps


def exponent(sizes: tuple[int, ...], counts: list[float]) -> float:
    """Slope of log counts over log sizes, by least squares."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(counts).double().log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference of an element, as a part of the largest element of its parameter."""
    worst = 0.0
    for name, value in wanted.items():
        size = float(value.abs().max()) if value.numel() else 0.0
        if size:
            worst = max(worst, float((found[name] - value).abs().max()) / size)
    return worst


@dataclass(frozen=True)
class Schmidhuber1992N3(Experiment):
    """BPTT needs n^2 operations per step and a memory that grows, RTRL n^4 in fixed memory; the hybrid n^3 in fixed memory.

    Fully recurrent nets of n units, all of them seen by the loss, run on. Multiplications are counted as torch makes them, in
    a chunk of 2 n steps, and the exponents are the slopes over the sizes. Exactness is asked of a stream in pieces.

    Args:
        input_size: D.
        sizes: n, in ascending order.
        exact_size: n where the gradients are compared.
        num_steps: length of the stream there.
        num_nets: random nets that are compared.
    Source:
        Schmidhuber 1992, "A fixed size storage O(n^3) time complexity learning algorithm for fully recurrent continually
        running networks", Neural Computation 4(2):243-248, doi:10.1162/neco.1992.4.2.243 (from memory)
    Differs:
        Sizes up to 128: in nets of 8 units the inputs and biases still count beside the recurrent weights.
    """

    id: ClassVar[str] = "schmidhuber-1992-n3"
    source: ClassVar[str] = "Schmidhuber 1992, Neural Computation 4(2):243-248, doi:10.1162/neco.1992.4.2.243"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("difference_hybrid", 1e-10, "lower", "exact", _PAPER, "theorem"),
        Claim("difference_rtrl", 1e-10, "lower", "exact", "", "theorem"),
        Claim("exponent_bptt_off_2", 0.15, "lower", "n^2", _PAPER, "theorem"),
        Claim("exponent_hybrid_off_3", 0.15, "lower", "n^3", _PAPER, "theorem"),
        Claim("exponent_rtrl_off_4", 0.15, "lower", "n^4", _PAPER, "theorem"),
        Claim("difference_without_influence", 1e-2, "higher", "", "blocks alone, BPTT(h)", "theorem", control=True),
        Claim(
            "exponent_of_blocks_of_one_step", 3.7, "higher", "", "blocks of one step are RTRL", "theorem", control=True
        ),
    )

    input_size: int = 1
    sizes: tuple[int, ...] = (16, 32, 64, 128)
    exact_size: int = 8
    num_steps: int = 50
    num_nets: int = 5

    @classmethod
    def smoke(cls) -> Self:
        """Small nets, one comparison."""
        return cls(sizes=(4, 8, 16), exact_size=3, num_steps=12, num_nets=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """Exactness, then the counts."""
        metrics: dict[str, float] = {}
        for seed in range(self.num_nets):
            log(f"net {seed}", 0.2 * seed / self.num_nets)
            for name, value in self._exactness(seed).items():
                worst = min if name == "difference_without_influence" else max
                metrics[name] = worst(metrics.get(name, value), value)
        rules: dict[str, Any] = {
            "bptt": BPTT(engine=Loop()),
            "hybrid": HybridRTRL(),
            "rtrl": RTRL(),
            "blocks_of_one_step": HybridRTRL(block=1),
        }
        counts: dict[str, list[float]] = {name: [] for name in rules}
        for done, size in enumerate(self.sizes):
            log(f"n = {size}", 0.2 + 0.8 * done / len(self.sizes))
            for name, rule in rules.items():
                fewer = name == "blocks_of_one_step" or name == "rtrl"
                cell, chunk = self._task(size, 4 if fewer else 2 * size, 1, seed=0)
                counts[name].append(multiplications(rule, cell, chunk))
                metrics[f"multiplications_{name}_{size}"] = counts[name][-1]
        for name, power in (("bptt", 2), ("hybrid", 3), ("rtrl", 4)):
            metrics[f"exponent_{name}"] = exponent(self.sizes, counts[name])
            metrics[f"exponent_{name}_off_{power}"] = abs(metrics[f"exponent_{name}"] - power)
        metrics["exponent_of_blocks_of_one_step"] = exponent(self.sizes, counts["blocks_of_one_step"])
        log.figure("multiplications", lambda figure: _draw(figure, self.sizes, counts, metrics))
        return metrics

    def _task(self, size: int, num_steps: int, rows: int, *, seed: int) -> tuple[Cell, Chunk]:
        """A random net and a random stream."""
        generator = torch.Generator().manual_seed(seed)
        cell = FullyRecurrentCell(self.input_size, size, activation="tanh", generator=generator).double()
        with torch.no_grad():
            cell.weight_hh.mul_(1.5)  # errors go far back
        xs = torch.randn(num_steps, rows, self.input_size, generator=generator, dtype=torch.float64)
        targets = torch.randn(num_steps, rows, size, generator=generator, dtype=torch.float64)
        return cell, Chunk(xs, targets)

    def _exactness(self, seed: int) -> dict[str, float]:
        """Differences to the gradient of the whole stream."""
        cell, chunk = self._task(self.exact_size, self.num_steps, 2, seed=seed)
        whole = BPTT(engine=Loop())
        wanted = whole.step(cell, whole.init(cell, 2), chunk, MeanSquaredError())[1].direction

        def along(rule: LearningRule[Any], length: int) -> float:
            """In pieces of some length."""
            carry, total = rule.init(cell, 2), {name: torch.zeros_like(d) for name, d in wanted.items()}
            for a in range(0, self.num_steps, length):
                part = Chunk(chunk.xs[a : a + length], chunk.targets[a : a + length])
                carry, estimate = rule.step(cell, carry, part, MeanSquaredError())
                total = {name: t + estimate.direction[name] for name, t in total.items()}
            return difference(total, wanted)

        h = self.exact_size
        return {
            "difference_hybrid": max(
                along(HybridRTRL(), h), along(HybridRTRL(), self.num_steps), along(HybridRTRL(3), 5)
            ),
            "difference_rtrl": along(RTRL(), 1),
            "difference_without_influence": along(TruncatedBPTT(h, engine=Loop()), h),
        }


def _draw(figure: Any, sizes: tuple[int, ...], counts: dict[str, list[float]], metrics: dict[str, float]) -> None:
    """Multiplications per step over n."""
    axis = figure.subplots()
    for name, label, color in (
        ("rtrl", "RTRL", "#cc3311"),
        ("hybrid", "hybrid", "#0077bb"),
        ("bptt", "BPTT", "#009988"),
    ):
        axis.plot(sizes, counts[name], "o-", color=color, label=f"{label}, exponent {metrics[f'exponent_{name}']:.2f}")
    axis.set(xscale="log", yscale="log", xlabel="units n", ylabel="multiplications per step")
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
    axis.legend(frameon=False)
    top = math.ceil(math.log10(max(map(max, counts.values()))))
    axis.set_ylim(top=10**top)
    axis.set_title("Exact gradients, multiplications per step", loc="left")
