"""Polyphonic music as piano rolls: 88 keys that are down or not, one row a time step."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import sentence


class PianoRolls(NamedTuple):
    """Pieces (T, 88) of zeros and ones, T different for each."""

    train: list[Tensor]
    valid: list[Tensor]
    test: list[Tensor]


def read_piano_rolls(path: Path) -> PianoRolls:
    """A MATLAB file with the cell arrays ``traindata``, ``validdata``, ``testdata`` of T x 88 matrices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or damaged.

    Source:
        Boulanger-Lewandowski, Bengio & Vincent 2012, ICML, arXiv:1206.6392 (the four sets and their splits)
    """
    import scipy.io

    if not path.exists():
        raise FileNotFoundError(sentence("read_piano_rolls", "the file", "there", f"no {path}"))
    try:
        found = scipy.io.loadmat(path)
    except Exception as problem:  # SciPy raises whatever the bytes lead it to
        raise ValueError(
            sentence("read_piano_rolls", path.name, "a MATLAB file", f"{type(problem).__name__}")
        ) from None
    splits = []
    for name in ("traindata", "validdata", "testdata"):
        if name not in found:
            raise ValueError(sentence("read_piano_rolls", path.name, f"a file with {name}", "none"))
        pieces = [torch.as_tensor(piece.astype("float32")) for piece in found[name].ravel()]
        for piece in pieces:
            if piece.ndim != 2 or piece.shape[1] != 88 or not ((piece == 0) | (piece == 1)).all():
                what = f"{name} in {path.name}"
                raise ValueError(sentence("read_piano_rolls", what, "matrices T x 88 of 0 and 1", tuple(piece.shape)))
        splits.append(pieces)
    return PianoRolls(*splits)
