"""Real-time recurrent learning, exact and with a sparse influence matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_positive, is_transformed
from ..core.tree import Tree
from .forward import ForwardRule
from .linearised import Stretch, jacobians, moving, start_influence


class InfluenceCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        influence: (B, S, P) d state / d parameters.
        seen: (B, S, S) and (B, S, P), which derivatives of the step have been other than zero so far; None if all is kept.
        rng: of the noise.
    """

    state: Tree
    influence: Tensor
    seen: tuple[Tensor, Tensor] | None
    rng: Tensor


class _Influence(ForwardRule):
    """Carries the influence of the parameters on the state along."""

    def _kept(self, passed: Tensor, immediate: Tensor) -> Tensor | None:
        """(B, S, P) what of the influence is kept, from what has been seen; None for all of it."""
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> InfluenceCarry:
        """The initial state and its own influence."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        influence = start_influence(cell).expand(batch_size, -1, -1).clone()
        rng = torch.Generator().manual_seed(seed).get_state()
        empty = influence.new_zeros(0, dtype=torch.bool)
        if self._kept(empty, empty) is None:
            return InfluenceCarry(state, influence, None, rng)
        rows, size, _ = influence.shape
        seen = influence.new_zeros(rows, size, size, dtype=torch.bool), torch.zeros_like(influence, dtype=torch.bool)
        return InfluenceCarry(state, influence, seen, rng)

    def follow(
        self, cell: Cell, carry: InfluenceCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[InfluenceCarry, Tensor]:
        """See `ForwardRule.follow`."""
        seen = carry.seen
        influence, total = carry.influence, carry.influence.new_zeros(carry.influence.shape[-1])
        again = free = influence.new_zeros(0)
        if made.restarted is not None and (is_transformed(made.restarted) or bool(made.restarted.any())):
            again = start_influence(cell)
            free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0))[:, None]
        for t, (passed, immediate) in enumerate(jacobians(cell, made)):
            if made.restarted is not None and again.ndim > 1:
                influence = torch.where(made.restarted[t][:, None, None] & free, again, influence)
            total = total + torch.einsum("bs,bsp->p", made.wanted[t], influence)
            new = torch.baddbmm(immediate, passed, influence)
            if seen is not None:
                now = seen[0] | (passed != 0), seen[1] | (immediate != 0)
                if made.alive is not None:
                    now = tuple(torch.where(made.alive[t][:, None, None], n, s) for n, s in zip(now, seen))  # type: ignore[assignment]
                seen = now
                kept = self._kept(*seen)
                assert kept is not None
                new = torch.where(kept, new, new.new_zeros(()))
            influence = new if made.alive is None else torch.where(made.alive[t][:, None, None], new, influence)
        return carry._replace(influence=influence, seen=seen), total


@dataclass(frozen=True)
class RTRL(_Influence):
    """Real-time recurrent learning: the exact gradient, forward in time, for any cell, wrapper and stack.

        J_t = (d s_t / d s_{t-1}) J_{t-1} + d s_t / d theta
        direction = sum_t w_t (d L_t / d theta + (d L_t / d s_{t-1}) J_{t-1})

    With parameters that stay, chunks of any length add up to the gradient of the whole stream, without its past being
    stored. With parameters that change between chunks, J is the influence along the path that was really taken.

    Raises:
        TypeError: no cell, a loss of whole sequences, weights that are noisy for a sequence.
    Source:
        Williams & Zipser 1989, Neural Computation 1(2):270-280, doi:10.1162/neco.1989.1.2.270 (from memory)
    Cost:
        O(S^2 P) time and O(S P) memory for each row and step, S elements of the state and P parameters: n^4 and n^3 for n
        fully recurrent units.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), RTRL()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.influence.shape
        torch.Size([2, 5, 45])
    """


@dataclass(frozen=True)
class SnAp(_Influence):
    """Sparse n-step approximation of RTRL: of the influence, only what a parameter reaches within n steps is kept.

        J_t = M_n * ((d s_t / d s_{t-1}) J_{t-1} + d s_t / d theta)

    M_n is the pattern of what a parameter can reach within n steps, by the derivatives of the step that have been other than
    zero so far. n = 1 keeps what a parameter influences at once; for large n this is `RTRL`, for element-wise recurrences
    (IndRNN) already n = 1 is.

    Args:
        n: steps, at least 1.
    Raises:
        ValueError: n < 1.
        TypeError: as `RTRL`.
    Source:
        Menick, Elsen, Evci, Osindero, Simonyan & Graves 2021, "Practical real time recurrent learning with a sparse
        approximation to the Jacobian", ICLR (from memory)
    Cost:
        That of `RTRL`: the pattern is a mask here, not a sparse format.
    """

    exempt: ClassVar[dict[str, str]] = {"exact": "What a parameter reaches later than n steps on is left out."}
    n: int = 1

    def __post_init__(self) -> None:
        check_positive("SnAp", n=self.n)

    def _kept(self, passed: Tensor, immediate: Tensor) -> Tensor:
        """What is reached within n steps."""
        found = immediate
        for _ in range(self.n - 1 if passed.numel() else 0):
            more = found | (torch.bmm(passed.float(), found.float()) > 0)
            if not is_transformed(more) and torch.equal(more, found):
                break
            found = more
        return found
