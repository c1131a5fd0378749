"""Neurons whose output, behind the nonlinearity, is fed back through a filter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import ConstrainedCell
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector
from ._taps import FUNCTIONS, Past, delayed, feedback_taps, shifted, shrink_


class OutputFeedbackState(NamedTuple):
    """past: (B, K - 1, D) earlier inputs, () for one tap; y: (B, M, H) earlier outputs, newest first."""

    past: Past
    y: Tensor


class OutputFeedbackCell(ConstrainedCell[Tensor, Tensor, OutputFeedbackState]):
    """Local output feedback: a neuron sees its own last M outputs, and nobody else's.

        y_i(t) = f(sum_j sum_{k=0}^{K-1} w_ij(k) x_j(t - k) + sum_{m=1}^{M} v_i(m) y_i(t - m) + b_i)

    With K = M = 1 this is IndRNN. The loop passes through f: a bounded f (tanh, the logistic function) keeps every output
    bounded whatever the weights. It forgets its start for certain where the |v(m)| add up to less than 1 / max f' (1 for
    tanh, 4 for the logistic function); beyond that it can latch, which linear feedback cannot. ``max_feedback`` keeps
    the sum below a bound after every update that is followed by `constrain` (`fit` calls it).

    Args:
        input_size: D, features per step.
        hidden_size: H, neurons.
        num_taps: K, values of each input that a synapse sees.
        num_feedback: M, a neuron's own earlier outputs that it sees.
        activation: f, "tanh", "relu", "sigmoid" or "identity".
        bias: with b or without.
        input_init: name of the initialisation of w as a matrix (H, K*D), see `recurra.init.names`.
        feedback_range: r, v begins in U(-r/M, r/M).
        max_feedback: what the sum of |v(m)| may be at most; None for no bound.
        generator: source of the initial weights.
    State:
        past: (B, K - 1, D) earlier inputs, the newest first; () for one tap.
        y: (B, M, H) earlier outputs, the newest first.
    Raises:
        ValueError: a size below 1, a range below 0, an unknown activation or initialisation.
    Source:
        Frasconi, Gori & Soda 1992, "Local feedback multilayered networks", Neural Computation 4(1):120-130,
        doi:10.1162/neco.1992.4.1.120; Tsoi & Back 1994, IEEE Transactions on Neural Networks 5(2):229-239 (equations from
        memory)
    Cost:
        2 H (K D + M) flops and (K - 1) D + M H state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(OutputFeedbackCell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.y.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))
    """

    source = "Frasconi, Gori & Soda 1992, Neural Computation 4(1):120-130, doi:10.1162/neco.1992.4.1.120"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_taps: int = 2,
        num_feedback: int = 2,
        activation: str = "tanh",
        bias: bool = True,
        input_init: str = "uniform",
        feedback_range: float = 0.5,
        max_feedback: float | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        check_positive(where, num_taps=num_taps, num_feedback=num_feedback)
        check_choice(where, "activation", activation, tuple(FUNCTIONS))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.num_taps, self.num_feedback = num_taps, num_feedback
        self.activation, self.max_feedback = activation, max_feedback
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, num_taps * input_size, input_init, where=where, **kind)
        shape = (num_feedback, hidden_size)
        self.weight_hh = feedback_taps(where, shape, feedback_range, max_feedback, generator, device, dtype)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Orders of two, one tap without bias, long feedback with a bound and a learned start."""
        yield cls(3, 4)
        yield cls(2, 2, num_taps=1, num_feedback=1, activation="relu", bias=False)
        yield cls(
            1, 2, num_feedback=3, max_feedback=0.9, feedback_range=2.0, activation="sigmoid"
        ).learn_initial_state()

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale v down where its absolute values add up to more than ``max_feedback``, in place."""
        shrink_(self.weight_hh, self.max_feedback)

    def initial_state(self, batch_size: int) -> OutputFeedbackState:
        """No outputs yet: zeros."""
        y = self.initial("y", batch_size, self.num_feedback, self.hidden_size)
        if self.num_taps == 1:
            return OutputFeedbackState((), y)
        return OutputFeedbackState(self.initial("past", batch_size, self.num_taps - 1, self.input_size), y)

    def step(self, x: Tensor, state: OutputFeedbackState) -> tuple[Tensor, OutputFeedbackState]:
        """Both sums of every neuron through f."""
        line = delayed(x, state.past)
        net = F.linear(line.flatten(1), self.weight_ih, self.bias) + (self.weight_hh * state.y).sum(1)
        y = FUNCTIONS[self.activation](net)
        kept = shifted(delayed(y, state.y))
        assert isinstance(kept, Tensor)
        return y, OutputFeedbackState(shifted(line), kept)
