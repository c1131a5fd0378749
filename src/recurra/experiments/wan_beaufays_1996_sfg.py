"""Wan & Beaufays 1996: gradients by turning a signal-flow graph round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..cells.signal_flow import SignalFlowCell
from ..core import Chunk, Claim, Controls, Experiment, LearningRule, Log, MeanSquaredError
from ..core.flow_graph import SignalFlowGraph, delay, function, gain, wire
from ..engines import Loop
from ..learning import BPTT, Adam, Online, SignalFlowAdjoint
from ..report.signal_flow import draw_flow_graph, places
from ..tasks.flow_graphs import random_flow_graph

NET = SignalFlowGraph(
    (
        *(gain("x", "a", "w0"), delay("x", "x1"), gain("x1", "a", "w1"), gain("one", "a", "b")),
        *(delay("a", "a1"), gain("a1", "a", "v"), function("a", "h", "tanh")),
        *(gain("h", "s", "c0"), delay("h", "h2", 2), gain("h2", "s", "c2"), wire("s", "y")),
        *(delay("y", "y1"), gain("y1", "s", "r"), function("y1", "q", "sin"), gain("q", "a", "f")),
    ),
    inputs=("x",),
    outputs=("y",),
    constants=(("one", 1.0),),
)
"""A neuron with FIR synapse and activation feedback, a filter behind it, and a loop around both."""

GAINS = {"w0": 0.9, "w1": -0.5, "b": 0.2, "v": 0.5, "c0": 1.0, "c2": 0.6, "r": 0.4, "f": -0.7}
MIRRORED = ("w0", "w1", "b", "c0", "c2", "f")
"""tanh is odd: with these gains negated, the net does the same."""


class _Learned(NamedTuple):
    """What learning step by step came to.

    Args:
        curve: (N,) mean squared error relative to the power of the target, along the stream.
        nmse_db: of the last fifth.
        distance: largest difference of a gain from the teacher's, or from its mirror image's.
    """

    curve: Tensor
    nmse_db: float
    distance: float


@dataclass(frozen=True)
class WanBeaufays1996SFG(Experiment):
    """The reversed graph gives the gradient of any net; its online form learns.

    Random graphs of delays, gains, nonlinearities, adders and branches, with loops: the error signals of the graph turned round
    against autograd. Then the online form, in which the error of every step flows back a fixed number of steps: how far
    it is from the gradient, and whether a net learns by it, sample by sample, to do what a net of the same form with other
    gains does.

    Args:
        num_graphs: random graphs.
        most_nodes: nodes of the largest.
        num_steps: T of each comparison.
        num_rows: B.
        horizons: of the online form, steps.
        num_samples: length of the stream for learning.
        horizon: of the learning net.
        lr: Adam's learning rate, falling to a hundredth in a line.
        num_seeds: initial gains that are tried for learning.
    Source:
        Wan & Beaufays 1996, Neural Computation 8(1):182-201, doi:10.1162/neco.1996.8.1.182; Campolucci, Uncini & Piazza
        2000, Neural Computation 12(8):1901-1927 (abstracts read; neither gives numbers for these)
    Differs:
        The papers show their nets one by one. Learning by Adam, where they have plain steps.
    """

    id: ClassVar[str] = "wan-beaufays-1996-sfg"
    source: ClassVar[str] = "Wan & Beaufays 1996, Neural Computation 8(1):182-201, doi:10.1162/neco.1996.8.1.182"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("worst_difference", 1e-10, "lower", "equal", "reversed graph and autograd, largest of all", "theorem"),
        Claim("worst_difference_online", 1e-10, "lower", "equal", "online, horizon of the whole sequence", "theorem"),
        Claim("online_nmse_db", -40.0, "lower", "", "online learning, mean of the seeds in dB", "own bar"),
        Claim(
            "mean_difference_without_advances",
            0.01,
            "higher",
            "",
            "no way back through delays",
            "theorem",
            control=True,
        ),
    )

    num_graphs: int = 200
    most_nodes: int = 12
    num_steps: int = 20
    num_rows: int = 2
    horizons: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    num_samples: int = 20_000
    horizon: int = 8
    lr: float = 0.01
    num_seeds: int = 5

    @classmethod
    def smoke(cls) -> Self:
        """Few graphs, a short stream."""
        return cls(num_graphs=4, most_nodes=6, num_steps=6, horizons=(0, 2), num_samples=40, num_seeds=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """Random graphs, then learning."""
        whole, online, cut = [], [], []
        loops = 0
        for i in range(self.num_graphs):
            generator = torch.Generator().manual_seed(i)
            graph = random_flow_graph(1 + i % self.most_nodes, generator)
            loops += _has_loop(graph)
            cell = SignalFlowCell(graph, generator=generator, dtype=torch.float64)
            chunk = self._chunk(cell, generator)
            wanted = _direction(BPTT(Loop()), cell, chunk)
            whole.append(_distance(_direction(SignalFlowAdjoint(), cell, chunk), wanted))
            online.append(_distance(_direction(SignalFlowAdjoint(self.num_steps), cell, chunk), wanted))
            if any(edge.waits for edge in graph.edges):
                rules = [SignalFlowAdjoint(h) for h in self.horizons]
                cut.append([_distance(_direction(rule, cell, chunk), wanted) for rule in rules])
            log("random graphs", 0.5 * (i + 1) / self.num_graphs)
        learned = []
        for seed in range(self.num_seeds):
            learned.append(self._learn(seed))
            log("online", 0.5 + 0.5 * (seed + 1) / self.num_seeds)
        differences = torch.tensor(cut)
        log.figure("graph", _draw_graphs)
        log.figure("learning", lambda figure: _draw(figure, differences, self.horizons, learned))
        at = {h: float(differences[:, i].mean()) for i, h in enumerate(self.horizons)}
        return {
            "worst_difference": max(whole),
            "worst_difference_online": max(online),
            "online_nmse_db": sum(one.nmse_db for one in learned) / len(learned),
            "mean_difference_without_advances": at[self.horizons[0]],
            f"mean_difference_horizon_{self.horizons[-1]}": at[self.horizons[-1]],
            "largest_difference_of_a_gain": max(one.distance for one in learned),
            "share_of_graphs_with_loops": loops / self.num_graphs,
        }

    def _chunk(self, cell: SignalFlowCell, generator: torch.Generator) -> Chunk:
        """Random inputs, targets, weights and resets."""

        def normal(size: int) -> Tensor:
            shape = self.num_steps, self.num_rows, size
            return 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

        weights = torch.rand(self.num_steps, self.num_rows, generator=generator, dtype=torch.float64)
        reset = torch.rand(self.num_steps, self.num_rows, generator=generator) < 0.05
        return Chunk(normal(cell.input_size), normal(cell.output_size), weights, Controls(reset=reset))

    def _learn(self, seed: int) -> _Learned:
        """A net sees what another one does, one sample at a time."""
        generator = torch.Generator().manual_seed(1000 + seed)
        teacher = SignalFlowCell(NET, dtype=torch.float64)
        wanted = torch.tensor([GAINS[name] for name in NET.gain_names], dtype=torch.float64)
        xs = torch.rand(self.num_samples, 1, 1, generator=generator, dtype=torch.float64) * 4 - 2
        with torch.no_grad():
            teacher.gains.copy_(wanted)
            ys, _ = Loop()(teacher, xs)
        net = SignalFlowCell(NET, gain_range=0.3, generator=generator, dtype=torch.float64)
        online = Online(SignalFlowAdjoint(self.horizon), MeanSquaredError(), Adam(lr=self.lr))
        falling = torch.linspace(1.0, 0.01, self.num_samples, dtype=torch.float64)
        _, trace = online.run(net, online.init(net, 1), Chunk(xs, ys), falling)
        relative = trace.losses / ys.var()
        last = float(relative[-self.num_samples // 5 :].mean())
        mirror = torch.tensor([-1.0 if name in MIRRORED else 1.0 for name in NET.gain_names])
        found = net.gains.detach()
        distance = min(float((found - wanted).abs().max()), float((found * mirror - wanted).abs().max()))
        return _Learned(relative, 10 * float(torch.tensor(last).log10()), distance)


def _direction(rule: LearningRule[Any], cell: SignalFlowCell, chunk: Chunk) -> Tensor:
    """What a rule says of the gains, from the beginning of the stream."""
    return rule.step(cell, rule.init(cell, chunk.xs.shape[1]), chunk, MeanSquaredError())[1].direction["gains"]


def _distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, in units of the largest gradient."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300))


def _has_loop(graph: SignalFlowGraph) -> bool:
    """Does a signal come back to where it was?"""
    reach = {node: {e.target for e in graph.edges if e.source == node} for node in graph.nodes}
    for _ in graph.nodes:
        reach = {node: found.union(*(reach[n] for n in found)) for node, found in reach.items()}
    return any(node in found for node, found in reach.items())


def _draw_graphs(figure: Any) -> None:
    """The learning net and the graph that its errors flow through."""
    above, below = figure.subplots(1, 2)
    at = places(NET)
    draw_flow_graph(above, NET, at, "the net")
    draw_flow_graph(below, NET.reversed(), at, "turned round: what the errors flow through")


def _draw(figure: Any, differences: Tensor, horizons: Sequence[int], learned: Sequence[_Learned]) -> None:
    """Difference from the gradient by horizon, and errors along the streams."""
    left, right = figure.subplots(1, 2)
    middle, high = differences.mean(0), differences.quantile(0.75, 0)
    left.semilogy(horizons, middle.clamp(min=1e-17), "o-", color="#0077bb", label="mean")
    left.semilogy(horizons, high.clamp(min=1e-17), "o--", color="#33bbee", label="three quarters lie below")
    left.set_xlabel("steps that the error of a step flows back")
    left.set_ylabel("difference from the gradient, relative")
    left.legend()
    for one in learned:
        window = max(1, len(one.curve) // 60)
        smooth = one.curve[: len(one.curve) // window * window].reshape(-1, window).mean(1)
        right.semilogy([window * (i + 0.5) for i in range(len(smooth))], smooth, color="#cc3311", lw=1)
    right.set_xlabel("sample")
    right.set_ylabel("squared error over power of the target")
    right.set_title("learning online, one line for each start")
