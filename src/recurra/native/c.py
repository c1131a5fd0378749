"""Stages as C99: for reading, for other compilers, for machines without Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .autodiff import Unsupported
from .graph import BOOLEAN, FLOAT, INTEGER, Node, contiguous
from .lower import Evaluator, Index, Loop, Product, Program, Reduce, Slot, Stage, Zero

_LINE = 116


@dataclass(frozen=True)
class Array:
    """An array as C names it.

    Args:
        name: an expression of pointer type.
        scale: for 8-bit numbers: an expression that points to their scales, one for each ``row`` of elements.
        row: elements with one scale.
        single: one number by value instead of a pointer.
    """

    name: str
    scale: str = ""
    row: int = 0
    single: bool = False


@dataclass(eq=False)
class _Value:
    """An expression that is not written yet.

    Args:
        write: the text, from those of the arguments.
        dtype: of the graph.
        args: values inside.
        plain: a constant or the like: never worth a name.
        atom: needs no parentheses inside another expression.
        call: its arguments stand in parentheses of their own.
    """

    write: Callable[[list[str]], str]
    dtype: str
    args: list[_Value] = field(default_factory=list)
    plain: bool = False
    atom: bool = True
    call: bool = False
    uses: int = 0


class CWriter:
    """Writes the stages of programs as statements, and the helpers that they call.

    Args:
        bits: 32 or 64, of a float.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.real = "float" if bits == 32 else "double"
        self.suffix = "f" if bits == 32 else ""
        self.helpers: dict[str, str] = {}
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.read: set[int] = set()

    # --- text ---

    def put(self, text: str) -> None:
        """Write one line."""
        self.lines.append("    " * self.depth + text)

    def take(self) -> list[str]:
        """The lines written since the last time."""
        lines, self.lines, self.count = self.lines, [], 0
        return lines

    def type_of(self, dtype: str) -> str:
        """Of a value."""
        return {FLOAT: self.real, INTEGER: "int64_t", BOOLEAN: "int"}[dtype]

    def stored(self, dtype: str) -> str:
        """Of an element in memory."""
        return "uint8_t" if dtype == BOOLEAN else self.type_of(dtype)

    def number(self, value: float) -> str:
        """A constant of real numbers."""
        return number(value, self.bits)

    def function(self, name: str) -> str:
        """One of ``math.h``."""
        return name + self.suffix

    def need(self, name: str) -> str:
        """A helper function; its name."""
        if name not in self.helpers:
            text, below = _helper(name, self.real, self.suffix)
            for other in below:
                self.need(other)
            self.helpers[name] = text
        return name

    # --- programs ---

    def stages(
        self,
        program: Program,
        place: Callable[[Slot], Array],
        weight: Callable[[int], Array],
        note: Callable[[Stage], str] = lambda _: "",
    ) -> None:
        """All stages for one row and one step.

        Args:
            program: what is computed.
            place: where the row of a slot stands.
            weight: a weight (K, N).
            note: a comment before a stage, or nothing.
        Raises:
            Unsupported: a stage that has no form in C.
        """
        self.place, self.weight = place, weight
        for stage in program.stages:
            comment = note(stage)
            if comment:
                self.put(f"/* {comment} */")
            if isinstance(stage, Loop):
                self._loop(stage, program)
            elif isinstance(stage, Reduce):
                self._reduce(stage, program)
            elif isinstance(stage, Product):
                self._product(stage)
            elif isinstance(stage, Zero):
                self._zero(stage)
            else:
                raise Unsupported(f"the stage {type(stage).__name__} has no form in C")

    def whole(self, name: str, program: Program, num_buffers: int, *, down: bool) -> str:
        """A function over all steps and rows: ``void name(void **arrays, size_t T, size_t B, size_t origin)``.

        Args:
            name: of the function.
            program: what is computed.
            num_buffers: arrays; the weights (K, N) follow them.
            down: from the last step to the first.
        """
        kinds: dict[int, str] = {s.buffer: self.stored(s.dtype) for s in _slots(program)}
        self.put("for (size_t row = 0; row < B; ++row) {")
        self.depth += 1
        self.put("for (size_t t = T; t-- > 0;) {" if down else "for (size_t t = 0; t < T; ++t) {")
        self.depth += 1

        def place(slot: Slot) -> Array:
            base = f"b{slot.buffer}"
            step = f"(t + {slot.shift})" if slot.shift else "t"
            if slot.mode == "fixed":
                return Array(base)
            if slot.mode == "row":
                return Array(f"({base} + row * {slot.size})")
            if slot.mode == "time":
                return Array(f"({base} + ({step} * B + row) * {slot.size})")
            if slot.mode == "parity":
                return Array(f"({base} + ((({step} + origin) & 1U) * B + row) * {slot.size})")
            raise Unsupported(f"an array of mode {slot.mode!r} has no form in C")

        self.stages(program, place, lambda number: Array(f"w{number}"))
        self.depth -= 1
        self.put("}")
        self.depth -= 1
        self.put("}")
        body = self.take()
        head = [f"static void {name}(void **arrays, size_t T, size_t B, size_t origin)", "{"]
        text = "\n".join(body)
        for number in range(num_buffers):
            if re.search(rf"\bb{number}\b", text):
                kind = kinds[number]
                head.append(f"    {kind} *const b{number} = ({kind} *)arrays[{number}];")
        for number in range(len(program.weights)):
            head.append(
                f"    const {self.real} *const w{number} = (const {self.real} *)arrays[{num_buffers + number}];"
            )
        head.append("    (void)origin;")
        return "\n".join([*head, *body, "}"])

    # --- stages ---

    def _loop(self, stage: Loop, program: Program) -> None:
        variables = self._open(stage.shape)
        evaluate = self._evaluator(program, stage.shape, variables)
        self.read = set()
        found = []
        for store in stage.stores:
            compute = evaluate.define if store.defines else evaluate
            found.append(compute(store.value, store.index(stage.shape)))
        for value in found:
            _count(value)
        named: dict[_Value, str] = {}
        # all is read before anything is written
        mixed = len(found) > 1 and any(store.slot.buffer in self.read for store in stage.stores)
        for value in found if mixed else ():
            self._before(value, named)
            if value not in named and not value.plain:
                text = self._text(value, named)
                named[value] = self._new()
                self._assign(f"const {self.type_of(value.dtype)} {named[value]}", "=", text)
        for store, value in zip(stage.stores, found):
            self._before(value, named)
            text = self._text(value, named)
            where = f"{self.place(store.slot).name}[{self._index((store.offset, store.strides), variables)}]"
            if store.slot.dtype == BOOLEAN:
                text = f"(uint8_t)({text})"
            self._assign(where, "+=" if store.add else "=", text)
        self._close(len(stage.shape))

    def _reduce(self, stage: Reduce, program: Program) -> None:
        shape, dims, kind = stage.value.shape, stage.dims, stage.value.dtype
        if kind == BOOLEAN:
            raise Unsupported(f"the {stage.what} of truth values has no form in C")
        kept = [d for d in range(len(shape)) if d not in dims]
        order = _names(len(shape))
        for d in kept:
            self._open_one(order[d], shape[d])
        if kind == FLOAT:
            start = {"sum": "0", "max": "-INFINITY", "min": "INFINITY"}[stage.what]
        else:
            start = {"sum": "0", "max": "INT64_MIN", "min": "INT64_MAX"}[stage.what]
        total = self._new("total")
        inside = len(kept) == 0
        if inside:
            self.put("{")
            self.depth += 1
        self.put(f"{self.type_of(kind)} {total} = {start};")
        for d in dims:
            self._open_one(order[d], shape[d])
        evaluate = self._evaluator(program, shape, order)
        value = evaluate(stage.value, (0, contiguous(shape)))
        _count(value)
        named: dict[_Value, str] = {}
        self._before(value, named)
        text = self._text(value, named)
        if stage.what == "sum":
            if kind == FLOAT:
                self._assign(total, "+=", text)
            else:
                self._assign(total, "=", f"{self.need('whole_add')}({total}, {text})")
        else:
            self._assign(
                total, "=", f"{self.need(('real_' if kind == FLOAT else 'whole_') + stage.what)}({text}, {total})"
            )
        self._close(len(dims))
        place = self._index((0, contiguous([shape[d] for d in kept])), [order[d] for d in kept])
        cast = "(uint8_t)" if stage.slot.dtype == BOOLEAN else ""
        self.put(f"{self.place(stage.slot).name}[{place}] = {cast}{total};")
        if inside:
            self._close(1)
        self._close(len(kept))

    def _product(self, stage: Product) -> None:
        source, target, weight = self.place(stage.source).name, self.place(stage.slot).name, self.weight(stage.weight)
        source = f"{source} + {stage.offset}" if stage.offset else source
        args = [target, source, weight.name, *([weight.scale] if weight.scale else []), str(stage.k), str(stage.n)]
        name = "product_of_bytes" if weight.scale else "product"
        if stage.start is not None:
            start = self.place(stage.start).name
            if start != target:
                self._open_one("i", stage.n)
                self.put(f"{target}[i] = {start}[i];")
                self._close(1)
            name = f"add_{name}"
        self.put(f"{self.need(name)}({', '.join(args)});")

    def _zero(self, stage: Zero) -> None:
        self._open_one("i", stage.slot.size)
        self.put(f"{self.place(stage.slot).name}[i] = 0;")
        self._close(1)

    # --- loops and statements ---

    def _new(self, word: str = "v") -> str:
        self.count += 1
        return f"{word}{self.count}"

    def _open(self, shape: Sequence[int]) -> list[str]:
        names = _names(len(shape))
        for name, size in zip(names, shape):
            self._open_one(name, size)
        if not shape:
            self.put("{")
            self.depth += 1
        return names

    def _open_one(self, name: str, size: int) -> None:
        self.put(f"for (size_t {name} = 0; {name} < {size}; ++{name}) {{")
        self.depth += 1

    def _close(self, number: int) -> None:
        for _ in range(number):
            self.depth -= 1
            self.put("}")

    def _assign(self, left: str, sign: str, right: str) -> None:
        line = f"{left} {sign} {right};"
        if len(line) + 4 * self.depth <= _LINE:
            self.put(line)
        else:
            self.put(f"{left} {sign}")
            self.put(f"    {right};")

    def _index(self, index: Index, variables: Sequence[str]) -> str:
        terms = []
        for v, stride in zip(variables, index[1]):
            if stride:
                terms.append(v if stride == 1 else f"{stride} * {v}")
        if index[0] or not terms:
            terms.append(str(index[0]))
        return " + ".join(terms)

    # --- expressions ---

    def _evaluator(self, program: Program, extents: tuple[int, ...], variables: Sequence[str]) -> Evaluator:
        def load(_: Node, slot: Slot, index: Index) -> _Value:
            self.read.add(slot.buffer)
            return self._element(self.place(slot), self._index(index, variables), slot.dtype)

        def gather(table: Node, slot: Slot, row: _Value, index: Index) -> _Value:
            height, width = table.shape
            array, column = self.place(slot), self._index(index, variables)
            name = self.need("row_of")

            def write(texts: list[str]) -> str:
                place = f"{name}({texts[0]}, {height})"
                at = f"{place} * {width}" if width > 1 else place
                at = at if column == "0" else f"{at} + {column}"
                if not array.scale:
                    return f"{array.name}[{at}]"
                return f"{array.scale}[{place}] * ({self.real}){array.name}[{at}]"

            return _Value(write, table.dtype, [row], atom=not array.scale)

        return Evaluator(program.places, extents, load, self._operate, gather)

    def _element(self, array: Array, index: str, dtype: str) -> _Value:
        if array.scale:
            scale = f"{array.scale}[({index}) / {array.row}]" if array.row > 1 else f"{array.scale}[{index}]"
            return _Value(lambda _: f"{scale} * ({self.real}){array.name}[{index}]", dtype, atom=False)
        place = array.name if array.single else f"{array.name}[{index}]"
        if dtype == BOOLEAN:
            return _Value(lambda _: f"{place} != 0", dtype, atom=False)
        return _Value(lambda _: place, dtype)

    def _operate(self, node: Node, args: list[_Value]) -> _Value:
        if node.op in ("stop", "copy"):
            return args[0]
        if node.op == "const":
            text = node.attr[0]
            if node.dtype == FLOAT:
                text = self.number(float(text))
            elif node.dtype == BOOLEAN:
                text = "1" if text == "True" else "0"
            else:
                text = f"INT64_C({text})" if int(text) > -(2**63) else "INT64_MIN"
            return _Value(lambda _: text, node.dtype, plain=True, atom=not text.startswith("-"))
        kind = node.args[0].dtype
        if node.op == "cast" and kind == node.dtype:
            return args[0]
        write, atom = self._form(node.op, kind, node.dtype)
        return _Value(write, node.dtype, args, atom=atom, call=atom)

    def _form(self, op: str, kind: str, new: str) -> tuple[Callable[[list[str]], str], bool]:
        """How an operation is written, and whether it is an atom."""
        signs = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&&", "or": "||"}
        if op in signs:
            return (lambda a: f"{a[0]} {signs[op]} {a[1]}"), False
        if op == "not":
            return (lambda a: f"!{a[0]}"), False
        if op == "where":
            return (lambda a: f"{a[0]} ? {a[1]} : {a[2]}"), False
        if op == "cast":
            return self._cast(kind, new)
        if kind == FLOAT:
            return self._float(op)
        if op in ("add", "sub", "mul", "neg", "abs", "max", "min", "remainder", "floordiv", "sign"):
            name = self.need("whole_" + op)
            return (lambda a: f"{name}({', '.join(a)})"), True
        raise Unsupported(f"the operation {op!r} on integers has no form in C")

    def _cast(self, old: str, new: str) -> tuple[Callable[[list[str]], str], bool]:
        if new == BOOLEAN:
            zero = self.number(0.0) if old == FLOAT else "0"
            return (lambda a: f"{a[0]} != {zero}"), False
        if old == FLOAT:
            name = self.need("to_whole")
            return (lambda a: f"{name}({a[0]})"), True
        return (lambda a: f"({self.type_of(new)}){a[0]}"), False

    def _float(self, op: str) -> tuple[Callable[[list[str]], str], bool]:
        signs = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
        if op in signs:
            return (lambda a: f"{a[0]} {signs[op]} {a[1]}"), False
        if op == "neg":
            return (lambda a: f"-{a[0]}"), False
        if op in ("max", "min", "sign", "remainder"):
            name = self.need("real_" + op)
            return (lambda a: f"{name}({', '.join(a)})"), True
        if op == "sigmoid":
            name = self.need("sigmoid")
            return (lambda a: f"{name}({a[0]})"), True
        if op == "floordiv":
            return (lambda a: f"{self.function('floor')}(({a[0]}) / ({a[1]}))"), True
        known = {"abs": "fabs", "round": "rint"}
        if op in known or op in LIBRARY:
            name = self.function(known.get(op, op))
            return (lambda a: f"{name}({', '.join(a)})"), True
        raise Unsupported(f"the operation {op!r} has no form in C")

    def _before(self, value: _Value, named: dict[_Value, str]) -> None:
        """Give names to what is used more than once, or is long."""
        order: list[_Value] = []
        seen: set[_Value] = set()
        stack: list[tuple[_Value, bool]] = [(value, False)]
        while stack:
            one, done = stack.pop()
            if done:
                order.append(one)
            elif one not in seen and one not in named:
                seen.add(one)
                stack.append((one, True))
                stack.extend((a, False) for a in reversed(one.args))
        for one in order:
            if (one is value and one.uses <= 1) or one.plain or one in named:
                continue
            text = self._text(one, named)
            if one.uses > 1 or len(text) > 60:
                named[one] = self._new()
                self._assign(f"const {self.type_of(one.dtype)} {named[one]}", "=", text)

    def _text(self, value: _Value, named: dict[_Value, str]) -> str:
        if value in named:
            return named[value]
        inside = []
        for a in value.args:
            text = self._text(a, named)
            inside.append(text if a in named or a.atom or value.call else f"({text})")
        text = value.write(inside)
        return text


def _count(value: _Value) -> None:
    stack = [value]
    while stack:
        one = stack.pop()
        one.uses += 1
        if one.uses == 1:
            stack.extend(one.args)


def _names(number: int) -> list[str]:
    return list("ijklmnpqr"[:number]) if number <= 9 else [f"i{d}" for d in range(number)]


def _slots(program: Program) -> list[Slot]:
    """All that a program reads and writes."""
    found = [*program.places.values(), *program.scratch]
    for stage in program.stages:
        if isinstance(stage, Loop):
            found += [store.slot for store in stage.stores]
        elif isinstance(stage, Product):
            found += [stage.source, stage.slot, *([] if stage.start is None else [stage.start])]
        else:
            found.append(stage.slot)
    return found


def number(value: float, bits: int = 32) -> str:
    """A constant of real numbers in C."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value) or (bits == 32 and abs(value) > 3.4028235677973366e38):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = f"{value:.9g}" if bits == 32 else f"{value:.17g}"
    if "." not in text and "e" not in text:
        text += ".0"
    return text + ("f" if bits == 32 else "")


LIBRARY = frozenset(
    {"exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf", "atan", "hypot", "pow"}
    | {"floor", "ceil", "trunc", "fabs", "rint", "fmod", "isnan", "isfinite"}
)
"""Functions of ``math.h`` that are called, without the suffix for float."""


def _helper(name: str, real: str, f: str) -> tuple[str, tuple[str, ...]]:
    """A helper function's text, and the helpers that it calls."""
    if name.startswith("product"):
        return _product_text(name, real), (f"add_{name}",)
    if name.startswith("add_product"):
        return _added_text(name, real), ()
    head, body, *below = _HELPERS[name]
    text = f"{head}\n{{\n{body}\n}}".replace("REAL", real).replace("_F(", f + "(")
    return text.replace("_ZERO", "0.0" + f).replace("_ONE", "1.0" + f), tuple(below)


_HELPERS: dict[str, tuple[str, ...]] = {
    "sigmoid": (
        "static REAL sigmoid(REAL x)",
        "    return _ONE / (_ONE + exp_F(-x));",
    ),
    "real_max": (
        "/* not a number if one of both is */\nstatic REAL real_max(REAL a, REAL b)",
        "    return a > b || a != a ? a : b;",
    ),
    "real_min": (
        "/* not a number if one of both is */\nstatic REAL real_min(REAL a, REAL b)",
        "    return a < b || a != a ? a : b;",
    ),
    "real_sign": (
        "static REAL real_sign(REAL a)",
        "    return a > _ZERO ? _ONE : a < _ZERO ? -_ONE : _ZERO;",
    ),
    "real_remainder": (
        "/* with the sign of the divisor */\nstatic REAL real_remainder(REAL a, REAL b)",
        "    const REAL r = fmod_F(a, b);\n    return r != _ZERO && (r < _ZERO) != (b < _ZERO) ? r + b : r;",
    ),
    "to_whole": (
        "static int64_t to_whole(REAL a)",
        "    return a >= (REAL)-9.2e18 && a <= (REAL)9.2e18 ? (int64_t)a : INT64_MIN;",
    ),
    "row_of": (
        "/* a row of a table; a number that is none means row 0 */\nstatic size_t row_of(int64_t row, size_t rows)",
        "    return row >= 0 && (uint64_t)row < (uint64_t)rows ? (size_t)row : 0;",
    ),
    "whole_add": (
        "static int64_t whole_add(int64_t a, int64_t b)",
        "    return (int64_t)((uint64_t)a + (uint64_t)b);",
    ),
    "whole_sub": (
        "static int64_t whole_sub(int64_t a, int64_t b)",
        "    return (int64_t)((uint64_t)a - (uint64_t)b);",
    ),
    "whole_mul": (
        "static int64_t whole_mul(int64_t a, int64_t b)",
        "    return (int64_t)((uint64_t)a * (uint64_t)b);",
    ),
    "whole_neg": ("static int64_t whole_neg(int64_t a)", "    return whole_sub(0, a);", "whole_sub"),
    "whole_abs": ("static int64_t whole_abs(int64_t a)", "    return a < 0 ? whole_sub(0, a) : a;", "whole_sub"),
    "whole_max": ("static int64_t whole_max(int64_t a, int64_t b)", "    return a > b ? a : b;"),
    "whole_min": ("static int64_t whole_min(int64_t a, int64_t b)", "    return a < b ? a : b;"),
    "whole_sign": ("static int64_t whole_sign(int64_t a)", "    return (a > 0) - (a < 0);"),
    "whole_remainder": (
        "/* with the sign of the divisor; 0 where that is 0 */\nstatic int64_t whole_remainder(int64_t a, int64_t b)",
        "    const int64_t r = b == 0 || b == -1 ? 0 : a % b;\n    return r != 0 && (r < 0) != (b < 0) ? r + b : r;",
    ),
    "whole_floordiv": (
        "/* rounded down */\nstatic int64_t whole_floordiv(int64_t a, int64_t b)",
        "    if (b == 0 || b == -1) {\n        return b == 0 ? a : whole_sub(0, a);\n    }\n"
        "    return a / b - (a % b != 0 && (a < 0) != (b < 0));",
        "whole_sub",
    ),
}

HELPERS = frozenset(_HELPERS) | {"product", "add_product", "product_of_bytes", "add_product_of_bytes"}
"""Names of helper functions."""


def _product_text(name: str, real: str) -> str:
    """``y = a w``."""
    of_bytes = name.endswith("bytes")
    weight, scale = ("int8_t", f", const {real} *scale") if of_bytes else (real, "")
    return f"""/* y = a w */
static void {name}({real} *y, const {real} *a, const {weight} *w{scale}, size_t k, size_t n)
{{
    for (size_t j = 0; j < n; ++j) {{
        y[j] = 0;
    }}
    add_{name}(y, a, w{", scale" if of_bytes else ""}, k, n);
}}"""


def _added_text(name: str, real: str) -> str:
    """``y += a w``: whole rows, so that compilers find vectors; four at once, so that y is read and written less."""
    of_bytes = name.endswith("bytes")
    words = "y += a w, w (k, n); a scale for each column" if of_bytes else "y += a w, w (k, n)"
    weight, scale = ("int8_t", f"const {real} *restrict scale, ") if of_bytes else (real, "")
    cast = f"({real})" if of_bytes else ""
    four = " + ".join(f"a{i} * {cast}w[{f'{i} * n + ' if i > 1 else 'n + ' if i else ''}j]" for i in range(4))
    one = f"a[0] * {cast}w[j]"
    if of_bytes:
        four, one = f"scale[j] * ({four})", f"scale[j] * ({one})"
    head = f"static void {name}({real} *restrict y, const {real} *restrict a, const {weight} *restrict w,"
    return f"""/* {words} */
{head}
    {scale}size_t k, size_t n)
{{
    for (size_t i = 0; i < k / 4; ++i, a += 4, w += 4 * n) {{
        const {real} a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
        for (size_t j = 0; j < n; ++j) {{
            y[j] += {four};
        }}
    }}
    for (size_t i = 0; i < k % 4; ++i, ++a, w += n) {{
        for (size_t j = 0; j < n; ++j) {{
            y[j] += {one};
        }}
    }}
}}"""
