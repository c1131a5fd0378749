"""A text, and a language model of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..reading import read_text
from ..screen import loss_words
from .job import Job

MIN_CHARS = 200  # less than this is no text to learn from
LOOK = 60_000  # characters of the held-out text in which the worst passages are looked for
COUNT = 2_000_000  # characters of the training text for the counting models
ORDERS = {1: "letters by how often they occur", 3: "trigrams", 5: "5-grams"}


class LanguageModelJob(Job):
    """The last part of the text is held out."""

    kind, name, files = "language_model", "text", ("text",)
    what = "a language model"
    uses = ()

    @property
    def estimator(self) -> Any:
        """`LanguageModel`."""
        from ...estimators import LanguageModel

        return LanguageModel

    def read(self) -> None:
        """The text and the part at its end."""
        given = 0.1 if self.fraction is None else self.fraction
        self.text = read_text(self.file, min_chars=2 if self.fraction == 0.0 else MIN_CHARS)
        size = int(len(self.text) * given)
        size = size if size >= 2 else 0
        self.learned, self.held_out = self.text[: len(self.text) - size], self.text[len(self.text) - size :]
        self.facts = [("Text", f"{len(self.text):,} characters, {len(set(self.text))} different")]
        if self.held_out:
            self.facts.append(("Held out", f"the last {len(self.held_out):,} characters, for validation"))

    def defaults(self) -> dict[str, Any]:
        """Fifteen minutes."""
        return {"budget_minutes": 15.0, "precision": "auto"}

    def fit(self, model: Any, folder: Path, resume: bool, on_progress: Callable[[Any], bool | None]) -> None:
        """With validation where something is held out."""
        model.fit(self.learned, self.held_out or None, on_progress, folder=folder, resume=resume)

    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """Beside models that only count; the passages that surprised it most; speed."""
        from ...estimators import NGramModel
        from ...report.language_model import evaluation

        found: dict[str, Any] = {**self.shared(model, folder), "unit": "character"}
        begin = time.perf_counter()
        model.generate(model.tokens_.newline, 200)
        speed = 200 / (time.perf_counter() - begin)
        found["speed"] = [["writing", f"{speed:,.0f} {model.tokens_.unit} per second, one at a time"]]
        if not self.held_out:
            return {**found, "frequent": [], "start": self.learned[:400]}
        part = self.held_out[:LOOK]
        losses = (-model.log_probabilities(part)).tolist()
        found.update(evaluation(losses, model.tokenize(part)[1:], self.learned))
        found["metrics"] = {"nats": model.record_["validation"]["nats_per_char"], **model.record_["validation"]}
        counted = self.learned[-COUNT:]
        found["baselines"] = [
            {"name": words, "nats": NGramModel(n).fit(counted).evaluate(self.held_out)["nats_per_char"]}
            for n, words in ORDERS.items()
        ]
        return found

    def result(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """The loss, and what counting gives."""
        metrics = found.get("metrics")
        if metrics is None:
            return []
        rows = [("Held out", loss_words(metrics))]
        if metrics["num_unknown"]:
            rows.append(("", f"({metrics['num_unknown']:,} characters of it are not in the training text)"))
        best = min(found["baselines"], key=lambda b: b["nats"])
        rows.append(("Compare", f"{best['nats']:.4f} nats per character with {best['name']}"))
        return rows

    def evaluate(self, model: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The exact loss of the whole text."""
        metrics = model.evaluate(self.text)
        rows = [("Text", f"{self.file}: {metrics['num_chars']:,} characters predicted"), ("Loss", loss_words(metrics))]
        if metrics["num_unknown"]:
            share = metrics["num_unknown"] / metrics["num_tokens"]
            words = "characters" if model.tokens == "chars" else model.tokens_.unit
            rows.append(("Unknown", f"{metrics['num_unknown']:,} {words} ({share:.2%}) were not in the training text"))
        return metrics, rows

    def real_inputs(self, *, whole: bool) -> tuple[Any, str]:
        """See `Job.real_inputs`."""
        if whole:
            return self.text, str(self.file)
        return (self.held_out, f"what was held out of {self.file.name}") if self.held_out else (None, "")

    def next_command(self, folder: Path) -> str:
        """Let it write."""
        return f"recurra generate {folder}"
