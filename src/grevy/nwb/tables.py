"""DynamicTables: their columns as arrays, the rows of interval tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UnsafeFileError
from .files import (
    holds,
    is_array,
    is_group,
    load,
    neurodata_type,
    numbers,
    refers,
    text,
    texts,
    walk,
)

__all__ = ["Table", "few_values", "interval_tables", "places", "referenced", "table"]


@dataclass(frozen=True, eq=False)
class Table:
    """A DynamicTable of the file.

    Attributes
    ----------
    path : str
    group : h5py.Group
    n_rows : int
    plain : tuple of str
        Columns with one value a row, in the order of the file.
    ragged : tuple of str
        Columns with a list a row.
    """

    path: str
    group: Any
    n_rows: int
    plain: tuple[str, ...]
    ragged: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def column(self, name: str) -> NDArray[Any]:
        """A plain column, shape (n_rows,) or (n_rows, d); text as objects of type str."""
        values = load(self.group[name])
        if values.dtype.kind in "OS" and (
            values.size == 0 or isinstance(values.flat[0], str | bytes)
        ):
            return np.array(texts(values.ravel()), dtype=object).reshape(values.shape)
        return values

    def rows(self, name: str) -> list[NDArray[Any]]:
        """A ragged column, one array a row.

        Raises
        ------
        DataError
            If the index of the column points beyond its data or falls.
        """
        stop = self.ends(name)
        values = self.column(name)
        return [values[a:b] for a, b in zip(np.append(0, stop[:-1]), stop, strict=True)]

    def ends(self, name: str) -> NDArray[np.int64]:
        """Where the list of each row ends in a ragged column, shape (n_rows,)."""
        index = f"{name}_index"
        stop = numbers(self.group[index], np.int64).ravel()
        n = len(self.group[name])
        if len(stop) and (stop[0] < 0 or (np.diff(stop) < 0).any() or stop[-1] > n):
            raise DataError(
                f"'{self.path}/{index}' must rise and stay within the {n} values of '{name}'; "
                f"found that it ends at {stop[-1]}. Part of the column is missing: take the whole "
                f"file."
            )
        return stop


def table(path: str, group: Any) -> Table:
    """Look at a DynamicTable without reading its columns."""
    declared = texts(np.atleast_1d(group.attrs.get("colnames", np.array([], dtype=object))))
    there = {k: group[k] for k in group if is_array(group.get(k))}
    names = [k for k in declared if k in there]
    names += [k for k in there if k not in names and k != "id" and not k.endswith("_index")]
    if "id" in there:
        n_rows = len(there["id"])
    else:
        n_rows = max((len(there[k]) for k in names if there[k].shape), default=0)
    ragged = tuple(k for k in names if f"{k}_index" in there)
    plain = tuple(
        k for k in names
        if k not in ragged and there[k].shape and len(there[k]) == n_rows
    )  # fmt: skip
    return Table(path, group, n_rows, plain, ragged)


def interval_tables(file: Any) -> list[Table]:
    """Every table of intervals in a file: TimeIntervals, or whatever has starts and stops."""
    found = []
    for path, group in walk(file, ("intervals", "processing", "acquisition", "events", "stimulus")):
        if neurodata_type(group) == "TimeIntervals" or {"start_time", "stop_time"} <= set(group):
            one = table(path, group)
            if {"start_time", "stop_time"} <= set(one.plain):
                found.append(one)
    return found


def referenced(region: Any) -> Table | None:
    """The table that a DynamicTableRegion points into, None where the reference is broken.

    Raises
    ------
    UnsafeFileError
        If it has no name in the file: what leads out of a file is looked for by names.
    """
    try:
        group = region.file[region.attrs["table"]]
    except (KeyError, ValueError, TypeError, OSError, RuntimeError):
        return None
    if not is_group(group):
        return None
    if group.name is None:
        raise UnsafeFileError(
            f"'{region.name}' must refer to a table that has a name in the file; found one that "
            f"has none, so that nothing has looked for data outside the file in it. Have who made "
            f"the file link it."
        )
    return table(group.name.strip("/"), group)


def places(one: Table, rows: NDArray[np.int64]) -> tuple[str, ...]:
    """Where some rows lie: by their column `location`, else by the imaging plane of the table.

    Parameters
    ----------
    one : Table
    rows : array of int64, shape (n,)
        -1 for a row that is none.

    Returns
    -------
    tuple of str
        One a row, "" where the file does not say; empty where it says nothing of any.
    """
    each: list[str] = []
    if "location" in one.plain:
        column = one.group["location"]
        words = one.column("location").tolist() if _is_text(column) and column.ndim == 1 else []
        each = [words[i] if i >= 0 else "" for i in rows] if words else []
    else:
        plane = one.group.get("imaging_plane")
        place: Any = plane.get("location") if is_group(plane) else None
        each = [text(load(place))] * len(rows) if _is_text(place) and place.size == 1 else []
    known = all(isinstance(word, str) for word in each) and any(each)
    return tuple(each) if known else ()


def _is_text(thing: Any) -> bool:
    return holds(thing, "OS") and not refers(thing)


def few_values(values: NDArray[Any], most: int = 12) -> tuple[tuple[str, int], ...]:
    """Distinct values of a column with their counts, most frequent first; () for many values."""
    words = [str(v) for v in values.tolist()]
    counts = Counter(words)
    return tuple(counts.most_common()) if 0 < len(counts) <= most else ()
