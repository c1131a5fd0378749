"""Sequences, the Associatron, Willshaw's and Kanerva's memories."""

import math

import pytest
import torch
from torch import Tensor

from recurra.memories import Associatron, SequenceHopfield, SparseDistributedMemory, Willshaw


def drawn(memory, count: int, seed: int = 0) -> Tensor:
    return memory.draw(count, torch.Generator().manual_seed(seed))


# --- sequences ----------------------------------------------------------------------------------------------------


def test_a_step_is_the_sign_of_the_product() -> None:
    memory = SequenceHopfield(30, decay=0.5)
    generator = torch.Generator().manual_seed(0)
    keys, values = memory.draw_pairs(4, generator)
    state = memory.write(memory.write(memory.empty(), keys[:2], values[:2]), keys[2:], values[2:])
    weights = sum(0.5 ** (3 - m) * torch.outer(values[m], keys[m]) for m in range(4))
    cues = drawn(memory, 5, seed=1)
    assert torch.equal(memory.step(state, cues), (cues @ weights.T).sign())


def test_a_sequence_without_end_and_one_with() -> None:
    patterns = drawn(SequenceHopfield(200), 5)
    for cyclic in (True, False):
        memory = SequenceHopfield(200, cyclic=cyclic)
        path = memory.replay(memory.write(memory.empty(), patterns), patterns[:1], 5)[:, 0]
        assert torch.equal(path[:5], patterns)
        assert torch.equal(path[5], patterns[0]) is cyclic


def test_sequences_refuse_what_they_cannot_store() -> None:
    memory = SequenceHopfield(4)
    with pytest.raises(ValueError, match=r"^SequenceHopfield: decay must be above 0 and at most 1, got 0\."):
        SequenceHopfield(4, decay=0.0)
    with pytest.raises(ValueError, match=r"^SequenceHopfield: keys must be of -1 and \+1, got a 0\."):
        memory.write(memory.empty(), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"^SequenceHopfield: values must be 2 rows, got 1\."):
        memory.write(memory.empty(), torch.ones(2, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^SequenceHopfield: keys\[0\] must be the key of a stored pair"):
        memory.erase(memory.empty(), torch.ones(1, 4))


# --- Associatron --------------------------------------------------------------------------------------------------


def test_recall_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    entities = torch.randint(-1, 2, (6, 30), generator=generator).float()
    cues = torch.randint(-1, 2, (5, 30), generator=generator).float()
    for quantised in (True, False):
        memory = Associatron(30, max_steps=1, quantised=quantised)
        sums = sum(torch.outer(x, x) for x in entities)
        expected = (cues @ (sums.sign() if quantised else sums)).sign()
        assert torch.equal(memory.read(memory.write(memory.empty(), entities), cues).value, expected)


def test_a_chain_of_thoughts_goes_through_shared_parts() -> None:
    """What is said of a and b, and of b and c, leads from a through b to c."""
    memory = Associatron(180, max_steps=1)
    a, b, c = drawn(memory, 1)[0].split(60)
    nothing = torch.zeros(60)
    said = torch.stack([torch.cat([a, b, nothing]), torch.cat([nothing, b, c])])
    state = memory.write(memory.empty(), torch.cat([said, drawn(memory, 1, seed=1)]))
    field = torch.arange(180) // 60
    path = memory.think(state, torch.cat([a, nothing, nothing])[None], torch.stack([field == 0, field == 1]), 2)[:, 0]
    assert torch.equal(path[1, :120], said[0, :120])
    assert float((path[1, 120:] * c).mean()) < 0.5  # c is not linked to a
    assert torch.equal(path[2, 60:], said[1, 60:])


def test_associatron_refuses_what_it_cannot_store() -> None:
    memory = Associatron(4)
    with pytest.raises(ValueError, match=r"^Associatron: keys must be -1, 0 or \+1, got other numbers\."):
        memory.write(memory.empty(), 2 * torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^Associatron: cue must be \(M, 4\), got \(1, 3\)\."):
        memory.read(memory.empty(), torch.ones(1, 3))


# --- Willshaw -----------------------------------------------------------------------------------------------------


def test_links_fill_up_as_theory_says_and_hold_at_half() -> None:
    memory = Willshaw(300, 200, active=8, other_active=6)
    keys, values = memory.draw_pairs(400, torch.Generator().manual_seed(0))
    state = memory.write(memory.empty(), keys, values)
    expected = 1 - (1 - 8 * 6 / (300 * 200)) ** 400
    assert abs(memory.load(state) - expected) < 0.01
    assert math.isclose(1 - math.exp(-memory.capacity() * 8 * 6 / (300 * 200)), 0.5)
    missed = (memory.read(state, keys).value - values).sum(1)
    expected_extra = 194 * memory.load(state) ** 8
    assert float(missed.min()) == 0
    assert abs(float(missed.mean()) - expected_extra) < 0.2


def test_winners_forgive_wrong_ones_in_a_cue() -> None:
    cued = Willshaw(300, active=10)
    winners = Willshaw(300, active=10, threshold="winners")
    patterns = drawn(cued, 40)
    state = cued.write(cued.empty(), patterns)
    wrong = patterns.clone()
    for row in wrong:
        row[row.nonzero()[:2, 0]] = 0
        row[(row == 0).nonzero()[:2, 0]] = 1
    assert float((cued.read(state, wrong).value == patterns).all(1).double().mean()) < 0.1
    assert float((winners.read(state, wrong).value == patterns).all(1).double().mean()) > 0.9
    part = torch.where(patterns.cumsum(1) <= 5, patterns, 0.0)
    assert float((cued.read(state, part).value == patterns).all(1).double().mean()) > 0.9


def test_willshaw_refuses_what_it_cannot_store() -> None:
    with pytest.raises(ValueError, match=r"^Willshaw: active must be at most 4, got 8\."):
        Willshaw(4)
    with pytest.raises(ValueError, match=r"^Willshaw: threshold must be one of 'cue', 'winners', got 'half'\."):
        Willshaw(threshold="half")
    memory = Willshaw(4, active=2)
    with pytest.raises(ValueError, match=r"^Willshaw: keys must be of 0 and 1, got a -1\."):
        memory.write(memory.empty(), -torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^Willshaw: values must be 1 rows, got 2\."):
        memory.write(memory.empty(), torch.ones(1, 4), torch.ones(2, 4))


# --- Kanerva ------------------------------------------------------------------------------------------------------


def test_near_is_the_hamming_distance_and_the_radius_reaches_what_it_says() -> None:
    memory = SparseDistributedMemory(64, num_locations=3000)
    state = memory.empty()
    keys = drawn(memory, 5)
    distance = ((2 * keys - 1)[:, None] != state.addresses).sum(-1)
    assert torch.equal(memory.near(state, keys), (distance <= memory.reach).float())
    assert sum(math.comb(64, d) for d in range(memory.reach + 1)) / 2**64 >= 0.03
    assert sum(math.comb(64, d) for d in range(memory.reach)) / 2**64 < 0.03


def test_reading_again_brings_a_noisy_address_home() -> None:
    words = drawn(SparseDistributedMemory(), 15)
    noise = torch.rand(15, 256, generator=torch.Generator().manual_seed(3)) < 0.2
    cues = torch.where(noise, 1 - words, words)
    wrong = []
    for steps in (1, 10):
        memory = SparseDistributedMemory(num_locations=2000, max_steps=steps)
        recall = memory.read(memory.write(memory.empty(), words), cues)
        wrong.append(float((recall.value != words).double().mean()))
    assert wrong[1] < wrong[0] < 0.2
    assert wrong[1] < 0.01


def test_words_of_another_size_under_addresses() -> None:
    memory = SparseDistributedMemory(128, 16)
    keys, words = memory.draw_pairs(30, torch.Generator().manual_seed(0))
    state = memory.write(memory.empty(), keys, words)
    assert torch.equal(memory.read(state, keys).value, words)
    nowhere = SparseDistributedMemory(128, 16, radius=0)
    recall = nowhere.read(nowhere.empty(), keys)
    assert not recall.converged.any()


def test_sparse_distributed_memory_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"^SparseDistributedMemory: max_steps must be 1, got 5\. Only words that are"):
        SparseDistributedMemory(64, 16, max_steps=5)
    with pytest.raises(ValueError, match=r"^SparseDistributedMemory: radius must be from 0 to 64, got 65\."):
        SparseDistributedMemory(64, radius=65)
    memory = SparseDistributedMemory(4)
    with pytest.raises(ValueError, match=r"^SparseDistributedMemory: keys must be of 0 and 1, got a -1\."):
        memory.write(memory.empty(), -torch.ones(1, 4))
