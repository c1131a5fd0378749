"""Losses of several nets at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..core.loss import Loss
from ..core.tree import Tree


@dataclass(frozen=True)
class MemberSum(Loss):
    """The sum over the members of an ensemble: ys and targets (..., N, ...) for a ``loss`` of (..., ...).

    The gradient of a sum of independent terms is each term's own, so every member learns as if it were alone.

    Args:
        loss: the loss of one member.
    Example:
        >>> import torch
        >>> from recurra.core import MeanSquaredError
        >>> MemberSum(MeanSquaredError()).per_step(torch.ones(7, 2, 4, 3), torch.zeros(7, 2, 4, 3))[0]
        tensor([4., 4.])
    """

    loss: Loss

    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        """See `Loss.per_step`."""
        return self.loss.per_step(ys, targets).sum(-1)
