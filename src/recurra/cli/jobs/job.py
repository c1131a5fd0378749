"""One kind of file and the estimator for it."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ...core.checks import sentence
from ...training.files import write_atomically
from ..folder import COMMAND

if TYPE_CHECKING:
    from ...estimators.estimator import Estimator


@dataclass(frozen=True)
class Roles:
    """What the user said about a file; None and () mean that it is found out.

    Args:
        target: the column to predict.
        time: the column of timestamps.
        series: the column that says which series a row belongs to.
        text: the column of texts.
        known: columns that are known ahead.
        past: columns that are known for the past only.
        horizon: steps to forecast.
    """

    target: str | None = None
    time: str | None = None
    series: str | None = None
    text: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    horizon: int | None = None

    def merged(self, other: Roles) -> Roles:
        """These, and the other's where nothing was said."""
        mine, theirs = asdict(self), asdict(other)
        return Roles(**{name: mine[name] if mine[name] else theirs[name] for name in mine})


class Job(ABC):
    """A file that was read, and what can be done with it.

    Args:
        file: the user's.
        roles: what was said about it.
        fraction: the part that is held out for the evaluation; None for the usual one.
        model: a trained one, for which the file is read.
        needs_labels: False where the model shall give them.
    """

    kind: ClassVar[str]
    name: ClassVar[str]  # for --as
    files: ClassVar[tuple[str, ...]]  # the kinds of files that are read so unless the user says otherwise
    what: ClassVar[str]  # in words: "This will be ..."
    uses: ClassVar[tuple[str, ...]]  # which of the roles say something about its files
    holds_out: ClassVar[bool] = True  # a fraction that the user may choose

    def __init__(
        self,
        file: Path,
        roles: Roles,
        fraction: float | None = None,
        *,
        model: Any = None,
        needs_labels: bool = True,
    ) -> None:
        self.file, self.roles, self.fraction = file, roles, fraction
        self.model, self.needs_labels = model, needs_labels
        self._check_said()
        self.facts: list[tuple[str, str]] = []
        self.read()

    @property
    @abstractmethod
    def estimator(self) -> type[Estimator]:
        """The class of the model."""

    @abstractmethod
    def read(self) -> None:
        """Read the file; sets ``facts``."""

    def _check_said(self) -> None:
        """Raise for what was said about a file of another kind."""
        if self.fraction is not None and self.model is None and not self.holds_out:
            raise ValueError(sentence("recurra", "--validation-fraction", f"left out for {self.what}", self.fraction))
        for name, value in asdict(self.roles).items():
            if value and name not in self.uses:
                raise ValueError(sentence("recurra", f"--{name}", f"left out for {self.what}", repr(value)))

    @property
    def streaming(self) -> dict[str, Any]:
        """Arguments of the estimator for a model that answers after every step.

        Raises:
            ValueError: there is no choice.
        """
        raise ValueError(sentence("recurra", "--streaming", f"left out for {self.what}", "a text or a table"))

    def defaults(self) -> dict[str, Any]:
        """Arguments of the estimator where the user gave none."""
        return {}

    @abstractmethod
    def fit(self, model: Any, folder: Path, resume: bool, on_progress: Callable[[Any], bool | None]) -> None:
        """Train on all but the held-out part."""

    @abstractmethod
    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """What the page says, as values for JSON."""

    @abstractmethod
    def result(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """The most important of it, for the screen."""

    @abstractmethod
    def evaluate(self, model: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Measure the model on the whole file: values, and the same in words."""

    @abstractmethod
    def next_command(self, folder: Path) -> str:
        """What to try next."""

    @abstractmethod
    def real_inputs(self, *, whole: bool) -> tuple[Any, str]:
        """Inputs to measure a model on, and what they are in words; None where there are none.

        Args:
            whole: of the whole file; else what is held out.
        """

    def shared(self, model: Any, folder: Path) -> dict[str, Any]:
        """What every page needs."""
        return {
            "file": self.file.name,
            "folder": str(folder),
            "facts": [list(row) for row in self.facts],
            "num_parameters": sum(p.numel() for p in model.network_.parameters()),
            "model_bytes": sum(p.numel() * p.element_size() for p in model.network_.parameters()),
        }

    def remember(self, folder: Path) -> None:
        """Write down how the file was read."""
        command = {"file": str(self.file), "as": self.name, "roles": asdict(self.roles), "fraction": self.fraction}
        write_atomically(folder / COMMAND, json.dumps(command, indent=1) + "\n")


class Remembered(NamedTuple):
    """How the file of a run was read.

    Args:
        name: the job's.
        roles: of its columns.
        fraction: that was held out.
    """

    name: str | None = None
    roles: Roles = Roles()
    fraction: float | None = None


def remembered(folder: Path) -> Remembered:
    """How the file of a run was read; nothing where that is not known."""
    try:
        found = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
        roles = {**found["roles"], "known": tuple(found["roles"]["known"]), "past": tuple(found["roles"]["past"])}
        return Remembered(found.get("as"), Roles(**roles), found["fraction"])
    except (OSError, ValueError, KeyError, TypeError):
        return Remembered()


def file_of(folder: Path) -> Path | None:
    """The file that a run was trained on, as far as is known."""
    try:
        return Path(json.loads((folder / COMMAND).read_text(encoding="utf-8"))["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def jobs() -> list[type[Job]]:
    """All kinds."""
    found: list[type[Job]] = []
    package = importlib.import_module(__package__)
    for info in pkgutil.iter_modules(package.__path__):
        for item in vars(importlib.import_module(f"{__package__}.{info.name}")).values():
            if inspect.isclass(item) and issubclass(item, Job) and "kind" in vars(item) and item not in found:
                found.append(item)
    return found


def job_of_file(file: Path, roles: Roles, fraction: float | None, wanted: str | None = None) -> tuple[Job, str]:
    """The job for a file, and why it is that.

    Args:
        file: the user's.
        roles: what was said about it.
        fraction: to hold out.
        wanted: the name of a job that the user asked for.

    Raises:
        ValueError: no such job, or a file that is none of its.
    """
    names = {job.name: job for job in jobs()}
    if wanted is not None:
        if wanted not in names:
            raise ValueError(sentence("recurra", "--as", f"one of {', '.join(sorted(names))}", repr(wanted)))
        return names[wanted](file, roles, fraction), "as you said"
    from ...datasets.sniff import kind_of_file

    found = kind_of_file(file, target=roles.target)
    job = next(job for job in names.values() if found.kind in job.files)
    return job(file, roles, fraction), found.why


def job_of_run(folder: Path, file: Path, roles: Roles, *, needs_labels: bool = True) -> tuple[Job, Any]:
    """A file for a saved model, read as the model's own was, and the model.

    Args:
        folder: of the model.
        file: the user's.
        roles: what was said about it; the rest is as in training.
        needs_labels: False where the model shall give them.

    Raises:
        FileNotFoundError: no model there, or no file.
        ValueError: the file cannot be read so.
    """
    from ...estimators.estimator import load_estimator

    model = load_estimator(folder, where="recurra")
    job = next((job for job in jobs() if job.kind == model.kind), None)
    if job is None:
        got = f"one of recurra learn ({type(model).__name__})"
        hint = f"It answers while it learns: recurra learn STREAM --out {folder} --resume."
        raise ValueError(sentence("recurra", str(folder), "a model of recurra train", got, hint))
    return job(file, roles.merged(remembered(folder).roles), 0.0, model=model, needs_labels=needs_labels), model
