"""Stages as LLVM's intermediate language: text that becomes machine code at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .functions import exponential, hexadecimal, hyperbolic_tangent, logarithm, logarithm_of_more, sigmoid
from .graph import BOOLEAN, FLOAT, INTEGER, Node, contiguous
from .lower import Evaluator, Index, Loop, Matmul, Product, Program, Reduce, Slot, Stage, Zero, slots_of
from .matrices import matrix_function
from .products import product_function

_FUNCTIONS = {
    "exp": exponential,
    "tanh": hyperbolic_tangent,
    "sigmoid": sigmoid,
    "log": logarithm,
    "log1p": logarithm_of_more,
}

CHUNK = 48
"""Rows that one thread carries through a step together."""


@dataclass(frozen=True)
class Machine:
    """What decides the form of the code.

    Args:
        lanes: elements of a vector register.
        tile_rows, tile_vectors: of a product's register tile.
        pause: has x86's hint for loops that wait.
    """

    lanes: int
    tile_rows: int
    tile_vectors: int
    pause: bool = False

    @property
    def panel(self) -> int:
        """Columns of a packed weight that are computed together."""
        return self.lanes * self.tile_vectors


@dataclass(frozen=True)
class _Share:
    """Threads that work on the same rows.

    Args:
        threads: how many.
        tid: this one's number.
        counter: pointer to where they meet.
    """

    threads: str
    tid: str
    counter: str


class Writer:
    """Writes one module.

    Args:
        bits: 32 or 64, of a float.
        machine: registers.
        apart: say of every array that no other one shares its memory, so that LLVM moves what it reads out of loops.
    """

    def __init__(self, bits: int, machine: Machine, *, apart: bool = False) -> None:
        self.bits, self.machine = bits, machine
        self.real = "float" if bits == 32 else "double"
        self.suffix = "f" if bits == 32 else ""
        self.lines: list[str] = []
        self.functions: dict[str, str] = {}
        self.declared: set[str] = set()
        self.metadata: list[str] = []
        self.count = 0
        self.label = "entry"
        self.group: str | None = None
        self.apart = apart
        self.arrays: dict[str, tuple[int, int]] = {}  # pointer -> array, and steps after the present one
        self.scopes: dict[tuple[int, int], tuple[str, str]] = {}

    # --- text ---

    def name(self) -> str:
        """A new register."""
        self.count += 1
        return f"%v{self.count}"

    def put(self, text: str) -> None:
        """Write one line."""
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """Write one instruction; its result."""
        name = self.name()
        self.put(f"{name} = {text}")
        return name

    def block(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.label = label

    def note(self, text: str) -> str:
        """A line of metadata; its name."""
        self.metadata.append(text)
        return f"!{len(self.metadata) - 1}"

    def type_of(self, dtype: str) -> str:
        """In a register."""
        return {FLOAT: self.real, INTEGER: "i64", BOOLEAN: "i1"}[dtype]

    def stored(self, dtype: str) -> str:
        """In memory."""
        return "i8" if dtype == BOOLEAN else self.type_of(dtype)

    def add(self, a: str, b: str | int) -> str:
        """Sum of two indices."""
        if b in (0, "0"):
            return a
        if a == "0":
            return str(b)
        return self.let(f"add nsw i64 {a}, {b}")

    def times(self, a: str, b: str | int) -> str:
        """Product of two indices."""
        if b in (1, "1"):
            return a
        if b in (0, "0") or a == "0":
            return "0"
        if a == "1":
            return str(b)
        return self.let(f"mul nsw i64 {a}, {b}")

    @contextmanager
    def loop(self, start: str, stop: str, *, step: int | str = 1, parallel: bool = False, down: bool = False):  # type: ignore[no-untyped-def]
        """``for i in range(start, stop, step)``, at least once; or downward from stop - 1 to start."""
        self.count += 1
        tag = self.count
        before, head, last, after = self.label, f"head{tag}", f"latch{tag}", f"after{tag}"
        first = start
        if down:
            first = self.let(f"sub nsw i64 {stop}, 1")
        self.put(f"br label %{head}")
        self.block(head)
        i, following = f"%i{tag}", f"%n{tag}"
        self.put(f"{i} = phi i64 [ {first}, %{before} ], [ {following}, %{last} ]")
        outer = self.group
        if parallel:
            self.group = self.note("distinct !{}")
        yield i
        self.put(f"br label %{last}")
        self.block(last)
        if down:
            self.put(f"{following} = sub nsw i64 {i}, 1")
            self.put(f"%c{tag} = icmp sge i64 {following}, {start}")
        else:
            self.put(f"{following} = add nsw i64 {i}, {step}")
            self.put(f"%c{tag} = icmp slt i64 {following}, {stop}")
        hint = ""
        if parallel:
            accesses = self.note(f'!{{!"llvm.loop.parallel_accesses", {self.group}}}')
            number = len(self.metadata)
            self.metadata.append(f"distinct !{{!{number}, {accesses}}}")
            hint = f", !llvm.loop !{number}"
            self.group = outer
        self.put(f"br i1 %c{tag}, label %{head}, label %{after}{hint}")
        self.block(after)

    def load(self, pointer: str, index: str, dtype: str) -> str:
        """An element of an array."""
        kind = self.stored(dtype)
        at = self.let(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {index}")
        value = self.let(f"load {kind}, ptr {at}{self._notes(pointer)}")
        return self.let(f"icmp ne i8 {value}, 0") if dtype == BOOLEAN else value

    def store(self, value: str, pointer: str, index: str, dtype: str) -> None:
        """Write an element of an array."""
        kind = self.stored(dtype)
        if dtype == BOOLEAN:
            value = self.let(f"zext i1 {value} to i8")
        at = self.let(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {index}")
        self.put(f"store {kind} {value}, ptr {at}{self._notes(pointer)}")

    def _notes(self, pointer: str) -> str:
        """What is known of an access to an array."""
        notes = f", !llvm.access.group {self.group}" if self.group else ""
        scopes = self.scopes.get(self.arrays.get(pointer, (-1, 0)))
        return notes if scopes is None else notes + f", !alias.scope {scopes[0]}, !noalias {scopes[1]}"

    def _set_apart(self, slots: Iterable[Slot]) -> None:
        """A scope for each array; a step's halves of a pair, and values of two steps, are arrays of their own."""
        known = sorted({_array(slot) for slot in slots})
        domain = f"!{len(self.metadata)}"
        self.metadata.append(f"distinct !{{{domain}}}")
        names = []
        for _ in known:
            names.append(f"!{len(self.metadata)}")
            self.metadata.append(f"distinct !{{{names[-1]}, {domain}}}")
        for array, name in zip(known, names):
            others = ", ".join(n for n in names if n != name)
            self.scopes[array] = self.note(f"!{{{name}}}"), self.note(f"!{{{others}}}")

    def constant(self, text: str, dtype: str) -> str:
        """A number as LLVM writes it."""
        if dtype == FLOAT:
            return hexadecimal(float(text), self.bits)
        return ("true" if text == "True" else "false") if dtype == BOOLEAN else str(int(text))

    # --- elementary operations ---

    def call(self, function: str, *args: str) -> str:
        """A function of real numbers."""
        kinds = ", ".join(f"{self.real} {a}" for a in args)
        return self.let(f"call {self.real} @{function}({kinds})")

    def library(self, function: str, *args: str) -> str:
        """A function of the C library."""
        name = function + self.suffix
        self.declared.add(f"declare {self.real} @{name}({', '.join([self.real] * len(args))}) nounwind memory(none)")
        return self.call(name, *args)

    def intrinsic(self, function: str, *args: str) -> str:
        """One of LLVM's own functions of real numbers."""
        name = f"llvm.{function}.f{self.bits}"
        self.declared.add(f"declare {self.real} @{name}({', '.join([self.real] * len(args))})")
        return self.call(name, *args)

    def operate(self, node: Node, a: list[str]) -> str:
        """One elementwise operation."""
        op, kind = node.op, node.args[0].dtype if node.args else node.dtype
        if op == "const":
            return self.constant(node.attr[0], node.dtype)
        if op in ("stop", "copy"):
            return a[0]
        if op == "where":
            return self.let(f"select i1 {a[0]}, {self.type_of(node.dtype)} {a[1]}, {self.type_of(node.dtype)} {a[2]}")
        if op in ("and", "or"):
            return self.let(f"{op} i1 {a[0]}, {a[1]}")
        if op == "not":
            return self.let(f"xor i1 {a[0]}, true")
        if op == "cast":
            return self._cast(a[0], kind, node.dtype)
        if op in ("eq", "ne", "lt", "le", "gt", "ge"):
            if kind == FLOAT:
                prefix = "u" if op == "ne" else "o"
                return self.let(f"fcmp {prefix}{op} {self.real} {a[0]}, {a[1]}")
            code = op if op in ("eq", "ne") else ("u" if kind == BOOLEAN else "s") + op
            return self.let(f"icmp {code} {self.type_of(kind)} {a[0]}, {a[1]}")
        return self._float(op, a) if kind == FLOAT else self._integer(op, a, kind)

    def _cast(self, a: str, old: str, new: str) -> str:
        if old == new:
            return a
        if new == BOOLEAN:
            zero = "0.0" if old == FLOAT else "0"
            return self.let(f"fcmp une {self.real} {a}, {zero}" if old == FLOAT else f"icmp ne i64 {a}, {zero}")
        if new == FLOAT:
            return self.let(f"uitofp i1 {a} to {self.real}" if old == BOOLEAN else f"sitofp i64 {a} to {self.real}")
        return self.let(f"zext i1 {a} to i64" if old == BOOLEAN else f"fptosi {self.real} {a} to i64")

    def _integer(self, op: str, a: list[str], kind: str) -> str:
        t = self.type_of(kind)
        if op in ("add", "sub", "mul"):
            return self.let(f"{op} {t} {a[0]}, {a[1]}")
        if op == "neg":
            return self.let(f"sub {t} 0, {a[0]}")
        if op in ("max", "min", "abs"):
            other = self.let(f"sub {t} 0, {a[0]}") if op == "abs" else a[1]
            first = self.let(f"icmp s{'lt' if op == 'min' else 'gt'} {t} {a[0]}, {other}")
            return self.let(f"select i1 {first}, {t} {a[0]}, {t} {other}")
        if op in ("remainder", "floordiv"):  # rounded down, as in Python; a divisor of zero gives zero
            zero = self.let(f"icmp eq {t} {a[1]}, 0")
            by = self.let(f"select i1 {zero}, {t} 1, {t} {a[1]}")
            rest = self.let(f"srem {t} {a[0]}, {by}")
            mixed = self.let(f"xor {t} {rest}, {by}")
            negative = self.let(f"icmp slt {t} {mixed}, 0")
            some = self.let(f"icmp ne {t} {rest}, 0")
            wrong = self.let(f"and i1 {negative}, {some}")
            if op == "remainder":
                more = self.let(f"add {t} {rest}, {by}")
                return self.let(f"select i1 {wrong}, {t} {more}, {t} {rest}")
            whole_part = self.let(f"sdiv {t} {a[0]}, {by}")
            less = self.let(f"sub {t} {whole_part}, 1")
            return self.let(f"select i1 {wrong}, {t} {less}, {t} {whole_part}")
        if op == "sign":
            up, down = self.let(f"icmp sgt {t} {a[0]}, 0"), self.let(f"icmp slt {t} {a[0]}, 0")
            return self.let(f"sub i64 {self.let(f'zext i1 {up} to i64')}, {self.let(f'zext i1 {down} to i64')}")
        raise AssertionError(op)

    def _float(self, op: str, a: list[str]) -> str:
        r = self.real
        if op in ("add", "sub", "mul", "div"):
            return self.let(f"f{op} contract {r} {', '.join(a)}")
        if op == "neg":
            return self.let(f"fneg {r} {a[0]}")
        if op in ("max", "min"):  # NaN if one of both is
            first = self.let(f"fcmp {'ogt' if op == 'max' else 'olt'} {r} {a[0]}, {a[1]}")
            best = self.let(f"select i1 {first}, {r} {a[0]}, {r} {a[1]}")
            bad = self.let(f"fcmp uno {r} {a[0]}, {a[0]}")
            return self.let(f"select i1 {bad}, {r} {a[0]}, {r} {best}")
        if op == "abs":
            return self.intrinsic("fabs", a[0])
        if op in ("sqrt", "floor", "ceil", "trunc"):
            return self.intrinsic(op, a[0])
        if op == "round":
            return self.intrinsic("roundeven", a[0])
        if op == "sign":
            up, down = self.let(f"fcmp ogt {r} {a[0]}, 0.0"), self.let(f"fcmp olt {r} {a[0]}, 0.0")
            return self.let(f"fsub {r} {self.let(f'uitofp i1 {up} to {r}')}, {self.let(f'uitofp i1 {down} to {r}')}")
        if op == "remainder":
            rest = self.library("fmod", *a)  # of the sign of a; by a that of b, as in Python
            some = self.let(f"fcmp une {r} {rest}, 0.0")
            signs = [self.let(f"fcmp olt {r} {v}, 0.0") for v in (rest, a[1])]
            wrong = self.let(f"and i1 {some}, {self.let(f'xor i1 {signs[0]}, {signs[1]}')}")
            return self.let(f"select i1 {wrong}, {r} {self.let(f'fadd {r} {rest}, {a[1]}')}, {r} {rest}")
        if op == "floordiv":
            return self.intrinsic("floor", self.let(f"fdiv {r} {a[0]}, {a[1]}"))
        if op in ("exp", "tanh", "sigmoid") or (op in ("log", "log1p") and self.bits == 32):
            self._need(op)
            return self.call(f"recurra_{op}", a[0])
        return self.library(op, *a)

    def _need(self, function: str) -> None:
        if function == "sigmoid":
            self._need("exp")
        if function == "log1p":
            self._need("log")
        if function == "tanh" and self.bits == 64:
            self._need("exp")
        name = f"recurra_{function}"
        if name not in self.functions:
            self.functions[name] = ""
            inner = Writer(self.bits, self.machine)
            inner.functions, inner.declared = self.functions, self.declared
            result = _FUNCTIONS[function](inner)
            body = "\n".join(inner.lines)
            self.functions[name] = (
                f"define internal {self.real} @{name}({self.real} %x) alwaysinline nounwind {{\nentry:\n{body}\n"
                f"  ret {self.real} {result}\n}}"
            )

    # --- stages ---

    def address(self, slot: Slot, t: str, row: str) -> str:
        """Pointer to the row of a slot at a step."""
        place = self._address(slot, t, row)
        self.arrays[place] = _array(slot)
        return place

    def _address(self, slot: Slot, t: str, row: str) -> str:
        base = self.pointers[slot.buffer]
        if slot.mode == "fixed":
            return base
        index = row
        if slot.mode in ("time", "parity"):
            step = self.add(t, slot.shift)
            if slot.mode == "parity":
                step = self.let(f"and i64 {self.add(step, '%origin')}, 1")
            index = self.add(self.times(step, "%B"), row)
        return self.let(
            f"getelementptr inbounds {self.stored(slot.dtype)}, ptr {base}, i64 {self.times(index, slot.size)}"
        )

    def program(self, name: str, program: Program, num_buffers: int, *, down: bool, split: bool = False) -> None:
        """A function ``void name(i64* data)``.

        data holds the number of threads, T, B, the number of steps made before (its parity says which half of a pair of states
        is the present one), then pointers. Each thread carries rows of its own; with ``split``, all threads carry all rows
        together, each computes a part of every vector, and they wait for each other at a counter, the last pointer.
        """
        self.lines, self.label = [], "entry"
        self.declared |= {"declare i32 @omp_get_thread_num()", "declare i32 @omp_get_num_threads()"}
        header = f"define void @{name}(ptr noalias %data) #0 {{\nentry:"
        values = []
        for i in range(4 + num_buffers + len(program.weights) + split):
            at = self.let(f"getelementptr inbounds i64, ptr %data, i64 {i}")
            values.append(self.let(f"load {'i64' if i < 4 else 'ptr'}, ptr {at}"))
        asked, steps, batch, origin = values[:4]
        self.pointers = values[4 : 4 + num_buffers]
        self.weights = values[4 + num_buffers : 4 + num_buffers + len(program.weights)]
        if self.apart:
            self._set_apart(slots_of(program))
        self.put(f"%B = add i64 {batch}, 0")
        self.put(f"%origin = add i64 {origin}, 0")
        alone = self.let(f"icmp eq i64 {asked}, 1")  # called as a plain function, perhaps on one of somebody's threads
        team = self.let(f"sext i32 {self.let('call i32 @omp_get_num_threads()')} to i64")
        own = self.let(f"sext i32 {self.let('call i32 @omp_get_thread_num()')} to i64")
        threads = self.let(f"select i1 {alone}, i64 1, i64 {team}")
        tid = self.let(f"select i1 {alone}, i64 0, i64 {own}")
        some_steps = self.let(f"icmp sgt i64 {steps}, 0")
        if split:
            some_rows = self.let(f"icmp sgt i64 {batch}, 0")
            self.declared.add("declare i32 @sched_yield()")
            self.put("%meetings = alloca i64")
            self.put("store i64 0, ptr %meetings")
        else:
            begin = self.let(f"sdiv i64 {self.let(f'mul i64 {tid}, {batch}')}, {threads}")
            after = self.let(f"add i64 {tid}, 1")
            end = self.let(f"sdiv i64 {self.let(f'mul i64 {after}, {batch}')}, {threads}")
            some_rows = self.let(f"icmp slt i64 {begin}, {end}")
        self.put(f"br i1 {self.let(f'and i1 {some_rows}, {some_steps}')}, label %work, label %done")
        self.block("work")
        if split:
            share = _Share(threads, tid, values[-1])
            with self.loop("0", steps, down=down) as t:
                for stage in program.stages:
                    self._shared(stage, program, t, share)
                    self._meet(share)
        else:
            with self.loop(begin, end, step=CHUNK) as first:
                beyond = self.let(f"add i64 {first}, {CHUNK}")
                less = self.let(f"icmp slt i64 {beyond}, {end}")
                last = self.let(f"select i1 {less}, i64 {beyond}, i64 {end}")
                with self.loop("0", steps, down=down) as t:
                    for stage in program.stages:
                        self.stage(stage, program, t, first, last)
        self.put("br label %done")
        self.block("done")
        self.put("ret void")
        self.functions[name] = header + "\n" + "\n".join(self.lines) + "\n}"

    # --- threads that share every step ---

    def _shared(self, stage: Stage, program: Program, t: str, share: _Share) -> None:
        """A thread's part of one stage for all rows."""
        extent = 1
        if isinstance(stage, Product):
            extent = -(-stage.n // self.machine.panel)
        elif isinstance(stage, Loop) and stage.shape:
            extent = -(-stage.shape[0] // self.machine.lanes)
        if extent == 1:
            first, last = "0", "1"
            mine = self.let(f"icmp eq i64 {share.tid}, 0")
        else:
            first = self.let(f"sdiv i64 {self.let(f'mul i64 {share.tid}, {extent}')}, {share.threads}")
            after = self.let(f"mul i64 {self.let(f'add i64 {share.tid}, 1')}, {extent}")
            last = self.let(f"sdiv i64 {after}, {share.threads}")
            mine = self.let(f"icmp slt i64 {first}, {last}")
        self.count += 1
        tag = self.count
        self.put(f"br i1 {mine}, label %mine{tag}, label %past{tag}")
        self.block(f"mine{tag}")
        if isinstance(stage, Product):
            self._product(stage, t, "0", "%B", (first, last))
        elif isinstance(stage, Loop) and extent > 1:
            begin = self.times(first, self.machine.lanes)
            beyond = self.times(last, self.machine.lanes)
            less = self.let(f"icmp slt i64 {beyond}, {stage.shape[0]}")
            end = self.let(f"select i1 {less}, i64 {beyond}, i64 {stage.shape[0]}")
            with self.loop("0", "%B") as row:
                self._loop(stage, program, t, row, (begin, end))
        else:
            self.stage(stage, program, t, "0", "%B")
        self.put(f"br label %past{tag}")
        self.block(f"past{tag}")

    def _meet(self, share: _Share) -> None:
        """Wait until every thread is here."""
        self.count += 1
        tag = self.count
        met = self.let("load i64, ptr %meetings")
        wanted = self.let(f"add i64 {met}, {share.threads}")
        self.put(f"store i64 {wanted}, ptr %meetings")
        self.let(f"atomicrmw add ptr {share.counter}, i64 1 seq_cst")
        before = self.label
        self.put(f"br label %wait{tag}")
        self.block(f"wait{tag}")
        self.put(f"%turns{tag} = phi i64 [ 0, %{before} ], [ %more{tag}, %again{tag} ]")
        now = self.let(f"load atomic i64, ptr {share.counter} acquire, align 8")
        here = self.let(f"icmp sge i64 {now}, {wanted}")
        self.put(f"br i1 {here}, label %met{tag}, label %spin{tag}")
        self.block(f"spin{tag}")
        self.put(f"%more{tag} = add i64 %turns{tag}, 1")
        if self.machine.pause:
            self.declared.add("declare void @llvm.x86.sse2.pause()")
            self.put("call void @llvm.x86.sse2.pause()")
        patient = self.let(f"icmp slt i64 %turns{tag}, 1000")
        self.put(f"br i1 {patient}, label %again{tag}, label %give{tag}")
        self.block(f"give{tag}")  # the other one has perhaps no core to run on
        self.let("call i32 @sched_yield()")
        self.put(f"br label %again{tag}")
        self.block(f"again{tag}")
        self.put(f"br label %wait{tag}")
        self.block(f"met{tag}")

    def packing(self) -> None:
        """A function ``void pack(i64* data)`` that lays matrices out in panels of columns.

        data holds the number of matrices; for each, pointers to it and to its packed form, K, N, and the strides of both.
        """
        self.lines, self.label = [], "entry"
        panel = self.machine.panel
        count = self.let("load i64, ptr %data")
        with self.loop("0", count) as w:
            values = []
            for i in range(6):
                at = self.let(f"getelementptr i64, ptr %data, i64 {self.add(self.times(w, 6), 1 + i)}")
                values.append(self.let(f"load {'ptr' if i < 2 else 'i64'}, ptr {at}"))
            source, target, k, n, down, along = values
            panels = self.let(f"sdiv i64 {self.add(n, panel - 1)}, {panel}")
            with self.loop("0", panels) as p:
                first = self.times(p, panel)
                out = self.let(
                    f"getelementptr {self.real}, ptr {target}, i64 {self.let(f'mul i64 {self.times(p, panel)}, {k}')}"
                )
                rest = self.let(f"sub i64 {n}, {first}")
                less = self.let(f"icmp slt i64 {rest}, {panel}")
                left = self.let(f"select i1 {less}, i64 {rest}, i64 {panel}")
                start = self.let(f"mul i64 {first}, {along}")
                begin = self.let(f"getelementptr {self.real}, ptr {source}, i64 {start}")
                self.count += 1
                tag = self.count
                dense = self.let(f"icmp eq i64 {along}, 1")
                self.put(f"br i1 {dense}, label %rows{tag}, label %columns{tag}")

                def copy(i: str, j: str, stride: str) -> None:
                    there = self.add(
                        self.let(f"mul i64 {i}, {down}"), j if stride == "1" else self.let(f"mul i64 {j}, {stride}")
                    )
                    value = self.load(begin, there, FLOAT)
                    self.store(value, out, self.add(self.times(i, panel), j), FLOAT)

                self.block(f"rows{tag}")
                with self.loop("0", k) as i, self.loop("0", left, parallel=True) as j:
                    copy(i, j, "1")
                self.put(f"br label %fill{tag}")
                self.block(f"columns{tag}")
                with self.loop("0", left) as j, self.loop("0", k) as i:
                    copy(i, j, along)
                self.put(f"br label %fill{tag}")
                self.block(f"fill{tag}")
                self.put(f"br i1 {less}, label %zeros{tag}, label %filled{tag}")
                self.block(f"zeros{tag}")
                with self.loop(left, str(panel)) as j, self.loop("0", k) as i:
                    self.store(self.constant("0.0", FLOAT), out, self.add(self.times(i, panel), j), FLOAT)
                self.put(f"br label %filled{tag}")
                self.block(f"filled{tag}")
        self.put("ret void")
        self.functions["pack"] = "define void @pack(ptr noalias %data) #0 {\nentry:\n" + "\n".join(self.lines) + "\n}"

    def stage(self, stage: Stage, program: Program, t: str, first: str, last: str) -> None:
        """One stage for the rows from first to last."""
        if isinstance(stage, Product):
            self._product(stage, t, first, last)
            return
        with self.loop(first, last) as row:
            if isinstance(stage, Zero):
                at = self.address(stage.slot, t, row)
                with self.loop("0", str(stage.slot.size), parallel=True) as i:
                    zero = self.constant("False" if stage.slot.dtype == BOOLEAN else "0", stage.slot.dtype)
                    self.store(zero, at, i, stage.slot.dtype)
            elif isinstance(stage, Loop):
                self._loop(stage, program, t, row)
            elif isinstance(stage, Matmul):
                self._matmul(stage, t, row)
            else:
                self._reduce(stage, program, t, row)

    def _loader(self, t: str, row: str, variables: Sequence[str]) -> Callable[[Node, Slot, Index], str]:
        known: dict[Slot, str] = {}

        def load(_: Node, slot: Slot, index: Index) -> str:
            # addresses are computed again in the body; LLVM moves them out of the loop
            if slot not in known:
                known[slot] = self.address(slot, t, row)
            return self.load(known[slot], self._index(index, variables), slot.dtype)

        return load

    def _gatherer(self, t: str, row: str, variables: Sequence[str]) -> Callable[[Node, Slot, str, Index], str]:
        def gather(table: Node, slot: Slot, number: str, index: Index) -> str:
            place = self.add(self.times(number, table.shape[1]), self._index(index, variables))
            return self.load(self.address(slot, t, row), place, slot.dtype)

        return gather

    def _taker(self, t: str, row: str) -> Callable[[Slot, str], str]:
        return lambda slot, place: self.load(self.address(slot, t, row), place, slot.dtype)

    def _index(self, index: Index, variables: Sequence[str]) -> str:
        place = str(index[0])
        for v, stride in zip(variables, index[1]):
            place = self.add(self.times(v, stride), place)
        return place

    def _loop(self, stage: Loop, program: Program, t: str, row: str, part: tuple[str, str] | None = None) -> None:
        """One loop of a row; ``part``: from where to where in its first dimension."""
        targets = {s.slot: self.address(s.slot, t, row) for s in stage.stores}
        variables: list[str] = []

        def nest(d: int) -> None:
            if d < len(stage.shape):
                first, last = part if part is not None and d == 0 else ("0", str(stage.shape[d]))
                with self.loop(first, last, parallel=d == len(stage.shape) - 1) as v:
                    variables.append(v)
                    nest(d + 1)
                return
            evaluate = Evaluator(
                program.places,
                stage.shape,
                self._loader(t, row, variables),
                self.operate,
                self._gatherer(t, row, variables),
                self._taker(t, row),
            )
            values = []
            for store in stage.stores:
                compute = evaluate.define if store.defines else evaluate
                value = compute(store.value, store.index(stage.shape))
                index = self._index((store.offset, store.strides), variables)
                if store.add:
                    old = self.load(targets[store.slot], index, store.slot.dtype)
                    value = self.let(f"fadd {self.real} {old}, {value}")
                values.append((value, index))
            for store, (value, index) in zip(stage.stores, values):  # all is read before anything is written
                self.store(value, targets[store.slot], index, store.slot.dtype)

        nest(0)

    def _reduce(self, stage: Reduce, program: Program, t: str, row: str) -> None:
        shape, dims = stage.value.shape, stage.dims
        kept = [d for d in range(len(shape)) if d not in dims]
        strides = contiguous(shape)
        target = self.address(stage.slot, t, row)
        variables: dict[int, str] = {}
        real = self.type_of(stage.value.dtype)
        out_strides = contiguous([shape[d] for d in kept])

        def value() -> str:
            ordered = [variables[d] for d in range(len(shape))]
            evaluate = Evaluator(
                program.places,
                shape,
                self._loader(t, row, ordered),
                self.operate,
                self._gatherer(t, row, ordered),
                self._taker(t, row),
            )
            return str(evaluate(stage.value, (0, strides)))

        def inner(i: int, total: str) -> str:
            """The reduction over the dimensions from the i-th on, beginning with a total."""
            if i == len(dims):
                new = value()
                if stage.what == "sum":
                    flags = "reassoc contract " if stage.value.dtype == FLOAT else ""
                    code = "fadd" if stage.value.dtype == FLOAT else "add"
                    return self.let(f"{code} {flags}{real} {total}, {new}")
                return (
                    self._float(stage.what, [new, total])
                    if stage.value.dtype == FLOAT
                    else self._integer(stage.what, [new, total], stage.value.dtype)
                )
            self.count += 1
            tag = self.count
            before = self.label
            self.put(f"br label %rhead{tag}")
            self.block(f"rhead{tag}")
            self.put(f"%ri{tag} = phi i64 [ 0, %{before} ], [ %rn{tag}, %rlatch{tag} ]")
            self.put(f"%ra{tag} = phi {real} [ {total}, %{before} ], [ %rs{tag}, %rlatch{tag} ]")
            variables[dims[i]] = f"%ri{tag}"
            result = inner(i + 1, f"%ra{tag}")
            body = self.label
            self.put(f"br label %rlatch{tag}")
            self.block(f"rlatch{tag}")
            self.put(f"%rs{tag} = phi {real} [ {result}, %{body} ]")
            self.put(f"%rn{tag} = add nsw i64 %ri{tag}, 1")
            self.put(f"%rc{tag} = icmp slt i64 %rn{tag}, {shape[dims[i]]}")
            self.put(f"br i1 %rc{tag}, label %rhead{tag}, label %rafter{tag}")
            self.block(f"rafter{tag}")
            return f"%rs{tag}"

        def outer(i: int) -> None:
            if i < len(kept):
                with self.loop("0", str(shape[kept[i]])) as v:
                    variables[kept[i]] = v
                    outer(i + 1)
                return
            if stage.value.dtype == FLOAT:
                start = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}[stage.what]
                zero = hexadecimal(start, self.bits)
            else:
                zero = {"sum": "0", "max": str(-(2**63)), "min": str(2**63 - 1)}[stage.what]
            result = inner(0, zero)
            place = self._index((0, out_strides), [variables[d] for d in kept])
            self.store(result, target, place, stage.slot.dtype)

        outer(0)

    def _matmul(self, stage: Matmul, t: str, row: str) -> None:
        pointers = []
        for slot, offset, _ in (stage.a, stage.b, (stage.slot, 0, ())):
            base = self.address(slot, t, row)
            pointers.append(self.let(f"getelementptr inbounds {self.real}, ptr {base}, i64 {offset}"))
        name = matrix_function(self, stage.m, stage.k, stage.n, stage.a[2], stage.b[2][0])
        self.put(f"call void @{name}({', '.join(f'ptr {p}' for p in pointers)})")

    def _product(self, stage: Product, t: str, first: str, last: str, panels: tuple[str, str] | None = None) -> None:
        """A product for the rows from first to last; ``panels``: only these columns of the packed weight."""
        source, target = self.address(stage.source, t, first), self.address(stage.slot, t, first)
        source = self.let(f"getelementptr inbounds {self.real}, ptr {source}, i64 {stage.offset}")
        rows = self.let(f"sub nsw i64 {last}, {first}")
        begin, stride = "null", 0
        if stage.start is not None:
            begin = self.address(stage.start, t, first)
            stride = 0 if stage.start.mode == "fixed" else stage.start.size
        name = product_function(self, stage.k, stage.n, start=stage.start is not None)
        low, high = panels or ("0", str(-(-stage.n // self.machine.panel)))
        self.put(
            f"call void @{name}(ptr {source}, i64 {stage.source.size}, ptr {self.weights[stage.weight]}, "
            f"ptr {target}, i64 {stage.slot.size}, ptr {begin}, i64 {stride}, i64 {rows}, i64 {low}, i64 {high})"
        )

    def text(self, features: str, processor: str) -> str:
        """The whole module."""
        attributes = (
            f'attributes #0 = {{ nounwind "target-cpu"="{processor}" "target-features"="{features}" '
            f'"prefer-vector-width"="{self.machine.lanes * self.bits}" }}'
        )
        notes = [f"!{i} = {text}" for i, text in enumerate(self.metadata)]
        return "\n".join([*sorted(self.declared), *self.functions.values(), attributes, *notes, ""])


def _array(slot: Slot) -> tuple[int, int]:
    return slot.buffer, slot.shift if slot.mode in ("time", "parity") else 0
