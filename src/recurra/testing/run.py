"""All laws, over the whole catalog or over one cell of a user, with the counts."""

from __future__ import annotations

import collections
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch

from ..core.cell import Cell
from .families import laws
from .law import STATUSES, Outcome, Setting, Status
from .settings import drawn_setting, full_settings, instances

Progress = Callable[[str, float], None]  # what is being asked, and the fraction done
Row = tuple[str, str, str, Outcome]  # family, member, the cell it met or "", what came of it
Item = tuple[str, str, str, tuple[Any, ...]]  # family, member, cell, subjects
PIECE = 16  # questions that a process takes at a time


@dataclass(frozen=True)
class Report:
    """What came of many laws.

    Args:
        outcomes: (family, the member's name, the cell it met or "", outcome).
    """

    outcomes: tuple[Row, ...]

    @property
    def broken(self) -> list[str]:
        """One sentence for every law that does not hold."""
        return [f"{o.law}: {o.subject}: {o.reason}" for _, _, _, o in self.outcomes if o.status == "broken"]

    def counts(self) -> list[tuple[str, int, int, dict[Status, int]]]:
        """Rows of the table: which laws on what, number of laws, of members, and outcomes by status."""
        rows = []
        groups: dict[tuple[str, str], list[tuple[str, Outcome]]] = {}
        for family, name, cell, item in self.outcomes:
            kind = (family, name) if cell else (family, "")
            groups.setdefault(kind, []).append((cell or name, item))
        for (family, name), items in groups.items():
            count = collections.Counter(item.status for _, item in items)
            label = f"{family}: {name} x cells" if name else f"{family}"
            by_status = {status: count[status] for status in STATUSES}
            rows.append((label, len({i.law for _, i in items}), len({who for who, _ in items}), by_status))
        return rows

    def __str__(self) -> str:
        return table(self.counts(), len(self.outcomes))


def table(rows: Sequence[tuple[str, int, int, dict[Status, int]]], total: int) -> str:
    """The counts as text."""
    head = ["", "laws", "cells", *STATUSES]
    body = [[name, str(num_laws), str(num), *[str(c) for c in counts.values()]] for name, num_laws, num, counts in rows]
    sums = {status: sum(counts[status] for _, _, _, counts in rows) for status in STATUSES}
    body.append([f"all ({total} asked)", "", "", *[str(n) for n in sums.values()]])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:-1], "-" * len(lines[0]), lines[-1]])


def run_all(full: bool = False, progress: Progress | None = None, device: str = "cpu", jobs: int = 1) -> Report:
    """All laws x all cells (each example) x all engines and rules; all memories and dynamics.

    Args:
        full: every T, B and type of the matrix; else one drawn setting per cell and law, engine or rule.
        progress: told what is being asked and the fraction done.
        device: where to run.
        jobs: processes at a time; each has its share of the threads. The outcome is the same.
    """
    work = _all_work()
    found: list[Row] = []
    if jobs > 1:
        found = _spread(len(work), full, progress, device, jobs)
    else:
        for number, item in enumerate(work):
            if progress is not None:
                progress(f"{item[1]} {item[2]}".strip(), number / len(work))
            found += _ask(item, full, device)
    if progress is not None:
        progress("", 1.0)
    return Report(tuple(found))


def _ask(item: Item, full: bool, device: str) -> list[Row]:
    """Every law of one question."""
    family, name, cell, subjects = item
    return [
        (family, name, cell, law.judge(*subjects, setting=setting))
        for law in laws(family)
        for setting in _settings(full, family, name, cell or law.name, device)
    ]


def _spread(count: int, full: bool, progress: Progress | None, device: str, jobs: int) -> list[Row]:
    """In several processes, each of which makes its own members."""
    threads = max(1, torch.get_num_threads() // jobs)
    pieces = [range(start, min(start + PIECE, count)) for start in range(0, count, PIECE)]
    done: dict[int, list[Row]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
        waiting = {pool.submit(_ask_piece, piece, full, device): number for number, piece in enumerate(pieces)}
        try:
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
                if progress is not None:
                    _, name, cell, _ = done[waiting[future]][-1]
                    progress(f"{name} {cell}".strip(), len(done) / len(pieces))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [row for number in sorted(done) for row in done[number]]


def _ask_piece(piece: range, full: bool, device: str) -> list[Row]:
    work = _all_work()
    return [row for number in piece for row in _ask(work[number], full, device)]


@functools.lru_cache(maxsize=1)
def _cached_work() -> list[Item]:
    return list(_work(list(instances("cells"))))


def _all_work() -> list[Item]:
    return _cached_work() if multiprocessing.parent_process() else list(_work(list(instances("cells"))))


def _work(cells: list[tuple[str, Cell]]) -> Iterator[Item]:
    """Every question without its law: family, member, cell, subjects."""
    for name, cell in cells:
        yield "cells", name, "", (cell,)
    for family in ("engines", "rules"):
        for name, member in instances(family):
            for cell_name, cell in cells:
                yield family, name, cell_name, (member, cell)
    for family in ("memories", "dynamics"):
        for name, member in instances(family):
            yield family, name, "", (member,)


def _settings(full: bool, family: str, name: str, other: str, device: str) -> Iterator[Setting]:
    if not full:
        yield drawn_setting(name, other, device=device)
        return
    for setting in full_settings(device):
        if family in ("cells", "engines") or setting.num_steps:
            yield setting
