"""Which format a file has, by its first bytes, and its failures as sentences that name it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, DataError, FormatError, GrevyError, LimitError
from ..regular import size_of
from ..restricted import LEGACY_TORCH

__all__ = ["kind_of", "said"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@contextmanager
def said(path: Path) -> Iterator[None]:
    """Every failure as one sentence that names the file."""
    try:
        yield
    except ConfigError:
        raise
    except GrevyError as error:
        text = str(error)
        raise type(error)(_line(text if str(path) in text else f"{path}: {text}")) from error
    except OSError as error:
        why = error.strerror or str(error).split("\n")[0] or "it cannot be read"
        raise FormatError(_line(f"a data file must be readable; {path}: {why}.")) from error
    except MemoryError as error:
        raise LimitError(
            _line(
                f"a data file must fit into memory; {path} does not. Read a part of it, or use a "
                f"machine with more memory."
            )
        ) from error
    except Exception as error:  # the readers answer damage with every kind of error
        first = (str(error) or type(error).__name__).split("\n")[0]
        raise FormatError(
            _line(f"a data file must be whole; {path} is damaged: {first.removesuffix('.')}.")
        ) from error


def _line(text: str) -> str:
    """Without what a name in a file may hold to move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def kind_of(path: Path) -> str:
    """The format of a file by its first bytes."""
    size_of(path, "a data file")
    with path.open("rb") as file:
        head = file.read(2048)
    if not head:
        raise DataError(f"a data file must hold data; {path} is empty.")
    starts = {b"\x93NUMPY": "npy", b"PK\x03\x04": "zip", b"\xd0\xcf\x11\xe0": "excel"}
    for start, kind in starts.items():
        if head.startswith(start):
            return _kind_of_zip(path) if kind == "zip" else kind
    if any(head.startswith(_HDF5, at) for at in (0, 512, 1024)):
        return "hdf5"
    if head.startswith(b"MATLAB 5.0"):
        return "matlab"
    if head.startswith(LEGACY_TORCH):
        return "torch"
    packed = head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0
    if packed or head.startswith(b"\x1f\x8b"):
        return "packed"
    if head[0] == 0x80 or _ends_as_pickle(path, head):
        return "pickle"
    if b"\0" not in head and not head.startswith((b"BZh", b"\xfd7zXZ")):
        return "csv"
    raise FormatError(
        f"a data file must be npy, npz, HDF5, torch, csv, Excel, pickle, joblib or Matlab; the "
        f"content of {path} is none of these."
    )


def _ends_as_pickle(path: Path, head: bytes) -> bool:
    """Pickles of protocols 0 and 1 have no mark of their own but their first and last letters."""
    if head[:1] not in (b"(", b"c", b"]", b"}") or (head[:1] == b"c" and b"\n" not in head[:200]):
        return False
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read() == b"."


def _kind_of_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "[Content_Types].xml" in names:
        return "excel"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    raise FormatError(
        f"a zip archive must be of numpy, torch or Excel; {path} holds {', '.join(names[:5])}."
    )
