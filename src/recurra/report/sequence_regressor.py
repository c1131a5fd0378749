"""The page of a regressor: the classifier's, with other numbers."""

from .sequence_classifier import build

__all__ = ["build"]
