"""LSTM, GRU and RNN as ``torch.nn`` has them, over cells and engines."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ..cells import GRUCell
from ..core.cell import Cell, VendorCell
from ..core.checks import sentence
from ..core.engine import Engine
from ..engines import Auto, Vendor
from ..layers import Bidirectional, BidirectionalState, Recurrent
from ..wrappers import Stack
from .cells import TwoBiasElmanCell, TwoBiasLSTMCell

Hidden = tuple[Tensor, ...]


class _OnEngines(nn.RNNBase):
    """What the three layers share. Stands before torch's class, so that ``super().forward`` is torch's own.

    The parameters stand in the module under torch's names. The cells that the engines run are kept without storage (on
    the meta device) and are given the parameters of the moment for the length of one call, so that whatever replaces
    parameters (``functional_call``, pruning, weight norm) is seen.
    """

    engine: Engine
    _over_time: tuple[Recurrent | Bidirectional, ...]

    def __init__(self, *args: Any, engine: Engine | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run_on(Auto() if engine is None else engine)

    def run_on(self, engine: Engine) -> Self:
        """Choose another engine; returns the module itself."""
        if not isinstance(engine, Engine):
            raise TypeError(sentence(type(self).__name__, "engine", "an Engine such as Auto()", type(engine).__name__))
        self.engine = engine
        cells = [[self._empty_cell(layer) for _ in range(self._num_directions)] for layer in range(self.num_layers)]
        layers = [
            Bidirectional(*both, engine=engine) if self.bidirectional else Recurrent(both[0], engine) for both in cells
        ]
        self._over_time = tuple(layers)  # a tuple is no submodule
        return self

    # --- what a kind of layer says about itself ---

    @abstractmethod
    def _make_cell(self, input_size: int, **kind: Any) -> Cell:
        """A cell of one layer and direction."""

    def _state_sizes(self) -> tuple[int, ...]:
        """Size of each tensor of the hidden state."""
        return (self.hidden_size,)

    # --- the cells behind it ---

    @property
    def _num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _names(self, layer: int, reverse: bool) -> dict[str, str]:
        """Name of a parameter in the cell -> its name here."""
        return {name.partition("_l")[0]: name for name in self._all_weights[self._num_directions * layer + reverse]}

    def _empty_cell(self, layer: int) -> Cell:
        below = self.input_size if layer == 0 else (self.proj_size or self.hidden_size) * self._num_directions
        return self._make_cell(below, device="meta", dtype=self.weight_ih_l0.dtype)

    def cell(self, layer: int | None = None, *, reverse: bool = False) -> Cell:
        """The layer as a Recurra cell whose parameters are this module's own: training one trains the other.

        Args:
            layer: one layer, from 0; None for all of them in a `Stack` (with this module's dropout between them).
            reverse: the cell that reads from the end, in a bidirectional module.

        Raises:
            ValueError: no such layer, or all layers of a bidirectional module, which no cell can be: it sees the future.
        """
        where = type(self).__name__
        if layer is None:
            if self.bidirectional:
                raise ValueError(sentence(where, "layer", "given where bidirectional=True", None))
            cells = [self.cell(i) for i in range(self.num_layers)]
            return cells[0] if len(cells) == 1 else Stack(*cells, dropout=self.dropout)
        if not 0 <= layer < self.num_layers:
            raise ValueError(sentence(where, "layer", f"in 0..{self.num_layers - 1}", layer))
        if reverse and not self.bidirectional:
            raise ValueError(sentence(where, "reverse", "False where bidirectional=False", True))
        cell = self._empty_cell(layer)
        for inside, name in self._names(layer, reverse).items():
            setattr(cell, inside, getattr(self, name))
        return cell.train(self.training)

    def _weights(self, layer: int) -> dict[str, Tensor]:
        places = ("forward_cell", "backward_cell") if self.bidirectional else ("cell",)
        return {
            f"{place}.{inside}": getattr(self, name)
            for reverse, place in enumerate(places)
            for inside, name in self._names(layer, bool(reverse)).items()
        }

    # --- forward ---

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Outputs and the last hidden state, as torch's layer of the same name has them.

        Args:
            input: (T, B, D), (B, T, D) with batch_first, (T, D) without a batch, or a ``PackedSequence``.
            hx: first hidden state, (num_layers * num_directions, B, H); for an LSTM the pair of h and c. None for zeros.
        """
        if self._is_one_call_of_torch(input, hx):
            return super().forward(input, hx)
        self._update_flat_weights()
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        return self._padded(input, hx)

    def _is_one_call_of_torch(self, input: Any, hx: Any) -> bool:
        """Does the engine come down to torch's kernels? Then all layers and directions are one call of them."""
        if not isinstance(self.engine, Auto | Vendor):
            return False
        data = input[0] if isinstance(input, PackedSequence) else input
        given = (data, *(hx if isinstance(hx, tuple | list) else (hx,)), self.weight_ih_l0)
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        return not any(isinstance(t, Tensor) and wrapped(t) for t in given)

    def _padded(self, input: Tensor, hx: Any) -> Any:
        if input.dim() not in (2, 3):
            word = "D tensor instead" if isinstance(self, nn.RNN) else "D instead"
            name = type(self).__name__
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}{word}")
        is_batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if not is_batched:
            input = input.unsqueeze(batch_dim)
        hidden = self._given(hx, input, input.size(batch_dim), is_batched)
        self.check_forward_args(input, self._as_torch(hidden), None)
        xs = input.transpose(0, 1) if self.batch_first else input
        if xs.size(0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        ys, hidden = self._run(xs, hidden, None)
        ys = ys.transpose(0, 1) if self.batch_first else ys
        if not is_batched:
            ys, hidden = ys.squeeze(batch_dim), tuple(h.squeeze(1) for h in hidden)
        return ys, self._as_torch(hidden)

    def _packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        hidden = self._given(hx, data, int(batch_sizes[0]), None)
        try:
            self.check_forward_args(data, self._as_torch(hidden), batch_sizes)
        except ValueError as wrong:  # here an LSTM leaves the dtype to its kernels
            raise (RuntimeError(str(wrong)) if isinstance(self, nn.LSTM) else wrong) from None
        xs, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))
        ys, hidden = self._run(xs, hidden, lengths.to(xs.device))
        answer = PackedSequence(ys, batch_sizes, sorted_indices, unsorted_indices)
        return answer, self.permute_hidden(self._as_torch(hidden), unsorted_indices)

    def _given(self, hx: Any, input: Tensor, batch_size: int, is_batched: bool | None) -> Hidden:
        """The first hidden state as a tuple; ``is_batched`` is None where torch does not look at its dimensions."""
        if hx is None:
            count = self.num_layers * self._num_directions
            like = {"dtype": input.dtype, "device": input.device}
            return tuple(torch.zeros(count, batch_size, size, **like) for size in self._state_sizes())  # type: ignore[call-overload]
        hidden = tuple(hx) if isinstance(self, nn.LSTM) else (hx,)
        if len(hidden) > 2:
            raise RuntimeError("lstm expects two hidden states")
        if is_batched is None:
            return hidden
        wanted = 3 if is_batched else 2
        if any(h.dim() != wanted for h in hidden):
            head = f"For {'batched' if is_batched else 'unbatched'} {wanted}-D input, "
            if len(hidden) == 2:
                found = f"({hidden[0].dim()}-D, {hidden[1].dim()}-D) tensors"
                raise RuntimeError(f"{head}hx and cx should also be {wanted}-D but got {found}")
            raise RuntimeError(f"{head}hx should also be {wanted}-D but got {hidden[0].dim()}-D tensor")
        return hidden if is_batched else tuple(h.unsqueeze(1) for h in hidden)

    def _as_torch(self, hidden: Hidden) -> Any:
        return hidden if isinstance(self, nn.LSTM) else hidden[0]

    def _run(self, xs: Tensor, hidden: Hidden, lengths: Tensor | None) -> tuple[Tensor, Hidden]:
        """All layers, one after the other; (T, B, ...) in and out, but with lengths packed data out."""
        alive = None
        if lengths is not None:
            alive = torch.arange(xs.shape[0], device=xs.device)[:, None] < lengths
        ends: list[Hidden] = []
        for layer, over_time in enumerate(self._over_time):
            cells = [c for c in over_time.children() if isinstance(c, VendorCell)]
            first = [h[layer * len(cells) : (layer + 1) * len(cells)].unbind(0) for h in hidden]
            states = [cell.from_vendor(part) for cell, part in zip(cells, zip(*first))]
            state = BidirectionalState(*states) if self.bidirectional else states[0]
            xs, last = functional_call(over_time, self._weights(layer), (xs, state), {"lengths": lengths})
            lasts = last if self.bidirectional else (last,)
            ends += [cell.to_vendor(end) for cell, end in zip(cells, lasts)]
            if self.dropout and self.training and layer < self.num_layers - 1:
                xs = F.dropout(xs, self.dropout) if alive is None else _dropped(xs, alive, self.dropout)
        return xs if alive is None else xs[alive], tuple(torch.stack(parts) for parts in zip(*ends))

    def extra_repr(self) -> str:
        """torch's text, and the engine unless it is the default."""
        text = super().extra_repr()
        return text if self.engine == Auto() else f"{text}, engine={self.engine}"


def _dropped(xs: Tensor, alive: Tensor, p: float) -> Tensor:
    """Dropout of what is not padding, drawn in the order of packed data, as torch draws it."""
    return torch.zeros_like(xs).index_put((alive,), F.dropout(xs[alive], p))


class LSTM(_OnEngines, nn.LSTM):
    """``torch.nn.LSTM`` on any engine.

        i, f, o = sigma(W x + b_ih + U h + b_hh),   g = tanh(W x + b_ih + U h + b_hh)
        c' = f * c + i * g,   h' = V (o * tanh(c'))         V only with proj_size

    Args:
        input_size: D, features per step.
        hidden_size: H, memory cells.
        num_layers: layers on top of each other.
        bias: with biases or without.
        batch_first: input and output are (B, T, ...).
        dropout: probability of a zero between layers while training.
        bidirectional: a second direction beside the first.
        proj_size: size of h; 0 for H.
        device: of the parameters.
        dtype: of the parameters.
        engine: how to run; ``Auto()`` unless given, which here is torch's own kernels.
    State:
        ``(h, c)``: (num_layers * num_directions, B, proj_size or H) and (..., H).
    Raises:
        ValueError, TypeError, RuntimeError: where ``torch.nn.LSTM`` raises them, and what the engine raises.
    Source:
        ``torch.nn.LSTM``, whose documentation says everything about shapes and parameters.
    Differs:
        ``torch.jit.script`` is not supported.
    Example:
        >>> layer = LSTM(3, 5, num_layers=2, batch_first=True)
        >>> ys, (h, c) = layer(torch.zeros(2, 7, 3))
        >>> ys.shape, h.shape
        (torch.Size([2, 7, 5]), torch.Size([2, 2, 5]))
        >>> y, state = layer.cell()(torch.zeros(2, 3))  # the same weights, one step at a time
        >>> torch.allclose(y, ys[:, 0], atol=1e-6)
        True
    """

    def _make_cell(self, input_size: int, **kind: Any) -> Cell:
        projection = self.proj_size or None
        return TwoBiasLSTMCell(input_size, self.hidden_size, bias=self.bias, projection_size=projection, **kind)

    def _state_sizes(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size


class GRU(_OnEngines, nn.GRU):
    """``torch.nn.GRU`` on any engine.

        r, z = sigma(W x + b_ih + U h + b_hh),   n = tanh(W_n x + b_in + r * (U_n h + b_hn))
        h' = (1 - z) * n + z * h

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        num_layers: layers on top of each other.
        bias: with biases or without.
        batch_first: input and output are (B, T, ...).
        dropout: probability of a zero between layers while training.
        bidirectional: a second direction beside the first.
        device: of the parameters.
        dtype: of the parameters.
        engine: how to run; ``Auto()`` unless given, which here is torch's own kernels.
    State:
        h: (num_layers * num_directions, B, H).
    Raises:
        ValueError, TypeError, RuntimeError: where ``torch.nn.GRU`` raises them, and what the engine raises.
    Source:
        ``torch.nn.GRU``, whose documentation says everything about shapes and parameters.
    Differs:
        ``torch.jit.script`` is not supported.
    Example:
        >>> ys, h = GRU(3, 5, bidirectional=True)(torch.zeros(7, 2, 3))
        >>> ys.shape, h.shape
        (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """

    def _make_cell(self, input_size: int, **kind: Any) -> Cell:
        return GRUCell(input_size, self.hidden_size, bias=self.bias, **kind)


class RNN(_OnEngines, nn.RNN):
    """``torch.nn.RNN`` on any engine.

        h' = f(W x + b_ih + U h + b_hh)

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        num_layers: layers on top of each other.
        nonlinearity: f, "tanh" or "relu".
        bias: with biases or without.
        batch_first: input and output are (B, T, ...).
        dropout: probability of a zero between layers while training.
        bidirectional: a second direction beside the first.
        device: of the parameters.
        dtype: of the parameters.
        engine: how to run; ``Auto()`` unless given, which here is torch's own kernels.
    State:
        h: (num_layers * num_directions, B, H).
    Raises:
        ValueError, TypeError, RuntimeError: where ``torch.nn.RNN`` raises them, and what the engine raises.
    Source:
        ``torch.nn.RNN``, whose documentation says everything about shapes and parameters.
    Differs:
        ``torch.jit.script`` is not supported.
    Example:
        >>> ys, h = RNN(3, 5, nonlinearity="relu")(torch.zeros(7, 3))
        >>> ys.shape, h.shape
        (torch.Size([7, 5]), torch.Size([1, 5]))
    """

    def _make_cell(self, input_size: int, **kind: Any) -> Cell:
        return TwoBiasElmanCell(input_size, self.hidden_size, activation=self.nonlinearity, bias=self.bias, **kind)
