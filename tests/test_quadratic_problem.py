"""Files of quadratic problems: what they say is what is read, and a bad one is a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.core.spins import configurations
from recurra.datasets.quadratic_problem import QuadraticProblem, max_cut, quadratic_problem, read_quadratic_problem


def bqm(**changes: Any) -> dict[str, Any]:
    """What dimod 0.12.23 writes for BQM({'a': 1.0, ('b', 2): -0.5}, {('a', ('b', 2)): 2.0}, 0.5, 'BINARY')."""
    plain = {
        "type": "BinaryQuadraticModel",
        "version": {"bqm_schema": "3.0.0"},
        "use_bytes": False,
        "index_type": "int32",
        "bias_type": "float64",
        "num_variables": 2,
        "num_interactions": 1,
        "variable_labels": ["a", ["b", 2]],
        "variable_type": "BINARY",
        "offset": 0.5,
        "info": {},
        "linear_biases": [1.0, -0.5],
        "quadratic_biases": [2.0],
        "quadratic_head": [0],
        "quadratic_tail": [1],
    }
    return {**plain, **changes}


def read(folder: Path, content: str | dict[str, Any], vartype: Any = None) -> QuadraticProblem:
    path = folder / "problem"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_quadratic_problem(path, vartype)


def test_a_bqm(tmp_path: Path) -> None:
    problem = read(tmp_path, bqm())
    assert (problem.vartype, problem.labels) == ("binary", ("a", ("b", 2)))
    values = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    assert problem.energy(values).tolist() == [0.5, 1.5, 0.0, 3.0]
    assert problem.describe() == "QUBO, 2 variables, 1 interaction"


def test_a_bqm_reads_as_dimod_reads_it(tmp_path: Path) -> None:
    dimod = pytest.importorskip("dimod", reason="dimod is not installed")
    generator = torch.Generator().manual_seed(0)
    for vartype in ("SPIN", "BINARY"):
        model = dimod.BinaryQuadraticModel(vartype)
        for i in range(7):
            model.add_variable(f"v{i}", float(torch.randn((), generator=generator)))
            for j in range(i):
                model.add_interaction(f"v{j}", f"v{i}", float(torch.randn((), generator=generator)))
        model.offset = 1.25
        problem = read(tmp_path, model.to_serializable())
        values = problem.values(configurations(7))
        theirs = model.energies((values.numpy(), list(problem.labels)))
        torch.testing.assert_close(problem.energy(values), torch.from_numpy(theirs), rtol=0, atol=1e-12)


def test_coordinates(tmp_path: Path) -> None:
    problem = read(tmp_path, "# vartype=SPIN\n0 0 1.5\n0 4 -1\n\n4 0 3\n")
    assert (problem.vartype, problem.labels) == ("spin", (0, 4))
    assert problem.energy(torch.tensor([[1, 1], [1, -1]])).tolist() == [3.5, -0.5]
    assert read(tmp_path, "0 1 2\n", "binary").vartype == "binary"


def test_a_graph(tmp_path: Path) -> None:
    problem = read(tmp_path, "3 4\n1 2 1\n2 3 -2\n1 3 4\n3 3 9\n")
    assert problem.is_cut
    assert problem.labels == (1, 2, 3)
    assert problem.energy(torch.tensor([[1, -1, 1], [1, 1, 1], [1, 1, -1]])).tolist() == [1.0, 0.0, -2.0]
    assert read(tmp_path, "2 1\n1 2\n").energy(torch.tensor([[1, -1]])).tolist() == [-1.0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(["spin", "binary"]), st.integers(1, 6), st.integers(0, 12), st.integers(0, 10**6))
def test_the_spin_form_has_the_same_energies(vartype: Any, num: int, num_edges: int, seed: int) -> None:
    """Weights are eighths, so that every energy is exact; loops and pairs that stand twice included."""
    generator = torch.Generator().manual_seed(seed)

    def eighths(*shape: int) -> torch.Tensor:
        return torch.randint(-64, 65, shape, generator=generator).double() / 8

    edges, weights, linear = (
        torch.randint(0, num, (num_edges, 2), generator=generator),
        eighths(num_edges),
        eighths(num),
    )
    problem = quadratic_problem(vartype, linear, edges, weights, 0.375)
    spins = configurations(num)
    x = problem.values(spins).double()
    plain = 0.375 + x @ linear + (x[:, edges[:, 0]] * x[:, edges[:, 1]]) @ weights
    assert torch.equal(problem.energy(problem.values(spins)), plain)
    form, s = problem.spin_form(), spins.double()
    pairs = s[:, form.edges[:, 0]] * s[:, form.edges[:, 1]]
    assert torch.equal(form.offset - pairs @ form.couplings - s @ form.outer, plain)
    assert bool((form.edges[:, 0] < form.edges[:, 1]).all())


def test_a_cut_is_counted(tmp_path: Path) -> None:
    edges = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [0, 1]])
    weights = torch.tensor([1.0, 2.0, -3.0, 0.5, 1.0])
    spins = configurations(4)
    cut = ((spins[:, edges[:, 0]] != spins[:, edges[:, 1]]).double() * weights).sum(1)
    assert torch.equal(-max_cut(4, edges, weights).energy(spins), cut)


@pytest.mark.parametrize(
    ("content", "vartype", "complaint"),
    [
        ("", None, "problem must be a problem, got a file without a line of numbers."),
        ("0 1 2\n", None, "problem must be one that says what its variables are, got no vartype."),
        ("# vartype=REAL\n0 1 2\n", None, "problem: vartype must be SPIN or BINARY, got 'REAL'."),
        ("# vartype=SPIN\n0 1 2\n", "binary", "vartype of problem must be spin, got binary. The file says so."),
        ("0 1 2\n0 1\n", "spin", "problem: line 2 must be two variables and a number, got '0 1'."),
        ("0 -1 2\n", "spin", "problem: line 1 must be two whole numbers and a number, got '0 -1 2'."),
        ("0 1 nan\n", "spin", "problem: line 1 must be one with a finite number at its end, got '0 1 nan'."),
        ("2 x\n", None, "problem: line 1 must be the numbers of nodes and edges, got 2 x."),
        ("2 1\n1 3 1\n", None, "problem: line 2 must be about variables from 1 to 2, got 3."),
        ("2 2\n1 2 1\n", None, "problem must be 2 edges, as its first line says, got 1."),
        ("0 0\n", None, "problem must be a problem of 1 to 50,000,000 variables, got 0."),
        ("{", None, "problem must be whole JSON, got line 1: "),
        ("[1]", None, "problem must be a BinaryQuadraticModel, got a list."),
        ({"type": "Graph"}, None, "problem must be a BinaryQuadraticModel, got Graph."),
        (bqm(version={"bqm_schema": "1.0.0"}), None, "problem must be of bqm_schema 3.0.0, got '1.0.0'."),
        (bqm(use_bytes=True), None, "problem must be without bytes, got use_bytes = true."),
        (bqm(variable_type="REAL"), None, "problem: variable_type must be SPIN or BINARY, got 'REAL'."),
        (bqm(linear_biases=[1.0, "x"]), None, "problem: linear_biases[1] must be a finite number, got 'x'."),
        (bqm(quadratic_biases=[float("inf")]), None, "problem: quadratic_biases[0] must be a finite number, got inf."),
        (bqm(quadratic_head=[-1]), None, "problem: quadratic_head[0] must be a whole number from 0, got -1."),
        (bqm(quadratic_tail=[2]), None, "quadratic_head and quadratic_tail must be of variables from 0 to 1, got 2."),
        (bqm(quadratic_tail=[]), None, "quadratic_tail must be of one length, got 1, 1 and 0."),
        (bqm(num_variables=3), None, "problem: num_variables must be 2, as many as it holds, got 3."),
        (bqm(variable_labels=["a"]), None, "problem: variable_labels must be a list of 2, got 1."),
        (bqm(offset=None), None, "problem: offset must be a finite number, got None."),
        (bqm(variable_labels=["a", "a"]), None, "problem: variable_labels must be all different, got 'a' twice."),
        ("3 2\n1 2 -1\n2 3\n", None, "problem: line 3 must be two variables and a number, got '2 3'."),
        ("3 2\n1 2\n2 3 -1\n", None, "problem: line 3 must be two nodes, as the edges above it, got '2 3 -1'."),
        ("2 1\n1 2\n", "spin", "vartype must be left out for problem, got spin. It is a graph"),
        (bqm(linear_biases=None), None, "problem: linear_biases must be a list of numbers, got nothing."),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path: Path, content: Any, vartype: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^read_quadratic_problem: .*{re.escape(complaint)}"):
        read(tmp_path, content, vartype)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be a problem file, got nothing there"):
        read_quadratic_problem(tmp_path / "none")
    with pytest.raises(ValueError, match="got a folder"):
        read_quadratic_problem(tmp_path)
    (tmp_path / "packed").write_bytes(b"DIMODBQM\x02\x00")
    with pytest.raises(ValueError, match=r"got a binary file of dimod's\. Write it with json.dump"):
        read_quadratic_problem(tmp_path / "packed")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be a text, got a binary file"):
        read_quadratic_problem(tmp_path / "bytes")
