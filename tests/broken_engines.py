"""Engines with one fault each; ``breaks`` is the law that must catch it before any other, ``on`` the cell that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from broken_cells import Sound, SoundFeedback, SoundNoise, State
from recurra.core import Cell, Controls, Engine, tree
from recurra.core.cell import Noisy
from recurra.core.tree import Tree
from recurra.engines import Loop
from recurra.engines.loop import scan


class Constant(Sound):
    """A sound cell with a constant leaf in its state."""

    def initial_state(self, batch_size: int) -> Any:
        return super().initial_state(batch_size), self.initial("task", batch_size, 3)

    def advance(self, projected: Tensor, state: Any) -> Any:
        y, new = super().advance(projected + state[1], state[0])
        return y, (new, state[1])


@dataclass(frozen=True)
class _Faulty(Engine):
    """Loop, but for one fault."""

    breaks: ClassVar[str] = ""
    on: ClassVar[type[Cell]] = Sound
    also: ClassVar[Any] = set()

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return Loop().run(cell, xs, state, controls)


@dataclass(frozen=True)
class SaysNo(_Faulty):
    """Its refusal is no sentence."""

    breaks = "supports"
    also = ...

    def supports(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> str | None:
        return "no" if controls.reset is not None else None


@dataclass(frozen=True)
class WrongValue(_Faulty):
    """Its outputs are a little too large."""

    breaks = "equals_loop"
    also = ...

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        ys, last = super().run(cell, xs, state, controls)
        return tree.map(lambda y: y * (1 + 1e-7), ys), last


@dataclass(frozen=True)
class LosesGradient(_Faulty):
    """Its values are right; no gradient reaches the input."""

    breaks = "equals_loop"
    also: ClassVar = {"from_the_start", "lengths", "resets"}

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return super().run(cell, tree.detach(xs), state, controls)


@dataclass(frozen=True)
class IgnoresLengths(_Faulty):
    """The state it returns is that after the padding."""

    breaks = "lengths"
    also: ClassVar = {"resets"}

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return super().run(cell, xs, state, controls._replace(lengths=None))


@dataclass(frozen=True)
class IgnoresResets(_Faulty):
    """It never starts again."""

    breaks = "resets"

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return super().run(cell, xs, state, controls._replace(reset=None))


@dataclass(frozen=True)
class IgnoresForcing(_Faulty):
    """It does not hear its teacher."""

    breaks = "forcing"
    on = SoundFeedback

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return super().run(cell, xs, state, controls.without_forcing())


@dataclass(frozen=True)
class ReadsMemory(_Faulty):
    """It takes its input for contiguous."""

    breaks = "strided"

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        def raw(t: Tensor) -> Tensor:
            return torch.as_strided(t, t.shape, torch.empty(t.shape).stride())

        return super().run(cell, tree.map(raw, xs), state, controls)


@dataclass(frozen=True)
class OtherInEvaluation(_Faulty):
    """It takes another path without gradients."""

    breaks = "no_grad"
    also: ClassVar = {"ensemble"}

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        ys, last = super().run(cell, xs, state, controls)
        return (ys if torch.is_grad_enabled() or not xs.is_contiguous() else ys + 1e-3), last


@dataclass(frozen=True)
class KeepsWeights(_Faulty):
    """It keeps the parameters that it saw first."""

    breaks = "other_weights"
    also: ClassVar = {"ensemble"}
    kept: ClassVar[dict[Cell, dict[str, Tensor]]] = {}

    def supports(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> str | None:
        self.kept.setdefault(cell, dict(cell.named_parameters()))
        return None

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        def step(x: Tensor, now: State) -> tuple[Tensor, State]:
            return functional_call(cell, self.kept[cell], (x, now))

        return scan(cell, step, xs, state, controls)


@dataclass(frozen=True)
class CopiesConstants(_Faulty):
    """It stores what does not change."""

    breaks = "constants"
    on = Constant

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        ys, last = super().run(cell, xs, state, controls)
        return ys, tree.map(torch.clone, last)


@dataclass(frozen=True)
class DropsNoise(_Faulty):
    """It runs every cell quietly."""

    breaks = "same_noise"
    on = SoundNoise

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return super().run(cell, Noisy(xs.x, None), state, controls)


@dataclass(frozen=True)
class LooksAtNumbers(_Faulty):
    """It cannot run under vmap, and does not say so."""

    breaks = "ensemble"

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        ys, last = super().run(cell, xs, state, controls)
        return (ys if float(ys.detach().sum()) < 1e9 else 0 * ys), last


def broken_engines() -> list[type[_Faulty]]:
    """Every engine of this file that says what it breaks."""
    return [item for item in globals().values() if isinstance(item, type) and issubclass(item, _Faulty) and item.breaks]
