"""Associative memories and spin systems, one file each.

Memories and dynamics are found by the catalog: ``from recurra.memories import NAME`` works for each of them. The systems
that dynamics move stand in `recurra.memories.systems`.
"""

from ..core.lazy import lazily

__getattr__, __dir__ = lazily(__name__, "memories", "dynamics")
