"""The page of a forecaster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .page import Page, shown
from .parts import OTHER, OURS, cost, curves, facts, next_steps, percent, plain, quoted, verdict

NAMES = {
    "smape": "sMAPE, %",
    "mase": "MASE",
    "rmse": "RMSE",
    "mae": "MAE",
    "pinball": "pinball loss",
    "coverage": "coverage of the interval",
}
WORDS = (
    "Lower is better: sMAPE is the error in percent of the values; MASE is 1 for an error as large as that of the seasonal "
    "naive forecast on the past; RMSE and MAE are in the unit of the data. The coverage should be that of the interval."
)


def build(config: Mapping[str, Any], found: Mapping[str, Any]) -> Page:
    """The page.

    Args:
        config: what stands in ``config.json``.
        found: what stands in ``evaluation.json``.
    """
    arguments, record = config["arguments"], config["record"]
    page = Page(
        f"Forecast of {found['file']}", f"{arguments['cell']}, {found['horizon']} steps ahead, made with Recurra"
    )
    metrics = found.get("metrics") or {}
    cards = [(_rounded(metrics[k]), NAMES[k]) for k in ("smape", "mase", "rmse") if metrics.get(k) is not None]
    if metrics.get("coverage") is not None:
        cards.append(
            (
                f"{metrics['coverage']:.0%}",
                f"of the values in the {found.get('interval', '')} interval".replace("  ", " "),
            )
        )
    cards.append((f"{found['num_parameters']:,}", "parameters"))
    page.cards(cards)
    page.section("The data")
    facts(page, found["facts"])
    for series in found["data"][:4]:
        length = series.get("length", len(series["values"]))
        thinned = ", of each stretch the lowest and the highest" if len(series["values"]) < length else ""
        page.figure(
            partial(_draw_series, series=series), f"{series['name']}: {length:,} steps{thinned}", size=(9.0, 2.4)
        )
    page.section("What comes next")
    for series in found["forecasts"][:4]:
        page.figure(partial(_draw_forecast, series=series), f"{series['name']}: what comes after the end of the data")
    curves(page, record.get("history", []), "")
    if found.get("baselines"):
        page.section("Beside other methods")
        measures = [k for k in NAMES if metrics.get(k) is not None]
        rows = [[b["name"], *(_cell(b, k) for k in measures)] for b in found["baselines"]]
        rows.append([f"{arguments['cell']} (ours)", *(_cell(metrics, k) for k in measures)])
        page.table(["method", *(NAMES[k] for k in measures)], rows, ours=len(rows) - 1)
        page.text(*(part for part in (found.get("backtest", ""), WORDS) if part))
        verdict(page, metrics.get("mase"), found["baselines"], "mase", lower=True)
    elif found.get("backtest"):
        page.section("Beside other methods").text(found["backtest"])
    if found.get("held_out"):
        page.section("Where it fails")
        page.text("Forecasts of the past, the worst first; the model that made them had seen nothing after the line.")
        for series in found["held_out"][:4]:
            page.figure(partial(_draw_forecast, series=series), series["name"], size=(9.0, 2.6))
    if found.get("by_step") and len(found["by_step"]) > 1:
        page.figure(
            lambda figure: _draw_steps(figure, found["by_step"]), "Mean absolute error by steps ahead", size=(9.0, 2.4)
        )
    cost(page, config, found)
    next_steps(
        page,
        [
            f"recurra forecast {quoted(found['folder'])} --out forecast.csv",
            f"recurra forecast {quoted(found['folder'])} newer.csv --plot forecast.png",
            f"recurra evaluate {quoted(found['folder'])} newer.csv",
        ],
        f"from recurra import Forecaster\n\nmodel = Forecaster.load({found['folder']!r})\n"
        "forecast = model.predict(table)  # a table with the history",
    )
    return page


def _at(series: Mapping[str, Any], key: str, start: int) -> list[Any]:
    """Where the values stand: at their times, if there are any, else counted."""
    import pandas as pd

    times = series.get(f"{key}_times") or []
    if times:
        return list(pd.to_datetime(times))
    return list(range(start, start + len(series[key])))


def _rounded(value: float) -> str:
    """Three digits, and no powers of ten where none are needed."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else shown(float(value))


def _cell(row: Mapping[str, Any], key: str) -> str | float | None:
    value = row.get(key)
    return percent(value, 0) if key == "coverage" else value if value is None else float(f"{value:.4g}")


def _short_dates(axis: Any, times: Any) -> None:
    """Dates of which each part stands only where it changes."""
    if not times:
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if v is None else float(v) for v in values]


def _draw_series(figure: Any, series: Mapping[str, Any]) -> None:
    axis = figure.subplots()
    places = None if series.get("values_times") else series.get("places")
    axis.plot(places or _at(series, "values", 0), _numbers(series["values"]), color="#333", lw=0.8)
    axis.grid(alpha=0.25)
    _short_dates(axis, series.get("values_times"))


def _draw_forecast(figure: Any, series: Mapping[str, Any]) -> None:
    axis = figure.subplots()
    before, first = _numbers(series["values"]), int(series.get("first", 0))
    times, ahead = _at(series, "values", first), _at(series, "point", first + len(before))
    axis.plot(times, before, color="#333", lw=1.0, label="known")
    if series.get("actual"):
        axis.plot(ahead, _numbers(series["actual"]), color="#333", lw=1.0, ls=":", label="what came")
    if series.get("low"):
        axis.fill_between(
            ahead,
            _numbers(series["low"]),
            _numbers(series["high"]),
            color=OURS,
            alpha=0.2,
            lw=0,
            label=series.get("interval", "interval"),
        )
    axis.plot(ahead, _numbers(series["point"]), color=OURS, lw=1.6, label="forecast")
    for name, values in (series.get("others") or {}).items():
        axis.plot(ahead, _numbers(values), color=OTHER, lw=1.0, alpha=0.8, label=plain(name))
    axis.axvline(times[-1] if times else 0, color="0.7", lw=0.8)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=5)
    _short_dates(axis, series.get("values_times"))


def draw_forecast(figure: Any, forecast: Any, num: int = 4) -> None:
    """The first series of a `recurra.estimators.forecasting.forecast.Forecast`, with the interval if there is one."""
    chosen = [(i, c) for i in range(len(forecast.names)) for c in range(len(forecast.targets))][:num]
    axes = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    for axis, (i, c) in zip(axes, chosen):
        steps = range(1, forecast.horizon + 1) if forecast.times is None else forecast.times[i]
        if forecast.interval is not None:
            low, high, part = forecast.interval
            axis.fill_between(
                steps, low[i, :, c], high[i, :, c], color=OURS, alpha=0.2, lw=0, label=f"{part:.0%} interval"
            )
        axis.plot(steps, forecast.point[i, :, c], color=OURS, lw=1.6, label="forecast")
        axis.set_title(plain(f"{forecast.names[i]} {forecast.targets[c]}"), loc="left", fontsize=10)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8)


def _draw_steps(figure: Any, errors: Sequence[float]) -> None:
    axis = figure.subplots()
    axis.plot(range(1, len(errors) + 1), errors, "o-" if len(errors) < 60 else "-", ms=3, color=OURS)
    axis.set(xlabel="steps ahead", ylim=(0, None))
    axis.grid(alpha=0.25)
