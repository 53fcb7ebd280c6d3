"""Linear decoders, by scikit-learn: what is reached without an embedding and without neighbours.

Ridge regression for quantities (on the circle for its sine and cosine), linear discriminant
analysis with a shrunk covariance (Ledoit & Wolf 2004) for classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from .decode import Target, error

__all__ = ["best_penalty", "decode_linearly", "fit_and_say"]

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
    for fit, judge in GroupKFold(folds).split(train, groups=groups):
        for i, alpha in enumerate(_PENALTIES):
            said = fit_and_say(train[fit], train_rows[fit], train[judge], target, alpha)
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
        if len(np.unique(y)) < 2:
            return np.repeat(y[:1], len(query), axis=0)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        said = model.fit(train, y[:, 0]).predict(query)
        return np.asarray(said, dtype=np.float64)[:, None]
    found = Ridge(penalty).fit(train, _unrolled(y, target.periods)).predict(query)
    return _rolled(found, target.periods)


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
