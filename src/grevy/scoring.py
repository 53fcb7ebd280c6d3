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

from collections.abc import Mapping, Sequence
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
    "jackknife",
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


def _statistic(
    metric: _Metric,
    problem: Problem,
    subset: int,
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    predicted: NDArray[np.float64],
) -> float:
    """The mean over repeats of each repeat's score; R2 is pooled over them.

    Error, share within the tolerance, Spearman's rank correlation (a constant has none: 0), R2.
    """
    far = error(problem.target, rows, predicted)
    if metric.name == "r2":
        y = np.asarray(problem.target.values[rows], dtype=np.float64)
        spread = np.square(y - y.mean(axis=0)).sum()
        return float(1 - np.square(far).sum() / spread) if spread > 0 else float("nan")
    if metric.name == "rank correlation":
        truth = problem.target.values[rows]
        of = [_rank_correlation(truth[group == g], predicted[group == g]) for g in np.unique(group)]
        told = [r for r in of if np.isfinite(r)]
        return float(np.mean(told)) if told else float("nan")
    units = [far[group == g] for g in np.unique(group)]
    if metric.name == "median error":
        return float(np.mean([np.median(u) for u in units]))
    return float(np.mean([np.mean(u <= problem.tolerance[subset]) for u in units]))


def _rank_correlation(truth: NDArray[Any], predicted: NDArray[np.float64]) -> float:
    """Spearman's, the mean over columns: 0 for a prediction that is constant, which orders nothing.

    NaN where the truth is constant: there is no order to find.
    """
    a, b = (stats.rankdata(x, axis=0) for x in (truth, predicted))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread, said = np.square(a).sum(axis=0), np.square(b).sum(axis=0)
    varies = spread > 0
    if not varies.any():
        return float("nan")
    r = (a * b).sum(axis=0)[varies] / np.sqrt(spread * np.where(said > 0, said, 1))[varies]
    return float(r.mean())


def jackknife(
    metric: _Metric,
    problem: Problem,
    subset: int,
    p: Predicted,
    at: NDArray[np.int64],
    values: NDArray[np.float64],
    without: Mapping[int, NDArray[np.float64]],
) -> Jackknife:
    """A method's score in one subset, and without each repeat that was tested or learnt from.

    Parameters
    ----------
    metric, problem, subset
    p : Predicted
    at : array of int64, shape (n,)
        Rows of the subset.
    values : array of float64, shape (N, d)
        What the method said.
    without : mapping of group to array of float64, shape (N, d)
        What it would have said without a group; NaN where that was not there to learn from.
    """

    def of(some: NDArray[np.int64], said: NDArray[np.float64]) -> float:
        return _statistic(metric, problem, subset, p.samples[some], p.group[some], said)

    found = []
    for g in _repeats(p, at):
        rest = at[p.group[at] != g]
        said = values[rest]
        if g in without:
            said = np.where(np.isnan(without[g][rest]), said, without[g][rest])
        if len(rest):
            found.append(of(rest, said))
    return Jackknife(of(at, values[at]), np.array(found))


def _repeats(p: Predicted, at: NDArray[np.int64]) -> list[int]:
    """Repeats that some rows are of, or that any method learnt from for them: alike for all."""
    learnt = {
        g
        for without in p.without.values()
        for g, said in without.items()
        if np.isfinite(said[at]).any()
    }
    return sorted({*np.unique(p.group[at]).tolist(), *learnt})


def _every_method(
    metric: _Metric, problem: Problem, subset: int, p: Predicted, at: NDArray[np.int64]
) -> dict[str, Jackknife]:
    """The score of every method, the best constant last."""

    def of(values: NDArray[np.float64], without: Mapping[int, NDArray[np.float64]]) -> Jackknife:
        return jackknife(metric, problem, subset, p, at, values, without)

    constants = [of(c, {}) for c in p.constants]
    best = max(constants, key=lambda c: c.value * (1 if metric.higher else -1))
    each = {method: of(values, p.without.get(method, {})) for method, values in p.values.items()}
    return {**each, CONSTANT: best}


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
            _every_method(metric, problem, s, predicted, at),
        )
        for s, name, at in by_subset(problem, predicted)
        for metric in _metrics(problem)
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
