"""Recurra: every recurrent neural network in one house.

Any cell, run by any engine, trained by any learning rule, on PyTorch. Members of the catalog (cells, wrappers, engines,
rules, memories) are attributes of this package and are imported at first use.
"""

from typing import Any

__version__ = "0.1.0.dev0"

_PLACES = {
    "Recurrent": "recurra.layers",
    "Bidirectional": "recurra.layers",
    "Grid": "recurra.layers",
    "Session": "recurra.layers",
    "HopfieldAssociation": "recurra.layers",
    "HopfieldPooling": "recurra.layers",
    "HopfieldLookup": "recurra.layers",
    "Controls": "recurra.core",
    "Chunk": "recurra.core",
    "CrossEntropy": "recurra.core",
    "MeanSquaredError": "recurra.core",
    "BinaryCrossEntropy": "recurra.core",
    "fit": "recurra.training",
    "ART1Clusterer": "recurra.estimators",
    "AssociativeStore": "recurra.estimators",
    "LanguageModel": "recurra.estimators",
    "Forecaster": "recurra.estimators",
    "OnlineForecaster": "recurra.estimators",
    "OnlineClassifier": "recurra.estimators",
    "SequenceClassifier": "recurra.estimators",
    "SequenceRegressor": "recurra.estimators",
}

_PACKAGES = ("dropin",)
_FAMILIES = ("cells", "engines", "rules", "memories", "dynamics")


def __getattr__(name: str) -> Any:
    import importlib

    if name.startswith("_"):
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    from .core.catalog import members

    for family in _FAMILIES:
        item = members(family).get(name)
        if item is not None:
            return item
    raise AttributeError(f"module 'recurra' has no attribute {name!r}")


def __dir__() -> list[str]:
    from .core.catalog import members

    return sorted({*globals(), *_PLACES, *_PACKAGES}.union(*map(members, _FAMILIES)))
