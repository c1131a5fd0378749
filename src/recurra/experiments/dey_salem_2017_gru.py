"""Dey and Salem 2017: gated recurrent units with less and less in their gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..cells import DropoutCell, EmbeddingCell, GRU1Cell, GRU2Cell, GRU3Cell, GRUCell
from ..core import Chunk, Claim, Controls, CrossEntropy, Experiment, Log
from ..datasets.folder import data_folder
from ..datasets.sentences import LabelledSentences, read_polarity
from ..training import Progress, fit
from ..wrappers import Stack
from .digits import LastStep, Progressing, Recipe, accuracy, digits, learn, num_parameters, pixels, rows
from .prediction import Stages

_UNITS = {"gru0": partial(GRUCell, reset_after=False), "gru1": GRU1Cell, "gru2": GRU2Cell, "gru3": GRU3Cell}


@dataclass(frozen=True)
class DeySalem2017GRU(Experiment):
    """Handwritten digits and reviews: gates that do not see the input do as well; gates that see nothing do a little worse.

    Args:
        hidden_size: H.
        num_epochs: passes through the training pictures.
        batch_size: pictures in an update.
        lr: Adam's largest learning rate.
        pixel_side: pictures of the control are averaged down to this side and read pixel by pixel.
        pixel_updates: updates of the control.
        pixel_batch_size: pictures in an update of the control.
        pixel_lr: Adam's largest learning rate in the control.
        review_epochs: passes through the reviews.
        review_hidden_size: H and embedding for the reviews.
        seed: of weights, order, and the reviews' split.
        stand_in: made-up pictures and sentences in place of the files.
    Source:
        Dey & Salem 2017, "Gate-variants of gated recurrent unit (GRU) neural networks", arXiv:1701.05923 (abstract read;
        settings from memory)
    Differs:
        Adam with a falling rate in place of RMSProp. The pictures that are read pixel by pixel are averaged down to
        14 x 14. IMDB's reviews are replaced by rt-polarity's sentences (Pang & Lee 2005), a tenth of them for the test, so
        only the order of the units can be compared there. One seed; the test parts are used once, after the last update.
    """

    id: ClassVar[str] = "dey-salem-2017-gru"
    source: ClassVar[str] = "Dey & Salem 2017, arXiv:1701.05923"
    requires: ClassVar[tuple[str, ...]] = ("mnist", "sentence-classification")
    claims: ClassVar[tuple[Claim, ...]] = (
        *(
            Claim(f"rows_{name}_accuracy", 98.8, "higher", "'as well as the original'", "abstract", "own bar")
            for name in ("gru0", "gru1", "gru2")
        ),
        Claim("rows_gru3_accuracy", 98.0, "higher", "slightly lower", "MNIST, 28 steps", "from memory"),
        Claim("parameters_wrong", 0, "lower", "nm, nm + n, nm + n^2 fewer for each gate", "equations", "theorem"),
        Claim("reviews_gru1_behind_gru0", 2.0, "lower", "'as well as the original'", "abstract", "own bar"),
        Claim("reviews_gru2_behind_gru0", 2.0, "lower", "'as well as the original'", "abstract", "own bar"),
        Claim("pixels_gru3_behind_gru1", 5.0, "higher", "much lower", "MNIST, 784 steps", "from memory", control=True),
    )

    hidden_size: int = 100
    num_epochs: int = 8
    batch_size: int = 32
    lr: float = 3e-3
    pixel_side: int = 14
    pixel_updates: int = 700
    pixel_batch_size: int = 64
    pixel_lr: float = 5e-3
    review_epochs: int = 3
    review_hidden_size: int = 64
    seed: int = 0
    stand_in: bool = False

    @classmethod
    def smoke(cls) -> Self:
        """Made-up pictures and sentences, a few updates."""
        return cls(
            hidden_size=8,
            num_epochs=1,
            pixel_side=7,
            pixel_updates=2,
            pixel_batch_size=32,
            review_epochs=1,
            review_hidden_size=4,
            stand_in=True,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Four units on rows, two on pixels, three on reviews."""
        data = digits(stand_in=self.stand_in)
        parts = (
            ("rows", 1.0, tuple(_UNITS)),
            ("pixels", 0.7, ("gru1", "gru3")),
            ("reviews", 0.3, ("gru0", "gru1", "gru2")),
        )
        stages = Stages(log, {f"{what} {name}": share for what, share, names in parts for name in names})
        metrics: dict[str, float] = {}
        wrong = 0
        updates = self.num_epochs * (len(data.train_labels) // self.batch_size)
        for name, unit in _UNITS.items():
            torch.manual_seed(self.seed)
            cell = unit(28, self.hidden_size, recurrent_init="orthogonal")
            wrong += num_parameters(cell) != expected_parameters(name, 28, self.hidden_size)
            net = LastStep(cell)
            recipe = Recipe(self.batch_size, updates, self.lr)
            learn(
                net, rows(data.train_images), data.train_labels, recipe, seed=self.seed, progress=stages(f"rows {name}")
            )
            metrics[f"rows_{name}_accuracy"] = accuracy(net, rows(data.test_images), data.test_labels)
            metrics[f"rows_{name}_parameters"] = num_parameters(cell)
        metrics["parameters_wrong"] = wrong
        train, test = pixels(data.train_images, self.pixel_side), pixels(data.test_images, self.pixel_side)
        for name in ("gru1", "gru3"):
            torch.manual_seed(self.seed)
            net = LastStep(_UNITS[name](1, self.hidden_size))
            recipe = Recipe(self.pixel_batch_size, self.pixel_updates, self.pixel_lr)
            learn(net, train, data.train_labels, recipe, seed=self.seed, progress=stages(f"pixels {name}"))
            metrics[f"pixels_{name}_accuracy"] = accuracy(net, test, data.test_labels)
        metrics["pixels_gru3_behind_gru1"] = metrics["pixels_gru1_accuracy"] - metrics["pixels_gru3_accuracy"]
        reviews = _reviews(stand_in=self.stand_in, seed=self.seed)
        for name in ("gru0", "gru1", "gru2"):
            metrics[f"reviews_{name}_accuracy"] = self._reviewed(name, reviews, stages(f"reviews {name}"))
        for name in ("gru1", "gru2"):
            behind = metrics["reviews_gru0_accuracy"] - metrics[f"reviews_{name}_accuracy"]
            metrics[f"reviews_{name}_behind_gru0"] = behind
        return metrics

    def _reviewed(self, name: str, reviews: _Reviews, progress: Progressing) -> float:
        """Test accuracy in percent of one unit on reviews."""
        torch.manual_seed(self.seed)
        size = self.review_hidden_size
        below = (EmbeddingCell(reviews.num_words, size), DropoutCell(size, 0.5))
        net = LastStep(Stack(*below, _UNITS[name](size, size), DropoutCell(size, 0.5)), 2)
        chunks = _batches(reviews.train, reviews.train_labels, 64)
        generator = torch.Generator().manual_seed(self.seed)
        total = self.review_epochs * len(chunks)
        order = [chunks[i] for _ in range(self.review_epochs) for i in torch.randperm(len(chunks), generator=generator)]

        def tell(update: Progress) -> None:
            progress(update.num_steps / total)

        optimizer = partial(torch.optim.Adam, lr=2e-3)
        fit(net, order, CrossEntropy(), optimizer, clip_norm=1.0, lr_schedule=lambda n: 1 - n / total, on_step=tell)
        return _review_accuracy(net.eval(), _batches(reviews.test, reviews.test_labels, 64))


def expected_parameters(name: str, inputs: int, units: int) -> int:
    """As the equations have it: the full unit, less what each of the two gates does not see."""
    full = 3 * (units * units + units * inputs + units)
    spared = {"gru0": 0, "gru1": units * inputs, "gru2": units * inputs + units, "gru3": units * inputs + units * units}
    return full - 2 * spared[name]


class _Reviews:
    """Sentences as numbers of words, a tenth of them for the test; words seen once in training share a number."""

    def __init__(self, data: LabelledSentences, seed: int) -> None:
        order = torch.randperm(len(data.words), generator=torch.Generator().manual_seed(seed)).tolist()
        cut = len(order) - len(order) // 10
        count = Counter(word for i in order[:cut] for word in data.words[i])
        number = {word: n for n, word in enumerate((w for w, c in sorted(count.items()) if c > 1), start=1)}
        lines = [torch.tensor([number.get(word, 0) for word in data.words[i]]) for i in order]
        labels = data.labels[order]
        self.num_words = len(number) + 1
        self.train, self.test = lines[:cut], lines[cut:]
        self.train_labels, self.test_labels = labels[:cut], labels[cut:]


def _reviews(*, stand_in: bool, seed: int) -> _Reviews:
    if not stand_in:
        return _Reviews(read_polarity(data_folder("sentence-classification")), seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (200,), generator=generator)
    words = [
        [f"w{int(w)}" for w in torch.randint(20, (5,), generator=generator)] + (["good"] if label else ["bad"])
        for label in labels
    ]
    return _Reviews(LabelledSentences(words, labels), seed)


def _batches(lines: list[Tensor], labels: Tensor, batch_size: int) -> list[Chunk]:
    """Lines of like length side by side, (T, B) with their true lengths."""
    lengths = torch.tensor([len(line) for line in lines])
    chunks = []
    for some in lengths.argsort(stable=True).split(batch_size):
        xs = pad_sequence([lines[int(i)] for i in some])
        chunks.append(Chunk(xs, labels[None, some], None, Controls(lengths=lengths[some])))
    return chunks


@torch.no_grad()
def _review_accuracy(net: nn.Module, chunks: list[Chunk]) -> float:
    right = total = 0
    for chunk in chunks:
        said = net(chunk.xs, lengths=chunk.controls.lengths)[0].argmax(-1)
        right += int((said == chunk.targets[0]).sum())
        total += said.numel()
    return 100 * right / total
