"""What the documents show is run: Python blocks, commands, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import recurra
from docs.build_reference import capabilities
from recurra.cli.main import app
from recurra.core import members

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of the fenced blocks of a language."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: block.start()].count("\n") + 2, block[1]) for block in found]


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if blocks(p, "python")], ids=name_of)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one namespace, as a reader would; a block's line numbers are the document's."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "document"}
    for line, code in blocks(path, "python"):
        program = compile("\n" * (line - 1) + code, str(path), "exec")
        exec(program, names)


def commands() -> list[tuple[str, str]]:
    """Document and line of every ``recurra`` command in a console block."""
    found = []
    for path in DOCUMENTS:
        for _, text in blocks(path, "console"):
            for line in text.splitlines():
                found += [(name_of(path), part) for part in re.findall(r"\brecurra(?: [^&#]+)?", line.split("#")[0])]
    return found


@pytest.mark.parametrize(("document", "line"), commands())
def test_commands_exist(document: str, line: str) -> None:
    """Each command that a document shows has its options; where it is cheap to run, it runs."""
    words = line.split()[1:]
    group = typer.main.get_command(app)
    if words and not words[0].startswith("-"):
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, f"{document}: {line}"
    if words and words[0] in ("list", "show"):
        assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http") and not target.startswith("reference/"):
            assert (path.parent / target).exists(), f"{name_of(path)} links to {target}"


def test_the_table_of_capabilities_is_complete() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+Cell)` \|", text, re.MULTILINE) == [c.__name__ for c in capabilities()]


def test_the_table_of_torchs_layers_is_code_that_runs() -> None:
    """Both sides of a row are built, and have as many outputs."""
    text = (ROOT / "docs" / "from-torch-nn.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(nn\.\w+\([^`]+\))` \| `([^`]+\))` \|", text, re.MULTILINE)
    assert len(rows) >= 4
    names = {**members("cells"), "Recurrent": recurra.Recurrent, "nn": torch.nn, "D": 3, "H": 5, "P": 2}
    xs = torch.zeros(7, 4, 3)
    for theirs, ours in rows:
        assert eval(ours, names)(xs)[0].shape == eval(theirs, names)(xs)[0].shape, (theirs, ours)


def test_readme_begins_with_the_two_commands() -> None:
    shown = [text.strip() for _, text in blocks(ROOT / "README.md", "console")]
    assert shown[:2] == ["pip install . && recurra demo", "pip install '.[test]' && pytest"]
