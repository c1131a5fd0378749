"""Learning rules: how a stretch of a stream becomes a direction for the parameters."""

from .bptt import BPTT, TruncatedBPTT
from .evolution import EvolutionStrategy, search
from .rtrl import RTRL, SnAp
from .uoro import UORO

__all__ = ["BPTT", "RTRL", "UORO", "EvolutionStrategy", "SnAp", "TruncatedBPTT", "search"]
