"""The page of a model that learned from a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .page import Page
from .parts import OTHER, OURS, facts, next_steps, plain, quoted

THIRD = "#6b7280"
MOST_POINTS = 60  # of a curve; more of them hide which one is lower


def build(config: Mapping[str, Any], found: Mapping[str, Any]) -> Page:
    """The page.

    Args:
        config: what stands in ``config.json``.
        found: what stands in ``evaluation.json``.
    """
    arguments, errors, running = config["arguments"], found["errors"], found["running"]
    forecasts = config["kind"] == "online_forecaster"
    what = "Online forecasts" if forecasts else "Online labels"
    page = Page(f"{what} of {found['target']}", f"{found['stream']}, learned a row at a time with Recurra")
    measure = "mae" if forecasts else "error"
    form = "{:.4g}" if forecasts else "{:.1%}"
    names = running["names"]
    cards = [(f"{found['rows']:,}", "rows learned")]
    for name in names:
        value = errors.get(f"{name.replace(' ', '_')}_{measure}")
        if value is not None:
            cards.append((form.format(value), f"{'mean absolute error' if forecasts else 'wrong'}: {name}"))
    page.cards(cards)
    page.section("Errors")
    page.text(
        "Each prediction was made before the model had seen what it predicts; then the model learned from the row."
    )
    keys = [measure, f"{measure}_recent"] + (["rmse"] if forecasts else [])
    titles = ["method", "over all rows", "of late"] + (["root mean square"] if forecasts else [])
    rows = [[name, *(_cell(form, errors.get(f"{name.replace(' ', '_')}_{key}")) for key in keys)] for name in names]
    page.table(titles, rows, ours=0)
    best = min(rows[1:], key=lambda row: errors.get(f"{row[0].replace(' ', '_')}_{measure}") or float("inf"))[0]
    ours, naive = (errors.get(f"{name.replace(' ', '_')}_{measure}") for name in (names[0], best))
    if ours is not None and naive is not None and naive < ours:
        page.text(f"On this stream the {best} is better than the model so far.")
    if len(running["points"]) > 1:
        points, width = _thinned(running["points"], running["width"])
        page.figure(
            lambda figure: _draw_errors(figure, names, points, forecasts),
            f"Mean error of every {width:,} rows" if width > 1 else "Error of every row",
        )
    if len(found["shown"]) > 1:
        caption = f"The last {len(found['shown'])} rows: what was predicted, and what came"
        page.figure(lambda figure: _draw_last(figure, found["shown"], forecasts), caption)
    if found.get("next"):
        page.section("What comes next").text(", ".join(f"{value:.6g}" for value in found["next"]))
    page.section("The model")
    bytes_ = found["bytes"]
    each = 1e3 * found["seconds"] / max(1, found["rows"])
    facts(
        page,
        [
            ("target", f"{found['target']}" + (f", {found['horizon']} steps ahead" if found["horizon"] > 1 else "")),
            ("net", f"{arguments['cell']}, {arguments['num_layers']} x {arguments['hidden_size']} units"),
            ("learns by", f"{arguments['rule']}, {arguments['optimizer']}, learning rate {arguments['lr']:g}"),
            ("parameters", f"{found['num_parameters']:,}"),
            ("memory", f"{bytes_ / 1024:,.0f} KiB for all that goes on from row to row, however long the stream"),
            ("time", f"{found['seconds']:,.0f} s, {each:.3g} ms for each row with its prediction"),
            ("lines skipped", f"{found['skipped']:,}"),
            *([("classes", ", ".join(found["classes"]))] if found.get("classes") else []),
            ("made with", ", ".join(f"{name} {version}" for name, version in config["versions"].items())),
        ],
    )
    kind = "OnlineForecaster" if forecasts else "OnlineClassifier"
    call = "model.forecast(12)" if forecasts else "model.predict_proba_one({...})"
    stream = "-" if found["stream"] == "standard input" else quoted(found["stream"])
    next_steps(
        page,
        [f"recurra learn {stream} --out FOLDER --resume"],
        f'from recurra import {kind}\n\nmodel = {kind}.load("FOLDER")\nmodel.predict_one({{...}})\n{call}',
    )
    return page


def _cell(form: str, value: float | None) -> str | None:
    return None if value is None else form.format(value)


def _thinned(points: Sequence[Sequence[float]], width: int) -> tuple[list[list[float]], int]:
    """At most `MOST_POINTS` points, each the mean of neighbours, and the rows in each."""
    found = [list(p) for p in points]
    while len(found) > MOST_POINTS:
        found = [[b[0], *((x + y) / 2 for x, y in zip(a[1:], b[1:]))] for a, b in zip(found[::2], found[1::2])]
        width *= 2
    return found, width


def _draw_errors(figure: Any, names: Sequence[str], points: Sequence[Sequence[float]], forecasts: bool) -> None:
    axis = figure.subplots()
    for i, (name, color) in enumerate(zip(names, (OURS, OTHER, THIRD))):
        values = [p[1 + i] for p in points]
        axis.plot([p[0] for p in points], values, "o-", ms=2.5, lw=1.4, color=color, label=plain(name), zorder=3 - i)
    axis.set(xlabel="row", ylabel="absolute error" if forecasts else "share of wrong answers")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)


def _draw_last(figure: Any, shown: Sequence[Sequence[Any]], forecasts: bool) -> None:
    axis = figure.subplots()
    places = range(len(shown))
    if forecasts:
        axis.plot(places, [s[0] for s in shown], lw=1.4, color="#1f2430", label="came")
        axis.plot(places, [s[1] for s in shown], lw=1.2, color=OURS, label="predicted")
    else:
        names = sorted({str(v) for pair in shown for v in pair})
        at = {name: i for i, name in enumerate(names)}
        axis.plot(places, [at[str(s[0])] for s in shown], "s", ms=5, color=OTHER, label="came", alpha=0.5)
        axis.plot(places, [at[str(s[1])] for s in shown], ".", ms=4, color=OURS, label="predicted")
        axis.set_yticks(range(len(names)), [plain(n[:24]) for n in names])
    axis.set(xlabel="row")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, ncols=2)
