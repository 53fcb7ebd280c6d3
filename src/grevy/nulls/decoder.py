"""k nearest neighbours for thousands of label sets: neighbours do not depend on labels.

They are found once; a null is then a product of sparse matrices. What is averaged over neighbours
is a quantity itself, its sine and cosine where it lies on a circle, or which class it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..decode import Metric, Target, judge, lone, neighbours

__all__ = ["AT_ONCE", "Decoder", "Means", "columns_of", "distances"]

AT_ONCE = 128
"""Numbers of a row that one product serves: they stay in the cache."""


def columns_of(target: Target) -> int:
    """How many numbers stand for one label."""
    if target.n_classes:
        return target.n_classes
    return int(len(target.periods) + (target.periods > 0).sum())


def _numbers(target: Target, y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Labels (n, c, d) as the numbers that are averaged, (n, c * e), those of a label together."""
    if target.n_classes:
        one = y[..., :1] == np.arange(target.n_classes)
        return np.asarray(one.reshape(len(y), -1), dtype=np.float32)
    parts = []
    for j, period in enumerate(target.periods):
        if period:
            angle = 2 * np.pi * y[..., j] / period
            parts += [np.cos(angle), np.sin(angle)]
        else:
            parts.append(y[..., j])
    return np.stack(parts, axis=-1).reshape(len(y), -1).astype(np.float32)


def distances(
    target: Target, mean: NDArray[np.float32], truth: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Errors (q, c) of averaged numbers (q, c * e) against labels (q, c, d): as `decode.error`."""
    q, c, _ = truth.shape
    numbers = mean.reshape(q, c, -1)
    if numbers.shape[-1] == 1 and not target.n_classes:
        return np.abs(numbers[..., 0] - truth[..., 0].astype(np.float32))
    if target.n_classes:
        return np.asarray(numbers.argmax(axis=-1) != truth[..., 0], dtype=np.float32)
    total, at = np.zeros((q, c), dtype=np.float32), 0
    for j, period in enumerate(target.periods):
        if period:
            angle = np.arctan2(numbers[..., at + 1], numbers[..., at])
            gap = np.mod(angle * period / (2 * np.pi) - truth[..., j], period)
            gap = np.minimum(gap, period - gap)
            at += 2
        else:
            gap = numbers[..., at] - truth[..., j]
            at += 1
        total += np.square(gap).astype(np.float32)
    return np.asarray(np.sqrt(total))


class Decoder:
    """k nearest neighbours of one fold and subset, for any labels of its rows.

    Parameters
    ----------
    x : array of float32, shape (n, D)
    fit, ask : arrays of int64
        Rows that are learnt from and that are asked for.
    groups : array of int64, shape (len(fit),)
    target : Target
        Says of what kind the labels are; its values are not used.
    device : str
        Where neighbours are looked for.
    """

    def __init__(
        self,
        x: NDArray[np.float32],
        fit: NDArray[np.int64],
        ask: NDArray[np.int64],
        groups: NDArray[np.int64],
        target: Target,
        device: str,
    ) -> None:
        self.fit, self.ask, self.target = fit, ask, target
        table = judge(x[fit], groups, device=device)
        self.judged = np.empty(0, dtype=np.int64)
        if table is None:
            only = lone(len(fit))
            self.ks: tuple[int, ...] = (only.k,)
            self.metrics: tuple[Metric, ...] = (only.metric,)
            self.inner: list[Means] = []
        else:
            self.judged, self.ks, self.metrics = table.judged, table.ks, tuple(table.nearest)
            self.inner = [Means(each, self.ks, len(fit)) for each in table.nearest.values()]
        self.outer = [
            Means(
                neighbours(x[fit], x[ask], self.ks[-1], metric=m, device=device), self.ks, len(fit)
            )
            for m in self.metrics
        ]

    def errors(self, y: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float32]:
        """Labels (n_fit, c, d) and what is true of the rows asked, (q, c, d) -> errors (q, c).

        For each of the c label sets k and metric with the smallest mean error inside are taken, the
        larger k among equals.
        """
        sets, numbers = y.shape[1], _numbers(self.target, y)
        choice = np.zeros(sets, dtype=np.int64)
        best = np.full(sets, np.inf, dtype=np.float32)
        size = np.zeros(sets, dtype=np.int64)
        known = y[self.judged]
        for m, means in enumerate(self.inner):
            for i, mean in enumerate(means(numbers)):
                score = distances(self.target, mean, known).mean(axis=0)
                better = (score < best) | ((score == best) & (self.ks[i] > size))
                best[better], size[better] = score[better], self.ks[i]
                choice[better] = m * len(self.ks) + i
        far = np.empty(truth.shape[:2], dtype=np.float32)
        wide = columns_of(self.target)
        for m, means in enumerate(self.outer):
            for i, mean in enumerate(means(numbers)):
                mine = np.flatnonzero(choice == m * len(self.ks) + i)
                if len(mine):
                    some = mean.reshape(len(mean), sets, wide)[:, mine].reshape(len(mean), -1)
                    far[:, mine] = distances(self.target, some, truth[:, mine])
        return far


class Means:
    """Means over the k nearest rows, for several k, as products of sparse matrices."""

    def __init__(self, nearest: NDArray[np.int64], ks: Sequence[int], n: int) -> None:
        self.parts, self.counts = [], []
        count = np.zeros(len(nearest))
        for a, b in pairwise((0, *ks)):
            some = nearest[:, a:b]
            there = some >= 0
            count = count + there.sum(axis=1)
            ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
            ones = np.ones(ends[-1], dtype=np.float32)
            self.parts.append(csr_matrix((ones, some[there], ends), shape=(len(nearest), n)))
            self.counts.append(np.maximum(count, 1).astype(np.float32)[:, None])

    def __call__(self, y: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Of numbers (n, c) the means (q, c), for each k."""
        total = np.zeros((self.parts[0].shape[0], y.shape[1]), dtype=np.float32)
        for part, count in zip(self.parts, self.counts, strict=True):
            total += part @ y
            yield total / count
