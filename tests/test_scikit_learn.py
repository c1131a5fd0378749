"""scikit-learn's own tools on the estimators: pipelines, searches, cross-validation, and its collection of checks."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from recurra.estimators import ART1Clusterer, Forecaster, LanguageModel, SequenceClassifier, SequenceRegressor

FAST: dict[str, Any] = {"num_updates": 3, "hidden_size": 4, "num_models": 1, "convolutions": "none"}
X = np.random.default_rng(0).normal(size=(24, 10))
Y = np.array([0, 1] * 12)
SERIES = np.sin(np.arange(80) / 2)
TEXT = "to be or not to be " * 20
FORECAST: dict[str, Any] = {"horizon": 3, "num_updates": 3, "hidden_size": 4}
ALL: list[tuple[Any, tuple[Any, ...]]] = [
    (SequenceClassifier(**FAST), (X, Y)),
    (SequenceRegressor(**FAST), (X, Y)),
    (Forecaster(**FORECAST), (SERIES,)),
    (LanguageModel(hidden_size=8, embedding_size=4, num_updates=3, sample_length=0), (TEXT,)),
]


@pytest.mark.parametrize(("model", "data"), ALL, ids=lambda v: type(v).__name__)
def test_manners(model: Any, data: tuple[Any, ...]) -> None:
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert fresh.set_params(**fresh.get_params()).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(fresh)
    with pytest.raises(NotFittedError, match=re.escape(f"{type(model).__name__}: the model must be fitted first")):
        fresh.score(*data)
    assert fresh.fit(*data) is fresh
    check_is_fitted(fresh)
    assert np.isfinite(fresh.score(*data))
    pipeline = Pipeline([("model", clone(model))])
    assert np.isfinite(pipeline.fit(*data).score(*data))
    assert type(model).__name__ in pipeline._repr_html_()
    assert pipeline.set_params(model__hidden_size=5).get_params()["model__hidden_size"] == 5
    assert is_classifier(model) == isinstance(model, SequenceClassifier)
    assert is_regressor(model) == isinstance(model, SequenceRegressor)


@pytest.mark.parametrize("cls", [SequenceClassifier, SequenceRegressor])
def test_searches_and_cross_validation_of_sequences(cls: Any) -> None:
    ragged = [x[: 5 + i % 5] for i, x in enumerate(X)]
    for data in (X, X[:, :, None], ragged):
        assert np.isfinite(cross_val_score(cls(**FAST), data, Y, cv=2, error_score="raise")).all()
    assert cross_val_predict(cls(**FAST), X, Y, cv=2).shape == (24,)
    grid = {"hidden_size": [3, 4], "cell": ["GRUCell", "MGUCell"]}
    found = GridSearchCV(cls(**FAST), grid, cv=2, error_score="raise").fit(X, Y)
    assert set(found.best_params_) == set(grid)
    name = cls.__name__.lower()
    pipeline = make_pipeline(StandardScaler(), cls(**FAST))
    assert np.isfinite(pipeline.set_params(**{f"{name}__hidden_size": 3}).fit(X, Y).score(X, Y))


@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", "balanced_accuracy"])
def test_scores_of_probabilities(scoring: str) -> None:
    scores = cross_val_score(SequenceClassifier(**FAST), X, Y, cv=2, scoring=scoring, error_score="raise")
    assert np.isfinite(scores).all()


def test_models_made_of_classifiers() -> None:
    both = [("a", SequenceClassifier(**FAST)), ("b", SequenceClassifier(**FAST, cell="GRUCell"))]
    for model in (VotingClassifier(both, voting="soft"), CalibratedClassifierCV(SequenceClassifier(**FAST), cv=2)):
        assert model.fit(X, Y).predict(X).shape == (24,)


def test_searches_and_cross_validation_of_forecasts() -> None:
    model, splits = Forecaster(**FORECAST), TimeSeriesSplit(2)
    assert np.isfinite(cross_val_score(model, SERIES, cv=splits, error_score="raise")).all()
    many = [SERIES + i for i in range(6)]
    assert np.isfinite(cross_val_score(model, many, cv=2, error_score="raise")).all()
    found = GridSearchCV(model, {"cell": ["GRUCell", "IndRNNCell"]}, cv=splits, error_score="raise").fit(SERIES)
    assert found.best_estimator_.predict().shape == (3,)
    scaled = make_pipeline(StandardScaler(), Forecaster(**FORECAST)).fit(SERIES[:, None])
    assert scaled.predict(SERIES[:, None]).shape == (3, 1)


# --- scikit-learn's collection of checks -----------------------------------------------------------------------------

LENGTHS = "rows are series, whose length may be another one than in training"
WORDS = "refused in a sentence of our own, where the check looks for scikit-learn's words"
OTHERWISE = {
    "check_n_features_in": LENGTHS,
    "check_n_features_in_after_fitting": LENGTHS,
    "check_complex_data": WORDS,
    "check_dtype_object": WORDS,
    "check_estimators_empty_data_messages": WORDS,
    "check_fit2d_1sample": WORDS,
    "check_fit2d_predict1d": WORDS,
    "check_requires_y_none": WORDS,
    "check_classifiers_train": LENGTHS,
    "check_regressors_train": LENGTHS,
    "check_supervised_y_2d": "a column of targets is a target of width one; a column of labels is refused in a sentence",
}


CHECKED: list[tuple[Any, dict[str, str], int]] = [
    (SequenceClassifier(**{**FAST, "num_updates": 15, "lr": 0.05}), OTHERWISE, 35),
    (SequenceRegressor(**{**FAST, "num_updates": 15, "lr": 0.05}), OTHERWISE, 35),
    (
        ART1Clusterer(threshold=0.5),
        {"check_n_features_in_after_fitting": WORDS, "check_estimators_empty_data_messages": WORDS},
        35,
    ),
]


@pytest.mark.parametrize(("model", "otherwise", "fewest"), CHECKED, ids=[type(c[0]).__name__ for c in CHECKED])
def test_scikit_learn_s_checks(model: Any, otherwise: dict[str, str], fewest: int) -> None:
    pytest.importorskip("sklearn", minversion="1.6", reason="earlier versions have no list of what is known to fail")
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(model, on_fail=None, on_skip=None, expected_failed_checks=otherwise)
    failed = {row["check_name"]: str(row["exception"])[:300] for row in found if row["status"] == "failed"}
    assert not failed
    assert sum(row["status"] == "passed" for row in found) >= fewest
