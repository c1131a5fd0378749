"""Lines as rows: comma-separated values, and JSON objects."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from .table import MISSING, find_delimiter, to_number
from .timestamps import read_times

Value = float | str | bool | None


@dataclass(frozen=True)
class Records:
    """How the lines of a stream are read.

    Args:
        names: of the columns; () for JSON objects, which name their own.
        delimiter: between cells; "" for JSON.

    Example:
        >>> form, is_row = Records.begin("day;sales")
        >>> form.read("2024-05-01;1,5"), is_row
        ({'day': '2024-05-01', 'sales': 1.5}, False)
        >>> form, is_row = Records.begin('{"a": 1}')
        >>> form.read('{"a": 2, "b": null}'), is_row
        ({'a': 2, 'b': None}, True)
    """

    names: tuple[str, ...]
    delimiter: str

    @classmethod
    def begin(cls, line: str, names: Sequence[str] = ()) -> tuple[Self, bool]:
        """Find the form of a stream by its first line.

        Args:
            line: the first one.
            names: of the columns, where the stream does not name them.

        Returns:
            The form, and whether this line is a row already. A line of cells of which none is a number names the columns.

        Raises:
            ValueError: names that are not as many as the cells, or that stand twice.
        """
        if line.lstrip().startswith("{"):
            return cls((), ""), True
        delimiter = find_delimiter([line])
        if delimiter == " " and not any(isinstance(_value(c, " "), float) for c in _cells(line, " ")):
            delimiter = ","  # the name of one column may have blanks in it
        cells = _cells(line, delimiter)
        if names:
            if len(names) != len(cells):
                raise ValueError(f"its first line has {len(cells)} cells, and --names has {len(names)}")
            return cls(tuple(names), delimiter), tuple(cells) != tuple(names)
        is_row = any(isinstance(_value(cell, delimiter), float) for cell in cells)
        found = tuple(f"column{i + 1}" if is_row or not cell else cell for i, cell in enumerate(cells))
        if len(set(found)) != len(found):
            raise ValueError("two columns have the same name")
        return cls(found, delimiter), is_row

    def read(self, line: str) -> dict[str, Value]:
        """A row: numbers, texts, None for what is missing.

        Raises:
            ValueError: the line is no row; says why, in a few words.
        """
        if not self.delimiter:
            return _read_object(line)
        cells = _cells(line, self.delimiter)
        if len(cells) != len(self.names):
            many = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
            raise ValueError(f"it has {many} where the stream has {len(self.names)} columns")
        return {name: _value(cell, self.delimiter) for name, cell in zip(self.names, cells)}

    def is_header(self, line: str) -> bool:
        """Does the line only name the columns?"""
        return bool(self.delimiter) and tuple(_cells(line, self.delimiter)) == self.names

    def pack(self) -> dict[str, Any]:
        """JSON."""
        return asdict(self)

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Self:
        """The inverse of `pack`."""
        return cls(tuple(map(str, packed["names"])), str(packed["delimiter"]))


def is_time(value: Value) -> bool:
    """Is it a text that says when?

    Example:
        >>> is_time("2024-05-01 12:00"), is_time("May"), is_time(2024.0)
        (True, False, False)
    """
    return isinstance(value, str) and any(c.isdigit() for c in value) and read_times([value]) is not None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        rows = list(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"its quotes or cells are not in order ({error})") from None
    return [cell.strip() for cell in rows[0]] if rows else []


def _value(cell: str, delimiter: str) -> float | str | None:
    if cell.lower() in MISSING:
        return None
    number = to_number(cell, "," if delimiter != "," and "," in cell else ".")
    if not math.isnan(number):
        return number
    infinite = cell.lower().lstrip("+-") in ("inf", "infinity")
    return float(cell) if infinite else cell


def _read_object(line: str) -> dict[str, Value]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    for name, value in found.items():
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "a list"
            raise ValueError(f"{name} is {kind}; only numbers and texts are read")
    return found
