"""A language model of characters: validation loss on Tiny Shakespeare after a quarter of an hour."""

from __future__ import annotations

import os
import pydoc_data.topics
from pathlib import Path

import torch

from recurra.estimators import LanguageModel

from .section import Section

TARGET = 1.42  # nats per character
MINUTES = 15.0
BUDGET = 12.5  # minutes for `fit`: the rest is for a machine that becomes slower after the calibration


def data_file() -> Path:
    """``tinyshakespeare/input.txt`` below the folder that the environment variable RECURRA_DATA names."""
    folder = os.environ.get("RECURRA_DATA")
    if not folder:
        raise FileNotFoundError(
            "benchmarks: RECURRA_DATA must be the folder with tinyshakespeare/input.txt, got nothing."
        )
    return Path(folder) / "tinyshakespeare" / "input.txt"


def run(quick: bool = False) -> Section:
    """The first 90 % of the characters for training, the last 10 % for validation, everything inside the budget."""
    text = pydoc_data.topics.topics["strings"] * 4 if quick else data_file().read_text(encoding="utf-8")
    split = int(0.9 * len(text))
    options = {"hidden_size": 32, "num_updates": 20} if quick else {**RECIPE, "budget_minutes": BUDGET}
    model = LanguageModel(**options)
    curve: list[tuple[float, float]] = []

    def show(progress: object) -> None:
        value = getattr(progress, "validation", None)
        if value is not None:
            curve.append((progress.seconds, value))  # type: ignore[attr-defined]
            print(f"  {progress.seconds / 60:5.1f} min  {value:.4f} nats/char", flush=True)  # type: ignore[attr-defined]

    model.fit(text[:split], text[split:], show)
    result = model.evaluate(text[split:])
    record = model.record_
    given = ", ".join(f"{k}={v!r}" for k, v in options.items())
    size = sum(p.numel() for p in model.cell_.parameters())
    row = (
        f"`LanguageModel({given})`",
        f"{size:,}",
        f"{record['seconds'] / 60:.1f} (limit {MINUTES:g})",
        f"{result['nats_per_char']:.4f} (target <= {TARGET})",
        f"{result['bits_per_char']:.4f}",
    )
    notes = (
        f"{len(text):,} characters, the first {split:,} for training, the last {len(text) - split:,} for validation; "
        f"{torch.get_num_threads()} threads. The time is that of `fit`, calibration and all validations included. The loss is "
        "that of the whole validation part, read once from its beginning with the state carried on and nothing adapted.",
        "The weights kept are those of the best validation, on the same part of the text; validations: "
        + ", ".join(f"{seconds / 60:.1f} min {value:.4f}" for seconds, value in curve)
        + ".",
    )
    columns = ("model", "parameters", "minutes", "nats/char", "bits/char")
    return Section("Tiny Shakespeare in fifteen minutes", columns, [row], notes)


RECIPE: dict[str, object] = {
    "num_models": 2,
    "hidden_size": 512,
    "batch_size": 64,
    "num_steps": 64,
    "restart": 0.01,
    "lr": 4e-3,
    "precision": "bfloat16",
}
