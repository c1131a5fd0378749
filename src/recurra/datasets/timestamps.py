"""Timestamps written as text: found, read, and the step between them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray

FORMATS = (
    "ISO8601",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %Y",
    "%B %Y",
    "%b-%Y",
    "%m/%Y",
)
"""Tried in this order. Where day and month can be told apart by no value, the reading with the more even steps is taken."""

QUARTER = re.compile(r"^(\d{4})[ -]?Q([1-4])$")
TIME_NAMES = (
    "timestamp",
    "datetime",
    "date",
    "time",
    "ds",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "period",
    "index",
)
UNITS = {"s": "second", "M": "month", "B": "business day"}
FIXED = ((604800, "week"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Step(NamedTuple):
    """The time between two neighbours of a series.

    Args:
        count: how many units.
        unit: "s" seconds, "M" months, "B" business days.
        month_end: for months: every timestamp is the last day of its month.

    Example:
        >>> print(Step(3600, "s"), Step(7 * 86400, "s"), Step(3, "M"), Step(1800, "s"), sep="; ")
        1 hour; 1 week; 3 months; 30 minutes
    """

    count: int  # type: ignore[assignment]  # a tuple has a method of this name
    unit: str
    month_end: bool = False

    def __str__(self) -> str:
        count, name = self.count, UNITS[self.unit]
        if self.unit == "s":
            size, name = next((size, name) for size, name in FIXED if self.count % size == 0)
            count //= size
        return f"{count} {name}" + ("s" if count != 1 else "")

    @property
    def seconds(self) -> float:
        """Seconds, on average."""
        return self.count * {"s": 1.0, "M": 30.436875 * 86400, "B": 1.4 * 86400}[self.unit]

    def after(self, last: np.datetime64, count: int) -> Array:
        """The ``count`` timestamps after ``last``, datetime64[s].

        Example:
            >>> Step(1, "M", True).after(np.datetime64("2024-01-31"), 2).astype("datetime64[D]").tolist()
            [datetime.date(2024, 2, 29), datetime.date(2024, 3, 31)]
        """
        last = last.astype("datetime64[s]")
        ahead = np.arange(1, count + 1) * self.count
        if self.unit == "s":
            return last + ahead.astype("timedelta64[s]")
        day = last.astype("datetime64[D]")
        rest = last - day.astype("datetime64[s]")
        if self.unit == "B":
            return np.busday_offset(day, ahead, roll="backward").astype("datetime64[s]") + rest
        months = day.astype("datetime64[M]") + ahead
        ends = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
        if self.month_end:
            days = ends
        else:
            days = np.minimum(months.astype("datetime64[D]") + (day - day.astype("datetime64[M]")), ends)
        return days.astype("datetime64[s]") + rest


def read_times(cells: Sequence[str]) -> Array | None:
    """Timestamps (N,) datetime64[s] of text, NaT where a cell is empty; None where the cells are no timestamps.

    Where some have parts of a second, the unit is a finer one.

    Example:
        >>> read_times(["03.01.2024", "04.01.2024"]).astype("datetime64[D]").tolist()
        [datetime.date(2024, 1, 3), datetime.date(2024, 1, 4)]
        >>> read_times(["1.5", "2.5"]) is None
        True
    """
    filled = [cell for cell in cells if cell]
    sample = filled[:: max(1, len(filled) // 50)][:60]
    if not sample or not all(any(c.isdigit() for c in cell) for cell in sample):
        return None
    if all(QUARTER.match(cell) for cell in sample):
        return _quarters(cells)
    if not all(re.search(r"\d[-/.: ]\s?\d|[A-Za-z]{3}.*\d", cell) for cell in sample):
        return None
    if any(re.fullmatch(r"[-+]?\d*[.,]?\d+", cell) for cell in sample):  # a number, whatever else it might be
        return None
    best: tuple[float, Array] | None = None
    for form in FORMATS:
        if _parse(sample, form) is None:
            continue
        found = _parse(cells, form)
        if found is None:
            continue
        if "%d" not in form or "%m" not in form or form.startswith(("%Y", "%d.")):
            return found
        score = evenness(found)
        if best is None or score > best[0]:
            best = score, found
    return None if best is None else best[1]


def whole_seconds(times: Array) -> Array:
    """Timestamps as datetime64[s] where none has a part of a second; else as they are."""
    whole = times.astype("datetime64[s]")
    return whole if bool(((whole == times) | np.isnat(times)).all()) else times


def _parse(cells: Sequence[str], form: str) -> Array | None:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = pd.to_datetime(pd.Series(list(cells), dtype=object).replace("", None), format=form, utc=True)
            return whole_seconds(found.dt.tz_localize(None).to_numpy())
        except (ValueError, TypeError, OverflowError, AttributeError):
            return None


def _quarters(cells: Sequence[str]) -> Array | None:
    found = np.full(len(cells), "NaT", dtype="datetime64[s]")
    for i, cell in enumerate(cells):
        match = QUARTER.match(cell)
        if match:
            found[i] = np.datetime64(f"{match[1]}-{3 * int(match[2]) - 2:02d}", "s")
        elif cell:
            return None
    return found


def evenness(times: Array) -> float:
    """Part of the differences between sorted different timestamps that are the commonest one (months count as equal)."""
    gaps = np.diff(np.unique(times[~np.isnat(times)])).astype("int64")
    if len(gaps) == 0:
        return 0.0
    days = gaps / 86400
    gaps = np.where((days >= 28) & (days <= 31), -1, gaps)
    return float(np.unique(gaps, return_counts=True)[1].max() / len(gaps))


def find_step(times: Array) -> Step | None:
    """The step of sorted different timestamps; None where they are not evenly spaced.

    Gaps are allowed: four of five differences must be whole multiples of the step, and half of them the step itself.

    Example:
        >>> find_step(np.array(["2024-01-01", "2024-02-01", "2024-03-01", "2024-05-01"], "datetime64[s]"))
        Step(count=1, unit='M', month_end=False)
    """
    if len(times) < 2:
        return None
    days = times.astype("datetime64[D]")
    gaps = np.diff(times).astype("int64")
    values, counts = np.unique(gaps, return_counts=True)
    common = int(values[counts.argmax()])
    months = times.astype("datetime64[M]")
    in_month = (days - months.astype("datetime64[D]")).astype(int)
    last_day = (days + np.timedelta64(1, "D")).astype("datetime64[M]") != days.astype("datetime64[M]")
    if common >= 28 * 86400 and (len(np.unique(in_month)) == 1 or last_day.all() or common > 80 * 86400):
        jumps = np.diff(months.astype("int64"))
        size = np.unique(jumps, return_counts=True)
        jump = int(size[0][size[1].argmax()])
        if jump > 0 and np.mean(jumps % jump == 0) >= 0.8 and np.mean(jumps == jump) >= 0.5:
            return Step(jump, "M", bool(last_day.all()))
    weekends = gaps == 3 * 86400
    only_work = common == 86400 and len(gaps) >= 5 and np.is_busday(days).all() and weekends.any()
    if only_work and np.mean((gaps == 86400) | weekends) >= 0.8:
        return Step(1, "B")
    if common > 0 and np.mean(gaps % common == 0) >= 0.8 and np.mean(gaps == common) >= 0.5:
        return Step(common, "s")
    return None


def places(times: Array, step: Step) -> Array | None:
    """Whole number of steps of each timestamp after the first; None where one does not lie on the grid.

    Example:
        >>> days = np.array(["2024-01-01", "2024-01-02", "2024-01-05"], "datetime64[s]")
        >>> places(days, Step(86400, "s")).tolist()
        [0, 1, 4]
    """
    if step.unit == "M":
        jumps = (times.astype("datetime64[M]") - times[0].astype("datetime64[M]")).astype("int64")
        return jumps // step.count if np.all(jumps % step.count == 0) and _different(jumps) else None
    if step.unit == "B":
        days = times.astype("datetime64[D]")
        if not np.is_busday(days).all():
            return None
        return np.busday_count(days[0], days)
    gaps = (times - times[0]).astype("int64")
    found = np.rint(gaps / step.count).astype("int64")
    off = np.abs(gaps - found * step.count)
    # A clock that drifts by a little (13:00:02) still lies on the grid.
    return found if np.all(off <= 0.1 * step.count) and _different(found) else None


def _different(sorted_numbers: Array) -> bool:
    return bool(np.all(np.diff(sorted_numbers) > 0))
