"""What a forecaster would say without a net, and the scale of what it gets wrong: the net learns the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from .rows import FARTHEST, moved, standard

SETTLED = 10  # values before the scale is trusted


@dataclass
class Level:
    """A running autoregression of order one, with exponential forgetting.

        phi = c_1 / var, from 0 to 1       anchor_t = mean + phi (y_{t-1} - mean)       r_t = y_t - anchor_t

    For values that wander, phi is near 1 and the anchor the last value; for values without memory it is the mean. The net's
    target is r_t / scale, scale^2 being the running mean of r_t^2. A value that is more than `FARTHEST` scales off counts as
    that far, so that a single wrong reading moves little; a second one after it is believed.

    Args:
        memory: values that all means reach back.
        num: values seen.
        mean, var: of the values.
        product: running mean of (y_t - mean) (y_{t-1} - mean).
        last: the last value, as it was counted.
        wrong: r of the last value.
        square: scale^2.
        was_far: was the last value farther off than `FARTHEST` scales?

    Example:
        >>> level = Level(100)
        >>> for t in range(200):
        ...     level.learn(float(t))
        >>> round(level.anchor(), 1) > 190, level.last
        (True, 199.0)
    """

    memory: float
    num: float = 0.0
    mean: float = 0.0
    var: float = 0.0
    product: float = 0.0
    last: float = 0.0
    wrong: float = 0.0
    square: float = 0.0
    was_far: float = 0.0

    def anchor(self, last: float | None = None) -> float:
        """The value that is expected after ``last`` (None: the last one seen)."""
        if not self.var > 0.0:
            return self.mean
        phi = min(1.0, max(0.0, self.product / self.var))
        return self.mean + phi * ((self.last if last is None else last) - self.mean)

    @property
    def scale(self) -> float:
        """Of what the anchor gets wrong; 1 as long as that is nothing."""
        return math.sqrt(self.square) if self.square > 1e-24 * self.mean * self.mean else 1.0

    def inputs(self, last: float | None = None, wrong: float | None = None) -> list[float]:
        """What the net sees of the past: the last value and how wrong the anchor was, both standardised."""
        last, wrong = (self.last if last is None else last), (self.wrong if wrong is None else wrong)
        return [standard(last, self.mean, self.var), min(FARTHEST, max(-FARTHEST, wrong / self.scale))]

    def target(self, y: float) -> float:
        """r / scale of a value that comes next."""
        return min(FARTHEST, max(-FARTHEST, (y - self.anchor()) / self.scale))

    def learn(self, y: float) -> None:
        """Go on by one value."""
        self.num += 1.0
        if self.num == 1.0:
            self.mean = self.last = y
            return
        a, b = max(1.0 / self.num, 1.0 / self.memory), max(1.0 / (self.num - 1.0), 1.0 / self.memory)
        self.wrong = y - self.anchor()
        most = FARTHEST * math.sqrt(self.square) if self.num > SETTLED and self.square > 0.0 else math.inf
        bounded = min(most, max(-most, self.wrong))
        self.square += b * (bounded * bounded - self.square)
        is_far = abs(self.wrong) > most
        if is_far and not self.was_far:
            y = self.anchor() + bounded
        self.was_far = float(is_far)
        before = self.last - self.mean
        self.mean, self.var = moved(self.mean, self.var, y, a)
        self.product += a * (before * (y - self.mean) - self.product)
        self.last = y

    def skip(self, y: float) -> None:
        """Go on by a value that was not seen; ``y`` stands in for it."""
        self.last, self.wrong = y, 0.0

    def pack(self) -> dict[str, float]:
        """JSON."""
        return asdict(self)

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Self:
        """The inverse of `pack`.

        Raises:
            ValueError: damaged.
        """
        values = {f.name: float(packed[f.name]) for f in fields(cls)}
        if not all(map(math.isfinite, values.values())) or min(values["var"], values["square"]) < 0:
            raise ValueError("the statistics of its target are no numbers")
        return cls(**values)
