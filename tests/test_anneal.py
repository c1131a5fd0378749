"""Annealing: lowest energies of systems that can be enumerated, the loops against their reference, the command."""

from __future__ import annotations

import itertools
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from recurra.cli.main import app
from recurra.core.spins import configurations
from recurra.datasets.quadratic_problem import quadratic_problem
from recurra.memories import annealing_run
from recurra.memories.anneal import METHODS, Moment, anneal
from recurra.memories.annealing_loop import BOUNDS, descend, metropolis, seeds
from recurra.memories.annealing_run import Clock, Plan, falling_temperatures, graph_of
from recurra.memories.systems import DenseSystem, Lattice, SparseSystem


def glass(num_spins: int, seed: int, field: float = 0.5) -> DenseSystem:
    generator = torch.Generator().manual_seed(seed)
    upper = torch.randn(num_spins, num_spins, generator=generator, dtype=torch.float64).triu(1)
    return DenseSystem(upper + upper.T, field * torch.randn(num_spins, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS)
def test_the_ground_state_of_a_small_glass(method: Any) -> None:
    for seed in range(2):
        system = glass(12, seed)
        lowest = float(system.energy(configurations(12)).min())
        found = anneal(system, method, sweeps=200, reads=8, seed=seed)
        assert found.energy == pytest.approx(lowest, abs=1e-9)
        assert float(system.energy(found.spins[None])) == pytest.approx(found.energy, abs=1e-9)
        torch.testing.assert_close(system.energy(found.reads), found.energies, rtol=0, atol=1e-9)
        energies = [moment.energy for moment in found.trace]
        assert energies == sorted(energies, reverse=True)
        assert found.sweeps == found.trace[-1].sweeps == 8 * 200


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_is_a_result(method: Any) -> None:
    system = glass(9, 3)
    first, again, other = (anneal(system, method, sweeps=20, reads=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.reads, again.reads)
    assert first.reads.shape == (3, 9)
    assert first.reads.dtype == torch.int8
    assert not torch.equal(first.reads, other.reads) or first.energies.unique().numel() == 1


@pytest.mark.parametrize("method", ["hopfield", "memristive"])
def test_reads_of_graded_units_end_in_different_states(method: Any) -> None:
    """In an outer field they all pass one point of rest while it is hot; more reads must find more."""
    found = [anneal(glass(30, seed), method, sweeps=100, reads=10) for seed in range(4)]
    assert sum(len(each.reads.unique(dim=0)) for each in found) >= 8


@pytest.mark.parametrize("method", METHODS)
def test_systems_of_one_spin_without_couplings_and_without_anything(method: Any) -> None:
    lonely = SparseSystem(1, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0), torch.tensor([-2.0]))
    assert anneal(lonely, method, sweeps=5, reads=2).spins.tolist() == [-1]
    nothing = SparseSystem(3, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0))
    assert anneal(nothing, method, sweeps=5, reads=2).energy == 0.0


def test_the_loops_do_what_their_functions_say() -> None:
    system = glass(7, 1)
    graph = graph_of(system)
    spins = system.random_spins(3, torch.Generator().manual_seed(0)).numpy()
    betas = np.array([0.1, 0.5, 2.0, 30.0])
    ends = []
    for run in (metropolis, metropolis.python):
        here, states, flips = spins.copy(), seeds(4, 3), np.zeros(3, np.int64)
        fields = graph.fields(here)
        run(graph.begin, graph.other, graph.coupling, here, fields, betas, BOUNDS, states, flips)
        (descend if run is metropolis else descend.python)(
            graph.begin, graph.other, graph.coupling, here, fields, 50, flips
        )
        np.testing.assert_allclose(fields, graph.fields(here), atol=1e-12)
        assert bool((here * fields >= -1e-12).all())
        ends.append((here, states, flips))
    for fast, slow in zip(*ends):
        np.testing.assert_array_equal(fast, slow)


def test_the_loop_keeps_the_law_of_boltzmann() -> None:
    """Twenty thousand chains of three spins against enumeration; the distance that chance leaves is about 0.007."""
    system, chains, beta = glass(3, 8), 20_000, 0.7
    graph = graph_of(system)
    spins = np.ones((chains, 3), np.int8)
    fields, flips = graph.fields(spins), np.zeros(chains, np.int64)
    metropolis(
        graph.begin, graph.other, graph.coupling, spins, fields, np.full(40, beta), BOUNDS, seeds(1, chains), flips
    )
    counts = np.bincount((spins > 0) @ np.array([1, 2, 4]), minlength=8) / chains
    wanted = torch.softmax(-beta * system.energy(configurations(3)), 0).numpy()
    assert np.abs(counts - wanted).sum() / 2 < 0.015


def test_the_temperature_falls_to_where_all_is_frozen() -> None:
    for scale in (1e-6, 1.0, 1e6):
        square = Lattice((12, 12), coupling=scale)
        temperature = falling_temperatures(graph_of(square), 0)(np.linspace(0, 1, 50)) / scale
        assert (np.diff(temperature) <= 0).all()
        assert temperature[0] > 2.269  # begins above Onsager's critical temperature
        assert temperature[-1] < 1.3


class _Time:
    """A clock that is put forward by hand."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a_schedule_is_shortened_and_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    time, parts = _Time(), []
    monkeypatch.setattr(annealing_run, "time", time)
    clock = Clock(graph_of(Lattice((4,))), Plan(100_000, None, 1.0, 0, 1), None)
    for block in clock.blocks(100_000):  # a sweep takes a millisecond, and a second is all there is
        parts += block.tolist()
        time.now += 0.001 * len(block)
    assert parts[-1] == 1.0
    assert (np.diff(parts) > 0).all()
    assert 900 <= len(parts) <= 1100
    calm = Clock(graph_of(Lattice((4,))), Plan(77, 1, None, 0, 1), None)
    np.testing.assert_allclose(np.concatenate(list(calm.blocks(77))), np.arange(1, 78) / 77)


def test_a_trace_of_any_length_is_short() -> None:
    """Improvements are all there, and nothing else for long."""
    clock, spins = Clock(graph_of(Lattice((4,))), Plan(1, 1, None, 0, 1)), np.ones((1, 4), np.int8)
    for step in range(20_000):
        clock.begin -= 0.01
        clock.see(spins, np.array([-float(step // 5000)]), 1, 0.0)
    assert len(clock.trace) < 1500
    assert [m.energy for m in clock.trace if m.sweeps % 5000 == 1] == [0.0, -1.0, -2.0, -3.0]
    assert clock.trace[-1].sweeps == 20_000


def test_rounds() -> None:
    assert list(Plan(None, 4, None, 0, 2).rounds()) == [(4, 1000)]
    assert list(itertools.islice(Plan(None, None, 1.0, 0, 2).rounds(), 2)) == [(8, 1000), (8, 1000)]
    assert next(Plan(70, None, 1.0, 0, 1).rounds()) == (4, 70)


def test_a_time_and_nothing_else() -> None:
    """A group of states is warmed up again and again."""
    system = glass(14, 2)
    found = anneal(system, seconds=0.1, threads=1)
    assert found.energy == pytest.approx(float(system.energy(configurations(14)).min()), abs=1e-9)
    torch.testing.assert_close(system.energy(found.reads), found.energies, rtol=0, atol=1e-9)
    assert len(found.reads) % 4 == 0


@pytest.mark.parametrize("options", [{"sweeps": 10_000_000, "reads": 2}, {"seconds": 3600.0}, {"method": "hopfield"}])
def test_it_stops_when_asked(options: dict[str, Any]) -> None:
    asked: list[Moment] = []
    found = anneal(Lattice((4, 4)), on_progress=asked.append, stop=lambda: len(asked) >= 3, **options)
    assert found.energy == pytest.approx(float(Lattice((4, 4)).energy(found.spins[None])))
    assert len(asked) <= 6


def test_progress() -> None:
    seen: list[Moment] = []
    found = anneal(Lattice((8, 8)), sweeps=30, reads=2, on_progress=seen.append)
    assert set(found.trace) <= set(seen)
    assert found.trace[-1] == seen[-1]
    assert seen[-1].part == 1.0
    assert found.energy == -128.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "quantum"}, "anneal: method must be one of 'annealing', 'hopfield'"),
        ({"sweeps": 0}, "anneal: sweeps must be at least 1, got 0."),
        ({"reads": 0}, "anneal: reads must be at least 1, got 0."),
        ({"seconds": 0.0}, "anneal: seconds must be above 0, got 0.0."),
        ({"seconds": math.nan}, "anneal: seconds must be above 0, got nan."),
        ({"seed": -1}, "anneal: seed must be a whole number from 0, got -1."),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        anneal(Lattice((4,)), **options)


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["anneal", *arguments], env={"COLUMNS": "90", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_a_graph_from_file_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ring = "".join(f"{i} {i % 7 + 1} 1\n" for i in range(1, 8))  # of odd length: one edge stays uncut
    Path("ring.txt").write_text(f"7 7\n{ring}")
    said = run("ring.txt", "--sweeps", "50", "--reads", "4")
    assert "ring.txt: max-cut, 7 nodes, 7 edges" in said
    assert "Best      cut 6" in said
    assert "best cut" in said
    found = json.loads(Path("ring.best.json").read_text())
    assert (found["cut"], found["energy"], found["vartype"], found["reads"]) == (6.0, -6.0, "spin", 4)
    values = dict(zip(found["variables"], found["values"]))
    assert sum(values[i] != values[i % 7 + 1] for i in range(1, 8)) == 6
    assert Path("ring.best.png").read_bytes()[:4] == b"\x89PNG"


def test_a_cut_of_nothing_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("3 3\n1 2 -1\n2 3 -1\n1 3 -1\n")
    said = run("p.txt", "--sweeps", "20")
    assert "cut 0" in said
    assert "-0" not in said
    assert "-0.0" not in Path("p.best.json").read_text().split("energies_of_reads")[0].split('"cut"')[1]


def test_a_qubo_in_its_own_energy(tmp_path: Path) -> None:
    """Choose exactly two of four: (sum x - 2)^2 + x_0 / 8, whose best value is 0."""
    edges = torch.tensor(list(itertools.combinations(range(4), 2)))
    linear = torch.tensor([-3 + 0.125, -3, -3, -3], dtype=torch.float64)
    problem = quadratic_problem("binary", linear, edges, torch.full((6,), 2.0), 4.0)
    lines = [f"{i} {i} {a:g}" for i, a in enumerate(linear.tolist())]
    lines += [f"{i} {j} 2" for i, j in edges.tolist()]
    (tmp_path / "two.coo").write_text("\n".join(lines))
    out = tmp_path / "two.json"
    said = run(str(tmp_path / "two.coo"), "--vartype", "BINARY", "--sweeps", "50", "--out", str(out), "--json")
    found = json.loads(said[said.index("{") :])
    assert found == json.loads(out.read_text())
    assert found["energy"] == float(problem.energy(torch.tensor([found["values"]]))) - 4.0 == -4.0
    assert found["values"][0] == 0
    assert sum(found["values"]) == 2
    assert min(found["energies_of_reads"]) == -4.0


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pair.txt").write_text("2 1\n1 2 1\n")

    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("recurra.cli.anneal._Bar.__call__", interrupt)
        patch.setattr(
            "recurra.cli.stopping.Stopping._asked", lambda self, number, frame: setattr(self, "signal", number)
        )
        said = run("pair.txt", "--seconds", "3600", code=130)
    assert "Stopped; this is the best so far." in said
    assert json.loads(Path("pair.best.json").read_text())["cut"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("none.txt",), "read_quadratic_problem: none.txt must be a problem file, got nothing there."),
        (
            ("p.txt", "--method", "magic"),
            "anneal: --method must be one of 'annealing', 'hopfield', 'memristive', 'wolff'",
        ),
        (("p.txt", "--vartype", "real"), "anneal: --vartype must be one of 'spin', 'binary', got 'real'."),
        (("p.txt", "--reads", "0"), "anneal: reads must be at least 1, got 0."),
        (("p.txt", "--out", "best.txt"), "anneal: --out must be a new file FILE.json, got best.txt."),
        (("p.txt", "--out", "."), "anneal: --out must be a file, got ., a folder."),
        (("bad.txt",), "read_quadratic_problem: bad.txt must be 2 edges, as its first line says, got 1."),
    ],
)
def test_mistakes_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("2 1\n1 2 1\n")
    Path("bad.txt").write_text("2 2\n1 2 1\n")
    said = run(*options, code=2)
    assert message in said.replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*.json"))
