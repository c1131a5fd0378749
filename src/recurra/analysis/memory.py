"""How much a computation holds, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Knows which of the storages that were made under it are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in given:
                storage = t.untyped_storage()
                self._seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._seen = {key: entry for key, entry in self._seen.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._seen.values()))
        return out


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors made by a call held at one time, what it returns included.

    Counted from torch's operations, so the same call gives the same number; what lies inside of one operation is not seen.

    Example:
        >>> import torch
        >>> peak_bytes(lambda: (torch.zeros(10) + 1) * 2)
        80
    """
    with _Live() as live:
        function()
    return live.peak


def carry_bytes(carry: Any) -> int:
    """The bytes of the tensors of a carry; the state of its random generator, ``rng``, is left out.

    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.learning import RTRL
        >>> carry_bytes(RTRL().init(ElmanCell(2, 3), 1))  # 3 units, 3 x 18 derivatives
        228
    """
    if isinstance(getattr(carry, "rng", None), Tensor):
        carry = carry._replace(rng=None)
    storages = [t.untyped_storage() for t in tree_leaves(carry) if isinstance(t, Tensor)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
