"""Tapped delay lines and feedback filters: what locally recurrent cells share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.checks import sentence
from ._activations import OUTPUTS, UNITS

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {**UNITS, "identity": OUTPUTS["identity"]}
"""What a neuron may put its net input through; "identity" makes a linear filter."""

Past = Tensor | tuple[()]


def delayed(now: Tensor, past: Past) -> Tensor:
    """(B, K, ...) the values of now and of the steps before, the newest first; ``past`` is () for K = 1."""
    newest = now.unsqueeze(1)
    return torch.cat([newest, past], 1) if isinstance(past, Tensor) else newest


def shifted(line: Tensor) -> Past:
    """The past of the next step: the line without its oldest value, () where nothing is left."""
    return line[:, :-1] if line.shape[1] > 1 else ()


def feedback_taps(
    where: str,
    shape: tuple[int, ...],
    feedback_range: float,
    max_feedback: float | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> nn.Parameter:
    """(M, ...) taps from U(-r/M, r/M): their absolute values add up to less than r.

    Raises:
        ValueError: a range or a bound that is no number of at least 0 (of more than 0).
    """
    if not 0.0 <= feedback_range < math.inf:
        raise ValueError(sentence(where, "feedback_range", "a number of at least 0", feedback_range))
    if max_feedback is not None and not 0.0 < max_feedback < math.inf:
        raise ValueError(sentence(where, "max_feedback", "None or a number above 0", max_feedback))
    taps = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
    with torch.no_grad():
        taps.uniform_(-feedback_range / shape[0], feedback_range / shape[0], generator=generator)
    shrink_(taps, max_feedback)
    return taps


@torch.no_grad()
def shrink_(taps: Tensor, bound: float | None) -> None:
    """Scale the taps (M, ...) of each filter down, in place, until their absolute values add up to ``bound`` at most."""
    if bound is not None:
        total = taps.abs().sum(0)
        below = bound * (1 - 2 * (len(taps) + 1) * torch.finfo(taps.dtype).eps)  # so that rounding stays inside
        taps.mul_(torch.where(total > bound, below / total.clamp(min=bound), 1.0))


@torch.no_grad()
def largest_pole(taps: Tensor) -> Tensor:
    """(...) the largest absolute root of ``z^M - v_1 z^(M-1) - ... - v_M`` for taps v (M, ...).

    Example:
        >>> largest_pole(torch.tensor([[0.5], [0.0]]))
        tensor([0.5000])
    """
    order = taps.shape[0]
    companion = torch.zeros(*taps.shape[1:], order, order, dtype=torch.float64, device=taps.device)
    companion[..., 0, :] = taps.movedim(0, -1).double()
    if order > 1:
        companion[..., 1:, :-1] = torch.eye(order - 1, dtype=torch.float64, device=taps.device)
    known = taps.isfinite().all(0)
    companion = torch.where(known[..., None, None], companion, 0.0)  # LAPACK does not survive a NaN
    found = torch.linalg.eigvals(companion).abs().amax(-1)
    return torch.where(known, found, torch.nan).to(taps.dtype)
