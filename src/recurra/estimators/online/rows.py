"""Rows of a stream, dicts or arrays, as vectors of one meaning: names get places as they come, numbers are standardised."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import sentence

Name = str | int | tuple[str | int, str]
FARTHEST = 5.0  # standard deviations; what lies farther out counts as that
LARGEST = 1e150  # its square is finite


def standard(value: float, mean: float, var: float) -> float:
    """(value - mean) / sqrt(var), at most `FARTHEST` from zero; zero where nothing has varied yet.

    Example:
        >>> standard(3.0, 1.0, 4.0), standard(1e9, 1.0, 4.0), standard(3.0, 1.0, 0.0)
        (1.0, 5.0, 0.0)
    """
    spread = math.sqrt(var)
    if not spread > 1e-12 * abs(mean):
        return 0.0
    return min(FARTHEST, max(-FARTHEST, (value - mean) / spread))


def moved(mean: float, var: float, value: float, a: float) -> tuple[float, float]:
    """Mean and variance after one more value, which counts for a part ``a``.

    Example:
        >>> moved(0.0, 0.0, 3.0, 1.0), moved(3.0, 0.0, 5.0, 0.5)
        ((3.0, 0.0), (4.0, 1.0))
    """
    d = value - mean
    return mean + a * d, (1.0 - a) * (var + a * d * d)


class Row(NamedTuple):
    """A row that was looked at, and found to be in order.

    Args:
        known: place and value of what has a place.
        new: name and value of what has none yet.
    """

    known: list[tuple[int, float]]
    new: list[tuple[Name, float]]


class Rows:
    """Names with places, and the running mean and variance of what stands there.

        a = max(1 / n, 1 / memory),   d = v - mean,   mean' = mean + a d,   var' = (1 - a) (var + a d^2)

    For the first ``memory`` values this is Welford's algorithm; from then on old values are forgotten exponentially. A number
    goes to the net as (v - mean) / sqrt(var), at most `FARTHEST` from zero; what is missing goes as zero, which is the mean. A
    text in a dict is a category: a place of its own for each value, 1 or 0.

    Args:
        where: who asks, for messages.
        memory: rows that mean and variance reach back.
        max_features: places at most.
    """

    def __init__(self, where: str, memory: float, max_features: int) -> None:
        self.where, self.memory, self.max_features = where, memory, max_features
        self.places: dict[Name, int] = {}
        self.length: int | None = None  # of an array
        self.mean: list[float] = []
        self.var: list[float] = []
        self.num: list[float] = []
        self.free: list[bool] = []  # no statistics: a category

    def __len__(self) -> int:
        return len(self.places)

    # --- looking: nothing is changed ---

    def look(self, x: Any) -> Row:
        """Find the places of a row's values.

        Args:
            x: a dict of names and numbers or texts, where None is missing; a list or array (D,); or None.

        Raises:
            ValueError: NaN, infinity, an array of another length or of more dimensions, too many names.
            TypeError: no row, a value that is neither number nor text, a name that is neither text nor whole number.
        """
        if x is None:
            return Row([], [])
        if isinstance(x, Mapping):
            return self._look_at_dict(x)
        return self._look_at_array(x)

    def _look_at_dict(self, x: Mapping[Any, Any]) -> Row:
        places = self.places
        known: list[tuple[int, float]] = []
        new: list[tuple[Name, float]] = []
        for name, value in x.items():
            if value is None:
                continue
            if isinstance(value, str):
                key, number = (name, value), 1.0
            else:
                key, number = name, value if type(value) is float else self._number(f"x[{name!r}]", value)
            if not abs(number) <= LARGEST:
                raise ValueError(
                    self._not_finite(f"x[{name!r}]", number, "Leave it out, or give None, if it is missing.")
                )
            place = places.get(key) if type(name) is str or type(name) is int else self._place(name, key)
            if place is None:
                new.append((key, number))
            else:
                known.append((place, number))
        if new and len(places) + len(new) > self.max_features:
            first = new[0][0]
            text = repr(first) if not isinstance(first, tuple) else f"{first[0]!r} with the value {first[1]!r}"
            want = f"of at most {self.max_features} names (categories count one by one)"
            raise ValueError(sentence(self.where, "x", want, f"{text} on top", "Leave it out, or raise max_features."))
        return Row(known, new)

    def _place(self, name: Any, key: Name) -> int | None:
        if not isinstance(name, str | int | np.integer):
            want = "texts or whole numbers"
            raise TypeError(sentence(self.where, "the names in x", want, repr(name)))
        return self.places.get(key)

    def _look_at_array(self, x: Any) -> Row:
        try:
            values = np.asarray(x, np.float64)
        except (TypeError, ValueError):
            want = "a dict of features or numbers (D,)"
            raise TypeError(sentence(self.where, "x", want, f"{type(x).__name__} {str(x)[:40]!r}")) from None
        if values.ndim != 1 or (self.length is not None and len(values) != self.length):
            want = "(D,)" if self.length is None else f"({self.length},)"
            raise ValueError(sentence(self.where, "x", want, tuple(values.shape), "One row at a time."))
        fine = np.abs(values) <= LARGEST
        if not fine.all():
            place = int(np.flatnonzero(~fine)[0])
            hint = "A dict may leave out what is missing."
            raise ValueError(self._not_finite(f"x[{place}]", float(values[place]), hint))
        if len(values) > self.max_features:
            raise ValueError(sentence(self.where, "x", f"at most {self.max_features} numbers", len(values)))
        row: list[float] = values.tolist()
        places = self.places
        known = [(places[i], v) for i, v in enumerate(row) if i in places]
        return Row(known, [(i, v) for i, v in enumerate(row) if i not in places])

    def _number(self, name: str, value: Any) -> float:
        if not isinstance(value, numbers.Real | np.bool_):
            raise TypeError(
                sentence(self.where, name, "a number or a text", f"{type(value).__name__} {str(value)[:40]}")
            )
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def _not_finite(self, name: str, value: float, hint: str) -> str:
        return sentence(
            self.where, name, "finite" if abs(value) > 1e308 or value != value else "at most 1e150", value, hint
        )

    def vector(self, row: Row, size: int) -> list[float]:
        """(size,) what the net sees of a row: standardised by the rows before it; new names count for nothing."""
        found = [0.0] * size
        mean, var, free = self.mean, self.var, self.free
        for place, value in row.known:
            found[place] = value if free[place] else standard(value, mean[place], var[place])
        return found

    def mark(self, row: Row, name: str, value: str) -> Row:
        """The row with one more category, which no dict can name."""
        key = ("\0" + name, value)
        place = self.places.get(key)
        if place is None:
            return Row(row.known, [*row.new, (key, 1.0)])
        return Row([*row.known, (place, 1.0)], row.new)

    # --- learning ---

    def learn(self, row: Row, length: int | None) -> None:
        """Give new names their places, and move means and variances.

        Args:
            row: that was looked at.
            length: of the array that it was; None for a dict.
        """
        if row.new:
            first = len(self.places)
            added = [(first + i, value) for i, (_, value) in enumerate(row.new)]
            for name, _ in row.new:
                self.places[int(name) if isinstance(name, np.integer) else name] = len(self.places)
                for numbers_ in (self.mean, self.var, self.num):
                    numbers_.append(0.0)
                self.free.append(isinstance(name, tuple))
            row = Row(row.known + added, [])
        self.length = length or self.length
        mean, var, num, free = self.mean, self.var, self.num, self.free
        for place, value in row.known:
            if not free[place]:
                num[place] += 1.0
                a = max(1.0 / num[place], 1.0 / self.memory)
                mean[place], var[place] = moved(mean[place], var[place], value, a)

    # --- saving ---

    def pack(self) -> dict[str, Any]:
        """JSON."""
        return {
            "names": [list(name) if isinstance(name, tuple) else name for name in self.places],
            "length": self.length,
            "mean": list(self.mean),
            "var": list(self.var),
            "num": list(self.num),
        }

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Take what `pack` gave.

        Raises:
            ValueError: damaged.
        """
        names: list[Name] = [(n[0], n[1]) if isinstance(n, list) else n for n in packed["names"]]
        self.places = {name: i for i, name in enumerate(names)}
        found = [[float(v) for v in packed[key]] for key in ("mean", "var", "num")]
        good = (
            all(len(a) == len(names) and all(map(math.isfinite, a)) for a in found) and min(found[1], default=0.0) >= 0
        )
        if not good or len(self.places) != len(names) or not isinstance(packed["length"], int | None):
            raise ValueError("the names of its features and their statistics do not fit together")
        self.mean, self.var, self.num = found
        self.length = packed["length"]
        self.free = [isinstance(name, tuple) for name in names]
