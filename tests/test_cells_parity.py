"""Cells against what they claim to equal: torch's layers, equations in another form, published parameter counts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recurra.cells.clockwork import ClockworkCell
from recurra.cells.elman import ElmanCell
from recurra.cells.fully_recurrent import FullyRecurrentCell
from recurra.cells.gru import GRUCell
from recurra.cells.gru_variants import GRU1Cell, GRU2Cell, GRU3Cell
from recurra.cells.indrnn import IndRNNCell
from recurra.cells.jordan import JordanCell
from recurra.cells.lstm import LSTMCell
from recurra.cells.lstm1997 import LSTM1997Cell
from recurra.cells.mgu import MGU1Cell, MGU2Cell, MGU3Cell, MGUCell
from recurra.core import Cell, ContinuousCell, Controls, Engine, FeedbackCell, VendorCell, members, tree
from recurra.engines import Auto, Checkpointed, Hoisted, Loop, Vendor

T, B, D, H = 7, 3, 4, 5
F64 = torch.float64
CELLS: list[Any] = [  # the cells built by sizes and names of initialisations whose input is a plain vector
    cls
    for cls in members("cells").values()
    if not issubclass(cls, ContinuousCell)
    and {"input_size", "hidden_size", "input_init", "recurrent_init"} <= set(inspect.signature(cls).parameters)
]
EXAMPLES = [pytest.param(cls, i, id=f"{cls.__name__}-{i}") for cls in CELLS for i, _ in enumerate(cls.examples())]


def example(cls: type[Cell], index: int) -> Cell:
    """A cell's example in float64; a learned start gets values that are not zero."""
    torch.manual_seed(0)
    cell = list(cls.examples())[index].double()
    if cell.initial_values is not None:
        for value in cell.initial_values.values():
            nn.init.normal_(value)
    return cell


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().numpy()


def sigma(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def run(
    cell: Cell, xs: Tensor, engine: Engine, state: Any = None, controls: Controls | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """All values (outputs, last state) and all gradients (input, first state, parameters) of a random weighted sum."""
    xs = xs.clone().requires_grad_()
    if state is not None:
        state = tree.map(lambda s: s.clone().requires_grad_() if tree.is_differentiable(s) else s, state)
    ys, last = engine(cell, xs, state, controls)
    values = [*tree.leaves(ys), *tree.leaves(last)]
    smooth = [v for v in values if tree.is_differentiable(v)]
    loss = sum((v * seeded(*v.shape, seed=i)).sum() for i, v in enumerate(smooth))
    wanted = [xs, *[s for s in tree.leaves(state) if tree.is_differentiable(s)], *cell.parameters()]
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return values, [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads)]


def assert_all_close(got: list[Tensor], want: list[Tensor], atol: float = 1e-11) -> None:
    assert len(got) == len(want)
    for g, w in zip(got, want):
        torch.testing.assert_close(g, w, atol=atol, rtol=1e-10)


# --- torch's own layers ----------------------------------------------------------------------------------------


def lstm_pair(bias: bool, projection_size: int | None) -> tuple[Cell, Any]:
    layer = nn.LSTM(D, H, bias=bias, proj_size=projection_size or 0, dtype=F64)
    cell = LSTMCell(D, H, bias=bias, projection_size=projection_size, dtype=F64)
    return cell, layer


def elman_pair(activation: str, bias: bool) -> tuple[Cell, Any]:
    return ElmanCell(D, H, activation=activation, bias=bias, dtype=F64), nn.RNN(
        D, H, nonlinearity=activation, bias=bias, dtype=F64
    )


def gru_pair(bias: bool) -> tuple[Cell, Any]:
    return GRUCell(D, H, bias=bias, dtype=F64), nn.GRU(D, H, bias=bias, dtype=F64)


def copy_weights(cell: Any, layer: Any) -> dict[str, str]:
    """Copy the layer's weights into the cell; returns the cell's parameter names with torch's."""
    pairs = {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0"}
    if getattr(cell, "weight_hr", None) is not None:
        pairs["weight_hr"] = "weight_hr_l0"
    with torch.no_grad():
        if layer.bias:
            if getattr(cell, "bias_hh", None) is not None:
                pairs |= {"bias_ih": "bias_ih_l0", "bias_hh": "bias_hh_l0"}
            else:
                cell.bias.copy_(layer.bias_ih_l0 + layer.bias_hh_l0)
        for mine, theirs in pairs.items():
            getattr(cell, mine).copy_(getattr(layer, theirs))
    if layer.bias and "bias_ih" not in pairs:
        pairs["bias"] = "bias_hh_l0"  # one bias: its gradient is the gradient of each of torch's two
    return pairs


TORCH_PAIRS: dict[str, Callable[[], tuple[Cell, Any]]] = {
    "lstm": lambda: lstm_pair(True, None),
    "lstm-no-bias": lambda: lstm_pair(False, None),
    "lstm-projection": lambda: lstm_pair(True, 2),
    "rnn-tanh": lambda: elman_pair("tanh", True),
    "rnn-relu": lambda: elman_pair("relu", True),
    "rnn-tanh-no-bias": lambda: elman_pair("tanh", False),
    "gru": lambda: gru_pair(True),
    "gru-no-bias": lambda: gru_pair(False),
}


@pytest.mark.parametrize("engine", [Loop(), Hoisted(), Vendor()], ids=str)
@pytest.mark.parametrize("pair", TORCH_PAIRS)
def test_equals_torch_by_copied_weights(pair: str, engine: Engine) -> None:
    """Values, last state and every gradient of a layer from a state that is not zero."""
    torch.manual_seed(0)
    cell, layer = TORCH_PAIRS[pair]()
    torchs = copy_weights(cell, layer)
    assert set(torchs) == {name for name, _ in cell.named_parameters()}
    assert isinstance(cell, VendorCell)

    xs = seeded(T, B, D, seed=2)
    start = tuple(seeded(1, B, size, seed=3 + i) for i, size in enumerate((cell.output_size, H)))
    start = start if isinstance(layer, nn.LSTM) else start[:1]
    state = cell.from_vendor(tuple(s[0] for s in start))
    values, grads = run(cell, xs, engine, state)

    xs_t, start_t = xs.clone().requires_grad_(), tuple(s.clone().requires_grad_() for s in start)
    ys_t, last_t = layer(xs_t, start_t if isinstance(layer, nn.LSTM) else start_t[0])
    last_t = last_t if isinstance(last_t, tuple) else (last_t,)
    values_t = [ys_t, *[s[0] for s in last_t]]
    loss = sum((v * seeded(*v.shape, seed=i)).sum() for i, v in enumerate(values_t))
    theirs = [getattr(layer, torchs[name]) for name, _ in cell.named_parameters()]
    grads_t = torch.autograd.grad(loss, [xs_t, *start_t, *theirs])

    assert_all_close(values, values_t)
    assert_all_close(grads, [g.reshape(mine.shape) for g, mine in zip(grads_t, grads)])


@pytest.mark.parametrize("pair", TORCH_PAIRS)
def test_parameter_count_is_torchs_or_one_bias_less(pair: str) -> None:
    cell, layer = TORCH_PAIRS[pair]()
    theirs = sum(p.numel() for p in layer.parameters())
    single = getattr(cell, "bias", None)
    assert count(cell) == theirs - (0 if single is None else single.numel())


# --- every cell on every engine --------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["plain", "lengths", "reset", "both"])
@pytest.mark.parametrize(("cls", "index"), EXAMPLES)
def test_engines_agree(cls: type[Cell], index: int, control: str) -> None:
    """Values and gradients from a state that is not zero; feedback is forced here and there."""
    cell = example(cls, index)
    xs = seeded(T, B, cell.input_size)
    lengths = torch.tensor([T, 0, 4]) if control in ("lengths", "both") else None
    reset = torch.rand(T, B, generator=torch.Generator().manual_seed(5)) < 0.3 if control in ("reset", "both") else None
    controls = Controls(lengths=lengths, reset=reset)
    if isinstance(cell, FeedbackCell) and control != "plain":
        controls = controls._replace(forced=seeded(T, B, cell.output_size, seed=6), force_mask=seeded(T, B, seed=7) > 0)
    with torch.no_grad():
        _, state = Loop()(cell, seeded(2, B, cell.input_size, seed=9))
    want_values, want_grads = run(cell, xs, Loop(), state, controls)
    for engine in (Hoisted(), Auto(), Checkpointed(), Checkpointed(every=3, engine=Loop())):
        values, grads = run(cell, xs, engine, state, controls)
        assert_all_close(values, want_values)
        assert_all_close(grads, want_grads)


@pytest.mark.parametrize(("cls", "index"), EXAMPLES)
def test_gradients_are_right(cls: type[Cell], index: int) -> None:
    """Two steps against differences, through input, state and parameters."""
    cell = example(cls, index)
    xs = seeded(2, 2, cell.input_size)
    with torch.no_grad():
        _, state = Loop()(cell, seeded(1, 2, cell.input_size, seed=9))
    labels, parameters = zip(*cell.named_parameters())
    smooth = [s for s in tree.leaves(state) if tree.is_differentiable(s)]

    def outputs(xs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        supply = iter(rest[: len(smooth)])
        start = tree.map(lambda s: next(supply) if tree.is_differentiable(s) else s, state)
        y, s = torch.func.functional_call(cell, dict(zip(labels, rest[len(smooth) :])), (xs[0], start))
        z, s = torch.func.functional_call(cell, dict(zip(labels, rest[len(smooth) :])), (xs[1], s))
        return (y, z, *[leaf for leaf in tree.leaves(s) if tree.is_differentiable(leaf)])

    inputs = [t.detach().clone().requires_grad_() for t in (xs, *smooth, *parameters)]
    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize(("cls", "index"), EXAMPLES)
def test_many_parameters_at_once_equal_one_by_one(cls: type[Cell], index: int) -> None:
    """vmap over stacked parameters, as a search rule uses it."""
    cell = example(cls, index)
    xs = seeded(2, B, cell.input_size)
    stacked = {name: torch.stack([p, 1.1 * p, -p]).detach() for name, p in cell.named_parameters()}

    def outputs(parameters: dict[str, Tensor]) -> Any:
        _, state = torch.func.functional_call(cell, parameters, (xs[0],))
        return torch.func.functional_call(cell, parameters, (xs[1], state))

    together = tree.leaves(torch.func.vmap(outputs)(stacked))
    for i in range(3):
        alone = tree.leaves(outputs({name: p[i] for name, p in stacked.items()}))
        for many, one in zip(together, alone, strict=True):
            torch.testing.assert_close(many[i], one)


# --- equations in another form ---------------------------------------------------------------------------------


def test_gru_reset_before_equals_the_papers_equations() -> None:
    torch.manual_seed(0)
    cell = GRUCell(D, H, reset_after=False, dtype=F64)
    xs, start = seeded(T, B, D), seeded(B, H, seed=4)
    ys, _ = Loop()(cell, xs, cell.from_vendor((start,)))
    w, u, b = array(cell.weight_ih), array(cell.weight_hh), array(cell.bias)
    for row in range(B):
        h = array(start[row]).copy()
        for t in range(T):
            x, old = array(xs[t, row]), h.copy()
            for j in range(H):
                r = [sigma(w[k] @ x + u[k] @ old + b[k]) for k in range(H)]
                z = sigma(w[H + j] @ x + u[H + j] @ old + b[H + j])
                reset = sum(u[2 * H + j, k] * r[k] * old[k] for k in range(H))
                candidate = math.tanh(w[2 * H + j] @ x + reset + b[2 * H + j])
                h[j] = z * old[j] + (1 - z) * candidate
            np.testing.assert_allclose(array(ys[t, row]), h, atol=1e-12)


@pytest.mark.parametrize("cls", [MGUCell, MGU1Cell, MGU2Cell, MGU3Cell])
def test_mgu_equals_the_papers_equations(cls: Any) -> None:
    """Unit by unit; the parameters are taken from the back, where the candidate's stand."""
    torch.manual_seed(0)
    cell: Any = cls(D, H, dtype=F64)
    w, u, b = array(cell.weight_ih), array(cell.weight_hh), array(cell.bias)
    xs = seeded(T, B, D)
    ys, _ = Loop()(cell, xs)
    for row in range(B):
        h = np.zeros(H)
        for t in range(T):
            x, f = array(xs[t, row]), np.zeros(H)
            for j in range(H):
                net = w[j] @ x if cls is MGUCell else 0.0
                net += u[j] @ h if cls is not MGU3Cell else 0.0
                net += b[j] if cls is not MGU2Cell else 0.0
                f[j] = sigma(net)
            n = [math.tanh(w[j - H] @ x + u[j - H] @ (f * h) + b[j - H]) for j in range(H)]
            h = h + f * (np.array(n) - h)
            np.testing.assert_allclose(array(ys[t, row]), h, atol=1e-12)


@pytest.mark.parametrize("cls", [GRU1Cell, GRU2Cell, GRU3Cell])
def test_gru_variants_are_a_gru_without_the_dropped_terms(cls: Any) -> None:
    """A full reset-before GRU with zeros for what the gates do not see; z's sign turned, since it keeps there."""
    torch.manual_seed(0)
    slim: Any = cls(D, H, dtype=F64)
    full = GRUCell(D, H, reset_after=False, dtype=F64)
    assert full.bias is not None
    with torch.no_grad():
        full.weight_ih.zero_()
        full.weight_hh.zero_()
        full.bias.zero_()
        full.weight_ih[-H:] = slim.weight_ih
        full.weight_hh[-slim.weight_hh.shape[0] :] = slim.weight_hh
        full.bias[-slim.bias.shape[0] :] = slim.bias
        full.weight_hh[H : 2 * H] *= -1
        full.bias[H : 2 * H] *= -1
    xs = seeded(T, B, D)
    torch.testing.assert_close(Loop()(slim, xs)[0], Loop()(full, xs)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_indrnn_equals_its_formula(activation: str) -> None:
    torch.manual_seed(0)
    cell = IndRNNCell(D, H, activation=activation, recurrent_init="normal:0.8", dtype=F64)
    f = {"relu": lambda a: max(a, 0.0), "tanh": math.tanh, "sigmoid": sigma}[activation]
    w, u, b = array(cell.weight_ih), array(cell.weight_hh), array(cell.bias)
    xs = seeded(T, B, D)
    ys = Loop()(cell, xs)[0].detach()
    for row in range(B):
        for j in range(H):
            h = 0.0
            for t in range(T):
                h = f(sum(w[j, k] * float(xs[t, row, k]) for k in range(D)) + u[j] * h + b[j])
                assert float(ys[t, row, j]) == pytest.approx(h, abs=1e-12)


@pytest.mark.parametrize("how", ["span", "long", "identity:3", "uniform:5", "normal:5", "zeros"])
def test_indrnn_starts_within_its_bound_and_is_brought_back(how: str) -> None:
    cell = IndRNNCell(2, 200, max_steps=50, recurrent_init=how, dtype=F64)
    assert cell.recurrent_bound == pytest.approx(2 ** (1 / 50))
    assert float(cell.weight_hh.detach().abs().max()) <= cell.recurrent_bound
    with torch.no_grad():
        cell.weight_hh[0], cell.weight_hh[1], cell.weight_hh[2] = 7.0, -7.0, 0.25
    cell.constrain()
    limit = cell.recurrent_bound
    assert cell.weight_hh[:3].tolist() == pytest.approx([limit, -limit, 0.25])


def test_indrnn_bound_limits_the_gradient_over_the_span() -> None:
    """|d h_T / d h_0| <= gamma when every weight stands at the bound."""
    cell = IndRNNCell(1, 4, max_steps=30, gamma=3.0, recurrent_init="identity:9", bias=False, dtype=F64)
    start = torch.ones(1, 4, dtype=F64, requires_grad=True)
    _, last = Loop()(cell, torch.zeros(30, 1, 1, dtype=F64), cell.initial_state(1)._replace(h=start))
    (grad,) = torch.autograd.grad(last.h.sum(), start)
    torch.testing.assert_close(grad, torch.full_like(grad, 3.0))


def test_indrnn_without_a_span_has_no_bound() -> None:
    cell = IndRNNCell(2, 3, recurrent_init="identity:9")
    assert cell.recurrent_bound == math.inf
    cell.constrain()
    assert cell.weight_hh.tolist() == [9.0, 9.0, 9.0]


@pytest.mark.parametrize("periods", [(1, 2, 4), (3, 1, 3), (2,)])
def test_clockwork_equals_its_modules_one_by_one(periods: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    size, steps = 2, 10
    cell = ClockworkCell(D, size * len(periods), periods=periods, dtype=F64)
    w, u, b = array(cell.weight_ih), array(cell.weight_hh), array(cell.bias)
    xs = seeded(steps, B, D)
    ys, state = Loop()(cell, xs)
    assert state.clock.tolist() == [steps] * B
    for row in range(B):
        modules = [np.zeros(size) for _ in periods]
        for t in range(steps):
            last = [m.copy() for m in modules]
            for i, period in enumerate(periods):
                if t % period:
                    continue
                rows = slice(size * i, size * i + size)
                net = w[rows] @ array(xs[t, row]) + b[rows]
                for j, other in enumerate(periods):
                    if other >= period:
                        net = net + u[rows, size * j : size * j + size] @ last[j]
                modules[i] = np.tanh(net)
            np.testing.assert_allclose(array(ys[t, row]), np.concatenate(modules), atol=1e-12)


def test_clockwork_unconnected_weights_have_no_effect_and_no_gradient() -> None:
    torch.manual_seed(0)
    cell = ClockworkCell(D, 6, periods=(1, 2, 4), dtype=F64)
    xs = seeded(T, B, D)
    before, _ = Loop()(cell, xs)
    below = torch.block_diag(*[torch.ones(2, 2)] * 3).cumsum(0).clamp(max=1).bool() & ~torch.block_diag(
        *[torch.ones(2, 2, dtype=torch.bool)] * 3
    )
    assert below.sum() == 12
    assert not cell.weight_hh.detach()[below].any()
    with torch.no_grad():
        cell.weight_hh[below] = 100.0
    after, _ = Loop()(cell, xs)
    assert torch.equal(before, after)
    (grad,) = torch.autograd.grad(after.sum(), cell.weight_hh)
    assert not grad[below].any()
    assert grad[~below].any()


def test_clockwork_clock_restarts_with_a_reset_and_stands_still_in_padding() -> None:
    cell = ClockworkCell(2, 4, periods=(1, 3))
    reset = torch.zeros(5, 3, dtype=torch.bool)
    reset[3, 0] = True
    _, state = Loop()(cell, torch.zeros(5, 3, 2), None, Controls(lengths=torch.tensor([5, 4, 0]), reset=reset))
    assert state.clock.tolist() == [2, 4, 0]


@pytest.mark.parametrize("gate_recurrence", [True, False])
@pytest.mark.parametrize(("bias", "cell_bias"), [(True, True), (True, False), (False, False)])
def test_lstm1997_equals_its_blocks_one_by_one(gate_recurrence: bool, bias: bool, cell_bias: bool) -> None:
    torch.manual_seed(0)
    blocks, size = 3, 2
    cells = blocks * size
    cell = LSTM1997Cell(
        D, cells, block_size=size, gate_recurrence=gate_recurrence, bias=bias, cell_bias=cell_bias, dtype=F64
    )
    w, u = array(cell.weight_ih), array(cell.weight_hh)
    xs = seeded(T, B, D)
    ys, state = Loop()(cell, xs)

    def net(unit: int, x: np.ndarray, seen: list[float]) -> float:
        total = sum(w[unit, k] * x[k] for k in range(D)) + sum(u[unit, k] * seen[k] for k in range(len(seen)))
        kind = "bias_i" if unit < blocks else "bias_o" if unit >= blocks + cells else "bias_g"
        offset = {"bias_i": 0, "bias_g": blocks, "bias_o": blocks + cells}[kind]
        values = getattr(cell, kind)
        return float(total) + (0.0 if values is None else float(values.detach()[unit - offset]))

    for row in range(B):
        s, y = [0.0] * cells, [0.0] * cells
        y_in, y_out = [0.0] * blocks, [0.0] * blocks
        for t in range(T):
            x = array(xs[t, row])
            seen = [*y_in, *y, *y_out] if gate_recurrence else list(y)
            y_in = [sigma(net(j, x, seen)) for j in range(blocks)]
            y_out = [sigma(net(blocks + cells + j, x, seen)) for j in range(blocks)]
            for j in range(blocks):
                for v in range(size):
                    k = j * size + v
                    s[k] += y_in[j] * (4 * sigma(net(blocks + k, x, seen)) - 2)
                    y[k] = y_out[j] * (2 * sigma(s[k]) - 1)
            np.testing.assert_allclose(array(ys[t, row]), y, atol=1e-12)
        np.testing.assert_allclose(array(state.c[row]), s, atol=1e-12)
        if gate_recurrence:
            np.testing.assert_allclose(array(state.i[row]), y_in, atol=1e-12)
            np.testing.assert_allclose(array(state.o[row]), y_out, atol=1e-12)
        else:
            assert state.i == state.o == ()


@pytest.mark.parametrize("gate_recurrence", [True, False])
def test_lstm1997_of_experiment_2_adds_up_without_squashing_and_output_gates(gate_recurrence: bool) -> None:
    torch.manual_seed(0)
    cell = LSTM1997Cell(D, 4, block_size=2, gate_recurrence=gate_recurrence, squash=False, output_gate=False, dtype=F64)
    w, u = array(cell.weight_ih), array(cell.weight_hh)
    assert cell.bias_o is None
    assert cell.bias_i is not None
    assert cell.bias_g is not None
    b = np.concatenate([array(cell.bias_i), array(cell.bias_g)])
    xs = seeded(T, B, D)
    ys, state = Loop()(cell, xs)
    for row in range(B):
        s, gates = np.zeros(4), np.zeros(2)
        for t in range(T):
            seen = np.concatenate([gates, s]) if gate_recurrence else s
            net = [sigma(float(a)) for a in w @ array(xs[t, row]) + u @ seen + b]
            gates = np.array(net[:2])
            s = s + np.repeat(gates, 2) * np.array(net[2:])
            np.testing.assert_allclose(array(ys[t, row]), s, atol=1e-12)
        np.testing.assert_allclose(array(state.c[row]), s, atol=1e-12)
    assert state.o == ()


@pytest.mark.parametrize("gate_recurrence", [True, False])
def test_lstm_of_2000_forgets_block_by_block(gate_recurrence: bool) -> None:
    torch.manual_seed(0)
    cell = LSTM1997Cell(
        D, 4, block_size=2, gate_recurrence=gate_recurrence, forget_gate=True, forget_gate_bias=(0.5, 1.0), dtype=F64
    )
    w, u = array(cell.weight_ih), array(cell.weight_hh)
    biases = (cell.bias_i, cell.bias_f, cell.bias_g, cell.bias_o)
    b = np.concatenate([array(bias) for bias in biases if bias is not None])
    assert b[2:4].tolist() == [0.5, 1.0]
    xs = seeded(T, B, D)
    ys, state = Loop()(cell, xs)
    for row in range(B):
        s, y, i, f, o = np.zeros(4), np.zeros(4), np.zeros(2), np.zeros(2), np.zeros(2)
        for t in range(T):
            seen = np.concatenate([i, f, y, o]) if gate_recurrence else y
            a = np.array([sigma(float(net)) for net in w @ array(xs[t, row]) + u @ seen + b])
            i, f, g, o = a[:2], a[2:4], a[4:8], a[8:]
            s = np.repeat(f, 2) * s + np.repeat(i, 2) * (4 * g - 2)
            y = np.repeat(o, 2) * np.array([2 * sigma(float(c)) - 1 for c in s])
            np.testing.assert_allclose(array(ys[t, row]), y, atol=1e-12)
        np.testing.assert_allclose(array(state.c[row]), s, atol=1e-12)
        if gate_recurrence:
            np.testing.assert_allclose(array(state.f[row]), f, atol=1e-12)


def test_lstm1997_gate_biases_start_where_they_are_told() -> None:
    cell = LSTM1997Cell(2, 4, block_size=2, input_gate_bias=(-3.0, -6.0), output_gate_bias=(-1.0, -2.0))
    assert cell.bias_i is not None
    assert cell.bias_o is not None
    assert cell.bias_i.tolist() == [-3.0, -6.0]
    assert cell.bias_o.tolist() == [-1.0, -2.0]


@pytest.mark.parametrize("output", ["identity", "sigmoid", "tanh", "softmax"])
def test_jordan_equals_its_equations(output: str) -> None:
    torch.manual_seed(0)
    outputs, mu = 3, 0.7
    cell = JordanCell(D, H, outputs, decay=mu, output_activation=output, dtype=F64)
    w, u, v = array(cell.weight_ih), array(cell.weight_ch), array(cell.weight_ho)
    b, c = array(cell.bias), array(cell.bias_o)
    g: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "identity": lambda a: a,
        "sigmoid": sigma,
        "tanh": np.tanh,
        "softmax": lambda a: np.exp(a) / np.exp(a).sum(),
    }
    xs = seeded(T, B, D)
    ys, _ = Loop()(cell, xs)
    for row in range(B):
        past: list[np.ndarray] = []
        for t in range(T):
            trace = sum((mu**age * y for age, y in enumerate(reversed(past))), np.zeros(outputs))
            past.append(g[output](v @ sigma(w @ array(xs[t, row]) + u @ trace + b) + c))
            np.testing.assert_allclose(array(ys[t, row]), past[-1], atol=1e-12)


# --- fully recurrent: masks, outputs, forcing ------------------------------------------------------------------


def small_net(**options: Any) -> FullyRecurrentCell:
    torch.manual_seed(0)
    return FullyRecurrentCell(D, H, dtype=F64, **options)


MASK = torch.rand(H, H, generator=torch.Generator().manual_seed(3)) < 0.6
INPUT_MASK = torch.rand(H, D, generator=torch.Generator().manual_seed(4)) < 0.6


@pytest.mark.parametrize("outputs", [None, (0, 1), (3, 0), (4,), (4, 3, 2, 1, 0)])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_fully_recurrent_equals_its_sums(outputs: tuple[int, ...] | None, activation: str) -> None:
    cell = small_net(outputs=outputs, recurrent_mask=MASK, input_mask=INPUT_MASK, activation=activation)
    with torch.no_grad():  # what is masked must not matter
        cell.weight_hh[~MASK] = 50.0
        cell.weight_ih[~INPUT_MASK] = 50.0
    w, u, b = array(cell.weight_ih), array(cell.weight_hh), array(cell.bias)
    f: Callable[[float], float] = {"sigmoid": sigma, "tanh": math.tanh}[activation]
    xs = seeded(T, B, D)
    forced = torch.rand(T, B, cell.output_size, dtype=F64, generator=torch.Generator().manual_seed(6))
    force_mask = torch.rand(T, B, generator=torch.Generator().manual_seed(7)) < 0.5
    ys, state = Loop()(cell, xs, None, Controls(forced=forced, force_mask=force_mask))
    visible = list(range(H)) if outputs is None else list(outputs)
    hidden = [i for i in range(H) if i not in visible]
    for row in range(B):
        units = [0.0] * H
        for t in range(T):
            last, x = list(units), array(xs[t, row])
            for i in range(H):
                net = sum(w[i, k] * x[k] for k in range(D) if INPUT_MASK[i, k])
                net += sum(u[i, k] * last[k] for k in range(H) if MASK[i, k])
                units[i] = f(float(net + b[i]))
            np.testing.assert_allclose(array(ys[t, row]), [units[i] for i in visible], atol=1e-12)
            if force_mask[t, row]:
                for place, i in enumerate(visible):
                    units[i] = float(forced[t, row, place])
        np.testing.assert_allclose(array(state.feedback[row]), [units[i] for i in visible], atol=1e-12)
        if hidden:
            np.testing.assert_allclose(array(state.h[row]), [units[i] for i in hidden], atol=1e-12)
        else:
            assert state.h == ()


def test_fully_recurrent_masked_weights_have_no_gradient() -> None:
    cell = small_net(recurrent_mask=MASK, input_mask=INPUT_MASK)
    ys, _ = Loop()(cell, seeded(T, B, D))
    recurrent, inputs = torch.autograd.grad(ys.sum(), [cell.weight_hh, cell.weight_ih])
    assert not recurrent[~MASK].any()
    assert not inputs[~INPUT_MASK].any()
    assert recurrent[MASK].all()
    assert inputs[INPUT_MASK].all()


@pytest.mark.parametrize("make", [lambda: small_net(outputs=(1, 3)), lambda: small_net(), lambda: JordanCell(D, H, 2)])
@pytest.mark.parametrize("engine", [Loop(), Hoisted(), Checkpointed()], ids=str)
def test_no_gradient_passes_a_forced_value(make: Callable[[], Cell], engine: Engine) -> None:
    """Not into the forced values, and not through the output units that they replace."""
    torch.manual_seed(0)
    cell = make().double()
    xs = seeded(T, B, D).requires_grad_()
    forced = torch.rand(T, B, cell.output_size, dtype=F64).requires_grad_()
    mask = torch.zeros(T, B, dtype=torch.bool)
    mask[3] = True
    ys, _ = engine(cell, xs, None, Controls(forced=forced, force_mask=mask))
    (grad,) = torch.autograd.grad(ys[4:].sum(), xs, retain_graph=True)
    assert torch.autograd.grad(ys.sum(), forced, allow_unused=True)[0] is None
    assert grad[4:].any()
    if isinstance(cell, FullyRecurrentCell) and cell.output_size < H:
        assert grad[:4].any()  # the hidden units still carry it
    elif isinstance(cell, FullyRecurrentCell):
        assert not grad[:4].any()  # every path goes through a forced unit
    else:
        assert not grad[3].any()  # step 3 reaches later steps through y_3 alone ...
        assert grad[:3].any()  # ... but the state layer remembers the outputs before it


def test_forcing_with_the_own_outputs_changes_no_value() -> None:
    cell = small_net(outputs=(1, 3))
    xs = seeded(T, B, D)
    free, state = Loop()(cell, xs)
    forced, forced_state = Loop()(cell, xs, None, Controls(forced=free.detach()))
    assert torch.equal(free, forced)
    assert_all_close(tree.leaves(forced_state), tree.leaves(state))


def test_a_saved_fully_recurrent_net_keeps_its_masks() -> None:
    cell = small_net(recurrent_mask=MASK, outputs=(3, 0))
    other = small_net(recurrent_mask=torch.ones_like(MASK), outputs=(3, 0))
    other.load_state_dict(cell.state_dict())
    xs = seeded(T, B, D)
    assert torch.equal(Loop()(cell, xs)[0], Loop()(other, xs)[0])


# --- parameter counts ------------------------------------------------------------------------------------------


def count(cell: Cell) -> int:
    return sum(p.numel() for p in cell.parameters())


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 5), (28, 100), (1, 100)])
def test_parameter_counts_of_the_gate_variants(m: int, n: int) -> None:
    """m inputs, n units; savings as in Heck & Salem 2017 and Dey & Salem 2017."""
    mgu, gru = 2 * (n * n + n * m + n), 3 * (n * n + n * m + n)
    assert count(MGUCell(m, n)) == mgu
    assert count(MGU1Cell(m, n)) == mgu - n * m
    assert count(MGU2Cell(m, n)) == mgu - n * m - n
    assert count(MGU3Cell(m, n)) == mgu - n * m - n * n
    assert count(GRUCell(m, n, reset_after=False)) == gru
    assert count(GRU1Cell(m, n)) == gru - 2 * n * m
    assert count(GRU2Cell(m, n)) == gru - 2 * (n * m + n)
    assert count(GRU3Cell(m, n)) == gru - 2 * (n * m + n * n)


@pytest.mark.parametrize(
    ("inputs", "outputs", "blocks", "size", "cell_bias", "output_bias", "weights"),
    [
        (7, 7, 4, 1, False, False, 264),  # experiment 1, embedded Reber grammar
        (7, 7, 3, 2, False, False, 276),
        (2, 1, 2, 2, True, True, 93),  # experiment 4, adding
        (8, 4, 2, 2, True, True, 156),  # experiment 6a, temporal order
        (8, 8, 3, 2, True, True, 308),  # experiment 6b
    ],
)
def test_lstm1997_has_the_published_number_of_weights(
    inputs: int, outputs: int, blocks: int, size: int, cell_bias: bool, output_bias: bool, weights: int
) -> None:
    """Hochreiter & Schmidhuber 1997, with an output layer that sees the memory cells."""
    cell = LSTM1997Cell(inputs, blocks * size, block_size=size, cell_bias=cell_bias)
    assert count(cell) + outputs * blocks * size + outputs * output_bias == weights


def test_counts_of_the_others() -> None:
    assert count(FullyRecurrentCell(D, H)) == H * (D + H + 1)
    assert count(FullyRecurrentCell(D, H, bias=False)) == H * (D + H)
    assert count(JordanCell(D, H, 2)) == H * (D + 2 + 1) + 2 * (H + 1)
    assert count(IndRNNCell(D, H)) == H * (D + 1 + 1)
    assert count(ClockworkCell(D, 8)) == 8 * (D + 8 + 1)
    assert count(LSTM1997Cell(D, 6, block_size=3, gate_recurrence=False)) == 10 * (D + 6 + 1)


# --- initial weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CELLS)
def test_a_generator_repeats_the_initial_weights(cls: Any) -> None:
    def draw() -> list[Tensor]:
        return list(cls(4, 8, generator=torch.Generator().manual_seed(7)).parameters())

    assert all(torch.equal(a, b) for a, b in zip(draw(), draw(), strict=True))


@pytest.mark.parametrize("cls", CELLS)
def test_dtype_and_device_are_followed(cls: Any) -> None:
    cell = cls(4, 8, dtype=F64, device="cpu", input_init="uniform:0.2")
    assert {p.dtype for p in cell.parameters()} == {F64}
    assert float(cell.weight_ih.detach().abs().max()) <= 0.2
    with torch.device("meta"):
        assert {p.device.type for p in cls(4, 8).parameters()} == {"meta"}


def test_masked_entries_start_at_zero() -> None:
    cell = small_net(recurrent_mask=MASK, input_mask=INPUT_MASK, recurrent_init="orthogonal")
    assert not cell.weight_hh[~MASK].any()
    assert not cell.weight_ih[~INPUT_MASK].any()
