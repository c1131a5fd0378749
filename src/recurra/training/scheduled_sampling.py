"""Teacher forcing that is let go of step by step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.checks import check_choice, sentence
from ..core.draws import happens


@dataclass(frozen=True)
class ScheduledSampling:
    """How often a `FeedbackCell` is shown the truth instead of its own output, as training goes on.

        linear            p = max(floor, 1 - i / k)
        exponential       p = max(floor, k^i),  0 < k < 1
        inverse_sigmoid   p = max(floor, k / (k + exp(i / k))),  k >= 1

    ``mask`` draws for every step and row whether it is forced; it goes into ``Recurrent(..., forced=ys, force_mask=mask)``
    or ``Chunk.controls``.

    Args:
        kind: "linear", "exponential" or "inverse_sigmoid".
        k: speed of the decay, as above; i counts updates.
        floor: least probability.
    Raises:
        ValueError: an unknown kind, a k or a floor out of range.
    Source:
        Bengio, Vinyals, Jaitly & Shazeer 2015, arXiv:1506.03099, section 2.4 (from memory)
    Differs:
        The paper draws a symbol from the model's distribution; what is fed back here is the cell's own `feedback`.
    Example:
        >>> ScheduledSampling("linear", 100).probability(25)
        0.75
    """

    kind: str = "inverse_sigmoid"
    k: float = 100.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        where = "ScheduledSampling"
        check_choice(where, "kind", self.kind, ("linear", "exponential", "inverse_sigmoid"))
        allowed = {"linear": self.k > 0, "exponential": 0 < self.k < 1, "inverse_sigmoid": self.k >= 1}
        want = {"linear": "above 0", "exponential": "between 0 and 1", "inverse_sigmoid": "at least 1"}
        if not allowed[self.kind]:
            raise ValueError(sentence(where, "k", want[self.kind], self.k))
        if not 0 <= self.floor <= 1:
            raise ValueError(sentence(where, "floor", "in [0, 1]", self.floor))

    def probability(self, update: int) -> float:
        """p after ``update`` updates."""
        if self.kind == "linear":
            p = 1 - update / self.k
        elif self.kind == "exponential":
            p = self.k**update
        else:
            p = self.k / (self.k + math.exp(min(update / self.k, 700.0)))
        return max(self.floor, p)

    def mask(
        self,
        update: int,
        num_steps: int,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """(T, B) bool, True with probability p: what to pass as ``force_mask``."""
        return happens((num_steps, batch_size), self.probability(update), generator, torch.device(device))
