"""SequenceClassifier and SequenceRegressor: what goes in, what is decided, what comes out, and what is said."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from recurra.estimators import SequenceClassifier, SequenceRegressor, load_estimator
from recurra.estimators.classification_report import (
    classification_report,
    cross_fitted,
    expected_calibration_error,
    temperature,
)
from recurra.estimators.sequence_network import Convolutions, Pooling, StepNorm, mirrored, read_convolutions
from recurra.estimators.sequence_series import SeriesEncoder, Variation, read_series
from recurra.estimators.sequence_text import TextEmbedding, TextEncoder, words_of
from recurra.estimators.warping import warping_distances

FAST: dict[str, Any] = {"num_models": 1, "hidden_size": 6, "num_updates": 3, "convolutions": "6x3"}
RNG = np.random.default_rng(0)
WAVES = [np.sin(np.arange(12 + i % 4) * (0.3 + 0.6 * (i % 2)) + RNG.random()) for i in range(24)]
SPEEDS = ["slow", "fast"] * 12
TEXTS = ["the cat sat", "a dog barked loudly", "cats sleep", "dogs bark"] * 5
ANIMALS = ["cat", "dog"] * 10


# --- what goes in ----------------------------------------------------------------------------------------------------


def test_every_form_of_input_gives_the_same_answers() -> None:
    block = RNG.normal(size=(10, 8, 1))
    model = SequenceClassifier(**FAST).fit(block, [0, 1] * 5)
    forms = [
        block,
        block[:, :, 0],
        list(block),
        [list(map(float, x[:, 0])) for x in block],
        [torch.tensor(x) for x in block],
    ]
    padded = np.concatenate([block, np.full((10, 3, 1), np.nan)], 1)
    for form in (*forms, padded):
        np.testing.assert_allclose(model.predict_proba(form), model.predict_proba(block), atol=1e-6)
    again = SequenceClassifier(**FAST).fit(forms[1], np.array([0, 1] * 5))
    np.testing.assert_array_equal(again.predict_proba(block), model.predict_proba(block))


def test_padding_changes_nothing() -> None:
    """A short series answers the same alone and in a batch with a long one."""
    for options in ({}, {"pooling": "max"}, {"pooling": "attention"}, {"pooling": "last", "bidirectional": True}):
        model = SequenceClassifier(**{**FAST, "convolutions": "6x3/2 5x4", **options}).fit(WAVES, SPEEDS)
        long = np.sin(np.arange(60) * 0.5)
        both = model.predict_proba([WAVES[0], long])
        np.testing.assert_allclose(both[0], model.predict_proba([WAVES[0]])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([], [], "X must be at least one series, got none"),
        ([[1.0, 2.0], []], ["a", "b"], r"X\[1\] must be a series with at least one value, got none"),
        (
            [[1.0, 2.0], [math.nan]],
            ["a", "b"],
            r"X\[1\] must be a series with at least one value, got missing values only",
        ),
        ([[1.0, math.inf], [1.0]], ["a", "b"], r"X\[0\] must be finite"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], ["a", "b"], r"X\[1\] must be \(T, 2\) like X\[0\], got \(3, 1\)"),
        (np.zeros(4), ["a"] * 4, r"X must be \(N, T\) or \(N, T, D\), got \(4,\)\. One series is X\[None\]"),
        (np.zeros((2, 3)), ["a", "a"], "y must be of at least two classes, got only 'a'"),
        (np.zeros((2, 3)), ["a"], "y must be 2 labels, one for each sequence, got 1"),
        (np.zeros((2, 3)), ["a", None], "y must be a label for each sequence, got a missing one"),
        (np.zeros((2, 3)), [1.0, math.nan], "y must be a label for each sequence, got a missing one"),
        (np.zeros((2, 3)), [[1], [2]], r"y must be \(2,\), a label for each sequence, got \(2, 1\)"),
        (np.arange(90.0).reshape(30, 3), list(np.arange(30) / 7), "y must be classes, got 30 different numbers"),
    ],
)
def test_bad_data(X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^SequenceClassifier: {message}"):
        SequenceClassifier(**FAST).fit(X, y)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a text", ["a"], "X must be a list of texts, got one text"),
        (["a text", 3], ["a", "b"], r"X\[1\] must be a text, as the others are, got int"),
        ([[1.0], "x"], ["a", "b"], r"X\[1\] must be a series of numbers, as the others are, got a text"),
        ([[1.0], [object()]], ["a", "b"], r"X\[1\] must be numbers \(T,\) or \(T, D\), got list"),
        (5, ["a"], "X must be a list of series"),
        (np.zeros((2, 3)), "ab", "y must be a list of labels, got str"),
    ],
)
def test_data_of_another_type(X: Any, y: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^SequenceClassifier: {message}"):
        SequenceClassifier(**FAST).fit(X, y)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((4, 3)) + 1j, r"X\[0\] must be numbers"),
        (np.zeros((4, 3), "datetime64[D]"), r"X\[0\] must be numbers"),
        ([[10**400]] * 4, r"X\[0\] must be numbers"),
        (sparse.csr_array(np.ones((4, 3))), r"X must be a dense array, got a sparse matrix\. X\.toarray\(\) is one"),
    ],
)
def test_values_that_are_no_numbers(X: Any, message: str) -> None:
    for cls in (SequenceClassifier, SequenceRegressor):
        with pytest.raises(TypeError, match=f"^{cls.__name__}: {message}"):
            cls(**FAST).fit(X, [0, 1, 0, 1])


@pytest.mark.parametrize("unit", [1e-300, 1e300])
def test_values_that_no_square_can_hold(unit: float) -> None:
    with pytest.raises(
        ValueError, match=r"X(\[0\])? must be (numbers of a size between|finite, .* got a value beyond)"
    ):
        SequenceClassifier(**FAST).fit(unit * np.arange(1.0, 13).reshape(4, 3), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"^SequenceRegressor: y must be numbers of a size between 1e-100 and 1e\+100"):
        SequenceRegressor(**FAST).fit(np.ones((4, 3)), [unit, 0, 0, 0])


def test_too_many_channels() -> None:
    with pytest.raises(ValueError, match=r"X\[0\] must be a series of at most 100,000 channels, got 1,000,000"):
        SequenceClassifier(**FAST).fit(np.zeros((2, 1, 1_000_000), np.float32), [0, 1])
    with pytest.raises(ValueError, match=r"X must be series of at most 1,000,000 numbers a step, .*, got 2,400,000"):
        SequenceClassifier(**FAST, frames=60).fit(np.random.default_rng(0).normal(size=(2, 1, 20_000)), [0, 1])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", 1] * 12, "labels of one type that are texts or numbers, got a mixture. Write all of them"),
        ([1, "1"] * 12, "labels of one type"),
        (["a", math.nan] * 12, "a label for each sequence, got a missing one"),
        (["a", None] * 12, "a label for each sequence, got a missing one"),
        ([0, pd.NA] * 12, "a label for each sequence, got a missing one"),
        ([[0], [0, 1]] * 12, "a label for each sequence, got (24, 2)"),
        ([b"a", b"b"] * 12, "labels of one type that are texts or numbers"),
        ([1 + 1j, 2] * 12, "labels of one type that are texts or numbers"),
    ],
)
def test_labels_that_numpy_would_bend(y: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        SequenceClassifier(**FAST).fit(WAVES, y)


def test_labels_in_every_form_are_the_same_labels() -> None:
    plain = SequenceClassifier(**FAST).fit(WAVES, [0, 1] * 12)
    forms = [
        np.array([0, 1] * 12, dtype=object),
        pd.Series([0, 1] * 12, dtype="Int64"),
        torch.tensor([0, 1] * 12),
        [torch.tensor(0), torch.tensor(1)] * 12,
        [np.int8(0), True] * 12,
    ]
    for y in forms:
        model = SequenceClassifier(**FAST).fit(WAVES, y)
        assert model.classes_.tolist() == [0, 1]
        np.testing.assert_array_equal(model.predict_proba(WAVES), plain.predict_proba(WAVES))


def test_targets_that_only_differ_by_rounding_are_one_number() -> None:
    y = np.full(24, 0.1)
    assert y.std() > 0
    model = SequenceRegressor(**FAST).fit(WAVES, y)
    assert "All training targets are the same number: there is nothing to learn." in model.notes_
    assert model.score(WAVES, y) == 0.0
    with pytest.raises(TypeError, match="SequenceRegressor: y must be numbers"):
        SequenceRegressor(**FAST).fit(WAVES, y + 1j)


def test_tensors_that_want_gradients_and_odd_characters() -> None:
    block = torch.randn(6, 5, 1, requires_grad=True)
    assert SequenceClassifier(**FAST).fit(block, [0, 1] * 3).predict(block).shape == (6,)
    model = SequenceClassifier(num_updates=2, hidden_size=4).fit(["a \ud800 b", "c\0d"] * 3, [0, 1] * 3)
    assert model.predict(["\ud800"]).shape == (1,)


def test_a_resumed_run_wants_the_same_validation_data(tmp_path: Path) -> None:
    block = np.random.default_rng(0).normal(size=(60, 50))
    other = block.copy()
    other[30, 25] += 1  # which a printed array does not show
    y = [0, 1] * 30
    model = SequenceClassifier(**{**FAST, "num_updates": 6})
    model.fit(block, y, validation=(block, y), folder=tmp_path, on_progress=lambda p: p.update == 3)
    with pytest.raises(ValueError, match="data must be those of the run"):
        SequenceClassifier(**{**FAST, "num_updates": 6}).fit(
            block, y, validation=(other, y), folder=tmp_path, resume=True
        )


def test_data_that_do_not_fit_the_training() -> None:
    series = SequenceClassifier(**FAST).fit(WAVES, SPEEDS)
    with pytest.raises(ValueError, match=r"X\[0\] must be \(T, 1\) like the training series, got \(3, 2\)"):
        series.predict(np.zeros((1, 3, 2)))
    with pytest.raises(TypeError, match="X must be series of numbers, as in training, got texts"):
        series.predict(["text"])
    with pytest.raises(ValueError, match="the model must be fitted first"):
        SequenceClassifier().predict(WAVES)
    with pytest.raises(ValueError, match="validation must be of the training data's classes, got 'other'"):
        SequenceClassifier(**FAST).fit(WAVES, SPEEDS, validation=(WAVES[:1], ["other"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "LSTMM"}, "Did you mean"),
        ({"cell": "LSTMCell(hidden_size=3)"}, "cell must be given without hidden_size"),
        ({"cell": "EmbeddingCell"}, "cell must be a cell that is built from"),
        ({"pooling": "sum"}, "pooling must be one of 'auto', 'last'"),
        ({"convolutions": "8by3"}, "convolutions must be 'none' or layers such as"),
        ({"dropout": 1.0}, "dropout must be a probability"),
        ({"jitter": -1.0}, "jitter must be a number from 0 to 10"),
        ({"hidden_size": 0}, "hidden_size must be at least 1"),
        ({"hold_out": "all"}, "hold_out must be one of"),
        ({"hold_out": "folds"}, "hold_out must be 'part' or 'none' with one net"),
        ({"validation_part": 1.0}, "validation_part must be between 0 and 1"),
        ({"class_weight": "even"}, "class_weight must be None, 'balanced' or a dict"),
        ({"class_weight": {"unknown": 2.0}}, "class_weight must be for classes of y"),
        ({"class_weight": {"slow": -1.0}}, "class_weight must be numbers of at least 0"),
        ({"rule": "TruncatedBPTT"}, r"convolutions must be 'none' with rule='TruncatedBPTT', got '6x3'"),
        ({"lr": 0.0}, "lr must be a number above 0"),
        ({"num_updates": 3, "num_epochs": 1}, "the end of training must be one of"),
        ({"scale": "big"}, "scale must be one of"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(**{**FAST, **options}).fit(WAVES, SPEEDS)


@settings(max_examples=25)
@given(
    values=hnp.arrays(
        np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6), st.integers(1, 2)),
        elements=st.floats(-1e99, 1e99) | st.sampled_from([1e308, 1e-308]) | st.sampled_from([0.0, 1.0, math.nan]),
    )
)  # fmt: skip
def test_any_numbers(values: np.ndarray[Any, Any]) -> None:
    """Constant, missing, huge, tiny: probabilities, or one sentence."""
    options = {**FAST, "num_updates": 1, "hidden_size": 2, "convolutions": "none"}
    fits = (~np.isnan(values)).any((1, 2)).all() and not (np.abs(values) > 1e100).any()
    if not fits:
        with pytest.raises(ValueError, match="must be"):
            SequenceClassifier(**options).fit(values, np.arange(len(values)) % 2)
        return
    model = SequenceClassifier(**options).fit(values, np.arange(len(values)) % 2)
    found = model.predict_proba(np.nan_to_num(values))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1.0)


# --- scaling and variation -------------------------------------------------------------------------------------------


def test_scales_are_chosen_from_the_data() -> None:
    alike = [RNG.normal(size=(30, 1)) for _ in range(20)]
    assert SeriesEncoder.fitted(alike).scale == "standard"
    assert SeriesEncoder.fitted([x + i for i, x in enumerate(alike)]).scale == "both"
    assert SeriesEncoder.fitted([x * 3.0**i for i, x in enumerate(alike)]).scale == "wide"
    assert SeriesEncoder.fitted([x + i for i, x in enumerate(alike)], causal=True).scale == "standard"


def test_scaling_uses_the_training_series_only() -> None:
    encoder = SeriesEncoder.fitted(
        [np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]])], scale="standard", differences=False
    )
    np.testing.assert_allclose(encoder.encode(np.array([[2.0], [1e90]])), [[0.0], [1e4]])


def test_missing_values_are_filled_and_marked() -> None:
    x = np.array([[math.nan], [1.0], [math.nan], [3.0], [4.0]])
    encoder = SeriesEncoder.fitted([x], scale="standard", differences=False)
    assert encoder.filled(x)[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0, 4.0]
    assert encoder.encode(x)[:, 1].tolist() == [1, 0, 1, 0, 0]
    causal = SeriesEncoder.fitted([x], scale="standard", causal=True)
    assert causal.filled(x)[1:, 0].tolist() == [1.0, 1.0, 3.0, 4.0]


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_varied_series_stay_series(num_steps: int, num_channels: int, frames: int) -> None:
    rng = np.random.default_rng(num_steps)
    x = rng.normal(size=(num_steps, num_channels))
    encoder = SeriesEncoder.fitted([x, 2 * x], scale="both", frames=frames + 1)
    found = encoder.encode(x, Variation(0.1, 0.1, 0.3, 0.5), rng)
    assert found.shape == (encoder.length(num_steps), encoder.num_features)
    assert np.isfinite(found).all()
    calm = encoder.encode(x, Variation(), rng)
    np.testing.assert_array_equal(calm, encoder.encode(x))


def test_read_series_cuts_padding_and_says_so() -> None:
    found, notes = read_series("Test", [[1.0, math.nan, 2.0, math.nan], [1.0, 2.0]])
    assert [len(x) for x in found] == [3, 2]
    assert "1 series end with missing values" in notes[0]


def test_unknown_words_are_read_by_their_pieces() -> None:
    encoder = TextEncoder.fitted(["the cats", "the cats"], lowercase=True, min_count=2, num_buckets=50)
    assert encoder.vocabulary == ("cats", "the")
    known, unknown = encoder.encode("The cats"), encoder.encode("cat")
    assert known[:, 0].tolist() == [3, 2]
    assert unknown[0, 0] == 1
    assert set(unknown[0, 1:]) & set(known[1, 1:])
    assert encoder.encode("").tolist() == [[1]]
    assert (encoder.encode("cats " * 50, 0.5, np.random.default_rng(0))[:, 0] == 1).mean() == pytest.approx(
        0.5, abs=0.2
    )
    assert words_of("Don't stop-42") == ["don", "'", "t", "stop", "-", "42"]


def test_a_word_s_vector_is_the_same_in_one_step_and_in_a_sequence() -> None:
    """Places that are padding count for nothing; those beyond a table are the unknown word, or no piece."""
    cell = TextEmbedding(4, 3, 5)
    words = torch.tensor([[2, 1, 5, 0, 0], [3, 4, 0, 0, 0], [1, 0, 0, 0, 0], [5, 2, 3, 4, 5]])
    steps = cell.pointwise(words)
    np.testing.assert_allclose(cell.pointwise(words[:, None])[:, 0].detach(), steps.detach(), atol=1e-6)
    plain = [cell.words[w] for w in (2, 3, 1, 1)]
    wanted = [plain[0] + (cell.pieces[1] + cell.pieces[5]) / math.sqrt(2), plain[1] + cell.pieces[4], plain[2]]
    np.testing.assert_allclose(steps[:3].detach(), torch.stack(wanted).detach(), atol=1e-6)
    np.testing.assert_allclose(torch.vmap(cell.pointwise)(words[:, None])[:, 0].detach(), steps.detach(), atol=1e-6)
    wide = TextEmbedding(9, 3, 2)
    beyond = torch.tensor([[8, 2, 7]])
    np.testing.assert_allclose(wide.pointwise(beyond)[0].detach(), (wide.words[8] + wide.pieces[2]).detach(), atol=1e-6)


# --- nets ------------------------------------------------------------------------------------------------------------


def test_normalisation_is_torch_s() -> None:
    ours, theirs = StepNorm(4), torch.nn.BatchNorm1d(4)
    xs = torch.randn(7, 3, 4)
    np.testing.assert_allclose(
        ours(xs, None).detach(), theirs(xs.permute(1, 2, 0)).permute(2, 0, 1).detach(), atol=1e-5
    )
    lengths = torch.tensor([7, 2, 4])
    dirty = xs.masked_fill((torch.arange(7)[:, None] >= lengths)[:, :, None], 100.0)
    kept = torch.cat([xs[:n, b] for b, n in enumerate(lengths.tolist())])
    np.testing.assert_allclose(StepNorm(4)(dirty, lengths)[0].detach(), theirs(kept)[[0, 7, 9]].detach(), atol=1e-5)


def test_causal_convolutions_see_no_future() -> None:
    net = Convolutions(2, read_convolutions("Test", "3x4 5x3"), causal=True).eval()
    xs = torch.randn(9, 1, 2)
    changed = xs.clone()
    changed[5:] += 1
    np.testing.assert_allclose(net(xs, None)[0][:5].detach(), net(changed, None)[0][:5].detach(), atol=1e-6)


def test_mirror_and_pooling_keep_to_the_lengths() -> None:
    xs = torch.arange(8.0).reshape(4, 2, 1)
    lengths = torch.tensor([4, 2])
    assert mirrored(xs, lengths)[:, :, 0].T.tolist() == [[6, 4, 2, 0], [3, 1, 5, 7]]
    for kind, wanted in (("mean", [3, 2]), ("max", [6, 3]), ("last", [6, 3])):
        assert Pooling(kind, 1)(xs, lengths)[:, 0].tolist() == wanted


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "mean+max", "attention"])
@pytest.mark.parametrize("cell", ["GRUCell", "LSTMCell(peephole=True)", "IndRNNCell"])
def test_any_cell_and_pooling(cell: str, pooling: str) -> None:
    model = SequenceClassifier(cell=cell, pooling=pooling, num_layers=2, hidden_size=4, num_updates=2).fit(
        WAVES, SPEEDS
    )
    assert model.predict_proba(WAVES).shape == (24, 2)


@pytest.mark.parametrize("rule", ["TruncatedBPTT(k1=4)", "TruncatedBPTT"])
@pytest.mark.parametrize("engine", ["Loop", "Checkpointed(every=3)"])
def test_other_rules_and_engines(rule: str, engine: str) -> None:
    model = SequenceClassifier(rule=rule, engine=engine, hidden_size=4, num_updates=3).fit(WAVES, SPEEDS)
    assert (model.choices_.pooling, model.choices_.bidirectional, model.choices_.num_models) == ("last", False, 1)
    for x, steps in zip(WAVES[:3], model.predict_steps(WAVES[:3])):
        assert steps.shape == (len(x), 2)
        np.testing.assert_allclose(steps[-1], model.predict_proba([x])[0], atol=1e-5)


def test_rule_of_whole_sequences_equals_truncated_one_that_truncates_nothing() -> None:
    """The same net, the same batches, two ways to the gradient."""
    same = {
        "pooling": "last",
        "num_models": 1,
        "hidden_size": 4,
        "num_updates": 5,
        "dropout": 0.0,
        "label_smoothing": 0.0,
    }
    one = SequenceClassifier(**same).fit(WAVES, SPEEDS)
    other = SequenceClassifier(**same, rule="TruncatedBPTT").fit(WAVES, SPEEDS)
    np.testing.assert_allclose(one.predict_proba(WAVES), other.predict_proba(WAVES), atol=1e-4)


def test_a_stream_is_the_batch() -> None:
    series = [RNG.normal(size=(9, 2)) for _ in range(8)]
    series[3][4, 1] = math.nan
    model = SequenceClassifier(pooling="last", num_models=2, hidden_size=4, num_updates=3).fit(series, [0, 1] * 4)
    for x in series:
        stream = model.stream()
        next(stream)
        sent = np.stack([stream.send(step) for step in x])
        np.testing.assert_allclose(sent, model.predict_steps([x])[0], atol=1e-6)
        np.testing.assert_allclose(sent[-1], model.predict_proba([x])[0], atol=1e-6)
    with pytest.raises(ValueError, match="a step must be 2 finite numbers"):
        stream.send([1.0])


def test_a_stream_of_words() -> None:
    model = SequenceClassifier(pooling="last", num_models=1, hidden_size=4, num_updates=3).fit(TEXTS, ANIMALS)
    stream = model.stream()
    next(stream)
    sent = [stream.send(word) for word in ("the", "cats", "bark")]
    np.testing.assert_allclose(sent[-1], model.predict_proba(["the cats bark"])[0], atol=1e-6)
    with pytest.raises(ValueError, match="the model must be one that answers after every step"):
        SequenceClassifier(**FAST).fit(WAVES, SPEEDS).stream()


# --- what is learned -------------------------------------------------------------------------------------------------


def test_series_are_learned_and_decisions_are_said() -> None:
    model = SequenceClassifier(num_models=2, num_updates=80, hidden_size=8).fit(WAVES, SPEEDS)
    assert model.score(WAVES, SPEEDS) > 0.9
    said = " ".join(model.notes_)
    for part in (
        "2 classes: fast (12), slow (12)",
        "2 nets for 24 series",
        "Few series are varied",
        "Nothing is held out",
    ):
        assert part in said
    assert model.plan_["notes"][: len(model.notes_)] == model.notes_


def test_texts_are_learned() -> None:
    model = SequenceClassifier(
        num_models=1, hidden_size=16, embedding_size=16, num_updates=40, num_buckets=100, lr=1e-2
    )
    model.fit(TEXTS, ANIMALS)
    assert model.score(TEXTS, ANIMALS) == 1.0
    assert model.predict(["cat", "dog"]).tolist() == ["cat", "dog"]


def test_numbers_are_learned() -> None:
    speeds = RNG.uniform(0.2, 1.2, 40)
    waves = [np.sin(np.arange(20) * speed) for speed in speeds]
    model = SequenceRegressor(num_models=1, hidden_size=8, num_updates=150, warping=0.0, cropping=0.0).fit(
        waves, speeds
    )
    found = model.evaluate(waves, speeds)
    assert found["r2"] > 0.8
    assert found["rmse"] < found["rmse_of_mean"]
    assert model.predict(waves).shape == (40,)
    both = SequenceRegressor(**FAST).fit(waves, np.stack([speeds, 1 - speeds], 1))
    assert both.predict(waves).shape == (40, 2)
    with pytest.raises(ValueError, match="y must be of 2 targets, as in training, got 1"):
        both.score(waves, speeds)


def test_regressor_s_messages_and_repairs() -> None:
    with pytest.raises(TypeError, match="y must be numbers, got list"):
        SequenceRegressor(**FAST).fit(WAVES, SPEEDS)
    with pytest.raises(ValueError, match="y must be finite numbers"):
        SequenceRegressor(**FAST).fit(WAVES, [math.nan] * 24)
    constant = SequenceRegressor(**FAST).fit(WAVES, [3.0] * 24)
    assert "there is nothing to learn" in " ".join(constant.notes_)
    assert np.isfinite(constant.predict(WAVES)).all()
    causal = SequenceRegressor(pooling="last", num_models=1, hidden_size=4, num_updates=2).fit(WAVES, list(range(24)))
    np.testing.assert_allclose(causal.predict_steps(WAVES[:1])[0][-1], causal.predict(WAVES[:1])[0], rtol=1e-5)


def test_rare_classes_count_more_if_asked() -> None:
    """Without a way to tell the classes apart, a net answers with how often they came; weights make that even."""
    noise = [RNG.normal(size=6) for _ in range(60)]
    labels = ["often"] * 50 + ["rarely"] * 10
    options = {**FAST, "num_updates": 80, "convolutions": "none", "dropout": 0.0, "lr": 3e-2, "label_smoothing": 0.0}
    options |= {"hold_out": "none", "hidden_size": 1}
    plain = SequenceClassifier(**options).fit(noise, labels)
    even = SequenceClassifier(**options, class_weight="balanced").fit(noise, labels)
    by_hand = SequenceClassifier(**options, class_weight={"often": 0.6, "rarely": 3.0}).fit(noise, labels)
    means = [m.predict_proba(noise)[:, 1].mean() for m in (plain, even, by_hand)]
    assert means[0] == pytest.approx(1 / 6, abs=0.1)
    assert means[1] == pytest.approx(1 / 2, abs=0.12)
    assert means[2] == pytest.approx(means[1], abs=1e-4)
    assert "5 times the smallest" in " ".join(plain.notes_)


def test_held_out_parts_have_their_share_of_every_class() -> None:
    model = SequenceClassifier(**FAST, hold_out="part", validation_part=0.25).fit(WAVES * 5, SPEEDS * 5)
    assert [row["support"] for row in model.training_report_["per_class"]] == [15, 15]
    assert "On 30 held-out sequences" in model.notes_[-1]
    folds = SequenceClassifier(**{**FAST, "num_models": 3}, hold_out="folds").fit(WAVES, SPEEDS)
    assert folds.training_report_["num"] == 24
    given = SequenceClassifier(**FAST).fit(WAVES, SPEEDS, validation=(WAVES[:6], SPEEDS[:6]))
    assert given.training_report_["num"] == 6
    assert given.history_[-1]["validation_cross_entropy"] > 0


def _seen(mean: float, num: int) -> set[int]:
    """Which of the numbers 2**0, 2**1 ... a mean over ``num`` of them is made of."""
    total = round(mean * num)
    return {i for i in range(total.bit_length()) if total >> i & 1}


def test_what_is_held_out_scales_nothing() -> None:
    """Series i is the number 2**i, so the centre says which series it was found in."""
    series = [np.full((2, 1), 2.0**i) for i in range(24)]
    options = {**FAST, "hold_out": "part", "validation_part": 0.25, "scale": "standard", "convolutions": "none"}
    model = SequenceClassifier(**options).fit(series, SPEEDS)
    held = model.training_report_["num"]
    assert held == 6
    assert len(_seen(model.encoders_.first.centre[0], 24 - held)) == 24 - held
    regressor = SequenceRegressor(**options).fit(series, [2.0**i for i in range(24)])
    seen = _seen(regressor.encoders_.first.centre[0], 18)
    assert len(seen) == 18
    assert _seen(regressor.target_centre_[0][0], 18) == seen
    assert regressor.training_report_["num"] == 6


def test_what_is_held_out_has_no_vocabulary() -> None:
    texts = [f"word{i} word{i} {ANIMALS[i]}" for i in range(20)]
    model = SequenceClassifier(num_models=1, hidden_size=4, num_updates=2, hold_out="part", validation_part=0.2)
    model.fit(texts, ANIMALS)
    assert model.training_report_["num"] == 4
    assert len([word for word in model.encoders_.first.vocabulary if word.startswith("word")]) == 16
    assert "in what is trained on" in " ".join(model.notes_)


def test_each_fold_s_net_is_scaled_by_its_own_part(tmp_path: Path) -> None:
    series = [np.full((2, 1), 2.0**i) for i in range(24)]
    options = {**FAST, "num_models": 3, "hold_out": "folds", "scale": "standard", "convolutions": "none"}
    for model in (SequenceClassifier(**options), SequenceRegressor(**options)):
        model.fit(series, SPEEDS if isinstance(model, SequenceClassifier) else [2.0**i for i in range(24)])
        left_out = [set(range(24)) - _seen(one.centre[0], 16) for one in model.encoders_.each]
        assert [len(one) for one in left_out] == [8, 8, 8]
        assert set.union(*left_out) == set(range(24))
        if isinstance(model, SequenceRegressor):
            assert [set(range(24)) - _seen(row[0], 16) for row in model.target_centre_] == left_out
        model.save(tmp_path / model.kind)
        np.testing.assert_array_equal(load_estimator(tmp_path / model.kind).predict(series), model.predict(series))
    texts = [f"word{i} word{i} {ANIMALS[i]}" for i in range(20)]
    of_texts = SequenceClassifier(num_models=2, hidden_size=4, num_updates=2, hold_out="folds", num_buckets=20)
    of_texts.fit(texts, ANIMALS)
    words = [{word for word in one.vocabulary if word.startswith("word")} for one in of_texts.encoders_.each]
    assert not words[0] & words[1]
    assert len(words[0] | words[1]) == 20
    of_texts.save(tmp_path / "texts")
    np.testing.assert_array_equal(
        load_estimator(tmp_path / "texts").predict_proba(texts), of_texts.predict_proba(texts)
    )


@pytest.mark.parametrize("kind", ["series", "text"])
def test_a_stream_of_folds_is_the_batch(kind: str) -> None:
    series = [RNG.normal(size=(9, 2)) + i for i in range(8)]
    series[3][4, 1] = math.nan
    X: list[Any] = series if kind == "series" else TEXTS[:8]
    options: dict[str, Any] = {"num_models": 2, "hidden_size": 4, "num_updates": 3, "hold_out": "folds"}
    model = SequenceClassifier(pooling="last", **options).fit(X, [0, 1] * 4)
    for x in X:
        stream = model.stream()
        next(stream)
        sent = np.stack([stream.send(step) for step in (x if kind == "series" else words_of(x))])
        np.testing.assert_allclose(sent, model.predict_steps([x])[0], atol=1e-6)
        np.testing.assert_allclose(sent[-1], model.predict_proba([x])[0], atol=1e-6)


def test_a_part_leaves_something_of_every_class() -> None:
    series = [np.full((2, 1), 2.0**i) for i in range(12)]
    labels = list("aabbccddeeff")
    options = {**FAST, "hold_out": "part", "validation_part": 0.9, "scale": "standard", "convolutions": "none"}
    model = SequenceClassifier(**options).fit(series, labels)
    held = model.training_report_["num"]
    seen = _seen(model.encoders_.first.centre[0], 12 - held)
    assert {labels[i] for i in seen} == set("abcdef")
    alone = SequenceClassifier(**options).fit(series[:3], list("abc"))
    assert "Nothing can be held out, since every class would lose its only sequence." in alone.notes_
    with pytest.raises(ValueError, match="hold_out must be 'none' with one sequence, got 'folds'"):
        SequenceRegressor(**{**FAST, "num_models": 2}, hold_out="folds").fit(series[:1], [1.0])


def test_labels_that_training_never_showed_are_errors_and_are_said() -> None:
    model = SequenceClassifier(**FAST).fit(WAVES, SPEEDS)
    found = model.evaluate(WAVES[:4], ["slow", "fast", "unheard", "fast"])
    assert "1 of 4 labels were not seen in training" in found["notes"][0]
    assert found["accuracy"] <= 0.75
    assert model.score(WAVES[:2], ["unheard", "unheard"]) == 0.0
    ints = SequenceClassifier(**FAST).fit(WAVES, [int(s == "slow") for s in SPEEDS])
    assert ints.predict(WAVES).dtype.kind == "i"


def test_odd_input_is_described() -> None:
    model = SequenceClassifier(**FAST).fit(WAVES, SPEEDS)
    assert model.describe_input(WAVES) == []
    odd = [np.array([1.0, math.nan, 2.0]), np.zeros(100), np.array([1e6, 0.0])]
    said = " ".join(model.describe_input(odd))
    for part in ("1 values are missing, and none was", "has 100 steps", "1 series have values more than 20"):
        assert part in said
    texts = SequenceClassifier(num_updates=2, hidden_size=4, num_models=1).fit(TEXTS, ANIMALS)
    assert "100 % of the words" in texts.describe_input(["zebra giraffe"])[0]


# --- calibration and the report --------------------------------------------------------------------------------------


def test_temperature_makes_probabilities_fit() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    truth = np.array([rng.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    assert temperature(3.0 * logits, truth) == pytest.approx(3.0, rel=0.1)
    right = np.eye(3)[truth] * 5.0
    assert temperature(right[:20], truth[:20]) > 0.3  # never wrong, and yet not sure without limit


def test_calibration_is_not_measured_on_what_chose_the_temperature() -> None:
    """On few sequences the own temperature flatters: other data tell, and so does one that was found on the others."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(40, 1, 2)) * 3
        draw = rng.random(40) < 1 / (1 + np.exp(logits[:, 0, 0] / 2 - logits[:, 0, 1] / 2))
        truth, new = draw[:20].astype(int), draw[20:].astype(int)
        t = temperature(logits[:20, 0], truth)
        own, other = (np.exp(part[:, 0] / t) for part in (logits[:20], logits[20:]))
        losses = [
            -np.log((p / p.sum(1, keepdims=True))[np.arange(20), y]).mean() for p, y in ((own, truth), (other, new))
        ]
        crossed = cross_fitted(logits[:20], truth)
        np.testing.assert_allclose(crossed.sum(1), 1.0)
        found.append([*losses, -np.log(crossed[np.arange(20), truth]).mean()])
    flattering, fresh, honest = np.mean(found, 0)
    assert flattering < honest
    assert abs(honest - fresh) < 0.5 * abs(flattering - fresh)


def test_the_report_s_calibration_error_is_cross_fitted() -> None:
    model = SequenceClassifier(**FAST, seed=1).fit(WAVES, SPEEDS, validation=(WAVES[:13], SPEEDS[:13]))
    truth = np.array([model.classes_.tolist().index(s) for s in SPEEDS[:13]])
    logits = model.temperature_ * np.log(model.predict_proba(WAVES[:13]))[:, None]
    wanted = expected_calibration_error(cross_fitted(logits, truth), truth)
    assert model.training_report_["calibration_error"] == pytest.approx(wanted, abs=1e-6)
    assert wanted != pytest.approx(expected_calibration_error(model.predict_proba(WAVES[:13]), truth), abs=1e-6)
    assert "each fifth of them answered with the temperature of the others" in model.notes_[-1]
    assert model.notes_[-1].endswith("They also chose the weights, so other data may do a little worse.")
    plain = SequenceClassifier(**FAST, calibrate=False).fit(WAVES, SPEEDS, validation=(WAVES[:13], SPEEDS[:13]))
    assert plain.temperature_ == 1.0
    assert "temperature" not in plain.notes_[-1]


def test_report_agrees_with_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    found = classification_report(probabilities, truth, ["a", "b", "c"])
    guess = probabilities.argmax(1)
    assert found["confusion"] == metrics.confusion_matrix(truth, guess).tolist()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    assert found["cross_entropy"] == pytest.approx(metrics.log_loss(truth, probabilities))
    assert [row["precision"] for row in found["per_class"]] == pytest.approx(
        metrics.precision_score(truth, guess, average=None)
    )
    assert 0 < expected_calibration_error(probabilities, truth) < 1
    assert json.loads(json.dumps(found)) == found
    sure = [row["probability"] for row in found["worst"]]
    assert sure == sorted(sure, reverse=True)


# --- scikit-learn's manners and the folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor])
def test_clone_and_parameters(cls: type) -> None:
    from sklearn.base import clone

    model = cls(hidden_size=7, rule="BPTT", seed=3)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert repr(copy) == f"{cls.__name__}(hidden_size=7, seed=3)"
    assert clone(copy.set_params(dropout=0.2)).dropout == 0.2
    with pytest.raises(ValueError, match="Did you mean dropout"):
        copy.set_params(drop_out=0.2)


def test_scikit_learn_s_own_tools_run() -> None:
    from sklearn.model_selection import cross_val_score

    scores = cross_val_score(SequenceClassifier(**FAST), WAVES, SPEEDS, cv=2)
    assert scores.shape == (2,)
    assert cross_val_score(SequenceRegressor(**FAST), WAVES, np.arange(24.0), cv=2).shape == (2,)


@pytest.mark.parametrize(
    ("model", "X", "y"),
    [
        (SequenceClassifier(**FAST), WAVES, SPEEDS),
        (SequenceClassifier(**FAST), WAVES, [i % 3 for i in range(24)]),
        (SequenceClassifier(num_models=2, hidden_size=4, num_updates=2, num_buckets=20), TEXTS, ANIMALS),
        (SequenceClassifier(rule="TruncatedBPTT", hidden_size=4, num_updates=2), WAVES, SPEEDS),
        (SequenceRegressor(**FAST), WAVES, list(range(24))),
    ],
)
def test_saved_and_loaded(model: Any, X: Any, y: Any, tmp_path: Path) -> None:
    model.fit(X, y)
    model.save(tmp_path)
    other = load_estimator(tmp_path)
    assert type(other) is type(model)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert other.get_params() == model.get_params()
    assert other.notes_ == model.notes_
    assert other.score(X, y) == model.score(X, y)


def test_damaged_folders(tmp_path: Path) -> None:
    SequenceClassifier(**FAST).fit(WAVES, SPEEDS).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in (
        {"classes": ["slow"]},
        {"temperature": -1.0},
        {"choices": {}},
        {"encoder": {}},
        {"input": "sound"},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, "fitted": {**config["fitted"], **change}}))
        with pytest.raises(ValueError, match=r"config\.json is damaged or foreign"):
            SequenceClassifier.load(tmp_path)


def test_a_stopped_run_goes_on_the_same(tmp_path: Path) -> None:
    options = {**FAST, "num_updates": 12, "num_models": 2, "hold_out": "part", "checkpoint_seconds": 0.0}
    del options["checkpoint_seconds"]
    whole = SequenceClassifier(**options).fit(WAVES, SPEEDS)
    half = SequenceClassifier(**options)
    half.fit(WAVES, SPEEDS, folder=tmp_path / "run", on_progress=lambda progress: progress.update == 5)
    assert half.record_["updates_made"] == 5
    rest = SequenceClassifier(**options).fit(WAVES, SPEEDS, folder=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(rest.predict_proba(WAVES), whole.predict_proba(WAVES))
    with pytest.raises(ValueError, match="data must be those of the run"):
        SequenceClassifier(**options).fit(WAVES[::-1], SPEEDS, folder=tmp_path / "run", resume=True)


def test_the_same_seed_gives_the_same_model() -> None:
    one, two = (SequenceClassifier(**FAST, seed=4).fit(WAVES, SPEEDS).predict_proba(WAVES) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, SequenceClassifier(**FAST, seed=5).fit(WAVES, SPEEDS).predict_proba(WAVES))


# --- the baseline ----------------------------------------------------------------------------------------------------


def plain_warping(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The readable reference."""
    found = np.full((len(a) + 1, len(b) + 1), np.inf)
    found[0, 0] = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            best = min(found[i, j], found[i, j + 1], found[i + 1, j])
            found[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + best
    return float(found[-1, -1])


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(SIZES, SIZES, st.integers(1, 3))
def test_warping_equals_the_reference(left: list[int], right: list[int], num_channels: int) -> None:
    rng = np.random.default_rng(sum(left))
    queries, series = ([rng.normal(size=(n, num_channels)) for n in lengths] for lengths in (left, right))
    wanted = [[plain_warping(a, b) for b in series] for a in queries]
    for cells in (10, 60_000):
        np.testing.assert_allclose(warping_distances(queries, series, cells=cells), wanted, rtol=1e-4, atol=1e-5)


def test_warping_s_message() -> None:
    with pytest.raises(ValueError, match=r"queries\[0\] must be \(T, 1\) with at least one step, got \(2, 2\)"):
        warping_distances([np.zeros((2, 2))], [np.zeros((3, 1))])
