"""Experiments: published claims as runnable code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self


class Log:
    """What an experiment tells while it runs. This one listens to nothing; whoever wants to know overrides the methods."""

    def __call__(self, what: str, fraction: float) -> None:
        """What is being done, and the fraction of the whole that is done."""

    def figure(self, name: str, draw: Callable[[Any], None]) -> None:
        """A picture: ``draw`` fills a ``matplotlib.figure.Figure``, which becomes ``NAME.png`` if anybody wants it."""


@dataclass(frozen=True)
class Claim:
    """One number that an experiment must show.

    Args:
        metric: key in the dictionary that `Experiment.run` returns.
        bar: the value that ours must reach.
        better: "lower" passes with ours <= bar, "higher" with ours >= bar.
        published: the paper's number, as text; "" where it gives none.
        where: the place in the paper.
        sure: "read" (in the paper or a copy), "from memory", "theorem" or "own bar".
        control: True for a negative control: a run that must fail as the paper says. It is met like any other claim, so
            its bar and direction describe the failure.
    """

    metric: str
    bar: float
    better: Literal["lower", "higher"]
    published: str = ""
    where: str = ""
    sure: Literal["read", "from memory", "theorem", "own bar"] = "own bar"
    control: bool = False

    def met(self, value: float) -> bool:
        """True when ``value`` reaches the bar (never for a NaN)."""
        return value <= self.bar if self.better == "lower" else value >= self.bar


class Experiment(ABC):
    """A frozen dataclass whose fields are the paper's settings.

    ``id`` is the row's name; `smoke` is a setting that ends in seconds, needs no file, and still returns every claimed
    metric. ``requires`` names the folders of files, below the one that the environment variable RECURRA_DATA names, that the
    full setting reads.
    """

    id: ClassVar[str]
    source: ClassVar[str]
    claims: ClassVar[tuple[Claim, ...]]
    requires: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(self, log: Log) -> Mapping[str, float]:
        """Run it: every claimed metric, and any other number worth a look."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting small enough for every test run."""
