"""``recurra learn``: streams from files and from pipes, stopped, resumed, with rows that are not in order."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recurra.cli import learning
from recurra.cli.learning import Options, StreamRun
from recurra.cli.main import app
from recurra.estimators import OnlineClassifier, OnlineForecaster, load_estimator
from recurra.estimators.online.running import MOST_POINTS, Running
from recurra.estimators.online.stream import Stream

SMALL = ("--cell", "ElmanCell", "--hidden-size", "3", "--rule", "TruncatedBPTT", "--lr", "0.01")
ARGUMENTS = {"cell": "ElmanCell", "hidden_size": 3, "rule": "TruncatedBPTT", "lr": 0.01}


@pytest.fixture(autouse=True)
def _pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of a short run's time: only the tests of pages make them."""
    if "page" not in request.node.name:
        monkeypatch.setattr("recurra.report.write_report", lambda folder: folder)


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints, and what it says."""
    result = CliRunner().invoke(app, ["learn", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def waves(num: int = 80) -> list[str]:
    """Lines with a time, a value, a feature and a label."""
    rows = (f"2024-01-{1 + t // 24:02} {t % 24:02}:00,{math.sin(t / 3):.4f},{t % 5},{'ab'[t % 2]}" for t in range(num))
    return ["time,level,five,kind", *rows]


def file_of(folder: Path, lines: list[str], name: str = "stream.csv") -> Path:
    """The lines as a file."""
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def state(folder: Path) -> dict[str, Any]:
    """What a folder keeps, without times."""
    config = json.loads((folder / "config.json").read_text())
    stream = config["record"]["stream"]
    assert stream.pop("seconds") > 0
    del stream["name"]
    return {"fitted": config["fitted"], "weights": config["weights_sha256"], "stream": stream}


# --- what it prints ---


def test_predictions_errors_and_page(tmp_path: Path) -> None:
    path, folder = file_of(tmp_path, waves()), tmp_path / "m"
    printed, said = run(str(path), "--target", "level", "--out", str(folder), *SMALL)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["line", "time", "prediction", "truth", "error"]
    assert rows[0] == {"line": "2", "time": "2024-01-01 00:00", "prediction": "", "truth": "0", "error": ""}
    assert len(rows) == 80
    model = OnlineForecaster(**ARGUMENTS)
    errors = []
    for t, row in enumerate(rows):
        x = {"five": float(t % 5), "kind": "ab"[t % 2]}
        y = float(f"{math.sin(t / 3):.4f}")
        assert (
            row["prediction"] == "" if t == 0 else float(row["prediction"]) == pytest.approx(model.predict_one(x), 1e-6)
        )
        errors += [abs(model.predict_one(x) - y)] * (t > 0)
        model.learn_one(y, x)
    assert f"Mean absolute error  {sum(errors) / 79:.4g} by the model, of late" in said
    for text in (
        "Target    level: a number, so it is forecast",
        "Sees      its own past, five, kind",
        "Not seen  time (time is a time)",
        "80 learned; ",
        "by the last value, of late",
        f"Page   {folder / 'report.html'}",
    ):
        assert text in said
    page = (folder / "report.html").read_text()
    assert "Online forecasts of level" in page
    assert page.count("<img") == 2
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["errors"]["model_mae"] == pytest.approx(sum(errors) / 79)
    assert found["rows"] == 80
    assert isinstance(load_estimator(folder), OnlineForecaster)


def test_classes_and_page(tmp_path: Path) -> None:
    path, folder = file_of(tmp_path, waves()), tmp_path / "m"
    printed, said = run(str(path), "--out", str(folder), *SMALL)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["line", "time", "prediction", "probability", "truth"]
    assert sum(row["prediction"] == row["truth"] for row in rows[40:]) > 35
    for text in ("kind: a class", "Wrong answers", "by the commonest class", "by the last class"):
        assert text in said
    assert "Online labels of kind" in (folder / "report.html").read_text()
    assert isinstance(load_estimator(folder), OnlineClassifier)
    told = CliRunner().invoke(app, ["report", str(folder)])
    assert told.exit_code == 0


def test_the_other_commands(tmp_path: Path) -> None:
    path, folder = file_of(tmp_path, waves(20)), str(tmp_path / "m")
    run(str(path), "--target", "level", "--horizon", "3", "--out", folder, *SMALL)
    model: Any = load_estimator(folder)

    def other(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == code, result.output
        return result.output

    rows = list(csv.DictReader(io.StringIO(other("forecast", folder))))
    assert [float(row["level"]) for row in rows] == pytest.approx(model.forecast(3))
    assert len(json.loads(other("forecast", folder, "--steps", "5", "--json"))) == 5
    assert "left out for a model of recurra learn" in other("forecast", folder, "--plot", "p.png", code=2)
    for command in ("predict", "evaluate"):
        said = other(command, folder, str(path), code=2)
        assert "must be a model of recurra train, got one of recurra learn (OnlineForecaster). It answers while" in said


def test_json_lines_in_and_out(tmp_path: Path) -> None:
    lines = [json.dumps({"a": t % 3, "y": float(t % 3), "on": t % 2 == 0, "gap": None}) for t in range(30)]
    printed, _ = run(str(file_of(tmp_path, lines, "s.jsonl")), "--json", *SMALL)
    *rows, last = map(json.loads, printed.splitlines())
    assert len(rows) == 30
    assert rows[1]["truth"] == 1.0
    assert rows[0]["prediction"] is None
    assert last["summary"]["rows"] == 30
    assert set(last["summary"]["errors"]) == {
        f"{who}_{what}" for who in ("model", "last_value") for what in ("mae", "mae_recent", "rmse")
    }
    assert len(last["summary"]["next"]) == 1


def test_steps_ahead(tmp_path: Path) -> None:
    path = file_of(tmp_path, ["y", *(str(t) for t in range(40))])
    printed, said = run(str(path), "--horizon", "4", *SMALL)
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["prediction"] == "" for row in rows[:6]] == [True] * 4 + [False] * 2
    model = OnlineForecaster(**ARGUMENTS)
    for t in range(20):
        model.learn_one(float(t), {})
    assert float(rows[23]["prediction"]) == pytest.approx(model.forecast(4)[-1], rel=1e-6)
    assert "4 by the last value" in said
    assert "y: a number, so it is forecast (--as classify makes classes of its values), 4 steps ahead" in said
    assert said.split("Next")[1].count(",") == 3


@pytest.mark.parametrize(
    ("lines", "arguments", "target", "kind"),
    [
        (["a,b", "1,2"], (), "b", OnlineForecaster),
        (["y;b", "1,5;2"], (), "y", OnlineForecaster),
        (["label,b", "1,2"], (), "label", OnlineClassifier),
        (["b,flag", "1,yes"], (), "flag", OnlineClassifier),
        (["b,c", "1,2"], ("--as", "classify"), "c", OnlineClassifier),
        (["b,when", "1,2024-01-01"], (), "b", OnlineForecaster),
        (["1,2", "3,4"], (), "column2", OnlineForecaster),
        (["1,2", "3,4"], ("--names", "u,v"), "v", OnlineForecaster),
        (["1.5", "2.5"], (), "column1", OnlineForecaster),
        (["monthly sales", "12"], (), "monthly sales", OnlineForecaster),
    ],
)
def test_what_there_is_to_predict(
    tmp_path: Path, lines: list[str], arguments: tuple[str, ...], target: str, kind: type
) -> None:
    run(str(file_of(tmp_path, lines)), "--out", str(tmp_path / "m"), *arguments, *SMALL)
    assert state(tmp_path / "m")["stream"]["asked"]["target"] == target
    assert isinstance(load_estimator(tmp_path / "m"), kind)


# --- rows that are not in order ---


BAD = ["time,level,five,kind", "1,2", '"x"y,1,2,a', ",,,", "2024-01-01,oops,1,a", "2024-01-01,inf,1,a", ""]


def test_bad_rows_are_named_and_skipped(tmp_path: Path) -> None:
    lines = [*waves(20), *BAD, *waves(25)[21:]]
    path, folder = file_of(tmp_path, lines), tmp_path / "m"
    with open(path, "ab") as file:
        file.write(b"2024-01-01,\xff,1,a\n")
    _, said = run(str(path), "--target", "level", "--out", str(folder), *SMALL)
    for text in (
        "line 22 was skipped: y must be a number, got str 'level'.",
        "line 23 was skipped: it has 2 cells where the stream has 4 columns.",
        "line 26 was skipped: y must be a number, got str 'oops'.",
        "line 27 was skipped: y must be finite, got inf",
        "line 24 was skipped: its quotes or cells are not in order",
        "line 34 was skipped: it is not in UTF-8.",
        "26 learned, 6 lines skipped",
    ):
        assert text in said, said
    good = file_of(tmp_path, [*waves(20), ",,,", *waves(25)[21:]], "good.csv")
    run(str(good), "--target", "level", "--out", str(tmp_path / "good"), *SMALL)
    assert state(folder)["fitted"] == state(tmp_path / "good")["fitted"]


def test_strict_stops_before_the_row_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    lines = waves(30)
    path, folder = file_of(tmp_path, [*lines[:20], "oops", *lines[21:]]), tmp_path / "m"
    _, said = run(str(path), "--target", "level", "--out", str(folder), "--strict", *SMALL, code=2)
    assert "line 21 of" in said
    assert "is no row: it has 1 cell where the stream has 4 columns. The rows before it were learned." in said
    file_of(tmp_path, lines)
    run(str(path), "--out", str(folder), "--resume")
    run(str(path), "--target", "level", "--out", str(tmp_path / "whole"), *SMALL)
    assert state(folder) == state(tmp_path / "whole")


def test_a_column_of_ever_new_texts_is_left_out(tmp_path: Path) -> None:
    lines = ["id,kind,y", *(f"n{t},{'ab'[t % 2]},{t % 2}" for t in range(80))]
    _, said = run(str(file_of(tmp_path, lines)), "--out", str(tmp_path / "m"), *SMALL)
    assert "The column id has more than 50 different texts: the model does not see it from now on." in said
    assert state(tmp_path / "m")["stream"]["asked"]["left_out"] == ["id"]


def test_rows_before_the_first_target_are_passed_over(tmp_path: Path) -> None:
    lines = ["x,y", "1,", "2,NA", "3,0.5", "4,", "5,0.25"]
    printed, said = run(str(file_of(tmp_path, lines)), *SMALL)
    assert "Line 2: y is missing; rows are passed over until it is there." in said
    assert "3 learned; " in said
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["line"], row["truth"]) for row in rows] == [("4", "0.5"), ("5", ""), ("6", "0.25")]
    assert rows[1]["prediction"] != ""
    assert rows[1]["error"] == ""
    _, said = run(str(file_of(tmp_path, lines[:3])), code=2)
    assert "must be a stream with at least one row that has its target, got none" in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nothing.csv",), "nothing.csv must be a file of rows, or - for standard input, got nothing there"),
        ((".",), "must be a file of rows, or - for standard input, got a folder"),
        (("S", "--as", "guess"), "--as must be forecast or classify, got guess"),
        (("S", "--horizon", "0"), "--horizon must be at least 1, got 0"),
        (("S", "--resume"), "--resume must be given with --out, the folder of the model, got no --out"),
        (("S", "--replayed"), "--replayed must be given with --resume and standard input"),
        (
            ("S", "--save-every", "soon"),
            "--save-every must be a time such as 30s or 5m, or a number of rows, got 'soon'",
        ),
        (("S", "--resume", "--out", "none"), "none must be the folder of a saved model, got nothing there"),
        (("S", "--target", "what"), "--target must be a column of S (time, level, five, kind), got what."),
        (("S", "--ignore", "what"), "--ignore must be a column of S (time, level, five, kind), got what."),
        (("J", "--target", "what"), "--target must be one of its columns (a), got what"),
        (("S", "--names", "a,b"), "its first line has 4 cells, and --names has 2"),
        (("S", "--as", "forecast"), "--as forecast needs numbers, and the target 'kind' of the first row is 'a'"),
        (("S", "--horizon", "2"), "--horizon must be left out for classes, got 2"),
        (("S", "--rule", "BPTTT"), "rule must be one of the rules, got 'BPTTT'"),
        (("S", "--lr", "-1"), "lr must be finite and not negative"),
        (("E",), "must be a stream with at least one row, got none"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path, waves(3), "S")
    (tmp_path / "E").write_text("\n\n")
    (tmp_path / "J").write_text('{"a": 1}\n')
    printed, said = run(*arguments, code=2)
    assert text in said
    assert not printed


# --- stopped and resumed ---


def stopped_after(monkeypatch: pytest.MonkeyPatch, num: int, number: int = signal.SIGINT) -> None:
    """A signal comes while a row is learned."""
    row = Stream.row
    count = 0

    def counted(self: Stream, given: Any) -> Any:
        nonlocal count
        count += 1
        if count == num:
            os.kill(os.getpid(), number)
        return row(self, given)

    monkeypatch.setattr(Stream, "row", counted)


def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder, whole = file_of(tmp_path, waves()), tmp_path / "m", tmp_path / "whole"
    arguments = (str(path), "--target", "level", "--horizon", "2", *SMALL)
    all_printed, _ = run(*arguments, "--out", str(whole))
    printed = []
    for part, (num, number, code) in enumerate(((13, signal.SIGINT, 130), (20, signal.SIGTERM, 143), (10**9, 0, 0))):
        with monkeypatch.context() as patch:
            stopped_after(patch, num, number)
            out, said = run(*arguments, "--out", str(folder), *(["--resume"] if part else []), code=code)
        printed += out.splitlines()[part > 0 :]
        if code:
            assert f"stopped after line {14 if part == 0 else 34}. Go on with the same command and --resume." in said
    assert printed == all_printed.splitlines()
    assert state(folder) == state(whole)
    _, said = run(*arguments, "--out", str(folder), "--resume")
    assert "80 learned, none of them now" in said
    assert state(folder) == state(whole)


def test_a_killed_run_goes_on_from_its_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder, whole = file_of(tmp_path, waves()), tmp_path / "m", tmp_path / "whole"
    run(str(path), "--out", str(whole), *SMALL)

    class Killed(BaseException):
        pass

    row = Stream.row

    def fatal(self: Stream, given: Any) -> Any:
        if getattr(self.model, "num_learned_", 0) == 37:
            monkeypatch.setattr(StreamRun, "_save", lambda self, end=False: None)
            raise Killed
        return row(self, given)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "row", fatal)
        with pytest.raises(Killed):
            run(str(path), "--out", str(folder), "--save-every", "10", *SMALL)
    monkeypatch.undo()
    assert state(folder)["stream"]["num_lines"] == 32
    run(str(path), "--out", str(folder), "--resume")
    assert state(folder) == state(whole)


def test_resuming_another_stream_or_another_model_is_refused(tmp_path: Path) -> None:
    path, folder = file_of(tmp_path, waves(10)), str(tmp_path / "m")
    run(str(path), "--out", folder, *SMALL)
    for arguments, text in (
        (("--out", folder), "which holds a model. Choose another, or add --overwrite"),
        (
            ("--out", folder, "--resume", "--hidden-size", "4"),
            "--hidden-size must be 3 as before, got 4. Only --lr may",
        ),
        (("--out", folder, "--resume", "--target", "five"), "--target must be kind as before, or left out, got five"),
        (
            ("--out", folder, "--resume", "--as", "forecast"),
            "--as must be classify as before, or left out, got forecast",
        ),
    ):
        _, said = run(str(path), *arguments, code=2)
        assert text in said
    file_of(tmp_path, waves(9))
    _, said = run(str(path), "--out", folder, "--resume", code=2)
    assert "with at least the 11 lines that it has read, got one that ends after 10" in said
    file_of(tmp_path, [*waves(10)[:-1], "2024-01-01 09:00,9,9,a", "2024-01-01 09:00,9,9,a"])
    _, said = run(str(path), "--out", folder, "--resume", code=2)
    assert "whose first 11 lines it has read, got another one, or a changed one" in said
    run(str(path), "--out", folder, "--overwrite", "--lr", "0.5", *SMALL[:-2])
    assert load_estimator(folder).num_learned_ == 11  # type: ignore[attr-defined]
    assert len(list((tmp_path / "m").iterdir())) == 3
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text().replace('"digest"', '"digests"'))
    _, said = run(str(path), "--out", folder, "--resume", code=2)
    assert "config.json is damaged or foreign: what it says of its stream ('digest')" in said


# --- pipes ---


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes, options: Options) -> int | None:
    """Standard input is a pipe with this content, which stays open if the options say ``-`` and the run is stopped."""
    out, into = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(into, data), os.close(into)))
    writer.start()
    with os.fdopen(out, "rb") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", file)
        found = StreamRun(options).run()
    writer.join()
    return found


def test_a_pipe_that_is_stopped_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{line}\n".encode() for line in waves(60)]
    folder, whole = tmp_path / "m", tmp_path / "whole"
    given: dict[str, Any] = {"stream": "-", "target": "level", "quiet": True, "arguments": ARGUMENTS}
    assert piped(monkeypatch, b"".join(lines), Options(folder=whole, **given)) is None
    with monkeypatch.context() as patch:
        stopped_after(patch, 10)
        assert piped(monkeypatch, b"".join(lines[:31])[:-4], Options(folder=folder, **given)) == signal.SIGINT
    assert state(folder)["stream"]["num_lines"] == 11
    assert len(state(folder)["stream"]["unread"]) > 300
    rest = b"".join(lines[:31])[-4:] + b"".join(lines[31:40])
    assert piped(monkeypatch, rest, Options(folder=folder, resume=True, **given)) is None
    header_again = lines[0] + b"".join(lines[40:50])
    assert piped(monkeypatch, header_again, Options(folder=folder, resume=True, **given)) is None
    replay = b"".join(lines)
    assert state(folder)["fitted"]["num_learned"] == 49
    again = Options(folder=folder, resume=True, replayed=True, **given)
    with pytest.raises(ValueError, match=r"standard input must be the stream of this model, .* got another one"):
        piped(monkeypatch, replay, again)  # the header stood in it twice
    assert piped(monkeypatch, b"".join(lines[50:]), Options(folder=folder, resume=True, **given)) is None
    assert state(folder)["fitted"] == state(whole)["fitted"]
    assert state(folder)["weights"] == state(whole)["weights"]
    one, two = (state(f)["stream"]["asked"] for f in (folder, whole))
    assert one == two


def test_a_replayed_pipe_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{line}\n".encode() for line in waves(40)]
    folder, whole = tmp_path / "m", tmp_path / "whole"
    given: dict[str, Any] = {"stream": "-", "quiet": True, "arguments": ARGUMENTS}
    piped(monkeypatch, b"".join(lines), Options(folder=whole, **given))
    with monkeypatch.context() as patch:
        stopped_after(patch, 10)
        piped(monkeypatch, b"".join(lines), Options(folder=folder, **given))
    piped(monkeypatch, b"".join(lines), Options(folder=folder, resume=True, replayed=True, **given))
    assert state(folder) == state(whole)


def test_an_open_pipe_is_answered_at_once_and_stopped_by_a_signal(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "recurra", "learn", "-", "--target", "level", "--out", "m", *SMALL],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        for t, line in enumerate(waves(4)):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            if t:
                if t == 1:
                    assert process.stdout.readline() == "line,time,prediction,truth,error\n"
                assert process.stdout.readline().startswith(f"{t + 1},2024-01-01 0{t - 1}:00,")
        process.stdin.write("2024-01-01 04:00,half a li")
        process.stdin.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(240) == 143
        said = process.stderr.read()
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
    assert "stopped after line 5. Go on with the same command and --resume." in said
    assert "Traceback" not in said
    kept = state(tmp_path / "m")
    assert kept["fitted"]["num_learned"] == 4
    assert kept["stream"]["unread"] == "2024-01-01 04:00,half a li"


def test_nobody_reads_the_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            if self.tell() > 400:
                raise BrokenPipeError

    monkeypatch.setattr(learning, "ROWS_PER_WRITE", 5)
    monkeypatch.setattr(sys, "stdout", Closed())
    path = file_of(tmp_path, waves())
    assert StreamRun(Options(stream=str(path), folder=tmp_path / "m", arguments=ARGUMENTS)).run() is None
    assert 5 < load_estimator(tmp_path / "m").num_learned_ < 60  # type: ignore[attr-defined]


# --- running errors ---


def test_running_errors_take_constant_memory() -> None:
    running = Running(("model", "naive"), squares=True)
    for t in range(5000):
        running.add([float(t >= 4000), 2.0])
        assert len(running.points) < MOST_POINTS
    assert running.mean() == [0.2, 2.0]
    assert running.root_mean_square() == [math.sqrt(0.2), 2.0]
    assert running.recent()[0] == pytest.approx(1 - math.exp(-2), abs=0.01)
    assert sum(p[1] for p in running.points) / len(running.points) == pytest.approx(0.2, abs=0.02)
    assert Running.unpack(json.loads(json.dumps(running.pack()))).pack() == running.pack()
