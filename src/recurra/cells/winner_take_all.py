"""Units in subsets, of each of which at most one is active."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import CompetitiveCell
from ..core.checks import check_choice, check_positive, sentence


class WinnerTakeAllState(NamedTuple):
    """units: (B, U) who was active, 0 or 1."""

    units: Tensor


class WinnerTakeAllCell(CompetitiveCell[WinnerTakeAllState]):
    """Competitive subsets: of each, the unit with the largest input is active, if that input is above zero.

        z = (x, u)                              the input, and the units as they were
        u'_i = 1 if (W z)_i > 0 and (W z)_i >= (W z)_k for all k of i's subset (the first of equals), else 0

    The output is the last subset, y = u' there. No gradient passes.

    Args:
        input_size: D.
        subsets: number of units in each subset, at least two each.
        topology: "forward": a subset sees the input and the subsets before it; "full": all see everything.
        low, high: weights begin in U(low, high), those that are not there at 0.
        generator: source of the initial weights.
    State:
        units: (B, U) who was active, U units in all.
    Raises:
        ValueError: a size below 1, a subset of one unit, an unknown topology, low > high.
    Source:
        Schmidhuber 1989, Connection Science 1(4):403-412, section 3 (read in the author's HTML version)
    Cost:
        2 U (D + U) flops and U state values per step and sample.
    Example:
        >>> cell = WinnerTakeAllCell(2, (3, 2), generator=torch.Generator().manual_seed(0))
        >>> y, state = cell(torch.ones(1, 2))
        >>> state.units.tolist()
        [[0.0, 1.0, 0.0, 1.0, 0.0]]
    """

    source = "Schmidhuber 1989, Connection Science 1(4):403-412"

    def __init__(
        self,
        input_size: int,
        subsets: tuple[int, ...],
        *,
        topology: str = "forward",
        low: float = 0.999,
        high: float = 1.001,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size)
        check_choice(where, "topology", topology, ("forward", "full"))
        if not subsets or any(size < 2 for size in subsets):
            raise ValueError(sentence(where, "subsets", "at least one subset of at least two units", subsets))
        if low > high:
            raise ValueError(sentence(where, "low", f"at most high={high}", low))
        self.input_size, self.output_size, self.subsets, self.topology = input_size, subsets[-1], subsets, topology
        units = sum(subsets)
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        there = torch.ones(units, input_size + units, device=device, dtype=torch.bool)
        if topology == "forward":
            of = torch.repeat_interleave(torch.arange(len(subsets)), torch.tensor(subsets)).to(there.device)
            there[:, input_size:] = of[:, None] > of
        values = torch.empty(units, input_size + units, **kind).uniform_(low, high, generator=generator)
        self.weight = nn.Parameter(torch.where(there, values, torch.zeros_like(values)))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Two subsets one behind the other, one subset that sees itself."""
        yield cls(3, (3, 2), low=-1.0, high=1.0)
        yield cls(2, (3,), topology="full", low=-1.0, high=1.0)

    def initial_state(self, batch_size: int) -> WinnerTakeAllState:
        """All units off."""
        return WinnerTakeAllState(self.initial("units", batch_size, sum(self.subsets)))

    @property
    def connections(self) -> nn.Parameter:
        """W."""
        return self.weight

    def sources(self, x: Tensor, state: WinnerTakeAllState) -> Tensor:
        """``(x, u)``."""
        return torch.cat([x, state.units], -1)

    def compete(self, nets: Tensor) -> Tensor:
        """One of each subset."""
        parts = nets.split(list(self.subsets), -1)
        first = [F.one_hot(part.argmax(-1), part.shape[-1]).to(nets.dtype) for part in parts]
        return torch.cat(first, -1) * (nets > 0).to(nets.dtype)

    def keep(self, units: Tensor) -> WinnerTakeAllState:
        """u'."""
        return WinnerTakeAllState(units)
