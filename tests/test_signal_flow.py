"""Signal-flow graphs: what is refused, the reversed graph, and its errors against autograd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recurra.cells import ElmanCell, IIRSynapseCell, SignalFlowCell
from recurra.core import Cell, Chunk, Controls, MeanSquaredError, SequenceLoss
from recurra.core.flow_graph import NONLINEARITIES, SignalFlowGraph, delay, flow, function, gain, wire
from recurra.engines import Loop
from recurra.learning import BPTT, RTRL, SignalFlowAdjoint, TruncatedBPTT
from recurra.learning import signal_flow_adjoint as adjoint_module
from recurra.tasks.flow_graphs import random_flow_graph

NEURON = SignalFlowGraph(
    (gain("x", "s", "w"), function("s", "y", "tanh"), delay("y", "last"), gain("last", "s", "u")), ("x",), ("y",)
)


def random_cell(num_nodes: int, seed: int) -> SignalFlowCell:
    generator = torch.Generator().manual_seed(seed)
    graph = random_flow_graph(num_nodes, generator)
    return SignalFlowCell(graph, generator=generator, dtype=torch.float64)


def stream(cell: Cell, num_steps: int = 12, rows: int = 2, seed: int = 0) -> Chunk:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 2

    reset = torch.rand(num_steps, rows, generator=generator) < 0.1
    reset[0] = True
    weights = torch.rand(num_steps, rows, generator=generator, dtype=torch.float64)
    xs, targets = draw(num_steps, rows, cell.input_size), draw(num_steps, rows, cell.output_size)
    return Chunk(xs, targets, weights, Controls(reset=reset))


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
    largest = max(1e-300, *(float(w.abs().max()) for w in wanted.values()))
    return max(float((found[n] - w).abs().max()) for n, w in wanted.items()) / largest


# --- graphs ---


def test_a_graph_is_the_net_that_it_draws() -> None:
    """A neuron that sees its own last output is an Elman net of one unit."""
    cell, other = SignalFlowCell(NEURON), ElmanCell(1, 1, bias=False)
    with torch.no_grad():
        cell.gains.copy_(torch.stack([other.weight_ih[0, 0], other.weight_hh[0, 0]]))
    xs = torch.randn(9, 3, 1)
    torch.testing.assert_close(Loop()(cell, xs)[0], Loop()(other, xs)[0])


def test_a_graph_may_be_an_iir_synapse() -> None:
    edges = (
        *(gain("x", "z", "w0"), delay("x", "x1"), gain("x1", "z", "w1"), delay("z", "z1"), gain("z1", "z", "v1")),
        *(
            delay("z", "z2", 2),
            gain("z2", "z", "v2"),
            gain("one", "s", "b"),
            wire("z", "s"),
            function("s", "y", "tanh"),
        ),
    )
    cell = SignalFlowCell(SignalFlowGraph(edges, ("x",), ("y",), (("one", 1.0),)))
    other = IIRSynapseCell(1, 1)
    assert other.bias is not None
    parts = [other.weight_ih[0], other.weight_ih[1], other.weight_hh[0], other.weight_hh[1], other.bias]
    with torch.no_grad():
        cell.gains.copy_(torch.cat([p.flatten() for p in parts]))
    assert cell.graph.gain_names == ("w0", "w1", "v1", "v2", "b")
    xs = torch.randn(9, 3, 1)
    torch.testing.assert_close(Loop()(cell, xs)[0], Loop()(other, xs)[0])


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (
            (wire("x", "a"), wire("a", "b"), function("b", "c", "tanh"), gain("c", "a", "w"), wire("c", "y")),
            r"every loop must be one with a delay in it, got a -> b -> c -> a\. Put a delay into it",
        ),
        ((wire("x", "y"), gain("y", "y", 0.5)), r"every loop must be one with a delay in it, got y -> y"),
        ((wire("x", "y"), wire("a", "y")), r"node 'a' must be fed by an edge, an input or a constant"),
        ((wire("x", "z"),), r"outputs must be nodes of the graph, got 'y'"),
        ((delay("x", "y", 0),), r"the edge x -> y must be a delay of at least one step, got 0\. Use wire for none"),
        ((function("x", "y", "sgn"),), r"the edge x -> y must be one of tanh, .*, got 'sgn'"),
    ],
)
def test_what_is_no_graph_is_refused(edges: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"SignalFlowGraph: {message}"):
        SignalFlowGraph(edges, ("x",), ("y",))


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="inputs must be at least one node and none twice"):
        SignalFlowGraph((wire("x", "y"),), (), ("y",))
    with pytest.raises(TypeError, match="outputs must be a tuple of names of nodes, got 'y'"):
        SignalFlowGraph((wire("x", "y"),), ("x",), "y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="graph must be one of delays and functions, got a reversed graph"):
        SignalFlowCell(NEURON.reversed())
    with pytest.raises(TypeError, match="graph must be a SignalFlowGraph, got tuple"):
        SignalFlowCell(())  # type: ignore[arg-type]


def test_slopes_are_derivatives() -> None:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).requires_grad_()
    for name, f in NONLINEARITIES.items():
        (wanted,) = torch.autograd.grad(f.value(x).sum(), x)
        torch.testing.assert_close(f.slope(x), wanted, msg=name)


# --- the graph turned round ---


def test_turning_round_swaps_adders_and_branches() -> None:
    turned = NEURON.reversed()
    assert turned.inputs == NEURON.outputs
    assert turned.outputs == NEURON.inputs
    for node in NEURON.nodes:
        assert sum(e.target == node for e in NEURON.edges) == sum(e.source == node for e in turned.edges)
        assert sum(e.source == node for e in NEURON.edges) == sum(e.target == node for e in turned.edges)
    assert [e.label for e in turned.edges] == ["w", "tanh'(s)", "z^+1", "u"]
    assert [(e.source, e.target, e.label) for e in turned.reversed().edges] == [
        ("x", "s", "w"), ("s", "y", "tanh'(s)"), ("y", "last", "z^-1"), ("last", "s", "u")
    ]  # fmt: skip


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_a_graph_and_its_reversal_are_adjoint(num_nodes: int, seed: int) -> None:
    """<a, L b> = <L' a, b> for the linearised graph L (turned round twice) and the graph turned round, L'."""
    cell = random_cell(num_nodes, seed)
    graph, turned = cell.graph, cell.graph.reversed()
    linear = turned.reversed()
    chunk = stream(cell, 7, 1, seed)
    tape, _ = adjoint_module.record(cell, cell.initial_state(1), chunk)
    gains, generator = cell.gains.detach(), torch.Generator().manual_seed(seed)
    b = torch.randn(7, 1, len(graph.inputs), generator=generator, dtype=torch.float64)
    a = torch.randn(7, 1, len(graph.outputs), generator=generator, dtype=torch.float64)
    lines = [torch.zeros(1, graph.num_delayed, dtype=torch.float64) if graph.num_delayed else None] * 2
    begun = tape.reset & (torch.arange(7)[:, None] > 0)
    forward, backward, size = torch.zeros(()), torch.zeros(()), torch.ones(())
    for t in range(7):
        if lines[0] is not None:
            lines[0] = torch.where(begun[t][:, None], 0.0, lines[0])
        at = dict(zip(graph.order, tape.signals[t].unbind(-1)))
        signals, lines[0] = flow(linear, b[t], lines[0], gains, at)
        for i, node in enumerate(graph.outputs):
            forward = forward + (a[t, :, i] * signals[node]).sum()
            size = size + (a[t, :, i] * signals[node]).abs().sum()
    for t in reversed(range(7)):
        at = dict(zip(graph.order, tape.signals[t].unbind(-1)))
        errors, lines[1] = flow(turned, a[t], lines[1], gains, at)
        if lines[1] is not None:
            lines[1] = torch.where(begun[t][:, None], 0.0, lines[1])
        backward = backward + sum((b[t, :, i] * errors[node]).sum() for i, node in enumerate(graph.inputs))
    assert float((forward - backward).abs() / size) < 1e-11


# --- its errors are the gradient ---


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_the_reversed_graph_gives_the_gradient_of_any_graph(num_nodes: int, seed: int) -> None:
    cell = random_cell(num_nodes, seed)
    chunk = stream(cell, seed=seed)
    wanted = along(BPTT(Loop()), cell, chunk, [0, 12])
    assert distance(along(SignalFlowAdjoint(), cell, chunk, [0, 12]), wanted) < 1e-10
    assert distance(along(SignalFlowAdjoint(horizon=12), cell, chunk, [0, 1, 5, 12]), wanted) < 1e-10


@pytest.mark.parametrize("example", range(3))
@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_online_it_is_the_gradient_cut_after_the_horizon(example: int, horizon: int) -> None:
    cell = list(SignalFlowCell.examples())[example].double()
    chunk = stream(cell)
    wanted = along(TruncatedBPTT(1, horizon + 1, Loop()), cell, chunk, [0, 12])
    found = along(SignalFlowAdjoint(horizon), cell, chunk, [0, 12])
    assert distance(found, wanted) < 1e-12
    assert distance(along(SignalFlowAdjoint(horizon), cell, chunk, list(range(13))), found) < 1e-12


def test_rtrl_agrees_on_a_graph() -> None:
    cell = random_cell(6, 3)
    chunk = stream(cell)
    assert (
        distance(along(RTRL(), cell, chunk, [0, 5, 12]), along(SignalFlowAdjoint(12), cell, chunk, [0, 5, 12])) < 1e-10
    )


def test_errors_that_do_not_turn_round_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reversed graph with a gain of one in the place of every slope."""
    cell = next(SignalFlowCell.examples()).double()
    chunk = stream(cell)
    wanted = along(BPTT(Loop()), cell, chunk, [0, 12])
    right = SignalFlowGraph.reversed

    def wrong(graph: SignalFlowGraph) -> SignalFlowGraph:
        turned = right(graph)
        edges = tuple(wire(e.source, e.target) if e.kind == "slope" else e for e in turned.edges)
        return SignalFlowGraph(edges, turned.inputs, turned.outputs, turned.constants)

    monkeypatch.setattr(SignalFlowGraph, "reversed", wrong)
    assert distance(along(SignalFlowAdjoint(), cell, chunk, [0, 12]), wanted) > 1e-2


class Whole(SequenceLoss):
    """A loss of whole sequences."""

    def per_sequence(self, ys: Any, targets: Any, lengths: Tensor | None) -> Tensor:
        return ys.sum((0, 2))


def test_refusals_of_the_rule() -> None:
    with pytest.raises(ValueError, match="SignalFlowAdjoint: horizon must be None or at least 0, got -2"):
        SignalFlowAdjoint(-2)
    rule, elman = SignalFlowAdjoint(), ElmanCell(1, 1)
    chunk = Chunk(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    with pytest.raises(TypeError, match="needs a GraphCell, not ElmanCell"):
        rule.step(elman, rule.init(elman, 1), chunk, MeanSquaredError())
    cell = SignalFlowCell(NEURON)
    with pytest.raises(TypeError, match="Whole is a loss of whole sequences"):
        rule.step(cell, rule.init(cell, 1), chunk, Whole())
    with pytest.raises(ValueError, match=r"SignalFlowCell: xs must be \(T, B, 1\), got \(1, 1, 2\)"):
        rule.step(cell, rule.init(cell, 1), chunk._replace(xs=torch.zeros(1, 1, 2)), MeanSquaredError())
