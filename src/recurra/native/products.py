"""Matrix products in LLVM's language: register tiles over packed weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .llvm import Writer


def product_function(writer: Writer, k: int, n: int, *, start: bool) -> str:
    """A function for the rows of ``c = s + a @ w`` and some panels of w, which is packed; its name."""
    name = f"product_{k}_{n}" + ("_start" if start else "")
    if name in writer.functions:
        return name
    writer.functions[name] = ""
    m = writer.machine
    panel = m.panel
    out = type(writer)(writer.bits, m)
    out.functions, out.declared = writer.functions, writer.declared
    out.put(f"%full = sdiv i64 %rows, {m.tile_rows}")
    out.put(f"%most = mul i64 %full, {m.tile_rows}")
    out.put("%rest = sub i64 %rows, %most")

    def shifted(pointer: str, by: str) -> str:
        return out.let(f"getelementptr inbounds {writer.real}, ptr {pointer}, i64 {by}")

    def rows_of(column: str, weights: str, width: int) -> None:
        """All rows of one panel."""
        to = shifted("%c", column)
        begin = shifted("%s", column) if start else "null"
        out.count += 1
        tag = out.count
        any_full = out.let("icmp sgt i64 %full, 0")
        out.put(f"br i1 {any_full}, label %tiles{tag}, label %tail{tag}")
        out.block(f"tiles{tag}")
        with out.loop("0", "%most", step=m.tile_rows) as r:
            kernel(m.tile_rows, r, to, begin, weights, width)
        out.put(f"br label %tail{tag}")
        out.block(f"tail{tag}")
        cases = " ".join(f"i64 {i}, label %case{tag}_{i}" for i in range(1, m.tile_rows))
        out.put(f"switch i64 %rest, label %over{tag} [ {cases} ]")
        for i in range(1, m.tile_rows):
            out.block(f"case{tag}_{i}")
            kernel(i, "%most", to, begin, weights, width)
            out.put(f"br label %over{tag}")
        out.block(f"over{tag}")

    def kernel(num: int, row: str, to: str, begin: str, weights: str, width: int) -> None:
        a, c = shifted("%a", out.times(row, "%lda")), shifted(to, out.times(row, "%ldc"))
        s = shifted(begin, out.times(row, "%lds")) if start else "null"
        function = _kernel(writer, num, k, width, start)
        out.put(f"call void @{function}(ptr {a}, i64 %lda, ptr {weights}, ptr {c}, i64 %ldc, ptr {s}, i64 %lds)")

    count = n // panel
    if count:
        less = out.let(f"icmp slt i64 %high, {count}")
        last = out.let(f"select i1 {less}, i64 %high, i64 {count}")
        out.put(f"br i1 {out.let(f'icmp slt i64 %low, {last}')}, label %panels, label %remainder")
        out.block("panels")
        with out.loop("%low", last) as p:
            rows_of(out.times(p, panel), shifted("%w", out.times(p, k * panel)), panel)
        out.put("br label %remainder")
        out.block("remainder")
    if n % panel:
        out.put(f"br i1 {out.let(f'icmp sgt i64 %high, {count}')}, label %narrow, label %end")
        out.block("narrow")
        rows_of(str(count * panel), shifted("%w", str(count * k * panel)), n % panel)
        out.put("br label %end")
        out.block("end")
    out.put("ret void")
    writer.functions[name] = (
        f"define internal void @{name}(ptr %a, i64 %lda, ptr %w, ptr %c, i64 %ldc, ptr %s, i64 %lds, i64 %rows,"
        " i64 %low, i64 %high) #0 {\nentry:\n" + "\n".join(out.lines) + "\n}"
    )
    return name


def _kernel(writer: Writer, num: int, k: int, width: int, start: bool) -> str:
    """``c[r, :] = s[r, :] + a[r, :] @ w`` for a few rows and the columns of a panel; w is packed."""
    name = f"tile_{num}_{k}_{width}" + ("_start" if start else "")
    if name in writer.functions:
        return name
    writer.functions[name] = ""
    m, out = writer.machine, type(writer)(writer.bits, writer.machine)
    vectors = -(-width // m.lanes)
    kind = f"<{m.lanes} x {writer.real}>"
    fma = f"llvm.fma.v{m.lanes}f{writer.bits}"
    writer.declared.add(f"declare {kind} @{fma}({kind}, {kind}, {kind})")
    sets = max(1, min(4, 8 // (num * vectors), k))
    for r in range(num):
        out.put(f"%a{r} = getelementptr inbounds {writer.real}, ptr %a, i64 {out.times('%lda', r)}")

    def step(at: str, totals: list[str]) -> list[str]:
        columns = []
        for v in range(vectors):
            place = out.add(out.times(at, m.panel), v * m.lanes)
            pointer = out.let(f"getelementptr inbounds {writer.real}, ptr %w, i64 {place}")
            columns.append(out.let(f"load {kind}, ptr {pointer}, align {m.lanes * writer.bits // 8}"))
        new = []
        for r in range(num):
            pointer = out.let(f"getelementptr inbounds {writer.real}, ptr %a{r}, i64 {at}")
            one = out.let(f"load {writer.real}, ptr {pointer}")
            first = out.let(f"insertelement {kind} poison, {writer.real} {one}, i64 0")
            spread = out.let(f"shufflevector {kind} {first}, {kind} poison, <{m.lanes} x i32> zeroinitializer")
            for v in range(vectors):
                total = totals[r * vectors + v]
                new.append(out.let(f"call {kind} @{fma}({kind} {spread}, {kind} {columns[v]}, {kind} {total})"))
        return new

    count = num * vectors
    bits = f"<{m.lanes} x i1>"

    def mask(v: int) -> str:
        """Lanes of the last vector that are columns."""
        left = min(m.lanes, width - v * m.lanes)
        return f"{bits} <" + ", ".join("i1 true" if i < left else "i1 false" for i in range(m.lanes)) + ">"

    def place(base: str, stride: str, r: int, v: int) -> str:
        row = out.let(f"getelementptr inbounds {writer.real}, ptr {base}, i64 {out.times(stride, r)}")
        return out.let(f"getelementptr inbounds {writer.real}, ptr {row}, i64 {v * m.lanes}")

    first = ["zeroinitializer"] * count
    if start:
        for r in range(num):
            for v in range(vectors):
                pointer = place("%s", "%lds", r, v)
                if width - v * m.lanes >= m.lanes:
                    first[r * vectors + v] = out.let(f"load {kind}, ptr {pointer}, align {writer.bits // 8}")
                else:
                    masked = f"llvm.masked.load.v{m.lanes}f{writer.bits}.p0"
                    writer.declared.add(f"declare {kind} @{masked}(ptr, i32, {bits}, {kind})")
                    first[r * vectors + v] = out.let(
                        f"call {kind} @{masked}(ptr {pointer}, i32 {writer.bits // 8}, {mask(v)}, "
                        f"{kind} zeroinitializer)"
                    )
    out.put("br label %head")
    out.block("head")
    out.put("%i = phi i64 [ 0, %entry ], [ %next, %head ]")
    totals = []
    for j in range(sets * count):
        totals.append(f"%t{j}")
        begin = first[j] if j < count else "zeroinitializer"
        out.put(f"%t{j} = phi {kind} [ {begin}, %entry ], [ %u{j}, %head ]")
    for s in range(sets):
        new = step(out.add("%i", s), totals[s * count : (s + 1) * count])
        for j, value in enumerate(new):
            out.put(f"%u{s * count + j} = fadd {kind} {value}, {_negative_zero(m.lanes, writer.real)}")
    out.put(f"%next = add nuw nsw i64 %i, {sets}")
    out.put(f"%more = icmp sle i64 %next, {k - sets}")
    out.put("br i1 %more, label %head, label %rest")
    out.block("rest")
    sums = []
    for j in range(count):
        total = f"%u{j}"
        for s in range(1, sets):
            total = out.let(f"fadd {kind} {total}, %u{s * count + j}")
        sums.append(total)
    for i in range(k // sets * sets, k):
        sums = step(str(i), sums)
    for r in range(num):
        for v in range(vectors):
            pointer, value = place("%c", "%ldc", r, v), sums[r * vectors + v]
            if width - v * m.lanes >= m.lanes:
                out.put(f"store {kind} {value}, ptr {pointer}, align {writer.bits // 8}")
            else:
                masked = f"llvm.masked.store.v{m.lanes}f{writer.bits}.p0"
                writer.declared.add(f"declare void @{masked}({kind}, ptr, i32, {bits})")
                out.put(f"call void @{masked}({kind} {value}, ptr {pointer}, i32 {writer.bits // 8}, {mask(v)})")
    out.put("ret void")
    body = "\n".join(line for line in out.lines)
    writer.functions[name] = (
        f"define internal void @{name}(ptr %a, i64 %lda, ptr %w, ptr %c, i64 %ldc, ptr %s, i64 %lds) noinline"
        " #0 {\nentry:\n" + body + "\n}"
    )
    return name


def _negative_zero(lanes: int, real: str) -> str:
    return "<" + ", ".join(f"{real} -0.0" for _ in range(lanes)) + ">"
