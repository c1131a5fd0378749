"""Nakano 1971: the whole of an entity from a part of it, and trains of thought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from ..core import Claim, Experiment, Log
from ..memories import Associatron


@dataclass(frozen=True)
class Nakano1971Associatron(Experiment):
    """180 units recall entities from half of their bits; the more are stored, the vaguer; one thing leads to another.

    Entities are random. The cue is a part of one; the measure is the share of right bits among those that were not given,
    after one step, as in the paper, and after recall has come to rest.

    Args:
        size: N, 15 x 12 units.
        counts: entities stored.
        parts: shares of the bits that are given.
        num_memories: memories for each point.
        fields: an entity of a train of thought has so many fields.
        train: entities of a train, each of which shares one field with the next.
    Source:
        Nakano 1971, 2nd IJCAI; 1972, IEEE Trans. SMC-2(3):380-388, doi:10.1109/TSMC.1972.4309133 (abstract read, the rest from
        memory)
    Differs:
        Entities are random bits instead of drawn pictures, and the published figures are not read off: bars are our own.
    """

    id: ClassVar[str] = "nakano-1971-associatron"
    source: ClassVar[str] = "Nakano 1972, IEEE Trans. SMC-2(3):380-388, doi:10.1109/TSMC.1972.4309133"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("right_at_005", 0.95, "higher", "accurate if the part is large", "9 entities, half of the bits given"),
        Claim("right_at_rest_at_005", 0.95, "higher", "", "the same, recall goes on until it rests"),
        Claim("exact_at_rest_at_014", 0.5, "lower", "accuracy decreases as entities increase", "25 entities"),
        Claim("right_from_tenth_less_half", 0.0, "lower", "a small part is answered vaguely", "9 entities; difference"),
        Claim("quantised_signal_ratio", 0.6066, "higher", "2 / pi", "(S / N)^2 with signs of the sums", "theorem"),
        Claim("quantised_signal_ratio", 0.6666, "lower", "2 / pi", "(S / N)^2 with signs of the sums", "theorem"),
        Claim("trains_followed", 0.9, "higher", "thinking as a sequence of associations", "abstract"),
        Claim("right_never_stored", 0.55, "lower", "", "parts of entities that were not stored", control=True),
        Claim("trains_followed_without_links", 0.05, "lower", "", "one entity was never stored", control=True),
    )

    size: int = 180
    counts: tuple[int, ...] = (1, 3, 5, 9, 13, 19, 25, 31, 41, 61)
    parts: tuple[float, ...] = (0.1, 0.25, 0.5)
    num_memories: int = 100
    fields: int = 6
    train: int = 5

    @classmethod
    def smoke(cls) -> Self:
        """Few memories."""
        return cls(counts=(9, 25), parts=(0.1, 0.5), num_memories=3)

    def run(self, log: Log) -> Mapping[str, float]:
        """Recall over the number stored and the part given, signal to noise, trains of thought."""
        shares: dict[tuple[int, float, int, bool], tuple[float, float]] = {}
        for i, count in enumerate(self.counts):
            log(f"{count} entities", 0.8 * i / len(self.counts))
            for part in self.parts:
                for steps in (1, 30):
                    for quantised in (True, False):
                        shares[count, part, steps, quantised] = self._recall(count, part, steps, quantised)
        log("trains of thought", 0.8)
        log.figure("recall", lambda figure: _draw(figure, self, shares))
        few, many = round(0.05 * self.size), round(0.14 * self.size)
        return {
            "right_at_005": shares[few, 0.5, 1, True][0],
            "right_at_rest_at_005": shares[few, 0.5, 30, True][0],
            "exact_at_rest_at_005": shares[few, 0.5, 30, True][1],
            "right_at_rest_at_014": shares[many, 0.5, 30, True][0],
            "exact_at_rest_at_014": shares[many, 0.5, 30, True][1],
            "exact_at_rest_at_014_not_quantised": shares[many, 0.5, 30, False][1],
            "right_from_tenth_less_half": shares[few, 0.1, 1, True][0] - shares[few, 0.5, 1, True][0],
            "quantised_signal_ratio": self._signal_ratio(),
            "trains_followed": self._trains(linked=True),
            "right_never_stored": self._recall(few, 0.5, 1, True, stored=False)[0],
            "trains_followed_without_links": self._trains(linked=False),
        }

    def _recall(self, count: int, part: float, steps: int, quantised: bool, stored: bool = True) -> tuple[float, float]:
        """Share of right bits among those not given, and of entities that come back whole."""
        right, whole = 0.0, 0.0
        memory = Associatron(self.size, max_steps=steps, quantised=quantised)
        for number in range(self.num_memories):
            generator = torch.Generator().manual_seed(1000 * count + number)
            entities = memory.draw(count, generator)
            state = memory.write(memory.empty(), entities)
            asked = entities if stored else memory.draw(count, generator)
            given = torch.rand(asked.shape, generator=generator).argsort(1) < part * self.size
            value = memory.read(state, torch.where(given, asked, 0.0)).value
            right += float((value == asked)[~given].double().mean())
            whole += float((value == asked).all(1).double().mean())
        return right / self.num_memories, whole / self.num_memories

    def _signal_ratio(self) -> float:
        """(S / N)^2 of the sum that a unit receives from half an entity, with quantised weights, over that with plain ones."""
        memory, count, ratio = Associatron(self.size), 51, 0.0
        half = self.size // 2
        for number in range(self.num_memories):
            entities = memory.draw(count, torch.Generator().manual_seed(number))
            weights = memory.write(memory.empty(), entities)[:half, half:]
            found = []
            for used in (weights.sign(), weights):
                received = (entities[:, :half] @ used) * entities[:, half:]
                found.append(float(received.mean() / received.std()) ** 2)
            ratio += found[0] / found[1]
        return ratio / self.num_memories

    def _trains(self, linked: bool) -> float:
        """Share of trains that lead from the first field to the last.

        Field k and field k + 1 stand together in entity k, which says nothing of the other fields; a few whole entities
        are stored beside. Not ``linked``: the entity in the middle was never stored.
        """
        memory = Associatron(self.size, max_steps=1)
        width = self.size // self.fields
        place = torch.arange(self.size) // width
        followed = 0
        for number in range(self.num_memories):
            generator = torch.Generator().manual_seed(5000 + number)
            content = memory.draw(1, generator)[0]
            entities = torch.stack(
                [torch.where((place == k) | (place == k + 1), content, 0.0) for k in range(self.train)]
            )
            if not linked:
                entities[self.train // 2] = 0
            entities = torch.cat([entities, memory.draw(2, generator)])
            kept = torch.stack([place == k for k in range(self.train)])
            state = memory.write(memory.empty(), entities)
            cue = torch.where(place == 0, content, 0.0)[None]
            end = memory.think(state, cue, kept, self.train)[-1, 0]
            followed += int(torch.equal(end[place == self.train], content[place == self.train]))
        return followed / self.num_memories


def _draw(figure: Any, setting: Nakano1971Associatron, shares: Mapping[Any, tuple[float, float]]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for part in setting.parts:
        left.plot(
            setting.counts, [shares[n, part, 1, True][0] for n in setting.counts], "o-", ms=3, lw=1, label=f"{part:g}"
        )
    left.set(xlabel="entities stored", ylabel="share of right bits", title="One step, by the part given")
    left.legend(fontsize=8, frameon=False, title="part given")
    for quantised, color in ((True, "#0077bb"), (False, "#ee7733")):
        label = "signs of the sums" if quantised else "sums"
        points = [shares[n, 0.5, 30, quantised][1] for n in setting.counts]
        right.plot(setting.counts, points, "o-", ms=3, lw=1, color=color, label=label)
    right.set(xlabel="entities stored", title="Whole entities, half given, at rest")
    right.legend(fontsize=8, frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
