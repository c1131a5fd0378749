"""``recurra demo``: three models in a few minutes, without a download."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from .edge import command_of_all, refuse_several_processes


class Part(NamedTuple):
    """One of the demo's models.

    Args:
        title: in words.
        file: name of the data file, which the demo writes.
        content: gives the file's text.
        share: of the demo's time.
        options: of the estimator.
        shown: the same on the command line.
        roles: of the file's columns.
    """

    title: str
    file: str
    content: Callable[[], str]
    share: float
    options: dict[str, Any]
    shown: str
    roles: dict[str, Any]


@command_of_all
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data, the models and their pages.")] = Path("recurra-demo"),
    budget: Annotated[str, typer.Option(help="Time for the training: 3m, 90s.")] = "150s",
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="torch's own")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the noise and the samples.")] = 0,
) -> None:
    """Write like Python's manual, forecast sunspots, read digits: three models on real data, each with a page."""
    from ..training.files import write_atomically
    from .jobs import Roles, job_of_file
    from .reading import minutes
    from .screen import TrainingScreen, console, facts
    from .train import run, use_threads

    refuse_several_processes("demo")
    time = minutes(budget)
    _check_folder(out)
    use_threads(threads)
    screen = console()
    pages = []
    for number, part in enumerate(PARTS, 1):
        screen.rule(f"{number} of {len(PARTS)}: {part.title}")
        file = out / part.file
        write_atomically(file, part.content())
        folder = out / f"{file.stem}-model"
        shown = f"recurra train {file} --out {folder} {part.shown}".rstrip()
        job, why = job_of_file(file, Roles(**part.roles), None)
        model = job.estimator(**{**part.options, "seed": seed, "budget_minutes": time * part.share})
        facts(
            screen,
            [
                ("Like", shown),
                ("File", f"{why}. This will be {job.what}."),
                *(row for row in job.facts if row[0] != "File"),
            ],
        )
        is_text = job.kind == "language_model"
        run(
            job,
            model,
            folder,
            TrainingScreen(screen, model, show_samples=is_text, said=[text for _, text in job.facts]),
            screen,
            overwrite=True,
        )
        pages.append((job.next_command(folder), str(folder / "report.html")))
        screen.print()
    screen.rule("What now")
    facts(screen, [*(("Look at", page) for _, page in pages), *(("Try", shown) for shown, _ in pages)])
    facts(screen, [("", "recurra train YOUR_FILE"), ("", "recurra list cells")])


def _check_folder(folder: Path) -> None:
    """An older demo may be replaced, nothing else."""
    from .folder import check_free

    if folder.is_dir() and all(
        (folder / part.file).is_file() or not (folder / f"{Path(part.file).stem}-model").exists() for part in PARTS
    ):
        known = {name for part in PARTS for name in (part.file, f"{Path(part.file).stem}-model")}
        if all(item.name in known for item in folder.iterdir()):
            return
    check_free(folder, overwrite=False)


def documentation() -> str:
    """The topics of Python's own help, as one text.

    Raises:
        ImportError: a Python without its documentation.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ImportError(
            "recurra: the demo must have pydoc_data.topics, got a Python without it. "
            "Use any English text instead: recurra train FILE.txt"
        ) from None
    return "\n".join(topics.values())


def sunspots() -> str:
    """Yearly sunspot numbers since 1700, as a table: the public data set that comes with statsmodels."""
    from statsmodels.datasets import sunspots as data

    lines = ["year,sunspots", *(f"{int(year)},{value:g}" for year, value in data.load_pandas().data.to_numpy())]
    return "\n".join(lines) + "\n"


def digits() -> str:
    """Handwritten digits of 8 x 8 pixels as series of eight rows (scikit-learn's copy of a UCI set)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    target = io.StringIO()
    target.write("@problemName digits\n@univariate false\n@dimensions 8\n@classLabel true ")
    target.write(" ".join(map(str, range(10))) + "\n@data\n")
    for image, label in zip(images.reshape(-1, 8, 8), labels):
        channels = (",".join(f"{value:g}" for value in column) for column in image.T)
        target.write(":".join(channels) + f":{label}\n")
    return target.getvalue()


PARTS = (
    Part(
        "a language model of the English that comes with Python",
        "python.txt",
        documentation,
        0.6,
        {
            "hidden_size": 512,
            "embedding_size": 64,
            "dropout": 0.2,
            "batch_size": 32,
            "num_steps": 64,
            "lr": 3e-3,
            "precision": "auto",
        },
        "--budget 90s --embedding-size 64 --dropout 0.2 --batch-size 32 --num-steps 64 --lr 0.003",
        {},
    ),
    Part(
        "sunspots, eleven years ahead",
        "sunspots.csv",
        sunspots,
        0.1,
        {"horizon": 11},
        "--target sunspots --horizon 11 --budget 15s",
        {"target": "sunspots"},
    ),
    Part(
        "handwritten digits, read row by row",
        "digits.ts",
        digits,
        0.2,
        {"hidden_size": 64, "num_models": 1},
        "--budget 30s --hidden-size 64 --models 1",
        {},
    ),
)
