"""Activity and labels by name, from any file that grevy reads."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .loading import array_shapes, load_data, refuse_hanging
from .windows import Spans

__all__ = ["Source", "read_source"]

_Labels = tuple[list[NDArray[Any]], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Source:
    """What a model is fitted to.

    Attributes
    ----------
    activity : array, shape (T, C)
    labels : tuple of arrays
        Floats are continuous, integers discrete.
    names : tuple of str
        Of the labels.
    epochs : array of int64, shape (E, 2), or None
    periods : dict of column to period
        Circular columns among the continuous labels.
    """

    activity: NDArray[Any]
    labels: tuple[NDArray[Any], ...]
    names: tuple[str, ...]
    epochs: Spans | None
    periods: dict[int, float]


def read_source(
    path: str | Path,
    *,
    activity: str | None = None,
    labels: Sequence[str] = (),
    label_file: str | Path | None = None,
    units: str | None = None,
    bin_s: float | None = None,
    n_channels: int | None = None,
) -> Source:
    """Read activity and the named labels.

    Parameters
    ----------
    path : path
        .nwb (or a folder of it on Zarr), .npz, .npy, HDF5, csv or Matlab; told apart by content.
    activity : str, optional
        Which array is the activity: a key, or for NWB an object path. In csv all columns that are
        no labels.
    labels : sequence of str
        Keys, columns of csv, or behaviour of an NWB file. With a `label_file` its columns, or a
        name for its one array.
    label_file : path, optional
        A file with the label, for formats that hold a single array; of a csv the named columns.
    units, bin_s
        As in `grevy.read`, for spikes.
    n_channels : int, optional
        How many columns the activity has, where a model is at hand: it may tell arrays apart.

    Returns
    -------
    Source

    Raises
    ------
    DataError, FormatError, LimitError, UnsafeFileError
        If a name is not there, or the file cannot be read. HDF5, Excel and Matlab are looked at in
        a process apart first.
    """
    path = Path(path)
    if path.suffix == ".nwb" or path.is_dir():
        source = _from_nwb(path, activity, labels, units, bin_s)
        _fits(source.activity, n_channels, path)
        return source
    if units is not None or bin_s is not None:
        raise DataError(f"units and bins are for spikes of an NWB file; {path} is none.")
    refuse_hanging(path)
    found: list[NDArray[Any]] = []
    if _is_csv(path):
        columns = _header(path)
        absent = [name for name in labels if name not in columns]
        if absent:
            raise DataError(
                f"{path} has the columns {', '.join(columns) or '(none named)'}; no '{absent[0]}'."
            )
        rest = [c for c in columns if c not in labels]
        x = load_data(path, columns=rest) if columns else load_data(path)
        found = [_column(path, name) for name in labels]
    else:
        x = load_data(path, key=_only(path, labels, n_channels) if activity is None else activity)
        if label_file is None:
            found = [load_data(path, key=name) for name in labels]
    names = tuple(labels)
    if label_file is not None:
        found, names = _from_label_file(Path(label_file), names)
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(
            f"activity must have shape (time, channels), with something in it; found {x.shape} in "
            f"{path}."
        )
    if x.dtype.kind not in "fiub":
        raise DataError(f"activity must be real numbers; found {x.dtype} in {path}.")
    _fits(x, n_channels, path)
    return Source(x, tuple(_vector(v) for v in found), names, None, {})


def _fits(x: NDArray[Any], n_channels: int | None, path: Path) -> None:
    """Refuse activity that a model does not take."""
    if n_channels not in (None, x.shape[1]):
        turned = " Its axes may be the other way round." if len(x) == n_channels else ""
        raise DataError(
            f"the activity must have the {n_channels} channels that the model was fitted to; found "
            f"{x.shape[1]} in {path}.{turned} Name another array (--activity), or fit a model to "
            f"this one."
        )


def _from_label_file(path: Path, names: tuple[str, ...]) -> _Labels:
    """Labels of a file of their own: columns by name, or its one array under the one name given."""
    if _is_csv(path) and names:
        return [_column(path, name) for name in names], names
    refuse_hanging(path)
    values = _vector(load_data(path))
    if len(names) > 1:
        raise DataError(
            f"several labels of one file must be named columns of a csv; {path} has none. Give it "
            f"as .csv with a header, or one label at a time."
        )
    return [values], names or (path.name,)


def _column(path: Path, name: str) -> NDArray[Any]:
    """A column of a csv; int64, so discrete, where every cell is written as an integer."""
    values = load_data(path, columns=[name])[:, 0]
    if not np.all(np.mod(values, 1) == 0):
        return values
    at = _header(path).index(name)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    written = all(row[at].strip().lstrip("+-").isdecimal() for row in rows)
    return values.astype(np.int64) if written else values


def _vector(values: NDArray[Any]) -> NDArray[Any]:
    """A column, or a Matlab row, as a vector."""
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def _header(path: Path) -> list[str]:
    """Column names of a csv whose first line is not all numbers."""
    with path.open(encoding="utf-8", errors="replace") as file:
        cells = [c.strip().strip('"') for c in file.readline().rstrip("\n").split(",")]
    try:
        [float(c) for c in cells]
    except ValueError:
        return cells
    return []


def _only(path: Path, labels: Sequence[str], n_channels: int | None) -> str | None:
    """The one array of a file that can be activity; None lets the reader take the first."""
    shapes = array_shapes(path)
    tables = [k for k, s in shapes.items() if k not in labels and len(s) == 2 and 1 not in s]
    fitting = [k for k in tables if shapes[k][1] == n_channels]
    tables = fitting or tables
    if len(tables) > 1:
        raise DataError(
            f"{path} holds several arrays that could be activity: {', '.join(tables)}. Say which "
            f"(--activity NAME)."
        )
    return tables[0] if tables else None


def _from_nwb(
    path: Path,
    activity: str | None,
    labels: Sequence[str],
    units: str | None,
    bin_s: float | None,
) -> Source:
    from . import nwb

    nwb.refuse_hanging(path)
    recording = nwb.read(path, series=activity, units=units, bin_s=bin_s, labels=labels)
    values: list[NDArray[Any]] = []
    periods: dict[int, float] = {}
    column = 0
    for name in labels:
        label = recording.labels[name]
        if not label.mask.all():
            raise DataError(
                f"label '{name}' of {path} is known at {label.mask.mean():.0%} of the samples; a "
                f"model is fitted where all are known. Use grevy run, which leaves the rest out."
            )
        if label.kind == "continuous":
            width = label.values.reshape(len(label.values), -1).shape[1]
            if label.period:
                periods |= {column + i: label.period for i in range(width)}
            column += width
        values.append(np.asarray(label.values))
    return Source(recording.activity, tuple(values), tuple(labels), recording.epochs, periods)
