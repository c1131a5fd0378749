"""Which laws there are: those that stand in a family's modules, in the order in which they stand there."""

from __future__ import annotations

from types import ModuleType

from . import capability_laws, engine_laws, memory_laws, rule_laws, sequence_laws, spin_laws, step_laws
from .law import Law

_PLACES: dict[str, tuple[ModuleType, ...]] = {
    "cells": (step_laws, sequence_laws, capability_laws),
    "engines": (engine_laws,),
    "rules": (rule_laws,),
    "memories": (memory_laws,),
    "dynamics": (spin_laws,),
}
FAMILIES = tuple(_PLACES)


def laws(family: str) -> tuple[Law, ...]:
    """The laws of a family, the simplest first.

    Args:
        family: "cells", "engines", "rules", "memories" or "dynamics".

    Example:
        >>> [law.name for law in laws("cells")][:3]
        ['examples', 'documented', 'specs']
    """
    found: list[Law] = []
    for module in _PLACES[family]:
        own = (item for item in vars(module).values() if isinstance(item, Law))
        found += [item for item in own if item.check.__module__ == module.__name__]
    return tuple(found)
