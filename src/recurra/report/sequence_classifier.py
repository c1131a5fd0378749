"""The page of a classifier and of a regressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .page import Page
from .parts import OTHER, OURS, cost, curves, facts, next_steps, percent, plain, quoted, verdict

LONGEST = 28  # letters of a name in a picture
TURNED = 4  # letters of a class below a square picture, beyond which the names are turned
LETTERS_ABREAST = 80  # of all names below a wide picture, before they are turned


def build(config: Mapping[str, Any], found: Mapping[str, Any]) -> Page:
    """The page.

    Args:
        config: what stands in ``config.json``.
        found: what stands in ``evaluation.json``.
    """
    arguments, record = config["arguments"], config["record"]
    metrics = found.get("metrics") or {}
    page = Page(f"{found['what']} of {found['file']}", f"{arguments['cell']}, made with Recurra")
    shown = {
        "accuracy": ("accuracy, held out", "{:.1%}"),
        "balanced_accuracy": ("balanced accuracy", "{:.1%}"),
        "log_loss": ("log loss, nats", "{:.3f}"),
        "calibration_error": ("calibration error, held out", "{:.3f}"),
        "r2": ("R2, held out", "{:.3f}"),
        "rmse": ("RMSE", "{:.4g}"),
        "mae": ("MAE", "{:.4g}"),
    }
    cards = [(form.format(metrics[k]), name) for k, (name, form) in shown.items() if metrics.get(k) is not None]
    page.cards([*cards, (f"{found['num_parameters']:,}", "parameters")])
    page.section("The data")
    facts(page, found["facts"])
    if found.get("counts"):
        page.figure(
            lambda figure: _draw_counts(figure, found["counts"]), "How often each class occurs", size=(9.0, 2.4)
        )
    series = [e for e in found.get("examples", []) if "series" in e]
    if series:
        page.figure(lambda figure: _draw_examples(figure, series), "One sequence of each class", size=(9.0, 3.0))
    texts = [[e["label"], e["text"]] for e in found.get("examples", []) if "text" in e]
    if texts:
        page.table(["class", "an example"], texts)
    nets = config.get("fitted", {}).get("choices", {}).get("num_models", 1)
    unit = "nats" + f", {nets} nets added up" * (nets > 1)
    curves(page, record.get("history", []), unit if "accuracy" in metrics else "")
    if found.get("baselines"):
        page.section("Beside other methods")
        keys = [k for k in shown if k in metrics and any(k in b for b in found["baselines"])]
        rows: list[list[Any]] = [[b["name"], *(_cell(b, k) for k in keys)] for b in found["baselines"]]
        rows.append([f"{arguments['cell']} (ours)", *(_cell(metrics, k) for k in keys)])
        page.table(["method", *(shown[k][0] for k in keys)], rows, ours=len(rows) - 1)
        page.text(found.get("evaluated", ""))
        key = "accuracy" if "accuracy" in metrics else "rmse"
        verdict(page, metrics.get(key), found["baselines"], key, lower=key == "rmse")
    if found.get("confusion"):
        page.section("Which classes it mixes up")
        page.figure(
            lambda figure: _draw_confusion(figure, found["classes"], found["confusion"]),
            "Rows are true, columns predicted",
            size=_square([_short(c) for c in found["classes"]]),
        )
        columns = ["class", "precision", "recall", "F1", "held out"]
        page.table(
            columns,
            [
                [p["class"], *(percent(p[k]) for k in ("precision", "recall", "f1")), p["count"]]
                for p in found["per_class"]
            ],
        )
    if found.get("reliability"):
        page.section("Can its probabilities be trusted?")
        page.figure(
            lambda figure: _draw_reliability(figure, found["reliability"]),
            "On the line, 80 % sure means right in 80 % of the cases",
            size=(4.5, 3.6),
        )
    if found.get("scatter"):
        page.section("Predicted and true")
        page.figure(
            lambda figure: _draw_scatter(figure, found["scatter"]),
            "On the line, the prediction is right",
            size=(4.5, 3.6),
        )
    worst = found.get("worst") or found.get("unsure")
    if worst:
        page.section("Where it fails")
        if found.get("worst"):
            page.text("The held-out sequences that it got most wrong:")
        else:
            page.text("It made no mistake on the held-out sequences. Of these it was the least sure:")
        rows = [[w["name"], w["true"], w["predicted"], percent(w.get("sure")), w.get("text")] for w in worst]
        columns = ["sequence", "true", "predicted", "how sure", "text"]
        keep = [i for i in range(5) if any(row[i] is not None for row in rows)]
        page.table([columns[i] for i in keep], [[row[i] for i in keep] for row in rows])
        drawn = [
            {
                "label": _mistaken(w, numbers="r2" in metrics),
                "series": w["series"],
            }
            for w in worst
            if "series" in w
        ]
        if drawn:
            page.figure(lambda figure: _draw_examples(figure, drawn), "The same, drawn", size=(9.0, 3.0))
    cost(page, config, found)
    ending = quoted(PurePath(found["file"]).suffix) if PurePath(found["file"]).suffix else "-file"
    name = "SequenceRegressor" if "r2" in metrics else "SequenceClassifier"
    next_steps(
        page,
        [
            f"recurra predict {quoted(found['folder'])} new{ending} --out predictions.csv",
            f"recurra evaluate {quoted(found['folder'])} other{ending}",
        ],
        f"from recurra import {name}\n\nmodel = {name}.load({found['folder']!r})\n"
        "model.predict(sequences)  # a list of (T, D) arrays, or of texts",
    )
    return page


def _cell(row: Mapping[str, Any], key: str) -> str | float | None:
    value = row.get(key)
    return percent(value) if key in ("accuracy", "balanced_accuracy") else value


def _mistaken(row: Mapping[str, Any], *, numbers: bool) -> str:
    """What was true and what was said, above a picture."""
    if row["true"] == row["predicted"]:
        return str(row["true"])
    return f"{row['true']}, predicted {row['predicted']}" if numbers else f"{row['true']} taken for {row['predicted']}"


def _short(name: Any) -> str:
    """A name for a picture."""
    text = str(name)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _square(names: Sequence[str]) -> tuple[float, float]:
    """The size of a picture with a row and a column for each name."""
    side = min(8.0, 2.2 + 0.45 * len(names))
    longest = 0.1 * max(map(len, names))
    return side + longest, side + longest * (max(map(len, names)) > TURNED)


def _draw_counts(figure: Any, counts: Sequence[Sequence[Any]]) -> None:
    axis = figure.subplots()
    names = [plain(_short(name)) for name, _ in counts]
    axis.bar(range(len(names)), [n for _, n in counts], color=OURS)
    axis.set_xticks(range(len(names)), names, rotation=30 if sum(map(len, names)) > LETTERS_ABREAST else 0)
    axis.set(ylabel="sequences")


def _draw_examples(figure: Any, examples: Sequence[Mapping[str, Any]]) -> None:
    examples = examples[:8]
    axes = figure.subplots(-(-len(examples) // 4), min(4, len(examples)), squeeze=False)
    for axis, example in zip(axes.flat, examples):
        for channel in example["series"][:6]:
            axis.plot([float("nan") if v is None else v for v in channel], lw=1.0)
        axis.set_title(plain(_short(example["label"])), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(examples) :]:
        axis.set_visible(False)


def _draw_confusion(figure: Any, classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    axis = figure.subplots()
    shares = [[n / max(1, sum(row)) for n in row] for row in confusion]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [plain(_short(c)) for c in classes]
    axis.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > TURNED else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    if len(names) <= 20:
        for i, row in enumerate(confusion):
            for k, n in enumerate(row):
                if n:
                    axis.text(
                        k,
                        i,
                        str(n),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if shares[i][k] > 0.5 else "#222",
                    )


def _draw_reliability(figure: Any, bins: Sequence[Mapping[str, float]]) -> None:
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", lw=1)
    axis.scatter(
        [b["confidence"] for b in bins],
        [b["accuracy"] for b in bins],
        s=[20 + 3 * b["count"] ** 0.5 * 4 for b in bins],
        color=OURS,
    )
    axis.set(xlabel="how sure it is", ylabel="how often it is right", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.grid(alpha=0.25)


def _draw_scatter(figure: Any, pairs: Sequence[Sequence[float]]) -> None:
    axis = figure.subplots()
    true, predicted = zip(*pairs)
    low, high = min(*true, *predicted), max(*true, *predicted)
    axis.plot([low, high], [low, high], color="0.7", lw=1)
    axis.scatter(true, predicted, s=12, color=OTHER, alpha=0.6)
    axis.set(xlabel="true", ylabel="predicted")
    axis.grid(alpha=0.25)
