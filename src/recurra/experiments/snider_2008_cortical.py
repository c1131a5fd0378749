"""Snider 2008: oriented filters grow in a crossbar of memristors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..memories.crossbar import CrossbarState, MemristiveCrossbar


@dataclass(frozen=True)
class Snider2008Cortical(Experiment):
    """A crossbar of unreliable devices sees bars at random places and angles; its units become detectors of orientation.

    A retina of ``side`` x ``side`` points within a circle passes a centre-surround filter; bright and dark channels send pulses
    with rates that grow with its output. Sixteen units compete; Hebb's rule in steps does the rest.

    A unit counts as an oriented filter if (1) its receptive field, bright minus dark conductance, answers gratings of its best
    orientation and frequency at least three times as strongly as those at right angles, and (2) is like one of the bars that
    can be seen: their correlation is at least ``likeness``.

    Args:
        side: points of the retina, each way.
        num_units: U.
        num_levels: steps of a device's conductance.
        num_patterns: bars that are seen.
        stuck: part of the devices that never change.
        num_seeds: nets.
        likeness: least correlation with a bar.
    Source:
        Snider 2008, "Cortical computing with memristive nanodevices", SciDAC Review 10:58-65 (from memory; no figure of it was
        at hand, so the bar is that of the row)
    Differs:
        A stand-in: bars instead of pictures of nature, one layer of sixteen units that compete instead of sheets of columns.
    """

    id: ClassVar[str] = "snider-2008-cortical"
    source: ClassVar[str] = 'Snider 2008, "Cortical computing with memristive nanodevices", SciDAC Review 10:58-65'
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            "oriented_filters", 12.0, "higher", "edge detectors (figure)", "of 16, mean over the nets", "from memory"
        ),
        Claim("oriented_filters_worst_net", 12.0, "higher", "", "of 16, the worst net"),
        Claim("orientations_covered", 6.0, "higher", "", "of 8 equal ranges of angles, mean over the nets"),
        Claim(
            "oriented_filters_stuck", 12.0, "higher", "unreliable devices", "the same with a tenth of the devices stuck"
        ),
        Claim("oriented_before", 1.0, "lower", "", "before learning", control=True),
        Claim("oriented_from_spots", 2.0, "lower", "", "after as many round spots", control=True),
        Claim("oriented_shuffled", 2.0, "lower", "", "bars whose points change places, each time anew", control=True),
    )

    side: int = 11
    num_units: int = 16
    num_levels: int = 16
    num_patterns: int = 12_000
    stuck: float = 0.1
    num_seeds: int = 10
    likeness: float = 0.6

    @classmethod
    def smoke(cls) -> Self:
        """One net, few bars."""
        return cls(side=7, num_patterns=300, num_seeds=1)

    def run(self, log: Log) -> Mapping[str, float]:
        """Every net learns from bars, with and without stuck devices, from spots, and from shuffled bars."""
        counts: dict[str, list[int]] = {}
        covered: list[int] = []
        shown: list[Tensor] = []
        kinds = {"bars": 0.0, "stuck": self.stuck, "spots": 0.0, "shuffled": 0.0}
        for seed in range(self.num_seeds):
            for number, (kind, stuck) in enumerate(kinds.items()):
                log(f"net {seed + 1}: {kind}", (seed + number / len(kinds)) / self.num_seeds)
                crossbar, before, after = self._learned(kind, stuck, seed)
                fields = self._fields(crossbar, after)
                oriented, angles = self._oriented(fields)
                counts.setdefault(kind, []).append(int(oriented.sum()))
                if kind == "bars":
                    counts.setdefault("before", []).append(int(self._oriented(self._fields(crossbar, before))[0].sum()))
                    covered.append(len((angles[oriented] * 8 / math.pi).long().clamp(max=7).unique()))
                if seed == 0 and kind != "stuck":
                    shown.append(fields)
        log.figure("receptive-fields", lambda figure: self._draw(figure, shown))
        mean = {kind: sum(values) / len(values) for kind, values in counts.items()}
        return {
            "oriented_filters": mean["bars"],
            "oriented_filters_worst_net": float(min(counts["bars"])),
            "orientations_covered": sum(covered) / len(covered),
            "oriented_filters_stuck": mean["stuck"],
            "oriented_before": mean["before"],
            "oriented_from_spots": mean["spots"],
            "oriented_shuffled": mean["shuffled"],
        }

    def _learned(self, kind: str, stuck: float, seed: int) -> tuple[MemristiveCrossbar, CrossbarState, CrossbarState]:
        """A net before and after it has seen patterns of a kind."""
        generator = torch.Generator().manual_seed(seed)
        inside = self._inside()
        crossbar = MemristiveCrossbar(2 * int(inside.sum()), self.num_units, self.num_levels, stuck=stuck)
        before = crossbar.start(generator)
        images = self._spots(generator) if kind == "spots" else self._bars(*self._places(generator))
        if kind == "shuffled":
            order = torch.rand(len(images), self.side**2, generator=generator).argsort(1)
            images = images.flatten(1).gather(1, order).view_as(images)
        rates = self._channels(images)
        pulses = (torch.rand(rates.shape, generator=generator) < rates).long()
        return crossbar, before, crossbar.learn(before, pulses, generator)

    def _grid(self) -> tuple[Tensor, Tensor]:
        """Places of the points, from the middle."""
        line = torch.arange(self.side) - (self.side - 1) / 2
        return line[None, :].expand(self.side, -1), line[:, None].expand(-1, self.side)

    def _inside(self) -> Tensor:
        """(side, side) bool, within the circle."""
        x, y = self._grid()
        return x**2 + y**2 <= (self.side / 2) ** 2

    def _places(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Angles in [0, pi) and distances from the middle of as many bars."""
        angles = math.pi * torch.rand(self.num_patterns, generator=generator)
        return angles, self.side / 4 * (2 * torch.rand(self.num_patterns, generator=generator) - 1)

    def _bars(self, angles: Tensor, distances: Tensor) -> Tensor:
        """(N, side, side) bright bars, two points wide, across the whole retina."""
        x, y = self._grid()
        away = x * angles.sin()[:, None, None] - y * angles.cos()[:, None, None] - distances[:, None, None]
        return torch.exp(-((away / 1.0) ** 2))

    def _spots(self, generator: torch.Generator) -> Tensor:
        """(N, side, side) bright spots, as wide as the bars."""
        x, y = self._grid()
        centre = self.side / 3 * (2 * torch.rand(2, self.num_patterns, 1, 1, generator=generator) - 1)
        return torch.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 1.0)

    def _channels(self, images: Tensor) -> Tensor:
        """(N, D) rates of the bright and the dark channel: a narrow mean minus a wide one."""
        size = 7
        line = torch.arange(size) - size // 2
        square = line[:, None] ** 2 + line[None, :] ** 2
        narrow, wide = (torch.exp(-square / (2 * width**2)) for width in (0.7, 2.0))
        kernel = narrow / narrow.sum() - wide / wide.sum()
        padded = torch.nn.functional.pad(images[:, None], [size // 2] * 4, mode="replicate")
        contrast = torch.nn.functional.conv2d(padded, kernel[None, None])[:, 0][:, self._inside()]
        scale = 2.0 / contrast.abs().amax(1, keepdim=True).clamp(min=1e-6)
        return torch.cat([contrast.clamp(min=0), (-contrast).clamp(min=0)], 1).mul(scale).clamp(max=1)

    def _fields(self, crossbar: MemristiveCrossbar, state: CrossbarState) -> Tensor:
        """(U, side, side) bright minus dark conductance, 0 outside the circle."""
        bright, dark = crossbar.conductance(state).chunk(2, 1)
        fields = torch.zeros(self.num_units, self.side, self.side)
        fields[:, self._inside()] = bright - dark
        return fields

    def _oriented(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """(U,) bool: is it an oriented filter? (U,) its angle."""
        inside = self._inside()
        x, y = self._grid()
        plain = fields[:, inside] - fields[:, inside].mean(1, keepdim=True)
        angles = math.pi * torch.arange(24) / 24
        waves = 2 * math.pi / self.side * torch.arange(1.0, 3.6, 0.5)
        along = x[inside] * angles.sin()[:, None] - y[inside] * angles.cos()[:, None]
        phase = waves[:, None, None] * along  # (frequency, angle, point)
        power = (plain @ phase.cos().flatten(0, 1).T) ** 2 + (plain @ phase.sin().flatten(0, 1).T) ** 2
        answer = power.sqrt().view(-1, len(waves), len(angles))
        best = answer.flatten(1).argmax(1)
        unit, frequency, angle = torch.arange(len(fields)), best // len(angles), best % len(angles)
        across = answer[unit, frequency, (angle + len(angles) // 2) % len(angles)]
        tuned = answer[unit, frequency, angle] >= 3 * across
        turns = angles.repeat_interleave(21)
        seen = self._channels(self._bars(turns, torch.linspace(-self.side / 4, self.side / 4, 21).repeat(24)))
        bright, dark = seen.chunk(2, 1)
        bars = bright - dark - (bright - dark).mean(1, keepdim=True)
        like = torch.nn.functional.normalize(plain, dim=1) @ torch.nn.functional.normalize(bars, dim=1).T
        return tuned & (like.amax(1) >= self.likeness), turns[like.argmax(1)]

    def _draw(self, figure: Any, shown: list[Tensor]) -> None:
        """Receptive fields of the first net: after bars, after spots, after shuffled bars."""
        panels = figure.subplots(1, 3)
        for axis, fields, title in zip(panels, shown, ("bars", "round spots", "bars, points shuffled")):
            edge = math.ceil(len(fields) ** 0.5)
            framed = torch.nn.functional.pad(fields, (0, 1, 0, 1), value=float("nan"))
            cells = list(framed) + [torch.full_like(framed[0], float("nan"))] * (edge * edge - len(fields))
            rows = [torch.cat(cells[row * edge : (row + 1) * edge], 1) for row in range(edge)]
            axis.imshow(torch.cat(rows).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            axis.set_title(f"after {title}", fontsize=9, loc="left")
            axis.set_axis_off()
        figure.suptitle("What the units of a memristive crossbar look for", x=0.01, ha="left", fontsize=10)
