"""Elman 1990: word classes from word order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Claim, Experiment, LearningRule, Log
from ..learning import TruncatedBPTT
from ..tasks.sentences import ANIMATE, VERBS, WORDS, next_word_probabilities, sentence_stream
from .prediction import Prediction, Stages, elman_nets, learn, predict, stream_chunks

_NUM_BITS = 31


@dataclass(frozen=True)
class Elman1990Sentences(Experiment):
    """Discovering lexical classes from word order: hidden states group words as grammar and meaning do.

    29 words in sentences of two or three words, nothing between the sentences, one input unit a word. The net predicts the
    next word. What it says is held against the exact likelihood of every word given all words so far; the mean hidden state
    of each word is clustered.

    Args:
        num_seeds: nets, each with weights and a text of its own.
        num_sentences: of the training text.
        num_test_sentences: of the text it is tested on.
        hidden_size: H.
        num_epochs: passes through the text.
        lr: Adam's learning rate, falling to a tenth.
        num_rows: parts of the text that are read side by side.
        num_steps: words between two updates.
        weight_range: weights into the hidden layer begin in U(-a, a).
    Source:
        Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1, pp. 194-203 (numbers from memory)
    Differs:
        The gradient is Elman's (one step back); the step is Adam's, once in ``num_steps`` steps of ``num_rows`` parts of the
        text, on the cross-entropy of the bits. The paper's likelihoods are counted in its text, ours are those of the grammar.
        It is tested on a new text. The weights begin large: with small ones the hidden state of a word shows what may come
        next more than what it is, and words that end sentences (verbs and nouns) fall together. Which words share a category
        is partly ours, see `recurra.tasks.sentences`. Clusters by mean distance (UPGMA).
    """

    id: ClassVar[str] = "elman-1990-sentences"
    source: ClassVar[str] = "Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("cosine", 0.916, "higher", "0.916 (sd 0.123) ?", "against counted likelihoods", "from memory"),
        Claim("rms", 0.053, "lower", "0.053 (sd 0.100) ?", "against counted likelihoods", "from memory"),
        Claim("noun_verb_purity", 1.0, "higher", "nouns | verbs (tree)", "figure 7", "from memory"),
        Claim("animacy_purity", 0.9, "higher", "animates | inanimates (tree)", "figure 7", "from memory"),
        Claim("cosine_without_context", 0.9, "lower", "", "a net that sees one word", control=True),
        Claim("cosine_untrained", 0.5, "lower", "", "the weights at the beginning", control=True),
    )

    num_seeds: int = 10
    num_sentences: int = 10_000
    num_test_sentences: int = 1500
    hidden_size: int = 150
    num_epochs: int = 6
    lr: float = 0.003
    num_rows: int = 10
    num_steps: int = 10
    weight_range: float = 1.0

    @classmethod
    def smoke(cls) -> Self:
        """Two small nets, a short text."""
        return cls(num_seeds=2, num_sentences=60, num_test_sentences=60, hidden_size=8, num_epochs=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """Elman's one step back, the same with a longer memory of gradients, no context, no training."""
        stages = Stages(log, {"one step back": 1, "through time": 1, "no context": 1, "exact likelihoods": 0.2})
        train, test = self._texts(0, self.num_sentences), self._texts(1000, self.num_test_sentences)
        stages("exact likelihoods")(0)
        exact = torch.stack([next_word_probabilities(words) for words in test.unbind(1)], 1)
        exact = F.pad(exact, (0, _NUM_BITS - len(WORDS))).to(torch.get_default_dtype())
        one = TruncatedBPTT(k1=1, k2=1)
        said = self._learned(train, test, one, True, stages("one step back"))
        through = self._learned(train, test, TruncatedBPTT(), True, stages("through time"))
        alone = self._learned(train, test, one, False, stages("no context"))
        untrained = predict(self._nets(), _localist(test))
        means = [_means(said.hidden[:, i], test[:, i]) for i in range(self.num_seeds)]
        classes = torch.tensor([_purities(m) for m in means])
        log.figure("tree", lambda figure: _draw(figure, means[0]))
        cosine = F.cosine_similarity(said.probabilities, exact, dim=-1)
        rms = (said.probabilities - exact).square().mean(-1).sqrt()
        return {
            "cosine": float(cosine.mean()),
            "cosine_sd": float(cosine.std()),
            "rms": float(rms.mean()),
            "rms_sd": float(rms.std()),
            "noun_verb_purity": float(classes[:, 0].mean()),
            "animacy_purity": float(classes[:, 1].mean()),
            "cosine_worst_net": float(cosine.mean(0).min()),
            "cosine_through_time": float(F.cosine_similarity(through.probabilities, exact, dim=-1).mean()),
            "rms_through_time": float((through.probabilities - exact).square().mean(-1).sqrt().mean()),
            "cosine_without_context": float(F.cosine_similarity(alone.probabilities, exact, dim=-1).mean()),
            "rms_without_context": float((alone.probabilities - exact).square().mean(-1).sqrt().mean()),
            "cosine_untrained": float(F.cosine_similarity(untrained.probabilities, exact, dim=-1).mean()),
        }

    def _texts(self, first_seed: int, num_sentences: int) -> Tensor:
        """(L, N) words, all texts cut to the shortest."""
        seeds = range(first_seed, first_seed + self.num_seeds)
        texts = [sentence_stream(num_sentences, torch.Generator().manual_seed(s)).words for s in seeds]
        return torch.stack([text[: min(map(len, texts))] for text in texts], 1)

    def _nets(self) -> Any:
        return elman_nets(self.num_seeds, _NUM_BITS, self.hidden_size, weight_range=self.weight_range, seed=0)

    def _learned(
        self, train: Tensor, test: Tensor, rule: LearningRule[Any], context: bool, progress: Any
    ) -> Prediction:
        nets = self._nets()
        chunks = stream_chunks(_localist(train), num_rows=self.num_rows, num_steps=self.num_steps, context=context)
        learn(nets, chunks, rule, self.lr, num_epochs=self.num_epochs, progress=progress, final_lr=0.1)
        return predict(nets, _localist(test), context=context)


def _localist(words: Tensor) -> Tensor:
    """One bit for each word; two bits stay free, as in the paper."""
    return F.one_hot(words, _NUM_BITS).to(torch.get_default_dtype())


def _means(hidden: Tensor, words: Tensor) -> Tensor:
    """(29, H) mean hidden state of each word; zero for a word that did not come."""
    total = hidden.new_zeros(len(WORDS), hidden.shape[1]).index_add(0, words, hidden)
    return total / torch.bincount(words, minlength=len(WORDS)).clamp(min=1)[:, None]


def _purities(means: Tensor) -> tuple[float, float]:
    """Share of the words that fall on the right side: nouns | verbs of all, animate | inanimate of the nouns."""
    verb = torch.tensor([word in VERBS for word in WORDS])
    animate = torch.tensor([word in ANIMATE for word in WORDS])
    return _purity(means, verb), _purity(means[~verb], animate[~verb])


def _purity(points: Tensor, kind: Tensor) -> float:
    """Cut the tree in two; in each half the kind that is more frequent counts as right."""
    from scipy.cluster.hierarchy import fcluster, linkage

    half = torch.from_numpy(fcluster(linkage(points.numpy(), "average"), 2, "maxclust"))
    right = sum(max(int(kind[half == k].sum()), int((~kind[half == k]).sum())) for k in (1, 2))
    return right / len(kind)


def _draw(figure: Any, means: Tensor) -> None:
    """The tree of one net."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    figure.set_size_inches(7, 7.5)
    axis = figure.subplots()
    tree = linkage(means.numpy(), "average")
    dendrogram(tree, labels=list(WORDS), orientation="left", ax=axis, color_threshold=0, above_threshold_color="0.35")
    colors = {word: "#228833" if word in VERBS else "#cc3311" if word in ANIMATE else "#4477aa" for word in WORDS}
    for label in axis.get_yticklabels():
        label.set(color=colors[label.get_text()], fontsize=11)
    for text, color, height in (
        ("verbs", "#228833", 0.98),
        ("animate", "#cc3311", 0.94),
        ("inanimate", "#4477aa", 0.90),
    ):
        axis.text(0.01, height, text, color=color, transform=axis.transAxes, va="top")
    axis.set_title("Mean hidden state of each word, clustered", loc="left", fontsize=11)
    axis.set_xlabel("distance")
    axis.spines[["top", "right", "left"]].set_visible(False)
