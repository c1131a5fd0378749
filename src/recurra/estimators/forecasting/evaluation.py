"""Measures of a forecaster's forecasts of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import sentence
from ...datasets.series import SeriesSet
from . import measures
from .baselines import answer

if TYPE_CHECKING:
    from ..forecaster import Forecaster

Array = np.ndarray
WHERE = "Forecaster"


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
    period, channels = model.setup_.period, range(actual.shape[2])
    naive = np.stack(
        [
            np.stack([answer("seasonal naive", series.values[i][:e, c], horizon, period, ())[0] for c in channels], -1)
            for i, e in zip(which, ends)
        ]
    )
    scales = np.array(
        [[measures.naive_error(series.values[i][:e, c], period) for c in channels] for i, e in zip(which, ends)]
    )
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
