"""Locally recurrent cells, and causal recursive backpropagation on nets of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.cells import (
    ActivationFeedbackCell,
    AffineCell,
    FIRSynapseCell,
    GRUCell,
    IIRSynapseCell,
    IndRNNCell,
    LSTMCell,
    OutputFeedbackCell,
)
from recurra.core import Cell, Chunk, Controls, Leaf, MeanSquaredError
from recurra.learning import BPTT, CRBP, RTRL, SGD, Online
from recurra.learning import crbp as crbp_module
from recurra.wrappers import Readout, Stack

KINDS = [FIRSynapseCell, IIRSynapseCell, ActivationFeedbackCell, OutputFeedbackCell]


def run(cell: Cell, xs: Tensor) -> Tensor:
    state, ys = cell.initial_state(xs.shape[1]), []
    for x in xs:
        y, state = cell(x, state)
        ys.append(y)
    return torch.stack(ys)


# --- the cells: against filters written out sample by sample ---


@torch.no_grad()
def test_an_iir_synapse_is_the_filter_of_the_equations() -> None:
    torch.manual_seed(0)
    cell = IIRSynapseCell(2, 3, num_taps=3, num_feedback=2, activation="tanh").double()
    xs = torch.randn(9, 1, 2, dtype=torch.float64)
    assert cell.bias is not None
    net = cell.bias.detach().repeat(9, 1)
    for i, j in itertools.product(range(3), range(2)):
        z = [0.0, 0.0]
        for t in range(9):
            forward = sum(float(cell.weight_ih[k, i, j]) * float(xs[t - k, 0, j]) for k in range(3) if t >= k)
            z.append(forward + float(cell.weight_hh[0, i, j]) * z[-1] + float(cell.weight_hh[1, i, j]) * z[-2])
            net[t, i] += z[-1]
    torch.testing.assert_close(run(cell, xs)[:, 0], net.tanh())


@torch.no_grad()
@pytest.mark.parametrize("kind", [ActivationFeedbackCell, OutputFeedbackCell])
def test_an_iir_neuron_is_the_filter_of_the_equations(kind: Any) -> None:
    torch.manual_seed(0)
    cell = kind(2, 2, num_taps=2, num_feedback=3).double()
    xs = torch.randn(9, 1, 2, dtype=torch.float64)
    wanted = torch.zeros(9, 2, dtype=torch.float64)
    for i in range(2):
        back = [0.0, 0.0, 0.0]
        for t in range(9):
            s = float(cell.bias[i]) + sum(float(cell.weight_hh[m, i]) * back[-1 - m] for m in range(3))
            for k, j in itertools.product(range(min(2, t + 1)), range(2)):
                s += float(cell.weight_ih[i, 2 * k + j]) * float(xs[t - k, 0, j])
            wanted[t, i] = torch.tensor(s).tanh()
            back.append(s if kind is ActivationFeedbackCell else float(wanted[t, i]))
    torch.testing.assert_close(run(cell, xs)[:, 0], wanted)


def test_output_feedback_of_order_one_is_indrnn() -> None:
    torch.manual_seed(0)
    cell, other = OutputFeedbackCell(3, 4, num_taps=1, num_feedback=1), IndRNNCell(3, 4, activation="tanh")
    with torch.no_grad():
        other.weight_ih.copy_(cell.weight_ih)
        other.weight_hh.copy_(cell.weight_hh[0])
        other.bias.copy_(cell.bias)  # type: ignore[union-attr, arg-type]
    xs = torch.randn(8, 2, 3)
    torch.testing.assert_close(run(cell, xs), run(other, xs))


def test_a_fir_synapse_forgets_after_its_taps() -> None:
    cell = FIRSynapseCell(1, 2, num_taps=4)
    pulse = torch.zeros(8, 1, 1)
    ys, quiet = run(cell, pulse), run(cell, torch.cat([torch.ones(1, 1, 1), pulse[1:]]))
    assert bool((ys[:4] != quiet[:4]).any())
    assert torch.equal(ys[4:], quiet[4:])


@pytest.mark.parametrize("kind", [IIRSynapseCell, ActivationFeedbackCell])
def test_poles_tell_whether_a_filter_is_stable(kind: Any) -> None:
    """Inside the unit circle a pulse dies out, outside it grows; a bound on the taps keeps it inside."""
    torch.manual_seed(0)
    cell = kind(1, 1, num_feedback=3, activation="identity", max_feedback=0.95).double()
    pulse = torch.zeros(600, 1, 1, dtype=torch.float64)
    pulse[0] = 1.0
    with torch.no_grad():
        cell.weight_hh.copy_(torch.tensor([1.8, -1.1, 0.4], dtype=torch.float64).reshape(cell.weight_hh.shape))
        assert float(cell.largest_pole().max()) > 1
        assert float(run(cell, pulse)[-1].abs().max()) > 1e6
        cell.constrain()
        assert float(cell.weight_hh.abs().sum()) <= 0.95
        assert float(cell.largest_pole().max()) < 1
        assert float((run(cell, pulse)[-1] - run(cell, 0 * pulse)[-1]).abs().max()) < 1e-6


def test_a_filter_that_has_diverged_has_no_pole() -> None:
    cell = ActivationFeedbackCell(1, 2)
    with torch.no_grad():
        cell.weight_hh[0, 1] = torch.nan
    assert cell.largest_pole().isfinite().tolist() == [True, False]


@torch.no_grad()
def test_output_feedback_is_bounded_whatever_its_weights() -> None:
    cell = OutputFeedbackCell(1, 3, feedback_range=50.0)
    assert float(run(cell, torch.randn(100, 2, 1)).abs().max()) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_taps": 0}, r"num_taps must be at least 1, got 0"),
        ({"feedback_range": -1.0}, r"feedback_range must be a number of at least 0, got -1.0"),
        ({"max_feedback": 0.0}, r"max_feedback must be None or a number above 0, got 0.0"),
        ({"activation": "sine"}, r"activation must be one of .*'identity', got 'sine'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_messages(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(2, 3, **arguments)


# --- CRBP ---

NETS: dict[str, Any] = {
    "iir": lambda: Stack(IIRSynapseCell(2, 3), IIRSynapseCell(3, 2, activation="identity")),
    "three kinds": lambda: Readout(
        Stack(ActivationFeedbackCell(2, 3).learn_initial_state(), OutputFeedbackCell(3, 3), IIRSynapseCell(3, 2)), 2
    ),
    "gates": lambda: Readout(Stack(LSTMCell(2, 3), GRUCell(3, 2)), 2),
    "fir": lambda: Stack(FIRSynapseCell(2, 3), FIRSynapseCell(3, 2, num_taps=4)),
    "one layer": lambda: IIRSynapseCell(2, 2),
}


def stream(cell: Cell, num_steps: int = 24, rows: int = 2) -> Chunk:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    reset = torch.rand(num_steps, rows, generator=generator) < 0.08
    reset[0] = True
    weights = torch.rand(num_steps, rows, generator=generator, dtype=torch.float64)
    return Chunk(draw(num_steps, rows, 2), draw(num_steps, rows, 2), weights, Controls(reset=reset))


def along(rule: Any, cell: Cell, chunk: Chunk, edges: list[int]) -> dict[str, Tensor]:
    carry, total = rule.init(cell, chunk.xs.shape[1]), dict[str, Tensor]()
    assert chunk.weights is not None
    for a, b in itertools.pairwise(edges):
        part = Chunk(chunk.xs[a:b], chunk.targets[a:b], chunk.weights[a:b], chunk.controls.window(a, b))
        carry, estimate = rule.step(cell, carry, part, MeanSquaredError())
        total = {n: total.get(n, 0) + d for n, d in estimate.direction.items()}
    return total


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference, in units of the largest gradient."""
    largest = max(float(w.abs().max()) for w in wanted.values())
    return max(float((found[n] - w).abs().max()) for n, w in wanted.items()) / largest


def net(name: str) -> Cell:
    torch.manual_seed(0)
    cell: Cell = NETS[name]().double()
    return cell


@pytest.mark.parametrize("name", NETS)
def test_with_a_long_horizon_it_is_the_gradient(name: str) -> None:
    cell = net(name)
    chunk = stream(cell)
    wanted = along(BPTT(), cell, chunk, [0, 24])
    assert distance(along(CRBP(), cell, chunk, [0, 24]), wanted) < 1e-12
    assert distance(along(CRBP(horizon=24), cell, chunk, [0, 1, 5, 6, 24]), wanted) < 1e-12


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("horizon", [0, 3])
def test_pieces_of_a_stream_add_up(name: str, horizon: int) -> None:
    cell = net(name)
    chunk = stream(cell)
    whole = along(CRBP(horizon), cell, chunk, [0, 24])
    assert distance(along(CRBP(horizon), cell, chunk, [0, 1, 2, 9, 24]), whole) < 1e-12


def test_what_is_left_out_falls_with_the_horizon() -> None:
    cell = net("iir")
    chunk = stream(cell)
    wanted = along(BPTT(), cell, chunk, [0, 24])
    errors = [distance(along(CRBP(q), cell, chunk, [0, 24]), wanted) for q in (0, 2, 4, 8)]
    assert errors[0] > 0.01
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]


def test_temporal_backpropagation_is_exact_for_as_many_steps_as_taps() -> None:
    cell = net("fir")
    chunk = stream(cell)
    wanted = along(BPTT(), cell, chunk, [0, 24])
    assert distance(along(CRBP(horizon=3), cell, chunk, [0, 7, 24]), wanted) < 1e-12
    assert distance(along(CRBP(horizon=2), cell, chunk, [0, 7, 24]), wanted) > 1e-3


def test_without_a_horizon_it_is_exact_where_the_dynamics_stands_below() -> None:
    """BPS: local feedback in the first layer, layers without memory above."""
    torch.manual_seed(0)
    cell = Stack(OutputFeedbackCell(2, 3), FIRSynapseCell(3, 3, num_taps=1), AffineCell(3, 2)).double()
    chunk = stream(cell)
    edges = [0, 1, 2, 9, 24]
    assert distance(along(CRBP(0), cell, chunk, edges), along(BPTT(), cell, chunk, [0, 24])) < 1e-12


def test_one_layer_is_rtrl() -> None:
    cell = net("one layer")
    chunk = stream(cell)
    edges = [0, 3, 4, 24]
    assert distance(along(CRBP(0), cell, chunk, edges), along(RTRL(), cell, chunk, edges)) < 1e-12


def test_one_cell_may_be_two_layers() -> None:
    torch.manual_seed(0)
    twice = IIRSynapseCell(2, 2).double()
    cell = Stack(twice, twice)
    chunk = stream(cell)
    wanted = along(BPTT(), cell, chunk, [0, 24])
    assert distance(along(CRBP(horizon=24), cell, chunk, [0, 7, 24]), wanted) < 1e-12


def test_online_it_is_one_loop_in_machine_code() -> None:
    torch.manual_seed(0)
    cell = Stack(IIRSynapseCell(1, 1, num_feedback=1), IIRSynapseCell(1, 1, num_taps=1, num_feedback=1)).double()
    online = Online(CRBP(horizon=1), MeanSquaredError(), SGD(lr=0.01))
    chunk = Chunk(*torch.randn(2, 12, 1, 1, dtype=torch.float64).unbind(0))
    assert online.why_not_native(cell, online.init(cell, 1), chunk) is None


def test_a_wrong_way_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that skip a step on their way down."""
    cell = net("iir")
    chunk = stream(cell)
    wanted = along(BPTT(), cell, chunk, [0, 24])
    right = crbp_module._Layer._earlier
    monkeypatch.setattr(crbp_module._Layer, "_earlier", lambda self, wanted: right(self, right(self, wanted)))
    assert distance(along(CRBP(horizon=20), cell, chunk, [0, 24]), wanted) > 1e-3


def test_refusals_of_crbp() -> None:
    cell = Stack(IIRSynapseCell(2, 2), IIRSynapseCell(2, 2))
    with pytest.raises(ValueError, match="CRBP: horizon must be None or at least 0, got -1"):
        CRBP(horizon=-1)
    rule = CRBP(horizon=2)
    ragged = Chunk(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), None, Controls(lengths=torch.tensor([1, 3])))
    with pytest.raises(ValueError, match="CRBP: lengths must be None with a horizon"):
        rule.step(cell, rule.init(cell, 2), ragged, MeanSquaredError())
    _, estimate = rule.step(
        cell, rule.init(cell, 2), Chunk(torch.zeros(0, 2, 2), torch.zeros(0, 2, 2)), MeanSquaredError()
    )
    assert float(estimate.weight) == 0
    assert all(not d.any() for d in estimate.direction.values())


def test_inputs_of_free_size_are_not_kept() -> None:
    """Candidates of a sampled softmax and the like: how many there are is seen with each chunk only."""

    class Candidates(AffineCell):
        @property
        def input_spec(self) -> Any:
            return Leaf(("K",))

    cell = Stack(Candidates(2, 2), IIRSynapseCell(2, 2), IIRSynapseCell(2, 2))
    reason = CRBP(horizon=2).supports(cell, MeanSquaredError())
    assert reason is not None
    assert "inputs of free size" in reason
    assert CRBP().supports(cell, MeanSquaredError()) is None
    assert CRBP().init(cell, 2).xs is None
