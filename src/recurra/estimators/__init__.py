"""What a practitioner uses: plain arguments, ``fit``, and a model in a folder."""

from .estimator import Estimator, load_estimator
from .forecaster import Forecaster
from .language_model import LanguageModel
from .ngram import NGramModel
from .online_classifier import OnlineClassifier
from .online_forecaster import OnlineForecaster
from .sequence_classifier import SequenceClassifier
from .sequence_regressor import SequenceRegressor
from .training_run import TrainingProgress

__all__ = [
    "Estimator",
    "Forecaster",
    "LanguageModel",
    "NGramModel",
    "OnlineClassifier",
    "OnlineForecaster",
    "SequenceClassifier",
    "SequenceRegressor",
    "TrainingProgress",
    "load_estimator",
]
