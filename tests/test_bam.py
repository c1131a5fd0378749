"""Bidirectional associative memories, against Kosko's example and against enumeration."""

from __future__ import annotations

import pytest
import torch

from recurra.core.spins import configurations
from recurra.memories import BAM, BinaryBAM
from recurra.memories.bam import BAMPair

KEYS = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]])
VALUES = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])


def stored() -> tuple[BinaryBAM, torch.Tensor]:
    memory = BinaryBAM(6, 4)
    return memory, memory.write(memory.empty(), KEYS, VALUES)


def test_the_matrix_of_koskos_example():
    _, matrix = stored()
    up, down = [2.0, 0, 0, -2], [-2.0, 0, 0, 2]
    assert matrix.tolist() == [up, [0, -2, 2, 0], up, down, [0, 2, -2, 0], down]


def test_every_start_of_koskos_example_converges_to_a_stable_pair():
    memory, matrix = stored()
    starts = (configurations(6) + 1).float() / 2
    recall = memory.read(matrix, starts)
    assert bool(recall.converged.all())
    assert int(recall.steps.max()) <= 2
    again = memory.read_back(matrix, recall.value)
    assert torch.equal(memory.read(matrix, again.value).value, recall.value)
    assert memory.read(matrix, torch.tensor([[0.0, 1, 1, 0, 0, 0]])).value.tolist() == VALUES[1:].tolist()


def test_what_is_recalled_is_a_minimum_in_each_layer():
    memory = BAM(5, 4)
    matrix = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    path = memory.trajectory(matrix, configurations(5).float())
    x, y = path.keys[-1], path.values[-1]
    lowest = torch.stack(
        [memory.energy(matrix, BAMPair(x, other.expand(len(x), -1).float())) for other in configurations(4)]
    )
    assert torch.allclose(memory.energy(matrix, BAMPair(x, y)), lowest.amin(0))


def test_a_unit_that_hears_nothing_stays():
    memory = BAM(3, 2)
    recall = memory.read(memory.empty(), torch.ones(1, 3))
    assert recall.value.tolist() == [[0.0, 0.0]]
    assert recall.converged.tolist() == [True]


def test_bam_messages():
    with pytest.raises(
        ValueError, match=r"^BinaryBAM: cue must be of 0 and 1, got a -1\. Turn -1 and \+1 into 0 and 1 with"
    ):
        BinaryBAM(2, 2).read(torch.zeros(2, 2), torch.tensor([[-1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"^BAM: values must be \(rows, 2\), got \(1, 3\)\."):
        BAM(3, 2).write(torch.zeros(3, 2), torch.ones(1, 3))
