"""Estimators that learn from a stream: the protocols of River and scikit-learn, growth, drift, memory, refusals, folders."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from torch.utils import _pytree

from recurra.cells import ElmanCell
from recurra.core import Chunk, ContinuousCell, MeanSquaredError
from recurra.core.catalog import members
from recurra.core.rule import LearningRule
from recurra.estimators import OnlineClassifier, OnlineForecaster, load_estimator
from recurra.estimators.named import Named
from recurra.estimators.online.level import Level
from recurra.estimators.online.rows import Rows
from recurra.learning import Adam, Online
from recurra.learning.native_loop import Bound
from recurra.wrappers import Readout

SMALL: dict[str, Any] = {"cell": "ElmanCell", "hidden_size": 4, "rule": "TruncatedBPTT", "lr": 0.01}
Model = OnlineForecaster | OnlineClassifier


def numbers(num: int) -> Iterator[tuple[dict[str, float], float]]:
    """A regression whose target also depends on the row before."""
    draws = np.random.default_rng(0).normal(size=(num, 2)).tolist()
    before = 0.0
    for a, b in draws:
        yield {"a": a, "b": 100 + 5 * b}, 3 * a + before
        before = a


def labels(num: int) -> Iterator[tuple[dict[str, float], str]]:
    """Two classes: the sign of one feature."""
    for (a, b), _ in ((tuple(x.values()), y) for x, y in numbers(num)):
        yield {"a": a, "b": b}, "up" if a > 0 else "down"


def content(model: Model) -> str:
    """Everything the next row reads."""
    tensors: dict[str, Any] = {}
    state = model._state(tensors)
    return repr(state) + "".join(f"{n}{t.tolist()}" for n, t in sorted(tensors.items()))


def learned(model: Any, rows: Any) -> list[float]:
    """Absolute errors, each prediction made before its row is learned, as River's progressive validation does."""
    errors = []
    for x, y in rows:
        guess = model.predict_one(x)
        errors.append(abs(guess - y) if isinstance(y, float) else float(guess != y))
        model.learn_one(x, y)
    return errors


# --- protocols ---


def test_the_protocol_of_river() -> None:
    forecaster, classifier = OnlineForecaster(**SMALL), OnlineClassifier(**SMALL)
    assert forecaster.predict_one({"a": 1.0}) == 0.0
    assert classifier.predict_proba_one({"a": 1.0}) == {}
    assert classifier.predict_one({"a": 1.0}) is None
    errors = learned(forecaster, numbers(300))
    assert sum(errors[-100:]) < 0.7 * sum(errors[:100])
    wrong = learned(classifier, labels(200))
    assert sum(wrong[-100:]) <= 12
    found = classifier.predict_proba_one({"a": 2.0, "b": 100.0})
    assert set(found) == {"up", "down"}
    assert sum(found.values()) == pytest.approx(1)
    for model in (forecaster, classifier):
        assert model._supervised
        other = model.clone({"lr": 0.5})
        assert other.lr == 0.5
        assert other.get_params() | {"lr": 0.01} == model.get_params()
        assert not hasattr(other, "rows_")
        assert content(model.clone(include_attributes=True)) == content(model)


def test_river_itself() -> None:
    pytest.importorskip("river", reason="River is not installed")
    from river import base, compose, evaluate, metrics, preprocessing

    forecaster, classifier = OnlineForecaster(**SMALL), OnlineClassifier(**SMALL)
    assert isinstance(forecaster, base.Regressor)
    assert not isinstance(forecaster, base.Classifier)
    assert isinstance(classifier, base.Classifier)
    error = evaluate.progressive_val_score(numbers(100), forecaster, metrics.MAE()).get()
    assert error == pytest.approx(np.mean(learned(OnlineForecaster(**SMALL), numbers(100))))
    right = evaluate.progressive_val_score(labels(100), classifier, metrics.Accuracy()).get()
    assert right == pytest.approx(1 - np.mean(learned(OnlineClassifier(**SMALL), labels(100))[1:]))
    signs = [(x, y == "up") for x, y in labels(60)]
    assert (
        0 < evaluate.progressive_val_score(signs, OnlineClassifier(**SMALL), metrics.LogLoss()).get() < 1.5
    )  # the first False was none
    assert 0 < evaluate.progressive_val_score(labels(60), OnlineClassifier(**SMALL), metrics.CrossEntropy()).get() < 1
    delayed = [({"a": float(i % 3), "t": i}, float(i % 3)) for i in range(60)]
    assert (
        evaluate.progressive_val_score(delayed, OnlineForecaster(**SMALL), metrics.MAE(), moment="t", delay=2).get() < 1
    )
    pipeline = compose.Select("a") | preprocessing.StandardScaler() | OnlineClassifier(**SMALL)
    assert evaluate.progressive_val_score(labels(100), pipeline, metrics.Accuracy()).get() > 0.7


@pytest.mark.parametrize("model", [OnlineForecaster(**SMALL), OnlineClassifier(**SMALL)], ids=lambda m: m.kind)
def test_manners_of_scikit_learn(model: Model) -> None:
    rows = list(numbers(60) if isinstance(model, OnlineForecaster) else labels(60))
    X, y = np.array([list(x.values()) for x, _ in rows]), np.array([y for _, y in rows])
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    with pytest.raises(NotFittedError, match="must be fitted first"):
        fresh.predict(X)
    assert fresh.partial_fit(X[:40], y[:40]) is fresh
    assert fresh.predict(X[40:]).shape == (20,)
    before = content(fresh)
    assert np.isfinite(fresh.score(X[40:], y[40:]))
    assert content(fresh) == before
    assert fresh.fit(X, y).num_learned_ == 60
    assert is_classifier(fresh) == isinstance(model, OnlineClassifier)
    assert is_regressor(fresh) == isinstance(model, OnlineForecaster)
    assert repr(fresh.set_params(lr=0.5)).endswith("lr=0.5)")
    fresh.partial_fit(X, y)
    fresh.set_params(hidden_size=5)
    with pytest.raises(ValueError, match=r"hidden_size must be 4 as before, got 5\. Only lr may change"):
        fresh.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"X must be \(N, D\), N rows in the order of time, got \(2,\)"):
        clone(model).partial_fit(X[0], y)
    with pytest.raises(ValueError, match="y must be as many as rows in X, 60, got 59"):
        clone(model).partial_fit(X, y[1:])


def test_classes_given_beforehand() -> None:
    model = OnlineClassifier(**SMALL)
    X, y = np.eye(3), np.array([5, 7, 5])
    model.partial_fit(X, y, classes=[9, 7, 5])
    assert model.classes_.tolist() == [5, 7, 9]
    assert model.predict_proba(X).shape == (3, 3)
    with pytest.raises(
        ValueError, match=r"row 1, y must be one of the classes given .*\[5, 7, 9\], got 4\..*None of the"
    ):
        model.partial_fit(X, [5, 4, 5])
    assert model.num_learned_ == 3
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        model.partial_fit(X, y, classes=[5, 7])


@pytest.mark.parametrize("kind", [OnlineForecaster, OnlineClassifier])
def test_dicts_arrays_lists_and_frames_are_one(kind: Any) -> None:
    rows = list(numbers(25) if kind is OnlineForecaster else labels(25))
    frame = pd.DataFrame([x for x, _ in rows])
    whole = kind(**SMALL).partial_fit(frame, [y for _, y in rows])
    one = kind(**SMALL)
    ready = kind(**SMALL)
    for x, y in rows:
        one.learn_one(x, y)
        ready.learn_one(list(x.values()), y)
    ask = frame.iloc[:5]
    assert np.array_equal(whole.predict(ask), one.predict(ask.to_dict("records")))
    assert np.array_equal(one.predict(ask), ready.predict(ask.to_numpy()))


# --- one by one is all together ---


def mixed(kind: Any) -> tuple[list[Any], list[Any]]:
    """Rows with new features, categories, gaps, new classes and unknown targets."""
    rng = np.random.default_rng(1)
    xs: list[Any] = []
    ys: list[Any] = []
    for t in range(60):
        x: dict[str, Any] = {"a": float(rng.normal())}
        if t > 20 and t % 3:
            x |= {"late": t, "kind": "ab"[t % 2]}
        xs.append({} if t == 30 else x)
        y: Any = (
            x["a"] + t % 2 if kind is OnlineForecaster else ["x", "y", True, 4, "z", "w"][t % 6 if t > 30 else t % 2]
        )
        ys.append(None if t in (10, 45) else y)
    return xs, ys


@pytest.mark.parametrize("kind", [OnlineForecaster, OnlineClassifier])
@pytest.mark.parametrize("rule", ["TruncatedBPTT", "RTRL"])
def test_rows_together_are_rows_one_by_one(kind: Any, rule: str) -> None:
    xs, ys = mixed(kind)
    one, whole = (kind(**{**SMALL, "rule": rule}) for _ in range(2))
    for x, y in zip(xs, ys):
        one.learn_one(x, y)
    whole.partial_fit(xs, ys)
    for a, b in zip(one.learner_.cell.parameters(), whole.learner_.cell.parameters()):
        np.testing.assert_allclose(a.detach(), b.detach(), rtol=0, atol=1e-10)
    assert one.rows_.pack() == whole.rows_.pack()
    assert one.num_learned_ == whole.num_learned_ == 60
    if kind is OnlineClassifier:
        assert list(one.labels_) == ["x", "y", True, 4, "z", "w"]


@pytest.mark.parametrize("rule", ["RTRL", "EProp", "UORO"])
def test_bound_steps_are_those_of_online(rule: str) -> None:
    cell = Readout(ElmanCell(2, 3), 1).double()
    online = Online(members("rules")[rule](), MeanSquaredError(), Adam(lr=0.01))
    xs = torch.randn(12, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = Chunk(xs[:1], xs[:1, :, :1])
    start, before = online.init(cell, 1), [p.detach().clone() for p in cell.parameters()]
    found = []
    for way in ("bound", "run"):
        with torch.no_grad():
            for p, value in zip(cell.parameters(), before):
                p.copy_(value)
        state: Any = start
        steps = online.bind(cell, state, one)
        assert isinstance(steps, Bound)
        outputs = []
        for t in range(12):
            chunk = Chunk(xs[t : t + 1], xs[t : t + 1, :, :1])
            if way == "run":
                state, trace = replace(online, native=True).run(cell, state, chunk)
            else:
                if t == 6:  # a state that came from elsewhere
                    state = _pytree.tree_map(torch.clone, state)
                state, trace = steps.run(state, chunk)
            outputs += [*trace]
        found.append([*outputs, *_pytree.tree_leaves(tuple(state)), *(p.detach().clone() for p in cell.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found))
    weighted = one._replace(weights=torch.ones(1, 1).double())
    assert online.bind(cell, start, weighted) == "the chunk has weights or controls"


def test_more_inputs_and_outputs_change_no_answer() -> None:
    model = OnlineClassifier(**SMALL)
    for x, y in labels(30):
        model.learn_one(x, y)
    before = model.predict_proba_one({"a": 1.0, "b": 100.0})
    learner = model.learner_
    assert learner is not None
    moments = learner.state.update
    learner.grow(2 * learner.num_inputs, 2 * learner.num_outputs)
    model._grown()
    assert model.predict_proba_one({"a": 1.0, "b": 100.0}) == pytest.approx(before, abs=1e-12)
    assert float(learner.state.update.num_updates) == float(moments.num_updates) == 30
    model.learn_one({"a": 1.0, "b": 100.0, "c": 3}, "third")
    assert set(model.predict_proba_one({})) == {"up", "down", "third"}


def test_weights_and_sequences() -> None:
    model, same = OnlineForecaster(**SMALL), OnlineForecaster(**SMALL)
    for x, y in numbers(10):
        model.learn_one(x, y)
        same.learn_one(x, y)
    before = [p.detach().clone() for p in model.learner_.cell.parameters()]  # type: ignore[union-attr]
    model.learn_one({"a": 1.0, "b": 100.0}, 4.0, w=0.0)
    same.learn_one({"a": 1.0, "b": 100.0}, 4.0, w=2.0)
    now = [list(m.learner_.cell.parameters()) for m in (model, same)]  # type: ignore[union-attr]
    assert all((a == b).all() for a, b in zip(before, now[0]))
    assert not all((a == b).all() for a, b in zip(before, now[1]))
    model.new_sequence()
    assert model.level_.last == model.level_.mean
    fresh = model.learner_.cell.initial_state(1)  # type: ignore[union-attr]
    assert all((a == b).all() for a, b in zip(model._net_state(), fresh))
    model.learn_one({"a": 1.0, "b": 100.0}, 4.0)
    assert not model.begins_


def test_either_order_of_features_and_value() -> None:
    models = [OnlineForecaster(**SMALL) for _ in range(4)]
    for x, y in numbers(5):
        models[0].learn_one(x, y)
        models[1].learn_one(y, x)
        models[2].learn_one(y=y, x=x)
        models[3].learn_one(np.array(list(x.values())), y)
    assert len({m.forecast(1)[0] for m in models}) == 1


# --- what it can do ---


def test_a_wave_is_forecast() -> None:
    model = OnlineForecaster(cell="GRUCell", hidden_size=8, rule="EProp", lr=0.02)
    wave = np.sin(np.arange(520) / 3)
    model.partial_fit(None, wave[:500])
    ahead = np.array(model.forecast(20))
    assert np.abs(ahead - wave[500:]).mean() < 0.6 * np.abs(wave[499] - wave[500:]).mean()


def test_a_stream_that_changes_is_followed() -> None:
    """After a switch of level and dynamics, the error comes back down; that of a model that stops learning does not."""
    rng = np.random.default_rng(2)
    y = np.zeros(700)
    for t in range(2, 700):
        a, b, level = (1.6, -0.8, 0.0) if t < 350 else (-0.9, 0.0, 40.0)
        y[t] = level + a * (y[t - 1] - level) + b * (y[t - 2] - level) + 0.3 * rng.normal()
    model = OnlineForecaster(**{**SMALL, "memory": 100})
    errors, frozen_errors = [], []
    for t, value in enumerate(y.tolist()):
        errors.append(abs(model.predict_one() - value))
        model.learn_one(value)
        if t == 349:
            frozen = model.clone(include_attributes=True).set_params(lr=0.0)
            frozen.memory = 1e15
            frozen.level_.memory = 1e15
        if t >= 350:
            frozen_errors.append(abs(frozen.predict_one() - value))
            frozen.learn_one(value, w=0.0)
    before, at_once, after = (float(np.mean(errors[a:b])) for a, b in ((250, 350), (350, 360), (600, 700)))
    assert at_once > 2 * before
    assert after < 0.5 * at_once
    assert after < 0.7 * float(np.mean(frozen_errors[250:]))


def test_classes_that_trade_places_are_learned_again() -> None:
    model = OnlineClassifier(**SMALL)
    rows = list(labels(500))
    turned = [(x, {"up": "down", "down": "up"}[y] if t >= 250 else y) for t, (x, y) in enumerate(rows)]
    wrong = learned(model, turned)
    assert np.mean(wrong[200:250]) < 0.15
    assert np.mean(wrong[255:275]) > 0.3
    assert np.mean(wrong[-50:]) < 0.2


def test_memory_does_not_grow() -> None:
    for rule in ("TruncatedBPTT(k1=1, k2=3)", "UORO"):
        model, sizes = OnlineForecaster(**{**SMALL, "rule": rule}), []
        for t, (x, y) in enumerate(numbers(200)):
            model.learn_one(x, y)
            if t in (20, 60, 199):
                sizes.append(model.num_bytes())
        if rule != "UORO":  # machine code: a longer stream
            X, y = np.random.default_rng(1).normal(size=(2, 4000, 2))
            model.partial_fit([{"a": float(a), "b": float(b)} for a, b in X], y[:, 0])
            sizes.append(model.num_bytes())
        assert len(set(sizes)) == 1
        assert 1000 < sizes[0] < 100_000
    assert OnlineForecaster().num_bytes() == 0


def test_one_wrong_reading_moves_little() -> None:
    level = Level(200)
    walk = np.cumsum(np.random.default_rng(0).normal(size=400)).tolist()
    for value in walk[:300]:
        level.learn(value)
    scale, anchor = level.scale, level.anchor()
    level.learn(1e6)
    level.learn(walk[300])
    assert level.scale < 1.3 * scale
    assert abs(level.anchor() - anchor) < 10
    for value in [1e6 + v for v in walk[300:]]:  # a level that stays is believed
        level.learn(value)
    assert abs(level.anchor() - level.last) < 0.02 * 1e6


def test_running_moments_are_those_of_the_rows() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=50)
    rows = Rows("Doc", 1000, 5)
    for v in values:
        rows.learn(rows.look({"v": float(v)}), None)
    assert rows.mean[0] == pytest.approx(values.mean())
    assert rows.var[0] == pytest.approx(values.var())
    rows = Rows("Doc", 20, 5)
    for v in [*values, *(values + 100), *values]:
        rows.learn(rows.look({"v": float(v), "kind": "a"}), None)
    assert abs(rows.mean[0] - values.mean()) < 12
    assert rows.vector(rows.look({"kind": "a"}), 3) == [0.0, 1.0, 0.0]
    assert rows.vector(rows.look({"kind": "b", "new": 1}), 3) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", sorted(n for n, r in members("rules").items() if issubclass(r, LearningRule)))
def test_any_rule_learns_or_says_why_not(name: str) -> None:
    needed = [p for p in inspect.signature(members("rules")[name]).parameters.values() if p.default is p.empty]
    if needed:
        pytest.skip("it cannot be made without arguments")
    model = OnlineForecaster(cell="IndRNNCell", hidden_size=3, rule=name)
    try:
        for x, y in numbers(3):
            model.learn_one(x, y)
    except ValueError as error:
        assert str(error).startswith("OnlineForecaster: ")  # noqa: PT017
        assert "rule" in str(error)  # noqa: PT017
        return
    assert math.isfinite(model.predict_one())


def test_any_cell_learns() -> None:
    cells = [
        name
        for name, kind in members("cells").items()
        if Named(kind, {}).accepts("input_size", "hidden_size")
        and not issubclass(kind, ContinuousCell)  # a time gap too
    ]
    assert len(cells) > 8
    for name in cells:
        model = OnlineForecaster(**{**SMALL, "cell": name})
        model.partial_fit(None, [1.0, 2.0, 1.5])
        assert math.isfinite(model.predict_one()), name


# --- refusals ---


BAD: list[tuple[Any, Any, str]] = [
    ({"a": math.nan}, 1.0, r"x\['a'\] must be finite, got nan\. Leave it out, or give None, if it is missing\."),
    ({"a": -math.inf}, 1.0, r"x\['a'\] must be finite, got -inf"),
    ({"a": 1e200}, 1.0, r"x\['a'\] must be at most 1e150, got 1e\+200"),
    ({"a": [1]}, 1.0, r"x\['a'\] must be a number or a text, got list \[1\]"),
    ({None: 1.0}, 1.0, "the names in x must be texts or whole numbers, got None"),
    ({str(i): 1.0 for i in range(9)}, 1.0, "x must be of at most 8 names .* Leave it out, or raise max_features"),
    ("a,b", 1.0, "x must be a dict of features or numbers"),
    ([[1.0, 2.0]], 1.0, r"x must be \(D,\), got \(1, 2\)\. One row at a time"),
    ([1.0, math.nan], 1.0, r"x\[1\] must be finite, got nan"),
    ({"a": 1.0}, math.nan, "y must be (finite|a label), got nan.*Nothing was learned from this row"),
    ({"a": 1.0}, math.inf, "y must be (finite|a label), got inf"),
    ({"a": 1.0}, [1], "y must be a (number|label.*), got list"),
]


@pytest.mark.parametrize("kind", [OnlineForecaster, OnlineClassifier])
@pytest.mark.parametrize(("x", "y", "text"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_row_is_refused_and_nothing_is_lost(kind: Any, x: Any, y: Any, text: str) -> None:
    model = kind(**{**SMALL, "max_features": 8})
    if kind is OnlineClassifier and y == 1.0:
        y = 1
    model.learn_one({"a": 1.0, "b": 2.0}, y if isinstance(y, int) else 1)
    before = content(model)
    with pytest.raises((ValueError, TypeError), match=f"^{kind.__name__}: " + text):
        model.learn_one(x=x, y=y)
    assert content(model) == before
    if y in (1, 1.0):
        with pytest.raises((ValueError, TypeError)):
            model.predict_one(x)
        assert content(model) == before
    model.learn_one({"a": 1.0, "b": 2.0}, 1)


def test_more_refusals() -> None:
    forecaster, classifier = OnlineForecaster(**SMALL), OnlineClassifier(**SMALL, max_classes=2)
    for text, y in (("y must be a number, got str '1'", "1"), ("y must be a number, got bool", True)):
        with pytest.raises(TypeError, match=text):
            forecaster.learn_one(y)
    with pytest.raises(ValueError, match="w must be finite and not negative, got -1"):
        forecaster.learn_one(1.0, w=-1)
    with pytest.raises(TypeError, match="w must be a number, got '1'"):
        forecaster.learn_one(1.0, w="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        forecaster.forecast(0)
    with pytest.raises(ValueError, match=r"xs must be features of 2 rows, got 1\. One for each step ahead"):
        forecaster.forecast(2, [{}])
    forecaster.learn_one([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match=r"x must be \(2,\), got \(3,\)"):
        forecaster.learn_one([1.0, 2.0, 3.0], 1.0)
    with pytest.raises(ValueError, match=r"y must be a label, got 0\.5\. OnlineForecaster learns numbers"):
        classifier.learn_one({}, 0.5)
    for label in "ab":
        classifier.learn_one({}, label)
    with pytest.raises(ValueError, match=r"y must be one of the 2 labels seen so far, got 'c'\. Raise max_classes"):
        classifier.learn_one({}, "c")
    for arguments, text in (
        ({"lr": -1}, "lr must be finite and not negative, got -1"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"memory": 1}, "memory must be at least 2 rows, got 1"),
        ({"optimizer": "adam"}, "optimizer must be one of 'Adam', 'SGD', 'momentum', got 'adam'"),
        ({"rule": "BPTT"}, "rule must be a rule that carries the state of the net from step to step, got BPTT"),
        ({"rule": "EvolutionStrategy"}, "rule must be a rule that learns from single steps"),
        ({"cell": "Stack"}, "cell must be a cell that is built from"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
    ):
        with pytest.raises((ValueError, TypeError), match="OnlineForecaster: " + text):
            OnlineForecaster(**{**SMALL, **arguments}).learn_one(1.0)


@pytest.mark.parametrize("num", [20, 130])
def test_a_net_that_diverges_stays_as_it_was(num: int) -> None:
    """In the readable loop and in machine code."""
    model = OnlineForecaster(
        cell="IndRNNCell(activation='relu')", hidden_size=4, rule="TruncatedBPTT", optimizer="SGD", lr=0.01
    )
    values = [float(v) for v in np.random.default_rng(0).normal(size=160)]
    for value in values[:num]:
        model.learn_one(value)
    before = content(model)
    model.set_params(lr=1e308)
    with pytest.raises(
        FloatingPointError,
        match=r"must be finite, got .* The net is as it was before\. Try a smaller lr, or new_sequence",
    ):
        model.partial_fit(None, values[num : num + 30])
    assert content(model) == before
    assert isinstance(model.learner_.fast, Bound) == (num > 100)  # type: ignore[union-attr]
    model.set_params(lr=0.01).learn_one(values[num])


# --- folders ---


@pytest.mark.parametrize("rule", ["SnAp(n=1)", "UORO"])
def test_a_loaded_model_goes_on_bit_for_bit_in_machine_code(rule: str, tmp_path: Path) -> None:
    """Saved before the net is compiled and after it; a row with a weight and a new sequence on the way."""
    model = OnlineForecaster(**{**SMALL, "rule": rule, "lr": 0.001})
    rows = list(numbers(150))
    for t, (x, y) in enumerate(rows[:140]):
        model.learn_one(x, y)
        if t in (60, 120):
            model.save(tmp_path / str(t))
    for t in (60, 120):
        other = OnlineForecaster.load(tmp_path / str(t))
        for x, y in rows[t + 1 : 140]:
            other.learn_one(x, y)
        assert content(other) == content(model)
    assert isinstance(model.learner_.fast, Bound)  # type: ignore[union-attr]
    copied = pickle.loads(pickle.dumps(model))
    for m in (model, other, copied):
        m.learn_one(*rows[140][::-1], w=2.0)
        m.new_sequence()
        for x, y in rows[141:]:
            m.learn_one(x, y)
    assert content(other) == content(model) == content(copied)


@pytest.mark.parametrize("rule", ["TruncatedBPTT(k1=1, k2=3)", "RTRL", "UORO", "SnAp(n=1)"])
def test_a_loaded_model_goes_on_bit_for_bit(rule: str, tmp_path: Path) -> None:
    for kind, rows in ((OnlineForecaster, list(numbers(24))), (OnlineClassifier, list(labels(24)))):
        folder = tmp_path / kind.__name__
        model: Any = kind(**{**SMALL, "rule": rule, "optimizer": "Adam" if rule == "UORO" else "momentum", "lr": 0.001})
        for x, y in rows[:15]:
            model.learn_one(x, y)
        model.record_ = {"said": "hello"}
        model.save(folder)
        other: Any = load_estimator(folder)
        assert type(other) is kind
        assert other.record_ == {"said": "hello"}
        for m in (model, other):
            for x, y in rows[15:]:
                m.learn_one(x | {"new": "cat"}, y)
        assert content(model) == content(other)
        model.save(folder)
        assert len(list(folder.iterdir())) == 2
        assert content(kind.load(folder)) == content(model)


def test_an_interrupted_save_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.estimators.online import estimator

    model = OnlineForecaster(**SMALL).partial_fit(None, [1.0, 2.0, 3.0])
    model.save(tmp_path)
    before = content(model)
    model.learn_one(5.0)

    def broken(path: Path, data: bytes | str) -> None:
        if path.name == "config.json":
            raise KeyboardInterrupt
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    monkeypatch.setattr(estimator, "write_atomically", broken)
    with pytest.raises(KeyboardInterrupt):
        model.save(tmp_path)
    monkeypatch.undo()
    assert content(OnlineForecaster.load(tmp_path)) == before
    model.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    model = OnlineClassifier(**SMALL)
    with pytest.raises(NotFittedError):
        model.save(tmp_path)
    for x, y in labels(5):
        model.learn_one(x, y)
    model.save(tmp_path)
    good = (tmp_path / "config.json").read_text()
    weights = next(tmp_path.glob("model-*"))

    def refused(text: str, **changes: str) -> None:
        changed = good
        for old, new in changes.items():
            assert re.search(old, changed)
            changed = re.sub(old, new, changed, count=1)
        (tmp_path / "config.json").write_text(changed)
        with pytest.raises((ValueError, FileNotFoundError), match="OnlineClassifier: .*" + text):
            OnlineClassifier.load(tmp_path)
        (tmp_path / "config.json").write_text(good)

    refused("does not say which file", **{'"model-': '"../model-'})
    refused("without model-0+", **{'"model-[0-9a-f]*': '"model-0000000000000000'})
    refused("kind is 'online_forecaster'", online_classifier="online_forecaster")
    refused("its sizes are not those", **{'"num_inputs": [0-9]+': '"num_inputs": 100000'})
    refused("its sizes are not those", **{'"hidden_size": 4': '"hidden_size": 400000'})
    refused("its weights are not those", **{'"hidden_size": 4': '"hidden_size": 5'})
    refused("labels do not fit", **{'"last": [0-9]': '"last": 7'})
    refused("lr must be", **{'"lr": 0.01': '"lr": "x"'})
    refused("an argument 'speed'", **{'"lr"': '"speed"'})
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="its checksum is not the one"):
        OnlineClassifier.load(tmp_path)
    with pytest.raises(ValueError, match="device must be 'auto' or 'cpu', got 'cuda'"):
        OnlineClassifier.load(tmp_path, device="cuda")
