"""Timing a few updates on a copy: how fast a precision is, and how many updates a time budget allows."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from typing import TYPE_CHECKING

from ..core import tree
from .place import Place
from .update import Updater

if TYPE_CHECKING:
    from .train import Training

MOST_SECONDS = 10.0


def choose_precision(run: Training) -> tuple[str, float | None]:
    """The precision of a run, and the seconds of an update where they were measured."""
    settings = run.settings
    if settings.precision != "auto":
        timed = settings.budget_minutes is not None
        return settings.precision, seconds_per_update(run, settings.precision) if timed else None
    plain = seconds_per_update(run, "float32")
    try:
        short = seconds_per_update(run, "bfloat16")
    except RuntimeError:  # a processor without bfloat16, or a kernel that refuses it
        short = math.inf
    faster = run.place.share(short < 0.9 * plain)
    return ("bfloat16", short) if faster else ("float32", plain)


def seconds_per_update(run: Training, precision: str) -> float:
    """The median time of an update, measured on a copy; the first two warm up."""
    settings, budget = run.settings, run.settings.budget_minutes
    limit = MOST_SECONDS if budget is None else min(MOST_SECONDS, 1.5 * budget)  # at most 2.5 % of the budget
    place = Place(settings.device, precision, run.where)
    module = copy.deepcopy(run.module).train()
    updater = Updater(module, run.loss, run.rule, settings, place, run.where)
    carry, times, waiting = None, [time.perf_counter()], 0
    for index in range(10 * settings.accumulate):
        for chunk in run.data.epoch(index):
            mine = place.mine(chunk, run.loss)
            if mine is not None:
                if carry is None or not run.data.carries:
                    carry = run.rule.init(module, int(tree.leaves(mine.xs)[0].shape[1]), seed=settings.seed)
                carry = updater.look(carry, mine)
            waiting += 1
            if waiting < settings.accumulate:
                continue
            waiting = 0
            direction, _ = updater.collect(len(times) - 1)
            updater.apply(direction, settings.lr)
            times.append(time.perf_counter())
            enough = len(times) > 10 or (len(times) > 4 and times[-1] - times[0] > limit)
            if place.share(enough):
                return place.share(_typical(times))
    return place.share(_typical(times))


def _typical(times: list[float]) -> float:
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return statistics.median(gaps[2:] or gaps[1:] or gaps)


def count_updates(run: Training, seconds: float | None) -> int:
    """How many updates there will be."""
    settings, per_epoch = run.settings, run.updates_per_epoch
    if settings.num_updates is not None:
        return settings.num_updates
    if settings.budget_minutes is None:
        return per_epoch * (settings.num_epochs or 10)
    assert seconds is not None
    begin = time.perf_counter()
    if run.time_validation is not None:
        run.validation_seconds, run.aside_seconds = run.time_validation()
    elif run.validate is not None:
        if run.place.is_first:
            run.measure()
        run.validation_seconds = time.perf_counter() - begin
    each = run.validation_seconds
    left = 60 * settings.budget_minutes - run.elapsed() - run.aside_seconds
    affordable = max(2, int(0.1 * left / each)) if each > 1e-3 else settings.num_validations  # a tenth of the time
    if affordable < settings.num_validations:
        run.plan["num_validations"] = affordable
        run.note(
            f"One validation takes about {each:.1f} s: {affordable} of them instead of {settings.num_validations}."
        )
    left -= run.plan["num_validations"] * each
    num = max(1, int(left / seconds))
    if left < seconds:
        run.note(f"The budget of {settings.budget_minutes:g} min is too small for this model: one update only.")
    if num > settings.max_epochs * per_epoch:
        num = settings.max_epochs * per_epoch
        run.note(f"The budget is not used up: {settings.max_epochs} passes (max_epochs) take less.")
    return num
