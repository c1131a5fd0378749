"""The benchmark page: what is not measured again stays, what is gone goes, nothing is written half."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks.section import Section, read, update


def test_sections_keep_their_last_text(tmp_path: Path) -> None:
    page = tmp_path / "BENCHMARKS.md"
    update(page, {"b": "## B\n\nold\n", "a": "## A\n\nold\n"}, ["a", "b"])
    update(page, {"a": "## A\n\nnew\n"}, ["a", "b"])
    assert read(page.read_text()) == {"a": "## A\n\nnew\n", "b": "## B\n\nold\n"}
    assert page.read_text().index("## A") < page.read_text().index("## B")
    update(page, {}, ["a"])
    assert set(read(page.read_text())) == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["BENCHMARKS.md"]


def test_section_is_a_table() -> None:
    section = Section("Speed", ("what", "s"), [("this", "1.0")], ("How.",))
    assert section.text("today") == "## Speed\n\ntoday\n\n| what | s |\n| --- | --- |\n| this | 1.0 |\n\nHow.\n"
    with pytest.raises(ValueError, match=r"^Section: a row must be 2 cells, got 1\."):
        Section("Speed", ("what", "s"), [("this",)])


def test_every_module_with_a_run_is_found() -> None:
    folder = Path(command.__file__).parent
    with_run = {path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text()}
    assert set(command.found()) == with_run
    assert {"importing", "checkpointed"} <= with_run


def fake(name: str, error: Exception | None = None) -> SimpleNamespace:
    def run(quick: bool = False) -> Section:
        if error is not None:
            raise error
        return Section(name, ("what",), [("quick" if quick else "full",)])

    return SimpleNamespace(run=run, __doc__=f"Measures {name}.")


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    here = {
        "one": fake("one"),
        "lost": fake("lost", FileNotFoundError("no data")),
        "bad": fake("bad", ValueError("wrong")),
    }
    monkeypatch.setattr(command, "found", lambda: here)
    assert command.main(["one", "--output", str(page)]) == 0
    assert "| full |" in read(page.read_text())["one"]
    assert "torch" in read(page.read_text())["one"]  # the stamp
    assert command.main(["lost", "one", "--quick", "--output", str(page)]) == 0
    assert "| full |" in read(page.read_text())["one"]  # a quick run writes nothing
    assert command.main(["lost", "--output", str(page)]) == 1
    assert command.main(["bad", "--quick"]) == 1
    assert command.main(["--list"]) == 0
    assert "one: Measures one." in capsys.readouterr().out
    assert command.main(["on", "--quick"]) == 0  # the beginning is enough where it leaves no doubt
    capsys.readouterr()
    assert command.main(["two"]) == 2
    assert capsys.readouterr().err == "benchmarks: name must be one of one, lost, bad, got two.\n"
