"""What the experiments of 1989 to 2000 share: nets of the published sizes, criteria, errors."""

from __future__ import annotations

import pytest
import torch

from recurra.core import Chunk
from recurra.experiments.hochreiter_1997_e1_reber import different_strings
from recurra.experiments.hochreiter_1997_e3_two_sequence import Hochreiter1997TwoSequence, _Stop, _tasks
from recurra.experiments.online import (
    Answers,
    Learned,
    Learner,
    NewStart,
    SquaredError,
    net_1997,
    num_weights,
    until_right,
)
from recurra.tasks.reber import SYMBOLS

PUBLISHED = {  # inputs, outputs, blocks, their size -> weights
    "experiment 1, 3 x 2": (7, 7, 3, 2, False, False, 276),
    "experiment 1, 4 x 1": (7, 7, 4, 1, False, False, 264),
    "experiment 3": (1, 1, 3, 1, True, False, 102),
    "experiment 4": (2, 1, 2, 2, True, True, 93),
    "experiment 6a": (8, 4, 2, 2, True, True, 156),
    "experiment 6b": (8, 8, 3, 2, True, True, 308),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_nets_have_as_many_weights_as_published(name) -> None:
    inputs, outputs, blocks, size, cell_bias, readout_bias, weights = PUBLISHED[name]
    net = net_1997(
        inputs,
        outputs,
        num_blocks=blocks,
        block_size=size,
        weight_range=0.1,
        generator=torch.Generator().manual_seed(0),
        cell_bias=cell_bias,
        readout_bias=readout_bias,
    )
    assert num_weights(net) == weights
    assert all(p.dtype == torch.float64 and p.abs().max() <= 0.1 for p in net.parameters())


def test_the_error_is_half_the_squared_distance_of_activations() -> None:
    ys, targets = torch.randn(3, 2, 4), torch.rand(3, 2, 4)
    for loss, f in ((SquaredError(), torch.sigmoid), (SquaredError(squash=False), lambda y: y)):
        wanted = ((f(ys) - targets) ** 2).sum(-1) / 2
        torch.testing.assert_close(loss.per_step(ys, targets), wanted)


def test_trials_end_with_the_first_block_at_which_the_criterion_holds() -> None:
    said = iter([0.5, 0.3, 0.01, 0.01, 0.5, 0.01, 0.01, 0.01])

    def present(count: int) -> Answers:
        errors = torch.full((count, 1), next(said))
        return Answers(errors, torch.zeros_like(errors))

    trial = until_right(present, tolerance=0.04, most=100, block=10, num_recent=30)
    assert trial.solved
    assert trial.presented == len(trial.errors) == 80
    said = iter([0.03] * 4)
    assert not until_right(present, tolerance=0.04, most=40, block=10, num_recent=20, mean_error=0.01).solved
    said = iter([0.5, 0.01, 0.01])
    assert until_right(present, tolerance=0.04, most=100, block=10, num_recent=20, num_wrong=10).presented == 20


def test_a_net_that_does_not_progress_is_given_up_and_the_sequences_of_all_starts_count() -> None:
    begun: list[int] = []
    said = iter([0.5, 0.5, 0.5, 0.01, 0.5, 0.01, 0.5, 0.01, 0.01, 0.01])

    def present(count: int) -> Answers:
        errors = torch.full((count, 1), next(said))
        return Answers(errors, torch.zeros_like(errors))

    def trial(limits: tuple[tuple[int, float], ...], most: int) -> Learned:
        start = NewStart(lambda: begun.append(1), limits)
        return until_right(present, tolerance=0.04, most=most, block=10, num_recent=20, new_start=start)

    found = trial(((20, 0.3), (40, 0.0)), 100)  # starts of 2 and 4 blocks, then one of 3
    assert (found.solved, found.presented, found.num_starts, len(begun)) == (True, 90, 3, 2)
    assert len(found.errors) == 90
    begun.clear()
    said = iter([0.5] * 4)
    lost = trial(((20, 0.3),), 40)  # what follows the last sequence is not a start
    assert (lost.solved, lost.num_starts, len(begun)) == (False, 2, 1)
    said = iter([0.01, 0.5, 0.01, 0.01])
    assert trial(((10, 0.005),), 40).presented == 40  # the first block was too bad; of the next start two must be right


def test_a_learner_reads_row_after_row_and_answers_as_it_would_without_learning() -> None:
    net = net_1997(2, 1, num_blocks=1, block_size=2, weight_range=0.5, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(5, 3)
    weights[-1] = 1
    generator = torch.Generator().manual_seed(1)
    batch = Chunk(torch.randn(5, 3, 2, generator=generator), torch.rand(5, 3, 1, generator=generator), weights)
    still = Learner(net, SquaredError(), 0.0)
    torch.testing.assert_close(still.learn(batch), still.try_out(batch))
    assert still.try_out(batch).wanted.flatten().tolist() == batch.targets[-1].flatten().tolist()
    before = [p.clone() for p in net.parameters()]
    quick = Learner(net, SquaredError(), 0.5)
    first = quick.try_out(batch).largest_error.square().mean()
    for _ in range(200):
        quick.learn(batch)
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters()))
    assert quick.try_out(batch).largest_error.square().mean() < first


def test_no_test_string_is_among_the_training_strings() -> None:
    strings = different_strings(256, 0)
    texts = []
    for chunk, legal in ((strings.train, strings.train_legal), (strings.test, strings.test_legal)):
        assert chunk.xs.shape[1] == legal.shape[1] == 256
        lengths = chunk.controls.lengths.tolist()
        texts.append({"".join(SYMBOLS[k] for k in chunk.xs[:n, b].argmax(-1)) for b, n in enumerate(lengths)})
        assert all(bool(legal[:n, b].any(-1).all()) for b, n in enumerate(lengths))
    assert not texts[0] & texts[1]
    assert len(texts[0]) < 256  # drawn with repeats, so that short strings are as frequent as the grammar has them


def test_e3_counts_the_sequences_of_nets_given_up_and_those_after_the_criterion() -> None:
    def trial(most: int, stop: _Stop, *, error: float) -> dict[str, float]:
        small = Hochreiter1997TwoSequence(num_steps=10, most=most, block=4, num_small_test=8, num_test=8)
        task = _tasks(10)[0]._replace(tolerance=1.0, error=error, stop=stop)
        return small._trial(task, 0, lambda done: None)

    given_up = trial(20, _Stop(give_up=(8, 0.0), longest=8), error=0.0)
    assert (given_up["starts"], given_up["st1"], given_up["st2"], given_up["solved"]) == (3, 4, 20, 0)
    passed = trial(20, _Stop(fresh=True, num_strict=16, num_last=8), error=1.0)
    assert (passed["starts"], passed["st1"], passed["st2"], passed["solved"]) == (1, 4, 12, 1)
