"""``recurra forecast``: what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .edge import command

if TYPE_CHECKING:
    from ..estimators import OnlineForecaster


@command
def forecast(
    run: Annotated[Path, typer.Argument(help="Folder of a saved forecaster.", show_default=False)],
    file: Annotated[
        Path | None, typer.Argument(help="A table to go on from.", show_default="the training data")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps ahead.", show_default="as in training")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.", show_default="the screen")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file with a picture of the forecast.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast what comes after a table (or after the data that a saved model was trained on), as CSV."""
    from ..estimators import OnlineForecaster
    from ..estimators.estimator import load_estimator
    from ..training.files import write_atomically
    from .jobs import Roles, job_of_run
    from .jobs.forecaster import ForecasterJob, check_forecaster
    from .train import use_threads

    use_threads(threads)
    if file is None:
        model = load_estimator(run, where="recurra")
        if isinstance(model, OnlineForecaster):
            _of_a_stream(model, steps, out, plot, as_json)
            return
        check_forecaster(run, model, steps)
        found = model.forecast(None, steps)  # type: ignore[attr-defined]
    else:
        job, model = job_of_run(run, file, Roles())
        check_forecaster(run, model, steps)
        assert isinstance(job, ForecasterJob)
        found = model.forecast(job.series, steps)
    frame = found.to_frame()
    if plot is not None:
        from ..report.forecaster import draw_forecast
        from ..report.page import drawing

        write_atomically(plot, drawing(lambda figure: draw_forecast(figure, found)))
        typer.echo(f"The picture is {plot}.", err=True)
    if out is not None:
        write_atomically(out, frame.to_csv(index=False))
    if as_json:
        typer.echo(frame.to_json(orient="records", date_format="iso", indent=1))
    elif out is None:
        typer.echo(frame.to_csv(index=False), nl=False)
    else:
        typer.echo(f"{len(frame):,} values are in {out}.")


def _of_a_stream(
    model: OnlineForecaster, steps: int | None, out: Path | None, plot: Path | None, as_json: bool
) -> None:
    """What comes behind the last row that a model of ``recurra learn`` has learned."""
    import json

    from ..core.checks import sentence
    from ..training.files import write_atomically

    if plot is not None:
        raise ValueError(sentence("recurra", "--plot", "left out for a model of recurra learn", str(plot)))
    asked = model.record_.get("stream", {}).get("asked", {})
    target = str(asked.get("target", "value"))
    values = model.forecast(int(asked.get("horizon", 1)) if steps is None else steps)
    text = f"step,{target}\n" + "".join(f"{i},{value:.8g}\n" for i, value in enumerate(values, 1))
    if out is not None:
        write_atomically(out, text)
    if as_json:
        typer.echo(json.dumps([{"step": i, target: value} for i, value in enumerate(values, 1)], indent=1))
    elif out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{len(values):,} values are in {out}.")
