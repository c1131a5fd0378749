"""The stages of forward and backward programs under AddressSanitizer and UndefinedBehaviorSanitizer, by way of C.

Machine code and C come from one program of stages: which element of which array is read and written, in which order, is
decided before either is written. Arrays are of exactly their size, so that a step beside one is found.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from c_compiler import SANITIZERS, compiled, needs_compiler, run
from recurra.cells import ClockworkCell, FullyRecurrentCell, GRUCell, LSTM1997Cell, LSTMCell
from recurra.core import Cell, Controls
from recurra.engines import Loop, Native
from recurra.native.c import CWriter
from recurra.native.plan import Plan, weight_matrix
from test_native import RandomCell, outcome

NUM_RANDOM = 10


class Call(NamedTuple):
    """One run of a program: its C code, the arrays before, and what machine code made of them."""

    text: str
    name: str
    num_steps: int
    rows: int
    before: list[bytes]
    after: list[Tensor]
    tolerance: float


DRIVER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void get(void *to, size_t size)
{
    if (fread(to, 1, size, stdin) != size) {
        exit(3);
    }
}

int main(void)
{
    int64_t head[4];
    while (fread(head, sizeof head[0], 4, stdin) == 4) {
        const size_t count = (size_t)head[3];
        void **arrays = malloc(count * sizeof *arrays);
        int64_t *sizes = malloc(count * sizeof *sizes);
        for (size_t i = 0; i < count; ++i) {
            get(&sizes[i], sizeof sizes[i]);
            arrays[i] = malloc((size_t)sizes[i]);
            get(arrays[i], (size_t)sizes[i]);
        }
        switch (head[0]) {
CASES
        default:
            return 5;
        }
        for (size_t i = 0; i < count; ++i) {
            if (fwrite(arrays[i], 1, (size_t)sizes[i], stdout) != (size_t)sizes[i]) {
                return 4;
            }
            free(arrays[i]);
        }
        free(arrays);
        free(sizes);
    }
    return 0;
}
"""


def raw(value: Tensor) -> bytes:
    """The memory of a tensor."""
    return bytes(value.detach().contiguous().numpy().tobytes())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every run of a plan's programs from now on."""
    found: list[Call] = []
    original = Plan.call

    def recorded(self: Plan, name: str, arrays: Any, num_steps: int, rows: int, imports: Any, *more: Any) -> None:
        program = self.callers[name].program
        writer, own = CWriter(self.bits), f"{name}{len(found)}"
        text = writer.whole(own, program, len(arrays), down=name == "backward")
        weights = [weight_matrix(node, imports) for node in program.weights]
        before = [raw(t) for t in (*arrays, *weights)]
        original(self, name, arrays, num_steps, rows, imports, *more)
        after, tolerance = [t.clone() for t in arrays], 1e-9 if self.bits == 64 else 1e-4
        whole = [f"#define {helper} {own}_{helper}" for helper in writer.helpers]  # of this program alone
        whole += [*writer.helpers.values(), text, *(f"#undef {helper}" for helper in writer.helpers)]
        found.append(Call("\n".join(whole), own, num_steps, rows, before, after, tolerance))

    monkeypatch.setattr(Plan, "call", recorded)
    return found


def agree(calls: list[Call], folder: Path) -> None:
    """C, under sanitizers, leaves in every array what machine code leaves there."""
    cases = [
        f"        case {i}:\n            {c.name}(arrays, (size_t)head[1], (size_t)head[2], 0);\n            break;"
        for i, c in enumerate(calls)
    ]
    includes = "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n"
    text = "\n\n".join([includes, *(c.text for c in calls), DRIVER.replace("CASES", "\n".join(cases))])
    (folder / "programs.c").write_text(text)
    given = []
    for i, call in enumerate(calls):
        given.append(struct.pack("=4q", i, call.num_steps, call.rows, len(call.before)))
        given += [struct.pack("=q", len(part)) + part for part in call.before]
    answer = run(compiled(folder, ["programs.c"], *SANITIZERS), b"".join(given))
    place = 0
    for call in calls:
        for number, (before, after) in enumerate(zip(call.before, call.after)):
            piece = answer[place : place + len(before)]
            ours = torch.frombuffer(bytearray(piece), dtype=after.dtype) if piece else torch.zeros(0, dtype=after.dtype)
            scale = float(after.double().nan_to_num(0, 0, 0).abs().max()) if after.numel() else 1.0
            torch.testing.assert_close(
                ours.reshape(after.shape),
                after,
                rtol=call.tolerance,
                atol=call.tolerance * max(1.0, scale if scale < 1e30 else 1.0),
                equal_nan=True,
                msg=lambda text, call=call, number=number: f"{call.name}, array {number}: {text}",
            )
            place += len(before)
        place += sum(len(part) for part in call.before[len(call.after) :])
    assert place == len(answer)


def controls_of(kind: int, num_steps: int, rows: int) -> Controls:
    """Of four kinds: with and without lengths and resets."""
    generator = torch.Generator().manual_seed(kind)
    lengths = torch.randint(num_steps + 1, (rows,), generator=generator) if kind % 2 else None
    reset = torch.rand(num_steps, rows, generator=generator) < 0.3 if kind // 2 % 2 else None
    return Controls(lengths, reset)


def trained(cell: Cell, kind: int, num_steps: int = 3, rows: int = 3) -> None:
    """Forward and backward by machine code; the result is that of Loop."""
    generator = torch.Generator().manual_seed(kind)
    controls, state = controls_of(kind, num_steps, rows), cell.initial_state(rows)
    xs = torch.randn(num_steps, rows, cell.input_spec.shape[0], generator=generator, dtype=cell.dtype)
    ours = outcome(cell, xs, state, controls, Native())
    theirs = outcome(cell, xs, state, controls, Loop())
    near = 1e-8 if cell.dtype == torch.float64 else 1e-3
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=near, atol=near * max(1.0, float(b.abs().max())))


@needs_compiler
def test_random_cells_step_beside_no_array(calls: list[Call], tmp_path: Path) -> None:
    draw = random.Random(20)
    for number in range(NUM_RANDOM):
        size, width = draw.choice([(1, 3), (3, 4), (17, 5), (2, 19)])
        choices = [(draw.randrange(31), draw.randrange(31), draw.randrange(31)) for _ in range(draw.randint(1, 6))]
        cell = RandomCell(size, width, choices, number)
        trained(cell.double() if number % 3 else cell, number, rows=9 if number % 4 == 1 else 3)
    assert {call.name[:7] for call in calls} == {"forward", "backwar"}
    agree(calls, tmp_path)


@needs_compiler
def test_cells_of_the_catalog_step_beside_no_array(calls: list[Call], tmp_path: Path) -> None:
    torch.manual_seed(0)
    cells: list[Cell] = [
        LSTMCell(3, 5, peephole=True, layer_norm=True),
        ClockworkCell(2, 6, periods=(1, 2)),
        GRUCell(3, 9),
        LSTM1997Cell(2, 4, block_size=2),
        FullyRecurrentCell(2, 5),
    ]
    for kind, cell in enumerate(cells):
        trained(cell.double(), kind, rows=9 if kind % 2 else 3)
    agree(calls, tmp_path)


@needs_compiler
def test_a_step_beside_an_array_is_found(calls: list[Call], tmp_path: Path) -> None:
    torch.manual_seed(0)
    Native()(GRUCell(2, 3), torch.randn(2, 2, 2))
    short = [part[: max(0, len(part) - 1)] for part in calls[0].before]
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        agree([calls[0]._replace(before=short)], tmp_path)
