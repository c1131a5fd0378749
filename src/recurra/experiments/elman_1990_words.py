"""Elman 1990: where the words begin in a stream of letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, LearningRule, Log
from ..learning import TruncatedBPTT
from ..tasks.words import ALPHABET, CODES, WordStream, word_stream
from .prediction import Stages, elman_nets, learn, predict, stream_chunks


class _Segmentation(NamedTuple):
    """(N,) each: F1 of the boundaries, and the mean error at onsets over the mean error inside words."""

    f1: Tensor
    ratio: Tensor


@dataclass(frozen=True)
class Elman1990Words(Experiment):
    """Discovering the notion "word": the error is high where a word begins and falls as the word goes on.

    Fifteen words make two hundred sentences, written letter by letter without spaces. The net predicts the next letter; where
    its error is above its mean, a word is said to begin.

    Args:
        num_seeds: nets, each with weights and a text of its own.
        num_sentences: of the training text, and of the text it is tested on.
        hidden_size: H.
        num_epochs: passes through the text.
        lr: Adam's learning rate, falling to a tenth.
        lr_one_step: the same for Elman's own rule.
        num_steps: letters between two updates; also how far gradients reach.
        weight_range: weights into the hidden layer begin in U(-a, a).
    Source:
        Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1, pp. 191-194 (read in a copy)
    Differs:
        The claims are held against backpropagation through ``num_steps`` letters; Elman's own rule, one step back, is run
        too and named so. Adam on the cross-entropy of the bits instead of plain gradient descent. The paper prints neither
        its fifteenth word nor its sentence generator. It is tested on a new text; the paper shows the training text. The
        bars are ours.
    """

    id: ClassVar[str] = "elman-1990-words"
    source: ClassVar[str] = "Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("f1", 0.80, "higher", "correlates highly with words", "p. 192", "read"),
        Claim("onset_over_inside", 1.5, "higher", "high at onsets, declines inside (curve)", "figure 6", "read"),
        Claim("share_of_nets", 1.0, "higher", "one net shown", "figure 6; both bars at once"),
        Claim("f1_one_step_back", 0.80, "higher", "correlates highly with words", "p. 192, Elman's own rule", "read"),
        Claim("f1_shuffled", 0.5, "lower", "", "letters in random order", control=True),
        Claim("onset_over_inside_shuffled", 1.1, "lower", "", "letters in random order", control=True),
    )

    num_seeds: int = 10
    num_sentences: int = 200
    hidden_size: int = 20
    num_epochs: int = 10
    lr: float = 0.02
    lr_one_step: float = 0.03
    num_steps: int = 5
    weight_range: float = 0.5

    @classmethod
    def smoke(cls) -> Self:
        """Two nets, a few sentences, two passes."""
        return cls(num_seeds=2, num_sentences=8, num_epochs=2)

    def run(self, log: Log) -> Mapping[str, float]:
        """Through time, one step back, and with the letters in random order."""
        stages = Stages(log, {"through time": 1, "one step back": 1, "letters in random order": 1})
        train, _ = self._texts(0)
        test, onset = self._texts(1000)
        through = TruncatedBPTT()
        error = self._error(train, test, through, self.lr, stages("through time"))
        found = _segment(error, onset)
        one_step = self._error(train, test, TruncatedBPTT(1, 1), self.lr_one_step, stages("one step back"))
        found_one_step = _segment(one_step, onset)
        train, test = _shuffled(train, 2000), _shuffled(test, 3000)
        error_shuffled = self._error(train, test, through, self.lr, stages("letters in random order"))
        shuffled = _segment(error_shuffled, onset)
        log.figure("errors", lambda figure: _draw(figure, error[:, 0], self._texts(1000)[0][1:, 0], onset[1:, 0]))
        both = (found.f1 >= 0.8) & (found.ratio >= 1.5)
        return {
            "f1": float(found.f1.mean()),
            "onset_over_inside": float(found.ratio.mean()),
            "share_of_nets": float(both.double().mean()),
            "f1_worst_net": float(found.f1.min()),
            "f1_one_step_back": float(found_one_step.f1.mean()),
            "f1_one_step_back_worst_net": float(found_one_step.f1.min()),
            "onset_over_inside_one_step_back": float(found_one_step.ratio.mean()),
            "f1_shuffled": float(shuffled.f1.mean()),
            "onset_over_inside_shuffled": float(shuffled.ratio.mean()),
        }

    def _texts(self, first_seed: int) -> tuple[Tensor, Tensor]:
        """(L, N) letters and word onsets, all texts cut to the shortest."""
        seeds = range(first_seed, first_seed + self.num_seeds)
        texts: list[WordStream] = [word_stream(self.num_sentences, torch.Generator().manual_seed(s)) for s in seeds]
        length = min(len(text.letters) for text in texts)
        letters = torch.stack([text.letters[:length] for text in texts], 1)
        return letters, torch.stack([text.onset[:length] for text in texts], 1)

    def _error(self, train: Tensor, test: Tensor, rule: LearningRule[Any], lr: float, progress: Any) -> Tensor:
        """(L - 1, N) root mean squared error over the bits of every predicted letter of the test text."""
        nets = elman_nets(self.num_seeds, CODES.shape[1], self.hidden_size, weight_range=self.weight_range, seed=0)
        chunks = stream_chunks(CODES[train], num_rows=1, num_steps=self.num_steps)
        learn(nets, chunks, rule, lr, num_epochs=self.num_epochs, progress=progress, final_lr=0.1)
        said = predict(nets, CODES[test]).probabilities
        return (said[:-1] - CODES[test[1:]]).square().mean(-1).sqrt()


def _shuffled(letters: Tensor, seed: int) -> Tensor:
    """The letters of each text in random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(letters.shape, generator=generator).argsort(0)
    return letters.gather(0, order)


def _segment(error: Tensor, onset: Tensor) -> _Segmentation:
    """Boundaries where the error is above its mean, held against the true ones."""
    true = onset[1:]
    said = error > error.mean(0)
    f1 = 2 * (said & true).sum(0) / (said.sum(0) + true.sum(0))
    at, inside = (torch.where(mask, error, 0).sum(0) / mask.sum(0) for mask in (true, ~true))
    return _Segmentation(f1, at / inside)


def _draw(figure: Any, error: Tensor, letters: Tensor, onset: Tensor, num_shown: int = 70) -> None:
    """The error of one net along the first letters of the test text."""
    error, letters, onset = error[:num_shown], letters[:num_shown], onset[:num_shown]
    axis = figure.subplots()
    axis.axhline(float(error.mean()), color="0.6", lw=1, ls="--", label="mean")
    axis.plot(error, color="#4477aa", lw=1.2)
    inside, first = (~onset).nonzero().flatten(), onset.nonzero().flatten()
    axis.plot(inside, error[inside], "o", ms=4, color="#4477aa", label="inside a word")
    axis.plot(first, error[first], "o", ms=5, color="#cc3311", label="first letter of a word")
    axis.set_xticks(range(len(letters)), [ALPHABET[i] for i in letters])
    for label, begins in zip(axis.get_xticklabels(), onset.tolist()):
        label.set_color("#cc3311" if begins else "black")
    axis.set(xlabel="letter that had to be predicted", ylabel="root mean squared error", xlim=(-1, len(letters)))
    axis.set_title("Error of a net along a new text", loc="left", fontsize=10)
    axis.set_ylim(0, float(error.max()) * 1.25)
    axis.legend(loc="upper right", ncols=3, fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
