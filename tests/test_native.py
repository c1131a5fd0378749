"""The compiler: graphs, their derivatives, machine code, the engine. The engine laws run it on every cell besides."""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import struct
import subprocess
import sys
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recurra.cells import ElmanCell, GRUCell, IndRNNCell, LSTMCell
from recurra.core import Cell, Controls, tree
from recurra.engines import Loop, Native
from recurra.engines import native as engine
from recurra.native import build
from recurra.native.graph import FLOAT, Graph, split_flat
from recurra.wrappers import Attention

UNARY = (torch.tanh, torch.sigmoid, torch.relu, torch.abs, torch.sin, torch.square, nn.functional.softplus, torch.exp)
BINARY = (torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda a, b: a / (b.abs() + 1))


class RandomCell(Cell[Tensor, Tensor, tuple[Tensor, Tensor]]):
    """A step put together from a list of choices."""

    def __init__(self, size: int, width: int, choices: list[tuple[int, int, int]], seed: int) -> None:
        super().__init__()
        self.input_size, self.size, self.width, self.output_size = size, size, width, width
        self.choices, self.seed = choices, seed
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.5 * torch.randn(shape, generator=generator))

        self.weights = nn.ParameterList([draw(width, size), *(draw(width, width) for _ in range(3))])
        self.vectors = nn.ParameterList([draw(width) for _ in range(3)])

    @classmethod
    def examples(cls) -> Iterator[RandomCell]:
        """One."""
        yield cls(3, 4, [(0, 0, 0)], 0)

    def extra_repr(self) -> str:
        """Everything that decides the step."""
        return f"{self.size}, {self.width}, {self.choices}, {self.seed}"

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Two vectors."""
        return self.initial("a", batch_size, self.width), self.initial("b", batch_size, self.width)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As chosen."""
        linear = nn.functional.linear
        values = [linear(x, self.weights[0]), *state, linear(state[0], self.weights[1], self.vectors[0])]
        for what, i, j in self.choices:
            value = self._made(what % 12, values[i % len(values)], values[j % len(values)], i, j)
            values.append(torch.tanh(value) if what % 5 else value.clamp(-9, 9))
        return values[-1], (torch.tanh(values[-1]), torch.tanh(values[-2]))

    def _made(self, what: int, a: Tensor, b: Tensor, i: int, j: int) -> Tensor:
        """One more value."""
        n = self.width // 2
        match what:
            case 0:
                return UNARY[j % len(UNARY)](a.clamp(-3, 3))
            case 1:
                return BINARY[i % len(BINARY)](a, b)
            case 2:
                return nn.functional.linear(a, self.weights[1 + j % 3])
            case 3:
                return torch.softmax(a.clamp(-5, 5), -1)
            case 4:
                return nn.functional.layer_norm(a, (self.width,), self.vectors[1], self.vectors[2])
            case 5:
                return torch.cat((b[:, n:], a[:, :n]), -1)
            case 6:
                return torch.where(a > b, a, 0.5 * b)
            case 7:
                return a * self.vectors[j % 3] + b.mean(-1, keepdim=True)
            case 8:
                return a - a.amax(-1, keepdim=True)
            case 9:
                return torch.einsum("bi,bj->bij", a[:, :2], b).sum(1)
            case 10:
                return torch.stack((a, b), 1).sum(1)
            case _:
                return a + (torch.tanh(b) - b).detach() + b


def outcome(cell: Cell, xs: Tensor, state: Any, controls: Controls, which: Any) -> list[Tensor]:
    """Outputs, last state and all derivatives."""
    inputs = xs.clone().requires_grad_()
    start = tree.map(lambda leaf: leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf, state)
    ys, last = which(cell, inputs, start, controls)
    values = [v for v in tree.leaves((ys, last)) if v.is_floating_point()]
    wanted = [inputs, *(s for s in tree.leaves(start) if s.requires_grad), *cell.parameters()]
    generator = torch.Generator().manual_seed(5)
    total = torch.stack([(v * torch.rand(v.shape, generator=generator, dtype=v.dtype)).sum() for v in values]).sum()
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [*(v.detach() for v in values), *(torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found))]


def compare(cell: Cell, num_steps: int, rows: int, controls: Controls, tolerance: float = 1e-9) -> None:
    """Native and Loop give the same numbers."""
    generator = torch.Generator().manual_seed(7)
    xs = torch.randn(num_steps, rows, cell.input_size, generator=generator, dtype=cell.dtype)
    state = tree.map(
        lambda leaf: 0.5 * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype), cell.initial_state(rows)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # running on Hoisted instead would be no test
        ours = outcome(cell, xs, state, controls, Native())
    theirs = outcome(cell, xs, state, controls, Loop())
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.abs().max())))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=1, max_size=6),
    st.sampled_from([(1, 3), (3, 4), (17, 5), (2, 19)]),
    st.integers(1, 4),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
)
def test_random_cells(
    choices: list[tuple[int, int, int]], sizes: tuple[int, int], num_steps: int, rows: int, ends: bool, restarts: bool
) -> None:
    generator = torch.Generator().manual_seed(len(choices))
    lengths = torch.randint(num_steps + 1, (rows,), generator=generator) if ends else None
    reset = torch.rand(num_steps, rows, generator=generator) < 0.3 if restarts else None
    compare(RandomCell(*sizes, choices, 3).double(), num_steps, rows, Controls(lengths, reset))


class _LowRank(Cell[Tensor, Tensor, Tensor]):
    """What one product gives, the next one takes: it is read again after the loop back."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size = self.output_size = 3
        self.down, self.up = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(3, 2))

    @classmethod
    def examples(cls) -> Iterator[_LowRank]:
        """One."""
        yield cls()

    def initial_state(self, batch_size: int) -> Tensor:
        """A vector."""
        return self.initial("h", batch_size, 3)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Through two units."""
        y = torch.tanh(x + nn.functional.linear(nn.functional.linear(state, self.down), self.up))
        return y, y


def test_a_product_of_a_product() -> None:
    torch.manual_seed(0)
    compare(_LowRank().double(), 5, 3, Controls(), 1e-10)


@pytest.mark.parametrize("size", [1, 3, 17, 65, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_that_are_no_multiple_of_a_vector(size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    compare(LSTMCell(3, size).to(dtype), 3, 13, Controls(), 2e-4 if dtype == torch.float32 else 1e-10)


def test_many_rows_and_threads_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    cell = GRUCell(8, 24)
    xs = torch.randn(40, 130, 8)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            cell.zero_grad()
            ys, last = Native()(cell, xs)
            ys.square().sum().backward()
            found.append([ys.detach(), last.h.detach()])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(
                a, b, rtol=1e-5, atol=1e-6
            )  # rows left over by a tile are summed in another order
    assert all(torch.equal(a, b) for a, b in zip(found[2], found[3]))


def test_second_derivatives() -> None:
    torch.manual_seed(0)
    cell = LSTMCell(2, 3, layer_norm=True).double()
    controls = Controls(torch.tensor([2, 3]), torch.tensor([[0, 0], [0, 1], [1, 0]]).bool())
    state = tree.map(torch.randn_like, cell.initial_state(2))

    def run(xs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        ys, last = Native()(cell, xs, tree.unflatten(state, leaves), controls)
        return ys, *tree.leaves(last)

    given = [torch.randn(3, 2, 2, dtype=torch.float64), *tree.leaves(state)]
    given = [g.requires_grad_() for g in given]
    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


def test_attention_over_several_places() -> None:
    torch.manual_seed(0)
    cell = Attention(GRUCell(2 + 3, 4), 3, 5).double()
    memory = torch.randn(2, 7, 3, dtype=torch.float64)
    state = tree.map(torch.Tensor.detach, cell.attend(memory, torch.tensor([6, 3])))
    xs = torch.randn(4, 2, 2, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = outcome(cell, xs, state, Controls(), Native())
    for a, b in zip(ours, outcome(cell, xs, state, Controls(), Loop())):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_nan_and_infinity_pass_through() -> None:
    cell = GRUCell(2, 3)
    xs = torch.zeros(3, 4, 2)
    xs[1, 0, 0], xs[1, 1, 1], xs[1, 2, 0] = float("nan"), float("inf"), float("-inf")
    ours, theirs = Native()(cell, xs)[0], Loop()(cell, xs)[0]
    torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_a_long_sequence() -> None:
    cell = IndRNNCell(1, 3, max_steps=20_000).double()
    compare(cell, 20_000, 1, Controls(), 1e-8)


def test_what_the_backward_part_reads_may_not_be_changed() -> None:
    cell = ElmanCell(2, 3)
    ys, _ = Native()(cell, torch.randn(3, 2, 2))

    def change() -> None:
        ys.mul_(2.0)
        ys.sum().backward()

    with pytest.raises(RuntimeError, match="modified"):
        change()


class _Odd(ElmanCell):
    """Uses an operation that has no native form."""

    def advance(self, projected: Tensor, state: Any) -> Any:
        """With a sorted state."""
        return super().advance(projected, state._replace(h=state.h.sort(-1).values))


def test_an_operation_without_native_form_is_named_once() -> None:
    cell = _Odd(2, 3)
    xs = torch.randn(3, 2, 2)
    engine._SAID.clear()
    with pytest.warns(RuntimeWarning, match=r"^Native: _Odd runs on Hoisted instead, since the operation 'sort'"):
        ys, _ = Native()(cell, xs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Native()(_Odd(2, 3), xs)
    torch.testing.assert_close(ys, Loop()(cell, xs)[0])


def test_a_wrong_plan_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.native import autodiff

    rules = autodiff._rules

    def wrong(graph: Graph, node: Any, g: Any, value: Any) -> Any:
        found = rules(graph, node, g, value)
        if node.op == "tanh":
            return [(a, graph.elementwise("mul", d, graph.const(1.1, (), FLOAT)), p) for a, d, p in found]
        return found

    monkeypatch.setattr(autodiff, "_rules", wrong)
    monkeypatch.setattr(engine, "_ALIKE", {})
    engine._SAID.clear()
    cell = ElmanCell(2, 3)
    with pytest.warns(RuntimeWarning, match="its plan gave other numbers"):
        Native()(cell, torch.randn(3, 2, 2))


def test_a_cell_is_freed_with_its_plan() -> None:
    cell = ElmanCell(2, 3)
    Native()(cell, torch.randn(3, 2, 2))
    seen = weakref.ref(cell)
    del cell
    gc.collect()
    assert seen() is None


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    return tmp_path / "cache" / "native"


def test_built_code_is_kept_and_a_damaged_entry_is_built_again(empty_cache: Path, monkeypatch: Any) -> None:
    xs = torch.randn(4, 3, 5)
    torch.manual_seed(0)
    cell = ElmanCell(5, 6)
    wanted = Loop()(cell, xs)[0]
    torch.testing.assert_close(Native()(cell, xs)[0], wanted)
    files = sorted(empty_cache.glob("*.o"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-20] + b"x" * 20)
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    engine._PLANS.clear()
    torch.testing.assert_close(Native()(cell, xs)[0], wanted)
    compiled = []
    monkeypatch.setattr(build, "_compile", lambda *_: compiled.append(1))
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    engine._PLANS.clear()
    torch.testing.assert_close(Native()(cell, xs)[0], wanted)
    assert not compiled


def test_a_cache_that_cannot_be_written_disturbs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    cell = ElmanCell(3, 7)
    xs = torch.randn(4, 3, 3)
    torch.testing.assert_close(Native()(cell, xs)[0], Loop()(cell, xs)[0])


def _in_a_process(queue: Any) -> None:
    torch.manual_seed(0)
    queue.put(Native()(ElmanCell(3, 11), torch.ones(2, 2, 3))[0].sum().item())


def test_two_processes_may_build_at_once(empty_cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_in_a_process, args=(queue,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found[0] == found[1]
    assert all(worker.exitcode == 0 for worker in workers)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_a_flat_index_is_split_into_coordinates(shape: list[int], data: st.DataObject) -> None:
    strides = [int(torch.tensor(shape[d + 1 :]).prod()) for d in range(len(shape))]
    place = [data.draw(st.integers(0, n - 1)) for n in shape]
    found = split_flat(sum(p * s for p, s in zip(place, strides)), [], shape, strides)
    assert found is not None
    assert found[0] == place
    assert split_flat(int(torch.tensor(shape).prod()), [], shape, strides) is None


def test_a_plan_is_explained() -> None:
    from typer.testing import CliRunner

    from recurra.cli.main import app

    sizes = ["--input-size", "5", "--hidden-size", "6"]
    result = CliRunner().invoke(app, ["explain", "LSTMCell", *sizes, "--rows", "2"])
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    assert "addmm 24" in text
    assert "product with a recurrent weight 6 x 24 onto the hoisted term" in text
    assert f"{2 * 6 * 24:,} of them in products" in text
    many = " ".join(CliRunner().invoke(app, ["explain", "LSTMCell", *sizes, "--rows", "32"]).output.split())
    assert "hoisted nothing: the products of the input are computed in the loop" in many
    assert "product with a weight 5 x 24 onto a bias" in many
    assert "product with a recurrent weight 6 x 24 onto the product before" in many
    wrong = CliRunner().invoke(app, ["explain", "Stack"])
    assert wrong.exit_code == 2
    assert "must be a cell that is made from input_size and hidden_size" in wrong.output


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell, ElmanCell])
@pytest.mark.parametrize("rows", [2, 9])
def test_a_graph_that_is_kept_gives_the_same_gradients_again(kind: type[Cell], rows: int) -> None:
    cell = kind(3, 5).double()  # type: ignore[call-arg]
    xs = torch.randn(7, rows, 3, dtype=torch.float64, requires_grad=True)
    wanted = [xs, *cell.parameters()]
    ys, _ = Native()(cell, xs)
    total = ys.square().sum()
    first = torch.autograd.grad(total, wanted, retain_graph=True)
    again = torch.autograd.grad(total, wanted, retain_graph=True)
    last = torch.autograd.grad(total, wanted)
    for a, b, c in zip(first, again, last):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell])
@pytest.mark.parametrize("rows", [1, 3])
def test_threads_that_share_every_step_give_what_one_gives(
    kind: type[Cell], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recurra.native import plan as native_plan

    monkeypatch.setattr(native_plan, "_FEW", 4)
    cell = kind(5, 200).double()  # type: ignore[call-arg]
    xs = torch.randn(11, rows, 5, dtype=torch.float64)
    seed = torch.randn(11, rows, 200, dtype=torch.float64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            ys, _ = Native()(cell, xs)
            found.append([ys, *torch.autograd.grad(ys, list(cell.parameters()), seed)])
    finally:
        torch.set_num_threads(before)
    plans = [job.plan for job in engine._PLANS[cell].values()]
    assert any("forward_shared" in plan.code.functions for plan in plans)
    for others in found[1:]:
        for one, other in zip(found[0], others):
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


class LowRank(Cell[Tensor, Tensor, Tensor]):
    """A recurrent weight that is a product of two."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 3, 6
        self.linear = nn.Linear(3, 6)
        self.low, self.high = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 6))

    @classmethod
    def examples(cls) -> Iterator[LowRank]:
        """One."""
        yield cls()

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros."""
        return self.initial("h", batch_size, 6)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A product of a product."""
        h = torch.tanh(self.linear(x) + (state @ self.low) @ self.high)
        return h, h


@pytest.mark.parametrize("rows", [2, 9])
def test_a_product_of_a_product_has_its_gradients(rows: int) -> None:
    cell = LowRank().double()
    xs = torch.randn(7, rows, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (Native(), Loop()):
        ys, _ = run(cell, xs)
        found.append(torch.autograd.grad(ys.square().sum(), [xs, *cell.parameters()]))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_blocks_of_steps_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.native import plan

    torch.manual_seed(0)
    controls = Controls(torch.tensor([31, 0, 17]), torch.rand(31, 3) < 0.2)
    xs = torch.randn(31, 3, 4)
    for cell in (GRUCell(4, 5), LSTMCell(4, 5, layer_norm=True)):
        found = []
        for block in (plan._BLOCK, 1, 30_000):
            monkeypatch.setattr(plan, "_BLOCK", block)
            for control in (Controls(), controls):
                state = tree.map(lambda leaf: torch.zeros_like(leaf), cell.initial_state(3))
                found.append(outcome(cell, xs, state, control, Native()))
                with torch.no_grad():
                    found[-1].append(Native()(cell, xs, state, control)[0])
            monkeypatch.undo()
        for other in (2, 4):
            for a, b in zip(found[0] + found[1], found[other] + found[other + 1]):
                assert torch.equal(a, b)


_INTERRUPTED = """
import os, signal, threading
import torch
from recurra.cells import ElmanCell
from recurra.engines import Native
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background may have it ignored
cell = ElmanCell(1, 256)
xs = torch.zeros(60_000, 1, 1)
def press():
    os.kill(os.getpid(), signal.SIGINT)
with torch.no_grad():
    Native()(cell, xs[:10])
    threading.Timer(0.5, press).start()
    try:
        for _ in range(50):
            Native()(cell, xs)
        print("not interrupted")
    except KeyboardInterrupt as error:
        names = {frame.f_code.co_name for frame, _ in __import__("traceback").walk_tb(error.__traceback__)}
        print("interrupted", "run" in names)
    print(Native()(cell, xs[:10])[0].isfinite().all().item())
"""


def test_control_c_ends_a_long_loop() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["interrupted", "True", "True"], done.stdout + done.stderr


def _after_fork(queue: Any, cell: Cell, xs: Tensor) -> None:
    queue.put((torch.get_num_threads(), build.most_threads()))
    torch.set_num_threads(1)  # as torch's own loaders do: its threads are gone too
    queue.put(Native()(cell, xs)[0].detach().sum().item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_that_are_gone() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    cell = IndRNNCell(1, 600)
    xs = torch.randn(60, 12, 1)
    try:
        torch.set_num_threads(2)
        wanted = Native()(cell, xs)[0].detach().sum().item()
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_after_fork, args=(queue, cell.requires_grad_(False), xs))
        child.start()
        assert queue.get(timeout=60) == (2, 1)
        assert queue.get(timeout=60) == pytest.approx(wanted, rel=1e-4)
        child.join(timeout=60)
        assert child.exitcode == 0
        assert build.most_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_whole_tiles_give_equal_bits_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    cell = GRUCell(8, 24).double()
    xs = torch.randn(
        40, 96, 8, dtype=torch.float64
    )  # 96 rows are whole tiles of 1, 2, 3, 4, 6 or 8 rows in 2 or 4 parts
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            with torch.no_grad():
                found.append(Native()(cell, xs)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_cells_that_are_alike_share_a_plan_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_ALIKE", {})
    xs = torch.randn(4, 2, 3)

    def plan(cell: Cell) -> Any:
        ys, _ = Native()(cell, xs)
        torch.testing.assert_close(ys, Loop()(cell, xs)[0], rtol=1e-5, atol=1e-6)
        return next(iter(engine._PLANS[cell].values())).plan

    one, two = ElmanCell(3, 5), ElmanCell(3, 5)
    assert plan(one) is plan(two)
    assert plan(ElmanCell(3, 5, activation="relu")) is not plan(one)
    assert plan(ElmanCell(3, 6)) is not plan(one)
    hidden = [ElmanCell(3, 5), ElmanCell(3, 5)]
    for cell in hidden:
        cell.hidden_object = object()  # who knows what the step does with it
    assert plan(hidden[0]) is not plan(hidden[1])


def test_code_may_stand_anywhere_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No distance of 32 bits is left to fill in: LLVM's loader ends the process where one does not suffice."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("looks at relocations of x86-64 ELF")
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    Native()(LSTMCell(3, 20, layer_norm=True), torch.zeros(2, 9, 3))
    (path,) = (tmp_path / "native").glob("*.o")
    code = path.read_bytes()[32:]
    (sections,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    kinds = set()
    for i in range(count):
        _, kind, _, _, offset, length, _, _, _, entry = struct.unpack_from("<IIQQQQIIQQ", code, sections + i * size)
        if kind == 4:  # RELA
            kinds |= {struct.unpack_from("<QQ", code, offset + k)[1] & 0xFFFFFFFF for k in range(0, length, entry)}
    assert kinds == {1}  # R_X86_64_64


class _Of(Cell[Tensor, Tensor, Tensor]):
    """A function of the input, in the loop."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.input_size, self.output_size = function, 1, 1

    @classmethod
    def examples(cls) -> Iterator[_Of]:
        """One."""
        yield cls(torch.log)

    def initial_state(self, batch_size: int) -> Tensor:
        """Zero."""
        return self.initial("h", batch_size, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Beside a state that stays."""
        return self.function(x + 0 * state), state + 0 * state


@pytest.mark.parametrize("function", [torch.log, torch.log1p, torch.exp, torch.tanh, torch.sigmoid])
def test_functions_of_float32_are_right_everywhere(function: Any) -> None:
    sizes = torch.logspace(-44, 38, 20_001, dtype=torch.float64).float()
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0, -1.0, 3.4e38])
    x = torch.cat([sizes, -sizes, torch.linspace(-1.2, 3, 10_001), special])
    ys, _ = Native()(_Of(function), x.view(1, -1, 1))
    wanted = function(x.double()).float()
    torch.testing.assert_close(ys.flatten(), wanted, rtol=1e-6, atol=2e-7, equal_nan=True)


class _Viewing(Cell[Tensor, Tensor, Tensor]):
    """Looks at its input in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.output_size = 4, 2

    @classmethod
    def examples(cls) -> Iterator[_Viewing]:
        """One."""
        yield cls()

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros."""
        return self.initial("h", batch_size, 2)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs are added up."""
        h = torch.tanh(state + x.view(-1, 2, 2).exp().sum(1))
        return h, h


@pytest.mark.parametrize("rows", [3, 9])
def test_inputs_that_are_not_dense_may_be_viewed(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LITTLE", 0)
    cell, dense = _Viewing(), torch.randn(5, rows, 4)
    for xs in (dense.transpose(0, 2).contiguous().transpose(0, 2), dense):
        xs = xs.clone(memory_format=torch.preserve_format).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ys, _ = Native()(cell, xs)
        torch.testing.assert_close(ys, Loop()(cell, dense)[0])
        (g,) = torch.autograd.grad(ys.sum(), xs)
        assert bool(g.isfinite().all())
