"""Pictures of recall: cue, steps and what came back; accuracy against load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .page import drawing


class RecalledImage(NamedTuple):
    """One row of the picture.

    Args:
        name: of the pattern that was meant.
        columns: title -> image (height, width), from the stored one to the recall.
        verdict: in a few words.
    """

    name: str
    columns: dict[str, np.ndarray[Any, Any]]
    verdict: str


def draw_recalls(rows: Sequence[RecalledImage], title: str) -> bytes:
    """PNG: a row for each cue, the stored image, the cue (grey is hidden), steps between, the recall."""
    titles = list(rows[0].columns)

    def draw(figure: Any) -> None:
        figure.suptitle(title, fontsize=10)
        axes = figure.subplots(len(rows), len(titles), squeeze=False)
        for number, row in enumerate(rows):
            for axis, name in zip(axes[number], titles):
                axis.imshow(row.columns[name], cmap="gray_r", interpolation="nearest", vmin=0, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
                axis.spines[:].set_edgecolor("0.75")
                axis.patch.set_edgecolor("0.75")  # a frame all round, also of white images
                axis.patch.set_linewidth(1.0)
                if number == 0:
                    axis.set_title(name, fontsize=8)
            axes[number][0].set_ylabel(row.name, fontsize=7)
            axes[number][-1].set_xlabel(row.verdict, fontsize=7)

    return drawing(draw, size=(1.0 * len(titles) + 0.6, 1.1 * len(rows) + 0.5))


def draw_accuracies(series: Mapping[str, tuple[Sequence[int], Sequence[float]]], noise: float, what: str) -> bytes:
    """PNG: share of right recalls against stored patterns, a line for each memory."""

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        marks = "osD^v<>pP*Xh"
        for number, (name, (loads, right)) in enumerate(series.items()):
            style = {"marker": marks[number % len(marks)], "linestyle": ("-", "--", ":")[number // 10 % 3]}
            axis.plot(loads, right, label=name, markersize=4, linewidth=1.2, **style)
        axis.set_xscale("log")
        axis.set_xlabel("patterns stored")
        axis.set_ylabel("right recalls")
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(f"{what}, {noise:.0%} of the bits of a cue turned over", fontsize=10)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)

    return drawing(draw, size=(9.0, 4.6))
