"""Folders of Zarr in the archive: what is in them, and all of it fetched.

What the archive lists is compared with the checksum of the whole before a byte is fetched. Names in
the list come from strangers and become paths here, so each is looked at first.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote, urlencode

from ..errors import LimitError, NetworkError, UnsafeFileError
from .asset import Asset, as_dict, odd
from .digests import md5_of, tree_digest
from .http import Web, fetch_json
from .ranges import fill, open_partial

__all__ = ["Entry", "fetch_entries", "files_in", "holds", "list_entries", "prepare"]

_N_THREADS = 8
"""Files are small, so that most of the time is waiting for their first byte."""
_MOST_FILES = 2_000_000
_MOST_DEPTH = 64
_PAGE = 1000
_PARTIAL = ".part-"
"""What begins the name of a file on its way, at the top of the folder: none listed may."""
_LEAVE_S = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a folder: its path in there, its size in bytes, its MD5 in hexadecimal."""

    path: str
    size: int
    md5: str


class _Stopped(Exception):
    """Another thread failed, or the program is to end."""


def list_entries(web: Web, asset: Asset) -> list[Entry]:
    """What the archive lists of a folder, once that agrees with the checksum of the whole.

    Raises
    ------
    LimitError
        If there are too many files.
    NetworkError
        If the archive cannot be reached, or lists other files than its checksum is made of.
    UnsafeFileError
        If a name could lead out of the folder.
    """
    n_files = int(asset.tree.split("-")[1])
    if n_files > _MOST_FILES:
        raise LimitError(
            f"a folder of Zarr must hold at most {_MOST_FILES} files; found that {asset.url} holds "
            f"{n_files}. Get it with other tools and name the folder."
        )
    entries: list[Entry] = []
    more, where = True, {"limit": str(_PAGE)}
    while more and len(entries) <= n_files:
        said = as_dict(fetch_json(web, f"/zarr/{asset.zarr_id}/files/", **where), web)
        results, more = said.get("results"), bool(said.get("next"))
        if not isinstance(results, list) or (more and not results):
            raise odd(web, "no list of files")
        for one in results:
            entry = _entry(web, asset, one)
            # As the storage sorts: so no page comes twice, and no name.
            if entries and entry.path.encode() <= entries[-1].path.encode():
                raise odd(web, "files that are not in order")
            entries.append(entry)
        if entries:
            where["after"] = entries[-1].path
    found = tree_digest((e.path, e.size, e.md5) for e in entries)
    if found != asset.tree:
        raise NetworkError(
            f"the files of {asset.url} must have the checksum that DANDI lists, {asset.tree}; "
            f"found that those listed have {found}, as while it is changed. Nothing was fetched. "
            f"Try again later, or tell the archive."
        )
    folders = {str(above) for e in entries for above in PurePosixPath(e.path).parents}
    for entry in entries:
        if entry.path in folders:
            raise _unsafe(asset, entry.path, "is a file and a folder")
    return entries


def _entry(web: Web, asset: Asset, said: Any) -> Entry:
    """One line of the list, checked."""
    about = as_dict(said, web)
    path, size, etag = about.get("Key"), about.get("Size"), about.get("ETag")
    if not isinstance(path, str) or not isinstance(etag, str):
        raise odd(web, "a file without name or digest")
    if type(size) is not int or not 0 <= size <= asset.size:
        raise odd(web, "a file larger than its folder, or without size")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _unsafe(asset, path, "leads elsewhere")
    if "\\" in path or not path.isprintable() or (os.name == "nt" and ":" in path):
        raise _unsafe(asset, path, "has characters that no name of a file should have")
    longest = max(len(part.encode()) for part in parts)
    if longest > 255 or len(path.encode()) > 1024 or len(parts) > _MOST_DEPTH:
        raise _unsafe(asset, path, "is too long")
    if path.startswith(_PARTIAL):
        raise _unsafe(asset, path, "is one that files on their way have")
    if not re.fullmatch(r"[0-9a-f]{32}", etag):
        raise NetworkError(
            f"each file of {asset.url} must be listed with its MD5; found another digest for "
            f"{_short(path)}. Get the folder with `dandi download` and name it."
        )
    return Entry(path, size, etag)


def _unsafe(asset: Asset, path: str, found: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"names of files in {asset.url} must stay inside it; found one that {found}: "
        f"{_short(path)}. Nothing was fetched. Tell the archive."
    )


def _short(path: str) -> str:
    return ascii(path if len(path) <= 80 else f"{path[:80]}...")


def files_in(folder: Path) -> dict[str, int] | None:
    """Sizes of all files in a folder by their paths, None if it holds a link or what is no file."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    sizes: dict[str, int] = {}
    todo = [""]
    while todo:
        at = todo.pop()
        with os.scandir(folder / at) as there:
            for one in there:
                if one.is_dir(follow_symlinks=False):
                    todo.append(f"{at}{one.name}/")
                elif one.is_file(follow_symlinks=False):
                    sizes[f"{at}{one.name}"] = one.stat(follow_symlinks=False).st_size
                else:
                    return None
    return sizes


def holds(folder: Path, tree: str) -> bool:
    """Whether a folder holds what a checksum was made of: these files and no others."""
    sizes = files_in(folder)
    if sizes is None or not tree.endswith(f"-{len(sizes)}--{sum(sizes.values())}"):
        return False
    return tree == tree_digest((p, size, md5_of(folder / p)) for p, size in sizes.items())


def prepare(folder: Path, entries: Iterable[Entry]) -> int:
    """Make a folder, or leave of one that broke off what can be used; returns bytes there are."""
    there = files_in(folder)
    if there is None:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        return 0
    whole = {e.path: e.size for e in entries}
    begun = {f"{_PARTIAL}{i}": e.size for i, e in enumerate(entries)}
    have = 0
    for path, size in there.items():
        if size == whole.get(path) or size <= begun.get(path, -1):
            have += size
        else:
            (folder / path).unlink()
    return have


def fetch_entries(
    web: Web,
    asset: Asset,
    folder: Path,
    entries: list[Entry],
    on_progress: Callable[[int, int], None],
) -> None:
    """Fetch all files that are not there yet, several at a time.

    Threads do it; what they bring and why they fail is told to this one, which alone calls
    `on_progress`. At an end before the end none is waited for long: a server may be silent.

    Raises
    ------
    NetworkError
        If trouble does not pass, or a file is another than listed, twice. What there is is kept.
    """
    todo, next_one = iter(enumerate(entries)), threading.Lock()
    news: SimpleQueue[int | BaseException | None] = SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        try:
            while True:
                with next_one:
                    job = next(todo, None)
                if job is None:
                    break
                _fetch_one(web, asset, folder, *job, news, stop)
            news.put(None)
        except BaseException as error:  # whatever it is, the thread that waits must hear of it
            news.put(error)

    threads = [
        threading.Thread(target=work, daemon=True) for _ in range(min(_N_THREADS, len(entries)))
    ]
    done, n_working = 0, len(threads)
    try:
        for thread in threads:
            thread.start()
        while n_working:
            match news.get():
                case None:
                    n_working -= 1
                case int(more):
                    done += more
                    on_progress(done, asset.size)
                case error:
                    raise error
    finally:
        stop.set()
        leave = time.monotonic() + _LEAVE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, leave - time.monotonic()))


def _fetch_one(
    web: Web,
    asset: Asset,
    folder: Path,
    i: int,
    entry: Entry,
    news: SimpleQueue[int | BaseException | None],
    stop: threading.Event,
) -> None:
    """Have one file, which takes its name once it has its MD5."""
    told = 0

    def tell(have: int, _: int) -> None:
        nonlocal told
        if stop.is_set():
            raise _Stopped
        news.put(have - told)
        told = have

    target, partial = folder / entry.path, folder / f"{_PARTIAL}{i}"
    if target.is_file() and target.stat().st_size == entry.size and md5_of(target) == entry.md5:
        tell(entry.size, entry.size)
        return
    for again in (True, False):
        open_partial(partial).close()
        fill(web, _links(asset, entry), partial, entry.size, tell)
        if md5_of(partial) == entry.md5:
            break
        partial.unlink()  # what an earlier call left may have been damaged
        if not again:
            raise NetworkError(
                f"{_short(entry.path)} of {asset.url} must have the MD5 that DANDI lists, "
                f"{entry.md5}; found another, twice. Try again later, or tell the archive."
            )
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)


def _links(asset: Asset, entry: Entry) -> tuple[str, ...]:
    """Where a file lies: in the open storage if that is listed, else where the API sends us."""
    schemes = {"https", asset.api.partition(":")[0]}
    place = re.compile(rf"({'|'.join(schemes)})://[^?#]+/zarr/{asset.zarr_id}/")
    found = [u for u in asset.urls if place.fullmatch(u)][: not asset.is_embargoed]
    asked = urlencode({"prefix": entry.path, "download": "true"})
    return (
        *(f"{u}{quote(entry.path)}" for u in found),
        f"{asset.api}/zarr/{asset.zarr_id}/files/?{asked}",
    )
