"""Generated data against what is known of it: grammars, machines, sums, frequencies."""

from __future__ import annotations

import math
import re

import pytest
import torch

from recurra.core import Chunk, Controls
from recurra.tasks.continual import delayed_nonmatch, delayed_xor, event_after_event, oscillation
from recurra.tasks.long_lag import first_symbol_returns, lag_among_distractors
from recurra.tasks.marked_numbers import marked_numbers
from recurra.tasks.one_stream import one_stream
from recurra.tasks.parentheses import MARKS, Head, head_actions, random_tapes
from recurra.tasks.reber import SYMBOLS, continual_reber, next_symbol, reber_strings, symbols_right
from recurra.tasks.temporal_order import temporal_order
from recurra.tasks.two_sequences import two_sequences


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# From node 3 of Reber's graph to its end, then the whole of it; written as an expression, not as a graph.
_FROM_3 = r"T*V(?:PXT*V)*(?:V|PS)"
REBER = rf"B(?:TS*X(?:S|X{_FROM_3})|P{_FROM_3})E"
EMBEDDED = re.compile(rf"B(?:T{REBER}T|P{REBER}P)E")


def texts(strings) -> list[str]:
    return ["".join(SYMBOLS[s] for s in strings.symbols[:n, b]) for b, n in enumerate(strings.lengths.tolist())]


def test_every_reber_string_matches_the_expression_and_lengths_are_as_computed() -> None:
    strings = reber_strings(20_000, generator())
    assert all(EMBEDDED.fullmatch(text) for text in texts(strings))
    lengths = strings.lengths.double()
    assert lengths.min() == 9
    # In exact arithmetic the graph's mean is 12: four symbols outside and eight inside.
    assert abs(lengths.mean() - 12) < 5 * lengths.std() / math.sqrt(len(lengths))


def test_legal_symbols_are_those_that_ever_follow() -> None:
    strings = reber_strings(20_000, generator(1))
    follow: dict[str, set[str]] = {}
    said: dict[str, set[str]] = {}
    for b, text in enumerate(texts(strings)):
        for t in range(min(7, len(text))):
            follow.setdefault(text[:t], set()).add(text[t])
            said[text[:t]] = {SYMBOLS[k] for k in strings.legal[t, b].nonzero().flatten().tolist()}
    assert len(follow) > 30
    assert follow == said


def test_continual_reber_is_strings_one_behind_the_other() -> None:
    stream = continual_reber(5000, generator())
    text = "".join(SYMBOLS[s] for s in stream.symbols)
    assert len(text) >= 5000
    begins = stream.begins.nonzero().flatten().tolist()
    for a, b in zip(begins, [*begins[1:], len(text)]):
        assert EMBEDDED.fullmatch(text[a:b])
    assert stream.legal[torch.arange(len(text) - 1), stream.symbols[1:]].all()
    assert stream.legal.sum(1).max() == 2


def test_the_grammars_own_probabilities_are_right_everywhere_and_a_blind_guess_is_not() -> None:
    strings = reber_strings(50, generator())
    inside = strings.legal.any(-1)
    assert symbols_right(strings.legal.double(), strings.legal)[inside].all()
    assert not symbols_right(torch.ones(len(SYMBOLS)).expand(strings.legal.shape), strings.legal)[inside].any()


@pytest.mark.parametrize("operation", ["sum", "product"])
def test_marked_numbers_by_a_plain_loop(operation) -> None:
    chunk = marked_numbers(40, 500, generator(), operation=operation)
    lengths = chunk.controls.lengths.tolist()
    assert min(lengths) == 40
    assert max(lengths) == 44
    begun = 0
    for b, n in enumerate(lengths):
        numbers, markers = chunk.xs[:n, b].double().unbind(-1)
        places = [t for t in range(n) if markers[t] == 1]
        assert len(places) == 2
        assert places[0] < 10
        assert places[1] < 19
        ends = {0, n - 1} - set(places)
        assert {t for t in range(n) if markers[t] == -1} == ends
        one, two = numbers[places].tolist()
        wanted = one * two if operation == "product" else 0.5 + (one + two) / 4
        assert chunk.targets[n - 1, b, 0].item() == pytest.approx(wanted, abs=1e-6)
        assert chunk.weights[:, b].nonzero().flatten().tolist() == [n - 1]
        assert not chunk.xs[n:, b].any()
        if 0 in places:
            begun += 1
            assert one == (1 if operation == "product" else 0)
    assert 40 < begun < 110  # a tenth for the first mark, a twentieth for the second


@pytest.mark.parametrize("num_relevant", [2, 3])
def test_temporal_order_by_a_plain_loop(num_relevant) -> None:
    chunk = temporal_order(400, generator(), num_relevant=num_relevant)
    seen = set()
    for b, n in enumerate(chunk.controls.lengths.tolist()):
        assert 100 <= n <= 110
        symbols = chunk.xs[:n, b].argmax(-1)
        assert chunk.xs[:n, b].sum() == n
        assert symbols[0] == 0
        assert symbols[n - 1] == 1
        relevant = (symbols >= 6).nonzero().flatten()
        assert len(relevant) == num_relevant
        assert 10 <= relevant[0] <= 20
        kind = int("".join(str(int(symbols[t]) - 6) for t in relevant), 2)
        assert chunk.targets[n - 1, b].tolist() == [float(k == kind) for k in range(2**num_relevant)]
        seen.add(kind)
    assert len(seen) == 2**num_relevant


def test_first_symbol_returns() -> None:
    for random in (False, True):
        chunk = first_symbol_returns(10, 300, generator(), random=random)
        assert torch.equal(chunk.xs[1:], chunk.targets[:-1])
        assert torch.equal(chunk.xs[0], chunk.targets[-1])
        assert set(chunk.xs[0].argmax(-1).tolist()) == {9, 10}
        assert (chunk.xs[1:].argmax(-1) < 9).all()
        assert chunk.weights.sum() == (300 if random else 3000)


def test_lag_among_distractors() -> None:
    lag, num = 20, 7
    chunk = lag_among_distractors(lag, num, 4000, generator())
    lengths = chunk.controls.lengths
    symbols, rows = chunk.xs.argmax(-1), torch.arange(4000)
    assert (symbols[0] == num).all()
    assert torch.equal(symbols[1] - num - 2, chunk.targets[lengths - 1, rows].argmax(-1))
    assert (symbols[lengths - 1, rows] == num + 1).all()
    inside = (torch.arange(len(symbols))[:, None] > 1) & (torch.arange(len(symbols))[:, None] < lengths - 1)
    assert (symbols[inside] < num).all()
    more = (lengths - lag - 3).double()
    assert more.min() == 0
    assert abs(more.mean() - 9) < 5 * math.sqrt(90 / 4000)  # geometric, stop with probability 1/10


def test_two_sequences() -> None:
    chunk = two_sequences(100, 3, 3000, generator(), signal_noise=0.2, targets=(0.2, 0.8), target_noise=0.32)
    rows, lengths = torch.arange(3000), chunk.controls.lengths
    wanted = chunk.targets[lengths - 1, rows, 0]
    sign = chunk.xs[:3].mean((0, 2)).sign()
    assert abs(wanted[sign > 0].mean() - 0.8) < 0.05
    assert abs(wanted[sign < 0].mean() - 0.2) < 0.05
    assert abs(wanted[sign > 0].std() - 0.32) < 0.03
    assert abs(chunk.xs[3:100].var() - 0.2) < 0.005
    clean = two_sequences(100, 3, 30, generator())
    assert set(clean.targets.flatten().tolist()) == {0.0, 1.0}
    assert set(clean.xs[:3].flatten().tolist()) == {-1.0, 1.0}


def test_delayed_xor() -> None:
    for delay in (1, 2, 4):
        chunk = delayed_xor(50, delay, generator())
        for t in range(50):
            if t < delay - 1:
                assert chunk.weights[t] == 0
            else:
                one, two = chunk.xs[t - delay + 1, 0].tolist()
                assert chunk.targets[t].item() == float(one != two)


def test_event_after_event_and_delayed_nonmatch_by_a_plain_loop() -> None:
    chunk = event_after_event(500, 4, generator())
    armed, wanted = False, 0.0
    for t in range(500):
        assert chunk.targets[t].item() == wanted
        line = int(chunk.xs[t, 0].argmax())
        wanted = float(line == 1 and armed)
        armed = line == 0 or (armed and line != 1)
    chunk = delayed_nonmatch(500, 3, generator())
    sample, wanted = None, 0.0
    for t in range(500):
        assert chunk.targets[t].item() == wanted
        bit, cue, test = chunk.xs[t, 0].tolist()
        wanted = 0.0
        if cue:
            assert sample is None
            sample = bit
        if test:
            wanted, sample = float(bit != sample), None


def test_oscillations_have_their_period() -> None:
    for kind, period in (("01", 2), ("0011", 4), ("sine", 25)):
        values = oscillation(200, kind)
        torch.testing.assert_close(values[period:], values[:-period], atol=1e-5, rtol=0)


def balanced(text: str) -> bool:
    while "()" in text:
        text = text.replace("()", "")
    return not text


def test_heads_that_do_as_the_machine_does_decide_rightly() -> None:
    tapes = random_tapes(300, 20, generator())
    strings = ["".join(MARKS[m] for m in column).strip("*") for column in tapes.marks.T.tolist()]
    assert [balanced(text) for text in strings] == tapes.balanced.tolist()
    assert 150 <= tapes.balanced.sum() < 200
    chunk = head_actions(tapes, num_ticks=2)
    head = Head(tapes)
    for xs, wanted in zip(chunk.xs[1::2], chunk.targets[1::2]):
        running = head.verdict == 0
        assert torch.equal(xs.argmax(-1)[running], head.read()[running])
        head.act(wanted.bool())
    assert torch.equal(head.verdict == 1, tapes.balanced)
    assert torch.equal(head.verdict == -1, ~tapes.balanced)


def test_one_stream_puts_the_rows_behind_each_other() -> None:
    chunk = next_symbol(reber_strings(7, generator()))
    weights = torch.rand(chunk.xs.shape[:2])
    stream = one_stream(chunk._replace(weights=weights))
    lengths = chunk.controls.lengths.tolist()
    rows = [slice(sum(lengths[:b]), sum(lengths[: b + 1])) for b in range(7)]
    for b, (row, n) in enumerate(zip(rows, lengths)):
        assert torch.equal(stream.xs[row, 0], chunk.xs[:n, b])
        assert torch.equal(stream.targets[row, 0], chunk.targets[:n, b])
        assert torch.equal(stream.weights[row, 0], weights[:n, b])
        assert stream.controls.reset[row, 0].tolist() == [True] + [False] * (n - 1)
    whole = one_stream(Chunk(torch.zeros(3, 2, 1), torch.zeros(3, 2, 1)))
    assert whole.xs.shape == (6, 1, 1)
    assert whole.controls == Controls(reset=whole.controls.reset)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: marked_numbers(23, 1), "marked_numbers: num_steps must be at least 24, got 23."),
        (lambda: two_sequences(3, 4, 1), "two_sequences: num_relevant must be at most num_steps=3, got 4."),
        (lambda: event_after_event(3, 1), "event_after_event: num_lines must be at least 2, got 1."),
        (lambda: delayed_nonmatch(3, -1), "delayed_nonmatch: longest_delay must be at least 0, got -1."),
        (lambda: random_tapes(3, 1), "random_tapes: longest must be at least 2, got 1."),
    ],
)
def test_sizes_that_make_no_task_are_refused(call, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
