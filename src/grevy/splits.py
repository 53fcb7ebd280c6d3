"""Folds that do not leak: by repeat or by block of time, with a guard, and a part set aside."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, ifft, next_fast_len

from .decode import Target
from .draws import Purpose, permutation
from .errors import ConfigError
from .recording import StimulusTrack
from .windows import Spans, keep, without

__all__ = [
    "Judging",
    "Plan",
    "autocorrelation",
    "block_plan",
    "choosing_splits",
    "mask_of",
    "memory",
    "nested_splits",
    "repeat_plan",
    "shuffled_plan",
    "trained_samples",
    "training_spans",
]

N_CHOOSING_FOLDS = 2
SHARE_FOR_CHOOSING = 0.2
FEWEST_BLOCKS = 5
"""Folds over blocks are fewer than was asked for, down to so many, where guards need the room."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which samples are tested when, and which serve for choosing.

    Attributes
    ----------
    spans : array of int64, shape (K, 2)
        Presentations (or blocks), each embedded alone.
    group : array of int64, shape (T,)
        Repeat number within the stimulus (or block number) of each sample, -1 outside.
    tested : array of bool, shape (n_folds, T)
        The samples that each fold tests.
    choosing : array of int64, shape (T,)
        The choosing fold in which a sample is judged, -1 where it is not set aside.
    n_choosing : int
        0 where nothing is set aside: too few repeats, or the choice is made inside each fold.
    guard : int
        Samples on both sides of a left-out stretch that are not trained on.
    guard_short : int
        By how many samples it is shorter than was asked for.
    shuffled : bool
        Samples were dealt out one by one: the encoder sees them all, and so, through its
        neighbours, does the decoder. Not a held-out test.
    """

    spans: Spans
    group: NDArray[np.int64]
    tested: NDArray[np.bool_]
    choosing: NDArray[np.int64]
    n_choosing: int
    guard: int
    shuffled: bool = False
    guard_short: int = 0

    @property
    def n_folds(self) -> int:
        """How many folds there are."""
        return len(self.tested)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """The samples that any fold tests, (T,)."""
        return np.asarray(self.tested.any(axis=0))


@dataclass(frozen=True, eq=False)
class Judging:
    """Where a candidate is trained, what its decoder learns from, and what judges it.

    Attributes
    ----------
    train_on : array of int64, shape (E, 2)
    learnt, judged : arrays of bool, shape (T,)
    """

    train_on: Spans
    learnt: NDArray[np.bool_]
    judged: NDArray[np.bool_]


def _set_aside(n: int, seed: int, *, some: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of n repeats those that are scored, and a seeded fifth set aside (two or more, if n >= 5)."""
    aside = max(N_CHOOSING_FOLDS, round(SHARE_FOR_CHOOSING * n)) if some and n >= 5 else 0
    order = permutation(seed, Purpose.SPLIT, n).numpy()
    return np.sort(order[aside:]), np.sort(order[:aside])


def _left_out(scored: NDArray[np.int64], n_folds: int, leave_out: int, seed: int) -> list[Any]:
    """The repeats of each fold: one (or, dealt out, several) each, or sets drawn by the seed."""
    if leave_out == 1:
        n = min(n_folds, len(scored))
        return [scored[i::n] for i in range(n)]
    every = list(combinations(scored.tolist(), leave_out))
    order = permutation(seed, Purpose.SPLIT, len(every), step=1).numpy()[:n_folds]
    return [np.array(every[i]) for i in np.sort(order)]


def repeat_plan(
    track: StimulusTrack,
    epochs: Spans,
    *,
    n_folds: int,
    seed: int,
    guard: int,
    leave_out: int = 1,
    set_aside: bool = True,
) -> Plan:
    """Leave repeats out: fold r tests the r-th scored repeat of every stimulus.

    A fifth of the repeats of each stimulus (at least two, drawn by the seed; none where a stimulus
    has fewer than five) is set aside for choosing and never scored. With more scored repeats than
    folds, every `n_folds`-th repeat shares a fold.

    Parameters
    ----------
    track : StimulusTrack
        Its decodable stimuli are used.
    epochs : array of int64, shape (E, 2)
    n_folds : int
        At most this many folds.
    seed : int
    guard : int
        In samples.
    leave_out : int
        Repeats that a fold leaves out together. Above 1 the folds are all such sets, or as many of
        them as `n_folds` says, drawn without replacement by the seed; they overlap.
    set_aside : bool
        Whether to set repeats aside for choosing.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If `n_folds` is less than 2, or a stimulus has no more repeats than are left out.
    """
    _check_folds(n_folds)
    n_samples = len(track.index)
    group, choosing = (np.full(n_samples, -1, dtype=np.int64) for _ in range(2))
    counts = {
        s: int(track.repeat[track.index == s].max()) + 1
        for s, name in enumerate(track.names)
        if name in track.decodable
    }
    tests: dict[int, list[Any]] = {}
    spans = []
    for s, n in counts.items():
        scored, aside = _set_aside(n, seed, some=set_aside)
        _check_left_out(leave_out, len(scored), track.names[s])
        tests[s] = _left_out(scored, n_folds, leave_out, seed)
        here = track.index == s
        group[here] = track.repeat[here]
        for i, r in enumerate(aside):
            choosing[here & (track.repeat == r)] = i % N_CHOOSING_FOLDS
        for r in range(n):
            spans.append(keep(epochs, here & (track.repeat == r)))
    tested = np.zeros((max(map(len, tests.values()), default=0), n_samples), dtype=bool)
    for s, folds in tests.items():
        for f, repeats in enumerate(folds):
            tested[f] |= (track.index == s) & np.isin(track.repeat, repeats)
    every = np.concatenate(spans) if spans else np.empty((0, 2), dtype=np.int64)
    every = every[np.argsort(every[:, 0], kind="stable")]
    return Plan(every, group, tested, choosing, int(choosing.max(initial=-1)) + 1, guard)


def block_plan(
    known: NDArray[np.bool_],
    epochs: Spans,
    *,
    n_folds: int,
    seed: int,
    guard: int,
    leave_out: int = 1,
    set_aside: bool = True,
) -> Plan:
    """Leave stretches of time out, for what does not repeat.

    The samples where the label is known are cut, in order of time, into equal blocks: one a fold,
    and a fifth of all (at least two) that are set aside for choosing and never scored. Where a
    guard takes more than a third of a block there are fewer, longer blocks, down to five folds; of
    a guard that is longer even than half of those, half a block is kept, and the plan says so.

    Parameters
    ----------
    known : array of bool, shape (T,)
        Samples that can be decoded.
    epochs : array of int64, shape (E, 2)
    n_folds, seed, leave_out, set_aside
        As in `repeat_plan`.
    guard : int
        In samples.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        As `repeat_plan`.
    """
    _check_folds(n_folds)
    inside = np.zeros(len(known), dtype=bool)
    for a, b in epochs:
        inside[a:b] = known[a:b]
    rows = np.flatnonzero(inside)
    n_blocks = _n_blocks(n_folds, set_aside)
    while n_folds > FEWEST_BLOCKS and 3 * guard * n_blocks > len(rows):
        n_folds -= 1
        n_blocks = _n_blocks(n_folds, set_aside)
    asked, guard = guard, min(guard, len(rows) // (2 * n_blocks))
    scored, aside = _set_aside(n_blocks, seed, some=set_aside)
    _check_left_out(leave_out, len(scored), "the session")
    group, choosing = (np.full(len(known), -1, dtype=np.int64) for _ in range(2))
    group[rows] = np.arange(len(rows)) * n_blocks // max(len(rows), 1)
    for i, block in enumerate(aside):
        choosing[group == block] = i % N_CHOOSING_FOLDS
    folds = _left_out(scored, n_folds, leave_out, seed)
    tested = np.array([np.isin(group, blocks) for blocks in folds])
    every = [keep(epochs, group == i) for i in range(n_blocks)]
    n_choosing = int(choosing.max(initial=-1)) + 1
    spans = np.concatenate(every)
    return Plan(spans, group, tested, choosing, n_choosing, guard, guard_short=asked - guard)


def _n_blocks(n_folds: int, set_aside: bool) -> int:
    """How many blocks there must be for so many to be scored."""
    if not set_aside:
        return n_folds
    sizes = range(max(5, n_folds), 4 * n_folds + 8)
    return next(n for n in sizes if len(_set_aside(n, 0, some=True)[0]) >= n_folds)


def shuffled_plan(known: NDArray[np.bool_], epochs: Spans, *, n_folds: int, seed: int) -> Plan:
    """Deal samples out to folds one by one, as is often done with series, and wrongly.

    A test sample's neighbours in time, which are nearly equal to it, are trained on. It is here to
    show by how much that inflates a score; whatever comes of it must say so.

    Parameters
    ----------
    known : array of bool, shape (T,)
        Samples that can be decoded.
    epochs : array of int64, shape (E, 2)
    n_folds, seed : int

    Returns
    -------
    Plan
        `shuffled`.
    """
    _check_folds(n_folds)
    group = np.full(len(known), -1, dtype=np.int64)
    rows = np.flatnonzero(known & mask_of(epochs, len(known)))
    group[rows[permutation(seed, Purpose.SPLIT, len(rows)).numpy()]] = (
        np.arange(len(rows)) % n_folds
    )
    tested = np.array([group == f for f in range(n_folds)])
    none = np.full(len(known), -1, dtype=np.int64)
    return Plan(keep(epochs, group >= 0), group, tested, none, 0, 0, shuffled=True)


def _check_folds(n_folds: int) -> None:
    if n_folds < 2:
        raise ConfigError(f"cross-validation needs at least 2 folds; found {n_folds}.")


def _check_left_out(leave_out: int, n: int, what: str) -> None:
    if leave_out < 1 or (leave_out > 1 and leave_out >= n):
        raise ConfigError(
            f"a fold must leave out at least one part and learn from another; found {leave_out} "
            f"to leave out of the {n} of {what} that are scored. Use leave_out=1."
        )


def memory(target: Target, known: NDArray[np.bool_]) -> int:
    """How long a label remembers: the lag at which its autocorrelation falls below 1 / e.

    A test sample is no test if the label and a slow state of the population stay as they are from
    the nearest training sample to it, whatever the encoder's window; so the guard must be at least
    this long.

    Parameters
    ----------
    target : Target
        Circular columns are compared on the circle, classes as same or not.
    known : array of bool, shape (T,)
        Samples that count.

    Returns
    -------
    int
        In samples; 0 for a label that never changes.
    """
    correlation = autocorrelation(target, known, np.array([[0, len(known)]]))
    below = np.flatnonzero(correlation < 1 / np.e)
    return int(below[0]) if len(below) else 0


def autocorrelation(target: Target, known: NDArray[np.bool_], epochs: Spans) -> NDArray[np.float64]:
    """Correlation of a series with itself at every lag, over pairs of known samples of one epoch.

    Parameters
    ----------
    target : Target
        With T rows. Columns are pooled, those with more variance counting more; circular ones are
        compared on the circle, classes as same or not.
    known : array of bool, shape (T,)
        Samples that count.
    epochs : array of int64, shape (E, 2)

    Returns
    -------
    array of float64, shape (L,)
        At lags 0 ... L - 1 in samples, L being the longest epoch: 1 at lag 0, 0 where there is no
        pair, 1 everywhere for a series that never changes.
    """
    values = np.asarray(target.values, dtype=np.float64)
    if target.n_classes:
        columns = [values[:, 0] == c for c in range(target.n_classes)]
    else:
        columns = [
            np.exp(2j * np.pi * values[:, j] / p) if p else values[:, j]
            for j, p in enumerate(target.periods)
        ]
    counted = known & mask_of(epochs, len(known))
    longest = int((epochs[:, 1] - epochs[:, 0]).max())

    def products(z: NDArray[Any]) -> NDArray[np.float64]:
        """Sums of products of samples that are so far apart, for every lag."""
        total = np.zeros(longest)
        for a, b in epochs:
            power = np.abs(fft(z[a:b], next_fast_len(2 * (b - a)))) ** 2
            total[: b - a] += ifft(power)[: b - a].real
        return total

    centred = [np.where(counted, c - np.mean(c[counted]), 0) for c in columns]
    total = sum(map(products, centred), np.zeros(longest)) / np.maximum(products(counted), 1)
    return total / total[0] if total[0] > 0 else np.ones(longest)


def training_spans(plan: Plan, epochs: Spans, fold: int) -> Spans:
    """Where fold `fold` may train: everything but its test samples and the guard around them.

    Everything, where samples are shuffled: no window would be left.
    """
    if plan.shuffled:
        return epochs
    return without(epochs, plan.tested[fold], before=plan.guard, after=plan.guard)


def trained_samples(plan: Plan, epochs: Spans, fold: int) -> NDArray[np.bool_]:
    """The samples that a fold's decoders may learn from, (T,)."""
    inside = mask_of(training_spans(plan, epochs, fold), len(plan.group))
    return np.asarray(inside & ~plan.tested[fold])


def choosing_splits(plan: Plan, epochs: Spans) -> list[Judging]:
    """The choice on what was set aside: no scored sample is trained on or learnt from."""
    splits = []
    for c in range(plan.n_choosing):
        judged = plan.choosing == c
        spans = without(epochs, plan.scored | judged, before=plan.guard, after=plan.guard)
        learnt = mask_of(spans, len(plan.group)) & (plan.choosing >= 0)
        splits.append(Judging(spans, learnt, judged))
    return splits


def nested_splits(
    plan: Plan, epochs: Spans, fold: int, *, seed: int, n: int = N_CHOOSING_FOLDS
) -> list[Judging]:
    """The choice inside one fold: its training repeats (or blocks) are judged in turn.

    Parameters
    ----------
    plan : Plan
    epochs : array of int64, shape (E, 2)
    fold : int
        None of its test samples is trained on, learnt from, or judged.
    seed : int
        Deals the repeats out to the parts.
    n : int
        Parts that are judged in turn.

    Returns
    -------
    list of Judging
    """
    outside = training_spans(plan, epochs, fold)
    inside = mask_of(outside, len(plan.group)) & (plan.group >= 0)
    groups = np.unique(plan.group[inside])
    order = permutation(seed, Purpose.SPLIT, len(groups), step=2 + fold).numpy()
    splits = []
    for part in range(min(n, len(groups))):
        judged = inside & np.isin(plan.group, groups[order[part::n]])
        spans = without(outside, judged, before=plan.guard, after=plan.guard)
        splits.append(Judging(spans, mask_of(spans, len(plan.group)) & inside, judged))
    return splits


def mask_of(spans: Spans, n_samples: int) -> NDArray[np.bool_]:
    """True for the samples inside spans, shape (T,)."""
    change = np.zeros(n_samples + 1, dtype=np.int64)
    np.add.at(change, spans[:, 0], 1)
    np.add.at(change, spans[:, 1], -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)
