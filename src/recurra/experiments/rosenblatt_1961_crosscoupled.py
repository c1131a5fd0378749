"""Rosenblatt 1961: a cross-coupled perceptron that has only looked on generalises over translations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..cells.perceptron import PerceptronCell, PerceptronInput, PerceptronState
from ..core import Claim, Experiment, Log, tree
from ..layers import Recurrent


class _Run(NamedTuple):
    """Shares of untaught stimuli answered right; both: all of them; unseen: those never shown before the test."""

    both: float
    unseen: float
    overlap: Tensor


@dataclass(frozen=True)
class Rosenblatt1961CrossCoupled(Experiment):
    """Bars that wander over the retina tie what belongs together; then one position taught is all positions taught.

    A perceptron looks at sequences of vertical and of horizontal bars, each a random translation of the one before, and
    nobody tells it anything. Then its response is taught with one vertical and one horizontal bar, and asked for at all
    other positions, some of which it has not even seen. Beside it: the loop run for T steps is a feed-forward net of T layers;
    and a back-coupled perceptron holds a response after the stimulus is gone.

    Args:
        num_seeds: perceptrons.
        first_seed: of the first of them; those from 0 were used for choosing the settings.
        retina: rows and columns of the retina, which is a torus.
        width: of a bar, which is as long as the retina.
        num_associators: N.
        active: of them at a time.
        num_sequences: of each kind of bar.
        sequence_length: bars in a sequence.
        num_unseen: positions of each kind that no sequence shows.
        num_steps: T, of the closed loop in the test.
        rate: of the couplings.
        held_steps: how long the back-coupled perceptron is watched after the stimulus.
    Source:
        Rosenblatt 1961, Principles of Neurodynamics, Cornell Aeronautical Laboratory report 1196-G-8, chapters 19 and 21
        (from memory; no figure of it is quoted)
    Differs:
        The rule counts activities from their running means, and the loop is open while the perceptron looks on and
        closed in the test; with the plain rule both kinds of bars end in one common state, and with the loop closed from the
        beginning the couplings hold on to what they met first (``transfer_plain_rule``, ``transfer_loop_always_closed``).
        Rule, loop and number of active units were found by trying about 35 settings on other seeds; few of them work.
        Before exposure the answers are worse than chance: a vertical bar shares no place with another vertical bar but
        always some with a horizontal one.
    """

    id: ClassVar[str] = "rosenblatt-1961-crosscoupled"
    source: ClassVar[str] = (
        "Rosenblatt 1961, Principles of Neurodynamics, Cornell Aeronautical Laboratory report 1196-G-8"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("transfer", 0.9, "higher", "similarity generalisation", "chapter 19", "from memory"),
        Claim("loop_against_layers", 1e-12, "lower", "equal", "section 19.11", "from memory"),
        Claim("response_held_back_coupled", 0.99, "higher", "", "the response outlives its stimulus"),
        Claim("transfer_before_exposure", 0.55, "lower", "chance", "chapter 19", "from memory", control=True),
        Claim("transfer_loop_open", 0.55, "lower", "", "exposed, tested without couplings", control=True),
        Claim("response_held_without_back", 0.05, "lower", "", "no back-coupling", control=True),
    )

    num_seeds: int = 10
    first_seed: int = 100
    retina: int = 20
    width: int = 4
    num_associators: int = 500
    active: int = 50
    num_sequences: int = 20
    sequence_length: int = 20
    num_unseen: int = 4
    num_steps: int = 5
    rate: float = 0.1
    held_steps: int = 20

    @classmethod
    def smoke(cls) -> Self:
        """One small perceptron, few sequences."""
        return cls(
            num_seeds=1,
            retina=8,
            width=2,
            num_associators=40,
            active=8,
            num_sequences=2,
            sequence_length=4,
            num_unseen=1,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Exposure, transfer, equivalence, back-coupling, for each seed."""
        found: dict[str, list[float]] = {}
        overlaps: list[Tensor] = []

        def note(name: str, value: float) -> None:
            found.setdefault(name, []).append(value)

        for number in range(self.num_seeds):
            seed = self.first_seed + number
            for stage, fraction in (("looks on", 0.0), ("other rules", 0.5)):
                log(f"perceptron {number + 1} {stage}", (number + fraction) / self.num_seeds)
                if stage == "looks on":
                    cell = self._cell(seed)
                    blank = cell.initial_state(1)
                    seen = self._expose(cell, seed, 0.0)
                    before, after = self._transfer(cell, blank, seed, 1.0), self._transfer(cell, seen, seed, 1.0)
                    note("transfer", after.both)
                    note("transfer_positions_never_shown", after.unseen)
                    note("transfer_before_exposure", before.both)
                    note("transfer_loop_open", self._transfer(cell, seen, seed, 0.0).both)
                    note("loop_against_layers", self._against_layers(cell, seen))
                    if number == 0:
                        overlaps = [before.overlap, after.overlap]
                else:
                    note(
                        "transfer_loop_always_closed",
                        self._transfer(cell, self._expose(cell, seed, 1.0), seed, 1.0).both,
                    )
                    plain = self._cell(seed, centred=False, mean_rate=0.0, decay=0.001)
                    note("transfer_plain_rule", self._transfer(plain, self._expose(plain, seed, 0.0), seed, 1.0).both)
                    note("response_held_back_coupled", self._held(seed, True))
                    note("response_held_without_back", self._held(seed, False))
        log.figure("overlaps", lambda figure: _draw(figure, overlaps))
        metrics = {name: sum(values) / len(values) for name, values in found.items()}
        return {
            **metrics,
            "loop_against_layers": max(found["loop_against_layers"]),
            "transfer_worst": min(found["transfer"]),
        }

    def _cell(self, seed: int, **more: Any) -> PerceptronCell:
        return PerceptronCell(
            self.retina**2,
            self.num_associators,
            active=self.active,
            rate=self.rate,
            fan_in=10,
            generator=torch.Generator().manual_seed(seed),
            **more,
        )

    def _bars(self) -> Tensor:
        """(2, P, S): vertical and horizontal bars at every position."""
        bars = torch.zeros(2, self.retina, self.retina, self.retina)
        for p in range(self.retina):
            lines = [(p + k) % self.retina for k in range(self.width)]
            bars[0, p][:, lines] = 1
            bars[1, p][lines, :] = 1
        return bars.flatten(2)

    def _unseen(self, seed: int) -> Tensor:
        """(2, P) bool: positions that no sequence shows."""
        generator = torch.Generator().manual_seed(1000 + seed)
        order = torch.stack([torch.randperm(self.retina, generator=generator) for _ in range(2)])
        return order < self.num_unseen

    def _expose(self, cell: PerceptronCell, seed: int, coupling: float) -> PerceptronState:
        """The state after all sequences, the kinds in turn; nothing is learned from one sequence to the next."""
        generator = torch.Generator().manual_seed(2000 + seed)
        shown = ~self._unseen(seed)
        stimuli, plastic = [], []
        for n in range(2 * self.num_sequences):
            places = shown[n % 2].nonzero().flatten()
            steps = places[torch.randint(len(places), (self.sequence_length,), generator=generator)]
            stimuli.append(self._bars()[n % 2, steps])
            plastic.append((torch.arange(self.sequence_length) > 0).float())
        xs = torch.cat(stimuli)[:, None]
        state = _run(cell, xs, cell.initial_state(1), coupling, torch.cat(plastic)[:, None])[1]
        return state._replace(a=torch.zeros_like(state.a), r=torch.zeros_like(state.r))

    def _settled(self, cell: PerceptronCell, state: PerceptronState, stimuli: Tensor, coupling: float) -> Tensor:
        """(B, N) associators after T steps of stimuli (B, S)."""
        many: Any = tree.map(lambda leaf: leaf.expand(len(stimuli), *leaf.shape[1:]), state)
        return _run(cell, stimuli.expand(self.num_steps, -1, -1), many, coupling)[1].a

    def _transfer(self, cell: PerceptronCell, state: PerceptronState, seed: int, coupling: float) -> _Run:
        """Teach one bar of each kind, at every position in turn; ask for all others."""
        active = self._settled(cell, state, self._bars().flatten(0, 1), coupling).unflatten(0, (2, -1))
        generator = torch.Generator().manual_seed(3000 + seed)
        unseen, right, right_unseen = self._unseen(seed), [], []
        for vertical in range(self.retina):
            horizontal = int(torch.randint(self.retina, (), generator=generator))
            weights = active[0, vertical] - active[1, horizontal]  # what `teach` leaves in W
            said = active @ weights * torch.tensor([[1.0], [-1.0]]) > 0
            asked = torch.ones_like(unseen)
            asked[0, vertical] = asked[1, horizontal] = False
            right.append(said[asked].double().mean())
            right_unseen.append(said[asked & unseen].double().mean())
        flat = active.flatten(0, 1)
        return _Run(
            float(torch.stack(right).mean()), float(torch.stack(right_unseen).mean()), flat @ flat.T / flat.sum(1)
        )

    def _against_layers(self, cell: PerceptronCell, state: PerceptronState) -> float:
        """Largest difference between the response of the loop and that of a feed-forward net of T layers, in float64."""
        cell = self._double(cell)
        held: Any = tree.map(Tensor.double, state)
        generator = torch.Generator().manual_seed(0)
        held = held._replace(weights=torch.randn(held.weights.shape, generator=generator, dtype=torch.float64))
        stimuli = self._bars().flatten(0, 1).double()
        many: Any = tree.map(lambda leaf: leaf.expand(len(stimuli), *leaf.shape[1:]), held)
        looped = _run(cell, stimuli.expand(self.num_steps, -1, -1), many, 1.0)[0][-1]
        layers = [torch.cat([cell.fixed.T, held.cross[0]]).clone() for _ in range(self.num_steps)]
        below = stimuli.new_zeros(len(stimuli), self.num_associators)
        for layer in layers:
            drive = torch.cat([stimuli, below], 1) @ layer
            below = (drive >= drive.topk(self.active, 1).values[:, -1:]).to(drive.dtype)
        return float((below @ held.weights[0] - looped).abs().max())

    def _double(self, cell: PerceptronCell) -> PerceptronCell:
        twin = self._cell(0).double()
        twin.load_state_dict(cell.state_dict())
        return twin

    def _held(self, seed: int, back: bool) -> float:
        """Share of steps without stimulus in which the response is still that to the stimulus before."""
        cell = self._cell(seed, cross=False, back=back)
        bars = self._bars()[:, 0]
        state = cell.initial_state(1)
        for bar, teach in zip(bars, (1.0, -1.0)):
            state = _run(cell, bar.expand(1, 1, -1), state, 0.0, None, teach)[1]
        for bar in bars:  # looked at again: which response goes with what
            state = _run(cell, bar.expand(1, 1, -1), state, 0.0, torch.ones(1, 1))[1]
        right = []
        for bar, wanted in zip(bars, (1.0, -1.0)):
            xs = torch.cat([bar.expand(3, 1, -1), torch.zeros(self.held_steps, 1, len(bar))])
            start = state._replace(a=torch.zeros_like(state.a), r=torch.zeros_like(state.r))
            said = _run(cell, xs, start, 1.0)[0]
            right.append((said[3:].sign() == wanted).double().mean())
        return float(torch.stack(right).mean())


def _run(
    cell: PerceptronCell,
    stimuli: Tensor,
    state: PerceptronState,
    coupling: float,
    plastic: Tensor | None = None,
    teach: float = 0.0,
) -> tuple[Tensor, PerceptronState]:
    """Responses (T, B, 1) to stimuli (T, B, S), and the last state."""
    lead = stimuli.shape[:2]
    nothing = stimuli.new_zeros(lead)
    given = PerceptronInput(
        stimuli, nothing + coupling, nothing if plastic is None else plastic, stimuli.new_full((*lead, 1), teach)
    )
    with torch.no_grad():
        return Recurrent(cell)(given, state)


def _draw(figure: Any, overlaps: list[Tensor]) -> None:
    """Which stimuli share active associators, before and after exposure."""
    axes = figure.subplots(1, 2)
    for axis, overlap, title in zip(axes, overlaps, ("before exposure", "after exposure")):
        axis.imshow(overlap.numpy(), vmin=0, vmax=1, cmap="viridis")
        axis.set(title=title, xlabel="vertical bars, then horizontal ones")
    axes[0].set_ylabel("shared active associators")
