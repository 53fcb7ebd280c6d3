"""Decoding one presentation from one other: does it matter how far apart they are?

Codes change within a session (Deitch, Rubin & Ziv 2021, doi:10.1016/j.cub.2021.07.062).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from ..decode import (
    Metric,
    best_settings,
    candidates,
    error,
    evenly,
    lone,
    metrics_of,
    neighbours,
    predictions,
)
from ..draws import Purpose, uniforms
from ..evaluate import EMBEDDING, Features, Problem
from ..nulls import p_value
from ..results import AtDistance, Drift
from ..scoring import Jackknife
from ..splits import Plan, trained_samples
from ..windows import Spans

__all__ = ["drift"]

_JUDGED = 300
"""Training rows that settings are chosen by, each decoded from every other repeat by itself."""


def drift(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> list[Drift]:
    """Decode each held-out presentation from one other at a time, near or far in the session.

    k and metric are chosen once a fold, training presentations decoding each other, so they are
    the same at every distance. Training presentations that the guard cut are not used: they would
    make neighbours look bad.

    The slope is that of a regression of the errors on distance, with a level for each presentation
    that is decoded and for each that is learnt from: a restless animal at the end of a session is
    no drift. Its p value is that of the same regression after the repeats were put in other orders,
    rows and columns of the table of errors alike (Mantel 1967, Cancer Research 27, 209-220), so it
    holds however few repeats there are: with five it cannot be below 1/15, with four below 1/3,
    and with three there is no slope.

    Parameters
    ----------
    problem : Problem
        For classes the error is the share of wrong samples, else the median of a presentation.
    plan : Plan
        Of repeats, counted in order of time; or of blocks.
    epochs : array of int64, shape (E, 2)
    features : sequence of Features
        Of each fold; the embedding is used.
    n : int
        Other orders; with 0 there is no p value.
    seed : int
    device : str

    Returns
    -------
    list of Drift
        A row a stimulus, with the mean error at every distance and its 95 % interval over the
        presentations that are decoded.
    """
    rows = []
    for s, name in enumerate(problem.names):
        parts = [
            _one_by_one(problem, plan, epochs, k, f, s, device) for k, f in enumerate(features)
        ]
        asked, learnt, far = _mean_of_pairs(
            *(np.concatenate([p[i] for p in parts]) for i in range(3))
        )
        if not len(far):
            continue
        slope, p = _trend(asked, learnt, far, n, seed, s)
        rows.append(
            Drift(
                target=problem.name,
                stimulus=name,
                statistic="error rate" if problem.target.n_classes else "median error",
                unit=problem.unit,
                slope=slope,
                p=p,
                n_nulls=n,
                n_repeats=len(np.unique(asked)),
                by_distance=_by_distance(asked, learnt, far),
            )
        )
    return rows


def _one_by_one(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    fold: int,
    f: Features,
    s: int,
    device: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Repeat asked for, repeat learnt from, and error, of every pair in one fold."""
    x, groups = f.values[EMBEDDING], plan.group[f.samples]
    here = (problem.subset[f.samples] == s) & (groups >= 0)
    trained = trained_samples(plan, epochs, fold)[f.samples]
    ask = np.flatnonzero(here & plan.tested[fold][f.samples])
    cut = np.unique(groups[here & ~trained])
    fit = np.flatnonzero(here & ~np.isin(groups, cut))
    fit = fit[np.argsort(groups[fit], kind="stable")]
    repeats, start = np.unique(groups[fit], return_index=True)
    if not len(ask) or not len(fit):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    parts = np.split(fit, start[1:])
    ks = candidates(min(map(len, parts)))

    def apart(
        query: NDArray[np.int64], k: int, metric: Metric
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Query rows, the repeat each is decoded from, and its neighbours there."""
        rows, source, nearest = [], [], []
        for g, a, part in zip(repeats, start, parts, strict=True):
            some = query[groups[query] != g]
            if len(some):
                rows.append(some)
                source.append(np.full(len(some), g))
                nearest.append(a + neighbours(x[part], x[some], k, metric=metric, device=device))
        return np.concatenate(rows), np.concatenate(source), np.concatenate(nearest)

    settings = lone(min(map(len, parts)))
    if len(parts) > 1:
        judged = fit[evenly(len(fit), _JUDGED)]
        tables = {metric: apart(judged, ks[-1], metric) for metric in metrics_of(x[fit])}
        nearest = {metric: table[2] for metric, table in tables.items()}
        rows = f.samples[tables["cosine"][0]]
        settings = best_settings(problem.target, f.samples[fit], rows, nearest, ks)
    rows, source, near = apart(ask, settings.k, settings.metric)
    said = predictions(problem.target, f.samples[fit], near, [settings.k])[0]
    far = error(problem.target, f.samples[rows], said)
    wide = int(groups.max()) + 1
    pairs, which = np.unique(groups[rows] * wide + source, return_inverse=True)
    middle = np.mean if problem.target.n_classes else np.median
    each = np.array([middle(far[which == i]) for i in range(len(pairs))])
    return pairs // wide, pairs % wide, each


def _mean_of_pairs(
    asked: NDArray[np.int64], learnt: NDArray[np.int64], far: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """One row a pair, in order: folds that overlap ask for the same one more than once."""
    pairs, which = np.unique(np.stack([asked, learnt], axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    n = np.bincount(which, minlength=len(pairs))
    return pairs[:, 0], pairs[:, 1], np.bincount(which, far, len(pairs)) / np.maximum(n, 1)


def _trend(
    asked: NDArray[np.int64],
    learnt: NDArray[np.int64],
    far: NDArray[np.float64],
    n: int,
    seed: int,
    stimulus: int,
) -> tuple[float, float]:
    """Slope of errors on distance, levels of rows and columns removed, and its p value.

    NaN where the levels leave nothing of the distances.
    """
    repeats, place = np.unique(np.concatenate([asked, learnt]), return_inverse=True)
    row, column = place[: len(far)], place[len(far) :]
    purpose = Purpose.CONTROL + 256 * (1 + stimulus)
    keys = uniforms(seed, purpose, torch.arange(n), len(repeats)).numpy()
    orders = np.concatenate([repeats[None], repeats[np.argsort(keys, axis=1)]])
    levels = np.concatenate([np.eye(len(repeats))[row], np.eye(len(repeats))[column]], axis=1)
    basis = linalg.orth(levels)
    distance = np.abs(orders[:, row] - orders[:, column]).astype(np.float64)
    rest = distance - (distance @ basis) @ basis.T
    spread = np.linalg.norm(rest, axis=1)
    enough = spread > 1e-6 * np.linalg.norm(distance, axis=1)
    # Divided by the spread of the distances, which differs between orders where pairs are missing.
    strength = np.where(enough, (rest @ far) / np.where(enough, spread, 1.0), np.inf)
    if not enough[0]:
        return float("nan"), float("nan")
    if not n:
        return float(strength[0] / spread[0]), float("nan")
    # Orders that differ in direction alone agree, but not to the last digit.
    observed = strength[0] - 1e-9 * float(np.linalg.norm(far))
    return float(strength[0] / spread[0]), p_value(observed, strength[1:], higher=True)


def _by_distance(
    asked: NDArray[np.int64], learnt: NDArray[np.int64], far: NDArray[np.float64]
) -> tuple[AtDistance, ...]:
    """Mean error at each distance; a presentation with two such neighbours counts once."""

    def mean(at: NDArray[np.int64]) -> float:
        return float(np.mean([far[at[asked[at] == g]].mean() for g in np.unique(asked[at])]))

    rows, distance = [], np.abs(asked - learnt)
    for d in np.unique(distance):
        at = np.flatnonzero(distance == d)
        left = [
            at[(asked[at] != g) & (learnt[at] != g)]
            for g in np.unique(np.concatenate([asked[at], learnt[at]]))
        ]
        found = Jackknife(mean(at), np.array([mean(rest) for rest in left if len(rest)]))
        rows.append(AtDistance(int(d), *found.interval(), len(np.unique(asked[at]))))
    return tuple(rows)
