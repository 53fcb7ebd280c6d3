"""What memory there is, and room for arrays that do not fit in it, in files nobody sees."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import LimitError

if sys.platform != "win32":
    import resource

__all__ = ["as_float32", "free_bytes", "refuse_large", "room"]

_log = logging.getLogger("grevy")
_ALWAYS = 2**26
"""Bytes of an array that is never put on disk, and that anything may take."""
_SHARE = 4
"""An array larger than one part in so many of the free memory is."""
_PIECE = 2**22
"""Numbers that are converted at once."""


def free_bytes() -> int:
    """Bytes of memory that may still be taken: the least of what is free and what is allowed."""
    found = [n for n in (_free(), _allowed_by_group(), *_allowed_by_limits()) if n is not None]
    return max(0, min(found, default=2**62))


def refuse_large(n_bytes: int, what: str, advice: str) -> None:
    """Refuse to hold in memory more than half of what is free.

    Raises
    ------
    LimitError
        If so.
    """
    if n_bytes > _ALWAYS and n_bytes > (most := free_bytes() // 2):
        raise LimitError(
            f"{what} must fit into half of the free memory ({most / 1e9:.3g} GB); found "
            f"{n_bytes / 1e9:.3g} GB. {advice}"
        )


def room(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be filled: in memory, or mapped from a file if it is large for what is free.

    The file lies in TMPDIR, else in /var/tmp, else where Python keeps temporary files; it has no
    name and is gone with the array.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    array
        Its numbers may be anything.

    Raises
    ------
    LimitError
        If the disk has no room either.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= _ALWAYS or size <= free_bytes() // _SHARE:
        return np.empty(shape, dtype)
    folder = _folder()
    left = shutil.disk_usage(folder).free
    if size > left:
        raise LimitError(
            f"an array of {size / 1e9:.3g} GB must fit in memory or on disk; found "
            f"{free_bytes() / 1e9:.3g} GB of memory and {left / 1e9:.3g} GB in {folder}. Set "
            f"TMPDIR to a folder with more room, or read a part of the recording."
        )
    _log.info("an array of %.3g GB is kept in a file in %s", size / 1e9, folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), size, folder)
        return np.memmap(file, dtype, "r+", shape=shape)


def _reserve(file: int, size: int, folder: str) -> None:
    """Make the file so long, and the disk keep the room: what is mapped cannot fail to be written.

    Without it a full disk would end the process by a signal.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        raise LimitError(
            f"an array of {size / 1e9:.3g} GB must fit in {folder}; {error.strerror or error}. Set "
            f"TMPDIR to a folder with more room, or read a part of the recording."
        ) from error


def _folder() -> str:
    """Where large temporary files go: /tmp may itself be memory."""
    usual = tempfile.gettempdir()
    if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK):
        return usual
    return "/var/tmp"


def as_float32(x: NDArray[Any]) -> NDArray[np.float32]:
    """An array as float32 numbers whose rows lie together; the array itself if it has them."""
    if x.dtype == np.float32 and x.flags.c_contiguous:
        return x
    out = room(x.shape, np.float32)
    step = max(1, _PIECE // max(1, math.prod(x.shape[1:])))
    with np.errstate(over="ignore"):  # what is too large becomes infinite, for callers to refuse
        for i in range(0, len(x), step):
            out[i : i + step] = x[i : i + step]
    return out


def _free() -> int | None:
    lines = _lines("/proc/meminfo")
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)


def _allowed_by_group() -> int | None:
    """What the control group of this process has left, in either version of Linux's."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        most, now = _lines(limit), _lines(used)
        if most and now and most[0].isdigit():
            # The cache of files counts as used there, and is given back when it is needed.
            cached = next(
                (
                    int(x.split()[1])
                    for x in _lines(str(Path(limit).parent / "memory.stat"))
                    if x.startswith("file ")
                ),
                0,
            )
            return int(most[0]) - int(now[0]) + cached
    return None


def _allowed_by_limits() -> list[int]:
    """What the limits of the process leave, beside what it has."""
    if sys.platform == "win32":
        return []
    status = {x.split(":")[0]: x.split() for x in _lines("/proc/self/status")}
    found = []
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY and name in status:
            found.append(soft - int(status[name][1]) * 1024)
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
