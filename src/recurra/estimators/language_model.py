"""A language model of characters, bytes or words: from a text to a model in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..cells.affine import AffineCell
from ..cells.dropout import DropoutCell
from ..cells.embedding import EmbeddingCell
from ..core.cell import Cell
from ..core.checks import check_choice, check_flag, check_positive, check_probability, sentence
from ..core.draws import seeded
from ..core.engine import Engine
from ..core.loss import CrossEntropy
from ..core.rule import LearningRule
from ..core.spec import Leaf
from ..training import TokenFile
from ..wrappers import Committee, Stack, WeightDrop
from .committee_run import CommitteeRun
from .estimator import Estimator
from .named import Named, check_layer, named
from .text_file import TextPart, text_blocks
from .text_stream import TextStream, check_string
from .tokens import KINDS, Tokens, Words, token_file
from .training_run import WHERE, Restarts, TrainingProgress, Watch, stream, stream_loss

SAMPLES, TOKENS = "samples.txt", "tokens.npy"

Metrics = dict[str, float]
Text = str | os.PathLike[str] | TextPart


class LanguageModel(Estimator):
    """Predicts the next character, byte or word of a text, and so writes texts.

        h_t = dropout(cell(... cell(dropout(E[c_t]))))        p(c_{t+1} | c_1 .. c_t) = softmax(W h_t + b)

    Tokens are the characters of the training text and one more that stands for any other; or the bytes of its UTF-8; or its
    most frequent words (split at white space; the end of a line is a word) and ``<unk>``. The text is read as
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
        embedding_size: E, size of a token's vector.
        dropout: probability of a zero in the output of each layer, while training.
        input_dropout: the same for the token's vector.
        weight_drop: probability of a zero in the recurrent weights (`WeightDrop`), while training.
        variational: draw each dropout mask once per chunk instead of at every step.
        batch_size: B, parallel streams; fewer for a small text, so that a pass has at least 32 updates.
        num_steps: T, tokens per chunk.
        restart: probability, for each chunk and stream, that the state is forgotten. Without it the model only ever starts at
            the beginning of a stream and may go astray for thousands of characters where it starts anywhere else.
        num_epochs: passes over the text (10 where nothing else is given).
        budget_minutes: the time for everything `fit` does; turned once, by timing a few updates, into a number of updates.
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
        precision: "float32", "bfloat16" or "float16" (products in it, weights and carried state in float32), or "auto":
            bfloat16 where timing shows it to be faster.
        rule: learning rule, with options if wanted: ``"TruncatedBPTT"``.
        engine: how to run the cell, with options if wanted: ``"Checkpointed(every=32)"``.
        num_validations: how often to validate, if there is a validation text, and to write a sample; fewer times where
            that would take more than a tenth of a time budget.
        patience: validations in a row without a new best after which to stop; None never stops.
        sample_length: tokens of a sample; 0 for no samples.
        tokens: "chars", "bytes" or "words".
        vocabulary_size: the largest number of words; characters are all kept.
        num_models: trained side by side, a processor thread each, with the seeds ``seed``, ``seed + 1``, ...; their
            probabilities are averaged (`Committee`). Two are usually better than one of twice the size or one that is
            trained twice as long.
        accumulate: chunks whose gradients are added up for one update.
        clip_value: largest absolute value of a gradient's elements; None for no clipping.
        checkpoint_seconds: time between two checkpoints where `fit` has a folder.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        seed: of the weights, the noise and the samples.
    Raises:
        ValueError: from `fit`: an argument out of range, a text that is too short.
        FloatingPointError: from `fit`: the loss is no longer finite.
        OSError: from `fit`: its folder cannot be written.
    Source:
        Mikolov et al. 2010, Interspeech (recurrent language models); Graves 2013, arXiv:1308.0850 (characters, LSTM);
        averaging: Polyak & Juditsky 1992 in its exponential form (all from memory).
    Cost:
        For an LSTM about 24 H (E + H) + 6 H V flops per token and update with one layer and V different tokens.
    Example:
        >>> text = "to be or not to be, that is the question. " * 20
        >>> model = LanguageModel(hidden_size=16, embedding_size=8, num_updates=30, dropout=0.0).fit(text)
        >>> before = math.log(len(model.vocabulary_) + 1)
        >>> model.evaluate(text)["nats_per_char"] < before
        True
        >>> len(model.generate("to be", length=10))
        10
    """

    kind = "language_model"

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
        tokens: str = "chars",
        vocabulary_size: int = 10_000,
        num_models: int = 1,
        accumulate: int = 1,
        clip_value: float | None = None,
        checkpoint_seconds: float = 60.0,
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
        self.tokens = tokens
        self.vocabulary_size = vocabulary_size
        self.num_models = num_models
        self.accumulate = accumulate
        self.clip_value = clip_value
        self.checkpoint_seconds = checkpoint_seconds

    # --- using a model ---

    def fit(
        self,
        text: Text,
        validation_text: Text | None = None,
        on_progress: Callable[[TrainingProgress], bool | None] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Train from the beginning, or go on.

        Ctrl-C leaves a model that can be used and saved, with the weights of that moment, and is raised again.

        Args:
            text: to learn from, at least two tokens; or the path of a file in UTF-8, which may be larger than memory: it is
                read in pieces, and its tokens are kept in a file; or a `TextPart` of one.
            validation_text: to measure on; it decides which weights are kept, and ends in ``record_["validation"]``.
            on_progress: told before the first update and after each; True stops the run.
            folder: a run folder: configuration and plan, checkpoints, ``metrics.csv``, TensorBoard events while training,
                and in the end the model, as by `save`.
            resume: go on with the run in ``folder``, which may have been killed at any moment; the model is the same as if
                it had not been (bit for bit on the CPU). Where nothing is there yet, training begins.

        Returns:
            The model itself. It now has ``vocabulary_`` (the characters or words), ``cell_`` (the network), ``plan_`` (what
            was decided), ``history_`` (one row per validation), ``samples_`` and ``record_`` (how it went).
        """
        started = time.perf_counter()
        self._check_arguments()
        self._check_folder(folder, resume)
        for name, value in (("text", text), ("validation_text", validation_text)):
            if value is not None or name == "text":
                _check_text(name, value)
        with contextlib.ExitStack() as stack:
            place = folder
            if place is None and not all(t is None or isinstance(t, str) for t in (text, validation_text)):
                place = stack.enter_context(tempfile.TemporaryDirectory())
            fingerprint = _fingerprint(text, validation_text)
            if self._already_there(folder, resume, fingerprint):
                return self
            if self.num_models > 1:
                self._fit_members(text, validation_text, on_progress, folder, resume, started, fingerprint)
                return self
            self._fit(text, validation_text, on_progress, folder, resume, started, fingerprint, Path(place or "."))
        return self

    def _fit(
        self,
        text: Text,
        validation_text: Text | None,
        on_progress: Callable[[TrainingProgress], bool | None] | None,
        folder: str | os.PathLike[str] | None,
        resume: bool,
        started: float,
        fingerprint: str,
        place: Path,
    ) -> None:
        """The training of `fit`."""
        kind = KINDS[self.tokens]
        self.tokens_: Tokens = kind.find(_blocks(text), self.vocabulary_size)
        learned = self._read(text, place / TOKENS)
        validation = None if validation_text is None else self._read(validation_text, place / f"validation-{TOKENS}")
        for name, found in (("text", learned), ("validation_text", validation)):
            if found is not None and len(found) < 2:
                raise ValueError(sentence(WHERE, name, f"at least two {kind.unit}", len(found)))
        self._build()
        watch = Watch(self, validation, on_progress)
        self.samples_: list[dict[str, Any]] = watch.memo["samples"]
        streams = stream(self, learned)
        watch.tokens_per_update = streams.batch_size * streams.num_steps * self.accumulate
        try:
            run = self._train(
                Restarts(streams, self.restart, self.seed),
                CrossEntropy(),
                rule=self._rule(),
                validate=watch.validate,
                on_progress=watch.tell,
                folder=folder,
                resume=resume,
                fingerprint=fingerprint,
                plan=self._plan(text, learned, streams),
                loss_name=self._loss_name,
                memo=watch.memo,
                started=started,
                time_validation=watch.time_validation,
            )
        finally:
            self.samples_ = watch.memo["samples"]
        if validation is not None:
            self.record_["validation"] = self._measure(validation, _num_chars(validation_text))
        self.record_["seconds"] = round(run.elapsed(), 1)
        self._finish_folder(folder)
        for name, given in ((TOKENS, text), (f"validation-{TOKENS}", validation_text)):
            if given is not None and not isinstance(given, str):
                (place / name).unlink(missing_ok=True)

    def _fit_members(
        self,
        text: Text,
        validation_text: Text | None,
        on_progress: Callable[[TrainingProgress], bool | None] | None,
        folder: str | os.PathLike[str] | None,
        resume: bool,
        started: float,
        fingerprint: str,
    ) -> None:
        """The training of `fit` with several models."""
        run = CommitteeRun(self, on_progress, None if folder is None else Path(folder))
        try:
            run.run(text, validation_text, resume)
        finally:
            trained = run.trained()
            if trained:
                self.tokens_, self.samples_ = trained[0].tokens_, trained[0].samples_
                self.network_ = Committee(*[member.cell_ for member in trained], average="probability").eval()
                self.record_, self.history_ = run.record(trained), run.history(trained)
                self.plan_, self._fingerprint = self.record_["plan"], fingerprint
        if validation_text is not None:
            self.record_["validation"] = self.evaluate(validation_text)
        self.record_["seconds"] = round(time.perf_counter() - started, 1)
        self._finish_folder(folder)
        run.clean()

    def _plan(self, text: Text, learned: Tensor | TokenFile, streams: Any) -> dict[str, Any]:
        """What is decided before training."""
        notes = []
        if streams.batch_size < self.batch_size:
            words = "one stream" if streams.batch_size == 1 else f"{streams.batch_size} parallel streams"
            small = f"so that one pass has {len(streams)} update{'s' * (len(streams) != 1)}"
            notes.append(f"The text is small: {words} instead of {self.batch_size}, {small}.")
        if isinstance(self.tokens_, Words) and len(self.tokens_.vocabulary) == self.vocabulary_size:
            notes.append(f"The {self.vocabulary_size:,} most frequent words are known; any other word is <unk>.")
        return {
            "notes": notes,
            "num_chars": _num_chars(text),
            "num_tokens": self.tokens_.num_tokens,
            "batch_size": streams.batch_size,
            "num_steps": streams.num_steps,
        }

    def evaluate(self, text: Text, *, chunk_length: int = 1000) -> Metrics:
        """The exact loss of a text: read once from its beginning to its end, the state carried on, nothing dropped.

        Args:
            text: at least two tokens; every one but the first is predicted. Or the path of a file, which may be larger
                than memory, or a `TextPart` of one.
            chunk_length: tokens at a time; changes nothing but memory.

        Returns:
            ``nats_per_char`` and ``bits_per_char`` for each predicted character, ``nats_per_token`` and ``perplexity`` for
            each predicted token; ``num_chars`` and ``num_tokens`` predicted; ``num_unknown``: how many of the tokens are
            unknown. These count as one token, "any other", which a training text of characters never shows and which is
            therefore expensive, while ``<unk>`` is a cheap word: with unknown words the loss per character does not pay
            for their spelling.
        """
        self._check_fitted()
        _check_text("text", text)
        check_positive(WHERE, chunk_length=chunk_length)
        with tempfile.TemporaryDirectory() if not isinstance(text, str) else contextlib.nullcontext(".") as place:
            tokens = self._read(text, Path(place) / TOKENS)
            if len(tokens) < 2:
                raise ValueError(sentence(WHERE, "text", f"at least two {self.tokens_.unit}", len(tokens)))
            return self._measure(tokens, _num_chars(text), chunk_length)

    def _measure(self, tokens: Tensor | TokenFile, num_chars: int, chunk_length: int = 1000) -> Metrics:
        nats = stream_loss(self.cell_, tokens, self._engine(), chunk_length=chunk_length)
        num, chars = len(tokens) - 1, num_chars - 1
        per_char = nats * num / chars
        unknown = 0
        if self.tokens_.has_unknown:
            unknown = sum(int((tokens[a : a + 2**20] == 0).sum()) for a in range(1, len(tokens), 2**20))
        return {
            "nats_per_char": per_char,
            "bits_per_char": per_char / math.log(2),
            "nats_per_token": nats,
            "perplexity": math.exp(min(nats, 700.0)),
            "num_chars": chars,
            "num_tokens": num,
            "num_unknown": unknown,
        }

    def score(self, text: Text, y: Any = None) -> float:
        """How well a text is predicted: minus the nats per token, so that higher is better.

        Args:
            text: at least two tokens, or the path of a file.
            y: ignored; scikit-learn's signature has it.
        """
        return -self.evaluate(text)["nats_per_token"]

    def tokenize(self, text: str) -> list[str]:
        """The text's tokens, as the model cuts it; unknown ones as they stand in the text."""
        self._check_fitted()
        check_string("text", text)
        return self.tokens_.split(text)

    def log_probabilities(self, text: str) -> Tensor:
        """``log p(c_t | c_1 .. c_{t-1})`` in nats, (N - 1,) for the N tokens of `tokenize`: all but the first.

        Args:
            text: at least one token.
        """
        return self.stream().read(text)

    def stream(self) -> TextStream:
        """A text that is read and written piece by piece, with the exact state carried on."""
        self._check_fitted()
        return TextStream(self.cell_, self.tokens_, self._engine())

    def generate(
        self,
        prompt: str = "\n",
        length: int = 500,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
        top_p: float | None = None,
    ) -> str:
        """Go on writing after ``prompt``.

        Args:
            prompt: what stands before; its characters must be known to the model. An empty one starts from nothing.
            length: tokens to write.
            temperature: 1 writes as likely as the model thinks, less is more careful, 0 always takes the likeliest.
            top_k: only the k likeliest tokens; None for all.
            seed: the same seed writes the same text.
            top_p: only the likeliest tokens that together have this probability (after the temperature); None for all.

        Returns:
            The new text, without the prompt.
        """
        self._check_fitted()
        check_string("prompt", prompt)
        unknown = self.tokens_.unknown_in(prompt)
        if unknown is not None:
            want = f"written with the {self.tokens_.num_tokens - 1} {self.tokens_.unit} of the training text"
            raise ValueError(sentence(WHERE, "prompt", want, f"{unknown!r} in {_short(prompt)}"))
        text = self.stream()
        if prompt:
            text.read(prompt)
        return text.write(length, temperature, top_k, seed=seed, top_p=top_p)

    # --- what a model is ---

    @property
    def cell_(self) -> Cell:
        """The network: tokens (B,) in, logits (B, V) out."""
        network = self.network_
        assert isinstance(network, Cell)
        return network

    @property
    def vocabulary_(self) -> Any:
        """The known characters, as one text, or the known words, as a list."""
        return getattr(self.tokens_, "vocabulary", "")

    @property
    def _loss_name(self) -> str:
        return "nats_per_char" if self.tokens == "chars" else "nats_per_token"

    def _fitted(self) -> dict[str, Any]:
        network = getattr(self, "network_", None)
        members = {"num_members": len(network.members)} if isinstance(network, Committee) else {}
        return {**self.tokens_.fitted(), **members}

    def _restore(self, fitted: dict[str, Any]) -> None:
        self.tokens_ = KINDS[self.tokens].restore(fitted)
        self.samples_ = []
        num = fitted.get("num_members", 1)
        if not isinstance(num, int) or not 1 <= num <= self.num_models:
            raise ValueError("its num_members is no number of models")
        self._build(num)

    def _load(self, folder: Path, config: dict[str, Any]) -> None:
        super()._load(folder, config)
        self.samples_ = list(self.record_.pop("samples", []))

    def _more_record(self) -> dict[str, Any]:
        return {"samples": self.samples_}

    def _more_files(self) -> dict[str, str]:
        parts = [f"=== after {s['update']} updates ===\n{s['text']}\n" for s in self.samples_]
        return {SAMPLES: "\n".join(parts)}

    @classmethod
    def _upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        if config["format_version"] == 1:  # up to version 0.1.0.dev0: characters only, found beside the arguments
            config = {**config, "fitted": {"vocabulary": config.get("vocabulary")}, "format_version": 2}
        return config

    # --- inside ---

    def _check_arguments(self) -> None:
        super()._check_arguments()
        sizes = (
            "hidden_size",
            "num_layers",
            "embedding_size",
            "batch_size",
            "num_steps",
            "vocabulary_size",
            "num_models",
        )
        check_positive(WHERE, **{name: getattr(self, name) for name in sizes})
        check_probability(
            WHERE,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            weight_drop=self.weight_drop,
            restart=self.restart,
        )
        if not isinstance(self.sample_length, int) or self.sample_length < 0:
            raise ValueError(sentence(WHERE, "sample_length", "a whole number of at least 0", repr(self.sample_length)))
        check_choice(WHERE, "tokens", self.tokens, tuple(KINDS))
        check_flag(WHERE, variational=self.variational)
        self._engine()
        self._rule()

    def _engine(self) -> Engine:
        return named(WHERE, "engine", "engines", self.engine).make()

    def _rule(self) -> LearningRule[Any]:
        kind = named(WHERE, "rule", "rules", self.rule)
        if not issubclass(kind.cls, LearningRule):
            raise ValueError(sentence(WHERE, "rule", "a learning rule", f"{kind.cls.__name__}, which searches"))
        return kind.make(engine=self._engine()) if kind.accepts("engine") else kind.make()

    def _read(self, text: Text, path: Path) -> Tensor | TokenFile:
        """The tokens of a text, or of a file by way of another file."""
        return self.tokens_.encode(text) if isinstance(text, str) else token_file(self.tokens_, _blocks(text), path)

    def _build(self, num_models: int = 1) -> None:
        """The network for the vocabulary, with new weights."""
        device = self._device()
        cells = []
        for n in range(num_models):
            with seeded(self.seed + n):  # a cell without a generator argument draws from torch's own
                generator = torch.Generator().manual_seed(self.seed + n)
                cells.append(self._network(self.tokens_.num_tokens, generator))
        self.network_ = (cells[0] if num_models == 1 else Committee(*cells, average="probability")).to(device)

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


def _layer(kind: Named, input_size: int, hidden_size: int, generator: torch.Generator) -> Cell:
    """One cell of the catalog, with the model's initialisation where its own is torch's."""
    import inspect

    parameters = inspect.signature(kind.cls).parameters
    check_layer(WHERE, kind)
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


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:27] + "...")


def _check_text(name: str, text: Any) -> None:
    if isinstance(text, os.PathLike | TextPart):
        if not _part(text).path.is_file():
            raise FileNotFoundError(
                sentence(WHERE, name, "the path of a text", f"{_part(text).path}, which is no file")
            )
    elif not isinstance(text, str):
        raise TypeError(sentence(WHERE, name, "a text", type(text).__name__, "Read the file first."))
    elif len(text) < 2:
        raise ValueError(sentence(WHERE, name, "at least two characters", len(text)))


def _blocks(text: Text) -> Iterator[str]:
    """A text in pieces."""
    return iter([text]) if isinstance(text, str) else text_blocks(WHERE, _part(text))


def _part(text: os.PathLike[str] | TextPart) -> TextPart:
    return text if isinstance(text, TextPart) else TextPart(Path(text))


def _num_chars(text: Text | None) -> int:
    return 0 if text is None else sum(len(block) for block in _blocks(text))


def _fingerprint(*texts: Text | None) -> str:
    """One for the same texts, wherever they stand."""
    sha = hashlib.sha256()
    for text in texts:
        inner = hashlib.sha256()
        for block in () if text is None else _blocks(text):
            inner.update(block.encode("utf-8", "surrogatepass"))
        sha.update(inner.digest() if text is not None else b"none")
    return sha.hexdigest()
