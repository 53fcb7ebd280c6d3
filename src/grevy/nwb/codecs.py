"""What the chunks of a Zarr array hold, unpacked without running or believing what they say.

Only codecs that can do no more than unpack are known here; pickle is not. What a chunk says of its
size is compared with what it may hold before anything is allocated.
"""

from __future__ import annotations

import bz2
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, LimitError, MissingExtraError, UnsafeFileError

__all__ = ["COMPRESSORS", "FILTERS", "objects", "refuse_codec", "shuffled", "unpack"]

COMPRESSORS = ("blosc", "bz2", "gzip", "lz4", "zlib", "zstd")
FILTERS = ("json2", "shuffle", "vlen-bytes", "vlen-utf8")


def refuse_codec(codec: str, where: str) -> None:
    """Refuse a codec that is not known to be harmless.

    Raises
    ------
    DataError, UnsafeFileError
        If it is not read, or runs code.
    """
    if codec in ("pickle", "pickle2"):
        raise UnsafeFileError(
            f"'{where}' must be stored by a codec that runs no code; found 'pickle'. It is not "
            f"read; have it written with another object codec (hdmf-zarr's object_codec_class)."
        )
    if codec not in COMPRESSORS + FILTERS:
        raise DataError(
            f"'{where}' must be stored by {', '.join(COMPRESSORS + FILTERS)}; found '{codec}'. "
            f"Export it with one of these."
        )


def unpack(raw: bytes, codec: Mapping[str, Any] | None, most: int, where: str) -> bytes:
    """The bytes of a chunk, which may be `most`.

    Raises
    ------
    DataError
        If they are damaged.
    LimitError
        If they are more.
    """
    kind = "" if codec is None else str(codec.get("id"))
    try:
        match kind:
            case "":
                content = raw
            case "zlib" | "gzip":
                content = zlib.decompressobj(47).decompress(raw, most + 1)
            case "bz2":
                content = bz2.BZ2Decompressor().decompress(raw, most + 1)
            case _:
                _refuse_more(_declared(kind, raw), most, where)
                content = bytes(_numcodecs().get_codec({"id": kind}).decode(raw))
    except (zlib.error, OSError, EOFError, ValueError, RuntimeError, TypeError) as error:
        raise _damaged(where, str(error)) from error
    _refuse_more(len(content), most, where)
    return content


def _damaged(where: str, reason: str) -> DataError:
    return DataError(
        f"the chunks of '{where}' must be whole; found: {reason or 'damage'}. "
        f"Copy the folder again."
    )


def _refuse_more(n_bytes: int, most: int, where: str) -> None:
    if n_bytes > most:
        raise LimitError(
            f"a chunk of '{where}' must hold {most} bytes at most; found {n_bytes} or more. The "
            f"folder is damaged or forged."
        )


def _declared(kind: str, raw: bytes) -> int:
    """How many bytes a chunk says that it unpacks to."""
    match kind:
        case "blosc":
            return int.from_bytes(raw[4:8], "little")
        case "lz4":
            return int.from_bytes(raw[:4], "little")
    if raw[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("no frame of zstd")
    flags = raw[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if not width:
        raise ValueError("a frame of zstd without its size")
    return int.from_bytes(raw[at : at + width], "little") + (256 if width == 2 else 0)


def shuffled(content: bytes, codec: Mapping[str, Any]) -> bytes:
    """Bytes put back in their order."""
    size = codec.get("elementsize")
    if not isinstance(size, int) or size < 1:
        return content
    whole = len(content) // size * size
    order = np.frombuffer(content[:whole], np.uint8).reshape(size, -1).T
    return order.tobytes() + content[whole:]


def objects(content: bytes, codec: Mapping[str, Any], n: int, where: str) -> NDArray[np.object_]:
    """The `n` strings, or other things of JSON, of a chunk.

    Raises
    ------
    DataError
        If there are others.
    """
    kind = codec.get("id")
    if kind == "json2":
        try:
            items = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _damaged(where, str(error)) from error
        # values, then their type and shape, which are not believed
        found = items[:-2] if isinstance(items, list) else []
        values = _flat(found, n) if items[-1:] != [[]] else found
    else:
        if int.from_bytes(content[:4], "little") != n or 4 * n > len(content):
            raise _damaged(where, f"{int.from_bytes(content[:4], 'little')} values for {n}")
        library = _numcodecs()
        how = library.VLenUTF8() if kind == "vlen-utf8" else library.VLenBytes()
        try:
            values = list(how.decode(content))
        except (ValueError, RuntimeError, TypeError, UnicodeDecodeError) as error:
            raise _damaged(where, str(error)) from error
    if len(values) != n:
        raise _damaged(where, f"{len(values)} values for {n}")
    array = np.empty(n, object)
    array[:] = values
    return array


def _flat(items: list[Any], n: int) -> list[Any]:
    """Nested lists as one, where that gives the values that there should be."""
    while len(items) != n and items and all(isinstance(i, list) for i in items):
        items = [value for item in items for value in item]
    return items


def _numcodecs() -> Any:
    try:
        import numcodecs
    except ImportError as error:
        raise MissingExtraError(
            "Zarr folders are read with numcodecs, which is not installed. "
            "Run: pip install 'grevy[zarr]'"
        ) from error
    return numcodecs
