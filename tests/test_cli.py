"""The command line: what a person types and reads, and what comes of mistakes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recurra.cli import demo, edge, folder, reading, screen, show
from recurra.cli.jobs import language_model
from recurra.cli.jobs.language_model import LanguageModelJob
from recurra.cli.main import app
from recurra.core import catalog
from recurra.core.catalog import FAMILIES, members
from recurra.core.experiment import Claim, Experiment
from recurra.experiments import run as experiments_run

TEXT = "to be or not to be, that is the question:\n" * 20
QUICK = ["--updates", "3", "--hidden-size", "8", "--embedding-size", "4", "--num-steps", "16", "--precision", "float32"]


def run(*arguments: str, code: int = 0, width: int = 80) -> str:
    """A command in this process: its output, all of it."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(width), "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def real(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    line = [sys.executable, "-c", "from recurra.cli.main import main; main()", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A text, the folder of a model of it, and what the command said."""
    folder = tmp_path_factory.mktemp("train")
    file = folder / "hamlet.txt"
    file.write_text(TEXT)
    return file, folder / "run", run("train", str(file), "--out", str(folder / "run"), *QUICK)


# --- help ---


def test_help_names_every_command_and_needs_no_torch() -> None:
    code = "import sys; from recurra.cli.main import app; app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("False"), done.stdout + done.stderr
    for name in ("demo", "train", "generate", "evaluate", "list", "show", "check", "reproduce"):
        assert name in done.stdout
        assert "..." not in re.sub(r"cuda, \.\.\.|\w\.\.\.|\]\.\.\.", "", run(name, "--help"))


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    for arguments in (["--help"], ["train", "--help"], ["list"], ["show", "LSTMCell"], ["show", "Stack"]):
        for line in run(*arguments, width=width).splitlines():
            assert len(line) <= width, line


def test_version() -> None:
    assert re.fullmatch(r"recurra \S+ \(torch \S+, Python \S+\)\n", run("--version"))


def test_no_arguments_show_the_help() -> None:
    done = real()
    assert "Begin with: recurra demo" in done.stdout + done.stderr


# --- train, generate, evaluate ---


def test_train_says_what_it_decided_and_saves(trained: tuple[Path, Path, str]) -> None:
    _, folder, said = trained
    assert {path.name for path in folder.iterdir()} == {
        "command.json",
        "config.json",
        "evaluation.json",
        "events",
        "metrics.csv",
        "model.safetensors",
        "report.html",
        "samples.txt",
    }
    joined = " ".join(said.split())
    for part in (
        "840 characters, 16 different",
        "last 84 characters",
        "LSTMCell, 1 layer of 8",
        "3 updates of",
        "float32",
    ):
        assert part in joined, joined
    assert re.search(r"Held out +\d\.\d{4} nats per character = \d\.\d{4} bits, perplexity \d+\.\d+", said)
    assert "recurra generate" in said


def test_train_in_json_keeps_stdout_clean(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    done = real("train", str(trained[0]), "--out", str(tmp_path / "run"), "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["folder"] == str(tmp_path / "run")
    assert result["record"]["validation"]["nats_per_char"] > 0
    assert [row["update"] for row in result["history"]] == [1, 2, 3]
    assert "characters" in done.stderr


def test_a_large_text_is_read_in_pieces_and_gives_the_same_model(
    trained: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a text counts as large is a matter of memory, not of the model: the weights are the same bit for bit."""
    file, folder, _ = trained
    monkeypatch.setattr(language_model, "LARGE", 100)
    monkeypatch.setattr(language_model, "COUNT", 300)
    monkeypatch.setattr(Path, "read_bytes", None)  # nobody reads it as a whole
    monkeypatch.setattr(language_model, "read_text", None)
    said = run("train", str(file), "--out", str(tmp_path / "run"), *QUICK)
    monkeypatch.undo()
    assert "it is large and is read in pieces" in " ".join(said.split())
    one, other = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "run"))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["record"]["validation"] == other["record"]["validation"]
    one, other = (json.loads((place / "evaluation.json").read_text()) for place in (folder, tmp_path / "run"))
    assert (one["worst"], one["start"]) == (other["worst"], other["start"])
    assert [b["name"] for b in one["baselines"]] == [b["name"] for b in other["baselines"]]
    assert "in the last 300 characters of the training text" in (tmp_path / "run" / "report.html").read_text()
    small = run("evaluate", str(folder), str(file))
    monkeypatch.setattr(language_model, "LARGE", 100)
    assert run("evaluate", str(folder), str(file)) == small
    for content, message in (
        (b"\xff\xfe" + "text".encode("utf-16-le") * 50, "a text in UTF-8, got UTF-16"),
        (b"text" * 50 + b"\xe9x", "a text in UTF-8, got byte 0xe9 at place 200"),
        (b"text" * 100_000 + b"\0", "a text in UTF-8, got a byte 0"),
    ):
        (tmp_path / "bad").write_bytes(content)
        assert message in " ".join(run("train", str(tmp_path / "bad"), "--as", "text", code=2).split())


def test_the_held_out_part_of_a_long_text_is_no_longer_than_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    monkeypatch.setattr(language_model, "MOST_HELD_OUT", 50)
    assert "Held out the last 50 characters" in " ".join(
        run("train", str(tmp_path / "a.txt"), "--out", str(tmp_path / "a"), *QUICK).split()
    )
    said = run("train", str(tmp_path / "a.txt"), "--validation-fraction", "0.2", "--out", str(tmp_path / "b"), *QUICK)
    assert "Held out the last 168 characters" in " ".join(said.split())


def test_train_without_validation_with_epochs_and_options(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    said = run(
        "train", str(trained[0]), "--out", str(tmp_path / "run"), "--epochs", "1", "--validation-fraction", "0",
        "--cell", "gru", "--layers", "2", "--hidden-size", "6", "--dropout", "0", "--engine", "Loop", "--rule", "BPTT",
        "--precision", "float32", "--lr", "0.01", "--seed", "3",
    )  # fmt: skip
    assert "gru, 2 layers of 6" in said
    assert "Held out" not in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["arguments"]["rule"] == "BPTT"
    assert config["arguments"]["seed"] == 3


def test_generate_and_evaluate(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    file, folder, _ = trained
    first = run("generate", str(folder), "--prompt", "to be", "--length", "30", "--seed", "4")
    assert first.startswith("to be")
    assert len(first) == 5 + 30 + 1
    assert first == run("generate", str(folder), "--prompt", "to be", "--length", "30", "--seed", "4")
    as_json = json.loads(run("generate", str(folder), "--prompt", "to be", "--length", "30", "--seed", "4", "--json"))
    assert as_json["prompt"] + as_json["text"] + "\n" == first
    metrics = json.loads(run("evaluate", str(folder), str(file), "--json"))
    assert set(metrics) > {"nats_per_char", "bits_per_char", "perplexity", "num_chars", "num_unknown"}
    assert f"{metrics['nats_per_char']:.4f} nats per character" in run("evaluate", str(folder), str(file))
    (tmp_path / "other.txt").write_text("to bé or not")
    assert "1 characters (9.09%) were not in the training text" in " ".join(
        run("evaluate", str(folder), str(tmp_path / "other.txt")).split()
    )


def test_a_model_is_not_overwritten_by_accident(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    file, folder, _ = trained
    said = run("train", str(file), "--out", str(folder), *QUICK, code=2)
    assert said == (
        f"recurra: --out must be a new folder, got {folder}, which holds a model. Choose another, or add --overwrite.\n"
    )
    run("train", str(file), "--out", str(folder), "--overwrite", *QUICK)
    (tmp_path / "photo.jpg").write_bytes(b"")
    said = run("train", str(file), "--out", str(tmp_path), "--overwrite", *QUICK, code=2)
    assert "which holds other files" in said
    said = run("train", str(file), "--out", str(file), *QUICK, code=2)
    assert said.startswith(f"recurra: --out must be a folder, got {file}, a file.")


def test_a_model_goes_only_when_the_new_run_has_begun(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    file, model, _ = trained
    place = tmp_path / "run"
    shutil.copytree(model, place)
    (place / "forecast.csv").write_text("mine")
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    for wrong in (["--cell", "lsmt"], ["--hidden-size", "0"], ["--dropout", "2"]):
        run("train", str(file), "--out", str(place), "--overwrite", *QUICK, *wrong, code=2)
        assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    folder.Replaced(place).put_aside()  # a command that was killed before the new run began
    assert not (place / "config.json").exists()
    assert "which holds a model" in run("train", str(file), "--out", str(place), *QUICK, code=2)
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    run("train", str(file), "--out", str(place), "--overwrite", "--seed", "1", *QUICK)
    assert (place / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert (place / "forecast.csv").read_text() == "mine"
    assert not (place / folder.ASIDE).exists()
    both = run("train", str(file), "--out", str(place), "--overwrite", "--resume", code=2)
    assert both == "recurra: --resume must be given without --overwrite, got both.\n"


def test_two_models_of_a_text(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    said = run("train", str(trained[0]), "--out", str(tmp_path / "two"), "--models", "2", *QUICK)
    assert "2 models are trained" in " ".join(said.split())
    assert run("generate", str(tmp_path / "two"), "--length", "5")


def test_two_models_of_a_text_go_on_where_they_were_stopped(
    trained: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["train", str(trained[0]), "--models", "2", "--seed", "3", *QUICK]
    run(*line, "--out", str(tmp_path / "whole"))

    def stop(shown: screen.TrainingScreen, progress: Any) -> None:
        assert progress.update < 4
        if progress.update == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(screen.TrainingScreen, "__call__", stop)
        said = run(*line, "--out", str(tmp_path / "run"), code=130)
    assert "go on with the same command and --resume" in said
    said = run("train", str(trained[0]), "--out", str(tmp_path / "run"), "--resume")  # the arguments are remembered
    for name in ("model.safetensors", "samples.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "run" / "members").exists()
    assert not (tmp_path / "run" / "stopped").exists()
    again = run("train", str(trained[0]), "--out", str(tmp_path / "run"), "--resume")
    assert "The run was over: nothing was trained" in again


def test_ctrl_c_while_measuring_says_that_the_model_is_whole(
    trained: tuple[Path, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelJob, "evaluation", stop)
        said = run("train", str(trained[0]), "--out", str(tmp_path / "run"), *QUICK, code=130)
    assert said.endswith(f"The model in {tmp_path / 'run'} is whole; --resume measures it.\n")
    run("train", str(trained[0]), "--out", str(tmp_path / "run"), "--resume")
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_place_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    with pytest.raises(ValueError, match=r"--out must be a folder that can be written, got .*new"):
        folder.check_free(tmp_path / "some" / "new", overwrite=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a file, got nothing there."),
        ("folder", "must be a file, got a folder."),
        (b"", "must be a file with something in it, got an empty file."),
        (b"short\n", "must be a text of at least 200 characters, got 6."),
        (b"\x89PNG\0\0" * 99, "must be a text or a table, got a binary file (it has zero bytes)."),
        ("caf\xe9 ".encode("latin-1") * 99, "must be a text in UTF-8, got byte 0xe9 at position 3. Convert it first, "),
        (
            "text ".encode("utf-16") * 99,
            "must be a text in UTF-8, got UTF-16. Convert it first, for example: iconv -f UTF-16",
        ),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "file"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    said = run("train", str(path), code=2)
    assert said.startswith(f"recurra: {path} {message}")
    assert said.count("\n") == 1


def test_a_byte_order_mark_and_windows_lines_are_no_characters(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert reading.read_text(tmp_path / "file") == "one\ntwo\nthree"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "soon"], "recurra: --budget must be a time such as 15m, 90s or 1.5h, got 'soon'."),
        (["--budget", "0m"], "recurra: --budget must be a time such as 15m, 90s or 1.5h, got '0m'."),
        (
            ["--budget", "1m", "--epochs", "2"],
            "recurra: the end of training must be one of --budget, --epochs, --updates, ",
        ),
        (["--validation-fraction", "0.9"], "recurra: --validation-fraction must be between 0 (none) and 0.5, got 0.9."),
        (["--cell", "lsmt"], "LanguageModel: cell must be one of the cells, got 'lsmt'. Did you mean "),
        (["--engine", "steam"], "LanguageModel: engine must be one of the engines, got 'steam'."),
        (["--rule", "EvolutionStrategy"], "LanguageModel: rule must be a learning rule, got EvolutionStrategy"),
        (["--hidden-size", "0"], "LanguageModel: hidden_size must be at least 1, got 0."),
        (["--dropout", "1"], "LanguageModel: dropout must be a probability in [0, 1), got 1.0."),
        (
            ["--precision", "float8"],
            "LanguageModel: precision must be one of 'float32', 'bfloat16', 'float16', 'auto', got 'float8'.",
        ),
        (["--threads", "0"], "recurra: threads must be at least 1, got 0."),
        (["--lr", "1e30", "--updates", "9", "--dropout", "0"], "LanguageModel: the loss at update "),
    ],
)
def test_options_that_make_no_sense(
    trained: tuple[Path, Path, str], tmp_path: Path, options: list[str], message: str
) -> None:
    said = run("train", str(trained[0]), "--out", str(tmp_path / "run"), *options, code=2)
    last = said.splitlines()[-1]
    assert last.startswith(message)
    assert "Traceback" not in said
    assert "the loss at update" in message or not (tmp_path / "run").exists()  # a run that began may leave its weights


def test_runs_that_are_no_runs(trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert run("generate", str(nowhere), code=2) == (
        f"recurra: {nowhere} must be the folder of a saved model, got nothing there.\n"
    )
    for command in ("forecast", "export"):
        assert run(command, str(nowhere), code=2).startswith(f"recurra: {nowhere} must be the folder of a saved model")
    assert "one without config.json" in run("evaluate", str(tmp_path), str(trained[0]), code=2)
    said = run("generate", str(trained[1]), "--prompt", "Ω", code=2)
    assert said.startswith("LanguageModel: prompt must be written with the 16 characters of the training text, got 'Ω'")
    assert "temperature must be at least 0" in run("generate", str(trained[1]), "--temperature", "-1", code=2)


def test_mistakes_in_a_real_process_go_to_stderr(tmp_path: Path) -> None:
    done = real("train", str(tmp_path / "no.txt"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"recurra: {tmp_path / 'no.txt'} must be a file, got nothing there.\n"
    unknown = real("trian")
    assert unknown.returncode == 2
    assert "No such command" in unknown.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_saves_what_there_is_and_exits_with_130(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 10)
    line = [sys.executable, "-c", "from recurra.cli.main import main; main()", "train", "text.txt", "--updates", "5000"]
    quick = [*QUICK[2:], "--validation-fraction", "0"]
    process = subprocess.Popen(
        [*line, *quick], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        # A runner in the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    while "10%" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    pattern = (
        r"recurra: stopped after [\d,]+ updates; go on with the same command and --resume\. "
        r"The model as it is now is in text-model/stopped\.\n"
    )
    assert re.fullmatch(pattern, said), said
    assert run("generate", str(tmp_path / "text-model/stopped"), "--length", "5")
    assert (tmp_path / "text-model" / "config.json").is_file()


# --- demo ---


def test_the_demo_has_its_text_and_its_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(demo.documentation()) > 100_000
    parts = [demo.PARTS[0]._replace(content=lambda: TEXT * 3), *demo.PARTS[1:]]
    monkeypatch.setattr(demo, "PARTS", tuple(parts))
    out = tmp_path / "recurra-demo"
    for _ in range(2):  # its own folder may be replaced
        said = run("demo", "--out", str(out), "--budget", "1s")
        assert "what it writes after 0 updates" in said
        assert "recurra train YOUR_FILE" in said
        assert f"{len(TEXT) * 3:,} characters" in said
    for part in demo.PARTS:
        folder = out / f"{Path(part.file).stem}-model"
        assert (folder / "model.safetensors").is_file()
        assert (folder / "report.html").is_file()


def test_the_demo_without_pythons_documentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    said = run("demo", "--out", str(tmp_path / "x"), code=2)
    assert "recurra: the demo must have pydoc_data.topics, got a Python without it. " in said


# --- the catalog ---


@pytest.mark.parametrize("family", list(FAMILIES))
def test_list_shows_every_member(family: str) -> None:
    shown = json.loads(run("list", family, "--json"))
    assert len(shown) == len(members(family))
    assert all(row["what"] for row in shown)
    text = run("list", family)
    for row in shown:
        assert row["name"] in text
    assert set(json.loads(run("list", "--json"))) == set(FAMILIES)


def test_list_of_an_unknown_family() -> None:
    assert run("list", "cell", code=2).startswith("recurra: FAMILY must be one of 'cells', 'engines', ")


EVERYONE = [(family, name) for family in FAMILIES for name in members(family)]


@pytest.mark.parametrize(("family", "name"), EVERYONE)
def test_show_keeps_the_equations_and_every_word(family: str, name: str) -> None:
    import inspect

    kind = members(family)[name]
    said = run("show", name, width=140)
    wanted = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(kind) or "")
    squeezed = "".join(said.split())
    for line in wanted.splitlines():
        head = re.fullmatch(r"(\w+):", line)
        item = re.match(r"    (\w+(?:, \w+)*): (.*)", line)  # shown without the colon, in two columns
        for part in [head[1]] if head else [item[1], item[2]] if item else [line]:
            assert "".join(part.split()) in squeezed, line


def test_show_knows_what_was_meant() -> None:
    assert run("show", "lstm") == run("show", "LSTMCell")
    assert "state       h (B, 5), c (B, 5)" in run("show", "lstm")
    assert "180: weight_ih (20, 3), weight_hh (20, 5), bias (20,)" in run("show", "lstm")
    wanted = "recurra: NAME must be a member of the catalog, got 'lsmtcell'. Did you mean LSTMCell or "
    assert run("show", "lsmtcell", code=2).startswith(wanted)
    assert run("show", "%", code=2).endswith("got '%'. See `recurra list`.\n")


def test_show_does_not_read_markup() -> None:
    import io

    from rich.console import Console

    stream = io.StringIO()
    show._docstring(
        Console(file=stream, width=60, markup=False), "One.\n\n    y = [red]x[/red] :smile:\n\nArgs:\n    a: [b]c"
    )
    assert "y = [red]x[/red] :smile:" in stream.getvalue()
    assert "[b]c" in stream.getvalue()


# --- check, reproduce ---


def test_check_of_a_cell_of_ones_own(tmp_path: Path) -> None:
    said = run("check", "recurra.cells.elman:ElmanCell")
    assert "0 broken" in said
    assert run("check", "nowhere:MyCell", code=2).startswith("check: the module must be importable, got ")
    assert run("check", "LSTMCel", code=2).startswith("check: target must be MODULE:CLASS, FILE.py:CLASS or a name of")


def test_explain_speaks_of_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("number = 3\n")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    for cell, message in (
        ("none.py:Cell", "explain: the file must be an existing Python file, got 'none.py'."),
        ("no_such_module:Cell", "explain: the module must be importable, got ModuleNotFoundError from no_such_module:"),
        (f"{tmp_path}/broken.py:Cell", "explain: the module must be importable, got ModuleNotFoundError from"),
        (f"{tmp_path}/mine.py:Cell", f"explain: the class must be in {tmp_path}/mine.py, got 'Cell'."),
        (f"{tmp_path}/mine.py:number", "explain: number must be a subclass of recurra.core.Cell, got int."),
        ("recurra.core:HoistedCell", "explain: HoistedCell must be a complete cell, got an abstract class."),
        ("LTSMCell", "explain: CELL must be one of the cells, got 'LTSMCell'. Did you mean LSTMCell"),
        ("Stack", "explain: CELL must be a cell that is made from input_size and hidden_size, got Stack"),
    ):
        assert run("explain", cell, code=2).startswith(message), cell
    assert run("check", "x.py:A", "--full", code=2).startswith(
        "recurra: --full, --device and --jobs must be given without"
    )
    file = tmp_path / "mine.py"
    file.write_text(
        "from recurra.cells.elman import ElmanCell\n\n\nclass Mine(ElmanCell):\n    def initial_state(self, batch_size):\n"
        "        self.seen = batch_size\n        return super().initial_state(batch_size + 1)\n"
    )
    assert "BROKEN" in run("check", f"{file}:Mine", code=1)


def _fake_experiment(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """One experiment in the place of the real ones: its claim is met by a value of at most 0.5."""

    @dataclass(frozen=True)
    class Elman1990Coin(Experiment):
        """Guesses a coin."""

        id = "elman-1990-coin"
        source = "Elman 1990"
        claims = (Claim("error", 0.5, "lower", "about 0.5", "figure 3"),)
        num_throws: int = 10

        def run(self, log: Any) -> dict[str, float]:
            log("throwing", 0.5)
            return {"error": value}

        @classmethod
        def smoke(cls) -> Any:
            return cls(1)

    everyone = catalog.members

    def members_and_the_fake(family: str) -> dict[str, type]:
        return {"Elman1990Coin": Elman1990Coin} if family == "experiments" else everyone(family)

    for module in (catalog, experiments_run):
        monkeypatch.setattr(module, "members", members_and_the_fake)


def test_reproduce_prints_the_published_number_beside_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake_experiment(monkeypatch, 0.25)
    said = run("reproduce", "elman-1990-coin", "--out", str(tmp_path / "results"))
    row = next(line for line in said.splitlines() if "error" in line)
    assert row.split() == ["error", "about", "0.5", "<=", "0.5", "0.25", "yes"]
    assert (tmp_path / "results" / "elman-1990-coin.json").is_file()
    run("reproduce", "--all", "--out", str(tmp_path / "results"), "--page", str(tmp_path / "RESULTS.md"))
    assert "## elman-1990-coin" in (tmp_path / "RESULTS.md").read_text()
    assert "elman-1990-coin" in run("reproduce")
    assert "elman-1990-coin" in run("list", "experiments")
    assert "<= 0.5" in run("show", "elman-1990-coin")
    assert "no evidence" in run("reproduce", "--smoke", "elman-1990-coin")
    shown = CliRunner().invoke(app, ["reproduce", "--smoke", "elman-1990-coin", "--json"]).stdout
    assert json.loads(shown)[0]["metrics"] == {"error": 0.25}
    assert [row["name"] for row in json.loads(run("reproduce", "--json"))] == ["elman-1990-coin"]


def test_a_missed_bar_is_exit_code_1_but_not_in_a_small_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _fake_experiment(monkeypatch, 0.75)
    assert " NO" in run("reproduce", "elman-1990-coin", "--out", str(tmp_path), code=1)
    assert " NO" not in run("reproduce", "elman-1990-coin", "--smoke")


def test_reproduce_without_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_experiment(monkeypatch, 0.25)
    assert run("reproduce", "elman-1990-coins", code=2) == (
        "catalog: name must be one of the experiments, got 'elman-1990-coins'. Did you mean Elman1990Coin?\n"
    )
    assert run("reproduce", "x", "--all", code=2).startswith("recurra: --all must be given without names")
    assert run("reproduce", "x", "--page", "p", code=2).startswith("recurra: --page must be given together with --out")


# --- the edge ---


def test_only_mistakes_become_sentences() -> None:
    @edge.command
    def broken() -> None:
        len(None)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        broken()

    @edge.command
    def foreign() -> None:
        int("x")

    with pytest.raises(ValueError, match="invalid literal"):
        foreign()


def test_what_a_mistake_is() -> None:
    assert edge.mistake(FileNotFoundError(2, "No such file or directory", "a/b")) == (
        "recurra: a/b: No such file or directory."
    )
    assert edge.mistake(KeyError("x")) is None
    assert "not enough memory" in str(edge.mistake(RuntimeError("DefaultCPUAllocator: can't allocate memory: you ...")))
    with pytest.raises(ValueError, match="--budget must be") as found:
        reading.minutes("x")
    assert edge.mistake(found.value) == str(found.value)


def test_ctrl_c_anywhere_else_is_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    @edge.command
    def interrupted() -> None:
        raise KeyboardInterrupt

    import typer

    with pytest.raises(typer.Exit) as end:
        interrupted()
    assert end.value.exit_code == 130
    assert capsys.readouterr().err == "recurra: stopped.\n"


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from recurra.estimators import LanguageModel

    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=80, markup=False)
    model = LanguageModel(hidden_size=8, embedding_size=4, num_steps=16, num_updates=30, sample_length=40)
    shown = screen.TrainingScreen(terminal, model, show_samples=True)
    with shown:
        model.fit(TEXT, TEXT[:100], on_progress=lambda p: (shown(p), shown.bar.refresh())[0])
    said = stream.getvalue()
    for part in (
        "Timing a few updates",
        "update 15 of 30",
        "0:00 left",
        "k characters/s",
        "Measuring",
        "what it writes after 30 updates",
    ):
        assert part in said
