"""Unbiased online recurrent optimisation: real-time recurrent learning with an influence of rank one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Direction
from ..core.tree import Tree
from .forward import ForwardRule
from .linearised import Stretch, apart, flat_size, learning, moving, pulled, pushing

_TINY = 1e-30


class UOROCarry(NamedTuple):
    """state: (B, ...); of_state: (B, S) and of_parameters: (B, P), whose outer product stands for the influence; rng."""

    state: Tree
    of_state: Tensor
    of_parameters: Tensor
    rng: Tensor


@dataclass(frozen=True)
class UORO(ForwardRule):
    """Unbiased online recurrent optimisation: the influence is estimated by one outer product, without bias.

        s~_t = rho_0 D_t s~_{t-1} + rho_1 nu,   theta~_t = theta~_{t-1} / rho_0 + nu^T I_t / rho_1
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1} . s~_{t-1}) theta~_{t-1})

    D_t and I_t are the derivatives of the step by state and parameters, nu is a vector of random signs, rho_0 and rho_1
    balance the lengths of both factors: E[s~ theta~^T] = J, the influence that `RTRL` carries, while the parameters stay.

    Raises:
        TypeError: as `RTRL`.
    Source:
        Tallec & Ollivier 2018, "Unbiased online recurrent optimization", ICLR, arXiv:1702.05043 (from memory)
    Cost:
        For each row and step, O(S + P) memory, one pass forward along s~ and one backward from nu: the work of a few plain
        steps. The derivatives D_t and I_t themselves are nowhere.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), UORO()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.of_parameters.shape
        torch.Size([2, 45])
    """

    unbiased: ClassVar[bool] = True
    exempt: ClassVar[dict[str, str]] = {
        "exact": "It is an estimate: right on average over its random signs.",
        "rows_add": "Every row draws its own signs, so a row alone has others than in a batch.",
        "padding": "As for rows: a row alone draws other signs.",
    }

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """A cell whose weights are not noisy, whose start is not learned, and a loss with a value for each step."""
        reason = super().supports(cell, loss)
        if reason is None and any(isinstance(m, Cell) and m.initial_values is not None for m in cell.modules()):
            return "the influence of a learned initial state has no rank of one; use RTRL()."
        return reason

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> UOROCarry:
        """The initial state, and no influence."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        size, count = flat_size(cell.initial_state(1)), sum(p.numel() for p in learning(cell).values())
        zeros = torch.zeros(batch_size, size + count, dtype=cell.dtype, device=cell.device)
        rng = torch.Generator().manual_seed(seed).get_state()
        return UOROCarry(state, zeros[:, :size].clone(), zeros[:, size:].clone(), rng)

    def follow(
        self, cell: Cell, carry: UOROCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[UOROCarry, Direction]:
        """See `ForwardRule.follow`."""
        num_steps, rows, size = made.wanted.shape
        of_state, of_parameters = carry.of_state, carry.of_parameters
        total = of_parameters.new_zeros(of_parameters.shape[-1])
        if size and num_steps:
            signs = torch.randint(0, 2, (num_steps, rows, size), generator=generator).to(made.wanted) * 2 - 1
            free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(of_state.device)
            push = pushing(cell, made)
            for t, immediate in enumerate(pulled(cell, made, signs)):
                if made.restarted is not None:
                    of_state = torch.where(made.restarted[t][:, None] & free, 0.0, of_state)
                total = total + (made.wanted[t] * of_state).sum(1) @ of_parameters
                forward = push(t, of_state)
                keep = _balance(of_parameters, forward)
                give = _balance(immediate, signs[t])
                new_state = keep * forward + give * signs[t]
                new_parameters = of_parameters / keep + immediate / give
                if made.alive is not None:
                    alive = made.alive[t][:, None]
                    new_state = torch.where(alive, new_state, of_state)
                    new_parameters = torch.where(alive, new_parameters, of_parameters)
                of_state, of_parameters = new_state, new_parameters
        return carry._replace(of_state=of_state, of_parameters=of_parameters), apart(total, learning(cell))


def _balance(long: Tensor, short: Tensor) -> Tensor:
    """(B, 1) sqrt(|long| / |short|), 1 where one of them vanishes."""
    a, b = long.norm(dim=1, keepdim=True), short.norm(dim=1, keepdim=True)
    return torch.where((a > _TINY) & (b > _TINY), (a / b.clamp(min=_TINY)).sqrt(), torch.ones_like(a))
