"""The time loop as operators that torch knows: what compilation, export and vmap see of a plan.

- ``recurra::sequence``: a whole sequence, from parameters and inputs. It is made of other operators, so that a compiler
  sees what is computed beforehand and differentiates it as it likes.
- ``recurra::loop``: the time loop in machine code, with a derivative and a rule for vmap.
- ``recurra::loop_backward``: the loop back.

A plan is named by its content. The name stays in compiled and exported programs, also in those that torch keeps on disk,
and finds the plan again in whatever process has made the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.checks import sentence
from .plan import Plan

_PLANS: dict[str, Plan] = {}  # for good: a compiled program may need its plan as long as the process lives


def register(plan: Plan) -> str:
    """The name under which the operators find a plan from now on."""
    traced = plan.traced
    form = [(i.per_step, i.shape, i.dtype) for i in traced.imports]
    text = "\n".join([plan.text, str(traced.source), repr(form), repr(plan.variant), repr(plan.constant)])
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    _PLANS.setdefault(name, plan)
    return name


def find(name: str) -> Plan:
    """The plan of a name."""
    if name not in _PLANS:
        hint = "Compile or export the layer once in this process first."
        raise ValueError(sentence("Native", "a compiled program's plan", "made in this process", "none", hint))
    return _PLANS[name]


def _apart(tensors: Sequence[Tensor], given: Sequence[Tensor | None]) -> list[Tensor]:
    """The tensors, those copied that share memory with what was given or with each other: operators may not do that."""
    seen = {t.untyped_storage()._cdata for t in given if t is not None}
    found = []
    for tensor in tensors:
        key = tensor.untyped_storage()._cdata
        found.append(tensor.clone() if key in seen else tensor)
        seen.add(key)
    return found


def _given(plan: Plan, kind: str, index: int, imports: Any, states: Any, starts: Any, masks: Any) -> Tensor | None:
    """What a buffer of the forward program is, if it came from outside."""
    if kind in ("x", "p"):
        return imports[index]
    if kind == "constant":
        return states[index]
    if kind == "c":
        return dict(zip(plan.starts, starts))[index]
    return masks.get(kind)


def _dense(imports: Any, states: Any, starts: Any, alive: Tensor | None, reset: Tensor | None) -> Any:
    """Three lists of dense tensors, and the masks by name."""
    groups = ([t.contiguous() for t in group] for group in (imports, states, starts))
    masks = {"alive": alive, "reset": reset}
    return *groups, {name: None if mask is None else mask.contiguous() for name, mask in masks.items()}


def _loop(
    name: str,
    imports: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    alive: Tensor | None,
    reset: Tensor | None,
    num_steps: int,
    rows: int,
) -> list[Tensor]:
    """Outputs, last states, then what the way back reads."""
    plan = find(name)
    imports, states, starts, masks = _dense(imports, states, starts, alive, reset)
    ys, last, held = plan.forward(
        imports, states, dict(zip(plan.starts, starts)), masks["alive"], masks["reset"], num_steps, rows
    )
    own: list[Tensor] = []
    if plan.variant.backward:
        own = [held[k] for k in plan.forward_keys if _given(plan, *k, imports, states, starts, masks) is None]
    first = _apart([*own, *ys, *last], [*imports, *states, *starts, alive, reset])
    return [*first[len(own) :], *first[: len(own)]]


def _loop_backward(
    name: str,
    own: Sequence[Tensor],
    imports: Sequence[Tensor],
    states: Sequence[Tensor],
    starts: Sequence[Tensor],
    alive: Tensor | None,
    reset: Tensor | None,
    gys: Sequence[Tensor | None],
    glast: Sequence[Tensor | None],
    num_steps: int,
    rows: int,
) -> list[Tensor]:
    """Derivatives by those imports, states and starts that have one, in this order."""
    plan = find(name)
    imports, states, starts, masks = _dense(imports, states, starts, alive, reset)
    left, held = iter(own), {}
    for kind, index in plan.forward_keys:
        value = _given(plan, kind, index, imports, states, starts, masks)
        value = next(left) if value is None else value
        # an operator may not write over what it is given, as the way back does with what was saved for it
        held[kind, index] = value.clone() if kind == "saved" and plan.overwrites else value
    found = plan.backward(held, imports, gys, glast, num_steps, rows)
    values = [
        by[i].reshape(t.shape)
        for by, group in zip(found, _groups(plan, imports, states, starts))
        for i, t in group
        if i in by
    ]
    return _apart(values, [*own, *imports, *states, *starts, *gys, *glast])


def _groups(plan: Plan, imports: Any, states: Any, starts: Any) -> list[list[tuple[int, Any]]]:
    return [list(enumerate(imports)), list(enumerate(states)), list(zip(plan.starts, starts))]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    name, imports, states, starts, alive, reset, num_steps, rows = inputs
    plan = find(name)
    if not plan.variant.backward:
        return
    num = len(plan.outputs) + len(states)
    ctx.sizes = (
        name,
        len(imports),
        len(states),
        len(starts),
        alive is not None,
        reset is not None,
        num_steps,
        rows,
        num,
    )
    masks = [m for m in (alive, reset) if m is not None]
    ctx.save_for_backward(*output[num:], *imports, *states, *starts, *masks)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> Any:
    name, num_imports, num_states, num_starts, has_alive, has_reset, num_steps, rows, num = ctx.sizes
    plan, saved = find(name), list(ctx.saved_tensors)
    count = num_imports + num_states + num_starts + has_alive + has_reset
    own, rest = saved[: len(saved) - count], iter(saved[len(saved) - count :])
    imports, states, starts = ([next(rest) for _ in range(n)] for n in (num_imports, num_states, num_starts))
    alive = next(rest) if has_alive else None
    reset = next(rest) if has_reset else None
    cut = len(plan.outputs)
    found = iter(
        torch.ops.recurra.loop_backward(
            name, own, imports, states, starts, alive, reset, gradients[:cut], gradients[cut:num], num_steps, rows
        )
    )
    has = plan.differentiable()
    out = [
        [next(found) if i in by else None for i, _ in group]
        for by, group in zip(has, _groups(plan, imports, states, starts))
    ]
    return (None, *out, None, None, None, None)


def _loop_vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> Any:
    """More rows, if the parameters are the same for all; else one after the other."""
    name, imports, states, starts, alive, reset, num_steps, rows = args
    _, import_dims, state_dims, start_dims, alive_dim, reset_dim, _, _ = dims
    plan, num = find(name), info.batch_size
    shared = all(i.per_step or d is None for i, d in zip(plan.traced.imports, import_dims))
    if not shared:
        return _one_by_one(torch.ops.recurra.loop, num, dims, args)

    def spread(t: Tensor, dim: int | None, lead: tuple[int, ...]) -> Tensor:
        """(*lead, N * rows, ...)."""
        at = len(lead) - 1
        t = t.unsqueeze(at).expand(*t.shape[:at], num, *t.shape[at:]) if dim is None else t.movedim(dim, at)
        return t.reshape(*lead[:-1], num * rows, *t.shape[at + 2 :])

    def by_time(t: Tensor, dim: int | None) -> Tensor:
        """From (T * B, ...) to (T * N * B, ...)."""
        t = t if dim is None else t.movedim(dim, 0)
        lead = (num,) if dim is not None else ()
        t = t.reshape(*lead, num_steps, rows, *t.shape[len(lead) + 1 :])
        return spread(t, 0 if dim is not None else None, (num_steps, rows)).flatten(0, 1)

    wide = [by_time(t, d) if i.per_step else t for i, t, d in zip(plan.traced.imports, imports, import_dims)]
    first = [spread(t, d, (rows,)) for t, d in zip(states, state_dims)]
    fresh = [spread(t, d, (rows,)) for t, d in zip(starts, start_dims)]
    masks = [
        None if m is None else spread(m, d, (num_steps, rows)) for m, d in ((alive, alive_dim), (reset, reset_dim))
    ]
    found = torch.ops.recurra.loop(name, wide, first, fresh, *masks, num_steps, num * rows)
    cut, end = len(plan.outputs), len(plan.outputs) + len(states)
    shaped, places = [], []
    for k, t in enumerate(found):
        at = 0 if cut <= k < end else 1  # states lead with the rows, all else with time
        shaped.append(t.reshape(*t.shape[:at], num, rows, *t.shape[at + 1 :]))
        places.append(at)
    return shaped, places


def _one_by_one(operator: Callable[..., list[Tensor]], num: int, dims: Any, args: Any) -> Any:
    """The operator for each element of a batch of calls."""

    def pick(value: Any, dim: Any, i: int) -> Any:
        if isinstance(value, list | tuple):
            return [pick(v, d, i) for v, d in zip(value, dim if dim is not None else [None] * len(value))]
        return value if dim is None else value.select(dim, i)

    each = [operator(*(pick(a, d, i) for a, d in zip(args, dims))) for i in range(num)]
    stacked = [torch.stack(column) for column in zip(*each)]
    return stacked, [0] * len(stacked)


def _sequence(
    name: str,
    parameters: Sequence[Tensor],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    fresh: Sequence[Tensor],
    alive: Tensor | None,
    reset: Tensor | None,
) -> list[Tensor]:
    """Outputs, then the last states (of those that change)."""
    plan = find(name)
    num_steps, rows = inputs[0].shape[:2]
    flat = [t.reshape(num_steps * rows, *t.shape[2:]) for t in inputs]
    imports = plan.traced.before(parameters, flat)
    starts = [fresh[i] for i in plan.starts] if fresh else []
    out = torch.ops.recurra.loop(name, imports, list(states), starts, alive, reset, num_steps, rows)
    cut = len(plan.outputs)
    changing = [new for new, fixed in zip(out[cut : cut + len(states)], plan.constant) if not fixed]
    return [*out[:cut], *changing]


_LIBRARY = torch.library.Library("recurra", "DEF")
_LIBRARY.define(
    "sequence(str name, Tensor[] parameters, Tensor[] inputs, Tensor[] states, Tensor[] fresh, Tensor? alive, "
    "Tensor? reset) -> Tensor[]"
)
_LIBRARY.define(
    "loop(str name, Tensor[] imports, Tensor[] states, Tensor[] starts, Tensor? alive, Tensor? reset, "
    "SymInt num_steps, SymInt rows) -> Tensor[]"
)
_LIBRARY.define(
    "loop_backward(str name, Tensor[] own, Tensor[] imports, Tensor[] states, Tensor[] starts, Tensor? alive, "
    "Tensor? reset, Tensor?[] gys, Tensor?[] glast, SymInt num_steps, SymInt rows) -> Tensor[]"
)
for _key in ("CompositeImplicitAutograd", "FuncTorchBatched"):
    _LIBRARY.impl("sequence", _sequence, _key)
for _name, _function in (("loop", _loop), ("loop_backward", _loop_backward)):
    _LIBRARY.impl(_name, _function, "CPU")
    torch.library.register_fake(f"recurra::{_name}", _function, lib=_LIBRARY)
torch.library.register_autograd("recurra::loop", _backward, setup_context=_setup, lib=_LIBRARY)
torch.library.register_vmap("recurra::loop", _loop_vmap, lib=_LIBRARY)
torch.library.register_vmap(
    "recurra::loop_backward",
    lambda info, dims, *args: _one_by_one(torch.ops.recurra.loop_backward, info.batch_size, dims, args),
    lib=_LIBRARY,
)
