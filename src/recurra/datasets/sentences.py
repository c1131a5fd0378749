"""Sentences of two kinds from two text files: movie reviews and their like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import sentence


class LabelledSentences(NamedTuple):
    """words: of every sentence; labels: (N,) int64."""

    words: list[list[str]]
    labels: Tensor


def read_polarity(folder: Path, name: str = "rt-polarity") -> LabelledSentences:
    """``NAME.neg`` (label 0) and ``NAME.pos`` (label 1), one sentence a line, latin-1.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one of them is empty.

    Source:
        Pang & Lee 2005, "Seeing stars", ACL (rt-polarity).
    """
    words: list[list[str]] = []
    labels: list[int] = []
    for label, ending in enumerate(("neg", "pos")):
        text = (folder / f"{name}.{ending}").read_text(encoding="latin-1")
        lines = text.split("\n")  # splitlines would also cut at latin-1's 0x85
        found = [re.findall(r"[a-z0-9']+|[.,!?;:]", line.lower()) for line in lines]
        found = [line for line in found if line]
        if not found:
            raise ValueError(sentence("read_polarity", f"{name}.{ending}", "at least one sentence", "none"))
        words += found
        labels += [label] * len(found)
    return LabelledSentences(words, torch.tensor(labels))
