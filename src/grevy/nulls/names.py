"""Content and identity: presentations change places, or names (`exchange` says which may)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..decode import judge, neighbours
from ..evaluate import EMBEDDING, Features, Problem, learnt_and_asked
from ..processors import side_by_side
from ..splits import Plan, trained_samples
from ..windows import Spans
from .exchange import Names, exchange_names
from .values import Tested

__all__ = ["content", "families", "identity", "renamed_samples"]

_WIDTHS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Of the kernel that weighs neighbours for the claim of content, in units of cosine."""
_FEWER = 8000
"""Rows of all movies together that the claim of content is tested on."""
_VOTERS = (500, 1000)
"""Rows that are judged and asked a fold for the claim of identity."""


def families(problem: Problem, lengths: Sequence[float]) -> list[list[int]]:
    """Subsets of equal length, in seconds to the millisecond, two or more of each."""
    by: dict[float, list[int]] = {}
    for s in range(len(problem.names)):
        by.setdefault(round(lengths[s], 3), []).append(s)
    return [members for members in by.values() if len(members) > 1]


def renamed_samples(
    problem: Problem, plan: Plan, lengths: Sequence[float], n: int, seed: int
) -> NDArray[np.int64]:
    """For each sample one of the stimulus that it takes the name of, (T, n), null 1 first.

    As in `identity`; samples of no subset keep their own. The problem is "frame".
    """
    here = np.flatnonzero((problem.subset >= 0) & (plan.group >= 0))
    subset, group = problem.subset[here], plan.group[here]
    names = exchange_names(subset, group, families(problem, lengths), n, seed)
    called = names.called[1:, names.places(subset, group)].T
    first = np.zeros(len(problem.names), dtype=np.int64)
    there, at = np.unique(subset, return_index=True)
    first[there] = here[at]
    taken = np.tile(np.arange(len(plan.group))[:, None], (1, n))
    taken[here] = first[called]
    return taken


def content(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    lengths: Sequence[float],
    *,
    n: int = 999,
    seed: int = 0,
) -> list[Tested]:
    """Test each movie against pseudo-movies made of presentations of equally long ones.

    The statistic is what is gained by knowing the movie: the median error of a presentation that is
    decoded from the other movies, less that from its own, averaged over presentations. Both come
    from a decoder that is a sum over presentations, the mean moment of training samples weighed by
    exp((cosine - 1) / width), with widths chosen inside the training data. A clock since onset
    serves all movies alike and gains nothing. The p value of a movie compares it with the
    pseudo-movies that bear its name, which under the null are exchangeable with it. (The error
    from its own movie alone has less power: pseudo-movies with many presentations of a strongly
    represented movie are better decoded than a weakly represented movie.)

    Parameters
    ----------
    problem : Problem
        "frame".
    plan, epochs, features, n, seed
        As `time_locked`.
    lengths : sequence of float
        Of the subsets of the problem, in seconds.

    Returns
    -------
    list of Tested
        Movies that have no other of their length are left out.
    """
    tested = []
    for members in families(problem, lengths):
        values = _content_of(problem, plan, epochs, features, members, n, seed)
        tested += [
            Tested(
                "content", problem.names[s], "gain over other stimuli", problem.unit,
                float(values[i, 0]), values[i, 1:], True,
            )
            for i, s in enumerate(members)
            if np.isfinite(values[i]).all()
        ]  # fmt: skip
    return tested


def _content_of(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    members: Sequence[int],
    n: int,
    seed: int,
) -> NDArray[np.float64]:
    """The statistic of each of some equally long movies under the truth and n nulls."""
    every = np.flatnonzero(np.isin(problem.subset, members) & (plan.group >= 0))
    names = exchange_names(problem.subset[every], plan.group[every], [members], n, seed)

    def of(fold: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums over the presentations that a fold tests, and how many bear each name."""
        f = features[fold]
        sums = np.zeros((len(members), n + 1))
        counts = np.zeros((len(members), n + 1), dtype=np.int64)
        rows = _thinned(problem, plan, f, members)
        subset, group = problem.subset[f.samples[rows]], plan.group[f.samples[rows]]
        place = names.places(subset, group)
        trained = trained_samples(plan, epochs, fold)[f.samples[rows]]
        tested = plan.tested[fold][f.samples[rows]]
        fit = np.flatnonzero(trained)
        fit = fit[np.argsort(place[fit], kind="stable")]
        judged = fit[np.linspace(0, len(fit) - 1, min(1500, len(fit))).astype(np.int64)]
        z = _unit(f.values[EMBEDDING][rows])
        y = problem.target.values[f.samples[rows], 0]
        query = np.concatenate([np.unique(judged), np.flatnonzero(tested)])
        top, whole = _weights(z[query], z[fit], y[fit], place[fit], len(names.subset))
        same = names.repeat[None, :] == group[query][:, None]
        top[:, same] = 0.0
        whole[:, same] = 0.0
        n_judged = len(np.unique(judged))
        sides = _both_sides(top, whole, place[query], y[query], names, n_judged)
        at = np.arange(n + 1)
        for p in np.unique(place[query[n_judged:]]):
            own, cross = (
                np.median(side.far[p][side.inner.argmin(axis=0), :, at], axis=1) for side in sides
            )
            for i, s in enumerate(members):
                mine = names.called[:, p] == s
                sums[i, mine] += (cross - own)[mine]
                counts[i, mine] += 1
        return sums, counts

    parts = side_by_side(of, range(len(features)))
    sums, counts = (np.sum(each, axis=0) for each in zip(*parts, strict=True))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.where(counts > 0, counts, np.nan))


@dataclass(frozen=True, eq=False)
class _Side:
    """Errors of the kernel decoder under every null, from one's own movie or from the others.

    `inner` (widths, nulls) sums them over the rows that are judged; `far` holds those of each
    presentation that is asked for, (widths, rows, nulls).
    """

    inner: NDArray[np.float64]
    far: dict[int, NDArray[np.float32]]


def _both_sides(
    top: NDArray[np.float32],
    whole: NDArray[np.float32],
    place: NDArray[np.int64],
    truth: NDArray[np.float64],
    names: Names,
    n_judged: int,
) -> tuple[_Side, _Side]:
    """From a row's own movie, and from the other movies; the judged rows come first."""
    shape = (len(_WIDTHS), len(names.called))
    sides = (_Side(np.zeros(shape), {}), _Side(np.zeros(shape), {}))
    asked = np.arange(len(place)) >= n_judged
    for p in np.unique(place):
        like = (names.called == names.called[:, p : p + 1]).T.astype(np.float32)  # (P, nulls)
        for side, member in zip(sides, (like, 1 - like), strict=True):
            for part in (False, True):
                rows = np.flatnonzero((place == p) & (asked == part))
                if not len(rows):
                    continue
                above, below = top[:, rows] @ member, whole[:, rows] @ member
                guess = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
                errors = np.abs(guess - truth[rows][None, :, None].astype(np.float32))
                if part:
                    side.far[int(p)] = errors
                else:
                    side.inner[:] += errors.sum(axis=1)
    return sides


def _thinned(
    problem: Problem, plan: Plan, f: Features, members: Sequence[int]
) -> NDArray[np.int64]:
    """Rows of some subsets, every n-th of each presentation: few enough to hold all weights."""
    subset, group = problem.subset[f.samples], plan.group[f.samples]
    rows = np.flatnonzero(np.isin(subset, members) & (group >= 0))
    every = max(1, -(-len(rows) // _FEWER))
    key = subset[rows] * (group.max() + 1) + group[rows]
    order = np.argsort(key, kind="stable")
    first = np.r_[True, np.diff(key[order]) != 0]
    within = np.arange(len(rows)) - np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    return np.sort(rows[order[within % every == every // 2]])


def _unit(z: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(z, axis=1, keepdims=True)
    return np.asarray(z / np.where(length > 0, length, 1), dtype=np.float32)


def _weights(
    query: NDArray[np.float32],
    fit: NDArray[np.float32],
    y: NDArray[np.float64],
    place: NDArray[np.int64],
    n_places: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums of weight times moment, and of weight, over each presentation: (widths, q, P) twice.

    The training rows are sorted by presentation.
    """
    shape = (len(_WIDTHS), len(query), n_places)
    top, whole = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    there, first = np.unique(place, return_index=True)
    moments = y.astype(np.float32)
    for i in range(0, len(query), 512):
        far = query[i : i + 512] @ fit.T - 1
        for w, width in enumerate(_WIDTHS):
            weight = np.exp(far / np.float32(width))
            whole[w, i : i + 512, there] = np.add.reduceat(weight, first, axis=1).T
            weight *= moments
            top[w, i : i + 512, there] = np.add.reduceat(weight, first, axis=1).T
    return top, whole


def identity(
    problem: Problem,
    plan: Plan,
    epochs: Spans,
    features: Sequence[Features],
    lengths: Sequence[float],
    *,
    n: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> Tested | None:
    """Test whether stimuli can be told apart, by giving presentations other names.

    The statistic is the accuracy in a repeat, averaged over repeats, by k nearest neighbours with
    k and metric chosen inside the training data, on at most some rows a fold, evenly taken.

    Parameters
    ----------
    problem : Problem
        "frame": its subsets are the stimuli.
    plan, epochs, features, lengths, n, seed, device
        As `content`.

    Returns
    -------
    Tested or None
        None where no two stimuli are of equal length.
    """
    kin = families(problem, lengths)
    if not kin:
        return None
    shown = np.flatnonzero((problem.subset >= 0) & (plan.group >= 0))
    names = exchange_names(problem.subset[shown], plan.group[shown], kin, n, seed)

    def of(fold: int) -> list[NDArray[np.float64]]:
        f = features[fold]
        subset, group = problem.subset[f.samples], plan.group[f.samples]
        trained = trained_samples(plan, epochs, fold)[f.samples]
        fit, ask = learnt_and_asked(subset >= 0, group, trained, plan.tested[fold][f.samples])
        if not len(fit) or not len(ask):
            return []
        ask = ask[np.linspace(0, len(ask) - 1, min(_VOTERS[1], len(ask))).astype(np.int64)]
        every = np.flatnonzero((subset >= 0) & (group >= 0))
        place = np.full(len(subset), -1, dtype=np.int64)
        place[every] = names.places(subset[every], group[every])
        x = f.values[EMBEDDING]
        table = judge(x[fit], group[fit], most=_VOTERS[0], device=device)
        if table is None:
            return []
        nearest = [
            neighbours(x[fit], x[ask], table.ks[-1], metric=m, device=device) for m in table.nearest
        ]
        inner = [_Counts(t, table.ks, place[fit], names) for t in table.nearest.values()]
        outer = [_Counts(t, table.ks, place[fit], names) for t in nearest]
        right = _votes(inner, outer, place[fit][table.judged], place[ask], names, table.ks)
        return [right[group[ask] == g].mean(axis=0) for g in np.unique(group[ask])]

    found = [row for rows in side_by_side(of, range(len(features))) for row in rows]
    if not found:
        return None
    values = np.mean(found, axis=0)
    return Tested("identity", "", "accuracy", "", float(values[0]), values[1:], True)


class _Counts:
    """How many of the k nearest rows lie in each presentation, for several k: (rows, P) each."""

    def __init__(
        self,
        nearest: NDArray[np.int64],
        ks: Sequence[int],
        place: NDArray[np.int64],
        names: Names,
    ) -> None:
        n_places = len(names.subset)
        where = np.where(nearest >= 0, place[nearest], n_places)
        rows = np.arange(len(nearest))[:, None]
        total = np.zeros((len(nearest), n_places + 1), dtype=np.float32)
        self.of_k = []
        for a, b in pairwise((0, *ks)):
            np.add.at(total, (np.broadcast_to(rows, where[:, a:b].shape), where[:, a:b]), 1)
            self.of_k.append(total[:, :-1].copy())


def _votes(
    inner: Sequence[_Counts],
    outer: Sequence[_Counts],
    judged: NDArray[np.int64],
    asked: NDArray[np.int64],
    names: Names,
    ks: Sequence[int],
) -> NDArray[np.bool_]:
    """Whether each row asked is given its stimulus, under every null, (q, 1 + n)."""
    n_classes = int(names.subset.max()) + 1
    right = np.empty((len(asked), len(names.called)), dtype=bool)
    for begin in range(0, len(names.called), 32):
        called = names.called[begin : begin + 32]
        some = len(called)
        # (P, nulls x classes): one product gives every class its votes under every null.
        member = (called.T[:, :, None] == np.arange(n_classes)).astype(np.float32)
        member = member.reshape(len(names.subset), -1)

        def said(counts: NDArray[np.float32]) -> NDArray[np.int64]:
            votes = (counts @ member).reshape(len(counts), some, n_classes)  # noqa: B023
            return np.asarray(votes.argmax(axis=2))

        best, size = np.full(some, -1.0), np.zeros(some, dtype=np.int64)
        metric = np.zeros(some, dtype=np.int64)
        for m, counts in enumerate(inner):
            for k, each in zip(ks, counts.of_k, strict=True):
                score = (said(each) == called[:, judged].T).mean(axis=0)
                better = (score > best) | ((score == best) & (k > size))
                best[better], size[better], metric[better] = score[better], k, m
        for m, counts in enumerate(outer):
            for k, each in zip(ks, counts.of_k, strict=True):
                mine = np.flatnonzero((size == k) & (metric == m))
                if len(mine):
                    hit = said(each) == called[:, asked].T
                    right[:, begin + mine] = hit[:, mine]
    return right
