"""Graded units: a voltage u, an output V = g(u) between -1 and +1, and the energy that the amplifier stores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core.checks import check_choice, sentence

Response = Literal["tanh", "arctan"]

EDGE = 1 - 1e-12
"""Outputs lie in [-EDGE, EDGE]: an output of one would need an infinite voltage."""


@dataclass(frozen=True)
class Graded:
    """The response of an amplifier, odd, increasing, with slope ``gain`` at zero and limits -1 and +1:

        tanh:    V = tanh(gain u)
        arctan:  V = (2 / pi) arctan(pi gain u / 2)

    Args:
        gain: slope at u = 0, 1/volt.
        response: which of them.
    Raises:
        ValueError: a gain that is not positive, an unknown response.
    Source:
        Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088 (arctan: figure caption, from memory)
    Example:
        >>> graded = Graded(5.0)
        >>> graded.voltage(graded.output(torch.tensor([0.25]))).allclose(torch.tensor([0.25]))
        True
    """

    gain: float = 1.0
    response: Response = "tanh"

    def __post_init__(self) -> None:
        if not 0 < self.gain < math.inf:
            raise ValueError(sentence("Graded", "gain", "positive and finite", self.gain))
        check_choice("Graded", "response", self.response, ("tanh", "arctan"))

    def output(self, voltage: Tensor) -> Tensor:
        """V = g(u)."""
        if self.response == "tanh":
            return torch.tanh(self.gain * voltage)
        return torch.atan(math.pi / 2 * self.gain * voltage) * (2 / math.pi)

    def voltage(self, output: Tensor) -> Tensor:
        """u = g^-1(V), finite: outputs at the edge count as `EDGE`."""
        v = output.clamp(-EDGE, EDGE)
        if self.response == "tanh":
            return torch.atanh(v) / self.gain
        return torch.tan(math.pi / 2 * v) * (2 / (math.pi * self.gain))

    def stored(self, output: Tensor) -> Tensor:
        """The integral of g^-1 from 0 to V, for each unit."""
        v = output.clamp(-EDGE, EDGE)
        if self.response == "tanh":
            return (v * torch.atanh(v) + 0.5 * torch.log1p(-v * v)) / self.gain
        return -(4 / (math.pi**2 * self.gain)) * torch.log(torch.cos(math.pi / 2 * v))
