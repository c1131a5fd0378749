"""Long short-term memory in memory blocks that share their gates: of 1997, and of 2000 with forget gates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import HoistedCell
from ..core.checks import check_positive, sentence
from ..init import matrix, vector


class LSTM1997State(NamedTuple):
    """h: (B, H) outputs of the memory cells; c: (B, H) their internal states; i, o, f: (B, N) gates, () if unseen or absent."""

    h: Tensor
    c: Tensor
    i: Tensor | tuple[()]
    o: Tensor | tuple[()]
    f: Tensor | tuple[()] = ()


class Gates(NamedTuple):
    """i, f, o: (B, N), None where there are none; g: (B, H) sigma of the cells' net inputs."""

    i: Tensor
    f: Tensor | None
    g: Tensor
    o: Tensor | None


class LSTM1997Cell(HoistedCell[Tensor, Tensor, LSTM1997State]):
    """LSTM of 1997: memory cells that only add up, in N blocks of S cells behind one input and one output gate each.

        u = (i, h, o) of the last step          all hidden units; h alone without gate_recurrence
        i' = sigma(W_i x + U_i u + b_i)         input gates (N)
        o' = sigma(W_o x + U_o u + b_o)         output gates (N)
        c' = c + i' * g(W_g x + U_g u + b_g)    internal states (H = N S); a gate serves the S cells of its block
        h' = o' * h(c')                         output, y = h'

        g(a) = 4 sigma(a) - 2                   in [-2, 2]
        h(a) = 2 sigma(a) - 1                   in [-1, 1]

    Without ``squash``, g(a) = sigma(a) and h(a) = a; without an output gate, o' = 1. So is the cell of the paper's experiment
    2, whose internal states drift far and would saturate h.

    With ``forget_gate``, the cell of 2000: u = (i, f, h, o), rows of W and U in this order with g in the place of h, and

        f' = sigma(W_f x + U_f u + b_f)         forget gates (N)
        c' = f' * c + i' * g(W_g x + U_g u + b_g)

    Args:
        input_size: D, features per step.
        hidden_size: H, memory cells in all.
        block_size: S, memory cells per block; N = H / S blocks.
        gate_recurrence: gates are ordinary hidden units that every unit sees, as in the paper's experiments.
        squash: g and h as above.
        output_gate: blocks have output gates.
        forget_gate: blocks have forget gates.
        bias: gates have biases.
        cell_bias: memory cells have biases too; only with ``bias``.
        input_gate_bias: initial b_i, one number per block, such as (-3.0, -6.0); None draws them.
        output_gate_bias: initial b_o, one number per block, such as (-1.0, -2.0, -3.0); None draws them.
        forget_gate_bias: initial b_f, one number per block, such as (0.5, 1.0, 1.5, 2.0); None draws them.
        bias_bound: biases are drawn from U(-bias_bound, bias_bound); None for 1/sqrt(H).
        input_init: name of W's initialisation, see `recurra.init.names`; the paper's is like "uniform:0.2".
        recurrent_init: name of U's initialisation.
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
        c: (B, H) internal states.
        i: (B, N) last input gates; () without gate_recurrence.
        o: (B, N) last output gates; () without gate_recurrence or output gates.
        f: (B, N) last forget gates; () without gate_recurrence or forget gates.
    Raises:
        ValueError: a size below 1, blocks that do not fill the cells, gate biases that are not one per block or stand
            beside ``bias=False``, an unknown initialisation.
    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, doi:10.1162/neco.1997.9.8.1735, equations 3 to 9
        (read in a copy). Forget gates: Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10):2451-2471,
        doi:10.1162/089976600300015015 (from memory; the number of weights agrees with the published one).
    Differs:
        Gradients are full: the paper cuts the error that flows back into i, h and o of the last step, which is a matter
        of the learning rule. The step sees x(t), as in the paper's experiments; its appendix writes all units one step older.
    Cost:
        2 (H + 2 N) (D + H + 2 N) flops and 2 H + 2 N state values per step and sample; without gate_recurrence
        2 (H + 2 N) (D + H) and 2 H. With forget gates, 3 N in the place of 2 N.
    Example:
        >>> from recurra.layers import Recurrent
        >>> cell = LSTM1997Cell(2, 4, block_size=2, input_gate_bias=(-3.0, -6.0))
        >>> ys, state = Recurrent(cell)(torch.zeros(7, 5, 2))
        >>> ys.shape, state.i.shape
        (torch.Size([7, 5, 4]), torch.Size([5, 2]))
        >>> sum(p.numel() for p in cell.parameters()) + 4 + 1  # with a readout: as published for the adding problem
        93
        >>> cell = LSTM1997Cell(7, 8, block_size=2, gate_recurrence=False, forget_gate=True, cell_bias=False)
        >>> sum(p.numel() for p in cell.parameters()) + 7 * (7 + 8 + 1)  # with outputs: as published for Reber's grammar
        424
    """

    source = "Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, doi:10.1162/neco.1997.9.8.1735"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        block_size: int = 1,
        gate_recurrence: bool = True,
        squash: bool = True,
        output_gate: bool = True,
        forget_gate: bool = False,
        bias: bool = True,
        cell_bias: bool = True,
        input_gate_bias: tuple[float, ...] | None = None,
        output_gate_bias: tuple[float, ...] | None = None,
        forget_gate_bias: tuple[float, ...] | None = None,
        bias_bound: float | None = None,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size, block_size=block_size)
        if hidden_size % block_size:
            raise ValueError(sentence(where, "hidden_size", f"a multiple of block_size={block_size}", hidden_size))
        if bias_bound is not None and not 0.0 <= bias_bound < math.inf:
            raise ValueError(sentence(where, "bias_bound", "None or a number of at least 0", bias_bound))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.block_size, self.num_blocks = block_size, hidden_size // block_size
        self.gate_recurrence, self.squash = gate_recurrence, squash
        self.output_gate, self.forget_gate = output_gate, forget_gate
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        units = hidden_size + (1 + output_gate + forget_gate) * self.num_blocks
        seen = units if gate_recurrence else hidden_size
        self.weight_ih = matrix(units, input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(units, seen, recurrent_init, where=where, **kind)
        bound = 1 / math.sqrt(hidden_size) if bias_bound is None else bias_bound
        self.bias_i = vector(self.num_blocks, bound, **kind) if bias else None
        self.bias_g = vector(hidden_size, bound, **kind) if bias and cell_bias else None
        self.bias_o = vector(self.num_blocks, bound, **kind) if bias and output_gate else None
        self.bias_f = vector(self.num_blocks, bound, **kind) if bias and forget_gate else None
        self._set("input_gate_bias", self.bias_i, input_gate_bias)
        self._set("output_gate_bias", self.bias_o, output_gate_bias)
        self._set("forget_gate_bias", self.bias_f, forget_gate_bias)

    def _set(self, name: str, bias: nn.Parameter | None, values: tuple[float, ...] | None) -> None:
        """Put the given initial values into a gate bias."""
        if values is None:
            return
        where = type(self).__name__
        if bias is None:
            gate = name.removesuffix("_bias")  # the input gate is always there
            absent = not getattr(self, gate, True)
            what, how = (f"{gate.replace('_', ' ')}s", f"{gate}=True") if absent else ("biases", "bias=True")
            raise ValueError(sentence(where, name, f"None without {what}", values, f"Drop it or pass {how}."))
        if not isinstance(values, tuple) or len(values) != self.num_blocks:
            want = f"a tuple of {self.num_blocks} numbers, one per block"
            raise ValueError(sentence(where, name, want, repr(values)))
        with torch.no_grad():
            bias.copy_(torch.tensor(values))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """The paper's blocks with each kind of bias, gates that nobody sees, a learned start, no output gates, forget gates."""
        yield cls(3, 4, block_size=2, input_gate_bias=(-1.0, -2.0), output_gate_bias=(-0.5, -1.0))
        yield cls(2, 3, cell_bias=False, bias_bound=0.2, input_init="uniform:0.2", recurrent_init="uniform:0.2")
        yield cls(3, 4, block_size=4, gate_recurrence=False, bias=False)
        yield cls(2, 2, gate_recurrence=False, recurrent_init="orthogonal").learn_initial_state()
        yield cls(3, 4, block_size=2, squash=False, output_gate=False)
        yield cls(3, 4, block_size=2, forget_gate=True, forget_gate_bias=(0.5, 1.0))

    def initial_state(self, batch_size: int) -> LSTM1997State:
        """All activations and internal states 0."""
        seen, blocks = self.gate_recurrence, self.num_blocks
        return LSTM1997State(
            self.initial("h", batch_size, self.hidden_size),
            self.initial("c", batch_size, self.hidden_size),
            self.initial("i", batch_size, blocks) if seen else (),
            self.initial("o", batch_size, blocks) if seen and self.output_gate else (),
            self.initial("f", batch_size, blocks) if seen and self.forget_gate else (),
        )

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of input gates, forget gates, cells and output gates."""
        if self.bias_i is None:
            return F.linear(x, self.weight_ih)
        cells = self.bias_i.new_zeros(self.hidden_size) if self.bias_g is None else self.bias_g
        biases = [self.bias_i, self.bias_f, cells, self.bias_o]
        return F.linear(x, self.weight_ih, torch.cat([b for b in biases if b is not None]))

    def gates(self, projected: Tensor, state: LSTM1997State) -> Gates:
        """What the gates say at a step."""
        h, _, i, o, f = state
        seen = torch.cat([unit for unit in (i, f, h, o) if isinstance(unit, Tensor)], -1)
        nets = projected + F.linear(seen, self.weight_hh)
        forget = self.num_blocks if self.forget_gate else 0
        rest = self.num_blocks if self.output_gate else 0
        net_i, net_f, net_g, net_o = nets.split([self.num_blocks, forget, self.hidden_size, rest], -1)
        return Gates(
            torch.sigmoid(net_i),
            torch.sigmoid(net_f) if self.forget_gate else None,
            torch.sigmoid(net_g),
            torch.sigmoid(net_o) if self.output_gate else None,
        )

    def advance(self, projected: Tensor, state: LSTM1997State) -> tuple[Tensor, LSTM1997State]:
        """Gates, internal states, output."""
        i, f, g, o = self.gates(projected, state)
        kept = state.c if f is None else self._gated(f, state.c)
        c = kept + self._gated(i, 4 * g - 2 if self.squash else g)
        h = 2 * torch.sigmoid(c) - 1 if self.squash else c
        if o is not None:
            h = self._gated(o, h)
        if not self.gate_recurrence:
            return h, LSTM1997State(h, c, (), ())
        return h, LSTM1997State(h, c, i, () if o is None else o, () if f is None else f)

    def _gated(self, gate: Tensor, cells: Tensor) -> Tensor:
        """Each gate (..., N) times the cells (..., N*S) of its block."""
        return (gate.unsqueeze(-1) * cells.unflatten(-1, (self.num_blocks, self.block_size))).flatten(-2)
