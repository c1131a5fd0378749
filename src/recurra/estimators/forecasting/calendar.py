"""The calendar as features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...datasets.timestamps import Step

DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
CYCLES = {"hour": DAY, "weekday": WEEK, "season": YEAR}
"""Features and the length of their cycles in seconds: the time of the day, the day of the week, the time of the year."""


def possible(step: Step | None) -> list[str]:
    """The features that change from step to step.

    Example:
        >>> possible(Step(3600, "s")), possible(Step(1, "M"))
        (['hour', 'weekday', 'season'], ['season'])
    """
    if step is None:
        return []
    whole = step.unit == "M" or step.seconds % WEEK == 0
    return [name for name, cycle in CYCLES.items() if step.seconds < 0.75 * cycle and not (whole and name == "weekday")]


def natural_periods(step: Step | None) -> list[int]:
    """Whole numbers of steps in a day, a week and a year.

    Example:
        >>> natural_periods(Step(3600, "s")), natural_periods(Step(3, "M")), natural_periods(Step(1, "B"))
        ([24, 168, 8766], [4], [5])
    """
    if step is None:
        return []
    if step.unit == "B":
        return [5]
    found = [cycle / step.seconds for cycle in CYCLES.values()]
    return [round(n) for n in found if n >= 1.9 and (abs(n - round(n)) < 0.02 or n > 40)]


def choose(step: Step | None, window: int, length: int) -> list[str]:
    """The features worth having: their cycle is longer than half the window, which shows it otherwise, and the training
    part holds at least two of them."""
    if step is None:
        return []
    return [
        name
        for name in possible(step)
        if CYCLES[name] > 0.5 * window * step.seconds and 2 * CYCLES[name] <= length * step.seconds
    ]


def features(times: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Sine and cosine of the place in each cycle, (T, 2 * len(names)).

    Example:
        >>> np.round(features(np.array(["2024-01-01T06:00"], "datetime64[s]"), ["hour"]), 3).tolist()
        [[1.0, 0.0]]
    """
    seconds = times.astype("datetime64[s]").astype("int64").astype(np.float64)
    out = np.zeros((len(times), 2 * len(names)))
    for i, name in enumerate(names):
        if name == "season":
            year = times.astype("datetime64[Y]")
            start = year.astype("datetime64[s]").astype("int64")
            size = (year + 1).astype("datetime64[s]").astype("int64") - start
            part = (seconds - start) / size
        else:
            shift = 3 * DAY if name == "weekday" else 0.0  # 1970-01-01 was a Thursday
            part = (seconds + shift) / CYCLES[name]
        out[:, 2 * i] = np.sin(2 * math.pi * part)
        out[:, 2 * i + 1] = np.cos(2 * math.pi * part)
    return out
