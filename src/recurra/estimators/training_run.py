"""How a language model is trained: planning, the updates, validation, averaged weights."""

from __future__ import annotations

import collections
import contextlib
import copy
import itertools
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.controls import Controls
from ..core.draws import happens
from ..core.engine import Engine
from ..core.loss import CrossEntropy, Loss, SequenceLoss
from ..core.rule import Chunk, Estimate, LearningRule
from ..engines import unroll
from ..training import Progress, TokenStream, fit

if TYPE_CHECKING:
    from .language_model import LanguageModel

UNKNOWN = 0  # the token of every character that the training text did not have
MIN_UPDATES_PER_EPOCH = 32  # below this many the batch is made smaller
VALIDATION_ROWS, WARM_UP = 16, 256  # validation while training: rows side by side, each with some text before it
METRIC_FIELDS = ("update", "epoch", "seconds", "lr", "train_nats_per_char", "validation_nats_per_char")
WHERE = "LanguageModel"


class TrainingProgress(NamedTuple):
    """What `LanguageModel.fit` tells before the first update and after each one.

    Args:
        update: updates made.
        num_updates: updates planned now (a time budget may change it on the way).
        part: of the run that is over, 0 to 1.
        epoch: passes over the text so far, with the begun one as a fraction.
        loss: mean training loss in nats per character since the last validation.
        lr: learning rate of the next update.
        seconds: since `fit` was called.
        seconds_left: expected until its end.
        chars_per_second: read in training.
        validation: nats per character of the averaged weights, where this update is followed by a validation.
        sample: a text that the model writes now, where there is a sample.
    """

    update: int
    num_updates: int
    part: float
    epoch: float
    loss: float
    lr: float
    seconds: float
    seconds_left: float
    chars_per_second: float
    validation: float | None
    sample: str | None


def put_weights(cell: Cell, weights: dict[str, Tensor]) -> None:
    """Copy ``weights``, by name, into a cell's parameters and buffers."""
    with torch.no_grad():
        for name, p in cell.named_parameters():
            p.copy_(weights[name])


@contextlib.contextmanager
def evaluating(cell: nn.Module) -> Iterator[None]:
    """The cell in evaluation mode, for a while."""
    was = cell.training
    cell.eval()
    try:
        yield
    finally:
        cell.train(was)


class TrainingRun:
    """One call of `LanguageModel.fit`."""

    def __init__(
        self,
        model: LanguageModel,
        text: str,
        validation_text: str | None,
        on_progress: Callable[[TrainingProgress], bool | None] | None,
        started: float,
    ) -> None:
        self.model, self.cell, self.started = model, model.cell_, started
        self.on_progress = on_progress or (lambda progress: None)
        tokens = model._encode(text)
        self.validation = None if validation_text is None else model._encode(validation_text)
        self.num_chars = len(text)
        self.stream = self._stream(tokens)
        self.plan: dict[str, Any] = {"notes": []}
        self.history: list[dict[str, float | int | str]] = []
        self.samples: list[dict[str, Any]] = []
        self.sample_seconds = self.validation_seconds = self.exact_seconds = 0.0
        self.average = (
            {n: p.detach().clone() for n, p in self.cell.named_parameters()} if model.weight_average else None
        )
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.num_done = self.num_stops = 0
        self.anchor = (0, 0.0)  # updates made and part done when the plan was last changed
        self.durations: collections.deque[float] = collections.deque(maxlen=50)
        self.recent: list[float] = []
        self.stopped = ""

    def _stream(self, tokens: Tensor) -> TokenStream:
        model = self.model
        fitting = max(1, len(tokens) // (model.num_steps * MIN_UPDATES_PER_EPOCH))
        return TokenStream(tokens, min(model.batch_size, fitting), model.num_steps)

    def elapsed(self) -> float:
        """Seconds since fit was called."""
        return time.perf_counter() - self.started

    # --- before training ---

    def prepare(self) -> None:
        """Decide everything that is left to decide."""
        model, plan, stream = self.model, self.plan, self.stream
        before = time.perf_counter()
        self.first_sample = self.sample()
        self.sample_seconds = time.perf_counter() - before
        if stream.batch_size < model.batch_size:
            streams = "one stream" if stream.batch_size == 1 else f"{stream.batch_size} parallel streams"
            self.note(
                f"The text is small: {streams} instead of {model.batch_size}, so that one pass has {len(stream)} updates."
            )
        seconds = self.choose_precision()
        plan.update(
            num_chars=self.num_chars,
            num_tokens=len(model.vocabulary_) + 1,
            num_parameters=sum(p.numel() for p in self.cell.parameters()),
            batch_size=stream.batch_size,
            num_steps=stream.num_steps,
            updates_per_epoch=len(stream),
            seconds_per_update=None if seconds is None else round(seconds, 4),
            threads=torch.get_num_threads(),
            device=str(self.cell.device),
        )
        plan["num_validations"] = model.num_validations
        plan["num_updates"] = self.count_updates(seconds)
        self.num_updates = self.num_planned = int(plan["num_updates"])
        plan["num_validations"] = min(plan["num_validations"], self.num_updates)
        self.warm_up = min(model.warmup_updates, self.num_updates // 10)

    def note(self, text: str) -> None:
        """One sentence about a decision that a user may want to know."""
        self.plan["notes"].append(text)

    def choose_precision(self) -> float | None:
        """Fix ``plan["precision"]``; returns the seconds of an update where they were measured."""
        model = self.model
        if model.precision != "auto":
            self.plan["precision"] = model.precision
            return self.seconds_per_update(model.precision) if model.budget_minutes is not None else None
        plain = self.seconds_per_update("float32")
        try:
            short = self.seconds_per_update("bfloat16")
        except RuntimeError:  # a processor without bfloat16, or a kernel that refuses it
            short = math.inf
        self.plan["precision"] = "bfloat16" if short < 0.9 * plain else "float32"
        return min(short, plain) if short < 0.9 * plain else plain

    def seconds_per_update(self, precision: str) -> float:
        """The median time of an update, measured on a copy; the first two warm up."""
        budget = self.model.budget_minutes
        limit = 10.0 if budget is None else min(10.0, 1.5 * budget)  # at most 2.5 % of the budget
        begin, times = time.perf_counter(), []

        def measure(progress: Progress) -> bool:
            times.append(time.perf_counter())
            return len(times) >= 10 or (len(times) >= 4 and times[-1] - begin > limit)

        cell = copy.deepcopy(self.cell).train()
        fit(
            cell,
            self.stream,
            CrossEntropy(),
            self.optimizer,
            rule=self.rule(precision),
            num_epochs=10,
            clip_norm=self.model.clip_norm,
            seed=self.model.seed,
            on_step=measure,
        )
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return statistics.median(gaps[1:] or gaps or [times[-1] - begin])

    def count_updates(self, seconds: float | None) -> int:
        """How many updates there will be."""
        model, per_epoch = self.model, len(self.stream)
        if model.num_updates is not None:
            return model.num_updates
        if model.budget_minutes is None:
            return per_epoch * (model.num_epochs or 10)
        assert seconds is not None
        self.time_validation()
        each = self.sample_seconds + self.validation_seconds
        left = 60 * model.budget_minutes - self.elapsed() - self.exact_seconds
        affordable = max(2, int(0.1 * left / each)) if each else model.num_validations  # a tenth of the time
        if affordable < model.num_validations:
            self.plan["num_validations"] = affordable
            self.note(
                f"One validation takes about {each:.1f} s: {affordable} of them instead of {model.num_validations}."
            )
        left -= self.plan["num_validations"] * each
        num = max(1, int(left / seconds))
        if left < seconds:
            self.note(f"The budget of {model.budget_minutes:g} min is too small for this model: one update only.")
        if num > model.max_epochs * per_epoch:
            num = model.max_epochs * per_epoch
            self.note(f"The budget is not used up: {model.max_epochs} passes (max_epochs) take less.")
        return num

    def time_validation(self) -> None:
        """Expect the times of a validation and of the exact one at the end, from parts of them."""
        if self.validation is None:
            return
        tokens, engine = self.validation, self.model._engine()
        for exact, size in ((False, VALIDATION_ROWS * 512), (True, 2000)):
            part = tokens[:size]
            for piece in (part[:50], part):  # the first one warms up
                begin = time.perf_counter()
                stream_loss(self.cell, piece, engine) if exact else self.validate(piece)
            seconds = (time.perf_counter() - begin) * len(tokens) / len(part)
            if exact:
                self.exact_seconds = seconds
            else:
                self.validation_seconds = seconds

    # --- training ---

    def rule(self, precision: str) -> LearningRule[Any]:
        """The learning rule, in bfloat16 if wanted."""
        rule = self.model._rule()
        return rule if precision == "float32" else _Autocast(rule, self.cell.device.type)

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """As the arguments say."""
        model = self.model
        kind = torch.optim.Adam if model.optimizer == "Adam" else torch.optim.AdamW
        return kind(parameters, lr=model.lr, betas=(0.9, model.beta2), weight_decay=model.weight_decay)

    def factor(self, num_done: int) -> float:
        """The learning rate's factor after so many updates."""
        part = self.part(num_done)
        decay = {"linear": 1 - part, "cosine": 0.5 * (1 + math.cos(math.pi * part)), "constant": 1.0}
        return min(1.0, (num_done + 1) / (self.warm_up + 1)) * decay[self.model.lr_decay]

    def part(self, num_done: int) -> float:
        """Which part of the run is over after so many updates."""
        begun, before = self.anchor
        if num_done >= self.num_updates:
            return 1.0
        return before + (1 - before) * (num_done - begun) / (self.num_updates - begun)

    def replan(self) -> None:
        """Make fewer updates where the time would not do (or again more, up to what was planned)."""
        assert self.model.budget_minutes is not None
        stops_left = self.plan["num_validations"] - self.num_stops
        aside = self.exact_seconds + stops_left * (self.validation_seconds + self.sample_seconds)
        left = 60 * self.model.budget_minutes - self.elapsed() - aside
        affordable = max(1, int(left / statistics.median(self.durations)))
        num = min(self.num_planned, self.num_done + affordable)
        if abs(num - self.num_updates) > 0.15 * (self.num_updates - self.num_done):
            self.anchor = self.num_done, self.part(self.num_done)
            self.num_updates = self.plan["num_updates"] = num

    def train(self) -> None:
        """All updates."""
        if self.tell(None, self.first_sample):
            return
        self.cell.train()
        self.last_time = time.perf_counter()
        fit(
            self.cell,
            Restarts(self.stream, self.model.restart, self.model.seed),
            CrossEntropy(),
            self.optimizer,
            rule=self.rule(self.plan["precision"]),
            num_steps=self.num_updates,
            clip_norm=self.model.clip_norm,
            lr_schedule=self.factor,
            seed=self.model.seed,
            on_step=self.after_update,
        )

    def after_update(self, progress: Progress) -> bool:
        """Average, validate, write a sample, tell."""
        self.num_done = progress.num_steps
        self.recent.append(progress.loss)
        self.update_average()
        self.durations.append(time.perf_counter() - self.last_time)
        if self.model.budget_minutes is not None and self.num_done % 25 == 0 and self.num_done < self.num_updates:
            self.replan()
        validation = sample = None
        num_stops = int(self.part(self.num_done) * self.plan["num_validations"] + 1e-9)
        is_stop, self.num_stops = num_stops > self.num_stops, num_stops
        if is_stop:
            with self.averaged():
                before = time.perf_counter()
                if self.validation is not None:
                    validation = self.validate(self.validation)
                    self.keep_best(validation)
                    self.validation_seconds = time.perf_counter() - before
                before = time.perf_counter()
                sample = self.sample()
                self.sample_seconds = time.perf_counter() - before
            measured = "" if validation is None else validation
            rate = self.model.lr * self.factor(self.num_done)
            epoch, seconds = round(self.num_done / len(self.stream), 3), round(self.elapsed(), 2)
            row = (self.num_done, epoch, seconds, rate, statistics.fmean(self.recent), measured)
            self.history.append(dict(zip(METRIC_FIELDS, row)))
        stop = self.tell(validation, sample)
        if is_stop:
            self.recent = []
        self.last_time = time.perf_counter()
        return stop or self.num_done >= self.num_updates

    def tell(self, validation: float | None, sample: str | None) -> bool:
        """Report; True to stop."""
        if sample is not None:
            self.samples.append({"update": self.num_done, "text": sample})
        per_update = statistics.median(self.durations) if self.durations else self.plan["seconds_per_update"] or 0.0
        stops_left = self.plan["num_validations"] - self.num_stops
        left = (self.num_updates - self.num_done) * per_update + self.exact_seconds
        left += stops_left * (self.validation_seconds + self.sample_seconds)
        news = TrainingProgress(
            update=self.num_done,
            num_updates=self.num_updates,
            part=self.part(self.num_done),
            epoch=self.num_done / len(self.stream),
            loss=statistics.fmean(self.recent) if self.recent else math.nan,
            lr=self.model.lr * self.factor(self.num_done),
            seconds=self.elapsed(),
            seconds_left=left,
            chars_per_second=self.num_chars / len(self.stream) / per_update if per_update else 0.0,
            validation=validation,
            sample=sample,
        )
        if self.on_progress(news):
            self.stopped = "asked to stop"
        return bool(self.stopped)

    def update_average(self) -> None:
        """``average <- decay average + (1 - decay) weights``; the decay is smaller at the beginning."""
        if self.average is None:
            return
        decay = min(self.model.weight_average, (1 + self.num_done) / (10 + self.num_done))
        with torch.no_grad():
            for name, p in self.cell.named_parameters():
                self.average[name].lerp_(p, 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The cell with its averaged weights."""
        if self.average is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in self.cell.named_parameters()}
        put_weights(self.cell, self.average)
        try:
            yield
        finally:
            put_weights(self.cell, own)

    def validate(self, tokens: Tensor) -> float:
        """Nats per character, quickly: rows side by side, in the precision of training."""
        rows = max(1, min(VALIDATION_ROWS, len(tokens) // (4 * WARM_UP)))
        short = self.plan["precision"] == "bfloat16"
        engine = self.model._engine()
        with torch.autocast(self.cell.device.type, torch.bfloat16, enabled=short):
            return stream_loss(self.cell, tokens, engine, num_rows=rows, warm_up=WARM_UP, chunk_length=256)

    def keep_best(self, validation: float) -> None:
        """Remember the weights of the best validation; after too many without a new best, stop."""
        if self.best is None or validation < self.best[0]:
            weights = {name: p.detach().clone() for name, p in self.cell.named_parameters()}
            self.best, self.worse = (validation, self.num_done, weights), 0
            return
        self.worse += 1
        if self.model.patience is not None and self.worse >= self.model.patience:
            self.stopped = f"no better validation in {self.worse} in a row"

    def sample(self) -> str | None:
        """What the model writes now."""
        model = self.model
        if not model.sample_length:
            return None
        prompt = "\n" if "\n" in model.vocabulary_ else ""
        return model.generate(prompt, model.sample_length, seed=model.seed)

    # --- after training ---

    def finish(self) -> dict[str, Any]:
        """Give the cell the weights that remain; returns the record."""
        kept = self.num_done
        if self.best is not None:
            kept = self.best[1]
            put_weights(self.cell, self.best[2])
        elif self.average is not None:
            put_weights(self.cell, self.average)
        self.cell.eval()
        if self.num_done and self.plan["num_updates"] < self.num_planned:
            made, wanted = self.plan["num_updates"], self.num_planned
            self.note(f"The machine became slower: {made:,} updates instead of {wanted:,}, to end in time.")
        return {
            "plan": self.plan,
            "updates_made": self.num_done,
            "epochs": round(self.num_done / len(self.stream), 3),
            "weights_of_update": kept,
            "stopped": self.stopped or ("" if self.num_done == self.plan.get("num_updates") else "interrupted"),
            "seconds": round(self.elapsed(), 1),
        }


class Restarts:
    """The chunks of a stream, whose rows now and then start from the initial state."""

    def __init__(self, stream: TokenStream, p: float, seed: int) -> None:
        self.stream, self.p = stream, p
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.stream:
            rows = happens((chunk.xs.shape[1],), self.p, self.generator, chunk.xs.device)
            if self.p and chunk.controls.reset is None and bool(rows.any()):
                reset = torch.zeros_like(chunk.xs, dtype=torch.bool)
                reset[0] = rows
                yield chunk._replace(controls=Controls(reset=reset))
            else:
                yield chunk


@dataclass(frozen=True)
class _Autocast(LearningRule[Any]):
    """A rule whose products are computed in bfloat16."""

    rule: LearningRule[Any]
    device_type: str

    @property
    def kind(self) -> Any:  # type: ignore[override]
        """The rule's."""
        return self.rule.kind

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """The rule's."""
        return self.rule.supports(cell, loss)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        """The rule's."""
        return self.rule.init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        """The rule's, under autocast."""
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.rule.step(cell, carry, chunk, loss)


def stream_loss(
    cell: Cell, tokens: Tensor, engine: Engine, *, num_rows: int = 1, warm_up: int = 0, chunk_length: int = 1000
) -> float:
    """Mean cross-entropy in nats of every token but the first, the state being carried on.

    Args:
        cell: tokens (B,) in, logits (B, V) out; run in evaluation mode.
        tokens: (N,) int64, N >= 2.
        engine: how to run the cell.
        num_rows: parts of the text that are read side by side. 1 is exact; more are faster, and each row reads
            ``warm_up`` tokens before its part so that its state is nearly that of the whole.
        warm_up: see ``num_rows``.
        chunk_length: tokens at a time; changes nothing but memory.
    """
    num = len(tokens) - 1
    num_rows = min(num_rows, num)
    warm_up = warm_up if num_rows > 1 else 0
    length = -(-num // num_rows)
    # Row b predicts tokens[b*length + 1 ...]; positions before the beginning and beyond the end count for nothing.
    start = torch.arange(num_rows, device=tokens.device) * length - warm_up
    total = length + warm_up
    state, sums = cell.initial_state(num_rows), 0.0
    with torch.no_grad(), evaluating(cell):
        for a in range(0, total, chunk_length):
            steps = torch.arange(a, min(a + chunk_length, total), device=tokens.device)
            place = start + steps[:, None]  # (T, B)
            xs, targets = tokens[place.clamp(0, num)], tokens[(place + 1).clamp(0, num)]
            begins = place == 0 if warm_up and a <= warm_up < a + chunk_length else None
            ys, state = unroll(cell, xs, state, Controls(reset=begins), engine=engine)
            losses = CrossEntropy().per_step(ys.float(), targets)
            counts = (steps[:, None] >= warm_up) & (place < num)
            sums += float(torch.where(counts, losses, 0).sum(dtype=torch.float64))
    return sums / num


def versions() -> dict[str, str]:
    """What a saved model was made with."""
    from .. import __version__

    return {"recurra": __version__, "torch": torch.__version__, "python": platform.python_version()}
