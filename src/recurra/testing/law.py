"""What a law is, and what may come of asking for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from ..core.cell import Cell

Status = Literal["holds", "broken", "not applicable", "exempt"]
STATUSES: tuple[Status, ...] = ("holds", "not applicable", "exempt", "broken")


class LawBroken(AssertionError):
    """A law does not hold: one sentence with the law, the member and what was seen.

    Args:
        law: the law's name.
        subject: the member, in words.
        seen: what was seen.
    """

    def __init__(self, law: str, subject: str, seen: str) -> None:
        super().__init__(f"{law}: {subject}: {seen}")
        self.law, self.subject, self.seen = law, subject, seen


class Seen(Exception):
    """Raised inside a law: what was seen that must not be."""


def broken(seen: str) -> NoReturn:
    """End a law: it does not hold."""
    raise Seen(seen)


@dataclass(frozen=True)
class Setting:
    """The sizes that a law is asked at.

    Args:
        num_steps: T.
        batch_size: B.
        dtype: the floating type of the cell; laws about derivatives always take float64.
        seed: source of every random number of the law.
        noisy: the cell is in training mode and a `StochasticCell` gets its noise; else evaluation, and quiet.
        device: where it runs.
    """

    num_steps: int = 5
    batch_size: int = 3
    dtype: torch.dtype = torch.float64
    seed: int = 0
    noisy: bool = True
    device: str = "cpu"

    def __str__(self) -> str:
        noise = "" if self.noisy else ", quiet"
        device = "" if self.device == "cpu" else f", {self.device}"
        kind = str(self.dtype).removeprefix("torch.")
        return f"T={self.num_steps}, B={self.batch_size}, {kind}, seed={self.seed}{noise}{device}"


@dataclass(frozen=True)
class Outcome:
    """What came of one law for one subject.

    Args:
        law: the law's name.
        subject: the member (and the cell it met), in words.
        status: "holds", "broken", "not applicable" or "exempt".
        reason: what was seen, or why the law was not asked; "" where it holds.
    """

    law: str
    subject: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Law:
    """A property that every member of a family has.

    Args:
        name: short, in snake case.
        text: the property in one sentence.
        check: takes the subjects and a `Setting`; returns None where the law holds and a reason where it does not
            apply, raises `Seen` where it is broken.
    """

    name: str
    text: str
    check: Callable[..., str | None]

    def judge(self, *subjects: Any, setting: Setting) -> Outcome:
        """Ask for the law; never raises for a broken one."""
        try:
            return self.enforce(*subjects, setting=setting)
        except LawBroken as found:
            return Outcome(self.name, found.subject, "broken", found.seen)

    def enforce(self, *subjects: Any, setting: Setting) -> Outcome:
        """Ask for the law.

        Raises:
            LawBroken: it does not hold, or a subject raised an error of its own.
        """
        who = " with ".join(describe(s) for s in subjects)
        reason = exemptions(*subjects).get(self.name)
        if reason is not None:
            return Outcome(self.name, who, "exempt", reason)
        devices = [torch.device(setting.device)] if setting.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices), _own_type(subjects):
            torch.manual_seed(setting.seed)
            try:
                idle = self.check(*subjects, setting)
            except Seen as found:
                raise LawBroken(self.name, who, f"{found} ({setting})") from None
            except Exception as error:
                text = " ".join(str(error).split())
                text = text if len(text) < 300 else text[:300] + " ..."
                raise LawBroken(self.name, who, f"raised {type(error).__name__}: {text} ({setting})") from error
        return Outcome(self.name, who, "holds") if idle is None else Outcome(self.name, who, "not applicable", idle)


@contextlib.contextmanager
def _own_type(subjects: tuple[Any, ...]) -> Iterator[None]:
    """A cell without floating numbers of its own takes torch's default type: float64 while a law is asked."""
    before = torch.get_default_dtype()
    if any(isinstance(s, Cell) and s.own_dtype is None for s in subjects):
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def law(text: str) -> Callable[[Callable[..., str | None]], Law]:
    """Make a function a `Law` of its own name; a trailing underscore is dropped."""

    def make(check: Callable[..., str | None]) -> Law:
        return Law(check.__name__.rstrip("_"), text, check)

    return make


def describe(subject: Any) -> str:
    """A member in one line."""
    if isinstance(subject, Cell):
        return f"{type(subject).__name__}({subject.extra_repr()})"
    return str(subject)


def exemptions(*subjects: Any) -> Mapping[str, str]:
    """Law name -> reason for the laws that a subject (or a cell inside it) says it cannot obey."""
    found: dict[str, str] = {}
    for subject in subjects:
        owners = [m for m in subject.modules() if isinstance(m, Cell)] if isinstance(subject, nn.Module) else [subject]
        for owner in owners:
            found.update(owner.exempt)
    return found
