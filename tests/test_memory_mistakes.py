"""Every memory of the catalog: what it cannot read is a sentence; how a cue lies in the computer's memory does not matter."""

from typing import Any

import numpy as np
import pytest
import torch

from recurra.core.catalog import members
from recurra.core.memory import AssociativeMemory, EnergyMemory, PairMemory
from recurra.estimators import AssociativeStore

EVERYONE: dict[str, Any] = {name: next(iter(kind.examples())) for name, kind in members("memories").items()}  # type: ignore[attr-defined]


def written(memory: AssociativeMemory[Any]) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    keys, values = (
        memory.draw_pairs(3, generator) if isinstance(memory, PairMemory) else (memory.draw(3, generator), None)
    )
    return memory.write(memory.empty(), keys, values), keys, values


@pytest.mark.parametrize("name", EVERYONE)
def test_what_is_no_cue_is_a_sentence(name: str) -> None:
    memory = EVERYONE[name]
    state, keys, values = written(memory)
    sentence = rf"{name}: .* must be "
    odd = [keys[:, :-1], keys[0], keys[None], keys * float("inf"), keys.numpy()]
    odd += [keys.bool()] if name != "BinaryHopfield" else []  # units of 0 and 1
    for cue in odd:
        with pytest.raises((ValueError, TypeError), match=sentence):
            memory.read(state, cue)
    for patterns in (keys[:, :-1], keys * float("nan")):
        with pytest.raises((ValueError, TypeError), match=sentence):
            memory.write(state, patterns, values)
    if values is not None:
        with pytest.raises(ValueError, match=sentence):
            memory.write(state, keys, values[:-1])
    if isinstance(memory, EnergyMemory) and not isinstance(memory, PairMemory):
        with pytest.raises(ValueError, match=sentence):
            memory.energy(state, keys[:, :-1])


@pytest.mark.parametrize("name", EVERYONE)
def test_a_transposed_cue_is_the_same_cue(name: str) -> None:
    memory = EVERYONE[name]
    state, keys, values = written(memory)
    turned = keys.T.contiguous().T
    assert not turned.is_contiguous()
    assert torch.equal(memory.read(state, turned).value, memory.read(state, keys).value)
    again = memory.write(memory.empty(), turned, values)
    assert torch.equal(memory.read(again, keys).value, memory.read(state, keys).value)


@pytest.mark.parametrize("name", [name for name, each in EVERYONE.items() if each.takes_unknown])
def test_a_store_leaves_what_is_unknown_to_the_memory(name: str) -> None:
    """Tosses of a coin in its place would lead astray."""
    generator = np.random.default_rng(0)
    right = []
    for _ in range(4):
        bits = generator.random((3, 100)) < 0.5
        cue = np.where(generator.random(bits.shape) < 0.6, np.nan, bits)
        right.append((AssociativeStore(name).write(bits).recall(cue).patterns == bits).all(1))
    assert np.mean(right) == 1
