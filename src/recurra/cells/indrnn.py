"""The independently recurrent network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import ConstrainedCell, HoistedCell
from ..core.checks import check_choice, check_positive, sentence
from ..init import fill, matrix, vector
from ._activations import UNITS

_RECURRENT = ("span", "long", "identity", "uniform", "normal", "zeros")


class IndRNNState(NamedTuple):
    """h: (B, H) last output."""

    h: Tensor


class IndRNNCell(HoistedCell[Tensor, Tensor, IndRNNState], ConstrainedCell[Tensor, Tensor, IndRNNState]):
    """Independently recurrent network: each unit sees its own last value alone, through one weight.

        h' = f(W x + u * h + b)         output, y = h'

    Over T steps a unit's gradient grows at most as |u|^T, so ``|u| <= gamma^(1/T)`` keeps its growth below gamma. The
    bound holds for the initial weights; `constrain` keeps it after an update (`fit` calls it). The step itself
    uses u as it is.

    Args:
        input_size: D, features per step.
        hidden_size: H, hidden units.
        max_steps: T, the time span that the bound is for; None for no bound.
        gamma: largest growth of a gradient over the span, at least 1.
        activation: f, "relu" (the paper's), "tanh" or "sigmoid".
        bias: with b or without.
        input_init: name of W's initialisation, see `recurra.init.names`.
        recurrent_init: name of u's initialisation, cut off at the bound: "span" is U(0, bound), bound 1 if there is
            none; "long" is U(1/bound, bound) for a layer that has to remember over the whole span; "identity:A" is A
            everywhere; "uniform:A" is U(-A, A); "normal:A" is N(0, A^2); "zeros".
        generator: source of the initial weights.
    State:
        h: (B, H) last output.
    Raises:
        ValueError: a size below 1, a gamma below 1, an unknown activation or initialisation, "long" without max_steps.
    Source:
        Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network (IndRNN)", CVPR, arXiv:1803.04831 (bound
        and initialisation from memory).
    Cost:
        2 H D + 2 H flops and H state values per step and sample.
    Example:
        >>> from recurra.layers import Recurrent
        >>> cell = IndRNNCell(3, 5, max_steps=100)
        >>> round(cell.recurrent_bound, 6)
        1.006956
        >>> ys, state = Recurrent(cell)(torch.zeros(7, 2, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([7, 2, 5]), torch.Size([2, 5]))
    """

    source = "Li et al. 2018, CVPR, arXiv:1803.04831"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        max_steps: int | None = None,
        gamma: float = 2.0,
        activation: str = "relu",
        bias: bool = True,
        input_init: str = "uniform",
        recurrent_init: str = "span",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, input_size=input_size, hidden_size=hidden_size)
        if max_steps is not None:
            check_positive(where, max_steps=max_steps)
        if not 1.0 <= gamma < math.inf:
            raise ValueError(sentence(where, "gamma", "a number of at least 1", gamma))
        check_choice(where, "activation", activation, tuple(UNITS))
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.max_steps, self.gamma, self.activation = max_steps, gamma, activation
        kind: dict[str, Any] = {"generator": generator, "device": device, "dtype": dtype}
        self.weight_ih = matrix(hidden_size, input_size, input_init, where=where, **kind)
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.bias = vector(hidden_size, 1 / math.sqrt(hidden_size), **kind) if bias else None
        self._fill_recurrent(recurrent_init, generator)

    @torch.no_grad()
    def _fill_recurrent(self, how: str, generator: torch.Generator | None) -> None:
        where, name = type(self).__name__, how.partition(":")[0]
        check_choice(where, "recurrent_init", name, _RECURRENT)
        bound = 1.0 if self.max_steps is None else self.recurrent_bound
        if name == "span":
            self.weight_hh.uniform_(0.0, bound, generator=generator)
        elif name == "long":
            if self.max_steps is None:
                raise ValueError(sentence(where, "max_steps", "given for recurrent_init='long'", None))
            self.weight_hh.uniform_(1 / bound, bound, generator=generator)
        elif name == "identity":  # of the matrix diag(u)
            self.weight_hh.fill_(float(fill(torch.empty(1, 1), how, where=where)))
        else:
            fill(self.weight_hh.unsqueeze(1), how, where=where, generator=generator)
        self.constrain()

    @property
    def recurrent_bound(self) -> float:
        """``gamma^(1/T)``, what |u| may be at most; infinity without max_steps."""
        return math.inf if self.max_steps is None else self.gamma ** (1 / self.max_steps)

    @torch.no_grad()
    def constrain(self) -> None:
        """Cut u off at the bound, in place; to be called after an update of the parameters.

        Example:
            >>> cell = IndRNNCell(3, 5, max_steps=10, gamma=1.0)
            >>> _ = torch.nn.init.constant_(cell.weight_hh, -3.0)
            >>> cell.constrain()
            >>> cell.weight_hh.tolist()
            [-1.0, -1.0, -1.0, -1.0, -1.0]
        """
        self.weight_hh.clamp_(-self.recurrent_bound, self.recurrent_bound)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Without and with a bound, other activations and initialisations, a learned start."""
        yield cls(3, 5)
        yield cls(2, 4, max_steps=20, recurrent_init="long", activation="tanh")
        yield cls(3, 3, max_steps=5, gamma=1.5, activation="sigmoid", bias=False).learn_initial_state()
        yield cls(2, 3, recurrent_init="uniform:0.9", input_init="normal:0.5")

    def initial_state(self, batch_size: int) -> IndRNNState:
        """h = 0."""
        return IndRNNState(self.initial("h", batch_size, self.hidden_size))

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        return F.linear(x, self.weight_ih, self.bias)

    def advance(self, projected: Tensor, state: IndRNNState) -> tuple[Tensor, IndRNNState]:
        """``h' = f(projected + u * h)``."""
        h = UNITS[self.activation](projected + self.weight_hh * state.h)
        return h, IndRNNState(h)
