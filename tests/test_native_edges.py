"""The native engine at its edges: special numbers, single operations, very long sequences, builds that go wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.cells import ElmanCell, IndRNNCell
from recurra.core import Cell, Controls
from recurra.engines import Loop, Native
from recurra.engines import native as engine
from recurra.native import build, lower
from recurra.testing.random_cells import BINARY, UNARY

SPECIAL = torch.tensor(
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.3,
        3.0,
        1e300,
        -1e300,
        1e-300,
        30.0,
        -800.0,
    ],
    dtype=torch.float64,
)


class _Applies(Cell[Tensor, Tensor, tuple[Tensor, Tensor]]):
    """One function of two state leaves; a table and a weight for those who want one."""

    def __init__(self, function: Callable[..., Tensor], size: int, *, parameters: bool = False) -> None:
        super().__init__()
        self.function, self.input_size, self.size, self.parametric = function, 1, size, parameters
        self.weight = nn.Parameter(torch.randn(size, size, dtype=torch.float64))

    @classmethod
    def examples(cls) -> Iterator[_Applies]:
        """One."""
        yield cls(torch.add, 2)

    @property
    def output_size(self) -> int:  # type: ignore[override]
        """As many as the function gives."""
        zero = torch.zeros(1, self.size, dtype=torch.float64)
        return self._applied(zero, zero).shape[1]

    def _applied(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b, self.weight) if self.parametric else self.function(a, b)

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Two vectors."""
        return tuple(self.initial(n, batch_size, self.size) for n in "ab")  # type: ignore[return-value]

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The function, and the state turned round."""
        y = self._applied(*state)
        return y + 0 * x, (state[1] * 0.5 + 0.1, state[0].roll(1, -1))


def both(
    cell: Cell, state: tuple[Tensor, ...], num_steps: int = 2, *, gradients: bool = True
) -> tuple[list[Tensor], ...]:
    """Values (and gradients) of Native and Loop; Native may not hand the cell on."""
    found = []
    for which in (Native(), Loop()):
        leaves = tuple(s.clone().requires_grad_(gradients) for s in state)
        xs = torch.zeros(num_steps, state[0].shape[0], 1, dtype=torch.float64)
        with warnings.catch_warnings(), torch.set_grad_enabled(gradients):
            warnings.simplefilter("error")
            ys, last = which(cell, xs, leaves, Controls())
        values = [ys.detach(), *(s.detach() for s in last)]
        if gradients:
            weights = torch.linspace(0.5, 1.5, ys.numel(), dtype=torch.float64).view_as(ys)
            wanted = [*leaves, cell.weight]
            slopes = torch.autograd.grad((ys * weights).sum(), wanted, allow_unused=True)
            values += [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, slopes)]
        found.append(values)
    return found[0], found[1]


@pytest.mark.parametrize("number", range(len(UNARY)))
def test_special_numbers_pass_as_in_torch(number: int) -> None:
    cell = _Applies(lambda a, _: UNARY[number](a), len(SPECIAL))
    ours, theirs = both(cell, (SPECIAL[None], SPECIAL.flip(0)[None]), gradients=False)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize("number", range(len(BINARY)))
def test_special_numbers_pass_two_by_two(number: int) -> None:
    cell = _Applies(BINARY[number], len(SPECIAL))
    rows = torch.stack([SPECIAL.roll(i) for i in range(len(SPECIAL))])
    ours, theirs = both(cell, (SPECIAL.expand_as(rows).clone(), rows), gradients=False)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-300, equal_nan=True)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "in place": lambda a, b, w: (a + b).clamp_min_(-0.2).mul_(b),
    "in place, the old value is read before": lambda a, b, w: (lambda c: 2.0 * c + c.add_(1.5))(a * b),
    "largest and where": lambda a, b, w: (lambda m: m.values * b[:, :1] + m.indices.to(a.dtype))(
        a.max(1, keepdim=True)
    ),
    "smallest": lambda a, b, w: a.min(1).values.unsqueeze(1) * b + a.argmin(1, keepdim=True).to(a.dtype),
    "bounds that cross": lambda a, b, w: torch.clamp(a, b, -b) + torch.clamp(b, 0.3, -0.2),
    "gather": lambda a, b, w: a.gather(1, torch.cat((b.argmax(1, True), b.argmin(1, True)), 1)),
    "scatter": lambda a, b, w: a.scatter(1, b.argmax(1, keepdim=True), 0.7),
    "scatter of values": lambda a, b, w: a.scatter(1, b.argmax(1, keepdim=True), b[:, :1]),
    "scatter and add": lambda a, b, w: a.scatter_add(1, b.argmin(1, keepdim=True), b[:, 1:2]),
    "a row of a table": lambda a, b, w: F.embedding(a.argmax(1), w) * b,
    "a table with padding": lambda a, b, w: F.embedding(a.argmax(1), w, padding_idx=2) * b,
    "one hot": lambda a, b, w: F.one_hot(a.argmax(1), a.shape[1]).to(a.dtype) @ w,
    "blocks": lambda a, b, w: torch.einsum("bhi,hji->bhj", a.view(-1, 2, 2), w.view(2, 4, 2)).flatten(1),
    "blocks, the weight first": lambda a, b, w: torch.einsum("hji,bhi->bhj", w.view(2, 4, 2), a.view(-1, 2, 2)).flatten(
        1
    ),
    "one weight for several parts": lambda a, b, w: F.linear(a.view(-1, 2, 2), w.view(8, 2), w.flatten()[:8]).flatten(
        1
    ),
    "norms": lambda a, b, w: F.normalize(a, dim=1) + a.norm(1, -1, keepdim=True) + a.std(1, keepdim=True),
    "padded": lambda a, b, w: F.pad(a, (1, 2), value=-0.5) + F.pad(b, (2, 1)),
    "repeated and turned": lambda a, b, w: a.repeat(1, 3).flip(1).roll(5, 1),
    "hyperbolic": lambda a, b, w: torch.sinh(a) + torch.cosh(b) + torch.atanh(torch.tanh(a)) + torch.tan(b),
    "powers of two and ten": lambda a, b, w: torch.exp2(a) + torch.log2(b.abs() + 1) + torch.log10(a.abs() + 1),
    "a learned vector in every row": lambda a, b, w: torch.cat((a, w[0].expand(a.shape[0], -1)), 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_values_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    cell = _Applies(OPERATIONS[name], 4, parameters=True)
    ours, theirs = both(cell, (torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)), 3)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda a, b: a.sort(1).values, "the operation 'sort' has no native form"),
        (lambda a, b: a.cumsum(1), "the operation 'cumsum' has no native form"),
        (lambda a, b: a - a.mean(0), "a sum over the batch has no native form"),
        (lambda a, b: a.float().double(), "float32 and float64"),
        (lambda a, b: (lambda c: (c[:, :1].mul_(2.0), c)[1])(a + b), "in place has no native form here"),
        (lambda a, b: a if a.sum() > 0 else b, "could not be traced"),
    ],
)
def test_what_has_no_native_form_is_named(function: Callable[..., Tensor], says: str) -> None:
    engine._SAID.clear()
    cell = _Applies(function, 4)
    with pytest.warns(RuntimeWarning, match=says):
        Native()(cell, torch.zeros(2, 3, 1, dtype=torch.float64))


def test_two_hundred_thousand_steps() -> None:
    num_steps = 200_000
    cell = IndRNNCell(1, 3, max_steps=num_steps).double()
    with torch.no_grad():
        for name, p in cell.named_parameters():
            p.fill_(0.0 if "bias" in name else 1.0)  # adds up what is positive
    xs = torch.rand(num_steps, 1, 1, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(num_steps, 1, 3, dtype=torch.float64)
    ys, last = Native()(cell, xs)
    torch.testing.assert_close(ys, xs.cumsum(0).expand(-1, -1, 3), rtol=1e-10, atol=0)
    (found,) = torch.autograd.grad((ys * weights).sum(), xs)
    torch.testing.assert_close(found, weights.sum(-1, keepdim=True).flip(0).cumsum(0).flip(0), rtol=1e-10, atol=0)
    assert torch.equal(last.h, ys[-1])


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_no_rows_and_no_steps(rows: int, steps: int) -> None:
    cell = ElmanCell(2, 3)
    for given in (Controls(), Controls(torch.zeros(rows, dtype=torch.int64), torch.ones(steps, rows).bool())):
        xs = torch.randn(steps, rows, 2)
        ours, theirs = Native()(cell, xs, None, given), Loop()(cell, xs, None, given)
        torch.testing.assert_close(ours[0], theirs[0])
        torch.testing.assert_close(ours[1].h, theirs[1].h)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, nothing in memory."""
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_LOADED", {})
    monkeypatch.setattr(engine, "_ALIKE", {})
    return tmp_path / "cache" / "native"


def works() -> None:
    """The engine gives the loop's numbers, by machine code."""
    cell, xs = ElmanCell(3, 5), torch.randn(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(Native()(cell, xs)[0], Loop()(cell, xs)[0])


def test_a_full_disk_disturbs_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = os.fdopen

    class Full:
        """A file on a full disk."""

        def __init__(self, handle: int, mode: str) -> None:
            self.file = open_file(handle, mode)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            self.file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build.os, "fdopen", Full)
    works()
    assert list(empty_cache.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    empty_cache.chmod(0o555)
    works()


_KILLED = """
import sys, torch
from recurra.cells import ElmanCell
from recurra.engines import Native
from recurra.native import build, lower
write = build.hashlib.sha256
def slow(*args):
    if any(p.suffix == ".part" for p in build.cache_folder().glob("*")):
        print("writing", flush=True)
        import time; time.sleep(60)
    return write(*args)
build.hashlib.sha256 = slow
Native()(ElmanCell(3, 5), torch.zeros(4, 2, 3))
"""


def test_a_killed_build_leaves_nothing_that_is_trusted(empty_cache: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "writing\n"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    (left,) = empty_cache.iterdir()
    assert left.suffix == ".part"
    works()
    assert left.exists()  # it might be another process's
    day = time.time() - 2 * 24 * 3600
    os.utime(left, (day, day))
    build._LOADED.clear()
    engine._ALIKE.clear()
    for code in empty_cache.glob("*.o"):
        code.unlink()
    works()
    assert not left.exists()
    assert list(empty_cache.glob("*.o"))


class Doubling(Cell[Tensor, Tensor, Tensor]):
    """A long chain of sums, each of which reads the one before twice."""

    source = "a solver of several stages"
    input_size = output_size = 2

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> Tensor:
        return self.initial("h", batch_size, 2)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(10):
            state = state + 0.01 * state.sin()
        return state + x, state + x


def test_the_compiler_looks_at_a_value_that_is_read_often_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    cuts = lower._Lowering._cuts

    def counted(self: Any, node: Any, *more: Any, **options: Any) -> Any:
        seen.append(node)
        return cuts(self, node, *more, **options)

    monkeypatch.setattr(lower._Lowering, "_cuts", counted)
    xs = torch.ones(3, 1, 2)
    ys, _ = Native()(Doubling(), xs, torch.ones(1, 2))
    torch.testing.assert_close(ys, Loop()(Doubling(), xs, torch.ones(1, 2))[0])
    assert 0 < len(seen) < 2000
