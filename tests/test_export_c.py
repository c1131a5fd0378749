"""Networks as C: every cell that has a native step, compiled, run under sanitizers, and compared with Loop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from recurra.cells import ElmanCell, EmbeddingCell, GRUCell, LSTMCell
from recurra.core import Cell, tree
from recurra.core.catalog import members
from recurra.core.cell import StochasticCell
from recurra.engines import Loop
from recurra.engines.native import stream_plan
from recurra.export import to_c
from recurra.export.c import network_of, write
from recurra.export.network import quieted
from recurra.testing import Setting
from recurra.testing.generate import case, convert
from recurra.wrappers import Readout, Residual, Stack

COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g0")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (set CC, or install gcc) to compile what is written")


def compiled(folder: Path, sources: list[str], *options: str) -> Path:
    """The program of some files."""
    command = [str(COMPILER), *STRICT, *options, *sources, "-lm", "-o", "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "program"


def run(program: Path, given: bytes, *arguments: str) -> bytes:
    """Its output; a finding of a sanitizer is a failure."""
    done = subprocess.run([str(program), *arguments], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    return done.stdout


class Example(NamedTuple):
    """A cell, and what it is fed."""

    name: str
    cell: Cell
    xs: Any
    state: Any


def examples() -> list[Example]:
    """Every cell of the catalog whose step has a native form, and nested ones."""
    torch.manual_seed(0)
    more = [
        Readout(Stack(EmbeddingCell(11, 4), LSTMCell(4, 6, layer_norm=True), GRUCell(6, 5)), 11),
        Stack(Stack(LSTMCell(3, 4), GRUCell(4, 3)), Residual(Stack(ElmanCell(3, 3), GRUCell(3, 3)))),
        LSTMCell(3, 5).learn_initial_state(),
        Readout(GRUCell(1, 17), 9),
    ]
    named = [(f"{name}{i}", cell) for name, cls in members("cells").items() for i, cell in enumerate(cls.examples())]
    found = []
    for name, cell in [*named, *((f"More{i}", cell) for i, cell in enumerate(more))]:
        given = case(convert(cell, torch.float32), Setting(dtype=torch.float32))
        with torch.no_grad():
            for value in given.cell.parameters():
                if name.startswith("More2") and value.ndim == 1:
                    value.uniform_(-1, 1)
        xs = given.xs.x if isinstance(given.cell, StochasticCell) else given.xs
        found.append(Example(name, given.cell, xs, given.state))
    return found


EXAMPLES = examples()


def fed(example: Example) -> bytes:
    """Inputs and states as the driver reads them: for each row its state, then its steps."""
    xs, states = tree.leaves(example.xs), tree.leaves(example.state)
    num_steps, rows = xs[0].shape[:2]
    parts = []
    for b in range(rows):
        parts += [as_bytes(s[b]) for s in states]
        for t in range(num_steps):
            parts += [as_bytes(x[t, b], whole=np.int32) for x in xs]
    return b"".join(parts)


def as_bytes(value: Tensor, whole: Any = np.int64) -> bytes:
    """As C has it."""
    kinds = {torch.float32: np.float32, torch.int64: whole, torch.bool: np.uint8}
    return bytes(value.detach().contiguous().numpy().astype(kinds[value.dtype]).tobytes())


def driver(name: str, index: int, network: Any, rows: int, num_steps: int) -> str:
    """A function in C that steps a network through what is on the standard input."""
    step, lines = network.source.steps[0], [f"static void run{index}(void)", "{"]
    sizes = {"float": "float", "integer": "int32_t", "boolean": "uint8_t"}
    outs = {"float": "float", "integer": "int64_t", "boolean": "uint8_t"}
    read, write = [], []
    for p in step.inputs:
        lines.append(f"    {sizes[p.dtype]} in_{p.name}[{max(1, p.size)}];")
        read.append(f"get(in_{p.name}, sizeof in_{p.name}[0] * {p.size});")
    for p in step.outputs:
        lines.append(f"    {outs[p.dtype]} out_{p.name}[{max(1, p.size)}];")
        write.append(f"put(out_{p.name}, sizeof out_{p.name}[0] * {p.size});")
    lines += [f"    {name}_state s;", f"    for (int row = 0; row < {rows}; ++row) {{", f"        {name}_reset(&s);"]
    for f in network.source.fields:
        where = f"s.{f.name}[0]" if f.turns else f"s.{f.name}"
        lines.append(f"        get({where}, sizeof {where}[0] * {f.size});")
    lines.append(f"        for (int t = 0; t < {num_steps}; ++t) {{")
    lines += [f"            {line}" for line in read]
    arguments = ["&s", *(f"in_{p.name}[0]" if p.single else f"in_{p.name}" for p in step.inputs)]
    arguments += [f"out_{p.name}" for p in step.outputs]
    lines.append(f"            {name}_step({', '.join(arguments)});")
    lines += [f"            {line}" for line in write] + ["        }"]
    for f in network.source.fields:
        where = f"s.{f.name}[s.turn]" if f.turns else f"s.{f.name}"
        lines.append(f"        put({where}, sizeof {where}[0] * {f.size});")
    return "\n".join([*lines, "    }", "}"])


HELPERS = """
static void get(void *to, size_t size)
{
    if (fread(to, 1, size, stdin) != size) {
        exit(3);
    }
}

static void put(const void *from, size_t size)
{
    if (fwrite(from, 1, size, stdout) != size) {
        exit(4);
    }
}
"""


def together(folder: Path, names: list[str]) -> str:
    """Several networks in one file: their own helper functions get names of their own."""
    parts = []
    for name in names:
        found = set(re.findall(r"^static \w+ (\w+)\(", (folder / f"{name}.c").read_text(), re.MULTILINE))
        parts += [f"#define {h} {name}_{h}" for h in sorted(found)] + [f'#include "{name}.c"']
        parts += [f"#undef {h}" for h in sorted(found)]
    return "\n".join(parts)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For every example the bytes that its C code answers, in float32 and in 8 bits; or why it has none."""
    folder = tmp_path_factory.mktemp("c")
    texts, names, calls, given, answers = [], [], [], [], {}
    for example in EXAMPLES:
        rows, num_steps = (int(n) for n in (tree.leaves(example.xs)[0].shape[1], tree.leaves(example.xs)[0].shape[0]))
        for bits in (32, 8) if example.name[-1] in "03" else (32,):
            name, index = f"{example.name.lower()}_{bits}", len(names)
            try:
                network = network_of(example.cell, name, bits, None)
            except ValueError as error:
                answers[example.name] = str(error)
                break
            write(network, folder)
            texts.append(driver(name, index, network, rows, num_steps))
            names.append((example.name, bits, network))
            given.append(fed(example))
            calls.append(f"        case {index}: run{index}(); break;")
    main = ["int main(int argc, char **argv)", "{", "    (void)argc;", "    switch (atoi(argv[1])) {", *calls]
    main += ["        default: return 5;", "    }", "    return 0;", "}"]
    head = "#include <stdio.h>\n#include <stdlib.h>\n"
    text = "\n\n".join([head, together(folder, [n.name for _, _, n in names]), HELPERS, *texts, "\n".join(main)]) + "\n"
    (folder / "all.c").write_text(text)
    program = compiled(folder, ["all.c"], "-O1", *SANITIZERS)
    for index, (name, bits, network) in enumerate(names):
        answers[name, bits] = (network, run(program, given[index], str(index)))
    return answers


def compare(example: Example, network: Any, answer: bytes, tolerance: float, *, rounded: bool = False) -> None:
    """The numbers of C are those of Loop; with ``rounded``, those of the same step in torch with rounded weights."""
    xs, states = tree.leaves(example.xs), tree.leaves(example.state)
    num_steps, rows = xs[0].shape[:2]
    with torch.no_grad():
        if rounded:
            now, outputs = list(states), []
            for t in range(num_steps):
                ys, now = network.step.run([x[t] for x in xs], now, rounded=True)
                outputs.append(ys)
            wanted, last = [torch.stack(column) for column in zip(*outputs)], now
            slack = [0.0] * len(wanted + last)
        else:
            cell = quieted(example.cell)
            found, end = Loop()(cell, example.xs, example.state)
            wanted, last = tree.leaves(found), tree.leaves(end)
            exact = Loop()(cell.double(), *(tree.map(doubled, v) for v in (example.xs, example.state)))
            # where float32 itself is less sure than the tolerance, C may be a few times as far off as Loop is
            slack = [8 * off(a, b) for a, b in zip(wanted + last, tree.leaves(exact))]
    place = 0

    def next_(like: Tensor) -> Tensor:
        nonlocal place
        kind = {torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.uint8}[like.dtype]
        value = np.frombuffer(answer, kind, like.numel(), place)
        place += value.nbytes
        return torch.from_numpy(value.copy()).to(like.dtype).reshape(like.shape)

    for b in range(rows):
        for t in range(num_steps):
            for y, more in zip(wanted, slack):
                near(next_(y[t, b]), y[t, b], y, tolerance, more)
        for s, more in zip(last, slack[len(wanted) :]):
            near(next_(s[b]), s[b], s, tolerance, more)
    assert place == len(answer)


def doubled(leaf: Tensor) -> Tensor:
    """In float64, if it is a real number."""
    return leaf.double() if leaf.is_floating_point() else leaf


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def near(ours: Tensor, theirs: Tensor, all_of_them: Tensor, tolerance: float, slack: float) -> None:
    """Relative to the largest."""
    scale = max(1.0, float(all_of_them.double().abs().max())) if all_of_them.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=max(tolerance * scale, slack))


@needs_compiler
@pytest.mark.parametrize("example", [pytest.param(e, id=e.name) for e in EXAMPLES])
def test_c_is_loop(example: Example, results: dict[str, Any]) -> None:
    if example.name in results:
        x = tree.map(lambda leaf: leaf[0], example.xs)
        reason = stream_plan(quieted(example.cell), x, example.state, compiled=False)
        assert isinstance(reason, str), "what has a native step can be exported"
        assert reason in results[example.name]
        pytest.skip(f"no native step: {reason}")
    compare(example, *results[example.name, 32], 1e-6)
    if (example.name, 8) in results:
        compare(example, *results[example.name, 8], 2e-6, rounded=True)
