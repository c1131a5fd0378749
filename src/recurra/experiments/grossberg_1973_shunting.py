"""Grossberg 1973: what a shunting field makes of a pattern, in all regimes of its signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells.shunting import ShuntingCell, ShuntingInput, ShuntingState
from ..core import RK4, Claim, Experiment, Log, Timed
from ..engines import Auto, Hoisted
from ..layers import Recurrent

LONG = 1000  # steps for which a solver is worth compiling
REGIMES = ("linear", "slower", "faster", "sigmoid")


@dataclass(frozen=True)
class Grossberg1973Shunting(Experiment):
    """An on-centre off-surround field keeps a pattern, levels it, chooses its maximum or quenches what is weak.

    Random patterns are presented for a while and taken away; what the field then keeps is compared with the closed form for
    each signal. The threshold below which a unit is quenched is found by bisection, each trial being a run of the field:
    with the hybrid signal for a unit among M that are stored, from the total activity at rest, where it is c / E of that total
    E = B - A/g; with the sigmoid signal along the line through the saddle, where it is the smaller root of
    w / (c^2 + w^2) = A / (g (B - M w+ - w)), w w+ = c^2.

    Args:
        num_patterns: random patterns.
        num_units: N.
        gain: g, 1/s, of the linear signal (A = B = 1).
        knee: c of the bisected fields.
        presented_s: how long a pattern is presented.
        kept_s: how long it is kept afterwards.
        dt_s: step of the Runge-Kutta solver.
        num_bisections: halvings of the threshold's interval.
        num_stored: M, units beside the one whose start is bisected.
    Source:
        Grossberg 1973, Studies in Applied Mathematics 52(3):213-257, doi:10.1002/sapm1973523213; the regimes as told in
        Grossberg 2013, Scholarpedia 8(2):1888, doi:10.4249/scholarpedia.1888 (read)
    Differs:
        Patterns, sizes and constants are our own; the paper proves theorems. Activities are compared at the end of
        ``kept_s``, not in the limit. The control is the field without its surround.
    """

    id: ClassVar[str] = "grossberg-1973-shunting"
    source: ClassVar[str] = "Grossberg 1973, Studies in Applied Mathematics 52(3):213-257, doi:10.1002/sapm1973523213"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("linear_pattern_error", 0.01, "lower", "pattern kept", "linear signal", "theorem"),
        Claim("linear_total_error", 0.01, "lower", "total B - A/g", "linear signal", "theorem"),
        Claim("slower_spread", 0.01, "lower", "pattern made uniform", "slower than linear", "theorem"),
        Claim("slower_total_error", 0.01, "lower", "", "(gB - Ac) / (g + A/N)", "theorem"),
        Claim("faster_winner_right", 1.0, "higher", "the maximum is chosen", "faster than linear", "theorem"),
        Claim("faster_total_error", 0.01, "lower", "", "(B + sqrt(B^2 - 4A/g)) / 2", "theorem"),
        Claim("sigmoid_partition_right", 1.0, "higher", "weak quenched, strong kept", "sigmoid signal", "theorem"),
        Claim("threshold_error_hybrid", 0.01, "lower", "", "bisected against c / E", "theorem"),
        Claim("threshold_error_sigmoid", 0.01, "lower", "", "bisected against the saddle", "theorem"),
        Claim(
            "pattern_error_without_surround", 0.03, "higher", "saturation", "no off-surround", "theorem", control=True
        ),
        Claim("linear_winners", 9.5, "higher", "", "units kept by the linear field, of 10", "theorem", control=True),
    )

    num_patterns: int = 200
    num_units: int = 10
    gain: float = 4.0
    knee: float = 0.1
    presented_s: float = 2.0
    kept_s: float = 100.0
    dt_s: float = 0.05
    num_bisections: int = 16
    num_stored: int = 3

    @classmethod
    def smoke(cls) -> Self:
        """Few patterns, a shorter time."""
        return cls(num_patterns=5, kept_s=4.0, num_bisections=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """The four regimes, the threshold twice, and the controls."""
        generator = torch.Generator().manual_seed(0)
        shares = torch.rand(self.num_patterns, self.num_units, generator=generator, dtype=torch.float64)
        shares = shares / shares.sum(1, keepdim=True)
        scale = 10.0 ** (2 * torch.rand(self.num_patterns, 1, generator=generator, dtype=torch.float64) - 1)
        paths: dict[str, Tensor] = {}
        for i, name in enumerate((*REGIMES, "alone")):
            log(f"{name} signal", i / 8)
            paths[name] = self._present(self._field(name), shares * scale)
        last = {name: path[-1] for name, path in paths.items()}
        first = {name: path[round(self.presented_s / self.dt_s) - 1] for name, path in paths.items()}
        log("threshold, hybrid signal", 5 / 8)
        hybrid = self._hybrid_threshold()
        log("threshold, sigmoid signal", 7 / 8)
        sigmoid = self._sigmoid_threshold()
        log.figure("courses", lambda figure: _draw_courses(figure, paths, self.dt_s, self.presented_s))
        log.figure("phases", _draw_phases)
        n, g, c = self.num_units, self.gain, self._field("slower").knee
        faster_total = (1 + math.sqrt(1 - 4 / self._field("faster").gain)) / 2
        kept = last["sigmoid"] > 1e-3
        weakest_kept = torch.where(kept, first["sigmoid"], torch.inf).amin(1)
        strongest_lost = torch.where(kept, -torch.inf, first["sigmoid"]).amax(1)
        both = kept.any(1) & ~kept.all(1)
        return {
            "linear_pattern_error": _worst(_share(last["linear"]) - shares),
            "linear_total_error": _worst(last["linear"].sum(1) / (1 - 1 / g) - 1),
            "slower_spread": _worst(_share(last["slower"]) * n - 1),
            "slower_total_error": _worst(last["slower"].sum(1) / ((g - c) / (g + 1 / n)) - 1),
            "faster_winner_right": _mean(_only(last["faster"], shares.argmax(1))),
            "faster_total_error": _worst(last["faster"].sum(1) / faster_total - 1),
            "sigmoid_partition_right": _mean(both & (weakest_kept > strongest_lost)),
            "threshold_error_hybrid": abs(hybrid["found"] / hybrid["theory"] - 1),
            "threshold_error_sigmoid": abs(sigmoid["found"] / sigmoid["theory"] - 1),
            "pattern_error_without_surround": _worst(_share(last["alone"]) - shares),
            "linear_winners": _mean((last["linear"] > 1e-3 * (1 - 1 / g)).sum(1)),
            "sigmoid_units_kept": _mean(kept.sum(1)),
            "threshold_hybrid": hybrid["found"],
            "threshold_sigmoid": sigmoid["found"],
        }

    def _field(self, name: str) -> ShuntingCell:
        n, g = self.num_units, self.gain
        if name == "alone":
            return ShuntingCell(n, "linear", gain=g, surround=0.0)
        constants = {"linear": (g, 1.0), "slower": (g, 0.5), "faster": (40 * g, 1.0), "sigmoid": (g, 0.12)}
        gain, knee = constants[name]
        return ShuntingCell(n, name, gain=gain, knee=knee, solver=RK4(4 if name == "faster" else 1))

    def _present(self, field: ShuntingCell, inputs: Tensor) -> Tensor:
        """(T, B, N) activities: inputs (B, N), each inhibiting all other units, are there first and then not."""
        steps, shown = round((self.presented_s + self.kept_s) / self.dt_s), round(self.presented_s / self.dt_s)
        there = (torch.arange(steps) < shown).to(inputs.dtype)[:, None, None]
        around = inputs.sum(1, keepdim=True) - inputs if field.surround else torch.zeros_like(inputs)
        given = ShuntingInput(there * inputs, there * around)
        start = ShuntingState(torch.zeros_like(inputs))
        return _course(field, given, start, self.dt_s)

    def _keep(self, field: ShuntingCell, start: Tensor, seconds: float) -> Tensor:
        """(B, N) what is left of the activities (B, N) after some seconds without input."""
        nothing = torch.zeros(round(seconds / self.dt_s), *start.shape, dtype=start.dtype)
        return _course(field, ShuntingInput(nothing, nothing), ShuntingState(start), self.dt_s)[-1]

    def _bisect(self, field: ShuntingCell, stored: float, low: float, high: float) -> float:
        """The start of the first unit, the others beginning at ``stored``, between dying and being kept."""
        for _ in range(self.num_bisections):
            middle = (low + high) / 2
            start = torch.full((1, self.num_stored + 1), stored, dtype=torch.float64)
            start[0, 0] = middle
            dies = bool(self._keep(field, start, 4 * self.kept_s)[0, 0] < middle)
            low, high = (middle, high) if dies else (low, middle)
        return (low + high) / 2

    def _hybrid_threshold(self) -> dict[str, float]:
        """As a share of the total at rest; the others share what the first unit leaves of it."""
        field = ShuntingCell(self.num_stored + 1, "hybrid", gain=self.gain, knee=self.knee)
        total = field.ceiling - field.decay / field.gain
        low, high = 0.0, total / (self.num_stored + 1)
        for _ in range(self.num_bisections):
            middle = (low + high) / 2
            start = torch.full((1, self.num_stored + 1), (total - middle) / self.num_stored, dtype=torch.float64)
            start[0, 0] = middle
            dies = bool(self._keep(field, start, self.kept_s)[0, 0] < middle * (1 - 1e-9))
            low, high = (middle, high) if dies else (low, middle)
        return {"found": (low + high) / 2 / total, "theory": field.knee / total}

    def _sigmoid_threshold(self) -> dict[str, float]:
        field = ShuntingCell(self.num_stored + 1, "sigmoid", gain=self.gain, knee=self.knee)
        stored = _saddle(field, self.num_stored)
        weak = field.knee**2 / stored
        return {"found": self._bisect(field, stored, 0.0, stored), "theory": weak}


def _saddle(field: ShuntingCell, num_stored: int) -> float:
    """w+ of the fixed point with M units at w+ and one at c^2 / w+, where that one is unstable."""
    low, high = field.knee, field.ceiling / num_stored
    for _ in range(200):
        middle = (low + high) / 2
        weak = field.knee**2 / middle
        rest = field.ceiling - num_stored * middle - weak
        grows = rest * field.gain * middle / (field.knee**2 + middle**2) > field.decay
        low, high = (middle, high) if grows else (low, middle)
    return (low + high) / 2


def _course(field: ShuntingCell, given: ShuntingInput, start: ShuntingState, dt_s: float) -> Tensor:
    gaps = torch.full(given.excitation.shape[:2], dt_s, dtype=torch.float64)
    engine = Auto() if len(gaps) >= LONG else Hoisted()
    with torch.no_grad():
        return Recurrent(field.double(), engine)(Timed(given, gaps), start)[0]


def _share(x: Tensor) -> Tensor:
    return x / x.sum(1, keepdim=True)


def _only(x: Tensor, winner: Tensor) -> Tensor:
    """(B,) is the winner the one unit that is active?"""
    return ((x > 1e-3) == torch.nn.functional.one_hot(winner, x.shape[1]).bool()).all(1)


def _worst(values: Tensor) -> float:
    return float(values.abs().max())


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _draw_courses(figure: Any, paths: Mapping[str, Tensor], dt_s: float, presented_s: float) -> None:
    """One pattern's activities in each regime."""
    axes = figure.subplots(1, len(REGIMES), sharey=True)
    for axis, name in zip(axes, REGIMES):
        path = paths[name][: round(10 * presented_s / dt_s), 0]
        axis.plot(dt_s * torch.arange(len(path)), path, lw=0.9)
        axis.axvspan(0, presented_s, color="0.92")
        axis.set(title=name, xlabel="time (s)")
    axes[0].set_ylabel("activity (grey: input on)")


def _draw_phases(figure: Any) -> None:
    """Two units: the flow, and where it leads from many starts."""
    axes = figure.subplots(1, len(REGIMES), sharey=True)
    grid = torch.linspace(0.03, 0.97, 15, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    points = points[points.sum(1) < 1.2]
    fields = {"linear": (4.0, 1.0), "slower": (4.0, 0.5), "faster": (20.0, 1.0), "sigmoid": (4.0, 0.2)}
    nothing = torch.zeros(600, len(points), 2, dtype=torch.float64)
    for axis, (name, (gain, knee)) in zip(axes, fields.items()):
        field = ShuntingCell(2, name, gain=gain, knee=knee)
        slope = field.derivative(ShuntingInput(nothing[0], nothing[0]), ShuntingState(points)).x
        slope = slope / slope.norm(dim=1, keepdim=True)
        axis.quiver(*points.T, *slope.T, color="0.6", angles="xy", width=0.004)
        path = _course(field, ShuntingInput(nothing, nothing), ShuntingState(points), 0.1)
        axis.plot(path[:, ::7, 0], path[:, ::7, 1], lw=0.5, color="#0077bb")
        axis.plot(*path[-1].T, "o", ms=4, color="#cc3311")
        axis.set(title=name, xlabel="$x_1$", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes[0].set_ylabel("$x_2$")
