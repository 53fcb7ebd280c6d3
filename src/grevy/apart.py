"""Look at a file in a process of its own, which may hang or die in the place of this one.

HDF5 believes some damage: a heap of strings that was overwritten with zeros makes the library loop
without end inside one call, which nothing in the same process can stop. So the first who opens a
file is a child with limits on the time that it computes and on its memory. It ends by a signal
where a library loops or faults, and that becomes one sentence. Waiting for a slow disk or network
does not count. This keeps bad files from taking the caller along, and a caller that is told to end
ends the child, whatever a library does in there; it is no wall against code that runs in the child.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import DataError, GrevyError, LimitError
from .room import free_bytes

__all__ = ["answer", "ask"]

LIMIT_S = 20.0
"""Seconds that a small file may be computed on; a large one has more."""
BYTES_PER_S = 10e6
LIMIT_BYTES = 4 << 30
"""Memory that a child may always take; it may take half of what is free, too."""


def ask(
    child: str,
    path: str | os.PathLike[str],
    *,
    limit_s: float | None = None,
    n_bytes: int | None = None,
    task: Any = None,
) -> Any:
    """What a child says of a file, which it is not trusted with.

    Parameters
    ----------
    child : str
        The program of the child, which calls `answer`.
    path : path
    limit_s : float, optional
        Seconds of computing; by default 20, and one more for every 10 MB of the file.
    n_bytes : int, optional
        How large it is, where it is no file of this machine: a folder, or far away.
    task : JSON, optional
        What the child is to look at, where that is more than the path.

    Returns
    -------
    dict
        What `answer` was given, or "error" and "says" of a GrevyError; empty where there is no
        such file, or no child can be started.

    Raises
    ------
    DataError
        If the child hangs or crashes.
    LimitError
        If it takes more than 4 GiB of memory and more than half of what is free.
    """
    file = Path(path)
    if not sys.executable or (n_bytes is None and not file.is_file()):
        return {}
    size = file.stat().st_size if n_bytes is None else n_bytes
    limit = limit_s or LIMIT_S + size / BYTES_PER_S
    most = max(LIMIT_BYTES, free_bytes() // 2)
    asked = json.dumps([task or os.fspath(path), max(1, round(limit)), most])
    # -P: a folder of strangers' files is no place to import from.
    done = subprocess.run(
        [sys.executable, "-P", "-c", child], input=asked.encode(), capture_output=True, check=False
    )
    hint = "Part of it is damaged, or made to do that: compare its checksum, copy it again."
    if not 0 <= done.returncode < 256:  # Windows has no signals, but large codes
        end = _death(-done.returncode, limit) if done.returncode < 0 else "crashed"
        raise DataError(
            f"{file.name} must be a whole file; found that the library which reads it {end} on it. "
            f"{hint}"
        )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {}
    if isinstance(said, dict) and said.get("error") == "MemoryError":
        raise LimitError(
            f"{file.name} must be read within {most / 1e9:.3g} GB of memory; found that it takes "
            f"more. {hint}"
        )
    return said if isinstance(said, dict) else {}


def _death(number: int, limit: float) -> str:
    """What a signal says that the library did."""
    import signal

    if number == getattr(signal, "SIGXCPU", None):
        return f"did not come to an end in {limit:.0f} s"
    return f"crashed ({signal.Signals(number).name})"


def answer(look: Callable[[Any], dict[str, Any]]) -> None:
    """The child: look at what standard input names, within the limits, and say what is."""
    task, seconds, n_bytes = json.loads(sys.stdin.buffer.read())
    if sys.platform != "win32":
        import resource

        # Imports came before the file and are not its fault. Of memory the private part counts:
        # recordings larger than it are mapped from files.
        limits = (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds),
            (resource.RLIMIT_DATA, n_bytes),
        )
        for kind, most in limits:
            hard = resource.getrlimit(kind)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, hard))
    said: dict[str, Any]
    try:
        said = look(task)
    except GrevyError as error:
        said = {"error": type(error).__name__, "says": str(error)}
    except MemoryError:
        said = {"error": "MemoryError"}
    sys.stdout.write(json.dumps(said))
