"""How a language model is trained on a text: its stream, what is measured on the way, and what is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.controls import Controls
from ..core.draws import happens
from ..core.engine import Engine
from ..core.loss import CrossEntropy
from ..core.rule import Chunk
from ..engines import unroll
from ..training import TokenFile, TokenStream, TrainProgress
from ..training.batches import mixed_seed

if TYPE_CHECKING:
    from .language_model import LanguageModel

MIN_UPDATES_PER_EPOCH = 32  # below this many the batch is made smaller
VALIDATION_ROWS, WARM_UP = 16, 256  # validation while training: rows side by side, each with some text before it
WHERE = "LanguageModel"


class TrainingProgress(NamedTuple):
    """What `LanguageModel.fit` tells before the first update and after each one.

    Args:
        update: updates made.
        num_updates: updates planned.
        part: of the run that is over, 0 to 1.
        epoch: passes over the text so far, with the begun one as a fraction.
        loss: mean training loss in nats per token since the last validation.
        lr: learning rate of the next update.
        seconds: since `fit` was called.
        seconds_left: expected until its end.
        chars_per_second: tokens read in training.
        validation: nats per token of the averaged weights, where this update is followed by a validation.
        sample: a text that the model writes now, where there is a sample.
    """

    update: int
    num_updates: int
    part: float
    epoch: float
    loss: float
    lr: float
    seconds: float
    seconds_left: float
    chars_per_second: float
    validation: float | None
    sample: str | None


@contextlib.contextmanager
def evaluating(cell: nn.Module) -> Iterator[None]:
    """The cell in evaluation mode, for a while."""
    was = cell.training
    cell.eval()
    try:
        yield
    finally:
        cell.train(was)


class Watch:
    """What one call of `LanguageModel.fit` measures, writes and tells while it trains.

    Args:
        model: in training.
        validation: tokens of the validation text, or None.
        on_progress: the user's.
    """

    def __init__(
        self,
        model: LanguageModel,
        validation: Tensor | TokenFile | None,
        on_progress: Callable[[TrainingProgress], bool | None] | None,
    ) -> None:
        self.model, self.validation = model, validation
        self.on_progress = on_progress
        self.memo: dict[str, Any] = {"samples": []}
        self.new_sample: str | None = None
        self.num_done = 0
        self.tokens_per_update = 0

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Nats per token, quickly: rows side by side, in the precision of training. Writes a sample, too."""
        self.new_sample = self.sample()
        return {} if self.validation is None else {self.model._loss_name: self.quick_loss(self.validation)}

    def quick_loss(self, tokens: Tensor | TokenFile) -> float:
        """The loss of rows that begin anywhere in the text."""
        rows = max(1, min(VALIDATION_ROWS, len(tokens) // (4 * WARM_UP)))
        short = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.model.plan_.get("precision", ""))
        model, cell = self.model, self.model.cell_
        with torch.autocast(cell.device.type, short, enabled=short is not None):
            return stream_loss(cell, tokens, model._engine(), num_rows=rows, warm_up=WARM_UP, chunk_length=256)

    def sample(self) -> str | None:
        """What the model writes now."""
        model = self.model
        if not model.sample_length:
            return None
        return model.generate(model.tokens_.newline, model.sample_length, seed=model.seed)

    def time_validation(self) -> tuple[float, float]:
        """Expected times of a validation with its sample and of the exact one at the end, from parts of them."""
        begin = time.perf_counter()
        self.sample()
        sample = time.perf_counter() - begin
        if self.validation is None:
            return sample, 0.0
        tokens, found = self.validation, []
        for exact, size in ((False, VALIDATION_ROWS * 512), (True, 2000)):
            part = tokens[:size]
            for piece in (part[:50], part):  # the first one warms up
                begin = time.perf_counter()
                if exact:
                    stream_loss(self.model.cell_, piece, self.model._engine())
                else:
                    self.quick_loss(piece)
            found.append((time.perf_counter() - begin) * len(tokens) / len(part))
        return sample + found[0], found[1]

    def tell(self, progress: TrainProgress) -> bool | None:
        """Report in the words of a language model; True to stop."""
        if progress.update == 0:
            with evaluating(self.model.cell_):
                self.new_sample = self.sample()
        sample, self.new_sample = self.new_sample, None
        if sample is not None:
            self.memo["samples"].append({"update": progress.update, "text": sample})
        if self.on_progress is None:
            return None
        each = progress.seconds_per_update
        validation = progress.validation
        return self.on_progress(
            TrainingProgress(
                update=progress.update,
                num_updates=progress.num_updates,
                part=progress.part,
                epoch=progress.epoch,
                loss=progress.loss,
                lr=progress.lr,
                seconds=progress.seconds,
                seconds_left=progress.seconds_left,
                chars_per_second=self.tokens_per_update / each if each else 0.0,
                validation=next(iter(validation.values())) if validation else None,
                sample=sample,
            )
        )


@dataclass(frozen=True)
class Restarts:
    """The chunks of a stream, whose rows now and then start from the initial state.

    Args:
        stream: where the chunks come from.
        p: probability for each chunk and row.
        seed: of the draws; each epoch has its own.
    """

    stream: TokenStream
    p: float
    seed: int
    carries = True

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Chunk]:
        return self.epoch(0)

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The chunks of one epoch."""
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, index))
        for chunk in self.stream.epoch(index):
            rows = happens((chunk.xs.shape[1],), self.p, generator, chunk.xs.device)
            if self.p and chunk.controls.reset is None and bool(rows.any()):
                reset = torch.zeros_like(chunk.xs, dtype=torch.bool)
                reset[0] = rows
                yield chunk._replace(controls=Controls(reset=reset))
            else:
                yield chunk


def stream(model: LanguageModel, tokens: Tensor | TokenFile) -> TokenStream:
    """The training text as parallel streams, fewer of them for a small text."""
    fitting = max(1, len(tokens) // (model.num_steps * MIN_UPDATES_PER_EPOCH))
    return TokenStream(tokens, min(model.batch_size, fitting), model.num_steps)


def stream_loss(
    cell: Cell,
    tokens: Tensor | TokenFile,
    engine: Engine,
    *,
    num_rows: int = 1,
    warm_up: int = 0,
    chunk_length: int = 1000,
) -> float:
    """Mean cross-entropy in nats of every token but the first, the state being carried on.

    Args:
        cell: tokens (B,) in, logits (B, V) out; run in evaluation mode.
        tokens: (N,), N >= 2.
        engine: how to run the cell.
        num_rows: parts of the text that are read side by side. 1 is exact; more are faster, and each row reads
            ``warm_up`` tokens before its part so that its state is nearly that of the whole.
        warm_up: see ``num_rows``.
        chunk_length: tokens at a time; changes nothing but memory.
    """
    num = len(tokens) - 1
    num_rows = min(num_rows, num)
    warm_up = warm_up if num_rows > 1 else 0
    length = -(-num // num_rows)
    # Row b predicts tokens[b*length + 1 ...]; positions before the beginning and beyond the end count for nothing.
    start = torch.arange(num_rows, device=tokens.device) * length - warm_up
    device = cell.device
    total = length + warm_up
    state, sums = cell.initial_state(num_rows), 0.0
    with torch.no_grad(), evaluating(cell):
        for a in range(0, total, chunk_length):
            steps = torch.arange(a, min(a + chunk_length, total), device=tokens.device)
            place = start + steps[:, None]  # (T, B)
            xs, targets = (tokens[p.clamp(0, num)].to(device) for p in (place, place + 1))
            begins = (place == 0).to(device) if warm_up and a <= warm_up < a + chunk_length else None
            ys, state = unroll(cell, xs, state, Controls(reset=begins), engine=engine)
            losses = CrossEntropy().per_step(ys.float(), targets)
            counts = ((steps[:, None] >= warm_up) & (place < num)).to(device)
            sums += float(torch.where(counts, losses, 0).sum(dtype=torch.float64))
    return sums / num
