"""Embedded Reber grammar: the second symbol of a string is also its last but one."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check_positive
from ..core.controls import Controls
from ..core.rule import Chunk

SYMBOLS = "BTPSXVE"
"""The alphabet; a symbol's number is its place here."""

_ARCS = {1: "T2 P3", 2: "S2 X4", 3: "T3 V5", 4: "X3 S6", 5: "P4 V6"}
"""Reber's graph between B (which leads to 1) and E (which follows 6): symbol and next node."""


class _Graph(NamedTuple):
    """Arcs of the embedded grammar, two for each node (equal where there is no choice): symbol (S, 2), next node (S, 2)."""

    symbol: Tensor
    following: Tensor


@cache
def _graph() -> _Graph:
    """Node 0 begins a string, node 1 chooses T or P, then one copy of Reber's graph for each; the last node is the end."""
    arcs: list[list[tuple[str, int]]] = [[("B", 1)], [("T", 2), ("P", 11)]]
    end = 20
    for outer, first in (("T", 2), ("P", 11)):  # first: before the inner B; first + n: node n of Reber's graph
        arcs.append([("B", first + 1)])
        arcs += [[(arc[0], first + int(arc[1])) for arc in _ARCS[node].split()] for node in range(1, 6)]
        arcs += [[("E", first + 7)], [(outer, first + 8)], [("E", end)]]
    pairs = [(a[0], a[-1]) for a in arcs]
    return _Graph(
        torch.tensor([[SYMBOLS.index(symbol) for symbol, _ in pair] for pair in pairs]),
        torch.tensor([[node for _, node in pair] for pair in pairs]),
    )


class ReberStrings(NamedTuple):
    """Strings side by side.

    Args:
        symbols: (T, B) int64 places in `SYMBOLS`, 0 behind the end.
        lengths: (B,) symbols of each string, at least 9.
        legal: (T, B, 7) bool, the symbols that the grammar allows at this place.
    """

    symbols: Tensor
    lengths: Tensor
    legal: Tensor


def reber_strings(num_strings: int, generator: torch.Generator | None = None) -> ReberStrings:
    """Strings of the embedded Reber grammar: B, T or P, a Reber string, the same T or P again, E.

        Reber string:  B, then from node 1   1: T -> 2, P -> 3   2: S -> 2, X -> 4   3: T -> 3, V -> 5
                                             4: X -> 3, S -> 6   5: P -> 4, V -> 6   6: E

    Both arcs of a node are equally likely. Strings have 12 symbols on the average, 9 at least; there is no longest.

    Args:
        num_strings: B.
        generator: source of the choices.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), figures 3 and 4 (from memory); the graph is Reber's of 1967 as
        Cleeremans, Servan-Schreiber & McClelland 1989 draw it.

    Example:
        >>> strings = reber_strings(2, torch.Generator().manual_seed(0))
        >>> ["".join(SYMBOLS[s] for s in strings.symbols[:n, b]) for b, n in enumerate(strings.lengths)]
        ['BPBPVVEPE', 'BTBPVPSETE']
    """
    check_positive("reber_strings", num_strings=num_strings)
    graph, end = _graph(), len(_graph().symbol)
    node = torch.zeros(num_strings, dtype=torch.int64)
    symbols, legal = [], []
    while bool((node < end).any()):
        running = node < end
        here = node.clamp(max=end - 1)
        choice = torch.randint(2, (num_strings,), generator=generator)
        symbols.append(torch.where(running, graph.symbol[here, choice], 0))
        legal.append(F.one_hot(graph.symbol[here], len(SYMBOLS)).any(1) & running[:, None])
        node = torch.where(running, graph.following[here, choice], end)
    allowed = torch.stack(legal)
    return ReberStrings(torch.stack(symbols), allowed.any(-1).sum(0), allowed)


def next_symbol(strings: ReberStrings) -> Chunk:
    """Every symbol but the last goes in, one-hot; the one behind it is the target.

    Example:
        >>> chunk = next_symbol(reber_strings(5))
        >>> chunk.xs.shape[1:], bool((chunk.controls.lengths >= 8).all())
        (torch.Size([5, 7]), True)
    """
    code = F.one_hot(strings.symbols, len(SYMBOLS)).to(torch.get_default_dtype())
    return Chunk(code[:-1], code[1:], None, Controls(strings.lengths - 1))


class ReberStream(NamedTuple):
    """symbols: (L,) int64; legal: (L, 7) bool, what may follow the symbol at this place; begins: (L,) bool, the Bs outside."""

    symbols: Tensor
    legal: Tensor
    begins: Tensor


def continual_reber(num_symbols: int, generator: torch.Generator | None = None) -> ReberStream:
    """Strings of the embedded Reber grammar one behind the other, without marks, for ever.

    Args:
        num_symbols: L at least; the stream ends with the string that reaches it.
        generator: source of the choices.

    Source:
        Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10):2451-2471, section 4.1 (from memory)

    Example:
        >>> stream = continual_reber(18, torch.Generator().manual_seed(0))
        >>> "".join(SYMBOLS[s] for s in stream.symbols), int(stream.begins.sum())
        ('BPBPVVEPEBTBPVPSETE', 2)
    """
    check_positive("continual_reber", num_symbols=num_symbols)
    strings = reber_strings(-(-num_symbols // 9), generator)
    inside = strings.legal.any(-1).T
    symbols, allowed = strings.symbols.T[inside], strings.legal.transpose(0, 1)[inside]
    begins = (torch.arange(inside.shape[1]) == 0).expand_as(inside)[inside]
    ends = begins.roll(-1).nonzero().squeeze(1) + 1
    stop = int(ends[(ends >= num_symbols).nonzero()[0, 0]])
    return ReberStream(symbols[:stop], allowed.roll(-1, 0)[:stop], begins[:stop])


def symbols_right(ys: Tensor, legal: Tensor) -> Tensor:
    """(...) bool from outputs (..., 7): is every symbol that may follow more active than every other one?

    Example:
        >>> symbols_right(torch.tensor([0.1, 0.4, 0.3, 0, 0, 0, 0]), torch.tensor([0, 1, 1, 0, 0, 0, 0]).bool()).item()
        True
    """
    lowest = torch.where(legal, ys, torch.inf).amin(-1)
    highest = torch.where(legal, -torch.inf, ys).amax(-1)
    return lowest > highest
