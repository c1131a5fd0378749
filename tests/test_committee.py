"""Cells that answer together."""

import pytest
import torch

from recurra.cells import ElmanCell, LSTMCell
from recurra.core import tree
from recurra.layers import Recurrent
from recurra.wrappers import Committee, Dropout


def test_mean_of_the_members():
    torch.manual_seed(0)
    cells = LSTMCell(3, 4), ElmanCell(3, 4)
    xs = torch.randn(6, 2, 3)
    ys, state = Recurrent(Committee(*cells))(xs)
    each = [Recurrent(cell)(xs) for cell in cells]
    torch.testing.assert_close(ys, (each[0][0] + each[1][0]) / 2)
    torch.testing.assert_close(state[1].h, each[1][1].h)


def test_mean_of_the_probabilities():
    torch.manual_seed(0)
    cells = [ElmanCell(3, 4) for _ in range(3)]
    xs = torch.randn(6, 2, 3)
    ys, _ = Recurrent(Committee(*cells, average="probability"))(xs)
    wanted = sum(Recurrent(cell)(xs)[0].softmax(-1) for cell in cells) / 3
    torch.testing.assert_close(ys.exp(), wanted)
    torch.testing.assert_close(ys.softmax(-1), wanted)


def test_each_member_has_its_own_noise():
    torch.manual_seed(0)
    cell = ElmanCell(3, 4)
    both = Committee(Dropout(cell, 0.5), Dropout(cell, 0.5)).train()
    noise = both.draw(5, 2, torch.Generator().manual_seed(1))
    first, second = (tree.leaves(part)[0] for part in noise)
    assert not torch.equal(first, second)


def test_messages():
    with pytest.raises(ValueError, match=r"Committee: cells must be at least one, got none\."):
        Committee()
    with pytest.raises(ValueError, match=r"Committee: the output of member 1 must be that of member 0, "):
        Committee(ElmanCell(2, 3), ElmanCell(2, 4))
    with pytest.raises(ValueError, match=r"Committee: the input of member 1 must be that of member 0, "):
        Committee(ElmanCell(2, 3), ElmanCell(1, 3))
    with pytest.raises(ValueError, match=r"Committee: average must be "):
        Committee(ElmanCell(2, 3), average="median")
