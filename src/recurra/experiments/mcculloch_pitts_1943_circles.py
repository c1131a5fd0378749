"""McCulloch & Pitts 1943: nets of all-or-none neurons say what their expressions say, circles remember."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells.mcculloch_pitts import Expression, McCullochPittsCell, Signal, latency_of
from ..core import Claim, Experiment, Log
from ..layers import Recurrent

HEAT, COLD = Signal(0), Signal(1)
HOT = HEAT.delayed() | (COLD.delayed(3) & ~COLD.delayed(2))
CHILL = COLD.delayed(2) & COLD.delayed()


@dataclass(frozen=True)
class McCullochPitts1943Circles(Experiment):
    """Every temporal propositional expression has its net; with circles, a net remembers for any time.

    The illusion of heat: cold held to the skin for a moment and taken away is felt as heat, cold that lasts is felt as cold.
    Random expressions are compared with the nets built for them on every history of two inputs, step by step. A latch is set
    by one pulse and read after a million steps; in a circle of several units a pulse goes round.

    Args:
        num_expressions: random expressions.
        depth: of their nesting.
        history: steps of a history; all 4^history are run.
        latch_steps: how long the latch is watched.
        period: units of the circle in which a pulse goes round.
        ring_steps: how long that is watched.
    Source:
        McCulloch & Pitts 1943, Bulletin of Mathematical Biophysics 5:115-133, doi:10.1007/BF02478259 (the expressions of the
        net for heat and cold, figure 1e, from memory)
    Differs:
        The paper proves; here nets are built and run. Controls: the latch with its circle cut, and the net for heat and cold
        with its inhibitory synapse taken away.
    """

    id: ClassVar[str] = "mcculloch-pitts-1943-circles"
    source: ClassVar[str] = (
        "McCulloch & Pitts 1943, Bulletin of Mathematical Biophysics 5:115-133, doi:10.1007/BF02478259"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("truth_tables_right", 1.0, "higher", "every expression is realised", "theorem II", "from memory"),
        Claim("heat_illusion_right", 1.0, "higher", "brief cold felt as heat", "figure 1e", "from memory"),
        Claim("latch_steps", 1e6, "higher", "", "steps for which one pulse is remembered", "theorem"),
        Claim("ringing_right", 1.0, "higher", "reverberation", "circles", "from memory"),
        Claim("latch_steps_without_circle", 1.0, "lower", "", "the circle cut", "theorem", control=True),
        Claim("lasting_cold_right_without_inhibition", 0.0, "lower", "", "no inhibition", "theorem", control=True),
    )

    num_expressions: int = 300
    depth: int = 3
    history: int = 5
    latch_steps: int = 1_000_000
    period: int = 7
    ring_steps: int = 10_000

    @classmethod
    def smoke(cls) -> Self:
        """Few expressions, short times."""
        return cls(num_expressions=4, history=3, latch_steps=200, ring_steps=50)

    def run(self, log: Log) -> Mapping[str, float]:
        """Truth tables, the illusion, the circles, the controls."""
        histories = _histories(self.history)
        draw = random.Random(0)
        right, units = [], []
        for i in range(self.num_expressions):
            if i % 10 == 0:
                log("truth tables", 0.5 * i / self.num_expressions)
            expression = _random_expression(draw, self.depth)
            net = McCullochPittsCell.of([expression], input_size=2)
            right.append(_agrees(net, expression, histories))
            units.append(net.num_units)
        log("heat and cold", 0.5)
        skin = McCullochPittsCell.of([HOT, CHILL])
        numb = McCullochPittsCell.of([HOT, CHILL])
        numb.inhibition.zero_()
        log("circles", 0.6)
        latch = McCullochPittsCell.of([Signal(0).ever()])
        cut = McCullochPittsCell.of([Signal(0).ever()])
        cut.excitation[:, 1:] = 0
        pulse = torch.zeros(self.latch_steps + 1, 1, 1, dtype=torch.bool)
        pulse[0] = True
        held = int(_run(latch, pulse).flatten()[1:].sum())
        log("the circle cut", 0.8)
        lost = int(_run(cut, pulse).flatten()[1:].sum())
        ring = Signal(0).ringing(self.period)
        rung = _run(McCullochPittsCell.of([ring]), pulse[: self.ring_steps])
        log.figure("heat", lambda figure: _draw_skin(figure, skin))
        log.figure("circle", lambda figure: _draw_ring(figure, rung[: 6 * self.period, 0, 0]))
        return {
            "truth_tables_right": sum(right) / len(right),
            "heat_illusion_right": float(_felt_right(skin).double().mean()),
            "latch_steps": float(held),
            "ringing_right": float((rung == ring.truth(pulse[: self.ring_steps, :, :])[..., None]).all()),
            "latch_steps_without_circle": float(lost),
            "lasting_cold_right_without_inhibition": float(_felt_right(numb)[1]),
            "mean_units": sum(units) / len(units),
        }


def _run(net: McCullochPittsCell, xs: Tensor) -> Tensor:
    with torch.no_grad():
        return Recurrent(net)(xs)[0]


def _histories(num_steps: int) -> Tensor:
    """(T, 4^T, 2) bool, every history of two inputs."""
    numbers = torch.arange(4**num_steps)
    bits = (numbers >> torch.arange(2 * num_steps)[:, None]) & 1
    return bits.view(num_steps, 2, -1).transpose(1, 2).bool()


def _agrees(net: McCullochPittsCell, expression: Expression, histories: Tensor) -> bool:
    """Is the output that of the expression, at every step of every history?"""
    late = latency_of([expression])
    xs = torch.cat([histories, histories.new_zeros(late, *histories.shape[1:])])
    return torch.equal(_run(net, xs)[late:, :, 0], expression.truth(histories))


def _random_expression(draw: random.Random, depth: int) -> Expression:
    if depth == 0 or draw.random() < 0.1:
        return Signal(draw.randrange(2))
    one = _random_expression(draw, depth - 1)
    kind = draw.randrange(7)
    if kind == 0:
        return one.delayed(draw.randint(1, 3))
    if kind == 1:
        return one.ever()
    if kind == 2:
        return one.ringing(draw.randint(1, 3))
    other = _random_expression(draw, depth - 1)
    several: Sequence[Expression] = (one & other, one | other, one & ~other, one.since(other))
    return several[kind - 3]


def _felt_right(net: McCullochPittsCell) -> Tensor:
    """(4,) bool: a moment of cold feels hot only, lasting cold feels cold only, a moment of heat hot only, nothing nothing."""
    xs = torch.zeros(8, 4, 2, dtype=torch.bool)
    xs[0, 0, 1] = True
    xs[:, 1, 1] = True
    xs[0, 2, 0] = True
    felt = _run(net, xs).any(0)  # (4, 2) heat, cold
    wanted = torch.tensor([[True, False], [False, True], [True, False], [False, False]])
    return (felt == wanted).all(1)


def _draw_skin(figure: Any, net: McCullochPittsCell) -> None:
    """Inputs and what is felt, for a moment of cold and for cold that lasts."""
    axes = figure.subplots(1, 2, sharey=True)
    for axis, length in zip(axes, (1, 5)):
        xs = torch.zeros(9, 1, 2, dtype=torch.bool)
        xs[:length, 0, 1] = True
        rows = torch.cat([xs, _run(net, xs)], -1)[:, 0].T
        axis.imshow((~rows).numpy(), cmap="gray", vmin=0, vmax=1, aspect="auto")
        axis.set(title=f"cold for {length} step{'s' if length > 1 else ''}", xlabel="step")
        axis.set_yticks(range(4), ["heat applied", "cold applied", "heat felt", "cold felt"])


def _draw_ring(figure: Any, rung: Tensor) -> None:
    axis = figure.subplots()
    axis.step(range(len(rung)), rung.float().numpy(), where="mid")
    axis.set(title="A pulse goes round in a circle", xlabel="step", yticks=(0, 1), ylabel="output")
