"""Tables as people have them: CSV and TSV in any dialect, read with every guess and every repair said."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.checks import check_choice, sentence
from .timestamps import read_times

WHERE = "read_table"
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", ".", "#n/a", "missing"})
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blank"}
MAX_COLUMNS = 100_000
LONGEST_CELL = 131_072  # letters
MAX_BYTES = 4 * 2**30
_PLAIN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d+),\d+([eE][-+]?\d+)?")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
_SPACES = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f](?=\d{3}(\D|$))")  # 12 345,6
_TOLERATED = 0.1


@dataclass(frozen=True)
class Table:
    """A table with named columns and what was guessed and repaired while it was read.

    Args:
        columns: name -> float64 (NaN is missing), datetime64 in seconds or finer (NaT is missing) or text (object, "" is
            missing); all (N,).
        notes: one sentence for each guess or repair that may matter.
        name: where it came from, for messages.
    """

    columns: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    name: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def of_kind(self, kind: str) -> list[str]:
        """Names of the columns that hold "numbers", "times" or "text"."""
        letters = {"numbers": "f", "times": "M", "text": "O"}
        return [name for name, column in self.columns.items() if column.dtype.kind == letters[kind]]


def read_table(
    path: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
) -> Table:
    """Read a text table (plain or gzip) and say what was guessed.

    Args:
        path: the file.
        delimiter: between cells: a comma, semicolon, tab, bar or blank; None finds out.
        decimal: "." or ","; None finds out.
        encoding: None finds out: a mark at the beginning, else UTF-8, else Windows-1252.
        header: is the first row the names? None finds out.

    Returns:
        A `Table`. Cells such as ``NA``, ``?`` or nothing are missing. A column is numbers where at least nine of ten cells
        are, the others being read as missing with a note; timestamps where all cells are; else text.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a folder, an empty or binary file, a damaged archive, a table that cannot be told apart from rubbish:
            rows longer than the header, no data rows, more columns than 100,000.
    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "sales.csv"
        >>> _ = path.write_text("Tag;Menge\\n01.02.2024;1,5\\n02.02.2024;NA\\n")
        >>> table = read_table(path)
        >>> table.columns["Menge"].tolist(), table.of_kind("times")
        ([1.5, nan], ['Tag'])
        >>> folder.cleanup()
    """
    path = Path(path)
    notes: list[str] = []
    text = _decode(_bytes(path), path, encoding, notes)
    if delimiter is not None:
        check_choice(WHERE, "delimiter", delimiter, tuple(DELIMITERS))
    if decimal is not None:
        check_choice(WHERE, "decimal", decimal, (".", ","))
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if start is None:
        raise ValueError(
            sentence(WHERE, str(path), "a table", "an empty file" if not text.strip() else "only comments")
        )
    lines = lines[start:]
    csv.field_size_limit(LONGEST_CELL)  # of the whole process: other readers set their own
    chosen = delimiter or find_delimiter(lines[:200])
    rows = list(_rows(lines, chosen, path, start))
    if not rows:
        raise ValueError(sentence(WHERE, str(path), "a table", "only delimiters"))
    if start:
        notes.append(f"{start} lines of comment or nothing at the beginning were skipped.")
    if chosen != "," and delimiter is None:
        notes.append(f"Cells are separated by a {DELIMITERS[chosen]}.")
    return _table(rows, path, decimal, header, chosen, notes)


def _bytes(path: Path) -> bytes:
    """What stands in the file, unpacked."""
    if not path.exists():
        raise FileNotFoundError(sentence(WHERE, str(path), "a file", "nothing there"))
    if path.is_dir():
        raise ValueError(sentence(WHERE, str(path), "a file", "a folder"))
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(sentence(WHERE, str(path), "at most 4 GiB", f"{path.stat().st_size / 2**30:.1f} GiB"))
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = "It is damaged or was cut off."
        raise ValueError(
            sentence(WHERE, str(path), "a whole gzip file", str(error) or "an end too early", hint)
        ) from None
    except OSError as error:
        raise ValueError(sentence(WHERE, str(path), "readable", error.strerror or str(error))) from None
    if len(data) > MAX_BYTES:
        raise ValueError(sentence(WHERE, str(path), "at most 4 GiB", "more, unpacked"))
    if not data:
        raise ValueError(sentence(WHERE, str(path), "a table", "an empty file"))
    return data


def _decode(data: bytes, path: Path, encoding: str | None, notes: list[str]) -> str:
    """The text of the bytes; binary files are refused."""
    if encoding is None:
        for mark, name in (
            (codecs.BOM_UTF8, "utf-8-sig"),
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if data.startswith(mark):
                encoding = name
                break
    if encoding is None or encoding == "utf-8-sig":
        control = sum(data.count(bytes([c])) for c in range(32) if c not in (9, 10, 11, 12, 13, 26))
        if (
            b"\0" in data
            or control > 0.01 * len(data)
            or data.startswith((b"PK\x03\x04", b"%PDF", b"PAR1", b"\x89PNG"))
        ):
            hint = "Save a spreadsheet as CSV first." if data.startswith(b"PK") else "It holds bytes that no text has."
            raise ValueError(sentence(WHERE, str(path), "a text table", "a binary file", hint))
    try:
        return data.decode(encoding or "utf-8")
    except LookupError:
        raise ValueError(
            sentence(WHERE, "encoding", "one that Python knows, such as 'utf-8'", repr(encoding))
        ) from None
    except UnicodeDecodeError as error:
        if encoding is not None:
            hint = f"Byte {error.start} cannot be read."
            raise ValueError(
                sentence(WHERE, str(path), f"text in {encoding.removesuffix('-sig')}", "other bytes", hint)
            ) from None
    high = sum(data.count(bytes([c])) for c in range(0x80, 0xA0))
    if high > 0.05 * len(data):
        raise ValueError(sentence(WHERE, str(path), "a text table", "a binary file", "It is no text in UTF-8."))
    notes.append("The file is not UTF-8: it was read as Windows-1252. Names with accents may look wrong.")
    return data.decode("cp1252", errors="replace")


def find_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts the most lines into the same number of cells, at least two; a comma where none does.

    Example:
        >>> find_delimiter(["a;b", "1,5;2", "2,5;3"])
        ';'
    """
    best, best_score = ",", 0.0
    filled = [line for line in lines if line.strip()][:100]
    for mark in DELIMITERS:
        try:
            if mark == " ":
                counts = [len(line.split()) for line in filled]
            else:
                counts = [len(row) for row in csv.reader(filled, delimiter=mark) if row]
        except csv.Error:
            continue
        if not counts:
            continue
        width, number = Counter(counts).most_common(1)[0]
        if width < 2 or (mark == " " and number < 0.9 * len(counts)):  # prose has blanks too
            continue
        # Decimal commas cut lines too, but not the header, and blanks stand inside timestamps: both come second.
        score = number / len(counts) * (1 + 0.1 * math.log(width)) * (0.5 if mark == " " else 1.0)
        if mark == "," and counts[0] != width:
            score *= 0.5
        if score > best_score + 1e-9:
            best, best_score = mark, score
    return best


def _rows(lines: Sequence[str], mark: str, path: Path, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank."""
    if mark == " ":
        for i, line in enumerate(lines):
            if line.strip():
                yield i + skipped + 1, line.split()
        return
    reader = csv.reader((line + "\n" for line in lines), delimiter=mark, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if len(cells) > MAX_COLUMNS and any(cells[MAX_COLUMNS:]):
                raise ValueError(sentence(WHERE, str(path), f"at most {MAX_COLUMNS:,} columns", f"{len(cells):,}"))
            if any(cells):
                yield reader.line_num + skipped, cells
    except csv.Error as error:
        hint = "A quotation mark that is never closed is the usual reason."
        raise ValueError(
            sentence(WHERE, str(path), "a table", f"an error near line {reader.line_num + skipped} ({error})", hint)
        ) from None


def _table(
    rows: list[tuple[int, list[str]]], path: Path, decimal: str | None, header: bool | None, mark: str, notes: list[str]
) -> Table:
    """Columns out of rows of cells."""
    width = max(_filled(cells) for _, cells in rows)
    sample = [cells[:width] + [""] * (width - len(cells)) for _, cells in rows[:200]]
    decimal = decimal or _find_decimal(sample, mark)
    if decimal == ",":
        notes.append("Numbers are read with a decimal comma.")
    if header is None:
        header = _has_header(sample, decimal)
        if not header:
            notes.append("The first row holds data, no names: the columns are called column_1, column_2 and so on.")
    names = _names(rows[0][1][:width] if header else [], width, notes)
    body = rows[1:] if header else rows
    if not body:
        raise ValueError(sentence(WHERE, str(path), "a table with data", "only a row of names"))
    named = _filled(rows[0][1]) if header else width
    if named < width:
        # One name too few is an unnamed index in front; any other row that is too long is not understood.
        if named == width - 1 and all(_filled(cells) == width for _, cells in body):
            names = ["index", *names[:-1]]
            notes.append("The names are one fewer than the columns: the first column is called index.")
        else:
            line, cells = next((line, cells) for line, cells in body if _filled(cells) > named)
            raise ValueError(sentence(WHERE, f"{path}, line {line}", f"at most {named} cells", _filled(cells)))
    short = sum(len(cells) < width for _, cells in body)
    if short:
        notes.append(f"{short:,} of {len(body):,} rows are shorter than the others: what they lack is missing.")
    columns = {}
    padded = [cells if len(cells) >= width else cells + [""] * (width - len(cells)) for _, cells in body]
    for i, name in enumerate(names):
        columns[name] = read_column(name, [cells[i] for cells in padded], decimal, notes)
    return Table(columns, tuple(notes), str(path))


def _filled(cells: Sequence[str]) -> int:
    """Cells up to the last one that is not empty."""
    return next((i + 1 for i in range(len(cells) - 1, -1, -1) if cells[i]), 0)


def _names(given: Sequence[str], width: int, notes: list[str]) -> list[str]:
    """A different name for every column."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    taken = set(given)
    for i in range(width):
        name = given[i] if i < len(given) and given[i] else f"column_{i + 1}"
        seen[name] += 1
        if seen[name] > 1:
            fresh = next(f"{name}_{k}" for k in range(seen[name], width + 3) if f"{name}_{k}" not in taken)
            notes.append(f"Two columns are called {name!r}: the later one is now {fresh!r}.")
            name = fresh
            taken.add(fresh)
        names.append(name)
    return names


def _find_decimal(sample: Sequence[Sequence[str]], mark: str) -> str:
    """A comma where cells such as 1,5 are commoner than 1.5."""
    if mark == ",":
        quoted = sum(bool(_COMMA.fullmatch(c)) and not _THOUSANDS.fullmatch(c) for cells in sample for c in cells)
        points = sum(bool(re.fullmatch(r"[-+]?\d+\.\d+", c)) for cells in sample for c in cells)
        return "," if quoted > points else "."
    commas = sum(bool(_COMMA.fullmatch(_closed(c))) for cells in sample for c in cells)
    points = sum(bool(re.fullmatch(r"[-+]?\d*\.\d+", _closed(c))) for cells in sample for c in cells)
    return "," if commas > points else "."


def _has_header(sample: Sequence[Sequence[str]], decimal: str) -> bool:
    """Does the first row look unlike the rows below it?"""
    first, below = sample[0], sample[1:]
    if not any(first):
        return False
    numeric = [bool(cell) and not math.isnan(to_number(cell, decimal)) for cell in first]
    if not below:
        return not any(numeric)
    if all(numeric[i] for i, cell in enumerate(first) if cell):
        # Numbers as names of columns are rare; they are believed where the corner is empty and the column below is not.
        return len(first) > 1 and not first[0] and all(row[0] for row in below)
    for i, cell in enumerate(first):
        column = [row[i] for row in below if row[i] and row[i].lower() not in MISSING]
        if not cell or not column or cell.lower() in MISSING:
            continue
        numbers = sum(not math.isnan(to_number(c, decimal)) for c in column)
        if numbers >= (1 - _TOLERATED) * len(column) and not numeric[i] and read_times([cell]) is None:
            return True
        if read_times([cell]) is None and read_times(column) is not None:
            return True
        if numbers >= (1 - _TOLERATED) * len(column) and numeric[i]:
            return False
        if read_times([cell]) is not None and read_times(column) is not None:
            return False
    return len(set(filter(None, first))) == sum(map(bool, first)) and not any(numeric)


def _closed(cell: str) -> str:
    """Without the blanks between groups of three digits; the long minus as the short one."""
    return cell if " " not in cell and cell.isascii() else _SPACES.sub("", cell).replace("\u2212", "-")


def to_number(cell: str, decimal: str = ".") -> float:
    """The number that a cell says; NaN for anything else.

    Example:
        >>> to_number("1.234,5", ","), to_number("1,234.5"), to_number("3e-2"), to_number("abc")
        (1234.5, 1234.5, 0.03, nan)
    """
    cell = _closed(cell)
    if decimal == ",":
        if _COMMA.fullmatch(cell) or re.fullmatch(r"[-+]?\d{1,3}(\.\d{3})+", cell):
            cell = cell.replace(".", "").replace(",", ".")
    elif _THOUSANDS.fullmatch(cell):
        cell = cell.replace(",", "")
    return float(cell) if _PLAIN.fullmatch(cell) else math.nan


def read_column(name: str, cells: Sequence[str], decimal: str, notes: list[str]) -> np.ndarray:
    """Numbers, timestamps or text; what is done about odd cells goes into ``notes``."""
    filled = [(i, cell) for i, cell in enumerate(cells) if cell.lower() not in MISSING]
    values = np.full(len(cells), math.nan)
    if not filled:
        return values
    odd = []
    with np.errstate(over="ignore"):
        for i, cell in filled:
            values[i] = to_number(cell, decimal)
            if not math.isfinite(values[i]):
                values[i] = math.nan
                odd.append((i, cell))
    if len(odd) <= _TOLERATED * len(filled):
        if odd:
            what = (
                f"{len(odd):,} cells of column {name!r} are no numbers"
                if len(odd) > 1
                else f"One cell of column {name!r} is no number"
            )
            notes.append(f"{what} (row {odd[0][0] + 1}: {odd[0][1][:40]!r}): read as missing.")
        return values
    kept = {i for i, _ in filled}
    times = read_times([cell if i in kept else "" for i, cell in enumerate(cells)])
    if times is not None:
        return times
    text = np.empty(len(cells), dtype=object)
    text[:] = [cell if i in kept else "" for i, cell in enumerate(cells)]
    return text
