"""Sixty-four spins in a word: what the checkerboard of `packed_ising` does with bits, as loops and as torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..native.loops import compiled, i64_1d, local, num_threads, thread, u64, u64_1d, u64_2d, u64_3d

LANES = 16
"""Words that move at once; each has a generator of its own."""
NUM_BITS = 48
"""Bits of a random number that is compared with a probability."""
NUM_FIRST = 16
"""Its leading bits, which nearly always decide."""
_NOTHING = np.uint64(0)


@compiled
def _compare(
    a: u64_1d, b: u64_1d, c: u64_1d, d: u64_1d, masks: u64_2d, begin: int, end: int,
    below_4: u64_1d, below_8: u64_1d, equal_4: u64_1d, equal_8: u64_1d,
) -> None:  # fmt: skip
    """Bits begin to end of random numbers, least first, against the bits of two probabilities: below, or equal so far.

    The generator is xoshiro256++ with the states (a, b, c, d), 16 of them.
    """
    for lane in range(LANES):
        below_4[lane] = 0
        below_8[lane] = 0
        equal_4[lane] = 0xFFFF_FFFF_FFFF_FFFF
        equal_8[lane] = 0xFFFF_FFFF_FFFF_FFFF
    for k in range(begin, end):
        p4 = masks[0, k]
        p8 = masks[1, k]
        for lane in range(LANES):
            s0 = a[lane]
            s1 = b[lane]
            s2 = c[lane]
            s3 = d[lane]
            bit = s0 + s3
            bit = ((bit << 23) | (bit >> 41)) + s0
            moved = s1 << 17
            s2 = s2 ^ s0
            s3 = s3 ^ s1
            b[lane] = s1 ^ s2
            a[lane] = s0 ^ s3
            c[lane] = s2 ^ moved
            d[lane] = (s3 << 45) | (s3 >> 19)
            below = below_4[lane]
            below_4[lane] = (below & bit) | (p4 & (below | bit))
            below = below_8[lane]
            below_8[lane] = (below & bit) | (p8 & (below | bit))
            equal_4[lane] = equal_4[lane] & (bit ^ p4)
            equal_8[lane] = equal_8[lane] & (bit ^ p8)


@compiled
def packed_passes(
    words: u64_3d, random: u64_3d, masks: u64_2d, first: int, count: int, wrap: int, same: np.uint64
) -> None:
    """Move the colours first, first + 1, ... (modulo 2), ``count`` of them, by Metropolis' rule; one if threads share it.

    Args:
        words: (2, H, W) by colour, row and place; changed in place.
        random: (H ceil(W / 16), 4, 16) states of the generators; changed in place.
        masks: (2, 48) bits of exp(-4 beta) and exp(-8 beta), least first, each all ones or all zeros.
        first: 0 or 1.
        count: passes.
        wrap: bits that a row turns by at its end: 1 where a word holds parts of one row, 0 where it holds 64 copies.
        same: all ones where equal neighbours are satisfied, zeros where different ones are.
    """
    height = words.shape[1]
    width = words.shape[2]
    blocks = (width + LANES - 1) // LANES
    three = local("u64", LANES)
    four = local("u64", LANES)
    a = local("u64", LANES)
    b = local("u64", LANES)
    c = local("u64", LANES)
    d = local("u64", LANES)
    below_4 = local("u64", LANES)
    below_8 = local("u64", LANES)
    equal_4 = local("u64", LANES)
    equal_8 = local("u64", LANES)
    low_4 = local("u64", LANES)
    low_8 = local("u64", LANES)
    unused_4 = local("u64", LANES)
    unused_8 = local("u64", LANES)
    for step in range(count):
        mine = (first + step) % 2
        theirs = 1 - mine
        for r in range(height * thread() // num_threads(), height * (thread() + 1) // num_threads()):
            above = r - 1 if r > 0 else height - 1
            below = r + 1 if r + 1 < height else 0
            right = (r + mine) % 2  # are the neighbours in the row at the same place and the next one, or the last one?
            for block in range(blocks):
                begin = LANES * block
                size = min(LANES, width - begin)
                state = r * blocks + block
                for lane in range(LANES):
                    three[lane] = 0
                    four[lane] = 0
                    a[lane] = random[state, 0, lane]
                    b[lane] = random[state, 1, lane]
                    c[lane] = random[state, 2, lane]
                    d[lane] = random[state, 3, lane]
                for lane in range(size):
                    w = begin + lane
                    x = words[mine, r, w] ^ same
                    next_to = words[theirs, r, w]
                    if right == 1:
                        if w + 1 < width:
                            next_to = words[theirs, r, w + 1]
                        else:
                            next_to = words[theirs, r, 0]
                            if wrap:
                                next_to = (next_to >> 1) | (next_to << 63)
                    else:
                        if w > 0:
                            next_to = words[theirs, r, w - 1]
                        else:
                            next_to = words[theirs, r, width - 1]
                            if wrap:
                                next_to = (next_to << 1) | (next_to >> 63)
                    n1 = words[theirs, above, w] ^ x
                    n2 = words[theirs, below, w] ^ x
                    n3 = words[theirs, r, w] ^ x
                    n4 = next_to ^ x
                    both = n1 & n2
                    others = n3 & n4
                    three[lane] = (both & (n3 | n4)) | (others & (n1 | n2))
                    four[lane] = both & others
                _compare(a, b, c, d, masks, NUM_BITS - NUM_FIRST, NUM_BITS, below_4, below_8, equal_4, equal_8)
                undecided = _NOTHING
                for lane in range(LANES):
                    equal_4[lane] = equal_4[lane] & three[lane] & ~four[lane]
                    equal_8[lane] = equal_8[lane] & four[lane]
                    undecided = undecided | equal_4[lane] | equal_8[lane]
                if undecided != 0:
                    _compare(a, b, c, d, masks, 0, NUM_BITS - NUM_FIRST, low_4, low_8, unused_4, unused_8)
                    for lane in range(LANES):
                        below_4[lane] = below_4[lane] | (equal_4[lane] & low_4[lane])
                        below_8[lane] = below_8[lane] | (equal_8[lane] & low_8[lane])
                for lane in range(size):
                    turn = ~three[lane] | (below_4[lane] & ~four[lane]) | below_8[lane]
                    words[mine, r, begin + lane] = words[mine, r, begin + lane] ^ turn
                for lane in range(LANES):
                    random[state, 0, lane] = a[lane]
                    random[state, 1, lane] = b[lane]
                    random[state, 2, lane] = c[lane]
                    random[state, 3, lane] = d[lane]


@compiled
def packed_counts(words: u64_3d, wrap: int, ups: i64_1d, unequal: i64_1d) -> None:
    """For each bit of a word, over the whole lattice: spins that are up, and pairs of neighbours that differ."""
    height = words.shape[1]
    width = words.shape[2]
    for r in range(height):
        above = r - 1 if r > 0 else height - 1
        below = r + 1 if r + 1 < height else 0
        for w in range(width):
            x = words[0, r, w]
            white = words[1, r, w]
            if r % 2 == 1:
                next_to = words[1, r, w + 1 if w + 1 < width else 0]
                if wrap and w + 1 == width:
                    next_to = (next_to >> 1) | (next_to << 63)
            else:
                next_to = words[1, r, w - 1 if w > 0 else width - 1]
                if wrap and w == 0:
                    next_to = (next_to << 1) | (next_to >> 63)
            n1 = x ^ words[1, above, w]
            n2 = x ^ words[1, below, w]
            n3 = x ^ white
            n4 = x ^ next_to
            for bit in range(64):
                ups[bit] += int((x >> u64(bit)) & 1) + int((white >> u64(bit)) & 1)
                pairs = int((n1 >> u64(bit)) & 1) + int((n2 >> u64(bit)) & 1)
                unequal[bit] += pairs + int((n3 >> u64(bit)) & 1) + int((n4 >> u64(bit)) & 1)


def reference_pass(words: Tensor, random: Tensor, masks: Tensor, colour: int, wrap: int, same: int) -> None:
    """One pass of `packed_passes` in torch, all words of a colour at once; arguments as there, int64, changed in place."""
    height, width = words.shape[1:]
    blocks = random.shape[0] // height
    x, theirs, odd = words[colour] ^ same, words[1 - colour], (torch.arange(height) + colour) % 2 == 1
    after, last = theirs.roll(-1, 1), theirs.roll(1, 1)
    if wrap:
        after[:, -1], last[:, 0] = _turned(after[:, -1], 63), _turned(last[:, 0], 1)
    next_to = torch.where(odd[:, None], after, last)
    n1, n2, n3, n4 = (near ^ x for near in (theirs.roll(1, 0), theirs.roll(-1, 0), theirs, next_to))
    three = (n1 & n2 & (n3 | n4)) | (n3 & n4 & (n1 | n2))
    four = n1 & n2 & n3 & n4

    room = torch.zeros(2, height, blocks * LANES, dtype=torch.int64)
    room[0, :, :width], room[1, :, :width] = three, four
    threes, fours = room.reshape(2, height * blocks, LANES)
    states, below, equal = _compared(random.unbind(1), masks[:, NUM_BITS - NUM_FIRST :])
    equal = torch.stack([equal[0] & threes & ~fours, equal[1] & fours])
    undecided = (equal != 0).any(0).any(-1, keepdim=True)
    more, low, _ = _compared(states, masks[:, : NUM_BITS - NUM_FIRST])
    random.copy_(torch.stack([torch.where(undecided, m, s) for m, s in zip(more, states)], 1))
    below = below | (equal & low)
    turn = ~threes | (below[0] & ~fours) | below[1]
    words[colour] ^= turn.reshape(height, blocks * LANES)[:, :width]


def _compared(states: tuple[Tensor, ...], masks: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """`_compare` in torch: the states after, below and equal (2, blocks, LANES)."""
    a, b, c, d = states
    below = torch.zeros(2, *a.shape, dtype=torch.int64)
    equal = ~below
    for mask in masks.T:
        bit = _turned(a + d, 23) + a
        moved, c, d = b << 17, c ^ a, d ^ b
        a, b, c, d = a ^ d, b ^ c, c ^ moved, _turned(d, 45)
        mask = mask[:, None, None]
        below = (below & bit) | (mask & (below | bit))
        equal = equal & (bit ^ mask)
    return (a, b, c, d), below, equal


def _turned(words: Tensor, by: int) -> Tensor:
    """Bits moved to the left, those that fall out coming in at the right."""
    return (words << by) | ((words >> (64 - by)) & ((1 << by) - 1))
