"""What `SequenceClassifier` and `SequenceRegressor` have in common: from sequences to nets that answer once for each."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..core.checks import check_choice, check_flag, check_positive, check_probability, sentence
from ..core.engine import Engine
from ..core.loss import Loss, SequenceLoss
from ..core.rule import LearningRule
from ..core.tree import Tree
from ..engines import unroll
from ..learning import BPTT
from ..training import TrainProgress, TrainSettings
from .estimator import Estimator
from .named import named
from .sequence_batches import VariedBatches, in_batches, padded
from .sequence_choices import ENOUGH_TO_CHOOSE, Choices, Facts, Parts, choose, choose_parts
from .sequence_encoders import Encoder, Encoders
from .sequence_network import POOLINGS, Members, MemberTargets, NetworkPlan, build, read_convolutions
from .sequence_series import MAX_FEATURES, SCALES, SeriesEncoder, read_series
from .sequence_text import TextEncoder, read_texts, words_of

HOLD_OUT = ("part", "folds", "none")
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Progress = Callable[[TrainProgress], bool | None]


@dataclass(eq=False, repr=False)
class SequenceEstimator(Estimator):
    """The arguments and the training of both; see `SequenceClassifier`."""

    cell: str = "LSTMCell"
    hidden_size: int | None = None
    num_layers: int = 1
    bidirectional: bool | None = None
    pooling: str = "auto"
    convolutions: str = "auto"
    frames: int | None = None
    scale: str = "auto"
    differences: bool | None = None
    jitter: float | None = None
    scaling: float | None = None
    warping: float | None = None
    cropping: float | None = None
    embedding_size: int | None = None
    lowercase: bool = True
    min_count: int = 2
    num_buckets: int | None = None
    word_dropout: float | None = None
    dropout: float | None = None
    input_dropout: float | None = None
    num_models: int | None = None
    batch_size: int | None = None
    hold_out: str = "auto"
    validation_part: float = 0.1
    num_epochs: int | None = None
    num_updates: int | None = None
    budget_minutes: float | None = None
    max_epochs: int = 1000
    lr: float | None = None
    lr_decay: str = "cosine"
    warmup_updates: int = 20
    optimizer: str = "AdamW"
    beta2: float = 0.999
    weight_decay: float = 1e-2
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    accumulate: int = 1
    weight_average: float = 0.0
    num_validations: int = 10
    patience: int | None = None
    precision: str = "float32"
    rule: str = "BPTT"
    engine: str = "Auto"
    device: str = "auto"
    seed: int = 0

    # --- what a subclass writes ---

    @abstractmethod
    def _read_targets(self, y: Any, num: int) -> Tensor:
        """The targets as a tensor, (N,) classes or (N, O) numbers, in the user's units."""

    def _fit_targets(self, parts: list[Tensor]) -> None:
        """Find what the nets need to know of the targets that they are trained on: of all nets, or of each."""

    @abstractmethod
    def _known_targets(self, y: Any, num: int) -> Tensor:
        """The targets of a validation set, in terms of the training set's."""

    @abstractmethod
    def _num_outputs(self) -> int:
        """C or O."""

    @abstractmethod
    def _loss(self) -> SequenceLoss:
        """Of (B, N, O) outputs and `MemberTargets` with `_wanted` values."""

    @abstractmethod
    def _step_loss(self) -> Loss:
        """The same for a single net that answers at every step."""

    def _wanted(self, targets: Tensor) -> Tensor:
        """What the nets shall put out for targets: `MemberTargets.values`."""
        return targets

    @abstractmethod
    def _row_weights(self, targets: Tensor) -> Tensor:
        """(N,) how much each sequence counts."""

    @abstractmethod
    def _measure(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Validation: the first entry decides. Outputs (N, M, O) of M nets."""

    @abstractmethod
    def _look_back(self, outputs: Tensor, targets: Tensor, own: Tensor | None) -> None:
        """After training: what held-out outputs say.

        Args:
            outputs: (N, M, O) of all nets; with ``own``, (N, 1, O) of the net that a sequence was held out from.
            targets: of the sequences.
            own: (N,) which net that is.
        """

    @abstractmethod
    def _fitted_targets(self) -> dict[str, Any]:
        """JSON values."""

    @abstractmethod
    def _restore_targets(self, fitted: dict[str, Any]) -> None:
        """The inverse."""

    def _strata(self, targets: Tensor) -> Tensor:
        """(N,) groups that every held-out part shall have its share of."""
        return torch.zeros(len(targets), dtype=torch.int64)

    # --- fit ---

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        on_progress: Progress | None = None,
    ) -> Self:
        """Train from the beginning.

        Args:
            X: N sequences: a list of (T_i,) or (T_i, D) arrays, an (N, T) array of series with one channel, an (N, T, D)
                array, or a list of texts. NaN is a missing value.
            y: N targets.
            validation: other sequences and their targets, to choose the weights and to calibrate, in place of a part of
                the training data.
            folder: where checkpoints, metrics and the model go; None for nowhere.
            resume: go on with the unfinished run in ``folder``.
            on_progress: told before the first update and after each; True stops the run.

        Returns:
            The model itself. It now has ``notes_`` (what was decided, in sentences), ``choices_``, ``network_``,
            ``plan_``, ``history_`` and ``record_``.

        Raises:
            TypeError: an argument of another type.
            ValueError: an argument out of range; sequences or targets that cannot be read.
            FloatingPointError: the loss is no longer finite.
        """
        where = type(self).__name__
        self._check_arguments()
        self._check_folder(folder, resume)
        sequences, notes = self._sequences(X)
        targets = self._read_targets(y, len(sequences))
        fingerprint = self._fingerprint_of(sequences, targets, validation)
        if self._already_there(folder, resume, fingerprint):
            return self
        rule = self._rule()
        whole_rule = isinstance(rule, BPTT)
        parts = choose_parts(where, self, len(sequences), whole_rule)
        if validation is not None:
            parts = parts._replace(hold_out="none")
        held, held_targets, members = self._split(sequences, targets, parts)
        kept = torch.nonzero(members.any(1)).flatten().tolist()
        facts = Facts(len(sequences), [self._length(sequences[i]) for i in kept], _channels(sequences))
        self.choices_, decided = choose(where, self, facts, parts, whole_rule)
        learn = members.T if parts.hold_out == "folds" else members.any(1)[None]  # what each encoder sees
        self.encoders_ = Encoders(
            tuple(self._fit_encoder([s for s, one in zip(sequences, row.tolist()) if one]) for row in learn)
        )
        self._fit_targets([targets[row] for row in learn])
        if validation is not None:
            held, held_targets = self._given(validation)
            self.choices_ = replace(self.choices_, hold_out="part")
            calibrates = " and calibrate the answers" if getattr(self, "calibrate", False) else ""
            decided[-1] = f"The validation data choose the weights{calibrates}."
        elif parts.hold_out == "part" and not held:
            decided[-1] = "Nothing can be held out, since every class would lose its only sequence."
        self.notes_ = [*notes, *self._target_notes(targets), *self._encoder_notes(sequences), *decided]
        self.longest_ = max(facts.lengths)
        self._build()
        data = self._batches([sequences[i] for i in kept], targets[kept], members[kept], rule)
        self._held_chooses = validation is not None or len(held) >= ENOUGH_TO_CHOOSE
        settings = replace(self._settings(), lr=self.choices_.lr)
        if self.choices_.num_updates is not None:
            settings = replace(settings, num_updates=self.choices_.num_updates)
        self._train(
            data,
            self._loss() if isinstance(rule, BPTT) else self._step_loss(),
            rule=rule,
            validate=self._validation(held, held_targets) if self._held_chooses else None,
            on_progress=on_progress,
            folder=folder,
            resume=resume,
            fingerprint=fingerprint,
            plan={"notes": list(self.notes_)},
            settings=settings,
        )
        if held:
            self._look_back(self._outputs(held), held_targets, None)
        elif self.choices_.hold_out == "folds":
            each = self._outputs(sequences)
            own = (~members).float().argmax(1)
            self._look_back(each[torch.arange(len(sequences)), own][:, None], targets, own)
        self._finish_folder(folder)
        return self

    def _fingerprint_of(self, sequences: list[Any], targets: Tensor, validation: Any) -> str:
        """Of the training and the validation data."""
        found = hashlib.sha256()
        if isinstance(validation, tuple | list) and len(validation) == 2:
            sequences = [*sequences, *self._sequences(validation[0])[0]]
            found.update(repr([str(y) for y in validation[1]]).encode("utf-8", "surrogatepass"))
        for one in sequences:
            found.update(one.encode("utf-8", "surrogatepass") + b"\0" if isinstance(one, str) else one.tobytes())
        found.update(targets.numpy().tobytes())
        return found.hexdigest()

    def _sequences(self, X: Any) -> tuple[list[Any], list[str]]:
        """The input as a list of arrays or of texts."""
        where = type(self).__name__
        if not hasattr(X, "__len__") and isinstance(X, Iterable):
            X = list(X)
        if isinstance(X, str) or (isinstance(X, Sequence) and len(X) and isinstance(X[0], str)):
            return read_texts(where, X), []
        if getattr(X, "ndim", None) == 1 and len(X) and isinstance(np.asarray(X)[0], str):
            return read_texts(where, [str(text) for text in np.asarray(X)]), []
        if getattr(getattr(X, "dtype", None), "kind", "") == "O" and getattr(X, "ndim", None) == 1:
            X = list(X)
        return read_series(where, X)

    def _length(self, sequence: Any) -> int:
        return max(1, len(words_of(sequence, self.lowercase))) if isinstance(sequence, str) else len(sequence)

    def _fit_encoder(self, sequences: list[Any]) -> SeriesEncoder | TextEncoder:
        chosen = self.choices_
        if isinstance(sequences[0], str):
            return TextEncoder.fitted(
                sequences, lowercase=self.lowercase, min_count=self.min_count, num_buckets=chosen.num_buckets
            )
        return SeriesEncoder.fitted(
            sequences, scale=self.scale, differences=chosen.differences, frames=chosen.frames, causal=chosen.causal
        )

    def _encoder_notes(self, sequences: list[Any]) -> list[str]:
        encoder = self.encoders_.first
        if isinstance(encoder, TextEncoder):
            pieces = f" and {encoder.num_buckets} places for pieces of words" if encoder.num_buckets else ""
            empty = sum(not words_of(text) for text in sequences)
            notes = [
                f"The vocabulary has {len(encoder.vocabulary)} words that occur {self.min_count} times or more in what is "
                f"trained on{pieces}."
            ]
            return [*notes, f"{empty} texts have no words; each is read as one unknown word."] if empty else notes
        said = {
            "standard": "by what all training steps showed",
            "series": "each by itself",
            "both": "by what all training steps showed and each by itself, as separate channels",
            "wide": "on a logarithmic scale, since they differ much in size, and each by itself, as separate channels",
        }
        notes = [f"The series are scaled {said[encoder.scale]}."]
        num = sum(int(np.isnan(x).sum()) for x in sequences)
        if num:
            marked = ", and a channel says where" if encoder.missing else ""
            notes.append(f"{num} values are missing: they are filled on straight lines{marked}.")
        constant = sum(bool((np.ptp(encoder.filled(x), 0) == 0).all()) for x in sequences)
        if constant:
            notes.append(f"{constant} series are constant.")
        return notes

    def _target_notes(self, targets: Tensor) -> list[str]:
        return []

    def _split(self, sequences: list[Any], targets: Tensor, parts: Parts) -> tuple[list[Any], Tensor, Tensor]:
        """Held-out sequences and targets, and (N, M) bool: which sequence trains which net."""
        num, nets = len(sequences), parts.num_models
        members = torch.ones(num, nets, dtype=torch.bool)
        if parts.hold_out == "none":
            return [], targets[:0], members
        strata = self._strata(targets)
        order = _stratified(strata, self.seed)
        if parts.hold_out == "folds":
            members[order, torch.arange(num) % nets] = False
            return [], targets[:0], members
        size = max(1, round(self.validation_part * num))
        places = order[torch.linspace(0, num - 1, size).round().long().unique()] if size < num else order
        for group in strata[places].unique():  # of every group something is left to learn from
            own = places[strata[places] == group]
            if len(own) == (strata == group).sum():
                places = places[places != own[0]]
        members[places] = False
        return [sequences[i] for i in places.tolist()], targets[places], members

    def _given(self, validation: Any) -> tuple[list[Any], Tensor]:
        """The user's validation data."""
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            got = type(validation).__name__
            raise TypeError(sentence(type(self).__name__, "validation", "two values: sequences and their targets", got))
        held, _ = self._like_training(validation[0])
        return held, self._known_targets(validation[1], len(held))

    def _batches(
        self, sequences: list[Any], targets: Tensor, members: Tensor, rule: LearningRule[Any]
    ) -> VariedBatches:
        chosen, encoders = self.choices_, self.encoders_
        weights = torch.zeros(members.shape)
        for m, own in enumerate(members.T):
            weights[own, m] = self._row_weights(targets[own])
        values = self._wanted(targets)
        at_end = not isinstance(rule, BPTT)
        varied = chosen.word_dropout if encoders.is_text else chosen.variation

        def encode(place: int, rng: np.random.Generator | None) -> np.ndarray[Any, Any]:
            return encoders.encode(sequences[place], varied, rng)

        def wanted(places: Tensor) -> Tree:
            if at_end:
                return values[places].flatten(1) if values.ndim > 1 else values[places]
            return MemberTargets(values[places], weights[places])

        lengths = [self._length(s) for s in sequences]
        return VariedBatches(encode, lengths, wanted, chosen.batch_size, self.seed, at_end, weights[:, 0])

    def _validation(self, held: list[Any], targets: Tensor) -> Callable[[nn.Module], dict[str, float]]:
        return lambda module: self._measure(self._outputs(held, module), targets)

    def _chosen_by_these(self) -> str:
        """What is said of held-out sequences that the weights were chosen by; empty where they were not."""
        return " They also chose the weights, so other data may do a little worse." if self._held_chooses else ""

    # --- answers ---

    def _like_training(self, X: Any) -> tuple[list[Any], list[str]]:
        """Sequences of the kind and width of the training data."""
        where, encoder = type(self).__name__, self.encoders_.first
        if isinstance(encoder, TextEncoder):
            if hasattr(X, "tolist") and not isinstance(X, list):
                X = X.tolist()
            return read_texts(where, X), []
        if isinstance(X, str) or (isinstance(X, Sequence) and len(X) and isinstance(X[0], str)):
            raise TypeError(sentence(where, "X", "series of numbers, as in training", "texts"))
        if getattr(getattr(X, "dtype", None), "kind", "") == "O" and getattr(X, "ndim", None) == 1:
            X = list(X)
        return read_series(where, X, encoder.num_channels)

    def _outputs(self, sequences: list[Any], module: nn.Module | None = None, batch_size: int = 256) -> Tensor:
        """(N, M, O) outputs of all nets, in evaluation mode."""
        module = self.network_ if module is None else module
        was_training = module.training
        module.eval()
        encoded = [self.encoders_.encode(s) for s in sequences]
        lengths = [len(e) for e in encoded]
        found = torch.empty(len(sequences), self.choices_.num_models, self._num_outputs())
        device = next(module.parameters()).device
        with torch.no_grad():
            for places in in_batches(lengths, batch_size):
                xs, ends = padded([encoded[i] for i in places])
                found[places] = (
                    self._answer(module, xs.to(device), None if ends is None else ends.to(device)).float().cpu()
                )
        module.train(was_training)
        return found

    def _answer(self, module: nn.Module, xs: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, M, O)."""
        if not self._is_cell():
            return module(xs, lengths)
        ys, _ = unroll(module, xs, engine=self._engine())  # type: ignore[arg-type]
        last = ys[-1] if lengths is None else ys[lengths - 1, torch.arange(xs.shape[1], device=xs.device)]
        return last[:, None]

    def _step_outputs(self, sequence: Any) -> Tensor:
        """(T, M, O) what the nets answer after every step of one sequence."""
        steps = Steps(self)
        encoded = torch.from_numpy(self.encoders_.encode(sequence)).to(next(self.network_.parameters()).device)
        return torch.stack([steps.push(x) for x in encoded])

    def _step_encoder(self) -> Callable[[Any], np.ndarray[Any, Any]]:
        """A function from one step after the other to what the nets read."""
        where, encoders = type(self).__name__, self.encoders_
        last: list[Numbers | None] = [None] * len(encoders.each)

        def one(i: int, encoder: SeriesEncoder, values: Numbers) -> np.ndarray[Any, Any]:
            before = last[i]
            both = values[None] if before is None else np.stack([before, values])
            last[i] = encoder.filled(both)[-1]
            return encoder.encode(both)[-1]

        def encode(x: Any) -> np.ndarray[Any, Any]:
            if encoders.is_text:
                if not isinstance(x, str):
                    raise TypeError(sentence(where, "a step", "a word", type(x).__name__))
                return encoders.encode(x)[0]
            each = [encoder for encoder in encoders.each if isinstance(encoder, SeriesEncoder)]
            values, num = np.asarray(x, dtype=np.float64).reshape(-1), each[0].num_channels
            if values.shape != (num,) or np.isinf(values).any():
                raise ValueError(sentence(where, "a step", f"{num} finite numbers", repr(x)))
            return encoders.joined([one(i, encoder, values) for i, encoder in enumerate(each)])

        return encode

    def describe_input(self, X: Any) -> list[str]:
        """What is odd about sequences, seen from training: sentences, none if nothing is.

        Args:
            X: as for `predict`.
        """
        self._check_fitted()
        sequences, notes = self._like_training(X)
        encoder = self.encoders_.first
        longest = max(self._length(s) for s in sequences)
        if longest > 2 * self.longest_:
            notes.append(f"The longest sequence has {longest} steps; in training the longest had {self.longest_}.")
        if isinstance(encoder, TextEncoder):
            counts = np.array([encoder.num_unknown(text) for text in sequences]).sum(0)
            if counts[1] and counts[0] > 0.1 * counts[1]:
                notes.append(f"{100 * counts[0] / counts[1]:.0f} % of the words are not in the vocabulary.")
            return notes
        num_missing = sum(int(np.isnan(x).sum()) for x in sequences)
        if num_missing and not encoder.missing:
            notes.append(
                f"{num_missing} values are missing, and none was in training; they are filled on straight lines."
            )
        far = sum(bool((np.abs(encoder.first(encoder.filled(x))) > 20).any()) for x in sequences)
        if far:
            notes.append(f"{far} series have values more than 20 spreads away from the training series'.")
        return notes

    # --- inside ---

    def _is_cell(self) -> bool:
        return not isinstance(self._rule(), BPTT)

    def _settings(self) -> TrainSettings:
        found = TrainSettings.of(self)
        return replace(found, lr=1e-3) if self.lr is None else found

    def _rule(self) -> LearningRule[Any]:
        where = type(self).__name__
        kind = named(where, "rule", "rules", self.rule)
        if not issubclass(kind.cls, LearningRule):
            raise ValueError(sentence(where, "rule", "a learning rule such as BPTT", str(kind), "It is a search."))
        return (
            kind.make(engine=self._engine()) if kind.accepts("engine") and "engine" not in kind.options else kind.make()
        )

    def _engine(self) -> Engine:
        return named(type(self).__name__, "engine", "engines", self.engine).make()

    def _check_arguments(self) -> None:
        where = type(self).__name__
        self._check_plain()
        self._settings().check(where)
        check_flag(where, lowercase=self.lowercase)
        check_flag(where, optional=True, bidirectional=self.bidirectional, differences=self.differences)
        check_positive(where, num_layers=self.num_layers, min_count=self.min_count)
        for name in ("hidden_size", "frames", "embedding_size", "num_models", "batch_size"):
            if getattr(self, name) is not None:
                check_positive(where, **{name: getattr(self, name)})
        if self.num_buckets is not None and (not isinstance(self.num_buckets, int) or self.num_buckets < 0):
            raise ValueError(sentence(where, "num_buckets", "a whole number of at least 0", repr(self.num_buckets)))
        for name in ("word_dropout", "dropout", "input_dropout", "cropping"):
            if getattr(self, name) is not None:
                check_probability(where, **{name: getattr(self, name)})
        if not isinstance(self.validation_part, float) or not 0 < self.validation_part < 1:
            raise ValueError(sentence(where, "validation_part", "between 0 and 1", repr(self.validation_part)))
        for name in ("jitter", "scaling", "warping"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < 10):
                raise ValueError(sentence(where, name, "a number from 0 to 10", repr(value)))
        check_choice(where, "pooling", self.pooling, ("auto", *POOLINGS))
        check_choice(where, "scale", self.scale, SCALES)
        check_choice(where, "hold_out", self.hold_out, ("auto", *HOLD_OUT))
        if self.convolutions != "auto":
            read_convolutions(where, self.convolutions)
        named(where, "cell", "cells", self.cell)
        self._rule()

    def _build(self) -> None:
        """The net or nets, with new weights."""
        where, chosen, encoders = type(self).__name__, self.choices_, self.encoders_

        def plan(encoder: Encoder) -> NetworkPlan:
            return NetworkPlan(
                cell=named(where, "cell", "cells", self.cell),
                hidden_size=chosen.hidden_size,
                num_layers=self.num_layers,
                bidirectional=chosen.bidirectional,
                pooling=chosen.pooling,
                convolutions=read_convolutions(where, chosen.convolutions),
                num_features=encoder.num_features if isinstance(encoder, SeriesEncoder) else chosen.embedding_size,
                num_words=encoder.num_words if isinstance(encoder, TextEncoder) else 0,
                num_buckets=encoder.num_buckets if isinstance(encoder, TextEncoder) else 0,
                num_outputs=self._num_outputs(),
                dropout=chosen.dropout,
                input_dropout=chosen.input_dropout,
            )

        plans = [plan(encoder) for encoder in encoders.each]
        plans = plans if len(plans) == chosen.num_models else plans * chosen.num_models
        if plans[0].num_features > MAX_FEATURES:
            hint = "Give fewer channels, or differences=False, scale='standard', frames=1."
            want = f"series of at most {MAX_FEATURES:,} numbers a step, once scaled"
            raise ValueError(sentence(where, "X", want, f"{plans[0].num_features:,}", hint))
        device = self._device()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network_ = build(where, plans, self._engine(), self._is_cell(), encoders.columns()).to(device)
        self.causal_ = plans[0].causal and encoders.streams

    def _fitted(self) -> dict[str, Any]:
        return {
            "input": "text" if self.encoders_.is_text else "series",
            "encoder": self.encoders_.to_json(),
            "choices": self.choices_.to_json(),
            "longest": self.longest_,
            "notes": self.notes_,
            **self._fitted_targets(),
        }

    def _restore(self, fitted: dict[str, Any]) -> None:
        self.choices_ = Choices.of(fitted["choices"])
        kind: type[Encoder] = {"text": TextEncoder, "series": SeriesEncoder}[fitted["input"]]
        self.encoders_ = Encoders.of(kind, fitted["encoder"])
        if len(self.encoders_.each) not in (1, self.choices_.num_models):
            raise ValueError("it has another number of encoders than of nets")
        self.longest_ = int(fitted["longest"])
        self.notes_ = [str(note) for note in fitted["notes"]]
        self._restore_targets(fitted)
        self._build()


class Steps:
    """A causal model that is told one step after the other, for streams.

    Args:
        estimator: fitted, with nets that answer after every step.
    Raises:
        ValueError: the nets read whole sequences.
    """

    def __init__(self, estimator: SequenceEstimator) -> None:
        if not estimator.causal_:
            want = "one that answers after every step"
            hint = "Fit with pooling='last', bidirectional=False, convolutions='none', scale='standard' and frames=1."
            raise ValueError(
                sentence(type(estimator).__name__, "the model", want, "one that reads whole sequences", hint)
            )
        self.network = network = estimator.network_
        self.cells = [network] if estimator._is_cell() else [member.cell for member in network.members]  # type: ignore[union-attr]
        with torch.no_grad():
            self.states: list[Tree] = [cell.initial_state(1) for cell in self.cells]  # type: ignore[operator]

    def push(self, x: Tensor) -> Tensor:
        """One encoded step (F,) -> outputs (M, O); the states go on."""
        found = []
        with torch.no_grad():
            for i, cell in enumerate(self.cells):
                own = self.network.part(x[None], i) if isinstance(self.network, Members) else x[None]
                y, self.states[i] = cell.step(own, self.states[i])  # type: ignore[operator]
                found.append(y[0])
        return torch.stack(found).float().cpu()


def _channels(sequences: list[Any]) -> int:
    return 0 if isinstance(sequences[0], str) else int(sequences[0].shape[1])


def _stratified(strata: Tensor, seed: int) -> Tensor:
    """Places such that any stretch of them has about its share of every group."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(strata), generator=generator)
    return shuffled[torch.argsort(strata[shuffled], stable=True)]
