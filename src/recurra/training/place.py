"""Where a run computes: device, precision, and the processes beside this one."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..core import tree
from ..core.checks import sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk
from ..core.tree import Tree

FABRIC_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def find_device(name: str, where: str = "train") -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: torch cannot use it here.
    """
    if name == "auto":
        local = int(os.environ.get("LOCAL_RANK", "0")) if num_processes() > 1 else 0
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError(sentence(where, "device", "one that torch can use here", repr(name))) from None
    return device


def num_processes() -> int:
    """Processes that torchrun started together; 1 without it."""
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ and torch.distributed.is_available()
    return int(os.environ.get("WORLD_SIZE", "1")) if torchrun else 1


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Place:
    """One process of a run: Lightning Fabric with what learning rules need.

    Rules bypass the hooks of distributed data parallel, so directions are summed here.

    Args:
        device: as `find_device` takes it. Of several processes each takes its own GPU.
        precision: "float32", "bfloat16" or "float16".
        where: who asks, for messages.
    """

    def __init__(self, device: str = "auto", precision: str = "float32", where: str = "train") -> None:
        from lightning_fabric import Fabric

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says which precision it takes
        self.precision = precision
        found = find_device(device, where)
        self.size = num_processes()
        options: dict[str, Any] = {"accelerator": found.type, "precision": FABRIC_PRECISION[precision]}
        if found.type == "cpu" and precision == "float16":
            options["precision"] = "32-true"  # Fabric knows 16-mixed on GPUs only; torch has it on the CPU too
        if self.size > 1:
            local = int(os.environ.get("LOCAL_WORLD_SIZE", str(self.size)))
            self.fabric = Fabric(devices=local, num_nodes=self.size // local, strategy="ddp", **options)
            self.fabric.launch()
            atexit.register(_leave)  # a process that ends with the others' threads running may abort
            self.rank = self.fabric.global_rank
            self.device = self.fabric.device
        else:
            devices = 1 if found.type == "cpu" else [found.index or 0]
            self.fabric = Fabric(devices=devices, strategy="auto", **options)
            self.rank, self.device = 0, found

    @property
    def is_first(self) -> bool:
        """Does this process write the files?"""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a rule's step."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        if self.precision == "float16" and self.device.type == "cpu":
            return torch.autocast("cpu", torch.float16)
        return self.fabric.autocast()

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each tensor summed over all processes: one message per dtype."""
        if self.size == 1:
            return tensors
        out = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):  # in the same order in all processes
            places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            flat = torch.cat([tensors[i].detach().reshape(-1) for i in places])
            torch.distributed.all_reduce(flat)
            parts = flat.split([tensors[i].numel() for i in places])
            for i, part in zip(places, parts):
                out[i] = part.view_as(tensors[i])
        return out

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        return self.fabric.broadcast(value) if self.size > 1 else value

    def agree(self, *flags: bool) -> list[bool]:
        """The first process's flags, in all of them: cheaper than `share`."""
        if self.size == 1:
            return list(flags)
        numbers = torch.tensor(flags, dtype=torch.int32, device=self.device)
        torch.distributed.broadcast(numbers, 0)
        return [bool(n) for n in numbers.tolist()]

    def all(self, flag: bool) -> bool:
        """Is it true in all processes?"""
        if self.size == 1:
            return flag
        (number,) = self.sum([torch.tensor(float(flag), device=self.device)])
        return int(number) == self.size

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's."""
        if self.size > 1:
            for t in tensors:
                torch.distributed.broadcast(t.detach(), 0)

    def mine(self, chunk: Chunk, loss: Loss | SequenceLoss) -> Chunk | None:
        """This process's rows of a chunk, on its device; None if there is none for it."""
        if self.size > 1:
            num = int(tree.leaves(chunk.xs)[0].shape[1])
            a, b = self.rank * num // self.size, (self.rank + 1) * num // self.size
            if a == b:
                return None
            chunk = _rows(chunk, a, b, isinstance(loss, SequenceLoss))
        return chunk if self.device.type == "cpu" else self.put(chunk)

    def put(self, value: Tree) -> Tree:
        """A tree on this device."""
        return tree.map(lambda t: t.to(self.device, non_blocking=True), value)


def _rows(chunk: Chunk, a: int, b: int, whole: bool) -> Chunk:
    """Rows a to b; targets of a loss of whole sequences lead with B, all others with (T, B)."""

    def second(t: Tensor) -> Tensor:
        return t[:, a:b]

    def first(t: Tensor) -> Tensor:
        return t[a:b]

    c = chunk.controls
    return Chunk(
        tree.map(second, chunk.xs),
        tree.map(first if whole else second, chunk.targets),
        tree.map(second, chunk.weights),
        c._replace(
            lengths=tree.map(first, c.lengths),
            reset=tree.map(second, c.reset),
            forced=tree.map(second, c.forced),
            force_mask=tree.map(second, c.force_mask),
        ),
    )


def rank() -> int:
    """The number of this process among those that torchrun started together; 0 without it."""
    return int(os.environ.get("RANK", "0")) if num_processes() > 1 else 0


def is_first_process() -> bool:
    """Does this process write the files?"""
    return rank() == 0
