"""Windows of series: normalised for the network, and back again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ...core.rule import Chunk
from ...datasets.series import SeriesSet
from ...datasets.timestamps import Step
from ...training.batches import mixed_seed
from . import calendar
from .network import Row, Shape, Target

Array = np.ndarray
MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class Setup:
    """Everything that was decided and found in the training part; plain values.

    Args:
        targets, known, past: names of the columns.
        horizon: H, steps that the network forecasts at once.
        window: L, steps that it reads.
        segment: S, steps that the cell reads at once.
        joint: one row forecasts all variables together; otherwise each variable is a row of its own.
        transform: per variable, "none", "log" or "log1p".
        scaling: "none", "global" or "series".
        means, sds: per variable, for "global", and for "series" where a series is new and short.
        series_scales: name -> [means, sds], for "series".
        covariate_means, covariate_sds: of the known and then the past covariates.
        level: what is taken from each window: "last", "mean", "season" or "none".
        window_scale: what each window is divided by: "std", "change" or "none".
        floor: smallest divisor of a window, in scaled units.
        base: period of the seasonal naive forecast that the network corrects; 0 for none.
        calendar: features of the time.
        step: between neighbours, as [count, unit, month_end]; None without timestamps.
        seasons: [period, strength] of each found season.
        levels: of the quantiles.
    """

    targets: tuple[str, ...]
    known: tuple[str, ...]
    past: tuple[str, ...]
    horizon: int
    window: int
    segment: int
    joint: bool
    transform: tuple[str, ...]
    scaling: str
    means: tuple[float, ...]
    sds: tuple[float, ...]
    series_scales: dict[str, list[list[float]]]
    covariate_means: tuple[float, ...]
    covariate_sds: tuple[float, ...]
    level: str
    window_scale: str
    floor: float
    base: int
    calendar: tuple[str, ...]
    step: list[Any] | None
    seasons: list[list[float]] = field(default_factory=list)
    levels: tuple[float, ...] = ()

    @property
    def time_step(self) -> Step | None:
        """The step as a `Step`."""
        return None if self.step is None else Step(*self.step)

    @property
    def period(self) -> int:
        """Of the first season; 1 if there is none."""
        return int(self.seasons[0][0]) if self.seasons else 1

    @property
    def num_ahead(self) -> int:
        """Covariates known ahead, those of the calendar included."""
        return len(self.known) + 2 * len(self.calendar)

    @property
    def shape(self) -> Shape:
        """Sizes of the network."""
        channels = len(self.targets) if self.joint else 1
        per_step = 2 * channels + len(self.past) + self.num_ahead
        features = self.segment * per_step + (channels if self.window_scale != "none" else 0)
        kinds = 1 if self.joint else len(self.targets)
        return Shape(
            self.window, self.segment, self.horizon, channels, features, self.num_ahead, kinds, 1 + len(self.levels)
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) and name not in ("step", "seasons") else v
            for name, v in values.items()
        }
        found = cls(**given)
        found.check()
        return found

    def check(self) -> None:
        """Raise unless all sizes and numbers fit together, as in every setup that was ever written.

        Raises:
            ValueError: they do not.
        """
        num = len(self.targets)
        sizes = (self.horizon, self.window, self.segment)
        if not all(type(n) is int and 1 <= n <= MOST_STEPS for n in sizes) or self.window % self.segment:
            raise ValueError(f"its horizon, window and segment are {sizes}")
        names = (*self.targets, *self.known, *self.past)
        if not num or not all(isinstance(name, str) for name in names):
            raise ValueError("the names of its columns are no texts")
        for name, allowed in (
            ("scaling", ("none", "global", "series")),
            ("level", ("last", "mean", "season", "none")),
            ("window_scale", ("std", "change", "none")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"its {name} is {getattr(self, name)!r}")
        transforms = isinstance(self.transform, tuple) and len(self.transform) == num
        if not transforms or not set(self.transform) <= {"none", "log", "log1p"} or type(self.joint) is not bool:
            raise ValueError("its transform is none of each variable")
        more = len(self.known) + len(self.past)
        rows: list[tuple[str, Any, int]] = [("means", self.means, num), ("sds", self.sds, num)]
        rows += [("covariate_means", self.covariate_means, more), ("covariate_sds", self.covariate_sds, more)]
        rows += [(f"scale of {name!r}", row, num) for name, both in self.series_scales.items() for row in _two(both)]
        rows += [("levels", self.levels, len(self.levels)), ("floor", (self.floor,), 1)]
        rows += [("seasons", season, 2) for season in self.seasons]
        for name, row, size in rows:
            fine = isinstance(row, list | tuple) and len(row) == size
            if not fine or not all(isinstance(v, int | float) and abs(v) < np.inf for v in row):
                raise ValueError(f"its {name} is no list of {size} numbers")
        if min((*self.sds, *self.covariate_sds, 1.0)) <= 0 or any(s[0] < 1 for s in self.seasons):
            raise ValueError("its sds or seasons are not above 0")
        if type(self.base) is not int or not 0 <= self.base <= self.window:
            raise ValueError(f"its base is {self.base!r}")
        if not set(self.calendar) <= set(calendar.CYCLES) or (self.calendar and self.step is None):
            raise ValueError(f"its calendar is {self.calendar!r}")
        step = self.step
        if step is not None and not (
            len(step) == 3 and type(step[0]) is int and step[0] > 0 and step[1] in ("s", "M", "B")
        ):
            raise ValueError(f"its step is {step!r}")

    # --- values ---

    def scales_of(self, name: str, transformed: Array) -> tuple[Array, Array]:
        """Means and standard deviations (C,) of a series: those found while training, else its own."""
        if self.scaling == "none":
            return np.zeros(len(self.targets)), np.ones(len(self.targets))
        if self.scaling == "series":
            if name in self.series_scales:
                means, sds = self.series_scales[name]
                return np.array(means), np.array(sds)
            if np.isfinite(transformed).any(0).all() and len(transformed) >= 2:
                return moments(transformed, np.array(self.means), np.array(self.sds))
        return np.array(self.means), np.array(self.sds)

    def transformed(self, values: Array) -> Array:
        """(T, C) through the logarithm where it applies; what has none is missing."""
        out = np.array(values, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            for c, kind in enumerate(self.transform):
                if kind == "log":
                    out[:, c] = np.where(out[:, c] > 0, np.log(out[:, c]), np.nan)
                elif kind == "log1p":
                    out[:, c] = np.where(out[:, c] >= 0, np.log1p(out[:, c]), np.nan)
        return out

    def back(self, values: Array) -> Array:
        """The inverse of `transformed`, (..., C, outputs)."""
        out = np.array(values, dtype=np.float64)
        for c, kind in enumerate(self.transform):
            if kind == "log":
                out[..., c, :] = np.exp(np.clip(out[..., c, :], -700, 700))
            elif kind == "log1p":
                out[..., c, :] = np.expm1(np.clip(out[..., c, :], 0, 700))
        return out


def _two(both: Any) -> Any:
    """The means and the standard deviations of a series."""
    if not isinstance(both, list) or len(both) != 2 or not isinstance(both[1], list):
        raise ValueError("its series_scales are no pairs of lists")
    if any(isinstance(sd, int | float) and sd <= 0 for sd in both[1]):
        raise ValueError("its series_scales are not above 0")
    return both


def moments(values: Array, means: Array, sds: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column (T, C); the given ones where there are no values, and where none changes
    the size of the value, at most 1."""
    there = np.isfinite(values)
    count = there.sum(0)
    clean = np.where(there, values, 0.0)
    mean = np.where(count > 0, clean.sum(0) / np.maximum(count, 1), means)
    var = (np.where(there, values - mean, 0.0) ** 2).sum(0) / np.maximum(count, 1)
    sd = np.where(count > 1, np.sqrt(var), sds)
    size = np.abs(mean)
    return mean, np.where(sd > 1e-12 * size, sd, np.where(size > 0, np.minimum(size, 1.0), 1.0))


class Normal(NamedTuple):
    """How windows were normalised: value = normalised * scale + level (+ base before); all (rows, 1 or H, channels)."""

    level: Array
    scale: Array
    base: Array


class Prepared:
    """Series that are scaled and laid out so that any windows of them are one look-up.

    Args:
        setup: what was decided.
        series: of the setup's columns.
    """

    def __init__(self, setup: Setup, series: SeriesSet) -> None:
        self.setup, self.series = setup, series
        shape = setup.shape
        before, after = setup.window, max(shape.num_future * setup.segment, setup.horizon)
        sizes = series.lengths + before + after
        self.start = np.concatenate([[0], np.cumsum(sizes)[:-1]]) + before
        self.length = series.lengths
        channels = len(setup.targets)
        self.values = np.full((int(sizes.sum()), channels), np.nan)
        self.ahead = np.zeros((len(self.values), setup.num_ahead), dtype=np.float32)
        self.past = np.zeros((len(self.values), len(setup.past)), dtype=np.float32)
        self.means, self.sds = np.zeros((len(series), channels)), np.ones((len(series), channels))
        num_known = len(setup.known)
        means, sds = np.array(setup.covariate_means), np.array(setup.covariate_sds)
        for i, (a, name, values) in enumerate(zip(self.start, series.names, series.values)):
            transformed = setup.transformed(values)
            self.means[i], self.sds[i] = setup.scales_of(name, transformed)
            self.values[a : a + len(values)] = (transformed - self.means[i]) / self.sds[i]
            if num_known:
                known = series.known[i][: len(values) + after]
                self.ahead[a : a + len(known), :num_known] = _standard(known, means[:num_known], sds[:num_known])
            if len(setup.past):
                past = series.past[i]
                self.past[a : a + len(past)] = _standard(past, means[num_known:], sds[num_known:])
            if setup.calendar and series.times is not None and series.step is not None:
                times = series.times[i]
                missing = len(values) + after - len(times)
                if missing > 0:
                    times = np.concatenate([times, series.step.after(times[-1], missing)])
                found = calendar.features(times[: len(values) + after], setup.calendar)
                self.ahead[a : a + len(found), num_known:] = found

    def gather(self, which: Array, ends: Array, device: torch.device | str = "cpu") -> tuple[Row, Target, Normal]:
        """Windows of the series ``which`` (B,) that end before the steps ``ends`` (B,), and what comes after.

        Rows are windows, or windows times variables if each variable is a row of its own (variables vary fastest).
        """
        setup, shape = self.setup, self.setup.shape
        length, horizon, size = setup.window, setup.horizon, setup.segment
        at = (self.start[which] + ends)[:, None]
        values = self.values[at + np.arange(-length, 0)]  # (B, L, C)
        come = self.values[at + np.arange(horizon)]  # (B, H, C)
        num = len(which)
        if not setup.joint:
            values, come = (np.moveaxis(v, 2, 1).reshape(num * v.shape[2], v.shape[1], 1) for v in (values, come))
        level, scale = _normal(values, setup)
        there = ~np.isnan(values)
        x = np.where(there, (values - level) / scale, 0.0)
        base = _seasonal(x, there, setup.base, horizon)
        rows, count = x.shape[0], length // size
        copies = rows // num
        parts = [x.reshape(rows, count, -1), there.reshape(rows, count, -1).astype(np.float64)]
        if setup.window_scale != "none":
            parts.append(np.broadcast_to(np.log(scale / setup.floor), (rows, 1, scale.shape[2])).repeat(count, 1) * 0.3)
        if setup.past:
            past = self.past[at + np.arange(-length, 0)].reshape(num, count, -1)
            parts.append(past.repeat(copies, 0))
        future = np.zeros((shape.num_future, rows, 0), dtype=np.float32)
        if setup.num_ahead:
            known = self.ahead[at + np.arange(-length, 0)].reshape(num, count, -1)
            parts.append(known.repeat(copies, 0))
            ahead = self.ahead[at + np.arange(shape.num_future * size)].reshape(num, shape.num_future, -1)
            future = ahead.repeat(copies, 0).transpose(1, 0, 2)
        segments = np.concatenate(parts, axis=2).transpose(1, 0, 2)
        kind = np.tile(np.arange(copies), num)[None]
        row = Row(
            _tensor(segments, device),
            _tensor(x.transpose(1, 0, 2), device),
            _tensor(future, device),
            torch.as_tensor(kind, device=device),
        )
        came = ~np.isnan(come)
        value = np.where(came, (come - level) / scale - base, 0.0)
        weight = np.where(came, scale, 0.0)
        return row, Target(_tensor(value[None], device), _tensor(weight[None], device)), Normal(level, scale, base)

    def restore(self, ys: Array, normal: Normal, which: Array) -> Array:
        """Forecasts in the units of the data, (B, H, C, outputs), from normalised ones (rows, H, channels, outputs)."""
        out = (ys + normal.base[..., None]) * normal.scale[..., None] + normal.level[..., None]
        if not self.setup.joint:
            channels = len(self.setup.targets)
            out = np.moveaxis(out[:, :, 0].reshape(-1, channels, *out.shape[1:2], out.shape[3]), 1, 2)
        out = out * self.sds[which][:, None, :, None] + self.means[which][:, None, :, None]
        return self.setup.back(out)


def _standard(values: Array, means: Array, sds: Array) -> Array:
    """Standardised, 0 where missing."""
    out = (values - means) / sds
    return np.where(np.isfinite(out), out, 0.0)


def _tensor(values: Array, device: torch.device | str) -> Tensor:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is noticed behind the net
        return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32), device=device)


def _normal(values: Array, setup: Setup) -> tuple[Array, Array]:
    """Level and scale (rows, 1, channels) of windows (rows, L, channels)."""
    there = ~np.isnan(values)
    clean = np.where(there, values, 0.0)
    count = there.sum(1, keepdims=True)
    mean = clean.sum(1, keepdims=True) / np.maximum(count, 1)
    level = np.zeros_like(mean)
    if setup.level == "mean":
        level = mean
    elif setup.level == "season":
        recent = slice(-max(1, min(setup.period, values.shape[1])), None)
        number = there[:, recent].sum(1, keepdims=True)
        level = np.where(number > 0, clean[:, recent].sum(1, keepdims=True) / np.maximum(number, 1), mean)
    elif setup.level == "last":
        last = values.shape[1] - 1 - there[:, ::-1].argmax(1)[:, None]
        level = np.take_along_axis(clean, last, 1)
    scale = np.ones_like(mean)
    if setup.window_scale == "std":
        spread = np.where(there, values - mean, 0.0)
        scale = np.sqrt((spread**2).sum(1, keepdims=True) / np.maximum(count, 1)) + setup.floor
    elif setup.window_scale == "change":
        both = there[:, 1:] & there[:, :-1]
        change = np.where(both, np.abs(np.diff(clean, axis=1)), 0.0)
        scale = 4 * change.sum(1, keepdims=True) / np.maximum(both.sum(1, keepdims=True), 1) + setup.floor
    return level, scale


def _seasonal(x: Array, there: Array, period: int, horizon: int) -> Array:
    """The seasonal naive forecast (rows, H, channels) of normalised windows; 0 where nothing is known."""
    if not period:
        return np.zeros((x.shape[0], 1, x.shape[2]))
    found, known = x[:, -period:].copy(), there[:, -period:].copy()
    for k in range(2, x.shape[1] // period + 1):
        earlier = slice(x.shape[1] - k * period, x.shape[1] - (k - 1) * period)
        fill = ~known & there[:, earlier]
        found = np.where(fill, x[:, earlier], found)
        known |= fill
    return found[:, np.arange(horizon) % period]


def ends_of(prepared: Prepared, first: Sequence[int], last: Sequence[int], stride: int = 1) -> tuple[Array, Array]:
    """Series and ends of all windows with ``first[i] <= end <= last[i]``, some value in them and some value after."""
    which, ends = [], []
    for i, (a, b) in enumerate(zip(first, last)):
        if b < a:
            continue
        e = np.arange(b, a - 1, -stride)[::-1]
        there = ~np.isnan(prepared.values[prepared.start[i] - 0 : prepared.start[i] + prepared.length[i]]).all(1)
        seen = np.concatenate([[0], np.cumsum(there)])
        low = np.maximum(e - prepared.setup.window, 0)
        high = np.minimum(e + prepared.setup.horizon, len(there))
        e = e[(seen[e] > seen[low]) & (seen[high] > seen[e])]
        which.append(np.full(len(e), i))
        ends.append(e)
    if not which:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    return np.concatenate(which), np.concatenate(ends)


class Windows:
    """Training windows in batches; every epoch is a function of (seed, epoch).

    With several series, each batch draws series with equal chances and then a window of it, so that a short series counts
    as much as a long one; with one series, an epoch goes through its windows in a new order.

    Args:
        prepared: the training part.
        which, ends: all windows, sorted by series.
        batch_size: windows per update.
        num_batches: per epoch.
        seed: of the order.
        device: where batches go.
        num_steps: repeat the target for so many steps and weigh the last one, for rules that need a plain cell; 0 hands
            out a `Row`.
    """

    carries = False

    def __init__(
        self,
        prepared: Prepared,
        which: Array,
        ends: Array,
        batch_size: int,
        num_batches: int,
        seed: int,
        device: torch.device | str = "cpu",
        num_steps: int = 0,
    ) -> None:
        self.prepared, self.which, self.ends = prepared, which, ends
        self.batch_size, self.num_batches, self.seed = batch_size, num_batches, seed
        self.device, self.num_steps = device, num_steps
        self.first = np.flatnonzero(np.diff(which, prepend=-1))
        self.counts = np.diff(np.append(self.first, len(which)))

    def __len__(self) -> int:
        return self.num_batches

    def epoch(self, index: int) -> Iterator[Chunk]:
        """The batches of one epoch."""
        random = np.random.default_rng(mixed_seed(self.seed, index))
        need = self.num_batches * self.batch_size
        if len(self.first) > 1:
            member = random.integers(0, len(self.first), need)
            order = self.first[member] + (random.random(need) * self.counts[member]).astype(int)
        else:
            rounds = -(-need // len(self.which))
            order = np.concatenate([random.permutation(len(self.which)) for _ in range(rounds)])[:need]
        for a in range(0, need, self.batch_size):
            yield self.chunk(order[a : a + self.batch_size])

    def __iter__(self) -> Iterator[Chunk]:
        return self.epoch(0)

    def chunk(self, places: Array) -> Chunk:
        """The windows at these places."""
        row, target, _ = self.prepared.gather(self.which[places], self.ends[places], self.device)
        there = (target.weight > 0).flatten(2).any(2).to(target.value.dtype)  # (1, B)
        if not self.num_steps:
            return Chunk(row, target, there)
        steps = self.num_steps
        weights = torch.cat([there.new_zeros(steps - 1, there.shape[1]), there])
        return Chunk(row.segments, Target(*(t.expand(steps, *t.shape[1:]) for t in target)), weights)
