"""The command line in real processes: training that is killed and gone on with, and several processes of torchrun."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from recurra.cli import edge
from recurra.cli.main import app
from recurra.training.checkpoint import checkpoints

TEXT = "to be or not to be, that is the question:\n" * 20


def table(folder: Path) -> Path:
    """A season of seven steps, 60 days."""
    days = (f"2024-{1 + i // 28:02}-{1 + i % 28:02},{(i % 7) + 0.1 * (i % 5)},{i % 3}" for i in range(60))
    (folder / "days.csv").write_text("\n".join(["date,sold,rain", *days]) + "\n")
    return folder / "days.csv"


def series(folder: Path) -> Path:
    """Two classes: rising and falling."""
    rows = [",".join(f"{(1 - 2 * (n % 2)) * i + 0.3 * (n % 5):g}" for i in range(12)) + f":{n % 2}" for n in range(40)]
    head = ["@problemName slopes", "@univariate true", "@classLabel true 0 1", "@data"]
    (folder / "slopes.ts").write_text("\n".join([*head, *rows]) + "\n")
    return folder / "slopes.ts"


def text(folder: Path) -> Path:
    """Something to be or not to be."""
    (folder / "hamlet.txt").write_text(TEXT)
    return folder / "hamlet.txt"


SMALL = {
    "language_model": (text, ["--hidden-size", "8", "--embedding-size", "4", "--num-steps", "8"]),
    "forecaster": (table, ["--hidden-size", "8", "--target", "sold"]),
    "sequence_classifier": (series, ["--hidden-size", "4", "--models", "1"]),
}


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def process(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_command_goes_on_bit_for_bit_with_nothing_but_resume(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lines = {}
        for kind, (make, options) in SMALL.items():
            lines[kind] = [str(make(tmp_path)), "--seed", "5", "--updates", "120", "--precision", "float32", *options]
        children = {
            kind: process("-m", "recurra", "train", *line, "--out", str(tmp_path / kind))
            for kind, line in lines.items()
        }
        updates = killed_at(children, tmp_path)
        for kind, line in lines.items():
            killed, whole = tmp_path / kind, tmp_path / f"{kind}-whole"
            assert 0 < updates[kind] < 120
            assert json.loads((killed / "config.json").read_text())["weights_sha256"] is None
            said = command("train", *line, "--out", str(killed), code=2)
            assert said.endswith(
                "which holds an unfinished run. Go on with it by --resume, choose another, or add --overwrite.\n"
            )
            said = command("train", line[0], "--out", str(killed), "--resume")  # the rest is remembered
            assert "as in the run that goes on" in said
            command("train", *line, "--out", str(whole))
            assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
            mine, other = (json.loads((f / "evaluation.json").read_text())["metrics"] for f in (killed, whole))
            assert mine | {"seconds": 0} == other | {"seconds": 0}
    finally:
        torch.set_num_threads(threads)


def killed_at(children: dict[str, subprocess.Popen[str]], folder: Path) -> dict[str, int]:
    """Kill each training as soon as an update later than the first is on the disk; says which."""
    until, found = time.monotonic() + 120, dict[str, int]()
    while len(found) < len(children):
        for kind, child in children.items():
            if kind in found:
                continue
            if any(int(path.stem) for path in checkpoints(folder / kind)):
                child.send_signal(signal.SIGKILL)
                child.communicate()
                assert child.returncode == -signal.SIGKILL
                found[kind] = max(int(path.stem) for path in checkpoints(folder / kind))
            else:
                assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.003)
    return found


# --- torchrun ---


def test_of_two_processes_the_first_one_speaks_and_writes(tmp_path: Path) -> None:
    file, out = table(tmp_path), tmp_path / "model"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "recurra"]
    child = process(*torchrun, "train", str(file), "--target", "sold", "--updates", "6", "--out", str(out), "--json")
    said, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert json.loads(said)["record"]["plan"]["processes"] == 2  # one JSON value
    assert len(re.findall("This will be a forecast", errors)) == 1
    assert len(re.findall("Backtest", errors)) == 1  # for which both train a copy of the model
    assert (out / "report.html").is_file()
    assert not (out / "checkpoints").exists()


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the second one of torchrun."""
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(edge, "PATIENCE_S", 0.0)


@pytest.mark.usefixtures("second")
def test_the_second_process_leaves_the_rest_to_the_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert command("list") == ""
    assert command("generate", str(tmp_path / "nothing")) == ""
    # It does not look into the folder, where the first one may already be writing; what only it has got wrong is heard.
    said = command("train", str(tmp_path / "no.txt"), "--out", str(tmp_path), code=2)
    assert said == f"Process 1: recurra: {tmp_path / 'no.txt'} must be a file, got nothing there.\n"
    for name in ("demo", "reproduce"):
        assert "must be run in one process, got 2 of torchrun" in command(name, code=2)
