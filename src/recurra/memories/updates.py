"""+-1 units that are updated one after the other: the loops.

Fields are kept up to date: to ask a unit costs one comparison, to change it N additions. Rows are independent of each other
and are split over the threads.
"""

from __future__ import annotations

import math

from ..native.loops import compiled, f32_2d, f64_1d, f64_2d, i8_2d, i64_1d, i64_2d, num_threads, thread


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
