"""Sections that every page has."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .page import Page

OURS, OTHER = "#0b63a5", "#b0572a"


def facts(page: Page, rows: Sequence[Sequence[str]]) -> None:
    """What the data looks like and what was decided, in words: (name, value)."""
    last, cells = "", []
    for name, value in rows:
        cells.append(["" if name == last else name, value])
        last = name
    page.table(["", ""], cells)


def percent(value: float | None, places: int = 1) -> str | None:
    """A share in percent; None stays None."""
    return None if value is None else f"{value:.{places}%}"


def verdict(page: Page, ours: float | None, others: Sequence[Mapping[str, Any]], key: str, *, lower: bool) -> None:
    """Say so where a simple method is better than the model."""
    named = [(row[key], row["name"]) for row in others if row.get(key) is not None]
    if ours is None or not named:
        return
    best, name = min(named) if lower else max(named)
    if best < ours if lower else best > ours:
        page.text(f"On these data '{name}' is better than this model: train it for longer (--budget), or take that.")


def quoted(folder: str) -> str:
    """A folder as a shell takes it."""
    return shlex.quote(folder)


def plain(text: str) -> str:
    """Text for a picture: no formula is read out of it."""
    return text.replace("$", r"\$")


def curves(page: Page, history: Sequence[Mapping[str, Any]], unit: str) -> None:
    """Training and validation loss over the updates."""
    rows = [row for row in history if isinstance(row.get("update"), int)]
    train = next((k for k in (rows[0] if rows else {}) if k.startswith("train")), None)
    valid = next((k for k in (rows[0] if rows else {}) if k.startswith("validation")), None)
    if len(rows) < 2:
        return
    page.section("How it learned")

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for key, color, label in ((train, OTHER, "training"), (valid, OURS, "validation")):
            points = [(r["update"], r[key]) for r in rows if key is not None and isinstance(r.get(key), int | float)]
            if points:
                axis.plot(*zip(*points), "o-", ms=3.5, lw=1.5, color=color, label=label)
        axis.set(xlabel="update", ylabel=f"loss in {unit}" if unit else "loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)

    caption = "Loss while training; with dropout or noise, the training loss is higher than the model's own."
    if not any(isinstance(row.get(valid or ""), int | float) for row in rows):
        caption += " Nothing was held out to validate on while training."
    page.figure(draw, caption)


def cost(page: Page, config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Size and speed."""
    record = config["record"]
    rows: list[list[Any]] = [["parameters", f"{found['num_parameters']:,}"]]
    if "model_bytes" in found:
        rows.append(["weights on disk", f"{found['model_bytes'] / 2**20:,.1f} MiB"])
    rows.append(["training", f"{record.get('updates_made', 0):,} updates in {record.get('seconds', 0):,.0f} s"])
    rows += found.get("speed", [])
    rows.append(["made with", ", ".join(f"{name} {version}" for name, version in config["versions"].items())])
    page.section("Size and speed").table(["", ""], rows)


def next_steps(page: Page, commands: Sequence[str], python: str) -> None:
    """How to go on."""
    page.section("How to use it").text("On the command line:").code("\n".join(commands)).text("In Python:").code(python)
