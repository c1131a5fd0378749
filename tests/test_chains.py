"""Error bars: a process whose autocorrelation time is known, functions of means, and energy landscapes by brute force."""

import math

import pytest
import torch

from recurra.analysis import (
    autocorrelation,
    autocorrelation_time,
    binder_cumulant,
    binning,
    descend,
    is_stable,
    jackknife,
    landscape,
)
from recurra.core import SpinSystem, configurations
from recurra.memories.single_spins import Glauber
from recurra.memories.systems import DenseSystem, Lattice, sherrington_kirkpatrick


def autoregressive(rho: float, length: int, chains: int, seed: int = 0) -> torch.Tensor:
    """(T, C) in equilibrium: x' = rho x + noise, of variance 1; tau = (1 + rho) / (2 (1 - rho))."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(length, chains, generator=generator, dtype=torch.float64) * math.sqrt(1 - rho**2)
    x = torch.randn(chains, generator=generator, dtype=torch.float64)
    out = []
    for step in noise:
        x = rho * x + step
        out.append(x)
    return torch.stack(out)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_error_bars_of_correlated_samples(rho: float):
    chains = autoregressive(rho, 4096, 40)
    tau = (1 + rho) / (2 * (1 - rho))
    for found in (binning(chains[:, 0]).tau, autocorrelation_time(chains[:, 0]), binning(chains).tau):
        assert 0.6 * tau < found < 1.7 * tau
    assert abs(autocorrelation_time(chains) / tau - 1) < 0.15
    torch.testing.assert_close(
        autocorrelation(chains, 4), rho ** torch.arange(4, dtype=torch.float64), atol=0.05, rtol=0
    )
    errors = torch.tensor([binning(chains[:, c]).error for c in range(40)])
    scatter = float(chains.mean(0).std())
    assert 0.75 < float(errors.square().mean().sqrt()) / scatter < 1.35
    assert abs(binning(chains).mean) < 4 * binning(chains).error


def test_a_jackknife_of_a_ratio_is_as_the_law_of_propagation_says():
    chains = autoregressive(0.5, 4096, 2) * 0.3 + torch.tensor([2.0, 1.0])
    value, error = jackknife(lambda m: m[..., 0] / m[..., 1], chains, 32)
    one, two = binning(chains[:, 0]), binning(chains[:, 1])
    expected = one.mean / two.mean
    spread = expected * math.hypot(one.error / one.mean, two.error / two.mean)
    assert abs(value - expected) < 0.1 * error
    assert 0.6 < error / spread < 1.6


def test_a_jackknife_takes_off_the_bias_of_a_square():
    generator = torch.Generator().manual_seed(1)
    found = [
        jackknife(lambda m: m[..., 0] ** 2, torch.randn(64, 1, generator=generator), 64).value for _ in range(2000)
    ]
    values = torch.tensor(found)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 2000**0.5  # without: 1 / 64, twenty times as much


def test_binders_cumulant_in_order_and_disorder():
    generator = torch.Generator().manual_seed(2)
    disorder = binder_cumulant(torch.randn(4000, 100, generator=generator))
    assert abs(disorder.value) < 4 * disorder.error < 0.02
    order = binder_cumulant(2.0 * torch.randint(0, 2, (4000,), generator=generator) - 1)
    assert order.value == pytest.approx(2 / 3)


SYSTEMS: dict[str, SpinSystem] = {
    "glass": sherrington_kirkpatrick(9, torch.Generator().manual_seed(3)),
    "field": DenseSystem(
        sherrington_kirkpatrick(8, torch.Generator().manual_seed(4)).couplings, torch.linspace(-1, 1, 8).double()
    ),
    "square": Lattice((3, 4), periodic=False),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_landscape_is_what_brute_force_finds(name: str):
    system = SYSTEMS[name]
    every = configurations(system.num_spins)
    energies, stable = system.energy(every), is_stable(system, every)
    found = landscape(system)
    assert found.ground_energy == pytest.approx(float(energies.min()))
    assert float(system.energy(found.ground_state[None])) == pytest.approx(found.ground_energy)
    assert found.num_stable == int(stable.sum())
    assert found.stable_energy == pytest.approx(float(energies[stable].mean()))


def test_a_descent_ends_in_a_stable_configuration_and_sometimes_in_the_lowest():
    system = SYSTEMS["glass"]
    generator = torch.Generator().manual_seed(5)
    found = descend(Glauber(), system, system.random_spins(200, generator), generator)
    assert bool(found.stable.all())
    assert float(system.energy(found.spins).min()) == pytest.approx(landscape(system).ground_energy)
    assert not bool(descend(Glauber(), system, -found.spins.flip(1), generator, max_sweeps=0).stable.all())


REFUSED = {
    r"binning: samples must be \(T,\) or \(T, C\), of C chains, got \(1, 1, 1\)": lambda: binning(torch.ones(1, 1, 1)),
    "binning: samples must be at least 64, got 63": lambda: binning(torch.ones(63)),
    "autocorrelation: samples must be of different values, got a constant": lambda: autocorrelation(torch.ones(9), 2),
    "autocorrelation: num_lags must be at most 9, got 10": lambda: autocorrelation(torch.ones(9), 10),
    r"jackknife: samples must be \(T, K\) or \(T, C, K\), got \(9,\)": lambda: jackknife(torch.sum, torch.ones(9)),
    "jackknife: samples must be at least 64 long, got 9": lambda: jackknife(torch.sum, torch.ones(9, 1)),
    "landscape: system must be of at most 30 spins, got 31. Descend": lambda: landscape(Lattice((31,))),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused(words: str):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()


def test_arrays_and_lists_of_numbers_are_welcome() -> None:
    series = autoregressive(0.5, 128, 1)[:, 0]
    for given in (series.numpy(), series.tolist()):
        assert binning(given).error == binning(series).error  # type: ignore[arg-type]
        assert binder_cumulant(given) == binder_cumulant(series)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="binning: samples must be finite numbers, got NaN or infinity"):
        binning(torch.full((128,), math.nan))
