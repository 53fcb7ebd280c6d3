"""Digests of files as DANDI lists them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

__all__ = ["etag_of", "sha256_of"]

_PIECE = 1 << 20
_PART, _MOST_PARTS = 64 << 20, 10_000


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    whole = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for _ in range(n_parts):
            one, left = hashlib.md5(usedforsecurity=False), part
            while left and (piece := file.read(min(_PIECE, left))):
                one.update(piece)
                left -= len(piece)
            whole.update(one.digest())
    return f"{whole.hexdigest()}-{n_parts}"
