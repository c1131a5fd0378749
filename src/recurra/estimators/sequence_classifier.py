"""A class for each sequence: from labelled series or texts to a model in a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check_flag, check_probability, sentence
from ..core.loss import CrossEntropy, Loss, SequenceLoss
from .classification_report import classification_report, cross_fitted, expected_calibration_error, temperature
from .sequence_estimator import Numbers, SequenceEstimator, Steps
from .sequence_network import MemberCrossEntropy

ENOUGH_TO_CALIBRATE = 5  # held-out sequences


@dataclass(eq=False, repr=False)
class SequenceClassifier(SequenceEstimator):
    """Tells which class a sequence belongs to: a numeric series of one or more channels, or a text.

        h_1 .. h_T = cell(x_1 .. x_T)   (in both directions; before it, convolutions)
        p(class | x) = 1/M sum_m softmax(W_m pool(h) / temperature)                   of M nets

    Lengths may differ. What is left open (None, "auto") is decided from the data and said in ``notes_``. Small sets get
    several small nets, varied series and dropout. From larger ones a part is held out, on which the model is measured and a
    temperature is found that makes the probabilities fit.

    Args:
        cell: any cell that is built from (input_size, hidden_size), with options if wanted: ``"GRUCell"``,
            ``"LSTMCell(peephole=True)"``.
        hidden_size: H, units per layer and direction.
        num_layers: L, recurrent layers.
        bidirectional: also read from the end.
        pooling: "last", "mean", "max", "mean+max" or "attention"; see `Pooling`.
        convolutions: before the recurrent layers: "none", or layers such as ``"32x8/2 64x5"`` (filters x steps / stride).
        frames: steps of a series that are read as one.
        scale: of series: "standard" (by the training data), "series" (each by itself), "both", "wide" (logarithmic, and
            each by itself).
        differences: show the differences from step to step as channels too.
        jitter: series are varied while training: standard deviation of added noise, in the series' own.
        scaling: the same for the logarithm of a factor.
        warping: the same for the logarithm of the local speed of time.
        cropping: largest part of the steps that a random window leaves out.
        embedding_size: E, size of a word's vector.
        lowercase: are capitals small letters?
        min_count: how often a word must occur to have a vector of its own.
        num_buckets: places for pieces of words, by which unknown words are read; 0 for none.
        word_dropout: probability, while training, that a word is taken as unknown.
        dropout: after each layer and before the output, while training.
        input_dropout: the same for the input's features.
        num_models: M, nets trained together, whose probabilities are averaged.
        batch_size: B, sequences per update.
        hold_out: what is not trained on, to measure and to calibrate: "part" (``validation_part``; of 100 sequences or more
            it also chooses the weights), "folds" (from each net another part), "none" (the default below 100 sequences).
        validation_part: of the sequences, the same from each class, with ``hold_out="part"``.
        num_epochs, num_updates, budget_minutes, max_epochs, lr, lr_decay, warmup_updates, optimizer, beta2, weight_decay,
            clip_norm, clip_value, accumulate, weight_average, num_validations, patience, precision, device: of training;
            see `recurra.training.TrainSettings`.
        rule: learning rule, with options if wanted. Any but "BPTT" trains one net that answers after every step.
        engine: how to run the cells, with options if wanted: ``"Checkpointed(every=32)"``.
        seed: of the weights, the noise, the order and the parts.
        class_weight: None; "balanced" (N / (C n_c) for a class of n_c of N sequences); or a dict from classes to weights.
        label_smoothing: part of the target that is spread over all classes.
        calibrate: find the temperature where something is held out. Its calibration error in ``training_report_`` is measured
            with each fifth of the held-out sequences answered with the temperature of the others.
    Raises:
        ValueError: from `fit`: an argument out of range; one class only; sequences that cannot be read.
    Source:
        Schuster & Paliwal 1997, doi:10.1109/78.650093 (both directions); Hansen & Salamon 1990 (several nets); Guo et al.
        2017, arXiv:1706.04599 (temperature); Um et al. 2017, doi:10.1145/3136755.3136817 (varied series; from memory)
    Cost:
        For an LSTM about 48 M H (D + H) flops per step, sequence and update in both directions.
    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = [np.sin(np.arange(20) * (0.3 + 0.5 * (i % 2)) + rng.random()) for i in range(24)]
        >>> y = ["slow", "fast"] * 12
        >>> model = SequenceClassifier(hidden_size=8, num_models=1, num_updates=60, convolutions="8x5").fit(X, y)
        >>> model.score(X, y) > 0.9
        True
        >>> model.predict_proba(X[:2]).shape, model.classes_.tolist()
        ((2, 2), ['fast', 'slow'])
    """

    kind: ClassVar[str] = "sequence_classifier"
    _estimator_type: ClassVar[str] = "classifier"

    class_weight: str | dict[Any, float] | None = None
    label_smoothing: float = 0.05
    calibrate: bool = True

    # --- using a model ---

    def predict_proba(self, X: Any) -> Numbers:
        """(N, C) probabilities of ``classes_``.

        Args:
            X: as for `fit`.

        Raises:
            TypeError: sequences of another kind than in training.
            ValueError: not fitted, or sequences that cannot be read.
        """
        self._check_fitted()
        sequences, _ = self._like_training(X)
        return self._probabilities(self._outputs(sequences))

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """(N,) the likeliest class of each sequence.

        Args:
            X: as for `fit`.
        """
        places = self.predict_proba(X).argmax(1)
        return self.classes_[places]

    def score(self, X: Any, y: Any) -> float:
        """The part of the sequences whose class is found; a class that training never showed is an error.

        Args:
            X: as for `fit`.
            y: (N,) classes.
        """
        places = self.predict_proba(X).argmax(1)
        return float((places == self._places(y, len(places))).mean())

    def evaluate(self, X: Any, y: Any, *, num_worst: int = 10) -> dict[str, Any]:
        """Accuracy, per-class precision and recall, confusion, calibration and the surest errors, as plain values.

        Args:
            X: as for `fit`.
            y: (N,) classes.
            num_worst: how many of the surest errors to name.

        Returns:
            See `classification_report`; ``notes`` say what is odd about the data.
        """
        probabilities = self.predict_proba(X)
        truth = self._places(y, len(probabilities))
        found = classification_report(probabilities, truth, self.classes_.tolist(), num_worst=num_worst)
        given = np.asarray(y)
        for row in found["worst"]:
            row["truth"] = given[row["index"]].item() if hasattr(given[row["index"]], "item") else given[row["index"]]
        found["notes"] += self.describe_input(X)
        return found

    def predict_steps(self, X: Any) -> list[Numbers]:
        """After every step, the probabilities so far: N arrays (T_i, C).

        Args:
            X: as for `fit`.

        Raises:
            ValueError: the nets read whole sequences. Fit with ``pooling="last"``.

        Example:
            >>> X, y = np.random.default_rng(0).normal(size=(8, 5)), [0, 1] * 4
            >>> model = SequenceClassifier(pooling="last", hidden_size=4, num_updates=2).fit(X, y)
            >>> steps = model.predict_steps(X)[0]
            >>> steps.shape, bool(np.allclose(steps[-1], model.predict_proba(X[:1])[0], atol=1e-6))
            ((5, 2), True)
        """
        self._check_fitted()
        sequences, _ = self._like_training(X)
        return [self._probabilities(self._step_outputs(sequence)) for sequence in sequences]

    def stream(self) -> Iterator[Any]:
        """A generator that is sent one step after the other, and yields the probabilities so far.

        A step is a number, D numbers or a word. Series need ``scale="standard"`` and ``frames=1``, since nothing of the
        future is known; NaN takes the last value.

        Raises:
            ValueError: the model reads whole sequences. Fit with ``pooling="last"``.

        Example:
            >>> X, y = np.random.default_rng(0).normal(size=(8, 5)), [0, 1] * 4
            >>> model = SequenceClassifier(pooling="last", scale="standard", hidden_size=4, num_updates=2).fit(X, y)
            >>> stream = model.stream()
            >>> _ = next(stream)
            >>> for x in X[0]:
            ...     probabilities = stream.send(x)
            >>> bool(np.allclose(probabilities, model.predict_proba(X[:1])[0], atol=1e-6))
            True
        """
        self._check_fitted()
        encode = self._step_encoder()
        return self._stream(Steps(self), encode)

    def _stream(self, steps: Steps, encode: Any) -> Iterator[Any]:
        device = next(self.network_.parameters()).device
        given = yield None
        while True:
            x = torch.from_numpy(encode(given)).to(device)
            given = yield self._probabilities(steps.push(x)[None])[0]

    # --- inside ---

    def _probabilities(self, outputs: Tensor) -> Numbers:
        """(N, C) from outputs (N, M, C)."""
        found = F.softmax(outputs.double() / self.temperature_, -1).mean(1).numpy()
        return found / found.sum(1, keepdims=True)

    def _read_targets(self, y: Any, num: int) -> Tensor:
        where = type(self).__name__
        labels = _labels(where, y, num)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            hint = "There is nothing to tell apart."
            raise ValueError(
                sentence(where, "y", "of at least two classes", f"only {self.classes_.tolist()[0]!r}", hint)
            )
        if self.classes_.dtype.kind == "f" and len(self.classes_) > max(20, num // 2):
            hint = "SequenceRegressor learns numbers."
            got = f"{len(self.classes_)} different numbers, as of a continuous target"
            raise ValueError(sentence(where, "y", "classes", got, hint))
        self.temperature_ = 1.0
        self.training_report_: dict[str, Any] = {}
        self._class_weights(torch.from_numpy(places))
        return torch.from_numpy(places.astype(np.int64))

    def _known_targets(self, y: Any, num: int) -> Tensor:
        places = self._places(y, num)
        if (places < 0).any():
            got = np.asarray(y)[places < 0].tolist()[0]
            raise ValueError(sentence(type(self).__name__, "validation", "of the training data's classes", repr(got)))
        return torch.from_numpy(places)

    def _places(self, y: Any, num: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Places in ``classes_``; -1 for a class that training never showed."""
        labels = _labels(type(self).__name__, y, num)
        known = {label: i for i, label in enumerate(self.classes_.tolist())}
        return np.array([known.get(label, -1) for label in labels.tolist()], dtype=np.int64)

    def _target_notes(self, targets: Tensor) -> list[str]:
        counts = torch.bincount(targets, minlength=len(self.classes_))
        named = [f"{self.classes_[i]} ({int(counts[i])})" for i in counts.argsort(descending=True)[:10].tolist()]
        more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
        notes = [f"{len(counts)} classes: {', '.join(named)}{more}."]
        if int(counts.max()) >= 5 * int(counts.min()):
            how = "weighted accordingly" if self.class_weight else "class_weight='balanced' makes rare ones count more"
            notes.append(f"The largest class is {int(counts.max()) / int(counts.min()):.0f} times the smallest; {how}.")
        return notes

    def _num_outputs(self) -> int:
        return len(self.classes_)

    def _loss(self) -> SequenceLoss:
        return MemberCrossEntropy(self.label_smoothing)

    def _step_loss(self) -> Loss:
        return CrossEntropy()

    def _class_weights(self, targets: Tensor) -> Tensor:
        """(C,) the weight of each class."""
        where, given, num = type(self).__name__, self.class_weight, len(self.classes_)
        if given is None:
            return torch.ones(num)
        if isinstance(given, Mapping):
            unknown = next((c for c in given if c not in set(self.classes_.tolist())), None)
            if unknown is not None:
                known = ", ".join(map(repr, self.classes_.tolist()[:10]))
                raise ValueError(sentence(where, "class_weight", f"for classes of y ({known})", repr(unknown)))
            weights = [given.get(c, 1.0) for c in self.classes_.tolist()]
            if not all(isinstance(w, int | float) and 0 <= w < math.inf for w in weights) or not any(weights):
                raise ValueError(
                    sentence(where, "class_weight", "numbers of at least 0, not all of them 0", repr(given))
                )
            return torch.tensor(weights, dtype=torch.float32)
        if given != "balanced":
            raise ValueError(sentence(where, "class_weight", "None, 'balanced' or a dict", repr(given)))
        counts = torch.bincount(targets, minlength=num)
        return len(targets) / (num * counts.clamp(min=1)).float()

    def _row_weights(self, targets: Tensor) -> Tensor:
        return self._class_weights(targets)[targets]

    def _strata(self, targets: Tensor) -> Tensor:
        return targets

    def _measure(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        logits = torch.log_softmax(outputs.double(), -1).logsumexp(1) - math.log(outputs.shape[1])
        weights = self._class_weights(targets)[targets].double()
        each = F.nll_loss(logits, targets, reduction="none")
        right = float((logits.argmax(-1) == targets).double().mean())
        return {"cross_entropy": float((each * weights).sum() / weights.sum()), "accuracy": right}

    def _look_back(self, outputs: Tensor, targets: Tensor, own: Tensor | None) -> None:
        truth = targets.numpy()
        probabilities = self._probabilities(outputs)
        before = expected_calibration_error(probabilities, truth)
        said = f"the calibration error is {before:.3f}"
        if self.calibrate and len(truth) >= ENOUGH_TO_CALIBRATE:
            logits, weights = outputs.double().numpy(), self._row_weights(targets).double().numpy()
            probabilities = cross_fitted(logits, truth, weights)
            num = outputs.shape[1]
            self.temperature_ = temperature(
                outputs.double().flatten(0, 1).numpy(), truth.repeat(num), weights.repeat(num)
            )
            said = (
                f"the calibration error is {expected_calibration_error(probabilities, truth):.3f}, each fifth of them "
                f"answered with the temperature of the others, {before:.3f} without; the model's is {self.temperature_:.2f}"
            )
        found = classification_report(probabilities, truth, self.classes_.tolist(), num_worst=0)
        del found["worst"]
        self.training_report_ = {"held_out": self.choices_.hold_out, **found, "calibration_error_before": before}
        self.notes_.append(
            f"On {len(truth)} held-out sequences the accuracy is {found['accuracy']:.3f} (always the commonest class: "
            f"{found['majority']:.3f}); {said}.{self._chosen_by_these()}"
        )

    def _fitted_targets(self) -> dict[str, Any]:
        kind = self.classes_.dtype.kind
        return {
            "classes": self.classes_.tolist(),
            "classes_kind": kind,
            "temperature": self.temperature_,
            "report": self.training_report_,
        }

    def _restore_targets(self, fitted: dict[str, Any]) -> None:
        kinds = {"i": np.int64, "u": np.uint64, "b": np.bool_, "f": np.float64, "U": np.str_}
        self.classes_ = np.array(fitted["classes"], dtype=kinds[fitted["classes_kind"]])
        if self.classes_.ndim != 1 or len(np.unique(self.classes_)) != len(fitted["classes"]) or len(self.classes_) < 2:
            raise ValueError("its classes are no list of different values")
        if isinstance(self.class_weight, dict):  # JSON has made texts of the classes
            known = {next(iter(json.loads(json.dumps({c: 0})))): c for c in self.classes_.tolist()}
            self.class_weight = {known.get(c, c): weight for c, weight in self.class_weight.items()}
        self.temperature_ = float(fitted["temperature"])
        if not 0 < self.temperature_ < math.inf:
            raise ValueError("its temperature is no positive number")
        self.training_report_ = dict(fitted["report"])

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_probability(type(self).__name__, label_smoothing=self.label_smoothing)
        check_flag(type(self).__name__, calibrate=self.calibrate)

    def __sklearn_tags__(self) -> Any:
        """See `Estimator`."""
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.target_tags.required, tags.classifier_tags = "classifier", True, ClassifierTags()
        return tags


def _labels(where: str, y: Any, num: int) -> np.ndarray[Any, Any]:
    """(N,) labels of one type."""
    if hasattr(y, "__array__") and not hasattr(y, "__len__"):
        y = np.asarray(y)
    if isinstance(y, str) or not hasattr(y, "__len__"):
        raise TypeError(sentence(where, "y", "a list of labels", type(y).__name__))
    given = y.to_numpy() if hasattr(y, "to_numpy") else y.detach().cpu().numpy() if isinstance(y, Tensor) else y
    whole = getattr(given, "dtype", np.dtype("O"))
    labels = np.asarray(given) if whole != np.dtype("O") else _one_type(where, given)
    if labels.ndim != 1:
        raise ValueError(sentence(where, "y", f"({num},), a label for each sequence", tuple(labels.shape)))
    if len(labels) != num:
        raise ValueError(sentence(where, "y", f"{num} labels, one for each sequence", len(labels)))
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(sentence(where, "y", "a label for each sequence", "a missing one (NaN or infinite)"))
    if labels.dtype.kind not in "iubfU":
        raise TypeError(sentence(where, "y", "labels that are texts or numbers", str(labels.dtype)))
    return labels


def _one_type(where: str, given: Any) -> np.ndarray[Any, Any]:
    """A list of labels as an array; numpy would make texts of numbers that stand among texts."""
    items = list(given)
    if any(np.ndim(item) > 0 for item in items):
        return np.empty((len(items), max(np.size(item) for item in items)))
    if any(item is None or type(item).__name__ in ("NAType", "NaTType") or item != item for item in items):
        raise ValueError(sentence(where, "y", "a label for each sequence", "a missing one"))
    texts = sum(isinstance(item, str) for item in items)
    if texts == len(items):
        return np.array(items, dtype=np.str_)
    if texts or not all(isinstance(item, int | float | np.bool_ | np.number | Tensor) for item in items):
        hint = "Write all of them as texts, or all as numbers."
        raise TypeError(sentence(where, "y", "labels of one type that are texts or numbers", "a mixture", hint))
    return np.asarray([item.item() if isinstance(item, Tensor) else item for item in items])
