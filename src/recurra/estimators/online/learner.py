"""A net that learns one step after the other, whose inputs and outputs may become more on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core import tree
from ...core.cell import Cell
from ...core.checks import check_choice, check_positive, sentence
from ...core.controls import Controls
from ...core.loss import CrossEntropy, Loss
from ...core.rule import Chunk, LearningRule
from ...core.tree import Tree
from ...learning import SGD, Adam, Online, OnlineState, OnlineTrace, UpdateRule
from ...learning.native_loop import Bound
from ...training.batches import mixed_seed
from ...training.checkpoint import Tensors, below_prefix, classes_in, pack, unpack, with_prefix
from ...wrappers import Readout, Stack
from ..layer import layer
from ..named import named

OPTIMIZERS: dict[str, Callable[[float], UpdateRule]] = {
    "Adam": lambda lr: Adam(lr=lr),
    "SGD": lambda lr: SGD(lr=lr),
    "momentum": lambda lr: SGD(lr=lr, momentum=0.9),
}
SETTLED = 100  # steps of a net before machine code is made for it
UNUSED = -60.0  # bias of an output without a class: a probability of 1e-26, whose gradient moves nothing


@dataclass(frozen=True)
class Settings:
    """What decides the net and how it learns: the arguments of the estimator that it belongs to."""

    where: str
    cell: str
    hidden_size: int
    num_layers: int
    rule: str
    optimizer: str
    lr: float
    seed: int

    def check(self) -> None:
        """Raise unless all are in range and go together.

        Raises:
            ValueError, TypeError: they do not.
        """
        check_positive(self.where, hidden_size=self.hidden_size, num_layers=self.num_layers)
        check_choice(self.where, "optimizer", self.optimizer, tuple(OPTIMIZERS))
        if isinstance(self.lr, bool) or not isinstance(self.lr, int | float):
            raise TypeError(sentence(self.where, "lr", "a number", repr(self.lr)))
        if not 0 <= self.lr < math.inf:
            raise ValueError(sentence(self.where, "lr", "finite and not negative", self.lr))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(sentence(self.where, "seed", "a whole number", repr(self.seed)))
        self.make_rule()

    def make_rule(self) -> LearningRule[Any]:
        """The rule by its name."""
        rule = named(self.where, "rule", "rules", self.rule).make()
        if not isinstance(rule, LearningRule):
            want = "a rule that learns from single steps"
            raise ValueError(sentence(self.where, "rule", want, self.rule, "RTRL, UORO and 'SnAp(n=1)' do."))
        return rule

    def online(self, loss: Loss) -> Online:
        """Rule, loss and update together."""
        rule = self.make_rule()
        return Online(rule, loss, None if rule.kind == "step" else OPTIMIZERS[self.optimizer](float(self.lr)))

    def network(self, num_inputs: int, num_outputs: int, seed: int) -> Readout[Any]:
        """A net in float64 with initial weights; its readout begins at zero, so that the first answers are not noise."""
        kind = named(self.where, "cell", "cells", self.cell)
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, seed))
        cells: list[Cell] = []
        for _ in range(self.num_layers):
            size = cells[-1].output_spec.shape[0] if cells else num_inputs
            cells.append(layer(self.where, kind, size, self.hidden_size, generator))
        inner = cells[0] if len(cells) == 1 else Stack(*cells)
        net = Readout(inner, num_outputs).double()
        with torch.no_grad():
            for parameter in net.linear.parameters():
                parameter.zero_()
        return net


class Learner:
    """The net, its rule and its optimizer in mid-stream.

    Args:
        settings: of the estimator.
        loss: of one step.
        num_inputs: D.
        num_outputs: O.
    """

    def __init__(self, settings: Settings, loss: Loss, num_inputs: int, num_outputs: int) -> None:
        self.settings, self.loss = settings, loss
        self.online = settings.online(loss)
        self.fast: Bound | str | None = None
        self.num_grown = self.num_steps = 0
        self.cell = settings.network(num_inputs, num_outputs, 0)
        self.parameters = list(self.cell.parameters())
        reason = self.online.rule.supports(self.cell, loss)
        if reason is not None:
            raise ValueError(f"{settings.where}: rule {settings.rule} cannot train cell {settings.cell}: {reason}")
        self.state = self.online.init(self.cell, 1, seed=settings.seed)
        if _find_state(self.state.carry, self.cell.initial_state(1)) is None:
            want = "a rule that carries the state of the net from step to step"
            hint = "RTRL, UORO, 'SnAp(n=1)' and 'TruncatedBPTT(k1=1, k2=16)' do."
            raise ValueError(sentence(settings.where, "rule", want, settings.rule, hint))

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its machine code anew."""
        return {**self.__dict__, "fast": self.fast if isinstance(self.fast, str) else None}

    @property
    def num_inputs(self) -> int:
        """D."""
        return int(self.cell.input_spec.shape[0])

    @property
    def num_outputs(self) -> int:
        """O."""
        return self.cell.output_size

    @property
    def net_state(self) -> Tree:
        """The state of the net, leaves (1, ...)."""
        return _find_state(self.state.carry, self.cell.initial_state(1))

    def use(self, settings: Settings) -> None:
        """Go on with other settings: of the optimizer, its learning rate alone may change.

        Raises:
            ValueError: another net, rule or optimizer.
        """
        if settings == self.settings:
            return
        for name in ("cell", "hidden_size", "num_layers", "rule", "optimizer", "seed"):
            old, new = getattr(self.settings, name), getattr(settings, name)
            if old != new:
                hint = "Only lr may change in mid-stream; begin a new model."
                raise ValueError(sentence(settings.where, name, f"{old!r} as before", repr(new), hint))
        settings.check()
        self.settings, self.online, self.fast = settings, settings.online(self.loss), None

    # --- steps ---

    @torch.no_grad()
    def step(self, x: Sequence[float], state: Tree) -> tuple[Tensor, Tree]:
        """The output (O,) and the next state of the net; nothing is learned."""
        inputs = torch.tensor([x], dtype=torch.float64)
        y, state = self.cell.step(inputs, state)  # without noise, even where the cell has dropout
        return y[0], state

    def learn(
        self, xs: Sequence[Sequence[float]], targets: Tensor, weights: Sequence[float], begins: Sequence[bool]
    ) -> None:
        """Learn from T steps, one after the other.

        Args:
            xs: (T, D).
            targets: (T, 1, ...) as the loss wants them.
            weights: (T,); 0 for a step that nothing is learned from.
            begins: (T,) a new sequence begins here.

        Raises:
            FloatingPointError: the net has diverged; it is as it was before.
        """
        inputs = torch.tensor(xs, dtype=torch.float64).unsqueeze(1)
        given = None if all(w == 1.0 for w in weights) else torch.tensor(weights, dtype=torch.float64).unsqueeze(1)
        reset = torch.tensor(begins).unsqueeze(1) if any(begins) else None
        parameters = self.parameters
        before = [p.detach().clone() for p in parameters]
        try:
            chunk = Chunk(inputs, targets, given, Controls(reset=reset))
            state, trace = self._run(chunk)
            if not (_finite(trace.losses) and all(map(_finite, parameters))):
                want, hint = "finite", "The net is as it was before. Try a smaller lr, or new_sequence()."
                got = f"one that is not, at a learning rate of {self.settings.lr:g}"
                raise FloatingPointError(sentence(self.settings.where, "the net after this row", want, got, hint))
        except BaseException:
            with torch.no_grad():
                for parameter, value in zip(parameters, before):
                    parameter.copy_(value)
            raise
        self.state = state
        self.num_steps += len(xs)

    def _run(self, chunk: Chunk) -> tuple[OnlineState, OnlineTrace]:
        """By machine code for single steps too, once the net has kept its size for a while; rare forms of a step need none.

        This depends on nothing but what is saved, so that a model that was loaded takes the same way.
        """
        if self.num_steps < SETTLED or chunk.weights is not None or chunk.controls.reset is not None:
            return self.online.run(self.cell, self.state, chunk)
        if self.fast is None:
            self.fast = self.online.bind(self.cell, self.state, chunk)
        if isinstance(self.fast, str):
            return self.online.loop(self.cell, self.state, chunk, torch.ones((), dtype=torch.float64))
        return self.fast.run(self.state, chunk)

    def after_a_step(self) -> OnlineState:
        """What is carried after one step that nothing is learned from: the kinds of all that may be carried."""
        whole = isinstance(self.loss, CrossEntropy)
        target = torch.zeros(1, 1, dtype=torch.int64) if whole else torch.zeros(1, 1, self.num_outputs).double()
        chunk = Chunk(torch.zeros(1, 1, self.num_inputs).double(), target, torch.zeros(1, 1).double())
        return self.online.run(self.cell, self.state, chunk)[0]

    # --- more inputs and outputs ---

    def grow(self, num_inputs: int, num_outputs: int) -> None:
        """Make room: what was learned stays where it was, and new weights are initial ones.

        The state of the net and the optimizer's moments stay. What the rule carries about the past begins again, since its
        parts belong to the old weights.
        """
        old_cell, old_state, net_state = self.cell, self.state, self.net_state
        self.num_grown += 1
        self.num_steps, self.fast = 0, None
        self.cell = self.settings.network(num_inputs, num_outputs, self.num_grown)
        with torch.no_grad():
            for new, old in zip(self.cell.parameters(), old_cell.parameters()):
                new.copy_(_widened(new, old))
        self.parameters = list(self.cell.parameters())
        fresh = self.online.init(self.cell, 1, seed=self.settings.seed + self.num_grown)
        carry = _with_state(fresh.carry, self.cell.initial_state(1), net_state)
        self.state = OnlineState(carry, tree.map(_widened, fresh.update, old_state.update))

    # --- saving ---

    def pack(self, tensors: Tensors) -> dict[str, Any]:
        """JSON; the tensors go into ``tensors``."""
        tensors.update(with_prefix("net", self.cell.state_dict().items()))
        sizes = {"num_inputs": self.num_inputs, "num_outputs": self.num_outputs, "num_grown": self.num_grown}
        sizes["num_steps"] = self.num_steps
        slow = self.fast if isinstance(self.fast, str) else None
        return {**sizes, "why_slow": slow, "state": pack(tuple(self.state), tensors, "state")}

    @classmethod
    def unpack(cls, settings: Settings, loss: Loss, packed: Mapping[str, Any], tensors: Tensors) -> Learner:
        """The inverse of `pack`.

        Raises:
            ValueError: damaged.
        """
        largest = max((n for t in tensors.values() for n in t.shape), default=0)
        for name in ("num_inputs", "num_outputs"):
            if not isinstance(packed[name], int) or not 1 <= packed[name] <= largest or settings.hidden_size > largest:
                raise ValueError("its sizes are not those of its weights")  # before memory is asked for
        learner = cls(settings, loss, packed["num_inputs"], packed["num_outputs"])
        learner.num_grown, learner.num_steps = int(packed["num_grown"]), int(packed["num_steps"])
        if packed["why_slow"] is not None:
            learner.fast = str(packed["why_slow"])
        weights = below_prefix("net", tensors)
        own = learner.cell.state_dict()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in weights.items()}:
            raise ValueError("its weights are not those of its net")
        if not all(map(_finite, weights.values())):
            raise ValueError("it has weights that are not finite")
        learner.cell.load_state_dict(weights)
        state = unpack(packed["state"], tensors, classes_in(tuple(learner.after_a_step())))
        if not isinstance(state, tuple) or len(state) != 2 or not _alike(state, tuple(learner.state)):
            raise ValueError("what its rule carries does not fit its net")
        learner.state = OnlineState(*state)
        return learner


def _finite(values: Tensor) -> bool:
    """Are all finite? A sum is enough: what is not finite stays so."""
    return math.isfinite(float(values.detach().sum()))


def _widened(new: Tensor, old: Tensor) -> Tensor:
    """``new`` with ``old`` in its first places."""
    if new.shape == old.shape:
        return old.detach().clone()
    found = new.detach().clone()
    found[tuple(slice(n) for n in old.shape)] = old.detach()
    return found


def _is_state(value: Any, like: Tree) -> bool:
    return tree.same_structure(value, like) and all(
        isinstance(a, Tensor) and a.shape == b.shape for a, b in zip(tree.leaves(value), tree.leaves(like))
    )


def _find_state(carry: Any, like: Tree) -> Tree:
    """The net's state in what a rule carries: the outermost field ``state`` of its form; None if there is none."""
    if not isinstance(carry, tuple):
        return None
    fields = getattr(carry, "_fields", ())
    if "state" in fields and _is_state(carry[fields.index("state")], like):
        return carry[fields.index("state")]
    return next((found for part in carry if (found := _find_state(part, like)) is not None), None)


def _with_state(carry: Any, like: Tree, state: Tree) -> Any:
    """The carry with another state of the net in the place where `_find_state` looks."""
    if not isinstance(carry, tuple):
        return carry
    fields = getattr(carry, "_fields", ())
    if "state" in fields and _is_state(carry[fields.index("state")], like):
        return tree.rebuild(carry, [state if name == "state" else part for name, part in zip(fields, carry)])
    parts, done = [], False
    for part in carry:
        here = not done and _find_state(part, like) is not None
        parts.append(_with_state(part, like, state) if here else part)
        done = done or here
    return tree.rebuild(carry, parts)


def _alike(a: Any, b: Any) -> bool:
    """Trees of tensors of the same shapes and types? Numbers of steps that a rule keeps may differ."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and a.ndim == b.ndim
    if isinstance(b, tuple) and isinstance(a, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return True
