"""Sixty-four spins in a word: the bits are where they should be, both forms agree, and the law of equilibrium holds."""

import math
from dataclasses import replace

import pytest
import torch

from recurra.core import configurations
from recurra.memories.checkerboard import Checkerboard
from recurra.memories.packed_ising import PackedIsing, PackedState

SMALL = PackedIsing((4, 4), copies=64)
CASES = [
    SMALL,
    PackedIsing((6, 36), copies=64),
    PackedIsing((4, 128)),
    PackedIsing((2, 384), coupling=-0.5),
    PackedIsing((2, 2176)),
]


@pytest.mark.parametrize("ising", CASES, ids=repr)
def test_spins_find_their_bits_and_come_back(ising: PackedIsing):
    spins = torch.randint(0, 2, (ising.copies, ising.num_spins), generator=torch.Generator().manual_seed(0)) * 2 - 1
    words = ising.pack(spins.to(torch.int8))
    assert words.shape == ising.start(0).words.shape
    assert torch.equal(ising.unpack(words), spins)
    measured = ising.measure(PackedState(words, ising.start(0).random))
    torch.testing.assert_close(measured.magnetisation, spins.double().mean(1))
    torch.testing.assert_close(measured.energy, ising.lattice().energy(spins) / ising.num_spins)


@pytest.mark.parametrize("ising", CASES, ids=repr)
def test_machine_code_moves_as_the_reference(ising: PackedIsing):
    for beta in (0.0, 0.3, 1.5, math.inf):
        state = ising.start(1)
        kept = [leaf.clone() for leaf in state]
        fast, slow = (replace(ising, native=n).sweep(state, beta, 3) for n in (True, False))
        assert all(map(torch.equal, fast, slow))
        assert all(map(torch.equal, state, kept))
        again = ising.sweep(ising.sweep(state, beta, 1), beta, 2)
        assert all(map(torch.equal, fast, again))


def test_rare_random_numbers_that_sixteen_bits_do_not_decide_are_drawn_further():
    """With a probability of 2^-18 the leading 16 bits never decide for a flip; the rest has to."""
    ising, beta = PackedIsing((128, 128), copies=64), 18 * math.log(2) / 4
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    black = ((rows + columns) % 2 == 0).flatten()
    stripes = torch.where(rows % 4 < 2, 1, -1).flatten().expand(64, -1)  # everywhere three neighbours agree
    words, turned, num_trials = ising.pack(stripes), 0, 8
    for seed in range(num_trials):
        after = ising.sweep(PackedState(words, ising.start(seed).random), beta)
        turned += int((ising.unpack(after.words) != stripes)[:, black].sum())
    expected = num_trials * 64 * ising.num_spins / 2 * 2.0**-18
    assert abs(turned - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("beta", [0.2, 0.44, 0.9])
def test_a_small_lattice_against_enumeration(beta: float):
    lattice = SMALL.lattice()
    every = configurations(16)
    energies, ups = lattice.energy(every), every.double().mean(1).abs()
    weights = torch.softmax(-beta * energies, 0)
    state = SMALL.sweep(SMALL.start(3), beta, 300)
    found = []
    for _ in range(500):
        state = SMALL.sweep(state, beta, 4)
        measured = SMALL.measure(state)
        found.append(torch.stack([measured.energy * 16, measured.magnetisation.abs()]))
    chains = torch.stack(found).mean(0)  # (2, 64)
    for exact, mean in zip((energies, ups), chains):
        error = float(mean.std() / 8)
        assert abs(float(mean.mean() - (weights * exact).sum())) < 5 * error


def test_two_long_rows_against_the_transfer_matrix():
    """One lattice in 64 parts: 2 x 128, rows coupled twice. Energy per spin, within five standard errors of 40 chains."""
    ising, beta = PackedIsing((2, 128)), 0.35
    log_sums = [_log_sum_of_two_rows(128, b) for b in (beta - 1e-4, beta + 1e-4)]
    exact = -(log_sums[1] - log_sums[0]) / 2e-4 / 256
    means = []
    for seed in range(40):
        state = ising.sweep(ising.start(seed), beta, 60)
        energies = []
        for _ in range(60):
            state = ising.sweep(state, beta, 2)
            energies.append(float(ising.measure(state).energy))
        means.append(sum(energies) / len(energies))
    mean = torch.tensor(means, dtype=torch.float64)
    assert abs(float(mean.mean()) - exact) < 5 * float(mean.std()) / 40**0.5


def _log_sum_of_two_rows(length: int, beta: float) -> float:
    columns = configurations(2).double()
    inside = 2 * columns[:, 0] * columns[:, 1]
    matrix = torch.exp(beta * (columns @ columns.T + (inside[:, None] + inside) / 2))
    eigenvalues = torch.linalg.eigvalsh(matrix)
    return float(torch.logsumexp(length * eigenvalues.log(), 0))


def test_it_does_as_the_plain_checkerboard_does():
    """Energies of both after the same sweeps from all spins up, on the way and not only in equilibrium."""
    ising, beta = PackedIsing((8, 8), copies=64), 0.5
    generator = torch.Generator().manual_seed(4)
    spins, plain = torch.ones(64 * 30, 64, dtype=torch.int8), Checkerboard(rule="metropolis")
    states = [ising.start(seed, up=True) for seed in range(30)]
    for _ in range(4):
        spins = plain.sweep(ising.lattice(), spins, beta, generator)
        states = [ising.sweep(state, beta) for state in states]
        ours = torch.cat([ising.measure(state).energy for state in states])
        theirs = ising.lattice().energy(spins) / 64
        error = ((ours.var() + theirs.var()) / len(ours)).sqrt()
        assert abs(float((ours.mean() - theirs.mean()) / error)) < 5


REFUSED = {
    "copies must be one of 1, 64, got 2": lambda: PackedIsing((4, 4), copies=2),
    "shape must be two even sides, got": lambda: PackedIsing((3, 4), copies=64),
    r"shape must be \(H, a multiple of 128\), got \(64, 64\). Take copies=64": lambda: PackedIsing((64, 64)),
    r"spins must be \(64, 16\), got \(1, 16\)": lambda: SMALL.pack(torch.ones(1, 16)),
    "beta must be at least 0, got -1": lambda: SMALL.sweep(SMALL.start(0), -1),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused(words: str):
    with pytest.raises(ValueError, match=f"PackedIsing: {words}"):
        REFUSED[words]()
