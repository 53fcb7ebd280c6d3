"""Decoders: scikit-learn's contract, scikit-learn's neighbours, and CEBRA's where it is there."""

from __future__ import annotations

import tracemalloc
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Lasso
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import grevy.decoders
from grevy.decoders import KNNDecoder, L1LinearRegressor
from grevy.errors import ConfigError, DataError


@pytest.fixture
def cebra() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("cebra")


def points(seed: int, n: int, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


# --- The contract --------------------------------------------------------------------------------
@pytest.mark.parametrize("decoder", [KNNDecoder(), L1LinearRegressor()])
def test_scikit_learns_checks_pass_without_exception(decoder: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(decoder, on_fail=None, on_skip=None)
    failed = [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")]
    assert len(results) > 30
    assert failed == []


@pytest.mark.parametrize(
    ("decoder", "grid"),
    [(KNNDecoder(), {"n_neighbors": [1, 9]}), (L1LinearRegressor(), {"alpha": [1e-3, 10.0]})],
)
def test_clone_pipeline_and_grid_search(decoder: Any, grid: dict[str, list[float]]) -> None:
    x = points(0, 200)
    y = x[:, :2] + 0.1 * points(1, 200, 2)
    assert clone(decoder).get_params() == decoder.get_params()
    search = GridSearchCV(decoder, grid, cv=4).fit(x, y)
    best = {"n_neighbors": 9, "alpha": 1e-3}
    assert search.best_params_ == {name: best[name] for name in grid}
    assert make_pipeline(StandardScaler(), decoder).fit(x, y).predict(x[:7]).shape == (7, 2)


def test_settings_to_try() -> None:
    assert [s["n_neighbors"] for s in KNNDecoder.iter_hyperparams()] == [1, 4, 9, 16, 25]
    assert {s["metric"] for s in KNNDecoder.iter_hyperparams()} == {"cosine"}
    alphas = [s["alpha"] for s in L1LinearRegressor.iter_hyperparams()]
    assert alphas == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])


# --- Neighbours ----------------------------------------------------------------------------------
def ring(seed: int, n: int) -> np.ndarray:
    """So many directions in a plane that float32 cannot tell neighbours apart."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
@pytest.mark.parametrize("k", [1, 6, 300])
@pytest.mark.parametrize("kind", ["cloud", "ring", "far", "tiny"])
def test_numbers_are_those_of_scikit_learn(metric: str, k: int, kind: str) -> None:
    if kind == "ring":
        x, q = ring(k, 4000), ring(k + 1, 150)
    else:
        x, q = points(k, 300, 5), points(k + 1, 150, 5)
        change = {"cloud": 0.0, "far": 1e4, "tiny": 0.0}[kind]
        scale = 1e-200 if kind == "tiny" else 1.0
        x, q = scale * x + change, scale * q + change
    y = points(2, len(x), 2)
    ours = KNNDecoder(k, metric).fit(x, y).predict(q)
    if metric == "euclidean":  # by differences: nothing cancels
        apart = np.square((x[None] - q[:, None]) / np.ptp(x)).sum(axis=2)
        expected = y[np.argsort(apart, axis=1)[:, :k]].mean(axis=1)
    elif metric == "cosine" and kind in ("far", "tiny"):  # scikit-learn's cancels or takes it for 0
        x, q = (x, q) if kind == "far" else (x * 1e200, q * 1e200)
        u, v = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, q))
        apart = np.square(u[None] - v[:, None]).sum(axis=2)
        expected = y[np.argsort(apart, axis=1)[:, :k]].mean(axis=1)
    else:
        expected = KNeighborsRegressor(k, metric=metric, algorithm="brute").fit(x, y).predict(q)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_the_ring_needs_more_than_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree is asked, and without it and the second look in float64 neighbours are wrong."""
    x, q, y = ring(0, 40_000), ring(1, 400), np.arange(40_000.0)
    asked = []
    tree = grevy.decoders.cKDTree

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return tree(*args, **kwargs)

    monkeypatch.setattr(grevy.decoders, "cKDTree", counted)
    ours = KNNDecoder(1).fit(x, y).predict(q)
    angle = [np.arctan2(z[:, 1], z[:, 0]) for z in (x, q)]
    gap = np.abs(angle[0][None] - angle[1][:, None])
    expected = np.argmin(np.minimum(gap, 2 * np.pi - gap), axis=1)
    assert asked == [1]
    np.testing.assert_array_equal(ours, expected)
    rough = grevy.decoders.neighbours(x.astype(np.float32), q.astype(np.float32), 1)[:, 0]
    assert (rough != expected).any()


def test_a_row_without_direction_is_at_right_angles_to_all() -> None:
    x, q = points(0, 60, 3), points(1, 40, 3)
    x[:10] = 0
    y = points(2, 60, 1)[:, 0]
    y[:10] = 7.0
    theirs = KNeighborsRegressor(60 - 5, metric="cosine", algorithm="brute").fit(x, y).predict(q)
    np.testing.assert_allclose(KNNDecoder(60 - 5).fit(x, y).predict(q), theirs, atol=1e-12)
    assert np.isfinite(KNNDecoder(5).fit(x, y).predict(np.zeros((2, 3)))).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_classes_are_those_of_scikit_learn_and_the_lowest_wins_a_tie(metric: str, k: int) -> None:
    x, q = points(k, 400), points(k + 1, 200)
    y = np.random.default_rng(k).choice([-3, 2, 7, 1000], 400)
    decoder = KNNDecoder(k, metric).fit(x, y)
    theirs = KNeighborsClassifier(k, metric=metric).fit(x, y)
    assert decoder.classes_.tolist() == [-3, 2, 7, 1000]
    np.testing.assert_array_equal(decoder.predict(q), theirs.predict(q))
    assert decoder.predict(q).dtype == y.dtype
    truth = np.random.default_rng(9).choice([-3, 2, 7, 1000], 200)
    assert decoder.score(q, truth) == pytest.approx(theirs.score(q, truth))


def test_bool_and_several_columns_of_classes() -> None:
    x, q = points(0, 300), points(1, 100)
    y = x[:, 0] > 0
    found = KNNDecoder(5).fit(x, y).predict(q)
    assert found.dtype == bool
    assert np.mean(found == (q[:, 0] > 0)) > 0.9
    both = np.stack([y.astype(int), np.where(x[:, 1] > 0, 5, 9)], axis=1)
    decoder = KNNDecoder(5).fit(x, both)
    theirs = KNeighborsClassifier(5, metric="cosine").fit(x, both).predict(q)
    np.testing.assert_array_equal(decoder.predict(q), theirs)
    assert decoder.score(q, theirs) == 1.0
    half = theirs.copy()
    half[:, 1] = 0
    assert decoder.score(q, half) == 0.5


def test_copies_of_one_sample_are_all_found() -> None:
    x = np.repeat(points(0, 10), 50, axis=0)
    y = np.repeat(np.arange(10.0), 50)
    np.testing.assert_array_equal(KNNDecoder(30).fit(x, y).predict(x[::50]), np.arange(10.0))


def test_memory_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the similarities, which decode holds in blocks, nothing of size queries x rows."""
    n = 6000
    x, y = points(0, n, 3), points(1, n, 1)[:, 0]
    blocks = []
    real = grevy.decoders.neighbours

    def seen(train: Any, query: Any, k: int, **kwargs: Any) -> Any:
        blocks.append(len(query))
        return real(train, query, k, **kwargs)

    monkeypatch.setattr(grevy.decoders, "neighbours", seen)
    monkeypatch.setattr(grevy.decoders, "_ROOM", 2**16)
    tracemalloc.start()
    found = KNNDecoder(20).fit(x, y).predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 < n * n
    assert sum(blocks) == n
    assert max(blocks) < n / 4
    monkeypatch.undo()
    np.testing.assert_array_equal(KNNDecoder(20).fit(x, y).predict(x), found)


# --- Inputs --------------------------------------------------------------------------------------
@pytest.mark.parametrize("decoder", [KNNDecoder(2), L1LinearRegressor(0.01)])
def test_tensors_lists_and_frames_give_what_arrays_give(decoder: Any) -> None:
    x, y = points(0, 50), points(1, 50, 1)[:, 0]
    expected = clone(decoder).fit(x, y).predict(x)
    columns = [f"c{i}" for i in range(4)]
    for wrap_x, wrap_y in [
        (lambda a: torch.tensor(a, requires_grad=True), torch.tensor),
        (np.ndarray.tolist, np.ndarray.tolist),
        (lambda a: pd.DataFrame(a, columns=columns), pd.Series),
    ]:
        fitted = clone(decoder).fit(wrap_x(x), wrap_y(y))
        np.testing.assert_array_equal(fitted.predict(wrap_x(x)), expected)
        assert fitted.score(wrap_x(x), wrap_y(y)) == pytest.approx(r2_score(y, expected))


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_predictions_have_the_shape_of_what_was_fitted(shape: tuple[int, ...]) -> None:
    x = points(0, 50)
    y = points(1, 50, 3).ravel()[: int(np.prod(shape))].reshape(shape)
    for decoder in (KNNDecoder(), L1LinearRegressor()):
        assert decoder.fit(x, y).predict(x[:7]).shape == (7, *shape[1:])
    assert KNNDecoder().fit(x, np.sign(y).astype(int)).predict(x[:7]).shape == (7, *shape[1:])


def with_value(x: np.ndarray, at: tuple[int, ...], value: float) -> np.ndarray:
    x = x.copy()
    x[at] = value
    return x


X, Y = points(0, 30), points(1, 30, 2)


@pytest.mark.parametrize("decoder", [KNNDecoder(), L1LinearRegressor()])
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (X, Y[:28], "found 30 rows of X and 28 of y"),
        (with_value(X, (7, 2), np.nan), Y, "X must be finite; found NaN in row 7, column 2"),
        (X, with_value(Y, (4, 1), np.inf), "y must be finite; found inf in row 4, column 1"),
        (X, with_value(Y[:, 0], (4,), np.nan), "y must be finite; found NaN in row 4, column 0"),
        (X, np.array(["a", "b"] * 15), "Number the classes"),
        (X, None, "the target y is None"),
        (X, Y[:, :, None], r"shape \(30, 2, 1\)"),
    ],
)
def test_bad_input_is_refused_in_words(decoder: Any, x: Any, y: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        clone(decoder).fit(x, y)


def test_bad_settings_are_refused_in_words() -> None:
    for k in (0, 31, 2.0, True, None):
        with pytest.raises(ConfigError, match="n_neighbors must be"):
            KNNDecoder(k).fit(X, Y)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"metric must be .* found 'cosin'"):
        KNNDecoder(metric="cosin").fit(X, Y)
    for alpha in (0, -1.0, np.nan, "1", None):
        with pytest.raises(ConfigError, match="alpha must be"):
            L1LinearRegressor(alpha).fit(X, Y)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="found bool"):
        L1LinearRegressor().fit(X, Y[:, 0] > 0)
    for decoder in (KNNDecoder(), L1LinearRegressor()):
        decoder.fit(X, Y)
        with pytest.raises(DataError, match="found 30 rows of X and 29 of y"):
            decoder.score(X, Y[1:])
        with pytest.raises(DataError, match="columns it had in fit"):
            decoder.score(X, Y[:, 0])
        with pytest.raises(ValueError, match="3 features"):
            decoder.predict(X[:, :3])


# --- The linear one ------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_the_linear_decoder_is_scikit_learns_lasso(columns: int) -> None:
    x, q = points(0, 80), points(1, 20)
    y = x @ points(2, 4, max(1, columns)) + 0.3
    y = y if columns else y[:, 0]
    theirs = Lasso(alpha=0.2).fit(x, y)
    ours = L1LinearRegressor(0.2).fit(x, y)
    np.testing.assert_allclose(ours.predict(q).ravel(), theirs.predict(q).ravel(), atol=1e-12)
    whole = np.round(3 * y).astype(np.int64)
    found = L1LinearRegressor(0.2).fit(x, whole).predict(q)
    expected = Lasso(alpha=0.2).fit(x, whole.astype(float)).predict(q)
    np.testing.assert_allclose(found.ravel(), expected.ravel(), atol=1e-12)


# --- CEBRA ---------------------------------------------------------------------------------------
def test_cebra_gives_the_same_predictions(cebra: ModuleType) -> None:
    x, q = points(0, 900, 8), points(1, 400, 8)
    numbers, classes = points(2, 900, 2), np.random.default_rng(3).integers(0, 5, 900)
    for settings in KNNDecoder.iter_hyperparams():
        for y in (numbers, classes):
            ours = KNNDecoder(**settings).fit(x, y).predict(q)
            theirs = cebra.KNNDecoder(**settings).fit(x, y).predict(q)
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
    for settings in L1LinearRegressor.iter_hyperparams():
        ours = L1LinearRegressor(**settings).fit(x, numbers).predict(q)
        theirs = cebra.L1LinearRegressor(**settings).fit(x, numbers).predict(q)
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert list(KNNDecoder.iter_hyperparams()) == list(cebra.KNNDecoder.iter_hyperparams())


def test_where_cebra_is_wrong(cebra: ModuleType) -> None:
    """R2 of class numbers as the score of classes, and no bool at all."""
    x = points(0, 300)
    y = np.where(x[:, 0] > 0, 1, 0) + np.where(x[:, 1] > 1.2, 999, 0)
    accuracy = KNNDecoder(5).fit(x, y).score(x, y)
    assert accuracy == np.mean(KNNDecoder(5).fit(x, y).predict(x) == y)
    theirs = cebra.KNNDecoder(5).fit(x, y)
    assert theirs.score(x, y) == pytest.approx(r2_score(y, theirs.predict(x)))
    assert abs(theirs.score(x, y) - accuracy) > 0.01
    with pytest.raises(NotImplementedError):
        cebra.KNNDecoder(5).fit(x, y > 0)
    assert KNNDecoder(5).fit(x, y > 0).score(x, y > 0) > 0.9
