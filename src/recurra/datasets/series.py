"""Time series out of tables: which column is the time, which the series, what is missing, doubled or out of order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..core.checks import check_choice, sentence
from .long_table import ORDER_NAMES, SERIES_NAMES, in_blocks, tells_apart
from .table import Table
from .timestamps import TIME_NAMES, Step, find_step, places, whole_seconds

WHERE = "series_of"
_MAX_STRETCH = 20
_MOST_NAMES = 8


@dataclass(frozen=True)
class SeriesSet:
    """One or many time series on an even grid, each with its own length and its own beginning.

    Args:
        names: of the N series.
        targets: names of the C variables to forecast.
        values: per series (T, C) float64; NaN is missing.
        known: per series (T + F, K): covariates that are known ahead, F >= 0 steps beyond the values; K may be 0.
        past: per series (T, U): covariates that are known for the past only; U may be 0.
        times: per series (T + F,) datetime64[s]; None where there are no timestamps.
        step: between neighbours; None without timestamps.
        known_names: of the K columns.
        past_names: of the U columns.
        notes: one sentence for each guess or repair that may matter.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    known: tuple[np.ndarray, ...]
    past: tuple[np.ndarray, ...]
    times: tuple[np.ndarray, ...] | None = None
    step: Step | None = None
    known_names: tuple[str, ...] = ()
    past_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) steps with values."""
        return np.array([len(v) for v in self.values])

    def cut(self, ends: Sequence[int]) -> SeriesSet:
        """The first ``ends[i]`` steps of each series; the known covariates stay known beyond."""
        return replace(
            self,
            values=tuple(v[:e] for v, e in zip(self.values, ends)),
            past=tuple(v[:e] for v, e in zip(self.past, ends)),
        )

    def pick(self, which: Sequence[int]) -> SeriesSet:
        """Some of the series."""
        return replace(
            self,
            names=tuple(self.names[i] for i in which),
            values=tuple(self.values[i] for i in which),
            known=tuple(self.known[i] for i in which),
            past=tuple(self.past[i] for i in which),
            times=None if self.times is None else tuple(self.times[i] for i in which),
        )


def series_of(
    table: Table,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    series: str | None = None,
    known: Sequence[str] = (),
    past: Sequence[str] = (),
    layout: str = "auto",
) -> SeriesSet:
    """Find the series in a table and put them on an even grid.

    Args:
        table: from `read_table`, or made of columns.
        target: the column or columns to forecast; None: every column of numbers that has no other role.
        time: the column of timestamps; None finds it (columns year, month, day, hour are put together). Plain numbers, and
            timestamps with parts of a second, only order the rows; that is said.
        series: the column that says which series a row belongs to; None finds it where timestamps repeat, or where rows
            without timestamps come in blocks of one name.
        known: columns that are known ahead (prices, holidays). Rows at the end without targets are the known future.
        past: columns that are known for the past only.
        layout: "wide": one row per time, a column per variable; "long": one row per time and series; "rows": one row per
            series, its values from left to right; "auto" finds out.

    Returns:
        A `SeriesSet`. Missing timestamps become missing values. Rows out of order are sorted, equal rows that stand twice
        are dropped, different values for the same time are averaged if they are few; columns that are not used are named;
        all of it is said in ``notes``.

    Raises:
        ValueError: an unknown column, no column of numbers, timestamps that repeat without a series column to tell them
            apart, nothing but missing values.
    Example:
        >>> day = np.array(["2024-01-01", "2024-01-03", "2024-01-02"], "datetime64[s]")
        >>> found = series_of(Table({"day": day, "y": np.array([1.0, 3.0, 2.0])}))
        >>> found.values[0][:, 0].tolist(), str(found.step), found.notes
        ([1.0, 2.0, 3.0], '1 day', ('The rows were not in the order of time: they were sorted.',))
    """
    check_choice(WHERE, "layout", layout, ("auto", "wide", "long", "rows"))
    wanted = [target] if isinstance(target, str) else list(target or ())
    roles = [*wanted, *known, *past, *[name for name in (time, series) if name is not None]]
    for name in roles:
        if name not in table.columns:
            have = ", ".join(list(table.columns)[:20]) + (" ..." if len(table.columns) > 20 else "")
            raise ValueError(sentence(WHERE, "a column", f"one of {have}", repr(name)))
    if len(set(roles)) < len(roles):
        twice = next(name for name in roles if roles.count(name) > 1)
        raise ValueError(sentence(WHERE, f"column {twice!r}", "given one role", "two"))
    if not len(table):
        raise ValueError(sentence(WHERE, table.name, "a table with rows", "none"))
    notes = list(table.notes)
    if layout == "rows" or (layout == "auto" and not (roles or table.of_kind("times")) and _is_rows(table)):
        return _from_rows(table, notes)
    stamps, used = _time_of(table, time, series, layout, roles, notes)
    labels = _series_of_rows(table, stamps, series, layout, [*roles, *used], notes)
    if labels is not None:
        used.append(labels)
    if not wanted:
        taken = {*used, *known, *past}
        wanted = [name for name in table.of_kind("numbers") if name not in taken and not _is_counter(table, name)]
        if len(wanted) > 1:
            notes.append(f"Forecast: {_listed(wanted)}.")
    targets = _with_values(table, wanted, target is not None, notes)
    _say_unused(table, [*wanted, *known, *past, *used], notes)
    for name in (*known, *past):
        if table.columns[name].dtype.kind != "f":
            raise ValueError(sentence(WHERE, f"column {name!r}", "numbers", "text or timestamps"))
    return _assemble(table, targets, tuple(known), tuple(past), stamps, labels, notes)


# --- which column is what ---


def _listed(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES:,} more" * (len(names) > _MOST_NAMES))


def _say_unused(table: Table, used: Sequence[str], notes: list[str]) -> None:
    """Name the columns that have no role; a column that is called like a time and is none deserves a sentence of its own."""
    taken = set(used)
    others = []
    for name in (n for n in table.columns if n not in taken):
        column = table.columns[name]
        if column.dtype.kind == "O" and _rank(name, TIME_NAMES) < len(TIME_NAMES):
            example = next((v for v in column if v), "")
            notes.append(f"Column {name!r} holds no timestamps that can be read (such as {example!r}): it is not used.")
        elif not np.all(column == "" if column.dtype.kind == "O" else column != column):
            others.append(name)
    if others:
        notes.append(f"Not used: {_listed(others)}. Columns become covariates if they are named (known=..., past=...).")


def _is_rows(table: Table) -> bool:
    """One row per series: names in front, then numbers that end where a series ends."""
    names = list(table.columns)
    if len(names) < 5 or table.columns[names[0]].dtype.kind != "O":
        return False
    first, rest = table.columns[names[0]], names[1:]
    if len(set(first)) < len(first) or any(table.columns[n].dtype.kind != "f" for n in rest):
        return False
    numbered = [re.sub(r"\d+$", "#", n) for n in rest]
    return numbered.count(numbered[0]) == len(rest) or len(rest) > 2 * len(table)


def _from_rows(table: Table, notes: list[str]) -> SeriesSet:
    names = list(table.columns)
    columns = [n for n in names if table.columns[n].dtype.kind == "f"]
    if not columns:
        raise ValueError(sentence(WHERE, table.name, "a table with columns of numbers", "none"))
    text = [n for n in names if n not in columns]
    labels = [str(v) for v in table.columns[text[0]]] if text else [f"row_{i + 1}" for i in range(len(table))]
    whole = np.stack([table.columns[n] for n in columns], axis=1)
    notes.append(f"Each row is one series, its {len(columns):,} values from left to right.")
    kept, values = [], []
    for label, row in zip(labels, whole):
        there = np.flatnonzero(~np.isnan(row))
        if len(there):
            kept.append(label)
            values.append(row[: there[-1] + 1, None].copy())
    return finish(kept, ("value",), values, notes)


def _time_of(
    table: Table, time: str | None, series: str | None, layout: str, roles: Sequence[str], notes: list[str]
) -> tuple[np.ndarray | None, list[str]]:
    """Timestamps of all rows, and the columns they came from; in another dtype than datetime64[s] they only order the rows."""
    columns = table.columns
    if time is not None:
        found = _as_times(columns[time])
        if found is None and columns[time].dtype.kind == "f" and not np.isnan(columns[time]).any():
            found = columns[time]
        if found is None:
            example = columns[time][0]
            raise ValueError(sentence(WHERE, f"column {time!r}", "timestamps", f"cells such as {example!r}"))
        return found, [time]
    free = [name for name in columns if name not in roles]
    lower = {name.lower().strip(): name for name in free}
    if "year" in lower and columns[lower["year"]].dtype.kind == "f" and ("month" in lower or "day" not in lower):
        parts = [lower[n] for n in ("year", "month", "day", "hour", "minute") if n in lower]
        found = _from_parts([columns[n] for n in parts])
        if found is not None:
            if len(parts) > 1:
                notes.append(f"The time is put together from {', '.join(parts)}.")
            return found, parts
    times = [name for name in free if columns[name].dtype.kind == "M"]
    if times:
        best = min(times, key=lambda n: (_rank(n, TIME_NAMES), free.index(n)))
        if len(times) > 1:
            notes.append(f"The time is column {best!r} (of {', '.join(times)}).")
        return whole_seconds(columns[best]), [best]
    for name in free[:1] + [lower[n] for n in ("date", "time", "timestamp", "ds") if n in lower]:
        found = _as_times(columns[name])
        if found is not None:
            return found, [name]
    numbers = [n for n in free if columns[n].dtype.kind == "f"]
    for name in [lower[n] for n in ORDER_NAMES if n in lower]:
        column = columns[name]
        if column.dtype.kind != "f" or np.isnan(column).any() or (numbers == [name] and len(roles) == 0):
            continue
        if len(np.unique(column)) == len(column):
            even = np.all(np.diff(column) > 0) or evenness_of(column) > 0.5
        elif series is not None:
            even = len({(str(a), b) for a, b in zip(columns[series], column)}) == len(column)
        else:
            even = _series_of_rows(table, column, None, layout, [*roles, name], []) is not None
        if even:
            return column, [name]
    return None, []


def _rank(name: str, order: Sequence[str]) -> int:
    """Place of a name among expected names."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((i for i, word in enumerate(order) if word == name.lower() or word in words), len(order))


def _as_times(column: np.ndarray) -> np.ndarray | None:
    """Timestamps of a column: of its own, years, days such as 20240131, or seconds since 1970."""
    if column.dtype.kind == "M":
        return whole_seconds(column)
    if column.dtype.kind != "f" or np.isnan(column).any() or np.any(column != np.rint(column)):
        return None
    low, high = column.min(), column.max()
    if low < 1000 or high > 1e16:
        return None
    whole = column.astype("int64")
    if low >= 1000 and high <= 2300 and (evenness_of(whole) > 0.5 or len(column) == 1):
        return (whole - 1970).astype("datetime64[Y]").astype("datetime64[s]")
    if low >= 10_000_101 and high <= 23_001_231:
        return _from_parts([whole // 10_000, whole // 100 % 100, whole % 100])
    for scale in (1, 1000):
        if 5e8 * scale <= low and high <= 5e9 * scale:
            return (whole // scale).astype("datetime64[s]")
    return None


def evenness_of(whole: np.ndarray) -> float:
    """Part of the gaps between sorted different numbers that are the commonest."""
    gaps = np.diff(np.unique(whole))
    return float(np.unique(gaps, return_counts=True)[1].max() / len(gaps)) if len(gaps) else 0.0


def _from_parts(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Timestamps of years, months, days, hours, minutes."""
    low, high = (1000, 1, 1, 0, 0), (2300, 12, 31, 23, 59)
    for part, a, b in zip(parts, low, high):
        if np.isnan(part).any() or np.any(part != np.rint(part)) or part.min() < a or part.max() > b:
            return None
    whole = [part.astype("int64") for part in parts]
    found = (whole[0] - 1970).astype("datetime64[Y]").astype("datetime64[M]")
    if len(whole) > 1:
        found = found + (whole[1] - 1)
    days = found.astype("datetime64[D]")
    if len(whole) > 2:
        days = days + (whole[2] - 1)
        if np.any(days.astype("datetime64[M]") != found):
            return None
    seconds = days.astype("datetime64[s]")
    for part, size in zip(whole[3:], (3600, 60)):
        seconds = seconds + part * size
    return seconds


def _series_of_rows(
    table: Table, stamps: np.ndarray | None, series: str | None, layout: str, used: Sequence[str], notes: list[str]
) -> str | None:
    """The column that tells series apart; None for one series."""
    if series is not None or layout == "wide":
        return series
    doubled = stamps is not None and len(np.unique(stamps)) < len(stamps)
    free = [n for n in table.columns if n not in used]
    candidates = [n for n in free if table.columns[n].dtype.kind == "O"]
    candidates += [n for n in free if table.columns[n].dtype.kind == "f" and _rank(n, SERIES_NAMES) < len(SERIES_NAMES)]
    candidates.sort(key=lambda n: _rank(n, SERIES_NAMES))
    if stamps is None:
        found = [
            n
            for n in candidates
            if 1 < len(set(table.columns[n])) <= len(table) / 3
            and (_rank(n, SERIES_NAMES) < len(SERIES_NAMES) or _in_even_blocks(table.columns[n]))
        ]
        if layout == "long" and not found:
            raise ValueError(sentence(WHERE, "series", "the name of the column that tells the series apart", "nothing"))
        if not found:
            blocks = [n for n in candidates if 1 < len(set(table.columns[n])) <= len(table) / 3]
            for name in (n for n in blocks if in_blocks(table.columns[n].tolist())):
                notes.append(
                    f"The rows come in blocks of one {name!r}, and are read as one series: if they are several, name the "
                    f"column (series={name!r}, --series {name})."
                )
            return None
        notes.append(f"Series are told apart by column {found[0]!r}: {len(set(table.columns[found[0]])):,} of them.")
        return found[0]
    if not doubled:
        return None
    codes = np.unique(stamps, return_inverse=True)[1].tolist()
    for name in candidates:
        pairs = {(str(a), b) for a, b in zip(table.columns[name], codes)}
        if len(pairs) >= 0.9 * len(table) and len(set(table.columns[name])) < len(table):
            notes.append(f"Series are told apart by column {name!r}: {len(set(table.columns[name])):,} of them.")
            return name
    for name in (n for n in free if n not in candidates and table.columns[n].dtype.kind == "f"):
        values = table.columns[name]
        if np.all(values == np.rint(values)) and tells_apart(values.tolist(), codes):
            notes.append(
                f"Series are told apart by column {name!r}: {len(set(values.tolist())):,} of them, since the times start "
                "again with each of its numbers."
            )
            return name
    return None


def _in_even_blocks(column: np.ndarray) -> bool:
    """Blocks of rows of one length, each with a name of its own?"""
    counts = np.unique(column.astype(str), return_counts=True)[1]
    return column.dtype.kind == "O" and bool(counts.min() == counts.max()) and in_blocks(column.tolist())


def _is_counter(table: Table, name: str) -> bool:
    """A column that only counts the rows: 0, 1, 2 ..., with a name that says so."""
    column = table.columns[name]
    low = name.lower().strip()
    named = low in ("no", "nr", "index", "row", "id", "unnamed: 0") or low == "column_1"
    return bool(named and len(column) > 2 and len(table.columns) > 1 and np.all(np.diff(column) == 1))


def _with_values(table: Table, wanted: Sequence[str], asked: bool, notes: list[str]) -> tuple[str, ...]:
    """The targets that hold numbers."""
    kept = []
    for name in wanted:
        column = table.columns[name]
        if column.dtype.kind != "f":
            kind = "timestamps" if column.dtype.kind == "M" else f"text such as {next((v for v in column if v), '')!r}"
            raise ValueError(sentence(WHERE, f"target {name!r}", "a column of numbers", kind))
        if np.isnan(column).all():
            if asked:
                raise ValueError(sentence(WHERE, f"target {name!r}", "a column with values", "only missing ones"))
            notes.append(f"Column {name!r} has no values and is left out.")
            continue
        kept.append(name)
    if not kept:
        raise ValueError(sentence(WHERE, table.name, "a table with a column of numbers to forecast", "none"))
    return tuple(kept)


# --- putting it together ---


def _assemble(
    table: Table,
    targets: tuple[str, ...],
    known: tuple[str, ...],
    past: tuple[str, ...],
    stamps: np.ndarray | None,
    series: str | None,
    notes: list[str],
) -> SeriesSet:
    data = np.stack([table.columns[name] for name in (*targets, *known, *past)], axis=1)
    labels = _labels(table.columns[series]) if series is not None else np.zeros(len(table), dtype=object)
    nameless = int(np.sum(labels == "")) if series is not None else 0
    if nameless:
        notes.append(
            f"{nameless:,} rows have nothing in column {series!r}: they are taken as one series without a name."
        )
    if stamps is not None and stamps.dtype.kind == "M" and np.isnat(stamps).any():
        missing = np.isnat(stamps)
        if missing.all():
            raise ValueError(sentence(WHERE, "the time", "given in the rows", "none"))
        notes.append(f"{missing.sum():,} rows without a timestamp are left out.")
        data, labels, stamps = data[~missing], labels[~missing], stamps[~missing]
    names, member = np.unique(labels.astype(str), return_inverse=True)
    first = np.full(len(names), len(labels))
    np.minimum.at(first, member, np.arange(len(labels)))
    order = np.argsort(first, kind="stable")  # in the order of the file
    rows_of = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    found = [
        _Rows(
            str(names[i]) if series is not None else "series",
            data[rows_of[i]],
            None if stamps is None else stamps[rows_of[i]],
        )
        for i in order
    ]
    num_targets, num_known = len(targets), len(known)
    step = None
    if stamps is not None:
        found, step = _on_grid(found, series, num_targets, notes)
    values, ahead, before, times, kept = [], [], [], [], []
    for rows in found:
        there = np.flatnonzero(~np.isnan(rows.data[:, :num_targets]).all(axis=1))
        if not len(there):
            notes.append(f"Series {rows.name!r} has no values and is left out.")
            continue
        end = there[-1] + 1
        future = rows.data[end:, num_targets : num_targets + num_known]
        whole = end + (
            np.flatnonzero(~np.isnan(future).any(axis=1))[-1] + 1
            if num_known and (~np.isnan(future).any(axis=1)).any()
            else 0
        )
        kept.append(rows.name)
        values.append(rows.data[:end, :num_targets])
        ahead.append(rows.data[:whole, num_targets : num_targets + num_known])
        before.append(rows.data[:end, num_targets + num_known :])
        times.append(rows.times[:whole] if rows.times is not None else None)
    made = finish(kept, targets, values, notes)
    return replace(
        made,
        known=tuple(ahead),
        past=tuple(before),
        times=None if step is None else tuple(t for t in times if t is not None),
        step=step,
        known_names=known,
        past_names=past,
    )


def _labels(column: np.ndarray) -> np.ndarray:
    """Names of series as text; whole numbers without a point."""
    if column.dtype.kind == "f":
        whole = np.isfinite(column) & (np.abs(np.nan_to_num(column)) < 2**53) & (column == np.rint(column))
        return np.array(
            ["" if np.isnan(v) else str(int(v)) if w else repr(float(v)) for v, w in zip(column, whole)], dtype=object
        )
    return column.astype(str).astype(object)


@dataclass(frozen=True)
class _Rows:
    """The rows of one series."""

    name: str
    data: np.ndarray
    times: np.ndarray | None


def _on_grid(
    found: list[_Rows], series: str | None, num_targets: int, notes: list[str]
) -> tuple[list[_Rows], Step | None]:
    """Sorted, without doubles, at even steps; the step is None where there is none."""
    unsorted = equal = averaged = total = 0
    clean = []
    for rows in found:
        assert rows.times is not None
        times, data = rows.times, rows.data
        if np.any(times[1:] < times[:-1]):
            unsorted += 1
            order = np.argsort(times, kind="stable")
            times, data = times[order], data[order]
        total += len(times)
        if np.any(times[1:] == times[:-1]):
            times, data, num_equal, num_averaged = _without_doubles(times, data)
            equal += num_equal
            averaged += num_averaged
        clean.append(_Rows(rows.name, data, times))
    if averaged > 0.1 * total:
        hint = (
            "Name the column that tells the series apart (series=..., --series)."
            if series is None
            else "Is another column needed?"
        )
        raise ValueError(
            sentence(WHERE, "the time", "different in every row of a series", f"{averaged:,} doubles", hint)
        )
    if unsorted:
        notes.append("The rows were not in the order of time: they were sorted.")
    if equal:
        notes.append(f"{equal:,} rows stood twice: one of each was kept.")
    if averaged:
        notes.append(f"{averaged:,} rows had the time of another row but other values: they were averaged.")
    longest = max(clean, key=lambda rows: len(rows.data))
    dated = longest.times is not None and longest.times.dtype == np.dtype("datetime64[s]")
    step = find_step(longest.times) if dated and longest.times is not None else None
    if step is None:
        if not dated and longest.times is not None:
            what = "timestamps have parts of a second" if longest.times.dtype.kind == "M" else "times are plain numbers"
            notes.append(f"The {what}: they only order the rows, which are taken as steps 1, 2, 3 and so on.")
        elif len(longest.data) > 1:
            notes.append("The timestamps are not evenly spaced: the values are taken as steps 1, 2, 3 and so on.")
        return [replace(rows, times=None) for rows in clean], None
    gaps, off, gridded = 0, 0, []
    for rows in clean:
        assert rows.times is not None
        place = places(rows.times, step)
        if place is None or place[-1] + 1 > _MAX_STRETCH * len(place) + 100:
            off += 1
            fresh = step.after(rows.times[-1], 1)[0] if len(rows.times) == 1 else rows.times[0]
            start = rows.times[0] if len(rows.times) > 1 else fresh
            times = (
                np.concatenate([[start], step.after(start, len(rows.times) - 1)]) if len(rows.times) > 1 else rows.times
            )
            gridded.append(_Rows(rows.name, rows.data, times))
            continue
        length = int(place[-1]) + 1
        gaps += length - len(place)
        data = np.full((length, rows.data.shape[1]), np.nan)
        data[place] = rows.data
        times = np.concatenate([rows.times[:1], step.after(rows.times[0], length - 1)])
        gridded.append(_Rows(rows.name, data, times))
    if off:
        notes.append(
            f"{off:,} series have timestamps that are not whole steps ({step}) apart, or so far apart that hardly any step has "
            "a value: their rows are taken as neighbours."
        )
    if gaps:
        notes.append(f"{gaps:,} timestamps are missing between others ({step} apart): their values count as missing.")
    return gridded, step


def _without_doubles(times: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """One row per time; how many were equal, and how many were averaged."""
    fresh, start, counts = np.unique(times, return_index=True, return_counts=True)
    out = data[start].copy()
    equal = averaged = 0
    for i in np.flatnonzero(counts > 1):
        group = data[start[i] : start[i] + counts[i]]
        filled = ~np.isnan(group)
        if np.array_equal(group, np.broadcast_to(group[0], group.shape), equal_nan=True):
            equal += int(counts[i]) - 1
            continue
        averaged += int(counts[i]) - 1
        out[i] = np.where(filled.any(0), np.where(filled, group, 0).sum(0) / np.maximum(filled.sum(0), 1), np.nan)
    return fresh, out, equal, averaged


def finish(names: Sequence[str], targets: tuple[str, ...], values: Sequence[np.ndarray], notes: list[str]) -> SeriesSet:
    """A set without covariates; says which series are constant."""
    if not values:
        raise ValueError(sentence(WHERE, "the series", "at least one with values", "none"))
    constant = [
        n
        for n, v in zip(names, values)
        if len(v) > 1 and np.all(np.nanmax(v, axis=0, initial=-np.inf) == np.nanmin(v, axis=0, initial=np.inf))
    ]
    if constant:
        some = ", ".join(repr(n) for n in constant[:5]) + (" ..." if len(constant) > 5 else "")
        notes.append(f"{len(constant):,} of {len(names):,} series never change ({some}).")
    missing = sum(int(np.isnan(v).sum()) for v in values)
    if missing:
        notes.append(f"{missing:,} of {sum(v.size for v in values):,} values are missing: they are masked.")
    empty = tuple(np.zeros((len(v), 0)) for v in values)
    return SeriesSet(tuple(names), targets, tuple(values), empty, empty, notes=tuple(notes))
