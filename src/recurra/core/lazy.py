"""Packages that offer their members by name without importing them first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .catalog import members


def lazily(package: str, *families: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's ``__getattr__`` and ``__dir__`` that look names up in the catalog at first use."""

    def get(name: str) -> Any:
        if name == "__all__":  # what `from package import *` asks for
            return listing()
        if name.startswith("_"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for family in families:
            item = members(family).get(name)
            if item is not None:
                return item
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listing() -> list[str]:
        return sorted(name for family in families for name in members(family))

    return get, listing
