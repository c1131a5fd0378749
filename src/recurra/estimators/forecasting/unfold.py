"""Horizons longer than the network's: its forecasts become its input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...datasets.series import SeriesSet
from .windows import Prepared

if TYPE_CHECKING:
    from ..forecaster import Forecaster

Array = np.ndarray


def unfold(model: Forecaster, series: SeriesSet, horizon: int) -> tuple[Array, Array]:
    """Block after block, each forecast becoming input of the next; quantiles are those of drawn futures."""
    setup = model.setup_
    random = np.random.default_rng(model.seed)
    levels = np.array(model.quantiles)
    keep = setup.window + 2 * setup.period

    def run(start: SeriesSet, noisy: bool) -> Array:
        """(N, horizon, C)."""
        values, blocks, done = [v.copy() for v in start.values], [], 0
        while done < horizon:
            now = replace(
                start,
                values=tuple(values),
                past=tuple(_longer(p, len(v)) for p, v in zip(start.past, values)),
            )
            outputs = model._outputs(Prepared(setup, now), np.arange(len(now)), now.lengths)
            point, quantiles = model._split(outputs)
            block = _draw(quantiles, levels, random) if noisy else point
            blocks.append(block)
            values = [np.concatenate([v, b]) for v, b in zip(values, block)]
            done += block.shape[1]
        return np.concatenate(blocks, 1)[:, :horizon]

    tails, offsets = [], []
    for v in series.values:
        offsets.append(max(0, len(v) - keep))
        tails.append(v[offsets[-1] :])
    start = replace(
        series,
        values=tuple(tails),
        known=tuple(k[a:] for k, a in zip(series.known, offsets)),
        past=tuple(p[a:] for p, a in zip(series.past, offsets)),
        times=None if series.times is None else tuple(t[a:] for t, a in zip(series.times, offsets)),
    )
    point = run(start, noisy=False)
    if not len(levels):
        return point, np.zeros((*point.shape, 0))
    quantiles = np.zeros((*point.shape, len(levels)))
    group = max(1, 2_000 // model.num_paths)
    for a in range(0, len(series), group):
        some = list(range(a, min(a + group, len(series))))
        paths = run(start.pick([i for i in some for _ in range(model.num_paths)]), noisy=len(levels) > 1)
        paths = paths.reshape(len(some), model.num_paths, *point.shape[1:])
        quantiles[some] = np.moveaxis(np.quantile(paths, levels, axis=1), 0, -1)
    return point, quantiles


def _longer(values: Array, length: int) -> Array:
    """More rows of missing values at the end."""
    missing = length - len(values)
    return np.concatenate([values, np.full((missing, values.shape[1]), np.nan)]) if missing > 0 else values


def _draw(quantiles: Array, levels: Array, random: np.random.Generator) -> Array:
    """One future (N, H, C) from quantiles (N, H, C, Q): each row takes one level for its whole block, by straight lines
    between the quantiles and beyond the outer ones."""
    u = random.uniform(0.02, 0.98, len(quantiles))
    place = np.clip(np.searchsorted(levels, u), 1, len(levels) - 1)
    part = (u - levels[place - 1]) / (levels[place] - levels[place - 1])
    rows = np.arange(len(quantiles))
    low = quantiles[rows, :, :, place - 1]
    return low + part[:, None, None] * (quantiles[rows, :, :, place] - low)
