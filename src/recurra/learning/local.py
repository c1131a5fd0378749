"""Rules that are local in space and time: what a connection learns depends on what it connects."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.checks import check_probability, sentence
from ..core.engine import check_sequence
from ..core.loss import Loss, SequenceLoss, weighted_sum
from ..core.rule import Chunk, Estimate, LearningRule
from ..core.tree import Tree
from .linearised import learning
from .products import Product, products, stacked, walk
from .rtrl import RTRL


class LocalCarry(NamedTuple):
    """What goes along.

    Args:
        state: (B, ...).
        traces: for every product of the step, the eligibility (B, out, in) of its connections.
        kept: for every product, what its units keep, (B, out); None where the rule keeps nothing.
        rng: of the cell's noise.
    """

    state: Tree
    traces: tuple[Tensor, ...]
    kept: tuple[Tensor | None, ...]
    rng: Tensor


@dataclass(frozen=True)
class LocalRule(LearningRule[LocalCarry]):
    """Changes each W of a product y = W x that a step makes, by x, y and W alone. An author writes `change`.

        e_t = decay e_{t-1} + change(x_t, y_t, W)       eligibility of each connection
        direction = -sum_t w_t e_t                      w: the chunk's weights, a third factor

    The products are found by tracing the step; a parameter that is in none stays as it is.
    """

    exempt: ClassVar[dict[str, str]] = {"exact": "It follows no gradient: targets and loss do not enter it."}
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_probability(type(self).__name__, decay=self.decay)

    def supports(self, cell: nn.Module, loss: Loss | SequenceLoss) -> str | None:
        """As `RTRL`, and a step that makes products with parameters that learn."""
        reason = RTRL().supports(cell, loss)
        if reason is None and isinstance(cell, Cell) and not products(cell)[1]:
            return "no product y = W x with a parameter that learns was found in the cell's step."
        return reason

    @abstractmethod
    def change(self, x: Tensor, y: Tensor, weight: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What connections would learn at once, (B, out, in), and what units keep now.

        Args:
            x: (B, K, in).
            y: (B, K, out).
            weight: (out, in).
            kept: (B, out), what `begin` gave or the last call.
        """

    def begin(self, product: Product) -> Tensor | None:
        """What units keep at the start, (B, out)."""
        return None

    def init(self, cell: nn.Module, batch_size: int, *, seed: int = 0) -> LocalCarry:
        """The initial state, no eligibility."""
        assert isinstance(cell, Cell)
        with torch.no_grad():
            state = tree.detach(cell.initial_state(batch_size))
        found = products(cell, batch_size)[1]
        traces = tuple(p.y.new_zeros(batch_size, *p.weight.shape) for p in found)
        rng = torch.Generator().manual_seed(seed).get_state()
        return LocalCarry(state, traces, tuple(self.begin(p) for p in found), rng)

    def step(
        self, cell: nn.Module, carry: LocalCarry, chunk: Chunk, loss: Loss | SequenceLoss
    ) -> tuple[LocalCarry, Estimate]:
        """What the connections learn from a chunk.

        Raises:
            ValueError: a wrong shape.
            TypeError: what `supports` refuses, a wrong structure or dtype.
        """
        reason = self.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"{type(self).__name__}: {reason}")
        assert isinstance(cell, Cell)
        assert isinstance(loss, Loss)
        num_steps, rows = check_sequence(cell, chunk.xs, carry.state, chunk.controls)
        generator = torch.Generator()
        generator.set_state(carry.rng)
        direction = {name: torch.zeros_like(p, requires_grad=False) for name, p in learning(cell).items()}
        ys, state, traces, kept = [], carry.state, list(carry.traces), list(carry.kept)
        for t, taken in enumerate(walk(cell, state, chunk, generator)):
            ys.append(taken.y)
            state = taken.state
            factor = None if chunk.weights is None else chunk.weights[t]
            if taken.alive is not None:
                factor = taken.alive.to(cell.dtype) if factor is None else torch.where(taken.alive, factor, 0.0)
            for i, product in enumerate(taken.products):
                trace, own = traces[i], kept[i]
                if taken.restarted is not None:
                    trace = torch.where(taken.restarted[:, None, None], 0.0, trace)
                if taken.restarted is not None and own is not None:
                    own = torch.where(taken.restarted[:, None], self.begin(product), own)  # type: ignore[arg-type]
                change, new = self.change(product.x, product.y, product.weight, own)
                moved = self.decay * trace + change
                if taken.alive is not None:
                    moved = torch.where(taken.alive[:, None, None], moved, trace)
                    new = None if new is None or own is None else torch.where(taken.alive[:, None], new, own)
                traces[i], kept[i] = moved, new
                total = moved.sum(0) if factor is None else torch.einsum("boi,b->oi", moved, factor)
                product.add_to(direction[product.name], -total)
        outputs = tree.detach(stacked(cell, ys, rows))
        per_step = loss.per_step(outputs, chunk.targets)
        value, weight = weighted_sum(per_step, chunk.weights, chunk.controls.alive(num_steps))
        carry = LocalCarry(tree.detach(state), tuple(traces), tuple(kept), generator.get_state())
        return carry, Estimate(direction, value, weight, outputs)


def _outer(y: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("bko,bki->boi", y, x)


@dataclass(frozen=True)
class Hebb(LocalRule):
    """Hebb's rule: connections between what is active together grow.

        change = y x^T

    Args:
        decay: of the eligibility from one step to the next, in [0, 1); 0 for the present step alone.
    Raises:
        ValueError: decay out of range.
        TypeError: as `RTRL`; a step without products.
    Source:
        Hebb 1949, "The organization of behavior" (from memory)
    Differs:
        y is the linear product, before a nonlinearity. Nothing bounds the weights; see `Oja`.
    Cost:
        2 flops and, for the eligibility, a number for each connection, row and step.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.core import Chunk, MeanSquaredError
        >>> cell, rule = ElmanCell(3, 5), Hebb(decay=0.9)
        >>> chunk = Chunk(torch.ones(4, 2, 3), torch.zeros(4, 2, 5))
        >>> carry, estimate = rule.step(cell, rule.init(cell, 2), chunk, MeanSquaredError())
        >>> [t.shape for t in carry.traces]
        [torch.Size([2, 5, 3]), torch.Size([2, 5, 5])]
    """

    def change(self, x: Tensor, y: Tensor, weight: Tensor, kept: Any) -> tuple[Tensor, None]:
        """See `LocalRule.change`."""
        return _outer(y, x), None


@dataclass(frozen=True)
class Oja(LocalRule):
    """Oja's rule: Hebb's with a decay that keeps each unit's weights at length one; a unit finds the first component.

        change_ij = y_i (x_j - y_i W_ij)

    Args:
        decay: as in `Hebb`.
    Raises:
        ValueError: decay out of range.
        TypeError: as `RTRL`; a step without products.
    Source:
        Oja 1982, "Simplified neuron model as a principal component analyzer", J. Math. Biology 15:267-273 (from memory)
    Cost:
        As `Hebb`, 4 flops.
    """

    def change(self, x: Tensor, y: Tensor, weight: Tensor, kept: Any) -> tuple[Tensor, None]:
        """See `LocalRule.change`."""
        return _outer(y, x) - y.square().sum(1)[:, :, None] * weight, None


@dataclass(frozen=True)
class BCM(LocalRule):
    """Bienenstock, Cooper and Munro's rule: a unit strengthens what makes it more active than it is used to.

        change = y (y - theta) x^T,   theta' = theta + (y^2 - theta) / tau_steps

    Args:
        decay: as in `Hebb`.
        tau_steps: over how many steps a unit's threshold follows its activity, at least 1.
        theta: the threshold at the start.
    Raises:
        ValueError: a number out of range.
        TypeError: as `RTRL`; a step without products.
    Source:
        Bienenstock, Cooper & Munro 1982, J. Neuroscience 2(1):32-48; threshold as in Intrator & Cooper 1992 (from memory)
    Cost:
        As `Hebb`, and a threshold for each unit and row.
    """

    tau_steps: float = 100.0
    theta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau_steps >= 1:
            raise ValueError(sentence("BCM", "tau_steps", "at least 1", self.tau_steps))

    def begin(self, product: Product) -> Tensor:
        """theta for every unit."""
        return torch.full_like(product.y[:, 0], self.theta)

    def change(self, x: Tensor, y: Tensor, weight: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `LocalRule.change`."""
        assert kept is not None
        threshold = kept[:, None]
        return _outer(y * (y - threshold), x), kept + (y.square().mean(1) - kept) / self.tau_steps
