"""Evolution strategies: learning from fitness alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..core.checks import sentence
from ..core.rule import SearchRule, StackedParameters


class EvolutionCarry(NamedTuple):
    """mean: the centre of the search; noise: (N/2, ...) of the last candidates; rng: generator state."""

    mean: dict[str, Tensor]
    noise: dict[str, Tensor]
    rng: Tensor


@dataclass(frozen=True)
class EvolutionStrategy(SearchRule[EvolutionCarry]):
    """Natural evolution strategy with a fixed isotropic normal and mirrored samples.

        theta' = theta + a / (N s) sum_i r_i e_i,   candidates theta + s e_i and theta - s e_i

    r is the fitness, or its centred rank. With the plain fitness the step is an unbiased estimate of a times the gradient of
    the fitness smoothed by N(0, s^2).

    Args:
        population: N, even.
        sigma: s, standard deviation of the candidates.
        lr: a.
        ranks: use centred ranks in [-0.5, 0.5] instead of the fitness.
    Raises:
        ValueError: an odd or too small population, sigma not above 0.
    Source:
        Salimans et al. 2017, arXiv:1703.03864, algorithm 1; Wierstra et al. 2014, JMLR 15:949-980 (from memory)
    Cost:
        N forward passes a step, in one vmap.
    Example:
        >>> rule = EvolutionStrategy(population=4)
        >>> carry, candidates = rule.ask(rule.init({"w": torch.zeros(3)}))
        >>> candidates["w"].shape
        torch.Size([4, 3])
    """

    population: int = 64
    sigma: float = 0.1
    lr: float = 0.1
    ranks: bool = True

    def __post_init__(self) -> None:
        if self.population < 2 or self.population % 2:
            raise ValueError(sentence("EvolutionStrategy", "population", "even and at least 2", self.population))
        if not self.sigma > 0:
            raise ValueError(sentence("EvolutionStrategy", "sigma", "above 0", self.sigma))

    def init(self, parameters: dict[str, Tensor], *, seed: int = 0) -> EvolutionCarry:
        """Start at the given parameters."""
        mean = {name: p.detach().clone() for name, p in parameters.items()}
        return EvolutionCarry(mean, {}, torch.Generator().manual_seed(seed).get_state())

    def ask(self, carry: EvolutionCarry) -> tuple[EvolutionCarry, StackedParameters]:
        """N mirrored candidates."""
        generator = torch.Generator()
        generator.set_state(carry.rng)
        noise, stacked = {}, {}
        for name, p in carry.mean.items():
            e = torch.randn((self.population // 2, *p.shape), generator=generator, dtype=p.dtype).to(p.device)
            noise[name] = e
            stacked[name] = torch.cat([p + self.sigma * e, p - self.sigma * e])
        return carry._replace(noise=noise, rng=generator.get_state()), stacked

    def tell(self, carry: EvolutionCarry, fitness: Tensor) -> EvolutionCarry:
        """Move the centre; a fitness that is not finite counts as the worst."""
        if fitness.shape != (self.population,):
            raise ValueError(sentence("EvolutionStrategy", "fitness", f"({self.population},)", tuple(fitness.shape)))
        worst = fitness[fitness.isfinite()].min() if fitness.isfinite().any() else fitness.new_zeros(())
        fitness = torch.where(fitness.isfinite(), fitness, worst)
        if self.ranks:
            fitness = fitness.argsort().argsort().to(fitness.dtype) / (self.population - 1) - 0.5
        plus, minus = fitness.chunk(2)
        scale = self.lr / (self.population * self.sigma)
        mean = {}
        for name, p in carry.mean.items():
            e = carry.noise[name]
            mean[name] = p + scale * torch.tensordot((plus - minus).to(e.dtype), e, dims=1)
        return carry._replace(mean=mean)

    def best(self, carry: EvolutionCarry) -> dict[str, Tensor]:
        """The centre."""
        return carry.mean


def search(
    module: nn.Module,
    rule: SearchRule,
    fitness: Callable[[Callable[..., object]], Tensor],
    num_generations: int,
    *,
    seed: int = 0,
) -> Tensor:
    """Improve a module's parameters by a `SearchRule`, all candidates in one vmap; the module gets the best at the end.

    Args:
        module: a cell, a `Recurrent`, any module that vmap can run.
        rule: how to search.
        fitness: given ``call(*args)``, which runs the module with a candidate's parameters, returns () larger is better.
        num_generations: how long.
        seed: of the search.

    Returns:
        (num_generations,) the best fitness of each generation.
    """
    carry = rule.init({name: p for name, p in module.named_parameters() if p.requires_grad}, seed=seed)

    def score(parameters: dict[str, Tensor]) -> Tensor:
        return fitness(lambda *args, **named: functional_call(module, parameters, args, named))

    history = []
    with torch.no_grad():
        for _ in range(num_generations):
            carry, candidates = rule.ask(carry)
            values = vmap(score)(candidates)
            carry = rule.tell(carry, values)
            history.append(values.max())
        for name, value in rule.best(carry).items():
            module.get_parameter(name).copy_(value)
    return torch.stack(history) if history else torch.zeros(0)
