"""McCulloch-Pitts nets: what their expressions say, on every history."""

from __future__ import annotations

import re

import pytest
import torch

from recurra import Loop, McCullochPittsCell, Recurrent
from recurra.cells.mcculloch_pitts import Expression, Signal, latency_of

A, B = Signal(0), Signal(1)
STEPS = 5
NUMBERS = torch.arange(4**STEPS)
HISTORIES = ((NUMBERS >> torch.arange(2 * STEPS)[:, None]) & 1).view(STEPS, 2, -1).transpose(1, 2).bool()


@pytest.mark.parametrize(
    ("expression", "latency", "units"),
    [
        (A, 0, 1),
        (A & B, 0, 1),
        (A | B, 0, 1),
        (A & ~B, 0, 1),
        (A & B.delayed(2) & ~A.delayed(1), 0, 4),
        ((A & B) | (A.delayed() & ~B), 1, 4),
        (A.delayed(3), 0, 4),
        (A.ever(), 0, 1),
        (A.since(B), 0, 1),
        ((A & B).since(B & ~A), 1, 3),
        (A.ringing(3), 0, 3),
        (A.ringing(2) & ~B.delayed().ever(), 1, 5),
        (A.delayed(2).ever(), 0, 3),
    ],
)
def test_a_net_says_its_expression(expression: Expression, latency: int, units: int) -> None:
    net = McCullochPittsCell.of([expression], input_size=2)
    assert (latency_of([expression]), net.num_units) == (latency, units)
    xs = torch.cat([HISTORIES, HISTORIES.new_zeros(latency, *HISTORIES.shape[1:])])
    ys, _ = Recurrent(net, Loop())(xs)
    assert torch.equal(ys[latency:, :, 0], expression.truth(HISTORIES))


def test_two_outputs_share_units_and_come_at_the_same_time() -> None:
    expressions = [A.delayed(2) | B, (A.delayed(2) & B) | A]
    net = McCullochPittsCell.of(expressions)
    late = latency_of(expressions)
    ys, _ = Recurrent(net, Loop())(torch.cat([HISTORIES, HISTORIES.new_zeros(late, *HISTORIES.shape[1:])]))
    for i, expression in enumerate(expressions):
        assert torch.equal(ys[late:, :, i], expression.truth(HISTORIES))


def test_inhibition_is_absolute() -> None:
    net = McCullochPittsCell(2, [[0, 0, 0, 0]], [[1]], [2])
    ys, _ = Recurrent(net)(torch.tensor([[[True, False]], [[True, True]]]))
    assert ys.flatten().tolist() == [True, False]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            ~A,
            "McCullochPittsCell: ~b must be beside an assertion, got alone. Write a & ~b: a net at rest says nothing.",
        ),
        (
            A | ~B,
            "McCullochPittsCell: ~b must be beside an assertion, got alone. Write a & ~b: a net at rest says nothing.",
        ),
        (
            ~A & ~B,
            "McCullochPittsCell: ~b must be beside an assertion, got alone. Write a & ~b: a net at rest says nothing.",
        ),
        (A.delayed(0), "McCullochPittsCell: a delay must be at least 1, got 0."),
        (A.ringing(0), "McCullochPittsCell: a period must be at least 1, got 0."),
    ],
)
def test_what_no_net_says_is_refused(expression: Expression, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        McCullochPittsCell.of([expression])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (1, [[0]], [], [1]),
            "McCullochPittsCell: excitatory and inhibitory must be 1 lists, one for each unit, got 1 and 0.",
        ),
        ((1, [[0]], [[]], [0]), "McCullochPittsCell: thresholds must be at least 1, got 0."),
        ((1, [[2]], [[]], [1]), "McCullochPittsCell: the synapses of unit 0 must be sources from 0 to 1, got 2."),
    ],
)
def test_messages(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        McCullochPittsCell(*arguments)
