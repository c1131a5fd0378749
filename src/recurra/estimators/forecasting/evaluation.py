"""Measures of a forecaster's forecasts of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import sentence
from ...datasets.series import SeriesSet
from . import measures
from .baselines import fill

if TYPE_CHECKING:
    from ..forecaster import Forecaster

Array = np.ndarray
WHERE = "Forecaster"


def naive_of(history: Array, horizon: int, period: int) -> tuple[Array, Array]:
    """Seasonal naive forecasts (H, C) of all variables of a history (T, C), and their errors inside it (C,).

    What `answer` and `measures.naive_error` give for each variable, for all of a million at once.
    """
    filled = history.copy()
    for c in np.flatnonzero(np.isnan(history).any(0)):
        filled[:, c] = fill(history[:, c])
    back = period if len(history) >= period else 1
    point = filled[len(history) - back + np.arange(horizon) % back]
    change = np.abs(history[period:] - history[:-period]) if len(history) > period else np.zeros((0, history.shape[1]))
    counts = np.isfinite(change).sum(0)
    return point, np.where(counts > 0, np.nansum(change, 0) / np.maximum(counts, 1), 0.0)


def evaluate_at(model: Forecaster, series: SeriesSet, which: Array, ends: Array) -> dict[str, Any]:
    """Measures of forecasts from the given ends, beside seasonal naive."""
    horizon, levels = model.horizon_, list(model.quantiles)
    short = ends + horizon > series.lengths[which]
    which, ends = which[~short], ends[~short]
    point, quantiles = model.forecast_at(series, which, ends)
    actual = np.stack([series.values[i][e : e + horizon] for i, e in zip(which, ends)])
    there = np.isfinite(actual).any((1, 2))
    which, ends, point, quantiles, actual = (v[there] for v in (which, ends, point, quantiles, actual))
    if not len(which):
        raise ValueError(sentence(WHERE, "data", "series with values to compare with", "only missing ones"))
    period = model.setup_.period
    both = [naive_of(series.values[i][:e], horizon, period) for i, e in zip(which, ends)]
    naive, scales = np.stack([point for point, _ in both]), np.stack([error for _, error in both])
    scales = np.where(scales > 0, scales, np.nan)[:, None]

    def basic(forecast: Array) -> dict[str, float]:
        scaled = np.abs(actual - forecast) / scales
        return {
            "smape": measures.smape(actual, forecast),
            "mase": float(np.nanmean(scaled)) if np.isfinite(scaled).any() else float("nan"),
            "rmse": measures.rmse(actual, forecast),
            "mae": measures.mae(actual, forecast),
        }

    found: dict[str, Any] = {**basic(point), "num_forecasts": len(which), "seasonal_naive": basic(naive)}
    if levels:
        found["pinball"] = measures.pinball_loss(actual, quantiles, levels)
    if len(levels) > 1:
        found["coverage"] = measures.coverage(actual, quantiles[..., 0], quantiles[..., -1])
    return found
