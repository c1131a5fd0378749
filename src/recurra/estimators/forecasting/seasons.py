"""Seasons found in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray

_MAX_SERIES = 300
_MAX_STEPS = 20_000
_SURE = 0.3
_BETTER = 0.97
_NEARLY = 0.8
_WANDERS = 0.8
_DIP = 0.15


class Season(NamedTuple):
    """A period in steps and how strong it is: the autocorrelation at that lag, without the trend; at most 1."""

    period: int
    strength: float


def find_seasons(series: Sequence[Array], max_period: int | None = None, natural: Sequence[int] = ()) -> list[Season]:
    """Periods after which the series repeat themselves, the strongest short one first.

    The autocorrelation of each series without its slow trend is computed at all lags and averaged over the series. The
    first period is the shortest lag whose peak is nearly as high as the highest one. A whole multiple of it (a week beside
    a day) is a second one where repeating the values of that lag makes clearly less error.

    Args:
        series: each (T,); NaN is missing.
        max_period: longest period to look for; None for a third of the longest series.
        natural: periods that the calendar suggests (24 and 168 for hours); they need less evidence, and a period within a
            twentieth of one of them is taken for it.

    Returns:
        None to two seasons; none where no autocorrelation is above 0.3.

    Example:
        >>> t = np.arange(200)
        >>> [season.period for season in find_seasons([np.sin(2 * np.pi * t / 12) + 0.1 * t])]
        [12]
        >>> find_seasons([np.random.default_rng(0).normal(size=200).cumsum()])
        []
    """
    long_enough = [np.asarray(s, dtype=np.float64)[-_MAX_STEPS:] for s in series if len(s) >= 12]
    if not long_enough:
        return []
    picked = long_enough[:: max(1, len(long_enough) // _MAX_SERIES)][:_MAX_SERIES]
    filled = [s for s in map(_fill, picked) if s is not None and np.ptp(s) > 0]
    if not filled:
        return []
    longest = max(len(s) for s in filled) // 3
    longest = min(longest, max_period or longest)
    if longest < 2:
        return []
    levels, changes = _mean_correlations(filled, longest + 2)
    noise = 1 / np.sqrt(np.median([len(s) for s in filled]) * min(4, len(filled)))
    lags = np.arange(2, longest + 1)
    wanders = levels[1] > _WANDERS
    score = (levels + changes) / 2 if wanders else levels
    peaks = lags[(score[lags] >= score[lags - 1]) & (score[lags] > score[lags + 1])]
    peaks = peaks[levels[peaks] > max(_SURE, 2 * noise)]
    if wanders:  # a random walk has such peaks too; its changes have none
        peaks = np.array([p for p in peaks if _near(changes, p) > max(0.1, 3 * noise)], dtype=int)
    expected = {n for n in natural if 2 <= n <= longest and any(abs(p - n) <= n / 20 for p in peaks)}
    peaks = np.array(
        sorted(
            expected
            | {
                int(p)
                for p in peaks
                if levels[p] - levels[1:p].min() > _DIP and not any(abs(p - n) <= n / 20 for n in expected)
            }
        ),
        dtype=int,
    )
    if not len(peaks):
        return []
    first = int(peaks[score[peaks] >= _NEARLY * score[peaks].max()][0])
    seasons = [Season(first, round(float(levels[first]), 3))]
    multiples = [lag for lag in peaks.tolist() if lag > first and lag % first == 0]
    if multiples:
        second = max(multiples, key=lambda lag: score[lag])
        if _naive_error(filled, second) <= _BETTER * _naive_error(filled, first):
            seasons.append(Season(second, round(float(levels[second]), 3)))
    return seasons


def _fill(s: Array) -> Array | None:
    """Missing values by straight lines; None where nearly all are missing."""
    missing = np.isnan(s)
    if missing.mean() > 0.7:
        return None
    if missing.any():
        at = np.arange(len(s))
        s = np.interp(at, at[~missing], s[~missing])
    return s


def _without_trend(s: Array, lags: int) -> Array:
    """Less a straight line, and for long series less a slow average."""
    at = np.arange(len(s))
    s = s - np.polyval(np.polyfit(at, s, 1), at)
    width = 2 * lags + 1
    if len(s) > 2 * width:
        padded = np.pad(s, lags, mode="edge")
        s = s - np.convolve(padded, np.ones(width) / width, mode="valid")
    return s


def _mean_correlations(series: Sequence[Array], lags: int) -> tuple[Array, Array]:
    """Mean autocorrelations (lags,) of the values without their trend, and of their changes; 0 where few series reach."""
    sums, counts = np.zeros((2, lags)), np.zeros(lags)
    for s in series:
        own = min(len(s) // 3 + 2, lags)
        for i, values in enumerate((_without_trend(s, own), np.diff(s))):
            sums[i, :own] += _autocorrelation(values, own)
        counts[:own] += 1
    means = np.where(counts >= 0.3 * len(series), sums / np.maximum(counts, 1), 0)
    return means[0], means[1]


def _autocorrelation(values: Array, lags: int) -> Array:
    """At lags 0 .. lags - 1, each divided by the number of its pairs."""
    centred = values - values.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    found = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[:lags]
    found = found / np.arange(len(centred), len(centred) - len(found), -1)
    return np.clip(found / found[0], -1, 1) if found[0] > 1e-300 else np.zeros_like(found)


def _near(values: Array, lag: int) -> float:
    """The largest value within a twentieth of the lag."""
    around = max(1, lag // 20)
    return float(values[max(1, lag - around) : lag + around + 1].max())


def _naive_error(series: Sequence[Array], lag: int) -> float:
    """Mean over the series of ``mean |s_t - s_{t-lag}|`` beside that of one step."""
    ratios = []
    for s in series:
        if len(s) > 2 * lag:
            one = np.abs(np.diff(s)).mean()
            ratios.append(np.abs(s[lag:] - s[:-lag]).mean() / one if one > 0 else 1.0)
    return float(np.mean(ratios)) if ratios else np.inf
