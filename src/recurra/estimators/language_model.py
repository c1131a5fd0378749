"""A language model of characters: from a text to a model in a folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
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
from ..core.checks import check_choice, check_positive, check_probability, sentence
from ..core.engine import Engine
from ..core.rule import LearningRule
from ..core.spec import Leaf
from ..engines import unroll
from ..training.files import write_atomically
from ..wrappers import Stack, WeightDrop
from .estimator import Estimator
from .named import Named, named
from .training_run import (
    METRIC_FIELDS,
    UNKNOWN,
    WHERE,
    TrainingProgress,
    TrainingRun,
    evaluating,
    stream_loss,
    versions,
)

FORMAT_VERSION = 1
KIND = "language_model"
CONFIG, WEIGHTS, METRICS, SAMPLES = "config.json", "model.safetensors", "metrics.csv", "samples.txt"

Metrics = dict[str, float]


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
        run = TrainingRun(self, text, validation_text, on_progress, started)
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
        with torch.no_grad(), evaluating(cell):
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
