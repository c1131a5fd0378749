"""Random numbers from an explicit generator, on the device where they are needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

RANDOM = threading.RLock()  # held by whoever seeds torch's own generator and draws from it


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own generator on the processor, seeded for a while; afterwards it is as it was. One thread at a time."""
    with RANDOM, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def uniform(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """U(0, 1). Drawn where the generator lives, then moved: the same numbers on every device."""
    source = generator.device if generator is not None else device
    return torch.rand(shape, generator=generator, device=source, dtype=dtype).to(device)


def happens(shape: tuple[int, ...], p: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Bool, True with probability ``p``."""
    return uniform(shape, generator, device) < p


def survival(
    shape: tuple[int, ...], p: float, generator: torch.Generator | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Dropout's factor: 0 with probability ``p``, else 1 / (1 - p)."""
    return happens(shape, 1 - p, generator, device).to(dtype) / (1 - p)
