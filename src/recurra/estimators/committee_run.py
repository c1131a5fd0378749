"""Several language models that are trained side by side and answer together."""

from __future__ import annotations

import math
import shutil
import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..training.place import is_first_process, num_processes
from ..training.run_folder import ASKED
from .training_run import TrainingProgress

if TYPE_CHECKING:
    from .language_model import LanguageModel

MEMBERS = "members"
TRAINING_PART = 0.98  # of a time budget; the rest measures them together

OnProgress = Callable[[TrainingProgress], bool | None]


class CommitteeRun:
    """The training of a `LanguageModel` with ``num_models`` > 1.

    As many members at once as there are processor threads, each on its own; the others wait for their turn, and a time budget
    is divided among the turns. Each member is a `LanguageModel` with a seed of its own and, where there is a run folder, with
    a folder of its own in it, so a run that was killed is resumed member by member.

    Args:
        model: whose arguments the members have.
        on_progress: the user's; called under a lock.
        folder: of the run, or None.
    """

    def __init__(self, model: LanguageModel, on_progress: OnProgress | None, folder: Path | None) -> None:
        self.model, self.on_progress = model, on_progress
        self.folder = None if folder is None else folder / MEMBERS
        threads = torch.get_num_threads() if model._device().type == "cpu" else 1
        alone = num_processes() == 1  # members side by side would mix up the messages between processes
        self.num_workers = max(1, min(model.num_models, threads)) if alone else 1
        self.num_turns = math.ceil(model.num_models / self.num_workers)
        self.threads_each = max(1, threads // self.num_workers)
        budget = model.budget_minutes
        arguments = {**model.get_params(), "num_models": 1}
        if budget is not None:
            arguments["budget_minutes"] = budget * TRAINING_PART / self.num_turns
        self.members = [type(model)(**{**arguments, "seed": model.seed + n}) for n in range(model.num_models)]
        self.news: dict[int, TrainingProgress] = {}
        self.lock, self.stop = threading.Lock(), threading.Event()

    def run(self, text: Any, validation_text: Any, resume: bool) -> list[LanguageModel]:
        """Train; returns the members that were trained.

        Raises:
            KeyboardInterrupt: after all members have stopped; they are then in ``members``.
        """
        with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(self.num_workers) as pool:
            tasks = [pool.submit(self._fit, n, text, validation_text, resume) for n in range(len(self.members))]
            try:
                wait(tasks)
            except KeyboardInterrupt:
                self.stop.set()
                wait(tasks)
                raise
            for task in tasks:
                task.result()
        return self.trained()

    def trained(self) -> list[LanguageModel]:
        """The members that have made an update."""
        return [m for m in self.members if getattr(m, "record_", {}).get("updates_made")]

    def _fit(self, n: int, text: Any, validation_text: Any, resume: bool) -> None:
        if self.stop.is_set():
            return
        torch.set_num_threads(self.threads_each)  # of this thread
        folder = None if self.folder is None else self.folder / str(n)
        try:
            self.members[n].fit(text, validation_text, lambda news: self._tell(n, news), folder=folder, resume=resume)
            if self.members[n].record_["stopped"] == ASKED:  # by the first process, which alone is asked
                self.stop.set()
        except BaseException:
            self.stop.set()
            raise

    def _tell(self, n: int, news: TrainingProgress) -> bool:
        """The news of all members as one; True to stop."""
        with self.lock:
            first = len(self.news) < self.num_workers
            self.news[n] = news
            if len(self.news) < self.num_workers:
                return self.stop.is_set()
            if first:  # the plan of all is known
                begun = [self.members[k] for k in sorted(self.news)]
                self._announce(begun)
            told = self._together(n)
            if first:
                told = told._replace(update=0, part=0.0, epoch=0.0, loss=math.nan, validation=None, sample=None)
            if self.on_progress is not None and self.on_progress(told):
                self.stop.set()
            return self.stop.is_set()

    def _announce(self, begun: list[LanguageModel]) -> None:
        """The plan of all is known: the model has it, and so has the configuration in the run folder."""
        model = self.model
        model.tokens_, model.samples_, model.history_ = begun[0].tokens_, begun[0].samples_, []
        model.plan_ = self.plan(begun)
        model.record_ = {"plan": model.plan_}
        if self.folder is not None and is_first_process():
            model._announce(self.folder.parent, begun[0]._fingerprint)

    def _together(self, n: int) -> TrainingProgress:
        seen, num = list(self.news.values()), len(self.members)
        losses = [news.loss for news in seen if not math.isnan(news.loss)]
        part = sum(news.part for news in seen) / num
        active = [news for news in seen if news.part < 1]
        seconds = max(news.seconds for news in seen)
        begun = max(self.news) // self.num_workers
        waiting = self.num_turns - 1 - begun
        whole = max((news.seconds + news.seconds_left for news in seen), default=0.0)
        return self.news[n]._replace(
            update=sum(news.update for news in seen),
            num_updates=round(statistics.fmean(news.num_updates for news in seen) * num),
            part=part,
            epoch=sum(news.epoch for news in seen) / num,
            loss=statistics.fmean(losses) if losses else math.nan,
            seconds=seconds + begun * whole,
            seconds_left=max((news.seconds_left for news in active), default=0.0) + waiting * whole,
            chars_per_second=sum(news.chars_per_second for news in active),
            sample=self.news[n].sample if n == 0 else None,
        )

    def clean(self) -> None:
        """Remove the members' folders, whose weights stand in the committee's."""
        if self.folder is not None and self.folder.is_dir() and is_first_process():
            shutil.rmtree(self.folder)

    def plan(self, trained: list[LanguageModel]) -> dict[str, Any]:
        """What was decided, for all together."""
        plans = [member.plan_ for member in trained]
        together = (
            f"{len(self.members)} models are trained, {self.num_workers} at a time; their probabilities are averaged."
        )
        if self.num_workers == 1:
            together = f"{len(self.members)} models are trained one after the other; their probabilities are averaged."
        notes = [together, *dict.fromkeys(note for plan in plans for note in plan["notes"])]
        num = len(self.members)
        totals = {
            k: round(statistics.fmean(plan[k] for plan in plans) * num) for k in ("num_parameters", "num_updates")
        }
        return {**plans[0], **totals, "notes": notes, "updates_of_members": [plan["num_updates"] for plan in plans]}

    def record(self, trained: list[LanguageModel]) -> dict[str, Any]:
        """How it went, for all together."""
        records = [member.record_ for member in trained]
        return {
            **records[0],
            "plan": self.plan(trained),
            "updates_made": sum(record["updates_made"] for record in records),
            "epochs": round(statistics.fmean(record["epochs"] for record in records), 3),
            "stopped": next((record["stopped"] for record in records if record["stopped"]), ""),
            "best": statistics.fmean(r["best"] for r in records) if all(r["best"] for r in records) else None,
            "members": [{key: r[key] for key in ("updates_made", "epochs", "best", "seconds")} for r in records],
        }

    def history(self, trained: list[LanguageModel]) -> list[dict[str, Any]]:
        """The means over the members, validation by validation."""
        rows = []
        for same in zip(*(member.history_ for member in trained)):
            numbers = {k: [row[k] for row in same] for k in same[0]}
            rows.append({k: _mean(values) for k, values in numbers.items()})
        return rows


def _mean(values: list[Any]) -> Any:
    if all(isinstance(v, int) for v in values):
        return round(statistics.fmean(values))
    return statistics.fmean(values) if all(isinstance(v, int | float) for v in values) else values[0]
