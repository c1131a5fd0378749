"""The attention decoder: its sums by hand, its constant memory on every engine."""

from __future__ import annotations

import pytest
import torch

from recurra.cells.gru import GRUCell
from recurra.cells.lstm import LSTMCell
from recurra.core import Chunk, Controls, MeanSquaredError
from recurra.engines import Auto, Checkpointed, Hoisted, Loop
from recurra.layers import Recurrent
from recurra.learning import BPTT
from recurra.wrappers.attention import Attention


@pytest.fixture
def decoder() -> Attention:
    torch.manual_seed(0)
    return Attention(GRUCell(5, 4), memory_size=3, attention_size=6).double()


def test_weights_and_context_by_hand(decoder: Attention) -> None:
    memory = torch.randn(2, 7, 3, dtype=torch.float64)
    state = decoder.attend(memory, torch.tensor([7, 2]))
    state = state._replace(query=torch.randn(2, 4, dtype=torch.float64))
    x = torch.randn(2, 2, dtype=torch.float64)
    y, _ = decoder(x, state)
    for row, places in enumerate([7, 2]):
        scores = [
            torch.tanh(decoder.weight_query @ state.query[row] + decoder.weight_key @ memory[row, s])
            @ decoder.weight_score
            for s in range(places)
        ]
        a = torch.stack(scores).softmax(0)
        context = sum(a[s] * memory[row, s] for s in range(places))
        torch.testing.assert_close(y[row, 4:], context)
        torch.testing.assert_close(decoder.weights(state)[row, :places], a)
        inner, _ = decoder.cell(
            torch.cat([x[row], context])[None], state.inner._replace(h=state.inner.h[row : row + 1])
        )
        torch.testing.assert_close(y[row, :4], inner[0])


@pytest.mark.parametrize("engine", [Hoisted(), Auto(), Checkpointed(every=3)], ids=str)
def test_engines_keep_the_memory_and_its_gradient(decoder: Attention, engine) -> None:
    memory = torch.randn(3, 6, 3, dtype=torch.float64, requires_grad=True)
    xs = torch.randn(8, 3, 2, dtype=torch.float64)
    controls = {"lengths": torch.tensor([8, 0, 5]), "reset": torch.rand(8, 3) < 0.3}
    results = []
    for way in (Loop(), engine):
        start = decoder.attend(memory, torch.tensor([6, 1, 4]))
        ys, state = Recurrent(decoder, way)(xs, start, **controls)
        assert state.memory is start.memory
        gradient = torch.autograd.grad(ys.square().sum() + state.query.sum(), [memory, *decoder.parameters()])
        results.append([ys, *gradient])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_reset_keeps_the_memory(decoder: Attention) -> None:
    state = decoder.attend(torch.randn(2, 5, 3, dtype=torch.float64))
    xs = torch.randn(6, 2, 2, dtype=torch.float64)
    reset = torch.zeros(6, 2, dtype=torch.bool)
    reset[3] = True
    whole, _ = Recurrent(decoder)(xs, state, reset=reset)
    torch.testing.assert_close(whole[3:], Recurrent(decoder)(xs[3:], state)[0])


def test_bptt_trains_it(decoder: Attention) -> None:
    chunk = Chunk(torch.randn(4, 2, 2).double(), torch.zeros(4, 2, 7).double(), None, Controls())
    _, estimate = BPTT().step(decoder, BPTT().init(decoder, 2), chunk, MeanSquaredError())
    assert estimate.direction["cell.weight_ih"].abs().sum() > 0


def test_messages(decoder: Attention) -> None:
    with pytest.raises(ValueError, match=r"^Attention: the cell's input must be \(B, D \+ 9\), got \(B, 5\)\.$"):
        Attention(LSTMCell(5, 4), memory_size=9)
    with pytest.raises(
        ValueError, match=r"^Attention\.attend: memory must be \(B, S, 3\) with S >= 1, got \(2, 0, 3\)\.$"
    ):
        decoder.attend(torch.zeros(2, 0, 3))
    with pytest.raises(ValueError, match=r"^Attention\.attend: lengths must be in 1\.\.4, got \[0, 2\]\.$"):
        decoder.attend(torch.zeros(2, 4, 3), torch.tensor([0, 2]))
    state = decoder.attend(torch.zeros(2, 4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^Attention: state\.mask must be \(2, 4\), got \(2, 5\)\."):
        decoder(torch.zeros(2, 2, dtype=torch.float64), state._replace(mask=torch.ones(2, 5, dtype=torch.bool)))
