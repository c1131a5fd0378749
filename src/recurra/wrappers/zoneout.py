"""Units that now and then keep their last value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self, TypeVar

import torch

from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_probability, sentence
from ..core.draws import happens
from ..core.tree import Tree
from .wrapper import Wrapper

S = TypeVar("S")


class Zoneout(Wrapper[S]):
    """Each unit of the state keeps its last value with probability p while training.

        s' = m * s + (1 - m) * cell(x, s),   m = 1 with probability p          training
        s' = p * s + (1 - p) * cell(x, s)                                      evaluation

    An output that *is* a leaf of the state (y = h) is the mixed one, as in the paper.

    Args:
        cell: any cell; integer and constant leaves are left alone.
        p: one probability for all leaves, or a mapping from a leaf's name to its own: ``{"h": 0.05, "c": 0.5}``.
    State:
        The inner cell's.
    Raises:
        ValueError: a probability outside [0, 1) or a name that the state does not have.
    Source:
        Krueger et al. 2017, arXiv:1606.01305, section 3 (from memory)
    Differs:
        The paper's LSTM mixes h from o * tanh of the unmixed c; so does this.
    Cost:
        The inner cell's and 3 flops per mixed value.
    Example:
        >>> from recurra.layers import Recurrent
        >>> ys, state = Recurrent(Zoneout(LSTMCell(3, 5), {"c": 0.5, "h": 0.05}))(torch.zeros(7, 2, 3))
        >>> ys.shape
        torch.Size([7, 2, 5])
    """

    source = "Krueger et al. 2017, arXiv:1606.01305"

    def __init__(self, cell: Cell, p: float | Mapping[str, float] = 0.1) -> None:
        super().__init__(cell)
        where = type(self).__name__
        names = tree.names(cell.state_spec)
        given = dict(p) if isinstance(p, Mapping) else None
        for name in given or {}:
            if name not in names:
                raise ValueError(sentence(where, "p", "for leaves out of " + ", ".join(names), repr(name)))
        each = [given.get(name, 0.0) if given is not None else float(p) for name in names]  # type: ignore[arg-type]
        for value in each:
            check_probability(where, p=value)
        spec = cell.state_spec
        kept = [value if leaf.dtype is None else 0.0 for value, leaf in zip(each, tree.leaves(spec))]
        self.p = tree.unflatten(spec, kept)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """All leaves alike, and one by one."""
        yield cls(ElmanCell(3, 4), 0.3)
        yield cls(LSTMCell(2, 3), {"c": 0.5, "h": 0.05})

    def draw_own(self, num_steps: int, batch_size: int, generator: torch.Generator | None) -> Tree:
        """m, bool (T, B, ...) per mixed leaf; None for the others."""

        def one(p: float, leaf: object) -> Tree:
            shape = (num_steps, batch_size, *leaf.shape)  # type: ignore[attr-defined]
            return happens(shape, p, generator, self.device) if p else None

        return tree.map(one, self.p, self.cell.state_spec)

    def after(self, y: Tree, new: S, old: S, noise: Tree) -> tuple[Tree, S]:
        """Mix, and put the mixed leaves where the output shows them."""
        masks = noise if noise is not None else tree.map(lambda _: None, self.p)
        mixed = []
        for p, a, b, m in zip(tree.leaves(self.p), tree.leaves(new), tree.leaves(old), _entries(masks, self.p)):
            if p == 0 or a is b:
                mixed.append(a)
            else:
                mixed.append(torch.where(m, b, a) if m is not None else p * b + (1 - p) * a)
        place = {id(a): c for a, c in zip(tree.leaves(new), mixed)}
        return tree.map(lambda leaf: place.get(id(leaf), leaf), y), tree.unflatten(new, mixed)


def _entries(masks: Tree, like: Tree) -> list[Tree]:
    """The mask (or None) for every leaf of ``like``."""
    if not tree.is_node(like):
        return [masks]
    return [entry for mask, part in zip(masks, like or ()) for entry in _entries(mask, part)]
