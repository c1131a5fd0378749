"""A table with a time, and a forecaster of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.checks import sentence
from .job import Job

if TYPE_CHECKING:
    from ...datasets.series import SeriesSet
    from ...estimators.forecasting.forecast import Forecast

SHOWN, POINTS = 4, 1_500  # series on the page, and values of each
MAX_SERIES = 20  # that the slow baselines forecast
MAX_TIMES = 100  # the horizon: further ahead is nothing but the model's own echo


class ForecasterJob(Job):
    """A copy of the model that has not seen the end of the series is measured on it."""

    kind, name, files = "forecaster", "forecast", ("table",)
    what = "a forecast"
    holds_out = False  # a backtest does it
    uses = ("target", "time", "series", "known", "past", "horizon")

    @property
    def estimator(self) -> Any:
        """`Forecaster`."""
        from ...estimators import Forecaster

        return Forecaster

    def read(self) -> None:
        """The series in the table."""
        from ...datasets.series import series_of
        from ...datasets.table import read_table

        roles = self.roles
        table = read_table(self.file)
        target: Any = roles.target
        if target is not None and target not in table.columns:
            target = [name.strip() for name in target.split(",") if name.strip()]
        found = series_of(
            table, target=target, time=roles.time, series=roles.series, known=roles.known, past=roles.past
        )
        self.series: SeriesSet = found
        lengths = found.lengths
        num = f"{len(found):,} series" if len(found) > 1 else "one series"
        many = f" of {len(found.targets)} variables" if len(found.targets) > 1 else ""
        size = (
            f"{lengths.min():,} steps"
            if lengths.min() == lengths.max()
            else f"{lengths.min():,} to {lengths.max():,} steps"
        )
        every = f", one every {found.step}" if found.step is not None else ", without timestamps"
        self.facts = [("Table", f"{num}{many}, {size}{every}")]
        if found.times is not None:
            begin, end = found.times[0][0], found.times[0][int(lengths[0]) - 1]
            self.facts.append(
                ("From", f"{_day(begin)} to {_day(end)}" + (" (the first series)" if len(found) > 1 else ""))
            )
        self.facts.append(("Forecast", ", ".join(found.targets[:8]) + (" ..." if len(found.targets) > 8 else "")))
        if found.known_names or found.past_names:
            self.facts.append(("Beside", ", ".join([*found.known_names, *found.past_names])))
        self.facts += [("Read", note) for note in found.notes if not note.startswith("Forecast: ")]  # said above

    def defaults(self) -> dict[str, Any]:
        """The roles of the columns; the series themselves are handed over."""
        return {} if self.roles.horizon is None else {"horizon": self.roles.horizon}

    def fit(self, model: Any, folder: Path, resume: bool, on_progress: Callable[[Any], bool | None]) -> None:
        """On all series; their ends choose the weights."""
        model.fit(self.series, folder=folder, resume=resume, on_progress=on_progress)

    def evaluation(self, model: Any, folder: Path) -> dict[str, Any]:
        """What comes next; a backtest beside seasonal naive, ETS and ARIMA."""
        base = self.shared(model, folder)
        begin = time.perf_counter()
        forecast = model.forecast(self.series)
        speed = len(self.series) / (time.perf_counter() - begin)
        found: dict[str, Any] = {
            **base,
            "facts": base["facts"] + [["Decided", note] for note in model.notes_ if note not in self.series.notes],
            "horizon": model.horizon_,
            "speed": [["forecasts", f"{speed:,.1f} series per second"]],
            "data": [self._whole(i, c) for i, c in self._chosen()],
            "forecasts": [self._ahead(forecast, i, c) for i, c in self._chosen()],
        }
        try:
            test = model.backtest(self.series, num_origins=3, refit="once", max_series=MAX_SERIES)
        except ValueError as error:  # too short to hold anything out
            return {**found, "backtest": f"There is no backtest: {error}"}
        ours, others = test.rows[0], test.rows[1:]
        found["metrics"] = ours
        found["baselines"] = [{"name": row["method"], **row} for row in others]
        found["interval"] = "" if math.isnan(test.interval) else f"{test.interval:.0%}"
        found["backtest"] = test.note
        found["by_step"] = [float(v) for v in test.by_step]
        found["held_out"] = [self._past(row, found["interval"]) for row in test.worst]
        return found

    def result(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        """Errors beside the baselines'."""
        if "metrics" not in found:
            return [("Backtest", found["backtest"])]
        rows = [("Backtest", found["backtest"]), ("Ours", _words(found["metrics"]))]
        return rows + [("Compare", f"{_words(b)}  {b['name']}") for b in found["baselines"]]

    def evaluate(self, model: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The last steps of each series of the file."""
        found = model.evaluate(self.series)
        naive = found["seasonal_naive"]
        rows = [
            ("Table", f"{self.file}: {found['num_forecasts']:,} forecasts of the last {model.horizon_} steps"),
            ("Ours", _words(found)),
            ("Compare", f"{_words(naive)}  seasonal naive"),
        ]
        return found, rows

    def real_inputs(self, *, whole: bool) -> tuple[Any, str]:
        """See `Job.real_inputs`; the last windows, which chose the weights, are what is nearest to held out."""
        return self.series, f"the last windows of {self.file.name}"

    def next_command(self, folder: Path) -> str:
        """The forecast as a table."""
        return f"recurra forecast {folder} --out forecast.csv"

    # --- for the page ---

    def _chosen(self) -> list[tuple[int, int]]:
        """Series and variables that are shown: the first ones, spread over all."""
        all_of_them = [(i, c) for i in range(len(self.series)) for c in range(len(self.series.targets))]
        return all_of_them[:: max(1, len(all_of_them) // SHOWN)][:SHOWN]

    def _name(self, i: int, c: int) -> str:
        names, targets = self.series.names, self.series.targets
        if len(names) == 1:
            return targets[c]
        return names[i] if len(targets) == 1 else f"{names[i]} {targets[c]}"

    def _whole(self, i: int, c: int) -> dict[str, Any]:
        """All of a series; of a long one the lowest and the highest value of each stretch, in their order."""
        length = len(self.series.values[i])
        drawn = {**self._drawn(i, c, length), "length": length}
        if length <= POINTS:
            return drawn
        values, places = self.series.values[i][:, c], []
        for part in np.array_split(np.arange(length), POINTS // 2):
            there = part[~np.isnan(values[part])]
            places += sorted(
                {int(there[values[there].argmin()]), int(there[values[there].argmax()])}
                if len(there)
                else {int(part[0])}
            )
        for key in ("values", "values_times"):
            drawn[key] = drawn[key] and [drawn[key][k] for k in places]
        drawn.setdefault("places", places)
        return drawn

    def _past(self, row: dict[str, Any], interval: str) -> dict[str, Any]:
        """One of the worst forecasts of a backtest."""
        history, times = row["history"], row["times"]
        name = row["target"] if len(self.series) == 1 else f"{row['name']} {row['target']}"
        known = None if times is None else [str(t) for t in times]
        found = {
            "name": f"{name}, sMAPE {row['smape']:.1f} %",
            "values": _plain(history),
            "values_times": known and known[: len(history)],
            "point": _plain(row["point"]),
            "point_times": known and known[len(history) :],
            "actual": _plain(row["actual"]),
            "first": row["origin"] - len(history),
        }
        if row["low"] is not None:
            found.update(low=_plain(row["low"]), high=_plain(row["high"]), interval=f"{interval} interval")
        return found

    def _drawn(self, i: int, c: int, points: int) -> dict[str, Any]:
        values = self.series.values[i][-points:, c]
        times = None
        if self.series.times is not None:
            length = len(self.series.values[i])
            times = [str(t) for t in self.series.times[i][:length][-points:]]
        first = len(self.series.values[i]) - len(values)
        return {"name": self._name(i, c), "values": _plain(values), "values_times": times, "first": first}

    def _ahead(self, forecast: Forecast, i: int, c: int) -> dict[str, Any]:
        drawn = self._drawn(i, c, 4 * forecast.horizon)
        drawn["point"] = _plain(forecast.point[i, :, c])
        drawn["point_times"] = None if forecast.times is None else [str(t) for t in forecast.times[i]]
        if forecast.interval is not None:
            low, high, part = forecast.interval
            drawn.update(low=_plain(low[i, :, c]), high=_plain(high[i, :, c]), interval=f"{part:.0%} interval")
        return drawn


def _plain(values: Any) -> list[float | None]:
    return [None if v != v else float(v) for v in values]


def _day(time: Any) -> str:
    text = str(time).replace("T", " ")
    return text.removesuffix(":00").removesuffix(" 00:00")


def _words(row: dict[str, Any]) -> str:
    words = f"sMAPE {row['smape']:.2f} %, MASE {row['mase']:.3f}, RMSE {row['rmse']:.4g}"
    if row.get("coverage") is not None and row["coverage"] == row["coverage"]:
        words += f", coverage {row['coverage']:.0%}"
    return words


def check_forecaster(run: Path, model: Any, steps: int | None = None) -> None:
    """Raise unless the model is a forecaster that can be asked for so many steps."""
    if getattr(model, "kind", "") != ForecasterJob.kind:
        raise ValueError(sentence("recurra", str(run), "a forecaster", f"a {type(model).__name__}"))
    most = MAX_TIMES * model.horizon_
    if steps is not None and steps > most:
        hint = f"The model was trained for {model.horizon_}; more are made by feeding forecasts back."
        raise ValueError(sentence("recurra", "--steps", f"at most {most:,}", f"{steps:,}", hint))
