"""Laws about associative memories, asked with random patterns of the memory's own kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core import tree
from ..core.memory import AssociativeMemory, EnergyMemory
from ..core.tree import Tree
from .compare import same
from .generate import copied, generator_of
from .law import Setting, broken, law

LOW_LOAD = 2  # patterns


def _filled(memory: AssociativeMemory[Any], setting: Setting) -> tuple[Tree, Tensor, Tensor]:
    """A state that stores a few patterns, the patterns, and random cues (B, K)."""
    generator = generator_of(setting, 51)
    patterns = memory.draw(LOW_LOAD, generator)
    return memory.write(memory.empty(), patterns), patterns, memory.draw(setting.batch_size, generator)


@law("A recall has a value and a count of steps for every cue, and says whether it stands still.")
def forms(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Shapes and types of `Recall`."""
    state, patterns, cues = _filled(memory, setting)
    recall = memory.read(state, cues)
    if recall.value.shape != (len(cues), patterns.shape[1]) or recall.value.dtype != patterns.dtype:
        broken(f"value is {tuple(recall.value.shape)} {recall.value.dtype}.")
    if recall.steps.shape != (len(cues),) or recall.steps.dtype != torch.int64:
        broken(f"steps is {tuple(recall.steps.shape)} {recall.steps.dtype}.")
    if recall.converged.shape != (len(cues),) or recall.converged.dtype != torch.bool:
        broken(f"converged is {tuple(recall.converged.shape)} {recall.converged.dtype}.")
    return None


@law("Writing and reading leave the state and the patterns they are given as they were.")
def pure(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """And reading twice gives the same."""
    state, patterns, cues = _filled(memory, setting)
    kept = copied((state, patterns, cues))
    first = memory.read(state, cues)
    memory.write(state, cues)
    same("what was given to read and write", (state, patterns, cues), kept, 0.0)
    same("the same read", memory.read(state, cues), first, 0.0)
    return None


@law("Cues do not disturb each other.")
def rows(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """A cue alone brings back what it brings back beside others."""
    state, _, cues = _filled(memory, setting)
    together = memory.read(state, cues)
    for row in range(len(cues)):
        piece = slice(row, row + 1)
        alone = memory.read(state, cues[piece])
        same(f"cue {row} alone", alone, tree.map(lambda t, piece=piece: t[piece], together))
    return None


@law("At low load a stored pattern stays.")
def stored_patterns_stay(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Two patterns; each is its own recall."""
    state, patterns, _ = _filled(memory, setting)
    recall = memory.read(state, patterns)
    same("the recall of a stored pattern", recall.value, patterns, 1e-4)
    if not bool(recall.converged.all()):
        broken("a stored pattern does not stand still.")
    return None


@law("The energy never rises while reading.")
def energy(memory: AssociativeMemory[Any], setting: Setting) -> str | None:
    """Along whole trajectories from random cues, more patterns being stored than fit."""
    if not isinstance(memory, EnergyMemory):
        return "it is no EnergyMemory."
    generator = generator_of(setting, 52)
    crowd = memory.draw(10, generator)
    state, cues = memory.write(memory.empty(), crowd), memory.draw(8 + setting.batch_size, generator)
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
    state, _, cues = _filled(memory, setting)
    path = memory.trajectory(state, cues)
    same("the first configuration", path[0], cues, 0.0)
    same("the last configuration", path[-1], memory.read(state, cues).value)
    return None
