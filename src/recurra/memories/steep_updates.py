"""How units of a dense associative memory move, one after the other, in machine code."""

from __future__ import annotations

from ..native.loops import compiled, f64_1d, i8_2d, i32_2d, i64_1d, num_threads, thread


@compiled
def relax_steep(
    columns: i8_2d,
    order: i64_1d,
    table: f64_1d,
    from_top: int,
    overlaps: i32_2d,
    spins: i8_2d,
    steps: i64_1d,
    still: i64_1d,
    max_sweeps: int,
) -> None:
    """Units take turns and follow the sign of their pull, the sum of xi f(m - xi s) over the patterns, until none changes.

    Args:
        columns: (N, M) unit i of every pattern in row i.
        order: (N,) the turns.
        table: (2 N + 3,) f of -N - 1, ..., N + 1; or, from the top, f of how far below the largest overlap plus 1.
        from_top: 1 if the table counts from the top, which keeps an exponential in range.
        overlaps: (B, M) m of the spins; changed with them.
        spins: (B, N) -1 or +1, 0 where it is not known; changed in place.
        steps: (B,) takes the number of sweeps in which something changed.
        still: (B,) takes 1 where a sweep changed nothing.
        max_sweeps: most sweeps.
    """
    size = columns.shape[0]
    num_patterns = columns.shape[1]
    rows = spins.shape[0]
    for b in range(rows * thread() // num_threads(), rows * (thread() + 1) // num_threads()):
        top = -size
        for p in range(num_patterns):
            top = max(top, overlaps[b, p])
        moved = 1
        sweep = 0
        while moved > 0 and sweep < max_sweeps:
            moved = 0
            for turn in range(size):
                unit = order[turn]
                old = spins[b, unit]
                pull = 0.0
                if from_top > 0:
                    for p in range(num_patterns):
                        letter = columns[unit, p]
                        pull += float(letter) * table[top + 1 - overlaps[b, p] + letter * old]
                else:
                    for p in range(num_patterns):
                        letter = columns[unit, p]
                        pull += float(letter) * table[size + 1 + overlaps[b, p] - letter * old]
                new = old
                if pull > 0.0:
                    new = 1
                if pull < 0.0:
                    new = -1
                if new != old:
                    moved = moved + 1
                    spins[b, unit] = new
                    change = new - old
                    top = -size
                    for p in range(num_patterns):
                        overlap = overlaps[b, p] + change * columns[unit, p]
                        overlaps[b, p] = overlap
                        top = max(top, overlap)
            sweep = sweep + 1
            if moved > 0:
                steps[b] = steps[b] + 1
        if moved == 0:
            still[b] = 1
