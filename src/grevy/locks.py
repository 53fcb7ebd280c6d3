"""Files that one process holds at a time, and the folders that it may work in."""

from __future__ import annotations

import errno
import os
import platform
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .atomic import NO_LINK, is_part
from .errors import ConfigError, GrevyError, LockedError

__all__ = ["hold", "hold_folder", "left_by_killed", "refuse_foreign"]

_LOCK = ".lock"

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
    ConfigError
        If the name is that of something else: a link, a folder, a file with a second name.
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
        else:
            os.ftruncate(handle, 0)
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
            stack.enter_context(hold(folder / _LOCK, str(folder), advice=advice))
        except GrevyError:
            raise
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be written: {error.strerror}. Name another one, or "
                f"make room or give the right to write there."
            ) from error
        yield


def left_by_killed(folder: Path) -> bool:
    """Whether a process held a folder and did not live to its end, or holds it now."""
    try:
        return (folder / _LOCK).lstat().st_size > 0
    except OSError:
        return False


def refuse_foreign(folder: Path, mark: str, *, advice: str) -> None:
    """Refuse a folder of somebody else's: what is written there would replace their files.

    Parameters
    ----------
    folder : Path
        Ours if it is new or empty (but for what a process that was killed at once leaves), or if
        it holds
    mark : str
        a file of this name, the first that is written.
    advice : str

    Raises
    ------
    ConfigError
    """
    if not folder.is_dir() or (folder / mark).is_file():
        return
    begun = folder / mark
    others = [p.name for p in folder.iterdir() if p.name != _LOCK and not is_part(p.name, begun)]
    if others:
        raise ConfigError(
            f"{folder} must be new or empty, or hold a {mark} from before; found '{min(others)}' "
            f"and no {mark}. {advice}"
        )


def _take(path: Path, what: str, advice: str) -> int:
    """A handle of the locked file that bears the name now."""
    while True:
        handle, ours = _open(path)
        try:
            _lock(handle)
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace") or "another process"
            os.close(handle)
            if error.errno not in _HELD:
                raise
            raise LockedError(f"{what} is in use by {holder}; {advice}") from error
        named = _named(handle, path)
        if named and ours:
            return handle
        os.close(handle)
        if named:  # nobody holds that of another user; who does now could not be written in it
            path.unlink()
        # Else its holder removed it between our opening and locking it.


def _open(path: Path) -> tuple[int, bool]:
    """A handle of the lock's file, and whether it can be written."""
    ours = True
    if path.is_symlink():
        raise _no_lock(path, "a link")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
    except OSError as error:
        if error.errno != errno.EACCES or not path.exists():
            raise
        ours, handle = False, os.open(path, os.O_RDONLY | NO_LINK)
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink < 2:
        return handle, ours
    os.close(handle)
    raise _no_lock(path, "another name of some file" if found.st_nlink > 1 else "no file")


def _no_lock(path: Path, found: str) -> ConfigError:
    """What is written into a lock would be written into that."""
    return ConfigError(f"the lock {path} must be a file of its own; found {found}. Remove it.")


def _named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
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
