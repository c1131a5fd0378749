"""Cells put together at random, as machine code and step by step; the long run that does this by the thousand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.engines import Hoisted, Loop, native
from recurra.experiments.run import page
from recurra.native import autodiff
from recurra.native.graph import FLOAT
from recurra.testing import random_run
from recurra.testing.random_cells import LAYOUTS, MOVES, SIZES, RandomCell, Recipe, draw_recipe, sample
from recurra.testing.random_run import AGREES, DIFFERS, UNDECIDED, RandomReport, Verdict, judge, run_random

MOVE = st.tuples(st.integers(0, len(MOVES) - 1), *[st.integers(0, 60)] * 3)
RECIPES = st.builds(
    Recipe,
    st.integers(0, 2**31),
    st.sampled_from(SIZES),
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=3).map(tuple),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(MOVE, min_size=1, max_size=4).map(tuple),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, len(LAYOUTS) - 1),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=5, deadline=None)
@given(RECIPES)
def test_random_cells_agree_with_the_loop(recipe: Recipe) -> None:
    verdict = judge(recipe)
    assert verdict.status != DIFFERS, verdict.seen


def test_a_recipe_is_the_same_everywhere() -> None:
    assert draw_recipe(7) == draw_recipe(7)
    assert len({draw_recipe(seed) for seed in range(50)}) == 50
    first, second = (sample(draw_recipe(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.cell.parameters(), second.cell.parameters()))
    assert repr(draw_recipe(7)) in repr(first.cell)


def test_every_move_and_layout_is_drawn() -> None:
    recipes = [draw_recipe(seed) for seed in range(300)]
    assert {MOVES[what % len(MOVES)] for r in recipes for what, *_ in r.moves} == set(MOVES)
    assert {r.layout for r in recipes} == set(range(len(LAYOUTS)))
    assert {0, 1} < {r.rows for r in recipes}
    assert any(r.learned and r.restarts for r in recipes)
    assert any(r.counts and r.ends for r in recipes)


def test_random_cells_obey_the_engines_without_machine_code() -> None:
    for seed in range(12):
        assert judge(draw_recipe(seed), Hoisted()) == Verdict(AGREES)
        case = sample(draw_recipe(seed))
        ys, _ = Loop()(case.cell, case.xs, case.state, case.controls)
        assert isinstance(ys, torch.Tensor | tuple)
    assert len(list(RandomCell.examples())) == 2


def test_a_wrong_derivative_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = autodiff._rules

    def wrong(graph: Any, node: Any, g: Any, value: Any) -> Any:
        found = rules(graph, node, g, value)
        scale = graph.const(1 + 3e-8, (), FLOAT)
        return [(a, graph.elementwise("mul", d, scale) if node.op == "tanh" else d, p) for a, d, p in found]

    monkeypatch.setattr(autodiff, "_rules", wrong)
    recipe = draw_recipe(0)._replace(moves=((0, 1, 0, 0),), num_steps=4, rows=3, counts=False)
    assert judge(recipe).status == DIFFERS


@pytest.mark.parametrize("seed", [3676, 8077])
def test_the_sign_of_what_a_mean_leaves_of_equal_numbers_is_undecided(seed: int) -> None:
    assert judge(draw_recipe(seed)).status == UNDECIDED  # nothing that is given decides it, only the order of a sum


def test_a_cell_that_runs_on_another_engine_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native._Job, "check", lambda *_, **__: "made up")
    verdict = judge(draw_recipe(1)._replace(num_steps=3, rows=2))
    assert verdict.status == DIFFERS
    assert "made up" in verdict.seen


def crash(there: Any, seeds: range, cache: str) -> None:
    """In place of the worker: dies at the third cell."""
    for seed in seeds:
        if seed == 2:
            os._exit(11)
        there.send(Verdict(AGREES))


def agree(there: Any, seeds: range, cache: str) -> None:
    """In place of the worker: all is well."""
    for _ in seeds:
        there.send(Verdict(AGREES))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_crash_is_one_problem_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setattr(random_run, "_work", crash)
    report = run_random(5, jobs=jobs)
    assert report.count == 5
    assert report.problems == [(2, "crashed with exit code 11")]
    assert report.statuses[AGREES] == 4
    assert "seed 2: crashed" in str(report)
    again = RandomReport.of(json.loads(json.dumps(report.record())))
    assert (again.count, again.statuses, again.problems) == (report.count, report.statuses, report.problems)
    assert run_random(6, 0, before=again).count == 6
    assert again.problems == [(2, "crashed with exit code 11")]  # asked again, with the same end
    monkeypatch.setattr(random_run, "_work", agree)
    mended = run_random(7, 0, before=again)
    assert (mended.count, mended.statuses[AGREES], mended.problems) == (7, 7, [])


def test_the_command_and_its_record(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--random-cells", "2", "--seed", "5", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "2 random cells (seeds 5 to 6): 2 agree" in done.output
    text = page(tmp_path)
    assert "`recurra check --random-cells 2 --seed 5`" in text
    assert "| random cells | 2 |" in text
    wrong = CliRunner().invoke(app, ["check", "--random-cells", "0", "--out", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "--random-cells must be at least 1" in " ".join(wrong.output.split())
