"""A stretch taken step by step in the open: which products y = W x each step makes with the parameters that learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..core import tree
from ..core.cell import Cell, Noisy, StochasticCell
from ..core.checks import is_transformed
from ..core.engine import check_sequence
from ..core.rule import Chunk
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines.loop import restart
from ..engines.unroll import draw
from .linearised import Transition, learning


class Product(NamedTuple):
    """One product of a step.

    Args:
        name: of the parameter.
        weight: (out, in) W, a view of the parameter.
        x: (B, K, in) what it is multiplied with; K = 1 unless a row has several.
        y: (B, K, out) the product alone, without what is added in the same call.
        out: what the call gave, as the step goes on with it.
        offset: of W in its parameter.
    """

    name: str
    weight: Tensor
    x: Tensor
    y: Tensor
    out: Tensor
    offset: int

    def add_to(self, direction: Tensor, change: Tensor) -> None:
        """Add (out, in) at the place that W has in its parameter; ``direction`` is shaped like the parameter."""
        direction.as_strided(self.weight.shape, self.weight.stride(), self.offset).add_(change)


_LINEAR = {F.linear}
_TIMES = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}
_ADDED = {torch.addmm, Tensor.addmm}


class _Listening(TorchFunctionMode):
    """Notes the products with parameters that are made while it is entered."""

    def __init__(self, cell: Cell, rows: int) -> None:
        super().__init__()
        self.rows, self.found = rows, list[Product]()
        self.parameters = learning(cell)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _LINEAR and len(args) >= 2:
            self._note(args[1], args[0], out, args[2] if len(args) > 2 else (kwargs or {}).get("bias"))
        elif func in _ADDED and len(args) >= 3 and not kwargs:
            self._either(args[1], args[2], out, args[0])
        elif func in _TIMES and len(args) == 2:
            self._either(args[0], args[1], out, None)
        return out

    def _either(self, a: Any, b: Any, out: Tensor, added: Tensor | None) -> None:
        """x @ W or W @ x."""
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim >= 2 and b.ndim >= 2):
            return
        self._note(b.mT, a, out, added)
        if added is None:
            self._note(a, b.mT, out.mT, None)

    def _note(self, weight: Tensor, x: Tensor, out: Tensor, added: Tensor | None) -> None:
        if is_transformed(weight) or is_transformed(x) or weight.ndim != 2 or x.ndim < 2 or x.shape[0] != self.rows:
            return
        if any(stride == 0 and size > 1 for stride, size in zip(weight.stride(), weight.shape)):
            return
        for name, p in self.parameters.items():
            offset = int(weight.storage_offset()) - int(p.storage_offset())
            if weight.untyped_storage().data_ptr() == p.untyped_storage().data_ptr() and 0 <= offset < p.numel():
                y = out if added is None else out - added
                x, y = (t.reshape(self.rows, -1, t.shape[-1]).detach() for t in (x, y))
                self.found.append(Product(name, weight.detach(), x, y, out, offset))
                return


class Taken(NamedTuple):
    """One step of a stretch.

    Args:
        x: the input, with its noise.
        before: the state that the step began from, resets done.
        y: the output.
        state: after the step; padding leaves it.
        products: in the order of the step.
        restarted: (B,) rows that began again before it, None for none.
        alive: (B,) False in the padding, None where there is none.
    """

    x: Tree
    before: Tree
    y: Tree
    state: Tree
    products: list[Product]
    restarted: Tensor | None
    alive: Tensor | None


def walk(cell: Cell, state: Tree, chunk: Chunk, generator: torch.Generator) -> Iterator[Taken]:
    """Take the steps of a chunk, with resets, padding, forcing and noise as everywhere.

    Raises:
        ValueError: a wrong shape.
        TypeError: a wrong structure or dtype.
    """
    xs, controls = chunk.xs, chunk.controls
    num_steps, rows = check_sequence(cell, xs, state, controls)
    alive = controls.alive(num_steps)
    if alive is not None:
        mask = alive
        xs = tree.map(lambda leaf: torch.where(_over(mask, leaf), leaf, torch.zeros_like(leaf)), xs)
    drawn = draw(cell, xs, generator)
    xs = Noisy(xs, drawn.noise) if isinstance(cell, StochasticCell) and not isinstance(xs, Noisy) else xs
    module = Transition(cell)
    for t in range(num_steps):
        x, here = tree.at(xs, t), None if alive is None else alive[t]
        with torch.no_grad():
            again = None if controls.reset is None else controls.reset[t]
            if again is not None:
                again = again if here is None else again & here
                state = restart(cell, x, state, again)
            before = state
            forced = None if controls.forced is None else tree.at(controls.forced, t)
            listening = _Listening(cell, rows)
            with listening:
                y, new = module(x, state, forced, None if controls.force_mask is None else controls.force_mask[t])
            state = new if here is None else tree.where(here, new, state)
            if here is not None:
                y = tree.where(here, y, tree.map(torch.zeros_like, y))
        yield Taken(x, before, y, state, listening.found, again, here)


def products(cell: Cell, batch_size: int = 1) -> tuple[Tree, list[Product]]:
    """The output and the products of one step, found by taking it with an input of zeros."""
    with torch.no_grad():
        x = zeros(cell.input_spec, batch_size, dtype=cell.dtype, device=cell.device)
        state, listening = cell.initial_state(batch_size), _Listening(cell, batch_size)
        with listening:
            y, _ = cell.step(Noisy(x, None) if isinstance(cell, StochasticCell) else x, state)
    return y, listening.found


def stacked(cell: Cell, ys: list[Tree], batch_size: int) -> Tree:
    """The outputs of a walk, leaves (T, B, ...)."""
    if ys:
        return tree.stack(ys)
    return zeros(cell.output_spec, 0, batch_size, dtype=cell.dtype, device=cell.device)


def _over(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))
