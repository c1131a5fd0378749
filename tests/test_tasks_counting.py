"""Counting languages, latches and spikes against other ways to find what is asked for; nets that count by construction."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from recurra.cells import ElmanCell
from recurra.core import Chunk, MeanSquaredError
from recurra.experiments.bengio_1994_latching import Bengio1994Latching
from recurra.experiments.counting import all_right, learn_strings, legal_by_half, legal_chunk, longest, tanh_net
from recurra.experiments.trials import learn_until
from recurra.experiments.weiss_2018_counting import hand_built_lstm, hand_built_relu
from recurra.tasks.counting import ANBMBMAN, ANBN, ANBNCN, CountingLanguage
from recurra.tasks.latch import latch_problem
from recurra.tasks.ordered_pair import ordered_pair
from recurra.tasks.timing import periodic_function, spike_delays, timed_spikes

LANGUAGES = [ANBN, ANBNCN, ANBMBMAN, CountingLanguage("ab", (0, 1))]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.symbols)
def test_legal_symbols_are_those_that_some_string_of_the_language_goes_on_with(language) -> None:
    shown = list(itertools.product(range(1, 4), repeat=language.num_free))
    strings = language.strings(shown)
    every = [language.write(v) + "." for v in itertools.product(range(1, 6), repeat=language.num_free)]
    alphabet = language.symbols + "."
    for b, values in enumerate(shown):
        text = language.write(values)
        assert int(strings.lengths[b]) == len(text) + 1
        for t in range(len(text) + 1):
            following = {s[t] for s in every if s.startswith(text[:t])}
            assert {alphabet[i] for i in strings.legal[t, b].nonzero().flatten().tolist()} == following
        assert strings.tokens[: len(text) + 1, b].tolist() == [0, *(language.symbols.index(c) + 1 for c in text)]
        assert not strings.legal[len(text) + 1 :, b].any()


def test_wrong_languages_and_strings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^CountingLanguage: numbers must be one for each of 'ab', got \(0,\)\."):
        CountingLanguage("ab", (0,))
    with pytest.raises(ValueError, match=r"^CountingLanguage: numbers must be 0, 1, \.\.\. in the order"):
        CountingLanguage("ab", (1, 0))
    with pytest.raises(ValueError, match=r"^CountingLanguage: values must be 1 numbers of at least 1, got \(0,\)"):
        ANBN.strings([(0,)])


@pytest.mark.parametrize("net", [hand_built_lstm(), hand_built_relu()], ids=["LSTM", "ReLU"])
def test_hand_built_counters_are_right_at_every_step_and_not_for_another_language(net) -> None:
    assert longest(net, ANBN, 300, width=100) == 300
    free = CountingLanguage("ab", (0, 1))  # any number of b: the same net is wrong where the language does not count
    assert not all_right(net, free, [(2, 2)]).any()


def test_how_far_a_net_counts_is_found_across_the_blocks_that_are_tried() -> None:
    net = hand_built_relu()
    with torch.no_grad():
        net.cell.cell.weight_hh.mul_(0.99)  # type: ignore[union-attr, attr-defined]  # a leak: beyond some n it is wrong
    found = [longest(net, ANBN, 400, width=width) for width in (1, 7, 64)]
    assert found[0] == found[1] == found[2] < 400
    n = found[0]
    assert all_right(net, ANBN, [(n,), (n + 1,)], legal_by_half).tolist() == [True, False]
    assert longest(net, ANBN, n - 1) == n - 1


def test_strings_are_learned_down_to_a_small_loss() -> None:
    net = tanh_net(ANBN, 6, torch.Generator().manual_seed(0))
    learn_strings(net, legal_chunk(ANBN, [(1,), (2,)]), num_updates=20, lr=0.03, num_iterations=40)
    assert longest(net, ANBN, 10) >= 2


def test_the_first_value_of_a_latch_is_the_class_and_the_rest_has_the_variance_asked_for() -> None:
    xs, targets = latch_problem(50, 4000, torch.Generator().manual_seed(0), noise_variance=0.2)
    assert torch.equal(xs[0, :, 0], 2 * targets - 1)
    assert abs(float(xs[1:].var()) - 0.2) < 0.005
    assert abs(float(targets.mean()) - 0.5) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([xs[1:, :, 0].sum(0), targets]))[0, 1])) < 0.05
    with pytest.raises(ValueError, match=r"^latch_problem: noise_variance must be at least 0, got -1"):
        latch_problem(3, 2, noise_variance=-1)


def test_spike_delays_ask_for_the_time_since_the_last_spike() -> None:
    xs, targets, weights = spike_delays(20, 5, torch.Generator().manual_seed(1), base=6, num_delays=4)
    for b in range(5):
        places = xs[:, b, 0].nonzero().flatten()
        assert places[0] == 0
        assert len(places) == 21
        since = places.diff()
        assert set(since.tolist()) <= {6, 7, 8, 9}
        torch.testing.assert_close(targets[places[1:], b, 0], (since - 6) / 3)
        assert weights[:, b].nonzero().flatten().tolist() == places[1:].tolist()
    xs, targets, _ = spike_delays(20, 5, torch.Generator().manual_seed(1), base=6, num_delays=3, doubling=True)
    for b in range(5):
        places = xs[:, b, 0].nonzero().flatten()
        assert set(places.diff().tolist()) == {6, 12, 24}
        torch.testing.assert_close(targets[places[1:], b, 0], (places.diff() / 6).log2() / 2)
    with pytest.raises(ValueError, match=r"^spike_delays: num_delays must be at least 2, got 1"):
        spike_delays(2, 2, num_delays=1)


def test_the_class_of_an_ordered_pair_is_read_off_its_two_symbols() -> None:
    xs, classes = ordered_pair(40, 2000, torch.Generator().manual_seed(0))
    assert torch.equal(xs.sum(-1), torch.ones(40, 2000))
    counts = xs[..., :2].sum(-1)
    first, second = counts.argmax(0), 39 - counts.flip(0).argmax(0)
    assert (int(first.min()), int(first.max()), int(second.min()), int(second.max())) == (4, 7, 16, 19)
    rows = torch.arange(2000)
    assert torch.equal(classes, 2 * xs[first, rows].argmax(-1) + xs[second, rows].argmax(-1))
    assert classes.bincount().tolist() == pytest.approx([500] * 4, rel=0.15)
    with pytest.raises(ValueError, match=r"^ordered_pair: num_steps must be at least 10, got 9"):
        ordered_pair(9, 2)


@pytest.mark.parametrize("period", [4, 10, 25])
def test_periodic_targets(period: int) -> None:
    steps = 3 * period
    assert timed_spikes(steps, period).nonzero().flatten().tolist() == [period - 1, 2 * period - 1, 3 * period - 1]
    for shape in ("cos", "triangle", "rectangle"):
        values = periodic_function(steps, period, shape)
        torch.testing.assert_close(values[:period], values[period : 2 * period])
        assert values[-1] == 1
        assert values.min() >= 0
    half = periodic_function(steps, period)[period // 2 - 1]
    assert abs(float(half) - (1 + math.cos(2 * math.pi * (period // 2) / period)) / 2) < 1e-6


def test_a_trial_stops_when_its_test_is_passed_and_leaves_the_net_that_it_was_given() -> None:
    net = ElmanCell(2, 3, generator=torch.Generator().manual_seed(0))
    before = net.weight_hh.detach().clone()
    chunk = Chunk(torch.ones(4, 2, 2), torch.zeros(4, 2, 3))
    asked: list[float] = []

    def test(now) -> bool:
        asked.append(float(now.weight_hh.detach().sub(before).abs().max()))
        return len(asked) == 2

    trial = learn_until(net, lambda n: chunk, MeanSquaredError(), test, num_updates=50, every=5, lr=0.01)
    assert (trial.solved, trial.updates, len(asked)) == (True, 10, 2)
    assert 0 < asked[0] < asked[1]
    assert torch.equal(net.weight_hh, before)
    trial = learn_until(net, lambda n: chunk, MeanSquaredError(), lambda now: False, num_updates=7, every=5, lr=0.01)
    assert (trial.solved, trial.updates) == (False, 7)


def test_an_open_memory_cell_passes_its_gradient_on_exactly() -> None:
    experiment = Bengio1994Latching.smoke()
    assert experiment._carousel(1e4) == 1.0
    assert 0 < experiment._carousel(1.0) < 0.01
