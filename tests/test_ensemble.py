"""An ensemble is its members side by side; short truncated stretches are one run."""

from functools import partial

import pytest
import torch

from recurra.cells import ElmanCell, LSTMCell
from recurra.core import Chunk, Controls, MeanSquaredError, tree
from recurra.engines import Auto, Checkpointed, Hoisted, Loop
from recurra.learning import BPTT, TruncatedBPTT
from recurra.training import MemberSum, fit
from recurra.wrappers import Dropout, Ensemble, Readout, Stack


def _members(num: int) -> list[Readout]:
    return [Readout(Stack(ElmanCell(3, 4), LSTMCell(4, 3)), 2) for _ in range(num)]


def _chunk(num: int) -> Chunk:
    return Chunk(torch.randn(6, 2, num, 3), torch.randn(6, 2, num, 2))


@pytest.mark.parametrize("engine", [Loop(), Hoisted(), Auto(), Checkpointed()])
def test_runs_as_its_members(engine):
    torch.manual_seed(0)
    members, chunk = _members(3), _chunk(3)
    reset = torch.rand(6, 2) < 0.3
    controls = Controls(torch.tensor([6, 4]), reset)
    ys, state = engine(Ensemble(*members), chunk.xs, None, controls)
    for i, member in enumerate(members):
        wanted, last = Loop()(member, chunk.xs[:, :, i], None, controls)
        torch.testing.assert_close(ys[:, :, i], wanted)
        torch.testing.assert_close(state[1].c[:, i], last[1].c)


@pytest.mark.parametrize(("rule", "clip_norm"), [(BPTT(), None), (TruncatedBPTT(k1=2, k2=4), None), (BPTT(), 0.8)])
def test_members_learn_as_if_alone(rule, clip_norm):
    torch.manual_seed(0)
    members, chunk = _members(3), _chunk(3)
    together = Ensemble(*members)
    adam = partial(torch.optim.SGD, lr=0.1, momentum=0.9) if clip_norm else partial(torch.optim.Adam, lr=0.01)
    fit(together, [chunk], MemberSum(MeanSquaredError()), adam, rule=rule, clip_norm=clip_norm, num_epochs=3)
    clipped = []
    for i, member in enumerate(members):
        fit(
            member,
            [Chunk(chunk.xs[:, :, i], chunk.targets[:, :, i])],
            MeanSquaredError(),
            adam,
            rule=rule,
            clip_norm=clip_norm,
            num_epochs=3,
            on_step=lambda update: clipped.append(clip_norm is not None and update.gradient_norm > clip_norm),
        )
        for name, value in together.member(i).named_parameters():
            torch.testing.assert_close(value, member.get_parameter(name))
    assert clip_norm is None or 0 < sum(clipped) < len(clipped)


def test_subset_keeps_order():
    members = [ElmanCell(2, 3) for _ in range(4)]
    few = Ensemble(*members).subset([2, 0])
    assert few.num_members == 2
    assert torch.equal(few.cell.weight_hh[0], members[2].weight_hh)
    assert torch.equal(few.member(1).weight_ih, members[0].weight_ih)
    assert Hoisted()(few, torch.zeros(5, 1, 2, 2))[0].shape == (5, 1, 2, 3)


def test_members_have_noise_of_their_own():
    cell = Ensemble(*[Stack(ElmanCell(2, 8), Dropout(ElmanCell(8, 8), 0.5)) for _ in range(2)])
    noise = cell.draw(3, 1, torch.Generator().manual_seed(0))
    own = tree.leaves(noise)[0]
    assert own.shape[:3] == (3, 1, 2)
    assert not torch.equal(own[:, :, 0], own[:, :, 1])


def test_messages():
    with pytest.raises(ValueError, match=r"Ensemble: cells must be at least one, got none\."):
        Ensemble()
    with pytest.raises(
        ValueError, match=r"Ensemble: member 1 must be of the kind and size of member 0, got ElmanCell\."
    ):
        Ensemble(ElmanCell(2, 3), ElmanCell(2, 4))
    with pytest.raises(TypeError, match=r"Ensemble: cell must be a recurra Cell, got Linear\."):
        Ensemble(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("num_steps", [8, 7])
def test_short_stretches_in_one_run_are_exact(k, num_steps):
    """`TruncatedBPTT` with an engine of its own goes stretch by stretch; with Auto it cuts in one run."""
    torch.manual_seed(0)
    cell = Stack(ElmanCell(3, 4), Readout(ElmanCell(4, 5), 2)).double().learn_initial_state()
    with torch.no_grad():
        for p in cell.parameters():
            p.normal_(0, 0.5)
    reset = torch.rand(num_steps, 2) < 0.3
    reset[k if k < num_steps else 0] = True
    chunk = Chunk(
        torch.randn(num_steps, 2, 3).double(),
        torch.randn(num_steps, 2, 2).double(),
        torch.rand(num_steps, 2).double(),
        Controls(torch.tensor([num_steps, num_steps - 3]), reset),
    )
    loss = MeanSquaredError()
    answers = []
    for rule in (TruncatedBPTT(k, k), TruncatedBPTT(k, k, engine=Loop())):
        carry = rule.init(cell, 2)
        carry, _ = rule.step(cell, carry, chunk, loss)
        carry, estimate = rule.step(cell, carry, chunk, loss)
        answers.append((carry, estimate))
    (fast, a), (slow, b) = answers
    torch.testing.assert_close(a.loss, b.loss)
    torch.testing.assert_close(a.outputs, b.outputs)
    torch.testing.assert_close(fast.state, slow.state)
    for name, direction in b.direction.items():
        torch.testing.assert_close(a.direction[name], direction, msg=name)
