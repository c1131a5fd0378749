"""Grossberg's memories of lists: item-and-order gradients, rehearsal, and the avalanche."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells.avalanche import AvalancheCell, AvalancheInput
from ..cells.item_order import ItemOrderCell, ItemOrderInput, ItemOrderOutput
from ..core import Claim, Experiment, Log, Timed
from ..engines import Auto, Hoisted
from ..layers import Recurrent

LONG = 1000  # steps for which a solver is worth compiling
STRENGTHS = {"primacy": 0.01, "bow": 0.15, "recency": 1.5}


@dataclass(frozen=True)
class GrossbergLists(Experiment):
    """One working memory stores primacy, recency or bowed gradients, and performs what it stores strongest first.

    Random lists of different items are presented with pauses; the stored activities are compared with the closed form of the
    model at rest. Then pulses of the rehearsal wave ask for the items: they must come in the order of their activities, which
    for a primacy gradient is the order of the list. An avalanche learns a sequence of spatial patterns in one passage and plays
    it back.

    Args:
        num_lists: random lists.
        num_items: items that the memory knows.
        length: of a list.
        shown_s: how long an item is there.
        pause_s: between two items.
        pulse_s: of the rehearsal wave.
        rest_s: between two pulses.
        num_patterns: steps of the avalanche.
    Source:
        Bradski, Carpenter & Grossberg 1994, Biological Cybernetics 71:469-480, doi:10.1007/BF00198465 (abstract read);
        Grossberg 1978, Journal of Mathematical Psychology 17:199-219; Grossberg 1969, Journal of Mathematics and Mechanics
        19:53-91
    Differs:
        Strengths, times and list lengths are our own; the closed form is that of items and pauses without end. Controls: the
        memory whose items do not switch themselves off, which performs the first one for ever, and an avalanche whose chain is
        cut.
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

    @classmethod
    def smoke(cls) -> Self:
        """Few short lists."""
        return cls(
            num_lists=2, num_items=3, length=2, shown_s=10.0, pause_s=3.0, pulse_s=0.3, rest_s=0.3, num_patterns=5
        )

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
            log(f"{name}: lists", i / 4)
            cell = ItemOrderCell(self.num_items, strength=strength).double()
            course, state = self._present(cell, lists)
            after = self._after_each(course, lists)  # (L, B, L) by place in the list
            stored[name] = after[-1]
            drawn[name] = after[:, 0]
            errors.append((after[-1] / _closed_form(strength, self.length) - 1).abs().max())
            shares = after[1:, :, :2] / after[1:, :, :2].sum(-1, keepdim=True)
            changes.append((shares - shares[:1]).abs().max())
            log(f"{name}: rehearsal", (i + 0.6) / 4)
            rehearsed[name] = self._rehearse(cell, state)
            if name == "primacy":
                tireless = ItemOrderCell(self.num_items, strength=strength, self_inhibition=0.0).double()
                rehearsed["perseverating"] = self._rehearse(tireless, state)
        log("avalanche", 0.9)
        order = {name: lists.gather(1, x.argsort(1, descending=True)) for name, x in stored.items()}
        right = [(rehearsed[name] == order[name]).all(1).double().mean() for name in STRENGTHS]
        steps = {name: x[:, 1:] - x[:, :-1] for name, x in stored.items()}
        turns = (steps["bow"].sign().diff(dim=1) > 0).sum(1)
        bowed = (steps["bow"][:, 0] < 0) & (steps["bow"][:, -1] > 0) & (turns == 1)
        log.figure("gradients", lambda figure: _draw_gradients(figure, drawn))
        return {
            "primacy_right": float((steps["primacy"] < 0).all(1).double().mean()),
            "bow_right": float(bowed.double().mean()),
            "recency_right": float((steps["recency"] > 0).all(1).double().mean()),
            "gradient_error": float(max(errors)),
            "invariance_error": float(max(changes)),
            "rehearsal_right": float(min(right)),
            "list_order_right": float((rehearsed["primacy"] == lists).all(1).double().mean()),
            "avalanche_error": self._avalanche(1.0),
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
