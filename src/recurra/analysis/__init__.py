"""Looking into networks and learning rules: what a rule reads, what it costs, how near it comes to the gradient."""

from .locality import Locality, audit
from .memory import carry_bytes, peak_bytes
from .places import Places

__all__ = ["Locality", "Places", "audit", "carry_bytes", "peak_bytes"]
