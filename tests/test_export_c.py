"""Networks as C: every cell that has a native step, compiled, run under sanitizers, and compared with Loop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from c_compiler import SANITIZERS, compiled, needs_compiler, run
from recurra.cells import ElmanCell, EmbeddingCell, GRUCell, LSTMCell
from recurra.cli.main import app
from recurra.core import Cell, tree
from recurra.core.catalog import members
from recurra.core.cell import StochasticCell
from recurra.core.spec import Leaf
from recurra.engines import Loop
from recurra.engines.native import stream_plan
from recurra.estimators import LanguageModel
from recurra.export import to_c
from recurra.export.c import network_of, write
from recurra.export.network import quieted
from recurra.layers import Recurrent
from recurra.testing import Setting
from recurra.testing.generate import case, convert
from recurra.wrappers import Attention, Readout, Residual, Stack
from test_native import RandomCell


class Given(NamedTuple):
    """Input of `Mixed`."""

    x: Any
    gap: Any
    flag: Any
    place: Any


class MixedState(NamedTuple):
    """State of `Mixed`."""

    h: Any
    y: tuple[Any, Any]


class Mixed(Cell[Given, Any, MixedState]):
    """Every kind of number in the input, in a nested state, and in the output; names that C has taken."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 5))
        self.register_buffer("i", torch.tensor([2, 3, 4]))

    @classmethod
    def examples(cls) -> Iterator[Mixed]:
        """One."""
        yield cls()

    @property
    def input_spec(self) -> Given:
        """A vector, a number, a truth value, a whole number."""
        whole = Leaf((), torch.int64, 0, 6)
        return Given(Leaf((2,)), Leaf((), None, 0.0, 1.0), Leaf((), torch.bool), whole)

    @property
    def output_spec(self) -> tuple[Leaf, ...]:
        """Likewise."""
        return Leaf((3,)), Leaf((3,), torch.int64), Leaf((3,), torch.bool)

    def initial_state(self, batch_size: int) -> MixedState:
        """A vector; whole numbers and truth values."""
        whole = self.initial("clock", batch_size, 3, dtype=torch.int64, value=-5)
        return MixedState(
            self.initial("h", batch_size, 3), (whole, self.initial("on", batch_size, 3, dtype=torch.bool))
        )

    def step(self, x: Given, state: MixedState) -> tuple[Any, MixedState]:
        """A bit of everything."""
        clock, on = state.y
        h = torch.tanh(torch.cat([x.x, state.h], -1) @ self.weight.t() * x.gap[:, None])
        h = torch.where(x.flag[:, None], h, state.h)
        clock = clock + x.place[:, None] * self.i - 7
        on = (h > 0) | on & (clock % 3 != 0)
        y = (h.round() + torch.remainder(h, 0.3), clock // self.i, on)
        return y, MixedState(h, (clock, on))


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
        Mixed(),
        *(RandomCell(4, 5, [(seed + i, 3 * i + seed, i) for i in range(5)], seed) for seed in range(6)),
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
    lines += [f"    {name}_state s;", f"    for (int row = 0; row < {rows}; ++row) {{"]
    # what is read before it is written would be no number
    lines += ["        memset(&s, 0xFF, sizeof s);", f"        {name}_reset(&s);"]
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
        for bits in (32, 8) if example.name[-1] == "0" else (32,):
            name, index = f"{example.name.lower()}_{bits}", len(names)
            try:
                network = network_of(example.cell, name, bits)
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
    head = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    text = "\n\n".join([head, together(folder, [n.name for _, _, n in names]), HELPERS, *texts, "\n".join(main)]) + "\n"
    (folder / "all.c").write_text(text)
    program = compiled(folder, ["all.c"], *SANITIZERS)
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


# --- models of people's data ---


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    """A small one, of a text with characters of one to four bytes."""
    text = "to be or not to be, thät is 中 question 🙂\n" * 30
    model = LanguageModel(
        hidden_size=12, embedding_size=6, num_layers=2, num_updates=20, num_steps=20, batch_size=4, seed=1
    )
    return model.fit(text)


LM_MAIN = """
#include "lm.h"

#include <stdio.h>

int main(void)
{
    static lm_state s;
    static float y[LM_NUM_TOKENS];
    unsigned long code;

    lm_reset(&s);
    while (scanf("%lu", &code) == 1) {
        const int32_t token = lm_token((uint32_t)code);
        lm_step(&s, token, y);
        printf("%ld", (long)token);
        for (int i = 0; i < LM_NUM_TOKENS; ++i) {
            printf(" %.9g", (double)y[i]);
        }
        printf("\\n");
    }
    return 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("bits", [32, 8])
def test_a_language_model_reads_in_c_what_it_reads_in_python(
    language_model: LanguageModel, bits: int, tmp_path: Path
) -> None:
    text = "not to 中 🙂 be, xylöphon ä"
    found = to_c(language_model, tmp_path, "lm", bits=bits, data="to be or not to be\n" * 20)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(found.files)
    (tmp_path / "main.c").write_text(LM_MAIN)
    compiled(tmp_path, ["lm.c", "lm_example.c"], "-O3")  # optimisers warn of more
    answer = run(compiled(tmp_path, ["lm.c", "main.c"], *SANITIZERS), " ".join(str(ord(c)) for c in text).encode())
    rows = [line.split() for line in answer.decode().splitlines()]
    tokens = language_model.tokens_.encode(text)
    assert [int(row[0]) for row in rows] == tokens.tolist()
    with torch.no_grad():
        ys, _ = Loop()(language_model.cell_, tokens[:, None])
    ours = torch.tensor([[float(v) for v in row[1:]] for row in rows])
    assert off(ours, ys[:, 0]) < (1e-6 if bits == 32 else 0.1)
    facts = json.loads((tmp_path / "lm.json").read_text())
    if bits == 8:
        assert facts["weight_bytes"] < 0.5 * sum(4 * p.numel() for p in language_model.cell_.parameters())
        assert abs(facts["loss"]["lost_nats_per_token"]) < 0.02
        assert "tokens: the inputs that were given" in (tmp_path / "README.md").read_text()
    else:
        assert not facts["loss"]


@needs_compiler
@pytest.mark.parametrize("tokens", ["chars", "bytes", "words"])
def test_the_example_of_a_language_model_writes(tokens: str, tmp_path: Path) -> None:
    text = 'say "what?" to\\it ??/ and 中\n' * 30
    model = LanguageModel(
        hidden_size=8, embedding_size=4, num_updates=2, num_steps=20, batch_size=4, tokens=tokens
    ).fit(text)
    to_c(model, tmp_path, "lm")
    written = run(compiled(tmp_path, ["lm.c", "lm_example.c"], *SANITIZERS), b"")
    if tokens == "chars":
        assert len(written.decode()) == 201
        assert set(written.decode()) <= set(text)
    if tokens == "words":
        assert set(written.decode().split()) <= set(text.split())


def test_a_committee_writes_its_average(tmp_path: Path) -> None:
    text = "to be or not to be\n" * 30
    model = LanguageModel(hidden_size=6, embedding_size=4, num_updates=2, num_models=2, num_steps=20, batch_size=4).fit(
        text
    )
    network = network_of(model, "lm", 32, None)
    xs = model.tokens_.encode("be not")[:, None]
    with torch.no_grad():
        ys, _ = Loop()(model.cell_, xs)
        state = network.first_state([xs])
        for x, y in zip(xs, ys):
            (ours,), state = network.step.run([x], state, rounded=False)
            torch.testing.assert_close(ours, y)


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^to_c: model must be a cell or a fitted .*, got GRU\.$"):
        to_c(torch.nn.GRU(3, 4), tmp_path)
    with pytest.raises(TypeError, match=r"got Recurrent\. Give its cell\.$"):
        to_c(Recurrent(GRUCell(3, 4)), tmp_path)
    with pytest.raises(ValueError, match=r"^to_c: bits must be "):
        to_c(GRUCell(3, 4), tmp_path, bits=4)
    for name in ("2nd", "int", "a b", "../x", "", "é"):
        with pytest.raises(ValueError, match=r"^to_c: name must be a name in C"):
            to_c(GRUCell(3, 4), tmp_path, name)
    with pytest.raises(
        ValueError, match=r"^to_c: the model must be one whose step has a form in C, .* 'sort' has no native form"
    ):
        to_c(_Sorting(3, 4), tmp_path)
    network_of(GRUCell(3, 4).double(), "net", 32, None)  # becomes float32
    with pytest.raises(ValueError, match="fitted first"):
        to_c(LanguageModel(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_caller_writes_is_named(tmp_path: Path) -> None:
    to_c(next(iter(Attention.examples())), tmp_path, "a")
    assert "of `a_state` and never changes it: write it after the reset." in (tmp_path / "README.md").read_text()


@needs_compiler
def test_a_state_to_begin_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = Attention(GRUCell(2 + 3, 4), 3, 5)
    state = cell.attend(torch.randn(1, 7, 3), torch.tensor([6]))
    to_c(cell, tmp_path, "a", state=state)
    xs = torch.randn(4, 1, 2)
    with torch.no_grad():
        ys, _ = Loop()(cell, xs, state)
    given = " ".join(str(v) for v in xs.reshape(-1).tolist()).encode()
    lines = run(compiled(tmp_path, ["a.c", "a_example.c"], *SANITIZERS), given).decode().splitlines()
    ours = torch.tensor([[float(v) for v in line.split()] for line in lines])
    torch.testing.assert_close(ours, ys[:, 0], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="Attention"):
        to_c(cell, tmp_path, "a", state=cell.attend(torch.randn(2, 7, 3)))


class _Sorting(ElmanCell):
    """Uses an operation that has no native form."""

    def advance(self, projected: Tensor, state: Any) -> Any:
        """With a sorted state."""
        return super().advance(projected, state._replace(h=state.h.sort(-1).values))


@needs_compiler
def test_a_stream_may_be_copied_and_begun_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = GRUCell(2, 3).learn_initial_state()
    with torch.no_grad():
        for value in cell.parameters():
            value.uniform_(-1, 1)
    to_c(cell, tmp_path, "g")
    main = """
#include "g.h"

#include <stdio.h>

int main(void)
{
    const float x[4] = {0.5f, -1.0f, 0.25f, 2.0f};
    float y[3];
    g_state a, b;
    g_reset(&a);
    g_step(&a, x, y);
    b = a;
    g_step(&b, x + 2, y);
    g_reset(&b);
    g_step(&a, x + 2, y);
    g_step(&b, x, y);
    g_step(&b, x + 2, y);
    for (int i = 0; i < 3; ++i) {
        printf("%.9g %.9g %.9g\\n", (double)y[i], (double)a.h[a.turn][i], (double)b.h[b.turn][i]);
    }
    return 0;
}
"""
    (tmp_path / "main.c").write_text(main)
    answer = run(compiled(tmp_path, ["g.c", "main.c"], *SANITIZERS), b"").decode()
    with torch.no_grad():
        wanted = Loop()(cell, torch.tensor([[[0.5, -1.0]], [[0.25, 2.0]]]))[0][1, 0]
    for line, value in zip(answer.splitlines(), wanted.tolist()):
        assert all(abs(float(v) - value) < 1e-6 for v in line.split())


@needs_compiler
def test_what_is_no_number_passes_through(tmp_path: Path) -> None:
    cell = LSTMCell(2, 3)
    to_c(cell, tmp_path, "n")
    program = compiled(tmp_path, ["n.c", "n_example.c"], *SANITIZERS)
    lines = run(program, b"nan 0 inf 0 -inf 1").decode().splitlines()
    xs = torch.tensor([[[float("nan"), 0.0]], [[float("inf"), 0.0]], [[float("-inf"), 1.0]]])
    with torch.no_grad():
        wanted = Loop()(cell, xs)[0][:, 0]
    ours = torch.tensor([[float(v) for v in line.split()] for line in lines])
    torch.testing.assert_close(ours, wanted, equal_nan=True)


# --- the command ---


def test_the_command(language_model: LanguageModel, tmp_path: Path) -> None:
    folder = tmp_path / "my text-model"
    language_model.save(folder)
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "c", "--bits", "8", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["name"] == "my_text"
    assert found["folder"] == f"{folder}-c"
    assert found["loss"]["measured_on"].endswith("a text that the model wrote itself")
    assert (tmp_path / "my text-model-c" / "my_text.c").exists()
    text = tmp_path / "other.txt"
    text.write_text("question: to be or not to be\n" * 20)
    options = ["--bits", "8", "--data", str(text), "--out", str(tmp_path / "c"), "--name", "lm"]
    words = " ".join(CliRunner().invoke(app, ["export", str(folder), *options]).output.split())
    assert "lost nats per token" in words
    assert "gcc -std=c99 -O3 lm.c lm_example.c -lm -o lm" in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "rust"], "recurra: --to must be "),
        (["--bits", "16"], "recurra: --bits must be "),
        (["--data", "x.txt"], "recurra: --data must be left out for 32 bits"),
        (["--name", "2"], "to_c: name must be a name in C"),
    ],
)
def test_a_mistake_is_a_sentence(options: list[str], words: str, language_model: LanguageModel, tmp_path: Path) -> None:
    language_model.save(tmp_path / "run")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "run-c").exists()
