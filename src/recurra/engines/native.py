"""Any cell as machine code."""

from __future__ import annotations

import operator
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell, FeedbackCell, Noisy, StochasticCell
from ..core.checks import is_transformed
from ..core.controls import Controls
from ..core.engine import Engine
from ..core.spec import Leaf
from ..core.tree import Tree
from .hoisted import Hoisted, run_structure
from .loop import num_steps_of, scan


@dataclass(frozen=True)
class Native(Engine):
    """Turns the cell's step into machine code, forward and backward, with the time loop inside.

    The step is traced once; what depends on the input alone is computed by torch for all steps at once, the rest becomes
    a loop in machine code (LLVM, no compiler needed; kept on disk). Every new plan is compared once with eager autograd
    before it is trusted. What has no native form runs on `Hoisted`, and the reason is said once.

    Under ``torch.compile``, ``torch.export`` and ``vmap`` the loop is an operator of torch's (`recurra.native.operators`);
    a graph does not break. Second derivatives run the traced step in torch. ``torch.func.grad`` and its like, forward-mode
    derivatives, autocast and other devices than the CPU run on `Hoisted`, without a word.

    Args:
        silent: nothing is said when a cell has no native form.
    """

    silent: bool = False

    def run(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
        """See `Engine.run`."""
        done = run_structure(self, cell, xs, state, controls)
        if done is not None:
            return done
        if torch.compiler.is_compiling() or _is_mapped(cell, xs, state):
            return _by_operator(cell, xs, state, controls)
        walked = _walk(cell)
        job = _job(cell, walked, xs, state, controls)
        if isinstance(job, str):
            if isinstance(job, _Refusal) and not self.silent:
                _say(job)
            return Hoisted().run(cell, xs, state, controls)
        return job.run(cell, walked.parameters, xs, state, controls)


class _Refusal(str):
    """A sentence that a user of this engine should hear once."""

    __slots__ = ()


class _Stepper(nn.Module):
    """A cell's step with forcing, as a module whose call is one step."""

    def __init__(self, cell: Cell, forced: bool, masked: bool) -> None:
        super().__init__()
        self.cell, self.forced, self.masked = cell, forced, masked

    def forward(self, x: Tree, state: Tree, extra: Sequence[Tensor], like: Tree) -> tuple[Tree, Tree]:
        """The step, then what is forced."""
        y, new = self.cell.step(x, state)
        if self.forced:
            assert isinstance(self.cell, FeedbackCell)
            mask = extra[-1] if self.masked else None
            values = tree.unflatten(like, extra[:-1] if self.masked else extra)
            new = self.cell.force(new, values, mask)
        return y, new


_MANY = 8
"""Rows from which on products of the input are computed inside the loop, if their weights fit into the cache."""

_LITTLE = 500_000
"""T B D S up to which a call of torch's product costs more than what it saves: then too it is computed inside the loop."""

_PLANS: weakref.WeakKeyDictionary[Cell, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _job(cell: Cell, walked: _Walked, xs: Tree, state: Tree, controls: Controls) -> Any:
    """The compiled step, or the reason why there is none."""
    inputs, states = tree.leaves(xs), tree.leaves(state)
    leaves = [*inputs, *states, *tree.leaves(controls.forced), *walked.parameters]
    inside = torch._C._functorch.peek_interpreter_stack() is not None and any(map(is_transformed, leaves))
    if inside or any(type(t) not in _TENSORS for t in leaves) or torch.autograd.forward_ad._current_level >= 0:
        return "inside torch.func or with forward-mode derivatives"
    if not all(leaf.is_cpu for leaf in leaves):
        return "not on the CPU"
    if torch.is_autocast_enabled("cpu"):
        return "under autocast"
    num_steps, rows = inputs[0].shape[:2]
    if rows == 0 or num_steps == 0:
        return "no rows"
    by_inputs = backward = False
    if torch.is_grad_enabled():
        by_inputs = any(leaf.requires_grad for leaf in (*inputs, *tree.leaves(controls.forced)))
        backward = by_inputs or any(leaf.requires_grad for leaf in leaves)
    size = sum([prod(leaf.shape[2:]) for leaf in inputs]) * sum([prod(leaf.shape[1:]) for leaf in states])
    wanted = (rows >= _MANY or num_steps * rows * size <= _LITTLE, by_inputs, backward)
    return _job_of(cell, walked, xs, state, controls, wanted)


def _job_of(
    cell: Cell, walked: _Walked, xs: Tree, state: Tree, controls: Controls, wanted: tuple[bool, bool, bool]
) -> Any:
    """The compiled step of a variant: (for many rows, with derivatives by inputs, with derivatives)."""
    key = (
        walked.settings,
        *[(leaf.shape[2:], leaf.dtype) for leaf in tree.leaves(xs)],
        *[(leaf.shape[1:], leaf.dtype) for leaf in tree.leaves(state)],
        *[control is not None for control in controls],
        *wanted,
    )
    known = _PLANS.get(cell)
    if known is None:
        known = _PLANS[cell] = {}
    found = known.get(key)
    if found is None:
        found = known[key] = _made(cell, key, xs, state, controls, wanted)
    return found


def refusals(cell: Cell) -> list[str]:
    """Why the sequences that a cell was run on with `Native` so far ran on `Hoisted`; empty if they did not."""
    return [job for job in _PLANS.get(cell, {}).values() if isinstance(job, str)]


def _is_mapped(cell: Cell, xs: Tree, state: Tree) -> bool:
    """Inside vmap, and no other transformation of torch.func, with numbers that are mapped over."""
    functorch = torch._C._functorch
    if functorch.peek_interpreter_stack() is None:
        return False
    stack = functorch.get_interpreter_stack() or []
    leaves = (*tree.leaves((xs, state)), *cell.parameters())
    return all(i.key() == functorch.TransformType.Vmap for i in stack) and any(map(functorch.is_batchedtensor, leaves))


def _by_operator(cell: Cell, xs: Tree, state: Tree, controls: Controls) -> tuple[Tree, Tree]:
    """All steps through the operators that torch can compile, export and map."""
    parameters = _walk(cell).parameters
    leaves = [*tree.leaves((xs, state)), *tree.leaves(controls.forced), *parameters]
    first = tree.leaves(xs)[0]
    rows = first.shape[1]
    given = (*tree.leaves(xs), *tree.leaves(controls.forced))
    mapped = not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
    # what is mapped over does not say whether the numbers below it want a derivative
    by_inputs = torch.is_grad_enabled() and (mapped or any(leaf.requires_grad for leaf in given))
    backward = torch.is_grad_enabled() and (mapped or any(leaf.requires_grad for leaf in leaves))
    plain = all(leaf.device.type == "cpu" for leaf in leaves) and not torch.is_autocast_enabled("cpu")
    name = ""
    if plain and rows > 0:
        name = _plan_name(
            cell,
            tuple([_form_of(leaf, 2) for leaf in tree.leaves(xs)]),
            tuple([_form_of(leaf, 1) for leaf in tree.leaves(state)]),
            tuple([_form_of(leaf, 2) for leaf in tree.leaves(controls.forced)]),
            (
                controls.lengths is not None,
                controls.reset is not None,
                controls.force_mask is not None,
                by_inputs,
                backward,
            ),
        )
    if not name:
        return Hoisted().run(cell, xs, state, controls)
    inputs = [*tree.leaves(xs), *tree.leaves(controls.forced)]
    if controls.force_mask is not None:
        inputs.append(controls.force_mask)
    states = tree.leaves(state)
    fresh = [] if controls.reset is None else tree.leaves(cell.initial_state(rows))
    alive = controls.alive(first.shape[0])
    out = list(torch.ops.recurra.sequence(name, parameters, inputs, states, fresh, alive, controls.reset))
    num = len(tree.leaves(cell.output_spec))
    last = iter(out[num:])
    new = [old if fixed == "=" else next(last) for old, fixed in zip(states, _fixed(name))]
    return tree.unflatten(cell.output_spec, out[:num]), tree.unflatten(state, new)


Form = tuple[str | int, ...]


def _form_of(leaf: Tensor, lead: int) -> Form:
    """Type and shape of a leaf behind its leading dimensions, all plain: a constant for a compiler."""
    return (str(leaf.dtype), *(operator.index(n) for n in leaf.shape[lead:]))


def _example(form: Form, item: Leaf | None, *lead: int, generator: torch.Generator) -> Tensor:
    """A tensor of a form, its numbers in the range of its spec."""
    name, *sizes = form
    shape, dtype = (*lead, *map(int, sizes)), getattr(torch, str(name).removeprefix("torch."))
    low, high = (None, None) if item is None else (item.low, item.high)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not dtype.is_floating_point:
        first = int(low or 0)
        last = first + 1 if item is None else int(high) if high is not None else first + 8
        return torch.randint(first, last, shape, generator=generator, dtype=dtype)
    if low is not None and high is not None:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)
    normal = 0.5 * torch.randn(shape, generator=generator, dtype=dtype)
    return normal if low is None else low + normal.abs()


@torch.compiler.assume_constant_result
def _fixed(name: str) -> str:
    """For each leaf of the state: "=" where a step hands it back as it is."""
    from ..native.operators import find

    return "".join("=" if fixed else "x" for fixed in find(name).constant)


Forms = tuple[Form, ...]


@torch.compiler.assume_constant_result
def _plan_name(cell: Cell, x_forms: Forms, state_forms: Forms, forced_forms: Forms, flags: tuple[bool, ...]) -> str:
    """The name of the plan for tensors of some form, made if need be; empty where there is none.

    Here is no tensor with numbers in it, since this runs while a compiler looks on; the plan is checked on made-up ones.
    """
    lengths, reset, masked, by_inputs, backward = flags
    generator = torch.Generator().manual_seed(0)
    rows = steps = 3
    with _aside():

        def made(forms: Forms, like: Tree, *lead: int, spec: Tree = None) -> Tree:
            items = tree.leaves(spec) if spec is not None else []
            items += [None] * (len(forms) - len(items))
            return tree.unflatten(like, [_example(f, i, *lead, generator=generator) for f, i in zip(forms, items)])

        def job(_: None) -> Any:
            spec, start = cell.input_spec, cell.state_spec
            like = spec
            if isinstance(cell, StochasticCell):
                noisy = len(x_forms) > len(tree.leaves(spec))
                like = Noisy(spec, cell.draw(steps, rows, generator) if noisy else None)
            controls = Controls(
                torch.tensor([1, steps, 2]) if lengths else None,
                torch.rand(steps, rows, generator=generator) < 0.4 if reset else None,
                made(forced_forms, start.feedback, steps, rows) if forced_forms else None,
                torch.rand(steps, rows, generator=generator) < 0.5 if masked else None,
            )
            xs = made(x_forms, like, steps, rows, spec=spec)
            return _job_of(
                cell, _walk(cell), xs, made(state_forms, start, rows), controls, (False, by_inputs, backward)
            )

        own = {f"cell.{n}": _real(t, generator) for n, t in (*cell.named_parameters(), *cell.named_buffers())}
        found = functional_call(_Holder(cell, job), own, (None,))
        if isinstance(found, str):
            return ""
        from ..native.operators import register

        return register(found.plan)


class _Holder(nn.Module):
    """Calls a function while a cell has other parameters."""

    def __init__(self, cell: Cell, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.cell, self.function = cell, function

    def forward(self, value: Any) -> Any:
        return self.function(value)


def _real(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A parameter with numbers in it: itself, or random ones where a compiler has taken its own away."""
    if type(tensor) in (Tensor, nn.Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return tensor
    shape = tuple(int(n) for n in tensor.shape)
    if not tensor.is_floating_point():
        return torch.zeros(shape, dtype=tensor.dtype)
    return (0.4 * torch.randn(shape, generator=generator, dtype=tensor.dtype)).requires_grad_(tensor.requires_grad)


@contextmanager
def _aside() -> Iterator[None]:
    """Plain tensors again, while a compiler or a transformation is at work."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), temporarily_clear_interpreter_stack(), torch.inference_mode(False):
        yield


_SAID: set[str] = set()


def settings_of(cell: Cell) -> tuple[Any, ...]:
    """Everything plain that a step might look at, and the forms of parameters and buffers."""
    return _walk(cell).settings


def identity_of(cell: Cell) -> tuple[Any, ...] | None:
    """Everything about a cell but its parameters' values; None where it holds something that cannot be compared."""
    return _identity(cell)


class _Walked(NamedTuple):
    """A cell at the time of a call.

    Args:
        settings: everything plain that a step might look at, and the forms of parameters and buffers: a changed option makes
            another plan.
        parameters: parameters and buffers, each once.
        names: theirs.
    """

    settings: tuple[Any, ...]
    parameters: list[Tensor]
    names: list[str]


_TENSORS = {Tensor, nn.Parameter, nn.Buffer}
_PLAIN = {bool, int, float, str}
_OTHER = {dict, OrderedDict, set, type(None)}
_ROWS = {tuple, list, frozenset}
_INSIDE = {"_parameters", "_buffers", "_modules"}


def _walk(cell: Cell) -> _Walked:
    settings: list[Any] = []
    parameters: list[Tensor] = []
    names: list[str] = []
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", cell)]
    while stack:
        prefix, module = stack.pop()
        own = module.__dict__
        settings.append(type(module))
        for name, value in own.items():
            kind = type(value)
            if kind in _PLAIN:
                settings.append(value)
            elif kind in _ROWS:
                settings.append(repr(value))
            elif name in _INSIDE:
                for inner, held in value.items():
                    if held is None:
                        settings.append(None)
                    elif name == "_modules":
                        stack.append((f"{prefix}{inner}.", held))
                    elif id(held) not in seen:
                        seen.add(id(held))
                        parameters.append(held)
                        names.append(prefix + inner)
                        settings.append((held.shape, held.dtype))
            elif kind not in _OTHER and isinstance(
                value, bool | int | float | str
            ):  # numbers of classes of their own, enumerations
                settings.append(value)
    return _Walked(tuple(settings), parameters, names)


_ALIKE: dict[Any, tuple[Any, Tree]] = {}
"""Plans, and the structures of their outputs, of cells that differ in the values of their parameters only."""

_MOST_ALIKE = 512


def _identity(cell: Cell) -> tuple[Any, ...] | None:
    """Everything about a cell but its parameters' values; None where it holds something that cannot be compared."""
    found: list[Any] = []
    for module in cell.modules():
        for name, value in vars(module).items():
            if name in _INSIDE or value is None or type(value) in _PLAIN:
                found.append((name, None if name in _INSIDE else value))
            elif type(value) in _ROWS:
                if not all(v is None or type(v) in _PLAIN for v in value):
                    return None
                found.append((name, repr(value)))
            elif type(value) in _OTHER:
                if value and not (type(value) is set and all(type(v) is str for v in value)):
                    return None
                found.append((name, tuple(sorted(value))))
            elif isinstance(value, FunctionType | BuiltinFunctionType | type) and not getattr(
                value, "__closure__", None
            ):
                found.append((name, value))
            else:
                return None
    return tuple(found)


def _made(cell: Cell, key: Any, xs: Tree, state: Tree, controls: Controls, wanted: tuple[bool, bool, bool]) -> Any:
    many, by_inputs, backward = wanted
    try:
        from ..native.autodiff import Unsupported
        from ..native.plan import Plan, Variant
    except ImportError as error:
        return _Refusal(f"the native engine needs the package llvmlite ({error}); running on Hoisted instead.")
    job = _Job(cell, xs, state, controls)
    identity = _identity(cell)
    alike = None if identity is None else (key, identity, tree.map(_form, (xs, state, controls.forced)))
    if alike in _ALIKE:
        job.plan, job.y_like = _ALIKE[alike]
        if job.check(cell, xs, state, controls, backward=backward) is None:
            return job
    try:
        variant = Variant(
            controls.lengths is not None, controls.reset is not None, backward, many=many, inputs=by_inputs
        )
        job.plan = Plan(
            job.step, _walk(cell).parameters, job.inputs(tree.at(xs, 0), controls, 0), tree.leaves(state), variant
        )
    except Unsupported as error:
        name = type(cell).__name__
        return _Refusal(f"Native: {name} runs on Hoisted instead, since {error}.")
    except ImportError as error:
        return _Refusal(f"the native engine needs the package llvmlite ({error}); running on Hoisted instead.")
    wrong = job.check(cell, xs, state, controls, backward=backward)
    if wrong is not None:
        name = type(cell).__name__
        return _say(f"Native: {name} runs on Hoisted instead, since its plan gave other numbers ({wrong}).")
    if alike is not None:
        if len(_ALIKE) >= _MOST_ALIKE:
            del _ALIKE[next(iter(_ALIKE))]
        _ALIKE[alike] = job.plan, job.y_like
    return job


def stream_plan(cell: Cell, x: Tree, state: Tree, *, compiled: bool = True) -> Any:
    """A compiled step without hoisting and derivatives, for streams that are stepped one by one; or why there is none.

    Args:
        cell: whose step.
        x: leaves (B, ...), as the step takes them.
        state: leaves (B, ...).
        compiled: with machine code.
    """
    return _planned(cell, x, state, stream=True, compiled=compiled)


def training_plan(cell: Cell, x: Tree, state: Tree) -> Any:
    """The plan of a step, forward and backward; or why there is none. Arguments as for `stream_plan`."""
    found = _planned(cell, x, state, stream=False)
    return found if isinstance(found, str) else found.plan


def _planned(cell: Cell, x: Tree, state: Tree, *, stream: bool, compiled: bool = True) -> Any:
    if any(leaf.device.type != "cpu" for leaf in (*tree.leaves((x, state)), *cell.parameters())):
        return "not on the CPU"
    try:
        from ..native.autodiff import Unsupported
        from ..native.plan import Plan, Variant
    except ImportError as error:
        return f"the package llvmlite is missing ({error})"
    job = _Job(cell, x, state, Controls())
    rows = tree.leaves((x, state))[0].shape[0]
    variant = Variant(backward=not stream, stream=stream, many=not stream and rows >= _MANY)
    try:
        parameters = job.parameters(cell)
        job.plan = Plan(job.step, parameters, tree.leaves(x), tree.leaves(state), variant, compiled=compiled)
    except (Unsupported, ImportError) as error:
        return str(error)
    return job


def _say(sentence: str) -> str:
    if sentence not in _SAID:
        _SAID.add(sentence)
        warnings.warn(sentence, RuntimeWarning, stacklevel=5)
    return sentence


def _moved(leaf: Tensor, generator: torch.Generator) -> Tensor:
    """Not all zero, so that every term counts."""
    if not leaf.is_floating_point():
        return leaf
    return leaf + 0.1 * torch.rand(leaf.shape, generator=generator, dtype=leaf.dtype)


def _form(_: Any) -> int:
    """A leaf of a tree that shows a structure and holds nothing."""
    return 0


class _Job:
    """One cell's step and its plan, without a reference to the cell."""

    def __init__(self, cell: Cell, xs: Tree, state: Tree, controls: Controls) -> None:
        self.cell = weakref.ref(cell)
        self.names = _walk(cell).names
        self.x_like, self.state_like = tree.map(_form, xs), tree.map(_form, state)
        self.forced_like = tree.map(_form, controls.forced)
        self.forced, self.masked = controls.forced is not None, controls.force_mask is not None
        self.num_inputs = len(tree.leaves(self.x_like))
        self.plan: Any = None
        self.y_like: Tree = None

    def step(self, parameters: Sequence[Tensor], xs: Sequence[Tensor], states: Sequence[Tensor]) -> Any:
        """One step on flat lists."""
        cell = self.cell()
        assert cell is not None
        stepper = _Stepper(cell, self.forced, self.masked)
        named = {f"cell.{n}": p for n, p in zip(self.names, parameters)}
        x = tree.unflatten(self.x_like, xs[: self.num_inputs])
        state = tree.unflatten(self.state_like, states)
        y, new = functional_call(stepper, named, (x, state, xs[self.num_inputs :], self.forced_like))
        self.y_like = tree.map(_form, y)
        return tree.leaves(y), tree.leaves(new)

    def parameters(self, cell: Cell) -> list[Tensor]:
        """Parameters and buffers in order."""
        return _walk(cell).parameters

    def inputs(self, x: Tree, controls: Controls, at: int | None) -> list[Tensor]:
        """Leaves of x, then what is forced: of one step, or of all (None)."""
        found = list(tree.leaves(x))
        if controls.forced is not None:
            found += [leaf if at is None else leaf[at] for leaf in tree.leaves(controls.forced)]
            if controls.force_mask is not None:
                found.append(controls.force_mask if at is None else controls.force_mask[at])
        return found

    def run(
        self, cell: Cell, parameters: Sequence[Tensor], xs: Tree, state: Tree, controls: Controls
    ) -> tuple[Tree, Tree]:
        """All steps."""
        inputs = self.inputs(xs, controls, None)
        num_steps, rows = tree.leaves(xs)[0].shape[:2]
        plan = self.plan
        imports = plan.traced.before(parameters, [leaf.flatten(0, 1) for leaf in inputs])
        states = tree.leaves(state)
        starts: list[Tensor] = []
        if controls.reset is not None:
            fresh = tree.leaves(cell.initial_state(rows))
            starts = [fresh[i] for i in plan.starts]
        alive = controls.alive(num_steps)
        given = _Given(plan, alive, controls.reset, num_steps, rows, len(imports), len(states))
        tensors = (*imports, *states, *starts)
        out = _Function.apply(given, *tensors) if plan.variant.backward else _values(given, tensors)[0]
        num = len(plan.outputs)
        # what never changes comes back as it is, with its own derivative
        last = [old if fixed else new for old, new, fixed in zip(states, out[num:], plan.constant)]
        return tree.unflatten(self.y_like, out[:num]), tree.unflatten(self.state_like, last)

    def check(self, cell: Cell, xs: Tree, state: Tree, controls: Controls, *, backward: bool) -> str | None:
        """Compare a few steps of a few rows with eager autograd; what differs."""
        few = min(3, num_steps_of(xs)), min(3, int(tree.leaves(xs)[0].shape[1]))
        generator = torch.Generator().manual_seed(0)

        def cut(leaf: Tensor, time: bool) -> Tensor:
            part = leaf.detach()[: few[0], : few[1]] if time else leaf.detach()[: few[1]]
            wanted = backward and (self.plan.variant.inputs or not time)
            return part.clone().requires_grad_() if part.is_floating_point() and wanted else part.clone()

        inside = Controls(
            None if controls.lengths is None else torch.arange(few[1]) % (few[0] + 1),
            None if controls.reset is None else torch.rand(few, generator=generator) < 0.4,
            tree.map(lambda leaf: cut(leaf, True), controls.forced),
            None if controls.force_mask is None else controls.force_mask[: few[0], : few[1]],
        )
        results = []
        parameters = [p for p in cell.parameters() if p.requires_grad]
        for native in (True, False):
            sequence = tree.map(lambda leaf: cut(leaf, True), xs)
            start = tree.map(lambda leaf: cut(leaf, False), state)
            noise = torch.Generator().manual_seed(1)
            moved = tree.map(partial(_moved, generator=noise), start)
            with torch.enable_grad() if backward else torch.no_grad():
                if native:
                    ys, last = self.run(cell, _walk(cell).parameters, sequence, moved, inside)
                else:
                    ys, last = scan(cell, cell.step, sequence, moved, inside)
                values = [v for v in tree.leaves((ys, last)) if v.is_floating_point()]
                if inside.lengths is not None:
                    keep = inside.alive(few[0])
                    assert keep is not None
                    values = [
                        torch.where(keep.view(*keep.shape, *[1] * (v.ndim - 2)), v, 0) if v.shape[:2] == few else v
                        for v in values
                    ]
                found = [v.detach() for v in values]
                wanted = [p for p in [*parameters, *tree.leaves((sequence, start))] if p.requires_grad]
                total = sum((v * torch.rand(v.shape, generator=noise, dtype=v.dtype)).sum() for v in values)
                if backward and isinstance(total, Tensor) and total.requires_grad:
                    grads = torch.autograd.grad(total, wanted, allow_unused=True)
                    found += [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads)]
            results.append(found)
        tolerance = 2e-3 if cell.dtype == torch.float32 else 1e-7
        for ours, theirs in zip(*results):
            scale = theirs[theirs.isfinite()].abs().max().item() if theirs.isfinite().any() else 1.0
            if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(scale, 1e-3), equal_nan=True):
                off = (ours - theirs).abs().max().item()
                return f"off by {off:.1e} where the largest is {scale:.1e}"
        return None


class _Given(NamedTuple):
    """What a call brings besides tensors with derivatives."""

    plan: Any
    alive: Tensor | None
    reset: Tensor | None
    num_steps: int
    rows: int
    num_imports: int
    num_states: int

    def split(self, tensors: Sequence[Any]) -> tuple[list[Any], list[Any], dict[int, Any]]:
        """Imports, states, starts."""
        middle = self.num_imports + self.num_states
        starts = dict(zip(self.plan.starts, tensors[middle:]))
        return list(tensors[: self.num_imports]), list(tensors[self.num_imports : middle]), starts

    def by_torch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same numbers step by step in torch, for second derivatives."""
        imports, states, starts = self.split(tensors)
        traced = self.plan.traced
        sequences = [
            t.reshape(self.num_steps, self.rows, *t.shape[1:]) if i.per_step else t
            for i, t in zip(traced.imports, imports)
        ]
        outputs = []
        for t in range(self.num_steps):
            now = [s[t] if i.per_step else s for i, s in zip(traced.imports, sequences)]
            alive = None if self.alive is None else self.alive[t]
            if self.reset is not None:
                mask = self.reset[t] if alive is None else self.reset[t] & alive
                states = [tree.where(mask, starts[j], s) if j in starts else s for j, s in enumerate(states)]
            ys, new = traced.step(now, states, self.rows)
            states = new if alive is None else [tree.where(alive, n, s) for n, s in zip(new, states)]
            outputs.append(ys)
        return [*(torch.stack(column) for column in zip(*outputs)), *states]


def _values(given: _Given, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Any, list[Tensor]]:
    """Outputs and last states, what the backward part reads, imports."""
    plan = given.plan
    imports, states, starts = given.split([t if t.is_contiguous() else t.contiguous() for t in tensors])
    alive = None if given.alive is None else given.alive.contiguous()
    reset = None if given.reset is None else given.reset.contiguous()
    ys, last, held = plan.forward(imports, states, starts, alive, reset, given.num_steps, given.rows)
    last = [s.clone() if fixed else s for s, fixed in zip(last, plan.constant)]
    return (*ys, *last), held, imports


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: _Given, *tensors: Tensor) -> Any:
        plan = given.plan
        outputs, held, imports = _values(given, tensors)
        if plan.variant.backward:
            ctx.given, ctx.held, ctx.imports = given, held, imports
            # outputs are saved too: a change in place of what the backward part reads is then noticed
            ctx.save_for_backward(*tensors, *outputs)
            ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        given, plan = ctx.given, ctx.given.plan
        tensors = ctx.saved_tensors[: -len(gradients)]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return (None, *_by_torch(given, tensors, needs, gradients))
        num = len(plan.outputs)
        held, imports = ctx.held, ctx.imports
        if held is None:  # a graph that is kept: what was saved has been written over, so it is computed again
            _, held, imports = _values(given, tensors)
        elif plan.overwrites:
            ctx.held = None
        by_import, by_state, by_start = plan.backward(
            held, imports, gradients[:num], gradients[num:], given.num_steps, given.rows
        )
        found: list[Tensor | None] = [by_import.get(i) for i in range(given.num_imports)]
        found += [by_state.get(i) for i in range(given.num_states)]
        found += [by_start.get(i) for i in plan.starts]
        return (None, *(g.reshape(t.shape) if n and g is not None else None for g, t, n in zip(found, tensors, needs)))


def _by_torch(
    given: _Given, tensors: Sequence[Tensor], needs: Sequence[bool], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Derivatives that can be differentiated again."""
    values = given.by_torch(tensors)
    pairs = [(v, g) for v, g in zip(values, gradients) if g is not None and v.requires_grad]
    wanted = [t for t, n in zip(tensors, needs) if n]
    if not pairs or not wanted:
        return [None] * len(tensors)
    outputs, seeds = zip(*pairs)
    found = iter(torch.autograd.grad(outputs, wanted, seeds, create_graph=True, allow_unused=True))
    return [next(found) if n else None for n in needs]
