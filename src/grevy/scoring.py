"""Scores of what decoders said, with intervals over repeats, and differences between decoders.

Values are taken repeat by repeat (or block by block), never over samples, which are not
independent. Repeats are not independent either once decoders have learnt from one another's: with a
decoder that learnt from nine repeats and is tested on the tenth, an interval from the spread of ten
scores holds its true value in 40 to 85 of 100 sessions (docs/log.md). So intervals come from the
jackknife over repeats (Quenouille 1956; Miller 1974, doi:10.1093/biomet/61.1.1; Efron & Stein 1981,
doi:10.1214/aos/1176345462): the whole score is computed again without each repeat, which is then
neither tested nor learnt from, whatever the folds are and however they overlap. Encoders are not
trained anew for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .decode import error
from .evaluate import BASELINES, CONSTANT, EMBEDDING, Predicted, Problem, by_subset
from .results import Confusion, Difference, Score

__all__ = [
    "Jackknife",
    "Scored",
    "average",
    "confusion",
    "differences",
    "every_score",
    "scores",
]


@dataclass(frozen=True, eq=False)
class Jackknife:
    """A statistic of repeats, and what it is without each of them.

    Attributes
    ----------
    value : float
    without : array of float64, shape (n,)
    """

    value: float
    without: NDArray[np.float64]

    def __sub__(self, other: Jackknife) -> Jackknife:
        return Jackknife(self.value - other.value, self.without - other.without)

    def interval(self) -> tuple[float, float, float]:
        """The value and the bounds of its 95 % interval; NaN bounds below three repeats.

        Student's t with n - 1 degrees of freedom times the jackknife's standard error,
        sqrt((n - 1) / n sum (without_i - mean)^2).
        """
        n = len(self.without)
        if n < 3:
            return self.value, float("nan"), float("nan")
        spread = np.square(self.without - self.without.mean()).sum()
        half = float(stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * spread))
        return self.value, self.value - half, self.value + half


def average(found: Sequence[Jackknife]) -> Jackknife:
    """The mean of several statistics of the same repeats."""
    without = np.mean([each.without for each in found], axis=0)
    return Jackknife(float(np.mean([each.value for each in found])), without)


@dataclass(frozen=True)
class _Metric:
    name: str
    unit: str
    higher: bool


def _metrics(problem: Problem) -> tuple[_Metric, ...]:
    if problem.target.n_classes:
        return (_Metric("accuracy", "", True),)
    kept = (_Metric("median error", problem.unit, False), _Metric("accuracy", "", True))
    circular = bool(problem.target.periods.any())
    if circular:
        return kept
    return (*kept, _Metric("rank correlation", "", True), _Metric("r2", "", True))


@dataclass(frozen=True, eq=False)
class _Subset:
    """What all methods share in one subset: its rows, repeat by repeat, and what is true of them.

    Attributes
    ----------
    rows : array of int64, shape (n,)
        Of `Predicted`, sorted by repeat.
    repeats : array of int64, shape (G,)
        That are tested.
    of : array of int64, shape (n,)
        Place in `repeats` of each row.
    left_out : list of int
        Repeats that are tested, or that any method learnt from: alike for all methods.
    truth : array, shape (n, d)
    ranks : array of float64, shape (n, d)
        Of the truth in its repeat, less their mean.
    spread : array of float64, shape (1 + len(left_out),)
        Squared distance of the truth from its mean; then without each of `left_out`.
    """

    rows: NDArray[np.int64]
    repeats: NDArray[np.int64]
    of: NDArray[np.int64]
    left_out: list[int]
    truth: NDArray[Any]
    ranks: NDArray[np.float64]
    spread: NDArray[np.float64]

    def rest(self, g: int | None) -> NDArray[np.bool_]:
        """Which of `repeats` are left without one."""
        return np.asarray(self.repeats != g if g is not None else np.ones(len(self.repeats), bool))

    def blocks(self, some: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
        """Rows of the subset (k, m) of those of some repeats that have m rows, for each m."""
        sizes = np.bincount(self.of, minlength=len(self.repeats))
        begin = np.cumsum(sizes) - sizes
        for m in np.unique(sizes[some]):
            yield begin[some & (sizes == m), None] + np.arange(m)


def _subset(problem: Problem, p: Predicted, at: NDArray[np.int64]) -> _Subset:
    rows = at[np.argsort(p.group[at], kind="stable")]
    repeats, of = np.unique(p.group[rows], return_inverse=True)
    learnt = {
        g
        for without in p.without.values()
        for g, said in without.items()
        if np.isfinite(said[at]).any()
    }
    left_out = sorted({*repeats.tolist(), *learnt})
    truth = problem.target.values[p.samples[rows]]
    y = np.asarray(truth, dtype=np.float64)
    whole = [y, *(y[p.group[rows] != g] for g in left_out)]
    spread = np.array([np.square(v - v.mean(axis=0)).sum() if len(v) else np.nan for v in whole])
    shared = _Subset(rows, repeats, of, left_out, truth, np.empty(truth.shape), spread)
    for block in shared.blocks(shared.rest(None)):
        shared.ranks[block] = _ranks(truth[block])
    return shared


def _ranks(x: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks in each repeat, less their mean, (k, m, d)."""
    ranks = stats.rankdata(x, axis=1)
    return np.asarray(ranks - ranks.mean(axis=1, keepdims=True))


def _of_repeats(
    metrics: Sequence[_Metric],
    problem: Problem,
    tolerance: float,
    shared: _Subset,
    samples: NDArray[np.int64],
    said: NDArray[np.float64],
    some: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Every metric of some repeats, (metrics, number of them): of R2 the squared error.

    Error, share within the tolerance, Spearman's rank correlation (`_rank_correlation`).
    """
    out = np.empty((len(metrics), len(shared.repeats)))
    for block in shared.blocks(some):
        far = error(problem.target, samples[block.ravel()], said[block.ravel()])
        far = far.reshape(block.shape)
        mine = shared.of[block[:, 0]]
        for row, metric in zip(out, metrics, strict=True):
            match metric.name:
                case "median error":
                    row[mine] = np.median(far, axis=1)
                case "accuracy":
                    row[mine] = np.mean(far <= tolerance, axis=1)
                case "rank correlation":
                    row[mine] = _rank_correlation(shared.ranks[block], _ranks(said[block]))
                case _:
                    row[mine] = np.square(far).sum(axis=1)
    return out[:, some]


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of ranks (k, m, d) less their mean, the mean over columns, (k,).

    0 for a prediction that is constant, which orders nothing; NaN where the truth is constant, and
    there is no order to find.
    """
    spread, said = np.square(a).sum(axis=1), np.square(b).sum(axis=1)
    told = spread > 0
    r = (a * b).sum(axis=1) / np.sqrt(np.where(told, spread, 1) * np.where(said > 0, said, 1))
    columns = told.sum(axis=1)
    return np.asarray(
        np.where(columns > 0, np.where(told, r, 0).sum(axis=1) / np.maximum(columns, 1), np.nan)
    )


def _over_repeats(metric: _Metric, each: NDArray[np.float64], spread: float) -> float:
    """The mean over repeats of each repeat's score; R2 is pooled over them."""
    if metric.name == "r2":
        return float(1 - each.sum() / spread) if spread > 0 else float("nan")
    if metric.name == "rank correlation":
        each = each[np.isfinite(each)]
    return float(np.mean(each)) if len(each) else float("nan")


def _jackknives(
    metrics: Sequence[_Metric],
    problem: Problem,
    subset: int,
    p: Predicted,
    shared: _Subset,
    values: NDArray[np.float64],
    without: Mapping[int, NDArray[np.float64]],
) -> list[Jackknife]:
    """A method's scores in one subset, and without each repeat that was tested or learnt from.

    Where a repeat is missing, only those are scored again of which something else would have been
    said.

    Parameters
    ----------
    metrics, problem, subset
    p : Predicted
    shared : _Subset
    values : array of float64, shape (N, d)
        What the method said.
    without : mapping of group to array of float64, shape (N, d)
        What it would have said without a group; NaN where that was not there to learn from.
    """
    samples, said = p.samples[shared.rows], values[shared.rows]

    def of(words: NDArray[np.float64], some: NDArray[np.bool_]) -> NDArray[np.float64]:
        return _of_repeats(
            metrics, problem, problem.tolerance[subset], shared, samples, words, some
        )

    whole = of(said, shared.rest(None))
    found = []
    for g in shared.left_out:
        each, rest = whole.copy(), shared.rest(g)
        if g in without:
            other = without[g][shared.rows]
            new = ~np.isnan(other)
            changed = np.bincount(shared.of[new.any(axis=1)], minlength=len(rest)) > 0
            changed &= rest
            each[:, changed] = of(np.where(new, other, said), changed)
        found.append(each[:, rest])
    return [
        Jackknife(
            _over_repeats(metric, whole[i], shared.spread[0]),
            np.array(
                [
                    _over_repeats(metric, each[i], spread)
                    for each, spread in zip(found, shared.spread[1:], strict=True)
                    if each.size
                ]
            ),
        )
        for i, metric in enumerate(metrics)
    ]


def _every_method(
    problem: Problem, subset: int, p: Predicted, at: NDArray[np.int64]
) -> Iterator[tuple[_Metric, dict[str, Jackknife]]]:
    """For each metric the score of every method, the best constant last."""
    metrics, shared = _metrics(problem), _subset(problem, p, at)

    def of(
        values: NDArray[np.float64], without: Mapping[int, NDArray[np.float64]]
    ) -> list[Jackknife]:
        return _jackknives(metrics, problem, subset, p, shared, values, without)

    constants = [of(c, {}) for c in p.constants]
    each = {method: of(values, p.without.get(method, {})) for method, values in p.values.items()}
    for i, metric in enumerate(metrics):
        sign = 1 if metric.higher else -1
        best = max((c[i] for c in constants), key=lambda c: c.value * sign)
        yield metric, {**{method: found[i] for method, found in each.items()}, CONSTANT: best}


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one subset: what every method reaches, the best constant last.

    Attributes
    ----------
    stimulus : str
        Name of the subset.
    metric, unit : str
    higher : bool
        Whether higher is better.
    n_repeats : int
        That are tested.
    each : mapping of method to Jackknife
    """

    stimulus: str
    metric: str
    unit: str
    higher: bool
    n_repeats: int
    each: Mapping[str, Jackknife]


def every_score(problem: Problem, predicted: Predicted) -> list[Scored]:
    """Every subset and metric, for all methods and the best constant predictor at it."""
    return [
        Scored(
            name,
            metric.name,
            metric.unit,
            metric.higher,
            len(np.unique(predicted.group[at])),
            each,
        )
        for s, name, at in by_subset(problem, predicted)
        for metric, each in _every_method(problem, s, predicted, at)
    ]


def scores(problem: Problem, predicted: Predicted) -> list[Score]:
    """Score rows of every subset, method and metric, chance being the best constant predictor.

    Parameters
    ----------
    problem : Problem
    predicted : Predicted

    Returns
    -------
    list of Score
    """
    rows = []
    for s in every_score(problem, predicted):
        for method, found in s.each.items():
            value, low, high = found.interval()
            rows.append(
                Score(
                    target=problem.name, stimulus=s.stimulus, method=method, metric=s.metric,
                    value=value, chance=s.each[CONSTANT].value, n_repeats=s.n_repeats, low=low,
                    high=high, unit=s.unit, higher_is_better=s.higher,
                )
            )  # fmt: skip
    return rows


def differences(problem: Problem, predicted: Predicted) -> list[Difference]:
    """Embedding minus each other method on the same folds, with 95 % intervals.

    The best constant predictor is one of them: the difference to it says whether a score is better
    than chance, also where chance itself differs from block to block.
    """
    rows = []
    for s in every_score(problem, predicted):
        others = [m for m in s.each if m not in (EMBEDDING, *BASELINES)]
        for baseline in (*(b for b in BASELINES if b in s.each), *others):
            value, low, high = (s.each[EMBEDDING] - s.each[baseline]).interval()
            sign = 1 if s.higher else -1
            better = "undecided"
            if sign * low > 0 and sign * high > 0:
                better = "embedding"
            elif sign * low < 0 and sign * high < 0:
                better = "baseline"
            rows.append(
                Difference(
                    problem.name, s.stimulus, s.metric, baseline, value, low, high, s.n_repeats,
                    better, s.unit,
                )
            )  # fmt: skip
    return rows


def confusion(problem: Problem, predicted: Predicted, names: tuple[str, ...]) -> Confusion:
    """Samples of each class (rows) by the class that the embedding's decoder said (columns)."""
    n = len(names)
    truth = np.asarray(problem.target.values[predicted.samples, 0], dtype=np.int64)
    said = predicted.values[EMBEDDING][:, 0].astype(np.int64)
    counts = np.bincount(truth * n + said, minlength=n * n).reshape(n, n)
    return Confusion(names, tuple(tuple(int(c) for c in row) for row in counts), EMBEDDING)
