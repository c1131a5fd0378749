"""What experiments of many trials share: a trial is trained until it passes a test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from ..core import Cell, Chunk
from ..core.loss import Loss
from ..core.rule import LearningRule
from ..engines import Native
from ..learning import BPTT
from ..training import Progress, fit


class Trial(NamedTuple):
    """A net after training.

    Args:
        net: as it was when it passed the test, or at the end.
        solved: did it pass?
        updates: made by then; all where it did not.
    """

    net: Cell
    solved: bool
    updates: int


def learn_until(
    net: Cell,
    chunk: Callable[[int], Chunk],
    loss: Loss,
    test: Callable[[Cell], bool],
    *,
    num_updates: int,
    every: int,
    lr: float,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    clip_norm: float | None = None,
    lr_schedule: Callable[[int], float] | None = None,
    rule: LearningRule[Any] | None = None,
) -> Trial:
    """Train until the test is passed.

    Args:
        net: not changed.
        chunk: from the number of updates made the next chunk.
        loss: of a step.
        test: has the net learned?
        num_updates: at most.
        every: updates between two tests.
        lr: learning rate.
        optimizer: made from parameters and ``lr``.
        clip_norm: largest norm of a gradient.
        lr_schedule: factor on ``lr`` from the number of updates made.
        rule: backpropagation through time by `Native` unless given.
    """
    net = copy.deepcopy(net)
    solved = False

    def chunks() -> Iterator[Chunk]:
        for n in range(num_updates):
            yield chunk(n)

    def look(update: Progress) -> bool:
        nonlocal solved
        if update.num_steps % every == 0 or update.num_steps == num_updates:
            solved = test(net)
        return solved

    done = fit(
        net,
        chunks(),
        loss,
        partial(optimizer, lr=lr),
        rule=rule or BPTT(Native(silent=True)),
        clip_norm=clip_norm,
        lr_schedule=lr_schedule,
        on_step=look,
    )
    return Trial(net, solved, len(done.losses))
