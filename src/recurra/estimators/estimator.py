"""What all estimators have in common."""

from __future__ import annotations

import inspect
from typing import Any, Self

from ..core.checks import sentence


class Estimator:
    """The manners of scikit-learn without the package.

    The constructor only stores its arguments, which are plain values, under their own names; `fit` checks them and leaves
    what it found in attributes that end in an underscore.
    """

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (``deep`` changes nothing: no argument is an estimator)."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; returns the estimator itself.

        Raises:
            ValueError: an argument that the constructor does not have.
        """
        import difflib

        known = self._defaults()
        for name in params:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else ""
                want = "one of the constructor's arguments"
                raise ValueError(sentence(type(self).__name__, "set_params", want, repr(name), hint))
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = (f"{n}={getattr(self, n)!r}" for n, default in self._defaults().items() if getattr(self, n) != default)
        return f"{type(self).__name__}({', '.join(given)})"

    def _check_fitted(self, attribute: str) -> None:
        if not hasattr(self, attribute):
            name = type(self).__name__
            raise ValueError(sentence(name, "the model", "fitted first", "a new one", "Call fit, or load a saved one."))
