"""Decoding by nearest neighbours: one similarity pass serves every number of neighbours.

`k` and the metric are chosen inside the training data, each sample judged by neighbours from other
repeats only, so that a decoder never sees its own repeat and the choice never sees a test repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .chunks import in_chunks
from .errors import DataError
from .model import choose_device
from .processors import side_by_side

__all__ = [
    "KNN",
    "METRICS",
    "Judged",
    "Metric",
    "Target",
    "best_settings",
    "candidates",
    "circular_distance",
    "error",
    "evenly",
    "judge",
    "lone",
    "metrics_of",
    "neighbours",
    "predict",
    "predict_without",
    "predictions",
    "tune",
]

Metric = Literal["cosine", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
_KS = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 75, 100)
# Similarities held at once: 16 MB in float32 where caches matter, 256 MB where launches do.
_PAIRS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}
_WORTH_LANES = 2**26
"""More pairs than this are looked through in several threads, which takes a moment to begin."""
_PIECES = 16
_GROUP = 16
_NUMBERS_AT_ONCE = 2**20
"""Values of neighbours that are averaged at once."""


@dataclass(frozen=True, eq=False)
class Target:
    """What is decoded.

    Attributes
    ----------
    values : array, shape (n, d)
        float64 for a quantity, int64 of shape (n, 1) for a class in 0 ... `n_classes` - 1.
    periods : array of float64, shape (d,)
        Length of the circle of each column, 0 where it is not circular.
    n_classes : int
        0 for a quantity.
    """

    values: NDArray[np.float64] | NDArray[np.int64]
    periods: NDArray[np.float64]
    n_classes: int = 0


@dataclass(frozen=True)
class KNN:
    """A decoder's two settings."""

    k: int
    metric: Metric


def circular_distance(
    a: NDArray[np.float64], b: NDArray[np.float64], period: float
) -> NDArray[np.float64]:
    """Shortest way round a circle, in its unit.

    Examples
    --------
    >>> float(circular_distance(np.array(350.0), np.array(10.0), 360.0))
    20.0
    """
    gap = np.mod(a - b, period)
    return np.asarray(np.minimum(gap, period - gap))


def error(
    target: Target, rows: NDArray[np.int64], predicted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance between truth and prediction, shape (n,): Euclidean over columns, circular where so.

    For classes 0 where right and 1 where wrong.
    """
    truth = np.asarray(target.values[rows], dtype=np.float64)
    if target.n_classes:
        return np.asarray((truth[:, 0] != predicted[:, 0]).astype(np.float64))
    gaps = [
        circular_distance(truth[:, j], predicted[:, j], float(p))
        if p
        else truth[:, j] - predicted[:, j]
        for j, p in enumerate(target.periods)
    ]
    return np.asarray(np.sqrt(np.sum(np.square(gaps), axis=0)))


def neighbours(
    train: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    *,
    metric: Metric = "cosine",
    train_group: NDArray[np.int64] | None = None,
    query_group: NDArray[np.int64] | None = None,
    device: str = "auto",
) -> NDArray[np.int64]:
    """The k training rows nearest to each query row, nearest first.

    Parameters
    ----------
    train : array, shape (n, D)
    query : array, shape (q, D)
    k : int
        At most n.
    metric : {"cosine", "euclidean"}
    train_group, query_group : arrays of int64, shapes (n,) and (q,), optional
        A query takes no neighbour of its own group.
    device : str

    Returns
    -------
    array of int64, shape (q, k)
        -1 where fewer than k rows are outside the query's group.

    Raises
    ------
    DataError
        If k is not between 1 and n.
    """
    if not 1 <= k <= len(train):
        raise DataError(f"k must be between 1 and the {len(train)} training rows; found {k}.")
    where = choose_device(device)
    a = torch.from_numpy(np.ascontiguousarray(train, dtype=np.float32)).to(where)
    b = torch.from_numpy(np.ascontiguousarray(query, dtype=np.float32)).to(where)
    if metric == "cosine":
        a, b = torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(b, dim=1)
        bias = torch.zeros(len(a), device=where)
    else:
        centre = a.mean(dim=0)
        a, b = a - centre, b - centre
        bias = -0.5 * a.square().sum(dim=1)
    own = None if train_group is None or query_group is None else (train_group, query_group)
    found = torch.empty((len(b), k), dtype=torch.int64)
    step = max(1, _PAIRS_AT_ONCE[where.type] // len(a))
    on_cpu = where.type == "cpu"
    # On CPUs NumPy's product: torch's is slower where its library does not know the processor.
    columns = a.T.contiguous() if on_cpu else a.T

    def some(i: int, j: int, out: Tensor) -> None:
        if on_cpu:
            similar = out[: j - i]
            np.matmul(b[i:j].numpy(), columns.numpy(), out=similar.numpy())
            if metric == "euclidean":
                similar += bias
        else:
            similar = torch.addmm(bias, b[i:j], columns)
        if own is not None:
            _hide(similar, own[0], own[1][i:j])
        values, place = _top(similar, k)
        found[i:j] = torch.where(torch.isneginf(values), -1, place).cpu()

    def search(begin: int, end: int) -> None:
        # One array for all chunks: fresh memory costs more than what is put into it.
        out = torch.empty((min(step, end - begin) if on_cpu else 0, len(a)))
        in_chunks(end - begin, step, lambda i, j: some(begin + i, begin + j, out), what="queries")

    if on_cpu and len(a) * len(b) > _WORTH_LANES and torch.get_num_threads() > 1:
        share = step * -(-len(b) // (_PIECES * step))  # whole chunks: the same as in one thread
        side_by_side(lambda i: search(i, min(i + share, len(b))), range(0, len(b), share))
    else:
        search(0, len(b))
    return found.numpy()


def _hide(similar: Tensor, train: NDArray[np.int64], query: NDArray[np.int64]) -> None:
    """Take rows and columns of equal group apart."""
    if similar.device.type != "cpu":
        a, b = (torch.from_numpy(each).to(similar.device) for each in (train, query))
        similar.masked_fill_(a[None, :] == b[:, None], -torch.inf)
        return
    for g in np.unique(query):  # far fewer numbers than a mask of all has
        rows, columns = np.flatnonzero(query == g), np.flatnonzero(train == g)
        if len(columns) and columns[-1] - columns[0] == len(columns) - 1:
            similar.numpy()[rows, columns[0] : columns[-1] + 1] = -np.inf
        else:
            similar.numpy()[rows[:, None], columns] = -np.inf


def _top(similar: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their places, largest first: what `torch.topk` finds.

    Looking for them among all n is most of the work of decoding. The k largest lie in the k
    groups of columns with the largest maxima, so they are looked for there: n + n / 16 + 16 k
    numbers instead of a selection from n. Which of equal ones is taken depends on their row alone.
    """
    rows, n = similar.shape
    groups = n // _GROUP
    if groups < 2 * k:
        place = _largest(similar, k)
        return _in_order(similar.gather(1, place), place)
    whole = similar[:, : groups * _GROUP].view(rows, _GROUP, groups)  # column j is in group j % g
    best = _largest(whole.amax(dim=1), k)
    some = whole.gather(2, best[:, None].expand(-1, _GROUP, -1)).reshape(rows, -1)
    candidates = torch.cat([some, similar[:, groups * _GROUP :]], dim=1)
    at = _largest(candidates, k)
    column = (at // k) * groups + best.gather(1, at % k)
    place = torch.where(at < _GROUP * k, column, groups * _GROUP + at - _GROUP * k)
    return _in_order(candidates.gather(1, at), place)


def _largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, in any order; on CPUs rising, the first of equals."""
    rows, n = values.shape
    if values.device.type != "cpu":
        return torch.topk(values, k, dim=1, sorted=False)[1]
    # Partitioning values alone is several times as fast as keeping track of where they came from.
    x, begin = values.numpy(), n * np.arange(rows)[:, None]
    taken = x >= np.partition(x, n - k, axis=1)[:, n - k, None]
    flat = np.flatnonzero(taken)
    if len(flat) == rows * k:
        place = flat.reshape(rows, k) - begin
        if (place[:, 0] >= 0).all() and (place[:, -1] < n).all():  # k of each row
            return torch.from_numpy(place)
    odd = np.flatnonzero(np.count_nonzero(taken, axis=1) != k)  # equals of the k-th, or no numbers
    some = np.where(np.isnan(x[odd]), np.inf, x[odd])
    least = np.partition(some, n - k, axis=1)[:, n - k, None]
    above, equal = some > least, some == least
    lacking = k - np.count_nonzero(above, axis=1)[:, None]
    taken[odd] = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= lacking))
    return torch.from_numpy(np.flatnonzero(taken).reshape(rows, k) - begin)


def _in_order(values: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the largest values first, equal ones by place."""
    if values.device.type != "cpu":
        values, order = values.sort(dim=1, descending=True, stable=True)
        return values, place.gather(1, order)
    # One integer holds both, and integers are sorted faster than anything beside which others move.
    bits = (values + 0.0).numpy().view(np.int32)  # + 0.0: there is a negative zero
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    key = np.sort((-rising << 32) | place.numpy(), axis=1)
    sorted_bits = -(key >> 32)
    bits = (sorted_bits ^ ((sorted_bits >> 31) & 0x7FFFFFFF)).astype(np.int32)
    return torch.from_numpy(bits.view(np.float32)), torch.from_numpy(key & 0xFFFFFFFF)


def predictions(
    target: Target, rows: NDArray[np.int64], nearest: NDArray[np.int64], ks: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Predictions for several numbers of neighbours from one table of neighbours.

    A quantity is the mean over neighbours (around the circle where it has a period), a class the
    most frequent one, the lowest class among equals: what scikit-learn's uniform weights give.

    Parameters
    ----------
    target : Target
    rows : array of int64, shape (n,)
        Row of `target` of each training row.
    nearest : array of int64, shape (q, K)
        From `neighbours`; -1 is left out.
    ks : sequence of int
        Each at most K.

    Returns
    -------
    list of arrays of float64, shape (q, d)
    """
    known = np.asarray(target.values[rows], dtype=np.float64)
    step = max(1, _NUMBERS_AT_ONCE // max(1, nearest.shape[1] * known.shape[1]))
    pieces = [
        _predictions(target, known, nearest[i : i + step], ks)
        for i in range(0, max(1, len(nearest)), step)
    ]
    return [np.concatenate(same) for same in zip(*pieces, strict=True)]


def _predictions(
    target: Target, known: NDArray[np.float64], nearest: NDArray[np.int64], ks: Sequence[int]
) -> list[NDArray[np.float64]]:
    """`predictions` for few enough queries to be held several times."""
    there = (nearest >= 0)[:, :, None]
    values = known[nearest]  # (q, K, d)
    out = []
    if target.n_classes:
        n = target.n_classes
        votes, done = np.zeros(len(nearest) * n), 0
        place = values[..., 0].astype(np.int64) + n * np.arange(len(nearest))[:, None]
        for k in sorted(ks):
            some = place[:, done:k][there[:, done:k, 0]]
            votes += np.bincount(some, minlength=len(votes))
            done = k
            out.append(votes.reshape(-1, n).argmax(axis=1)[:, None].astype(np.float64))
        return [out[sorted(ks).index(k)] for k in ks]
    order = sorted(set(ks))

    def sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the first k neighbours, for each k in order, (q, len(order), d)."""
        between = np.add.reduceat(x[:, : order[-1]], [0, *order[:-1]], axis=1)
        return np.asarray(np.cumsum(between, axis=1))

    every = sums(values * there) / np.maximum(sums(there.astype(np.float64)), 1)
    if target.periods.any():
        safe = np.where(target.periods > 0, target.periods, 1.0)
        angle = 2 * np.pi * values / safe
        east, north = sums(np.cos(angle) * there), sums(np.sin(angle) * there)
        around = np.mod(np.arctan2(north, east), 2 * np.pi) * safe / (2 * np.pi)
        every = np.where(target.periods > 0, around, every)
    return [every[:, order.index(k)] for k in ks]


def tune(
    features: NDArray[np.float32],
    target: Target,
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    most: int = 1500,
    device: str = "auto",
) -> KNN:
    """Choose k and the metric inside the training rows, each judged by other groups only.

    Parameters
    ----------
    features : array of float32, shape (n, D)
        Training rows.
    target : Target
    rows : array of int64, shape (n,)
        Row of `target` of each training row.
    groups : array of int64, shape (n,)
        Repeat (or block) of each training row.
    most : int
        Rows that are judged, evenly spread; all are neighbours.

    Returns
    -------
    KNN
        With the smallest mean error; the larger k among equals.
    """
    table = judge(features, groups, most=most, device=device)
    if table is None:
        return lone(len(features))
    return best_settings(target, rows, rows[table.judged], table.nearest, table.ks)


def best_settings(
    target: Target,
    rows: NDArray[np.int64],
    judged: NDArray[np.int64],
    nearest: Mapping[Metric, NDArray[np.int64]],
    ks: Sequence[int],
) -> KNN:
    """The settings with the smallest mean error over judged rows; the larger k among equals.

    Parameters
    ----------
    target : Target
    rows : array of int64, shape (n,)
        Row of `target` of each training row.
    judged : array of int64, shape (J,)
        Row of `target` of each judged row.
    nearest : mapping of metric to array of int64, shape (J, K)
        Their neighbours among the training rows.
    ks : sequence of int
        Each at most K.

    Returns
    -------
    KNN
    """
    found = (np.inf, KNN(1, "cosine"))
    for metric, table in nearest.items():
        for k, predicted in zip(ks, predictions(target, rows, table, ks), strict=True):
            score = float(error(target, judged, predicted).mean())
            if score < found[0] or (score == found[0] and k > found[1].k):
                found = (score, KNN(k, metric))
    return found[1]


def metrics_of(features: NDArray[np.float32]) -> tuple[Metric, ...]:
    """The metrics between which there is a choice: on a sphere round zero both order rows alike."""
    squares = np.einsum("ij,ij->i", features, features, dtype=np.float64)
    alike = np.ptp(squares) <= 1e-5 * squares.mean() if len(squares) else True
    return METRICS[:1] if alike else METRICS


def candidates(n: int) -> tuple[int, ...]:
    """Numbers of neighbours that are tried where there are n training rows."""
    return tuple(k for k in _KS if k <= max(1, n // 4))


@dataclass(frozen=True, eq=False)
class Judged:
    """What k and the metric are chosen by: it holds for any labels of the rows.

    Attributes
    ----------
    judged : array of int64, shape (J,)
        Training rows that are judged.
    ks : tuple of int
    nearest : mapping of metric to array of int64, shape (J, max(ks))
        Their neighbours among the training rows of other groups, as from `neighbours`.
    """

    judged: NDArray[np.int64]
    ks: tuple[int, ...]
    nearest: Mapping[Metric, NDArray[np.int64]]


def judge(
    features: NDArray[np.float32],
    groups: NDArray[np.int64],
    *,
    most: int = 1500,
    device: str = "auto",
) -> Judged | None:
    """Neighbours of training rows in other groups; None where there is but one group."""
    if len(np.unique(groups)) < 2:
        return None
    ks = candidates(len(features))
    judged = evenly(len(features), most)
    nearest = {
        metric: neighbours(
            features,
            features[judged],
            ks[-1],
            metric=metric,
            train_group=groups,
            query_group=groups[judged],
            device=device,
        )
        for metric in metrics_of(features)
    }
    return Judged(judged, ks, nearest)


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """At most so many of n rows, evenly spread."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(most, n)).astype(np.int64))


def lone(n: int) -> KNN:
    """What n training rows of one group are decoded with, where nothing can be chosen."""
    return KNN(k=max(1, min(5, n // 2)), metric="cosine")


def predict(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    settings: KNN,
    *,
    device: str = "auto",
) -> NDArray[np.float64]:
    """Decode query rows from training rows, shape (q, d)."""
    k = min(settings.k, len(train))
    nearest = neighbours(train, query, k, metric=settings.metric, device=device)
    return predictions(target, train_rows, nearest, [k])[0]


def predict_without(
    train: NDArray[np.float32],
    train_rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    target: Target,
    settings: KNN,
    *,
    device: str = "auto",
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.float64]]]:
    """`predict`, and what it would be had any one group of the training rows not been there.

    Neighbours are looked for once: those that are left when a group goes are among a few more.

    Parameters
    ----------
    train : array, shape (n, D)
    train_rows, groups : arrays of int64, shape (n,)
        Row of `target`, and repeat (or block), of each training row.
    query : array, shape (q, D)
    target : Target
    settings : KNN
    device : str

    Returns
    -------
    predicted : array, shape (q, d)
    without : dict of group to array, shape (q, d)
        Nothing for a group that is all there is.
    """
    k = min(settings.k, len(train))
    wide = min(len(train), k + k // 2 + 16)
    nearest = neighbours(train, query, wide, metric=settings.metric, device=device)
    whole = predictions(target, train_rows, nearest[:, :k], [k])[0]
    of = groups[nearest]
    without = {}
    for g in np.unique(groups):
        rest = np.flatnonzero(groups != g)
        if not len(rest):
            continue
        mine = np.flatnonzero((of[:, :k] == g).any(axis=1))  # the others lose no neighbour
        stay = of[mine] != g
        near = np.where(stay & (np.cumsum(stay, axis=1) <= k), nearest[mine], -1)
        some = min(k, len(rest))
        lacking = np.flatnonzero(stay.sum(axis=1) < some)
        if len(lacking):
            found = neighbours(
                train[rest], query[mine[lacking]], some, metric=settings.metric, device=device
            )
            near[lacking] = -1
            near[lacking, :some] = rest[found]
        without[int(g)] = whole.copy()
        if len(mine):
            without[int(g)][mine] = predictions(target, train_rows, near, [wide])[0]
    return whole, without
