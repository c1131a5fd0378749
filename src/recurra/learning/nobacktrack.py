"""NoBackTrack: an influence of rank one, whose parts are balanced element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell
from ..core.rule import Direction
from .linearised import Stretch, apart, jacobians, learning, moving
from .uoro import UORO, UOROCarry

_TINY = 1e-30


@dataclass(frozen=True)
class NoBackTrack(UORO):
    """Recurrent learning without backtracking through time: the influence as one outer product, without bias.

        v_t = rho_0 e_0 D_t v_{t-1} + sum_i rho_i e_i unit_i,   w_t = e_0 w_{t-1} / rho_0 + sum_i e_i I_{t,i} / rho_i
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1} . v_{t-1}) w_{t-1})

    D_t and I_t are the derivatives of the step by state and parameters, I_{t,i} the row of element i of the state, e are
    random signs. Each part has a balance of its own, rho_0 = sqrt(|w| / |D v|) and rho_i = sqrt(|I_i|), which makes the
    variance least; `UORO` has one for all i, and its second product by one backward pass.

    Raises:
        TypeError: as `UORO`.
    Source:
        Ollivier, Tallec & Charpiat 2015, "Training recurrent networks online without backtracking", arXiv:1507.07680
        (from memory)
    Cost:
        The carry takes O(S + P) memory for each row; the derivatives of a step are found whole here, S backward passes.
    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), NoBackTrack()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.of_state.shape, carry.of_parameters.shape
        (torch.Size([2, 5]), torch.Size([2, 45]))
    """

    exempt: ClassVar[dict[str, str]] = UORO.exempt

    def follow(
        self, cell: Cell, carry: UOROCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[UOROCarry, Direction]:
        """See `ForwardRule.follow`."""
        num_steps, rows, size = made.wanted.shape
        v, w = carry.of_state, carry.of_parameters
        total = w.new_zeros(w.shape[-1])
        if size and num_steps:
            signs = torch.randint(0, 2, (num_steps, rows, 1 + size), generator=generator).to(made.wanted) * 2 - 1
            free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(v.device)
            for t, (passed, immediate) in enumerate(jacobians(cell, made)):
                if made.restarted is not None:
                    v = torch.where(made.restarted[t][:, None] & free, 0.0, v)
                total = total + torch.einsum("bs,bs,bp->p", made.wanted[t], v, w)
                first, each = signs[t][:, :1], signs[t][:, 1:]
                forward = torch.einsum("bij,bj->bi", passed, v)
                keep = balance(w.norm(dim=1, keepdim=True), forward.norm(dim=1, keepdim=True))
                give = balance(immediate.norm(dim=2), torch.ones_like(each))
                new_v = first * keep * forward + each * give
                new_w = first * w / keep + torch.einsum("bs,bsp->bp", each / give, immediate)
                if made.alive is not None:
                    alive = made.alive[t][:, None]
                    new_v, new_w = torch.where(alive, new_v, v), torch.where(alive, new_w, w)
                v, w = new_v, new_w
        return carry._replace(of_state=v, of_parameters=w), apart(total, learning(cell))


def balance(long: Tensor, short: Tensor) -> Tensor:
    """sqrt(long / short), 1 where one of the two lengths vanishes."""
    some = (long > _TINY) & (short > _TINY)
    return torch.where(some, (long / short.clamp(min=_TINY)).sqrt(), torch.ones_like(long))
