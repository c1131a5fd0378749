"""Dynamic time warping and its nearest neighbour: the baseline that classifiers of series are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.checks import sentence

Series = np.ndarray[Any, np.dtype[np.floating[Any]]]
Distances = np.ndarray[Any, np.dtype[np.float32]]

CELLS = 60_000  # of one anti-diagonal of all pairs that are computed together: what a processor's cache holds


def warping_distances(
    queries: Sequence[Series],
    series: Sequence[Series],
    *,
    cells: int = CELLS,
    on_query: Callable[[int], None] | None = None,
) -> Distances:
    """Squared dynamic time warping distances, full window, all channels warped together ("dependent").

        d_{ij} = |q_i - x_j|^2 + min(d_{i-1,j}, d_{i,j-1}, d_{i-1,j-1})        distance = d_{nm}

    One query is compared with many series at once, anti-diagonal by anti-diagonal, whose entries do not need each other.

    Args:
        queries: (T, D) arrays.
        series: (T, D) arrays; sorted by length inside, so that little is computed in vain.
        cells: entries that are computed together; changes nothing but the time.
        on_query: told after each query.

    Returns:
        (number of queries, number of series).

    Raises:
        ValueError: an empty series, or another number of channels.

    Source:
        Sakoe & Chiba 1978, IEEE Transactions on Acoustics, Speech and Signal Processing 26(1):43-49; "dependent":
        Shokoohi-Yekta et al. 2017, doi:10.1007/s10618-016-0455-0 (both from memory)
    Cost:
        T_q T_x (2 D + 3) operations a pair.
    Example:
        >>> a, b = np.array([[0.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [1.0], [3.0]])
        >>> warping_distances([a], [a, b]).tolist()
        [[0.0, 4.0]]
    """
    for name, given in (("queries", queries), ("series", series)):
        for i, x in enumerate(given):
            if x.ndim != 2 or not len(x) or x.shape[1] != series[0].shape[1]:
                want = f"(T, {series[0].shape[-1]}) with at least one step"
                raise ValueError(sentence("warping_distances", f"{name}[{i}]", want, tuple(x.shape)))
    order = np.argsort([len(x) for x in series], kind="stable")
    found = np.empty((len(queries), len(series)), np.float32)
    for i, query in enumerate(queries):
        query = query.astype(np.float32)
        group = max(1, min(len(series), cells // len(query)))
        for start in range(0, len(order), group):
            places = order[start : start + group]
            found[i, places] = _one_against_many(query, [series[p] for p in places])
        if on_query is not None:
            on_query(i)
    return found


def _one_against_many(query: Series, series: Sequence[Series]) -> Distances:
    """Distances of one series to each of a group. Row i + 1 of ``now`` is cell (i, k - i) of anti-diagonal k."""
    num_rows, num_channels = query.shape
    lengths = np.array([len(x) for x in series])
    longest, num = int(lengths.max()), len(series)
    turned = np.zeros((num_channels, longest, num), np.float32)  # backwards in time: a diagonal is a stretch of it
    for b, x in enumerate(series):
        turned[:, longest - len(x) :, b] = x.T[:, ::-1]
    column = np.ascontiguousarray(query.T)[:, :, None]
    before, last, now = (np.full((num_rows + 1, num), np.inf, np.float32) for _ in range(3))
    before[0] = 0.0  # the corner before the first cell
    cost, best = np.empty((num_rows, num), np.float32), np.empty((num_rows, num), np.float32)
    found = np.empty(num, np.float32)
    ends: dict[int, list[int]] = {}
    for b, length in enumerate(lengths):
        ends.setdefault(num_rows + int(length) - 2, []).append(b)
    for k in range(num_rows + longest - 1):
        low, high = max(0, k - longest + 1), min(num_rows, k + 1)
        size, first = high - low, longest - 1 - k + low
        c, t = cost[:size], best[:size]
        np.subtract(turned[0, first : first + size], column[0, low:high], out=c)
        np.multiply(c, c, out=c)
        for d in range(1, num_channels):
            np.subtract(turned[d, first : first + size], column[d, low:high], out=t)
            np.multiply(t, t, out=t)
            np.add(c, t, out=c)
        np.minimum(last[low:high], last[low + 1 : high + 1], out=t)
        np.minimum(t, before[low:high], out=t)
        np.add(c, t, out=now[low + 1 : high + 1])
        now[low] = np.inf
        now[high + 1 : high + 2] = np.inf
        if k in ends:
            found[ends[k]] = now[num_rows, ends[k]]
        before, last, now = last, now, before
    return found


def nearest_by_warping(
    queries: Sequence[Series], series: Sequence[Series], labels: Sequence[Any], **options: Any
) -> np.ndarray[Any, Any]:
    """The label of each query's nearest series by `warping_distances`: the classical classifier of series.

    Args:
        queries: (T, D) arrays.
        series: (T, D) arrays.
        labels: of the series.
        options: of `warping_distances`.

    Example:
        >>> nearest_by_warping([np.ones((3, 1))], [np.zeros((2, 1)), np.full((5, 1), 0.9)], ["low", "high"]).tolist()
        ['high']
    """
    return np.asarray(labels)[warping_distances(queries, series, **options).argmin(1)]
