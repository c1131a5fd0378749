"""Weights in eight bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..native.graph import FLOAT, Node
from ..native.lower import Program
from ..native.plan import weight_place

LEAST = 2  # numbers in a row: a single one would take more room with its scale than as it is


class Bytes(NamedTuple):
    """A matrix as ``scale * number``.

    Args:
        numbers: int8, from -127 to 127, of the matrix's shape.
        scale: (R, 1) for each row or (1, C) for each column.
    """

    numbers: Tensor
    scale: Tensor

    @property
    def value(self) -> Tensor:
        """The matrix that the numbers stand for."""
        flat = self.numbers.reshape(-1, self.numbers.shape[-1]).float()
        return (flat * self.scale).reshape(self.numbers.shape)

    @property
    def by_row(self) -> bool:
        """One scale for each row?"""
        return self.scale.shape[1] == 1


def in_bytes(matrix: Tensor, *, by_row: bool = True) -> Bytes:
    """The nearest numbers, with a scale such that the largest of a row (column) is 127.

    Args:
        matrix: (..., C); the dimensions before the last are its rows.
        by_row: one scale for each row, else for each column.
    """
    flat = matrix.reshape(-1, matrix.shape[-1]).float()
    scale = flat.abs().amax(1 if by_row else 0, keepdim=True) / 127.0
    numbers = (flat / torch.where(scale > 0, scale, 1.0)).round().clamp(-127, 127).to(torch.int8)
    return Bytes(numbers.reshape(matrix.shape), scale)


def imports_in_bytes(program: Program, imports: Sequence[Tensor]) -> dict[int, Bytes]:
    """Those matrices among a plan's imports that can be stored in bytes: products need one scale for each column of theirs.

    Args:
        program: that reads them.
        imports: of the plan.
    """
    axes: dict[int, set[str]] = {}
    for weight in program.weights:
        index, shape, offset, strides = weight_place(weight)
        places = torch.arange(imports[index].numel()).as_strided(shape, strides, offset)
        width = imports[index].shape[-1] if imports[index].ndim else 1
        rows, columns = places // width, places % width
        fits = {"row"} if bool((rows == rows[:1]).all()) else set()
        fits |= {"column"} if bool((columns == columns[:1]).all()) else set()
        axes[index] = axes.get(index, {"row", "column"}) & fits
    for leaf in _elements(program):
        index = leaf.attr[1]
        axes[index] = axes.get(index, {"row", "column"}) & {"row"}
    found = {}
    for index, fits in axes.items():
        matrix = imports[index]
        if not matrix.is_floating_point() or matrix.ndim < 2 or not matrix.isfinite().all():
            continue
        if "row" in fits and matrix.shape[-1] >= LEAST:
            found[index] = in_bytes(matrix)
        elif "column" in fits and matrix.numel() // matrix.shape[-1] >= LEAST:
            found[index] = in_bytes(matrix, by_row=False)
    return found


def _elements(program: Program) -> list[Node]:
    """Constant leaves that are read element by element."""
    return [n for n in program.places if n.op == "leaf" and n.attr[0] == "p" and n.dtype == FLOAT]
