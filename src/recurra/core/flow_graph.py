"""Signal-flow graphs: nets of delays, gains, nonlinearities, adders and branches, and the reversed graph of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .cell import Cell, S
from .checks import sentence

Kind = Literal["wire", "gain", "delay", "function", "advance", "slope"]


class Nonlinearity(NamedTuple):
    """A function of one signal and its derivative."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


NONLINEARITIES: dict[str, Nonlinearity] = {
    "tanh": Nonlinearity(torch.tanh, lambda x: 1 - torch.tanh(x).square()),
    "sigmoid": Nonlinearity(torch.sigmoid, lambda x: torch.sigmoid(x) * (1 - torch.sigmoid(x))),
    "relu": Nonlinearity(torch.relu, lambda x: (x > 0).to(x.dtype)),
    "sin": Nonlinearity(torch.sin, torch.cos),
    "square": Nonlinearity(torch.square, lambda x: 2 * x),
}
"""What a nonlinear edge may do to its signal, with the derivative that takes its place in the reversed graph."""


@dataclass(frozen=True)
class Edge:
    """One operator between two nodes; make it with `wire`, `gain`, `delay` or `function`.

    Args:
        source, target: nodes.
        kind: what is done to the signal. "advance" (a delay turned round) and "slope" (the derivative of a function at the
            signal of a node) stand in reversed graphs alone.
        value: of a gain its name (a parameter) or its number, of a delay its steps, of a function its name.
        at: of a slope the node of the other graph where the derivative is taken.
    """

    source: str
    target: str
    kind: Kind
    value: str | float | int = ""
    at: str = ""

    @property
    def waits(self) -> bool:
        """Does it hold its signal back for some steps?"""
        return self.kind in ("delay", "advance")

    @property
    def steps(self) -> int:
        """Of a delay or an advance."""
        assert isinstance(self.value, int)
        return self.value

    @property
    def label(self) -> str:
        """The operator in a few letters."""
        texts = {"wire": "", "delay": f"z^-{self.value}", "advance": f"z^+{self.value}"}
        if self.kind == "slope":
            return f"{self.value}'({self.at})"
        return texts.get(self.kind, str(self.value))


def wire(source: str, target: str) -> Edge:
    """The signal as it is."""
    return Edge(source, target, "wire")


def gain(source: str, target: str, value: str | float) -> Edge:
    """The signal times a parameter (a name; the same name is the same parameter) or times a fixed number."""
    return Edge(source, target, "gain", value)


def delay(source: str, target: str, steps: int = 1) -> Edge:
    """The signal some steps later."""
    return Edge(source, target, "delay", steps)


def function(source: str, target: str, name: str) -> Edge:
    """A nonlinear function of the signal, one of `NONLINEARITIES`."""
    return Edge(source, target, "function", name)


@dataclass(frozen=True)
class SignalFlowGraph:
    """Nodes that add what flows in, and edges that each do one thing to a signal.

        node(t) = external input(t) + constant + sum over the edges into it

    A node with several edges into it is an adder, one with several edges out of it a branch. Nodes are named by the edges.

    Args:
        edges: made by `wire`, `gain`, `delay`, `function`.
        inputs: nodes that get an external signal, D of them.
        outputs: nodes that are looked at, O of them.
        constants: pairs of a node and a number that is added to it, such as ``(("one", 1.0),)`` for biases.
    Raises:
        ValueError: no input or output, a node with nothing flowing in, an unknown function, a delay of less than one step,
            delays beside advances, or a loop without a delay in it.
    Source:
        Mason 1953, Proceedings of the IRE 41(9):1144-1156 (from memory)
    Example:
        >>> from recurra.core.flow_graph import *
        >>> graph = SignalFlowGraph(
        ...     (gain("x", "s", "w"), function("s", "y", "tanh"), delay("y", "last"), gain("last", "s", "u")),
        ...     inputs=("x",), outputs=("y",),
        ... )
        >>> graph.gain_names, graph.num_delayed
        (('w', 'u'), 1)
        >>> for edge in graph.reversed().edges:
        ...     print(edge.source, "->", edge.target, edge.label)
        s -> x w
        y -> s tanh'(s)
        last -> y z^+1
        s -> last u
    """

    edges: tuple[Edge, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        where = "SignalFlowGraph"
        for name, given in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not isinstance(given, tuple) or not all(isinstance(node, str) for node in given):
                raise TypeError(sentence(where, name, "a tuple of names of nodes", repr(given)))
            if not given or len(set(given)) < len(given):
                raise ValueError(sentence(where, name, "at least one node and none twice", given))
        for edge in self.edges:
            self._check_edge(where, edge)
        for node in self.outputs:
            if node not in self.nodes:
                raise ValueError(sentence(where, "outputs", "nodes of the graph", repr(node)))
        fed = {edge.target for edge in self.edges} | set(self.inputs) | {node for node, _ in self.constants}
        for node in self.nodes:
            if node not in fed:
                raise ValueError(
                    sentence(where, f"node {node!r}", "fed by an edge, an input or a constant", "nothing flowing in")
                )
        if len({edge.kind for edge in self.edges if edge.waits}) > 1:
            raise ValueError(sentence(where, "edges", "delays or advances", "both"))
        _ = self.order

    def _check_edge(self, where: str, edge: Edge) -> None:
        who = f"the edge {edge.source} -> {edge.target}"
        if edge.waits and (not isinstance(edge.value, int) or isinstance(edge.value, bool) or edge.value < 1):
            raise ValueError(sentence(where, who, "a delay of at least one step", edge.value, "Use wire for none."))
        if edge.kind in ("function", "slope") and edge.value not in NONLINEARITIES:
            raise ValueError(sentence(where, who, "one of " + ", ".join(NONLINEARITIES), repr(edge.value)))
        if edge.kind == "gain" and not isinstance(edge.value, str | float | int):
            raise TypeError(sentence(where, who, "a gain with a name or a number", repr(edge.value)))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """All names, inputs and constants first, then as the edges name them."""
        named = [*self.inputs, *(node for node, _ in self.constants)]
        return tuple(dict.fromkeys([*named, *(n for e in self.edges for n in (e.source, e.target))]))

    @cached_property
    def gain_names(self) -> tuple[str, ...]:
        """The parameters, in the order of the edges."""
        return tuple(dict.fromkeys(str(e.value) for e in self.edges if e.kind == "gain" and isinstance(e.value, str)))

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """For every waiting edge, in order, where its line stands in the state."""
        found, start = [], 0
        for edge in self.edges:
            if edge.waits:
                found.append(slice(start, start + edge.steps))
                start += edge.steps
        return tuple(found)

    @property
    def num_delayed(self) -> int:
        """L, numbers that stand in delay lines."""
        return self.places[-1].stop if self.places else 0

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes in an order in which each comes after everything that flows into it within a step."""
        waiting = {node: {e.source for e in self.edges if e.target == node and not e.waits} for node in self.nodes}
        done: dict[str, None] = {}
        while len(done) < len(waiting):
            ready = [node for node, sources in waiting.items() if node not in done and sources <= done.keys()]
            if not ready:
                raise ValueError(
                    sentence(
                        "SignalFlowGraph",
                        "every loop",
                        "one with a delay in it",
                        " -> ".join(self._loop(set(waiting) - done.keys())),
                        "Put a delay into it.",
                    )
                )
            done.update(dict.fromkeys(ready))
        return tuple(done)

    def _loop(self, left: set[str]) -> list[str]:
        """A loop without a delay among the nodes that are left; each has a source there."""
        path = [min(left)]
        while True:
            source = min(e.source for e in self.edges if e.target == path[-1] and not e.waits and e.source in left)
            if source in path:
                return [source, *reversed(path[path.index(source) :])]
            path.append(source)

    @cached_property
    def into(self) -> Mapping[str, tuple[tuple[int, Edge], ...]]:
        """Node -> the edges into it, each with its number among the waiting edges (0 for the others)."""
        numbers = {id(e): n for n, e in enumerate(e for e in self.edges if e.waits)}
        found: dict[str, list[tuple[int, Edge]]] = {node: [] for node in self.nodes}
        for edge in self.edges:
            found[edge.target].append((numbers.get(id(edge), 0), edge))
        return {node: tuple(edges) for node, edges in found.items()}

    def reversed(self) -> SignalFlowGraph:
        """The graph turned round: what the error signals flow through.

        Every edge points the other way, so that adders become branches and branches adders; inputs and outputs change
        places; a delay becomes an advance, a function the gain f'(signal of its source); gains stay. Turned round twice, a
        graph is its own linearisation.

        Source:
            Wan & Beaufays 1996, Neural Computation 8(1):182-201, doi:10.1162/neco.1996.8.1.182 (from memory)
        """
        turned: dict[Kind, Kind] = {"delay": "advance", "advance": "delay", "function": "slope"}
        edges = tuple(
            Edge(e.target, e.source, turned.get(e.kind, e.kind), e.value, e.source if e.kind == "function" else e.at)
            for e in self.edges
        )
        fed = {e.target for e in edges} | set(self.outputs)
        silent = tuple((node, 0.0) for node in self.nodes if node not in fed)
        return SignalFlowGraph(edges, self.outputs, self.inputs, silent)


def flow(
    graph: SignalFlowGraph,
    x: Tensor,
    lines: Tensor | None,
    gains: Tensor,
    along: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """One step of every signal; in a graph of advances time runs backward, so that its lines are delays too.

    Args:
        x: (..., D) external inputs.
        lines: (..., L) what stands in the lines, the newest first in each; None where L = 0.
        gains: (G,) in the order of `SignalFlowGraph.gain_names`.
        along: for slopes, node -> (...) the signals of the graph that was turned round, at the same step.

    Returns:
        Node -> signal (...), and the lines after the step.
    """
    number = {name: i for i, name in enumerate(graph.gain_names)}
    signals: dict[str, Tensor] = {}
    external = dict(zip(graph.inputs, x.unbind(-1)))
    constants = dict(graph.constants)
    for node in graph.order:
        parts = [external[node]] if node in external else []
        for place, edge in graph.into[node]:
            if edge.waits:
                assert lines is not None
                parts.append(lines[..., graph.places[place].stop - 1])
                continue
            signal = signals[edge.source]
            if edge.kind == "gain":
                signal = signal * (gains[number[edge.value]] if isinstance(edge.value, str) else edge.value)
            elif edge.kind == "function":
                signal = NONLINEARITIES[str(edge.value)].value(signal)
            elif edge.kind == "slope":
                assert along is not None
                signal = signal * NONLINEARITIES[str(edge.value)].slope(along[edge.at])
            parts.append(signal)
        if node in constants:
            parts.append(torch.full_like(x[..., 0], constants[node]))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        signals[node] = total
    if lines is None:
        return signals, None
    new = []
    for line, edge in zip(graph.places, (e for e in graph.edges if e.waits)):
        new += [signals[edge.source].unsqueeze(-1), lines[..., line.start : line.stop - 1]]
    return signals, torch.cat(new, -1)


class GraphCell(Cell[Tensor, Tensor, S]):
    """A cell that is a signal-flow graph: rules may walk the graph instead of asking autograd.

    Its parameters are ``gains`` (G,), in the order of the graph's names; its state has one field, ``lines`` (B, L), or
    ``()`` there for a graph without delays.
    """

    graph: SignalFlowGraph
    gains: Tensor
