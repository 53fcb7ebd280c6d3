"""How alike embeddings are, and how they are laid over each other.

Source: Schneider, Lee & Mathis 2023, Methods, "Consistency": the R2 of a linear regression from one
embedding to another, of runs sample by sample, of datasets after averaging over bins of a label.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError, DataError
from .inputs import plain_array
from .label_bins import Averages, binned, means

__all__ = ["align_embeddings", "consistency_score"]

Matrix = NDArray[np.float64]


def consistency_score(
    embeddings: Sequence[ArrayLike],
    between: Literal["datasets", "runs"] | None = None,
    labels: Sequence[ArrayLike] | None = None,
    dataset_ids: Sequence[Hashable] | None = None,
    num_discretization_bins: int = 100,
    *,
    symmetric: bool = False,
    null: int = 0,
    random_state: int | np.random.Generator | None = None,
) -> tuple[NDArray[Any], ...]:
    """How well one embedding is a linear function of another, for every ordered pair.

    The score is the R2 of a linear regression, averaged over the columns of the second embedding,
    judged on the rows that it was fitted on. Embeddings of label-guided models are consistent on
    the samples that they were trained with whatever the data say: give embeddings of held-out
    samples, and compare with models that were fitted to shuffled labels.

    Parameters
    ----------
    embeddings : sequence of arrays, shape (T_i, D_i)
        At least two; for runs of equal length, sample by sample.
    between : {"datasets", "runs"}, optional
        Without it: datasets where `labels` or `dataset_ids` are given, and otherwise runs.
    labels : sequence of arrays, shape (T_i,) or (T_i, L)
        For datasets. Integers and bool are classes, one bin each, and every dataset must have all
        of them. Floats are cut into bins, see Notes.
    dataset_ids : sequence of names, optional
        Of each embedding's dataset, for datasets; 0, 1, ... without. Embeddings of one dataset are
        not compared with each other, and their scores with another dataset are averaged.
    num_discretization_bins : int
        Edges of bins between the smallest and the largest float label, at least 2.
    symmetric : bool
        Give both directions of a pair their mean.
    null : int
        Draws of a null distribution. In each draw every dataset is shifted in time against its
        labels, and every run against the other runs, by a random lag around the end of the
        recording. This asks whether what was embedded is tied to the labels (or times); it does
        not fit the encoders again, and slow drift through a recording can mimic a tie.
    random_state : int, Generator or None
        Of the null.

    Returns
    -------
    scores : array of float64, shape (P,)
    pairs : array, shape (P, 2)
        The two ids that each score compares, every ordered pair once, the first id slowest.
    ids : array, shape (n_embeddings,)
        Dataset of each embedding, or the number of each run.
    null : array of float64, shape (null, P)
        Only where `null` is above 0. A p value is (1 + sum(null >= scores)) / (1 + null).

    Raises
    ------
    ConfigError
        `between` is unknown, or something is given or missing that the comparison needs.
    DataError
        Embeddings or labels that cannot be compared; the sentence names which.

    Warns
    -----
    UserWarning
        Rows with NaN are left out; a regression has so few rows that it fits anything.

    Notes
    -----
    One column of floats: equal bins from the smallest to the largest value of all datasets, the
    largest value itself beyond the last bin. A bin without samples borrows those of its neighbours,
    and then of the neighbours' neighbours. Where labels leave gaps that no dataset fills, as a
    label of two values does, only bins in which some dataset has samples are compared.

    Several columns of floats: a column of few values gets a bin for each, the others share
    `num_discretization_bins` so that the bins of all of them together are about as many; what all
    datasets occupy is compared.

    References
    ----------
    Schneider, Lee & Mathis 2023, Nature 617, 360-368, Methods, "Consistency".
    Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39, for the p value.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(500, 3))
    >>> scores, pairs, runs = consistency_score([z, z @ rng.normal(size=(3, 3))], between="runs")
    >>> scores.round(6).tolist(), pairs.tolist(), runs.tolist()
    ([1.0, 1.0], [[0, 1], [1, 0]], [0, 1])
    """
    if isinstance(null, bool) or not isinstance(null, int | np.integer) or null < 0:
        raise ConfigError(f"null must be a number of draws, 0 for none; found {null!r}.")
    kind = _comparison(between, labels, dataset_ids)
    several = _matrices(embeddings, least=2, missing=kind == "datasets")
    ids: list[Hashable] = list(range(len(several)))
    averages: list[Averages] | None = None
    if kind == "datasets":
        ids = _datasets(dataset_ids, len(several))
        names = [f"dataset {name!r} (embedding {i})" for i, name in enumerate(ids)]
        several, averages = binned(several, labels, num_discretization_bins, names)
    else:
        _same_length(several)
    compared = _compared(ids)

    def scores_of(sides: list[_Side]) -> Matrix:
        r2 = np.array([[_r2(a, b) for b in sides] for a in sides])
        if symmetric:
            r2 = (r2 + r2.T) / 2
        return np.array([np.mean([r2[cell] for cell in cells]) for cells in compared.values()])

    sides = [_side(e) for e in (several if averages is None else means(averages, several))]
    for i, side in enumerate(sides):
        if not side.columns.shape[1]:
            raise DataError(
                f"embedding {i} must vary; found all its {len(side.basis)} rows (or means over "
                "bins) equal: it has collapsed. Leave it out."
            )
    _warn_of_few_rows(sides, "samples" if averages is None else "bins")
    found = (scores_of(sides), np.array(list(compared)), np.array(ids))
    if not null:
        return found
    rng = np.random.default_rng(random_state)
    draws = []
    for _ in range(null):
        turn = dict(zip(dict.fromkeys(ids), rng.random(len(set(ids))), strict=True))
        lags = [int(turn[name] * len(e)) for name, e in zip(ids, several, strict=True)]
        if averages is None:
            moved = [_shifted(side, lag) for side, lag in zip(sides, lags, strict=True)]
        else:
            rolled = [np.roll(e, lag, axis=0) for e, lag in zip(several, lags, strict=True)]
            moved = [_side(e) for e in means(averages, rolled)]
        draws.append(scores_of(moved))
    return (*found, np.array(draws))


def align_embeddings(
    embeddings: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    normalize: bool = True,
    n_bins: int = 100,
) -> list[NDArray[np.float64]]:
    """Means of each embedding over the same bins of a label.

    Parameters
    ----------
    embeddings : sequence of arrays, shape (T_i, D_i)
    labels : sequence of arrays, shape (T_i,) or (T_i, L)
        What bins are: see `consistency_score`.
    normalize : bool
        Whether the means are scaled to unit length.
    n_bins : int
        Edges of bins, at least 2: there are `n_bins` - 1 bins of a column of floats without gaps.

    Returns
    -------
    list of arrays of float64, shape (bins, D_i)
        Row b of each is of the same bin.

    Raises
    ------
    ConfigError
        If `n_bins` is below 2.
    DataError
        If labels do not fit the embeddings or each other.

    Examples
    --------
    >>> position = np.linspace(0, 1, 300)
    >>> ring = np.stack([np.cos(position), np.sin(position)], axis=1)
    >>> first, second = align_embeddings([ring, ring[::-1]], [position, position[::-1]], n_bins=11)
    >>> first.shape, bool(np.allclose(first, second))
    ((10, 2), True)
    """
    several = _matrices(embeddings, least=1, missing=True)
    names = [f"embedding {i}" for i in range(len(several))]
    several, averages = binned(several, labels, n_bins, names)
    return means(averages, several, unit=normalize)


# --- Checks --------------------------------------------------------------------------------------
def _comparison(between: object, labels: object, dataset_ids: object) -> str:
    """What is compared, and whether all that it needs is given, and nothing else."""
    if between is None:
        between = "runs" if labels is None and dataset_ids is None else "datasets"
    if between not in ("runs", "datasets"):
        raise ConfigError(f"between must be 'runs' or 'datasets'; found {between!r}.")
    if between == "datasets" and labels is None:
        raise ConfigError(
            "labels must be given to compare datasets: they say which samples belong together; "
            "found None. Give one array of labels for each embedding, or compare runs."
        )
    given = [("labels", labels), ("dataset_ids", dataset_ids)]
    for name, value in given:
        if between == "runs" and value is not None:
            raise ConfigError(
                f"{name} must not be given to compare runs, which are of one dataset and sample "
                "by sample. Leave it out, or set between='datasets'."
            )
    return str(between)


def _matrices(embeddings: Sequence[ArrayLike], *, least: int, missing: bool) -> list[Matrix]:
    """Embeddings in float64, finite but for NaN where rows may be missing."""
    several = [plain_array(e) for e in embeddings]
    if len(several) < least:
        raise DataError(
            f"embeddings must be at least {least} to be compared; found {len(several)}."
        )
    for i, e in enumerate(several):
        if e.ndim != 2 or e.dtype.kind not in "fiub" or not e.size:
            raise DataError(
                f"embedding {i} must be an array of numbers of shape (samples, dimensions); found "
                f"{e.dtype} of shape {e.shape}."
            )
        bad = np.argwhere(np.isinf(e) if missing else ~np.isfinite(e))
        if len(bad):
            row, column = bad[0]
            raise DataError(
                f"embedding {i} must be finite; found {e[row, column]} in row {row}, column "
                f"{column}. Leave such samples out of all runs."
            )
    return [np.asarray(e, dtype=np.float64) for e in several]


def _same_length(several: list[Matrix]) -> None:
    """Runs are compared sample by sample."""
    for i, e in enumerate(several):
        if len(e) != len(several[0]):
            raise DataError(
                f"runs must have the same samples; found {len(several[0])} in embedding 0 and "
                f"{len(e)} in embedding {i}. Embed the same recording, or compare datasets."
            )


def _datasets(dataset_ids: Sequence[Hashable] | None, n: int) -> list[Hashable]:
    """The dataset of each embedding, at least two different ones."""
    ids: list[Hashable] = list(range(n)) if dataset_ids is None else list(dataset_ids)
    if len(ids) != n:
        raise DataError(
            f"dataset_ids must name the dataset of every embedding; found {len(ids)} ids for {n} "
            "embeddings."
        )
    if len(set(ids)) < 2:
        raise DataError(
            f"dataset_ids must name at least two datasets; found only {ids[0]!r}. "
            "Compare embeddings of one dataset with between='runs'."
        )
    return ids


def _warn_of_few_rows(sides: list[_Side], what: str) -> None:
    """As many free parameters as rows fit anything."""
    rows, free = min((len(s.basis), 1 + s.basis.shape[1]) for s in sides)
    if any(len(s.basis) <= 1 + s.basis.shape[1] for s in sides):
        warnings.warn(
            f"a linear regression with {free} parameters fits {rows} {what} whatever they hold: "
            "scores are 1 by construction. Give labels of more values, or more bins.",
            UserWarning,
            stacklevel=3,
        )


# --- Scores --------------------------------------------------------------------------------------
class _Side(NamedTuple):
    """What regressions from and to one embedding need.

    `basis` (n, rank): orthonormal, spans its centred columns. `columns` (n, d): the centred columns
    that vary, of unit length; `constant` counts the others.
    """

    basis: Matrix
    columns: Matrix
    constant: int


def _side(embedding: Matrix) -> _Side:
    centred = embedding - embedding.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    exact = np.finfo(np.float64).eps * np.sqrt(len(centred))
    varies = length > 16 * exact * np.abs(embedding).max(axis=0)
    columns = centred[:, varies] / length[varies]
    basis, size, _ = np.linalg.svd(centred[:, varies], full_matrices=False)
    tolerance = max(centred.shape) * np.finfo(np.float64).eps * max(size, default=0.0)
    return _Side(basis[:, size > tolerance], columns, int((~varies).sum()))


def _shifted(side: _Side, lag: int) -> _Side:
    return _Side(np.roll(side.basis, lag, 0), np.roll(side.columns, lag, 0), side.constant)


def _r2(source: _Side, target: _Side) -> float:
    """R2 of the regression, a mean over columns; that of a constant column is 1, any line fits it.

    The share of a centred column's squared length that lies in the span of the source.
    """
    explained = float(np.square(source.basis.T @ target.columns).sum())
    n_columns = int(target.columns.shape[1])
    return (explained + target.constant) / (n_columns + target.constant)


def _compared(ids: list[Hashable]) -> dict[tuple[Hashable, Hashable], list[tuple[int, int]]]:
    """Every ordered pair of different ids, in order of appearance, and the embeddings it pools."""
    found: dict[tuple[Hashable, Hashable], list[tuple[int, int]]] = {}
    for i, a in enumerate(ids):
        for j, b in enumerate(ids):
            if a != b:
                found.setdefault((a, b), []).append((i, j))
    return found
