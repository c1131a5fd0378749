"""Online estimators on public streams, each row predicted before it is learned, beside naive methods and River's."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recurra.estimators import OnlineClassifier, OnlineForecaster

from .section import Section

ROWS = 6_000  # of each stream, from its beginning
LATE = 0.5  # the part at the end for the second column of errors
Row = tuple[dict[str, float], Any]
Method = tuple[str, Callable[[dict[str, float]], Any], Callable[[dict[str, float], Any], None]]


def folder() -> Path:
    """What the environment variable RECURRA_DATA names."""
    found = os.environ.get("RECURRA_DATA")
    if not found:
        raise FileNotFoundError("benchmarks: RECURRA_DATA must be the folder with ett/ETTh1.csv, got nothing.")
    return Path(found)


def oil() -> Iterator[Row]:
    """The oil temperature of ETTh1, every hour, from its own past."""
    for line in (folder() / "ett" / "ETTh1.csv").read_text().splitlines()[1 : ROWS + 1]:
        yield {}, float(line.rsplit(",", 1)[1])


def laser() -> Iterator[Row]:
    """The laser of the Santa Fe competition, from its own past."""
    for value in np.load(folder() / "santafe-laser" / "santafe_laser.npy").ravel()[:ROWS].tolist():
        yield {}, float(value)


def eyes() -> Iterator[Row]:
    """Are the eyes open or shut? Fourteen electrodes, 128 rows a second; the label of the row before is not shown."""
    text = (folder() / "eeg-eye-state" / "EEG Eye State.arff").read_text().split("@DATA")[1]
    for line in text.split()[:ROWS]:
        *values, label = line.split(",")
        yield {f"e{i}": float(v) for i, v in enumerate(values)}, int(label)


def made_up() -> Iterator[Row]:
    """A wave, for a quick run."""
    for t in range(120):
        yield {}, math.sin(t / 3)


def naive(rows: list[Row], forecasts: bool) -> dict[str, list[float]]:
    """Errors of the last value and the running mean; of the commonest class and the last one."""
    found: dict[str, list[float]] = {}
    last, total, counts = (0.0 if forecasts else None), 0.0, dict[Any, int]()
    for t, (_, y) in enumerate(rows):
        if forecasts:
            guesses = {"last value": last, "running mean": total / max(1, t)}
            total += y
        else:
            commonest = max(counts, key=counts.__getitem__) if counts else None
            guesses = {"commonest class": commonest, "last class (is told the label of the row before)": last}
            counts[y] = counts.get(y, 0) + 1
        for name, guess in guesses.items():
            found.setdefault(name, []).append(error(guess, y, forecasts))
        last = y
    return found


def error(guess: Any, y: Any, forecasts: bool) -> float:
    """Absolute, or 1 for a wrong class."""
    return abs(guess - y) if forecasts else float(guess != y)


def rivers(forecasts: bool) -> list[Method]:
    """Methods of River, where it is installed."""
    try:
        from river import forest, linear_model, preprocessing, time_series
    except ImportError:
        return []
    if forecasts:
        model: Any = time_series.SNARIMAX(p=24, d=1, q=0)
        seen: list[float] = []

        def predict(x: dict[str, float]) -> float:
            return float(model.forecast(horizon=1)[0]) if len(seen) > 24 else (seen[-1] if seen else 0.0)

        def learn(x: dict[str, float], y: float) -> None:
            model.learn_one(y)
            seen[:] = [*seen[-24:], y]

        return [("River SNARIMAX(p=24, d=1, q=0)", predict, learn)]
    pipelines: dict[str, Any] = {
        "River StandardScaler, LogisticRegression": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "River ARFClassifier (10 trees)": forest.ARFClassifier(n_models=10, seed=0),
    }
    return [(name, model.predict_one, model.learn_one) for name, model in pipelines.items()]


def ours(forecasts: bool) -> list[Method]:
    """Two rules, with the defaults of everything else."""
    found: list[Method] = []
    for cell, rule in (("LSTMCell", "SnAp(n=1)"), ("LSTMCell", "EProp")):
        if forecasts:
            model: Any = OnlineForecaster(cell=cell, rule=rule)
            name = f"`OnlineForecaster`, {cell}, {rule}"
            found.append((name, model.predict_one, model.learn_one))
        else:
            model = OnlineClassifier(cell=cell, rule=rule, sees_last_label=False)
            name = f"`OnlineClassifier(sees_last_label=False)`, {cell}, {rule}"
            found.append((name, model.predict_one, model.learn_one))
    return found


def errors(method: Method, rows: list[Row], forecasts: bool) -> tuple[list[float], float]:
    """The error of each row, and processor time per row in microseconds."""
    _, predict, learn = method
    found, began = [], time.process_time()
    for x, y in rows:
        guess = predict(x)
        found.append(error(guess, y, forecasts))
        learn(x, y)
    return found, (time.process_time() - began) / len(rows) * 1e6


def run(quick: bool = False) -> Section:
    """Every method on every stream, in one pass."""
    streams = (
        {"a wave": made_up} if quick else {"ETTh1 oil temperature": oil, "Santa Fe laser": laser, "EEG eye state": eyes}
    )
    table = []
    for title, read in streams.items():
        rows = list(read())
        forecasts = isinstance(rows[0][1], float)
        found = {name: (wrong, 0.0) for name, wrong in naive(rows, forecasts).items()}
        for method in (*rivers(forecasts), *ours(forecasts)):
            found[method[0]] = errors(method, rows, forecasts)
            print(f"  {title}: {method[0]} {np.mean(found[method[0]][0]):.4g}", flush=True)
        late = int(len(rows) * LATE)
        form = (lambda v: f"{v:.4g}") if forecasts else (lambda v: f"{v:.1%}")
        for name, (wrong, each) in found.items():
            whole, end = form(float(np.mean(wrong))), form(float(np.mean(wrong[late:])))
            table.append((f"{title}, {len(rows):,} rows", name, whole, end, f"{each:,.0f}" if each else ""))
    notes = (
        "Mean absolute error of forecasts one row ahead, share of wrong answers of classes. Each row is predicted, then "
        "learned, once and in order; no setting was chosen on these streams, ours are the defaults. The state of the eyes "
        "changes a few times in all, so whoever is told the label of the row before is nearly always right: there the "
        "estimators are asked from the electrodes alone. Microseconds are processor time for prediction and learning "
        "together.",
    )
    columns = ("stream", "method", "error", "second half", "microseconds per row")
    return Section("Streams, a row at a time", columns, table, notes)
