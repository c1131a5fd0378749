"""Backtests: forecasts of the past from moving origins, beside baselines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import check_choice, check_positive, sentence
from ...datasets.series import SeriesSet
from . import measures
from .baselines import METHODS, answered

if TYPE_CHECKING:
    import pandas as pd

    from ..forecaster import Forecaster

Array = np.ndarray
WHERE = "backtest"


@dataclass(frozen=True)
class Backtest:
    """What a backtest found.

    Args:
        rows: per method: ``method``, ``smape`` (percent), ``mase``, ``rmse``, ``mae``, ``pinball`` and ``coverage`` (NaN
            without quantiles), ``seconds``. The first is the model.
        by_step: (H,) the model's mean absolute error by steps ahead.
        origins: number of forecasts, over all series.
        interval: the part of the values that the widest interval should hold; NaN without quantiles.
        worst: the model's worst forecasts by sMAPE: dicts of ``name``, ``target``, ``origin``, ``smape``, ``history``,
            ``actual``, ``point``, ``low``, ``high`` (arrays; low and high may be None), ``times``.
        note: one sentence: how it was done.
    """

    rows: list[dict[str, Any]]
    by_step: Array
    origins: int
    interval: float
    worst: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""

    def __getitem__(self, method: str) -> dict[str, Any]:
        """The row of a method."""
        for row in self.rows:
            if row["method"] == method:
                return row
        raise KeyError(method)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("method")


def origins_of(series: SeriesSet, horizon: int, num_origins: int, stride: int | None) -> tuple[Array, Array]:
    """Series and steps at which the forecasts begin, the last one a horizon before the end."""
    stride = horizon if stride is None else stride
    which, ends = [], []
    for i, length in enumerate(series.lengths):
        last = length - horizon
        found = [last - k * stride for k in range(num_origins) if last - k * stride >= 3]
        which += [i] * len(found)
        ends += found[::-1]
    return np.array(which, dtype=int), np.array(ends, dtype=int)


def backtest(
    model: Forecaster,
    data: Any,
    *,
    known: Any = None,
    past: Any = None,
    num_origins: int = 3,
    stride: int | None = None,
    refit: str = "once",
    baselines: Sequence[str] = ("seasonal naive", "ETS", "ARIMA"),
    max_series: int = 50,
    num_worst: int = 4,
) -> Backtest:
    """Forecast the past from rolling origins, and let others do the same.

    Args:
        model: its arguments are used; what it has learned only with ``refit="never"``.
        data: as for `Forecaster.fit`.
        known, past: covariates beside arrays.
        num_origins: forecasts per series; the last one ends with the data.
        stride: steps between origins; None for the horizon.
        refit: "once": a copy learns from what lies before the first origin; "each": one copy for each origin, from all that
            lies before it; "never": the model as it is, which is honest only if it has not learned from these data.
        baselines: some of "last value", "seasonal naive", "ETS", "ARIMA".
        max_series: of many series so many are taken, evenly.
        num_worst: how many of the worst forecasts are kept.

    Returns:
        A `Backtest`.

    Raises:
        ValueError: series too short for a horizon and something to learn from.
    """
    check_choice(WHERE, "refit", refit, ("once", "each", "never"))
    check_positive(WHERE, num_origins=num_origins, **({} if stride is None else {"stride": stride}))
    for name in baselines:
        check_choice(WHERE, "baselines", name, tuple(METHODS))
    series = model.read(data, known, past)[0]
    if refit == "never":
        series = model._read_again(data, known, past)[0]
        horizon = model.horizon_
    else:
        horizon = model.horizon or model.copy_for(series).horizon_or_default(series)
    which, ends = origins_of(series, horizon, num_origins, stride)
    if not len(which):
        raise ValueError(
            sentence(
                WHERE, "data", f"a series longer than the horizon, {horizon}, by at least 3", int(series.lengths.max())
            )
        )
    picked = np.unique(which)
    picked = picked[:: max(1, len(picked) // max_series)][:max_series]
    started = time.perf_counter()
    points, quantiles = _ours(model, series, which, ends, horizon, refit)
    kept = np.isin(which, picked)
    which, ends, points, quantiles = which[kept], ends[kept], points[kept], quantiles[kept]
    seconds = time.perf_counter() - started
    levels = model.quantiles
    period = model.period_of(series)
    actual = np.stack([series.values[i][e : e + horizon] for i, e in zip(which, ends)])
    scales = np.stack(
        [
            [measures.naive_error(series.values[i][:e, c], period) for c in range(actual.shape[2])]
            for i, e in zip(which, ends)
        ]
    )
    if not np.isfinite(actual).any():
        want = f"values in the last {horizon} steps, to compare with"
        raise ValueError(sentence(WHERE, "data", want, "only missing ones"))
    errors = np.abs(actual - points)
    counts = np.isfinite(errors).sum((0, 2))
    by_step = np.where(counts > 0, np.nansum(errors, (0, 2)) / np.maximum(counts, 1), np.nan)
    rows = [_row(type(model).__name__, actual, points, quantiles, levels, scales, seconds)]
    failed = []
    for name in baselines:
        began = time.perf_counter()
        answers = [
            [answered(name, series.values[i][:e, c], horizon, period, levels) for c in range(actual.shape[2])]
            for i, e in zip(which, ends)
        ]
        found = [[given for given, _ in row] for row in answers]
        lacking = sum(not own for row in answers for _, own in row)
        if lacking:
            failed.append(
                f" In {lacking:,} of {len(answers) * len(answers[0]):,} cases {name} failed: seasonal naive there."
            )
        theirs = np.stack([np.stack([p for p, _ in row], -1) for row in found])
        spread = np.stack([np.stack([q for _, q in row], 1) for row in found])
        rows.append(_row(name, actual, theirs, spread, levels, scales, time.perf_counter() - began))
    how = {
        "once": "the model learned from what lies before the first origin",
        "each": "the model learned anew for each origin",
        "never": "the model was taken as it is",
    }[refit]
    note = f"{len(which):,} forecasts of {horizon} steps from {num_origins} origins per series; {how}."
    if len(picked) < len(series):
        note += f" {len(picked):,} of {len(series):,} series."
    note += "".join(failed)
    return Backtest(
        rows,
        by_step,
        len(which),
        levels[-1] - levels[0] if len(levels) > 1 else float("nan"),
        _worst(series, which, ends, actual, points, quantiles, num_worst),
        note,
    )


def _ours(model: Any, series: SeriesSet, which: Array, ends: Array, horizon: int, refit: str) -> tuple[Array, Array]:
    """(B, H, C) and (B, H, C, Q) of the model."""
    if refit == "never":
        return model.forecast_at(series, which, ends)
    if refit == "once":
        first = np.array([ends[which == i].min() if (which == i).any() else n for i, n in enumerate(series.lengths)])
        copy = model.copy_for(series, horizon).fit(series.cut(first.tolist()))
        return copy.forecast_at(series, which, ends)
    points = quantiles = None
    rank = np.array([np.sum((which == i) & (ends < e)) for i, e in zip(which, ends)])
    for k in np.unique(rank):
        chosen = rank == k
        until = dict(zip(which[chosen].tolist(), ends[chosen].tolist()))
        part = series.pick(sorted(until)).cut([until[i] for i in sorted(until)])
        copy = model.copy_for(series, horizon).fit(part)
        p, q = copy.forecast_at(series, which[chosen], ends[chosen])
        if points is None or quantiles is None:
            points, quantiles = np.zeros((len(which), *p.shape[1:])), np.zeros((len(which), *q.shape[1:]))
        points[chosen], quantiles[chosen] = p, q
    assert points is not None
    assert quantiles is not None
    return points, quantiles


def _row(
    name: str, actual: Array, point: Array, quantiles: Array, levels: Sequence[float], scales: Array, seconds: float
) -> dict[str, Any]:
    """One line of the table."""
    nan = float("nan")
    error = np.abs(actual - point)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(scales[:, None] > 0, error / np.where(scales > 0, scales, 1.0)[:, None], nan)
    return {
        "method": name,
        "smape": measures.smape(actual, point),
        "mase": float(np.nanmean(scaled)) if np.isfinite(scaled).any() else nan,
        "rmse": measures.rmse(actual, point),
        "mae": measures.mae(actual, point),
        "pinball": measures.pinball_loss(actual, quantiles, levels) if len(levels) else nan,
        "coverage": measures.coverage(actual, quantiles[..., 0], quantiles[..., -1]) if len(levels) > 1 else nan,
        "seconds": round(seconds, 2),
    }


def _worst(
    series: SeriesSet, which: Array, ends: Array, actual: Array, points: Array, quantiles: Array, number: int
) -> list[dict[str, Any]]:
    """The forecasts with the largest sMAPE."""
    size = np.abs(actual) + np.abs(points)
    each = 200 * np.abs(actual - points) / np.where(size > 0, size, 1.0)
    there = np.isfinite(each)
    errors = np.where(there.any(1), np.where(there, each, 0).sum(1) / np.maximum(there.sum(1), 1), -1.0)  # (B, C)
    order = np.argsort(-errors, axis=None)[:number]
    found = []
    for b, c in zip(*np.unravel_index(order, errors.shape)):
        i, e, horizon = int(which[b]), int(ends[b]), actual.shape[1]
        start = max(0, e - 4 * horizon)
        interval = quantiles.shape[-1] > 1
        found.append(
            {
                "name": series.names[i],
                "target": series.targets[c],
                "origin": e,
                "smape": float(errors[b, c]),
                "history": series.values[i][start:e, c],
                "actual": actual[b, :, c],
                "point": points[b, :, c],
                "low": quantiles[b, :, c, 0] if interval else None,
                "high": quantiles[b, :, c, -1] if interval else None,
                "times": None if series.times is None else series.times[i][start : e + horizon],
            }
        )
    return found
