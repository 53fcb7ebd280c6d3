"""Embeddings turned onto each other by a rotation (or reflection), and their mean.

Source: Schneider, Lee & Mathis 2023, Methods; the rotation is that of Schoenemann 1966.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from sklearn.exceptions import NotFittedError
from sklearn.utils.parallel import Parallel, delayed

from .errors import ConfigError, DataError
from .inputs import plain_array

__all__ = ["OrthogonalProcrustesAlignment", "ensemble_embeddings"]

Matrix = NDArray[np.float64]
_ROOM = 2**22  # numbers held at once


class OrthogonalProcrustesAlignment:
    """The rotation that lays one embedding over another, matched by their labels.

    Every sample is paired with the `top_k` reference samples whose labels are nearest, and the
    orthogonal matrix R that makes data R come closest to the partners is found. Nothing is centred
    or scaled. Reference samples of equal labels stand at one place and share it: each counts as
    their mean.

    Parameters
    ----------
    top_k : int
        Partners of each sample, in the order of their labels' distance.
    subsample : int, optional
        Use so many pairs of sample and partner, drawn without replacement, if there are more.
    random_state : int, Generator or None
        Of that draw.

    Attributes
    ----------
    rotation_ : array of float64, shape (D, D)
        After `fit`.

    References
    ----------
    Schoenemann 1966, Psychometrika 31, 1-10.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z, (turn, _) = rng.normal(size=(200, 3)), np.linalg.qr(rng.normal(size=(3, 3)))
    >>> back = OrthogonalProcrustesAlignment(top_k=1).fit_transform(z, z @ turn)
    >>> bool(np.allclose(back, z))
    True
    """

    def __init__(
        self,
        top_k: int = 5,
        subsample: int | None = None,
        *,
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        for name, value in (("top_k", top_k), ("subsample", subsample)):
            if name == "subsample" and value is None:
                continue
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if value is None or not whole or value < 1:
                raise ConfigError(f"{name} must be an integer of at least 1; found {value!r}.")
        self.top_k = top_k
        self.subsample = subsample
        self.random_state = random_state

    def fit(
        self,
        ref_data: ArrayLike,
        data: ArrayLike,
        ref_label: ArrayLike | None = None,
        label: ArrayLike | None = None,
    ) -> OrthogonalProcrustesAlignment:
        """Find the rotation.

        Parameters
        ----------
        ref_data : array, shape (N, D) or (N,)
        data : array, shape (M, D) or (M,)
        ref_label, label : arrays, shapes (N,) or (N, L) and (M,) or (M, L), optional
            Both or neither. Without them the samples of both are taken to be of the same times.

        Returns
        -------
        OrthogonalProcrustesAlignment
            Itself.

        Raises
        ------
        DataError
            If shapes or labels do not fit, something is not finite, or N is below `top_k`.
        """
        reference, moved = _matrix(ref_data, "ref_data"), _matrix(data, "data")
        if moved.shape[1] != reference.shape[1]:
            raise DataError(
                "data and ref_data must have the same dimensions; found "
                f"{moved.shape[1]} and {reference.shape[1]}."
            )
        if len(reference) < self.top_k:
            raise DataError(
                f"ref_data must have at least top_k = {self.top_k} samples; found "
                f"{len(reference)}. Set a smaller top_k."
            )
        ref_labels, labels = _label_pair(ref_label, label, len(reference), len(moved))
        places, place_of, counts = np.unique(
            ref_labels, axis=0, return_inverse=True, return_counts=True
        )
        means = np.zeros((len(places), reference.shape[1]))
        np.add.at(means, place_of.ravel(), reference)
        means /= counts[:, None]

        used = self._used(len(moved))
        tree = cKDTree(places)
        rows = np.arange(len(moved)) if used is None else np.flatnonzero(used.any(axis=1))
        size = max(1, _ROOM // (self.top_k * max(self.top_k, reference.shape[1])))
        cross = np.zeros((reference.shape[1], reference.shape[1]))
        for i in range(0, len(rows), size):
            some = rows[i : i + size]
            partners = means[_nearest(tree, counts, labels[some], self.top_k)]
            if used is not None:
                partners *= used[some, :, None]
            cross += moved[some].T @ partners.sum(axis=1)
        left, _, right = np.linalg.svd(cross)
        self.rotation_: Matrix = left @ right
        return self

    def transform(self, data: ArrayLike) -> NDArray[Any]:
        """Data turned onto the reference, of the same shape; one dimension becomes a column.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the dimensions are not those of `fit`.
        """
        if not hasattr(self, "rotation_"):
            raise NotFittedError("the rotation must be found first; call fit before transform.")
        moved = _matrix(data, "data")
        if moved.shape[1] != len(self.rotation_):
            raise DataError(
                f"data must have the {len(self.rotation_)} dimensions of fit; found "
                f"{moved.shape[1]}."
            )
        return np.asarray(moved @ self.rotation_, dtype=_float_of(plain_array(data)))

    def fit_transform(
        self,
        ref_data: ArrayLike,
        data: ArrayLike,
        ref_label: ArrayLike | None = None,
        label: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """`fit`, then `transform` of the same data."""
        return self.fit(ref_data, data, ref_label, label).transform(data)

    def _used(self, n: int) -> NDArray[np.bool_] | None:
        """Which pairs of sample and partner are used, shape (n, top_k); None for all."""
        total = n * self.top_k
        if self.subsample is None or self.subsample >= total:
            return None
        drawn = np.random.default_rng(self.random_state).choice(
            total, self.subsample, replace=False, shuffle=False
        )
        used = np.zeros(total, dtype=bool)
        used[drawn] = True
        return used.reshape(n, self.top_k)


def ensemble_embeddings(
    embeddings: Sequence[ArrayLike],
    labels: Sequence[ArrayLike] | None = None,
    post_norm: bool = False,
    n_jobs: int = 0,
) -> NDArray[Any]:
    """The mean of embeddings of the same samples, all turned onto the first.

    Parameters
    ----------
    embeddings : sequence of arrays, shape (T, D)
    labels : sequence of arrays, shape (T,) or (T, L), optional
        To match samples by, one for each embedding; without them samples are matched by time.
    post_norm : bool
        Whether rows of the mean are scaled to unit length.
    n_jobs : int
        Processes as of `joblib.Parallel` (-1 for all cores); 0 for a plain loop.

    Returns
    -------
    array, shape (T, D)
        float32 where all embeddings are, and otherwise float64.

    Raises
    ------
    ConfigError
        If `n_jobs` is no integer.
    DataError
        If embeddings differ in shape, labels do not fit them, or a mean to scale has no length.

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=(100, 2))
    >>> ensemble_embeddings([z, -z, z[:, ::-1]]).shape
    (100, 2)
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer):
        raise ConfigError(f"n_jobs must be an integer, 0 for a plain loop; found {n_jobs!r}.")
    several = [plain_array(e) for e in embeddings]
    if not several:
        raise DataError("embeddings must be at least 1; found none.")
    for i, e in enumerate(several):
        if e.shape != several[0].shape:
            raise DataError(
                f"embeddings must have the same shape; found {several[0].shape} in embedding 0 "
                f"and {e.shape} in embedding {i}. Embed the same samples, in as many dimensions."
            )
    given: list[Any] = [None] * len(several) if labels is None else list(labels)
    if len(given) != len(several):
        raise DataError(
            f"labels must be one array for each embedding; found {len(given)} for "
            f"{len(several)} embeddings."
        )
    matrices = [_matrix(e, f"embedding {i}") for i, e in enumerate(several)]
    pairs = zip(matrices[1:], given[1:], strict=True)
    if n_jobs == 0:
        turned = [_turned(matrices[0], e, given[0], label) for e, label in pairs]
    else:
        turned = Parallel(n_jobs=n_jobs)(
            delayed(_turned)(matrices[0], e, given[0], label) for e, label in pairs
        )
    joint = sum(turned, start=matrices[0]) / len(matrices)
    if post_norm:
        length = np.linalg.norm(joint, axis=1, keepdims=True)
        if not length.all():
            raise DataError(
                f"rows must have a length to be scaled; the mean of row {int(length.argmin())} is "
                "at the origin. Set post_norm=False."
            )
        joint = joint / length
    return np.asarray(joint, dtype=np.result_type(*map(_float_of, several)))


def _turned(reference: Matrix, data: Matrix, ref_label: Any, label: Any) -> NDArray[Any]:
    return OrthogonalProcrustesAlignment().fit_transform(reference, data, ref_label, label)


def _float_of(array: NDArray[Any]) -> np.dtype[Any]:
    """float32 stays what it is; all else is computed and returned in float64."""
    return np.dtype(np.float32 if array.dtype == np.float32 else np.float64)


def _matrix(values: ArrayLike, name: str) -> Matrix:
    """Finite numbers of shape (samples, columns)."""
    array = plain_array(values)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise DataError(
            f"{name} must be an array of numbers of shape (samples, dimensions); found "
            f"{array.dtype} of shape {array.shape}."
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{name} must be finite; found {array[row, column]} in row {row}, column {column}. "
            "Leave such samples out."
        )
    return array.astype(np.float64)


def _label_pair(
    ref_label: ArrayLike | None, label: ArrayLike | None, n_reference: int, n: int
) -> tuple[Matrix, Matrix]:
    """Labels of both sides; the sample's number where there are none."""
    if ref_label is None and label is None:
        if n_reference != n:
            raise DataError(
                "without labels, data and ref_data must be of the same samples; found "
                f"{n} and {n_reference}. Give ref_label and label."
            )
        times = np.arange(n, dtype=np.float64)[:, None]
        return times, times
    if ref_label is None or label is None:
        absent = "ref_label" if ref_label is None else "label"
        raise DataError(f"ref_label and label must be given together; found no {absent}.")
    both = _matrix(ref_label, "ref_label"), _matrix(label, "label")
    for labels, length, name in zip(both, (n_reference, n), ("ref_", ""), strict=True):
        if len(labels) != length:
            raise DataError(
                f"{name}label must be one for each sample of {name}data; found {len(labels)} "
                f"labels and {length} samples."
            )
    if both[0].shape[1] != both[1].shape[1]:
        raise DataError(
            "ref_label and label must have the same columns; found "
            f"{both[0].shape[1]} and {both[1].shape[1]}."
        )
    return both


def _nearest(
    tree: cKDTree, counts: NDArray[np.int64], labels: Matrix, top_k: int
) -> NDArray[np.int64]:
    """Place (different reference label) of each of the `top_k` partners, shape (M, top_k).

    A place with several samples gives as many partners.
    """
    ranks = np.arange(1, min(top_k, tree.n) + 1)
    found = np.asarray(tree.query(labels, k=ranks)[1])
    filled = np.cumsum(counts[found], axis=1)
    which = (filled[:, None, :] <= np.arange(top_k)[None, :, None]).sum(axis=2)
    return np.asarray(np.take_along_axis(found, which, axis=1))
