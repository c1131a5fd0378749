"""How well associative memories recall, against how much they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.memory import AssociativeMemory
from ..estimators.associative_store import AssociativeStore

RIGHT = 0.95  # overlap with the pattern that was meant, from which a recall is right


class RecallAccuracy(NamedTuple):
    """What a memory brought back at one load.

    Args:
        memory: its name.
        patterns: stored.
        load: patterns / capacity, by theory; NaN where no theory says.
        right: share of the cues whose recall has an overlap of 0.95 or more with the pattern that was meant.
        overlap: mean overlap with the pattern that was meant.
        converged: share of the cues that came to rest.
        us_per_cue: time of a recall, cues read together.
    """

    memory: str
    patterns: int
    load: float
    right: float
    overlap: float
    converged: float
    us_per_cue: float


def flip(bits: np.ndarray[Any, Any], noise: float, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Turn every bit over with probability ``noise``."""
    return bits ^ (generator.random(bits.shape) < noise)


def recall_accuracy(
    memories: Sequence[tuple[str, type[AssociativeMemory[Any]], Mapping[str, Any]]],
    patterns: np.ndarray[Any, Any],
    loads: Sequence[int],
    *,
    noise: float = 0.1,
    num_cues: int = 100,
    seconds: float = 10.0,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> list[RecallAccuracy]:
    """Store ever more of the patterns in each memory and read noisy cues.

    Args:
        memories: label, class and options of a store, as `recurra.estimators.associative_store.stores` gives them.
        patterns: (M, ...) booleans; the first ones are stored.
        loads: numbers of patterns to store, ascending.
        noise: share of the bits that are turned over in a cue.
        num_cues: at each load, drawn from what is stored.
        seconds: for each memory; no greater load is begun after that.
        seed: of the cues.
        on_progress: told what is measured and the fraction done.
    """
    found = []
    for number, (name, kind, options) in enumerate(memories):
        began = time.monotonic()
        for step, count in enumerate(loads):
            if on_progress is not None:
                on_progress(f"{name}, {count} patterns", (number + step / len(loads)) / len(memories))
            if count > len(patterns) or time.monotonic() - began > seconds:
                break
            found.append(_measure(name, kind, options, patterns[:count], noise, num_cues, seed))
    if on_progress is not None:
        on_progress("", 1.0)
    return found


def _measure(
    name: str,
    kind: type[AssociativeMemory[Any]],
    options: Mapping[str, Any],
    patterns: np.ndarray[Any, Any],
    noise: float,
    num_cues: int,
    seed: int,
) -> RecallAccuracy:
    generator = np.random.default_rng(seed)
    store = AssociativeStore(kind, options=options).write(patterns)
    meant = generator.integers(0, len(patterns), num_cues)
    cues = flip(patterns[meant], noise, generator)
    began = time.perf_counter()
    recalled = store.recall(cues)
    taken = time.perf_counter() - began
    agree = (recalled.patterns == patterns[meant]).reshape(num_cues, -1).mean(1)
    overlap = 2 * agree - 1
    return RecallAccuracy(
        name,
        len(patterns),
        len(patterns) / store.memory.capacity(),
        float((overlap >= RIGHT).mean()),
        float(overlap.mean()),
        float(recalled.converged.mean()),
        1e6 * taken / num_cues,
    )
