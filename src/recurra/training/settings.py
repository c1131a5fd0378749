"""How to train: plain values with defaults, checked in one place."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.checks import check_choice, check_positive, check_probability, sentence

DECAYS = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
ENDS = ("num_epochs", "budget_minutes", "num_updates")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of `train`; estimators have constructor arguments of the same names.

        rate(i) = lr min(1, (i + 1) / (warmup_updates + 1)) decay(i / num_updates)

    Args:
        optimizer: a class of ``torch.optim``, with options if wanted: ``"SGD(momentum=0.9)"``.
        lr: largest learning rate.
        lr_decay: "linear" (to zero), "cosine" (to zero) or "constant".
        warmup_updates: over which the learning rate rises (at most a tenth of all).
        weight_decay: of the optimizer.
        beta2: of optimizers that have betas; the first beta is 0.9.
        clip_norm: largest Euclidean norm of the mean direction; None for no clipping.
        clip_value: largest absolute value of its elements, before the norm is clipped; None for no clipping.
        num_epochs: passes over the data (10 where neither of the next two is given).
        num_updates: the number of updates itself.
        budget_minutes: the time for everything; turned once, by timing a few updates, into a number of updates.
        max_epochs: a time budget is not spent on more passes than this.
        accumulate: chunks whose directions are added up for one update.
        weight_average: decay of the exponential average of the weights, which is what remains; 0 for none.
        num_validations: how often to validate, evenly over the run.
        patience: validations in a row without a new best after which to stop; None never stops.
        precision: "float32" (the parameters' own type), "bfloat16" or "float16" (products in it, weights and carried
            state in float32), or "auto": bfloat16 where timing shows it to be faster.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ...
        seed: of the rule's noise and of torch's own generator while training.
        checkpoint_seconds: time between two checkpoints in a run folder; they are also written at the end of an epoch.
    Raises:
        ValueError: from `check`: a value out of range.
        TypeError: from `check`: no whole number where one is needed.
    Example:
        >>> TrainSettings(num_updates=100, lr_decay="cosine").factor(50)
        0.5
    """

    optimizer: str = "AdamW"
    lr: float = 1e-3
    lr_decay: str = "linear"
    warmup_updates: int = 0
    weight_decay: float = 0.0
    beta2: float = 0.999
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    num_epochs: int | None = None
    num_updates: int | None = None
    budget_minutes: float | None = None
    max_epochs: int = 50
    accumulate: int = 1
    weight_average: float = 0.0
    num_validations: int = 10
    patience: int | None = None
    precision: str = "float32"
    device: str = "auto"
    seed: int = 0
    checkpoint_seconds: float = 60.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The settings' names."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def of(cls, source: Any) -> TrainSettings:
        """The settings among the attributes of an object (an estimator); the others keep their defaults."""
        return cls(**{name: getattr(source, name) for name in cls.names() if hasattr(source, name)})

    def check(self, where: str = "train") -> None:
        """Raise unless every value is in range.

        Args:
            where: who asks, for the message.
        """
        whole = ("max_epochs", "accumulate", "num_validations")
        check_positive(where, **{name: getattr(self, name) for name in whole})
        check_probability(where, weight_average=self.weight_average, beta2=self.beta2)
        given = [name for name in ENDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(sentence(where, "the end of training", f"one of {', '.join(ENDS)}", " and ".join(given)))
        for name in ("num_epochs", "num_updates", "patience"):
            if getattr(self, name) is not None:
                check_positive(where, **{name: getattr(self, name)})
        if not _is_whole(self.warmup_updates) or self.warmup_updates < 0:
            raise ValueError(
                sentence(where, "warmup_updates", "a whole number of at least 0", repr(self.warmup_updates))
            )
        for name in ("budget_minutes", "lr", "clip_norm", "clip_value"):
            value = getattr(self, name)
            if (value is None and name != "lr") or (_is_number(value) and 0 < value < math.inf):
                continue
            raise ValueError(sentence(where, name, "a number above 0", repr(value)))
        for name in ("weight_decay", "checkpoint_seconds"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ValueError(sentence(where, name, "a number of at least 0", repr(value)))
        if not _is_whole(self.seed) or self.seed < 0:
            raise ValueError(sentence(where, "seed", "a whole number of at least 0", repr(self.seed)))
        if self.seed >= 2**63:
            raise ValueError(sentence(where, "seed", "below 2**63", repr(self.seed)))
        check_choice(where, "lr_decay", self.lr_decay, DECAYS)
        check_choice(where, "precision", self.precision, PRECISIONS)
        read_optimizer(where, self.optimizer)

    def factor(self, num_done: int) -> float:
        """The learning rate's factor after ``num_done`` of `num_updates` updates."""
        assert self.num_updates is not None
        part = min(1.0, num_done / self.num_updates)
        decay = {"linear": 1 - part, "cosine": 0.5 * (1 + math.cos(math.pi * part)), "constant": 1.0}[self.lr_decay]
        return min(1.0, (num_done + 1) / (min(self.warmup_updates, self.num_updates // 10) + 1)) * decay

    def make_optimizer(self, parameters: Iterable[nn.Parameter], where: str = "train") -> torch.optim.Optimizer:
        """The optimizer; options in its text win over the other settings."""
        kind, options = read_optimizer(where, self.optimizer)
        known = inspect.signature(kind).parameters
        given: dict[str, Any] = {"lr": self.lr, "betas": (0.9, self.beta2), "weight_decay": self.weight_decay}
        given = {name: value for name, value in given.items() if name in known} | options
        try:
            return kind(parameters, **given)
        except (ValueError, TypeError) as error:
            raise ValueError(
                sentence(where, "optimizer", "one that torch can build", f"{self.optimizer!r} ({error})")
            ) from None


def read_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Read ``Name`` or ``Name(option=value, ...)``; values are Python literals, nothing is evaluated.

    Returns:
        The name and the options; None where the text has another form.

    Example:
        >>> read_call("SGD(momentum=0.9)")
        ('SGD', {'momentum': 0.9})
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            if any(k.arg is None for k in node.keywords):
                return None
            return node.func.id, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    return None


def read_optimizer(where: str, text: Any) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """A class of ``torch.optim`` and the options that the text gives it."""
    found = read_call(text) if isinstance(text, str) else None
    base = torch.optim.Optimizer
    kinds = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind not in (base, torch.optim.LBFGS)  # needs a closure
    }
    if found is None or found[0] not in kinds:
        names = ", ".join(sorted(kinds))
        raise ValueError(sentence(where, "optimizer", f"one of {names}, with options if wanted", repr(text)))
    name, options = found
    known = list(inspect.signature(kinds[name]).parameters)[1:]
    for option in options:
        if option not in known:
            raise ValueError(
                sentence(where, "optimizer", f"given options that {name} has ({', '.join(known)})", repr(option))
            )
    return kinds[name], options


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
