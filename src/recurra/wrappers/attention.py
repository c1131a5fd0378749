"""A cell that looks at a memory at every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cells.elman import ElmanCell
from ..cells.gru import GRUCell
from ..cells.lstm import LSTMCell
from ..core.cell import Cell, Noisy, StochasticCell, drawn_weights, quiet, with_noise
from ..core.checks import check_choice, check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree
from ..init import matrix, vector
from .wrapper import check_cell, output_size


class AttentionState(NamedTuple):
    """What a decoder carries; memory, keys and mask are constant over time, S being the number of places.

    query: (B, O) the cell's last output; inner: the cell's state; memory: (B, S, M); keys: (B, S, A); mask: (B, S) bool.
    """

    query: Tensor
    inner: Tree
    memory: Tensor
    keys: Tensor
    mask: Tensor


class Attention(StochasticCell[Tensor, AttentionState]):
    """A decoder with attention: at every step the cell also sees a weighted mean of a memory.

        e_s = v . tanh(W q + U m_s)         additive score of place s, q the cell's last output
        e_s = (W q) . m_s                   multiplicative score
        a = softmax(e over the places with mask)
        c = sum_s a_s m_s                   context
        q', s' = cell([x, c], s)
        y = [q', c]

    The memory (an encoder's outputs) stands in the state: ``state = cell.attend(memory, lengths)``. It is handed on untouched,
    so engines store it once, and a reset keeps it.

    Args:
        cell: a cell with input (B, D + M) and output (B, O).
        memory_size: M, size of a place of the memory.
        attention_size: A, size of the hidden layer of the additive score.
        score: "additive" or "multiplicative".
        generator: source of the initial weights.
    State:
        query: (B, O) the cell's last output.
        inner: the cell's state.
        memory: (B, S, M), constant.
        keys: (B, S, A), U m_s (additive) or m_s itself, constant.
        mask: (B, S) bool, the places that exist, constant.
    Raises:
        ValueError: a size below 1, a cell whose input is too small, an unknown score.
    Source:
        Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, appendix A.1.2; multiplicative: Luong, Pham & Manning 2015,
        arXiv:1508.04025, "general" (equations from memory)
    Differs:
        The paper's output layer is left to whoever wraps this (`Readout`); y is what it reads.
    Cost:
        The inner cell's and 2 A (O + S) + 2 S M flops.
    Example:
        >>> from recurra.layers import Recurrent
        >>> decoder = Attention(GRUCell(2 + 6, 4), memory_size=6)
        >>> state = decoder.attend(torch.randn(3, 10, 6), torch.tensor([10, 4, 7]))
        >>> ys, state = Recurrent(decoder)(torch.randn(5, 3, 2), state)
        >>> ys.shape, state.memory.shape
        (torch.Size([5, 3, 10]), torch.Size([3, 10, 6]))
    """

    source = "Bahdanau, Cho & Bengio 2015, arXiv:1409.0473; Luong, Pham & Manning 2015, arXiv:1508.04025"

    def __init__(
        self,
        cell: Cell,
        memory_size: int,
        attention_size: int = 32,
        *,
        score: str = "additive",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_cell(where, cell)
        check_positive(where, memory_size=memory_size, attention_size=attention_size)
        check_choice(where, "score", score, ("additive", "multiplicative"))
        spec = cell.input_spec
        if not isinstance(spec, Leaf) or len(spec.shape) != 1 or int(spec.shape[0]) < memory_size:
            raise ValueError(sentence(where, "the cell's input", f"(B, D + {memory_size})", spec))
        query_size = output_size(where, cell)
        self.cell, self.memory_size, self.score = cell, memory_size, score
        self.input_size = int(spec.shape[0]) - memory_size
        self.output_size = query_size + memory_size
        self.query_size = query_size
        self.key_size = attention_size if score == "additive" else memory_size
        device, dtype = cell.device, cell.dtype

        def xavier(rows: int, columns: int) -> torch.nn.Parameter:
            return matrix(rows, columns, "xavier_uniform", generator=generator, device=device, dtype=dtype)

        self.weight_query = xavier(self.key_size, query_size)
        self.weight_key = xavier(attention_size, memory_size) if score == "additive" else None
        bound = attention_size**-0.5
        self.weight_score = (
            vector(attention_size, bound, generator=generator, device=device, dtype=dtype)
            if score == "additive"
            else None
        )

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both scores; a cell without input of its own; a learned start."""
        yield cls(GRUCell(5, 4), memory_size=3, attention_size=4)
        yield cls(LSTMCell(4, 3), memory_size=2, score="multiplicative").learn_initial_state()
        yield cls(ElmanCell(3, 3), memory_size=2, attention_size=2)

    @property
    def state_spec(self) -> AttentionState:
        """Any number of places S."""
        spec = (
            Leaf((self.query_size,)),
            self.cell.state_spec,
            Leaf(("S", self.memory_size)),
            Leaf(("S", self.key_size)),
            Leaf(("S",), torch.bool),
        )
        return AttentionState(*spec)  # type: ignore[arg-type]

    def initial_state(self, batch_size: int) -> AttentionState:
        """q = 0, the inner start, and one place of zeros; see `attend`."""
        memory = torch.zeros(batch_size, 1, self.memory_size, dtype=self.dtype, device=self.device)
        return self.attend(memory)

    def learn_initial_state(self) -> Self:
        """q's and the inner cell's; returns the wrapper."""
        self.cell.learn_initial_state()
        return super().learn_initial_state()

    def attend(self, memory: Tensor, lengths: Tensor | None = None) -> AttentionState:
        """The initial state with a memory.

        Args:
            memory: (B, S, M), S at least 1.
            lengths: (B,) int64, places that exist in each row, at least 1; None for all.

        Raises:
            ValueError: another shape, a length outside 1..S.
        """
        where = f"{type(self).__name__}.attend"
        if memory.ndim != 3 or memory.shape[1] < 1 or memory.shape[2] != self.memory_size:
            raise ValueError(sentence(where, "memory", f"(B, S, {self.memory_size}) with S >= 1", tuple(memory.shape)))
        batch_size, places = memory.shape[:2]
        mask = torch.ones(batch_size, places, dtype=torch.bool, device=memory.device)
        if lengths is not None:
            if lengths.shape != (batch_size,):
                raise ValueError(sentence(where, "lengths", f"({batch_size},)", tuple(lengths.shape)))
            if batch_size and (int(lengths.min()) < 1 or int(lengths.max()) > places):
                raise ValueError(sentence(where, "lengths", f"in 1..{places}", lengths.tolist()))
            mask = torch.arange(places, device=memory.device) < lengths[:, None]
            memory = torch.where(mask[..., None], memory, 0)
        keys = memory if self.weight_key is None else F.linear(memory, self.weight_key)
        query = self.initial("query", batch_size, self.query_size)
        return AttentionState(query, self.cell.initial_state(batch_size), memory, keys, mask)

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """The inner cell's."""
        inside = self.cell
        return inside.draw(num_steps, batch_size, generator) if isinstance(inside, StochasticCell) else None

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The inner cell's."""
        return drawn_weights(self, (self.cell,), generator)

    def weights(self, state: AttentionState) -> Tensor:
        """a (B, S): where the next step looks."""
        query = F.linear(state.query, self.weight_query).unsqueeze(1)
        if self.weight_score is None:
            scores = (state.keys * query).sum(-1)
        else:
            scores = F.linear(torch.tanh(state.keys + query), self.weight_score)
        return torch.softmax(scores.masked_fill(~state.mask, -torch.inf), -1)

    def step(self, x: Noisy, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """Look, then run the cell."""
        x = quiet(x)
        context = (self.weights(state).unsqueeze(-1) * state.memory).sum(1)
        value = torch.cat([x.x, context], -1)
        query, inner = self.cell.step(with_noise(self.cell, value, x.noise), state.inner)
        return torch.cat([query, context], -1), state._replace(query=query, inner=inner)
