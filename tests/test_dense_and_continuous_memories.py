"""Continuous Hopfield networks, dense associative memories and modern Hopfield networks, against what is known of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from recurra.cells import ContinuousHopfieldCell
from recurra.core import Timed
from recurra.core.spins import configurations
from recurra.layers import Recurrent
from recurra.memories import (
    BAM,
    ContinuousBAM,
    ContinuousHopfield,
    DenseAssociativeMemory,
    ModernHopfield,
    dense_associative,
)
from recurra.memories.continuous_hopfield import HopfieldCircuit
from recurra.memories.graded import Graded
from recurra.memories.steep_updates import relax_steep


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- continuous -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", ["tanh", "arctan"])
def test_the_response_its_inverse_and_its_integral_belong_together(response):
    graded = Graded(3.0, response)
    u = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64, requires_grad=True)
    v = graded.output(u)
    assert torch.allclose(graded.voltage(v), u, atol=1e-12)
    assert torch.autograd.grad(v.sum(), u)[0].max().item() == pytest.approx(3.0)
    v = v.detach().requires_grad_()
    assert torch.allclose(torch.autograd.grad(graded.stored(v).sum(), v)[0], u.detach(), atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("integrator", ["euler", "rk4", "adaptive"])
@pytest.mark.parametrize("response", ["tanh", "arctan"])
def test_energy_never_rises_in_any_circuit(integrator, response, seed):
    """Random symmetric circuits with currents, which store nothing; steps as long as they may be."""
    memory = ContinuousHopfield(
        6, gain=8.0, response=response, integrator=integrator, resistance=1.5, capacitance=0.7, max_time_s=6.0
    )
    wires = torch.randn(6, 6, generator=generator(seed), dtype=torch.float64)
    circuit = HopfieldCircuit((wires + wires.T) / 2, torch.randn(6, generator=generator(seed + 9)).double())
    cues = 2 * torch.rand(3, 6, generator=generator(seed), dtype=torch.float64) - 1
    heights = torch.stack([memory.energy(circuit, v) for v in memory.trajectory(circuit, cues)])
    assert len(heights) > 5
    assert float((heights[1:] - heights[:-1]).max()) <= 1e-9


def test_a_step_beyond_the_safe_one_lets_the_energy_rise():
    """Two amplifiers that inhibit each other: at twice the bound they change sides for ever."""
    memory = ContinuousHopfield(2, gain=5.0, max_time_s=30.0)
    circuit = HopfieldCircuit(-torch.eye(2).double() * 2, torch.zeros(2).double())
    safe = memory.safe_dt_s(circuit)
    assert safe == pytest.approx(1 / (1 + 5 * 2))
    cue = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert bool(memory.read(circuit, cue).converged)
    wild = replace(memory, dt_s=8 * safe)
    heights = torch.stack([wild.energy(circuit, v) for v in wild.trajectory(circuit, cue)])
    assert float((heights[1:] - heights[:-1]).max()) > 0.01


def test_the_energy_falls_as_fast_as_the_paper_says():
    memory = ContinuousHopfield(5, gain=2.0, resistance=2.0, capacitance=0.5)
    wires = torch.randn(5, 5, generator=generator(), dtype=torch.float64)
    circuit = HopfieldCircuit((wires + wires.T) / 2, torch.randn(5, generator=generator(1)).double())
    u = torch.randn(3, 5, generator=generator(2), dtype=torch.float64, requires_grad=True)
    v = memory.amplifier.output(u)
    (slope,) = torch.autograd.grad(memory.energy(circuit, v).sum(), v, retain_graph=True)
    assert torch.allclose(slope, -memory.capacitance * memory.derivative(circuit, u), atol=1e-9)  # dE/dV = -C du/dt


def test_at_high_gain_the_stable_states_are_those_of_the_binary_network():
    """By enumeration: every stable corner is recalled, and what is recalled stands at a stable corner."""
    memory = ContinuousHopfield(12, gain=200.0)
    circuit = memory.write(memory.empty(), memory.draw(3, generator()))
    corners = configurations(12).double()
    field = corners @ circuit.conductances
    stable = corners[((field * corners) > 0.05).all(1)]
    assert len(stable) >= 2
    recall = memory.read(circuit, stable)
    assert torch.allclose(recall.value, stable, atol=1e-6)
    assert bool(recall.converged.all())


def test_at_low_gain_everything_is_forgotten():
    memory = ContinuousHopfield(32, gain=0.8)
    patterns = memory.draw(2, generator())
    recall = memory.read(memory.write(memory.empty(), patterns), patterns)
    assert float(recall.value.abs().max()) < 1e-6


def test_the_integrators_agree():
    patterns = ContinuousHopfield(20).draw(4, generator())
    cues = 0.9 * ContinuousHopfield(20).draw(2, generator(5))
    found = []
    for integrator, dt_s in (("euler", 0.001), ("rk4", 0.01), ("adaptive", None)):
        memory = ContinuousHopfield(20, gain=3.0, integrator=integrator, dt_s=dt_s, max_time_s=0.5)
        found.append(memory.read(memory.write(memory.empty(), patterns), cues).value)
    assert torch.allclose(found[1], found[2], atol=1e-6)
    assert torch.allclose(found[0], found[2], atol=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"^ContinuousHopfield: size must be at least 1, got 0\."),
        ({"gain": 0.0}, r"^ContinuousHopfield: gain must be positive and finite, got 0\.0\."),
        (
            {"integrator": "heun"},
            r"^ContinuousHopfield: integrator must be one of 'euler', 'rk4', 'adaptive', got 'heun'",
        ),
        ({"response": "relu"}, r"^ContinuousHopfield: response must be one of"),
    ],
)
def test_continuous_messages(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContinuousHopfield(**arguments)


def test_what_cannot_be_wired_or_recalled_is_refused():
    memory = ContinuousHopfield(2)
    with pytest.raises(ValueError, match=r"^ContinuousHopfield: cue must be in \[-1, 1\], got 3\.0\."):
        memory.read(memory.empty(), torch.tensor([[3.0, 0.0]]))
    crooked = HopfieldCircuit(torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double(), torch.zeros(2).double())
    with pytest.raises(
        ValueError, match=r"^ContinuousHopfield: conductances must be symmetric, got a difference of 1\."
    ):
        memory.read(crooked, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"Turn 0 and 1 into -1 and \+1 with 2 \* keys - 1\."):
        memory.write(memory.empty(), torch.tensor([[0.0, 1.0]]))


def test_the_cell_is_the_circuit():
    """One cell, one circuit, one step of the same solver; and a settled cell stands at a minimum of the energy."""
    cell = ContinuousHopfieldCell(2, 6, gain=3.0, generator=generator(), dtype=torch.float64)
    x = torch.randn(1, 2, generator=generator(1), dtype=torch.float64)
    with torch.no_grad():
        circuit = HopfieldCircuit(3 * cell.conductances, cell.bias + x[0] @ cell.weight_ih.T)
        cell.weight_hh.mul_(3)
        memory = ContinuousHopfield(6, gain=3.0, integrator="rk4", dt_s=0.1, tolerance=1e-10)
        cue = torch.zeros(1, 6, dtype=torch.float64)
        path = memory.trajectory(circuit, cue)
        gaps = torch.full((len(path) - 1, 1), 0.1, dtype=torch.float64)
        ys, _ = Recurrent(cell)(Timed(x.expand(len(path) - 1, 1, 2), gaps))
    assert torch.allclose(ys, path[1:], atol=1e-9)


# --- dense ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [*DenseAssociativeMemory.examples(), DenseAssociativeMemory(24, order=5)], ids=str)
def test_an_update_is_the_difference_of_two_energies(memory):
    """The definition, unit by unit, with E itself: a unit goes where E is lower, and stays where it is equal."""
    patterns = memory.draw(12, generator(1))
    state = memory.write(memory.empty(), patterns)
    cues = memory.draw(4, generator(2))
    wanted = cues.clone()
    for _ in range(3):
        for i in range(memory.size):
            up, down = wanted.clone(), wanted.clone()
            up[:, i], down[:, i] = 1.0, -1.0
            gain = memory.energy(state, down) - memory.energy(state, up)
            small = gain.abs() <= 1e-9 * memory.energy(state, up).abs()
            wanted[:, i] = torch.where(small, wanted[:, i], gain.sign().float())
    assert torch.equal(replace(memory, max_sweeps=3).read(state, cues).value, wanted)


@pytest.mark.parametrize("memory", [*DenseAssociativeMemory.examples(), DenseAssociativeMemory(24, order=5)], ids=str)
def test_machine_code_takes_the_same_turns(memory):
    """Crowded memories, cues with unknown units, turns in another order: `read` against the loop of `trajectory`."""
    memory = replace(memory, turns=tuple(torch.randperm(memory.size, generator=generator(4)).tolist()))
    patterns = memory.draw(40, generator(1))
    cues = memory.draw(12, generator(2)) * (torch.rand(12, memory.size, generator=generator(3)) < 0.8)
    value, steps, converged, _ = memory._run(patterns, cues, keep=False)
    assert float(steps.max()) > 1
    for found in (memory.read(patterns, cues), python_read(memory, patterns, cues)):
        assert torch.equal(found.value, value)
        assert torch.equal(found.steps, steps)
        assert torch.equal(found.converged, converged)


def python_read(memory, patterns, cues):
    """`read` with the readable reference of the loop, on a few cues."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_associative, "relax_steep", lambda *a, threads: relax_steep.python(*(np_of(x) for x in a)))
        return memory.read(patterns, cues)


def np_of(x):
    return x.numpy() if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize("memory", [*DenseAssociativeMemory.examples(), DenseAssociativeMemory(24, order=5)], ids=str)
def test_pulls_of_all_units_at_once_are_those_of_single_units(memory):
    """Up to the factor of the exponential: against E of the unit up and down."""
    patterns = memory.draw(12, generator(1))
    cues = torch.cat([memory.draw(3, generator(2)), torch.where(memory.draw(1, generator(3)) > 0, memory.draw(1), 0.0)])
    found = memory.pulls(patterns, cues)
    for i in range(memory.size):
        overlap = cues.double() @ patterns.double().T - cues[:, i : i + 1].double() * patterns[:, i].double()
        up, down = overlap + patterns[:, i], overlap - patterns[:, i]
        if memory.interaction == "exponential":
            wanted = (up.exp() - down.exp()).sum(-1) / (cues.double() @ patterns.double().T).amax(-1).exp()
            wanted = wanted / (math.e - 1 / math.e)
        else:
            wanted = (memory._f(up) - memory._f(down)).sum(-1)
        assert torch.allclose(found[:, i], wanted, rtol=1e-9, atol=1e-9)


def test_order_two_is_the_hopfield_network():
    memory = DenseAssociativeMemory(40, order=2)
    patterns, cues = memory.draw(6, generator()), memory.draw(5, generator(1))
    weights = patterns.T @ patterns * (1 - torch.eye(40))
    wanted = cues.clone()
    for _, i in itertools.product(range(50), range(40)):
        field = wanted @ weights[:, i]
        wanted[:, i] = torch.where(field == 0, wanted[:, i], field.sign())
    assert torch.equal(memory.read(memory.write(memory.empty(), patterns), cues).value, wanted)


def test_steeper_energies_hold_more():
    kept = []
    for memory in (DenseAssociativeMemory(40, order=2), DenseAssociativeMemory(40, order=3),
                   DenseAssociativeMemory(40, "exponential")):  # fmt: skip
        patterns = memory.draw(60, generator())
        kept.append(
            float(
                (memory.read(memory.write(memory.empty(), patterns), patterns).value == patterns).all(1).float().mean()
            )
        )
    assert kept[0] < 0.05
    assert kept[1] > 0.5
    assert kept[2] == 1.0


def test_capacities():
    assert DenseAssociativeMemory(100, order=2).capacity() == pytest.approx(100 / (2 * 4.60517), rel=1e-5)
    assert DenseAssociativeMemory(100, order=4).capacity() == pytest.approx(100**3 / (2 * 15 * 4.60517), rel=1e-5)
    assert DenseAssociativeMemory(20, "exponential").capacity() == 1024


def test_nothing_stored_nothing_moves():
    for memory in (DenseAssociativeMemory(8), DenseAssociativeMemory(8, "exponential"), ModernHopfield(8)):
        cue = memory.draw(2, generator())
        recall = memory.read(memory.empty(), cue)
        assert torch.equal(recall.value, cue)
        assert bool(recall.converged.all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 1}, r"^DenseAssociativeMemory: order must be at least 2, got 1\."),
        (
            {"interaction": "log"},
            r"^DenseAssociativeMemory: interaction must be one of 'power', 'rectified', 'exponential'",
        ),
        (
            {"size": 2, "turns": (0, 0)},
            r"^DenseAssociativeMemory: turns must be a permutation of 0\.\.1, got \(0, 0\)\.",
        ),
    ],
)
def test_dense_messages(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseAssociativeMemory(**arguments)


# --- modern -----------------------------------------------------------------------------------------------------


def test_the_update_of_the_modern_network_is_attention():
    memory = ModernHopfield(24, beta=0.3)
    stored = torch.randn(11, 24, generator=generator(), dtype=torch.float64)
    cues = torch.randn(5, 24, generator=generator(1), dtype=torch.float64)
    wanted = torch.nn.functional.scaled_dot_product_attention(cues[None], stored[None], stored[None], scale=0.3)[0]
    assert float((memory.update(stored, cues) - wanted).abs().max()) < 1e-14


def test_the_update_of_the_modern_network_goes_down_its_energy():
    """z' - z is minus the gradient of E: the concave part is replaced by its tangent."""
    memory = ModernHopfield(10, beta=0.7)
    stored = torch.randn(6, 10, generator=generator(), dtype=torch.float64)
    z = torch.randn(4, 10, generator=generator(1), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(memory.energy(stored, z).sum(), z)
    assert torch.allclose(memory.update(stored, z) - z, -slope, atol=1e-12)
    assert bool((memory.energy(stored, z) >= 0).all())


def test_small_beta_recalls_the_mean():
    memory = ModernHopfield(16, beta=1e-4)
    patterns = memory.draw(7, generator())
    recall = memory.read(memory.write(memory.empty(), patterns), patterns)
    assert torch.allclose(recall.value, patterns.mean(0).expand_as(patterns), atol=1e-2)


def test_modern_messages():
    with pytest.raises(ValueError, match=r"^ModernHopfield: beta must be positive and finite, got -1\.0\."):
        ModernHopfield(4, beta=-1.0)
    memory = ModernHopfield(4)
    with pytest.raises(ValueError, match=r"^ModernHopfield: keys must be \(rows, 4\), got \(1, 3\)\."):
        memory.write(memory.empty(), torch.zeros(1, 3))
    with pytest.raises(
        TypeError, match=r"^ModernHopfield: keys must be floating, got int64\. Convert it with \.float\(\)\."
    ):
        memory.write(memory.empty(), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^ModernHopfield: keys must be finite, got NaN or infinity\."):
        memory.write(memory.empty(), torch.full((1, 4), float("nan")))


@pytest.mark.parametrize(
    "memory",
    [
        ContinuousHopfield(6),
        ContinuousHopfield(6, integrator="adaptive"),
        DenseAssociativeMemory(6),
        DenseAssociativeMemory(6, "exponential"),
        ModernHopfield(6),
        BAM(6, 6),
        ContinuousBAM(6, 6),
    ],
    ids=str,
)
def test_no_cue_no_recall_and_cues_of_either_type(memory):
    state = memory.write(memory.empty(), memory.draw(2, generator()))
    assert memory.read(state, memory.draw(0)).value.shape == (0, 6)
    cue = memory.draw(3, generator(1))
    assert torch.equal(memory.read(memory.write(state, memory.draw(0)), cue).value, memory.read(state, cue).value)
    for dtype in (torch.float32, torch.float64):
        cue = memory.draw(3, generator(1)).to(dtype)
        recall = memory.read(state, cue)
        assert recall.value.dtype == dtype
        path = memory.trajectory(state, cue)
        last = path if isinstance(path, torch.Tensor) else path.values
        assert torch.allclose(last[-1], recall.value, atol=1e-5)


@pytest.mark.parametrize("memory", [DenseAssociativeMemory(4), ModernHopfield(4)])
def test_what_was_never_written_cannot_be_taken_out(memory: DenseAssociativeMemory | ModernHopfield) -> None:
    known, other = torch.tensor([[1.0, -1, 1, 1]]), torch.tensor([[1.0, 1, 1, 1]])
    state = memory.write(memory.empty(), known)
    assert len(memory.erase(state, known)) == 0
    where = f"^{type(memory).__name__}: keys\\[1\\] must be a stored pattern, got another\\."
    with pytest.raises(ValueError, match=where):
        memory.erase(state, torch.cat([known, other]))
