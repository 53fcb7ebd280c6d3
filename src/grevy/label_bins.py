"""Bins of labels that several embeddings share, and the means of the embeddings over them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from .errors import ConfigError, DataError
from .inputs import plain_array

__all__ = ["Averages", "averages_of", "binned", "grid_cells", "means"]

Matrix = NDArray[np.float64]
Averages = csr_array
"""A matrix (bins, T) whose product with an embedding is its mean over each bin."""

_REACH = 2  # an empty bin may borrow from bins so far away


def binned(
    embeddings: list[Matrix],
    labels: Sequence[ArrayLike] | None,
    n_bins: int,
    names: list[str],
) -> tuple[list[Matrix], list[Averages]]:
    """Embeddings without their missing rows; for each the matrix that averages it over bins."""
    if isinstance(n_bins, bool) or not isinstance(n_bins, int | np.integer) or n_bins < 2:
        raise ConfigError(f"the number of bins must be an integer of at least 2; found {n_bins!r}.")
    values = _labels(labels, [len(e) for e in embeddings], names)
    everything = np.concatenate(values)
    classes, columns = values[0].dtype.kind != "f", everything.shape[1]
    if classes:
        known, codes = np.unique(everything, axis=0, return_inverse=True)
    elif columns == 1:
        edges = np.linspace(everything.min(), everything.max(), n_bins)
        codes = np.digitize(everything[:, 0], edges) - 1
    else:
        codes = grid_cells(everything, n_bins)
    ends = np.cumsum([len(v) for v in values])[:-1]
    kept = _kept(embeddings, names)
    each = [c[k] for c, k in zip(np.split(codes.ravel(), ends), kept, strict=True)]
    reach = 0
    if classes:
        _all_have(known, each, names)
        cells = np.arange(len(known))
    elif columns == 1:
        each, cells = _without_gaps(each, edges, names)
        reach = _REACH
    else:
        cells = _shared(each, names)
    if len(cells) < 2:
        raise DataError(
            "labels must have at least 2 values (or bins) that all datasets share; found "
            f"{len(cells)}. Give labels that vary in all of them, or use fewer bins."
        )
    averages = [averages_of(codes, cells, reach=reach) for codes in each]
    return [e[k] for e, k in zip(embeddings, kept, strict=True)], averages


def means(averages: list[Averages], embeddings: list[Matrix], *, unit: bool = True) -> list[Matrix]:
    """Embeddings averaged over bins, each mean of unit length if asked."""
    means = [np.asarray(a @ e) for a, e in zip(averages, embeddings, strict=True)]
    if not unit:
        return means
    for i, mean in enumerate(means):
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        if not length.all():
            raise DataError(
                f"means over bins must have a length to be scaled; found one of embedding {i} at "
                "the origin. Leave the embedding out."
            )
        mean /= length
    return means


def _labels(
    labels: Sequence[ArrayLike] | None, lengths: list[int], names: list[str]
) -> list[NDArray[Any]]:
    """Labels of shape (T_i, L), all classes (integers) or all floats."""
    several = [] if labels is None else [plain_array(label) for label in labels]
    if len(several) != len(lengths):
        raise DataError(
            f"labels must be one array for each embedding; found {len(several)} for "
            f"{len(lengths)} embeddings."
        )
    for label, length, name in zip(several, lengths, names, strict=True):
        if label.dtype.kind not in "fiub" or label.ndim not in (1, 2):
            raise DataError(
                f"labels of {name} must be numbers of shape (samples,) or (samples, columns); "
                f"found {label.dtype} of shape {label.shape}. Number the classes."
            )
        if len(label) != length:
            raise DataError(
                f"labels of {name} must be one for each sample; found {len(label)} labels and "
                f"{length} samples."
            )
        if not np.isfinite(label).all():
            at = tuple(np.argwhere(~np.isfinite(label))[0])
            raise DataError(
                f"labels of {name} must be finite; found {label[at]} in row {at[0]}. "
                "Leave such samples out, with their rows of the embedding."
            )
    several = [label.reshape(len(label), -1) for label in several]
    kinds = {(label.dtype.kind == "f", label.shape[1]) for label in several}
    if len(kinds) > 1:
        found = " and ".join(sorted({f"{a.dtype} with {a.shape[1]} columns" for a in several}))
        raise DataError(
            "labels of all embeddings must be of one kind, floats or integers (classes), with as "
            f"many columns; found {found}."
        )
    return several


def _kept(embeddings: list[Matrix], names: list[str]) -> list[NDArray[np.bool_]]:
    """Rows without NaN; a warning says how many there are with."""
    kept = [np.asarray(~np.isnan(e).any(axis=1)) for e in embeddings]
    for k, name in zip(kept, names, strict=True):
        if not k.any():
            raise DataError(f"an embedding must have rows without NaN; found none in {name}.")
    n_missing = sum(int((~k).sum()) for k in kept)
    if n_missing:
        warnings.warn(
            f"{n_missing} rows of the embeddings hold NaN and are left out.",
            UserWarning,
            stacklevel=4,
        )
    return kept


def _all_have(known: NDArray[Any], each: list[NDArray[np.int64]], names: list[str]) -> None:
    """Every class must occur in every dataset."""
    for codes, name in zip(each, names, strict=True):
        absent = np.setdiff1d(np.arange(len(known)), codes)
        if len(absent):
            which = [str(c[0] if len(c) == 1 else tuple(c.tolist())) for c in known[absent[:5]]]
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            raise DataError(
                f"classes must occur in every dataset; found no sample of {', '.join(which)}{more} "
                f"in {name}. Leave the class out of the others, or pass floats to have them binned."
            )


def _without_gaps(
    each: list[NDArray[np.int64]], edges: NDArray[Any], names: list[str]
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Bins that are compared: all of them, or without those where no dataset has samples."""
    cells = np.arange(len(edges) - 1)
    if all(_near(codes, cells).all() for codes in each):
        return each, cells
    each = [np.minimum(codes, len(cells) - 1) for codes in each]
    cells = np.unique(np.concatenate(each))
    for codes, name in zip(each, names, strict=True):
        far = cells[~_near(codes, cells)]
        if len(far):
            raise DataError(
                "labels of all datasets must cover the same range; found no sample of "
                f"{name} within {_REACH} bins of {edges[far[0]]:.6g} ... {edges[far[0] + 1]:.6g}. "
                "Use fewer bins, or leave out the samples that only some datasets cover."
            )
    return each, cells


def _near(codes: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a cell or one within reach of it has samples."""
    ordered = np.sort(codes)
    first = np.searchsorted(ordered, cells - _REACH, "left")
    return np.asarray(first < np.searchsorted(ordered, cells + _REACH, "right"))


def grid_cells(values: NDArray[Any], n_bins: int) -> NDArray[np.int64]:
    """Cell of each sample in a grid over columns (T, L): about `n_bins` cells, few values each."""
    distinct = [np.unique(column) for column in values.T]
    few = n_bins ** (1 / values.shape[1])
    wide = sum(len(v) > few for v in distinct)
    parts, sizes = [], []
    for column, v in zip(values.T, distinct, strict=True):
        if len(v) <= few:
            edges = (v[1:] + v[:-1]) / 2
        else:
            edges = np.linspace(v[0], v[-1], max(2, round(n_bins ** (1 / wide))) + 1)[1:-1]
        parts.append(np.searchsorted(edges, column, side="right"))
        sizes.append(len(edges) + 1)
    return np.asarray(np.ravel_multi_index(parts, sizes))


def _shared(each: list[NDArray[np.int64]], names: list[str]) -> NDArray[np.int64]:
    """Cells in which all datasets have samples."""
    cells = each[0]
    for codes in each:
        cells = np.intersect1d(cells, codes)
    for codes, name in zip(each, names, strict=True):
        share = float(np.isin(codes, cells).mean())
        if 0 < share < 0.5:
            warnings.warn(
                f"only {share:.0%} of the samples of {name} lie where all datasets have labels; "
                "the others are not compared. Use fewer bins.",
                UserWarning,
                stacklevel=4,
            )
    return cells


def averages_of(codes: NDArray[np.int64], cells: NDArray[np.int64], *, reach: int = 0) -> Averages:
    """The matrix (cells, T) whose product with an embedding is its mean over each cell.

    An empty cell borrows from those up to `reach` away. Samples sorted by code make the samples of
    any range of codes one slice.
    """
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.searchsorted(ordered, cells, "left")
    last = np.searchsorted(ordered, cells, "right")
    for r in range(1, reach + 1):
        empty = first == last
        first[empty] = np.searchsorted(ordered, cells[empty] - r, "left")
        last[empty] = np.searchsorted(ordered, cells[empty] + r, "right")
    counts = last - first
    samples = np.concatenate([order[a:b] for a, b in zip(first, last, strict=True)])
    starts = np.concatenate([[0], np.cumsum(counts)])
    shape = (len(cells), len(codes))
    return csr_array((np.repeat(1 / counts, counts), samples, starts), shape=shape)
