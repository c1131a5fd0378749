"""``recurra recall``: images in an associative memory, corrupted cues, what comes back."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .edge import command

if TYPE_CHECKING:
    import numpy as np

    from ..analysis.recall_load import RecallAccuracy
    from ..estimators.associative_store import AssociativeStore

LOADS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 400, 800, 1600)
SHOWN_STEPS, SHOWN_IMAGES = 3, 4


@command
def recall(
    images: Annotated[
        str, typer.Argument(help="A folder of images; digits (built in); random, of unrelated pixels.")
    ] = "digits",
    memory: Annotated[
        str,
        typer.Option(
            help="The memory of the picture, of `recurra list memories`; 'Hopfield, Storkey' is one with a rule."
        ),
    ] = "ModernHopfield",
    patterns: Annotated[int, typer.Option(min=1, help="Images that are stored for the picture.")] = 10,
    noise: Annotated[float, typer.Option(help="Share of the pixels that are turned over in a noisy cue.")] = 0.15,
    hidden: Annotated[
        float, typer.Option(help="Share of the rows that are hidden, from below, in a partial cue.")
    ] = 0.5,
    size: Annotated[
        str | None, typer.Option(help="Height x width that images of a folder are brought to.", show_default="16x16")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Accuracy against load, for every memory.")
    ] = True,
    cues: Annotated[int, typer.Option(min=1, help="Cues at each load of the comparison.")] = 100,
    seconds: Annotated[float, typer.Option(help="For each memory of the comparison.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of the choice of images and the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for recall.png, load.png, recall.csv and the store.")] = Path(
        "recurra-recall"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; the rest goes to stderr.")] = False,
) -> None:
    """Store images, corrupt them, and look at what an associative memory brings back.

    [dim]recurra recall[/dim]

    [dim]recurra recall photos --size 32x32 --memory Hopfield --patterns 5[/dim]
    """
    import numpy as np

    from ..core.checks import check_probability, sentence
    from ..datasets.images import digits, ink, noise_images, read_images
    from ..estimators.associative_store import AssociativeStore, stores
    from .screen import console

    check_probability("recurra", **{"--noise": noise, "--hidden": hidden})
    if seed < 0:
        raise ValueError(sentence("recurra", "--seed", "a whole number from 0", seed))
    if not seconds > 0:
        raise ValueError(sentence("recurra", "--seconds", "more than 0", seconds))
    if images == "digits" and size is not None:
        raise ValueError(sentence("recurra", "--size", "left out for digits, which are 8x8", size))
    if images == "digits":
        found = digits()
    elif images == "random":
        found = noise_images(1600, _size(size or "16x16"), seed)
    else:
        found = read_images(Path(images), _size(size or "16x16"), "recurra")
    bits = ink(found)
    order = np.random.default_rng(seed).permutation(len(bits))
    order = order[
        np.sort(np.unique(bits[order].reshape(len(bits), -1), axis=0, return_index=True)[1])
    ]  # each image once
    if images == "digits":  # one of each class first
        labels = [found.names[i].split()[0] for i in order]
        order = order[np.argsort([labels[:i].count(label) for i, label in enumerate(labels)], kind="stable")]
    bits, names = bits[order], [found.names[i] for i in order]
    count = min(patterns, len(bits))
    able = list(stores())
    named, options = _choice(memory, able) if "," in memory else (memory, None)
    store = AssociativeStore(named.partition(",")[0], options=options)
    if store.kind not in [kind for _, kind, _ in able]:
        want = "one that brings back what its cue is a part of"
        raise ValueError(sentence("recurra", "--memory", want, f"{memory}, which does not"))
    store.write(bits[:count], names[:count])
    screen = console(stderr=as_json)
    height, width = bits.shape[1:]
    named = named if options else type(store.memory).__name__
    what = f"{images}: {len(bits):,} different image{'s' * (len(bits) > 1)} of {height} x {width} pixels"
    stored = "it is" if len(bits) == 1 else f"{count:,} of them {'is' if count == 1 else 'are'}"
    screen.print(f"{what}; {stored} stored in {named}", soft_wrap=True)
    picture, table = _recalls(store, bits[:count], names[:count], noise, hidden, seed)
    _write(out, "recall.png", picture)
    store.save(out / "store.safetensors")
    _show_recalls(screen, table, store)
    rows: list[RecallAccuracy] = []
    if compare:
        rows = _compared(screen, bits, what, noise, cues, seconds, seed, able, out)
    if as_json:
        record: dict[str, Any] = {"images": what, "memory": named, "recalls": table}
        record |= {"fullness": _finite(store.fullness()._asdict())}
        typer.echo(json.dumps({**record, "loads": [_finite(row._asdict()) for row in rows]}, indent=2))
    written = "recall.png and store.safetensors" + (", load.png and recall.csv" if compare else "")
    screen.print(f"Written to {out}: {written}", soft_wrap=True)


def _choice(memory: str, able: list[tuple[str, Any, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """Name and options of a memory with another rule than its own, which has that name in the comparison."""
    from ..core.checks import sentence

    found = {name.lower().replace(" ", ""): (name, options) for name, _, options in able}
    key = memory.lower().replace(" ", "")
    if key not in found:
        names = ", ".join(repr(name) for name, _, options in able if options)
        raise ValueError(
            sentence("recurra", "--memory", f"a name of `recurra list memories`, or one of {names}", memory)
        )
    return found[key]


def _size(text: str) -> tuple[int, int]:
    from ..core.checks import sentence

    found = re.fullmatch(r"\s*(\d{1,4})\s*[xX*]\s*(\d{1,4})\s*", text)
    if found is None or not all(int(n) for n in found.groups()) or int(found[1]) * int(found[2]) > 2**14:
        raise ValueError(sentence("recurra", "--size", "height x width such as 16x16, at most 128x128", repr(text)))
    return int(found[1]), int(found[2])


def _recalls(
    store: AssociativeStore, bits: np.ndarray[Any, Any], names: list[str], noise: float, hidden: float, seed: int
) -> tuple[bytes, list[dict[str, Any]]]:
    """The picture, and a row of facts for every cue."""
    import numpy as np

    from ..analysis.recall_load import flip
    from ..report.recall import RecalledImage, draw_recalls

    shown = min(SHOWN_IMAGES, len(bits))
    noisy = flip(bits[:shown], noise, np.random.default_rng(seed))
    partial = bits[:shown].astype(float)
    partial[:, round(partial.shape[1] * (1 - hidden)) :] = np.nan
    rows, table = [], []
    for kind, cues in (("noisy", noisy), ("partial", partial)):
        found = store.recall(cues)
        paths = store.steps(cues, SHOWN_STEPS)
        for i in range(shown):
            right = bool((found.patterns[i] == bits[i]).all())
            verdict = "right" if right else f"{(found.patterns[i] != bits[i]).mean():.0%} wrong"
            cue = np.where(np.isnan(cues[i]), 0.3, cues[i]) if cues.dtype.kind == "f" else cues[i]
            columns = {"stored": bits[i], "cue": cue}
            columns |= {("" if j else "steps") + " " * j: path[i] for j, path in enumerate(paths)}
            columns["recalled"] = found.patterns[i]
            rows.append(RecalledImage(f"{names[i]}\n{kind}", columns, verdict))
            overlap, certainty = round(float(found.overlap[i]), 4), round(float(found.certainty[i]), 4)
            facts = {"image": names[i], "cue": kind, "right": right, "nearest": found.names[i], "overlap": overlap}
            more = {"certainty": certainty, "converged": bool(found.converged[i]), "steps": int(found.steps[i])}
            table.append({**facts, **more})
    title = f"{type(store.memory).__name__}, {len(store)} images stored"
    return draw_recalls(rows, title), table


def _show_recalls(screen: Any, rows: list[dict[str, Any]], store: AssociativeStore) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for title in ("image", "cue", "recalled", "overlap", "certainty", "came to rest", "steps"):
        table.add_column(title, justify="left" if title in ("image", "cue", "recalled") else "right")
    for row in rows:
        verdict = "right" if row["right"] else f"nearest to {row['nearest']}"
        numbers = [
            f"{row['overlap']:.2f}",
            f"{row['certainty']:.2f}",
            "yes" if row["converged"] else "no",
            str(row["steps"]),
        ]
        table.add_row(*(Text(text) for text in (row["image"], row["cue"], verdict, *numbers)))
    screen.print(table)
    full = store.fullness()
    theory = (
        "no theory says how many it holds" if math.isnan(full.load) else f"{full.load:.0%} of its capacity by theory"
    )
    screen.print(f"{full.patterns} stored, {full.kept:.0%} of them kept as they are; {theory}.", soft_wrap=True)


def _compared(
    screen: Any,
    bits: np.ndarray[Any, Any],
    what: str,
    noise: float,
    cues: int,
    seconds: float,
    seed: int,
    kinds: list[tuple[str, Any, dict[str, Any]]],
    out: Path,
) -> list[RecallAccuracy]:
    """The table and the plot of accuracy against load."""
    from rich import box
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table
    from rich.text import Text

    from ..analysis.recall_load import recall_accuracy
    from ..report.recall import draw_accuracies

    loads = [load for load in LOADS if load <= len(bits)]
    columns = (TextColumn("{task.description:<32.32}"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=1.0)

        def told(name: str, part: float) -> None:
            bar.update(task, description=name, completed=part)

        rows = recall_accuracy(
            kinds, bits, loads, noise=noise, num_cues=cues, seconds=seconds, seed=seed, on_progress=told
        )
    shown = [load for load in loads if load in (1, 3, 8, 20, 50, 120, 400, 1600)]
    title = f"Right recalls in %, of {cues:,} cues with {noise:.0%} noise, against patterns stored"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), title=title)
    table.add_column("memory", no_wrap=True)
    for load in shown:
        table.add_column(f"{load}", justify="right", no_wrap=True)
    by_name: dict[str, dict[int, RecallAccuracy]] = {}
    for row in rows:
        by_name.setdefault(row.memory, {})[row.patterns] = row
    for name, own in by_name.items():
        table.add_row(Text(name), *(Text(f"{100 * own[n].right:.0f}" if n in own else "-") for n in shown))
    screen.print(table)
    if any(len(own) < len(loads) for own in by_name.values()):
        screen.print(f"- : not begun within {seconds:g} s for this memory (--seconds).")
    series = {n: ([*own], [r.right for r in own.values()]) for n, own in by_name.items()}
    _write(out, "load.png", draw_accuracies(series, noise, what))
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(rows[0]._fields)
    writer.writerows(rows)
    _write(out, "recall.csv", target.getvalue())
    return rows


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def _write(folder: Path, name: str, content: bytes | str) -> None:
    from ..training.files import write_atomically

    write_atomically(folder / name, content)
