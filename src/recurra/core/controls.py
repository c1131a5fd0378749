"""What stands beside a sequence: true lengths, restarts, forced feedback."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import tree
from .tree import Tree


class Controls(NamedTuple):
    """All optional; ``Controls()`` changes nothing.

    Args:
        lengths: (B,) int64, 0 <= length <= T. Padding changes nothing: outputs beyond the end are zero, the state
            returned is the one at the true end, and whatever stands in the padding (NaN too) touches no gradient.
        reset: (T, B) bool. True starts again from `Cell.initial_state` before this step; constant leaves stay.
        forced: (T, B, ...) what the step *after* t sees in place of the cell's own feedback from step t.
        force_mask: (T, B) bool, where `forced` applies; None means everywhere.
    """

    lengths: Tensor | None = None
    reset: Tensor | None = None
    forced: Tree = None
    force_mask: Tensor | None = None

    def window(self, start: int, stop: int) -> Controls:
        """The controls of the steps ``start`` to ``stop``."""
        lengths = None if self.lengths is None else (self.lengths - start).clamp(0, stop - start)
        reset = None if self.reset is None else self.reset[start:stop]
        forced = tree.window(self.forced, start, stop)
        force_mask = None if self.force_mask is None else self.force_mask[start:stop]
        return Controls(lengths, reset, forced, force_mask)

    def without_forcing(self) -> Controls:
        """The controls for cells inside, which see no feedback."""
        return self._replace(forced=None, force_mask=None)

    def alive(self, num_steps: int) -> Tensor | None:
        """(T, B) bool, False in the padding; None where there is no padding."""
        if self.lengths is None:
            return None
        steps = torch.arange(num_steps, device=self.lengths.device)
        return steps[:, None] < self.lengths[None, :]
