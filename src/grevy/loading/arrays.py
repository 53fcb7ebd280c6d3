"""Named arrays: numpy, pickle, joblib, torch and Matlab before 7.3."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FormatError, UnsafeFileError
from ..restricted import read_pickle, read_torch
from ..room import room
from .content import (
    Key,
    Table,
    is_series,
    known,
    no_key,
    no_numbers,
    none_found,
    refuse_forged,
    refuse_large,
)

__all__ = [
    "from_matlab",
    "from_npy",
    "from_npz",
    "from_packed",
    "from_pickle",
    "from_torch",
    "npz_shapes",
]

_HEAD = 2**14
"""No header is longer: numpy refuses more than 10,000 bytes."""
_PIECE = 2**20
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
    with path.open("rb") as file:
        if size <= _MAPPED:
            return Table(_npy(file, size))
        header = _npy_header(file.read(_HEAD), size)
    order: Literal["C", "F"] = "F" if header.fortran else "C"
    _refuse_objects(header)
    return Table(np.memmap(path, header.dtype, "r", header.start, header.shape, order))


class _Header(NamedTuple):
    """What stands before the numbers: `start` is where they begin, `fortran` columns together."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int


def _npy_header(head: bytes, length: int) -> _Header:
    """The header of a .npy file of that many bytes, of which these are the first."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise FormatError(f"a .npy file must have version 1 or 2; this one has {version}.")
    shape, fortran, dtype = readers[version](file)
    size = math.prod(shape) * dtype.itemsize
    if size != length - file.tell() and not dtype.hasobject:
        raise FormatError(
            f"an array of shape {shape} must have {size} bytes; the file has "
            f"{length - file.tell()}."
        )
    return _Header(shape, fortran, dtype, file.tell())


def _refuse_objects(header: _Header) -> None:
    if header.dtype.hasobject:
        raise UnsafeFileError(
            "arrays must hold numbers; this one holds Python objects, which may run code. Save it "
            "as numbers."
        )


def _npy(file: IO[bytes], length: int) -> NDArray[Any]:
    """The array of a .npy file of that many bytes; one large for the memory lies on disk."""
    piece = file.read(_HEAD)
    header = _npy_header(piece, length)
    _refuse_objects(header)
    piece = piece[header.start :]
    flat = room((length - header.start,), np.uint8)
    at = 0
    while piece:
        flat[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
        piece = file.read(_PIECE)
    if at < len(flat):
        raise FormatError(f"an array must have {len(flat)} bytes; the file has {at}.")
    return flat.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def from_npz(path: Path, key: Key) -> Table:
    """An array of an .npz archive."""
    with zipfile.ZipFile(path) as archive:
        entries = _entries(archive)

        def read(name: str) -> Table:
            entry = entries[name]
            with _open(archive, entry) as file:
                return Table(_npy(file, entry.file_size))

        if key is not None:
            return read(str(known(key, list(entries))))
        objects = []
        for name, entry in entries.items():
            header = _header_in(archive, entry)
            if header.dtype.hasobject:
                objects.append(header)
            elif is_series(header.dtype, math.prod(header.shape)):
                return read(name)
    for header in objects:
        _refuse_objects(header)
    raise none_found(entries)


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of an .npz archive; no more of them is unpacked than says so."""
    with zipfile.ZipFile(path) as archive:
        entries = _entries(archive).items()
        return {name: _header_in(archive, entry).shape for name, entry in entries}


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {e.filename.removesuffix(".npy"): e for e in archive.infolist()}


def _header_in(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Header:
    with _open(archive, entry) as file:
        return _npy_header(file.read(_HEAD), entry.file_size)


def _open(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """One file of a zip archive, which may not unpack to much more than is stored of it."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"arrays in a zip archive must be stored or deflated, as numpy does; "
            f"'{entry.filename}' is packed in another way. Save it by numpy.savez_compressed."
        )
    stored = min(entry.compress_size, archive.start_dir)
    refuse_forged(f"'{entry.filename}'", entry.file_size, stored)
    return archive.open(entry)


def from_pickle(path: Path, key: Key) -> Table:
    """An array of a pickle or an uncompressed joblib file."""
    refuse_large(path.stat().st_size, "a pickle")
    return _from_object(read_pickle(path.read_bytes()), key)


def from_packed(path: Path, key: Key) -> Table:
    """An array of a joblib file packed with zlib or gzip."""
    unpack = zlib.decompressobj(wbits=47)  # zlib or gzip
    blob, packed = bytearray(), 0
    with path.open("rb") as file:
        while not unpack.eof and (piece := unpack.unconsumed_tail or file.read(_PIECE)):
            blob += unpack.decompress(piece, _PIECE)
            packed = file.tell() - len(unpack.unconsumed_tail)
            refuse_forged("its content", len(blob), packed)
            refuse_large(len(blob), "what a compressed file unpacks to")
    blob += unpack.flush()  # the end of a repetition
    if not unpack.eof:
        raise FormatError("a compressed file must be whole; this one is cut short.")
    return _from_object(read_pickle(bytes(blob)), key)


def from_torch(path: Path, key: Key) -> Table:
    """An array of a file of `torch.save`."""
    refuse_large(path.stat().st_size, "a torch file")
    return _from_object(read_torch(path), key)


def _from_object(value: object, key: Key) -> Table:
    """The array that a pickled object is, or holds under a key or position."""
    if isinstance(value, dict):
        if key is not None:
            return Table(_array(value[known(key, list(value))], f"'{key}'"))
        for name, item in value.items():
            if isinstance(item, np.ndarray) or hasattr(item, "numel"):
                array = _array(item, f"'{name}'")
                if is_series(array.dtype, array.size):
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
        refuse_large(8 * sum(len(row) for row in rows), f"the array that {name} makes")
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
    refuse_large(8 * math.prod(kinds[name][0]), f"'{name}'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Table(loadmat(path, variable_names=[name])[name])
