"""The laws of memories, on a small Hopfield network, on faulty ones, and on every memory of the catalog."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from recurra.core import AssociativeMemory, EnergyMemory, ErasableMemory, Recall
from recurra.testing import LawBroken, Setting, check_memory, laws
from recurra.testing.settings import instances


@dataclass(frozen=True)
class TinyHopfield(EnergyMemory[Tensor], ErasableMemory[Tensor]):
    """Hopfield 1982: +-1 units, Hebbian weights without a diagonal, one unit after the other. The state is the weights."""

    size: int = 64
    max_sweeps: int = 50
    order: tuple[int, ...] | None = None

    def reordered(self, permutation: Tensor) -> "TinyHopfield":
        places = torch.argsort(permutation)
        order = torch.arange(self.size) if self.order is None else torch.tensor(self.order)
        return replace(self, order=tuple(places[order].tolist()))

    @property
    def key_size(self) -> int:
        return self.size

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        bits = torch.randint(0, 2, (num_patterns, self.size), generator=generator)
        return 2.0 * bits - 1

    def empty(self) -> Tensor:
        return torch.zeros(self.size, self.size)

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        return state + (keys.T @ keys) * (1 - torch.eye(self.size)) / self.size

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        return 2 * state - TinyHopfield.write(self, state, keys, values)

    def _sweep(self, state: Tensor, value: Tensor) -> Tensor:
        value = value.clone()
        for i in self.order or range(self.size):
            field = value @ state[:, i]
            value[:, i] = torch.where(field == 0, value[:, i], field.sign())
        return value

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        path = [cue]
        for _ in range(self.max_sweeps):
            path.append(self._sweep(state, path[-1]))
            if torch.equal(path[-1], path[-2]):
                break
        return torch.stack(path)

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        path = self.trajectory(state, cue)
        moving = (path[1:] != path[:-1]).any(-1)
        return Recall(path[-1], moving.sum(0), ~moving[-1])

    def energy(self, state: Tensor, value: Tensor) -> Tensor:
        return -0.5 * torch.einsum("bi,ij,bj->b", value, state, value)


class MumblingHopfield(TinyHopfield):
    """Its steps are no whole numbers."""

    breaks: ClassVar[str] = "forms"

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        recall = super().read(state, cue)
        return recall._replace(steps=recall.steps.float())


class OverwritingHopfield(TinyHopfield):
    """It writes into the state that it is given."""

    breaks: ClassVar[str] = "pure"

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        return state.copy_(super().write(state, keys))


class CrowdedHopfield(TinyHopfield):
    """A cue feels the mean of all cues."""

    breaks: ClassVar[str] = "rows"

    def read(self, state: Tensor, cue: Tensor) -> Recall:
        recall = super().read(state, cue)
        return recall._replace(
            value=recall.value + 1e-3 * (recall.value.mean(0) - recall.value.mean(0).detach().sign())
        )


class ForgetfulHopfield(TinyHopfield):
    """It writes with the wrong sign."""

    breaks: ClassVar[str] = "stored_patterns_stay"

    def write(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        return 2 * state - super().write(state, keys)


class ContraryHopfield(TinyHopfield):
    """Where the field is weak, a unit turns against it once."""

    breaks: ClassVar[str] = "energy"

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        path = super().trajectory(state, cue)
        field = path[0] @ state
        contrary = torch.where(field.abs() < 0.2, -field.sign() + (field == 0), path[0])
        return torch.cat([path[:1], contrary[None], path[1:]])


class LateHopfield(TinyHopfield):
    """Its trajectory leaves out the cue."""

    breaks: ClassVar[str] = "trajectory"

    def trajectory(self, state: Tensor, cue: Tensor) -> Tensor:
        path = super().trajectory(state, cue)
        return torch.cat([path[1:2], path[1:]])


class StubbornHopfield(TinyHopfield):
    """Its units keep their turns wherever they are."""

    breaks: ClassVar[str] = "permutation"

    def reordered(self, permutation: Tensor) -> TinyHopfield:
        return self


class OptimisticHopfield(TinyHopfield):
    """Where a unit feels nothing, it goes up."""

    breaks: ClassVar[str] = "sign_flips"

    def _sweep(self, state: Tensor, value: Tensor) -> Tensor:
        value = value.clone()
        for i in self.order or range(self.size):
            value[:, i] = torch.where(value @ state[:, i] >= 0, 1.0, -1.0)
        return value


class NostalgicHopfield(TinyHopfield):
    """It never lets go."""

    breaks: ClassVar[str] = "erasing"

    def erase(self, state: Tensor, keys: Tensor, values: Tensor | None = None) -> Tensor:
        return state


FAULTY = [
    MumblingHopfield,
    OverwritingHopfield,
    CrowdedHopfield,
    ForgetfulHopfield,
    ContraryHopfield,
    LateHopfield,
    StubbornHopfield,
    OptimisticHopfield,
    NostalgicHopfield,
]


@pytest.mark.parametrize("seed", range(5))
def test_hopfield(seed: int):
    outcomes = check_memory(TinyHopfield(), Setting(seed=seed))
    assert {o.status for o in outcomes} == {"holds"}


@pytest.mark.parametrize("kind", FAULTY, ids=lambda kind: kind.__name__)
def test_a_fault_is_caught_by_its_law(kind: Any):
    with pytest.raises(LawBroken, match=f"^{kind.breaks}: ") as found:
        check_memory(kind())
    assert found.value.law == kind.breaks


def test_every_law_of_memories_has_a_memory_that_breaks_it():
    assert [kind.breaks for kind in FAULTY] == [law.name for law in laws("memories")]


def test_laws_of_energy_do_not_apply_to_a_memory_without():
    class Plain(AssociativeMemory[Tensor]):
        draw, empty, write, read = (vars(TinyHopfield)[name] for name in ("draw", "empty", "write", "read"))
        trajectory, _sweep, size, max_sweeps, order = TinyHopfield.trajectory, TinyHopfield._sweep, 64, 50, None
        key_size, exempt = vars(TinyHopfield)["key_size"], {"permutation": "its units take turns in a fixed order."}

    status = {o.law: o.status for o in check_memory(Plain())}
    assert status["energy"] == status["trajectory"] == status["erasing"] == "not applicable"


def test_catalog():
    for _, memory in instances("memories"):
        check_memory(memory)
