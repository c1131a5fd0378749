"""Looking into networks and learning rules: what a rule reads, what it costs, how near it comes to the gradient."""

from .chains import Binned, Estimated, autocorrelation, autocorrelation_time, binder_cumulant, binning, jackknife
from .compare import Compared, compare_rules, draw_comparison, exact_gradients
from .cost import Growth, cost_growth, flops
from .landscape import Descended, Landscape, descend, is_stable, landscape
from .locality import Locality, audit
from .memory import carry_bytes, peak_bytes
from .places import Places
from .recall_load import RecallAccuracy, recall_accuracy

__all__ = [
    "Binned",
    "Compared",
    "Descended",
    "Estimated",
    "Growth",
    "Landscape",
    "Locality",
    "Places",
    "RecallAccuracy",
    "audit",
    "autocorrelation",
    "autocorrelation_time",
    "binder_cumulant",
    "binning",
    "carry_bytes",
    "compare_rules",
    "cost_growth",
    "descend",
    "draw_comparison",
    "exact_gradients",
    "flops",
    "is_stable",
    "jackknife",
    "landscape",
    "peak_bytes",
    "recall_accuracy",
]
