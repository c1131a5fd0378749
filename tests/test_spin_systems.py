"""Systems of spins: energies and fields agree with the definition and with each other; what does not fit is refused."""

import pytest
import torch

from recurra.core import SpinSystem, configurations
from recurra.memories.systems import (
    DenseSystem,
    Lattice,
    SparseSystem,
    couplings_of,
    neighbours_of,
    sherrington_kirkpatrick,
)
from recurra.testing.spin_laws import SmallGlass

SIX = torch.Generator().manual_seed(6)
EDGES = torch.tensor([[0, 1], [3, 1], [4, 0], [4, 5], [0, 1]])
SYSTEMS: dict[str, SpinSystem] = {
    "glass": sherrington_kirkpatrick(6, SIX),
    "graph": SparseSystem(6, EDGES, torch.randn(5, generator=SIX), torch.randn(6, generator=SIX)),
    "square": Lattice((2, 3), coupling=-0.5, outer=0.25),
    "chain": Lattice((6,), periodic=False),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_energy_is_the_definition(name: str):
    system, spins = SYSTEMS[name], configurations(6)
    matrix, signs = couplings_of(system), spins.to(couplings_of(system).dtype)
    expected = -0.5 * torch.einsum("bi,ij,bj->b", signs, matrix, signs) - signs @ system.outer_field
    torch.testing.assert_close(system.energy(spins), expected)
    torch.testing.assert_close(SpinSystem.energy(system, spins), expected)
    torch.testing.assert_close(system.field(spins), signs @ matrix + system.outer_field)


@pytest.mark.parametrize("name", SYSTEMS)
def test_lists_and_matrices_say_the_same(name: str):
    near = neighbours_of(SYSTEMS[name])
    matrix = torch.zeros(6, 6, dtype=near.coupling.dtype)
    matrix.index_put_((near.owner, near.other), near.coupling, accumulate=True)
    ends = torch.stack([near.owner, near.other]).sort(0).values
    assert all(len(ends[:, near.edge == e].unique(dim=1).T) == 1 for e in near.edge.unique())
    torch.testing.assert_close(matrix, couplings_of(SYSTEMS[name]))


def test_couplings_of_a_system_that_only_knows_its_fields():
    matrix = sherrington_kirkpatrick(5, SIX).couplings
    torch.testing.assert_close(couplings_of(SmallGlass(matrix, torch.ones(5, dtype=torch.float64))), matrix)


def test_lattices_have_the_edges_they_should():
    assert len(Lattice((4, 5)).edges) == 40
    assert len(Lattice((4, 5), periodic=False).edges) == 31
    assert len(Lattice((3, 4, 5)).edges) == 180
    up = torch.ones(1, 20, dtype=torch.int8)
    assert float(Lattice((4, 5)).energy(up)) == -40


REFUSED = {
    "square": (ValueError, lambda: DenseSystem(torch.zeros(2, 3)), r"couplings must be \(N, N\), got \(2, 3\)"),
    "whole": (TypeError, lambda: DenseSystem(torch.zeros(2, 2).int()), "must be floating point, got int32"),
    "lopsided": (ValueError, lambda: DenseSystem(torch.tensor([[0.0, 1], [2, 0]])), "couplings must be symmetric"),
    "itself": (ValueError, lambda: DenseSystem(torch.eye(2)), "zero on the diagonal, got a spin coupled to itself"),
    "outer": (ValueError, lambda: DenseSystem(torch.zeros(2, 2), torch.ones(3)), r"outer must be \(2,\), got \(3,\)"),
    "kind": (TypeError, lambda: DenseSystem(torch.zeros(2, 2), torch.ones(2).double()), "float32, got float64"),
    "range": (ValueError, lambda: SparseSystem(2, EDGES, torch.ones(5)), r"edges must be in 0\.\.1, got 5"),
    "edges": (ValueError, lambda: SparseSystem(9, EDGES[0], torch.ones(2)), r"edges must be \(E, 2\), got \(2,\)"),
    "dtype": (TypeError, lambda: SparseSystem(9, EDGES.int(), torch.ones(5)), "edges must be int64, got int32"),
    "weights": (ValueError, lambda: SparseSystem(9, EDGES, torch.ones(4)), r"weights must be \(5,\), got \(4,\)"),
    "loop": (ValueError, lambda: SparseSystem(2, torch.tensor([[1, 1]]), torch.ones(1)), "an edge from a spin to"),
    "sides": (ValueError, lambda: Lattice((4, 1)), r"Lattice: shape must be sides of at least 2, got \(4, 1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str):
    error, make, words = REFUSED[name]
    with pytest.raises(error, match=words):
        make()
