"""Tasks whose information is the time between events (Gers, Schraudolph & Schmidhuber 2002)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence

SHAPES = ("cos", "triangle", "rectangle")


class Spikes(NamedTuple):
    """xs: (T, B, 1) 1 at a spike, else 0; targets: (T, B, 1) and weights: (T, B), 1 where a target is asked for."""

    xs: Tensor
    targets: Tensor
    weights: Tensor


def spike_delays(
    num_intervals: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    *,
    base: int = 10,
    num_delays: int = 2,
    doubling: bool = False,
) -> Spikes:
    """Measure spike delays (MSD; NMSD if doubling): at each spike, how long is it since the last one?

    The intervals are ``base + d`` steps, or ``base 2^d`` if doubling, d drawn from 0 .. num_delays - 1; a first spike stands at
    step 0. At every later spike the target is d / (num_delays - 1), so a net that counts makes no error, and one that sees the
    present alone has at best the variance of d.

    Args:
        num_intervals: K of each row.
        batch_size: B.
        generator: source of the intervals.
        base: F, the shortest interval.
        num_delays: how many different intervals there are.
        doubling: the intervals grow with a power of two, so the target is not linear in what is counted (NMSD).

    Returns:
        T is that of the longest row; behind a row's last spike all is 0.

    Source:
        Gers, Schraudolph & Schmidhuber 2002, JMLR 3:115-143, tasks MSD and NMSD (from memory; the
        intervals of NMSD with a question mark)

    Example:
        >>> xs, targets, weights = spike_delays(3, 2, torch.Generator().manual_seed(0), base=4)
        >>> xs[:, 0, 0].nonzero().flatten().diff().tolist(), targets[weights[:, 0] > 0, 0, 0].tolist()
        ([4, 5, 5], [0.0, 1.0, 1.0])
        >>> xs, _, _ = spike_delays(3, 2, torch.Generator().manual_seed(0), base=4, doubling=True)
        >>> xs[:, 0, 0].nonzero().flatten().diff().tolist()
        [4, 8, 8]
    """
    check_positive("spike_delays", num_intervals=num_intervals, batch_size=batch_size, base=base)
    if num_delays < 2:
        raise ValueError(sentence("spike_delays", "num_delays", "at least 2", num_delays))
    delays = torch.randint(0, num_delays, (num_intervals, batch_size), generator=generator)
    places = (base * 2**delays if doubling else base + delays).cumsum(0)
    rows = torch.arange(batch_size).expand(num_intervals, -1)
    xs = torch.zeros(int(places[-1].max()) + 1, batch_size, 1)
    targets, weights = torch.zeros_like(xs), torch.zeros(xs.shape[:2])
    xs[0] = 1
    xs[places, rows, 0] = 1
    targets[places, rows, 0] = delays.to(xs.dtype) / (num_delays - 1)
    weights[places, rows] = 1
    return Spikes(xs, targets, weights)


def timed_spikes(num_steps: int, period: int) -> Tensor:
    """Generate timed spikes (GTS): (T,) a 1 at every ``period``-th step, else 0; there is no input.

    Source:
        Gers, Schraudolph & Schmidhuber 2002, JMLR 3:115-143, task GTS (from memory)

    Example:
        >>> timed_spikes(7, 3).tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    """
    check_positive("timed_spikes", num_steps=num_steps, period=period)
    return ((torch.arange(1, num_steps + 1) % period) == 0).to(torch.get_default_dtype())


def periodic_function(num_steps: int, period: int, shape: str = "cos") -> Tensor:
    """Periodic function generation (PFG): (T,) values in [0, 1] that begin and end a period at 1; there is no input.

    Args:
        num_steps: T.
        period: F.
        shape: "cos", "triangle" or "rectangle" (1 in the first and the last quarter of a period, else 0).

    Source:
        Gers, Schraudolph & Schmidhuber 2002, JMLR 3:115-143, task PFG (from memory)

    Example:
        >>> periodic_function(4, 4, "triangle").tolist()
        [0.5, 0.0, 0.5, 1.0]
    """
    check_positive("periodic_function", num_steps=num_steps, period=period)
    check_choice("periodic_function", "shape", shape, SHAPES)
    phase = torch.arange(1, num_steps + 1, dtype=torch.float64) % period / period
    if shape == "cos":
        values = (1 + torch.cos(2 * math.pi * phase)) / 2
    elif shape == "triangle":
        values = (1 - 2 * phase).abs()
    else:
        values = ((phase < 0.25) | (phase >= 0.75)).double()
    return values.to(torch.get_default_dtype())
