"""Cells that are as hard as cells get; the contract was made for them, and the easy ones follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells import ClockworkCell, JordanCell, LSTMCell
from recurra.cells.lstm import LSTMState
from recurra.core import RK4, Cell, ContinuousCell, Euler, FeedbackCell, JoinCell, Leaf, Solver
from recurra.wrappers import Stack, Zoneout


class DecoderState(NamedTuple):
    """feedback: (B,) last token; h: (B, H); memory: (B, S, M) and mask: (B, S), what is read and what of it counts."""

    feedback: Tensor
    h: Tensor
    memory: Tensor
    mask: Tensor


class AttentionDecoderCell(FeedbackCell[Tensor, Tensor, DecoderState]):
    """A decoder that reads a memory of any length S and sees the token that it gave last.

        a = softmax(h M memory^T)                  over the slots that count
        h' = tanh(W x + E token + C (a memory) + U h)
        y = V h',   token' = argmax y

    Memory and mask are constant: the step hands them back as they are.
    """

    source = "Bahdanau, Cho & Bengio 2015, arXiv:1409.0473"

    def __init__(self, input_size: int, hidden_size: int, memory_size: int, num_tokens: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, num_tokens
        self.memory_size, self.num_tokens = memory_size, num_tokens
        self.embedding = nn.Embedding(num_tokens, hidden_size)
        self.weight_ih = nn.Parameter(0.5 * torch.randn(hidden_size, input_size))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(hidden_size, hidden_size))
        self.weight_mh = nn.Parameter(0.5 * torch.randn(hidden_size, memory_size))
        self.weight_hm = nn.Parameter(0.5 * torch.randn(memory_size, hidden_size))
        self.weight_ho = nn.Parameter(torch.randn(num_tokens, hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One, and one with a learned start."""
        yield cls(2, 4, 3, 5)
        yield cls(1, 3, 2, 4).learn_initial_state()

    @property
    def state_spec(self) -> DecoderState:
        """S is free."""
        return DecoderState(
            Leaf((), torch.int64, 0, self.num_tokens),
            Leaf((self.hidden_size,)),
            Leaf(("S", self.memory_size)),
            Leaf(("S",), torch.bool),
        )

    def initial_state(self, batch_size: int) -> DecoderState:
        """Token 0, h = 0, and three empty slots."""
        memory = torch.zeros(batch_size, 3, self.memory_size, dtype=self.dtype, device=self.device)
        return DecoderState(
            self.initial("feedback", batch_size, dtype=torch.int64),
            self.initial("h", batch_size, self.hidden_size),
            memory,
            torch.ones(batch_size, 3, dtype=torch.bool, device=self.device),
        )

    def feedback(self, y: Tensor) -> Tensor:
        """The most likely token."""
        return y.argmax(-1)

    def step(self, x: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read, move on, speak."""
        scores = torch.einsum("bm,bsm->bs", F.linear(state.h, self.weight_hm), state.memory)
        scores = scores.masked_fill(~state.mask, -1e9)
        read = torch.einsum("bs,bsm->bm", scores.softmax(-1), state.memory)
        drive = F.linear(x, self.weight_ih) + F.linear(read, self.weight_mh) + self.embedding(state.feedback)
        h = torch.tanh(drive + F.linear(state.h, self.weight_hh))
        y = F.linear(h, self.weight_ho)
        return y, state._replace(feedback=self.feedback(y), h=h)


class TuringState(NamedTuple):
    """controller: an LSTM's; memory: (B, N, W); heads: (B, N) where it reads, (B, N) where it writes; reads: (B, W)."""

    controller: LSTMState
    memory: Tensor
    heads: tuple[Tensor, Tensor]
    reads: Tensor


class TuringCell(Cell[Tensor, Tensor, TuringState]):
    """A small neural Turing machine: content addressing mixed with the last address, erase and add.

    w' = g softmax(b cos(k, memory)) + (1 - g) w
    """

    source = "Graves, Wayne & Danihelka 2014, arXiv:1410.5401"

    def __init__(self, input_size: int, hidden_size: int, num_slots: int, word_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size, self.num_slots, self.word_size = (
            input_size,
            hidden_size,
            num_slots,
            word_size,
        )
        self.controller = LSTMCell(input_size + word_size, hidden_size)
        self.interface = nn.Linear(hidden_size, 2 * (word_size + 2) + 2 * word_size)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A small one, and one whose controller learns its start."""
        yield cls(2, 3, 4, 2)
        yield cls(1, 2, 3, 2).learn_initial_state()

    def learn_initial_state(self) -> Self:
        """The controller's too."""
        self.controller.learn_initial_state()
        return super().learn_initial_state()

    def initial_state(self, batch_size: int) -> TuringState:
        """A little of everything everywhere, so that no length is zero."""
        head = 1 / self.num_slots
        return TuringState(
            self.controller.initial_state(batch_size),
            self.initial("memory", batch_size, self.num_slots, self.word_size, value=0.1),
            (
                self.initial("read", batch_size, self.num_slots, value=head),
                self.initial("write", batch_size, self.num_slots, value=head),
            ),
            self.initial("reads", batch_size, self.word_size),
        )

    def _address(self, memory: Tensor, last: Tensor, raw: Tensor) -> Tensor:
        key, strength, gate = raw[:, : self.word_size], F.softplus(raw[:, -2:-1]), torch.sigmoid(raw[:, -1:])
        likeness = F.cosine_similarity(key[:, None], memory, dim=-1, eps=1e-6)
        return gate * (strength * likeness).softmax(-1) + (1 - gate) * last

    def step(self, x: Tensor, state: TuringState) -> tuple[Tensor, TuringState]:
        """Control, write, read."""
        h, controller = self.controller.step(torch.cat([x, state.reads], -1), state.controller)
        size = self.word_size
        for_read, for_write, erase, add = self.interface(h).split([size + 2, size + 2, size, size], -1)
        write = self._address(state.memory, state.heads[1], for_write)
        kept = state.memory * (1 - write[..., None] * torch.sigmoid(erase)[:, None])
        memory = kept + write[..., None] * torch.tanh(add)[:, None]
        read = self._address(memory, state.heads[0], for_read)
        reads = torch.einsum("bn,bnw->bw", read, memory)
        return h, TuringState(controller, memory, (read, write), reads)


class SpikingState(NamedTuple):
    """v: (B, H) membrane potential; s: (B, H) last spikes; rest: (B, H) int64, steps of rest that are left."""

    v: Tensor
    s: Tensor
    rest: Tensor


class SpikingCell(Cell[Tensor, Tensor, SpikingState]):
    """Leaky integrate-and-fire units with a time of rest; backwards, a spike is a smooth step.

    v' = a v (1 - s) + W x + U s        (0 at rest)
    s' = [v' > 1]                       ds'/dv' = 1 / (1 + 5 |v' - 1|)^2
    """

    source = "Zenke & Ganguli 2018, doi:10.1162/neco_a_01086; Neftci, Mostafa & Zenke 2019, arXiv:1901.09948"
    exempt: ClassVar[dict[str, str]] = {
        "gradcheck": "the gradient of a spike is a surrogate; its true derivative is zero almost everywhere."
    }

    def __init__(self, input_size: int, hidden_size: int, decay: float = 0.9, rest_steps: int = 2) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.decay, self.rest_steps = decay, rest_steps
        self.weight_ih = nn.Parameter(2 * torch.randn(hidden_size, input_size))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(hidden_size, hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """With and without rest."""
        yield cls(2, 4)
        yield cls(3, 3, rest_steps=0)

    @property
    def state_spec(self) -> SpikingState:
        """Rest lasts ``rest_steps`` at most."""
        size = (self.output_size,)
        return SpikingState(Leaf(size), Leaf(size), Leaf(size, torch.int64, 0, self.rest_steps + 1))

    def initial_state(self, batch_size: int) -> SpikingState:
        """Silence."""
        size = self.output_size
        rest = self.initial("rest", batch_size, size, dtype=torch.int64)
        return SpikingState(self.initial("v", batch_size, size), self.initial("s", batch_size, size), rest)

    def step(self, x: Tensor, state: SpikingState) -> tuple[Tensor, SpikingState]:
        """Integrate, fire, rest."""
        v = self.decay * state.v * (1 - state.s) + F.linear(x, self.weight_ih) + F.linear(state.s, self.weight_hh)
        v = torch.where(state.rest > 0, torch.zeros_like(v), v)
        over = v - 1
        smooth = 0.5 + 0.5 * over / (1 + 5 * over.abs())  # grows from 0 to 1
        hard = (over > 0).to(v.dtype)
        s = smooth + (hard - smooth).detach()
        rest = torch.where(hard > 0, self.rest_steps, (state.rest - 1).clamp(min=0))
        return s, SpikingState(v, s, rest)


class ODEState(NamedTuple):
    """h: (B, H)."""

    h: Tensor


class ODECell(ContinuousCell[Tensor, ODEState]):
    """A continuous-time network under inputs at any times.

    dh/dt = (-h + tanh(W x + U h + b)) / tau
    """

    source = "Beer 1995, doi:10.1177/105971239500300405; Rubanova, Chen & Duvenaud 2019, arXiv:1907.03907"

    def __init__(self, input_size: int, hidden_size: int, solver: Solver) -> None:
        super().__init__()
        self.input_size, self.output_size, self.solver = input_size, hidden_size, solver
        self.weight_ih = nn.Parameter(torch.randn(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.randn(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.log_tau = nn.Parameter(torch.zeros(hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both solvers."""
        yield cls(2, 3, RK4(2))
        yield cls(1, 4, Euler(3)).learn_initial_state()

    def initial_state(self, batch_size: int) -> ODEState:
        """h = 0."""
        return ODEState(self.initial("h", batch_size, self.output_size))

    def derivative(self, x: Tensor, state: ODEState) -> ODEState:
        """``dh/dt``."""
        target = torch.tanh(F.linear(x, self.weight_ih, self.bias) + F.linear(state.h, self.weight_hh))
        return ODEState((target - state.h) * torch.exp(-self.log_tau))

    def observe(self, state: ODEState) -> Tensor:
        """h."""
        return state.h


class GridLSTMState(NamedTuple):
    """h, c: (B, H) each."""

    h: Tensor
    c: Tensor


class GridLSTMCell(JoinCell[Tensor, Tensor, GridLSTMState]):
    """Long short-term memory in two dimensions: one forget gate and one recurrent matrix for each predecessor.

        i, o, g from W x + sum_k U_k h_k,   f_k from W_f x + U_fk h_k
        c' = sum_k f_k c_k + i g,   h' = o tanh(c')

    As a chain (one predecessor) it uses the first matrix alone.
    """

    source = "Graves, Fernandez & Schmidhuber 2007, arXiv:0705.2011"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, hidden_size
        self.weight_ih = nn.Parameter(0.5 * torch.randn(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(0.5 * torch.randn(2, 4 * hidden_size, hidden_size))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One size, and another with a learned edge."""
        yield cls(2, 3)
        yield cls(1, 2).learn_initial_state()

    def initial_state(self, batch_size: int) -> GridLSTMState:
        """Zero."""
        return GridLSTMState(
            self.initial("h", batch_size, self.output_size), self.initial("c", batch_size, self.output_size)
        )

    def join(self, x: Tensor, predecessors: GridLSTMState, mask: Tensor) -> tuple[Tensor, GridLSTMState]:
        """What is absent counts as zero."""
        there = mask[..., None]
        h, c = (torch.where(there, s, torch.zeros_like(s)) for s in predecessors)
        from_each = torch.einsum("bkh,kgh->bkg", h, self.weight_hh[: h.shape[1]])
        i, f, g, o = F.linear(x, self.weight_ih).chunk(4, -1)
        ui, uf, ug, uo = from_each.chunk(4, -1)
        forget = torch.sigmoid(f[:, None] + uf)
        new_c = (forget * c).sum(1) + torch.sigmoid(i + ui.sum(1)) * torch.tanh(g + ug.sum(1))
        new_h = torch.sigmoid(o + uo.sum(1)) * torch.tanh(new_c)
        return new_h, GridLSTMState(new_h, new_c)


def hostile_cells() -> dict[str, Cell]:
    """A readable name and an instance for every example of the eight."""
    torch.manual_seed(7)
    eight: dict[str, list[Cell]] = {
        "Jordan": list(JordanCell.examples()),
        "Clockwork": list(ClockworkCell.examples()),
        "ZoneoutLSTM": [Zoneout(LSTMCell(2, 3), {"h": 0.2, "c": 0.5})],
        "AttentionDecoder": list(AttentionDecoderCell.examples()),
        "Turing": list(TuringCell.examples()),
        "Spiking": list(SpikingCell.examples()),
        "ODE": list(ODECell.examples()),
        "GridLSTM": list(GridLSTMCell.examples()),
    }
    found = {f"{name}-{i}": cell for name, cells in eight.items() for i, cell in enumerate(cells)}
    found["Stack of hostile cells"] = Stack(TuringCell(2, 3, 4, 2), SpikingCell(3, 4), Zoneout(LSTMCell(4, 2), 0.3))
    return found
