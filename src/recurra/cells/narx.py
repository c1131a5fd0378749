"""Nonlinear autoregressive networks with exogenous inputs: feedback from the outputs of several steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import FeedbackCell
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector
from ._activations import OUTPUTS
from ._taps import FUNCTIONS, Past, delayed, shifted


class NARXState(NamedTuple):
    """past: (B, K - 1, D) earlier inputs, () for one tap; earlier: (B, M - 1, O) outputs before the last, newest first,
    () for one delay; feedback: (B, O) last output."""

    past: Past
    earlier: Past
    feedback: Tensor


class NARXCell(FeedbackCell[Tensor, Tensor, NARXState]):
    """NARX network: the only memory is what went in and what came out, over several steps each.

        h = f(sum_{k=0}^{K-1} W_k x(t - k) + sum_{m=1}^{M} U_m y(t - m) + b)
        y = g(V h + c)                  with an output layer; else y = h

    The M output delays are short cuts through time: what came out at t reaches t + M in one step instead of M, so gradients
    pass fewer nonlinearities and fade more slowly. With K = M = 1 and no output layer it is an Elman network. Teacher
    forcing puts the wanted output in the place of the last one, from where it moves along the delays (the series-parallel
    form of system identification).

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        output_size: O; None for no output layer: the hidden units are the outputs, O = H.
        num_taps: K, values of each input that the network sees, the present one included.
        num_delays: M, earlier outputs that it sees.
        activation: f, "tanh", "relu", "sigmoid" or "identity".
        output_activation: g, "identity", "sigmoid", "tanh" or "softmax"; without an output layer there is none.
        bias: with b and c or without.
        input_init: name of the initialisation of W as a matrix (H, K*D), see `recurra.init.names`; V is drawn as W is.
        recurrent_init: name of the initialisation of U as a matrix (H, M*O).
        generator: source of the initial weights.
    State:
        past: (B, K - 1, D) earlier inputs, the newest first; () for one tap.
        earlier: (B, M - 1, O) outputs before the last, the newest first; () for one delay.
        feedback: (B, O) the last output; forcing replaces it.
    Raises:
        ValueError: a size below 1, an unknown activation or initialisation.
    Source:
        Lin, Horne, Tino & Giles 1996, "Learning long-term dependencies in NARX recurrent neural networks", IEEE Trans.
        Neural Networks 7(6):1329-1338, doi:10.1109/72.548162 (abstract read; equations from memory)
    Differs:
        Weights are drawn with a range that shrinks with H alone, as elsewhere; the present input is among the taps.
    Cost:
        2 H (K D + M O) + 2 O H flops (the last term with an output layer) and (K - 1) D + M O state values per step and
        sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(NARXCell(3, 5, 2, num_delays=4))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.earlier.shape
        (torch.Size([7, 2, 2]), torch.Size([2, 3, 2]))
    """

    source = "Lin, Horne, Tino & Giles 1996, IEEE Trans. Neural Networks 7(6):1329-1338, doi:10.1109/72.548162"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None = None,
        *,
        num_taps: int = 1,
        num_delays: int = 3,
        activation: str = "tanh",
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
        layered = output_size is not None
        outputs = hidden_size if output_size is None else output_size
        check_positive(where, input_size=input_size, hidden_size=hidden_size, output_size=outputs)
        check_positive(where, num_taps=num_taps, num_delays=num_delays)
        check_choice(where, "activation", activation, tuple(FUNCTIONS))
        check_choice(where, "output_activation", output_activation, tuple(OUTPUTS))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, outputs
        self.num_taps, self.num_delays = num_taps, num_delays
        self.activation, self.output_activation = activation, output_activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        bound = 1 / math.sqrt(hidden_size)
        self.weight_ih = matrix(hidden_size, num_taps * input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(hidden_size, num_delays * outputs, recurrent_init, where=where, **kind)
        self.bias = vector(hidden_size, bound, **kind) if bias else None
        self.weight_ho = matrix(outputs, hidden_size, input_init, where=where, **kind) if layered else None
        self.bias_o = vector(outputs, bound, **kind) if bias and layered else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """With and without an output layer, single delays and taps, a learned start."""
        yield cls(3, 5, 2, num_taps=2, output_activation="tanh")
        yield cls(2, 4, num_delays=6)
        yield cls(2, 3, 2, num_delays=1, activation="sigmoid", output_activation="softmax", bias=False)
        yield cls(1, 2, num_taps=3, num_delays=2, activation="relu").learn_initial_state()

    def initial_state(self, batch_size: int) -> NARXState:
        """Zeros before the first step."""
        past: Past = ()
        earlier: Past = ()
        if self.num_taps > 1:
            past = self.initial("past", batch_size, self.num_taps - 1, self.input_size)
        if self.num_delays > 1:
            earlier = self.initial("earlier", batch_size, self.num_delays - 1, self.output_size)
        return NARXState(past, earlier, self.initial("feedback", batch_size, self.output_size))

    def step(self, x: Tensor, state: NARXState) -> tuple[Tensor, NARXState]:
        """Both lines of delays, the hidden layer, the output."""
        inputs, outputs = delayed(x, state.past), delayed(state.feedback, state.earlier)
        net = F.linear(inputs.flatten(1), self.weight_ih, self.bias) + F.linear(outputs.flatten(1), self.weight_hh)
        y = FUNCTIONS[self.activation](net)
        if self.weight_ho is not None:
            y = OUTPUTS[self.output_activation](F.linear(y, self.weight_ho, self.bias_o))
        return y, NARXState(shifted(inputs), shifted(outputs), self.feedback(y))

    def feedback(self, y: Tensor) -> Tensor:
        """The output itself."""
        return y
