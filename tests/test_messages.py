"""Every message of the core, word for word; and a count that none of its ``raise`` lines is left out."""

from __future__ import annotations

import ast
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

import pytest
import torch
from torch import Tensor, nn

from recurra.cells import DropoutCell, ElmanCell, EmbeddingCell, LSTMCell
from recurra.core import (
    Cell,
    Controls,
    FeedbackCell,
    Leaf,
    PointwiseCell,
    Timed,
    catalog,
    cell,
    checks,
    engine,
    tree,
)
from recurra.core.checks import check_flag
from recurra.engines import Auto, Checkpointed, Loop, Vendor
from recurra.layers import Recurrent, recurrent
from recurra.wrappers import Stack

LISTED: tuple[ModuleType, ...] = (checks, engine, cell, catalog, tree, recurrent)
"""The modules whose every ``raise`` must be reached by a case below."""


class EchoState(NamedTuple):
    """feedback: (B, 2) the last output."""

    feedback: Tensor


class EchoCell(FeedbackCell[Tensor, Tensor, EchoState]):
    """A cell that sees its own output."""

    input_size = output_size = 2

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    def initial_state(self, batch_size: int) -> EchoState:
        return EchoState(torch.zeros(batch_size, 2))

    def feedback(self, y: Tensor) -> Tensor:
        return y

    def step(self, x: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
        y = x + state.feedback
        return y, EchoState(self.feedback(y))


class GapCell(PointwiseCell[Timed, Tensor]):
    """A cell whose input has two leaves."""

    input_size = output_size = 3

    @classmethod
    def examples(cls) -> Iterator[Self]:
        yield cls()

    @property
    def input_spec(self) -> Timed:
        return Timed(Leaf((3,)), Leaf(()))

    def pointwise(self, x: Timed) -> Tensor:
        return x.x * x.dt_s.unsqueeze(-1)


elman, lstm, tokens = ElmanCell(3, 5), LSTMCell(3, 5), EmbeddingCell(65, 8)
xs = torch.zeros(7, 2, 3)
steps = torch.ones(7, 2, dtype=torch.bool)
BUILT = "The cell was built with input_size=3."


def lengths(*values: int) -> Tensor:
    return torch.tensor(values)


class Case(NamedTuple):
    """A call, the error it must raise and its words."""

    name: str
    call: Callable[[], object]
    error: type[Exception]
    message: str


CASES = [
    # constructors
    Case(
        "size is no whole number",
        lambda: ElmanCell(3.0, 5),  # type: ignore[arg-type]
        TypeError,
        "ElmanCell: input_size must be a whole number, got 3.0.",
    ),
    Case("size below one", lambda: ElmanCell(3, 0), ValueError, "ElmanCell: hidden_size must be at least 1, got 0."),
    Case(
        "probability",
        lambda: Stack(ElmanCell(3, 4), ElmanCell(4, 4), dropout=1.0),
        ValueError,
        "Stack: dropout must be a probability in [0, 1), got 1.0.",
    ),
    Case(
        "probability of another type",
        lambda: Stack(ElmanCell(3, 4), ElmanCell(4, 4), dropout="half"),  # type: ignore[arg-type]
        TypeError,
        "Stack: dropout must be a probability in [0, 1), got 'half'.",
    ),
    Case(
        "flag",
        lambda: check_flag("Forecaster", linear="no"),
        TypeError,
        "Forecaster: linear must be True or False, got 'no'.",
    ),
    Case(
        "unknown option",
        lambda: ElmanCell(3, 5, activation="sine"),
        ValueError,
        "ElmanCell: activation must be one of 'tanh', 'relu', 'sigmoid', got 'sine'.",
    ),
    Case(
        "initial state that cannot be learned",
        lambda: EchoCell().learn_initial_state(),
        TypeError,
        "EchoCell: initial_state must be written with self.initial(...) to be learned, got plain tensors.",
    ),
    # one step
    Case(
        "x of another shape",
        lambda: lstm(torch.zeros(4, 5)),
        ValueError,
        f"LSTMCell: x must be (B, 3), got (4, 5). {BUILT}",
    ),
    Case(
        "x of another rank",
        lambda: lstm(torch.zeros(7, 4, 3)),
        ValueError,
        f"LSTMCell: x must be (B, 3), got (7, 4, 3). {BUILT}",
    ),
    Case(
        "x is no tensor",
        lambda: lstm([[0.0, 0.0, 0.0]]),
        TypeError,
        f"LSTMCell: x must be a tensor (B, 3), got list. {BUILT}",
    ),
    Case(
        "x of another structure",
        lambda: lstm((torch.zeros(4, 3),)),
        TypeError,
        f"LSTMCell: x must be (B, 3), got ((4, 3)). {BUILT}",
    ),
    Case(
        "x of another dtype",
        lambda: lstm(torch.zeros(4, 3, dtype=torch.float64)),
        TypeError,
        "LSTMCell: x must be float32, got float64. Convert it with .to(torch.float32), or the cell with .to().",
    ),
    Case(
        "a cell without parameters takes any floating type, and only those",
        lambda: DropoutCell(3, 0.5)(torch.zeros(4, 3, dtype=torch.int64)),
        TypeError,
        "DropoutCell: x must be floating point, got int64.",
    ),
    Case(
        "tokens of another dtype",
        lambda: tokens(torch.zeros(4)),
        TypeError,
        "EmbeddingCell: x must be int64, got float32. Convert it with .to(torch.int64).",
    ),
    Case(
        "token too large",
        lambda: tokens(torch.tensor([0, 65])),
        ValueError,
        "EmbeddingCell: x must be in 0..64, got 65.",
    ),
    Case(
        "token below zero",
        lambda: tokens(torch.tensor([-1, 3])),
        ValueError,
        "EmbeddingCell: x must be in 0..64, got -1.",
    ),
    Case(
        "state of another structure",
        lambda: lstm(torch.zeros(4, 3), torch.zeros(4, 5)),
        TypeError,
        f"LSTMCell: state must be LSTMState(h=(4, 5), c=(4, 5)), got (4, 5). {BUILT}",
    ),
    Case(
        "state of another batch",
        lambda: lstm(torch.zeros(4, 3), lstm.initial_state(3)),
        ValueError,
        f"LSTMCell: state.h must be (4, 5), got (3, 5). {BUILT}",
    ),
    Case(
        "state of another device",
        lambda: checks.check_tree(
            "Reader", "x", torch.zeros(2, 3), Leaf((3,)), ("B",), None, device=torch.device("meta")
        ),
        TypeError,
        "Reader: x must be on meta, got cpu. Move one of them with .to().",
    ),
    # a sequence
    Case(
        "no cell",
        lambda: Recurrent(nn.Linear(3, 5)),  # type: ignore[arg-type]
        TypeError,
        "Recurrent: cell must be a recurra Cell, got Linear.",
    ),
    Case(
        "no engine",
        lambda: Recurrent(elman, "loop"),  # type: ignore[arg-type]
        TypeError,
        "Recurrent: engine must be an Engine such as Auto(), got str.",
    ),
    Case(
        "xs without a batch",
        lambda: Recurrent(elman)(torch.zeros(7, 3)),
        ValueError,
        f"ElmanCell: xs must be (T, B, 3), got (7, 3). {BUILT}",
    ),
    Case(
        "xs of another size",
        lambda: Recurrent(elman)(torch.zeros(7, 2, 4)),
        ValueError,
        f"ElmanCell: xs must be (T, B, 3), got (7, 2, 4). {BUILT}",
    ),
    Case(
        "leaves of xs that differ in length",
        lambda: Recurrent(GapCell())(Timed(xs, torch.zeros(6, 2))),
        ValueError,
        f"GapCell: xs.dt_s must be (7, 2), got (6, 2). {BUILT}",
    ),
    Case(
        "state of another batch than xs",
        lambda: Recurrent(elman)(xs, elman.initial_state(3)),
        ValueError,
        f"ElmanCell: state.h must be (2, 5), got (3, 5). {BUILT}",
    ),
    Case(
        "lengths in a list",
        lambda: Recurrent(elman)(xs, lengths=[7, 3]),  # type: ignore[arg-type]
        TypeError,
        "ElmanCell: lengths must be a tensor of int64, got list.",
    ),
    Case(
        "lengths of another dtype",
        lambda: Recurrent(elman)(xs, lengths=torch.tensor([7.0, 3.0])),
        TypeError,
        "ElmanCell: lengths must be a tensor of int64, got float32.",
    ),
    Case(
        "lengths of another shape",
        lambda: Recurrent(elman)(xs, lengths=lengths(7, 3, 1)),
        ValueError,
        "ElmanCell: lengths must be (2,), got (3,).",
    ),
    Case(
        "length beyond the end",
        lambda: Recurrent(elman)(xs, lengths=lengths(8, 3)),
        ValueError,
        "ElmanCell: lengths must be between 0 and T=7, got 8.",
    ),
    Case(
        "length below zero",
        lambda: Recurrent(elman)(xs, lengths=lengths(7, -1)),
        ValueError,
        "ElmanCell: lengths must be between 0 and T=7, got -1.",
    ),
    Case(
        "reset of another dtype",
        lambda: Recurrent(elman)(xs, reset=torch.ones(7, 2)),
        TypeError,
        "ElmanCell: reset must be a tensor of bool, got float32.",
    ),
    Case(
        "reset of another shape",
        lambda: Recurrent(elman)(xs, reset=steps[0]),
        ValueError,
        "ElmanCell: reset must be (7, 2), got (2,).",
    ),
    Case(
        "forced without feedback",
        lambda: Recurrent(elman)(xs, forced=torch.zeros(7, 2, 5)),
        TypeError,
        "ElmanCell: the cell must be a FeedbackCell to be forced, got a cell without feedback.",
    ),
    Case(
        "forced of another shape",
        lambda: Recurrent(EchoCell())(xs[..., :2], forced=torch.zeros(7, 2, 3)),
        ValueError,
        "EchoCell: forced must be (7, 2, 2), got (7, 2, 3).",
    ),
    Case(
        "force_mask alone",
        lambda: Recurrent(EchoCell())(xs[..., :2], force_mask=steps),
        ValueError,
        "EchoCell: force_mask must be given together with forced, got no forced values.",
    ),
    Case(
        "force_mask of another dtype",
        lambda: Recurrent(EchoCell())(xs[..., :2], forced=xs[..., :2], force_mask=xs[..., 0]),
        TypeError,
        "EchoCell: force_mask must be a tensor of bool, got float32.",
    ),
    Case(
        "an unknown argument",
        lambda: Recurrent(elman)(xs, length=7),  # type: ignore[call-arg]
        TypeError,
        "Recurrent.forward() got an unexpected keyword argument 'length'",
    ),
    # engines that cannot
    Case(
        "a cell that torch does not have",
        lambda: Vendor()(EchoCell(), xs[..., :2]),
        ValueError,
        "Vendor(): EchoCell is no torch layer.",
    ),
    Case(
        "an option that torch does not have",
        lambda: Vendor()(LSTMCell(3, 5, peephole=True), xs),
        ValueError,
        "Vendor(): this LSTMCell has an option that torch's layers do not have.",
    ),
    Case(
        "resets in torch's layers",
        lambda: Vendor()(elman, xs, None, Controls(reset=steps)),
        ValueError,
        "Vendor(): torch's layers cannot restart inside a sequence; use Auto() or Hoisted().",
    ),
    Case(
        "torch's layers under torch.func",
        lambda: torch.func.vmap(lambda batch: Vendor()(elman, batch))(xs.unsqueeze(0)),
        ValueError,
        "Vendor(): torch's layers do not run under torch.func or torch.compile here; use Auto() or Hoisted().",
    ),
    Case(
        "checkpoints every zero steps",
        lambda: Checkpointed(every=0, engine=Loop())(elman, xs),
        ValueError,
        "Checkpointed(every=0, engine=Loop()): every must be at least 1, got 0.",
    ),
    Case(
        "checkpoints under torch.func",
        lambda: torch.func.vmap(lambda batch: Checkpointed(engine=Auto())(elman, batch))(xs.unsqueeze(0)),
        ValueError,
        "Checkpointed(every=None, engine=Auto()): computing again does not work under torch.func or torch.compile; use "
        "Auto() or Loop().",
    ),
    # names and trees
    Case(
        "unknown name, with the nearest",
        lambda: catalog.find("cells", "LTSMCell"),
        ValueError,
        "catalog: name must be one of the cells, got 'LTSMCell'. Did you mean LSTMCell",
    ),
    Case(
        "unknown name, nothing near",
        lambda: catalog.find("cells", "0"),
        ValueError,
        "catalog: name must be one of the cells, got '0'.",
    ),
    Case(
        "trees of two structures",
        lambda: tree.map(lambda a, b: a, (1, 2), (1, (2, 3), 4)),
        ValueError,
        "tree: the trees must have one structure, got (int, int) and (int, (int, int), int).",
    ),
    Case(
        "nothing beside something",
        lambda: tree.map(lambda a, b: a, None, 1),
        ValueError,
        "tree: the trees must have one structure, got None beside something.",
    ),
]


def message_of(case: Case) -> tuple[str, list[traceback.FrameSummary]]:
    """What the call says, and the frames the error passed through."""
    with pytest.raises(case.error) as raised:
        case.call()
    assert type(raised.value) is case.error
    return str(raised.value), list(traceback.extract_tb(raised.value.__traceback__))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_message(case: Case) -> None:
    message, _ = message_of(case)
    if case.message.endswith("."):
        assert message == case.message
    else:  # the suggestion lists near names of a catalog that grows
        assert message.startswith(case.message)


def test_every_raise_of_the_core_has_a_case() -> None:
    reached = {(Path(f.filename).resolve(), f.lineno) for case in CASES for f in message_of(case)[1]}
    missed = []
    for module in LISTED:
        path = Path(inspect.getfile(module)).resolve()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if not any((path, line) in reached for line in lines):
                missed.append(f"{path.name}:{node.lineno}")
    assert not missed, f"no case reaches the message at {', '.join(missed)}"


def test_a_message_is_raised_before_the_first_step() -> None:
    taken = []

    class Counting(EchoCell):
        def step(self, x: Tensor, state: EchoState) -> tuple[Tensor, EchoState]:
            taken.append(1)
            return super().step(x, state)

    with pytest.raises(ValueError, match="must be between 0 and T=7"):
        Recurrent(Counting())(xs[..., :2], lengths=lengths(9, 1))
    assert isinstance(Counting(), Cell)
    assert not taken
