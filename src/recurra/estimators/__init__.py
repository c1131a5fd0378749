"""What a practitioner uses: plain arguments, ``fit``, and a model in a folder."""

from .language_model import LanguageModel, TrainingProgress
from .ngram import NGramModel

__all__ = ["LanguageModel", "NGramModel", "TrainingProgress"]
