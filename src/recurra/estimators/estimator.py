"""What all estimators have in common: arguments, training, and a model in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import json
import math
import os
import pkgutil
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..core.checks import sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import LearningRule
from ..training import Training, TrainingData, TrainProgress, TrainSettings
from ..training.checkpoint import FOLDER, checkpoints, remove_checkpoints
from ..training.files import write_atomically
from ..training.logs import EVENTS, METRICS, table
from ..training.place import find_device, is_first_process
from ..training.run_folder import STOPPED_FROM_OUTSIDE

FORMAT_VERSION = 2
CONFIG, WEIGHTS = "config.json", "model.safetensors"
DAMAGE = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, ArithmeticError, MemoryError)
SIZES = ("hidden_size", "embedding_size", "num_layers")  # arguments that a damaged file must not ask memory for
MORE_SIZES = (*SIZES, "num_buckets", "num_models", "num_members")


class Estimator:
    """The manners of scikit-learn without the package.

    The constructor only stores its arguments, which are plain values, under their own names; `fit` checks them and leaves
    what it found in attributes that end in an underscore. A subclass that saves itself sets ``kind`` and writes `_fitted`
    and `_restore`; after training it has ``network_``, ``plan_``, ``history_`` and ``record_``.
    """

    kind: ClassVar[str] = ""
    network_: nn.Module
    plan_: dict[str, Any]
    history_: list[dict[str, Any]]
    record_: dict[str, Any]

    # --- arguments ---

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (``deep`` changes nothing: no argument is an estimator)."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; returns the estimator itself.

        Raises:
            ValueError: an argument that the constructor does not have.
        """
        import difflib

        known = self._defaults()
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else ""
                want = "one of the constructor's arguments"
                raise ValueError(sentence(type(self).__name__, "set_params", want, repr(name), hint))
        for name, value in params.items():  # a search over np.arange(...) sets scalars of numpy
            setattr(self, name, value.item() if isinstance(value, np.generic) else value)
        return self

    def __repr__(self) -> str:
        given = (f"{n}={getattr(self, n)!r}" for n, default in self._defaults().items() if getattr(self, n) != default)
        return f"{type(self).__name__}({', '.join(given)})"

    def _check_fitted(self, attribute: str = "network_") -> None:
        if not hasattr(self, attribute):
            from sklearn.exceptions import NotFittedError  # a ValueError

            hint = "Call fit, or load a saved one."
            raise NotFittedError(sentence(type(self).__name__, "the model", "fitted first", "a new one", hint))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's own tools (pipelines, searches, cross-validation; from version 1.6) ask for."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            input_tags=InputTags(three_d_array=True, string=True, allow_nan=True),
        )

    # --- what a subclass writes ---

    def _check_arguments(self) -> None:
        """Raise unless the constructor's arguments are in range; `fit` and `load` call it."""
        self._check_plain()
        TrainSettings.of(self).check(type(self).__name__)

    def _check_plain(self) -> None:
        """Raise unless all arguments can be written into a file."""
        for name, value in self.get_params().items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                got = f"{type(value).__module__}.{type(value).__qualname__} {str(value)[:40]!r}"
                want, hint = "a plain value: a number, a text, or a list or dict of them", "Arrays have tolist()."
                raise TypeError(sentence(type(self).__name__, name, want, got, hint)) from None

    def _fitted(self) -> dict[str, Any]:
        """What was found in the data, as JSON values: a vocabulary, classes, a scaler."""
        raise NotImplementedError

    def _restore(self, fitted: dict[str, Any]) -> None:
        """Build ``network_`` and the attributes from the arguments and what `_fitted` returned; weights come later.

        Raises:
            ValueError: ``fitted`` is damaged; `load` says of which file. KeyError and TypeError count as that too.
        """
        raise NotImplementedError

    def _more_record(self) -> dict[str, Any]:
        """What a subclass keeps in the record beside that of training."""
        return {}

    def _more_files(self) -> dict[str, str]:
        """Texts that a subclass writes beside the model, by name, for readers."""
        return {}

    @classmethod
    def _upgrade(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration in today's format, from that of an older version."""
        return config

    # --- training ---

    def _device(self) -> torch.device:
        return find_device(getattr(self, "device", "auto"), type(self).__name__)

    def _train(
        self,
        data: TrainingData,
        loss: Loss | SequenceLoss,
        *,
        rule: LearningRule[Any] | None = None,
        validate: Callable[[nn.Module], dict[str, float]] | None = None,
        on_progress: Callable[[TrainProgress], bool | None] | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        fingerprint: str = "",
        plan: dict[str, Any] | None = None,
        settings: TrainSettings | None = None,
        **more: Any,
    ) -> Training:
        """Train ``network_`` with the settings among the arguments; leaves ``plan_``, ``history_`` and ``record_``.

        With a folder, the plan stands in its ``config.json`` from the first update on.

        Args:
            plan: facts of the caller's that belong into ``plan_``; its "notes" come first.
            settings: None for those among the arguments.
            more: see `Training`.
        """
        name = type(self).__name__
        settings = TrainSettings.of(self) if settings is None else settings
        run = Training(
            self.network_, data, loss, settings,
            rule=rule, validate=validate, on_progress=on_progress, folder=folder, resume=resume, where=name,
            fingerprint=fingerprint,
            on_plan=None if folder is None else lambda found: self._announce(Path(folder), fingerprint),
            **more,
        )  # fmt: skip
        run.plan.update(plan or {})
        self.plan_, self.history_ = run.plan, run.history
        self.record_ = {"plan": self.plan_}
        self._fingerprint = fingerprint
        try:
            run.run()
        finally:
            found = run.record()._asdict()
            del found["history"]
            self.record_ = found
        return run

    def _check_folder(self, folder: str | os.PathLike[str] | None, resume: bool) -> None:
        """Raise unless a new run may go into the folder; of several processes the first one looks, and it writes there."""
        if folder is None or resume or not is_first_process():
            return
        path = Path(folder)
        if (path / CONFIG).exists() or checkpoints(path):
            hint = "Go on with resume=True, or choose another folder."
            raise FileExistsError(sentence(type(self).__name__, "folder", "new or empty", f"{folder} with a run", hint))

    def _already_there(self, folder: str | os.PathLike[str] | None, resume: bool, fingerprint: str) -> bool:
        """Is the run that shall be resumed finished? Then this estimator becomes its model.

        Raises:
            ValueError: the folder's run has other arguments or other data.
        """
        if folder is None or not resume or not (Path(folder) / CONFIG).exists():
            return False
        path, name = Path(folder), type(self).__name__
        config = read_config(path, name, self.kind, type(self)._upgrade)
        mine = json.loads(json.dumps(self.get_params()))
        for key, value in mine.items():
            theirs = config["arguments"].get(key, self._defaults()[key])
            if key not in ("device", "checkpoint_seconds") and theirs != value:
                hint = "Resume with the arguments of the run, or choose another folder."
                raise ValueError(sentence(name, key, f"{theirs!r} as in {path}", repr(value), hint))
        ended = config["record"].get("stopped", "") not in STOPPED_FROM_OUTSIDE
        if config["weights_sha256"] is None or not (ended or not any(path.rglob(f"{FOLDER}/*.safetensors"))):
            return False
        if config.get("fingerprint", fingerprint) != fingerprint:
            hint = "Resume with the same data, or choose another folder."
            raise ValueError(sentence(name, "data", f"those of the run in {path}", "others", hint))
        self._load(path, config)
        if is_first_process():
            remove_checkpoints(path)
        return True

    def _finish_folder(self, folder: str | os.PathLike[str] | None) -> None:
        """Save a trained model into its run folder, whose checkpoints are of no more use if the run is over."""
        if folder is not None and is_first_process():
            self.save(folder)
            if self.record_.get("stopped", "") not in STOPPED_FROM_OUTSIDE:
                remove_checkpoints(folder)

    # --- the folder ---

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``, ``model.safetensors`` and tables for readers; each one at once or not at all.

        Args:
            folder: made if missing; files of these names are replaced.

        Raises:
            ValueError: the model is not fitted.
            OSError: the folder cannot be written.
        """
        from safetensors.torch import save

        self._check_fitted()
        path = Path(folder)
        weights = save({name: t.detach().cpu().contiguous() for name, t in self.network_.state_dict().items()})
        with in_a_sentence(type(self).__name__, path):
            write_atomically(path / WEIGHTS, weights)
            if self.history_:
                write_atomically(path / METRICS, table(self.history_))
            for name, text in self._more_files().items():
                write_atomically(path / name, text)
            # Last: a folder with a configuration is a whole one.
            self._write_config(path, getattr(self, "_fingerprint", ""), hashlib.sha256(weights).hexdigest())

    def _announce(self, folder: Path, fingerprint: str) -> None:
        """The configuration of a training that is not finished, with its plan."""
        with in_a_sentence(type(self).__name__, folder):
            self._write_config(folder, fingerprint, None)

    def _write_config(self, folder: Path, fingerprint: str, digest: str | None) -> None:
        config = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "arguments": self.get_params(),
            "fitted": self._fitted(),
            "weights_sha256": digest,
            "versions": versions(),
            "fingerprint": fingerprint,
            "record": {**self.record_, **self._more_record(), "history": self.history_ if digest else []},
        }
        text = json.dumps(finite(config), indent=2, ensure_ascii=True, allow_nan=False)
        write_atomically(folder / CONFIG, text + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Self:
        """Read a saved model. Nothing in the folder is run; what is read from it is checked.

        ``config.json`` and ``model.safetensors`` are read; the other files are for readers.

        Args:
            folder: written by `save`.
            device: where to put the model, whatever it was trained on.

        Raises:
            FileNotFoundError: no folder, or a file is missing in it.
            ValueError: a file is damaged, foreign, or written by a newer version, or the training is not finished.
        """
        path, name = Path(folder), cls.__name__
        config = read_config(path, name, cls.kind, cls._upgrade)
        unknown = sorted(set(config["arguments"]) - set(cls._defaults()))
        if unknown:
            what = f"it has an argument {unknown[0]!r} that {name} does not have"
            raise ValueError(damaged(name, path, CONFIG, what))
        given = {**config["arguments"], "device": device} if "device" in cls._defaults() else config["arguments"]
        model = cls(**given)
        model._device()
        model._load(path, config)
        return model

    def _load(self, folder: Path, config: dict[str, Any]) -> None:
        """Take a configuration and the weights beside it."""
        name = type(self).__name__
        if config["weights_sha256"] is None:
            text = f"{name}: {folder} holds a training that is not finished. Go on with resume=True (recurra train --resume)."
            raise ValueError(text)
        data = read_bytes(folder, WEIGHTS, name)
        if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
            raise ValueError(damaged(name, folder, WEIGHTS, "its checksum is not the one in config.json"))
        tensors = read_tensors(folder, WEIGHTS, data, name)
        largest = max((n for t in tensors.values() for n in t.shape), default=0)
        asked = [getattr(self, size, 0) for size in MORE_SIZES]
        for part in (config["fitted"].get("choices"), config["fitted"].get("encoder")):
            asked += [part.get(size, 0) for size in MORE_SIZES] if isinstance(part, dict) else []
        record = config["record"]
        for key, kind in (("plan", dict), ("history", list), ("samples", list)):
            rows = record.get(key, kind())
            if not isinstance(rows, kind) or (kind is list and not all(isinstance(row, dict) for row in rows)):
                raise ValueError(damaged(name, folder, CONFIG, f"the {key} in its record is no {kind.__name__}"))
        try:
            self._check_arguments()
            if max((n for n in asked if isinstance(n, int)), default=0) > max(largest, 8):
                raise ValueError("they speak of a larger model than the weights")  # before memory is asked for
            self._restore(config["fitted"])
        except DAMAGE as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error).split("\n")[0][:200]
            raise ValueError(damaged(name, folder, CONFIG, f"its arguments build no model ({what})")) from None
        _check_weights(folder, tensors, self.network_, name)
        self.network_.load_state_dict(tensors)
        self.network_.eval()
        self.record_ = dict(config["record"])
        self.plan_ = dict(self.record_.get("plan", {}))
        self.history_ = list(self.record_.pop("history", []))
        self._fingerprint = config.get("fingerprint", "")


def finite(value: Any) -> Any:
    """JSON has no NaN: a measure that is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def in_a_sentence(where: str, folder: Path) -> Iterator[None]:
    """An error of writing becomes one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{where}: the folder {folder} cannot be written: {reason}. Nothing in it was half written."
        raise type(error)(text) from None


def load_estimator(folder: str | os.PathLike[str], device: str = "auto", *, where: str = "load_estimator") -> Estimator:
    """Read a saved model of any kind; see `Estimator.load`.

    Args:
        folder: of the model.
        device: where it is to run.
        where: who asks, for messages.

    Raises:
        FileNotFoundError: no folder, or a file is missing in it.
        ValueError: a file is damaged or foreign, or its kind is not known.
    """
    kind = read_kind(folder, where)
    kinds = estimator_kinds()
    if kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise ValueError(damaged(where, Path(folder), CONFIG, f"its kind is {kind!r}, none of {known}"))
    return kinds[kind].load(folder, device)


def read_kind(folder: str | os.PathLike[str], where: str = "load_estimator") -> str:
    """Which kind of estimator a folder holds."""
    return str(read_config(Path(folder), where)["kind"])


def estimator_kinds() -> dict[str, type[Estimator]]:
    """The estimators of this package that can be saved, by their kind."""
    package = importlib.import_module(__package__)
    found: dict[str, type[Estimator]] = {}
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for item in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(item) and issubclass(item, Estimator) and item.kind and "kind" in vars(item):
                found[item.kind] = item
    return found


def remove_run(folder: str | os.PathLike[str]) -> None:
    """Remove what a run has written into a folder, so that a new one may take its place; other files stay."""
    path = Path(folder)
    remove_checkpoints(path)
    for name in (CONFIG, WEIGHTS, METRICS):
        (path / name).unlink(missing_ok=True)
    if (path / EVENTS).is_dir():
        for file in (path / EVENTS).glob("events.out.tfevents.*"):
            file.unlink(missing_ok=True)


# --- reading and checking --------------------------------------------------------------------------------------------


def read_bytes(folder: Path, name: str, where: str) -> bytes:
    """The content of a file in the folder of a model.

    Raises:
        FileNotFoundError: no folder, or no such file in it.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(sentence(where, str(folder), "the folder of a saved model", f"{got} there"))
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        want = f"the folder of a saved model with {CONFIG} and {WEIGHTS}"
        raise FileNotFoundError(sentence(where, str(folder), want, f"one without {name}")) from None


def damaged(where: str, folder: Path, name: str, what: str) -> str:
    """The sentence about a file that is not what it should be."""
    return f"{where}: {folder / name} is damaged or foreign: {what}."


def read_config(
    folder: Path,
    where: str,
    kind: str | None = None,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Read ``config.json``, in today's format, and check its form.

    Args:
        folder: of a run.
        where: who asks, for messages.
        kind: which it must be; None takes any.
        upgrade: from older formats.
    """
    data = read_bytes(folder, CONFIG, where)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(damaged(where, folder, CONFIG, "it is no JSON")) from None
    if not isinstance(config, dict) or "format_version" not in config or "kind" not in config:
        raise ValueError(damaged(where, folder, CONFIG, "it has no format_version and kind"))
    if kind is not None and config["kind"] != kind:
        raise ValueError(damaged(where, folder, CONFIG, f"its kind is {config['kind']!r}, not {kind!r}"))
    version = config["format_version"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        what = f"its format_version is {version!r}, and this recurra reads up to {FORMAT_VERSION}; update recurra"
        raise ValueError(damaged(where, folder, CONFIG, what))
    if upgrade is None:
        return config
    config = upgrade(config)
    kinds = {"arguments": dict, "fitted": dict, "weights_sha256": (str, type(None)), "versions": dict, "record": dict}
    for key, types in kinds.items():
        if key not in config or not isinstance(config[key], types):  # type: ignore[arg-type]
            name = types.__name__ if isinstance(types, type) else "text"
            raise ValueError(damaged(where, folder, CONFIG, f"its {key} is missing or no {name}"))
    return config


def read_tensors(folder: Path, name: str, data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a file ``name`` whose content was read.

    Raises:
        ValueError: it is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(damaged(where, folder, name, f"it is no safetensors file ({error})")) from None


def _check_weights(folder: Path, tensors: dict[str, Tensor], network: nn.Module, where: str) -> None:
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wanted != found:
        name = next(n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n))
        what = f"{name} has shape {found.get(name)} where the model of config.json has {wanted.get(name)}"
        raise ValueError(damaged(where, folder, WEIGHTS, what))
    if not all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point()):
        raise ValueError(damaged(where, folder, WEIGHTS, "it has weights that are not finite"))


def versions() -> dict[str, str]:
    """What a saved model was made with."""
    from .. import __version__

    return {"recurra": __version__, "torch": torch.__version__, "python": platform.python_version()}


__all__ = ["CONFIG", "FOLDER", "WEIGHTS", "Estimator", "load_estimator", "read_kind", "remove_run"]
