"""Files of `torch.save`: a zip archive of one pickle and the bytes of its tensors."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from ..errors import FormatError, GrevyError
from .reader import unpickled

__all__ = ["LEGACY_TORCH", "read_torch"]

# How the files of torch before 1.6 begin: a pickled magic number.
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_torch(path: str | Path) -> object:
    """Read a file of `torch.save`; tensors come to the CPU wherever they were saved.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    object
        As of `read_pickle`, with CPU tensors; parameters come back as tensors, and devices as
        strings.

    Raises
    ------
    UnsafeFileError
        If its pickle names anything outside the table.
    FormatError
        If the file is absent, cut short, damaged, of the format before torch 1.6, or declares
        other sizes than it has.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY_TORCH))
        if head == LEGACY_TORCH:
            raise FormatError(
                f"a torch file must be a zip archive; {path} is of the format before torch 1.6. "
                f"Load it with torch and save it again."
            )
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.stat().st_size)
    except GrevyError as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except OSError as error:
        raise FormatError(f"a file must be readable; {path}: {error.strerror or error}.") from error
    except MemoryError:
        raise
    except Exception as error:  # zipfile answers damage with many kinds of error
        raise FormatError(f"a torch file must be a whole zip archive; {path}: {error}.") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> object:
    names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", n)]
    if len(names) != 1:
        raise FormatError(
            f"a torch file must hold one data.pkl; this zip archive holds {len(names)}."
        )
    entries = archive.infolist()
    # torch stores without compression: nothing in the archive can be larger than the archive.
    if sum(e.file_size for e in entries) > size or any(e.compress_type for e in entries):
        raise FormatError("a torch file must hold its records uncompressed; this one does not.")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        order = archive.read(f"{folder}byteorder")
        if order != b"little":
            raise FormatError(f"a torch file must be little-endian; this one says {order[:9]!r}.")
    read: dict[str, bytearray] = {}

    def storage(key: str) -> bytearray:
        if key not in read:
            read[key] = bytearray(archive.read(f"{folder}data/{key}"))
        return read[key]

    return unpickled(archive.read(names[0]), storages=storage)
