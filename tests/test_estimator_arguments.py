"""Any cell, engine and rule by plain arguments on every estimator, or one sentence that says why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recurra.cells import EmbeddingCell, GRUCell
from recurra.core import CrossEntropy, MeanSquaredError, members
from recurra.core.cell import ContinuousCell
from recurra.core.rule import LearningRule
from recurra.estimators import Forecaster, LanguageModel, SequenceClassifier, SequenceRegressor
from recurra.estimators.forecasting.network import ForecastLoss
from recurra.estimators.named import named
from recurra.wrappers import Readout, Stack

X = np.random.default_rng(0).normal(size=(12, 8))
Y = [0, 1] * 6
SMALL: dict[str, Any] = {"num_updates": 1, "hidden_size": 8}
FITS: dict[str, Callable[..., Any]] = {
    "series": lambda **o: SequenceClassifier(**{**SMALL, "num_models": 1, **o}).fit(X, Y).predict(X),
    "texts": lambda **o: (
        SequenceClassifier(**{**SMALL, "num_models": 1, **o}).fit(["a b", "c d"] * 6, Y).score(["a"], [0])
    ),
    "numbers": lambda **o: SequenceRegressor(**{**SMALL, "num_models": 1, **o}).fit(X, Y).predict(X),
    "forecasts": lambda **o: Forecaster(**{**SMALL, "horizon": 3, **o}).fit(np.sin(np.arange(60) / 2)).predict(),
    "a text": lambda **o: (
        LanguageModel(**{**SMALL, "embedding_size": 4, "sample_length": 0, **o}).fit("to be " * 30).score("to be")
    ),
}
BUILDABLE = [n for n in members("cells") if named("test", "cell", "cells", n).accepts("input_size", "hidden_size")]
CONTINUOUS = [name for name in BUILDABLE if issubclass(members("cells")[name], ContinuousCell)]
"""Their input is a value with its time gap, which no estimator's data has."""
BUILT = [name for name in BUILDABLE if name not in CONTINUOUS]
RULES = [name for name, kind in members("rules").items() if issubclass(kind, LearningRule)]
UNFIT = [r for r in RULES if members("rules")[r]().supports(Readout(GRUCell(2, 3), 2), MeanSquaredError()) is not None]
"""Rules for cells of a kind that no estimator builds."""


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("cell", [*BUILT, "LSTMCell(projection_size=3)", "ClockworkCell(periods=(1, 3))"])
def test_every_cell(kind: str, cell: str) -> None:
    assert np.isfinite(FITS[kind](cell=cell)).all()


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("cell", CONTINUOUS)
def test_cells_with_time_gaps(kind: str, cell: str) -> None:
    with pytest.raises(ValueError, match=r"cell must be a cell with input \(B, D\) and output \(B, O\), got "):
        FITS[kind](cell=cell)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("cell", [name for name in members("cells") if name not in BUILDABLE])
def test_cells_that_are_no_layers(kind: str, cell: str) -> None:
    with pytest.raises(ValueError, match=r"cell must be a cell that is built from \(input_size, hidden_size\), got "):
        FITS[kind](cell=cell)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("engine", [*members("engines"), "Checkpointed(every=3)"])
def test_every_engine(kind: str, engine: str) -> None:
    if (kind, engine) == ("a text", "Vendor"):
        with pytest.raises(
            ValueError, match=r"Vendor\(\): torch's layers cannot restart inside a sequence; use Auto\(\)"
        ):
            FITS[kind](engine=engine)
        return
    assert np.isfinite(FITS[kind](engine=engine)).all()


FIT = [r for r in RULES if r not in UNFIT]


def like(kind: str, cell: str) -> tuple[Any, Any]:
    """A net and a loss such as an estimator puts together."""
    net = Readout(members("cells")[cell](4, 3), 2)
    if kind in ("texts", "a text"):
        net = Stack(EmbeddingCell(5, 4), net)
    squared = MeanSquaredError() if kind == "numbers" else ForecastLoss("mae", ())
    return net, squared if kind in ("numbers", "forecasts") else CrossEntropy()


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("rule", [*FIT, "TruncatedBPTT(k1=2)", "TruncatedBPTT(k1=2, k2=4)"])
def test_every_rule(kind: str, rule: str) -> None:
    """Fits, or says in one sentence what of this estimator's net or loss it cannot take: an embedding, another loss."""
    cell = ("GRUCell", "IndRNNCell", "MGUCell")[(len(rule) + len(kind)) % 3]
    small = {"embedding_size": 4} if kind == "texts" else {}
    try:
        found = FITS[kind](rule=rule, cell=cell, **small)
    except TypeError as error:
        assert re.fullmatch(rf"{rule}: [^\n]*\.", str(error))  # noqa: PT017
        assert members("rules")[rule]().supports(*like(kind, cell)) is not None  # as it says of such a net by itself
    else:
        assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("rule", UNFIT)
def test_a_rule_that_needs_another_cell_says_so(kind: str, rule: str) -> None:
    with pytest.raises(TypeError, match=rf"^{rule}: .*\.$"):
        FITS[kind](rule=rule)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cell": "GRU5"}, "cell must be one of the cells, got 'GRU5'."),
    ({"cell": "GRUCell(gates=4)"}, "cell must be given options that GRUCell has (input_size, hidden_size, "),
    ({"cell": "GRUCell(input_size=4)"}, "cell must be given without input_size, got GRUCell(input_size=4)."),
    ({"cell": "GRUCell(device='cuda')"}, "cell must be given without device, got GRUCell(device='cuda')."),
    ({"cell": "GRUCell(generator=1)"}, "cell must be given without generator"),
    ({"cell": "GRUCell(dtype='float64')"}, "cell must be given without dtype"),
    ({"cell": "GRUCell()()"}, "cell must be a name, or a name with options"),
    ({"cell": "LSTMCell(forget_bias='x')"}, "cell must be given forget_bias as float | None, got forget_bias='x' in"),
    ({"cell": "LSTMCell(peephole='x')"}, "cell must be given peephole as bool, got peephole='x' in"),
    (
        {"cell": "ClockworkCell(periods=(1, 2.5))"},
        "cell must be given periods as tuple[int, ...], got periods=(1, 2.5)",
    ),
    ({"engine": "Checkpointed(every=True)"}, "engine must be given every as int | None, got every=True in"),
    ({"engine": "Checkpointed(engine='Loop')"}, "engine must be given engine as Engine, got engine='Loop' in"),
    ({"rule": "TruncatedBPTT(k1='x')"}, "rule must be given k1 as int | None, got k1='x' in"),
    ({"cell": 3}, "cell must be a name such as 'LSTMCell', got 3."),
    ({"cell": "ClockworkCell", "hidden_size": 6}, "ClockworkCell: hidden_size must be a multiple of 4"),
    ({"cell": "MGUCell", "engine": "Vendor"}, "Vendor(): "),
    ({"engine": "Fast"}, "engine must be one of the engines, got 'Fast'."),
    ({"engine": "Checkpointed(every=0)"}, "every must be at least 1, got 0."),
    ({"rule": "Backprop"}, "rule must be one of the rules, got 'Backprop'."),
    ({"rule": "EvolutionStrategy"}, "rule must be a learning rule"),
    ({"rule": "TruncatedBPTT(k1=0)"}, "k1 must be at least 1, got 0."),
    ({"dropout": "half"}, "dropout must be a probability in [0, 1), got 'half'."),
    ({"hidden_size": 2.0}, "hidden_size must be a whole number, got 2.0."),
    ({"num_layers": 0}, "num_layers must be at least 1, got 0."),
    ({"device": "abacus"}, "device must be one that torch can use here, got 'abacus'."),
    ({"precision": "float8"}, "precision must be one of "),
    ({"optimizer": "Newton"}, "optimizer must be one of "),
    ({"lr": "high"}, "lr must be a number above 0, got 'high'."),
    (
        {"hidden_size": np.int64(8)},
        "hidden_size must be a plain value: a number, a text, or a list or dict of them, got ",
    ),
    ({"lr": torch.tensor(0.1)}, "lr must be a plain value"),
    ({"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5."),
]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: str(v)[:40])
def test_what_is_impossible_is_one_sentence(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as caught:
        FITS[kind](**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SequenceClassifier(bidirectional="yes"), "bidirectional must be None, True or False, got 'yes'."),  # type: ignore[arg-type]
        (SequenceClassifier(differences=1), "differences must be None, True or False, got 1."),  # type: ignore[arg-type]
        (SequenceClassifier(lowercase=None), "lowercase must be True or False, got None."),  # type: ignore[arg-type]
        (SequenceClassifier(calibrate="yes"), "calibrate must be True or False, got 'yes'."),  # type: ignore[arg-type]
        (
            SequenceClassifier(convolutions=None),
            "convolutions must be a text such as '32x8/2 64x5', or 'none', got None.",
        ),  # type: ignore[arg-type]
        (SequenceClassifier(validation_part="half"), "validation_part must be between 0 and 1, got 'half'."),  # type: ignore[arg-type]
        (SequenceClassifier(jitter="much"), "jitter must be a number from 0 to 10, got 'much'."),  # type: ignore[arg-type]
        (Forecaster(linear="no"), "linear must be True or False, got 'no'."),  # type: ignore[arg-type]
        (Forecaster(quantiles=np.array([0.1, 0.9])), "quantiles must be a plain value"),  # type: ignore[arg-type]
        (LanguageModel(variational=2), "variational must be True or False, got 2."),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_one_kind_of_estimator(model: Any, message: str) -> None:
    data = {SequenceClassifier: (X, Y), Forecaster: (X[:, 0],), LanguageModel: ("to be or not",)}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        model.fit(*data[type(model)])


def test_searches_over_arrays_of_numbers() -> None:
    from sklearn.model_selection import GridSearchCV

    grid = {"hidden_size": np.arange(2, 4), "lr": np.logspace(-3, -2, 2, dtype=np.float32)}
    found = GridSearchCV(SequenceClassifier(num_updates=1, num_models=1), grid, cv=2, error_score="raise").fit(X, Y)
    assert type(found.best_estimator_.hidden_size) is int


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [False, True], [0.5, 1.5]])
def test_weights_of_classes_survive_the_folder(labels: list[Any], tmp_path: Path) -> None:
    model = SequenceClassifier(**SMALL, num_models=1, class_weight={labels[0]: 2.0, labels[1]: 1.0})
    y = [labels[i] for i in Y]
    model.fit(X, y).save(tmp_path)
    again = SequenceClassifier.load(tmp_path)
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), model.predict_proba(X))
