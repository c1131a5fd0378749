"""Many sequences as one stream: what learns at every step reads them one behind the other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import tree
from ..core.controls import Controls
from ..core.rule import Chunk


def one_stream(chunk: Chunk) -> Chunk:
    """The rows of a batch one behind the other, without padding, each starting from the initial state.

    Args:
        chunk: T steps of B rows, with or without lengths; no resets, nothing forced.

    Returns:
        L = sum of the lengths steps of one row; ``controls.reset`` is True where a row of the batch begins.

    Example:
        >>> xs = torch.arange(6.0).reshape(3, 2, 1)
        >>> stream = one_stream(Chunk(xs, xs, None, Controls(torch.tensor([3, 2]))))
        >>> stream.xs.flatten().tolist(), stream.controls.reset.flatten().tolist()
        ([0.0, 2.0, 4.0, 1.0, 3.0], [True, False, False, True, False])
    """
    first = tree.leaves(chunk.xs)[0]
    num_steps, batch_size = first.shape[:2]
    alive = chunk.controls.alive(num_steps)
    if alive is None:
        alive = torch.ones(num_steps, batch_size, dtype=torch.bool)
    kept = alive.T

    def flat(leaf: Tensor) -> Tensor:
        return leaf.transpose(0, 1)[kept].unsqueeze(1)

    begins = (torch.arange(num_steps) == 0)[:, None].expand(-1, batch_size)
    weights = None if chunk.weights is None else flat(chunk.weights)
    return Chunk(tree.map(flat, chunk.xs), tree.map(flat, chunk.targets), weights, Controls(reset=flat(begins)))
