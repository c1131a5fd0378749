"""What is known exactly of the Ising model on a square lattice: formulas of Onsager, Yang and Kaufman."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence

CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))
"""T_c of J = 1, k_B = 1: 2.269185..."""


def _check(where: str, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(sentence(where, "temperature", "above 0", temperature))


def onsager_energy(temperature: float) -> float:
    """Energy per spin of the infinite square lattice, J = 1:

        u = -coth(2K) (1 + (2 / pi) x K(k)),    x = 2 tanh^2(2K) - 1,  k^2 = 1 - x^2,  K = 1 / T

    where K(k) is the complete elliptic integral of the first kind.

    Source:
        Onsager 1944, Phys. Rev. 65:117-149, doi:10.1103/PhysRev.65.117 (formula from memory; the tests differentiate the
        partition function of finite lattices)
    Example:
        >>> round(onsager_energy(CRITICAL_TEMPERATURE), 6)
        -1.414214
    """
    _check("onsager_energy", temperature)
    x = 2 * math.tanh(2 / temperature) ** 2 - 1
    mean, other = 1.0, abs(x)
    while abs(mean - other) > 1e-15 and other:
        mean, other = (mean + other) / 2, math.sqrt(mean * other)
    integral = math.pi / (2 * mean) if other else math.inf
    return -(1 + (2 / math.pi * x * integral if x else 0.0)) / math.tanh(2 / temperature)


def onsager_magnetisation(temperature: float) -> float:
    """Spontaneous magnetisation per spin of the infinite square lattice, J = 1: (1 - sinh(2 / T)^-4)^(1/8), 0 above T_c.

    Source:
        Yang 1952, Phys. Rev. 85:808-816, doi:10.1103/PhysRev.85.808
    Example:
        >>> round(onsager_magnetisation(2.0), 5)
        0.91132
    """
    _check("onsager_magnetisation", temperature)
    if temperature >= CRITICAL_TEMPERATURE:
        return 0.0
    return float((1 - math.sinh(2 / temperature) ** -4) ** 0.125) if temperature > 0.01 else 1.0


def kaufman_energy(height: int, width: int, temperature: float) -> float:
    """Energy per spin of a periodic lattice of H rows and W columns, J = 1, from its partition function:

        Z = 1/2 (2 sinh 2K)^(HW/2) (prod_q 2 cosh(W g_2q+1 / 2) + prod 2 sinh(W g_2q+1 / 2)
                                    + prod 2 cosh(W g_2q / 2) + prod 2 sinh(W g_2q / 2)),    q = 0 ... H - 1
        cosh g_q = cosh(2K) coth(2K) - cos(pi q / H),    g_0 = 2K + ln tanh K

    Source:
        Kaufman 1949, Phys. Rev. 76:1232-1243, doi:10.1103/PhysRev.76.1232 (from memory; the tests compare with enumeration)
    Example:
        >>> round(kaufman_energy(64, 64, CRITICAL_TEMPERATURE), 4)
        -1.4239
    """
    check_positive("kaufman_energy", height=height, width=width)
    _check("kaufman_energy", temperature)
    coupling = torch.tensor(1 / temperature, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(_log_partition(height, width, coupling), coupling)
    return -float(slope) / (height * width)


def _log_partition(height: int, width: int, coupling: Tensor) -> Tensor:
    """ln Z without constants."""
    double = 2 * coupling
    first = width * (double + torch.log(torch.tanh(coupling))) / 2  # may be negative, and is 0 at T_c
    sign = -1.0 if float(first.detach()) < 0 else 1.0
    logs = []
    for begin in (1, 2):
        q = torch.arange(begin, 2 * height, 2, dtype=torch.float64)
        half = width * torch.acosh(torch.cosh(double) / torch.tanh(double) - torch.cos(math.pi * q / height)) / 2
        shrunk = torch.exp(-2 * half)
        for rest in (torch.log1p(shrunk), torch.log1p(-shrunk)):
            logs.append((half + rest).sum() + (sign * first if begin == 2 else 0.0))
    shrunk_first = -2 * sign * first
    one = torch.ones_like(coupling)
    factors = torch.stack([one, one, 1 + torch.exp(shrunk_first), -sign * torch.expm1(shrunk_first)])
    values = torch.stack(logs)
    top = values.detach().max()
    summed = (factors * torch.exp(values - top)).sum().log() + top
    return summed + height * width / 2 * torch.log(2 * torch.sinh(double))
