"""``recurra explain``: what the compiler makes of a cell."""

from __future__ import annotations

from typing import Annotated

import typer

from .edge import command


@command
def explain(
    cell: Annotated[str, typer.Argument(help="A cell of `recurra list cells`, or module:MyCell, file.py:MyCell.")],
    input_size: Annotated[int, typer.Option(help="D, features per step.", min=1)] = 64,
    hidden_size: Annotated[int, typer.Option(help="H, hidden units.", min=1)] = 128,
    rows: Annotated[int, typer.Option(help="B, for the predicted time.", min=1)] = 32,
) -> None:
    """Say what the native engine makes of a cell: what is hoisted, recurrent, fused, stored."""
    from rich.table import Table

    from .screen import console

    name, lines = explained(cell, input_size, hidden_size, rows)
    screen = console()
    screen.print()
    screen.print(name, style="bold", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    before = ""
    for word, sentence in lines:
        table.add_row("" if word == before else word, sentence)
        before = word
    screen.print(table)


def explained(cell: str, input_size: int, hidden_size: int, rows: int) -> tuple[str, list[tuple[str, str]]]:
    """The cell as it was made, and the plan in words.

    Raises:
        ValueError: no such cell, it takes no sizes, or it has no plan; the sentence says why.
    """
    from ..core.catalog import find
    from ..core.cell import Cell, CompositeCell, PointwiseCell, StochasticCell, quiet
    from ..core.checks import sentence
    from ..core.spec import zeros
    from ..engines.native import training_plan
    from ..testing.target import load_cell

    kind = load_cell(cell, "explain") if ":" in cell else find("cells", cell, "explain", "CELL")
    try:
        made = kind(input_size, hidden_size)
    except TypeError as error:
        want = "a cell that is made from input_size and hidden_size"
        raise ValueError(sentence("explain", "CELL", want, f"{cell} ({error})")) from error
    assert isinstance(made, Cell)
    if isinstance(made, CompositeCell | PointwiseCell):
        raise ValueError(sentence("explain", "CELL", "one with a time loop of its own", cell))
    x = zeros(made.input_spec, rows, dtype=made.dtype, device=made.device)
    x = quiet(x) if isinstance(made, StochasticCell) else x
    plan = training_plan(made, x, made.initial_state(rows))
    if isinstance(plan, str):
        return repr(made), [("plan", f"none, it runs on Hoisted: {plan}")]
    from ..native.explain import explain as in_words

    return repr(made), in_words(plan, rows)
