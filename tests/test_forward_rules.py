"""Rules that go forward in time: what the laws do not ask."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recurra.cells import ElmanCell, GRUCell, IndRNNCell, JordanCell, LSTMCell
from recurra.core import BinaryCrossEntropy, Cell, Chunk, Controls, MeanSquaredError, SequenceLoss
from recurra.engines import Loop
from recurra.learning import BPTT, KFRTRL, RTRL, UORO, EProp, HybridRTRL, NoBackTrack, SnAp, TruncatedBPTT
from recurra.learning.linearised import jacobians, learning, pulled, pushing, stretch
from recurra.testing import Setting, laws
from recurra.testing.rule_laws import deviation, task
from recurra.wrappers import Dropout, Readout, Stack

EXACT = next(law for law in laws("rules") if law.name == "exact")


def stream(cell: Cell, num_steps: int = 12, rows: int = 3, *, seed: int = 0) -> Chunk:
    """Random steps with resets and weights."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    reset = torch.rand(num_steps, rows, generator=generator) < 0.15
    weights = torch.rand(num_steps, rows, generator=generator, dtype=torch.float64)
    xs, targets = draw(num_steps, rows, cell.input_size), draw(num_steps, rows, cell.output_size)
    return Chunk(xs, targets, weights, Controls(reset=reset))


def cut(chunk: Chunk, a: int, b: int) -> Chunk:
    assert chunk.weights is not None
    return Chunk(chunk.xs[a:b], chunk.targets[a:b], chunk.weights[a:b], chunk.controls.window(a, b))


def along(rule: Any, cell: Cell, chunk: Chunk, edges: list[int], seed: int = 0) -> dict[str, Tensor]:
    """The sum of the directions of a stream in pieces."""
    carry, total = rule.init(cell, chunk.xs.shape[1], seed=seed), dict[str, Tensor]()
    for a, b in itertools.pairwise(edges):
        carry, estimate = rule.step(cell, carry, cut(chunk, a, b), MeanSquaredError())
        total = {n: total.get(n, 0) + d for n, d in estimate.direction.items()}
    return total


CELLS = {
    "elman": lambda: ElmanCell(2, 4),
    "learned start": lambda: LSTMCell(2, 3).learn_initial_state(),
    "stack": lambda: Readout(Stack(GRUCell(2, 3), LSTMCell(3, 3)), 2),
    "feedback": lambda: JordanCell(2, 3, 2),
}


@pytest.mark.parametrize("name", CELLS)
def test_pieces_of_a_stream_add_up_to_the_gradient_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    cell = CELLS[name]().double()
    chunk = stream(cell)
    wanted = BPTT().step(cell, BPTT().init(cell, 3), chunk, MeanSquaredError())[1].direction
    for edges in ([0, 12], [0, 1, 2, 3, 7, 12], list(range(13))):
        found = along(RTRL(), cell, chunk, edges)
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-12)
    short = along(TruncatedBPTT(), cell, chunk, list(range(13)))
    assert any(not torch.allclose(short[key], value, rtol=1e-3) for key, value in wanted.items())


def test_sparse_influence_is_exact_where_the_pattern_is() -> None:
    torch.manual_seed(0)
    chunk = stream(ElmanCell(2, 4))
    for cell, exact in ((IndRNNCell(2, 4), True), (ElmanCell(2, 4), False)):
        cell = cell.double()
        whole, sparse = (along(rule, cell, chunk, [0, 5, 12]) for rule in (RTRL(), SnAp(1)))
        same = all(torch.allclose(sparse[n], d, rtol=1e-10, atol=1e-12) for n, d in whole.items())
        assert same is exact
        far = along(SnAp(9), cell, chunk, [0, 5, 12])
        for n, d in whole.items():
            torch.testing.assert_close(far[n], d, rtol=1e-10, atol=1e-12)


def test_the_rank_one_estimate_is_unbiased() -> None:
    """20 000 draws: rows of a batch that are alike, each with signs of its own."""
    torch.manual_seed(0)
    cell, rows, repeats = ElmanCell(2, 3).double(), 500, 40
    one = stream(cell, 5, 1)
    wanted = along(RTRL(), cell, one, [0, 5])
    assert one.weights is not None
    many = Chunk(
        one.xs.expand(-1, rows, -1),
        one.targets.expand(-1, rows, -1),
        one.weights.expand(-1, rows),
        Controls(reset=one.controls.reset.expand(-1, rows)),  # type: ignore[union-attr]
    )
    found = [along(UORO(), cell, many, [0, 2, 5], seed=seed) for seed in range(repeats)]
    biased = 0
    for name, exact in wanted.items():
        means = torch.stack([f[name] / rows for f in found])
        error = means.std(0) / repeats**0.5
        z = (means.mean(0) - exact) / error.clamp(min=1e-12)
        assert float(z.abs().max()) < 5, name
        biased += int(((means.mean(0) - 0.5 * exact) / error.clamp(min=1e-12)).abs().max() > 5)
    assert biased  # half of the gradient would be noticed


def test_a_wrong_influence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.learning import influence

    right = influence.derivatives

    def wrong(*given: Any) -> Any:
        for by_state, by_parameters in right(*given):
            yield by_state.transpose(1, 2), by_parameters

    setting = Setting(num_steps=5, batch_size=2, dtype=torch.float64)
    EXACT.enforce(RTRL(), GRUCell(2, 3), setting=setting)
    monkeypatch.setattr(influence, "derivatives", wrong)
    with pytest.raises(AssertionError, match="the whole sequence"):
        EXACT.enforce(RTRL(), GRUCell(2, 3), setting=setting)


class _Doubled(torch.autograd.Function):
    """2 x, as a function that `torch.func` cannot map and that can be differentiated only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


class Opaque(ElmanCell):
    """A step that takes the slow ways."""

    def advance(self, projected: Tensor, state: Any) -> Any:
        return super().advance(_Doubled.apply(projected), type(state)(_Doubled.apply(state.h)))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("make", [*CELLS.values(), lambda: Opaque(2, 4)], ids=[*CELLS, "opaque"])
def test_products_with_the_derivatives_are_those_of_the_whole_derivatives(make: Any, rows: int) -> None:
    torch.manual_seed(0)
    cell = make().double()
    made = stretch(cell, cell.initial_state(rows), stream(cell, 4, rows), MeanSquaredError(), torch.Generator())
    u, v = torch.randn_like(made.wanted), torch.randn_like(made.wanted)
    push = pushing(cell, made)
    steps = list(zip(jacobians(cell, made), pulled(cell, made, u)))
    assert len(steps) == 4
    for t, ((passed, immediate), found) in enumerate(steps):
        torch.testing.assert_close(found, torch.einsum("bs,bsp->bp", u[t], immediate), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(push(t, v[t]), torch.einsum("bij,bj->bi", passed, v[t]), rtol=1e-11, atol=1e-13)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


def test_the_rank_one_rule_never_holds_the_influence() -> None:
    cell = ElmanCell(2, 24)
    chunk = Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 24))
    num_parameters = sum(p.numel() for p in cell.parameters())
    for rule, whole in ((UORO(), False), (RTRL(), True)):
        carry = rule.init(cell, 1)
        with _Largest() as seen:
            rule.step(cell, carry, chunk, MeanSquaredError())
        assert (seen.elements >= 24 * max(p.numel() for p in cell.parameters())) is whole
        assert whole or seen.elements <= num_parameters + 24


class Whole(SequenceLoss):
    """A loss of whole sequences."""

    def per_sequence(self, ys: Any, targets: Any, lengths: Tensor | None) -> Tensor:
        return ys.sum((0, 2))


@pytest.mark.parametrize("rule", [RTRL(), SnAp(2), UORO()], ids=str)
def test_refusals(rule: Any) -> None:
    cell = ElmanCell(2, 3)
    chunk = Chunk(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3))
    with pytest.raises(TypeError, match="Whole is a loss of whole sequences, which cannot be learned as it goes"):
        rule.step(cell, rule.init(cell, 1), chunk, Whole())
    assert rule.supports(torch.nn.Linear(2, 3), MeanSquaredError()) is not None
    with pytest.raises(ValueError, match="SnAp: n must be"):
        SnAp(0)


@pytest.mark.parametrize("rule", [RTRL(), SnAp(2), UORO()], ids=str)
def test_no_steps_teach_nothing_and_wrong_shapes_are_named(rule: Any) -> None:
    cell = ElmanCell(2, 3)
    carry = rule.init(cell, 1)
    nothing = Chunk(torch.zeros(0, 1, 2), torch.zeros(0, 1, 3))
    after, estimate = rule.step(cell, carry, nothing, MeanSquaredError())
    assert torch.equal(after.state[0], carry.state[0])
    assert float(estimate.loss) == float(estimate.weight) == 0
    assert all(bool((d == 0).all()) for d in estimate.direction.values())
    with pytest.raises(ValueError, match=r"ElmanCell: xs must be \(T, B, 2\), got \(2, 1, 7\)"):
        rule.step(cell, carry, Chunk(torch.zeros(2, 1, 7), torch.zeros(2, 1, 3)), MeanSquaredError())
    with pytest.raises(ValueError, match=r"ElmanCell: state.h must be \(3, 3\), got \(1, 3\)"):
        rule.step(cell, carry, Chunk(torch.zeros(2, 3, 2), torch.zeros(2, 3, 3)), MeanSquaredError())


def test_noise_and_padding_go_forward_too() -> None:
    """A stack with dropout learns online, and its carry stays finite."""
    torch.manual_seed(0)
    cell = Readout(Dropout(GRUCell(3, 4), 0.3), 2).train()
    rule = RTRL()
    carry = rule.init(cell, 2, seed=1)
    lengths = torch.tensor([2, 5])
    chunk = Chunk(torch.randn(5, 2, 3), torch.rand(5, 2, 2), None, Controls(lengths=lengths))
    for _ in range(3):
        carry, estimate = rule.step(cell, carry, chunk, BinaryCrossEntropy())
        assert all(bool(d.isfinite().all()) for d in estimate.direction.values())
        assert float(estimate.weight) == 7
    assert all(bool(block.isfinite().all()) for block in carry.influence)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: ElmanCell(2, 3), lambda: LSTMCell(2, 2), lambda: Readout(GRUCell(2, 3), 2)])
@pytest.mark.parametrize("rule", [UORO(), NoBackTrack(), KFRTRL()], ids=str)
def test_estimates_are_unbiased_over_many_draws(rule: Any, make: Any) -> None:
    """20 000 draws each; half of the influence would be far outside."""
    torch.manual_seed(0)
    given = task(make(), Setting(num_steps=6, batch_size=1, dtype=torch.float64))
    assert deviation(rule, given, 20_000) < 6


def test_the_influence_of_element_wise_recurrences_takes_one_number_for_each_parameter() -> None:
    for size in (4, 16):
        cell = IndRNNCell(3, size)
        numbers = sum(block[0].numel() for block in RTRL().init(cell, 1).influence)
        assert numbers == sum(p.numel() for p in cell.parameters())


def test_layers_are_not_influenced_from_above() -> None:
    """Two layers: of the upper one's parameters only its own state carries something along; the readout's feed no state."""
    cell = Readout(Stack(ElmanCell(2, 3), ElmanCell(3, 4)), 2)
    count = {n: sum(p.numel() for p in c.parameters()) for n, c in enumerate(cell.cell.layers)}  # type: ignore[attr-defined]
    numbers = sum(block[0].numel() for block in RTRL().init(cell, 1).influence)
    assert numbers == (3 + 4) * count[0] + 4 * count[1]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("rule", [HybridRTRL(), HybridRTRL(3), SnAp(20)], ids=str)
def test_exact_rules_agree_along_a_stream(name: str, rule: Any) -> None:
    torch.manual_seed(0)
    cell = CELLS[name]().double()
    chunk = stream(cell)
    wanted = BPTT().step(cell, BPTT().init(cell, 3), chunk, MeanSquaredError())[1].direction
    for edges in ([0, 12], [0, 1, 2, 7, 12]):
        for key, value in along(rule, cell, chunk, edges).items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-10, atol=1e-12)


class _Looks(ElmanCell):
    """A step that torch cannot write down: it looks at its data."""

    def step(self, x: Tensor, state: Any) -> Any:  # type: ignore[misc]
        if float(x.detach().sum()) > 1e9:
            return torch.zeros_like(state.h), state
        return self.advance(self.project(x), state)


def test_a_step_that_cannot_be_written_down_is_taken_as_dense() -> None:
    torch.manual_seed(0)
    cell = _Looks(2, 3).double()
    chunk = stream(cell)
    wanted = BPTT(Loop()).step(cell, BPTT().init(cell, 3), chunk, MeanSquaredError())[1].direction
    for rule in (RTRL(), HybridRTRL()):
        for key, value in along(rule, cell, chunk, [0, 12]).items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-10, atol=1e-12)
    with pytest.raises(TypeError, match="it needs the graph of the cell's step: the step could not be traced"):
        EProp().step(cell, EProp().init(cell, 3), chunk, MeanSquaredError())
    assert "could not be traced" in str(EProp().supports(cell, MeanSquaredError()))


def test_kronecker_products_are_asked_for() -> None:
    tied = Stack(ElmanCell(3, 3), ElmanCell(3, 3))
    tied.layers[1].weight_ih = tied.layers[0].weight_ih  # type: ignore[union-attr]
    reason = KFRTRL().supports(tied, MeanSquaredError())
    assert reason == "the immediate influence of layers.0.weight_ih is no Kronecker product; use UORO()."
    assert KFRTRL().supports(LSTMCell(2, 3), MeanSquaredError()) is None
    with pytest.raises(ValueError, match="HybridRTRL: block must be at least 1, got 0"):
        HybridRTRL(0)


def test_every_member_of_the_catalog_is_a_rule_of_its_own() -> None:
    """A base class that others share is no member."""
    from dataclasses import is_dataclass

    from recurra.core.catalog import members

    assert [
        name for name, kind in members("rules").items() if not is_dataclass(kind) or "__eq__" not in vars(kind)
    ] == []


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("make", [lambda: LSTMCell(2, 3), lambda: Readout(Stack(ElmanCell(2, 3), LSTMCell(3, 2)), 2)])
def test_snap_is_the_masked_influence(n: int, make: Any) -> None:
    """Against the dense recursion; the mask is where derivatives at random numbers differ from zero."""
    torch.manual_seed(0)
    cell = make().double()
    chunk = stream(cell, 8, 2)._replace(controls=Controls())
    loss, parameters = MeanSquaredError(), learning(cell)
    found = along(SnAp(n), cell, chunk, [0, 8])
    made = stretch(cell, cell.initial_state(2), chunk, loss, torch.Generator())
    steps = list(jacobians(cell, made))
    passed, fed = (torch.stack(part).ne(0).any(0).any(0) for part in zip(*steps))
    kept = fed
    for _ in range(n - 1):
        kept = kept | (passed.double() @ kept.double() > 0)
    influence, total = torch.zeros_like(steps[0][1]), torch.zeros(sum(p.numel() for p in parameters.values())).double()
    for t, (d, i) in enumerate(steps):
        total += torch.einsum("bs,bsp->p", made.wanted[t], influence)
        influence = torch.where(kept, d @ influence + i, 0.0)
    for (name, g), part in zip(made.direct.items(), total.split([p.numel() for p in parameters.values()])):
        torch.testing.assert_close(found[name], g + part.reshape(g.shape), rtol=1e-10, atol=1e-12)
