"""What a benchmark hands back, and the page that the sections make together."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HEAD = """# Benchmarks

Written by `python -m benchmarks [NAME ...]`. Each section carries its own date and machine; what is not run again keeps its
last text.
"""


@dataclass(frozen=True)
class Section:
    """One table with what must be known to read it.

    Args:
        title: heading.
        columns: names of the columns.
        rows: cells as text, one tuple per row.
        notes: paragraphs below the table: sizes, how it was measured, what falls short.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Section: a row must be {len(self.columns)} cells, got {len(row)}. {row}")

    def text(self, stamp: str) -> str:
        """The section as markdown; ``stamp`` says when and where it was measured."""
        lines = [f"## {self.title}", "", stamp, ""]
        lines += [_row(self.columns), _row(["---"] * len(self.columns)), *[_row(row) for row in self.rows]]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    """When and where: date, processor, cores, memory, versions."""
    import torch

    import recurra

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = found[1] if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, recurra {recurra.__version__}"
    return f"{today}, {model}, {cores} cores{memory}, {platform.system()}, {versions}."


def read(page: str) -> dict[str, str]:
    """Name -> text of the sections of a page."""
    pattern = re.compile(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", re.DOTALL)
    return {found[1]: found[2] for found in pattern.finditer(page)}


def page_of(sections: Mapping[str, str]) -> str:
    """The page, sections sorted by name."""
    parts = [f"<!-- begin {name} -->\n{text}<!-- end {name} -->\n" for name, text in sorted(sections.items())]
    return "\n".join([HEAD, *parts])


def update(path: Path, new: Mapping[str, str], known: Sequence[str]) -> None:
    """Write the page with the ``new`` sections in it, the others as they were; sections of no ``known`` name go.

    The file is written beside and renamed into place.
    """
    old = read(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = {name: text for name, text in old.items() if name in known}
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(page_of({**kept, **new}), encoding="utf-8")
    beside.replace(path)
