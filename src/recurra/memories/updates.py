"""+-1 units that are updated one after the other, or all at once: the loops.

Fields are kept up to date: to ask a unit costs one comparison, to change it N additions. Rows are independent of each other
and are split over the threads.
"""

from __future__ import annotations

import math

from ..native.loops import compiled, f32, f32_2d, f32_3d, f64_1d, f64_2d, i8_2d, i64_1d, i64_2d, num_threads, thread

AT_ONCE = 8  # patterns whose fields are added in one pass


@compiled
def relax(
    columns: f32_2d,
    order: i64_1d,
    fields: f64_2d,
    spins: i8_2d,
    steps: i64_1d,
    still: i64_1d,
    path: i64_2d,
    max_sweeps: int,
) -> None:
    """Units take turns and follow the sign of their field, where it has one, until a whole round changes none.

    Args:
        columns: (N, N) J_ji in row i, what unit i does to the others.
        order: (N,) the turns.
        fields: (B, N) of the spins; changed with them.
        spins: (B, N) -1 or +1, 0 where it is not known; changed in place.
        steps: (B,) takes the number of changes.
        still: (B,) takes 1 where a round changed nothing.
        path: (B, T) takes the first T changes: 2 i for a unit i that goes down, 2 i + 1 for one that goes up.
        max_sweeps: most rounds.
    """
    size = spins.shape[1]
    room = path.shape[1]
    rows = spins.shape[0]
    for b in range(rows * thread() // num_threads(), rows * (thread() + 1) // num_threads()):
        count = 0
        quiet = 0
        turn = 0
        asked = 0
        while quiet < size and asked < max_sweeps * size:
            unit = order[turn]
            field = fields[b, unit]
            old = spins[b, unit]
            new = old
            if field > 0.0:
                new = 1
            if field < 0.0:
                new = -1
            quiet = quiet + 1
            if new != old:
                quiet = 0
                spins[b, unit] = new
                change = float(new - old)
                for j in range(size):
                    fields[b, j] = fields[b, j] + change * float(columns[unit, j])
                if count < room:
                    path[b, count] = 2 * unit + (new + 1) // 2
                count = count + 1
            asked = asked + 1
            turn = turn + 1
            if turn == size:
                turn = 0
        steps[b] = count
        still[b] = 0
        if quiet >= size:
            still[b] = 1


@compiled
def glauber(
    columns: f32_2d,
    turns: i64_1d,
    chances: f64_1d,
    fields: f64_2d,
    spins: i8_2d,
    steps: i64_1d,
    temperature: float,
) -> None:
    """Units are asked in the given turns and follow their field h with probability 1 / (1 + exp(-2 |h| / T)).

    Args:
        columns: (N, N) J_ji in row i, what unit i does to the others.
        turns: (S,) which unit is asked.
        chances: (S,) a number from 0 to 1 for each turn; every row sees the same.
        fields: (B, N) of the spins; changed with them.
        spins: (B, N) -1 or +1, 0 where it is not known; changed in place.
        steps: (B,) the number of changes is added to it.
        temperature: T; at 0 a unit without a field stays.
    """
    size = spins.shape[1]
    rows = spins.shape[0]
    for b in range(rows * thread() // num_threads(), rows * (thread() + 1) // num_threads()):
        for s in range(len(turns)):
            unit = turns[s]
            field = fields[b, unit]
            old = spins[b, unit]
            new = old
            if field > 0.0:
                new = 1
            if field < 0.0:
                new = -1
            if temperature > 0.0:  # noqa: SIM102 (both would be computed)
                if chances[s] >= 1.0 / (1.0 + math.exp(-2.0 * abs(field) / temperature)):
                    new = -new
            if new != old:
                spins[b, unit] = new
                steps[b] = steps[b] + 1
                change = float(new - old)
                for j in range(size):
                    fields[b, j] = fields[b, j] + change * float(columns[unit, j])


@compiled(reassociate=True)
def all_at_once(
    patterns: f32_2d,
    couplings: f32_2d,
    weight: float,
    cue: f32_2d,
    value: f32_2d,
    room: f32_3d,
    steps: i64_1d,
    still: i64_1d,
    wrong: i64_1d,
    max_steps: int,
) -> None:
    """All units follow the sign of their field, until none changes or a cycle of two closes; J = X' X - M 1 of patterns X.

    Sums are whole numbers, exact in float32 in any order. After a step in which few units changed, only what they did to the
    fields is added.

    Args:
        patterns: (M', N) X, then rows of zeros up to a multiple of `AT_ONCE`.
        couplings: (N, N) J.
        weight: M, the number of patterns.
        cue: (B, N) -1, +1, or 0 where it is not known.
        value: (B, N) takes what the units are at the end.
        room: (threads, 4, N) of any content.
        steps: (B,) takes the number of steps that changed something.
        still: (B,) takes 1 where the last step changed nothing.
        wrong: (B,) takes the number of units of the cue that are not -1, 0 or +1.
        max_steps: most steps.
    """
    rows = cue.shape[0]
    size = cue.shape[1]
    few = patterns.shape[0] // 8
    own = thread()
    for b in range(rows * own // num_threads(), rows * (own + 1) // num_threads()):
        odd = 0
        for i in range(size):
            unit = cue[b, i]
            if not (unit * unit == abs(unit) and abs(unit) <= f32(1.0)):
                odd = odd + 1
            room[own, 0, i] = unit
            room[own, 1, i] = f32(2.0)
        wrong[b] = odd
        count = 0
        going = 1
        quiet = 0
        whole = 1
        if odd > 0:
            going = 0
        while going == 1 and count < max_steps:
            if whole == 1:
                for i in range(size):
                    room[own, 2, i] = -f32(weight) * room[own, 0, i]
                for m in range(0, patterns.shape[0], 8):
                    first = f32(0.0)
                    second = f32(0.0)
                    third = f32(0.0)
                    fourth = f32(0.0)
                    fifth = f32(0.0)
                    sixth = f32(0.0)
                    seventh = f32(0.0)
                    eighth = f32(0.0)
                    for i in range(size):
                        unit = room[own, 0, i]
                        first = first + unit * patterns[m, i]
                        second = second + unit * patterns[m + 1, i]
                        third = third + unit * patterns[m + 2, i]
                        fourth = fourth + unit * patterns[m + 3, i]
                        fifth = fifth + unit * patterns[m + 4, i]
                        sixth = sixth + unit * patterns[m + 5, i]
                        seventh = seventh + unit * patterns[m + 6, i]
                        eighth = eighth + unit * patterns[m + 7, i]
                    for i in range(size):
                        room[own, 2, i] = room[own, 2, i] + (
                            (
                                (first * patterns[m, i] + second * patterns[m + 1, i])
                                + (third * patterns[m + 2, i] + fourth * patterns[m + 3, i])
                            )
                            + (
                                (fifth * patterns[m + 4, i] + sixth * patterns[m + 5, i])
                                + (seventh * patterns[m + 6, i] + eighth * patterns[m + 7, i])
                            )
                        )
            changed = 0
            back = 0
            for i in range(size):
                field = room[own, 2, i]
                old = room[own, 0, i]
                new = old
                if field > 0.0:
                    new = f32(1.0)
                if field < 0.0:
                    new = f32(-1.0)
                if new != old:
                    changed = changed + 1
                if new != room[own, 1, i]:
                    back = back + 1
                room[own, 3, i] = new
            if changed == 0:
                going = 0
                quiet = 1
            else:
                count = count + 1
                if back == 0:
                    going = 0
                whole = 1
                if changed <= few:
                    whole = 0
                    if going == 1:
                        for i in range(size):
                            change = room[own, 3, i] - room[own, 0, i]
                            if change != 0.0:
                                for j in range(size):
                                    room[own, 2, j] = room[own, 2, j] + change * couplings[i, j]
                for i in range(size):
                    room[own, 1, i] = room[own, 0, i]
                    room[own, 0, i] = room[own, 3, i]
        steps[b] = count
        still[b] = quiet
        for i in range(size):
            value[b, i] = room[own, 0, i]
