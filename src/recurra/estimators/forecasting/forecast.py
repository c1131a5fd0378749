"""What a forecaster says about the future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...core.checks import sentence

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Forecast:
    """Forecasts of N series, H steps ahead.

    Args:
        names: of the N series.
        targets: of the C variables.
        point: (N, H, C) the forecasts, in the units of the data.
        levels: of the Q quantiles, ascending; may be empty.
        quantiles: (N, H, C, Q).
        times: (N, H) datetime64[s]; None where the data have no timestamps.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    point: np.ndarray
    levels: tuple[float, ...]
    quantiles: np.ndarray
    times: np.ndarray | None = None

    @property
    def horizon(self) -> int:
        """H."""
        return int(self.point.shape[1])

    def quantile(self, level: float) -> np.ndarray:
        """(N, H, C) of one level.

        Raises:
            ValueError: a level that was not learned.
        """
        if level not in self.levels:
            raise ValueError(sentence("Forecast", "level", f"one of {list(self.levels)}", level))
        return self.quantiles[..., self.levels.index(level)]

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Lower and upper ends (N, H, C) of the widest interval, and the part of the values it should hold."""
        if len(self.levels) < 2:
            return None
        return self.quantiles[..., 0], self.quantiles[..., -1], self.levels[-1] - self.levels[0]

    def to_frame(self) -> pd.DataFrame:
        """A table: ``series``, ``time`` (or ``step``, from 1), ``target``, ``forecast`` and a column for each quantile."""
        import pandas as pd

        num, horizon, channels = self.point.shape
        columns = {
            "series": np.repeat(np.array(self.names, dtype=object), horizon * channels),
            "target": np.tile(np.array(self.targets, dtype=object), num * horizon),
            "forecast": self.point.reshape(-1),
        }
        if self.times is None:
            columns["step"] = np.tile(np.repeat(np.arange(1, horizon + 1), channels), num)
        else:
            columns["time"] = np.repeat(self.times.reshape(-1), channels)
        for i, level in enumerate(self.levels):
            columns[f"q{level:g}"] = self.quantiles[..., i].reshape(-1)
        order = ["series", "time" if self.times is not None else "step", "target", "forecast"]
        return pd.DataFrame({name: columns[name] for name in [*order, *[f"q{level:g}" for level in self.levels]]})
