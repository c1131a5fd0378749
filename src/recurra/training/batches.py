"""Lists of separate sequences become batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_choice, check_positive, sentence
from ..core.controls import Controls
from ..core.rule import Chunk

BUCKET = 16  # batches that are sorted by length together


@runtime_checkable
class TrainingData(Protocol):
    """What `train` reads: chunks in an order that depends on the epoch's number alone.

    ``carries`` says whether the rule's carry goes on from chunk to chunk (streams) or begins anew with each chunk (batches
    of separate sequences).
    """

    carries: bool

    def __len__(self) -> int:
        """Chunks per epoch."""

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The chunks of one epoch, the same ones whenever it is called with this index."""


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; different numbers give unrelated random numbers.

    Example:
        >>> mixed_seed(0, 1) == mixed_seed(0, 1), mixed_seed(0, 1) == mixed_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Batches:
    """Separate sequences of any lengths in batches of similar lengths, in a new order at every epoch.

    The order is a function of (seed, epoch). Shuffled sequences are sorted by length in groups of 16 batches, so that a
    batch has little padding, and then the batches are shuffled.

    Args:
        inputs: N sequences (T_i, ...).
        targets: N targets; see ``kind``.
        batch_size: B; the last batch of an epoch may be smaller.
        kind: "steps": targets (T_i, ...), each step counts. "end": targets (...), the last step of a sequence counts.
            "sequence": targets (...) stacked to (B, ...) as they are, for a `SequenceLoss`.
        seed: of the order.
        shuffle: a new order at every epoch; otherwise the given one, without sorting.
        weights: (N,) weight of each sequence's losses; None for ones.
        device: where the batches go.
    Raises:
        ValueError: no sequences, an empty one, or targets that do not fit.
    Example:
        >>> batches = Batches([torch.zeros(3, 2), torch.zeros(5, 2)], [torch.tensor(0), torch.tensor(1)], 2, kind="end")
        >>> (chunk,) = batches.epoch(0)
        >>> chunk.xs.shape, chunk.controls.lengths.tolist(), int(chunk.weights.sum())
        (torch.Size([5, 2, 2]), [3, 5], 2)
    """

    inputs: Sequence[Tensor]
    targets: Sequence[Tensor]
    batch_size: int
    kind: str = "steps"
    seed: int = 0
    shuffle: bool = True
    weights: Tensor | None = None
    device: str | torch.device = "cpu"
    carries = False

    def __post_init__(self) -> None:
        where = "Batches"
        check_positive(where, batch_size=self.batch_size)
        check_choice(where, "kind", self.kind, ("steps", "end", "sequence"))
        if not len(self.inputs):
            raise ValueError(sentence(where, "inputs", "at least one sequence", "none"))
        if len(self.targets) != len(self.inputs):
            raise ValueError(sentence(where, "targets", f"{len(self.inputs)} of them, like inputs", len(self.targets)))
        if self.weights is not None and tuple(self.weights.shape) != (len(self.inputs),):
            raise ValueError(sentence(where, "weights", f"({len(self.inputs)},)", tuple(self.weights.shape)))
        for i, (x, target) in enumerate(zip(self.inputs, self.targets)):
            if x.ndim < 1 or not len(x):
                raise ValueError(sentence(where, f"inputs[{i}]", "(T, ...) with at least one step", tuple(x.shape)))
            if self.kind == "steps" and target.shape[:1] != x.shape[:1]:
                raise ValueError(sentence(where, f"targets[{i}]", f"({len(x)}, ...)", tuple(target.shape)))

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.inputs) // self.batch_size)

    def order(self, index: int) -> list[list[int]]:
        """Which sequences each batch of epoch ``index`` has."""
        num, size = len(self.inputs), self.batch_size
        places = list(range(num))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, index))
            places = torch.randperm(num, generator=generator).tolist()
            group = BUCKET * size
            places = [
                i
                for a in range(0, num, group)
                for i in sorted(places[a : a + group], key=lambda i: len(self.inputs[i]))
            ]
        batches = [places[a : a + size] for a in range(0, num, size)]
        if self.shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        return batches

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The batches of one epoch."""
        for places in self.order(index):
            yield self.batch(places)

    def __iter__(self) -> Iterator[Chunk]:
        return self.epoch(0)

    def batch(self, places: Sequence[int]) -> Chunk:
        """One batch of the sequences at these places, padded to the longest."""
        lengths = torch.tensor([len(self.inputs[i]) for i in places])
        num_steps = int(lengths.max())
        ragged = bool((lengths != num_steps).any())
        xs = _padded([self.inputs[i] for i in places], num_steps)
        each = None if self.weights is None else self.weights[list(places)]
        weights = None
        if self.kind == "steps":
            targets = _padded([self.targets[i] for i in places], num_steps)
            if each is not None:
                weights = each.expand(num_steps, -1) * (torch.arange(num_steps)[:, None] < lengths)
        else:
            targets = torch.stack([torch.as_tensor(self.targets[i]) for i in places])
            if self.kind == "end":
                targets = targets.expand(num_steps, *targets.shape)
                last = torch.arange(num_steps)[:, None] == lengths - 1
                weights = last.to(torch.get_default_dtype() if each is None else each.dtype)
                weights = weights if each is None else weights * each
        device = torch.device(self.device)
        return Chunk(
            xs.to(device),
            targets.to(device),
            None if weights is None else weights.to(device),
            Controls(lengths=lengths.to(device)) if ragged else Controls(),
        )


def _padded(sequences: Sequence[Tensor], num_steps: int) -> Tensor:
    """(T, B, ...) with zeros after the ends."""
    first = sequences[0]
    out = first.new_zeros(num_steps, len(sequences), *first.shape[1:])
    for b, x in enumerate(sequences):
        out[: len(x), b] = x
    return out
