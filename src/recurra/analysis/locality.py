"""Local in space, local in time: found out by following what a learning rule reads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..core import tree
from ..core.cell import Cell, StochasticCell, quiet
from ..core.checks import sentence
from ..core.controls import Controls
from ..core.loss import Loss, MeanSquaredError
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.spec import Leaf
from .memory import carry_bytes, peak_bytes
from .places import Places

SPACE_STEPS = 3  # a chunk; two chunks are followed, so that the second one reads what the first one left
AT_ONCE = (5, 10)  # lengths of a stream; machine code, which cannot be followed, takes over at longer ones
STEP_BY_STEP = (20, 40)


@dataclass(frozen=True)
class Locality:
    """What was found out about one rule on one cell.

    Args:
        rule: the rule as text.
        refused: why it cannot train the cell; then nothing else is known.
        in_space: every update of a weight was made from quantities of the two units that it connects.
        in_time: the memory does not grow with the stream.
        reads: the most places whose values met in one operation on the way to an update: 1 unit, 2 a connection.
        num_places: units, inputs and outputs of the net.
        why: one sentence about space: the operation that reads from afar, and which places.
        at_once: steps of a stream that the rule has to see together: 1, or None for all of them.
        bytes_per_step: growth of the memory with each further step of a stream.
        carry_bytes: what is carried from step to step, without the generator's state.
    """

    rule: str
    refused: str | None = None
    in_space: bool | None = None
    in_time: bool | None = None
    reads: int = 0
    num_places: int = 0
    why: str = ""
    at_once: int | None = None
    bytes_per_step: float = 0.0
    carry_bytes: int = 0


def audit(rule: LearningRule[Any], cell: Cell, loss: Loss | None = None, *, seed: int = 0) -> Locality:
    """Is a rule local in space, and in time? Found out by tracing it on a cell, without a line about either.

    Space: every number is followed from the parameters, inputs, states and targets to the direction (`Places`). Which unit a
    row or a column of a weight belongs to is found out in the same way, from one step of the cell. The update of the weight
    from unit j to unit i may be made of what is at i, at j and at their connection. A unit may gather what its connections
    bring, so errors that travel backwards along the connections are local, as in the literature. A matrix that a rule carries
    and never changes, of a weight's shape, is taken for connections of its own between the same units.

    Time: a rule that says the same of a stream in single steps as of the whole needs one step at a time; it is local in time
    if what it holds then does not grow from step 20 to step 40. Otherwise it has to see the stream at once, and what it holds
    meanwhile is counted. A rule whose directions are steps moves the parameters as it goes; it needs one step at a time if the
    net puts out the same in single steps as at once, so if it carries the net's state.

    Args:
        rule: on trial.
        cell: small, with random weights; sizes that differ from each other make the verdict sharper.
        loss: a value for every step, as a sum over outputs; the mean squared error by default.
        seed: of inputs, targets and the rule's own draws.

    Returns:
        The findings; ``refused`` where the rule does not support the cell or the loss.

    Raises:
        ValueError: a cell without learning parameters, or one whose numbers are complex.
    Source:
        The words: Hochreiter & Schmidhuber 1997, Neural Computation 9(8):1735-1780, "local in space and time" (abstract
        read); Schmidhuber 1992, Neural Computation 4(2):243-248 (definitions from memory)
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.learning import BPTT, RTRL
        >>> [(found.in_space, found.in_time) for found in (audit(r, ElmanCell(2, 4)) for r in (BPTT(), RTRL()))]
        [(True, False), (False, True)]
    """
    cell = copy.deepcopy(cell).double().eval()
    parameters = {n: p for n, p in cell.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(sentence("audit", "cell", "one with parameters that learn", type(cell).__name__))
    if any(p.is_complex() for p in parameters.values()):
        raise ValueError(sentence("audit", "cell", "one with real numbers", f"{type(cell).__name__}, which is complex"))
    loss = loss or MeanSquaredError()
    reason = rule.supports(cell, loss)
    if reason is not None:
        return Locality(str(rule), refused=reason)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for p in parameters.values():  # a bias or a start that is zero by default would hide what reads it
            p.data += 0.1 * torch.randn_like(p)
        space = _space(rule, cell, loss, seed)
        time = _time(rule, cell, loss, seed)
    return Locality(str(rule), **space, **time)


def _stream(cell: Cell, num_steps: int, seed: int) -> Chunk:
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Leaf) -> Tensor:
        shape = (num_steps, 1, *(int(size) for size in leaf.shape))
        if leaf.dtype is not None and not leaf.dtype.is_floating_point:
            low, high = int(leaf.low or 0), int(leaf.high or 2)
            return torch.randint(low, high, shape, generator=generator).to(leaf.dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Chunk(tree.map(draw, cell.input_spec), tree.map(draw, cell.output_spec), None, Controls())


def _cut(chunk: Chunk, a: int, b: int) -> Chunk:
    return Chunk(tree.window(chunk.xs, a, b), tree.window(chunk.targets, a, b))


# --- space ------------------------------------------------------------------------------------------------------


def _space(rule: LearningRule[Any], cell: Cell, loss: Loss, seed: int) -> dict[str, Any]:
    """Follow two chunks."""
    chunk = _stream(cell, 2 * SPACE_STEPS, seed)
    given = _Map(cell, chunk)
    follow = given.places(chunk)
    with follow:
        carry = rule.init(cell, 1, seed=seed)
    after, _ = rule.step(cell, carry, _cut(chunk, 0, SPACE_STEPS), loss)
    given.place_fixed(follow, carry, after)
    given.place_state(follow, carry)
    estimates: list[Estimate] = []
    with follow:
        for a in (0, SPACE_STEPS):
            carry, estimate = rule.step(cell, carry, _cut(chunk, a, a + SPACE_STEPS), loss)
            estimates.append(estimate)
    worst, why, unseen = 0, "", ""
    for estimate in estimates:
        for name, direction in estimate.direction.items():
            found, wanted = follow.where(direction), given.parameter(name)
            count = found.places.sum(-1)
            strange = (found.places & ~wanted).any(-1)
            far = found.event >= 0
            for index in (direction != 0).nonzero().tolist():
                at = tuple(index)
                label = f"{name}{list(index) if index else ''}"
                if bool(far[at]):
                    event = follow.events[int(found.event[at])]
                    if len(event.places) > worst:
                        worst = len(event.places)
                        why = f"The update of {label} reads {given.words(event.places)} in one {event.operation}."
                elif bool(strange[at]) and not why:
                    worst = max(worst, int((found.places[at] | wanted[at]).sum()))
                    why = f"The update of {label} reads {given.words(found.places[at].nonzero()[:, 0].tolist())}."
                elif not bool(found.places[at].any()) and not unseen:
                    unseen = f"The update of {label} was made where tracing does not see."
            worst = max(worst, int(count.max()) if count.numel() else 0)
    if unseen and not why:
        raise ValueError(f"audit: {rule}: {unseen} Give it an engine in Python, such as Loop().")
    return {
        "in_space": not why,
        "reads": worst,
        "num_places": given.num_places,
        "why": why or "Every update reads the two units of its connection.",
    }


class _Map:
    """The places of a net: units, inputs, outputs. Found from one step of the cell.

    At first every element of the state and of an input, and every row and column of a weight, is a place of its own. What meets
    element by element in a step, what enters a row's sum through a column, and what stands in the same element of the state
    before and after a step, is one place.
    """

    def __init__(self, cell: Cell, chunk: Chunk) -> None:
        self.cell = cell
        generator = torch.Generator().manual_seed(1)
        self.state = tree.map(  # generic values: what is zero is nowhere
            lambda t: torch.rand(t.shape, generator=generator, dtype=t.dtype) + 0.1 if t.is_floating_point() else t,
            tree.detach(cell.initial_state(1)),
        )
        self.names: list[str] = []
        self.own: dict[str, list[int]] = {}  # labels of parameters' rows and columns, inputs and states
        x = tree.at(chunk.xs, 0)
        self.inputs = [self._labels(t, f"input{_count(k)}") for k, t in enumerate(tree.leaves(x))]
        self.states = [self._labels(t, f"unit{_count(k)}") for k, t in enumerate(tree.leaves(self.state))]
        self.weights = {n: self._weight(n, p) for n, p in cell.named_parameters()}
        self._outputs: list[list[list[int]]] = []
        self.owner = list(range(len(self.names)))
        self._join(x)
        kept = sorted({self._find(i) for i in range(len(self.names))})
        self.number = {label: kept.index(self._find(label)) for label in range(len(self.names))}
        self.num_places = len(kept)
        self.titles = [self.names[label] for label in kept]
        for leaf, answer in enumerate(self._outputs):
            for k, labels in enumerate(answer):
                if len(labels) == 1 and not self.names[self._find(labels[0])].startswith(("unit", "input")):
                    self.titles[self.number[labels[0]]] = f"output{_count(leaf)} {k}"

    def _labels(self, t: Tensor, name: str) -> Tensor:
        """(1, ...) one label for each element of a row."""
        first = len(self.names)
        shape = t.shape[1:]
        for k in range(shape.numel()):
            self.names.append(f"{name} {k}")
        return torch.arange(first, first + shape.numel()).reshape(1, *shape)

    def _weight(self, name: str, p: Tensor) -> Tensor:
        """(..., 2) the labels of each element's row and column; of a vector, twice its own."""
        if p.ndim < 2:
            own = self._labels(p[None], name)[0]
            return torch.stack([own, own], -1)
        lead = p.shape[:-2]
        rows = self._labels(p.new_empty(1, *lead, p.shape[-2]), f"{name} row")[0]
        columns = self._labels(p.new_empty(1, *lead, p.shape[-1]), f"{name} column")[0]
        return torch.stack([rows[..., :, None].expand(p.shape), columns[..., None, :].expand(p.shape)], -1)

    def _find(self, label: int) -> int:
        while self.owner[label] != label:
            label = self.owner[label]
        return label

    def _merge(self, a: int, b: int) -> bool:
        a, b = self._find(a), self._find(b)
        self.owner[max(a, b)] = min(a, b)
        return a != b

    def _mask(self, labels: Tensor, renumber: Callable[[int], int], size: int) -> Tensor:
        """(..., size) from labels (..., k)."""
        table = torch.tensor([renumber(i) for i in range(len(self.names))])
        mask = torch.zeros(*labels.shape[:-1], size, dtype=torch.bool)
        return mask.scatter(-1, table[labels], True)

    def _join(self, x: Any) -> None:
        """Step until nothing more is found to be one place."""
        size = len(self.names)
        changed = True
        while changed:
            follow = Places(size, meeting=True)
            self._put(follow, x, self.state, self._find, size)
            given = quiet(x) if isinstance(self.cell, StochasticCell) else x
            with torch.no_grad(), follow:
                y, new = self.cell.step(given, self.state)
            changed = False
            for a, b in follow.met:
                changed |= self._merge(a, b)
            for t, labels in zip(tree.leaves(new), self.states):
                for own, where in zip(labels.reshape(-1).tolist(), _places_of(follow, t)):
                    if len(where) == 1:
                        changed |= self._merge(own, where[0])
        self._outputs = [[[self._find(w) for w in where] for where in _places_of(follow, t)] for t in tree.leaves(y)]

    def _put(self, follow: Places, x: Any, state: Any, renumber: Callable[[int], int], size: int) -> None:
        for t, labels in zip(tree.leaves(x), self.inputs):
            follow.place(t, self._mask(labels[..., None], renumber, size))
        for t, labels in zip(tree.leaves(state), self.states):
            follow.place(t, self._mask(labels[..., None], renumber, size))
        for name, p in self.cell.named_parameters():
            follow.place(p, self._mask(self.weights[name], renumber, size))

    def places(self, chunk: Chunk) -> Places:
        """A follower that knows where parameters, inputs and targets are."""
        follow = Places(self.num_places)
        for t, labels in zip(tree.leaves(chunk.xs), self.inputs):
            follow.place(t, self._mask(labels[..., None], self.number.__getitem__, self.num_places))
        for t, answer in zip(tree.leaves(chunk.targets), self._outputs):
            mask = torch.zeros(len(answer), self.num_places, dtype=torch.bool)
            for row, at in zip(mask, answer):
                row[[self.number[label] for label in at] if len(at) == 1 else []] = True
            follow.place(t, mask.reshape(1, 1, *t.shape[2:], self.num_places))
        for name, p in self.cell.named_parameters():
            follow.place(p, self.parameter(name))
        return follow

    def place_state(self, follow: Places, carry: Any) -> None:
        """The state that a rule carries from the beginning."""
        state = getattr(carry, "state", None)
        for t, labels in zip(tree.leaves(state) if state is not None else (), self.states):
            if isinstance(t, Tensor) and t.shape[1:] == labels.shape[1:]:
                follow.place(t, self._mask(labels[..., None], self.number.__getitem__, self.num_places))

    def place_fixed(self, follow: Places, carry: Any, after: Any) -> None:
        """Matrices that a rule carries and never changes: connections between the units of the weight of their shape."""
        shapes = {p.shape: name for name, p in reversed(list(self.cell.named_parameters())) if p.ndim == 2}
        before = [t for t in tree_leaves(carry) if isinstance(t, Tensor)]
        for t, later in zip(before, [t for t in tree_leaves(after) if isinstance(t, Tensor)]):
            if t.is_floating_point() and t.shape in shapes and bool(t.any()) and torch.equal(t, later):
                follow.place(t, self.parameter(shapes[t.shape]))

    def parameter(self, name: str) -> Tensor:
        """(..., N) the two ends of each weight."""
        return self._mask(self.weights[name], self.number.__getitem__, self.num_places)

    def words(self, places: Sequence[int]) -> str:
        """Names of places; the first few of many."""
        names = [self.titles[p] for p in places]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _count(k: int) -> str:
    return "" if k == 0 else f" {'abcdefgh'[k % 8]}"


def _places_of(follow: Places, t: Tensor) -> list[list[int]]:
    found = follow.where(t).places
    return [row.nonzero()[:, 0].tolist() for row in found.reshape(-1, found.shape[-1])]


# --- time -------------------------------------------------------------------------------------------------------


def _time(rule: LearningRule[Any], cell: Cell, loss: Loss, seed: int) -> dict[str, Any]:
    """How many steps must be seen at once, and what is held, for streams of two lengths."""
    long = _stream(cell, STEP_BY_STEP[-1], seed)
    whole = rule.step(cell, rule.init(cell, 1, seed=seed), _cut(long, 0, AT_ONCE[-1]), loss)[1]
    carry, total, outputs = rule.init(cell, 1, seed=seed), dict[str, Tensor](), []
    for t in range(AT_ONCE[-1]):
        carry, estimate = rule.step(cell, carry, _cut(long, t, t + 1), loss)
        total = {n: total.get(n, torch.zeros_like(d)) + d for n, d in estimate.direction.items()}
        outputs.append(estimate.outputs)
    found, wanted = total, whole.direction
    if rule.kind == "step":
        pairs = zip(tree.leaves(tree.concatenate(outputs)), tree.leaves(whole.outputs))
        found, wanted = ({str(n): leaf for n, leaf in enumerate(leaves)} for leaves in zip(*pairs))
    online = all(torch.allclose(found[n], d, rtol=1e-6, atol=1e-9) for n, d in wanted.items())
    held, lengths = [], STEP_BY_STEP if online else AT_ONCE
    for num_steps in lengths:
        chunk = _cut(long, 0, num_steps)
        if online:
            carry = rule.init(cell, 1, seed=seed)
            for t in range(num_steps - 1):
                carry, _ = rule.step(cell, carry, _cut(chunk, t, t + 1), loss)
            last = _cut(chunk, num_steps - 1, num_steps)
        else:
            carry, last = rule.init(cell, 1, seed=seed), chunk

        def one(carry: Any = carry, last: Chunk = last) -> object:
            return rule.step(cell, carry, last, loss)

        one()  # what a first call leaves in caches is no memory of the stream
        held.append(carry_bytes(carry) + peak_bytes(one))
    growth = (held[1] - held[0]) / (lengths[1] - lengths[0])
    return {
        "in_time": growth <= 0,
        "at_once": 1 if online else None,
        "bytes_per_step": growth,
        "carry_bytes": carry_bytes(carry),
    }
