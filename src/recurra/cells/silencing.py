"""Neurons that fall silent for a while after they have fired."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import Noisy, StochasticCell, quiet
from ..core.checks import check_positive, sentence
from ..core.tree import Tree


class SilencingState(NamedTuple):
    """silence: (B, H) int64, steps for which each neuron is still silent."""

    silence: Tensor


class SilencingCell(StochasticCell[Tensor, SilencingState]):
    """Feed-forward threshold neurons, each of which is silent for tau_i steps after it has fired.

        s_i = 1  if  (W x)_i + sigma noise_i >= theta  and  c_i = 0,  else 0          y = s
        c_i' = tau_i if s_i = 1, else max(c_i - 1, 0)

    There is no feedback but of a neuron on itself: which neurons are there for an input depends on the inputs before it, on
    their order and on their timing, so that every moment of a sequence meets another network. No gradient passes.

    Args:
        input_size: D.
        hidden_size: H, neurons.
        max_silence: tau_i is drawn from 1 .. max_silence; 0 is no silence at all.
        threshold: theta; W is drawn from a normal distribution with standard deviation 1.
        noise_std: sigma, of the noise that each neuron adds while the cell is in training mode, or whenever noise is given.
        generator: source of W and tau.
    State:
        silence: (B, H) int64, steps for which each neuron is still silent.
    Raises:
        ValueError: a size below 1, a silence or noise below 0.
    Source:
        Hodassman, Meir, Kisos, Ben-Noam, Tugendhaft, Goldental, Vardi & Kanter 2022, "Brain inspired neuronal silencing
        mechanism to enable reliable sequence identification", Scientific Reports 12:16003, doi:10.1038/s41598-022-20337-x
        (abstract and introduction read)
    Differs:
        Whole steps, one spike of each neuron in a step, periods of silence that differ between neurons.
    Cost:
        2 D H flops and H state values per step and sample.
    Example:
        >>> cell = SilencingCell(2, 4, generator=torch.Generator().manual_seed(0)).eval()
        >>> x = torch.ones(1, 2)
        >>> first, state = cell(x)
        >>> again, _ = cell(x, state)
        >>> first.tolist(), again.tolist()
        ([[1.0, 0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]])
    """

    source = "Hodassman et al. 2022, Scientific Reports 12:16003, doi:10.1038/s41598-022-20337-x"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        max_silence: int = 14,
        threshold: float = 0.5,
        noise_std: float = 0.0,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        for name, value in {"max_silence": max_silence, "noise_std": noise_std}.items():
            if not value >= 0:
                raise ValueError(sentence(where, name, "at least 0", value))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.max_silence, self.threshold, self.noise_std = max_silence, threshold, noise_std
        weight = torch.empty(hidden_size, input_size, device=device, dtype=dtype)
        self.weight_ih = nn.Parameter(weight.normal_(generator=generator))
        self.tau: Tensor
        low = min(1, max_silence)
        drawn = torch.randint(low, max_silence + 1, (hidden_size,), generator=generator, device=device)
        self.register_buffer("tau", drawn)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Noisy; without silence."""
        yield cls(2, 4, max_silence=2, noise_std=0.5, threshold=0.2)
        yield cls(2, 3, max_silence=0)

    def initial_state(self, batch_size: int) -> SilencingState:
        """Every neuron may fire."""
        return SilencingState(self.initial("silence", batch_size, self.hidden_size, dtype=torch.int64))

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """(T, B, H) normal numbers; None without noise."""
        if self.noise_std == 0:
            return None
        shape = (num_steps, batch_size, self.hidden_size)
        return torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)

    def step(self, x: Noisy, state: SilencingState) -> tuple[Tensor, SilencingState]:
        """Who fires, and who falls silent."""
        x = quiet(x)
        drive = F.linear(x.x, self.weight_ih)
        if x.noise is not None:
            drive = drive + self.noise_std * x.noise
        fires = (drive >= self.threshold) & (state.silence == 0)
        rest = torch.where(fires, self.tau.expand_as(state.silence), (state.silence - 1).clamp(min=0))
        return fires.to(drive.dtype), SilencingState(rest)
