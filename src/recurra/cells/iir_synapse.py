"""Synapses with an infinite impulse response: every connection is a linear filter with feedback."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..core.cell import ConstrainedCell
from ..core.checks import check_choice, check_positive
from ..init import matrix, vector
from ._taps import FUNCTIONS, Past, delayed, feedback_taps, largest_pole, shifted, shrink_


class IIRSynapseState(NamedTuple):
    """past: (B, K - 1, D) earlier inputs, () for one tap; z: (B, M, H, D) earlier outputs of the synapses, newest first."""

    past: Past
    z: Tensor


class IIRSynapseCell(ConstrainedCell[Tensor, Tensor, IIRSynapseState]):
    """IIR synapses: every connection is a filter that sees its own last M outputs.

        z_ij(t) = sum_{k=0}^{K-1} w_ij(k) x_j(t - k) + sum_{m=1}^{M} v_ij(m) z_ij(t - m)
        y_i(t) = f(sum_j z_ij(t) + b_i)

    A synapse is stable while the roots of ``z^M - v(1) z^(M-1) - ... - v(M)`` lie inside the unit circle (`largest_pole`
    gives the outermost). It is enough that the |v(m)| add up to less than 1, which holds at the start, and with
    ``max_feedback`` below 1 also after every update that is followed by `constrain` (`fit` calls it).

    Args:
        input_size: D, features per step.
        hidden_size: H, neurons.
        num_taps: K, values of the input that a synapse sees.
        num_feedback: M, its own earlier outputs that it sees.
        activation: f, "tanh", "relu", "sigmoid" or "identity".
        bias: with b or without.
        input_init: name of the initialisation of w as a matrix (K*H, D), tap by tap, see `recurra.init.names`; "uniform"
            draws from U(-1/sqrt(H), 1/sqrt(H)).
        feedback_range: r, v begins in U(-r/M, r/M); below 1 every synapse begins stable.
        max_feedback: what the sum of |v(m)| may be at most; None for no bound.
        generator: source of the initial weights.
    State:
        past: (B, K - 1, D) earlier inputs, the newest first; () for one tap.
        z: (B, M, H, D) earlier outputs of the synapses, the newest first.
    Raises:
        ValueError: a size below 1, a range below 0, an unknown activation or initialisation.
    Source:
        Back & Tsoi 1991, Neural Computation 3(3):375-385, doi:10.1162/neco.1991.3.3.375; Campolucci, Uncini, Piazza & Rao
        1999, IEEE Transactions on Neural Networks 10(2):253-271, doi:10.1109/72.750549 (equations from memory)
    Differs:
        Campolucci et al. write the bias as a synapse of its own; here it is b.
    Cost:
        2 (K + M) H D flops and (K - 1) D + M H D state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> cell = IIRSynapseCell(3, 5, num_taps=2, num_feedback=2)
        >>> ys, state = Recurrent(cell)(torch.zeros(7, 2, 3))
        >>> ys.shape, state.z.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 2, 5, 3]))
        >>> bool((cell.largest_pole() < 1).all())
        True
    """

    source = "Back & Tsoi 1991, Neural Computation 3(3):375-385; Campolucci et al. 1999, IEEE TNN 10(2):253-271"

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
        drawn = matrix(num_taps * hidden_size, input_size, input_init, num_gates=num_taps, where=where, **kind)
        self.weight_ih = nn.Parameter(drawn.detach().reshape(num_taps, hidden_size, input_size))
        shape = (num_feedback, hidden_size, input_size)
        self.weight_hh = feedback_taps(where, shape, feedback_range, max_feedback, generator, device, dtype)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Orders of two, one tap without bias, long feedback with a bound and a learned start."""
        yield cls(2, 3)
        yield cls(2, 2, num_taps=1, num_feedback=1, activation="identity", bias=False)
        yield cls(
            1, 2, num_feedback=3, max_feedback=0.9, feedback_range=2.0, activation="sigmoid"
        ).learn_initial_state()

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale v down where its absolute values add up to more than ``max_feedback``, in place."""
        shrink_(self.weight_hh, self.max_feedback)

    def largest_pole(self) -> Tensor:
        """(H, D) absolute value of the outermost pole of every synapse."""
        return largest_pole(self.weight_hh)

    def initial_state(self, batch_size: int) -> IIRSynapseState:
        """Filters at rest."""
        z = self.initial("z", batch_size, self.num_feedback, self.hidden_size, self.input_size)
        if self.num_taps == 1:
            return IIRSynapseState((), z)
        return IIRSynapseState(self.initial("past", batch_size, self.num_taps - 1, self.input_size), z)

    def step(self, x: Tensor, state: IIRSynapseState) -> tuple[Tensor, IIRSynapseState]:
        """Both sums of every synapse, then f of each neuron's sum."""
        line = delayed(x, state.past)
        z = (self.weight_ih * line.unsqueeze(2)).sum(1) + (self.weight_hh * state.z).sum(1)  # (B, H, D)
        net = z.sum(-1) if self.bias is None else z.sum(-1) + self.bias
        kept = shifted(delayed(z, state.z))
        assert isinstance(kept, Tensor)
        return FUNCTIONS[self.activation](net), IIRSynapseState(shifted(line), kept)
