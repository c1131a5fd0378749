"""Learning rules: how a stretch of a stream becomes a direction for the parameters."""

from .bptt import BPTT, TruncatedBPTT
from .evolution import EvolutionStrategy, search

__all__ = ["BPTT", "EvolutionStrategy", "TruncatedBPTT", "search"]
