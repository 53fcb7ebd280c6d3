"""Decoders of embeddings as scikit-learn estimators, under the names that CEBRA users know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Lasso
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted, validate_data

from .decode import Metric, Target, neighbours, predictions
from .errors import ConfigError, DataError
from .inputs import plain_array

__all__ = ["KNNDecoder", "L1LinearRegressor"]

Matrix = NDArray[np.float64]
_ROOM = 2**22  # numbers held at once, beside the similarities
_SPARE = 16  # candidates beyond the neighbours


class KNNDecoder(BaseEstimator):  # type: ignore[misc]
    """Decode by the nearest neighbours: their most frequent class, or their mean.

    Integers and bool are classes, floats are numbers. Memory does not grow with the product of the
    numbers of fitted and of decoded samples.

    Parameters
    ----------
    n_neighbors : int
    metric : str
        "cosine", "euclidean", or any other metric of scikit-learn's `NearestNeighbors`.

    Attributes
    ----------
    classes_ : array, list of arrays, or None
        Classes, of each column where there are several; None for numbers.
    n_features_in_ : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> KNNDecoder().fit(X, X[:, 0] > 0).score(X, X[:, 0] > 0) > 0.8
    True
    """

    def __init__(self, n_neighbors: int = 3, metric: str = "cosine") -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric

    def fit(self, X: ArrayLike, y: ArrayLike) -> KNNDecoder:
        """Keep the samples.

        Parameters
        ----------
        X : array, shape (n, D)
        y : array, shape (n,) or (n, d)
            Integers or bool for classes, floats for numbers.

        Returns
        -------
        KNNDecoder
            Itself.

        Raises
        ------
        ConfigError
            If `n_neighbors` is not between 1 and n, or the metric is unknown.
        DataError
            If X and y differ in length, hold NaN, or are no numbers.
        """
        x, targets = _pair(self, X, y)
        k = self.n_neighbors
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(x):
            raise ConfigError(
                f"n_neighbors must be an integer between 1 and the number of samples; found {k!r} "
                f"for {len(x)} sample{'s' if len(x) > 1 else ''}."
            )
        self._k, self._shape = int(k), targets.shape[1:]
        self._find = _finder(x, self.metric, self._k)
        columns = targets.reshape(len(x), -1)
        if targets.dtype.kind == "f":
            self.classes_ = None
            self._targets = [Target(columns.astype(np.float64), np.zeros(columns.shape[1]))]
            return self
        pairs = [np.unique(column, return_inverse=True) for column in columns.T]
        self._targets = [Target(code[:, None], np.zeros(1), len(kinds)) for kinds, code in pairs]
        self.classes_ = [kinds for kinds, _ in pairs] if self._shape else pairs[0][0]
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Decode.

        Parameters
        ----------
        X : array, shape (q, D)

        Returns
        -------
        array, shape (q,) or (q, d)
            As y was: the most frequent class of the neighbours, the lowest among equals, or their
            mean.
        """
        check_is_fitted(self)
        x = _features(self, X, reset=False)
        widest = max(t.values.shape[1] * self._k + t.n_classes for t in self._targets)
        size = max(1, _ROOM // (widest + (x.shape[1] + 1) * (self._k + _SPARE)))
        parts = [self._decoded(x[i : i + size]) for i in range(0, len(x), size)]
        return np.concatenate(parts).reshape(len(x), *self._shape)

    def _decoded(self, x: Matrix) -> NDArray[Any]:
        """Predictions for some queries, shape (q, d)."""
        nearest = self._find(x)
        rows = np.arange(len(self._targets[0].values))
        found = [predictions(target, rows, nearest, [self._k])[0] for target in self._targets]
        if self.classes_ is None:
            return found[0]
        kinds = self.classes_ if self._shape else [self.classes_]
        codes = [f[:, 0].astype(np.int64) for f in found]
        return np.stack([of[code] for of, code in zip(kinds, codes, strict=True)], axis=1)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Accuracy of classes; R2 of numbers, a mean over columns.

        Parameters
        ----------
        X : array, shape (q, D)
        y : array, shape (q,) or (q, d)
            As in `fit`.

        Returns
        -------
        float
            Share of right classes (of all columns together), or R2.
        """
        found, truth = _compared(self, X, y)
        if self.classes_ is None:
            return float(r2_score(truth, found))
        return float(np.mean(truth == found))

    @staticmethod
    def iter_hyperparams() -> Iterator[dict[str, Any]]:
        """Settings to try: 1, 4, 9, 16 and 25 neighbours by cosine."""
        for root in range(1, 6):
            yield {"n_neighbors": root**2, "metric": "cosine"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


class L1LinearRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear regression with an L1 penalty on its weights: scikit-learn's `Lasso`.

    Integers are numbers here. `score` is R2.

    Parameters
    ----------
    alpha : float
        Weight of the penalty.

    Attributes
    ----------
    coef_ : array of float64, shape (D,) or (d, D)
    intercept_ : float or array of float64, shape (d,)
    n_features_in_ : int

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> L1LinearRegressor(alpha=0.01).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.99
    True
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike) -> L1LinearRegressor:
        """Fit the weights.

        Parameters
        ----------
        X : array, shape (n, D)
        y : array of numbers, shape (n,) or (n, d)

        Returns
        -------
        L1LinearRegressor
            Itself.

        Raises
        ------
        ConfigError
            If `alpha` is no number above 0.
        DataError
            If X and y differ in length, hold NaN, are no numbers, or y is bool.
        """
        alpha: Any = self.alpha
        number = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
        if not number or not 0 < alpha < np.inf:
            raise ConfigError(f"alpha must be a number above 0; found {alpha!r}.")
        x, targets = _pair(self, X, y)
        if targets.dtype.kind == "b":
            raise DataError(
                "y must be numbers for a linear regression; found bool. Pass y.astype(float), or "
                "decode classes with KNNDecoder."
            )
        lasso = Lasso(alpha=float(alpha)).fit(x, targets)
        self.coef_, self.intercept_, self.n_iter_ = lasso.coef_, lasso.intercept_, lasso.n_iter_
        if targets.ndim == 2:
            self.coef_ = self.coef_.reshape(targets.shape[1], -1)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Decode, shape (q,) or (q, d) as y was."""
        check_is_fitted(self)
        x = _features(self, X, reset=False)
        return np.asarray(x @ self.coef_.T + self.intercept_)

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """R2, a mean over columns."""
        found, truth = _compared(self, X, y)
        return float(r2_score(truth, found))

    @staticmethod
    def iter_hyperparams() -> Iterator[dict[str, float]]:
        """Settings to try: penalties from 0.001 to 100 by factors of ten."""
        for power in range(-3, 3):
            yield {"alpha": 10.0**power}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


# --- Checks --------------------------------------------------------------------------------------
def _features(decoder: Any, X: Any, *, reset: bool) -> Matrix:
    """X in float64, as wide as in `fit`, and finite."""
    given = plain_array(X) if hasattr(X, "detach") else X
    x = validate_data(
        decoder, given, reset=reset, dtype=np.float64, ensure_all_finite=False, order="C"
    )
    _finite(x, "X")
    return np.asarray(x)


def _pair(decoder: Any, X: Any, y: Any) -> tuple[Matrix, NDArray[Any]]:
    """X and y of the same length, finite."""
    x = _features(decoder, X, reset=True)
    return x, _targets(decoder, y, len(x))


def _targets(decoder: Any, y: Any, n: int) -> NDArray[Any]:
    """Classes or numbers, one (or a row of them) for each sample."""
    if y is None:
        raise DataError(
            f"{type(decoder).__name__} requires y to be passed, but the target y is None; give one "
            "value for each sample."
        )
    targets = plain_array(y)
    if targets.dtype.kind == "O" and targets.size:  # numbers that an untyped container held
        targets = np.array(targets.tolist())
    if targets.dtype.kind not in "fiub" or targets.ndim not in (1, 2):
        raise DataError(
            "y must be classes (integers, bool) or numbers (floats) of shape (samples,) or "
            f"(samples, columns); found {targets.dtype} of shape {targets.shape}. "
            "Number the classes."
        )
    if len(targets) != n:
        raise DataError(
            f"X and y must have the same samples; found {n} rows of X and {len(targets)} of y."
        )
    _finite(targets, "y")
    return targets


def _finite(values: NDArray[Any], name: str) -> None:
    """No NaN and no infinity."""
    if np.isfinite(values).all():
        return
    bad = np.argwhere(~np.isfinite(values))[0]
    what = "NaN" if np.isnan(values[tuple(bad)]) else "inf"
    raise DataError(
        f"{name} must be finite; found {what} in row {bad[0]}, column {[*bad, 0][1]}. "
        "Leave such samples out."
    )


def _compared(decoder: Any, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions and the truth, of one shape."""
    found = decoder.predict(X)
    truth = _targets(decoder, y, len(found))
    if truth.size != found.size:
        raise DataError(
            f"y must have the columns it had in fit; found shape {truth.shape} and predictions of "
            f"shape {found.shape}."
        )
    return found, truth.reshape(found.shape)


# --- Neighbours ----------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Training rows where the nearest by a metric are the nearest by plain distance.

    `rows` (n, D): for "cosine" of unit length, and one more column, which keeps rows without a
    direction at right angles to all others; for "euclidean" centred, none longer than 1.
    """

    metric: Metric
    rows: Matrix
    centre: Matrix
    scale: float

    def of(self, x: Matrix, k: int) -> NDArray[np.int64]:
        """The k nearest training rows of each query, nearest first, shape (q, k).

        Some more than k candidates are found in float32, which cannot tell apart directions closer
        than 0.0005, and sorted by their distances in float64. A query whose k-th is not nearer than
        the last candidate by more than float32 can err is looked up in a tree, in float64.
        """
        query = _unit(x) if self.metric == "cosine" else (x - self.centre) / self.scale
        if self.metric == "cosine":
            query = np.column_stack([query, np.zeros(len(query))])
        n_found = min(len(self.rows), k + _SPARE)
        found = neighbours(
            self.rows.astype(np.float32),
            query.astype(np.float32),
            n_found,
            metric=self.metric,
        )
        apart = np.square(self.rows[found] - query[:, None]).sum(axis=2)
        order = np.argsort(apart, axis=1, kind="stable")
        nearest = np.take_along_axis(found, order[:, :k], axis=1)
        if n_found == len(self.rows):
            return nearest
        apart = np.take_along_axis(apart, order, axis=1)
        longest = np.maximum(1.0, np.linalg.norm(query, axis=1))
        may_err = 4 * (query.shape[1] + 4) * 2.0**-24 * longest
        unsure = apart[:, k - 1] + may_err >= apart[:, -1]
        if unsure.any():
            tree = self.tree
            nearest[unsure] = tree.query(query[unsure], k=np.arange(1, k + 1))[1]
        return nearest

    @cached_property
    def tree(self) -> cKDTree:
        """For queries among very many rows that are very close."""
        return cKDTree(self.rows, balanced_tree=False, compact_nodes=False)


def _finder(x: Matrix, metric: str, k: int) -> Callable[[Matrix], NDArray[np.int64]]:
    """What finds the k nearest rows of x, shape (q, k), of queries."""
    centre = x.mean(axis=0)
    if metric == "cosine":
        rows = np.column_stack([_unit(x), (~x.any(axis=1)).astype(np.float64)])
        return partial(_Neighbours("cosine", rows, centre, 1.0).of, k=k)
    if metric == "euclidean":
        scale = float(np.abs(x - centre).max()) * np.sqrt(x.shape[1]) or 1.0
        return partial(_Neighbours("euclidean", (x - centre) / scale, centre, scale).of, k=k)
    try:
        other = NearestNeighbors(n_neighbors=k, metric=metric).fit(x)
    except ValueError as error:
        raise ConfigError(
            f"metric must be cosine, euclidean or one of scikit-learn's; found {metric!r}."
        ) from error
    return partial(other.kneighbors, return_distance=False)


def _unit(x: Matrix) -> Matrix:
    """Rows of unit length; those without a direction stay."""
    largest = np.abs(x).max(axis=1, keepdims=True)  # first, so that no square is 0 or infinite
    x = x / np.where(largest > 0, largest, 1.0)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), largest == 0))
