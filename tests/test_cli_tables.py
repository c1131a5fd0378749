"""Commands on tables, series and labelled texts: predictions without labels, JSON from each command, mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.datasets.labelled_text import read_texts
from recurra.datasets.long_table import find_long
from recurra.datasets.ts_files import read_series

QUICK = ["--updates", "2", "--hidden-size", "4", "--precision", "float32"]


def write(path: Path, rows: list[list[Any]]) -> Path:
    """A table."""
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def wide(folder: Path, *, label: bool = True, name: str = "label") -> Path:
    """Twelve steps a row, rising or falling, which is 0 or 1."""
    head = [name] * label + [f"t{t}" for t in range(12)]
    rows = [[n % 2] * label + [(1 - 2 * (n % 2)) * t + n % 5 for t in range(12)] for n in range(30)]
    return write(folder / f"wide{label}.csv", [head, *rows])


def long(folder: Path, *, label: bool = True) -> Path:
    """Series of eight steps and two channels, below each other."""
    head = ["id", "t", "x", "y"] + ["state"] * label
    rows = [
        [n, t, t * (1 - 2 * (n % 2)), n % 3, *["up", "down"][n % 2 : n % 2 + label]]
        for n in range(20)
        for t in range(8)
    ]
    return write(folder / f"long{label}.csv", [head, *rows])


def texts(folder: Path, *, label: bool = True) -> Path:
    """Praise and blame; without labels one text a line."""
    found = [["good, great and fine", "pos"], ["bad, awful and sad", "neg"]] * 10
    if label:
        return write(folder / "texts.csv", [["text", "label"], *found])
    (folder / "texts.txt").write_text("".join(text + "\n" for text, _ in found))
    return folder / "texts.txt"


def days(folder: Path) -> Path:
    """Sixty days of sales and rain."""
    rows = [[f"2024-{1 + i // 28:02}-{1 + i % 28:02}", (i % 7) + 0.1 * (i % 5), i % 3] for i in range(60)]
    return write(folder / "days.csv", [["date", "sold", "rain"], *rows])


def prose(folder: Path) -> Path:
    """A text."""
    (folder / "hamlet.txt").write_text("to be or not to be, that is the question:\n" * 20)
    return folder / "hamlet.txt"


def run(*arguments: str | Path, code: int = 0, stream: str = "output") -> str:
    """A command: what it says."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return str(getattr(result, stream))


MODELS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "wide": (wide, []),
    "long": (long, ["--target", "state", "--series", "id", "--time", "t"]),
    "texts": (texts, []),
    "days": (days, ["--target", "sold"]),
    "prose": (prose, ["--num-steps", "8", "--embedding-size", "4"]),
    "numbers": (lambda folder: wide(folder, name="amount"), ["--as", "regress", "--target", "amount"]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file and a model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    for name, (make, options) in MODELS.items():
        (folder / name).mkdir()
        file = make(folder / name)
        said = run("train", file, "--out", folder / name / "model", *QUICK, *options, "--json", stream="stdout")
        result = json.loads(said)
        assert result["record"]["updates_made"] == 2
        assert result["metrics"]
    return folder


def file_of(models: Path, name: str) -> Path:
    """The training file."""
    return next(path for path in (models / name).iterdir() if path.is_file())


# --- what the commands say ---


@pytest.mark.parametrize("name", MODELS)
def test_every_command_speaks_json(models: Path, name: str) -> None:
    model, file = models / name / "model", file_of(models, name)
    assert json.loads(run("evaluate", model, file, "--json", stream="stdout"))
    found = json.loads(run("report", model, "--json", stream="stdout"))
    assert Path(found["page"]).is_file()
    assert found["evaluation"]["file"] == file.name
    if name == "prose":
        assert len(json.loads(run("generate", model, "--length", "7", "--json", stream="stdout"))["text"]) == 7
    elif name == "days":
        rows = json.loads(run("forecast", model, "--steps", "3", "--json", stream="stdout"))
        assert [row["target"] for row in rows] == ["sold"] * 3
    else:
        rows = json.loads(run("predict", model, file, "--json", stream="stdout"))
        places = list(range(len(rows)))
        assert [row["sequence"] for row in rows] == ([str(n) for n in places] if name == "long" else places)


@pytest.mark.parametrize("name", ["wide", "long", "texts", "numbers"])
def test_sequences_without_labels_are_predicted(models: Path, name: str, tmp_path: Path) -> None:
    make = {"wide": wide, "long": long, "texts": texts, "numbers": wide}[name]
    model, bare = models / name / "model", make(tmp_path, label=False)  # type: ignore[operator]
    found = run("predict", model, bare, stream="stdout")
    assert found == run("predict", model, file_of(models, name), stream="stdout")  # the labels are not looked at
    assert run("predict", model, bare, "--out", tmp_path / "new" / "a.csv").endswith(
        f"are in {tmp_path / 'new' / 'a.csv'}.\n"
    )
    assert (tmp_path / "new" / "a.csv").read_text() == found
    if name != "texts":  # lines with commas may be a table too
        run("evaluate", model, bare, code=2)


def test_texts_in_any_form(tmp_path: Path) -> None:
    for content, wanted in (
        ("NUM:dist How far ?\nHUM:ind Who was it ?\n", ["How far ?", "Who was it ?"]),
        ("text\nHello, there\nBye\n", ["Hello, there", "Bye"]),
        ('n,review\n1,"Good, really"\n2,bad\n', ["Good, really", "bad"]),
        ("How far, my friend ?\nWho ?\n", ["How far, my friend ?", "Who ?"]),
    ):
        (tmp_path / "a").write_text(content)
        assert read_texts(tmp_path / "a")[0] == wanted
    (tmp_path / "a").write_text("n,review\n1,Good, really\n")
    with pytest.raises(ValueError, match=r"row 2: a row must be 2 cells, like the header, got 3\."):
        read_texts(tmp_path / "a")


def test_series_to_predict_have_the_header_of_training(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,3\n4,5,6\n")
    with pytest.raises(
        ValueError, match="the first line must be the names of the columns, as in training, got numbers"
    ):
        read_series(tmp_path / "a.csv", target="label", needs_labels=False)
    found = read_series(wide(tmp_path, label=False), target="label", needs_labels=False)
    assert (found.labels, len(found.series[0])) == (None, 12)


def test_a_long_table_is_known_without_being_told(tmp_path: Path) -> None:
    """Trained, evaluated and predicted as with --series and --time; a file with one series only is read as in training."""
    told = read_series(long(tmp_path), target="state", series="id", time="t")
    found = read_series(long(tmp_path), target="state")
    assert found.labels == told.labels
    assert [x.tolist() for x in found.series] == [x.tolist() for x in told.series]
    assert found.notes[0].startswith(
        "Each row is one step of a series: column 'id' tells 20 of them apart, in the order of"
    )
    said = run("train", long(tmp_path), "--target", "state", "--out", tmp_path / "model", *QUICK)
    assert "column 'id' tells 20 of them apart" in " ".join(said.split())
    one = write(tmp_path / "one.csv", [["id", "t", "x", "y"], *[[7, t, t, 1] for t in range(8)]])
    answers = json.loads(run("predict", tmp_path / "model", one, "--json"))
    assert [answer["sequence"] for answer in answers] == ["7"]
    few = write(tmp_path / "few.csv", [["id", "t", "x", "y"], *[[n, t, t, 1] for n in "ba" for t in range(8)]])
    assert [a["sequence"] for a in json.loads(run("predict", tmp_path / "model", few, "--json"))] == ["b", "a"]


@pytest.mark.parametrize(
    ("head", "row", "roles"),
    [
        (["machine", "hour", "heat", "label"], lambda m, t: [f"m{m}", t, m * t, m % 2], ("machine", "hour")),
        (["unit", "hour", "heat", "label"], lambda m, t: [m, t, m * t, m % 2], ("unit", "hour")),
        (["heat", "when", "unit", "label"], lambda m, t: [t, f"2024-01-{t + 1:02}", m, m % 2], ("unit", "when")),
        (["station", "heat", "label"], lambda m, t: [m, m * t, m % 2], ("station", None)),
        (["who", "heat", "label"], lambda m, t: [f"m{m}", m * t, m % 2], ("who", None)),
        (["a", "b", "c", "label"], lambda m, t: [m, t, m * t, m % 2], None),  # no column is a time
        (["unit", "hour", "heat", "label"], lambda m, t: [m, t, m * t, t % 2], None),  # a label for each row
        (
            ["unit", "hour", "heat", "label"],
            lambda m, t: [m, 5 * m + t, m * t, m % 2],
            None,
        ),  # one time after the other
    ],
)
def test_what_a_long_table_is(head: list[str], row: Any, roles: Any, tmp_path: Path) -> None:
    rows = [row(m, t) for m in range(6) for t in range(5)]
    found = find_long(head, [[str(cell) for cell in one] for one in rows], head.index("label"))
    assert found == roles
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    shuffled = find_long(head, [[str(cell) for cell in one] for one in mixed], head.index("label"))
    assert shuffled == (roles if roles is not None and roles[1] is not None else None)


def test_a_command_for_another_kind_of_model_says_what_it_is(models: Path) -> None:
    for command, name, message in (
        ("generate", "days", "days/model must be a language model, got a Forecaster. recurra forecast or predict asks"),
        ("forecast", "wide", "wide/model must be a forecaster, got a SequenceClassifier."),
    ):
        assert message in " ".join(run(command, models / name / "model", code=2).split()).replace("\\", "/")


def test_series_are_compared_with_their_nearest_neighbours(models: Path, tmp_path: Path) -> None:
    """By warped time too where lengths differ; without validation every tenth of the run has a line."""
    rows = [[n % 2, *[t * (n % 2) + n % 3 for t in range(10 + n % 4)]] for n in range(40)]
    said = run("train", write(tmp_path / "ragged.csv", rows), "--out", tmp_path / "new", *QUICK)
    assert "nearest neighbour, time warped" in said
    assert "Euclidean" not in said
    assert "50% 1 " in " ".join(said.split())


def test_wide_tables_stay_wide(tmp_path: Path) -> None:
    assert read_series(wide(tmp_path)).roles is None
    short = write(tmp_path / "a.csv", [["id", "x", "label"], [1, 2, "a"], [2, 3, "b"], [3, 1, "a"]])
    said = " ".join(read_series(short).notes)
    assert "Each row is one series, and the column 'id' is one of its steps; for a table with one step a row" in said


def test_labels_that_training_did_not_see_are_said(models: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", [["text", "label"], ["good and great", "splendid"], ["bad", "dire"]])
    said = run("evaluate", models / "texts" / "model", other)
    assert "Accuracy  0.00%" in said
    assert "2 of 2 labels were not seen in training" in said


# --- mistakes ---


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("days", ["--text", "sold"], "recurra: --text must be left out for a forecast, got 'sold'."),
        ("days", ["--validation-fraction", "0.1"], "recurra: --validation-fraction must be left out for a forecast"),
        ("days", ["--models", "2"], "recurra: --models must be left out for a forecast, got 2."),
        ("days", ["--seed", str(2**64)], "Forecaster: seed must be below 2**63, got 18446744073709551616."),
        ("prose", ["--horizon", "3"], "recurra: --horizon must be left out for a language model, got 3."),
        ("texts", ["--series", "label"], "recurra: --series must be left out for texts, got 'label'."),
        ("wide", ["--time", "t1"], "recurra: --time must be given together with --series, the column that tells"),
        ("wide", ["--known", "t1"], "recurra: --known must be left out for a classifier, got ('t1',)."),
    ],
)
def test_what_says_nothing_about_a_file_is_refused(
    models: Path, name: str, options: list[str], message: str, tmp_path: Path
) -> None:
    said = run("train", file_of(models, name), "--out", tmp_path / "new", *QUICK, *options, code=2)
    assert said.splitlines()[-1].startswith(message)
    assert not (tmp_path / "new").exists()


def test_more_mistakes(models: Path, tmp_path: Path) -> None:
    def last(*arguments: str | Path) -> str:
        return run(*arguments, code=2).splitlines()[-1]

    days_, wide_, prose_ = (models / name / "model" for name in ("days", "wide", "prose"))
    assert last("forecast", days_, "--steps", "99999999").startswith(
        "recurra: --steps must be at most 700, got 99,999,999."
    )
    assert last("forecast", days_, "--out", tmp_path) == f"recurra: {tmp_path}: Is a directory."
    assert last("predict", wide_, file_of(models, "wide"), "--out", tmp_path) == f"recurra: {tmp_path}: Is a directory."
    assert last("generate", prose_, "--seed", str(2**63)).startswith(
        "recurra: --seed must be at least 0 and below 2**63"
    )
    assert last("report", file_of(models, "days")).endswith("must be the folder of a trained model, got a file.")
    assert last("evaluate", prose_, file_of(models, "prose"), "--target", "x").startswith(
        "recurra: --target must be left out"
    )
    (tmp_path / "a.ts").write_text("@problemName a\n@classLabel true a b\n@data\n1,2,3:a\n3,2,1:b\n")
    assert "target must be left out for a file without columns" in last(
        "evaluate", wide_, tmp_path / "a.ts", "--target", "x"
    )
    (tmp_path / "sub").write_text("")
    assert last("predict", wide_, file_of(models, "wide"), "--out", tmp_path / "sub" / "a.csv").startswith("recurra: ")
