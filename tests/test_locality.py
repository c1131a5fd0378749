"""The audit of locality: verdicts of the literature, and on rules that were made to be caught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recurra.analysis import Places, audit, carry_bytes, peak_bytes
from recurra.cells import ElmanCell, GRUCell, IndRNNCell, LSTMCell
from recurra.core import Cell, Chunk, CrossEntropy, Estimate, LearningRule, Loss, SequenceLoss
from recurra.learning import BPTT, EKF, RTRL, UORO, HessianFree, SnAp, TruncatedBPTT
from recurra.wrappers import LayerNorm, Readout, Stack


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


NETS = {
    "elman": lambda: ElmanCell(2, 4),
    "gated, reset before": lambda: GRUCell(2, 4, reset_after=False),
    "stack with readout": lambda: Readout(Stack(LSTMCell(2, 3), ElmanCell(3, 4)), 2),
}
VERDICTS = {BPTT(): (True, False), RTRL(): (False, True), UORO(): (False, True), TruncatedBPTT(1, 1): (True, True)}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rule", VERDICTS, ids=str)
def test_the_table_of_the_literature(rule: Any, net: str) -> None:
    found = audit(rule, NETS[net]())
    assert (found.in_space, found.in_time) == VERDICTS[rule], found.why
    assert (found.reads <= 2) is found.in_space
    assert (found.bytes_per_step > 0) is not found.in_time


def test_units_that_see_only_themselves_make_the_exact_rule_local() -> None:
    assert audit(RTRL(), IndRNNCell(2, 4)).in_space
    assert audit(SnAp(1), ElmanCell(2, 4)).in_space
    assert not audit(SnAp(2), ElmanCell(2, 4)).in_space


def test_steps_are_online_only_where_the_state_is_carried() -> None:
    """A Kalman filter goes along; whole steps of a chunk begin again with each, and have to see it at once."""
    along, again = audit(EKF(), ElmanCell(2, 3)), audit(HessianFree(num_iterations=5), ElmanCell(2, 3))
    assert (along.at_once, along.in_time, along.in_space) == (1, True, False)
    assert (again.at_once, again.in_time, again.in_space) == (None, False, False)


def test_fixed_random_feedback_is_connections() -> None:
    from recurra.learning import RFLO

    found = audit(RFLO(), Readout(ElmanCell(2, 4), 3))
    assert found.in_space, found.why
    assert found.in_time


@dataclass(frozen=True)
class Changed(LearningRule[Any]):
    """The gradient of one step, changed by a function of direction and outputs."""

    how: str

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        return TruncatedBPTT(1, 1).init(cell, batch_size, seed=seed)

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        carry, estimate = TruncatedBPTT(1, 1).step(cell, carry, chunk, loss)
        outputs = estimate.outputs.sum((0, 1))
        change = {
            "nothing": lambda d: d,
            "rolled": lambda d: d.roll(1, 0),
            "one other unit": lambda d: d + d.roll(1, 0),
            "its own unit": lambda d: d * (outputs.view(-1, 1) if d.ndim == 2 else outputs),
            "all units": lambda d: d * outputs.square().sum(),
            "clipped": lambda d: d * (1 / d.norm()).clamp(max=1.0),
            "a mean": lambda d: d - d.mean(),
            "masked mean": lambda d: d + (d * 0).sum(),
        }[self.how]
        return carry, estimate._replace(direction={n: change(d) for n, d in estimate.direction.items()})


@pytest.mark.parametrize(
    ("how", "local"),
    [
        ("nothing", True),
        ("its own unit", True),
        ("masked mean", True),
        ("rolled", False),
        ("one other unit", False),
        ("all units", False),
        ("clipped", False),
        ("a mean", False),
    ],
)
def test_a_rule_that_reads_too_much_is_caught(how: str, local: bool) -> None:
    found = audit(Changed(how), ElmanCell(2, 4))
    assert found.in_space is local, found.why
    if not local:
        assert found.why.startswith("The update of weight_")
        assert "unit" in found.why


@dataclass(frozen=True)
class Hoarding(Changed):
    """Keeps everything it has seen."""

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> Any:
        return super().init(cell, batch_size, seed=seed), ()

    def step(self, cell: nn.Module, carry: Any, chunk: Chunk, loss: Loss | SequenceLoss) -> tuple[Any, Estimate]:
        inner, seen = carry
        inner, estimate = super().step(cell, inner, chunk, loss)
        return (inner, (*seen, chunk.xs.clone())), estimate


def test_a_carry_that_grows_is_not_local_in_time() -> None:
    found = audit(Hoarding("nothing"), ElmanCell(2, 4))
    assert found.in_space
    assert not found.in_time
    assert found.at_once == 1
    assert found.bytes_per_step == 2 * 8  # an input


def test_a_cell_that_is_not_local_itself_is_named() -> None:
    found = audit(TruncatedBPTT(1, 1), LayerNorm(ElmanCell(2, 4)))
    assert not found.in_space


def test_what_cannot_be_audited_is_said() -> None:
    refused = audit(RTRL(), ElmanCell(2, 4), Whole())  # type: ignore[arg-type]
    assert "a loss of whole sequences" in str(refused.refused)
    assert refused.in_space is None
    with pytest.raises(ValueError, match="audit: cell must be one with parameters that learn"):
        audit(BPTT(), ElmanCell(2, 4).requires_grad_(False))


class Whole(SequenceLoss):
    def per_sequence(self, ys: Any, targets: Any, lengths: Tensor | None) -> Tensor:
        return ys.sum((0, 2))


def test_tokens_go_in_and_classes_come_out() -> None:
    from recurra.cells import EmbeddingCell

    cell: Cell = Readout(Stack(EmbeddingCell(5, 3), ElmanCell(3, 4)), 3)
    assert audit(BPTT(), cell).in_space


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda w, x: w @ x, [[2], [3]]),
        (lambda w, x: (w * x).sum(1), [[2], [3]]),
        (lambda w, x: w.t() @ torch.ones(2, dtype=w.dtype), [[0], [1]]),
        (lambda w, x: torch.cat([x[1:], x[:1]]) * torch.rand(2), [[1], [0]]),
        (lambda w, x: x * torch.tensor([1.0, 0.0]), [[0], []]),
        (lambda w, x: x.clone().index_put_((torch.tensor([0]),), x[1:]), [[1], [1]]),
        (lambda w, x: torch.zeros(2, dtype=w.dtype).add_(x), [[0], [1]]),
        (lambda w, x: torch.softmax(x, 0), [[0, 1], [0, 1]]),
        (lambda w, x: torch.where(x > 5, x, w[:, 0]), [[0, 2], [0, 3]]),
    ],
)
def test_places_of_results(function: Any, wanted: Any) -> None:
    follow = Places(4)
    x, weight = torch.rand(2, dtype=torch.float64) + 0.5, torch.rand(2, 2, dtype=torch.float64) + 0.5
    follow.place(x, [[0], [1]])
    follow.place(weight, [[[2, 0], [2, 1]], [[3, 0], [3, 1]]])
    with follow:
        y = function(weight, x)
    assert [row.nonzero()[:, 0].tolist() for row in follow.where(y).places] == wanted


def test_memory_is_counted() -> None:
    assert peak_bytes(lambda: [torch.zeros(10) for _ in range(3)]) == 120
    assert peak_bytes(lambda: torch.zeros(10).view(2, 5)) == 40
    kept = torch.zeros(6)
    assert carry_bytes((kept, {"a": kept[:2]}, None, 3)) == 24
    assert isinstance(CrossEntropy(), Loss)
