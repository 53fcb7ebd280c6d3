"""Look at a data file in a process of its own first: `grevy.apart` says why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..apart import ask
from ..regular import size_of
from .opening import kind_of
from .read import load_data

__all__ = ["refuse_hanging"]

_CHILD = "from grevy.apart import answer; from grevy.loading.apart import _look; answer(_look)"
_OF_LIBRARIES = ("hdf5", "matlab", "excel")
"""Formats whose structure is read by other libraries, not by grevy's own readers."""
_WHOLE_BYTES = 64 << 20
"""Of larger datasets only a row is looked at."""


def refuse_hanging(path: str | os.PathLike[str], *, limit_s: float | None = None) -> None:
    """Refuse a file that a library cannot be trusted with; other faults are left to `load_data`.

    Parameters
    ----------
    path : path
    limit_s : float, optional
        Seconds of computing; by default 20, and one more for every 10 MB of the file.

    Raises
    ------
    DataError
        If looking at it hangs or crashes the process that does it.
    FormatError
        If it is no file but a pipe or a device.
    LimitError
        If that takes more memory than there is for it.
    """
    if Path(path).exists():
        size_of(Path(path), "a data file")
    try:
        foreign = kind_of(Path(path)) in _OF_LIBRARIES
    except Exception:  # which `load_data` then says
        return
    if foreign:
        ask(_CHILD, path, limit_s=limit_s)


def _look(path: str) -> dict[str, Any]:
    """Go over all of a file, in the child."""
    if kind_of(Path(path)) != "hdf5":
        load_data(path)
        return {}
    import h5py

    def touch(name: str, thing: Any) -> None:
        dict(thing.attrs)
        if isinstance(thing, h5py.Dataset) and not thing.is_virtual and thing.external is None:
            whole = thing.nbytes <= _WHOLE_BYTES or not thing.shape
            thing[()] if whole else thing[:1]

    with h5py.File(path, "r") as file:
        file.visititems(touch)  # follows no links
    return {}
