"""Elman 1990: consonants, and the vowels that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..learning import TruncatedBPTT
from ..tasks.letters import CODES, FEATURES, IDENTITY_FLOOR, LETTERS, consonant_probabilities, letter_stream
from .prediction import Stages, elman_nets, learn, predict, stream_chunks

_PAPER = "Cognitive Science 14(2)"


class _Errors(NamedTuple):
    """What one net's predictions are worth; (N,) each."""

    vowel_mse: Tensor
    consonant_bit_mse: Tensor
    identity_over_floor: Tensor


@dataclass(frozen=True)
class Elman1990Letters(Experiment):
    """Structure in letter sequences: what follows is predicted, and what cannot be known is known to be a consonant.

    A stream of random consonants, each followed by its own vowels: ba, dii, guuu. The net reads six features of a letter and
    predicts those of the next. Vowels can be predicted; when a consonant is due, the feature "consonant" can, and which one
    it is cannot.

    Args:
        num_seeds: nets, each with weights and a stream of its own.
        num_consonants: syllables in the training stream.
        num_test_consonants: syllables in the stream it is tested on.
        hidden_size: H.
        num_epochs: passes through the stream.
        lr: Adam's learning rate, falling to a tenth.
        num_rows: parts of the stream that are read side by side.
        num_steps: steps between two updates.
        weight_range: weights into the hidden layer begin in U(-a, a).
    Source:
        Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1, pp. 187-191 (read in a copy)
    Differs:
        The gradient is Elman's (one step back, the context a copied input); the step is Adam's, once in ``num_steps`` steps of
        ``num_rows`` parts of the stream, on the cross-entropy of the bits. The context begins at 0. The paper shows curves
        and prints no numbers; the bars are ours.
    """

    id: ClassVar[str] = "elman-1990-letters"
    source: ClassVar[str] = "Elman 1990, Cognitive Science 14(2):179-211, doi:10.1207/s15516709cog1402_1"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("vowel_mse", 0.02, "lower", "low (curve)", "figure 4", "read"),
        Claim("consonant_bit_mse", 0.05, "lower", "low at all times (curve)", "figure 5a", "read"),
        Claim("identity_over_floor", 1.05, "lower", "high (curve)", "figures 4 and 5b; the floor is ln 3", "theorem"),
        Claim("vowel_mse_without_context", 0.04, "higher", "needs context units", "p. 189", "read", control=True),
    )

    num_seeds: int = 10
    num_consonants: int = 1000
    num_test_consonants: int = 500
    hidden_size: int = 20
    num_epochs: int = 200
    lr: float = 0.01
    num_rows: int = 10
    num_steps: int = 10
    weight_range: float = 0.5

    @classmethod
    def smoke(cls) -> Self:
        """Two nets, a short stream."""
        return cls(num_seeds=2, num_consonants=60, num_test_consonants=30, num_epochs=3)

    def run(self, log: Log) -> Mapping[str, float]:
        """Elman's one step back, the same with a longer memory of gradients, and no context at all."""
        stages = Stages(log, {"one step back": 1, "through time": 1, "no context": 1})
        train, test = self._streams(0, self.num_consonants), self._streams(1000, self.num_test_consonants)
        rules = {
            "one step back": ("", TruncatedBPTT(k1=1, k2=1)),
            "through time": ("_bptt", TruncatedBPTT()),
            "no context": ("_without_context", TruncatedBPTT(k1=1, k2=1)),
        }
        metrics: dict[str, float] = {}
        for name, (suffix, rule) in rules.items():
            context = name != "no context"
            nets = elman_nets(self.num_seeds, len(FEATURES), self.hidden_size, weight_range=self.weight_range, seed=0)
            chunks = stream_chunks(CODES[train], num_rows=self.num_rows, num_steps=self.num_steps, context=context)
            learn(nets, chunks, rule, self.lr, num_epochs=self.num_epochs, progress=stages(name), final_lr=0.1)
            said = predict(nets, CODES[test], context=context).probabilities[:-1]
            errors = _errors(said, test[1:])
            for metric, values in errors._asdict().items():
                metrics[metric + suffix] = float(values.mean())
                if not suffix:
                    metrics[f"{metric}_worst_net"] = float(values.max())
            if not suffix:
                log.figure("errors", partial(_draw, said=said[:, 0], letters=test[1:, 0]))
        return metrics

    def _streams(self, first_seed: int, num_consonants: int) -> Tensor:
        """(L, N) letters, all streams cut to the shortest."""
        seeds = range(first_seed, first_seed + self.num_seeds)
        streams = [letter_stream(num_consonants, torch.Generator().manual_seed(s)).letters for s in seeds]
        return torch.stack([s[: min(map(len, streams))] for s in streams], 1)


def _errors(said: Tensor, letters: Tensor) -> _Errors:
    squared = (said - CODES[letters]).square()
    due = letters < 3
    nats = -consonant_probabilities(said).log().gather(-1, letters.clamp(max=2).unsqueeze(-1)).squeeze(-1)
    vowel, bit, identity = [], [], []
    for i in range(said.shape[1]):
        vowel.append(squared[:, i][~due[:, i]].mean())
        bit.append(squared[:, i, 0][due[:, i]].mean())
        identity.append(nats[:, i][due[:, i]].mean() / IDENTITY_FLOOR)
    return _Errors(torch.stack(vowel), torch.stack(bit), torch.stack(identity))


def _draw(figure: Any, said: Tensor, letters: Tensor, num_shown: int = 45) -> None:
    """The error of one net along the test stream: all bits, and two of them by themselves."""
    squared = (said - CODES[letters]).square()[50 : 50 + num_shown]
    names = [LETTERS[i] for i in letters[50 : 50 + num_shown]]
    rows = {"all six features": squared.mean(-1), '"consonant"': squared[:, 0], '"high"': squared[:, 3]}
    axes = figure.subplots(len(rows), 1, sharex=True)
    for axis, (name, error) in zip(axes, rows.items()):
        rms = error.sqrt()
        axis.plot(rms, color="#4477aa", lw=1.2)
        for kind, color in ((True, "#cc3311"), (False, "#4477aa")):
            places = [t for t, c in enumerate(names) if (c in "bdg") == kind]
            label = "a consonant is due" if kind else "a vowel is due"
            axis.plot(places, rms[places], "o", ms=4, color=color, label=label)
        axis.set_ylim(-0.05, 1.0)
        axis.set_title(f"Error of {name}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
    axes[-1].set_xticks(range(len(names)), names)
    axes[-1].set_xlabel("letter that had to be predicted")
    figure.supylabel("root mean squared error", fontsize=10)
