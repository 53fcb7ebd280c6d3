"""Files that one process holds at a time."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import ConfigError, GrevyError, LockedError

__all__ = ["hold", "hold_folder"]

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def hold(path: Path, what: str, *, advice: str) -> Iterator[None]:
    """Hold a lock for as long as the block runs; the system frees it if the process dies.

    Parameters
    ----------
    path : Path
        File of the lock. It says who holds it, and is removed at the end.
    what, advice : str
        What is in use, and what to do about it, for the message.

    Raises
    ------
    LockedError
        If another process holds it; says which, and on which machine.
    OSError
        If the file cannot be written, or the file system knows no locks.
    """
    handle = _take(path, what, advice)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{platform.node()}:{os.getpid()}".encode())
        yield
    finally:
        if os.name == "posix":  # an open file cannot be removed elsewhere; it may stay
            path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def hold_folder(folder: Path, *, advice: str = "wait for it or use --out.") -> Iterator[None]:
    """Make a folder if it is absent, and hold it by a file in it for as long as the block runs.

    Parameters
    ----------
    folder : Path
    advice : str

    Raises
    ------
    ConfigError
        If it cannot be written.
    LockedError
        If another process holds it; says which, and on which machine.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder / ".lock", str(folder), advice=advice))
        except GrevyError:
            raise
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be written: {error.strerror}. Name another one, or "
                f"make room or give the right to write there."
            ) from error
        yield


def _take(path: Path, what: str, advice: str) -> int:
    """A handle of the locked file that bears the name now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            if _named(handle, path):
                return handle
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            if error.errno not in _HELD:
                raise
            raise LockedError(f"{what} is in use by {holder}; {advice}") from error
        os.close(handle)  # its holder removed it between our opening and locking it


def _named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> None:
    """Take a file for this process, or raise OSError."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
