"""Laws about engines: all compute what `Loop` computes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell, FeedbackCell, StochasticCell, constant_leaves
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.tree import Tree
from ..engines.loop import Loop
from ..engines.unroll import Drawn, unroll
from .compare import same
from .generate import Case, case, generator_of, lengths_for, mask_for, random_like, sequence, sizes, state_of, weighted
from .law import Setting, broken, law
from .sequence_laws import attached, gradients_of
from .step_laws import shifted

LOOP = Loop()


class Result(NamedTuple):
    """What running a cell gives: outputs, the last state, and the gradients of a random scalar of both."""

    ys: Tree
    state: Tree
    gradients: dict[str, Tensor]


def outcome(
    engine: Engine,
    given: Case,
    setting: Setting,
    controls: Controls | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Result:
    """Run and differentiate; ``weights`` take the place of parameters for this run."""
    cell = given.cell
    xs, state = attached(given.xs), attached(given.state)
    ys, last = unroll(cell, xs, state, controls, engine=engine, drawn=Drawn(None, weights or {}))
    total = weighted((ys, last), random_like((ys, last), generator_of(setting, 31)))
    return Result(tree.detach(ys), tree.detach(last), gradients_of(cell, xs, state, total))


def alike(found: Result, wanted: Result, kind: str = "") -> None:
    """End the law unless two results agree."""
    same(f"an output{kind}", found.ys, wanted.ys)
    same(f"the last state{kind}", found.state, wanted.state)
    for name, gradient in wanted.gradients.items():
        if name not in found.gradients:
            broken(f"there is no gradient by {name}{kind}.")
        same(f"the gradient by {name}{kind}", found.gradients[name], gradient)


def refused(engine: Engine, given: Case, controls: Controls | None = None) -> str | None:
    """What the engine says against running this, as a reason for "not applicable"."""
    reason = engine.supports(given.cell, given.xs, given.state, controls or Controls())
    return None if reason is None else f"not supported: {reason}"


def _compared(engine: Engine, given: Case, setting: Setting, controls: Controls | None = None) -> str | None:
    reason = refused(engine, given, controls)
    if reason is None:
        alike(outcome(engine, given, setting, controls), outcome(LOOP, given, setting, controls))
    return reason


@law("supports gives None or a sentence, and calling what is not supported raises ValueError with that sentence.")
def supports(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Without controls, with lengths, with resets."""
    given = case(cell, setting)
    num_steps, batch_size = sizes(given.xs)
    several = (
        Controls(),
        Controls(lengths=lengths_for(setting, num_steps, batch_size)),
        Controls(reset=mask_for(setting, num_steps, batch_size)),
    )
    for controls in several:
        reason = engine.supports(given.cell, given.xs, given.state, controls)
        if reason is None:
            continue
        if not isinstance(reason, str) or not reason.endswith(".") or len(reason) < 10:
            broken(f"supports gives {reason!r}, which is no sentence.")
        try:
            engine(given.cell, given.xs, given.state, controls)
        except ValueError as error:
            if reason not in str(error):
                broken(f"the refusal does not say what supports says: {error}")
            continue
        broken(f"it runs what it says it does not support: {reason}")
    return None


@law("Outputs, the last state and every gradient are those of Loop.")
def equals_loop(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """From a random state; gradients by input, state and parameters."""
    return _compared(engine, case(cell, setting), setting)


@law("Without a state, an engine starts from the cell's initial state, as Loop does.")
def from_the_start(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Gradients of learned initial values are among those compared."""
    given = case(cell, setting)._replace(state=None)
    reason = refused(engine, case(cell, setting))
    if reason is None:
        alike(outcome(engine, given, setting), outcome(LOOP, given, setting))
    return reason


@law("With true lengths, outputs, states and gradients are those of Loop.")
def lengths(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Zero and T are among the lengths where there are three rows."""
    given = case(cell, setting)
    num_steps, batch_size = sizes(given.xs)
    return _compared(engine, given, setting, Controls(lengths=lengths_for(setting, num_steps, batch_size)))


@law("With resets, outputs, states and gradients are those of Loop.")
def resets(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Random resets, with lengths beside them."""
    given = case(cell, setting)
    num_steps, batch_size = sizes(given.xs)
    mask, ends = mask_for(setting, num_steps, batch_size), lengths_for(setting, num_steps, batch_size)
    reason = _compared(engine, given, setting, Controls(reset=mask))
    return reason or _compared(engine, given, setting, Controls(lengths=ends, reset=mask))


@law("With forced feedback, outputs, states and gradients are those of Loop.")
def forcing(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Everywhere, and by a mask."""
    if not isinstance(cell, FeedbackCell):
        return "the cell is no FeedbackCell."
    given = case(cell, setting)
    num_steps, batch_size = sizes(given.xs)
    forced = [state_of(given.cell, batch_size, generator_of(setting, 32 + t)).feedback for t in range(num_steps)]
    if not forced:
        return "there is no step to force."
    mask = mask_for(setting, num_steps, batch_size, 33)
    reason = _compared(engine, given, setting, Controls(forced=tree.stack(forced)))
    return reason or _compared(engine, given, setting, Controls(forced=tree.stack(forced), force_mask=mask))


@law("Input and state may lie in memory in any order.")
def strided(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Batch-first memory seen time-first, and every second row of a larger tensor."""
    given = case(cell, setting)
    turned = given._replace(
        xs=tree.map(lambda t: t.transpose(0, 1).contiguous().transpose(0, 1), given.xs),
        state=tree.map(lambda s: torch.stack([s, s], 1)[:, 0], given.state),
    )
    reason = refused(engine, turned)
    if reason is None:
        with torch.no_grad():
            found = engine(turned.cell, turned.xs, turned.state)
            same("an output or state of strided input", found, LOOP(given.cell, given.xs, given.state))
    return reason


@law("A sequence without steps gives outputs without steps and the state as it was.")
def no_steps(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """T = 0."""
    given = case(cell, setting)
    empty = given._replace(xs=tree.window(given.xs, 0, 0))
    reason = refused(engine, empty)
    if reason is None:
        ys, last = engine(empty.cell, empty.xs, empty.state)
        same("the state after no step", last, given.state, 0.0)
        same("the output of no step", ys, LOOP(empty.cell, empty.xs, empty.state)[0], 0.0)
    return reason


@law("Without gradients the values are the same.")
def no_grad(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """``torch.no_grad()``, as in evaluation."""
    given = case(cell, setting)
    reason = refused(engine, given)
    if reason is None:
        with torch.no_grad():
            found = engine(given.cell, given.xs, given.state)
            same("an output or state without gradients", found, LOOP(given.cell, given.xs, given.state))
    return reason


@law("Parameters put in by functional_call are used, and their gradients are those of Loop.")
def other_weights(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """As weight noise and evolution do it."""
    given = case(cell, setting)
    if not dict(given.cell.named_parameters()):
        return "the cell has no parameters."
    reason = refused(engine, given)
    if reason is not None:
        return reason

    def run(which: Engine) -> Result:
        leaves = {name: p.requires_grad_(tree.is_differentiable(p)) for name, p in shifted(given.cell, setting).items()}
        xs, state = attached(given.xs), attached(given.state)
        ys, last = unroll(given.cell, xs, state, engine=which, drawn=Drawn(None, leaves))
        total = weighted((ys, last), random_like((ys, last), generator_of(setting, 31)))
        wanted = {name: p for name, p in leaves.items() if p.requires_grad}
        if not total.requires_grad:
            return Result(tree.detach(ys), tree.detach(last), {})
        grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        found = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(wanted.items(), grads)}
        return Result(tree.detach(ys), tree.detach(last), found)

    alike(run(engine), run(LOOP), " with other parameters")
    return None


@law("A leaf of the state that the step hands back untouched comes back untouched.")
def constants(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """The very same tensor."""
    given = case(cell, setting, min_steps=2)
    kept = constant_leaves(given.cell, tree.at(given.xs, 0), given.state)
    if not any(kept):
        return "the cell has no constant leaf."
    reason = refused(engine, given)
    if reason is None:
        _, last = engine(given.cell, given.xs, given.state)
        for name, constant, (new, old) in zip(tree.names(last), kept, tree.zip_leaves(last, given.state)):
            if constant and new is not old:
                broken(f"state {name} is constant and comes back as another tensor.")
    return reason


@law("A StochasticCell with the same noise gives the same numbers, its noisy parameters included.")
def same_noise(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """`draw` and `draw_weights` once, then both engines; and without noise."""
    if not isinstance(cell, StochasticCell):
        return "the cell is no StochasticCell."
    given = case(cell, setting)
    num_steps, batch_size = sizes(given.xs)
    noisy = given._replace(xs=sequence(given.cell, num_steps, batch_size, generator_of(setting, 34)))
    weights = given.cell.draw_weights(generator_of(setting, 35))
    still = given._replace(xs=sequence(given.cell, num_steps, batch_size, generator_of(setting, 36), noisy=False))
    for kind, one, drawn in ((" with noise", noisy, weights), (" without noise", still, {})):
        reason = refused(engine, one)
        if reason is not None:
            return reason
        fixed = {name: w.detach() for name, w in drawn.items()}
        alike(outcome(engine, one, setting, None, fixed), outcome(LOOP, one, setting, None, fixed), kind)
    return None


class _Once(nn.Module):
    """A module around an engine's run."""

    def __init__(self, cell: Cell, engine: Engine) -> None:
        super().__init__()
        self.cell, self.engine = cell, engine

    def forward(self, xs: Tree, state: Tree) -> tuple[Tree, Tree]:
        return self.engine(self.cell, xs, state)


@law("Under vmap over stacked parameters an engine gives what Loop gives, or says that it does not run there.")
def ensemble(engine: Engine, cell: Cell, setting: Setting) -> str | None:
    """Two members; what is refused inside vmap must be refused with the engine's own sentence."""
    given = case(cell, setting)
    members = [shifted(given.cell, setting, offset) for offset in (37, 38)]
    if not members[0]:
        return "the cell has no parameters."
    reason = refused(engine, given)
    if reason is not None:
        return reason
    stacked = {f"cell.{name}": torch.stack([m[name] for m in members]) for name in members[0]}

    def run(which: Engine) -> list[Tensor]:
        layer = _Once(given.cell, which)
        return torch.func.vmap(lambda p: tree.leaves(functional_call(layer, p, (given.xs, given.state))))(stacked)

    with torch.no_grad():
        try:
            found = run(engine)
        except ValueError as error:
            if str(error).startswith(f"{engine}: "):
                return f"not supported: {str(error).removeprefix(f'{engine}: ')}"
            raise
        same("an output or state of an ensemble", tuple(found), tuple(run(LOOP)))
    return None
