"""Losses that keep time and batch apart, so that chunks, ragged batches and processes add up exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .tree import Tree


class Loss(ABC):
    """A loss with a value for every step of every row. Frozen dataclasses subclass it."""

    @abstractmethod
    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        """(T, B) from leaves (T, B, ...); any leading dimensions are treated alike."""

    def residual(self, ys: Tree, targets: Tree) -> Tensor:
        """(T, B, O) targets minus predictions, where Kalman filters and least squares need them."""
        raise NotImplementedError(f"{type(self).__name__}: has no residual; use MeanSquaredError for this rule.")


class SequenceLoss(ABC):
    """A loss of whole sequences (CTC): rules that learn online refuse it."""

    @abstractmethod
    def per_sequence(self, ys: Tree, targets: Tree, lengths: Tensor | None) -> Tensor:
        """(B,) from outputs (T, B, ...), whatever targets the loss defines, and the true lengths (None: all T)."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``-log softmax(y)[target]`` in nats; y (..., O), target (...) int64.

    Example:
        >>> CrossEntropy().per_step(torch.zeros(7, 2, 4), torch.zeros(7, 2, dtype=torch.int64)).shape
        torch.Size([7, 2])
    """

    def per_step(self, ys: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_step`."""
        flat = F.cross_entropy(ys.reshape(-1, ys.shape[-1]), targets.reshape(-1), reduction="none")
        return flat.reshape(targets.shape)

    def residual(self, ys: Tensor, targets: Tensor) -> Tensor:
        """``one_hot(target) - softmax(y)``: the prediction is the probabilities."""
        return F.one_hot(targets, ys.shape[-1]).to(ys.dtype) - ys.softmax(-1)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """``mean_o (y_o - target_o)^2``; y and target (..., O)."""

    def per_step(self, ys: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_step`."""
        return (ys - targets).square().mean(-1)

    def residual(self, ys: Tensor, targets: Tensor) -> Tensor:
        """``target - y``."""
        return targets - ys


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """``sum_o`` of the Bernoulli cross-entropy in nats; y (..., O) logits, target (..., O) in [0, 1]."""

    def per_step(self, ys: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_step`."""
        return F.binary_cross_entropy_with_logits(ys, targets, reduction="none").sum(-1)

    def residual(self, ys: Tensor, targets: Tensor) -> Tensor:
        """``target - sigmoid(y)``: the prediction is the probabilities."""
        return targets - ys.sigmoid()


def weighted_sum(values: Tensor, weights: Tensor | None, alive: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weighted sum of (T, B) losses and the sum of the weights; padding counts for nothing."""
    if weights is None:
        weights = torch.ones_like(values) if alive is None else alive.to(values.dtype)
    elif alive is not None:
        weights = torch.where(alive, weights, weights.new_zeros(()))
    kept = torch.where(weights != 0, values, values.new_zeros(()))
    return (kept * weights).sum(), weights.sum()
