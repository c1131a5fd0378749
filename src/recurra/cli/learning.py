"""One run of ``recurra learn``: lines in, answers out, the model into its folder."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.checks import check_positive, sentence
from ..datasets.lines import Lines
from ..datasets.records import Records, is_time
from .folder import Replaced, check_free, tidy
from .reading import clock
from .screen import console, facts
from .stopping import Stopping

if TYPE_CHECKING:
    from ..estimators.online.stream import Answer, Stream

TARGETS = ("target", "label", "class", "y")
LABELS = ("label", "class")
MOST_TEXTS = 50  # different ones in a column; one with more is a name or a time, and no category
SHOWN_MISTAKES = 10
FIRST_NEWS_S, LATER_NEWS_S = 2.0, 60.0
ROWS_PER_WRITE = 500


class _WrongColumn(ValueError):
    """A column that the user named is not there."""


@dataclass(frozen=True)
class Options:
    """What the user said; see ``recurra learn --help``."""

    stream: str
    target: str | None = None
    kind: str | None = None
    horizon: int | None = None
    ignored: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    folder: Path | None = None
    resume: bool = False
    replayed: bool = False
    overwrite: bool = False
    save_every: str = "30s"
    strict: bool = False
    quiet: bool = False
    as_json: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise for what does not go together.

        Raises:
            ValueError: it does not.
        """
        if self.kind not in (None, "forecast", "classify"):
            raise ValueError(sentence("recurra", "--as", "forecast or classify", self.kind))
        if self.horizon is not None:
            check_positive("recurra", **{"--horizon": self.horizon})
        if self.resume and self.folder is None:
            raise ValueError(sentence("recurra", "--resume", "given with --out, the folder of the model", "no --out"))
        if self.resume and self.overwrite:
            raise ValueError(sentence("recurra", "--resume", "given without --overwrite", "both"))
        if self.replayed and not (self.resume and self.stream == "-"):
            raise ValueError(sentence("recurra", "--replayed", "given with --resume and standard input (-)", "without"))

    def interval(self) -> tuple[float, float]:
        """Seconds and rows between two states on the disk; one of them is infinite.

        Raises:
            ValueError: another form.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|m|h|)\s*", self.save_every)
        value = float(found[1]) if found else 0.0
        if found is None or not value > 0:
            want = "a time such as 30s or 5m, or a number of rows"
            raise ValueError(sentence("recurra", "--save-every", want, repr(self.save_every)))
        unit = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 0.0}[found[2]]
        return (value * unit, math.inf) if unit else (math.inf, value)


class StreamRun:
    """From the first line to the last.

    Args:
        options: what the user said.
    """

    def __init__(self, options: Options) -> None:
        options.check()
        self.options = options
        self.save_s, self.save_rows = options.interval()
        self.screen = console(stderr=True)
        self.form: Records | None = None
        self.stream: Stream | None = None
        self.time_column: str | None = None
        self.texts: dict[str, list[str]] = {}
        self.num_lines = self.num_bad = self.num_unanswered = 0
        self.digest = ""
        self.seconds = 0.0
        self.unread = b""
        self.is_open = True  # standard output
        self.rows_here = self.num_news = 0

    # --- the whole ---

    def run(self) -> int | None:
        """Learn until the stream ends or someone asks to stop; returns the signal that asked."""
        options = self.options
        if options.folder is not None:
            tidy(options.folder)
        if options.resume:
            self._resume()
        elif options.folder is not None:
            check_free(options.folder, options.overwrite)
        self.began = self.saved_at = self.news_at = time.monotonic()
        self.news_s = FIRST_NEWS_S
        self.rows_saved = 0
        with Stopping() as stopping, _opened(options.stream) as descriptor:
            self.lines = Lines(descriptor, wake=stopping.wake, unread=self.unread)
            if options.resume and (options.stream != "-" or options.replayed):
                self._skip(stopping)
            try:
                self._loop(stopping)
            except BaseException:
                self._save(end=True)  # what was learned before the error
                raise
            self._end(stopping)
            return stopping.signal

    def _loop(self, stopping: Stopping) -> None:
        while not stopping.asked and self.is_open:
            wait = None if self.options.folder is None else max(0.05, self.saved_at + self.save_s - time.monotonic())
            line = self.lines.next(None if wait == math.inf else wait)
            if line is None:
                if self.lines.ended:
                    break
            else:
                self._line(line)
            self._save()
            self._news()
            if not self.lines.more:
                self._flush()

    def _line(self, data: bytes) -> None:
        """One line; it counts as read when that is over."""
        try:
            line = data.decode("utf-8-sig" if self.num_lines == 0 else "utf-8")
            self._text(line)
        except _WrongColumn:
            raise
        except (ValueError, TypeError) as error:
            where = f"line {self.num_lines + 1:,}"
            reason = "it is not in UTF-8" if isinstance(error, UnicodeDecodeError) else _reason(error)
            if self.form is None or self.options.strict:
                hint = " The rows before it were learned." if self.rows_here else ""
                raise ValueError(f"recurra: {where} of {self._name()} is no row: {reason}.{hint}") from None
            self.num_bad += 1
            if self.num_bad <= SHOWN_MISTAKES:
                self._say(f"{where} was skipped: {reason}.")
                if self.num_bad == SHOWN_MISTAKES:
                    self._say("More lines that are skipped will be counted only.")
        self.num_lines += 1
        self.digest = _chained(self.digest, data)

    def _text(self, line: str) -> None:
        if not line.strip():
            return
        if self.form is None:
            form, is_row = Records.begin(line, self.options.names)
            self._check_columns(form.names)
            if is_row:
                self._row(form, line)
            self.form = form
            return
        if self.rows_here == 0 and self.form.is_header(line):
            return  # a stream that goes on may name its columns again
        self._row(self.form, line)

    def _check_columns(self, names: Sequence[str]) -> None:
        """Raise if the stream names its columns and one that the user named is not among them."""
        target = [] if self.options.target is None else [self.options.target]
        for option, wanted in (("--target", target), ("--ignore", self.options.ignored)):
            for name in wanted:
                if names and name not in names:
                    raise _WrongColumn(
                        f"recurra: {option} must be a column of {self._name()} ({', '.join(names)}), got {name}."
                    )

    def _row(self, form: Records, line: str) -> None:
        row = form.read(line)
        if self.stream is None and not self._begin(row):
            return
        assert self.stream is not None
        for name, value in row.items():
            if isinstance(value, str) and name != self.stream.target and name not in self.stream.left_out:
                self._count_texts(name, value)
        answer = self.stream.row(row)
        self.rows_here += 1
        self._print(answer, row)

    # --- what the stream is ---

    def _begin(self, row: dict[str, Any]) -> bool:
        """Find out by the first row what there is to predict; False if it does not tell."""
        from ..estimators import OnlineClassifier, OnlineForecaster
        from ..estimators.online.stream import Stream

        options = self.options
        times = [name for name, value in row.items() if is_time(value)]
        target = options.target or self._find_target(row, times)
        if target not in row:
            raise ValueError(f"--target must be one of its columns ({', '.join(row)}), got {target}")
        unknown = [name for name in options.ignored if name not in row]
        if unknown:
            raise ValueError(f"--ignore must name its columns ({', '.join(row)}), got {unknown[0]}")
        value = row[target]
        if value is None and options.kind is None:  # what it is will be seen
            if not self.num_unanswered:
                self._say(f"Line {self.num_lines + 1:,}: {target} is missing; rows are passed over until it is there.")
            self.num_unanswered += 1
            return False
        is_number = isinstance(value, float | int) and not isinstance(value, bool)
        guess = "forecast" if is_number and target.lower() not in LABELS else "classify"
        kind = options.kind or guess
        if kind == "classify" and options.horizon is not None:
            raise ValueError(sentence("recurra", "--horizon", "left out for classes", options.horizon))
        if kind == "forecast" and isinstance(value, str):
            raise ValueError(f"--as forecast needs numbers, and the target {target!r} of the first row is {value!r}")
        self.time_column = next((name for name in times if name != target), None)
        left_out = [*options.ignored, *(name for name in times if name != target and name not in options.ignored)]
        model = (OnlineForecaster if kind == "forecast" else OnlineClassifier)(**options.arguments)
        model._check_arguments()
        self.stream = Stream(model, target, left_out, options.horizon or 1)
        seen = [name for name in row if name not in (target, *left_out)]
        what = "a number, so it is forecast" if kind == "forecast" else "a class"
        if options.kind is None and kind == "forecast" and isinstance(value, float) and value.is_integer():
            what += " (--as classify makes classes of its values)"
        self._facts(what, seen, left_out)
        return True

    def _find_target(self, row: dict[str, Any], times: list[str]) -> str:
        lower = {name.lower(): name for name in reversed(row)}
        for name in TARGETS:
            if name in lower:
                return lower[name]
        return next(
            (name for name in reversed(row) if name not in (*times, *self.options.ignored)), next(iter(row), "")
        )

    def _facts(self, what: str, seen: list[str], left_out: list[str]) -> None:
        assert self.stream is not None
        stream, model = self.stream, self.stream.model
        ahead = f", {stream.horizon} steps ahead" if stream.horizon > 1 else ""
        own = ["its own past"] if stream.forecasts else ["the class of the row before"]
        rows = [
            ("Stream", self._name()),
            ("Target", f"{stream.target}: {what}{ahead}"),
            ("Sees", ", ".join([*own, *seen])),
        ]
        if left_out:
            reason = f" ({self.time_column} is a time)" if self.time_column in left_out else ""
            rows.append(("Not seen", ", ".join(left_out) + reason))
        net = f"{model.cell}, {model.num_layers} layer{'s' * (model.num_layers != 1)} of {model.hidden_size}"
        rows.append(("Model", f"{net}, learns by {model.rule} with {model.optimizer}, lr {model.lr:g}"))
        folder = self.options.folder
        rows.append(("Saved", f"to {folder} every {self.options.save_every}" if folder else "nowhere, without --out"))
        facts(self.screen, rows)

    def _count_texts(self, name: str, value: str) -> None:
        """Leave a column out that holds ever new texts."""
        assert self.stream is not None
        seen = self.texts.setdefault(name, [])
        if value in seen:
            return
        seen.append(value)
        if len(seen) > MOST_TEXTS:
            self.stream.left_out.append(name)
            self.texts[name] = []
            self._say(
                f"The column {name} has more than {MOST_TEXTS} different texts: the model does not see it from now on."
            )

    # --- what is printed ---

    def _print(self, answer: Answer, row: dict[str, Any]) -> None:
        if self.options.quiet:
            return
        assert self.stream is not None
        shown: dict[str, Any] = {"line": self.num_lines + 1}
        if self.time_column is not None:
            shown[self.time_column] = row.get(self.time_column)
        shown["prediction"] = _short(answer.prediction)
        if not self.stream.forecasts:
            shown["probability"] = None if answer.probability is None else round(answer.probability, 4)
        shown["truth"] = _short(answer.truth)
        if self.stream.forecasts:
            known = answer.prediction is not None and answer.truth is not None
            shown["error"] = _short(answer.prediction - answer.truth) if known else None
        if self.options.as_json:
            self._write(json.dumps(shown) + "\n")
            return
        if self.rows_here == 1:
            self._write(_csv(shown.keys()))
        self._write(_csv(f"{v:.7g}" if isinstance(v, float) else v for v in shown.values()))

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            if self.rows_here % ROWS_PER_WRITE == 0:
                sys.stdout.flush()
        except BrokenPipeError:
            self._closed()

    def _flush(self) -> None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            self._closed()

    def _closed(self) -> None:
        """Nobody reads on: stop; what Python wants to write at its end goes nowhere."""
        self.is_open = False
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _say(self, text: str) -> None:
        self.screen.print(text)

    def _news(self) -> None:
        """A line about the errors, at growing intervals."""
        now = time.monotonic()
        if now - self.news_at < self.news_s or self.stream is None or not self.stream.running.num:
            return
        self.news_at, self.news_s = now, min(2 * self.news_s, LATER_NEWS_S)
        running, form = self.stream.running, _measure(self.stream)
        if self.num_news == 0:
            word = "Mean absolute error" if self.stream.forecasts else "Share of wrong answers"
            self._say(f"{word} of late:")
        self.num_news += 1
        parts = [f"{name} {form(late)}" for name, late in zip(running.names, running.recent())]
        self._say(f"{clock(now - self.began):>8}  {self.rows_here:>9,} rows  {', '.join(parts)}")

    # --- the folder ---

    def _save(self, end: bool = False) -> None:
        folder, stream = self.options.folder, self.stream
        if folder is None or stream is None or not (self.rows_here or self.options.resume):
            return
        now = time.monotonic()
        first = self.rows_saved == 0
        if not (
            end or first or now - self.saved_at >= self.save_s or self.rows_here - self.rows_saved >= self.save_rows
        ):
            return
        assert self.form is not None
        old = Replaced(folder)
        if first and self.options.overwrite:
            old.put_aside()
        model = stream.model
        model.record_ = {
            "stream": {
                "name": self._name(),
                "form": self.form.pack(),
                "time_column": self.time_column,
                "texts": self.texts,
                "num_lines": self.num_lines,
                "num_bad": self.num_bad,
                "digest": self.digest,
                "seconds": self.seconds + now - self.began,
                "unread": self.lines.unread.decode("latin-1") if end and self.options.stream == "-" else "",
                "asked": stream.pack(),
            }
        }
        model.save(folder)
        if first:
            old.drop()
        self.saved_at, self.rows_saved = now, max(1, self.rows_here)

    def _resume(self) -> None:
        """Take the model and all that belongs to the stream."""
        from ..estimators import OnlineClassifier, OnlineForecaster
        from ..estimators.estimator import load_estimator
        from ..estimators.online.stream import Stream

        options = self.options
        assert options.folder is not None
        model = load_estimator(options.folder, where="recurra")
        if not isinstance(model, OnlineForecaster | OnlineClassifier):
            want = "the folder of a model of recurra learn"
            raise ValueError(sentence("recurra", "--resume", want, f"{options.folder}, which holds another model"))
        for name, value in options.arguments.items():
            if name != "lr" and getattr(model, name) != value:
                shown = "--" + {"num_layers": "layers"}.get(name, name).replace("_", "-")
                hint = "Only --lr may change."
                raise ValueError(sentence("recurra", shown, f"{getattr(model, name)!r} as before", repr(value), hint))
        model.set_params(**options.arguments)
        try:
            kept = model.record_["stream"]
            self.form = Records.unpack(kept["form"])
            self.time_column, self.texts = kept["time_column"], {n: list(t) for n, t in kept["texts"].items()}
            self.num_lines, self.num_bad, self.digest = (
                int(kept["num_lines"]),
                int(kept["num_bad"]),
                str(kept["digest"]),
            )
            self.seconds = float(kept["seconds"])
            self.unread = b"" if options.replayed or options.stream != "-" else str(kept["unread"]).encode("latin-1")
            self.stream = Stream.unpack(model, kept["asked"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"recurra: {options.folder / 'config.json'} is damaged or foreign: what it says of its stream ({error})."
            raise ValueError(text) from None
        before = {
            "target": (options.target, self.stream.target),
            "as": (options.kind, "forecast" if self.stream.forecasts else "classify"),
            "horizon": (options.horizon, self.stream.horizon),
        }
        for shown, (given, was) in before.items():
            if given is not None and given != was:
                raise ValueError(sentence("recurra", f"--{shown}", f"{was} as before, or left out", given))
        self.stream.left_out += [name for name in options.ignored if name not in self.stream.left_out]
        self._facts("as before", [], [])
        self._say(f"Goes on behind line {self.num_lines:,}, with {model.num_learned_:,} rows learned.")

    def _skip(self, stopping: Stopping) -> None:
        """Pass over the lines that were read before, and make sure that they are the same."""
        wanted, digest = self.digest, ""
        for number in range(self.num_lines):
            line = self.lines.next()
            if stopping.asked:
                return
            if line is None:
                got = f"one that ends after {number:,}"
                want = f"the stream of this model, with at least the {self.num_lines:,} lines that it has read"
                raise ValueError(sentence("recurra", self._name(), want, got))
            digest = _chained(digest, line)
        if digest != wanted:
            want = f"the stream of this model, whose first {self.num_lines:,} lines it has read"
            hint = "Without --resume, and with another --out, it is learned from the beginning."
            raise ValueError(sentence("recurra", self._name(), want, "another one, or a changed one", hint))

    # --- the end ---

    def _end(self, stopping: Stopping) -> None:
        self._flush()
        if self.stream is None:
            if stopping.asked:
                self._say("recurra: stopped before the first row.")
                return
            want = "a stream with at least one row" + " that has its target" * bool(self.num_unanswered)
            raise ValueError(sentence("recurra", self._name(), want, "none"))
        self._save(end=True)
        summary = self._summary()
        if self.options.as_json and self.is_open:
            from .train import finite

            self._write(json.dumps(finite({"summary": summary})) + "\n")
            self._flush()
        self._result(summary)
        folder = self.options.folder
        if folder is not None:
            from ..report import write_report
            from ..report.write import REPORT, write_evaluation

            write_evaluation(
                folder, {**summary, "running": self.stream.running.pack(), "shown": list(self.stream.shown)}
            )
            write_report(folder)
            facts(self.screen, [("Saved", str(folder)), ("Page", str(folder / REPORT))])
        if stopping.asked:
            again = " Go on with the same command and --resume." if folder else " Nothing was saved, without --out."
            self._say(f"recurra: stopped after line {self.num_lines:,}.{again}")

    def _summary(self) -> dict[str, Any]:
        stream = self.stream
        assert stream is not None
        model = stream.model
        learner = model.learner_
        seconds = self.seconds + time.monotonic() - self.began
        parameters = 0 if learner is None else sum(p.numel() for p in learner.cell.parameters())
        return {
            "stream": self._name(),
            "target": stream.target,
            "horizon": stream.horizon,
            "rows": model.num_learned_,
            "scored": stream.running.num,
            "skipped": self.num_bad,
            "errors": stream.facts(),
            "num_parameters": parameters,
            "bytes": model.num_bytes(),
            "seconds": seconds,
            "next": stream.next_values(max(stream.horizon, 1)),
            "classes": [str(c) for c in stream.counts],
        }

    def _result(self, summary: dict[str, Any]) -> None:
        assert self.stream is not None
        stream, running = self.stream, self.stream.running
        rows = f"{summary['rows']:,} learned"
        if self.rows_here != summary["rows"]:
            rows += f", {self.rows_here or 'none'} of them now"
        if self.num_bad:
            rows += f", {self.num_bad:,} line{'s' * (self.num_bad != 1)} skipped"
        if self.rows_here:
            rows += f"; {1e3 * (time.monotonic() - self.began) / self.rows_here:.3g} ms each"
        self.screen.print()
        found = [("Rows", rows)]
        if running.num:
            form = _measure(stream)
            word = "Mean absolute error" if stream.forecasts else "Wrong answers"
            for name, all_, late in zip(running.names, running.mean(), running.recent()):
                found.append((word, f"{form(all_)} by the {name}, of late {form(late)}"))
                word = ""
            ours, naive = running.mean()[0], min(running.mean()[1:])
            if naive < ours:
                best = running.names[1 + running.mean()[1:].index(naive)]
                found.append(("Note", f"On this stream the {best} is better than the model so far."))
        if summary["next"]:
            values = ", ".join(f"{v:.5g}" for v in summary["next"][:12])
            found.append(("Next", values + (", ..." if len(summary["next"]) > 12 else "")))
        facts(self.screen, found)

    def _name(self) -> str:
        return "standard input" if self.options.stream == "-" else self.options.stream


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    """A descriptor of a file or of standard input."""
    if name == "-":
        yield sys.stdin.fileno()
        return
    path = Path(name)
    if path.is_dir():
        raise ValueError(sentence("recurra", name, "a file of rows, or - for standard input", "a folder"))
    if not path.exists():
        raise FileNotFoundError(sentence("recurra", name, "a file of rows, or - for standard input", "nothing there"))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _chained(digest: str, line: bytes) -> str:
    """Of all lines so far."""
    return hashlib.sha256(digest.encode() + line).hexdigest()


def _reason(error: Exception) -> str:
    """A sentence of the model about a row, as part of one about a line."""
    return re.sub(r"^\w+: ", "", str(error)).rstrip(".")


def _measure(stream: Stream) -> Any:
    return (lambda value: f"{value:.4g}") if stream.forecasts else (lambda value: f"{value:.1%}")


def _short(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value


def _csv(values: Any) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerow(list(values))
    return target.getvalue()
