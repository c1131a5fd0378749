"""What Elman's experiments share: many nets of one size, one for each seed, that predict the next vector of a stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cells import ElmanCell
from ..core import BinaryCrossEntropy, Chunk, Controls, LearningRule, Log
from ..core.loss import Loss
from ..engines import Hoisted
from ..training import MemberSum, Progress, fit
from ..wrappers import Ensemble, Readout


class Stages:
    """Several parts of one run as one progress.

    Args:
        log: told.
        parts: what is done, and its share of the time.
    """

    def __init__(self, log: Log, parts: dict[str, float]) -> None:
        self.log, self.parts = log, parts

    def __call__(self, name: str) -> Callable[[float], None]:
        """The progress of one part: takes the fraction of it that is done."""
        names = list(self.parts)
        before = sum(self.parts[n] for n in names[: names.index(name)])
        total = sum(self.parts.values())
        return lambda done: self.log(name, (before + done * self.parts[name]) / total)


def elman_nets(
    num_members: int, num_features: int, hidden_size: int, *, weight_range: float, seed: int, learn_start: bool = False
) -> Ensemble:
    """Elman's simple recurrent network, once for each member: logistic hidden units, one logit for each feature.

    Args:
        num_members: N.
        num_features: D, bits of the vector that comes in and of the one that is predicted.
        hidden_size: H, hidden units and as many context units.
        weight_range: weights into the hidden layer are drawn from U(-a, a).
        seed: of all weights.
        learn_start: learn what the context units hold before the first step.
    """
    generator = torch.Generator().manual_seed(seed)
    init = f"uniform:{weight_range}"
    members = []
    for _ in range(num_members):
        cell = ElmanCell(
            num_features, hidden_size, activation="sigmoid", input_init=init, recurrent_init=init, generator=generator
        )
        members.append(Readout(cell.learn_initial_state() if learn_start else cell, num_features, generator=generator))
    return Ensemble(*members)


def stream_chunks(streams: Tensor, *, num_rows: int, num_steps: int, context: bool = True) -> list[Chunk]:
    """Streams as chunks for next-vector prediction. Behind the last vector comes the first again.

    Args:
        streams: (L, N, D), one stream for each member.
        num_rows: B, parts of a stream that are read side by side; what is left over behind L // B * B is not used.
        num_steps: T, steps of a chunk.
        context: False wipes the context units before every step: a net without memory.
    """
    length = streams.shape[0] // num_rows
    used = streams[: length * num_rows]
    following = used.roll(-1, 0)
    xs, targets = (t.unflatten(0, (num_rows, length)).transpose(0, 1).contiguous() for t in (used, following))
    chunks = []
    for a in range(0, length, num_steps):
        b = min(a + num_steps, length)
        reset = None if context else torch.ones(b - a, num_rows, dtype=torch.bool)
        chunks.append(Chunk(xs[a:b], targets[a:b], None, Controls(reset=reset)))
    return chunks


def learn(
    nets: Ensemble,
    chunks: list[Chunk],
    rule: LearningRule[Any],
    lr: float,
    *,
    num_epochs: int,
    progress: Callable[[float], None] = lambda done: None,
    loss: Loss | None = None,
    final_lr: float = 1.0,
) -> None:
    """Train all members by a rule with Adam.

    Args:
        nets: trained in place.
        chunks: one pass.
        rule: `TruncatedBPTT` or `BPTT`.
        lr: Adam's learning rate.
        num_epochs: passes.
        progress: told the fraction done.
        loss: of one member; the cross-entropy of the bits unless given.
        final_lr: the learning rate falls in a line to this part of itself.
    """
    total = num_epochs * len(chunks)

    def tell(update: Progress) -> None:
        progress(update.num_steps / total)

    fit(
        nets,
        chunks,
        MemberSum(loss or BinaryCrossEntropy()),
        partial(torch.optim.Adam, lr=lr),
        rule=rule,
        num_epochs=num_epochs,
        lr_schedule=lambda n: 1 - (1 - final_lr) * n / total,
        on_step=tell,
    )


class Prediction(NamedTuple):
    """probabilities: (L, N, D), row t predicts vector t + 1; hidden: (L, N, H)."""

    probabilities: Tensor
    hidden: Tensor


@torch.no_grad()
def predict(nets: Ensemble, streams: Tensor, *, context: bool = True) -> Prediction:
    """What the nets say along streams (L, N, D), from their initial state."""
    readout = nets.cell
    assert isinstance(readout, Readout)
    inside = Ensemble(*[nets.member(i).cell for i in range(nets.num_members)])
    xs = streams.unsqueeze(1)
    reset = None if context else torch.ones(xs.shape[:2], dtype=torch.bool)
    hidden, _ = Hoisted()(inside, xs, None, Controls(reset=reset))
    hidden = hidden[:, 0]  # (L, N, H)
    logits = torch.einsum("tnh,noh->tno", hidden, readout.linear.weight) + readout.linear.bias
    return Prediction(logits.sigmoid(), hidden)
