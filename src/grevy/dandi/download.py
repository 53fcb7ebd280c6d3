"""Download from the archive: resumed where it broke off, and under its name only if verified.

The bytes go to a hidden file (or folder) beside the target, whose name holds the digest that they
are to have; it survives a crash, and the next call asks for the rest. The whole is then read back
and its digest compared with the archive's before it takes its name in one step.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, DataError, GrevyError, LimitError, NetworkError
from ..locks import hold
from .asset import Asset, resolve
from .digests import etag_of, sha256_of
from .folders import fetch_entries, files_in, holds, list_entries, prepare
from .http import Retry, Web, open_web
from .ranges import fill, open_partial

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
    known = asset.tree or asset.sha256[:16] or asset.etag or asset.asset_id
    return Path(cache or cache_root()) / "dandi" / known


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
    """Download a file, or a folder of Zarr, of the archive into a folder, whole and verified.

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
        Of the file or folder. One that was there is verified anew and, if it holds what the
        archive lists, returned without a byte being fetched.

    Raises
    ------
    ConfigError
        If the address is none, or the folder cannot be written.
    DataError
        If there is no such file, or the archive lists no digest of it.
    LimitError
        If the disk is full; what was fetched is kept.
    LockedError
        If another process downloads the same file into the folder.
    UnsafeFileError
        If a folder of Zarr lists a file outside itself.
    NetworkError
        If the archive cannot be reached, answers wrongly, or sends other bytes than it lists. What
        was fetched is kept in all cases but the last.

    Notes
    -----
    A file of the same name with other content is not trusted and not lost: it gets another name.
    """
    asset = what if isinstance(what, Asset) else resolve(what, api=api, retry=retry)
    if not asset.digest:
        raise DataError(
            f"the archive must list a digest of '{asset.name}' to verify it by; found none. New "
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
    """Whether a file or folder has the size and the digest that the archive lists."""
    if asset.is_zarr:
        return holds(path, asset.tree)
    if not path.is_file() or path.stat().st_size != asset.size:
        return False
    return sha256_of(path) == asset.sha256 if asset.sha256 else etag_of(path) == asset.etag


def _get(web: Web, asset: Asset, target: Path, on_progress: Progress) -> Path:
    """The whole, verified, under its hidden name."""
    part = target.with_name(f".{asset.name}.{asset.digest}.part")
    for other in target.parent.glob(f".{glob.escape(asset.name)}.*.part"):
        if other != part or not _is_own(other) or _size(other) > asset.size:
            _remove(other)  # of another state of the file, or laid there to write elsewhere
    for again in (True, False):
        (_fetch_folder if asset.is_zarr else _fetch)(web, asset, part, on_progress)
        if _verified(part, asset):
            return part
        _remove(part)
        if again:  # what an earlier call left may have been damaged
            _log.info("%s: the digest is not the one listed; fetching it anew", asset.name)
    kind = "checksum" if asset.is_zarr else "sha256" if asset.sha256 else "etag"
    raise NetworkError(
        f"the content of {asset.url} must have the {kind} that DANDI lists, {asset.digest}; found "
        f"another, twice. Nothing was kept. Try again later, or tell the archive."
    )


def _is_own(part: Path) -> bool:
    """Whether a partial file or folder is one, and no link or other name for something else."""
    about = part.lstat()
    return stat.S_ISDIR(about.st_mode) or (stat.S_ISREG(about.st_mode) and about.st_nlink == 1)


def _fetch(web: Web, asset: Asset, part: Path, on_progress: Progress) -> None:
    """Fill the partial file up to the asset's size."""
    open_partial(part).close()
    _begin(asset, part, _size(part), "")
    fill(web, (asset.content_url,), part, asset.size, on_progress)


def _fetch_folder(web: Web, asset: Asset, part: Path, on_progress: Progress) -> None:
    """Complete the partial folder."""
    entries = list_entries(web, asset)
    _begin(asset, part, prepare(part, entries), f" in {len(entries)} files")
    fetch_entries(web, asset, part, entries, on_progress)


def _begin(asset: Asset, part: Path, have: int, files: str) -> None:
    """Say what is fetched, if there is room for it."""
    if asset.size - have > shutil.disk_usage(part.parent).free:
        raise _full(part.parent, asset, asset.size - have)
    where = f" from {have / 1e6:.4g} MB on" if have else ""
    _log.info("downloading %s (%.4g MB%s)%s", asset.url, asset.size / 1e6, files, where)


def _size(part: Path) -> int:
    return sum((files_in(part) or {}).values()) if part.is_dir() else part.stat().st_size


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        part.unlink()


def _publish(part: Path, target: Path) -> None:
    """Give what was verified its name, once it is on disk."""
    if part.is_dir():  # its files are
        for folder, _, _ in os.walk(part):
            _sync(Path(folder))
    else:
        _sync(part)
    if os.path.lexists(target):
        n = 1
        while os.path.lexists(other := target.with_name(f"{target.stem}.other{n}{target.suffix}")):
            n += 1
        target.rename(other)
        _log.warning("%s was not what the archive lists; it is now %s", target, other.name)
    part.replace(target)
    _sync(target.parent)  # the new name itself must reach the disk


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
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
