"""Karpathy 2015: a net that writes Shakespeare letter by letter, and cells in it that can be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cells import LSTMCell
from ..core import Cell, Chunk, Claim, CrossEntropy, Experiment, Log
from ..datasets.folder import data_folder
from ..engines import Auto, Hoisted
from ..learning import TruncatedBPTT
from ..training import Progress, fit
from ..wrappers import Readout, Record, Stack
from .prediction import Stages


@dataclass(frozen=True)
class Karpathy2015CharRNN(Experiment):
    """A text as a stream of characters: the next one is predicted, new text is drawn, single cells keep count of the line.

    Two layers of LSTM cells read tiny Shakespeare. Afterwards each memory cell is compared with what a reader knows at that
    place of the held-out text: how far the line has run, whether it is a speaker's name, whether a word is being spelled.
    The cell is chosen on the first half of that text and its correlation measured on the second.

    Args:
        hidden_size: H of both layers.
        num_epochs: passes through the first nine tenths of the text.
        num_rows: parts of the text that are read side by side.
        num_steps: characters between two updates.
        lr: Adam's learning rate, falling in a line to zero.
        temperature: of the text that is drawn.
        num_drawn: characters that are drawn.
        num_read: characters of held-out text on which the cells are read.
        seed: of weights and of the text that is drawn.
        stand_in: a made-up text in place of the file.
    Source:
        Karpathy, "The unreasonable effectiveness of recurrent neural networks" (2015), and Karpathy, Johnson & Fei-Fei
        2015, "Visualizing and understanding recurrent networks", arXiv:1506.02078 (from memory)
    Differs:
        Adam in place of RMSProp, no dropout, bfloat16 in the products, nine tenths of the text for training and the last
        tenth held out. The blog shows samples and cells and prints no numbers for this text; the bars are ours.
    """

    id: ClassVar[str] = "karpathy-2015-charrnn"
    source: ClassVar[str] = (
        "Karpathy 2015, The unreasonable effectiveness of recurrent neural networks; arXiv:1506.02078"
    )
    requires: ClassVar[tuple[str, ...]] = ("tinyshakespeare",)
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("nats_per_character", 1.60, "lower", "", "last tenth of the text, own bar"),
        Claim(
            "best_cell_correlation",
            0.7,
            "higher",
            "cells that keep track of the line (pictures)",
            "blog",
            "from memory",
        ),
        Claim("drawn_words_known", 0.85, "higher", "'words are mostly spelled right'", "blog", "from memory"),
        Claim("pairs_nats_per_character", 2.2, "higher", "", "the last character alone (pair counts)", control=True),
        Claim("best_cell_correlation_untrained", 0.6, "lower", "", "the same cells before training", control=True),
    )

    hidden_size: int = 128
    num_epochs: int = 14
    num_rows: int = 32
    num_steps: int = 64
    lr: float = 4e-3
    temperature: float = 0.7
    num_drawn: int = 4000
    num_read: int = 40_000
    seed: int = 0
    stand_in: bool = False

    @classmethod
    def smoke(cls) -> Self:
        """A made-up text, one pass."""
        return cls(hidden_size=8, num_epochs=1, num_drawn=50, num_read=400, num_rows=8, stand_in=True)

    def run(self, log: Log) -> Mapping[str, float]:
        """Train, draw, read the cells."""
        text = (
            _made_up(self.seed) if self.stand_in else (data_folder("tinyshakespeare") / "input.txt").read_text("utf-8")
        )
        alphabet = sorted(set(text))
        tokens = _codes(text, alphabet)
        cut = len(tokens) * 9 // 10
        train, held = tokens[:cut], tokens[cut:]
        stages = Stages(log, {"train": 12.0, "read": 1.0, "draw": 1.0})
        torch.manual_seed(self.seed)
        size, num = self.hidden_size, len(alphabet)
        net = Readout(Stack(LSTMCell(num, size), LSTMCell(size, size)), num)
        read = held[: self.num_read]
        facts = _facts(text[cut : cut + self.num_read])
        before = _best_cell(_memory(net, read, num), facts)
        self._train(net, train, num, stages("train"))
        after = _best_cell(_memory(net, read, num), facts)
        stages("read")(1.0)
        drawn = self._draw(net.eval(), alphabet, train[-1])
        stages("draw")(1.0)
        log.figure("cell", partial(_picture, found=after, text=text[cut : cut + self.num_read]))
        words = set(re.findall(r"[a-z']+", text[:cut].lower()))
        spelled = re.findall(r"[a-z']+", drawn.lower())
        return {
            "nats_per_character": _nats(net, held, num),
            "best_cell_correlation": abs(after.correlation),
            "best_cell_is_about_line_position": float(after.fact.startswith("line")),
            "drawn_words_known": sum(word in words for word in spelled) / max(1, len(spelled)),
            "pairs_nats_per_character": _pair_nats(train, held, num),
            "best_cell_correlation_untrained": abs(before.correlation),
            **{f"correlation_{name}": abs(value) for name, value in after.each.items()},
            "weights": float(sum(p.numel() for p in net.parameters())),
        }

    def _train(self, net: Cell, tokens: Tensor, num: int, progress: Callable[[float], None]) -> None:
        length = len(tokens) // self.num_rows
        rows = tokens[: length * self.num_rows].view(self.num_rows, length).t()
        starts = range(0, length - self.num_steps, self.num_steps)
        total = self.num_epochs * len(starts)

        def chunks() -> Iterator[Chunk]:
            for a in starts:
                part = rows[a : a + self.num_steps + 1]
                yield Chunk(F.one_hot(part[:-1], num).float(), part[1:])

        def tell(update: Progress) -> None:
            progress(update.num_steps / total)

        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # a cache would keep the first weights
            fit(
                net,
                _Again(chunks),
                CrossEntropy(),
                partial(torch.optim.Adam, lr=self.lr),
                rule=TruncatedBPTT(),
                num_epochs=self.num_epochs,
                clip_norm=5.0,
                lr_schedule=lambda n: 1 - n / total,
                on_step=tell,
            )

    @torch.no_grad()
    def _draw(self, net: Cell, alphabet: list[str], first: Tensor) -> str:
        generator = torch.Generator().manual_seed(self.seed)
        token, state, drawn = first.view(1), net.initial_state(1), []
        for _ in range(self.num_drawn):
            logits, state = net(F.one_hot(token, len(alphabet)).float(), state)
            token = torch.multinomial((logits[0] / self.temperature).softmax(-1), 1, generator=generator)
            drawn.append(alphabet[int(token)])
        return "".join(drawn)


class _Again:
    """An iterable that begins anew each time."""

    def __init__(self, make: Callable[[], Iterator[Chunk]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Chunk]:
        return self.make()


def _codes(text: str, alphabet: list[str]) -> Tensor:
    number = {c: i for i, c in enumerate(alphabet)}
    return torch.tensor([number[c] for c in text])


@torch.no_grad()
def _nats(net: Cell, tokens: Tensor, num: int) -> float:
    """Mean cross-entropy of the whole text read once from its beginning, the state carried all the way."""
    state, total = None, 0.0
    for a in range(0, len(tokens) - 1, 10_000):
        part = tokens[a : a + 10_001]
        ys, state = Auto()(net, F.one_hot(part[:-1], num).float().unsqueeze(1), state)
        total += float(F.cross_entropy(ys[:, 0], part[1:], reduction="sum"))
    return total / (len(tokens) - 1)


def _pair_nats(train: Tensor, held: Tensor, num: int) -> float:
    """What the last character alone says: counts of pairs, one added to each."""
    counts = torch.ones(num, num).index_put_((train[:-1], train[1:]), torch.ones(len(train) - 1), accumulate=True)
    log_p = (counts / counts.sum(1, keepdim=True)).log()
    return float(-log_p[held[:-1], held[1:]].mean())


@torch.no_grad()
def _memory(net: Cell, tokens: Tensor, num: int, rows: int = 16) -> Tensor:
    """(N, 2 H): tanh of all memory cells after each character; the text is read in ``rows`` parts side by side."""
    length = len(tokens) // rows
    xs = F.one_hot(tokens[: length * rows].view(rows, length).t(), num).float()
    stack = net.cell
    seen, _ = Hoisted()(Record(stack), xs)
    both = torch.cat([layer.c.tanh() for layer in seen.state], -1)  # (T, rows, 2 H)
    return both.transpose(0, 1).flatten(0, 1)


def _facts(text: str) -> dict[str, Tensor]:
    """What a reader knows after each character; (N,) each."""
    since, name, word, rows = 0, False, 0, []
    lines = text.split("\n")
    for i, line in enumerate(lines):
        name = line.endswith(":") and (i == 0 or not lines[i - 1])
        for c in line + "\n":
            since = 0 if c == "\n" else since + 1
            word = word + 1 if c.isalpha() else 0
            rows.append((float(since), float(name), float(word > 0), float(word)))
    columns = torch.tensor(rows[: len(text)]).t()
    return dict(zip(("line_position", "speaker", "in_word", "word_position"), columns))


class _Found(NamedTuple):
    """The memory cell that follows a fact best: its number, the fact, and their correlation where it was not chosen."""

    cell: int
    fact: str
    correlation: float
    each: dict[str, float]
    values: Tensor
    fact_values: Tensor


def _best_cell(memory: Tensor, facts: Mapping[str, Tensor]) -> _Found:
    """Chosen on the first half of the text, measured on the second."""
    half = len(memory) // 2
    each: dict[str, tuple[int, float]] = {}
    for name, fact in facts.items():
        fact = fact[: len(memory)]
        cell = int(_correlation(memory[:half], fact[:half]).abs().argmax())
        each[name] = cell, float(_correlation(memory[half:, cell : cell + 1], fact[half:])[0])
    best = max(each, key=lambda name: abs(each[name][1]))
    cell, value = each[best]
    measured = {name: r for name, (_, r) in each.items()}
    return _Found(cell, best, value, measured, memory[:, cell], facts[best][: len(memory)])


def _correlation(values: Tensor, fact: Tensor) -> Tensor:
    """(C,) Pearson's r of each column with the fact; 0 for what is constant."""
    values, fact = values - values.mean(0), fact - fact.mean()
    norm = values.norm(dim=0) * fact.norm()
    return torch.where(norm > 0, (values * fact[:, None]).sum(0) / norm.clamp(min=1e-12), 0.0)


def _made_up(seed: int) -> str:
    """Lines of made-up words below made-up speakers."""
    generator = torch.Generator().manual_seed(seed)
    words = ["sun", "moon", "and", "the", "rises", "falls", "over", "sea", "hill", "again"]
    lines = []
    for i in range(150):
        chosen = torch.randint(len(words), (3 + i % 4,), generator=generator)
        if i % 5 == 0:
            lines += ["", "FIRST:" if i % 2 else "SECOND:"]
        lines.append(" ".join(words[int(w)] for w in chosen) + ".")
    return "\n".join(lines) + "\n"


def _picture(figure: Any, found: _Found, text: str, width: int = 56, num_lines: int = 18) -> None:
    """The held-out text, each character on the color of the cell."""
    from matplotlib import colormaps

    axis = figure.subplots()
    axis.set_axis_off()
    colors = colormaps["RdBu"]
    start = text.index("\n") + 1
    x = y = 0
    for i, character in enumerate(text[start : start + 4000], start=start):
        if y >= num_lines or i >= len(found.values):
            break
        if character == "\n" or x >= width:
            x, y = 0, y + 1
        if character != "\n":
            color = colors(float(found.values[i]) / 2 + 0.5)
            axis.text(x, -y, character, family="monospace", fontsize=9, ha="center", va="center", backgroundcolor=color)
            x += 1
    axis.set(xlim=(-1, width), ylim=(-num_lines, 1))
    title = f"cell {found.cell}: {found.fact.replace('_', ' ')}, r = {found.correlation:.2f}"
    axis.set_title(title, loc="left", fontsize=11)
