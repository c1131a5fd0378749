"""Maps over nested states: tensors, tuples and NamedTuples of them, and ``None`` for "nothing here".

These are the only containers that a cell's input, output and state may use. A tree has a fixed shape in Python, so an
engine can walk it without asking the cell anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = Any
T = TypeVar("T")


def is_node(tree: Tree) -> bool:
    """True for a container (a tuple, a NamedTuple or ``None``), False for a leaf."""
    return tree is None or isinstance(tree, tuple)


def rebuild(like: Tree, children: Sequence[Tree]) -> Tree:
    """A container of the type of ``like`` around ``children``."""
    if like is None:
        return None
    return type(like)(*children) if hasattr(like, "_fields") else tuple(children)


def map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply ``fn`` to the leaves that stand in the same place of every tree.

    Raises:
        ValueError: the trees do not have one shape.

    Example:
        >>> map(lambda a, b: a + b, (1, (2,)), (10, (20,)))
        (11, (22,))
    """
    if not is_node(tree):
        return fn(tree, *rest)
    if tree is None:
        if any(r is not None for r in rest):
            raise ValueError("tree: the trees must have one structure, got None beside something.")
        return None
    for r in rest:
        if not isinstance(r, tuple) or len(r) != len(tree):
            raise ValueError(f"tree: the trees must have one structure, got {describe(tree)} and {describe(r)}.")
    return rebuild(tree, [map(fn, *children) for children in zip(tree, *rest)])


def leaves(tree: Tree) -> list[Any]:
    """The leaves from left to right.

    Example:
        >>> leaves((1, (2, None), 3))
        [1, 2, 3]
    """
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(tree: Tree, found: list[Any]) -> None:
    if tree is None:
        return
    if isinstance(tree, tuple):
        for child in tree:
            _collect(child, found)
    else:
        found.append(tree)


def names(tree: Tree, prefix: str = "") -> list[str]:
    """A dotted path for every leaf, in the order of `leaves`; the empty path of a bare leaf is ``""``.

    Example:
        >>> names((1, (2, 3)))
        ['0', '1.0', '1.1']
    """
    if not is_node(tree):
        return [prefix]
    if tree is None:
        return []
    keys = getattr(tree, "_fields", None) or [str(i) for i in range(len(tree))]
    return [n for key, child in zip(keys, tree) for n in names(child, f"{prefix}.{key}" if prefix else key)]


def unflatten(like: Tree, values: Sequence[Any]) -> Tree:
    """The inverse of `leaves`: a tree shaped like ``like`` with these leaves."""
    supply = iter(values)
    return map(lambda _: next(supply), like)


def zip_leaves(*trees: Tree) -> Iterator[tuple[Any, ...]]:
    """Leaves that stand in the same place, as tuples."""
    found: list[tuple[Any, ...]] = []
    map(lambda *ls: found.append(ls), *trees)
    return iter(found)


def same_structure(a: Tree, b: Tree) -> bool:
    """True when both trees nest alike, whatever their leaves are."""
    if a is None or b is None:
        return a is None and b is None
    if is_node(a) != is_node(b):
        return False
    if not is_node(a):
        return True
    return len(a) == len(b) and all(same_structure(x, y) for x, y in zip(a, b))


def describe(tree: Tree) -> str:
    """The shape of a tree in words, for messages.

    Example:
        >>> describe((torch.zeros(2, 3), None))
        '((2, 3), None)'
    """
    if tree is None:
        return "None"
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    if isinstance(tree, tuple):
        keys = getattr(tree, "_fields", None)
        if keys:
            return f"{type(tree).__name__}({', '.join(f'{k}={describe(c)}' for k, c in zip(keys, tree))})"
        return f"({', '.join(describe(c) for c in tree)})"
    return type(tree).__name__


# --- trees of tensors -------------------------------------------------------------------------------------------


def at(tree: Tree, index: int) -> Tree:
    """Every leaf at one position of its first dimension: a sequence's step ``index``."""
    return map(lambda leaf: leaf[index], tree)


def steps(tree: Tree) -> list[Tree]:
    """Every step of a sequence. The gradient of all steps together is one stack; that of T times `at` would be T whole
    sequences of zeros, a cost that grows as T squared."""
    split = [leaf.unbind(0) for leaf in leaves(tree)]
    return [unflatten(tree, values) for values in zip(*split)]


def window(tree: Tree, start: int, stop: int) -> Tree:
    """Every leaf from ``start`` to ``stop`` of its first dimension (views, no copies)."""
    return map(lambda leaf: leaf[start:stop], tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Steps become a sequence: leaves (B, ...) become (T, B, ...)."""
    return map(lambda *ls: torch.stack(ls), *trees)


def concatenate(trees: Sequence[Tree], dim: int = 0) -> Tree:
    """Join sequences along ``dim``."""
    return map(lambda *ls: torch.cat(ls, dim), *trees)


def detach(tree: Tree) -> Tree:
    """Every leaf without its history."""
    return map(lambda leaf: leaf.detach(), tree)


def where(mask: Tensor, yes: Tree, no: Tree) -> Tree:
    """Choose between two trees by a mask over their leading dimensions; the same leaf on both sides is kept as it is.

    Args:
        mask: bool, its dimensions are the leading ones of every leaf.
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        if a is b:
            return b
        return torch.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return map(choose, yes, no)


def is_differentiable(leaf: Any) -> bool:
    """True for floating and complex tensors: the leaves that laws about gradients speak of."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
