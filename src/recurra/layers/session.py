"""Streams that are stepped in place."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell, StochasticCell, quiet
from ..core.checks import check_positive, check_tree, sentence
from ..core.spec import zeros
from ..core.tree import Tree
from ..engines.native import stream_plan

S = TypeVar("S")


_NOTHING: tuple[Any, Any, int, int] = (object(), object(), 0, 0)


class Session(Generic[S]):
    """Independent streams, one step at a time: the state stays where it is and is changed in place.

        y, s <- cell(x, s)

    The cell's whole step is compiled (`recurra.engines.Native`), so that a step is one small call; where that is not
    possible it runs as in `Loop`, and ``why_not_native`` says why. The numbers are those of the batch, without noise
    and without derivatives. The weights are those of the moment at which the session was made, see `refresh`.

    Args:
        cell: any cell, a wrapper or a stack, on the CPU.
        num_streams: B, streams side by side.
    Raises:
        ValueError: no stream, or an input of a wrong shape.
        TypeError: no cell, or an input of a wrong structure or dtype.
    Example:
        >>> from recurra.cells import GRUCell
        >>> from recurra.layers import Recurrent
        >>> cell, xs = GRUCell(3, 5), torch.randn(7, 2, 3)
        >>> session = Session(cell, num_streams=2)
        >>> ys = torch.stack([session.step(x) for x in xs])
        >>> torch.allclose(ys, Recurrent(cell)(xs)[0], atol=1e-6)
        True
    """

    def __init__(self, cell: Cell[Any, Any, S], num_streams: int = 1) -> None:
        if not isinstance(cell, Cell):
            raise TypeError(sentence("Session", "cell", "a recurra Cell", type(cell).__name__))
        check_positive("Session", num_streams=num_streams)
        self.cell, self.num_streams = cell, num_streams
        self.why_not_native: str | None = None
        with torch.no_grad():
            self._own: Tree = tree.map(lambda leaf: leaf.clone(), cell.initial_state(num_streams))
        self.refresh()

    def refresh(self) -> None:
        """Take the cell's weights as they are now; the state stays."""
        state = self.state if hasattr(self, "_data") else self._own
        self._turn = 0
        self._data: Any = None
        self._last: tuple[Any, Any, int, int] = _NOTHING
        with torch.no_grad():
            x = zeros(self.cell.input_spec, self.num_streams, dtype=self.cell.dtype, device=self.cell.device)
            x = quiet(x) if isinstance(self.cell, StochasticCell) else x
            job = stream_plan(self.cell, x, self._own)
            if isinstance(job, str):
                self.why_not_native = job
            else:
                self._prepare(job, tree.leaves(x))
                if not self._agrees(x):
                    self.why_not_native, self._data = "its plan gave other numbers", None
        self.state = state

    def _agrees(self, x: Tree) -> bool:
        """One step from a random state is the cell's own."""
        generator = torch.Generator().manual_seed(0)

        def filled(leaf: Tensor) -> Tensor:
            if not leaf.is_floating_point():
                return leaf.clone()
            return torch.rand(leaf.shape, generator=generator, dtype=leaf.dtype)

        x, before = tree.map(filled, x), tree.map(filled, self._own)
        self.state = before
        ours = (self.step(x), self.state)
        theirs = self.cell.step(x, before)
        near = 1e-8 if self.cell.dtype == torch.float64 else 1e-3
        return all(
            torch.allclose(a.double(), b.double(), rtol=near, atol=near, equal_nan=True)
            for a, b in zip(tree.leaves(ours), tree.leaves(theirs))
        )

    def _prepare(self, job: Any, xs: list[Tensor]) -> None:
        plan = job.plan
        parameters = job.parameters(self.cell)
        imports = [t.contiguous() for t in plan.traced.before(parameters, xs)]
        inputs = {number - len(parameters): k for k, number in plan.traced.placeholders()}
        self._states: dict[int, Tensor] = {}
        self._outputs: dict[int, int] = {}
        self._inputs: list[tuple[int, torch.Size, torch.dtype]] = []
        arrays: list[Tensor] = []
        places: dict[int, int] = {}
        for number, (kind, index) in enumerate(plan.forward_buffers):
            if kind == "states":
                leaf = plan.traced.state_leaves[index]
                arrays.append(torch.empty((2, self.num_streams, *leaf.shape), dtype=plan.torch_type(leaf.dtype)))
                self._states[index] = arrays[-1]
            elif kind == "constant":
                arrays.append(tree.leaves(self._own)[index].clone())
                self._states[index] = arrays[-1]
            elif kind == "y":
                y = plan.outputs[index]
                arrays.append(torch.empty((self.num_streams, *y.shape), dtype=plan.torch_type(y.dtype)))
                self._outputs[index] = number
            elif kind in ("x", "p"):
                arrays.append(imports[index])
                if kind == "x":
                    places[index] = number
            else:
                slot = plan.forward_scratch[number]
                arrays.append(torch.empty((self.num_streams, slot.size), dtype=plan.torch_type(slot.dtype)))
        for leaf, x in enumerate(xs):
            number = places.get(inputs.get(leaf, -1), -1)
            self._inputs.append((number, x.shape, x.dtype))
        packed, weights = plan.callers["forward"].packed(imports)
        self._constant, self._job = plan.constant, job
        self._kept = [*arrays, packed]
        threads = plan.callers["forward"].threads(1, self.num_streams)
        pointers = [*(t.data_ptr() for t in arrays), *weights]
        self._data = (ctypes.c_int64 * (4 + len(pointers)))(threads, 1, self.num_streams, 0, *pointers)
        self._call = plan.caller("forward", self._data, threads)
        self._arrays = arrays

    def step(self, x: Tree, out: Tensor | None = None) -> Tree:
        """The next output of every stream.

        Args:
            x: leaves (B, ...).
            out: where the output is written, dense (B, O); without it, a new tensor.
        """
        data = self._data
        # the caller's own buffers, checked the last time: what may have changed is where they stand
        last_x, last_out, x_place, out_place = self._last
        if x is last_x and out is last_out and x.data_ptr() == x_place and out.data_ptr() == out_place:
            data[3] = self._turn
            self._call()
            self._turn ^= 1
            return out
        if data is None:
            return self._step_in_torch(x, out)
        leaves = [x] if type(x) is Tensor else tree.leaves(x)
        if len(leaves) != len(self._inputs):
            self._complain(x)
        for leaf, (number, shape, dtype) in zip(leaves, self._inputs):
            if leaf.shape != shape or leaf.dtype != dtype:
                self._complain(x)
            if number >= 0:
                if not leaf.is_contiguous():
                    self._arrays[number] = leaf = leaf.contiguous()
                data[4 + number] = leaf.data_ptr()
        found = []
        for number in self._outputs.values():
            if out is None:
                y = torch.empty_like(self._arrays[number])
            else:
                y = out
                if (
                    y.shape != self._arrays[number].shape
                    or y.dtype != self._arrays[number].dtype
                    or not y.is_contiguous()
                ):
                    want = f"dense, {self._arrays[number].dtype}, of shape {tuple(self._arrays[number].shape)}"
                    raise ValueError(sentence("Session", "out", want, f"{y.dtype} of shape {tuple(y.shape)}"))
            data[4 + number] = y.data_ptr()
            found.append(y)
        data[3] = self._turn
        self._call()
        self._turn ^= 1
        one = type(x) is Tensor and out is not None and x.is_contiguous() and len(found) == 1
        self._last = (x, out, x.data_ptr(), found[0].data_ptr()) if one else _NOTHING
        return found[0] if len(found) == 1 else tree.unflatten(self._job.y_like, found)

    def _complain(self, x: Tree) -> None:
        spec, kind = self.cell.input_spec, self.cell.own_dtype
        check_tree("Session", "x", x, spec, (self.num_streams,), kind, self.cell.hint())
        raise TypeError(sentence("Session", "x", "tensors of the cell's types", tree.describe(x)))

    @torch.no_grad()
    def _step_in_torch(self, x: Tree, out: Tensor | None) -> Tree:
        check_tree("Session", "x", x, self.cell.input_spec, (self.num_streams,), self.cell.own_dtype, self.cell.hint())
        y, self._own = self.cell.step(quiet(x) if isinstance(self.cell, StochasticCell) else x, self._own)
        return y if out is None else out.copy_(y)

    @property
    def state(self) -> S:
        """A copy of the present state, leaves (B, ...)."""
        if self._data is None:
            return tree.map(lambda leaf: leaf.clone(), self._own)
        leaves = [
            (self._states[i] if fixed else self._states[i][self._turn]).clone()
            for i, fixed in enumerate(self._constant)
        ]
        return tree.unflatten(self._own, leaves)

    @state.setter
    def state(self, new: S) -> None:
        self.cell.check_state(new, self.num_streams)
        if self._data is None:
            self._own = tree.map(lambda leaf: leaf.detach().clone(), new)
            return
        for i, (leaf, fixed) in enumerate(zip(tree.leaves(new), self._constant)):
            target = self._states[i] if fixed else self._states[i][self._turn]
            target.copy_(leaf.detach())

    def reset(self, streams: Tensor | None = None) -> None:
        """Start again.

        Args:
            streams: (B,) bool, which ones; all without it. What is constant in the state stays for the others.
        """
        with torch.no_grad():
            start = self.cell.initial_state(self.num_streams)
            self.state = start if streams is None else tree.where(streams, start, self.state)

    def clone(self) -> Self:
        """Another session that goes on from the same state."""
        other = type(self)(self.cell, self.num_streams)
        other.state = self.state
        return other

    def save(self, path: str | Path) -> None:
        """Write the state as ``safetensors``."""
        from safetensors.torch import save

        leaves = {str(i): leaf.contiguous() for i, leaf in enumerate(tree.leaves(self.state))}
        target = Path(path)
        part = target.with_name(target.name + ".part")
        part.write_bytes(save(leaves))
        part.replace(target)

    def load(self, path: str | Path) -> None:
        """Go on from a state that was written by `save`.

        Raises:
            ValueError: the file is damaged or belongs to another cell.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            found = load(Path(path).read_bytes())
        except SafetensorError as error:
            raise ValueError(sentence("Session", str(path), "a whole file of tensors", "a damaged one")) from error
        like = tree.leaves(self._own)
        if set(found) != {str(i) for i in range(len(like))}:
            raise ValueError(sentence("Session", str(path), f"a state of {len(like)} tensors", f"{len(found)}"))
        self.state = tree.unflatten(self._own, [found[str(i)] for i in range(len(like))])
