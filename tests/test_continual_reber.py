"""Streams of Reber's grammar that end with a mistake: what is read, what is learned, what is counted."""

from __future__ import annotations

import copy

import pytest
import torch

from recurra.core import Chunk, Controls
from recurra.experiments import gers_2000_continual_reber
from recurra.experiments.gers_2000_continual_reber import (
    DecayingSGD,
    Gers2000ContinualReber,
    Supply,
    faithful_net,
    first_mistake,
    forget_gates,
)
from recurra.experiments.online import SquaredError
from recurra.learning import SGD, EProp, Online
from recurra.tasks.reber import SYMBOLS, symbols_right


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_supply_reads_on_and_begins_with_strings() -> None:
    supply, same = Supply(2, 300, seeded(0)), Supply(2, 300, seeded(0))
    for _ in range(5):
        supply.begin(50)
        same.begin(50)
        parts = [supply.take(n) for n in (7, 20)]
        whole = same.take(27)
        assert torch.equal(torch.cat([part.chunk.xs for part in parts]), whole.chunk.xs)
        assert torch.equal(whole.chunk.targets, whole.legal.double())
        assert bool((whole.chunk.xs[1:].bool() <= whole.legal[:-1]).all())  # what comes may come
        first = whole.chunk.xs[:2].argmax(-1).T.tolist()
        assert all(SYMBOLS[b] == "B" and SYMBOLS[then] in "TP" for b, then in first)
    supply.back(20)
    assert torch.equal(supply.take(20).chunk.xs, parts[1].chunk.xs)


def test_a_supply_resets_where_strings_begin() -> None:
    supply = Supply(1, 200, seeded(0))
    supply.begin(100)
    chunk = supply.take(100, resets=True).chunk
    assert chunk.controls.reset is not None
    text = "".join(SYMBOLS[s] for s in chunk.xs[:, 0].argmax(-1))
    begins = chunk.controls.reset[:, 0].nonzero()[:, 0].tolist()
    assert begins[0] == 0
    assert len(begins) > 3
    assert all(text[place - 1 : place + 1] == "EB" for place in begins[1:])


def test_a_learning_rate_decays_with_every_update() -> None:
    torch.manual_seed(0)
    one, other = faithful_net(seeded(1)), faithful_net(seeded(1))
    supply = Supply(1, 100, seeded(0))
    supply.begin(30)
    chunk = supply.take(12).chunk
    decaying = Online(EProp(), SquaredError(), DecayingSGD(0.5, 0.9), native=False)
    told = Online(EProp(), SquaredError(), SGD(0.5), native=False)
    decaying.run(one, decaying.init(one, 1), chunk)
    told.run(other, told.init(other, 1), chunk, 0.9 ** torch.arange(12, dtype=torch.float64))
    for a, b in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_a_stream_is_learned_up_to_its_first_mistake_and_no_further() -> None:
    net = faithful_net(seeded(3))
    other = copy.deepcopy(net)
    online = Online(EProp(), SquaredError(), DecayingSGD(0.5, 0.99), native=True)
    supply, same = Supply(1, 400, seeded(0)), Supply(1, 400, seeded(0))
    setting = Gers2000ContinualReber(longest_learned=150)
    along = setting._along(online, online.init(net, 1), net, supply, False)
    same.begin(150)
    same.take(1)
    readable = Online(online.rule, online.loss, online.update, native=False)
    for _ in range(6):
        right = along()
        same.begin(150)
        chunk, legal = same.take(right + 1)
        _, trace = readable.run(other, readable.init(other, 1), chunk)
        assert symbols_right(trace.outputs, legal)[:, 0].tolist() == [True] * right + [False]
        for a, b in zip(net.parameters(), other.parameters()):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_the_first_mistake_of_any_row_counts_also_behind_the_first_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = faithful_net(seeded(0)), 0
    supply = Supply(3, 600, seeded(0))
    assert first_mistake(net, supply, 100) < 20  # nobody has taught it anything

    def wrong_at_nine(ys: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        right = torch.ones(ys.shape[:2], dtype=torch.bool)
        if seen <= 9 < seen + len(ys):
            right[9 - seen, 1] = False
        seen += len(ys)
        return right

    monkeypatch.setattr(gers_2000_continual_reber, "_FIRST", 2)
    monkeypatch.setattr(gers_2000_continual_reber, "symbols_right", wrong_at_nine)
    supply.begin(100)
    before = supply.place
    assert first_mistake(net, supply, 100) == 9
    assert (supply.place - before).tolist() == [10] * 3  # what comes behind the mistake was not used up
    assert first_mistake(net, supply, 100) == 100


def test_forget_gates_are_those_of_the_cells_own_step() -> None:
    net = faithful_net(seeded(0))
    gates, cells, begins, text = forget_gates(net, 40, seed=3)
    assert gates.shape == (40, 4)
    assert cells.shape == (40, 8)
    assert [text[place] for place in begins.nonzero()[:, 0].tolist()] == ["B"] * int(begins.sum())
    cell = net.cell.cell
    with torch.no_grad():
        cell.weight_ih.zero_()
        cell.weight_hh.zero_()
    gates, _, _, _ = forget_gates(net, 40, seed=3)
    torch.testing.assert_close(gates[0], torch.tensor([0.5, 1.0, 1.5, 2.0]).double().sigmoid())


def test_a_chunk_without_resets_has_no_controls() -> None:
    supply = Supply(1, 100, seeded(0))
    supply.begin(10)
    chunk = supply.take(5).chunk
    assert isinstance(chunk, Chunk)
    assert chunk.controls == Controls()
