"""Laws about associative memories, asked with random patterns of the memory's own kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core import tree
from ..core.memory import AssociativeMemory, EnergyMemory, ErasableMemory, PairMemory
from ..core.tree import Tree
from .compare import same
from .generate import copied, generator_of
from .law import Setting, broken, law

LOW_LOAD = 2  # patterns
CROWD = 10


def _pairs(memory: AssociativeMemory[Any], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Random keys, and values where the memory stores pairs."""
    if isinstance(memory, PairMemory):
        return memory.draw_pairs(count, generator)
    return memory.draw(count, generator), None


def _crowd(memory: AssociativeMemory[Any], setting: Setting) -> tuple[Tensor, Tensor | None, Tensor]:
    """More patterns than a small memory holds, their values, and many cues: reading takes many steps."""
    generator = generator_of(setting, 52)
    keys, values = _pairs(memory, CROWD, generator)
    return keys, values, memory.draw(8 + setting.batch_size, generator)


def _filled(memory: AssociativeMemory[Any], setting: Setting) -> tuple[Tree, Tensor, Tensor, Tensor]:
    """A state that stores a few patterns, their keys and values, and random cues (B, K)."""
    generator = generator_of(setting, 51)
    keys, values = _pairs(memory, LOW_LOAD, generator)
    state = memory.write(memory.empty(), keys, values)
    return state, keys, keys if values is None else values, memory.draw(setting.batch_size, generator)


@law("A recall has a value and a count of steps for every cue, and says whether it stands still.")
def forms(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Shapes and types of `Recall`."""
    state, keys, values, cues = _filled(memory, setting)
    if keys.shape[1] != memory.key_size or values.shape[1] != memory.value_size:
        broken(f"it says {memory.key_size} and {memory.value_size} units, draws {keys.shape[1]} and {values.shape[1]}.")
    recall = memory.read(state, cues)
    if recall.value.shape != (len(cues), values.shape[1]) or recall.value.dtype != values.dtype:
        broken(f"value is {tuple(recall.value.shape)} {recall.value.dtype}.")
    if recall.steps.shape != (len(cues),) or recall.steps.dtype != torch.int64:
        broken(f"steps is {tuple(recall.steps.shape)} {recall.steps.dtype}.")
    if recall.converged.shape != (len(cues),) or recall.converged.dtype != torch.bool:
        broken(f"converged is {tuple(recall.converged.shape)} {recall.converged.dtype}.")
    return None


@law("Writing and reading leave the state and the patterns they are given as they were.")
def pure(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """And reading twice gives the same."""
    state, keys, values, cues = _filled(memory, setting)
    kept = copied((state, keys, values, cues))
    first = memory.read(state, cues)
    memory.write(state, keys, values if isinstance(memory, PairMemory) else None)
    same("what was given to read and write", (state, keys, values, cues), kept, 0.0)
    same("the same read", memory.read(state, cues), first, 0.0)
    return None


@law("Cues do not disturb each other.")
def rows(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """A cue alone brings back what it brings back beside others."""
    state, _, _, cues = _filled(memory, setting)
    together = memory.read(state, cues)
    for row in range(len(cues)):
        piece = slice(row, row + 1)
        alone = memory.read(state, cues[piece])
        same(f"cue {row} alone", alone, tree.map(lambda t, piece=piece: t[piece], together))
    return None


@law("At low load a stored pattern stays.")
def stored_patterns_stay(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Two patterns; each is its own recall."""
    state, keys, values, _ = _filled(memory, setting)
    recall = memory.read(state, keys)
    same("the recall of a stored pattern", recall.value, values, 1e-4)
    if not bool(recall.converged.all()):
        broken("a stored pattern does not stand still.")
    return None


@law("The energy never rises while reading.")
def energy(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Along whole trajectories from random cues, more patterns being stored than fit."""
    if not isinstance(memory, EnergyMemory):
        return "it is no EnergyMemory."
    keys, values, cues = _crowd(memory, setting)
    state = memory.write(memory.empty(), keys, values)
    path = memory.trajectory(state, cues)
    heights = torch.stack([memory.energy(state, tree.at(path, t)) for t in range(tree.leaves(path)[0].shape[0])])
    rise = (heights[1:] - heights[:-1]).amax() if len(heights) > 1 else torch.zeros(())
    limit = 1e-6 if heights.dtype == torch.float32 else 1e-10
    if float(rise) > limit * max(1.0, float(heights.abs().max())):
        broken(f"the energy rises by {float(rise):.3g}.")
    return None


@law("A trajectory begins with the cue and ends where reading ends.")
def trajectory(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """For every cue."""
    if not isinstance(memory, EnergyMemory):
        return "it is no EnergyMemory."
    state, _, _, cues = _filled(memory, setting)
    path = memory.trajectory(state, cues)
    keys, values = (path[0], path[1]) if isinstance(memory, PairMemory) else (path, path)
    same("the first configuration", keys[0], cues, 0.0)
    same("the last configuration", values[-1], memory.read(state, cues).value)
    return None


@law("To give the units other places changes the places of what is recalled, and nothing else.")
def permutation(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Patterns and cues with their units in another order; where units take turns, the turns go with them."""
    keys, values, cues = _crowd(memory, setting)
    state = memory.write(memory.empty(), keys, values)
    generator = generator_of(setting, 53)
    order = torch.randperm(memory.key_size, generator=generator)
    places = order if values is None else torch.randperm(memory.value_size, generator=generator)
    other = memory.reordered(order)
    moved = other.write(other.empty(), keys[:, order], None if values is None else values[:, places])
    recall, expected = other.read(moved, cues[:, order]), memory.read(state, cues)
    same("the recall in other places", recall.value, expected.value[:, places])
    same("its steps", recall.steps, expected.steps)
    return None


@law("To call down up and up down, in some units, changes these units of what is recalled, and nothing else.")
def sign_flips(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Patterns and cues with the signs of some units turned."""
    if memory.alphabet not in ("bipolar", "ternary"):
        return f"its units are {memory.alphabet}: their signs mean something."
    keys, values, cues = _crowd(memory, setting)
    state = memory.write(memory.empty(), keys, values)
    generator = generator_of(setting, 54)
    signs = (2 * torch.randint(0, 2, (memory.key_size,), generator=generator) - 1).to(keys.dtype)
    turns = signs
    if values is not None:
        turns = (2 * torch.randint(0, 2, (memory.value_size,), generator=generator) - 1).to(values.dtype)
    moved = memory.write(memory.empty(), keys * signs, None if values is None else values * turns)
    recall, expected = memory.read(moved, cues * signs), memory.read(state, cues)
    same("the recall with signs turned", recall.value, expected.value * turns)
    same("its steps", recall.steps, expected.steps)
    return None


@law("What is taken out leaves the memory as if it had never been written.")
def erasing(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Two patterns are written; one is taken out."""
    if not isinstance(memory, ErasableMemory):
        return "it is no ErasableMemory."
    generator = generator_of(setting, 55)
    keys, values = _pairs(memory, LOW_LOAD, generator)
    cues = memory.draw(8 + setting.batch_size, generator)
    halves = [(keys[:1], None if values is None else values[:1]), (keys[1:], None if values is None else values[1:])]
    first = memory.write(memory.empty(), *halves[0])
    left = memory.erase(memory.write(first, *halves[1]), *halves[1])
    same("the recall after erasing", memory.read(left, cues), memory.read(first, cues), 1e-4)
    return None
