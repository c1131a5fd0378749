"""What is built around cells: over time, in both directions, over a grid, step by step."""

from .bidirectional import Bidirectional, BidirectionalState
from .grid import Grid
from .recurrent import Recurrent
from .session import Session

__all__ = ["Bidirectional", "BidirectionalState", "Grid", "Recurrent", "Session"]
