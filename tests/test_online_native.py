"""Learning step by step in machine code is the readable loop."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils import _pytree

from recurra.cells import ElmanCell, EmbeddingCell, FullyRecurrentCell, GRUCell, IndRNNCell, LSTM1997Cell, LSTMCell
from recurra.core import Cell, Chunk, Controls, CrossEntropy, LearningRule, MeanSquaredError, tree
from recurra.learning import EKF, RTRL, SGD, UORO, Adam, EProp, Online, Sum, TruncatedBPTT
from recurra.native.repeat import Repeated
from recurra.testing import Setting
from recurra.testing.rule_laws import task
from recurra.testing.settings import instances
from recurra.wrappers import Dropout, Readout, Stack


def _chunk(cell: Cell, num_steps: int = 24, rows: int = 1, *, weights: bool = True, reset: bool = True) -> Chunk:
    g, dtype = torch.Generator().manual_seed(1), cell.dtype
    xs = torch.randn(num_steps, rows, cell.input_size, generator=g, dtype=dtype)
    targets = torch.rand(num_steps, rows, cell.output_size, generator=g, dtype=dtype)
    weight = (torch.rand(num_steps, rows, generator=g) < 0.6).to(dtype) if weights else None
    restart = torch.rand(num_steps, rows, generator=g) < 0.15 if reset else None
    return Chunk(xs, targets, weight, Controls(reset=restart))


def _tensors(*trees: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(trees) if isinstance(leaf, torch.Tensor)]


def _compare(cell: Cell, online: Online, chunk: Chunk, near: float = 1e-10, **options: Any) -> None:
    """Both loops over two chunks, the second from the state that the first left."""
    results = []
    for native in (True, False):
        own, run = copy.deepcopy(cell), dataclasses.replace(online, native=native)
        rows = tree.leaves(chunk.xs)[0].shape[1]
        state = run.init(own, rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state, first = run.run(own, state, chunk, **options)
            state, second = run.run(own, state, chunk, **options)
        results.append(_tensors(tuple(own.parameters()), tuple(state), tuple(first), tuple(second)))
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results):  # of what is largest: the covariance of a filter begins at a hundred
        largest = float(theirs.detach().abs().max()) if theirs.numel() and theirs.is_floating_point() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near * max(1.0, largest))


CASES: dict[str, tuple[Callable[[], Cell], Online]] = {
    "fully recurrent, RTRL, SGD": (
        lambda: FullyRecurrentCell(2, 4, outputs=(3, 0)),
        Online(RTRL(), MeanSquaredError(), SGD(0.1)),
    ),
    "Elman, one step back, clipped": (
        lambda: ElmanCell(2, 3),
        Online(TruncatedBPTT(k1=1), MeanSquaredError(), SGD(0.5, clip_norm=0.3)),
    ),
    "LSTM, RTRL, momentum": (lambda: LSTMCell(2, 2), Online(RTRL(), MeanSquaredError(), SGD(0.1, momentum=0.9))),
    "LSTM of 1997 with readout, truncated gradient, Adam": (
        lambda: Readout(LSTM1997Cell(2, 4, block_size=2), 1),
        Online(EProp(), MeanSquaredError(), Adam(0.01)),
    ),
    "IndRNN within its bound, RTRL, SGD": (
        lambda: IndRNNCell(2, 3, max_steps=4, gamma=1.0),
        Online(RTRL(), MeanSquaredError(), SGD(0.5)),
    ),
    "GRU, one step back, sum": (lambda: GRUCell(2, 3), Online(TruncatedBPTT(k1=1), MeanSquaredError(), Sum())),
    "Elman, Kalman": (lambda: ElmanCell(2, 2), Online(EKF(), MeanSquaredError())),
    "stack, one step back": (
        lambda: Stack(ElmanCell(2, 3), GRUCell(3, 2)),
        Online(TruncatedBPTT(k1=1), MeanSquaredError(), SGD(0.1)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_native_is_the_readable_loop(name: str) -> None:
    torch.manual_seed(0)
    make, online = CASES[name]
    cell = make().double()
    _compare(cell, online, _chunk(cell, rows=2))


def test_in_float32_and_without_weights_or_resets() -> None:
    torch.manual_seed(0)
    cell = FullyRecurrentCell(2, 3)
    online = Online(RTRL(), MeanSquaredError(), SGD(0.1))
    _compare(cell, online, _chunk(cell, weights=False, reset=False), near=1e-4)


def test_a_learned_start_teacher_forcing_and_a_rate_that_falls() -> None:
    torch.manual_seed(0)
    cell = FullyRecurrentCell(2, 3, outputs=(0,)).learn_initial_state().double()
    chunk = _chunk(cell)
    forced = torch.rand(24, 1, 1, dtype=torch.float64)
    chunk = chunk._replace(controls=chunk.controls._replace(forced=forced))
    online = Online(RTRL(), MeanSquaredError(), SGD(0.5))
    _compare(cell, online, chunk, lr_factor=torch.linspace(1, 0, 24))


def test_weights_that_do_not_learn_stay() -> None:
    torch.manual_seed(0)
    cell = ElmanCell(2, 3).double()
    cell.weight_ih.requires_grad_(False)
    before = cell.weight_ih.detach().clone()
    online = Online(RTRL(), MeanSquaredError(), SGD(0.1))
    _compare(cell, online, _chunk(cell))
    dataclasses.replace(online, native=True).run(cell, online.init(cell, 1), _chunk(cell))
    assert torch.equal(cell.weight_ih, before)
    with torch.no_grad():
        cell.weight_ih.mul_(2)  # is seen by the code that is there already
    _compare(cell, online, _chunk(cell))


def test_a_long_chunk_takes_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell = ElmanCell(2, 2).double()
    online = Online(TruncatedBPTT(k1=1), MeanSquaredError(), SGD(0.1))
    calls: list[int] = []
    own = Repeated.run

    def counted(self: Repeated, *args: Any) -> Any:
        calls.append(args[-1])
        return own(self, *args)

    monkeypatch.setattr(Repeated, "run", counted)
    online.run(cell, online.init(cell, 1), _chunk(cell, 99))
    assert calls == []
    online.run(cell, online.init(cell, 1), _chunk(cell, 100))
    assert calls == [9, 100]  # the comparison, and the run


@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_a_large_influence_takes_two_steps_at_once(num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell = IndRNNCell(40, 40).double()
    calls: list[int] = []
    own = Repeated.run

    def counted(self: Repeated, *args: Any) -> Any:
        calls.append(args[-1])
        return own(self, *args)

    monkeypatch.setattr(Repeated, "run", counted)
    chunk = _chunk(cell, num_steps)
    _compare(cell, Online(RTRL(), MeanSquaredError(), Sum()), chunk)
    assert calls[-2:] == {1: [1, 1], 2: [1, 1], 9: [4, 1]}[num_steps]
    _compare(cell, Online(RTRL(), MeanSquaredError(), SGD(0.1)), chunk)
    assert calls[-1] == num_steps  # every parameter moves: one step at a time


class Watching(ElmanCell):
    """Looks at its data, which no graph can show."""

    def advance(self, projected: torch.Tensor, state: Any) -> Any:
        y, new = super().advance(projected, state)
        return (y, new) if float(y.detach().sum()) > 0 else (-y, new)


def test_what_cannot_be_native_says_why_and_runs_as_the_readable_loop() -> None:
    torch.manual_seed(0)
    cell = Watching(2, 2).double()
    chunk = _chunk(cell, 5)
    online = Online(TruncatedBPTT(k1=1), MeanSquaredError(), SGD(0.1))
    state = online.init(cell, 1)
    reason = online.why_not_native(cell, state, chunk)
    assert reason is not None
    assert reason.startswith("the step could not be traced (")
    loud = dataclasses.replace(online, native=True)
    with pytest.warns(
        RuntimeWarning, match=r"^Online\(native=True\): runs as the readable loop instead, since the step could"
    ):
        found = loud.run(copy.deepcopy(cell), state, chunk)
    wanted = online.run(cell, state, chunk)
    for a, b in zip(_tensors(tuple(found)), _tensors(tuple(wanted))):
        assert torch.equal(a, b)
    plain = ElmanCell(2, 2).double()
    padded = chunk._replace(controls=Controls(lengths=torch.tensor([3])))
    assert online.why_not_native(plain, online.init(plain, 1), padded) == "rows end early (lengths)"


def test_random_numbers_are_those_that_the_steps_would_draw() -> None:
    torch.manual_seed(0)
    cell = ElmanCell(2, 3).double()
    _compare(cell, Online(UORO(), MeanSquaredError(), SGD(0.1)), _chunk(cell, rows=2))
    noisy = Dropout(ElmanCell(2, 3), 0.3)
    _compare(noisy, Online(TruncatedBPTT(k1=1), MeanSquaredError(), SGD(0.1)), _chunk(noisy), near=1e-4)


def test_a_carry_that_grows_is_native_when_it_has_its_form() -> None:
    torch.manual_seed(0)
    cell = ElmanCell(2, 2).double()
    online = Online(TruncatedBPTT(k1=1, k2=3), MeanSquaredError(), SGD(0.1))
    _compare(cell, online, _chunk(cell, reset=False))


def test_tokens_and_classes() -> None:
    torch.manual_seed(0)
    cell = Readout(Stack(EmbeddingCell(5, 3), ElmanCell(3, 2)), 4).double()
    xs, targets = torch.randint(0, 5, (24, 2)), torch.randint(0, 4, (24, 2))
    _compare(cell, Online(EProp(), CrossEntropy(), SGD(0.1)), Chunk(xs, targets))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [(12, 12, 180), (1, 5, 7), (7, 1, 9), (6, 5, 33), (3, 4, 1), (2, 3, 5)])
def test_products_of_two_matrices(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = sizes
    a, b, zero = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype), torch.zeros(1, dtype=dtype)

    def step(_: Any, xs: Any, states: Any) -> Any:
        one, other, one_turned, other_turned = xs
        products = [p @ q for p in (one, one_turned.t()) for q in (other, other_turned.t())]
        return products, [states[0] + products[0].sum()]

    inputs = [a, b, a.t().contiguous(), b.t().contiguous()]
    found, _ = Repeated(step, [], inputs, [zero]).run([], [t[None] for t in inputs], [zero], 1)
    for product in found:
        torch.testing.assert_close(product[0], a @ b)


def test_chunks_of_any_length_share_a_plan() -> None:
    from recurra.learning import native_loop

    cell = ElmanCell(2, 3)
    online = Online(TruncatedBPTT(), MeanSquaredError(), SGD(lr=0.1), native=True)
    state = online.init(cell, 1)
    for num_steps in (12, 20, 13):
        state, _ = online.run(cell, state, _chunk(cell, num_steps))
    assert len(native_loop._STEPS[cell]) == 1


_CELLS = {name: cell for name, cell in instances("cells") if name.endswith("-0")}
_RULES = {name: rule for name, rule in instances("rules") if isinstance(rule, LearningRule)}


@pytest.mark.slow
@pytest.mark.parametrize("cell", _CELLS)
@pytest.mark.parametrize("rule", _RULES)
def test_every_rule_on_every_cell_is_native_or_says_why(rule: str, cell: str) -> None:
    """The first example of every cell; two rows, resets, weights."""
    given = task(_CELLS[cell], Setting(num_steps=12, batch_size=2))
    own = _RULES[rule]
    if not any((leaf.dtype or given.cell.dtype).is_floating_point for leaf in tree.leaves(given.cell.output_spec)):
        pytest.skip("its outputs do not float: there is no loss")
    if own.supports(given.cell, given.loss) is not None:
        pytest.skip("not supported")
    online = Online(own, given.loss, None if own.kind == "step" else SGD(0.01))
    reason = online.why_not_native(given.cell, online.init(given.cell, 2), given.chunk)
    if reason is not None and "has not reached its form" not in reason:
        assert "other numbers" not in reason
        assert "could not be built" not in reason
        pytest.skip(reason)
    begins = max(1.0, getattr(own, "p0", 1.0))  # what is left of a covariance is rounded as it was at the beginning
    _compare(given.cell, online, given.chunk, near=1e-10 * begins if given.cell.dtype == torch.float64 else 1e-4)
