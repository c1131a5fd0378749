"""At which sizes laws are asked, and of whom."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import torch

from ..core.catalog import members
from ..core.cell import Cell
from ..core.memory import AssociativeMemory
from ..core.spins import SpinDynamics
from .law import Setting

STEPS = (0, 1, 2, 33)
ROWS = (1, 3, 9)
DTYPES = (torch.float64, torch.float32)


def drawn_setting(*names: str, device: str = "cpu") -> Setting:
    """One setting, drawn by what it is for: the same names get the same setting in every run.

    Example:
        >>> drawn_setting("LSTMCell", "Loop") == drawn_setting("LSTMCell", "Loop")
        True
    """
    number = zlib.crc32(" ".join(names).encode())
    steps, batch = (1, 2, 5, 33)[number % 4], ROWS[number // 4 % len(ROWS)]
    kind, noisy = DTYPES[number // 8 % 4 == 0], number // 32 % 4 != 0
    return Setting(steps, batch, kind, seed=number % 1009, noisy=noisy, device=device)


def full_settings(device: str = "cpu") -> Iterator[Setting]:
    """Every T, B and type of the full matrix."""
    for number, (dtype, steps, batch) in enumerate(itertools.product(DTYPES, STEPS, ROWS)):
        yield Setting(steps, batch, dtype, seed=number, noisy=number % 3 != 0, device=device)


def instances(family: str) -> Iterator[tuple[str, Any]]:
    """A readable name and an instance for every example of every member; engines and rules have their defaults.

    Args:
        family: "cells", "engines", "rules", "memories" or "dynamics".

    Example:
        >>> dict(instances("engines"))["Loop"]
        Loop()
    """
    for name, kind in members(family).items():
        if not issubclass(kind, Cell | AssociativeMemory | SpinDynamics):
            yield name, kind()
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(name.encode()))
            examples = list(kind.examples())
        for index, example in enumerate(examples):
            yield f"{name}-{index}", example
