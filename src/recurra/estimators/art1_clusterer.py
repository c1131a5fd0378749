"""Adaptive resonance with the face of a clusterer of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..memories.art import ART1
from .estimator import Estimator


class ART1Clusterer(Estimator):
    """Clusters of binary rows, found one row at a time, that stay stable while learning goes on.

    Each cluster is described by the bits that all its rows have in common; a row joins one only if that description
    covers at least the part ``vigilance`` of its own bits, else it begins a new one. So the number of clusters is not
    given but follows from the vigilance, and what was learned is not washed away by what comes later.

    Args:
        vigilance: from 0 to 1; the higher, the more and the narrower the clusters.
        choice: above 0; small values prefer descriptions that lie wholly in the row.
        max_categories: no more clusters; rows that fit nowhere then have the label -1. None for as many as are needed.
        max_passes: passes of `fit` through the data at most; it ends when nothing changes.
        threshold: a number makes bits of any real values: 1 above it, else 0. None takes bits alone.
    Attributes:
        labels_: (M,) cluster of each row of the last `fit` or `partial_fit`; -1 for none.
        cluster_centers_: (C, K) the bits that each cluster expects.
        n_features_in_: K.
        n_iter_: passes of the last `fit`.
    Raises:
        ValueError: by `fit`: an argument out of range; without a threshold, X with other values than 0 and 1 (or booleans);
            values that are not finite, or complex.
        TypeError: a sparse matrix.
    Source:
        Carpenter & Grossberg 1987, Computer Vision, Graphics, and Image Processing 37(1):54-115; see
        `recurra.memories.ART1`
    Example:
        >>> from recurra.estimators import ART1Clusterer
        >>> X = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]])
        >>> model = ART1Clusterer(vigilance=0.6)
        >>> model.fit_predict(X).tolist()
        [0, 1, 0, 1]
        >>> model.partial_fit([[0, 1, 0, 0, 1, 0]]).cluster_centers_.shape  # something else begins a cluster of its own
        (3, 6)
    """

    def __init__(
        self,
        vigilance: float = 0.7,
        choice: float = 0.01,
        max_categories: int | None = None,
        max_passes: int = 100,
        threshold: float | None = None,
    ) -> None:
        self.vigilance = vigilance
        self.choice = choice
        self.max_categories = max_categories
        self.max_passes = max_passes
        self.threshold = threshold

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn rows (M, K) from nothing, until a pass changes nothing."""
        rows = self._rows(X)
        memory, self.n_features_in_ = self._memory(rows.shape[1]), rows.shape[1]
        check_positive("ART1Clusterer", max_passes=self.max_passes)
        self._state = memory.empty()
        before = torch.full((len(rows),), -2)
        for n in range(self.max_passes):
            new, found = memory.learn(self._state, rows)
            still = torch.equal(new.templates, self._state.templates) and torch.equal(found.category, before)
            self._state, before, self.n_iter_ = new, found.category, n + 1
            if still:
                break
        self._keep(before)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn rows (M, K), each once, on top of what is known."""
        rows = self._rows(X)
        if not hasattr(self, "_state"):
            self._state, self.n_features_in_ = self._memory(rows.shape[1]).empty(), rows.shape[1]
        self._check_width(rows)
        self._state, found = self._memory(rows.shape[1]).learn(self._state, rows)
        self._keep(found.category)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(M,) the cluster of each row; -1 where none fits."""
        self._check_fitted("labels_")
        rows = self._rows(X)
        self._check_width(rows)
        return self._memory(rows.shape[1]).recognise(self._state, rows).category.numpy()

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, then ``labels_``."""
        return self.fit(X).labels_

    def _keep(self, labels: Tensor) -> None:
        self.labels_ = labels.numpy().copy()
        self.cluster_centers_ = self._state.templates.numpy().copy()

    def _memory(self, size: int) -> ART1:
        return ART1(size, self.vigilance, self.choice, self.max_categories)

    def _rows(self, X: Any) -> Tensor:
        where = type(self).__name__
        if hasattr(X, "toarray"):
            raise TypeError(
                sentence(where, "X", "an array", "sparse input", "Sparse data are not supported: X.toarray().")
            )
        rows = np.asarray(X)
        if np.iscomplexobj(rows):
            raise ValueError(sentence(where, "X", "real", rows.dtype, "Complex data not supported."))
        if rows.ndim != 2 or rows.size == 0:
            hint = "Reshape your data: X[:, None] is one bit of many rows, X[None] one row." if rows.ndim == 1 else ""
            raise ValueError(sentence(where, "X", "(rows, bits), with at least one of each", rows.shape, hint))
        if self.threshold is None:
            if not np.isin(rows, (0, 1)).all():
                hint = "Give a threshold: what is above it is 1."
                raise ValueError(sentence(where, "X", "of 0 and 1, or booleans", "other values", hint))
            return torch.from_numpy(rows.astype(np.float32))
        if not isinstance(self.threshold, int | float | np.number) or not np.isfinite(self.threshold):
            raise ValueError(sentence(where, "threshold", "None or a finite number", repr(self.threshold)))
        rows = rows.astype(np.float64)
        if not np.isfinite(rows).all():
            raise ValueError(sentence(where, "X", "finite", "NaN or inf"))
        return torch.from_numpy((rows > self.threshold).astype(np.float32))

    def _check_width(self, rows: Tensor) -> None:
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(sentence(type(self).__name__, "X", f"(rows, {self.n_features_in_})", tuple(rows.shape)))

    def __sklearn_tags__(self) -> Any:
        """A clusterer of two-dimensional data."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="clusterer",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(positive_only=self.threshold is None),
        )
