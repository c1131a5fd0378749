"""How good a classifier is: accuracy per class, confusion, calibration, worst cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Probabilities = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.int64]]


def confusion_matrix(truth: Places, guess: Places, num_classes: int) -> Places:
    """(C, C): rows are true classes, columns are what was answered.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def expected_calibration_error(probabilities: Probabilities, truth: Places, num_bins: int = 15) -> float:
    """How far confidence and accuracy are apart.

        ECE = sum_b n_b / n |accuracy of bin b - mean confidence of bin b|

    Args:
        probabilities: (N, C).
        truth: (N,) classes; a place outside 0 .. C-1 is never right.
        num_bins: of equal width between 0 and 1.
    Source:
        Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, eq. 3 (from memory)
    Example:
        >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
        0.0
    """
    if not len(truth):
        return math.nan
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    total = 0.0
    for b in np.unique(bins):
        inside = bins == b
        total += inside.sum() * abs(float(right[inside].mean()) - float(confidence[inside].mean()))
    return float(total / len(truth))


def temperature(logits: Probabilities, truth: Places, weights: np.ndarray[Any, Any] | None = None) -> float:
    """The number T for which ``softmax(logits / T)`` has the least cross-entropy.

    A part 1 / (N + 2) of each target is spread over all classes: where nothing held out is wrong, that is still no proof
    that nothing ever will be.

    Args:
        logits: (N, C).
        truth: (N,).
        weights: (N,), None for ones.
    Source:
        Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 4.2 (temperature scaling); the spread part: Platt
        1999 (in the form of a rule of succession; both from memory)
    Example:
        >>> truth = np.array([0, 0, 0, 1] * 100)
        >>> round(temperature(np.array([[2.0, 0.0]] * 400), truth), 1)  # about 2 / log 3
        1.8
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    weights = np.ones(len(truth)) if weights is None else weights
    spread = 1 / (len(truth) + 2)
    own = (1 - spread) * logits[np.arange(len(truth)), truth] + spread * logits.mean(1)

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return float((weights * (logsumexp(logits / t, axis=1) - own / t)).sum())

    return math.exp(float(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x))


def cross_fitted(
    logits: Probabilities, truth: Places, weights: np.ndarray[Any, Any] | None = None, *, num_parts: int = 5
) -> Probabilities:
    """(N, C) probabilities for which each sequence's temperature was found on the others.

    A calibration error on the data that chose the temperature flatters it. Here the sequences are dealt out to parts, the same
    of each class, and each part is answered with the temperature of the rest.

    Args:
        logits: (N, M, C) of M nets, whose probabilities are averaged.
        truth: (N,).
        weights: (N,), None for ones.
        num_parts: K, at most N.
    Example:
        >>> logits, truth = np.array([[[2.0, 0.0]]] * 40), np.array([0, 0, 0, 1] * 10)
        >>> np.round(cross_fitted(logits, truth)[0], 2).tolist()
        [0.74, 0.26]
    """
    from scipy.special import softmax

    num, nets, _ = logits.shape
    weights = np.ones(num) if weights is None else weights
    part = np.empty(num, np.int64)
    part[np.argsort(truth, kind="stable")] = np.arange(num) % min(num_parts, num)
    found = np.empty((num, logits.shape[2]))
    for k in range(part.max() + 1):
        rest, own = part != k, part == k
        flat = logits[rest].reshape(-1, logits.shape[2])
        t = temperature(flat, truth[rest].repeat(nets), weights[rest].repeat(nets))
        found[own] = softmax(logits[own] / t, -1).mean(1)
    return found / found.sum(1, keepdims=True)


def classification_report(
    probabilities: Probabilities, truth: Places, classes: Sequence[Any], *, num_worst: int = 10
) -> dict[str, Any]:
    """Everything about a classifier's answers, as plain values.

    Args:
        probabilities: (N, C).
        truth: (N,) places of the true classes; -1 for a label that training never showed, which is always an error.
        classes: C names.
        num_worst: how many of the surest errors to name.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (mean recall), ``macro_f1``, ``cross_entropy`` (nats), ``calibration_error``,
        ``majority`` (accuracy of always answering the commonest class of the truth), ``per_class`` (name, support,
        precision, recall, f1), ``confusion`` (rows: truth), ``worst`` (index, truth, answer, probability), ``notes``.

    Example:
        >>> found = classification_report(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), ["a", "b"])
        >>> found["accuracy"], found["confusion"], found["worst"][0]["index"]
        (0.5, [[1, 0], [1, 0]], 1)
    """
    known = truth >= 0
    num_classes = len(classes)
    guess = probabilities.argmax(1)
    confusion = confusion_matrix(truth[known], guess[known], num_classes)
    hits, support, answered = confusion.diagonal(), confusion.sum(1), np.bincount(guess, minlength=num_classes)
    rows = []
    for c, name in enumerate(classes):
        recall = _ratio(hits[c], support[c])
        precision = _ratio(hits[c], answered[c])
        f1 = _ratio(2 * hits[c], support[c] + answered[c])
        rows.append({"class": name, "support": int(support[c]), "precision": precision, "recall": recall, "f1": f1})
    there = [row for row in rows if row["support"]]
    own = probabilities[np.flatnonzero(known), truth[known]]
    wrong = np.flatnonzero(guess != truth)
    surest = wrong[np.argsort(-probabilities[wrong, guess[wrong]], kind="stable")][:num_worst]
    notes = []
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(truth)} labels were not seen in training; they count as errors.")
    counts = np.bincount(truth[known], minlength=num_classes)
    return {
        "num": len(truth),
        "accuracy": float((guess == truth).mean()),
        "balanced_accuracy": _mean([row["recall"] for row in there]),
        "macro_f1": _mean([row["f1"] for row in there]),
        "cross_entropy": abs(float(np.log(np.maximum(own, 1e-12)).mean())) if len(own) else None,
        "calibration_error": expected_calibration_error(probabilities, truth),
        "majority": float(counts.max() / len(truth)),
        "per_class": rows,
        "confusion": confusion.tolist(),
        "worst": [
            {
                "index": int(i),
                "truth": classes[truth[i]] if truth[i] >= 0 else None,
                "answer": classes[guess[i]],
                "probability": float(probabilities[i, guess[i]]),
            }
            for i in surest
        ],
        "notes": notes,
    }


def _ratio(a: float, b: float) -> float | None:
    """a / b; None where there is nothing to divide by."""
    return float(a / b) if b else None


def _mean(values: Sequence[Any]) -> float | None:
    given = [0.0 if value is None else float(value) for value in values]
    return float(np.mean(given)) if given else None
