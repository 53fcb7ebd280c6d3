"""Recordings of the DANDI archive: found, downloaded so that nothing wrong is kept, or streamed.

::

    parse(text) -> Address             what an address names
    resolve(address) -> Asset          what the archive says about it: size, digests, where it lies
    download(asset, folder) -> Path    resumed where it broke off, verified before it has its name
    open_remote(asset) -> RemoteFile   for h5py; fetches only what is read

    address.py  addresses, file names       http.py      tries, waits, redirects, the key
    asset.py    the archive's REST API      ranges.py    parts of a file that belong together
    download.py, digests.py                 folders.py   folders of Zarr: their list, their files
    remote.py   reading without download                 pace.py      what comes too slowly

The API is that of `GREVY_DANDI_API`, else of dandiarchive.org. A key in `DANDI_API_KEY` is sent to
the API's own host and nowhere else. Neither it nor the query of an address, where links to the
storage are signed, is in any message, log or file.
"""

from __future__ import annotations

from .address import Address, is_address, parse, refuse_address
from .asset import Asset, resolve
from .download import cache_folder, cache_root, download, progress_bar
from .http import Retry
from .remote import RemoteFile, open_remote

__all__ = [
    "Address",
    "Asset",
    "RemoteFile",
    "Retry",
    "cache_folder",
    "cache_root",
    "download",
    "is_address",
    "open_remote",
    "parse",
    "progress_bar",
    "refuse_address",
    "resolve",
]
