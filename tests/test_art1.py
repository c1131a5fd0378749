"""ART 1: the machine code against the rules as one reads them, stability, and the clusterer."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone, is_clusterer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer
from torch import Tensor

from recurra import ART1Clusterer
from recurra.memories import ART1
from recurra.tasks.letter_bitmaps import letter_bitmaps


def search(memory: ART1, templates: list[Tensor], pattern: Tensor) -> tuple[int, int]:
    """One category after the other, as the paper's words have it: category (-1 for a new one), number tried."""
    values = [float((pattern * w).sum() / (memory.choice + w.sum())) for w in templates]
    tried = 0
    for c in sorted(range(len(templates)), key=lambda c: (-values[c], c)):
        if values[c] == 0:
            break
        tried += 1
        if float((pattern * templates[c]).sum()) >= memory.vigilance * float(pattern.sum()) - 1e-9:
            return c, tried
    return -1, tried + 1


@pytest.mark.parametrize(("size", "vigilance", "choice"), [(10, 0.5, 0.01), (70, 0.4, 1.0), (30, 0.75, 5.0)])
def test_the_search_is_the_one_of_the_paper(size: int, vigilance: float, choice: float) -> None:
    memory = ART1(size, vigilance, choice)
    patterns = memory.draw(40, torch.Generator().manual_seed(size))
    patterns = patterns[patterns.any(1)]
    templates: list[Tensor] = []
    state = memory.empty()
    for pattern in patterns:
        wanted, tried = search(memory, templates, pattern)
        seen = memory.recognise(state, pattern[None])
        assert (int(seen.category), int(seen.tried)) == (wanted, tried)
        state, found = memory.learn(state, pattern[None])
        if wanted < 0:
            templates.append(pattern)
        else:
            templates[wanted] = templates[wanted] * pattern
        assert int(found.category) == (wanted if wanted >= 0 else len(templates) - 1)
        torch.testing.assert_close(state.templates, torch.stack(templates))
    together = memory.write(memory.empty(), patterns)
    torch.testing.assert_close(together.templates, state.templates)


def test_the_machine_code_is_its_reference() -> None:
    from recurra.memories.art import _packed, resonate

    patterns = ART1(70).draw(30, torch.Generator().manual_seed(0))
    results = []
    for run in (resonate, resonate.python):
        words, committed = np.zeros((30, 2), np.uint64), np.zeros(1, np.int64)
        category, tried = np.zeros((2, 30), np.int64)
        run(_packed(patterns), words, committed, np.array([0.5, 0.01]), 30, category, tried)
        results.append((words, committed, category, tried))
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


def test_an_input_without_bits_wakes_nothing_and_a_full_memory_takes_no_more() -> None:
    memory = ART1(4, vigilance=0.9, max_categories=1)
    state, found = memory.learn(memory.empty(), torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
    assert found.category.tolist() == [-1, 0, -1]
    recall = memory.read(state, torch.tensor([[0.0, 0, 1, 1]]))
    assert recall.value.tolist() == [[0, 0, 1, 1]]
    assert recall.converged.tolist() == [False]


def test_letters() -> None:
    letters = letter_bitmaps()
    assert letters.shape == (26, 7, 5)
    assert len({tuple(letter.flatten().tolist()) for letter in letters}) == 26
    assert torch.equal(letters[7], letters[7].flip(1))  # an H


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "ART1: size must be at least 1, got 0."),
        ({"vigilance": 1.5}, "ART1: vigilance must be from 0 to 1, got 1.5."),
        ({"choice": 0.0}, "ART1: choice must be above 0, got 0.0."),
    ],
)
def test_messages(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ART1(**settings)  # type: ignore[arg-type]


def test_values_of_their_own_are_refused() -> None:
    memory = ART1(3)
    with pytest.raises(
        ValueError, match=r"^ART1: values must be None, got others than the keys\. It stores no pairs\.$"
    ):
        memory.write(memory.empty(), torch.ones(1, 3), torch.zeros(1, 3))


# --- the clusterer -----------------------------------------------------------------------------------------------------


def test_clusterer() -> None:
    X = np.repeat(np.eye(3, dtype=bool), 4, axis=1)  # three groups of four bits
    rows = np.concatenate([X, X & (np.arange(12) % 4 != 0)])
    model = ART1Clusterer(vigilance=0.5)
    with pytest.raises(NotFittedError, match="ART1Clusterer: the model must be fitted first"):
        model.predict(rows)
    assert is_clusterer(model)
    assert model.fit_predict(rows).tolist() == [0, 1, 2, 0, 1, 2]
    assert model.n_iter_ == 2  # the second pass changes nothing
    assert model.cluster_centers_.sum(1).tolist() == [3, 3, 3]
    assert clone(model).fit(rows).predict(rows[:2]).tolist() == [0, 1]
    assert model.partial_fit(np.ones((1, 12))).labels_.tolist() == [3]
    assert make_pipeline(Binarizer(threshold=0.5), ART1Clusterer(0.5)).fit_predict(rows * 0.9).tolist() == [0, 1, 2] * 2


def test_a_threshold_makes_bits() -> None:
    values = np.random.default_rng(0).normal(size=(20, 8))
    by_itself, by_hand = ART1Clusterer(0.6, threshold=0.2).fit(values), ART1Clusterer(0.6).fit(values > 0.2)
    assert by_itself.labels_.tolist() == by_hand.labels_.tolist()
    assert by_itself.predict(values[:5]).tolist() == by_hand.predict(values[:5] > 0.2).tolist()


def test_learning_row_by_row_is_one_pass() -> None:
    rows = letter_bitmaps().flatten(1).numpy()
    one, whole = ART1Clusterer(0.6), ART1Clusterer(0.6, max_passes=1).fit(rows)
    labels = [int(one.partial_fit(row[None]).labels_[0]) for row in rows]
    assert labels == whole.labels_.tolist()
    np.testing.assert_array_equal(one.cluster_centers_, whole.cluster_centers_)


def test_messages_of_the_clusterer() -> None:
    with pytest.raises(ValueError, match=r"^ART1Clusterer: X must be of 0 and 1, or booleans, got other values\. Give"):
        ART1Clusterer().fit([[0.5, 1.0]])
    with pytest.raises(ValueError, match=r"^ART1Clusterer: X must be \(rows, bits\), with at least one of each, got "):
        ART1Clusterer().fit([0, 1])
    with pytest.raises(ValueError, match=r"^ART1Clusterer: X must be \(rows, 2\), got \(1, 3\)\.$"):
        ART1Clusterer().fit([[0, 1]]).predict([[0, 1, 1]])
    for threshold in (float("nan"), "high"):
        with pytest.raises(ValueError, match=r"^ART1Clusterer: threshold must be None or a finite number, got "):
            ART1Clusterer(threshold=threshold).fit([[0.5, 1.0]])  # type: ignore[arg-type]
    for X, message in (
        ([[0.5, np.nan]], r"^ART1Clusterer: X must be finite, got NaN or inf\.$"),
        ([[0.5, 1j]], r"^ART1Clusterer: X must be real, got complex128\. Complex data not supported\.$"),
        ([0.5, 1.0], r"^ART1Clusterer: X must be \(rows, bits\), with at least one of each, got \(2,\)\. Reshape"),
    ):
        with pytest.raises(ValueError, match=message):
            ART1Clusterer(threshold=0.5).fit(X)
    with pytest.raises(TypeError, match=r"^ART1Clusterer: X must be an array, got sparse input\. Sparse"):
        ART1Clusterer().fit(scipy.sparse.eye(3))
    with pytest.raises(ValueError, match=r"^ART1: vigilance must be from 0 to 1, got 2\.$"):
        ART1Clusterer(vigilance=2).fit([[0, 1]])
