"""Glauber 1963: how a chain of spins forgets, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..analysis import Estimated, jackknife
from ..core import Claim, Experiment, Log, SpinDynamics
from ..memories.single_spins import Glauber, Metropolis
from ..memories.systems import Lattice


class _Chain(NamedTuple):
    """What was measured at one coupling."""

    coupling: float
    rate: Estimated
    rate_off: float
    correlations_off: list[float]
    magnetisation: Tensor
    correlations: Tensor


@dataclass(frozen=True)
class Glauber1963Chain(Experiment):
    """Spins in a row, each in contact with a heat bath, all up at first: the magnetisation decays with one rate,

        m(t) = m0 exp(-(1 - tanh 2K) t),   K = J / kT,

    and spins at a distance r come to agree to tanh^r K. Both are compared with theory in standard errors, which come from
    independent chains; over all couplings (and distances) the root mean square is taken, which is 1 where theory is right. The
    same chains moved by Metropolis' rule come to the same equilibrium at another rate.

    Args:
        num_spins: N, in a ring.
        num_chains: independent ones.
        couplings: K.
        distances: r from 1.
        num_measured: configurations in equilibrium that each chain gives.
    Source:
        Glauber 1963, J. Math. Phys. 4(2):294-307, doi:10.1063/1.1703954
    Differs:
        Moves of spins chosen at random, N of them a unit of time, instead of flips at random times: the rate differs by a part
        of 1 / N.
    """

    id: ClassVar[str] = "glauber-1963-chain"
    source: ClassVar[str] = "Glauber 1963, J. Math. Phys. 4(2):294-307, doi:10.1063/1.1703954"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("rate_off_se", 2, "lower", "1 - tanh 2K", "decay of m, root mean square over K in s.e.", "theorem"),
        Claim("rate_off_relative", 0.01, "lower", "1 - tanh 2K", "the same, largest relative difference", "theorem"),
        Claim("correlations_off_se", 2, "lower", "tanh^r K", "root mean square over K and r in s.e.", "theorem"),
        Claim("metropolis_rate_off_se", 10, "higher", "", "another rule, another rate; least of all K", control=True),
        Claim("metropolis_correlations_off_se", 2, "lower", "tanh^r K", "the same equilibrium", "theorem"),
    )

    num_spins: int = 100_000
    num_chains: int = 20
    couplings: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    distances: int = 8
    num_measured: int = 3

    @classmethod
    def smoke(cls) -> Self:
        """A short chain, two temperatures."""
        return cls(num_spins=2000, num_chains=8, couplings=(0.25, 0.5))

    def run(self, log: Log) -> Mapping[str, float]:
        """Both rules at every coupling."""
        generator = torch.Generator().manual_seed(0)
        found: dict[str, list[_Chain]] = {"glauber": [], "metropolis": []}
        rules: dict[str, SpinDynamics] = {"glauber": Glauber(), "metropolis": Metropolis()}
        for i, coupling in enumerate(self.couplings):
            for j, (name, dynamics) in enumerate(rules.items()):
                log(f"K = {coupling}, {name}", (i + j / 2) / len(self.couplings))
                found[name].append(self._chain(dynamics, coupling, generator))
        log.figure("decay", lambda figure: _draw(figure, found["glauber"]))
        ours, others = found["glauber"], found["metropolis"]
        relative = [abs(c.rate.value / (1 - math.tanh(2 * c.coupling)) - 1) for c in ours]
        return {
            "rate_off_se": _rms([c.rate_off for c in ours]),
            "rate_off_relative": max(relative),
            "correlations_off_se": _rms([off for c in ours for off in c.correlations_off]),
            "metropolis_rate_off_se": min(abs(c.rate_off) for c in others),
            "metropolis_correlations_off_se": _rms([off for c in others for off in c.correlations_off]),
            **{f"rate_off_se_{c.coupling}": c.rate_off for c in ours},
        }

    def _chain(self, dynamics: SpinDynamics, coupling: float, generator: torch.Generator) -> _Chain:
        """Decay from all up, then correlations once that is forgotten."""
        ring = Lattice((self.num_spins,))
        rate = 1 - math.tanh(2 * coupling)
        decay = max(4, math.ceil(3 / rate))
        spins = torch.ones(self.num_chains, self.num_spins, dtype=torch.int8)
        path = [spins.float().mean(1).double()]
        for _ in range(decay):
            spins = dynamics.sweep(ring, spins, coupling, generator)
            path.append(spins.float().mean(1).double())
        magnetisation = torch.stack(path)  # (T + 1, C)
        sums = torch.stack([magnetisation[1:].sum(0), magnetisation[:-1].sum(0)], -1)
        # m(t + 1) = exp(-rate) m(t) in the mean, so the ratio of both sums is exp(-rate)
        estimated = jackknife(lambda s: -torch.log(s[..., 0] / s[..., 1]), sums, self.num_chains)

        measured = []
        for _ in range(self.num_measured):
            for _ in range(math.ceil(4 / rate)):
                spins = dynamics.sweep(ring, spins, coupling, generator)
            pairs = [(spins * spins.roll(-r, 1)).float().mean(1).double() for r in range(1, self.distances + 1)]
            measured.append(torch.stack(pairs, -1))
        correlations = torch.stack(measured).mean(0)  # (C, R)
        mean, error = correlations.mean(0), correlations.std(0) / self.num_chains**0.5
        theory = math.tanh(coupling) ** torch.arange(1, self.distances + 1, dtype=torch.float64)
        off = (estimated.value - rate) / estimated.error
        return _Chain(
            coupling,
            estimated,
            off,
            ((mean - theory) / error).tolist(),
            magnetisation.mean(1),
            torch.stack([mean, theory]),
        )


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _draw(figure: Any, chains: list[_Chain]) -> None:
    decay, agreement = figure.subplots(1, 2)
    for chain in chains:
        rate = 1 - math.tanh(2 * chain.coupling)
        time = torch.arange(len(chain.magnetisation)) * rate
        (line,) = decay.plot(time, chain.magnetisation, "o", ms=3, label=f"K = {chain.coupling}")
        mean, theory = chain.correlations
        at = torch.arange(1, len(mean) + 1)
        agreement.plot(at, mean, "o", ms=3, color=line.get_color())
        agreement.plot(at, theory, lw=1, color=line.get_color())
    fine = torch.linspace(0, 4, 100)
    decay.plot(fine, torch.exp(-fine), "k-", lw=1)
    decay.set(title="All spins up at first: one curve", xlabel="(1 - tanh 2K) t, t in sweeps", ylabel="magnetisation")
    decay.set(yscale="log", ylim=(0.02, 1.1))
    agreement.set(
        title="In equilibrium: tanh^r K", xlabel="distance r", ylabel="<s_0 s_r>", yscale="log", ylim=(1e-4, 1)
    )
    decay.legend()
