"""A forecaster: from series to a model in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from ..core.cell import Cell
from ..core.checks import check_choice, check_flag, check_positive, check_probability, sentence
from ..core.engine import Engine
from ..core.rule import LearningRule
from ..core.spec import Leaf
from ..datasets.series import SeriesSet
from ..engines import unroll
from ..training import TrainProgress
from .estimator import Estimator
from .forecasting.backtest import Backtest, backtest
from .forecasting.decide import decide, held_out_note
from .forecasting.evaluation import evaluate_at
from .forecasting.forecast import Forecast
from .forecasting.inputs import UNNAMED, as_series, check_sizes, series_from_json, series_to_json
from .forecasting.network import ForecastLoss, Member, Nets, Row, as_cell
from .forecasting.unfold import unfold
from .forecasting.windows import Prepared, Setup, Windows, ends_of
from .named import Named, check_layer, named

WHERE = "Forecaster"
MAX_CONTEXT = 3_000_000
MAX_VALIDATION_ROWS = 2_048
MAX_WINDOWS = 4_000_000
BATCH_ROWS = 1_024
MOST_AHEAD = 1_000_000
MOST_WEIGHTS = 300_000_000
MOST_JOINT = 100_000
Array = np.ndarray


class Forecaster(Estimator):
    """Forecasts one or many series, several variables, with covariates, missing values and uneven lengths.

    A window of the last L values is normalised (for example less its last value, divided by its spread) and cut into
    segments of S steps. A recurrent cell reads them; from its last state all H future steps are read out at once, beside a
    linear map of the window. One net serves all series. Quantiles come with the point forecasts.

        x = (window - level) / scale        s = cell over segments of x        f = (readout(s) + A x) scale + level

    What is not given is decided from the training part of the data and told in ``notes_``: the season, the window, the
    logarithm, the normalisation, the features of the calendar, what is held out. Scalers are fitted to the training part only.

    Args:
        horizon: H, steps to forecast; None: one season, or a tenth of the series, at most 12.
        target, time, series, known, past: columns of a table, see `recurra.datasets.series.series_of`: what to forecast,
            the timestamps, which series a row belongs to, covariates known ahead, covariates known for the past only. None
            finds the first three.
        window: L, steps that are read; None decides.
        segment: S, steps that the cell reads at once; None decides, 1 is step by step.
        quantiles: levels of the quantiles, ascending; () for points only.
        loss: of the point: "mae" (the median), "mse" (the mean) or "huber".
        horizons: "direct": all H steps at once; "recursive": one segment at a time, each forecast becoming input of the
            next; quantiles are then those of ``num_paths`` drawn futures.
        variables: "separate": each variable is forecast from its own past by shared weights and a vector of its own;
            "joint": from the past of all.
        transform: "log" or "log1p" of the values, "none", or "auto".
        scaling: before anything else, by mean and standard deviation of the training part: of each "series", "global" over
            all, "none", or "auto".
        level: what is taken from each window: "last", "mean", the mean of the last "season", "none", or "auto".
        window_scale: what each window is divided by: "std", the mean "change" from step to step, "none", or "auto".
        base: "season": the net corrects the seasonal naive forecast (seasonal differencing); "none"; or "auto".
        season: its period in steps; None finds it, 1 for none.
        calendar: features of the time: some of "hour", "weekday", "season"; or "auto".
        decoder: "segments": one step of the cell for each future segment; "direct": one readout; or "auto".
        linear: with the linear map of the window or without.
        cell: any cell that is built from (input_size, hidden_size), with options if wanted: ``"LSTMCell(peephole=True)"``.
        hidden_size: units per layer.
        num_layers: cells on top of each other.
        dropout: of what is read out, and between layers.
        num_members: nets from different first weights that learn side by side; the median of them counts.
        rule: learning rule, with options if wanted. Rules that need a plain cell get one: no linear map, direct readout.
        engine: how to run the cell, with options if wanted.
        validation: steps at the end of each series that decide when the weights are best, and that the honest measures in
            ``evaluation_`` are made on: a number, a part (0.1), "auto" (the horizon, or a tenth of a single series), or
            None to learn from everything.
        calibrate: shift the quantiles so that they hold on the validation part; ``evaluation_`` tells the coverage of each
            half of it after a shift by the other half.
        batch_size: windows (times separate variables) per update.
        updates_per_epoch: None decides: once through the windows, but 25 to 200 updates.
        num_paths: drawn futures where a forecast becomes input.
        num_epochs, num_updates, budget_minutes, max_epochs, lr, lr_decay, warmup_updates, optimizer, beta2, weight_decay,
            clip_norm, weight_average, num_validations, patience, precision, checkpoint_seconds: see
            `recurra.training.TrainSettings`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        seed: of the weights, the windows' order and the noise.
    Raises:
        ValueError: from `fit`: an argument out of range, data that are too short or hold no values.
        FloatingPointError: from `fit`: the loss is no longer finite.
    Source:
        Global nets on normalised windows: Smyl 2020, International Journal of Forecasting 36(1):75-85; normalisation per
        window: Kim et al. 2022, ICLR (RevIN); segments: Lin et al. 2023, arXiv:2308.11200 (all from memory)
    Cost:
        For a GRU about 6 H_u^2 (L / S + H / S) multiplications per window and net, H_u being ``hidden_size``.
    Example:
        >>> t = np.arange(200)
        >>> wave = np.sin(2 * np.pi * t / 12) + 0.01 * t
        >>> model = Forecaster(horizon=12, hidden_size=8, num_updates=40, lr=0.01).fit(wave[:188])
        >>> model.predict().shape, model.season_
        ((12,), 12)
        >>> model.score(wave) > 0
        True
    """

    kind: ClassVar[str] = "forecaster"

    def __init__(
        self,
        horizon: int | None = None,
        target: str | Sequence[str] | None = None,
        time: str | None = None,
        series: str | None = None,
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        window: int | None = None,
        segment: int | None = None,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        loss: str = "mae",
        horizons: str = "direct",
        variables: str = "separate",
        transform: str = "auto",
        scaling: str = "auto",
        level: str = "auto",
        window_scale: str = "auto",
        base: str = "auto",
        season: int | None = None,
        calendar: str | Sequence[str] = "auto",
        decoder: str = "auto",
        linear: bool = True,
        cell: str = "GRUCell",
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.1,
        num_members: int = 1,
        rule: str = "BPTT",
        engine: str = "Auto",
        validation: int | float | str | None = "auto",
        calibrate: bool = True,
        batch_size: int = 128,
        updates_per_epoch: int | None = None,
        num_paths: int = 100,
        num_epochs: int | None = None,
        num_updates: int | None = None,
        budget_minutes: float | None = None,
        max_epochs: int = 50,
        lr: float = 2e-3,
        lr_decay: str = "linear",
        warmup_updates: int = 50,
        optimizer: str = "AdamW",
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        weight_average: float = 0.98,
        num_validations: int = 10,
        patience: int | None = None,
        precision: str = "float32",
        checkpoint_seconds: float = 60.0,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.horizon = horizon
        self.target = target
        self.time = time
        self.series = series
        self.known = known
        self.past = past
        self.window = window
        self.segment = segment
        self.quantiles = quantiles
        self.loss = loss
        self.horizons = horizons
        self.variables = variables
        self.transform = transform
        self.scaling = scaling
        self.level = level
        self.window_scale = window_scale
        self.base = base
        self.season = season
        self.calendar = calendar
        self.decoder = decoder
        self.linear = linear
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.num_members = num_members
        self.rule = rule
        self.engine = engine
        self.validation = validation
        self.calibrate = calibrate
        self.batch_size = batch_size
        self.updates_per_epoch = updates_per_epoch
        self.num_paths = num_paths
        self.num_epochs = num_epochs
        self.num_updates = num_updates
        self.budget_minutes = budget_minutes
        self.max_epochs = max_epochs
        self.lr = lr
        self.lr_decay = lr_decay
        self.warmup_updates = warmup_updates
        self.optimizer = optimizer
        self.beta2 = beta2
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.weight_average = weight_average
        self.num_validations = num_validations
        self.patience = patience
        self.precision = precision
        self.checkpoint_seconds = checkpoint_seconds
        self.device = device
        self.seed = seed

    # --- using a model ---

    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        known: Any = None,
        past: Any = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        on_progress: Callable[[TrainProgress], bool | None] | None = None,
    ) -> Self:
        """Learn from series.

        Args:
            data: an array (T,) or (T, C), a list or dict of such arrays, a pandas frame or series, the path of a table, a
                `Table` or a `SeriesSet`. NaN is missing.
            y: ignored; scikit-learn's signature has it.
            known: covariates known ahead beside arrays, (T + F, K), lists or dicts like ``data``; what is missing in them
                counts as the column's mean.
            past: covariates of the past beside arrays, (T, U).
            folder: for the run: checkpoints, measures, and in the end the model.
            resume: go on with the run in ``folder``.
            on_progress: told before the first update and after each; True stops the run.

        Returns:
            The model itself. It now has ``notes_`` (what was found, repaired and decided), ``season_``, ``horizon_``,
            ``window_``, ``setup_``, ``evaluation_`` (measures on the validation part beside seasonal naive, if there is
            one), ``network_``, ``plan_``, ``history_`` and ``record_``.
        """
        self._check_arguments()
        self._check_folder(folder, resume)
        found, self._form = self.read(data, known, past)
        self._check_columns(known, past)
        if self.variables == "joint" and len(found.targets) > MOST_JOINT:
            got = f"'joint' for {len(found.targets):,}"
            raise ValueError(sentence(WHERE, "variables", f"'separate' for more than {MOST_JOINT:,} of them", got))
        fingerprint = _fingerprint(found)
        if self._already_there(folder, resume, fingerprint):
            return self
        notes = list(found.notes)
        gone = sum(int(np.isnan(values).sum()) for values in (*found.known, *found.past))
        if gone:
            notes.append(f"{gone:,} values of covariates are missing: they count as the means of their columns.")
        setup, kept = decide(self, found, notes)
        notes.append(held_out_note(self, kept))
        horizon = setup.horizon
        if self.horizons == "recursive":
            setup = self._one_segment(setup, notes)
        train = found.cut((found.lengths - kept).tolist())
        self._take(setup, notes, horizon)
        self._context = series_to_json(found, self._context_steps(found))
        prepared = Prepared(setup, train)
        which, ends = self._training_windows(prepared)
        seen = int((prepared.length[which] - ends).max())
        if seen < setup.horizon:
            self.notes_.append(
                f"No series is long enough to show all {setup.horizon} steps of the horizon: what is forecast for more than "
                f"{seen} steps ahead was never learned."
            )
        self._build()
        batch = max(1, self.batch_size // (1 if setup.joint else len(setup.targets)))
        batch = min(batch, max(8, len(which)))
        updates = self.updates_per_epoch or min(max(25, -(-len(which) // batch)), 200)
        steps = 0 if isinstance(self.network_, Nets) else setup.window // setup.segment
        data_ = Windows(prepared, which, ends, batch, updates, self.seed, self._device(), steps)
        rows = self._validation_rows(setup, found, kept)
        loss = ForecastLoss(self.loss, setup.levels)
        self._train(
            data_,
            loss,
            rule=self._rule(),
            validate=None if rows is None else (lambda module: {"loss": self._validation_loss(module, rows, loss)}),
            on_progress=on_progress,
            folder=folder,
            resume=resume,
            fingerprint=fingerprint,
            plan={"notes": list(self.notes_), "num_windows": len(which), "windows_per_update": batch},
        )
        self.offsets_ = [0.0] * len(setup.levels)
        self.evaluation_: dict[str, Any] = {}
        if rows is not None:
            self.evaluation_ = evaluate_at(self, rows[0].series, rows[1], rows[2])
            if self.calibrate and self.horizons == "direct" and setup.levels:
                self.evaluation_.update(self._cross_calibrated(*rows))
                self.offsets_ = self._offsets(rows)
        self._finish_folder(folder)
        return self

    def predict(self, data: Any = None, horizon: int | None = None, *, known: Any = None, past: Any = None) -> Any:
        """Forecast what comes after the data.

        Args:
            data: series to go on from, in any form that `fit` takes, with the same variables; None: the training data. They
                may be other series than those of the training.
            horizon: steps; None: those of the training. More are made by taking forecasts as input.
            known: covariates beside arrays, at least ``horizon`` steps longer than the data.
            past: covariates of the past beside arrays.

        Returns:
            Points in the form of the data: (H,) for (T,), (H, C) for (T, C), (N, H) or (N, H, C) for lists and dicts, a
            frame with times for frames (one row per time; for several series as `Forecast.to_frame`), a `Forecast` for
            tables and series sets.
        """
        found, form = self._read_again(data, known, past)
        forecast = self._forecast(found, horizon)
        if form == "set":
            return forecast
        if form == "frame":
            return forecast.to_frame()
        if form == "wide":
            import pandas as pd

            index = None if forecast.times is None else pd.DatetimeIndex(forecast.times[0].astype("datetime64[ns]"))
            return pd.DataFrame(forecast.point[0], index=index, columns=list(forecast.targets))
        point = forecast.point[..., 0] if len(forecast.targets) == 1 and form != "matrix" else forecast.point
        return point if form == "list" else point[0]

    def forecast(
        self, data: Any = None, horizon: int | None = None, *, known: Any = None, past: Any = None
    ) -> Forecast:
        """As `predict`, but always a `Forecast`: points, quantiles and times."""
        return self._forecast(self._read_again(data, known, past)[0], horizon)

    def score(self, data: Any, y: Any = None, *, known: Any = None, past: Any = None) -> float:
        """How much better than the seasonal naive forecast: 1 is perfect, 0 is as good, below 0 is worse.

            1 - MASE(model) / MASE(seasonal naive),    over the last H steps of each series

        Args:
            data: series that end with what is to be forecast, not seen in training.
            y: ignored.
            known, past: covariates beside arrays.
        """
        measured = self.evaluate(data, known=known, past=past)
        naive = measured["seasonal_naive"]["mae"]
        return 1 - measured["mae"] / naive if naive > 0 else float("nan")

    def evaluate(
        self, data: Any, *, known: Any = None, past: Any = None, start: int | None = None, stride: int = 1
    ) -> dict[str, Any]:
        """Measure forecasts of the ends of series.

        Args:
            data: series that hold what is to be forecast.
            known, past: covariates beside arrays.
            start: the first step that is forecast, from 1; forecasts then begin at every ``stride``-th step from there on.
                None: one forecast per series, of its last H steps.
            stride: steps between the beginnings of forecasts.

        Returns:
            ``smape``, ``mase``, ``rmse``, ``mae``; ``pinball`` and ``coverage`` with quantiles; ``num_forecasts``; and
            ``seasonal_naive``: the same of that forecast.
        """
        found = self._read_again(data, known, past)[0]
        check_positive(WHERE, stride=stride, **({} if start is None else {"start": start}))
        if start is None:
            chosen = [(i, n - self.horizon_) for i, n in enumerate(found.lengths) if n > self.horizon_]
        else:
            chosen = [(i, e) for i, n in enumerate(found.lengths) for e in range(start, n - self.horizon_ + 1, stride)]
        if not chosen:
            want = f"a series longer than the horizon, {self.horizon_}"
            raise ValueError(sentence(WHERE, "data", want, int(found.lengths.max())))
        which, ends = (np.array(v) for v in zip(*chosen))
        return evaluate_at(self, found, which, ends)

    def backtest(self, data: Any, **options: Any) -> Backtest:
        """Forecasts of the past from rolling origins beside baselines; see `recurra.estimators.forecasting.backtest`."""
        return backtest(self, data, **options)

    def read(self, data: Any, known: Any = None, past: Any = None) -> tuple[SeriesSet, str]:
        """The series in ``data`` by this model's column arguments, and the form of the data."""
        found = as_series(
            data,
            known,
            past,
            target=self.target,
            time=self.time,
            series=self.series,
            known_columns=tuple(self.known),
            past_columns=tuple(self.past),
        )
        check_sizes(found[0])
        return found

    def forecast_at(self, series: SeriesSet, which: Array, ends: Array) -> tuple[Array, Array]:
        """Points (B, H, C) and quantiles (B, H, C, Q) of the series ``which`` (B,) from the steps ``ends`` (B,) on."""
        if self.setup_.horizon == self.horizon_:
            return self._split(self._outputs(Prepared(self.setup_, series), which, ends))
        found = [self._forecast(series.pick([i]).cut([e]), self.horizon_) for i, e in zip(which, ends)]
        return np.concatenate([f.point for f in found]), np.concatenate([f.quantiles for f in found])

    # --- for backtests ---

    def copy_for(self, series: SeriesSet, horizon: int | None = None) -> Forecaster:
        """An unfitted copy whose column arguments do not matter any more."""
        more = {} if horizon is None else {"horizon": horizon}
        return type(self)(**{**self.get_params(), **more})

    def horizon_or_default(self, series: SeriesSet) -> int:
        """The horizon that `fit` would take."""
        return self.horizon or decide(self, series, [])[0].horizon

    def period_of(self, series: SeriesSet) -> int:
        """The found period, or the one that `fit` would find; 1 for none."""
        if hasattr(self, "setup_"):
            return self.setup_.period
        return self.season or decide(self, series, [])[0].period

    # --- inside: arguments ---

    def _check_arguments(self) -> None:
        super()._check_arguments()
        sizes = ("hidden_size", "num_layers", "num_members", "batch_size", "num_paths")
        check_positive(WHERE, **{name: getattr(self, name) for name in sizes})
        for name in ("horizon", "window", "segment", "season", "updates_per_epoch"):
            if getattr(self, name) is not None:
                check_positive(WHERE, **{name: getattr(self, name)})
        check_probability(WHERE, dropout=self.dropout)
        check_flag(WHERE, linear=self.linear, calibrate=self.calibrate)
        check_choice(WHERE, "loss", self.loss, ("mae", "mse", "huber"))
        check_choice(WHERE, "horizons", self.horizons, ("direct", "recursive"))
        check_choice(WHERE, "variables", self.variables, ("separate", "joint"))
        check_choice(WHERE, "transform", self.transform, ("auto", "none", "log", "log1p"))
        check_choice(WHERE, "scaling", self.scaling, ("auto", "none", "global", "series"))
        check_choice(WHERE, "level", self.level, ("auto", "last", "mean", "season", "none"))
        check_choice(WHERE, "window_scale", self.window_scale, ("auto", "std", "change", "none"))
        check_choice(WHERE, "base", self.base, ("auto", "season", "none"))
        check_choice(WHERE, "decoder", self.decoder, ("auto", "segments", "direct"))
        for name in ("quantiles", "known", "past"):
            if isinstance(getattr(self, name), str) or not isinstance(getattr(self, name), Iterable):
                want = "a list of levels, () for none" if name == "quantiles" else "a list of names, () for none"
                raise TypeError(sentence(WHERE, name, want, repr(getattr(self, name))))
        levels = list(self.quantiles)
        if not all(isinstance(q, float) and 0 < q < 1 for q in levels) or levels != sorted(set(levels)):
            raise ValueError(sentence(WHERE, "quantiles", "ascending numbers between 0 and 1", self.quantiles))
        value = self.validation
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not (value is None or value == "auto" or whole or (isinstance(value, float) and 0 < value < 1)):
            want = "a number of steps, a part between 0 and 1, 'auto' or None"
            raise ValueError(sentence(WHERE, "validation", want, repr(value)))
        if isinstance(self.calendar, str) and self.calendar != "auto":
            raise ValueError(sentence(WHERE, "calendar", "'auto' or a list such as ['hour']", repr(self.calendar)))
        self._cell()
        self._engine()
        self._rule()

    def _check_columns(self, known: Any, past: Any) -> None:
        """Raise where columns are named and the data have none."""
        if self._form not in ("vector", "matrix", "list"):
            return
        beside = {"known": known, "past": past}
        for name in ("target", "time", "series", "known", "past"):
            given = getattr(self, name)
            if (len(given) if name in beside else given is not None) and beside.get(name) is None:
                hint = f"Hand them to fit: fit(data, {name}=...)." if name in beside else "Arrays have no columns."
                want = f"{'()' if name in beside else None} for arrays"
                raise ValueError(sentence(WHERE, name, want, repr(given), hint))

    def _cell(self) -> Named:
        found = named(WHERE, "cell", "cells", self.cell)
        check_layer(WHERE, found)
        return found

    def _engine(self) -> Engine:
        return named(WHERE, "engine", "engines", self.engine).make()

    def _rule(self) -> LearningRule[Any]:
        found = named(WHERE, "rule", "rules", self.rule)
        if not issubclass(found.cls, LearningRule):
            hint = f"{found.cls.__name__} searches without gradients."
            raise ValueError(sentence(WHERE, "rule", "a learning rule such as 'BPTT'", repr(self.rule), hint))
        return found.make(engine=self._engine()) if found.accepts("engine") else found.make()

    # --- inside: what fit found ---

    def _take(self, setup: Setup, notes: Sequence[str], horizon: int | None = None) -> None:
        self.setup_ = setup
        self.notes_ = list(notes)
        self.season_ = setup.period if setup.seasons else None
        self.window_ = setup.window
        self.horizon_ = setup.horizon if horizon is None else horizon

    def _one_segment(self, setup: Setup, notes: list[str]) -> Setup:
        """For recursive horizons: the net forecasts one segment."""
        from dataclasses import replace

        step = min(setup.segment, setup.horizon)
        notes.append(f"Recursive: {step} steps at a time, {-(-setup.horizon // step)} times.")
        return replace(setup, horizon=step)

    def _context_steps(self, series: SeriesSet) -> int:
        """Steps of the training data that are kept to go on from; 0 where they are too many."""
        width = len(series.targets) + len(series.known_names) + len(series.past_names)
        steps = self.setup_.window
        return steps if len(series) * steps * width <= MAX_CONTEXT else 0

    def _training_windows(self, prepared: Prepared) -> tuple[Array, Array]:
        """All windows of the training part whose future lies in it; of a short series those that see part of it."""
        setup = self.setup_
        least = max(1, min(setup.window, max(setup.segment, setup.window // 10)))
        first, last = [], []
        for length in prepared.length:
            end = length - setup.horizon
            if end >= least:
                first.append(least)
                last.append(end)
            else:
                first.append(1)
                last.append(max(1, end) if end >= 1 else length - 1)
        total = sum(max(0, b - a + 1) for a, b in zip(first, last))
        which, ends = ends_of(prepared, first, last, stride=max(1, -(-total // MAX_WINDOWS)))
        if not len(which):
            want = f"long enough for a value and a forecast after it (horizon {setup.horizon})"
            raise ValueError(sentence(WHERE, "data", want, f"series of at most {int(prepared.length.max())} steps"))
        return which, ends

    def _build(self) -> None:
        """The network with its first weights; the generator of the caller is left alone."""
        setup, kind = self.setup_, self._cell()

        def make(input_size: int, hidden_size: int) -> Cell:
            cell = kind.make(input_size, hidden_size)
            if cell.input_spec != Leaf((input_size,)) or not isinstance(cell.output_spec, Leaf):
                raise ValueError(sentence(WHERE, "cell", "a cell with input (B, D) and output (B, O)", str(kind)))
            return cell

        shape = setup.shape
        decoder = self.decoder
        if decoder == "auto":
            decoder = "segments" if shape.num_future > 1 else "direct"
        steps = shape.segment if decoder == "segments" else shape.horizon
        size = self.num_members * self.hidden_size * (shape.features + steps * shape.channels * shape.outputs)
        if size > MOST_WEIGHTS:
            want = (
                f"'separate' for {len(setup.targets):,} variables"
                if setup.joint
                else "fewer steps read and forecast at once"
            )
            hint = "Or give a smaller hidden_size, segment or horizon."
            name = "variables" if setup.joint else "segment and horizon"
            raise ValueError(sentence(WHERE, name, want, f"a net of {size:,} weights", hint))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network: nn.Module = Nets(
                [
                    Member(
                        shape,
                        make,
                        self.hidden_size,
                        self.num_layers,
                        self.dropout,
                        decoder,
                        self.linear,
                        self._engine(),
                    )
                    for _ in range(self.num_members)
                ]
            )
            reason = self._rule().supports(network, ForecastLoss(self.loss, setup.levels))
            if reason is not None:
                network = as_cell(shape, make, self.hidden_size, self.num_layers, self.dropout)
                self.notes_.append(
                    f"{type(self._rule()).__name__} needs a plain cell: one net, no linear map, direct readout."
                )
        self.network_ = network.to(self._device())

    # --- inside: running the network ---

    def _run(self, module: nn.Module, row: Row) -> torch.Tensor:
        """ys (1, B, M * H * C * outputs)."""
        if isinstance(module, Cell):
            return unroll(module, row.segments, None, engine=self._engine())[0][-1:]
        return module(row)

    def _outputs(self, prepared: Prepared, which: Array, ends: Array, *, raw: bool = False) -> Array:
        """(B, H, C, outputs) in the units of the data; with ``raw`` normalised ones, less the target, (rows, H, C, outputs)."""
        shape, device = self.setup_.shape, self._device()
        step = max(1, BATCH_ROWS // (1 if self.setup_.joint else len(self.setup_.targets)))
        found = []
        self.network_.eval()
        with torch.no_grad():
            for a in range(0, len(which), step):
                w, e = which[a : a + step], ends[a : a + step]
                row, target, normal = prepared.gather(w, e, device)
                ys = self._run(self.network_, row)[0]
                ys = ys.reshape(ys.shape[0], -1, shape.horizon, shape.channels, shape.outputs).float()
                out = ys.quantile(0.5, dim=1).cpu().numpy().astype(np.float64)  # the members' median
                if raw:
                    value = target.value[0].cpu().numpy()[..., None]
                    there = target.weight[0].cpu().numpy()[..., None] > 0
                    found.append(np.where(there, value - out, np.nan))
                    continue
                if out.shape[-1] > 1:
                    out[..., 1:] = np.sort(out[..., 1:] + np.array(getattr(self, "offsets_", 0.0)), -1)
                out = prepared.restore(out, normal, w)
                if not np.isfinite(out).all():
                    bad = prepared.series.names[int(w[np.argwhere(~np.isfinite(out))[0][0]])]
                    place = "data" if bad.startswith(UNNAMED) else f"series {bad!r}"
                    want = "of about the size of the training data"
                    raise ValueError(sentence(WHERE, place, want, "values so far away that no number is forecast"))
                found.append(out)
        return np.concatenate(found) if found else np.zeros((0, shape.horizon, len(self.setup_.targets), shape.outputs))

    def _split(self, outputs: Array) -> tuple[Array, Array]:
        """Points (..., C) and all asked quantiles (..., C, Q), the median included, in order."""
        point = outputs[..., 0]
        learned = self.setup_.levels
        columns = [outputs[..., 1 + learned.index(q)] if q in learned else point for q in self.quantiles]
        quantiles = np.stack(columns, -1) if columns else np.zeros((*point.shape, 0))
        return point, np.sort(quantiles, -1)

    # --- inside: measuring ---

    def _validation_rows(self, setup: Setup, series: SeriesSet, kept: Array) -> tuple[Prepared, Array, Array] | None:
        """Windows whose future lies in the validation part."""
        if not kept.any():
            return None
        prepared = Prepared(setup, series)
        lengths = series.lengths
        first = np.where(kept > 0, lengths - kept, 1)
        last = np.where(kept > 0, lengths - setup.horizon, 0)
        total = int(np.maximum(last - first + 1, 0).sum()) * (1 if setup.joint else len(setup.targets))
        which, ends = ends_of(prepared, first.tolist(), last.tolist(), stride=max(1, -(-total // MAX_VALIDATION_ROWS)))
        return (prepared, which, ends) if len(which) else None

    def _validation_loss(self, module: nn.Module, rows: tuple[Prepared, Array, Array], loss: ForecastLoss) -> float:
        """Mean loss over the validation windows."""
        prepared, which, ends = rows
        step = max(1, BATCH_ROWS // (1 if self.setup_.joint else len(self.setup_.targets)))
        total = count = 0.0
        for a in range(0, len(which), step):
            row, target, _ = prepared.gather(which[a : a + step], ends[a : a + step], self._device())
            total += float(loss.per_step(self._run(module, row).float(), target).sum())
            count += target.value.shape[1]
        return total / count

    def _offsets(self, rows: tuple[Prepared, Array, Array]) -> list[float]:
        """What must be added to each learned quantile (normalised) so that it holds on these validation windows."""
        errors = self._outputs(*rows, raw=True)
        found = []
        for i, q in enumerate(self.setup_.levels):
            e = errors[..., 1 + i]
            e = e[np.isfinite(e)]
            found.append(float(np.quantile(e, q)) if len(e) >= 8 else 0.0)
        return found

    def _cross_calibrated(self, prepared: Prepared, which: Array, ends: Array) -> dict[str, float]:
        """Measures of the quantiles of each half of the validation windows, shifted by what the other half asks for."""
        middle = len(which) // 2
        halves = [(which[:middle], ends[:middle]), (which[middle:], ends[middle:])]
        if not middle:
            return {}
        sums: dict[str, float] = {}
        for (a, b), (other, at) in zip(halves, halves[::-1]):
            self.offsets_ = self._offsets((prepared, other, at))
            found = evaluate_at(self, prepared.series, a, b)
            for name in ("pinball", "coverage"):
                if name in found:
                    sums[name] = sums.get(name, 0.0) + found[name] * len(a) / len(which)
        return sums

    # --- inside: forecasting ---

    def _read_again(self, data: Any, known: Any, past: Any) -> tuple[SeriesSet, str]:
        """Series to go on from."""
        self._check_fitted()
        if data is None:
            if not self._context["values"] or not any(self._context["values"]):
                hint = "The training data were too many to be kept with the model."
                raise ValueError(sentence(WHERE, "data", "given", "None", hint))
            return series_from_json(self._context), getattr(self, "_form", "set")
        found, form = self.read(data, known, past)
        setup = self.setup_
        if len(found.targets) != len(setup.targets):
            want = f"{len(setup.targets)} variables ({', '.join(setup.targets[:8])})"
            raise ValueError(sentence(WHERE, "data", want, f"{len(found.targets)}"))
        for what, mine, theirs in (("known", setup.known, found.known_names), ("past", setup.past, found.past_names)):
            if len(mine) != len(theirs):
                raise ValueError(sentence(WHERE, what, f"{len(mine)} covariates as in the training", len(theirs)))
        if form in ("set", "frame", "wide") and found.targets != setup.targets:
            raise ValueError(sentence(WHERE, "the targets", ", ".join(setup.targets), ", ".join(found.targets)))
        step = setup.time_step
        if step is not None and found.step is not None and not 0.6 < found.step.seconds / step.seconds < 1.6:
            hint = "A model of days, say, knows nothing of hours."
            want = f"timestamps {step} apart as in the training"
            raise ValueError(sentence(WHERE, "data", want, str(found.step), hint))
        if setup.calendar and found.step != setup.time_step:
            want = f"timestamps {setup.time_step} apart as in the training"
            raise ValueError(sentence(WHERE, "data", want, "none" if found.step is None else str(found.step)))
        return found, form

    def _forecast(self, series: SeriesSet, horizon: int | None) -> Forecast:
        """Points and quantiles after the end of each series."""
        setup = self.setup_
        if horizon is not None:
            check_positive(WHERE, horizon=horizon)
        horizon = horizon or self.horizon_
        if setup.known:
            for name, known, values in zip(series.names, series.known, series.values):
                if len(known) < len(values) + horizon:
                    want = f"given for {horizon} steps beyond the values"
                    raise ValueError(sentence(WHERE, f"known of series {name!r}", want, f"{len(known) - len(values)}"))
        if horizon <= setup.horizon:
            prepared = Prepared(setup, series)
            outputs = self._outputs(prepared, np.arange(len(series)), series.lengths)
            point, quantiles = self._split(outputs[:, :horizon])
        else:
            point, quantiles = unfold(self, series, horizon)
        times = None
        if series.times is not None and series.step is not None:
            times = np.stack([series.step.after(t[len(v) - 1], horizon) for t, v in zip(series.times, series.values)])
        return Forecast(series.names, series.targets, point, tuple(self.quantiles), quantiles, times)

    # --- the folder ---

    def _fitted(self) -> dict[str, Any]:
        return {
            "setup": self.setup_.to_json(),
            "horizon": self.horizon_,
            "offsets": getattr(self, "offsets_", []),
            "notes": self.notes_,
            "form": self._form,
            "context": self._context,
            "evaluation": getattr(self, "evaluation_", {}),
        }

    def _restore(self, fitted: dict[str, Any]) -> None:
        setup = Setup.from_json(fitted["setup"])
        for name in ("target", "known", "past", "quantiles", "calendar"):  # lists in JSON
            value = getattr(self, name)
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        self._form = str(fitted["form"])
        self._context = fitted["context"]
        check_sizes(series_from_json(self._context))
        horizon = fitted["horizon"]
        most = MOST_AHEAD if self.horizons == "recursive" else setup.horizon
        if type(horizon) is not int or not setup.horizon <= horizon <= most:
            raise ValueError(f"its horizon is {horizon!r}")
        self._take(setup, list(fitted["notes"]), horizon)
        self._build()
        self.notes_ = list(fitted["notes"])
        self.offsets_ = [float(v) for v in fitted["offsets"]]
        if len(self.offsets_) != len(setup.levels) or not np.isfinite(self.offsets_).all():
            raise ValueError("its offsets are none of each quantile")
        names = [self._context[part] for part in ("names", "targets")]
        if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in names):
            raise ValueError("the names in its context are no texts")
        if len(names[0]) != len(self._context["values"]):
            raise ValueError("its context has not as many names as series")
        self.evaluation_ = dict(fitted["evaluation"])


def _fingerprint(series: SeriesSet) -> str:
    """Of names and values."""
    sha = hashlib.sha256(repr((series.names, series.targets, series.known_names, series.past_names)).encode())
    for part in (*series.values, *series.known, *series.past):
        sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


__all__ = ["Forecaster"]
