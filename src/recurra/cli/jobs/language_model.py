"""A text, and a language model of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reading import check_text_file, read_text
from ..screen import loss_words
from .job import Job

if TYPE_CHECKING:
    from ...estimators.language_model import Text
    from ...estimators.text_file import TextFile

MIN_CHARS = 200  # less than this is no text to learn from
LOOK = 60_000  # characters of the held-out text in which the worst passages are looked for
COUNT = 2_000_000  # characters of the training text for the counting models
LARGE = 64 << 20  # bytes; a larger file is read in pieces and never as a whole
MOST_HELD_OUT = 2_000_000  # characters, unless the user says how many
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
        """The text and the part at its end; of a large file only where they are."""
        from ...estimators.text_file import TextFile

        min_chars = 2 if self.fraction == 0.0 else MIN_CHARS
        self.file_text: TextFile | None = None
        if self.file.is_file() and self.file.stat().st_size > LARGE:
            check_text_file(self.file)
            self.file_text = TextFile("recurra", self.file)
            num, different = self.file_text.num_chars, len(self.file_text.characters)
        else:
            self.text = read_text(self.file, min_chars=min_chars)
            num, different = len(self.text), len(set(self.text))
        size = min(int(num * 0.1), MOST_HELD_OUT) if self.fraction is None else int(num * self.fraction)
        size = size if size >= 2 else 0
        self.learned: Text
        self.held_out: Text
        if self.file_text is None:
            self.learned, self.held_out = self.text[: num - size], self.text[num - size :]
        else:
            self.learned, self.held_out = self.file_text.cut(num - size)
        self.num_learned, self.num_held_out = num - size, size
        pieces = "" if self.file_text is None else "; it is large and is read in pieces"
        self.facts = [("Text", f"{num:,} characters, {different} different{pieces}")]
        if size:
            self.facts.append(("Held out", f"the last {size:,} characters, for validation"))

    def part(self, begin: int, end: int) -> str:
        """Some characters of the file, as one text."""
        if self.file_text is None:
            return self.text[max(0, begin) : max(0, end)]
        from ...estimators.text_file import TextPart, text_blocks

        places = (self.file_text.byte(max(0, place)) for place in (begin, end))
        return "".join(text_blocks("recurra", TextPart(self.file, *places)))

    def defaults(self) -> dict[str, Any]:
        """Fifteen minutes."""
        return {"budget_minutes": 15.0, "precision": "auto"}

    def fit(self, model: Any, folder: Path, resume: bool, on_progress: Callable[[Any], bool | None]) -> None:
        """With validation where something is held out."""
        held_out = self.held_out if self.num_held_out else None
        model.fit(self.learned, held_out, on_progress, folder=folder, resume=resume)

    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """Beside models that only count; the passages that surprised it most; speed."""
        from ...estimators import NGramModel
        from ...report.language_model import evaluation

        found: dict[str, Any] = {**self.shared(model, folder), "unit": "character"}
        begin = time.perf_counter()
        model.generate(model.tokens_.newline, 200)
        speed = 200 / (time.perf_counter() - begin)
        found["speed"] = [["writing", f"{speed:,.0f} {model.tokens_.unit} per second, one at a time"]]
        n = self.num_learned
        if not self.num_held_out:
            return {**found, "frequent": [], "start": self.part(0, 400)}
        part = self.part(n, n + min(LOOK, self.num_held_out))
        losses = (-model.log_probabilities(part)).tolist()
        learned = self.learned if isinstance(self.learned, str) else self.part(n - COUNT, n)
        found.update(evaluation(losses, model.tokenize(part)[1:], learned))
        found["start"] = self.part(0, min(400, n))
        if self.file_text is not None:
            found["counted"] = f"in the last {len(learned):,} characters of the training text"
        found["metrics"] = {"nats": model.record_["validation"]["nats_per_char"], **model.record_["validation"]}
        counted, rest = learned[-COUNT:], self.part(n, n + min(self.num_held_out, COUNT))
        shown = f", on the first {len(rest):,} characters" if len(rest) < self.num_held_out else ""
        found["baselines"] = [
            {"name": words + shown, "nats": NGramModel(order).fit(counted).evaluate(rest)["nats_per_char"]}
            for order, words in ORDERS.items()
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
        metrics = model.evaluate(self.text if self.file_text is None else self.file)
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
