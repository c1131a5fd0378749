"""Cells put together at random: what the compiler is tried on besides the catalog.

A `Recipe` is a list of plain numbers, so that a property test can draw and shrink it; `draw_recipe` makes one from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import tree
from ..core.cell import Cell
from ..core.controls import Controls
from ..core.spec import Leaf
from ..core.tree import Tree

SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33)
LAYOUTS = ("dense", "batch first", "every second", "same at all steps", "same for all rows", "reversed features")
NUM_TOKENS = 5


class Recipe(NamedTuple):
    """Everything that decides a random cell and what it is run on.

    Args:
        seed: of weights and data.
        input_size: D.
        sizes: of the float vectors in the state.
        heads: rows of a matrix in the state, 0 for none.
        counts: there is an integer in the state.
        tokens: the input is a pair of a vector and an integer.
        learned: the initial state is a parameter.
        moves: one value each: (which of `MOVES`, first argument, second argument, a number that the move may use).
        num_steps, rows: T and B.
        layout: of the input, see `LAYOUTS`.
        ends: rows have lengths.
        restarts: rows are reset.
    """

    seed: int
    input_size: int
    sizes: tuple[int, ...]
    heads: int
    counts: bool
    tokens: bool
    learned: bool
    moves: tuple[tuple[int, int, int, int], ...]
    num_steps: int
    rows: int
    layout: int
    ends: bool
    restarts: bool


def draw_recipe(seed: int) -> Recipe:
    """A recipe from a seed, the same on every machine."""
    r = random.Random(seed)
    moves = tuple(
        (r.randrange(1000), *(r.randrange(100) for _ in range(3))) for _ in range(r.choice((1, 2, 2, 3, 3, 4, 6)))
    )
    return Recipe(
        seed,
        r.choice(SIZES),
        tuple(r.choice(SIZES) for _ in range(r.choice((1, 1, 2, 2, 3)))),
        r.choice((0, 0, 0, 1, 2, 3)),
        r.random() < 0.25,
        r.random() < 0.15,
        r.random() < 0.25,
        moves,  # type: ignore[arg-type]
        r.choice((0, 1, 2, 2, 3, 3, 4, 5, 7, 12)),
        r.choice((0, 1, 1, 2, 3, 3, 4, 5, 7, 13)),
        r.choice((0, 0, *range(1, len(LAYOUTS)))),
        r.random() < 0.35,
        r.random() < 0.35,
    )


class RandomCell(Cell[Any, Any, Any]):
    """A step put together from a recipe.

    Args:
        recipe: see `Recipe`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.input_size = recipe.input_size
        self.pool = nn.ParameterDict()
        self.generator: torch.Generator | None = torch.Generator().manual_seed(recipe.seed)
        token = torch.zeros(1, dtype=torch.int64)
        x = torch.zeros(1, self.input_size, dtype=torch.float64)
        with torch.no_grad():
            state = self.initial_state(1)
            y, _ = self.step((x, token) if recipe.tokens else x, state)
        self.output_like = tree.map(lambda leaf: Leaf(tuple(leaf.shape[1:]), _kind(leaf)), y)
        self.generator = None
        if recipe.learned:
            self.learn_initial_state()
            generator = torch.Generator().manual_seed(recipe.seed + 1)
            for leaf in self.initial_values.values() if self.initial_values is not None else ():
                leaf.data = 0.5 * torch.randn(leaf.shape, generator=generator, dtype=torch.float64)

    @classmethod
    def examples(cls) -> Iterator[RandomCell]:
        """Two."""
        for seed in range(2):
            yield cls(draw_recipe(seed))

    def extra_repr(self) -> str:
        """The recipe."""
        return repr(self.recipe)

    @property
    def input_spec(self) -> Tree:
        """A vector, or a vector and a token."""
        vector = Leaf((self.input_size,))
        return (vector, Leaf((), torch.int64, 0, NUM_TOKENS)) if self.recipe.tokens else vector

    @property
    def output_spec(self) -> Tree:
        """A value, or a value and a mask."""
        return self.output_like

    def weight(self, name: str, *shape: int) -> Tensor:
        """A parameter, made when the step is taken for the first time."""
        key = "_".join([name, *map(str, shape)])
        if key not in self.pool:
            assert self.generator is not None
            scale = 0.7 / max(1, shape[-1]) ** 0.5 if len(shape) > 1 else 0.5
            value = scale * torch.randn(shape, generator=self.generator, dtype=torch.float64)
            self.pool[key] = nn.Parameter(value)
        return self.pool[key]

    def initial_state(self, batch_size: int) -> Any:
        """Vectors, then a matrix, then a counter."""
        real = torch.float64
        recipe = self.recipe
        leaves = [self.initial(f"v{i}", batch_size, n, dtype=real) for i, n in enumerate(recipe.sizes)]
        if recipe.heads:
            leaves.append(self.initial("m", batch_size, recipe.heads, recipe.sizes[0], dtype=real))
        if recipe.counts:
            leaves.append(self.initial("n", batch_size, dtype=torch.int64))
        return tuple(leaves)

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        """As the recipe says."""
        recipe = self.recipe
        vectors: list[Tensor] = []
        if recipe.tokens:
            x, token = x
            vectors.append(F.embedding(token, self.weight("tokens", NUM_TOKENS, recipe.input_size)))
        floats, count = (state[:-1], state[-1]) if recipe.counts else (state, None)
        n = recipe.sizes[0]
        vectors += [x, *floats, F.linear(x, self.weight("in", n, recipe.input_size), self.weight("bias", n))]
        if count is not None:
            vectors.append(F.embedding(count, self.weight("times", 4, n)))
            vectors.append((count.unsqueeze(-1) * torch.ones_like(vectors[-1])) * 0.25)
        for what, i, j, k in recipe.moves:
            a, b = vectors[-1 - i % len(vectors)], vectors[-1 - j % len(vectors)]
            value = MOVES[what % len(MOVES)](self, a, b, k)
            vectors.append(_squash(value, what + k))
        new = []
        for i, old in enumerate(floats):
            value = vectors[-1 - i % len(vectors)]
            new.append(self._renewed(old, value, recipe.moves[i % len(recipe.moves)][3] + i))
        if count is not None:
            more = (count + 1) % 4
            if recipe.moves[0][3] % 2:
                more = torch.where(vectors[-1].flatten(1).sum(-1) > 0, more, count)
            new.append(more)
        y = vectors[-1] if recipe.moves[-1][1] % 3 else new[0]
        return (y, y > 0) if recipe.moves[-1][2] % 7 == 0 else y, tuple(new)

    def _renewed(self, old: Tensor, value: Tensor, how: int) -> Tensor:
        """The next value of a leaf of the state."""
        fresh = self.fit(value, old.shape[1:])
        match how % 6:
            case 0:
                return torch.tanh(fresh)
            case 1:
                gate = torch.sigmoid(fresh + old)
                return gate * old + (1 - gate) * torch.tanh(fresh)
            case 2:
                return (0.9 * old + 0.3 * fresh).clamp(-2, 2)
            case 3:
                return torch.lerp(old, torch.sin(fresh), 0.3)
            case 4:
                return old if old.ndim == 3 else F.layer_norm(old + fresh, old.shape[1:])
            case _:
                return torch.where(fresh > 0, torch.tanh(fresh + old), 0.5 * old)

    def fit(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The value in another shape: cut, repeated, or through a weight."""
        if value.shape[1:] == shape:
            return value
        flat = value.flatten(1)
        have, want = flat.shape[1], 1
        for n in shape:
            want *= n
        if have > want:
            flat = flat[:, have % 2 : have % 2 + want] if have - have % 2 >= want else flat[:, :want]
        elif have == 1:
            flat = flat.expand(-1, want)
        elif have < want:
            if have % 2:
                flat = torch.cat((flat, self.weight("rest", want - have).expand(value.shape[0], -1)), -1)
            else:
                flat = F.linear(flat, self.weight("fit", want, have))
        return flat.reshape(-1, *shape) if len(shape) > 1 else flat


def _kind(leaf: Tensor) -> torch.dtype | None:
    return None if leaf.is_floating_point() else leaf.dtype


def _squash(value: Tensor, how: int) -> Tensor:
    """Bounded, so that errors do not grow."""
    match how % 5:
        case 0:
            return torch.tanh(value)
        case 1:
            return value.clamp(-3.0, 3.0)
        case 2:
            return value / (1 + value.abs())
        case 3:
            return torch.sigmoid(value)
        case _:
            return F.hardtanh(value, -2.0, 2.5)


Move = Callable[[RandomCell, Tensor, Tensor, int], Tensor]

UNARY: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.tanh,
    torch.sigmoid,
    torch.relu,
    torch.abs,
    torch.sin,
    torch.cos,
    torch.square,
    F.softplus,
    torch.exp,
    torch.expm1,
    lambda a: torch.log1p(a.abs()),
    lambda a: torch.sqrt(a.abs() + 0.1),
    lambda a: torch.rsqrt(a.square() + 0.5),
    lambda a: torch.reciprocal(a.abs() + 0.5),
    torch.erf,
    F.silu,
    F.gelu,
    lambda a: F.gelu(a, approximate="tanh"),
    F.leaky_relu,
    F.elu,
    F.selu,
    F.relu6,
    F.hardswish,
    F.mish,
    F.softsign,
    F.logsigmoid,
    torch.atan,
    torch.neg,
    lambda a: a - torch.floor(3.7 * a + 0.123),
    lambda a: a + torch.round(2.3 * a + 0.017) + torch.trunc(1.9 * a) - torch.ceil(1.7 * a),
    lambda a: a * torch.sign(a - 0.01),
    lambda a: (a.abs() + 0.2).pow(1.7),
    lambda a: a.pow(3) + a**2,
    lambda a: torch.log(a.square() + 0.3),
    lambda a: F.softshrink(a, 0.2),
    lambda a: F.threshold(a, 0.1, -0.4),
    lambda a: F.hardshrink(a, 0.25),
)  # not hardsigmoid and celu: torch itself computes their derivatives to float32 only

BINARY: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    torch.minimum,
    lambda a, b: a / (b.abs() + 1),
    lambda a, b: torch.remainder(a, b.abs() + 1.37),
    lambda a, b: torch.lerp(a, b, torch.sigmoid(a)),
    lambda a, b: torch.addcmul(a, a, b, value=0.3),
    lambda a, b: torch.logaddexp(a, b),
    lambda a, b: torch.hypot(a + 0.3, b - 1.7),
    lambda a, b: torch.add(a, b, alpha=-0.7),
    lambda a, b: torch.where((a > b) & (b < 1.1) | ~(a <= 0.3), a, 0.5 * b),
    lambda a, b: a.masked_fill(b > 0.4, -0.2),
    lambda a, b: torch.clamp(a, min=-b.abs() - 0.1, max=b.abs() + 0.3),
    lambda a, b: a * (b > 0).to(a.dtype) + torch.sigmoid(b) * (a >= b).double(),
    lambda a, b: a + (torch.tanh(b) - b).detach() + b,
    lambda a, b: torch.fmin(a, b) - torch.fmax(a, 0.2 * b),
)


def _unary(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    return UNARY[k % len(UNARY)](a)


def _binary(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    return BINARY[k % len(BINARY)](a, cell.fit(b, a.shape[1:]))


def _linear(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    a, n = a.flatten(1), SIZES[k % len(SIZES)]
    m = a.shape[1]
    match k % 6:
        case 0:
            return F.linear(a, cell.weight("w", n, m))
        case 1:
            return F.linear(a, cell.weight("w", n, m), cell.weight("b", n))
        case 2:
            return a @ cell.weight("v", m, n)
        case 3:  # rows and columns of a larger weight
            return F.linear(a, cell.weight("large", n + 2, m + 1)[1:-1, 1:])
        case 4:  # low rank
            return F.linear(F.linear(a, cell.weight("down", 2, m)), cell.weight("up", n, 2))
        case _:  # both arguments through one weight
            b = b.flatten(1)
            return F.linear(torch.cat((a, b), -1), cell.weight("both", n, m + b.shape[1]), cell.weight("b", n))


def _blocks(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    """A weight of diagonal blocks."""
    heads = 1 + k % 3
    a = cell.fit(a, (heads, 3))
    weight = cell.weight("blocks", heads, 4, 3)
    if k % 2:
        return torch.einsum("bhi,hji->bhj", a, weight)
    return (a.unsqueeze(2) * weight).sum(-1)


def _gates(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    n = 1 + k % 5
    a, m = a.flatten(1), a.flatten(1).shape[1]
    i, f, g = F.linear(a, cell.weight("gates", 3 * n, m), cell.weight("gate", 3 * n)).chunk(3, -1)
    return torch.sigmoid(f) * cell.fit(b, (n,)) + torch.sigmoid(i) * torch.tanh(g)


def _norm(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    shape, n = a.shape[1:], a.shape[-1]
    match k % 8:
        case 0:
            return F.layer_norm(a, shape[-1:], cell.weight("scale", n), cell.weight("shift", n))
        case 1:
            return F.layer_norm(a, shape, eps=1e-2)
        case 2:
            return a * torch.rsqrt(a.square().mean(-1, keepdim=True) + 0.1) * cell.weight("scale", n)
        case 3:
            return F.rms_norm(a, shape[-1:], cell.weight("scale", n), 0.01)
        case 4:
            return a / (a.norm(dim=-1, keepdim=True) + 0.3)
        case 5:
            return (a - a.mean(-1, keepdim=True)) / (a.var(-1, keepdim=True, correction=0) + 0.2).sqrt()
        case 6:
            return F.normalize(a + 0.01, dim=-1, eps=0.2)
        case _:
            return F.layer_norm(a, shape[-1:], cell.weight("scale", n), None, 0.1)


def _soft(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    match k % 5:
        case 0:
            return torch.softmax(3 * a, -1)
        case 1:
            return F.log_softmax(a, -1)
        case 2:
            return torch.softmax(a, 1) * cell.fit(b, a.shape[1:])
        case 3:
            return a - torch.logsumexp(a, -1, keepdim=True)
        case _:
            return (torch.softmax(a, -1) * cell.fit(b, a.shape[1:])).sum(-1, keepdim=True) + a


def _reduced(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    dim, keep = (-1, 1)[k % 2], a.ndim == 2 or k % 3 == 0
    match k % 7:
        case 0:
            return a.sum(dim, keepdim=keep)
        case 1:
            return a.mean(dim, keepdim=keep)
        case 2:
            return a - a.amax(dim, keepdim=True)
        case 3:
            return a.amin(dim, keepdim=True) * a
        case 4:
            return a.flatten(1).sum(1, keepdim=True) - a.flatten(1)
        case 5:
            return (a + 0.1 * cell.weight("tell", *a.shape[1:])).max(dim, keepdim=True).values + 0 * a
        case _:
            return a.std(dim, keepdim=True, correction=0).clamp_min(0.05) if a.shape[dim] > 1 else a


def _placed(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    """Concatenation, slices, transpositions."""
    flat, other = a.flatten(1), b.flatten(1)
    n = flat.shape[1]
    match k % 13:
        case 0:
            return torch.cat((other, flat), -1)[:, : SIZES[-1]]
        case 1:
            return torch.cat((flat[:, n // 2 :], flat[:, : n // 2]), -1)
        case 2:
            return flat[:, ::2]
        case 3:
            return torch.stack((flat, cell.fit(b, flat.shape[1:])), 1 + k % 2)
        case 4:
            return a.transpose(1, 2) if a.ndim == 3 else flat.unsqueeze(1).expand(-1, 2, -1)
        case 5:
            return sum(torch.stack((flat, torch.sin(flat), -0.3 * flat), 1).unbind(1), torch.zeros_like(flat))
        case 6:
            return F.pad(flat, (k % 3, 1))
        case 7:
            return flat.roll(1 + k % 3, -1)
        case 8:
            return torch.cat((flat[:, :1], other[:, -1:], torch.zeros_like(flat[:, :1])), -1)
        case 9:
            first, *rest = flat.split(max(1, n // 3), -1)
            return torch.cat((*rest, torch.tanh(first)), -1)
        case 10:
            return flat.repeat(1, 2)[:, : SIZES[-1]]
        case 11:
            return flat[:, n // 2].unsqueeze(-1) * flat
        case _:
            return flat.flip(-1)


def _outer(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    """Products of values of the state with each other."""
    a, b = cell.fit(a, (2, 3)), cell.fit(b, (3, 2) if k % 2 else (2, 3))
    match k % 4:
        case 0:
            return a[:, 0].unsqueeze(-1) * b[:, 1].unsqueeze(1)
        case 1:
            return a @ b
        case 2:
            return torch.einsum("bij,bik->bjk", a, b)
        case _:
            return (a.unsqueeze(-1) * b.unsqueeze(1)).sum(2)


def _chosen(cell: RandomCell, a: Tensor, b: Tensor, k: int) -> Tensor:
    """Places that depend on values."""
    flat = a.flatten(1) + 0.01 * cell.weight("tell", a.flatten(1).shape[1])
    best = flat.argmax(-1)
    match k % 4:
        case 0:
            return F.embedding(best, cell.weight("table", flat.shape[1], 3))
        case 1:
            return flat.gather(1, best.unsqueeze(-1)) - flat
        case 2:
            return (best.unsqueeze(-1) == 0).to(flat.dtype) * flat + 0.1 * flat.argmin(-1, keepdim=True).to(flat.dtype)
        case _:
            return F.one_hot(best, flat.shape[1]).to(flat.dtype) * flat


MOVES: tuple[Move, ...] = (
    *[_unary] * 3, *[_binary] * 4, *[_linear] * 4, *[_gates] * 2, *[_norm] * 2, *[_placed] * 3,
    _blocks, _soft, _reduced, _outer, _chosen,
)  # fmt: skip


class Sample(NamedTuple):
    """A random cell and what it is run on."""

    cell: RandomCell
    xs: Tree
    state: Tree
    controls: Controls


def sample(recipe: Recipe) -> Sample:
    """The cell of a recipe, with its input, state and controls."""
    cell = RandomCell(recipe)
    steps, rows, size = recipe.num_steps, recipe.rows, recipe.input_size
    generator = torch.Generator().manual_seed(recipe.seed + 2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    match recipe.layout % len(LAYOUTS):
        case 0:
            xs = normal(steps, rows, size)
        case 1:
            xs = normal(rows, steps, size).transpose(0, 1)
        case 2:
            xs = normal(2 * steps, rows, size)[::2]
        case 3:
            xs = normal(1, rows, size).expand(steps, rows, size)
        case 4:
            xs = normal(steps, 1, size).expand(steps, rows, size)
        case _:
            xs = normal(steps, size, rows).transpose(1, 2)
    inputs: Tree = xs
    if recipe.tokens:
        inputs = (xs, torch.randint(NUM_TOKENS, (steps, rows), generator=generator))
    state = tuple(
        torch.randint(4, leaf.shape, generator=generator)
        if not leaf.is_floating_point()
        else 0.5 * normal(*leaf.shape[::-1]).permute(*range(leaf.ndim - 1, -1, -1))
        for leaf in cell.initial_state(rows)
    )
    lengths = torch.randint(steps + 1, (rows,), generator=generator) if recipe.ends else None
    reset = torch.rand(steps, rows, generator=generator) < 0.3 if recipe.restarts else None
    return Sample(cell, inputs, state, Controls(lengths, reset))
