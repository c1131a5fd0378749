"""Telling two trees apart, with a sentence that says where."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import tree
from ..core.tree import Tree
from .law import broken

# How far two ways of computing the same may lie apart, relative to the larger of 1 and the largest number of the leaf.
TOLERANCE: dict[torch.dtype, float] = {
    torch.float64: 1e-10,
    torch.complex128: 1e-10,
    torch.float32: 2e-4,
    torch.complex64: 2e-4,
    torch.bfloat16: 8e-2,
    torch.float16: 1e-2,
}


def difference(found: Tree, wanted: Tree, tolerance: float | None = None) -> str | None:
    """None where two trees agree, else where and how much they differ (relative, see below). NaN agrees with NaN.

    Args:
        tolerance: relative to the larger of 1 and the largest wanted number; None takes `TOLERANCE`, 0 asks for equal
            bits.

    Example:
        >>> difference((torch.zeros(2), torch.ones(2)), (torch.zeros(2), torch.tensor([1.0, 1.5])))
        'leaf 1 by up to 0.333'
    """
    if not tree.same_structure(found, wanted):
        return f"in structure, {tree.describe(found)} instead of {tree.describe(wanted)}"
    for name, (a, b) in zip(tree.names(wanted), tree.zip_leaves(found, wanted)):
        where = f"leaf {name}" if name else "the values"
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            return f"{where}: {type(a).__name__} is no tensor"
        if a.shape != b.shape:
            return f"{where}: shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        if a.dtype != b.dtype:
            return f"{where}: {_short(a.dtype)} instead of {_short(b.dtype)}"
        gap = gap_between(a.detach(), b.detach())
        if gap is None:
            return f"{where}: NaN or infinity in other places"
        limit = TOLERANCE.get(b.dtype, 0.0) if tolerance is None else tolerance
        if gap > limit:
            return f"{where} by up to {gap:.3g}"
    return None


def same(what: str, found: Tree, wanted: Tree, tolerance: float | None = None) -> None:
    """End the law with "``what`` differs ..." unless two trees agree; see `difference`."""
    text = difference(found, wanted, tolerance)
    if text is not None:
        broken(f"{what} differs: {text}.")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def gap_between(a: Tensor, b: Tensor) -> float | None:
    """The largest difference, relative to the larger of 1 and the largest number of b; None where only one is NaN."""
    if a.numel() == 0:
        return 0.0
    if not (a.is_floating_point() or a.is_complex()):
        return float((a != b).sum())
    fine = torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), fine):
        return None
    if not bool(fine.all()) and not torch.equal(a[~fine].nan_to_num(7.0), b[~fine].nan_to_num(7.0)):
        return None
    a, b = (torch.where(fine, t, t.new_zeros(())) for t in (a, b))
    wide = torch.complex128 if a.is_complex() else torch.float64
    scale = max(1.0, float(b.abs().max()))
    return float((a.to(wide) - b.to(wide)).abs().max()) / scale
