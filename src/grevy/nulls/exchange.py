"""Presentations that change names, as the experiment could have named them.

Folds leave repeats out, and a repeat number counts how often a stimulus was shown before: it is
made of names. So names may change only such that every presentation keeps its repeat number, and
what was held out with it.

Where stimuli came in cycles that hold each once, that is any exchange within a cycle. Where the
whole order was drawn at random, presentations of one repeat number lie apart in time, and an
exchange keeps the numbers only where the repeats of each stimulus still follow one another. Namings
that do are reached by a Markov chain: two stimuli exchange the names of a range of their repeats,
if they may. Every such step is its own inverse, so all namings that can be reached are equally
likely. The nulls start from a naming that a chain from the truth has led to, each with a chain of
its own, so that truth and nulls are exchangeable however short the chains are (Besag & Clifford
1989, doi:10.1093/biomet/76.4.633, the parallel method).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..draws import Purpose, uniforms

__all__ = ["Names", "exchange_names", "in_cycles"]

_STEPS = 20
"""Steps of a chain for each presentation."""
_STEPS_AT_ONCE = 256
_STREAM = 2**20
"""Streams of random numbers from here on are those of chains."""


@dataclass(frozen=True, eq=False)
class Names:
    """What every presentation is called under the truth and each null.

    Attributes
    ----------
    subset, repeat : arrays of int64, shape (P,)
        Stimulus and repeat number of each presentation, sorted by both.
    called : array of int64, shape (1 + n, P)
        Row 0 is the truth.
    """

    subset: NDArray[np.int64]
    repeat: NDArray[np.int64]
    called: NDArray[np.int64]

    def places(self, subset: NDArray[np.int64], repeat: NDArray[np.int64]) -> NDArray[np.int64]:
        """The presentation of every row."""
        wide = int(self.repeat.max()) + 1
        return np.searchsorted(self.subset * wide + self.repeat, subset * wide + repeat)


def exchange_names(
    subset: NDArray[np.int64],
    repeat: NDArray[np.int64],
    kin: Sequence[Sequence[int]],
    n: int,
    seed: int,
) -> Names:
    """Let presentations of the same repeat number, and of stimuli of equal length, change names.

    Parameters
    ----------
    subset, repeat : arrays of int64, shape (rows,)
        Stimulus and repeat number of each sample, in order of time.
    kin : sequence of sequences of int
        Stimuli that may be exchanged with one another.
    n : int
        Nulls.
    seed : int

    Returns
    -------
    Names
    """
    pairs, begin = np.unique(np.stack([subset, repeat], axis=1), axis=0, return_index=True)
    called = np.tile(pairs[:, 0], (n + 1, 1))
    keys = uniforms(seed, Purpose.NULL, torch.arange(n + 1), len(pairs)).numpy()
    for family, members in enumerate(kin):
        places = np.flatnonzero(np.isin(pairs[:, 0], members))
        if not in_cycles(pairs[places, 1], begin[places]):
            called[1:, places] = _chains(pairs[places], begin[places], n, seed, family)
            continue
        for number in np.unique(pairs[places, 1]):
            cycle = places[pairs[places, 1] == number]
            order = np.argsort(keys[1:, cycle], axis=1)
            called[1:, cycle] = pairs[cycle, 0][order]
    return Names(pairs[:, 0], pairs[:, 1], called)


def in_cycles(repeat: NDArray[np.int64], begin: NDArray[np.int64]) -> bool:
    """Whether repeat r of all presentations comes before repeat r + 1 of any."""
    return bool((np.diff(repeat[np.argsort(begin, kind="stable")]) >= 0).all())


def _chains(
    pairs: NDArray[np.int64], begin: NDArray[np.int64], n: int, seed: int, family: int
) -> NDArray[np.int64]:
    """Names of presentations (stimulus, repeat), (n, P), from chains that keep repeat numbers."""
    members, row = np.unique(pairs[:, 0], return_inverse=True)
    numbers, column = np.unique(pairs[:, 1], return_inverse=True)
    # Which presentation is repeat r of stimulus s.
    truth = np.full((1, len(members), len(numbers)), -1, dtype=np.int64)
    truth[0, row, column] = np.arange(len(pairs))
    steps, purpose = _STEPS * len(pairs), Purpose.NULL + 256 * (_STREAM + family)
    start = _walk(truth, begin, steps, seed, purpose, torch.zeros(1, dtype=torch.int64))
    nulls = torch.arange(1, n + 1)
    at = _walk(start.repeat(n, axis=0), begin, steps, seed, purpose, nulls)
    called = np.empty((n, len(pairs)), dtype=np.int64)
    there = truth[0] >= 0
    called[np.arange(n)[:, None], at[:, there]] = members[np.nonzero(there)[0]]
    return called


def _walk(
    at: NDArray[np.int64],
    begin: NDArray[np.int64],
    steps: int,
    seed: int,
    purpose: int,
    nulls: torch.Tensor,
) -> NDArray[np.int64]:
    """As many chains side by side, from states (chains, stimuli, repeats)."""
    n, n_stimuli, n_repeats = at.shape
    at, lacking = at.copy(), at[0] < 0
    missing = np.pad(np.cumsum(lacking, axis=1), ((0, 0), (1, 0)))  # before repeat r
    # When each began, repeat r in column r + 1. Before a first and behind a last repeat is nothing
    # that could be too late or too early; with one that is missing in between nothing compares.
    when = np.full((n, n_stimuli, n_repeats + 2), np.inf)
    when[..., 0] = -np.inf
    over = missing[:, :-1] == missing[:, -1:] - (n_repeats - np.arange(n_repeats))
    when[..., 1:-1] = np.where(lacking, np.where(over, np.inf, np.nan), begin[at])
    chain, every = np.arange(n), np.arange(n_repeats)
    for step in range(steps):
        k = step % _STEPS_AT_ONCE
        if k == 0:
            u = uniforms(seed, purpose, nulls + (step << 32), 4 * _STEPS_AT_ONCE).numpy()
            one, other = (u[:, j::4] for j in (0, 1))
            one = (one * n_stimuli).astype(np.int64)
            other = (one + 1 + (other * (n_stimuli - 1)).astype(np.int64)) % n_stimuli
            ends = (u[:, 2::4] * n_repeats, u[:, 3::4] * n_repeats)
            low, high = (f(*ends).astype(np.int64) for f in (np.minimum, np.maximum))
        a, b, first, last = one[:, k], other[:, k], low[:, k], high[:, k]
        fits = (
            (missing[a, last + 1] == missing[a, first])
            & (missing[b, last + 1] == missing[b, first])
            & (when[chain, a, first] < when[chain, b, first + 1])
            & (when[chain, b, first] < when[chain, a, first + 1])
            & (when[chain, b, last + 1] < when[chain, a, last + 2])
            & (when[chain, a, last + 1] < when[chain, b, last + 2])
        )
        (may,) = np.nonzero(fits)
        i, r = np.nonzero((every >= first[may, None]) & (every <= last[may, None]))
        c = may[i]
        x, y = a[c], b[c]
        at[c, x, r], at[c, y, r] = at[c, y, r], at[c, x, r]
        when[c, x, r + 1], when[c, y, r + 1] = when[c, y, r + 1], when[c, x, r + 1]
    return at
