"""Ways to run a cell over time. All compute what `Loop` computes."""

from .checkpointed import Checkpointed
from .choose import Auto
from .hoisted import Hoisted
from .loop import Loop
from .native import Native
from .unroll import unroll
from .vendor import Vendor

__all__ = ["Auto", "Checkpointed", "Hoisted", "Loop", "Native", "Vendor", "unroll"]
