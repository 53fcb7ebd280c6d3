"""A file of the archive as an open file, of which only what is read is fetched."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import NetworkError
from .asset import Asset, require_file
from .http import Retry, Trouble, Web, open_web, patiently
from .ranges import part_of

__all__ = ["RemoteFile", "open_remote"]

BLOCK_BYTES = 256 << 10
"""A file's objects lie scattered: larger blocks fetch more that nobody reads, smaller ones ask
more often. Of 64 kB to 1 MB this gives the fewest bytes at some forty requests for the layout of
DANDI 000036 (benchmarks/streaming.py)."""
AHEAD_BYTES = 8 << 20
"""At most so much is fetched at once: reading on and on doubles it from one block."""
MEMORY_BYTES = 256 << 20
"""What was read last stays in memory, up to here."""


@contextmanager
def open_remote(
    asset: Asset, *, retry: Retry | None = None, memory_bytes: int = MEMORY_BYTES
) -> Iterator[RemoteFile]:
    """Open a file of the archive for reading what is needed of it, as with h5py.

    Parameters
    ----------
    asset : Asset
        As `resolve` returned it.
    retry : Retry, optional
    memory_bytes : int
        What was read is kept in memory up to here.

    Yields
    ------
    RemoteFile

    Raises
    ------
    DataError
        If it is Zarr-backed.

    Notes
    -----
    Its digest is one of the whole file, so what is streamed is not verified: size and state are
    (ETag, every answer has to have the same), and that each part is the one asked for.
    """
    require_file(asset)
    with open_web(asset.api, retry) as web:
        remote = RemoteFile(web, asset, memory_bytes)
        try:
            yield remote
        finally:
            remote.close()


class RemoteFile:
    """A binary file that is read over HTTP, in blocks: `open_remote` opens one.

    Attributes
    ----------
    name : str
        Address of the asset.
    size : int
        In bytes.
    failure : str
        Why a read failed, "" while none did. From then on every read fails: HDF5 turns some
        failures into objects that seem not to be there, and whoever asked must be able to tell.
    n_requests, n_bytes : int
        What was fetched so far.
    """

    def __init__(self, web: Web, asset: Asset, memory_bytes: int) -> None:
        self.name, self.size = asset.url, asset.size
        self.failure = ""
        self.n_requests = self.n_bytes = 0
        self._web, self._content_url = web, asset.content_url
        self._link = self._state = ""  # where the API sent us last, and what it called the content
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._most_blocks = max(1, memory_bytes // BLOCK_BYTES)
        self._at = 0
        self._next, self._ahead = (
            -1,
            1,
        )  # the block after those fetched last, and how many these were

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r})"

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next read, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def flush(self) -> None:
        """Nothing: h5py asks for it."""

    def close(self) -> None:
        """Forget what was read, and read no more."""
        self._blocks.clear()
        self.failure = self.failure or f"{self.name} must be open to be read; found it closed."

    def read(self, n: int = -1) -> bytes:
        """The next `n` bytes, or all to the end.

        Raises
        ------
        NetworkError
            If they cannot be had.
        """
        left = max(0, self.size - self._at)
        stop = self._at + (left if n < 0 else min(n, left))
        pieces = []
        while self._at < stop:
            block, inside = divmod(self._at, BLOCK_BYTES)
            data = self._block(block, (stop - 1) // BLOCK_BYTES)
            pieces.append(data[inside : inside + stop - self._at])
            self._at += len(pieces[-1])
        return b"".join(pieces)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer from here on; returns how many bytes there were.

        Raises
        ------
        NetworkError
            If they cannot be had.
        """
        try:
            out = memoryview(buffer).cast("B")
            data = self.read(len(out))
            out[: len(data)] = data
            return len(data)
        except NetworkError:
            # An error's frames may live to the end of the interpreter, but HDF5's buffer must not
            # be in them: freeing it then ends the process by a fault.
            del buffer, out
            raise

    def _block(self, i: int, last: int) -> bytes:
        """Block `i`; if it has to be fetched, those up to `last` that are not there come along."""
        if i not in self._blocks:
            self._ahead = min(2 * self._ahead, AHEAD_BYTES // BLOCK_BYTES) if i == self._next else 1
            end = max(i + self._ahead, min(last + 1, i + AHEAD_BYTES // BLOCK_BYTES))
            end = min(end, -(-self.size // BLOCK_BYTES), i + self._most_blocks)
            end = next((j for j in range(i, end) if j in self._blocks), end)
            data = self._fetch(i * BLOCK_BYTES, min(end * BLOCK_BYTES, self.size))
            for j in range(i, end):
                at = (j - i) * BLOCK_BYTES
                self._blocks[j] = data[at : at + BLOCK_BYTES]
            self._next = end
            while len(self._blocks) > self._most_blocks:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(i)
        return self._blocks[i]

    def _fetch(self, start: int, stop: int) -> bytes:
        if not self.failure:
            try:
                return patiently(self._web.retry, lambda: self._attempt(start, stop))
            except NetworkError as error:
                self.failure = str(error)
        raise NetworkError(self.failure)

    def _attempt(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), from the link that worked last, or a new one."""
        link, self._link = self._link or self._content_url, ""
        self.n_requests += 1
        with part_of(self._web, link, start, stop, size=self.size) as got:
            if (got.start, got.length) != (start, stop - start):
                raise Trouble(link, "another part of the file than the one asked for",
                              "Download it: grevy download.")  # fmt: skip
            if self._state and got.etag != self._state:
                raise Trouble(link, "content that changed while it was read", "Begin anew.")
            data = b"".join(got.pieces)
        self._state, self._link = got.etag, got.url
        self.n_bytes += len(data)
        return data
