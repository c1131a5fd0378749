"""Estimators that learn from a stream, one row at a time."""
