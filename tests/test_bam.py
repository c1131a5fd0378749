"""Bidirectional associative memories, against Kosko's example and against enumeration."""

from __future__ import annotations

import pytest
import torch

from recurra.core.spins import configurations
from recurra.memories import BAM, AdaptiveBAM, BinaryBAM, ContinuousBAM
from recurra.memories.bam import BAMPair
from recurra.memories.graded_bam import GradedPair
from recurra.memories.jump_bam import JumpBAM, second_moment_rate

KEYS = torch.tensor([[1.0, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]])
VALUES = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])


def stored() -> tuple[BinaryBAM, torch.Tensor]:
    memory = BinaryBAM(6, 4)
    return memory, memory.write(memory.empty(), KEYS, VALUES)


def test_the_matrix_of_koskos_example():
    _, matrix = stored()
    up, down = [2.0, 0, 0, -2], [-2.0, 0, 0, 2]
    assert matrix.tolist() == [up, [0, -2, 2, 0], up, down, [0, 2, -2, 0], down]


def test_every_start_of_koskos_example_converges_to_a_stable_pair():
    memory, matrix = stored()
    starts = (configurations(6) + 1).float() / 2
    recall = memory.read(matrix, starts)
    assert bool(recall.converged.all())
    assert int(recall.steps.max()) <= 2
    again = memory.read_back(matrix, recall.value)
    assert torch.equal(memory.read(matrix, again.value).value, recall.value)
    assert memory.read(matrix, torch.tensor([[0.0, 1, 1, 0, 0, 0]])).value.tolist() == VALUES[1:].tolist()


def test_what_is_recalled_is_a_minimum_in_each_layer():
    memory = BAM(5, 4)
    matrix = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    path = memory.trajectory(matrix, configurations(5).float())
    x, y = path.keys[-1], path.values[-1]
    lowest = torch.stack(
        [memory.energy(matrix, BAMPair(x, other.expand(len(x), -1).float())) for other in configurations(4)]
    )
    assert torch.allclose(memory.energy(matrix, BAMPair(x, y)), lowest.amin(0))


def test_a_unit_that_hears_nothing_stays():
    memory = BAM(3, 2)
    recall = memory.read(memory.empty(), torch.ones(1, 3))
    assert recall.value.tolist() == [[0.0, 0.0]]
    assert recall.converged.tolist() == [True]


def test_bam_messages():
    with pytest.raises(
        ValueError, match=r"^BinaryBAM: cue must be of 0 and 1, got a -1\. Turn -1 and \+1 into 0 and 1 with"
    ):
        BinaryBAM(2, 2).read(torch.zeros(2, 2), torch.tensor([[-1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"^BAM: values must be \(rows, 2\), got \(1, 3\)\."):
        BAM(3, 2).write(torch.zeros(3, 2), torch.ones(1, 3))


# --- graded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ContinuousBAM, AdaptiveBAM])
def test_energy_falls_at_every_step_up_to_dt_of_tau(kind):
    memory = kind(7, 5, gain=3.0, dt_s=1.0, tau_s=1.0, max_time_s=40.0)
    matrix = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cues = 2 * torch.rand(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    path = memory.trajectory(matrix, cues)
    heights = torch.stack([memory.energy(matrix, GradedPair(*leaves)) for leaves in zip(*path)])
    assert len(heights) > 4
    assert float((heights[1:] - heights[:-1]).max()) <= 1e-9


def test_at_high_gain_the_continuous_memory_is_the_discrete_one():
    graded, plain = ContinuousBAM(30, 20, gain=500.0), BAM(30, 20)
    keys, values = plain.draw_pairs(3, torch.Generator().manual_seed(2))
    cues = keys * torch.where(torch.arange(30) < 4, -1.0, 1.0)
    ours = graded.read(graded.write(graded.empty(), keys, values), cues.double())
    theirs = plain.read(plain.write(plain.empty(), keys, values), cues)
    assert torch.allclose(ours.value.float(), theirs.value, atol=1e-4)


def test_the_adaptive_memory_keeps_what_noisy_samples_have_in_common():
    memory = AdaptiveBAM(40, 30, pulse_s=2.0)
    generator = torch.Generator().manual_seed(0)
    keys, values = memory.draw_pairs(2, generator)
    which = torch.randint(0, 2, (300,), generator=generator)
    noisy = [
        torch.where(torch.rand(300, t.shape[1], generator=generator) < 0.2, -t[which], t[which]) for t in (keys, values)
    ]
    state = memory.write(memory.empty(), *noisy)
    assert torch.allclose(memory.read(state, keys).value, values, atol=1e-3)


def test_resonance_digs_its_own_well():
    memory = AdaptiveBAM(40, 30, tau_memory_s=20.0)
    keys, values = memory.draw_pairs(2, torch.Generator().manual_seed(0))
    before = memory.write(memory.empty(), keys, values)
    recall, after = memory.resonate(before, keys[:1])

    def strength(matrix: torch.Tensor, row: int) -> float:
        return float(keys[row] @ matrix @ values[row] / memory.norm)

    assert bool(recall.converged)
    assert strength(after, 0) > strength(before, 0)
    assert strength(after, 1) < strength(before, 1)


# --- stochastic -------------------------------------------------------------------------------------------------


def jumping(**changes) -> JumpBAM:
    generator = torch.Generator().manual_seed(3)
    modes, keys, values, n = 2, 2, 2, 4

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = {
        "decay_keys": torch.tensor([[2.0, 2.5], [1.5, 2.0]]),
        "decay_values": torch.tensor([[2.0, 2.2], [1.8, 2.4]]),
        "to_keys": 0.4 * normal(modes, keys, values),
        "to_values": 0.4 * normal(modes, values, keys),
        "jumps": torch.tensor([[-1.0, 1.0], [2.0, -2.0]]),
        "noise": 0.2 * normal(modes, n, n),
        **changes,
    }
    return JumpBAM(**arguments)


def test_without_delay_the_certificate_is_below_the_exact_rate_and_near_it():
    system = jumping()
    exact, found, norms = second_moment_rate(system), system.certify(150), system.certify(0)
    assert norms.rate < found.rate <= exact
    assert found.rate > 0.5 * exact


def test_the_exact_rate_of_one_unit():
    """dz = -a z dt + s z dw: E z^2 falls with 2 a - s^2; an impulse z -> j z every D adds -ln(j^2) / D."""
    unit = torch.ones(1, 1, 1, dtype=torch.float64)
    nothing = {"to_keys": 0 * unit, "to_values": 0 * unit, "jumps": torch.zeros(1, 1)}
    decay = torch.full((1, 1), 3.0)
    noise = 1.2 * torch.eye(2).double()[None]
    system = JumpBAM(decay, decay, noise=noise, **nothing)
    assert second_moment_rate(system) == pytest.approx(6 - 1.44)
    assert system.certify(60).rate == pytest.approx(6 - 1.44, abs=0.05)
    struck = JumpBAM(decay, decay, noise=noise, impulse=2 * torch.eye(2)[None], impulse_every_s=0.5, **nothing)
    wanted = 6 - 1.44 - 2 * torch.tensor(2.0).log().item() / 0.5
    assert second_moment_rate(struck) == pytest.approx(wanted)
    assert struck.certify(60).rate == pytest.approx(wanted, abs=0.05)


def test_paths_keep_to_what_is_certified():
    late = 0.2 * torch.ones(2, 2, 2)
    system = jumping(late_to_keys=late, late_to_values=-late, delay_s=0.5, impulse=1.1 * torch.eye(4).repeat(2, 1, 1),
                     impulse_every_s=1.0)  # fmt: skip
    found = system.certify(60)
    assert found.certified
    paths = system.simulate(200, 3.0, 0.02, generator=torch.Generator().manual_seed(0))
    bound = found.overshoot * 4 * torch.exp(-found.rate * paths.times_s)
    assert bool((paths.mean_square() <= bound).all())
    assert set(paths.modes.unique().tolist()) == {0, 1}


def test_the_modes_are_visited_as_the_generator_says():
    paths = jumping().simulate(400, 6.0, 0.05, generator=torch.Generator().manual_seed(0))
    assert float((paths.modes[20:] == 0).double().mean()) == pytest.approx(2 / 3, abs=0.03)


def test_an_unstable_system_gets_no_certificate():
    system = jumping(to_keys=6 * torch.ones(2, 2, 2), to_values=6 * torch.ones(2, 2, 2))
    assert second_moment_rate(system) < 0
    assert not system.certify(100).certified


def test_a_wrong_certificate_is_found_out():
    system = jumping()
    found = system.certify(20)
    for broken in (
        found._replace(alpha=found.alpha + 0.1),
        found._replace(lyapunov=found.lyapunov * torch.tensor([1.0, 9.0])[:, None, None]),
    ):
        with pytest.raises(
            ArithmeticError, match=r"^JumpBAM: the inequality of the drift must hold, got an eigenvalue of -"
        ):
            system._check(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jumps": torch.ones(2, 2)}, r"^JumpBAM: jumps must be a generator"),
        ({"noise": torch.ones(2, 3, 3)}, r"^JumpBAM: noise must be \(2, 4, 4\), got \(2, 3, 3\)\."),
        ({"delay_s": -1.0}, r"^JumpBAM: delay_s must be at least 0, got -1\.0\."),
        (
            {"impulse": torch.ones(2, 4, 4)},
            r"^JumpBAM: impulse_every_s must be given with impulse, and only then, got None\.",
        ),
    ],
)
def test_jump_messages(changes, message):
    with pytest.raises(ValueError, match=message):
        jumping(**changes)
