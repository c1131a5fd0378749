"""How much a rule computes, counted operation by operation, and how that grows with the net."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..core import tree
from ..core.cell import Cell
from ..core.checks import sentence
from ..core.loss import Loss, MeanSquaredError
from ..core.rule import Chunk, LearningRule

_COPIES = (torch.ops.aten.clone, torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.fill_)


class _Flops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        counted = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.total += int(counted(*args, **kwargs, out_val=out))
        elif func._overloadpacket not in _COPIES and (
            torch.Tag.pointwise in func.tags or torch.Tag.reduction in func.tags
        ):
            sizes = [t.numel() for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.total += max(sizes, default=0)
        return out


def flops(function: Callable[[], object]) -> int:
    """Floating-point operations of a call: 2 m k n for a product of matrices, one for each element of other operations.

    Moving elements about is free. What lies inside of machine code is not seen.

    Example:
        >>> import torch
        >>> flops(lambda: (torch.ones(3, 4) @ torch.ones(4, 5)).tanh())
        135
    """
    with _Flops() as counter:
        function()
    return counter.total


class Growth(NamedTuple):
    """Cost for one step of a stream at several sizes.

    Args:
        sizes: n.
        costs: floating-point operations for a step and row.
        exponent: slope of the least-squares line of log cost over log n.
    """

    sizes: tuple[int, ...]
    costs: tuple[float, ...]
    exponent: float


def cost_growth(
    rule: LearningRule[Any],
    make: Callable[[int], Cell],
    sizes: Sequence[int],
    *,
    num_steps: Callable[[int], int] = lambda size: 1,
    loss: Loss | None = None,
) -> Growth:
    """Count what a rule computes for each step of a stream, for nets of growing size, and fit c n^k.

    A second chunk is counted, so that the rule is under way. The cost of a chunk is divided by its steps: a rule that does
    much work at the end of every n steps is asked with ``num_steps`` of n or more.

    Args:
        rule: to count.
        make: the net of a size.
        sizes: at least two.
        num_steps: T of a chunk for a size; below 16 for rules that would run machine code, which is not seen.
        loss: the mean squared error by default.

    Raises:
        ValueError: fewer than two sizes, or nothing counted.
        TypeError: a net that the rule does not support.
    Example:
        >>> from recurra.cells import ElmanCell
        >>> from recurra.learning import RTRL
        >>> growth = cost_growth(RTRL(), lambda n: ElmanCell(2, n), [32, 64])
        >>> 3.7 < growth.exponent < 4.1
        True
    """
    if len(set(sizes)) < 2:
        raise ValueError(sentence("cost_growth", "sizes", "two sizes or more", list(sizes)))
    loss, costs = loss or MeanSquaredError(), []
    for size in sizes:
        cell, steps = make(size), num_steps(size)
        reason = rule.supports(cell, loss)
        if reason is not None:
            raise TypeError(f"cost_growth: {reason}")

        def values(leaf: Any, cell: Cell = cell, steps: int = steps) -> Tensor:
            return torch.randn(steps, 1, *leaf.shape, dtype=cell.dtype)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            chunk = Chunk(tree.map(values, cell.input_spec), tree.map(values, cell.output_spec))
        carry, _ = rule.step(cell, rule.init(cell, 1), chunk, loss)

        def one(cell: Cell = cell, carry: Any = carry, chunk: Chunk = chunk) -> object:
            return rule.step(cell, carry, chunk, loss)

        costs.append(flops(one) / steps)
    if not all(cost > 0 for cost in costs):
        raise ValueError(sentence("cost_growth", "the rule", "one whose operations torch sees", str(rule)))
    x = torch.tensor([math.log(size) for size in sizes], dtype=torch.float64)
    y = torch.tensor([math.log(cost) for cost in costs], dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return Growth(tuple(sizes), tuple(costs), float(slope))
