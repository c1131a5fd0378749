"""What a practitioner uses: plain arguments, ``fit``, and a model in a folder."""

from .estimator import Estimator, load_estimator
from .language_model import LanguageModel
from .ngram import NGramModel
from .training_run import TrainingProgress

__all__ = ["Estimator", "LanguageModel", "NGramModel", "TrainingProgress", "load_estimator"]
