"""Error bars of what a Markov chain gives: binning, autocorrelation time, jackknife, Binder's cumulant."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_positive, sentence

MIN_BINS = 32
"""Fewer bins give no error bar worth the name."""


class Estimated(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


class Binned(NamedTuple):
    """Mean of correlated numbers.

    Args:
        mean: of all.
        error: standard error of the mean, the largest of the levels with at least 32 bins.
        tau: integrated autocorrelation time in samples, 1/2 where they are independent: error^2 = 2 tau variance / number.
        errors: (levels,) of bins of 1, 2, 4 ... samples; a plateau says that the chain is long enough.
    """

    mean: float
    error: float
    tau: float
    errors: Tensor


def _chains(where: str, samples: Tensor, least: int) -> Tensor:
    """(T, C) float64, checked; arrays and lists of numbers are welcome."""
    samples = samples if isinstance(samples, Tensor) else torch.from_numpy(np.asarray(samples))
    if samples.ndim not in (1, 2):
        raise ValueError(sentence(where, "samples", "(T,) or (T, C), of C chains", tuple(samples.shape)))
    if samples.numel() < least or not samples.numel():
        raise ValueError(sentence(where, "samples", f"at least {least}", samples.numel()))
    if not bool(samples.isfinite().all()):
        raise ValueError(sentence(where, "samples", "finite numbers", "NaN or infinity"))
    return samples.double().reshape(len(samples), -1)


def binning(samples: Tensor) -> Binned:
    """Mean, error bar and autocorrelation time, by averaging over longer and longer bins until these are independent.

    Args:
        samples: (T,) of a chain in equilibrium, or (T, C) of C independent ones.
    Raises:
        ValueError: fewer than 64 numbers, numbers that are not finite, or another shape.
    Source:
        Flyvbjerg & Petersen 1989, J. Chem. Phys. 91(1):461-466, doi:10.1063/1.457480
    Example:
        >>> noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> found = binning(noise)
        >>> 0.009 < found.error < 0.012 and found.tau < 0.8
        True
    """
    bins = _chains("binning", samples, 2 * MIN_BINS)
    mean, errors = float(bins.mean()), []
    while bins.numel() >= MIN_BINS:
        errors.append(float((bins.var() / bins.numel()).sqrt()))
        pairs = len(bins) // 2
        bins = bins[: 2 * pairs].reshape(pairs, 2, bins.shape[1]).mean(1)
    levels = torch.tensor(errors, dtype=torch.float64)
    error = float(levels.max())
    tau = 0.5 * (error / errors[0]) ** 2 if errors[0] else 0.5
    return Binned(mean, error, tau, levels)


def autocorrelation(samples: Tensor, num_lags: int) -> Tensor:
    """(num_lags,) autocorrelation at lags 0, 1, 2 ..., 1 at lag 0; of C chains (T, C), with the mean of all.

    Raises:
        ValueError: as many lags as samples, or numbers that are all the same.
    """
    series = _chains("autocorrelation", samples, 2)
    check_positive("autocorrelation", num_lags=num_lags)
    length = len(series)
    if num_lags > length:
        raise ValueError(sentence("autocorrelation", "num_lags", f"at most {length}", num_lags))
    series = series - series.mean()
    if not bool(series.any()):
        raise ValueError(sentence("autocorrelation", "samples", "of different values", "a constant"))
    spectrum = torch.fft.rfft(series, n=2 * length, dim=0).abs().square()
    sums = torch.fft.irfft(spectrum, n=2 * length, dim=0)[:num_lags].sum(1)
    per_pair = sums / torch.arange(length, length - num_lags, -1)
    return per_pair / per_pair[0]


def autocorrelation_time(samples: Tensor, window: float = 6.0) -> float:
    """Integrated autocorrelation time, 1/2 + sum_t rho(t), in samples, up to the first lag of at least ``window`` times it.

    Args:
        samples: (T,) of a chain in equilibrium, or (T, C) of C independent ones.
    Source:
        Madras & Sokal 1988, J. Stat. Phys. 50:109-186, doi:10.1007/BF01022990 (the window: from memory)
    Example:
        >>> noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> abs(autocorrelation_time(noise) - 0.5) < 0.1
        True
    """
    rho = autocorrelation(samples, len(samples))
    taus = rho.cumsum(0) - 0.5
    enough = (torch.arange(len(rho)) >= window * taus).nonzero()
    return float(taus[enough[0, 0]] if len(enough) else taus[-1])


def jackknife(function: Callable[[Tensor], Tensor], samples: Tensor, num_bins: int = 64) -> Estimated:
    """A function of means, with its error bar; its bias of order 1 / num_bins is taken off.

    Args:
        function: means (..., K) of K quantities -> values (...).
        samples: (T, K) of one chain, or (T, C, K) of C independent ones.
        num_bins: into which the samples are cut along time, each longer than the autocorrelation time; with C chains of
            at least that number, every chain is a bin.
    Raises:
        ValueError: another shape, or fewer samples than bins.
    Source:
        Miller 1974, Biometrika 61(1):1-15, doi:10.1093/biomet/61.1.1 (from memory)
    Example:
        >>> draws = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> value, error = jackknife(lambda m: m[..., 1] - m[..., 0] ** 2, torch.stack([draws, draws**2], -1))
        >>> abs(value - 1) < 3 * error < 0.06
        True
    """
    check_positive("jackknife", num_bins=num_bins)
    samples = samples if isinstance(samples, Tensor) else torch.from_numpy(np.asarray(samples))
    if samples.ndim not in (2, 3):
        raise ValueError(sentence("jackknife", "samples", "(T, K) or (T, C, K)", tuple(samples.shape)))
    chains = samples.double().reshape(len(samples), -1, samples.shape[-1])
    if chains.shape[1] >= num_bins:
        bins = chains.mean(0)
    else:
        if len(chains) < num_bins:
            raise ValueError(sentence("jackknife", "samples", f"at least {num_bins} long", len(chains)))
        size = len(chains) // num_bins
        bins = chains[: size * num_bins].reshape(num_bins, size, *chains.shape[1:]).mean((1, 2))
    number, total = len(bins), bins.mean(0)
    without = function((number * total - bins) / (number - 1))
    whole = function(total)
    error = ((number - 1) * (without - without.mean()).square().mean()).sqrt()
    return Estimated(float(number * whole - (number - 1) * without.mean()), float(error))


def binder_cumulant(magnetisation: Tensor, num_bins: int = 64) -> Estimated:
    """U = 1 - <m^4> / (3 <m^2>^2): 0 where m is normal (disorder), 2/3 where it is +-m0 (order); at the critical
    temperature a number that hardly knows the size, so that curves of different sizes cross there.

    Args:
        magnetisation: (T,) of a chain in equilibrium, or (T, C) of C independent ones.
        num_bins: of the jackknife.
    Source:
        Binder 1981, Z. Phys. B 43:119-140, doi:10.1007/BF01293604
    Example:
        >>> tossed = 2.0 * torch.randint(0, 2, (1000,), generator=torch.Generator().manual_seed(0)) - 1
        >>> round(binder_cumulant(tossed).value, 4)
        0.6667
    """
    m = _chains("binder_cumulant", magnetisation, 2)
    powers = torch.stack([m**2, m**4], -1)
    return jackknife(lambda means: 1 - means[..., 1] / (3 * means[..., 0] ** 2), powers, num_bins)
