"""Download a file of the archive: resumed where it broke off, and under its name only if verified.

The bytes go to a hidden file beside the target, whose name holds the digest that they are to have;
it survives a crash, and the next call asks for the rest. The whole file is then read back and its
digest compared with the archive's before it takes its name in one step.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, DataError, GrevyError, LimitError, NetworkError
from ..locks import hold
from .asset import Asset, require_file, resolve
from .digests import etag_of, sha256_of
from .http import Retry, Trouble, Web, open_web, patiently
from .ranges import part_of

__all__ = ["cache_folder", "cache_root", "download", "progress_bar"]

_log = logging.getLogger("grevy")
Progress = Callable[[int, int], None]


def cache_root() -> Path:
    """Where recordings are kept between runs: XDG_CACHE_HOME/grevy, else ~/.cache/grevy."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grevy"


def cache_folder(asset: Asset, cache: str | Path | None = None) -> Path:
    """Where a run keeps an asset, below `cache` or `cache_root`.

    Assets of equal content share a folder; others never do.
    """
    return (
        Path(cache or cache_root()) / "dandi" / (asset.sha256[:16] or asset.etag or asset.asset_id)
    )


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """A bar on the terminal, for the `on_progress` of `download`."""
    from tqdm import tqdm

    with tqdm(disable=quiet, unit="B", unit_scale=True, desc="downloading", delay=0.2) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress


def download(
    what: str | Asset,
    folder: str | Path,
    *,
    on_progress: Progress | None = None,
    api: str | None = None,
    retry: Retry | None = None,
) -> Path:
    """Download a file of the archive into a folder, whole and verified.

    Parameters
    ----------
    what : str or Asset
        An address as `resolve` takes it, or what that returned.
    folder : path
        It is made if it is not there.
    on_progress : callable, optional
        Called with the bytes that are there and the bytes of the whole.
    api : str, optional
        Base of the REST API.
    retry : Retry, optional

    Returns
    -------
    Path
        Of the file. A verified one that was there is returned without a byte being fetched.

    Raises
    ------
    ConfigError
        If the address is none, or the folder cannot be written.
    DataError
        If there is no such file, it is Zarr-backed, or the archive lists no digest of it.
    LimitError
        If the disk is full; what was fetched is kept.
    LockedError
        If another process downloads the same file into the folder.
    NetworkError
        If the archive cannot be reached, answers wrongly, or sends other bytes than it lists. What
        was fetched is kept in all cases but the last.

    Notes
    -----
    A file of the same name with other content is not trusted and not lost: it gets another name.
    """
    asset = what if isinstance(what, Asset) else resolve(what, api=api, retry=retry)
    require_file(asset)
    if not (asset.sha256 or asset.etag):
        raise DataError(
            f"the archive must list a digest of '{asset.path}' to verify it by; found none. New "
            f"files get theirs within minutes: try again later."
        )
    target = Path(folder) / asset.name
    try:
        if _verified(target, asset):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            hold(
                target.with_name(f".{asset.name}.lock"),
                str(target),
                advice="wait until it is there, and run the same command again.",
            ),
            open_web(asset.api, retry) as web,
        ):
            if not _verified(target, asset):  # another process may just have finished it
                part = _get(web, asset, target, on_progress or (lambda done, total: None))
                _publish(part, target)
    except GrevyError:
        raise
    except OSError as error:
        raise _of_the_disk(target.parent, asset, error) from error
    return target


def _verified(path: Path, asset: Asset) -> bool:
    """Whether a file has the size and the digest that the archive lists."""
    if not path.is_file() or path.stat().st_size != asset.size:
        return False
    return sha256_of(path) == asset.sha256 if asset.sha256 else etag_of(path) == asset.etag


def _get(web: Web, asset: Asset, target: Path, on_progress: Progress) -> Path:
    """The whole file, verified, under its hidden name."""
    part = target.with_name(f".{asset.name}.{asset.sha256 or asset.etag}.part")
    for other in target.parent.glob(f".{glob.escape(asset.name)}.*.part"):
        if other != part or other.stat().st_size > asset.size:
            other.unlink()  # of another state of the file
    for again in (True, False):
        _fetch(web, asset, part, on_progress)
        if _verified(part, asset):
            return part
        part.unlink()
        if again:  # the partial file may have been damaged
            _log.info("%s: the digest is not the one listed; fetching it anew", asset.name)
    kind, listed = ("sha256", asset.sha256) if asset.sha256 else ("etag", asset.etag)
    raise NetworkError(
        f"the content of {asset.url} must have the {kind} that DANDI lists, {listed}; found "
        f"another, twice. Nothing was kept. Try again later, or tell the archive."
    )


def _fetch(web: Web, asset: Asset, part: Path, on_progress: Progress) -> None:
    """Fill the partial file up to the asset's size."""
    part.touch()
    have = _size(part)
    room = shutil.disk_usage(part.parent).free
    if asset.size - have > room:
        raise _full(part.parent, asset, asset.size - have)
    where = f" from {have / 1e6:.4g} MB on" if have else ""
    _log.info("downloading %s (%.4g MB)%s", asset.url, asset.size / 1e6, where)
    state = ""

    def attempt() -> None:
        nonlocal state
        have = _size(part)
        on_progress(have, asset.size)
        if have == asset.size:
            return
        where = asset.content_url
        with part_of(web, where, have, asset.size, size=asset.size, etag=state) as got:
            if got.start and state and got.etag != state:
                os.truncate(part, 0)
                state = ""
                raise Trouble(where, "content that changed on its way", passes=True)
            state = got.etag
            with part.open("r+b") as file:
                file.truncate(got.start)
                file.seek(got.start)
                for piece in got.pieces:
                    file.write(piece)
                    on_progress(file.tell(), asset.size)

    while _size(part) < asset.size:
        patiently(web.retry, attempt, done=lambda: _size(part))
    on_progress(asset.size, asset.size)


def _size(part: Path) -> int:
    return part.stat().st_size


def _publish(part: Path, target: Path) -> None:
    """Give a verified file its name, once it is on disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    if os.path.lexists(target):
        n = 1
        while os.path.lexists(other := target.with_name(f"{target.stem}.other{n}{target.suffix}")):
            n += 1
        target.rename(other)
        _log.warning("%s was not the file of the archive; it is now %s", target, other.name)
    part.replace(target)
    if os.name == "posix":  # the new name itself must reach the disk
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _full(folder: Path, asset: Asset, more: int) -> LimitError:
    left = shutil.disk_usage(folder).free
    return LimitError(
        f"{folder} must have room for {more / 1e6:.4g} MB more of {asset.name}; found "
        f"{left / 1e6:.4g} MB. Make room and run the same command again (it goes on from what is "
        f"there), or choose another folder."
    )


def _of_the_disk(folder: Path, asset: Asset, error: OSError) -> GrevyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        have = sum(_size(p) for p in folder.glob(f".{glob.escape(asset.name)}.*.part"))
        return _full(folder, asset, max(0, asset.size - have))
    return ConfigError(
        f"the folder {folder} must be one that can be written; found: {error.strerror or error}. "
        f"Choose another, or mend its permissions."
    )
