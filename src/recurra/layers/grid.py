"""A cell over a grid: every node sees its neighbours above and to the left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import tree
from ..core.cell import JoinCell
from ..core.checks import check_tree, sentence
from ..core.spec import zeros
from ..core.tree import Tree


class Grid(nn.Module):
    """Run a `JoinCell` over a grid of R rows and C columns, from the top left to the bottom right.

        y_{r,c}, s_{r,c} = cell.join(x_{r,c}, [s_{r-1,c}, s_{r,c-1}])

    Predecessor 0 stands above, predecessor 1 to the left; both exist at every node: beyond the edge stands the initial state,
    with a False mask. All nodes of an anti-diagonal run as one batch. Rows stream: a picture may come row by row or in
    strips, the state between strips being the last row.

    Args:
        cell: the cell of every node.
        wavefront: False runs node by node, the reference.
    State:
        The row above, leaves (C, B, ...).
    Raises:
        TypeError: not a `JoinCell`.
        ValueError: a wrong shape.
    Source:
        Graves, Fernandez & Schmidhuber 2007, arXiv:0705.2011 (multi-dimensional recurrence; from memory)
    Cost:
        R C joins in R + C - 1 batches.
    """

    def __init__(self, cell: JoinCell, *, wavefront: bool = True) -> None:
        super().__init__()
        if not isinstance(cell, JoinCell):
            raise TypeError(sentence("Grid", "cell", "a JoinCell", type(cell).__name__))
        self.cell, self.wavefront = cell, wavefront

    def forward(
        self,
        xs: Tree,
        state: Tree = None,
        *,
        sizes: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tree, Tree]:
        """Outputs of all nodes and the last row's states.

        Args:
            xs: leaves (R, C, B, ...).
            state: the row above, leaves (C, B, ...); None for the initial state with a False mask (no row above).
            sizes: (B, 2) int64 true rows and columns of each picture. Padding is to the right and below; outputs there are
                zero and the state returned is that of each picture's own last row.
            reset: (R, B) bool, a new picture begins with this row.

        Returns:
            ys (R, C, B, ...) and the state (C, B, ...).
        """
        cell = self.cell
        first = tree.leaves(xs)[0]
        if first.ndim < 3:
            raise ValueError(sentence("Grid", "xs", "(R, C, B, ...)", tuple(first.shape)))
        num_rows, num_columns, batch_size = (int(n) for n in first.shape[:3])
        lead = (num_rows, num_columns, batch_size)
        check_tree("Grid", "xs", xs, cell.input_spec, lead, cell.own_dtype, cell.hint())
        if sizes is not None and tuple(sizes.shape) != (batch_size, 2):
            raise ValueError(sentence("Grid", "sizes", f"({batch_size}, 2)", tuple(sizes.shape)))
        if reset is not None and tuple(reset.shape) != (num_rows, batch_size):
            raise ValueError(sentence("Grid", "reset", f"({num_rows}, {batch_size})", tuple(reset.shape)))
        edge = cell.initial_state(batch_size)
        top = tree.map(lambda leaf: leaf.expand(num_columns, *leaf.shape), edge)
        if state is not None:
            row = (num_columns, batch_size)
            check_tree("Grid", "state", state, cell.state_spec, row, cell.own_dtype, cell.hint())
        if num_rows == 0 or num_columns == 0:
            empty = zeros(cell.output_spec, num_rows, num_columns, batch_size, dtype=cell.dtype, device=cell.device)
            return empty, top if state is None else state
        if sizes is not None:
            inside = _inside(sizes, num_rows, num_columns)
            xs = tree.map(lambda x: torch.where(inside.reshape(*inside.shape, *[1] * (x.ndim - 3)), x, 0), xs)
        has_top = torch.full((num_columns, batch_size), state is not None, device=first.device)
        order = _diagonals(num_rows, num_columns) if self.wavefront else _one_by_one(num_rows, num_columns)
        ys, grid = self._run(xs, top if state is None else state, has_top, edge, reset, order)
        outputs = _assemble(ys, num_rows, num_columns)
        rows = [[grid[r, c] for c in range(num_columns)] for r in range(num_rows)]
        if sizes is None:
            return outputs, tree.stack(rows[-1])
        outputs = tree.map(lambda y: torch.where(inside.reshape(*inside.shape, *[1] * (y.ndim - 3)), y, 0), outputs)
        last = top if state is None else state
        for r in range(num_rows):
            last = tree.where(inside[r], tree.stack(rows[r]), last)
        return outputs, last

    def _run(
        self,
        xs: Tree,
        above_first: Tree,
        has_top: Tensor,
        edge: Tree,
        reset: Tensor | None,
        order: list[list[tuple[int, int]]],
    ) -> tuple[dict[tuple[int, int], Tree], dict[tuple[int, int], Tree]]:
        """Outputs and states by node; each group of ``order`` is one batch of N * B rows."""
        ys: dict[tuple[int, int], Tree] = {}
        states: dict[tuple[int, int], Tree] = {}
        batch_size = has_top.shape[1]
        none = torch.zeros(batch_size, dtype=torch.bool, device=has_top.device)
        for nodes in order:
            above, left, masks = [], [], []
            for r, c in nodes:
                up = states[r - 1, c] if r else tree.at(above_first, c)
                mask = ~none if r else has_top[c]
                if reset is not None:
                    up = tree.where(reset[r], edge, up)
                    mask = mask & ~reset[r]
                above.append(up)
                left.append(states[r, c - 1] if c else edge)
                masks.append(torch.stack([mask, ~none if c else none], -1))
            x = tree.concatenate([tree.map(lambda leaf, r=r, c=c: leaf[r, c], xs) for r, c in nodes])
            joined = tree.map(lambda a, b: torch.stack([a, b], 1), tree.concatenate(above), tree.concatenate(left))
            y, new = self.cell.join(x, joined, torch.cat(masks))
            for i, node in enumerate(nodes):
                ys[node] = tree.window(y, i * batch_size, (i + 1) * batch_size)
                states[node] = tree.window(new, i * batch_size, (i + 1) * batch_size)
        return ys, states


def _inside(sizes: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """(R, C, B) bool, True inside each picture."""
    rows = torch.arange(num_rows, device=sizes.device)[:, None, None] < sizes[:, 0]
    return rows & (torch.arange(num_columns, device=sizes.device)[None, :, None] < sizes[:, 1])


def _diagonals(num_rows: int, num_columns: int) -> list[list[tuple[int, int]]]:
    """Nodes that do not need each other, one anti-diagonal after the other."""
    return [
        [(r, d - r) for r in range(max(0, d - num_columns + 1), min(d + 1, num_rows))]
        for d in range(num_rows + num_columns - 1)
    ]


def _one_by_one(num_rows: int, num_columns: int) -> list[list[tuple[int, int]]]:
    return [[(r, c)] for r in range(num_rows) for c in range(num_columns)]


def _assemble(nodes: dict[tuple[int, int], Tree], num_rows: int, num_columns: int) -> Tree:
    return tree.stack([tree.stack([nodes[r, c] for c in range(num_columns)]) for r in range(num_rows)])
