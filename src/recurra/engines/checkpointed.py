"""Long sequences in little memory: keep a state now and then, compute the rest again in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell
from ..core.checks import is_transformed
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from .hoisted import Hoisted
from .loop import num_steps_of


@dataclass(frozen=True)
class Checkpointed(Engine):
    """Keeps the state every ``every`` steps and computes the stretch between again when the gradient comes by.

    Memory beyond inputs, outputs and their gradients: T / every states and the graph of ``every`` steps, so it grows as
    sqrt(T) for ``every = sqrt(T)``. Time: one more forward pass.

    Args:
        every: steps between two kept states; None for ceil(sqrt(T)).
        engine: runs each stretch.

    Differs:
        First derivatives only: differentiating a gradient raises; so do vmap and forward-mode derivatives.
    """

    every: int | None = None
    engine: Engine = field(default_factory=Hoisted)

    def supports(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> str | None:
        """See `Engine.supports`."""
        if any(is_transformed(leaf) for leaf in (*tree.leaves((xs, state)), *cell.parameters())):
            return "computing again does not work under torch.func or torch.compile; use Auto() or Loop()."
        if self.every is not None and self.every < 1:
            return f"every must be at least 1, got {self.every}."
        return self.engine.supports(cell, xs, state, controls)

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        every = self.every or math.ceil(math.sqrt(num_steps_of(xs)))
        parameters = dict(cell.named_parameters())  # inside functional_call: whatever stands in their place now
        plan = _Plan(_Runner(cell, self.engine), list(parameters), every, xs, state, controls)
        flat = iter(_Segments.apply(plan, *tree.leaves(xs), *tree.leaves(state), *parameters.values()))
        ys = tree.map(lambda _: next(flat), cell.output_spec)
        return ys, tree.map(lambda old, same: old if same else next(flat), state, plan.constant)


class _Runner(nn.Module):
    """Gives ``functional_call`` a module whose forward pass is an engine's run."""

    def __init__(self, cell: Cell, engine: Engine) -> None:
        super().__init__()
        self.cell, self.engine = cell, engine

    def forward(self, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        return self.engine.run(self.cell, xs, state, controls)


@dataclass
class _Plan:
    """What the forward pass leaves for the backward pass beside its tensors."""

    runner: _Runner
    names: list[str]
    every: int
    xs: Tree  # only their structure is used
    state: Tree
    controls: Controls
    kept: list[Tree] = field(default_factory=list)  # the state before each stretch
    constant: Tree = None  # tree of bool, like the state

    def stretches(self) -> list[tuple[int, int]]:
        total = num_steps_of(self.xs)
        return [(a, min(a + self.every, total)) for a in range(0, total, self.every)]


def _room(state: Tree, first: Tree, count: int) -> Tree:
    """Space for ``count`` states in one piece: small tensors that stay among large ones that go tear the memory to holes."""
    return tree.map(lambda s, old: s if s is old else s.new_empty(count, *s.shape), state, first)


def _kept(state: Tree, first: Tree, room: Tree, index: int) -> Tree:
    """The state in its place of ``room``; what is constant over time, and the first state, as they are."""
    if room is None:
        return state
    return tree.map(lambda s, old, whole: s if s is old else whole[index].copy_(s), state, first, room)


class _Segments(torch.autograd.Function):
    """Runs stretch after stretch without a graph; the backward pass builds the graph of one stretch at a time."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, total = plan.state, num_steps_of(plan.xs)
        outputs: Tree = None
        room: Tree = None
        for i, (a, b) in enumerate(plan.stretches()):
            plan.kept.append(_kept(state, plan.state, room, i))
            ys, state = plan.runner(tree.window(plan.xs, a, b), state, plan.controls.window(a, b))
            if outputs is None:
                outputs = tree.map(lambda y: y.new_empty(total, *y.shape[1:]), ys)
                room = _room(state, plan.state, len(plan.stretches()))
            tree.map(lambda whole, part, a=a, b=b: whole[a:b].copy_(part), outputs, ys)
        plan.constant = tree.map(lambda new, old: new is old, state, plan.state)
        returned = tree.leaves(outputs)
        returned += [s for s, same in tree.zip_leaves(state, plan.constant) if not same]
        ctx.plan = plan
        device = returned[0].device.type
        ctx.autocast = (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[t for t in returned if not tree.is_differentiable(t)])
        return tuple(returned)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, needed = ctx.plan, ctx.needs_input_grad[1:]
        tensors = ctx.saved_tensors
        num_xs, num_state = len(tree.leaves(plan.xs)), len(tree.leaves(plan.state))
        xs = tree.unflatten(plan.xs, tensors[:num_xs])
        parameters = [p.detach().requires_grad_(p.requires_grad) for p in tensors[num_xs + num_state :]]
        named = {f"cell.{name}": p for name, p in zip(plan.names, parameters)}
        gxs = [torch.zeros_like(x) if need else None for x, need in zip(tensors[:num_xs], needed)]
        totals: list[Tensor | None] = [None] * len(parameters)
        incoming = iter(grads)
        gys = [next(incoming) for _ in tree.leaves(plan.runner.cell.output_spec)]
        gstate = [None if same else next(incoming) for same in tree.leaves(plan.constant)]

        for (a, b), kept in reversed(list(zip(plan.stretches(), plan.kept))):
            piece = tree.map(lambda x, a=a, b=b: x[a:b].detach(), xs)
            for leaf, whole in zip(tree.leaves(piece), gxs):
                leaf.requires_grad_(whole is not None)
            before = tree.map(lambda s: s.detach().requires_grad_(tree.is_differentiable(s)), kept)
            device, enabled, dtype = ctx.autocast
            with torch.enable_grad(), torch.autocast(device, dtype, enabled=enabled):
                ys, after = functional_call(plan.runner, named, (piece, before, plan.controls.window(a, b)))
            heads = [(y, g[a:b]) for y, g in zip(tree.leaves(ys), gys) if g is not None and y.requires_grad]
            heads += [(s, g) for s, g in zip(tree.leaves(after), gstate) if g is not None and s.requires_grad]
            wanted = [t for t in (*tree.leaves(piece), *tree.leaves(before), *parameters) if t.requires_grad]
            found: Sequence[Tensor | None] = [None] * len(wanted)
            if heads and wanted:
                found = torch.autograd.grad([h for h, _ in heads], wanted, [g for _, g in heads], allow_unused=True)
            by_id = {id(t): g for t, g in zip(wanted, found)}
            for leaf, whole in zip(tree.leaves(piece), gxs):
                part = by_id.get(id(leaf))
                if whole is not None and part is not None:
                    whole[a:b] = part
            gstate = [by_id.get(id(s)) for s in tree.leaves(before)]
            for i, p in enumerate(parameters):
                g, sum_so_far = by_id.get(id(p)), totals[i]
                if g is not None:
                    totals[i] = g if sum_so_far is None else sum_so_far + g
        flat = [*gxs, *gstate, *totals]
        return (None, *[g if need else None for g, need in zip(flat, needed)])
