"""Jordan 1986: a plan becomes a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells.jordan import JordanCell, JordanState
from ..core import Chunk, Claim, Controls, Experiment, Log, Loss
from ..layers import Recurrent
from ..learning import BPTT
from ..tasks.plans import SQUARE, coarticulation_targets, planned_sequences, square_cycle
from ..training import fit


@dataclass(frozen=True)
class CareCrossEntropy(Loss):
    """``-sum_o target_o log y_o + (1 - target_o) log(1 - y_o)`` over the outputs whose target is a number.

    y are probabilities, so that they can be fed back as they are; a NaN among the targets is a "don't care".
    """

    def per_step(self, ys: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_step`."""
        care = ~targets.isnan()
        wanted, said = torch.where(care, targets, 0.5), ys.clamp(1e-6, 1 - 1e-6)
        each = -(wanted * said.log() + (1 - wanted) * (1 - said).log())
        return torch.where(care, each, 0).sum(-1)


@dataclass(frozen=True)
class Jordan1986Plans(Experiment):
    """A plan that stays the same becomes a sequence, through a decaying trace of the net's own outputs.

    Three parts: eight plans whose sequences have repeats, run closed-loop; a limit cycle over the corners of a square, begun
    anywhere; and features that the teacher leaves open, which drift towards what comes next (co-articulation).

    Args:
        num_seeds: nets, each with sequences of its own.
        num_plans: sequences that one net learns.
        num_steps: their length.
        num_symbols: symbols, one output unit each.
        hidden_size: H of the nets for sequences and for co-articulation.
        cycle_hidden_size: H of the net for the cycle.
        decay: mu of the state layer.
        lr: Adam's learning rate.
        num_updates: updates of each net.
        num_starts: random starts of the cycle.
        taught_noise: standard deviation of the noise on the cycle while the teacher speaks.
        start_noise: the same on the one period that the net hears before it goes on alone.
    Source:
        Jordan 1986, Proc. 8th Annual Conference of the Cognitive Science Society, 531-546
    Differs:
        Adam and cross-entropy instead of plain gradient descent on squared errors. Sequences are learned with the teacher's
        values fed back (teacher forcing), as in the paper. For the cycle the values heard carry noise, and after as many
        updates again, in which the net hears one period, it learns by backpropagation through time to go on alone.
    """

    id: ClassVar[str] = "jordan-1986-plans"
    source: ClassVar[str] = "Jordan 1986, Proc. 8th Annual Conference of the Cognitive Science Society, 531-546"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("sequences_right", 1.0, "higher", "several sequences per net", "figures", "from memory"),
        Claim("sequences_right_without_trace", 0.1, "lower", "", "a net that sees its last output only", control=True),
        Claim("starts_on_cycle", 0.95, "higher", "perturbed trajectories return", "figures", "from memory"),
        Claim("starts_on_cycle_without_feedback", 0.05, "lower", "", "a net without output feedback", control=True),
        Claim("coarticulation", 0.3, "higher", "open features anticipate what comes", "figures", "from memory"),
        Claim("coarticulation_where_specified", 0.1, "lower", "", "the same steps, specified", control=True),
    )

    num_seeds: int = 10
    num_plans: int = 8
    num_steps: int = 8
    num_symbols: int = 4
    hidden_size: int = 40
    cycle_hidden_size: int = 20
    decay: float = 0.5
    lr: float = 0.02
    num_updates: int = 2000
    num_starts: int = 100
    taught_noise: float = 0.02
    start_noise: float = 0.05

    @classmethod
    def smoke(cls) -> Self:
        """One net, few updates."""
        return cls(num_seeds=1, num_plans=2, num_updates=60, num_starts=10)

    def run(self, log: Log) -> Mapping[str, float]:
        """All three parts, mean over the nets."""
        parts: dict[str, list[float]] = {claim.metric: [] for claim in self.claims}
        pictures: dict[str, Tensor] = {}
        within: list[float] = []
        for seed in range(self.num_seeds):
            stages: tuple[tuple[str, Any], ...] = (
                ("sequences_right", partial(self._sequences, seed, self.decay)),
                ("sequences_right_without_trace", partial(self._sequences, seed, 0.0)),
                ("starts_on_cycle", partial(self._cycle, seed, True, pictures, within)),
                ("starts_on_cycle_without_feedback", partial(self._cycle, seed, False, pictures, within)),
                ("coarticulation", partial(self._coarticulation, seed, True, pictures)),
                ("coarticulation_where_specified", partial(self._coarticulation, seed, False, pictures)),
            )
            for i, (metric, stage) in enumerate(stages):
                log(f"net {seed + 1} of {self.num_seeds}", (seed + i / len(stages)) / self.num_seeds)
                parts[metric].append(stage())
        log.figure("cycle", lambda figure: _draw_cycle(figure, pictures))
        log.figure("coarticulation", lambda figure: _draw_coarticulation(figure, pictures))
        metrics = {metric: sum(values) / len(values) for metric, values in parts.items()}
        return {
            **metrics,
            "sequences_right_worst_net": min(parts["sequences_right"]),
            "starts_on_cycle_worst_net": min(parts["starts_on_cycle"]),
            "starts_within_a_tenth": sum(within) / len(within),
        }

    def _train(self, cell: JordanCell, chunks: list[Chunk]) -> None:
        total = self.num_updates
        fit(
            cell,
            chunks,
            CareCrossEntropy(),
            partial(torch.optim.Adam, lr=self.lr),
            rule=BPTT(),
            num_epochs=-(-total // len(chunks)),
            num_steps=total,
            lr_schedule=lambda n: 1 - 0.95 * n / total,
        )

    def _sequences(self, seed: int, decay: float) -> float:
        """Fraction of the plans whose whole sequence comes out right when the net hears only itself."""
        generator = torch.Generator().manual_seed(seed)
        task = planned_sequences(self.num_plans, self.num_steps, self.num_symbols, generator)
        cell = JordanCell(
            self.num_plans,
            self.hidden_size,
            self.num_symbols,
            decay=decay,
            activation="tanh",
            output_activation="sigmoid",
            generator=generator,
        )
        xs = task.plans.expand(self.num_steps, -1, -1)
        self._train(cell, [Chunk(xs, task.outputs, None, Controls(forced=task.outputs))])
        with torch.no_grad():
            ys, _ = Recurrent(cell)(xs)
        return float((ys.argmax(-1) == task.symbols).all(0).double().mean())

    def _cycle(self, seed: int, feedback: bool, pictures: dict[str, Tensor], within: list[float]) -> float:
        """Fraction of random starts that are on the cycle after three periods; without feedback the state is wiped.

        On the cycle: at each of the eight steps that follow, the output is nearest to the corner whose turn it is (no
        coordinate is off by half a side, 0.25). ``within`` takes the fraction with no coordinate off by more than 0.1.
        """
        generator = torch.Generator().manual_seed(1000 + seed)
        cell = JordanCell(
            1,
            self.cycle_hidden_size,
            2,
            decay=self.decay,
            activation="tanh",
            output_activation="sigmoid",
            generator=generator,
        )
        num_steps, num_rows, num_chunks, num_heard = 16, 16, 50, 4
        xs = torch.ones(num_steps, num_rows, 1)
        reset = None if feedback else torch.ones(num_steps, num_rows, dtype=torch.bool)
        hearing = (torch.arange(num_steps) < num_heard)[:, None].expand(-1, num_rows)
        weights = (torch.arange(num_steps) > num_heard).float()[:, None].expand(-1, num_rows)
        taught, alone = [], []
        for _ in range(num_chunks):
            phase = torch.randint(0, 4, (num_rows,), generator=generator)
            targets = SQUARE[(phase + torch.arange(num_steps)[:, None]) % 4]
            noise = torch.randn(targets.shape, generator=generator)
            taught.append(Chunk(xs, targets, weights, Controls(None, reset, targets + self.taught_noise * noise)))
            heard = targets + self.start_noise * noise
            alone.append(Chunk(xs, targets, weights, Controls(None, reset, heard, hearing)))
        self._train(cell, taught)
        self._train(cell, alone)

        first = torch.rand(self.num_starts, 2, generator=generator)
        trace = 2 * torch.rand(self.num_starts, 2, generator=generator)
        state = JordanState(first, trace)
        periods = 3
        xs = torch.ones(4 * (periods + 2), self.num_starts, 1)
        reset = None if feedback else torch.ones(xs.shape[:2], dtype=torch.bool)
        with torch.no_grad():
            ys, _ = Recurrent(cell)(xs, state, reset=reset)
        if feedback and seed == 0:
            pictures["starts"], pictures["ys"] = first, ys
        late = ys[4 * periods :]
        cycle = square_cycle(late.shape[0] + 3)
        shifts = torch.stack([cycle[p : p + late.shape[0]] for p in range(4)])  # (4, T, 2)
        far = (late[None] - shifts[:, :, None]).abs().amax((1, 3))  # (4, starts)
        nearest = far.amin(0)
        if feedback:
            within.append(float((nearest <= 0.1).double().mean()))
        return float((nearest < 0.25).double().mean())

    def _coarticulation(self, seed: int, free: bool, pictures: dict[str, Tensor]) -> float:
        """Mean difference between both plans before their targets differ, relative to that of the targets."""
        generator = torch.Generator().manual_seed(2000 + seed)
        targets = coarticulation_targets(self.num_steps, free)
        cell = JordanCell(
            2,
            self.hidden_size,
            2,
            decay=self.decay,
            activation="tanh",
            output_activation="sigmoid",
            generator=generator,
        )
        xs = torch.eye(2).expand(self.num_steps, -1, -1)
        self._train(cell, [Chunk(xs, targets)])  # an open output feeds itself back, so nothing is forced
        with torch.no_grad():
            ys, _ = Recurrent(cell)(xs)
        if seed == 0:
            pictures["free" if free else "specified"] = ys
        wanted = targets[-1, 1, 1] - targets[-1, 0, 1]
        return float((ys[2:-1, 1, 1] - ys[2:-1, 0, 1]).mean() / wanted)


def _draw_cycle(figure: Any, pictures: Mapping[str, Tensor]) -> None:
    axes = figure.subplots(1, 2)
    starts, ys = pictures["starts"], pictures["ys"]
    for row in range(min(8, ys.shape[1])):
        path = torch.cat([starts[row : row + 1], ys[:, row]])
        axes[0].plot(path[:, 0], path[:, 1], lw=0.8, alpha=0.7)
        axes[0].plot(*starts[row], "o", ms=5, color="black")
        axes[1].plot(ys[:, row, 0], lw=0.8, alpha=0.7)
    square = square_cycle(5)
    axes[0].plot(square[:, 0], square[:, 1], "k--", lw=1)
    axes[0].set(title="Random starts (dots) return to the square", xlabel="output 1", ylabel="output 2", aspect="equal")
    axes[1].set(title="Output 1, run closed-loop", xlabel="step", ylabel="output 1")


def _draw_coarticulation(figure: Any, pictures: Mapping[str, Tensor]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"free": "open between step 2 and the last", "specified": "0.5 asked for between"}
    for axis, (name, title) in zip(axes, titles.items()):
        for plan, wanted in enumerate((0.1, 0.9)):
            axis.plot(pictures[name][:, plan, 1], "o-", label=f"plan {plan + 1}: ends at {wanted}")
        axis.set(title=title, xlabel="step", ylim=(0, 1))
        axis.legend()
    axes[0].set_ylabel("second feature")
