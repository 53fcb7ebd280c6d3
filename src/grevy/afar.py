"""Describe a recording of DANDI by the parts that are needed, in a process of its own.

What comes from afar is trusted less than any file here: `grevy.apart` says why it needs a child.
The child asks the archive itself; a key comes to it by the environment alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .apart import ask
from .dandi import Address, Asset, open_remote
from .nwb import Description, describe, to_json
from .nwb.apart import description_of

__all__ = ["describe_afar"]

_CHILD = "from grevy.apart import answer; from grevy.afar import _look; answer(_look)"
_MOST_BYTES = 10**9
"""No more of a file is computed on, however large the archive says that it is."""


def describe_afar(asset: Asset, *, limit_s: float | None = None) -> Description:
    """`describe` of a file that is streamed.

    Parameters
    ----------
    asset : Asset
    limit_s : float, optional
        Seconds of computing, as for a file; waiting for the network does not count.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        If HDF5 hangs or crashes on the file, it is Zarr-backed, or as `describe` says.
    LimitError, UnsafeFileError
        As `describe` says.
    NetworkError
        If the archive cannot be reached, or answers wrongly.
    """
    size = min(asset.size, _MOST_BYTES)
    found = ask(_CHILD, asset.url, limit_s=limit_s, n_bytes=size, task=asdict(asset))
    return description_of(found) or _streamed(asset)  # no child could be started


def _look(told: dict[str, Any]) -> dict[str, Any]:
    """Describe what is streamed, in the child."""
    about = told | {"address": Address(**told["address"]), "urls": tuple(told["urls"])}
    return {"description": to_json(_streamed(Asset(**about)))}


def _streamed(asset: Asset) -> Description:
    with open_remote(asset) as remote:
        return describe(remote)
