"""What makes a learning rule a training run."""

from .fit import Fitted, Progress, fit
from .streams import TokenStream

__all__ = ["Fitted", "Progress", "TokenStream", "fit"]
