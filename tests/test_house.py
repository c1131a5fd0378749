"""The rules of the house hold, each is shown to bite, and a new cell needs one new file."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import house
import recurra
from recurra.core import catalog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "recurra"
SECTIONS = ("Args", "State", "Source", "Cost", "Example")
HEAVY = ("matplotlib", "scipy", "rich", "typer", "llvmlite", "hypothesis", "pytest", "pandas", "sklearn", "safetensors")
MAX_LINES = 800

CELLS = catalog.members("cells")


def run_python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_files() -> list[Path]:
    return sorted(p for folder in ("src", "tests", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py"))


# --- who imports whom -------------------------------------------------------------------------------------------


def test_import_directions() -> None:
    assert house.forbidden_imports(PACKAGE) == []


def test_no_engine_and_no_rule_knows_a_cell_by_name() -> None:
    assert house.named_members(PACKAGE, set(CELLS)) == []


def small_house(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A package of five rooms, and in it the given files (``room/name`` -> text)."""
    package = folder / "recurra"
    for room in ("core", "init", "cells", "engines", "testing"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text('"""A room."""\n')
    (package / "__init__.py").write_text('"""The house."""\n')
    for name, text in (files or {}).items():
        (package / f"{name}.py").write_text(text)
    return package


@pytest.mark.parametrize(
    ("where", "text", "complaint"),
    [
        (
            "cells/a",
            "from ..engines import Loop\n",
            "a.py:1: cells may not import engines: `from ..engines import Loop`",
        ),
        ("cells/a", "\nfrom .. import engines\n", "a.py:2: cells may not import engines: `from .. import engines`"),
        ("cells/a", "import recurra.engines.loop\n", "a.py:1: cells may not import engines"),
        ("engines/a", "from recurra.cells.lstm import LSTMCell\n", "a.py:1: engines may not import cells"),
        ("core/a", "def f():\n    from ..cells import x\n", "a.py:2: core may not import cells"),
        ("core/__init__", "from ..cells import x\n", "__init__.py:1: core may not import cells"),
        ("core/a", "from .. import Recurrent\n", "a.py:1: core may not import recurra itself"),
        ("cells/a", "from ..testing import check_cell\n", "a.py:1: cells may not import testing"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, where: str, text: str, complaint: str) -> None:
    (found,) = house.forbidden_imports(small_house(tmp_path, {where: text}))
    assert complaint in found


def test_what_is_allowed_is_not_caught(tmp_path: Path) -> None:
    text = '"""Doc.\n\n    >>> from recurra.engines import Loop\n"""\nimport torch\nfrom ..core import tree\nfrom .b import x\n'
    package = small_house(tmp_path, {"cells/a": text, "engines/a": "from ..core.cell import Cell\n"})
    assert house.forbidden_imports(package) == []


def test_a_room_without_a_plan_is_caught(tmp_path: Path) -> None:
    package = small_house(tmp_path)
    (package / "attic").mkdir()
    (package / "attic" / "a.py").write_text("from ..core import tree\n")
    assert "attic is no room" in house.forbidden_imports(package)[0]


def test_a_cell_known_by_name_is_caught(tmp_path: Path) -> None:
    text = '"""Doc of LSTMCell."""\nfast = type(cell).__name__ == "LSTMCell"\n'
    package = small_house(tmp_path, {"engines/a": text})
    assert house.named_members(package, {"LSTMCell"}) == [
        "recurra/engines/a.py:2: engines knows LSTMCell by name; ask for a capability."
    ]


# --- import recurra is cheap --------------------------------------------------------------------------------------


LOADED = """
import json, sys
import torch
before = set(sys.modules)
import recurra
after = set(sys.modules)
recurra.Recurrent(recurra.LSTMCell(3, 5))(torch.zeros(7, 2, 3))
print(json.dumps([sorted(after - before), sorted(set(sys.modules) - before)]))
"""


def test_import_recurra_imports_nothing_else() -> None:
    by_import, by_use = json.loads(run_python("-c", LOADED))
    assert by_import == ["recurra"]
    assert not {name.split(".")[0] for name in by_use} & set(HEAVY)
    rooms = {name.split(".")[1] for name in by_use if name.startswith("recurra.")}
    assert rooms <= {"core", "init", "cells", "wrappers", "engines", "layers"}


def test_every_name_of_the_package_is_there() -> None:
    for name in dir(recurra):
        if not name.startswith("_"):
            assert getattr(recurra, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = recurra.Nothing


# --- the catalog --------------------------------------------------------------------------------------------------


def test_no_two_members_have_one_name() -> None:
    for family in catalog.FAMILIES.values():
        seen: dict[str, str] = {}
        for package in family.packages:
            for module in catalog._modules(package):
                for name, item in vars(module).items():
                    if inspect.isclass(item) and item.__module__ == module.__name__ and issubclass(item, family.bases):
                        assert seen.setdefault(name, module.__name__) == module.__name__
        public = {n for n in seen if not n.startswith("_")}
        assert set(catalog.members(family.name)) <= public


def test_every_public_cell_module_has_a_member() -> None:
    homes = {item.__module__ for item in CELLS.values()}
    for path in sorted((PACKAGE / "cells").glob("[a-z]*.py")):
        assert f"recurra.cells.{path.stem}" in homes


# --- what is written ----------------------------------------------------------------------------------------------


def test_everything_public_has_a_docstring() -> None:
    assert house.undocumented(PACKAGE) == []


def test_a_missing_docstring_is_caught(tmp_path: Path) -> None:
    package = small_house(tmp_path, {"cells/a": '"""Doc."""\nclass A:\n    """Doc."""\n    def f(self): ...\n'})
    assert house.undocumented(package) == ["recurra/cells/a.py:4: f has no docstring."]


@pytest.mark.parametrize("name", CELLS)
def test_docstring_of_a_cell_teaches(name: str) -> None:
    item = CELLS[name]
    text = inspect.getdoc(item) or ""
    head = re.split(r"^\w+:$", text, maxsplit=1, flags=re.MULTILINE)[0]
    assert text.splitlines()[0].endswith((".", ":"))
    assert re.search(r"^    .*(=|<-)", head, re.MULTILINE), f"{name} shows no equation"
    order = [section for section in re.findall(r"^(\w+):$", text, re.MULTILINE) if section in SECTIONS]
    assert order == list(SECTIONS), f"{name} has the sections {order}"
    assert ">>>" in text
    assert getattr(item, "source", ""), f"{name} names no source"


def test_the_arguments_in_a_docstring_are_the_arguments() -> None:
    plain = {"self", "device", "dtype"}
    for name, item in CELLS.items():
        section = re.search(r"^Args:\n(.*?)^\w+:$", inspect.getdoc(item) or "", re.MULTILINE | re.DOTALL)
        assert section is not None
        written = {
            word.strip(" *") for entry in re.findall(r"^    ([\w*, ]+):", section[1], re.M) for word in entry.split(",")
        }
        real = set(inspect.signature(item.__init__).parameters)
        assert written <= real, f"{name} explains {sorted(written - real)}, which it does not take"
        assert real <= written | plain, f"{name} does not explain {sorted(real - written - plain)}"


# --- files --------------------------------------------------------------------------------------------------------


def test_no_file_is_a_drawer_or_a_monster() -> None:
    """A drawer is a file that says nothing about what is in it."""
    sizes = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in python_files()}
    assert [name for name in sizes if Path(name).stem in ("utils", "util", "helpers", "misc", "common")] == []
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_nothing_that_a_file_says_is_executed() -> None:
    """Tests may: they run what the documents show."""
    files = [path for path in python_files() if ROOT / "tests" not in path.parents]
    found = [complaint for path in files for complaint in house.unsafe_calls(path)]
    assert found == []


@pytest.mark.parametrize("text", ["import pickle\n", "torch.load(p)\n", "eval(x)\n", "run(c, shell=True)\n"])
def test_an_unsafe_call_is_caught(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(text)
    assert len(house.unsafe_calls(path)) == 1


def test_no_file_names_a_folder_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w./~-])/(?:home|root|work|Users)/\w")
    for path in [
        *python_files(),
        *ROOT.glob("*.md"),
        *ROOT.glob("*.toml"),
        *ROOT.glob("docs/*.md"),
        ROOT / ".ci" / "run",
    ]:
        found = pattern.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found}"


# --- a new cell is one new file -----------------------------------------------------------------------------------


ADDED = """
import json, sys
import recurra.cells
recurra.cells.__path__.append(sys.argv[1])  # the file is there; nothing else is said to anyone

from typer.testing import CliRunner
from docs import build_reference
from recurra.cli.main import app
from recurra.core.catalog import members

name = sys.argv[2]
cell = members("cells")[name]
runner = CliRunner(env={"COLUMNS": "200"})
check = runner.invoke(app, ["check", f"{cell.__module__}:{name}"])
print(json.dumps({
    "module": cell.__module__,
    "package": getattr(__import__("recurra"), name) is cell and getattr(recurra.cells, name) is cell,
    "list": runner.invoke(app, ["list", "cells"]).output,
    "show": runner.invoke(app, ["show", name]).output,
    "check": [check.exit_code, check.output],
    "pages": {page.path: page.text for page in build_reference.pages() if name in page.text},
}))
"""


def example_of_contributing() -> str:
    """The complete cell that CONTRIBUTING.md shows."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"```python title=\"src/recurra/cells/(\w+)\.py\"\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[2]


def test_a_dropped_file_is_all_that_a_new_cell_needs(tmp_path: Path) -> None:
    source = example_of_contributing()
    name = re.findall(r"^class (\w+Cell)\b", source, re.MULTILINE)[0]
    assert name not in CELLS
    (tmp_path / "dropped.py").write_text(source, encoding="utf-8")
    found = json.loads(run_python("-c", ADDED, str(tmp_path), name))
    assert found["module"] == "recurra.cells.dropped"
    assert found["package"]
    assert name in found["list"]
    assert "1 - a" in found["show"]
    code, report = found["check"]
    assert code == 0, report
    for word in ("gradcheck", "causal", *(f"engine {engine}" for engine in catalog.members("engines"))):
        assert word in report
    assert set(found["pages"]) >= {"cells/index.md", f"cells/{name}.md"}
    page = found["pages"][f"cells/{name}.md"]
    assert "h' = (1 - a) h + a tanh(W x + U h + b)" in page
    assert f"from recurra.cells import {name}" in page


def test_the_example_of_contributing_is_tidy(tmp_path: Path) -> None:
    source = example_of_contributing()
    package = small_house(tmp_path)
    (package / "cells" / "dropped.py").write_text(source, encoding="utf-8")
    assert house.forbidden_imports(package) == []
    assert house.undocumented(package) == []
