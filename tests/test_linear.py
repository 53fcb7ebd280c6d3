"""Linear decoders on data whose best linear decoder is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from grevy.decode import Target, error
from grevy.linear import decode_linearly, fit_and_say, say_without


def _linear(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((300, 8)).astype(np.float32)
    y = x @ rng.standard_normal((8, 2)) + 3 + noise * rng.standard_normal((300, 2))
    return x, y


def test_a_linear_relation_is_recovered() -> None:
    x, y = _linear(0, 0.0)
    target = Target(y, np.zeros(2))
    rows, groups = np.arange(200), np.repeat(np.arange(10), 20)
    said = decode_linearly(x[:200], rows, groups, x[200:], target)
    assert np.abs(said - y[200:]).max() < 0.02


def test_the_penalty_is_the_one_that_does_best_on_other_groups() -> None:
    rng = np.random.default_rng(1)
    # More columns than rows and much noise: the weakest penalty is the worst by far.
    x = rng.standard_normal((120, 90)).astype(np.float32)
    y = x[:, :1] * 0.3 + 2 * rng.standard_normal((120, 1))
    target, rows, groups = Target(y, np.zeros(1)), np.arange(100), np.repeat(np.arange(5), 20)
    said = decode_linearly(x[:100], rows, groups, x[100:], target)
    weak = Ridge(0.1).fit(x[:100], y[:100]).predict(x[100:]).reshape(-1, 1)
    asked = np.arange(100, 120)
    assert error(target, asked, said).mean() < error(target, asked, weak).mean()


def test_a_circle_has_no_seam() -> None:
    rng = np.random.default_rng(2)
    angle = rng.uniform(0, 360, 400)
    x = np.stack([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))], axis=1)
    x = (x @ rng.standard_normal((2, 6))).astype(np.float32)
    target = Target(angle[:, None], np.array([360.0]))
    said = decode_linearly(x[:300], np.arange(300), np.arange(300) // 60, x[300:], target)
    assert error(target, np.arange(300, 400), said).max() < 1
    assert ((said >= 0) & (said <= 360)).all()


def test_classes_are_told_by_linear_discriminants() -> None:
    rng = np.random.default_rng(3)
    code = rng.integers(0, 3, 200)
    x = (rng.standard_normal((200, 5)) + 2 * np.eye(3, 5)[code]).astype(np.float32)
    target = Target(code[:, None], np.zeros(1), 3)
    said = decode_linearly(x[:150], np.arange(150), np.arange(150) // 30, x[150:], target)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[:150], code[:150])
    np.testing.assert_array_equal(said[:, 0], expected.predict(x[150:]))
    assert (said[:, 0] == code[150:]).mean() > 0.7


@pytest.mark.parametrize("n_classes", [0, 4])
def test_one_group_and_one_class_are_enough(n_classes: int) -> None:
    x = np.random.default_rng(4).standard_normal((20, 3)).astype(np.float32)
    values = np.full((20, 1), 2) if n_classes else np.full((20, 1), 2.5)
    target = Target(values, np.zeros(1), n_classes)
    said = decode_linearly(x[:15], np.arange(15), np.zeros(15, int), x[15:], target)
    np.testing.assert_allclose(said, values[15:])


@pytest.mark.parametrize("period", [0.0, 5.0])
def test_regressions_from_sums_are_scikit_learns(period: float) -> None:
    """Features far from zero, a label far from zero, groups of unequal size; more columns too."""
    rng = np.random.default_rng()
    for features in (6, 150):
        groups = rng.choice(5, 120)
        x = (100 + rng.standard_normal((120, features))).astype(np.float32)
        y = 1000 + x[:, :1] + rng.standard_normal((120, 1))
        target, rows = Target(y, np.array([period])), np.arange(120)
        query = (100 + rng.standard_normal((30, features))).astype(np.float32)
        found = say_without(x, rows, groups, query, target, 0.5)
        for g, said in found.items():
            rest = groups != g
            wide = x[rest].astype(np.float64)  # in float32 it is scikit-learn that is inexact
            expected = fit_and_say(wide, rows[rest], query, target, 0.5)
            np.testing.assert_allclose(said, expected, rtol=1e-6)


def test_features_of_huge_scale_that_repeat_one_another_are_decoded() -> None:
    x, y = _linear(5, 0.1)
    wide = np.float32(2**40) * np.concatenate([x, x, x], axis=1)
    target, groups = Target(y, np.zeros(2)), np.arange(300) // 60
    for said in say_without(wide, np.arange(300), groups, wide, target, 0.1).values():
        assert np.abs(said - y).mean() < 0.2


@pytest.mark.parametrize("n_classes", [0, 4])
def test_without_a_group_is_as_if_it_had_not_been_there(n_classes: int) -> None:
    rng = np.random.default_rng()
    groups = np.repeat(np.arange(9), 15)
    code = np.where(groups == 8, 3, groups % 3)  # the last group is a class of its own
    code[:3] = 2  # and the first is of two
    x = (rng.standard_normal((135, 6)) + np.eye(4, 6)[code]).astype(np.float32)
    values = code[:, None] if n_classes else rng.standard_normal((135, 1))
    target, rows = Target(values, np.zeros(1), n_classes), np.arange(135)
    query = rng.standard_normal((40, 6)).astype(np.float32)
    found = say_without(x, rows, groups, query, target, 10.0)
    assert set(found) == set(range(9))
    for g, said in found.items():
        rest = groups != g
        some = x[rest] if n_classes else x[rest].astype(np.float64)
        expected = fit_and_say(some, rows[rest], query, target, 10.0)
        np.testing.assert_allclose(said, expected, rtol=1e-9)
    assert say_without(x, rows, np.zeros(135, dtype=int), query, target, 10.0) == {}
