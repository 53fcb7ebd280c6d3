"""What the archive says about one file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from ..errors import DataError, NetworkError
from .address import UUID, VERSION, Address, file_name, parse
from .http import Retry, Web, fetch_json, open_web

__all__ = ["Asset", "require_file", "resolve"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[0-9a-f]{32}-\d{1,5}")


@dataclass(frozen=True)
class Asset:
    """A file of the archive.

    Attributes
    ----------
    address : Address
        With the version that was found; without dandiset where only an id was given.
    asset_id : str
        A UUID; an asset of a published version never changes.
    path : str
        Inside the dandiset, as the archive has it: no path of this machine.
    size : int
        In bytes.
    sha256, etag : str
        Digests in hexadecimal, "" where the archive lists none. `etag` is DANDI's, made of the MD5s
        of parts.
    urls : tuple of str
        Where the archive says that the content lies.
    is_zarr : bool
        Whether it is a folder of Zarr and no file.
    is_embargoed : bool
        Whether only its owners may read it.
    api : str
        Base of the API that said so.
    """

    address: Address
    asset_id: str
    path: str
    size: int
    sha256: str = ""
    etag: str = ""
    urls: tuple[str, ...] = ()
    is_zarr: bool = False
    is_embargoed: bool = False
    api: str = ""

    @property
    def name(self) -> str:
        """A name for the file on this machine."""
        return file_name(self.path)

    @property
    def url(self) -> str:
        """Address that finds this very asset again."""
        return str(self.address) if self.address.path else f"{self.api}/assets/{self.asset_id}/"

    @property
    def content_url(self) -> str:
        """Where the API hands out a link to the content."""
        return f"{self.api}/assets/{self.asset_id}/download/"


def resolve(address: str | Address, *, api: str | None = None, retry: Retry | None = None) -> Asset:
    """Ask the archive about a file.

    Parameters
    ----------
    address : str or Address
        As `parse` reads it. Without a version the most recent published one is taken, or the draft
        where none is published.
    api : str, optional
        Base of the REST API; `GREVY_DANDI_API` or dandiarchive.org by default.
    retry : Retry, optional

    Returns
    -------
    Asset

    Raises
    ------
    ConfigError
        If the address is none.
    DataError
        If the dandiset has no such file, or a folder of that name.
    NetworkError
        If the archive cannot be reached, or answers wrongly.
    """
    with open_web(api, retry) as web:
        where = address if isinstance(address, Address) else parse(address, api=web.api)
        if where.path:
            version = where.version or _latest(web, where.dandiset)
            where = replace(where, version=version)
            where = replace(where, asset_id=_find(web, where))
        return _asset(web, where, fetch_json(web, f"/assets/{where.asset_id}/info/"))


def require_file(asset: Asset) -> None:
    """Say what to do about an asset that is a folder of Zarr.

    Raises
    ------
    DataError
        If it is.
    """
    if asset.is_zarr:
        raise DataError(
            f"the recording must be one file (HDF5); found that '{asset.path}' is Zarr-backed: a "
            f"folder of many files. Get it with `dandi download {asset.url}` and name the folder, "
            f"which grevy reads."
        )


def _latest(web: Web, dandiset: str) -> str:
    """The most recent published version, else the draft."""
    said = _dict(fetch_json(web, f"/dandisets/{dandiset}/"), web)
    published = said.get("most_recent_published_version")
    version = _dict(published, web).get("version") if published else "draft"
    if not isinstance(version, str) or not re.fullmatch(VERSION, version):
        raise _odd(web, "a version that is no number")
    return version


def _find(web: Web, where: Address) -> str:
    """The id of the asset with this very path; the API looks for beginnings of paths."""
    page = f"/dandisets/{where.dandiset}/versions/{quote(where.version)}/assets/"
    said = _dict(fetch_json(web, page, path=where.path, order="path", page_size="100"), web)
    results = said.get("results")
    if not isinstance(results, list):
        raise _odd(web, "no list of assets")
    found = {str(r.get("path")): str(r.get("asset_id")) for r in results if isinstance(r, dict)}
    if where.path in found:
        return _id(web, found[where.path])
    place = f"version {where.version} of dandiset {where.dandiset}"
    inside = [p for p in found if p.startswith(f"{where.path}/")]
    if inside:
        listed = ", ".join(f"'{p}'" for p in inside[:5])
        raise DataError(
            f"the address must name a file; found that '{where.path}' is a folder of {place}, with "
            f"{listed}{' and others' if len(inside) > 5 else ''}. Name one of them."
        )
    near = get_close_matches(where.path, found or _names(web, page, where), n=3, cutoff=0.6)
    hint = f" Near it are: {', '.join(near)}." if near else ""
    raise DataError(f"{place} must have the file '{where.path}'; found none.{hint} Check the path.")


def _names(web: Web, page: str, where: Address) -> list[str]:
    """Some of the paths beside one that is not there."""
    folder = where.path.rpartition("/")[0]
    said = _dict(fetch_json(web, page, path=folder, order="path", page_size="100"), web)
    return [str(r.get("path")) for r in said.get("results") or () if isinstance(r, dict)]


def _asset(web: Web, where: Address, said: Any) -> Asset:
    """The archive's answer, checked: its texts become names of files and addresses."""
    about = _dict(said, web)
    more = about.get("metadata")
    more = more if isinstance(more, dict) else {}
    path, size = about.get("path"), about.get("size")
    if not isinstance(path, str) or not path:
        raise _odd(web, "an asset without path")
    if not isinstance(size, int) or not 0 <= size < 2**62:
        raise _odd(web, "an asset without size")
    if where.path and where.path != path:
        raise _odd(web, "another asset than the one asked for")
    digests = more.get("digest")
    digests = digests if isinstance(digests, dict) else {}
    sha256, etag = (str(digests.get(f"dandi:{k}", "")).lower() for k in ("sha2-256", "dandi-etag"))
    access, urls = more.get("access"), more.get("contentUrl")
    statuses = [a.get("status") for a in access or () if isinstance(a, dict)]
    return Asset(
        address=where,
        asset_id=_id(web, where.asset_id),
        path=path,
        size=size,
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        etag=etag if _ETAG.fullmatch(etag) else "",
        urls=tuple(u for u in urls if isinstance(u, str)) if isinstance(urls, list) else (),
        is_zarr=bool(about.get("zarr")) or more.get("encodingFormat") == "application/x-zarr",
        is_embargoed="dandi:EmbargoedAccess" in statuses,
        api=web.api,
    )


def _dict(said: Any, web: Web) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise _odd(web, "a list or value where facts by name were expected")
    return said


def _id(web: Web, text: str) -> str:
    if not re.fullmatch(UUID, text):
        raise _odd(web, "an id that is no UUID")
    return text


def _odd(web: Web, found: str) -> NetworkError:
    return NetworkError(
        f"the API at {web.api} must answer as DANDI's does; found {found}. Check GREVY_DANDI_API."
    )
