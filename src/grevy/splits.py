"""Folds that do not leak: by repeat or by block of time, with a guard, and a part set aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .decode import Target
from .draws import Purpose, permutation
from .errors import ConfigError
from .recording import StimulusTrack
from .windows import Spans, keep, without

__all__ = [
    "Plan",
    "block_plan",
    "choosing_spans",
    "mask_of",
    "memory",
    "repeat_plan",
    "training_spans",
]

N_CHOOSING_FOLDS = 2
SHARE_FOR_CHOOSING = 0.2


@dataclass(frozen=True, eq=False)
class Plan:
    """Which samples are tested when, and which serve for choosing.

    Attributes
    ----------
    spans : array of int64, shape (K, 2)
        Presentations (or blocks), each embedded alone.
    group : array of int64, shape (T,)
        Repeat number within the stimulus (or block number) of each sample, -1 outside.
    fold : array of int64, shape (T,)
        The fold in which a sample is tested, -1 where it is never scored.
    choosing : array of int64, shape (T,)
        The choosing fold in which a sample is judged, -1 where it is not set aside.
    n_folds, n_choosing : int
        `n_choosing` is 0 where there are too few repeats to set any aside.
    guard : int
        Samples on both sides of a left-out stretch that are not trained on.
    """

    spans: Spans
    group: NDArray[np.int64]
    fold: NDArray[np.int64]
    choosing: NDArray[np.int64]
    n_folds: int
    n_choosing: int
    guard: int


def _assign(n: int, seed: int, n_folds: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fold and choosing fold of n repeats: a seeded fifth set aside (two or more, if n >= 5)."""
    aside = max(N_CHOOSING_FOLDS, round(SHARE_FOR_CHOOSING * n)) if n >= 5 else 0
    order = permutation(seed, Purpose.SPLIT, n).numpy()
    fold, choosing = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    choosing[np.sort(order[:aside])] = np.arange(aside) % N_CHOOSING_FOLDS
    scored = np.sort(order[aside:])
    fold[scored] = np.arange(len(scored)) % n_folds
    return fold, choosing


def repeat_plan(
    track: StimulusTrack, epochs: Spans, *, n_folds: int, seed: int, guard: int
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

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If `n_folds` is less than 2.
    """
    _check_folds(n_folds)
    n_samples = len(track.index)
    group = np.full(n_samples, -1, dtype=np.int64)
    fold, choosing = group.copy(), group.copy()
    counts = {
        s: int(track.repeat[track.index == s].max()) + 1
        for s, name in enumerate(track.names)
        if name in track.decodable
    }
    most = min(n_folds, max((_n_scored(n) for n in counts.values()), default=0))
    spans = []
    for s, n in counts.items():
        f, c = _assign(n, seed, max(most, 1))
        here = track.index == s
        repeat = track.repeat[here]
        group[here], fold[here], choosing[here] = repeat, f[repeat], c[repeat]
        for r in range(n):
            spans.append(keep(epochs, here & (track.repeat == r)))
    every = np.concatenate(spans) if spans else np.empty((0, 2), dtype=np.int64)
    every = every[np.argsort(every[:, 0], kind="stable")]
    return Plan(every, group, fold, choosing, most, int(choosing.max(initial=-1)) + 1, guard)


def _n_scored(n: int) -> int:
    return int((_assign(n, 0, n)[0] >= 0).sum())


def block_plan(
    known: NDArray[np.bool_], epochs: Spans, *, n_folds: int, seed: int, guard: int
) -> Plan:
    """Leave stretches of time out, for what does not repeat.

    The samples where the label is known are cut, in order of time, into equal blocks: one a fold,
    and a fifth of all (at least two) that are set aside for choosing and never scored.

    Parameters
    ----------
    known : array of bool, shape (T,)
        Samples that can be decoded.
    epochs : array of int64, shape (E, 2)
    n_folds, seed : int
        As in `repeat_plan`.
    guard : int
        In samples; at most half a block is used.

    Returns
    -------
    Plan
    """
    _check_folds(n_folds)
    inside = np.zeros(len(known), dtype=bool)
    for a, b in epochs:
        inside[a:b] = known[a:b]
    rows = np.flatnonzero(inside)
    n_blocks = next(n for n in range(max(5, n_folds), 4 * n_folds + 8) if _n_scored(n) >= n_folds)
    guard = min(guard, len(rows) // (2 * n_blocks))
    block = np.arange(len(rows)) * n_blocks // max(len(rows), 1)
    f, c = _assign(n_blocks, seed, n_folds)
    group = np.full(len(known), -1, dtype=np.int64)
    fold, choosing = group.copy(), group.copy()
    group[rows], fold[rows], choosing[rows] = block, f[block], c[block]
    every = [keep(epochs, group == i) for i in range(n_blocks)]
    n_choosing = int(choosing.max(initial=-1)) + 1
    return Plan(np.concatenate(every), group, fold, choosing, n_folds, n_choosing, guard)


def _check_folds(n_folds: int) -> None:
    if n_folds < 2:
        raise ConfigError(f"cross-validation needs at least 2 folds; found {n_folds}.")


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
    values = np.asarray(target.values, dtype=np.float64)
    if target.n_classes:
        columns = [values[:, 0] == c for c in range(target.n_classes)]
    else:
        columns = [
            np.exp(2j * np.pi * values[:, j] / p) if p else values[:, j]
            for j, p in enumerate(target.periods)
        ]
    size = 2 * len(known)
    pairs = np.fft.ifft(np.abs(np.fft.fft(known, size)) ** 2)[: len(known)].real
    total = np.zeros(len(known))
    for column in columns:
        z = np.where(known, column - np.mean(column[known]), 0)
        total += np.fft.ifft(np.abs(np.fft.fft(z, size)) ** 2)[: len(known)].real
    correlation = total / np.maximum(pairs, 1)
    below = np.flatnonzero(correlation < correlation[0] / np.e)
    return int(below[0]) if len(below) else 0


def training_spans(plan: Plan, epochs: Spans, fold: int) -> Spans:
    """Where fold `fold` may train: everything but its test samples and the guard around them."""
    return without(epochs, plan.fold == fold, before=plan.guard, after=plan.guard)


def choosing_spans(plan: Plan, epochs: Spans, fold: int) -> Spans:
    """Where choosing fold `fold` may train: no scored sample, nor those it is judged on."""
    left_out = (plan.fold >= 0) | (plan.choosing == fold)
    return without(epochs, left_out, before=plan.guard, after=plan.guard)


def mask_of(spans: Spans, n_samples: int) -> NDArray[np.bool_]:
    """True for the samples inside spans, shape (T,)."""
    change = np.zeros(n_samples + 1, dtype=np.int64)
    np.add.at(change, spans[:, 0], 1)
    np.add.at(change, spans[:, 1], -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)
