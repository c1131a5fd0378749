"""The fully recurrent network of Williams and Zipser (1989): any connections, any units as outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import FeedbackCell, HoistedCell
from ..core.checks import check_choice, check_positive, sentence
from ..init import matrix, vector
from ._activations import UNITS


class FullyRecurrentState(NamedTuple):
    """h: (B, H - O) last values of the units that are no outputs, () if all are; feedback: (B, O) of the outputs."""

    h: Tensor | tuple[()]
    feedback: Tensor


class FullyRecurrentCell(
    HoistedCell[Tensor, Tensor, FullyRecurrentState], FeedbackCell[Tensor, Tensor, FullyRecurrentState]
):
    """Fully recurrent network: every unit sees all inputs, all units and a bias; some units are the outputs.

        u' = f(W x + U u + b)        all units
        y = u'[outputs]

    Where a mask is False, W or U counts as zero. Teacher forcing puts the wanted values in the place of the output
    units before the next step; the other units keep their own.

    Args:
        input_size: D, features per step.
        hidden_size: H, units.
        outputs: the units that are outputs, in the order of y (O of them); None for all units.
        recurrent_mask: (H, H) bool, True where unit i (row) sees unit j (column); None for all.
        input_mask: (H, D) bool, True where unit i sees input j; None for all.
        activation: f, "sigmoid" (the paper's), "tanh" or "relu".
        bias: with b or without.
        input_init: name of W's initialisation, see `recurra.init.names`; masked entries then become zero.
        recurrent_init: name of U's initialisation; masked entries then become zero.
        generator: source of the initial weights.
    State:
        h: (B, H - O) the units that are no outputs, in ascending order; () if every unit is an output.
        feedback: (B, O) the outputs; forcing replaces them.
    Raises:
        ValueError: a size below 1, a mask of another shape, outputs that repeat or do not exist, an unknown name.
        TypeError: a mask that is no bool tensor, outputs that are no whole numbers.
    Source:
        Williams & Zipser 1989, Neural Computation 1(2):270-280, doi:10.1162/neco.1989.1.2.270 (equations from memory).
    Differs:
        What the paper calls y(t + 1), computed from x(t) and y(t), is here the output of step t.
    Cost:
        2 H (D + H) flops and H state values per step and sample; a mask saves none.
    Example:
        >>> from recurra.layers import Recurrent
        >>> layer = Recurrent(FullyRecurrentCell(3, 5, outputs=(0, 1)))
        >>> wanted = torch.rand(7, 2, 2)
        >>> ys, state = layer(torch.zeros(7, 2, 3), forced=wanted)
        >>> ys.shape, state.h.shape, torch.equal(state.feedback, wanted[-1])
        (torch.Size([7, 2, 2]), torch.Size([2, 3]), True)
    """

    source = "Williams & Zipser 1989, Neural Computation 1(2):270-280, doi:10.1162/neco.1989.1.2.270"
    recurrent_mask: Tensor | None
    input_mask: Tensor | None
    order: Tensor | None
    place: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        outputs: tuple[int, ...] | None = None,
        recurrent_mask: Tensor | None = None,
        input_mask: Tensor | None = None,
        activation: str = "sigmoid",
        bias: bool = True,
        input_init: str = "uniform",
        recurrent_init: str = "uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        check_choice(where, "activation", activation, tuple(UNITS))
        units = tuple(range(hidden_size)) if outputs is None else _checked_outputs(where, outputs, hidden_size)
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, len(units)
        self.outputs, self.activation = outputs, activation

        # Inside, activations are kept as [outputs, others]; `order` and `place` lead there and back.
        order = [*units, *sorted(set(range(hidden_size)) - set(units))]
        place = sorted(range(hidden_size), key=order.__getitem__)
        for name, index in (("order", order), ("place", place)):
            moved = None if order == sorted(order) else torch.tensor(index, device=device)
            self.register_buffer(name, moved, persistent=False)
        for name, mask, columns in (
            ("recurrent_mask", recurrent_mask, hidden_size),
            ("input_mask", input_mask, input_size),
        ):
            if mask is not None:
                _check_mask(where, name, mask, (hidden_size, columns))
                mask = mask.detach().clone().to(device)
            self.register_buffer(name, mask)

        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_hh = matrix(hidden_size, hidden_size, recurrent_init, where=where, **kind)
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None
        with torch.no_grad():
            self.weight_ih.copy_(_masked(self.weight_ih, self.input_mask))
            self.weight_hh.copy_(_masked(self.weight_hh, self.recurrent_mask))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """All units as outputs; some, in any order, with masks; the last alone, with a learned start."""
        yield cls(3, 4)
        ring = torch.eye(5, dtype=torch.bool).roll(1, 1) | torch.eye(5, dtype=torch.bool)
        inputs = torch.tensor([[True, False], [True, True], [False, True], [False, False], [True, True]])
        yield cls(2, 5, outputs=(3, 0), recurrent_mask=ring, input_mask=inputs, activation="tanh")
        yield cls(3, 3, outputs=(2,), bias=False, recurrent_init="orthogonal").learn_initial_state()
        yield cls(2, 4, outputs=(0, 1), activation="relu", input_init="normal:0.5")

    def initial_state(self, batch_size: int) -> FullyRecurrentState:
        """All units 0."""
        others = self.hidden_size - self.output_size
        return FullyRecurrentState(
            self.initial("h", batch_size, others) if others else (),
            self.initial("feedback", batch_size, self.output_size),
        )

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return F.linear(x, _masked(self.weight_ih, self.input_mask), self.bias)

    def advance(self, projected: Tensor, state: FullyRecurrentState) -> tuple[Tensor, FullyRecurrentState]:
        """``u' = f(projected + U u)``, the output units out of it."""
        last = torch.cat([state.feedback, state.h], -1) if isinstance(state.h, Tensor) else state.feedback
        if self.place is not None:
            last = last.index_select(-1, self.place)
        units = UNITS[self.activation](projected + F.linear(last, _masked(self.weight_hh, self.recurrent_mask)))
        if self.order is not None:
            units = units.index_select(-1, self.order)
        y, h = units[..., : self.output_size], units[..., self.output_size :]
        return y, FullyRecurrentState(h if self.output_size < self.hidden_size else (), self.feedback(y))

    def feedback(self, y: Tensor) -> Tensor:
        """The output units themselves."""
        return y


def _masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    return weight if mask is None else weight * mask


def _check_mask(where: str, name: str, mask: Tensor, shape: tuple[int, int]) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(sentence(where, name, "a tensor of bool", got))
    if mask.shape != shape:
        raise ValueError(sentence(where, name, str(shape), tuple(mask.shape)))


def _checked_outputs(where: str, outputs: tuple[int, ...], hidden_size: int) -> tuple[int, ...]:
    if not isinstance(outputs, tuple) or any(not isinstance(i, int) or isinstance(i, bool) for i in outputs):
        raise TypeError(sentence(where, "outputs", "a tuple of whole numbers", repr(outputs)))
    if not outputs or len(set(outputs)) < len(outputs) or min(outputs) < 0 or max(outputs) >= hidden_size:
        raise ValueError(sentence(where, "outputs", f"different units out of 0..{hidden_size - 1}", outputs))
    return outputs
