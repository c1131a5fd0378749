"""A classifier that learns from every row as it comes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_flag, check_positive, sentence
from ..core.loss import CrossEntropy
from .online.estimator import OnlineEstimator
from .online.learner import UNUSED
from .online.river import join_river
from .online.rows import Row

LAST = "last label"
FEWEST = 4  # outputs of a new net


class OnlineClassifier(OnlineEstimator):
    """Labels each row of a stream and learns from the true label when it comes, one row at a time, in constant memory.

        p_t = softmax(net(x_t, label_{t-1}))

    The net has a state, so a row is labelled in the light of those before it, their labels among them. Features are
    standardised by running means that forget exponentially. A label that was never seen becomes a class of its own.

    The calls are those of River (``learn_one``, ``predict_one``, ``predict_proba_one``) and of scikit-learn (``partial_fit``,
    ``predict``, ``predict_proba``). Names of features may be new, or missing, in any row.

    Args:
        cell: any cell of the catalog that is built from (input_size, hidden_size), with options if wanted.
        hidden_size: H.
        num_layers: cells on top of each other.
        rule: any rule of the catalog that learns from single steps: "RTRL", "UORO", "SnAp(n=1)",
            "TruncatedBPTT(k1=1, k2=16)".
        optimizer: "Adam", "SGD" or "momentum"; rules that make steps themselves need none.
        lr: learning rate; it alone may be changed by `set_params` in mid-stream.
        memory: rows that means and variances reach back.
        sees_last_label: is the label of the row before an input? False where labels come late.
        max_classes: labels at most; a row with one more is refused.
        max_features: names at most, categories counted one by one; a row with more is refused.
        seed: of the initial weights and of the rule.
    Raises:
        ValueError, TypeError: an argument out of range, at the first row. A row that is not in order is refused with one
            sentence, and the model stays as it was.
    Cost:
        A step of the rule and the net for each row; memory does not grow with the stream.
    Example:
        >>> model, right = OnlineClassifier(hidden_size=4, lr=0.01), []
        >>> for t in range(200):
        ...     x, y = {"phase": t % 2}, ("odd" if t % 4 < 2 else "even")
        ...     right.append(model.predict_one(x) == y)
        ...     model.learn_one(x, y)
        >>> sum(right[-50:]) > 40, sorted(model.predict_proba_one({"phase": 0}))
        (True, ['even', 'odd'])
    """

    kind = "online_classifier"
    beside: ClassVar[tuple[str, ...]] = ("rows_", "num_learned_", "begins_", "last_")
    spare = 4
    labels_: dict[Any, int]
    last_: int | None
    given_: bool

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
        sees_last_label: bool = True,
        max_classes: int = 100,
        max_features: int = 256,
        seed: int = 0,
    ) -> None:
        self.cell, self.hidden_size, self.num_layers = cell, hidden_size, num_layers
        self.rule, self.optimizer, self.lr = rule, optimizer, lr
        self.memory, self.sees_last_label = memory, sees_last_label
        self.max_classes, self.max_features, self.seed = max_classes, max_features, seed
        join_river(type(self), "Classifier")

    _multiclass = True

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_flag(type(self).__name__, sees_last_label=self.sees_last_label)
        check_positive(type(self).__name__, max_classes=self.max_classes)

    # --- one row ---

    def learn_one(self, x: Any, y: Any, w: float = 1.0) -> None:
        """Learn from a row and its label.

        Args:
            x: a dict of names to numbers or texts, numbers (D,), or None.
            y: a text, a whole number, True or False; None for a label that is not known, which only moves the state on.
            w: weight of its loss.

        Raises:
            ValueError, TypeError: the row is not in order.
            FloatingPointError: the net would diverge; it stays as it was.
        """
        self._learn_one(x, y, w)

    def predict_proba_one(self, x: Any) -> dict[Any, float]:
        """The probability of each label seen so far; before the first one an empty dict.

        Args:
            x: as for `learn_one`.

        Raises:
            ValueError, TypeError: the features are not in order.
        """
        self._start()
        return dict(zip(self.labels_, self._roll([x])[0]))

    def predict_one(self, x: Any) -> Any:
        """The likeliest label; before the first one None."""
        found = self.predict_proba_one(x)
        return max(found, key=found.__getitem__) if found else None

    # --- tables ---

    @property
    def classes_(self) -> np.ndarray[Any, Any]:
        """(C,) the labels: sorted, where they can be."""
        self._check_fitted("rows_")
        labels = list(self.labels_)
        try:
            labels.sort()
        except TypeError:
            found = np.empty(len(labels), object)
            found[:] = labels
            return found
        return np.array(labels)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn from rows in the order of time, as `learn_one` does from each.

        Args:
            X: (N, D), a data frame, or a list of dicts.
            y: (N,) labels, None where one is not known.
            classes: in the first call, all labels that may come; others are refused from then on. None lets classes grow.
            sample_weight: (N,).
        """
        self._start()
        if classes is not None:
            self._give(classes)
        self._fit_rows(X, y, sample_weight)
        return self

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """As `partial_fit` of a new model."""
        self._forget()
        return self.partial_fit(X, y, sample_weight=sample_weight)

    def predict_proba(self, X: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(N, C) probabilities of N rows that follow what was learned, in the order of ``classes_``.

        Nothing is learned; of the rows' own labels nothing is known, so the likeliest stands for each.
        """
        self._check_fitted("rows_")
        order = [self.labels_[label] for label in self.classes_.tolist()]
        return np.array(self._roll(self._records(X))).reshape(-1, len(order))[:, order]

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """(N,) the likeliest labels."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def score(self, X: Any, y: Any) -> float:
        """The share of right answers of `predict`."""
        return float(np.mean(self.predict(X) == np.asarray(y)))

    def __sklearn_tags__(self) -> Any:
        """See `Estimator`."""
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required, tags.classifier_tags = "classifier", True, ClassifierTags()
        return tags

    def new_sequence(self) -> None:
        """See `OnlineEstimator.new_sequence`; the label before the next one is not its predecessor."""
        super().new_sequence()
        self.last_ = None

    # --- inside ---

    def _roll(self, xs: Sequence[Any]) -> list[list[float]]:
        """The probabilities of rows that follow, in the order of ``labels_``."""
        num = len(self.labels_)
        before = self.last_
        try:
            found: list[list[float]] = []
            state = None if self.learner_ is None else self._net_state()
            for x in xs:
                row = self._look(x)
                if self.learner_ is None:
                    found.append([1 / max(1, num)] * num)
                    continue
                out, state = self.learner_.step(self._padded(row), state)
                found.append(_softmax(out.tolist()[:num]))
                if num:
                    self.last_ = max(range(num), key=found[-1].__getitem__)
            return found
        finally:
            self.last_ = before

    def _give(self, classes: Any) -> None:
        where = type(self).__name__
        labels = sorted({self._look_at_label(c) for c in classes}, key=lambda c: (type(c).__name__, c))
        if self.num_learned_ == 0 and not self.labels_ and labels:
            if len(labels) > self.max_classes:
                raise ValueError(sentence(where, "classes", f"at most max_classes={self.max_classes}", len(labels)))
            self.labels_ = {label: i for i, label in enumerate(labels)}
            self.given_ = True
        elif not self.given_ or set(labels) != set(self.labels_):
            want = "given in the first call of partial_fit, and the same ever after"
            raise ValueError(sentence(where, "classes", want, labels))

    # --- what OnlineEstimator asks ---

    def _begin(self) -> None:
        self.labels_, self.last_, self.given_ = {}, None, False

    def _loss(self) -> CrossEntropy:
        return CrossEntropy()

    def _look_at_label(self, y: Any) -> Any:
        where = type(self).__name__
        label = y.item() if isinstance(y, np.generic) or (isinstance(y, np.ndarray) and y.ndim == 0) else y
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(label, float):
            hint = "" if math.isfinite(label) else "Nothing was learned from this row."
            raise ValueError(sentence(where, "y", "a label", label, hint or "OnlineForecaster learns numbers."))
        if not isinstance(label, str | int):
            want = "a label: a text, a whole number, True or False"
            raise TypeError(sentence(where, "y", want, f"{type(y).__name__} {str(y)[:40]!r}"))
        return str(label) if isinstance(label, str) else label

    def _look_at_target(self, y: Any) -> Any:
        if y is None:
            return None
        label = self._look_at_label(y)
        if label not in self.labels_:
            where = type(self).__name__
            if self.given_:
                want = f"one of the classes given to the first partial_fit, {list(self.labels_)}"
                raise ValueError(sentence(where, "y", want, repr(label)))
            if len(self.labels_) >= self.max_classes:
                want = f"one of the {len(self.labels_)} labels seen so far"
                raise ValueError(sentence(where, "y", want, repr(label), "Raise max_classes to let more come."))
        return label

    def _look(self, x: Any) -> Row:
        row = self.rows_.look(x)
        return row if self.last_ is None or not self.sees_last_label else self.rows_.mark(row, LAST, str(self.last_))

    def _sizes(self, row: Row, y: Any) -> tuple[int, int]:
        num_classes = len(self.labels_) + (y is not None and y not in self.labels_)
        return max(1, len(self.rows_) + len(row.new)), num_classes if self.given_ else max(FEWEST, num_classes)

    def _make_room(self, row: Row, y: Any) -> Any:
        learner = super()._make_room(row, y)
        if y is not None and y not in self.labels_:
            place = self.labels_[y] = len(self.labels_)
            bias = learner.cell.linear.bias.data
            bias[place] = bias[:place].min() if place else 0.0
        return learner

    def _is_alone(self, row: Row, y: Any) -> bool:
        return super()._is_alone(row, y) or (y is not None and y not in self.labels_)

    def _grown(self) -> None:
        assert self.learner_ is not None
        self.learner_.cell.linear.bias.data[len(self.labels_) :] = UNUSED

    def _input(self, row: Row) -> list[float]:
        return self.rows_.vector(row, len(self.rows_))

    def _target(self, y: Any) -> int:
        return 0 if y is None else self.labels_[y]

    def _stack_targets(self, targets: Sequence[int]) -> Tensor:
        return torch.tensor(targets, dtype=torch.int64).reshape(-1, 1)

    def _stand_in(self, row: Row) -> None:
        return None

    def _learn_target(self, y: Any, stand_in: Any) -> None:
        self.last_ = None if y is None else self.labels_[y]

    def _pack(self) -> dict[str, Any]:
        return {"labels": list(self.labels_), "last": self.last_, "given": self.given_}

    def _unpack(self, packed: Mapping[str, Any]) -> None:
        labels, last = packed["labels"], packed["last"]
        self.labels_ = {self._look_at_label(label): i for i, label in enumerate(labels)}
        self.last_, self.given_ = last, bool(packed["given"])
        good = len(self.labels_) == len(labels) <= self.max_classes
        if not good or not (last is None or (isinstance(last, int) and 0 <= last < len(labels))):
            raise ValueError("its labels do not fit together")


def _softmax(values: list[float]) -> list[float]:
    most = max(values, default=0.0)
    parts = [math.exp(v - most) for v in values]
    total = sum(parts)
    return [p / total for p in parts]
