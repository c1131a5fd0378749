"""Updates for learning step by step: from a direction to new parameters, as pure functions on explicit state.

A native loop may contain them: nothing in `UpdateRule.apply` branches on data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_probability, sentence

Parameters = dict[str, Tensor]


class UpdateRule(ABC):
    """A frozen dataclass. The state is a tree of tensors, one leaf for each parameter where it keeps something of it.

    A direction may name fewer parameters than there are; the others, and what is kept of them, stay as they are.
    """

    @abstractmethod
    def init(self, parameters: Mapping[str, Tensor]) -> Any:
        """The state before the first update."""

    @abstractmethod
    def apply(
        self, parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor], state: Any, factor: Tensor
    ) -> tuple[Parameters, Any]:
        """New parameters and the next state; nothing is written in place.

        Args:
            parameters, direction: by name.
            state: what `init` or the last call gave.
            factor: () by which the learning rate is multiplied now.
        """


def _check_rate(where: str, lr: float) -> None:
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        raise TypeError(sentence(where, "lr", "a number", repr(lr)))
    if not 0 <= lr < float("inf"):
        raise ValueError(sentence(where, "lr", "finite and not negative", lr))


class SGDState(NamedTuple):
    """velocity: one leaf for each parameter; () without momentum."""

    velocity: tuple[Tensor, ...]


@dataclass(frozen=True)
class SGD(UpdateRule):
    """Gradient descent, with momentum if wanted: the formulas of `torch.optim.SGD`.

        v' = momentum v + g,   p' = p - lr v'

    Args:
        lr: learning rate, of the weighted *sum* over the rows of the batch.
        momentum: in [0, 1); 0 keeps no velocity.
        clip_norm: largest Euclidean norm of g over all parameters, which is made shorter beyond; None for no clipping.
    Raises:
        ValueError, TypeError: a value out of range.
    Example:
        >>> update, one = SGD(lr=0.5), {"w": torch.ones(2)}
        >>> update.apply(one, one, update.init(one), torch.ones(()))
        ({'w': tensor([0.5000, 0.5000])}, SGDState(velocity=()))
    """

    lr: float
    momentum: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_rate("SGD", self.lr)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(sentence("SGD", "clip_norm", "above 0", self.clip_norm))
        check_probability("SGD", momentum=self.momentum)

    def init(self, parameters: Mapping[str, Tensor]) -> SGDState:
        """No velocity."""
        return SGDState(tuple(torch.zeros_like(p) for p in parameters.values()) if self.momentum else ())

    def apply(
        self, parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor], state: SGDState, factor: Tensor
    ) -> tuple[Parameters, SGDState]:
        """See `UpdateRule.apply`."""
        velocity = dict(zip(parameters, state.velocity))
        moved = dict(parameters)
        if self.clip_norm is not None and direction:
            square = torch.stack([g.square().sum() for g in direction.values()]).sum()
            factor_here = self.clip_norm / square.sqrt().clamp(min=self.clip_norm)
            direction = {name: factor_here * g for name, g in direction.items()}
        for name, g in direction.items():
            if self.momentum:
                g = velocity[name] = self.momentum * velocity[name] + g
            moved[name] = parameters[name] - self.lr * factor * g
        return moved, SGDState(tuple(velocity.values()))


class AdamState(NamedTuple):
    """mean, square: one leaf for each parameter; num_updates: () number of updates so far."""

    mean: tuple[Tensor, ...]
    square: tuple[Tensor, ...]
    num_updates: Tensor


@dataclass(frozen=True)
class Adam(UpdateRule):
    """Adaptive moments, the formulas of `torch.optim.Adam`.

        m' = b1 m + (1 - b1) g,   s' = b2 s + (1 - b2) g^2
        p' = p - lr (m' / (1 - b1^n)) / (sqrt(s' / (1 - b2^n)) + eps)       n updates, this one counted

    Args:
        lr: learning rate.
        beta1, beta2: in [0, 1), how much of the moments stays.
        eps: keeps the division finite.
    Raises:
        ValueError, TypeError: a value out of range.
    Source:
        Kingma & Ba 2015, "Adam: a method for stochastic optimization", ICLR, arXiv:1412.6980, algorithm 1 (from memory)
    Example:
        >>> update = Adam(lr=0.1)
        >>> moved, state = update.apply(
        ...     {"w": torch.ones(1)}, {"w": torch.full((1,), 7.0)}, update.init({"w": torch.ones(1)}), torch.ones(())
        ... )
        >>> round(moved["w"].item(), 4)
        0.9
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check_rate("Adam", self.lr)
        check_probability("Adam", beta1=self.beta1, beta2=self.beta2)
        if not self.eps > 0:
            raise ValueError(sentence("Adam", "eps", "positive", self.eps))

    def init(self, parameters: Mapping[str, Tensor]) -> AdamState:
        """No moments."""
        first = next(iter(parameters.values()), torch.zeros(()))
        mean, square = (tuple(torch.zeros_like(p) for p in parameters.values()) for _ in range(2))
        return AdamState(mean, square, first.new_zeros(()))

    def apply(
        self, parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor], state: AdamState, factor: Tensor
    ) -> tuple[Parameters, AdamState]:
        """See `UpdateRule.apply`."""
        mean, square = dict(zip(parameters, state.mean)), dict(zip(parameters, state.square))
        count = state.num_updates + 1
        first, second = 1 - torch.pow(self.beta1, count), 1 - torch.pow(self.beta2, count)
        moved = dict(parameters)
        for name, g in direction.items():
            mean[name] = self.beta1 * mean[name] + (1 - self.beta1) * g
            square[name] = self.beta2 * square[name] + (1 - self.beta2) * g * g
            moved[name] = parameters[name] - self.lr * factor * (mean[name] / first) / (
                (square[name] / second).sqrt() + self.eps
            )
        return moved, AdamState(tuple(mean.values()), tuple(square.values()), count)


class SumState(NamedTuple):
    """total: one leaf for each parameter."""

    total: tuple[Tensor, ...]


@dataclass(frozen=True)
class Sum(UpdateRule):
    """Changes no parameter and adds the directions up: the gradient of a whole stream, found as it goes by.

    Example:
        >>> update, one = Sum(), {"w": torch.ones(2)}
        >>> _, state = update.apply(one, one, update.init(one), torch.ones(()))
        >>> state.total
        (tensor([1., 1.]),)
    """

    def init(self, parameters: Mapping[str, Tensor]) -> SumState:
        """Zeros."""
        return SumState(tuple(torch.zeros_like(p) for p in parameters.values()))

    def apply(
        self, parameters: Mapping[str, Tensor], direction: Mapping[str, Tensor], state: SumState, factor: Tensor
    ) -> tuple[Parameters, SumState]:
        """See `UpdateRule.apply`."""
        total = dict(zip(parameters, state.total))
        for name, g in direction.items():
            total[name] = total[name] + factor * g
        return dict(parameters), SumState(tuple(total.values()))
