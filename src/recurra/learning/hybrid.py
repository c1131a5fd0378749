"""Exact gradients online in time n^3 per step: backpropagation within blocks, forward influence from block to block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap

from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_positive
from ..core.rule import Direction
from ..core.tree import Tree
from .forward import ForwardRule
from .linearised import Stretch, apart, learning, moving, row_of, rows_between, side_by_side, start_influence


class HybridCarry(NamedTuple):
    """state: (B, ...); influence: (B, S, P) d state / d parameters, after the last block; rng: of the noise."""

    state: Tree
    influence: Tensor
    rng: Tensor


@dataclass(frozen=True)
class HybridRTRL(ForwardRule):
    """Schmidhuber's fixed-size storage algorithm: the exact gradient of an endless stream, n^3 operations per step.

    A chunk is cut into blocks of h steps, from step a to step b:

        direction = backpropagation of the block's losses through the block + (dE/ds_a) J_a
        J_b = (ds_b/ds_a) J_a + sum_t (ds_b/ds_t) d s_t / d theta

    Both come from one sweep back through the block that carries S + 1 errors: one for the losses, and one for each element of
    the state at its end. The influence is multiplied once per block, where `RTRL` multiplies it at every step.
    With chunks shorter than a block, a chunk is a block: cut a stream into chunks of h steps and more.

    Args:
        block: h, steps of a block; None for S, the elements of the state.
    Raises:
        ValueError: block < 1.
        TypeError: as `RTRL`.
    Source:
        Schmidhuber 1992, "A fixed size storage O(n^3) time complexity learning algorithm for fully recurrent continually
        running networks", Neural Computation 4(2):243-248, doi:10.1162/neco.1992.4.2.243 (from memory)
    Cost:
        For each row and step S passes back through a step, O(S P), and O(S^2 P / h) for the influence: n^3 for n fully
        recurrent units and h = n. Memory O(S P), and the states of a chunk.
    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), HybridRTRL()
        >>> chunk = Chunk(torch.zeros(10, 2, 3), torch.zeros(10, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> carry.influence.shape
        torch.Size([2, 5, 45])
    """

    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None:
            check_positive("HybridRTRL", block=self.block)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> HybridCarry:
        """The initial state and its own influence."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        influence = start_influence(cell).expand(batch_size, -1, -1).clone()
        return HybridCarry(state, influence, torch.Generator().manual_seed(seed).get_state())

    def follow(
        self, cell: Cell, carry: HybridCarry, made: Stretch, generator: torch.Generator
    ) -> tuple[HybridCarry, Direction]:
        """See `ForwardRule.follow`."""
        num_steps, rows, size = made.wanted.shape
        parameters, influence = learning(cell), carry.influence
        total = influence.new_zeros(influence.shape[-1])
        if size == 0 or num_steps == 0:
            return carry, apart(total, parameters)
        again = start_influence(cell)
        free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(influence.device)
        row, every = row_of(cell, made.inputs), self.block or size
        leaves = row.leaves()
        for a in range(0, num_steps, every):
            b = min(a + every, num_steps)
            ends = torch.eye(size, dtype=influence.dtype, device=influence.device).expand(rows, -1, -1)
            errors = torch.cat([ends, ends.new_zeros(rows, 1, size)], 1)  # (B, S + 1, S), of the losses last
            immediate = influence.new_zeros(rows, size + 1, influence.shape[-1])
            for t in range(b - 1, a - 1, -1):
                by_parameters, passed = pull_many(row, rows_between(leaves, t * rows, (t + 1) * rows), errors)
                if made.alive is not None:
                    alive = made.alive[t][:, None, None]
                    by_parameters = torch.where(alive, by_parameters, 0.0)
                    passed = torch.where(alive, passed, errors)
                immediate = immediate + by_parameters
                errors = torch.cat([passed[:, :-1], passed[:, -1:] + made.wanted[t][:, None]], 1)
                if made.restarted is not None:
                    mask = made.restarted[t][:, None, None] & free
                    immediate = immediate + torch.where(mask, errors, 0.0) @ again
                    errors = torch.where(mask, 0.0, errors)
            whole = torch.baddbmm(immediate, errors, influence)
            influence, total = whole[:, :-1], total + whole[:, -1].sum(0)
        return carry._replace(influence=influence.contiguous()), apart(total, parameters)


def pull_many(row: Any, part: Any, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (B, K, S) at the state after a step: what they want of the parameters (B, K, P) and of the state before it."""
    names, values = list(row.parameters), list(row.parameters.values())

    def of_row(error: Tensor, floats: Any, others: Any, rest: Any, masks: Any) -> Any:
        def run(*given: Tensor) -> Tensor:
            found: Tensor = row(dict(zip(names, given)), given[len(names) :], others, rest, masks)
            return found

        return vmap(vjp(run, *values, *floats)[1])(error)

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = vmap(of_row)(errors, *part)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        found = [torch.stack(each) for each in zip(*_each_row(row, part, errors))]
    lead = errors.shape[:2]
    by_parameters = side_by_side(dict(zip(names, found)), row.parameters, *lead)
    return by_parameters, torch.cat([f.reshape(*lead, -1) for f in found[len(names) :]], -1)


def _each_row(row: Any, part: Any, errors: Tensor) -> Iterator[list[Tensor]]:
    """The same, row by row through autograd, for a step that `torch.func` cannot map."""
    for i, error in enumerate(errors):
        one = tuple(tuple(leaf[i] for leaf in group) for group in part)
        with torch.enable_grad():
            values = {n: p.detach().requires_grad_() for n, p in row.parameters.items()}
            floats = tuple(leaf.detach().requires_grad_() for leaf in one[0])
            new = row(values, floats, *one[1:])
            wanted, each = [*values.values(), *floats], []
            for e in error:
                grads: Any = (None,) * len(wanted)
                if new.requires_grad:
                    grads = torch.autograd.grad(new, wanted, e, retain_graph=True, allow_unused=True)
                each.append([torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted)])
        yield [torch.stack(column) for column in zip(*each)]
