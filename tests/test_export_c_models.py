"""Forecasters, classifiers and regressors as C: raw numbers in, the answers of Python out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from c_compiler import SANITIZERS, compiled, needs_compiler, run
from recurra.cli.main import app
from recurra.estimators import Forecaster, SequenceClassifier, SequenceRegressor
from recurra.estimators.forecasting.windows import Prepared
from recurra.export import to_c

Array = Any


def as_text(*arrays: Array) -> bytes:
    """Numbers for the example's standard input."""
    return " ".join(f"{v:.17g}" for a in arrays if a is not None for v in np.asarray(a).reshape(-1)).encode()


def rows(text: bytes) -> Array:
    """The numbers of each line."""
    return np.array([[float(v) for v in line.split()] for line in text.decode().splitlines()])


# --- series that are told one step after the other ---


def some_series() -> tuple[list[Array], list[str], list[float]]:
    """Two channels, one far from 0; some values missing."""
    rng = np.random.default_rng(0)
    X = []
    for i in range(24):
        t = np.arange(int(rng.integers(12, 20)))
        X.append(np.stack([np.sin(t * (0.3 + 0.5 * (i % 2)) + rng.random()), 50 + 3 * rng.normal(size=len(t))], 1))
    X[3][0, 1] = X[5][4, 0] = X[5][5, 0] = np.nan
    return X, ['a "slow" one', "fast"] * 12, [7.0 + 3 * (i % 2) for i in range(24)]


LAST = {"pooling": "last"}
FORWARD = {"bidirectional": False, "convolutions": "none", "scale": "standard"}


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(SequenceClassifier, {**LAST, "num_models": 2, "num_layers": 2}, id="last"),
        pytest.param(SequenceClassifier, {**LAST, "rule": "TruncatedBPTT", "differences": False}, id="bare cell"),
        pytest.param(SequenceClassifier, {**FORWARD, "pooling": "attention"}, id="attention"),
        pytest.param(SequenceClassifier, {**FORWARD, "pooling": "mean+max", "cell": "GRUCell"}, id="mean and max"),
        pytest.param(SequenceRegressor, {**FORWARD, "pooling": "mean", "num_models": 1}, id="mean, regression"),
        pytest.param(SequenceRegressor, {**LAST, "num_models": 2, "hold_out": "folds"}, id="a scale for each net"),
    ],
)
def test_answers_for_series(kind: Any, options: dict[str, Any], tmp_path: Path) -> None:
    X, classes, numbers = some_series()
    if "bidirectional" in options:  # such nets do not read causally: missing values are filled from both sides
        X[3][0, 1] = X[5][4, 0] = X[5][5, 0] = 50.0
    model = kind(hidden_size=6, num_updates=3, seed=1, **options)
    model.fit(X, classes if kind is SequenceClassifier else numbers)
    to_c(model, tmp_path, "net")
    program = compiled(tmp_path, ["net.c", "net_example.c"], *SANITIZERS)
    for i in (0, 3, 5):
        found = rows(run(program, as_text(X[i])))
        assert len(found) == len(X[i])
        if kind is SequenceClassifier:
            np.testing.assert_allclose(found[-1], model.predict_proba([X[i]])[0], atol=1e-6)
            assert 'a \\"slow\\" one' in (tmp_path / "net_weights.h").read_text()
        else:
            np.testing.assert_allclose(found[-1], model.predict([X[i]]), atol=1e-5)
        if model.causal_:
            steps = model.predict_steps([X[i]])[0]
            np.testing.assert_allclose(found, steps.reshape(len(steps), -1), atol=1e-5)
    rounded = to_c(model, tmp_path, "net", bits=8, data=X)
    assert rounded.loss["measured_on"] == "24 series: the inputs that were given"
    assert 0 < rounded.loss.get("largest_difference_of_probability", rounded.loss.get("relative_error", 1.0)) < 0.02
    made_up = to_c(model, tmp_path, "net", bits=8)
    assert "made-up series" in made_up.loss["measured_on"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "reads backwards too"),
        ({"bidirectional": False, "convolutions": "4x3"}, "begins with convolutions"),
        ({**FORWARD, "scale": "both", "pooling": "mean"}, r"scales each series by itself \(scale='both'\)"),
        ({**FORWARD, "frames": 2, "pooling": "mean"}, "reads 2 steps at once"),
    ],
)
def test_what_needs_the_whole_series_is_refused(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    X, classes, _ = some_series()
    model = SequenceClassifier(hidden_size=4, num_updates=1, num_models=1, **options).fit(X, classes)
    want = rf"^to_c: the model must be one that can be told one step after the other, got one that {reason}"
    with pytest.raises(ValueError, match=want):
        to_c(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_texts_are_refused(tmp_path: Path) -> None:
    model = SequenceClassifier(hidden_size=4, num_updates=1, num_models=1, pooling="last")
    model.fit(["good film", "bad film"] * 12, ["yes", "no"] * 12)
    with pytest.raises(ValueError, match="got one that reads texts"):
        to_c(model, tmp_path)


def test_a_streaming_model_from_the_command(tmp_path: Path) -> None:
    head = "@problemName x\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"
    rng = np.random.default_rng(0)
    lines = [",".join(f"{v:.4f}" for v in rng.normal(size=6)) + f":{'ab'[i % 2]}\n" for i in range(12)]
    (tmp_path / "x.ts").write_text(head + "".join(lines))
    runner, out = CliRunner(), str(tmp_path / "x-model")
    options = ["--updates", "1", "--hidden-size", "4", "--models", "1", "--out", out]
    result = runner.invoke(app, ["train", str(tmp_path / "x.ts"), "--streaming", *options])
    assert result.exit_code == 0, result.output
    result = runner.invoke(app, ["export", out, "--bits", "8", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["loss"]["measured_on"] == "2 series: what was held out of x.ts"
    (tmp_path / "x.txt").write_text("to be or not to be\n" * 30)
    result = runner.invoke(app, ["train", str(tmp_path / "x.txt"), "--streaming", "--out", str(tmp_path / "y")])
    assert result.exit_code == 2
    assert "recurra: --streaming must be left out for a language model" in result.output


# --- forecasts ---


def wave(num_steps: int, period: int = 12, size: float = 1.0, seed: int = 0) -> Array:
    """A season, a trend and noise, above 0."""
    t, rng = np.arange(num_steps), np.random.default_rng(seed)
    return 10 + size * np.sin(2 * np.pi * t / period) + 0.02 * t + 0.1 * rng.normal(size=num_steps)


ODD = "load */* ??/"  # what a column may be called, and what must not end a comment in C


def hourly(num_steps: int) -> pd.DataFrame:
    """With timestamps and a price that is known ahead."""
    times = pd.date_range("2024-01-01", periods=num_steps, freq="h")
    price = np.random.default_rng(1).normal(size=num_steps)
    return pd.DataFrame({"time": times, ODD: wave(num_steps, 24) + price, "price": price})


def forecast_in_c(
    model: Forecaster, folder: Path, series: Any, which: int, variable: int, bits: int = 32
) -> tuple[Array, Array]:
    """The forecast of the C code from a window that ends ``horizon`` steps before the end, and that of Python."""
    to_c(model, folder, "fc", bits=bits)
    setup, shape = model.setup_, model.setup_.shape
    found, _ = (
        model.read(series) if not isinstance(series, tuple) else model.read(series[0], known=series[1], past=series[2])
    )
    prepared, end = Prepared(setup, found), int(found.lengths[which]) - setup.horizon
    point, quantiles = model._split(model._outputs(prepared, np.array([which]), np.array([end]))[0])
    wanted = np.concatenate([point[..., None], quantiles], -1)

    def rows_of(values: Array, begin: int, stop: int) -> Array:
        out = np.full((stop - begin, values.shape[1]), np.nan)
        a, b = max(begin, 0), min(stop, len(values))
        out[a - begin : b - begin] = values[a:b]
        return out

    begin, future = end - setup.window, end + shape.num_future * shape.segment
    window = rows_of(found.values[which], begin, end)
    past = rows_of(found.past[which], begin, end) if setup.past else None
    ahead = None
    if setup.num_ahead:
        at = prepared.start[which]
        ahead = prepared.ahead[at + begin : at + future].astype(float)
        if setup.known:
            ahead[:, : len(setup.known)] = rows_of(found.known[which], begin, future)
    if not setup.joint:
        window, wanted = window[:, [variable]], wanted[:, [variable]]
    example = (folder / "fc_example.c").read_text()
    given = "".join(
        f", {n}" for n, there in ((variable, shape.kinds > 1), (which, "int32_t series" in _header(folder))) if there
    )
    example = re.sub(r"fc_forecast\(&state(, 0)*,", f"fc_forecast(&state{given},", example)
    (folder / "main.c").write_text(example)
    answer = rows(run(compiled(folder, ["fc.c", "main.c"], *SANITIZERS), as_text(window, past, ahead)))
    return answer, wanted.reshape(len(wanted), -1)


def _header(folder: Path) -> str:
    return (folder / "fc.h").read_text()


def holed(values: Array) -> Array:
    """With missing values."""
    values = values.copy()
    values[40], values[-20:-17], values[-14] = np.nan, np.nan, np.nan
    return values


TWO = np.stack([wave(220), wave(220, 6, 3.0, seed=1)], 1)
COVARIATES = np.random.default_rng(3).normal(size=(232, 2))
CASES = {
    "plain": ({}, wave(200), 0, 0),
    "a variable of two": ({"scaling": "global", "window_scale": "change", "level": "mean"}, TWO, 0, 1),
    "series with scales": (
        {"scaling": "series", "level": "season", "base": "season", "num_members": 2, "transform": "log1p"},
        {"a": wave(200), "b": 5 * wave(180), "c": wave(190, seed=5) / 5},
        1,
        0,
    ),
    "joint, direct, covariates": (
        {"variables": "joint", "decoder": "direct", "num_members": 3, "window_scale": "std", "quantiles": ()},
        (holed(TWO), COVARIATES, COVARIATES[:220]),
        0,
        0,
    ),
    "the calendar, no line": (
        {"calendar": ("hour", "weekday"), "known": ("price",), "target": ODD, "time": "time", "linear": False},
        hourly(400),
        0,
        0,
    ),
    "missing values, logarithm": ({"transform": "log", "base": "season", "season": 12}, holed(wave(200)), 0, 0),
    "short history": ({"horizon": 5, "segment": 2, "window": 12}, wave(60), 0, 0),
}


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_forecasts(name: str, tmp_path: Path) -> None:
    options, data, which, variable = CASES[name]
    model = Forecaster(**{"horizon": 12, "hidden_size": 5, "num_updates": 3, "seed": 1, **options})
    if isinstance(data, tuple):
        model.fit(data[0], known=data[1], past=data[2])
    else:
        model.fit(data)
    ours, wanted = forecast_in_c(model, tmp_path, data, which, variable)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    if name == "plain":
        found = to_c(model, tmp_path / "bytes", "fc", bits=8, data=data, data_words="these")
        assert found.loss["measured_on"].endswith("windows: these")
        assert found.loss["relative_to_the_spread_of_the_forecasts"] < 0.02
        kept = to_c(model, tmp_path / "kept", "fc", bits=8)
        assert "the end of the training series" in kept.loss["measured_on"]
        rounded, _ = forecast_in_c(model, tmp_path / "rounded", data, which, variable, bits=8)
        assert 0 < np.abs(rounded - wanted).max() < 0.05


def test_a_forecaster_of_another_rule_is_refused(tmp_path: Path) -> None:
    model = Forecaster(horizon=6, hidden_size=4, num_updates=1, rule="TruncatedBPTT").fit(wave(120))
    with pytest.raises(ValueError, match=r"^to_c: the model must be a forecaster trained by BPTT, got TruncatedBPTT\."):
        to_c(model, tmp_path)
