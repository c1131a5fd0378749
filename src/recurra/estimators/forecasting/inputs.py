"""What users hand in: arrays, lists, tables, frames, files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...core.checks import sentence
from ...datasets.series import SeriesSet, finish, series_of
from ...datasets.table import Table, read_table
from ...datasets.timestamps import read_times, whole_seconds

WHERE = "Forecaster"
UNNAMED = "#"
"""Names of series from bare lists begin with it: a later list need not hold the same series."""
HUGE = 1e100


def as_series(
    data: Any,
    known: Any = None,
    past: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    series: str | None = None,
    known_columns: Sequence[str] = (),
    past_columns: Sequence[str] = (),
) -> tuple[SeriesSet, str]:
    """The series in anything that holds some, and the form that answers should have.

    Args:
        data: a `SeriesSet`, a `Table`, a pandas frame or series, the path of a table, an array (T,) or (T, C), a list of
            such arrays, or a dict of them by name.
        known, past: covariates (T + F, K), (T, U) beside an array; lists or dicts of them beside lists or dicts.
        target, time, series, known_columns, past_columns: see `series_of`; for tables.

    Returns:
        The series, and "set", "frame", "wide", "vector", "matrix" or "list".
    """
    roles: dict[str, Any] = {
        "target": target,
        "time": time,
        "series": series,
        "known": known_columns,
        "past": past_columns,
    }
    if isinstance(data, SeriesSet):
        return data, "set"
    module = type(data).__module__.split(".")[0]
    if isinstance(data, Table | str | os.PathLike) or module == "pandas":
        if known is not None or past is not None:
            hint = "Name the columns in the constructor: known=('price',)."
            raise ValueError(sentence(WHERE, "known and past", "None beside a table", "arrays", hint))
        if isinstance(data, Table):
            return series_of(data, **roles), "set"
        if module != "pandas":
            return series_of(read_table(data), **roles), "set"
        found = series_of(frame_table(data), **roles)
        return found, "frame" if series is not None or len(found) > 1 else "wide"
    if isinstance(data, Mapping):
        names, values, form = [str(n) for n in data], list(data.values()), "list"
        twice = next((n for n in names if names.count(n) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise ValueError(sentence(WHERE, "data", "series of different names", f"{twice!r} twice"))
        known = None if known is None else _of_each("known", known, data)
        past = None if past is None else _of_each("past", past, data)
    elif isinstance(data, list | tuple) and len(data) and np.ndim(data[0]) > 0:
        names, values, form = [f"{UNNAMED}{i + 1}" for i in range(len(data))], list(data), "list"
    else:
        form = "vector" if np.ndim(data) == 1 else "matrix"
        names, values = [f"{UNNAMED}1"], [data]
        known = None if known is None else [known]
        past = None if past is None else [past]
    if not values:
        raise ValueError(sentence(WHERE, "data", "at least one series", "none"))
    return _from_arrays(names, values, known, past), form


def _of_each(what: str, given: Any, data: Mapping[Any, Any]) -> list[Any]:
    """The covariates of each series of a dict."""
    if not isinstance(given, Mapping):
        raise TypeError(sentence(WHERE, what, "a dict like the data", type(given).__name__))
    lacking = next((n for n in data if n not in given), None)
    if lacking is not None:
        raise ValueError(sentence(WHERE, what, "given for every series", f"none for {lacking!r}"))
    return [given[n] for n in data]


def check_sizes(series: SeriesSet) -> None:
    """Raise where values are so large, or all so small, that their squares are no numbers."""
    for what, arrays in (("data", series.values), ("known", series.known), ("past", series.past)):
        for name, values in zip(series.names, arrays):
            largest = np.nanmax(np.abs(values), axis=0, initial=0.0)
            bad = largest[(largest > HUGE) | ((largest > 0) & (largest < 1 / HUGE))]
            if len(bad):
                want = f"numbers of a size between {1 / HUGE:g} and {HUGE:g}, or 0"
                place = what if name.startswith(UNNAMED) else f"{what} of series {name!r}"
                raise ValueError(sentence(WHERE, place, want, f"{bad[0]:g}", "Give them in another unit."))


def _from_arrays(names: Sequence[str], values: Sequence[Any], known: Any, past: Any) -> SeriesSet:
    """Series of arrays with their covariates."""
    from dataclasses import replace

    matrices = [_matrix("data", v) for v in values]
    width = matrices[0].shape[1]
    for name, matrix in zip(names, matrices):
        if matrix.shape[1] != width:
            raise ValueError(sentence(WHERE, f"series {name}", f"(T, {width}) like the first", matrix.shape))
        if not np.isfinite(matrix).any():
            raise ValueError(
                sentence(
                    WHERE, f"series {name}", "a series with values", "only missing ones" if matrix.size else "nothing"
                )
            )
    empty = next((c for c in range(width) if not any(np.isfinite(m[:, c]).any() for m in matrices)), None)
    if empty is not None:
        raise ValueError(sentence(WHERE, f"variable {empty + 1}", "one with values", "only missing ones"))
    targets = ("value",) if width == 1 else tuple(f"y{i + 1}" for i in range(width))
    notes: list[str] = []
    made = finish(list(names), targets, matrices, notes)
    more: dict[str, Any] = {}
    for kind, given in (("known", known), ("past", past)):
        if given is None:
            continue
        if len(given) != len(names):
            raise ValueError(sentence(WHERE, kind, f"{len(names)} arrays, one for each series", len(given)))
        arrays = [_matrix(kind, g) for g in given]
        for name, array, matrix in zip(names, arrays, matrices):
            enough = len(array) >= len(matrix) if kind == "known" else len(array) == len(matrix)
            if not enough or array.shape[1] != arrays[0].shape[1]:
                rows = f"at least {len(matrix)}" if kind == "known" else f"{len(matrix)}"
                raise ValueError(
                    sentence(WHERE, f"{kind} of series {name}", f"({rows}, {arrays[0].shape[1]})", array.shape)
                )
        more[kind] = tuple(arrays)
        more[f"{kind}_names"] = tuple(f"{kind}{i + 1}" for i in range(arrays[0].shape[1]))
    return replace(made, **more)


def _matrix(what: str, values: Any) -> np.ndarray:
    """(T, C) float64; infinite values are refused."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufOUS":
            got = f"{given.dtype} values"
            raise ValueError(got)
        matrix = np.array(given, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise TypeError(sentence(WHERE, what, "numbers (T,) or (T, C), or a table", type(values).__name__)) from None
    if matrix.ndim not in (1, 2):
        raise ValueError(sentence(WHERE, what, "(T,) or (T, C)", matrix.shape))
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if np.isinf(matrix).any():
        raise ValueError(sentence(WHERE, what, "finite numbers; NaN is missing", "an infinite one"))
    return matrix


def frame_table(frame: Any) -> Table:
    """A pandas frame or series as a `Table`; an index of times, or of texts that are times, becomes a column."""
    import pandas as pd

    if isinstance(frame, pd.Series):
        frame = frame.to_frame(str(frame.name) if frame.name is not None else "value")
    index = frame.index
    columns: dict[str, np.ndarray] = {}
    notes: list[str] = []
    if isinstance(index, pd.MultiIndex):
        hint = "reset_index() makes columns of it; series=... and time=... name them."
        raise ValueError(sentence(WHERE, "data", "a frame with one index", f"an index of {index.nlevels} levels", hint))
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        index = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
        columns[str(index.name or "time")] = whole_seconds(index.to_numpy())
    elif not pd.api.types.is_numeric_dtype(index.dtype) or index.name is not None:
        column = _column(index.to_series(), notes)
        if column.dtype.kind == "M" or (column.dtype.kind == "f" and index.name is not None):
            columns[str(index.name or "time")] = column
    for name in frame.columns:
        column = frame[name]
        if isinstance(column, pd.DataFrame):
            raise ValueError(sentence(WHERE, "data", "a frame whose columns have different names", f"{name!r} twice"))
        if str(name) in columns:
            hint = "Rename the index or the column." if str(name) == str(index.name or "time") else ""
            got = f"{str(name)!r} twice"
            raise ValueError(sentence(WHERE, "data", "a frame whose columns have different names", got, hint))
        columns[str(name)] = _column(column, notes)
    return Table(columns, tuple(notes), name="the frame")


def _column(column: Any, notes: list[str]) -> np.ndarray:
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
        return whole_seconds(column.to_numpy())
    if pd.api.types.is_numeric_dtype(column.dtype):
        if pd.api.types.is_complex_dtype(column.dtype):
            raise TypeError(sentence(WHERE, f"column {column.name!r}", "real numbers", "complex ones"))
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = int(np.isinf(values).sum())
        if infinite:
            notes.append(f"{infinite:,} values of column {column.name!r} are infinite: they count as missing.")
        return np.where(np.isfinite(values), values, np.nan)
    text = np.empty(len(column), dtype=object)
    text[:] = ["" if missing else str(v) for v, missing in zip(column, column.isna())]
    if text.size and all(text):
        times = read_times(text.tolist())
        if times is not None:
            return times
    return text


def series_to_json(series: SeriesSet, steps: int) -> dict[str, Any]:
    """The last ``steps`` steps of each series, with what is known ahead, as JSON values."""

    def rows(values: np.ndarray, start: int) -> list[list[float | None]]:
        return [[None if np.isnan(v) else float(v) for v in row] for row in values[start:]]

    starts = [max(0, len(v) - steps) for v in series.values]
    return {
        "names": list(series.names),
        "targets": list(series.targets),
        "values": [rows(v, a) for v, a in zip(series.values, starts)],
        "known": [rows(k, a) for k, a in zip(series.known, starts)],
        "past": [rows(p, a) for p, a in zip(series.past, starts)],
        "times": None
        if series.times is None
        else [np.datetime_as_string(t[a:], unit="s").tolist() for t, a in zip(series.times, starts)],
        "step": None if series.step is None else list(series.step),
        "known_names": list(series.known_names),
        "past_names": list(series.past_names),
    }


def series_from_json(values: Mapping[str, Any]) -> SeriesSet:
    """The inverse of `series_to_json`."""
    from ...datasets.timestamps import Step

    def arrays(rows: Sequence[Any], width: int) -> tuple[np.ndarray, ...]:
        return tuple(
            np.array([[np.nan if v is None else v for v in row] for row in r], dtype=np.float64).reshape(len(r), width)
            for r in rows
        )

    times = values["times"]
    return SeriesSet(
        tuple(values["names"]),
        tuple(values["targets"]),
        arrays(values["values"], len(values["targets"])),
        arrays(values["known"], len(values["known_names"])),
        arrays(values["past"], len(values["past_names"])),
        None if times is None else tuple(np.array(t, dtype="datetime64[s]") for t in times),
        None if values["step"] is None else Step(*values["step"]),
        tuple(values["known_names"]),
        tuple(values["past_names"]),
    )
