"""Named arrays: numpy, pickle, joblib, torch and Matlab before 7.3."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FormatError, LimitError, UnsafeFileError
from ..restricted import read_pickle, read_torch
from .content import RATIO, SLACK, Key, Table, is_series, known, no_key, no_numbers, none_found

__all__ = ["from_matlab", "from_npy", "from_npz", "from_packed", "from_pickle", "from_torch"]

_LIMIT = 2**34
_MAPPED = 2**28
"""Bytes above which a .npy file is mapped and not read: it may be larger than memory."""
_MATLAB_NUMBERS = frozenset(
    {"double", "single", "logical"}
    | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
)


def from_npy(path: Path, key: Key) -> Table:
    """The array of a .npy file."""
    no_key(key, "a .npy file")
    size = path.stat().st_size
    if size <= _MAPPED:
        return Table(_npy(path.read_bytes()))
    with open(path, "rb") as file:
        shape, fortran, dtype = _npy_header(file, size)
        order: Literal["C", "F"] = "F" if fortran else "C"
        return Table(np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order=order))


def _npy(blob: bytes) -> NDArray[Any]:
    file = io.BytesIO(blob)
    shape, fortran, dtype = _npy_header(file, len(blob))
    flat = np.frombuffer(blob, dtype=dtype, offset=file.tell(), count=math.prod(shape))
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _npy_header(file: BinaryIO, length: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and type; the file then stands at the first number."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise FormatError(f"a .npy file must have version 1 or 2; this one has {version}.")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise UnsafeFileError(
            "arrays must hold numbers; this one holds Python objects, which may run code. Save it "
            "as numbers."
        )
    size = math.prod(shape) * dtype.itemsize
    if size != length - file.tell():
        raise FormatError(
            f"an array of shape {shape} must have {size} bytes; the file has "
            f"{length - file.tell()}."
        )
    return shape, fortran, dtype


def from_npz(path: Path, key: Key) -> Table:
    """An array of an .npz archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}

        def read(name: str) -> NDArray[Any]:
            entry = entries[name]
            if entry.file_size > RATIO * entry.compress_size + SLACK:
                raise FormatError(f"'{name}' declares more bytes than its content can give.")
            return _npy(archive.read(entry))

        if key is not None:
            return Table(read(str(known(key, list(entries)))))
        refused: UnsafeFileError | None = None
        for name in entries:
            try:
                array = read(name)
            except UnsafeFileError as error:
                refused = error
                continue
            if is_series(array):
                return Table(array)
    raise refused or none_found(entries)


def from_pickle(path: Path, key: Key) -> Table:
    """An array of a pickle or an uncompressed joblib file."""
    return _from_object(read_pickle(path.read_bytes()), key)


def from_packed(path: Path, key: Key) -> Table:
    """An array of a joblib file packed with zlib or gzip."""
    unpack = zlib.decompressobj(wbits=47)  # zlib or gzip
    blob = unpack.decompress(path.read_bytes(), _LIMIT)
    if not unpack.eof:
        if len(blob) >= _LIMIT:
            raise LimitError("a compressed file must unpack to 16 GiB at most.")
        raise FormatError("a compressed file must be whole; this one is cut short.")
    return _from_object(read_pickle(blob), key)


def from_torch(path: Path, key: Key) -> Table:
    """An array of a file of `torch.save`."""
    return _from_object(read_torch(path), key)


def _from_object(value: object, key: Key) -> Table:
    """The array that a pickled object is, or holds under a key or position."""
    if isinstance(value, dict):
        if key is not None:
            return Table(_array(value[known(key, list(value))], f"'{key}'"))
        for name, item in value.items():
            if isinstance(item, np.ndarray) or hasattr(item, "numel"):
                array = _array(item, f"'{name}'")
                if is_series(array):
                    return Table(array)
        raise none_found(value)
    if isinstance(value, (list, tuple)) and key is not None:
        return Table(_array(value[int(known(key, list(range(len(value)))))], f"item {key}"))
    no_key(key, "a file of one array")
    return Table(_array(value, "the content"))


def _array(value: Any, name: str) -> NDArray[Any]:
    if type(value).__module__ == "torch" and hasattr(value, "numpy"):
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.array(value.numpy())
    if isinstance(value, (list, tuple)):
        # Rows of rows at most: a list may hold itself many times over and unfold without end.
        rows = [v for v in value if isinstance(v, (list, tuple))]
        if 8 * sum(len(row) for row in rows) > _LIMIT:
            raise LimitError(f"{name} must make an array of 16 GiB at most.")
        if any(
            isinstance(v, (list, tuple)) for row in {id(r): r for r in rows}.values() for v in row
        ):
            raise DataError(f"{name} must be a list of numbers or of rows; it is nested deeper.")
        try:
            value = np.array(value)
        except ValueError as error:
            raise DataError(f"{name} must have rows of one length; they differ.") from error
    if not isinstance(value, np.ndarray):
        raise DataError(f"{name} must be an array; it is {type(value).__name__}.")
    return value


def from_matlab(path: Path, key: Key) -> Table:
    """An array of a Matlab file of version 5."""
    from scipy.io import loadmat, whosmat

    # Names and kinds first: a cell array of nothing can declare any size.
    kinds = {name: (shape, kind) for name, shape, kind in whosmat(path) if name[:2] != "__"}
    numbers = [name for name, (_, kind) in kinds.items() if kind in _MATLAB_NUMBERS]
    if key is None:
        name = next((name for name in numbers if math.prod(kinds[name][0]) > 1), None)
        if name is None:
            raise none_found(kinds)
    else:
        name = known(key, list(kinds))
        if name not in numbers:
            raise no_numbers(name, f"a Matlab {kinds[name][1]} array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Table(loadmat(path, variable_names=[name])[name])
