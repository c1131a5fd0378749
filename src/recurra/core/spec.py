"""What one leaf of an input, an output or a state looks like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import tree
from .tree import Tree


@dataclass(frozen=True)
class Leaf:
    """Shape and type of one leaf, without the leading B (or T, B).

    Args:
        shape: the dimensions after the batch; a letter is a size that the caller may choose, such as the number of places
            of a memory in the state (the same letter, the same size).
        dtype: None stands for the cell's own floating type.
        low: smallest allowed value (for integers: inclusive), where there is one.
        high: for integers: one more than the largest allowed value; for floats: the largest. ``Leaf((), torch.int64, 0,
            65)`` is a token out of 65.
    """

    shape: tuple[int | str, ...]
    dtype: torch.dtype | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return "(" + ", ".join(["B", *[str(n) for n in self.shape]]) + ("," if not self.shape else "") + ")"


def zeros(spec: Tree, *lead: int, dtype: torch.dtype, device: torch.device) -> Tree:
    """Zero leaves of a spec with leading dimensions ``lead``; ``dtype`` fills in where a leaf names none.

    A size that the caller may choose is 1.
    """

    def leaf(item: Leaf) -> Tensor:
        sizes = [1 if isinstance(n, str) else n for n in item.shape]
        return torch.zeros(*lead, *sizes, dtype=item.dtype or dtype, device=device)

    return tree.map(leaf, spec)


def spec_of(value: Tree, lead: int = 1) -> Tree:
    """The spec of tensors that lead with ``lead`` dimensions."""

    def leaf(t: Tensor) -> Leaf:
        return Leaf(tuple(t.shape[lead:]), None if t.is_floating_point() else t.dtype)

    return tree.map(leaf, value)
