"""Nonlinear systems with memory that nets are to identify from their inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _driven(step: Callable[[float], float], num_steps: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Inputs from U(-1, 1) and what a system makes of them, (T, 1, 1) each."""
    xs = 2 * torch.rand(num_steps, generator=generator, dtype=torch.float64) - 1
    ys = torch.tensor([step(x) for x in xs.tolist()], dtype=torch.float64)
    return tuple(v.to(torch.get_default_dtype()).reshape(-1, 1, 1) for v in (xs, ys))  # type: ignore[return-value]


def arma_then(
    function: Callable[[float], float], num_steps: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A low-pass filter of order three, then a function: the system of Back & Tsoi with any nonlinearity.

        z(t) = 0.0154 x(t) + 0.0462 x(t-1) + 0.0462 x(t-2) + 0.0154 x(t-3) + 1.99 z(t-1) - 1.572 z(t-2) + 0.4583 z(t-3)
        y(t) = f(z(t))

    Args:
        function: f; in the literature ``sin(pi z)``.
        num_steps: T.
        generator: of the inputs, U(-1, 1).

    Returns:
        Inputs and outputs, (T, 1, 1) each, from rest.

    Source:
        Back & Tsoi 1991, Neural Computation 3(3):375-385, as used by Campolucci et al. 1999 (from memory)

    Example:
        >>> import math
        >>> xs, ys = arma_then(math.tanh, 50, torch.Generator().manual_seed(0))
        >>> xs.shape, bool((ys.abs() < 1).all())
        (torch.Size([50, 1, 1]), True)
    """
    x, z = [0.0] * 3, [0.0] * 3

    def step(now: float) -> float:
        new = 0.0154 * now + 0.0462 * (x[0] + x[1]) + 0.0154 * x[2] + 1.99 * z[0] - 1.572 * z[1] + 0.4583 * z[2]
        x[:], z[:] = [now, *x[:2]], [new, *z[:2]]
        return function(new)

    return _driven(step, num_steps, generator)


def back_tsoi(num_steps: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """`arma_then` with ``sin(pi z)``."""
    return arma_then(lambda z: math.sin(math.pi * z), num_steps, generator)


def narendra(num_steps: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The plant of Narendra & Parthasarathy with three outputs and two inputs in its memory.

        y(t+1) = (y(t) y(t-1) y(t-2) u(t-1) (y(t-2) - 1) + u(t)) / (1 + y(t-1)^2 + y(t-2)^2)

    Args:
        num_steps: T.
        generator: of the inputs u, U(-1, 1).

    Returns:
        (T, 1, 2) the input u(t) and the plant's output y(t); (T, 1, 1) y(t+1).

    Source:
        Narendra & Parthasarathy 1990, IEEE Transactions on Neural Networks 1(1):4-27, example 4 (from memory)

    Example:
        >>> xs, ys = narendra(50, torch.Generator().manual_seed(0))
        >>> xs.shape, bool((xs[1:, :, 1] == ys[:-1, :, 0]).all())
        (torch.Size([50, 1, 2]), True)
    """
    y, before = [0.0] * 3, [0.0]

    def step(u: float) -> float:
        new = (y[0] * y[1] * y[2] * before[0] * (y[2] - 1) + u) / (1 + y[1] ** 2 + y[2] ** 2)
        y[:], before[:] = [new, *y[:2]], [u]
        return new

    us, ys = _driven(step, num_steps, generator)
    return torch.cat([us, torch.cat([torch.zeros_like(ys[:1]), ys[:-1]])], -1), ys
