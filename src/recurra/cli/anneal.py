"""``recurra anneal``: a state of low energy of an Ising, QUBO or max-cut problem."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from .edge import INTERRUPTED, command

if TYPE_CHECKING:
    from rich.console import Console

    from ..datasets.quadratic_problem import QuadraticProblem
    from ..memories.anneal import AnnealResult, Moment

Method = Literal["annealing", "hopfield", "memristive", "wolff"]
ROWS = 12


@command
def anneal(
    problem: Annotated[
        Path,
        typer.Argument(
            help="dimod's JSON (bqm.to_serializable()), its COOrdinate text, or a graph of the G-set.",
            show_default=False,
        ),
    ],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Method))}.")] = "annealing",
    sweeps: Annotated[int | None, typer.Option(help="Of each read.", show_default="1000")] = None,
    reads: Annotated[
        int | None, typer.Option(help="Independent ones.", show_default="10; with --seconds, what it has time for")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Time for the search.", show_default="none")] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Reads side by side.", show_default="torch's own")] = None,
    vartype: Annotated[
        str | None,
        typer.Option(help="spin or binary, where a COOrdinate text does not say.", show_default="the file's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the best state goes, as JSON.", show_default="PROBLEM.best.json")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; the rest goes to stderr.")] = False,
) -> None:
    """Find a state of low energy; print energy against time, write the best state and a plot beside it.

    Ctrl-C ends the search, and the best state so far is written.
    """
    from ..core.checks import check_choice, sentence
    from ..datasets.quadratic_problem import read_quadratic_problem
    from ..memories.anneal import METHODS
    from ..memories.anneal import anneal as search
    from ..memories.systems import SparseSystem
    from ..training.files import write_atomically
    from .screen import console, facts
    from .stopping import Stopping

    check_choice("anneal", "--method", method, METHODS)
    if vartype is not None:
        vartype = vartype.lower()
        check_choice("anneal", "--vartype", vartype, ("spin", "binary"))
    found = read_quadratic_problem(problem, vartype)  # type: ignore[arg-type]
    target = out or problem.with_name(f"{problem.stem}.best.json").relative_to(problem.parent)
    if target.is_dir():
        raise ValueError(sentence("anneal", "--out", "a file", f"{target}, a folder"))
    if target.suffix != ".json" or target.resolve() == problem.resolve():
        raise ValueError(sentence("anneal", "--out", "a new file FILE.json", str(target)))
    form = found.spin_form()
    system = SparseSystem(found.num_variables, form.edges, form.couplings, form.outer)
    screen = console(stderr=as_json)
    facts(screen, [("Problem", f"{problem.name}: {found.describe()}"), ("Method", f"{method}, seed {seed}")])
    with Stopping() as stopping, _Bar(screen, found, form.offset) as bar:
        best = search(
            system,
            method,  # type: ignore[arg-type]
            sweeps=sweeps,
            reads=reads,
            seconds=seconds,
            seed=seed,
            threads=threads,
            on_progress=bar,
            stop=lambda: stopping.asked,
        )
    result = record(problem.name, found, best, seed)
    write_atomically(target, json.dumps(result, indent=2) + "\n")
    picture = target.with_suffix(".png")
    write_atomically(picture, _picture(found, best, form.offset))
    if stopping.asked:
        screen.print("Stopped; this is the best so far.")
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _tell(screen, found, best, form.offset, f"{target} and {picture.name}")
    if stopping.signal is not None:
        raise typer.Exit(INTERRUPTED if stopping.signal == signal.SIGINT else 128 + stopping.signal)


def _tell(screen: Console, found: QuadraticProblem, best: AnnealResult, offset: float, files: str) -> None:
    """The table, the best, and what it took."""
    from .screen import facts

    _table(screen, found, best, offset)
    rows = [("Best", f"{shown_name(found)} {_shown(found, best.energy + offset)}")]
    if len(best.reads) > 1:
        hits = int((best.energies <= best.energy + 1e-9 * max(1.0, abs(best.energy))).sum())
        rows.append(("Found by", f"{hits:,} of {len(best.reads):,} reads"))
    speed = best.sweeps * found.num_variables / max(best.seconds, 1e-9)
    rows.append(
        ("Work", f"{best.sweeps:,} sweeps in {best.seconds:.2f} s, {speed / 1e6:,.1f} million looks at a spin a second")
    )
    rows.append(("Written", files))
    screen.print()
    facts(screen, rows)


def record(name: str, problem: QuadraticProblem, best: AnnealResult, seed: int) -> dict[str, Any]:
    """What is written: the state in the problem's own variables, its energy as the file's own formula gives it."""
    values = problem.values(best.spins)
    energy = float(problem.energy(values[None]))
    offset = energy - best.energy
    return {
        "problem": name,
        "vartype": problem.vartype,
        "energy": energy,
        **({"cut": 0.0 - energy} if problem.is_cut else {}),
        "variables": [list(label) if isinstance(label, tuple) else label for label in problem.labels],
        "values": values.tolist(),
        "method": best.method,
        "seed": seed,
        "reads": len(best.reads),
        "sweeps": best.sweeps,
        "seconds": round(best.seconds, 4),
        "energies_of_reads": [each + offset for each in best.energies.tolist()],
        "energy_against_time": [
            {"seconds": round(m.seconds, 4), "sweeps": m.sweeps, "energy": m.energy + offset} for m in best.trace
        ],
    }


def shown_name(problem: QuadraticProblem) -> str:
    """What a person looks at: a cut grows, an energy falls."""
    return "cut" if problem.is_cut else "energy"


def _shown(problem: QuadraticProblem, energy: float) -> str:
    value = (0.0 - energy if problem.is_cut else energy) + 0.0  # no zero below zero
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:,.6g}"


def _moments(best: AnnealResult) -> list[Moment]:
    """Of the trace, the first, the last, and about ten of those between at which the best state changed."""
    changed = [m for before, m in zip((None, *best.trace), best.trace) if before is None or m.energy < before.energy]
    if len(changed) > ROWS:
        last = len(changed) - 1
        changed = [changed[round(i * last / (ROWS - 1))] for i in range(ROWS)]
    return changed if changed[-1] is best.trace[-1] else [*changed, best.trace[-1]]


def _table(screen: Console, problem: QuadraticProblem, best: AnnealResult, offset: float) -> None:
    """Energy against time."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("seconds", "sweeps", f"best {shown_name(problem)}", "mean of the reads"):
        table.add_column(column, justify="right")
    for m in _moments(best):
        row = (f"{m.seconds:.2f}", f"{m.sweeps:,}", _shown(problem, m.energy + offset), _mean(problem, m.mean + offset))
        table.add_row(*row)
    screen.print()
    screen.print(table)


def _mean(problem: QuadraticProblem, energy: float) -> str:
    value = (0.0 - energy if problem.is_cut else energy) + 0.0
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.4g}"


def _picture(problem: QuadraticProblem, best: AnnealResult, offset: float) -> bytes:
    """The lowest energy and the mean of the reads against time; the ends of all reads at the side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sign = -1.0 if problem.is_cut else 1.0
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis, side = figure.subplots(1, 2, width_ratios=(3, 1))
    times = [m.seconds for m in best.trace]
    axis.plot(times, [sign * (m.mean + offset) for m in best.trace], lw=0.6, color="0.75", label="mean of the reads")
    best_line = [sign * (m.energy + offset) for m in best.trace]
    axis.step(times, best_line, where="post", lw=1.8, color="#0077bb", label="best so far")
    axis.set(xlabel="seconds", ylabel=shown_name(problem), xscale="log")
    axis.legend(frameon=False, fontsize=8)
    side.hist((sign * (best.energies + offset)).numpy(), bins=20, color="#0077bb", alpha=0.7)
    side.set(xlabel=f"{shown_name(problem)} at the end", ylabel="reads")
    for each in (axis, side):
        each.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{problem.describe()}: {best.method}", loc="left", fontsize=10)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


class _Bar:
    """A bar with the time left and the best so far, on a terminal."""

    def __init__(self, screen: Console, problem: QuadraticProblem, offset: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.problem, self.offset = problem, offset
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TimeRemainingColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )

    def __enter__(self) -> _Bar:
        self.bar.__enter__()
        self.task = self.bar.add_task("Looking at the temperatures", total=1.0)
        return self

    def __call__(self, moment: Moment) -> None:
        text = f"best {shown_name(self.problem)} {_shown(self.problem, moment.energy + self.offset)}"
        self.bar.update(self.task, description=text, completed=moment.part)

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)
