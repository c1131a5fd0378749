"""What a model is as a program in C: its functions, its tables, an example, and what 8-bit weights cost."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell
from ..core.spec import Leaf
from ..core.tree import Tree
from ..native.graph import FLOAT, INTEGER
from .source import Source, Step

STEPS, STREAMS = 100, 8  # of a measurement on made-up input


class Network:
    """A cell, and the base of what else can be written.

    Args:
        model: a cell.
        name: prefix in C.
        bits: of a weight, 32 or 8.
        data: real inputs to measure the loss of accuracy on; None where there are none.
        state: of a cell, from which a stream begins; None for the cell's own.
    """

    data_words = "the inputs that were given"
    example_includes: tuple[str, ...] = ("#include <stddef.h>", "#include <stdint.h>", "#include <stdio.h>")

    def __init__(self, model: Any, name: str, bits: int, data: Any = None, state: Tree = None) -> None:
        self.model, self.name, self.bits, self.data, self.state = model, name, bits, data, state
        self.source = Source(name, bits)
        self.functions: list[str] = []
        self.tables: list[str] = []
        self.weights: list[str] = []
        self.write()

    # --- what a kind of model says ---

    def write(self) -> None:
        """Put the functions into ``source``."""
        self.cell = quieted(self.model)
        state = None
        if self.state is not None:
            self.model.check_state(self.state, 1)
            state = tree.map(lambda v: v.detach().cpu().float() if v.is_floating_point() else v.cpu(), self.state)
        words = "One step: the state changes, y is the output. x and y must not overlap."
        self.source.add("step", self.cell, words=words, state=state)

    def title(self) -> list[str]:
        """What it is, for the header and the README."""
        count = sum(p.numel() for p in self.cell.parameters())
        return [f"{type(self.model).__name__}, {count:,} weights"]

    def notes(self) -> list[str]:
        """Paragraphs for the README: what is inside, and what is not."""
        found = [f"Inside: the step of the cell, its weights and its initial state, which `{self.name}_reset` sets."]
        fixed = [f"`{f.name}` ({f.size} numbers)" for f in self.source.fields if not f.turns]
        if fixed:
            names = ", ".join(fixed)
            found.append(
                f"The step reads {names} of `{self.name}_state` and never changes it: write it after the reset."
            )
        return found

    def example(self) -> list[str]:
        """The body of ``main`` in the example."""
        return stepping(self.name, self.step)

    def example_helpers(self) -> list[str]:
        """Functions before the example's ``main``."""
        return []

    def calling(self) -> str:
        """How the functions are used."""
        name = self.name
        return (
            f"Keep one `{name}_state` for each stream, call `{name}_reset` once, then `{name}_step` for each step; `{name}.h` "
            "says what goes in and out. Nothing is allocated and nothing global is written, so streams may run in different "
            f"threads. {self.reads()}"
        )

    def reads(self) -> str:
        """What the example does."""
        return f"The example reads {self.num_inputs} numbers for each step and writes what comes out, a line a step."

    def usage(self) -> str:
        """How the example is called."""
        return f"echo '{' '.join(['0'] * min(8, self.num_inputs))}' | ./{self.name}"

    def measure(self) -> tuple[dict[str, float], str]:
        """What 8-bit weights lose: measures, and a sentence about the input that they were measured on."""
        xs, words = self.inputs()
        return compared(self.step, self.first_state(xs), xs), words

    # --- helpers ---

    @property
    def step(self) -> Step:
        """The function ``step``."""
        return self.source.steps[0]

    @property
    def num_inputs(self) -> int:
        """Numbers that a step reads."""
        return sum(p.size for p in self.step.inputs)

    def first_state(self, xs: list[Tensor]) -> list[Tensor]:
        """Leaves (B, ...) at the beginning."""
        rows = xs[0].shape[1] if xs else 1
        return [f.start.expand(rows, *f.shape).clone() for f in self.source.fields]

    def inputs(self) -> tuple[list[Tensor], str]:
        """Leaves (T, B, ...) to measure on, and what they are."""
        if self.data is not None:
            num_steps, rows = tree.leaves(self.data)[0].shape[:2]
            return tree.leaves(self.data), f"{num_steps:,} steps of {rows:,} streams: {self.data_words}"
        words = f"made-up input: {STEPS} steps of {STREAMS} streams, normal noise (tokens: all equally likely), seed 0"
        return made_up(self.cell.input_spec), words


def quieted(cell: Cell) -> Cell:
    """A copy for inference: on the CPU, float32, in evaluation mode."""
    return copy.deepcopy(cell).cpu().float().eval().requires_grad_(False)


def made_up(spec: Tree) -> list[Tensor]:
    """Random leaves (T, B, ...) of a spec."""
    generator = torch.Generator().manual_seed(0)

    def leaf(one: Leaf) -> Tensor:
        shape = (STEPS, STREAMS, *(int(n) for n in one.shape))
        if one.dtype == torch.bool:
            return torch.rand(shape, generator=generator) < 0.5
        if one.dtype is not None and not one.dtype.is_floating_point:
            high = 2 if one.high is None else int(one.high)
            return torch.randint(int(one.low or 0), high, shape, generator=generator)
        found = torch.randn(shape, generator=generator)
        if one.low is not None or one.high is not None:
            found = found.clamp(one.low, one.high)
        return found

    return tree.leaves(tree.map(leaf, spec))


def run_both(step: Step, states: list[Tensor], xs: list[Tensor]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Outputs of all steps with the weights as they are, and as they are stored."""
    found = []
    with torch.no_grad():
        for rounded in (False, True):
            now, outputs = list(states), []
            for t in range(int(xs[0].shape[0])):
                ys, now = step.run([x[t] for x in xs], now, rounded=rounded)
                outputs.append(ys)
            found.append(outputs)
    return found[0], found[1]


def compared(step: Step, states: list[Tensor], xs: list[Tensor]) -> dict[str, float]:
    """How far the outputs are apart."""
    exact, rounded = run_both(step, states, xs)
    return distances(
        torch.cat([y.double().flatten() for ys in exact for y in ys]),
        torch.cat([y.double().flatten() for ys in rounded for y in ys]),
    )


def distances(exact: Tensor, rounded: Tensor) -> dict[str, float]:
    """Of outputs with rounded weights from those with exact ones."""
    off = (rounded - exact).abs()
    size = float(exact.square().mean().sqrt())
    rms = float(off.square().mean().sqrt())
    return {
        "rms_error": rms,
        "rms_of_outputs": size,
        "relative_error": rms / size if size else (0.0 if not rms else math.inf),
        "largest_error": float(off.max()) if off.numel() else 0.0,
    }


def stepping(name: str, step: Step) -> list[str]:
    """The body of a ``main`` that reads numbers from the standard input and writes outputs, a line a step."""
    lines = [f"static {name}_state state;"]
    for p in step.inputs:
        kind = {FLOAT: "float", INTEGER: "int32_t"}.get(p.dtype, "uint8_t")
        lines.append(f"{kind} {p.name}[{max(1, p.size)}];")
    for p in step.outputs:
        kind = {FLOAT: "float", INTEGER: "int64_t"}.get(p.dtype, "uint8_t")
        lines.append(f"{kind} {p.name}[{max(1, p.size)}];")
    given = [p for p in step.inputs if p.size]
    forever = "for (;;) {" if given else "for (int t = 0; t < 10; ++t) {"
    lines += [*(["double value;"] if given else []), "", f"{name}_reset(&state);", forever]
    for p in given:
        kind = {FLOAT: "float", INTEGER: "int32_t"}.get(p.dtype, "uint8_t")
        convert = "value != 0.0" if kind == "uint8_t" else "value"
        lines += [
            f"    for (size_t i = 0; i < {p.size}; ++i) {{",
            '        if (scanf("%lf", &value) != 1) {',
            "            return 0;",
            "        }",
            f"        {p.name}[i] = ({kind})({convert});"
            if kind == "uint8_t"
            else f"        {p.name}[i] = ({kind})value;",
            "    }",
        ]
    lines.append(f"    {name}_step({called(step)});")
    for p in step.outputs:
        lines += [
            f"    for (size_t i = 0; i < {p.size}; ++i) {{",
            f'        printf("%.9g ", (double){p.name}[i]);',
            "    }",
        ]
    return [*lines, '    printf("\\n");', "}", *([] if given else ["return 0;"])]


def called(step: Step, state: str = "&state") -> str:
    """The arguments of a call whose variables are arrays of the parameters' names."""
    return ", ".join(
        [state, *(f"{p.name}[0]" if p.single else p.name for p in step.inputs), *(p.name for p in step.outputs)]
    )
