"""What makes a learning rule a training run."""

from .fit import Fitted, Progress, fit
from .scheduled_sampling import ScheduledSampling
from .streams import TokenStream

__all__ = ["Fitted", "Progress", "ScheduledSampling", "TokenStream", "fit"]
