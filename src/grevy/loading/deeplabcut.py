"""Keypoints of DeepLabCut, with a position for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, FormatError
from .content import Table, known, listed
from .hdf5 import from_hdf5
from .opening import kind_of, said
from .tables import deeplabcut_csv

__all__ = ["load_deeplabcut", "positions"]


def load_deeplabcut(
    filepath: str | Path, keypoints: Sequence[str] | None = None, pcutoff: float = 0.6
) -> NDArray[np.float64]:
    """Positions of keypoints that DeepLabCut found or people marked, gaps interpolated.

    Parameters
    ----------
    filepath : str or Path
        An .h5 or .csv file of DeepLabCut, of a single animal.
    keypoints : sequence of str, optional
        Which, and in which order; all by default.
    pcutoff : float
        Positions of a lower likelihood, in [0, 1], count as missing.

    Returns
    -------
    array, shape (n_frames, 2 * n_keypoints), in pixels
        x and y of each keypoint. A row for every frame: missing positions lie on the line between
        the nearest frames that have one; before the first and after the last they repeat it.

    Raises
    ------
    DataError
        If a keypoint is not in the file or has no frame above the cutoff, or the file is of several
        animals.
    ConfigError
        If `pcutoff` is outside [0, 1] or `keypoints` is one string.
    FormatError, UnsafeFileError
        As `load_data`.

    References
    ----------
    Mathis et al. 2018, DeepLabCut, doi:10.1038/s41593-018-0209-y.
    """
    path = Path(filepath)
    with said(path):
        kind = kind_of(path)
        if kind == "hdf5":
            table = from_hdf5(path, None, prefer="df_with_missing")
        elif kind == "csv":
            table = deeplabcut_csv(path)
        else:
            raise FormatError(f"a file of DeepLabCut must be HDF5 or csv; this one is {kind}.")
        return positions(table, keypoints, pcutoff)


def positions(table: Table, keypoints: Sequence[Any] | None, pcutoff: float) -> NDArray[np.float64]:
    """Columns x and y of keypoints out of a table of DeepLabCut, gaps interpolated."""
    if isinstance(keypoints, str):
        raise ConfigError(f"keypoints must be a list of names; it is the string {keypoints!r}.")
    if not 0 <= pcutoff <= 1:
        raise ConfigError(f"pcutoff must be a likelihood in [0, 1]; it is {pcutoff}.")
    if "individuals" in table.levels:
        raise DataError("a file of DeepLabCut must be of one animal; this one has individuals.")
    if not {"bodyparts", "coords"} <= set(table.levels):
        raise DataError(
            f"a file of DeepLabCut must have columns of scorer, bodyparts and coords; this one has "
            f"{listed(table.levels)}."
        )
    part, coord = table.levels.index("bodyparts"), table.levels.index("coords")
    where = {(c[part], c[coord]): i for i, c in enumerate(table.columns)}
    if len(where) < len(table.columns):
        raise DataError("a file of DeepLabCut must have one scorer; this one repeats its columns.")
    found = list(dict.fromkeys(name for name, _ in where))
    done = []
    for name in found if keypoints is None else keypoints:
        known(name, found, what="keypoint")
        xy = table.values[:, [where[name, "x"], where[name, "y"]]].astype(np.float64)
        there = np.isfinite(xy).all(axis=1)
        if (name, "likelihood") in where:
            there &= table.values[:, where[name, "likelihood"]] >= pcutoff
        if not there.any():
            raise DataError(
                f"every keypoint must be seen at least once; '{name}' has no position of "
                f"likelihood {pcutoff} or more. Lower pcutoff or leave it out."
            )
        frames = np.arange(len(xy))
        done += [np.interp(frames, frames[there], values[there]) for values in xy.T]
    if not done:
        raise ConfigError("keypoints must name at least one keypoint; it is empty.")
    return np.stack(done, axis=1)
