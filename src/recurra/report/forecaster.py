"""The page of a forecaster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .page import Page
from .parts import OTHER, OURS, cost, curves, facts, next_steps, plain

NAMES = {
    "smape": "sMAPE, %",
    "mase": "MASE",
    "rmse": "RMSE",
    "mae": "MAE",
    "pinball": "pinball loss",
    "coverage": "coverage of the interval",
}


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
    cards = [(f"{metrics[k]:.3g}", NAMES[k]) for k in ("smape", "mase", "rmse") if metrics.get(k) is not None]
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
        page.figure(partial(_draw_series, series=series), series["name"], size=(9.0, 2.4))
    page.section("What comes next")
    for series in found["forecasts"][:4]:
        page.figure(partial(_draw_forecast, series=series), f"{series['name']}: after the end of the data")
    curves(page, record.get("history", []), "")
    if found.get("baselines"):
        page.section("Beside other methods")
        shown = [k for k in NAMES if metrics.get(k) is not None]
        rows = [[b["name"], *(b.get(k) for k in shown)] for b in found["baselines"]]
        rows.append([f"{arguments['cell']} (ours)", *(metrics[k] for k in shown)])
        page.table(["method", *(NAMES[k] for k in shown)], rows, ours=len(rows) - 1)
        page.text(found.get("backtest", ""))
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
            f"recurra forecast {found['folder']} newer.csv --out forecast.csv",
            f"recurra evaluate {found['folder']} newer.csv",
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


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if v is None else float(v) for v in values]


def _draw_series(figure: Any, series: Mapping[str, Any]) -> None:
    axis = figure.subplots()
    axis.plot(_at(series, "values", 0), _numbers(series["values"]), color="#333", lw=0.8)
    axis.grid(alpha=0.25)
    axis.set_title(plain(series["name"]), loc="left", fontsize=10)


def _draw_forecast(figure: Any, series: Mapping[str, Any]) -> None:
    axis = figure.subplots()
    before, start = _numbers(series["values"]), len(series["values"])
    times, ahead = _at(series, "values", 0), _at(series, "point", start)
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
    axis.legend(frameon=False, fontsize=8, loc="upper left", ncols=5)
    axis.set_title(plain(series["name"]), loc="left", fontsize=10)


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
