"""The latch problem: the first value decides, noise follows, the answer comes at the end (Bengio, Simard & Frasconi 1994)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_positive, sentence


class Latched(NamedTuple):
    """xs: (T, B, 1) the first value +1 or -1, then noise; targets: (B,) 1 for sequences that begin with +1, else 0."""

    xs: Tensor
    targets: Tensor


def latch_problem(
    num_steps: int, batch_size: int, generator: torch.Generator | None = None, *, noise_variance: float = 0.2
) -> Latched:
    """Random sequences of two classes. The sign of the first value is the class, so the best answer makes no error.

    Args:
        num_steps: T, at least 1.
        batch_size: B.
        generator: source of classes and noise.
        noise_variance: of the Gaussian values behind the first one.

    Source:
        Bengio, Simard & Frasconi 1994, IEEE Trans. Neural Networks 5(2):157-166, doi:10.1109/72.279181, in the form
        (values +1 and -1 that are not learned) of Schmidhuber, Hochreiter & Bengio 2001, "Evaluating benchmark problems by
        random guessing", latch variant II (read)

    Example:
        >>> xs, targets = latch_problem(20, 3, torch.Generator().manual_seed(0))
        >>> xs.shape, bool(((xs[0, :, 0] > 0) == (targets > 0)).all())
        (torch.Size([20, 3, 1]), True)
    """
    check_positive("latch_problem", num_steps=num_steps, batch_size=batch_size)
    if not noise_variance >= 0:
        raise ValueError(sentence("latch_problem", "noise_variance", "at least 0", noise_variance))
    xs = noise_variance**0.5 * torch.randn(num_steps, batch_size, 1, generator=generator)
    targets = torch.randint(0, 2, (batch_size,), generator=generator).to(xs.dtype)
    xs[0, :, 0] = 2 * targets - 1
    return Latched(xs, targets)
