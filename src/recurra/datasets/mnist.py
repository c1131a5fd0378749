"""MNIST: handwritten digits, from the four gzip files under their usual names."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import sentence


class Digits(NamedTuple):
    """Pictures (N, 28, 28) in [0, 1] and labels (N,) int64, for training and for the test."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def read_mnist(folder: Path) -> Digits:
    """The four files of a folder.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: one of them is damaged.

    Source:
        LeCun, Cortes & Burges, "The MNIST database of handwritten digits".
    """
    parts = []
    for split in ("train", "t10k"):
        images = read_idx(folder / f"{split}-images-idx3-ubyte.gz", 3)
        labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels):
            where = f"{folder.name}: {split}"
            raise ValueError(
                sentence("read_mnist", where, "as many labels as pictures", f"{len(labels)} and {len(images)}")
            )
        parts += [images.float() / 255, labels.long()]
    return Digits(*parts)


def read_idx(path: Path, num_dims: int) -> Tensor:
    """A gzip idx file of bytes as a uint8 tensor.

    Args:
        path: the file.
        num_dims: dimensions that it must have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no idx file of bytes, or shorter or longer than its head says.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise ValueError(sentence("read_idx", path.name, "a whole gzip file", str(problem))) from None
    head = 4 + 4 * num_dims
    if len(data) < head or data[:4] != bytes((0, 0, 8, num_dims)):
        raise ValueError(
            sentence("read_idx", path.name, f"an idx file of bytes with {num_dims} dimensions", "another head")
        )
    shape = struct.unpack(f">{num_dims}I", data[4:head])
    if len(data) - head != math.prod(shape):
        raise ValueError(sentence("read_idx", path.name, f"{math.prod(shape)} bytes after its head", len(data) - head))
    return (
        torch.frombuffer(bytearray(data[head:]), dtype=torch.uint8).reshape(shape)
        if math.prod(shape)
        else torch.zeros(shape, dtype=torch.uint8)
    )
