"""A language model of characters: from a text to a model in a folder."""

from __future__ import annotations

import collections
import contextlib
import copy
import csv
import hashlib
import io
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..cells.affine import AffineCell
from ..cells.dropout import DropoutCell
from ..cells.embedding import EmbeddingCell
from ..core.cell import Cell
from ..core.checks import check_choice, check_positive, check_probability, sentence
from ..core.controls import Controls
from ..core.draws import happens
from ..core.engine import Engine
from ..core.loss import CrossEntropy, Loss, SequenceLoss
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.spec import Leaf
from ..engines import unroll
from ..training import Progress, TokenStream, fit
from ..training.files import write_atomically
from ..wrappers import Stack, WeightDrop
from .estimator import Estimator
from .named import Named, named

FORMAT_VERSION = 1
KIND = "language_model"
CONFIG, WEIGHTS, METRICS, SAMPLES = "config.json", "model.safetensors", "metrics.csv", "samples.txt"
UNKNOWN = 0  # the token of every character that the training text did not have
MIN_UPDATES_PER_EPOCH = 32  # below this many the batch is made smaller
VALIDATION_ROWS, WARM_UP = 16, 256  # validation while training: rows side by side, each with some text before it
METRIC_FIELDS = ("update", "epoch", "seconds", "lr", "train_nats_per_char", "validation_nats_per_char")
WHERE = "LanguageModel"

Metrics = dict[str, float]


class TrainingProgress(NamedTuple):
    """What `LanguageModel.fit` tells before the first update and after each one.

    Args:
        update: updates made.
        num_updates: updates planned.
        epoch: passes over the text so far, with the begun one as a fraction.
        loss: mean training loss in nats per character since the last validation.
        lr: learning rate of the next update.
        seconds: since `fit` was called.
        seconds_left: expected until its end.
        chars_per_second: read in training.
        validation: nats per character of the averaged weights, where this update is followed by a validation.
        sample: a text that the model writes now, where there is a sample.
    """

    update: int
    num_updates: int
    epoch: float
    loss: float
    lr: float
    seconds: float
    seconds_left: float
    chars_per_second: float
    validation: float | None
    sample: str | None


class LanguageModel(Estimator):
    """Predicts the next character of a text, and so writes texts.

        h_t = dropout(cell(... cell(dropout(E[c_t]))))        p(c_{t+1} | c_1 .. c_t) = softmax(W h_t + b)

    Tokens are the characters of the training text and one more that stands for any other. The text is read as
    ``batch_size`` parallel streams in chunks of ``num_steps``, whose state is carried on. Training ends after
    ``num_updates``, after ``budget_minutes`` or after ``num_epochs``; at most one of them is given. The learning rate rises
    over the first updates and then decays to zero. The model that remains has the averaged weights, and with a validation
    text those of the best validation.

    Args:
        cell: any cell that is built from (input_size, hidden_size), with options if wanted: ``"LSTMCell(peephole=True)"``.
            Options that are not given and that the cell leaves at torch's values become: ``input_init`` Glorot uniform,
            ``recurrent_init`` orthogonal, ``forget_bias`` 1.
        hidden_size: H, units per layer.
        num_layers: L, cells on top of each other.
        embedding_size: E, size of a character's vector.
        dropout: probability of a zero in the output of each layer, while training.
        input_dropout: the same for the character's vector.
        weight_drop: probability of a zero in the recurrent weights (`WeightDrop`), while training.
        variational: draw each dropout mask once per chunk instead of at every step.
        batch_size: B, parallel streams; fewer for a small text, so that a pass has at least 32 updates.
        num_steps: T, characters per chunk.
        restart: probability, for each chunk and stream, that the state is forgotten. Without it the model only ever starts at
            the beginning of a stream and may go astray for thousands of characters where it starts anywhere else.
        num_epochs: passes over the text (10 where nothing else is given).
        budget_minutes: the time for everything `fit` does; turned, by timing a few updates, into a number of updates. Fewer
            are made, with the learning rate's decay to match, where the machine then becomes slower.
        num_updates: the number of updates itself.
        max_epochs: a time budget is not spent on more passes than this.
        lr: largest learning rate.
        lr_decay: "linear", "cosine" or "constant".
        warmup_updates: over which the learning rate rises (at most a tenth of all).
        optimizer: "Adam" or "AdamW".
        beta2: of the optimizer; the first beta is 0.9.
        weight_decay: of the optimizer.
        clip_norm: largest norm of a gradient; None for no clipping.
        weight_average: decay of the exponential average of the weights; 0 for none.
        precision: "float32", "bfloat16" (products in bfloat16, weights in float32), or "auto": the faster by the timing.
        rule: learning rule, with options if wanted: ``"TruncatedBPTT"``.
        engine: how to run the cell, with options if wanted: ``"Checkpointed(every=32)"``.
        num_validations: how often to validate, if there is a validation text, and to write a sample; fewer times where
            that would take more than a tenth of a time budget.
        patience: validations in a row without a new best after which to stop; None never stops.
        sample_length: characters of a sample; 0 for no samples.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        seed: of the weights, the noise and the samples.
    Raises:
        ValueError: from `fit`: an argument out of range, a text that is too short.
        FloatingPointError: from `fit`: the loss is no longer finite.
    Source:
        Mikolov et al. 2010, Interspeech (recurrent language models); Graves 2013, arXiv:1308.0850 (characters, LSTM);
        averaging: Polyak & Juditsky 1992 in its exponential form (all from memory).
    Cost:
        For an LSTM about 24 H (E + H) + 6 H V flops per character and update with one layer and V different characters.
    Example:
        >>> text = "to be or not to be, that is the question. " * 20
        >>> model = LanguageModel(hidden_size=16, embedding_size=8, num_updates=30, dropout=0.0).fit(text)
        >>> before = math.log(len(model.vocabulary_) + 1)
        >>> model.evaluate(text)["nats_per_char"] < before
        True
        >>> len(model.generate("to be", length=10))
        10
    """

    def __init__(
        self,
        cell: str = "LSTMCell",
        hidden_size: int = 512,
        num_layers: int = 1,
        embedding_size: int = 128,
        dropout: float = 0.5,
        input_dropout: float = 0.1,
        weight_drop: float = 0.0,
        variational: bool = False,
        batch_size: int = 64,
        num_steps: int = 128,
        restart: float = 0.02,
        num_epochs: int | None = None,
        budget_minutes: float | None = None,
        num_updates: int | None = None,
        max_epochs: int = 50,
        lr: float = 4e-3,
        lr_decay: str = "linear",
        warmup_updates: int = 100,
        optimizer: str = "AdamW",
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        weight_average: float = 0.99,
        precision: str = "float32",
        rule: str = "TruncatedBPTT",
        engine: str = "Auto",
        num_validations: int = 10,
        patience: int | None = 3,
        sample_length: int = 300,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.embedding_size = embedding_size
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.weight_drop = weight_drop
        self.variational = variational
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.restart = restart
        self.num_epochs = num_epochs
        self.budget_minutes = budget_minutes
        self.num_updates = num_updates
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.warmup_updates = warmup_updates
        self.optimizer = optimizer
        self.beta2 = beta2
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.weight_average = weight_average
        self.precision = precision
        self.rule = rule
        self.engine = engine
        self.num_validations = num_validations
        self.patience = patience
        self.sample_length = sample_length
        self.device = device
        self.seed = seed

    # --- using a model ---

    def fit(
        self,
        text: str,
        validation_text: str | None = None,
        on_progress: Callable[[TrainingProgress], bool | None] | None = None,
    ) -> Self:
        """Train from the beginning.

        Ctrl-C leaves a model that can be used and saved, with the weights of that moment, and is raised again.

        Args:
            text: to learn from, at least two characters.
            validation_text: to measure on; it decides which weights are kept, and ends in ``record_["validation"]``.
            on_progress: told before the first update and after each; True stops the run.

        Returns:
            The model itself. It now has ``vocabulary_`` (the characters), ``cell_`` (the network), ``plan_`` (what was
            decided), ``history_`` (one row per validation), ``samples_`` and ``record_`` (how it went).
        """
        started = time.perf_counter()
        self._check_arguments()
        for name, value in (("text", text), ("validation_text", validation_text)):
            if value is not None or name == "text":
                _check_text(name, value)
        self.vocabulary_ = "".join(sorted(set(text)))
        self._build()
        run = _Run(self, text, validation_text, on_progress, started)
        self.plan_, self.history_, self.samples_ = run.plan, run.history, run.samples
        try:
            run.prepare()
            run.train()
        finally:
            self.record_ = run.finish()
        if validation_text is not None:
            self.record_["validation"] = self.evaluate(validation_text)
        self.record_["seconds"] = round(time.perf_counter() - started, 1)
        return self

    def evaluate(self, text: str, *, chunk_length: int = 1000) -> Metrics:
        """The exact loss of a text: read once from its beginning to its end, the state carried on, nothing dropped.

        Args:
            text: at least two characters; every one but the first is predicted.
            chunk_length: characters at a time; changes nothing but memory.

        Returns:
            ``nats_per_char``, ``bits_per_char``, ``perplexity``; ``num_chars`` predicted; ``num_unknown``: how many of them
            are unknown characters. These count as one token, "any other character", which the training text never
            showed and which is therefore expensive.
        """
        self._check_fitted("cell_")
        _check_text("text", text)
        check_positive(WHERE, chunk_length=chunk_length)
        tokens = self._encode(text)
        nats = stream_loss(self.cell_, tokens, self._engine(), chunk_length=chunk_length)
        return {
            "nats_per_char": nats,
            "bits_per_char": nats / math.log(2),
            "perplexity": math.exp(min(nats, 700.0)),
            "num_chars": len(text) - 1,
            "num_unknown": int((tokens[1:] == UNKNOWN).sum()),
        }

    def generate(
        self, prompt: str = "\n", length: int = 500, temperature: float = 0.8, top_k: int | None = None, seed: int = 0
    ) -> str:
        """Go on writing after ``prompt``.

        Args:
            prompt: what stands before; its characters must be known to the model. An empty one starts from nothing.
            length: characters to write.
            temperature: 1 writes as likely as the model thinks, less is more careful, 0 always takes the likeliest.
            top_k: only the k likeliest characters; None for all.
            seed: the same seed writes the same text.

        Returns:
            The new characters, without the prompt.
        """
        self._check_fitted("cell_")
        unknown = next((c for c in prompt if c not in self.vocabulary_), None)
        if unknown is not None:
            want = f"written with the {len(self.vocabulary_)} characters of the training text"
            raise ValueError(sentence(WHERE, "prompt", want, f"{unknown!r} in {_short(prompt)}"))
        if not isinstance(length, int) or length < 0:
            raise ValueError(sentence(WHERE, "length", "a whole number of at least 0", repr(length)))
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(sentence(WHERE, "temperature", "at least 0", temperature))
        if top_k is not None:
            check_positive(WHERE, top_k=top_k)
        return "".join(self._write(prompt, length, temperature, top_k, seed))

    def _write(self, prompt: str, length: int, temperature: float, top_k: int | None, seed: int) -> Iterator[str]:
        """The characters of `generate` one by one."""
        generator = torch.Generator().manual_seed(seed)
        cell = self.cell_
        with torch.no_grad(), _evaluating(cell):
            start = prompt or self.vocabulary_[int(torch.randint(len(self.vocabulary_), (), generator=generator))]
            tokens = self._encode(start)
            state = cell.initial_state(1)
            if len(tokens) > 1:
                _, state = unroll(cell, tokens[:-1, None], state, engine=self._engine())
            x = tokens[-1:]
            written = 0
            if not prompt and length:
                yield start
                written = 1
            for _ in range(length - written):
                y, state = cell.step(x, state)
                logits = y[0, 1:].float().cpu()  # without the unknown character
                token = 1 + _choose(logits, temperature, top_k, generator)
                yield self.vocabulary_[token - 1]
                x = torch.tensor([token], device=x.device)

    # --- the folder ---

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``, ``model.safetensors``, ``metrics.csv`` and ``samples.txt``; each one at once or not at all.

        Args:
            folder: made if missing; files of these names are replaced.
        """
        from safetensors.torch import save

        self._check_fitted("cell_")
        folder = Path(folder)
        weights = save({name: t.detach().cpu().contiguous() for name, t in self.cell_.state_dict().items()})
        config = {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "arguments": self.get_params(),
            "vocabulary": self.vocabulary_,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "versions": versions(),
            "record": {**self.record_, "history": self.history_, "samples": self.samples_},
        }
        text = json.dumps(config, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
        table = io.StringIO()
        writer = csv.DictWriter(table, METRIC_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history_)
        parts = [f"=== after {s['update']} updates ===\n{s['text']}\n" for s in self.samples_]
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / METRICS, table.getvalue())
        write_atomically(folder / SAMPLES, "\n".join(parts))
        write_atomically(folder / CONFIG, text)  # last: a folder with a config is a whole one

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a saved model. Nothing in the folder is run; what is read from it is checked.

        ``metrics.csv`` and ``samples.txt`` are for readers; `load` takes what they hold from ``config.json``.

        Args:
            folder: written by `save`.
            device: where to put the model, whatever it was trained on.

        Raises:
            FileNotFoundError: no folder, or a file is missing in it.
            ValueError: a file is damaged, foreign, or written by a newer version.
        """
        folder = Path(folder)
        config = _read_config(folder)
        data = _read_bytes(folder, WEIGHTS)
        if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
            raise ValueError(_damaged(folder, WEIGHTS, "its checksum is not the one in config.json"))
        tensors = _read_tensors(folder, data)
        arguments = dict(config["arguments"])
        unknown = sorted(set(arguments) - set(cls._defaults()))
        if unknown:
            what = f"it has an argument {unknown[0]!r} that LanguageModel does not have"
            raise ValueError(_damaged(folder, CONFIG, what))
        model = cls(**{**arguments, "device": device})
        model._device()
        vocabulary = config["vocabulary"]
        if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
            raise ValueError(_damaged(folder, CONFIG, "its vocabulary is no sorted list of different characters"))
        model.vocabulary_ = vocabulary
        largest = max((n for t in tensors.values() for n in t.shape), default=0)
        try:
            model._check_arguments()
            if max(model.hidden_size, model.embedding_size, model.num_layers, len(vocabulary)) > max(largest, 8):
                raise ValueError("they speak of a larger model than the weights")  # before memory is asked for
            model._build()
        except (ValueError, TypeError) as error:
            raise ValueError(_damaged(folder, CONFIG, f"its arguments build no model ({error})")) from None
        _check_weights(folder, tensors, model.cell_)
        model.cell_.load_state_dict(tensors)
        model.cell_.eval()
        model.record_ = dict(config["record"])
        model.plan_ = dict(model.record_.get("plan", {}))
        model.history_ = list(model.record_.pop("history", []))
        model.samples_ = list(model.record_.pop("samples", []))
        return model

    # --- inside ---

    def _check_arguments(self) -> None:
        sizes = ("hidden_size", "num_layers", "embedding_size", "batch_size", "num_steps")
        check_positive(WHERE, **{name: getattr(self, name) for name in (*sizes, "max_epochs", "num_validations")})
        check_probability(
            WHERE,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            weight_drop=self.weight_drop,
            restart=self.restart,
            weight_average=self.weight_average,
            beta2=self.beta2,
        )
        ends = {name: getattr(self, name) for name in ("num_epochs", "budget_minutes", "num_updates")}
        given = {name: value for name, value in ends.items() if value is not None}
        if len(given) > 1:
            raise ValueError(sentence(WHERE, "the end of training", f"one of {', '.join(ends)}", " and ".join(given)))
        for name in ("num_epochs", "num_updates", "patience"):
            if getattr(self, name) is not None:
                check_positive(WHERE, **{name: getattr(self, name)})
        for name in ("warmup_updates", "sample_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(sentence(WHERE, name, "a whole number of at least 0", repr(value)))
        for name in ("budget_minutes", "lr", "clip_norm"):
            value = getattr(self, name)
            if (value is None and name != "lr") or (_is_number(value) and 0 < value < math.inf):
                continue
            raise ValueError(sentence(WHERE, name, "a number above 0", repr(value)))
        if not _is_number(self.weight_decay) or self.weight_decay < 0:
            raise ValueError(sentence(WHERE, "weight_decay", "a number of at least 0", repr(self.weight_decay)))
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(sentence(WHERE, "seed", "a whole number of at least 0", repr(self.seed)))
        check_choice(WHERE, "lr_decay", self.lr_decay, ("linear", "cosine", "constant"))
        check_choice(WHERE, "optimizer", self.optimizer, ("Adam", "AdamW"))
        check_choice(WHERE, "precision", self.precision, ("float32", "bfloat16", "auto"))
        self._engine()
        self._rule()

    def _engine(self) -> Engine:
        return named(WHERE, "engine", "engines", self.engine).make()

    def _rule(self) -> LearningRule[Any]:
        kind = named(WHERE, "rule", "rules", self.rule)
        if not issubclass(kind.cls, LearningRule):
            raise ValueError(sentence(WHERE, "rule", "a learning rule", f"{kind.cls.__name__}, which searches"))
        return kind.make(engine=self._engine()) if kind.accepts("engine") else kind.make()

    def _build(self) -> None:
        """The network for the vocabulary, with new weights."""
        device = self._device()
        with torch.random.fork_rng(devices=[]):  # a cell without a generator argument draws from torch's own
            torch.manual_seed(self.seed)
            generator = torch.Generator().manual_seed(self.seed)
            self.cell_ = self._network(len(self.vocabulary_) + 1, generator).to(device)

    def _network(self, num_tokens: int, generator: torch.Generator) -> Cell:
        kind = named(WHERE, "cell", "cells", self.cell)
        layers: list[Cell] = [EmbeddingCell(num_tokens, self.embedding_size, generator=generator)]
        self._drop(layers, self.embedding_size, self.input_dropout)
        size = self.embedding_size
        for _ in range(self.num_layers):
            cell = _layer(kind, size, self.hidden_size, generator)
            size = int(cell.output_spec.shape[0])
            layers.append(WeightDrop(cell, self.weight_drop) if self.weight_drop else cell)
            self._drop(layers, size, self.dropout)
        layers.append(AffineCell(size, num_tokens, generator=generator))
        return Stack(*layers)

    def _drop(self, layers: list[Cell], size: int, p: float) -> None:
        if p:
            layers.append(DropoutCell(size, p, variational=self.variational))

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError):
            raise ValueError(sentence(WHERE, "device", "one that torch can use here", repr(self.device))) from None
        return device

    def _encode(self, text: str) -> Tensor:
        """Tokens (N,) on the model's device; `UNKNOWN` for characters outside the vocabulary."""
        codes = torch.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), dtype=torch.int32).long()
        known = torch.tensor([ord(c) for c in self.vocabulary_])
        place = torch.searchsorted(known, codes).clamp(max=len(known) - 1)
        return torch.where(known[place] == codes, place + 1, UNKNOWN).to(self.cell_.device)


class _Run:
    """One call of `LanguageModel.fit`."""

    def __init__(
        self,
        model: LanguageModel,
        text: str,
        validation_text: str | None,
        on_progress: Callable[[TrainingProgress], bool | None] | None,
        started: float,
    ) -> None:
        self.model, self.cell, self.started = model, model.cell_, started
        self.on_progress = on_progress or (lambda progress: None)
        tokens = model._encode(text)
        self.validation = None if validation_text is None else model._encode(validation_text)
        self.num_chars = len(text)
        self.stream = self._stream(tokens)
        self.plan: dict[str, Any] = {"notes": []}
        self.history: list[dict[str, float | int | str]] = []
        self.samples: list[dict[str, Any]] = []
        self.sample_seconds = self.validation_seconds = self.exact_seconds = 0.0
        self.average = (
            {n: p.detach().clone() for n, p in self.cell.named_parameters()} if model.weight_average else None
        )
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.num_done = self.num_stops = 0
        self.anchor = (0, 0.0)  # updates made and part done when the plan was last changed
        self.durations: collections.deque[float] = collections.deque(maxlen=50)
        self.recent: list[float] = []
        self.training_seconds = 0.0
        self.stopped = ""

    def _stream(self, tokens: Tensor) -> TokenStream:
        model = self.model
        fitting = max(1, len(tokens) // (model.num_steps * MIN_UPDATES_PER_EPOCH))
        return TokenStream(tokens, min(model.batch_size, fitting), model.num_steps)

    def elapsed(self) -> float:
        """Seconds since fit was called."""
        return time.perf_counter() - self.started

    # --- before training ---

    def prepare(self) -> None:
        """Decide everything that is left to decide."""
        model, plan, stream = self.model, self.plan, self.stream
        before = time.perf_counter()
        self.first_sample = self.sample()
        self.sample_seconds = time.perf_counter() - before
        if stream.batch_size < model.batch_size:
            streams = "one stream" if stream.batch_size == 1 else f"{stream.batch_size} parallel streams"
            self.note(
                f"The text is small: {streams} instead of {model.batch_size}, so that one pass has {len(stream)} updates."
            )
        seconds = self.choose_precision()
        plan.update(
            num_chars=self.num_chars,
            num_tokens=len(model.vocabulary_) + 1,
            num_parameters=sum(p.numel() for p in self.cell.parameters()),
            batch_size=stream.batch_size,
            num_steps=stream.num_steps,
            updates_per_epoch=len(stream),
            seconds_per_update=None if seconds is None else round(seconds, 4),
            threads=torch.get_num_threads(),
            device=str(self.cell.device),
        )
        plan["num_validations"] = model.num_validations
        plan["num_updates"] = self.count_updates(seconds)
        self.num_updates = self.num_planned = int(plan["num_updates"])
        plan["num_validations"] = min(plan["num_validations"], self.num_updates)
        self.warm_up = min(model.warmup_updates, self.num_updates // 10)

    def note(self, text: str) -> None:
        """One sentence about a decision that a user may want to know."""
        self.plan["notes"].append(text)

    def choose_precision(self) -> float | None:
        """Fix ``plan["precision"]``; returns the seconds of an update where they were measured."""
        model = self.model
        if model.precision != "auto":
            self.plan["precision"] = model.precision
            return self.seconds_per_update(model.precision) if model.budget_minutes is not None else None
        plain = self.seconds_per_update("float32")
        try:
            short = self.seconds_per_update("bfloat16")
        except RuntimeError:  # a processor without bfloat16, or a kernel that refuses it
            short = math.inf
        self.plan["precision"] = "bfloat16" if short < 0.9 * plain else "float32"
        return min(short, plain) if short < 0.9 * plain else plain

    def seconds_per_update(self, precision: str) -> float:
        """The median time of an update, measured on a copy; the first two warm up."""
        budget = self.model.budget_minutes
        limit = 10.0 if budget is None else min(10.0, 1.5 * budget)  # at most 2.5 % of the budget
        begin, times = time.perf_counter(), []

        def measure(progress: Progress) -> bool:
            times.append(time.perf_counter())
            return len(times) >= 10 or (len(times) >= 4 and times[-1] - begin > limit)

        cell = copy.deepcopy(self.cell).train()
        fit(
            cell,
            self.stream,
            CrossEntropy(),
            self.optimizer,
            rule=self.rule(precision),
            num_epochs=10,
            clip_norm=self.model.clip_norm,
            seed=self.model.seed,
            on_step=measure,
        )
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return statistics.median(gaps[1:] or gaps or [times[-1] - begin])

    def count_updates(self, seconds: float | None) -> int:
        """How many updates there will be."""
        model, per_epoch = self.model, len(self.stream)
        if model.num_updates is not None:
            return model.num_updates
        if model.budget_minutes is None:
            return per_epoch * (model.num_epochs or 10)
        assert seconds is not None
        self.time_validation()
        each = self.sample_seconds + self.validation_seconds
        left = 60 * model.budget_minutes - self.elapsed() - self.exact_seconds
        affordable = max(2, int(0.1 * left / each)) if each else model.num_validations  # a tenth of the time
        if affordable < model.num_validations:
            self.plan["num_validations"] = affordable
            self.note(
                f"One validation takes about {each:.1f} s: {affordable} of them instead of {model.num_validations}."
            )
        left -= self.plan["num_validations"] * each
        num = max(1, int(left / seconds))
        if left < seconds:
            self.note(f"The budget of {model.budget_minutes:g} min is too small for this model: one update only.")
        if num > model.max_epochs * per_epoch:
            num = model.max_epochs * per_epoch
            self.note(f"The budget is not used up: {model.max_epochs} passes (max_epochs) take less.")
        return num

    def time_validation(self) -> None:
        """Expect the times of a validation and of the exact one at the end, from parts of them."""
        if self.validation is None:
            return
        tokens, engine = self.validation, self.model._engine()
        for exact, size in ((False, VALIDATION_ROWS * 512), (True, 2000)):
            part = tokens[:size]
            for piece in (part[:50], part):  # the first one warms up
                begin = time.perf_counter()
                stream_loss(self.cell, piece, engine) if exact else self.validate(piece)
            seconds = (time.perf_counter() - begin) * len(tokens) / len(part)
            if exact:
                self.exact_seconds = seconds
            else:
                self.validation_seconds = seconds

    # --- training ---

    def rule(self, precision: str) -> LearningRule[Any]:
        """The learning rule, in bfloat16 if wanted."""
        rule = self.model._rule()
        return rule if precision == "float32" else _Autocast(rule, self.cell.device.type)

    def optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """As the arguments say."""
        model = self.model
        kind = torch.optim.Adam if model.optimizer == "Adam" else torch.optim.AdamW
        return kind(parameters, lr=model.lr, betas=(0.9, model.beta2), weight_decay=model.weight_decay)

    def factor(self, num_done: int) -> float:
        """The learning rate's factor after so many updates."""
        part = self.part(num_done)
        decay = {"linear": 1 - part, "cosine": 0.5 * (1 + math.cos(math.pi * part)), "constant": 1.0}
        return min(1.0, (num_done + 1) / (self.warm_up + 1)) * decay[self.model.lr_decay]

    def part(self, num_done: int) -> float:
        """Which part of the run is over after so many updates."""
        begun, before = self.anchor
        if num_done >= self.num_updates:
            return 1.0
        return before + (1 - before) * (num_done - begun) / (self.num_updates - begun)

    def replan(self) -> None:
        """Make fewer updates where the time would not do (or again more, up to what was planned)."""
        assert self.model.budget_minutes is not None
        stops_left = self.plan["num_validations"] - self.num_stops
        aside = self.exact_seconds + stops_left * (self.validation_seconds + self.sample_seconds)
        left = 60 * self.model.budget_minutes - self.elapsed() - aside
        affordable = max(1, int(left / statistics.median(self.durations)))
        num = min(self.num_planned, self.num_done + affordable)
        if abs(num - self.num_updates) > 0.1 * (self.num_updates - self.num_done):
            self.anchor = self.num_done, self.part(self.num_done)
            self.num_updates = self.plan["num_updates"] = num

    def train(self) -> None:
        """All updates."""
        if self.tell(None, self.first_sample):
            return
        self.cell.train()
        self.last_time = time.perf_counter()
        fit(
            self.cell,
            _Restarts(self.stream, self.model.restart, self.model.seed),
            CrossEntropy(),
            self.optimizer,
            rule=self.rule(self.plan["precision"]),
            num_steps=self.num_updates,
            clip_norm=self.model.clip_norm,
            lr_schedule=self.factor,
            seed=self.model.seed,
            on_step=self.after_update,
        )

    def after_update(self, progress: Progress) -> bool:
        """Average, validate, write a sample, tell."""
        self.num_done = progress.num_steps
        self.recent.append(progress.loss)
        self.update_average()
        self.durations.append(time.perf_counter() - self.last_time)
        self.training_seconds += self.durations[-1]
        if self.model.budget_minutes is not None and self.num_done % 25 == 0 and self.num_done < self.num_updates:
            self.replan()
        validation = sample = None
        num_stops = int(self.part(self.num_done) * self.plan["num_validations"] + 1e-9)
        is_stop, self.num_stops = num_stops > self.num_stops, num_stops
        if is_stop:
            with self.averaged():
                before = time.perf_counter()
                if self.validation is not None:
                    validation = self.validate(self.validation)
                    self.keep_best(validation)
                    self.validation_seconds = time.perf_counter() - before
                before = time.perf_counter()
                sample = self.sample()
                self.sample_seconds = time.perf_counter() - before
            measured = "" if validation is None else validation
            rate = self.model.lr * self.factor(self.num_done)
            epoch, seconds = round(self.num_done / len(self.stream), 3), round(self.elapsed(), 2)
            row = (self.num_done, epoch, seconds, rate, statistics.fmean(self.recent), measured)
            self.history.append(dict(zip(METRIC_FIELDS, row)))
        stop = self.tell(validation, sample)
        if is_stop:
            self.recent = []
        self.last_time = time.perf_counter()
        return stop or self.num_done >= self.num_updates

    def tell(self, validation: float | None, sample: str | None) -> bool:
        """Report; True to stop."""
        if sample is not None:
            self.samples.append({"update": self.num_done, "text": sample})
        per_update = self.training_seconds / self.num_done if self.num_done else self.plan["seconds_per_update"] or 0.0
        stops_left = self.plan["num_validations"] - self.num_stops
        left = (self.num_updates - self.num_done) * per_update + self.exact_seconds
        left += stops_left * (self.validation_seconds + self.sample_seconds)
        news = TrainingProgress(
            update=self.num_done,
            num_updates=self.num_updates,
            epoch=self.num_done / len(self.stream),
            loss=statistics.fmean(self.recent) if self.recent else math.nan,
            lr=self.model.lr * self.factor(self.num_done),
            seconds=self.elapsed(),
            seconds_left=left,
            chars_per_second=self.num_chars / len(self.stream) / per_update if per_update else 0.0,
            validation=validation,
            sample=sample,
        )
        if self.on_progress(news):
            self.stopped = "asked to stop"
        return bool(self.stopped)

    def update_average(self) -> None:
        """``average <- decay average + (1 - decay) weights``; the decay is smaller at the beginning."""
        if self.average is None:
            return
        decay = min(self.model.weight_average, (1 + self.num_done) / (10 + self.num_done))
        with torch.no_grad():
            for name, p in self.cell.named_parameters():
                self.average[name].lerp_(p, 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The cell with its averaged weights."""
        if self.average is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in self.cell.named_parameters()}
        _put(self.cell, self.average)
        try:
            yield
        finally:
            _put(self.cell, own)

    def validate(self, tokens: Tensor) -> float:
        """Nats per character, quickly: rows side by side, in the precision of training."""
        rows = max(1, min(VALIDATION_ROWS, len(tokens) // (4 * WARM_UP)))
        short = self.plan["precision"] == "bfloat16"
        engine = self.model._engine()
        with torch.autocast(self.cell.device.type, torch.bfloat16, enabled=short):
            return stream_loss(self.cell, tokens, engine, num_rows=rows, warm_up=WARM_UP, chunk_length=256)

    def keep_best(self, validation: float) -> None:
        """Remember the weights of the best validation; after too many without a new best, stop."""
        if self.best is None or validation < self.best[0]:
            weights = {name: p.detach().clone() for name, p in self.cell.named_parameters()}
            self.best, self.worse = (validation, self.num_done, weights), 0
            return
        self.worse += 1
        if self.model.patience is not None and self.worse >= self.model.patience:
            self.stopped = f"no better validation in {self.worse} in a row"

    def sample(self) -> str | None:
        """What the model writes now."""
        model = self.model
        if not model.sample_length:
            return None
        prompt = "\n" if "\n" in model.vocabulary_ else ""
        return model.generate(prompt, model.sample_length, seed=model.seed)

    # --- after training ---

    def finish(self) -> dict[str, Any]:
        """Give the cell the weights that remain; returns the record."""
        kept = self.num_done
        if self.best is not None:
            kept = self.best[1]
            _put(self.cell, self.best[2])
        elif self.average is not None:
            _put(self.cell, self.average)
        self.cell.eval()
        if self.num_done and self.plan["num_updates"] < self.num_planned:
            made, wanted = self.plan["num_updates"], self.num_planned
            self.note(f"The machine became slower: {made:,} updates instead of {wanted:,}, to end in time.")
        return {
            "plan": self.plan,
            "updates_made": self.num_done,
            "epochs": round(self.num_done / len(self.stream), 3),
            "weights_of_update": kept,
            "stopped": self.stopped or ("" if self.num_done == self.plan.get("num_updates") else "interrupted"),
            "seconds": round(self.elapsed(), 1),
        }


class _Restarts:
    """The chunks of a stream, whose rows now and then start from the initial state."""

    def __init__(self, stream: TokenStream, p: float, seed: int) -> None:
        self.stream, self.p = stream, p
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self.stream:
            rows = happens((chunk.xs.shape[1],), self.p, self.generator, chunk.xs.device)
            if self.p and chunk.controls.reset is None and bool(rows.any()):
                reset = torch.zeros_like(chunk.xs, dtype=torch.bool)
                reset[0] = rows
                yield chunk._replace(controls=Controls(reset=reset))
            else:
                yield chunk


@dataclass(frozen=True)
class _Autocast(LearningRule[Any]):
    """A rule whose products are computed in bfloat16."""

    rule: LearningRule[Any]
    device_type: str

    @property
    def kind(self) -> Any:  # type: ignore[override]
        """The rule's."""
        return self.rule.kind

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """The rule's."""
        return self.rule.supports(cell, loss)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        """The rule's."""
        return self.rule.init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        """The rule's, under autocast."""
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.rule.step(cell, carry, chunk, loss)


def stream_loss(
    cell: Cell, tokens: Tensor, engine: Engine, *, num_rows: int = 1, warm_up: int = 0, chunk_length: int = 1000
) -> float:
    """Mean cross-entropy in nats of every token but the first, the state being carried on.

    Args:
        cell: tokens (B,) in, logits (B, V) out; run in evaluation mode.
        tokens: (N,) int64, N >= 2.
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
    total = length + warm_up
    state, sums = cell.initial_state(num_rows), 0.0
    with torch.no_grad(), _evaluating(cell):
        for a in range(0, total, chunk_length):
            steps = torch.arange(a, min(a + chunk_length, total), device=tokens.device)
            place = start + steps[:, None]  # (T, B)
            xs, targets = tokens[place.clamp(0, num)], tokens[(place + 1).clamp(0, num)]
            begins = place == 0 if warm_up and a <= warm_up < a + chunk_length else None
            ys, state = unroll(cell, xs, state, Controls(reset=begins), engine=engine)
            losses = CrossEntropy().per_step(ys.float(), targets)
            counts = (steps[:, None] >= warm_up) & (place < num)
            sums += float(torch.where(counts, losses, 0).sum(dtype=torch.float64))
    return sums / num


def versions() -> dict[str, str]:
    """What a saved model was made with."""
    from .. import __version__

    return {"recurra": __version__, "torch": torch.__version__, "python": platform.python_version()}


def _layer(kind: Named, input_size: int, hidden_size: int, generator: torch.Generator) -> Cell:
    """One cell of the catalog, with the model's initialisation where its own is torch's."""
    import inspect

    parameters = inspect.signature(kind.cls).parameters
    if not kind.accepts("input_size", "hidden_size"):
        want = "a cell that is built from (input_size, hidden_size)"
        raise ValueError(sentence(WHERE, "cell", want, kind.cls.__name__))
    given: dict[str, Any] = {}
    for name, ordinary, ours in (
        ("input_init", "uniform", "xavier_uniform"),
        ("recurrent_init", "uniform", "orthogonal"),
        ("forget_bias", None, 1.0),
    ):
        if name in parameters and parameters[name].default == ordinary and not _excludes(kind.options, name):
            given[name] = ours
    if "generator" in parameters:
        given["generator"] = generator
    for size in ("input_size", "hidden_size"):
        if size in kind.options:
            hint = f"{size} follows from the model."
            raise ValueError(sentence(WHERE, "cell", f"given without {size}", str(kind), hint))
    cell = kind.make(input_size=input_size, hidden_size=hidden_size, **given)
    out = cell.output_spec
    if cell.input_spec != Leaf((input_size,)) or not isinstance(out, Leaf) or len(out.shape) != 1:
        raise ValueError(sentence(WHERE, "cell", "a cell with input (B, D) and output (B, O)", kind.cls.__name__))
    return cell


def _excludes(options: dict[str, Any], name: str) -> bool:
    """Would the model's value of a cell's option contradict an option that the user gave?"""
    if name in options:
        return True
    return name == "forget_bias" and (
        bool(options.get("coupled")) or options.get("bias") is False or options.get("chrono_steps") is not None
    )


def _put(cell: Cell, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in cell.named_parameters():
            p.copy_(weights[name])


@contextlib.contextmanager
def _evaluating(cell: nn.Module) -> Iterator[None]:
    """The cell in evaluation mode, for a while."""
    was = cell.training
    cell.eval()
    try:
        yield
    finally:
        cell.train(was)


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """Draw an index from softmax(logits / temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        smallest = logits.topk(top_k).values[-1]
        logits = torch.where(logits < smallest, -math.inf, logits)
    logits = (logits.double() - logits.max()) / max(temperature, 1e-6)
    return int(torch.multinomial(logits.softmax(0), 1, generator=generator))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:27] + "...")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(sentence(WHERE, name, "a text", type(text).__name__, "Read the file first."))
    if len(text) < 2:
        raise ValueError(sentence(WHERE, name, "at least two characters", len(text)))


def _read_bytes(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(sentence(WHERE, str(folder), "the folder of a saved model", f"{got} there"))
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        want = f"the folder of a saved model with {CONFIG} and {WEIGHTS}"
        raise FileNotFoundError(sentence(WHERE, str(folder), want, f"one without {name}")) from None


def _damaged(folder: Path, name: str, what: str) -> str:
    return f"{WHERE}: {folder / name} is damaged or foreign: {what}."


def _read_config(folder: Path) -> dict[str, Any]:
    data = _read_bytes(folder, CONFIG)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(_damaged(folder, CONFIG, "it is no JSON")) from None
    if not isinstance(config, dict) or "format_version" not in config or "kind" not in config:
        raise ValueError(_damaged(folder, CONFIG, "it has no format_version and kind"))
    if config["kind"] != KIND:
        raise ValueError(_damaged(folder, CONFIG, f"its kind is {config['kind']!r}, not {KIND!r}"))
    version = config["format_version"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        what = f"its format_version is {version!r}, and this recurra reads up to {FORMAT_VERSION}; update recurra"
        raise ValueError(_damaged(folder, CONFIG, what))
    kinds = {"arguments": dict, "vocabulary": str, "weights_sha256": str, "versions": dict, "record": dict}
    for key, kind in kinds.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(_damaged(folder, CONFIG, f"its {key} is missing or no {kind.__name__}"))
    return config


def _read_tensors(folder: Path, data: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(_damaged(folder, WEIGHTS, f"it is no safetensors file ({error})")) from None


def _check_weights(folder: Path, tensors: dict[str, Tensor], cell: Cell) -> None:
    wanted = {name: tuple(t.shape) for name, t in cell.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wanted != found:
        name = next(n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n))
        what = f"{name} has shape {found.get(name)} where the model of config.json has {wanted.get(name)}"
        raise ValueError(_damaged(folder, WEIGHTS, what))
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
        raise ValueError(_damaged(folder, WEIGHTS, "it has weights that are not finite"))
