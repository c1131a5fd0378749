"""Loops in the small language: machine code does what the function itself does in Python."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from recurra.native import build, loops
from recurra.native.loops import (
    compiled,
    f32,
    f32_1d,
    f64_1d,
    f64_2d,
    i8_1d,
    i32_1d,
    i64_1d,
    local,
    num_threads,
    popcount,
    thread,
    u8_1d,
    u64,
    u64_1d,
)

GOLDEN = 0x9E3779B97F4A7C15
HALF = 0.5


@compiled
def next_random(state: u64_1d) -> np.uint64:
    """xorshift64*"""
    x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * 0x2545F4914F6CDD1D


@compiled
def coins(state: u64_1d, chance: float, out: i8_1d) -> None:
    for i in range(len(out)):
        draw = float(next_random(state) >> 11) * 1.1102230246251565e-16
        out[i] = 1 if draw < chance else -1


@compiled
def ways(xs: i64_1d, out: i64_1d) -> None:
    i = 0
    while i < len(xs):
        x = xs[i]
        i += 1
        if x == 7:
            continue
        elif x > 100 or x < -100:
            break
        j = 0
        for k in range(5, 0, -2):
            j += k
            if not (x > 0 and k < x):
                j -= 1
        out[i - 1] = j * (x // 3) + x % 3 - abs(x) + min(x, 2) - max(x, -1)
        if x == 50:
            return


@compiled
def bits(words: u64_1d, out: u64_1d, counts: i64_1d) -> None:
    for i in range(len(words)):
        word = words[i]
        out[i] = ((word * GOLDEN) ^ (~word >> 7)) + (word << 3) - u64(i)
        counts[i] = popcount(word) + int(word > 5) + int(word % 10) + int(word // 3 >> 40)


@compiled
def floats(xs: f64_1d, ys: f32_1d, out: f64_2d, narrow: f32_1d) -> None:
    for i in range(out.shape[0]):
        x = xs[i]
        out[i, 0] = math.exp(x) + math.log(1 + x * x) - math.sqrt(abs(x)) + math.tanh(x) * HALF
        out[i, 1] = i / 2 + math.floor(x) - int(x)
        out[i, 2] = -x if -1.0 < x <= 1 else 2 * x
        narrow[i] = ys[i] * 3 + f32(x) - 0.1


@compiled
def table(xs: u8_1d, out: i32_1d) -> None:
    seen = local("i32", 256)
    for i in range(len(xs)):
        seen[xs[i]] += 1
    for i in range(256):
        out[i] = seen[i]


@compiled
def shares(xs: f64_1d) -> None:
    size = (len(xs) + num_threads() - 1) // num_threads()
    for i in range(thread() * size, min(len(xs), (thread() + 1) * size)):
        xs[i] = xs[i] * 2 + 1


@compiled(reassociate=True)
def dot(xs: f32_1d, ys: f32_1d, out: f32_1d) -> None:
    total = f32(0.0)
    for i in range(len(xs)):
        total += xs[i] * ys[i]
    out[0] = total


def both(function: loops.Compiled, *arguments: Any) -> list[tuple[Any, Any]]:
    """Arrays after machine code, and after Python."""
    fast, slow = ([a.copy() if isinstance(a, np.ndarray) else a for a in arguments] for _ in range(2))
    function(*fast)
    function.python(*slow)
    return [(a, b) for a, b in zip(fast, slow) if isinstance(a, np.ndarray)]


RANDOM = np.random.default_rng(0)
CASES = [
    (coins, np.array([88172645463325252], np.uint64), 0.3, np.zeros(500, np.int8)),
    (ways, RANDOM.integers(-20, 20, 200), np.zeros(200, np.int64)),
    (ways, np.array([3, 7, -7, 50, 4, 2]), np.zeros(6, np.int64)),
    (ways, np.array([3, 1000, 5]), np.zeros(3, np.int64)),
    (bits, RANDOM.integers(0, 2**63, 64).astype(np.uint64) * 2 + 1, np.zeros(64, np.uint64), np.zeros(64, np.int64)),
    (bits, np.arange(16, dtype=np.uint64), np.zeros(16, np.uint64), np.zeros(16, np.int64)),
    (table, RANDOM.integers(0, 256, 999).astype(np.uint8), np.zeros(256, np.int32)),
    (shares, RANDOM.normal(size=7)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_machine_code_does_what_the_function_does(case: tuple[Any, ...]):
    for fast, slow in both(*case):
        np.testing.assert_array_equal(fast, slow)


def test_floats():
    xs = RANDOM.normal(size=50) * 2
    arrays = both(floats, xs, xs.astype(np.float32), np.zeros((50, 3)), np.zeros(50, np.float32))
    for fast, slow in arrays:
        np.testing.assert_allclose(fast, slow, rtol=2e-15 if fast.dtype == np.float64 else 1e-6, atol=1e-15)


def test_sums_may_be_reordered():
    xs, ys = RANDOM.normal(size=(2, 1000)).astype(np.float32)
    (_, _), (_, _), (fast, slow) = both(dot, xs, ys, np.zeros(1, np.float32))
    np.testing.assert_allclose(fast, slow, rtol=1e-4)
    assert "x float>" in _optimised(dot.text)


def test_a_loop_over_words_fills_vector_registers():
    @compiled
    def mix(words: u64_1d, others: u64_1d) -> None:
        for i in range(len(words)):
            words[i] = (words[i] ^ (others[i] << 7)) & (others[i] >> 9)

    assert "x i64>" in _optimised(mix.text)


def _optimised(text: str) -> str:
    import llvmlite.binding as llvm

    target, _, _ = build._target()
    module = llvm.parse_assembly(text)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
    return str(module)


def test_threads_share_a_call():
    xs = torch.arange(1001, dtype=torch.float64)
    shares(xs, threads=2)
    torch.testing.assert_close(xs, 2 * torch.arange(1001, dtype=torch.float64) + 1)


def test_without_a_compiler_python_runs_it(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "llvmlite", None)
    loops._warn_once.cache_clear()

    @compiled
    def double(xs: i64_1d) -> None:
        for i in range(len(xs)):
            xs[i] *= 2

    xs = np.arange(5)
    with pytest.warns(RuntimeWarning, match="llvmlite is not installed"):
        double(xs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double(xs)
    assert xs.tolist() == [0, 4, 8, 12, 16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3, np.float32),), "shares: xs must be of float64, got float32."),
        ((np.zeros((3, 3)),), "shares: xs must be of 1 dimensions, got 2."),
        ((np.zeros(6)[::2],), r"shares: xs must be contiguous, got strides \(16,\)."),
        (([1.0],), "shares: xs must be an array or a tensor, got list."),
        ((), r"shares: arguments must be 1 \(xs\), got 0."),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        shares(*arguments)


def test_what_is_not_of_the_language_is_named():
    @compiled
    def listing(xs: i64_1d) -> None:
        for _x in xs:
            pass

    @compiled
    def mixing(xs: u64_1d, ys: i64_1d) -> None:
        ys[0] = xs[0] + ys[0]

    with pytest.raises(TypeError, match="listing: For is not part of the language, in `for _x in xs:`"):
        _ = listing.text
    with pytest.raises(TypeError, match=r"mixing: u64 and i64 do not mix; write u64\(...\) or int\(...\), in `ys"):
        _ = mixing.text
    with pytest.raises(TypeError, match="xs must be annotated like f64_2d or int, got None"):
        compiled(lambda xs: None)


def test_a_function_with_a_value_is_not_called_from_python():
    with pytest.raises(TypeError, match="next_random: a function that returns a value can only be called by compiled"):
        next_random(np.zeros(1, np.uint64))
