"""Cells of one kind side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..cells.dropout import DropoutCell
from ..cells.elman import ElmanCell
from ..cells.lstm import LSTMCell
from ..core import tree
from ..core.cell import Cell, MembersCell, Noisy, Run, StochasticCell, with_noise
from ..core.checks import sentence
from ..core.spec import Leaf
from ..core.tree import Tree
from .stack import Stack
from .wrapper import check_cell


class Ensemble(MembersCell[Tree, Tree]):
    """N cells of one kind and one size side by side, each with parameters of its own, run as one.

        y_n, s_n' = cell_n(x_n, s_n),   n = 1 .. N

    Many runs with different seeds cost little more than one. Members do not see each other: with a loss that adds over
    members (`MemberSum`) and an optimizer that works element by element (SGD, Adam), each one learns as if it were alone;
    `fit` clips each member's gradient by itself.

    Args:
        cells: the members; their parameters are copied into one stack, (N, ...) per name.
    State:
        The members', leaves (B, N, ...).
    Raises:
        ValueError: no member, a member without parameters, or members that differ in kind or size.
        TypeError: something that is no cell.
    Source:
        ``torch.func.stack_module_state`` and ``vmap``
    Differs:
        A member's feedback cannot be forced. Random numbers are drawn member by member.
    Cost:
        N times a member's flops; one member's overhead.
    Example:
        >>> from recurra.layers import Recurrent
        >>> cell = Ensemble(*[ElmanCell(3, 5) for _ in range(4)])
        >>> ys, state = Recurrent(cell)(torch.zeros(7, 2, 4, 3))
        >>> ys.shape, state.h.shape, cell.member(1).weight_hh.shape
        (torch.Size([7, 2, 4, 5]), torch.Size([2, 4, 5]), torch.Size([5, 5]))
    """

    source = "torch.func.stack_module_state, torch.func.vmap"

    def __init__(self, *cells: Cell) -> None:
        super().__init__()
        where = type(self).__name__
        if not cells:
            raise ValueError(sentence(where, "cells", "at least one", "none"))
        for cell in cells:
            check_cell(where, cell)
        shapes = [[(type(m).__name__, _shapes(m)) for m in cell.modules()] for cell in cells]
        if any(other != shapes[0] for other in shapes):
            odd = next(i for i, other in enumerate(shapes) if other != shapes[0])
            raise ValueError(
                sentence(where, f"member {odd}", "of the kind and size of member 0", type(cells[odd]).__name__)
            )
        if not any(True for _ in cells[0].parameters()):
            raise ValueError(sentence(where, "cells", "cells with parameters", type(cells[0]).__name__))
        self.num_members = len(cells)
        self._member_state = cells[0].state_spec
        self.cell = copy.deepcopy(cells[0])
        tensors = [{**dict(c.named_parameters()), **dict(c.named_buffers())} for c in cells]
        for name, value in tensors[0].items():
            with torch.no_grad():
                stacked = torch.stack([t[name] for t in tensors])
            _put(
                self.cell,
                name,
                nn.Parameter(stacked, value.requires_grad) if isinstance(value, nn.Parameter) else stacked,
            )

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Plain members, members with layers, noise and a learned start."""
        yield cls(*[ElmanCell(3, 4) for _ in range(3)])
        yield cls(*[Stack(LSTMCell(2, 3), DropoutCell(3, 0.4), ElmanCell(3, 2)) for _ in range(2)])
        yield cls(*[ElmanCell(2, 3, activation="sigmoid").learn_initial_state() for _ in range(2)])

    def member(self, index: int) -> Cell:
        """A copy of one member as a cell of its own."""
        return _with(self.cell, {name: value[index] for name, value in self._stacked().items()})

    def subset(self, indices: Sequence[int]) -> Self:
        """A copy with these members only, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        small = copy.copy(self)
        small._modules = {}
        small.cell = _with(self.cell, {name: value[chosen] for name, value in self._stacked().items()})
        small.num_members = len(chosen)
        return small

    @property
    def parts(self) -> Sequence[Cell]:
        """None that could run by itself: the stacked cell runs under vmap only, and so by no vendor's kernel."""
        return ()

    @property
    def input_spec(self) -> Tree:
        """The members', with N in front."""
        return self._with_members(self.cell.input_spec)

    @property
    def output_spec(self) -> Tree:
        """The members', with N in front."""
        return self._with_members(self.cell.output_spec)

    @property
    def state_spec(self) -> Tree:
        """The members', with N in front."""
        return self._with_members(self._member_state)

    def _with_members(self, spec: Tree) -> Tree:
        return tree.map(lambda leaf: replace(leaf, shape=(self.num_members, *leaf.shape)), spec)

    def learn_initial_state(self) -> Self:
        """Make every member's initial state a parameter; returns the cell itself."""
        before = dict(self.cell.named_parameters())
        self.cell.learn_initial_state()
        for name, value in list(self.cell.named_parameters()):
            if name not in before:
                _put(self.cell, name, nn.Parameter(value.detach().expand(self.num_members, *value.shape).clone()))
        return self

    def initial_state(self, batch_size: int) -> Tree:
        """Each member's."""
        return self._each(lambda cell: cell.initial_state(batch_size), (), 1)

    def draw(self, num_steps: int, batch_size: int, generator: torch.Generator | None = None) -> Tree:
        """Each member's noise, leaves (T, B, N, ...)."""
        if not isinstance(self.cell, StochasticCell):
            return None
        drawn = [self.cell.draw(num_steps, batch_size, generator) for _ in range(self.num_members)]
        return tree.map(lambda *ls: torch.stack(ls, 2), *drawn)

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The members' noisy parameters, each member's own."""
        if not isinstance(self.cell, StochasticCell):
            return {}
        return {f"cell.{name}": value for name, value in self.cell.draw_weights(generator).items()}

    def compose(self, run: Run, x: Noisy, state: Tree) -> tuple[Tree, Tree]:
        """``run`` of all members in one vmap."""
        spec = self.input_spec
        first: Leaf = tree.leaves(spec)[0]
        lead = tree.leaves(x.x)[0].ndim - len(first.shape)
        same: list[bool] = []

        def each(cell: Cell, xs: Tree, noise: Tree, before: Tree) -> tuple[Tree, Tree]:
            ys, after = run(cell, with_noise(cell, xs, noise), before)
            same[:] = [a is b for a, b in tree.zip_leaves(after, before)]
            return ys, after

        ys, new = self._each(each, ((x.x, lead), (x.noise, lead), (state, 1)), (lead, 1))
        kept = iter(same)
        return ys, tree.map(lambda after, before: before if next(kept) else after, new, state)

    def _stacked(self) -> dict[str, Tensor]:
        return {**dict(self.cell.named_parameters()), **dict(self.cell.named_buffers())}

    def _each(self, function: Callable[..., Tree], given: tuple[tuple[Tree, int], ...], out: Any) -> Tree:
        """``function(cell, *given)`` for every member; each given tree has its members at the dimension beside it."""
        stacked = self._stacked()
        flat = [leaf for value, _ in given for leaf in tree.leaves(value)]
        dims = [dim for value, dim in given for _ in tree.leaves(value)]
        caller = _Caller(self.cell)
        structure: list[Tree] = []

        def one(tensors: dict[str, Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
            supply = iter(leaves)
            trees = [tree.map(lambda _: next(supply), value) for value, _ in given]
            named = {f"cell.{name}": value for name, value in tensors.items()}
            result = functional_call(caller, named, (function, *trees))
            structure[:] = [result]
            return tuple(tree.leaves(result))

        results = vmap(one, in_dims=(0, *dims))(stacked, *flat)
        parts, places = (structure[0], out) if isinstance(out, tuple) else ((structure[0],), (out,))
        each = [dim for part, dim in zip(parts, places) for _ in tree.leaves(part)]
        return tree.unflatten(structure[0], [leaf.movedim(0, dim) for leaf, dim in zip(results, each)])

    def extra_repr(self) -> str:
        """How many."""
        return f"num_members={self.num_members}"


class _Caller(nn.Module):
    """Gives ``functional_call`` a module whose forward pass is any function of the cell."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, function: Callable[..., Tree], *args: Tree) -> Tree:
        return function(self.cell, *args)


def _with(cell: Cell, values: dict[str, Tensor]) -> Any:
    """A copy of a cell with other parameters and buffers."""
    cell = copy.deepcopy(cell)
    was = dict(cell.named_parameters())
    for name, value in values.items():
        one = value.detach().clone()
        _put(cell, name, nn.Parameter(one, was[name].requires_grad) if name in was else one)
    return cell


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tuple(value.shape), value.dtype) for name, value in named]


def _put(root: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter or a buffer by its dotted name."""
    owner, _, last = name.rpartition(".")
    module = root.get_submodule(owner)
    if isinstance(value, nn.Parameter):
        if isinstance(module, nn.ParameterDict):
            module[last] = value
        else:
            setattr(module, last, value)
    else:
        module._buffers[last] = value
