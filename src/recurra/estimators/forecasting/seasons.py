"""Seasons found in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray

_MAX_SERIES = 300
_MAX_STEPS = 20_000
_ALPHA = 0.02  # of finding a season where there is none: a bound, since several tests must agree
_SURE = 0.3
_LEAST = 0.1
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

    Noise and wandering series have peaks by chance. So a peak counts only where it is also found in what a first-order
    autoregression leaves of the series: as an autocorrelation, or as a line of the periodogram at the period or a fraction
    of it, that noise without a season would reach at any lag or frequency in at most one set of series of fifty. The longer
    period, likewise, must beat the first one by more than chance.

    Args:
        series: each (T,); NaN is missing.
        max_period: longest period to look for; None for a third of the longest series.
        natural: periods that the calendar suggests (24 and 168 for hours); they need less evidence, and a period within a
            twentieth of one of them is taken for it.

    Returns:
        None to two seasons; none where no autocorrelation is above 0.3, or none is beyond chance.

    Source:
        The line: Fisher 1929, Proc. R. Soc. A 125:54-59, after division by a smooth spectrum: Bloomfield 1973, Biometrika
        60:217-226. The comparison of both periods: Diebold & Mariano 1995, J. Bus. Econ. Stat. 13:253-263 (all from memory).

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
    levels, changes, rest = _mean_correlations(filled, longest + 2)
    lags = np.arange(2, longest + 1)
    score = (levels + changes) / 2 if levels[1] > _WANDERS else levels
    peaks = lags[(score[lags] >= score[lags - 1]) & (score[lags] > score[lags + 1])]
    peaks = peaks[levels[peaks] > _SURE]
    calendar = [n for n in natural if 2 <= n <= longest]
    chance = _Chance(filled)
    peaks = np.array([p for p in peaks if chance.excluded(int(p), _near(rest, p), longest, calendar)], dtype=int)
    expected = {n for n in calendar if any(_close(p, n) for p in peaks)}
    peaks = np.array(
        sorted(
            expected
            | {
                int(p)
                for p in peaks
                if levels[p] - levels[1:p].min() > _DIP and not any(_close(p, n) for n in expected)
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
        num = 1 if any(_close(second, n) for n in calendar) else len(multiples)
        better = _naive_error(filled, second) <= _BETTER * _naive_error(filled, first)
        if better and chance.less_error(filled, first, second, num):
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


def _mean_correlations(series: Sequence[Array], lags: int) -> tuple[Array, Array, Array]:
    """Mean autocorrelations (lags,) of the values without their trend, of their changes, and of what a first-order
    autoregression leaves; 0 where few series reach."""
    sums, counts = np.zeros((3, lags)), np.zeros(lags)
    for s in series:
        own = min(len(s) // 3 + 2, lags)
        values = _without_trend(s, own)
        for i, one in enumerate((values, np.diff(s), _rest(values))):
            sums[i, :own] += _autocorrelation(one, own)
        counts[:own] += 1
    levels, changes, rest = np.where(counts >= 0.3 * len(series), sums / np.maximum(counts, 1), 0)
    return levels, changes, rest


def _rest(values: Array) -> Array:
    """What a first-order autoregression leaves: ``x_t - a x_{t-1}``, the estimate of a less its bias (Kendall 1954)."""
    found = _autocorrelation(values, 2)[1]
    a = min(1.0, found + (1 + 3 * found) / len(values))
    return values[1:] - a * values[:-1]


class _Chance:
    """What series without a season reach by chance.

    Args:
        series: without missing values. Those that move together count as fewer.
    """

    def __init__(self, series: Sequence[Array]) -> None:
        self.length = int(np.median([len(s) for s in series]))
        whole = [s[-self.length :] for s in series if len(s) >= self.length]
        rests = np.stack([_rest(_without_trend(s, self.length)) for s in whole])
        rests = rests[rests.std(1) > 0]
        self.num = 1.0
        if len(rests) > 1:
            some = rests[:: max(1, len(rests) // 50)]
            others = np.corrcoef(some)[np.triu_indices(len(some), 1)]
            together = max(0.0, float((others**2).mean()) - 1 / self.length)
            self.num = len(rests) / (1 + (len(rests) - 1) * together)
        self.lines = _lines(rests) if len(rests) else np.zeros(0)

    def excluded(self, period: int, found: float, longest: int, calendar: Sequence[int]) -> bool:
        """Is a peak no matter of chance?

        Args:
            period: of the peak.
            found: autocorrelation there of what the autoregression leaves.
            longest: lag that was looked at.
            calendar: periods that are expected; for one of these the other lags do not count.
        """
        named = [n for n in calendar if _close(period, n)]
        num_lags = sum(1 + n // 10 for n in calendar) if named else longest
        if found > max(_LEAST, self._limit(period, num_lags)):
            return True
        if len(self.lines) < 8:
            return False
        near = self._bins(period)
        num_lines = len(set().union(*(self._bins(n) for n in calendar))) if named else len(self.lines)
        return self._by_chance(float(self.lines[sorted(near)].max())) * num_lines < _ALPHA / 2

    def less_error(self, series: Sequence[Array], first: int, second: int, num: int) -> bool:
        """Does repeating the values of the second lag make less error than the first, beyond what the best of ``num``
        lags would by chance?"""
        from scipy.stats import t

        gains = []
        for s in series:
            now, scale = s[second:], np.abs(np.diff(s)).mean()
            gain = np.abs(now - s[second - first : -first]) - np.abs(now - s[:-second])
            blocks = gain[len(gain) % first :].reshape(-1, first).mean(1)
            gains.append(blocks / scale if scale > 0 else blocks)
        each = np.concatenate(gains)
        count = len(each) * min(1.0, self.num / len(series))
        if count < 3 or each.std() == 0:
            return bool(len(each) and each.mean() > 0)
        return bool(each.mean() > t.isf(_ALPHA / num, count - 1) * each.std(ddof=1) / np.sqrt(count))

    def _limit(self, lag: int, num_lags: int) -> float:
        """An autocorrelation at this lag above which one of ``num_lags`` gets with a probability of half `_ALPHA`."""
        from scipy.stats import norm

        return float(norm.isf(_ALPHA / 2 / num_lags) / np.sqrt(self.num * max(1, self.length - lag)))

    def _bins(self, period: int) -> set[int]:
        """Places of ``lines`` at 1 / period, within a twentieth, and at its first multiples."""
        found: set[int] = set()
        num, off = len(self.lines), max(period / 20, 0.5)
        for h in range(1, min(period // 2, 6) + 1):
            low, high = (round(h * self.length / (period + d)) for d in (off, -off))
            found |= {j - 1 for j in range(low, high + 1) if 1 <= j <= num}
        return found or {0}

    def _by_chance(self, line: float) -> float:
        """Probability that one line is so large, among lines of mean 1."""
        from scipy.stats import beta

        num = len(self.lines)
        return float(beta.sf(min(1.0, line / num), self.num, self.num * (num - 1)))


def _lines(rests: Array) -> Array:
    """The mean periodogram of series (S, T) at the frequencies 1 / T, 2 / T .. below 1 / 2, divided by a smooth spectrum

        log f = b_0 + b_1 cos w + b_2 cos 2w

    so that its mean is 1.
    """
    found = np.abs(np.fft.rfft(rests - rests.mean(1, keepdims=True))) ** 2
    mean = (found / (rests.var(1, keepdims=True) * rests.shape[1])).mean(0)[1 : (rests.shape[1] + 1) // 2]
    if len(mean) < 8:
        return np.ones(len(mean))
    w = 2 * np.pi * np.arange(1, len(mean) + 1) / rests.shape[1]
    terms = np.stack([np.ones_like(w), np.cos(w), np.cos(2 * w)], 1)
    smooth = np.exp(terms @ np.linalg.lstsq(terms, np.log(mean + 1e-12), rcond=None)[0])
    return np.asarray(mean / smooth / (mean / smooth).mean())


def _autocorrelation(values: Array, lags: int) -> Array:
    """At lags 0 .. lags - 1, each divided by the number of its pairs."""
    centred = values - values.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    found = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[:lags]
    found = found / np.arange(len(centred), len(centred) - len(found), -1)
    return np.clip(found / found[0], -1, 1) if found[0] > 1e-300 else np.zeros_like(found)


def _close(lag: int, period: int) -> bool:
    """Within a twentieth?"""
    return abs(lag - period) <= period / 20


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
