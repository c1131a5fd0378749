"""A step on whole tensors as machine code, again and again: a loop over time in which everything may change."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from .autodiff import Unsupported
from .build import Code, build, machine, run, target_text
from .graph import BOOLEAN, FLOAT, Node, contiguous
from .llvm import Writer
from .lower import Evaluator, Loop, Matmul, Program, Reduce, Root, Slot, lower, slots_of
from .plan import _BLOCK, _leaves, _torch
from .whole import Step, capture_whole

_LONG = 40_000
"""Characters of a program from which on its loops are left rolled up, which builds in an eighth of the time."""


class Repeated:
    """A step, compiled. State goes around inside; inputs and outputs have a value for every step.

    Args:
        step: see `recurra.native.whole.capture_whole`.
        fixed, inputs, states: tensors of the right form, those of one step.
    Raises:
        Unsupported: something that has no native form.
    """

    def __init__(self, step: Step, fixed: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor]) -> None:
        self.whole = capture_whole(step, fixed, inputs, states)
        self.dtype = next(t.dtype for t in (*states, *inputs, *fixed) if t.is_floating_point())
        for new, old in zip(self.whole.states, self.whole.old):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise Unsupported(f"a state of {old.dtype} {old.shape} becomes one of {new.dtype} {new.shape}")
        self._lower()
        bits = 32 if self.dtype == torch.float32 else 64
        writer = Writer(bits, machine(bits), apart=True)
        writer.program("repeat", self.program, len(self.buffers), down=False)
        self.text = writer.text(*target_text())
        self.code: Code = build(self.text, ("repeat",), short=len(self.text) > _LONG)

    def _lower(self) -> None:
        whole = self.whole
        self.constant = [new is old for new, old in zip(whole.states, whole.old)]
        self.pairs = [False] * len(whole.old)  # states whose old value is still read when the new one has been written
        while True:
            places, roots = self._placed()
            self.program = lower(roots, places, len(self.buffers), late=True)
            fixed = [self.constant[i] or self.pairs[i] for i in range(len(whole.old))]
            late = [i for i, leaf in enumerate(whole.old) if not fixed[i] and _is_read_late(self.program, leaf)]
            if not late:
                break
            for i in late:
                self.pairs[i] = True
        self.scratch = {s.buffer: s for s in self.program.scratch}
        self.buffers += [("scratch", -1)] * len(self.program.scratch)
        slots = slots_of(self.program)
        bytes_of = {BOOLEAN: 1, FLOAT: 4 if self.dtype == torch.float32 else 8}
        self.by_time = sorted({(s.buffer, s.size * bytes_of.get(s.dtype, 8)) for s in slots if s.mode == "time"})
        self.effort = 50
        for stage in self.program.stages:
            if isinstance(stage, Matmul):
                self.effort += stage.m * stage.k * stage.n
            elif isinstance(stage, Loop):
                self.effort += 2 * prod(stage.shape) * len(stage.stores)
            elif isinstance(stage, Reduce):
                self.effort += 2 * stage.value.size

    def _placed(self) -> tuple[dict[Node, Slot], list[Root]]:
        """Where everything given stands, and what is to be stored where."""
        whole = self.whole
        self.buffers: list[tuple[str, int]] = []

        def new(kind: str, index: int) -> int:
            self.buffers.append((kind, index))
            return len(self.buffers) - 1

        places: dict[Node, Slot] = {}
        for i, leaf in enumerate(whole.old):
            mode = "fixed" if self.constant[i] else "parity" if self.pairs[i] else "row"
            places[leaf] = Slot(new("s", i), mode, leaf.size, leaf.dtype)
        for leaf in sorted(set(_leaves([*whole.states, *whole.outputs])), key=lambda n: n.number):
            name, index = leaf.attr
            if name != "s":
                places[leaf] = Slot(new(name, index), "time" if name == "x" else "fixed", leaf.size, leaf.dtype)
        roots = []
        for i, value in enumerate(whole.states):
            if not self.constant[i] and value.size:
                old = places[whole.old[i]]
                roots.append(Root(value, replace(old, shift=1 if self.pairs[i] else 0)))
        for i, value in enumerate(whole.outputs):
            if value.size:
                roots.append(Root(value, Slot(new("y", i), "time", value.size, value.dtype)))
        return places, roots

    def run(
        self, fixed: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], num_steps: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs (T, ...) and the last states; nothing that is given is changed.

        Args:
            fixed: do not change.
            inputs: leaves (T, ...).
            states: before the first step.
            num_steps: T.
        """
        arrays: list[Tensor] = []
        held: dict[tuple[str, int], Tensor] = {}
        for number, (name, index) in enumerate(self.buffers):
            if name == "x":
                array = inputs[index].contiguous()
            elif name == "p":
                array = fixed[index].contiguous()
            elif name == "k":
                array = self.whole.constants[index]
            elif name == "s" and self.constant[index]:
                array = states[index].contiguous()
            elif name == "s" and self.pairs[index]:
                array = torch.empty((2, *states[index].shape), dtype=states[index].dtype)
                array[0].copy_(states[index])
            elif name == "s":
                array = states[index].clone(memory_format=torch.contiguous_format)
            elif name == "y":
                node = self.whole.outputs[index]
                array = torch.empty((num_steps, *node.shape), dtype=_torch(node.dtype, self.dtype))
            else:
                slot = self.scratch[number]
                array = torch.empty(slot.size, dtype=_torch(slot.dtype, self.dtype))
            arrays.append(array)
            held[name, index] = array
        kind: Any = ctypes.c_int64 * (4 + len(arrays))
        block = max(1, _BLOCK // self.effort)
        for start in range(0, num_steps, block):
            pointers = [a.data_ptr() for a in arrays]
            for buffer, size in self.by_time:
                pointers[buffer] += start * size
            run(self.code, "repeat", kind(1, min(block, num_steps - start), 1, start, *pointers), 1)
        outputs = []
        for i, node in enumerate(self.whole.outputs):
            shape = (num_steps, *node.shape)
            outputs.append(held["y", i] if node.size else torch.zeros(shape, dtype=_torch(node.dtype, self.dtype)))
        last = []
        for i, old in enumerate(states):
            if self.constant[i]:
                last.append(old)
            else:
                last.append(held["s", i][num_steps & 1].clone() if self.pairs[i] else held["s", i])
        return outputs, last


class Together:
    """A `Repeated` and one of several of its steps at once, which reads and writes a large state once for all of them.

    Steps that are left over are taken one at a time.

    Args:
        one: of single steps.
        step, fixed, inputs, states: what ``one`` is made from.
        count: steps at once.
    """

    def __init__(
        self,
        one: Repeated,
        step: Step,
        fixed: Sequence[Tensor],
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        count: int = 2,
    ) -> None:
        def several(p: list[Tensor], x: list[Tensor], s: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            outputs = []
            for i in range(count):
                y, s = step(p, [given[i] for given in x], s)
                outputs += y
            return outputs, s

        self.one, self.count = one, count
        self.many = Repeated(several, fixed, [x.expand(count, *x.shape) for x in inputs], states)

    def run(
        self, fixed: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], num_steps: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See `Repeated.run`."""
        most = num_steps // self.count * self.count
        parts: list[list[Tensor]] = []
        if most:
            blocks = [x[:most].unflatten(0, (-1, self.count)) for x in inputs]
            found, states = self.many.run(fixed, blocks, states, most // self.count)
            each = len(found) // self.count
            parts.append([torch.stack(found[i::each], 1).flatten(0, 1) for i in range(each)])
        if most < num_steps or not most:
            rest, states = self.one.run(fixed, [x[most:] for x in inputs], states, num_steps - most)
            parts.append(rest)
        return [torch.cat(values) if len(values) > 1 else values[0] for values in zip(*parts)], list(states)


def _is_read_late(program: Program, leaf: Node) -> bool:
    """Whether a state may be read after something else was written where it stands."""
    slot = program.places[leaf]
    begun = False
    for stage in program.stages:
        read: set[Any] = set()
        written: set[Any] = set()

        def load(node: Node, where: Slot, index: Any, read: set[Any] = read) -> None:
            if where == slot and node is leaf:
                read.add(index)

        def look_up(node: Any, where: Slot, *_: Any, read: set[Any] = read) -> None:
            if where == slot and node is leaf:
                read.add("anywhere")

        def take(where: Slot, _: Any, read: set[Any] = read) -> None:
            if where == slot:
                read.add("anywhere")

        if isinstance(stage, Loop):
            evaluate = Evaluator(program.places, stage.shape, load, lambda *_: None, look_up, take)
            for store in stage.stores:
                (evaluate.define if store.defines else evaluate)(store.value, store.index(stage.shape))
                if store.slot == slot:
                    strides = tuple(s if n > 1 else 0 for s, n in zip(store.strides, stage.shape))
                    written.add((store.offset, strides))
        elif isinstance(stage, Reduce):
            evaluate = Evaluator(program.places, stage.value.shape, load, lambda *_: None, look_up, take)
            evaluate(stage.value, (0, contiguous(stage.value.shape)))
        elif isinstance(stage, Matmul) and slot in (stage.a[0], stage.b[0]):
            read.add("anywhere")
        if not isinstance(stage, Loop) and stage.slot == slot:
            written.add("everywhere")
        if (begun and read) or (written and not read <= written):
            return True
        begun = begun or bool(written)
    return False
