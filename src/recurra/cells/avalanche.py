"""Grossberg's outstar avalanche: a wave along a chain plays back a learned sequence of spatial patterns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..core.cell import Cell
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree


class AvalancheInput(NamedTuple):
    """start: (B,) sets the wave off; pattern: (B, K) what is seen; learn: (B,) from 0 to 1, how plastic the synapses are."""

    start: Tensor
    pattern: Tensor
    learn: Tensor


class AvalancheState(NamedTuple):
    """wave: (B, N) signals of the chain; traces: (B, N, K) what each of its cells has learned."""

    wave: Tensor
    traces: Tensor


class AvalancheCell(Cell[AvalancheInput, Tensor, AvalancheState]):
    """A chain of N cells, each of which samples the pattern that is there when the wave passes, and plays it back later.

        s_1' = start,  s_{k+1}' = decay s_k                        the wave moves on
        y = sum_k s_k' z_k                                         what the wave reads out
        z_k' = z_k + rate learn s_k' (p - z_k)                     outstar learning: towards the pattern, only where sampled

    One start plays the whole sequence, patterns and order, without any further input; nothing can stop or reorder it.

    Args:
        num_links: N, cells of the chain: steps of the sequence.
        pattern_size: K.
        rate: of learning at one passage, from 0 to 1; 1 learns in one.
        decay: of the wave from one cell to the next, from 0 to 1.
    State:
        wave: (B, N) signals of the chain.
        traces: (B, N, K) long-term memory.
    Raises:
        ValueError: a size below 1, a rate or decay outside [0, 1].
    Source:
        Grossberg 1969, "Some networks that can learn, remember, and reproduce any number of complicated space-time patterns,
        I", Journal of Mathematics and Mechanics 19(1):53-91 (from memory; outstar and avalanche as in Grossberg 2013,
        Scholarpedia 8(2):1888)
    Differs:
        In steps instead of continuous time; the wave is one step wide.
    Cost:
        6 N K flops and N (K + 1) state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> chain = AvalancheCell(4, 3)
        >>> start = torch.tensor([1.0, 0, 0, 0])[:, None]
        >>> song = torch.rand(4, 1, 3, generator=torch.Generator().manual_seed(0))
        >>> _, state = Recurrent(chain)(AvalancheInput(start, song, torch.ones(4, 1)))
        >>> silence = AvalancheInput(start, torch.zeros(4, 1, 3), torch.zeros(4, 1))
        >>> played, _ = Recurrent(chain)(silence, state)
        >>> bool((played == song).all())
        True
    """

    source = "Grossberg 1969, Journal of Mathematics and Mechanics 19(1):53-91"

    def __init__(
        self,
        num_links: int,
        pattern_size: int,
        *,
        rate: float = 1.0,
        decay: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, num_links=num_links, pattern_size=pattern_size)
        for name, value in {"rate": rate, "decay": decay}.items():
            if not 0 <= value <= 1:
                raise ValueError(sentence(where, name, "from 0 to 1", value))
        self.num_links, self.output_size, self.pattern_size, self.rate, self.decay = (
            num_links,
            pattern_size,
            pattern_size,
            rate,
            decay,
        )
        self.constants: Tensor
        self.register_buffer("constants", torch.tensor([rate, decay], device=device, dtype=dtype))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Learning in one passage; slower, with a wave that fades and a learned start."""
        yield cls(4, 3)
        yield cls(2, 2, rate=0.3, decay=0.8).learn_initial_state()

    @property
    def input_spec(self) -> Tree:
        """Start, pattern, plasticity."""
        some = Leaf((), None, 0.0, 1.0)
        return AvalancheInput(some, Leaf((self.pattern_size,)), some)  # type: ignore[arg-type]

    def hint(self) -> str:
        """How the cell was built."""
        return f"The cell was built with pattern_size={self.pattern_size}."

    def initial_state(self, batch_size: int) -> AvalancheState:
        """No wave, nothing learned."""
        traces = self.initial("traces", batch_size, self.num_links, self.pattern_size)
        return AvalancheState(self.initial("wave", batch_size, self.num_links), traces)

    def step(self, x: AvalancheInput, state: AvalancheState) -> tuple[Tensor, AvalancheState]:
        """The wave moves on, reads out, and leaves what it saw."""
        rate, decay = self.constants.unbind()
        wave = torch.cat([x.start.unsqueeze(-1), decay * state.wave[..., :-1]], -1)
        y = (wave.unsqueeze(-1) * state.traces).sum(-2)
        plastic = (rate * x.learn.unsqueeze(-1) * wave).unsqueeze(-1)
        traces = state.traces + plastic * (x.pattern.unsqueeze(-2) - state.traces)
        return y, AvalancheState(wave, traces)
