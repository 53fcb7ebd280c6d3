"""Writing files whole or not at all: every file that grevy leaves behind is written here."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import FormatError, GrevyError

__all__ = [
    "NO_LINK",
    "append_line",
    "is_part",
    "make_atomic",
    "refusals",
    "remove_parts",
    "short_name",
    "write_atomic",
]

_PART = re.compile(r"\..{1,40}\.[0-9a-f]{8}\.[a-z0-9_]{8}\.tmp(\.[^.]*)?", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)
"""What file systems without hard links say."""
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Opens no file through a link, where the system can."""


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
        refusals(Path(path)),
        _part(Path(path), ".tmp") as (handle, _),
        os.fdopen(handle, "wb") as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def make_atomic(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """`write_atomic` for libraries that write by name: gives the name of an empty file beside.

    Parameters
    ----------
    path : path
    new : bool
        Never put it in the place of a file that has the name by then.

    Raises
    ------
    FormatError
        As `write_atomic`; with `new` also if the name is taken.
    """
    path = Path(path)
    with refusals(path), _part(path, f".tmp{path.suffix}", new=new) as (handle, part):
        os.close(handle)
        yield part
        _sync(part)


def short_name(path: Path) -> str:
    """Begins the names of what is kept beside a file while it is written; never another file's."""
    return f".{path.name[:40]}.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"


def is_part(name: str, of: Path | None = None) -> bool:
    """Whether a name is one that temporary files get here, of a certain file or of any."""
    ours = _PART.fullmatch(name) is not None
    return ours and (of is None or name.startswith(f"{short_name(of)}."))


def remove_parts(folder: Path, of: Path | None = None) -> None:
    """Remove the temporary files that a killed process left; only for who holds the lock."""
    if folder.is_dir() and not folder.is_symlink():
        for left in folder.iterdir():
            if is_part(left.name, of):
                left.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Put a whole line at the end of a file, in one write and never behind half of another.

    Raises
    ------
    FormatError
        If it is a link, or the disk does not take it.
    """
    with refusals(path):
        if path.is_symlink():  # and the line would be written into whatever file it names
            raise FormatError(f"{path} must be a file of its own; found a link. Remove it.")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINK, 0o666)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.lseek(handle, size - 1, 0) >= 0 and os.read(handle, 1) != b"\n"
            os.write(handle, ("\n" * torn + line + "\n").encode("utf-8", "backslashreplace"))
        finally:
            os.close(handle)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the disk refuses, as one sentence, a `FormatError`."""
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
def _part(path: Path, suffix: str, *, new: bool = False) -> Iterator[tuple[int, Path]]:
    """A temporary file that takes the name in the end, or is removed."""
    prefix = f"{short_name(path)}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    try:
        yield handle, Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        if new:
            _name_new(Path(name), path)
        else:
            os.replace(name, path)
    except BaseException:
        with suppress(OSError):  # a disk that became read-only keeps it
            Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name itself must reach the disk
        _sync(path.parent)


def _name_new(part: Path, path: Path) -> None:
    """Give a file its name, unless another has it: a link is refused then, a renaming is not."""
    try:
        os.link(part, path)
    except OSError as error:
        if os.path.lexists(path):
            raise FormatError(
                f"{path} exists and is not written over. Name another file."
            ) from None
        if error.errno not in _NO_LINKS:
            raise
        os.replace(part, path)
    else:
        part.unlink()


def _sync(path: Path) -> None:
    """Have the system put a file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
