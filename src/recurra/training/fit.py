"""A learning rule becomes a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from ..core import tree
from ..core.cell import ConstrainedCell, MembersCell
from ..core.checks import sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, Estimate, LearningRule
from ..learning import BPTT

OptimizerLike = torch.optim.Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Progress(NamedTuple):
    """What `fit` tells after a chunk.

    Args:
        num_steps: updates made so far.
        epoch: passes begun so far, from 0.
        loss: the chunk's mean loss (weighted).
        gradient_norm: Euclidean norm of the mean direction before clipping.
        estimate: the rule's whole answer.
    """

    num_steps: int
    epoch: int
    loss: float
    gradient_norm: float
    estimate: Estimate


class Fitted(NamedTuple):
    """What `fit` leaves: the rule's carry and the mean loss of every chunk."""

    carry: Any
    losses: list[float]


def fit(
    module: nn.Module,
    chunks: Iterable[Chunk],
    loss: Loss | SequenceLoss,
    optimizer: OptimizerLike = torch.optim.Adam,
    *,
    rule: LearningRule[Any] | None = None,
    num_epochs: int = 1,
    num_steps: int | None = None,
    clip_norm: float | None = None,
    lr_schedule: Callable[[int], float] | None = None,
    carry: Any = None,
    seed: int = 0,
    on_step: Callable[[Progress], bool | None] | None = None,
) -> Fitted:
    """Train any cell (or, with `BPTT`, any module) by any rule with any torch optimizer.

        theta <- optimizer(theta, direction / weight)

    Where ``torch.distributed`` is initialised, direction and weight are summed over the processes: each one has its own
    chunks, and all make the same updates.

    Args:
        module: a cell, or for `BPTT` any module; its training mode is left as it is.
        chunks: run through once per epoch; a stream may be endless if ``num_steps`` is given. Every chunk has the same
            number of rows, unless the rule keeps no state (`BPTT`).
        loss: summed by the rule, divided by the summed weight here.
        optimizer: an optimizer, or a class or function that makes one from the parameters.
        rule: `BPTT` unless given. A rule of kind "step" is applied as it is: no optimizer, no clipping.
        num_epochs: passes over ``chunks``.
        num_steps: stop after so many updates, whatever the epoch.
        clip_norm: largest Euclidean norm of the direction, for a `MembersCell` of each member's; None for no clipping.
        lr_schedule: factor on every group's first learning rate, from the number of updates made: 0 for the first one.
        carry: go on from a carry; None starts with ``rule.init``.
        seed: of the rule's own random numbers.
        on_step: told after every update; True stops the run.

    Returns:
        The last carry and the mean loss of each chunk.

    Raises:
        TypeError: the rule does not support the module or the loss.
        ValueError: nothing learns; an epoch without a chunk; several processes and a rule of kind "step".
        FloatingPointError: a loss or a direction is NaN or infinite; the parameters are those of the step before.

    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> _ = torch.manual_seed(0)
        >>> chunk = Chunk(torch.randn(7, 2, 3), torch.zeros(7, 2, 5))
        >>> losses = fit(ElmanCell(3, 5), [chunk], MeanSquaredError(), num_epochs=20).losses
        >>> losses[-1] < losses[0]
        True
    """
    rule = BPTT() if rule is None else rule
    reason = rule.supports(module, loss)
    if reason is not None:
        raise TypeError(f"{type(rule).__name__}: {reason}")
    if rule.kind == "step" and _num_processes() > 1:
        got = f"{type(rule).__name__}, whose steps do not add up"
        raise ValueError(sentence("fit", "rule", "one of gradients for several processes", got))
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(sentence("fit", "module", "one with parameters that learn", type(module).__name__))
    engine = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer(parameters)
    first_rates = [group["lr"] for group in engine.param_groups]
    constrained = [m for m in module.modules() if isinstance(m, ConstrainedCell)]
    losses: list[float] = []
    for epoch in range(num_epochs if num_steps is None else max(num_epochs, num_steps)):
        empty = True
        for chunk in chunks:
            empty = False
            if carry is None:
                carry = rule.init(module, int(tree.leaves(chunk.xs)[0].shape[1]), seed=seed)
            if lr_schedule is not None:
                for group, rate in zip(engine.param_groups, first_rates):
                    group["lr"] = rate * lr_schedule(len(losses))
            new, estimate = rule.step(module, carry, chunk, loss)
            mean, norm = _apply(module, rule, estimate, engine, clip_norm, len(losses))
            carry = new
            for cell in constrained:
                cell.constrain()
            losses.append(mean)
            stop = on_step is not None and on_step(Progress(len(losses), epoch, mean, norm, estimate))
            if stop or (num_steps is not None and len(losses) >= num_steps):
                return Fitted(carry, losses)
        if empty:
            raise ValueError(sentence("fit", "chunks", "at least one chunk in every epoch", f"none in epoch {epoch}"))
    return Fitted(carry, losses)


def _apply(
    module: nn.Module,
    rule: LearningRule[Any],
    estimate: Estimate,
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    num_done: int,
) -> tuple[float, float]:
    """One update; returns the mean loss and the norm of the mean direction."""
    total, weight, direction = float(estimate.loss), float(estimate.weight), estimate.direction
    if _num_processes() > 1:
        total, weight, direction = _summed(total, weight, direction)
    mean = total / weight if weight else 0.0
    norm = float(torch.stack([d.detach().float().norm() for d in direction.values()]).norm()) if direction else 0.0
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise FloatingPointError(
            sentence("fit", f"the loss at update {num_done + 1}", "finite", f"loss {mean}, direction norm {norm}")
            + " Try a smaller learning rate or clip_norm; the parameters are those of the update before."
        )
    if weight == 0:
        return mean, 0.0
    named = dict(module.named_parameters())
    if rule.kind == "step":
        with torch.no_grad():
            for name, d in direction.items():
                named[name].sub_(d)
        return mean, norm
    norm /= weight
    if isinstance(module, MembersCell) and clip_norm is not None:
        direction = _clipped_by_member(direction, clip_norm * weight)
        clip_norm = None
    scale = 1 / weight if clip_norm is None or norm <= clip_norm else clip_norm / (weight * norm)
    for name, d in direction.items():
        named[name].grad = d * scale
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return mean, norm


def _clipped_by_member(direction: dict[str, torch.Tensor], largest: float) -> dict[str, torch.Tensor]:
    """An ensemble's direction, (N, ...) per name, each member's scaled down to this norm where it is larger."""
    norm = torch.stack([d.detach().flatten(1).norm(dim=1) for d in direction.values()]).norm(dim=0)  # (N,)
    scale = torch.where(norm > largest, largest / norm, 1.0)
    return {name: d * scale.view(-1, *[1] * (d.dim() - 1)) for name, d in direction.items()}


def _num_processes() -> int:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def _summed(total: float, weight: float, direction: dict[str, torch.Tensor]) -> tuple[float, float, dict[str, Any]]:
    """Over all processes."""
    some = next(iter(direction.values()))
    numbers = torch.tensor([total, weight], dtype=torch.float64, device=some.device)
    torch.distributed.all_reduce(numbers)
    direction = {name: d.clone() for name, d in direction.items()}
    for d in direction.values():
        torch.distributed.all_reduce(d)
    return float(numbers[0]), float(numbers[1]), direction
