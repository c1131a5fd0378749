"""What ``import recurra`` costs beyond ``import torch``, and what the first use of a cell costs beyond that."""

from __future__ import annotations

import statistics
import subprocess
import sys

from .section import Section

TARGET_S = 0.3

SCRIPT = """
import sys, time
start = time.perf_counter()
import torch
after_torch = time.perf_counter()
import recurra
after_import = time.perf_counter()
recurra.Recurrent(recurra.LSTMCell(3, 5))
after_use = time.perf_counter()
recurra.LanguageModel
after_estimator = time.perf_counter()
print(after_torch - start, after_import - after_torch, after_use - after_import, after_estimator - after_use)
"""


def sample() -> list[float]:
    """Seconds of the four parts in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return [float(part) for part in done.stdout.split()]


def run(quick: bool = False) -> Section:
    """Medians over fresh interpreters; the first is thrown away, since it warms the disk's cache."""
    sample()
    runs = [sample() for _ in range(2 if quick else 11)]
    names = (
        "import torch",
        "import recurra",
        "first Recurrent(LSTMCell(3, 5))",
        "first recurra.LanguageModel",
    )
    rows = []
    for name, values in zip(names, zip(*runs), strict=True):
        target = f"<= {TARGET_S} s" if name == "import recurra" else ""
        rows.append((name, f"{statistics.median(values):.4f}", f"{min(values):.4f}", f"{max(values):.4f}", target))
    note = (
        f"Seconds, each line beyond the line above it, {len(runs)} fresh interpreters. `import recurra` imports no member: the "
        "first use of a name imports the catalog's packages, and that is the third line."
    )
    return Section("Import", ("what", "median", "lowest", "highest", "target"), rows, (note,))
