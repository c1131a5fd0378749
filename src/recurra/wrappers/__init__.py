"""Cells made of cells.

The members are found by the catalog: ``from recurra.wrappers import NAME`` works for each of them.
"""

from ..core.lazy import lazily

__getattr__, __dir__ = lazily(__name__, "cells")
