"""Long short-term memory with a forget gate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import HoistedCell, VendorCell, VendorWeights
from ..core.checks import check_positive, sentence
from ..init import chrono_, matrix, vector


class LSTMState(NamedTuple):
    """h: (B, O) last output; c: (B, H) the memory cells."""

    h: Tensor
    c: Tensor


class LSTMCell(HoistedCell[Tensor, Tensor, LSTMState], VendorCell[Tensor, Tensor, LSTMState]):
    """Long short-term memory: a cell state behind an input, a forget and an output gate.

        i = sigma(W_i x + U_i h + p_i * c + b_i)        input gate
        f = sigma(W_f x + U_f h + p_f * c + b_f)        forget gate (1 - i if coupled)
        g = tanh(W_g x + U_g h + b_g)                   candidate
        c' = f * c + i * g
        o = sigma(W_o x + U_o h + p_o * c' + b_o)       output gate
        h' = V (o * tanh(c'))                           output, y = h' (V only with a projection)

    With layer normalisation (LN), ``W x + b`` becomes ``LN(W x) + b``, ``U h`` becomes ``LN(U h)`` and ``tanh(c')`` becomes
    ``tanh(LN(c'))``, each gate block being normalised on its own.

    Args:
        input_size: D, features per step.
        hidden_size: H, memory cells.
        bias: with b or without.
        peephole: gates see the memory through p (one weight per cell).
        projection_size: O, size of h after the projection V; None for no projection (O = H).
        layer_norm: normalise as written above.
        coupled: f = 1 - i; there is then no W_f, U_f, b_f (three gate blocks i, g, o).
        forget_bias: initial b_f; None leaves torch's U(-1/sqrt(H), 1/sqrt(H)). 1 helps on long lags.
        chrono_steps: T_max of the chrono initialisation: b_f ~ log U(1, T_max - 1), b_i = -b_f; None for none.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, O) last output.
        c: (B, H) memory cells.
    Raises:
        ValueError: a size below 1, options that exclude each other, an unknown initialisation.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780; forget gate: Gers, Schmidhuber & Cummins 2000,
        doi:10.1162/089976600300015015; peepholes: Gers, Schraudolph & Schmidhuber 2002, JMLR 3:115-143; projection: Sak,
        Senior & Beaufays 2014, Interspeech; coupled gate: Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924; layer
        normalisation: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 20-22; chrono: Tallec & Ollivier 2018, ICLR.
        Equations as in ``torch.nn.LSTM``; variants from memory.
    Differs:
        One bias where ``torch.nn.LSTM`` has two that add up. Layer normalisation works per gate block (Ba et al. normalise
        the four blocks together).
    Cost:
        8 H (D + O) flops (+ 2 H O for a projection) and H + O state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(LSTMCell(3, 5))(torch.zeros(7, 2, 3))
        >>> ys.shape, state.c.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; Gers et al. 2000, doi:10.1162/089976600300015015"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        peephole: bool = False,
        projection_size: int | None = None,
        layer_norm: bool = False,
        coupled: bool = False,
        forget_bias: float | None = None,
        chrono_steps: int | None = None,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        if projection_size is not None:
            check_positive(where, projection_size=projection_size)
        for name, value in (("forget_bias", forget_bias), ("chrono_steps", chrono_steps)):
            if value is not None and not bias:
                raise ValueError(sentence(where, name, "None without biases", value, "Drop it or pass bias=True."))
            if value is not None and coupled:
                raise ValueError(sentence(where, name, "None with coupled gates", value, "There is no forget bias."))
        self.input_size, self.hidden_size = input_size, hidden_size
        self.output_size = projection_size or hidden_size
        self.projection_size, self.peephole, self.layer_norm, self.coupled = (
            projection_size,
            peephole,
            layer_norm,
            coupled,
        )
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        bound = 1 / math.sqrt(hidden_size)
        rows = (3 if coupled else 4) * hidden_size
        gates: dict[str, Any] = {"num_gates": 3 if coupled else 4, "where": where, **kind}
        self.weight_ih = matrix(rows, input_size, input_init, **gates)
        self.weight_hh = matrix(rows, self.output_size, recurrent_init, **gates)
        self.bias = vector(rows, bound, **kind) if bias else None
        self.weight_hr = matrix(projection_size, hidden_size, f"uniform:{bound}", **kind) if projection_size else None
        self.weight_ci = vector(hidden_size, bound, **kind) if peephole else None
        self.weight_cf = vector(hidden_size, bound, **kind) if peephole and not coupled else None
        self.weight_co = vector(hidden_size, bound, **kind) if peephole else None
        plain: dict[str, Any] = {"device": device, "dtype": dtype}
        self.norm_ih = nn.Parameter(torch.ones(rows, **plain)) if layer_norm else None
        self.norm_hh = nn.Parameter(torch.ones(rows, **plain)) if layer_norm else None
        self.norm_c = nn.LayerNorm(hidden_size, **plain) if layer_norm else None
        if self.bias is not None:
            with torch.no_grad():
                if forget_bias is not None:
                    self.bias[hidden_size : 2 * hidden_size] = forget_bias
                if chrono_steps is not None:
                    forget = self.bias[hidden_size : 2 * hidden_size]
                    chrono_(forget, chrono_steps, generator)
                    self.bias[:hidden_size] = -forget

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Plain, and each option."""
        yield cls(3, 5)
        yield cls(3, 4, peephole=True, forget_bias=1.0)
        yield cls(2, 5, projection_size=3, chrono_steps=20).learn_initial_state()
        yield cls(3, 4, layer_norm=True, recurrent_init="orthogonal")
        yield cls(3, 4, coupled=True, peephole=True, bias=False)

    def initial_state(self, batch_size: int) -> LSTMState:
        """h = 0, c = 0."""
        return LSTMState(
            self.initial("h", batch_size, self.output_size), self.initial("c", batch_size, self.hidden_size)
        )

    def _normalised(self, gates: Tensor, gain: Tensor | None) -> Tensor:
        """Layer normalisation of each gate block (..., G*H), without a shift; gates as they are without layer_norm."""
        if gain is None:
            return gates
        blocks = gates.unflatten(-1, (-1, self.hidden_size))
        return F.layer_norm(blocks, (self.hidden_size,)).flatten(-2) * gain

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of all gates."""
        if self.norm_ih is None:
            return F.linear(x, self.weight_ih, self.bias)
        projected = self._normalised(F.linear(x, self.weight_ih), self.norm_ih)
        return projected if self.bias is None else projected + self.bias

    def advance(self, projected: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Gates, memory, output."""
        h, c = state
        gates = projected + self._normalised(F.linear(h, self.weight_hh), self.norm_hh)
        if self.coupled:
            i, g, o = gates.chunk(3, -1)
        else:
            i, f, g, o = gates.chunk(4, -1)
        if self.weight_ci is not None:
            i = i + self.weight_ci * c
        i = torch.sigmoid(i)
        if self.coupled:
            f = 1 - i
        else:
            f = torch.sigmoid(f if self.weight_cf is None else f + self.weight_cf * c)
        c = f * c + i * torch.tanh(g)
        if self.weight_co is not None:
            o = o + self.weight_co * c
        h = torch.sigmoid(o) * torch.tanh(c if self.norm_c is None else self.norm_c(c))
        if self.weight_hr is not None:
            h = F.linear(h, self.weight_hr)
        return h, LSTMState(h, c)

    def vendor(self) -> VendorWeights | None:
        """``torch.nn.LSTM``, with ``proj_size`` for a projection; no peepholes, normalisation or coupling there."""
        if self.peephole or self.layer_norm or self.coupled:
            return None
        bias_hh = None if self.bias is None else torch.zeros_like(self.bias)
        return VendorWeights("lstm", self.weight_ih, self.weight_hh, self.bias, bias_hh, self.weight_hr)

    def to_vendor(self, state: LSTMState) -> tuple[Tensor, ...]:
        """(h, c)."""
        return state.h, state.c

    def from_vendor(self, hidden: tuple[Tensor, ...]) -> LSTMState:
        """(h, c)."""
        return LSTMState(*hidden)
