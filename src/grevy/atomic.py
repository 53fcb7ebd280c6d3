"""Writing files whole or not at all: every file that grevy leaves behind is written here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import FormatError, GrevyError

__all__ = ["make_atomic", "write_atomic"]


@contextmanager
def write_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file so that its name never shows anything but a whole one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name
    in one step. An error leaves the old file as it was and no temporary one.

    Raises
    ------
    FormatError
        If its folder is not there, or the disk does not take it (full, read-only, no permission);
        with the `errno` of the system.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with write_atomic(target) as f:
    ...     _ = f.write(b"whole")
    >>> target.read_bytes()
    b'whole'
    """
    with (
        _refusals(Path(path)),
        _part(Path(path), ".tmp") as (handle, _),
        os.fdopen(handle, "wb") as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def make_atomic(path: str | Path) -> Iterator[Path]:
    """`write_atomic` for libraries that write by name: gives the name of an empty file beside.

    Raises
    ------
    FormatError
        As `write_atomic`.
    """
    path = Path(path)
    with _refusals(path), _part(path, f".tmp{path.suffix}") as (handle, part):
        os.close(handle)
        yield part
        _sync(part)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the disk refuses, as one sentence."""
    if not path.parent.is_dir():
        raise FormatError(f"{path} cannot be written: there is no folder {path.parent}. Make it.")
    try:
        yield
    except GrevyError:
        raise
    except OSError as error:
        refused = FormatError(
            f"{path} cannot be written: {error.strerror or error}. Whatever had this name is as it "
            f"was; make room or give the right to write there, or name another place."
        )
        refused.errno = error.errno
        raise refused from error


@contextmanager
def _part(path: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    """A temporary file that takes the name in the end, or is removed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=suffix)
    try:
        yield handle, Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):  # a disk that became read-only keeps it
            Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name itself must reach the disk
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Have the system put a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
