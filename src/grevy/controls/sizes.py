"""How many samples there are, and how many independent ones that is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..decode import Target
from ..errors import DataError
from ..evaluate import EMBEDDING, Features, Problem
from ..recording import Recording
from ..results import SampleSize
from ..splits import Plan, autocorrelation, mask_of
from ..windows import Spans

__all__ = ["effective_samples", "sample_sizes"]


def effective_samples(target: Target, known: NDArray[np.bool_], epochs: Spans) -> float:
    """How many independent samples would tell as much about the mean.

    n / (1 + 2 sum of the autocorrelation over lags), the sum ended before the first pair of lags
    (2 m, 2 m + 1) that is not positive, because what comes later is noise: the initial positive
    sequence of Geyer (1992, doi:10.1214/ss/1177011137).

    Parameters
    ----------
    target : Target
        With T rows; several columns are pooled, as in `splits.autocorrelation`.
    known : array of bool, shape (T,)
        Samples that count.
    epochs : array of int64, shape (E, 2)
        Pairs of samples lie in one epoch.

    Returns
    -------
    float
        From 1 (a series that never changes) to n, also where samples avoid each other.

    Raises
    ------
    DataError
        If no sample counts.

    Examples
    --------
    >>> slow = np.repeat(np.random.default_rng(0).standard_normal(2000), 10)[:, None]
    >>> some = Target(slow, np.zeros(1))
    >>> round(effective_samples(some, np.ones(20000, bool), np.array([[0, 20000]])), -2)
    2000.0
    """
    n = int((known & mask_of(epochs, len(known))).sum())
    if not n:
        raise DataError("a series must be known somewhere to have a sample size; found nowhere.")
    correlation = autocorrelation(target, known, epochs)
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    time = 2 * pairs[: ends[0] if len(ends) else len(pairs)].sum() - 1
    return max(1.0, n / max(1.0, float(time)))


def sample_sizes(
    recording: Recording, problems: Sequence[Problem], plan: Plan, embedding: Features
) -> list[SampleSize]:
    """Samples, what they are worth, and repeats, of the embedding and of what is decoded from it.

    Parameters
    ----------
    recording : Recording
    problems : sequence of Problem
        That share the plan.
    plan : Plan
    embedding : Features
        Of one fold.

    Returns
    -------
    list of SampleSize
        First the embedding, then a row a problem.
    """
    z = embedding.values[EMBEDDING]
    values, known = np.zeros((recording.n_samples, z.shape[1])), np.zeros(recording.n_samples, bool)
    values[embedding.samples], known[embedding.samples] = z, True
    scored = plan.scored
    series = [(EMBEDDING, Target(values, np.zeros(z.shape[1])), known, [scored])]
    series += [
        (p.name, p.target, p.subset >= 0, [scored & (p.subset == s) for s in range(len(p.names))])
        for p in problems
    ]
    rows = []
    for name, target, counts, subsets in series:
        n = int((counts & mask_of(recording.epochs, len(counts))).sum())
        worth = effective_samples(target, counts, recording.epochs)
        repeats = [len(np.unique(plan.group[some])) for some in subsets if some.any()]
        seconds = n / worth / recording.rate_hz
        rows.append(SampleSize(name, n, worth, seconds, min(repeats, default=0)))
    return rows
