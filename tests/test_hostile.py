"""The hostile cells obey every law, and do what they are there for."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, vmap

from hostile_cells import AttentionDecoderCell, GridLSTMCell, ODECell, SpikingCell, TuringCell, hostile_cells
from recurra.cells import ClockworkCell, JordanCell, LSTMCell
from recurra.core import RK4, Chunk, Controls, CrossEntropy, MeanSquaredError, Noisy, Timed, tree
from recurra.engines import Checkpointed, Hoisted, Loop
from recurra.layers import Grid, Recurrent
from recurra.learning import BPTT, EvolutionStrategy, TruncatedBPTT, search
from recurra.testing import Setting, check_cell, check_engine, check_rule, laws
from recurra.testing.law import Seen
from recurra.testing.settings import drawn_setting, instances
from recurra.wrappers import Zoneout

CELLS = hostile_cells()
ENGINES = dict(instances("engines"))
RULES = dict(instances("rules"))


@pytest.mark.parametrize("seed", ["one", "another"])
@pytest.mark.parametrize("name", CELLS)
def test_laws_of_cells(name: str, seed: str):
    check_cell(CELLS[name], drawn_setting(name, seed))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CELLS)
def test_laws_of_engines(name: str, engine: str):
    check_engine(ENGINES[engine], CELLS[name], drawn_setting(name, engine))


SHORT = {"BPTT", "RTRL", "UORO"}  # of every kind of rule one by default: backwards, forwards, at random


@pytest.mark.parametrize("rule", [pytest.param(r, marks=[] if r in SHORT else [pytest.mark.slow]) for r in RULES])
@pytest.mark.parametrize("name", CELLS)
def test_laws_of_rules(name: str, rule: str):
    check_rule(RULES[rule], CELLS[name], drawn_setting(name, rule))


def test_a_surrogate_is_exempt_with_its_reason_wherever_the_cell_stands():
    for name in ("Spiking-0", "Stack of hostile cells"):
        outcome = next(o for o in check_cell(CELLS[name]) if o.law == "gradcheck")
        assert outcome.status == "exempt"
        assert "surrogate" in outcome.reason
    law = next(law for law in laws("cells") if law.name == "gradcheck")
    with pytest.raises(Seen, match="is not its difference quotient"):  # the exemption is needed
        law.check(CELLS["Spiking-0"], Setting())


def test_scheduled_sampling_lies_between_free_running_and_teacher_forcing():
    torch.manual_seed(0)
    layer = Recurrent(JordanCell(2, 4, 3).double())
    xs, forced = torch.randn(9, 3, 2).double(), torch.randn(9, 3, 3).double()
    mask = torch.rand(9, 3) < 0.5
    free, _ = layer(xs)
    taught, _ = layer(xs, forced=forced)
    mixed, state = layer(xs, forced=forced, force_mask=mask)

    now, wanted = layer.cell.initial_state(3), []
    for t in range(9):
        y, now = layer.cell(xs[t], now)
        now = now._replace(feedback=torch.where(mask[t][:, None], forced[t], now.feedback))
        wanted.append(y)
    torch.testing.assert_close(mixed, torch.stack(wanted))
    torch.testing.assert_close(state, now)
    none, every = torch.zeros_like(mask), torch.ones_like(mask)
    torch.testing.assert_close(layer(xs, forced=forced, force_mask=none)[0], free)
    torch.testing.assert_close(layer(xs, forced=forced, force_mask=every)[0], taught)


def test_clockwork_keeps_time_across_chunks():
    torch.manual_seed(0)
    layer = Recurrent(next(ClockworkCell.examples()).double())
    xs = torch.randn(11, 2, layer.cell.input_size).double()
    whole, last = layer(xs)
    first, state = layer(xs[:5])
    rest, end = layer(xs[5:], state)
    torch.testing.assert_close(torch.cat([first, rest]), whole)
    torch.testing.assert_close(end, last)
    assert any(not leaf.is_floating_point() for leaf in tree.leaves(last))


def test_zoneout_noise_is_data_and_the_same_on_every_engine():
    torch.manual_seed(0)
    cell = Zoneout(LSTMCell(2, 3), {"h": 0.2, "c": 0.5}).double()
    xs = torch.randn(13, 4, 2).double()
    noisy = Noisy(xs, cell.draw(13, 4, torch.Generator().manual_seed(1)))
    wanted = Loop()(cell, noisy)
    for engine in (Hoisted(), Checkpointed(3)):
        torch.testing.assert_close(engine(cell, noisy), wanted)
    once, again = (Recurrent(cell)(xs, generator=torch.Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, Recurrent(cell)(xs, generator=torch.Generator().manual_seed(6))[0])


@pytest.mark.parametrize("slots", [1, 3, 7])
@pytest.mark.parametrize("engine", [Loop(), Hoisted(), Checkpointed(2)], ids=str)
def test_attention_reads_a_memory_of_any_length(slots: int, engine):
    torch.manual_seed(0)
    cell = AttentionDecoderCell(2, 4, 3, 5).double()
    memory = torch.randn(2, slots, 3).double().requires_grad_()
    mask = torch.ones(2, slots, dtype=torch.bool)
    mask[1, 1:] = False
    start = cell.initial_state(2)._replace(memory=memory, mask=mask)
    xs, tokens = torch.randn(6, 2, 2).double(), torch.randint(0, 5, (6, 2))
    reset = torch.zeros(6, 2, dtype=torch.bool)
    reset[3] = True
    ys, last = Recurrent(cell, engine)(xs, start, forced=tokens, reset=reset)
    assert last.memory is memory
    assert last.mask is mask
    again, _ = Recurrent(cell, Loop())(xs[3:], start, forced=tokens[3:])
    torch.testing.assert_close(ys[3:], again)  # the memory outlives a reset
    (gradient,) = torch.autograd.grad(ys.sum(), memory)
    assert gradient[0].abs().sum() > 0
    assert not gradient[1, 1:].any()  # what the mask leaves out


def test_attention_learns_with_teacher_forcing_and_decodes_freely():
    """Copying four symbols out of a memory; a clock says which slot is next."""
    torch.manual_seed(0)
    cell = AttentionDecoderCell(4, 16, 9, 5)
    optimizer = torch.optim.Adam(cell.parameters(), 0.02)
    clock = torch.eye(4)[:, None].expand(4, 16, 4)

    def task():
        tokens = torch.randint(1, 5, (4, 16))
        memory = torch.cat([torch.nn.functional.one_hot(tokens, 5).float(), clock], -1).transpose(0, 1)
        mask = torch.ones(16, 4, dtype=torch.bool)
        return tokens, cell.initial_state(16)._replace(memory=memory, mask=mask)

    for _ in range(300):
        tokens, start = task()
        ys, _ = Recurrent(cell)(clock, start, forced=tokens)
        loss = CrossEntropy().per_step(ys, tokens).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, start = task()
    with torch.no_grad():
        free, _ = Recurrent(cell)(clock, start)
    assert (free.argmax(-1) == tokens).float().mean() > 0.6  # chance is 0.25


def test_nested_state_of_a_turing_machine_goes_through_bptt_and_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    cell = TuringCell(2, 3, 4, 2)
    chunk = Chunk(torch.randn(6, 2, 2), torch.randn(6, 2, 3))
    rule = TruncatedBPTT(k1=2, k2=4)
    carry, _ = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
    save_file(dict(zip(tree.names(carry.state), (s.contiguous() for s in tree.leaves(carry.state)))), tmp_path / "s")
    stored = load_file(tmp_path / "s")
    state = tree.unflatten(carry.state, [stored[name] for name in tree.names(carry.state)])
    assert "controller.c" in stored
    _, one = rule.step(cell, carry, chunk, MeanSquaredError())
    _, two = rule.step(cell, carry._replace(state=state), chunk, MeanSquaredError())
    assert torch.equal(one.direction["interface.weight"], two.direction["interface.weight"])


def test_a_search_trains_the_spiking_cell():
    torch.manual_seed(0)
    layer = Recurrent(SpikingCell(2, 4), Loop())
    xs = torch.randn(12, 8, 2)
    with torch.no_grad():
        goal = Recurrent(SpikingCell(2, 4), Loop())(xs)[0]

    def fitness(call):
        return -(call(xs)[0] - goal).square().mean()

    history = search(layer, EvolutionStrategy(population=32, sigma=0.3, lr=0.3), fitness, 30)
    assert float(history[-5:].mean()) > float(history[:5].mean())
    with torch.no_grad():
        assert float(fitness(layer)) > float(history[0])


def test_bptt_trains_the_spiking_cell_through_its_surrogate():
    torch.manual_seed(0)
    cell, rule = SpikingCell(2, 4), BPTT()
    xs = torch.randn(12, 8, 2)
    with torch.no_grad():
        goal = Recurrent(SpikingCell(2, 4))(xs)[0]
    optimizer, losses, carry = torch.optim.Adam(cell.parameters(), 0.05), [], rule.init(cell, 8)
    for _ in range(60):
        carry, estimate = rule.step(cell, carry, Chunk(xs, goal), MeanSquaredError())
        for name, p in cell.named_parameters():
            p.grad = estimate.direction[name] / estimate.weight
        optimizer.step()
        losses.append(float(estimate.loss / estimate.weight))
    assert losses[-1] < 0.7 * losses[0]


def test_irregular_times_meet_the_exact_solution():
    """With U = 0 the cell is ``dh/dt = target - h``; gaps may differ from row to row, and splitting a gap changes nothing."""
    torch.manual_seed(0)
    cell = ODECell(2, 3, RK4(20)).double()
    with torch.no_grad():
        cell.weight_hh.zero_()
    x, gaps = torch.randn(4, 2).double(), torch.rand(5, 4).double()
    ys, _ = Recurrent(cell)(Timed(x.expand(5, 4, 2), gaps))
    target = torch.tanh(x @ cell.weight_ih.T)
    wanted = target * (1 - torch.exp(-gaps.cumsum(0)))[..., None]
    torch.testing.assert_close(ys, wanted, rtol=1e-7, atol=1e-7)


def grid_layers(**options: bool) -> list[Grid]:
    """Both examples, in float64."""
    torch.manual_seed(0)
    return [Grid(cell.double(), **options) for cell in GridLSTMCell.examples()]


@pytest.mark.parametrize("layer", grid_layers(), ids=["plain", "learned edge"])
def test_grid(layer: Grid):
    """Wavefront, causality, strips, padding, resets, functional_call, vmap, gradients."""
    cell, size = layer.cell, layer.cell.input_size
    xs = torch.randn(4, 5, 3, size).double()
    ys, last = layer(xs)
    torch.testing.assert_close(Grid(cell, wavefront=False)(xs), (ys, last))

    later = xs.clone()
    later[2, 3] += 1
    changed = (layer(later)[0] != ys).any(-1).any(-1)
    assert not changed[:2].any()
    assert not changed[:, :3].any()
    assert changed[2:, 3:].all()

    above, row = layer(xs[:1])
    below, end = layer(xs[1:], row)
    torch.testing.assert_close((torch.cat([above, below]), end), (ys, last))

    sizes = torch.tensor([[4, 5], [2, 3], [0, 5]])
    spoilt = xs.clone()
    spoilt[2:, :, 1], spoilt[:, 3:, 1], spoilt[:, :, 2] = torch.nan, torch.nan, torch.nan
    padded, _ = layer(spoilt.requires_grad_(), sizes=sizes)
    torch.testing.assert_close(padded[:, :, 0], ys[:, :, 0])
    torch.testing.assert_close(padded[:2, :3, 1], layer(xs[:2, :3, 1:2])[0][:, :, 0])
    assert not padded[2:, :, 1].any()
    assert not padded[:, 3:, 1].any()
    assert not padded[:, :, 2].any()
    gradients = torch.autograd.grad(padded.sum(), [spoilt, *cell.parameters()])
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert not gradients[0][:, :, 2].any()

    reset = torch.zeros(4, 3, dtype=torch.bool)
    reset[2, 1] = True
    restarted, _ = layer(xs, reset=reset)
    torch.testing.assert_close(restarted[:, :, ::2], ys[:, :, ::2])
    torch.testing.assert_close(restarted[2:, :, 1], layer(xs[2:, :, 1:2])[0][:, :, 0])

    members = [{n: p.detach() + 0.1 * i for n, p in layer.named_parameters()} for i in range(2)]
    stacked = {n: torch.stack([m[n] for m in members]) for n in members[0]}
    found = vmap(lambda p: functional_call(layer, p, (xs,))[0])(stacked)
    for one, member in zip(found, members):
        torch.testing.assert_close(one, functional_call(layer, member, (xs,))[0])


def test_grid_gradients():
    layer = grid_layers()[0]
    xs = torch.randn(3, 2, 2, 2).double().requires_grad_()
    parameters = dict(layer.named_parameters())

    def run(x, *values):
        ys, last = functional_call(layer, dict(zip(parameters, values)), (x,))
        return ys, *last

    assert torch.autograd.gradcheck(run, (xs, *parameters.values()), fast_mode=True)


def test_grid_trains_by_bptt():
    """`BPTT` takes any module: the sum over a picture, learned from its pixels."""
    torch.manual_seed(0)
    layer, rule = Grid(GridLSTMCell(1, 4)), BPTT()
    xs = torch.randn(3, 3, 16, 1)
    goal = xs.cumsum(0).cumsum(1).expand(3, 3, 16, 4).tanh()
    optimizer, losses = torch.optim.Adam(layer.parameters(), 0.05), []
    for _ in range(40):
        _, estimate = rule.step(layer, rule.init(layer, 16), Chunk(xs, goal), MeanSquaredError())
        for name, p in layer.named_parameters():
            p.grad = estimate.direction[name] / estimate.weight
        optimizer.step()
        losses.append(float(estimate.loss / estimate.weight))
    assert losses[-1] < 0.5 * losses[0]


def test_streams_of_a_stack_of_hostile_cells_end_where_the_whole_ends():
    stack = CELLS["Stack of hostile cells"].double().eval()
    xs = torch.randn(9, 3, 2).double()
    lengths = torch.tensor([9, 0, 4])
    whole, last = Recurrent(stack)(xs, lengths=lengths)
    first, state = Recurrent(stack)(xs[:5], lengths=lengths.clamp(max=5))
    rest, end = Recurrent(stack)(xs[5:], state, lengths=Controls(lengths).window(5, 9).lengths)
    torch.testing.assert_close(torch.cat([first, rest]), whole)
    torch.testing.assert_close(end, last)
