"""Folders of models in which anything may have been changed: one sentence, never a crash, a hang or a wrong answer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recurra.estimators import Forecaster, LanguageModel, SequenceClassifier, SequenceRegressor, load_estimator

X = np.random.default_rng(0).normal(size=(12, 8))
SMALL: dict[str, Any] = {"num_updates": 1, "hidden_size": 4}
WAVE = np.sin(np.arange(60) / 2)
MAKE: dict[str, Callable[[], Any]] = {
    "classifier": lambda: SequenceClassifier(**SMALL, num_models=2, class_weight={"a": 2.0}).fit(X, ["a", "b"] * 6),
    "texts": lambda: SequenceClassifier(**SMALL, num_models=1, num_buckets=10).fit(["a b", "c d"] * 6, [0, 1] * 6),
    "regressor": lambda: SequenceRegressor(**SMALL, num_models=1).fit(X, X[:, 0]),
    "forecaster": lambda: Forecaster(**SMALL, horizon=3).fit([WAVE, WAVE + 1]),
    "language": lambda: LanguageModel(**SMALL, embedding_size=3, sample_length=0).fit("to be or " * 30),
}
USE: dict[str, Callable[[Any], Any]] = {
    "classifier": lambda model: model.predict_proba(X),
    "texts": lambda model: model.predict_proba(["a b"]),
    "regressor": lambda model: model.predict(X),
    "forecaster": lambda model: model.forecast().quantiles,
    "language": lambda model: model.evaluate("to be")["nats_per_char"],
}
VALUES = [None, True, -1, 0, 2, 10**6, 10**30, 1.5, -2.5, 1e300, "", "x", "GRUCell", [], {}, [1], {"a": 1}, [None]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside nested dicts and to the first elements of lists."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A folder of each kind, and what stands in its configuration."""
    found = {}
    for kind, make in MAKE.items():
        folder = tmp_path_factory.mktemp(kind)
        make().save(folder)
        found[kind] = (folder, json.loads((folder / "config.json").read_text()))
    return found


def change(config: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a place."""
    config = json.loads(json.dumps(config))
    inner: Any = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


def check(kind: str, folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = load_estimator(folder)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 1000  # noqa: PT017
            return
        assert np.isfinite(USE[kind](model)).all()


FOUND: list[tuple[str, tuple[Any, ...], Any]] = [
    ("language", ("record", "history"), 2),
    ("language", ("record", "samples"), -1),
    ("classifier", ("record", "plan"), [None]),
    ("classifier", ("fitted", "encoder", "spread", 0), "x"),
    ("classifier", ("fitted", "encoder", "step"), 0),
    ("classifier", ("fitted", "encoder", "unit"), []),
    ("classifier", ("fitted", "choices", "hidden_size"), 10**6),
    ("texts", ("fitted", "choices", "pooling"), ""),
    ("texts", ("fitted", "encoder", "num_buckets"), 10**6),
    ("regressor", ("fitted", "encoder", "frames"), -1),
    ("forecaster", ("fitted", "setup", "series_scales", "#1"), -1),
    ("forecaster", ("fitted", "setup", "transform"), True),
    ("forecaster", ("fitted", "setup", "window"), 0),
    ("forecaster", ("fitted", "setup", "horizon"), 1e300),
    ("forecaster", ("fitted", "offsets"), {}),
    ("forecaster", ("fitted", "context", "names"), "GRUCell"),
    ("forecaster", ("fitted", "context", "values", 0, 1, 0), 1e300),
    ("forecaster", ("fitted", "horizon"), 10**30),
    ("forecaster", ("arguments", "num_members"), 10**30),
]


@pytest.mark.parametrize(("kind", "path", "value"), FOUND, ids=lambda v: str(v)[:50])
def test_what_was_found(saved: Any, kind: str, path: tuple[Any, ...], value: Any) -> None:
    folder, config = saved[kind]
    (folder / "config.json").write_text(json.dumps(change(config, path, value)))
    with pytest.raises(ValueError, match=r"config\.json is damaged or foreign: ") as caught:
        load_estimator(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MAKE)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.sampled_from(VALUES))
@example(place=0, value=None)
def test_any_value_may_be_another(saved: Any, kind: str, place: int, value: Any) -> None:
    folder, config = saved[kind]
    inside = {key: config[key] for key in ("arguments", "fitted", "record", "kind", "format_version", "weights_sha256")}
    paths = list(places(inside))
    check(kind, folder, change(config, paths[place % len(paths)], value))


@pytest.mark.parametrize("kind", MAKE)
def test_untouched_models_are_read(saved: Any, kind: str) -> None:
    folder, config = saved[kind]
    (folder / "config.json").write_text(json.dumps(config))
    assert np.isfinite(USE[kind](load_estimator(folder))).all()
