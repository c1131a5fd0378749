"""A net drawn as a signal-flow graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..core.checks import sentence
from ..core.flow_graph import GraphCell, SignalFlowGraph, delay, flow, function, gain, wire
from ..init import vector


class SignalFlowState(NamedTuple):
    """lines: (B, L) what stands in the delays, the newest first in each; () for a graph without delays."""

    lines: Tensor | tuple[()]


class SignalFlowCell(GraphCell[SignalFlowState]):
    """A net of delays, gains, nonlinearities, adders and branches, one step of the graph for one step of time.

        node(t) = external input(t) + constant + sum over the edges into it
        edge: signal(t), g signal(t), f(signal(t)) or signal(t - n)

    Any net of scalar signals can be drawn so: filters, locally and fully recurrent nets, with loops through delays wherever
    one likes. Its gradient network is the graph turned round (`SignalFlowGraph.reversed`), which `SignalFlowAdjoint` runs.

    Args:
        graph: the net; see `recurra.core.flow_graph.SignalFlowGraph`.
        gain_range: named gains begin in U(-gain_range, gain_range).
        generator: source of the initial gains.
    State:
        lines: (B, L) what stands in the delays, the newest first in each; () for a graph without delays.
    Raises:
        ValueError: a range below 0.
        TypeError: no graph.
    Source:
        Wan & Beaufays 1996, "Diagrammatic derivation of gradient algorithms for neural networks", Neural Computation
        8(1):182-201, doi:10.1162/neco.1996.8.1.182; Campolucci, Uncini & Piazza 2000, "A signal-flow-graph approach to
        on-line gradient calculation", Neural Computation 12(8):1901-1927 (abstracts read, the rest from memory)
    Differs:
        Signals are scalars and edges have one input; a product of two signals is not among the operators.
    Cost:
        A few flops for every edge, L state values per step and sample. It is written signal by signal: machine code
        (`Native`) makes one loop of it, engines in Python pay for every edge.
    Example:
        >>> from recurra.core.flow_graph import SignalFlowGraph, delay, function, gain
        >>> from recurra.layers import Recurrent
        >>> cell = SignalFlowCell(SignalFlowGraph(
        ...     (gain("x", "s", "w"), function("s", "y", "tanh"), delay("y", "last"), gain("last", "s", "u")),
        ...     inputs=("x",), outputs=("y",),
        ... ))
        >>> ys, state = Recurrent(cell)(torch.zeros(7, 2, 1))
        >>> ys.shape, state.lines.shape, cell.graph.gain_names
        (torch.Size([7, 2, 1]), torch.Size([2, 1]), ('w', 'u'))
    """

    source = "Wan & Beaufays 1996, Neural Computation 8(1):182-201, doi:10.1162/neco.1996.8.1.182"

    def __init__(
        self,
        graph: SignalFlowGraph,
        *,
        gain_range: float = 0.5,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        if not isinstance(graph, SignalFlowGraph):
            raise TypeError(sentence(where, "graph", "a SignalFlowGraph", type(graph).__name__))
        if any(edge.kind in ("advance", "slope") for edge in graph.edges):
            hint = "Only the graph that was turned round can be run forward."
            raise ValueError(sentence(where, "graph", "one of delays and functions", "a reversed graph", hint))
        if not 0.0 <= gain_range < math.inf:
            raise ValueError(sentence(where, "gain_range", "a number of at least 0", gain_range))
        self.graph = graph
        self.input_size, self.output_size = len(graph.inputs), len(graph.outputs)
        self.gains = vector(len(graph.gain_names), gain_range, generator=generator, device=device, dtype=dtype)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A neuron with a loop, a lattice of long delays with a shared gain and a learned start, no delay at all."""
        loop = (gain("x", "s", "w"), function("s", "y", "tanh"), delay("y", "last"), gain("last", "s", "u"))
        yield cls(SignalFlowGraph((*loop, gain("one", "s", "b")), ("x",), ("y",), (("one", 1.0),)))
        net = (
            *(gain("a", "s", "w1"), gain("b", "s", "w2"), delay("s", "s3", 3), gain("s3", "s", "u")),
            *(function("s", "t", "sin"), delay("t", "t1"), gain("t1", "y", "w1"), wire("s", "y")),
            *(delay("y", "y2", 2), function("y2", "p", "sigmoid"), gain("p", "s", -0.5)),
        )
        yield cls(SignalFlowGraph(net, ("a", "b"), ("y", "t"))).learn_initial_state()
        yield cls(SignalFlowGraph((gain("x", "s", "w"), function("s", "y", "square")), ("x",), ("y", "s")))

    def initial_state(self, batch_size: int) -> SignalFlowState:
        """Empty delays: zeros."""
        length = self.graph.num_delayed
        return SignalFlowState(self.initial("lines", batch_size, length) if length else ())

    def step(self, x: Tensor, state: SignalFlowState) -> tuple[Tensor, SignalFlowState]:
        """Every signal once, in an order in which each is known when it is needed."""
        lines = state.lines if isinstance(state.lines, Tensor) else None
        signals, new = flow(self.graph, x, lines, self.gains)
        y = torch.stack([signals[node] for node in self.graph.outputs], -1)
        return y, SignalFlowState(() if new is None else new)
