"""Writes a function of the small language of `native.loops` in LLVM's language."""

from __future__ import annotations

import ast
import inspect
import operator
import struct
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import loops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loops import Compiled

_REGISTER = {"i64": "i64", "u64": "i64", "f32": "float", "f64": "double", "bool": "i1"}
_FLOATS = ("f32", "f64")
_FOLD: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Pow: operator.pow,
}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}


@dataclass(frozen=True)
class _Value:
    """Something computed: its type, its register; a literal adapts to what it meets."""

    kind: str
    text: str
    literal: int | float | None = None


@dataclass(frozen=True)
class _Array:
    """Memory: element, pointer, sizes."""

    element: str
    pointer: str
    sizes: tuple[str, ...]


@dataclass
class _Module:
    """Function name -> its text; filled as calls are met."""

    functions: dict[str, str] = field(default_factory=dict)
    intrinsics: set[str] = field(default_factory=set)


def module_of(program: Compiled) -> str:
    """The whole module; its entry is ``main``, a function of one pointer to the arguments' words."""
    module = _Module()
    _Function(program, module).write()
    lines, given, place = [], [], 0

    def word(kind: str) -> str:
        nonlocal place
        lines.append(f"  %p{place} = getelementptr inbounds i64, ptr %data, i64 {place}")
        lines.append(f"  %w{place} = load {kind}, ptr %p{place}")
        place += 1
        return f"%w{place - 1}"

    for kind in program.kinds.values():
        element, _, rest = kind.partition("[")
        if rest:
            given.append(f"ptr noalias {word('ptr')}")
            given += [f"i64 {word('i64')}" for _ in range(rest.count(":"))]
        elif element == "f32":
            wide = word("double")
            lines.append(f"  %n{place} = fptrunc double {wide} to float")
            given.append(f"float %n{place}")
        else:
            read = "double" if element == "f64" else "i64"
            given.append(f"{read} {word(read)}")
    lines += [f"  call void @{program.name}({', '.join(given)})", "  ret void"]
    main = "define void @main(ptr %data) {\n" + "\n".join(lines) + "\n}\n"
    declared = "".join(f"declare {text}\n" for text in sorted(module.intrinsics))
    return declared + "\n".join(module.functions.values()) + "\n" + main


class _Function:
    """Writes one function."""

    def __init__(self, program: Compiled, module: _Module) -> None:
        self.program, self.module = program, module
        self.text = loops.source_of(program.function)
        (self.tree,) = [n for n in ast.parse(self.text).body if isinstance(n, ast.FunctionDef)]
        closure = inspect.getclosurevars(program.function)
        self.outside = {**closure.builtins, **closure.globals, **closure.nonlocals}
        self.lines: list[str] = []
        self.entry: list[str] = []
        self.count = 0
        self.names: dict[str, tuple[str, str]] = {}  # variable -> type, place
        self.arrays: dict[str, _Array] = {}
        self.exits: list[tuple[str, str]] = []  # of loops: where break and continue go
        self.open = True  # may the next instruction be reached?
        self.flags = " reassoc nsz contract" if program.reassociate else ""

    # --- text ---

    def fail(self, node: ast.AST, what: str) -> TypeError:
        """An error that names the line."""
        line = self.text.splitlines()[getattr(node, "lineno", 1) - 1].strip()
        return TypeError(f"{self.program.name}: {what}, in `{line}`.")

    def let(self, text: str) -> str:
        """One instruction; its result."""
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def put(self, text: str) -> None:
        """One instruction without a result."""
        self.lines.append("  " + text)

    def label(self) -> str:
        """A new place to jump to."""
        self.count += 1
        return f"l{self.count}"

    def begin(self, label: str) -> None:
        """What follows stands at a label."""
        self.lines.append(f"{label}:")
        self.open = True

    def jump(self, label: str) -> None:
        """Go there, if this place can be reached."""
        if self.open:
            self.put(f"br label %{label}")
            self.open = False

    def space(self, kind: str) -> str:
        """Room on the stack for a variable."""
        self.count += 1
        self.entry.append(f"  %s{self.count} = alloca {_REGISTER[kind]}")
        return f"%s{self.count}"

    # --- the whole ---

    def write(self) -> None:
        """Put the function's text into the module."""
        given = []
        for name, kind in self.program.kinds.items():
            element, _, rest = kind.partition("[")
            if rest:
                sizes = tuple(f"%{name}.{i}" for i in range(rest.count(":")))
                self.arrays[name] = _Array(element, f"%{name}", sizes)
                given += [f"ptr noalias %{name}", *[f"i64 {size}" for size in sizes]]
            else:
                kind = loops._KINDS[element][1]
                given.append(f"{_REGISTER[kind]} %{name}")
                place = self.space(kind)
                self.names[name] = (kind, place)
                self.put(f"store {_REGISTER[kind]} %{name}, ptr {place}")
        self.module.functions.setdefault(self.program.name, "")
        for statement in self.tree.body:
            self.statement(statement)
        result = "void" if self.program.returns is None else _REGISTER[self.program.returns]
        if self.open:
            if self.program.returns is not None:
                raise self.fail(self.tree, "it must return a value on every way")
            self.put("ret void")
        head = f"define internal {result} @{self.program.name}({', '.join(given)}) alwaysinline {{\nentry:"
        self.module.functions[self.program.name] = "\n".join([head, *self.entry, *self.lines, "}", ""])

    def statement(self, node: ast.stmt) -> None:
        """One statement; what cannot be reached is left out."""
        if not self.open:
            return
        match node:
            case ast.Assign(targets=[target]):
                self.assign(target, node.value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, value)
            case ast.AugAssign():
                left = ast.copy_location(_load(node.target), node)
                self.assign(node.target, ast.copy_location(ast.BinOp(left, node.op, node.value), node))
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args), orelse=[]):
                self.count_up(name, args, node)
            case ast.While(orelse=[]):
                self.repeat(node)
            case ast.If():
                self.branch(node)
            case ast.Break() | ast.Continue():
                self.jump(self.exits[-1][isinstance(node, ast.Continue)])
            case ast.Return():
                self.give(node)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=ast.Call() as called):
                self.call(called)
            case _:
                raise self.fail(node, f"{type(node).__name__} is not part of the language")

    def give(self, node: ast.Return) -> None:
        """Return."""
        if node.value is None or self.program.returns is None:
            if node.value is not None or self.program.returns is not None:
                raise self.fail(node, "what is returned is not what is annotated")
            self.put("ret void")
        else:
            value = self.as_kind(self.value(node.value), self.program.returns, node)
            self.put(f"ret {_REGISTER[self.program.returns]} {value.text}")
        self.open = False

    def assign(self, target: ast.expr, source: ast.expr) -> None:
        """To a variable or an element of an array."""
        if isinstance(target, ast.Subscript):
            array, at = self.element(target)
            stored, kind, _ = loops._KINDS[array.element]
            value = self.value(source)
            if value.kind == "bool":
                value = _Value("i64", self.let(f"zext i1 {value.text} to i64"))
            value = self.as_kind(value, kind, source)
            text = value.text
            if stored in ("i8", "i32"):
                text = self.let(f"trunc i64 {text} to {stored}")
            self.put(f"store {stored} {text}, ptr {at}")
            return
        if not isinstance(target, ast.Name):
            raise self.fail(target, "only variables and elements are assigned to")
        if isinstance(source, ast.Call) and self.outside.get(getattr(source.func, "id", "")) is loops.local:
            self.make_local(target.id, source)
            return
        value = self.value(source)
        if target.id in self.arrays:
            raise self.fail(target, f"{target.id} is an array")
        if target.id not in self.names:
            self.names[target.id] = (value.kind, self.space(value.kind))
        kind, place = self.names[target.id]
        self.put(f"store {_REGISTER[kind]} {self.as_kind(value, kind, source).text}, ptr {place}")

    def make_local(self, name: str, node: ast.Call) -> None:
        """An array on the stack, zeroed where the statement stands."""
        kind, size = (self.constant(argument) for argument in node.args)
        if kind not in loops._KINDS or not isinstance(size, int):
            raise self.fail(node, "local takes a type and a constant size")
        if name not in self.arrays:
            self.count += 1
            stored = loops._KINDS[kind][0]
            self.entry.append(f"  %s{self.count} = alloca [{size} x {stored}], align 64")
            self.arrays[name] = _Array(kind, f"%s{self.count}", (str(size),))
        self.module.intrinsics.add("void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        num_bytes = size * {"i8": 1, "i32": 4, "float": 4}.get(loops._KINDS[kind][0], 8)
        pointer = self.arrays[name].pointer
        self.put(f"call void @llvm.memset.p0.i64(ptr align 64 {pointer}, i8 0, i64 {num_bytes}, i1 false)")

    # --- ways through ---

    @contextmanager
    def inside(self, leave: str, again: str) -> Iterator[None]:
        """The body of a loop."""
        self.exits.append((leave, again))
        yield
        self.exits.pop()

    def count_up(self, name: str, args: list[ast.expr], node: ast.For) -> None:
        """``for name in range``; its own counter, so that the body may change the variable as in Python."""
        start, stop, step = (
            [ast.Constant(0), *args, ast.Constant(1)] if len(args) == 1 else [*args, ast.Constant(1)][:3]
        )
        first, last = (self.as_kind(self.value(v), "i64", node).text for v in (start, stop))
        stride = self.value(step)
        if stride.literal is None or stride.kind != "i64" or not stride.literal:
            raise self.fail(node, "the stride of range must be a whole number that is written out")
        counter = self.space("i64")
        if name not in self.names:
            self.names[name] = ("i64", self.space("i64"))
        kind, place = self.names[name]
        if kind != "i64":
            raise self.fail(node, f"{name} is no i64")
        self.put(f"store i64 {first}, ptr {counter}")
        head, body, again, leave = (self.label() for _ in range(4))
        self.jump(head)
        self.begin(head)
        now = self.let(f"load i64, ptr {counter}")
        more = self.let(f"icmp {'slt' if stride.literal > 0 else 'sgt'} i64 {now}, {last}")
        self.put(f"br i1 {more}, label %{body}, label %{leave}")
        self.begin(body)
        self.put(f"store i64 {now}, ptr {place}")
        with self.inside(leave, again):
            for statement in node.body:
                self.statement(statement)
        self.jump(again)
        self.begin(again)
        self.put(f"store i64 {self.let(f'add nsw i64 {now}, {stride.literal}')}, ptr {counter}")
        self.jump(head)
        self.begin(leave)

    def repeat(self, node: ast.While) -> None:
        """``while``."""
        head, body, leave = (self.label() for _ in range(3))
        self.jump(head)
        self.begin(head)
        self.put(f"br i1 {self.condition(node.test)}, label %{body}, label %{leave}")
        self.begin(body)
        with self.inside(leave, head):
            for statement in node.body:
                self.statement(statement)
        self.jump(head)
        self.begin(leave)

    def branch(self, node: ast.If) -> None:
        """``if``, with what may follow it."""
        yes, no, after = (self.label() for _ in range(3))
        self.put(f"br i1 {self.condition(node.test)}, label %{yes}, label %{no}")
        reached = False
        for label, body in ((yes, node.body), (no, node.orelse)):
            self.begin(label)
            for statement in body:
                self.statement(statement)
            reached |= self.open
            self.jump(after)
        if reached:
            self.begin(after)

    # --- values ---

    def condition(self, node: ast.expr) -> str:
        """As one bit."""
        value = self.value(node)
        if value.kind == "bool":
            return value.text
        if value.kind in _FLOATS:
            return self.let(f"fcmp une {_REGISTER[value.kind]} {value.text}, 0.0")
        return self.let(f"icmp ne i64 {value.text}, 0")

    def constant(self, node: ast.expr) -> Any:
        """What is written out, or stands outside."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in self.outside:
            return self.outside[node.id]
        raise self.fail(node, "this must be a constant")

    def literal(self, value: Any, node: ast.AST) -> _Value:
        """A number."""
        if isinstance(value, bool):
            return _Value("bool", str(value).lower())
        if isinstance(value, loops.np.uint64):
            return _Value("u64", str(loops._signed(int(value))))
        if isinstance(value, int):
            kind = "i64" if value < 2**63 else "u64"
            return _Value(kind, str(loops._signed(value)), value)
        if isinstance(value, float):
            return _Value("f64", _hexadecimal(value), value)
        raise self.fail(node, f"{value!r} is no number")

    def value(self, node: ast.expr) -> _Value:
        """Compute an expression."""
        match node:
            case ast.Constant(value=value):
                return self.literal(value, node)
            case ast.Name(id=name):
                return self.variable(name, node)
            case ast.Subscript():
                return self.read(node)
            case ast.BinOp():
                return self.binary(node)
            case ast.UnaryOp():
                return self.unary(node)
            case ast.Compare():
                return self.compare(node)
            case ast.BoolOp():
                return self.logic(node)
            case ast.IfExp():
                return self.choose(node)
            case ast.Call():
                result = self.call(node)
                if result is None:
                    raise self.fail(node, "it gives no value")
                return result
        raise self.fail(node, f"{type(node).__name__} is not part of the language")

    def variable(self, name: str, node: ast.AST) -> _Value:
        """A variable or a constant from outside."""
        if name in self.names:
            kind, place = self.names[name]
            return _Value(kind, self.let(f"load {_REGISTER[kind]}, ptr {place}"))
        if name in self.outside:
            return self.literal(self.outside[name], node)
        raise self.fail(node, f"{name} has no value yet")

    def array(self, node: ast.expr) -> _Array:
        """By name."""
        if not isinstance(node, ast.Name) or node.id not in self.arrays:
            raise self.fail(node, "this must be an array")
        return self.arrays[node.id]

    def element(self, node: ast.Subscript) -> tuple[_Array, str]:
        """An array and the place of one element."""
        array = self.array(node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if len(parts) != len(array.sizes):
            raise self.fail(node, f"the array has {len(array.sizes)} dimensions")
        index = "0"
        for size, part in zip(array.sizes, parts):
            value = self.value(part)
            at = self.as_kind(value, "i64", part).text if value.kind != "u64" else value.text
            if index != "0":
                at = self.let(f"add nsw i64 {self.let(f'mul nsw i64 {index}, {size}')}, {at}")
            index = at
        stored = loops._KINDS[array.element][0]
        return array, self.let(f"getelementptr inbounds {stored}, ptr {array.pointer}, i64 {index}")

    def read(self, node: ast.Subscript) -> _Value:
        """An element, or one number of a shape."""
        if isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
            return _Value("i64", self.array(node.value.value).sizes[self.constant(node.slice)])
        array, at = self.element(node)
        stored, kind, _ = loops._KINDS[array.element]
        text = self.let(f"load {stored}, ptr {at}")
        if stored in ("i8", "i32"):
            text = self.let(f"{'sext' if array.element in ('i8', 'i32') else 'zext'} {stored} {text} to i64")
        return _Value(kind, text)

    def as_kind(self, value: _Value, kind: str, node: ast.AST) -> _Value:
        """A value as another type, where nothing is lost that the language keeps."""
        if value.kind == kind:
            return value
        if value.literal is not None:
            if kind in _FLOATS:
                number = float(value.literal)
                return _Value(kind, _hexadecimal(number if kind == "f64" else float(loops.np.float32(number))))
            if kind in ("u64", "i64") and isinstance(value.literal, int):
                return _Value(kind, str(loops._signed(value.literal & 0xFFFF_FFFF_FFFF_FFFF)))
        if (value.kind, kind) == ("f32", "f64"):
            return _Value(kind, self.let(f"fpext float {value.text} to double"))
        if value.kind == "i64" and kind in _FLOATS:
            return _Value(kind, self.let(f"sitofp i64 {value.text} to {_REGISTER[kind]}"))
        if (value.kind, kind) == ("bool", "i64"):
            return _Value(kind, self.let(f"zext i1 {value.text} to i64"))
        raise self.fail(node, f"{value.kind} is no {kind}")

    def meet(self, a: _Value, b: _Value, node: ast.AST) -> tuple[_Value, _Value]:
        """Two values of one type."""
        for one, other in ((a, b), (b, a)):
            if (
                one.literal is not None
                and other.literal is None
                and not (isinstance(one.literal, float) and other.kind not in _FLOATS)
            ):
                kind = "i64" if other.kind == "bool" else other.kind
                return self.as_kind(a, kind, node), self.as_kind(b, kind, node)
        order = ["bool", "i64", "f32", "f64"]
        if "u64" in (a.kind, b.kind):
            if a.kind != b.kind:
                raise self.fail(node, f"{a.kind} and {b.kind} do not mix; write u64(...) or int(...)")
            return a, b
        kind = order[max(order.index(a.kind), order.index(b.kind), 1)]
        if {a.kind, b.kind} == {"i64", "f32"}:
            kind = "f64"
        return self.as_kind(a, kind, node), self.as_kind(b, kind, node)

    def binary(self, node: ast.BinOp) -> _Value:
        """Arithmetic and operations on bits."""
        a, b = self.value(node.left), self.value(node.right)
        if a.literal is not None and b.literal is not None:
            return self.literal(_FOLD[type(node.op)](a.literal, b.literal), node)
        bits = {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor"}.get(type(node.op))
        if bits is not None and a.kind == b.kind == "bool":
            return _Value("bool", self.let(f"{bits} i1 {a.text}, {b.text}"))
        if isinstance(node.op, ast.LShift | ast.RShift):
            b = _Value(a.kind, b.text) if b.kind in ("i64", "u64") else b
        if isinstance(node.op, ast.Div):
            a, b = (
                self.as_kind(v, "f64", node) if v.kind in ("i64", "bool") and v.literal is None else v for v in (a, b)
            )
        a, b = self.meet(a, b, node)
        kind, register = a.kind, _REGISTER[a.kind]
        if kind in _FLOATS:
            name = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}.get(type(node.op))
            if name is None:
                raise self.fail(node, f"{type(node.op).__name__} is not for floats")
            return _Value(kind, self.let(f"{name}{self.flags} {register} {a.text}, {b.text}"))
        plain = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.LShift: "shl"}
        name = bits or plain.get(type(node.op))
        if isinstance(node.op, ast.RShift):
            name = "ashr" if kind == "i64" else "lshr"
        if name is not None:
            return _Value(kind, self.let(f"{name} i64 {a.text}, {b.text}"))
        if isinstance(node.op, ast.FloorDiv | ast.Mod):
            return _Value(kind, self.divide(kind, a.text, b.text, isinstance(node.op, ast.Mod)))
        raise self.fail(node, f"{type(node.op).__name__} is not for whole numbers")

    def divide(self, kind: str, a: str, b: str, rest: bool) -> str:
        """Python's floor division and its rest."""
        if kind == "u64":
            return self.let(f"{'urem' if rest else 'udiv'} i64 {a}, {b}")
        left = self.let(f"srem i64 {a}, {b}")
        apart = self.let(f"icmp slt i64 {self.let(f'xor i64 {left}, {b}')}, 0")
        wrong = self.let(f"and i1 {apart}, {self.let(f'icmp ne i64 {left}, 0')}")
        if rest:
            return self.let(f"select i1 {wrong}, i64 {self.let(f'add i64 {left}, {b}')}, i64 {left}")
        quotient = self.let(f"sdiv i64 {a}, {b}")
        return self.let(f"select i1 {wrong}, i64 {self.let(f'sub i64 {quotient}, 1')}, i64 {quotient}")

    def unary(self, node: ast.UnaryOp) -> _Value:
        """Sign, complement, not."""
        if isinstance(node.op, ast.Not):
            return _Value("bool", self.let(f"xor i1 {self.condition(node.operand)}, true"))
        value = self.value(node.operand)
        if isinstance(node.op, ast.USub) and value.literal is not None:
            return self.literal(-value.literal, node)
        if isinstance(node.op, ast.USub) and value.kind in _FLOATS:
            return _Value(value.kind, self.let(f"fneg {_REGISTER[value.kind]} {value.text}"))
        if isinstance(node.op, ast.USub) and value.kind in ("i64", "u64"):
            return _Value(value.kind, self.let(f"sub i64 0, {value.text}"))
        if isinstance(node.op, ast.Invert) and value.kind in ("i64", "u64"):
            return _Value(value.kind, self.let(f"xor i64 {value.text}, -1"))
        raise self.fail(node, f"{type(node.op).__name__} is not for {value.kind}")

    def compare(self, node: ast.Compare) -> _Value:
        """One comparison, or a chain."""
        result = None
        left = self.value(node.left)
        for op, right_node in zip(node.ops, node.comparators):
            right = self.value(right_node)
            if type(op) not in _COMPARE:
                raise self.fail(node, f"{type(op).__name__} is not part of the language")
            a, b = self.meet(left, right, node)
            name = _COMPARE[type(op)]
            if a.kind in _FLOATS:
                text = self.let(f"fcmp {'u' if name == 'ne' else 'o'}{name} {_REGISTER[a.kind]} {a.text}, {b.text}")
            else:
                sign = "" if name in ("eq", "ne") else "s" if a.kind == "i64" else "u"
                text = self.let(f"icmp {sign}{name} i64 {a.text}, {b.text}")
            result = text if result is None else self.let(f"and i1 {result}, {text}")
            left = right
        return _Value("bool", str(result))

    def logic(self, node: ast.BoolOp) -> _Value:
        """``and``, ``or``: the right side is computed only where it decides."""
        place = self.space("bool")
        after = self.label()
        for index, part in enumerate(node.values):
            bit = self.condition(part)
            self.put(f"store i1 {bit}, ptr {place}")
            if index == len(node.values) - 1:
                self.jump(after)
                break
            more = self.label()
            ways = (more, after) if isinstance(node.op, ast.And) else (after, more)
            self.put(f"br i1 {bit}, label %{ways[0]}, label %{ways[1]}")
            self.begin(more)
        self.begin(after)
        return _Value("bool", self.let(f"load i1, ptr {place}"))

    def choose(self, node: ast.IfExp) -> _Value:
        """``a if c else b``: both are computed."""
        bit = self.condition(node.test)
        a, b = self.value(node.body), self.value(node.orelse)
        if a.kind != b.kind:
            a, b = self.meet(a, b, node)
        register = _REGISTER[a.kind]
        return _Value(a.kind, self.let(f"select i1 {bit}, {register} {a.text}, {register} {b.text}"))

    # --- calls ---

    def called(self, node: ast.Call) -> Any:
        """What is called: an object from outside."""
        match node.func:
            case ast.Name(id=name) if name in self.outside:
                return self.outside[name]
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in self.outside:
                return getattr(self.outside[name], attribute)
        raise self.fail(node, f"{ast.unparse(node.func)} is not known")

    def call(self, node: ast.Call) -> _Value | None:
        """A function of the language, of mathematics, or another compiled one."""
        target, args = self.called(node), node.args
        if isinstance(target, loops.Compiled):
            return self.call_compiled(target, node)
        if target is len:
            return _Value("i64", self.array(args[0]).sizes[0])
        if target in (loops.thread, loops.num_threads):
            name = "omp_get_thread_num" if target is loops.thread else "omp_get_num_threads"
            self.module.intrinsics.add(f"i32 @{name}()")
            return _Value("i64", self.let(f"sext i32 {self.let(f'call i32 @{name}()')} to i64"))
        values = [self.value(argument) for argument in args]
        if target in (min, max) and len(values) == 2:
            a, b = self.meet(values[0], values[1], node)
            return self.smaller(a, b, target is min)
        first = values[0]
        if target in loops.MATHEMATICS:
            kind = first.kind if first.kind == "f32" else "f64"
            result = self.intrinsic(loops.MATHEMATICS[target], self.as_kind(first, kind, node))
            return self.to_whole(result) if loops.MATHEMATICS[target] == "floor" else result
        if target is loops.popcount:
            self.module.intrinsics.add("i64 @llvm.ctpop.i64(i64)")
            return _Value("i64", self.let(f"call i64 @llvm.ctpop.i64(i64 {first.text})"))
        if target is int:
            return self.to_whole(first)
        if target is loops.u64 and first.kind in ("i64", "u64", "bool"):
            return _Value("u64", self.as_kind(first, "i64", node).text if first.kind == "bool" else first.text)
        if target is float and first.kind == "u64":
            return _Value("f64", self.let(f"uitofp i64 {first.text} to double"))
        if target is float:
            return self.as_kind(first, "f64", node)
        if target is loops.f32:
            wide = self.as_kind(first, "f64", node) if first.kind != "f32" else first
            return first if first.kind == "f32" else _Value("f32", self.let(f"fptrunc double {wide.text} to float"))
        if target is abs and first.kind in _FLOATS:
            return self.intrinsic("fabs", first)
        if target is abs and first.kind == "i64":
            negative = self.let(f"icmp slt i64 {first.text}, 0")
            turned = self.let(f"sub i64 0, {first.text}")
            return _Value("i64", self.let(f"select i1 {negative}, i64 {turned}, i64 {first.text}"))
        raise self.fail(node, f"{ast.unparse(node.func)} is not part of the language here")

    def to_whole(self, value: _Value) -> _Value:
        """``int``: towards zero."""
        if value.kind in _FLOATS:
            return _Value("i64", self.let(f"fptosi {_REGISTER[value.kind]} {value.text} to i64"))
        if value.kind == "bool":
            return _Value("i64", self.let(f"zext i1 {value.text} to i64"))
        return _Value("i64", value.text)

    def smaller(self, a: _Value, b: _Value, least: bool) -> _Value:
        """``min`` and ``max`` as Python has them: the first where neither is smaller."""
        register = _REGISTER[a.kind]
        if a.kind in _FLOATS:
            test = f"fcmp {'olt' if least else 'ogt'} {register} {b.text}, {a.text}"
        else:
            test = f"icmp {'s' if a.kind == 'i64' else 'u'}{'lt' if least else 'gt'} i64 {b.text}, {a.text}"
        return _Value(a.kind, self.let(f"select i1 {self.let(test)}, {register} {b.text}, {register} {a.text}"))

    def intrinsic(self, name: str, value: _Value) -> _Value:
        """A function of one float."""
        register, suffix = _REGISTER[value.kind], value.kind
        if name == "tanh":  # 1 - 2 / (exp(2 x) + 1)
            two, one = (self.as_kind(self.literal(number, self.tree), value.kind, self.tree) for number in (2.0, 1.0))
            grown = self.intrinsic("exp", _Value(value.kind, self.let(f"fmul {register} {value.text}, {two.text}")))
            more = self.let(f"fadd {register} {grown.text}, {one.text}")
            part = self.let(f"fdiv {register} {two.text}, {more}")
            return _Value(value.kind, self.let(f"fsub {register} {one.text}, {part}"))
        self.module.intrinsics.add(f"{register} @llvm.{name}.{suffix}({register})")
        return _Value(value.kind, self.let(f"call {register} @llvm.{name}.{suffix}({register} {value.text})"))

    def call_compiled(self, target: Compiled, node: ast.Call) -> _Value | None:
        """Another function of the language; its body is put in place by LLVM."""
        known = self.module.functions
        if target.name not in known:
            _Function(target, self.module).write()
        elif not known[target.name]:
            raise self.fail(node, "a function may not call itself")
        given = []
        for argument, kind in zip(node.args, target.kinds.values(), strict=True):
            element, _, rest = kind.partition("[")
            if rest:
                array = self.array(argument)
                if array.element != element or len(array.sizes) != rest.count(":"):
                    raise self.fail(node, f"{ast.unparse(argument)} is no {kind}")
                given += [f"ptr {array.pointer}", *[f"i64 {size}" for size in array.sizes]]
            else:
                want = loops._KINDS[element][1]
                given.append(f"{_REGISTER[want]} {self.as_kind(self.value(argument), want, node).text}")
        if target.returns is None:
            self.put(f"call void @{target.name}({', '.join(given)})")
            return None
        return _Value(target.returns, self.let(f"call {_REGISTER[target.returns]} @{target.name}({', '.join(given)})"))


def _load(node: ast.expr) -> ast.expr:
    """The same place, read."""
    return ast.parse(ast.unparse(node), mode="eval").body


def _hexadecimal(value: float) -> str:
    """LLVM's exact form of a double."""
    return "0x" + struct.pack(">d", value).hex().upper()
