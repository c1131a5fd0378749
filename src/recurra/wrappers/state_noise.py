"""A state that trembles while the cell learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

import torch

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.tree import Tree
from .wrapper import Wrapper

S = TypeVar("S")


class StateNoise(Wrapper[S]):
    """Adds normal noise to the state after every step while training; in evaluation the cell is as it is.

        s' = cell(x, s) + sigma * n,   n ~ N(0, 1)

    What is to be remembered must then lie in attractors: a state that drifts is carried off by the noise, and the loss shows
    it at a length at which the quiet cell would still be right. An output that *is* a leaf of the state (y = h) is noisy too.

    Args:
        cell: any cell; integer and constant leaves are left alone.
        std: sigma, at least 0.
    State:
        The inner cell's.
    Raises:
        ValueError: a negative sigma.
        TypeError: not a cell.
    Source:
        Jim, Giles & Horne 1996, "An analysis of noise in recurrent neural networks: convergence and generalization", IEEE
        Transactions on Neural Networks 7(6):1424-1438 (abstract read)
    Differs:
        Theirs is added to the weights, anew at each time step in the kind that they found best; here it is the state's.
    Cost:
        The inner cell's, 2 flops per value of the state, and noise (T, B, S).
    Example:
        >>> from recurra.layers import Recurrent
        >>> quiet = Recurrent(StateNoise(ElmanCell(3, 5), 0.1)).eval()
        >>> ys, state = quiet(torch.zeros(7, 2, 3))
        >>> ys.shape, bool((ys == quiet(torch.zeros(7, 2, 3))[0]).all())
        (torch.Size([7, 2, 5]), True)
    """

    source = "Jim, Giles & Horne 1996, IEEE Transactions on Neural Networks 7(6):1424-1438"

    def __init__(self, cell: Cell, std: float = 0.1) -> None:
        super().__init__(cell)
        if not std >= 0:
            raise ValueError(sentence(type(self).__name__, "std", "at least 0", std))
        self.std = std

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """One leaf, and two."""
        yield cls(ElmanCell(3, 4), 0.3)
        yield cls(LSTMCell(2, 3), 0.1)

    def draw_own(self, num_steps: int, batch_size: int, generator: torch.Generator | None) -> Tree:
        """sigma * n, (T, B, ...) for every leaf of numbers; None for the others, and for all without noise."""
        if self.std == 0:
            return None

        def one(leaf: object) -> Tree:
            if leaf.dtype is not None:  # type: ignore[attr-defined]
                return None
            shape = (num_steps, batch_size, *leaf.shape)  # type: ignore[attr-defined]
            return self.std * torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)

        return tree.map(one, self.cell.state_spec)

    def after(self, y: Tree, new: S, old: S, noise: Tree) -> tuple[Tree, S]:
        """Add, and put the noisy leaves where the output shows them."""
        if noise is None:
            return y, new
        added = iter(tree.leaves(noise))
        leaves, specs = tree.leaves(new), tree.leaves(self.cell.state_spec)
        noisy = [a + next(added) if spec.dtype is None else a for a, spec in zip(leaves, specs)]
        place = {id(a): b for a, b in zip(leaves, noisy)}
        return tree.map(lambda leaf: place.get(id(leaf), leaf), y), tree.unflatten(new, noisy)
