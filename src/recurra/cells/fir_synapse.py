"""Synapses with a finite impulse response: every connection is a tapped delay line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import Cell
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector
from ._taps import FUNCTIONS, Past, delayed, shifted


class FIRSynapseState(NamedTuple):
    """past: (B, K - 1, D) earlier inputs, the newest first; () for one tap."""

    past: Past


class FIRSynapseCell(Cell[Tensor, Tensor, FIRSynapseState]):
    """FIR synapses: every connection weighs the last K values of its input.

        y_i(t) = f(sum_j sum_{k=0}^{K-1} w_ij(k) x_j(t - k) + b_i)

    It remembers K - 1 steps and no more. A stack of such layers is a time-delay network whose gradient is temporal
    backpropagation. It is stable whatever its weights.

    Args:
        input_size: D, features per step.
        hidden_size: H, neurons.
        num_taps: K, values of each input that a synapse sees; 1 is an ordinary neuron.
        activation: f, "tanh", "relu", "sigmoid" or "identity".
        bias: with b or without.
        input_init: name of the initialisation of w as a matrix (H, K*D), see `recurra.init.names`; "uniform" draws from
            U(-1/sqrt(H), 1/sqrt(H)).
        generator: source of the initial weights.
    State:
        past: (B, K - 1, D) earlier inputs, the newest first; () for one tap.
    Raises:
        ValueError: a size below 1, an unknown activation or initialisation.
    Source:
        Back & Tsoi 1991, "FIR and IIR synapses, a new neural network architecture for time series modeling", Neural
        Computation 3(3):375-385, doi:10.1162/neco.1991.3.3.375 (from memory); Wan 1990, "Temporal backpropagation for FIR
        neural networks", IJCNN (from memory).
    Cost:
        2 K H D flops and (K - 1) D state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(FIRSynapseCell(3, 5, num_taps=4))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.past.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 3, 3]))
    """

    source = "Back & Tsoi 1991, Neural Computation 3(3):375-385, doi:10.1162/neco.1991.3.3.375"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_taps: int = 3,
        activation: str = "tanh",
        bias: bool = True,
        input_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size, num_taps=num_taps)
        check_choice(where, "activation", activation, tuple(FUNCTIONS))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.num_taps, self.activation = num_taps, activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, num_taps * input_size, input_init, where=where, **kind)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Three taps, one tap without bias, a learned start."""
        yield cls(3, 4)
        yield cls(2, 3, num_taps=1, activation="sigmoid", bias=False)
        yield cls(1, 2, num_taps=2, activation="identity").learn_initial_state()

    def initial_state(self, batch_size: int) -> FIRSynapseState:
        """Zeros before the first input."""
        if self.num_taps == 1:
            return FIRSynapseState(())
        return FIRSynapseState(self.initial("past", batch_size, self.num_taps - 1, self.input_size))

    def step(self, x: Tensor, state: FIRSynapseState) -> tuple[Tensor, FIRSynapseState]:
        """The line of taps, its product with the weights, f."""
        line = delayed(x, state.past)
        y = FUNCTIONS[self.activation](F.linear(line.flatten(1), self.weight_ih, self.bias))
        return y, FIRSynapseState(shifted(line))
