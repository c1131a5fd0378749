"""Weight matrices by name.

Every cell takes ``input_init`` and ``recurrent_init``: a name from `names`, with a gain after a colon where one makes sense
(``"orthogonal:1.4"``, ``"spectral:0.95"``). A matrix of G gates is filled gate by gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.checks import sentence

Fill = Callable[[Tensor, float | None, torch.Generator | None], None]


def _uniform(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    bound = gain if gain is not None else 1 / math.sqrt(max(1, weight.shape[0]))
    weight.uniform_(-bound, bound, generator=generator)


def _normal(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    weight.normal_(0.0, 0.01 if gain is None else gain, generator=generator)


def _xavier_uniform(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    nn.init.xavier_uniform_(weight, gain or 1.0, generator=generator)


def _xavier_normal(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    nn.init.xavier_normal_(weight, gain or 1.0, generator=generator)


def _orthogonal(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    nn.init.orthogonal_(weight, gain or 1.0, generator=generator)


def _identity(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    nn.init.eye_(weight)
    weight.mul_(1.0 if gain is None else gain)


def _zeros(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    weight.zero_()


def _sparse(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    density = 0.1 if gain is None else gain
    keep = torch.rand(weight.shape, generator=generator, dtype=weight.dtype, device=weight.device) < density
    weight.normal_(0.0, 1 / math.sqrt(max(1.0, density * weight.shape[1])), generator=generator).mul_(keep)


def _spectral(weight: Tensor, gain: float | None, generator: torch.Generator | None) -> None:
    weight.normal_(0.0, 1 / math.sqrt(weight.shape[1]), generator=generator)
    radius = spectral_radius(weight)
    if radius > 0:
        weight.mul_((0.9 if gain is None else gain) / radius)


_FILLS: dict[str, tuple[Fill, str]] = {
    "uniform": (_uniform, "U(-a, a), a = 1/sqrt(H) as in torch.nn, or the gain"),
    "normal": (_normal, "N(0, gain^2), gain 0.01 unless given"),
    "xavier_uniform": (_xavier_uniform, "U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)), Glorot & Bengio 2010"),
    "xavier_normal": (_xavier_normal, "N(0, 2 gain^2 / (fan_in + fan_out)), Glorot & Bengio 2010"),
    "orthogonal": (_orthogonal, "gain times an orthogonal matrix, Saxe et al. 2014"),
    "identity": (_identity, "gain times the identity, Le et al. 2015"),
    "zeros": (_zeros, "zeros"),
    "sparse": (_sparse, "normal entries at density gain (0.1 unless given), zeros elsewhere"),
    "spectral": (_spectral, "normal entries scaled to spectral radius gain (0.9 unless given), square only"),
}


def names() -> dict[str, str]:
    """Every name with its meaning."""
    return {name: text for name, (_, text) in _FILLS.items()}


def spectral_radius(weight: Tensor) -> float:
    """Largest absolute eigenvalue of a square matrix.

    Example:
        >>> spectral_radius(torch.diag(torch.tensor([0.5, -2.0])))
        2.0
    """
    return float(torch.linalg.eigvals(weight.double()).abs().max())


@torch.no_grad()
def fill(
    weight: Tensor,
    how: str,
    *,
    num_gates: int = 1,
    where: str = "init",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill a weight matrix (G*H, K) in place, gate by gate, and return it.

    Args:
        weight: the matrix.
        how: a name from `names`, optionally with ``:gain``.
        num_gates: G, blocks of rows filled one by one.
        where: who asks, for the message.
        generator: source of random numbers.

    Raises:
        ValueError: an unknown name, a gain that is no number, or "spectral" for a matrix that is not square.
    """
    name, _, gain_text = how.partition(":")
    if name not in _FILLS:
        raise ValueError(sentence(where, "init", "one of " + ", ".join(_FILLS), repr(how)))
    try:
        gain = float(gain_text) if gain_text else None
    except ValueError:
        raise ValueError(sentence(where, "init", f"{name}:NUMBER", repr(how))) from None
    for block in weight.chunk(num_gates):
        if name == "spectral" and block.shape[0] != block.shape[1]:
            raise ValueError(sentence(where, "init 'spectral'", "used on a square matrix", tuple(block.shape)))
        if block.numel():
            _FILLS[name][0](block, gain, generator)
    return weight


def matrix(
    rows: int,
    columns: int,
    how: str,
    *,
    num_gates: int = 1,
    where: str = "init",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Parameter:
    """A new parameter (rows, columns) filled by name; see `fill`."""
    weight = torch.empty(rows, columns, device=device, dtype=dtype)
    return nn.Parameter(fill(weight, how, num_gates=num_gates, where=where, generator=generator))


def vector(
    size: int,
    bound: float = 0.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Parameter:
    """A new parameter (size,) from U(-bound, bound); zeros for bound 0."""
    weight = torch.zeros(size, device=device, dtype=dtype)
    if bound:
        weight.uniform_(-bound, bound, generator=generator)
    return nn.Parameter(weight)


@torch.no_grad()
def chrono_(bias: Tensor, max_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Fill a forget bias in place with ``log U(1, max_steps - 1)``: time constants spread over the span.

    Args:
        bias: (H,) forget-gate bias; the input gate takes its negative.
        max_steps: T_max, the longest dependency expected.

    Source:
        Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", ICLR, section 3 (from memory).
    """
    if max_steps < 3:
        raise ValueError(sentence("chrono", "max_steps", "at least 3", max_steps))
    return bias.uniform_(1.0, max_steps - 1.0, generator=generator).log_()
