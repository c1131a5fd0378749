"""Endless streams that a fully recurrent net learns in real time (Williams & Zipser 1989)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.rule import Chunk


def delayed_xor(num_steps: int, delay: int, generator: torch.Generator | None = None) -> Chunk:
    """Two random bits at every step; the exclusive or of the two bits ``delay - 1`` steps before is asked for.

    A net whose units take one step each sees its input of step t in the output of the same step at the earliest, and
    exclusive or takes two layers: delay = 2 is the least that can be learned.

    Args:
        num_steps: T.
        delay: steps from the input to the target, the one that the net itself takes included.
        generator: source of the bits.

    Returns:
        xs (T, 1, 2), targets (T, 1, 1); weights (T, 1) are 0 where no input lies so far back.

    Source:
        Williams & Zipser 1989, Neural Computation 1(2), "pipelined XOR" (from memory)

    Example:
        >>> chunk = delayed_xor(10, 2)
        >>> bits = chunk.xs[:-1, 0].long()
        >>> torch.equal(bits[:, 0] ^ bits[:, 1], chunk.targets[1:, 0, 0].long())
        True
    """
    check_positive("delayed_xor", num_steps=num_steps, delay=delay)
    bits = torch.randint(2, (num_steps, 1, 2), generator=generator)
    back = delay - 1
    targets = torch.zeros(num_steps, 1, 1)
    targets[back:] = (bits[..., :1] ^ bits[..., 1:])[: num_steps - back].float()
    weights = (torch.arange(num_steps) >= back).float()[:, None]
    return Chunk(bits.to(torch.get_default_dtype()), targets, weights)


def event_after_event(num_steps: int, num_lines: int = 4, generator: torch.Generator | None = None) -> Chunk:
    """One of some lines is on at each step; 1 is asked for when b comes for the first time after a, whatever lay between.

    Args:
        num_steps: T.
        num_lines: D; line 0 is a, line 1 is b, the others mean nothing.
        generator: source of the events.

    Returns:
        xs (T, 1, D) one-hot; targets (T, 1, 1), one step late, since the net takes one for each of two layers;
        weights (T, 1), 0 at the first step.

    Source:
        Williams & Zipser 1989, Neural Computation 1(2), "simple sequence recognition" (from memory)

    Example:
        >>> chunk = event_after_event(1000)
        >>> 100 < chunk.targets.sum().item() < 150  # b comes first after a in half of the pairs: one step in eight
        True
    """
    where = "event_after_event"
    check_positive(where, num_steps=num_steps)
    if num_lines < 2:
        raise ValueError(sentence(where, "num_lines", "at least 2", num_lines))
    events = torch.randint(num_lines, (num_steps,), generator=generator)
    steps = torch.arange(num_steps)
    last_a = torch.where(events == 0, steps, -1).cummax(0).values
    last_b = torch.where(events == 1, steps, -1).cummax(0).values
    before = torch.cat([last_b.new_full((1,), -1), last_b[:-1]])
    hit = (events == 1) & (last_a > before)
    targets = torch.cat([hit.new_zeros(1), hit[:-1]]).float()[:, None, None]
    xs = F.one_hot(events, num_lines).to(torch.get_default_dtype())[:, None]
    return Chunk(xs, targets, (steps > 0).float()[:, None])


def delayed_nonmatch(num_steps: int, longest_delay: int = 4, generator: torch.Generator | None = None) -> Chunk:
    """A cue marks a sample bit; some steps later a second cue marks a test bit: do they differ?

    Between the cues come up to ``longest_delay`` random bits that mean nothing. Pairs follow each other without a mark of
    which cue is the first.

    Args:
        num_steps: T.
        longest_delay: steps between two cues, drawn evenly from 0 to this.
        generator: source of the bits.

    Returns:
        xs (T, 1, 3): the bit, the cue of a sample, the cue of a test; targets (T, 1, 1): 1 one step after a test bit that
        differs from its sample, else 0; weights (T, 1), 0 at the first step.

    Source:
        Williams & Zipser 1989, Neural Computation 1(2), "delayed nonmatch to sample" (from memory; the paper's lines may
        differ)

    Example:
        >>> chunk = delayed_nonmatch(1000)
        >>> chunk.xs[..., 1].sum().item() >= chunk.xs[..., 2].sum().item() > chunk.targets.sum().item() > 50
        True
    """
    where = "delayed_nonmatch"
    check_positive(where, num_steps=num_steps)
    if longest_delay < 0:
        raise ValueError(sentence(where, "longest_delay", "at least 0", longest_delay))
    bits = torch.randint(2, (num_steps,), generator=generator)
    gaps = torch.randint(longest_delay + 1, (num_steps,), generator=generator) + 1
    cues = gaps.cumsum(0) - 1
    cues = cues[cues < num_steps]
    sample, test = cues[: len(cues) // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    xs = torch.zeros(num_steps, 1, 3)
    xs[:, 0, 0] = bits
    xs[cues[::2], 0, 1] = 1
    xs[cues[1::2], 0, 2] = 1
    targets = torch.zeros(num_steps + 1, 1, 1)
    targets[test + 1, 0, 0] = (bits[sample] ^ bits[test]).float()
    return Chunk(xs, targets[:-1], (torch.arange(num_steps) > 0).float()[:, None])


def oscillation(num_steps: int, kind: str) -> Tensor:
    """(T, 1, 1) what a net without input is to do by itself: "01", "0011" or "sine" (0.5 + 0.4 sin, period 25).

    Args:
        num_steps: T.
        kind: which one.

    Source:
        Williams & Zipser 1989, Neural Computation 1(2), "learning to oscillate" (from memory; the sine's period is ours)

    Example:
        >>> oscillation(6, "0011").flatten().tolist()
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    check_choice("oscillation", "kind", kind, ("01", "0011", "sine"))
    steps = torch.arange(num_steps)
    if kind == "sine":
        values = 0.5 + 0.4 * torch.sin(2 * math.pi * steps / 25)
    else:
        values = ((steps % len(kind)) >= len(kind) // 2).float()
    return values[:, None, None]
