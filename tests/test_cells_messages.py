"""Every bad argument of a cell is refused with one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from recurra.cells.clockwork import ClockworkCell
from recurra.cells.fully_recurrent import FullyRecurrentCell
from recurra.cells.indrnn import IndRNNCell
from recurra.cells.jordan import JordanCell
from recurra.cells.lstm1997 import LSTM1997Cell
from recurra.core import members
from recurra.init import names

D, H = 4, 5
CELLS: list[Any] = [  # the cells built by sizes and names of initialisations
    cls
    for cls in members("cells").values()
    if {"input_size", "hidden_size", "input_init", "recurrent_init"} <= set(inspect.signature(cls).parameters)
]
BAD_SIZES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    entry
    for cls in CELLS
    for entry in (
        (lambda cls=cls: cls(0, 8), ValueError, f"{cls.__name__}: input_size must be at least 1, got 0."),
        (lambda cls=cls: cls(3, -1), ValueError, f"{cls.__name__}: hidden_size must be at least 1, got -1."),
        (lambda cls=cls: cls(3.5, 8), TypeError, f"{cls.__name__}: input_size must be a whole number, got 3.5."),
        (
            lambda cls=cls: cls(3, 8, input_init="nice"),
            ValueError,
            f"{cls.__name__}: init must be one of {', '.join(names())}, got 'nice'.",
        ),
        (lambda cls=cls: cls(3, 8, recurrent_init="nice"), ValueError, "got 'nice'."),
    )
]
UNIT_NAMES = "'tanh', 'relu', 'sigmoid'"
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    *BAD_SIZES,
    (
        lambda: FullyRecurrentCell(D, H, activation="step"),
        ValueError,
        f"FullyRecurrentCell: activation must be one of {UNIT_NAMES}, got 'step'.",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=(0, 5)),
        ValueError,
        "FullyRecurrentCell: outputs must be different units out of 0..4, got (0, 5).",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=(-1,)),
        ValueError,
        "FullyRecurrentCell: outputs must be different units out of 0..4, got (-1,).",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=(1, 1)),
        ValueError,
        "FullyRecurrentCell: outputs must be different units out of 0..4, got (1, 1).",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=()),
        ValueError,
        "FullyRecurrentCell: outputs must be different units out of 0..4, got ().",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=2),  # type: ignore[arg-type]
        TypeError,
        "FullyRecurrentCell: outputs must be a tuple of whole numbers, got 2.",
    ),
    (
        lambda: FullyRecurrentCell(D, H, outputs=(0.0,)),  # type: ignore[arg-type]
        TypeError,
        "FullyRecurrentCell: outputs must be a tuple of whole numbers, got (0.0,).",
    ),
    (
        lambda: FullyRecurrentCell(D, H, recurrent_mask=torch.ones(H, H)),
        TypeError,
        "FullyRecurrentCell: recurrent_mask must be a tensor of bool, got float32.",
    ),
    (
        lambda: FullyRecurrentCell(D, H, input_mask=[[True]]),  # type: ignore[arg-type]
        TypeError,
        "FullyRecurrentCell: input_mask must be a tensor of bool, got list.",
    ),
    (
        lambda: FullyRecurrentCell(D, H, recurrent_mask=torch.ones(H, D, dtype=torch.bool)),
        ValueError,
        "FullyRecurrentCell: recurrent_mask must be (5, 5), got (5, 4).",
    ),
    (
        lambda: FullyRecurrentCell(D, H, input_mask=torch.ones(H, H, dtype=torch.bool)),
        ValueError,
        "FullyRecurrentCell: input_mask must be (5, 4), got (5, 5).",
    ),
    (lambda: JordanCell(D, H, 0), ValueError, "JordanCell: output_size must be at least 1, got 0."),
    (lambda: JordanCell(D, H, decay=1.0), ValueError, "JordanCell: decay must be in [0, 1), got 1.0."),
    (lambda: JordanCell(D, H, decay=-0.1), ValueError, "JordanCell: decay must be in [0, 1), got -0.1."),
    (
        lambda: JordanCell(D, H, activation="softmax"),
        ValueError,
        f"JordanCell: activation must be one of {UNIT_NAMES}, got 'softmax'.",
    ),
    (
        lambda: JordanCell(D, H, output_activation="relu"),
        ValueError,
        "JordanCell: output_activation must be one of 'identity', 'sigmoid', 'tanh', 'softmax', got 'relu'.",
    ),
    (
        lambda: JordanCell(D, H, 2, recurrent_init="spectral"),
        ValueError,
        "JordanCell: init 'spectral' must be used on a square matrix, got (5, 2).",
    ),
    (
        lambda: LSTM1997Cell(D, 5, block_size=2),
        ValueError,
        "LSTM1997Cell: hidden_size must be a multiple of block_size=2, got 5.",
    ),
    (lambda: LSTM1997Cell(D, 4, block_size=0), ValueError, "LSTM1997Cell: block_size must be at least 1, got 0."),
    (
        lambda: LSTM1997Cell(D, 4, input_gate_bias=(-1.0,)),
        ValueError,
        "LSTM1997Cell: input_gate_bias must be a tuple of 4 numbers, one per block, got (-1.0,).",
    ),
    (
        lambda: LSTM1997Cell(D, 4, output_gate_bias=-1.0),  # type: ignore[arg-type]
        ValueError,
        "LSTM1997Cell: output_gate_bias must be a tuple of 4 numbers, one per block, got -1.0.",
    ),
    (
        lambda: LSTM1997Cell(D, 1, bias=False, output_gate_bias=(-1.0,)),
        ValueError,
        "LSTM1997Cell: output_gate_bias must be None without biases, got (-1.0,). Drop it or pass bias=True.",
    ),
    (
        lambda: LSTM1997Cell(D, 1, output_gate=False, output_gate_bias=(-1.0,)),
        ValueError,
        "LSTM1997Cell: output_gate_bias must be None without output gates, got (-1.0,). Drop it or pass output_gate=True.",
    ),
    (
        lambda: LSTM1997Cell(D, 1, forget_gate_bias=(1.0,)),
        ValueError,
        "LSTM1997Cell: forget_gate_bias must be None without forget gates, got (1.0,). Drop it or pass forget_gate=True.",
    ),
    (
        lambda: LSTM1997Cell(D, 4, bias_bound=-1.0),
        ValueError,
        "LSTM1997Cell: bias_bound must be None or a number of at least 0, got -1.0.",
    ),
    (lambda: IndRNNCell(D, H, max_steps=0), ValueError, "IndRNNCell: max_steps must be at least 1, got 0."),
    (lambda: IndRNNCell(D, H, gamma=0.5), ValueError, "IndRNNCell: gamma must be a number of at least 1, got 0.5."),
    (
        lambda: IndRNNCell(D, H, recurrent_init="long"),
        ValueError,
        "IndRNNCell: max_steps must be given for recurrent_init='long', got None.",
    ),
    (
        lambda: IndRNNCell(D, H, recurrent_init="orthogonal"),
        ValueError,
        "IndRNNCell: recurrent_init must be one of 'span', 'long', 'identity', 'uniform', 'normal', 'zeros', "
        "got 'orthogonal'.",
    ),
    (
        lambda: IndRNNCell(D, H, recurrent_init="uniform:wide"),
        ValueError,
        "IndRNNCell: init must be uniform:NUMBER, got 'uniform:wide'.",
    ),
    (
        lambda: IndRNNCell(D, H, activation="step"),
        ValueError,
        f"IndRNNCell: activation must be one of {UNIT_NAMES}, got 'step'.",
    ),
    (
        lambda: ClockworkCell(D, 6),
        ValueError,
        "ClockworkCell: hidden_size must be a multiple of 4, the number of periods, got 6.",
    ),
    (
        lambda: ClockworkCell(D, 6, periods=(1, 0)),
        ValueError,
        "ClockworkCell: periods must be one or more numbers of at least 1, got (1, 0).",
    ),
    (
        lambda: ClockworkCell(D, 6, periods=()),
        ValueError,
        "ClockworkCell: periods must be one or more numbers of at least 1, got ().",
    ),
    (
        lambda: ClockworkCell(D, 6, periods=[1, 2]),  # type: ignore[arg-type]
        TypeError,
        "ClockworkCell: periods must be a tuple of whole numbers, got [1, 2].",
    ),
    (
        lambda: ClockworkCell(D, 6, periods=(1, 2.5)),  # type: ignore[arg-type]
        TypeError,
        "ClockworkCell: periods must be a tuple of whole numbers, got (1, 2.5).",
    ),
    (
        lambda: ClockworkCell(D, 8, activation="step"),
        ValueError,
        f"ClockworkCell: activation must be one of {UNIT_NAMES}, got 'step'.",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD, ids=[message[:60] for _, _, message in BAD])
def test_bad_arguments_are_refused_with_a_sentence(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value).endswith(message)
    assert type(caught.value) is kind
