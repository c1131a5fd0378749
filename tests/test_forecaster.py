"""The forecaster: what it takes, what it hands back, what it refuses; its measures, seasons and windows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recurra.core.tree import leaves
from recurra.datasets.series import SeriesSet
from recurra.estimators import Forecaster, load_estimator
from recurra.estimators.forecasting import coverage, find_seasons, mae, mase, pinball_loss, rmse, smape
from recurra.estimators.forecasting.baselines import METHODS, answer
from recurra.estimators.forecasting.calendar import features, natural_periods
from recurra.estimators.forecasting.decide import decide
from recurra.estimators.forecasting.evaluation import naive_of
from recurra.estimators.forecasting.measures import naive_error
from recurra.estimators.forecasting.windows import Prepared, Setup

SMALL: dict[str, Any] = {"hidden_size": 6, "num_updates": 12, "batch_size": 16, "horizon": 4}


def wave(length: int = 120, period: int = 12, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.sin(2 * np.pi * np.arange(length) / period) + 0.05 * random.normal(size=length)


def frame(length: int = 120) -> Any:
    import pandas as pd

    index = pd.date_range("2024-01-01", periods=length, freq="D", name="day")
    return pd.DataFrame({"a": wave(length), "b": wave(length, 7, 1)}, index=index)


# --- forms of data ---


@pytest.mark.parametrize("variables", ["separate", "joint"])
def test_shapes_follow_the_data(variables: str) -> None:
    assert Forecaster(**SMALL).fit(wave()).predict().shape == (4,)
    model = Forecaster(variables=variables, **SMALL).fit(np.stack([wave(), wave(seed=1)], 1))
    assert model.predict().shape == (4, 2)
    assert model.predict(np.stack([wave(50), wave(50)], 1), horizon=2).shape == (2, 2)
    many = Forecaster(variables=variables, **SMALL).fit([wave(60), wave(100), wave(9)])
    assert many.predict().shape == (3, 4)
    found = many.forecast([wave(30), wave(3)])
    assert found.quantiles.shape == (2, 4, 1, 3)
    assert np.isfinite(found.quantiles).all()
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()


def test_frames_go_on_in_time() -> None:
    data = frame()
    model = Forecaster(**SMALL).fit(data)
    out = model.predict()
    assert list(out.columns) == ["a", "b"]
    assert [str(t.date()) for t in out.index] == ["2024-04-30", "2024-05-01", "2024-05-02", "2024-05-03"]
    long = data.reset_index().melt("day", var_name="which", value_name="y")
    model = Forecaster(series="which", target="y", **SMALL).fit(long)
    assert set(model.predict()["series"]) == {"a", "b"}
    assert model.forecast().interval is not None
    with pytest.raises(ValueError, match=r"the targets must be a, b, got a, c"):
        Forecaster(**SMALL).fit(data).predict(data.rename(columns={"b": "c"}))


def test_a_file_and_its_notes(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    frame().sample(frac=1, random_state=0).to_csv(path)
    model = Forecaster(**SMALL).fit(path)
    assert "The rows were not in the order of time: they were sorted." in model.notes_
    assert model.forecast(path).times is not None


def test_scikit_learn_clones_it() -> None:
    from sklearn.base import clone

    model = Forecaster(cell="LSTMCell", quantiles=(0.2, 0.8))
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    with pytest.raises(ValueError, match="Did you mean horizon"):
        model.set_params(horizn=3)


# --- learning ---


def test_it_learns_a_season_and_says_so() -> None:
    data = 10 + wave(240) + 0.02 * np.arange(240)
    model = Forecaster(horizon=12, hidden_size=16, num_updates=150, lr=5e-3).fit(data[:-12])
    assert model.season_ == 12
    assert any("Season: 12 steps" in note for note in model.notes_)
    assert model.evaluation_["mae"] < model.evaluation_["seasonal_naive"]["mae"]
    assert model.score(data) > 0.3


def test_known_covariates_are_used_and_needed() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(160, 1))
    y = 2 * x[:150, 0] + 0.01 * random.normal(size=150)
    options = {**SMALL, "num_updates": 250, "hidden_size": 16, "lr": 5e-3, "season": 1}
    with_x = Forecaster(**options).fit(y, known=x)
    without = Forecaster(**options).fit(y)
    assert with_x.evaluation_["mae"] < 0.5 * without.evaluation_["mae"]
    assert with_x.predict().shape == (4,)
    with pytest.raises(ValueError, match=r"known of series '#1' must be given for 4 steps beyond the values, got 0"):
        with_x.predict(y, known=x[:150])
    with pytest.raises(ValueError, match=r"known must be 1 covariates as in the training, got 0"):
        with_x.predict(y)


def test_missing_values_are_masked() -> None:
    data = wave(200)
    data[::7] = np.nan
    data[40:60] = np.nan
    model = Forecaster(past=(), **SMALL).fit(data, past=np.where(np.isnan(data), np.nan, 1.0))
    assert np.isfinite(model.predict()).all()
    assert any("are missing: they are masked" in note for note in model.notes_)


@pytest.mark.parametrize("options", [
    {"cell": "LSTMCell(peephole=True)", "engine": "Hoisted"},
    {"cell": "ElmanCell", "num_layers": 2, "decoder": "direct"},
    {"rule": "TruncatedBPTT"},
    {"horizons": "recursive", "segment": 1},
    {"horizons": "recursive", "quantiles": ()},
    {"num_members": 3, "linear": False},
    {"transform": "log1p", "scaling": "series", "level": "season", "window_scale": "std"},
    {"loss": "huber", "level": "mean", "window_scale": "change", "base": "season"},
    {"loss": "mse", "level": "none", "scaling": "none", "calendar": ()},
    {"window": 30, "segment": 7, "validation": None},
    {"cell": "LSTMCell(projection_size=3)", "num_layers": 2},
    {"cell": "LSTMCell(projection_size=3)", "num_layers": 2, "decoder": "direct"},
    {"cell": "LSTMCell(projection_size=3)", "num_layers": 2, "rule": "TruncatedBPTT(k1=2)"},
])  # fmt: skip
def test_every_choice_fits_saves_and_loads(tmp_path: Path, options: dict[str, Any]) -> None:
    data = [5 + wave(90), 5 + wave(70, seed=3)]
    model = Forecaster(**{**SMALL, "season": 12, **options}).fit(data)
    before = model.forecast()
    model.save(tmp_path)
    again = load_estimator(tmp_path)
    assert isinstance(again, Forecaster)
    after = again.forecast()
    np.testing.assert_array_equal(before.point, after.point)
    np.testing.assert_array_equal(before.quantiles, after.quantiles)
    np.testing.assert_allclose(again.predict(data), before.point[..., 0], rtol=1e-4, atol=1e-5)
    assert again.notes_ == model.notes_
    assert repr(again) == repr(model)
    assert model.forecast(horizon=9).point.shape == (2, 9, 1)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    whole = Forecaster(**SMALL).fit(wave(), folder=tmp_path / "whole")
    half = Forecaster(**SMALL)
    half.fit(wave(), folder=tmp_path / "whole2", on_progress=lambda p: None)
    np.testing.assert_array_equal(half.predict(), whole.predict())
    again = Forecaster(**SMALL).fit(wave(), folder=tmp_path / "whole", resume=True)
    np.testing.assert_array_equal(again.predict(), whole.predict())
    with pytest.raises(FileExistsError):
        Forecaster(**SMALL).fit(wave(), folder=tmp_path / "whole")


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    Forecaster(**SMALL).fit(wave()).save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["fitted"]["setup"]["window"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json is damaged or foreign"):
        Forecaster.load(tmp_path)


# --- refused ---


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "got nothing"),
        (np.full(30, np.nan), "must be a series with values, got only missing ones"),
        (np.array([1.0, np.inf, 2.0]), "must be finite numbers"),
        ([np.ones((5, 2)), np.ones((5, 3))], r"series #2 must be \(T, 2\) like the first"),
        (np.ones((2, 2, 2)), r"data must be \(T,\) or \(T, C\)"),
        (np.ones(2), "at least 3 values"),
        ([np.ones(0)], "got nothing"),
        (np.stack([wave(), np.full(120, np.nan)], 1), "variable 2 must be one with values, got only missing ones"),
        (
            1e300 * wave(),
            r"numbers of a size between 1e-100 and 1e\+100, or 0, got .*e\+300\. Give them in another unit",
        ),
        (1e-300 * wave(), "numbers of a size between"),
        ({"1": wave(), 1: wave()}, "series of different names, got '1' twice"),
    ],
)
def test_bad_data_in_a_sentence(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^Forecaster: .*{message}"):
        Forecaster(**SMALL).fit(data)


@pytest.mark.parametrize("data", [wave() + 1j, ["a"] * 9, np.zeros(9, "datetime64[D]"), {1, 2}, [10**400] * 9])
def test_data_that_are_no_numbers(data: Any) -> None:
    with pytest.raises(TypeError, match=r"^Forecaster: data must be numbers"):
        Forecaster(**SMALL).fit(data)


def test_covariates_of_other_series() -> None:
    data = {"a": wave(), "b": wave()}
    with pytest.raises(ValueError, match="known must be given for every series, got none for 'b'"):
        Forecaster(**SMALL).fit(data, known={"a": np.ones(124)})
    with pytest.raises(TypeError, match="known must be a dict like the data, got list"):
        Forecaster(**SMALL).fit(data, known=[np.ones(124)] * 2)


@pytest.mark.parametrize("options", [{"quantiles": None}, {"quantiles": "0.5"}, {"known": "price"}, {"past": None}])
def test_arguments_that_are_no_lists(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"^Forecaster: {next(iter(options))} must be a list of"):
        Forecaster(**{**SMALL, **options}).fit(wave())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"horizon": 0}, "horizon"),
        ({"quantiles": (0.9, 0.1)}, "quantiles"),
        ({"loss": "smape"}, "loss"),
        ({"cell": "AffineCell"}, "cell"),
        ({"rule": "EvolutionStrategy"}, "rule"),
        ({"validation": 0}, "validation"),
        ({"validation": 2}, "validation"),
        ({"calendar": "hour"}, "calendar"),
        ({"calendar": ("hour",)}, "calendar"),
        ({"segment": 50, "window": 10}, "segment"),
        ({"transform": "log"}, "transform"),
        ({"base": "season", "season": 1}, "base"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": "much"}, "dropout"),
        ({"dropout": None}, "dropout"),
        ({"cell": "GRUCell(hidden_size=3)"}, "cell"),
        ({"cell": "GRUCell(device='cuda')"}, "cell"),
    ],
)
def test_bad_arguments_in_a_sentence(options: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^Forecaster: {name} must be .*, got "):
        Forecaster(**{**SMALL, **options}).fit(wave())


def test_an_unfitted_model_says_so() -> None:
    with pytest.raises(ValueError, match="fitted first"):
        Forecaster().predict()


@pytest.mark.parametrize(
    "data", [np.ones(40), np.zeros(40), 1e12 + np.arange(40.0), 1e-9 * wave(40), np.arange(5.0), np.arange(10.0, 60.0)]
)
def test_odd_series_still_give_numbers(data: np.ndarray) -> None:
    model = Forecaster(hidden_size=4, num_updates=5).fit(data)
    out = model.forecast()
    assert np.isfinite(out.point).all()
    assert np.isfinite(out.quantiles).all()


@settings(max_examples=40)
@given(
    data=st.lists(
        hnp.arrays(
            np.float64,
            st.integers(0, 25),
            elements=st.one_of(
                st.just(math.nan), st.sampled_from([0.0, 1.0, -1.0, 1e9]), st.floats(-1e120, 1e120), st.just(math.inf)
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    horizon=st.sampled_from([None, 1, 3]),
    horizons=st.sampled_from(["direct", "recursive"]),
)
def test_any_numbers(data: list[np.ndarray], horizon: int | None, horizons: str) -> None:
    """Any series end in finite forecasts or in one sentence."""
    model = Forecaster(horizon, horizons=horizons, hidden_size=2, num_updates=1, num_paths=5)
    try:
        found = model.fit(data).forecast()
    except ValueError as error:
        assert " must be " in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert np.isfinite(found.point).all()
    assert np.isfinite(found.quantiles).all()
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    assert model.notes_


@pytest.mark.parametrize("unit", [1e-13, 1e-30, 1e90])
def test_the_unit_of_the_values_does_not_matter(unit: float) -> None:
    plain = Forecaster(**SMALL).fit(wave()).predict()
    np.testing.assert_allclose(Forecaster(**SMALL).fit(unit * wave()).predict() / unit, plain, rtol=1e-3, atol=1e-3)


@settings(max_examples=30)
@given(
    history=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 3)),
        elements=st.one_of(st.just(math.nan), st.floats(-1e6, 1e6)),
    ),
    period=st.integers(1, 5),
    horizon=st.integers(1, 7),
)
def test_naive_forecasts_of_many_variables(history: np.ndarray, period: int, horizon: int) -> None:
    point, errors = naive_of(history, horizon, period)
    for c in range(history.shape[1]):
        np.testing.assert_array_equal(point[:, c], answer("seasonal naive", history[:, c], horizon, period, ())[0])
        np.testing.assert_allclose(errors[c], naive_error(history[:, c], period), rtol=1e-12)


def test_very_many_variables() -> None:
    data = np.random.default_rng(0).normal(size=(8, 4_000))
    model = Forecaster(horizon=1, window=3, hidden_size=2, num_updates=1).fit(data)
    assert model.predict().shape == (1, 4_000)
    with pytest.raises(
        ValueError, match=r"variables must be 'separate' for 4,000 variables, got a net of [0-9,]+ weights"
    ):
        Forecaster(horizon=2, variables="joint", num_updates=1, hidden_size=20_000).fit(data)
    with pytest.raises(
        ValueError, match=r"must be 'separate' for more than 100,000 of them, got 'joint' for 1,000,000"
    ):
        Forecaster(horizon=1, variables="joint", num_updates=1).fit(np.ones((3, 1_000_000)))


def test_values_that_the_net_cannot_hold() -> None:
    with pytest.raises(
        ValueError, match=r"scaling must be 'series' or 'global' for values above 1e\+15, .*, got 'none' for"
    ):
        Forecaster(**SMALL, scaling="none").fit(1e40 * wave())
    model = Forecaster(**SMALL, transform="none").fit(wave())
    with pytest.raises(ValueError, match="data must be of about the size of the training data, got values so far away"):
        model.predict(1e60 * wave())


@pytest.mark.parametrize("value", [0.0, 1e-6, -3.3])
def test_a_constant_series_stays_what_it_is(value: float) -> None:
    model = Forecaster(horizon=5, hidden_size=4, num_updates=60).fit(np.full(60, value))
    np.testing.assert_allclose(model.predict(), value, rtol=0.05, atol=0.05 if value == 0 else 0)
    assert any("never change" in note for note in model.notes_)
    assert np.isnan(model.evaluation_["mase"])  # there is no error of the naive forecast to compare with
    assert np.isnan(model.score(np.full(60, value)))


def test_tensors_are_arrays() -> None:
    import torch

    plain = Forecaster(**SMALL).fit(wave()).predict()
    np.testing.assert_array_equal(Forecaster(**SMALL).fit(torch.tensor(wave(), requires_grad=True)).predict(), plain)


def test_frames_with_odd_indices() -> None:
    import pandas as pd

    values = wave(40)
    texts = pd.Index([f"2024-01-{d:02d}" for d in range(1, 32)] + [f"2024-02-{d:02d}" for d in range(1, 10)])
    for index in (texts, pd.Index(np.arange(1900, 1940), name="year"), pd.date_range("2024", periods=40, freq="100ms")):
        mixed = pd.DataFrame({"y": values}, index=index).sample(frac=1, random_state=0)
        model = Forecaster(**SMALL).fit(mixed)
        assert "The rows were not in the order of time: they were sorted." in model.notes_
        assert model.setup_.targets == ("y",)
    levels = pd.MultiIndex.from_product([["a", "b"], range(20)])
    with pytest.raises(ValueError, match=r"must be a frame with one index, got an index of 2 levels\. reset_index\(\)"):
        Forecaster(**SMALL).fit(pd.DataFrame({"y": values}, index=levels))
    with pytest.raises(ValueError, match="different names, got 'day' twice"):
        Forecaster(**SMALL).fit(frame().assign(day=1.0))
    with pytest.raises(TypeError, match="column 'y' must be real numbers, got complex ones"):
        Forecaster(**SMALL).fit(pd.DataFrame({"y": values + 1j}))
    infinite = Forecaster(**SMALL).fit(pd.DataFrame({"y": np.where(np.arange(40) == 3, np.inf, values)}))
    assert "1 values of column 'y' are infinite: they count as missing." in infinite.notes_


def test_missing_covariates_are_said() -> None:
    known = np.where(np.arange(124) % 10 == 0, np.nan, 1.0)
    model = Forecaster(**SMALL).fit(wave(), known=known)
    assert "13 values of covariates are missing: they count as the means of their columns." in model.notes_


def test_columns_have_no_meaning_beside_arrays() -> None:
    for options, message in (
        ({"target": "y"}, r"target must be None for arrays, got 'y'"),
        ({"known": ("price",)}, r"known must be \(\) for arrays, got \('price',\). Hand them to fit"),
    ):
        with pytest.raises(ValueError, match=message):
            Forecaster(**SMALL, **options).fit(wave())


def test_what_was_decided_is_told() -> None:
    text = " ".join(Forecaster(**SMALL).fit(wave(60)).notes_)
    assert "Normalisation: all values by the mean and spread of the training part; each window less its last" in text
    assert "Held out: the last 6 steps of the series" in text
    text = " ".join(Forecaster(**SMALL, validation=None).fit([wave(60), wave(60)]).notes_)
    assert "each series by its mean and spread" in text
    assert "Held out: nothing." in text
    text = " ".join(Forecaster(**{**SMALL, "horizon": 50}).fit(wave(40)).notes_)
    assert "Held out: nothing (no series is long enough)" in text
    assert "what is forecast for more than 39 steps ahead was never learned" in text
    assert "Season: none was found." in Forecaster(**SMALL).fit(np.arange(60.0)).notes_


def test_every_way_to_go_on_with_covariates() -> None:
    """Known and past covariates, the calendar and several variables, direct and recursive, beyond the horizon too."""
    import pandas as pd

    random = np.random.default_rng(0)
    whole = frame(160).assign(price=random.normal(size=160), rain=random.normal(size=160))
    past_only = whole.copy()
    past_only.loc[past_only.index[150:], ["a", "b", "rain"]] = np.nan
    for horizons in ("direct", "recursive"):
        for variables in ("separate", "joint"):
            model = Forecaster(
                **SMALL, target=("a", "b"), known=("price",), past=("rain",), horizons=horizons, variables=variables,
                calendar=("weekday",), num_paths=10,
            ).fit(past_only)  # fmt: skip
            for horizon in (3, 4, 9):
                found = model.forecast(past_only, horizon)
                assert found.point.shape == (1, horizon, 2)
                assert np.isfinite(found.quantiles).all()
                assert found.times is not None
                assert found.times[0][-1] == np.datetime64(whole.index[149 + horizon], "s")
            with pytest.raises(ValueError, match="must be given for 11 steps beyond the values, got 10"):
                model.forecast(past_only, 11)
            changed = past_only.copy()
            changed.loc[changed.index[150:], "price"] += 5.0
            assert not np.allclose(model.forecast(changed, 4).point, model.forecast(past_only, 4).point)
    again = pd.DataFrame(model.predict(past_only))
    assert list(again.columns) == ["a", "b"]


def test_a_backtest_takes_covariates_beside_arrays() -> None:
    x = np.random.default_rng(0).normal(size=(104, 1))
    y = 2 * x[:100, 0]
    options = {**SMALL, "num_updates": 120, "hidden_size": 16, "lr": 5e-3, "season": 1}
    model = Forecaster(**options).fit(y, known=x)
    for refit in ("once", "never"):
        found = model.backtest(y, known=x, num_origins=2, refit=refit, baselines=("last value",))
        assert found["Forecaster"]["mae"] < 0.5 * found["last value"]["mae"]
    with pytest.raises(ValueError, match="known must be 1 covariates as in the training, got 0"):
        model.backtest(y, refit="never")


def test_other_steps_in_time_are_refused() -> None:
    model = Forecaster(**SMALL, calendar=()).fit(frame())
    hours = frame().set_axis(frame().index[0] + np.arange(120) * np.timedelta64(1, "h"))
    with pytest.raises(ValueError, match=r"data must be timestamps 1 day apart as in the training, got 1 hour\."):
        model.predict(hours)
    assert model.predict(frame().iloc[[3, 4, 7, 8, 9]]).shape == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0}, "start must be at least 1, got 0"),
        ({"start": 2.5}, "start must be a whole number, got 2.5"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"start": 500}, "data must be a series longer than the horizon"),
    ],
)
def test_places_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Forecaster(**SMALL).fit(wave()).evaluate(wave(), **options)


def test_a_backtest_of_missing_values() -> None:
    data = np.where(np.arange(120) % 4 == 1, np.nan, wave())
    found = Forecaster(**SMALL).backtest(data, num_origins=2, baselines=("last value",))
    assert np.isnan(found.by_step).sum() == 1
    assert np.isfinite(found["Forecaster"]["mae"])
    with pytest.raises(
        ValueError, match="backtest: data must be values in the last 4 steps, to compare with, got only"
    ):
        Forecaster(**SMALL).backtest(np.where(np.arange(120) > 115, np.nan, wave()), num_origins=1)


def test_a_baseline_that_fails_is_said() -> None:
    model = Forecaster(**SMALL)
    data = {"short": wave(12), "constant": np.ones(40), "long": wave(60)}
    note = model.backtest(data, num_origins=1, baselines=("ETS", "ARIMA", "seasonal naive")).note
    assert "In 1 of 3 cases ETS failed: seasonal naive there." in note
    assert "In 1 of 3 cases ARIMA failed" in note
    assert "cases seasonal naive" not in note


# --- inside ---


def test_scalers_see_the_training_part_only() -> None:
    data = wave(100)
    changed = data.copy()
    changed[-10:] += 1e6
    setups = []
    for values in (data, changed):
        model = Forecaster(horizon=5, validation=10, transform="none")
        series = model.read(values)[0]
        setups.append(decide(model, series, [])[0].to_json())
    assert setups[0] == setups[1]
    assert Setup.from_json(setups[0]).to_json() == setups[0]


@settings(max_examples=40)
@given(st.data())
def test_windows_restore_what_they_normalised(data: st.DataObject) -> None:
    """Undoing the normalisation of the target gives the target, for every way of normalising; and no window sees ahead."""
    draw = data.draw
    options = {
        "level": draw(st.sampled_from(["last", "mean", "season", "none"])),
        "window_scale": draw(st.sampled_from(["std", "change", "none"])),
        "scaling": draw(st.sampled_from(["none", "global", "series"])),
        "transform": draw(st.sampled_from(["none", "log", "log1p"])),
        "base": draw(st.sampled_from(["season", "none"])),
        "variables": draw(st.sampled_from(["separate", "joint"])),
    }
    random = np.random.default_rng(draw(st.integers(0, 99)))
    values = [random.uniform(1, 9, (n, 2)) for n in (40, 23)]
    values[0][random.random((40, 2)) < 0.2] = np.nan
    model = Forecaster(horizon=5, window=12, segment=4, season=4, quantiles=(), **options)
    series = model.read(values)[0]
    setup, _ = decide(model, series, [])
    prepared = Prepared(setup, series)
    which, ends = np.array([0, 0, 1, 1]), np.array([30, 7, 15, 3])
    row, target, normal = prepared.gather(which, ends)
    back = prepared.restore(target.value[0].numpy()[..., None].astype(float), normal, which)[..., 0]
    actual = np.stack([series.values[i][e : e + 5] for i, e in zip(which, ends)])
    there = np.isfinite(actual)
    np.testing.assert_allclose(back[there], actual[there], rtol=2e-4)
    later = SeriesSet(
        series.names, series.targets, tuple(np.concatenate([v[:e], v[e:] * 7 + 1]) for v, e in zip(series.values, (30, 15))),
        series.known, series.past,
    )  # fmt: skip
    other, _, _ = Prepared(setup, later).gather(which, ends)
    for a, b in zip(leaves(tuple(row)), leaves(tuple(other))):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_seasons() -> None:
    random = np.random.default_rng(0)
    t = np.arange(24 * 70)
    assert find_seasons([wave(300, 7), wave(200, 7, 1)])[0].period == 7
    day = np.sin(2 * np.pi * t / 24) + 2 * (t // 24 % 7 >= 5) + 0.1 * random.normal(size=len(t))
    assert [s.period for s in find_seasons([day], natural=[24, 168])] in ([24, 168], [168])
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=300)
        assert find_seasons([noise]) == []
        assert find_seasons([noise.cumsum()]) == []
    assert find_seasons([]) == []
    assert find_seasons([np.ones(100), np.full(100, np.nan)]) == []


@pytest.mark.parametrize("kind", ["noise", "alternating", "walk", "walk with noise", "drift"])
def test_a_season_is_not_seen_where_there_is_none(kind: str) -> None:
    """At most one set of fifty by the test's own bound; 150 sets of each kind, with and without a calendar."""
    seen = 0
    for seed in range(50):
        for steps in (24, 40, 60):
            x = np.random.default_rng(seed).normal(size=steps)
            made = {
                "noise": x,
                "alternating": x[1:] - 0.5 * x[:-1],
                "walk": x.cumsum(),
                "walk with noise": x.cumsum() + np.random.default_rng(seed + 1000).normal(size=steps),
                "drift": (x + 0.3).cumsum(),
            }
            seen += bool(find_seasons([made[kind]], natural=[12] if seed % 2 else []))
    assert seen <= 5


def test_a_second_season_is_not_seen_where_there_is_one() -> None:
    """Every multiple of the first has nearly the same autocorrelation, and one of them the highest."""
    seen = 0
    for seed in range(40):
        t = np.arange(200)
        seen += len(find_seasons([np.sin(2 * np.pi * t / 7) + 0.5 * np.random.default_rng(seed).normal(size=200)])) > 1
    assert seen <= 2
    t = np.arange(24 * 7 * 6)
    week = np.sin(2 * np.pi * t / 24) * (1 + 2 * (t // 24 % 7 >= 5)) + 0.3 * np.random.default_rng(0).normal(
        size=len(t)
    )
    assert [s.period for s in find_seasons([week], natural=[24, 168])] in ([24, 168], [168])


def test_true_seasons_are_seen() -> None:
    from statsmodels.datasets import co2, sunspots

    spots = sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    for part in (spots, spots[-100:], np.sqrt(spots)):
        assert find_seasons([part])[0].period in (10, 11)
    months = co2.load_pandas().data["co2"].resample("MS").mean().to_numpy()
    for part in (months, months[-48:]):
        assert [s.period for s in find_seasons([part])] == [12]
    assert [s.period for s in find_seasons([months[-36:]], natural=[12])] == [12]
    t = np.arange(400)
    for period, steps, spread in ((7, 40, 0.3), (12, 60, 0.5), (12, 200, 0.7), (24, 100, 0.5), (50, 400, 0.5)):
        x = np.sqrt(2) * np.sin(2 * np.pi * t[:steps] / period) + spread * np.random.default_rng(0).normal(size=steps)
        assert abs(find_seasons([x])[0].period - period) <= max(1, period // 10), (period, steps)
    many = [np.random.default_rng(i).normal(size=30) + np.array([0, 2, 1])[t[:30] % 3] for i in range(8)]
    assert find_seasons(many)[0].period % 3 == 0


def test_calendar() -> None:
    from recurra.datasets.timestamps import Step

    assert natural_periods(Step(900, "s"))[:2] == [96, 672]
    assert natural_periods(Step(1, "M")) == [12]
    weekday = features(np.array(["2024-01-01", "2024-01-08", "2024-01-02"], "datetime64[s]"), ["weekday"])
    np.testing.assert_allclose(weekday[0], [0, 1], atol=1e-9)  # a Monday
    np.testing.assert_allclose(weekday[0], weekday[1], atol=1e-9)
    assert abs(weekday[0] - weekday[2]).max() > 0.1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_measures(values: list[float]) -> None:
    actual = np.array(values)
    assert smape(actual, actual) == mae(actual, actual) == rmse(actual, actual) == 0
    assert smape(actual, -actual) <= 200 + 1e-9
    assert coverage(actual, actual - 1, actual + 1) == 1
    assert pinball_loss(actual, np.stack([actual] * 2, -1), (0.1, 0.9)) == 0
    median = pinball_loss(actual, (actual + 3)[:, None], (0.5,))
    np.testing.assert_allclose(median, 1.5)
    holed = np.append(actual, np.nan)
    np.testing.assert_allclose(mae(holed, np.zeros(len(holed))), mae(actual, np.zeros(len(actual))))


def test_measures_refuse_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^smape: forecast must be of the shape of actual, \(2,\), got \(3,\)"):
        smape([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"^mae: actual must be at least one value"):
        mae([np.nan], [1.0])
    with pytest.raises(ValueError, match=r"^mase: period must be"):
        mase([1.0], [1.0], [1.0, 2.0], 0)
    with pytest.raises(ValueError, match=r"^pinball_loss: levels must be"):
        pinball_loss([1.0], [[1.0]], [1.5])
    assert np.isnan(mase([1.0], [2.0], [3.0, 3.0]))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_baselines_answer_anything(name: str) -> None:
    histories = [
        wave(60),
        np.exp(wave(60) + 0.05 * np.arange(60)),
        np.ones(30),
        np.array([1.0]),
        np.array([np.nan, 2.0] * 20),
    ]
    for history in histories:
        point, quantiles = answer(name, history, 6, 12, (0.1, 0.9))
        assert point.shape == (6,)
        assert quantiles.shape == (6, 2)
        assert np.isfinite(quantiles).all()
    point, _ = answer(name, wave(120), 12, 12, ())
    if name != "last value":
        assert mae(wave(132)[120:], point) < 0.3


@pytest.mark.parametrize("refit", ["once", "each", "never"])
def test_backtest(refit: str) -> None:
    data = [wave(90), wave(80, seed=1), wave(6)]
    model = Forecaster(**SMALL).fit(data)
    found = model.backtest(data, num_origins=2, refit=refit, baselines=("seasonal naive", "last value"))
    assert [row["method"] for row in found.rows] == ["Forecaster", "seasonal naive", "last value"]
    assert found["seasonal naive"]["mae"] < found["last value"]["mae"]
    assert found.by_step.shape == (4,)
    assert found.worst[0]["smape"] >= found.worst[-1]["smape"]
    assert list(found.to_frame().index) == ["Forecaster", "seasonal naive", "last value"]
    with pytest.raises(ValueError, match="a series longer than the horizon"):
        model.backtest(wave(5), refit="never")
