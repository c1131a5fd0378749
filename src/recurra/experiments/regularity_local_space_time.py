"""Which learning rules are local in space, and which in time: found out by following what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ..analysis import Locality, audit
from ..cells import ElmanCell, IndRNNCell
from ..core import Cell, Chunk, Claim, Estimate, Experiment, LearningRule, Log, Loss, SequenceLoss
from ..core.catalog import members
from ..learning import BPTT, RTRL
from ..wrappers import Readout

_READ = "Hochreiter & Schmidhuber 1997, abstract; definitions from memory"


@dataclass(frozen=True)
class _Normalised(LearningRule[Any]):
    """The gradient at the length of one: every update reads the length of the whole gradient."""

    rule: LearningRule[Any]

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        return self.rule.init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        carry, estimate = self.rule.step(cell, carry, chunk, loss)
        length = torch.stack([d.square().sum() for d in estimate.direction.values()]).sum().sqrt()
        return carry, estimate._replace(direction={n: d / length for n, d in estimate.direction.items()})


@dataclass(frozen=True)
class RegularityLocalSpaceTime(Experiment):
    """Local in space, local in time: what every rule of the catalog reads, followed number by number.

    An update is local in space if it is made from quantities of the two units that the weight connects, where a unit may gather
    what its connections bring. A rule is local in time if its memory does not grow with the stream. `recurra.analysis.audit`
    finds both out by tracing a step of the rule on a net of fully connected units; 1 stands for yes, 0 for no. No rule says
    anything about itself.

    Args:
        input_size: D.
        hidden_size: H of the fully connected net.
        output_size: O of its linear output.
        num_nets: random nets and streams; all have to give the same verdict (the metric is their mean).
        rules: names of rules; None for the whole catalog.
    Source:
        Schmidhuber 1992, Neural Computation 4(2):243-248 (from memory); Hochreiter & Schmidhuber 1997, Neural Computation
        9(8):1735-1780 (abstract read); Williams & Zipser 1989, Neural Computation 1(2):270-280 (from memory)
    Differs:
        The literature's other form of "local in space", work for each step and weight that does not grow with the net, is met
        by UORO too; here the question is what an update reads, and UORO's reads the length of whole vectors.
    """

    id: ClassVar[str] = "regularity-local-space-time"
    source: ClassVar[str] = (
        "Schmidhuber 1992, Neural Computation 4(2):243-248; Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("bptt_in_space", 1.0, "higher", "local in space", _READ, "from memory"),
        Claim("bptt_in_time", 0.0, "lower", "not local in time", _READ, "from memory"),
        Claim("rtrl_in_space", 0.0, "lower", "not local in space", _READ, "from memory"),
        Claim("rtrl_in_time", 1.0, "higher", "local in time", _READ, "from memory"),
        Claim("uoro_in_space", 0.0, "lower", "", "vectors are brought to one length"),
        Claim("uoro_in_time", 1.0, "higher", "no backtracking", "Tallec & Ollivier 2018, abstract", "read"),
        Claim("eprop_in_space", 1.0, "higher", "local", "Bellec et al. 2020, from memory", "from memory"),
        Claim("eprop_in_time", 1.0, "higher", "local", "the same", "from memory"),
        Claim("hebb_in_space", 1.0, "higher", "local", "by its definition", "theorem"),
        Claim("hebb_in_time", 1.0, "higher", "local", "by its definition", "theorem"),
        Claim("rtrl_elementwise_in_space", 1.0, "higher", "", "units that see only themselves"),
        Claim("rtrl_elementwise_in_time", 1.0, "higher", "", "the same"),
        Claim(
            "normalised_bptt_in_space", 0.0, "lower", "", "the gradient divided by its length", "theorem", control=True
        ),
    )

    input_size: int = 2
    hidden_size: int = 5
    output_size: int = 3
    num_nets: int = 3
    rules: tuple[str, ...] | None = None

    @classmethod
    def smoke(cls) -> Self:
        """One small net, and the rules of the claims."""
        return cls(hidden_size=3, output_size=2, num_nets=1, rules=("BPTT", "EProp", "Hebb", "RTRL", "UORO"))

    def run(self, log: Log) -> Mapping[str, float]:
        """Every rule of the catalog on a fully connected net, and the two further cases of the claims."""
        kinds = {name: kind for name, kind in members("rules").items() if issubclass(kind, LearningRule)}
        rules = {name.lower(): kind() for name, kind in kinds.items() if self.rules is None or name in self.rules}
        metrics: dict[str, float] = {}
        shown: list[tuple[str, Locality]] = []
        for done, (name, rule) in enumerate(rules.items()):
            log(name, done / (len(rules) + 2))
            shown += [(type(rule).__name__, found) for found in self._ask(metrics, name, rule, self._net())]
        log("element-wise", len(rules) / (len(rules) + 2))
        self._ask(metrics, "rtrl_elementwise", RTRL(), lambda: IndRNNCell(self.input_size, self.hidden_size))
        self._ask(metrics, "normalised_bptt", _Normalised(BPTT()), self._net())
        log.figure("table", lambda figure: _draw(figure, shown))
        return metrics

    def _net(self) -> Any:
        return lambda: Readout(ElmanCell(self.input_size, self.hidden_size), self.output_size)

    def _ask(self, metrics: dict[str, float], name: str, rule: LearningRule[Any], make: Any) -> list[Locality]:
        """The mean verdict on several random nets; one of the findings, unless the rule refuses the net."""
        found = []
        for seed in range(self.num_nets):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                cell: Cell = make()
            found.append(audit(rule, cell, seed=seed))
        if found[0].refused is not None:
            return []
        metrics[f"{name}_in_space"] = sum(bool(f.in_space) for f in found) / len(found)
        metrics[f"{name}_in_time"] = sum(bool(f.in_time) for f in found) / len(found)
        return found[:1]


def _draw(figure: Any, found: list[tuple[str, Locality]]) -> None:
    """A table of the verdicts."""
    axis = figure.subplots()
    axis.set_axis_off()
    colors = {True: "#44bb99", False: "#ee8866"}
    for row, (name, one) in enumerate(found):
        axis.text(0.0, -row, name, va="center", fontsize=10)
        for column, verdict in ((0.3, one.in_space), (0.45, one.in_time)):
            axis.text(
                column,
                -row,
                "yes" if verdict else "no",
                va="center",
                ha="center",
                fontsize=10,
                color="black",
                bbox={"boxstyle": "round,pad=0.25", "facecolor": colors[bool(verdict)], "edgecolor": "none"},
            )
        grows = f"{one.bytes_per_step:,.0f} bytes more for each step" if one.bytes_per_step > 0 else "fixed memory"
        axis.text(
            0.56, -row, f"one operation reads {one.reads} of {one.num_places} places; {grows}", va="center", fontsize=8
        )
    axis.text(0.3, 0.9, "in space", ha="center", fontsize=9, color="0.3")
    axis.text(0.45, 0.9, "in time", ha="center", fontsize=9, color="0.3")
    axis.set(xlim=(0, 1.2), ylim=(-len(found) + 0.3, 1.3))
    axis.set_title("Local in space, local in time", loc="left", fontsize=11)
