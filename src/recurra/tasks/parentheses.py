"""The head of a Turing machine that finds out whether parentheses balance (Williams & Zipser 1989)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check_positive, sentence
from ..core.controls import Controls
from ..core.rule import Chunk

MARKS = "*()x"
"""What may stand on the tape: its ends, parentheses, parentheses that are done with."""

ACTIONS = ("cross out", "go right", "accept", "reject")
"""What the head does, one bit each; without "go right" it goes left."""

_OUT, _RIGHT, _ACCEPT, _REJECT = (1 << i for i in range(4))
_TABLE = torch.tensor(
    [  # mark:  *                (                 )               x
        [[0, 2], [_RIGHT, 0], [_OUT, 1], [_RIGHT, 0]],  # 0: looks to the right for a )
        [[_REJECT, 1], [_OUT | _RIGHT, 0], [0, 1], [0, 1]],  # 1: looks to the left for its (
        [[_ACCEPT, 2], [_REJECT, 2], [0, 2], [0, 2]],  # 2: looks to the left for a ( that is left over
    ]
)
"""(state, mark) -> action bits, next state."""


class Tapes(NamedTuple):
    """marks: (W, B) int64 places in `MARKS`, an end mark at both sides; balanced: (B,) bool."""

    marks: Tensor
    balanced: Tensor


def random_tapes(num_tapes: int, longest: int, generator: torch.Generator | None = None) -> Tapes:
    """Strings of 1 to ``longest`` parentheses; half of them are made balanced, the others are fair draws.

    Args:
        num_tapes: B.
        longest: parentheses at most.
        generator: source of the strings.

    Example:
        >>> tapes = random_tapes(2, 8, torch.Generator().manual_seed(3))
        >>> ["".join(MARKS[m] for m in column).strip("*") for column in tapes.marks.T], tapes.balanced.tolist()
        (['(())', ')'], [True, False])
    """
    check_positive("random_tapes", num_tapes=num_tapes)
    if longest < 2:
        raise ValueError(sentence("random_tapes", "longest", "at least 2", longest))
    made = torch.arange(num_tapes) < -(-num_tapes // 2)
    lengths = torch.randint(1, longest + 1, (num_tapes,), generator=generator)
    lengths = torch.where(made, 2 * ((lengths + 1) // 2).clamp(max=longest // 2), lengths)
    place = torch.arange(longest)[:, None]
    inside = place < lengths
    rank = torch.rand(longest, num_tapes, generator=generator).masked_fill(~inside, 2.0).argsort(0).argsort(0)
    opens = torch.where(made, rank < lengths // 2, torch.rand(longest, num_tapes, generator=generator) < 0.5)
    height = torch.where(opens, 1, -1).masked_fill(~inside, 0).cumsum(0)
    lowest = height.masked_fill(~inside, longest).argmin(0)  # begun behind it, a string of as many of each balances
    turned = opens.gather(0, (place + lowest + 1) % lengths)
    opens = torch.where(made, turned, opens)
    height = torch.where(opens, 1, -1).masked_fill(~inside, 0).cumsum(0)
    balanced = (height[-1] == 0) & (height.amin(0) >= 0)
    marks = torch.where(opens, 1, 2).masked_fill(~inside, 0)
    return Tapes(F.pad(marks, (0, 0, 1, 1)), balanced)


class Head:
    """Heads over many tapes; whoever moves them says what each one does.

    Args:
        tapes: copied.
    Attributes:
        marks: (W, B) as they are now.
        place: (B,) where each head stands.
        verdict: (B,) 0 for none, 1 for accepted, -1 for rejected; such heads move no more.
    """

    def __init__(self, tapes: Tapes) -> None:
        self.marks = tapes.marks.clone()
        self.rows = torch.arange(self.marks.shape[1])
        self.place = torch.ones_like(self.rows)
        self.verdict = torch.zeros_like(self.rows)

    def read(self) -> Tensor:
        """(B,) the mark under each head."""
        return self.marks[self.place, self.rows]

    def act(self, actions: Tensor) -> None:
        """Cross out, move, decide. Actions (B, 4) bool, see `ACTIONS`; a verdict of both kinds is a rejection."""
        out, right, accept, reject = actions.unbind(1)
        running = self.verdict == 0
        self.marks[self.place, self.rows] = torch.where(running & out, 3, self.read())
        moved = (self.place + torch.where(right, 1, -1)).clamp(0, len(self.marks) - 1)
        self.place = torch.where(running & ~accept & ~reject, moved, self.place)
        decided = torch.where(reject, -1, torch.where(accept, 1, 0))
        self.verdict = torch.where(running, decided, self.verdict)


def head_actions(tapes: Tapes, num_ticks: int = 2) -> Chunk:
    """What the machine's head reads and does on each tape, until it accepts or rejects.

    It looks to the right for a closing parenthesis, crosses it out, looks to the left for its partner, crosses that out, and
    so on; at the right end it goes back and looks whether any parenthesis is left.

    Args:
        tapes: of `random_tapes`.
        num_ticks: steps for which a mark is shown; the action is asked for at the last of them.

    Returns:
        xs (T, B, 4) the mark read, one-hot; targets (T, B, 4), see `ACTIONS`; weights (T, B), and lengths.

    Source:
        Williams & Zipser 1989, Neural Computation 1(2), "learning to be a Turing machine" (the task from memory, the table of
        states ours)

    Example:
        >>> chunk = head_actions(random_tapes(2, 8, torch.Generator().manual_seed(3)))
        >>> last = chunk.controls.lengths - 1
        >>> chunk.targets[last, torch.arange(2)].tolist()  # accepted; rejected
        [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    check_positive("head_actions", num_ticks=num_ticks)
    head = Head(tapes)
    state = torch.zeros_like(head.place)
    bits = torch.tensor([_OUT, _RIGHT, _ACCEPT, _REJECT])
    seen, done, running = [], [], []
    while bool((head.verdict == 0).any()):
        mark = head.read()
        action, following = _TABLE[state, mark].unbind(1)
        wanted = (action[:, None] & bits) != 0
        seen.append(mark)
        done.append(wanted)
        running.append(head.verdict == 0)
        head.act(wanted)
        state = following
    alive = torch.stack(running)
    number = torch.get_default_dtype()
    xs = F.one_hot(torch.stack(seen), len(MARKS)).to(number) * alive[..., None]
    targets = torch.stack(done).to(number) * alive[..., None]
    asked = torch.zeros(len(alive) * num_ticks, alive.shape[1])
    asked[num_ticks - 1 :: num_ticks] = alive.float()
    xs, targets = xs.repeat_interleave(num_ticks, 0), targets.repeat_interleave(num_ticks, 0)
    return Chunk(xs, targets, asked, Controls(alive.sum(0) * num_ticks))
