"""Look at an NWB file in a process of its own first: `grevy.apart` says why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..apart import ask
from ..errors import ConfigError, DataError, LimitError, NetworkError, UnsafeFileError
from .describe import describe
from .facts import Description, to_json
from .zarr import folder_bytes, is_zarr

__all__ = ["describe_apart", "description_of", "refuse_hanging"]

_CHILD = "from grevy.apart import answer; from grevy.nwb.apart import _look; answer(_look)"


def describe_apart(
    path: str | os.PathLike[str], *, limit_s: float | None = None, allow_external: bool = False
) -> Description:
    """`describe` in a process of its own.

    Parameters
    ----------
    path : path
    limit_s : float, optional
        Seconds of computing; by default 20, and one more for every 10 MB of the file.
    allow_external : bool
        Whether the file may point to data in other files.

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
    found = description_of(_ask(path, limit_s, allow_external))
    return found or describe(path, allow_external=allow_external)  # no child could be started


def description_of(found: Any) -> Description | None:
    """What a child found, None where it said nothing.

    Raises
    ------
    ConfigError, DataError, LimitError, NetworkError, UnsafeFileError
        If the child met it.
    """
    if "description" in found:
        from pydantic import TypeAdapter

        return TypeAdapter(Description).validate_python(found["description"])
    if "error" in found:
        kinds = (ConfigError, LimitError, NetworkError, UnsafeFileError)
        raise {k.__name__: k for k in kinds}.get(found["error"], DataError)(found["says"])
    return None


def refuse_hanging(
    path: str | os.PathLike[str], *, limit_s: float | None = None, allow_external: bool = False
) -> None:
    """Refuse a file that HDF5 cannot be trusted with; other faults are left to who reads it.

    Parameters as of `describe_apart`.

    Raises
    ------
    DataError
        If describing it hangs or crashes the process that does it.
    LimitError
        If that takes more memory than there is for it.
    """
    _ask(path, limit_s, allow_external)


def _ask(path: str | os.PathLike[str], limit_s: float | None, allow_external: bool) -> Any:
    file = Path(path)
    n_bytes = folder_bytes(file) if is_zarr(file) else None
    task = [os.fspath(path), allow_external]
    return ask(_CHILD, path, limit_s=limit_s, n_bytes=n_bytes, task=task)


def _look(task: tuple[str, bool]) -> dict[str, Any]:
    path, allow_external = task
    return {"description": to_json(describe(path, allow_external=allow_external))}
