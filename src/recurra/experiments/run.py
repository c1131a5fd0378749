"""Run experiments, keep what came out, and write the page with the published numbers beside ours."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..core.catalog import find, members
from ..core.checks import sentence
from ..core.experiment import Claim, Experiment, Log
from ..datasets.folder import data_folder
from ..training.files import write_atomically

OnProgress = Callable[[str, str, float], None]
FORMAT_VERSION = 1


class Outcome(NamedTuple):
    """One run of one experiment.

    Args:
        experiment: what was run, with its settings.
        metrics: every number it returned.
        seconds: how long it took.
        smoke: True for the small setting, whose numbers are not held against the bars.
    """

    experiment: Experiment
    metrics: Mapping[str, float]
    seconds: float
    smoke: bool

    def met(self, claim: Claim) -> bool:
        """Does our number reach the bar?"""
        return claim.met(self.metrics[claim.metric])

    @property
    def all_met(self) -> bool:
        """Do all?"""
        return all(self.met(claim) for claim in self.experiment.claims)


class _FolderLog(Log):
    """Passes progress on and saves pictures beside the results."""

    def __init__(self, name: str, folder: Path | None, on_progress: OnProgress | None) -> None:
        self.name, self.folder, self.on_progress = name, folder, on_progress

    def __call__(self, what: str, fraction: float) -> None:
        if self.on_progress is not None:
            self.on_progress(self.name, what, fraction)

    def figure(self, name: str, draw: Callable[[Any], None]) -> None:
        if self.folder is None:
            return
        import io

        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
        write_atomically(self.folder / f"{self.name}-{name}.png", picture.getvalue())


def catalog() -> dict[str, type[Experiment]]:
    """Id -> class of every experiment."""
    return {cls.id: cls for cls in members("experiments").values()}  # type: ignore[attr-defined]


def without_files() -> dict[str, str]:
    """Id -> the sentence that says what is missing, of every experiment whose files are not there."""
    missing = {}
    for cls in catalog().values():
        try:
            for name in cls.requires:
                data_folder(name, cls.id)
        except FileNotFoundError as problem:
            missing[cls.id] = str(problem)
    return missing


def reproduce(
    ids: Sequence[str],
    *,
    smoke: bool = False,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
    on_done: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run experiments one after the other; each is saved as soon as it is done.

    Args:
        ids: as in `catalog`; case and the class's name instead of its id are free.
        smoke: run the small setting.
        out: folder for ``ID.json`` and pictures; None keeps nothing.
        on_progress: told the id, what is being done, and the fraction done.
        on_done: told every outcome.

    Returns:
        One outcome per id.

    Raises:
        ValueError: an unknown id, or an experiment that did not return a claimed metric.
        FileNotFoundError: an experiment's files are not there; then none runs.
    """
    chosen: list[type[Experiment]] = [find("experiments", name) for name in ids]  # all known before the first one runs
    for cls in chosen:
        for name in () if smoke else cls.requires:
            data_folder(name, cls.id)
    outcomes = []
    for cls in chosen:
        experiment = cls.smoke() if smoke else cls()
        start = time.perf_counter()
        metrics = {k: float(v) for k, v in experiment.run(_FolderLog(cls.id, out, on_progress)).items()}
        outcome = Outcome(experiment, metrics, time.perf_counter() - start, smoke)
        missing = sorted({claim.metric for claim in cls.claims} - set(metrics))
        if missing:
            raise ValueError(sentence(cls.id, "run", "returning every claimed metric", f"none called {missing[0]}"))
        if out is not None:
            write_atomically(out / f"{cls.id}.json", json.dumps(record(outcome), indent=2) + "\n")
        outcomes.append(outcome)
        if on_done is not None:
            on_done(outcome)
    return outcomes


def record(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain values, with when and where it was run."""
    experiment = outcome.experiment
    claims = [
        {**dataclasses.asdict(claim), "value": _plain(outcome.metrics[claim.metric]), "met": outcome.met(claim)}
        for claim in experiment.claims
    ]
    return {
        "format_version": FORMAT_VERSION,
        "id": experiment.id,
        "title": title(type(experiment)),
        "source": experiment.source,
        "smoke": outcome.smoke,
        "settings": dataclasses.asdict(experiment),  # type: ignore[call-overload]
        "claims": claims,
        "metrics": {name: _plain(value) for name, value in outcome.metrics.items()},
        "seconds": round(outcome.seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }


def _plain(value: float) -> float | str:
    """A number for JSON, which knows no NaN and no infinity."""
    return value if -float("inf") < value < float("inf") else str(value)


def title(cls: type[Experiment]) -> str:
    """First line of the class's docstring."""
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


def machine() -> str:
    """Processor and cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = found[1] if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Python, torch, recurra."""
    from .. import __version__

    return {"python": platform.python_version(), "torch": str(torch.__version__), "recurra": __version__}


HEAD = """# Results

Written by `recurra reproduce --all --out results --page RESULTS.md`. One section per experiment: the published number, the
bar that ours must reach, ours. A *control* is a run that must fail where theory says so; its bar describes the failure. "How
sure" says where the published number comes from.
"""


def page(folder: Path) -> str:
    """RESULTS.md from every full run in ``folder``."""
    parts = [HEAD]
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("kind") == "check":
            parts.append(_check_section(data))
        if data.get("smoke", True):
            continue
        parts.append(_section(data, folder))
    return "\n".join(parts)


def _check_section(data: Mapping[str, Any]) -> str:
    """What a long check counted."""
    number = data["versions"]
    lines = [
        f"## {data['id']}",
        "",
        f"{data['title']}: `{data['command']}`.",
        "",
        f"{data['date']}, {data['machine']}; Python {number['python']}, torch {number['torch']}, recurra {number['recurra']}; "
        f"{data['seconds']:.0f} s.",
        "",
        "| what | count |",
        "| --- | --- |",
        *(f"| {what} | {count} |" for what, count in data["lines"]),
    ]
    if data["problems"]:
        lines += ["", "Not in agreement: " + "; ".join(f"seed {seed}, {seen}" for seed, seen in data["problems"]) + "."]
    return "\n".join(lines) + "\n"


def _section(data: Mapping[str, Any], folder: Path) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in data["settings"].items())
    number = data["versions"]
    lines = [
        f"## {data['id']}",
        "",
        f"{data['title']} {data['source']}.",
        "",
        f"{data['date']}, {data['machine']}; Python {number['python']}, torch {number['torch']}, recurra {number['recurra']}; "
        f"{data['seconds']:.0f} s. Settings: {settings}.",
        "",
        "| what | published | where | how sure | bar | ours | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for claim in data["claims"]:
        sign = "<=" if claim["better"] == "lower" else ">="
        name = f"`{claim['metric']}`" + (" (control)" if claim["control"] else "")
        ours = claim["value"] if isinstance(claim["value"], str) else f"{claim['value']:.4g}"
        met = "yes" if claim["met"] else "**no**"
        row = (name, claim["published"], claim["where"], claim["sure"], f"{sign} {claim['bar']:g}", ours, met)
        lines.append("| " + " | ".join(row) + " |")
    claimed = {claim["metric"] for claim in data["claims"]}
    others = {name: value for name, value in data["metrics"].items() if name not in claimed}
    if others:
        shown = ", ".join(f"{n} {v if isinstance(v, str) else format(v, '.4g')}" for n, v in others.items())
        lines += ["", f"Also measured: {shown}."]
    for picture in sorted(folder.glob(f"{data['id']}-*.png")):
        lines += ["", f"![{picture.stem}]({folder.name}/{picture.name})"]
    return "\n".join(lines) + "\n"
