"""What is built around cells: over time, in both directions, over a grid."""

from .bidirectional import Bidirectional, BidirectionalState
from .grid import Grid
from .recurrent import Recurrent

__all__ = ["Bidirectional", "BidirectionalState", "Grid", "Recurrent"]
