"""``recurra export``: a saved model in another language."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .edge import command

LANGUAGES = ("c",)


@command
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a saved model.", show_default=False)],
    to: Annotated[str, typer.Option(help="Language: c (C99 that needs math.h and nothing else).")] = "c",
    out: Annotated[Path | None, typer.Option(help="Folder to write into.", show_default="RUN with -c")] = None,
    name: Annotated[
        str | None, typer.Option(help="Prefix of the files and of every name.", show_default="RUN's name")
    ] = None,
    bits: Annotated[int, typer.Option(help="Of a weight: 32, or 8, where the loss of accuracy is measured.")] = 32,
    data: Annotated[
        Path | None,
        typer.Option(help="File to measure that loss on.", show_default="what the training held out, else made up"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a saved model as C99 for microcontrollers, audio threads and readers: a header, a source, weights, an example.

    [dim]recurra export shakespeare-model --to c --out firmware/lm --name lm --bits 8[/dim]
    """
    from ..core.checks import check_choice, sentence
    from ..estimators.estimator import load_estimator
    from ..export import to_c
    from ..export.c import BITS, loss_words
    from .screen import console, facts
    from .train import finite

    check_choice("recurra", "--to", to, LANGUAGES)
    check_choice("recurra", "--bits", bits, BITS)
    if data is not None and bits == 32:
        raise ValueError(sentence("recurra", "--data", "left out for 32 bits, which lose nothing", str(data)))
    model = load_estimator(run, "cpu", where="recurra")
    folder = out if out is not None else run.absolute().with_name(f"{run.absolute().name}-c")
    prefix = name if name is not None else _prefix(run)
    given, words = real_inputs(run, model, data) if bits == 8 else (None, "")
    found = to_c(model, folder, prefix, bits=bits, data=given, data_words=words)
    if as_json:
        values = {key: str(v) if isinstance(v, Path) else v for key, v in asdict(found).items()}
        typer.echo(json.dumps(finite(values), indent=2))
        return
    rows = [("Written", f"{found.folder}: {', '.join(found.files)}")]
    rows += [("Weights", f"{found.weight_bytes:,} bytes in {bits} bits; one stream {found.state_bytes:,} bytes")]
    if found.loss:
        rows.append(("Measured", f"on {found.loss['measured_on']}"))
        rows += [("", line) for line in loss_words(found.loss)]
    facts(console(), rows)
    typer.echo(
        f"Try: cd {shlex.quote(str(found.folder))} && gcc -std=c99 -O3 {prefix}.c {prefix}_example.c -lm -o {prefix}"
    )


def _prefix(run: Path) -> str:
    """A name in C from that of a folder."""
    found = re.sub(r"\W+", "_", run.absolute().name.removesuffix("-model"), flags=re.ASCII).strip("_")
    return found[:41] if found[:1].isalpha() else "net"


def real_inputs(run: Path, model: Any, file: Path | None) -> tuple[Any, str]:
    """What 8-bit weights are measured on, and what that is in words; None where there is nothing.

    Args:
        run: folder of the model.
        model: the model.
        file: of the user's; else the held-out part of the file that the model was trained on, if that is still there.
    """
    from .jobs import Roles, job_of_run, remembered
    from .jobs.job import file_of, jobs

    if file is not None:
        job, _ = job_of_run(run, file, Roles(), needs_labels=False)
        return job.real_inputs(whole=True)
    before, known = file_of(run), remembered(run)
    if before is None or not before.exists():
        return None, ""
    kind = next(job for job in jobs() if job.kind == model.kind)
    try:
        return kind(before, known.roles, known.fraction).real_inputs(whole=False)
    except (OSError, ValueError):  # the file has become another one
        return None, ""
