"""What the estimators have in common that learn from a stream."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from torch import Tensor

from ...core.checks import check_positive, sentence
from ...core.loss import Loss
from ...core.tree import Tree
from ...training.checkpoint import Tensors
from ...training.files import write_atomically
from ..estimator import (
    CONFIG,
    DAMAGE,
    FORMAT_VERSION,
    Estimator,
    damaged,
    finite,
    in_a_sentence,
    read_bytes,
    read_config,
    read_tensors,
    versions,
)
from .learner import Learner, Settings
from .rows import Row, Rows

BLOCK = 256  # rows of `partial_fit` that go to the net together; changes nothing but the time
WEIGHTS = re.compile(r"model-[0-9a-f]{16}\.safetensors")


class Encoded(NamedTuple):
    """A row as the net takes it."""

    x: list[float]
    target: Any
    weight: float
    begins: bool


class OnlineEstimator(Estimator):
    """Learns from one row at a time, in constant memory.

    What is learned stands in two places: the net with its rule and optimizer (``learner_``), and beside it, cheap to copy,
    what is known of the rows (``rows_``) and of the targets.
    """

    beside: ClassVar[tuple[str, ...]] = ("rows_", "num_learned_", "begins_")
    spare: ClassVar[int] = 0  # inputs of a new net that nothing is known for yet
    cell: str
    hidden_size: int
    num_layers: int
    rule: str
    optimizer: str
    lr: float
    memory: float
    max_features: int
    seed: int
    rows_: Rows
    learner_: Learner | None
    num_learned_: int
    begins_: bool

    # --- what a subclass writes ---

    def _begin(self) -> None:
        """Attributes beside the net, before the first row."""
        raise NotImplementedError

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _look_at_target(self, y: Any) -> Any:
        """The target in a plain form; None, which is not known, stays None.

        Raises:
            ValueError, TypeError: it is none.
        """
        raise NotImplementedError

    def _look(self, x: Any) -> Row:
        """What of a row the net shall see.

        Raises:
            ValueError, TypeError: it is none.
        """
        raise NotImplementedError

    def _sizes(self, row: Row, y: Any) -> tuple[int, int]:
        """The inputs and outputs that the net needs for a row and its target."""
        raise NotImplementedError

    def _input(self, row: Row) -> list[float]:
        raise NotImplementedError

    def _target(self, y: Any) -> Any:
        """What the loss compares with; anything for None."""
        raise NotImplementedError

    def _stack_targets(self, targets: Sequence[Any]) -> Tensor:
        """(T, 1, ...)."""
        raise NotImplementedError

    def _stand_in(self, row: Row) -> Any:
        """What goes on in place of a target that is not known."""
        raise NotImplementedError

    def _learn_target(self, y: Any, stand_in: Any) -> None:
        """Learn beside the net; cannot fail."""
        raise NotImplementedError

    def _pack(self) -> dict[str, Any]:
        """The targets' part of what is beside the net, as JSON."""
        raise NotImplementedError

    def _unpack(self, packed: Mapping[str, Any]) -> None:
        """The inverse of `_pack`."""
        raise NotImplementedError

    # --- arguments ---

    @property
    def _settings(self) -> Settings:
        names = ("cell", "hidden_size", "num_layers", "rule", "optimizer", "lr", "seed")
        return Settings(type(self).__name__, *(getattr(self, name) for name in names))

    def _check_arguments(self) -> None:
        """See `Estimator`."""
        where = type(self).__name__
        self._check_plain()
        self._settings.check()
        check_positive(where, max_features=self.max_features)
        if isinstance(self.memory, bool) or not isinstance(self.memory, int | float):
            raise TypeError(sentence(where, "memory", "a number of rows", repr(self.memory)))
        if not 2 <= self.memory < math.inf:
            raise ValueError(sentence(where, "memory", "at least 2 rows", self.memory))

    def _start(self) -> None:
        """Before the first row."""
        if not hasattr(self, "rows_"):
            self._check_arguments()
            self.learner_ = None
            self.num_learned_, self.begins_ = 0, True
            self.record_ = {}
            self._begin()
            self.rows_ = Rows(type(self).__name__, float(self.memory), self.max_features)

    @property
    def n_features_in_(self) -> int:
        """Names and categories seen so far."""
        self._check_fitted("rows_")
        return len(self.rows_)

    # --- learning ---

    def _learn_one(self, x: Any, y: Any, w: float) -> None:
        self._start()
        self._use_arguments()
        target, row, weight = self._look_at_target(y), self._look(x), self._weight(w)
        self._learn_row(x, row, target, weight)

    def _use_arguments(self) -> None:
        """Take over what `set_params` has changed."""
        if self.learner_ is not None:
            self.learner_.use(self._settings)

    def _learn_row(self, x: Any, row: Row, y: Any, weight: float) -> None:
        """The net first, which may refuse; then what cannot fail."""
        learner = self._make_room(row, y)
        stand_in = self._stand_in(row) if y is None else None
        self._learn_block(learner, [self._encode(row, y, weight)])
        self._learn_beside(x, row, y, stand_in)

    def _learn_many(self, xs: Sequence[Any], ys: Sequence[Any], weights: Sequence[Any]) -> None:
        """One row after the other; the net takes those together between which it needs not grow."""
        self._start()
        self._use_arguments()
        where = type(self).__name__
        for i, (x, y, w) in enumerate(zip(xs, ys, weights)):
            try:
                self._look_at_target(y), self._look(x), self._weight(w)
            except (ValueError, TypeError) as error:
                text = str(error).removeprefix(f"{where}: ")
                raise type(error)(f"{where}: row {i}, {text} None of the rows was learned.") from None
        block: list[Encoded] = []
        kept = self._copied()

        def flush() -> None:
            nonlocal kept
            if block:
                assert self.learner_ is not None
                try:
                    self._learn_block(self.learner_, block)
                except BaseException:
                    self.__dict__.update(kept)
                    raise
                block.clear()
            kept = self._copied()

        for x, y, w in zip(xs, ys, weights):
            target, row = self._look_at_target(y), self._look(x)
            alone = self._is_alone(row, target)
            if alone or len(block) == BLOCK:
                flush()
            if alone:
                self._learn_row(x, row, target, self._weight(w))
                kept = self._copied()
                continue
            block.append(self._encode(row, target, self._weight(w)))
            self._learn_beside(x, row, target, None)
        flush()

    def _copied(self) -> dict[str, Any]:
        return {name: copy.deepcopy(self.__dict__[name]) for name in self.beside}

    def _is_alone(self, row: Row, y: Any) -> bool:
        """Must the net have learned all rows before this one first?"""
        return y is None or self._must_grow(row, y)

    def _must_grow(self, row: Row, y: Any) -> bool:
        num_inputs, num_outputs = self._sizes(row, y)
        learner = self.learner_
        return learner is None or num_inputs > learner.num_inputs or num_outputs > learner.num_outputs

    def _make_room(self, row: Row, y: Any) -> Learner:
        """The net, large enough for a row and its target."""
        if not self._must_grow(row, y):
            assert self.learner_ is not None
            return self.learner_
        num_inputs, num_outputs = self._sizes(row, y)
        if self.learner_ is None:
            self.learner_ = Learner(self._settings, self._loss(), num_inputs + self.spare, num_outputs)
        else:
            learner = self.learner_
            learner.grow(_room(num_inputs, learner.num_inputs), _room(num_outputs, learner.num_outputs))
        self._grown()
        return self.learner_

    def _grown(self) -> None:
        """The net has other sizes than before."""

    def _encode(self, row: Row, y: Any, weight: float) -> Encoded:
        assert self.learner_ is not None
        return Encoded(self._padded(row), self._target(y), 0.0 if y is None else weight, self.begins_)

    def _padded(self, row: Row) -> list[float]:
        """The net's input, with zeros for what may come."""
        assert self.learner_ is not None
        x = self._input(row)
        return x + [0.0] * (self.learner_.num_inputs - len(x))

    def _learn_block(self, learner: Learner, block: Sequence[Encoded]) -> None:
        xs, targets, weights, begins = zip(*block)
        learner.learn(xs, self._stack_targets(targets), weights, begins)

    def _learn_beside(self, x: Any, row: Row, y: Any, stand_in: Any) -> None:
        self.rows_.learn(row, None if x is None or isinstance(x, Mapping) else len(x))
        self._learn_target(y, stand_in)
        self.num_learned_ += 1
        self.begins_ = False

    def _weight(self, w: Any) -> float:
        where = type(self).__name__
        if isinstance(w, bool) or not isinstance(w, int | float | np.number):
            raise TypeError(sentence(where, "w", "a number", repr(w)))
        if not 0 <= float(w) < math.inf:
            raise ValueError(sentence(where, "w", "finite and not negative", w))
        return float(w)

    def new_sequence(self) -> None:
        """The next row begins a new sequence: the net starts from its initial state. What was learned stays."""
        self._start()
        self.begins_ = True

    # --- answering ---

    def _net_state(self) -> Tree:
        assert self.learner_ is not None
        return self.learner_.cell.initial_state(1) if self.begins_ else self.learner_.net_state

    # --- tables, as scikit-learn has them ---

    def _records(self, X: Any, y: Any = None) -> list[Any]:
        """The rows of a table: dicts of a data frame, a list of dicts, or rows of an array."""
        where = type(self).__name__
        if X is None and y is not None:
            return [None] * len(y)
        if hasattr(X, "to_dict") and hasattr(X, "columns"):
            gaps = X.isna().to_numpy()
            names = list(X.columns)
            rows = zip(*(X[name].tolist() for name in names)) if names else [()] * len(X)
            return [{n: None if g else v for n, v, g in zip(names, row, gap)} for row, gap in zip(rows, gaps)]
        if isinstance(X, list | tuple) and all(isinstance(x, Mapping) for x in X):
            return list(X)
        try:
            found = np.asarray(X)
        except ValueError:
            found = np.zeros(0)
        if found.ndim != 2:
            want, hint = "(N, D), N rows in the order of time", "One row goes to learn_one and predict_one."
            raise ValueError(sentence(where, "X", want, tuple(found.shape), hint))
        return list(found)

    def _fit_rows(self, X: Any, y: Any, sample_weight: Any) -> None:
        xs = self._records(X, y)
        ys = list(y.tolist() if hasattr(y, "tolist") else y)
        weights = [1.0] * len(xs) if sample_weight is None else list(np.asarray(sample_weight, np.float64))
        if not len(xs) == len(ys) == len(weights):
            want = f"as many as rows in X, {len(xs)}"
            wrong = "y" if len(xs) != len(ys) else "sample_weight"
            raise ValueError(sentence(type(self).__name__, wrong, want, len(ys) if wrong == "y" else len(weights)))
        self._learn_many(xs, ys, weights)

    def _forget(self) -> None:
        """As new, but for the arguments."""
        for name in [n for n in self.__dict__ if n.endswith("_")]:
            del self.__dict__[name]

    # --- River ---

    def clone(self, new_params: Mapping[str, Any] | None = None, include_attributes: bool = False) -> Self:
        """River's clone: the same arguments, nothing learned.

        Args:
            new_params: arguments that are others.
            include_attributes: keep what was learned as well.
        """
        other = type(self)(**{**self.get_params(), **(new_params or {})})
        if include_attributes:
            other.__dict__.update({n: copy.deepcopy(v) for n, v in self.__dict__.items() if n.endswith("_")})
        return other

    def _get_params(self) -> dict[str, Any]:
        return self.get_params()

    _supervised = True
    _is_stochastic = False
    _mutable_attributes: ClassVar[frozenset[str]] = frozenset()

    @property
    def _tags(self) -> set[str]:
        return set()

    @property
    def _raw_memory_usage(self) -> int:
        return self.num_bytes()

    def num_bytes(self) -> int:
        """Bytes of all that goes on from row to row."""
        if not hasattr(self, "rows_"):
            return 0
        tensors: Tensors = {}
        return _bytes_in(self._state(tensors)) + sum(t.numel() * t.element_size() for t in tensors.values())

    # --- the folder ---

    def _state(self, tensors: Tensors) -> dict[str, Any]:
        return {
            "num_learned": self.num_learned_,
            "begins": self.begins_,
            "rows": self.rows_.pack(),
            "target": self._pack(),
            "learner": None if self.learner_ is None else self.learner_.pack(tensors),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything that the next row reads: ``config.json`` and ``model-*.safetensors``.

        The weights are written under a new name, then ``config.json``, which names them, takes the place of the old one at
        once: whatever interrupts this, the folder holds the older state or the newer one. A loaded estimator goes on with the
        same numbers, bit for bit.

        Args:
            folder: made if missing.

        Raises:
            ValueError: nothing was learned yet.
            OSError: the folder cannot be written.
        """
        from safetensors.torch import save

        self._check_fitted("rows_")
        path = Path(folder)
        tensors: Tensors = {}
        state = self._state(tensors)
        data = save(tensors)
        digest = hashlib.sha256(data).hexdigest()
        name = f"model-{digest[:16]}.safetensors"
        config = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "arguments": self.get_params(),
            "fitted": state,
            "weights": name,
            "weights_sha256": digest,
            "versions": versions(),
            "record": finite(self.record_),
        }
        text = json.dumps(config, indent=1, ensure_ascii=True, allow_nan=False)
        with in_a_sentence(type(self).__name__, path):
            write_atomically(path / name, data)
            write_atomically(path / CONFIG, text + "\n")
            for old in path.iterdir():
                if WEIGHTS.fullmatch(old.name) and old.name != name:
                    old.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read what `save` wrote; nothing in it is run.

        Args:
            folder: of the model.
            device: "auto" or "cpu"; rows are learned one by one, which is a processor's work.

        Raises:
            FileNotFoundError: no folder, or a file is missing in it.
            ValueError: a file is damaged, foreign, or written by a newer version.
        """
        path, where = Path(folder), cls.__name__
        if device not in ("auto", "cpu"):
            raise ValueError(sentence(where, "device", "'auto' or 'cpu'", repr(device)))
        config = read_config(path, where, cls.kind, cls._upgrade)
        unknown = sorted(set(config["arguments"]) - set(cls._defaults()))
        if unknown:
            what = f"it has an argument {unknown[0]!r} that {where} does not have"
            raise ValueError(damaged(where, path, CONFIG, what))
        name = config.get("weights")
        if not isinstance(name, str) or not WEIGHTS.fullmatch(name):
            raise ValueError(damaged(where, path, CONFIG, "it does not say which file its weights are in"))
        data = read_bytes(path, name, where)
        if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
            raise ValueError(damaged(where, path, name, "its checksum is not the one in config.json"))
        tensors = read_tensors(path, name, data, where)
        try:
            model = cls(**config["arguments"])
            model._take(config["fitted"], tensors)
        except DAMAGE as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error).split("\n")[0][:200]
            raise ValueError(damaged(where, path, CONFIG, f"it builds no model ({what})")) from None
        model.record_ = dict(config["record"])
        return model

    def _take(self, state: Mapping[str, Any], tensors: Tensors) -> None:
        self._start()
        if not isinstance(state["num_learned"], int) or not isinstance(state["begins"], bool):
            raise ValueError("it does not say how many rows were learned")
        self.num_learned_, self.begins_ = state["num_learned"], state["begins"]
        self.rows_.unpack(state["rows"])
        self._unpack(state["target"])
        if state["learner"] is not None:
            self.learner_ = Learner.unpack(self._settings, self._loss(), state["learner"], tensors)
            row = Row([], [])
            if self._must_grow(row, None):
                raise ValueError("its net is too small for what it has seen")


def _room(needed: int, now: int) -> int:
    """A size to grow to: at least twice, so that growing is seldom."""
    return max(needed, 2 * now) if needed > now else now


def _bytes_in(value: Any) -> int:
    """Eight for each number, one for each letter."""
    if isinstance(value, Mapping):
        return sum(map(_bytes_in, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes_in, value))
    return len(value) if isinstance(value, str) else 8


def check_number(where: str, name: str, value: Any) -> float:
    """A finite number, as a float.

    Raises:
        TypeError: none.
        ValueError: NaN or infinite.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(sentence(where, name, "a number", f"{type(value).__name__} {str(value)[:40]!r}"))
    try:
        number = float(value)
    except (OverflowError, TypeError):
        raise ValueError(sentence(where, name, "at most 1e150", str(value)[:40])) from None
    if not abs(number) <= 1e150:
        want = "at most 1e150" if 1e150 < abs(number) < math.inf else "finite"
        raise ValueError(sentence(where, name, want, number, "Nothing was learned from this row."))
    return number
