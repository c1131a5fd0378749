"""Functions in C that share one state, and the constants that they read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell, StochasticCell, quiet
from ..core.checks import sentence
from ..core.spec import Leaf, zeros
from ..core.tree import Tree
from ..engines.native import stream_plan
from ..native.c import HELPERS, LIBRARY, Array, CWriter, number
from ..native.graph import BOOLEAN, FLOAT, INTEGER
from ..native.lower import Evaluator, Loop, Product, Program, Reduce, Slot, Stage, whole
from ..native.plan import weight_place
from .bytes import Bytes, imports_in_bytes

WHERE = "to_c"
_KINDS = {torch.float32: FLOAT, torch.int64: INTEGER, torch.bool: BOOLEAN}
_TYPES = {FLOAT: "float", INTEGER: "int64_t", BOOLEAN: "uint8_t"}
_GIVEN = {FLOAT: "float", INTEGER: "int32_t", BOOLEAN: "uint8_t"}
_WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true false
    asm class new delete this template typename namespace operator private protected public virtual friend using try
    catch throw and or not xor main NULL INFINITY NAN
"""
KEYWORDS = frozenset(_WORDS.split())
"""Words that are no names in C, or in C++, which may read the header."""
_USED = "s x y token turn scratch scratch_whole scratch_flags i j k l m n p q r t B T"
_TAKEN = KEYWORDS | frozenset(_USED.split()) | HELPERS | LIBRARY | {f"{name}f" for name in LIBRARY}
_NUMBERED = re.compile(r"(v|z|total)\d+")
"""Names that a leaf of the state may not have in C."""


def identifier(text: str) -> str:
    """The text as a name in C."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII).strip("_") or "value"
    return f"part{name}" if name[0].isdigit() else name


@dataclass(frozen=True)
class Field:
    """A leaf of the state.

    Args:
        name: in C.
        shape, dtype: of one row.
        start: its first value.
        turns: it changes, and so there are two: the present one and the next.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: Tensor
    turns: bool

    @property
    def size(self) -> int:
        """Elements."""
        return self.start.numel()


@dataclass(frozen=True)
class Parameter:
    """An argument of a function in C.

    Args:
        name: in C.
        size: elements.
        dtype: the graph's.
        single: a number by value.
        words: what it is, for the comment.
        limit: for whole numbers: one more than the largest, where that is known.
    """

    name: str
    size: int
    dtype: str
    single: bool = False
    words: str = ""
    limit: int | None = None


@dataclass
class Step:
    """One function: a traced step and the numbers that it reads.

    Args:
        name: of the function, without the prefix.
        job: see `recurra.engines.native.stream_plan`.
        imports: what the step reads besides input and state, as it is.
        used: the same as it is stored, with 8-bit matrices rounded.
        inputs, outputs: its arguments.
    """

    name: str
    job: Any
    imports: list[Tensor]
    used: list[Tensor]
    inputs: list[Parameter]
    outputs: list[Parameter]
    stored: dict[int, Bytes] = field(default_factory=dict)
    public: bool = True

    def run(
        self, xs: Sequence[Tensor], states: Sequence[Tensor], *, rounded: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The same step in torch, with the weights as they are or as they are stored.

        Args:
            xs, states: leaves (B, ...).
            rounded: as they are stored.
        """
        plan = self.job.plan
        rows = int((*xs, *states)[0].shape[0])
        first = len(self.job.names)
        given = {k: xs[n - first] for k, n in plan.traced.placeholders() if first <= n < first + len(xs)}
        imports = [given.get(k, value) for k, value in enumerate(self.used if rounded else self.imports)]
        ys, new = plan.traced.step(imports, states, rows)
        return list(ys), list(new)


class Source:
    """The C text of one network.

    Args:
        name: prefix of everything with external linkage, and of the files.
        bits: of a weight, 32 or 8.
    """

    def __init__(self, name: str, bits: int) -> None:
        self.name, self.bits = name, bits
        self.writer = CWriter(32)
        self.fields: list[Field] = []
        self.scratch: dict[str, int] = {}
        self.constants: dict[tuple[str, bytes], str] = {}
        self.taken = {
            f"{name}_{word}" for word in ("step", "reset", "state", "forecast", "token", "words", "code_points")
        }
        self.data: list[str] = []
        self.data_bytes = 0
        self.functions: list[str] = []
        self.prototypes: list[str] = []
        self.macros: list[tuple[str, int, str]] = []
        self.steps: list[Step] = []
        self.more_fields: list[str] = []
        self.more_bytes = 0
        self.public_reset = True
        self.state_like: Tree = None

    # --- constants ---

    def constant(self, values: Tensor, hint: str, words: str = "") -> str:
        """A constant array; equal ones are stored once.

        Args:
            values: float32, int8, int64 or bool.
            hint: the beginning of its name.
            words: a comment.
        """
        flat = values.detach().contiguous().cpu().reshape(-1)
        kind = {torch.int8: "int8_t", torch.float32: "float", torch.int64: "int64_t", torch.bool: "uint8_t"}[flat.dtype]
        key = (kind, flat.numpy().tobytes())
        if key not in self.constants:
            name = self._unique(f"{self.name}_{identifier(hint)}")
            self.constants[key] = name
            comment = f"/* {words} */\n" if words else ""
            self.data.append(f"{comment}static const {kind} {name}[{max(1, flat.numel())}] = {{\n{_rows(flat)}\n}};")
            self.data_bytes += flat.numel() * flat.element_size()
        return self.constants[key]

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found

    # --- functions ---

    def add(
        self,
        name: str,
        cell: Cell,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        words: str = "",
        *,
        public: bool = True,
        state: Tree = None,
    ) -> Step:
        """A function that makes one step of a cell; all functions have the same state.

        Args:
            name: of the function, without the prefix.
            cell: in evaluation mode, float32.
            inputs, outputs: names of their leaves; None for names from their specs.
            words: what the function does.
            public: for others than this file.
            state: from which a stream begins, leaves (1, ...); None for the cell's own.
        Raises:
            ValueError: it cannot be written; the sentence says why.
        """
        with torch.no_grad():
            x = zeros(cell.input_spec, 1, dtype=torch.float32, device=cell.device)
            state = cell.initial_state(1) if state is None else state
            given = quiet(x) if isinstance(cell, StochasticCell) else x
            job = stream_plan(cell, given, state, compiled=False)
        if isinstance(job, str):
            want = "one whose step has a form in C"
            raise ValueError(sentence(WHERE, "the model", want, f"one that has none ({job})"))
        plan = job.plan
        xs, parameters = tree.leaves(x), job.parameters(cell)
        with torch.no_grad():
            imports = [t.detach().contiguous() for t in plan.traced.before(parameters, xs)]
        program = plan.forward_program
        stored = imports_in_bytes(program, imports) if self.bits == 8 else {}
        used = [stored[k].value if k in stored else value for k, value in enumerate(imports)]
        step = Step(name, job, imports, used, *self._arguments(cell, plan, xs, inputs, outputs), stored, public)
        self._merge_fields(state, plan)
        self.steps.append(step)
        self._write(step, program, words)
        return step

    def _arguments(
        self, cell: Cell, plan: Any, xs: list[Tensor], inputs: Sequence[str] | None, outputs: Sequence[str] | None
    ) -> tuple[list[Parameter], list[Parameter]]:
        specs = tree.leaves(cell.input_spec)
        names = _leaf_names(cell.input_spec, "x") if inputs is None else list(inputs)
        found = []
        for name, spec, leaf in zip(names, specs, xs):
            kind = _KINDS[leaf.dtype]
            limit = int(spec.high) if kind == INTEGER and isinstance(spec, Leaf) and spec.high is not None else None
            if inputs is None and name == "x" and limit is not None and not spec.shape:
                name = "token"
            found.append(Parameter(name, leaf[0].numel(), kind, not spec.shape, _shape(spec.shape), limit))
        like = cell.output_spec
        names = _leaf_names(like, "y") if outputs is None else list(outputs)
        results = [Parameter(n, y.size, y.dtype, words=_shape(y.shape)) for n, y in zip(names, plan.outputs)]
        return found, results

    def _merge_fields(self, state: Tree, plan: Any) -> None:
        leaves = tree.leaves(state)
        names = [f"{n}_state" if n in _TAKEN or _NUMBERED.fullmatch(n) else n for n in _leaf_names(state, "h")]
        if not self.steps:
            self.state_like = tree.map(lambda _: 0, state)
            self.fields = [
                Field(n, tuple(leaf.shape[1:]), _KINDS[leaf.dtype], leaf[0].detach().clone(), not fixed)
                for n, leaf, fixed in zip(names, leaves, plan.constant)
            ]
            return
        before = [f.shape for f in self.fields]
        assert before == [tuple(leaf.shape[1:]) for leaf in leaves], "functions of one network have one state"
        if any(not torch.equal(f.start, leaf[0]) for f, leaf in zip(self.fields, leaves)):
            want = "nets that begin from the same state"
            raise ValueError(sentence(WHERE, "the model", want, "nets with learned states of their own"))
        turning = [f.turns or not fixed for f, fixed in zip(self.fields, plan.constant)]
        assert turning == [f.turns for f in self.fields], "the first function changes what any function changes"

    def _write(self, step: Step, program: Program, words: str) -> None:
        plan = step.job.plan
        offsets = _allocate(program)
        for kind, (_, size) in offsets.items():
            self.scratch[kind] = max(self.scratch.get(kind, 0), size)
        inputs = {n - len(step.job.names): k for k, n in plan.traced.placeholders()}
        by_import = {inputs[i]: p for i, p in enumerate(step.inputs) if i in inputs}
        writer, arrays = self.writer, dict[Slot, Array]()
        locals_ = _Locals([*_TAKEN, *(p.name for p in (*step.inputs, *step.outputs))])
        present = "s->turn"

        def make(slot: Slot) -> Array:
            if slot.buffer >= len(plan.forward_buffers):
                raise ValueError(sentence(WHERE, "the plan", "one whose arrays are known", f"array {slot.buffer}"))
            kind, index = plan.forward_buffers[slot.buffer]
            if kind == "x":
                given = by_import[index]
                return Array(given.name, single=given.single)
            if kind == "p":
                return self._table(step, index)
            if kind == "constant":
                place = self.fields[index]
                text = f"s->{place.name}[{present}]" if place.turns else f"s->{place.name}"
                return Array(locals_.put(place.name, f"const {_TYPES[slot.dtype]} *const", text))
            if kind == "states":
                name = self.fields[index].name
                if slot.shift == 0:
                    return Array(locals_.put(name, f"const {_TYPES[slot.dtype]} *const", f"s->{name}[{present}]"))
                return Array(locals_.put(f"{name}_next", f"{_TYPES[slot.dtype]} *const", f"s->{name}[1 - {present}]"))
            if kind == "y":
                return Array(step.outputs[index].name)
            offset = offsets[slot.dtype][0][slot.buffer]
            field_name = _scratch_name(slot.dtype)
            text = f"s->{field_name} + {offset}" if offset else f"s->{field_name}"
            return Array(locals_.put(f"z{slot.buffer}", f"{_TYPES[slot.dtype]} *const", text))

        def place(slot: Slot) -> Array:
            if slot not in arrays:
                arrays[slot] = make(slot)
            return arrays[slot]

        def note(stage: Stage) -> str:
            return (
                f"product with {self._weight_words(step, program, stage.weight)}" if isinstance(stage, Product) else ""
            )

        writer.stages(program, place, lambda k: self._weight(step, program, k), note)
        body = writer.take()
        text = "\n".join(line for line in body if "/*" not in line)
        arguments = [f"{self.name}_state *s"]
        for p in step.inputs:
            arguments.append(f"{_GIVEN[p.dtype]} {p.name}" if p.single else f"const {_GIVEN[p.dtype]} *{p.name}")
        arguments += [f"{_TYPES[p.dtype]} *{p.name}" for p in step.outputs]
        if step.public:
            head = f"void {self.name}_{step.name}({', '.join(arguments)})"
        else:
            head = f"static void {step.name}({', '.join(arguments)})"
        unused = [p.name for p in step.inputs if not re.search(rf"\b{p.name}\b", text)]
        changes = any(not fixed for fixed in plan.constant)
        lines = [head, "{", *locals_.lines, *(f"    (void){name};" for name in unused)]
        if not locals_.lines and not changes and "s->" not in text:
            lines.append("    (void)s;")
        lines += body
        if changes:
            lines.append("    s->turn = (uint8_t)(1 - s->turn);")
        self.functions.append("\n".join([*lines, "}"]))
        if step.public:
            self.prototypes.append("\n".join([*_comment(words, step), f"{head};"]))

    # --- weights ---

    def _import_name(self, step: Step, index: int) -> str:
        order = dict(step.job.plan.traced.placeholders())
        return identifier(step.job.names[order[index]]) if index in order else f"computed{index}"

    def _table(self, step: Step, index: int) -> Array:
        """A constant that is read element by element."""
        value, name = step.imports[index], self._import_name(step, index)
        if index in step.stored:
            kept = step.stored[index]
            scale = self.constant(kept.scale, f"{name}_scale")
            return Array(self.constant(kept.numbers, name, f"{name} {_dims(value)}, 8 bits"), scale, value.shape[-1])
        return Array(self.constant(value, name, f"{name} {_dims(value)}"))

    def _weight_words(self, step: Step, program: Program, number: int) -> str:
        index, shape, _, _ = weight_place(program.weights[number])
        return f"{self._import_name(step, index)}, {shape[0]} x {shape[1]}"

    def _weight(self, step: Step, program: Program, place: int) -> Array:
        """The right side of a product."""
        index, shape, offset, strides = weight_place(program.weights[place])
        name = self._import_name(step, index)
        words = f"{name} as a right side, {shape[0]} x {shape[1]}"
        if index not in step.stored:
            return Array(self.constant(step.imports[index].as_strided(shape, strides, offset), name, words))
        kept = step.stored[index]
        scale = kept.scale.expand(kept.numbers.reshape(-1, kept.numbers.shape[-1]).shape).contiguous()
        columns = scale.as_strided(shape, strides, offset)[0]
        array = self.constant(kept.numbers.as_strided(shape, strides, offset), name, words)
        return Array(array, self.constant(columns.clone(), f"{name}_scale", f"of each column of {array}"))

    # --- whole files ---

    @property
    def state_bytes(self) -> int:
        """Memory of one stream, without what a compiler adds for alignment."""
        width = {FLOAT: 4, INTEGER: 8, BOOLEAN: 1}
        states = sum(width[f.dtype] * f.size * (1 + f.turns) for f in self.fields)
        return states + sum(width[k] * n for k, n in self.scratch.items()) + 1 + self.more_bytes

    def state_text(self) -> list[str]:
        """The struct."""
        lines = ["typedef struct {", *(f"    {text}" for text in self.more_fields)]
        for f in self.fields:
            size = max(1, f.size)
            both = "[2]" if f.turns else ""
            words = _shape(f.shape)
            lines.append(f"    {_TYPES[f.dtype]} {f.name}{both}[{size}]; /* {words}{', present and next' * f.turns} */")
        for kind, size in self.scratch.items():
            if size:
                lines.append(f"    {_TYPES[kind]} {_scratch_name(kind)}[{size}]; /* of one step */")
        return [*lines, "    uint8_t turn; /* which of two states is the present one */", f"}} {self.name}_state;"]

    def reset_text(self) -> str:
        """The function that begins a stream."""
        head = f"void {self.name}_reset" if self.public_reset else "static void begin"
        lines = [f"{head}({self.name}_state *s)", "{"]
        for f in self.fields:
            if not f.size:
                continue
            start = f.start.reshape(-1)
            first = start[0].item()
            if bool((start == first).all()):
                value = number(float(first)) if f.dtype == FLOAT else str(int(first))
            else:
                value = self.constant(f.start, f"start_{f.name}", f"the first value of {f.name}") + "[i]"
            target = f"s->{f.name}[0][i]" if f.turns else f"s->{f.name}[i]"
            lines += [f"    for (size_t i = 0; i < {f.size}; ++i) {{", f"        {target} = {value};", "    }"]
        return "\n".join([*lines, "    s->turn = 0;", "}"])


class _Locals:
    """Pointers at the beginning of a function.

    Args:
        taken: names that they may not have.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.taken = set(taken)

    def put(self, name: str, kind: str, value: str) -> str:
        """A pointer's name, as near to the wanted one as may be."""
        if value not in self.names:
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            self.names[value] = name
            self.lines.append(f"    {kind} {name} = {value};")
        return self.names[value]


def _leaf_names(like: Tree, only: str) -> list[str]:
    """A name in C for each leaf; ``only`` for a bare one."""
    names = tree.names(like)
    if names == [""]:
        return [only]
    return [identifier(f"{only}_{n}" if only in ("x", "y") else n) for n in names]


def _scratch_name(dtype: str) -> str:
    return {FLOAT: "scratch", INTEGER: "scratch_whole", BOOLEAN: "scratch_flags"}[dtype]


def _shape(shape: Sequence[Any]) -> str:
    return " x ".join(str(n) for n in shape) if shape else "1"


def _dims(value: Tensor) -> str:
    return f"({_shape(value.shape)})"


def _comment(words: str, step: Step) -> list[str]:
    lines = [f"/* {words}"] if words else ["/*"]
    for p in (*step.inputs, *step.outputs):
        limit = f", from 0 to {p.limit - 1}; any other number counts as 0" if p.limit is not None else ""
        lines.append(f"   {p.name}: {p.words}{limit}")
    lines[-1] += " */"
    return lines


def _rows(flat: Tensor) -> str:
    if not flat.numel():
        return "    0"
    if flat.dtype == torch.float32:
        texts, wide = [number(v) for v in flat.tolist()], 8
    else:
        texts, wide = [str(int(v)) for v in flat.tolist()], 24
    lines = [", ".join(texts[i : i + wide]) for i in range(0, len(texts), wide)]
    return ",\n".join("    " + line for line in lines)


def _allocate(program: Program) -> dict[str, tuple[dict[int, int], int]]:
    """Where each scratch array begins in the common one of its kind: arrays that are not alive together may share a place.

    Returns:
        Kind -> (array -> offset, size of all).
    """
    mine = {slot.buffer: slot for slot in program.scratch}
    alive: dict[int, tuple[int, int]] = {}
    for number_, stage in enumerate(program.stages):
        for buffer in _touched(stage, program):
            if buffer in mine:
                first, _ = alive.get(buffer, (number_, number_))
                alive[buffer] = (first, number_)
    found: dict[str, tuple[dict[int, int], int]] = {}
    for kind in sorted({slot.dtype for slot in mine.values()}):
        placed: list[tuple[int, int, tuple[int, int]]] = []  # offset, end, lifetime
        offsets: dict[int, int] = {}
        for buffer in sorted((b for b in alive if mine[b].dtype == kind), key=lambda b: -mine[b].size):
            first, last = alive[buffer]
            busy = sorted((a, b) for a, b, (f, l) in placed if not (l < first or last < f))
            offset = 0
            for a, b in busy:
                if offset + mine[buffer].size <= a:
                    break
                offset = max(offset, b)
            offsets[buffer] = offset
            placed.append((offset, offset + mine[buffer].size, (first, last)))
        found[kind] = (offsets, max((b for _, b, _ in placed), default=0))
    return found


def _touched(stage: Stage, program: Program) -> set[int]:
    """Arrays that a stage reads or writes."""
    found: set[int] = set()

    def load(_: Any, slot: Slot, __: Any) -> None:
        found.add(slot.buffer)

    def gather(_: Any, slot: Slot, *__: Any) -> None:
        found.add(slot.buffer)

    if isinstance(stage, Loop):
        evaluate = Evaluator(program.places, stage.shape, load, lambda *_: None, gather)
        for store in stage.stores:
            (evaluate.define if store.defines else evaluate)(store.value, store.index(stage.shape))
            found.add(store.slot.buffer)
    elif isinstance(stage, Reduce):
        evaluate = Evaluator(program.places, stage.value.shape, load, lambda *_: None, gather)
        evaluate(stage.value, whole(stage.value.shape))
        found.add(stage.slot.buffer)
    elif isinstance(stage, Product):
        found |= {stage.source.buffer, stage.slot.buffer}
        if stage.start is not None:
            found.add(stage.start.buffer)
    else:
        found.add(stage.slot.buffer)
    return found


def table(head: str, texts: Sequence[str], wide: int) -> str:
    """A constant array of texts that are written already."""
    lines = [", ".join(texts[i : i + wide]) for i in range(0, len(texts), wide)]
    return f"{head} = {{\n" + ",\n".join("    " + line for line in lines) + "\n};"


def bytes_of(texts: Iterable[str]) -> int:
    """Memory of an array of texts, with four bytes for each pointer."""
    return sum(5 + len(text.encode("utf-8", "surrogatepass")) for text in texts)


def in_comment(text: str) -> str:
    """A text that ends no comment and begins none."""
    found = " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    return found.replace("*/", "* /")  # of "*/*"


def quoted(text: str) -> str:
    """A text as C writes it; three octal digits end by themselves."""
    parts = []
    for byte in text.encode("utf-8", "surrogatepass"):
        c = chr(byte)
        parts.append(f"\\{c}" if c in '"\\' else c if 32 <= byte < 127 and c != "?" else f"\\{byte:03o}")
    return '"' + "".join(parts) + '"'
