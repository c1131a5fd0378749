"""Spins as the corners that a differential equation runs into: Hopfield's net of graded units, and memristors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .annealing_run import Clock, Graph, Temperatures

BEGIN = 0.005  # how far from the middle the first read begins
LATEST = 0.65  # part of the schedule at which the last read begins
GAIN = 20.0  # alpha of the memristors, in units of the spread of the eigenvalues of J
PAIRING = 0.105  # strength with which the two memristors of a spin are kept apart, in units of alpha
MIDDLE = 0.25 / 2**0.5  # curvature of alpha w^3 / 3 at w^2 = 1/2, in units of alpha, for both together
SOLVING = 6  # steps of conjugate gradients


def hopfield_reads(
    graph: Graph,
    num_reads: int,
    num_steps: int,
    temperatures: Temperatures,
    rng: np.random.Generator,
    clock: Clock,
) -> np.ndarray:
    """(R, N) signs after  dv/dt = -v + tanh((J v + h) / T)  while T falls from twice the annealing's temperature.

    Each step is as long as the steepest direction allows, dt = min(1/2, T / |J|). Where T is high there is one point of rest,
    which all reads would pass and end alike: so each begins later in the schedule than the one before, from farther apart.

    Source:
        Hopfield & Tank 1985, Biol. Cybern. 52:141-152, doi:10.1007/BF00339943
    """
    matrix, size = graph.matrix(), len(graph.outer)
    low, high = graph.spectrum()
    steepest = max(-low, high, 1e-300)
    late = _beginnings(num_reads)
    v = np.maximum(BEGIN, late) * rng.uniform(-1, 1, (size, num_reads))
    outer = graph.outer[:, None]
    for parts in clock.blocks(num_steps):
        for part in parts:
            temperature = 2 * temperatures(late + (1 - late) * part)  # (R,)
            step = np.minimum(0.5, temperature / steepest)
            v += step * (np.tanh((matrix @ v + outer) / temperature) - v)
        _show(graph, _signs(v), len(parts), float(parts[-1]), clock)
    return _signs(v)


def memristive_reads(
    graph: Graph, num_reads: int, num_steps: int, rng: np.random.Generator, clock: Clock
) -> np.ndarray:
    """(R, N) spins of a memristive circuit in which every spin is a pair of memristors, s = w+^2 - w-^2.

    The circuit's equation, with walls at w = 0 and w = 1,

        (I + K W) dw/dt = alpha (w + K w^2) - z               K = xi Omega, z = Omega S / beta, W = diag(w)
        L(w) = -alpha/3 sum w^3 - alpha/4 (w^2)' K w^2 + 1/2 z' w^2

    lowers L as long as I + W^(1/2) K W^(1/2) is positive; that Omega be a projector is not needed. K and z are chosen such that
    at every corner with one memristor of each pair on, L is

        -1/2 s'(J + c I) s - h's + const = E(s) + const

    for any c. While c rises from where the middle (w^2 = 1/2) is stable, the directions of largest J leave it first. Each read
    begins with a larger c than the one before, farther from the middle, or all would leave it alike.

    Source:
        Caravelli 2019, Entropy 21(8):789, doi:10.3390/e21080789, for L (derived anew); the pairs and the rising c are our own
    """
    matrix, size = graph.matrix(), len(graph.outer)
    low, high = graph.spectrum()
    spread = max(high - low, float(np.abs(graph.outer).max()), 1e-300)
    alpha = GAIN * spread
    kappa = PAIRING * alpha
    start = -MIDDLE * alpha - high
    late = _beginnings(num_reads)
    side = np.maximum(BEGIN, late) * rng.uniform(-1, 1, (size, num_reads)) / 2
    w = np.sqrt(np.stack([0.5 + side, 0.5 - side]))  # (2, N, R)
    drive = 2 * (np.stack([-2 * kappa - graph.outer, -2 * kappa + graph.outer]) + alpha / 3)[..., None]

    def coupled(v: np.ndarray, c: np.ndarray) -> np.ndarray:
        """K v."""
        difference = v[0] - v[1]
        pull = 2 * (matrix @ difference + c * difference)
        apart = -4 * kappa * (v[0] + v[1])
        return np.stack([apart + pull, apart - pull]) / alpha

    def both(root: np.ndarray, c: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(I + W^(1/2) K W^(1/2)) v."""
        return v + root * coupled(root * v, c)

    for parts in clock.blocks(num_steps):
        for part in parts:
            c = start + spread * (late + (1 - late) * part)  # (R,)
            root = np.sqrt(w)
            force = alpha * (w + coupled(w * w, c)) - drive
            speed = force - coupled(root * _solve(partial(both, root, c), root * force), c)
            speed[((w <= 0) & (speed < 0)) | ((w >= 1) & (speed > 0))] = 0.0
            fastest = np.abs(speed).max((0, 1))
            w = np.clip(w + speed * np.minimum(0.1 / np.maximum(fastest, 1e-300), 0.5 / spread), 0.0, 1.0)
        _show(graph, _signs(w[0] - w[1]), len(parts), float(parts[-1]), clock)
    return _signs(w[0] - w[1])


def _beginnings(num_reads: int) -> np.ndarray:
    """(R,) parts of the schedule at which reads begin, the first one with the whole of it."""
    return LATEST * np.arange(num_reads) / num_reads


def _solve(product: Callable[[np.ndarray], np.ndarray], right: np.ndarray) -> np.ndarray:
    """A v = right for every column, by a few steps of conjugate gradients; A is near to the identity."""
    v, rest = np.zeros_like(right), right
    direction, size = right, (right**2).sum((0, 1))
    for _ in range(SOLVING):
        image = product(direction)
        step = size / np.maximum((direction * image).sum((0, 1)), 1e-300)
        v, rest = v + step * direction, rest - step * image
        new = (rest**2).sum((0, 1))
        direction, size = rest + new / np.maximum(size, 1e-300) * direction, new
    return v


def _signs(values: np.ndarray) -> np.ndarray:
    """(R, N) int8 of values (N, R)."""
    return np.ascontiguousarray(np.where(values >= 0, 1, -1).T.astype(np.int8))


def _show(graph: Graph, spins: np.ndarray, steps: int, part: float, clock: Clock) -> None:
    clock.see(spins, graph.energies(spins, graph.fields(spins)), steps, part)
