"""Digests of files and folders as DANDI lists them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["etag_of", "md5_of", "sha256_of", "tree_digest"]

_PIECE = 1 << 20
_PART, _MOST_PARTS = 64 << 20, 10_000


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal: the storage's own name for what lies in a folder of Zarr."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def etag_of(path: Path) -> str:
    """DANDI's etag of a file: S3's of an upload in parts of the size that DANDI uploads in.

    Notes
    -----
    The MD5 of the MD5s of the parts, and their number. Parts are of 64 MiB, or, where those were
    10,000 or more, a 10,000th of the file.
    """
    size = path.stat().st_size
    part = _PART if math.ceil(size / _PART) < _MOST_PARTS else math.ceil(size / _MOST_PARTS)
    n_parts = math.ceil(size / part)
    whole = _md5()
    with path.open("rb") as file:
        for _ in range(n_parts):
            one, left = _md5(), part
            while left and (piece := file.read(min(_PIECE, left))):
                one.update(piece)
                left -= len(piece)
            whole.update(one.digest())
    return f"{whole.hexdigest()}-{n_parts}"


def tree_digest(files: Iterable[tuple[str, int, str]]) -> str:
    """DANDI's checksum of a folder of Zarr ("dandi-zarr-checksum").

    Parameters
    ----------
    files : iterable of (str, int, str)
        Path inside the folder, its parts divided by "/"; size in bytes; MD5 in hexadecimal.

    Returns
    -------
    str
        MD5, number of files and bytes of the whole: ``MD5-COUNT--BYTES``.

    Notes
    -----
    A folder's MD5 is that of a text in JSON, without spaces and in ASCII, which lists the digests,
    names and sizes of what lies in it, sorted by name: first of folders, whose digests have the
    form above, then of files. A folder without files is none. What defines the format is what
    computes it at DANDI: zarr_checksum/checksum.py of https://github.com/dandi/zarr_checksum. MD5
    tells damage and other versions; a forger could make two files of one MD5.

    Examples
    --------
    >>> tree_digest([])
    '481a2f77ab786a0f45aafd5db0971caa-0--0'
    """
    within: dict[str, list[list[dict[str, Any]]]] = {"": [[], []]}
    count = {"": 0}
    for path, size, md5 in files:
        folder, _, name = path.rpartition("/")
        above = folder
        while above not in within:
            within[above], count[above] = [[], []], 0
            above = above.rpartition("/")[0]
        within[folder][1].append({"digest": md5, "name": name, "size": size})
        count[folder] += 1
    for folder in sorted(within, key=lambda path: path.count("/") + bool(path), reverse=True):
        folders, plain = (sorted(found, key=lambda one: one["name"]) for found in within[folder])
        text = json.dumps({"directories": folders, "files": plain}, separators=(",", ":"))
        size = sum(one["size"] for one in folders + plain)
        digest = f"{_md5(text.encode()).hexdigest()}-{count[folder]}--{size}"
        if folder:
            parent, _, name = folder.rpartition("/")
            within[parent][0].append({"digest": digest, "name": name, "size": size})
            count[parent] += count[folder]
    return digest


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)
