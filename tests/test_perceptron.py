"""Rosenblatt's coupled perceptron and silencing neurons, step by step by hand."""

from __future__ import annotations

import re

import pytest
import torch

from recurra import PerceptronCell, SilencingCell
from recurra.cells.perceptron import PerceptronInput
from recurra.core import Noisy


def given(x: torch.Tensor, coupling: float, plastic: float, teach: float) -> PerceptronInput:
    return PerceptronInput(x, torch.tensor([coupling]), torch.tensor([plastic]), torch.tensor([[teach]]))


def test_couplings_learn_what_follows_what_and_bring_it_back() -> None:
    cell = PerceptronCell(12, 6, active=2, fan_in=2, mean_rate=0.0, generator=torch.Generator().manual_seed(1))
    cell.fixed.zero_()
    cell.fixed[:, :6] = torch.eye(6)
    first, second = torch.zeros(1, 12), torch.zeros(1, 12)
    first[0, :2], second[0, 2:4] = 1, 1
    _, state = cell(given(first, 0.0, 0.0, 1.0))
    assert state.a.tolist() == [[1, 1, 0, 0, 0, 0]]
    assert state.weights.flatten().tolist() == [1, 1, 0, 0, 0, 0]
    _, state = cell(given(second, 0.0, 1.0, 0.0), state)
    assert state.a.tolist() == [[0, 0, 1, 1, 0, 0]]
    wanted = 0.1 * torch.outer(torch.tensor([1.0, 1, 0, 0, 0, 0]) - 1 / 3, torch.tensor([0.0, 0, 1, 1, 0, 0]) - 1 / 3)
    torch.testing.assert_close(state.cross[0], wanted)
    _, state = cell(given(first, 0.0, 0.0, 0.0), state)
    _, state = cell(given(torch.zeros(1, 12), 1.0, 0.0, 0.0), state)  # nothing is seen: the first calls the second
    assert state.a.tolist() == [[0, 0, 1, 1, 0, 0]]


def test_neurons_are_silent_for_their_time() -> None:
    cell = SilencingCell(1, 2, max_silence=3).eval()
    with torch.no_grad():
        cell.weight_ih.fill_(1.0)
    cell.tau.copy_(torch.tensor([1, 3]))
    state, fired = cell.initial_state(1), []
    for _ in range(6):
        y, state = cell(torch.ones(1, 1), state)
        fired.append(y[0].tolist())
    assert fired == [[1, 1], [0, 0], [1, 0], [0, 0], [1, 1], [0, 0]]


def test_noise_of_silencing_neurons_is_data() -> None:
    cell = SilencingCell(1, 2, max_silence=1, noise_std=10.0)
    noise = torch.tensor([[1.0, -1.0]])
    y, _ = cell(Noisy(torch.zeros(1, 1), noise))
    assert y.tolist() == [[1, 0]]
    assert cell(torch.zeros(1, 1))[0].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerceptronCell(6, 4, active=5), "PerceptronCell: active must be at most 4, got 5."),
        (lambda: PerceptronCell(6, 4, active=1, fan_in=6), "PerceptronCell: fan_in must be at most 4, got 6."),
        (
            lambda: PerceptronCell(6, 4, active=1, fan_in=2, decay=2.0),
            "PerceptronCell: decay must be from 0 to 1, got 2.0.",
        ),
        (lambda: SilencingCell(1, 1, max_silence=-1), "SilencingCell: max_silence must be at least 0, got -1."),
    ],
)
def test_messages(make, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
