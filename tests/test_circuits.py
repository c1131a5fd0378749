"""Memristive circuits: loops, Kirchhoff, the closed form of one device, the Lyapunov function, walls."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.integrate import solve_ivp

from recurra.core.circuits import MemristiveCircuit, _rosenbrock, cycle_matrix, incidence_matrix, loop_basis, relax
from recurra.core.spins import configurations

F = torch.float64


def grid(seed: int, alpha: float = 0.3, xi: float = 5.0) -> tuple[MemristiveCircuit, torch.Tensor, torch.Tensor]:
    """A square with both diagonals and a tail: 7 edges, 5 nodes, 3 loops; also its loops and its incidence."""
    edges = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3], [3, 4]])
    loops = cycle_matrix(5, edges)
    sources = torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=F)
    return MemristiveCircuit(loop_basis(loops), sources, alpha, 2.0, xi), loops, incidence_matrix(5, edges)


def memories(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, 7, generator=torch.Generator().manual_seed(seed), dtype=F)


def test_loops_close_and_currents_obey_kirchhoff() -> None:
    circuit, loops, incidence = grid(0)
    assert loops.shape == (3, 7)
    assert float((incidence @ loops.T).abs().max()) == 0.0
    w = memories(1, 4)
    current = circuit.currents(w)
    assert float((current @ incidence.T).abs().max()) < 1e-12
    assert float((((1 + 5.0 * w) * current - circuit.sources) @ loops.T).abs().max()) < 1e-12
    assert float(current[:, 6].abs().max()) < 1e-14  # the tail is on no loop


def test_a_graph_in_pieces_with_a_pair_of_edges_and_an_edge_to_itself() -> None:
    loops = cycle_matrix(5, torch.tensor([[0, 1], [0, 1], [2, 3], [4, 4]]))
    assert loops.tolist() == [[-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def test_the_short_form_is_the_equation() -> None:
    circuit, _, _ = grid(2)
    w = memories(3)
    omega = circuit.projector
    matrix = torch.eye(7, dtype=F) + circuit.xi * omega @ torch.diag(w)
    plain = circuit.alpha * w - torch.linalg.solve(matrix, omega @ circuit.sources) / circuit.beta
    torch.testing.assert_close(circuit.free_velocity(w), plain, rtol=0, atol=1e-13)


def test_lyapunovs_function_falls_as_it_says() -> None:
    """dL/dt is minus a square, at random memories, by autograd."""
    circuit, _, _ = grid(4)
    w = memories(5, 10).requires_grad_()
    (slope,) = torch.autograd.grad(circuit.lyapunov(w).sum(), w)
    speed = circuit.free_velocity(w).detach()
    moved = w.detach().sqrt() * speed
    inner = moved * moved + circuit.xi * moved * ((w.detach().sqrt() * moved) @ circuit.projector) * w.detach().sqrt()
    torch.testing.assert_close((slope * speed).sum(-1), -inner.sum(-1), rtol=1e-12, atol=1e-12)


def test_at_the_corners_it_is_an_ising_model() -> None:
    circuit, _, _ = grid(6)
    s = configurations(7).double()
    omega = circuit.projector
    couplings = circuit.alpha * circuit.xi * omega / 8
    pairs = -(s @ couplings * s).sum(1) / 2
    value = circuit.lyapunov((1 + s) / 2)
    design = torch.cat([torch.ones(len(s), 1, dtype=F), s], 1)
    rest = value - pairs
    left = rest - design @ torch.linalg.lstsq(design, rest[:, None]).solution[:, 0]
    assert float(left.abs().max()) < 1e-12


def test_one_device_has_a_closed_form() -> None:
    one = torch.ones(1, dtype=F)
    circuit = MemristiveCircuit(one[None], -one, 0.0, 1.0, 8.0)
    times = torch.linspace(0, 4.9, 20, dtype=F)
    w = relax(circuit, 0 * one, times, 1e-11).memories[:, 0]
    torch.testing.assert_close(w + 4 * w * w, times, rtol=0, atol=1e-8)
    assert relax(circuit, 0 * one, torch.tensor([50.0])).memories.tolist() == [[1.0]]


@pytest.mark.parametrize(("alpha", "xi"), [(0.3, 5.0), (-2.0, 500.0)])
def test_trajectories_are_those_of_scipy(alpha: float, xi: float) -> None:
    """Before a wall is reached, with a mild and with a stiff circuit."""
    circuit, _, _ = grid(7, alpha, xi)
    start, times = 0.4 + 0.2 * memories(8), torch.linspace(0, 0.3, 4, dtype=F)
    found = relax(circuit, start, times, 1e-8)
    theirs = solve_ivp(
        lambda _, w: circuit.free_velocity(torch.from_numpy(w)).numpy(),
        (0, 0.3),
        start.numpy(),
        "Radau",
        times.numpy(),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(found.memories, torch.from_numpy(theirs.y.T), rtol=0, atol=1e-6)
    assert 0 < float(found.memories.min()) <= float(found.memories.max()) < 1


def test_the_error_of_a_step_is_of_fifth_order() -> None:
    circuit, _, _ = grid(7)
    start = 0.4 + 0.2 * memories(8)
    errors = []
    for length in (0.4, 0.2):
        exact = relax(circuit, start, torch.tensor([length]), 1e-13).memories[0]
        free = torch.ones(7, dtype=torch.bool)
        change, error = _rosenbrock(circuit, start, circuit.free_velocity(start), free, length)
        errors.append((float((start + change - exact).abs().max()), float(error.abs().max())))
    assert 24 < errors[0][0] / errors[1][0] < 40
    assert 12 < errors[0][1] / errors[1][1] < 20


def test_walls_hold_and_let_go() -> None:
    circuit, _, _ = grid(9, alpha=0.0)
    found = relax(circuit, memories(10), torch.logspace(-2, 4, 25, dtype=F))
    assert float(found.memories.min()) >= 0
    assert float(found.memories.max()) <= 1
    end = found.memories[-1]
    moving = circuit.velocity(end).abs()
    assert float(moving.max()) < 1e-9
    back = MemristiveCircuit(circuit.basis, -circuit.sources, 0.0, 2.0, 5.0)  # the sources turn round: off the walls
    assert float((relax(back, end, torch.tensor([1.0])).memories[0] - end).abs().max()) > 0.01


def test_mistakes() -> None:
    one = torch.ones(1, dtype=F)
    for make, message in (
        (lambda: cycle_matrix(2, torch.tensor([[0, 2]])), "edges must be of nodes from 0 to 1"),
        (lambda: MemristiveCircuit(one[None], torch.ones(2, dtype=F)), r"basis must be \(2, C\), got \(1, 1\)"),
        (lambda: MemristiveCircuit(2 * one[None], one), "basis must be of orthonormal columns"),
        (lambda: MemristiveCircuit(one[None], one, beta=0.0), "beta must be above 0"),
        (lambda: MemristiveCircuit(one[None], one, xi=-1.0), "xi must be at least 0"),
        (lambda: relax(MemristiveCircuit(one[None], one), one, torch.tensor([1.0, 1.0])), "times must be increasing"),
        (lambda: relax(MemristiveCircuit(one[None], one), 2 * one, torch.tensor([1.0])), "start must be"),
        (lambda: relax(MemristiveCircuit(one[None], one), 2 * one, torch.tensor([1.0])), "got from 2 to 2"),
        (lambda: MemristiveCircuit(one[None], torch.nan * one), "sources must be finite, got NaN or infinity"),
        (lambda: MemristiveCircuit(one[None], one, alpha=float("nan")), "alpha must be finite, got nan"),
        (lambda: relax(MemristiveCircuit(one[None], one), one, torch.tensor([1.0]), 0.0), "tolerance must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_every_small_graph_has_a_projector() -> None:
    pairs = list(itertools.combinations(range(4), 2))
    for chosen in itertools.product((0, 1), repeat=6):
        edges = torch.tensor([pair for pair, there in zip(pairs, chosen) if there]).reshape(-1, 2)
        basis = loop_basis(cycle_matrix(4, edges))
        omega = basis @ basis.T
        torch.testing.assert_close(omega @ omega, omega, rtol=0, atol=1e-12)
        incidence = incidence_matrix(4, edges)
        direct = torch.eye(len(edges), dtype=F) - torch.linalg.pinv(incidence) @ incidence
        torch.testing.assert_close(omega, direct, rtol=0, atol=1e-12)
