"""Looking into networks and learning rules: what a rule reads, what it costs, how near it comes to the gradient."""

from .compare import Compared, compare_rules, draw_comparison, exact_gradients
from .cost import Growth, cost_growth, flops
from .locality import Locality, audit
from .memory import carry_bytes, peak_bytes
from .places import Places
from .recall_load import RecallAccuracy, recall_accuracy

__all__ = [
    "Compared",
    "Growth",
    "Locality",
    "Places",
    "RecallAccuracy",
    "audit",
    "carry_bytes",
    "compare_rules",
    "cost_growth",
    "draw_comparison",
    "exact_gradients",
    "flops",
    "peak_bytes",
    "recall_accuracy",
]
