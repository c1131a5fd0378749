"""Forecasts that every model must beat: last value, seasonal naive, exponential smoothing, ARIMA.

Each takes a history (T,) without missing values, a horizon, a period and quantile levels, and returns the point (H,) and the
quantiles (H, Q).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Array = np.ndarray
Answer = tuple[Array, Array]
Method = Callable[[Array, int, int, Sequence[float]], Answer]

_MAX_HISTORY = 1000


def fill(history: Array) -> Array:
    """Missing values by straight lines between their neighbours, (T,)."""
    missing = np.isnan(history)
    if not missing.any() or missing.all():
        return np.where(missing, 0.0, history)
    at = np.arange(len(history))
    return np.interp(at, at[~missing], history[~missing])


def normal_quantiles(point: Array, sd: Array, levels: Sequence[float]) -> Array:
    """Quantiles (H, Q) of normal distributions."""
    return point[:, None] + sd[:, None] * np.array([NormalDist().inv_cdf(q) for q in levels])[None].reshape(1, -1)


def seasonal_naive(history: Array, horizon: int, period: int, levels: Sequence[float]) -> Answer:
    """The value one season before; the last value where the period is 1 or the history shorter than it.

        f_{t+h} = y_{t+h-km},    k the smallest whole number that reaches back into the history

    Example:
        >>> seasonal_naive(np.array([1.0, 2.0, 3.0, 4.0]), 3, 2, ())[0].tolist()
        [3.0, 4.0, 3.0]
    """
    period = period if len(history) >= period else 1
    point = history[len(history) - period + np.arange(horizon) % period]
    change = history[period:] - history[:-period] if len(history) > period else np.zeros(1)
    sd = np.sqrt(np.mean(change**2)) * np.sqrt(1 + np.arange(horizon) // period)
    return point, normal_quantiles(point, sd, levels)


def last_value(history: Array, horizon: int, period: int, levels: Sequence[float]) -> Answer:
    """The last value again and again (a random walk)."""
    return seasonal_naive(history, horizon, 1, levels)


def ets(history: Array, horizon: int, period: int, levels: Sequence[float]) -> Answer:
    """Exponential smoothing with additive errors, damped trend and, for periods up to 366, a season (statsmodels).

    Multiplicative components by way of the logarithm: it is taken where all values are positive and vary by more than a
    factor of two. Fitted to the last 1,000 values.

    Source:
        Hyndman et al. 2002, International Journal of Forecasting 18(3):439-454 (from memory)
    """
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    history, back = _logged(history[-max(_MAX_HISTORY, 3 * period) :])
    seasonal = 1 < period <= 366 and len(history) >= 2 * period + 4
    trend = len(history) >= 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ETSModel(
            pd.Series(history),
            error="add",
            trend="add" if trend else None,
            damped_trend=trend,
            seasonal="add" if seasonal else None,
            seasonal_periods=period if seasonal else None,
            initialization_method="heuristic" if len(history) >= max(10, 2 * period) + 4 else "estimated",
        )
        fitted = model.fit(disp=False, maxiter=200)
        start = len(history)
        prediction = fitted.get_prediction(start=start, end=start + horizon - 1)
        point = np.asarray(prediction.predicted_mean)
        sd = np.sqrt(np.asarray(prediction.forecast_variance))
    return back(point), back(normal_quantiles(point, sd, levels))


def arima(history: Array, horizon: int, period: int, levels: Sequence[float]) -> Answer:
    """ARIMA of the order with the best AICc among five, on the last 1,000 values (statsmodels).

    Differenced once where that makes the changes smaller than the spread of the values. A season is taken out first with
    STL and its last cycle repeated.

    Source:
        Box & Jenkins 1970; Cleveland et al. 1990 for STL (from memory)
    """
    from statsmodels.tsa.arima.model import ARIMA
    from statsmodels.tsa.seasonal import STL

    history, back = _logged(history[-max(_MAX_HISTORY, 4 * period) :])
    ahead = np.zeros(horizon)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if period > 1 and len(history) >= 3 * period:
            season = STL(history, period=period, robust=False).fit().seasonal
            ahead = season[len(season) - period + np.arange(horizon) % period]
            history = history - season
        d = int(np.std(np.diff(history)) < np.std(history))
        best = None
        for p, q in ((0, 1), (1, 0), (1, 1), (2, 1), (2, 2)):
            if len(history) < 3 * (p + q + d) + 5:
                continue
            try:
                found = ARIMA(history[-_MAX_HISTORY:], order=(p, d, q), trend="n" if d else "c").fit(
                    method_kwargs={"maxiter": 50}
                )
            except (np.linalg.LinAlgError, ValueError):
                continue
            if np.isfinite(found.aicc) and (best is None or found.aicc < best.aicc):
                best = found
        if best is None:
            return seasonal_naive(back(history + 0.0) if not ahead.any() else back(history), horizon, 1, levels)
        answer = best.get_forecast(horizon)
        point, sd = np.asarray(answer.predicted_mean) + ahead, np.asarray(answer.se_mean)
    return back(point), back(normal_quantiles(point, sd, levels))


def _logged(history: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The history, through the logarithm where it is positive and varies much, and the way back."""
    if history.min() > 0 and history.max() > 2 * history.min():
        top = np.log(history.max()) + 3.0
        return np.log(history), lambda v: np.exp(np.minimum(v, top))
    return history.astype(np.float64), lambda v: v


METHODS: dict[str, Method] = {"last value": last_value, "seasonal naive": seasonal_naive, "ETS": ets, "ARIMA": arima}
"""By the name that tables show."""


def answer(name: str, history: Array, horizon: int, period: int, levels: Sequence[float]) -> Answer:
    """A baseline's forecast of a history with missing values; what fails or explodes becomes the seasonal naive forecast."""
    return answered(name, history, horizon, period, levels)[0]


def answered(name: str, history: Array, horizon: int, period: int, levels: Sequence[float]) -> tuple[Answer, bool]:
    """What `answer` returns, and whether it is the method's own rather than the seasonal naive forecast in its place."""
    history = fill(np.asarray(history, dtype=np.float64))
    simple = seasonal_naive(history, horizon, period, levels)
    if name in ("ETS", "ARIMA") and (len(history) < 8 or np.ptp(history) == 0):
        return simple, False
    try:
        point, quantiles = METHODS[name](history, horizon, period, levels)
    except (ValueError, np.linalg.LinAlgError, FloatingPointError, ZeroDivisionError, IndexError):
        return simple, False
    reach = np.abs(history).max() + 10 * np.ptp(history)
    fine = np.isfinite(point).all() and np.abs(point).max() <= reach and np.isfinite(quantiles).all()
    return ((point, quantiles), True) if fine or name not in ("ETS", "ARIMA") else (simple, False)
