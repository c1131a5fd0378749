"""Is a table long, one step of a series in each row? Which column tells the series apart, and which orders their rows?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .timestamps import TIME_NAMES, read_times

SERIES_NAMES = (
    "series_id",
    "series",
    "unique_id",
    "item_id",
    "item",
    "id",
    "store",
    "sensor",
    "station",
    "key",
    "name",
    "group",
)
ORDER_NAMES = ("t", "time", "timestamp", "datetime", "date", "ds", "step", "time_step", "timestep", "tick", "period")
"""Columns of these names that hold plain numbers order the rows."""
_CLOCK = ("hour", "minute", "second", "frame", "sequence_counter")
_MOST_COLUMNS = 200  # more are the steps of a wide table
_FEWEST_ROWS = 6


class LongRoles(NamedTuple):
    """series: the column that tells series apart; time: the one that orders their rows, None for the file's order."""

    series: str
    time: str | None


def in_blocks(values: Sequence[object]) -> bool:
    """Do equal values follow each other?"""
    return len(list(itertools.groupby(values))) == len(set(values))


def is_grid(values: Sequence[object], moments: Sequence[object]) -> bool:
    """Does (nearly) every value occur at every moment, once?

    Example:
        >>> is_grid([1, 2, 1, 2], ["a", "a", "b", "b"]), is_grid([1, 2, 1, 2], ["a", "a", "a", "b"])
        (True, False)
    """
    pairs = len(set(zip(values, moments)))
    return pairs == len(values) and pairs >= 0.9 * len(set(values)) * len(set(moments))


def tells_apart(values: Sequence[object], moments: Sequence[object]) -> bool:
    """May these be the names of series, though nothing but their order says so?

    At least three rows each, no moment twice in one of them, and either one block of rows after the other or the same
    moments in all.
    """
    if not 2 <= len(set(values)) <= len(values) / 3 or len(set(zip(values, moments))) < len(values):
        return False
    return in_blocks(values) or is_grid(values, moments)


def find_long(header: Sequence[str], rows: Sequence[Sequence[str]], label: int | None) -> LongRoles | None:
    """The roles of the columns of a long table; None where each row may be a series of its own.

    A column tells series apart where it has at least three rows for each value, the label is the same in all of them, and

    - a column of times starts again in each of them, no time standing twice in one; or
    - it holds words, or is called id, series, sensor ..., and equal values follow each other.

    Args:
        header: names of the columns.
        rows: cells, as many as names.
        label: place of the column with the label; None where there is none.

    Example:
        >>> rows = [[m, str(h), "1.5", m + "!"] for m in "ab" for h in range(4)]
        >>> find_long(["machine", "hour", "heat", "label"], rows, 3)
        LongRoles(series='machine', time='hour')
    """
    if len(header) > _MOST_COLUMNS or len(rows) < _FEWEST_ROWS or any(len(row) != len(header) for row in rows):
        return None
    columns = list(zip(*rows))
    free = [i for i in range(len(header)) if i != label]
    times = [i for i in free if len(set(columns[i])) < len(rows) and _is_time(header[i], columns[i])]
    found: list[tuple[int, int, bool, int, int | None]] = []
    for i in free:
        values, words = columns[i], not _are_numbers(columns[i])
        rank = _rank(header[i])
        if i in times or not 2 <= len(set(values)) <= len(rows) / 3 or "" in values:
            continue
        if label is not None and len(set(zip(values, columns[label]))) > len(set(values)):
            continue
        time = next((t for t in times if len(set(zip(values, columns[t]))) == len(rows)), None)
        named = rank < len(SERIES_NAMES)
        if time is not None and (words or named or (_are_whole(values) and tells_apart(values, columns[time]))):
            found.append((0, rank, not words, i, time))
        elif time is None and (words or named) and in_blocks(values):
            found.append((1, rank, not words, i, time))
    if not found:
        return None
    *_, series, time = min(found, key=lambda one: one[:4])
    return LongRoles(header[series], None if time is None else header[time])


def _rank(name: str) -> int:
    low = name.lower().strip()
    return SERIES_NAMES.index(low) if low in SERIES_NAMES else len(SERIES_NAMES)


def _is_time(name: str, values: Sequence[str]) -> bool:
    words = set(re.split(r"[^a-z]+", name.lower()))
    if words & {*TIME_NAMES, *ORDER_NAMES, *_CLOCK}:
        return True
    return not _are_numbers(values[:50]) and read_times(list(values[:50])) is not None


def _are_numbers(values: Sequence[str]) -> bool:
    try:
        np.array(values, dtype=np.float64)
    except ValueError:
        return False
    return True


def _are_whole(values: Sequence[str]) -> bool:
    numbers = np.array(values, dtype=np.float64)
    return bool(np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all())
