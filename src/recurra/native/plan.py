"""A step as machine code, forward and backward, and how torch's arrays are handed to it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import operations as _operations  # noqa: F401  known by being imported
from .autodiff import Unsupported, differentiate
from .build import Code, build, machine, most_threads, run, second_level_cache, target_text
from .graph import BOOLEAN, FLOAT, Graph, Node, contiguous, reachable, read_from
from .llvm import Writer
from .lower import Evaluator, Loop, Product, Program, Reduce, Root, Slot, lower, slots_of
from .trace import Step, capture


@dataclass(frozen=True)
class Variant:
    """What decides the form of a plan, besides the step.

    Args:
        lengths: rows may end early.
        reset: rows may start again.
        backward: with derivatives.
        stream: nothing is computed beforehand, outputs and states stand apart: for single steps.
        many: rows enough that products of the input pay inside the loop, where their weights fit into the cache.
        inputs: derivatives by the inputs are wanted.
    """

    lengths: bool = False
    reset: bool = False
    backward: bool = False
    stream: bool = False
    many: bool = False
    inputs: bool = True


def substitute(graph: Graph, roots: Sequence[Node], new: dict[Node, Node]) -> list[Node]:
    """The same expressions with leaves replaced."""
    known = dict(new)

    def walk(node: Node) -> Node:
        if node not in known:
            args = [walk(a) for a in node.args]
            same = all(a is b for a, b in zip(args, node.args))
            if same:
                known[node] = node
            elif node.op == "view":
                offset, strides = node.attr
                known[node] = graph.view(args[0], node.shape, offset, strides)
            else:
                known[node] = graph.make(node.op, args, node.shape, node.dtype, node.attr, node.batched)
        return known[node]

    return [walk(r) for r in roots]


def started(graph: Graph, roots: Sequence[Node]) -> list[Node]:
    """Products begin with what is added to them: an import, a parameter, another product, if nothing else reads the parts."""
    seen = reachable(roots)
    users: dict[Node, set[Node]] = {}
    for node in seen:
        for a in node.args:
            users.setdefault(a, set()).add(node)
    ends, new = set(roots), dict[Node, Node]()

    def merged(node: Node) -> Node | None:
        for one, other in (node.args, node.args[::-1]):
            product, start = new[one], new[other]
            own = [n for n in (one, other) if new[n].op == "product"]
            if any(users[n] != {node} or n in ends for n in own) or product.op != "product" or len(product.args) > 2:
                continue
            given = start.op == "leaf" and start.attr[0] in ("x", "p") and start.dtype == FLOAT
            if start.shape == product.shape and (given or start.op == "product"):
                return graph.product(product.args[0], product.args[1], start)
        return None

    for node in seen:
        args = [new[a] for a in node.args]
        found = merged(node) if node.op == "add" else None
        if found is None and all(a is b for a, b in zip(args, node.args)):
            found = node
        if found is None and node.op == "view":
            found = graph.view(args[0], node.shape, *node.attr)
        new[node] = found or graph.make(node.op, args, node.shape, node.dtype, node.attr, node.batched)
    return [new[r] for r in roots]


class _Buffers:
    """Numbers the arrays of one program."""

    def __init__(self) -> None:
        self.names: list[tuple[str, int]] = []

    def new(self, kind: str = "scratch", index: int = -1) -> int:
        self.names.append((kind, index))
        return len(self.names) - 1


_SHARED = 100_000
"""Elements of all weights from which on threads may share every step of a few rows."""

_FEW = 1
"""Rows up to which they do: each thread has a part of the weights, which stays in its cache. With one row the order of every
sum is that of a single thread, so the choice between both, which looks at times, cannot be seen in the bits."""


def _weight_of(program: Program) -> int:
    return sum(node.size for node in program.weights)


_BLOCK = 100_000_000
"""Elementary operations, about, between two looks at whether somebody pressed Ctrl-C: some tenths of a second at most; for
many rows, which are faster, up to eight times as many."""


class Plan:
    """A step, compiled for one variant.

    Args:
        step: see `recurra.native.trace.trace`.
        parameters, xs, states: tensors of the right form.
        variant: see `Variant`.
        compiled: with machine code; without it, the plan can be read and written in another language only.
    Raises:
        Unsupported: something that has no native form.
    """

    def __init__(
        self,
        step: Step,
        parameters: Sequence[Tensor],
        xs: Sequence[Tensor],
        states: Sequence[Tensor],
        variant: Variant,
        *,
        compiled: bool = True,
    ) -> None:
        captured = capture(step, parameters, xs, states)
        projection = captured.projection() if variant.many else None
        size = (projection or 0) * (8 if torch.float64 in {t.dtype for t in parameters} else 4)
        self.fold = projection is not None and size <= 0.8 * second_level_cache()
        self.traced = captured.traced(hoist=not (variant.stream or self.fold))
        self.variant = variant
        floats = [t.dtype for t in (*parameters, *xs, *states) if t.is_floating_point()]
        if len(set(floats)) != 1:
            raise Unsupported("float32 and float64 in one step have no native form")
        self.dtype = floats[0]
        self.bits = 32 if self.dtype == torch.float32 else 64
        self._compose()
        self._forward()
        if variant.backward:
            self._backward()
        if compiled:
            self._build()

    # --- what is computed ---

    def _compose(self) -> None:
        """Resets before the step, lengths after it."""
        traced, graph, e = self.traced, self.traced.graph, self.traced.graph.elementwise
        outputs, states = list(traced.outputs), list(traced.states)
        self.constant = [new is old for new, old in zip(states, traced.state_leaves)]
        self.alive = graph.leaf("alive", 0, (), BOOLEAN, True)
        self.restart = graph.leaf("reset", 0, (), BOOLEAN, True)
        self.starts: dict[int, Node] = {}
        before = list(traced.state_leaves)
        if self.variant.reset:
            mask = e("and", self.restart, self.alive) if self.variant.lengths else self.restart
            for i, old in enumerate(traced.state_leaves):
                if not self.constant[i]:
                    self.starts[i] = graph.leaf("c", i, old.shape, old.dtype, True)
                    before[i] = e("where", mask, self.starts[i], old)
            both = substitute(graph, [*outputs, *states], dict(zip(traced.state_leaves, before)))
            outputs, states = both[: len(outputs)], both[len(outputs) :]
        if self.variant.lengths:
            states = [
                new if fixed else e("where", self.alive, new, old)
                for new, old, fixed in zip(states, before, self.constant)
            ]
        both = started(graph, [*outputs, *states])
        self.outputs, self.states = both[: len(outputs)], both[len(outputs) :]

    def _given(self, buffers: _Buffers, leaves: Sequence[Node]) -> dict[Node, Slot]:
        """Slots of leaves that come from outside."""
        places: dict[Node, Slot] = {}
        for node in leaves:
            name, index = node.attr
            mode = {"x": "time", "p": "fixed", "c": "row", "saved": "time", "gy": "time", "alive": "time",
                    "reset": "time"}.get(name)  # fmt: skip
            if mode is not None:
                places[node] = Slot(buffers.new(name, index), mode, node.size, node.dtype)
            elif name == "s":
                if self.constant[index]:
                    places[node] = Slot(buffers.new("constant", index), "row", node.size, node.dtype)
                elif self.kept[index]:
                    places[node] = Slot(buffers.new("states", index), "time", node.size, node.dtype)
                else:
                    places[node] = Slot(buffers.new("states", index), "parity", node.size, node.dtype)
            elif name == "gs":
                places[node] = Slot(buffers.new("gs", index), "parity", node.size, node.dtype, 1)
        return places

    def _forward(self) -> None:
        backward = self.variant.backward
        self.same: dict[int, int] = {}  # output -> state leaf that it equals
        if not self.variant.lengths and not self.variant.stream:
            for i, y in enumerate(self.outputs):
                for j, new in enumerate(self.states):
                    if y is new and not self.constant[j] and i not in self.same:
                        self.same[i] = j
        self.kept = [(backward or j in self.same.values()) and not c for j, c in enumerate(self.constant)]
        self.saved: list[Node] = []
        if backward:
            self._differentiate()
        buffers = _Buffers()
        roots: list[Root] = []
        leaves = _leaves([*self.outputs, *self.states])
        places = self._given(buffers, sorted({*leaves, *self.traced.state_leaves}, key=lambda n: n.number))
        for j, new in enumerate(self.states):
            if not self.constant[j]:
                old = places[self.traced.state_leaves[j]]
                roots.append(Root(new, Slot(old.buffer, old.mode, old.size, old.dtype, 1)))
        for i, y in enumerate(self.outputs):
            if i not in self.same:
                roots.append(Root(y, Slot(buffers.new("y", i), "time", y.size, y.dtype)))
        for k, node in enumerate(self.saved):
            roots.append(Root(node, Slot(buffers.new("saved", k), "time", node.size, node.dtype)))
        self.forward_program = lower(roots, places, len(buffers.names))
        for _ in self.forward_program.scratch:
            buffers.new()
        self.forward_buffers = buffers.names
        self.forward_scratch = {s.buffer: s for s in self.forward_program.scratch}

    def _differentiate(self) -> None:
        graph = self.traced.graph
        pairs = []
        self.output_seeds: dict[int, Node] = {}
        self.state_seeds: dict[int, Node] = {}
        for i, y in enumerate(self.outputs):
            if y.dtype == FLOAT:
                self.output_seeds[i] = graph.leaf("gy", i, y.shape, FLOAT, True)
                pairs.append((y, self.output_seeds[i]))
        for j, new in enumerate(self.states):
            if new.dtype == FLOAT:
                self.state_seeds[j] = graph.leaf("gs", j, new.shape, FLOAT, True)
                pairs.append((new, self.state_seeds[j]))
        given = {k for k, _ in self.traced.placeholders()}  # inputs as they are, and parameters

        def is_needed(leaf: Node) -> bool:
            return leaf.dtype == FLOAT and (self.variant.inputs or leaf.attr[0] != "x" or leaf.attr[1] not in given)

        self.adjoint = differentiate(graph, pairs, is_needed)
        self.saved = self.adjoint.saved

    def _backward(self) -> None:
        """The backward part; derivatives by products stand where the products were saved, if nothing reads these later."""
        over: dict[Node, int] = {}
        for _, _, g, product in self.adjoint.products:
            number = self.saved.index(product) if product in self.saved else -1
            if number >= 0 and g.size == product.size and g not in over:
                over[g] = number
        while True:
            late = self._backward_over(over)
            if not late:
                break
            over = {g: k for g, k in over.items() if k not in late}
        self.overwrites = bool(over)

    def _backward_over(self, over: dict[Node, int]) -> set[int]:
        """The backward part with some derivatives written over what was saved; what is read after that."""
        graph, found = self.traced.graph, self.adjoint
        buffers = _Buffers()
        roots: list[Root] = []
        kept: dict[Node, Slot] = {}

        def in_time(node: Node, kind: str, index: int) -> Slot:
            """A value of every step, stored once."""
            if node not in kept:
                if node in over:
                    there = (
                        buffers.names.index(("saved", over[node])) if ("saved", over[node]) in buffers.names else None
                    )
                    number = buffers.new("saved", over[node]) if there is None else there
                else:
                    number = buffers.new(kind, index)
                kept[node] = Slot(number, "time", node.size, node.dtype)
                roots.append(Root(node, kept[node]))
            return kept[node]

        self.gradients: dict[Node, tuple[str, int]] = {}
        products = [(a, weight, g) for a, weight, g, _ in found.products]
        sources = [a for a, _, _ in products]
        values = [*found.leaves.values(), *(g for _, _, g in products), *sources, *self.state_seeds.values()]
        values += [node for row, _, g in found.gathers for node in (row, g)]
        leaves = {*_leaves(values)} | {s for j, s in enumerate(self.traced.state_leaves) if self.kept[j]}
        places = self._given(buffers, sorted(leaves, key=lambda n: n.number))
        for j, seed in self.state_seeds.items():
            leaf = self.traced.state_leaves[j]
            value = found.leaves.get(leaf) or graph.make("const", (), leaf.shape, FLOAT, (repr(0.0),), True)
            slot = places[seed]
            roots.append(Root(value, Slot(slot.buffer, "parity", slot.size, slot.dtype, 0)))
        for leaf, g in found.leaves.items():
            name, index = leaf.attr
            if name == "x":
                self.gradients[leaf] = ("time", in_time(g, "gx", index).buffer)
            elif name in ("p", "c"):
                slot = Slot(buffers.new("sum", index), "row", leaf.size, FLOAT)
                roots.append(Root(g, slot, add=True))
                self.gradients[leaf] = ("sum", slot.buffer)
        self.weight_gradients: list[tuple[Any, Node, int]] = []
        for a, weight, g in products:
            out = in_time(g, "dz", 0)
            self.weight_gradients.append((self._source(a, places, in_time), weight, out.buffer))
        self.table_gradients = [  # (row, table, derivative by what was found there)
            (in_time(row, "row", 0).buffer, table, in_time(g, "dz", 0).buffer) for row, table, g in found.gathers
        ]
        self.sum_sizes = {n: leaf.size for leaf, (how, n) in self.gradients.items() if how == "sum"}
        self.backward_program = lower(roots, places, len(buffers.names))
        written = {kept[g]: g for g in over if g in kept}
        late = {over[g] for slot, g in written.items() if _read_late(self.backward_program, places, slot)}
        sources_of_products = {source[0] for source, _, _ in self.weight_gradients}  # read when the loop is over
        late |= {over[g] for slot, g in written.items() if slot.buffer in sources_of_products}
        for _ in self.backward_program.scratch:
            buffers.new()
        self.backward_buffers = buffers.names
        self.backward_scratch = {s.buffer: s for s in self.backward_program.scratch}
        self.backward_times = {s.buffer: s for g, s in kept.items() if g not in over}
        self.backward_places = places
        return late

    def _source(self, a: Node, places: dict[Node, Slot], in_time: Callable[..., Slot]) -> Any:
        """Where the left side of a product stands for all steps: (buffer's name or number, offset, size)."""
        base, offset = a, 0
        if a.op == "view" and len(a.shape) == 1 and (a.attr[1][0] == 1 or a.size == 1):
            base, offset = a.args[0], a.attr[0]
        if base in places and places[base].mode == "time":
            return (places[base].buffer, offset, base.size, a.size)
        slot = in_time(a, "a", 0)
        return (slot.buffer, 0, a.size, a.size)

    def _build(self) -> None:
        writer = Writer(self.bits, machine(self.bits))
        programs = {"forward": (self.forward_program, len(self.forward_buffers))}
        if self.variant.backward:
            programs["backward"] = (self.backward_program, len(self.backward_buffers))
        names = ["pack"]
        for name, (program, num_buffers) in programs.items():
            writer.program(name, program, num_buffers, down=name == "backward")
            names.append(name)
            if _weight_of(program) >= _SHARED and not self.variant.stream:
                writer.program(name + "_shared", program, num_buffers, down=name == "backward", split=True)
                names.append(name + "_shared")
        writer.packing()
        self.text = writer.text(*target_text())
        self.code: Code = build(self.text, tuple(names))
        self.callers = {name: _Caller(self, *given) for name, given in programs.items()}

    # --- how it is run ---

    def call(self, name: str, arrays: Sequence[Tensor], num_steps: int, rows: int, imports: Sequence[Tensor]) -> None:
        """Run one function over all steps; nothing where torch only asks for the shapes."""
        if isinstance(arrays[0], FakeTensor):
            return
        caller = self.callers[name]
        threads = caller.threads(num_steps, rows)
        packed, weights = caller.packed(imports)
        counter = torch.zeros(1, dtype=torch.int64)
        most = most_threads()
        may_share = name + "_shared" in self.code.functions and rows <= _FEW and num_steps > 1 and most > 1
        share = may_share and caller.pace.share()
        if share:
            name, threads = name + "_shared", most
        pointers = [*[t.data_ptr() for t in arrays], *weights, counter.data_ptr()]
        data = caller.kind(threads, num_steps, rows, 0, *pointers)
        begin = time.perf_counter()
        caller.run(name, data, num_steps, rows, counter)
        if may_share:
            caller.pace.took(share, (time.perf_counter() - begin) / num_steps)
        del packed

    def caller(self, name: str, data: Any, threads: int) -> Callable[[], None]:
        """A call of one function with data that stays where it is."""
        if threads > 1:
            return partial(run, self.code, name, data, threads)
        return partial(self.code.functions[name], ctypes.addressof(data))

    def state_slots(self, program: Program) -> set[Slot]:
        """Slots of the program that depend on the state."""
        given = {s for n, s in program.places.items() if n.op == "leaf" and n.attr[0] not in ("s", "gs", "gy", "saved")}
        return set(program.places.values()) - given

    def torch_type(self, dtype: str) -> torch.dtype:
        """torch's type for one of the graph's kinds."""
        return _torch(dtype, self.dtype)

    def forward(
        self,
        imports: Sequence[Tensor],
        states: Sequence[Tensor],
        starts: dict[int, Tensor],
        alive: Tensor | None,
        reset: Tensor | None,
        num_steps: int,
        rows: int,
    ) -> tuple[list[Tensor], list[Tensor], dict[tuple[str, int], Tensor]]:
        """Outputs, last states, and what the backward part reads."""
        arrays: list[Tensor] = []
        held: dict[tuple[str, int], Tensor] = {}
        for number, (kind, index) in enumerate(self.forward_buffers):
            if kind in ("x", "p"):
                array = imports[index]
            elif kind == "c":
                array = starts[index]
            elif kind == "alive":
                assert alive is not None
                array = alive
            elif kind == "reset":
                assert reset is not None
                array = reset
            elif kind == "constant":
                array = states[index]
            elif kind == "states":
                first = states[index]
                count = num_steps + 1 if self.kept[index] else 2
                array = torch.empty((count, *first.shape), dtype=first.dtype)
                array[0].copy_(first)
            elif kind == "y":
                y = self.outputs[index]
                array = torch.empty((num_steps, rows, *y.shape), dtype=_torch(y.dtype, self.dtype))
            elif kind == "saved":
                array = torch.empty(
                    (num_steps, rows, *self.saved[index].shape), dtype=_torch(self.saved[index].dtype, self.dtype)
                )
            else:
                slot = self.forward_scratch[number]
                array = torch.empty((rows, slot.size), dtype=_torch(slot.dtype, self.dtype))
            arrays.append(array)
            held[kind, index] = array
        self.call("forward", arrays, num_steps, rows, imports)
        ys = [held["states", self.same[i]][1:] if i in self.same else held["y", i] for i in range(len(self.outputs))]
        last = []
        for j, first in enumerate(states):
            if self.constant[j]:
                last.append(first)
            else:
                array = held["states", j]
                last.append(array[-1 if self.kept[j] else _half(num_steps)])
        return ys, last, held

    def backward(
        self,
        held: dict[Any, Any],
        imports: Sequence[Tensor],
        gys: Sequence[Tensor | None],
        gstates: Sequence[Tensor | None],
        num_steps: int,
        rows: int,
    ) -> tuple[dict[int, Tensor], dict[int, Tensor], dict[int, Tensor]]:
        """Derivatives by imports, states and starts."""
        arrays: list[Tensor] = []
        for number, (kind, index) in enumerate(self.backward_buffers):
            if number in self.backward_times:
                slot = self.backward_times[number]
                array = torch.empty((num_steps, rows, slot.size), dtype=_torch(slot.dtype, self.dtype))
            elif kind == "gy":
                g = gys[index]
                shape = (num_steps, rows, *self.outputs[index].shape)
                array = torch.zeros(shape, dtype=self.dtype) if g is None else g.contiguous()
            elif kind == "gs":
                shape = self.states[index].shape
                array = torch.empty((2, rows, *shape), dtype=self.dtype)
                g = gstates[index]
                if g is None:
                    array[_half(num_steps)].zero_()
                else:
                    array[_half(num_steps)].copy_(g)
            elif kind == "sum":
                array = torch.zeros((rows, self.sum_sizes[number]), dtype=self.dtype)
            elif kind == "scratch":
                slot = self.backward_scratch[number]
                array = torch.empty((rows, slot.size), dtype=_torch(slot.dtype, self.dtype))
            else:
                array = held[kind, index]
            arrays.append(array)
        self.call("backward", arrays, num_steps, rows, imports)
        by_import: dict[int, Tensor] = {}
        by_start: dict[int, Tensor] = {}
        by_state: dict[int, Tensor] = {}
        for leaf, (how, number) in self.gradients.items():
            name, index = leaf.attr
            if how == "time":
                by_import[index] = arrays[number].reshape(num_steps, rows, *leaf.shape)
            elif name == "p":
                by_import[index] = (arrays[number].sum(0) if rows > 1 else arrays[number]).reshape(leaf.shape)
            else:
                by_start[index] = arrays[number].reshape(rows, *leaf.shape)
        for number, (kind, index) in enumerate(self.backward_buffers):
            if kind == "gs":
                by_state[index] = arrays[number][0]
        for (buffer, offset, size, width), weight, out in self.weight_gradients:
            a = arrays[buffer].reshape(-1, size)[: num_steps * rows, offset : offset + width]
            dz = arrays[out].reshape(num_steps * rows, -1)
            index, shape, start, strides = weight_place(weight)
            turned = strides[0] == 1 and strides[1] != 1
            dense = strides == ((1, shape[0]) if turned else (shape[1], 1))
            if index not in by_import and dense and start == 0 and shape[0] * shape[1] == imports[index].numel():
                by_import[index] = torch.mm(dz.t(), a) if turned else torch.mm(a.t(), dz)
                continue
            if index not in by_import:
                by_import[index] = torch.zeros_like(imports[index])
            view = by_import[index].as_strided(shape, strides, start)
            if turned:
                view.t().addmm_(dz.t(), a)
            else:
                view.addmm_(a.t(), dz)
        for number, table, out in self.table_gradients:
            index = table.attr[1]
            into = by_import.setdefault(index, torch.zeros_like(imports[index]))
            into.index_add_(0, arrays[number].flatten(), arrays[out].reshape(num_steps * rows, -1))
        return by_import, by_state, by_start

    @property
    def forward_keys(self) -> list[tuple[str, int]]:
        """What `forward` hands on to `backward`, in order."""
        return [key for key in dict.fromkeys(self.forward_buffers) if key[0] != "scratch"]

    def differentiable(self) -> tuple[set[int], set[int], set[int]]:
        """Imports, states and starts that `backward` finds a derivative by."""
        by_import = {weight_place(weight)[0] for _, weight, _ in self.weight_gradients}
        by_import |= {table.attr[1] for _, table, _ in self.table_gradients}
        by_import |= {leaf.attr[1] for leaf in self.gradients if leaf.attr[0] in ("x", "p")}
        by_start = {leaf.attr[1] for leaf in self.gradients if leaf.attr[0] == "c"}
        return by_import, {index for kind, index in self.backward_buffers if kind == "gs"}, by_start


class _Pace:
    """Whether threads had better share every step: faster on a quiet machine, slow beside others that keep them waiting.

    Both ways give the same numbers, so the faster one of late is taken, and the other is tried now and then.
    """

    def __init__(self) -> None:
        self.seconds: dict[bool, float] = {}
        self.calls = 0

    def share(self) -> bool:
        """For the next call."""
        self.calls += 1
        for way in (True, False):
            if way not in self.seconds:
                return way
        better = self.seconds[True] < self.seconds[False]
        return better if self.calls % 32 else not better

    def took(self, share: bool, seconds: float) -> None:
        """Seconds of a step, this way."""
        self.seconds[share] = 0.5 * (self.seconds.get(share, seconds) + seconds)


class _Caller:
    """What a call of one function needs besides the arrays.

    Args:
        plan: whose function.
        program: what it computes.
        num_buffers: arrays that it takes.
    """

    def __init__(self, plan: Plan, program: Program, num_buffers: int) -> None:
        self.code, self.dtype, self.program = plan.code, plan.dtype, program
        self.width, self.element = machine(plan.bits).panel, plan.bits // 8
        self.kind: Any = ctypes.c_int64 * (5 + num_buffers + len(program.weights))
        self.table: Any = ctypes.c_int64 * (1 + 6 * len(program.weights))
        self.weights = [weight_place(node) for node in program.weights]
        self.starts, self.size = [], 0
        for _, (k, n), _, _ in self.weights:
            self.starts.append(self.size * self.element)
            self.size += k * -(-n // self.width) * self.width
        self.work = _weight_of(program) + 50
        self.pace = _Pace()
        slots = _slots(program)
        self.effort = self.work + 20 * sum(slot.size for slot in slots)
        bytes_of = {BOOLEAN: 1, FLOAT: self.element}
        self.by_time = sorted({(s.buffer, s.size * bytes_of.get(s.dtype, 8)) for s in slots if s.mode == "time"})

    def threads(self, num_steps: int, rows: int) -> int:
        """As many as torch uses, unless the work is too small to share."""
        most = min(rows, num_steps * rows * self.work // 200_000)
        return max(1, min(most_threads(), most)) if most > 1 else 1

    def run(self, name: str, data: Any, num_steps: int, rows: int, counter: Tensor) -> None:
        """The function over all steps, in blocks that end soon, so that Ctrl-C is heard between them.

        Args:
            name: of the function; a name that begins with backward goes from the last block to the first.
            data: what it is given; the number of steps, of those before and the pointers change from block to block.
            num_steps, rows: T and B.
            counter: at which threads that share every step meet, zero at the start of a block.
        """
        block = max(1, _BLOCK // (-(-rows // 8) * self.effort))
        if num_steps <= block:
            run(self.code, name, data, data[0])
            return
        pointers = [data[4 + buffer] for buffer, _ in self.by_time]
        starts = range(0, num_steps, block)
        for start in reversed(starts) if name.startswith("backward") else starts:
            data[1], data[3] = min(block, num_steps - start), start
            for (buffer, bytes_of_row), pointer in zip(self.by_time, pointers):
                data[4 + buffer] = pointer + start * rows * bytes_of_row
            counter.zero_()
            run(self.code, name, data, data[0])

    def packed(self, imports: Sequence[Tensor]) -> tuple[Tensor | None, list[int]]:
        """Every weight (K, N) in panels of columns: the tensor that holds them all, and where each begins."""
        if not self.weights:
            return None, []
        into = torch.empty(self.size, dtype=self.dtype)
        base, table = into.data_ptr(), [len(self.weights)]
        pointers = [base + start for start in self.starts]
        for (index, (k, n), offset, (down, along)), pointer in zip(self.weights, pointers):
            table += (imports[index].data_ptr() + offset * self.element, pointer, k, n, down, along)
        data = self.table(*table)
        self.code.functions["pack"](ctypes.addressof(data))
        return into, pointers


def _slots(program: Program) -> set[Slot]:
    """Everything that a program reads or writes, the steps after the present one not told apart."""
    return {replace(slot, shift=0) for slot in slots_of(program)}


def _read_late(program: Program, given: dict[Node, Slot], slot: Slot) -> bool:
    """Whether something given in a slot may be read after something else was written there."""
    begun = False
    for stage in program.stages:
        found: set[Any] = set()

        def load(node: Node, where: Slot, index: Any, found: set[Any] = found) -> None:
            if where == slot and node in given:
                found.add(index)

        written: set[Any] = set()
        if isinstance(stage, Loop):
            evaluate = Evaluator(program.places, stage.shape, load, lambda *_: None)
            for store in stage.stores:
                (evaluate.define if store.defines else evaluate)(store.value, store.index(stage.shape))
                if store.slot == slot:
                    strides = tuple(s if n > 1 else 0 for s, n in zip(store.strides, stage.shape))
                    written.add((store.offset, strides))
        elif isinstance(stage, Reduce):
            evaluate = Evaluator(program.places, stage.value.shape, load, lambda *_: None)
            evaluate(stage.value, (0, contiguous(stage.value.shape)))
        elif isinstance(stage, Product):
            if slot in (stage.source, stage.start) and not begun:
                found.add("product")
            if stage.slot == slot:
                written.add("product")
        elif stage.slot == slot:
            written.add("zero")
        if isinstance(stage, Reduce) and stage.slot == slot:
            written.add("reduction")
        if (begun and found) or (written and not found <= written):
            return True
        begun = begun or bool(written)
    return False


def _half(num_steps: int) -> int:
    """Which half of a pair of states is the last one; any where torch only asks for the shapes and leaves sizes open."""
    return num_steps & 1 if isinstance(num_steps, int) else 0


def weight_place(weight: Node) -> tuple[int, tuple[int, ...], int, tuple[int, ...]]:
    """Import, shape, offset and strides of a weight."""
    if weight.op == "view":
        offset, strides = weight.attr
        own = tuple(s if n > 1 else 1 for n, s in zip(weight.shape, strides))
        return weight.args[0].attr[1], weight.shape, offset, own
    return weight.attr[1], weight.shape, 0, (weight.shape[1], 1)


def _torch(dtype: str, real: torch.dtype) -> torch.dtype:
    return {FLOAT: real, BOOLEAN: torch.bool}.get(dtype, torch.int64)


def _leaves(roots: Sequence[Node]) -> list[Node]:
    """Leaves that are read element by element (a weight is packed and needs none)."""
    return [node for node in reachable(roots, read_from) if node.op == "leaf"]


def weight_matrix(weight: Node, imports: Sequence[Tensor]) -> Tensor:
    """A weight (K, N) as a view of its import."""
    index, shape, offset, strides = weight_place(weight)
    whole = imports[index]
    return whole.as_strided(shape, strides, whole.storage_offset() + offset)
