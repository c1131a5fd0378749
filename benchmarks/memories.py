"""Memories and spin systems: each beside what people would use instead, as a ratio of one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .section import Section


class Row(NamedTuple):
    """What was measured, in words; ``reached`` is None where there is no bar."""

    what: str
    other: str
    ours: str
    ratio: str
    wanted: str
    reached: bool | None


def alternating(ours: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of both, called in turn, so that both meet the same neighbours; two calls do not count."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 2):
        for times, function in zip(found, (ours, other)):
            begin = time.perf_counter()
            function()
            if turn >= 2:
                times.append(time.perf_counter() - begin)
    return statistics.median(found[0]), statistics.median(found[1])


def modern_hopfield(quick: bool) -> list[Row]:
    """A Hopfield layer of one step beside the same linear maps around torch's attention."""
    sizes = ((2, 16, 32, 4),) if quick else ((32, 128, 256, 4), (4, 1024, 256, 8))
    return [row for size in sizes for row in _modern_hopfield(*size, rounds=2 if quick else 15)]


def _modern_hopfield(batch: int, length: int, size: int, heads: int, rounds: int) -> list[Row]:
    from torch.nn.functional import scaled_dot_product_attention

    from recurra.layers import HopfieldAssociation

    torch.manual_seed(0)
    layer = HopfieldAssociation(size, num_heads=heads)
    x = torch.randn(batch, length, size)

    def attention(x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).unflatten(-1, (heads, -1)).transpose(1, 2) for m in (layer.query, layer.key, layer.value))
        return layer.output(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    with torch.no_grad():
        forward = alternating(lambda: layer(x), lambda: attention(x), rounds)
    both = alternating(lambda: layer(x).sum().backward(), lambda: attention(x).sum().backward(), rounds)
    what = f"Hopfield layer, one step, B={batch}, L=S={length}, D={size}, {heads} heads"
    return [
        Row(
            f"{what}, {name}",
            f"{1e3 * theirs:.2f} ms (scaled_dot_product_attention)",
            f"{1e3 * ours:.2f} ms",
            f"{ours / theirs:.3f}",
            "<= 1.10 of its time",
            ours <= 1.1 * theirs,
        )
        for name, (ours, theirs) in (("forward", forward), ("forward and backward", both))
    ]


ROWS: tuple[Callable[[bool], list[Row]], ...] = (modern_hopfield,)


def run(*, quick: bool = False) -> Section:
    """Every row."""
    rows = [row for measure in ROWS for row in measure(quick)]
    missed = [row.what for row in rows if row.reached is False]
    notes = [
        "Both columns are measured in one process, called in turn; the median of rounds.",
        "Missed: " + "; ".join(missed) + "." if missed else "All targets are reached.",
    ]
    return Section(
        "Memories and spin systems", ("what", "beside", "ours", "ratio", "to reach"), [row[:5] for row in rows], notes
    )
