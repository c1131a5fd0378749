"""Sequences as batches for training and for prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.controls import Controls
from ..core.rule import Chunk
from ..core.tree import Tree
from ..training import Batches
from ..training.batches import mixed_seed

Encode = Callable[[int, np.random.Generator | None], np.ndarray[Any, Any]]
MOST_CELLS = 400_000  # steps times rows of a batch for prediction


def padded(arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor | None]:
    """(T_i, ...) arrays as one (T, B, ...) tensor with zeros behind the ends, and their lengths (None: all T).

    The last dimension may differ too (pieces of words); it is filled with zeros.
    """
    lengths = torch.tensor([len(a) for a in arrays])
    longest, widest = int(lengths.max()), max(a.shape[-1] for a in arrays)
    out = np.zeros((longest, len(arrays), widest), arrays[0].dtype)
    for b, a in enumerate(arrays):
        out[: len(a), b, : a.shape[-1]] = a
    return torch.from_numpy(out), (None if bool((lengths == longest).all()) else lengths)


@dataclass(frozen=True)
class VariedBatches:
    """Training batches of sequences that are encoded, and varied, anew in every epoch; see `recurra.training.TrainingData`.

    Args:
        encode: the input of the net for the sequence at a place, varied by a random generator.
        lengths: of the N sequences, for batches of like lengths.
        targets: makes a batch's targets from its places.
        batch_size: B.
        seed: of the order and the variations.
        at_end: targets (B,) are for a rule that wants one for each step: only the last step counts, with ``weights``.
        weights: (N,) of the sequences, where ``at_end``.
    """

    encode: Encode
    lengths: Sequence[int]
    targets: Callable[[Tensor], Tree]
    batch_size: int
    seed: int
    at_end: bool = False
    weights: Tensor | None = None
    carries = False

    def _batches(self) -> Batches:
        empty = [torch.empty(length, 0) for length in self.lengths]
        return Batches(empty, empty, self.batch_size, kind="sequence", seed=self.seed)

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The batches of one epoch."""
        for number, places in enumerate(self._batches().order(index)):
            rng = np.random.default_rng(mixed_seed(self.seed, index, number, 1))
            yield self.chunk(places, rng)

    def chunk(self, places: Sequence[int], rng: np.random.Generator | None) -> Chunk:
        """One batch."""
        xs, lengths = padded([self.encode(place, rng) for place in places])
        where = torch.tensor(list(places))
        targets, weights = self.targets(where), None
        if self.at_end:
            num_steps = xs.shape[0]
            ends = lengths if lengths is not None else torch.full((len(places),), num_steps)
            weights = (torch.arange(num_steps)[:, None] == ends - 1).to(torch.get_default_dtype())
            if self.weights is not None:
                weights = weights * self.weights[where]
            targets = targets.expand(num_steps, *targets.shape)
        return Chunk(xs, targets, weights, Controls(lengths=lengths))


def in_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places sorted by length, in batches that are not too large."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    start = 0
    while start < len(order):
        stop = min(start + batch_size, len(order))
        while stop - start > 1 and (stop - start) * lengths[order[stop - 1]] > MOST_CELLS:
            stop = start + max(1, (stop - start) // 2)
        yield order[start:stop]
        start = stop
