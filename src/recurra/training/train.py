"""A training run that people can rely on: planned once, watched, saved, resumed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import ConstrainedCell
from ..core.checks import sentence
from ..core.draws import RANDOM
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, LearningRule
from ..learning import BPTT
from .batches import TrainingData, mixed_seed
from .calibrate import choose_precision, count_updates
from .place import Place
from .run_folder import ASKED, INTERRUPTED, RunFolder, random_state, set_random_state
from .settings import TrainSettings
from .update import Updater

Metrics = dict[str, float]


class TrainProgress(NamedTuple):
    """What `train` tells before the first update and after each one.

    Args:
        update: updates made.
        num_updates: updates planned.
        part: of the run that is over, 0 to 1.
        epoch: passes over the data so far, with the begun one as a fraction.
        loss: mean training loss since the last validation; NaN before the first update.
        lr: learning rate of the next update.
        seconds: since the run began, earlier sessions of a resumed run included.
        seconds_left: expected until its end.
        validation: what ``validate`` returned, where this update is followed by a validation.
        seconds_per_update: the median of the last ones.
    """

    update: int
    num_updates: int
    part: float
    epoch: float
    loss: float
    lr: float
    seconds: float
    seconds_left: float
    validation: Metrics | None
    seconds_per_update: float


class TrainRecord(NamedTuple):
    """How a run went: plain values.

    Args:
        plan: what was decided before the first update: ``num_updates``, ``num_validations``, ``precision``, ``device``,
            ``updates_per_epoch``, ``num_parameters``, ``seconds_per_update``, ``threads``, ``processes``, ``notes``.
        history: a row for each validation: update, epoch, seconds, lr, train_NAME, validation_NAME ...
        updates_made: the number of updates.
        epochs: passes over the data.
        weights_of_update: the update whose weights remain.
        stopped: why the run ended early; empty if it did not.
        seconds: the time it took.
        best: the deciding number of the best validation; None without validations.
    """

    plan: dict[str, Any]
    history: list[dict[str, Any]]
    updates_made: int
    epochs: float
    weights_of_update: int
    stopped: str
    seconds: float
    best: float | None


def train(
    module: nn.Module,
    data: TrainingData,
    loss: Loss | SequenceLoss,
    settings: TrainSettings | None = None,
    *,
    rule: LearningRule[Any] | None = None,
    validate: Callable[[nn.Module], Metrics] | None = None,
    on_progress: Callable[[TrainProgress], bool | None] | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **more: Any,
) -> TrainRecord:
    """Train any cell (or, with `BPTT`, any module), with validation, averaged weights, checkpoints and exact resumption.

    The module ends in evaluation mode with the weights that remain: those of the best validation if there are validations,
    else the averaged ones if there is an average, else the last.

    Args:
        module: a cell, or for `BPTT` any module; moved to the settings' device.
        data: the chunks; see `Batches`, `TokenStream`.
        loss: summed by the rule, divided by the summed weight here.
        settings: see `TrainSettings`.
        rule: `BPTT` unless given.
        validate: measures the module, which is in evaluation mode with its averaged weights and without gradients; the
            first entry decides which weights are kept, and lower is better. An empty dict decides nothing.
        on_progress: told before the first update and after every update; True stops the run.
        folder: for checkpoints, ``metrics.csv`` and TensorBoard events.
        resume: go on from the newest checkpoint in ``folder``; the end is bit-identical to that of a run that was never
            interrupted (on the CPU, with the same number of threads and processes).
        more: see `Training`.

    Returns:
        How it went.

    Raises:
        TypeError: the rule does not support the module or the loss.
        ValueError: a setting out of range, a checkpoint that is damaged or of another run.
        FloatingPointError: the loss is no longer finite; the last good checkpoint stays.
        OSError: the folder cannot be written.

    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> from recurra.training import Batches
        >>> _ = torch.manual_seed(0)
        >>> data = Batches([torch.randn(7, 3)] * 4, [torch.zeros(7, 5)] * 4, batch_size=2)
        >>> train(ElmanCell(3, 5), data, MeanSquaredError(), TrainSettings(num_epochs=5)).updates_made
        10
    """
    run = Training(
        module, data, loss, settings or TrainSettings(),
        rule=rule, validate=validate, on_progress=on_progress, folder=folder, resume=resume, **more,
    )  # fmt: skip
    run.run()
    return run.record()


class Training:
    """One run of `train`, for callers that want its record even where it is interrupted.

    Args:
        module, data, loss, settings, rule, validate, on_progress, folder, resume: as for `train`.
        where: who trains, for messages.
        loss_name: of the training loss in the history: ``train_NAME``.
        fingerprint: of the data and whatever else must be the same when a run is resumed.
        memo: a dict of JSON values of the caller's that is part of the run: saved in checkpoints, filled on resumption.
        on_plan: told the plan before the first update, and where a run is resumed.
        started: ``time.perf_counter()`` at the beginning of what counts as the run's time.
        time_validation: the expected seconds of one validation and of what the caller does after training, asked only where
            there is a budget; None times one validation.
    """

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        loss: Loss | SequenceLoss,
        settings: TrainSettings,
        *,
        rule: LearningRule[Any] | None = None,
        validate: Callable[[nn.Module], Metrics] | None = None,
        on_progress: Callable[[TrainProgress], bool | None] | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        where: str = "train",
        loss_name: str = "loss",
        fingerprint: str = "",
        memo: dict[str, Any] | None = None,
        on_plan: Callable[[dict[str, Any]], None] | None = None,
        started: float | None = None,
        time_validation: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self.started = time.perf_counter() if started is None else started
        settings.check(where)
        self.where, self.loss_name, self.fingerprint = where, loss_name, fingerprint
        self.rule: LearningRule[Any] = BPTT() if rule is None else rule
        reason = self.rule.supports(module, loss)
        if reason is not None:
            raise TypeError(f"{type(self.rule).__name__}: {reason}")
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError(sentence(where, "module", "one with parameters that learn", type(module).__name__))
        if not len(data):
            raise ValueError(sentence(where, "data", "at least one chunk in every epoch", "none"))
        self.module, self.data, self.loss, self.settings = module, data, loss, settings
        self.validate, self.on_progress, self.on_plan = validate, on_progress, on_plan
        self.folder = RunFolder(self, folder)
        self.resume = resume
        self.memo = {} if memo is None else memo
        self.time_validation = time_validation
        self.validation_seconds = self.aside_seconds = 0.0
        self.updates_per_epoch = -(-len(data) // settings.accumulate)
        self.plan: dict[str, Any] = {"notes": []}
        self.history: list[dict[str, Any]] = []
        self.num_done = self.num_stops = self.worse = 0
        self.epoch = self.chunk = 0  # position in the data: the next chunk
        self.recent = (0.0, 0)  # sum and number of the losses since the last validation
        self.durations: collections.deque[float] = collections.deque(maxlen=50)
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.carry: Any = None
        self.average: dict[str, Tensor] | None = None
        self.stopped = ""
        self.whole = False  # are all parts of the state those of one update?
        self.kept_update = 0

    # --- the run ---

    def run(self) -> None:
        """All of it. Whatever ends it, the module has the weights that remain."""
        place = self.place = Place(self.settings.device, "float32", self.where)
        self.module.to(place.device)
        try:
            with self._random_numbers():
                found = self.resume and self.folder.restore()
                if not found:
                    self.folder.check_free()
                    self._begin()
                    self.folder.save(must=True)
                if self.on_plan is not None and place.is_first:
                    self.on_plan(self.plan)
                if not self._over():
                    self.folder.open_logs()
                    (stop,) = place.agree(self._tell(None))
                    if stop:
                        self.stopped = ASKED
                    self.module.train()
                    self._updates()
                    self._check_end()
                    self.folder.save(must=True)
        except KeyboardInterrupt:
            self.stopped = self.stopped or INTERRUPTED
            if place.size == 1 and self.whole:
                self.folder.save(must=False)
            raise
        finally:
            self.folder.close_logs()
            self._finish()

    def record(self) -> TrainRecord:
        """How it went."""
        stopped = self.stopped or ("" if self.num_done == self.plan.get("num_updates") else INTERRUPTED)
        return TrainRecord(
            plan=self.plan,
            history=self.history,
            updates_made=self.num_done,
            epochs=round(self.num_done / self.updates_per_epoch, 3),
            weights_of_update=self.kept_update,
            stopped=stopped,
            seconds=round(self.elapsed(), 1),
            best=None if self.best is None else self.best[0],
        )

    def elapsed(self) -> float:
        """Seconds of this run."""
        return time.perf_counter() - self.started

    def _mean_loss(self) -> float:
        total, num = self.recent
        return total / num if num else math.nan

    def note(self, text: str) -> None:
        """One sentence about a decision that a user may want to know."""
        self.plan["notes"].append(text)

    # --- before the first update ---

    def _begin(self) -> None:
        """Decide everything that is left to decide."""
        settings, plan = self.settings, self.plan
        rng = random_state()
        plan["precision"], seconds = choose_precision(self)
        plan.update(
            num_parameters=sum(p.numel() for p in self.module.parameters()),
            updates_per_epoch=self.updates_per_epoch,
            seconds_per_update=None if seconds is None else round(seconds, 4),
            device=str(self.place.device),
            threads=torch.get_num_threads(),
            processes=self.place.size,
            num_validations=settings.num_validations,
        )
        plan["num_updates"] = count_updates(self, seconds)
        plan["num_validations"] = min(plan["num_validations"], plan["num_updates"])
        self.plan.update(self.place.share(plan))
        set_random_state(rng)  # so that a budget gives the weights that its number of updates gives
        self.prepare()

    def prepare(self) -> None:
        """Everything that the plan fixes."""
        settings = self.settings
        self.num_updates = int(self.plan["num_updates"])
        self.schedule = dataclasses.replace(
            settings, num_updates=self.num_updates, num_epochs=None, budget_minutes=None
        )
        self.place = Place(settings.device, self.plan["precision"], self.where)
        self.place.spread(self.module.state_dict().values())
        self.updater = Updater(self.module, self.loss, self.rule, settings, self.place, self.where)
        self.constrained = [m for m in self.module.modules() if isinstance(m, ConstrainedCell)]
        if settings.weight_average:
            self.average = {n: p.detach().clone() for n, p in self.module.named_parameters()}
        self.rng = random_state()
        self.whole = True

    @contextlib.contextmanager
    def _random_numbers(self) -> Iterator[None]:
        """torch's own generators, seeded for this run; afterwards they are as they were."""
        device = self.place.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            with RANDOM:  # another run in another thread may be drawing its first weights
                torch.manual_seed(
                    self.settings.seed if not self.place.rank else mixed_seed(self.settings.seed, self.place.rank)
                )
            yield

    # --- updates ---

    def _over(self) -> bool:
        return bool(self.stopped) or self.num_done >= self.num_updates

    def _updates(self) -> None:
        """All updates that are left."""
        group: list[Chunk] = []
        while not self._over():
            skip, epoch, place = self.chunk, self.epoch, 0
            for place, chunk in enumerate(self.data.epoch(epoch)):
                if place < skip:
                    continue
                group.append(chunk)
                last = place + 1 == len(self.data)
                if len(group) == self.settings.accumulate or last:
                    self._update(group, (epoch + 1, 0) if last else (epoch, place + 1))
                    group = []
                    if self._over():
                        return
            if self.epoch == epoch:
                got = f"{place + 1} in epoch {epoch}"
                raise ValueError(sentence(self.where, "data", f"{len(self.data)} chunks in every epoch", got))

    def _update(self, group: list[Chunk], following: tuple[int, int]) -> None:
        """One update and what follows from it."""
        begin = time.perf_counter()
        lr = self.settings.lr * self.schedule.factor(self.num_done)
        carry, directions, loss = self._look(group)
        self.whole = False
        self.updater.apply(directions, lr)
        for cell in self.constrained:
            cell.constrain()
        self.carry = carry
        self.num_done += 1
        self.epoch, self.chunk = following
        self.recent = self.recent[0] + loss, self.recent[1] + 1
        self._average()
        self.rng = random_state()
        self.whole = True
        self.durations.append(time.perf_counter() - begin)
        num_stops = int(self.num_done / self.num_updates * self.plan["num_validations"] + 1e-9)
        is_stop = num_stops > self.num_stops
        self.num_stops = num_stops
        validation = self._stop() if is_stop else None
        stop = self._tell(validation)
        if is_stop:
            self.recent = (0.0, 0)
        if self.folder.logs is not None and (is_stop or self.num_done % max(1, self.num_updates // 1000) == 0):
            named = {f"validation/{k}": v for k, v in (validation or {}).items()}
            self.folder.log(lambda logs: logs.add(self.num_done, {f"train/{self.loss_name}": loss, "lr": lr, **named}))
        stop, save = self.place.agree(stop, not self._over() and self.folder.is_time(self.chunk == 0))
        if stop:
            self.stopped = self.stopped or ASKED
        if save:
            self.folder.save(must=False)

    def _look(self, group: list[Chunk]) -> tuple[Any, Any, float]:
        """What the rule says about a group of chunks, with the parameters of now."""
        carry = self.carry
        for i, chunk in enumerate(group):
            mine = self.place.mine(chunk, self.loss)
            if mine is not None:
                if carry is None or not self.data.carries:
                    carry = self._new_carry(mine, i)
                carry = self.updater.look(carry, mine)
        directions, loss = self.updater.collect(self.num_done)
        return (carry if self.data.carries else None), directions, loss

    def _new_carry(self, chunk: Chunk, i: int) -> Any:
        """The rule's carry at a beginning; its noise is another one for each batch of separate sequences."""
        seed, rank = self.settings.seed, self.place.rank
        if not self.data.carries:
            seed = mixed_seed(seed, self.num_done, i, rank)
        elif rank:
            seed = mixed_seed(seed, rank)
        return self.rule.init(self.module, int(tree.leaves(chunk.xs)[0].shape[1]), seed=seed)

    def _average(self) -> None:
        """``average <- decay average + (1 - decay) weights``; the decay is smaller at the beginning."""
        if self.average is None:
            return
        decay = min(self.settings.weight_average, (1 + self.num_done) / (10 + self.num_done))
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                self.average[name].lerp_(p, 1 - decay)

    # --- validation ---

    def _stop(self) -> Metrics | None:
        """Validate, keep the best, add a row to the history."""
        validation: Metrics | None = None
        if self.validate is not None:
            begin = time.perf_counter()
            validation = self.measure() if self.place.is_first else None
            validation = self.place.share(validation)
            self.validation_seconds = time.perf_counter() - begin
            if validation:
                self._keep_best(next(iter(validation.values())))
        lr = self.settings.lr * self.schedule.factor(self.num_done)
        row: dict[str, Any] = {
            "update": self.num_done,
            "epoch": round(self.num_done / self.updates_per_epoch, 3),
            "seconds": round(self.elapsed(), 2),
            "lr": lr,
            f"train_{self.loss_name}": self._mean_loss(),
        }
        self.history.append(row | {f"validation_{k}": v for k, v in (validation or {}).items()})
        self.folder.log(lambda logs: logs.write_table(self.history))
        return validation

    def measure(self) -> Metrics:
        """`validate` with the averaged weights, in evaluation mode, which leaves the random numbers alone."""
        assert self.validate is not None
        rng = random_state()
        with self._averaged(), torch.no_grad():
            was = self.module.training
            self.module.eval()
            try:
                return self.validate(self.module)
            finally:
                self.module.train(was)
                set_random_state(rng)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The module with its averaged weights."""
        if self.average is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        put_weights(self.module, self.average)
        try:
            yield
        finally:
            put_weights(self.module, own)

    def _keep_best(self, value: float) -> None:
        """Remember the weights of the best validation; after too many without a new best, stop."""
        if math.isfinite(value) and (self.best is None or value < self.best[0]):
            weights = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
            weights.update({name: t.clone() for name, t in (self.average or {}).items()})
            self.best, self.worse = (value, self.num_done, weights), 0
            return
        self.worse += 1
        if self.settings.patience is not None and self.worse >= self.settings.patience:
            self.stopped = f"no better validation in {self.worse} in a row"

    def _tell(self, validation: Metrics | None) -> bool:
        """Report; True to stop."""
        if self.on_progress is None or not self.place.is_first:
            return False
        planned = self.plan["seconds_per_update"] or 0.0
        each = statistics.median(self.durations) if self.durations else planned
        stops_left = self.plan["num_validations"] - self.num_stops
        left = (self.num_updates - self.num_done) * each + self.aside_seconds
        news = TrainProgress(
            update=self.num_done,
            num_updates=self.num_updates,
            part=min(1.0, self.num_done / self.num_updates),
            epoch=self.num_done / self.updates_per_epoch,
            loss=self._mean_loss(),
            lr=self.settings.lr * self.schedule.factor(self.num_done),
            seconds=self.elapsed(),
            seconds_left=left + stops_left * self.validation_seconds,
            validation=validation,
            seconds_per_update=each,
        )
        return bool(self.on_progress(news))

    # --- the end ---

    def is_finite(self) -> bool:
        """Weights that are not finite end the run at the next update; no checkpoint keeps them."""
        return all(bool(torch.isfinite(p).all()) for p in self.module.parameters())

    def _check_end(self) -> None:
        """The last update has no loss after it that would show what it did."""
        if not self.is_finite():
            got = f"others after update {self.num_done:,}"
            hint = "Try a smaller lr, a smaller clip_norm or float32."
            raise FloatingPointError(sentence(self.where, "the weights", "finite", got, hint))

    def _finish(self) -> None:
        """Give the module the weights that remain."""
        self.kept_update = self.num_done
        if self.best is not None:
            self.kept_update = self.best[1]
            self.module.load_state_dict(self.best[2])
        elif self.average is not None:
            put_weights(self.module, self.average)
        self.module.eval()


def put_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy ``weights``, by name, into a module's parameters."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(weights[name])
