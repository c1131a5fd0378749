"""E-prop against truncated gradients that are derived by hand, and what it costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from recurra.cells import ElmanCell, GRUCell, IndRNNCell, LSTM1997Cell, LSTMCell
from recurra.core import Cell, Chunk, Controls, Leaf, Loss, MeanSquaredError
from recurra.learning import BPTT, RFLO, EProp, TruncatedBPTT
from recurra.wrappers import Readout, Stack


def stream(cell: Any, num_steps: int = 9, rows: int = 3, seed: int = 0) -> Chunk:
    """Random steps with resets and weights."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    reset = torch.rand(num_steps, rows, generator=generator) < 0.15
    xs, targets = draw(num_steps, rows, cell.input_size), draw(num_steps, rows, cell.output_size)
    return Chunk(xs, targets, draw(num_steps, rows).abs(), Controls(reset=reset))


def asked(rule: Any, cell: Cell, chunk: Chunk) -> dict[str, Tensor]:
    rows = chunk.xs.shape[1]
    return rule.step(cell, rule.init(cell, rows), chunk, MeanSquaredError())[1].direction  # type: ignore[no-any-return]


def agree(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


def hochreiter_1997(cell: Any, chunk: Chunk) -> dict[str, Tensor]:
    """The truncated gradient of the paper's appendix, by hand: no autograd.

    For input gates and cells  d s_c/dw (t) = d s_c/dw (t-1) + d s_c(t)/dw  with what comes in held fixed;  output gates and
    readout have no memory. Errors: e_s = y_out h'(s) sum_k w_k delta_k,  e_out = f'(net_out) sum_c h(s_c) sum_k w_k delta_k.
    """
    inner, readout = cell.cell, cell.linear
    num_n, num_c, block = inner.num_blocks, inner.hidden_size, inner.block_size
    units = num_c + 2 * num_n
    total = {name: torch.zeros_like(p).detach() for name, p in cell.named_parameters()}
    weights: Any = chunk.weights
    for b in range(chunk.xs.shape[1]):
        h, s, gate_i, gate_o = (torch.zeros(n, dtype=torch.float64) for n in (num_c, num_c, num_n, num_n))
        width = chunk.xs.shape[2] + units + 1
        of_gate, of_cell = torch.zeros(num_c, width).double(), torch.zeros(num_c, width).double()  # d s_c / d row
        for t in range(chunk.xs.shape[0]):
            if bool(chunk.controls.reset[t, b]):  # type: ignore[index]
                h, s, gate_i, gate_o = (torch.zeros_like(v) for v in (h, s, gate_i, gate_o))
                of_gate, of_cell = torch.zeros_like(of_gate), torch.zeros_like(of_cell)
            seen = torch.cat([chunk.xs[t, b], gate_i, h, gate_o, torch.ones(1).double()])
            bias = torch.cat([inner.bias_i, inner.bias_g, inner.bias_o])[:, None]
            net = (torch.cat([inner.weight_ih, inner.weight_hh, bias], 1).detach() @ seen).split([num_n, num_c, num_n])
            gate_i, gate_o = torch.sigmoid(net[0]), torch.sigmoid(net[2])
            squashed, slope = 4 * torch.sigmoid(net[1]) - 2, 4 * torch.sigmoid(net[1]) * (1 - torch.sigmoid(net[1]))
            wide_i, wide_o = gate_i.repeat_interleave(block), gate_o.repeat_interleave(block)
            s = s + wide_i * squashed
            of_gate = of_gate + torch.outer(squashed * wide_i * (1 - wide_i), seen)
            of_cell = of_cell + torch.outer(wide_i * slope, seen)
            shown = 2 * torch.sigmoid(s) - 1
            h = wide_o * shown
            y = readout.weight.detach() @ h + readout.bias.detach()
            delta = weights[t, b] * 2 * (y - chunk.targets[t, b]) / len(y)
            back = readout.weight.detach().T @ delta
            e_s = back * wide_o * 2 * torch.sigmoid(s) * (1 - torch.sigmoid(s))
            e_out = gate_o * (1 - gate_o) * (back * shown).unflatten(0, (num_n, block)).sum(1)
            rows = torch.cat(
                [
                    (e_s[:, None] * of_gate).unflatten(0, (num_n, block)).sum(1),
                    e_s[:, None] * of_cell,
                    torch.outer(e_out, seen),
                ]
            )
            size = chunk.xs.shape[2]
            total["cell.weight_ih"] += rows[:, :size]
            total["cell.weight_hh"] += rows[:, size:-1]
            for name, part in zip(("i", "g", "o"), rows[:, -1].split([num_n, num_c, num_n])):
                total[f"cell.bias_{name}"] += part
            total["linear.weight"] += torch.outer(delta, h)
            total["linear.bias"] += delta
    return total


@pytest.mark.parametrize(("hidden", "block"), [(4, 2), (3, 1)])
def test_the_truncated_gradient_of_lstm_1997(hidden: int, block: int) -> None:
    torch.manual_seed(0)
    cell = Readout(LSTM1997Cell(3, hidden, block_size=block), 2).double()
    chunk = stream(cell, 12)
    wanted = hochreiter_1997(cell, chunk)
    agree(asked(EProp(), cell, chunk), wanted)
    full = asked(BPTT(), cell, chunk)
    assert not torch.allclose(full["cell.weight_ih"], wanted["cell.weight_ih"], rtol=1e-3)


def looped(cell: Any, step: Any, chunk: Chunk) -> dict[str, Tensor]:
    """Autograd through a loop that is written for one cell, h detached where it enters a product."""
    total: Any = 0.0
    state: Any = cell.initial_state(chunk.xs.shape[1])
    for t in range(chunk.xs.shape[0]):
        fresh = cell.initial_state(chunk.xs.shape[1])
        again = chunk.controls.reset[t][:, None]  # type: ignore[index]
        state = type(state)(*[torch.where(again, f, s) for f, s in zip(fresh, state)])
        y, state = step(chunk.xs[t], state)
        total = total + (chunk.weights[t] * (y - chunk.targets[t]).square().mean(-1)).sum()  # type: ignore[index]
    names, values = zip(*cell.named_parameters())
    return dict(zip(names, torch.autograd.grad(total, values)))


def test_what_an_lstm_carries_on_is_its_cell() -> None:
    torch.manual_seed(1)
    cell = LSTMCell(2, 3).double()
    chunk = stream(cell)
    agree(asked(EProp(), cell, chunk), looped(cell, lambda x, s: cell.step(x, s._replace(h=s.h.detach())), chunk))


def test_what_a_gated_unit_carries_on_is_z_h() -> None:
    torch.manual_seed(1)
    cell = GRUCell(2, 3).double()
    chunk = stream(cell)

    def step(x: Tensor, state: Any) -> Any:
        r, z, n = (x @ cell.weight_ih.T + cell.bias_ih).chunk(3, -1)
        hr, hz, hn = (state.h.detach() @ cell.weight_hh.T + cell.bias_hh).chunk(3, -1)
        r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
        h = (1 - z) * torch.tanh(n + r * hn) + z * state.h
        return h, type(state)(h)

    torch.testing.assert_close(step(chunk.xs[0], cell.initial_state(3))[0], cell(chunk.xs[0])[0])
    agree(asked(EProp(), cell, chunk), looped(cell, step, chunk))


class Spiking(IndRNNCell):
    """Says which units are above zero, then how far all are."""

    @property
    def output_spec(self) -> tuple[Leaf, Leaf]:  # type: ignore[override]
        """Truth values, and what floats."""
        return Leaf((self.hidden_size,), torch.bool), Leaf((self.hidden_size,))

    def advance(self, projected: Tensor, state: Any) -> Any:
        """IndRNN's own."""
        y, new = super().advance(projected, state)
        return (y > 0, y), new


class OfTheSecond(Loss):
    """Squares of the second of two outputs."""

    def per_step(self, ys: Any, targets: Tensor) -> Tensor:
        """(T, B)."""
        return MeanSquaredError().per_step(ys[1], targets)


def test_outputs_need_not_all_float() -> None:
    torch.manual_seed(4)
    cell = Spiking(2, 4).double()
    chunk = stream(SimpleNamespace(input_size=2, output_size=4))
    found = [rule.step(cell, rule.init(cell, 3), chunk, OfTheSecond())[1] for rule in (EProp(), BPTT())]
    agree(found[0].direction, found[1].direction)
    assert found[0].outputs[0].dtype == torch.bool
    assert torch.equal(found[0].outputs[0], found[0].outputs[1] > 0)


def test_element_wise_recurrences_are_exact_and_products_alone_keep_nothing() -> None:
    torch.manual_seed(2)
    cell: Cell = Readout(IndRNNCell(2, 4), 3).double()
    agree(asked(EProp(), cell, stream(cell)), asked(BPTT(), cell, stream(cell)))
    cell = Readout(ElmanCell(2, 4), 3).double()
    assert EProp().init(cell, 2).influence == ()
    agree(asked(EProp(), cell, stream(cell)), asked(TruncatedBPTT(1), cell, stream(cell)))


def test_the_signal_passes_the_layers_of_a_step() -> None:
    """The lower layer learns by each step's loss, through the upper layer, whose own past is held fixed."""
    torch.manual_seed(3)
    low, high = LSTMCell(2, 3), LSTMCell(3, 4)
    cell = Readout(Stack(low, high), 2).double()
    chunk = stream(cell)
    found = asked(EProp(), cell, chunk)

    def losses(hold: bool) -> dict[str, Tensor]:
        total: Any = 0.0
        a, b = low.initial_state(3), high.initial_state(3)
        for t in range(9):
            again = chunk.controls.reset[t][:, None]  # type: ignore[index]
            a, b = (type(s)(*[torch.where(again, torch.zeros_like(v), v) for v in s]) for s in (a, b))
            h, a = low.step(chunk.xs[t], a._replace(h=a.h.detach()))
            b = b._replace(h=b.h.detach(), c=b.c.detach() if hold else b.c)
            y, b = high.step(h if hold else h.detach(), b)
            total = total + (chunk.weights[t] * (cell.linear(y) - chunk.targets[t]).square().mean(-1)).sum()  # type: ignore[index]
        names, values = zip(*cell.named_parameters())
        grads = torch.autograd.grad(total, values, allow_unused=True)
        return {n: g for n, g in zip(names, grads) if g is not None}

    lower = {n: g for n, g in losses(True).items() if ".layers.0." in n}
    upper = {n: g for n, g in losses(False).items() if ".layers.0." not in n}
    agree(found, lower | upper)


def test_it_keeps_one_number_for_each_parameter_that_feeds_a_cell() -> None:
    cell = Readout(LSTMCell(8, 16), 4)
    numbers = sum(block[0].numel() for block in EProp().init(cell, 1).influence)
    assert numbers == 3 * 16 * (8 + 16 + 1)  # input gates, forget gates, cells


def test_a_step_is_written_down_once_for_all_data() -> None:
    """One online step is a graph without branches on data."""
    torch.manual_seed(4)
    cell = Readout(LSTM1997Cell(2, 4, block_size=2), 1).double()
    rule, chunk = EProp(), stream(cell, 4, 2)

    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, carry: Any, one: Chunk) -> Any:
            return rule.step(self.cell, carry, one, MeanSquaredError())

    def step(values: dict[str, Tensor], state: Any, influence: Any, xs: Tensor, targets: Tensor, reset: Tensor) -> Any:
        carry = start._replace(state=state, influence=influence)
        one = Chunk(xs, targets, None, Controls(reset=reset))
        after, estimate = functional_call(learner, values, (carry, one))
        return estimate.direction, after.state, after.influence

    learner, start = Learner(), rule.init(cell, 2)
    values = {f"cell.{n}": p for n, p in cell.named_parameters()}
    reset = torch.ones(1, 2, dtype=torch.bool)
    graph = make_fx(step)(values, start.state, start.influence, chunk.xs[:1], chunk.targets[:1], reset)
    state, influence, carry = start.state, start.influence, start
    for t in range(4):
        again = torch.tensor([[t == 2, False]])
        found, state, influence = graph(values, state, influence, chunk.xs[t : t + 1], chunk.targets[t : t + 1], again)
        one = Chunk(chunk.xs[t : t + 1], chunk.targets[t : t + 1], None, Controls(reset=again))
        carry, estimate = rule.step(cell, carry, one, MeanSquaredError())
        agree(found, estimate.direction)


class _Feedback(torch.autograd.Function):
    """phi W^T whose errors go back by another matrix."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor, weight: Tensor, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(phi, feedback)
        return phi @ weight.T

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        phi, feedback = ctx.saved_tensors
        return errors[0] @ feedback, errors[0].T @ phi, None


def test_random_feedback_takes_the_place_of_the_readouts_weights() -> None:
    torch.manual_seed(5)
    cell = Readout(LSTMCell(2, 3), 2).double()
    chunk, inner = stream(cell), cell.cell
    carry = RFLO().init(cell, 3)
    found = RFLO().step(cell, carry, chunk, MeanSquaredError())[1].direction

    def step(x: Tensor, state: Any) -> Any:
        h, new = inner.step(x, state._replace(h=state.h.detach()))
        return _Feedback.apply(h, cell.linear.weight, carry.feedback) + cell.linear.bias, new

    agree(found, looped(cell, step, chunk))
    aligned = carry._replace(feedback=cell.linear.weight.detach())
    agree(RFLO().step(cell, aligned, chunk, MeanSquaredError())[1].direction, asked(EProp(), cell, chunk))
    refused = RFLO().supports(inner, MeanSquaredError())
    assert refused == "it sends errors back around a linear readout, and LSTMCell has none; wrap it in Readout."
