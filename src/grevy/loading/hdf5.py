"""HDF5 through h5py alone: plain arrays, Matlab 7.3, and the tables that pandas writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FormatError, UnsafeFileError
from ..restricted import read_pickle
from ..room import room
from .content import (
    Key,
    Table,
    known,
    listed,
    no_numbers,
    none_found,
    refuse_forged,
    refuse_large,
)

if TYPE_CHECKING:
    import h5py

__all__ = ["from_hdf5"]

_PIECE = 2**25
"""Bytes that are read at once."""


def from_hdf5(path: Path, key: Key, *, prefer: str = "") -> Table:
    """An array, or a table of pandas; among several tables the one of the preferred name."""
    import h5py

    with h5py.File(path, "r") as file:
        kinds = _contents(file)
        tables = [name for name, kind in kinds.items() if kind == "table"]
        arrays = [name for name, kind in kinds.items() if kind == "array"]
        series = [name for name in arrays if _is_long(file[name])]
        names = [*arrays, *tables]
        if key is not None:
            key = str(known(key, list(kinds)))
            if key not in names:
                raise no_numbers(key, kinds[key])
        elif prefer in tables:
            key = prefer
        elif (prefer or not arrays) and len(tables) == 1:
            key = tables[0]
        elif series and not tables and not prefer:
            key = series[0]
        elif not tables:
            raise none_found(kinds)
        else:
            raise DataError(
                f"a key must say which of several tables and arrays is meant; there are "
                f"{listed(names)}."
            )
        return _pandas_table(file[key]) if key in tables else Table(_dataset(file[key]))


def _contents(file: h5py.File) -> dict[str, str]:
    """What a file holds under which name: "array", "table", or what else it is."""
    import h5py

    kinds: dict[str, str] = {}
    waiting = [("", file)]
    seen = set()  # a group may lie within itself
    while waiting:
        prefix, group = waiting.pop(0)
        where = h5py.h5o.get_info(group.id).addr
        if where in seen:
            continue
        seen.add(where)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UnsafeFileError(
                    f"an HDF5 file must not point outside itself; '{prefix}{name}' does."
                )
            if isinstance(link, h5py.SoftLink):
                continue  # what it points to has a name of its own
            item = group[name]
            kind = _what(item)
            if kind != "group":
                kinds[prefix + name] = kind
            elif not name.startswith("#"):
                waiting.append((f"{prefix}{name}/", item))
    return kinds


def _what(item: Any) -> str:
    """What an object of HDF5 is to a reader of numbers."""
    import h5py

    if isinstance(item, h5py.Group):
        # Matlab keeps a sparse matrix as three arrays, none of which is the matrix.
        if "MATLAB_sparse" in item.attrs:
            return "a Matlab sparse array"
        return "table" if "pandas_type" in item.attrs else "group"
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        return "no array"
    if "MATLAB_class" in item.attrs and _attribute(item, "MATLAB_class") == "char":
        return "text"
    whole = item.dtype.kind in "biufc" or item.dtype.names == ("real", "imag")
    return "array" if whole else f"of dtype {str(item.dtype)[:60]}"


def _is_long(dataset: Any) -> bool:
    return dataset.size > 1 and not dataset.attrs.get("MATLAB_empty", 0)


def _child(group: Any, name: str) -> Any:
    """A part of a table, which must lie in the table and not behind a link."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UnsafeFileError(f"a table must not point outside itself; '{group.name}/{name}' does.")
    return group[name]


def _dataset(dataset: Any) -> NDArray[Any]:
    if dataset.external or dataset.is_virtual:
        raise UnsafeFileError(
            f"an HDF5 file must not point outside itself; the content of '{dataset.name}' does."
        )
    # Memory is taken by whole chunks.
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    refuse_forged(f"'{dataset.name}'", max(chunk, dataset.nbytes), stored)
    refuse_large(chunk, f"a chunk of '{dataset.name}'")
    if dataset.attrs.get("MATLAB_empty", 0):
        shape = tuple(int(n) for n in dataset[()])
        if math.prod(shape):
            raise FormatError(f"'{dataset.name}' must be empty, as it says; its shape is {shape}.")
        return np.empty(shape)
    array = _read(dataset)
    if array.dtype.names == ("real", "imag"):
        array = array["real"] + 1j * array["imag"]
    # Matlab writes its arrays column by column, and so they lie the other way round here.
    return array.T if "MATLAB_class" in dataset.attrs else array


def _read(dataset: Any) -> NDArray[Any]:
    """A whole dataset, in pieces where memory may not hold it."""
    if not dataset.shape or dataset.dtype.hasobject:
        return np.asarray(dataset[()])
    out = room(dataset.shape, dataset.dtype)
    step = max(1, _PIECE // max(1, dataset.nbytes // max(1, len(dataset))))
    for i in range(0, len(dataset), step):
        out[i : i + step] = dataset[i : i + step]
    return out


def _pandas_table(group: Any) -> Table:
    kind = _attribute(group, "pandas_type")
    if kind == "frame_table":
        return _written_as_table(group)
    if kind != "frame":
        raise DataError(f"a table must be a DataFrame; '{group.name}' is a pandas {kind}.")
    columns, levels = _axis(group, "axis0")
    blocks: dict[Any, NDArray[Any]] = {}
    for number in range(int(group.attrs["nblocks"])):
        names, _ = _axis(group, f"block{number}_items")
        stored = _child(group, f"block{number}_values")
        block = _numbers(stored)
        if not stored.attrs.get("transposed", 0):
            block = block.T
        blocks |= dict(zip(names, block.T, strict=True))
    return _joined(blocks, columns, levels)


def _joined(
    blocks: Mapping[Any, NDArray[Any]], columns: tuple[Any, ...], levels: tuple[Any, ...]
) -> Table:
    if not columns:
        raise DataError("a table must have columns of numbers; this one has none.")
    if len(set(columns)) < len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise DataError(f"columns of a table must have names of their own; {twice!r} repeats.")
    return Table(np.stack([blocks[c] for c in columns], axis=1), columns, levels)


def _written_as_table(group: Any) -> Table:
    (_, columns), *_ = _pickled(group, "non_index_axes")
    columns = tuple(columns)
    table = _child(group, "table")
    rows = _dataset(table)
    blocks: dict[Any, NDArray[Any]] = {}
    for field in _pickled(group, "values_cols"):
        if rows[field].dtype.kind not in "biufc":
            raise DataError(f"a table must hold numbers; block '{field}' does not.")
        names = _pickled(table, f"{field}_kind")
        blocks |= dict(zip(names, rows[field].reshape(len(rows), -1).T, strict=True))
    levels = _pickled(group, "info").get(1, {}).get("names") or ()
    return _joined(blocks, columns, tuple(levels))


def _axis(group: Any, name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The entries of an axis, tuples where it has levels, and the names of its levels."""
    if _attribute(group, f"{name}_variety") != "multi":
        return tuple(_words(_child(group, name))), ()
    parts, levels = [], []
    for number in range(int(group.attrs[f"{name}_nlevels"])):
        level = _child(group, f"{name}_level{number}")
        words, codes = _words(level), _numbers(_child(group, f"{name}_label{number}"))
        if codes.size and codes.min() < 0:
            raise DataError(
                f"columns of a table must have whole names; in '{group.name}' some lack."
            )
        parts.append([words[code] for code in codes])
        levels.append(_attribute(level, "name"))
    return tuple(zip(*parts, strict=True)), tuple(levels)


def _numbers(dataset: Any) -> NDArray[Any]:
    array = _dataset(dataset)
    if array.dtype.kind not in "biufc":
        raise DataError(f"a table must hold numbers; '{dataset.name}' does not.")
    return array


def _words(dataset: Any) -> list[Any]:
    return [v.decode() if isinstance(v, bytes) else v for v in _dataset(dataset).tolist()]


def _attribute(item: Any, name: str) -> str:
    value = item.attrs[name]
    return value.decode() if isinstance(value, bytes) else str(value)


def _pickled(item: Any, name: str) -> Any:
    value = item.attrs[name]
    return read_pickle(value.encode("latin1") if isinstance(value, str) else bytes(value))
