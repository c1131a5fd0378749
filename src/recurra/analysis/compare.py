"""Learning rules side by side on one trajectory: how near to the gradient, how noisy, how fast, how large."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.loss import Loss, weighted_sum
from ..core.rule import Chunk, LearningRule
from ..engines import Loop
from ..engines.unroll import unroll
from .memory import carry_bytes, peak_bytes

OnProgress = Callable[[str, float], None]
TIMINGS = 3  # least number of passes that a time is the median of


@dataclass(frozen=True)
class Compared:
    """What one rule made of the trajectory. Lengths and errors are relative to the length of the exact gradient.

    Args:
        rule: as it was named.
        refused: why it cannot learn this; then nothing else is known.
        draws: passes with random numbers of their own; 1 for a rule that draws nothing.
        at_once: True where the rule keeps no state from chunk to chunk, so it was given the whole trajectory.
        is_step: its directions are steps and no gradients, so that their length says nothing.
        cosine: with the exact gradient of the whole trajectory, mean over draws.
        cosine_std: its standard deviation over draws; NaN for one.
        length: of the direction.
        bias: distance of the mean over draws from the gradient.
        bias_noise: what ``bias`` would be of an unbiased rule with this variance and so many draws.
        deviation: root mean squared distance of a draw from the mean over draws.
        cosines: (num_chunks,) the same cosine, chunk by chunk; empty with ``at_once``.
        us_per_step: microseconds for a step of the stream, the median over passes.
        carry_bytes: what is carried between chunks.
        peak_bytes: the most that a chunk's work holds, the carry not included.
    """

    rule: str
    refused: str | None = None
    draws: int = 0
    at_once: bool = False
    is_step: bool = False
    cosine: float = math.nan
    cosine_std: float = math.nan
    length: float = math.nan
    bias: float = math.nan
    bias_noise: float = math.nan
    deviation: float = math.nan
    cosines: tuple[float, ...] = field(default=())
    us_per_step: float = math.nan
    carry_bytes: int = 0
    peak_bytes: int = 0


def exact_gradients(cell: Cell, chunk: Chunk, edges: Sequence[int], loss: Loss) -> Tensor:
    """The gradient of the summed loss of each piece of a trajectory, through all of its past.

    Args:
        cell: any.
        chunk: the whole trajectory, from the initial state.
        edges: where pieces begin and end: 0, ..., T.
        loss: a value for every step.

    Returns:
        (num_pieces, P), the parameters side by side in their order.

    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> chunk = Chunk(torch.ones(6, 1, 2), torch.zeros(6, 1, 3))
        >>> exact_gradients(ElmanCell(2, 3), chunk, [0, 2, 6], MeanSquaredError()).shape
        torch.Size([2, 18])
    """
    parameters = [p for p in cell.parameters() if p.requires_grad]
    num_steps = int(tree.leaves(chunk.xs)[0].shape[0])
    with torch.enable_grad():
        ys, _ = unroll(cell, chunk.xs, None, chunk.controls, engine=Loop())
        values, alive = loss.per_step(ys, chunk.targets), chunk.controls.alive(num_steps)
        found = []
        for a, b in pairwise(edges):
            weights = None if chunk.weights is None else chunk.weights[a:b]
            total, _ = weighted_sum(values[a:b], weights, None if alive is None else alive[a:b])
            grads: Any = [None] * len(parameters)
            if total.requires_grad:
                grads = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
            found.append(_flat([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads)]))
    return torch.stack(found)


def compare_rules(
    rules: Sequence[LearningRule[Any]],
    cell: Cell,
    chunk: Chunk,
    loss: Loss,
    *,
    num_steps: int = 1,
    draws: int = 20,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Compared]:
    """Put several rules on one trajectory, with parameters that stay, and hold their directions against the gradient.

    The gradient is that of the summed loss by the parameters, through the whole past (`exact_gradients`). A rule that carries
    the state goes through the trajectory chunk by chunk; one that begins anew with every chunk gets it as a whole. A rule that
    gives the same with another seed draws nothing and is asked once.

    Args:
        rules: to compare.
        cell: in evaluation mode where it should be quiet.
        chunk: the whole trajectory.
        loss: a value for every step.
        num_steps: T of the chunks in which it is learned.
        draws: passes of a rule that draws random numbers.
        seed: of the first draw; the next has the next one.
        on_progress: told the rule and the fraction of everything that is done.

    Returns:
        One entry for each rule, in order.

    Raises:
        ValueError: a size below 1, or a trajectory whose gradient is zero.
    Example:
        >>> import torch
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import MeanSquaredError
        >>> from recurra.learning import RTRL, TruncatedBPTT
        >>> chunk = Chunk(torch.randn(20, 1, 2), torch.randn(20, 1, 3))
        >>> exact, short = compare_rules([RTRL(), TruncatedBPTT()], ElmanCell(2, 3), chunk, MeanSquaredError())
        >>> round(exact.cosine, 4), 0 < short.cosine < 1
        (1.0, True)
    """
    for name, value in (("num_steps", num_steps), ("draws", draws)):
        if value < 1:
            raise ValueError(sentence("compare_rules", name, "at least 1", value))
    total_steps = int(tree.leaves(chunk.xs)[0].shape[0])
    edges = [*range(0, total_steps, num_steps), total_steps]
    exact = exact_gradients(cell, chunk, edges, loss)
    if not float(exact.sum(0).norm()) > 0:
        raise ValueError(
            sentence("compare_rules", "the gradient", "other than zero", "zero", "Nothing can be learned.")
        )
    with torch.no_grad():
        wanted = unroll(cell, chunk.xs, None, chunk.controls, engine=Loop())[0]
    found = []
    for index, rule in enumerate(rules):

        def told(part: float, index: int = index, rule: LearningRule[Any] = rule) -> None:
            if on_progress is not None:
                on_progress(_name(rule), (index + part) / len(rules))

        told(0.0)
        reason = rule.supports(cell, loss)
        if reason is not None:
            found.append(Compared(_name(rule), refused=reason))
            continue
        at_once = not _keeps_the_state(rule, cell, chunk, edges, loss, wanted, seed)
        found.append(_one(rule, cell, chunk, [0, total_steps] if at_once else edges, loss, exact, draws, seed, told))
    return found


class _Pass(NamedTuple):
    directions: Tensor  # (num_chunks, P)
    seconds: float
    carry: Any
    outputs: list[Any]


def _pass(rule: LearningRule[Any], cell: Cell, chunk: Chunk, edges: Sequence[int], loss: Loss, seed: int) -> _Pass:
    """Along the trajectory."""
    rows = int(tree.leaves(chunk.xs)[0].shape[1])
    carry, directions, outputs = rule.init(cell, rows, seed=seed), [], []
    named = [(n, p) for n, p in cell.named_parameters() if p.requires_grad]
    begin = time.perf_counter()
    for a, b in pairwise(edges):
        carry, estimate = rule.step(cell, carry, _window(chunk, a, b), loss)
        directions.append(estimate.direction)
        outputs.append(estimate.outputs)
    seconds = time.perf_counter() - begin
    flat = [_flat([d[n] if n in d else torch.zeros_like(p) for n, p in named]) for d in directions]
    return _Pass(torch.stack(flat), seconds, carry, outputs)


def _keeps_the_state(
    rule: LearningRule[Any], cell: Cell, chunk: Chunk, edges: Sequence[int], loss: Loss, wanted: Any, seed: int
) -> bool:
    """Are the outputs of the second chunk those of the trajectory, and not those of a new beginning?"""
    if len(edges) < 3:
        return True
    b = edges[2]
    outputs = _pass(rule, cell, _window(chunk, 0, b), edges[:3], loss, seed).outputs
    pairs = zip(tree.leaves(tree.concatenate(outputs)), tree.leaves(tree.window(wanted, 0, b)))
    return all(torch.allclose(found, own, rtol=1e-3, atol=1e-5) for found, own in pairs)


def _one(
    rule: LearningRule[Any],
    cell: Cell,
    chunk: Chunk,
    edges: Sequence[int],
    loss: Loss,
    exact: Tensor,
    draws: int,
    seed: int,
    told: Callable[[float], None],
) -> Compared:
    total_steps, pieces = edges[-1], len(edges) - 1
    whole, passes = exact.sum(0), []
    for draw in range(draws):
        passes.append(_pass(rule, cell, chunk, edges, loss, seed + draw))
        if draw == 1 and torch.equal(passes[0].directions, passes[1].directions):
            del passes[1:]  # it draws nothing
            break
        told((draw + 1) / (draws + TIMINGS))
    seconds = [p.seconds for p in passes]
    while len(seconds) < TIMINGS:
        seconds.append(_pass(rule, cell, chunk, edges, loss, seed).seconds)
    directions = torch.stack([p.directions for p in passes])  # (draws, num_chunks, P)
    sums = directions.sum(1)
    mean, size = sums.mean(0), float(whole.norm())
    cosines = torch.nn.functional.cosine_similarity(sums, whole[None], dim=1)
    many = len(passes) > 1
    spread = float((sums - mean).square().sum(1).sum().div(len(passes) - 1).sqrt()) / size if many else 0.0
    by_chunk: tuple[float, ...] = ()
    if pieces == exact.shape[0]:
        by_chunk = tuple(torch.nn.functional.cosine_similarity(directions, exact[None], dim=2).mean(0).tolist())
    last = _window(chunk, edges[-2], edges[-1])
    carry = passes[0].carry if pieces > 1 else rule.init(cell, int(tree.leaves(chunk.xs)[0].shape[1]), seed=seed)
    is_step = rule.kind == "step"
    return Compared(
        _name(rule),
        None,
        len(passes),
        pieces == 1 and exact.shape[0] > 1,
        is_step,
        float(cosines.mean()),
        float(cosines.std()) if many else math.nan,
        math.nan if is_step else float(sums.norm(dim=1).mean()) / size,
        math.nan if is_step else float((mean - whole).norm()) / size,
        math.nan if is_step else spread / math.sqrt(len(passes)),
        math.nan if is_step else spread,
        by_chunk,
        statistics.median(seconds) / total_steps * 1e6,
        carry_bytes(passes[0].carry),
        peak_bytes(lambda: rule.step(cell, carry, last, loss)),
    )


def _name(rule: LearningRule[Any]) -> str:
    """The rule with the options that are not its defaults."""
    from dataclasses import MISSING, fields

    if not hasattr(rule, "__dataclass_fields__"):
        return type(rule).__name__
    said = []
    for f in fields(rule):  # type: ignore[arg-type]
        default = (
            f.default
            if f.default is not MISSING
            else f.default_factory()
            if f.default_factory is not MISSING
            else MISSING
        )
        if getattr(rule, f.name) != default:
            said.append(f"{f.name}={getattr(rule, f.name)!r}")
    return type(rule).__name__ + (f"({', '.join(said)})" if said else "")


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def _window(chunk: Chunk, a: int, b: int) -> Chunk:
    weights = None if chunk.weights is None else chunk.weights[a:b]
    return Chunk(tree.window(chunk.xs, a, b), tree.window(chunk.targets, a, b), weights, chunk.controls.window(a, b))


def draw_comparison(figure: Any, found: Sequence[Compared], num_steps: int) -> None:
    """Cosine and time beside each other, and the cosine along the trajectory.

    Args:
        figure: a ``matplotlib.figure.Figure``.
        found: what `compare_rules` returned.
        num_steps: T of its chunks.
    """
    shown = [one for one in found if one.refused is None]
    palette = (
        "#0077bb",
        "#ee7733",
        "#009988",
        "#cc3311",
        "#33bbee",
        "#ee3377",
        "#777777",
        "#aa8800",
        "#663399",
        "#225522",
    )
    colors = {id(one): palette[i % len(palette)] for i, one in enumerate(shown)}
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.1, 1.1, 1.6]})
    for row, one in enumerate(reversed(shown)):
        error = 0.0 if math.isnan(one.cosine_std) else one.cosine_std
        left.barh(row, one.cosine, xerr=error or None, color=colors[id(one)], height=0.6, error_kw={"lw": 1})
        middle.barh(row, one.us_per_step, color=colors[id(one)], height=0.6)
        middle.text(one.us_per_step, row, f" {one.us_per_step:,.0f}", va="center", fontsize=8)
        if len(one.cosines) > 1:
            at = [(i + 0.5) * num_steps for i in range(len(one.cosines))]
            right.plot(at, one.cosines, lw=1.2, color=colors[id(one)], label=one.rule)
    left.set_yticks(range(len(shown)), [one.rule for one in reversed(shown)], fontsize=8)
    for label, one in zip(left.get_yticklabels(), reversed(shown)):
        label.set_color(colors[id(one)])
    middle.set_yticks([])
    lowest = min([0.0, *(one.cosine for one in shown)])
    left.set(xlabel="cosine with the gradient", xlim=(lowest - 0.05 if lowest < 0 else 0, 1.05))
    middle.set(xlabel="microseconds a step", xscale="log")
    times = [one.us_per_step for one in shown]
    middle.set_xlim(10 ** math.floor(math.log10(min(times)) - 0.3), max(times) * 10)
    middle.xaxis.set_minor_formatter("")
    right.set(xlabel="step of the trajectory", ylabel="cosine, chunk by chunk", ylim=(None, 1.05))
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_size(9)
        axis.yaxis.label.set_size(9)
