"""Loops of simulated annealing: one spin after another, its local field kept at hand."""

from __future__ import annotations

import math

import numpy as np

from ..native.loops import (
    compiled,
    f64_1d,
    f64_2d,
    i8_2d,
    i32_1d,
    i64_1d,
    num_threads,
    thread,
    u64_1d,
)

UNIT = 1.1102230246251565e-16  # 2^-53
HOPELESS = 745.2  # exp(-745.2) = 0 in double precision
BOUNDS = np.array([HOPELESS, *(-math.log(k / 1024) for k in range(1, 1025))])
"""-log u at the edges of 1024 equal parts of (0, 1)."""


@compiled
def metropolis(
    begin: i64_1d,
    index: i32_1d,
    coupling: f64_1d,
    spins: i8_2d,
    fields: f64_2d,
    betas: f64_1d,
    bounds: f64_1d,
    states: u64_1d,
    flips: i64_1d,
) -> None:
    """Sweeps at one temperature after another: a spin flips with probability min(1, exp(-2 beta s_i f_i)).

    A flip adds -2 s_i J_ij to the field of every neighbour; nothing else is computed again. Random numbers are splitmix64's
    (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195). The first ten bits of a number u say between which bounds -log u
    lies; only where 2 beta s_i f_i lies there too is the exponential asked, so nearly every decision is one comparison.

    Args:
        begin: (N + 1,) where the neighbours of each spin begin.
        index: (2 E,) the neighbours.
        coupling: (2 E,) J to each.
        spins: (R, N) of -1 and +1, changed in place.
        fields: (R, N) h_i + sum_j J_ij s_j, kept up to date.
        betas: (K,) inverse temperature of each sweep.
        bounds: `BOUNDS`.
        states: (R,) of the random numbers.
        flips: (R,) flips are added to it.
    """
    num_spins = spins.shape[1]
    row = thread()
    while row < spins.shape[0]:
        state = states[row]
        flipped = 0
        for k in range(len(betas)):
            double = 2 * betas[k]
            for i in range(num_spins):
                state += 0x9E3779B97F4A7C15
                word = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
                word = (word ^ (word >> 27)) * 0x94D049BB133111EB
                word ^= word >> 31
                part = int(word >> 54)
                x = double * (spins[row, i] * fields[row, i])
                if x >= bounds[part]:
                    continue
                if x > bounds[part + 1] and float(word >> 11) * UNIT >= math.exp(-x):
                    continue
                change = -2.0 * spins[row, i]
                spins[row, i] = -spins[row, i]
                flipped += 1
                for place in range(begin[i], begin[i + 1]):
                    fields[row, index[place]] += coupling[place] * change
        states[row] = state
        flips[row] += flipped
        row += num_threads()


@compiled
def descend(
    begin: i64_1d, index: i32_1d, coupling: f64_1d, spins: i8_2d, fields: f64_2d, most: int, flips: i64_1d
) -> None:
    """Flip whatever lowers the energy, one spin after another, until nothing does or ``most`` sweeps were made."""
    num_spins = spins.shape[1]
    row = thread()
    while row < spins.shape[0]:
        flipped = 1
        sweeps = 0
        while flipped > 0 and sweeps < most:
            flipped = 0
            for i in range(num_spins):
                if spins[row, i] * fields[row, i] < -1e-12:
                    change = -2.0 * spins[row, i]
                    spins[row, i] = -spins[row, i]
                    flipped += 1
                    for place in range(begin[i], begin[i + 1]):
                        fields[row, index[place]] += coupling[place] * change
            flips[row] += flipped
            sweeps += 1
        row += num_threads()


def seeds(seed: int, num_rows: int) -> np.ndarray:
    """(R,) states of `metropolis`, far from each other."""
    return np.random.default_rng(seed).integers(1, 2**64 - 1, num_rows, dtype=np.uint64)
