"""Parts of a file over HTTP, and a file filled by them: the bytes asked for, or trouble."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .http import Trouble, Web, answer, patiently

if TYPE_CHECKING:
    import requests

__all__ = ["Part", "fill", "open_partial", "part_of"]

_PIECE = 1 << 16
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


@dataclass(frozen=True)
class Part:
    """Bytes of a file on their way.

    Attributes
    ----------
    start : int
        Where they begin: 0 if the server sends the whole file instead.
    length : int
        How many there are.
    etag : str
        What the server calls this state of the file, "" where it does not say.
    url : str
        Where they come from; a signed link is never shown.
    pieces : iterator of bytes
        Raises `Trouble` if there are fewer or more than announced.
    """

    start: int
    length: int
    etag: str
    url: str
    pieces: Iterator[bytes]


@contextmanager
def part_of(
    web: Web, url: str, start: int, stop: int, *, size: int, etag: str = ""
) -> Iterator[Part]:
    """Ask for bytes [start, stop) of a file of `size` bytes, in the state `etag` if that is given.

    Raises
    ------
    Trouble
        If the answer is not a part of a file of that size.
    """
    wanted = {"Range": f"bytes={start}-{stop - 1}"} | ({"If-Range": etag} if etag else {})
    with answer(web, url, **wanted) as got:
        coding = got.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise Trouble(url, "content that was compressed on its way, of which no part can be "
                          "told", "Check whether a proxy does that.")  # fmt: skip
        state = got.headers.get("ETag", "")
        state = "" if state.startswith("W/") else state  # a weak one names no bytes
        begin, length = _announced(got, url, start, stop, size)
        yield Part(begin, length, state, got.url, _pieces(got, url, length))


def _announced(
    got: requests.Response, url: str, start: int, stop: int, size: int
) -> tuple[int, int]:
    """Where the bytes begin and how many there are, as the answer says."""
    if got.status_code == 416:
        raise Trouble(url, f"a file that ends before byte {start}, where DANDI lists {size}")
    if got.status_code == 200:
        length = got.headers.get("Content-Length", str(size))
        if length != str(size):
            raise Trouble(url, f"a file of {length[:20]} bytes where DANDI lists {size}")
        return 0, size
    found = _RANGE.fullmatch(got.headers.get("Content-Range", "").strip())
    first, last, whole = (int(n) for n in found.groups()) if found else (0, 0, -1)
    if found and whole != size:
        raise Trouble(url, f"a file of {whole} bytes where DANDI lists {size}")
    if not found or first != start or not start <= last < stop:
        raise Trouble(url, "another part of the file than the one asked for")
    return start, last + 1 - start


def _pieces(got: requests.Response, url: str, length: int) -> Iterator[bytes]:
    left = length
    for piece in got.iter_content(_PIECE):
        left -= len(piece)
        if left < 0:
            raise Trouble(url, "more bytes than it announced")
        yield piece
    if left:
        raise Trouble(url, f"{length - left} bytes of {length}", passes=True)


def open_partial(path: Path) -> BinaryIO:
    """Open a file for writing at any place, made if it is not there; never what a link points to.

    Raises
    ------
    OSError
        If it is a link, or cannot be written.
    """
    how = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, how, 0o666), "r+b")


def fill(
    web: Web, urls: tuple[str, ...], path: Path, size: int, on_progress: Callable[[int, int], None]
) -> None:
    """Fetch what a file lacks of its `size` bytes; what there is of it is taken for the beginning.

    The first attempt asks the first address, each later one the next; the last is asked again.

    Raises
    ------
    NetworkError
        If trouble does not pass. What was fetched is kept.
    """
    state, n = "", 0

    def attempt() -> None:
        nonlocal state, n
        have = path.stat().st_size
        on_progress(have, size)
        if have == size:
            return
        where, n = urls[min(n, len(urls) - 1)], n + 1
        with part_of(web, where, have, size, size=size, etag=state) as got:
            if got.start and state and got.etag != state:
                with open_partial(path) as file:
                    file.truncate(0)
                state = ""
                raise Trouble(where, "content that changed on its way", passes=True)
            state = got.etag
            with open_partial(path) as file:
                file.truncate(got.start)
                file.seek(got.start)
                for piece in got.pieces:
                    file.write(piece)
                    on_progress(file.tell(), size)

    while path.stat().st_size < size:
        patiently(web.retry, attempt, done=lambda: path.stat().st_size)
    on_progress(size, size)
