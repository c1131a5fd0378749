"""Problems of finding the lowest energy: Ising, QUBO and max-cut, from the files that others write."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_choice, sentence

VarType = Literal["spin", "binary"]
MAX_VARIABLES = 50_000_000

_WRITE = "Write it with json.dump(bqm.to_serializable(), file)."
_HEADER = re.compile(r"^\s*#.*?vartype[:=]\s*([-_.a-zA-Z0-9]+)", re.IGNORECASE)


class SpinForm(NamedTuple):
    """The same problem as E(s) = offset - sum_edges J s_i s_j - sum_i h_i s_i.

    Args:
        edges: (E, 2) int64, every pair once.
        couplings: (E,) float64 J.
        outer: (N,) float64 h.
        offset: energy that no spin changes.
    """

    edges: Tensor
    couplings: Tensor
    outer: Tensor
    offset: float


@dataclass(frozen=True, eq=False)
class QuadraticProblem:
    """Variables whose energy, or whose cut, is a quadratic form:

        E(x) = offset + sum_i a_i x_i + sum_(i,j) b_ij x_i x_j          x_i in {-1, +1} or in {0, 1}

    A max-cut problem has spins and E = -cut, exactly.

    Args:
        vartype: "spin" for {-1, +1}, "binary" for {0, 1}.
        linear: (N,) float64, a.
        edges: (E, 2) int64, i < j, every pair once.
        weights: (E,) float64, b.
        offset: energy of nothing.
        labels: N names, as the file has them: whole numbers, texts, tuples.
        is_cut: the file asks for the largest cut.

    Example:
        >>> problem = max_cut(3, torch.tensor([[0, 1], [1, 2], [0, 2]]), torch.ones(3))
        >>> problem.energy(torch.tensor([[1, -1, 1], [1, 1, 1]])).tolist()
        [-2.0, 0.0]
    """

    vartype: VarType
    linear: Tensor
    edges: Tensor
    weights: Tensor
    offset: float
    labels: tuple[Any, ...]
    is_cut: bool = False

    @property
    def num_variables(self) -> int:
        """N."""
        return len(self.linear)

    def energy(self, values: Tensor) -> Tensor:
        """(B,) float64 E of values (B, N)."""
        x = values.double()
        pairs = x[:, self.edges[:, 0]] * x[:, self.edges[:, 1]]
        return self.offset + x @ self.linear + pairs @ self.weights

    def spin_form(self) -> SpinForm:
        """In spins s, x = s or x = (1 + s) / 2; the energy of every configuration stays what it is."""
        if self.vartype == "spin":
            return SpinForm(self.edges, -self.weights, -self.linear, self.offset)
        outer = -self.linear / 2
        for side in (0, 1):
            outer = outer.index_add(0, self.edges[:, side], -self.weights / 4)
        offset = self.offset + float(self.linear.sum()) / 2 + float(self.weights.sum()) / 4
        return SpinForm(self.edges, -self.weights / 4, outer, offset)

    def values(self, spins: Tensor) -> Tensor:
        """Spins of -1 and +1, any shape, as the problem's own variables, int8."""
        spins = spins.to(torch.int8)
        return spins if self.vartype == "spin" else (spins + 1) // 2

    def describe(self) -> str:
        """In words.

        Example:
            >>> max_cut(2, torch.tensor([[0, 1]]), torch.ones(1)).describe()
            'max-cut, 2 nodes, 1 edge'
        """
        kind = "max-cut" if self.is_cut else "Ising" if self.vartype == "spin" else "QUBO"
        n, e = self.num_variables, len(self.edges)
        what, pair = ("node", "edge") if self.is_cut else ("variable", "interaction")
        return f"{kind}, {n:,} {what}{'s' * (n != 1)}, {e:,} {pair}{'s' * (e != 1)}"


def quadratic_problem(
    vartype: VarType,
    linear: Tensor,
    edges: Tensor,
    weights: Tensor,
    offset: float = 0.0,
    labels: tuple[Any, ...] | None = None,
) -> QuadraticProblem:
    """Put a problem together: pairs that stand twice are added up, squares become what they are (x^2 = x, s^2 = 1).

    Args:
        vartype: "spin" or "binary".
        linear: (N,) a.
        edges: (E, 2) whole numbers below N.
        weights: (E,) b.
        offset: energy of nothing.
        labels: names; None numbers the variables from 0.

    Raises:
        ValueError: a number that is not finite, an end of an edge that is no variable, shapes that do not fit.
    """
    where = "quadratic_problem"
    check_choice(where, "vartype", vartype, ("spin", "binary"))
    linear, weights = linear.double(), weights.double()
    edges = edges.long().reshape(-1, 2)
    num = len(linear)
    if weights.shape != (len(edges),):
        raise ValueError(sentence(where, "weights", f"({len(edges)},)", tuple(weights.shape)))
    for name, values in (("linear", linear), ("weights", weights), ("offset", torch.tensor(float(offset)))):
        if not bool(values.isfinite().all()):
            raise ValueError(sentence(where, name, "finite", float(values[~values.isfinite()][0])))
    if len(edges) and not 0 <= int(edges.min()) <= int(edges.max()) < num:
        outside = edges[(edges < 0) | (edges >= num)][0]
        raise ValueError(sentence(where, "edges", f"of variables from 0 to {num - 1}", int(outside)))
    if labels is not None and len(labels) != num:
        raise ValueError(sentence(where, "labels", f"{num} names", len(labels)))
    squares = edges[:, 0] == edges[:, 1]
    if bool(squares.any()):
        if vartype == "binary":
            linear = linear.index_add(0, edges[squares, 0], weights[squares])
        else:
            offset = float(offset) + float(weights[squares].sum())
    low, high = edges[~squares].amin(1), edges[~squares].amax(1)
    keys, place = torch.unique(low * num + high, return_inverse=True)
    summed = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, place, weights[~squares])
    pairs = torch.stack([keys // max(num, 1), keys % max(num, 1)], 1)
    names = tuple(range(num)) if labels is None else labels
    return QuadraticProblem(vartype, linear, pairs, summed, float(offset), names)


def max_cut(num_nodes: int, edges: Tensor, weights: Tensor, labels: tuple[Any, ...] | None = None) -> QuadraticProblem:
    """The problem of the largest cut of a graph:  E(s) = -sum_edges w_ij (1 - s_i s_j) / 2  =  -cut.

    Args:
        num_nodes: N.
        edges: (E, 2) nodes from 0; a loop is never cut.
        weights: (E,).
        labels: names of the nodes; None numbers them from 0.
    """
    edges, weights = edges.long().reshape(-1, 2), weights.double()
    kept = edges[:, 0] != edges[:, 1]
    half = weights[kept] / 2
    plain = quadratic_problem(
        "spin", torch.zeros(num_nodes, dtype=torch.float64), edges[kept], half, -float(half.sum()), labels
    )
    return QuadraticProblem("spin", plain.linear, plain.edges, plain.weights, plain.offset, plain.labels, True)


def read_quadratic_problem(path: Path, vartype: VarType | None = None) -> QuadraticProblem:
    """Read a problem; what kind of file it is shows in its first lines.

    Three kinds: the JSON of dimod's ``bqm.to_serializable()`` (schema 3, ``use_bytes=False``), its COOrdinate text
    (``i j b`` a line, ``i i a`` for a linear term, ``# vartype=SPIN`` or ``BINARY`` above), and the text of the G-set graphs
    (a line ``N E``, then ``i j w`` with nodes from 1), whose largest cut is asked for.

    Args:
        path: the file.
        vartype: of a COOrdinate text that does not say it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no such file or a damaged one; the sentence names the line.

    Source:
        dimod 0.12, ``dimod/binary/binary_quadratic_model.py`` and ``dimod/serialization/coo.py``; G-set: Helmberg & Rendl
        2000, SIAM J. Optim. 10(3):673-696, made with Rinaldi's ``rudy``
    """
    where = "read_quadratic_problem"
    if not path.exists():
        raise FileNotFoundError(sentence(where, str(path), "a problem file", "nothing there"))
    if path.is_dir():
        raise ValueError(sentence(where, str(path), "a problem file", "a folder"))
    data = path.read_bytes()
    if data.startswith(b"DIMOD"):
        raise ValueError(sentence(where, path.name, "a text", "a binary file of dimod's", _WRITE))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(sentence(where, path.name, "a text", "a binary file")) from None
    if text.lstrip()[:1] in ("{", "["):
        return _bqm(path.name, text, vartype)
    return _lines(path.name, text, vartype)


# --- dimod's JSON ---------------------------------------------------------------------------------------------------


def _bqm(name: str, text: str, vartype: VarType | None) -> QuadraticProblem:
    """The dictionary of ``bqm.to_serializable()``."""
    where = "read_quadratic_problem"
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as problem:
        place = f"line {problem.lineno}: {problem.msg}" if isinstance(problem, json.JSONDecodeError) else "a deep nest"
        raise ValueError(sentence(where, name, "whole JSON", place)) from None
    if not isinstance(found, dict) or found.get("type") != "BinaryQuadraticModel":
        kind = found.get("type", "JSON without a type") if isinstance(found, dict) else "a list"
        raise ValueError(sentence(where, name, "a BinaryQuadraticModel", kind, _WRITE))
    schema = found.get("version", {}).get("bqm_schema") if isinstance(found.get("version"), dict) else None
    if not isinstance(schema, str) or schema.split(".")[0] not in ("2", "3"):
        raise ValueError(sentence(where, name, "of bqm_schema 3.0.0", repr(schema)))
    if found.get("use_bytes"):
        hint = "Write it with bqm.to_serializable(use_bytes=False)."
        raise ValueError(sentence(where, name, "without bytes", "use_bytes = true", hint))
    own = {"SPIN": "spin", "BINARY": "binary"}.get(str(found.get("variable_type")))
    if own is None:
        raise ValueError(sentence(where, f"{name}: variable_type", "SPIN or BINARY", repr(found.get("variable_type"))))
    _agree(name, own, vartype)
    linear = _numbers(name, found, "linear_biases")
    weights = _numbers(name, found, "quadratic_biases")
    ends = [_numbers(name, found, key, whole=True) for key in ("quadratic_head", "quadratic_tail")]
    if len({len(weights), *map(len, ends)}) != 1:
        got = f"{len(weights)}, {len(ends[0])} and {len(ends[1])}"
        raise ValueError(
            sentence(where, f"{name}: quadratic_biases, quadratic_head, quadratic_tail", "of one length", got)
        )
    for key, count in (("num_variables", len(linear)), ("num_interactions", len(weights))):
        if found.get(key, count) != count:
            raise ValueError(sentence(where, f"{name}: {key}", f"{count}, as many as it holds", found[key]))
    labels = found.get("variable_labels", list(range(len(linear))))
    if not isinstance(labels, list) or len(labels) != len(linear):
        given = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise ValueError(sentence(where, f"{name}: variable_labels", f"a list of {len(linear)}", given))
    names = tuple(_label(each) for each in labels)
    twice = next((each for each, count in Counter(map(repr, names)).items() if count > 1), None)
    if twice is not None:
        raise ValueError(sentence(where, f"{name}: variable_labels", "all different", f"{twice} twice"))
    _some(name, len(linear))
    offset = found.get("offset", 0.0)
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise ValueError(sentence(where, f"{name}: offset", "a finite number", repr(offset)))
    edges = torch.tensor(list(zip(*ends)), dtype=torch.int64).reshape(-1, 2)
    if len(edges) and int(edges.max()) >= len(linear):
        want = f"of variables from 0 to {len(linear) - 1}"
        raise ValueError(sentence(where, f"{name}: quadratic_head and quadratic_tail", want, int(edges.max())))
    return quadratic_problem(
        own,  # type: ignore[arg-type]
        torch.tensor(linear, dtype=torch.float64),
        edges,
        torch.tensor(weights, dtype=torch.float64),
        float(offset),
        names,
    )


def _label(each: Any) -> Any:
    """JSON has no tuples: dimod writes them as lists."""
    return tuple(map(_label, each)) if isinstance(each, list) else each


def _numbers(name: str, found: dict[str, Any], key: str, *, whole: bool = False) -> list[Any]:
    """A list of finite numbers, or of whole ones from 0."""
    where, values = "read_quadratic_problem", found.get(key)
    if not isinstance(values, list):
        got = "nothing" if values is None else type(values).__name__
        raise ValueError(sentence(where, f"{name}: {key}", "a list of numbers", got))
    for place, value in enumerate(values):
        good = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not good or not math.isfinite(value) or (whole and value < 0):
            want = "a whole number from 0" if whole else "a finite number"
            raise ValueError(sentence(where, f"{name}: {key}[{place}]", want, repr(value)))
    return values


# --- texts of lines -------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """number: from 1; words: separated by white space."""

    number: int
    words: list[str]


def _data_lines(text: str) -> Iterator[_Line]:
    """Lines that are not empty and no comment (``#``, ``c``)."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#") and words[0] != "c":
            yield _Line(number, words)


def _lines(name: str, text: str, vartype: VarType | None) -> QuadraticProblem:
    """A graph if the first line has two numbers, else coordinates."""
    where = "read_quadratic_problem"
    first = next(_data_lines(text), None)
    if first is None:
        raise ValueError(sentence(where, name, "a problem", "a file without a line of numbers"))
    said = next((found[1] for line in text.splitlines() if (found := _HEADER.match(line))), None)
    if len(first.words) == 2 and said is None:
        if vartype is not None:
            want = f"left out for {name}"
            raise ValueError(
                sentence(where, "vartype", want, vartype, "It is a graph, whose largest cut is asked for.")
            )
        return _graph(name, text, first)
    if said is not None:
        own = {"SPIN": "spin", "BINARY": "binary"}.get(said.upper())
        if own is None:
            raise ValueError(sentence(where, f"{name}: vartype", "SPIN or BINARY", repr(said)))
        _agree(name, own, vartype)
        vartype = own  # type: ignore[assignment]
    return _coordinates(name, text, vartype)


def _coordinates(name: str, text: str, vartype: VarType | None) -> QuadraticProblem:
    """``i j b``; ``i i a`` is a linear term."""
    where = "read_quadratic_problem"
    rows = [_row(name, line, 3, 0) for line in _data_lines(text)]
    if vartype is None:
        hint = "Add a line '# vartype=BINARY' above, or say --vartype."
        raise ValueError(sentence(where, name, "one that says what its variables are", "no vartype", hint))
    names = sorted({end for i, j, _ in rows for end in (i, j)})
    place = {label: n for n, label in enumerate(names)}
    linear = torch.zeros(len(names), dtype=torch.float64)
    edges, weights = [], []
    for i, j, weight in rows:
        if i == j:
            linear[place[i]] += weight
        else:
            edges.append((place[i], place[j]))
            weights.append(weight)
    return quadratic_problem(
        vartype,
        linear,
        torch.tensor(edges, dtype=torch.int64).reshape(-1, 2),
        torch.tensor(weights, dtype=torch.float64),
        labels=tuple(names),
    )


def _graph(name: str, text: str, first: _Line) -> QuadraticProblem:
    """``N E``, then ``i j w`` from node 1; without w, 1."""
    where = "read_quadratic_problem"
    sizes = [_whole(word) for word in first.words]
    if None in sizes:
        want = "the numbers of nodes and edges"
        raise ValueError(sentence(where, f"{name}: line {first.number}", want, " ".join(first.words)))
    num_nodes, num_edges = (size or 0 for size in sizes)
    _some(name, num_nodes)
    lines = iter(_data_lines(text))
    next(lines)
    rows, num_words = [], 0
    for line in lines:
        num_words = num_words or (2 if len(line.words) == 2 else 3)  # with weights or without, all alike
        rows.append(_row(name, line, num_words, 1, num_nodes))
    if len(rows) != num_edges:
        raise ValueError(sentence(where, name, f"{num_edges:,} edges, as its first line says", f"{len(rows):,}"))
    edges = torch.tensor([(i - 1, j - 1) for i, j, _ in rows], dtype=torch.int64).reshape(-1, 2)
    weights = torch.tensor([w for _, _, w in rows], dtype=torch.float64)
    return max_cut(num_nodes, edges, weights, tuple(range(1, num_nodes + 1)))


def _row(name: str, line: _Line, num_words: int, lowest: int, highest: int | None = None) -> tuple[int, int, float]:
    """Two whole numbers and a weight."""
    where, place = "read_quadratic_problem", f"{name}: line {line.number}"
    got = " ".join(line.words)[:60]
    if len(line.words) != num_words:
        want = "two variables and a number" if num_words == 3 else "two nodes, as the edges above it"
        raise ValueError(sentence(where, place, want, repr(got)))
    ends = [_whole(word) for word in line.words[:2]]
    if None in ends:
        raise ValueError(sentence(where, place, "two whole numbers and a number", repr(got)))
    for end in ends:
        assert end is not None
        if end < lowest or (highest is not None and end > highest):
            span = f"from {lowest}" + (f" to {highest}" if highest is not None else "")
            raise ValueError(sentence(where, place, f"about variables {span}", end))
    try:
        weight = float(line.words[2]) if num_words == 3 else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise ValueError(sentence(where, place, "one with a finite number at its end", repr(got)))
    return ends[0], ends[1], weight  # type: ignore[return-value]


def _whole(word: str) -> int | None:
    return int(word) if re.fullmatch(r"\d{1,18}", word) else None


def _some(name: str, num: int) -> None:
    """Raise for no variables, and for more than memory holds."""
    if not 1 <= num <= MAX_VARIABLES:
        want = f"a problem of 1 to {MAX_VARIABLES:,} variables"
        raise ValueError(sentence("read_quadratic_problem", name, want, f"{num:,}"))


def _agree(name: str, own: str, asked: VarType | None) -> None:
    """Raise when the file says something else than its user."""
    if asked is not None and asked != own:
        raise ValueError(sentence("read_quadratic_problem", f"vartype of {name}", own, asked, "The file says so."))
