"""What a training run shows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .reading import clock

if TYPE_CHECKING:
    from rich.console import Console

    from ..estimators import TrainingProgress
    from ..training import TrainProgress


def console(*, stderr: bool = False) -> Console:
    """A rich console that never reads markup or emoji out of a text."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def facts(screen: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    screen.print(grid)


def model_facts(model: Any, said: Collection[str] = ()) -> list[tuple[str, str]]:
    """What a model is and how it will be trained, in words.

    Args:
        model: whose training begins.
        said: notes that were shown before.
    """
    plan = model.plan_
    size = f"{model.num_layers} layer{'s' * (model.num_layers != 1)}"
    if getattr(model, "hidden_size", None):
        size += f" of {model.hidden_size}"
    passes = plan["num_updates"] / plan["updates_per_epoch"]
    falling = {"linear": ", falling in a line to 0", "cosine": ", falling to 0", "constant": ""}[model.lr_decay]
    rate = f", lr {model.lr:g}{falling}" if model.lr else ""
    update_s = plan["seconds_per_update"]
    each = ""
    if "batch_size" in plan and "num_steps" in plan:
        streams = "1 stream" if plan["batch_size"] == 1 else f"{plan['batch_size']} streams"
        each = f" of {streams} x {plan['num_steps']} {model.tokens_.unit}"
    rows = [
        ("Model", f"{model.cell}, {size}, {plan['num_parameters']:,} parameters"),
        ("Learning", f"{model.rule} with engine {model.engine}, {model.optimizer}{rate}"),
        ("Numbers", f"{plan['precision']}, {plan['device']}, threads: {plan['threads']}"),
        (
            "Plan",
            f"{plan['num_updates']:,} update{'s' * (plan['num_updates'] != 1)}{each}: "
            + (f"{passes:.1f} passes over the data" if passes >= 0.1 else "less than a tenth of the data")
            + (f", {update_s:.2f} s each" if update_s else ""),
        ),
    ]
    return rows + [("Note", note) for note in plan["notes"] if note not in said]


class TrainingScreen:
    """A progress bar with the time left, and a line for every validation and every tenth of the run: the ``on_progress`` of any
    estimator.

    Args:
        screen: where to.
        model: in training.
        show_samples: print the model's samples too, at the beginning, in the middle and at the end.
        said: notes about the data that were shown before.
    """

    def __init__(self, screen: Console, model: Any, *, show_samples: bool = False, said: Collection[str] = ()) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.screen, self.model, self.show_samples, self.said = screen, model, show_samples, said
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[news]}"),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
            expand=True,
        )
        self.lines = self.num_notes = self.tenth = 0
        self.past_middle = self.begun = False

    def __enter__(self) -> Self:
        self.task = self.bar.add_task("Timing a few updates", total=None, news="")
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, progress: TrainingProgress | TrainProgress) -> None:
        """Show an update."""
        from ..estimators import TrainingProgress

        if not self.begun:  # a resumed run begins with some updates made
            self.begun = True
            facts(self.screen, model_facts(self.model, self.said))
            self.num_notes = len(self.model.plan_["notes"])
            self.screen.print()
        sample = progress.sample if isinstance(progress, TrainingProgress) else None
        tenth = int(progress.part * 10 + 1e-9)
        late = tenth > self.tenth and not math.isnan(progress.loss)  # nothing is held out, or it is measured seldom
        if late or progress.validation is not None or (sample is not None and progress.update):
            self._line(progress)
            self.tenth = tenth
        if sample is not None and self.show_samples and self._wanted(progress):
            show_sample(self.screen, f"what it writes after {progress.update:,} updates", sample)
        done = progress.update == progress.num_updates
        loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.3f}  "
        speed = ""
        if isinstance(progress, TrainingProgress):
            speed = f"{progress.chars_per_second / 1000:,.1f}k {self.model.tokens_.unit}/s  "
        news = f"{loss}{speed}{clock(progress.seconds_left)} left"
        self.bar.update(
            self.task,
            description="Measuring" if done else f"update {progress.update:,} of {progress.num_updates:,}",
            total=None if done else 1.0,
            completed=progress.part,
            news="" if done else news,
        )

    def _line(self, progress: TrainingProgress | TrainProgress) -> None:
        if not self.lines:
            self.screen.print("    done   update   passes    training   validation     time     left")
        self.lines += 1
        found = progress.validation
        if isinstance(found, dict):
            found = next(iter(found.values()), None)
        valid = "-" if found is None else f"{found:.4f}"
        self.screen.print(
            f"{progress.part:8.0%} {progress.update:8,} {progress.epoch:8.1f}"
            f" {progress.loss:11.4f} {valid:>12} {clock(progress.seconds):>8} {clock(progress.seconds_left):>8}"
        )

    def _wanted(self, progress: TrainingProgress | TrainProgress) -> bool:
        """At the beginning, early, in the middle and at the end."""
        middle = progress.part >= 0.5 and not self.past_middle
        self.past_middle = self.past_middle or middle
        return progress.part in (0.0, 1.0) or self.lines == 1 or middle


def show_sample(screen: Console, title: str, text: str) -> None:
    """A written text in a frame."""
    from rich.panel import Panel
    from rich.text import Text

    visible = "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip("\n")
    screen.print(Panel(Text(visible, overflow="fold"), title=Text(title), title_align="left", border_style="dim"))


def loss_words(metrics: dict[str, Any]) -> str:
    """A loss in all its units."""
    return (
        f"{metrics['nats_per_char']:.4f} nats per character = {metrics['bits_per_char']:.4f} bits, "
        f"perplexity {metrics['perplexity']:.3f}"
    )
