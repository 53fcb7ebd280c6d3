"""Open an NWB file for reading, refuse what is no such file or is unsafe, load with a limit.

A file is HDF5, or a folder of Zarr with the same face (`zarr`).

Damage that HDF5 notices becomes one sentence. There is damage that HDF5 2.0 does not notice and
loops on without end, in h5py alone too: `apart` looks at files in a process with a limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, GrevyError, LimitError, NetworkError, UnsafeFileError
from ..room import free_bytes, room
from .zarr import ZarrArray, ZarrGroup, folder_bytes, is_zarr, open_zarr

if TYPE_CHECKING:
    import h5py

__all__ = [
    "NwbFile",
    "OpenFile",
    "file_bytes",
    "holds",
    "is_array",
    "is_group",
    "load",
    "matrix",
    "neurodata_type",
    "numbers",
    "of_file",
    "open_nwb",
    "refers",
    "refuse_ages",
    "refuse_bomb",
    "refuse_forged",
    "refuse_size",
    "seconds",
    "text",
    "texts",
    "walk",
]

Number = TypeVar("Number", np.float32, np.float64)
Real = TypeVar("Real", np.float64, np.int64)

BLOCK_BYTES = 32 << 20
"""How much of a matrix is in memory twice while it is read."""
SMALL_BYTES = 1 << 16
"""What may be held without asking how much memory is free."""

MAX_RATIO, RATIO_FROM_BYTES = 1000, 64 << 20
"""Above this size a dataset that declares so many times more than it stores is refused."""

MOST_S = 1e15
"""Thirty million years."""

_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError)


class OpenFile(Protocol):
    """A binary file open for reading. `name` says what it is called, where it has one."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill a buffer."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""

    def tell(self) -> int:
        """The place."""


NwbFile = str | os.PathLike[str] | OpenFile
"""What can be read: a path (of a file or a folder of Zarr), an open binary file or h5py.File."""


def of_file(file: NwbFile) -> str:
    """The path or address of a file."""
    if isinstance(file, str | os.PathLike):
        return os.fspath(file)
    return str(getattr(file, "filename", None) or getattr(file, "name", "an open file"))


@contextmanager
def open_nwb(path: NwbFile, *, allow_external: bool = False) -> Iterator[h5py.File]:
    """Open an NWB 2 file read-only, having checked that it is one and keeps to itself.

    An open file stays open. If it says by `failure` that a read failed, that error is raised, for
    HDF5 takes some objects that it could not read for objects that are not there.

    Raises
    ------
    DataError
        If it is no NWB 2 file in HDF5 or Zarr, or is damaged.
    UnsafeFileError
        If it has data or links outside itself and `allow_external` is not set.
    """
    file = Path(of_file(path))
    if isinstance(path, str | os.PathLike):
        _refuse_other(file)
    import h5py

    try:
        if isinstance(path, str | os.PathLike) and is_zarr(file):
            root = open_zarr(file)
            _refuse_version(file, root)
            yield root
            return
        whole = isinstance(path, h5py.File)
        with nullcontext(path) if whole else h5py.File(path, "r") as opened:
            _refuse_version(file, opened)
            if not allow_external:
                _refuse_external(file, opened)
            yield opened
        _refuse_failure(path)
    except (DataError, LimitError, UnsafeFileError) as error:
        if file.name in str(error):
            raise
        raise type(error)(f"{file.name}: {error}") from error
    except GrevyError:
        raise
    except _DAMAGE as error:
        _refuse_failure(path)
        reason = str(error).strip("'\" ") or type(error).__name__
        hint = (
            "It has been cut short: download or copy it again."
            if "truncated" in reason
            else "Part of it is damaged or not as NWB says: compare its checksum, copy it again."
        )
        raise DataError(
            f"{file.name} must be a whole {_kind(file)}; found: {reason}. {hint}"
        ) from error
    except MemoryError as error:
        raise LimitError(f"{file.name} must fit into memory; found that it does not.") from error


def _kind(file: Path) -> str:
    return "folder of Zarr" if file.is_dir() else "HDF5 file"


def _refuse_failure(file: NwbFile) -> None:
    """Raise what an open file says that it met."""
    failure = getattr(file, "failure", "")
    if failure:
        raise NetworkError(failure) from None


def _refuse_other(file: Path) -> None:
    """Say what a path is that is no HDF5 file."""
    if not os.path.lexists(file):
        near = sorted(p.name for p in file.parent.glob("*.nwb"))[:5] if file.parent.is_dir() else []
        there = f" In that folder there are: {', '.join(near)}." if near else ""
        raise DataError(f"the recording must exist; found no file {file}.{there} Check the path.")
    if is_zarr(file):
        return
    if file.is_dir():
        raise DataError(
            f"the recording must be an NWB file; found a folder: {file}. Name the file inside it."
        )
    if not file.is_file():
        raise DataError(
            f"the recording must be a file; found {file}, which is none. Copy it first."
        )
    import h5py

    if file.stat().st_size == 0:
        raise DataError(
            f"the recording must be an NWB file; found {file} empty. Download it again."
        )
    if not h5py.is_hdf5(file):
        with file.open("rb") as raw:
            begin = raw.read(64)
        looks = "text" if all(9 <= b < 127 or b > 127 for b in begin) else "binary data"
        raise DataError(
            f"the recording must be an NWB file in HDF5; found {looks} in {file.name}, which "
            f"begins with {begin[:24]!r}. Check that this is the file you mean."
        )


def _refuse_version(file: Path, opened: h5py.File) -> None:
    version = text(opened.attrs.get("nwb_version", ""))
    if not version and "nwb_version" in opened:
        version = text(load(opened["nwb_version"]))
    number = version.upper().removeprefix("NWB-").lstrip("V")
    if number.startswith("2"):
        return
    if number.startswith(("0", "1")):
        raise DataError(
            f"{file.name} must be of NWB version 2; found version '{version}'. The older layout "
            f"is another format: convert the file, or take its NWB 2 re-release."
        )
    found = f"version '{version}'" if version else "no version (attribute nwb_version of '/')"
    raise DataError(
        f"{file.name} must state that it is of NWB version 2; found {found}. It is HDF5 but not, "
        f"or no longer, an NWB file: take the original, or have who wrote it set nwb_version."
    )


def points_outside(opened: Any) -> tuple[str, str] | None:
    """The first link to another file or dataset whose bytes lie in one, and that file's name."""
    import h5py

    if isinstance(opened, ZarrGroup):  # its reader follows none
        return None

    def outside_link(name: bytes, info: Any) -> tuple[str, str] | None:
        if info.type != h5py.h5l.TYPE_EXTERNAL:
            return None
        target = opened.id.links.get_val(name)[0]
        return text(name), text(target)

    def outside_data(name: bytes) -> tuple[str, str] | None:
        thing = h5py.h5o.open(opened.id, name)
        if not isinstance(thing, h5py.h5d.DatasetID):
            return None
        how = thing.get_create_plist()
        if how.get_external_count():
            return text(name), text(how.get_external(0)[0])
        if how.get_layout() == h5py.h5d.VIRTUAL:
            for i in range(how.get_virtual_count()):
                source = text(how.get_virtual_filename(i))
                if source != ".":
                    return text(name), source
        return None

    found: tuple[str, str] | None = opened.id.links.visit(outside_link, info=True)
    return found or h5py.h5o.visit(opened.id, outside_data)


def outside_text(found: tuple[str, str]) -> str:
    """What is said where data of other files were allowed and are there."""
    return f"Data lie in other files, as was allowed: '{found[0]}' points to '{found[1]}'."


def _refuse_external(file: Path, opened: h5py.File) -> None:
    found = points_outside(opened)
    if found:
        where, target = found
        raise UnsafeFileError(
            f"{file.name} must hold its data itself; found that '{where}' points to the file "
            f"'{target}'. Have who made it write all of it into one file; or, if you trust them, "
            f"allow external data where you read it (inspect and run: --allow-external)."
        )


def holds(thing: Any, kinds: str) -> bool:
    """Whether a thing is a dataset with values of one of NumPy's kinds of number or text."""
    return is_array(thing) and thing.shape is not None and thing.dtype.kind in kinds


def is_array(thing: Any) -> TypeGuard[Any]:
    """Whether a thing of a file is a dataset."""
    import h5py

    return isinstance(thing, h5py.Dataset | ZarrArray)


def is_group(thing: Any) -> TypeGuard[Any]:
    """Whether a thing of a file is a group."""
    import h5py

    return isinstance(thing, h5py.Group | ZarrGroup)


def refers(dataset: Any) -> bool:
    """Whether the values of a dataset are references to objects."""
    import h5py

    if isinstance(dataset, ZarrArray):
        return dataset.refers
    return h5py.check_dtype(ref=dataset.dtype) is not None


def file_bytes(file: Any) -> int:
    """What a file takes on disk."""
    return folder_bytes(file.where) if isinstance(file, ZarrGroup) else int(file.id.get_filesize())


def text(value: Any) -> str:
    """A string of the file as str: bytes are decoded, arrays of one are unpacked."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)


def texts(values: NDArray[Any]) -> list[str]:
    """A column of strings as str."""
    return [text(v) for v in values]


def neurodata_type(thing: Any) -> str:
    """What NWB type an object says it is, "" where it says nothing."""
    return text(thing.attrs.get("neurodata_type", ""))


def walk(
    file: h5py.File,
    roots: tuple[str, ...] = ("acquisition", "processing", "analysis", "scratch", "stimulus",
                              "intervals", "events"),
) -> list[tuple[str, h5py.Group]]:  # fmt: skip
    """Every group below `roots`, each once and by its first path, in the order of the file.

    Links to other files are followed: `open_nwb` refuses them unless they are allowed.
    """
    found: dict[h5py.Group, str] = {}

    def below(path: str, group: h5py.Group) -> None:
        outside: list[str] = []

        def note(name: str, thing: Any) -> None:
            if is_group(thing):
                found.setdefault(thing, f"{path}/{name}")

        def note_link(name: str, link: Any) -> None:
            if isinstance(link, h5py.ExternalLink):
                outside.append(name)

        group.visititems(note)  # follows no links
        if not isinstance(group, h5py.Group):
            return
        group.visititems_links(note_link)
        for name in outside:
            thing = group.get(name)
            if is_group(thing) and thing not in found:
                found[thing] = f"{path}/{name}"
                below(f"{path}/{name}", thing)

    import h5py

    for root in roots:
        if is_group(file.get(root)):
            below(root, file[root])
    return [(path, group) for group, path in found.items()]


def refuse_size(n_bytes: int, what: str) -> None:
    """Refuse to hold more than half of the memory that is there.

    Raises
    ------
    LimitError
        If `n_bytes` is more.
    """
    if n_bytes <= SMALL_BYTES:
        return
    most = free_bytes() // 2
    if n_bytes > most:
        raise LimitError(
            f"{what} must fit into half of the free memory ({most / 1e9:.3g} GB); found "
            f"{n_bytes / 1e9:.3g} GB. Read a part of the session (epochs, units), use wider bins, "
            f"or a machine with more memory."
        )


def refuse_bomb(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that is too large, or declares much more than it stores.

    Raises
    ------
    LimitError
        If so.
    """
    shape = dataset.shape or ()
    refuse_size(math.prod(shape) * dataset.dtype.itemsize, f"'{dataset.name}' with shape {shape}")
    refuse_forged(dataset)


def refuse_forged(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that declares much more than it stores, or whose chunks are too large.

    Of a chunk any value costs the whole.

    Raises
    ------
    LimitError
        If so.
    """
    shape = dataset.shape or ()
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    n_bytes = max(math.prod(shape) * dataset.dtype.itemsize, chunk) if math.prod(shape) else 0
    if n_bytes <= RATIO_FROM_BYTES:
        return
    zarr = isinstance(dataset, ZarrArray)
    stored = dataset.stored_bytes if zarr else dataset.id.get_storage_size()
    if n_bytes > MAX_RATIO * max(stored, 1):
        raise LimitError(
            f"'{dataset.name}' must store what it declares; found {n_bytes / 1e9:.3g} GB declared "
            f"and {stored / 1e6:.3g} MB stored. The data were never written, or the file is forged."
        )
    refuse_size(chunk, f"a chunk of '{dataset.name}'")


def load(dataset: Any, what: str = "") -> NDArray[Any]:
    """A whole dataset as an array, having checked that it is one and how large it is.

    Raises
    ------
    DataError
        If `dataset` is no dataset.
    LimitError
        If it declares too much.
    """
    if not is_array(dataset):
        name = getattr(dataset, "name", what)
        raise DataError(f"'{name or what}' must be a dataset; found none. The file is damaged.")
    refuse_bomb(dataset)
    if dataset.shape is None:
        return np.empty(0)
    return np.asarray(dataset[()])


def numbers(dataset: Any, dtype: type[Real]) -> NDArray[Real]:
    """A whole dataset of real numbers in another type, in its shape.

    Raises
    ------
    DataError
        If it is none, or whole numbers are wanted that it does not hold.
    LimitError
        If it declares too much.
    """
    values = load(dataset)
    if values.dtype.kind not in "iufb":
        raise DataError(
            f"'{dataset.name}' must hold real numbers; found {values.dtype}. The file is damaged, "
            f"or not as NWB says."
        )
    with np.errstate(over="ignore"):  # of numbers wider than 64 bits
        values = values.astype(np.float64) if values.dtype.kind == "f" else values
    if dtype is np.int64 and values.dtype.kind == "f" and not (np.abs(values) < 2**53).all():
        raise DataError(
            f"'{dataset.name}' must hold whole numbers; found some that are not finite, or huge. "
            f"The file is damaged, or not as NWB says."
        )
    return values.astype(dtype)


def refuse_ages(times_s: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Times as they are; ones too large to be seconds, with which sums would overflow, are refused.

    Raises
    ------
    DataError
        If a finite one is.
    """
    far = np.isfinite(times_s) & (np.abs(times_s) > MOST_S)
    if far.any():
        raise DataError(
            f"'{name}' must hold seconds; found {times_s[far].flat[0]:.4g}, more than {MOST_S:g}. "
            f"The file is damaged, or its times are in another unit."
        )
    return times_s


def seconds(dataset: Any) -> NDArray[np.float64]:
    """A whole dataset of times, in its shape; they need not be finite.

    Raises
    ------
    DataError
        If it holds no real numbers, or some too large to be seconds.
    LimitError
        If it declares too much.
    """
    return refuse_ages(numbers(dataset, np.float64), str(dataset.name))


def matrix(
    dataset: h5py.Dataset,
    dtype: type[Number],
    *,
    roi_first: bool,
    keep: NDArray[np.bool_] | None = None,
) -> NDArray[Number]:
    """A stored matrix as (T, C) in its own units, read in blocks.

    Parameters
    ----------
    dataset : h5py.Dataset, shape (T,), (T, C) or (C, T)
    dtype : numpy.float32 or numpy.float64
    roi_first : bool
        Whether it lies (C, T).
    keep : array of bool, shape (C,), optional
        The channels to take.

    Returns
    -------
    array of `dtype`, shape (T, C)
        `conversion` and `offset` of the file are applied. One that memory has no room for lies on
        disk (`room`).

    Raises
    ------
    DataError
        If the numbers are not real.
    LimitError
        If the dataset declares more than it stores, or there is no room on disk either.
    """
    refuse_forged(dataset)
    if dataset.dtype.kind not in "iufb":
        raise DataError(
            f"a series must hold real numbers; found {dataset.dtype} in '{dataset.name}'. Choose "
            f"another."
        )
    rows, width = dataset.shape[0], math.prod(dataset.shape[1:])
    n_time, channels = (width, rows) if roi_first else (rows, width)
    taken = np.arange(channels) if keep is None else np.flatnonzero(keep)
    out = room((n_time, len(taken)), dtype)
    per_block = max(1, BLOCK_BYTES // max(channels * 8, 1))
    scale, offset = (
        float(text(dataset.attrs.get(k, v))) for k, v in (("conversion", 1), ("offset", 0))
    )
    for start in range(0, n_time, per_block):
        stop = min(start + per_block, n_time)
        some = dataset[:, start:stop] if roi_first else dataset[start:stop]
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(some, np.float64).reshape(rows if roi_first else stop - start, -1)
            block = (block.T if roi_first else block)[:, taken]
            out[start:stop] = block * scale + offset
    return out
