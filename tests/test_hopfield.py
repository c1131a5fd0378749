"""Hopfield networks: rules, dynamics, energies, dreams, messages."""

import math

import pytest
import torch
from torch import Tensor

from recurra.memories import BinaryHopfield, Hopfield, StochasticHopfield, SynchronousHopfield
from recurra.memories.couplings import (
    Bounded,
    Clipped,
    Fading,
    Hebb,
    OptimalStability,
    PseudoInverse,
    Sequence,
    Storkey,
)
from recurra.memories.hopfield import HopfieldState
from recurra.memories.updates import all_at_once, glauber, relax


def drawn(memory, count: int, seed: int = 0) -> Tensor:
    return memory.draw(count, torch.Generator().manual_seed(seed))


def noisy(patterns: Tensor, flips: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(patterns.shape, generator=generator).topk(flips, dim=1).indices
    return patterns.scatter(1, places, -patterns.gather(1, places))


# --- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Hebb(), Clipped(), Bounded(2), Fading(0.9), Storkey(), PseudoInverse()], ids=repr)
def test_couplings_are_symmetric_without_diagonal_and_do_not_depend_on_how_patterns_come(rule) -> None:
    memory = Hopfield(30, rule)
    patterns = drawn(memory, 6)
    state = memory.write(memory.empty(), patterns)
    parts = memory.write(memory.write(memory.empty(), patterns[:2]), patterns[2:])
    assert torch.equal(state.couplings, state.couplings.T)
    assert not state.couplings.diagonal().any()
    torch.testing.assert_close(parts.couplings, state.couplings, rtol=0, atol=1e-6)


def test_hebb_bounded_fading_and_sequences_by_hand() -> None:
    x, y = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    both = torch.stack([x, y, y])
    off = 1 - torch.eye(3)
    assert torch.equal(Hebb().couplings(both), off * (torch.outer(x, x) + 2 * torch.outer(y, y)))
    assert torch.equal(Clipped().couplings(both), off)
    clamped = (torch.outer(x, x) + torch.outer(y, y)).clamp(-1, 1)
    assert torch.equal(Bounded(1).couplings(both), off * (clamped + torch.outer(y, y)).clamp(-1, 1))
    faded = (0.25 * torch.outer(x, x) + 1.5 * torch.outer(y, y)) / 3
    torch.testing.assert_close(Fading(0.5).couplings(both.double()), (off * faded).double(), rtol=0, atol=1e-6)
    pair = torch.stack([x, y])
    assert torch.equal(Sequence(cyclic=False).couplings(pair), off * torch.outer(y, x))
    called = torch.outer(y, x) + torch.outer(x, y)
    held = torch.outer(x, x) + torch.outer(y, y)
    assert torch.equal(Sequence(holding=2, advance=3).couplings(pair), off * (2 * held + 3 * called))


def test_storkey_is_its_formula() -> None:
    memory = Hopfield(7)
    patterns = drawn(memory, 3).double()
    weights = torch.zeros(7, 7).double()
    for x in patterns:
        before = weights.clone()
        for i in range(7):
            for j in range(7):
                if i == j:
                    continue
                h_ij = sum(before[i, k] * x[k] for k in range(7) if k not in (i, j))
                h_ji = sum(before[j, k] * x[k] for k in range(7) if k not in (i, j))
                weights[i, j] += (x[i] * x[j] - x[i] * h_ji - h_ij * x[j]) / 7
    torch.testing.assert_close(Storkey().couplings(patterns), weights, rtol=0, atol=1e-12)


def test_pseudo_inverse_keeps_correlated_patterns_that_hebb_loses() -> None:
    generator = torch.Generator().manual_seed(0)
    patterns = 2.0 * (torch.rand(40, 100, generator=generator) < 0.8) - 1
    kept = {}
    for rule in (Hebb(), PseudoInverse()):
        memory = Hopfield(100, rule)
        recall = memory.read(memory.write(memory.empty(), patterns), patterns)
        kept[type(rule)] = float((recall.value == patterns).all(1).double().mean())
    assert kept[PseudoInverse] == 1.0
    assert kept[Hebb] < 0.1


def test_optimal_stability_finds_the_largest_margin() -> None:
    """Every pattern keeps the margin 1, those whose strength is not 0 exactly so: the conditions of the optimum."""
    memory = StochasticHopfield(40, OptimalStability(num_sweeps=3000, tolerance=1e-9), temperature=0.0)
    patterns = drawn(memory, 30).double()
    couplings = memory.rule.couplings(patterns)
    margins = patterns * (patterns @ couplings.T)
    assert float(margins.min()) > 1 - 1e-6
    for unit in range(3):
        products = patterns[:, unit : unit + 1] * patterns
        products[:, unit] = 0
        tight = margins[:, unit] < 1 + 1e-6
        strengths = torch.linalg.lstsq(products[tight].T, couplings[unit][:, None]).solution[:, 0]
        assert float(strengths.min()) > -1e-6
        torch.testing.assert_close(products[tight].T @ strengths, couplings[unit], rtol=0, atol=1e-6)


def test_a_palimpsest_keeps_what_is_new_where_hebb_loses_everything() -> None:
    patterns = drawn(Hopfield(100), 60)
    kept = {}
    for rule in (Hebb(), Bounded(3), Fading(0.9)):
        memory = Hopfield(100, rule)
        recall = memory.read(memory.write(memory.empty(), patterns), patterns)
        overlap = (recall.value * patterns).mean(1)
        kept[type(rule)] = float((overlap[-3:] > 0.9).double().mean()), float((overlap[:40] > 0.9).double().mean())
    assert kept[Hebb][0] < 0.5
    assert kept[Bounded] == (1.0, 0.0)
    assert kept[Fading] == (1.0, 0.0)


# --- dynamics -----------------------------------------------------------------------------------------------------


def test_fields_are_the_same_through_patterns_and_couplings() -> None:
    memory = Hopfield(50)
    state = memory.write(memory.empty(), drawn(memory, 7))
    spins = drawn(memory, 4, seed=3).to(torch.int8)
    assert torch.equal(memory.fields(state, spins), spins.float() @ state.couplings)
    forgotten = state._replace(patterns=state.patterns[:0], unlearned=torch.zeros(50, 50))
    assert torch.equal(memory.fields(forgotten, spins), spins.double() @ state.couplings.double())


def test_every_change_lowers_the_energy_by_twice_the_field() -> None:
    memory = Hopfield(60, max_sweeps=50)
    state = memory.write(memory.empty(), drawn(memory, 15))
    path = memory.trajectory(state, drawn(memory, 5, seed=2))
    changed = (path[1:] != path[:-1]).sum(-1)
    assert int(changed.max()) == 1
    for before, after, some in zip(path[:-1], path[1:], changed):
        fields = memory.fields(state, before.to(torch.int8)).double() / 60
        drop = memory.energy(state, before) - memory.energy(state, after)
        expected = (2 * fields.abs() * (before != after)).sum(-1)
        torch.testing.assert_close(drop, expected, rtol=0, atol=1e-12)
        assert bool((drop[some > 0] > 0).all())


def test_a_unit_without_a_field_stays_and_an_unknown_one_takes_part_once_it_feels_one() -> None:
    memory = Hopfield(4)
    pair = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
    state = memory.write(memory.empty(), pair)
    mixed = torch.tensor([[1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    recall = memory.read(state, mixed)
    assert recall.value[1].tolist() == [0, 0, 0, 0]
    assert recall.value[2].tolist() == [1, 1, 0, 0]
    assert recall.converged.all()
    assert recall.steps.tolist()[1:] == [0, 1]


def test_machine_code_does_what_the_readable_loops_do() -> None:
    memory = Hopfield(20)
    state = memory.write(memory.empty(), drawn(memory, 6))
    for loop in ("relax", "glauber"):
        found = []
        for call in (relax, relax.python) if loop == "relax" else (glauber, glauber.python):
            spins = drawn(memory, 5, seed=4).to(torch.int8)
            fields = memory.fields(state, spins).double().contiguous()
            steps, still = torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
            path = torch.zeros(5, 9, dtype=torch.int64)
            generator = torch.Generator().manual_seed(5)
            if loop == "relax":
                order = torch.randperm(20, generator=generator)
                call(state.couplings, order, fields, spins, steps, still, path, 100)
            else:
                turns = torch.randint(0, 20, (200,), generator=generator)
                chances = torch.rand(200, generator=generator, dtype=torch.float64)
                call(state.couplings, turns, chances, fields, spins, steps, 3.0)
            found.append((spins, fields, steps, still, path))
        for fast, slow in zip(*found):
            assert torch.equal(fast, slow)
        assert int(found[0][2].min()) > 0


def test_one_sweep_is_not_enough_to_say_that_it_stands_still() -> None:
    memory = Hopfield(60, max_sweeps=1)
    state = memory.write(memory.empty(), drawn(memory, 15))
    recall = memory.read(state, drawn(memory, 20, seed=2))
    assert not recall.converged.all()


def test_synchronous_recall_is_the_sign_of_the_product_to_the_end_or_into_a_cycle_of_two() -> None:
    memory = SynchronousHopfield(40)
    state = memory.write(memory.empty(), drawn(memory, 9))
    cues = drawn(memory, 30, seed=7)
    recall = memory.read(state, cues)
    path = memory.trajectory(state, cues, 60)
    weights = state.couplings
    for row in range(len(cues)):
        value, steps = cues[row], 0
        seen = [value]
        while True:
            field = weights @ value
            value = torch.where(field == 0, value, field.sign())
            if torch.equal(value, seen[-1]):
                break
            steps += 1
            if len(seen) > 1 and torch.equal(value, seen[-2]):
                break
            seen.append(value)
        assert torch.equal(recall.value[row], value)
        assert int(recall.steps[row]) == steps
        assert bool(recall.converged[row]) == torch.equal(value, seen[-1])
        assert torch.equal(path[min(steps, 60), row], value)
    assert not recall.converged.all()
    assert torch.equal(path[59], path[57])


def test_the_fused_loop_does_what_the_readable_steps_do() -> None:
    """Half-known cues and more patterns than fit, through machine code, Python, and products with the couplings."""
    memory = SynchronousHopfield(60)
    state = memory.write(memory.empty(), drawn(memory, 13))
    cues = torch.cat([drawn(memory, 12, seed=7), torch.where(torch.arange(60) < 25, 0.0, state.patterns.float())])
    fast = memory.read(state, cues)
    for other in (memory._read_through_couplings(state, cues), memory.read(state, cues.double())):
        assert torch.equal(other.value.float(), fast.value)
        assert torch.equal(other.steps, fast.steps)
        assert torch.equal(other.converged, fast.converged)
    assert not fast.converged.all()
    few = cues[:6].contiguous()
    patterns = torch.zeros(16, 60)
    patterns[:13] = state.patterns
    value, room = torch.empty_like(few), torch.empty(1, 4, 60)
    steps, still, wrong = (torch.zeros(6, dtype=torch.int64) for _ in range(3))
    all_at_once.python(patterns, state.couplings, 13.0, few, value, room, steps, still, wrong, 1000)
    assert torch.equal(value, fast.value[:6])
    assert torch.equal(steps, fast.steps[:6])
    assert torch.equal(still.bool(), fast.converged[:6])
    with pytest.raises(
        ValueError, match=r"^SynchronousHopfield: patterns must be -1 and \+1, got numbers from -1 to 2\."
    ):
        memory.read(state, torch.where(cues[:1] > 0, 2.0, cues[:1]))


def test_synchronous_recall_stops_at_max_steps() -> None:
    memory = SynchronousHopfield(40, max_steps=1)
    state = memory.write(memory.empty(), drawn(memory, 9))
    cues = drawn(memory, 30, seed=7)
    recall = memory.read(state, cues)
    assert torch.equal(recall.value, memory.step(state, cues))
    assert not recall.converged.any()


def test_glauber_reaches_the_law_of_equilibrium() -> None:
    """Six units, many independent chains, compared with enumeration."""
    memory = StochasticHopfield(6)
    state = memory.write(memory.empty(), drawn(memory, 3))
    couplings = state.couplings.double() / 6
    rows = torch.arange(64)
    every = (2 * ((rows[:, None] >> torch.arange(6)) & 1) - 1).double()
    energies = -0.5 * ((every @ couplings) * every).sum(-1)
    weights = torch.softmax(-energies / 0.8, 0)
    counts = torch.zeros(64).double()
    num_chains = 1500
    for seed in range(num_chains):  # the rows of one read share their chances, so one row each
        chain = StochasticHopfield(6, temperature=0.8, num_sweeps=6, seed=seed)
        value = chain.read(state, drawn(memory, 1, seed=seed)).value[0]
        counts[int(((value > 0).long() << torch.arange(6)).sum())] += 1
    chi = float(((counts - num_chains * weights) ** 2 / (num_chains * weights)).sum())
    assert chi < 63 + 5 * math.sqrt(2 * 63)


def test_at_temperature_zero_it_follows_the_fields() -> None:
    memory = StochasticHopfield(100, Sequence(holding=0, advance=1), temperature=0.0, num_sweeps=1)
    patterns = drawn(memory, 2)
    state = memory.write(memory.empty(), patterns)
    assert not torch.equal(memory.read(state, patterns[:1]).value, patterns[:1])
    quiet = StochasticHopfield(100, temperature=0.0)
    held = quiet.write(quiet.empty(), patterns)
    recall = quiet.read(held, noisy(patterns, 20))
    assert torch.equal(recall.value, patterns)
    assert recall.converged.all()
    assert recall.steps.tolist() == [20, 20]
    assert torch.equal(quiet.trajectory(held, patterns)[-1], patterns)


def test_binary_units_are_bipolar_ones_in_a_field() -> None:
    memory = BinaryHopfield(40)
    patterns = drawn(memory, 3)
    state = memory.write(memory.empty(), patterns)
    cues = drawn(memory, 6, seed=2)
    value = memory.read(state, cues).value
    for unit in range(40):  # nothing that the paper's rule would change
        field = value @ state.couplings[:, unit]
        assert bool(((field <= 0) | (value[:, unit] == 1)).all())
        assert bool(((field >= 0) | (value[:, unit] == 0)).all())
    energy = -0.5 * torch.einsum("bi,ij,bj->b", value, state.couplings, value) / 40
    torch.testing.assert_close(memory.energy(state, value).float(), energy)
    unknown = torch.where(torch.arange(40) < 10, 0.5, patterns)
    assert torch.equal(memory.read(state, unknown).value, patterns)


def test_a_system_of_spins_has_the_same_energy() -> None:
    memory = Hopfield(20)
    state = memory.write(memory.empty(), drawn(memory, 4))
    spins = drawn(memory, 5, seed=2)
    torch.testing.assert_close(memory.system(state).energy(spins), memory.energy(state, spins))
    binary = BinaryHopfield(20)
    units = (spins + 1) / 2
    gap = binary.system(state).energy(spins) - binary.energy(state, units)
    torch.testing.assert_close(gap, gap[:1].expand(5))
    loose = StochasticHopfield(20, Sequence())
    turning = loose.write(loose.empty(), drawn(memory, 4))
    with pytest.raises(ValueError, match="couplings must be symmetric"):
        loose.system(turning)


# --- forgetting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Hebb(), Bounded(1), Storkey(), PseudoInverse()], ids=repr)
def test_erasing_gives_the_couplings_of_the_rest(rule) -> None:
    memory = Hopfield(30, rule)
    patterns = drawn(memory, 5)
    state = memory.write(memory.empty(), patterns)
    left = memory.erase(state, patterns[[1, 3]])
    rest = memory.write(memory.empty(), patterns[[0, 2, 4]])
    assert torch.equal(left.patterns, rest.patterns)
    torch.testing.assert_close(left.couplings, rest.couplings, rtol=0, atol=1e-6)


def test_dreams_make_room() -> None:
    """Unlearning raises the number of patterns that are reached exactly; what was learned afterwards stays."""
    memory = Hopfield(60)
    patterns = drawn(memory, 12)
    state = memory.write(memory.empty(), patterns)
    dreamt = memory.unlearn(state, 200, rate=0.02, generator=torch.Generator().manual_seed(0))
    before, after = (memory.overlaps(s, memory.read(s, patterns).value).diagonal() for s in (state, dreamt))
    assert float(after.mean()) > float(before.mean()) + 0.02
    assert float((after == 1).double().mean()) > float((before == 1).double().mean())
    same = memory.erase(memory.write(dreamt, drawn(memory, 1, seed=9)), drawn(memory, 1, seed=9))
    torch.testing.assert_close(same.couplings, dreamt.couplings, rtol=0, atol=1e-5)
    again = memory.unlearn(memory.unlearn(state, 3, generator=torch.Generator().manual_seed(1)), 0)
    assert torch.equal(again.unlearned, again.couplings - state.couplings)


@pytest.mark.parametrize("kind", [Hopfield, BinaryHopfield, SynchronousHopfield, StochasticHopfield])
def test_what_stores_nothing_changes_nothing(kind) -> None:
    memory = kind(20) if kind is not StochasticHopfield else kind(20, temperature=0.0)
    cues = drawn(memory, 3)
    recall = memory.read(memory.empty(), cues)
    assert torch.equal(recall.value, cues)
    assert recall.steps.tolist() == [0, 0, 0]
    assert recall.converged.all()
    assert memory.read(memory.empty(), cues[:0]).value.shape == (0, 20)


def test_binary_units_take_booleans_and_bytes() -> None:
    memory = BinaryHopfield(60)
    patterns = drawn(memory, 2)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float64):
        recall = memory.read(memory.write(memory.empty(), patterns.to(dtype)), patterns.to(dtype))
        assert recall.value.dtype == dtype
        assert torch.equal(recall.value.float(), patterns)


def test_the_state_is_whole_numbers_for_hebb() -> None:
    memory = Hopfield(30)
    state = memory.write(memory.empty(), drawn(memory, 5))
    assert isinstance(state, HopfieldState)
    assert torch.equal(state.couplings, state.couplings.round())


# --- messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hopfield(0), "Hopfield: size must be at least 1, got 0."),
        (lambda: Hopfield(4, "hebb"), "Hopfield: rule must be a CouplingRule, got 'hebb'."),
        (lambda: Hopfield(4, Sequence()), "Hopfield: rule must be symmetric, got Sequence"),
        (lambda: Hopfield(4, order=(0, 1, 2)), "Hopfield: order must be every unit from 0 to 3 once, got 3 units."),
        (lambda: StochasticHopfield(4, temperature=-1), "temperature must be at least 0, got -1."),
        (lambda: Bounded(0), "Bounded: bound must be at least 1, got 0."),
        (lambda: Fading(0.0), "Fading: decay must be above 0 and at most 1, got 0.0."),
        (lambda: OptimalStability(rate=2.0), "OptimalStability: rate must be between 0 and 2, got 2.0."),
    ],
)
def test_arguments(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make()
    assert message in str(caught.value)


def test_patterns_that_do_not_fit() -> None:
    memory = Hopfield(4)
    state = memory.empty()
    with pytest.raises(ValueError, match=r"^Hopfield: keys must be \(M, 4\), got \(1, 5\)\."):
        memory.write(state, torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"^Hopfield: patterns must be -1 and \+1, got numbers from 2 to 2\."):
        memory.write(state, 2 * torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^Hopfield: keys must be -1 and \+1, got unknown units\."):
        memory.write(state, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="It stores no pairs"):
        memory.write(state, torch.ones(1, 4), -torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^Hopfield: keys\[0\] must be a stored pattern, got another\."):
        memory.erase(state, torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^BinaryHopfield: patterns must be 0 and 1, got numbers from -1 to -1\."):
        BinaryHopfield(4).write(state, -torch.ones(1, 4))
    with pytest.raises(TypeError, match=r"^Hopfield: patterns must be -1 and \+1, got booleans\. BinaryHopfield takes"):
        memory.write(state, torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^SynchronousHopfield: cue must be \(M, 4\)"):
        SynchronousHopfield(4).read(state, torch.ones(4))
