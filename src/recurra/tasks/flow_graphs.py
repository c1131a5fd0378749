"""Signal-flow graphs drawn at random, loops through delays included."""

from __future__ import annotations

import torch

from ..core.flow_graph import NONLINEARITIES, Edge, SignalFlowGraph, delay, function, gain, wire


def random_flow_graph(num_nodes: int, generator: torch.Generator, *, num_inputs: int = 2) -> SignalFlowGraph:
    """A graph in which every node has one to three edges into it.

    Edges that take no time lead from earlier nodes to later ones, so that no loop is without a delay; delays of one to three
    steps lead from a near node before, or back from the node itself and later ones. A quarter of the gains share a parameter
    with another one, a quarter are fixed numbers. Two nodes, or one of one, are looked at.

    Args:
        num_nodes: besides the inputs and the constant one, at least 1.
        generator: source of everything.
        num_inputs: D.

    Example:
        >>> graph = random_flow_graph(6, torch.Generator().manual_seed(0))
        >>> len(graph.inputs), len(graph.nodes) >= 8
        (2, True)
    """

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    inputs = tuple(f"x{i}" for i in range(num_inputs))
    inner = [f"n{i}" for i in range(num_nodes)]
    before = [*inputs, "one"]
    edges: list[Edge] = []
    names: list[str] = []
    for i, node in enumerate(inner):
        for _ in range(number(1, 4)):
            kind = number(0, 8)
            early = before[-1 - number(0, min(4, len(before)))]
            if kind <= 1:
                edges.append(delay(inner[number(i, num_nodes)] if number(0, 3) else early, node, number(1, 4)))
            elif kind <= 3:
                edges.append(function(early, node, list(NONLINEARITIES)[number(0, 4)]))
            elif kind == 4:
                edges.append(wire(early, node))
            elif kind == 5:
                edges.append(gain(early, node, number(-3, 4) / 4))
            elif kind == 6 and names:
                edges.append(gain(early, node, names[number(0, len(names))]))
            else:
                names.append(f"w{len(names)}")
                edges.append(gain(early, node, names[-1]))
        before.append(node)
    edges += [gain(source, inner[-1], f"w{len(names) + i}") for i, source in enumerate((*inputs, "one"))]
    outputs = tuple(dict.fromkeys((inner[-1], inner[number(0, num_nodes)])))
    return SignalFlowGraph(tuple(edges), inputs, outputs, (("one", 1.0),))
