"""The neural bucket brigade: who pays whom."""

from __future__ import annotations

import pytest
import torch

from recurra.cells import ElmanCell, WinnerTakeAllCell
from recurra.core import Chunk, MeanSquaredError
from recurra.learning import NeuralBucketBrigade, Online

SQUARED = MeanSquaredError()


def hand_made() -> WinnerTakeAllCell:
    """Two inputs, two subsets of two; unit 0 wins, then unit 2 (output 0) by what unit 0 and the inputs contribute."""
    cell = WinnerTakeAllCell(2, (2, 2)).double()
    with torch.no_grad():
        cell.weight.copy_(
            torch.tensor(
                [
                    [1.0, 2.0, 0, 0, 0, 0],
                    [0.5, 0.5, 0, 0, 0, 0],
                    [0.4, 0.4, 3.0, 1.0, 0, 0],
                    [0.3, 0.3, 1.0, 1.0, 0, 0],
                ]
            )
        )
    return cell


def test_substance_moves_as_the_paper_says() -> None:
    cell, rule = hand_made(), NeuralBucketBrigade(rate=0.1, payoff=0.01)
    online = Online(rule, SQUARED)
    xs = torch.ones(2, 1, 2).double()
    targets = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]]).double()
    state = online.init(cell, 1)
    before = cell.weight.detach().clone()
    state, trace = online.run(cell, state, Chunk(xs[:1], targets[:1]))
    first = before.clone()
    first[0, :2] *= 0.9  # winners' connections pay, nobody gets anything yet
    first[2, :2] *= 0.9
    torch.testing.assert_close(cell.weight.detach(), first)
    state, trace = online.run(cell, state, Chunk(xs[1:], targets[1:]))
    second = first.clone()
    second[0, :2] *= 0.9
    second[2, :3] *= 0.9 + 0.01  # output 0 is rightly on
    income = 0.1 * 3.0  # what unit 0 earned by making output 0 win, for those that made it win: 1 to 2
    second[0, :2] += income * torch.tensor([1 / 3, 2 / 3]).double()
    torch.testing.assert_close(cell.weight.detach(), second)
    assert trace.outputs[0, 0].tolist() == [1.0, 0.0]


def test_a_shared_payoff_is_a_fixed_amount_for_each_unit() -> None:
    cell = hand_made()
    online = Online(NeuralBucketBrigade(rate=0.0, payoff=0.6, shared=True), SQUARED)
    before = cell.weight.detach().clone()
    online.run(cell, online.init(cell, 1), Chunk(torch.ones(1, 1, 2).double(), torch.tensor([[[1.0, 0.0]]]).double()))
    wanted = before.clone()
    wanted[2, :2] += 0.3  # output 0 is rightly on: both inputs have contributed 0.4
    torch.testing.assert_close(cell.weight.detach(), wanted)


def test_without_payoff_substance_only_leaves_at_the_inputs() -> None:
    """What all weights lose together is what inputs contribute to winners, times the rate."""
    generator = torch.Generator().manual_seed(0)
    cell = WinnerTakeAllCell(3, (3, 3), topology="full", generator=generator).double()
    online = Online(NeuralBucketBrigade(rate=0.05), SQUARED)
    state = online.init(cell, 1)
    xs = torch.rand(40, 1, 3, generator=generator).double()
    for t in range(40):
        before = cell.weight.detach().clone()
        state, _ = online.run(cell, state, Chunk(xs[t : t + 1], torch.zeros(1, 1, 3).double()))
        won = state.carry.state.units[0]
        lost = 0.05 * (won[:, None] * before[:, :3] * xs[t, 0]).sum()
        torch.testing.assert_close(before.sum() - cell.weight.detach().sum(), lost)
        assert float(cell.weight.detach().min()) > 0


def test_what_is_not_there_never_comes_to_be() -> None:
    cell = WinnerTakeAllCell(2, (3, 2)).double()
    absent = cell.weight.detach() == 0
    assert int(absent.sum()) == 3 * 5 + 2 * 2
    online = Online(NeuralBucketBrigade(payoff=0.1), SQUARED)
    targets = torch.tensor([1.0, 0.0]).double().expand(20, 1, 2)
    online.run(cell, online.init(cell, 1), Chunk(torch.ones(20, 1, 2).double(), targets))
    assert bool(((cell.weight.detach() == 0) == absent).all())


def test_refusals() -> None:
    rule, cell = NeuralBucketBrigade(), ElmanCell(2, 3)
    with pytest.raises(TypeError, match="units must compete for being active, and ElmanCell is no CompetitiveCell"):
        rule.step(cell, rule.init(cell, 1), Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3)), SQUARED)
    with pytest.raises(ValueError, match=r"NeuralBucketBrigade: rate must be a probability in \[0, 1\)"):
        NeuralBucketBrigade(rate=1.0)
    with pytest.raises(ValueError, match="NeuralBucketBrigade: payoff must be at least 0"):
        NeuralBucketBrigade(payoff=-1.0)
    with pytest.raises(
        ValueError, match="WinnerTakeAllCell: subsets must be at least one subset of at least two units"
    ):
        WinnerTakeAllCell(2, (3, 1))
    with pytest.raises(ValueError, match="WinnerTakeAllCell: topology must be one of"):
        WinnerTakeAllCell(2, (3, 2), topology="ring")
    with pytest.raises(ValueError, match="WinnerTakeAllCell: low must be at most high=0"):
        WinnerTakeAllCell(2, (3, 2), low=1.0, high=0.0)
