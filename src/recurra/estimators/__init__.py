"""What a practitioner uses: plain arguments, ``fit``, and a model in a folder."""

from .art1_clusterer import ART1Clusterer
from .associative_store import AssociativeStore, Fullness, Recollection
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
    "ART1Clusterer",
    "AssociativeStore",
    "Estimator",
    "Forecaster",
    "Fullness",
    "LanguageModel",
    "NGramModel",
    "OnlineClassifier",
    "OnlineForecaster",
    "Recollection",
    "SequenceClassifier",
    "SequenceRegressor",
    "TrainingProgress",
    "load_estimator",
]
