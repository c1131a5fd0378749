"""The page of an online classifier: that of an online forecaster, with classes."""

from .online_forecaster import build

__all__ = ["build"]
