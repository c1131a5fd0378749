"""The part of River's protocol that is more than names of methods: its own checks ask for its base classes."""

from __future__ import annotations

import importlib
import importlib.util

_joined: set[str] = set()


def join_river(kind: type, base: str) -> None:
    """Let ``isinstance(model, river.base.X)`` be true, where River is installed; its metrics and pipelines ask that.

    Args:
        kind: the class of the model.
        base: "Regressor" or "Classifier".
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name not in _joined and importlib.util.find_spec("river") is not None:
        getattr(importlib.import_module("river.base"), base).register(kind)
    _joined.add(name)
