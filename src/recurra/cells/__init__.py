"""Recurrent cells, one file each.

The members are found by the catalog: ``from recurra.cells import NAME`` works for each of them.
"""

from ..core.lazy import lazily

__getattr__, __dir__ = lazily(__name__, "cells")
