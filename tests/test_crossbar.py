"""A crossbar that learns in steps: what moves, what stays, what fails."""

from __future__ import annotations

import pytest
import torch

from recurra.memories.crossbar import MemristiveCrossbar


def learned(crossbar: MemristiveCrossbar, patterns: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return crossbar.conductance(crossbar.learn(crossbar.start(generator), patterns, generator))


def test_units_share_the_patterns_between_them() -> None:
    patterns = torch.eye(4, dtype=torch.int64).repeat_interleave(3, 1)  # (4, 12), no two alike
    crossbar = MemristiveCrossbar(12, 4)
    generator = torch.Generator().manual_seed(1)
    order = torch.randint(4, (2000,), generator=generator)
    state = crossbar.learn(crossbar.start(generator), patterns[order], generator)
    winners = crossbar.winners(state, patterns)
    assert len(winners.unique()) == 4
    torch.testing.assert_close(crossbar.conductance(state)[winners], patterns.float(), rtol=0, atol=0.3)


def test_a_step_moves_the_winner_alone_and_by_one_level() -> None:
    crossbar = MemristiveCrossbar(6, 3, num_levels=5, up=1.0, down=1.0)
    before = crossbar.start(torch.Generator().manual_seed(2))
    pulses = torch.tensor([[2, 0, 1, 0, 0, 3]])
    after = crossbar.learn(before, pulses)
    winner = int(crossbar.winners(before, pulses))
    step = torch.where(pulses[0] > 0, 1, -1)
    assert torch.equal(after.levels[winner], (before.levels[winner] + step).clamp(0, 4))
    others = [unit for unit in range(3) if unit != winner]
    assert torch.equal(after.levels[others], before.levels[others])
    assert float(after.thresholds[winner]) > 1 > float(after.thresholds[others].max())
    assert torch.equal(before.thresholds, torch.ones(3))


def test_stuck_devices_stay_and_seeds_repeat() -> None:
    crossbar = MemristiveCrossbar(20, 2, stuck=0.5)
    before = crossbar.start(torch.Generator().manual_seed(3))
    pulses = (torch.rand(300, 20, generator=torch.Generator().manual_seed(4)) < 0.5).long()
    first, again = (crossbar.learn(before, pulses, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.levels, again.levels)
    assert torch.equal(first.levels[before.stuck], before.levels[before.stuck])
    assert not torch.equal(first.levels, before.levels)
    assert 5 < int(before.stuck.sum()) < 35


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"MemristiveCrossbar: pulses must be \(T, 3\), got \(2, 4\)\."):
        MemristiveCrossbar(3, 2).learn(MemristiveCrossbar(3, 2).start(), torch.ones(2, 4))
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        MemristiveCrossbar(3, 2, num_levels=1)
    with pytest.raises(ValueError, match="num_units must be at least 1"):
        MemristiveCrossbar(3, 0)
    with pytest.raises(ValueError, match=r"up must be a probability in \[0, 1\], got 1.5"):
        MemristiveCrossbar(3, 2, up=1.5)
