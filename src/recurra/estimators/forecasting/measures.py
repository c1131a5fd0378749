"""How good forecasts are. Missing actual values (NaN) are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.checks import sentence

Array = np.ndarray


def _pair(where: str, actual: Any, forecast: Any) -> tuple[Array, Array]:
    """Both as float64 of one shape."""
    a, f = np.asarray(actual, dtype=np.float64), np.asarray(forecast, dtype=np.float64)
    if a.shape != f.shape:
        raise ValueError(sentence(where, "forecast", f"of the shape of actual, {a.shape}", f.shape))
    if not np.isfinite(a).any():
        raise ValueError(sentence(where, "actual", "at least one value", "only missing ones" if a.size else "none"))
    return a, f


def smape(actual: Any, forecast: Any) -> float:
    """Symmetric mean absolute percentage error, in percent, from 0 to 200.

        sMAPE = mean 200 |y - f| / (|y| + |f|)        0 where both are 0

    Args:
        actual: y, any shape; NaN is left out.
        forecast: f, the same shape.
    Raises:
        ValueError: different shapes, or no actual value.
    Source:
        Makridakis, Spiliotis & Assimakopoulos 2020, International Journal of Forecasting 36(1):54-74 (from memory)
    Example:
        >>> round(smape([100.0, 0.0], [50.0, 0.0]), 3)
        33.333
    """
    a, f = _pair("smape", actual, forecast)
    size = np.abs(a) + np.abs(f)
    return float(np.nanmean(200 * np.abs(a - f) / np.where(size == 0, 1.0, size)))


def mae(actual: Any, forecast: Any) -> float:
    """Mean absolute error, ``mean |y - f|``.

    Args:
        actual: y, any shape; NaN is left out.
        forecast: f, the same shape.
    Raises:
        ValueError: different shapes, or no actual value.
    Example:
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    a, f = _pair("mae", actual, forecast)
    return float(np.nanmean(np.abs(a - f)))


def rmse(actual: Any, forecast: Any) -> float:
    """Root of the mean squared error, ``sqrt(mean (y - f)^2)``.

    Args:
        actual: y, any shape; NaN is left out.
        forecast: f, the same shape.
    Raises:
        ValueError: different shapes, or no actual value.
    Example:
        >>> rmse([1.0, 2.0], [1.0, 4.0])
        1.4142135623730951
    """
    a, f = _pair("rmse", actual, forecast)
    return float(np.sqrt(np.nanmean((a - f) ** 2)))


def mase(actual: Any, forecast: Any, history: Any, period: int = 1) -> float:
    """Mean absolute scaled error: below 1 is better than the seasonal naive forecast was inside the history.

        MASE = mean |y - f| / mean_t |h_t - h_{t-m}|

    Args:
        actual: y, any shape; NaN is left out.
        forecast: f, the same shape.
        history: h, (T,) the values before; NaN is left out.
        period: m, steps of a season; 1 compares with the last value.
    Returns:
        The error; NaN where the history never changes or is not longer than a season.
    Raises:
        ValueError: different shapes, no actual value, a period below 1.
    Source:
        Hyndman & Koehler 2006, International Journal of Forecasting 22(4):679-688 (from memory)
    Example:
        >>> mase([5.0, 6.0], [5.0, 4.0], history=[1.0, 2.0, 3.0, 4.0])
        1.0
    """
    a, f = _pair("mase", actual, forecast)
    scale = naive_error(history, period)
    return float(np.nanmean(np.abs(a - f)) / scale) if scale > 0 else float("nan")


def naive_error(history: Any, period: int = 1) -> float:
    """``mean_t |h_t - h_{t-m}|``; 0 where there is none."""
    if not isinstance(period, int | np.integer) or period < 1:
        raise ValueError(sentence("mase", "period", "a whole number of at least 1", repr(period)))
    h = np.asarray(history, dtype=np.float64)
    change = np.abs(h[period:] - h[:-period]) if len(h) > period else np.zeros(0)
    return float(np.nanmean(change)) if np.isfinite(change).any() else 0.0


def pinball_loss(actual: Any, quantiles: Any, levels: Sequence[float]) -> float:
    """Mean pinball (quantile) loss.

        L_q = mean max(q (y - f), (q - 1) (y - f)),    averaged over the levels q

    Args:
        actual: y, any shape; NaN is left out.
        quantiles: f, the same shape and one more axis at the end, one entry for each level.
        levels: q, between 0 and 1.
    Raises:
        ValueError: different shapes, a level outside (0, 1), or no actual value.
    Example:
        >>> round(pinball_loss([1.0], [[0.0, 3.0]], levels=[0.1, 0.9]), 3)
        0.15
    """
    q = np.asarray(levels, dtype=np.float64)
    f = np.asarray(quantiles, dtype=np.float64)
    if q.ndim != 1 or not len(q) or not np.all((q > 0) & (q < 1)):
        raise ValueError(sentence("pinball_loss", "levels", "numbers between 0 and 1", list(levels)))
    a = np.asarray(actual, dtype=np.float64)[..., None]
    _, f = _pair("pinball_loss", np.broadcast_to(a, (*a.shape[:-1], len(q))), f)
    error = a - f
    return float(np.nanmean(np.maximum(q * error, (q - 1) * error)))


def coverage(actual: Any, low: Any, high: Any) -> float:
    """Part of the actual values that lie inside ``[low, high]``.

    Args:
        actual: any shape; NaN is left out.
        low: the lower ends, the same shape.
        high: the upper ends, the same shape.
    Raises:
        ValueError: different shapes, or no actual value.
    Example:
        >>> coverage([1.0, 5.0], [0.0, 0.0], [2.0, 2.0])
        0.5
    """
    a, lower = _pair("coverage", actual, low)
    _, upper = _pair("coverage", actual, high)
    there = ~np.isnan(a)
    return float(np.mean((a[there] >= lower[there]) & (a[there] <= upper[there])))
