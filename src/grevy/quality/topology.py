"""The shape of an embedding by persistent homology: one loop, two, a void, or nothing.

ripser computes it (the extra `topology`): Bauer 2021, doi:10.1007/s41468-021-00071-5; Tralie, Saul
& Bar-On 2018, doi:10.21105/joss.00925. Noise makes loops too, and a trajectory that remembers
itself makes long ones: what is found is held against nulls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ..draws import Purpose, integers, permutation
from ..errors import ConfigError, DataError, MissingExtraError
from ..nulls import least_nulls, p_value
from ..results import Barcode, RingTest

__all__ = ["persistence", "ring_test", "some_points"]

Matrix = NDArray[np.float64]
_MOST = 600
"""Points of a barcode; the time grows with the fifth power of their number for voids."""
_LOOKED_AT = 5000
"""Points among which the sparse ones are told and the far ones are chosen."""
_LONGEST = 10
"""Bars of a dimension among which a gap is looked for: no shape has more parts, loops or voids."""


def persistence(
    points: ArrayLike,
    *,
    n_points: int = 200,
    sparsest: float = 0.1,
    max_dimension: int = 2,
    seed: int = 0,
) -> Barcode:
    """Parts, loops and voids of an embedding, and how long each lives.

    Vietoris-Rips persistence, with coefficients modulo 2, of some points; see `some_points`.

    Parameters
    ----------
    points : array, shape (T, D)
        Held-out rows of an embedding.
    n_points : int
        At most 600. Time on one core for loops and voids: 200 points 3 s, 400 points 30 s, 600
        points 100 s; for loops alone (`max_dimension=1`) 600 points 4 s.
    sparsest : float
        Share of points, those in the emptiest places, that is left out first: outliers, but also
        a stretch of a ring that was hardly ever visited.
    max_dimension : int
        0 for parts, 1 for loops too, 2 for voids too.
    seed : int
        Of the choice of points.

    Returns
    -------
    Barcode

    Raises
    ------
    MissingExtraError
        If ripser is not installed.
    ConfigError
        If a setting is outside its values.
    DataError
        If points are not finite rows, are too few, or are all equal.
    """
    if max_dimension not in (0, 1, 2):
        raise ConfigError(f"max_dimension must be 0, 1 or 2; found {max_dimension}.")
    some = some_points(points, n_points=n_points, sparsest=sparsest, seed=seed)
    try:
        from ripser import ripser
    except ImportError as error:
        raise MissingExtraError(
            "topology is computed with ripser, which is not installed. "
            "Run: pip install 'grevy[topology]'"
        ) from error
    found = ripser(cdist(some, some), distance_matrix=True, maxdim=max_dimension)["dgms"]
    return Barcode(tuple(_sorted(np.asarray(d, np.float64)) for d in found), len(some))


def _sorted(diagram: Matrix) -> tuple[tuple[float, float], ...]:
    """Bars that end, the longest first."""
    bars = diagram[np.isfinite(diagram[:, 1])]
    order = np.argsort(bars[:, 0] - bars[:, 1], kind="stable")
    return tuple((birth, death) for birth, death in bars[order].tolist())


def some_points(
    points: ArrayLike, *, n_points: int = 200, sparsest: float = 0.1, seed: int = 0
) -> Matrix:
    """Points that cover a cloud evenly, without its outliers.

    Of at most 5,000 points drawn by the seed, those with the fewest neighbours are left out; a
    random one is taken, and then always the one that is farthest from all taken (maxmin landmarks,
    de Silva & Carlsson 2004, doi:10.2312/SPBG/SPBG04/157-166). Farthest points alone would be
    outliers; random points would leave rarely visited places of a shape empty.

    Parameters
    ----------
    points : array, shape (T, D)
    n_points, sparsest, seed
        As in `persistence`.

    Returns
    -------
    array of float64, shape (at most n_points, D)
        Centred, and scaled so that the root-mean-square distance of `points` from their mean is 1.

    Raises
    ------
    ConfigError, DataError
        As in `persistence`.
    """
    if not 4 <= n_points <= _MOST or not 0 <= sparsest < 1:
        raise ConfigError(
            f"n_points must lie in 4 ... {_MOST} and sparsest in [0, 1); found {n_points} and "
            f"{sparsest}."
        )
    x: Matrix = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or len(x) < 4 or not x.shape[1] or not np.isfinite(x).all():
        raise DataError(
            "points must be finite numbers of shape (at least 4 samples, dimensions); found "
            f"shape {x.shape}{'' if np.isfinite(x).all() else ' with NaN or infinity'}."
        )
    x = x - x.mean(axis=0)
    size = np.sqrt(np.square(x).sum(axis=1).mean())
    if not size > np.finfo(np.float32).eps * np.abs(np.asarray(points, np.float64)).max():
        raise DataError(f"points must differ; found {len(x)} equal ones: the embedding collapsed.")
    x = x / size
    if len(x) > _LOOKED_AT:
        x = x[np.sort(permutation(seed, Purpose.SUBSAMPLE, len(x)).numpy()[:_LOOKED_AT])]
    k = min(max(5, len(x) // 100), len(x) - 1)
    nearest, _ = cKDTree(x).query(x, k=k + 1)
    far = np.asarray(nearest)[:, -1]  # the first is the point itself
    x = x[np.sort(np.argsort(far, kind="stable")[: max(4, round(len(x) * (1 - sparsest)))])]
    return np.asarray(x[_farthest(x, n_points, seed)])


def _farthest(x: Matrix, n: int, seed: int) -> NDArray[np.int64]:
    """Numbers of points, each as far as possible from those before it."""
    taken = np.empty(min(n, len(x)), dtype=np.int64)
    step = torch.ones(1, dtype=torch.int64)
    taken[0] = int(integers(seed, Purpose.SUBSAMPLE, step, 1, len(x))[0, 0])
    gap = np.full(len(x), math.inf)
    for i in range(1, len(taken)):
        gap = np.minimum(gap, np.square(x - x[taken[i - 1]]).sum(axis=1))
        taken[i] = int(gap.argmax())
    return taken


def ring_test(
    observed: Barcode, nulls: Sequence[Barcode], *, alpha: float = 0.05, least_ratio: float = 2.0
) -> RingTest:
    """Whether an embedding is one loop.

    It is called a ring if its longest loop lives `least_ratio` times as long as its second, and if
    that ratio is rare among nulls. Both are needed: slow noise that wanders over a sphere often
    reaches a ratio of 2, and an embedding on a circle (two latents of unit length) is a ring
    whatever the data are, as its nulls then show.

    Parameters
    ----------
    observed : Barcode
        Of held-out samples.
    nulls : sequence of Barcode
        Of embeddings of surrogates (`surrogate`), or of runs that were fitted to shuffled labels
        if a label guides the runs; same samples, same settings of `persistence`.
    alpha : float
        Level of the test.
    least_ratio : float

    Returns
    -------
    RingTest

    Raises
    ------
    DataError
        If a barcode has no loops, or is of another number of points than the observed one.
    ConfigError
        If `alpha` is not in (0, 1), or `least_ratio` below 1.
    """
    if not 0 < alpha < 1 or not least_ratio >= 1:
        raise ConfigError(
            f"alpha must lie in (0, 1), least_ratio be at least 1; found {alpha}, {least_ratio}."
        )
    for barcode in (observed, *nulls):
        if len(barcode.bars) < 2 or barcode.n_points != observed.n_points:
            raise DataError(
                f"barcodes must hold loops and be of {observed.n_points} points, as the observed "
                f"one; found {len(barcode.bars) - 1} as their highest dimension and "
                f"{barcode.n_points} points. Use the same settings for all."
            )
    ratio, null = _ratio(observed), np.array([_ratio(b) for b in nulls])
    p = p_value(ratio, null, higher=True) if len(null) else math.nan
    verdict = "no ring"
    if ratio >= least_ratio:
        if p <= alpha:
            verdict = "ring"
        elif len(null) < least_nulls(1, alpha) and not (null >= ratio).any():
            verdict = "undecided"
    # Order statistics: a ratio may be infinite, which no mean survives.
    median, low, high = (
        np.quantile(null, (0.5, 0.025, 0.975), method="nearest").tolist()
        if len(null)
        else (math.nan,) * 3
    )
    return RingTest(
        ratio, median, low, high, p, len(null), _betti(observed, nulls, least_ratio), verdict
    )


def _ratio(barcode: Barcode) -> float:
    """Lifetime of the longest loop in units of the second's; 1 without any, infinite with one."""
    first, second = ([death - birth for birth, death in barcode.bars[1]] + [0.0, 0.0])[:2]
    if not first > 0:
        return 1.0
    return first / second if second > 0 else math.inf


def _betti(observed: Barcode, nulls: Sequence[Barcode], least_ratio: float) -> tuple[int, ...]:
    """Parts, loops and voids of the observed shape that nulls lack.

    Parts are farther from one another than any of a null. Of loops and voids those before the
    widest gap count, where no null has one so wide. Not the longer ones: a small ring's loop is one
    although noise on a sphere has longer ones, and a torus that was visited unevenly has more long
    loops than noise has.
    """
    if not nulls:
        return ()
    farthest = max(death - birth for b in nulls for birth, death in (*b.bars[0], (0.0, 0.0)))
    found = [1 + sum(death - birth > farthest for birth, death in observed.bars[0])]
    for d in range(1, min(len(b.bars) for b in (observed, *nulls))):
        count, gap = _widest_gap(observed, d)
        clear = gap >= least_ratio and all(gap > _widest_gap(b, d)[1] for b in nulls)
        found.append(count if clear else 0)
    return tuple(found)


def _widest_gap(barcode: Barcode, dimension: int) -> tuple[int, float]:
    """Bars before the widest gap among the longest, and how many times the next one they live.

    What lives a tenth of the distance between neighbouring points is not resolved.
    """
    least = 0.1 * float(np.median([death - birth for birth, death in barcode.bars[0]] or [0.0]))
    lives = [death - birth for birth, death in barcode.bars[dimension][:_LONGEST]]
    lives = [life for life in lives if life > least]
    if not lives:
        return 0, 1.0
    after = [*lives[1:], least] if len(lives) < _LONGEST else lives[1:]
    ratios = [a / b if b > 0 else math.inf for a, b in zip(lives, after, strict=False)]
    widest = int(np.argmax(ratios))
    return widest + 1, ratios[widest]
