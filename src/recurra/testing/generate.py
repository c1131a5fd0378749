"""Random inputs, states, masks and losses for any cell, from what its specs say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.controls import Controls
from ..core.loss import Loss
from ..core.spec import Leaf
from ..core.tree import Tree
from ..engines.loop import Loop
from .law import Setting

C = TypeVar("C", bound=Cell)
FREE_SIZE = 4  # stands in for a dimension that a spec leaves free ("S")


def generator_of(setting: Setting, offset: int = 0) -> torch.Generator:
    """A generator on the setting's device; ``offset`` tells the streams of one law apart."""
    return torch.Generator(setting.device).manual_seed(setting.seed * 1009 + offset)


def prepared(cell: C, setting: Setting, dtype: torch.dtype | None = None) -> C:
    """A copy of the cell, of the setting's type and on its device; in training mode where the setting is noisy."""
    return convert(copy.deepcopy(cell), dtype or setting.dtype).to(setting.device).train(setting.noisy)


def convert(cell: C, dtype: torch.dtype) -> C:
    """The cell in another floating type (in place); complex numbers stay complex."""

    def one(t: Tensor) -> Tensor:
        if t.is_complex():
            return t.to(dtype.to_complex())
        return t.to(dtype) if t.is_floating_point() else t

    return cell._apply(one)


def values(spec: Tree, *lead: int, dtype: torch.dtype, generator: torch.Generator) -> Tree:
    """Random leaves (*lead, ...) that fit a spec: normal where it gives no range, else uniform in it."""

    def leaf(item: Leaf) -> Tensor:
        shape = (*lead, *[n if isinstance(n, int) else FREE_SIZE for n in item.shape])
        kind = item.dtype or dtype
        where: dict[str, Any] = {"device": generator.device, "generator": generator}
        if kind == torch.bool:
            return torch.rand(shape, **where) < 0.5
        if not (kind.is_floating_point or kind.is_complex):
            low = int(item.low or 0)
            high = int(item.high) if item.high is not None else low + 8
            return torch.randint(low, high, shape, dtype=kind, **where)
        if item.low is not None and item.high is not None:
            return item.low + (item.high - item.low) * (0.05 + 0.9 * torch.rand(shape, dtype=kind, **where))
        normal = torch.randn(shape, dtype=kind, **where)
        if item.low is not None:
            return item.low + normal.abs()
        return normal if item.high is None else item.high - normal.abs()

    return tree.map(leaf, spec)


def sequence(cell: Cell, num_steps: int, batch_size: int, generator: torch.Generator, noisy: bool = True) -> Tree:
    """A random input sequence, leaves (T, B, ...), with its noise for a `StochasticCell`."""
    xs = values(cell.input_spec, num_steps, batch_size, dtype=cell.dtype, generator=generator)
    if not isinstance(cell, StochasticCell):
        return xs
    return Noisy(xs, cell.draw(num_steps, batch_size, generator) if noisy else None)


def state_of(cell: Cell, batch_size: int, generator: torch.Generator) -> Tree:
    """A state that the cell could be in: some steps from the start, more for some rows, then noise on what floats.

    So integer leaves (a clock, a stack pointer) are those that steps reach. Floats stay in the range that `state_spec`
    gives, if it gives one.
    """
    num_steps = 4
    xs = sequence(cell, num_steps, batch_size, generator)
    lengths = torch.randint(0, num_steps + 1, (batch_size,), generator=generator, device=generator.device)
    with torch.no_grad():
        _, state = Loop()(cell, xs, None, Controls(lengths=lengths))

    def shifted(leaf: Tensor, item: Leaf) -> Tensor:
        leaf = leaf.detach().clone()
        if not tree.is_differentiable(leaf):
            return leaf
        leaf = leaf + 0.3 * torch.randn(leaf.shape, dtype=leaf.dtype, generator=generator, device=generator.device)
        return leaf if item.low is None and item.high is None else leaf.clamp(item.low, item.high)

    return tree.map(shifted, state, cell.state_spec)


class Case(NamedTuple, Generic[C]):
    """A cell with a random sequence and a random state to start from."""

    cell: C
    xs: Tree
    state: Tree


def case(
    cell: C,
    setting: Setting,
    *,
    min_steps: int = 1,
    min_rows: int = 1,
    dtype: torch.dtype | None = None,
    offset: int = 0,
) -> Case[C]:
    """A copy of the cell, xs (T, B, ...) and a state, all of the setting's sizes or a little larger."""
    twin = prepared(cell, setting, dtype)
    generator = generator_of(setting, offset)
    num_steps, batch_size = max(setting.num_steps, min_steps), max(setting.batch_size, min_rows)
    xs = sequence(twin, num_steps, batch_size, generator, setting.noisy)
    return Case(twin, xs, state_of(twin, batch_size, generator))


def sizes(xs: Tree) -> tuple[int, int]:
    """T and B."""
    first = tree.leaves(xs)[0]
    return int(first.shape[0]), int(first.shape[1])


def copied(value: Tree) -> Tree:
    """New tensors with the same values."""
    return tree.map(lambda leaf: leaf.detach().clone(), value)


def rows_of(xs: Tree, rows: slice | Tensor) -> Tree:
    """Some rows of a sequence (T, B, ...)."""
    return tree.map(lambda leaf: leaf[:, rows], xs)


def lengths_for(setting: Setting, num_steps: int, batch_size: int) -> Tensor:
    """(B,) random true lengths: one between 0 and T first, then 0 and T where there are rows enough."""
    generator = generator_of(setting, 71)
    lengths = torch.randint(0, num_steps + 1, (batch_size,), generator=generator, device=generator.device)
    lengths[:1] = lengths[:1].clamp(min(1, num_steps), max(0, num_steps - 1))
    lengths[1:2], lengths[2:3] = 0, num_steps
    return lengths


def mask_for(setting: Setting, num_steps: int, batch_size: int, offset: int = 72) -> Tensor:
    """(T, B) random bool, a third of it True."""
    generator = generator_of(setting, offset)
    return torch.rand(num_steps, batch_size, generator=generator, device=generator.device) < 0.34


def random_like(value: Tree, generator: torch.Generator) -> Tree:
    """A normal number for every floating number of a tree, zero for the others: weights of a random scalar."""

    def leaf(t: Tensor) -> Tensor:
        if not tree.is_differentiable(t):
            return torch.zeros(t.shape, device=t.device)
        return torch.randn(t.shape, dtype=t.dtype, generator=generator, device=t.device)

    return tree.map(leaf, value)


def weighted(value: Tree, weights: Tree) -> Tensor:
    """The random scalar that gradients are taken of: the real part of ``sum(w * value)`` over all floating leaves."""
    total = torch.zeros((), device=next(iter(leaf.device for leaf in tree.leaves(value)), None))
    for leaf, w in tree.zip_leaves(value, weights):
        if tree.is_differentiable(leaf):
            product = (leaf * w).sum()
            total = total + (product.real if product.is_complex() else product)
    return total


@dataclass(frozen=True)
class SquaredDistance(Loss):
    """``sum (y - target)^2`` over every floating leaf of outputs of any structure: the loss in laws about rules."""

    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        """See `Loss.per_step`."""
        parts = [
            (y - target).abs().square().flatten(2).sum(-1)
            for y, target in tree.zip_leaves(ys, targets)
            if tree.is_differentiable(y)
        ]
        return torch.stack(parts).sum(0)
