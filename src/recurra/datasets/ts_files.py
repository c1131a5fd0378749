"""Series with labels, read from files: UCR and UEA archives (``.ts``, label first), long and wide tables."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import sentence
from .decode import read_text
from .long_table import LongRoles, find_long
from .timestamps import read_times

MISSING = frozenset({"", "?", "na", "nan", "n/a", "null", "none", "-nan", "#n/a"})
SEPARATORS = (",", "\t", ";")
LONG_NAMES = (
    "id",
    "series",
    "series_id",
    "sequence",
    "time",
    "timestamp",
    "date",
    "step",
)  # hardly steps of a wide table

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LabelledSeries:
    """Series with a label each, as `recurra.estimators.SequenceClassifier` and `SequenceRegressor` take them.

    Args:
        series: N arrays (T_i, D) of float64; NaN is a missing value.
        labels: N labels: texts for classes, numbers for targets; None where the file has none.
        name: of the set.
        channels: D names of the channels, where the file gives them.
        notes: what was repaired or left out, one sentence each.
        roles: of the columns of a table that was found to be long; None for anything else.
        names: N names of the series in a long table; empty for anything else.
    """

    series: list[Array]
    labels: list[str] | list[float] | None
    name: str = ""
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    roles: LongRoles | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """N."""
        return len(self.series)


def read_series(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    series: str | None = None,
    time: str | None = None,
    needs_labels: bool = True,
) -> LabelledSeries:
    """Read labelled series from a file of any form that this module knows.

    A name that ends in ``.ts``, or a line ``@data``, is the archives' format (`read_ts`). A first line of numbers (the label
    may be a word) is a file of the UCR archive (`read_ucr`). Anything else is a table with a header: long if ``series`` names
    the column that tells series apart or `find_long` finds one (`read_long`), else wide (`read_wide`).

    Args:
        path: of the file.
        target: the column of the label in a table.
        series: the column of a long table that tells which series a row belongs to.
        time: the column of a long table that orders the rows of a series; None for the order of the file.
        needs_labels: False for series to predict: a table may be without the column of the label.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read as such; the sentence names the line.
    """
    path = Path(path)
    text, notes = read_text(path)
    where = path.name
    is_table = series is not None or not (path.suffix.lower() == ".ts" or _has_data_line(text))
    if needs_labels and not is_table and target is not None:
        hint = "In the archives' format the label ends each line."
        raise ValueError(sentence(where, "target", "left out for a file without columns", repr(target), hint))
    if not needs_labels and is_table and target is not None:
        if _starts_with_numbers(text):
            raise ValueError(sentence(where, "the first line", "the names of the columns, as in training", "numbers"))
        target = target if target in _table(text, where)[0] else None
    if series is not None:
        found = parse_long(text, where, series=series, target=target, time=time)
    elif path.suffix.lower() == ".ts" or _has_data_line(text):
        found = parse_ts(text, where)
    elif target is None and _starts_with_numbers(text):
        found = parse_ucr(text, where)
    else:
        found = _parse_table(text, where, target, time, needs_labels)
    return replace(found, name=found.name or path.stem, notes=(*notes, *found.notes))


def _parse_table(text: str, where: str, target: str | None, time: str | None, needs_labels: bool) -> LabelledSeries:
    """A table of which nobody has said whether it is long."""
    header, rows = _table(text, where)
    label = _label_column(where, header, target, needs_labels)
    roles = find_long(header, [row for _, row in rows], label) if len(header) <= 1000 else None
    if roles is None:
        return parse_wide(text, where, target=target, needs_labels=needs_labels)
    roles = LongRoles(roles.series, time or roles.time)
    name = None if label is None else header[label]
    found = parse_long(text, where, series=roles.series, target=name, time=roles.time)
    order = "in the order of the file" if roles.time is None else f"in the order of {roles.time!r}"
    note = (
        f"Each row is one step of a series: column {roles.series!r} tells {len(found):,} of them apart, {order} "
        "(series=..., time=..., or --series, --time, say otherwise)."
    )
    return replace(found, notes=(note, *found.notes), roles=roles)


def read_ts(path: str | os.PathLike[str]) -> LabelledSeries:
    """Read a ``.ts`` file; see `parse_ts`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no ``.ts`` file, or damaged; the sentence names the line.
    """
    return _read(path, parse_ts)


def read_ucr(path: str | os.PathLike[str]) -> LabelledSeries:
    """Read a text file with the label first in each line; see `parse_ucr`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a value is no number; the sentence names the line.
    """
    return _read(path, parse_ucr)


def read_wide(path: str | os.PathLike[str], *, target: str | None = None) -> LabelledSeries:
    """Read a table with one series a line; see `parse_wide`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the table has no such column, or a value is no number; the sentence names the line.
    """
    return _read(path, lambda text, where: parse_wide(text, where, target=target))


def read_long(
    path: str | os.PathLike[str], *, series: str, target: str | None = None, time: str | None = None
) -> LabelledSeries:
    """Read a table with one step of one series a line; see `parse_long`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the table has no such column, or a value is no number; the sentence names the line.
    """
    return _read(path, lambda text, where: parse_long(text, where, series=series, target=target, time=time))


def _read(path: str | os.PathLike[str], parse: Callable[[str, str], LabelledSeries]) -> LabelledSeries:
    path = Path(path)
    text, notes = read_text(path)
    found = parse(text, path.name)
    return replace(found, name=found.name or path.stem, notes=(*notes, *found.notes))


# --- the archives' own format ----------------------------------------------------------------------------------------


def parse_ts(text: str, where: str = "text") -> LabelledSeries:
    """Series in the format of the UCR and UEA archives (sktime, aeon).

    Lines that begin with ``#`` are comments, with ``@`` the header, which ends with ``@data``. Then each line is one series:
    its channels separated by ``:``, its values by ``,``, its label last. ``?`` is a missing value. With ``@timeStamps true``
    the values are ``(time,value)``; the times are left out, which is said. With ``@targetLabel true`` the label is a number.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        ValueError: not this format, a value that is no number, another number of channels, a label that the header does not
            name; the sentence names the line.

    Example:
        >>> found = parse_ts("@problemName A\\n@classLabel true up down\\n@data\\n1,?,3:up\\n3,2,1:down\\n")
        >>> found.labels, found.series[0].shape
        (['up', 'down'], (3, 1))
    """
    head: dict[str, list[str]] = {}
    lines = enumerate(text.split("\n"), start=1)
    for _, line in lines:
        line = line.strip()
        if line.lower().startswith("@data"):
            break
        if line.startswith("@"):
            key, *values = line[1:].split() or [""]
            head[key.lower()] = values
        elif line and not line.startswith(("#", "%")):
            raise ValueError(
                sentence(where, "the header of a .ts file", "lines with # or @ up to @data", repr(line[:60]))
            )
    else:
        raise ValueError(sentence(where, "a .ts file", "a header with a line @data", "none", "Is the file cut off?"))
    classes = _header_flag(head, "classlabel")
    regression = _header_flag(head, "targetlabel") is not None
    has_label = regression or classes is not None
    stamped = _header_flag(head, "timestamps") is not None
    notes: list[str] = []
    series: list[Array] = []
    labels: list[str] = []
    num_padded = 0
    for number, line in lines:
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        place = f"{where}: line {number}"
        parts = _split_channels(line)
        if has_label and len(parts) < 2:
            hint = "Is the file cut off there?"
            raise ValueError(sentence(place, "a series", "values, then a colon and the label", _short(line), hint))
        if has_label:
            label = parts.pop().strip()
            if classes and label not in classes:
                known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
                hint = "Is the file cut off there?"
                raise ValueError(
                    sentence(place, "the label", f"one that the header names ({known})", _short(label), hint)
                )
            labels.append(label)
        if stamped:
            parts = [_without_times(place, part) for part in parts]
        channels = [_numbers(place, part.split(",")) for part in parts]
        if series and len(channels) != series[0].shape[1]:
            want = f"{series[0].shape[1]} channels, as the first one"
            raise ValueError(sentence(place, "a series", want, len(channels), "Is the file cut off there?"))
        num_padded += len({len(channel) for channel in channels}) > 1
        series.append(_columns(channels))
    if not series:
        raise ValueError(sentence(where, "a .ts file", "series after the line @data", "none", "Is the file cut off?"))
    told = (head.get("serieslength") or [""])[0]
    off = sum(len(values) != int(told) for values in series) if told.isdecimal() else 0
    if off:
        notes.append(f"{off} series have another length than the {told} steps that the header tells.")
    if num_padded:
        notes.append(
            f"{num_padded} series have channels of different lengths; the shorter ones end with missing values."
        )
    if stamped:
        notes.append("The values carry times; they are taken in their order, and the times are left out.")
    name = head.get("problemname", [""])
    found: list[str] | list[float] | None = labels if has_label else None
    if regression:
        found = [_target(where, label, i) for i, label in enumerate(labels)]
    return _finished(series, found, where, name=name[0] if name else "", notes=notes)


def _header_flag(head: dict[str, list[str]], key: str) -> list[str] | None:
    """What stands behind ``@key true``; None for false or no such line."""
    values = head.get(key)
    if not values or values[0].lower() != "true":
        return None
    return values[1:]


def _split_channels(line: str) -> list[str]:
    """Split at colons outside brackets (a time within brackets may have colons)."""
    if "(" not in line:
        return line.split(":")
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(line):
        depth += (letter == "(") - (letter == ")")
        if letter == ":" and depth == 0:
            parts.append(line[start:i])
            start = i + 1
    return [*parts, line[start:]]


def _without_times(place: str, part: str) -> str:
    values = []
    for pair in part.strip().strip("()").replace(" ", "").split("),("):
        _, comma, value = pair.rpartition(",")
        if not comma:
            raise ValueError(sentence(place, "a value with its time", "(time,value)", _short(pair)))
        values.append(value)
    return ",".join(values)


# --- the label first -------------------------------------------------------------------------------------------------


def parse_ucr(text: str, where: str = "text") -> LabelledSeries:
    """Series one a line, the label first, then the values, separated by commas, tabs, semicolons or spaces.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        ValueError: a value that is no number, a line with a label only; the sentence names the line.

    Example:
        >>> parse_ucr("1.0 0.5 0.25 0.125\\n2.0 1 2 3\\n").labels
        ['1', '2']
    """
    series: list[Array] = []
    labels: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(" \n")
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{where}: line {number}"
        label, *values = _cells(line)
        label = label.strip().strip("\"'")
        if not values:
            raise ValueError(sentence(place, "a series", "a label, then at least one value", _short(line)))
        if label.lower() in MISSING:
            raise ValueError(sentence(place, "the label", "a number or a word", repr(label)))
        labels.append(_label(label))
        series.append(_numbers(place, values)[:, None])
    return _finished(series, labels, where)


def _cells(line: str) -> list[str]:
    for separator in SEPARATORS:
        if separator in line:
            return line.split(separator)
    return line.split()


def _label(text: str) -> str:
    """``1.000e+00`` is the class ``1``."""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 2**53 else text


# --- tables ----------------------------------------------------------------------------------------------------------


def parse_wide(
    text: str, where: str = "text", *, target: str | None = None, needs_labels: bool = True
) -> LabelledSeries:
    """A table with a header and one series a line: a column with the label, every other column one step.

    Args:
        text: of the file.
        where: its name, for messages.
        target: the label's column; None for the one called label, class, target or y.
        needs_labels: False if a table without that column is one of series without labels.

    Raises:
        ValueError: no such column, rows of another width, a value that is no number; the sentence names the line.

    Example:
        >>> found = parse_wide("t0,t1,t2,label\\n1,2,3,up\\n3,2,1,down\\n")
        >>> found.labels, found.series[0][:, 0].tolist()
        (['up', 'down'], [1.0, 2.0, 3.0])
    """
    header, rows = _table(text, where)
    chosen = _label_column(where, header, target, needs_labels)
    series: list[Array] = []
    labels: list[str] = []
    keep = [i for i in range(len(header)) if i != chosen]
    if not keep:
        raise ValueError(sentence(where, "a wide table", "columns of values beside the label", "none"))
    for number, row in rows:
        place = f"{where}: line {number}"
        if len(row) != len(header):
            want = f"{len(header)} cells, like the header"
            raise ValueError(sentence(place, "a row", want, len(row), "Is the file cut off there?"))
        if chosen is not None:
            labels.append(_label(_given(place, header[chosen], row[chosen])))
        series.append(_numbers(place, [row[i] for i in keep])[:, None])
    odd = next((header[i] for i in keep if header[i].lower() in LONG_NAMES), None)
    hint = "for a table with one step a row, name the column that tells series apart (series)."
    notes = [] if odd is None else [f"Each row is one series, and the column {odd!r} is one of its steps; {hint}"]
    return _finished(series, None if chosen is None else labels, where, notes=notes)


def parse_long(
    text: str, where: str = "text", *, series: str, target: str | None = None, time: str | None = None
) -> LabelledSeries:
    """A table with a header and one step of one series a line; every column not named is a channel.

    Args:
        text: of the file.
        where: its name, for messages.
        series: the column that tells which series a row belongs to.
        target: the column of the label, the same in all rows of a series; None for a table without labels.
        time: the column that orders the rows of a series (numbers, timestamps in any usual form, or texts that count with
            leading zeros); None for the file's order.

    Raises:
        ValueError: no such column, two labels for one series, a value that is no number, times that have no order; the
            sentence names the line.

    Example:
        >>> rows = "id,t,x,y,label\\na,1,2,3,up\\na,0,1,2,up\\nb,0,5,5,down\\n"
        >>> found = parse_long(rows, series="id", time="t", target="label")
        >>> found.labels, found.series[0].tolist()
        (['up', 'down'], [[1.0, 2.0], [2.0, 3.0]])
    """
    header, rows = _table(text, where)
    places = {}
    for role, column in (("series", series), ("time", time), ("target", target)):
        if column is not None:
            places[role] = _find_column(where, header, column, role)
    if len(set(places.values())) < len(places):
        raise ValueError(sentence(where, "series, time and target", "three different columns", "one twice"))
    keep = [i for i in range(len(header)) if i not in places.values()]
    if not keep:
        raise ValueError(sentence(where, "a long table", "at least one column of values", "none"))
    found: dict[str, list[tuple[str, Array]]] = {}
    labels: dict[str, str] = {}
    notes: list[str] = []
    for number, row in rows:
        place = f"{where}: line {number}"
        if len(row) != len(header):
            want = f"{len(header)} cells, like the header"
            raise ValueError(sentence(place, "a row", want, len(row), "Is the file cut off there?"))
        key = _given(place, series, row[places["series"]])
        if target is not None:
            label = _label(_given(place, target, row[places["target"]]))
            if labels.setdefault(key, label) != label:
                want = f"one for all steps of series {key!r} ({labels[key]!r})"
                raise ValueError(sentence(place, "the label", want, repr(label)))
        moment = _given(place, str(time), row[places["time"]]) if time is not None else ""
        found.setdefault(key, []).append((moment, _numbers(place, [row[i] for i in keep])))
    if not found:
        raise ValueError(sentence(where, "a long table", "rows below the header", "none"))
    series_found, num_sorted, num_double = [], 0, 0
    keys = (
        _keys(where, str(time), {moment for steps in found.values() for moment, _ in steps}) if time is not None else {}
    )
    for steps in found.values():
        if time is not None:
            order = sorted(range(len(steps)), key=lambda i, steps=steps: keys[steps[i][0]])  # type: ignore[misc]
            num_sorted += order != list(range(len(order)))
            num_double += len({moment for moment, _ in steps}) < len(steps)
            steps = [steps[i] for i in order]
        series_found.append(np.stack([values for _, values in steps]))
    if num_sorted:
        notes.append(f"The rows of {num_sorted} series were not in the order of {time!r}; they were sorted.")
    if num_double:
        notes.append(
            f"{num_double} series have several rows with the same {time!r}; they follow each other as in the file."
        )
    channels = tuple(header[i] for i in keep)
    given = None if target is None else [labels[key] for key in found]
    return replace(_finished(series_found, given, where, channels=channels, notes=notes), names=tuple(found))


def _keys(where: str, column: str, moments: Iterable[str]) -> dict[str, Any]:
    """What times are sorted by: numbers, timestamps, or texts that have the same form but for their digits."""
    texts = sorted(moments)
    try:
        numbers = [float(text) for text in texts]
        if not any(math.isnan(number) for number in numbers):
            return dict(zip(texts, numbers))
    except ValueError:
        pass
    times = read_times(texts)
    if times is not None:
        return dict(zip(texts, times.tolist()))
    forms = {re.sub(r"\d", "0", text) for text in texts}
    if len(forms) > 1 or "0" not in next(iter(forms)):
        odd = next((text for text in texts if not any(c.isdigit() for c in text)), texts[-1])
        hint = "Without time=... the rows are taken in the order of the file."
        raise ValueError(sentence(where, f"the time {column!r}", "numbers or timestamps of one form", repr(odd), hint))
    return {text: text for text in texts}


def _table(text: str, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header and the rows with their line numbers; the separator is the commonest of the first line."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    if separator not in first:
        want = "a header of columns separated by commas, tabs or semicolons"
        raise ValueError(sentence(where, "a table", want, _short(first)))
    reader = csv.reader(text.split("\n"), delimiter=separator, strict=False)
    csv.field_size_limit(max(csv.field_size_limit(), 2**24))

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
        except csv.Error as error:
            raise ValueError(
                sentence(f"{where}: line {reader.line_num}", "a row", "one of a table", str(error))
            ) from None

    found = rows()
    _, header = next(found, (0, []))
    if not any(header):
        raise ValueError(sentence(where, "a table", "a header with names of columns", _short(first)))
    twice = (
        next((name for i, name in enumerate(header) if name in set(header[:i])), None) if len(header) < 1000 else None
    )
    if twice is not None:
        raise ValueError(sentence(where, "the columns", "of different names", f"{twice!r} twice"))
    return header, found


def _find_column(where: str, header: Sequence[str], column: str, role: str) -> int:
    import difflib

    if column not in header:
        near = difflib.get_close_matches(column, header[:1000], n=1)
        have = ", ".join(header[:12]) + (", ..." if len(header) > 12 else "")
        hint = f"Did you mean {near[0]}?" if near else ""
        raise ValueError(sentence(where, f"the column of {role}", f"one of {have}", repr(column), hint))
    return header.index(column)


def _label_column(where: str, header: Sequence[str], target: str | None, needed: bool = True) -> int | None:
    if target is not None:
        return _find_column(where, header, target, "target")
    small = [name.lower() for name in header]
    for name in ("label", "class", "target", "y"):
        if small.count(name) == 1:
            return small.index(name)
    if not needed:
        return None
    want = "named (target=...), or called label, class, target or y"
    raise ValueError(sentence(where, "the column of the label", want, ", ".join(header[:12])))


# --- cells -----------------------------------------------------------------------------------------------------------


def _numbers(place: str, cells: Sequence[str]) -> Array:
    """Values as float64; a missing one is NaN. The quick way first: a line may have a million cells."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        values = np.array([_number(place, i, cell) for i, cell in enumerate(cells, start=1)])
    if np.isinf(values).any():
        i = int(np.flatnonzero(np.isinf(values))[0])
        raise ValueError(sentence(place, f"value {i + 1}", "finite, or ? where it is missing", repr(cells[i].strip())))
    return values


def _number(place: str, index: int, cell: str) -> float:
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            sentence(place, f"value {index}", "a number, or ? where it is missing", _short(cell))
        ) from None


def _given(place: str, column: str, cell: str) -> str:
    if cell.lower() in MISSING:
        raise ValueError(sentence(place, column, "given in every row", repr(cell)))
    return cell


def _target(where: str, label: str, index: int) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(sentence(where, f"the target of series {index + 1}", "a finite number", repr(label)))
    return value


def _columns(channels: Sequence[Array]) -> Array:
    longest = max(len(channel) for channel in channels)
    out = np.full((longest, len(channels)), np.nan)
    for d, channel in enumerate(channels):
        out[: len(channel), d] = channel
    return out


def _finished(
    series: list[Array],
    labels: list[str] | list[float] | None,
    where: str,
    *,
    name: str = "",
    channels: tuple[str, ...] = (),
    notes: Sequence[str] = (),
) -> LabelledSeries:
    """What all forms have in common: padding at the ends goes, and what is odd is said."""
    if not series:
        raise ValueError(sentence(where, "the file", "at least one series", "none"))
    said = list(notes)
    cut: list[Array] = []
    num_cut = 0
    for values in series:
        there = np.flatnonzero(~np.isnan(values).all(1))
        if not len(there):
            raise ValueError(sentence(where, f"series {len(cut) + 1}", "one with values", "missing values only"))
        cut.append(values[: there[-1] + 1])
        num_cut += there[-1] + 1 < len(values)
    if num_cut:
        said.append(
            f"{num_cut} series ended with missing values, as padding to one length does; these steps were cut off."
        )
    lengths = [len(values) for values in cut]
    if min(lengths) != max(lengths):
        said.append(f"The series have {min(lengths)} to {max(lengths)} steps.")
    num_missing = sum(int(np.isnan(values).sum()) for values in cut)
    if num_missing:
        said.append(f"{num_missing} values are missing.")
    num_constant = sum(bool((np.nanmax(v, 0) == np.nanmin(v, 0)).all()) for v in cut if not np.isnan(v).all(0).any())
    if num_constant:
        said.append(f"{num_constant} series are constant.")
    if labels is not None and len(set(labels)) == 1:
        said.append(f"All series have one label, {labels[0]!r}: there is nothing to tell apart.")
    return LabelledSeries(cut, labels, name, channels, tuple(said))


def _has_data_line(text: str) -> bool:
    return any(line.strip().lower() == "@data" for line in islice(text.split("\n"), 10_000))


def _starts_with_numbers(text: str) -> bool:
    """Is the first line a label and numbers, so that it is no header?"""
    first = next((line for line in text.split("\n") if line.strip() and not line.startswith("#")), "")
    cells = _cells(first.strip())[1:]
    if not cells:
        return False
    try:
        np.array([cell if cell.strip().lower() not in MISSING else "nan" for cell in cells], dtype=np.float64)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
