"""Numeric series as the nets of `SequenceClassifier` and `SequenceRegressor` read them: scaled, filled, varied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import sentence

Array = np.ndarray[Any, np.dtype[np.float64]]

SCALES = ("auto", "standard", "series", "both", "wide")
WIDE_RATIO = 20.0  # of the 90th to the 10th percentile of the series' own spreads
BOTH_RATIO = 0.3  # of the spread of the series' means to that of all values
HUGE = 1e100  # no value lies further out: sums of squares stay finite
MAX_CHANNELS = 100_000
MAX_FEATURES = 1_000_000  # of a step, once scaled
LARGEST = 1e4  # of a scaled value: what lies further out is cut, so that float32 holds it


class Variation(NamedTuple):
    """How much the training series are varied in every epoch.

    Args:
        jitter: standard deviation of noise that is added, as a part of the series' own.
        scaling: standard deviation of the logarithm of a factor for each channel.
        warping: standard deviation of the logarithm of the local speed of time.
        cropping: largest part of the steps that a window leaves out; the rest is stretched to the old length.
    """

    jitter: float = 0.0
    scaling: float = 0.0
    warping: float = 0.0
    cropping: float = 0.0


def real_numbers(given: Any) -> Array:
    """Anything as an array of float64: numbers, or texts of numbers.

    Raises:
        TypeError, ValueError, OverflowError: what is no number, or a complex one, or a time.
    """
    found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if found.dtype.kind not in "biufOUS":
        raise TypeError(f"{found.dtype} values")
    return np.asarray(found, dtype=np.float64)


def check_size(where: str, name: str, values: Array) -> None:
    """Raise where numbers are so large, or all so small, that their squares are no numbers."""
    largest = np.nanmax(np.abs(values), axis=0, initial=0.0)
    bad = largest[(largest > HUGE) | ((largest > 0) & (largest < 1 / HUGE))]
    if len(bad):
        want = f"numbers of a size between {1 / HUGE:g} and {HUGE:g}, or 0"
        raise ValueError(sentence(where, name, want, f"{bad[0]:g}", "Give them in another unit."))


def read_series(where: str, X: Any, num_channels: int | None = None) -> tuple[list[Array], list[str]]:
    """Series as a list of (T_i, D) arrays of float64, whatever form they come in.

    Args:
        where: who asks, for messages.
        X: a list of (T_i,) or (T_i, D) arrays, an (N, T) array of series with one channel, or an (N, T, D) array. NaN is a
            missing value; steps at the end of which all values are missing are padding, and are cut off.
        num_channels: D that is wanted; None for any.

    Returns:
        The series, and notes about what was repaired.

    Raises:
        TypeError: something that is no series of numbers.
        ValueError: no series, an empty one, an infinite value, another number of channels.
    """
    if hasattr(X, "toarray"):
        raise TypeError(sentence(where, "X", "a dense array", "a sparse matrix", "X.toarray() is one."))
    if hasattr(X, "detach"):
        X = X.detach().cpu()
    elif hasattr(X, "__array__") and not isinstance(X, Iterable):
        X = np.asarray(X)
    if isinstance(X, str | bytes) or not isinstance(X, Iterable):
        raise TypeError(sentence(where, "X", "a list of series, or an array (N, T) or (N, T, D)", type(X).__name__))
    whole = getattr(X, "ndim", None)
    if whole is not None and whole not in (2, 3):
        hint = "One series is X[None]." if whole == 1 else ""
        raise ValueError(sentence(where, "X", "(N, T) or (N, T, D)", getattr(X, "shape", None), hint))
    if hasattr(X, "to_numpy"):  # a table of pandas: one series a row
        X = X.to_numpy()
    series: list[Array] = []
    num_cut = 0
    for i, given in enumerate(X):
        if isinstance(given, str | bytes):
            raise TypeError(sentence(where, f"X[{i}]", "a series of numbers, as the others are", "a text"))
        try:
            values = real_numbers(given)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(sentence(where, f"X[{i}]", "numbers (T,) or (T, D)", _what(given))) from None
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] < 1:
            raise ValueError(sentence(where, f"X[{i}]", "(T,) or (T, D)", tuple(np.shape(given))))
        wanted = num_channels if num_channels is not None else (series[0].shape[1] if series else None)
        if wanted is not None and values.shape[1] != wanted:
            like = "the training series" if num_channels is not None else "X[0]"
            raise ValueError(sentence(where, f"X[{i}]", f"(T, {wanted}) like {like}", tuple(values.shape)))
        if values.shape[1] > MAX_CHANNELS:
            got = f"{values.shape[1]:,}"
            raise ValueError(sentence(where, f"X[{i}]", f"a series of at most {MAX_CHANNELS:,} channels", got))
        if not (np.isnan(values) | (np.abs(values) <= HUGE)).all():
            got = "an infinite value" if np.isinf(values).any() else f"a value beyond {HUGE:g}"
            raise ValueError(sentence(where, f"X[{i}]", "finite, with NaN for missing values", got))
        there = np.flatnonzero(~np.isnan(values).all(1))
        end = int(there[-1]) + 1 if len(there) else 0
        if not end:
            got = "none" if not len(values) else "missing values only"
            raise ValueError(sentence(where, f"X[{i}]", "a series with at least one value", got))
        num_cut += end < len(values)
        series.append(values[:end])
    if not series:
        raise ValueError(sentence(where, "X", "at least one series", "none"))
    if num_channels is None:
        check_size(where, "X", np.stack([np.nanmax(np.abs(x), axis=0, initial=0.0) for x in series]))
    notes = [f"{num_cut} series end with missing values (padding); these steps were cut off."] if num_cut else []
    return series, notes


def _what(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


@dataclass(frozen=True)
class SeriesEncoder:
    """What was found in the training series, and how a series becomes the input of a net.

        standard:  z = (x - centre) / spread                              of all steps of the training series
        wide:      z = (asinh((x - centre) / unit) - wide_centre) / wide_spread
        series:    (x - mean(x)) / (std(x) + floor)                       of the series itself
        difference: (z_t - z_{t-1}) / step

    Args:
        centre, spread, unit: (D,) of the training series; unit is the median spread of a single series.
        wide_centre, wide_spread: (D,) of the values after asinh.
        step: (D,) spread of the differences; None for no differences.
        scale: "standard", "series", "both" (standard and series) or "wide" (wide and series).
        missing: a channel more for each one, 1 where the value is missing.
        frames: steps that are read as one.
        causal: see nothing of the future: a missing value is the last one before it.
    """

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    unit: tuple[float, ...]
    wide_centre: tuple[float, ...]
    wide_spread: tuple[float, ...]
    step: tuple[float, ...] | None
    scale: str
    missing: bool
    frames: int
    causal: bool = False

    @classmethod
    def fitted(
        cls,
        series: Sequence[Array],
        *,
        scale: str = "auto",
        differences: bool = True,
        frames: int = 1,
        causal: bool = False,
    ) -> SeriesEncoder:
        """Find centre, spread and the rest in the training series."""
        everything = np.concatenate(series)
        missing = bool(np.isnan(everything).any())
        centre = np.nan_to_num(_nan(np.nanmedian if scale == "wide" else np.nanmean, everything))
        spread = _nan(np.nanstd, everything)
        own = np.stack([_nan(np.nanstd, x) for x in series])
        means = np.stack([_nan(np.nanmean, x) for x in series])
        if scale == "auto":
            scale = "standard" if causal else choose_scale(own, means, spread)
            if scale == "wide":
                centre = np.nan_to_num(_nan(np.nanmedian, everything))
        spread = _positive(spread)
        unit = _positive(_nan(np.nanmedian, own) + 1e-3 * spread)
        squashed = np.arcsinh((everything - centre) / unit)
        found = cls(
            centre=_plain(centre),
            spread=_plain(spread),
            unit=_plain(unit),
            wide_centre=_plain(np.nan_to_num(_nan(np.nanmean, squashed))),
            wide_spread=_plain(_positive(_nan(np.nanstd, squashed))),
            step=None,
            scale=scale,
            missing=missing,
            frames=frames,
            causal=causal,
        )
        if not differences:
            return found
        steps = [np.diff(found.first(found.filled(x)), axis=0) for x in series if len(x) > 1]
        step = np.concatenate(steps).std(0) if steps else np.ones(len(centre))
        return replace(found, step=_plain(_positive(step)))

    @classmethod
    def of(cls, values: dict[str, Any]) -> SeriesEncoder:
        """From `to_json`."""
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        found = cls(**given)
        rows = {
            name: getattr(found, name) for name in ("centre", "spread", "unit", "wide_centre", "wide_spread", "step")
        }
        for name, row in rows.items():
            if name == "step" and row is None:
                continue
            if not isinstance(row, tuple) or len(row) != len(found.centre) or not all(map(_is_finite, row)):
                raise ValueError(f"its {name} is no list of {len(found.centre)} numbers")
            if not name.endswith("centre") and not all(value > 0 for value in row):
                raise ValueError(f"its {name} has numbers that are not above 0")
        flags = isinstance(found.missing, bool) and isinstance(found.causal, bool) and found.scale in SCALES[1:]
        if not flags or type(found.frames) is not int or not 1 <= found.frames <= MAX_FEATURES or not rows["centre"]:
            raise ValueError("its scale, missing, causal or frames is none that was ever written")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @property
    def streams(self) -> bool:
        """Does every step depend on this one and those before only?"""
        return self.causal and self.scale == "standard" and self.frames == 1

    @property
    def num_channels(self) -> int:
        """D."""
        return len(self.centre)

    @property
    def num_features(self) -> int:
        """Features of one frame."""
        per_channel = 1 + (self.scale in ("both", "wide")) + (self.step is not None) + self.missing
        return self.num_channels * per_channel * self.frames

    def length(self, num_steps: int) -> int:
        """Frames of a series."""
        return -(-num_steps // self.frames)

    def filled(self, x: Array) -> Array:
        """Missing values on a straight line between their neighbours (if causal, the last value before them); the centre
        where a channel has none at all, or none before."""
        gone = np.isnan(x)
        if not gone.any():
            return x
        x = x.copy()
        places = np.arange(len(x))
        for d in np.flatnonzero(gone.any(0)):
            there = ~gone[:, d]
            if self.causal:
                last = np.maximum.accumulate(np.where(there, places, -1))
                x[:, d] = np.where(last < 0, self.centre[d], x[last, d])
                continue
            x[:, d] = np.interp(places, places[there], x[there, d]) if there.any() else self.centre[d]
        return x

    def first(self, x: Array) -> Array:
        """The first channels: scaled by what the training series showed, or by the series itself."""
        if self.scale == "series":
            return self._by_itself(x)
        if self.scale == "wide":
            squashed = np.arcsinh((x - np.array(self.centre)) / np.array(self.unit))
            return (squashed - np.array(self.wide_centre)) / np.array(self.wide_spread)
        return (x - np.array(self.centre)) / np.array(self.spread)

    def _by_itself(self, x: Array) -> Array:
        return (x - x.mean(0)) / (x.std(0) + 1e-3 * np.array(self.unit))

    def encode(
        self, x: Array, variation: Variation | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The input (frames, features) of a net for a series (T, D); varied, if asked for."""
        gone = np.isnan(x) if self.missing else None
        x = self.filled(x)
        if variation is not None and rng is not None:
            x, gone = varied(x, gone, variation, rng)
        z = self.first(x)
        parts = [z]
        if self.scale in ("both", "wide"):
            parts.append(self._by_itself(x))
        if self.step is not None:
            parts.append(np.diff(z, axis=0, prepend=z[:1]) / np.array(self.step))
        out = np.clip(np.concatenate(parts, 1), -LARGEST, LARGEST)
        if gone is not None:
            out = np.concatenate([out, gone], 1)
        if self.frames > 1:
            rest = -len(out) % self.frames
            out = np.concatenate([out, np.zeros((rest, out.shape[1]))]).reshape(-1, self.frames * out.shape[1])
        return out.astype(np.float32)


def choose_scale(own: Array, means: Array, spread: Array) -> str:
    """The scale for series of these spreads and means (N, D), in a set of this spread (D,).

    "wide" where the spreads of single series differ by more than a factor of 20, "both" where they differ by more than 3
    or their levels by more than 0.3 spreads, else "standard".
    """
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(own, 10, axis=0), np.nanpercentile(own, 90, axis=0)
        ratio = float(np.nanmax(high / np.maximum(low, 1e-12 * np.maximum(high, 1e-300))))
        levels = float(np.nanmax(np.nanstd(means, axis=0) / np.maximum(spread, 1e-300)))
    if len(own) >= 4 and ratio > WIDE_RATIO:
        return "wide"
    return "both" if len(own) >= 4 and (ratio > 3 or levels > BOTH_RATIO) else "standard"


def varied(
    x: Array, gone: np.ndarray[Any, Any] | None, variation: Variation, rng: np.random.Generator
) -> tuple[Array, np.ndarray[Any, Any] | None]:
    """A series with warped time, of a window, scaled and with noise. Always draws the same number of numbers."""
    num_steps, num_channels = x.shape
    speeds = rng.normal(size=4)
    part, start = rng.random(2)
    if num_steps > 4 and (variation.warping or variation.cropping):
        way = np.concatenate([[0.0], np.cumsum(np.exp(variation.warping * speeds))])
        time = np.interp(np.linspace(0, 4, num_steps), np.arange(5), way / way[-1])
        size = (num_steps - 1) * (1 - variation.cropping * part)
        time = time * size + start * (num_steps - 1 - size)
        left = np.minimum(time.astype(int), num_steps - 2)
        weight = (time - left)[:, None]
        x = x[left] * (1 - weight) + x[left + 1] * weight
        gone = None if gone is None else gone[np.rint(time).astype(int)]
    if variation.scaling:
        x = x * np.exp(variation.scaling * rng.normal(size=num_channels))
    if variation.jitter:
        x = x + variation.jitter * x.std(0) * rng.normal(size=x.shape)
    return x, gone


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < np.inf


def _nan(function: Any, values: Array) -> Array:
    """A function over the first axis that skips NaN; NaN where there is nothing else, without a warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(function(values, axis=0))


def _positive(values: Array) -> Array:
    """Spreads to divide by: 1 for constant or missing channels."""
    values = np.nan_to_num(values)
    return np.where(values > 1e-12 * max(1e-300, float(np.abs(values).max(initial=0.0))), values, 1.0)


def _plain(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
