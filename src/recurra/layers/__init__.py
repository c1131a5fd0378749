"""What is built around cells: over time, in both directions, over a grid."""

from .recurrent import Recurrent

__all__ = ["Recurrent"]
