"""What is built around cells: over time, in both directions, over a grid, step by step; Hopfield layers."""

from .bidirectional import Bidirectional, BidirectionalState
from .grid import Grid
from .hopfield import HopfieldAssociation, HopfieldLookup, HopfieldPooling, hopfield_recall
from .recurrent import Recurrent
from .session import Session

__all__ = [
    "Bidirectional",
    "BidirectionalState",
    "Grid",
    "HopfieldAssociation",
    "HopfieldLookup",
    "HopfieldPooling",
    "Recurrent",
    "Session",
    "hopfield_recall",
]
