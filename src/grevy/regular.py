"""Files that can be read: a pipe or a device would be waited for without end."""

from __future__ import annotations

import stat
from pathlib import Path

from .errors import FormatError

__all__ = ["size_of"]


def size_of(path: Path, what: str) -> int:
    """Bytes of a file, which must be a regular one (or a link to it).

    Parameters
    ----------
    path : Path
    what : str
        What it is to be, for the message: "a data file".

    Raises
    ------
    FormatError
        If it is absent, a folder, a pipe or a device.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise FormatError(f"{what} must be readable; {path}: {error.strerror}.") from error
    if stat.S_ISDIR(about.st_mode):
        raise FormatError(f"{what} must be readable; {path}: Is a directory.")
    if not stat.S_ISREG(about.st_mode):
        raise FormatError(
            f"{what} must be a regular file; {path} is none, but a pipe or a device. Write its "
            f"content to a file first."
        )
    return about.st_size
