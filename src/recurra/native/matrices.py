"""Products of two matrices that are both computed in the step, in LLVM's language: register tiles over memory as it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .llvm import Writer


def matrix_function(writer: Writer, m: int, k: int, n: int, a: tuple[int, int], b: int) -> str:
    """A function ``c = a @ b``, c dense; its name.

    Args:
        m, k, n: (M, K) times (K, N).
        a: strides of a.
        b: elements from row to row of b, whose rows are dense.
    """
    name = "_".join(map(str, ("matrices", m, k, n, *a, b)))
    if name in writer.functions:
        return name
    writer.functions[name] = ""
    panel, tile = writer.machine.panel, writer.machine.tile_rows
    out = type(writer)(writer.bits, writer.machine)
    out.functions, out.declared = writer.functions, writer.declared

    def at(pointer: str, place: str) -> str:
        return out.let(f"getelementptr inbounds {writer.real}, ptr {pointer}, i64 {place}")

    def rows_of(column: str, width: int) -> None:
        from_b, to = at("%b", column), at("%c", column)

        def some(row: str, count: int) -> None:
            first, into = at("%a", out.times(row, a[0])), at(to, out.times(row, n))
            out.put(f"call void @{_tile(writer, count, k, width, a, b, n)}(ptr {first}, ptr {from_b}, ptr {into})")

        if m >= tile:
            with out.loop("0", str(m // tile * tile), step=tile) as row:
                some(row, tile)
        if m % tile:
            some(str(m // tile * tile), m % tile)

    if n >= panel:
        with out.loop("0", str(n // panel * panel), step=panel) as column:
            rows_of(column, panel)
    if n % panel:
        rows_of(str(n // panel * panel), n % panel)
    out.put("ret void")
    writer.functions[name] = (
        f"define internal void @{name}(ptr %a, ptr %b, ptr noalias %c) #0 {{\nentry:\n" + "\n".join(out.lines) + "\n}"
    )
    return name


def _tile(writer: Writer, num: int, k: int, width: int, a: tuple[int, int], b: int, c: int) -> str:
    """Some rows and the columns of a panel: sums in registers, over k."""
    name = "_".join(map(str, ("matrix_tile", num, k, width, *a, b, c)))
    if name in writer.functions:
        return name
    writer.functions[name] = ""
    m, out = writer.machine, type(writer)(writer.bits, writer.machine)
    vectors, size = -(-width // m.lanes), writer.bits // 8
    kind, bits = f"<{m.lanes} x {writer.real}>", f"<{m.lanes} x i1>"
    fma = f"llvm.fma.v{m.lanes}f{writer.bits}"
    writer.declared.add(f"declare {kind} @{fma}({kind}, {kind}, {kind})")

    def mask(v: int) -> str | None:
        """Lanes of a vector that are columns; None for all."""
        left = width - v * m.lanes
        if left >= m.lanes:
            return None
        return f"{bits} <" + ", ".join("i1 true" if i < left else "i1 false" for i in range(m.lanes)) + ">"

    def read(pointer: str, v: int) -> str:
        lanes = mask(v)
        if lanes is None:
            return out.let(f"load {kind}, ptr {pointer}, align {size}")
        masked = f"llvm.masked.load.v{m.lanes}f{writer.bits}.p0"
        writer.declared.add(f"declare {kind} @{masked}(ptr, i32, {bits}, {kind})")
        return out.let(f"call {kind} @{masked}(ptr {pointer}, i32 {size}, {lanes}, {kind} zeroinitializer)")

    def write(value: str, pointer: str, v: int) -> None:
        lanes = mask(v)
        if lanes is None:
            out.put(f"store {kind} {value}, ptr {pointer}, align {size}")
            return
        masked = f"llvm.masked.store.v{m.lanes}f{writer.bits}.p0"
        writer.declared.add(f"declare void @{masked}({kind}, ptr, i32, {bits})")
        out.put(f"call void @{masked}({kind} {value}, ptr {pointer}, i32 {size}, {lanes})")

    def at(pointer: str, place: str) -> str:
        return out.let(f"getelementptr inbounds {writer.real}, ptr {pointer}, i64 {place}")

    count = num * vectors
    out.put("br label %head")
    out.block("head")
    out.put("%i = phi i64 [ 0, %entry ], [ %next, %head ]")
    for j in range(count):
        out.put(f"%t{j} = phi {kind} [ zeroinitializer, %entry ], [ %u{j}, %head ]")
    row = at("%b", out.times("%i", b))
    columns = [read(at(row, str(v * m.lanes)), v) for v in range(vectors)]
    for r in range(num):
        one = out.let(f"load {writer.real}, ptr {at('%a', out.add(out.times('%i', a[1]), r * a[0]))}")
        first = out.let(f"insertelement {kind} poison, {writer.real} {one}, i64 0")
        spread = out.let(f"shufflevector {kind} {first}, {kind} poison, <{m.lanes} x i32> zeroinitializer")
        for v in range(vectors):
            j = r * vectors + v
            out.put(f"%u{j} = call {kind} @{fma}({kind} {spread}, {kind} {columns[v]}, {kind} %t{j})")
    out.put("%next = add nuw nsw i64 %i, 1")
    out.put(f"%more = icmp slt i64 %next, {k}")
    out.put("br i1 %more, label %head, label %rest")
    out.block("rest")
    for r in range(num):
        for v in range(vectors):
            write(f"%u{r * vectors + v}", at("%c", str(r * c + v * m.lanes)), v)
    out.put("ret void")
    writer.functions[name] = (
        f"define internal void @{name}(ptr %a, ptr %b, ptr noalias %c) noinline #0 {{\nentry:\n"
        + "\n".join(out.lines)
        + "\n}"
    )
    return name
