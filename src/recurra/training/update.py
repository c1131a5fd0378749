"""From what a rule says to new parameters: sums over chunks and processes, clipping, scaled losses, the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.checks import sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, Direction, LearningRule
from ..core.tree import Tree
from .checkpoint import Tensors, pack, unpack
from .place import Place
from .settings import TrainSettings

FIRST_SCALE, LARGEST_SCALE, GROWTH_UPDATES = 2.0**16, 2.0**24, 500


@dataclass(frozen=True)
class _Scaled(Loss):
    """A loss times a number, so that float16 gradients do not vanish."""

    loss: Loss
    scale: float

    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        """See `Loss.per_step`."""
        return self.loss.per_step(ys, targets).float() * self.scale

    def residual(self, ys: Tree, targets: Tree) -> Tensor:
        """See `Loss.residual`."""
        return self.loss.residual(ys, targets)


@dataclass(frozen=True)
class _ScaledSequences(SequenceLoss):
    loss: SequenceLoss
    scale: float

    def per_sequence(self, ys: Tree, targets: Tree, lengths: Tensor | None) -> Tensor:
        return self.loss.per_sequence(ys, targets, lengths).float() * self.scale


class Updater:
    """Sums what the rule says about chunks, over the processes too, and makes updates of it.

    Args:
        module, loss, rule, settings: as for `train`.
        place: device, precision, processes.
        where: who trains, for messages.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss | SequenceLoss,
        rule: LearningRule[Any],
        settings: TrainSettings,
        place: Place,
        where: str,
    ) -> None:
        self.module, self.loss, self.rule, self.settings, self.place, self.where = (
            module,
            loss,
            rule,
            settings,
            place,
            where,
        )
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = settings.make_optimizer(self.named.values(), where)
        if rule.kind == "step" and (place.size > 1 or settings.accumulate > 1):
            name = type(rule).__name__
            raise ValueError(
                sentence(
                    where,
                    "rule",
                    "one of gradients for several processes or accumulated chunks",
                    f"{name}, whose steps do not add up",
                )
            )
        self.scale = FIRST_SCALE if place.precision == "float16" else 1.0
        self.good = 0  # updates since the scale was last changed
        self.sums: Direction = {}
        self.total = self.weight = 0.0

    def look(self, carry: Any, chunk: Chunk) -> Any:
        """Add what the rule says about a chunk; returns the next carry."""
        loss: Any = self.loss
        if self.scale != 1.0:
            loss = _ScaledSequences(loss, self.scale) if isinstance(loss, SequenceLoss) else _Scaled(loss, self.scale)
        with self.place.autocast():
            carry, estimate = self.rule.step(self.module, carry, chunk, loss)
        self.total += float(estimate.loss) / self.scale
        self.weight += float(estimate.weight)
        if self.sums:
            self.sums = {name: self.sums[name] + d for name, d in estimate.direction.items()}
        else:
            self.sums = dict(estimate.direction)
        return carry if self.place.precision == "float32" else wide(carry, next(iter(self.named.values())).dtype)

    def collect(self, num_done: int) -> tuple[Direction | None, float]:
        """The mean direction over all chunks and processes, and the mean loss.

        Returns:
            The direction, None where it says nothing (no weight, or float16 gradients that overflowed: the scale is
            halved, and the update is left out).

        Raises:
            FloatingPointError: a loss or a direction that is NaN or infinite.
        """
        sums = self.sums or {name: torch.zeros_like(p) for name, p in self.named.items()}
        numbers = torch.tensor([self.total, self.weight], dtype=torch.float64, device=self.place.device)
        numbers, *found = self.place.sum([numbers, *sums.values()])
        total, weight = numbers.tolist()
        direction = dict(zip(sums, found))
        self.sums, self.total, self.weight = {}, 0.0, 0.0
        loss = total / weight if weight else 0.0
        norm = float(torch.stack([d.detach().float().norm() for d in direction.values()]).norm())
        if self.scale != 1.0 and math.isfinite(loss) and not math.isfinite(norm):
            if self.scale > 1.0:
                self.scale, self.good = max(1.0, self.scale / 2), 0
                return None, loss
        elif self.scale != 1.0:
            self.good += 1
            if self.good >= GROWTH_UPDATES:
                self.scale, self.good = min(LARGEST_SCALE, self.scale * 2), 0
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                sentence(
                    self.where, f"the loss at update {num_done + 1}", "finite", f"loss {loss}, direction norm {norm}"
                )
                + " Try a smaller lr, a smaller clip_norm or float32; the weights and checkpoints are those from before."
            )
        if not weight:
            return None, loss
        if self.rule.kind == "step":
            return direction, loss
        return self._clipped(direction, weight * self.scale), loss

    def _clipped(self, direction: Direction, weight: float) -> Direction:
        """The mean, clipped by value and then by norm."""
        value, largest = self.settings.clip_value, self.settings.clip_norm
        scale = 1 / weight
        if value is not None:
            direction = {name: (d * scale).clamp(-value, value) for name, d in direction.items()}
            scale = 1.0
        if largest is not None:
            norm = scale * float(torch.stack([d.detach().float().norm() for d in direction.values()]).norm())
            if norm > largest:
                scale *= largest / norm
        return {name: d * scale for name, d in direction.items()}

    def apply(self, direction: Direction | None, lr: float) -> None:
        """Change the parameters."""
        if direction is None:
            return
        if self.rule.kind == "step":
            with torch.no_grad():
                for name, d in direction.items():
                    self.named[name].sub_(d)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for name, d in direction.items():
            self.named[name].grad = d
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # --- checkpoints ---

    def pack(self, tensors: Tensors) -> dict[str, Any]:
        """The state as JSON and tensors."""
        state = {str(i): values for i, values in self.optimizer.state_dict()["state"].items()}
        return {"state": pack(state, tensors, "optimizer"), "scale": self.scale, "good": self.good}

    def unpack(self, packed: dict[str, Any], tensors: Tensors) -> None:
        """Take the state of a checkpoint."""
        self.scale, self.good = packed["scale"], packed["good"]
        state = unpack(packed["state"], tensors)
        own = self.optimizer.state_dict()
        self.optimizer.load_state_dict(
            {"state": {int(i): v for i, v in state.items()}, "param_groups": own["param_groups"]}
        )


def wide(carry: Any, dtype: torch.dtype) -> Any:
    """A carry whose half-precision leaves are as wide as the parameters: small changes of a state are not lost."""

    def widen(leaf: Any) -> Any:
        short = isinstance(leaf, Tensor) and leaf.dtype in (torch.bfloat16, torch.float16)
        return leaf.to(dtype) if short else leaf

    return tree.map(widen, carry)
