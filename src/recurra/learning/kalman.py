"""Kalman filters that see the parameters as a state to be estimated: extended, global and decoupled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_choice, sentence
from ..core.loss import Loss, SequenceLoss
from ..core.rule import Chunk, Direction, Estimate, LearningRule
from ..core.tree import Tree
from .linearised import Observation, Stretch, learning, moving, observations, start_influence, stretch
from .rtrl import RTRL

_ONE_BY_ONE = 16  # measurements up to here are taken in one after the other, more of them through a factor of A


@dataclass(frozen=True)
class Anneal:
    """A number that goes from ``start`` to ``end`` over the first ``num_steps`` measurements, and stays there.

        v_k = start + (end - start) min(k / num_steps, 1)         "linear"
        v_k = start (end / start)^min(k / num_steps, 1)           "geometric"

    Args:
        start: v_0, above 0.
        end: the last value, above 0.
        num_steps: at least 1.
        kind: "linear" or "geometric".
    Raises:
        ValueError: a value out of range.
    Example:
        >>> Anneal(100.0, 1.0, 10).at(torch.tensor(5.0))
        tensor(50.5000)
    """

    start: float
    end: float
    num_steps: int
    kind: Literal["linear", "geometric"] = "linear"

    def __post_init__(self) -> None:
        check_choice("Anneal", "kind", self.kind, ("linear", "geometric"))
        for name, value in (("start", self.start), ("end", self.end), ("num_steps", self.num_steps)):
            if not 0 < value < math.inf:
                raise ValueError(sentence("Anneal", name, "above 0 and finite", value))

    def at(self, measured: Tensor) -> Tensor:
        """The value after ``measured`` measurements, ()."""
        done = (measured / self.num_steps).clamp(max=1.0)
        if self.kind == "linear":
            return self.start + (self.end - self.start) * done
        return self.start * torch.exp(math.log(self.end / self.start) * done)


class Block(NamedTuple):
    """Groups of one size: row r of every named parameter (all of it, flat, where there is one group) is group r.

    Args:
        names: of the parameters, which lie side by side in a group.
        num_groups: G.
    """

    names: tuple[str, ...]
    num_groups: int


class EKFCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        influence: (B, S, P) d state / d parameters.
        past: with a ``reach``, the derivatives of the last steps, (reach, B, S, S) and (reach, B, S, P); else None.
        covariance: for every block, (G, n, n): P of G groups of n parameters.
        measured: () measurements so far; a step whose weights are all zero is none.
        rng: of the cell's noise.
    """

    state: Tree
    influence: Tensor
    past: tuple[Tensor, Tensor] | None
    covariance: tuple[Tensor, ...]
    measured: Tensor
    rng: Tensor


@dataclass(frozen=True)
class EKF(LearningRule[EKFCarry]):
    """Extended Kalman filter: parameters are a hidden state, every target is a noisy measurement of them.

        H_t = d prediction_t / d theta                            through time, past included
        A   = (R + sum_g H_g P_g H_g^T)^-1
        K_g = P_g H_g^T A
        theta_g += K_g e_t,   e_t = target_t - prediction_t       the direction is -K e
        P_g += Q - K_g H_g P_g

    e is the loss's `residual`; the prediction is what it subtracts (for a loss with logits, their probabilities). Groups
    g keep no covariance with each other: one group is the global filter, several are the decoupled one (DEKF). The rows of
    a batch are streams that are measured together (multi-stream filter). A weight w of a step divides R.

    Within a chunk of T > 1 steps the parameters stay, and so do derivatives; the measurements are taken in one after the
    other, each residual corrected by what the earlier ones have changed. For a model that is linear in its parameters, any
    chunks give the same.

    Args:
        groups: "unit": one group for each row of the weights of a module, biases and other tensors of as many rows
            included: the weights into one unit; "tensor": one for each parameter; "global": one; or the names of the
            parameters of each group.
        p0: P at the start is p0 times the identity.
        q: Q = q times the identity, variance that is added with every measurement; a number or an `Anneal`.
        r: R = r times the identity, variance of a measurement; a number or an `Anneal`.
        reach: steps of the past that H sees; None for all, by the influence that `RTRL` carries.
    Raises:
        TypeError: as `RTRL`; a loss without residual.
        ValueError: a number out of range, a group that names no parameter, a parameter in no group or in two.
    Source:
        Puskorius & Feldkamp 1994, "Neurocontrol of nonlinear dynamical systems with Kalman filter trained recurrent
        networks", IEEE Trans. Neural Networks 5(2):279-297 (from memory); with LSTM: Perez-Ortiz, Gers, Eck & Schmidhuber
        2003, Neural Networks 16(2):241-250 (from memory)
    Differs:
        q is added only where there is something to learn from.
    Cost:
        O(S^2 P) for H as in `RTRL`; O(M n^2) for each group of n parameters, M = B O measurements; memory sum_g n_g^2.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), EKF()
        >>> chunk = Chunk(torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> [p.shape for p in carry.covariance]  # five units with 3 + 5 weights and a bias
        [torch.Size([5, 9, 9])]
    """

    kind: ClassVar[Literal["gradient", "step"]] = "step"

    groups: Literal["unit", "tensor", "global"] | tuple[tuple[str, ...], ...] = "unit"
    p0: float = 100.0
    q: float | Anneal = 1e-4
    r: float | Anneal = 1.0
    reach: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.groups, str):
            check_choice("EKF", "groups", self.groups, ("unit", "tensor", "global"))
        if not 0 < self.p0 < math.inf:
            raise ValueError(sentence("EKF", "p0", "above 0 and finite", self.p0))
        if not isinstance(self.q, Anneal) and not 0 <= self.q < math.inf:
            raise ValueError(sentence("EKF", "q", "at least 0 and finite", self.q))
        if not isinstance(self.r, Anneal) and not 0 < self.r < math.inf:
            raise ValueError(sentence("EKF", "r", "above 0 and finite", self.r))
        if self.reach is not None and self.reach < 0:
            raise ValueError(sentence("EKF", "reach", "at least 0 or None", self.reach))

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """As `RTRL`, and a loss with a residual."""
        reason = RTRL().supports(cell, loss)
        if reason is None and type(loss).residual is Loss.residual:  # type: ignore[union-attr]
            return f"{type(loss).__name__} has no residual, which is what a Kalman filter corrects."
        return reason

    def blocks(self, cell: nn.Module) -> tuple[Block, ...]:
        """How the parameters fall into groups.

        Example:
            >>> from recurra.cells import LSTMCell
            >>> EKF().blocks(LSTMCell(3, 5))
            (Block(names=('weight_ih', 'weight_hh', 'bias'), num_groups=20),)
        """
        parameters = learning(cell)
        if self.groups == "global":
            return (Block(tuple(parameters), 1),) if parameters else ()
        if self.groups == "tensor":
            return tuple(Block((name,), 1) for name in parameters)
        if self.groups == "unit":

            def unit(name: str) -> tuple[str, int]:
                p = parameters[name]
                return name.rpartition(".")[0], int(p.shape[0]) if p.ndim else 1

            places = sorted(parameters, key=unit)  # stable: the order within a block is that of the module
            return tuple(Block(tuple(names), rows) for (_, rows), names in groupby(places, unit))
        given = [name for group in self.groups for name in group]
        if sorted(given) != sorted(parameters):
            wrong = sorted(set(given) ^ set(parameters)) or sorted(n for n in parameters if given.count(n) > 1)
            raise ValueError(sentence("EKF", "groups", "every parameter that learns, once", ", ".join(wrong)))
        return tuple(Block(tuple(names), 1) for names in self.groups)

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> EKFCarry:
        """The initial state and its own influence; P = p0."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        parameters, covariance = learning(cell), []
        for names, num in self.blocks(cell):
            size = sum(parameters[name].numel() for name in names) // num
            one = torch.eye(size, dtype=cell.dtype, device=cell.device) * self.p0
            covariance.append(one.expand(num, -1, -1).clone())
        influence, past = start_influence(cell).expand(batch_size, -1, -1).clone(), None
        if self.reach is not None:
            rows, size, count = influence.shape
            passed = influence.new_zeros(self.reach, rows, size, size)
            immediate = influence.new_zeros(self.reach, rows, size, count)
            if self.reach:
                immediate[-1] = influence
            past = passed, immediate
            influence = _chained(*past, influence)
        measured = torch.zeros((), dtype=cell.dtype, device=cell.device)
        rng = torch.Generator().manual_seed(seed).get_state()
        return EKFCarry(state, influence, past, tuple(covariance), measured, rng)

    def step(
        self, cell: nn.Module, carry: EKFCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[EKFCarry, Estimate]:
        """The change of the parameters that the measurements of a chunk ask for.

        Raises:
            ValueError: a wrong shape.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"EKF: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        made = stretch(cell, carry.state, chunk, loss, generator)
        carry = carry._replace(state=made.state, rng=generator.get_state())
        parameters, blocks = learning(cell), self.blocks(cell)
        direction = {name: torch.zeros_like(p) for name, p in parameters.items()}
        if not parameters or not made.wanted.shape[0]:
            return carry, Estimate(direction, made.loss, made.weight, made.outputs)
        residual = loss.residual(made.outputs, chunk.targets).flatten(2).detach()  # (T, B, O)
        weight = torch.ones_like(residual[..., 0]) if chunk.weights is None else chunk.weights.to(residual)
        if made.alive is not None:
            weight = torch.where(made.alive, weight, torch.zeros_like(weight))
        again = free = carry.influence.new_zeros(0)
        if made.restarted is not None:
            again = start_influence(cell)
            free = moving(cell, tree.at(made.inputs.xs, 0), tree.at(made.inputs.states, 0)).to(again.device)[:, None]
        filtered = Filter(carry.covariance, carry.measured, tuple(_beside(direction, block) for block in blocks))
        with torch.no_grad():
            for t, seen in enumerate(observations(cell, made, loss, chunk.targets)):
                if made.restarted is not None:
                    carry = _restarted(carry, made.restarted[t][:, None, None] & free, again)
                observed = torch.baddbmm(seen.direct, seen.seen, carry.influence)  # (B, O, P)
                carry = _moved(carry, seen, made, t)
                named = _named(observed, parameters)
                rows = tuple(_beside(named, block, lead=2).flatten(0, 1) for block in blocks)
                filtered = self.measure(filtered, rows, residual[t], weight[t])
        for block, change in zip(blocks, filtered.change):
            direction.update(_taken_apart(change, block, parameters))
        carry = carry._replace(covariance=filtered.covariance, measured=filtered.measured)
        return carry, Estimate(direction, made.loss, made.weight, made.outputs)

    def measure(self, before: Filter, rows: tuple[Tensor, ...], residual: Tensor, weight: Tensor) -> Filter:
        """Take in what B streams say at one time.

        Args:
            before: the filter.
            rows: H of every block, (M, G, n), M = B O.
            residual: (B, O).
            weight: (B,) at least 0.
        """
        known = (weight > 0)[:, None].expand_as(residual).reshape(-1)
        root = weight.clamp(min=0).sqrt()[:, None].expand_as(residual).reshape(-1)
        error = torch.where(known, residual.reshape(-1) * root, torch.zeros_like(root))
        some = known.any().to(residual.dtype)
        q = self.q.at(before.measured) if isinstance(self.q, Anneal) else self.q
        r = self.r.at(before.measured) if isinstance(self.r, Anneal) else self.r
        spread = torch.diag_embed(torch.ones_like(error)) * r
        through: list[Tensor] = []
        for h, held, change in zip(rows, before.covariance, before.change):
            h = torch.where(known[:, None, None], h * root[:, None, None], torch.zeros_like(h))
            error = error + (h * change).sum((1, 2))  # change is what has been subtracted so far
            hp = torch.einsum("mgn,gnk->mgk", h, held)
            spread = spread + torch.einsum("mgk,lgk->ml", hp, h)
            through.append(hp)
        take_in = _one_by_one if len(error) <= _ONE_BY_ONE else _factored
        covariance, gained = take_in(spread, tuple(through), error, before.covariance)
        changed = tuple(c - g for c, g in zip(before.change, gained))
        grown = tuple(p + torch.diag_embed(torch.ones_like(p[:, 0])) * (q * some) for p in covariance)
        return Filter(grown, before.measured + some, changed)


class Filter(NamedTuple):
    """Where a filter stands within a chunk: P of every block, the measurements so far, what to subtract (G, n)."""

    covariance: tuple[Tensor, ...]
    measured: Tensor
    change: tuple[Tensor, ...]


def _one_by_one(
    spread: Tensor, through: tuple[Tensor, ...], error: Tensor, covariance: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """P - (H P)^T A (H P) and (H P)^T A e by elimination: each measurement, freed of those before it, has rank one."""
    gained = [torch.zeros_like(hp[0]) for hp in through]
    parts, kept = list(through), list(covariance)
    for m in range(len(error)):
        column = spread[:, m] / spread[m, m]
        share = error[m] / spread[m, m]
        for i, hp in enumerate(parts):
            kept[i] = kept[i] - hp[m][:, :, None] * hp[m][:, None, :] / spread[m, m]
            gained[i] = gained[i] + hp[m] * share
            parts[i] = hp - column[:, None, None] * hp[m]
        error, spread = error - column * error[m], spread - column[:, None] * spread[m]
    return tuple(kept), gained


def _factored(
    spread: Tensor, through: tuple[Tensor, ...], error: Tensor, covariance: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The same through Cholesky's factor of A^-1."""
    lower = torch.linalg.cholesky(spread)
    white = torch.linalg.solve_triangular(lower, error[:, None], upper=False)[:, 0]
    kept, gained = [], []
    for hp, p in zip(through, covariance):
        w = torch.linalg.solve_triangular(lower, hp.flatten(1), upper=False).view_as(hp)
        kept.append(p - torch.einsum("mgi,mgj->gij", w, w))
        gained.append(torch.einsum("mgi,m->gi", w, white))
    return tuple(kept), gained


def _chained(passed: Tensor, immediate: Tensor, like: Tensor) -> Tensor:
    """The influence of the parameters over the last steps."""
    influence = torch.zeros_like(like)
    for d, i in zip(passed, immediate):
        influence = torch.baddbmm(i, d, influence)
    return influence


def _restarted(carry: EKFCarry, begin: Tensor, again: Tensor) -> EKFCarry:
    """The influence where rows start again: (B, S, 1) says which elements do."""
    past = carry.past
    if past is not None and len(past[0]):
        passed = torch.where(begin, torch.zeros_like(past[0][-1]), past[0][-1])
        immediate = torch.where(begin, again, past[1][-1])
        past = torch.cat([past[0][:-1], passed[None]]), torch.cat([past[1][:-1], immediate[None]])
        return carry._replace(past=past, influence=_chained(*past, carry.influence))
    if past is not None:
        return carry
    return carry._replace(influence=torch.where(begin, again, carry.influence))


def _moved(carry: EKFCarry, seen: Observation, made: Stretch, t: int) -> EKFCarry:
    """The influence after a step."""
    past = carry.past
    if past is None:
        influence = torch.baddbmm(seen.immediate, seen.passed, carry.influence)
        if made.alive is not None:
            influence = torch.where(made.alive[t][:, None, None], influence, carry.influence)
        return carry._replace(influence=influence)
    if not len(past[0]):
        return carry
    moved = torch.cat([past[0][1:], seen.passed[None]]), torch.cat([past[1][1:], seen.immediate[None]])
    if made.alive is not None:
        here = made.alive[t][:, None, None]
        moved = torch.where(here, moved[0], past[0]), torch.where(here, moved[1], past[1])
    return carry._replace(past=moved, influence=_chained(*moved, carry.influence))


def _named(observed: Tensor, parameters: dict[str, Tensor]) -> Direction:
    """(B, O, P) as (B, O, *shape) by name."""
    parts = observed.split([p.numel() for p in parameters.values()], -1)
    return {n: part.unflatten(-1, p.shape or (1,)) for (n, p), part in zip(parameters.items(), parts)}


def _beside(values: Direction, block: Block, lead: int = 0) -> Tensor:
    """(*lead, G, n) of the groups of a block."""
    rows: Iterable[Tensor] = (values[name] for name in block.names)
    return torch.cat([v.reshape(*v.shape[:lead], block.num_groups, -1) for v in rows], -1)


def _taken_apart(change: Tensor, block: Block, parameters: dict[str, Tensor]) -> Direction:
    """The inverse of `_beside`."""
    sizes = [parameters[name].numel() // block.num_groups for name in block.names]
    parts = change.split(sizes, -1)
    return {name: part.reshape(parameters[name].shape) for name, part in zip(block.names, parts)}
