"""A number, or several, for each sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.checks import sentence
from ..core.loss import Loss, MeanSquaredError, SequenceLoss
from .sequence_estimator import Numbers, SequenceEstimator
from .sequence_network import MemberSquaredError
from .sequence_series import check_size, real_numbers


@dataclass(eq=False, repr=False)
class SequenceRegressor(SequenceEstimator):
    """Predicts a number, or O of them, from a sequence: a numeric series of one or more channels, or a text.

        h_1 .. h_T = cell(x_1 .. x_T)   (in both directions; before it, convolutions)
        y = centre + spread 1/M sum_m W_m pool(h)                                     of M nets

    The targets' centre and spread are found in what is trained on. All arguments are those of `SequenceClassifier`.

    Raises:
        ValueError: from `fit`: an argument out of range; targets that are no numbers; sequences that cannot be read.
    Source:
        As `SequenceClassifier`.
    Cost:
        As `SequenceClassifier`.
    Example:
        >>> rng = np.random.default_rng(0)
        >>> speeds = rng.uniform(0.2, 1.0, 32)
        >>> X = [np.sin(np.arange(20) * speed) for speed in speeds]
        >>> model = SequenceRegressor(hidden_size=8, num_models=1, num_updates=150, convolutions="8x5").fit(X, speeds)
        >>> model.score(X, speeds) > 0.8
        True
    """

    kind: ClassVar[str] = "sequence_regressor"
    _estimator_type: ClassVar[str] = "regressor"

    # --- using a model ---

    def predict(self, X: Any) -> Numbers:
        """(N,), or (N, O) if the training targets were.

        Args:
            X: as for `fit`.

        Raises:
            TypeError: sequences of another kind than in training.
            ValueError: not fitted, or sequences that cannot be read.
        """
        self._check_fitted()
        sequences, _ = self._like_training(X)
        found = self._numbers(self._outputs(sequences))
        return found[:, 0] if self.is_single_ else found

    def score(self, X: Any, y: Any) -> float:
        """R^2, the part of the variance that is explained: 1 - sum (y - y')^2 / sum (y - mean)^2, the mean over targets.

        Args:
            X: as for `fit`.
            y: (N,) or (N, O).
        """
        return float(self.evaluate(X, y)["r2"])

    def evaluate(self, X: Any, y: Any, *, num_worst: int = 10) -> dict[str, Any]:
        """Errors beside those of the training mean, and the largest ones, as plain values.

        Args:
            X: as for `fit`.
            y: (N,) or (N, O).
            num_worst: how many of the largest errors to name.

        Returns:
            ``num``, ``r2``, ``rmse``, ``mae``, ``rmse_of_mean`` (always answering the training mean), ``worst`` (index,
            truth, answer), ``notes``.
        """
        answers = np.atleast_2d(self.predict(X).T).T
        found = self._errors(answers, _targets(type(self).__name__, y, len(answers), self._num_outputs()), num_worst)
        found["notes"] = self.describe_input(X)
        return found

    def predict_steps(self, X: Any) -> list[Numbers]:
        """After every step, the prediction so far: N arrays (T_i,) or (T_i, O).

        Args:
            X: as for `fit`.

        Raises:
            ValueError: the nets read whole sequences. Fit with ``pooling="last"``.
        """
        self._check_fitted()
        sequences, _ = self._like_training(X)
        found = [self._numbers(self._step_outputs(sequence)) for sequence in sequences]
        return [f[:, 0] for f in found] if self.is_single_ else found

    # --- inside ---

    def _numbers(self, outputs: Tensor, own: Tensor | None = None) -> Numbers:
        """(N, O) from outputs (N, M, O), or (N, 1, O) of each sequence's own net."""
        centre, spread = np.array(self.target_centre_), np.array(self.target_spread_)
        if own is not None and len(centre) > 1:
            centre, spread = centre[own.numpy(), None], spread[own.numpy(), None]
        return (centre + spread * outputs.double().numpy()).mean(1)

    def _centre(self) -> Numbers:
        """(O,) the training mean; of several nets, the mean of theirs."""
        return np.array(self.target_centre_).mean(0)

    def _spread(self) -> Numbers:
        """(O,) likewise."""
        return np.array(self.target_spread_).mean(0)

    def _errors(self, answers: Numbers, truth: Numbers, num_worst: int) -> dict[str, Any]:
        off = answers - truth
        spread = ((truth - truth.mean(0)) ** 2).sum(0)
        spread = np.where(spread > len(truth) * (1e-12 * np.abs(truth).max(0)) ** 2, spread, 0.0)
        parts = 1 - (off**2).sum(0) / np.where(spread > 0, spread, np.inf)
        r2 = np.where(spread > 0, parts, np.where((off**2).sum(0) > 0, 0.0, 1.0))
        size = (off**2 / self._spread() ** 2).sum(1)
        return {
            "num": len(truth),
            "r2": float(r2.mean()),
            "rmse": float(np.sqrt((off**2).mean())),
            "mae": float(np.abs(off).mean()),
            "rmse_of_mean": float(np.sqrt(((truth - self._centre()) ** 2).mean())),
            "worst": [
                {"index": int(i), "truth": truth[i].tolist(), "answer": answers[i].tolist()}
                for i in np.argsort(-size, kind="stable")[:num_worst]
            ],
        }

    def _read_targets(self, y: Any, num: int) -> Tensor:
        values = _targets(type(self).__name__, y, num, None)
        self.is_single_ = real_numbers(y).ndim == 1
        self.training_report_: dict[str, Any] = {}
        return torch.from_numpy(values)

    def _fit_targets(self, parts: list[Tensor]) -> None:
        self.target_centre_: list[list[float]] = []
        self.target_spread_: list[list[float]] = []
        self.constant_targets_ = True
        for part in parts:
            values = part.numpy()
            spread, size = values.std(0), np.abs(values).max(0)
            moves = spread > 1e-12 * size  # more than rounding
            self.constant_targets_ &= not moves.any()
            self.target_centre_.append(values.mean(0).tolist())
            self.target_spread_.append(np.where(moves, spread, np.where(size > 0, size, 1.0)).tolist())

    def _known_targets(self, y: Any, num: int) -> Tensor:
        return torch.from_numpy(_targets(type(self).__name__, y, num, self._num_outputs()))

    def _wanted(self, targets: Tensor) -> Tensor:
        """(N, M or 1, O)."""
        centre, spread = torch.tensor(self.target_centre_).double(), torch.tensor(self.target_spread_).double()
        return ((targets[:, None] - centre) / spread).float()

    def _target_notes(self, targets: Tensor) -> list[str]:
        if self.constant_targets_:
            return ["All training targets are the same number: there is nothing to learn."]
        parts = [f"{c:.4g} (spread {s:.4g})" for c, s in zip(self._centre()[:5], self._spread())]
        return [f"The mean of the targets that are trained on is {', '.join(parts)}."]

    def _num_outputs(self) -> int:
        return len(self.target_centre_[0])

    def _loss(self) -> SequenceLoss:
        return MemberSquaredError()

    def _step_loss(self) -> Loss:
        return MeanSquaredError()

    def _row_weights(self, targets: Tensor) -> Tensor:
        return torch.ones(len(targets))

    def _strata(self, targets: Tensor) -> Tensor:
        """Ten groups by size, so that held-out parts have small and large targets."""
        ranks = targets[:, 0].argsort(stable=True).argsort(stable=True)
        return ranks * max(1, min(10, len(targets) // 2)) // len(targets)

    def _measure(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        off = (self._numbers(outputs) - targets.numpy()) / self._spread()
        return {"mse": float((off**2).mean())}

    def _look_back(self, outputs: Tensor, targets: Tensor, own: Tensor | None) -> None:
        truth = targets.numpy()
        found = self._errors(self._numbers(outputs, own), truth, 0)
        del found["worst"]
        self.training_report_ = {"held_out": self.choices_.hold_out, **found}
        self.notes_.append(
            f"On {len(truth)} held-out sequences the RMSE is {found['rmse']:.4g} (always the mean: "
            f"{found['rmse_of_mean']:.4g}), R^2 {found['r2']:.3f}.{self._chosen_by_these()}"
        )

    def _fitted_targets(self) -> dict[str, Any]:
        return {
            "target_centre": self.target_centre_ if len(self.target_centre_) > 1 else self.target_centre_[0],
            "target_spread": self.target_spread_ if len(self.target_spread_) > 1 else self.target_spread_[0],
            "is_single": self.is_single_,
            "report": self.training_report_,
        }

    def _restore_targets(self, fitted: dict[str, Any]) -> None:
        centre, spread = (np.array(fitted[f"target_{name}"], dtype=np.float64) for name in ("centre", "spread"))
        if centre.shape != spread.shape or centre.ndim not in (1, 2) or not centre.size:
            raise ValueError("its targets' centre and spread do not fit")
        self.target_centre_, self.target_spread_ = np.atleast_2d(centre).tolist(), np.atleast_2d(spread).tolist()
        if len(self.target_centre_) not in (1, self.choices_.num_models):
            raise ValueError("its targets' centre and spread do not fit the number of nets")
        self.is_single_ = bool(fitted["is_single"])
        self.training_report_ = dict(fitted["report"])

    def __sklearn_tags__(self) -> Any:
        """See `Estimator`."""
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required, tags.regressor_tags = "regressor", True, RegressorTags()
        return tags


def _targets(where: str, y: Any, num: int, width: int | None) -> Numbers:
    """(N, O) finite numbers."""
    try:
        values = real_numbers(y)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            sentence(where, "y", "numbers", type(y).__name__, "SequenceClassifier learns classes.")
        ) from None
    if values.ndim not in (1, 2) or len(values) != num or (values.ndim == 2 and not values.shape[1]):
        raise ValueError(sentence(where, "y", f"({num},) or ({num}, O)", tuple(values.shape)))
    values = values.reshape(num, -1)
    if width is not None and values.shape[1] != width:
        raise ValueError(sentence(where, "y", f"of {width} targets, as in training", values.shape[1]))
    if not np.isfinite(values).all():
        raise ValueError(sentence(where, "y", "finite numbers", "a missing or infinite one"))
    check_size(where, "y", values)
    return values
