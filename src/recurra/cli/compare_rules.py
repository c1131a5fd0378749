"""``recurra compare-rules``: learning rules side by side on one trajectory."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .edge import command

if TYPE_CHECKING:
    from rich.console import Console

    from ..analysis import Compared, Locality
    from ..core.cell import Cell
    from ..core.loss import Loss
    from ..core.rule import Chunk, LearningRule

TASKS = ("random", "adding", "letters", "brackets")
USUAL = ("RTRL", "SnAp(n=1)", "UORO", "TruncatedBPTT")


@command
def compare_rules(
    cell: Annotated[
        str, typer.Argument(help="A cell of `recurra list cells`, or module:MyCell, file.py:MyCell.")
    ] = "Elman",
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help='A rule with its options, as often as you like: --rule "SnAp(n=2)".', show_default=", ".join(USUAL)
        ),
    ] = None,
    task: Annotated[str, typer.Option(help=f"What is learned: {', '.join(TASKS)}.")] = "random",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a task: a table whose next row, or a text (.txt) whose next character is learned."
        ),
    ] = None,
    hidden_size: Annotated[int, typer.Option(min=1, help="H, hidden units.")] = 8,
    num_steps: Annotated[int, typer.Option("--steps", min=1, help="Length of the trajectory.")] = 100,
    chunk: Annotated[int, typer.Option(min=1, help="Steps that a rule sees at a time; 1 is online.")] = 1,
    rows: Annotated[int, typer.Option(min=1, help="B, trajectories side by side (one with --data).")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Passes of rules that draw random numbers.")] = 20,
    locality: Annotated[
        bool, typer.Option("--locality", help="Also find out what each rule reads: local in space, local in time?")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of weights, task and draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare-rules.csv, .json and .png.", show_default="none")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; the rest goes to stderr.")] = False,
) -> None:
    """Put learning rules on one trajectory: cosine with the exact gradient, bias, variance, time and memory of a step.

    The weights are random and stay as they are. The exact gradient is that of the summed loss through the whole past.
    """
    import torch

    from ..analysis import audit
    from ..analysis import compare_rules as compare
    from .screen import console

    rules = [read_rule(text) for text in (rule or USUAL)]
    given = trajectory(cell, task, data, hidden_size, num_steps, rows, seed)
    screen = console(stderr=as_json)
    if not as_json:
        facts = f"{given.what}; {len(rules)} rule{'s' * (len(rules) != 1)}, {chunk} step{'s' * (chunk != 1)} at a time"
        screen.print(facts, soft_wrap=True)
    with _progress(screen) as told:
        parts = 2 if locality else 1
        torch.manual_seed(seed)
        found = compare(
            rules,
            given.cell,
            given.chunk,
            given.loss,
            num_steps=chunk,
            draws=draws,
            seed=seed,
            on_progress=lambda what, part: told(what, part / parts),
        )
        places: list[Locality] = []
        if locality:
            small, _ = build(cell, given.input_size, min(hidden_size, 5), given.output_size, seed)
            for done, one in enumerate(rules):
                told("what is read", 0.5 + 0.5 * done / len(rules))
                places.append(audit(one, small, seed=seed))
    if out is not None:
        _write(out, found, places, chunk, given.what)
    if as_json:
        typer.echo(json.dumps(record(found, places, chunk, given.what), indent=2))
    else:
        _show(screen, found, places)
        if out is not None:
            screen.print(f"Written: {out / 'compare-rules.csv'}, .json and .png")


class Given(NamedTuple):
    """A net, its trajectory, and both in words."""

    cell: Cell
    chunk: Chunk
    loss: Loss
    what: str
    input_size: int
    output_size: int


def read_rule(text: str) -> LearningRule[Any]:
    """A rule by name and options; nothing is evaluated.

    Raises:
        ValueError: no such rule or option, a value out of range, a search rule.
    """
    from ..core.checks import sentence
    from ..core.rule import LearningRule
    from ..estimators.named import named

    kind = named("compare-rules", "--rule", "rules", text)
    if not issubclass(kind.cls, LearningRule):
        hint = "It searches by fitness and follows no trajectory."
        raise ValueError(
            sentence("compare-rules", "--rule", "a rule that learns from a stream", kind.cls.__name__, hint)
        )
    made = kind.make()
    assert isinstance(made, LearningRule)
    return made


def build(name: str, input_size: int, hidden_size: int, output_size: int, seed: int) -> tuple[Cell, str]:
    """A cell with a linear readout, in float64, and its name.

    Raises:
        ValueError: no such cell, or one that is not made from sizes or takes no vectors.
    """
    import torch

    from ..core.catalog import find
    from ..core.cell import Cell
    from ..core.checks import sentence
    from ..core.spec import Leaf
    from ..testing.target import load_cell
    from ..wrappers import Readout

    kind = load_cell(name, "compare-rules") if ":" in name else find("cells", name, "compare-rules", "CELL")
    want = "a cell that is made from input_size and hidden_size"
    torch.manual_seed(seed)
    try:
        made = kind(input_size, hidden_size)
    except TypeError as error:
        raise ValueError(sentence("compare-rules", "CELL", want, f"{name} ({error})")) from error
    assert isinstance(made, Cell)
    if made.input_spec != Leaf((input_size,)) or not isinstance(made.output_spec, Leaf):
        raise ValueError(sentence("compare-rules", "CELL", "one that takes and gives a vector for each row", name))
    return Readout(made, output_size).double().eval(), kind.__name__


def trajectory(
    name: str, task: str, data: Path | None, hidden_size: int, num_steps: int, rows: int, seed: int
) -> Given:
    """The net and what it goes through.

    Raises:
        ValueError: an unknown task, a file that is too short, or what `build` raises.
        FileNotFoundError: no such file.
    """
    import torch

    from ..core.checks import check_choice, sentence
    from ..core.loss import CrossEntropy, MeanSquaredError
    from ..core.rule import Chunk

    check_choice("compare-rules", "--task", task, TASKS)
    generator = torch.Generator().manual_seed(seed)
    if data is not None and rows != 1:
        raise ValueError(sentence("compare-rules", "--rows", "1 with --data", rows))
    if data is not None and data.suffix.lower() == ".txt":
        tokens, size = _characters(data, num_steps)
        source = f"{num_steps} characters of {data.name}"
    elif data is not None:
        xs, targets = _table(data, num_steps)
        source = f"{num_steps} rows of {data.name}"
    elif task in ("letters", "brackets"):
        tokens, size = _text(task, num_steps, rows, generator)
        source = f"{num_steps} characters of task {task}"
    elif task == "adding":
        from ..tasks.adding import adding_problem

        if num_steps < 2:
            raise ValueError(sentence("compare-rules", "--steps", "at least 2 for task adding", num_steps))
        sums = adding_problem(num_steps, rows, generator)
        xs, targets = sums.xs.double(), torch.zeros(num_steps, rows, 1, dtype=torch.float64)
        targets[-1] = sums.targets[:, None]
        source = f"{num_steps} steps of task adding"
    else:
        xs = torch.randn(num_steps, rows, 3, generator=generator, dtype=torch.float64)
        targets = torch.randn(num_steps, rows, 2, generator=generator, dtype=torch.float64)
        source = f"{num_steps} random steps"
    if (data is None and task in ("random", "adding")) or (data is not None and data.suffix.lower() != ".txt"):
        loss: Loss = MeanSquaredError()
        weights = None
        if data is None and task == "adding":
            weights = torch.zeros(num_steps, rows, dtype=torch.float64)
            weights[-1] = 1
        chunk = Chunk(xs, targets, weights)
        sizes = xs.shape[-1], targets.shape[-1]
    else:
        loss, sizes = CrossEntropy(), (size, size)
        chunk = Chunk(torch.eye(size, dtype=torch.float64)[tokens[:-1]], tokens[1:])
    made, kind = build(name, sizes[0], hidden_size, sizes[1], seed)
    count = sum(p.numel() for p in made.parameters())
    what = (
        f"{kind} with {hidden_size} units and a readout, {count:,} parameters; {source}, {rows} row{'s' * (rows != 1)}"
    )
    return Given(made, chunk, loss, what, *sizes)


def _text(task: str, num_steps: int, rows: int, generator: Any) -> tuple[Any, int]:
    """(T + 1, B) characters of an endless text, and how many different ones there are."""
    from ..tasks import endless_texts

    if task == "letters":
        return endless_texts.counted_letters(num_steps + 1, rows, generator, most=8), 3
    return endless_texts.distant_brackets(num_steps + 1, rows, generator), 13


def _characters(path: Path, num_steps: int) -> tuple[Any, int]:
    """(T + 1, 1) characters of a file."""
    import torch

    from .reading import read_text

    text = read_text(path, min_chars=num_steps + 1)[: num_steps + 1]
    known = {char: i for i, char in enumerate(sorted(set(text)))}
    return torch.tensor([[known[char]] for char in text]), len(known)


def _table(path: Path, num_steps: int) -> tuple[Any, Any]:
    """(T, 1, D) rows of numbers, brought to mean 0 and deviation 1, and the rows that follow."""
    import numpy as np
    import torch

    from ..core.checks import sentence
    from ..datasets.table import read_table

    table = read_table(path)
    names = table.of_kind("numbers")
    if not names:
        raise ValueError(sentence("compare-rules", str(path), "a table with a column of numbers", "none"))
    values = np.stack([table.columns[n] for n in names], 1)
    values = values[np.isfinite(values).all(1)][: num_steps + 1]
    if len(values) < num_steps + 1:
        hint = "Give fewer --steps."
        raise ValueError(
            sentence("compare-rules", str(path), f"at least {num_steps + 1} complete rows", len(values), hint)
        )
    spread = values.std(0)
    whole = torch.from_numpy((values - values.mean(0)) / np.where(spread > 0, spread, 1.0))[:, None]
    return whole[:-1], whole[1:]


# --- what comes out ---

_COLUMNS = ("cosine", "bias", "deviation", "us/step", "carry", "peak")


def _bytes(count: int) -> str:
    """A size for reading."""
    return (
        f"{count} B" if count < 10_000 else f"{count / 1e3:,.0f} kB" if count < 10_000_000 else f"{count / 1e6:,.0f} MB"
    )


def _words(one: Compared) -> list[str]:
    def number(value: float, form: str = ".3f") -> str:
        return "-" if math.isnan(value) else format(value, form)

    cosine = number(one.cosine, ".4f") if one.draws == 1 else f"{one.cosine:.2f} +- {one.cosine_std:.2f}"
    bias = number(one.bias) + (f" ({one.bias_noise:.2f})" if one.draws > 1 and not math.isnan(one.bias) else "")
    deviation = number(one.deviation) if one.draws > 1 else "-"
    return [
        cosine,
        bias,
        deviation,
        f"{one.us_per_step:,.0f}",
        _bytes(one.carry_bytes),
        _bytes(one.peak_bytes),
    ]


def _show(screen: Console, found: list[Compared], places: list[Locality]) -> None:
    """Tables, and a line under them for what needs a word."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("rule", overflow="fold", min_width=14)
    for title in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    notes = []
    for one in found:
        if one.refused is not None:
            notes.append(f"{one.rule} is left out: {one.refused}")
            continue
        table.add_row(*(Text(text) for text in (one.rule + ("*" if one.at_once else ""), *_words(one))))
        if one.is_step:
            notes.append(f"{one.rule} gives steps, no gradients: only their direction is compared.")
    screen.print(table)
    screen.print("Of the whole trajectory's direction; the exact gradient has length 1.", soft_wrap=True)
    draws = max(one.draws for one in found)
    if draws > 1:
        text = f"In brackets: what chance alone makes of no bias in {draws} draws; deviation: of a single draw."
        screen.print(text, soft_wrap=True)
    if any(one.at_once for one in found):
        screen.print("* begins anew with every chunk, so it was given the whole trajectory at once.")
    for note in notes:
        screen.print(note, soft_wrap=True)
    if not places:
        return
    second = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for title in ("rule", "local in space", "local in time", "reads together", "memory"):
        second.add_column(title, overflow="fold")
    for one, where in zip(found, places):
        if where.refused is None:
            grows = f"{where.bytes_per_step:+,.0f} B a step" if where.bytes_per_step > 0 else "fixed"
            reads = f"{where.reads} of {where.num_places} places"
            yes = ("yes" if where.in_space else "no", "yes" if where.in_time else "no")
            second.add_row(*(Text(text) for text in (one.rule, *yes, reads, grows)))
    screen.print()
    screen.print(second)
    for one, where in zip(found, places):
        if where.refused is None and not where.in_space:
            screen.print(f"{one.rule}: {where.why}", soft_wrap=True)


def record(found: list[Compared], places: list[Locality], chunk: int, what: str) -> dict[str, Any]:
    """Everything as plain values."""
    from .train import finite

    whole = {
        "what": what,
        "chunk": chunk,
        "rules": [dataclasses.asdict(one) for one in found],
        "locality": [dataclasses.asdict(one) for one in places],
    }
    plain: dict[str, Any] = finite(whole)
    return plain


def _write(out: Path, found: list[Compared], places: list[Locality], chunk: int, what: str) -> None:
    """CSV, JSON and picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ..analysis import draw_comparison
    from ..training.files import write_atomically

    out.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO()
    names = [f.name for f in dataclasses.fields(found[0]) if f.name != "cosines"]
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(names)
    for one in found:
        row = [getattr(one, name) for name in names]
        writer.writerow(["" if v is None or (isinstance(v, float) and math.isnan(v)) else v for v in row])
    write_atomically(out / "compare-rules.csv", lines.getvalue())
    write_atomically(out / "compare-rules.json", json.dumps(record(found, places, chunk, what), indent=2) + "\n")
    figure = Figure(figsize=(11, 1.6 + 0.42 * max(4, len(found))), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    draw_comparison(figure, found, chunk)
    figure.suptitle(what, fontsize=9, x=0.01, ha="left")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(out / "compare-rules.png", picture.getvalue())


class _progress:
    """A bar with the time left, on a terminal."""

    def __init__(self, screen: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description:<28.28}"),
            BarColumn(bar_width=None),
            TimeRemainingColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )

    def __enter__(self) -> Any:
        self.bar.__enter__()
        task = self.bar.add_task("", total=1.0)
        return lambda what, part: self.bar.update(task, description=what, completed=part)

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)
