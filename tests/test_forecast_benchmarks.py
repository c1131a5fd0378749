"""The control of the M4 benchmark, on made-up series."""

from __future__ import annotations

import numpy as np

from benchmarks import ett, m4


def test_another_series_test_span_is_masked_at_any_level_and_scale() -> None:
    train, test = m4.made_up()
    values = [v.copy() for v in train.values]
    values[3][40:46, 0] = 7 + 0.01 * test[5]  # the same shape elsewhere
    train = m4.replace(train, values=tuple(values))
    assert not m4.holds_none(train, test)
    masked, found = m4.without_test_spans(train, test)
    assert (0, 1, 20) in found
    assert (5, 3, 40) in found
    assert np.isnan(masked.values[1][20:26]).all()
    assert np.isnan(masked.values[3][40:46]).all()
    assert np.isfinite(train.values[3]).all()  # the given series stay as they are
    assert m4.holds_none(masked, test)


def test_a_series_own_past_is_left_alone() -> None:
    train, test = m4.made_up()
    alone = train.pick([0])
    assert m4.without_test_spans(alone, test[:1])[1] == []


def test_errors_are_standardised() -> None:
    series = ett.made_up()
    ends = np.array([100, 101])
    forecast = np.stack([series.values[0][e : e + 5] for e in ends]) + np.array([2.0, 4.0])
    mse, mae = ett.errors(series, forecast, ends, np.zeros(2), np.array([2.0, 4.0]))
    np.testing.assert_allclose([mse, mae], 1.0)
