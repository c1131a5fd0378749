"""Defaults that are chosen from the data, each with a sentence for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import sentence
from ...datasets.series import SeriesSet
from . import calendar
from .seasons import Season, find_seasons
from .windows import Setup, _normal, moments

if TYPE_CHECKING:
    from ..forecaster import Forecaster

Array = np.ndarray
WHERE = "Forecaster"
STRONG = 0.7
LONGEST = 720
LARGEST = 1e15


def decide(model: Forecaster, series: SeriesSet, notes: list[str]) -> tuple[Setup, Array]:
    """What `Forecaster.fit` works with.

    Args:
        model: its arguments.
        series: all the data.
        notes: what was decided is added.

    Returns:
        The setup, with everything that is measured measured on the training part only, and the number of steps at the end
        of each series that are kept for validation, (N,).
    """
    lengths = series.lengths
    horizon = model.horizon
    first = [v[:, c] for v in series.values for c in range(v.shape[1])]
    if horizon is None:
        seasons = _seasons(model, first, series, int(np.median(lengths)))
        longest = max(1, int(np.median(lengths)) // 5)
        horizon = min(seasons[0].period, longest) if seasons else max(1, min(12, longest))
        notes.append(
            f"Horizon: {horizon} steps" + (" (one season)." if seasons and horizon == seasons[0].period else ".")
        )
    kept = validation_steps(model.validation, lengths, horizon)
    train = lengths - kept
    if train.max() < 3 or not any(t >= 2 and np.isfinite(v[:t]).any() for t, v in zip(train, series.values)):
        raise ValueError(sentence(WHERE, "data", "at least 3 values in some series", f"{int(lengths.max())}"))
    transform = _transform(model, [v[:t] for v, t in zip(series.values, train)], series.targets, notes)
    base = Setup(
        series.targets, series.known_names, series.past_names, horizon, 1, 1, model.variables == "joint", transform,
        "none", (0.0,) * len(series.targets), (1.0,) * len(series.targets), {}, (), (), "none", "none", 1.0, 0, (),
        None if series.step is None else list(series.step), [], (),
    )  # fmt: skip
    changed = [base.transformed(v[:t]) for v, t in zip(series.values, train)]
    flat = [v[:, c] for v in changed for c in range(v.shape[1])]
    seasons = _seasons(model, flat, series, int(np.median(train)))
    if model.season is None and seasons:
        text = " and ".join(str(s.period) for s in seasons)
        notes.append(f"Season: {text} steps (autocorrelation {seasons[0].strength:.2f}).")
    elif model.season is None:
        notes.append("Season: none was found.")
    window, segment = _window(model, horizon, seasons, train, notes)
    scaling, means, sds, own = _scaling(model, series, changed, transform)
    scaled = (
        [
            (v - np.array(own.get(n, [means, sds])[0])) / np.array(own.get(n, [means, sds])[1])
            for n, v in zip(series.names, changed)
        ]
        if scaling != "none"
        else changed
    )
    level, window_scale = _normalising(model, len(series), seasons)
    base_period = _base(model, seasons, window)
    notes.append(_normalising_note(scaling, level, window_scale, base_period))
    names = _calendar(model, series, window, int(np.median(train)), notes)
    covariates = _covariates(series, train)
    found = Setup(
        **{
            **{k: getattr(base, k) for k in ("targets", "known", "past", "joint", "transform", "step")},
            "horizon": horizon, "window": window, "segment": segment, "scaling": scaling,
            "means": tuple(means.tolist()), "sds": tuple(sds.tolist()), "series_scales": own,
            "covariate_means": covariates[0], "covariate_sds": covariates[1],
            "level": level, "window_scale": window_scale, "base": base_period,
            "calendar": names, "seasons": [[float(s.period), s.strength] for s in seasons], "floor": 1.0,
            "levels": learned_levels(model),
        }
    )  # fmt: skip
    if window_scale != "none":
        found = _with_floor(found, scaled)
    return found, kept


def learned_levels(model: Forecaster) -> tuple[float, ...]:
    """The quantiles that have an output of their own: the median is the point forecast where that minimises |e|."""
    return tuple(q for q in model.quantiles if not (q == 0.5 and model.loss == "mae"))


def validation_steps(validation: Any, lengths: Array, horizon: int) -> Array:
    """Steps at the end of each series that training does not see, (N,)."""
    if validation is None:
        return np.zeros_like(lengths)
    if validation == "auto":
        wanted = np.full_like(lengths, horizon)
        if len(lengths) == 1:
            wanted = np.maximum(wanted, lengths // 10)
        return np.where(lengths >= wanted + 3 * horizon, wanted, 0)
    if isinstance(validation, float):
        wanted = np.maximum(np.rint(validation * lengths).astype(int), horizon)
    else:
        wanted = np.full_like(lengths, validation)
        if validation < horizon:
            raise ValueError(sentence(WHERE, "validation", f"at least the horizon, {horizon}", validation))
    return np.where(lengths >= wanted + 3, wanted, 0)


def _seasons(model: Forecaster, flat: list[Array], series: SeriesSet, length: int) -> list[Season]:
    if model.season is not None:
        return [Season(model.season, 1.0)] if model.season > 1 else []
    natural = [n for n in calendar.natural_periods(series.step) if n <= length // 3]
    return find_seasons(flat, natural=natural)


def _transform(model: Forecaster, values: list[Array], names: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    """Per variable."""
    kinds = []
    with np.errstate(invalid="ignore"):
        positive = np.all([((v > 0) | ~np.isfinite(v)).all(0) for v in values], axis=0)  # (C,)
    for c, name in enumerate(names):
        if model.transform == "auto" and not positive[c]:
            kinds.append("none")
            continue
        columns = [v[np.isfinite(v[:, c]), c] for v in values]
        columns = [v for v in columns if len(v)]
        low = min(v.min() for v in columns) if columns else 0.0
        if model.transform != "auto":
            if (model.transform == "log" and low <= 0) or (model.transform == "log1p" and low < 0):
                limit = "above 0" if model.transform == "log" else "of at least 0"
                raise ValueError(
                    sentence(WHERE, "transform", f"'none' unless all values are {limit}", f"{low:g} in {name!r}")
                )
            kinds.append(model.transform)
            continue
        kinds.append("log" if columns and low > 0 and _grows_with_level(columns) else "none")
    logged = [n for n, k in zip(names, kinds) if k == "log"]
    if model.transform == "auto" and logged:
        what = "" if len(logged) == len(names) else f" of {', '.join(logged)}"
        notes.append(
            f"The logarithm{what} is modelled: the values are positive and change in proportion to their size."
        )
    return tuple(kinds)


def _grows_with_level(columns: list[Array]) -> bool:
    """Do changes grow with the level, inside series or from series to series?"""
    levels, changes = [], []
    for v in columns:
        if len(v) < 8:
            continue
        blocks = np.array_split(v, min(8, len(v) // 4)) if len(columns) < 5 else [v]
        for block in blocks:
            change = np.abs(np.diff(block)).mean() if len(block) > 1 else 0.0
            if change > 0:
                levels.append(np.log(np.abs(block).mean()))
                changes.append(np.log(change))
    if len(levels) < 4 or np.ptp(levels) < 0.3 or np.ptp(changes) < 1e-9:
        return False
    slope, correlation = np.polyfit(levels, changes, 1)[0], np.corrcoef(levels, changes)[0, 1]
    return bool(slope > 0.5 and correlation > 0.5)


def _window(model: Forecaster, horizon: int, seasons: list[Season], train: Array, notes: list[str]) -> tuple[int, int]:
    """L and S."""
    period = seasons[0].period if seasons else 1
    longest = max((s.period for s in seasons), default=1)
    length = int(np.median(train))
    if model.window is not None:
        window = model.window
    else:
        window = max(2 * longest, min(20 * horizon, LONGEST), 8)
        window = max(min(window, int(0.4 * length)), min(2 * period, length // 2), 1)
    segment = model.segment
    if segment is None:
        if window <= 24:
            segment = 1
        elif 4 <= period <= window // 4:
            parts = [d for d in range(period, 0, -1) if period % d == 0]
            segment = next((d for d in parts if window // d >= 8), 1)
            while window // segment > 40:
                segment += period
        else:
            segment = max(1, round(window / 16))
    if segment > window:
        raise ValueError(sentence(WHERE, "segment", f"at most the window, {window}", segment))
    window = max(1, round(window / segment)) * segment
    if model.window is None or model.segment is None:
        notes.append(f"Window: the last {window:,} steps, read as {window // segment} segments of {segment}.")
    return window, segment


def _scaling(
    model: Forecaster, series: SeriesSet, changed: list[Array], transform: tuple[str, ...]
) -> tuple[str, Array, Array, dict[str, list[list[float]]]]:
    scaling = model.scaling
    if scaling == "auto":
        scaling = "global" if len(series) == 1 else "none" if all(t == "log" for t in transform) else "series"
    channels = len(series.targets)
    means, sds = moments(np.concatenate(changed), np.zeros(channels), np.ones(channels))
    own: dict[str, list[list[float]]] = {}
    if scaling == "series":
        for name, values in zip(series.names, changed):
            m, s = moments(values, means, sds)
            own[name] = [m.tolist(), s.tolist()]
    if scaling == "none":
        means, sds = np.zeros(channels), np.ones(channels)
        largest = max((float(np.nanmax(np.abs(v), initial=0.0)) for v in changed), default=0.0)
        if largest > LARGEST:
            want = f"'series' or 'global' for values above {LARGEST:g}, which the net cannot square"
            raise ValueError(sentence(WHERE, "scaling", want, f"'none' for {largest:g}"))
    return scaling, means, sds, own


def _normalising(model: Forecaster, num: int, seasons: list[Season]) -> tuple[str, str]:
    level = "last" if model.level == "auto" else model.level
    scale = model.window_scale
    if scale == "auto":
        strong = bool(seasons) and seasons[0].strength >= STRONG
        scale = "none" if num == 1 else "std" if strong else "change"
    return level, scale


def _normalising_note(scaling: str, level: str, window_scale: str, base: int) -> str:
    """What `_scaling`, `_normalising` and `_base` chose, in a sentence."""
    before = {"series": "each series by its mean and spread in the training part", "global": "all values by the mean and "
              "spread of the training part", "none": ""}[scaling]  # fmt: skip
    shift = {"last": "less its last value", "mean": "less its mean", "season": "less the mean of its last season"}
    divisor = {"std": "divided by its spread", "change": "divided by its mean change from step to step"}
    window = " and ".join(filter(None, (shift.get(level), divisor.get(window_scale))))
    parts = [before, f"each window {window}" if window else "", f"less the value {base} steps before" if base else ""]
    return f"Normalisation: {'; '.join(filter(None, parts)) or 'none'}."


def held_out_note(model: Forecaster, kept: Array) -> str:
    """What is not learned from."""
    if not kept.any():
        why = "" if model.validation is None else " (no series is long enough)"
        return f"Held out: nothing{why}. How good the forecasts are is not known; `backtest` measures it."
    some = np.unique(kept[kept > 0])
    steps = f"{some[0]:,}" if len(some) == 1 else f"{some[0]:,} to {some[-1]:,}"
    of = "the series" if len(kept) == 1 else f"each of {int((kept > 0).sum()):,} series"
    return f"Held out: the last {steps} steps of {of}, to choose the weights and to measure."


def _base(model: Forecaster, seasons: list[Season], window: int) -> int:
    period = seasons[0].period if seasons else 0
    if model.base == "season" and not period:
        raise ValueError(
            sentence(WHERE, "base", "'none' where no season is found", "'season'", "Give season=12, for example.")
        )
    wanted = model.base == "season" or (model.base == "auto" and not model.linear)
    return period if wanted and 1 < period <= window else 0


def _calendar(model: Forecaster, series: SeriesSet, window: int, length: int, notes: list[str]) -> tuple[str, ...]:
    if model.calendar == "auto":
        names = tuple(calendar.choose(series.step, window, length))
        if names:
            notes.append(f"From the calendar: {', '.join(names)}.")
        return names
    names = tuple(model.calendar)
    have = calendar.possible(series.step)
    for name in names:
        if name not in have:
            want = f"some of {', '.join(have)}" if have else "empty for data without timestamps"
            raise ValueError(sentence(WHERE, "calendar", want, repr(name)))
    return names


def _covariates(series: SeriesSet, train: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations of the known, then of the past covariates."""
    means: list[float] = []
    sds: list[float] = []
    for columns in (series.known, series.past):
        width = columns[0].shape[1]
        m, s = moments(np.concatenate([c[:t] for c, t in zip(columns, train)]), np.zeros(width), np.ones(width))
        means += m.tolist()
        sds += s.tolist()
    return tuple(means), tuple(sds)


def _with_floor(setup: Setup, scaled: list[Array]) -> Setup:
    """A smallest divisor: a twentieth of the usual one, so that flat windows do not explode."""
    from dataclasses import replace

    found = []
    random = np.random.default_rng(0)
    unit = replace(setup, floor=0.0)
    for values in scaled:
        for _ in range(max(1, 400 // len(scaled))):
            end = int(random.integers(min(len(values), 3), len(values) + 1))
            window = values[max(0, end - setup.window) : end]
            if len(window) > 1 and np.isfinite(window).any():
                _, scale = _normal(window.T[:, :, None], unit)
                found.append(scale.reshape(-1))
    usual = np.concatenate(found) if found else np.ones(1)
    usual = usual[usual > 0]
    return replace(setup, floor=float(0.05 * np.median(usual)) if len(usual) else 1.0)
