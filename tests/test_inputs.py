"""Arrays of users, made into recordings: what arrives is what was given."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from grevy.errors import DataError
from grevy.inputs import (
    DISCRETE,
    check_labels,
    checked,
    finite,
    is_sessions,
    plain_array,
    sessions_of,
)

RNG = np.random.default_rng()


def one(x: np.ndarray, *labels: Any, **kw: Any) -> Any:
    return sessions_of([x], [x], labels, several=False, **kw)


def test_lists_of_tables_are_sessions() -> None:
    x = RNG.normal(size=(5, 2))
    for yes in ([x], [x, x], (x, x), [torch.from_numpy(x)], [pd.DataFrame(x)], [x.tolist()] * 2):
        assert is_sessions(yes)
    for no in (x, x.tolist(), [], [x[:, 0]], [x, x[:, 0]], pd.DataFrame(x), x[None], None, "ab"):
        assert not is_sessions(no)


def test_plain_arrays() -> None:
    x = RNG.normal(size=(5, 2)).astype("float32")
    for given in (x, x.tolist(), torch.from_numpy(x).requires_grad_(), pd.DataFrame(x)):
        np.testing.assert_array_equal(plain_array(given), x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_continuous_and_keep_their_digits(dtype: str) -> None:
    x = RNG.normal(size=(50, 3))
    flat, wide = RNG.normal(size=50).astype(dtype), RNG.normal(size=(50, 2)).astype(dtype)
    found = one(x, flat, wide)
    assert found.continuous == ("label 0.0", "label 1.0", "label 1.1")
    assert not found.discrete
    assert found.label_types == [(np.dtype(dtype), (50,)), (np.dtype(dtype), (50, 2))]
    labels = found.recordings[0].labels
    columns = np.stack([labels[name].values for name in found.continuous], axis=1)
    np.testing.assert_array_equal(columns, np.c_[flat, wide].astype("float64"))
    np.testing.assert_array_equal(found.recordings[0].activity, x.astype("float32"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint32", "int64"])
def test_integers_and_booleans_are_one_discrete_label(dtype: str) -> None:
    x, k = RNG.normal(size=(50, 3)), RNG.integers(0, 2, 50).astype(dtype)
    for given in (k, k[:, None], k.tolist(), pd.Series(k)):
        found = one(x, given)
        assert found.discrete
        assert found.continuous == ()
        label = found.recordings[0].labels[DISCRETE]
        assert label.kind == "discrete"
        np.testing.assert_array_equal(label.values, k.astype(int))


def test_sessions_keep_their_own_labels_epochs_and_names() -> None:
    xs = [RNG.normal(size=(n, 3)) for n in (40, 50)]
    ys, ks = [x[:, :2] for x in xs], [np.arange(len(x)) % 3 for x in xs]
    epochs = [[[0, 10], [20, 40]], [[5, 50]]]
    found = sessions_of(xs, xs, [ys, ks], several=True, epochs=epochs)
    assert [r.name for r in found.recordings] == ["session 0", "session 1"]
    assert [r.epochs.tolist() for r in found.recordings] == epochs
    assert found.label_types == [
        [(y.dtype, y.shape) for y in ys],
        [(k.dtype, k.shape) for k in ks],
    ]
    for r, y, k in zip(found.recordings, ys, ks, strict=True):
        np.testing.assert_array_equal(r.labels["label 0.1"].values, y[:, 1])
        np.testing.assert_array_equal(r.labels[DISCRETE].values, k)


def test_periods_belong_to_columns_counted_over_all_continuous_labels() -> None:
    x = RNG.normal(size=(50, 3))
    found = one(x, x[:, 0], np.arange(50), x[:, :2], periods={0: 360.0, 2: 7.0})
    labels = found.recordings[0].labels
    assert [labels[name].period for name in found.continuous] == [360.0, None, 7.0]
    for wrong in ({3: 1.0}, {-1: 1.0}, {0: 0.0}, {0: np.nan}, {0: "360"}):
        with pytest.raises(DataError, match="label_periods"):
            one(x, x, periods=wrong)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_the_first_value_that_is_not_finite_is_named(value: float, name: str) -> None:
    x = RNG.normal(size=(50, 3))
    row, column = int(RNG.integers(50)), int(RNG.integers(3))
    x[row, column] = value
    with pytest.raises(DataError, match=rf"X .*found 1 .*{name}.* row {row}, column {column}\."):
        finite(x, "X")
    with pytest.raises(DataError, match=rf"label 0 .*found 1 .*row {row}, column {column}\."):
        one(np.zeros((50, 3)), x)


def test_numbers_that_overflow_are_named() -> None:
    for sign in (1, -1):
        with pytest.raises(DataError, match=r"float32.*1e\+60"):
            finite(np.array([[0.0, 1.0], [sign * 1e60, 0.0], [1, 1]]), "X")
    finite(np.full((3, 2), 3e38), "X")


def test_only_tables_of_numbers_pass() -> None:
    good = RNG.normal(size=(20, 3))
    assert checked(good, 20, "session 0") is good
    for bad in (good[0], good[None], good.astype(str), good.astype(complex), good[:, :0]):
        with pytest.raises(DataError, match=r"session 0 .*found .* of shape"):
            checked(bad, 2, "session 0")
    with pytest.raises(DataError, match=r"at least 21 samples.*found 20"):
        checked(good, 21, "session 0")


def test_more_channels_than_samples_are_warned_of_once() -> None:
    with pytest.warns(UserWarning, match=r"30 > 20"):
        finite(np.zeros((20, 30)), "X")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finite(np.zeros((30, 30)), "X")
        finite(np.zeros((1, 30)), "X")


def test_labels_of_another_model_are_refused() -> None:
    x = RNG.normal(size=(50, 3))
    flat, wide, k = x[:, 0], x[:, :2], np.arange(50)
    single = one(x, wide, k)
    check_labels(single.label_types, one(x[:9], wide[:9].astype("f4"), k[:9]), fitted_several=False)
    several = sessions_of([x, x], [x, x], [[wide, wide], [k, k]], several=True)
    check_labels(single.label_types, several, fitted_several=False)
    check_labels(several.label_types, single, fitted_several=True)
    for others in ((), (wide,), (k, wide), (flat, k), (wide, k, flat)):
        with pytest.raises(DataError, match=r"labels must be those.*found"):
            check_labels(single.label_types, one(x, *others), fitted_several=False)
