"""What the experiments on handwritten digits share: pictures as sequences, and a cell that reads one and answers once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Cell, Chunk, CrossEntropy, Engine
from ..datasets.folder import data_folder
from ..datasets.mnist import Digits, read_mnist
from ..layers import Recurrent
from ..tasks.blobs import blob_pictures
from ..training import Progress, fit

Progressing = Callable[[float], None]


def digits(*, stand_in: bool, num_train: int | None = None) -> Digits:
    """MNIST from the folder of data, or made-up pictures in its form.

    Args:
        stand_in: make them up (400 for training, 100 for the test).
        num_train: only the first so many for training.
    """
    if stand_in:
        data = Digits(*blob_pictures(400, seed=1), *blob_pictures(100, seed=2))
    else:
        data = read_mnist(data_folder("mnist"))
    return data._replace(train_images=data.train_images[:num_train], train_labels=data.train_labels[:num_train])


def rows(images: Tensor) -> Tensor:
    """(N, S, S) pictures as sequences of rows, (S, N, S)."""
    return images.transpose(0, 1)


def pixels(images: Tensor, side: int) -> Tensor:
    """(N, S, S) pictures, averaged down to ``side``, as sequences of single pixels, (side * side, N, 1)."""
    small = F.avg_pool2d(images[:, None], images.shape[-1] // side)
    return small.flatten(1).t().unsqueeze(-1)


class LastStep(nn.Module):
    """A cell reads a sequence; a linear layer answers from its last output.

    Args:
        cell: output (B, F).
        num_classes: answers.
        engine: runs the cell; `Auto` unless given.
    """

    def __init__(self, cell: Cell, num_classes: int = 10, *, engine: Engine | None = None) -> None:
        super().__init__()
        self.recurrent = Recurrent(cell, engine)
        self.linear = nn.Linear(cell.output_size, num_classes)

    def forward(self, xs: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """(1, B, num_classes) logits."""
        ys, _ = self.recurrent(xs, lengths=lengths)
        if lengths is None:
            return self.linear(ys[-1:])
        return self.linear(ys[lengths - 1, torch.arange(ys.shape[1])]).unsqueeze(0)


class Recipe(NamedTuple):
    """How a net is trained: Adam, its rate rising over the first twentieth and then falling in a line to zero."""

    batch_size: int
    num_updates: int
    lr: float
    clip_norm: float = 1.0


def learn(
    net: nn.Module, xs: Tensor, labels: Tensor, recipe: Recipe, *, seed: int, progress: Progressing = lambda done: None
) -> None:
    """Train on sequences (T, N, D) with labels (N,); every sequence once per pass, in another order each time."""
    total = recipe.num_updates

    def batches() -> Iterator[Chunk]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(labels), generator=generator)
            for some in order[: len(order) // recipe.batch_size * recipe.batch_size].split(recipe.batch_size):
                yield Chunk(xs[:, some], labels[None, some])

    def tell(update: Progress) -> None:
        progress(update.num_steps / total)

    fit(
        net,
        batches(),
        CrossEntropy(),
        partial(torch.optim.Adam, lr=recipe.lr),
        num_steps=total,
        clip_norm=recipe.clip_norm,
        lr_schedule=lambda n: min((n + 1) / (1 + total / 20), (total - n) / (total - total / 20)),
        on_step=tell,
    )


@torch.no_grad()
def accuracy(net: nn.Module, xs: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Part of the sequences with the right answer, in percent."""
    right = 0
    for some in torch.arange(len(labels)).split(batch_size):
        right += int((net(xs[:, some])[0].argmax(-1) == labels[some]).sum())
    return 100 * right / len(labels)


def num_parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())
