"""A stream of rows that an online model is asked about and then learns, with running errors beside those of naive methods."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...core.checks import sentence
from ..online_classifier import OnlineClassifier
from ..online_forecaster import OnlineForecaster
from .running import SHOWN, Running

Row = Mapping[str, Any]


class Answer(NamedTuple):
    """What was said about a row before it was learned.

    Args:
        prediction: of the target; None where there was none yet.
        probability: of a label.
        truth: the target; None where the row does not know it.
        naive: what the naive method said.
    """

    prediction: Any
    probability: float | None
    truth: Any
    naive: Any


class Stream:
    """Ask, compare, learn: one row after the other.

    Args:
        model: that learns.
        target: the name of what is predicted.
        left_out: names that the model does not see.
        horizon: steps ahead of a forecaster's predictions.

    Example:
        >>> stream = Stream(OnlineForecaster(hidden_size=4), "y")
        >>> for t in range(3):
        ...     answer = stream.row({"y": 2.0})
        >>> answer.truth, answer.naive, stream.running.num
        (2.0, 2.0, 2)
    """

    def __init__(
        self, model: OnlineForecaster | OnlineClassifier, target: str, left_out: Sequence[str] = (), horizon: int = 1
    ) -> None:
        self.model, self.target, self.left_out, self.horizon = model, target, list(left_out), horizon
        self.forecasts = isinstance(model, OnlineForecaster)
        names = ("model", "last value") if self.forecasts else ("model", "commonest class", "last class")
        self.running = Running(names, squares=self.forecasts)
        self.waiting: deque[list[float]] = deque()  # forecasts of rows to come, with what was the last value then
        self.counts: dict[Any, int] = {}
        self.last: Any = None
        self.shown: deque[list[Any]] = deque(maxlen=SHOWN)

    def row(self, row: Row) -> Answer:
        """Predict the target of a row, then learn it.

        Raises:
            ValueError, TypeError: the row is not in order; nothing is changed.
        """
        if self.target not in row:
            names = ", ".join(map(repr, list(row)[:8])) or "nothing"
            raise ValueError(sentence("recurra", "a row", f"one with the target {self.target!r}", f"one with {names}"))
        truth = row[self.target]
        hidden = {self.target, *self.left_out}
        x = {name: value for name, value in row.items() if name not in hidden}
        return self._forecast(x, truth) if self.forecasts else self._classify(x, truth)

    def _forecast(self, x: Row, truth: Any) -> Answer:
        model = self.model
        assert isinstance(model, OnlineForecaster)
        known = getattr(model, "num_learned_", 0) > 0
        prediction, naive = (model.predict_one(x) if known else None), self.last
        if self.horizon > 1:
            prediction = naive = None
            if len(self.waiting) == self.horizon:
                prediction, naive = self.waiting[0]
        model.learn_one(y=truth, x=x)
        if truth is not None:
            self.last = float(truth)
        if self.horizon > 1 and self.last is not None:
            if len(self.waiting) == self.horizon:
                self.waiting.popleft()
            self.waiting.append([model.forecast(self.horizon)[-1], self.last])
        if prediction is not None and naive is not None and truth is not None:
            self.running.add([abs(prediction - truth), abs(naive - truth)])
            self.shown.append([truth, prediction])
        return Answer(prediction, None, truth, naive)

    def _classify(self, x: Row, truth: Any) -> Answer:
        model = self.model
        assert isinstance(model, OnlineClassifier)
        if isinstance(truth, float) and truth.is_integer():
            truth = int(truth)
        found = model.predict_proba_one(x)
        prediction = max(found, key=found.__getitem__) if found else None
        naive = max(self.counts, key=self.counts.__getitem__) if self.counts else None
        model.learn_one(x, truth)
        if truth is not None:
            if prediction is not None:
                self.running.add([float(guess != truth) for guess in (prediction, naive, self.last)])
                self.shown.append([truth, prediction])
            self.counts[truth] = self.counts.get(truth, 0) + 1
            self.last = truth
        return Answer(prediction, found.get(prediction) if found else None, truth, naive)

    def next_values(self, num: int) -> list[float]:
        """A forecaster's next values, as far as they are known without their features."""
        if not isinstance(self.model, OnlineForecaster) or not getattr(self.model, "num_learned_", 0):
            return []
        return self.model.forecast(num)

    def pack(self) -> dict[str, Any]:
        """JSON, without the model."""
        return {
            "target": self.target,
            "left_out": self.left_out,
            "horizon": self.horizon,
            "running": self.running.pack(),
            "waiting": [list(pair) for pair in self.waiting],
            "counts": [[label, num] for label, num in self.counts.items()],
            "last": self.last,
            "shown": [list(pair) for pair in self.shown],
        }

    @classmethod
    def unpack(cls, model: OnlineForecaster | OnlineClassifier, packed: Mapping[str, Any]) -> Stream:
        """The inverse of `pack`."""
        stream = cls(model, packed["target"], packed["left_out"], int(packed["horizon"]))
        stream.running = Running.unpack(packed["running"])
        stream.waiting = deque([float(a), float(b)] for a, b in packed["waiting"])
        stream.counts = {label: int(num) for label, num in packed["counts"]}
        stream.last = packed["last"]
        stream.shown.extend(list(pair) for pair in packed["shown"])
        return stream

    def facts(self) -> dict[str, float | None]:
        """The running errors by name, as JSON."""
        running = self.running
        parts: list[tuple[str, list[float]]] = [("", running.mean()), ("_recent", running.recent())]
        found: dict[str, float | None] = {}
        measure = "mae" if self.forecasts else "error"
        if self.forecasts:
            parts.append(("_rmse", running.root_mean_square()))
        for end, values in parts:
            for name, value in zip(running.names, values):
                key = f"{name.replace(' ', '_')}_{measure}{end}".replace(f"{measure}_rmse", "rmse")
                found[key] = value if math.isfinite(value) else None
        return found
