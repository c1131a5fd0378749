"""Laws about one step of a cell."""

from __future__ import annotations

import copy
import random
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.autograd.gradcheck import gradcheck as check_gradient
from torch.func import functional_call

from ..core import tree
from ..core.cell import Cell, Noisy
from ..core.spec import Leaf
from ..core.tree import Tree
from ..engines.loop import Loop
from ..layers.recurrent import Recurrent
from .compare import same
from .generate import case, convert, copied, generator_of, prepared, random_like, rows_of, state_of, values, weighted
from .law import Setting, broken, law

Outputs = tuple[Tree, Tree]


@law("The cell has examples, and each is an instance of its class.")
def examples(cell: Cell, setting: Setting) -> str | None:
    """`Cell.examples` yields at least one instance."""
    found = list(type(cell).examples())
    if not found:
        broken("examples() yields nothing.")
    for item in found:
        if type(item) is not type(cell):
            broken(f"examples() yields a {type(item).__name__}.")
    return None


@law("The class has a docstring of its own, a source, and a reason for every law that it is exempt from.")
def documented(cell: Cell, setting: Setting) -> str | None:
    """Docstring, ``source`` and ``exempt``."""
    from .families import FAMILIES, laws

    if not (type(cell).__doc__ or "").strip():
        broken("the class has no docstring.")
    if not cell.source.strip():
        broken("source is empty.")
    known = {item.name for family in FAMILIES for item in laws(family)}
    for name, reason in cell.exempt.items():
        if name not in known:
            broken(f"exempt names {name!r}, which is no law.")
        if not reason.strip():
            broken(f"exempt gives no reason for {name!r}.")
    return None


@law("The initial state, the state after a step and the output are what state_spec and output_spec say.")
def specs(cell: Cell, setting: Setting) -> str | None:
    """Structures, shapes, and the types of integer leaves; which floating type is another law."""
    cell, xs, state = case(cell, setting)
    x, batch_size = tree.at(xs, 0), setting.batch_size
    _fits("initial_state", cell.initial_state(batch_size), cell.state_spec, batch_size)
    cell.check_state(cell.initial_state(batch_size), batch_size)
    y, new = cell(x, state)
    _fits("the output", y, cell.output_spec, batch_size)
    _fits("the state after a step", new, cell.state_spec, batch_size)
    for name, (before, after) in zip(tree.names(state), tree.zip_leaves(state, new)):
        if before.shape != after.shape:
            broken(f"the step changes the shape of state {name} from {tuple(before.shape)} to {tuple(after.shape)}.")
    cell.check_state(new, batch_size)
    return None


def _fits(what: str, value: Tree, spec: Tree, batch_size: int) -> None:
    if not tree.same_structure(value, spec):
        wanted = tree.map(str, spec)
        broken(f"{what} is {tree.describe(value)}, the spec says {wanted}.")
    for name, (tensor, leaf) in zip(tree.names(spec), tree.zip_leaves(value, spec)):
        label = f"{what}, leaf {name}," if name else what
        if not isinstance(tensor, Tensor):
            broken(f"{label} is a {type(tensor).__name__}.")
        shape = tuple(tensor.shape)
        free = len(shape) == len(leaf.shape) + 1 and all(
            not isinstance(want, int) or want == got for want, got in zip((batch_size, *leaf.shape), shape)
        )
        if not free:
            broken(f"{label} has shape {shape}, the spec says {leaf} with B={batch_size}.")
        if _kind(tensor.dtype) != _kind(leaf.dtype or torch.float32):
            broken(f"{label} is {tensor.dtype}, the spec says {leaf.dtype or 'floating'}.")


def _kind(dtype: torch.dtype) -> Any:
    return "floating" if dtype.is_floating_point else "complex" if dtype.is_complex else dtype


@law("A cell of float32, float64 or bfloat16 keeps its own type: initial state, output and next state.")
def dtype(cell: Cell, setting: Setting) -> str | None:
    """No leaf falls back to torch's default type."""
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        if cell.own_dtype is None:
            torch.set_default_dtype(kind)
        twin, xs, state = case(cell, setting, dtype=kind)
        y, new = twin(tree.at(xs, 0), state)
        for what, value, spec in (
            ("the initial state", twin.initial_state(2), twin.state_spec),
            ("the output", y, twin.output_spec),
            ("the state after a step", new, twin.state_spec),
        ):
            for name, (leaf, item) in zip(tree.names(value), tree.zip_leaves(value, spec)):
                wanted = item.dtype or (kind.to_complex() if leaf.is_complex() else kind)
                if leaf.dtype != wanted:
                    label = f"{what}, leaf {name}," if name else what
                    broken(f"{label} is {leaf.dtype} in a cell of {kind}.")
    return None


@law("A step with the same input and state gives the same result, and leaves the module as it was.")
def pure(cell: Cell, setting: Setting) -> str | None:
    """Attributes, buffers and parameters of every submodule are looked at; equal bits, with and without a graph."""
    cell, xs, state = case(cell, setting)
    x = tree.at(xs, 0)
    before = snapshot(cell)
    results = []
    for graph in (False, True):
        torch.manual_seed(setting.seed)  # drawing inside is another law
        with torch.set_grad_enabled(graph):
            results.append(tree.detach((cell(copied(x), copied(state)), cell.initial_state(2))))
    changed = [name for name, value in snapshot(cell).items() if before.get(name) != value]
    gone = [name for name in before if name not in snapshot(cell)]
    if changed or gone:
        broken(f"a step changes {', '.join([*changed, *gone][:3])} of the module.")
    same("the second of two equal steps", results[1], results[0], 0.0)
    return None


def snapshot(module: nn.Module) -> dict[str, Any]:
    """A fingerprint of everything a module keeps: path -> value."""
    return {
        f"{path}.{key}".lstrip("."): _fingerprint(value)
        for path, part in module.named_modules()
        for key, value in vars(part).items()
        if key != "_modules"
    }


def _fingerprint(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Tensor):
        raw = value.detach().cpu().reshape(-1).view(torch.uint8)
        return id(value), value._version, raw.numpy().tobytes()
    if value is None or isinstance(value, int | float | str | bytes | complex):
        return value
    if depth > 4 or isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, Mapping):
        return {key: _fingerprint(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fingerprint(item, depth + 1) for item in value]
    own = getattr(value, "__dict__", None)
    return id(value), _fingerprint(dict(own), depth + 1) if own else None


@law("A step and initial_state draw no random numbers.")
def draws_nothing(cell: Cell, setting: Setting) -> str | None:
    """The global generators of torch, NumPy and Python stand where they stood."""
    cell, xs, state = case(cell, setting)

    def generators() -> dict[str, str]:
        numbers = numpy.random.get_state()  # noqa: NPY002 - what a cell could have used
        return {"torch": str(torch.get_rng_state().tolist()), "Python": str(random.getstate()), "NumPy": str(numbers)}

    before = generators()
    cell(tree.at(xs, 0), state)
    cell.initial_state(2)
    for name, state_now in generators().items():
        if state_now != before[name]:
            broken(f"a step draws from {name}'s global generator; random numbers are data, see StochasticCell.")
    return None


@law("A step writes nothing in place: neither to its input nor to its state.")
def no_writes(cell: Cell, setting: Setting) -> str | None:
    """Values and version counters are looked at."""
    cell, xs, state = case(cell, setting)
    x, state = copied(tree.at(xs, 0)), copied(state)
    kept = copied((x, state))
    versions = [leaf._version for leaf in tree.leaves((x, state))]
    with torch.no_grad():
        cell(x, state)
    for name, leaf, old, version in zip(tree.names((x, state)), tree.leaves((x, state)), tree.leaves(kept), versions):
        if leaf._version != version or not torch.equal(leaf, old):
            what = "x" if name.startswith("0") else "state"
            broken(f"the step writes to {what}{name[1:]} in place.")
    return None


@law("Rows in another order give the same results in that order.")
def permutation(cell: Cell, setting: Setting) -> str | None:
    """One step with the rows turned round."""
    cell, xs, state = case(cell, setting, min_rows=3)
    x = tree.at(xs, 0)
    order = torch.arange(max(setting.batch_size, 3), device=setting.device).roll(1)
    with torch.no_grad():
        wanted = tree.map(lambda leaf: leaf[order], cell(x, state))
        found = cell(*tree.map(lambda leaf: leaf[order], (x, state)))
    same("a batch in another order", found, wanted)
    return None


@law("Rows of a batch are independent: a row alone gives what it gives beside others.")
def rows(cell: Cell, setting: Setting) -> str | None:
    """Every row runs alone, for all its steps; the initial state is among the states."""
    cell, xs, state = case(cell, setting, min_rows=2)
    batch_size = max(setting.batch_size, 2)
    with torch.no_grad():
        for start in (state, cell.initial_state(batch_size)):
            whole = Loop()(cell, xs, start)
            for row in range(batch_size):
                piece = slice(row, row + 1)
                alone = Loop()(cell, rows_of(xs, piece), tree.map(lambda s, piece=piece: s[piece], start))
                wanted = rows_of(whole[0], piece), tree.map(lambda s, piece=piece: s[piece], whole[1])
                same(f"row {row} alone", alone, wanted)
    return None


def split_differentiable(cell: Cell, x: Tree, state: Tree) -> tuple[list[str], list[Tensor], Callable[..., Outputs]]:
    """The step as a function of its floating inputs: their names, their values, and the function of such values.

    They are the parameters, the leaves of x (not the noise) and the leaves of the state.
    """
    parameters = dict(cell.named_parameters())
    bare = x.x if isinstance(x, Noisy) else x
    names = [f"parameter {name}" for name in parameters]
    flat: list[Tensor] = list(parameters.values())
    rest: list[Tensor | None] = []
    for label, value in (("x", bare), ("state", state)):
        for path, leaf in zip(tree.names(value), tree.leaves(value)):
            if tree.is_differentiable(leaf):
                names.append(f"{label}.{path}".rstrip("."))
                flat.append(leaf)
                rest.append(None)
            else:
                rest.append(leaf)

    def step(*given: Tensor) -> Outputs:
        supply = iter(given)
        named = {name: next(supply) for name in parameters}
        leaves = [next(supply) if leaf is None else leaf for leaf in rest]
        inner, start = tree.unflatten((bare, state), leaves)
        return functional_call(cell, named, (Noisy(inner, x.noise) if isinstance(x, Noisy) else inner, start))

    return names, [t.detach().clone() for t in flat], step


def floating(value: Tree) -> tuple[Tensor, ...]:
    """The leaves that have derivatives."""
    return tuple(leaf for leaf in tree.leaves(value) if tree.is_differentiable(leaf))


@law("Gradients of a step by input, floating state and parameters are its difference quotients, in float64.")
def gradcheck(cell: Cell, setting: Setting) -> str | None:
    """A gradient that is cut off (a detached value) is found too."""
    cell, xs, state = case(cell, setting, dtype=torch.float64)
    names, flat, step = split_differentiable(cell, tree.at(xs, 0), state)
    if not flat:
        return "nothing in it has derivatives."
    named = zip(_output_names(cell), tree.leaves(step(*flat)))
    outputs = [name for name, leaf in named if tree.is_differentiable(leaf)]
    if not outputs:
        return "nothing that it gives has derivatives."

    def attached(*given: Tensor) -> tuple[Tensor, ...]:
        nothing = sum((0.0 * t).sum() for t in given)  # so that detached outputs are compared too
        return tuple(leaf + nothing for leaf in floating(step(*given)))

    try:
        check_gradient(attached, [t.requires_grad_() for t in flat], check_undefined_grad=False)
    except GradcheckError as error:
        place = re.search(r"output (\d+) with respect to input (\d+)", str(error))
        if place is None:
            broken(f"the gradient check says: {str(error).strip().splitlines()[0]}")
        broken(f"the gradient of {outputs[int(place[1])]} by {names[int(place[2])]} is not its difference quotient.")
    return None


def _output_names(cell: Cell) -> list[str]:
    labels = [("y", cell.output_spec), ("the new state", cell.state_spec)]
    return [f"{what}.{path}".rstrip(".") for what, spec in labels for path in tree.names(spec)]


@law("Forward-mode and backward-mode derivatives of a step agree: <v, J u> = <J' v, u>.")
def forward_mode(cell: Cell, setting: Setting) -> str | None:
    """One random direction u of all inputs and one random direction v of all outputs."""
    cell, xs, state = case(cell, setting, dtype=torch.float64)
    _, flat, step = split_differentiable(cell, tree.at(xs, 0), state)
    if not flat or not floating(step(*flat)):
        return "nothing in it has derivatives."
    generator = generator_of(setting, 5)
    us = random_like(tuple(flat), generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, at the first forward-mode derivative
        outputs, pushed = torch.func.jvp(lambda *given: floating(step(*given)), tuple(flat), us)[:2]
    vs = random_like(outputs, generator)
    pull = torch.func.vjp(lambda *given: floating(step(*given)), *flat)[1]
    pulled = pull(tuple(v.conj() for v in vs))
    forward, backward = weighted(pushed, vs), weighted(tuple(p.conj() for p in pulled), us)
    same("J u weighted with v", forward, backward, 1e-9)
    return None


@law("Parameters and buffers written to safetensors and read into another instance give the same results.")
def save_and_load(cell: Cell, setting: Setting) -> str | None:
    """The other instance comes from ``examples`` where one looks alike, and all its numbers are changed before."""
    import safetensors.torch

    cell, xs, state = case(cell, setting)
    stored = {name: t.detach().clone().contiguous() for name, t in cell.state_dict().items()}
    read = safetensors.torch.load(safetensors.torch.save(stored))
    other = twin_of(cell, setting)
    with torch.no_grad():
        for tensor in {id(t): t for t in (*other.parameters(), *other.buffers())}.values():
            if tree.is_differentiable(tensor):
                tensor.add_(1.0)
    other.load_state_dict({name: t.to(setting.device) for name, t in read.items()})
    with torch.no_grad():
        same("the cell that was loaded", Loop()(other, xs, state), Loop()(cell, xs, state), 0.0)
        same("the initial state of the cell that was loaded", other.initial_state(2), cell.initial_state(2), 0.0)
    return None


def twin_of(cell: Cell, setting: Setting) -> Cell:
    """Another instance with the same options: from ``examples`` where one looks alike, else a copy."""

    def looks(item: Cell) -> tuple:
        return str(item), [(name, t.shape) for name, t in item.state_dict().items()]

    torch.manual_seed(setting.seed + 1)
    for item in type(cell).examples():
        if looks(item) == looks(cell):
            return prepared(item, setting, cell.dtype)
    return copy.deepcopy(cell)


def shifted(cell: Cell, setting: Setting, offset: int = 6) -> dict[str, Tensor]:
    """Other values for every floating parameter: its own and a little noise."""
    generator = generator_of(setting, offset)
    return {
        name: p.detach() + 0.1 * random_like(p.detach(), generator) if tree.is_differentiable(p) else p.detach()
        for name, p in cell.named_parameters()
    }


@law("functional_call with other parameters gives what a cell that holds them gives, and gradients reach them.")
def functional_call_(cell: Cell, setting: Setting) -> str | None:
    """One step, the initial state too; so nothing may hold on to a parameter by another way than its name."""
    cell, xs, state = case(cell, setting)
    if not dict(cell.named_parameters()):
        return "it has no parameters."
    x, given = tree.at(xs, 0), shifted(cell, setting)
    holder = copy.deepcopy(cell)
    holder.load_state_dict({**cell.state_dict(), **given})
    with torch.no_grad():
        for start in (state, None):
            same("functional_call", functional_call(cell, given, (x, start)), holder(x, start))
    leaves = {name: p.clone().requires_grad_() for name, p in given.items() if tree.is_differentiable(p)}
    found = _gradients(lambda: functional_call(cell, leaves, (x, None)), leaves, setting)
    named = dict(holder.named_parameters())
    wanted = _gradients(lambda: holder(x, None), {name: named[name] for name in leaves}, setting)
    for name in leaves:
        same(f"the gradient of {name} through functional_call", found[name], wanted[name])
    return None


def _gradients(run: Callable[[], Outputs], leaves: dict[str, Tensor], setting: Setting) -> dict[str, Tensor]:
    outputs = run()
    total = weighted(outputs, random_like(outputs, generator_of(setting, 7)))
    if not total.requires_grad:
        return {name: torch.zeros_like(p) for name, p in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(leaves.items(), found)}


@law("vmap over stacked parameters, and over rows, gives what a Python loop gives.")
def vmap(cell: Cell, setting: Setting) -> str | None:
    """Three steps with an ensemble of two; one step with every row on its own."""
    cell, xs, state = case(cell, setting, min_rows=2)
    num_steps = min(3, max(setting.num_steps, 1))
    xs = tree.window(xs, 0, num_steps)
    layer = Recurrent(cell, Loop())
    with torch.no_grad():
        ensemble = [shifted(cell, setting, offset) for offset in (6, 8)]
        if ensemble[0]:
            stacked = {f"cell.{n}": torch.stack([member[n] for member in ensemble]) for n in ensemble[0]}
            found = torch.func.vmap(lambda p: tree.leaves(functional_call(layer, p, (xs, state))))(stacked)
            for i, member in enumerate(ensemble):
                named = {f"cell.{n}": p for n, p in member.items()}
                wanted = functional_call(layer, named, (xs, state))
                mine = tree.unflatten(wanted, [leaf[i] for leaf in found])
                same(f"member {i} of an ensemble under vmap", mine, wanted)
        given = tree.at(xs, 0), state

        def alone(leaves: list[Tensor]) -> list[Tensor]:
            outputs = cell(*tree.unflatten(given, [leaf[None] for leaf in leaves]))
            return [leaf[0] for leaf in tree.leaves(outputs)]

        wanted = cell(*given)
        same("a row under vmap", tree.unflatten(wanted, torch.func.vmap(alone)(tree.leaves(given))), wanted)
    return None


@law("Everything moves with the cell, and no Python branch looks at the data: a step runs on the meta device.")
def moves(cell: Cell, setting: Setting) -> str | None:
    """All tensors of the module, the initial state, the output and the next state are on the cell's device."""
    cell, xs, state = case(cell, setting)
    away = cell.to("meta")
    x, state = (tree.map(lambda leaf: leaf.to("meta"), value) for value in (tree.at(xs, 0), state))
    y, new = away(x, state)
    for what, value in (("the initial state", away.initial_state(2)), ("the output", y), ("the next state", new)):
        for leaf in tree.leaves(value):
            if leaf.device.type != "meta":
                broken(f"{what} is on {leaf.device} when the cell is not.")
    return None


@law("A wrong shape, a token out of range and a state of another batch are refused with a sentence.")
def refuses(cell: Cell, setting: Setting) -> str | None:
    """``forward`` raises ValueError or TypeError: "Where: name must be WHAT, got GOT."; a part may speak for all."""
    cell, xs, state = case(cell, setting)
    x = tree.at(xs, 0)
    bare = x.x if isinstance(x, Noisy) else x
    if tree.leaves(state):
        other = state_of(cell, setting.batch_size + 1, generator_of(setting, 9))
        _refused(cell, x, other, "a state of another batch")
    for index, leaf in enumerate(tree.leaves(cell.input_spec)):
        grown = tree.leaves(values(_grown(leaf), setting.batch_size, dtype=cell.dtype, generator=generator_of(setting)))
        _refused(cell, _replaced(bare, index, grown[0]), state, f"an input of shape {tuple(grown[0].shape)}")
        if leaf.dtype is not None and not leaf.dtype.is_floating_point and leaf.high is not None:
            beyond = torch.full_like(tree.leaves(bare)[index], int(leaf.high))
            _refused(cell, _replaced(bare, index, beyond), state, f"the token {int(leaf.high)}")
    return None


def _grown(leaf: Leaf) -> Leaf:
    last = leaf.shape[-1] if leaf.shape else "free"
    shape = (*leaf.shape[:-1], last + 1) if isinstance(last, int) else (*leaf.shape, 2)
    return Leaf(shape, leaf.dtype, leaf.low, leaf.high)


def _replaced(value: Tree, index: int, tensor: Tensor) -> Tree:
    leaves = tree.leaves(value)
    leaves[index] = tensor
    return tree.unflatten(value, leaves)


def _refused(cell: Cell, x: Tree, state: Tree, what: str) -> None:
    try:
        cell(x, state)
    except (ValueError, TypeError) as error:
        if not re.fullmatch(r"\w+: .+ must be .+, got .+\.", str(error), re.DOTALL):
            broken(f"the message about {what} does not say what must be: {error}")
        return
    except Exception as error:
        broken(f"{what} raises {type(error).__name__} instead of ValueError or TypeError.")
    broken(f"{what} is accepted.")


@law("After learn_initial_state the initial state is a parameter with the same values, and gradients reach it.")
def learned_start(cell: Cell, setting: Setting) -> str | None:
    """Where the cell offers it; a row of the start is shared by the batch."""
    cell = prepared(cell, setting)
    before = cell.initial_state(2)
    if not floating(before):
        return "its state has no floating leaf."
    try:
        learned = copy.deepcopy(cell).learn_initial_state()
    except TypeError as reason:
        return f"its initial state cannot be learned: {reason}"
    start = learned.initial_state(2)
    same("the initial state that is to be learned", start, before, 0.0)
    if not any(leaf.requires_grad for leaf in floating(start)):
        broken("no leaf of the initial state is a parameter.")
    again = convert(copy.deepcopy(learned), torch.float32)
    for name, leaf in zip(tree.names(again.initial_state(2)), tree.leaves(again.initial_state(2))):
        if leaf.dtype == torch.float64:
            broken(f"state {name} stays float64 in a cell of float32.")
    return None
