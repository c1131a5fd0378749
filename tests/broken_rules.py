"""Learning and search rules with one fault each; ``breaks`` is the law that must catch it before any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recurra.core import Chunk, Estimate, LearningRule, tree
from recurra.learning import BPTT, UORO, EvolutionStrategy


@dataclass(frozen=True)
class _Faulty(LearningRule[Any]):
    """BPTT, but for one fault."""

    breaks: ClassVar[str] = ""
    also: ClassVar[Any] = set()

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        return BPTT().init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        return BPTT().step(cell, carry, chunk, loss)


def scaled(estimate: Estimate, by: Any) -> Estimate:
    """The estimate with another direction."""
    return estimate._replace(direction={name: d * by for name, d in estimate.direction.items()})


@dataclass(frozen=True)
class Mumbles(_Faulty):
    """Its refusal is no sentence."""

    breaks = "supports"

    def supports(self, cell: nn.Module, loss: Any) -> str | None:
        return "sorry" if hasattr(loss, "per_sequence") else None


@dataclass(frozen=True)
class Attached(_Faulty):
    """Its outputs hang on the graph."""

    breaks = "forms"

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        alive = sum(p.sum() for p in cell.parameters()) * 0
        return carry, estimate._replace(outputs=tree.map(lambda y: y + alive, estimate.outputs))


@dataclass(frozen=True)
class OtherNames(_Faulty):
    """It gives its directions names of its own."""

    breaks = "forms"
    also = ...

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        return carry, estimate._replace(direction={f"model.{n}": d for n, d in estimate.direction.items()})


@dataclass(frozen=True)
class Descends(_Faulty):
    """It changes the parameters itself."""

    breaks = "reads_only"
    also = ...

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        with torch.no_grad():
            for name, p in cell.named_parameters():
                p -= 0.1 * estimate.direction[name]
        return carry, estimate


@dataclass(frozen=True)
class LeavesGrad(_Faulty):
    """It leaves its directions in .grad too."""

    breaks = "reads_only"

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        for name, p in cell.named_parameters():
            p.grad = estimate.direction[name].clone()
        return carry, estimate


@dataclass(frozen=True)
class Remembers(_Faulty):
    """It counts its steps on the class and takes smaller ones."""

    breaks = "repeats"
    also = ...
    count: ClassVar[list[int]] = []

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        self.count.append(1)
        return carry, scaled(estimate, 1 / len(self.count))


@dataclass(frozen=True)
class CarriesGenerator(_Faulty):
    """A generator in its carry moves on behind its back, and cannot be stored."""

    breaks = "resumes"

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        return super().init(cell, batch_size, seed=seed), torch.Generator().manual_seed(seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        inner, estimate = super().step(cell, carry[0], chunk, loss)
        return (inner, carry[1]), estimate


@dataclass(frozen=True)
class Means(_Faulty):
    """It takes means where sums are asked for."""

    breaks = "rows_add"
    also: ClassVar = {"weights", "padding", "exact"}

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        return carry, scaled(estimate, 1 / estimate.weight)


@dataclass(frozen=True)
class Unweighted(_Faulty):
    """It does not look at the weights."""

    breaks = "weights"
    also: ClassVar = {"exact"}

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        return super().step(cell, carry, chunk._replace(weights=None), loss)


@dataclass(frozen=True)
class CountsPadding(_Faulty):
    """It weights the padding like everything else."""

    breaks = "padding"

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        if chunk.controls.lengths is None or chunk.weights is not None:
            return carry, estimate
        return carry, estimate._replace(weight=estimate.weight + 1)


@dataclass(frozen=True)
class WrongGradient(_Faulty):
    """Its direction is a quarter too long."""

    breaks = "exact"

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Any) -> tuple[Any, Estimate]:
        carry, estimate = super().step(cell, carry, chunk, loss)
        return carry, scaled(estimate, 1.25)


@dataclass(frozen=True)
class Biased(UORO):
    """Its two random products balance each other out wrongly: half of the influence is lost."""

    breaks: ClassVar[str] = "unbiased"
    also: ClassVar[Any] = set()

    def follow(self, cell: Any, carry: Any, made: Any, generator: torch.Generator) -> Any:
        carry, direction = super().follow(cell, carry, made, generator)
        return carry, {name: d / 2 for name, d in direction.items()}


@dataclass(frozen=True)
class Seedless(EvolutionStrategy):
    """It draws its candidates from the global generator."""

    breaks: ClassVar[str] = "candidates"
    also: ClassVar[Any] = {"search_resumes"}

    def ask(self, carry: Any) -> tuple[Any, dict[str, Tensor]]:
        return super().ask(carry._replace(rng=torch.Generator().manual_seed(int(torch.randint(99999, ()))).get_state()))


@dataclass(frozen=True)
class KeepsGenerator(EvolutionStrategy):
    """Its carry cannot be stored."""

    breaks: ClassVar[str] = "search_resumes"
    also: ClassVar[Any] = set()

    def init(self, parameters: dict[str, Tensor], *, seed: int = 0) -> Any:
        return super().init(parameters, seed=seed), torch.Generator()

    def ask(self, carry: Any) -> tuple[Any, dict[str, Tensor]]:
        inner, candidates = super().ask(carry[0])
        return (inner, carry[1]), candidates

    def tell(self, carry: Any, fitness: Tensor) -> Any:
        return super().tell(carry[0], fitness), carry[1]

    def best(self, carry: Any) -> dict[str, Tensor]:
        return super().best(carry[0])


@dataclass(frozen=True)
class Worsens(EvolutionStrategy):
    """It goes downhill."""

    breaks: ClassVar[str] = "search_improves"
    also: ClassVar[Any] = set()

    def tell(self, carry: Any, fitness: Tensor) -> Any:
        return super().tell(carry, -fitness)


def broken_rules() -> list[type]:
    """Every rule of this file that says what it breaks."""
    return [item for item in globals().values() if isinstance(item, type) and getattr(item, "breaks", "")]
