"""Grossberg's memories of lists: item-and-order gradients, rehearsal, the avalanche; waves and oscillations of a field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..cells.avalanche import AvalancheCell, AvalancheInput
from ..cells.item_order import ItemOrderCell, ItemOrderInput, ItemOrderOutput
from ..cells.shunting import ShuntingInput
from ..cells.shunting_line import ShuntingLineCell, ShuntingLineState
from ..core import Claim, Experiment, Log, Timed
from ..engines import Auto, Hoisted
from ..layers import Recurrent

LONG = 1000  # steps for which a solver is worth compiling
DT_S = 0.02  # of the fields
STRENGTHS = {"primacy": 0.01, "bow": 0.15, "recency": 1.5}


class _Wave(NamedTuple):
    """path: (T, N) activities; peaks: (n,) when the units of the middle part were most active, s; speed: units/s."""

    path: Tensor
    peaks: Tensor
    speed: float


class _Rest(NamedTuple):
    """A single unit with its interneuron: x = y at rest, d(dx/dt)/dx and d(dx/dt)/dy there."""

    x: float
    own: float
    other: float


@dataclass(frozen=True)
class GrossbergLists(Experiment):
    """One working memory stores primacy, recency or bowed gradients, and performs what it stores strongest first.

    Random lists of different items are presented with pauses; the stored activities are compared with the closed form of the
    model at rest. Then pulses of the rehearsal wave ask for the items: they must come in the order of their activities, which
    for a primacy gradient is the order of the list. An avalanche learns a sequence of spatial patterns in one passage and plays
    it back.

    The wave on which such lists ride is a field of its own: shunting units along a line that excite their neighbours, with slow
    interneurons that inhibit them. A short input to one end travels to the other, unit after unit, with constant speed, which
    doubles where connections reach twice as far; a steady input to all units makes them oscillate together, with the period
    and the rate of growth that the field's linear form at rest gives. With fast interneurons there is neither.

    Args:
        num_lists: random lists.
        num_items: items that the memory knows.
        length: of a list.
        shown_s: how long an item is there.
        pause_s: between two items.
        pulse_s: of the rehearsal wave.
        rest_s: between two pulses.
        num_patterns: steps of the avalanche.
        num_units: of the line; the ring that oscillates has half as many.
        wave_s: for which a wave is followed.
        steady: input to all units of the ring, 1/s.
        oscillation_s: for which an oscillation is followed, the first half left out: the units begin apart, and what is
            between them falls to a third in 20 s.
    Source:
        Bradski, Carpenter & Grossberg 1994, Biological Cybernetics 71:469-480, doi:10.1007/BF00198465 (abstract read);
        Grossberg 1978, Journal of Mathematical Psychology 17:199-219; Grossberg 1969, Journal of Mathematics and Mechanics
        19:53-91; waves and oscillations: Ellias & Grossberg 1975, Biological Cybernetics 20:69-98 (from memory; told in
        Grossberg 2013, Scholarpedia 8(2):1888, read)
    Differs:
        Strengths, times and list lengths are our own; the closed form is that of items and pauses without end. Controls: the
        memory whose items do not switch themselves off, which performs the first one for ever, an avalanche whose chain is
        cut, fields whose interneurons are fast, and a field without inhibition, which a wave leaves active for ever.
    """

    id: ClassVar[str] = "grossberg-lists"
    source: ClassVar[str] = (
        "Bradski, Carpenter & Grossberg 1994, Biological Cybernetics 71:469-480, doi:10.1007/BF00198465"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("primacy_right", 1.0, "higher", "primacy gradient", "abstract", "read"),
        Claim("bow_right", 1.0, "higher", "bowed gradient", "abstract", "read"),
        Claim("recency_right", 1.0, "higher", "recency gradient", "abstract", "read"),
        Claim("gradient_error", 0.01, "lower", "", "stored against the closed form, relative", "theorem"),
        Claim("invariance_error", 0.01, "lower", "relative activities stay", "abstract", "read"),
        Claim("rehearsal_right", 1.0, "higher", "strongest first", "item-and-order", "from memory"),
        Claim("list_order_right", 1.0, "higher", "", "primacy lists performed in the order of the list"),
        Claim("avalanche_error", 1e-6, "lower", "sequence played back", "avalanche", "from memory"),
        Claim("wave_order_right", 1.0, "higher", "travelling wave", "neighbours in the order of the line", "read"),
        Claim("wave_speed_spread", 0.02, "lower", "", "local speeds over the mean speed, worst"),
        Claim("wave_speed_ratio_off", 0.02, "lower", "", "connections twice as far: twice the speed", "theorem"),
        Claim("wave_left_behind", 0.01, "lower", "", "largest activity behind the wave"),
        Claim(
            "oscillation_period_spread", 0.01, "lower", "oscillation", "longest less shortest period, relative", "read"
        ),
        Claim("oscillation_apart", 0.01, "lower", "synchronous", "largest difference of two units", "read"),
        Claim("oscillation_swing", 0.2, "higher", "", "from the lowest to the highest activity"),
        Claim("small_period_error", 0.01, "lower", "", "near rest, against the linear form", "theorem"),
        Claim("small_growth_error", 0.01, "lower", "", "near rest, against the linear form", "theorem"),
        Claim("oscillation_swing_fast", 0.001, "lower", "", "interneurons too fast", "theorem", control=True),
        Claim(
            "wave_reach_fast",
            0.2,
            "lower",
            "",
            "share of the line that a wave reaches, fast interneurons",
            control=True,
        ),
        Claim("left_behind_uninhibited", 0.5, "higher", "", "largest activity behind, no inhibition", control=True),
        Claim("rehearsal_right_without_inhibition", 0.0, "lower", "perseveration", "", "from memory", control=True),
        Claim("avalanche_error_chain_cut", 0.1, "higher", "", "no wave", control=True),
    )

    num_lists: int = 50
    num_items: int = 10
    length: int = 7
    shown_s: float = 60.0
    pause_s: float = 15.0
    pulse_s: float = 2.0
    rest_s: float = 6.0
    num_patterns: int = 50
    num_units: int = 120
    wave_s: float = 20.0
    steady: float = 0.1
    oscillation_s: float = 200.0

    @classmethod
    def smoke(cls) -> Self:
        """Few short lists."""
        sizes: dict[str, Any] = {"num_lists": 2, "num_items": 3, "length": 2, "num_patterns": 5, "num_units": 40}
        times: dict[str, Any] = {"shown_s": 10.0, "pause_s": 3.0, "pulse_s": 0.3, "rest_s": 0.3}
        return cls(**sizes, **times, wave_s=3.0, oscillation_s=12.0)

    def run(self, log: Log) -> Mapping[str, float]:
        """The three regimes, rehearsal, the avalanche, the controls."""
        generator = torch.Generator().manual_seed(0)
        lists = torch.stack([torch.randperm(self.num_items, generator=generator) for _ in range(self.num_lists)])
        lists = lists[:, : self.length]  # (B, L) item numbers
        stored: dict[str, Tensor] = {}
        drawn: dict[str, Tensor] = {}
        rehearsed: dict[str, Tensor] = {}
        changes, errors = [], []
        for i, (name, strength) in enumerate(STRENGTHS.items()):
            log(f"{name}: lists", i / 6)
            cell = ItemOrderCell(self.num_items, strength=strength).double()
            course, state = self._present(cell, lists)
            after = self._after_each(course, lists)  # (L, B, L) by place in the list
            stored[name] = after[-1]
            drawn[name] = after[:, 0]
            errors.append((after[-1] / _closed_form(strength, self.length) - 1).abs().max())
            shares = after[1:, :, :2] / after[1:, :, :2].sum(-1, keepdim=True)
            changes.append((shares - shares[:1]).abs().max())
            log(f"{name}: rehearsal", (i + 0.6) / 6)
            rehearsed[name] = self._rehearse(cell, state)
            if name == "primacy":
                tireless = ItemOrderCell(self.num_items, strength=strength, self_inhibition=0.0).double()
                rehearsed["perseverating"] = self._rehearse(tireless, state)
        log("waves", 3 / 6)
        waves = self._waves()
        log("oscillations", 4 / 6)
        oscillations, course = self._oscillations()
        log("avalanche", 5 / 6)
        order = {name: lists.gather(1, x.argsort(1, descending=True)) for name, x in stored.items()}
        right = [(rehearsed[name] == order[name]).all(1).double().mean() for name in STRENGTHS]
        steps = {name: x[:, 1:] - x[:, :-1] for name, x in stored.items()}
        turns = (steps["bow"].sign().diff(dim=1) > 0).sum(1)
        bowed = (steps["bow"][:, 0] < 0) & (steps["bow"][:, -1] > 0) & (turns == 1)
        log.figure("gradients", lambda figure: _draw_gradients(figure, drawn))
        log.figure("waves", lambda figure: self._draw_waves(figure, waves, course))
        wave, twice = waves["slow"], waves["twice"]
        return {
            "primacy_right": float((steps["primacy"] < 0).all(1).double().mean()),
            "bow_right": float(bowed.double().mean()),
            "recency_right": float((steps["recency"] > 0).all(1).double().mean()),
            "gradient_error": float(max(errors)),
            "invariance_error": float(max(changes)),
            "rehearsal_right": float(min(right)),
            "list_order_right": float((rehearsed["primacy"] == lists).all(1).double().mean()),
            "avalanche_error": self._avalanche(1.0),
            "wave_order_right": float((wave.peaks.diff() > 0).double().mean()),
            "wave_speed_spread": float((10 / (wave.peaks[10:] - wave.peaks[:-10]) / wave.speed - 1).abs().max()),
            "wave_speed_ratio_off": abs(twice.speed / wave.speed / 2 - 1),
            "wave_speed": wave.speed,
            "wave_left_behind": float(wave.path[-1].max()),
            "wave_reach_fast": float((waves["fast"].path.amax(0) > 0.5 * wave.path.amax()).double().mean()),
            "left_behind_uninhibited": float(waves["uninhibited"].path[-1].max()),
            **oscillations,
            "rehearsal_right_without_inhibition": float(
                (rehearsed["perseverating"] == order["primacy"]).all(1).double().mean()
            ),
            "avalanche_error_chain_cut": self._avalanche(0.0),
        }

    def _present(self, cell: ItemOrderCell, lists: Tensor) -> tuple[Tensor, Any]:
        """Activities (T, B, N) while the lists are presented, and the state after them."""
        dt_s = 0.25
        shown, pause = round(self.shown_s / dt_s), round(self.pause_s / dt_s)
        items = torch.nn.functional.one_hot(lists.T, self.num_items).double()  # (L, B, N)
        there = torch.cat(
            [items[:, None].expand(-1, shown, -1, -1), torch.zeros_like(items)[:, None].expand(-1, pause, -1, -1)], 1
        )
        ys, state = _course(cell, ItemOrderInput(there.flatten(0, 1), torch.zeros(there.flatten(0, 1).shape[:2])), dt_s)
        return ys.stored, state

    def _after_each(self, course: Tensor, lists: Tensor) -> Tensor:
        """(L, B, L): after each item, the activities in the order of the list."""
        ends = course.unflatten(0, (self.length, -1))[:, -1]
        return ends.gather(2, lists.expand(self.length, -1, -1))

    def _rehearse(self, cell: ItemOrderCell, state: Any) -> Tensor:
        """(B, L) the item that is performed at each pulse."""
        dt_s = 0.01
        on, off = round(self.pulse_s / dt_s), round(self.rest_s / dt_s)
        num_lists = len(state.x)
        wave = torch.cat([torch.ones(on), torch.zeros(off)]).repeat(self.length)[:, None].expand(-1, num_lists)
        nothing = torch.zeros(len(wave), num_lists, self.num_items, dtype=torch.float64)
        ys, _ = _course(cell, ItemOrderInput(nothing, wave), dt_s, state)
        performed = ys.performed.unflatten(0, (self.length, on + off)).sum(1)  # (L, B, N)
        return torch.where(performed.amax(-1) > 0, performed.argmax(-1), -1).T

    def _waves(self) -> dict[str, _Wave]:
        """One second of input to one end of a line: slow interneurons, connections twice as far, and the controls."""
        kinds: dict[str, dict[str, Any]] = {
            "slow": {},
            "twice": {"reach": 4.0, "spread": 4.0},
            "fast": {"rate": 20.0},
            "uninhibited": {"inhibition": 0.0},
        }
        given = torch.zeros(round(self.wave_s / DT_S), 1, self.num_units, dtype=torch.float64)
        given[: round(1 / DT_S), :, :5] = 2.0
        return {name: self._wave(ShuntingLineCell(self.num_units, **kind), given) for name, kind in kinds.items()}

    def _wave(self, cell: ShuntingLineCell, given: Tensor) -> _Wave:
        path = _followed(cell.double(), given)[:, 0]
        middle = path[:, self.num_units // 6 : -self.num_units // 6]
        peaks = _peaks(middle)
        return _Wave(path, peaks, (len(peaks) - 1) / float(peaks[-1] - peaks[0]))

    def _oscillations(self) -> tuple[dict[str, float], Tensor]:
        """Large and small oscillations of a ring under steady input; and one course (T, N)."""
        num_units = self.num_units // 2
        at_rest = _at_rest(self.steady)
        generator = torch.Generator().manual_seed(2)
        start = 0.1 + 0.05 * torch.rand(1, num_units, generator=generator, dtype=torch.float64)
        given = torch.full((round(self.oscillation_s / DT_S), 1, num_units), self.steady, dtype=torch.float64)
        large = _followed(ShuntingLineCell(num_units, ring=True).double(), given, start)[:, 0]
        late = large[len(large) // 2 :]
        periods = _crossings(late[:, 0], 0.5 * float(late.max() + late.min())).diff()
        periods = periods if len(periods) else torch.zeros(1)  # a short run has none
        fast = ShuntingLineCell(num_units, ring=True, rate=1.5 * at_rest.own).double()
        still = _followed(fast, given, start)[-len(late) // 2 :, 0]
        small = self._near_rest(at_rest)
        return {
            "oscillation_period": float(periods.mean()),
            "oscillation_period_spread": float((periods.max() - periods.min()) / periods.mean().clamp(min=DT_S)),
            "oscillation_apart": float((late.amax(1) - late.amin(1)).max()),
            "oscillation_swing": float(late.max() - late.min()),
            "oscillation_swing_fast": float(still.max() - still.min()),
            "unstable_below_rate": at_rest.own,
            **small,
        }, large

    def _near_rest(self, at_rest: _Rest) -> dict[str, float]:
        """Period and growth of the smallest oscillations, at 0.9 of the rate below which the field is unstable."""
        rate = 0.9 * at_rest.own
        trace, determinant = at_rest.own - rate, -rate * (at_rest.own + at_rest.other)
        period = 2 * math.pi / math.sqrt(determinant - trace * trace / 4)
        rest = torch.full((1, 1), at_rest.x, dtype=torch.float64)
        given = torch.full((round(12 * period / DT_S), 1, 1), self.steady, dtype=torch.float64)
        cell = ShuntingLineCell(1, ring=True, rate=rate).double()
        away = _followed(cell, given, rest + 1e-9, rest)[:, 0, 0] - at_rest.x
        times = _crossings(away)
        spans = [away[n : n + round(period / DT_S)] for n in (times / DT_S).long().tolist()[2:-1]]
        tops = [span[int(_peaks(span[:, None])[0] / DT_S + 0.5) + torch.arange(-1, 2)] for span in spans]
        heights = torch.stack([b + (c - a).square() / (8 * (2 * b - a - c)) for a, b, c in tops])
        growth = float((heights[-1] / heights[0]).log() / (times[-2] - times[2]))
        return {
            "small_period_error": abs(float(times[2:].diff().mean()) / period - 1),
            "small_growth_error": abs(growth / (trace / 2) - 1),
        }

    def _draw_waves(self, figure: Any, waves: Mapping[str, _Wave], course: Tensor) -> None:
        """The wave along the line and in time, the control, and the oscillation."""
        left, middle, right = figure.subplots(1, 3)
        for axis, name in ((left, "slow"), (middle, "uninhibited")):
            shown = waves[name].path[: round(10 / DT_S)]
            extent = (0, self.num_units, 0, len(shown) * DT_S)
            axis.imshow(shown.numpy(), origin="lower", aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1)
            axis.set(xlabel="place on the line", ylabel="time, s")
        left.set_title("slow interneurons: a wave", loc="left", fontsize=9)
        middle.set_title("no inhibition: a front", loc="left", fontsize=9)
        times = DT_S * torch.arange(len(course))
        for unit in range(0, course.shape[1], 12):
            right.plot(times, course[:, unit], lw=0.8, color=str(0.6 * unit / course.shape[1]))
        right.set(xlabel="time, s", ylabel="activities", xlim=(0, 60))
        right.set_title("steady input: together", loc="left", fontsize=9)
        right.spines[["top", "right"]].set_visible(False)

    def _avalanche(self, decay: float) -> float:
        """Largest difference between a random sequence and what is played back."""
        patterns = torch.rand(self.num_patterns, 1, 20, generator=torch.Generator().manual_seed(1))
        start = (torch.arange(self.num_patterns) == 0).float()[:, None]
        chain = AvalancheCell(self.num_patterns, 20, decay=decay)
        with torch.no_grad():
            _, state = Recurrent(chain)(AvalancheInput(start, patterns, torch.ones_like(start)))
            played, _ = Recurrent(chain)(
                AvalancheInput(start, torch.zeros_like(patterns), torch.zeros_like(start)), state
            )
        return float((played - patterns).abs().max())


def _followed(cell: ShuntingLineCell, given: Tensor, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
    """(T, B, N) activities under an excitation, from rest or from given activities."""
    gaps = torch.full(given.shape[:2], DT_S, dtype=torch.float64)
    state = None if x is None else ShuntingLineState(x, x if y is None else y)
    engine = Auto() if len(gaps) >= LONG else Hoisted()
    with torch.no_grad():
        return Recurrent(cell, engine)(Timed(ShuntingInput(given, torch.zeros_like(given)), gaps), state)[0]


def _peaks(path: Tensor) -> Tensor:
    """(N,) s when each column of (T, N) is highest, by the parabola through the highest value and its neighbours."""
    n = path.argmax(0).clamp(1, len(path) - 2)
    a, b, c = (path.gather(0, (n + i)[None])[0] for i in (-1, 0, 1))
    curved = 2 * b - a - c
    return DT_S * (n + torch.where(curved > 0, (c - a) / (2 * curved.clamp(min=1e-30)), 0.0))


def _crossings(values: Tensor, level: float = 0.0) -> Tensor:
    """s when a course (T,) rises through a level."""
    v = values - level
    n = ((v[:-1] < 0) & (v[1:] >= 0)).nonzero()[:, 0]
    return DT_S * (n + v[n] / (v[n] - v[n + 1]))


def _at_rest(steady: float) -> _Rest:
    """Where a unit under steady input rests, by bisection, and the derivatives there."""
    cell = ShuntingLineCell(1, ring=True).double()
    given = ShuntingInput(torch.full((1, 1), steady, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))

    def slope(x: Tensor, y: Tensor) -> Tensor:
        return cell.derivative(given, ShuntingLineState(x, y)).x

    low, high = 0.0, cell.ceiling
    for _ in range(60):
        x = torch.full((1, 1), 0.5 * (low + high), dtype=torch.float64)
        low, high = (float(x), high) if float(slope(x, x)) > 0 else (low, float(x))
    both = x.clone().requires_grad_(), x.clone().requires_grad_()
    own, other = torch.autograd.grad(slope(*both).sum(), both)
    return _Rest(float(x), float(own), float(other))


def _closed_form(strength: float, length: int) -> Tensor:
    """(L,) x after the last item."""
    sums = [0.0]
    for _ in range(length):
        sums.append(math.sqrt(strength + sums[-1]))
    return torch.tensor([strength / math.prod(sums[i + 1 :]) for i in range(length)], dtype=torch.float64)


def _course(cell: ItemOrderCell, given: ItemOrderInput, dt_s: float, state: Any = None) -> tuple[ItemOrderOutput, Any]:
    given = ItemOrderInput(given.items.double(), given.rehearse.double())
    gaps = torch.full_like(given.rehearse, dt_s)
    engine = Auto() if len(gaps) >= LONG else Hoisted()
    with torch.no_grad():
        return Recurrent(cell, engine)(Timed(given, gaps), state)


def _draw_gradients(figure: Any, drawn: Mapping[str, Tensor]) -> None:
    """One list's activities after each of its items."""
    axes = figure.subplots(1, len(drawn))
    for axis, (name, after) in zip(axes, drawn.items()):
        places = range(1, len(after) + 1)
        for n in places:
            axis.plot(places[:n], after[n - 1, :n], "o-", ms=3, color=str(0.8 - 0.8 * n / len(after)))
        axis.set(title=f"{name}, A = {STRENGTHS[name]:g}", xlabel="place in the list", ylim=(0, None))
    axes[0].set_ylabel("activity after 1, 2, ... items")
