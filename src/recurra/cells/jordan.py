"""The sequential network of Jordan (1986)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import FeedbackCell, HoistedCell
from ..core.checks import check_choice, check_positive, sentence
from ..init import matrix, vector
from ._activations import OUTPUTS, UNITS


class JordanState(NamedTuple):
    """feedback: (B, O) last output; context: (B, O) the state layer before that output."""

    feedback: Tensor
    context: Tensor


class JordanCell(HoistedCell[Tensor, Tensor, JordanState], FeedbackCell[Tensor, Tensor, JordanState]):
    """Sequential network: a decaying trace of the past outputs drives the hidden layer.

        s = mu s_last + y_last          state layer
        h = f(W x + U s + b)            hidden layer
        y' = g(V h + c)                 output

    The input x is Jordan's plan, often constant over a sequence. Teacher forcing puts the wanted output in the place of
    y_last.

    Args:
        input_size: D, features per step (plan units).
        hidden_size: H, hidden units.
        output_size: O, output units and as many state units; None for H.
        decay: mu in [0, 1), how much of itself the state layer keeps; 0 sees only the last output.
        activation: f, "sigmoid" (the paper's), "tanh" or "relu".
        output_activation: g, "identity", "sigmoid", "tanh" or "softmax".
        bias: with b and c or without.
        input_init: name of W's initialisation, see `recurra.init.names`; V is drawn as W is.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        feedback: (B, O) y_last; forcing replaces it.
        context: (B, O) s_last.
    Raises:
        ValueError: a size below 1, a decay outside [0, 1), an unknown activation or initialisation.
    Source:
        Jordan 1986, "Attractor dynamics and parallelism in a connectionist sequential machine", Proc. 8th Annual
        Conference of the Cognitive Science Society, 531-546 (equations from memory).
    Differs:
        The output is linear unless asked otherwise, so that a loss on logits or real values fits. The state units have
        no connections among themselves other than the decay.
    Cost:
        2 H (D + 2 O) flops and 2 O state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> layer = Recurrent(JordanCell(3, 5, output_size=2, output_activation="sigmoid"))
        >>> plan = torch.eye(3)[[0, 2]].expand(7, 2, 3)
        >>> ys, state = layer(plan, forced=torch.rand(7, 2, 2))
        >>> ys.shape, state.context.shape
        (torch.Size([7, 2, 2]), torch.Size([2, 2]))
    """

    source = "Jordan 1986, Proc. 8th Annual Conference of the Cognitive Science Society, 531-546"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        decay: float = 0.5,
        activation: str = "sigmoid",
        output_activation: str = "identity",
        bias: bool = True,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        output_size = hidden_size if output_size is None else output_size
        check_positive(where, input_size=input_size, hidden_size=hidden_size, output_size=output_size)
        check_choice(where, "activation", activation, tuple(UNITS))
        check_choice(where, "output_activation", output_activation, tuple(OUTPUTS))
        if not 0.0 <= decay < 1.0:
            raise ValueError(sentence(where, "decay", "in [0, 1)", decay))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, output_size
        self.decay, self.activation, self.output_activation = decay, activation, output_activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_ch = matrix(hidden_size, output_size, recurrent_init, where=where, **kind)
        self.weight_ho = matrix(output_size, hidden_size, input_init, where=where, **kind)
        self.bias = vector(hidden_size, bound, **kind) if bias else None
        self.bias_o = vector(output_size, bound, **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Each output activation, with and without decay, biases and a learned start."""
        yield cls(3, 5, 2)
        yield cls(2, 4, 3, decay=0.0, activation="tanh", output_activation="sigmoid", bias=False)
        yield cls(3, 4, 3, decay=0.8, output_activation="softmax").learn_initial_state()
        yield cls(2, 3, activation="relu", output_activation="tanh", recurrent_init="orthogonal")

    def initial_state(self, batch_size: int) -> JordanState:
        """No output yet: y_last = 0, s_last = 0."""
        return JordanState(
            self.initial("feedback", batch_size, self.output_size),
            self.initial("context", batch_size, self.output_size),
        )

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return F.linear(x, self.weight_ih, self.bias)

    def advance(self, projected: Tensor, state: JordanState) -> tuple[Tensor, JordanState]:
        """State layer, hidden layer, output."""
        context = self.decay * state.context + state.feedback
        h = UNITS[self.activation](projected + F.linear(context, self.weight_ch))
        y = OUTPUTS[self.output_activation](F.linear(h, self.weight_ho, self.bias_o))
        return y, JordanState(self.feedback(y), context)

    def feedback(self, y: Tensor) -> Tensor:
        """The output itself."""
        return y
