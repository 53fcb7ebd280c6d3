"""Look at a file in a process of its own, which may hang or die in the place of this one.

HDF5 believes some damage: a heap of strings that was overwritten with zeros makes the library loop
without end inside one call, which nothing in the same process can stop. So the first who opens a
file is a child with a limit on the time that it computes. It ends by a signal where HDF5 loops or
faults, and that becomes one sentence. Waiting for a slow disk does not count. This keeps bad files
from taking the caller along; it is no wall against code that runs in the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import DataError, GrevyError, LimitError, UnsafeFileError
from .describe import describe
from .facts import Description, to_json
from .zarr import folder_bytes, is_zarr

__all__ = ["describe_apart", "refuse_hanging"]

LIMIT_S = 20.0
"""Seconds that a small file may be computed on; a large one has more."""

BYTES_PER_S = 10e6

_CHILD = "from grevy.nwb.apart import _serve; _serve()"


def describe_apart(path: str | os.PathLike[str], *, limit_s: float | None = None) -> Description:
    """`describe` in a process of its own.

    Parameters
    ----------
    path : path
    limit_s : float, optional
        Seconds of computing; by default 20, and one more for every 10 MB of the file.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        If HDF5 hangs or crashes on the file, or as `describe` says.
    LimitError, UnsafeFileError
        As `describe` says.
    """
    found = _ask(path, limit_s)
    if "description" in found:
        from pydantic import TypeAdapter

        return TypeAdapter(Description).validate_python(found["description"])
    if "error" in found:
        kinds = {kind.__name__: kind for kind in (LimitError, UnsafeFileError)}
        raise kinds.get(found["error"], DataError)(found["says"])
    return describe(path)  # no child could be started


def refuse_hanging(path: str | os.PathLike[str], *, limit_s: float | None = None) -> None:
    """Refuse a file that HDF5 cannot be trusted with; other faults are left to who reads it.

    Raises
    ------
    DataError
        If describing it hangs or crashes the process that does it.
    """
    _ask(path, limit_s)


def _ask(path: str | os.PathLike[str], limit_s: float | None) -> dict[str, Any]:
    """What the child says: a description, an error, or nothing."""
    file = Path(path)
    if not sys.executable or not (file.is_file() or is_zarr(file)):
        return {}
    size = folder_bytes(file) if file.is_dir() else file.stat().st_size
    limit = limit_s or LIMIT_S + size / BYTES_PER_S
    task = json.dumps([os.fspath(path), max(1, round(limit))])
    # -P: a folder of strangers' files is no place to import from.
    child = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD], input=task.encode(), capture_output=True, check=False
    )
    if not 0 <= child.returncode < 256:  # Windows has no signals, but large codes
        end = _death(-child.returncode, limit) if child.returncode < 0 else "crashed"
        raise DataError(
            f"{file.name} must be a whole recording; found that the library reading it {end}. Part "
            f"of it is damaged, or made to do that: compare its checksum, copy it again."
        )
    try:
        said = json.loads(child.stdout)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _death(number: int, limit: float) -> str:
    """What a signal says that the library did."""
    import signal

    if number == getattr(signal, "SIGXCPU", None):
        return f"did not come to an end in {limit:.0f} s"
    return f"crashed ({signal.Signals(number).name})"


def _serve() -> None:
    """The child: describe the file that standard input names, within the limit."""
    path, limit = json.loads(sys.stdin.buffer.read())
    if sys.platform != "win32":
        import resource

        for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, limit)):
            hard = resource.getrlimit(kind)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, hard))
    said: dict[str, Any]
    try:
        said = {"description": to_json(describe(path))}
    except GrevyError as error:
        said = {"error": type(error).__name__, "says": str(error)}
    sys.stdout.write(json.dumps(said))
