"""What makes a learning rule a training run."""

from .batches import Batches, TrainingData
from .fit import Fitted, Progress, fit
from .members import MemberSum
from .scheduled_sampling import ScheduledSampling
from .settings import TrainSettings
from .streams import TokenStream
from .token_file import TokenFile
from .train import Training, TrainProgress, TrainRecord, train

__all__ = [
    "Batches",
    "Fitted",
    "MemberSum",
    "Progress",
    "ScheduledSampling",
    "TokenFile",
    "TokenStream",
    "TrainProgress",
    "TrainRecord",
    "TrainSettings",
    "Training",
    "TrainingData",
    "fit",
    "train",
]
