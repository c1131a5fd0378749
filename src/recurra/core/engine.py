"""The engine: one way of running a cell over a sequence. All engines compute the same function."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from . import tree
from .cell import Cell, FeedbackCell, Noisy, StochasticCell, quiet
from .checks import check_tree, is_transformed, sentence
from .controls import Controls
from .spec import zeros
from .tree import Tree


class Engine(ABC):
    """A frozen dataclass: it prints, compares, and becomes a command-line option.

    An author writes `run` (and `supports` where there are limits). Calling the engine checks the arguments, clears the
    padding, runs, and clears the padding of the outputs, the same for all. ``exempt`` names the laws of
    `recurra.testing` that it cannot obey, with the reasons.
    """

    exempt: ClassVar[Mapping[str, str]] = {}

    def supports(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> str | None:
        """None, or one sentence that says why this engine cannot run this."""
        return None

    @abstractmethod
    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """Carry ``state`` over ``xs``: outputs (T, B, ...) and the state at each row's true end.

        What stands in the padding of the outputs is free. T is at least 1.
        """

    @final
    def __call__(self, cell: Cell, xs: Tree, state: Tree = None, controls: Controls | None = None) -> tuple[Tree, Tree]:
        """Run ``cell`` over ``xs``.

        Args:
            xs: input leaves (T, B, ...).
            state: leaves (B, ...), None for `Cell.initial_state`.
            controls: lengths, resets, forcing.

        Returns:
            Output leaves (T, B, ...), zero in the padding, and the state at each row's true end.

        Raises:
            ValueError: a wrong shape, or this engine does not support the cell or the controls.
            TypeError: a wrong structure or dtype.
        """
        controls = controls or Controls()
        num_steps, batch_size = check_sequence(cell, xs, state, controls)
        if isinstance(cell, StochasticCell):
            xs = quiet(xs)
        state = cell.initial_state(batch_size) if state is None else state
        reason = self.supports(cell, xs, state, controls)
        if reason is not None:
            raise ValueError(f"{self}: {reason}")
        if num_steps == 0:
            return zeros(cell.output_spec, 0, batch_size, dtype=cell.dtype, device=cell.device), state
        alive = controls.alive(num_steps)
        if alive is None:
            return self.run(cell, xs, state, controls)
        clean = xs._replace(x=_masked(xs.x, alive)) if isinstance(cell, StochasticCell) else _masked(xs, alive)
        ys, state = self.run(cell, clean, state, controls)
        return _masked(ys, alive), state


def _masked(values: Tree, alive: Tensor) -> Tree:
    def leaf_masked(leaf: Tensor) -> Tensor:
        return torch.where(alive.reshape(*alive.shape, *[1] * (leaf.ndim - 2)), leaf, leaf.new_zeros(()))

    return tree.map(leaf_masked, values)


_PASSED: weakref.WeakKeyDictionary[Cell, set[Any]] = weakref.WeakKeyDictionary()
"""Forms of (xs, state) that each cell has taken: of shapes and dtypes alone, so what passed once passes again."""

_MOST_PASSED = 256


def _form(values: Tree) -> Any:
    """Shapes and dtypes of floating leaves; None where the values themselves would have to be looked at."""
    if isinstance(values, Tensor):
        return (values.shape, values.dtype) if values.is_floating_point() else None
    if type(values) is tuple or hasattr(values, "_fields"):
        parts = [type(values)]
        for value in values:
            form = _form(value)
            if form is None:
                return None
            parts.append(form)
        return tuple(parts)
    return None


def check_sequence(cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[int, int]:
    """Check everything an engine is given, once, outside the time loop; returns T and B."""
    form = None
    if all(c is None for c in controls) and not torch.compiler.is_compiling():
        weight = next(cell.parameters(), None)
        form = (_form(xs), _form(state) if state is not None else 0, None if weight is None else weight.dtype)
        if None in form[:2] or torch.is_autocast_enabled("cpu"):
            form = None
        elif form in _PASSED.setdefault(cell, set()):
            first = tree.leaves(xs)[0].shape
            return int(first[0]), int(first[1])
    sizes = _check_sequence(cell, xs, state, controls)
    if form is not None and len(_PASSED[cell]) < _MOST_PASSED:
        _PASSED[cell].add(form)
    return sizes


def _check_sequence(cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[int, int]:
    where = type(cell).__name__
    bare = xs.x if isinstance(cell, StochasticCell) and isinstance(xs, Noisy) else xs
    check_tree(where, "xs", bare, cell.input_spec, ("T", "B"), cell.own_dtype, cell.hint())
    first = tree.leaves(bare)[0]
    num_steps, batch_size = first.shape[:2]  # not made plain numbers: a compiler may leave them open
    if state is not None:
        cell.check_state(state, batch_size)
    check_controls(where, cell, controls, num_steps, batch_size)
    return num_steps, batch_size


def check_controls(where: str, cell: Cell, controls: Controls, num_steps: int, batch_size: int) -> None:
    """Raise unless the controls fit a sequence of T steps of B rows."""
    lengths, reset, forced, force_mask = controls
    if lengths is not None:
        if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
            got = str(lengths.dtype).removeprefix("torch.") if isinstance(lengths, Tensor) else type(lengths).__name__
            raise TypeError(sentence(where, "lengths", "a tensor of int64", got))
        if lengths.shape != (batch_size,):
            raise ValueError(sentence(where, "lengths", f"({batch_size},)", tuple(lengths.shape)))
        if not is_transformed(lengths) and lengths.device.type == "cpu" and batch_size:
            low, high = (int(v) for v in torch.aminmax(lengths))
            if low < 0 or high > num_steps:
                wrong = low if low < 0 else high
                raise ValueError(sentence(where, "lengths", f"between 0 and T={num_steps}", wrong))
    for name, mask in (("reset", reset), ("force_mask", force_mask)):
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(sentence(where, name, "a tensor of bool", got))
        if mask.shape != (num_steps, batch_size):
            raise ValueError(sentence(where, name, f"({num_steps}, {batch_size})", tuple(mask.shape)))
    if forced is not None:
        if not isinstance(cell, FeedbackCell):
            raise TypeError(sentence(where, "the cell", "a FeedbackCell to be forced", "a cell without feedback"))
        spec = cell.state_spec.feedback
        check_tree(where, "forced", forced, spec, (num_steps, batch_size), cell.own_dtype)
    elif force_mask is not None:
        raise ValueError(sentence(where, "force_mask", "given together with forced", "no forced values"))
