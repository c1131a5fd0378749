"""A forecaster that learns from every value as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.loss import MeanSquaredError
from .online.estimator import OnlineEstimator, check_number
from .online.level import Level
from .online.river import join_river
from .online.rows import FARTHEST, Row


class OnlineForecaster(OnlineEstimator):
    """Predicts the next value of a stream and learns from it when it comes, one row at a time, in constant memory.

        y_t = anchor_t + scale_t net(y_{t-1}, r_{t-1}, x_t)        r_t = y_t - anchor_t

    The anchor is a running autoregression of order one (see `recurra.estimators.online.level.Level`): the last value for a
    series that wanders, the mean for one that does not. The net learns what the anchor gets wrong. All means, variances and
    scales forget exponentially, so that the model follows a stream that changes.

    The calls are those of River (``learn_one``, ``predict_one``, ``forecast``) and of scikit-learn (``partial_fit``,
    ``predict``). A row may hold features ``x`` that are known before the value; names may be new, or missing, in any row.

    Args:
        cell: any cell of the catalog that is built from (input_size, hidden_size), with options if wanted.
        hidden_size: H.
        num_layers: cells on top of each other.
        rule: any rule of the catalog that learns from single steps: "RTRL", "UORO", "SnAp(n=1)",
            "TruncatedBPTT(k1=1, k2=16)".
        optimizer: "Adam", "SGD" or "momentum"; rules that make steps themselves need none.
        lr: learning rate; it alone may be changed by `set_params` in mid-stream.
        memory: rows that means, variances and scales reach back.
        max_features: names at most, categories counted one by one; a row with more is refused.
        seed: of the initial weights and of the rule.
    Raises:
        ValueError, TypeError: an argument out of range, at the first row. A row that is not in order is refused with one
            sentence, and the model stays as it was.
    Cost:
        A step of the rule and the net for each row; memory does not grow with the stream.
    Example:
        >>> import math
        >>> model, errors = OnlineForecaster(hidden_size=4, lr=0.01), []
        >>> for t in range(200):
        ...     y = math.sin(t / 3)
        ...     errors.append(abs(y - model.predict_one()))
        ...     model.learn_one(y)
        >>> sum(errors[-50:]) < sum(errors[:50]), len(model.forecast(12))
        (True, 12)
    """

    kind = "online_forecaster"
    beside: ClassVar[tuple[str, ...]] = ("rows_", "num_learned_", "begins_", "level_")
    level_: Level

    def __init__(
        self,
        *,
        cell: str = "LSTMCell",
        hidden_size: int = 16,
        num_layers: int = 1,
        rule: str = "SnAp(n=1)",
        optimizer: str = "Adam",
        lr: float = 0.003,
        memory: float = 500,
        max_features: int = 256,
        seed: int = 0,
    ) -> None:
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.rule, self.optimizer, self.lr = rule, optimizer, lr
        self.memory, self.max_features, self.seed = memory, max_features, seed
        join_river(type(self), "Regressor")

    # --- one row ---

    def learn_one(self, y: Any, x: Any = None, w: float = 1.0) -> None:
        """Learn from a value.

        Args:
            y: a number; None for a value that is not known, which the state goes over with the forecast in its place.
            x: the features of its row: a dict of names to numbers or texts, numbers (D,), or None. River's regressors have
                (x, y) and its forecasters (y, x): the one that is a number is y.
            w: weight of its loss.

        Raises:
            ValueError, TypeError: the row is not in order.
            FloatingPointError: the net would diverge; it stays as it was.
        """
        if (_is_row(y) and not _is_row(x)) or (y is None and x is not None and not _is_row(x)):
            y, x = x, y
        self._learn_one(x, y, w)

    def predict_one(self, x: Any = None) -> float:
        """The value that is expected next; before anything was learned 0.

        Args:
            x: the features of its row, as for `learn_one`.

        Raises:
            ValueError, TypeError: the features are not in order.
        """
        return self.forecast(1, None if x is None else [x])[0]

    def forecast(self, horizon: int, xs: Sequence[Any] | None = None) -> list[float]:
        """The next values; each is made as if the one before it had come true. Nothing is learned.

        Args:
            horizon: how many.
            xs: the features of each of their rows; None where they are not known.

        Raises:
            ValueError, TypeError: a horizon below 1, another number of rows, features that are not in order.
        """
        where = type(self).__name__
        self._start()
        check_positive(where, horizon=horizon)
        if xs is not None and len(xs) != horizon:
            raise ValueError(sentence(where, "xs", f"features of {horizon} rows", len(xs), "One for each step ahead."))
        rows = [self._look(x) for x in ([None] * horizon if xs is None else xs)]
        level = self.level_
        if self.learner_ is None:
            return [level.anchor()] * horizon
        state, last, wrong, found = self._net_state(), level.last, level.wrong, []
        padding = [0.0] * (self.learner_.num_inputs - 2 - len(self.rows_))
        for row in rows:
            x = [*level.inputs(last, wrong), *self.rows_.vector(row, len(self.rows_)), *padding]
            out, state = self.learner_.step(x, state)
            anchor = level.anchor(last)
            wrong = level.scale * min(FARTHEST, max(-FARTHEST, float(out[0])))
            last = anchor + wrong
            found.append(last)
        return found

    def new_sequence(self) -> None:
        """See `OnlineEstimator.new_sequence`; the value before the next one is not its predecessor."""
        super().new_sequence()
        self.level_.skip(self.level_.mean)

    # --- tables ---

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from rows in the order of time, as `learn_one` does from each.

        Args:
            X: (N, D), a data frame, a list of dicts, or None for a series without features.
            y: (N,) values, None where one is not known.
            sample_weight: (N,).
        """
        self._fit_rows(X, y, sample_weight)
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """As `partial_fit` of a new model."""
        self._forget()
        return self.partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(N,) the values of N rows that follow what was learned, from their features alone: `forecast` with ``xs=X``."""
        self._check_fitted("rows_")
        rows = self._records(X)
        return np.array(self.forecast(len(rows), rows) if rows else [])

    def score(self, X: Any, y: Any) -> float:
        """R^2 of `predict`."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X)))

    def __sklearn_tags__(self) -> Any:
        """See `Estimator`."""
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required, tags.regressor_tags = "regressor", True, RegressorTags()
        return tags

    # --- what OnlineEstimator asks ---

    def _begin(self) -> None:
        self.level_ = Level(float(self.memory))

    def _loss(self) -> MeanSquaredError:
        return MeanSquaredError()

    def _look_at_target(self, y: Any) -> float | None:
        return None if y is None else check_number(type(self).__name__, "y", y)

    def _look(self, x: Any) -> Row:
        return self.rows_.look(x)

    def _sizes(self, row: Row, y: Any) -> tuple[int, int]:
        return 2 + len(self.rows_) + len(row.new), 1

    def _input(self, row: Row) -> list[float]:
        return [*self.level_.inputs(), *self.rows_.vector(row, len(self.rows_))]

    def _target(self, y: float | None) -> float:
        return 0.0 if y is None else self.level_.target(y)

    def _stack_targets(self, targets: Sequence[float]) -> Tensor:
        return torch.tensor(targets, dtype=torch.float64).reshape(-1, 1, 1)

    def _stand_in(self, row: Row) -> float:
        assert self.learner_ is not None
        out, _ = self.learner_.step(self._padded(row), self._net_state())
        return self.level_.anchor() + self.level_.scale * min(FARTHEST, max(-FARTHEST, float(out[0])))

    def _learn_target(self, y: float | None, stand_in: float | None) -> None:
        if y is not None:
            self.level_.learn(y)
        elif stand_in is not None:
            self.level_.skip(stand_in)

    def _pack(self) -> dict[str, Any]:
        return self.level_.pack()

    def _unpack(self, packed: Mapping[str, Any]) -> None:
        self.level_ = Level.unpack(packed)


def _is_row(value: Any) -> bool:
    """Is it features, and no number?"""
    return isinstance(value, Mapping | list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
