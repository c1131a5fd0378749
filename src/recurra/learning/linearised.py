"""A stretch of a stream, linearised: what every step does to the state, and what its loss wants of the state before it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from ..core import tree
from ..core.cell import Cell, FeedbackCell, Noisy, StochasticCell, constant_leaves
from ..core.engine import check_sequence
from ..core.loss import Loss, weighted_sum
from ..core.rule import Chunk, Direction
from ..core.tree import Tree
from ..engines.loop import restart
from ..engines.unroll import draw
from .step_graph import StepGraph

_MOST_ELEMENTS = 2**25  # of all Jacobians that are in memory together


class Stretch(NamedTuple):
    """T steps of B rows around the states that the cell really had.

    Args:
        direct: gradient of the weighted loss by the parameters, the states before the steps being held fixed.
        wanted: (T, B, S) its derivative by the state before each step, all floating leaves side by side.
        restarted: (T, B) rows that start again before a step, None for none.
        alive: (T, B) False in the padding, None where there is none.
        loss, weight: sums.
        outputs: leaves (T, B, ...).
        state: after the last step.
        inputs: what the steps were taken with; `jacobians` reads it.
    """

    direct: Direction
    wanted: Tensor
    restarted: Tensor | None
    alive: Tensor | None
    loss: Tensor
    weight: Tensor
    outputs: Tree
    state: Tree
    inputs: _Inputs


class _Inputs(NamedTuple):
    """Everything a step reads, leaves (T, B, ...)."""

    xs: Tree
    states: Tree
    forced: Tree
    force_mask: Tensor | None


class Transition(nn.Module):
    """A cell's step with forcing, on tensors, as a function of parameters and state: what is differentiated."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tree, state: Tree, forced: Tree = None, mask: Tensor | None = None) -> tuple[Tree, Tree]:
        """One step."""
        y, new = self.cell.step(x, state)
        if forced is not None:
            assert isinstance(self.cell, FeedbackCell)
            new = self.cell.force(new, forced, mask)
        return y, new


class _Start(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self) -> Tree:
        return self.cell.initial_state(1)


def learning(cell: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn."""
    return {name: p for name, p in cell.named_parameters() if p.requires_grad and p.is_floating_point()}


def flat(state: Tree) -> Tensor:
    """The floating leaves of a state side by side: (B, S), S at least 1."""
    leaves = [leaf for leaf in tree.leaves(state) if leaf.is_floating_point()]
    return torch.cat([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], 1)


def flat_size(state: Tree) -> int:
    """S."""
    return sum(prod(leaf.shape[1:]) for leaf in tree.leaves(state) if leaf.is_floating_point())


def start_influence(cell: Cell) -> Tensor:
    """(S, P) derivative of the initial state by the parameters; zero unless it is learned."""
    parameters = learning(cell)
    size = flat_size(cell.initial_state(1))
    if size == 0 or not parameters:
        return torch.zeros(size, sum(p.numel() for p in parameters.values()), dtype=cell.dtype, device=cell.device)
    module = _Start(cell)

    def start(values: dict[str, Tensor]) -> Tensor:
        return flat(functional_call(module, {f"cell.{n}": v for n, v in values.items()}, ()))[0]

    with torch.no_grad():
        found = jacrev(start)({n: p.detach() for n, p in parameters.items()})
    return side_by_side(found, parameters, size).to(cell.dtype)


def side_by_side(found: dict[str, Tensor], parameters: dict[str, Tensor], *lead: int) -> Tensor:
    """(*lead, P) from derivatives (*lead, *shape) by name."""
    if not parameters:
        return torch.zeros(*lead, 0)
    return torch.cat([found[n].reshape(*lead, p.numel()) for n, p in parameters.items()], -1)


def apart(vector: Tensor, parameters: dict[str, Tensor]) -> Direction:
    """The inverse of `side_by_side` for one vector (P,)."""
    parts = vector.split([p.numel() for p in parameters.values()])
    return {n: part.reshape(p.shape) for (n, p), part in zip(parameters.items(), parts)}


def moving(cell: Cell, x: Tree, state: Tree) -> Tensor:
    """(S,) bool: the elements of the state that a reset starts again; constant leaves stay."""
    kept = constant_leaves(cell, x, state)
    parts = [
        torch.full((prod(leaf.shape[1:]),), not fixed)
        for leaf, fixed in zip(tree.leaves(state), kept)
        if leaf.is_floating_point()
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def stretch(
    cell: Cell,
    state: Tree,
    chunk: Chunk,
    loss: Loss,
    generator: torch.Generator,
    other: Callable[[_Inputs], StepGraph] | None = None,
) -> Stretch:
    """Take the steps, and differentiate the loss of each by the parameters and by the state before it.

    Args:
        state: before the first step, leaves (B, ...).
        chunk: what is learned from.
        loss: a value for every step.
        generator: of the cell's noise.
        other: gives another form of the step, with the same values, that is differentiated in its place.

    Raises:
        ValueError: a wrong shape.
        TypeError: a wrong structure or dtype.
    """
    xs, controls = chunk.xs, chunk.controls
    num_steps, rows = check_sequence(cell, xs, state, controls)
    alive = controls.alive(num_steps)
    if alive is not None:
        xs = tree.map(lambda leaf: torch.where(_over(alive, leaf), leaf, torch.zeros_like(leaf)), xs)
    drawn = draw(cell, xs, generator)
    xs = Noisy(xs, drawn.noise) if isinstance(cell, StochasticCell) and not isinstance(xs, Noisy) else xs
    module = Transition(cell)
    before, restarted = [], controls.reset
    if restarted is not None and alive is not None:
        restarted = restarted & alive
    with torch.no_grad():
        for t in range(num_steps):
            x = tree.at(xs, t)
            if restarted is not None:
                state = restart(cell, x, state, restarted[t])
            before.append(state)
            forced = None if controls.forced is None else tree.at(controls.forced, t)
            mask = None if controls.force_mask is None else controls.force_mask[t]
            _, new = module(x, state, forced, mask)
            state = new if alive is None else tree.where(alive[t], new, state)
    states = tree.stack(before) if before else tree.map(lambda leaf: leaf.new_zeros(0, *leaf.shape), state)
    inputs = _Inputs(xs, states, controls.forced, controls.force_mask)
    parameters = learning(cell)
    with torch.enable_grad():
        held = tree.map(lambda leaf: _together(leaf).detach(), states)
        floats = [leaf.requires_grad_() for leaf in tree.leaves(held) if leaf.is_floating_point()]
        if other is None:
            ys, _ = cell.step(tree.map(_together, xs), held)
        else:
            ys = row_of(cell, inputs, other(inputs)).outputs(tree.leaves(held))
        ys = tree.map(lambda leaf: leaf.reshape(num_steps, rows, *leaf.shape[1:]), ys)
        if alive is not None:
            ys = tree.map(lambda leaf: torch.where(_over(alive, leaf), leaf, torch.zeros_like(leaf)), ys)
        value, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, alive)
        named = list(parameters.values())
        found: tuple[Tensor | None, ...] = (None,) * (len(named) + len(floats))
        if value.requires_grad:
            found = torch.autograd.grad(value, [*named, *floats], allow_unused=True)
    direct = {
        n: torch.zeros_like(p) if g is None else g.detach()
        for (n, p), g in zip(parameters.items(), found[: len(named)])
    }
    wanted = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(floats, found[len(named) :])]
    size = flat_size(state)
    together = torch.cat([w.flatten(1) for w in wanted], 1) if wanted else value.new_zeros(num_steps * rows, 0)
    return Stretch(
        direct,
        together.reshape(num_steps, rows, size).detach(),
        restarted,
        alive,
        value.detach(),
        weight.detach(),
        tree.detach(ys),
        tree.detach(state),
        inputs,
    )


def _over(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))


def _together(leaf: Tensor) -> Tensor:
    """(T, B, ...) as (T * B, ...)."""
    return leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])


class _Row:
    """The next state of one row as a function of parameters and state, for `torch.func`."""

    def __init__(self, cell: Cell, inputs: _Inputs) -> None:
        self.cell, self.module, self.inputs = cell, Transition(cell), inputs
        self.parameters = {n: p.detach() for n, p in learning(cell).items()}

    def leaves(self) -> tuple[Any, ...]:
        """Everything that differs from row to row, (T * B, ...): floating state leaves, the others, the rest."""
        states = [_together(leaf) for leaf in tree.leaves(self.inputs.states)]
        floats = tuple(s.detach() for s in states if s.is_floating_point())
        others = tuple(s for s in states if not s.is_floating_point())
        rest = tree.leaves((self.inputs.xs, self.inputs.forced))
        mask = self.inputs.force_mask
        return floats, others, tuple(_together(r) for r in rest), () if mask is None else (_together(mask),)

    def stepped(
        self, values: dict[str, Tensor], floats: tuple[Tensor, ...], others: Any, given: Tree, masks: Any
    ) -> tuple[Tree, Tree]:
        """The output and the next state, leaves (1, ...)."""
        one, two = iter(floats), iter(others)
        states = [
            next(one if leaf.is_floating_point() else two).unsqueeze(0) for leaf in tree.leaves(self.inputs.states)
        ]
        state = tree.unflatten(self.inputs.states, states)
        mask = masks[0].unsqueeze(0) if masks else None
        named = {f"cell.{n}": v for n, v in values.items()}
        done: tuple[Tree, Tree] = functional_call(self.module, named, (given[0], state, given[1], mask))
        return done

    def __call__(
        self, values: dict[str, Tensor], floats: tuple[Tensor, ...], others: Any, rest: Any, masks: Any
    ) -> Tensor:
        """(S,)."""
        given = tree.unflatten((self.inputs.xs, self.inputs.forced), [r.unsqueeze(0) for r in rest])
        return flat(self.stepped(values, floats, others, given, masks)[1])[0]


class _GraphRow(_Row):
    """The same by another form of the step."""

    def __init__(self, cell: Cell, inputs: _Inputs, graph: StepGraph) -> None:
        super().__init__(cell, inputs)
        self.graph = graph

    def _run(
        self, values: dict[str, Tensor], floats: tuple[Tensor, ...], others: Any, rest: Any, masks: Any
    ) -> list[Tensor]:
        named = [values.get(n, p) for n, p in self.cell.named_parameters()]
        lead = [[leaf.unsqueeze(0) for leaf in group] for group in (floats, others, rest, masks)]
        given = [*named, *self.cell.buffers(), *(leaf for group in lead for leaf in group)]
        found: list[Tensor] = list(self.graph.module(*given))
        return found

    def __call__(
        self, values: dict[str, Tensor], floats: tuple[Tensor, ...], others: Any, rest: Any, masks: Any
    ) -> Tensor:
        """(S,)."""
        found = self._run(values, floats, others, rest, masks)[: self.graph.num_states]
        return torch.cat([leaf.reshape(-1) for leaf in found])

    def outputs(self, states: list[Tensor], values: dict[str, Tensor] | None = None) -> Tree:
        """y for states (T * B, ...) with a history, other values of parameters if given; leaves (T * B, ...)."""
        floats = tuple(s for s in states if s.is_floating_point())
        _, others, rest, masks = self.leaves()
        a, b = self.graph.num_states, self.graph.num_states + self.graph.num_outputs

        def one(*given: Any) -> tuple[Tensor, ...]:
            return tuple(leaf[0] for leaf in self._run(values or {}, *given)[a:b])

        found = iter(vmap(one)(floats, others, rest, masks) if b > a else ())
        if all(self.graph.floating):
            return tree.unflatten(self.cell.output_spec, list(found))
        with torch.no_grad():  # what does not float has no history
            state = tree.unflatten(self.inputs.states, [s.detach() for s in states])
            ys, _ = self.cell.step(tree.map(_together, self.inputs.xs), state)
        leaves = zip(tree.leaves(ys), self.graph.floating)
        return tree.unflatten(self.cell.output_spec, [next(found) if is_float else leaf for leaf, is_float in leaves])


def row_of(cell: Cell, inputs: _Inputs, graph: StepGraph | None = None) -> Any:
    """The next state of one row as a function of parameters and state; by the cell's own step, or by a graph of it."""
    return _Row(cell, inputs) if graph is None else _GraphRow(cell, inputs, graph)


def jacobians(cell: Cell, made: Stretch) -> Iterator[tuple[Tensor, Tensor]]:
    """For every step, the derivatives of the next state by the state (B, S, S) and by the parameters (B, S, P)."""
    row = _Row(cell, made.inputs)
    num_steps, rows, size = made.wanted.shape
    count = sum(p.numel() for p in row.parameters.values())
    if size == 0 or num_steps == 0:
        return
    leaves = row.leaves()
    block = max(1, _MOST_ELEMENTS // max(1, rows * size * (size + count)))
    for a in range(0, num_steps, block):
        part = rows_between(leaves, a * rows, min(a + block, num_steps) * rows)
        num = part[0][0].shape[0]
        by_parameters, by_states = _together_or_one_by_one(row, part, num)
        immediate = side_by_side(by_parameters, row.parameters, num, size)
        passed = torch.cat([d.reshape(num, size, -1) for d in by_states], -1)
        for t in range(num // rows):
            here = slice(t * rows, (t + 1) * rows)
            yield passed[here], immediate[here]


def pulled(cell: Cell, made: Stretch, covectors: Tensor) -> Iterator[Tensor]:
    """For every step, covectors (T, B, S) times the derivative of the next state by the parameters: (B, P).

    One backward pass; the derivative itself, (B, S, P), is nowhere.
    """
    row = _Row(cell, made.inputs)
    num_steps, rows, size = made.wanted.shape
    count = sum(p.numel() for p in row.parameters.values())
    if size == 0 or num_steps == 0:
        return
    leaves, flat_covectors = row.leaves(), _together(covectors)
    block = max(1, _MOST_ELEMENTS // max(1, rows * count))
    for a in range(0, num_steps, block):
        b = min(a + block, num_steps)
        part, wanted = rows_between(leaves, a * rows, b * rows), flat_covectors[a * rows : b * rows]
        found = side_by_side(_pull_rows(row, part, wanted), row.parameters, wanted.shape[0])
        yield from found.split(rows)


def _pull_rows(row: _Row, part: Any, covectors: Tensor) -> dict[str, Tensor]:
    """(N, *shape) by name: one row by plain autograd, several in one go, one by one where `torch.func` cannot map."""
    num = covectors.shape[0]

    def one(leaves: Any, covector: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            values = {n: p.detach().requires_grad_() for n, p in row.parameters.items()}
            new = row(values, *leaves)
            grads: tuple[Tensor | None, ...] = (None,) * len(values)
            if new.requires_grad and values:
                grads = torch.autograd.grad(new, list(values.values()), covector, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(values.items(), grads)}

    def mapped(floats: Any, others: Any, rest: Any, masks: Any, covector: Tensor) -> dict[str, Tensor]:
        together: Any = vjp(lambda values: row(values, floats, others, rest, masks), row.parameters)
        found: dict[str, Tensor] = together[1](covector)[0]
        return found

    if num > 1:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                run: Any = vmap(mapped)
                return dict(run(*part, covectors))
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
    each = [one(tuple(tuple(leaf[i] for leaf in group) for group in part), covectors[i]) for i in range(num)]
    return {n: torch.stack([found[n] for found in each]) for n in row.parameters}


def pushing(cell: Cell, made: Stretch) -> Callable[[int, Tensor], Tensor]:
    """A function of a step t and tangents (B, S): the derivative of the next state by the state, times them, (B, S).

    What a backward pass gives is linear in its covector; the derivative by the covector is the product that is wanted. So it
    is two backward passes over the batch; S of them for a step with functions in Python, which may know one derivative only.
    """
    module, inputs = Transition(cell), made.inputs
    states = [leaf.detach() for leaf in tree.leaves(inputs.states)]
    sizes = [prod(leaf.shape[2:]) for leaf in states if leaf.is_floating_point()]

    def step(t: int, floats: list[Tensor]) -> Tensor:
        given = iter(floats)
        leaves = [next(given) if leaf.is_floating_point() else leaf[t] for leaf in states]
        forced = None if inputs.forced is None else tree.at(inputs.forced, t)
        mask = None if inputs.force_mask is None else inputs.force_mask[t]
        _, new = module(tree.at(inputs.xs, t), tree.unflatten(inputs.states, leaves), forced, mask)
        return flat(new)

    def by_rows(t: int, tangents: Tensor) -> Tensor:
        with torch.enable_grad():
            floats = [leaf[t].clone().requires_grad_() for leaf in states if leaf.is_floating_point()]
            columns, out = step(t, floats).sum(0), []
            for column in columns:
                grads: Any = (None,) * len(floats)
                if column.requires_grad:
                    grads = torch.autograd.grad(column, floats, retain_graph=True, allow_unused=True)
                parts = [torch.zeros_like(f) if g is None else g for g, f in zip(grads, floats)]
                out.append((torch.cat([p.flatten(1) for p in parts], 1) * tangents).sum(1))
        return torch.stack(out, 1)

    torchs_own: bool | None = None

    def push(t: int, tangents: Tensor) -> Tensor:
        nonlocal torchs_own
        with torch.enable_grad():
            floats = [leaf[t].clone().requires_grad_() for leaf in states if leaf.is_floating_point()]
            new = step(t, floats)
            if not new.requires_grad:
                return torch.zeros_like(tangents)
            if torchs_own is None:
                torchs_own = not _has_functions_in_python(new)
            if not torchs_own:
                return by_rows(t, tangents)
            covector = torch.zeros_like(new, requires_grad=True)
            pulled_back = torch.autograd.grad(new, floats, covector, create_graph=True, allow_unused=True)
        parts = [p.reshape(f.shape).to(f.dtype) for p, f in zip(tangents.split(sizes, 1), floats)]
        reached = [(g, p) for g, p in zip(pulled_back, parts) if g is not None and g.requires_grad]
        if not reached:
            return torch.zeros_like(tangents)
        (found,) = torch.autograd.grad([g for g, _ in reached], covector, [p for _, p in reached])
        return found

    return push


def _has_functions_in_python(tensor: Tensor) -> bool:
    """Is a ``torch.autograd.Function`` in its history?"""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def _together_or_one_by_one(row: _Row, part: Any, num: int) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Jacobians of all rows in one go; row by row through autograd for a step that `torch.func` cannot map."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found: Any = vmap(jacrev(row, argnums=(0, 1)), in_dims=(None, 0, 0, 0, 0))(row.parameters, *part)
            return found
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
    columns: list[Any] = []
    for i in range(num):
        one = tuple(tuple(leaf[i] for leaf in group) for group in part)
        with torch.enable_grad():
            values = {n: p.detach().requires_grad_() for n, p in row.parameters.items()}
            floats = tuple(leaf.detach().requires_grad_() for leaf in one[0])
            new = row(values, floats, *one[1:])
            wanted = [*values.values(), *floats]
            parts = []
            for element in new:
                grads: Any = (None,) * len(wanted)
                if element.requires_grad:
                    grads = torch.autograd.grad(element, wanted, retain_graph=True, allow_unused=True)
                parts.append([torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted)])
        columns.append([torch.stack(column) for column in zip(*parts)])
    stacked = [torch.stack(column) for column in zip(*columns)]
    names = list(row.parameters)
    return dict(zip(names, stacked)), tuple(stacked[len(names) :])


def rows_between(leaves: Any, a: int, b: int) -> Any:
    """Leaves (N, ...) from row a to row b."""
    return tuple(tuple(leaf[a:b] for leaf in group) for group in leaves)


class Observation(NamedTuple):
    """The derivatives of one step of B rows, with those of what the loss compares.

    Args:
        passed: (B, S, S) of the next state by the state before the step.
        immediate: (B, S, P) of the next state by the parameters.
        seen: (B, O, S) of the prediction by the state before the step.
        direct: (B, O, P) of the prediction by the parameters.
    """

    passed: Tensor
    immediate: Tensor
    seen: Tensor
    direct: Tensor


class _SeenRow(_Row):
    """The next state and the residual of one row, side by side, as a function of parameters and state."""

    def __init__(self, cell: Cell, inputs: _Inputs, loss: Loss, targets: Tree) -> None:
        super().__init__(cell, inputs)
        self.loss, self.targets = loss, targets

    def leaves(self) -> tuple[Any, ...]:
        """As `_Row.leaves`, the targets among the rest."""
        floats, others, rest, masks = super().leaves()
        return floats, others, (*rest, *(_together(leaf) for leaf in tree.leaves(self.targets))), masks

    def __call__(
        self, values: dict[str, Tensor], floats: tuple[Tensor, ...], others: Any, rest: Any, masks: Any
    ) -> Tensor:
        """(S + O,)."""
        everything = self.inputs.xs, self.inputs.forced, self.targets
        given = tree.unflatten(everything, [r.unsqueeze(0) for r in rest])
        y, new = self.stepped(values, floats, others, given, masks)
        y, target = (tree.map(lambda leaf: leaf.unsqueeze(0), part) for part in (y, given[2]))
        residual = self.loss.residual(y, target).reshape(-1)
        return torch.cat([flat(new)[0], residual]) if floats else residual


def observations(cell: Cell, made: Stretch, loss: Loss, targets: Tree) -> Iterator[Observation]:
    """For every step, what `jacobians` gives and the derivatives of the prediction, minus those of the residual."""
    row = _SeenRow(cell, made.inputs, loss, targets)
    num_steps, rows, size = made.wanted.shape
    count = sum(p.numel() for p in row.parameters.values())
    leaves = row.leaves()
    block = max(1, _MOST_ELEMENTS // max(1, rows * (size + 1) * (size + count)))
    for a in range(0, num_steps, block):
        part = rows_between(leaves, a * rows, min(a + block, num_steps) * rows)
        num = (min(a + block, num_steps) - a) * rows
        by_parameters, by_states = _together_or_one_by_one(row, part, num)
        every = [*by_parameters.values(), *by_states]
        total = every[0].shape[1] if every else size
        of_parameters = side_by_side(by_parameters, row.parameters, num, total).to(made.wanted)
        of_states = made.wanted.new_zeros(num, total, 0)
        if by_states:
            of_states = torch.cat([d.reshape(num, total, -1) for d in by_states], -1)
        for t in range(num // rows):
            here = slice(t * rows, (t + 1) * rows)
            by_state, by_parameter = of_states[here], of_parameters[here]
            yield Observation(by_state[:, :size], by_parameter[:, :size], -by_state[:, size:], -by_parameter[:, size:])
