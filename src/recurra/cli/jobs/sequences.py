"""Labelled sequences, and a classifier or a regressor for them."""

from __future__ import annotations

import collections
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.checks import sentence
from .job import Job

WORST, EXAMPLES = 10, 8
MOST_WARPED = 2_000_000_000  # pairs of values that the slow baseline compares: some seconds


class SequenceJob(Job):
    """A part of the sequences is held out, the same from each class."""

    uses = ("target", "time", "series", "text")
    sequences: list[Any]
    labels: list[Any]
    names: tuple[str, ...] = ()  # of the series in a long table

    def read(self) -> None:
        """The sequences and what is held out."""
        from ...datasets.labelled_text import read_labelled_text, read_texts
        from ...datasets.sniff import kind_of_file
        from ...datasets.ts_files import read_series

        roles, needed = self.roles, self.needs_labels
        if self.model is not None:
            self.is_text = self.model.encoders_.is_text
        else:
            kind = kind_of_file(self.file, target=roles.target).kind
            self.is_text = roles.text is not None or kind == "labelled_text"
        for name, value in (("series", roles.series), ("time", roles.time)):
            if self.is_text and value:
                raise ValueError(sentence("recurra", f"--{name}", "left out for texts", repr(value)))
        if roles.time and not roles.series:
            want = "given together with --series, the column that tells series apart"
            raise ValueError(sentence("recurra", "--time", want, f"{roles.time!r} alone"))
        labels: list[Any] | None = None
        if self.is_text and not needed:
            self.sequences, notes = read_texts(self.file, text=roles.text, target=roles.target)
        elif self.is_text:
            texts = read_labelled_text(self.file, text=roles.text, target=roles.target)
            self.sequences, labels, notes = texts.texts, texts.labels, texts.notes
        else:
            found = read_series(
                self.file, target=roles.target, series=roles.series, time=roles.time, needs_labels=needed
            )
            self.sequences, labels, notes = found.series, found.labels, found.notes
            self.names = found.names
            if found.roles is not None:  # a file to predict may not show it
                self.roles = replace(roles, series=found.roles.series, time=found.roles.time)
        self.has_labels = labels is not None
        if not self.has_labels and needed:
            raise ValueError(sentence("recurra", str(self.file), "sequences with labels", "none with a label"))
        self.labels = self.as_targets(list(labels or [])) if needed else []
        self.facts = [("File", f"{self.file}: {len(self.sequences):,} {'texts' if self.is_text else 'series'}")]
        self.facts += [("Read", note) for note in notes]
        if not self.is_text:
            lengths = [len(s) for s in self.sequences]
            same = f"{lengths[0]:,} steps" if len(set(lengths)) == 1 else f"{min(lengths):,} to {max(lengths):,} steps"
            channels = len(self.sequences[0][0])
            self.facts.append(("Series", f"{same}, {channels} channel{'s' * (channels != 1)}"))
        if needed:
            self.hold_out()

    @property
    def streaming(self) -> dict[str, Any]:
        """See `Job.streaming`."""
        return {"pooling": "last", "bidirectional": False, "convolutions": "none", "scale": "standard", "frames": 1}

    def as_targets(self, labels: list[Any]) -> list[Any]:
        """Labels as the estimator takes them."""
        return labels

    def hold_out(self) -> None:
        """Choose, by a fixed seed, what is not trained on."""
        part = 0.2 if self.fraction is None else self.fraction
        places: dict[Any, list[int]] = collections.defaultdict(list)
        for i, label in enumerate(self.labels):
            places[self.group(label)].append(i)
        held: list[int] = []
        for label in sorted(places, key=str):
            members = places[label]
            random.Random(0).shuffle(members)
            held += members[: round(part * len(members))]
        self.held = sorted(held)
        if self.held:
            words = "the same part of each class" if self.kind == "sequence_classifier" else "drawn at random"
            self.facts.append(("Held out", f"{len(self.held):,} of them, {words}, for the evaluation"))

    def group(self, label: Any) -> Any:
        """Of which every held-out part has its share."""
        return label

    def parts(self) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Sequences and labels to learn from, and those held out."""
        held = set(self.held)
        learn = [i for i in range(len(self.sequences)) if i not in held]
        pick = self.sequences.__getitem__, self.labels.__getitem__
        return (*(list(map(p, learn)) for p in pick), *(list(map(p, self.held)) for p in pick))  # type: ignore[return-value]

    def fit(self, model: Any, folder: Path, resume: bool, on_progress: Callable[[Any], bool | None]) -> None:
        """On what is not held out."""
        X, y, _, _ = self.parts()
        model.fit(X, y, folder=folder, resume=resume, on_progress=on_progress)

    def predict(self, model: Any) -> list[dict[str, Any]]:
        """The answer for each sequence; names and values."""
        if self.kind != "sequence_classifier":
            values = [float(value) for value in model.predict(self.sequences)]
            return [{"sequence": self.name_of(i), "value": value} for i, value in enumerate(values)]
        classes = [str(c) for c in model.classes_.tolist()]
        return [
            {"sequence": self.name_of(i), "class": classes[int(row.argmax())]}
            | {f"p({c})": round(float(p), 8) for c, p in zip(classes, row)}
            for i, row in enumerate(model.predict_proba(self.sequences))
        ]

    def name_of(self, place: int) -> str | int:
        """What a sequence is called: its place in the file, if nothing else."""
        return self.names[place] if self.names else place

    def oddities(self, model: Any) -> list[str]:
        """What is odd about the sequences, seen from training."""
        return list(model.describe_input(self.sequences))

    def page(self, model: Any, folder: Path, X: Sequence[Any]) -> dict[str, Any]:
        """What both kinds have on their page."""
        begin = time.perf_counter()
        model.predict(list(X)[:50] or self.sequences[:50])
        speed = min(50, len(X) or len(self.sequences)) / (time.perf_counter() - begin)
        facts = [["Decided", note] for note in model.notes_]
        base = self.shared(model, folder)
        return {**base, "facts": base["facts"] + facts, "speed": [["answers", f"{speed:,.0f} sequences per second"]]}

    def shown(self, sequence: Any) -> dict[str, Any]:
        """A sequence for the page."""
        if isinstance(sequence, str):
            return {"text": sequence if len(sequence) <= 300 else sequence[:297] + "..."}
        every = max(1, len(sequence) // 400)
        return {"series": [[None if v != v else float(v) for v in channel[::every]] for channel in sequence.T]}

    def real_inputs(self, *, whole: bool) -> tuple[Any, str]:
        """See `Job.real_inputs`."""
        if whole:
            return self.sequences, str(self.file)
        held = [self.sequences[i] for i in self.held]
        return (held, f"what was held out of {self.file.name}") if held else (None, "")

    def next_command(self, folder: Path) -> str:
        """Answers for new sequences."""
        return f"recurra predict {folder} NEW_FILE --out predictions.csv"


class SequenceClassifierJob(SequenceJob):
    """Labels are classes."""

    kind, name, files = "sequence_classifier", "classify", ("labelled_series", "labelled_text")
    what = "a classifier"

    @property
    def estimator(self) -> Any:
        """`SequenceClassifier`."""
        from ...estimators import SequenceClassifier

        return SequenceClassifier

    def as_targets(self, labels: list[Any]) -> list[Any]:
        """Classes as words."""
        return [str(label) for label in labels]

    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """On the held-out sequences, beside simple methods."""
        X, y, held, truth = self.parts()
        found = {**self.page(model, folder, held), "what": "Classes"}
        counts = collections.Counter(self.labels)
        found["counts"] = [[name, n] for name, n in counts.most_common()]
        found["examples"] = [{"label": c, **self.shown(X[y.index(c)])} for c in list(counts)[:EXAMPLES] if c in y]
        if not held:
            return found
        report = model.evaluate(held, truth)
        found["metrics"] = {**report, "log_loss": report["cross_entropy"]}
        for name in ("per_class", "confusion", "worst", "notes"):
            found["metrics"].pop(name)
        found["baselines"] = self.baselines(X, y, held, truth)
        found["evaluated"] = f"On {len(held):,} held-out sequences that were not trained on."
        found["classes"], found["confusion"] = model.classes_.tolist(), report["confusion"]
        found["per_class"] = [{**row, "count": row["support"]} for row in report["per_class"]]
        probabilities = model.predict_proba(held)
        found["reliability"] = _reliability(probabilities, truth, model.classes_.tolist())
        found["worst"] = [
            {
                "name": str(self.name_of(self.held[row["index"]])),
                "true": str(row["truth"]),
                "predicted": str(row["answer"]),
                "sure": row["probability"],
                **self.shown(held[row["index"]]),
            }
            for row in report["worst"][:WORST]
        ]
        if not found["worst"]:
            sure = probabilities.max(1)
            found["unsure"] = [
                {
                    "name": str(self.name_of(self.held[i])),
                    "true": truth[i],
                    "predicted": truth[i],
                    "sure": float(sure[i]),
                    **self.shown(held[i]),
                }
                for i in sure.argsort()[: WORST // 2].tolist()
            ]
        return found

    def baselines(self, X: list[Any], y: list[Any], held: list[Any], truth: list[Any]) -> list[dict[str, Any]]:
        """The commonest class; nearest neighbours of series, words counted in texts."""
        common = collections.Counter(y).most_common(1)[0][0]
        rows = [{"name": f"always {common}", "accuracy": sum(t == common for t in truth) / len(truth)}]
        if self.is_text:
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline

            words = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=1000))
            rows.append(
                {"name": "words counted, logistic regression", "accuracy": float(words.fit(X, y).score(held, truth))}
            )
            return rows
        import numpy as np

        lengths = {len(s) for s in self.sequences}
        if len(lengths) == 1:
            from sklearn.neighbors import KNeighborsClassifier

            flat = [np.nan_to_num(np.stack(part)).reshape(len(part), -1) for part in (X, held)]
            nearest = KNeighborsClassifier(1).fit(flat[0], y)
            rows.append({"name": "nearest neighbour, Euclidean", "accuracy": float(nearest.score(flat[1], truth))})
        size = sum(len(s) for s in held) * sum(s.size for s in X)
        if size <= MOST_WARPED:
            from ...estimators.warping import nearest_by_warping

            queries, series = ([np.nan_to_num(s) for s in part] for part in (held, X))
            right = nearest_by_warping(queries, series, y) == np.array(truth)
            rows.append({"name": "nearest neighbour, time warped", "accuracy": float(right.mean())})
        return rows

    def result(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """Accuracy beside the baselines."""
        metrics = found.get("metrics")
        if metrics is None:
            return []
        words = f"accuracy {metrics['accuracy']:.1%}, balanced {metrics['balanced_accuracy']:.1%}"
        rows = [("Held out", f"{words}, calibration error {_words_of(metrics['calibration_error'], '.3f')}")]
        return rows + [("Compare", f"{b['accuracy']:.1%}  {b['name']}") for b in found["baselines"]]

    def evaluate(self, model: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """On all sequences of the file."""
        if not self.has_labels:
            raise ValueError(sentence("recurra", str(self.file), "sequences with labels", "none with a label"))
        found = model.evaluate(self.sequences, self.labels)
        rows = [
            ("File", f"{self.file}: {len(self.sequences):,} sequences"),
            ("Accuracy", f"{found['accuracy']:.2%} (always the commonest class: {found['majority']:.2%})"),
            ("Balanced", _words_of(found["balanced_accuracy"], ".2%")),
            (
                "Log loss",
                f"{_words_of(found['cross_entropy'], '.4f')} nats, calibration error "
                f"{_words_of(found['calibration_error'], '.3f')}",
            ),
        ]
        return found, rows + [("Note", note) for note in found["notes"]]


class SequenceRegressorJob(SequenceJob):
    """Labels are numbers."""

    kind, name, files = "sequence_regressor", "regress", ()
    what = "a regression"

    @property
    def estimator(self) -> Any:
        """`SequenceRegressor`."""
        from ...estimators import SequenceRegressor

        return SequenceRegressor

    def as_targets(self, labels: list[Any]) -> list[Any]:
        """Numbers."""
        try:
            return [float(label) for label in labels]
        except ValueError as error:
            raise ValueError(
                sentence("recurra", "a label", "a number", str(error).rpartition(":")[2].strip())
            ) from None

    def group(self, label: Any) -> Any:
        """All alike."""
        return 0

    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """On the held-out sequences, beside the mean."""
        _, y, held, truth = self.parts()
        found = {**self.page(model, folder, held), "what": "Numbers"}
        if not held:
            return found
        guess = [float(v) for v in model.predict(held)]
        found["metrics"] = _errors(truth, guess)
        found["baselines"] = [{"name": "the training mean", **_errors(truth, [statistics.fmean(y)] * len(truth))}]
        found["evaluated"] = f"On {len(held):,} held-out sequences that were not trained on."
        found["scatter"] = [[t, g] for t, g in zip(truth, guess)]
        order = sorted(range(len(held)), key=lambda i: -abs(truth[i] - guess[i]))[:WORST]
        found["worst"] = [
            {
                "name": str(self.name_of(self.held[i])),
                "true": f"{truth[i]:.4g}",
                "predicted": f"{guess[i]:.4g}",
                **self.shown(held[i]),
            }
            for i in order
        ]
        return found

    def result(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """Errors beside the mean's."""
        if "metrics" not in found:
            return []
        rows = [("Held out", _words(found["metrics"]))]
        return rows + [("Compare", f"{_words(b)}  {b['name']}") for b in found["baselines"]]

    def evaluate(self, model: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """On all sequences of the file."""
        found = _errors(self.labels, [float(v) for v in model.predict(self.sequences)])
        return found, [("File", f"{self.file}: {len(self.sequences):,} sequences"), ("Errors", _words(found))]


def _words_of(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def _errors(truth: Sequence[float], guess: Sequence[float]) -> dict[str, float]:
    mean = statistics.fmean(truth)
    squares = statistics.fmean((t - g) ** 2 for t, g in zip(truth, guess))
    spread = statistics.fmean((t - mean) ** 2 for t in truth)
    return {
        "r2": 1 - squares / spread if spread else float("nan"),
        "rmse": squares**0.5,
        "mae": statistics.fmean(abs(t - g) for t, g in zip(truth, guess)),
    }


def _words(errors: dict[str, Any]) -> str:
    return f"R2 {errors['r2']:.3f}, RMSE {errors['rmse']:.4g}, MAE {errors['mae']:.4g}"


def _reliability(probabilities: Any, truth: list[Any], classes: list[Any]) -> list[dict[str, float]]:
    """How often it is right where it is so sure, in ten bins."""
    bins: dict[int, list[tuple[float, bool]]] = collections.defaultdict(list)
    for row, label in zip(probabilities, truth):
        best = int(row.argmax())
        bins[min(9, int(row[best] * 10))].append((float(row[best]), classes[best] == label))
    return [
        {
            "confidence": statistics.fmean(p for p, _ in found),
            "accuracy": statistics.fmean(float(right) for _, right in found),
            "count": len(found),
        }
        for _, found in sorted(bins.items())
    ]
