"""What makes a learning rule a training run."""

from .fit import Fitted, Progress, fit
from .members import MemberSum
from .scheduled_sampling import ScheduledSampling
from .streams import TokenStream

__all__ = ["Fitted", "MemberSum", "Progress", "ScheduledSampling", "TokenStream", "fit"]
