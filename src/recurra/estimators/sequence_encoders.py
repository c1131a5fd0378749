"""The encoders of several nets as one: a net for which another part is held out is scaled by another training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .sequence_network import Columns
from .sequence_series import SeriesEncoder, Variation
from .sequence_text import TextEncoder

Encoder = SeriesEncoder | TextEncoder


@dataclass(frozen=True)
class Encoders:
    """One encoder for all nets, or one for each.

    Several encoders' features stand side by side. Of texts, the pieces of words are the same for all and stand once.

    Args:
        each: one, or as many as there are nets; all of series or all of texts, with the same frames.
    """

    each: tuple[Encoder, ...]

    @classmethod
    def of(cls, kind: type[Encoder], values: Any) -> Encoders:
        """From `to_json`."""
        rows = values if isinstance(values, list) else [values]
        if not rows:
            raise ValueError("it has no encoder")
        return cls(tuple(kind.of(row) for row in rows))

    def to_json(self) -> Any:
        """Plain values."""
        return self.each[0].to_json() if len(self.each) == 1 else [one.to_json() for one in self.each]

    @property
    def first(self) -> Encoder:
        """The only one, or that of the first net."""
        return self.each[0]

    @property
    def is_text(self) -> bool:
        """Of texts rather than series?"""
        return isinstance(self.first, TextEncoder)

    @property
    def streams(self) -> bool:
        """Does every step depend on this one and those before only?"""
        return all(isinstance(one, TextEncoder) or one.streams for one in self.each)

    def columns(self) -> Sequence[Columns] | None:
        """What of the input each net reads; None for all of it."""
        if len(self.each) == 1:
            return None
        if self.is_text:
            return [Columns(m, m + 1, len(self.each)) for m in range(len(self.each))]
        sizes = [one.num_features for one in self.each if isinstance(one, SeriesEncoder)]
        ends = np.cumsum(sizes).tolist()
        return [Columns(end - size, end) for size, end in zip(sizes, ends)]

    def encode(
        self, sequence: Any, varied: Variation | float | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray[Any, Any]:
        """The input (steps, features) of the nets.

        Args:
            sequence: a series or a text, as the encoders are.
            varied: how much, while training: a `Variation` of series, the probability that a word of a text is dropped.
            rng: source of it.
        """
        return self.joined([one.encode(sequence, varied, rng) for one in self.each])  # type: ignore[arg-type]

    def joined(self, found: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """What the encoders gave (..., features) as one array."""
        if self.is_text and len(found) > 1:
            found = [*(one[..., :1] for one in found), found[0][..., 1:]]
        return found[0] if len(found) == 1 else np.concatenate(found, -1)
