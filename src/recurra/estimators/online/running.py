"""Errors of predictions that were made before their rows were learned, beside those of a method without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RECENT = 500  # rows that the recent error reaches back
MOST_POINTS = 256  # of a curve; then each two become one
SHOWN = 300  # last rows that are kept for a picture


class Running:
    """Running errors in constant memory.

    Args:
        names: of the methods, the model first.
        squares: also the root of the mean square.

    Example:
        >>> running = Running(("model", "last value"))
        >>> for t in range(1000):
        ...     running.add([0.5, 1.0])
        >>> running.mean(), running.recent(), running.num
        ([0.5, 1.0], [0.5, 1.0], 1000)
        >>> len(running.points) <= MOST_POINTS, running.points[-1][0]
        (True, 1000)
    """

    def __init__(self, names: tuple[str, ...], *, squares: bool = False) -> None:
        self.names, self.squares = names, squares
        zeros = [0.0] * len(names)
        self.num = 0
        self.sums, self.square_sums, self.late = list(zeros), list(zeros), list(zeros)
        self.late_weight = 0.0
        self.width = 1  # rows in a point of the curve
        self.points: list[list[float]] = []  # rows so far, then the mean error of each method in this stretch
        self.open_num, self.open_sums = 0, list(zeros)

    def add(self, errors: list[float]) -> None:
        """One more row: the error of each method, at least zero."""
        self.num += 1
        keep = 1.0 - 1.0 / RECENT
        self.late_weight = keep * self.late_weight + 1.0
        for i, error in enumerate(errors):
            self.sums[i] += error
            self.late[i] = keep * self.late[i] + error
            self.open_sums[i] += error
            if self.squares:
                self.square_sums[i] += error * error
        self.open_num += 1
        if self.open_num == self.width:
            self.points.append([self.num, *(s / self.width for s in self.open_sums)])
            self.open_num, self.open_sums = 0, [0.0] * len(self.names)
            if len(self.points) == MOST_POINTS:
                pairs = zip(self.points[::2], self.points[1::2])
                self.points = [[b[0], *((x + y) / 2 for x, y in zip(a[1:], b[1:]))] for a, b in pairs]
                self.width *= 2

    def mean(self) -> list[float]:
        """Over all rows; NaN before the first."""
        return [s / self.num if self.num else math.nan for s in self.sums]

    def recent(self) -> list[float]:
        """Over the last rows, older ones counting exponentially less."""
        return [s / self.late_weight if self.num else math.nan for s in self.late]

    def root_mean_square(self) -> list[float]:
        """Over all rows, where squares are kept."""
        return [math.sqrt(s / self.num) if self.num else math.nan for s in self.square_sums]

    def pack(self) -> dict[str, Any]:
        """JSON."""
        return {name: value for name, value in vars(self).items() if name != "names"} | {"names": list(self.names)}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Running:
        """The inverse of `pack`."""
        running = cls(tuple(packed["names"]), squares=bool(packed["squares"]))
        for name, value in vars(running).items():
            if name != "names":
                setattr(running, name, type(value)(packed[name]))
        return running
