"""Rules side by side: the numbers, the command, its files and its mistakes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from recurra.analysis import compare_rules, exact_gradients
from recurra.cells import ElmanCell
from recurra.cli.main import app
from recurra.core import Chunk, Controls, CrossEntropy, MeanSquaredError
from recurra.learning import BPTT, RTRL, UORO, TruncatedBPTT
from recurra.tasks.endless_texts import COUNTED, counted_letters, distant_brackets


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["compare-rules", *arguments], env={"COLUMNS": "100", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def given() -> tuple[ElmanCell, Chunk]:
    torch.manual_seed(0)
    cell = ElmanCell(2, 4).double()
    reset = torch.zeros(9, 2, dtype=torch.bool)
    reset[4, 0] = True
    xs, targets = torch.randn(9, 2, 2, dtype=torch.float64), torch.randn(9, 2, 4, dtype=torch.float64)
    return cell, Chunk(xs, targets, torch.rand(9, 2, dtype=torch.float64), Controls(reset=reset))


def test_exact_gradients_of_pieces_are_those_of_the_exact_rule() -> None:
    cell, chunk = given()
    edges = [0, 2, 3, 9]
    pieces = exact_gradients(cell, chunk, edges, MeanSquaredError())
    whole = BPTT().step(cell, BPTT().init(cell, 2), chunk, MeanSquaredError())[1].direction
    torch.testing.assert_close(pieces.sum(0), torch.cat([d.reshape(-1) for d in whole.values()]))
    exact, at_once, short, noisy = compare_rules(
        [RTRL(), BPTT(), TruncatedBPTT(), UORO()], cell, chunk, MeanSquaredError(), num_steps=2, draws=30
    )
    assert exact.cosine == pytest.approx(1, abs=1e-10)
    assert exact.cosines == pytest.approx([1.0] * 5, abs=1e-10)
    assert exact.draws == 1
    assert exact.bias < 1e-10
    assert exact.length == pytest.approx(1, abs=1e-10)
    assert at_once.at_once
    assert at_once.cosine == pytest.approx(1, abs=1e-10)
    assert short.cosine < 0.9999
    assert not short.at_once
    assert short.bias > 1e-3
    assert short.cosines[0] == pytest.approx(1, abs=1e-10)
    assert noisy.draws == 30
    assert noisy.deviation > 0.1
    assert noisy.bias < 3 * noisy.bias_noise  # it is unbiased
    assert noisy.carry_bytes < exact.carry_bytes


def test_a_bias_is_larger_than_its_noise() -> None:
    cell, chunk = given()

    class Half(UORO):
        """Half of an unbiased estimate."""

        def step(self, cell, carry, chunk, loss):  # type: ignore[no-untyped-def]
            carry, estimate = super().step(cell, carry, chunk, loss)
            return carry, estimate._replace(direction={n: d / 2 for n, d in estimate.direction.items()})

    (found,) = compare_rules([Half()], cell, chunk, MeanSquaredError(), num_steps=9, draws=60)
    assert found.bias > 3 * found.bias_noise


def test_what_cannot_be_compared_is_said() -> None:
    cell, chunk = given()
    with pytest.raises(ValueError, match="compare_rules: draws must be at least 1, got 0"):
        compare_rules([RTRL()], cell, chunk, MeanSquaredError(), draws=0)
    nothing = chunk._replace(weights=torch.zeros(9, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="the gradient must be other than zero, got zero"):
        compare_rules([RTRL()], cell, nothing, MeanSquaredError())
    classes = chunk._replace(targets=torch.zeros(9, 2, dtype=torch.int64))
    assert compare_rules([BPTT()], cell, classes, CrossEntropy())[0].cosine == pytest.approx(1)


def test_command_writes_a_table_and_files(tmp_path: Path) -> None:
    said = run(
        "gru", "--rule", "RTRL", "--rule", "SnAp(n=1)", "--rule", "uoro", "--rule", "BPTT", "--steps", "6", "--chunk", "3",
        "--hidden-size", "3", "--draws", "3", "--locality", "--out", str(tmp_path),
    )  # fmt: skip
    assert "GRUCell with 3 units and a readout" in said
    assert "SnAp" in said
    assert "begins anew with every chunk" in said
    assert "local in space" in said
    assert "RTRL: The update of cell.weight_ih[0, 0] reads" in said
    rows = list(csv.DictReader((tmp_path / "compare-rules.csv").read_text().splitlines()))
    assert [row["rule"] for row in rows] == ["RTRL", "SnAp", "UORO", "BPTT"]
    assert float(rows[0]["cosine"]) == pytest.approx(1)
    data = json.loads((tmp_path / "compare-rules.json").read_text())
    assert len(data["rules"][0]["cosines"]) == 2
    assert [one["in_space"] for one in data["locality"]] == [False, True, False, True]
    assert (tmp_path / "compare-rules.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("task", ["adding", "letters", "brackets"])
def test_tasks(task: str) -> None:
    data = json.loads(run("--task", task, "--rule", "RTRL", "--rule", "EKF", "--steps", "5", "--json"))
    assert data["rules"][0]["cosine"] == pytest.approx(1)
    assert task in data["what"]
    assert data["rules"][1]["is_step"]
    assert data["rules"][1]["bias"] is None


def test_files_and_cells_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "waves.csv"
    table.write_text("when,a,b\n" + "\n".join(f"{t},{math.sin(t)},{math.cos(t)}" for t in range(12)))
    assert "8 rows of waves.csv" in run("--data", str(table), "--steps", "8", "--rule", "RTRL")
    text = tmp_path / "hamlet.txt"
    text.write_text("to be or not to be")
    assert "8 characters of hamlet.txt" in run("--data", str(text), "--steps", "8", "--rule", "RTRL")
    own = tmp_path / "own.py"
    own.write_text("from recurra.cells import ElmanCell\nclass MyCell(ElmanCell):\n    pass\n")
    assert "MyCell with 8 units" in run(f"{own}:MyCell", "--steps", "4", "--rule", "RTRL")
    assert "must be at least 41 complete rows, got 12" in run("--data", str(table), "--steps", "40", code=2)
    assert "must be 1 with --data, got 2" in run("--data", str(table), "--rows", "2", code=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rule", "RTLR"], "must be one of the rules, got 'RTLR'. Did you mean RTRL"),
        (["--rule", "SnAp(m=1)"], "must be given options that SnAp has (n), got 'm'"),
        (["--rule", "SnAp(n=0)"], "n must be"),
        (["--rule", "__import__('os')"], "--rule must be"),
        (["--rule", "EvolutionStrategy"], "a rule that learns from a stream, got EvolutionStrategy"),
        (["elmen"], "compare-rules: CELL must be one of the cells, got 'elmen'"),
        (["stack"], "a cell that is made from input_size and hidden_size"),
        (["embedding"], "one that takes and gives a vector for each row"),
        (["--task", "chess"], "--task must be"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], sentence: str) -> None:
    said = run(*arguments, code=2)
    assert sentence in " ".join(said.split())
    assert said.count("\n") == 1


def test_endless_texts() -> None:
    generator = torch.Generator().manual_seed(1)
    text = counted_letters(500, 3, generator, most=5)
    assert text.shape == (500, 3)
    for row in text.T.tolist():
        lines = "".join(COUNTED[i] for i in row).split("\n")[:-2]
        pairs = list(zip(lines[::2], lines[1::2]))
        assert len(pairs) > 20
        for a, b in pairs:
            assert set(a) == {"a"}
            assert b == "b" * len(a)
    lines = distant_brackets(130, 2, generator, inside=2, between=4, letters=3).T.reshape(2, 10, 13)
    assert torch.equal(lines[..., 1:3], lines[..., 9:11])
    assert bool((lines[..., 12] == 5).all())
    with pytest.raises(ValueError, match="distant_brackets: between must be at least 1, got 0"):
        distant_brackets(5, 1, between=0)
    with pytest.raises(ValueError, match="counted_letters: most must be at least 1, got 0"):
        counted_letters(5, 1, most=0)
