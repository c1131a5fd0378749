"""Learning step by step in machine code: one step of learning is itself a recurrent step.

    state = (parameters, carry of the rule, what the update keeps),   input = (x, target, weight, reset),   output = (y, loss)

The readable step of the rule and of the update is traced once, and becomes one graph that runs over all steps. No rule and
no cell is known here. Random numbers are drawn before the loop, in the order in which the steps would draw them. What cannot
be traced is refused with a reason.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..core import tree
from ..core.cell import Cell, ConstrainedCell
from ..core.controls import Controls
from ..core.rule import Chunk
from ..engines.native import identity_of, settings_of
from .linearised import learning
from .online import Online, OnlineState, OnlineTrace, counts

if TYPE_CHECKING:
    from ..native.repeat import Repeated

_FEW = 9
"""Steps for which every new plan is compared with the readable loop; odd, for plans that take two at once."""

_STEPS: weakref.WeakKeyDictionary[Cell, dict[Any, Any]] = weakref.WeakKeyDictionary()
_LARGE = 2**14
"""Bytes of what a rule keeps from which on steps that leave the parameters alone are taken two at once: a large influence
passes through the cache once for both."""

_ALIKE: dict[Any, Any] = {}
_MOST_ALIKE = 64


class Growing(str):
    """A reason that will pass: after some steps the rule keeps things of another form."""

    __slots__ = ()


Done = tuple[OnlineState, OnlineTrace]


def native_run(
    online: Online, cell: Cell, state: OnlineState, chunk: Chunk, factor: Tensor
) -> Callable[[], Done] | str:
    """What `Online.run` does, in machine code, as a function to be called; or the reason why there is none."""
    found = _steps(online, cell, state, chunk, factor)
    return found if isinstance(found, str) else partial(found[0].run, found[1])


def _steps(online: Online, cell: Cell, state: OnlineState, chunk: Chunk, factor: Tensor) -> tuple[Steps, _Form] | str:
    form = _Form(online, cell, state, chunk, factor)
    reason = form.refused()
    if reason is not None:
        return reason
    key = (form.online_key, settings_of(cell), form.key)
    known = _STEPS.setdefault(cell, {})
    if key not in known:
        identity = identity_of(cell)
        alike = None if identity is None else (identity, key)
        steps = _ALIKE.get(alike) if alike is not None else None
        if steps is None:
            steps = _made(form)
            if alike is not None:
                if len(_ALIKE) >= _MOST_ALIKE:
                    del _ALIKE[next(iter(_ALIKE))]
                _ALIKE[alike] = steps
        known[key] = (steps, online)  # an online that is known by its place in memory stays there
    steps = known[key][0]
    if isinstance(steps, str):
        return steps
    form.draws = steps.draws
    return steps, form


class Bound:
    """A stream's steps in machine code by one small call each: what `native_run` looks up every time was looked up once.

    As long as it is used, nobody else changes the cell's options, buffers or which parameters learn. Chunks have neither
    weights nor controls, and leaves as the one that it was made from.

    Args:
        steps: compiled.
        form: of the first chunk.
    """

    def __init__(self, steps: Steps, form: _Form) -> None:
        self.steps, self.form = steps, form
        self.parameters = list(learning(form.cell).values())
        self.fixed = form.fixed()
        self.last: tuple[OnlineState, list[Any]] = (form.state, form.leaves)

    def run(self, state: OnlineState, chunk: Chunk) -> Done:
        """See `Online.run`."""
        form, parameters = self.form, self.parameters
        leaves = self.last[1] if state is self.last[0] else _pytree.tree_leaves(tuple(state))
        inputs = [*tree.leaves(chunk.xs), *tree.leaves(chunk.targets)]
        rng = None
        if form.draws:
            form.leaves = leaves
            drawn, rng = form.drawn(int(inputs[0].shape[0]))
            inputs += drawn
        values = [*(p.detach() for p in parameters), *(leaves[i] for i in form.moving)]
        outputs, last = self.steps.plan.run(self.fixed, inputs, values, int(inputs[0].shape[0]))
        with torch.no_grad():
            for p, value in zip(parameters, last):
                p.copy_(value)
        leaves = list(leaves)
        if form.draws:
            leaves[form.rng] = rng
        for i, value in zip(form.moving, last[len(parameters) :]):
            leaves[i] = value
        new = OnlineState(*_pytree.tree_unflatten(leaves, form.structure))
        self.last = new, leaves
        losses, weights, *ys = outputs
        return new, OnlineTrace(losses, weights, tree.unflatten(self.steps.y_like, ys))


def bind(online: Online, cell: Cell, state: OnlineState, chunk: Chunk) -> Bound | str:
    """Steps like this chunk's as a `Bound`, or the reason why there is no machine code for them."""
    if chunk.weights is not None or any(c is not None for c in chunk.controls):
        return "the chunk has weights or controls"
    found = _steps(online, cell, state, chunk, torch.ones((), dtype=cell.dtype))
    return found if isinstance(found, str) else Bound(*found)


def _made(form: _Form) -> Any:
    try:
        from ..native.autodiff import Unsupported
        from ..native.repeat import Repeated, Together
    except ImportError as error:
        return f"machine code needs the package llvmlite ({error})"
    try:
        form.draws = _draws_of(form)
        given = form.step, form.fixed(), form.inputs(at=0), form.states()
        one = Repeated(*given)
        plan = Together(one, *given) if _is_large(one, len(form.names)) else one
    except (Unsupported, ImportError, _Changing) as error:
        return Growing(error) if form.grows else str(error)
    except Exception as error:  # the readable loop runs whatever happens here
        return f"it could not be built ({type(error).__name__}: {error})"
    steps = Steps(form, plan)
    wrong = steps.check(form)
    return steps if wrong is None else f"its plan gave other numbers ({wrong})"


def _is_large(plan: Repeated, num_parameters: int) -> bool:
    """Whether much is kept, and most of the parameters stay; where they move as well, two steps at once can cost more."""
    moving = [0 if constant else old.size for old, constant in zip(plan.whole.old, plan.constant)]
    still = sum(old.size for old in plan.whole.old[:num_parameters]) - sum(moving[:num_parameters])
    return still > sum(moving[:num_parameters]) and sum(moving) * plan.dtype.itemsize >= _LARGE


class _Inside(nn.Module):
    """Calls a function while a cell has other parameters."""

    def __init__(self, cell: Cell, function: Any) -> None:
        super().__init__()
        self.cell, self.function = cell, function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class _Form:
    """What a loop is made from, and what decides its form."""

    def __init__(self, online: Online, cell: Cell, state: OnlineState, chunk: Chunk, factor: Tensor) -> None:
        self.online, self.cell, self.state, self.chunk, self.factor = online, cell, state, chunk, factor
        self.parameters = learning(cell)
        self.names = list(self.parameters)
        held = {n: t for n, t in (*cell.named_parameters(), *cell.named_buffers()) if n not in self.parameters}
        self.held_names = [name for name, t in held.items() if t.is_floating_point() or t.dtype == torch.bool]
        self.held = [held[name] for name in self.held_names]
        self.baked = [(name, t) for name, t in held.items() if name not in self.held_names]
        self.leaves, self.structure = _pytree.tree_flatten(tuple(state))
        self.moving = [i for i, leaf in enumerate(self.leaves) if _is_number(leaf)]
        self.draws: list[_Draw] = []
        self.grows = False
        self.weighted = chunk.weights is not None
        self.scaled = not (factor.ndim == 0 and float(factor) == 1.0)
        try:
            same = replace(online, native=None)
            self.online_key: Any = same if hash(same) is not None else None
        except TypeError:
            self.online_key = id(online)
        inputs = self.inputs(at=None)
        self.key = (
            tuple(self.names),
            tuple(self.held_names),
            tuple((name, tuple(t.shape), str(t.dtype), bytes(t.detach().numpy().tobytes())) for name, t in self.baked),
            tuple((tuple(t.shape[1:]), t.dtype) for t in inputs),
            tuple((tuple(self.leaves[i].shape), self.leaves[i].dtype) for i in self.moving),
            self.structure,
            self.weighted,
            self.scaled,
            tuple(c is not None for c in chunk.controls),
            tree.describe(tree.at(chunk.xs, 0)),
        )

    def refused(self) -> str | None:
        """Why this cannot be native at all."""
        if self.chunk.controls.lengths is not None:
            return "rows end early (lengths)"
        tensors = [*self.inputs(at=None), *self.states(), *self.fixed()]
        if any(not t.is_cpu for t in tensors):
            return "not on the CPU"
        if any(type(t) not in (Tensor, nn.Parameter, nn.Buffer) for t in tensors):
            return "inside a transformation"
        if torch.is_autocast_enabled("cpu"):
            return "under autocast"
        return None

    def inputs(self, at: int | None) -> list[Tensor]:
        """Leaves of one step, or of all (None)."""
        chunk, controls = self.chunk, self.chunk.controls
        found = [*tree.leaves(chunk.xs), *tree.leaves(chunk.targets)]
        num_steps = int(found[0].shape[0])
        if self.weighted:
            assert chunk.weights is not None
            found += [chunk.weights, counts(chunk, num_steps)]
        if self.scaled:
            found.append(self.factor.expand(num_steps))
        found += [c for c in (controls.reset, controls.force_mask) if c is not None]
        found += tree.leaves(controls.forced)
        if self.draws:
            found += self.drawn(num_steps if at is None else 1)[0]
        return [t.detach() if at is None else t[at].detach() for t in found]

    def drawn(self, num_steps: int) -> tuple[list[Tensor], Tensor]:
        """What the steps draw, (T, ...) each, and the state of the generator after that."""
        generator = torch.Generator()
        generator.set_state(self.leaves[self.rng])
        each = [[draw(generator) for draw in self.draws] for _ in range(num_steps)]
        return [torch.stack(column) for column in zip(*each)], generator.get_state()

    @property
    def rng(self) -> int:
        """The place of the generator's state among the leaves."""
        return next(i for i, leaf in enumerate(self.leaves) if _is_rng(leaf))

    def fixed(self) -> list[Tensor]:
        """What does not learn."""
        return [t.detach() for t in self.held]

    def states(self) -> list[Tensor]:
        """Parameters, then what moves of carry and update."""
        return [*(p.detach() for p in self.parameters.values()), *(self.leaves[i].detach() for i in self.moving)]

    def step(
        self, fixed: Sequence[Tensor], inputs: Sequence[Tensor], states: Sequence[Tensor], *, probe: bool = False
    ) -> Any:
        """One step of learning on flat lists; with ``probe``, the rule's step alone is taken."""
        online, cell = self.online, self.cell
        supply = iter(inputs)

        def given(like: Any) -> Any:
            return tree.map(lambda _: next(supply)[None], like)

        chunk, controls = self.chunk, self.chunk.controls
        xs, targets = given(chunk.xs), given(chunk.targets)
        weights = next(supply)[None] if self.weighted else None
        active = next(supply) if self.weighted else None
        factor = next(supply) if self.scaled else torch.ones((), dtype=cell.dtype)
        reset = None if controls.reset is None else next(supply)[None]
        force_mask = None if controls.force_mask is None else next(supply)[None]
        one = Chunk(xs, targets, weights, Controls(None, reset, given(controls.forced), force_mask))

        num = len(self.names)
        leaves = list(self.leaves)
        for i, value in zip(self.moving, states[num:]):
            leaves[i] = value
        carry, moments = _pytree.tree_unflatten(leaves, self.structure)
        parameters = {n: p.detach().requires_grad_() for n, p in zip(self.names, states[:num])}
        values = {n: p.detach() for n, p in parameters.items()}
        held = {f"cell.{n}": t for n, t in zip(self.held_names, fixed)}
        inside = _Inside(cell, lambda: online.rule.step(cell, carry, one, online.loss))
        with _Given(list(supply)) if self.draws else nullcontext():
            new_carry, estimate = functional_call(inside, held | {f"cell.{n}": p for n, p in parameters.items()}, ())
        if probe:
            return None
        if online.update is None:
            moved = values | {n: values[n] - d for n, d in estimate.direction.items()}
            new_moments = moments
        else:
            moved, new_moments = online.update.apply(values, estimate.direction, moments, factor)
        moved = self._constrained(moved, held)
        new_leaves, structure = _pytree.tree_flatten((new_carry, new_moments))
        self.grows = structure != self.structure or any(
            new.shape != old.shape for old, new in zip(leaves, new_leaves) if isinstance(new, Tensor)
        )
        if self.grows:
            raise _Changing("what the rule keeps has not reached its form yet")
        new_states = [moved[n] for n in self.names]
        keep_from = len(new_states)
        for i, (old, new) in enumerate(zip(leaves, new_leaves)):
            if i in self.moving:
                new_states.append(new)
            elif not _is_same(old, new):
                raise _Changing(
                    "the rule draws random numbers" if _is_rng(old) else "the carry holds what is no number"
                )
        if active is not None:  # parameters and what the update keeps stay where nothing counts
            num_carry = len([i for i in self.moving if i < len(_pytree.tree_flatten(carry)[0])])
            for k, (new, old) in enumerate(zip(new_states, states)):
                if not keep_from <= k < keep_from + num_carry and new is not old:
                    new_states[k] = torch.where(active, new, old)
        outputs = [estimate.loss, estimate.weight, *(y[0] for y in tree.leaves(estimate.outputs))]
        self.y_like = tree.map(lambda _: 0, estimate.outputs)
        return outputs, new_states

    def _constrained(self, moved: dict[str, Tensor], held: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = [m for m in self.cell.modules() if isinstance(m, ConstrainedCell)]
        if not parts:
            return moved
        copies = {n: p.clone() for n, p in moved.items()}

        def constrain() -> None:
            for part in parts:
                part.constrain()

        with torch.no_grad():
            functional_call(_Inside(self.cell, constrain), held | {f"cell.{n}": p for n, p in copies.items()}, ())
        return copies


# --- random numbers ---


class _Draw(NamedTuple):
    """One call that draws: an operation of torch's, its arguments, and, where it fills a tensor, that tensor's form."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    fills: Tensor | None

    def __call__(self, generator: torch.Generator) -> Tensor:
        first = () if self.fills is None else (torch.empty_like(self.fills),)
        found: Tensor = self.operation(*first, *self.args, **self.kwargs, generator=generator)
        return found


def _is_drawing(operation: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in operation.tags


class _Recorded(TorchDispatchMode):
    """Writes down what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[_Draw] = []
        self.grows = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if _is_drawing(func):
            rest = dict(kwargs or {})
            if rest.pop("generator", None) is None or not isinstance(found, Tensor):
                raise _Changing("the step draws random numbers from torch's own generator")
            fills = args[0].detach().clone() if func._schema.is_mutable else None
            given = args[1:] if func._schema.is_mutable else args
            self.draws.append(_Draw(func, tuple(_pytree.tree_map_only(Tensor, torch.clone, given)), rest, fills))
        return found


class _Given(TorchDispatchMode):
    """Puts given numbers in the place of what is drawn."""

    def __init__(self, supply: list[Tensor]) -> None:
        super().__init__()
        self.supply = iter(supply)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_drawing(func):
            return func(*args, **(kwargs or {}))
        number = next(self.supply)
        return args[0].copy_(number) if func._schema.is_mutable else number.clone()


def _draws_of(form: _Form) -> list[_Draw]:
    """What one step draws, found by taking it."""
    if sum(map(_is_rng, form.leaves)) != 1:
        return []
    with _Recorded() as recorded:
        one = [t.clone() for t in form.inputs(at=0)]
        form.step(form.fixed(), one, [t.clone() for t in form.states()], probe=True)
    return recorded.draws


class _Changing(Exception):
    """A step that is not the same function every time."""


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.dtype in (torch.int64, torch.bool))


def _is_rng(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.uint8


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return isinstance(new, Tensor) and torch.equal(old, new)
    return bool(old == new)


class Steps:
    """Compiled steps of learning."""

    def __init__(self, form: _Form, plan: Any) -> None:
        self.plan, self.y_like, self.draws = plan, form.y_like, form.draws

    def run(self, form: _Form) -> Done:
        """See `Online.run`."""
        rng = None
        draws, form.draws = form.draws, []
        inputs = form.inputs(at=None)
        form.draws = draws
        if draws:
            drawn, rng = form.drawn(int(inputs[0].shape[0]))
            inputs += drawn
        outputs, last = self.plan.run(form.fixed(), inputs, form.states(), int(inputs[0].shape[0]))
        parameters = form.parameters
        with torch.no_grad():
            for p, value in zip(parameters.values(), last):
                p.copy_(value)
        leaves = list(form.leaves)
        if form.draws:
            leaves[form.rng] = rng
        for i, value in zip(form.moving, last[len(parameters) :]):
            leaves[i] = value
        losses, weights, *ys = outputs
        trace = OnlineTrace(losses, weights, tree.unflatten(self.y_like, ys))
        return OnlineState(*_pytree.tree_unflatten(leaves, form.structure)), trace

    def check(self, form: _Form) -> str | None:
        """Compare a few steps with the readable loop; what differs."""
        cell, chunk, online = form.cell, form.chunk, form.online
        few = min(_FEW, int(tree.leaves(chunk.xs)[0].shape[0]))
        part = Chunk(
            tree.window(chunk.xs, 0, few),
            tree.window(chunk.targets, 0, few),
            None if chunk.weights is None else chunk.weights[:few],
            chunk.controls.window(0, few),
        )
        factor = form.factor[:few] if form.factor.ndim else form.factor
        parameters = learning(cell)
        before = [p.detach().clone() for p in parameters.values()]
        found: list[list[Tensor]] = []
        for way in (self.run, lambda f: online.loop(cell, form.state, part, factor)):
            again = _Form(online, cell, form.state, part, factor)
            again.draws = self.draws
            try:
                state, trace = way(again)
                values = [*parameters.values(), *_pytree.tree_leaves(tuple(state)), *tree.leaves(tuple(trace))]
                found.append([v.detach().clone() for v in values if isinstance(v, Tensor) and v.is_floating_point()])
            finally:
                with torch.no_grad():
                    for p, value in zip(parameters.values(), before):
                        p.copy_(value)
        near = 2e-3 if cell.dtype == torch.float32 else 1e-7
        for ours, theirs in zip(*found):
            scale = theirs[theirs.isfinite()].abs().max().item() if theirs.isfinite().any() else 1.0
            if not torch.allclose(ours, theirs, rtol=near, atol=near * max(scale, 1e-3), equal_nan=True):
                return f"off by {(ours - theirs).abs().max().item():.1e} where the largest is {scale:.1e}"
        return None
