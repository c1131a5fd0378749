"""What is this file: a text, a table with a time, labelled series, labelled texts?"""

from __future__ import annotations

import csv
import gzip
import math
import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

from ..core.checks import sentence
from .labelled_text import LABEL_NAMES, TEXT_NAMES
from .timestamps import read_times

Kind = Literal["text", "table", "labelled_series", "labelled_text"]
SAMPLE_BYTES = 1 << 18
LONG_BYTES = 1 << 26  # of a file whose first lines are longer than the sample
FIRST_LINES = 3
MOST_COLUMNS = 1000
DELIMITERS = (",", "\t", ";", "|", " ")
MAX_CLASSES = 60
_LABEL = re.compile(r"([A-Za-z][\w.+-]*)(?::[\w.+-]+)*:\S*\s+\S")


class FileKind(NamedTuple):
    """kind: "text", "table" (rows in time), "labelled_series" or "labelled_text"; why: in a few words."""

    kind: Kind
    why: str


def kind_of_file(path: str | os.PathLike[str], *, target: str | None = None) -> FileKind:
    """Find out from the first quarter of a megabyte, or from the first lines if they are longer, what a file is.

        labelled_series   a line "@data" (.ts), or lines of numbers with a class first, or a target that is no number
        labelled_text     every line is LABEL<TAB>text or LABEL:fine text, or a table with columns such as text and label
        table             the same number of cells in (nearly) every line, and a column of numbers or times
        text              anything else that is text

    Args:
        path: of the file, plain or gzip.
        target: the column that shall be predicted, where the user named one.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a folder, an empty or binary file; a target for something that has no columns.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "a.csv")
        >>> _ = path.write_text("day,sales\\n2024-01-01,3\\n2024-01-02,4\\n")
        >>> kind_of_file(path).kind
        'table'
        >>> folder.cleanup()
    """
    path = Path(path)
    lines = [line for line in _sample(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(sentence("recurra", str(path), "a file with something in it", "nothing but blank lines"))
    marks = {line.split()[0].lower() for line in lines if line.startswith("@")}
    if "@attribute" in marks:
        hint = "Save it as CSV first."
        raise ValueError(
            sentence("recurra", str(path), "a text, a table or series that Recurra reads", "an ARFF file", hint)
        )
    if path.suffix.lower() == ".ts" or "@data" in marks:
        return FileKind("labelled_series", "it is in the format of the UCR and UEA archives (.ts)")
    columns = _columns(lines)
    if columns is None or len(columns) == 1:
        if target is not None and (columns is None or columns[0][0].strip() != target):
            hint = "It looks like a text without columns."
            raise ValueError(sentence("recurra", "--target", f"a column of {path}", repr(target), hint))
        found = _marked(lines)
        if found:
            return FileKind("labelled_text", found)
        if columns is not None:
            return FileKind("table", "every line is a number")
        return FileKind("text", "it has no columns")
    return _of_table(path, columns, target)


def _of_table(path: Path, columns: list[list[str]], target: str | None) -> FileKind:
    num = len(columns)
    if num > 2 * MOST_COLUMNS:  # the first and the last ones, and those whose names say something
        telling = {*LABEL_NAMES, *TEXT_NAMES, (target or "").strip().lower()}
        middle = [c for c in columns[MOST_COLUMNS:-MOST_COLUMNS] if c[0].strip().lower() in telling]
        columns = [*columns[:MOST_COLUMNS], *middle, *columns[-MOST_COLUMNS:]]
    names = [column[0].strip() for column in columns]
    has_header = not any(_number(name) for name in names)
    bodies = [column[1:] if has_header else column for column in columns]
    numbers = [_share(body) >= 0.8 for body in bodies]
    if has_header and target is not None and target not in names:
        have = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        raise ValueError(sentence("recurra", "--target", f"a column of {path} ({have})", repr(target)))
    if not has_header:
        first = Counter(cell.strip() for cell in bodies[0])
        if (
            len(columns) >= 8
            and len(first) <= min(MAX_CLASSES, max(2, len(bodies[0]) // 2))
            and all(numbers[1:])
            and all(map(_is_class, first))
        ):
            return FileKind("labelled_series", f"each line is a class ({len(first)} different) and {num - 1:,} numbers")
        if len(columns) == 2 and not any(numbers):
            return FileKind("labelled_text", "each line is a label and a text")
        return FileKind("table", f"it has {num:,} columns of numbers")
    times = [name for name, body in zip(names, bodies) if _is_time(body)]
    low = [name.lower() for name in names]
    place = names.index(target) if target is not None else next((low.index(n) for n in LABEL_NAMES if n in low), None)
    is_label = place is not None and (not numbers[place] and names[place] not in times)
    texts = [
        i
        for i, body in enumerate(bodies)
        if i != place and not numbers[i] and names[i] not in times and _is_prose(body)
    ]
    named = [i for i in range(len(names)) if low[i] in TEXT_NAMES and i in texts]
    if place is not None and (named or (texts and target is not None)) and not (times and not is_label):
        return FileKind(
            "labelled_text",
            f"it has a column of texts ({names[(named or texts)[0]]}) and one of labels ({names[place]})",
        )
    if is_label and sum(numbers) >= 1:
        return FileKind("labelled_series", f"it is a table whose column {names[place or 0]} is a class")
    if not any(numbers):
        if target is None:
            return FileKind("text", "none of its columns holds numbers")
        raise ValueError(sentence("recurra", str(path), "a table with a column of numbers or of texts", "neither"))
    if place is not None and not times and low[place] in ("label", "class") and len(columns) >= 8 and all(numbers):
        classes = Counter(cell.strip() for cell in bodies[place])
        if 2 <= len(classes) <= min(MAX_CLASSES, len(bodies[0]) // 3) and all(map(_is_class, classes)):
            what = f"it is a table whose column {names[place]} is a class ({len(classes)} different)"
            return FileKind("labelled_series", what)
    if times:
        return FileKind("table", f"it is a table with the time in column {times[0]}")
    count = f"{sum(numbers):,}" if num == len(columns) else f"more than {sum(numbers):,}"
    return FileKind("table", f"it is a table with {count} column{'s' * (sum(numbers) != 1)} of numbers")


def _sample(path: Path) -> str:
    """The beginning of the file as text, without the last, broken line."""
    if not path.exists():
        raise FileNotFoundError(sentence("recurra", str(path), "a file", "nothing there"))
    if path.is_dir():
        raise ValueError(sentence("recurra", str(path), "a file", "a folder"))
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as stream:
            data = stream.read(SAMPLE_BYTES)
            while len(data) >= SAMPLE_BYTES and data.count(b"\n") < FIRST_LINES and len(data) < LONG_BYTES:
                more = stream.read(len(data))
                if not more:
                    break
                data += more
            whole = not stream.read(1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ValueError(sentence("recurra", str(path), "a whole gzip file", "a damaged one")) from None
    if not data:
        raise ValueError(sentence("recurra", str(path), "a file with something in it", "an empty file"))
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        text = data[: len(data) // 4 * 4].decode("utf-32", errors="replace")
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data[: len(data) // 2 * 2].decode("utf-16", errors="replace")
    else:
        if b"\0" in data:
            hint = "Unpack an archive, save a spreadsheet as CSV." if data.startswith(b"PK") else ""
            raise ValueError(
                sentence("recurra", str(path), "a text or a table", "a binary file (it has zero bytes)", hint)
            )
        try:
            text = data.decode("utf-8-sig") if whole else data.decode("utf-8-sig", errors="ignore")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    return text if whole or "\n" not in text else text[: text.rindex("\n")]


def _columns(lines: list[str]) -> list[list[str]] | None:
    """The cells by column, if nearly all lines have as many and one column is numbers, times or short labels."""
    lines = [line for line in lines if not line.startswith(("#", "@"))][:2000]
    if not lines:
        return None
    best: list[list[str]] | None = None
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
            if delimiter == " ":  # any white space, and numbers only: prose has blanks too
                rows = [line.split() for line in lines]
                if _share([cell for row in rows[1:50] for cell in row]) < 0.95:
                    continue
        except csv.Error:
            continue
        count, times = Counter(len(row) for row in rows).most_common(1)[0]
        ragged_end = _ragged_numbers(rows, count)
        if count < 2 or not (times >= 0.95 * len(rows) or ragged_end):
            continue
        width = max(len(row) for row in rows) if ragged_end else count
        kept = [row + [""] * (width - len(row)) for row in rows if len(row) == count or ragged_end]
        columns = [list(column) for column in zip(*kept)]
        if _looks_tabular(columns) and (best is None or len(columns) > len(best)):
            best = columns
    if best is None and _share(lines[1:] or lines) >= 0.95:
        return [lines]
    return best


def _ragged_numbers(rows: list[list[str]], count: int) -> bool:
    """Series of different lengths, one a line: all cells but the first are numbers."""
    cells = [cell for row in rows[:50] for cell in row[1:]]
    return count >= 8 and len(rows) > 1 and bool(cells) and _share(cells) >= 0.95


def _looks_tabular(columns: list[list[str]]) -> bool:
    bodies = [column[1:] for column in columns]
    if not bodies[0]:
        return False
    if any(_share(body) >= 0.8 or _is_time(body) for body in bodies):
        return True
    names = {column[0].strip().lower() for column in columns}
    return bool(names & set(TEXT_NAMES)) and bool(names & set(LABEL_NAMES))


def _marked(lines: list[str]) -> str:
    """Are all lines LABEL<TAB>text, or LABEL:fine text? Says which; else nothing."""
    few = max(2, min(100, len(lines) // 4))
    if len(lines) >= 4 and all(line.count("\t") == 1 for line in lines):
        sides = [{side.strip() for side in column} for column in zip(*(line.split("\t") for line in lines))]
        if min(len(side) for side in sides) <= few:
            return "each line is a label and a text with a tab between"
    found = [_LABEL.match(line) for line in lines]
    if len(lines) >= 8 and all(found) and len({m[1] for m in found if m}) <= few:
        return "each line is LABEL:text"
    return ""


def _number(cell: str) -> bool:
    text = cell.strip().replace(",", ".", 1) if cell.count(",") == 1 and "." not in cell else cell.strip()
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_class(cell: str) -> bool:
    """A word or a whole number."""
    return not _number(cell) or float(cell.replace(",", ".")).is_integer()


def _share(cells: list[str]) -> float:
    """Which part of the cells that are not missing is numbers?"""
    there = [c for c in cells if c.strip() and c.strip().lower() not in ("na", "nan", "null", "none", "?", "n/a", "-")]
    return sum(map(_number, there)) / len(there) if there else 0.0


def _is_time(cells: list[str]) -> bool:
    there = [c for c in cells if c.strip()][:200]
    return bool(there) and not _share(there) and read_times(there) is not None


def _is_prose(cells: list[str]) -> bool:
    there = [c for c in cells if c.strip()]
    return bool(there) and sum(" " in c.strip() for c in there) >= 0.5 * len(there)
