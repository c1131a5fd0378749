"""The laws on a user's own cell, the counts of all laws, and what a member says it cannot obey."""

import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from broken_cells import CutsGradient, LeaksFuture, Sound
from recurra.cells import ElmanCell
from recurra.core import members
from recurra.testing import Report, Setting, check_target, laws, run_all
from recurra.testing import run as run_module
from recurra.testing.law import Outcome
from recurra.wrappers import Stack

MINE = '''
from recurra.cells import ElmanCell
from recurra.core import Cell, HoistedCell

class Mine(ElmanCell):
    """h' = tanh(W x + U h + b)."""

class Leaking(ElmanCell):
    """h' = tanh(W x + U h + b)."""

    def project(self, x):
        return super().project(x - x.mean(0) if x.ndim == 3 else x)

class Bare(ElmanCell):
    """h' = tanh(W x + U h + b)."""

    @classmethod
    def examples(cls):
        yield from ()

class Bent(ElmanCell):
    """h' = tanh(W x + U h + b)."""

    @classmethod
    def examples(cls):
        yield cls(0, 1)

number = 3
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module in the current directory."""
    path = tmp_path / "my_cells_for_check.py"
    path.write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return path


def test_a_good_cell_holds(mine: Path):
    lines: list[str] = []
    assert check_target(f"{mine.stem}:Mine", lines.append) == 0
    text = "\n".join(lines)
    assert "3 examples" in text
    assert all(law.name in text for law in laws("cells"))
    assert all(f"engine {name}" in text for name in members("engines"))
    assert text.endswith(" 0 broken")


def test_a_file_is_loaded_by_its_path(mine: Path):
    assert check_target(f"{mine}:Mine", lambda line: None) == 0


def test_a_file_in_a_package_is_loaded_with_its_relative_imports(mine: Path):
    package = mine.parent / "my_package_for_check"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cells.py").write_text(MINE)
    (package / "more.py").write_text("from .cells import Mine\n")
    assert check_target("my_package_for_check/more.py:Mine", lambda line: None) == 0


def test_a_faulty_cell_is_told_what_it_breaks(mine: Path):
    lines: list[str] = []
    assert check_target(f"{mine.name}:Leaking", lines.append) == 1
    text = "\n".join(lines)
    assert "causality            BROKEN (3 of 3 examples)" in text
    assert "causality: A later input changes no earlier output." in text
    assert "Leaking(input_size=3, hidden_size=5): with another input from step 1 on" in text


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("Xyz", ValueError, "check: target must be MODULE:CLASS, FILE.py:CLASS or a name of the catalog, got 'Xyz'."),
        ("none.py:Mine", ValueError, "check: the file must be an existing Python file, got 'none.py'."),
        (
            "no_such_module:Mine",
            ValueError,
            "check: the module must be importable, got ModuleNotFoundError from no_such_module: "
            "No module named 'no_such_module'.",
        ),
        (
            "my_cells_for_check:Mines",
            ValueError,
            "check: the class must be in my_cells_for_check, got 'Mines'. Did you mean Mine?",
        ),
        (
            "my_cells_for_check:number",
            TypeError,
            "check: number must be a subclass of recurra.core.Cell or "
            "recurra.core.AssociativeMemory or recurra.core.SpinDynamics, got int.",
        ),
        (
            "my_cells_for_check:HoistedCell",
            TypeError,
            "check: HoistedCell must be complete, got an abstract class. "
            "It does not define advance, examples, initial_state, project.",
        ),
        (
            "my_cells_for_check:Bare",
            ValueError,
            "check: Bare.examples must be at least one instance, got none. "
            "Yield small instances, each option at least once.",
        ),
        (
            "my_cells_for_check:Bent",
            ValueError,
            "check: Bent.examples must be runnable, got ValueError: Bent: input_size must be at least 1, got 0.",
        ),
    ],
)
def test_messages(mine: Path, target: str, error: type[Exception], message: str):
    with pytest.raises(error) as found:
        check_target(target, lambda line: None)
    assert str(found.value) == message


@pytest.mark.parametrize("name", ["Wolff", "willshaw", "elman"])
def test_one_of_the_catalog(name: str):
    lines: list[str] = []
    assert check_target(name, lines.append) == 0
    assert name in lines[0].lower() + lines[0]
    assert "0 broken" in lines[-1]
    assert any("engine" in line for line in lines) == (name == "elman")


def test_a_memory_and_a_dynamics_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("spins_for_check.py").write_text(
        "from recurra.memories import SequentialHeatBath, Willshaw\n"
        "class Warm(SequentialHeatBath):\n"
        "    'Its bath is warmer than it says.'\n"
        "    def run(self, system, spins, beta, generator):\n"
        "        return super().run(system, spins, 0.8 * beta, generator)\n"
        "class Mine(Willshaw):\n"
        "    'Few units are active.'\n"
    )
    lines: list[str] = []
    assert check_target("spins_for_check.py:Warm", lines.append) == 1
    assert any("stationary" in line and "BROKEN" in line for line in lines)
    assert check_target("spins_for_check.py:Mine", lines.append) == 0


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match=r"a name of the catalog, got 'Hopfeld'\. Did you mean Hopfield"):
        check_target("Hopfeld", print)


def test_a_module_that_fails_is_one_sentence(mine: Path):
    mine.write_text("1 / 0")
    with pytest.raises(ValueError, match=r"got ZeroDivisionError from my_cells_for_check\.py: division by zero\.$"):
        check_target(f"{mine.name}:Mine")


def test_an_exemption_is_counted_and_reaches_what_stands_around():
    class Excused(CutsGradient):
        """Its gradient is cut off on purpose."""

        exempt: ClassVar[dict[str, str]] = {"gradcheck": "the state carries no gradient by design."}

    law = next(law for law in laws("cells") if law.name == "gradcheck")
    for cell in (Excused(), Stack(Excused(), ElmanCell(3, 2))):
        outcome = law.judge(cell, setting=Setting())
        assert (outcome.status, outcome.reason) == ("exempt", "the state carries no gradient by design.")


def test_run_all_asks_every_law_of_every_member(monkeypatch: pytest.MonkeyPatch):
    """The catalog is cut to two cells here; the other tests ask them all."""
    torch.manual_seed(0)
    whole = run_module.instances
    two = [("Sound-0", Sound()), ("LeaksFuture-0", LeaksFuture())]
    monkeypatch.setattr(run_module, "instances", lambda family: two if family == "cells" else whole(family))
    seen: list[float] = []
    report = run_all(progress=lambda what, part: seen.append(part))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    asked = {(family, name, cell, outcome.law) for family, name, cell, outcome in report.outcomes}
    engines = {("engines", e, c, law.name) for e in members("engines") for c, _ in two for law in laws("engines")}
    assert engines <= asked
    assert {("cells", c, "", law.name) for c, _ in two for law in laws("cells")} <= asked
    assert {("rules", r, c, law.name) for r in members("rules") for c, _ in two for law in laws("rules")} <= asked
    assert any(line.startswith("causality: LeaksFuture(") for line in report.broken)
    text = str(report)
    assert f"{len(report.outcomes)} asked" in text
    assert "engines: Hoisted x cells" in text


@pytest.mark.slow
def test_several_processes_find_the_same():
    questions = run_module._all_work()[: run_module.PIECE + 3]
    alone = [row for item in questions for row in run_module._ask(item, False, "cpu")]
    seen: list[float] = []
    spread = run_module._spread(len(questions), False, lambda what, part: seen.append(part), "cpu", 2)
    assert [(f, n, c, o.law, o.status) for f, n, c, o in spread] == [(f, n, c, o.law, o.status) for f, n, c, o in alone]
    assert seen == [0.5, 1.0]


def test_the_table_adds_up():
    outcomes = [("cells", "A-0", "", Outcome("rows", "A()", "holds"))] * 2
    outcomes.append(("engines", "Loop", "A-0", Outcome("lengths", "Loop()", "broken", "It is wrong.")))
    assert str(Report(tuple(outcomes))).splitlines()[-1].split() == ["all", "(3", "asked)", "2", "0", "0", "1"]
