"""Laws about learning rules. Each is asked with one rule and one cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.controls import Controls
from ..core.loss import Loss, MeanSquaredError, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule, SearchRule
from ..core.spec import Leaf
from ..core.tree import Tree
from ..engines.loop import Loop
from ..engines.unroll import unroll
from .compare import same
from .generate import SquaredDistance, case, generator_of, lengths_for, mask_for, prepared, rows_of, sizes, values
from .law import Setting, broken, law
from .step_laws import snapshot

Rule = LearningRule[Any] | SearchRule[Any]


class Task(NamedTuple):
    """What a rule is asked to learn: a cell (quiet), a chunk with weights and resets, and a loss."""

    cell: Cell
    chunk: Chunk
    loss: Loss


class _WholeSequence(SequenceLoss):
    """A loss without a value for each step."""

    def per_sequence(self, ys: Tree, targets: Tree, lengths: Tensor | None) -> Tensor:
        return SquaredDistance().per_step(ys, targets).sum(0)


def task(cell: Cell, setting: Setting, *, min_steps: int = 1, min_rows: int = 1, noisy: bool = False) -> Task:
    """A random task. Every row starts with a reset, so that learned initial values are reached."""
    own, _, _ = case(cell, setting)
    own.train(noisy)
    num_steps, batch_size = max(setting.num_steps, min_steps), max(setting.batch_size, min_rows)
    generator = generator_of(setting, 41)
    xs = values(own.input_spec, num_steps, batch_size, dtype=own.dtype, generator=generator)
    targets = values(own.output_spec, num_steps, batch_size, dtype=own.dtype, generator=generator)
    weights = torch.rand(num_steps, batch_size, dtype=own.dtype, generator=generator, device=generator.device)
    reset = mask_for(setting, num_steps, batch_size)
    reset[0] = True
    plain = isinstance(own.output_spec, Leaf) and (own.output_spec.dtype or own.dtype).is_floating_point
    loss = MeanSquaredError() if plain and len(own.output_spec.shape) == 1 else SquaredDistance()
    return Task(own, Chunk(xs, targets, weights, Controls(reset=reset)), loss)


def _idle(rule: Rule, given: Task) -> str | None:
    """Why a law of learning rules is not asked."""
    if not isinstance(rule, LearningRule):
        return "it is a SearchRule."
    if not any((leaf.dtype or torch.float32).is_floating_point for leaf in tree.leaves(given.cell.output_spec)):
        return "the cell's output does not float."
    reason = rule.supports(given.cell, given.loss)
    return None if reason is None else f"not supported: {reason}"


def _first(rule: LearningRule, given: Task, rows: slice = slice(None)) -> tuple[Any, Estimate]:
    """The carry and the estimate after the first chunk, of some rows."""
    chunk = _rows(given.chunk, rows)
    carry = rule.init(given.cell, sizes(chunk.xs)[1], seed=3)
    return rule.step(given.cell, carry, chunk, given.loss)


def _rows(chunk: Chunk, rows: slice) -> Chunk:
    weights = None if chunk.weights is None else chunk.weights[:, rows]
    lengths = None if chunk.controls.lengths is None else chunk.controls.lengths[rows]
    reset = None if chunk.controls.reset is None else chunk.controls.reset[:, rows]
    return Chunk(rows_of(chunk.xs, rows), rows_of(chunk.targets, rows), weights, Controls(lengths, reset))


def _steps(chunk: Chunk, start: int, stop: int) -> Chunk:
    weights = None if chunk.weights is None else chunk.weights[start:stop]
    xs, targets = tree.window(chunk.xs, start, stop), tree.window(chunk.targets, start, stop)
    return Chunk(xs, targets, weights, chunk.controls.window(start, stop))


def _same_estimate(what: str, found: Estimate, wanted: Estimate, tolerance: float | None = None) -> None:
    same(f"the loss of {what}", found.loss, wanted.loss, tolerance)
    same(f"the weight of {what}", found.weight, wanted.weight, tolerance)
    same(f"an output of {what}", found.outputs, wanted.outputs, tolerance)
    _same_directions(what, found.direction, wanted.direction, tolerance)


def _same_directions(
    what: str, found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float | None = None
) -> None:
    for name, direction in wanted.items():
        if name not in found:
            broken(f"there is no direction for {name} in {what}.")
        same(f"the direction for {name} of {what}", found[name], direction, tolerance)


@law("supports gives None or a sentence, and a step that is not supported raises ValueError or TypeError with it.")
def supports(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """With a loss of steps and with a loss of whole sequences."""
    if not isinstance(rule, LearningRule):
        return "it is a SearchRule."
    given = task(cell, setting)
    for loss in (given.loss, _WholeSequence()):
        reason = rule.supports(given.cell, loss)
        if reason is None:
            continue
        if not isinstance(reason, str) or not reason.endswith(".") or len(reason) < 10:
            broken(f"supports gives {reason!r}, which is no sentence.")
        try:
            rule.step(given.cell, rule.init(given.cell, sizes(given.chunk.xs)[1]), given.chunk, loss)
        except (ValueError, TypeError) as error:
            if reason not in str(error):
                broken(f"the refusal does not say what supports says: {error}")
            continue
        broken(f"it runs what it says it does not support: {reason}")
    return None


@law("A direction has the name, shape and type of a parameter; loss and weight are numbers; nothing has a history.")
def forms(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """And the outputs are those of the cell."""
    given = task(cell, setting)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    with torch.no_grad():
        wanted = unroll(given.cell, given.chunk.xs, None, given.chunk.controls, engine=Loop())[0]
    _, estimate = _first(rule, given)
    parameters = dict(given.cell.named_parameters())
    for name, direction in estimate.direction.items():
        if name not in parameters:
            broken(f"it gives a direction for {name!r}, which is no parameter.")
        nothing = torch.zeros_like(direction), torch.zeros_like(parameters[name])
        same(f"the form of the direction for {name}", *nothing)
        if not bool(direction.isfinite().all()):
            broken(f"the direction for {name} is not finite.")
    if parameters and not estimate.direction:
        broken("it gives no direction at all.")
    for name, value in (("loss", estimate.loss), ("weight", estimate.weight)):
        if value.shape != ():
            broken(f"{name} has shape {tuple(value.shape)}, it must be one number.")
    everything = (*estimate.direction.values(), estimate.loss, estimate.weight, *tree.leaves(estimate.outputs))
    if any(t.requires_grad for t in everything):
        broken("the estimate hangs on the graph.")
    same("an output", estimate.outputs, wanted)
    return None


@law("A step reads the parameters and changes neither them nor their .grad, nor the module, nor the chunk.")
def reads_only(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """Values, versions and attributes are looked at."""
    given = task(cell, setting)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    before, versions = snapshot(given.cell), [leaf._version for leaf in tree.leaves(given.chunk)]
    _first(rule, given)
    changed = [name for name, value in snapshot(given.cell).items() if before.get(name) != value]
    if changed:
        broken(f"a step changes {', '.join(changed[:3])} of the module.")
    if any(p.grad is not None for p in given.cell.parameters()):
        broken("a step leaves a .grad.")
    if [leaf._version for leaf in tree.leaves(given.chunk)] != versions:
        broken("a step writes to the chunk.")
    return None


@law("The same carry and chunk give the same estimate: the carry is data, and nothing is kept on the rule.")
def repeats(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """With the cell's noise; the second chunk of a stream."""
    given = task(cell, setting, min_steps=2, noisy=setting.noisy)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    carry, _ = _first(rule, given)
    _, once = rule.step(given.cell, carry, given.chunk, given.loss)
    torch.manual_seed(setting.seed + 1)
    _, again = rule.step(given.cell, carry, given.chunk, given.loss)
    _same_estimate("the same step asked again", again, once, 0.0)
    return None


@law("A carry that is stored as plain numbers in mid-stream goes on the same.")
def resumes(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """Its tensors go through bytes; so it holds no history, no module and no generator."""
    given = task(cell, setting, min_steps=2, noisy=setting.noisy)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    carry, _ = _first(rule, given)
    other = stored(carry)
    for index in range(2):
        carry, wanted = rule.step(given.cell, carry, given.chunk, given.loss)
        other, found = rule.step(given.cell, other, given.chunk, given.loss)
        _same_estimate(f"step {index + 2} from a stored carry", found, wanted, 0.0)
    return None


def stored(value: Any) -> Any:
    """A carry written to safetensors and read again. Tensors, numbers, text, None, tuples, lists and dictionaries."""
    import safetensors.torch

    if isinstance(value, Tensor):
        if value.requires_grad:
            broken("a tensor of the carry hangs on the graph.")
        plain = {"t": value.detach().clone().contiguous()}
        return safetensors.torch.load(safetensors.torch.save(plain))["t"].to(value.device)
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, tuple):
        return tree.rebuild(value, [stored(item) for item in value])
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, dict):
        return {key: stored(item) for key, item in value.items()}
    broken(f"the carry holds a {type(value).__name__}, which cannot be stored without pickle.")


@law("A direction adds up over the rows of a batch, and so do loss and weight.")
def rows_add(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """Without noise, for rules whose directions are gradients."""
    given = task(cell, setting, min_rows=2)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    if rule.kind != "gradient":
        return "its directions are steps."
    _, whole = _first(rule, given)
    parts = [_first(rule, given, slice(row, row + 1))[1] for row in range(sizes(given.chunk.xs)[1])]
    same("the summed loss of the rows", sum(p.loss for p in parts), whole.loss)
    same("the summed weight of the rows", sum(p.weight for p in parts), whole.weight)
    summed = {name: torch.stack([p.direction[name] for p in parts]).sum(0) for name in whole.direction}
    _same_directions("the rows, summed,", summed, whole.direction)
    return None


@law("Twice the weights give twice the direction and loss; a weight of zero leaves its step out, whatever its target.")
def weights(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """And no weights are weights of one."""
    given = task(cell, setting, min_steps=2)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    chunk = given.chunk
    assert chunk.weights is not None
    _, plain = _first(rule, given)
    if rule.kind == "gradient":
        _, twice = _first(rule, given._replace(chunk=chunk._replace(weights=2 * chunk.weights)))
        doubled = {name: 2 * d for name, d in plain.direction.items()}
        _same_directions("twice the weights", twice.direction, doubled)
        same("the loss of twice the weights", twice.loss, 2 * plain.loss)
        same("the weight of twice the weights", twice.weight, 2 * plain.weight)
    _, ones = _first(rule, given._replace(chunk=chunk._replace(weights=torch.ones_like(chunk.weights))))
    _, none = _first(rule, given._replace(chunk=chunk._replace(weights=None)))
    _same_estimate("no weights", none, ones)

    first = chunk.weights.clone()
    first[0] = 0
    wild = tree.map(lambda t: torch.cat([torch.full_like(t[:1], 50), t[1:]]), chunk.targets)
    _, left = _first(rule, given._replace(chunk=chunk._replace(weights=first)))
    _, out = _first(rule, given._replace(chunk=chunk._replace(weights=first, targets=wild)))
    _same_estimate("another target under a weight of zero", out, left)
    return None


@law("Padding counts for nothing: the direction of ragged rows is the sum over rows of their own lengths.")
def padding(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """NaN stands in the padding; the weights are those given, and none."""
    given = task(cell, setting, min_steps=2, min_rows=3)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    if rule.kind != "gradient":
        return "its directions are steps."
    num_steps, batch_size = sizes(given.chunk.xs)
    ends = lengths_for(setting, num_steps, batch_size)
    alive = Controls(lengths=ends).alive(num_steps)
    assert alive is not None

    def spoilt(t: Tensor) -> Tensor:
        if not tree.is_differentiable(t):
            return t
        mask = alive.reshape(*alive.shape, *[1] * (t.ndim - 2))
        return torch.where(mask, t, torch.full_like(t, float("nan")))

    for weight in (given.chunk.weights, None):
        chunk = given.chunk._replace(weights=weight)
        rubbish = chunk._replace(
            xs=tree.map(spoilt, chunk.xs),
            targets=tree.map(spoilt, chunk.targets),
            controls=chunk.controls._replace(lengths=ends),
        )
        _, ragged = _first(rule, given._replace(chunk=rubbish))
        parts = []
        for row in range(batch_size):
            if int(ends[row]):
                short = _steps(_rows(chunk, slice(row, row + 1)), 0, int(ends[row]))
                parts.append(_first(rule, given._replace(chunk=short))[1])
        same("the loss of ragged rows", ragged.loss, sum(p.loss for p in parts))
        same("the weight of ragged rows", ragged.weight, sum(p.weight for p in parts))
        summed = {name: torch.stack([p.direction[name] for p in parts]).sum(0) for name in ragged.direction}
        _same_directions("ragged rows", ragged.direction, summed)
    return None


@law("Given a whole sequence at once, the direction is the gradient of the weighted sum of the losses.")
def exact(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """The reference is autograd through `Loop`; a rule that estimates or cuts off the gradient is exempt."""
    given = task(cell, setting)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    assert isinstance(rule, LearningRule)
    if rule.kind != "gradient":
        return "its directions are steps."
    own, chunk, loss = given
    _, found = _first(rule, given)
    ys, _ = unroll(own, chunk.xs, None, chunk.controls, engine=Loop())
    total, weight = weighted_sum(loss.per_step(ys, chunk.targets), chunk.weights, None)
    same("the loss", found.loss, total.detach())
    same("the weight", found.weight, weight)
    named = {name: p for name, p in own.named_parameters() if p.requires_grad and name in found.direction}
    if not named or not total.requires_grad:
        return "the loss depends on no parameter."
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    wanted = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), grads)}
    _same_directions("the whole sequence", found.direction, wanted)
    return None


_BATCHES = 40


def deviation(rule: LearningRule, given: Task, draws: int) -> float:
    """How many standard errors the mean direction of many draws lies beside the gradient, at its worst element.

    A row is repeated, so a batch holds as many draws as it has rows; the standard error is that of the batches' means.
    """
    own, chunk, loss = given
    one = _rows(chunk, slice(0, 1))
    rows = max(1, draws // _BATCHES)

    def spread(t: Tensor) -> Tensor:
        return t.expand(-1, rows, *[-1] * (t.ndim - 2))

    many = Chunk(
        tree.map(spread, one.xs),
        tree.map(spread, one.targets),
        None if one.weights is None else spread(one.weights),
        Controls(reset=None if one.controls.reset is None else spread(one.controls.reset)),
    )
    ys, _ = unroll(own, one.xs, None, one.controls, engine=Loop())
    total, _ = weighted_sum(loss.per_step(ys, one.targets), one.weights, None)
    named = {name: p for name, p in own.named_parameters() if p.requires_grad}
    grads: Any = (None,) * len(named)
    if total.requires_grad:
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    found = []
    for seed in range(_BATCHES):
        carry = rule.init(own, rows, seed=seed)
        found.append(rule.step(own, carry, many, loss)[1].direction)
    worst = 0.0
    for (name, p), g in zip(named.items(), grads):
        if name not in found[0]:
            continue
        means = torch.stack([f[name] for f in found]) / rows
        wanted = torch.zeros_like(p) if g is None else g
        error = means.std(0) / _BATCHES**0.5 + 1e-8 * (1 + wanted.abs())
        worst = max(worst, float(((means.mean(0) - wanted).abs() / error).max()))
    return worst


@law("A rule that says it is unbiased gives the gradient on average over its random numbers.")
def unbiased(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """The mean of 1000 draws lies within seven standard errors of the gradient by autograd through `Loop`."""
    if not isinstance(rule, LearningRule) or not rule.unbiased:
        return "it does not say so."
    given = task(cell, replace(setting, dtype=torch.float64, num_steps=min(setting.num_steps, 5)), min_steps=3)
    idle = _idle(rule, given)
    if idle is not None:
        return idle
    if not list(given.cell.parameters()):
        return "the cell has no parameters."
    found = deviation(rule, given, 1000)
    if found > 7:
        broken(f"the mean of 1000 draws lies {found:.1f} standard errors beside the gradient.")
    return None


# --- search -----------------------------------------------------------------------------------------------------


def _target(cell: nn.Module, setting: Setting) -> dict[str, Tensor]:
    generator = generator_of(setting, 42)
    return {
        name: p.detach() + 0.5 * torch.randn(p.shape, dtype=p.dtype, generator=generator, device=generator.device)
        for name, p in cell.named_parameters()
        if tree.is_differentiable(p)
    }


def _fitness(candidates: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    """Minus the mean squared distance to the target, (N,)."""
    parts = [(candidates[name] - t).abs().square().flatten(1).mean(1) for name, t in target.items()]
    return -torch.stack(parts).mean(0)


@law("Candidates have the parameters' names, shapes and types with N in front; the same seed gives the same ones.")
def candidates(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """Two generations; the parameters that are given stay as they are."""
    if not isinstance(rule, SearchRule):
        return "it is no SearchRule."
    own = prepared(cell, setting)
    parameters: dict[str, Tensor] = dict(own.named_parameters())
    target = _target(own, setting)
    if not target:
        return "the cell has no parameters."
    before = {name: p.detach().clone() for name, p in parameters.items()}
    runs = []
    for _ in range(2):
        carry, found = rule.init(parameters, seed=setting.seed), []
        for _ in range(2):
            carry, asked = rule.ask(carry)
            found.append(asked)
            carry = rule.tell(carry, _fitness(asked, target))
        found.append(rule.best(carry))
        runs.append(found)
    for first, again in zip(*runs):
        if set(first) != set(parameters):
            broken(f"candidates name {sorted(set(first) ^ set(parameters))[:3]} too many or too few.")
        _same_directions("the same seed", again, first, 0.0)
    for asked in runs[0][:2]:
        for name, p in parameters.items():
            if asked[name].shape[1:] != p.shape or asked[name].dtype != p.dtype:
                broken(f"candidates of {name} are {tuple(asked[name].shape)} {asked[name].dtype}.")
        if len({int(c.shape[0]) for c in asked.values()}) != 1:
            broken("the parameters have different numbers of candidates.")
    for name, p in parameters.items():
        if runs[0][-1][name].shape != p.shape:
            broken(f"the best {name} has shape {tuple(runs[0][-1][name].shape)}.")
        same(f"parameter {name} after a search", p.detach(), before[name], 0.0)
    return None


@law("A search that is stored as plain numbers in mid-stream goes on the same.")
def search_resumes(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """The carry goes through bytes after a generation."""
    if not isinstance(rule, SearchRule):
        return "it is no SearchRule."
    own = prepared(cell, setting)
    target = _target(own, setting)
    if not target:
        return "the cell has no parameters."
    carry, asked = rule.ask(rule.init(dict(own.named_parameters()), seed=setting.seed))
    carry = rule.tell(carry, _fitness(asked, target))
    other = stored(carry)
    torch.manual_seed(setting.seed + 1)
    for _ in range(2):
        carry, wanted = rule.ask(carry)
        other, found = rule.ask(other)
        _same_directions("a generation from a stored carry", found, wanted, 0.0)
        carry, other = (rule.tell(c, _fitness(wanted, target)) for c in (carry, other))
    return None


@law("A search finds something better than where it began, on a bowl.")
def search_improves(rule: Rule, cell: Cell, setting: Setting) -> str | None:
    """A hundred generations towards a random target."""
    if not isinstance(rule, SearchRule):
        return "it is no SearchRule."
    own = prepared(cell, setting)
    target = _target(own, setting)
    if not target:
        return "the cell has no parameters."

    def score(parameters: dict[str, Tensor]) -> float:
        return float(_fitness({name: p.detach()[None] for name, p in parameters.items()}, target))

    carry = rule.init(dict(own.named_parameters()), seed=setting.seed)
    before = score(rule.best(carry))
    for _ in range(100):
        carry, asked = rule.ask(carry)
        carry = rule.tell(carry, _fitness(asked, target))
    after = score(rule.best(carry))
    if not after > before:
        broken(f"after 100 generations the fitness is {after:.4g}, it began at {before:.4g}.")
    return None
