"""Systems of spins: any couplings, any graph, lattices, and the spin glass in which everything is coupled."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import SpinSystem
from ..core.checks import check_positive, sentence


class Neighbours(NamedTuple):
    """Who is coupled to whom, row after row: the neighbours of spin i stand from ``begin[i]`` to ``begin[i + 1]``.

    Args:
        begin: (N + 1,) int64.
        other: (2 E,) int64, the neighbours.
        coupling: (2 E,) J_ij to each of them.
        edge: (2 E,) int64, number of the edge, the same from both its ends.
    """

    begin: Tensor
    other: Tensor
    coupling: Tensor
    edge: Tensor

    @property
    def owner(self) -> Tensor:
        """(2 E,) the spin whose neighbour it is."""
        return torch.repeat_interleave(torch.arange(len(self.begin) - 1), self.begin.diff())


@dataclass(frozen=True, eq=False)
class DenseSystem(SpinSystem):
    """Every spin may be coupled to every other.

    Args:
        couplings: (N, N) J, floating, symmetric, zeros on the diagonal.
        outer: (N,) h of the same dtype; None is no field.
    Raises:
        ValueError: J is not square, not symmetric, or couples a spin to itself; h has another shape.
        TypeError: J is not floating, or h has another dtype.
    Cost:
        N^2 values; 2 N^2 flops for the fields of one configuration.
    Example:
        >>> system = DenseSystem(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> system.energy(torch.tensor([[1, 1], [1, -1]])).tolist()
        [-1.0, 1.0]
    """

    couplings: Tensor
    outer: Tensor | None = None

    def __post_init__(self) -> None:
        matrix = self.couplings
        _check_floating("DenseSystem", "couplings", matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
            raise ValueError(sentence("DenseSystem", "couplings", "(N, N)", tuple(matrix.shape)))
        if not torch.equal(matrix, matrix.T):
            raise ValueError(sentence("DenseSystem", "couplings", "symmetric", "J that differs from its transpose"))
        if bool(matrix.diagonal().count_nonzero()):
            raise ValueError(sentence("DenseSystem", "couplings", "zero on the diagonal", "a spin coupled to itself"))
        _check_outer("DenseSystem", self.outer, len(matrix), matrix.dtype)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The pairs whose coupling is not zero."""
        return _neighbours_in(self.couplings)

    @cached_property
    def colours(self) -> tuple[Tensor, ...]:
        """See `colours_of`."""
        return _colours(self.neighbours)

    @property
    def num_spins(self) -> int:
        """N."""
        return len(self.couplings)

    @property
    def outer_field(self) -> Tensor:
        """(N,) h."""
        return self.couplings.new_zeros(self.num_spins) if self.outer is None else self.outer

    def field(self, spins: Tensor) -> Tensor:
        """(B, N) h + J s."""
        inner = spins.to(self.couplings.dtype) @ self.couplings
        return inner if self.outer is None else inner + self.outer


class SparseSystem(SpinSystem):
    """Spins on the nodes of a graph.

    Args:
        num_spins: N.
        edges: (E, 2) int64, pairs of different spins; a pair that stands twice is coupled by the sum.
        weights: (E,) J of each pair, floating.
        outer: (N,) h of the same dtype; None is no field.
    Raises:
        ValueError: shapes that do not fit, an edge from a spin to itself or out of range.
        TypeError: edges are not int64, weights not floating, h of another dtype.
    Cost:
        O(N + E) values; 4 E flops for the fields of one configuration.
    Example:
        >>> chain = SparseSystem(3, torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, -2.0]))
        >>> chain.field(torch.ones(1, 3)).tolist()
        [[1.0, -1.0, -2.0]]
    """

    def __init__(self, num_spins: int, edges: Tensor, weights: Tensor, outer: Tensor | None = None) -> None:
        name = type(self).__name__
        check_positive(name, num_spins=num_spins)
        if edges.dtype != torch.int64:
            raise TypeError(sentence(name, "edges", "int64", str(edges.dtype).removeprefix("torch.")))
        _check_floating(name, "weights", weights)
        if edges.ndim != 2 or edges.shape[1] != 2:
            raise ValueError(sentence(name, "edges", "(E, 2)", tuple(edges.shape)))
        if weights.shape != edges.shape[:1]:
            raise ValueError(sentence(name, "weights", f"({len(edges)},)", tuple(weights.shape)))
        if len(edges) and (int(edges.min()) < 0 or int(edges.max()) >= num_spins):
            got = int(edges.min()) if int(edges.min()) < 0 else int(edges.max())
            raise ValueError(sentence(name, "edges", f"in 0..{num_spins - 1}", got))
        if bool((edges[:, 0] == edges[:, 1]).any()):
            raise ValueError(sentence(name, "edges", "pairs of different spins", "an edge from a spin to itself"))
        _check_outer(name, outer, num_spins, weights.dtype)
        self._num_spins = num_spins
        self.edges = edges
        self.weights = weights
        self.outer = outer
        self.neighbours = _neighbours(num_spins, edges, weights)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_spins={self.num_spins}, num_edges={len(self.edges)})"

    @cached_property
    def colours(self) -> tuple[Tensor, ...]:
        """See `colours_of`."""
        return _colours(self.neighbours)

    @property
    def num_spins(self) -> int:
        """N."""
        return self._num_spins

    @property
    def outer_field(self) -> Tensor:
        """(N,) h."""
        return self.weights.new_zeros(self.num_spins) if self.outer is None else self.outer

    def field(self, spins: Tensor) -> Tensor:
        """(B, N) h + J s."""
        near = self.neighbours
        terms = spins[:, near.other].to(near.coupling.dtype) * near.coupling
        inner = terms.new_zeros(len(spins), self.num_spins).index_add(1, near.owner, terms)
        return inner if self.outer is None else inner + self.outer

    def energy(self, spins: Tensor) -> Tensor:
        """(B,) E of configurations (B, N), edge by edge."""
        ends = spins.to(self.weights.dtype)
        pairs = (ends[:, self.edges[:, 0]] * ends[:, self.edges[:, 1]]) @ self.weights
        return -pairs if self.outer is None else -pairs - ends @ self.outer


class Lattice(SparseSystem):
    """Spins on a chain, a square or cubic lattice, each coupled to its nearest neighbours.

    Spin i stands at the place whose row-major number is i, so ``spins.reshape(B, *shape)`` is the picture.

    Args:
        shape: sides of the lattice, one number for each dimension, each at least 2.
        coupling: J of each pair; positive is ferromagnetic.
        periodic: are the last and the first along each dimension neighbours? With a side of 2 they are coupled twice.
        outer: h of every spin.
    Raises:
        ValueError: no side, or a side below 2.
    Example:
        >>> square = Lattice((4, 4))
        >>> square.energy(torch.ones(1, 16)).tolist()
        [-32.0]
    """

    def __init__(self, shape: Sequence[int], coupling: float = 1.0, periodic: bool = True, outer: float = 0.0) -> None:
        sides = tuple(int(side) for side in shape)
        if not sides or min(sides) < 2:
            raise ValueError(sentence("Lattice", "shape", "sides of at least 2", sides))
        places = torch.arange(math.prod(sides)).reshape(sides)
        pairs = []
        for axis, side in enumerate(sides):
            ends = torch.stack([places, places.roll(-1, axis)], -1)
            pairs.append((ends if periodic else ends.narrow(axis, 0, side - 1)).reshape(-1, 2))
        edges = torch.cat(pairs)
        weights = torch.full((len(edges),), float(coupling), dtype=torch.float64)
        size = math.prod(sides)
        field_of_all = torch.full((size,), float(outer), dtype=torch.float64) if outer else None
        self.shape, self.coupling, self.periodic = sides, float(coupling), periodic
        super().__init__(size, edges, weights, field_of_all)

    def __repr__(self) -> str:
        return f"Lattice(shape={self.shape}, coupling={self.coupling}, periodic={self.periodic})"


def sherrington_kirkpatrick(
    num_spins: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> DenseSystem:
    """A spin glass in which all pairs are coupled: J_ij of mean 0 and variance 1 / N, normal.

    Its temperature of freezing is 1 for N to infinity.

    Source:
        Sherrington & Kirkpatrick 1975, Phys. Rev. Lett. 35(26):1792-1796, doi:10.1103/PhysRevLett.35.1792
    Example:
        >>> sherrington_kirkpatrick(5, torch.Generator().manual_seed(0)).num_spins
        5
    """
    upper = torch.randn(num_spins, num_spins, generator=generator, dtype=dtype).triu(1) / num_spins**0.5
    return DenseSystem(upper + upper.T)


def neighbours_of(system: SpinSystem) -> Neighbours:
    """Who is coupled to whom, for any system: its own lists, or what its fields say about flips of single spins."""
    if isinstance(system, SparseSystem | DenseSystem):
        return system.neighbours
    return _neighbours_in(couplings_of(system))


def couplings_of(system: SpinSystem) -> Tensor:
    """(N, N) J of any system."""
    if isinstance(system, DenseSystem):
        return system.couplings
    size = system.num_spins
    if isinstance(system, SparseSystem):
        matrix = system.weights.new_zeros(size, size)
        ends, weights = system.edges.T, system.weights
        matrix.index_put_((ends[0], ends[1]), weights, accumulate=True)
        matrix.index_put_((ends[1], ends[0]), weights, accumulate=True)
        return matrix
    up = torch.ones(1, size, dtype=torch.int8)
    return ((system.field(up) - system.field(up - 2 * torch.eye(size, dtype=torch.int8))) / 2).T.contiguous()


def colours_of(system: SpinSystem) -> tuple[Tensor, ...]:
    """Sets of spins that are not coupled among each other, as few as a walk over the graph finds: two where two suffice.

    Example:
        >>> [colour.tolist() for colour in colours_of(Lattice((2, 4)))]
        [[0, 2, 5, 7], [1, 3, 4, 6]]
    """
    return system.colours if isinstance(system, SparseSystem | DenseSystem) else _colours(neighbours_of(system))


def _colours(near: Neighbours) -> tuple[Tensor, ...]:
    """Breadth first, so that a graph of two colours gets two; each spin takes the first colour that no neighbour has."""
    begin, other = near.begin.tolist(), near.other.tolist()
    colour = [-1] * (len(begin) - 1)
    for start in range(len(colour)):
        queue = deque([start] if colour[start] < 0 else [])
        while queue:
            spin = queue.popleft()
            if colour[spin] >= 0:
                continue
            around = other[begin[spin] : begin[spin + 1]]
            taken = {colour[i] for i in around}
            colour[spin] = next(c for c in range(len(taken) + 1) if c not in taken)
            queue.extend(i for i in around if colour[i] < 0)
    found = torch.tensor(colour)
    return tuple((found == c).nonzero()[:, 0] for c in range(int(found.max()) + 1))


def _neighbours(num_spins: int, edges: Tensor, weights: Tensor) -> Neighbours:
    owner, other = torch.cat([edges[:, 0], edges[:, 1]]), torch.cat([edges[:, 1], edges[:, 0]])
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=num_spins)
    begin = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return Neighbours(begin, other[order], weights.repeat(2)[order], torch.arange(len(edges)).repeat(2)[order])


def _neighbours_in(couplings: Tensor) -> Neighbours:
    edges = couplings.triu(1).nonzero()
    return _neighbours(len(couplings), edges, couplings[edges[:, 0], edges[:, 1]])


def _check_floating(where: str, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(sentence(where, name, "floating point", str(tensor.dtype).removeprefix("torch.")))


def _check_outer(where: str, outer: Tensor | None, num_spins: int, dtype: torch.dtype) -> None:
    if outer is None:
        return
    if outer.shape != (num_spins,):
        raise ValueError(sentence(where, "outer", f"({num_spins},)", tuple(outer.shape)))
    if outer.dtype != dtype:
        want, got = (str(kind).removeprefix("torch.") for kind in (dtype, outer.dtype))
        raise TypeError(sentence(where, "outer", want, got))
