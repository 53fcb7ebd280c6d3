"""Linear decoders, by scikit-learn: what is reached without an embedding and without neighbours.

Ridge regression for quantities (on the circle for its sine and cosine), linear discriminant
analysis with a shrunk covariance (Ledoit & Wolf 2004) for classes. Where many regressions are made
of the same groups, each is solved from sums over its groups (`_Sums`), which are taken once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lstsq, solve
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from .decode import Target, error

__all__ = ["best_penalty", "decode_linearly", "fit_and_say", "say_without"]

_PENALTIES = (1e-1, 1e1, 1e3, 1e5)
_MOST_FOLDS = 3


def decode_linearly(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
) -> NDArray[np.float64]:
    """Decode query rows from training rows, shape (q, d).

    The penalty of the regression is chosen inside the training data, each group judged by a
    regression on others.

    Parameters
    ----------
    train : array, shape (n, F)
    train_rows : array of int64, shape (n,)
        Row of `target` of each training row.
    groups : array of int64, shape (n,)
        Repeat or block of each training row.
    query : array, shape (q, F)
    target : Target
    """
    penalty = best_penalty(train, train_rows, groups, target)
    return fit_and_say(train, train_rows, query, target, penalty)


def best_penalty(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    target: Target,
) -> float:
    """The penalty of the regression that does best on groups it did not see."""
    folds = min(_MOST_FOLDS, len(np.unique(groups)))
    if target.n_classes or folds < 2:
        return _PENALTIES[1]
    errors = np.zeros(len(_PENALTIES))
    sums = _Sums(train, np.asarray(target.values[train_rows], dtype=np.float64), groups, target)
    for fit, judge in GroupKFold(folds).split(train, groups=groups):
        for i, alpha in enumerate(_PENALTIES):
            said = sums.say(np.unique(groups[fit]), train[judge], alpha)
            errors[i] += error(target, train_rows[judge], said).sum()
    return _PENALTIES[int(errors.argmin())]


def fit_and_say(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    penalty: float,
) -> NDArray[np.float64]:
    """Fit a linear decoder with a given penalty and decode query rows, shape (q, d)."""
    y = np.asarray(target.values[train_rows], dtype=np.float64)
    if target.n_classes:
        classes = np.unique(y[:, 0])
        return _discriminate({c: _moments(train[y[:, 0] == c]) for c in classes}, query)
    found = Ridge(penalty).fit(train, _unrolled(y, target.periods)).predict(query)
    return _rolled(found, target.periods)


def say_without(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    penalty: float,
) -> dict[int, NDArray[np.float64]]:
    """What `fit_and_say` would say had any one group not been there; nothing for one that is all.

    Most groups are of one class: the moments of the others stay as they are.
    """
    values = np.asarray(target.values[train_rows], dtype=np.float64)
    there = np.unique(groups)
    if len(there) < 2:
        return {}
    if not target.n_classes:
        sums = _Sums(train, values, groups, target)
        return {int(g): sums.say(there[there != g], query, penalty) for g in there}
    without, y = {}, values[:, 0]
    of = {c: np.flatnonzero(y == c) for c in np.unique(y)}
    whole = {c: _moments(train[rows]) for c, rows in of.items()}
    for g in there:
        rest = groups != g
        left = whole | {c: _moments(train[of[c][rest[of[c]]]]) for c in np.unique(y[~rest])}
        without[int(g)] = _discriminate({c: m for c, m in left.items() if m[0]}, query)
    return without


class _Sums:
    """Ridge regressions on any of some groups, as `fit_and_say`, from sums over each of them.

    Parameters
    ----------
    train : array of float32, shape (n, F)
    values : array of float64, shape (n, d)
        Of the target.
    groups : array of int64, shape (n,)
    target : Target
    """

    def __init__(
        self,
        train: NDArray[np.float32],
        values: NDArray[np.float64],
        groups: NDArray[np.int64],
        target: Target,
    ) -> None:
        y = _unrolled(values, target.periods)
        # From the mean of all rows, so that products of what is left lose no digits.
        self.centre, self.middle = train.mean(axis=0, dtype=np.float64), y.mean(axis=0)
        self.target, self.groups = target, np.unique(groups)
        x, y = train - self.centre, y - self.middle
        some = [(x[groups == g], y[groups == g]) for g in self.groups]
        self.n = np.array([len(a) for a, _ in some])
        self.x = np.array([a.sum(axis=0) for a, _ in some])
        self.y = np.array([b.sum(axis=0) for _, b in some])
        self.xx = np.array([a.T @ a for a, _ in some])
        self.xy = np.array([a.T @ b for a, b in some])

    def say(
        self, fit: NDArray[np.int64], query: NDArray[np.float32], penalty: float
    ) -> NDArray[np.float64]:
        """Decode query rows by the regression on some groups, shape (q, d)."""
        i = np.flatnonzero(np.isin(self.groups, fit))
        n, x, y = self.n[i].sum(), self.x[i].sum(axis=0), self.y[i].sum(axis=0)
        square = self.xx[i].sum(axis=0) - np.outer(x, x) / n
        square.flat[:: len(square) + 1] += penalty
        right = self.xy[i].sum(axis=0) - np.outer(x, y) / n
        try:
            weights = solve(square, right, assume_a="pos")
        except LinAlgError:  # the penalty is lost beside features of huge scale
            weights = lstsq(square, right)[0]
        found = query @ weights + (self.middle + y / n - (self.centre + x / n) @ weights)
        return _rolled(found, self.target.periods)


_Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]


def _moments(x: NDArray[np.float32]) -> _Moments:
    """Rows, mean and shrunk covariance of a class; shrunk in units of its deviations."""
    n, features = x.shape
    if not n:
        return 0, np.zeros(features), np.zeros((features, features))
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    unit = np.where(spread > 0, spread, 1.0)
    shrunk = ledoit_wolf((x - mean) / unit)[0]
    return n, mean, unit[:, None] * shrunk * unit


def _discriminate(
    classes: dict[float, _Moments], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The class with the highest linear discriminant for each query row, shape (q, 1)."""
    counts, means, covariances = map(np.array, zip(*classes.values(), strict=True))
    shares = counts / counts.sum()
    weights = lstsq(np.tensordot(shares, covariances, axes=1), means.T)[0]  # (F, classes)
    bias = np.log(shares) - 0.5 * (means.T * weights).sum(axis=0)
    best: NDArray[np.int64] = (query @ weights + bias).argmax(axis=1)
    return np.asarray(list(classes), dtype=np.float64)[best][:, None]


def _unrolled(y: NDArray[np.float64], periods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns on a circle as sine and cosine: a straight line has no seam."""
    parts = []
    for j, period in enumerate(periods):
        if period:
            angle = 2 * np.pi * y[:, j] / period
            parts += [np.cos(angle), np.sin(angle)]
        else:
            parts.append(y[:, j])
    return np.stack(parts, axis=1)


def _rolled(flat: NDArray[np.float64], periods: NDArray[np.float64]) -> NDArray[np.float64]:
    columns, parts = iter(flat.reshape(len(flat), -1).T), []
    for period in periods:
        if period:
            east, north = next(columns), next(columns)
            parts.append(np.mod(np.arctan2(north, east), 2 * np.pi) * period / (2 * np.pi))
        else:
            parts.append(next(columns))
    return np.stack(parts, axis=1)
