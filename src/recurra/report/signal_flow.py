"""Pictures of signal-flow graphs: for matplotlib, and as text for graphviz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.flow_graph import Edge, SignalFlowGraph

Places = Mapping[str, tuple[float, float]]
_COLORS = {"function": "#cc3311", "slope": "#cc3311", "delay": "#0077bb", "advance": "#0077bb", "gain": "#117733"}
_RADIUS = 0.13
_APART, _ABOVE = 1.7, 1.5  # columns, rows


def places(graph: SignalFlowGraph) -> dict[str, tuple[float, float]]:
    """Where the nodes stand: from left to right as the signals flow within a step, each near what it is tied to.

    Example:
        >>> from recurra.core.flow_graph import SignalFlowGraph, gain
        >>> places(SignalFlowGraph((gain("x", "y", "w"),), ("x",), ("y",)))
        {'x': (0.0, 0.0), 'y': (1.7, 0.0)}
    """
    column: dict[str, int] = {}
    for node in graph.order:
        before = [column[e.source] + 1 for e in graph.edges if e.target == node and not e.waits]
        column[node] = max(before or [0])
    for node in graph.order:  # what nothing of the same step feeds stands beside what it feeds
        after = [column[e.target] for e in graph.edges if e.source == node and not e.waits]
        held = node in graph.inputs or any(e.target == node and not e.waits for e in graph.edges)
        if after and not held:
            column[node] = max(0, min(after) - 1)
    height = dict.fromkeys(graph.order, 0.0)
    for _ in range(8):
        for number in range(max(column.values()) + 1):
            nodes = [node for node in graph.order if column[node] == number]
            pull = {node: _mean_of_neighbours(graph, node, height) for node in nodes}
            middle = sum(pull.values()) / len(nodes)
            for i, node in enumerate(sorted(nodes, key=pull.__getitem__, reverse=True)):
                height[node] = middle + _ABOVE * ((len(nodes) - 1) / 2 - i)
    return {node: (_APART * column[node], round(height[node], 3)) for node in graph.order}


def _mean_of_neighbours(graph: SignalFlowGraph, node: str, height: Mapping[str, float]) -> float:
    tied = [e.target if e.source == node else e.source for e in graph.edges if node in (e.source, e.target)]
    others = [height[n] for n in tied if n != node]
    return sum(others) / len(others) if others else 0.0


def _bend(edge: Edge, at: Places) -> float:
    """How much an arrow curves: not at all to the next column, more for what goes far or back."""
    (x1, y1), (x2, y2) = at[edge.source], at[edge.target]
    columns = abs(x2 - x1) / _APART
    if columns < 0.5:
        return 0.35 if abs(y2 - y1) > 1.5 else 0.25
    if edge.waits:
        return 0.45 if columns < 1.5 else 0.3
    return 0.0 if columns < 1.5 else -0.25


def draw_flow_graph(axis: Any, graph: SignalFlowGraph, at: Places | None = None, title: str = "") -> None:
    """Draw a graph into matplotlib axes.

    A node with several edges into it is drawn as an adder, one with several edges out of it alone as a dot, the branch.
    Delays and advances are blue, nonlinearities and their slopes red, gains green.

    Args:
        axis: matplotlib axes.
        graph: to be drawn.
        at: where the nodes stand; those of the graph that was turned round show both alike. None for `places`.
        title: above the picture.
    """
    from matplotlib.patches import Circle, FancyArrowPatch

    at = places(graph) if at is None else at
    fed = {node: sum(e.target == node for e in graph.edges) for node in graph.nodes}
    read = {node: sum(e.source == node for e in graph.edges) for node in graph.nodes}
    axis.set_aspect("equal")
    axis.axis("off")
    axis.set_title(title)
    seen: dict[tuple[str, str], int] = {}
    for edge in graph.edges:
        pair = (min(edge.source, edge.target), max(edge.source, edge.target))
        seen[pair] = seen.get(pair, 0) + 1
        (x1, y1), (x2, y2) = at[edge.source], at[edge.target]
        color = _COLORS.get(edge.kind, "0.35")
        if edge.source == edge.target:
            axis.add_patch(Circle((x1, y1 + 0.28), 0.22, fill=False, color=color, lw=1.1))
            middle = (x1, y1 + 0.56)
        else:
            bend = _bend(edge, at) + 0.22 * (seen[pair] - 1)
            style = f"arc3,rad={bend}"
            arrow = FancyArrowPatch(
                (x1, y1), (x2, y2), connectionstyle=style, arrowstyle="-|>", mutation_scale=11, color=color,
                shrinkA=9, shrinkB=9, lw=1.1,
            )  # fmt: skip
            axis.add_patch(arrow)
            middle = ((x1 + x2) / 2 + bend * (y2 - y1) / 2, (y1 + y2) / 2 - bend * (x2 - x1) / 2)
        if edge.label:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.text(*middle, _pretty(edge.label), color=color, fontsize=8, ha="center", va="center", bbox=box)
    for node in graph.nodes:
        x, y = at[node]
        adds = fed[node] + (node in graph.inputs) > 1
        dot = not adds and read[node] > 1
        radius = _RADIUS if not dot else _RADIUS / 2
        edge_color = "#ee7733" if node in graph.inputs or node in graph.outputs else "black"
        axis.add_patch(
            Circle((x, y), radius, facecolor="black" if dot else "white", edgecolor=edge_color, lw=1.4, zorder=3)
        )
        if adds:
            axis.text(x, y, "+", fontsize=10, ha="center", va="center", zorder=4)
        axis.text(x, y - 0.2, node, fontsize=8, ha="center", va="top", zorder=4)
    for name, nodes in (("in", graph.inputs), ("out", graph.outputs)):
        for node in nodes:
            x, y = at[node]
            axis.text(x, y + 0.19, name, fontsize=7, color="#ee7733", ha="center", va="bottom", zorder=4)
    xs, ys = zip(*at.values())
    axis.set_xlim(min(xs) - 0.6, max(xs) + 0.6)
    axis.set_ylim(min(ys) - 0.9, max(ys) + 0.9)


def _pretty(label: str) -> str:
    """z^-1 with a raised number."""
    return f"$z^{{{label[2:]}}}$" if label.startswith("z^") else label


def to_dot(graph: SignalFlowGraph, name: str = "net") -> str:
    """The graph in graphviz's DOT language.

    Example:
        >>> from recurra.core.flow_graph import SignalFlowGraph, delay, gain
        >>> print(to_dot(SignalFlowGraph((gain("x", "y", "w"), delay("y", "d"), gain("d", "y", 0.5)), ("x",), ("y",))))
        digraph "net" {
          rankdir=LR;
          "x" [shape=plaintext];
          "y" [shape=doublecircle, label="+\\ny"];
          "d" [shape=point, xlabel="d"];
          "x" -> "y" [label="w", color="#117733"];
          "y" -> "d" [label="z^-1", color="#0077bb", constraint=false];
          "d" -> "y" [label="0.5", color="#117733"];
        }
    """

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"digraph {quoted(name)} {{", "  rankdir=LR;"]
    for node in graph.nodes:
        num_in = sum(e.target == node for e in graph.edges) + (node in graph.inputs)
        shape = "doublecircle" if node in graph.outputs else "circle"
        if num_in > 1:
            text = quoted("+\n" + node).replace("\n", "\\n")
            lines.append(f"  {quoted(node)} [shape={shape}, label={text}];")
        elif node in graph.inputs:
            lines.append(f"  {quoted(node)} [shape=plaintext];")
        elif node in graph.outputs:
            lines.append(f"  {quoted(node)} [shape=doublecircle];")
        else:
            lines.append(f"  {quoted(node)} [shape=point, xlabel={quoted(node)}];")
    for edge in graph.edges:
        marks = [f"label={quoted(edge.label)}"] if edge.label else []
        if edge.kind in _COLORS:
            marks.append(f'color="{_COLORS[edge.kind]}"')
        if edge.waits:
            marks.append("constraint=false")
        lines.append(f"  {quoted(edge.source)} -> {quoted(edge.target)} [{', '.join(marks)}];")
    return "\n".join([*lines, "}"])
